//! The machine that is fed with the shards' messages and gives the client's.
//!
//! ```text
//! Describing ──describe × N──▶ Reading ──all ended──▶ Writing ──no groups left──▶ Done
//!                                 │                     │                          ▲
//!                                 └──LIMIT satisfied────┴──────────────────────────┘
//! ```
//! Without a sort of groups `Writing` is passed through in one step.

use std::ops::Range;
use std::sync::Arc;

use super::describe::{Described, describe};
use super::distinct::{Memory, Seen};
use super::error;
use super::grouped::{Groups, OutputRow, sort_rows};
use super::hash::ByteHash;
use super::order::{Key, compare_values, missing_column};
use super::row::{Column, Row, row_length};
use super::source::{Next, Sources};
use super::spec::{Distinct, Grouping, MergeSpec, ResultFormats, SortKey};
use super::state::Cell;
use super::value::Value;
use super::window::{Pass, WindowState};
use crate::base::Refusal;
use crate::wire::{RowValues, RowWriter};

/// What one merge may use.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// For groups, distinct rows, rows to be sorted; batches of the shards are not counted.
    pub memory_bytes_max: usize,
    /// Of the tables that rows are found in; random, so that nobody chooses values that collide.
    pub hash_seed: u64,
}

/// Why `Merger::pull` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Shards that `wants_rows` names have to be fed or ended.
    NeedRows,
    /// `out` has what it may have: write it and pull again.
    OutFull,
    /// As many rows are out as `pause_at` says (PortalSuspended, whether more would come or not).
    Paused,
    /// All rows are out. Shards that have not ended may be cancelled: nothing of them is needed.
    Done,
}

/// How a row of a shard becomes one of the client's.
#[derive(Debug)]
enum Projection {
    /// As it is.
    Whole,
    /// Its first columns.
    Prefix(usize),
    Picked(Vec<usize>),
}

#[derive(Debug)]
enum Phase {
    Describing,
    Reading,
    /// Of a grouping: rows in their final order.
    Writing(std::vec::IntoIter<OutputRow>),
    Done,
}

/// Merges the rows of one statement from several shards.
#[derive(Debug)]
pub struct Merger {
    spec: Arc<MergeSpec>,
    formats: ResultFormats,
    phase: Phase,
    sources: Sources,
    described: Vec<bool>,
    description: Described,
    projection: Projection,
    groups: Option<Groups>,
    /// Rows of groups that wait for their sort.
    unsorted: Vec<OutputRow>,
    seen: Option<Seen>,
    window: WindowState,
    pause_at: Option<u64>,
    /// Canonical sort keys of the last row shown, for WITH TIES; of groups `last_keys`.
    last: Vec<u8>,
    last_keys: Vec<Option<Value>>,
    memory: Memory,
    hash: ByteHash,
    scratch: Vec<u8>,
    /// Rows of one shard's batch that go out together; none while batches may change, which is between pulls.
    run: Option<(usize, Range<usize>)>,
}

impl Merger {
    /// `shards` is how many send rows; `formats` is what the client asked for.
    pub fn new(spec: Arc<MergeSpec>, shards: usize, formats: ResultFormats, budget: Budget) -> Merger {
        let window = WindowState::new(spec.window);
        Merger {
            spec,
            formats,
            phase: Phase::Describing,
            sources: Sources::new(shards),
            described: vec![false; shards],
            description: Described::default(),
            projection: Projection::Whole,
            groups: None,
            unsorted: Vec::new(),
            seen: None,
            window,
            pause_at: None,
            last: Vec::new(),
            last_keys: Vec::new(),
            memory: Memory { bytes: 0, bytes_max: budget.memory_bytes_max },
            hash: ByteHash { seed: budget.hash_seed },
            scratch: Vec::new(),
            run: None,
        }
    }

    /// Takes a shard's RowDescription, of its portal where formats matter. Once every shard has sent it, rows
    /// may come.
    ///
    /// # Errors
    /// 0A000 where the shards differ, or where the plan asks for what these types do not allow.
    pub fn describe(&mut self, shard: usize, message: &[u8]) -> Result<(), Refusal> {
        let described = describe(&self.spec, message, &self.formats)?;
        if self.described.iter().any(|it| *it) {
            self.description.check_same(&described)?;
        } else {
            self.start(&described)?;
            self.description = described;
        }
        *self.described.get_mut(shard).ok_or_else(unknown_shard)? = true;
        if matches!(self.phase, Phase::Describing) && self.described.iter().all(|it| *it) {
            self.phase = if self.window.is_full() { Phase::Done } else { Phase::Reading };
        }
        Ok(())
    }

    fn start(&mut self, described: &Described) -> Result<(), Refusal> {
        let columns = &described.columns;
        for it in &self.spec.sorted {
            let column = columns.get(it.column).ok_or_else(missing_column)?;
            super::order::check_order(column.of, it.collation)?;
        }
        let spec = Arc::clone(&self.spec);
        if let Some(grouping) = &spec.grouping {
            self.groups = Some(Groups::new(&spec, grouping, columns, self.hash.clone())?);
            return Ok(());
        }
        let in_order = spec.visible.iter().enumerate().all(|(at, it)| at == *it);
        self.projection = match in_order {
            true if spec.visible.len() == columns.len() => Projection::Whole,
            true => Projection::Prefix(spec.visible.len()),
            false => Projection::Picked(spec.visible.clone()),
        };
        let sorted = |column: &usize| spec.sorted.iter().any(|it| it.column == *column);
        self.seen = match spec.distinct {
            Distinct::No => None,
            // Rows in an order by all that is visible, and by nothing else, are beside their equals.
            Distinct::Rows => {
                for at in &spec.visible {
                    let column = columns.get(*at).ok_or_else(missing_column)?;
                    super::order::check_equality(column.of, spec.collation)?;
                }
                let adjacent = !spec.visible.is_empty()
                    && spec.visible.iter().all(sorted)
                    && spec.sorted.iter().all(|it| spec.visible.contains(&it.column));
                Some(Seen::new(adjacent, &self.hash))
            }
            Distinct::On(count) if count <= spec.sorted.len() => Some(Seen::new(true, &self.hash)),
            Distinct::On(_) => return Err(error::inconsistent("DISTINCT ON needs its sort keys")),
        };
        if spec.window.with_ties && spec.sorted.is_empty() {
            return Err(error::inconsistent("WITH TIES needs sort keys"));
        }
        Ok(())
    }

    /// The RowDescription that the client is shown; empty before the first shard's.
    pub fn description(&self) -> &[u8] {
        &self.description.message
    }

    /// Rows shown so far: the number of the command tag.
    pub fn rows(&self) -> u64 {
        self.window.shown
    }

    /// Makes `pull` pause once `rows` has come so far, for Execute with a row limit; `None` lets it go on. To
    /// be called before rows are fed, as rows that pass through cannot be held.
    pub fn pause_at(&mut self, rows: Option<u64>) {
        self.pause_at = rows;
    }

    /// Nothing more is needed of any shard. True before all rows are in where LIMIT is satisfied.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Whether rows of this shard are waited for. Whoever reads from no other shard keeps at most one batch
    /// of each in memory.
    pub fn wants_rows(&self, shard: usize) -> bool {
        let reading = matches!(self.phase, Phase::Reading);
        reading && self.sources.shards.get(shard).is_some_and(|it| !it.ended && !it.has_rows())
    }

    /// Rows go through as they are, in the order in which they come: `feed` alone is needed, and copies
    /// nothing.
    pub fn passes_through(&self) -> bool {
        self.spec.sorted.is_empty()
            && self.groups.is_none()
            && self.seen.is_none()
            && matches!(self.projection, Projection::Whole)
            && self.pause_at.is_none()
            // What was held for a pause goes first.
            && !self.sources.shards.iter().any(|it| it.has_rows())
    }

    /// Takes whole DataRow messages of a shard, one after the other, and gives the part of `rows` that is to
    /// be written to the client as it is, now. It is empty unless rows pass through; `pull` gives the others.
    ///
    /// # Errors
    /// 08P01 for anything else than rows, and for rows before every shard has described them.
    pub fn feed(&mut self, shard: usize, rows: &[u8]) -> Result<Range<usize>, Refusal> {
        let source = self.sources.shards.get_mut(shard).ok_or_else(unknown_shard)?;
        if source.ended || matches!(self.phase, Phase::Describing) {
            return Err(error::malformed("a server sent a row where none may be"));
        }
        if self.is_done() {
            return Ok(0..0);
        }
        if self.passes_through() {
            return self.pass(rows);
        }
        if let Some(source) = self.sources.shards.get_mut(shard) {
            source.feed(rows);
        }
        Ok(0..0)
    }

    /// Counts rows that go through, and cuts them where OFFSET and LIMIT do.
    fn pass(&mut self, rows: &[u8]) -> Result<Range<usize>, Refusal> {
        let (mut start, mut end) = (0, 0);
        while end < rows.len() {
            let length = row_length(&rows[end..])?;
            match self.window.next() {
                Pass::Skip => start = end + length,
                Pass::Show => self.window.shown += 1,
                Pass::IfTie | Pass::Stop => break,
            }
            end += length;
            if self.window.is_full() {
                break;
            }
        }
        if self.window.is_full() {
            self.phase = Phase::Done;
        }
        Ok(start..end)
    }

    /// The shard's rows are all in (CommandComplete).
    pub fn end(&mut self, shard: usize) -> Result<(), Refusal> {
        let source = self.sources.shards.get_mut(shard).ok_or_else(unknown_shard)?;
        source.ended = true;
        Ok(())
    }

    /// Appends DataRow messages to `out` until it has `out_bytes_max` bytes or rows are needed.
    ///
    /// # Errors
    /// PostgreSQL's own of aggregates and expressions, 54000 where the budget is used up. What was appended
    /// before stands, as rows do that PostgreSQL sent before an error.
    pub fn pull(&mut self, out: &mut Vec<u8>, out_bytes_max: usize) -> Result<Progress, Refusal> {
        let progress = self.pull_rows(out, out_bytes_max);
        self.flush_run(out);
        progress
    }

    fn pull_rows(&mut self, out: &mut Vec<u8>, out_bytes_max: usize) -> Result<Progress, Refusal> {
        let spec = Arc::clone(&self.spec);
        loop {
            if self.pause_at.is_some_and(|it| self.window.shown >= it) {
                return Ok(Progress::Paused);
            }
            let pending = self.run.as_ref().map_or(0, |it| it.1.len());
            if out.len() + pending >= out_bytes_max && !self.is_done() {
                return Ok(Progress::OutFull);
            }
            match &mut self.phase {
                Phase::Done => return Ok(Progress::Done),
                Phase::Describing => return Ok(Progress::NeedRows),
                Phase::Writing(rows) => match rows.next() {
                    Some(row) => self.show_output(&spec, row, out)?,
                    None => self.phase = Phase::Done,
                },
                Phase::Reading => match self.sources.next(&self.description.columns, &spec.sorted)? {
                    Next::Wait => return Ok(Progress::NeedRows),
                    Next::End => self.finish_reading(&spec)?,
                    Next::Row(shard) => match &spec.grouping {
                        None => self.show_row(&spec, shard, out)?,
                        Some(grouping) => self.group_row(&spec, grouping, shard, out)?,
                    },
                },
            }
        }
    }

    fn show_row(&mut self, spec: &MergeSpec, shard: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let Some(source) = self.sources.shards.get(shard) else { return Err(unknown_shard()) };
        let (row, columns) = (source.row(), &self.description.columns);
        if let Some(seen) = &mut self.seen {
            match spec.distinct {
                Distinct::On(count) => {
                    let keys = spec.sorted.iter().take(count).map(|it| it.column);
                    put_keys(row, keys, columns, &mut self.scratch)?;
                }
                _ => put_keys(row, spec.visible.iter().copied(), columns, &mut self.scratch)?,
            }
            let new = seen.is_new(&self.scratch, &mut self.memory.bytes);
            self.memory.check()?;
            if !new {
                return Ok(());
            }
        }
        let pass = self.window.next();
        if spec.window.with_ties && matches!(pass, Pass::Show | Pass::IfTie) {
            put_keys(row, spec.sorted.iter().map(|it| it.column), columns, &mut self.scratch)?;
        }
        match pass {
            Pass::Skip => return Ok(()),
            Pass::IfTie if self.scratch != self.last => return self.stop(),
            Pass::Stop => return self.stop(),
            Pass::Show | Pass::IfTie => {}
        }
        if spec.window.with_ties {
            self.last.clone_from(&self.scratch);
        }
        self.window.shown += 1;
        match &self.projection {
            Projection::Whole => {
                let head = source.head();
                match &mut self.run {
                    Some((of, run)) if *of == shard && run.end == head.start => run.end = head.end,
                    _ => {
                        self.flush_run(out);
                        self.run = Some((shard, head));
                    }
                }
            }
            projection => project(row, projection, out)?,
        }
        if self.window.is_full() { self.stop() } else { Ok(()) }
    }

    fn stop(&mut self) -> Result<(), Refusal> {
        self.phase = Phase::Done;
        Ok(())
    }

    /// Copies the run to the client's bytes. It has to happen before its batch changes.
    fn flush_run(&mut self, out: &mut Vec<u8>) {
        if let Some((shard, run)) = self.run.take()
            && let Some(source) = self.sources.shards.get(shard)
        {
            out.extend_from_slice(source.bytes(run));
        }
    }

    fn group_row(
        &mut self,
        spec: &MergeSpec,
        grouping: &Grouping,
        shard: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (Some(source), Some(groups)) = (self.sources.shards.get(shard), &mut self.groups) else {
            return Err(unknown_shard());
        };
        let Some(group) = groups.add(source.row(), &mut self.memory)? else { return Ok(()) };
        let Some(row) = groups.output(spec, grouping, &group, &mut self.memory)? else { return Ok(()) };
        if grouping.sort.is_empty() {
            self.show_output(spec, row, out)
        } else {
            self.keep_for_sort(grouping, row)
        }
    }

    fn keep_for_sort(&mut self, grouping: &Grouping, row: OutputRow) -> Result<(), Refusal> {
        self.memory.bytes += row_bytes(&row);
        self.unsorted.push(row);
        // Of many groups only so many can be shown: the others go as soon as they are twice as many.
        if let Some(wanted) =
            self.window.wanted().filter(|_| matches!(self.spec.distinct, Distinct::No | Distinct::Rows))
            && self.unsorted.len() as u64 > wanted.saturating_mul(2).saturating_add(256)
        {
            let before: usize = self.unsorted.iter().map(row_bytes).sum();
            sort_rows(&mut self.unsorted, &grouping.sort, Some(wanted));
            let after: usize = self.unsorted.iter().map(row_bytes).sum();
            self.memory.bytes = self.memory.bytes.saturating_sub(before - after);
        }
        self.memory.check()
    }

    /// All rows are in.
    fn finish_reading(&mut self, spec: &MergeSpec) -> Result<(), Refusal> {
        let (Some(grouping), Some(mut groups)) = (&spec.grouping, self.groups.take()) else {
            return self.stop();
        };
        let left: Vec<Vec<Cell>> = groups.drain().collect::<Result<_, _>>()?;
        let mut rows = std::mem::take(&mut self.unsorted);
        for group in left {
            if let Some(row) = groups.output(spec, grouping, &group, &mut self.memory)? {
                self.memory.bytes += row_bytes(&row);
                self.memory.check()?;
                rows.push(row);
            }
        }
        if !grouping.sort.is_empty() {
            sort_rows(&mut rows, &grouping.sort, None);
        }
        self.groups = Some(groups);
        self.phase = Phase::Writing(rows.into_iter());
        Ok(())
    }

    fn show_output(&mut self, spec: &MergeSpec, row: OutputRow, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let sort: &[SortKey] = spec.grouping.as_ref().map_or(&[], |it| &it.sort);
        if let (Distinct::On(count), Some(groups)) = (spec.distinct, &mut self.groups)
            && !groups.is_first(&row.keys, count)
        {
            return Ok(());
        }
        match self.window.next() {
            Pass::Skip => return Ok(()),
            Pass::Stop => return self.stop(),
            Pass::IfTie if compare_values(sort, &row.keys, &self.last_keys).is_ne() => return self.stop(),
            Pass::Show | Pass::IfTie => {}
        }
        let mut writer = RowWriter::new(out, spec.visible.len() as u16);
        for (shown, at) in spec.visible.iter().enumerate() {
            let written = match row.cells.get(*at) {
                None => Err(missing_column()),
                Some(Cell::Null) => {
                    writer.null();
                    Ok(())
                }
                Some(it) => writer.value_with(|out| it.encode(self.formats.of(shown), out)),
            };
            if let Err(refusal) = written {
                writer.abandon();
                return Err(refusal);
            }
        }
        writer.finish();
        self.window.shown += 1;
        self.last_keys = row.keys;
        if self.window.is_full() { self.stop() } else { Ok(()) }
    }
}

fn unknown_shard() -> Refusal {
    error::inconsistent("a shard that is none of the statement's")
}

fn row_bytes(row: &OutputRow) -> usize {
    row.cells.iter().map(Cell::bytes).sum::<usize>() + row.keys.len() * std::mem::size_of::<Value>()
}

/// The canonical bytes of some columns of a row.
fn put_keys(
    row: Row<'_>,
    keys: impl Iterator<Item = usize>,
    columns: &[Column],
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    out.clear();
    for at in keys {
        let column = *columns.get(at).ok_or_else(missing_column)?;
        Key::of(row, at, column)?.put_canonical(row.message, out);
    }
    Ok(())
}

/// Writes the visible columns of a row.
fn project(row: Row<'_>, projection: &Projection, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match projection {
        Projection::Whole => out.extend_from_slice(row.message),
        Projection::Prefix(count) => {
            // What stands before the first hidden column's length, in one piece.
            let null_lengths = row.places[..*count].iter().rev().take_while(|it| it.is_none()).count() * 4;
            let last = row.places[..*count].iter().rev().flatten().next();
            let end = last.map_or(RowValues::START, |it| it.end) + null_lengths;
            let mut writer = RowWriter::new(out, *count as u16);
            writer.encoded(&row.message[RowValues::START..end]);
            writer.finish();
        }
        Projection::Picked(picked) => {
            let mut writer = RowWriter::new(out, picked.len() as u16);
            for at in picked {
                match row.value(*at)? {
                    None => writer.null(),
                    Some(it) => writer.value(it),
                }
            }
            writer.finish();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
