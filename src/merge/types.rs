//! The types whose values Keyway can look into, by the oids of PostgreSQL's catalog (pg_type.dat).

use std::fmt;

/// A column's type. What is `Other` is passed on as it is, and neither compared nor computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Bool,
    Char,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Varchar,
    Name,
    Bpchar,
    Bytea,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    /// By oid.
    Other(u32),
}

/// Type, its oid, that of its arrays, bytes of a value (-1: varying), name in messages.
const TYPES: [(Type, u32, u32, i16, &str); 21] = [
    (Type::Bool, 16, 1000, 1, "boolean"),
    (Type::Bytea, 17, 1001, -1, "bytea"),
    (Type::Char, 18, 1002, 1, "\"char\""),
    (Type::Name, 19, 1003, 64, "name"),
    (Type::Int8, 20, 1016, 8, "bigint"),
    (Type::Int2, 21, 1005, 2, "smallint"),
    (Type::Int4, 23, 1007, 4, "integer"),
    (Type::Text, 25, 1009, -1, "text"),
    (Type::Oid, 26, 1028, 4, "oid"),
    (Type::Float4, 700, 1021, 4, "real"),
    (Type::Float8, 701, 1022, 8, "double precision"),
    (Type::Bpchar, 1042, 1014, -1, "character"),
    (Type::Varchar, 1043, 1015, -1, "character varying"),
    (Type::Date, 1082, 1182, 4, "date"),
    (Type::Time, 1083, 1183, 8, "time without time zone"),
    (Type::Timestamp, 1114, 1115, 8, "timestamp without time zone"),
    (Type::Timestamptz, 1184, 1185, 8, "timestamp with time zone"),
    (Type::Interval, 1186, 1187, 16, "interval"),
    (Type::Timetz, 1266, 1270, 12, "time with time zone"),
    (Type::Numeric, 1700, 1231, -1, "numeric"),
    (Type::Uuid, 2950, 2951, 16, "uuid"),
];

impl Type {
    pub fn from_oid(oid: u32) -> Type {
        TYPES.iter().find(|it| it.1 == oid).map_or(Type::Other(oid), |it| it.0)
    }

    fn row(self) -> Option<&'static (Type, u32, u32, i16, &'static str)> {
        TYPES.iter().find(|it| it.0 == self)
    }

    pub fn oid(self) -> u32 {
        match (self, self.row()) {
            (Type::Other(oid), _) => oid,
            (_, row) => row.map_or(0, |it| it.1),
        }
    }

    /// The type of the elements of an array type.
    pub fn element_of(array_oid: u32) -> Option<Type> {
        TYPES.iter().find(|it| it.2 == array_oid).map(|it| it.0)
    }

    /// The oid of the type of arrays of this type.
    pub fn array_oid(self) -> Option<u32> {
        self.row().map(|it| it.2)
    }

    /// `pg_type.typlen`.
    pub fn bytes(self) -> i16 {
        self.row().map_or(-1, |it| it.3)
    }

    /// Whether values can be decoded, and so compared, grouped and computed with.
    pub fn is_known(self) -> bool {
        !matches!(self, Type::Other(_))
    }

    /// Whether the order of values is a collation's: byte order is right for collation C alone.
    pub fn is_collated(self) -> bool {
        matches!(self, Type::Text | Type::Varchar | Type::Name | Type::Bpchar)
    }

    pub fn is_text(self) -> bool {
        matches!(self, Type::Text | Type::Varchar | Type::Name)
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Type::Int2 | Type::Int4 | Type::Int8)
    }

    pub fn is_float(self) -> bool {
        matches!(self, Type::Float4 | Type::Float8)
    }

    pub fn is_number(self) -> bool {
        self.is_integer() || self.is_float() || self == Type::Numeric
    }
}

impl fmt::Display for Type {
    /// The name in PostgreSQL's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.row()) {
            (_, Some(row)) => f.write_str(row.4),
            (it, None) => write!(f, "with oid {}", it.oid()),
        }
    }
}

/// How a value stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    #[default]
    Text,
    Binary,
}
