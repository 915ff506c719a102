//! From a key's place to its value: a literal of the text or a parameter of Bind.

use std::borrow::Cow;

use crate::base::{Reason, Refusal, SqlState};
use crate::shard::{KeyColumn, KeyType, KeyValue, Purpose, Usage};
use crate::sql::{Literal, LiteralKind};

use super::array;
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
    /// NULL where it is a value: rows that may be anywhere.
    Any,
    /// A constant that no value of the key's type equals, such as 7.5 for an integer.
    Nothing,
}

impl From<Option<KeyValue>> for Key {
    fn from(value: Option<KeyValue>) -> Key {
        value.map_or(Key::Nothing, Key::Value)
    }
}

const CLOCK: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

fn has_word_of_clock(value: &[u8]) -> bool {
    let mut words = value.split(|it| !it.is_ascii_alphanumeric());
    words.any(|it| CLOCK.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(it)))
}

/// Rather one text too many than one too few: beside the special word stand a time, a zone and a half
/// of the day at most (`today 12:00 PM EST`), and no zone's abbreviation is longer than `AKDT`'s.
fn names_the_clock(text: &str) -> bool {
    let is_clock = |it: &str| CLOCK.iter().any(|word| word.eq_ignore_ascii_case(it));
    let is_word = |it: &str| !it.contains(|it: char| it.is_ascii_digit() || it == '/');
    let words = || text.split_whitespace().filter(|it| !is_clock(it) && is_word(it));
    text.split_whitespace().any(is_clock) && words().count() <= 2 && words().all(|it| it.len() <= 4)
}

/// The oid of a cast's type if a key of `key_type` means the same with it and without it.
pub(super) fn harmless_cast(key_type: KeyType, cast: &str) -> Option<u32> {
    KeyType::of_catalog_name(cast).filter(|it| key_type.takes(*it)).map(KeyType::oid)
}

impl KeySource<'_> {
    /// Hands on each value at a place: one, but for an array.
    pub(super) fn each(
        &self,
        place: KeyPlace,
        column: &KeyColumn,
        usage: Usage,
        mut found: impl FnMut(Key) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        match place {
            KeyPlace::EachParam { number, cast_oid } => {
                self.array_param(number, cast_oid, column, usage, &mut found)
            }
            KeyPlace::EachLiteral { index, cast_oid } => {
                let literal = self.literals.get(index as usize).ok_or_else(no_value)?;
                let text = literal.value(self.text).ok_or_else(not_plain)?;
                elements(&text, cast_oid, column, usage, &mut found)
            }
            one => found(self.key(one, column, usage)?),
        }
    }

    /// The value at a place that is no array's.
    pub(super) fn key(&self, place: KeyPlace, column: &KeyColumn, usage: Usage) -> Result<Key, Refusal> {
        match place {
            KeyPlace::Null => Ok(Key::Null),
            KeyPlace::Bool(it) if column.key_type == KeyType::Boolean => Ok(Key::Value(KeyValue::Bool(it))),
            // There is no such operator, and no such assignment: the server's own error is the answer.
            KeyPlace::Bool(_) => Ok(Key::Nothing),
            KeyPlace::Literal { index, negative, cast_oid } => {
                self.literal(index, negative, cast_oid, column, usage)
            }
            KeyPlace::Param { number, cast_oid } => self.param(number, cast_oid, column, usage),
            KeyPlace::Same { number, cast_oid } => Ok(match self.param(number, cast_oid, column, usage)? {
                Key::Null => Key::Any,
                other => other,
            }),
            KeyPlace::EachParam { .. } | KeyPlace::EachLiteral { .. } => Err(no_value()),
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

    /// As `name_the_clock`, of arrays, ranges and values in binary form too, and of more texts that only look like it.
    pub fn may_name_the_clock(&self) -> bool {
        let literals = self.literals.iter().filter_map(|it| it.value(self.text));
        let values = self.params.map_or(&[][..], |it| it.values).iter().flatten();
        literals.into_iter().any(|it| has_word_of_clock(it.as_bytes()))
            || values.into_iter().any(|it| has_word_of_clock(it))
    }

    /// A place read as text; `None` is NULL.
    pub(super) fn text_of(&self, place: KeyPlace) -> Result<Option<Cow<'_, str>>, Refusal> {
        match place {
            KeyPlace::Null => Ok(None),
            KeyPlace::Bool(_) | KeyPlace::EachLiteral { .. } => Err(no_value()),
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
            KeyPlace::Param { number, .. }
            | KeyPlace::Same { number, .. }
            | KeyPlace::EachParam { number, .. } => match self.bound(number)? {
                // Text is the same bytes in both formats.
                Some(bound) => {
                    let text = std::str::from_utf8(bound.bytes).map_err(|_| not_utf8(number))?;
                    Ok(Some(Cow::Borrowed(text)))
                }
                None => Ok(None),
            },
        }
    }

    /// A parameter with what Bind and Parse say of it; `None` is NULL.
    fn bound(&self, number: u16) -> Result<Option<Bound<'_>>, Refusal> {
        let missing = || no_parameter(number);
        let at = usize::from(number).checked_sub(1).ok_or_else(missing)?;
        let params = self.params.ok_or_else(missing)?;
        let Some(bytes) = params.values.get(at).ok_or_else(missing)? else { return Ok(None) };
        let format = match params.formats {
            [] => 0,
            [all] => *all,
            each => each.get(at).copied().unwrap_or(0),
        };
        let declared = params.oids.get(at).copied().unwrap_or(0);
        Ok(Some(Bound { bytes, binary: format != 0, declared }))
    }

    fn literal(
        &self,
        index: u32,
        negative: bool,
        cast_oid: u32,
        column: &KeyColumn,
        usage: Usage,
    ) -> Result<Key, Refusal> {
        let literal = self.literals.get(index as usize).ok_or_else(no_value)?;
        let value = literal.value(self.text).ok_or_else(not_plain)?;
        match literal.kind {
            LiteralKind::Integer => number(&value, true, negative, column, usage),
            LiteralKind::Float => number(&value, false, negative, column, usage),
            _ => column.of_text(cast_oid, &value, usage).map(Key::from),
        }
    }

    fn param(&self, number: u16, cast_oid: u32, column: &KeyColumn, usage: Usage) -> Result<Key, Refusal> {
        let Some(Bound { bytes, binary, declared }) = self.bound(number)? else { return Ok(Key::Null) };
        let undeclared = KeyType::is_undeclared(declared);
        let textual = is_textual(declared);
        let oid = match (undeclared || textual, cast_oid) {
            // A parameter of type text that the statement casts is read as a literal would be.
            (true, 1..) => cast_oid,
            _ => declared,
        };
        if !undeclared && !textual && cast_oid != 0 && !same_number(declared, cast_oid) {
            return Err(cast_of(declared, cast_oid, column));
        }
        let value = if binary && !textual {
            column.of_binary(oid, bytes, usage)
        } else {
            let text = std::str::from_utf8(bytes).map_err(|_| not_utf8(number))?;
            column.of_text(oid, text, usage)
        };
        value.map(Key::from)
    }

    fn array_param(
        &self,
        number: u16,
        cast_oid: u32,
        column: &KeyColumn,
        usage: Usage,
        found: &mut impl FnMut(Key) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let Some(Bound { bytes, binary, declared }) = self.bound(number)? else { return found(Key::Null) };
        let undeclared = KeyType::is_undeclared(declared);
        let element = match (undeclared, array::element_oid(declared)) {
            (true, _) => cast_oid,
            (false, Some(element)) if cast_oid == 0 || same_number(element, cast_oid) => element,
            _ => return Err(not_an_array(column)),
        };
        if !binary {
            let text = std::str::from_utf8(bytes).map_err(|_| not_utf8(number))?;
            return elements(text, element, column, usage, found);
        }
        let (oid, values) = array::of_binary(bytes).ok_or_else(|| not_an_array(column))?;
        // An array of an enum names that enum, whose oid nobody but its server knows.
        let oid = if column.key_type == KeyType::Enum && undeclared { 0 } else { oid };
        for value in values {
            found(match value {
                None => Key::Null,
                Some(bytes) => column.of_binary(oid, bytes, usage)?.into(),
            })?;
        }
        Ok(())
    }
}

/// A parameter as Bind sends it.
struct Bound<'a> {
    bytes: &'a [u8],
    binary: bool,
    declared: u32,
}

fn elements(
    text: &str,
    element_oid: u32,
    column: &KeyColumn,
    usage: Usage,
    found: &mut impl FnMut(Key) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for element in array::of_text(text).ok_or_else(|| not_an_array(column))? {
        found(match element {
            None => Key::Null,
            Some(it) => column.of_text(element_oid, &it, usage)?.into(),
        })?;
    }
    Ok(())
}

fn is_textual(oid: u32) -> bool {
    matches!(KeyType::of_oid(oid), Some(KeyType::Text | KeyType::Varchar))
}

/// A cast from one to the other changes no value that both have: an integer stays what it is.
fn same_number(from: u32, to: u32) -> bool {
    let number = |it: KeyType| it.is_integer() || it == KeyType::Numeric;
    let from_integer = KeyType::of_oid(from).is_some_and(KeyType::is_integer);
    from == to || from_integer && KeyType::of_oid(to).is_some_and(number)
}

/// A number as written, with the signs in front of it.
fn number(
    digits: &str,
    integer: bool,
    negative: bool,
    column: &KeyColumn,
    usage: Usage,
) -> Result<Key, Refusal> {
    let key_type = column.key_type;
    if (key_type.is_integer() || key_type == KeyType::Numeric)
        && integer
        && let Ok(value) = digits.parse::<i64>()
    {
        return column.of_int(if negative { -value } else { value }, usage).map(Key::from);
    }
    let signed = if negative { Cow::Owned(format!("-{digits}")) } else { Cow::Borrowed(digits) };
    match (key_type, usage.purpose) {
        (it, _) if it.is_integer() || it == KeyType::Numeric => {
            column.of_text(KeyType::Numeric.oid(), &signed, usage).map(Key::from)
        }
        // `text = integer` and the like have no operator: the server's own error is the answer.
        (_, Purpose::Compare) => Ok(Key::Nothing),
        // An integer is assigned to a text column as its decimal digits.
        (it, Purpose::Store) if integer && it.is_collated() => {
            let plain = digits.trim_start_matches('0');
            let plain = if plain.is_empty() { "0" } else { plain };
            let minus = if negative && plain != "0" { "-" } else { "" };
            column.of_text(0, &format!("{minus}{plain}"), usage).map(Key::from)
        }
        (_, Purpose::Store) => Err(Refusal::unsupported(
            Reason::BadKey,
            format!("a shard key of type {key_type} cannot be routed by {signed}"),
            format!("write the key as a string: '{signed}'"),
        )),
    }
}

fn cast_of(declared: u32, cast_oid: u32, column: &KeyColumn) -> Refusal {
    let name = |oid: u32| KeyType::of_oid(oid).map_or_else(|| format!("oid {oid}"), |it| it.to_string());
    Refusal::unsupported(
        Reason::BadKey,
        format!(
            "a parameter of type {} that is cast to {} cannot be a shard key",
            name(declared),
            name(cast_oid)
        ),
        format!("pass it as {}, without a cast", column.key_type),
    )
}

fn not_an_array(column: &KeyColumn) -> Refusal {
    Refusal::unsupported(
        Reason::BadKey,
        "cannot tell which shard keys an array holds",
        format!("pass an array of {} with one dimension: '{{...}}'", column.key_type),
    )
}

fn not_plain() -> Refusal {
    Refusal::unsupported(
        Reason::BadKey,
        "a shard key must be a plain string or a number",
        "write the key as '...' or as a number",
    )
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
