//! What was recorded of a map in a span of time.

use super::layout::{Conversion, Layout};
use super::packed::Plane;
use crate::hotspot::{Load, Metric};

pub const MEASURES: usize = 6;

/// What is kept of a load: what a `Metric` needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Reads,
    Writes,
    Rows,
    Bytes,
    Time,
    Errors,
}

impl Measure {
    pub const ALL: [Measure; MEASURES] =
        [Measure::Reads, Measure::Writes, Measure::Rows, Measure::Bytes, Measure::Time, Measure::Errors];

    fn of(self, reads: &Load, writes: &Load) -> u64 {
        let metric = match self {
            Measure::Reads => Metric::Reads,
            Measure::Writes => Metric::Writes,
            Measure::Rows => Metric::Rows,
            Measure::Bytes => Metric::Bytes,
            Measure::Time => Metric::Time,
            Measure::Errors => Metric::Errors,
        };
        metric.of(reads, writes)
    }

    /// The sum of these is the metric.
    pub fn of_metric(metric: Metric) -> &'static [Measure] {
        match metric {
            Metric::Calls => &[Measure::Reads, Measure::Writes],
            Metric::Reads => &[Measure::Reads],
            Metric::Writes => &[Measure::Writes],
            Metric::Rows => &[Measure::Rows],
            Metric::Bytes => &[Measure::Bytes],
            Metric::Time => &[Measure::Time],
            Metric::Errors => &[Measure::Errors],
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub from_s: u64,
    /// Not in it.
    pub to_s: u64,
    /// Of that span, what was counted: rates are per second of this.
    pub covered_s: u32,
    /// One bit a row, of rows of which it is known; all where there is none. A map that changed has parts that were
    /// not there before.
    pub known: Option<Box<[u64]>>,
    pub rows: [Plane; MEASURES],
    pub shards: [Plane; MEASURES],
}

impl Recorded {
    /// Of the loads of parts, in any order, reads and writes apart. Parts that the layout has not are left out.
    pub fn new(
        layout: &Layout,
        span: (u64, u64),
        loads: impl Iterator<Item = (u32, Load, Load)>,
    ) -> Recorded {
        let row_of_parts = layout.row_of_parts();
        let mut rows = vec![vec![0u64; layout.rows.len()]; MEASURES];
        let mut shards = vec![vec![0u64; layout.shards.len()]; MEASURES];
        for (part, reads, writes) in loads {
            let Some(row) = row_of_parts.get(part as usize) else { continue };
            let shard = layout.part_shards.get(part as usize).map(|it| usize::from(it.0));
            for (at, measure) in Measure::ALL.into_iter().enumerate() {
                let value = measure.of(&reads, &writes);
                if let Some(sum) = rows[at].get_mut(usize::from(*row)) {
                    *sum = sum.saturating_add(value);
                }
                if let Some(sum) = shard.and_then(|it| shards[at].get_mut(it)) {
                    *sum = sum.saturating_add(value);
                }
            }
        }
        Recorded {
            from_s: span.0,
            to_s: span.1,
            covered_s: u32::try_from(span.1 - span.0).unwrap_or(u32::MAX),
            known: None,
            rows: planes(&rows),
            shards: planes(&shards),
        }
    }

    pub fn is_known(&self, row: usize) -> bool {
        let bit = |words: &[u64]| words.get(row / 64).is_some_and(|it| it >> (row % 64) & 1 == 1);
        self.known.as_deref().is_none_or(bit)
    }

    /// Takes in what follows, of which the same rows are known.
    pub fn append(&mut self, next: &Recorded, layout: &Layout) {
        self.from_s = self.from_s.min(next.from_s);
        self.to_s = self.to_s.max(next.to_s);
        self.covered_s = self.covered_s.saturating_add(next.covered_s);
        let add = |mine: &mut Plane, next: &Plane, width: usize| {
            if *next != Plane::Zero {
                let mut sums = vec![0; width];
                mine.add_to(&mut sums);
                next.add_to(&mut sums);
                *mine = Plane::of(&sums);
            }
        };
        for (mine, next) in self.rows.iter_mut().zip(&next.rows) {
            add(mine, next, layout.rows.len());
        }
        for (mine, next) in self.shards.iter_mut().zip(&next.shards) {
            add(mine, next, layout.shards.len());
        }
    }

    /// In the rows of another layout. Load of a row is taken to be even over its parts.
    pub fn convert(&self, conversion: &Conversion, old: &Layout) -> Recorded {
        let mut known = vec![0u64; conversion.rows.len().div_ceil(64)];
        for (at, sources) in conversion.rows.iter().enumerate() {
            let all_known = |it: &Vec<(u16, f64)>| it.iter().all(|it| self.is_known(usize::from(it.0)));
            known[at / 64] |= u64::from(sources.as_ref().is_some_and(all_known)) << (at % 64);
        }
        let rows: Vec<Vec<u64>> = self
            .rows
            .iter()
            .map(|plane| {
                let mut before = vec![0; old.rows.len()];
                plane.add_to(&mut before);
                let part =
                    |it: &(u16, f64)| before.get(usize::from(it.0)).map_or(0.0, |value| *value as f64 * it.1);
                let row =
                    |it: &Option<Vec<(u16, f64)>>| it.iter().flatten().map(part).sum::<f64>().round() as u64;
                conversion.rows.iter().map(row).collect()
            })
            .collect();
        let shards: Vec<Vec<u64>> = self
            .shards
            .iter()
            .map(|plane| {
                let mut before = vec![0; old.shards.len()];
                plane.add_to(&mut before);
                let of =
                    |it: &Option<u16>| it.and_then(|it| before.get(usize::from(it))).copied().unwrap_or(0);
                conversion.shards.iter().map(of).collect()
            })
            .collect();
        let all_known = (0..conversion.rows.len()).all(|it| known[it / 64] >> (it % 64) & 1 == 1);
        Recorded {
            known: (!all_known).then(|| known.into_boxed_slice()),
            rows: planes(&rows),
            shards: planes(&shards),
            ..*self
        }
    }

    /// On the heap.
    pub fn bytes(&self) -> usize {
        let planes = self.rows.iter().chain(&self.shards).map(Plane::bytes).sum::<usize>();
        planes + self.known.as_deref().map_or(0, size_of_val::<[u64]>)
    }
}

fn planes(values: &[Vec<u64>]) -> [Plane; MEASURES] {
    std::array::from_fn(|at| values.get(at).map_or(Plane::Zero, |it| Plane::of(it)))
}
