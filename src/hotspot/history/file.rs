//! The form of histories in a file: little-endian numbers behind a header with a version and a checksum. Who keeps
//! the file reads and writes it whole.
//!
//! ```text
//! magic 8 | version 2 | bytes of what follows 8 | xxh3 of what follows 8 | databases
//! ```
//! It has no key, and no name of a part.

use std::collections::VecDeque;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{Layout, RowSpan};
use super::packed::Plane;
use super::recorded::{MEASURES, Recorded};
use super::{History, LEVELS, MARKS_MAX, MapHistory, PartKind, ROWS_MAX, SHARDS_MAX};
use crate::base::ShardId;
use crate::hotspot::heatmap::{Mark, MarkKind};

const MAGIC: &[u8; 8] = b"KEYWAYHH";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 26;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HistoryFileError {
    #[error("it is no history of hotspots")]
    Foreign,
    #[error("it has version {0}, this Keyway reads version {VERSION}")]
    Version(u16),
    #[error("it has {have} bytes behind its header, which says {said}")]
    Length { have: u64, said: u64 },
    #[error("its checksum is wrong")]
    Checksum,
    /// What no Keyway of this version writes.
    #[error("its {0} is not what this version writes")]
    Content(&'static str),
}

/// All databases' histories by their names.
pub fn encode_histories<'a>(databases: impl IntoIterator<Item = (&'a str, &'a History)>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    for (name, history) in databases {
        text(&mut bytes, name);
        history.write(&mut bytes);
    }
    let (header, content) = bytes.split_at_mut(HEADER_BYTES);
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..18].copy_from_slice(&(content.len() as u64).to_le_bytes());
    header[18..].copy_from_slice(&xxh3_64(content).to_le_bytes());
    bytes
}

/// # Errors
/// What is wrong with the bytes, which may be any.
pub fn decode_histories(bytes: &[u8]) -> Result<Vec<(String, History)>, HistoryFileError> {
    let mut header = Reader { rest: bytes };
    if header.take(8).ok() != Some(&MAGIC[..]) {
        return Err(HistoryFileError::Foreign);
    }
    let version = header.u16().map_err(|_| HistoryFileError::Foreign)?;
    if version != VERSION {
        return Err(HistoryFileError::Version(version));
    }
    let (Ok(said), Ok(checksum)) = (header.u64(), header.u64()) else {
        return Err(HistoryFileError::Length { have: 0, said: 0 });
    };
    let have = header.rest.len() as u64;
    if have != said {
        return Err(HistoryFileError::Length { have, said });
    }
    if xxh3_64(header.rest) != checksum {
        return Err(HistoryFileError::Checksum);
    }
    let mut reader = Reader { rest: header.rest };
    let mut databases = Vec::new();
    while !reader.rest.is_empty() {
        databases.push((reader.text("name of a database")?, History::read(&mut reader)?));
    }
    Ok(databases)
}

impl History {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend((self.maps.len() as u32).to_le_bytes());
        for (name, map) in &self.maps {
            text(bytes, name);
            map.layout.write(bytes);
            for columns in &map.levels {
                bytes.extend((columns.len() as u32).to_le_bytes());
                columns.iter().for_each(|it| it.write(bytes));
            }
        }
        bytes.extend((self.marks.len() as u32).to_le_bytes());
        for mark in &self.marks {
            bytes.extend(mark.at_s.to_le_bytes());
            bytes.push(MARK_KINDS.iter().position(|it| *it == mark.kind).unwrap_or(0) as u8);
            text(bytes, &mark.text);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<History, HistoryFileError> {
        let mut history = History::default();
        for _ in 0..reader.u32()? {
            let name = reader.text("name of a map")?;
            let layout = Layout::read(reader)?;
            let mut levels: [VecDeque<Recorded>; LEVELS.len()] = Default::default();
            for (level, columns) in LEVELS.iter().zip(&mut levels) {
                let count = reader.u32()? as usize;
                if count > level.columns_max {
                    return Err(HistoryFileError::Content("number of columns"));
                }
                for _ in 0..count {
                    columns.push_back(Recorded::read(reader, &layout)?);
                }
            }
            let map = MapHistory { layout, levels };
            let spans: Vec<_> = map.columns().map(|(_, it)| (it.from_s, it.to_s)).collect();
            if spans.windows(2).any(|it| it[0].1 > it[1].0) {
                return Err(HistoryFileError::Content("order of columns"));
            }
            history.maps.push((name, map));
        }
        let marks = reader.u32()? as usize;
        if marks > MARKS_MAX {
            return Err(HistoryFileError::Content("number of marks"));
        }
        for _ in 0..marks {
            let at_s = reader.u64()?;
            let kind = *MARK_KINDS
                .get(usize::from(reader.u8()?))
                .ok_or(HistoryFileError::Content("kind of a mark"))?;
            history.mark(Mark { at_s, kind, text: reader.text("text of a mark")? });
        }
        Ok(history)
    }
}

const MARK_KINDS: [MarkKind; 3] = [MarkKind::Start, MarkKind::Reload, MarkKind::Failover];
const PART_KINDS: [PartKind; 3] = [PartKind::Slot, PartKind::Range, PartKind::ListEntry];

impl Layout {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(PART_KINDS.iter().position(|it| *it == self.kind).unwrap_or(0) as u8);
        bytes.extend(self.own_parts.to_le_bytes());
        bytes.extend((self.identities.len() as u32).to_le_bytes());
        self.identities.iter().for_each(|it| bytes.extend(it.to_le_bytes()));
        bytes.extend((self.rows.len() as u16).to_le_bytes());
        for row in &self.rows {
            bytes.extend(row.end.to_le_bytes());
            bytes.extend(row.shard.0.to_le_bytes());
        }
        bytes.extend((self.shards.len() as u16).to_le_bytes());
        self.shards.iter().for_each(|it| bytes.extend(it.to_le_bytes()));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Layout, HistoryFileError> {
        let kind =
            *PART_KINDS.get(usize::from(reader.u8()?)).ok_or(HistoryFileError::Content("kind of a map"))?;
        let own_parts = reader.u32()?;
        let parts = reader.u32()?;
        let identities = reader.numbers(parts as usize)?;
        let mut rows = Vec::new();
        let mut first = 0;
        for _ in 0..reader.u16()? {
            let end = reader.u32()?;
            let shard = ShardId(reader.u16()?);
            if end <= first || rows.len() == ROWS_MAX {
                return Err(HistoryFileError::Content("rows"));
            }
            rows.push(RowSpan { first, end, shard });
            first = end;
        }
        if first != parts || own_parts > parts {
            return Err(HistoryFileError::Content("rows"));
        }
        let shards = usize::from(reader.u16()?);
        if shards > SHARDS_MAX {
            return Err(HistoryFileError::Content("number of shards"));
        }
        let shards = reader.numbers(shards)?;
        Ok(Layout { kind, own_parts, identities, part_shards: Vec::new(), rows, shards })
    }
}

impl Recorded {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.from_s.to_le_bytes());
        bytes.extend(self.to_s.to_le_bytes());
        bytes.extend(self.covered_s.to_le_bytes());
        bytes.push(u8::from(self.known.is_some()));
        self.known.iter().flatten().for_each(|it| bytes.extend(it.to_le_bytes()));
        self.rows.iter().chain(&self.shards).for_each(|it| it.write(bytes));
    }

    fn read(reader: &mut Reader<'_>, layout: &Layout) -> Result<Recorded, HistoryFileError> {
        let (from_s, to_s, covered_s) = (reader.u64()?, reader.u64()?, reader.u32()?);
        if from_s >= to_s || u64::from(covered_s) > to_s - from_s {
            return Err(HistoryFileError::Content("span of time"));
        }
        let known = match reader.u8()? {
            0 => None,
            1 => Some(reader.numbers(layout.rows.len().div_ceil(64))?.into_boxed_slice()),
            _ => return Err(HistoryFileError::Content("known rows")),
        };
        let mut planes = |width: usize| {
            let mut planes: [Plane; MEASURES] = Default::default();
            for plane in &mut planes {
                *plane = Plane::read(reader, width)?;
            }
            Ok(planes)
        };
        let (rows, shards) = (planes(layout.rows.len())?, planes(layout.shards.len())?);
        Ok(Recorded { from_s, to_s, covered_s, known, rows, shards })
    }
}

impl Plane {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Plane::Zero => bytes.push(0),
            Plane::Sparse(rows) => {
                bytes.push(1);
                bytes.extend((rows.len() as u16).to_le_bytes());
                for (row, value) in rows {
                    bytes.extend(row.to_le_bytes());
                    bytes.extend(value.to_le_bytes());
                }
            }
            Plane::Dense(rows) => {
                bytes.push(2);
                rows.iter().for_each(|it| bytes.extend(it.to_le_bytes()));
            }
        }
    }

    fn read(reader: &mut Reader<'_>, width: usize) -> Result<Plane, HistoryFileError> {
        match reader.u8()? {
            0 => Ok(Plane::Zero),
            1 => {
                let count = usize::from(reader.u16()?);
                if count * 2 >= width.max(1) {
                    return Err(HistoryFileError::Content("number of loads"));
                }
                let mut rows = Vec::with_capacity(count);
                for _ in 0..count {
                    rows.push((reader.u16()?, reader.u16()?));
                }
                let is_wrong = rows.windows(2).any(|it| it[0].0 >= it[1].0);
                if is_wrong || rows.last().is_some_and(|it| usize::from(it.0) >= width) {
                    return Err(HistoryFileError::Content("rows of loads"));
                }
                Ok(Plane::Sparse(rows.into_boxed_slice()))
            }
            2 => {
                let numbers = reader.take(width * 2)?;
                Ok(Plane::Dense(
                    numbers.chunks_exact(2).map(|it| u16::from_le_bytes([it[0], it[1]])).collect(),
                ))
            }
            _ => Err(HistoryFileError::Content("form of loads")),
        }
    }
}

/// At most 65,535 bytes of it.
fn text(bytes: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// What is read is there before room is made for it.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], HistoryFileError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(HistoryFileError::Content("end"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HistoryFileError> {
        self.take(N)?.try_into().map_err(|_| HistoryFileError::Content("end"))
    }

    fn u8(&mut self) -> Result<u8, HistoryFileError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, HistoryFileError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, HistoryFileError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, HistoryFileError> {
        self.array().map(u64::from_le_bytes)
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<u64>, HistoryFileError> {
        let bytes = self.take(count.saturating_mul(8))?;
        let number = |it: &[u8]| it.try_into().map_or(0, u64::from_le_bytes);
        Ok(bytes.chunks_exact(8).map(number).collect())
    }

    fn text(&mut self, what: &'static str) -> Result<String, HistoryFileError> {
        let length = usize::from(self.u16()?);
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| HistoryFileError::Content(what))
    }
}
