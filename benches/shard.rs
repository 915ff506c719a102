//! From a key to its shard: what every routed statement pays once per key.

// A bench whose maps cannot be made must stop.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use keyway::base::ShardId;
use keyway::shard::{HashFunction, KeyColumn, KeyType, KeyValue, ListEntry, Map, Purpose, Range, Usage};

const SHARDS: usize = 16;
const SLOTS: usize = 4096;
const RANGES: i64 = 1_000;

fn hash_map(key_type: KeyType, function: HashFunction) -> Map {
    let slots = (0..SLOTS).map(|it| ShardId((it * SHARDS / SLOTS) as u16)).collect();
    Map::hash("by_key", &[key_type.into()], function, slots).unwrap()
}

fn range_map() -> Map {
    let range = |it: i64| Range {
        from: (it > 0).then_some(KeyValue::Int(it * 100)),
        to: (it < RANGES - 1).then_some(KeyValue::Int((it + 1) * 100)),
        shard: ShardId((it as usize % SHARDS) as u16),
    };
    Map::range("by_range", &[KeyType::Bigint.into()], (0..RANGES).map(range).collect()).unwrap()
}

fn lookup(criterion: &mut Criterion) {
    let keys: Vec<KeyValue> = (0..1024).map(|it| KeyValue::Int(it * 7_919 % (RANGES * 100))).collect();
    let texts: Vec<KeyValue> = (0..1024).map(|it| KeyValue::Text(format!("customer-{it}").into())).collect();
    let mut run = |name: &str, map: &Map, keys: &[KeyValue]| {
        let mut keys = keys.iter().cycle();
        criterion.bench_function(name, |it| it.iter(|| map.locate(black_box(keys.next()?))));
    };
    let by_number = hash_map(KeyType::Bigint, HashFunction::Xxh3);
    run("shard/hash bigint", &by_number, &keys);
    run("shard/hash text", &hash_map(KeyType::Text, HashFunction::Xxh3), &texts);
    run("shard/postgres hash bigint", &hash_map(KeyType::Bigint, HashFunction::Postgres), &keys);
    run("shard/postgres hash text", &hash_map(KeyType::Text, HashFunction::Postgres), &texts);
    let pinned = (0..1_000).map(|it| (KeyValue::Int(it * 50), ShardId(0))).collect();
    run("shard/hash bigint, 1000 pinned", &by_number.with_pinned(pinned).unwrap(), &keys);
    let entry = |it: i64| ListEntry { values: vec![KeyValue::Int(it)], shard: ShardId(0) };
    let list = (0..RANGES * 100).map(entry).collect();
    run("shard/list of 100000", &Map::list("by_list", &[KeyType::Bigint.into()], list, None).unwrap(), &keys);
    run("shard/range of 1000", &range_map(), &keys);
}

fn decode(criterion: &mut Criterion) {
    let column = KeyColumn::from(KeyType::Bigint);
    let usage = Usage { purpose: Purpose::Compare, utc: true };
    criterion.bench_function("shard/key from text", |it| {
        it.iter(|| column.of_text(20, black_box("123456789"), usage));
    });
    criterion.bench_function("shard/key from binary", |it| {
        it.iter(|| column.of_binary(20, black_box(&123_456_789i64.to_be_bytes()), usage));
    });
}

criterion_group!(benches, lookup, decode);
criterion_main!(benches);
