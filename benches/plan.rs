//! What routing costs for a statement that has been seen before (scan, lookup, decision), and for a new one.

mod shop;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use keyway::route::{KeySource, Params, SessionView};
use keyway::sql::Parser;

fn benches(criterion: &mut Criterion) {
    let router = shop::router();
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
