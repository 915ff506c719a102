use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::base::{Access, Role, ShardId};
use crate::config::Config;
use crate::route::{KeySource, Router, SessionView};
use crate::shard::KeyValue;
use crate::sql::Parser;

const CONFIG: &str = r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
[users.app]
password = "secret"
[databases.shop.shards]
s1 = { servers = ["10.0.0.1:5432"] }
s2 = { servers = ["10.0.0.2:5432"] }
[databases.shop.maps.by_user]
kind = "hash"
type = "bigint"
[databases.shop.maps.by_day]
kind = "range"
type = "bigint"
ranges = [{ to = 1000, shard = "s1" }, { from = 1000, shard = "s2" }]
[databases.shop.tables]
users = { map = "by_user", key = "user_id" }
events = { map = "by_day", key = "day" }
[databases.plain]
servers = ["10.0.0.3:5432"]
"#;

fn router(database: &str) -> Router {
    let config = Config::parse(CONFIG, Path::new("."), &|_| None).unwrap();
    Router::new(config.database(database).unwrap(), 100, Arc::new(Parser::new()))
}

const START_S: u64 = 1_000_000;

struct World {
    router: Router,
    hotspots: Hotspots,
}

impl World {
    fn new(database: &str) -> World {
        let router = router(database);
        let hotspots = Hotspots::new(database, &router, true, 7, START_S, History::default(), None);
        World { router, hotspots }
    }

    fn run(&self, sql: &str) {
        let planned = self.router.plan(sql);
        let (plan, session) = (&planned.plan, SessionView::default());
        let keys = KeySource { text: sql, literals: &planned.literals, params: None };
        let decision = self.router.decide(plan, &keys, &session).unwrap();
        if self.hotspots.is_curious() && self.hotspots.wants(&decision.keys) {
            for it in self.router.key_values(plan, &keys, &session) {
                self.hotspots.tell(it);
            }
        }
        for &shard in &decision.shards {
            self.hotspots.count(&Call {
                shard,
                role: if plan.access == Access::Read { Role::Replica } else { Role::Primary },
                access: plan.access,
                shards: decision.shards.len(),
                first: shard == decision.shards[0],
                keys: &decision.keys,
                subject: &plan.subject,
                load: Load { calls: 1, rows: 2, bytes: 100, time_us: 500, errors: 0 },
            });
        }
    }

    fn run_for(&self, user: i64) {
        self.run(&format!("SELECT * FROM users WHERE user_id = {user}"));
    }
}

#[test]
fn a_hot_key_is_named_with_bounds_that_hold() {
    let world = World::new("shop");
    for turn in 1..=2 {
        for it in 0..1_000 {
            world.run_for(if it % 4 == 0 { 42 } else { 1_000 + it });
            if it % 10 == 0 {
                world.run("UPDATE users SET name = 'x' WHERE user_id = 42");
            }
        }
        world.hotspots.turn(START_S + turn * WINDOW_S);
    }
    let report = world.hotspots.report();
    let map = &report.maps[0];
    assert_eq!((report.at_s, report.span_s), (START_S + 2 * WINDOW_S, 2 * WINDOW_S as u32));
    assert_eq!((map.reads.calls, map.writes.calls, map.reads.rows), (2_000, 200, 4_000));
    let key = &map.keys[0];
    assert_eq!(key.text.as_deref(), Some("42"));
    let share = 700.0 / 2_200.0;
    assert!(key.calls_share.lower <= share && share <= key.calls_share.upper, "{key:?}");
    assert!(key.calls_share.upper - key.calls_share.lower < 0.01, "{key:?}");
    assert!(key.reads.lower <= 500.0 && 500.0 <= key.reads.upper && key.writes.upper >= 200.0, "{key:?}");
    let [first, ten, _] = map.top_shares[0];
    assert!(first.lower <= share && share <= first.upper && ten.upper >= first.upper, "{first:?} {ten:?}");
    assert!((map.distinct_keys - 751.0).abs() < 751.0 * 0.13, "{}", map.distinct_keys);
    assert_eq!(report.tables[0].table.as_ref(), "users");
    let calls: u64 = report.shards.iter().map(|it| it.replica_reads.calls + it.primary_writes.calls).sum();
    assert_eq!(calls, 2_200);
    assert!(map.skews[0].max_over_mean > 1.2, "{:?}", map.skews);
}

#[test]
fn keys_are_listed_once_and_what_a_map_has_none_of_is_exact() {
    let world = World::new("shop");
    // More keys than a sketch has slots, so that its bounds are apart.
    for it in 0..8_000 {
        world.run_for(1_000 + it);
        if it % 8 == 0 {
            world.run_for(42);
        }
    }
    world.hotspots.turn(START_S + WINDOW_S);
    let key = world.hotspots.report().maps[0].keys[0].clone();
    assert!(key.reads.upper > key.reads.lower && key.reads.upper >= 1_000.0, "{key:?}");
    assert_eq!((key.writes.lower, key.writes.upper), (0.0, 0.0));
    for _ in 0..500 {
        world.run("UPDATE users SET name = 'x' WHERE user_id = 42");
        world.run("UPDATE users SET name = 'x' WHERE user_id = 43");
    }
    world.hotspots.turn(START_S + 2 * WINDOW_S);
    let report = world.hotspots.report();
    let [first, second] = [0, 1].map(|it| report.maps[0].keys[it].clone());
    assert!(first.calls.lower > 1_400.0 && first.calls.upper >= 1_500.0, "{first:?}");
    assert!(first.writes.lower <= 500.0 && 500.0 <= first.writes.upper && first.hash != second.hash);
    assert!(second.calls.lower > 450.0 && second.calls.upper >= 500.0, "{second:?}");
    assert_eq!(report.maps[0].keys.iter().filter(|it| it.hash == first.hash).count(), 1);
}

#[test]
fn what_several_shards_do_is_scattered_and_of_no_key() {
    let world = World::new("shop");
    for _ in 0..3 {
        world.run("SELECT * FROM users");
    }
    world.run_for(1);
    world.hotspots.turn(START_S + WINDOW_S);
    let report = world.hotspots.report();
    assert_eq!(report.maps[0].scatter_ratio, 0.75);
    assert_eq!(report.shards.iter().map(|it| it.scattered_calls).collect::<Vec<_>>(), [3, 3]);
    assert_eq!((report.tables[0].reads.calls, report.tables[0].reads.rows), (4, 14));
    assert_eq!(report.maps[0].keys.len(), 1);
}

fn place(world: &World, key: i64) -> Option<ShardId> {
    world.router.map(0)?.locate(&KeyValue::Int(key)).map(|it| it.shard)
}

#[test]
fn keys_of_a_list_share_what_it_costs() {
    let world = World::new("shop");
    let same: Vec<i64> = (1..1_000).filter(|it| place(&world, *it) == Some(ShardId(0))).take(5).collect();
    let list: Vec<String> = same.iter().map(ToString::to_string).collect();
    world.run(&format!("SELECT * FROM users WHERE user_id IN ({})", list.join(", ")));
    world.hotspots.turn(START_S + WINDOW_S);
    let report = world.hotspots.report();
    let map = &report.maps[0];
    assert_eq!((map.reads.calls, map.reads.time_us, map.keys.len()), (5, 500, 5));
    assert_eq!(report.shards[0].replica_reads.calls, 1);
}

#[test]
fn calls_with_many_keys_are_counted_whole() {
    let world = World::new("shop");
    for at in 0..10 {
        let list: Vec<String> = (0..30).map(|it| (at * 30 + it).to_string()).collect();
        world.run(&format!("SELECT * FROM users WHERE user_id IN ({})", list.join(", ")));
    }
    world.hotspots.turn(START_S + WINDOW_S);
    let report = world.hotspots.report();
    assert_eq!((report.maps[0].reads.calls, report.tables[0].reads.calls), (300, 10));
    assert_eq!(report.shards.iter().map(|it| it.replica_reads.calls).collect::<Vec<_>>(), [10, 10]);
}

#[test]
fn tables_keep_their_names_over_windows_and_however_many_there_are() {
    let world = World::new("plain");
    for turn in 1..=8 {
        for table in 0..700 {
            world.run(&format!("SELECT * FROM table_{table} WHERE id = 7"));
        }
        (0..50).for_each(|_| world.run("SELECT * FROM users WHERE id = 7"));
        world.hotspots.turn(START_S + turn * WINDOW_S);
    }
    let report = world.hotspots.report();
    let calls = |name: &str| report.tables.iter().find(|it| &*it.table == name).map(|it| it.reads.calls);
    // Of a window, 512 tables are told apart.
    assert_eq!(
        (calls("table_1"), calls("users"), report.shards[0].replica_reads.calls),
        (Some(6), None, 6 * 750)
    );
    for turn in 9..=14 {
        (0..50).for_each(|_| world.run("SELECT * FROM users WHERE id = 7"));
        world.hotspots.turn(START_S + turn * WINDOW_S);
    }
    let report = world.hotspots.report();
    assert_eq!(
        (&*report.tables[0].table, report.tables[0].reads.calls, report.tables.len()),
        ("users", 300, 1)
    );
}

#[test]
fn keys_of_a_database_of_one_shard_are_told_apart_by_table() {
    let world = World::new("plain");
    world.run("SELECT * FROM users WHERE id = 7");
    world.hotspots.turn(START_S + WINDOW_S);
    let report = world.hotspots.report();
    // No catalog has said what the primary key is.
    assert_eq!((report.maps[0].map.as_str(), report.maps[0].keys.len()), (PRIMARY_KEYS, 0));
    assert_eq!(report.tables[0].reads.calls, 1);
}

#[test]
fn the_direction_of_keys_that_are_handed_out_in_order_is_seen() {
    let world = World::new("shop");
    for day in 0..1_000 {
        world.run(&format!("INSERT INTO events (day) VALUES ({day})"));
    }
    world.hotspots.turn(START_S + WINDOW_S);
    let report = world.hotspots.report();
    let map = &report.maps[1];
    assert!(map.direction.is_some_and(|it| it > 0.9), "{:?}", map.direction);
    assert!(
        map.hot_parts[0].distinct_keys.is_some_and(|it| (it - 1_000.0).abs() < 130.0),
        "{:?}",
        map.hot_parts
    );
    assert_eq!(report.maps[0].direction, None);
}

#[test]
fn a_report_is_of_the_last_minute() {
    let world = World::new("shop");
    for turn in 1..=20 {
        world.run_for(turn as i64);
        world.hotspots.turn(START_S + turn * WINDOW_S);
    }
    let report = world.hotspots.report();
    assert_eq!((report.span_s, report.maps[0].reads.calls), (60, 6));
    // The clock is put back by an hour.
    world.run_for(1);
    world.hotspots.turn(START_S - 3_600);
    let report = world.hotspots.report();
    assert_eq!((report.at_s, report.maps[0].reads.calls), (START_S - 3_600, 1));
    // And the process slept.
    world.run_for(1);
    world.hotspots.turn(START_S + 3_600);
    assert_eq!(world.hotspots.report().maps[0].reads.calls, 1);
}

#[test]
fn times_in_which_nothing_happens_take_no_memory() {
    let world = World::new("shop");
    world.run_for(7);
    for window in 1..=3 {
        world.hotspots.turn(START_S + window * WINDOW_S);
    }
    assert_eq!(world.hotspots.windows(), (3, 1));
    world.run_for(8);
    (4..=7).for_each(|window| world.hotspots.turn(START_S + window * WINDOW_S));
    assert_eq!(world.hotspots.windows(), (6, 1), "the first is over");
    let calls = world.hotspots.report().shards.iter().map(|it| it.replica_reads.calls).sum::<u64>();
    assert_eq!(calls, 1);
}

#[test]
fn what_was_counted_since_the_last_window_is_recorded_at_the_end() {
    let world = World::new("shop");
    (0..10).for_each(|it| world.run_for(it));
    world.hotspots.turn(START_S + WINDOW_S);
    (0..30).for_each(|it| world.run_for(it));
    world.hotspots.end(START_S + WINDOW_S + 3);
    let rates = || {
        let drawn = world.hotspots.history().heat_map("by_user", Metric::Calls, 20, (1, 2), START_S + 20);
        drawn.unwrap().cells.into_iter().map(|it| it.unwrap_or_default().round()).collect::<Vec<_>>()
    };
    // Ten calls in ten seconds, thirty in three.
    assert_eq!(rates(), [1.0, 10.0]);
    // Nothing is recorded twice.
    world.hotspots.end(START_S + WINDOW_S + 3);
    assert_eq!(rates(), [1.0, 10.0]);
}

#[test]
fn threads_count_into_one_report() {
    let world = World::new("shop");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|it| world.run_for(it % 10)));
        }
    });
    world.hotspots.turn(START_S + WINDOW_S);
    let report = world.hotspots.report();
    assert_eq!(report.maps[0].reads.calls, 4_000);
    assert!(report.maps[0].keys.iter().all(|it| it.calls.lower == 400.0), "{:?}", report.maps[0].keys);
}

#[test]
fn switched_off_it_counts_nothing() {
    let router = router("shop");
    let hotspots = Hotspots::new("shop", &router, false, 7, START_S, History::default(), None);
    let world = World { router, hotspots };
    world.run_for(1);
    assert!(!world.hotspots.is_due(START_S + 100));
    assert_eq!(world.hotspots.report().maps[0].reads.calls, 0);
}
