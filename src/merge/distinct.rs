//! DISTINCT: which rows have been seen. Of rows in order only the last one is kept, else all of them, by
//! their canonical bytes.

use std::collections::HashSet;

use super::error;
use super::hash::ByteHash;
use crate::base::Refusal;

/// What a kept row costs beside its bytes, about.
const ENTRY_BYTES: usize = 48;

#[derive(Debug)]
pub(super) enum Seen {
    /// Equal rows follow one another.
    Last(Option<Vec<u8>>),
    All(HashSet<Box<[u8]>, ByteHash>),
}

impl Seen {
    pub fn new(adjacent: bool, hash: &ByteHash) -> Seen {
        if adjacent { Seen::Last(None) } else { Seen::All(HashSet::with_hasher(hash.clone())) }
    }

    /// Whether a row is the first of its kind; adds to `memory` what is kept, in bytes.
    pub fn is_new(&mut self, canonical: &[u8], memory: &mut usize) -> bool {
        match self {
            Seen::Last(Some(last)) if last == canonical => false,
            Seen::Last(last) => {
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(canonical);
                true
            }
            Seen::All(rows) if rows.contains(canonical) => false,
            Seen::All(rows) => {
                *memory += canonical.len() + ENTRY_BYTES;
                rows.insert(canonical.into())
            }
        }
    }
}

/// What may be kept for a merge, and how much is.
#[derive(Debug)]
pub(super) struct Memory {
    pub bytes: usize,
    pub bytes_max: usize,
}

impl Memory {
    /// # Errors
    /// 54000 once there is more than there may be.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.bytes > self.bytes_max { Err(error::memory(self.bytes_max)) } else { Ok(()) }
    }
}
