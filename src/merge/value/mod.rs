//! SQL values: from the wire in both formats, to the wire, and in PostgreSQL's order. NULL is the absence of
//! one.

use std::cmp::Ordering;

use super::datetime::{self, Interval};
use super::error;
use super::numeric::{Numeric, float_text};
use super::order;
use super::types::{Format, Type};
use crate::base::Refusal;

#[derive(Clone, Debug)]
pub enum Value {
    Bool(bool),
    /// Type "char", one byte.
    Char(u8),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Oid(u32),
    Float4(f32),
    Float8(f64),
    Numeric(Numeric),
    /// text, varchar and name, in the encoding of the connection.
    Text(Box<[u8]>),
    /// character(n), with the blanks that it is padded with.
    Bpchar(Box<[u8]>),
    Bytea(Box<[u8]>),
    /// Days since 2000-01-01; the extremes are infinity.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since midnight, and seconds west of Greenwich.
    Timetz(i64, i32),
    /// Microseconds since 2000-01-01 00:00; the extremes are infinity.
    Timestamp(i64),
    /// In UTC; with the offset, seconds east, that the server printed, which is that of the session's time
    /// zone at that instant.
    Timestamptz(i64, Option<i32>),
    Interval(Interval),
    Uuid([u8; 16]),
}

/// Digits beyond which floats are printed with an exponent (d2s.c, f2s.c).
const FLOAT8_DIGITS: i32 = 15;
const FLOAT4_DIGITS: i32 = 6;

fn unreadable(of: Type, format: Format) -> Refusal {
    match format {
        Format::Binary => error::malformed("a binary value of a server does not have the form of its type"),
        Format::Text => error::unsupported(
            format!("cannot read a value of type {of} in the form that the session's settings give it"),
            "merging over shards needs DateStyle ISO, IntervalStyle postgres, bytea_output hex and extra_float_digits 1",
        ),
    }
}

/// A number of so many bytes, most significant first.
fn word<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

impl Value {
    /// # Errors
    /// 08P01 for binary bytes that are none of the type; 0A000 for a type that is not known and for text in a
    /// style that is not read.
    pub fn decode(of: Type, format: Format, bytes: &[u8]) -> Result<Value, Refusal> {
        if let Type::Other(oid) = of {
            return Err(error::unsupported(
                format!("values of the type with oid {oid} cannot be merged"),
                "cast the expression to a built-in type such as text",
            ));
        }
        let value = match format {
            Format::Binary => Value::from_binary(of, bytes),
            Format::Text => match of {
                Type::Text | Type::Varchar | Type::Name => Some(Value::Text(bytes.into())),
                Type::Bpchar => Some(Value::Bpchar(bytes.into())),
                _ => std::str::from_utf8(bytes).ok().and_then(|it| Value::from_text(of, it)),
            },
        };
        value.ok_or_else(|| unreadable(of, format))
    }

    fn from_binary(of: Type, bytes: &[u8]) -> Option<Value> {
        Some(match of {
            Type::Bool => Value::Bool(word::<1>(bytes)?[0] != 0),
            Type::Char => Value::Char(word::<1>(bytes)?[0]),
            Type::Int2 => Value::Int2(i16::from_be_bytes(word(bytes)?)),
            Type::Int4 => Value::Int4(i32::from_be_bytes(word(bytes)?)),
            Type::Int8 => Value::Int8(i64::from_be_bytes(word(bytes)?)),
            Type::Oid => Value::Oid(u32::from_be_bytes(word(bytes)?)),
            Type::Float4 => Value::Float4(f32::from_be_bytes(word(bytes)?)),
            Type::Float8 => Value::Float8(f64::from_be_bytes(word(bytes)?)),
            Type::Numeric => Value::Numeric(Numeric::from_binary(bytes)?),
            Type::Text | Type::Varchar | Type::Name => Value::Text(bytes.into()),
            Type::Bpchar => Value::Bpchar(bytes.into()),
            Type::Bytea => Value::Bytea(bytes.into()),
            Type::Date => Value::Date(i32::from_be_bytes(word(bytes)?)),
            Type::Time => Value::Time(i64::from_be_bytes(word(bytes)?)),
            Type::Timestamp => Value::Timestamp(i64::from_be_bytes(word(bytes)?)),
            Type::Timestamptz => Value::Timestamptz(i64::from_be_bytes(word(bytes)?), None),
            Type::Timetz => {
                let (micros, west) = bytes.split_at_checked(8)?;
                Value::Timetz(i64::from_be_bytes(word(micros)?), i32::from_be_bytes(word(west)?))
            }
            Type::Interval => {
                let bytes: [u8; 16] = word(bytes)?;
                Value::Interval(Interval {
                    micros: i64::from_be_bytes(word(&bytes[..8])?),
                    days: i32::from_be_bytes(word(&bytes[8..12])?),
                    months: i32::from_be_bytes(word(&bytes[12..])?),
                })
            }
            Type::Uuid => Value::Uuid(word(bytes)?),
            Type::Other(_) => return None,
        })
    }

    /// What the type's output function prints.
    fn from_text(of: Type, text: &str) -> Option<Value> {
        Some(match of {
            Type::Bool => Value::Bool(match text {
                "t" => true,
                "f" => false,
                _ => return None,
            }),
            Type::Char => Value::Char(match text.as_bytes() {
                [] => 0,
                [it] => *it,
                // `\ooo`, for bytes above 127 from version 15 on; before, the byte itself.
                [b'\\', ..] => u8::from_str_radix(&text[1..], 8).ok()?,
                _ => return None,
            }),
            Type::Int2 => Value::Int2(text.parse().ok()?),
            Type::Int4 => Value::Int4(text.parse().ok()?),
            Type::Int8 => Value::Int8(text.parse().ok()?),
            Type::Oid => Value::Oid(text.parse().ok()?),
            Type::Float4 => Value::Float4(text.parse().ok()?),
            Type::Float8 => Value::Float8(text.parse().ok()?),
            Type::Numeric => Value::Numeric(text.parse().ok()?),
            Type::Bytea => Value::Bytea(hex(text.strip_prefix("\\x")?)?),
            Type::Date => Value::Date(datetime::parse_date(text)?),
            Type::Time => Value::Time(datetime::parse_time(text)?),
            Type::Timetz => datetime::parse_timetz(text).map(|(micros, west)| Value::Timetz(micros, west))?,
            Type::Timestamp => match datetime::parse_timestamp(text)? {
                (micros, None) => Value::Timestamp(micros),
                _ => return None,
            },
            Type::Timestamptz => match datetime::parse_timestamp(text)? {
                (micros, None) if !matches!(micros, i64::MIN | i64::MAX) => return None,
                (micros, east) => Value::Timestamptz(micros, east),
            },
            Type::Interval => Value::Interval(Interval::parse(text)?),
            Type::Uuid => Value::Uuid(order::uuid_of_text(text.as_bytes())?.to_be_bytes()),
            Type::Text | Type::Varchar | Type::Name | Type::Bpchar | Type::Other(_) => return None,
        })
    }

    pub fn type_of(&self) -> Type {
        match self {
            Value::Bool(_) => Type::Bool,
            Value::Char(_) => Type::Char,
            Value::Int2(_) => Type::Int2,
            Value::Int4(_) => Type::Int4,
            Value::Int8(_) => Type::Int8,
            Value::Oid(_) => Type::Oid,
            Value::Float4(_) => Type::Float4,
            Value::Float8(_) => Type::Float8,
            Value::Numeric(_) => Type::Numeric,
            Value::Text(_) => Type::Text,
            Value::Bpchar(_) => Type::Bpchar,
            Value::Bytea(_) => Type::Bytea,
            Value::Date(_) => Type::Date,
            Value::Time(_) => Type::Time,
            Value::Timetz(..) => Type::Timetz,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Timestamptz(..) => Type::Timestamptz,
            Value::Interval(_) => Type::Interval,
            Value::Uuid(_) => Type::Uuid,
        }
    }

    /// Appends the value as its type's output or send function gives it.
    ///
    /// # Errors
    /// 0A000 for a timestamptz as text whose offset is not known, since that is the session's time zone's.
    pub fn encode(&self, format: Format, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match (format, self) {
            (_, Value::Text(it) | Value::Bpchar(it)) => out.extend_from_slice(it),
            (Format::Text, _) => out.extend_from_slice(self.text()?.as_bytes()),
            (Format::Binary, _) => self.put_binary(out),
        }
        Ok(())
    }

    fn put_binary(&self, out: &mut Vec<u8>) {
        match self {
            Value::Bool(it) => out.push(u8::from(*it)),
            Value::Char(it) => out.push(*it),
            Value::Int2(it) => out.extend_from_slice(&it.to_be_bytes()),
            Value::Int4(it) | Value::Date(it) => out.extend_from_slice(&it.to_be_bytes()),
            Value::Int8(it) | Value::Time(it) | Value::Timestamp(it) | Value::Timestamptz(it, _) => {
                out.extend_from_slice(&it.to_be_bytes());
            }
            Value::Oid(it) => out.extend_from_slice(&it.to_be_bytes()),
            Value::Float4(it) => out.extend_from_slice(&it.to_be_bytes()),
            Value::Float8(it) => out.extend_from_slice(&it.to_be_bytes()),
            Value::Numeric(it) => it.put_binary(out),
            Value::Text(it) | Value::Bpchar(it) | Value::Bytea(it) => out.extend_from_slice(it),
            Value::Timetz(micros, west) => {
                out.extend_from_slice(&micros.to_be_bytes());
                out.extend_from_slice(&west.to_be_bytes());
            }
            Value::Interval(it) => {
                out.extend_from_slice(&it.micros.to_be_bytes());
                out.extend_from_slice(&it.days.to_be_bytes());
                out.extend_from_slice(&it.months.to_be_bytes());
            }
            Value::Uuid(it) => out.extend_from_slice(it),
        }
    }

    /// What the type's output function prints; texts that are no UTF-8 are `encode`'s.
    pub(super) fn text(&self) -> Result<String, Refusal> {
        Ok(match self {
            Value::Bool(it) => if *it { "t" } else { "f" }.to_owned(),
            Value::Char(0) => String::new(),
            Value::Char(it) if it.is_ascii() => char::from(*it).to_string(),
            Value::Char(it) => format!("\\{it:03o}"),
            Value::Int2(it) => it.to_string(),
            Value::Int4(it) => it.to_string(),
            Value::Int8(it) => it.to_string(),
            Value::Oid(it) => it.to_string(),
            Value::Float4(it) => float_text(*it, FLOAT4_DIGITS),
            Value::Float8(it) => float_text(*it, FLOAT8_DIGITS),
            Value::Numeric(it) => it.to_string(),
            Value::Text(it) | Value::Bpchar(it) => String::from_utf8_lossy(it).into_owned(),
            Value::Bytea(it) => it.iter().fold("\\x".to_owned(), |text, it| text + &format!("{it:02x}")),
            Value::Date(it) => datetime::date_text(*it),
            Value::Time(it) => datetime::time_text(*it),
            Value::Timetz(micros, west) => datetime::timetz_text(*micros, *west),
            Value::Timestamp(it) => datetime::timestamp_text(*it, None),
            Value::Timestamptz(it, None) if !matches!(*it, i64::MIN | i64::MAX) => {
                return Err(error::unsupported(
                    "a timestamp with time zone that was computed over shards cannot be written as text",
                    "ask for the result in binary format, or select the column itself",
                ));
            }
            Value::Timestamptz(it, east) => datetime::timestamp_text(*it, *east),
            Value::Interval(it) => it.text(),
            Value::Uuid(it) => it.iter().enumerate().fold(String::new(), |text, (index, byte)| {
                text + if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" } + &format!("{byte:02x}")
            }),
        })
    }

    /// PostgreSQL's order of two values of one type, text by its bytes; `None` for values of two types.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        Some(match (self, other) {
            (Value::Numeric(a), Value::Numeric(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) | (Value::Bytea(a), Value::Bytea(b)) => a.cmp(b),
            (Value::Bpchar(a), Value::Bpchar(b)) => order::without_padding(a).cmp(order::without_padding(b)),
            (a, b) if a.type_of() == b.type_of() => a.rank()?.cmp(&b.rank()?),
            _ => return None,
        })
    }

    /// Appends bytes that are equal where the values are, and that no other value's bytes begin.
    pub(super) fn put_canonical(&self, out: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| {
            out.push(1);
            out.extend_from_slice(&bytes.len().to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Value::Text(it) | Value::Bytea(it) => put(it),
            Value::Bpchar(it) => put(order::without_padding(it)),
            Value::Numeric(it) => {
                out.push(2);
                it.put_canonical(out);
            }
            it => {
                out.push(3);
                out.extend_from_slice(&it.rank().unwrap_or_default().to_be_bytes());
            }
        }
    }

    /// A number in the order of the values of a type of fixed width.
    pub(super) fn rank(&self) -> Option<i128> {
        Some(match self {
            Value::Bool(it) => i128::from(*it),
            Value::Char(it) => i128::from(*it),
            Value::Int2(it) => i128::from(*it),
            Value::Int4(it) | Value::Date(it) => i128::from(*it),
            Value::Int8(it) | Value::Time(it) | Value::Timestamp(it) | Value::Timestamptz(it, _) => {
                i128::from(*it)
            }
            Value::Oid(it) => i128::from(*it),
            Value::Float4(it) => i128::from(order::float_rank(f64::from(*it))),
            Value::Float8(it) => i128::from(order::float_rank(*it)),
            Value::Timetz(micros, west) => order::timetz_rank(*micros, *west),
            Value::Interval(it) => it.span_micros(),
            Value::Uuid(it) => order::uuid_rank(u128::from_be_bytes(*it)),
            Value::Numeric(_) | Value::Text(_) | Value::Bpchar(_) | Value::Bytea(_) => return None,
        })
    }
}

fn hex(text: &str) -> Option<Box<[u8]>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |it: u8| char::from(it).to_digit(16);
    let bytes = pairs.iter().map(|[a, b]| Some((digit(*a)? << 4 | digit(*b)?) as u8)).collect::<Option<_>>();
    bytes.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests;
