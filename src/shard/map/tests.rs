use proptest::prelude::*;

use super::*;
use crate::shard::{Purpose, Usage};

const BIGINT: &[KeyColumn] = &[KeyColumn { key_type: KeyType::Bigint, modifier: None }];

fn of_binary(key_type: KeyType, oid: u32, bytes: &[u8]) -> Result<Option<KeyValue>, crate::base::Refusal> {
    let usage = Usage { purpose: Purpose::Compare, utc: false };
    KeyColumn::from(key_type).of_binary(oid, bytes, usage)
}

fn hash_map(slots: usize, shards: usize) -> Map {
    let dealt = (0..slots).map(|it| ShardId((it * shards / slots) as u16)).collect();
    Map::hash("m", BIGINT, HashFunction::Xxh3, dealt).unwrap()
}

fn range(from: Option<i64>, to: Option<i64>, shard: u16) -> Range {
    Range { from: from.map(KeyValue::Int), to: to.map(KeyValue::Int), shard: ShardId(shard) }
}

fn range_map(ranges: Vec<Range>) -> Result<Map, MapError> {
    Map::range("m", BIGINT, ranges)
}

#[test]
fn sequential_keys_spread_evenly() {
    let map = hash_map(4096, 4);
    let mut counts = [0; 4];
    for key in 0..40_000 {
        let place = map.locate(&KeyValue::Int(key)).unwrap();
        assert_eq!(usize::from(place.shard.0), place.part as usize * 4 / 4096);
        counts[usize::from(place.shard.0)] += 1;
    }
    assert!(counts.iter().all(|it| (9_500..10_500).contains(it)), "{counts:?}");
}

#[test]
fn the_hash_of_a_key_never_changes() {
    // Rows lie where this hash put them: another value here loses every user's data.
    let place = |slots| hash_map(slots, 1).locate(&KeyValue::Int(7)).unwrap();
    assert_eq!(place(4096).key_hash, xxh3_64(&7i64.to_le_bytes()));
    assert_eq!(u64::from(place(4096).part), place(4096).key_hash >> 52);
    assert_eq!(place(1).part, 0);
}

#[test]
fn slots_are_a_power_of_two() {
    for count in [0, 3, SLOTS_MAX * 2] {
        let made = Map::hash("m", BIGINT, HashFunction::Xxh3, vec![ShardId(0); count]);
        assert_eq!(made.unwrap_err(), MapError::Slots(count));
    }
}

#[test]
fn ranges_are_half_open_and_keys_outside_have_no_place() {
    let map = range_map(vec![range(Some(10), Some(20), 1), range(None, Some(10), 0)]).unwrap();
    let shard = |key| map.locate(&KeyValue::Int(key)).map(|it| it.shard.0);
    assert_eq!(
        (shard(i64::MIN), shard(9), shard(10), shard(19), shard(20)),
        (Some(0), Some(0), Some(1), Some(1), None)
    );
    assert_eq!(map.describe_part(1), "range from 10 to 20");
    assert_eq!(map.describe_part(0), "range from the start to 10");
}

#[test]
fn gaps_overlaps_and_empty_ranges_are_errors() {
    let error = |it| range_map(it).unwrap_err();
    assert_eq!(error(vec![]), MapError::Empty);
    assert_eq!(error(vec![range(Some(5), Some(5), 0)]), MapError::Inverted(1));
    assert_eq!(error(vec![range(None, Some(5), 0), range(Some(6), None, 1)]), MapError::Gap(1, 2));
    assert_eq!(error(vec![range(None, Some(7), 0), range(Some(6), None, 1)]), MapError::Overlap(1, 2));
    assert_eq!(error(vec![range(None, None, 0), range(Some(6), None, 1)]), MapError::Overlap(1, 2));
    assert_eq!(error(vec![range(None, Some(1), 0), range(None, Some(6), 1)]), MapError::Overlap(1, 2));
    let all = faults(&[range(Some(9), None, 0), range(None, Some(1), 0), range(Some(0), Some(5), 1)]);
    assert_eq!(all, [MapError::Overlap(2, 3), MapError::Gap(3, 1)]);
}

#[test]
fn another_assignment_is_another_fingerprint() {
    assert_ne!(hash_map(16, 2).fingerprint(), hash_map(16, 4).fingerprint());
    assert_eq!(hash_map(16, 2).fingerprint(), hash_map(16, 2).fingerprint());
}

proptest! {
    #[test]
    fn an_instant_has_one_place_in_every_zone(seconds in -60_000_000_000i64..240_000_000_000, hours in -12i64..13) {
        let map = Map::hash("m", &[KeyType::Timestamptz.into()], HashFunction::Xxh3, vec![ShardId(0); 4096]).unwrap();
        let micros = seconds * 1_000_000;
        let local = KeyValue::Micros(micros + hours * 3_600_000_000).to_string();
        let key = KeyType::Timestamptz.parse_text(&format!("{local}{hours:+03}"), false).unwrap();
        prop_assert_eq!(map.locate(&key), map.locate(&KeyValue::Micros(micros)));
        let binary = of_binary(KeyType::Timestamptz, 1184, &micros.to_be_bytes()).unwrap().unwrap();
        prop_assert_eq!(key, binary);
    }

    #[test]
    fn range_lookup_equals_a_linear_scan(bounds in prop::collection::btree_set(any::<i16>(), 1..20), key: i16) {
        let bounds: Vec<i64> = bounds.into_iter().map(i64::from).collect();
        let mut ranges = vec![range(None, Some(bounds[0]), 0)];
        for (index, pair) in bounds.windows(2).enumerate() {
            ranges.push(range(Some(pair[0]), Some(pair[1]), index as u16 + 1));
        }
        ranges.push(range(bounds.last().copied(), None, 99));
        let key = i64::from(key);
        let want = ranges.iter().find(|it| {
            it.from.as_ref().is_none_or(|from| *from <= KeyValue::Int(key))
                && it.to.as_ref().is_none_or(|to| KeyValue::Int(key) < *to)
        });
        let got = range_map(ranges.clone()).unwrap().locate(&KeyValue::Int(key));
        prop_assert_eq!(got.map(|it| it.shard), want.map(|it| it.shard));
    }
}

fn text(it: &str) -> KeyValue {
    KeyValue::Text(it.into())
}

fn row(a: i64, b: &str) -> KeyValue {
    KeyValue::Row(Box::new([KeyValue::Int(a), text(b)]))
}

const PAIR: &[KeyColumn] = &[
    KeyColumn { key_type: KeyType::Bigint, modifier: None },
    KeyColumn { key_type: KeyType::Text, modifier: None },
];

#[test]
fn lists_have_a_default_or_none() {
    let entries = || {
        vec![
            ListEntry { values: vec![text("de"), text("at")], shard: ShardId(1) },
            ListEntry { values: vec![text("fr")], shard: ShardId(2) },
        ]
    };
    let columns = &[KeyType::Text.into()];
    let open = Map::list("m", columns, entries(), Some(ShardId(7))).unwrap();
    let closed = Map::list("m", columns, entries(), None).unwrap();
    let at = |map: &Map, key: &str| map.locate(&text(key)).map(|it| (it.shard.0, map.describe_part(it.part)));
    assert_eq!(at(&open, "at"), Some((1, "list entry de, at".into())));
    assert_eq!(at(&open, "xx"), Some((7, "default of the list".into())));
    assert_eq!(at(&closed, "fr"), Some((2, "list entry fr".into())));
    assert_eq!(at(&closed, "xx"), None);
    assert_ne!(open.fingerprint(), closed.fingerprint());
    let mut twice = entries();
    twice.push(ListEntry { values: vec![text("de")], shard: ShardId(1) });
    assert_eq!(Map::list("m", columns, twice, None).unwrap_err(), MapError::Twice("de".into()));
}

#[test]
fn a_pinned_key_overrides_each_kind() {
    let pin = |map: Map| map.with_pinned(vec![(KeyValue::Int(5), ShardId(9))]).unwrap();
    let list = vec![ListEntry { values: vec![KeyValue::Int(5), KeyValue::Int(6)], shard: ShardId(0) }];
    let maps = [
        hash_map(16, 1),
        Map::hash("m", BIGINT, HashFunction::Postgres, vec![ShardId(0); 3]).unwrap(),
        range_map(vec![range(Some(6), None, 0)]).unwrap(),
        Map::list("m", BIGINT, list, None).unwrap(),
    ];
    for map in maps {
        let (before, parts, other) = (map.fingerprint(), map.parts(), map.locate(&KeyValue::Int(6)));
        let map = pin(map);
        let place = map.locate(&KeyValue::Int(5)).unwrap();
        assert_eq!((place.shard.0, place.part as usize), (9, parts));
        assert_eq!(map.describe_part(place.part), "pinned key 5");
        assert_eq!(map.locate(&KeyValue::Int(6)), other);
        assert_ne!(map.fingerprint(), before);
        assert_eq!(map.parts(), parts + 1);
    }
    let twice = vec![(KeyValue::Int(5), ShardId(9)), (KeyValue::Int(5), ShardId(8))];
    assert_eq!(hash_map(16, 1).with_pinned(twice).unwrap_err(), MapError::Twice("5".into()));
}

#[test]
fn an_interval_touches_ranges_and_pinned_keys() {
    let ranges =
        vec![range(None, Some(100), 0), range(Some(100), Some(200), 1), range(Some(200), Some(300), 2)];
    let map = range_map(ranges).unwrap().with_pinned(vec![(KeyValue::Int(150), ShardId(5))]).unwrap();
    let touched = |from: Option<(i64, bool)>, to: Option<(i64, bool)>| {
        let (from, to) =
            (from.map(|it| (KeyValue::Int(it.0), it.1)), to.map(|it| (KeyValue::Int(it.0), it.1)));
        fn bound(it: &Option<(KeyValue, bool)>) -> Option<Bound<'_>> {
            it.as_ref().map(|(key, inclusive)| Bound { key, inclusive: *inclusive })
        }
        let shards = map.shards_between(bound(&from), bound(&to)).unwrap();
        shards.iter().map(|it| it.0).collect::<Vec<_>>()
    };
    assert_eq!(touched(None, None), [0, 1, 2, 5]);
    assert_eq!(touched(Some((200, true)), None), [2]);
    assert_eq!(touched(Some((199, false)), None), [1, 2]);
    assert_eq!(touched(None, Some((100, false))), [0]);
    assert_eq!(touched(None, Some((100, true))), [0, 1]);
    assert_eq!(touched(Some((150, true)), Some((150, true))), [1, 5]);
    assert_eq!(touched(Some((150, false)), Some((160, true))), [1]);
    assert!(touched(Some((300, true)), None).is_empty());
    assert_eq!(hash_map(4, 2).shards_between(None, None), None);
}

#[test]
fn composite_ranges_are_in_the_order_of_their_columns() {
    let ranges = vec![
        Range { from: None, to: Some(row(5, "m")), shard: ShardId(0) },
        Range { from: Some(row(5, "m")), to: None, shard: ShardId(1) },
    ];
    let map = Map::range("m", PAIR, ranges).unwrap();
    let shard = |key| map.locate(&key).unwrap().shard.0;
    assert_eq!((shard(row(4, "z")), shard(row(5, "a")), shard(row(5, "m")), shard(row(6, ""))), (0, 0, 1, 1));
    let first = |it: i64| KeyValue::Row(Box::new([KeyValue::Int(it)]));
    let touched = |it: i64| {
        let (key, inclusive) = (&first(it), true);
        let bound = Some(Bound { key, inclusive });
        map.shards_between(bound, bound).unwrap().iter().map(|it| it.0).collect::<Vec<_>>()
    };
    assert_eq!((touched(4), touched(5), touched(6)), (vec![0], vec![0, 1], vec![1]));
    assert_eq!(map.describe_part(0), "range from the start to (5, m)");
}

#[test]
fn what_only_a_server_knows_is_no_map() {
    let of_enum = &[KeyType::Enum.into()];
    let hash = |function| Map::hash("m", of_enum, function, vec![ShardId(0)]);
    assert_eq!(hash(HashFunction::Postgres).unwrap_err(), MapError::EnumHash);
    assert!(hash(HashFunction::Xxh3).is_ok());
    assert_eq!(Map::range("m", of_enum, vec![]).unwrap_err(), MapError::EnumRange);
    assert_eq!(Map::hash("m", BIGINT, HashFunction::Postgres, vec![]).unwrap_err(), MapError::Modulus(0));
    assert_eq!(Map::list("m", &[], vec![], None).unwrap_err(), MapError::Columns(0));
}

fn any_value() -> impl Strategy<Value = KeyValue> {
    prop_oneof![
        any::<i64>().prop_map(KeyValue::Int),
        "[ab]{0,3}".prop_map(|it| KeyValue::Text(it.into())),
        (any::<bool>(), "[ab]{0,3}", "[ab]{0,3}").prop_map(|(first, a, b)| {
            KeyValue::Row(Box::new([KeyValue::Bool(first), text(&a), text(&b)]))
        }),
        prop::collection::vec(0u8..3, 0..4).prop_map(|it| KeyValue::Bytes(it.into())),
        any::<i128>().prop_map(KeyValue::Numeric),
    ]
}

proptest! {
    #[test]
    fn canonical_bytes_tell_values_of_a_type_apart(a in any_value(), b in any_value()) {
        let same_type = std::mem::discriminant(&a) == std::mem::discriminant(&b);
        let bytes = |it: &KeyValue| it.with_canonical_bytes(<[u8]>::to_vec);
        if same_type {
            prop_assert_eq!(bytes(&a) == bytes(&b), a == b);
        }
    }

    #[test]
    fn list_and_pinned_lookup_equal_a_linear_scan(
        keys in prop::collection::btree_set(0i64..60, 1..40),
        key in 0i64..80,
        pinned in 0usize..5,
        has_default: bool,
    ) {
        let keys: Vec<i64> = keys.into_iter().collect();
        let (pins, listed) = keys.split_at(pinned.min(keys.len()));
        let entries: Vec<ListEntry> = listed.chunks(3).enumerate().map(|(at, it)| ListEntry {
            values: it.iter().map(|it| KeyValue::Int(*it)).collect(),
            shard: ShardId(at as u16 % 4),
        }).collect();
        let default = has_default.then_some(ShardId(50));
        let pins: Vec<_> = pins.iter().map(|it| (KeyValue::Int(*it), ShardId(99))).collect();
        let wanted = KeyValue::Int(key);
        let scanned = match (pins.iter().find(|it| it.0 == wanted), entries.iter().find(|it| it.values.contains(&wanted))) {
            (Some((_, shard)), _) => Some(*shard),
            (None, Some(entry)) => Some(entry.shard),
            (None, None) => default,
        };
        let map = Map::list("m", BIGINT, entries, default).unwrap().with_pinned(pins).unwrap();
        let place = map.locate(&wanted);
        prop_assert_eq!(place.map(|it| it.shard), scanned);
        prop_assert!(place.is_none_or(|it| (it.part as usize) < map.parts()));
    }

    #[test]
    fn an_interval_touches_what_a_scan_of_its_keys_finds(
        bounds in prop::collection::btree_set(-20i64..20, 2..8),
        from in prop::option::of((-25i64..25, any::<bool>())),
        to in prop::option::of((-25i64..25, any::<bool>())),
    ) {
        let bounds: Vec<i64> = bounds.into_iter().collect();
        let ranges = bounds.windows(2).enumerate();
        let ranges = ranges.map(|(at, it)| range(Some(it[0]), Some(it[1]), at as u16)).collect();
        let map = range_map(ranges).unwrap();
        let inside = |it: &i64| {
            from.is_none_or(|(end, inclusive)| *it > end || inclusive && *it == end)
                && to.is_none_or(|(end, inclusive)| *it < end || inclusive && *it == end)
        };
        let keys = (-30i64..30).filter(inside);
        let want: std::collections::BTreeSet<u16> =
            keys.filter_map(|it| map.locate(&KeyValue::Int(it))).map(|it| it.shard.0).collect();
        let (from, to) = (from.map(|it| (KeyValue::Int(it.0), it.1)), to.map(|it| (KeyValue::Int(it.0), it.1)));
        let bound = |it: &Option<(KeyValue, bool)>| it.clone();
        let (from, to) = (bound(&from), bound(&to));
        let got = map.shards_between(
            from.as_ref().map(|(key, inclusive)| Bound { key, inclusive: *inclusive }),
            to.as_ref().map(|(key, inclusive)| Bound { key, inclusive: *inclusive }),
        ).unwrap();
        let got: std::collections::BTreeSet<u16> = got.iter().map(|it| it.0).collect();
        // Between two neighbouring integers a range may seem to reach in; none is ever left out.
        prop_assert!(want.is_subset(&got), "{:?} of {:?}", want, got);
        prop_assert!(got.len() <= want.len() + 2);
    }
}
