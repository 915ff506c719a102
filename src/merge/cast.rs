//! Casts between numbers, and between numbers and text.

use super::arithmetic::{float_overflow, float_underflow};
use super::error;
use super::numeric::Numeric;
use super::order::without_padding;
use super::types::{Format, Type};
use super::value::Value;
use crate::base::Refusal;

/// Digits that a float has for certain, which is what its cast to numeric keeps.
const FLOAT8_DIGITS: usize = 15;
const FLOAT4_DIGITS: usize = 6;

/// `numeric(precision, scale)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NumericModifier {
    pub precision: i32,
    /// May be negative, or beyond the precision, from version 15 on.
    pub scale: i32,
}

impl NumericModifier {
    /// As `atttypmod` has it.
    pub fn from_type_mod(type_mod: i32) -> Option<NumericModifier> {
        let bits = type_mod.checked_sub(4).filter(|it| *it >= 0)?;
        Some(NumericModifier { precision: bits >> 16 & 0xFFFF, scale: ((bits & 0x7FF) ^ 1024) - 1024 })
    }

    /// As `apply_typmod`.
    fn apply(self, value: &Numeric) -> Result<Numeric, Refusal> {
        if matches!(value, Numeric::NaN) {
            return Ok(Numeric::NaN);
        }
        let refuse = |detail: String| Err(error::out_of_range("numeric field overflow").detail(detail));
        let NumericModifier { precision, scale } = self;
        if !matches!(value, Numeric::Finite(_)) {
            return refuse(format!(
                "A field with precision {precision}, scale {scale} cannot hold an infinite value."
            ));
        }
        let rounded = value.round(scale)?;
        let bound: Numeric = format!("1e{}", precision - scale).parse().unwrap_or(Numeric::PositiveInfinity);
        if rounded.abs() >= bound {
            let power = match precision - scale {
                0 => "1".to_owned(),
                it => format!("10^{it}"),
            };
            return refuse(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute value less than {power}."
            ));
        }
        Ok(rounded)
    }
}

fn overflow(of: Type) -> Refusal {
    error::out_of_range(format!("{of} out of range"))
}

fn integer(of: Type, value: i128) -> Result<Value, Refusal> {
    let out = |_| overflow(of);
    Ok(match of {
        Type::Int2 => Value::Int2(i16::try_from(value).map_err(out)?),
        Type::Int4 => Value::Int4(i32::try_from(value).map_err(out)?),
        _ => Value::Int8(i64::try_from(value).map_err(out)?),
    })
}

fn numeric_to_integer(of: Type, value: &Numeric) -> Result<Value, Refusal> {
    let special = match value {
        Numeric::NaN => "NaN",
        Numeric::Finite(_) => return integer(of, value.to_integer().ok_or_else(|| overflow(of))?),
        _ => "infinity",
    };
    Err(error::unsupported(
        format!("cannot convert {special} to {of}"),
        "leave it out with a WHERE or FILTER clause",
    ))
}

fn float_to_integer(of: Type, value: f64) -> Result<Value, Refusal> {
    let whole = value.round_ties_even();
    // Beyond any integer type already; a cast of a float to i128 saturates.
    if whole.is_nan() || whole.abs() >= 1e19 { Err(overflow(of)) } else { integer(of, whole as i128) }
}

fn narrowed(value: f64) -> Result<f32, Refusal> {
    let narrow = value as f32;
    if narrow.is_infinite() && value.is_finite() {
        return Err(float_overflow());
    }
    if narrow == 0.0 && value != 0.0 { Err(float_underflow()) } else { Ok(narrow) }
}

fn numeric_to_float8(value: &Numeric) -> Result<f64, Refusal> {
    let float = value.to_float8();
    let finite = matches!(value, Numeric::Finite(_));
    if finite && (float.is_infinite() || float == 0.0 && *value != Numeric::zero()) {
        return Err(error::out_of_range(format!("\"{value}\" is out of range for type double precision")));
    }
    Ok(float)
}

fn numeric_to_float4(value: &Numeric) -> Result<f32, Refusal> {
    // Straight from the text: over a double it would be rounded twice.
    let text = value.to_string();
    let float: f32 = text.parse().map_err(|_| error::invalid_text("real", &text))?;
    let finite = matches!(value, Numeric::Finite(_));
    if finite && (float.is_infinite() || float == 0.0 && *value != Numeric::zero()) {
        return Err(error::out_of_range(format!("\"{value}\" is out of range for type real")));
    }
    Ok(float)
}

/// A number as another type of number.
///
/// # Errors
/// 22003 where it has no place there; XX000 where it is no number.
pub(super) fn to_number(value: &Value, to: Type) -> Result<Value, Refusal> {
    if value.type_of() == to {
        return Ok(value.clone());
    }
    Ok(match (value, to) {
        (Value::Int2(_) | Value::Int4(_) | Value::Int8(_), _) => {
            let whole = value.rank().unwrap_or_default();
            match to {
                Type::Int2 | Type::Int4 | Type::Int8 => integer(to, whole)?,
                Type::Numeric => Value::Numeric(Numeric::from(whole)),
                Type::Float4 => Value::Float4(whole as f32),
                Type::Float8 => Value::Float8(whole as f64),
                _ => return Err(no_cast(value, to)),
            }
        }
        (Value::Numeric(it), Type::Int2 | Type::Int4 | Type::Int8) => numeric_to_integer(to, it)?,
        (Value::Numeric(it), Type::Float8) => Value::Float8(numeric_to_float8(it)?),
        (Value::Numeric(it), Type::Float4) => Value::Float4(numeric_to_float4(it)?),
        (Value::Float4(it), Type::Int2 | Type::Int4 | Type::Int8) => float_to_integer(to, (*it).into())?,
        (Value::Float8(it), Type::Int2 | Type::Int4 | Type::Int8) => float_to_integer(to, *it)?,
        (Value::Float4(it), Type::Float8) => Value::Float8((*it).into()),
        (Value::Float8(it), Type::Float4) => Value::Float4(narrowed(*it)?),
        (Value::Float4(it), Type::Numeric) => {
            Value::Numeric(Numeric::from_float((*it).into(), FLOAT4_DIGITS))
        }
        (Value::Float8(it), Type::Numeric) => Value::Numeric(Numeric::from_float(*it, FLOAT8_DIGITS)),
        _ => return Err(no_cast(value, to)),
    })
}

fn no_cast(value: &Value, to: Type) -> Refusal {
    error::inconsistent(format!("no cast from {} to {to}", value.type_of()))
}

/// Whether `cast` knows the way.
pub(super) fn is_castable(from: Type, to: Type) -> bool {
    let printed = |it: Type| {
        it.is_number() || it.is_text() || matches!(it, Type::Bool | Type::Uuid | Type::Oid | Type::Bpchar)
    };
    from == to
        || from.is_number() && to.is_number()
        || printed(from) && matches!(to, Type::Text | Type::Varchar)
        || from.is_text() && to.is_number()
        || matches!((from, to), (Type::Bool, Type::Int4) | (Type::Int4, Type::Bool))
}

/// An explicit cast.
pub(super) fn cast(value: Value, to: Type, modifier: Option<NumericModifier>) -> Result<Value, Refusal> {
    let number = match (&value, to) {
        (_, Type::Text | Type::Varchar) => return to_text(&value),
        (Value::Text(it), _) if to.is_number() => from_text(&String::from_utf8_lossy(it), to)?,
        (Value::Bool(it), Type::Int4) => Value::Int4((*it).into()),
        (Value::Int4(it), Type::Bool) => Value::Bool(*it != 0),
        _ if value.type_of() == to => value,
        _ => to_number(&value, to)?,
    };
    match (number, modifier) {
        (Value::Numeric(it), Some(modifier)) => Ok(Value::Numeric(modifier.apply(&it)?)),
        (it, _) => Ok(it),
    }
}

fn to_text(value: &Value) -> Result<Value, Refusal> {
    let mut text = Vec::new();
    match value {
        Value::Bool(it) => text.extend_from_slice(if *it { b"true" } else { b"false" }),
        Value::Bpchar(it) => text.extend_from_slice(without_padding(it)),
        it => it.encode(Format::Text, &mut text)?,
    }
    Ok(Value::Text(text.into()))
}

fn from_text(text: &str, to: Type) -> Result<Value, Refusal> {
    let invalid = || error::invalid_text(&to.to_string(), text);
    let trimmed = text.trim_matches(|it: char| it.is_ascii_whitespace() || it == '\x0b');
    // Other bases and underscores are read from version 16 on alone.
    if trimmed.contains(['x', 'X', 'o', 'O', 'b', 'B', '_']) {
        return Err(error::unsupported(
            format!("cannot tell how a server reads \"{text}\" as a number"),
            "write it with decimal digits",
        ));
    }
    let out = || error::out_of_range(format!("value \"{text}\" is out of range for type {to}"));
    let float_out = || error::out_of_range(format!("\"{text}\" is out of range for type {to}"));
    let is_zero =
        !trimmed.split(['e', 'E']).next().unwrap_or_default().contains(|it| matches!(it, '1'..='9'));
    let named = trimmed.contains(['n', 'N']);
    Ok(match to {
        Type::Numeric => Value::Numeric(trimmed.parse().map_err(|_| invalid())?),
        Type::Float4 => match trimmed.parse::<f32>().map_err(|_| invalid())? {
            it if !named && (it.is_infinite() || it == 0.0 && !is_zero) => return Err(float_out()),
            it => Value::Float4(it),
        },
        Type::Float8 => match trimmed.parse::<f64>().map_err(|_| invalid())? {
            it if !named && (it.is_infinite() || it == 0.0 && !is_zero) => return Err(float_out()),
            it => Value::Float8(it),
        },
        _ => {
            let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
            if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
                return Err(invalid());
            }
            integer(to, trimmed.parse().map_err(|_| out())?).map_err(|_| out())?
        }
    })
}
