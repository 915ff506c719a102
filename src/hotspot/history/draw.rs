//! From what was recorded to a picture of so many rows and columns.

use super::recorded::{Measure, Recorded};
use super::shape::shape;
use super::{History, LEVELS, MapHistory};
use crate::base::ShardId;
use crate::hotspot::heatmap::{Column, HeatMap, Metric, Row, Shape};

/// More columns than are ever recorded.
const COLUMNS_MAX: usize = 1_000;
/// Nothing is older.
const LAST_MAX_S: u64 = 50 * 86_400;
/// Of what is looked at for its shape while a picture has few.
const SHORT_COLUMNS: u64 = 30;

/// Load of shards over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardSeries {
    pub columns: Vec<Column>,
    /// Shard by shard, per second; `None` where nothing was recorded.
    pub cells: Vec<Option<f32>>,
}

/// Load and covered seconds of each row in each column.
struct Grid {
    columns: Vec<Column>,
    rows: usize,
    /// Row by row.
    sums: Vec<f32>,
    covered_s: Vec<f32>,
}

impl History {
    /// The last seconds before `now_s`, in at most so many rows and columns; `None` where there is no such map.
    /// Neighbours of little load are one row, busy parts have rows of their own.
    pub fn heat_map(
        &self,
        map: &str,
        metric: Metric,
        last_s: u64,
        size_max: (usize, usize),
        now_s: u64,
    ) -> Option<HeatMap> {
        let map = self.map(map)?;
        let (rows_max, columns_max) = size_max;
        let columns = map.spans(last_s, columns_max, now_s);
        let from_s = columns.first().map_or(now_s, |it| it.from_s);
        let grid = map.grid(metric, columns);
        let rates = grid.rates();
        let calls = map.calls_since(from_s);
        let shape = match shape(&rates, grid.columns.len(), calls) {
            Shape::Unknown => map.shape_in_short(metric, from_s, now_s, calls),
            known => known,
        };
        let groups = groups(&map.row_loads(&rates, grid.columns.len()), rows_max);
        let cells = groups.iter().flat_map(|it| merged(&rates, grid.columns.len(), it.clone())).collect();
        let rows = groups.iter().filter_map(|it| map.row(it.clone())).collect();
        let marks = self.marks.iter().filter(|it| (from_s..=now_s).contains(&it.at_s)).cloned().collect();
        Some(HeatMap { columns: grid.columns, rows, cells, marks, shape })
    }

    /// What each of a map's shards had, as it was: parts that have moved since count where they were.
    pub fn shard_series(
        &self,
        map: &str,
        metric: Metric,
        last_s: u64,
        columns_max: usize,
        now_s: u64,
    ) -> Option<ShardSeries> {
        let map = self.map(map)?;
        let columns = map.spans(last_s, columns_max, now_s);
        let mut grid = Grid::new(columns, map.layout.shards.len());
        for (_, recorded) in map.columns() {
            grid.add(recorded, metric, &recorded.shards, |_| true);
        }
        let cells = grid.rates();
        Some(ShardSeries { columns: grid.columns, cells })
    }
}

impl MapHistory {
    /// Columns of one length that end with the moment, of the length of the longest spans that were recorded in that
    /// time, or a multiple of it.
    fn spans(&self, last_s: u64, columns_max: usize, now_s: u64) -> Vec<Column> {
        let last_s = last_s.min(LAST_MAX_S);
        let from_s = now_s.saturating_sub(last_s);
        let inside = self.columns().filter(|(_, it)| it.to_s > from_s && it.from_s < now_s);
        let unit_s = inside.map(|it| it.0.span_s).max().unwrap_or(LEVELS[0].span_s);
        let units = last_s.div_ceil(unit_s).max(1);
        let length_s = units.div_ceil(columns_max.clamp(1, COLUMNS_MAX) as u64) * unit_s;
        let end_s = now_s.div_ceil(unit_s) * unit_s;
        let count = (units * unit_s).div_ceil(length_s);
        let column = |it: u64| {
            let to_s = end_s.saturating_sub((count - 1 - it) * length_s);
            Column { from_s: to_s.saturating_sub(length_s), to_s }
        };
        // Before 1970 there is nothing.
        (0..count).map(column).filter(|it| it.from_s < it.to_s).collect()
    }

    fn grid(&self, metric: Metric, columns: Vec<Column>) -> Grid {
        let mut grid = Grid::new(columns, self.layout.rows.len());
        for (_, recorded) in self.columns() {
            grid.add(recorded, metric, &recorded.rows, |row| recorded.is_known(row));
        }
        grid
    }

    /// In columns of a part of what was recorded, of a window at least: a picture has few while its map is young.
    fn shape_in_short(&self, metric: Metric, from_s: u64, now_s: u64, calls: u64) -> Shape {
        let mut inside = self.columns().filter(|(_, it)| it.to_s > from_s && it.from_s < now_s);
        let Some((_, first)) = inside.next() else { return Shape::Unknown };
        let from_s = first.from_s.max(from_s);
        let length_s = (now_s - from_s).div_ceil(SHORT_COLUMNS).max(LEVELS[0].span_s);
        let column = |it: u64| {
            let from_s = from_s + it * length_s;
            Column { from_s, to_s: (from_s + length_s).min(now_s) }
        };
        let columns = (0..(now_s - from_s).div_ceil(length_s)).map(column).collect();
        let grid = self.grid(metric, columns);
        shape(&grid.rates(), grid.columns.len(), calls)
    }

    fn calls_since(&self, from_s: u64) -> u64 {
        let mut calls = 0u64;
        for (_, recorded) in self.columns().filter(|(_, it)| it.to_s > from_s) {
            for measure in Measure::of_metric(Metric::Calls) {
                recorded.rows[*measure as usize].each(|_, it| calls = calls.saturating_add(it));
            }
        }
        calls
    }

    fn row_loads(&self, rates: &[Option<f32>], columns: usize) -> Vec<(ShardId, f64)> {
        let load = |at: usize| {
            let cells = rates.get(at * columns..(at + 1) * columns).unwrap_or_default();
            cells.iter().flatten().map(|it| f64::from(*it)).sum::<f64>()
        };
        self.layout.rows.iter().enumerate().map(|(at, it)| (it.shard, load(at))).collect()
    }

    fn row(&self, group: std::ops::Range<usize>) -> Option<Row> {
        let rows = self.layout.rows.get(group)?;
        let (first, last) = (rows.first()?, rows.last()?);
        let (first_part, last_part) = (first.first, last.end.saturating_sub(1));
        let name = self.layout.name(first_part, last_part);
        Some(Row { first_part, last_part, shard: first.shard, name })
    }
}

impl Grid {
    fn new(columns: Vec<Column>, rows: usize) -> Grid {
        let cells = columns.len() * rows;
        Grid { columns, rows, sums: vec![0.0; cells], covered_s: vec![0.0; cells] }
    }

    /// What was recorded is taken to be even over its span.
    fn add(
        &mut self,
        recorded: &Recorded,
        metric: Metric,
        planes: &[super::packed::Plane],
        is_known: impl Fn(usize) -> bool,
    ) {
        let length_s = (recorded.to_s - recorded.from_s) as f32;
        let count = self.columns.len();
        for (at, column) in self.columns.iter().enumerate() {
            let (from_s, to_s) = (column.from_s.max(recorded.from_s), column.to_s.min(recorded.to_s));
            if from_s >= to_s {
                continue;
            }
            let share = (to_s - from_s) as f32 / length_s;
            let covered_s = share * recorded.covered_s as f32;
            for row in (0..self.rows).filter(|it| is_known(*it)) {
                self.covered_s[row * count + at] += covered_s;
            }
            for measure in Measure::of_metric(metric) {
                if let Some(plane) = planes.get(*measure as usize) {
                    plane.each(|row, value| {
                        if is_known(row)
                            && let Some(sum) = self.sums.get_mut(row * count + at)
                        {
                            *sum += value as f32 * share;
                        }
                    });
                }
            }
        }
    }

    fn rates(&self) -> Vec<Option<f32>> {
        let rate = |(sum, covered_s): (&f32, &f32)| (*covered_s > 0.0).then(|| sum / covered_s);
        self.sums.iter().zip(&self.covered_s).map(rate).collect()
    }
}

/// Runs of rows of one shard, at most `rows_max` of them, whose largest load is as small as it can be. As long as
/// shards are no more than rows; else runs are of several shards.
fn groups(loads: &[(ShardId, f64)], rows_max: usize) -> Vec<std::ops::Range<usize>> {
    let rows_max = rows_max.max(1);
    if loads.len() <= rows_max {
        return (0..loads.len()).map(|it| it..it + 1).collect();
    }
    let total = loads.iter().map(|it| it.1).sum::<f64>();
    let by_shard = runs(loads, f64::INFINITY, true).len() <= rows_max;
    let (mut low, mut high) = (0.0, total.max(1.0) * 2.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if runs(loads, middle, by_shard).len() <= rows_max { high = middle } else { low = middle }
    }
    runs(loads, high, by_shard)
}

fn runs(loads: &[(ShardId, f64)], load_max: f64, by_shard: bool) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    let mut sum = 0.0;
    for (at, (shard, load)) in loads.iter().enumerate() {
        let is_other_shard = at > 0 && loads[at - 1].0 != *shard;
        match runs.last_mut() {
            Some(run) if sum + load <= load_max && !(by_shard && is_other_shard) => {
                run.end = at + 1;
                sum += load;
            }
            _ => {
                runs.push(at..at + 1);
                sum = *load;
            }
        }
    }
    runs
}

/// One row of several.
fn merged(
    rates: &[Option<f32>],
    columns: usize,
    rows: std::ops::Range<usize>,
) -> impl Iterator<Item = Option<f32>> {
    (0..columns).map(move |column| {
        let cell = |row: usize| rates.get(row * columns + column).copied().flatten();
        rows.clone().filter_map(cell).reduce(|a, b| a + b)
    })
}
