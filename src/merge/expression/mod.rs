//! Expressions over the row of a group: what stands around aggregates in the select list, in HAVING and in
//! ORDER BY. The planner builds them with casts and constants made explicit; `resolve` types them before the
//! first row, `evaluate` follows PostgreSQL: three-valued logic, order of evaluation, errors.

use std::cmp::Ordering;

use super::arithmetic::{self, Function, Operator};
use super::cast::{self, NumericModifier};
use super::error;
use super::order;
use super::spec::Collation;
use super::types::Type;
use super::value::Value;
use crate::base::{Reason, Refusal, SqlState};

/// Deeper ones are refused before they are walked.
const DEPTH_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// NULL is a value like others.
    DistinctFrom,
    NotDistinctFrom,
}

#[derive(Clone, Debug)]
pub enum Expression {
    /// Of the row that is computed over: group keys, then aggregates.
    Column(usize),
    /// With its type, which NULL has too.
    Constant(Type, Option<Value>),
    Arithmetic(Operator, Box<Expression>, Box<Expression>),
    Negate(Box<Expression>),
    /// Texts compare by their bytes: equality is right in every deterministic collation, order in C alone.
    Compare(Comparison, Box<Expression>, Box<Expression>, Collation),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    IsNull(Box<Expression>),
    /// CASE WHEN; that with an operand is written with `Compare`.
    Case(Vec<(Expression, Expression)>, Option<Box<Expression>>),
    Coalesce(Vec<Expression>),
    NullIf(Box<Expression>, Box<Expression>, Collation),
    Greatest(Vec<Expression>, Collation),
    Least(Vec<Expression>, Collation),
    Cast(Box<Expression>, Type, Option<NumericModifier>),
    /// `||` of two texts.
    Concat(Box<Expression>, Box<Expression>),
    /// With decimals that stay, for `round` and `trunc` of numeric.
    Call(Function, Box<Expression>, Option<Box<Expression>>),
}

/// A row that expressions are evaluated over.
pub trait Columns {
    fn value(&self, column: usize) -> Result<Option<Value>, Refusal>;
}

impl Columns for [Option<Value>] {
    fn value(&self, column: usize) -> Result<Option<Value>, Refusal> {
        self.get(column).cloned().ok_or_else(order::missing_column)
    }
}

fn no_operator(symbol: &str, a: Type, b: Type) -> Refusal {
    error::unsupported(
        format!("operator {symbol} over types {a} and {b} cannot be computed over several shards"),
        "compute it inside of the aggregate, or in the application",
    )
}

/// A constant whose text depends on the session's DateStyle, which Keyway does not write.
fn refuse_styled_constant(expression: &Expression) -> Result<(), Refusal> {
    use Type::{Bytea, Date, Interval, Time, Timestamp, Timestamptz, Timetz};
    match expression {
        Expression::Constant(Bytea | Date | Interval | Time | Timestamp | Timestamptz | Timetz, Some(_)) => {
            Err(error::unsupported(
                "a date or time constant cannot be part of a result computed over several shards",
                "write the constant inside of the aggregate, or cast it to text",
            ))
        }
        _ => Ok(()),
    }
}

impl Expression {
    /// The type of the result over columns of these types.
    ///
    /// # Errors
    /// 0A000 for what cannot be computed here; 54001 for an expression that is too deep.
    pub fn resolve(&self, columns: &[Type]) -> Result<Type, Refusal> {
        refuse_styled_constant(self)?;
        match self {
            // Shown as it is, whatever it is.
            Expression::Column(at) => columns.get(*at).copied().ok_or_else(order::missing_column),
            _ => self.type_at(columns, DEPTH_MAX),
        }
    }

    /// The same branches of CASE, COALESCE, GREATEST or LEAST, with numbers cast to the type that PostgreSQL
    /// selects for them all; `resolve` wants branches of one type.
    pub fn unify(branches: Vec<Expression>, columns: &[Type]) -> Result<Vec<Expression>, Refusal> {
        let types = branches.iter().map(|it| it.resolve(columns)).collect::<Result<Vec<_>, _>>()?;
        let numbers = types.iter().try_fold(Type::Int2, |sum, it| arithmetic::common_number(sum, *it));
        let Some(common) = numbers else { return Ok(branches) };
        let cast = |(branch, of)| match of == common {
            true => branch,
            false => Expression::Cast(Box::new(branch), common, None),
        };
        Ok(branches.into_iter().zip(types).map(cast).collect())
    }

    fn type_at(&self, columns: &[Type], depth: usize) -> Result<Type, Refusal> {
        let depth = depth.checked_sub(1).ok_or_else(|| {
            let message = "an expression over aggregates is nested too deeply";
            Refusal::new(Reason::Limit, SqlState::STATEMENT_TOO_COMPLEX, message)
        })?;
        let of = |it: &Expression| it.type_at(columns, depth);
        let all_bool = |them: &[Expression]| {
            them.iter().try_for_each(|it| expect_bool(of(it)?))?;
            Ok(Type::Bool)
        };
        match self {
            Expression::Column(at) => match columns.get(*at).copied().ok_or_else(order::missing_column)? {
                Type::Other(oid) => Err(error::unsupported(
                    format!("values of the type with oid {oid} cannot be computed with over several shards"),
                    "compute with them inside of the aggregate, or in the application",
                )),
                it => Ok(it),
            },
            Expression::Constant(of, _) => Ok(*of),
            Expression::Arithmetic(operator, a, b) => {
                let (a, b) = (of(a)?, of(b)?);
                let result = arithmetic::operator_type(a, b)
                    .filter(|it| !(*operator == Operator::Modulo && it.is_float()));
                result.ok_or_else(|| no_operator(operator.symbol(), a, b))
            }
            Expression::Negate(it) => number(of(it)?, "-"),
            Expression::Compare(comparison, a, b, collation) => {
                let common = comparable(of(a)?, of(b)?)?;
                match comparison.is_equality() {
                    true => order::check_equality(common, *collation)?,
                    false => order::check_order(common, *collation)?,
                }
                Ok(Type::Bool)
            }
            Expression::And(them) | Expression::Or(them) => all_bool(them),
            Expression::Not(it) => all_bool(std::slice::from_ref(it)),
            Expression::IsNull(it) => of(it).map(|_| Type::Bool),
            Expression::Case(whens, otherwise) => {
                whens.iter().try_for_each(|(when, _)| expect_bool(of(when)?))?;
                let branches = whens.iter().map(|it| &it.1).chain(otherwise.as_deref());
                common_type(branches, &of)
            }
            Expression::Coalesce(them) => common_type(them.iter(), &of),
            Expression::NullIf(a, b, collation) => {
                order::check_equality(comparable(of(a)?, of(b)?)?, *collation)?;
                of(a)
            }
            Expression::Greatest(them, collation) | Expression::Least(them, collation) => {
                let common = common_type(them.iter(), &of)?;
                order::check_order(common, *collation)?;
                Ok(common)
            }
            Expression::Cast(it, to, _) => {
                let from = of(it)?;
                if cast::is_castable(from, *to) { Ok(*to) } else { Err(no_cast(from, *to)) }
            }
            Expression::Concat(a, b) => match (of(a)?, of(b)?) {
                (a, b) if a.is_text() && b.is_text() => Ok(Type::Text),
                (a, b) => Err(no_operator("||", a, b)),
            },
            Expression::Call(function, it, decimals) => {
                let of_argument = number(of(it)?, "of a function")?;
                let result = function.result(of_argument);
                match decimals.as_deref().map(of).transpose()? {
                    None => Ok(result),
                    Some(Type::Int2 | Type::Int4) if of_argument == Type::Numeric => Ok(result),
                    Some(other) => Err(no_operator("round", of_argument, other)),
                }
            }
        }
    }

    /// The value over a row; `None` is NULL.
    ///
    /// # Errors
    /// PostgreSQL's own: 22003, 22012, 22P02.
    pub fn evaluate<C: Columns + ?Sized>(&self, row: &C) -> Result<Option<Value>, Refusal> {
        let value = |it: &Expression| it.evaluate(row);
        Ok(match self {
            Expression::Column(at) => row.value(*at)?,
            Expression::Constant(_, it) => it.clone(),
            Expression::Arithmetic(operator, a, b) => match (value(a)?, value(b)?) {
                (Some(a), Some(b)) => Some(arithmetic::apply(*operator, &a, &b)?),
                _ => None,
            },
            Expression::Negate(it) => value(it)?.map(|it| arithmetic::negate(&it)).transpose()?,
            Expression::Compare(comparison, a, b, _) => comparison.of(value(a)?, value(b)?)?.map(Value::Bool),
            Expression::And(them) => connect(them, false, row)?.map(Value::Bool),
            Expression::Or(them) => connect(them, true, row)?.map(Value::Bool),
            Expression::Not(it) => it.truth(row)?.map(|it| Value::Bool(!it)),
            Expression::IsNull(it) => Some(Value::Bool(value(it)?.is_none())),
            Expression::Case(whens, otherwise) => {
                for (when, then) in whens {
                    if when.truth(row)? == Some(true) {
                        return value(then);
                    }
                }
                otherwise.as_deref().map(value).transpose()?.flatten()
            }
            Expression::Coalesce(them) => {
                for it in them {
                    if let Some(it) = value(it)? {
                        return Ok(Some(it));
                    }
                }
                None
            }
            Expression::NullIf(a, b, _) => {
                let first = value(a)?;
                let equal = Comparison::Equal.of(first.clone(), value(b)?)?;
                first.filter(|_| equal != Some(true))
            }
            Expression::Greatest(them, _) => extreme(them, Ordering::Greater, row)?,
            Expression::Least(them, _) => extreme(them, Ordering::Less, row)?,
            Expression::Cast(it, to, modifier) => {
                value(it)?.map(|it| cast::cast(it, *to, *modifier)).transpose()?
            }
            Expression::Concat(a, b) => match (value(a)?, value(b)?) {
                (Some(Value::Text(a)), Some(Value::Text(b))) => Some(Value::Text([a, b].concat().into())),
                _ => None,
            },
            Expression::Call(function, it, decimals) => {
                let decimals = match decimals.as_deref().map(value).transpose()? {
                    None => 0,
                    Some(None) => return Ok(None),
                    Some(Some(it)) => {
                        it.rank().and_then(|it| i32::try_from(it).ok()).ok_or_else(order::missing_column)?
                    }
                };
                value(it)?.map(|it| function.call(&it, decimals)).transpose()?
            }
        })
    }

    /// The value of a condition.
    pub(super) fn truth<C: Columns + ?Sized>(&self, row: &C) -> Result<Option<bool>, Refusal> {
        match self.evaluate(row)? {
            None => Ok(None),
            Some(Value::Bool(it)) => Ok(Some(it)),
            Some(_) => Err(error::inconsistent("a condition is not boolean")),
        }
    }
}

fn expect_bool(of: Type) -> Result<(), Refusal> {
    if of == Type::Bool { Ok(()) } else { Err(error::inconsistent("a condition is not boolean")) }
}

fn number(of: Type, symbol: &str) -> Result<Type, Refusal> {
    if of.is_number() { Ok(of) } else { Err(no_operator(symbol, of, of)) }
}

fn no_cast(from: Type, to: Type) -> Refusal {
    error::unsupported(
        format!("a cast from {from} to {to} cannot be computed over several shards"),
        "cast inside of the aggregate, or in the application",
    )
}

/// The type that two sides are compared as.
fn comparable(a: Type, b: Type) -> Result<Type, Refusal> {
    if let Some(common) = arithmetic::operator_type(a, b) {
        return Ok(common);
    }
    if a.is_known() && (a == b || a.is_text() && b.is_text()) { Ok(a) } else { Err(no_operator("=", a, b)) }
}

fn common_type<'a>(
    mut branches: impl Iterator<Item = &'a Expression>,
    of: &impl Fn(&Expression) -> Result<Type, Refusal>,
) -> Result<Type, Refusal> {
    let nothing = || error::inconsistent("an expression without branches");
    let of_branch = |it| {
        refuse_styled_constant(it)?;
        of(it)
    };
    let common = of_branch(branches.next().ok_or_else(nothing)?)?;
    for it in branches {
        let next = of_branch(it)?;
        if common == next || common.is_text() && next.is_text() {
            continue;
        }
        // Values keep their own types: only where all are one may the result be shown.
        return Err(error::unsupported(
            format!("branches of types {common} and {next} have to be one type where shards are merged"),
            "cast them to one type",
        ));
    }
    Ok(common)
}

/// AND (`decides` false) or OR: the first that decides ends it, as PostgreSQL evaluates them.
fn connect<C: Columns + ?Sized>(
    them: &[Expression],
    decides: bool,
    row: &C,
) -> Result<Option<bool>, Refusal> {
    let mut unknown = false;
    for it in them {
        match it.truth(row)? {
            Some(it) if it == decides => return Ok(Some(decides)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok((!unknown).then_some(!decides))
}

/// GREATEST and LEAST, which leave NULLs out.
fn extreme<C: Columns + ?Sized>(
    them: &[Expression],
    wanted: Ordering,
    row: &C,
) -> Result<Option<Value>, Refusal> {
    let mut found: Option<Value> = None;
    for it in them {
        let Some(value) = it.evaluate(row)? else { continue };
        let better = match &found {
            None => true,
            Some(found) => compare(&value, found)? == wanted,
        };
        if better {
            found = Some(value);
        }
    }
    Ok(found)
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, Refusal> {
    if let Some(order) = a.compare(b) {
        return Ok(order);
    }
    let unequal = || error::inconsistent("values of two types cannot be compared");
    let common = arithmetic::operator_type(a.type_of(), b.type_of()).ok_or_else(unequal)?;
    cast::to_number(a, common)?.compare(&cast::to_number(b, common)?).ok_or_else(unequal)
}

impl Comparison {
    fn is_equality(self) -> bool {
        use Comparison::{DistinctFrom, Equal, NotDistinctFrom, NotEqual};
        matches!(self, Equal | NotEqual | DistinctFrom | NotDistinctFrom)
    }

    fn of(self, a: Option<Value>, b: Option<Value>) -> Result<Option<bool>, Refusal> {
        let (Some(x), Some(y)) = (&a, &b) else {
            let same = a.is_none() && b.is_none();
            return Ok(match self {
                Comparison::DistinctFrom => Some(!same),
                Comparison::NotDistinctFrom => Some(same),
                _ => None,
            });
        };
        let order = compare(x, y)?;
        Ok(Some(match self {
            Comparison::Equal | Comparison::NotDistinctFrom => order.is_eq(),
            Comparison::NotEqual | Comparison::DistinctFrom => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }))
    }
}

#[cfg(test)]
mod tests;
