//! Shard key values. Every spelling of a value, as text, as a parameter of whatever width, gives one
//! `KeyValue`, and so one shard.

use std::fmt;
use std::str::FromStr;

use super::time;
use crate::base::{Reason, Refusal, SqlState};

/// The type of a map's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    Smallint,
    Integer,
    Bigint,
    Text,
    Uuid,
    Date,
    Timestamp,
    Timestamptz,
}

/// A key in canonical form. Ordered as PostgreSQL orders its type; text as collation C does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    Int(i64),
    Text(Box<str>),
    Uuid([u8; 16]),
    /// Days since 2000-01-01.
    Days(i32),
    /// Microseconds since 2000-01-01 00:00, of a timestamptz in UTC.
    Micros(i64),
}

/// Type oids of PostgreSQL's catalog (pg_type.dat), as Parse names them.
mod oid {
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const UNKNOWN: u32 = 705;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const UUID: u32 = 2950;
}

impl FromStr for KeyType {
    type Err = ();

    fn from_str(name: &str) -> Result<KeyType, ()> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "smallint" | "int2" => KeyType::Smallint,
            "integer" | "int" | "int4" => KeyType::Integer,
            "bigint" | "int8" => KeyType::Bigint,
            "text" | "varchar" | "character varying" => KeyType::Text,
            "uuid" => KeyType::Uuid,
            "date" => KeyType::Date,
            "timestamp" | "timestamp without time zone" => KeyType::Timestamp,
            "timestamptz" | "timestamp with time zone" => KeyType::Timestamptz,
            _ => return Err(()),
        })
    }
}

impl fmt::Display for KeyType {
    /// The name in PostgreSQL's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::Smallint => "smallint",
            KeyType::Integer => "integer",
            KeyType::Bigint => "bigint",
            KeyType::Text => "text",
            KeyType::Uuid => "uuid",
            KeyType::Date => "date",
            KeyType::Timestamp => "timestamp without time zone",
            KeyType::Timestamptz => "timestamp with time zone",
        })
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyValue::Int(it) => write!(f, "{it}"),
            KeyValue::Text(it) => f.write_str(it),
            KeyValue::Uuid(it) => {
                for (index, byte) in it.iter().enumerate() {
                    let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
            KeyValue::Days(it) => f.write_str(&time::print_days(*it)),
            KeyValue::Micros(it) => f.write_str(&time::print_micros(*it)),
        }
    }
}

fn invalid(key_type: KeyType, text: &str) -> Refusal {
    Refusal::new(
        Reason::BadKey,
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {key_type}: \"{text}\""),
    )
}

fn out_of_range(key_type: KeyType, text: &str) -> Refusal {
    Refusal::new(
        Reason::BadKey,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("value \"{text}\" is out of range for type {key_type}"),
    )
}

fn not_binary(key_type: KeyType, oid: u32, length: usize) -> Refusal {
    Refusal::new(
        Reason::BadKey,
        SqlState::INVALID_BINARY_REPRESENTATION,
        format!(
            "a binary parameter of type oid {oid} and {length} bytes cannot be a shard key of type {key_type}"
        ),
    )
    .hint(format!("cast the parameter to {key_type} or send it as text"))
}

impl KeyType {
    fn int_bounds(self) -> Option<(i64, i64)> {
        match self {
            KeyType::Smallint => Some((i16::MIN.into(), i16::MAX.into())),
            KeyType::Integer => Some((i32::MIN.into(), i32::MAX.into())),
            KeyType::Bigint => Some((i64::MIN, i64::MAX)),
            _ => None,
        }
    }

    /// The value that PostgreSQL reads from this text for a column of this type. `utc_session` says
    /// that the session's TimeZone is UTC: only then is a timestamptz without offset certain.
    ///
    /// # Errors
    /// PostgreSQL's own 22P02, 22003 or 22007; 0A000 for a form whose meaning depends on the session.
    pub fn parse_text(self, text: &str, utc_session: bool) -> Result<KeyValue, Refusal> {
        match self {
            KeyType::Smallint | KeyType::Integer | KeyType::Bigint => self.parse_int(text),
            KeyType::Text => Ok(KeyValue::Text(text.into())),
            KeyType::Uuid => parse_uuid(text).map(KeyValue::Uuid).ok_or_else(|| invalid(self, text)),
            KeyType::Date => time::parse_date(text).map(KeyValue::Days),
            KeyType::Timestamp => time::parse_timestamp(text).map(KeyValue::Micros),
            KeyType::Timestamptz => time::parse_timestamptz(text, utc_session).map(KeyValue::Micros),
        }
    }

    /// As `int8in` and its smaller sisters: blanks around, one sign, digits; also 0x, 0o, 0b and
    /// underscores between digits, which PostgreSQL takes from version 16 on. An older server refuses
    /// those by itself, so that taking them here sends no row astray.
    fn parse_int(self, text: &str) -> Result<KeyValue, Refusal> {
        let trimmed = text.trim_matches(|it: char| it.is_ascii_whitespace() || it == '\x0b');
        let (negative, digits) = match trimmed.as_bytes().first() {
            Some(b'-') => (true, &trimmed[1..]),
            Some(b'+') => (false, &trimmed[1..]),
            _ => (false, trimmed),
        };
        let magnitude = magnitude(digits).ok_or_else(|| invalid(self, text))?;
        let value = if negative { -magnitude } else { magnitude };
        i64::try_from(value)
            .map_err(|_| out_of_range(self, text))
            .and_then(|it| self.checked_int(it).ok_or_else(|| out_of_range(self, text)))
    }

    fn checked_int(self, value: i64) -> Option<KeyValue> {
        let (low, high) = self.int_bounds()?;
        (low..=high).contains(&value).then_some(KeyValue::Int(value))
    }

    /// The value of a parameter in binary form. `oid` is its declared type; 0 takes the column's.
    pub fn parse_binary(self, oid: u32, bytes: &[u8], utc_session: bool) -> Result<KeyValue, Refusal> {
        let wrong = || not_binary(self, oid, bytes.len());
        match (self, oid, bytes.len()) {
            (KeyType::Smallint | KeyType::Integer | KeyType::Bigint, _, _) => {
                let value = self.binary_int(oid, bytes).ok_or_else(wrong)?;
                self.checked_int(value).ok_or_else(|| out_of_range(self, &value.to_string()))
            }
            (KeyType::Text, 0 | oid::TEXT | oid::VARCHAR | oid::UNKNOWN, _) => {
                std::str::from_utf8(bytes).map(|it| KeyValue::Text(it.into())).map_err(|_| wrong())
            }
            (KeyType::Uuid, 0 | oid::UUID, 16) => bytes.try_into().map(KeyValue::Uuid).map_err(|_| wrong()),
            (KeyType::Date, 0 | oid::DATE, 4) => {
                let days = i32::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
                time::finite_days(days).map(KeyValue::Days)
            }
            (KeyType::Timestamp, 0 | oid::TIMESTAMP, 8) | (KeyType::Timestamptz, 0 | oid::TIMESTAMPTZ, 8) => {
                let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
                time::finite_micros(micros).map(KeyValue::Micros)
            }
            // A timestamp without zone compared with a timestamptz column is read in the session's zone.
            (KeyType::Timestamptz, oid::TIMESTAMP, 8) if utc_session => {
                let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
                time::finite_micros(micros).map(KeyValue::Micros)
            }
            _ => Err(wrong()),
        }
    }

    /// With an unknown oid the length tells, as the server would read it by the column's type.
    fn binary_int(self, oid: u32, bytes: &[u8]) -> Option<i64> {
        let width = match (oid, self) {
            (oid::INT2, _) | (0, KeyType::Smallint) => 2,
            (oid::INT4, _) | (0, KeyType::Integer) => 4,
            (oid::INT8, _) | (0, KeyType::Bigint) => 8,
            _ => return None,
        };
        if bytes.len() != width {
            return None;
        }
        match *bytes {
            [a, b] => Some(i16::from_be_bytes([a, b]).into()),
            [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d]).into()),
            [a, b, c, d, e, f, g, h] => Some(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
            _ => None,
        }
    }

    /// The value of a parameter in text form whose declared type is `oid`. A declared type that the
    /// column's operators would not take as it is, is refused rather than guessed.
    pub fn parse_text_param(self, oid: u32, text: &str, utc_session: bool) -> Result<KeyValue, Refusal> {
        let takes = match self {
            KeyType::Smallint | KeyType::Integer | KeyType::Bigint => {
                matches!(oid, 0 | oid::INT2 | oid::INT4 | oid::INT8)
            }
            KeyType::Text => matches!(oid, 0 | oid::TEXT | oid::VARCHAR | oid::UNKNOWN),
            KeyType::Uuid => matches!(oid, 0 | oid::UUID),
            KeyType::Date => matches!(oid, 0 | oid::DATE),
            KeyType::Timestamp => matches!(oid, 0 | oid::TIMESTAMP),
            KeyType::Timestamptz => {
                matches!(oid, 0 | oid::TIMESTAMPTZ) || oid == oid::TIMESTAMP && utc_session
            }
        };
        if !takes {
            let what = if oid == oid::BPCHAR { "character(n)".to_owned() } else { format!("oid {oid}") };
            return Err(Refusal::unsupported(
                Reason::BadKey,
                format!("a parameter of type {what} cannot be a shard key of type {self}"),
                format!("cast the parameter to {self}"),
            ));
        }
        if oid == oid::TIMESTAMP && self == KeyType::Timestamptz {
            return KeyType::Timestamp.parse_text(text, utc_session);
        }
        self.parse_text(text, utc_session)
    }
}

/// Digits of any base that `pg_strtoint64_safe` knows, one underscore at most in front of each; what is
/// too large for every type saturates.
fn magnitude(text: &str) -> Option<i128> {
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        _ => (10, text),
    };
    if digits.is_empty() || radix == 10 && digits.starts_with('_') {
        return None;
    }
    let (mut value, mut after_digit) = (0i128, true);
    for it in digits.chars() {
        match it.to_digit(radix) {
            Some(digit) => {
                value = value.saturating_mul(radix.into()).saturating_add(digit.into());
                after_digit = true;
            }
            None if it == '_' && after_digit => after_digit = false,
            None => return None,
        }
    }
    after_digit.then_some(value)
}

/// As `uuid_in`: 32 hexadecimal digits, a dash after any group of four, braces around.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let bare = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let (mut out, mut digits, mut bytes) = ([0; 16], 0, bare.bytes().peekable());
    while digits < 32 {
        let digit = (bytes.next()? as char).to_digit(16)? as u8;
        out[digits / 2] = out[digits / 2] << 4 | digit;
        digits += 1;
        if digits % 4 == 0 && digits < 32 && bytes.peek() == Some(&b'-') {
            bytes.next();
        }
    }
    bytes.next().is_none().then_some(out)
}

impl KeyValue {
    /// Gives `read` the bytes that are hashed: fixed width little-endian numbers, so that every
    /// integer type agrees, and text as it is. No allocation.
    pub fn with_canonical_bytes<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            KeyValue::Int(it) | KeyValue::Micros(it) => read(&it.to_le_bytes()),
            KeyValue::Days(it) => read(&it.to_le_bytes()),
            KeyValue::Text(it) => read(it.as_bytes()),
            KeyValue::Uuid(it) => read(it),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(result: Result<KeyValue, Refusal>) -> &'static str {
        result.map_or_else(|it| it.state().0, |_| "ok")
    }

    #[test]
    fn integers_are_read_as_postgres_reads_them() {
        let read = |text| KeyType::Bigint.parse_text(text, false);
        for text in ["7", "0007", " 7 ", "+7", "\t7\n"] {
            assert_eq!(read(text).unwrap(), KeyValue::Int(7), "{text:?}");
        }
        assert_eq!(read("-9223372036854775808").unwrap(), KeyValue::Int(i64::MIN));
        assert_eq!(state(read("9223372036854775808")), "22003");
        assert_eq!(state(KeyType::Smallint.parse_text("40000", false)), "22003");
        for text in ["0x7", "0o7", "0b111", "0X_7", "+0b_1_1_1", "0_7"] {
            assert_eq!(read(text).unwrap(), KeyValue::Int(7), "{text:?}");
        }
        assert_eq!(state(read("0xffffffffffffffffffffffffffffffffffffffff")), "22003");
        for text in ["0x", "_7", "7_", "7__7", "0b2", "0o8", "0x_"] {
            assert_eq!(state(read(text)), "22P02", "{text:?}");
        }
        for text in ["", "-", "7.0", "7a", "1e3", "--7", "7 7"] {
            assert_eq!(state(read(text)), "22P02", "{text:?}");
        }
    }

    #[test]
    fn uuids_take_dashes_after_any_four_digits_and_braces() {
        let read = |text| KeyType::Uuid.parse_text(text, false).map(|it| it.to_string());
        let plain = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [plain, "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11"] {
            assert_eq!(read(text).unwrap(), plain);
        }
        assert!(read("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1").is_err());
        assert!(read("a0e-ebc999c0b4ef8bb6d6bb9bd380a11").is_err());
        assert!(read("{a0eebc999c0b4ef8bb6d6bb9bd380a11").is_err());
    }

    #[test]
    fn binary_of_another_type_is_refused_not_guessed() {
        assert_eq!(state(KeyType::Bigint.parse_binary(oid::TEXT, b"7", false)), "22P03");
        assert_eq!(state(KeyType::Bigint.parse_binary(0, &[0, 0, 0, 7], false)), "22P03");
        assert_eq!(
            state(KeyType::Smallint.parse_binary(oid::INT4, &70_000i32.to_be_bytes(), false)),
            "22003"
        );
        assert_eq!(state(KeyType::Uuid.parse_binary(0, &[1; 15], false)), "22P03");
        assert_eq!(state(KeyType::Text.parse_binary(0, &[0xff], false)), "22P03");
        assert_eq!(state(KeyType::Bigint.parse_text_param(oid::TEXT, "7", false)), "0A000");
    }

    proptest! {
        #[test]
        fn every_spelling_of_an_integer_is_one_value(value: i32, zeros in 0usize..4) {
            let want = KeyValue::Int(value.into());
            let sign = if value < 0 { "-" } else { "" };
            let padded = format!(" {sign}{}{} ", "0".repeat(zeros), value.unsigned_abs());
            prop_assert_eq!(KeyType::Bigint.parse_text(&padded, false).unwrap(), want.clone());
            let (narrow, wide) = (value.to_be_bytes(), i64::from(value).to_be_bytes());
            prop_assert_eq!(KeyType::Bigint.parse_binary(oid::INT4, &narrow, false).unwrap(), want.clone());
            prop_assert_eq!(KeyType::Integer.parse_binary(oid::INT8, &wide, false).unwrap(), want.clone());
            prop_assert_eq!(KeyType::Bigint.parse_binary(0, &wide, false).unwrap(), want);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..20), oid: u32) {
            for it in [KeyType::Bigint, KeyType::Uuid, KeyType::Date, KeyType::Timestamp, KeyType::Timestamptz] {
                let _ = it.parse_text(&text, true);
                let _ = it.parse_binary(oid, &bytes, true);
                let _ = it.parse_binary(0, &bytes, true);
            }
        }
    }
}
