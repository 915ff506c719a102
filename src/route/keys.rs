//! From a key's place to its value: a literal of the text or a parameter of Bind.

use std::borrow::Cow;

use crate::base::{Reason, Refusal, SqlState};
use crate::shard::{KeyType, KeyValue};
use crate::sql::{Literal, LiteralKind};

use super::plan::KeyPlace;

/// Where the values of a statement's keys are.
#[derive(Clone, Copy, Debug)]
pub struct KeySource<'a> {
    pub text: &'a str,
    pub literals: &'a [Literal],
    /// `None` before Bind and in the simple protocol.
    pub params: Option<Params<'a>>,
}

/// The parameters of a Bind message with the types that Parse declared.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    /// May be shorter than the values; 0 and what is missing are inferred by the server.
    pub oids: &'a [u32],
    /// None for all text, one for all, or one each: 0 text, 1 binary.
    pub formats: &'a [i16],
    pub values: &'a [Option<&'a [u8]>],
}

/// The value at a key's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Value(KeyValue),
    Null,
    /// A constant that no value of the key's type equals, such as 7.5 for an integer.
    Nothing,
}

/// Whether a constant is compared with a key or stored as one: PostgreSQL converts it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Compare,
    Store,
}

const OID_INT8: u32 = 20;
const OID_INT2: u32 = 21;
const OID_INT4: u32 = 23;
const OID_TEXT: u32 = 25;
const OID_VARCHAR: u32 = 1043;
const OID_DATE: u32 = 1082;
const OID_TIMESTAMP: u32 = 1114;
const OID_TIMESTAMPTZ: u32 = 1184;
const OID_UUID: u32 = 2950;

/// Rather one text too many than one too few: beside the special word stand a time, a zone and a half
/// of the day at most (`today 12:00 PM EST`), and no zone's abbreviation is longer than `AKDT`'s.
fn names_the_clock(text: &str) -> bool {
    const CLOCK: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
    let is_clock = |it: &str| CLOCK.iter().any(|word| word.eq_ignore_ascii_case(it));
    let is_word = |it: &str| !it.contains(|it: char| it.is_ascii_digit() || it == '/');
    let words = || text.split_whitespace().filter(|it| !is_clock(it) && is_word(it));
    text.split_whitespace().any(is_clock) && words().count() <= 2 && words().all(|it| it.len() <= 4)
}

pub(super) fn is_integer(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::Smallint | KeyType::Integer | KeyType::Bigint)
}

/// The oid of a cast's type if a key of `key_type` means the same with it and without it.
pub(super) fn harmless_cast(key_type: KeyType, cast: &str) -> Option<u32> {
    match (key_type, cast) {
        (it, "int2") if is_integer(it) => Some(OID_INT2),
        (it, "int4") if is_integer(it) => Some(OID_INT4),
        (it, "int8") if is_integer(it) => Some(OID_INT8),
        (KeyType::Text, "text") => Some(OID_TEXT),
        (KeyType::Text, "varchar") => Some(OID_VARCHAR),
        (KeyType::Uuid, "uuid") => Some(OID_UUID),
        (KeyType::Date, "date") => Some(OID_DATE),
        (KeyType::Timestamp, "timestamp") => Some(OID_TIMESTAMP),
        (KeyType::Timestamptz, "timestamptz") => Some(OID_TIMESTAMPTZ),
        _ => None,
    }
}

impl KeySource<'_> {
    pub(super) fn key(
        &self,
        place: KeyPlace,
        key_type: KeyType,
        purpose: Purpose,
        utc: bool,
    ) -> Result<Key, Refusal> {
        match place {
            KeyPlace::Null => Ok(Key::Null),
            KeyPlace::Literal { index, negative } => self.literal(index, negative, key_type, purpose, utc),
            KeyPlace::Param { number, cast_oid } => self.param(number, cast_oid, key_type, purpose, utc),
        }
    }

    /// A literal or parameter may be a date that PostgreSQL reads from its clock, such as `now` or
    /// `today 12:00 UTC` (manual, "Special Values" of date/time types).
    pub(super) fn name_the_clock(&self) -> bool {
        let literals = self.literals.iter().filter_map(|it| it.value(self.text));
        let values = self.params.map_or(&[][..], |it| it.values).iter().flatten();
        literals.into_iter().any(|it| names_the_clock(&it))
            || values.into_iter().any(|it| std::str::from_utf8(it).is_ok_and(names_the_clock))
    }

    /// A place read as text; `None` is NULL.
    pub(super) fn text_of(&self, place: KeyPlace) -> Result<Option<Cow<'_, str>>, Refusal> {
        match place {
            KeyPlace::Null => Ok(None),
            KeyPlace::Literal { index, .. } => {
                let literal = self.literals.get(index as usize).ok_or_else(no_value)?;
                literal.value(self.text).map(Some).ok_or_else(|| {
                    Refusal::unsupported(
                        Reason::Unsupported,
                        "an argument of set_config must be a plain string",
                        "write it as '...'",
                    )
                })
            }
            KeyPlace::Param { number, .. } => {
                let at = usize::from(number).checked_sub(1).ok_or_else(|| no_parameter(number))?;
                let params = self.params.ok_or_else(|| no_parameter(number))?;
                match params.values.get(at).ok_or_else(|| no_parameter(number))? {
                    // Text is the same bytes in both formats.
                    Some(bytes) => {
                        let text = std::str::from_utf8(bytes).map_err(|_| not_utf8(number))?;
                        Ok(Some(Cow::Borrowed(text)))
                    }
                    None => Ok(None),
                }
            }
        }
    }

    fn literal(
        &self,
        index: u32,
        negative: bool,
        key_type: KeyType,
        purpose: Purpose,
        utc: bool,
    ) -> Result<Key, Refusal> {
        let literal = self.literals.get(index as usize).ok_or_else(no_value)?;
        let Some(value) = literal.value(self.text) else {
            let message = "a shard key must be a plain string or a number";
            return Err(Refusal::unsupported(
                Reason::BadKey,
                message,
                "write the key as '...' or as a number",
            ));
        };
        match literal.kind {
            LiteralKind::Integer | LiteralKind::Float => {
                let integer = literal.kind == LiteralKind::Integer;
                number(&value, integer, negative, key_type, purpose, utc)
            }
            _ => key_type.parse_text(&value, utc).map(Key::Value),
        }
    }

    fn param(
        &self,
        number: u16,
        cast_oid: u32,
        key_type: KeyType,
        purpose: Purpose,
        utc: bool,
    ) -> Result<Key, Refusal> {
        let at = usize::from(number).checked_sub(1).ok_or_else(|| no_parameter(number))?;
        let params = self.params.ok_or_else(|| no_parameter(number))?;
        let Some(bytes) = params.values.get(at).ok_or_else(|| no_parameter(number))? else {
            return Ok(Key::Null);
        };
        let format = match params.formats {
            [] => 0,
            [all] => *all,
            each => each.get(at).copied().unwrap_or(0),
        };
        let declared = params.oids.get(at).copied().unwrap_or(0);
        let oid = if declared == 0 { cast_oid } else { declared };
        let textual = matches!(oid, OID_TEXT | OID_VARCHAR);
        let parsed = if format == 0 || textual {
            let text = std::str::from_utf8(bytes).map_err(|_| not_utf8(number))?;
            // A parameter of type text that the statement casts is read as a literal would be.
            let oid = if textual && cast_oid != 0 { cast_oid } else { oid };
            key_type.parse_text_param(oid, text, utc)
        } else {
            key_type.parse_binary(oid, bytes, utc)
        };
        match parsed {
            // An int8 compared with an int4 column is a comparison of int8: false, not an error.
            Err(it)
                if purpose == Purpose::Compare
                    && it.state() == SqlState::NUMERIC_VALUE_OUT_OF_RANGE
                    && oid != 0 =>
            {
                Ok(Key::Nothing)
            }
            other => other.map(Key::Value),
        }
    }
}

/// A number as written, with the signs in front of it.
fn number(
    digits: &str,
    integer: bool,
    negative: bool,
    key_type: KeyType,
    purpose: Purpose,
    utc: bool,
) -> Result<Key, Refusal> {
    let signed = || if negative { Cow::Owned(format!("-{digits}")) } else { Cow::Borrowed(digits) };
    match (is_integer(key_type), purpose) {
        (true, Purpose::Compare) => {
            let whole = if integer { Some(Cow::Borrowed(digits)) } else { whole_part(digits) };
            // Beyond the type, or between two of its values: a comparison that is false, not an error.
            let value = whole.and_then(|it| it.parse::<i128>().ok());
            let value = value.map(|it| if negative { -it } else { it }).and_then(|it| i64::try_from(it).ok());
            let in_range = |it: &i64| match key_type {
                KeyType::Smallint => i16::try_from(*it).is_ok(),
                KeyType::Integer => i32::try_from(*it).is_ok(),
                _ => true,
            };
            Ok(value.filter(in_range).map_or(Key::Nothing, |it| Key::Value(KeyValue::Int(it))))
        }
        (true, Purpose::Store) if integer => key_type.parse_text(&signed(), utc).map(Key::Value),
        (true, Purpose::Store) => Err(Refusal::unsupported(
            Reason::BadKey,
            format!("a shard key of type {key_type} cannot be routed by {}", signed()),
            "write the key as an integer",
        )),
        // `text = integer` and the like have no operator: the server's own error is the answer.
        (false, Purpose::Compare) => Ok(Key::Nothing),
        // An integer is assigned to a text column as its decimal digits.
        (false, Purpose::Store) if integer && key_type == KeyType::Text => {
            let plain = digits.trim_start_matches('0');
            let plain = if plain.is_empty() { "0" } else { plain };
            let minus = if negative && plain != "0" { "-" } else { "" };
            Ok(Key::Value(KeyValue::Text(format!("{minus}{plain}").into())))
        }
        (false, Purpose::Store) => Err(Refusal::unsupported(
            Reason::BadKey,
            format!("a shard key of type {key_type} cannot be routed by {}", signed()),
            format!("write the key as a string: '{}'", signed()),
        )),
    }
}

/// The digits of a decimal number without fraction: `7.0`, `70e-1`, `0.7e1`. At most 38, more than any
/// key type holds.
fn whole_part(written: &str) -> Option<Cow<'_, str>> {
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok()?;
    let digits = format!("{whole}{fraction}");
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let significant = digits.trim_end_matches('0');
    if significant.bytes().all(|it| it == b'0') {
        return Some(Cow::Borrowed("0"));
    }
    let point = usize::try_from(point).ok().filter(|it| *it <= 38 + whole.len())?;
    if significant.len() > point {
        return None;
    }
    Some(Cow::Owned(format!("{significant:0<point$}")))
}

fn no_parameter(number: u16) -> Refusal {
    let state = SqlState::PROTOCOL_VIOLATION;
    Refusal::new(Reason::Protocol, state, format!("bind message supplies no value for parameter ${number}"))
}

fn no_value() -> Refusal {
    let message = "plan and statement do not belong together";
    Refusal::new(Reason::Protocol, SqlState::INTERNAL_ERROR, message)
}

fn not_utf8(number: u16) -> Refusal {
    let state = SqlState("22021");
    Refusal::new(Reason::BadKey, state, format!("parameter ${number} is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_found_in_any_notation() {
        let whole = |it: &str| whole_part(it).map(Cow::into_owned);
        assert_eq!(whole("7.0"), Some("7".into()));
        assert_eq!(whole("70e-1"), Some("7".into()));
        assert_eq!(whole("0.7e1"), Some("07".into()));
        assert_eq!(whole("1e3"), Some("1000".into()));
        assert_eq!(whole("0.000"), Some("0".into()));
        assert_eq!(whole("7.5"), None);
        assert_eq!(whole(".7"), None);
        assert_eq!(whole("1e999999999999"), None);
    }
}
