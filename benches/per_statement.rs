//! What a statement pays beside its routing: for the floor of what it must see, for the mark of what it writes, and for being
//! counted by shard, table, slot and key.

mod shop;

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use keyway::base::{Access, Consistency, Role};
use keyway::client::{Floors, Tracks};
use keyway::hotspot::{Call, History, Hotspots, Load};
use keyway::route::{KeySource, Params, Planned, SessionView};

/// A prepared statement with the user as its only parameter.
fn with_user<T>(text: &str, planned: &Planned, user: i64, then: impl FnOnce(&KeySource<'_>) -> T) -> T {
    let bytes = user.to_be_bytes();
    let values = [Some(&bytes[..])];
    let params = Params { oids: &[20], formats: &[1], values: &values };
    then(&KeySource { text, literals: &planned.literals, params: Some(params) })
}

fn floors(criterion: &mut Criterion) {
    let (router, session) = (shop::router(), SessionView::default());
    let (read, write) =
        ("SELECT name FROM users WHERE user_id = $1", "UPDATE users SET name = 'x' WHERE user_id = $1");
    let (reading, writing) = (router.plan(read), router.plan(write));
    let floors = Floors::new(Instant::now());
    let mut tracks = Tracks::new(floors.clone());
    let mut user = 0;
    criterion.bench_function("per_statement/floor_of_a_read", |it| {
        it.iter(|| {
            user += 1;
            with_user(read, &reading, user, |keys| {
                tracks.begin_reading();
                let hashes = router.touched_keys(&reading.plan, keys, &session);
                let cells = Floors::read(&reading.plan.footprint.reads, hashes.as_deref());
                tracks.must_see(Some(Consistency::Global), &cells, floors.floor(&cells), false)
            })
        });
    });
    criterion.bench_function("per_statement/mark_of_a_write", |it| {
        it.iter(|| {
            user += 1;
            with_user(write, &writing, user, |keys| {
                let hashes = router.touched_keys(&writing.plan, keys, &session);
                tracks.written.add(&Floors::written(&writing.plan.footprint.writes, hashes.as_deref()), true);
                tracks.written.send();
                tracks.written.end(black_box(Instant::now()));
            });
        });
    });
}

fn hotspots(criterion: &mut Criterion) {
    let (router, session) = (shop::router(), SessionView::default());
    let text = "SELECT name FROM users WHERE user_id = $1";
    let planned = router.plan(text);
    let hotspots = Hotspots::new("shop", &router, true, 7, 1_000_000, History::default(), None);
    let mut user = 0i64;
    let count = |user: i64| {
        let decided = with_user(text, &planned, user, |keys| router.decide(&planned.plan, keys, &session));
        let Ok(decision) = decided else { return };
        hotspots.count(&Call {
            shard: decision.shards[0],
            role: Role::Replica,
            access: Access::Read,
            shards: 1,
            first: true,
            keys: &decision.keys,
            subject: &planned.plan.subject,
            load: Load { calls: 1, rows: 1, bytes: 100, time_us: 200, errors: 0 },
        });
    };
    // To be taken off the two below.
    criterion.bench_function("per_statement/decision", |it| {
        it.iter(|| {
            user += 1;
            with_user(text, &planned, user, |keys| router.decide(&planned.plan, keys, &session))
        });
    });
    criterion.bench_function("per_statement/decision_and_count_of_new_keys", |it| {
        it.iter(|| {
            user += 1;
            count(user);
        });
    });
    criterion.bench_function("per_statement/decision_and_count_of_a_hot_key", |it| {
        it.iter(|| count(42));
    });
}

criterion_group!(all, floors, hotspots);
criterion_main!(all);
