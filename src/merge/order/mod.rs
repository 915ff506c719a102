//! Keys: what rows are compared and grouped by, taken out of wire bytes without a copy of them.

use std::cmp::Ordering;
use std::ops::Range;

use smallvec::SmallVec;

use super::error;
use super::numeric::Numeric;
use super::row::{Column, Row};
use super::spec::{Collation, SortKey};
use super::types::{Format, Type};
use super::value::Value;
use crate::base::Refusal;

/// One column's value in comparable form. Bytes stay in the row that they came with.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Null,
    Int(i64),
    Wide(i128),
    /// In the row's message: text, bytea.
    Bytes(Range<usize>),
    Numeric(Box<Numeric>),
}

pub(super) type Keys = SmallVec<[Key; 2]>;

/// Integers in the order of floats: -0 is 0, NaN is the largest and equals itself (`float8_cmp_internal`).
pub(super) fn float_rank(value: f64) -> i64 {
    if value.is_nan() {
        return i64::MAX;
    }
    let bits = if value == 0.0 { 0 } else { value.to_bits() as i64 };
    if bits < 0 { i64::MIN - bits } else { bits }
}

/// By the instant, then by the zone (`timetz_cmp_internal`).
pub(super) fn timetz_rank(micros: i64, west: i32) -> i128 {
    let instant = i128::from(micros) + i128::from(west) * 1_000_000;
    (instant << 32) + i128::from(west) - i128::from(i32::MIN)
}

pub(super) fn uuid_rank(value: u128) -> i128 {
    (value ^ 1 << 127) as i128
}

/// The text that `uuid_out` prints.
pub(super) fn uuid_of_text(text: &[u8]) -> Option<u128> {
    let mut value = 0u128;
    for (at, byte) in text.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        value = value << 4 | u128::from(char::from(*byte).to_digit(16)?);
    }
    (text.len() == 36).then_some(value)
}

/// Blanks at the end of a character(n) do not count (`bcTruelen`).
pub(super) fn without_padding(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|it| **it == b' ').count();
    &text[..text.len() - blanks]
}

/// A decimal integer of at most 18 digits; longer ones take the general way.
fn short_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let value = digits
        .iter()
        .try_fold(0i64, |sum, it| it.is_ascii_digit().then(|| sum * 10 + i64::from(it - b'0')))?;
    Some(if negative { -value } else { value })
}

impl Key {
    /// The key in column `at` of a row.
    #[inline]
    pub fn of(row: Row<'_>, at: usize, column: Column) -> Result<Key, Refusal> {
        let Some(place) = row.place(at)? else { return Ok(Key::Null) };
        let bytes = &row.message[place.clone()];
        match (column.of, column.format) {
            (Type::Int8 | Type::Time | Type::Timestamp | Type::Timestamptz, Format::Binary) => {
                if let Ok(it) = bytes.try_into() {
                    return Ok(Key::Int(i64::from_be_bytes(it)));
                }
            }
            (Type::Int4 | Type::Date, Format::Binary) => {
                if let Ok(it) = bytes.try_into() {
                    return Ok(Key::Int(i32::from_be_bytes(it).into()));
                }
            }
            (Type::Int2 | Type::Int4 | Type::Int8, Format::Text) => {
                if let Some(it) = short_int(bytes) {
                    return Ok(Key::Int(it));
                }
            }
            (Type::Text | Type::Varchar | Type::Name, _) | (Type::Bytea, Format::Binary) => {
                return Ok(Key::Bytes(place));
            }
            (Type::Bpchar, _) => {
                let length = without_padding(bytes).len();
                return Ok(Key::Bytes(place.start..place.start + length));
            }
            // Hexadecimal digits are in the order of what they stand for.
            (Type::Bytea, Format::Text) if bytes.starts_with(b"\\x") => return Ok(Key::Bytes(place)),
            _ => {}
        }
        Key::of_value(Value::decode(column.of, column.format, bytes)?)
    }

    fn of_value(value: Value) -> Result<Key, Refusal> {
        if let Value::Numeric(it) = value {
            return Ok(Key::Numeric(Box::new(it)));
        }
        let rank = value.rank().ok_or_else(|| error::inconsistent("a key without an order"))?;
        Ok(i64::try_from(rank).map_or(Key::Wide(rank), Key::Int))
    }

    /// The first of each pair is this side's; `message` is the row that bytes are in.
    #[inline]
    fn compare(&self, message: &[u8], other: &Key, other_message: &[u8]) -> Ordering {
        match (self, other) {
            (Key::Int(a), Key::Int(b)) => a.cmp(b),
            (Key::Bytes(a), Key::Bytes(b)) => message[a.clone()].cmp(&other_message[b.clone()]),
            (Key::Numeric(a), Key::Numeric(b)) => a.cmp(b),
            (Key::Wide(a), Key::Wide(b)) => a.cmp(b),
            (Key::Wide(a), Key::Int(b)) => a.cmp(&i128::from(*b)),
            (Key::Int(a), Key::Wide(b)) => i128::from(*a).cmp(b),
            (Key::Null, Key::Null) => Ordering::Equal,
            // Keys of one column are of one kind; NULL was dealt with by the caller.
            _ => Ordering::Equal,
        }
    }

    /// Appends bytes that are equal where the keys are, and that no other key's bytes begin.
    pub fn put_canonical(&self, message: &[u8], out: &mut Vec<u8>) {
        match self {
            Key::Null => out.push(0),
            Key::Int(it) => {
                out.push(1);
                out.extend_from_slice(&it.to_be_bytes());
            }
            Key::Wide(it) => {
                out.push(2);
                out.extend_from_slice(&it.to_be_bytes());
            }
            Key::Bytes(it) => {
                out.push(3);
                out.extend_from_slice(&it.len().to_be_bytes());
                out.extend_from_slice(&message[it.clone()]);
            }
            Key::Numeric(it) => {
                out.push(4);
                it.put_canonical(out);
            }
        }
    }
}

/// Whether the order of a key's type is one that Keyway can vouch for.
///
/// # Errors
/// 0A000, naming what is missing.
pub(super) fn check_order(of: Type, collation: Collation) -> Result<(), Refusal> {
    if !of.is_known() {
        return Err(error::unsupported(
            format!(
                "the order of the type {of} is not known, so rows of several shards cannot be merged by it"
            ),
            "order by a built-in type, or restrict the statement to one shard with its shard key",
        ));
    }
    if of.is_collated() && collation != Collation::Bytes {
        return Err(error::unsupported(
            "rows of several shards are merged by text only where its collation is \"C\"",
            "write COLLATE \"C\", or restrict the statement to one shard with its shard key",
        ));
    }
    Ok(())
}

/// Whether values are equal where, and only where, Keyway finds them so.
///
/// # Errors
/// 0A000, naming what is missing.
pub(super) fn check_equality(of: Type, collation: Collation) -> Result<(), Refusal> {
    if !of.is_known() {
        return check_order(of, collation);
    }
    if of.is_collated() && collation == Collation::Unknown {
        return Err(error::unsupported(
            "whether texts of several shards are equal is not known: their collation may not be deterministic",
            "restrict the statement to one shard with its shard key, or declare the column deterministic",
        ));
    }
    Ok(())
}

/// A row's sort keys, the first `keys.len()` of `sort`.
pub(super) fn keys_of(
    row: Row<'_>,
    sort: &[SortKey],
    columns: &[Column],
    keys: &mut Keys,
) -> Result<(), Refusal> {
    keys.clear();
    for it in sort {
        let column = *columns.get(it.column).ok_or_else(missing_column)?;
        keys.push(Key::of(row, it.column, column)?);
    }
    Ok(())
}

pub(super) fn missing_column() -> Refusal {
    error::inconsistent("the plan names a column that the shards do not send")
}

/// NULLs go where the key says, whatever its direction; `None` if neither is NULL.
fn compare_nulls(sort: &SortKey, null: bool, other: bool) -> Option<Ordering> {
    match (null, other) {
        (false, false) => None,
        (true, true) => Some(Ordering::Equal),
        (true, false) => Some(if sort.nulls_first { Ordering::Less } else { Ordering::Greater }),
        (false, true) => Some(if sort.nulls_first { Ordering::Greater } else { Ordering::Less }),
    }
}

/// Compares by as many keys as `sort` has.
#[inline]
pub(super) fn compare_keys(sort: &[SortKey], a: (&Keys, &[u8]), b: (&Keys, &[u8])) -> Ordering {
    for (sort, (x, y)) in sort.iter().zip(a.0.iter().zip(b.0)) {
        let nulls = compare_nulls(sort, matches!(x, Key::Null), matches!(y, Key::Null));
        let order = nulls.unwrap_or_else(|| {
            let order = x.compare(a.1, y, b.1);
            if sort.descending { order.reverse() } else { order }
        });
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// The same for values that have been decoded.
pub(super) fn compare_values(sort: &[SortKey], a: &[Option<Value>], b: &[Option<Value>]) -> Ordering {
    for (sort, (x, y)) in sort.iter().zip(a.iter().zip(b)) {
        let order = compare_nulls(sort, x.is_none(), y.is_none()).unwrap_or_else(|| {
            let order = x.as_ref().zip(y.as_ref()).and_then(|(x, y)| x.compare(y)).unwrap_or(Ordering::Equal);
            if sort.descending { order.reverse() } else { order }
        });
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests;
