//! The binary format (manual, "COPY", "Binary Format").

use super::{CopyField, Found};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(two))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(i32::from_be_bytes(four))
}

pub fn next(bytes: &[u8], before_head: bool, is_all: bool) -> Found {
    let found = if before_head { head(bytes) } else { tuple(bytes) };
    match found {
        Found::More if is_all && !bytes.is_empty() => Found::Broken,
        found => found,
    }
}

fn head(bytes: &[u8]) -> Found {
    let start = &bytes[..bytes.len().min(SIGNATURE.len())];
    if !SIGNATURE.starts_with(start) {
        return Found::Broken;
    }
    // Behind the signature are the flags and the length of what else the header has.
    match i32_at(bytes, SIGNATURE.len() + 4) {
        None => Found::More,
        Some(more) => match usize::try_from(more) {
            Ok(more) if bytes.len() >= SIGNATURE.len() + 8 + more => Found::Head(SIGNATURE.len() + 8 + more),
            Ok(_) => Found::More,
            Err(_) => Found::Broken,
        },
    }
}

fn tuple(bytes: &[u8]) -> Found {
    let Some(count) = u16_at(bytes, 0) else { return Found::More };
    if count == u16::MAX {
        return Found::End(2);
    }
    let mut at = 2;
    for _ in 0..count {
        match i32_at(bytes, at) {
            None => return Found::More,
            Some(length) if length < -1 => return Found::Broken,
            Some(length) => at += 4 + length.max(0) as usize,
        }
    }
    if at <= bytes.len() { Found::Record(at) } else { Found::More }
}

pub fn fields<'a>(record: &'a [u8], wanted: &[usize]) -> Vec<CopyField<'a>> {
    let field = |index: &usize| {
        if *index >= usize::from(u16_at(record, 0)?) {
            return None;
        }
        let mut at = 2;
        for _ in 0..*index {
            at += 4 + i32_at(record, at)?.max(0) as usize;
        }
        Some(match usize::try_from(i32_at(record, at)?) {
            Ok(length) => CopyField::Value(record.get(at + 4..at + 4 + length)?.into()),
            Err(_) => CopyField::Null,
        })
    };
    wanted.iter().map(|it| field(it).unwrap_or(CopyField::Missing)).collect()
}
