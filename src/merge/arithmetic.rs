//! PostgreSQL's operators on numbers, with its errors (int.c, int8.c, float.c, numeric.c).

use super::cast::to_number;
use super::error;
use super::numeric::Numeric;
use super::types::Type;
use super::value::Value;
use crate::base::Refusal;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// `%`, of no floats.
    Modulo,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Modulo => "%",
        }
    }
}

/// How wide a number type is; casts go up without being asked for.
fn width(of: Type) -> Option<u8> {
    [Type::Int2, Type::Int4, Type::Int8, Type::Numeric, Type::Float4, Type::Float8]
        .iter()
        .position(|it| *it == of)
        .map(|it| it as u8)
}

/// The type that an operator makes of two numbers: real stays only with real.
pub(super) fn operator_type(a: Type, b: Type) -> Option<Type> {
    let wider = common_number(a, b)?;
    Some(if wider == Type::Float4 && a != b { Type::Float8 } else { wider })
}

/// The type that CASE, COALESCE and the like make of two numbers (`select_common_type`).
pub(super) fn common_number(a: Type, b: Type) -> Option<Type> {
    Some(if width(a)? >= width(b)? { a } else { b })
}

fn overflow(of: Type) -> Refusal {
    error::out_of_range(format!("{of} out of range"))
}

/// # Errors
/// 22003 and 22012, as PostgreSQL; XX000 where a side is no number.
pub(super) fn apply(operator: Operator, a: &Value, b: &Value) -> Result<Value, Refusal> {
    let of = operator_type(a.type_of(), b.type_of())
        .ok_or_else(|| error::inconsistent("an operator was given what is no number"))?;
    Ok(match (to_number(a, of)?, to_number(b, of)?) {
        (Value::Int2(a), Value::Int2(b)) => {
            let value = integer(operator, a.into(), b.into(), of)?;
            Value::Int2(i16::try_from(value).map_err(|_| overflow(of))?)
        }
        (Value::Int4(a), Value::Int4(b)) => {
            let value = integer(operator, a.into(), b.into(), of)?;
            Value::Int4(i32::try_from(value).map_err(|_| overflow(of))?)
        }
        (Value::Int8(a), Value::Int8(b)) => Value::Int8(integer(operator, a, b, of)?),
        (Value::Numeric(a), Value::Numeric(b)) => Value::Numeric(numeric(operator, &a, &b)?),
        (Value::Float4(a), Value::Float4(b)) => {
            // Of two reals the double result, rounded once more, is the real one.
            let value = float(operator, a.into(), b.into())?;
            Value::Float4(narrowed(value, operator, a.into(), b.into())?)
        }
        (Value::Float8(a), Value::Float8(b)) => Value::Float8(float(operator, a, b)?),
        _ => return Err(error::inconsistent("an operator was given what is no number")),
    })
}

fn integer(operator: Operator, a: i64, b: i64, of: Type) -> Result<i64, Refusal> {
    let value = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide | Operator::Modulo if b == 0 => return Err(error::division_by_zero()),
        Operator::Divide => a.checked_div(b),
        Operator::Modulo => Some(a.wrapping_rem(b)),
    };
    value.ok_or_else(|| overflow(of))
}

fn numeric(operator: Operator, a: &Numeric, b: &Numeric) -> Result<Numeric, Refusal> {
    match operator {
        Operator::Add => a.add(b),
        Operator::Subtract => a.sub(b),
        Operator::Multiply => a.mul(b),
        Operator::Divide => a.div(b),
        Operator::Modulo => a.rem(b),
    }
}

fn float(operator: Operator, a: f64, b: f64) -> Result<f64, Refusal> {
    let value = match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide if b == 0.0 && !a.is_nan() => return Err(error::division_by_zero()),
        Operator::Divide => a / b,
        Operator::Modulo => return Err(error::inconsistent("% of floating-point numbers")),
    };
    checked_float(value, value == 0.0, operator, a, b)
}

fn narrowed(value: f64, operator: Operator, a: f64, b: f64) -> Result<f32, Refusal> {
    let narrow = value as f32;
    checked_float(narrow.into(), narrow == 0.0, operator, a, b).map(|_| narrow)
}

/// Infinity of finite numbers is an overflow; zero of others than zero is an underflow.
fn checked_float(value: f64, zero: bool, operator: Operator, a: f64, b: f64) -> Result<f64, Refusal> {
    if value.is_infinite() && !a.is_infinite() && !b.is_infinite() {
        return Err(float_overflow());
    }
    let underflow = match operator {
        Operator::Multiply => zero && a != 0.0 && b != 0.0,
        Operator::Divide => zero && a != 0.0 && !b.is_infinite(),
        _ => false,
    };
    if underflow { Err(float_underflow()) } else { Ok(value) }
}

pub(super) fn float_overflow() -> Refusal {
    error::out_of_range("value out of range: overflow")
}

pub(super) fn float_underflow() -> Refusal {
    error::out_of_range("value out of range: underflow")
}

pub(super) fn negate(value: &Value) -> Result<Value, Refusal> {
    Ok(match value {
        Value::Int2(it) => Value::Int2(it.checked_neg().ok_or_else(|| overflow(Type::Int2))?),
        Value::Int4(it) => Value::Int4(it.checked_neg().ok_or_else(|| overflow(Type::Int4))?),
        Value::Int8(it) => Value::Int8(it.checked_neg().ok_or_else(|| overflow(Type::Int8))?),
        Value::Float4(it) => Value::Float4(-it),
        Value::Float8(it) => Value::Float8(-it),
        Value::Numeric(it) => Value::Numeric(it.negated()),
        _ => return Err(error::inconsistent("unary minus of what is no number")),
    })
}

/// Functions of one number; `round` and `trunc` of numeric may take how many decimals stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    Abs,
    Ceil,
    Floor,
    Round,
    Trunc,
}

impl Function {
    /// By the name in `pg_proc`.
    pub fn by_name(name: &str) -> Option<Function> {
        Some(match name {
            "abs" => Function::Abs,
            "ceil" | "ceiling" => Function::Ceil,
            "floor" => Function::Floor,
            "round" => Function::Round,
            "trunc" => Function::Trunc,
            _ => return None,
        })
    }

    /// The type of the result: integers are rounded as double precision, which is their preferred type.
    pub(super) fn result(self, of: Type) -> Type {
        match self {
            Function::Abs => of,
            _ if of == Type::Numeric => of,
            _ => Type::Float8,
        }
    }

    pub(super) fn call(self, value: &Value, decimals: i32) -> Result<Value, Refusal> {
        let of = self.result(value.type_of());
        Ok(match (self, to_number(value, of)?) {
            (Function::Abs, Value::Float4(it)) => Value::Float4(it.abs()),
            (Function::Abs, Value::Float8(it)) => Value::Float8(it.abs()),
            (Function::Abs, Value::Numeric(it)) => Value::Numeric(it.abs()),
            (Function::Abs, it) => {
                if it.rank().is_some_and(|it| it < 0) {
                    negate(&it)?
                } else {
                    it
                }
            }
            (Function::Ceil, Value::Numeric(it)) => Value::Numeric(it.ceil()?),
            (Function::Floor, Value::Numeric(it)) => Value::Numeric(it.floor()?),
            (Function::Round, Value::Numeric(it)) => Value::Numeric(it.round(decimals)?),
            (Function::Trunc, Value::Numeric(it)) => Value::Numeric(it.trunc(decimals)),
            (Function::Ceil, Value::Float8(it)) => Value::Float8(it.ceil()),
            (Function::Floor, Value::Float8(it)) => Value::Float8(it.floor()),
            (Function::Round, Value::Float8(it)) => Value::Float8(it.round_ties_even()),
            (Function::Trunc, Value::Float8(it)) => Value::Float8(it.trunc()),
            _ => return Err(error::inconsistent("a function of numbers was given what is none")),
        })
    }
}
