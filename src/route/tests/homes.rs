//! Keys of several columns, pinned keys, tables of one shard, schemas and the default shard.

use super::*;
use crate::shard::{KeyColumn, ListEntry};

const NUMBER: KeyColumn = KeyColumn { key_type: KeyType::Bigint, modifier: None };
const WORD: KeyColumn = KeyColumn { key_type: KeyType::Text, modifier: None };
const FLAG: KeyColumn = KeyColumn { key_type: KeyType::Boolean, modifier: None };

fn pair(number: i64, word: &str) -> KeyValue {
    KeyValue::Row(Box::new([KeyValue::Int(number), KeyValue::Text(word.into())]))
}

/// Notes of (1, a) live on s0, of (1, b) and (2, a) on s1; pages are in ranges with (5, m) between s0 and s1,
/// (5, x) pinned to s2; flags are true on s1 and false on s2.
fn placed() -> Router {
    let entry = |values: &[KeyValue], shard| ListEntry { values: values.to_vec(), shard: ShardId(shard) };
    let notes = vec![entry(&[pair(1, "a")], 0), entry(&[pair(1, "b"), pair(2, "a")], 1)];
    let pages = vec![
        Range { from: None, to: Some(pair(5, "m")), shard: ShardId(0) },
        Range { from: Some(pair(5, "m")), to: None, shard: ShardId(1) },
    ];
    let flags = vec![entry(&[KeyValue::Bool(true)], 1), entry(&[KeyValue::Bool(false)], 2)];
    let pinned = vec![(pair(5, "x"), ShardId(2))];
    let maps = vec![
        Map::list("notes", &[NUMBER, WORD], notes, None).unwrap(),
        Map::range("pages", &[NUMBER, WORD], pages).unwrap().with_pinned(pinned).unwrap(),
        Map::list("flags", &[FLAG], flags, None).unwrap(),
    ];
    let name = |name: &str| TableName { schema: None, name: name.to_owned() };
    let both = |map| TableRule::Sharded { map, key: vec!["n".to_owned(), "w".to_owned()] };
    let tables = BTreeMap::from([
        (name("notes"), both(0)),
        (name("remarks"), both(0)),
        (name("pages"), both(1)),
        (name("flags"), TableRule::Sharded { map: 2, key: vec!["f".to_owned()] }),
        (name("audit"), TableRule::Shard(ShardId(1))),
        (name("jobs"), TableRule::Shard(ShardId(1))),
        (name("mail"), TableRule::Shard(ShardId(0))),
        (name("countries"), TableRule::Reference),
    ]);
    let shards = (0..3).map(|it| format!("s{it}")).collect();
    let maps = maps.into_iter().map(Arc::new).collect();
    Router::of_parts(shards, maps, tables, 1_000, Arc::new(Parser::new()))
}

/// The same where tenant_0 lives on s0 and tenant_1 on s1.
fn tenants() -> Router {
    let schemas = BTreeMap::from([("tenant_0".to_owned(), ShardId(0)), ("tenant_1".to_owned(), ShardId(1))]);
    placed().with_homes(schemas, None)
}

fn check_all(router: &Router, session: &SessionView, cases: &[(&str, &str)]) {
    for (sql, expect) in cases {
        let got = said(&decide_in(router, sql, &[], session));
        let holds = match expect.strip_prefix("! ").and_then(|it| it.split_once(": ")) {
            Some((reason, part)) => got.starts_with(&format!("! {reason}: ")) && got.contains(part),
            None => got == *expect,
        };
        assert!(holds, "{sql}\n  expected {expect}\n  got      {got}");
    }
}

#[test]
fn a_key_of_several_columns_needs_all_of_them() {
    check_all(
        &placed(),
        &session(),
        &[
            ("SELECT * FROM notes WHERE n = 1 AND w = 'a'", "s0 replica"),
            ("SELECT * FROM notes WHERE w = 'b' AND x > 3 AND n = 1", "s1 replica"),
            ("SELECT * FROM notes WHERE (n, w) = (2, 'a')", "s1 replica"),
            ("SELECT * FROM notes WHERE (w, n) = ('a', 2)", "s1 replica"),
            ("SELECT * FROM notes WHERE (n, w) IN ((1, 'b'), (2, 'a'))", "s1 replica"),
            ("SELECT * FROM notes WHERE (n, w) IN ((1, 'a'), (2, 'a'))", "scatter s0 s1 replica"),
            ("SELECT * FROM notes WHERE n IN (1, 2) AND w = 'a'", "scatter s0 s1 replica"),
            ("SELECT * FROM notes WHERE n = ANY ('{2,9}') AND w IN ('a', 'z')", "s1 replica"),
            ("SELECT * FROM notes WHERE n = 1 AND w = 'a' OR n = 2 AND w = 'a'", "scatter s0 s1 replica"),
            ("SELECT * FROM notes WHERE (n = 1 OR n = 2) AND (w = 'a')", "scatter s0 s1 replica"),
            ("SELECT * FROM notes WHERE n = 1", "scatter s0 s1 s2 replica"),
            ("SELECT * FROM notes WHERE w = 'a'", "scatter s0 s1 s2 replica"),
            ("SELECT * FROM notes WHERE n = 1 OR w = 'a'", "scatter s0 s1 s2 replica"),
            ("SELECT * FROM notes WHERE n = 8 AND w = 'a'", "any replica"),
            ("SELECT * FROM notes WHERE n = NULL AND w = 'a'", "any replica"),
            ("UPDATE notes SET x = 1 WHERE n = 2 AND w = 'a'", "s1"),
            ("UPDATE notes SET x = 1 WHERE n = 2", "! multi_shard_write: must name its shard key \"n, w\""),
            ("UPDATE notes SET w = 'b' WHERE n = 2 AND w = 'a'", "! key_update: \"w\" cannot be changed"),
            ("UPDATE notes SET x = 1 WHERE n = 8 AND w = 'a'", "! unmapped_key: no shard"),
            ("INSERT INTO notes (w, x, n) VALUES ('b', 1, 1)", "s1"),
            ("INSERT INTO notes (n, w) VALUES (1, 'b'), (2, 'a')", "s1"),
            ("INSERT INTO notes (n, w) VALUES (1, 'a'), (2, 'a')", "! multi_shard_write: several shards"),
            ("INSERT INTO notes (n, x) VALUES (1, 2)", "! missing_key: lacks its shard key"),
            ("INSERT INTO notes (n, w) VALUES (1, NULL)", "! unmapped_key: null"),
            ("INSERT INTO notes (n, w) SELECT 1, 'b'", "s1"),
            ("INSERT INTO notes (n, w) SELECT n, w FROM remarks WHERE n = 2 AND w = 'a'", "s1"),
            (
                "INSERT INTO notes (n, w) SELECT n, 'a' FROM remarks WHERE n = 2 AND w = 'a'",
                "! missing_key: no constant",
            ),
            (
                "INSERT INTO notes (w, n) SELECT n, w FROM remarks WHERE n = 2 AND w = 'a'",
                "! missing_key: no constant",
            ),
        ],
    );
}

#[test]
fn tables_meet_where_every_column_is_equated() {
    check_all(
        &placed(),
        &session(),
        &[
            ("SELECT * FROM notes JOIN remarks USING (n, w)", "scatter s0 s1 s2 replica"),
            ("SELECT * FROM notes a JOIN remarks b ON a.n = b.n AND a.w = b.w", "scatter s0 s1 s2 replica"),
            (
                "SELECT * FROM notes a JOIN remarks b ON (a.n, a.w) = (b.n, b.w) WHERE a.n = 1 AND b.w = 'b'",
                "s1 replica",
            ),
            ("SELECT * FROM notes NATURAL JOIN remarks", "scatter s0 s1 s2 replica"),
            ("SELECT * FROM notes JOIN remarks USING (n)", "! multi_shard_read: join"),
            ("SELECT * FROM notes a JOIN remarks b ON a.n = b.n AND a.w = b.x", "! multi_shard_read: join"),
            (
                "SELECT * FROM notes a JOIN remarks b ON a.n = b.n WHERE a.w = 'b' AND b.w = 'b' AND a.n = 1",
                "s1 replica",
            ),
        ],
    );
}

#[test]
fn ranges_of_several_columns_are_pruned_by_the_first() {
    check_all(
        &placed(),
        &session(),
        &[
            ("SELECT * FROM pages WHERE n = 5 AND w = 'a'", "s0 replica"),
            ("SELECT * FROM pages WHERE n = 5 AND w = 'm'", "s1 replica"),
            ("SELECT * FROM pages WHERE n = 5 AND w = 'x'", "s2 replica"),
            ("SELECT * FROM pages WHERE n = 4", "s0 replica"),
            ("SELECT * FROM pages WHERE n IN (3, 4)", "s0 replica"),
            ("SELECT * FROM pages WHERE n = 6", "s1 replica"),
            ("SELECT * FROM pages WHERE n = 5", "scatter s0 s1 s2 replica"),
            ("SELECT * FROM pages WHERE w = 'a'", "scatter s0 s1 s2 replica"),
        ],
    );
}

#[test]
fn booleans_are_keywords_and_strings() {
    check_all(
        &placed(),
        &session(),
        &[
            ("SELECT * FROM flags WHERE f = true", "s1 replica"),
            ("SELECT * FROM flags WHERE f = 'off'", "s2 replica"),
            ("SELECT * FROM flags WHERE f = 'yes'::boolean", "s1 replica"),
            ("SELECT * FROM flags WHERE f = 1", "any replica"),
            ("SELECT * FROM flags WHERE f", "scatter s0 s1 s2 replica"),
            ("INSERT INTO flags (f) VALUES (FALSE)", "s2"),
        ],
    );
}

#[test]
fn tables_of_one_shard_are_asked_there() {
    check_all(
        &placed(),
        &session(),
        &[
            ("SELECT count(*) FROM audit", "s1 replica"),
            ("SELECT * FROM audit JOIN jobs ON audit.x > jobs.y ORDER BY 1", "s1 replica"),
            ("SELECT * FROM audit JOIN countries USING (c)", "s1 replica"),
            ("SELECT * FROM audit, notes WHERE n = 2 AND w = 'a'", "s1 replica"),
            ("SELECT * FROM audit WHERE x IN (SELECT x FROM jobs)", "s1 replica"),
            ("SELECT * FROM audit, notes WHERE n = 1 AND w = 'a'", "! multi_shard_read: join"),
            ("SELECT * FROM audit, mail", "! multi_shard_read: join"),
            ("SELECT * FROM audit UNION SELECT * FROM mail", "! multi_shard_read: one shard"),
            ("INSERT INTO audit VALUES (1), (2)", "s1"),
            ("INSERT INTO audit SELECT * FROM jobs", "s1"),
            ("INSERT INTO audit SELECT * FROM mail", "! multi_shard_write: several shards"),
            ("DELETE FROM audit", "s1"),
            (
                "UPDATE audit SET x = 1 FROM notes WHERE n = 1 AND w = 'a'",
                "! multi_shard_write: several shards",
            ),
            ("CREATE TABLE t AS SELECT * FROM audit", "! ddl: one shard"),
            ("SELECT * FROM other", "! unlisted_table: not listed"),
        ],
    );
    let in_transaction = SessionView { in_transaction: true, enlisted: Some(ShardId(0)), ..session() };
    check_all(
        &placed(),
        &in_transaction,
        &[("UPDATE mail SET x = 1", "s0"), ("UPDATE audit SET x = 1", "! multi_shard_write: two shards")],
    );
}

#[test]
fn other_tables_live_on_the_default_shard() {
    let router = placed().with_homes(BTreeMap::new(), Some(ShardId(1)));
    check_all(
        &router,
        &session(),
        &[
            ("SELECT * FROM other, app.another", "s1 replica"),
            ("SELECT * FROM other, audit", "s1 replica"),
            ("DELETE FROM other", "s1"),
            ("SELECT * FROM other, mail", "! multi_shard_read: join"),
            ("SELECT * FROM pg_class", "any"),
        ],
    );
    assert_ne!(router.version(), placed().version());
}

#[test]
fn a_schema_is_a_home() {
    check_all(
        &tenants(),
        &session(),
        &[
            ("SELECT * FROM tenant_1.orders", "s1 replica"),
            ("INSERT INTO tenant_0.orders SELECT * FROM tenant_0.carts", "s0"),
            ("SELECT * FROM tenant_1.orders JOIN public.countries USING (c)", "s1 replica"),
            ("SELECT * FROM tenant_1.orders, tenant_0.orders", "! multi_shard_read: join"),
            ("SELECT * FROM tenant_2.orders", "! unlisted_table: not listed"),
            // Without schema it depends on a search_path that this session has not set.
            ("SELECT * FROM orders", "! unlisted_table: depends on search_path"),
            ("SELECT * FROM countries", "! unlisted_table: depends on search_path"),
            ("SELECT * FROM public.countries", "any replica"),
            ("SELECT * FROM public.notes WHERE n = 1 AND w = 'a'", "s0 replica"),
            ("SELECT 1", "any replica"),
            ("DELETE FROM countries", "! multi_shard_write: on every shard"),
            ("DELETE FROM public.countries", "everywhere"),
        ],
    );
}

#[test]
fn search_path_says_what_a_bare_name_means() {
    let router = tenants();
    let on = |path: &[&str]| SessionView { path: router.path(path), ..session() };
    let tenant = on(&["pg_catalog", "tenant_1", "public"]);
    check_all(
        &router,
        &tenant,
        &[
            ("SELECT * FROM orders", "s1 replica"),
            ("DELETE FROM orders", "s1"),
            ("SELECT * FROM countries", "s1 replica"),
            ("SELECT * FROM notes WHERE n = 2 AND w = 'a'", "s1 replica"),
            // It might be tenant_1's own table on s1, and is another one on s0.
            ("SELECT * FROM notes WHERE n = 1 AND w = 'a'", "! multi_shard_read: search_path begins"),
            ("SELECT * FROM notes", "! multi_shard_read: search_path begins"),
            ("SELECT * FROM public.notes", "scatter s0 s1 s2 replica"),
            ("SELECT * FROM orders, tenant_0.orders", "! multi_shard_read: "),
        ],
    );
    check_all(
        &router,
        &on(&["public"]),
        &[
            ("SELECT * FROM countries", "any replica"),
            ("SELECT * FROM notes", "scatter s0 s1 s2 replica"),
            ("SELECT * FROM orders", "! unlisted_table: in no schema"),
        ],
    );
    assert_eq!(router.path(&["public", "tenant_1"]), Path::Unknown);
    assert_eq!(router.path(&[]), Path::Elsewhere);
    let with_default =
        placed().with_homes(BTreeMap::from([("tenant_0".to_owned(), ShardId(0))]), Some(ShardId(2)));
    let elsewhere = SessionView { path: Path::Elsewhere, ..session() };
    check_all(&with_default, &elsewhere, &[("SELECT * FROM orders", "s2 replica")]);
}

#[test]
fn explain_names_the_kind_of_place() {
    let router = tenants();
    let said = |sql: &str| router.explain(sql, &[]).unwrap_or_else(|it| it);
    for (sql, words) in [
        (
            "SELECT * FROM public.notes WHERE n = 1 AND w = 'a'",
            "notes.n, w = (1, a) (map notes, list entry (1, a), shard s0)",
        ),
        (
            "SELECT * FROM public.pages WHERE n = 5 AND w = 'x'",
            "= (5, x) (map pages, pinned key (5, x), shard s2)",
        ),
        ("SELECT * FROM public.pages WHERE n = 4", ">= (4) and <= (4) (map pages)"),
        ("SELECT * FROM public.audit", "table:   audit (its shard, s1)"),
        ("SELECT * FROM tenant_0.orders", "table:   orders (its schema's shard, s0)"),
        ("SELECT * FROM public.notes WHERE n = 9 AND w = 'a'", "(map notes, in no list entry)"),
    ] {
        assert!(said(sql).contains(words), "{sql}: {}", said(sql));
    }
    let router = placed().with_homes(BTreeMap::new(), Some(ShardId(1)));
    let said = router.explain("SELECT * FROM other", &[]).unwrap();
    assert!(
        said.contains("table:   other (default_shard, s1)") && said.contains("its tables live there"),
        "{said}"
    );
}
