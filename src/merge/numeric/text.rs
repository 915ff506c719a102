//! Numbers as text: what PostgreSQL prints and, of that, what it reads.

use std::fmt;
use std::str::FromStr;

use super::{DIGIT_DIGITS, Decimal, Digits, Numeric, SCALE_MAX, WEIGHT_MAX};

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = match self {
            Numeric::NaN => return f.write_str("NaN"),
            Numeric::PositiveInfinity => return f.write_str("Infinity"),
            Numeric::NegativeInfinity => return f.write_str("-Infinity"),
            Numeric::Finite(it) => it,
        };
        if it.negative {
            f.write_str("-")?;
        }
        write!(f, "{}", it.digit(it.weight.max(0)))?;
        for weight in (0..it.weight).rev() {
            write!(f, "{:04}", it.digit(weight))?;
        }
        if it.scale > 0 {
            let count = (it.scale + DIGIT_DIGITS - 1) / DIGIT_DIGITS;
            let decimals: String = (1..=count).map(|at| format!("{:04}", it.digit(-at))).collect();
            write!(f, ".{}", decimals.get(..it.scale as usize).unwrap_or(&decimals))?;
        }
        Ok(())
    }
}

/// As many digits tell any two doubles apart.
const DIGITS_MAX: usize = 17;

/// Not the text of a numeric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNumeric;

impl FromStr for Numeric {
    type Err = NotNumeric;

    /// The decimal forms of `numeric_in`, blanks around. What PostgreSQL takes from version 16 on alone,
    /// other bases and underscores, is not taken.
    fn from_str(text: &str) -> Result<Numeric, NotNumeric> {
        let text = text.trim_matches(|it: char| it.is_ascii_whitespace() || it == '\x0b');
        let (negative, bare) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if text.eq_ignore_ascii_case("nan") {
            return Ok(Numeric::NaN);
        }
        if bare.eq_ignore_ascii_case("infinity") || bare.eq_ignore_ascii_case("inf") {
            return Ok(Numeric::infinity(if negative { -1 } else { 1 }));
        }
        let (mantissa, exponent) = match bare.find(['e', 'E']) {
            Some(at) => (&bare[..at], bare[at + 1..].parse::<i32>().map_err(|_| NotNumeric)?),
            None => (bare, 0),
        };
        let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && decimals.is_empty()
            || !whole.bytes().chain(decimals.bytes()).all(|it| it.is_ascii_digit())
        {
            return Err(NotNumeric);
        }
        // Beyond what any value can have, before anything is made of that size.
        let limit = (WEIGHT_MAX + 1) * DIGIT_DIGITS;
        if exponent.abs() > limit || whole.len() + decimals.len() > 2 * limit as usize {
            return Err(NotNumeric);
        }
        let scale = (decimals.len() as i32 - exponent).max(0);
        let value = Decimal::new(negative, 0, scale, Digits::new());
        let value = value.with_decimal_digits(negative, whole, decimals, exponent);
        if value.scale > SCALE_MAX || value.weight > WEIGHT_MAX {
            return Err(NotNumeric);
        }
        Ok(Numeric::Finite(value))
    }
}

impl Decimal {
    fn with_decimal_digits(self, negative: bool, whole: &str, decimals: &str, exponent: i32) -> Decimal {
        // Decimal places before the point; the first digit is filled up with zeros in front.
        let places = whole.len() as i32 + exponent;
        let weight = (places + DIGIT_DIGITS - 1).div_euclid(DIGIT_DIGITS) - 1;
        let lead = ((weight + 1) * DIGIT_DIGITS - places) as usize;
        let mut digits = Digits::new();
        let (mut digit, mut filled) = (0, lead);
        for byte in whole.bytes().chain(decimals.bytes()) {
            digit = digit * 10 + u16::from(byte - b'0');
            filled += 1;
            if filled == DIGIT_DIGITS as usize {
                digits.push(digit);
                (digit, filled) = (0, 0);
            }
        }
        if filled > 0 {
            digits.push(digit * 10u16.pow((DIGIT_DIGITS as usize - filled) as u32));
        }
        Decimal::new(negative, weight, self.scale, digits)
    }
}

impl Numeric {
    /// The nearest double, as the cast does it: through text.
    pub(in crate::merge) fn to_float8(&self) -> f64 {
        match self {
            Numeric::NaN => f64::NAN,
            Numeric::PositiveInfinity => f64::INFINITY,
            Numeric::NegativeInfinity => f64::NEG_INFINITY,
            Numeric::Finite(_) => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }

    /// As `float8_numeric` and `float4_numeric`: of 15 or 6 significant digits.
    pub(in crate::merge) fn from_float(value: f64, significant: usize) -> Numeric {
        if value.is_nan() {
            return Numeric::NaN;
        }
        if value.is_infinite() {
            return Numeric::infinity(if value < 0.0 { -1 } else { 1 });
        }
        // `%g` leaves zeros at the end out.
        let text = format!("{value:.*e}", significant - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        format!("{mantissa}e{exponent}").parse().unwrap_or(Numeric::NaN)
    }
}

/// The decimal digits of a finite float and its exponent, as in `d.ddde±x`: the shortest that read back, of
/// these the nearest, of two as near the even one, and never one on the very edge between two floats
/// (`acceptBounds` in d2s.c).
fn shortest<F>(value: F) -> (String, i32)
where
    F: fmt::LowerExp + FromStr + PartialEq + Copy,
{
    let split = |text: String| {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        (mantissa.replace('.', ""), exponent.parse::<i32>().unwrap_or(0))
    };
    let reads = |digits: &str, exponent: i32| {
        let text = format!("{}.{}e{exponent}", &digits[..1], &digits[1..]);
        text.parse::<F>().is_ok_and(|it| it == value)
    };
    // On an edge, a hair to one of the sides is another float.
    let inside = |digits: &str, exponent: i32| {
        let hair = "0".repeat(60);
        let below: Option<String> = digits.parse::<u64>().ok().filter(|it| *it > 1).map(|it| {
            let less = (it - 1).to_string();
            format!("{less:0>width$}{}", "9".repeat(60), width = digits.len())
        });
        reads(digits, exponent)
            && reads(&format!("{digits}{hair}1"), exponent)
            && below.is_none_or(|it| reads(&it, exponent))
    };
    let first = split(format!("{value:e}"));
    // Of as many digits the rounded one is nearer, or as near and even; it may lie outside at a power of two.
    let tried = (first.0.len()..=DIGITS_MAX).map(|count| split(format!("{value:.*e}", count - 1)));
    let (digits, exponent) = match tried.clone().next().filter(|it| inside(&it.0, it.1)) {
        Some(it) => it,
        None if inside(&first.0, first.1) => first,
        None => tried.skip(1).find(|it| inside(&it.0, it.1)).unwrap_or(first),
    };
    let trimmed = digits.trim_end_matches('0');
    (if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }, exponent)
}

/// As `float8out` and `float4out` with `extra_float_digits` of 1 or more, the default: the shortest text that
/// reads back. Numbers of up to `fixed_digits` digits before the point are written without exponent.
pub(in crate::merge) fn float_text<F>(value: F, fixed_digits: i32) -> String
where
    F: fmt::LowerExp + FromStr + PartialEq + Copy + Into<f64> + std::ops::Neg<Output = F>,
{
    let wide: f64 = value.into();
    if wide.is_nan() {
        return "NaN".to_owned();
    }
    let sign = if wide.is_sign_negative() { "-" } else { "" };
    if wide.is_infinite() {
        return format!("{sign}Infinity");
    }
    if wide == 0.0 {
        return format!("{sign}0");
    }
    let (digits, exponent) = shortest(if sign.is_empty() { value } else { -value });
    let count = digits.len() as i32;
    if !(-4..fixed_digits).contains(&exponent) {
        let point = if count > 1 { "." } else { "" };
        let of = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{}{point}{}e{of}{:02}", &digits[..1], &digits[1..], exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    if count <= exponent + 1 {
        return format!("{sign}{digits}{}", "0".repeat((exponent + 1 - count) as usize));
    }
    let (whole, decimals) = digits.split_at(exponent as usize + 1);
    format!("{sign}{whole}.{decimals}")
}
