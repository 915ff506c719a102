//! What each shard computes of an aggregate, and how the parts make the whole.
//!
//! | aggregate | of each shard | whole |
//! |---|---|---|
//! | count | count | their sum, in bigint |
//! | sum, bit_and, bit_or, bit_xor, bool_and, bool_or | itself | itself over the parts |
//! | min, max | itself | the extreme part, its own bytes |
//! | avg | sum, count | quotient, in numeric with PostgreSQL's scale, or in double precision |
//! | stddev, variance of integers and numeric | count, sum, sum of squares in numeric | as `numeric_stddev_internal` |
//! | stddev, variance of floats | count, sum, sum of squared deviations | as `float8_combine` |
//! | string_agg, array_agg | the values as an array, in order, and the keys of the order | one list, sorted |
//! | any with DISTINCT | the value itself, grouped by it too | over the distinct values |
//!
//! Sums of floats depend on the order in which rows are added, in one PostgreSQL too: a parallel plan, a
//! synchronised scan or a VACUUM changes the last digits, and no order is promised. A sum over shards is one
//! more such order, so it is allowed, and marked (`Partials::order_of_addition`) for whoever wants to refuse
//! it. Integers and numerics are exact, and so equal to the digit.

use super::error;
use super::order::{check_equality, check_order};
use super::spec::{Collation, SortKey};
use super::types::Type;
use crate::base::Refusal;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    BitAnd,
    BitOr,
    BitXor,
    StddevSamp,
    StddevPop,
    VarSamp,
    VarPop,
    StringAgg,
    ArrayAgg,
}

impl AggregateFunction {
    /// By the name in `pg_proc`.
    pub fn by_name(name: &str) -> Option<AggregateFunction> {
        Some(match name {
            "count" => AggregateFunction::Count,
            "sum" => AggregateFunction::Sum,
            "avg" => AggregateFunction::Avg,
            "min" => AggregateFunction::Min,
            "max" => AggregateFunction::Max,
            "bool_and" | "every" => AggregateFunction::BoolAnd,
            "bool_or" => AggregateFunction::BoolOr,
            "bit_and" => AggregateFunction::BitAnd,
            "bit_or" => AggregateFunction::BitOr,
            "bit_xor" => AggregateFunction::BitXor,
            "stddev" | "stddev_samp" => AggregateFunction::StddevSamp,
            "stddev_pop" => AggregateFunction::StddevPop,
            "variance" | "var_samp" => AggregateFunction::VarSamp,
            "var_pop" => AggregateFunction::VarPop,
            "string_agg" => AggregateFunction::StringAgg,
            "array_agg" => AggregateFunction::ArrayAgg,
            _ => return None,
        })
    }

    /// Squared deviations: whether of a sample, and whether their root is wanted.
    pub(super) fn deviation(self) -> Option<(bool, bool)> {
        Some(match self {
            AggregateFunction::StddevSamp => (true, true),
            AggregateFunction::StddevPop => (false, true),
            AggregateFunction::VarSamp => (true, false),
            AggregateFunction::VarPop => (false, false),
            _ => return None,
        })
    }

    pub(super) fn is_list(self) -> bool {
        matches!(self, AggregateFunction::StringAgg | AggregateFunction::ArrayAgg)
    }
}

/// An aggregate call of the statement.
#[derive(Clone, Debug)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// The type of the argument; `None` for `count(*)`.
    pub argument: Option<Type>,
    pub distinct: bool,
    /// The shards' columns with the partials, in the order of `Partials::columns`, then one for each key of
    /// ORDER BY that is not the argument itself.
    pub columns: Vec<usize>,
    /// ORDER BY of string_agg and array_agg, by places in `columns`; 0 is the argument. None: any order.
    pub order: Vec<SortKey>,
    /// Of string_agg, a constant; `None` is NULL.
    pub delimiter: Option<Box<[u8]>>,
    /// Of the argument, for min and max.
    pub collation: Collation,
}

impl Aggregate {
    /// The column whose bytes are the result as they are.
    pub(super) fn passed_column(&self) -> Option<usize> {
        use AggregateFunction::{ArrayAgg, Max, Min};
        match self.function {
            Min | Max | ArrayAgg => self.columns.first().copied(),
            _ => None,
        }
    }
}

/// What a shard computes for an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Partial {
    /// `count(x)`, `count(*)`
    Count,
    /// The aggregate itself.
    Same(&'static str),
    /// `sum(x)` as double precision.
    FloatSum,
    /// `sum(x::numeric)`
    NumericSum,
    /// `sum(x::numeric * x::numeric)`
    Squares,
    /// The sum of squared deviations of floats from their mean, as PostgreSQL keeps it for `stddev`.
    FloatDeviations,
    /// `array_agg(x ORDER BY ...)`; the keys of the order likewise.
    List,
    /// The argument, which becomes one more column of the shards' GROUP BY.
    Value,
}

impl Partial {
    /// The SQL of the shards' column. `argument` is parenthesised or a column name, `*` for `count(*)`;
    /// `order` is the text of `ORDER BY ...` or empty. FILTER goes behind it, except with `Value`: there it
    /// becomes a CASE around the argument, whose NULL aggregates pass over (array_agg does not).
    pub fn sql(self, argument: &str, order: &str) -> String {
        match self {
            Partial::Count => format!("count({argument})"),
            Partial::Same(name) => format!("{name}({argument})"),
            Partial::FloatSum => format!("sum({argument}::float8)"),
            Partial::NumericSum => format!("sum({argument}::numeric)"),
            Partial::Squares => format!("sum({argument}::numeric * {argument}::numeric)"),
            Partial::FloatDeviations => format!("regr_sxx({argument}::float8, {argument}::float8)"),
            Partial::List if order.is_empty() => format!("array_agg({argument})"),
            Partial::List => format!("array_agg({argument} {order})"),
            Partial::Value => argument.to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partials {
    pub columns: Vec<Partial>,
    /// The type of the whole.
    pub result: Type,
    /// The last digits depend on the order in which rows are added, as they do in one PostgreSQL.
    pub order_of_addition: bool,
}

fn unsupported(name: &str, of: Option<Type>) -> Refusal {
    let of = of.map_or_else(|| "nothing".to_owned(), |it| it.to_string());
    error::unsupported(
        format!("aggregate {name} of type {of} cannot be computed over several shards"),
        "group by the shard key, or restrict the statement to one shard with it",
    )
}

/// What each shard has to compute for an aggregate, so that the parts make exactly the whole.
///
/// # Errors
/// 0A000 where no parts do.
pub fn partials(
    function: AggregateFunction,
    argument: Option<Type>,
    distinct: bool,
    collation: Collation,
) -> Result<Partials, Refusal> {
    let (columns, result) = parts(function, argument, collation)?;
    let order_of_addition =
        matches!(function, AggregateFunction::Sum | AggregateFunction::Avg) || function.deviation().is_some();
    let order_of_addition = order_of_addition && argument.is_some_and(Type::is_float);
    if !distinct {
        return Ok(Partials { columns, result, order_of_addition });
    }
    match argument {
        // Equality has to be known to the byte.
        Some(it) if it.is_known() => check_equality(it, collation)?,
        _ => return Err(unsupported("with DISTINCT", argument)),
    }
    Ok(Partials { columns: vec![Partial::Value], result, order_of_addition })
}

fn parts(
    function: AggregateFunction,
    argument: Option<Type>,
    collation: Collation,
) -> Result<(Vec<Partial>, Type), Refusal> {
    use AggregateFunction as F;
    use Type as T;
    let same = |name, result| Ok((vec![Partial::Same(name)], result));
    match (function, argument) {
        (F::Count, _) => Ok((vec![Partial::Count], T::Int8)),
        (F::Sum, Some(T::Int2 | T::Int4)) => same("sum", T::Int8),
        (F::Sum, Some(T::Int8)) => same("sum", T::Numeric),
        (F::Sum, Some(of @ (T::Numeric | T::Float4 | T::Float8 | T::Interval))) => same("sum", of),
        (F::Avg, Some(T::Int2 | T::Int4 | T::Int8 | T::Numeric)) => {
            Ok((vec![Partial::Same("sum"), Partial::Count], T::Numeric))
        }
        (F::Avg, Some(T::Float4 | T::Float8)) => Ok((vec![Partial::FloatSum, Partial::Count], T::Float8)),
        (F::Min | F::Max, Some(of)) => {
            let name = if function == F::Min { "min" } else { "max" };
            // What has an order has both, except these.
            if matches!(of, T::Bool | T::Char | T::Uuid | T::Bytea) {
                return Err(unsupported(name, argument));
            }
            check_order(of, collation)?;
            same(name, if of.is_text() { T::Text } else { of })
        }
        (F::BoolAnd, Some(T::Bool)) => same("bool_and", T::Bool),
        (F::BoolOr, Some(T::Bool)) => same("bool_or", T::Bool),
        (F::BitAnd, Some(of)) if of.is_integer() => same("bit_and", of),
        (F::BitOr, Some(of)) if of.is_integer() => same("bit_or", of),
        // Summing up parts as numbers without carry is summing up all.
        (F::BitXor, Some(of)) if of.is_integer() => same("bit_xor", of),
        (_, Some(of)) if function.deviation().is_some() && of.is_float() => {
            Ok((vec![Partial::Count, Partial::FloatSum, Partial::FloatDeviations], T::Float8))
        }
        (_, Some(of)) if function.deviation().is_some() && of.is_number() => {
            Ok((vec![Partial::Count, Partial::NumericSum, Partial::Squares], T::Numeric))
        }
        (F::StringAgg, Some(of)) if of.is_text() => Ok((vec![Partial::List], T::Text)),
        (F::StringAgg, Some(T::Bytea)) => Ok((vec![Partial::List], T::Bytea)),
        (F::ArrayAgg, Some(of)) => match of.array_oid() {
            Some(oid) => Ok((vec![Partial::List], T::Other(oid))),
            None => Err(unsupported("array_agg", argument)),
        },
        _ => Err(unsupported(function_name(function), argument)),
    }
}

pub(super) fn function_name(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Avg => "avg",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
        AggregateFunction::BoolAnd => "bool_and",
        AggregateFunction::BoolOr => "bool_or",
        AggregateFunction::BitAnd => "bit_and",
        AggregateFunction::BitOr => "bit_or",
        AggregateFunction::BitXor => "bit_xor",
        AggregateFunction::StddevSamp => "stddev_samp",
        AggregateFunction::StddevPop => "stddev_pop",
        AggregateFunction::VarSamp => "var_samp",
        AggregateFunction::VarPop => "var_pop",
        AggregateFunction::StringAgg => "string_agg",
        AggregateFunction::ArrayAgg => "array_agg",
    }
}
