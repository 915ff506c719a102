use proptest::prelude::*;

use super::super::row::find_places;
use super::*;
use crate::wire::RowWriter;

/// The key of a row with this value alone, and the row's message.
fn key(of: Type, format: Format, value: &Value) -> (Key, Vec<u8>) {
    let mut message = Vec::new();
    let mut row = RowWriter::new(&mut message, 1);
    row.value_with(|out| value.encode(format, out)).unwrap();
    row.finish();
    let mut places = Vec::new();
    find_places(&message, 1, &mut places).unwrap();
    let key = Key::of(Row { message: &message, places: &places }, 0, Column { of, format }).unwrap();
    (key, message)
}

/// Keys of wire bytes are in the order of the values that they stand for, and equal in their canonical bytes
/// where these are equal.
fn agrees(a: &Value, b: &Value) {
    let want = a.compare(b).unwrap();
    for format in [Format::Text, Format::Binary] {
        let ((x, xs), (y, ys)) = (key(a.type_of(), format, a), key(b.type_of(), format, b));
        assert_eq!(x.compare(&xs, &y, &ys), want, "{a:?} {b:?} {format:?}");
        let canonical = |key: &Key, message: &[u8]| {
            let mut out = Vec::new();
            key.put_canonical(message, &mut out);
            out
        };
        assert_eq!(canonical(&x, &xs) == canonical(&y, &ys), want.is_eq(), "{a:?} {b:?} {format:?}");
    }
}

proptest! {
    #[test]
    fn keys_agree_with_values(
        ints in any::<(i64, i64)>(),
        small in (-3i32..3, -3i32..3),
        floats in any::<(f64, f64)>(),
        texts in ("[ -~]{0,6}", "[ -~]{0,6}"),
        bytes in any::<(u128, u128)>(),
        zones in (0i64..86_400_000_000, -57_599i32..57_600),
    ) {
        agrees(&Value::Int8(ints.0), &Value::Int8(ints.1));
        agrees(&Value::Int4(small.0), &Value::Int4(small.1));
        agrees(&Value::Date(small.0), &Value::Date(small.1));
        agrees(&Value::Timestamp(small.0.into()), &Value::Timestamp(small.1.into()));
        agrees(&Value::Float8(floats.0), &Value::Float8(floats.1));
        agrees(&Value::Float8(floats.0), &Value::Float8(f64::NAN));
        agrees(&Value::Float4(floats.0 as f32), &Value::Float4(floats.1 as f32));
        agrees(&Value::Numeric(Numeric::from(ints.0)), &Value::Numeric(Numeric::from(i64::from(small.0))));
        let text = |it: &str| -> Box<[u8]> { it.as_bytes().into() };
        agrees(&Value::Text(text(&texts.0)), &Value::Text(text(&texts.1)));
        agrees(&Value::Bpchar(text(&texts.0)), &Value::Bpchar(text(&format!("{} ", texts.0))));
        agrees(&Value::Bytea(text(&texts.0)), &Value::Bytea(text(&texts.1)));
        agrees(&Value::Uuid(bytes.0.to_be_bytes()), &Value::Uuid(bytes.1.to_be_bytes()));
        agrees(&Value::Timetz(zones.0, zones.1), &Value::Timetz(zones.0, -zones.1));
    }
}

#[test]
fn nulls_go_where_the_key_says() {
    let rows = [(Keys::from_elem(Key::Null, 1), b""), (Keys::from_elem(Key::Int(1), 1), b"")];
    let compare = |sort: SortKey| compare_keys(&[sort], (&rows[0].0, rows[0].1), (&rows[1].0, rows[1].1));
    assert_eq!(compare(SortKey::ascending(0)), Ordering::Greater);
    assert_eq!(compare(SortKey::ascending(0).descending()), Ordering::Less);
    assert_eq!(compare(SortKey { descending: true, ..SortKey::ascending(0) }), Ordering::Greater);
}

#[test]
fn text_is_ordered_where_its_collation_is_c_alone() {
    assert_eq!(check_order(Type::Text, Collation::Deterministic).unwrap_err().state().0, "0A000");
    assert_eq!(check_order(Type::Other(3802), Collation::Bytes).unwrap_err().state().0, "0A000");
    assert!(check_order(Type::Text, Collation::Bytes).is_ok());
    assert_eq!(check_equality(Type::Text, Collation::Unknown).unwrap_err().state().0, "0A000");
    assert!(check_equality(Type::Text, Collation::Deterministic).is_ok());
    assert!(check_equality(Type::Uuid, Collation::Unknown).is_ok());
    assert!(check_order(Type::Int4, Collation::Deterministic).is_ok());
}
