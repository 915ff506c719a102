//! The heat map: time across, key space down, drawn as one path for each of sixteen levels of heat.

use std::fmt::Write;

use super::html::{Text, clock, encoded, metric_value, percent, put};
use super::shards::{TABLE_END, colour, table_head};
use super::view::{BRIGHTNESS_MAX, SPANS};
use super::{Facts, HEAT_COLUMNS, HEAT_ROWS};
use crate::hotspot::{HeatMap, MarkKind, Metric};

const LEVELS: usize = 16;
/// The coldest level is so many times less than the hottest.
const SPAN_OF_COLOURS: f64 = 256.0;
/// Load that is even is no heat: the hottest colour is for at least so many times the mean.
const HOTTEST_OVER_MEAN: f64 = 16.0;
/// In pixels; the map is as wide as there is room.
const HEIGHT: usize = 336;
const BANDS_WIDTH: usize = 56;
/// Of a name in a band.
const TEXT_HEIGHT: usize = 14;
const TICKS: usize = 5;

/// From the coldest to the hottest colour, per second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(cells: &[Option<f32>]) -> Option<Scale> {
        let positive = || cells.iter().flatten().filter(|it| **it > 0.0).map(|it| f64::from(*it));
        let count = positive().count();
        let mean = positive().sum::<f64>() / count.max(1) as f64;
        let high = positive().fold(HOTTEST_OVER_MEAN * mean, f64::max);
        (count > 0 && high.is_finite()).then_some(Scale { low: high / SPAN_OF_COLOURS, high })
    }

    fn level(self, value: f64) -> usize {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        (share * (LEVELS - 1) as f64).round().clamp(0.0, (LEVELS - 1) as f64) as usize
    }
}

/// Selects that belong to the page's one form.
pub fn controls(facts: &Facts) -> String {
    let mut out = String::from("<div class=controls role=group aria-label=\"Heat map\">");
    let shown = facts.map().map(|it| it.map.as_str());
    let mut select = |name: &str, label: &str, options: Vec<(&str, &str)>, chosen: &str| {
        put!(out, "<label>{label} <select form=view name={name}>");
        for (value, text) in options {
            let selected = if value == chosen { " selected" } else { "" };
            put!(out, "<option value=\"{}\"{selected}>{}</option>", Text(value), Text(text));
        }
        out.push_str("</select></label>");
    };
    let maps = facts.report.maps.iter().map(|it| (it.map.as_str(), it.map.as_str())).collect();
    select("map", "Map", maps, shown.unwrap_or(""));
    let metrics = Metric::ALL.iter().map(|it| (it.label(), it.label())).collect();
    select("metric", "Colour by", metrics, facts.view.metric.label());
    let spans = SPANS.iter().map(|it| (it.0, it.1)).collect();
    select("last", "Last", spans, SPANS[facts.view.span].0);
    put!(
        out,
        "<label>Brightness <input form=view type=range name=brightness min=-{BRIGHTNESS_MAX} max={BRIGHTNESS_MAX} value={}></label>\
         <button form=view class=submit>Show</button></div>",
        facts.view.brightness
    );
    out
}

pub fn heat(facts: &Facts) -> String {
    let Some(map) = facts.map() else {
        return "<p class=empty>No map places keys on shards here.</p>".to_owned();
    };
    let heat =
        facts.heat.as_ref().map(since_first).filter(|it| !it.rows.is_empty() && !it.columns.is_empty());
    let Some(heat) = &heat else {
        return "<p class=empty>Nothing was counted yet: a window takes ten seconds.</p>".to_owned();
    };
    let Some(scale) = Scale::of(&heat.cells) else {
        return format!("<p class=empty>No key of {} was named in this time.</p>", Text(&map.map));
    };
    let database = facts.database().map_or("", |it| it.name.as_str());
    let (metric, view) = (facts.view.metric, &facts.view);
    let mut out = format!("<p class=shape><b>{}</b></p><div class=heat>", Text(heat.shape.sentence()));
    bands(&mut out, facts, heat);
    let label = format!(
        "Heat map of {}: {} per second, {} of time across, {} ranges of keys down. {} Arrow keys move, the figures are below.",
        map.map,
        metric.label(),
        SPANS[view.span].1,
        heat.rows.len(),
        heat.shape.sentence()
    );
    let source = format!(
        "/api/heatmap?database={}&map={}&metric={}&last={}&rows={HEAT_ROWS}&columns={HEAT_COLUMNS}",
        encoded(database),
        encoded(&map.map),
        metric.label(),
        SPANS[view.span].0
    );
    put!(
        out,
        "<div class=plot tabindex=0 role=application aria-roledescription=\"heat map\" aria-label=\"{}\" data-source=\"{}\" \
         data-from=\"{}\" data-rows={} data-columns={}>",
        Text(&label),
        Text(&source),
        heat.columns[0].from_s,
        heat.rows.len(),
        heat.columns.len()
    );
    cells(&mut out, heat, scale, view.brightness);
    out.push_str("</div>");
    ticks(&mut out, facts, heat);
    out.push_str("</div>");
    legend(&mut out, scale, metric, view.brightness);
    marks(&mut out, facts, heat);
    out.push_str("<div class=card id=card role=status hidden></div>");
    as_table(&mut out, facts, heat);
    out
}

/// Without the columns of before anything was recorded: a young map is not drawn as an empty one.
fn since_first(heat: &HeatMap) -> HeatMap {
    let width = heat.columns.len().max(1);
    let is_known = |column: &usize| heat.cells.iter().skip(*column).step_by(width).any(Option::is_some);
    let first = (0..width).find(is_known).unwrap_or(0);
    HeatMap {
        columns: heat.columns.get(first..).unwrap_or_default().to_vec(),
        cells: heat.cells.chunks(width).flat_map(|row| row.iter().skip(first).copied()).collect(),
        ..heat.clone()
    }
}

/// Which shard owns which rows, as bands with names.
fn bands(out: &mut String, facts: &Facts, heat: &HeatMap) {
    put!(
        out,
        "<svg class=bands width={BANDS_WIDTH} height={HEIGHT} viewBox=\"0 0 {BANDS_WIDTH} {HEIGHT}\" aria-hidden=true>"
    );
    let row_height = HEIGHT as f64 / heat.rows.len() as f64;
    let mut first = 0;
    while let Some(row) = heat.rows.get(first) {
        let count = heat.rows[first..].iter().take_while(|it| it.shard == row.shard).count();
        let (y, height) = (first as f64 * row_height, count as f64 * row_height);
        let name = facts.shard_name(row.shard);
        put!(
            out,
            "<g class=c{}><rect y=\"{y:.1}\" width={BANDS_WIDTH} height=\"{:.1}\"><title>{}</title></rect>",
            colour(usize::from(row.shard.0)),
            (height - 1.0).max(1.0),
            Text(name)
        );
        if height >= TEXT_HEIGHT as f64 {
            let short: String = name.chars().take(7).collect();
            put!(out, "<text x=6 y=\"{:.1}\">{}</text>", y + height / 2.0 + 4.0, Text(&short));
        }
        out.push_str("</g>");
        first += count;
    }
    out.push_str("</svg>");
}

/// One path for each level, with runs of cells of one level in a row as one rectangle; then what happened, as lines.
fn cells(out: &mut String, heat: &HeatMap, scale: Scale, brightness: i8) {
    let columns = heat.columns.len();
    put!(
        out,
        "<svg class=cells viewBox=\"0 0 {columns} {}\" preserveAspectRatio=none aria-hidden=true>",
        heat.rows.len()
    );
    let mut paths = vec![String::new(); LEVELS];
    let mut unknown = String::new();
    for (y, row) in heat.cells.chunks(columns).enumerate() {
        let level = |it: &Option<f32>| it.map(|it| (it > 0.0).then(|| scale.level(f64::from(it))));
        let mut x = 0;
        while let Some(cell) = row.get(x) {
            let of = level(cell);
            let width = row[x..].iter().take_while(|it| level(it) == of).count();
            let path = match of {
                None => Some(&mut unknown),
                Some(None) => None,
                Some(Some(level)) => paths.get_mut(level),
            };
            if let Some(path) = path {
                put!(path, "M{x} {y}h{width}v1h-{width}z");
            }
            x += width;
        }
    }
    put!(out, "<path class=unknown d=\"{unknown}\" />");
    for (level, path) in paths.iter().enumerate() {
        put!(out, "<path class=h{} data-level={level} d=\"{path}\" />", shifted(level, brightness));
    }
    for mark in &heat.marks {
        if let Some(x) = place(heat, mark.at_s) {
            put!(
                out,
                "<line class=\"mark {}\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=0 y2={}><title>{}</title></line>",
                mark_class(mark.kind),
                heat.rows.len(),
                Text(&mark.text)
            );
        }
    }
    out.push_str("</svg>");
}

/// The colour of a level.
fn shifted(level: usize, brightness: i8) -> usize {
    level.saturating_add_signed(isize::from(brightness)).min(LEVELS - 1)
}

fn mark_class(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Start => "start",
        MarkKind::Reload => "reload",
        MarkKind::Failover => "failover",
    }
}

/// Where a time lies, in columns.
fn place(heat: &HeatMap, at_s: u64) -> Option<f64> {
    let at = heat.columns.iter().position(|it| (it.from_s..it.to_s).contains(&at_s))?;
    let column = heat.columns.get(at)?;
    let length = column.to_s.saturating_sub(column.from_s).max(1);
    Some(at as f64 + (at_s - column.from_s) as f64 / length as f64)
}

/// Bounds of columns, evenly apart.
fn ticks(out: &mut String, facts: &Facts, heat: &HeatMap) {
    let columns = heat.columns.len();
    let steps = (TICKS - 1).min(columns).max(1);
    out.push_str("<p class=ticks>");
    for step in 0..=steps {
        let from = heat.columns.get(columns * step / steps).map(|it| it.from_s);
        let at_s = from.or_else(|| heat.columns.last().map(|it| it.to_s)).unwrap_or_default();
        put!(out, "<span>{}</span>", clock(at_s, facts.status.at_s));
    }
    out.push_str("</p>");
}

fn legend(out: &mut String, scale: Scale, metric: Metric, brightness: i8) {
    put!(
        out,
        "<p class=legend><span>{}</span><svg viewBox=\"0 0 {LEVELS} 1\" preserveAspectRatio=none role=img aria-label=\"Colours, from little to much\">",
        metric_value(metric, scale.low)
    );
    for level in 0..LEVELS {
        put!(
            out,
            "<rect class=h{} data-level={level} x={level} width=1 height=1 />",
            shifted(level, brightness)
        );
    }
    put!(
        out,
        "</svg><span>{} (each step about {:.1} times)</span></p>",
        metric_value(metric, scale.high),
        SPAN_OF_COLOURS.powf(1.0 / (LEVELS - 1) as f64)
    );
}

fn marks(out: &mut String, facts: &Facts, heat: &HeatMap) {
    const SHOWN: usize = 8;
    if heat.marks.is_empty() {
        return;
    }
    out.push_str("<ul class=marks aria-label=\"What happened\">");
    for mark in heat.marks.iter().rev().take(SHOWN) {
        let class = mark_class(mark.kind);
        put!(
            out,
            "<li><svg class=sample viewBox=\"0 0 4 14\" aria-hidden=true><line class=\"mark {class}\" x1=2 x2=2 y1=0 y2=14 /></svg>\
             {} <b>{class}</b> {}</li>",
            clock(mark.at_s, facts.status.at_s),
            Text(&mark.text)
        );
    }
    out.push_str("</ul>");
}

/// What the picture says, for those who do not see it.
fn as_table(out: &mut String, facts: &Facts, heat: &HeatMap) {
    let (metric, columns) = (facts.view.metric, heat.columns.len());
    let total: f64 = heat.cells.iter().flatten().map(|it| f64::from(*it)).sum();
    put!(out, "<details id=heat-table><summary>The same as a table</summary>");
    let titles = ["Keys", "Shard", "Now|n", "Mean|n", "Highest|n", "Highest at|n", "Share|n"];
    out.push_str(&table_head(&format!("Load of ranges of keys, {} per second", metric.label()), &titles));
    for (row, cells) in heat.rows.iter().zip(heat.cells.chunks(columns)) {
        let shard = facts.shard_name(row.shard);
        if !facts.view.shows_shard(shard) || !facts.view.shows(&[&row.name, shard]) {
            continue;
        }
        let known: Vec<f64> = cells.iter().flatten().map(|it| f64::from(*it)).collect();
        let sum: f64 = known.iter().sum();
        let highest = cells.iter().enumerate().filter_map(|(at, it)| Some((at, (*it)?)));
        let highest = highest.max_by(|a, b| a.1.total_cmp(&b.1));
        let at = highest.and_then(|it| heat.columns.get(it.0));
        put!(
            out,
            "<tr class=c{}><th scope=row>{}<td><i class=swatch></i>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
            colour(usize::from(row.shard.0)),
            Text(&row.name),
            Text(shard),
            cells
                .last()
                .copied()
                .flatten()
                .map_or_else(|| "–".to_owned(), |it| metric_value(metric, f64::from(it))),
            metric_value(metric, sum / known.len().max(1) as f64),
            metric_value(metric, highest.map_or(0.0, |it| f64::from(it.1))),
            at.map(|it| clock(it.from_s, facts.status.at_s)).unwrap_or_default(),
            percent(sum / total.max(f64::MIN_POSITIVE))
        );
    }
    out.push_str(TABLE_END);
    out.push_str("</details>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_load_is_not_the_hottest_colour_and_one_line_is() {
        let even = vec![Some(10.0f32); 100];
        let scale = Scale::of(&even).unwrap();
        assert_eq!(scale, Scale { low: 0.625, high: 160.0 });
        assert_eq!(scale.level(10.0), 8);
        let mut line = vec![Some(1.0f32); 100];
        line[7] = Some(500.0);
        let scale = Scale::of(&line).unwrap();
        assert_eq!((scale.level(500.0), scale.level(1.0), scale.level(0.001)), (15, 0, 0));
        assert_eq!(Scale::of(&[None, Some(0.0)]), None);
        assert_eq!(Scale::of(&[]), None);
    }

    #[test]
    fn brightness_moves_colours_and_stays_among_them() {
        assert_eq!((shifted(3, 2), shifted(3, -6), shifted(14, 6)), (5, 0, 15));
    }
}
