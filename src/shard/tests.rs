//! Every spelling of a value is one key, for each type.

use proptest::prelude::*;

use super::*;

const COMPARE: Usage = Usage { purpose: Purpose::Compare, utc: true };
const STORE: Usage = Usage { purpose: Purpose::Store, utc: true };

/// One map for each type, so that a place stands for the value.
fn map(column: KeyColumn) -> Map {
    let slots = (0..4096).map(|it| crate::base::ShardId(it as u16)).collect();
    Map::hash("m", &[column], HashFunction::Xxh3, slots).unwrap()
}

fn one_place(column: &str, texts: &[(u32, String)], binaries: &[(u32, Vec<u8>)]) {
    let column: KeyColumn = column.parse().unwrap();
    let map = map(column);
    let mut places = Vec::new();
    for usage in [COMPARE, STORE] {
        let texts = texts.iter().map(|(oid, it)| column.of_text(*oid, it, usage));
        let binaries = binaries.iter().map(|(oid, it)| column.of_binary(*oid, it, usage));
        places.extend(texts.chain(binaries).map(|it| map.locate(&it.unwrap().unwrap()).unwrap()));
    }
    assert!(places.windows(2).all(|it| it[0] == it[1]), "{column}: {texts:?} {binaries:?} {places:?}");
}

/// The binary form of a whole numeric.
fn numeric(value: i128) -> Vec<u8> {
    let (mut rest, mut digits) = (value.unsigned_abs(), Vec::new());
    while rest > 0 {
        digits.insert(0, (rest % 10_000) as u16);
        rest /= 10_000;
    }
    let sign = if value < 0 { 0x4000 } else { 0 };
    let head = [digits.len() as u16, (digits.len() as u16).wrapping_sub(1), sign, 0];
    head.iter().chain(&digits).flat_map(|it| it.to_be_bytes()).collect()
}

proptest! {
    #[test]
    fn integers(value: i16, zeros in 0usize..6) {
        let sign = if value < 0 { "-" } else { "" };
        let padded = format!(" {sign}{}{}\t", "0".repeat(zeros), value.unsigned_abs());
        let (wide, plain) = (i64::from(value), value.to_string());
        let texts = [
            (0, padded.clone()), (705, padded.clone()), (20, padded.clone()), (21, padded.clone()), (23, padded),
            (1700, format!("{plain}.00")), (1700, format!("{plain}0e-1")), (0, plain),
        ];
        let binaries = [
            (21, value.to_be_bytes().to_vec()), (23, i32::from(value).to_be_bytes().to_vec()),
            (20, wide.to_be_bytes().to_vec()), (1700, numeric(wide.into())),
        ];
        for column in ["smallint", "integer", "bigint", "numeric", "numeric(20,0)"] {
            one_place(column, &texts, &binaries);
        }
    }

    #[test]
    fn numerics(value: i128, trailing in 0usize..5) {
        let value = value / 10;
        let zeros = "0".repeat(trailing);
        let texts = [(0, value.to_string()), (1700, format!(" {value}.{zeros}")), (0, format!("{value}{zeros}e-{trailing}"))];
        one_place("numeric", &texts, &[(1700, numeric(value)), (0, numeric(value))]);
    }

    #[test]
    fn texts(value in "\\PC{0,20}") {
        let bare = value.trim_end_matches(' ').to_owned();
        let binaries = [(25, bare.clone().into_bytes()), (0, bare.clone().into_bytes())];
        for column in ["text", "varchar", "varchar(40)", "char(40)", "bpchar"] {
            one_place(column, &[(0, bare.clone()), (25, bare.clone()), (1043, bare.clone())], &binaries);
        }
        let padded = format!("{bare}   ");
        one_place("char(40)", &[(0, bare.clone()), (0, padded.clone()), (1042, padded)], &[(1042, bare.into_bytes())]);
    }

    #[test]
    fn uuids(value: [u8; 16]) {
        let hex: String = value.iter().map(|it| format!("{it:02x}")).collect();
        let texts = [(0, hex.clone()), (2950, hex.to_uppercase()), (0, format!("{{{hex}}}")), (0, KeyValue::Uuid(value).to_string())];
        one_place("uuid", &texts, &[(0, value.to_vec()), (2950, value.to_vec())]);
    }

    #[test]
    fn byteas(value in prop::collection::vec(any::<u8>(), 0..40)) {
        let escaped: String = value.iter().map(|it| format!("\\{it:03o}")).collect();
        let texts = [(0, KeyValue::Bytes(value.clone().into()).to_string()), (17, escaped)];
        one_place("bytea", &texts, &[(0, value.clone()), (17, value)]);
    }

    #[test]
    fn times(days in -700_000i32..2_900_000, micros in 0i64..86_400_000_000) {
        let date = KeyValue::Days(days).to_string();
        let midnight = i64::from(days) * 86_400_000_000;
        let big_endian = |it: i64| it.to_be_bytes().to_vec();
        one_place(
            "date",
            &[(0, date.clone()), (1082, date.clone()), (1114, format!("{date} 00:00")), (1184, format!("{date}T00:00Z"))],
            &[(1082, days.to_be_bytes().to_vec()), (1114, big_endian(midnight)), (1184, big_endian(midnight))],
        );
        let instant = midnight + micros;
        let text = KeyValue::Micros(instant).to_string();
        for (column, oid) in [("timestamp", 1114), ("timestamptz", 1184)] {
            one_place(column, &[(0, text.clone()), (oid, text.clone())], &[(oid, big_endian(instant)), (0, big_endian(instant))]);
        }
        one_place("timestamp", &[(0, date.clone()), (1082, date)], &[(1082, days.to_be_bytes().to_vec()), (1114, big_endian(midnight))]);
    }

    #[test]
    fn no_bytes_make_it_panic(text in "\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..30)) {
        for name in ["bigint", "numeric", "boolean", "varchar(3)", "char(3)", "uuid", "bytea", "date", "timestamptz(3)"] {
            let column: KeyColumn = name.parse().unwrap();
            for oid in [0, 16, 17, 20, 25, 1042, 1082, 1114, 1184, 1700, 2950, 99_999] {
                for usage in [COMPARE, STORE] {
                    let _ = column.of_text(oid, &text, usage);
                    let _ = column.of_binary(oid, &bytes, usage);
                }
            }
        }
    }
}

#[test]
fn types_are_read_as_create_table_has_them() {
    for (text, want) in [
        ("BIGINT", "bigint"),
        ("int", "integer"),
        ("decimal(10, 2)", "numeric"),
        ("character varying ( 20 )", "character varying(20)"),
        ("char", "character(1)"),
        ("bpchar", "character"),
        ("char(5)", "character(5)"),
        ("timestamp(3) with time zone", "timestamp(3) with time zone"),
        ("timestamp (0)", "timestamp(0) without time zone"),
        ("enum", "enum"),
    ] {
        assert_eq!(text.parse::<KeyColumn>().map(|it| it.to_string()), Ok(want.to_owned()), "{text}");
    }
    for text in ["bigint(3)", "varchar(0)", "timestamp(7)", "text(3)", "varchar(", "char(x)", "uuid()"] {
        assert_eq!(text.parse::<KeyColumn>(), Err(BadType::Modifier), "{text}");
    }
    for text in ["", "float8", "money", "bigint bigint", "varchar (3) x"] {
        assert_eq!(text.parse::<KeyColumn>(), Err(BadType::Unknown), "{text}");
    }
}
