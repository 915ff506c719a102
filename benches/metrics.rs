//! `/metrics` of 64 shards and 200 tables over HTTP, from the connect to the last byte.

// A panic is how a bench fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/large/mod.rs"]
mod large;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn scrape(criterion: &mut Criterion) {
    let large = large::Large::start();
    let mut group = criterion.benchmark_group("metrics");
    group.throughput(Throughput::Bytes(large.scrape().len() as u64));
    group.bench_function(format!("scrape_of_{}_shards", large::SHARDS), |it| it.iter(|| large.scrape()));
    group.finish();
}

criterion_group!(benches, scrape);
criterion_main!(benches);
