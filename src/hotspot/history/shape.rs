//! The shape that a picture of load has, as one who looks at it would name it.

use crate::hotspot::heatmap::Shape;

/// Fewer calls may lie anyhow.
const CALLS_MIN: u64 = 500;
const COLUMNS_MIN: usize = 5;
/// How much of the key space is a line, in rows of all.
const LINE_WIDTH: f64 = 0.05;
/// Of the load of a time, what a line has at least.
const LINE_SHARE: f64 = 0.5;
/// The same of a line of one row, which stands out sooner.
const ROW_SHARE: f64 = 0.2;
/// How many times as much as its part of the key space.
const LINE_FACTOR: f64 = 3.0;
/// Of the times, those in which it is there.
const LINE_TIMES: f64 = 0.7;
/// How closely what is hot follows the time: Pearson's correlation.
const DIAGONAL_CORRELATION: f64 = 0.8;
/// How much of the key space it has wandered through.
const DIAGONAL_WAY: f64 = 0.25;
/// Standard deviation over mean of the load of bands of the key space that look even.
const EVEN_VARIATION: f64 = 0.35;
const EVEN_BANDS: usize = 32;
/// The same of the load of times that are stripes.
const STRIPED_VARIATION: f64 = 0.5;

/// Rates row by row, so many columns in each, of so many calls in all.
pub fn shape(rates: &[Option<f32>], columns: usize, calls: u64) -> Shape {
    let rows = rates.len().checked_div(columns).unwrap_or(0);
    let cell = |row: usize, column: usize| rates.get(row * columns + column).copied().flatten();
    let is_recorded = |column: &usize| (0..rows).any(|row| cell(row, *column).is_some());
    let recorded: Vec<Vec<f64>> = (0..columns)
        .filter(is_recorded)
        .map(|column| (0..rows).map(|row| f64::from(cell(row, column).unwrap_or(0.0))).collect())
        .collect();
    if calls < CALLS_MIN || recorded.len() < COLUMNS_MIN || rows == 0 {
        return Shape::Unknown;
    }
    let totals: Vec<f64> = recorded.iter().map(|it| it.iter().sum()).collect();
    let mean = totals.iter().sum::<f64>() / totals.len() as f64;
    if mean <= 0.0 {
        return Shape::Unknown;
    }
    // Times of next to no load have no shape.
    let busy: Vec<&Vec<f64>> =
        recorded.iter().zip(&totals).filter(|(_, it)| **it >= mean / 20.0).map(|it| it.0).collect();
    if is_diagonal(&busy, rows) {
        return Shape::Diagonal;
    }
    let rows_loads: Vec<f64> = (0..rows).map(|row| recorded.iter().map(|it| it[row]).sum()).collect();
    if is_line(&busy, &rows_loads) {
        return Shape::Line;
    }
    if variation(&bands(&rows_loads)) > EVEN_VARIATION {
        return Shape::Uneven;
    }
    if variation(&totals) >= STRIPED_VARIATION { Shape::Striped } else { Shape::Even }
}

fn line_width(rows: usize) -> usize {
    ((rows as f64 * LINE_WIDTH).round() as usize).max(1)
}

/// What so many rows have if they stand out; where rows are few, any has much.
fn share_wanted(share: f64, width: usize, rows: usize) -> f64 {
    let factor = LINE_FACTOR * width as f64 / rows as f64;
    share.max(factor.min(0.9))
}

fn is_line(busy: &[&Vec<f64>], loads: &[f64]) -> bool {
    let mut ordered: Vec<usize> = (0..loads.len()).collect();
    ordered.sort_by(|a, b| loads[*b].total_cmp(&loads[*a]));
    let stands_out = |width: usize, share_min: f64| {
        let hottest = ordered.get(..width).unwrap_or_default();
        let share =
            |column: &[f64]| hottest.iter().map(|it| column[*it]).sum::<f64>() / column.iter().sum::<f64>();
        let wanted = share_wanted(share_min, width, loads.len());
        let there = busy.iter().filter(|it| share(it) >= wanted).count();
        share(loads) >= wanted && there as f64 >= busy.len() as f64 * LINE_TIMES
    };
    loads.len() > 1 && (stands_out(line_width(loads.len()), LINE_SHARE) || stands_out(1, ROW_SHARE))
}

fn is_diagonal(busy: &[&Vec<f64>], rows: usize) -> bool {
    let width = line_width(rows);
    // The hottest run of neighbours of each time, and its share.
    let hottest = |column: &[f64]| {
        let mut sum: f64 = column.get(..width).unwrap_or_default().iter().sum();
        let mut best = (0, sum);
        for at in width..column.len() {
            sum += column[at] - column[at - width];
            if sum > best.1 {
                best = (at + 1 - width, sum);
            }
        }
        (best.0 as f64, best.1 / column.iter().sum::<f64>())
    };
    let places: Vec<(f64, f64)> = busy.iter().map(|it| hottest(it)).collect();
    let wanted = share_wanted(LINE_SHARE, width, rows);
    let concentrated = places.iter().filter(|it| it.1 >= wanted).count();
    if places.len() < COLUMNS_MIN || (concentrated as f64) < places.len() as f64 * LINE_TIMES {
        return false;
    }
    let way: Vec<f64> = places.iter().map(|it| it.0).collect();
    let low = way.iter().copied().fold(f64::INFINITY, f64::min);
    let high = way.iter().copied().fold(0.0, f64::max);
    (high - low) >= rows as f64 * DIAGONAL_WAY && correlation_with_time(&way).abs() >= DIAGONAL_CORRELATION
}

/// Pearson's; 0 where nothing changes.
fn correlation_with_time(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let (time_mean, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let (mut both, mut times, mut own) = (0.0, 0.0, 0.0);
    for (time, value) in values.iter().enumerate() {
        let (time, value) = (time as f64 - time_mean, value - mean);
        both += time * value;
        times += time * time;
        own += value * value;
    }
    if own == 0.0 { 0.0 } else { both / (times * own).sqrt() }
}

/// Sums of neighbours, so that chance evens out; none where rows are few.
fn bands(loads: &[f64]) -> Vec<f64> {
    if loads.len() <= EVEN_BANDS {
        return loads.to_vec();
    }
    // Bands differ in length by one row, so that they are compared by their mean.
    let edge = |band: usize| band * loads.len() / EVEN_BANDS;
    (0..EVEN_BANDS)
        .map(|it| &loads[edge(it)..edge(it + 1)])
        .map(|it| it.iter().sum::<f64>() / it.len() as f64)
        .collect()
}

fn variation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if mean <= 0.0 {
        return 0.0;
    }
    (values.iter().map(|it| (it / mean - 1.0).powi(2)).sum::<f64>() / count).sqrt()
}
