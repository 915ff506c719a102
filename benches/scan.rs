//! What a look at a statement's text costs.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keyway::sql::scan;

const STATEMENTS: [(&str, &str); 3] = [
    ("short", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"),
    (
        "hundred_bytes",
        "SELECT u.name, o.total FROM users u JOIN orders o USING (user_id) WHERE u.user_id = 42 AND o.id = 7",
    ),
    (
        "insert",
        "INSERT INTO orders (user_id, order_id, status, note, amount, created_at) VALUES \
         (42, 1001, 'new', 'it''s a gift', 19.90, '2026-01-01T00:00:00Z'), \
         (42, 1002, 'new', $$none$$, 0.5, '2026-01-02T00:00:00Z') ON CONFLICT (user_id, order_id) \
         DO UPDATE SET status = excluded.status /* upsert */ RETURNING order_id",
    ),
];

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for (name, text) in STATEMENTS {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |it| it.iter(|| scan(black_box(text))));
    }
    group.finish();
}

criterion_group!(scans, benches);
criterion_main!(scans);
