//! Rows as they lie in what a shard sent.

use std::ops::Range;

use super::error;
use super::types::{Format, Type};
use crate::base::Refusal;
use crate::wire::{BackendTag, RowValues, header};

/// A column of the shards' rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub of: Type,
    pub format: Format,
}

/// The place of a value in its message; NULL is `None`.
pub(super) type Place = Option<Range<usize>>;

/// A DataRow message and where its values are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub message: &'a [u8],
    pub places: &'a [Place],
}

pub(super) fn malformed_row() -> Refusal {
    error::malformed("a row of a server does not have the columns that it described")
}

impl<'a> Row<'a> {
    #[inline]
    pub fn place(&self, at: usize) -> Result<Place, Refusal> {
        self.places.get(at).cloned().ok_or_else(malformed_row)
    }

    pub fn value(&self, at: usize) -> Result<Option<&'a [u8]>, Refusal> {
        Ok(self.place(at)?.and_then(|it| self.message.get(it)))
    }
}

/// Finds the values of a row; there have to be `count`.
pub(super) fn find_places(message: &[u8], count: usize, places: &mut Vec<Place>) -> Result<(), Refusal> {
    let mut values = RowValues::read(message).map_err(|_| malformed_row())?;
    if values.left() != count {
        return Err(malformed_row());
    }
    places.clear();
    for _ in 0..count {
        places.push(values.next_place().map_err(|_| malformed_row())?);
    }
    if values.at() == message.len() { Ok(()) } else { Err(malformed_row()) }
}

/// The length of the first message of `bytes`, which has to be a whole DataRow.
pub(super) fn row_length(bytes: &[u8]) -> Result<usize, Refusal> {
    match header(bytes) {
        Ok(Some(it)) if it.tag == BackendTag::DATA_ROW.0 && it.total <= bytes.len() => Ok(it.total),
        _ => Err(error::malformed("a message of a server is not the row that was expected")),
    }
}
