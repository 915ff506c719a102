//! Hot keys, how uneven load is, what to do about it, and statements.

use std::fmt::Write;

use super::draw::whisker;
use super::html::{Lines, Text, clock, micros, percent, percent_bounds, plural, put, rate_bounds, whole};
use super::shards::{TABLE_END, colour, table_head};
use super::{Facts, View, badge};
use crate::hotspot::{Advice, AdviceKind, Bounds, Dimension, Heat, KeyReport, MapReport, StatementReport};

/// Keys of a map that are shown unless all are asked for.
const KEYS_SHOWN: usize = 10;
const TABLES_SHOWN: usize = 10;
const STATEMENTS_SHOWN: usize = 20;
/// What stands in place of a shard.
const SEVERAL: &str = "several";
const NOTHING_YET: &str = "<p class=empty>Nothing was counted yet: a window takes ten seconds.</p>";

/// What is hot, in one sentence each.
pub fn alert(facts: &Facts) -> String {
    let mut out = String::new();
    for map in &facts.report.maps {
        for key in map.keys.iter().filter(|it| it.heat > Heat::Cool) {
            let name = key_name(facts, key);
            let since = since(facts, key.hot_since_s);
            put!(
                out,
                "<p class=alert>{} <a href=\"#h-keys\">One key</a> of {} has {} of its calls: {name} on shard {}{since}.</p>",
                badge(key.heat),
                Text(&map.map),
                percent_bounds(key.calls_share),
                Text(facts.shard_name(key.shard))
            );
        }
    }
    for shard in facts.report.shards.iter().filter(|it| it.heat > Heat::Cool) {
        let since = since(facts, shard.hot_since_s);
        put!(
            out,
            "<p class=alert>{} <a href=\"{}#h-keys\">Shard {}</a> carries far more than its part{since}.</p>",
            badge(Heat::Warning),
            Text(&facts.link_to_shard(&shard.shard)),
            Text(&shard.shard)
        );
    }
    out
}

fn since(facts: &Facts, hot_since_s: Option<u64>) -> String {
    let told = hot_since_s.map(|it| format!(" since {} UTC", clock(it, facts.status.at_s)));
    told.unwrap_or_default()
}

/// How a key is called before this viewer.
fn key_name(facts: &Facts, key: &KeyReport) -> String {
    match key.text.as_deref().filter(|_| facts.viewer.may_see_keys) {
        Some(text) => format!("<code title=\"hash {:016x}\">{}</code>", key.hash, Text(text)),
        None => format!("<code class=hash>#{:016x}</code>", key.hash),
    }
}

/// A word to look for.
fn heat_label(heat: Heat) -> &'static str {
    if heat == Heat::Cool { "" } else { heat.label() }
}

/// In the middle of what is sure.
fn share_of_reads(key: &KeyReport) -> f64 {
    let middle = |it: Bounds| it.lower + it.upper;
    middle(key.reads) / (middle(key.reads) + middle(key.writes)).max(f64::MIN_POSITIVE)
}

pub fn keys(facts: &Facts) -> String {
    if facts.report.at_s == 0 {
        return NOTHING_YET.to_owned();
    }
    let (mut out, mut more, mut redacted) = (String::new(), false, false);
    for map in &facts.report.maps {
        let fits = |it: &&KeyReport| {
            let hash = format!("{:016x}", it.hash);
            let text = it.text.as_deref().filter(|_| facts.viewer.may_see_keys).unwrap_or("");
            let shard = facts.shard_name(it.shard);
            let table = it.table.as_deref().unwrap_or("");
            facts.view.shows_shard(shard)
                && facts.view.shows(&[&hash, text, shard, table, &map.map, heat_label(it.heat)])
        };
        let fitting: Vec<_> = map.keys.iter().filter(fits).collect();
        if fitting.is_empty() {
            continue;
        }
        let shown = if facts.view.all_keys { fitting.len() } else { KEYS_SHOWN.min(fitting.len()) };
        more |= shown < fitting.len();
        redacted |= !facts.viewer.may_see_keys;
        keys_of(&mut out, facts, map, &fitting[..shown]);
    }
    if out.is_empty() {
        out.push_str("<p class=empty>No key stands out.</p>");
    }
    if more {
        let all = View { all_keys: true, ..facts.view.clone() };
        put!(out, "<p><a href=\"{}\">Show all that were counted</a></p>", Text(&all.query()));
    }
    if redacted {
        out.push_str(
            "<p class=muted>Keys are data: they are shown to those with the <code>admin_token</code>, or to all with \
             <code>redact_keys = false</code>.</p>",
        );
    }
    out
}

fn keys_of(out: &mut String, facts: &Facts, map: &MapReport, keys: &[&KeyReport]) {
    let span_s = facts.report.span_s;
    let caption = format!(
        "Hottest keys of {} over {span_s} s; both ends of a share are true of what was counted",
        map.map
    );
    let columns = [
        "#|n",
        "Key",
        "Shard",
        "Reads|n",
        "Share of calls",
        "lower to upper|n",
        "Calls/s|n",
        "Share of time|n",
        "State",
    ];
    out.push_str(&table_head(&caption, &columns));
    for key in keys {
        let shard = usize::from(key.shard.0);
        let is_hot = key.heat > Heat::Cool;
        let name = key_name(facts, key);
        let table =
            key.table.as_deref().map(|it| format!(" <small>{}</small>", Text(it))).unwrap_or_default();
        let since =
            key.hot_since_s.map(|it| format!(" since {}", clock(it, facts.status.at_s))).unwrap_or_default();
        put!(
            out,
            "<tr class=\"c{}{}\"><td class=n>{}<th scope=row>{name}{table}<td><i class=swatch></i>{}<td class=n>{}\
             <td class=picture>{}<td class=n>{}<td class=n>{}<td class=n>{}<td>{}{since}",
            colour(shard),
            if is_hot { " hot" } else { "" },
            key.rank,
            Text(facts.shard_name(key.shard)),
            percent(share_of_reads(key)),
            whisker(key.calls_share, is_hot),
            percent_bounds(key.calls_share),
            rate_bounds(key.calls, span_s),
            percent_bounds(key.time_share),
            badge(key.heat)
        );
    }
    out.push_str(TABLE_END);
}

pub fn advice(facts: &Facts) -> String {
    let shown: Vec<_> = facts
        .report
        .advice
        .iter()
        .filter(|it| facts.view.shows(&[&it.text, it.kind.label(), it.map.as_deref().unwrap_or("")]))
        .collect();
    if facts.report.at_s == 0 {
        return NOTHING_YET.to_owned();
    }
    if shown.is_empty() {
        return "<p class=empty>Nothing to advise.</p>".to_owned();
    }
    let mut out = String::from("<ol class=advice>");
    for (index, it) in shown.iter().enumerate() {
        one_advice(&mut out, facts, index, it);
    }
    out + "</ol>"
}

fn kind_title(kind: AdviceKind) -> &'static str {
    match kind {
        AdviceKind::Scatter => "Statements on many shards",
        AdviceKind::SingleKey => "One key",
        AdviceKind::Sequential => "Keys in order",
        AdviceKind::Split => "Split a range",
        AdviceKind::Move => "Move slots",
        AdviceKind::None => "Nothing to do",
    }
}

fn one_advice(out: &mut String, facts: &Facts, index: usize, it: &Advice) {
    let map = it.map.as_deref().map(|it| format!(" <small>{}</small>", Text(it))).unwrap_or_default();
    put!(out, "<li><h3>{}{map} {}</h3><p>{}</p>", kind_title(it.kind), badge(it.heat), Text(&it.text));
    let mut facts_of = Vec::new();
    if it.windows.1 > 0 {
        facts_of.push(format!("held in {} of the last {} windows", it.windows.0, it.windows.1));
    }
    if let Some((now, then)) = it.max_over_mean {
        facts_of.push(format!("max over mean {now:.2}, then {then:.2}"));
    }
    if !facts_of.is_empty() {
        put!(out, "<p class=muted>{}</p>", facts_of.join("; "));
    }
    match &it.snippet {
        Some(snippet) if facts.viewer.may_see_keys => {
            put!(
                out,
                "<div class=snippet><pre id=\"snippet-{index}\" tabindex=0>{}</pre>\
                 <button type=button class=copy data-copy=\"snippet-{index}\">Copy</button></div>",
                Lines(snippet)
            );
        }
        Some(_) => out.push_str(
            "<p class=muted>What to put into the configuration is shown to those with the <code>admin_token</code>: it may have keys in it. \
             <code>SHOW ADVICE</code> in the console tells it to administrators.</p>",
        ),
        None => {}
    }
    out.push_str("</li>");
}

pub fn skew(facts: &Facts) -> String {
    if facts.report.at_s == 0 {
        return NOTHING_YET.to_owned();
    }
    let columns =
        ["Map", "By", "Max over mean|n", "Variation|n", "Gini|n", "Top key|n", "Top 10|n", "Top 100|n"];
    let mut out = table_head("How uneven the load of shards and keys is; 1 over the mean is even", &columns);
    let mut notes = String::new();
    for map in facts.report.maps.iter().filter(|it| facts.view.shows(&[&it.map])) {
        for dimension in Dimension::ALL {
            let skew = map.skews[dimension as usize];
            put!(
                out,
                "<tr><th scope=row>{}<td>{}<td class=n>{:.2}<td class=n>{:.2}<td class=n>{:.2}",
                Text(&map.map),
                dimension.label(),
                skew.max_over_mean,
                skew.variation,
                skew.gini
            );
            for top in 0..3 {
                let share = map.top_shares.get(dimension as usize).map(|it| percent_bounds(it[top]));
                put!(out, "<td class=n>{}", share.unwrap_or_else(|| "–".to_owned()));
            }
        }
        notes_of(&mut notes, map);
    }
    out.push_str(TABLE_END);
    if !notes.is_empty() {
        put!(out, "<ul class=notes>{notes}</ul>");
    }
    tables(&mut out, facts);
    out
}

fn notes_of(out: &mut String, map: &MapReport) {
    put!(
        out,
        "<li><b>{}</b> {}: about {} named, {} of its calls went to several shards",
        Text(&map.map),
        Text(&plural(u64::from(map.parts), map.part_name, &format!("{}s", map.part_name))),
        plural(map.distinct_keys.max(0.0).round() as u64, "key", "different keys"),
        percent(map.scatter_ratio)
    );
    if let Some(direction) = map.direction {
        let words = match direction {
            it if it > 0.8 => "keys come in ascending order",
            it if it < -0.8 => "keys come in descending order",
            _ => "keys come in no order",
        };
        put!(out, "; {words} ({direction:+.2})");
    }
    out.push_str(".</li>");
}

fn tables(out: &mut String, facts: &Facts) {
    let shown = facts.report.tables.iter().filter(|it| facts.view.shows(&[&it.table]));
    let shown: Vec<_> = shown.take(TABLES_SHOWN).collect();
    if shown.is_empty() {
        return;
    }
    let span = f64::from(facts.report.span_s.max(1));
    let caption = format!("Busiest tables over {} s", facts.report.span_s);
    out.push_str(&table_head(
        &caption,
        &["Table", "Reads/s|n", "Writes/s|n", "Rows/s|n", "Time per call|n", "Errors|n"],
    ));
    for it in shown {
        let calls = it.reads.calls + it.writes.calls;
        let time_us = it.reads.time_us + it.writes.time_us;
        let per_s = |count: u64| super::html::rate(count as f64 / span);
        put!(
            out,
            "<tr><th scope=row>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
            Text(&it.table),
            per_s(it.reads.calls),
            per_s(it.writes.calls),
            per_s(it.reads.rows + it.writes.rows),
            micros(time_us as f64 / calls.max(1) as f64),
            whole(it.reads.errors + it.writes.errors)
        );
    }
    out.push_str(TABLE_END);
}

pub fn statements(facts: &Facts) -> String {
    let fits = |it: &&StatementReport| {
        facts.view.shows(&[&it.text, &fingerprint(it), &it.shard])
            && (facts.view.shows_shard(&it.shard) || &*it.shard == SEVERAL)
    };
    let shown: Vec<_> = facts.statements.iter().filter(fits).take(STATEMENTS_SHOWN).collect();
    if shown.is_empty() {
        return "<p class=empty>No statement was timed.</p>".to_owned();
    }
    let columns =
        ["Statement", "Shard", "Calls|n", "Mean|n", "Longest|n", "Altogether|n", "Rows|n", "Errors|n"];
    let caption = "Statements by the time that they took, waiting included, over the last ten to twenty minutes: \
                   without literals, estimated from those that were looked at";
    let mut out = table_head(caption, &columns);
    for it in shown {
        put!(
            out,
            "<tr><th scope=row class=sql><code title=\"fingerprint {}\">{}</code>\
             <td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
            fingerprint(it),
            Text(&it.text),
            Text(&it.shard),
            whole(it.calls),
            micros(it.time_us as f64 / it.calls.max(1) as f64),
            micros(it.max_us as f64),
            micros(it.time_us as f64),
            whole(it.rows),
            whole(it.errors)
        );
    }
    out + TABLE_END
}

fn fingerprint(it: &StatementReport) -> String {
    format!("{:032x}", it.fingerprint)
}
