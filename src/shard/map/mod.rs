//! Maps from a key to a shard: hash slots, ranges or lists, each with keys that are pinned to a shard of
//! their own. A map that exists has neither gap nor overlap where its kind could have one.

mod table;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use smallvec::SmallVec;
use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::key::{KeyColumn, KeyType, KeyValue};
use super::postgres_hash::partition_hash;
use crate::base::ShardId;
use table::KeyTable;

/// More slots than this would make the tables of load per slot larger than they are worth.
pub const SLOTS_MAX: usize = 65_536;

/// Columns of a key.
pub const COLUMNS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// Of the canonical bytes; the slot is its top bits.
    Xxh3,
    /// PostgreSQL's hash partitioning; the slot is the remainder by the number of slots.
    Postgres,
}

/// Half open: `from` is in it, `to` is not; `None` has no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: Option<KeyValue>,
    pub to: Option<KeyValue>,
    pub shard: ShardId,
}

/// Values that live on one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    pub values: Vec<KeyValue>,
    pub shard: ShardId,
}

/// One end of an interval of keys; `None` has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<'a> {
    pub key: &'a KeyValue,
    pub inclusive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    #[error("a key has 1 to {COLUMNS_MAX} columns, not {0}")]
    Columns(usize),
    #[error("the number of slots is a power of two from 1 to {SLOTS_MAX}, not {0}")]
    Slots(usize),
    #[error("the number of slots is from 1 to {SLOTS_MAX}, not {0}")]
    Modulus(usize),
    #[error("PostgreSQL hashes an enum by the oid of its label, which differs from server to server")]
    EnumHash,
    #[error("the order of an enum's labels is known to the servers alone")]
    EnumRange,
    #[error("there is no range")]
    Empty,
    #[error("range {0} is empty: its `from` is not below its `to`")]
    Inverted(usize),
    #[error("ranges {0} and {1} overlap")]
    Overlap(usize, usize),
    #[error("no range covers the keys between ranges {0} and {1}")]
    Gap(usize, usize),
    #[error("the key {0} stands twice")]
    Twice(String),
}

/// Where a key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub shard: ShardId,
    /// The slot, the range by its order, the entry of a list by its place (its default behind them); pinned
    /// keys behind all of these.
    pub part: u32,
    /// xxh3 of the canonical bytes, whatever the map's hash is.
    pub key_hash: u64,
}

#[derive(Clone, Debug)]
pub struct Map {
    pub name: String,
    columns: SmallVec<[KeyColumn; 1]>,
    kind: Kind,
    /// Most maps pin none, which costs a comparison.
    pinned: Option<Box<KeyTable>>,
    fingerprint: u64,
}

/// What a map says of keys that it does not pin, in the order of its parts.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// The shard of each slot.
    Hash {
        function: HashFunction,
        slots: &'a [ShardId],
    },
    Range(&'a [Range]),
    List {
        entries: &'a [ListEntry],
        default: Option<ShardId>,
    },
}

#[derive(Clone, Debug)]
enum Kind {
    Hash { slots: Vec<ShardId>, shift: u32 },
    Postgres { slots: Vec<ShardId> },
    Range { ranges: Vec<Range> },
    List { entries: KeyTable, default: Option<ShardId> },
}

/// As routers' versions tell maps apart.
impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        (&self.name, self.fingerprint) == (&other.name, other.fingerprint)
    }
}

impl Eq for Map {}

impl Map {
    /// `slots[i]` is the shard of slot `i`.
    pub fn hash(
        name: &str,
        columns: &[KeyColumn],
        hash: HashFunction,
        slots: Vec<ShardId>,
    ) -> Result<Map, MapError> {
        let count = slots.len();
        let bytes: Vec<u8> = slots.iter().flat_map(|it| it.0.to_le_bytes()).collect();
        let kind = match hash {
            HashFunction::Xxh3 if !count.is_power_of_two() || count > SLOTS_MAX => {
                return Err(MapError::Slots(count));
            }
            HashFunction::Xxh3 => Kind::Hash { slots, shift: 64 - count.trailing_zeros() },
            HashFunction::Postgres if count == 0 || count > SLOTS_MAX => {
                return Err(MapError::Modulus(count));
            }
            HashFunction::Postgres if has_enum(columns) => return Err(MapError::EnumHash),
            HashFunction::Postgres => Kind::Postgres { slots },
        };
        Map::new(name, columns, kind, &format!("{hash:?} {bytes:?}"))
    }

    /// Ranges in any order.
    ///
    /// # Errors
    /// The first of their `faults`.
    pub fn range(name: &str, columns: &[KeyColumn], mut ranges: Vec<Range>) -> Result<Map, MapError> {
        if has_enum(columns) {
            return Err(MapError::EnumRange);
        }
        if let Some(fault) = faults(&ranges).into_iter().next() {
            return Err(fault);
        }
        ranges.sort_by(|a, b| a.from.cmp(&b.from));
        let form = format!("range {ranges:?}");
        Map::new(name, columns, Kind::Range { ranges }, &form)
    }

    /// `default` is the shard of every value that no entry has.
    ///
    /// # Errors
    /// `Twice`.
    pub fn list(
        name: &str,
        columns: &[KeyColumn],
        entries: Vec<ListEntry>,
        default: Option<ShardId>,
    ) -> Result<Map, MapError> {
        let form = format!("list {entries:?} {default:?}");
        let entries = KeyTable::new(entries)?;
        Map::new(name, columns, Kind::List { entries, default }, &form)
    }

    /// The map with keys that live elsewhere than their slot, range or list says.
    ///
    /// # Errors
    /// `Twice`.
    pub fn with_pinned(mut self, pinned: Vec<(KeyValue, ShardId)>) -> Result<Map, MapError> {
        if pinned.is_empty() {
            return Ok(self);
        }
        let form = format!("{} {pinned:?}", self.fingerprint);
        self.fingerprint = xxh3_64(form.as_bytes());
        let entry = |(key, shard)| ListEntry { values: vec![key], shard };
        self.pinned = Some(Box::new(KeyTable::new(pinned.into_iter().map(entry).collect())?));
        Ok(self)
    }

    fn new(name: &str, columns: &[KeyColumn], kind: Kind, form: &str) -> Result<Map, MapError> {
        if columns.is_empty() || columns.len() > COLUMNS_MAX {
            return Err(MapError::Columns(columns.len()));
        }
        let mut hash = Xxh3::new();
        hash.update(name.as_bytes());
        hash.update(format!("{columns:?}").as_bytes());
        hash.update(form.as_bytes());
        let fingerprint = hash.digest();
        Ok(Map { name: name.to_owned(), columns: columns.into(), kind, pinned: None, fingerprint })
    }

    /// Changes when the map changes: the version that plans carry (DESIGN invariant 10).
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub fn columns(&self) -> &[KeyColumn] {
        &self.columns
    }

    pub fn is_range(&self) -> bool {
        matches!(self.kind, Kind::Range { .. })
    }

    /// Slots, ranges or entries of a list, without pinned keys, whose parts stand behind these.
    pub fn own_parts(&self) -> usize {
        match &self.kind {
            Kind::Hash { slots, .. } | Kind::Postgres { slots } => slots.len(),
            Kind::Range { ranges } => ranges.len(),
            Kind::List { entries, default } => entries.len() + usize::from(default.is_some()),
        }
    }

    /// One more than the highest `Place::part`.
    pub fn parts(&self) -> usize {
        self.own_parts() + self.pinned.as_ref().map_or(0, |it| it.len())
    }

    /// Where a part lives; `None` if there is no such part.
    pub fn part_shard(&self, part: u32) -> Option<ShardId> {
        let index = part as usize;
        if let (Some(pinned), Some(at)) = (&self.pinned, index.checked_sub(self.own_parts())) {
            return pinned.shard(at);
        }
        match &self.kind {
            Kind::Hash { slots, .. } | Kind::Postgres { slots } => slots.get(index).copied(),
            Kind::Range { ranges } => ranges.get(index).map(|it| it.shard),
            Kind::List { entries, default } => entries.shard(index).or(*default),
        }
    }

    pub fn form(&self) -> Form<'_> {
        match &self.kind {
            Kind::Hash { slots, .. } => Form::Hash { function: HashFunction::Xxh3, slots },
            Kind::Postgres { slots } => Form::Hash { function: HashFunction::Postgres, slots },
            Kind::Range { ranges } => Form::Range(ranges),
            Kind::List { entries, default } => Form::List { entries: entries.entries(), default: *default },
        }
    }

    /// In the order of their parts.
    pub fn pinned(&self) -> impl Iterator<Item = (&KeyValue, ShardId)> {
        self.pinned.iter().flat_map(|it| it.keys())
    }

    /// The place of a key of this map's type; `None` when no range or list covers it.
    #[inline]
    pub fn locate(&self, key: &KeyValue) -> Option<Place> {
        let key_hash = key.with_canonical_bytes(xxh3_64);
        if let Some(pinned) = &self.pinned
            && let Some((index, shard)) = pinned.get(key_hash, key)
        {
            return Some(Place { shard, part: self.own_parts() as u32 + index, key_hash });
        }
        let (part, shard) = match &self.kind {
            Kind::Hash { slots, shift } => {
                let slot = key_hash.checked_shr(*shift).unwrap_or(0);
                (slot as u32, *slots.get(slot as usize)?)
            }
            Kind::Postgres { slots } => {
                let slot = partition_hash(key) % slots.len() as u64;
                (slot as u32, *slots.get(slot as usize)?)
            }
            Kind::Range { ranges } => {
                let index = range_of(ranges, key)?;
                (index as u32, ranges.get(index)?.shard)
            }
            Kind::List { entries, default } => match entries.get(key_hash, key) {
                Some(found) => found,
                None => (entries.len() as u32, (*default)?),
            },
        };
        Some(Place { shard, part, key_hash })
    }

    /// The shards on which a key of an interval may live, in no order; `None` where the map does not order
    /// its keys, so that it may be any. Bounds of a key of several columns may have its first columns only.
    pub fn shards_between(
        &self,
        from: Option<Bound<'_>>,
        to: Option<Bound<'_>>,
    ) -> Option<SmallVec<[ShardId; 4]>> {
        let Kind::Range { ranges } = &self.kind else { return None };
        let below = |key: &KeyValue| to.is_none_or(|it| is_below(key, it));
        let reaches = |it: &&Range| {
            let high_enough = it.to.as_ref().is_none_or(|end| from.is_none_or(|it| ends_above(end, it)));
            high_enough && it.from.as_ref().is_none_or(below)
        };
        let mut shards: SmallVec<[ShardId; 4]> = ranges.iter().filter(reaches).map(|it| it.shard).collect();
        if let Some(pinned) = &self.pinned {
            let above = |key: &KeyValue| from.is_none_or(|it| is_above(key, it));
            let inside = pinned.keys().filter(|(key, _)| above(key) && below(key));
            shards.extend(inside.map(|(_, shard)| shard));
        }
        Some(shards)
    }

    /// `slot 17 of 4096`, `range from 2026-01-01 00:00:00 to the end`, `list entry de, fr`.
    pub fn describe_part(&self, part: u32) -> String {
        let index = part as usize;
        if let (Some(pinned), Some(at)) = (&self.pinned, index.checked_sub(self.own_parts())) {
            return format!("pinned key {}", pinned.describe(at));
        }
        match &self.kind {
            Kind::Hash { slots, .. } => format!("slot {part} of {}", slots.len()),
            Kind::Postgres { slots } => format!("modulus {}, remainder {part}", slots.len()),
            Kind::List { entries, .. } if index == entries.len() => "default of the list".to_owned(),
            Kind::List { entries, .. } => format!("list entry {}", entries.describe(index)),
            Kind::Range { ranges } => match ranges.get(index) {
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

    /// What a key without place is not in.
    pub fn part_name(&self) -> &'static str {
        match &self.kind {
            Kind::Range { .. } => "range",
            Kind::List { .. } => "list entry",
            Kind::Hash { .. } | Kind::Postgres { .. } => "slot",
        }
    }
}

fn has_enum(columns: &[KeyColumn]) -> bool {
    columns.iter().any(|it| it.key_type == KeyType::Enum)
}

fn range_of(ranges: &[Range], key: &KeyValue) -> Option<usize> {
    let after = ranges.partition_point(|it| it.from.as_ref().is_none_or(|from| from <= key));
    let index = after.checked_sub(1)?;
    let inside = ranges.get(index)?.to.as_ref().is_none_or(|to| key < to);
    inside.then_some(index)
}

fn columns_of(key: &KeyValue) -> &[KeyValue] {
    match key {
        KeyValue::Row(columns) => columns,
        one => std::slice::from_ref(one),
    }
}

/// How a key stands to a bound, which may have its first columns only.
fn compare(key: &KeyValue, bound: &KeyValue) -> Ordering {
    let (key, bound) = (columns_of(key), columns_of(bound));
    key.get(..bound.len()).unwrap_or(key).cmp(bound)
}

fn is_above(key: &KeyValue, from: Bound<'_>) -> bool {
    let order = compare(key, from.key);
    order.is_gt() || from.inclusive && order.is_eq()
}

fn is_below(key: &KeyValue, to: Bound<'_>) -> bool {
    let order = compare(key, to.key);
    order.is_lt() || to.inclusive && order.is_eq()
}

/// Whether keys below `end` may be at the lower bound or above it.
fn ends_above(end: &KeyValue, from: Bound<'_>) -> bool {
    let order = compare(end, from.key);
    order.is_gt() || order.is_eq() && columns_of(from.key).len() < columns_of(end).len()
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
