//! SHOW HOTSPOTS, KEYS, SKEW, HEATMAP, ADVICE: where the load is. What a key is called is shown to administrators; others see
//! its hash and its rank.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::tables::{Row, int, n, opt, sorted, t, text};
use crate::base::{Reason, Refusal, ShardId, SqlState};
use crate::client::{Database, Shared};
use crate::hotspot::{Bounds, Dimension, Heat, HeatMap, KeyReport, MapReport, Metric, Report};
use crate::wire::{Column, Value};

/// Rows and columns of a heat map: what a terminal shows.
const ROWS_MAX: usize = 32;
const COLUMNS_MAX: usize = 90;
/// From none to most.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const NOT_RECORDED: char = '·';

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    Hotspots,
    /// Of one map, or of all.
    Keys(Option<String>),
    Skew,
    HeatMap {
        map: String,
        metric: Metric,
        last: Duration,
    },
    Advice,
}

const HOTSPOTS: &[Column] = &[
    text("database"),
    text("map"),
    text("kind"),
    text("name"),
    text("shard"),
    text("heat"),
    text("since"),
    text("calls_per_second"),
    text("share_lower"),
    text("share_upper"),
    text("key"),
];
const KEYS: &[Column] = &[
    text("database"),
    text("map"),
    int("rank"),
    text("key"),
    text("hash"),
    text("table"),
    text("shard"),
    int("part"),
    text("heat"),
    text("calls_per_second"),
    text("reads_per_second"),
    text("writes_per_second"),
    text("calls_lower"),
    text("calls_upper"),
    text("time_lower"),
    text("time_upper"),
    int("span_s"),
];
const SKEW: &[Column] = &[
    text("database"),
    text("map"),
    text("dimension"),
    text("max_over_mean"),
    text("variation"),
    text("gini"),
    text("top_1_lower"),
    text("top_1_upper"),
    text("top_10_lower"),
    text("top_10_upper"),
    text("top_100_lower"),
    text("top_100_upper"),
    int("distinct_keys"),
    text("direction"),
    text("scattered"),
    text("heat"),
    int("span_s"),
];
const HEAT_MAP: &[Column] = &[text("part"), text("shard"), text("load"), text("per_second")];
const ADVICE: &[Column] = &[
    text("database"),
    text("map"),
    text("kind"),
    text("heat"),
    text("advice"),
    text("windows"),
    text("max_over_mean"),
    text("predicted"),
    text("snippet"),
];

impl View {
    pub fn columns(&self) -> &'static [Column] {
        match self {
            View::Hotspots => HOTSPOTS,
            View::Keys(_) => KEYS,
            View::Skew => SKEW,
            View::HeatMap { .. } => HEAT_MAP,
            View::Advice => ADVICE,
        }
    }

    /// `may_see_keys` is of an administrator.
    ///
    /// # Errors
    /// 42704 for a map that no database has.
    pub fn rows(&self, shared: &Shared, may_see_keys: bool) -> Result<Vec<Row>, Refusal> {
        let reports = || sorted(shared).into_iter().map(|it| (it, it.hotspots.report()));
        let rows = match self {
            View::Hotspots => reports().flat_map(|(it, report)| hot(it, &report, may_see_keys)).collect(),
            View::Skew => reports().flat_map(|(it, report)| skews(it, &report)).collect(),
            View::Advice => reports().flat_map(|(it, report)| advice(it, &report, may_see_keys)).collect(),
            View::Keys(map) => {
                let wanted = |it: &MapReport| map.as_ref().is_none_or(|name| *name == it.map);
                let (mut rows, mut found) = (Vec::new(), map.is_none());
                for (database, report) in reports() {
                    for of in report.maps.iter().filter(|it| wanted(it)) {
                        found = true;
                        rows.extend(of.keys.iter().map(|it| key(database, &report, of, it, may_see_keys)));
                    }
                }
                match found {
                    true => rows,
                    false => return Err(no_map(map.as_deref().unwrap_or_default())),
                }
            }
            View::HeatMap { map, metric, last } => {
                let draw = |it: &Database| it.hotspots.heat_map(map, *metric, *last, ROWS_MAX, COLUMNS_MAX);
                let found = sorted(shared).into_iter().find_map(|it| Some((it, draw(it)?)));
                let (database, drawn) = found.ok_or_else(|| no_map(map))?;
                heat_map(database, &drawn)
            }
        };
        Ok(rows)
    }
}

fn no_map(map: &str) -> Refusal {
    Refusal::new(Reason::Parse, SqlState("42704"), format!("map \"{map}\" does not exist"))
        .hint("SHOW SKEW lists the maps of all databases")
}

fn shard_name(database: &Database, shard: ShardId) -> Value {
    t(database.router.shard_name(shard))
}

fn heat(it: Heat) -> Value {
    Value::Text(if it == Heat::Cool { String::new() } else { it.label().to_uppercase() })
}

fn percent(share: f64) -> Value {
    Value::Text(format!("{:.2} %", share * 100.0))
}

/// Lower and upper end. What is certain is rounded down, what is possible up.
fn percents(of: Bounds) -> [Value; 2] {
    [percent((of.lower * 1e4).floor() / 1e4), percent((of.upper * 1e4).ceil() / 1e4)]
}

fn rate(count: f64, report: &Report) -> Value {
    Value::Text(format!("{:.1}", count / f64::from(report.span_s.max(1))))
}

fn since(at_s: Option<u64>) -> Value {
    let at = |it: u64| DateTime::<Utc>::from_timestamp(i64::try_from(it).ok()?, 0);
    opt(at_s.and_then(at), |it| Value::Text(it.format("%Y-%m-%d %H:%M:%S UTC").to_string()))
}

fn hash(it: u64) -> Value {
    Value::Text(format!("{it:016x}"))
}

fn hot(database: &Database, report: &Report, may_see_keys: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let total: u64 =
        report.shards.iter().map(|it| calls(&[it.primary_reads, it.primary_writes, it.replica_reads])).sum();
    for it in report.shards.iter().filter(|it| it.heat > Heat::Cool) {
        let of = calls(&[it.primary_reads, it.primary_writes, it.replica_reads]);
        let share = of as f64 / total.max(1) as f64;
        let [lower, upper] = [percent(share), percent(share)];
        let name = t(&it.shard);
        let (since, rate) = (since(it.hot_since_s), rate(of as f64, report));
        let (kind, shard) = (t("shard"), name.clone());
        let row =
            [t(&database.name), Value::Null, kind, name, shard, heat(it.heat), since, rate, lower, upper];
        rows.push(row.into_iter().chain([Value::Null]).collect());
    }
    for map in &report.maps {
        for it in map.keys.iter().filter(|it| it.heat > Heat::Cool) {
            let [lower, upper] = percents(it.calls_share);
            rows.push(vec![
                t(&database.name),
                t(&map.map),
                t("key"),
                hash(it.hash),
                shard_name(database, it.shard),
                heat(it.heat),
                since(it.hot_since_s),
                rate(it.calls.lower, report),
                lower,
                upper,
                key_text(it, may_see_keys),
            ]);
        }
        for it in map.hot_parts.iter().filter(|it| it.heat > Heat::Cool) {
            rows.push(vec![
                t(&database.name),
                t(&map.map),
                t(map.part_name),
                t(&it.name),
                shard_name(database, it.shard),
                heat(it.heat),
                Value::Null,
                rate((it.reads.calls + it.writes.calls) as f64, report),
                percent(it.calls_share),
                percent(it.calls_share),
                Value::Null,
            ]);
        }
    }
    rows
}

fn calls(loads: &[crate::hotspot::Load]) -> u64 {
    loads.iter().map(|it| it.calls).sum()
}

fn key_text(it: &KeyReport, may_see_keys: bool) -> Value {
    opt(it.text.as_deref().filter(|_| may_see_keys), t)
}

fn key(database: &Database, report: &Report, map: &MapReport, it: &KeyReport, may_see_keys: bool) -> Row {
    let [calls_lower, calls_upper] = percents(it.calls_share);
    let [time_lower, time_upper] = percents(it.time_share);
    vec![
        t(&database.name),
        t(&map.map),
        n(it.rank),
        key_text(it, may_see_keys),
        hash(it.hash),
        opt(it.table.as_deref(), t),
        shard_name(database, it.shard),
        n(it.part),
        heat(it.heat),
        rate(it.calls.lower, report),
        rate(it.reads.lower, report),
        rate(it.writes.lower, report),
        calls_lower,
        calls_upper,
        time_lower,
        time_upper,
        n(report.span_s),
    ]
}

fn skews(database: &Database, report: &Report) -> Vec<Row> {
    let figure = |it: f64| Value::Text(format!("{it:.3}"));
    let of_map = |map: &MapReport| {
        let row = |(dimension, it): (Dimension, &crate::hotspot::Skew)| {
            let tops = match dimension {
                Dimension::Calls => Some(map.top_shares[0]),
                Dimension::Time => Some(map.top_shares[1]),
                Dimension::Bytes => None,
            };
            let tops = tops.map_or([const { Value::Null }; 6].to_vec(), |it| {
                it.into_iter().flat_map(percents).collect::<Vec<_>>()
            });
            let mut row = vec![t(&database.name), t(&map.map), t(dimension.label())];
            row.extend([figure(it.max_over_mean), figure(it.variation), figure(it.gini)]);
            row.extend(tops);
            row.push(n(map.distinct_keys.round() as i64));
            row.push(opt(map.direction, figure));
            row.push(percent(map.scatter_ratio));
            row.extend([heat(map.heat), n(report.span_s)]);
            row
        };
        Dimension::ALL.into_iter().zip(&map.skews).map(row).collect::<Vec<_>>()
    };
    report.maps.iter().flat_map(of_map).collect()
}

fn advice(database: &Database, report: &Report, may_see_keys: bool) -> Vec<Row> {
    let figure = |it: f64| Value::Text(format!("{it:.2}"));
    let row = |it: &crate::hotspot::Advice| {
        vec![
            t(&database.name),
            opt(it.map.as_deref(), t),
            t(it.kind.label()),
            heat(it.heat),
            t(&it.text),
            Value::Text(format!("{} of {}", it.windows.0, it.windows.1)),
            opt(it.max_over_mean.map(|it| it.0), figure),
            opt(it.max_over_mean.map(|it| it.1), figure),
            opt(it.snippet.as_deref().filter(|_| may_see_keys), t),
        ]
    };
    report.advice.iter().map(row).collect()
}

/// A line for each row, each of its cells a block; the last line says what the shape is.
fn heat_map(database: &Database, drawn: &HeatMap) -> Vec<Row> {
    let most = drawn.cells.iter().flatten().fold(0.0f32, |a, b| a.max(*b));
    let width = drawn.columns.len();
    let lines = drawn.rows.iter().zip(drawn.cells.chunks(width.max(1)));
    let mut rows: Vec<Row> = lines
        .map(|(row, cells)| {
            let load: String = cells.iter().map(|it| block(*it, most)).collect();
            let known: Vec<f32> = cells.iter().flatten().copied().collect();
            let mean = known.iter().sum::<f32>() / known.len().max(1) as f32;
            let per_second = Value::Text(format!("{mean:.1}"));
            vec![t(&row.name), shard_name(database, row.shard), Value::Text(load), per_second]
        })
        .collect();
    rows.push(vec![Value::Null, Value::Null, t(drawn.shape.sentence()), Value::Null]);
    rows
}

/// On a logarithmic scale, over which a load of a hundredth is still seen.
fn block(cell: Option<f32>, most: f32) -> char {
    const DECADES: f32 = 3.0;
    match cell {
        None => NOT_RECORDED,
        Some(it) if it <= 0.0 || most <= 0.0 => BLOCKS[0],
        Some(it) => {
            let level = 1.0 + (it / most).log10() / DECADES;
            let top = (BLOCKS.len() - 1) as f32;
            BLOCKS[(level * top).ceil().clamp(1.0, top) as usize]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_with_the_logarithm_of_the_load() {
        let drawn: String =
            [0.0, 0.001, 1.0, 10.0, 100.0, 1_000.0].map(|it| block(Some(it), 1_000.0)).iter().collect();
        assert_eq!(drawn, " ▁▁▃▆█");
        assert_eq!((block(None, 5.0), block(Some(0.0), 0.0)), (NOT_RECORDED, ' '));
    }

    #[test]
    fn what_is_certain_is_rounded_down_and_what_is_possible_up() {
        let [lower, upper] = percents(Bounds { lower: 0.123_48, upper: 0.123_41 });
        assert_eq!((lower, upper), (t("12.34 %"), t("12.35 %")));
    }
}
