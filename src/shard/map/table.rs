//! Keys by their hash: the entries of a list map and the pinned keys of any.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use smallvec::{SmallVec, smallvec};
use xxhash_rust::xxh3::xxh3_64;

use super::super::key::KeyValue;
use super::{ListEntry, MapError};
use crate::base::{NumberHasher, ShardId};

/// A value and the entry that it stands in.
type Found = SmallVec<[(KeyValue, u32); 1]>;

#[derive(Clone, Debug)]
pub struct KeyTable {
    entries: Vec<ListEntry>,
    /// Two keys of one hash are told apart by their values.
    by_hash: HashMap<u64, Found, BuildHasherDefault<NumberHasher>>,
}

impl KeyTable {
    /// # Errors
    /// `Twice`.
    pub fn new(entries: Vec<ListEntry>) -> Result<KeyTable, MapError> {
        let mut by_hash: HashMap<u64, Found, _> = HashMap::default();
        for (index, entry) in entries.iter().enumerate() {
            for value in &entry.values {
                let found = by_hash.entry(value.with_canonical_bytes(xxh3_64)).or_insert_with(|| smallvec![]);
                if found.iter().any(|(it, _)| it == value) {
                    return Err(MapError::Twice(value.to_string()));
                }
                found.push((value.clone(), index as u32));
            }
        }
        Ok(KeyTable { entries, by_hash })
    }

    pub fn entries(&self) -> &[ListEntry] {
        &self.entries
    }

    /// Entries, of which each may have several values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry and the shard of a key, by the xxh3 of its canonical bytes.
    #[inline]
    pub fn get(&self, key_hash: u64, key: &KeyValue) -> Option<(u32, ShardId)> {
        let (_, index) = self.by_hash.get(&key_hash)?.iter().find(|(it, _)| it == key)?;
        Some((*index, self.entries.get(*index as usize)?.shard))
    }

    pub fn keys(&self) -> impl Iterator<Item = (&KeyValue, ShardId)> {
        self.entries.iter().flat_map(|it| it.values.iter().map(|value| (value, it.shard)))
    }

    /// Of an entry.
    pub fn shard(&self, index: usize) -> Option<ShardId> {
        self.entries.get(index).map(|it| it.shard)
    }

    /// Its values, where they are few.
    pub fn describe(&self, index: usize) -> String {
        const SHOWN: usize = 3;
        let Some(entry) = self.entries.get(index) else { return index.to_string() };
        let shown: Vec<String> = entry.values.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = if entry.values.len() > SHOWN { ", ..." } else { "" };
        format!("{}{more}", shown.join(", "))
    }
}
