use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::shard::{HashFunction, KeyType};

fn names(shards: usize) -> Vec<String> {
    (1..=shards).map(|it| format!("s{it}")).collect()
}

fn tables() -> Vec<KeyedTable> {
    vec![
        KeyedTable { schema: None, name: "users".to_owned(), columns: vec!["id".to_owned()] },
        KeyedTable {
            schema: Some("app".to_owned()),
            name: "Or\"ders".to_owned(),
            columns: vec!["user_id".to_owned()],
        },
    ]
}

/// The map of a configuration in which the section stands, read as Keyway reads it at its start.
fn read(section: &str, shards: usize) -> Arc<Map> {
    let server = |it: &String| format!("[databases.shop.shards.{it}]\nservers = [\"{it}.internal:5432\"]\n");
    let servers: String = names(shards).iter().map(server).collect();
    let text = format!("[users.app]\npassword = \"x\"\n{servers}{section}");
    match Config::parse(&text, Path::new("."), &|_| None) {
        Ok(config) => config.database("shop").unwrap().maps[0].clone(),
        Err(problems) => {
            panic!("{}\n{text}", problems.iter().map(|it| format!("{it}\n")).collect::<String>())
        }
    }
}

/// A map by its section's lines.
fn map(lines: &str, shards: usize) -> Arc<Map> {
    read(&format!("[databases.shop.maps.m]\n{lines}\n"), shards)
}

struct Case {
    map: Arc<Map>,
    shards: Vec<String>,
    loads: Vec<u64>,
    keys: Vec<HeavyLoad>,
    splits: Vec<(u32, Result<SplitPoint<KeyValue>, NoSplit>)>,
    hot: Vec<ShardId>,
    scatter_share: f64,
    direction: Option<f64>,
    write_share: f64,
}

impl Case {
    fn new(lines: &str, shards: usize, loads: &[u64], hot: &[u16]) -> Case {
        Case {
            map: map(lines, shards),
            shards: names(shards),
            loads: loads.to_vec(),
            keys: Vec::new(),
            splits: Vec::new(),
            hot: hot.iter().map(|it| ShardId(*it)).collect(),
            scatter_share: 0.0,
            direction: None,
            write_share: 0.2,
        }
    }

    /// A key where the map has it.
    fn with_key(mut self, value: KeyValue, load: (u64, u64), heat: Heat) -> Case {
        let place = self.map.locate(&value).unwrap();
        self.keys.push(HeavyLoad {
            hash: place.key_hash,
            value: Some(value),
            part: place.part,
            shard: place.shard,
            load: Interval { lower: load.0, upper: load.1 },
            heat,
            write_share: 0.1,
        });
        self
    }

    fn advise(&self) -> Vec<Advice> {
        advise(&Situation {
            database: "shop",
            map: &self.map,
            shards: &self.shards,
            tables: &tables(),
            dimension: Dimension::Calls,
            part_loads: &self.loads,
            other_loads: &[],
            hot_shards: &self.hot,
            keys: &self.keys,
            splits: &self.splits,
            scatter_share: self.scatter_share,
            direction: self.direction,
            write_share: self.write_share,
            windows: (3, 5),
        })
    }

    fn one(&self) -> Advice {
        let advice = self.advise();
        assert_eq!(advice.len(), 1, "{advice:?}");
        assert!(advice.iter().all(|it| it.map.as_deref() == Some("m") && it.windows == (3, 5)));
        advice.into_iter().next().unwrap()
    }
}

/// Largest over mean load of the shards that have a part of the map, where a key has so much of its old part.
fn evenness(case: &Case, new: &Map, key_load: u64) -> f64 {
    let key = case.keys.first();
    let mut loads: Vec<Option<u64>> = vec![None; case.shards.len()];
    for part in 0..new.parts() as u32 {
        loads[usize::from(new.part_shard(part).unwrap().0)].get_or_insert(0);
    }
    for (part, load) in case.loads.iter().enumerate() {
        let apart = key.filter(|it| it.part as usize == part).map_or(0, |_| key_load);
        // Pinned keys keep their places, in front of what is pinned now.
        let of_old = part.checked_sub(case.map.own_parts()).map_or(part, |it| it + new.own_parts());
        *loads[usize::from(new.part_shard(of_old as u32).unwrap().0)].get_or_insert(0) += load - apart;
    }
    if let Some(key) = key {
        let at = new.locate(key.value.as_ref().unwrap()).unwrap().shard;
        *loads[usize::from(at.0)].get_or_insert(0) += key_load;
    }
    crate::sketch::max_over_mean(&loads.into_iter().flatten().collect::<Vec<_>>())
}

const FOUR_SLOTS: &str = "kind = \"hash\"\ntype = \"bigint\"\nslots = 4";

fn int(it: i64) -> KeyValue {
    KeyValue::Int(it)
}

/// A key of this slot of four.
fn key_of_slot(slot: u32) -> KeyValue {
    key_of(FOUR_SLOTS, 2, slot)
}

fn key_of(lines: &str, shards: usize, slot: u32) -> KeyValue {
    let map = map(lines, shards);
    (0..).map(int).find(|it| map.locate(it).unwrap().part == slot).unwrap()
}

#[test]
fn an_even_map_needs_nothing_and_says_so() {
    let advice = Case::new(FOUR_SLOTS, 2, &[10, 10, 10, 10], &[]).one();
    assert_eq!((advice.kind, advice.heat, advice.snippet), (AdviceKind::None, Heat::Cool, None));
    assert_eq!(advice.text, "no shard of map m is hot: the largest over mean load is 1.00");
    let idle = Case::new(FOUR_SLOTS, 2, &[0; 4], &[]).one();
    assert_eq!(idle.text, "map m has no load");
}

#[test]
fn a_hot_key_moves_alone_where_a_shard_has_room() {
    let key = key_of_slot(0);
    // A third of all, as in `keyway demo --load hot`: two shards and an idle one.
    let case = Case::new(FOUR_SLOTS, 3, &[500, 167, 167, 166], &[0]);
    let mut case = Case {
        map: map(
            &format!(
                "{FOUR_SLOTS}\nassign = [{{ slots = \"0-1\", shard = \"s1\" }}, {{ slots = \"2-3\", shard = \"s2\" }}]"
            ),
            3,
        ),
        ..case
    };
    case = case.with_key(key.clone(), (333, 340), Heat::Danger);
    let advice = case.one();
    assert_eq!((advice.kind, advice.heat), (AdviceKind::SingleKey, Heat::Danger));
    let (before, after) = advice.max_over_mean.unwrap();
    assert!((before - 1.334).abs() < 0.001 && after < 1.03, "{before} {after}");
    assert!(advice.text.contains("33.3 % to 34.0 % of the calls of map m"), "{}", advice.text);
    assert!(
        advice.text.contains("pinned to shard s3") && advice.text.contains("replicas"),
        "{}",
        advice.text
    );
    let snippet = advice.snippet.unwrap();
    let new = read(&snippet, 3);
    assert_eq!(new.locate(&key).unwrap().shard, ShardId(2));
    assert!(evenness(&case, &new, 337) < 1.05);
    let expect = format!("COPY (SELECT * FROM \"app\".\"Or\"\"ders\" WHERE \"user_id\" = {key}) TO STDOUT");
    assert!(
        snippet.contains(&expect) && snippet.contains("on s1: DELETE FROM \"users\" WHERE \"id\" = "),
        "{snippet}"
    );
    // What others than administrators read has no key in it.
    assert!(!advice.text.contains(&format!(" {key} ")), "{}", advice.text);
}

#[test]
fn a_key_moves_alone_to_an_idle_shard_though_that_is_a_little_less_even() {
    let lines = format!(
        "{FOUR_SLOTS}\nassign = [{{ slots = \"0-1\", shard = \"s1\" }}, {{ slots = \"2-3\", shard = \"s2\" }}]"
    );
    // By slots two shards would be as good as even, each of them with more than any of three that are not.
    let case =
        Case::new(&lines, 3, &[400, 230, 190, 180], &[0]).with_key(key_of_slot(0), (240, 240), Heat::Danger);
    let advice = case.one();
    assert!(advice.text.contains("pinned to shard s3"), "{}", advice.text);
    let (_, after) = advice.max_over_mean.unwrap();
    assert!((after - 1.17).abs() < 0.001, "{after}");
    // Moved to the other shard it would leave that with more than a slot would, moved in its place.
    let case =
        Case::new(&lines, 3, &[500, 130, 190, 180], &[0]).with_key(key_of_slot(0), (200, 200), Heat::Danger);
    let advice = case.one();
    assert!(advice.text.contains("pinned where it is, with 1 slot moved"), "{}", advice.text);
    assert_eq!(advice.max_over_mean, Some((1.26, 1.0)));
    // It would be even enough alone, but no gain.
    let case =
        Case::new(&lines, 3, &[500, 105, 200, 195], &[0]).with_key(key_of_slot(0), (210, 210), Heat::Danger);
    assert_eq!(case.one().max_over_mean, Some((1.21, 1.0)));
    // Moved to s4 it leaves load more even, but to s5, which has nothing yet, the busiest with less.
    let lines = "kind = \"hash\"\ntype = \"bigint\"\nslots = 8\nassign = [{ slots = \"0-1\", shard = \"s1\" }, { slots = \"2-3\", shard = \"s2\" }, { slots = \"4-5\", shard = \"s3\" }, { slots = \"6-7\", shard = \"s4\" }]";
    let loads = [260, 380, 240, 240, 240, 240, 200, 200];
    let case = Case::new(lines, 5, &loads, &[0]).with_key(key_of(lines, 5, 0), (160, 160), Heat::Danger);
    let advice = case.one();
    assert!(advice.text.contains("pinned to shard s5"), "{}", advice.text);
}

#[test]
fn a_key_too_heavy_to_move_stays_and_the_rest_moves_away_from_it() {
    let key = key_of_slot(0);
    let case =
        Case::new(FOUR_SLOTS, 2, &[450, 200, 200, 150], &[0]).with_key(key.clone(), (400, 400), Heat::Danger);
    let advice = case.one();
    assert!(advice.text.contains("pinned where it is, with 1 slot moved"), "{}", advice.text);
    let new = read(&advice.snippet.unwrap(), 2);
    assert_eq!((new.locate(&key).unwrap().shard, new.part_shard(1)), (ShardId(0), Some(ShardId(1))));
    assert!((evenness(&case, &new, 400) - 1.1).abs() < 1e-9);
    assert_eq!(advice.max_over_mean, Some((1.3, 1.1)));
}

#[test]
fn a_key_that_is_nearly_all_the_load_is_helped_by_no_placement() {
    let case =
        Case::new(FOUR_SLOTS, 2, &[970, 10, 10, 10], &[0]).with_key(key_of_slot(0), (960, 965), Heat::Danger);
    let advice = case.one();
    assert_eq!((advice.kind, &advice.snippet, advice.max_over_mean), (AdviceKind::SingleKey, &None, None));
    assert!(advice.text.contains("no shard could take it"), "{}", advice.text);
    let even = Case::new(FOUR_SLOTS, 2, &[300, 200, 250, 250], &[]).with_key(
        key_of_slot(0),
        (220, 230),
        Heat::Danger,
    );
    assert!(even.one().text.contains("shards are even all the same"), "{}", even.one().text);
}

#[test]
fn a_key_that_is_well_placed_keeps_nothing_from_being_said() {
    // Key 42 has a shard of its own already.
    let lines = "kind = \"hash\"\ntype = \"bigint\"\nslots = 4\nassign = [{ slots = \"0-2\", shard = \"s1\" }, { slots = \"3\", shard = \"s2\" }]\npinned = [{ key = 42, shard = \"s3\" }]";
    let case =
        Case::new(lines, 3, &[120, 120, 120, 60, 240], &[0]).with_key(int(42), (240, 240), Heat::Danger);
    let advice = case.advise();
    let kinds: Vec<AdviceKind> = advice.iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [AdviceKind::SingleKey], "{advice:?}");
    assert!(advice[0].text.contains("with 1 slot moved"), "{}", advice[0].text);
    // What no slot helps, another key may.
    let other = key_of_slot(1);
    let case = Case::new(lines, 3, &[0, 300, 0, 40, 240], &[0]).with_key(int(42), (240, 240), Heat::Danger);
    let case = case.with_key(other.clone(), (150, 150), Heat::Danger);
    let advice = case.one();
    let (before, after) = advice.max_over_mean.unwrap();
    assert!(after < before && advice.snippet.unwrap().contains(&format!("key = {other}")), "{}", advice.text);
    // Nor is it hidden that a range could be split.
    let lines = "kind = \"range\"\ntype = \"bigint\"\nranges = [{ to = 100, shard = \"s1\" }, { from = 100, shard = \"s2\" }]\npinned = [{ key = 150, shard = \"s3\" }]";
    let mut case = Case::new(lines, 3, &[600, 100, 300], &[0]).with_key(int(150), (300, 300), Heat::Danger);
    case.splits = vec![(0, Ok(point(int(50), 50, 50, 0)))];
    let kinds: Vec<AdviceKind> = case.advise().iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [AdviceKind::SingleKey, AdviceKind::Split]);
}

#[test]
fn a_key_whose_value_is_not_known_has_no_snippet() {
    let mut case = Case::new(FOUR_SLOTS, 4, &[900, 300, 300, 300], &[0]).with_key(
        key_of_slot(0),
        (600, 600),
        Heat::Danger,
    );
    case.keys[0].value = None;
    case.keys[0].write_share = 0.9;
    let advice = case.one();
    assert_eq!((advice.kind, advice.snippet.as_ref()), (AdviceKind::SingleKey, None));
    assert!(
        advice.text.contains("has not been caught") && advice.text.contains("are writes"),
        "{}",
        advice.text
    );
}

#[test]
fn a_key_need_not_be_dangerous_to_be_what_a_shard_has_too_much_of() {
    let key = key_of_slot(0);
    let too_much =
        Case::new(FOUR_SLOTS, 2, &[300, 50, 50, 50], &[0]).with_key(key.clone(), (250, 260), Heat::Cool);
    assert_eq!(too_much.one().kind, AdviceKind::SingleKey);
    let little = Case::new(FOUR_SLOTS, 2, &[160, 60, 40, 40], &[0]).with_key(key, (30, 40), Heat::Cool);
    assert_eq!(little.one().kind, AdviceKind::Move);
}

#[test]
fn a_pinned_key_is_pinned_elsewhere() {
    let lines =
        format!("{FOUR_SLOTS}\npinned = [{{ key = 42, shard = \"s1\" }}, {{ key = 43, shard = \"s2\" }}]");
    let case =
        Case::new(&lines, 3, &[100, 100, 50, 150, 190, 5], &[0]).with_key(int(42), (185, 185), Heat::Danger);
    assert_eq!(case.keys[0].part, 4);
    let new = read(&case.one().snippet.unwrap(), 3);
    assert_ne!(new.locate(&int(42)).unwrap().shard, ShardId(0));
    assert_eq!((new.locate(&int(43)).unwrap().shard, new.parts()), (ShardId(1), 6));
}

#[test]
fn scattered_statements_are_said_besides() {
    let mut case = Case::new(FOUR_SLOTS, 2, &[160, 60, 40, 40], &[0]);
    case.scatter_share = 0.46;
    let advice = case.advise();
    assert_eq!(advice.iter().map(|it| it.kind).collect::<Vec<_>>(), [AdviceKind::Scatter, AdviceKind::Move]);
    assert!(advice[0].text.starts_with("46.0 % of the statements on map m"), "{}", advice[0].text);
    case.hot.clear();
    assert_eq!(case.advise().len(), 1);
}

const RANGES: &str = "kind = \"range\"\ntype = \"bigint\"\nranges = [{ to = 100, shard = \"s1\" }, { from = 100, to = 200, shard = \"s1\" }, { from = 200, shard = \"s2\" }]\npinned = [{ key = 150, shard = \"s1\" }]";

fn point(key: KeyValue, left: u64, right: u64, contained: u64) -> SplitPoint<KeyValue> {
    SplitPoint { key, left, right, contained }
}

#[test]
fn keys_that_rise_with_the_time_are_sequential() {
    let mut case = Case::new(RANGES, 2, &[10, 20, 900, 0], &[1]);
    case.direction = Some(0.97);
    case.splits = vec![(2, Ok(point(int(300), 50, 50, 0)))];
    assert_eq!(case.one().kind, AdviceKind::Split);
    case.write_share = 0.8;
    let advice = case.one();
    assert_eq!((advice.kind, advice.snippet), (AdviceKind::Sequential, None));
    assert!(advice.text.contains("rise") && advice.text.contains("0.97"), "{}", advice.text);
    case.direction = Some(-0.97);
    assert!(case.one().text.contains("fall"));
}

#[test]
fn a_range_is_split_where_its_load_is_even() {
    let mut case = Case::new(RANGES, 2, &[100, 800, 100, 0], &[0]);
    case.splits = vec![(0, Err(NoSplit::TooFewSamples { have: 7 })), (1, Ok(point(int(160), 480, 500, 20)))];
    let advice = case.one();
    assert_eq!(advice.kind, AdviceKind::Split);
    assert!(advice.text.contains("left 48.0 %, right 50.0 %, on both sides 2.0 %"), "{}", advice.text);
    let (before, after) = advice.max_over_mean.unwrap();
    assert!((before - 1.8).abs() < 1e-9 && after < 1.1, "{after}");
    let snippet = advice.snippet.unwrap();
    let new = read(&snippet, 2);
    let shards = [0, 99, 100, 159, 160, 199, 200].map(|it| new.locate(&int(it)).unwrap().shard.0);
    assert_eq!(shards, [0, 0, 0, 0, 1, 1, 1]);
    // Pinned keys stay.
    assert_eq!(new.locate(&int(150)).unwrap().shard, ShardId(0));
    assert!(snippet.contains("WHERE \"id\" >= 160 AND \"id\" < 200 AND \"id\" <> 150"), "{snippet}");
}

#[test]
fn a_split_that_does_not_lie_inside_or_does_not_help_is_none() {
    let mut case = Case::new(RANGES, 2, &[0, 900, 800, 0], &[0]);
    case.splits = vec![(1, Ok(point(int(100), 50, 50, 0)))];
    let advice = case.one();
    assert_eq!(advice.kind, AdviceKind::None);
    assert!(advice.text.contains("no part of it could move"), "{}", advice.text);
    case.splits = vec![(1, Ok(point(int(150), 0, 0, 1_000)))];
    assert_eq!(case.one().kind, AdviceKind::None);
    for (why, word) in [
        (NoSplit::TooFewSamples { have: 7 }, "too few keys were seen"),
        (NoSplit::PopularKey { share: 0.7 }, "one key has 70.0 % of its range"),
        (NoSplit::Unbalanced { difference: 0.4 }, "by 40.0 % at least"),
        (NoSplit::Contained { share: 0.6 }, "60.0 % of the statements"),
    ] {
        case.splits = vec![(1, Err(why))];
        assert!(case.one().text.contains(word), "{}", case.one().text);
    }
    let alone = Case::new(FOUR_SLOTS, 1, &[9, 0, 0, 0], &[0]).one();
    assert!(alone.text.contains("there is no other shard"), "{}", alone.text);
}

#[test]
fn slots_move_from_the_hot_shard() {
    let lines = "kind = \"hash\"\ntype = \"bigint\"\nslots = 8";
    let case = Case::new(lines, 2, &[40, 40, 40, 40, 10, 10, 10, 10], &[0]);
    let advice = case.one();
    assert_eq!(advice.kind, AdviceKind::Move);
    assert!(advice.text.starts_with("1 slot of map m with 20.0 % of its calls"), "{}", advice.text);
    let snippet = advice.snippet.unwrap();
    assert!(snippet.contains("slots") && snippet.contains("how a place is computed"), "{snippet}");
    let new = read(&snippet, 2);
    let (_, after) = advice.max_over_mean.unwrap();
    assert!((evenness(&case, &new, 0) - after).abs() < 1e-9 && after < 1.25, "{after}");
}

#[test]
fn every_kind_of_map_is_written_as_it_is_read() {
    let own = |lines: &str, shards| {
        let map = map(lines, shards);
        let names = Names { database: "shop", map: &map, shards: &names(shards), tables: &[] };
        let text = names.snippet(&NewMap::of(&map), &[]).unwrap();
        assert_eq!(read(&text, shards).fingerprint(), map.fingerprint(), "{text}");
        text
    };
    own(FOUR_SLOTS, 3);
    own("kind = \"hash\"\ntype = \"bigint\"", 5);
    own(
        "kind = \"hash\"\nhash = \"postgres\"\ntype = [\"bigint\", \"uuid\"]\nslots = 6\npinned = [{ key = [7, \"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"], shard = \"s2\" }]",
        2,
    );
    own(
        "kind = \"range\"\ntype = \"timestamptz\"\nranges = [{ to = \"2026-01-01T00:00:00Z\", shard = \"s1\" }, { from = \"2026-01-01T00:00:00Z\", shard = \"s2\" }]",
        2,
    );
    own(
        "kind = \"range\"\ntype = \"timestamp(3)\"\nranges = [{ to = \"2026-01-01T00:00:00.5\", shard = \"s1\" }, { from = \"2026-01-01T00:00:00.5\", shard = \"s2\" }]",
        2,
    );
    own(
        "kind = \"range\"\ntype = \"date\"\nranges = [{ to = \"2026-01-31\", shard = \"s1\" }, { from = \"2026-01-31\", to = \"infinity\", shard = \"s2\" }]",
        2,
    );
    own(
        "kind = \"range\"\ntype = \"varchar(20)\"\ncollation = \"C\"\nranges = [{ to = \"m\\n\\\"\\\\\", shard = \"s1\" }, { from = \"m\\n\\\"\\\\\", shard = \"s2\" }]",
        2,
    );
    own(
        "kind = \"range\"\ntype = [\"integer\", \"text\"]\ncollation = \"C\"\nranges = [{ to = [7, \"ä\"], shard = \"s1\" }, { from = [7, \"ä\"], shard = \"s2\" }]",
        2,
    );
    own(
        "kind = \"list\"\ntype = \"char(2)\"\nlists = [{ values = [\"de\", \"at\"], shard = \"s1\" }, { values = [\"fr\"], shard = \"s2\" }]\ndefault = \"s2\"",
        2,
    );
    own(
        "kind = \"list\"\ntype = \"boolean\"\nlists = [{ values = [true], shard = \"s1\" }, { values = [false], shard = \"s2\" }]",
        2,
    );
    own(
        "kind = \"list\"\ntype = \"bytea\"\nlists = [{ values = [\"\\\\x00ff\"], shard = \"s1\" }]\ndefault = \"s2\"",
        2,
    );
    own(
        "kind = \"list\"\ntype = \"enum\"\nlists = [{ values = [\"sad\"], shard = \"s1\" }]\ndefault = \"s2\"",
        2,
    );
    own(
        "kind = \"hash\"\ntype = \"numeric\"\nslots = 4\npinned = [{ key = \"12345678901234567890123456789012345678\", shard = \"s2\" }]",
        2,
    );
}

#[test]
fn list_entries_move_with_their_values_and_keys_keep_to_their_lines() {
    let lines = "kind = \"list\"\ntype = \"text\"\nlists = [{ values = [\"a\"], shard = \"s1\" }, { values = [\"o'b\", \"x\\n[users.root]\\\\\"], shard = \"s1\" }]\ndefault = \"s2\"";
    let mut case = Case::new(lines, 2, &[500, 300, 100], &[0]);
    let advice = case.one();
    assert_eq!(advice.kind, AdviceKind::Move);
    assert!(advice.text.starts_with("1 list entry of map m"), "{}", advice.text);
    let snippet = advice.snippet.unwrap();
    assert!(snippet.contains("\"id\" IN ('o''b', E'x\\u000A[users.root]\\\\')"), "{snippet}");
    let new = read(&snippet, 2);
    assert_eq!(new.locate(&KeyValue::Text("o'b".into())).unwrap().shard, ShardId(1));
    // The default has it all: it cannot be taken apart, and moves as it is where that helps.
    case.loads = vec![10, 0, 900];
    case.hot = vec![ShardId(1)];
    assert_eq!(case.one().kind, AdviceKind::None);
}

#[test]
fn partitions_by_postgres_hash_are_named_by_their_remainders() {
    let lines = "kind = \"hash\"\nhash = \"postgres\"\ntype = \"bigint\"\nslots = 6";
    let advice = Case::new(lines, 2, &[50, 50, 50, 5, 5, 5], &[0]).one();
    let snippet = advice.snippet.unwrap();
    assert!(snippet.contains("what has remainder ") && snippet.contains("by modulus 6"), "{snippet}");
    let Form::Hash { function: HashFunction::Postgres, .. } = read(&snippet, 2).form() else {
        panic!("{snippet}")
    };
}

#[test]
fn a_key_that_the_configuration_cannot_say_has_no_snippet() {
    // Beyond the years that dates are read of.
    let far = KeyValue::Days(1_000_000_000);
    let lines = "kind = \"hash\"\ntype = \"date\"\nslots = 4";
    let case = Case::new(lines, 4, &[500, 500, 500, 500], &[]);
    let part = case.map.locate(&far).unwrap().part as usize;
    let mut loads = vec![300; 4];
    loads[part] = 900;
    let hot = case.map.locate(&far).unwrap().shard;
    let case = Case { loads, hot: vec![hot], ..case }.with_key(far, (600, 600), Heat::Danger);
    let advice = case.one();
    assert_eq!((advice.kind, advice.snippet), (AdviceKind::SingleKey, None));
    assert!(KeyType::Date.parse_text("1000000000 days after 2000-01-01", false).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_advised_is_as_even_as_it_says_and_never_less_than_before(
        shards in 2usize..6,
        slots in prop::sample::select(vec![8usize, 16, 64]),
        dealt in prop::collection::vec(0usize..6, 64),
        loads in prop::collection::vec((0u32..100, 1u64..6), 64),
        key in 0i64..10_000,
        share in (0.0f64..1.0, 0.0f64..0.2),
        boost in 0u64..3_000,
        at in 0.0f64..=1.0,
        has_key: bool,
        dangerous: bool,
    ) {
        let assign: String = (0..slots)
            .map(|it| format!("{{ slots = \"{it}\", shard = \"s{}\" }},", dealt[it] % shards + 1))
            .collect();
        let lines = format!("kind = \"hash\"\ntype = \"bigint\"\nslots = {slots}\nassign = [{assign}]");
        let map = map(&lines, shards);
        let place = map.locate(&int(key)).unwrap();
        let mut loads: Vec<u64> = loads[..slots].iter().map(|it| u64::from(it.0).pow(it.1 as u32 / 2)).collect();
        let part = &mut loads[place.part as usize];
        *part += boost;
        let lower = (*part as f64 * share.0) as u64;
        let upper = (lower as f64 * (1.0 + share.1)) as u64;
        let mut case = Case { map: map.clone(), ..Case::new(&lines, shards, &loads, &[place.shard.0]) };
        if has_key {
            case = case.with_key(int(key), (lower, upper), if dangerous { Heat::Danger } else { Heat::Cool });
        }
        // What the key has in truth: anything within its bounds and its part.
        let truth = (lower + ((upper - lower) as f64 * at) as u64).min(loads[place.part as usize]);
        let before = evenness(&case, &map, truth);
        for advice in case.advise() {
            let Some((said, after)) = advice.max_over_mean else { continue };
            prop_assert!((said - before).abs() < 1e-9, "{said} {before}");
            let new = read(advice.snippet.as_ref().unwrap(), shards);
            let got = evenness(&case, &new, if has_key { truth } else { 0 });
            prop_assert!(got <= after + 1e-9 && after < before, "{got}, said {after}, was {before}: {}", advice.text);
        }
    }
}
