//! From the text or the binary form of a value to the value, as the input and receive functions of its type
//! read it.

use super::decimal::{self, Decimal};
use super::key::{KeyType, KeyValue};
use super::{integer, time};
use crate::base::{Reason, Refusal, SqlState};

/// A value as it was read; what no key can be is kept apart until it is known what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Value(KeyValue),
    /// A numeric with digits behind its point.
    Fraction,
    /// A numeric of more than 38 digits, NaN or infinite.
    Vast,
}

fn invalid(key_type: KeyType, text: &str) -> Refusal {
    Refusal::new(
        Reason::BadKey,
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {key_type}: \"{text}\""),
    )
}

pub(super) fn out_of_range(key_type: KeyType, text: &str) -> Refusal {
    Refusal::new(
        Reason::BadKey,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("value \"{text}\" is out of range for type {key_type}"),
    )
}

fn not_binary(key_type: KeyType, length: usize) -> Refusal {
    Refusal::new(
        Reason::BadKey,
        SqlState::INVALID_BINARY_REPRESENTATION,
        format!("a binary parameter of {length} bytes cannot be a shard key of type {key_type}"),
    )
    .hint(format!("cast the parameter to {key_type} or send it as text"))
}

impl From<Decimal> for Read {
    fn from(decimal: Decimal) -> Read {
        match decimal {
            Decimal::Whole(it) => Read::Value(KeyValue::Numeric(it)),
            Decimal::Fraction => Read::Fraction,
            Decimal::Vast | Decimal::Special => Read::Vast,
        }
    }
}

impl KeyType {
    /// The value that PostgreSQL reads from this text for a column of this type. `utc_session` says
    /// that the session's TimeZone is UTC: only then is a timestamptz without offset certain.
    ///
    /// # Errors
    /// PostgreSQL's own 22P02, 22003 or 22007; 0A000 for a form whose meaning depends on the session, and
    /// for a numeric that has a fraction.
    pub fn parse_text(self, text: &str, utc_session: bool) -> Result<KeyValue, Refusal> {
        self.read_text(text, utc_session)?.key(self, text)
    }

    pub(super) fn read_text(self, text: &str, utc_session: bool) -> Result<Read, Refusal> {
        let bad = || invalid(self, text);
        let value = match self {
            KeyType::Smallint | KeyType::Integer | KeyType::Bigint => {
                let value = integer::parse(text).ok_or_else(bad)?;
                let value = i64::try_from(value).ok().filter(|it| self.holds(*it));
                KeyValue::Int(value.ok_or_else(|| out_of_range(self, text))?)
            }
            KeyType::Numeric => return decimal::parse(text).map(Read::from).ok_or_else(bad),
            KeyType::Boolean => KeyValue::Bool(parse_bool(text).ok_or_else(bad)?),
            KeyType::Text | KeyType::Varchar | KeyType::Enum => KeyValue::Text(text.into()),
            KeyType::Bpchar => KeyValue::Text(text.trim_end_matches(' ').into()),
            KeyType::Uuid => KeyValue::Uuid(parse_uuid(text).ok_or_else(bad)?),
            KeyType::Bytea => KeyValue::Bytes(parse_bytea(text).ok_or_else(bad)?),
            KeyType::Date => KeyValue::Days(time::parse_date(text)?),
            KeyType::Timestamp => KeyValue::Micros(time::parse_timestamp(text)?),
            KeyType::Timestamptz => KeyValue::Micros(time::parse_timestamptz(text, utc_session)?),
        };
        Ok(Read::Value(value))
    }

    pub(super) fn read_binary(self, bytes: &[u8]) -> Result<Read, Refusal> {
        let wrong = || not_binary(self, bytes.len());
        let text = || std::str::from_utf8(bytes).map_err(|_| wrong());
        let value = match (self, bytes) {
            (KeyType::Smallint, [_, _]) | (KeyType::Integer, [_, _, _, _]) => KeyValue::Int(signed(bytes)),
            (KeyType::Bigint, [_, _, _, _, _, _, _, _]) => KeyValue::Int(signed(bytes)),
            (KeyType::Numeric, _) => return decimal::of_binary(bytes).map(Read::from).ok_or_else(wrong),
            (KeyType::Boolean, [it]) => KeyValue::Bool(*it != 0),
            (KeyType::Text | KeyType::Varchar | KeyType::Enum, _) => KeyValue::Text(text()?.into()),
            (KeyType::Bpchar, _) => KeyValue::Text(text()?.trim_end_matches(' ').into()),
            (KeyType::Bytea, _) => KeyValue::Bytes(bytes.into()),
            (KeyType::Uuid, _) => KeyValue::Uuid(bytes.try_into().map_err(|_| wrong())?),
            (KeyType::Date, [_, _, _, _]) => KeyValue::Days(signed(bytes) as i32),
            (KeyType::Timestamp | KeyType::Timestamptz, [_, _, _, _, _, _, _, _]) => {
                KeyValue::Micros(signed(bytes))
            }
            _ => return Err(wrong()),
        };
        Ok(Read::Value(value))
    }
}

impl Read {
    /// As a value of the type that it was read as; `text` is for the message.
    pub(super) fn key(self, key_type: KeyType, text: &str) -> Result<KeyValue, Refusal> {
        let what = match self {
            Read::Value(it) => return Ok(it),
            Read::Fraction => "a fraction",
            Read::Vast => "more than 38 digits",
        };
        Err(Refusal::unsupported(
            Reason::BadKey,
            format!("a shard key of type {key_type} cannot have {what}: \"{text}\""),
            "use a whole number of up to 38 digits",
        ))
    }
}

/// Two, four or eight bytes in network order.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|it| *it >= 0x80);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, it| value << 8 | i64::from(*it))
}

/// As `boolin`: any beginning of the words that is no beginning of another.
fn parse_bool(text: &str) -> Option<bool> {
    let word = integer::trim(text).to_ascii_lowercase();
    let begins = |whole: &str, shortest: usize| word.len() >= shortest && whole.starts_with(&word);
    if begins("true", 1) || begins("yes", 1) || word == "on" || word == "1" {
        return Some(true);
    }
    (begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0").then_some(false)
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

/// As `byteain`: `\x` and pairs of hexadecimal digits with blanks between them, or bytes as they are with
/// `\\` and `\ooo` (manual 8.4).
fn parse_bytea(text: &str) -> Option<Box<[u8]>> {
    let mut out = Vec::with_capacity(text.len());
    if let Some(hex) = text.strip_prefix("\\x") {
        let mut digits = hex.bytes();
        while let Some(high) = digits.next() {
            if matches!(high, b' ' | b'\n' | b'\t' | b'\r') {
                continue;
            }
            let digit = |it: u8| (it as char).to_digit(16);
            out.push((digit(high)? << 4 | digit(digits.next()?)?) as u8);
        }
        return Some(out.into());
    }
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                out.push(b'\\');
                tail
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            (b'\\', _) => return None,
            _ => {
                out.push(first);
                tail
            }
        };
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn booleans_are_any_beginning_of_their_words() {
        for (texts, want) in [
            (&["t", " TRUE ", "tru", "y", "yes", "on", "1"][..], true),
            (&["f", "False", "n", "NO", "of", "off", "0"][..], false),
        ] {
            for text in texts {
                assert_eq!(KeyType::Boolean.parse_text(text, false).unwrap(), KeyValue::Bool(want), "{text}");
            }
        }
        for text in ["", "o", "10", "truer", "2", "maybe"] {
            assert_eq!(state(KeyType::Boolean.parse_text(text, false)), "22P02", "{text}");
        }
    }

    #[test]
    fn bytea_has_two_forms() {
        let read = |text: &str| KeyType::Bytea.parse_text(text, false).map(|it| it.to_string());
        for text in ["\\xDEadbe", "\\xde ad\nbe", "\\336\\255\\276"] {
            assert_eq!(read(text).unwrap(), "\\xdeadbe", "{text}");
        }
        assert_eq!(read("a\\\\b").unwrap(), "\\x615c62");
        assert_eq!(read("").unwrap(), "\\x");
        for text in ["\\xabc", "\\xa b", "\\400", "\\8", "\\", "a\\"] {
            assert_eq!(read(text).unwrap_err().state().0, "22P02", "{text}");
        }
    }
}
