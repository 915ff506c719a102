//! Routing as a table: a statement, its parameters, and where it goes.

mod access;
mod footprints;
mod homes;
mod protection;
mod refusals;
mod shards;
mod values;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::base::{Refusal, Role, ShardId};
use crate::config::{TableName, TableRule};
use crate::shard::{HashFunction, KeyType, KeyValue, Map, Range};
use crate::sql::{LiteralKind, Parser};

fn range(from: Option<i64>, to: Option<i64>, shard: u16) -> Range {
    Range { from: from.map(KeyValue::Int), to: to.map(KeyValue::Int), shard: ShardId(shard) }
}

/// Users below 100 live on s0, below 200 on s1, below 300 on s2, others nowhere. Docs are hashed by name.
fn maps() -> Vec<Arc<Map>> {
    let users =
        vec![range(None, Some(100), 0), range(Some(100), Some(200), 1), range(Some(200), Some(300), 2)];
    let time = |text: &str| KeyType::Timestamptz.parse_text(text, true).unwrap();
    let year = time("2026-01-01T00:00:00Z");
    let times = vec![
        Range { from: None, to: Some(year.clone()), shard: ShardId(0) },
        Range { from: Some(year), to: None, shard: ShardId(1) },
    ];
    let slots = [0, 1, 2, 0].map(ShardId).to_vec();
    vec![
        Arc::new(Map::range("by_user", &[KeyType::Bigint.into()], users).unwrap()),
        Arc::new(Map::range("by_time", &[KeyType::Timestamptz.into()], times).unwrap()),
        Arc::new(Map::hash("by_name", &[KeyType::Text.into()], HashFunction::Xxh3, slots).unwrap()),
        Arc::new(
            Map::range(
                "by_small",
                &[KeyType::Smallint.into()],
                vec![range(None, Some(0), 0), range(Some(0), None, 1)],
            )
            .unwrap(),
        ),
    ]
}

fn tables() -> BTreeMap<TableName, TableRule> {
    let name = |schema: Option<&str>, name: &str| TableName {
        schema: schema.map(str::to_owned),
        name: name.to_owned(),
    };
    let sharded = |map, key: &str| TableRule::Sharded { map, key: vec![key.to_owned()] };
    BTreeMap::from([
        (name(None, "users"), sharded(0, "user_id")),
        (name(None, "orders"), sharded(0, "user_id")),
        (name(None, "items"), sharded(0, "owner")),
        (name(None, "Big Table"), sharded(0, "Key Col")),
        (name(Some("app"), "accounts"), sharded(0, "user_id")),
        (name(None, "events"), sharded(1, "at")),
        (name(None, "docs"), sharded(2, "name")),
        (name(None, "smalls"), sharded(3, "k")),
        (name(None, "countries"), TableRule::Reference),
        (name(None, "currencies"), TableRule::Reference),
    ])
}

fn router() -> Router {
    router_of(3)
}

fn router_of(shards: usize) -> Router {
    let names = (0..shards).map(|it| format!("s{it}")).collect();
    Router::of_parts(names, maps(), tables(), 1_000, Arc::new(Parser::new()))
}

/// Any shard is s2 here, so that a guess of the first shard would show.
fn session() -> SessionView {
    SessionView { entropy: 2, utc: true, ..SessionView::default() }
}

fn decide_in(
    router: &Router,
    sql: &str,
    params: &[Option<&str>],
    session: &SessionView,
) -> Result<Decision, Refusal> {
    let planned = router.plan(sql);
    let values: Vec<Option<&[u8]>> = params.iter().map(|it| it.map(str::as_bytes)).collect();
    let params = (!values.is_empty()).then_some(Params { oids: &[], formats: &[], values: &values });
    let keys = KeySource { text: sql, literals: &planned.literals, params };
    let decision = router.decide(&planned.plan, &keys, session);
    // The cached plan says the same.
    let again = router.plan(sql);
    assert_eq!(again.literals, planned.literals);
    assert_eq!(router.decide(&again.plan, &keys, session), decision, "{sql}");
    decision
}

/// `s1`, `s1 replica`, `any`, `scatter s0 s1 replica`, `merge s0 s1`, `everywhere`, `in turn`, or `! reason: message`.
fn said(decision: &Result<Decision, Refusal>) -> String {
    let decision = match decision {
        Ok(decision) => decision,
        Err(refusal) => return format!("! {}: {}", refusal.reason().label(), refusal.message()),
    };
    let names: Vec<String> = decision.shards.iter().map(|it| format!("s{}", it.0)).collect();
    let shards = match (decision.mode, decision.why) {
        (Mode::One, Why::Anywhere | Why::NoRow) => {
            assert_eq!(names, ["s2"], "any shard is the one that entropy names");
            "any".to_owned()
        }
        (Mode::One, _) => {
            assert_eq!(names.len(), 1);
            names.join(" ")
        }
        (Mode::Scatter, _) => format!("scatter {}", names.join(" ")),
        (Mode::Merge, _) => format!("merge {}", names.join(" ")),
        (Mode::Everywhere, _) => "everywhere".to_owned(),
        (Mode::OnePhase, _) => format!("each {}", names.join(" ")),
        (Mode::Split, _) => format!("split {}", names.join(" ")),
        (Mode::Copy, _) => "copy".to_owned(),
        (Mode::InTurn, _) => "in turn".to_owned(),
    };
    if decision.role == Role::Replica { format!("{shards} replica") } else { shards }
}

/// The text with other literals of the same kinds.
fn with_other_literals(sql: &str) -> String {
    let mut text = sql.to_owned();
    for literal in crate::sql::scan(sql).literals.iter().rev() {
        let other = match literal.kind {
            LiteralKind::Integer => "0",
            LiteralKind::Float => "9.5",
            LiteralKind::String => "'on'",
            LiteralKind::EscapeString => "E'\\n'",
            LiteralKind::UnicodeString => "U&'x'",
            LiteralKind::DollarString => "$$x$$",
            LiteralKind::Bits => "B'1'",
            LiteralKind::HexBits => "X'1'",
        };
        text.replace_range(literal.start as usize..literal.end as usize, other);
    }
    text
}

/// A plan that was made for other literals decides as one made for these.
fn plan_is_shared(shards: usize, session: &SessionView, sql: &str, params: &[Option<&str>]) {
    let (fresh, primed) = (router_of(shards), router_of(shards));
    primed.plan(&with_other_literals(sql));
    let decide = |router| decide_in(router, sql, params, session);
    assert_eq!(decide(&primed), decide(&fresh), "{sql}");
    assert_eq!(primed.plan(sql).plan.kind, fresh.plan(sql).plan.kind, "{sql}");
    assert_eq!(primed.plan(sql).plan.access, fresh.plan(sql).plan.access, "{sql}");
}

fn check_in(router: &Router, session: &SessionView, sql: &str, params: &[Option<&str>], expect: &str) {
    let got = said(&decide_in(router, sql, params, session));
    plan_is_shared(router.shard_count(), session, sql, params);
    // A refusal is named by its reason and a part of its message.
    let holds = match expect.strip_prefix("! ").and_then(|it| it.split_once(": ")) {
        Some((reason, part)) => got.starts_with(&format!("! {reason}: ")) && got.contains(part),
        None => got == expect,
    };
    assert!(holds, "{sql}\n  {params:?}\n  expected {expect}\n  got      {got}");
}

fn check(cases: &[(&str, &str)]) {
    let router = router();
    for (sql, expect) in cases {
        check_in(&router, &session(), sql, &[], expect);
    }
}

fn check_params(cases: &[(&str, &[&str], &str)]) {
    let router = router();
    for (sql, params, expect) in cases {
        let params: Vec<Option<&str>> = params.iter().map(|it| (*it != "NULL").then_some(*it)).collect();
        check_in(&router, &session(), sql, &params, expect);
    }
}
