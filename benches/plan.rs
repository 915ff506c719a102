//! What routing costs for a statement that has been seen before (scan, lookup, decision), and for a new one.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use keyway::config::Config;
use keyway::route::{KeySource, Params, Router, SessionView};
use keyway::sql::Parser;

const CONFIG: &str = r#"
listen = "127.0.0.1:6432"
[users.app]
auth = "trust"
[databases.shop.shards.s1]
servers = ["127.0.0.1:5432"]
[databases.shop.shards.s2]
servers = ["127.0.0.1:5433"]
[databases.shop.maps.by_user]
kind = "hash"
type = "bigint"
[databases.shop.tables.users]
map = "by_user"
key = "user_id"
[databases.shop.tables.orders]
map = "by_user"
key = "user_id"
"#;

fn router() -> Router {
    let config = match Config::parse(CONFIG, std::path::Path::new("."), &|_| None) {
        Ok(config) => config,
        Err(problems) => panic!("{problems:?}"),
    };
    Router::new(&config.databases[0], 1_000, Arc::new(Parser::new()))
}

fn benches(criterion: &mut Criterion) {
    let router = router();
    let session = SessionView::default();
    let simple = "SELECT name, email FROM users WHERE user_id = 4711";
    criterion.bench_function("plan/hit_simple", |it| {
        it.iter(|| {
            let text = black_box(simple);
            let planned = router.plan(text);
            let keys = KeySource { text, literals: &planned.literals, params: None };
            router.decide(&planned.plan, &keys, &session)
        });
    });
    let prepared = "SELECT u.name, o.total FROM users u JOIN orders o USING (user_id) WHERE u.user_id = $1 AND o.id = $2";
    let planned = router.plan(prepared);
    let (user, order) = (4711i64.to_be_bytes(), 7i64.to_be_bytes());
    let values = [Some(&user[..]), Some(&order[..])];
    criterion.bench_function("plan/decide_params", |it| {
        it.iter(|| {
            let params = Params { oids: &[20, 20], formats: &[1], values: black_box(&values) };
            let keys = KeySource { text: prepared, literals: &planned.literals, params: Some(params) };
            router.decide(&planned.plan, &keys, &session)
        });
    });
    let mut number = 0u32;
    criterion.bench_function("plan/miss", |it| {
        it.iter(|| {
            number += 1;
            // A name is part of the fingerprint, as literals are not.
            let text = format!("SELECT name AS n{number}, email FROM users WHERE user_id = 4711");
            router.plan(black_box(&text))
        });
    });
    let parser = Parser::new();
    let literals = router.plan(simple).literals;
    criterion.bench_function("plan/facts_of_new_text", |it| {
        it.iter(|| parser.facts(black_box(simple), &literals));
    });
}

criterion_group!(plans, benches);
criterion_main!(plans);
