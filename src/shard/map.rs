//! Maps from a key to a shard: hash slots, or ranges. A map that exists has neither gap nor overlap.

use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::key::{KeyType, KeyValue};
use crate::base::ShardId;

/// More slots than this would make the tables of load per slot larger than they are worth.
pub const SLOTS_MAX: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    Xxh3,
}

/// Half open: `from` is in it, `to` is not; `None` has no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: Option<KeyValue>,
    pub to: Option<KeyValue>,
    pub shard: ShardId,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    #[error("the number of slots is a power of two from 1 to {SLOTS_MAX}, not {0}")]
    Slots(usize),
    #[error("there is no range")]
    Empty,
    #[error("range {0} is empty: its `from` is not below its `to`")]
    Inverted(usize),
    #[error("ranges {0} and {1} overlap")]
    Overlap(usize, usize),
    #[error("no range covers the keys between ranges {0} and {1}")]
    Gap(usize, usize),
}

/// Where a key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub shard: ShardId,
    /// The slot, or the range by its order.
    pub part: u32,
    pub key_hash: u64,
}

#[derive(Clone, Debug)]
pub struct Map {
    pub name: String,
    pub key_type: KeyType,
    kind: Kind,
    fingerprint: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Hash { slots: Vec<ShardId>, shift: u32 },
    Range { ranges: Vec<Range> },
}

impl Map {
    /// `slots[i]` is the shard of slot `i`.
    pub fn hash(
        name: &str,
        key_type: KeyType,
        hash: HashFunction,
        slots: Vec<ShardId>,
    ) -> Result<Map, MapError> {
        let HashFunction::Xxh3 = hash;
        if !slots.len().is_power_of_two() || slots.len() > SLOTS_MAX {
            return Err(MapError::Slots(slots.len()));
        }
        let shift = 64 - slots.len().trailing_zeros();
        let bytes: Vec<u8> = slots.iter().flat_map(|it| it.0.to_le_bytes()).collect();
        Ok(Map::new(name, key_type, Kind::Hash { slots, shift }, &bytes))
    }

    /// Ranges in any order.
    ///
    /// # Errors
    /// The first of their `faults`.
    pub fn range(name: &str, key_type: KeyType, mut ranges: Vec<Range>) -> Result<Map, MapError> {
        if let Some(fault) = faults(&ranges).into_iter().next() {
            return Err(fault);
        }
        ranges.sort_by(|a, b| a.from.cmp(&b.from));
        let bytes = format!("{ranges:?}");
        Ok(Map::new(name, key_type, Kind::Range { ranges }, bytes.as_bytes()))
    }

    fn new(name: &str, key_type: KeyType, kind: Kind, bytes: &[u8]) -> Map {
        let mut hash = Xxh3::new();
        hash.update(name.as_bytes());
        hash.update(key_type.to_string().as_bytes());
        hash.update(bytes);
        Map { name: name.to_owned(), key_type, kind, fingerprint: hash.digest() }
    }

    /// Changes when the map changes: the version that plans carry (DESIGN invariant 10).
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Slots, or ranges.
    pub fn parts(&self) -> usize {
        match &self.kind {
            Kind::Hash { slots, .. } => slots.len(),
            Kind::Range { ranges } => ranges.len(),
        }
    }

    /// The place of a key of this map's type; `None` when no range covers it.
    #[inline]
    pub fn locate(&self, key: &KeyValue) -> Option<Place> {
        let key_hash = key.with_canonical_bytes(xxh3_64);
        match &self.kind {
            Kind::Hash { slots, shift } => {
                let slot = key_hash.checked_shr(*shift).unwrap_or(0);
                let shard = *slots.get(slot as usize)?;
                Some(Place { shard, part: slot as u32, key_hash })
            }
            Kind::Range { ranges } => {
                let after = ranges.partition_point(|it| it.from.as_ref().is_none_or(|from| from <= key));
                let index = after.checked_sub(1)?;
                let range = ranges.get(index)?;
                let inside = range.to.as_ref().is_none_or(|to| key < to);
                inside.then_some(Place { shard: range.shard, part: index as u32, key_hash })
            }
        }
    }

    /// `slot 17 of 4096`, or `range from 2026-01-01 00:00:00 to the end`.
    pub fn describe_part(&self, part: u32) -> String {
        match &self.kind {
            Kind::Hash { slots, .. } => format!("slot {part} of {}", slots.len()),
            Kind::Range { ranges } => match ranges.get(part as usize) {
                None => format!("range {part}"),
                Some(range) => {
                    let end = |it: &Option<KeyValue>, open: &str| {
                        it.as_ref().map_or_else(|| open.to_owned(), ToString::to_string)
                    };
                    format!("range from {} to {}", end(&range.from, "the start"), end(&range.to, "the end"))
                }
            },
        }
    }
}

/// Everything that keeps these ranges from being a map. Ranges are named by their place, from 1.
pub fn faults(ranges: &[Range]) -> Vec<MapError> {
    let mut ordered: Vec<(usize, &Range)> = ranges.iter().enumerate().map(|(at, it)| (at + 1, it)).collect();
    ordered.sort_by(|(_, a), (_, b)| a.from.cmp(&b.from));
    let mut faults = Vec::new();
    if ranges.is_empty() {
        faults.push(MapError::Empty);
    }
    for (at, range) in &ordered {
        if let (Some(from), Some(to)) = (&range.from, &range.to)
            && from >= to
        {
            faults.push(MapError::Inverted(*at));
        }
    }
    // An inverted range has no extent to compare with its neighbours.
    if !faults.is_empty() {
        return faults;
    }
    for pair in ordered.windows(2) {
        let ((a, before), (b, after)) = (pair[0], pair[1]);
        match (&before.to, &after.from) {
            (Some(to), Some(from)) if to < from => faults.push(MapError::Gap(a, b)),
            (Some(to), Some(from)) if to == from => {}
            _ => faults.push(MapError::Overlap(a, b)),
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash_map(slots: usize, shards: usize) -> Map {
        let dealt = (0..slots).map(|it| ShardId((it * shards / slots) as u16)).collect();
        Map::hash("m", KeyType::Bigint, HashFunction::Xxh3, dealt).unwrap()
    }

    fn range(from: Option<i64>, to: Option<i64>, shard: u16) -> Range {
        Range { from: from.map(KeyValue::Int), to: to.map(KeyValue::Int), shard: ShardId(shard) }
    }

    fn range_map(ranges: Vec<Range>) -> Result<Map, MapError> {
        Map::range("m", KeyType::Bigint, ranges)
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
            let made = Map::hash("m", KeyType::Bigint, HashFunction::Xxh3, vec![ShardId(0); count]);
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
        fn every_spelling_of_a_key_has_one_place(value: i16, zeros in 0usize..6, shards in 1usize..9) {
            let map = hash_map(4096, shards);
            let want = map.locate(&KeyValue::Int(value.into())).unwrap();
            let sign = if value < 0 { "-" } else { "" };
            let text = format!(" {sign}{}{}\t", "0".repeat(zeros), value.unsigned_abs());
            let wide = i64::from(value);
            let spellings = [
                KeyType::Bigint.parse_text(&text, false),
                KeyType::Smallint.parse_text_param(21, &text, false),
                KeyType::Bigint.parse_binary(21, &value.to_be_bytes(), false),
                KeyType::Integer.parse_binary(23, &(wide as i32).to_be_bytes(), false),
                KeyType::Bigint.parse_binary(20, &wide.to_be_bytes(), false),
            ];
            for key in spellings {
                prop_assert_eq!(map.locate(&key.unwrap()), Some(want));
            }
            prop_assert!(usize::from(want.shard.0) < shards);
        }

        #[test]
        fn an_instant_has_one_place_in_every_zone(seconds in -60_000_000_000i64..240_000_000_000, hours in -12i64..13) {
            let map = Map::hash("m", KeyType::Timestamptz, HashFunction::Xxh3, vec![ShardId(0); 4096]).unwrap();
            let micros = seconds * 1_000_000;
            let local = KeyValue::Micros(micros + hours * 3_600_000_000).to_string();
            let key = KeyType::Timestamptz.parse_text(&format!("{local}{hours:+03}"), false).unwrap();
            prop_assert_eq!(map.locate(&key), map.locate(&KeyValue::Micros(micros)));
            let binary = KeyType::Timestamptz.parse_binary(1184, &micros.to_be_bytes(), false).unwrap();
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
}
