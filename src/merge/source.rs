//! Where rows come from: a batch of each shard, read in the shards' common order or one after the other.
//!
//! ```text
//!          feed                     advance: rows left in the batch
//! Empty ──────────▶ Loaded ◀───────────────────────────────┐
//!   │                 │ advance: none left                  │
//!   │ end             ├──────────▶ Empty, or Ended          │
//!   ▼                 └─────────────────────────────────────┘
//! Ended
//! ```

use std::ops::Range;

use super::order::{Keys, compare_keys, keys_of};
use super::row::{Column, Place, Row, find_places, row_length};
use super::spec::SortKey;
use crate::base::Refusal;

/// One shard's rows that have come and not been dealt with.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Whole DataRow messages; at most what was fed while the shard was wanted.
    batch: Vec<u8>,
    head: Range<usize>,
    places: Vec<Place>,
    keys: Keys,
    pub ended: bool,
}

impl Source {
    pub fn feed(&mut self, rows: &[u8]) {
        // Nothing is moved where the shard was wanted, as its batch is used up then.
        self.batch.drain(..self.head.start);
        self.head = 0..self.head.len();
        self.batch.extend_from_slice(rows);
    }

    /// A row is there, or the next one begins in the batch.
    pub fn has_rows(&self) -> bool {
        self.head.start < self.batch.len()
    }

    fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// Looks into the next row of the batch, if there is one.
    fn load(&mut self, columns: &[Column], sort: &[SortKey]) -> Result<(), Refusal> {
        if self.has_head() || !self.has_rows() {
            return Ok(());
        }
        let start = self.head.start;
        let end = start + row_length(&self.batch[start..])?;
        find_places(&self.batch[start..end], columns.len(), &mut self.places)?;
        let row = Row { message: &self.batch[start..end], places: &self.places };
        keys_of(row, sort, columns, &mut self.keys)?;
        self.head = start..end;
        Ok(())
    }

    fn advance(&mut self) {
        self.head = self.head.end..self.head.end;
    }

    pub fn row(&self) -> Row<'_> {
        Row { message: &self.batch[self.head.clone()], places: &self.places }
    }

    pub fn head(&self) -> Range<usize> {
        self.head.clone()
    }

    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.batch[range]
    }
}

/// A tournament of losers (Knuth, 5.4.1): the first of N rows in log N comparisons. Node 1 is the final; the
/// parent of leaf `i` is `(i + n) / 2`.
#[derive(Debug, Default)]
struct Tournament {
    losers: Vec<usize>,
    winner: usize,
}

impl Tournament {
    fn start(count: usize, beats: &impl Fn(usize, usize) -> bool) -> Tournament {
        let mut it = Tournament { losers: vec![0; count.max(1)], winner: 0 };
        // Winners of the nodes below, leaves at `count` and behind.
        let mut winners: Vec<usize> = (0..2 * count).map(|it| it.saturating_sub(count)).collect();
        for node in (1..count).rev() {
            let (a, b) = (winners[2 * node], winners[2 * node + 1]);
            let (winner, loser) = if beats(b, a) { (b, a) } else { (a, b) };
            (winners[node], it.losers[node]) = (winner, loser);
        }
        it.winner = if count > 1 { winners[1] } else { 0 };
        it
    }

    /// After the winner's row has changed.
    fn replay(&mut self, beats: &impl Fn(usize, usize) -> bool) {
        let mut winner = self.winner;
        let mut node = (winner + self.losers.len()) / 2;
        while node >= 1 {
            if beats(self.losers[node], winner) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        self.winner = winner;
    }
}

/// What `Sources::next` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The row of this shard.
    Row(usize),
    /// A shard has to be fed or ended first.
    Wait,
    /// All shards have ended and their rows are through.
    End,
}

#[derive(Debug)]
pub(super) struct Sources {
    pub shards: Vec<Source>,
    tournament: Option<Tournament>,
    /// The row that `next` gave last; dealt with when `next` is called again.
    current: Option<usize>,
}

impl Sources {
    pub fn new(count: usize) -> Sources {
        let shards = (0..count).map(|_| Source::default()).collect();
        Sources { shards, tournament: None, current: None }
    }

    /// Moves on to the next row: the first in the order `sort`, or any where there is none. Of rows that are
    /// equal the one of the first shard.
    pub fn next(&mut self, columns: &[Column], sort: &[SortKey]) -> Result<Next, Refusal> {
        if let Some(shard) = self.current.take() {
            self.shards[shard].advance();
        }
        if sort.is_empty() {
            return self.next_of_any(columns);
        }
        // Before each comparison every shard that goes on has a row; later only the last winner may lack one.
        let changed = match &self.tournament {
            Some(it) => self.shards.get_mut(it.winner).map(std::slice::from_mut).unwrap_or_default(),
            None => &mut self.shards,
        };
        for it in changed {
            it.load(columns, sort)?;
            if !it.has_head() && !it.ended {
                return Ok(Next::Wait);
            }
        }
        let shards = &self.shards;
        let beats = |a: usize, b: usize| {
            let (x, y) = (&shards[a], &shards[b]);
            match (x.has_head(), y.has_head()) {
                (true, true) => {
                    let order = compare_keys(sort, (&x.keys, x.row().message), (&y.keys, y.row().message));
                    order.then(a.cmp(&b)).is_lt()
                }
                (has, _) => has,
            }
        };
        let tournament = match &mut self.tournament {
            Some(it) => {
                it.replay(&beats);
                it
            }
            none => none.insert(Tournament::start(shards.len(), &beats)),
        };
        let winner = tournament.winner;
        if !shards.get(winner).is_some_and(Source::has_head) {
            return Ok(Next::End);
        }
        self.current = Some(winner);
        Ok(Next::Row(winner))
    }

    fn next_of_any(&mut self, columns: &[Column]) -> Result<Next, Refusal> {
        match self.shards.iter().position(Source::has_rows) {
            Some(shard) => {
                self.shards[shard].load(columns, &[])?;
                self.current = Some(shard);
                Ok(Next::Row(shard))
            }
            None if self.shards.iter().all(|it| it.ended) => Ok(Next::End),
            None => Ok(Next::Wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tournament_gives_the_first_of_any_number() {
        for count in 1..20usize {
            let mut values: Vec<usize> = (0..count).map(|it| it * 7919 % 23).collect();
            let mut want = values.clone();
            want.sort_unstable();
            let mut tournament: Option<Tournament> = None;
            for value in want {
                let beats = |a: usize, b: usize| (values[a], a) < (values[b], b);
                let winner = match &mut tournament {
                    Some(it) => {
                        it.replay(&beats);
                        it.winner
                    }
                    none => none.insert(Tournament::start(count, &beats)).winner,
                };
                assert_eq!(values[winner], value, "of {count}");
                values[winner] = usize::MAX;
            }
        }
    }
}
