use proptest::prelude::*;

use super::*;

fn numeric(text: &str) -> Numeric {
    text.parse().unwrap()
}

fn shown(result: Result<Numeric, Refusal>) -> String {
    result.map_or_else(|it| format!("{} {}", it.state().0, it.message()), |it| it.to_string())
}

#[test]
fn texts_are_kept_with_their_scale() {
    for text in ["0", "0.00", "1", "-1.50", "10000", "100000000.00000001", "0.000012300", "NaN", "-Infinity"]
    {
        assert_eq!(numeric(text).to_string(), text);
        let mut binary = Vec::new();
        numeric(text).put_binary(&mut binary);
        assert_eq!(Numeric::from_binary(&binary).unwrap().to_string(), text);
    }
    for (text, want) in
        [("1e3", "1000"), ("1.5e-3", "0.0015"), (" +.5 ", "0.5"), ("-0.0", "0.0"), ("1.e1", "10")]
    {
        assert_eq!(numeric(text).to_string(), want);
    }
    for text in ["", ".", "-", "1_000", "0x10", "1e", "1 2", "1e999999999"] {
        assert!(text.parse::<Numeric>().is_err(), "{text}");
    }
    assert!(Numeric::from_binary(&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]).is_none(), "a digit of 10000");
    assert!(Numeric::from_binary(&[0, 1, 0, 0, 0, 0, 0, 0]).is_none(), "too few digits");
}

/// Each line is what `SELECT a op b` answers in PostgreSQL.
#[test]
fn operators_give_postgres_digits_and_scale() {
    type Op = fn(&Numeric, &Numeric) -> Result<Numeric, Refusal>;
    let check = |a: &str, op: Op, b: &str, want: &str| {
        assert_eq!(shown(op(&numeric(a), &numeric(b))), want, "{a}, {b}");
    };
    check("1.5", Numeric::add, "2.50", "4.00");
    check("9999.9999", Numeric::add, "0.0001", "10000.0000");
    check("1", Numeric::sub, "1.000", "0.000");
    check("-1.5", Numeric::mul, "2.50", "-3.750");
    check("1", Numeric::div, "3", "0.33333333333333333333");
    check("10", Numeric::div, "3", "3.3333333333333333");
    check("2", Numeric::div, "3", "0.66666666666666666667");
    check("100000", Numeric::div, "3", "33333.333333333333");
    check("1", Numeric::div, "0.00", "22012 division by zero");
    check("7.5", Numeric::rem, "-2", "1.5");
    check("-7.5", Numeric::rem, "2", "-1.5");
    check("7", Numeric::rem, "0", "22012 division by zero");
    check("Infinity", Numeric::add, "-Infinity", "NaN");
    check("Infinity", Numeric::mul, "0", "NaN");
    check("Infinity", Numeric::div, "-2", "-Infinity");
    check("5", Numeric::div, "Infinity", "0");
    check("5.5", Numeric::rem, "Infinity", "5.5");
    check("NaN", Numeric::div, "0", "NaN");
}

#[test]
fn rounding_is_half_away_from_zero_at_any_place() {
    let check = |text: &str, scale: i32, want: &str| {
        assert_eq!(shown(numeric(text).round(scale)), want, "round({text}, {scale})");
    };
    check("2.5", 0, "3");
    check("-2.5", 0, "-3");
    check("0.4999", 0, "0");
    check("9999.99995", 4, "10000.0000");
    check("1234.5", -2, "1200");
    check("5000", -4, "10000");
    check("4999", -4, "0");
    check("1.5", 3, "1.500");
    assert_eq!(numeric("-1.59").trunc(1).to_string(), "-1.5");
    assert_eq!(shown(numeric("-1.01").floor()), "-2");
    assert_eq!(shown(numeric("-1.99").ceil()), "-1");
    assert_eq!(shown(numeric("1.000").ceil()), "1");
}

#[test]
fn deviations_follow_numeric_stddev_internal() {
    // SELECT var_samp(x), stddev_samp(x), var_pop(x) FROM (VALUES (1), (2), (4)) t (x)
    let of = |sample, root| {
        let (sum, squares) = (numeric("7"), numeric("21"));
        Numeric::deviation(3, &sum, &squares, sample, root).unwrap().unwrap().to_string()
    };
    assert_eq!(of(true, false), "2.3333333333333333");
    assert_eq!(of(true, true), "1.5275252316519467");
    assert_eq!(of(false, false), "1.5555555555555556");
    let one = numeric("5");
    assert_eq!(Numeric::deviation(1, &one, &one, true, false).unwrap(), None);
    assert_eq!(Numeric::deviation(1, &one, &numeric("25"), false, true).unwrap(), Some(Numeric::zero()));
}

#[test]
fn floats_are_printed_as_float8out_does() {
    for (value, want) in [
        (0.1, "0.1"),
        (1e15, "1e+15"),
        (123_456_789_012_345.0, "123456789012345"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (-1.5e300, "-1.5e+300"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
        (-0.0, "-0"),
    ] {
        assert_eq!(float_text(value, 15), want);
    }
    assert_eq!(float_text(1e6f32, 6), "1e+06");
    assert_eq!(float_text(123_456.0f32, 6), "123456");
    assert_eq!(float_text(0.1f32, 6), "0.1");
}

fn any_numeric() -> impl Strategy<Value = Numeric> {
    let finite = "-?[0-9]{1,30}(\\.[0-9]{1,20})?".prop_map(|it| numeric(&it));
    prop_oneof![
        20 => finite,
        1 => Just(Numeric::NaN),
        1 => Just(Numeric::PositiveInfinity),
        1 => Just(Numeric::NegativeInfinity),
    ]
}

proptest! {
    #[test]
    fn binary_and_text_give_the_value_back(value in any_numeric()) {
        let mut binary = Vec::new();
        value.put_binary(&mut binary);
        prop_assert_eq!(Numeric::from_binary(&binary).unwrap().to_string(), value.to_string());
        prop_assert_eq!(numeric(&value.to_string()), value);
    }

    #[test]
    fn sums_and_products_are_those_of_integers(a in any::<i64>(), b in any::<i64>()) {
        let (x, y) = (Numeric::from(a), Numeric::from(b));
        let (a, b) = (i128::from(a), i128::from(b));
        prop_assert_eq!(shown(x.add(&y)), (a + b).to_string());
        prop_assert_eq!(shown(x.sub(&y)), (a - b).to_string());
        prop_assert_eq!(shown(x.mul(&y)), (a * b).to_string());
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        if b != 0 {
            prop_assert_eq!(shown(x.rem(&y)), (a % b).to_string());
            prop_assert_eq!(x.div(&y).unwrap().trunc(0).to_integer(), Some(a / b));
        }
    }

    #[test]
    fn quotient_and_remainder_make_the_dividend(a in any_numeric(), b in any_numeric()) {
        if let (Numeric::Finite(x), Numeric::Finite(y)) = (&a, &b) && !y.is_zero() {
            let whole = Numeric::Finite(x.quotient_for_test(y));
            let back = whole.mul(&b).unwrap().add(&a.rem(&b).unwrap()).unwrap();
            prop_assert_eq!(back, a);
        }
    }

    #[test]
    fn shortest_floats_read_back(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let text = float_text(value, 15);
        let back: f64 = text.parse().unwrap();
        prop_assert!(back == value || value.is_nan() && back.is_nan(), "{}", text);
    }
}
