//! RowDescription and DataRow in full, for rows that are looked into or put together anew (manual, section
//! "Message Formats"). Values stay where they are: readers give places in the message.

use std::ops::Range;

use super::HEADER_BYTES;
use super::frontend::{Body, BodyError};
use super::tag::BackendTag;

/// One column of a RowDescription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowField<'a> {
    pub name: &'a [u8],
    /// 0 where the column is none of a table.
    pub table_oid: u32,
    pub attribute: i16,
    pub type_oid: u32,
    /// Bytes of a value, -1 for types of varying length (`pg_type.typlen`).
    pub type_bytes: i16,
    /// `pg_attribute.atttypmod`; -1 for none.
    pub type_mod: i32,
    pub binary: bool,
}

/// The columns of a RowDescription.
pub fn row_fields(message: &[u8]) -> Result<Vec<RowField<'_>>, BodyError> {
    let mut body = Body::of(message)?;
    let count = body.u16()?;
    let mut fields = Vec::new();
    for _ in 0..count {
        fields.push(RowField {
            name: body.cstr()?,
            table_oid: body.i32()? as u32,
            attribute: body.u16()? as i16,
            type_oid: body.i32()? as u32,
            type_bytes: body.u16()? as i16,
            type_mod: body.i32()?,
            binary: body.u16()? == 1,
        });
    }
    body.end()?;
    Ok(fields)
}

pub fn row_description(out: &mut Vec<u8>, fields: &[RowField<'_>]) {
    let start = begin(out, BackendTag::ROW_DESCRIPTION, fields.len() as u16);
    for it in fields {
        out.extend_from_slice(it.name);
        out.push(0);
        out.extend_from_slice(&it.table_oid.to_be_bytes());
        out.extend_from_slice(&it.attribute.to_be_bytes());
        out.extend_from_slice(&it.type_oid.to_be_bytes());
        out.extend_from_slice(&it.type_bytes.to_be_bytes());
        out.extend_from_slice(&it.type_mod.to_be_bytes());
        out.extend_from_slice(&u16::from(it.binary).to_be_bytes());
    }
    end(out, start);
}

fn begin(out: &mut Vec<u8>, tag: BackendTag, count: u16) -> usize {
    let start = out.len();
    out.extend_from_slice(&[tag.0, 0, 0, 0, 0]);
    out.extend_from_slice(&count.to_be_bytes());
    start
}

fn end(out: &mut [u8], start: usize) {
    let length = (out.len() - start - 1) as u32;
    out[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// The values of a DataRow message, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct RowValues<'a> {
    message: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> RowValues<'a> {
    /// Where the first value's length stands.
    pub const START: usize = HEADER_BYTES + 2;

    pub fn read(message: &'a [u8]) -> Result<RowValues<'a>, BodyError> {
        let left = usize::from(Body::of(message)?.u16()?);
        Ok(RowValues { message, at: RowValues::START, left })
    }

    /// Values that have not been read yet.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Where the next value's length stands in the message.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The place of the next value in the message; `None` is NULL.
    #[inline]
    pub fn next_place(&mut self) -> Result<Option<Range<usize>>, BodyError> {
        self.left = self.left.checked_sub(1).ok_or(BodyError)?;
        let length = self.message.get(self.at..).and_then(|it| it.first_chunk::<4>()).ok_or(BodyError)?;
        let start = self.at + 4;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            self.at = start;
            return Ok(None);
        }
        let end = start + usize::try_from(length).map_err(|_| BodyError)?;
        if end > self.message.len() {
            return Err(BodyError);
        }
        self.at = end;
        Ok(Some(start..end))
    }
}

/// Writes one DataRow; what is left unfinished has no true length, so `finish` or `abandon` ends it.
pub struct RowWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl RowWriter<'_> {
    pub fn new(out: &mut Vec<u8>, columns: u16) -> RowWriter<'_> {
        let start = begin(out, BackendTag::DATA_ROW, columns);
        RowWriter { out, start }
    }

    pub fn null(&mut self) {
        self.out.extend_from_slice(&(-1i32).to_be_bytes());
    }

    pub fn value(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.out.extend_from_slice(bytes);
    }

    /// A value that `write` appends.
    pub fn value_with<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let at = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        write(self.out)?;
        let length = (self.out.len() - at - 4) as u32;
        self.out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Values with their lengths, as they stand in another DataRow.
    pub fn encoded(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub fn finish(self) {
        end(self.out, self.start);
    }

    pub fn abandon(self) {
        self.out.truncate(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = Vec::new();
        let mut row = RowWriter::new(&mut out, 3);
        row.value(b"ab");
        row.null();
        row.value_with(|it| {
            it.push(7);
            Ok::<_, BodyError>(())
        })
        .unwrap();
        row.finish();
        assert_eq!(out, b"D\0\0\0\x15\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\x01\x07");
        let mut values = RowValues::read(&out).unwrap();
        let places: Vec<_> = (0..3).map(|_| values.next_place().unwrap()).collect();
        assert_eq!(places, [Some(11..13), None, Some(21..22)]);
        assert!(values.next_place().is_err());
        for end in 0..out.len() {
            let read = |message| -> Result<(), BodyError> {
                let mut values = RowValues::read(message)?;
                (0..3).try_for_each(|_| values.next_place().map(drop))
            };
            assert!(read(&out[..end]).is_err(), "cut at {end}");
        }
        let field = RowField {
            name: b"n",
            table_oid: 9,
            attribute: 2,
            type_oid: 23,
            type_bytes: 4,
            type_mod: -1,
            binary: true,
        };
        out.clear();
        row_description(&mut out, &[field]);
        assert_eq!(row_fields(&out), Ok(vec![field]));
    }
}
