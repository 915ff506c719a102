use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::base::ShardId;
use crate::hotspot::heatmap::{HeatMap, MarkKind, Metric, Shape};

/// Some day, at midnight.
const START_S: u64 = 1_800_000_000 / 86_400 * 86_400;

/// Parts that say by their names what they hold, on shards by turns.
fn parts(names: &[String], shards: u16) -> Vec<LayoutPart> {
    let count = names.len();
    let part = |(at, name): (usize, &String)| LayoutPart {
        shard: ShardId((at * usize::from(shards) / count) as u16),
        identity: xxh3_64(name.as_bytes()),
    };
    names.iter().enumerate().map(part).collect()
}

fn slots(count: usize, shards: u16) -> Layout {
    let names: Vec<String> = (0..count).map(|it| format!("slot {it} of {count}")).collect();
    Layout::new(PartKind::Slot, count, &parts(&names, shards), &shard_names(shards))
}

fn shard_names(shards: u16) -> Vec<u64> {
    (0..shards).map(|it| xxh3_64(&it.to_le_bytes())).collect()
}

fn history(layout: Layout) -> History {
    let mut history = History::default();
    history.set_maps([("m".to_owned(), layout)]);
    history
}

fn reads(calls: u64) -> Load {
    Load { calls, rows: calls * 2, bytes: calls * 100, time_us: calls * 300, errors: 0 }
}

fn writes(calls: u64) -> Load {
    Load { calls, rows: calls, bytes: calls * 10, time_us: calls * 900, errors: calls / 50 }
}

/// Windows of so many seconds from `START_S` on, of so many reads of each part.
fn fill(
    history: &mut History,
    window_s: u64,
    windows: u64,
    mut calls: impl FnMut(u64, u32) -> u64,
    parts: u32,
) {
    for window in 0..windows {
        let from_s = START_S + window * window_s;
        let loads: Vec<_> = (0..parts).map(|it| (it, reads(calls(window, it)), Load::default())).collect();
        assert!(history.record("m", from_s, from_s + window_s, loads));
    }
}

fn row(map: &HeatMap, row: usize) -> &[Option<f32>] {
    &map.cells[row * map.columns.len()..(row + 1) * map.columns.len()]
}

fn is_near(got: Option<f32>, expect: f32) -> bool {
    got.is_some_and(|it| (it - expect).abs() <= expect * 0.02)
}

#[test]
fn five_weeks_are_kept_in_ever_longer_columns() {
    const WEEK_S: u64 = 7 * 86_400;
    let mut history = history(slots(4, 2));
    let windows = 6 * WEEK_S / 60;
    fill(&mut history, 60, windows, |_, part| 600 * (u64::from(part) + 1), 4);
    let end_s = START_S + windows * 60;
    let map = history.map("m").unwrap();
    for (level, columns) in LEVELS.iter().zip(&map.levels) {
        assert_eq!(columns.len(), level.columns_max);
        assert!(columns.iter().all(|it| it.to_s - it.from_s <= level.span_s.max(60)));
    }
    let oldest_s = map.columns().next().unwrap().1.from_s;
    assert!(oldest_s <= end_s - 5 * WEEK_S + 86_400 / 2, "{} s", end_s - oldest_s);
    let covered: u64 = map.columns().map(|it| u64::from(it.1.covered_s)).sum();
    assert_eq!(covered, end_s - oldest_s);

    let drawn = history.heat_map("m", Metric::Calls, 5 * WEEK_S, (10, 300), end_s).unwrap();
    assert!(drawn.columns.len() <= 300 && drawn.columns.len() >= 200, "{}", drawn.columns.len());
    assert!(drawn.columns.windows(2).all(|it| it[0].to_s == it[1].from_s));
    for part in 0..4 {
        let expect = 10.0 * (part + 1) as f32;
        assert!(row(&drawn, part).iter().skip(5).all(|it| is_near(*it, expect)), "{:?}", row(&drawn, part));
    }
    assert_eq!(drawn.rows[3].shard, ShardId(1));
    let shards = history.shard_series("m", Metric::Time, 3_600, 60, end_s).unwrap();
    assert!(shards.cells.len() == 120 && is_near(shards.cells[0], 30.0 * 300.0), "{:?}", shards.cells);
    assert!(is_near(shards.cells[119], 70.0 * 300.0));
}

#[test]
fn an_hour_is_drawn_in_minutes_and_a_minute_in_tens_of_seconds() {
    let mut history = history(slots(2, 1));
    fill(&mut history, 10, 2_000, |_, _| 50, 2);
    let end_s = START_S + 20_000;
    for (last_s, columns_max, columns, length_s) in [
        (60, 100, 6, 10),
        (3_600, 100, 60, 60),
        (3_600, 25, 20, 180),
        (18_000, 500, 150, 120),
        (30, 1, 1, 30),
    ] {
        let drawn = history.heat_map("m", Metric::Reads, last_s, (8, columns_max), end_s).unwrap();
        let lengths: Vec<u64> = drawn.columns.iter().map(|it| it.to_s - it.from_s).collect();
        assert_eq!(lengths, vec![length_s; columns], "last {last_s}");
        assert!(drawn.cells.iter().all(|it| is_near(*it, 5.0)), "last {last_s}: {:?}", drawn.cells);
    }
}

#[test]
fn no_time_and_no_size_is_too_small_or_too_large() {
    let mut history = history(slots(8, 2));
    fill(&mut history, 10, 100, |_, _| 50, 8);
    for last_s in [0, 1, 7, u64::MAX] {
        for size in [0, 1, 3, usize::MAX] {
            for now_s in [0, 5, START_S, START_S + 1_000, u64::MAX / 2] {
                let drawn = history.heat_map("m", Metric::Calls, last_s, (size, size), now_s).unwrap();
                assert!(drawn.rows.len() <= size.max(1) && drawn.columns.len() <= size.clamp(1, 1_000));
                assert_eq!(drawn.cells.len(), drawn.rows.len() * drawn.columns.len());
                assert!(history.shard_series("m", Metric::Calls, last_s, size, now_s).is_some());
            }
        }
    }
}

#[test]
fn a_gap_is_nothing_recorded_and_changes_no_rate() {
    let mut history = history(slots(1, 1));
    // Down from the 11th to the 20th minute, on both sides of which a minute is half covered.
    for minute in (0..60).filter(|it| !(11..20).contains(it)) {
        let half = matches!(minute, 10 | 20);
        for window in 0..if half { 3 } else { 6 } {
            let from_s = START_S + minute * 60 + window * 10 + if minute == 20 { 30 } else { 0 };
            assert!(history.record("m", from_s, from_s + 10, [(0, reads(70), writes(30))]));
        }
    }
    let end_s = START_S + 3_600;
    let drawn = history.heat_map("m", Metric::Calls, 3_600, (1, 60), end_s).unwrap();
    for (minute, cell) in drawn.cells.iter().enumerate() {
        match minute {
            11..20 => assert_eq!(*cell, None, "minute {minute}"),
            _ => assert!(is_near(*cell, 10.0), "minute {minute}: {cell:?}"),
        }
    }
    // Long before and long after.
    let before = history.heat_map("m", Metric::Calls, 3_600, (1, 60), START_S).unwrap();
    let after = history.heat_map("m", Metric::Calls, 60, (1, 60), end_s + 9_000).unwrap();
    assert!(before.cells.iter().chain(&after.cells).all(Option::is_none));
    assert_eq!((before.shape, after.shape), (Shape::Unknown, Shape::Unknown));
}

#[test]
fn a_clock_that_steps_back_writes_nothing_twice() {
    let mut history = history(slots(1, 1));
    let mut record = |from_s: u64, to_s: u64| {
        let recorded =
            history.record("m", START_S + from_s, START_S + to_s, [(0, reads(100), Load::default())]);
        let newest = history.map("m").unwrap().columns().map(|it| it.1.to_s).max().unwrap() - START_S;
        let spans: Vec<_> = history.map("m").unwrap().columns().map(|it| (it.1.from_s, it.1.to_s)).collect();
        assert!(spans.windows(2).all(|it| it[0].1 <= it[1].0), "{spans:?}");
        (recorded, newest)
    };
    for window in 0..1_000 {
        assert_eq!(record(window * 10, window * 10 + 10), (true, window * 10 + 10));
    }
    // By a little: until it is where it was.
    assert_eq!(record(9_995, 10_005), (false, 10_000));
    assert_eq!(record(9_700, 9_710), (false, 10_000));
    assert_eq!(record(10_000, 10_010), (true, 10_010));
    assert_eq!(record(10_010, 10_010), (false, 10_010));
    assert_eq!(record(10_020, 10_015), (false, 10_010));
    // By much: what claims to be later was wrong.
    assert_eq!(record(5_000, 5_010), (true, 5_010));
    // A jump ahead and back costs nothing but itself.
    assert_eq!(record(90_000_000, 90_000_010), (true, 90_000_010));
    assert_eq!(record(5_010, 5_020), (true, 5_020));
    let drawn = history.heat_map("m", Metric::Calls, 3_000, (1, 1), START_S + 5_020).unwrap();
    assert!(is_near(drawn.cells[0], 10.0), "{:?}", drawn.cells);
}

#[test]
fn memory_stays_within_its_bound() {
    // Every row and shard is busy, and no two windows fit into one column.
    let parts: Vec<LayoutPart> = (0..ROWS_MAX)
        .map(|it| LayoutPart { shard: ShardId((it % SHARDS_MAX) as u16), identity: it as u64 })
        .collect();
    let shards: Vec<u64> = (0..SHARDS_MAX as u64 + 50).collect();
    let mut history = history(Layout::new(PartKind::Range, ROWS_MAX, &parts, &shards));
    let mut most = 0;
    for window in 0..1_000u64 {
        let from_s = START_S + window * 14_400;
        let load = Load { calls: 7, rows: 1 << 40, bytes: u64::MAX / 1_000, time_us: 1 << 50, errors: 1 };
        history.record("m", from_s, from_s + 14_400, (0..ROWS_MAX as u32).map(|it| (it, load, load)));
        most = most.max(history.bytes());
    }
    assert_eq!(LEVELS.iter().map(|it| it.columns_max).sum::<usize>(), COLUMNS_MAX);
    assert_eq!(history.map("m").unwrap().columns().count(), COLUMNS_MAX);
    assert!((MAP_BYTES_MAX / 10 * 9..=MAP_BYTES_MAX).contains(&most), "{most} of {MAP_BYTES_MAX}");
    const { assert!(MAP_BYTES_MAX < 12_000_000) };
    for at_s in 0..MARKS_MAX as u64 * 2 {
        history.mark(Mark { at_s, kind: MarkKind::Reload, text: "ö".repeat(1_000) });
    }
    assert_eq!(history.marks.len(), MARKS_MAX);
    assert!(history.marks.iter().all(|it| it.text.len() <= MARK_BYTES_MAX));
}

#[test]
fn slots_that_move_keep_their_history_and_shards_what_they_had() {
    let mut history = history(slots(4096, 4));
    fill(&mut history, 10, 400, |_, slot| u64::from(slot / 8), 4096);
    let end_s = START_S + 4_000;
    let before = history.heat_map("m", Metric::Calls, 1_800, (768, 30), end_s).unwrap();
    let shards_before = history.shard_series("m", Metric::Calls, 1_800, 30, end_s).unwrap();
    // The other way round, a pinned key besides.
    let mut names: Vec<String> = (0..4096).map(|it| format!("slot {it} of 4096")).collect();
    names.push("pinned key 7".to_owned());
    let mut moved = parts(&names[..], 4);
    moved.iter_mut().for_each(|it| it.shard = ShardId(3 - it.shard.0));
    let layout = Layout::new(PartKind::Slot, 4096, &moved, &shard_names(4));
    history.set_maps([("m".to_owned(), layout)]);
    let after = history.heat_map("m", Metric::Calls, 1_800, (768, 30), end_s).unwrap();
    assert_eq!(after.rows.first().map(|it| it.shard), Some(ShardId(3)));
    let (pinned, slots) = after.rows.split_last().unwrap();
    assert_eq!((&pinned.name[..], pinned.first_part), ("pinned key 0", 4096));
    assert!(row(&after, slots.len()).iter().all(Option::is_none));
    // 4,097 parts on four shards have other borders, but every slot has what it had.
    let rate = |map: &HeatMap, slot: u32| {
        let at = map.rows.iter().position(|it| it.first_part <= slot && slot <= it.last_part).unwrap();
        let width = map.rows[at].last_part - map.rows[at].first_part + 1;
        map.cells[at * map.columns.len() + 3].unwrap() / width as f32
    };
    for slot in (0..4096).step_by(37) {
        let (before, after) = (rate(&before, slot), rate(&after, slot));
        assert!((before - after).abs() <= before * 0.02 + 0.1, "slot {slot}: {before} {after}");
    }
    assert_eq!(history.shard_series("m", Metric::Calls, 1_800, 30, end_s).unwrap(), shards_before);
    // From now on it is known.
    assert!(history.record("m", end_s, end_s + 10, [(4096, reads(1_000), Load::default())]));
    let after = history.heat_map("m", Metric::Calls, 60, (768, 30), end_s + 10).unwrap();
    assert!(is_near(*row(&after, after.rows.len() - 1).last().unwrap(), 100.0));
}

#[test]
fn a_range_that_is_split_begins_anew_and_its_neighbours_go_on() {
    let ranges = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        Layout::new(PartKind::Range, names.len(), &parts(&names, 1), &shard_names(1))
    };
    let mut history = history(ranges(&["a to b", "b to d", "d to e"]));
    fill(&mut history, 10, 30, |_, part| 100 * (u64::from(part) + 1), 3);
    history.set_maps([("m".to_owned(), ranges(&["a to b", "b to c", "c to d", "d to e"]))]);
    let end_s = START_S + 300;
    let drawn = history.heat_map("m", Metric::Calls, 300, (9, 5), end_s).unwrap();
    let first: Vec<_> = (0..4).map(|it| row(&drawn, it)[1]).collect();
    assert!(is_near(first[0], 10.0) && is_near(first[3], 30.0), "{first:?}");
    assert_eq!((first[1], first[2]), (None, None));
    // Columns in which other rows are known do not run into one.
    fill_after(&mut history, 300, 30, 4);
    let drawn = history.heat_map("m", Metric::Calls, 600, (9, 10), end_s + 300).unwrap();
    assert_eq!(row(&drawn, 1).iter().filter(|it| it.is_none()).count(), 5);
    assert!(row(&drawn, 1)[5..].iter().all(|it| is_near(*it, 5.0)), "{:?}", row(&drawn, 1));
    // Nothing in common.
    history.set_maps([("m".to_owned(), ranges(&["x to y"])), ("n".to_owned(), slots(4, 1))]);
    assert_eq!(history.bytes(), 0);
    assert!(history.heat_map("n", Metric::Calls, 60, (1, 1), end_s).is_some());
    assert!(history.heat_map("o", Metric::Calls, 60, (1, 1), end_s).is_none());
    assert!(!history.record("o", end_s, end_s + 1, []));
}

fn fill_after(history: &mut History, after_s: u64, windows: u64, parts: u32) {
    for window in 0..windows {
        let from_s = START_S + after_s + window * 10;
        let loads = (0..parts).map(|it| (it, Load::default(), writes(50)));
        assert!(history.record("m", from_s, from_s + 10, loads));
    }
}

#[test]
fn metrics_are_those_of_reads_and_writes() {
    let mut history = history(slots(1, 1));
    for window in 0..6 {
        let from_s = START_S + window * 10;
        history.record("m", from_s, from_s + 10, [(0, reads(1_000), writes(500))]);
    }
    for metric in Metric::ALL {
        let expect = metric.of(&reads(1_000), &writes(500)) as f32 / 10.0;
        let drawn = history.heat_map("m", metric, 60, (1, 1), START_S + 60).unwrap();
        assert!(is_near(drawn.cells[0], expect), "{metric:?}: {:?}, not {expect}", drawn.cells);
    }
}

#[test]
fn a_hot_slot_has_its_own_row_and_cold_neighbours_share_one() {
    let mut history = history(slots(512, 4));
    fill(&mut history, 10, 60, |_, slot| if slot == 300 { 5_000 } else { 10 }, 512);
    let drawn = history.heat_map("m", Metric::Calls, 600, (20, 10), START_S + 600).unwrap();
    assert!(drawn.rows.len() <= 20 && drawn.rows.len() > 10, "{} rows", drawn.rows.len());
    let hot = drawn.rows.iter().position(|it| it.first_part == 300).unwrap();
    assert_eq!((&drawn.rows[hot].name[..], drawn.rows[hot].last_part), ("slot 300", 300));
    assert!(is_near(row(&drawn, hot)[4], 500.0));
    assert!(drawn.rows.iter().all(
        |it| u32::from(it.shard.0) == it.first_part / 128 && u32::from(it.shard.0) == it.last_part / 128
    ));
    // Fewer rows than shards.
    let drawn = history.heat_map("m", Metric::Calls, 600, (2, 10), START_S + 600).unwrap();
    assert_eq!(drawn.rows.len(), 2);
    assert!(is_near(Some(row(&drawn, 0)[4].unwrap() + row(&drawn, 1)[4].unwrap()), 500.0 + 511.0));
}

#[test]
fn marks_are_those_of_the_time() {
    let mut history = history(slots(1, 1));
    fill(&mut history, 10, 60, |_, _| 10, 1);
    for after_s in [0, 100, 599, 700] {
        let text = format!("after {after_s}");
        history.mark(Mark { at_s: START_S + after_s, kind: MarkKind::Failover, text });
    }
    let drawn = history.heat_map("m", Metric::Calls, 540, (1, 10), START_S + 600).unwrap();
    let marks: Vec<&str> = drawn.marks.iter().map(|it| &it.text[..]).collect();
    assert_eq!(marks, ["after 100", "after 599"]);
}

fn shape_of(parts: u32, calls: impl FnMut(u64, u32) -> u64) -> Shape {
    let mut history = history(slots(parts as usize, 1));
    fill(&mut history, 60, 60, calls, parts);
    history.heat_map("m", Metric::Calls, 3_600, (40, 60), START_S + 3_600).unwrap().shape
}

/// About as many as that: a sum of coin flips has the spread that independent calls have.
fn noisy(mean: u64, window: u64, part: u32) -> u64 {
    let random = xxh3_64(&[window.to_le_bytes(), u64::from(part).to_le_bytes()].concat());
    mean / 2 + u64::from((random as u32).count_ones()) * mean / 32
}

#[test]
fn shapes_are_named() {
    for parts in [16, 128, 512] {
        let even = shape_of(parts, |window, part| noisy(40, window, part));
        assert_eq!(even, Shape::Even, "{parts}");
        let idle = shape_of(parts, |window, part| u64::from(window == 3 && part == 2) * 30);
        assert_eq!(idle, Shape::Unknown, "{parts}");
        // Ten busy minutes, ten idle ones.
        let striped = shape_of(parts, |window, part| {
            if window / 10 % 2 == 0 { noisy(100, window, part) } else { noisy(10, window, part) }
        });
        assert_eq!(striped, Shape::Striped, "{parts}");
        let line = shape_of(parts, |window, part| {
            noisy(40, window, part) + if part == parts / 3 { 80 * u64::from(parts) } else { 0 }
        });
        assert_eq!(line, Shape::Line, "{parts}");
        for falls in [false, true] {
            let diagonal = shape_of(parts, |window, part| {
                let at = window as u32 * parts / 60;
                let at = if falls { parts - 1 - at } else { at };
                noisy(4, window, part) + if part == at { 10 * u64::from(parts) } else { 0 }
            });
            assert_eq!(diagonal, Shape::Diagonal, "{parts}");
        }
        let half = shape_of(parts, |window, part| {
            if part < parts / 2 { noisy(100, window, part) } else { noisy(20, window, part) }
        });
        assert_eq!(half, Shape::Uneven, "{parts}");
        // What is hot is somewhere else every minute, in no order.
        let jumping = shape_of(parts, |window, part| {
            let at = xxh3_64(&window.to_le_bytes()) as u32 % parts;
            noisy(4, window, part) + if part == at { 10 * u64::from(parts) } else { 0 }
        });
        assert!(matches!(jumping, Shape::Uneven | Shape::Even), "{parts}: {jumping:?}");
    }
    // Few ranges, one of which has more, or nearly all.
    let two = shape_of(2, |window, part| noisy(if part == 0 { 600 } else { 400 }, window, part));
    assert_eq!(two, Shape::Even);
    let one_of_two = shape_of(2, |window, part| noisy(if part == 0 { 990 } else { 10 }, window, part));
    assert_eq!(one_of_two, Shape::Line);
    assert_eq!(shape_of(1, |window, part| noisy(500, window, part)), Shape::Even);
}

/// As they are while the newest minute is in windows and what is before it in minutes.
#[test]
fn a_young_map_has_a_shape_too() {
    for (seconds, expect) in [(40, Shape::Unknown), (50, Shape::Line), (130, Shape::Line), (600, Shape::Line)]
    {
        let mut history = history(slots(512, 2));
        // A third of all is one slot's.
        let calls = |window, slot| noisy(4, window, slot) + if slot == 7 { 1_000 } else { 0 };
        fill(&mut history, 10, seconds / 10, calls, 512);
        for last_s in [900, 3_600, 35 * 86_400] {
            let drawn = history.heat_map("m", Metric::Calls, last_s, (40, 60), START_S + seconds).unwrap();
            assert_eq!(drawn.shape, expect, "{seconds} s, of the last {last_s}");
        }
    }
    let mut even = history(slots(512, 2));
    fill(&mut even, 10, 12, |window, slot| noisy(40, window, slot), 512);
    let drawn = even.heat_map("m", Metric::Calls, 900, (40, 60), START_S + 120).unwrap();
    assert_eq!(drawn.shape, Shape::Even);
}

fn small() -> History {
    let mut history = history(slots(16, 2));
    fill(&mut history, 10, 90, |window, part| if part % 5 == 0 { window * 1_000 } else { 0 }, 16);
    let mut names: Vec<String> = (0..16).map(|it| format!("slot {it} of 16")).collect();
    names.push("pinned key 3".to_owned());
    let layout = Layout::new(PartKind::Slot, 16, &parts(&names, 2), &shard_names(2));
    history.set_maps([("m".to_owned(), layout), ("n".to_owned(), slots(1, 1))]);
    history.mark(Mark { at_s: START_S, kind: MarkKind::Reload, text: "reload".to_owned() });
    history
}

#[test]
fn a_file_gives_back_what_was_written() {
    let (history, other) = (small(), History::default());
    let bytes = encode_histories([("shop", &history), ("other", &other)]);
    let back = decode_histories(&bytes).unwrap();
    assert_eq!((&back[0].0[..], &back[1].0[..], back.len()), ("shop", "other", 2));
    let again = encode_histories(back.iter().map(|it| (&it.0[..], &it.1)));
    assert_eq!(again, bytes);
    for metric in Metric::ALL {
        let drawn = |it: &History| it.heat_map("m", metric, 900, (8, 20), START_S + 900);
        assert_eq!(drawn(&back[0].1), drawn(&history));
    }
    assert_eq!(decode_histories(&encode_histories([])).unwrap().len(), 0);
}

#[test]
fn a_damaged_file_is_an_error_that_says_so() {
    let bytes = encode_histories([("shop", &small())]);
    let error = |bytes: &[u8]| decode_histories(bytes).unwrap_err();
    assert_eq!(error(b""), HistoryFileError::Foreign);
    assert_eq!(error(b"# TYPE keyway"), HistoryFileError::Foreign);
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert_eq!(error(&newer), HistoryFileError::Version(9));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let expect = match at {
            0..8 => HistoryFileError::Foreign,
            8..10 => HistoryFileError::Version(u16::from_le_bytes([flipped[8], flipped[9]])),
            10..18 => match error(&flipped) {
                it @ HistoryFileError::Length { .. } => it,
                other => panic!("byte {at}: {other}"),
            },
            _ => HistoryFileError::Checksum,
        };
        assert_eq!(error(&flipped), expect, "byte {at}");
        assert!(!matches!(error(&bytes[..at]), HistoryFileError::Content(_)), "{at} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(error(&longer), HistoryFileError::Length { .. }));
}

/// With a checksum that fits, as one who means harm would write it.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = (bytes.len() as u64).saturating_sub(26);
    bytes[10..18].copy_from_slice(&content.to_le_bytes());
    let checksum = xxh3_64(&bytes[26..]);
    bytes[18..26].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_content_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index, cuts: bool) {
        let mut bytes = encode_histories([("shop", &small())]);
        if cuts {
            bytes.truncate(26 + cut.index(bytes.len() - 26));
        }
        for (at, to) in changes {
            if bytes.len() > 26 {
                let at = 26 + at.index(bytes.len() - 26);
                bytes[at] = to;
            }
        }
        if let Ok(databases) = decode_histories(&seal(bytes)) {
            for (_, mut history) in databases {
                history.set_maps([("m".to_owned(), slots(16, 2)), ("n".to_owned(), slots(1, 1))]);
                history.record("m", START_S + 2_000, START_S + 2_010, [(3, reads(9), writes(9))]);
                let drawn = history.heat_map("m", Metric::Calls, 3_000, (8, 20), START_S + 2_010).unwrap();
                prop_assert_eq!(drawn.cells.len(), drawn.rows.len() * drawn.columns.len());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_picture_has_all_the_load_and_no_more_room_than_it_was_given(
        windows in prop::collection::vec((0u64..3, 0u64..400), 1..200),
        rows_max in 1usize..40,
        columns_max in 1usize..70,
        last_s in 1u64..20_000,
        slot_count in 1u32..60,
    ) {
        let mut history = history(slots(slot_count as usize, 3));
        let (mut now_s, mut calls) = (START_S, 0);
        for (gap, each) in &windows {
            now_s += gap * 17;
            let loads = (0..slot_count).map(|it| (it, reads(each * u64::from(it % 7)), Load::default()));
            prop_assert!(history.record("m", now_s, now_s + 10, loads));
            calls += (0..slot_count).map(|it| each * u64::from(it % 7)).sum::<u64>();
            now_s += 10;
        }
        let drawn = history.heat_map("m", Metric::Calls, last_s, (rows_max, columns_max), now_s).unwrap();
        prop_assert!(drawn.rows.len() <= rows_max && drawn.columns.len() <= columns_max);
        prop_assert_eq!(drawn.cells.len(), drawn.rows.len() * drawn.columns.len());
        let spans: Vec<_> = drawn.rows.iter().map(|it| (it.first_part, it.last_part)).collect();
        prop_assert!(spans[0].0 == 0 && spans.last().unwrap().1 == slot_count - 1);
        prop_assert!(spans.windows(2).all(|it| it[0].1 + 1 == it[1].0));
        let ends = (drawn.columns[0].from_s, drawn.columns.last().unwrap().to_s);
        let length_s = drawn.columns[0].to_s - drawn.columns[0].from_s;
        prop_assert!((now_s..now_s + length_s).contains(&ends.1), "{ends:?}, now {now_s}");
        prop_assert!(ends.0 + length_s >= now_s - last_s && ends.0 <= now_s - last_s + length_s, "{ends:?}");
        // All of it, in one cell.
        let whole = history.heat_map("m", Metric::Calls, 1 << 20, (1, 1), now_s).unwrap();
        let covered = windows.len() as f64 * 10.0;
        let got = f64::from(whole.cells[0].unwrap()) * covered;
        prop_assert!((got - calls as f64).abs() <= calls as f64 * 0.02, "{got} of {calls}");
    }
}
