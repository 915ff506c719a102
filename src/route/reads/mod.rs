//! A read that several shards answer together: what each runs, and how their rows become the answer of one
//! PostgreSQL with all the data (DESIGN D7).
//!
//! Types are not guessed. Before it is sent for the first time, one shard describes the statement as the client
//! wrote it, which also finds every error of names and types with PostgreSQL's own words, and of a grouped
//! read the keys and the arguments of aggregates (`typing`).

mod expressions;
mod groups;

use std::sync::Arc;

use crate::base::{Reason, Refusal};
use crate::merge::{Collation, Distinct, MergeSpec, SortKey, Type, Window};
use crate::sql::{Filled, Split, SplitDistinct, SplitKey, SplitWindow, WindowValue};
use crate::wire::RowField;

use super::keys::KeySource;
use expressions::Builder;

/// How the statement is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Every shard answers it from its own rows; the answers are put together.
    Whole,
    /// Every shard groups its own rows, and the groups are put together.
    Grouped,
}

/// Of one plan.
#[derive(Debug)]
pub struct ShardRead {
    split: Split,
    manner: Manner,
    /// Of texts without a COLLATE of their own.
    collation: Collation,
}

/// What one shard says of the statement.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// ParameterDescription of the statement as the client wrote it.
    pub param_oids: &'a [u32],
    /// Its RowDescription.
    pub outputs: &'a [RowField<'a>],
    /// RowDescription of `typing`; empty where there is none.
    pub typing: &'a [RowField<'a>],
}

/// What each shard is sent, and what is to be done with its rows.
#[derive(Clone, Debug)]
pub struct ShardQuery {
    pub filled: Filled,
    /// How many columns each shard's rows have.
    pub columns: usize,
    pub spec: Arc<MergeSpec>,
}

impl ShardRead {
    pub(super) fn new(split: Split, manner: Manner, collation: Collation) -> ShardRead {
        ShardRead { split, manner, collation }
    }

    /// What is pushed to the shards and what is left to be done, in words.
    pub fn described(&self, source: &KeySource<'_>) -> Vec<(&'static str, String)> {
        let (split, mut told) = (&self.split, Vec::new());
        let (text, rows) = match (self.manner, &split.grouped) {
            (Manner::Grouped, Some(Ok(groups))) => {
                told.push((
                    "merge",
                    format!("groups by {} keys, {} aggregates", groups.keys.len(), groups.aggregates.len()),
                ));
                (groups::typing(groups, source).ok().flatten(), "of")
            }
            _ => (filled(&split.whole, source).ok(), "pushed"),
        };
        let mut left = Vec::new();
        match split.distinct {
            SplitDistinct::No => {}
            SplitDistinct::Rows => left.push("distinct rows".to_owned()),
            SplitDistinct::On(keys) => left.push(format!("distinct on {keys} keys")),
        }
        if !split.sort.is_empty() {
            left.push(format!("sorts by {} keys", split.sort.len()));
        }
        if split.window.count.is_some() || split.window.offset.is_some() {
            left.push(if split.window.with_ties { "limit with ties" } else { "limit" }.to_owned());
        }
        told.extend((!left.is_empty()).then(|| ("merge", left.join(", "))));
        told.extend(text.map(|it| (rows, it.text)));
        told
    }

    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// A statement whose columns have the types that `query` has to know.
    pub fn typing(&self, source: &KeySource<'_>) -> Result<Option<Filled>, Refusal> {
        match self.manner {
            Manner::Whole => Ok(None),
            Manner::Grouped => groups::typing(self.groups()?, source),
        }
    }

    /// Whether what it takes of the shards' catalogs matters: types that have a collation are sorted by, grouped by or told apart, or
    /// a name in GROUP BY is an output's as long as no table has it. What is not described may be such a type.
    pub fn needs_catalog(&self, described: &Described<'_>) -> bool {
        let is_collated = |it: &RowField<'_>| Type::from_oid(it.type_oid).is_collated();
        if self.manner == Manner::Grouped {
            return self.groups_by_outputs()
                || described.typing.iter().chain(described.outputs).any(is_collated);
        }
        let output = |it: &SplitKey| it.column.and_then(|at| described.outputs.get(at));
        let sorts = |it: &SplitKey| !it.by_bytes && output(it).is_none_or(is_collated);
        self.distinct() != Distinct::No && described.outputs.iter().any(is_collated)
            || self.split.sort.iter().any(sorts)
    }

    /// Names in GROUP BY are outputs', by the catalog.
    fn groups_by_outputs(&self) -> bool {
        self.manner == Manner::Grouped && !self.split.not_columns.is_empty()
    }

    /// What each shard runs. Where what the plan took from the shards' catalogs does not hold any more, nothing of it is used.
    ///
    /// # Errors
    /// 0A000 for what cannot be merged, 22P02 and others for constants that are not of their type.
    pub fn query(
        &self,
        source: &KeySource<'_>,
        described: &Described<'_>,
        holds: bool,
    ) -> Result<ShardQuery, Refusal> {
        if !holds && self.groups_by_outputs() {
            return Err(not_merged("GROUP BY of a result's name"));
        }
        let collation = if holds { self.collation } else { Collation::Unknown };
        let window = self.window(source, described.param_oids)?;
        if self.manner == Manner::Grouped {
            let builder = Builder::new(source, described.param_oids, collation);
            return groups::query(self.groups()?, builder, described, source, self.distinct(), window);
        }
        let shown = described.outputs.len();
        let key = |(at, it): (usize, &SplitKey)| {
            let column = if self.split.set_operation.is_some() { it.column } else { Some(shown + at) };
            sort_key(it, column.unwrap_or(shown), collation)
        };
        let spec = MergeSpec {
            sorted: self.split.sort.iter().enumerate().map(key).collect(),
            grouping: None,
            distinct: self.distinct(),
            collation,
            window,
            visible: (0..shown).collect(),
        };
        let filled = filled(&self.split.whole, source)?;
        Ok(ShardQuery { filled, columns: shown + self.split.hidden, spec: Arc::new(spec) })
    }

    fn groups(&self) -> Result<&crate::sql::SplitGroups, Refusal> {
        match &self.split.grouped {
            Some(Ok(groups)) => Ok(groups),
            Some(Err(what)) => Err(not_merged(&what.0)),
            None => Err(not_merged("a statement without groups")),
        }
    }

    fn distinct(&self) -> Distinct {
        match self.split.distinct {
            SplitDistinct::No => Distinct::No,
            SplitDistinct::Rows => Distinct::Rows,
            SplitDistinct::On(count) => Distinct::On(count),
        }
    }

    fn window(&self, source: &KeySource<'_>, param_oids: &[u32]) -> Result<Window, Refusal> {
        let SplitWindow { count, offset, with_ties } = &self.split.window;
        let builder = Builder::new(source, param_oids, self.collation);
        let number = |it: &Option<WindowValue>| match it {
            None => Ok(None),
            Some(WindowValue::One) => Ok(Some(1)),
            Some(WindowValue::Place(it)) => builder.bigint(it),
        };
        // What is negative is for the shards to refuse, in PostgreSQL's words.
        let count = number(count)?.and_then(|it| u64::try_from(it).ok());
        let offset = number(offset)?.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
        Ok(Window { offset, count, with_ties: *with_ties })
    }
}

fn sort_key(it: &SplitKey, column: usize, collation: Collation) -> SortKey {
    let collation = if it.by_bytes { Collation::Bytes } else { collation };
    SortKey { column, descending: it.descending, nulls_first: it.nulls_first, collation }
}

fn filled(template: &crate::sql::Template, source: &KeySource<'_>) -> Result<Filled, Refusal> {
    template.fill(source.text, source.literals).ok_or_else(|| not_merged("a statement of this form"))
}

/// What stands in the way of an answer by several shards.
pub(super) fn not_merged(what: &str) -> Refusal {
    Refusal::unsupported(
        Reason::MultiShardRead,
        format!("{what} over several shards is not supported"),
        "restrict the statement to one shard with its shard key, or leave it out",
    )
}

/// The type of a column that a shard has described.
fn type_of(fields: &[RowField<'_>], at: usize) -> Result<Type, Refusal> {
    let field = fields.get(at).ok_or_else(|| not_merged("a statement whose columns are not described"))?;
    Ok(Type::from_oid(field.type_oid))
}
