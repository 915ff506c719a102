use proptest::prelude::*;

use super::*;

/// Text, and its binary form as hexadecimal digits, as `*_send` gives it.
#[test]
fn text_and_binary_are_one_value() {
    let check = |of: Type, text: &str, binary: &str| {
        let binary = hex(binary).unwrap();
        let from_text = Value::decode(of, Format::Text, text.as_bytes()).unwrap();
        let from_binary = Value::decode(of, Format::Binary, &binary).unwrap();
        assert_eq!(from_text.compare(&from_binary), Some(Ordering::Equal), "{of} {text}");
        let mut out = Vec::new();
        from_text.encode(Format::Binary, &mut out).unwrap();
        assert_eq!(out, *binary, "{of} {text}");
        if !matches!(of, Type::Timestamptz) {
            assert_eq!(from_binary.text().unwrap(), text, "{of}");
        }
        assert_eq!(from_text.text().unwrap(), text, "{of}");
    };
    check(Type::Bool, "t", "01");
    check(Type::Char, "\\200", "80");
    check(Type::Int2, "-2", "fffe");
    check(Type::Int4, "7", "00000007");
    check(Type::Int8, "-9223372036854775808", "8000000000000000");
    check(Type::Oid, "4294967295", "ffffffff");
    check(Type::Float4, "1.5", "3fc00000");
    check(Type::Float8, "-Infinity", "fff0000000000000");
    check(Type::Numeric, "1.50", "00020000000000020001 1388".replace(' ', "").as_str());
    check(Type::Text, "ab", "6162");
    check(Type::Bpchar, "ab  ", "61622020");
    check(Type::Bytea, "\\x00ff", "00ff");
    check(Type::Date, "2000-01-02", "00000001");
    check(Type::Date, "4713-01-01 BC", "ffda97cd");
    check(Type::Date, "infinity", "7fffffff");
    check(Type::Time, "24:00:00", "000000141dd76000");
    check(Type::Timetz, "00:00:01-05:30", "00000000000f424000004d58");
    check(Type::Timestamp, "1999-12-31 23:59:59.5", "fffffffffff85ee0");
    check(Type::Timestamptz, "2000-01-01 02:00:00.000001+02", "0000000000000001");
    check(Type::Interval, "1 year 2 mons -3 days +00:00:01", "00000000000f4240fffffffd0000000e");
    check(Type::Interval, "-00:00:00.5", "fffffffffff85ee00000000000000000");
    check(Type::Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11");
}

#[test]
fn other_styles_are_refused_and_never_misread() {
    for (of, text) in [
        (Type::Date, "01/02/2026"),
        (Type::Date, "01-02-2026"),
        (Type::Date, "31.01.2026"),
        (Type::Timestamp, "Sat Jan 31 12:00:00 2026"),
        (Type::Timestamp, "31/01/2026 12:00:00"),
        (Type::Timestamptz, "2026-01-31 12:00:00"),
        (Type::Interval, "P1Y2M"),
        (Type::Interval, "@ 1 year"),
        (Type::Interval, "1-2"),
        (Type::Interval, "3 4:05:06"),
        (Type::Bytea, "abc"),
        (Type::Other(600), "(1,2)"),
    ] {
        let refusal = Value::decode(of, Format::Text, text.as_bytes()).unwrap_err();
        assert_eq!(refusal.state().0, "0A000", "{of} {text}");
        assert!(refusal.hint_text().is_some());
    }
    for (of, bytes) in
        [(Type::Int4, &b"\0\0"[..]), (Type::Timetz, b"\0"), (Type::Numeric, b"\0\x01"), (Type::Bool, b"")]
    {
        assert_eq!(Value::decode(of, Format::Binary, bytes).unwrap_err().state().0, "08P01", "{of}");
    }
}

#[test]
fn orders_are_postgres_own() {
    let check = |of: Type, texts: &[&str]| {
        let values: Vec<Value> =
            texts.iter().map(|it| Value::decode(of, Format::Text, it.as_bytes()).unwrap()).collect();
        for pair in values.windows(2) {
            assert_eq!(pair[0].compare(&pair[1]), Some(Ordering::Less), "{of} {pair:?}");
        }
    };
    check(Type::Bool, &["f", "t"]);
    check(Type::Float8, &["-Infinity", "-1", "-1e-300", "0", "1e-300", "1", "Infinity", "NaN"]);
    check(Type::Numeric, &["-Infinity", "-1.01", "-1", "0", "0.001", "1.0", "10", "Infinity", "NaN"]);
    check(
        Type::Date,
        &["-infinity", "4713-01-01 BC", "0001-01-01", "2000-01-01", "5874897-12-31", "infinity"],
    );
    check(Type::Timetz, &["00:00:00+02", "00:00:00+01", "12:00:00+01", "11:00:00+00", "10:00:00-01"]);
    check(Type::Interval, &["-1 days", "00:00:00", "29 days 23:59:59", "1 mon", "1 mon 00:00:01", "1 year"]);
    check(Type::Bpchar, &["", "a", "a b", "ab"]);
    check(Type::Uuid, &["00000000-0000-0000-0000-000000000001", "80000000-0000-0000-0000-000000000000"]);
    let equal = |of: Type, a: &str, b: &str| {
        let value = |it: &str| Value::decode(of, Format::Text, it.as_bytes()).unwrap();
        assert_eq!(value(a).compare(&value(b)), Some(Ordering::Equal), "{a} {b}");
        let canonical = |it: &str| {
            let mut out = Vec::new();
            value(it).put_canonical(&mut out);
            out
        };
        assert_eq!(canonical(a), canonical(b));
    };
    equal(Type::Float8, "0", "-0");
    equal(Type::Float4, "NaN", "NaN");
    equal(Type::Numeric, "1.0", "1.000");
    equal(Type::Interval, "1 mon", "30 days");
    equal(Type::Bpchar, "a", "a   ");
}

proptest! {
    #[test]
    fn times_are_written_and_read_back(micros in -211_813_488_000_000_000i64..9_223_371_331_200_000_000, east in -57_599i32..57_600) {
        let text = datetime::timestamp_text(micros, None);
        prop_assert_eq!(datetime::parse_timestamp(&text), Some((micros, None)), "{}", text);
        let text = datetime::timestamp_text(micros, Some(east));
        let zoned = datetime::parse_timestamp(&text);
        prop_assert_eq!(zoned, Some((micros, Some(east))), "{}", text);
    }

    #[test]
    fn intervals_are_written_and_read_back(months in any::<i32>(), days in any::<i32>(), micros in any::<i64>()) {
        let interval = Interval { months, days, micros };
        // The largest has no positive counterpart to be read by.
        if micros != i64::MIN {
            prop_assert_eq!(Interval::parse(&interval.text()), Some(interval));
        }
    }

    #[test]
    fn days_go_round(days in -2_451_545i32..2_145_031_948) {
        prop_assert_eq!(datetime::parse_date(&datetime::date_text(days)), Some(days));
    }
}
