//! What was counted of each run of a map's parts.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::load::Load;
use crate::base::{Access, NumberHasher};

/// Of reads or of writes of a run, as long as it is so little. Four of them share a cache line: statements touch them in
/// no order, and what they touch is what others lose from the caches.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Cell {
    calls: u32,
    rows: u32,
    bytes: u32,
    time_us: u32,
}

impl Cell {
    /// `None` where it has no room for that.
    #[inline]
    fn plus(self, load: &Load) -> Option<Cell> {
        let calls = u64::from(self.calls) + load.calls;
        let rows = u64::from(self.rows) + load.rows;
        let bytes = u64::from(self.bytes) + load.bytes;
        let time_us = u64::from(self.time_us) + load.time_us;
        let fits = calls | rows | bytes | time_us <= u64::from(u32::MAX) && load.errors == 0;
        let [calls, rows, bytes, time_us] = [calls, rows, bytes, time_us].map(|it| it as u32);
        fits.then_some(Cell { calls, rows, bytes, time_us })
    }

    fn load(self) -> Load {
        let Cell { calls, rows, bytes, time_us } = self;
        Load {
            calls: calls.into(),
            rows: rows.into(),
            bytes: bytes.into(),
            time_us: time_us.into(),
            errors: 0,
        }
    }
}

/// Exact sums by run and access.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    reads: Box<[Cell]>,
    writes: Box<[Cell]>,
    /// What cells have no room for: at most a load for each of them.
    large: HashMap<u64, Load, BuildHasherDefault<NumberHasher>>,
}

/// In `large`.
fn number(run: usize, access: Access) -> u64 {
    (run as u64) << 1 | u64::from(access == Access::Write)
}

impl Cells {
    pub fn new(runs: usize) -> Cells {
        let cells = || vec![Cell::default(); runs].into_boxed_slice();
        Cells { reads: cells(), writes: cells(), large: HashMap::default() }
    }

    /// Runs.
    pub fn len(&self) -> usize {
        self.reads.len()
    }

    #[inline]
    pub fn add(&mut self, run: usize, access: Access, load: &Load) {
        let cells = match access {
            Access::Read => &mut self.reads,
            Access::Write => &mut self.writes,
        };
        let Some(cell) = cells.get_mut(run) else { return };
        match cell.plus(load) {
            Some(sum) => *cell = sum,
            None => self.add_large(run, access, load),
        }
    }

    #[cold]
    fn add_large(&mut self, run: usize, access: Access, load: &Load) {
        *self.large.entry(number(run, access)).or_default() += *load;
    }

    /// Reads what `add` will change, for no more than that it is in the cache then.
    #[inline]
    pub fn fetch(&self, run: usize, access: Access) -> u64 {
        let cells = if access == Access::Read { &self.reads } else { &self.writes };
        cells.get(run).map_or(0, |it| it.calls.into())
    }

    fn load(&self, run: usize, access: Access, cell: Cell) -> Load {
        let mut load = cell.load();
        if !self.large.is_empty()
            && let Some(more) = self.large.get(&number(run, access))
        {
            load += *more;
        }
        load
    }

    /// Reads and writes of each run.
    pub fn loads(&self) -> impl ExactSizeIterator<Item = (Load, Load)> {
        self.reads.iter().zip(&self.writes).enumerate().map(|(run, (reads, writes))| {
            (self.load(run, Access::Read, *reads), self.load(run, Access::Write, *writes))
        })
    }

    /// Of as many runs.
    pub fn merge(&mut self, other: &Cells) {
        for (run, (reads, writes)) in other.loads().enumerate() {
            self.add(run, Access::Read, &reads);
            self.add(run, Access::Write, &writes);
        }
    }

    pub fn clear(&mut self) {
        self.reads.fill(Cell::default());
        self.writes.fill(Cell::default());
        self.large.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load() -> impl Strategy<Value = Load> {
        let number = || prop_oneof![0..10u64, 0..(1u64 << 33), Just(u64::from(u32::MAX)), Just(1 << 40)];
        (0..3u64, number(), number(), number(), 0..2u64)
            .prop_map(|(calls, rows, bytes, time_us, errors)| Load { calls, rows, bytes, time_us, errors })
    }

    proptest! {
        #[test]
        fn sums_are_exact_however_large_and_in_whatever_order_they_are_merged(
            added in prop::collection::vec((0..2usize, 0..3usize, any::<bool>(), load()), 0..60),
        ) {
            let (mut halves, mut sums) = ([Cells::new(3), Cells::new(3)], [(Load::default(), Load::default()); 3]);
            for (half, run, writes, load) in added {
                let access = if writes { Access::Write } else { Access::Read };
                halves[half].add(run, access, &load);
                *(if writes { &mut sums[run].1 } else { &mut sums[run].0 }) += load;
            }
            let [mut first, second] = halves;
            first.merge(&second);
            prop_assert_eq!(first.loads().collect::<Vec<_>>(), sums);
            let mut other = second.clone();
            other.clear();
            other.merge(&first);
            prop_assert_eq!(other.loads().collect::<Vec<_>>(), sums);
        }
    }

    #[test]
    fn what_is_of_no_run_is_of_none() {
        let mut cells = Cells::new(1);
        cells.add(1, Access::Read, &Load { errors: 1, ..Load::default() });
        assert!(cells.len() == 1 && cells.loads().all(|it| it == <(Load, Load)>::default()));
    }
}
