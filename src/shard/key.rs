//! Shard key values and their types. Every spelling of a value gives one `KeyValue`, and so one shard.

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;

use super::time;

/// The type of a column of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    Smallint,
    Integer,
    Bigint,
    /// Whole numbers of up to 38 digits.
    Numeric,
    Boolean,
    Text,
    Varchar,
    /// character(n): blanks at the end do not count.
    Bpchar,
    /// Any enum, by the text of its labels.
    Enum,
    Uuid,
    Bytea,
    Date,
    Timestamp,
    Timestamptz,
}

/// A key in canonical form. Ordered as PostgreSQL orders its type; text as collation C does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    Bool(bool),
    Int(i64),
    Numeric(i128),
    /// Without the blanks at the end where the type is character(n).
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Uuid([u8; 16]),
    /// Days since 2000-01-01; the ends of the type are the infinities.
    Days(i32),
    /// Microseconds since 2000-01-01 00:00, of a timestamptz in UTC; the ends of the type are the infinities.
    Micros(i64),
    /// A key of several columns.
    Row(Box<[KeyValue]>),
}

/// A column of a key as it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyColumn {
    pub key_type: KeyType,
    /// The length of varchar and character, the precision of timestamps, if it is declared.
    pub modifier: Option<u32>,
}

/// Every type with its name in PostgreSQL's messages, its names in SQL, and its oid in pg_type.dat; those of
/// enums differ.
const TYPES: [(KeyType, &str, &[&str], u32); 14] = [
    (KeyType::Smallint, "smallint", &["int2"], 21),
    (KeyType::Integer, "integer", &["int", "int4"], 23),
    (KeyType::Bigint, "bigint", &["int8"], 20),
    (KeyType::Numeric, "numeric", &["decimal"], 1700),
    (KeyType::Boolean, "boolean", &["bool"], 16),
    (KeyType::Text, "text", &[], 25),
    (KeyType::Varchar, "character varying", &["varchar"], 1043),
    (KeyType::Bpchar, "character", &["char", "bpchar"], 1042),
    (KeyType::Enum, "enum", &[], 0),
    (KeyType::Uuid, "uuid", &[], 2950),
    (KeyType::Bytea, "bytea", &[], 17),
    (KeyType::Date, "date", &[], 1082),
    (KeyType::Timestamp, "timestamp without time zone", &["timestamp"], 1114),
    (KeyType::Timestamptz, "timestamp with time zone", &["timestamptz"], 1184),
];

/// `unknown`, the type of a string before anything else is known of it.
const OID_UNKNOWN: u32 = 705;

impl KeyType {
    /// The type that Parse declares by this oid; `None` for others, for enums and for 0.
    pub fn of_oid(oid: u32) -> Option<KeyType> {
        TYPES.iter().find(|it| it.3 == oid && oid != 0).map(|it| it.0)
    }

    /// By its name in `pg_catalog`: `int8`, `bpchar`.
    pub fn of_catalog_name(name: &str) -> Option<KeyType> {
        let by_name = |it: &&(KeyType, &str, &[&str], u32)| it.1 == name || it.2.contains(&name);
        TYPES.iter().find(by_name).map(|it| it.0).filter(|it| *it != KeyType::Enum)
    }

    /// 0 for an enum.
    pub fn oid(self) -> u32 {
        TYPES.iter().find(|it| it.0 == self).map_or(0, |it| it.3)
    }

    /// Nothing is declared of a parameter's type, so that it takes the column's.
    pub fn is_undeclared(oid: u32) -> bool {
        matches!(oid, 0 | OID_UNKNOWN)
    }

    pub fn is_integer(self) -> bool {
        matches!(self, KeyType::Smallint | KeyType::Integer | KeyType::Bigint)
    }

    /// Ordered by a collation, which a column declares.
    pub fn is_collated(self) -> bool {
        matches!(self, KeyType::Text | KeyType::Varchar | KeyType::Bpchar)
    }

    pub(super) fn holds(self, value: i64) -> bool {
        match self {
            KeyType::Smallint => i16::try_from(value).is_ok(),
            KeyType::Integer => i32::try_from(value).is_ok(),
            _ => true,
        }
    }
}

impl fmt::Display for KeyType {
    /// The name in PostgreSQL's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TYPES.iter().find(|it| it.0 == *self).map_or("", |it| it.1))
    }
}

impl From<KeyType> for KeyColumn {
    fn from(key_type: KeyType) -> KeyColumn {
        KeyColumn { key_type, modifier: None }
    }
}

/// Why a text names no type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadType {
    /// No type that can be a key.
    Unknown,
    /// A length or precision that the type does not have.
    Modifier,
}

impl FromStr for KeyColumn {
    type Err = BadType;

    /// As CREATE TABLE has it: `bigint`, `varchar(20)`, `timestamp(3) with time zone`.
    fn from_str(text: &str) -> Result<KeyColumn, BadType> {
        let lower = text.to_ascii_lowercase();
        let (name, modifiers) = match lower.split_once('(') {
            None => (lower, None),
            Some((before, rest)) => {
                let (inside, behind) = rest.split_once(')').ok_or(BadType::Modifier)?;
                let numbers: Result<Vec<u32>, _> = inside.split(',').map(|it| it.trim().parse()).collect();
                (format!("{before} {behind}"), Some(numbers.map_err(|_| BadType::Modifier)?))
            }
        };
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = TYPES.iter().find(|it| it.1 == name || it.2.contains(&&name[..]));
        let key_type = found.ok_or(BadType::Unknown)?.0;
        let modifier = match (key_type, modifiers.as_deref()) {
            // `character` alone is character(1); `bpchar` alone has no length.
            (KeyType::Bpchar, None) if name != "bpchar" => Some(1),
            (_, None) => None,
            (KeyType::Varchar | KeyType::Bpchar, Some(&[length])) if length > 0 => Some(length),
            (KeyType::Timestamp | KeyType::Timestamptz, Some(&[precision])) if precision <= 6 => {
                Some(precision)
            }
            // Whole numbers are the same whatever is declared.
            (KeyType::Numeric, Some(&[precision, ref scale @ ..])) if precision > 0 && scale.len() <= 1 => {
                None
            }
            _ => return Err(BadType::Modifier),
        };
        Ok(KeyColumn { key_type, modifier })
    }
}

impl fmt::Display for KeyColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.modifier, self.key_type) {
            (None, it) => write!(f, "{it}"),
            (Some(precision), KeyType::Timestamp) => write!(f, "timestamp({precision}) without time zone"),
            (Some(precision), KeyType::Timestamptz) => write!(f, "timestamp({precision}) with time zone"),
            (Some(length), it) => write!(f, "{it}({length})"),
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyValue::Bool(it) => write!(f, "{it}"),
            KeyValue::Int(it) => write!(f, "{it}"),
            KeyValue::Numeric(it) => write!(f, "{it}"),
            KeyValue::Text(it) => f.write_str(it),
            KeyValue::Bytes(it) => {
                f.write_str("\\x")?;
                it.iter().try_for_each(|it| write!(f, "{it:02x}"))
            }
            KeyValue::Uuid(it) => {
                for (index, byte) in it.iter().enumerate() {
                    let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
            KeyValue::Days(it) => f.write_str(&time::print_days(*it)),
            KeyValue::Micros(it) => f.write_str(&time::print_micros(*it)),
            KeyValue::Row(columns) => {
                let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
                write!(f, "({})", columns.join(", "))
            }
        }
    }
}

/// Room for most keys of several columns.
type Bytes = SmallVec<[u8; 64]>;

impl KeyValue {
    /// Gives `read` the bytes that are hashed: fixed width little-endian numbers, so that every
    /// integer type agrees, and text as it is. Different values of one type have different bytes. No
    /// allocation for a key of one column.
    pub fn with_canonical_bytes<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            KeyValue::Int(it) | KeyValue::Micros(it) => read(&it.to_le_bytes()),
            KeyValue::Numeric(it) => read(&it.to_le_bytes()),
            KeyValue::Days(it) => read(&it.to_le_bytes()),
            KeyValue::Bool(it) => read(&[u8::from(*it)]),
            KeyValue::Text(it) => read(it.as_bytes()),
            KeyValue::Bytes(it) => read(it),
            KeyValue::Uuid(it) => read(it),
            KeyValue::Row(columns) => {
                let mut bytes = Bytes::new();
                columns.iter().for_each(|it| it.append_canonical_bytes(&mut bytes));
                read(&bytes)
            }
        }
    }

    /// Text and bytes stand behind their length, four bytes, so that no two rows run into the same bytes.
    fn append_canonical_bytes(&self, bytes: &mut Bytes) {
        if let KeyValue::Text(_) | KeyValue::Bytes(_) = self {
            let length = self.with_canonical_bytes(<[u8]>::len) as u32;
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        self.with_canonical_bytes(|it| bytes.extend_from_slice(it));
    }
}
