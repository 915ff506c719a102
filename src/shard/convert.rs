//! From a value of one type to the key of a column of another: as PostgreSQL's operators compare the two, or
//! as an assignment converts it. What no rule here covers is refused, never guessed.

use super::key::{KeyColumn, KeyType, KeyValue};
use super::read::{Read, out_of_range};
use crate::base::{Reason, Refusal, SqlState};

/// Whether a value is compared with a key or stored as one: PostgreSQL converts it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Compare,
    Store,
}

/// How a value reaches a key column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub purpose: Purpose,
    /// The session's TimeZone is UTC.
    pub utc: bool,
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

impl KeyType {
    /// A value of type `source` stands for the same key of this type in every session, or for none.
    pub fn takes(self, source: KeyType) -> bool {
        use KeyType as T;
        let numbers = |it: T| it.is_integer() || it == T::Numeric;
        match (source, self) {
            _ if source == self => true,
            _ if numbers(source) && numbers(self) => true,
            (T::Text | T::Varchar, T::Text | T::Varchar | T::Bpchar) => true,
            (T::Date, T::Timestamp) | (T::Timestamp, T::Date) => true,
            _ => false,
        }
    }
}

fn of_other_type(source: KeyType, column: KeyType) -> Refusal {
    Refusal::unsupported(
        Reason::BadKey,
        format!("a value of type {source} cannot be a shard key of type {column}"),
        format!("cast it to {column}"),
    )
}

fn of_time_zone(source: KeyType, column: KeyType) -> Refusal {
    Refusal::unsupported(
        Reason::BadKey,
        format!("the {column} that a {source} stands for depends on the session's time zone"),
        format!("pass a {column}, or SET TimeZone TO 'UTC'"),
    )
}

impl KeyColumn {
    /// The key that a value in text form, declared as type `oid`, stands for; `None` where it equals no key.
    ///
    /// # Errors
    /// PostgreSQL's own for a value that its type does not have; 0A000 for what cannot be told.
    pub fn of_text(&self, oid: u32, text: &str, usage: Usage) -> Result<Option<KeyValue>, Refusal> {
        let source = self.source(oid)?;
        let read = source.read_text(text, usage.utc)?;
        self.of_read(read, source, text, usage)
    }

    /// The same of a value in binary form.
    pub fn of_binary(&self, oid: u32, bytes: &[u8], usage: Usage) -> Result<Option<KeyValue>, Refusal> {
        let source = self.source(oid)?;
        let read = source.read_binary(bytes)?;
        self.of_read(read, source, "of a parameter", usage)
    }

    /// The same of an integer as the grammar reads it.
    pub fn of_int(&self, value: i64, usage: Usage) -> Result<Option<KeyValue>, Refusal> {
        self.of_read(Read::Value(KeyValue::Int(value)), KeyType::Bigint, "of a constant", usage)
    }

    fn source(&self, oid: u32) -> Result<KeyType, Refusal> {
        if KeyType::is_undeclared(oid) {
            return Ok(self.key_type);
        }
        KeyType::of_oid(oid).ok_or_else(|| {
            Refusal::unsupported(
                Reason::BadKey,
                format!("a parameter of type oid {oid} cannot be a shard key of type {}", self.key_type),
                format!("cast the parameter to {}", self.key_type),
            )
        })
    }

    fn of_read(
        &self,
        read: Read,
        source: KeyType,
        text: &str,
        usage: Usage,
    ) -> Result<Option<KeyValue>, Refusal> {
        let integer = self.key_type.is_integer() && source == KeyType::Numeric;
        let value = match (read, usage.purpose) {
            (Read::Value(value), _) => convert(value, source, self.key_type, usage)?,
            // An integer column and a numeric are compared as numerics.
            (Read::Fraction | Read::Vast, Purpose::Compare) if integer => None,
            (Read::Vast, Purpose::Store) if integer => return Err(out_of_range(self.key_type, text)),
            (other, _) => Some(other.key(self.key_type, text)?),
        };
        match (value, usage.purpose) {
            (Some(value), Purpose::Store) => self.stored(value).map(Some),
            (value, _) => Ok(value),
        }
    }

    /// What the column keeps of a value that is assigned to it.
    fn stored(&self, value: KeyValue) -> Result<KeyValue, Refusal> {
        match (self.key_type, value, self.modifier) {
            (KeyType::Varchar, KeyValue::Text(text), None) if text.ends_with(' ') => {
                Err(Refusal::unsupported(
                    Reason::BadKey,
                    "blanks at the end of a key may not fit into its column, which would drop them silently",
                    "declare the length of the key in its map, type = \"varchar(20)\", or type = \"text\"",
                ))
            }
            (KeyType::Varchar, KeyValue::Text(text), Some(length)) => {
                fitted(&text, length).map(KeyValue::Text)
            }
            (KeyType::Timestamp | KeyType::Timestamptz, KeyValue::Micros(micros), Some(precision)) => {
                Ok(KeyValue::Micros(rounded(micros, precision)))
            }
            (_, value, _) => Ok(value),
        }
    }
}

/// As `varchar()` of varchar.c: blanks beyond the length are dropped, anything else is an error.
fn fitted(text: &str, length: u32) -> Result<Box<str>, Refusal> {
    match text.char_indices().nth(length as usize) {
        None => Ok(text.into()),
        Some((end, _)) if text[end..].bytes().all(|it| it == b' ') => Ok(text[..end].into()),
        Some(_) => Err(Refusal::new(
            Reason::BadKey,
            SqlState("22001"),
            format!("value too long for type character varying({length})"),
        )),
    }
}

/// As `AdjustTimestampForTypmod`: half away from zero, which is 2000-01-01.
fn rounded(micros: i64, precision: u32) -> i64 {
    let scale = 10i64.pow(6 - precision.min(6));
    if matches!(micros, i64::MIN | i64::MAX) || scale == 1 {
        return micros;
    }
    let size = (micros.saturating_abs().saturating_add(scale / 2)) / scale * scale;
    if micros < 0 { -size } else { size }
}

fn convert(
    value: KeyValue,
    source: KeyType,
    column: KeyType,
    usage: Usage,
) -> Result<Option<KeyValue>, Refusal> {
    use KeyType as T;
    let number = match value {
        KeyValue::Int(it) => Some(i128::from(it)),
        KeyValue::Numeric(it) => Some(it),
        _ => None,
    };
    let compares = usage.purpose == Purpose::Compare;
    Ok(Some(match (source, column, value) {
        (_, _, value) if source == column => value,
        (_, T::Numeric, _) if let Some(number) = number => KeyValue::Numeric(number),
        (_, _, _)
            if column.is_integer()
                && let Some(number) = number =>
        {
            match i64::try_from(number).ok().filter(|it| column.holds(*it)) {
                Some(it) => KeyValue::Int(it),
                None if compares => return Ok(None),
                None => return Err(out_of_range(column, &number.to_string())),
            }
        }
        (T::Text | T::Varchar, T::Text | T::Varchar, value) => value,
        // character(n) and text are compared as texts, for which the column loses its blanks; with varchar
        // both lose them.
        (T::Text, T::Bpchar, KeyValue::Text(text)) if compares && text.ends_with(' ') => return Ok(None),
        (T::Text | T::Varchar, T::Bpchar, KeyValue::Text(text)) => {
            KeyValue::Text(text.trim_end_matches(' ').into())
        }
        (T::Date | T::Timestamp | T::Timestamptz, T::Date | T::Timestamp | T::Timestamptz, value) => {
            return of_time(value, source, column, usage);
        }
        _ => return Err(of_other_type(source, column)),
    }))
}

fn of_time(
    value: KeyValue,
    source: KeyType,
    column: KeyType,
    usage: Usage,
) -> Result<Option<KeyValue>, Refusal> {
    let infinite =
        matches!(value, KeyValue::Days(i32::MIN | i32::MAX) | KeyValue::Micros(i64::MIN | i64::MAX));
    let zoned = source == KeyType::Timestamptz || column == KeyType::Timestamptz;
    if zoned && !usage.utc && !infinite {
        return Err(of_time_zone(source, column));
    }
    Ok(match (value, column) {
        (KeyValue::Days(i32::MIN), _) => Some(KeyValue::Micros(i64::MIN)),
        (KeyValue::Days(i32::MAX), _) => Some(KeyValue::Micros(i64::MAX)),
        (KeyValue::Days(days), _) => match i64::from(days).checked_mul(MICROS_PER_DAY) {
            Some(micros) => Some(KeyValue::Micros(micros)),
            None if usage.purpose == Purpose::Compare => None,
            None => return Err(out_of_range(column, &KeyValue::Days(days).to_string())),
        },
        (KeyValue::Micros(i64::MIN), KeyType::Date) => Some(KeyValue::Days(i32::MIN)),
        (KeyValue::Micros(i64::MAX), KeyType::Date) => Some(KeyValue::Days(i32::MAX)),
        (KeyValue::Micros(micros), KeyType::Date) => {
            let whole = micros % MICROS_PER_DAY == 0 || usage.purpose == Purpose::Store;
            whole.then(|| KeyValue::Days(micros.div_euclid(MICROS_PER_DAY) as i32))
        }
        (value, _) => Some(value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPARE: Usage = Usage { purpose: Purpose::Compare, utc: true };
    const STORE: Usage = Usage { purpose: Purpose::Store, utc: true };

    fn said(it: Result<Option<KeyValue>, Refusal>) -> String {
        match it {
            Ok(Some(value)) => value.to_string(),
            Ok(None) => "nothing".into(),
            Err(refusal) => format!("! {}", refusal.state().0),
        }
    }

    #[test]
    fn a_declared_type_is_converted_as_postgres_would_or_refused() {
        use KeyType as T;
        for (column, source, text, compared, stored) in [
            ("bigint", T::Integer, "7", "7", "7"),
            ("smallint", T::Integer, "70000", "nothing", "! 22003"),
            ("bigint", T::Numeric, "7.0", "7", "7"),
            ("bigint", T::Numeric, "7.5", "nothing", "! 0A000"),
            ("bigint", T::Numeric, "1e40", "nothing", "! 22003"),
            ("numeric", T::Bigint, "-7", "-7", "-7"),
            ("numeric", T::Numeric, "7.5", "! 0A000", "! 0A000"),
            ("bigint", T::Text, "7", "! 0A000", "! 0A000"),
            ("uuid", T::Text, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "! 0A000", "! 0A000"),
            ("text", T::Varchar, "a ", "a ", "a "),
            ("text", T::Bpchar, "a ", "! 0A000", "! 0A000"),
            ("varchar", T::Text, "a ", "a ", "! 0A000"),
            ("varchar(3)", T::Text, "abc  ", "abc  ", "abc"),
            ("varchar(3)", T::Text, "äbcd", "äbcd", "! 22001"),
            ("char(5)", T::Bpchar, "ab ", "ab", "ab"),
            ("char(5)", T::Varchar, "ab ", "ab", "ab"),
            ("char(5)", T::Text, "ab ", "nothing", "ab"),
            ("char(5)", T::Text, "ab", "ab", "ab"),
            ("date", T::Timestamp, "2026-01-31 00:00:00", "2026-01-31", "2026-01-31"),
            ("date", T::Timestamp, "1999-12-31 12:00:00", "nothing", "1999-12-31"),
            ("date", T::Timestamp, "infinity", "infinity", "infinity"),
            ("timestamp", T::Date, "2026-01-31", "2026-01-31 00:00:00", "2026-01-31 00:00:00"),
            (
                "timestamptz",
                T::Timestamp,
                "2026-01-31 10:00:00",
                "2026-01-31 10:00:00",
                "2026-01-31 10:00:00",
            ),
            (
                "timestamp(0)",
                T::Timestamp,
                "1999-12-31 12:00:00.5",
                "1999-12-31 12:00:00.500",
                "1999-12-31 12:00:00",
            ),
            (
                "timestamp(0)",
                T::Timestamp,
                "2000-12-31 12:00:00.5",
                "2000-12-31 12:00:00.500",
                "2000-12-31 12:00:01",
            ),
            ("boolean", T::Integer, "1", "! 0A000", "! 0A000"),
            ("enum", T::Text, "red", "! 0A000", "! 0A000"),
        ] {
            let parsed: KeyColumn = column.parse().unwrap();
            let (oid, name) = (source.oid(), format!("{column} of {source} {text}"));
            assert_eq!(said(parsed.of_text(oid, text, COMPARE)), compared, "{name}");
            assert_eq!(said(parsed.of_text(oid, text, STORE)), stored, "{name}");
        }
    }

    #[test]
    fn what_depends_on_the_time_zone_is_refused_where_it_is_not_known() {
        let elsewhere = Usage { utc: false, ..COMPARE };
        for (column, source) in [
            (KeyType::Timestamptz, KeyType::Timestamp),
            (KeyType::Timestamp, KeyType::Timestamptz),
            (KeyType::Timestamptz, KeyType::Date),
        ] {
            let column = KeyColumn::from(column);
            let bytes = 5i64.to_be_bytes();
            let bytes = if source == KeyType::Date { &bytes[4..] } else { &bytes[..] };
            let refusal = column.of_binary(source.oid(), bytes, elsewhere).unwrap_err();
            assert!(refusal.hint_text().unwrap().contains("TimeZone"), "{refusal}");
            assert!(column.of_binary(source.oid(), bytes, COMPARE).unwrap().is_some());
            assert!(!column.key_type.takes(source));
        }
    }
}
