//! Adding to the sketch of heavy hitters, on streams with and without hot keys, and merging what 16 workers have in six windows.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use keyway::base::{Access, ShardId};
use keyway::sketch::{Distinct, HeavyHitters, HeavyKey, KeyPlace, SLOTS_DEFAULT};
use xxhash_rust::xxh3::xxh3_64;

const EVENTS: usize = 1_000_000;
const KEYS: u64 = 1_000_000;
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
const PLACE: KeyPlace = KeyPlace { shard: ShardId(1), part: 17 };

/// xorshift64*.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

fn event(key: u64, random: u64) -> (HeavyKey, u64) {
    let access = if random & 15 == 0 { Access::Write } else { Access::Read };
    (HeavyKey { map: 0, access, hash: xxh3_64(&key.to_le_bytes()) }, 100 + random % 1_000)
}

/// By the inverse of a power law's distribution function, so that rank r has about r^-exponent.
fn zipf(exponent: f64) -> Vec<(HeavyKey, u64)> {
    let mut state = 7;
    let top = (KEYS as f64).powf(1.0 - exponent);
    let rank = |it: u64| {
        let share = (it >> 11) as f64 / (1u64 << 53) as f64;
        (1.0 + share * (top - 1.0)).powf(1.0 / (1.0 - exponent)) as u64
    };
    (0..EVENTS).map(|_| event(rank(random(&mut state)), random(&mut state))).collect()
}

fn uniform() -> Vec<(HeavyKey, u64)> {
    let mut state = 7;
    (0..EVENTS).map(|_| event(random(&mut state) % (10 * KEYS), random(&mut state))).collect()
}

fn fill(sketch: &mut HeavyHitters, events: &[(HeavyKey, u64)]) {
    for (key, time_us) in events {
        sketch.add(*key, PLACE, 1, *time_us);
    }
}

fn add(c: &mut Criterion) {
    let mut group = c.benchmark_group("sketch/add");
    group.throughput(Throughput::Elements(EVENTS as u64)).sample_size(10);
    for (name, events) in [("zipf 1.1", zipf(1.1)), ("zipf 0.8", zipf(0.8)), ("uniform", uniform())] {
        group.bench_function(name, |b| {
            let mut sketch = HeavyHitters::new(SLOTS_DEFAULT, SEED);
            b.iter(|| fill(&mut sketch, black_box(&events)));
        });
    }
    let events = uniform();
    group.bench_function("distinct", |b| {
        let mut distinct = Distinct::default();
        b.iter(|| black_box(&events).iter().for_each(|it| distinct.add(it.0.hash)));
    });
    group.finish();
}

fn merge(c: &mut Criterion) {
    let events = zipf(0.8);
    let sketches: Vec<HeavyHitters> = events
        .chunks(EVENTS / 96)
        .map(|it| {
            let mut sketch = HeavyHitters::new(SLOTS_DEFAULT, SEED);
            fill(&mut sketch, it);
            sketch
        })
        .collect();
    let mut group = c.benchmark_group("sketch/merge");
    group.sample_size(10);
    group.bench_function("96", |b| {
        b.iter_batched_ref(
            || HeavyHitters::new(SLOTS_DEFAULT, SEED),
            |all| sketches.iter().take(96).for_each(|it| all.merge(it)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, add, merge);
criterion_main!(benches);
