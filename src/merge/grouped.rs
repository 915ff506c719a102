//! GROUP BY over the shards' groups: one state for each group, kept in a table, or alone where groups come in
//! order and each is finished when the next one begins.

use std::collections::HashMap;

use super::aggregate::{self, AggregateFunction};
use super::distinct::{Memory, Seen};
use super::error;
use super::expression::{Columns, Expression};
use super::hash::ByteHash;
use super::order::{Key, check_equality, check_order, compare_values, missing_column};
use super::row::{Column, Row};
use super::spec::{Distinct, Grouping, MergeSpec, SortKey};
use super::state::{Cell, Combiner, State};
use super::types::Type;
use super::value::Value;
use crate::base::Refusal;

/// What a group costs beside its keys and states, about.
const GROUP_BYTES: usize = 96;

#[derive(Debug)]
struct Group {
    keys: Vec<Cell>,
    states: Vec<State>,
}

/// A row of the result with all outputs, hidden ones too, and its sort keys.
#[derive(Debug)]
pub(super) struct OutputRow {
    pub cells: Vec<Cell>,
    pub keys: Vec<Option<Value>>,
}

impl Columns for [Cell] {
    fn value(&self, column: usize) -> Result<Option<Value>, Refusal> {
        self.get(column).ok_or_else(missing_column)?.value()
    }
}

#[derive(Debug)]
pub(super) struct Groups {
    key_columns: Vec<(usize, Column)>,
    combiners: Vec<Combiner>,
    /// Groups come in order.
    streaming: bool,
    index: HashMap<Box<[u8]>, usize, ByteHash>,
    /// Of a streaming grouping at most one, whose canonical keys these are.
    groups: Vec<Group>,
    current: Vec<u8>,
    /// What is kept for it.
    group_bytes: usize,
    seen: Option<Seen>,
    hash: ByteHash,
    scratch: (Vec<u8>, Vec<u8>),
}

/// Types of the row that expressions are over: group keys, then aggregates.
pub(super) fn row_types(grouping: &Grouping, columns: &[Column]) -> Result<Vec<Type>, Refusal> {
    let column = |at: &usize| columns.get(*at).copied().ok_or_else(missing_column);
    let mut types = Vec::with_capacity(grouping.keys.len() + grouping.aggregates.len());
    for at in &grouping.keys {
        types.push(column(at)?.of);
    }
    for it in &grouping.aggregates {
        let parts = aggregate::partials(it.function, it.argument, it.distinct, it.collation)?;
        if it.columns.len() < parts.columns.len() {
            return Err(missing_column());
        }
        for at in &it.columns {
            column(at)?;
        }
        types.push(match it.function {
            AggregateFunction::Min | AggregateFunction::Max => column(&it.columns[0])?.of,
            _ => parts.result,
        });
    }
    Ok(types)
}

impl Groups {
    /// # Errors
    /// 0A000 for what cannot be grouped, combined, sorted or computed.
    pub fn new(
        spec: &MergeSpec,
        grouping: &Grouping,
        columns: &[Column],
        hash: ByteHash,
    ) -> Result<Groups, Refusal> {
        let types = row_types(grouping, columns)?;
        check(spec, grouping, &types)?;
        let key_columns: Vec<_> =
            grouping.keys.iter().filter_map(|at| columns.get(*at).map(|it| (*at, *it))).collect();
        for (_, column) in &key_columns {
            check_equality(column.of, spec.collation)?;
        }
        let combiner = |it: &aggregate::Aggregate| Combiner {
            aggregate: it.clone(),
            columns: it.columns.iter().filter_map(|at| columns.get(*at).copied()).collect(),
        };
        let combiners: Vec<Combiner> = grouping.aggregates.iter().map(combiner).collect();
        combiners.iter().try_for_each(Combiner::check_order)?;
        let seen = match spec.distinct {
            Distinct::No => None,
            Distinct::Rows => Some(Seen::new(false, &hash)),
            Distinct::On(_) => Some(Seen::new(true, &hash)),
        };
        let index = HashMap::with_hasher(hash.clone());
        let mut it = Groups {
            key_columns,
            combiners,
            streaming: is_streaming(spec, grouping),
            index,
            groups: Vec::new(),
            current: Vec::new(),
            group_bytes: 0,
            seen,
            hash,
            scratch: (Vec::new(), Vec::new()),
        };
        if it.key_columns.is_empty() {
            // Without GROUP BY there is one group, even of nothing.
            it.index.insert(Box::default(), 0);
            it.groups.push(it.fresh(Vec::new()));
        }
        Ok(it)
    }

    fn fresh(&self, keys: Vec<Cell>) -> Group {
        Group { keys, states: self.combiners.iter().map(|it| it.start(&self.hash)).collect() }
    }

    /// Takes a row of a shard in; gives the group that this one shows to be finished.
    pub fn add(&mut self, row: Row<'_>, memory: &mut Memory) -> Result<Option<Vec<Cell>>, Refusal> {
        let (canonical, scratch) = &mut self.scratch;
        canonical.clear();
        for (at, column) in &self.key_columns {
            Key::of(row, *at, *column)?.put_canonical(row.message, canonical);
        }
        let mut finished = None;
        let mut before = memory.bytes;
        let found = match self.streaming {
            true => (!self.groups.is_empty() && self.current == *canonical).then_some(0),
            false => self.index.get(canonical.as_slice()).copied(),
        };
        let at = match found {
            Some(it) => it,
            None => {
                let mut keys = Vec::with_capacity(self.key_columns.len());
                for (at, column) in &self.key_columns {
                    let bytes = row.value(*at)?;
                    keys.push(bytes.map_or(Cell::Null, |it| Cell::Wire(it.into(), *column)));
                }
                let states = self.combiners.iter().map(|it| it.start(&self.hash)).collect();
                let group = Group { keys, states };
                if self.streaming {
                    finished = self.groups.pop();
                    memory.bytes = memory.bytes.saturating_sub(std::mem::take(&mut self.group_bytes));
                    before = memory.bytes;
                    self.current.clone_from(canonical);
                } else {
                    self.index.insert(canonical.as_slice().into(), self.groups.len());
                }
                memory.bytes += GROUP_BYTES * (1 + self.combiners.len())
                    + canonical.len()
                    + group.keys.iter().map(Cell::bytes).sum::<usize>();
                self.groups.push(group);
                self.groups.len() - 1
            }
        };
        if let Some(group) = self.groups.get_mut(at) {
            for (combiner, state) in self.combiners.iter().zip(&mut group.states) {
                state.add(combiner, row, scratch, &mut memory.bytes)?;
            }
        }
        self.group_bytes += memory.bytes.saturating_sub(before);
        memory.check()?;
        finished.map(|it| self.finish(it)).transpose()
    }

    fn finish(&self, group: Group) -> Result<Vec<Cell>, Refusal> {
        let mut cells = group.keys;
        for (combiner, state) in self.combiners.iter().zip(group.states) {
            cells.push(state.finish(combiner)?);
        }
        Ok(cells)
    }

    /// All groups that are left, in the order in which they were found.
    pub fn drain(&mut self) -> impl Iterator<Item = Result<Vec<Cell>, Refusal>> + '_ {
        let groups = std::mem::take(&mut self.groups);
        self.index = HashMap::with_hasher(self.hash.clone());
        groups.into_iter().map(|it| self.finish(it))
    }

    /// HAVING and outputs over a group; `None` where HAVING or DISTINCT leaves it out.
    pub fn output(
        &mut self,
        spec: &MergeSpec,
        grouping: &Grouping,
        group: &[Cell],
        memory: &mut Memory,
    ) -> Result<Option<OutputRow>, Refusal> {
        if let Some(having) = &grouping.having
            && having.truth(group)? != Some(true)
        {
            return Ok(None);
        }
        let mut cells = Vec::with_capacity(grouping.outputs.len());
        for it in &grouping.outputs {
            cells.push(match &it.expression {
                Expression::Column(at) => group.get(*at).cloned().ok_or_else(missing_column)?,
                it => it.evaluate(group)?.map_or(Cell::Null, Cell::Value),
            });
        }
        if spec.distinct == Distinct::Rows && !self.is_new(&cells, &spec.visible, memory)? {
            return Ok(None);
        }
        let keys = grouping.sort.iter().map(|it| cells[..].value(it.column)).collect::<Result<_, _>>()?;
        Ok(Some(OutputRow { cells, keys }))
    }

    fn is_new(&mut self, cells: &[Cell], columns: &[usize], memory: &mut Memory) -> Result<bool, Refusal> {
        let canonical = &mut self.scratch.0;
        canonical.clear();
        for at in columns {
            match cells.value(*at)? {
                None => canonical.push(0),
                Some(it) => it.put_canonical(canonical),
            }
        }
        let new = self.seen.as_mut().is_none_or(|it| it.is_new(canonical, &mut memory.bytes));
        memory.check()?;
        Ok(new)
    }

    /// DISTINCT ON over sorted rows.
    pub fn is_first(&mut self, keys: &[Option<Value>], count: usize) -> bool {
        let canonical = &mut self.scratch.0;
        canonical.clear();
        for it in keys.iter().take(count) {
            match it {
                None => canonical.push(0),
                Some(it) => it.put_canonical(canonical),
            }
        }
        self.seen.as_mut().is_none_or(|it| it.is_new(canonical, &mut 0))
    }
}

/// Sorts; keeps only as many as will be shown, where that is known.
pub(super) fn sort_rows(rows: &mut Vec<OutputRow>, sort: &[SortKey], wanted: Option<u64>) {
    rows.sort_by(|a, b| compare_values(sort, &a.keys, &b.keys));
    if let Some(wanted) = wanted.and_then(|it| usize::try_from(it).ok()) {
        rows.truncate(wanted);
    }
}

/// Whether the shards' order brings the rows of a group together: its first keys are the group's, in any
/// order.
fn is_streaming(spec: &MergeSpec, grouping: &Grouping) -> bool {
    let count = grouping.keys.len();
    let leading = spec.sorted.get(..count).unwrap_or_default();
    count > 0
        && leading.len() == count
        && grouping.keys.iter().all(|key| leading.iter().any(|it| it.column == *key))
}

fn check(spec: &MergeSpec, grouping: &Grouping, types: &[Type]) -> Result<(), Refusal> {
    let outputs =
        grouping.outputs.iter().map(|it| it.expression.resolve(types)).collect::<Result<Vec<_>, _>>()?;
    if let Some(having) = &grouping.having
        && having.resolve(types)? != Type::Bool
    {
        return Err(error::inconsistent("HAVING is not boolean"));
    }
    for it in &grouping.sort {
        check_order(*outputs.get(it.column).ok_or_else(missing_column)?, it.collation)?;
    }
    for at in &spec.visible {
        let of = *outputs.get(*at).ok_or_else(missing_column)?;
        if spec.distinct == Distinct::Rows {
            check_equality(of, spec.collation)?;
        }
    }
    let needs_sort = spec.window.with_ties || matches!(spec.distinct, Distinct::On(_));
    if needs_sort && grouping.sort.is_empty() {
        return Err(error::inconsistent("WITH TIES and DISTINCT ON need sort keys over the groups"));
    }
    Ok(())
}
