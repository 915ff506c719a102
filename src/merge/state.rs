//! What is kept of an aggregate while its parts come in.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::aggregate::{Aggregate, AggregateFunction};
use super::arithmetic::{self, Operator, float_overflow};
use super::cast::to_number;
use super::datetime::Interval;
use super::error;
use super::hash::ByteHash;
use super::list::{self, Element};
use super::numeric::Numeric;
use super::order::{Key, check_order, compare_values, missing_column};
use super::row::{Column, Row, malformed_row};
use super::spec::{Collation, SortKey};
use super::types::{Format, Type};
use super::value::Value;
use crate::base::Refusal;

/// What a kept value costs beside its bytes, about.
const VALUE_BYTES: usize = 64;

/// An aggregate and the columns that its partials come in.
#[derive(Debug)]
pub(super) struct Combiner {
    pub aggregate: Aggregate,
    pub columns: Vec<Column>,
}

/// One element of a list, with the keys that it is sorted by.
#[derive(Clone, Debug)]
pub(super) struct Item {
    keys: Vec<Option<Value>>,
    element: Element,
}

#[derive(Debug)]
enum Kept {
    Count(i64),
    /// Parts joined by the aggregate's own operator.
    Folded(Option<Value>),
    /// The extreme so far, and its bytes.
    Extreme(Option<(Value, Box<[u8]>)>),
    Average {
        count: i64,
        sum: Option<Value>,
    },
    Squares {
        count: i64,
        sum: Numeric,
        squares: Numeric,
    },
    /// Youngs and Cramer's, as PostgreSQL has it.
    Deviations {
        count: f64,
        sum: f64,
        squares: f64,
    },
    List(Vec<Item>),
}

/// The state of one aggregate in one group.
#[derive(Debug)]
pub(super) struct State {
    kept: Kept,
    /// Values that came, of DISTINCT.
    seen: Option<HashSet<Box<[u8]>, ByteHash>>,
}

/// A finished aggregate, or a group key.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Null,
    /// As a shard sent it.
    Wire(Box<[u8]>, Column),
    Value(Value),
    /// Elements of a type, in a format.
    List(Vec<Item>, Type, Format),
}

impl Cell {
    /// Bytes kept, about.
    pub fn bytes(&self) -> usize {
        VALUE_BYTES
            + match self {
                Cell::Null | Cell::Value(_) => 0,
                Cell::Wire(bytes, _) => bytes.len(),
                Cell::List(items, ..) => {
                    items.iter().map(|it| VALUE_BYTES + it.element.as_ref().map_or(0, |it| it.len())).sum()
                }
            }
    }

    pub fn value(&self) -> Result<Option<Value>, Refusal> {
        match self {
            Cell::Null => Ok(None),
            Cell::Wire(bytes, column) => Value::decode(column.of, column.format, bytes).map(Some),
            Cell::Value(it) => Ok(Some(it.clone())),
            Cell::List(_, of, _) => Err(error::unsupported(
                format!("an array of {of} cannot be computed with over several shards"),
                "select the array itself",
            )),
        }
    }

    /// Appends what the client is sent; not for NULL.
    pub fn encode(&self, format: Format, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match self {
            Cell::Null => Ok(()),
            Cell::Wire(bytes, column) if column.format == format => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Cell::Wire(bytes, column) => Value::decode(column.of, column.format, bytes)?.encode(format, out),
            Cell::Value(it) => it.encode(format, out),
            Cell::List(items, of, from) => {
                list::put(items.iter().map(|it| &it.element), *of, *from, format, out)
            }
        }
    }
}

fn count_of(value: Option<Value>) -> Result<i64, Refusal> {
    match value {
        Some(Value::Int8(it)) => Ok(it),
        _ => Err(error::inconsistent("a shard's count is no bigint")),
    }
}

fn numeric_of(value: Value) -> Result<Numeric, Refusal> {
    match to_number(&value, Type::Numeric)? {
        Value::Numeric(it) => Ok(it),
        _ => Err(error::inconsistent("a shard's sum is no number")),
    }
}

fn float_of(value: Value) -> Result<f64, Refusal> {
    match to_number(&value, Type::Float8)? {
        Value::Float8(it) => Ok(it),
        _ => Err(error::inconsistent("a shard's sum is no number")),
    }
}

impl Combiner {
    /// Whether lists can be put in order here.
    pub fn check_order(&self) -> Result<(), Refusal> {
        let it = &self.aggregate;
        let Some(of) = it.argument.filter(|_| it.function.is_list()) else { return Ok(()) };
        if it.distinct && it.order.is_empty() {
            check_order(of, it.collation)?;
        }
        for key in &it.order {
            let column = *self.columns.get(key.column).ok_or_else(missing_column)?;
            check_order(if it.distinct { of } else { element_type(column)? }, key.collation)?;
        }
        Ok(())
    }

    pub fn start(&self, hash: &ByteHash) -> State {
        let function = self.aggregate.function;
        let kept = match function {
            AggregateFunction::Count => Kept::Count(0),
            AggregateFunction::Min | AggregateFunction::Max => Kept::Extreme(None),
            AggregateFunction::Avg => Kept::Average { count: 0, sum: None },
            AggregateFunction::StringAgg | AggregateFunction::ArrayAgg => Kept::List(Vec::new()),
            _ if function.deviation().is_none() => Kept::Folded(None),
            _ if self.aggregate.argument.is_some_and(Type::is_float) => {
                Kept::Deviations { count: 0.0, sum: 0.0, squares: 0.0 }
            }
            _ => Kept::Squares { count: 0, sum: Numeric::zero(), squares: Numeric::zero() },
        };
        State { kept, seen: self.aggregate.distinct.then(|| HashSet::with_hasher(hash.clone())) }
    }

    fn part(&self, row: Row<'_>, at: usize) -> Result<Option<Value>, Refusal> {
        let (column, place) = (self.columns.get(at), self.aggregate.columns.get(at));
        let (column, place) = column.zip(place).ok_or_else(missing_column)?;
        row.value(*place)?.map(|it| Value::decode(column.of, column.format, it)).transpose()
    }

    /// The type that a sum is kept in.
    fn sum_type(&self) -> Option<Type> {
        Some(match (self.aggregate.function, self.aggregate.argument?) {
            (AggregateFunction::Sum, Type::Int2 | Type::Int4) => Type::Int8,
            (AggregateFunction::Sum, Type::Int8) => Type::Numeric,
            (AggregateFunction::Avg, Type::Float4 | Type::Float8) => Type::Float8,
            (AggregateFunction::Avg, _) => Type::Numeric,
            (_, it) => it,
        })
    }
}

impl State {
    /// Takes a row's parts in; adds to `memory` what is kept of them, in bytes.
    pub fn add(
        &mut self,
        combiner: &Combiner,
        row: Row<'_>,
        scratch: &mut Vec<u8>,
        memory: &mut usize,
    ) -> Result<(), Refusal> {
        if let Some(seen) = &mut self.seen {
            let (column, place) = combiner
                .columns
                .first()
                .zip(combiner.aggregate.columns.first())
                .ok_or_else(missing_column)?;
            scratch.clear();
            Key::of(row, *place, *column)?.put_canonical(row.message, scratch);
            if seen.contains(scratch.as_slice()) {
                return Ok(());
            }
            *memory += scratch.len() + VALUE_BYTES;
            seen.insert(scratch.as_slice().into());
            return self.add_value(combiner, row, memory);
        }
        self.add_parts(combiner, row, memory)
    }

    fn add_parts(&mut self, combiner: &Combiner, row: Row<'_>, memory: &mut usize) -> Result<(), Refusal> {
        let function = combiner.aggregate.function;
        match &mut self.kept {
            Kept::Count(count) => {
                let part = count_of(combiner.part(row, 0)?)?;
                *count = count.checked_add(part).ok_or_else(|| error::out_of_range("bigint out of range"))?;
            }
            Kept::Folded(kept) => {
                if let Some(part) = combiner.part(row, 0)? {
                    *kept = Some(match kept.take() {
                        None => part,
                        Some(kept) => fold(function, kept, part)?,
                    });
                }
            }
            Kept::Extreme(kept) => keep_extreme(kept, combiner, row, memory)?,
            Kept::Average { count, sum } => {
                *count += count_of(combiner.part(row, 1)?)?;
                if let Some(part) = combiner.part(row, 0)? {
                    *sum = Some(add_up(sum.take(), part, combiner)?);
                }
            }
            Kept::Squares { count, sum, squares } => {
                *count += count_of(combiner.part(row, 0)?)?;
                if let Some((x, x2)) = combiner.part(row, 1)?.zip(combiner.part(row, 2)?) {
                    *sum = sum.add(&numeric_of(x)?)?;
                    *squares = squares.add(&numeric_of(x2)?)?;
                }
            }
            Kept::Deviations { .. } => {
                let count = count_of(combiner.part(row, 0)?)? as f64;
                if let Some((x, xx)) = combiner.part(row, 1)?.zip(combiner.part(row, 2)?) {
                    self.add_deviations(count, float_of(x)?, float_of(xx)?)?;
                }
            }
            Kept::List(items) => add_lists(items, combiner, row, memory)?,
        }
        Ok(())
    }

    /// Takes in one of the distinct values.
    fn add_value(&mut self, combiner: &Combiner, row: Row<'_>, memory: &mut usize) -> Result<(), Refusal> {
        if let Kept::List(items) = &mut self.kept {
            let place = *combiner.aggregate.columns.first().ok_or_else(missing_column)?;
            let element: Element = row.value(place)?.map(Into::into);
            *memory += VALUE_BYTES + element.as_ref().map_or(0, |it| it.len());
            items.push(Item { keys: vec![combiner.part(row, 0)?], element });
            return Ok(());
        }
        if let Kept::Extreme(kept) = &mut self.kept {
            return keep_extreme(kept, combiner, row, memory);
        }
        let Some(value) = combiner.part(row, 0)? else { return Ok(()) };
        match &mut self.kept {
            Kept::Count(count) => *count += 1,
            Kept::Folded(kept) if combiner.aggregate.function == AggregateFunction::Sum => {
                *kept = Some(add_up(kept.take(), value, combiner)?);
            }
            Kept::Folded(kept) => {
                *kept = Some(match kept.take() {
                    None => value,
                    Some(kept) => fold(combiner.aggregate.function, kept, value)?,
                });
            }
            Kept::Average { count, sum } => {
                *count += 1;
                *sum = Some(add_up(sum.take(), value, combiner)?);
            }
            Kept::Squares { count, sum, squares } => {
                let x = numeric_of(value)?;
                *count += 1;
                *sum = sum.add(&x)?;
                *squares = squares.add(&x.mul(&x)?)?;
            }
            Kept::Deviations { .. } => {
                let x = float_of(value)?;
                // Of one value there is no deviation, unless it is none to compute with.
                self.add_deviations(1.0, x, if x.is_finite() { 0.0 } else { f64::NAN })?;
            }
            Kept::List(_) | Kept::Extreme(_) => {}
        }
        Ok(())
    }

    /// As `float8_combine`.
    fn add_deviations(&mut self, n2: f64, sum2: f64, squares2: f64) -> Result<(), Refusal> {
        let Kept::Deviations { count, sum, squares } = &mut self.kept else { return Ok(()) };
        if n2 == 0.0 {
            return Ok(());
        }
        if *count == 0.0 {
            (*count, *sum, *squares) = (n2, sum2, squares2);
            return Ok(());
        }
        let (n1, sum1, squares1) = (*count, *sum, *squares);
        let both = sum1 + sum2;
        if both.is_infinite() && sum1.is_finite() && sum2.is_finite() {
            return Err(float_overflow());
        }
        let apart = sum1 / n1 - sum2 / n2;
        let combined = squares1 + squares2 + n1 * n2 * apart * apart / (n1 + n2);
        if combined.is_infinite() && squares1.is_finite() && squares2.is_finite() {
            return Err(float_overflow());
        }
        (*count, *sum, *squares) = (n1 + n2, both, combined);
        Ok(())
    }

    pub fn finish(self, combiner: &Combiner) -> Result<Cell, Refusal> {
        let aggregate = &combiner.aggregate;
        let value = match self.kept {
            Kept::Count(it) => Some(Value::Int8(it)),
            Kept::Folded(it) => it,
            Kept::Extreme(None) => None,
            Kept::Extreme(Some((_, bytes))) => {
                let column = *combiner.columns.first().ok_or_else(missing_column)?;
                return Ok(Cell::Wire(bytes, column));
            }
            Kept::Average { count, sum } => match sum {
                Some(Value::Float8(sum)) => Some(Value::Float8(sum / count as f64)),
                Some(sum) => Some(Value::Numeric(numeric_of(sum)?.div(&Numeric::from(count))?)),
                None => None,
            },
            Kept::Squares { count, sum, squares } => {
                let (sample, root) = aggregate.function.deviation().unwrap_or_default();
                Numeric::deviation(count, &sum, &squares, sample, root)?.map(Value::Numeric)
            }
            Kept::Deviations { count, squares, .. } => {
                let (sample, root) = aggregate.function.deviation().unwrap_or_default();
                let divisor = if sample { count - 1.0 } else { count };
                let variance = squares / divisor;
                (divisor > 0.0).then(|| Value::Float8(if root { variance.sqrt() } else { variance }))
            }
            Kept::List(items) => return finish_list(items, combiner),
        };
        Ok(value.map_or(Cell::Null, Cell::Value))
    }
}

/// Joins two parts of sum, bool_and and their like.
fn fold(function: AggregateFunction, a: Value, b: Value) -> Result<Value, Refusal> {
    use AggregateFunction as F;
    Ok(match (function, a, b) {
        (F::Sum, Value::Interval(a), Value::Interval(b)) => Value::Interval(add_intervals(a, b)?),
        (F::Sum, a, b) => arithmetic::apply(Operator::Add, &a, &b)?,
        (F::BoolAnd, Value::Bool(a), Value::Bool(b)) => Value::Bool(a && b),
        (F::BoolOr, Value::Bool(a), Value::Bool(b)) => Value::Bool(a || b),
        (F::BitAnd, Value::Int2(a), Value::Int2(b)) => Value::Int2(a & b),
        (F::BitAnd, Value::Int4(a), Value::Int4(b)) => Value::Int4(a & b),
        (F::BitAnd, Value::Int8(a), Value::Int8(b)) => Value::Int8(a & b),
        (F::BitOr, Value::Int2(a), Value::Int2(b)) => Value::Int2(a | b),
        (F::BitOr, Value::Int4(a), Value::Int4(b)) => Value::Int4(a | b),
        (F::BitOr, Value::Int8(a), Value::Int8(b)) => Value::Int8(a | b),
        (F::BitXor, Value::Int2(a), Value::Int2(b)) => Value::Int2(a ^ b),
        (F::BitXor, Value::Int4(a), Value::Int4(b)) => Value::Int4(a ^ b),
        (F::BitXor, Value::Int8(a), Value::Int8(b)) => Value::Int8(a ^ b),
        _ => return Err(error::inconsistent("the shards' parts of an aggregate are of another type")),
    })
}

fn add_intervals(a: Interval, b: Interval) -> Result<Interval, Refusal> {
    if a.is_infinite() || b.is_infinite() {
        return Err(error::unsupported(
            "a sum of infinite intervals cannot be computed over several shards",
            "leave them out with a WHERE or FILTER clause",
        ));
    }
    a.checked_add(b).ok_or_else(error::interval_out_of_range)
}

fn add_up(sum: Option<Value>, part: Value, combiner: &Combiner) -> Result<Value, Refusal> {
    if matches!(part, Value::Interval(_)) {
        return sum.map_or(Ok(part.clone()), |it| fold(AggregateFunction::Sum, it, part));
    }
    let of = combiner.sum_type().ok_or_else(missing_column)?;
    let part = to_number(&part, of)?;
    sum.map_or(Ok(part.clone()), |it| arithmetic::apply(Operator::Add, &it, &part))
}

fn keep_extreme(
    kept: &mut Option<(Value, Box<[u8]>)>,
    combiner: &Combiner,
    row: Row<'_>,
    memory: &mut usize,
) -> Result<(), Refusal> {
    let Some(value) = combiner.part(row, 0)? else { return Ok(()) };
    let wanted = match combiner.aggregate.function {
        AggregateFunction::Min => Ordering::Less,
        _ => Ordering::Greater,
    };
    let better = match kept {
        None => true,
        Some((kept, _)) => value.compare(kept) == Some(wanted),
    };
    if better {
        let place = *combiner.aggregate.columns.first().ok_or_else(missing_column)?;
        let bytes = row.value(place)?.unwrap_or_default();
        *memory += bytes.len() * 2;
        if let Some((_, old)) = kept.replace((value, bytes.into())) {
            *memory -= old.len() * 2;
        }
    }
    Ok(())
}

fn add_lists(
    items: &mut Vec<Item>,
    combiner: &Combiner,
    row: Row<'_>,
    memory: &mut usize,
) -> Result<(), Refusal> {
    let mut lists = Vec::with_capacity(combiner.columns.len());
    for (column, place) in combiner.columns.iter().zip(&combiner.aggregate.columns) {
        // The shard had no rows.
        let Some(bytes) = row.value(*place)? else { return Ok(()) };
        *memory += bytes.len();
        lists.push(list::parse(bytes, column.format)?);
    }
    let length = lists.first().map_or(0, Vec::len);
    *memory += length * VALUE_BYTES * (1 + combiner.aggregate.order.len());
    for at in 0..length {
        let element = |list: usize| lists.get(list).and_then(|it| it.get(at)).ok_or_else(malformed_row);
        let mut keys = Vec::with_capacity(combiner.aggregate.order.len());
        for key in &combiner.aggregate.order {
            let column = combiner.columns.get(key.column).ok_or_else(missing_column)?;
            let of = element_type(*column)?;
            let bytes = element(key.column)?.as_deref();
            keys.push(bytes.map(|it| Value::decode(of, column.format, it)).transpose()?);
        }
        items.push(Item { keys, element: element(0)?.clone() });
    }
    Ok(())
}

fn element_type(column: Column) -> Result<Type, Refusal> {
    Type::element_of(column.of.oid())
        .ok_or_else(|| error::inconsistent("a shard's list is no array of a known type"))
}

fn finish_list(mut items: Vec<Item>, combiner: &Combiner) -> Result<Cell, Refusal> {
    let aggregate = &combiner.aggregate;
    let column = *combiner.columns.first().ok_or_else(missing_column)?;
    // DISTINCT sorts, whether ORDER BY says so or not.
    let by_value = [SortKey { collation: Collation::Bytes, ..SortKey::ascending(0) }];
    let order =
        if aggregate.distinct && aggregate.order.is_empty() { &by_value[..] } else { &aggregate.order };
    // Stable: where keys are equal, PostgreSQL promises no order.
    items.sort_by(|a, b| compare_values(order, &a.keys, &b.keys));
    let of = if aggregate.distinct { column.of } else { element_type(column)? };
    if aggregate.function == AggregateFunction::ArrayAgg {
        let empty = items.is_empty();
        return Ok(if empty { Cell::Null } else { Cell::List(items, of, column.format) });
    }
    let mut text: Option<Vec<u8>> = None;
    for element in items.iter().filter_map(|it| it.element.as_deref()) {
        let bytes = match Value::decode(of, column.format, element)? {
            Value::Text(it) | Value::Bytea(it) => it,
            _ => return Err(error::inconsistent("string_agg of what is no text")),
        };
        match &mut text {
            None => text = Some(bytes.into()),
            Some(text) => {
                text.extend_from_slice(aggregate.delimiter.as_deref().unwrap_or_default());
                text.extend_from_slice(&bytes);
            }
        }
    }
    let wrap = |it: Vec<u8>| if of == Type::Bytea { Value::Bytea(it.into()) } else { Value::Text(it.into()) };
    Ok(text.map_or(Cell::Null, |it| Cell::Value(wrap(it))))
}
