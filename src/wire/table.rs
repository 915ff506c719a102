//! A result that Keyway makes itself: typed columns, each row in the formats that the client asked for.

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::data::{FieldDescription, RowDescription};

use super::tag::BackendTag;

pub const PORTAL_SUSPENDED: &[u8] = b"s\0\0\0\x04";

/// What a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    /// `bigint`.
    Int,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub of: ColumnType,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(String),
    Int(i64),
}

impl ColumnType {
    /// As in `pg_type`: oid and length.
    fn oid_and_length(self) -> (u32, i16) {
        match self {
            ColumnType::Text => (25, -1),
            ColumnType::Int => (20, 8),
        }
    }
}

/// RowDescription. `is_binary` tells which columns will be.
pub fn describe_columns(out: &mut Vec<u8>, columns: &[Column], is_binary: impl Fn(usize) -> bool) {
    let field = |(index, column): (usize, &Column)| {
        let (oid, length) = column.of.oid_and_length();
        let format = i16::from(is_binary(index));
        FieldDescription::new(column.name.to_owned(), 0, 0, oid, length, -1, format)
    };
    let message = RowDescription::new(columns.iter().enumerate().map(field).collect());
    let mut bytes = BytesMut::new();
    // pgwire refuses only messages over its size limits, and no table is that wide.
    if message.encode(&mut bytes).is_ok() {
        out.extend_from_slice(&bytes);
    }
}

/// DataRow. Text is the same bytes in both formats.
pub fn put_row(out: &mut Vec<u8>, values: &[Value], is_binary: impl Fn(usize) -> bool) {
    out.push(BackendTag::DATA_ROW.0);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for (index, value) in values.iter().enumerate() {
        match value {
            Value::Null => out.extend_from_slice(&(-1i32).to_be_bytes()),
            Value::Text(text) => put_value(out, text.as_bytes()),
            Value::Int(number) if is_binary(index) => put_value(out, &number.to_be_bytes()),
            Value::Int(number) => put_value(out, number.to_string().as_bytes()),
        }
    }
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn put_value(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_the_format_asked_for() {
        let values = [Value::Text("x".to_owned()), Value::Int(-2), Value::Null];
        let mut out = Vec::new();
        put_row(&mut out, &values, |_| false);
        assert_eq!(out, b"D\0\0\0\x15\0\x03\0\0\0\x01x\0\0\0\x02-2\xff\xff\xff\xff");
        out.clear();
        put_row(&mut out, &values, |_| true);
        let expect =
            b"D\0\0\0\x1b\0\x03\0\0\0\x01x\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff\xff";
        assert_eq!(out, expect);
    }

    #[test]
    fn columns_say_their_types_and_formats() {
        let columns = [Column { name: "a", of: ColumnType::Text }, Column { name: "b", of: ColumnType::Int }];
        let mut out = Vec::new();
        describe_columns(&mut out, &columns, |index| index == 1);
        let shapes = crate::wire::column_shapes(&out).unwrap();
        assert_eq!(shapes.len(), 2);
        assert!(out.ends_with(b"b\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\x01"));
    }
}
