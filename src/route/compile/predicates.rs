//! What predicates say of a key: places of its values, column by column.

use crate::shard::{KeyColumn, Map};
use crate::sql::{Column, EndValue, Predicate, Value};

use super::super::keys::harmless_cast;
use super::super::plan::{End, Interval, KeyPlace, Keys};

/// Combinations that a predicate on several columns is taken apart into; past it, it is taken to name any.
const COMBINATIONS_MAX: usize = 4_096;

/// Which column of the key a name means.
pub(super) type Find<'a> = &'a dyn Fn(&Column) -> Option<usize>;

/// What all of these predicates together say of a map's key.
pub(super) fn keys(map: &Map, predicates: &[(&Predicate, Find<'_>)]) -> Keys {
    match map.columns() {
        [column] => {
            let single = Single { column, is_range: map.is_range() };
            Keys::and(predicates.iter().map(|(predicate, find)| single.keys(predicate, *find)))
        }
        columns => {
            let several = Several { columns };
            let each = predicates.iter().map(|(predicate, find)| several.combinations(predicate, *find));
            let all = each.reduce(both).unwrap_or_else(|| vec![several.any()]);
            Keys::or(all.iter().map(|it| several.keys(it, map.is_range())))
        }
    }
}

/// A key of one column.
struct Single<'a> {
    column: &'a KeyColumn,
    is_range: bool,
}

impl Single<'_> {
    fn keys(&self, predicate: &Predicate, find: Find<'_>) -> Keys {
        match predicate {
            Predicate::Unknown => Keys::All,
            Predicate::Never => Keys::Never,
            Predicate::And(parts) => Keys::and(parts.iter().map(|it| self.keys(it, find))),
            Predicate::Or(parts) => Keys::or(parts.iter().map(|it| self.keys(it, find))),
            Predicate::Between { column, from, to } => match find(column) {
                Some(_) if self.is_range => interval(self.column, from, to),
                _ => Keys::All,
            },
            Predicate::Equal(column, _) | Predicate::Same(column, _) | Predicate::EqualAny(column, _) => {
                let places = find(column).and_then(|_| places(predicate, self.column));
                places.map_or(Keys::All, Keys::Equal)
            }
        }
    }
}

fn interval(column: &KeyColumn, from: &Option<EndValue>, to: &Option<EndValue>) -> Keys {
    let end = |it: &Option<EndValue>| {
        let it = it.as_ref()?;
        Some(End { place: place(&it.value, column)?, inclusive: it.inclusive })
    };
    match (end(from), end(to)) {
        (None, None) => Keys::All,
        (from, to) => Keys::Between(Interval { from, to }),
    }
}

/// The places of each column's values, `None` where it may have any.
type Combination = Vec<Option<Box<[KeyPlace]>>>;

/// A key of several columns: a predicate as the combinations of which one holds.
struct Several<'a> {
    columns: &'a [KeyColumn],
}

impl Several<'_> {
    fn any(&self) -> Combination {
        vec![None; self.columns.len()]
    }

    fn combinations(&self, predicate: &Predicate, find: Find<'_>) -> Vec<Combination> {
        match predicate {
            Predicate::Unknown | Predicate::Between { .. } => vec![self.any()],
            Predicate::Never => Vec::new(),
            Predicate::And(parts) => {
                let each = parts.iter().map(|it| self.combinations(it, find));
                each.reduce(both).unwrap_or_else(|| vec![self.any()])
            }
            Predicate::Or(parts) => {
                let all: Vec<Combination> = parts.iter().flat_map(|it| self.combinations(it, find)).collect();
                if all.len() > COMBINATIONS_MAX { vec![self.any()] } else { all }
            }
            Predicate::Equal(column, _) | Predicate::Same(column, _) | Predicate::EqualAny(column, _) => {
                let mut combination = self.any();
                if let Some(at) = find(column)
                    && let (Some(column), Some(values)) = (self.columns.get(at), combination.get_mut(at))
                {
                    *values = places(predicate, column);
                }
                vec![combination]
            }
        }
    }

    fn keys(&self, combination: &Combination, is_range: bool) -> Keys {
        if let Some(columns) = combination.iter().cloned().collect::<Option<Box<[_]>>>() {
            return Keys::Product(columns);
        }
        // Ranges are in the order of the first column.
        let Some(Some(first)) = combination.first().filter(|_| is_range) else { return Keys::All };
        let between = |place: &KeyPlace| match place {
            KeyPlace::Literal { .. } | KeyPlace::Param { .. } | KeyPlace::Bool(_) => {
                let end = Some(End { place: *place, inclusive: true });
                Keys::Between(Interval { from: end, to: end })
            }
            KeyPlace::Null => Keys::Never,
            _ => Keys::All,
        };
        Keys::or(first.iter().map(between))
    }
}

/// The combinations that satisfy one of each side. A column that both name keeps the first one's values,
/// which are no fewer than those of both.
fn both(left: Vec<Combination>, right: Vec<Combination>) -> Vec<Combination> {
    if left.len() * right.len() > COMBINATIONS_MAX {
        return if left.len() < right.len() { left } else { right };
    }
    let with = |a: &Combination, b: &Combination| -> Combination {
        a.iter().zip(b).map(|(a, b)| a.as_ref().or(b.as_ref()).cloned()).collect()
    };
    left.iter().flat_map(|a| right.iter().map(move |b| with(a, b))).collect()
}

/// The places of the values that a column may have. `None` where they cannot be told.
fn places(predicate: &Predicate, column: &KeyColumn) -> Option<Box<[KeyPlace]>> {
    match predicate {
        Predicate::Equal(_, values) => values.iter().map(|it| place(it, column)).collect(),
        Predicate::Same(_, value) => match place(value, column)? {
            // Rows without a key have no place.
            KeyPlace::Null => None,
            KeyPlace::Param { number, cast_oid } => Some(Box::new([KeyPlace::Same { number, cast_oid }])),
            other => Some(Box::new([other])),
        },
        Predicate::EqualAny(_, array) => each_of(array, column).map(|it| Box::new([it]) as Box<[KeyPlace]>),
        _ => None,
    }
}

fn each_of(array: &Value, column: &KeyColumn) -> Option<KeyPlace> {
    // PostgreSQL names the type of an array by an underscore in front of its elements'.
    let element = |cast: &Option<Box<str>>| match cast.as_deref() {
        None => Some(0),
        Some(cast) => harmless_cast(column.key_type, cast.strip_prefix('_')?),
    };
    match array {
        Value::Literal { index, negative: false, cast } => {
            Some(KeyPlace::EachLiteral { index: *index, cast_oid: element(cast)? })
        }
        Value::Param { number, cast } => {
            Some(KeyPlace::EachParam { number: *number, cast_oid: element(cast)? })
        }
        _ => None,
    }
}

/// A constant's place, unless its cast could change what it means for a key of this type.
pub(super) fn place(value: &Value, column: &KeyColumn) -> Option<KeyPlace> {
    let oid = |cast: &Option<Box<str>>| match cast.as_deref() {
        None => Some(0),
        Some(cast) => harmless_cast(column.key_type, cast),
    };
    match value {
        Value::Null => Some(KeyPlace::Null),
        Value::Bool(it) => Some(KeyPlace::Bool(*it)),
        Value::Literal { index, negative, cast } => {
            Some(KeyPlace::Literal { index: *index, negative: *negative, cast_oid: oid(cast)? })
        }
        Value::Param { number, cast } => Some(KeyPlace::Param { number: *number, cast_oid: oid(cast)? }),
    }
}
