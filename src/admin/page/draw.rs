//! Small pictures as SVG. Sizes are attributes, since the page's policy allows no inline style; what a picture says also
//! stands beside it as a figure or in its label.

use std::fmt::Write;

use super::html::{Text, put, rate};
use crate::hotspot::Bounds;

const SPARK_HEIGHT: f32 = 20.0;
const SPARK_STEP: f32 = 2.0;

/// A share from 0 to 1, as a width of 100.
fn width(share: f64) -> f64 {
    if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { 0.0 }
}

/// Reads and writes of one shard against the busiest one, with a line at the mean of all.
pub fn load_bar(reads: f64, writes: f64, most: f64, mean: f64) -> String {
    let of = |it: f64| if most > 0.0 { width(it / most) } else { 0.0 };
    let (reads, writes) = (of(reads), of(writes));
    let mean = of(mean);
    format!(
        "<svg class=bar viewBox=\"0 0 100 10\" preserveAspectRatio=none aria-hidden=true>\
         <rect class=reads width=\"{reads:.2}\" height=10 />\
         <rect class=writes x=\"{reads:.2}\" width=\"{writes:.2}\" height=10 />\
         <line class=mean x1=\"{mean:.2}\" x2=\"{mean:.2}\" y1=0 y2=10 /></svg>"
    )
}

/// How full something is.
pub fn fill_bar(share: f64) -> String {
    let class = if share >= 1.0 { "full" } else { "part" };
    format!(
        "<svg class=\"bar fill\" viewBox=\"0 0 100 10\" preserveAspectRatio=none aria-hidden=true>\
         <rect class={class} width=\"{:.2}\" height=10 /></svg>",
        width(share)
    )
}

/// A share that lies between two ends: solid up to the lower, open up to the upper, a whisker over both.
pub fn whisker(share: Bounds, is_hot: bool) -> String {
    let (lower, upper) = (width(share.lower), width(share.upper));
    let class = if is_hot { "bar whisker hot" } else { "bar whisker" };
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 100 10\" preserveAspectRatio=none aria-hidden=true>\
         <rect class=sure width=\"{lower:.2}\" height=10 />\
         <rect class=maybe x=\"{lower:.2}\" width=\"{:.2}\" height=10 />\
         <path d=\"M{lower:.2} 1V9M{lower:.2} 5H{upper:.2}M{upper:.2} 1V9\" /></svg>",
        upper - lower
    )
}

/// Rates of the last minutes, the oldest first; the newest is at the right end, however few there are.
pub fn sparkline(history: &[f32], length: usize, interval_s: u64, what: &str) -> String {
    let most = history.iter().copied().fold(0.0f32, f32::max);
    let mut points = String::new();
    let start = length.saturating_sub(history.len());
    for (index, value) in history.iter().rev().take(length).rev().enumerate() {
        let x = (start + index) as f32 * SPARK_STEP;
        let y = if most > 0.0 {
            SPARK_HEIGHT - 1.0 - value / most * (SPARK_HEIGHT - 2.0)
        } else {
            SPARK_HEIGHT - 1.0
        };
        put!(points, "{x:.0},{y:.1} ");
    }
    let least = history.iter().copied().fold(most, f32::min);
    let minutes = history.len() as u64 * interval_s / 60;
    let span = if minutes > 0 { format!("{minutes} min") } else { "first minute".to_owned() };
    let label = format!("{what}, {span}: {} to {} requests/s", rate(f64::from(least)), rate(f64::from(most)));
    format!(
        "<svg class=spark viewBox=\"0 0 {:.0} {SPARK_HEIGHT:.0}\" preserveAspectRatio=none role=img aria-label=\"{}\">\
         <title>{}</title><polyline points=\"{}\" /></svg>",
        length.saturating_sub(1).max(1) as f32 * SPARK_STEP,
        Text(&label),
        Text(&label),
        points.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_what_they_show() {
        let bar = load_bar(30.0, 10.0, 80.0, 20.0);
        assert!(bar.contains("class=reads width=\"37.50\""), "{bar}");
        assert!(bar.contains("class=writes x=\"37.50\" width=\"12.50\""), "{bar}");
        assert!(bar.contains("x1=\"25.00\""), "{bar}");
        assert!(load_bar(0.0, 0.0, 0.0, 0.0).contains("class=reads width=\"0.00\""));
        assert!(fill_bar(0.5).contains("class=part width=\"50.00\"") && fill_bar(1.0).contains("class=full"));
        assert!(fill_bar(f64::NAN).contains("width=\"0.00\""));
    }

    #[test]
    fn whiskers_span_what_is_not_sure() {
        let it = whisker(Bounds { lower: 0.25, upper: 0.5 }, true);
        assert!(it.contains("class=\"bar whisker hot\"") && it.contains("class=sure width=\"25.00\""));
        assert!(it.contains("class=maybe x=\"25.00\" width=\"25.00\""), "{it}");
        assert!(it.contains("M25.00 1V9M25.00 5H50.00M50.00 1V9"), "{it}");
    }

    #[test]
    fn lines_end_at_the_right() {
        let it = sparkline(&[0.0, 10.0], 4, 5, "s1");
        assert!(it.contains("points=\"4,19.0 6,1.0\"") && it.contains("viewBox=\"0 0 6 20\""), "{it}");
        assert!(it.contains("aria-label=\"s1, first minute: 0.0 to 10.0 requests/s\""), "{it}");
        assert!(sparkline(&[], 60, 5, "s1").contains("points=\"\""));
        assert!(sparkline(&[1.0; 60], 60, 5, "s1").contains("s1, 5 min: 1.0 to 1.0"));
    }
}
