//! Databases, shards, servers and their pools.

use std::fmt::Write;

use super::draw::{fill_bar, load_bar, sparkline};
use super::html::{Text, bytes, millis, percent, percent_bounds, plural, put, rate, whole};
use super::{Facts, badge, heat_of_report};
use crate::admin::status::{
    DatabaseStatus, HISTORY_INTERVAL_S, HISTORY_LENGTH, ServerStatus, ShardStatus, Status,
};
use crate::hotspot::Dimension;

/// Classes for colours; the name of a shard always stands beside its colour.
const SHARD_COLOURS: usize = 8;

pub fn colour(shard: usize) -> usize {
    shard % SHARD_COLOURS
}

fn sum(database: &DatabaseStatus, of: impl Fn(&ShardStatus) -> f64) -> f64 {
    database.shards.iter().map(of).sum()
}

pub fn figures(facts: &Facts) -> String {
    let Some(database) = facts.database() else {
        return "<p class=empty>No database is configured.</p>".to_owned();
    };
    let mut out = String::from("<dl class=figures>");
    let mut figure = |name: &str, value: &str, about: &str, is_hot: bool| {
        let class = if is_hot { " class=hot" } else { "" };
        put!(out, "<div{class}><dt>{name}</dt><dd>{value}</dd><dd class=about>{about}</dd></div>");
    };
    let (reads, writes) = (sum(database, |it| it.reads_per_second), sum(database, |it| it.writes_per_second));
    let about = format!("{} reads/s, {} writes/s", rate(reads), rate(writes));
    figure("Requests", &format!("<span id=requests>{}</span> /s", rate(reads + writes)), &about, false);
    let errors = sum(database, |it| it.errors_per_second);
    figure("Errors", &format!("{} /s", rate(errors)), "answered by servers", false);
    let in_flight = sum(database, |it| it.in_flight as f64).max(0.0) as u64;
    figure("In flight", &whole(in_flight), "requests at servers now", false);
    let map = facts.map();
    if let Some(skew) = map.map(|it| it.skews[Dimension::Calls as usize]).filter(|it| it.max_over_mean > 0.0)
    {
        let about = format!("busiest shard over mean, calls; Gini {:.2}", skew.gini);
        figure(
            "Max over mean",
            &format!("{:.2}", skew.max_over_mean),
            &about,
            facts.report.shards.iter().any(|it| it.heat > Default::default()),
        );
    }
    if let Some(key) = map.and_then(|it| it.keys.first()) {
        let about = format!("of the calls of {}", Text(map.map_or("", |it| &it.map)));
        figure("Hottest key", &percent_bounds(key.calls_share), &about, key.heat > Default::default());
    }
    let (serving, replicas, lag) = replicas(database);
    if replicas > 0 {
        let lag = lag.map_or_else(|| "lag unknown".to_owned(), |it| format!("largest lag {}", millis(it)));
        figure("Replicas", &format!("{serving} of {replicas}"), &format!("take reads; {lag}"), false);
    }
    out + "</dl>"
}

/// Those that take reads, all, and the largest lag.
fn replicas(database: &DatabaseStatus) -> (usize, usize, Option<u64>) {
    let all = || database.shards.iter().flat_map(|it| &it.servers).filter(|it| it.role == "replica");
    let serving = all().filter(|it| it.serves == Some(true)).count();
    (serving, all().count(), all().filter_map(|it| it.lag_ms).max())
}

pub fn overview(facts: &Facts) -> String {
    let Status { databases, .. } = &facts.status;
    let mut out = table_head(
        "Databases, with their load",
        &["Database", "Requests/s|n", "Errors/s|n", "Shards|n", "Replicas that take reads|n", "State"],
    );
    for (index, it) in databases.iter().enumerate().filter(|it| facts.view.shows(&[&it.1.name])) {
        let without = it.shards.iter().filter(|it| !it.servers.iter().any(|it| it.role == "primary")).count();
        let state = if without > 0 {
            format!(
                "<span class=\"state bad\">{} without a primary</span>",
                plural(without as u64, "shard", "shards")
            )
        } else {
            "<span class=\"state ok\">well</span>".to_owned()
        };
        let (serving, replicas, _) = replicas(it);
        let (mark, current) = if index == facts.shown {
            (badge(heat_of_report(&facts.report)), " aria-current=true")
        } else {
            ("", "")
        };
        put!(
            out,
            "<tr{current}><th scope=row><a href=\"{}\">{}</a> {mark}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{serving} of {replicas}<td>{state}",
            Text(&facts.link_to(&it.name)),
            Text(&it.name),
            rate(sum(it, ShardStatus::per_second)),
            rate(sum(it, |it| it.errors_per_second)),
            it.shards.len()
        );
    }
    out + TABLE_END
}

/// The beginning of a table that scrolls by itself where it is wider than the page. `|n` behind a title is of figures.
pub fn table_head(caption: &str, columns: &[&str]) -> String {
    let mut out = format!(
        "<div class=scroll tabindex=0 role=region aria-label=\"{caption}\"><table><caption>{caption}</caption><thead><tr>",
        caption = Text(caption)
    );
    for column in columns {
        match column.strip_suffix("|n") {
            Some(title) => put!(out, "<th scope=col class=n>{title}"),
            None => put!(out, "<th scope=col>{column}"),
        }
    }
    out + "</thead><tbody>"
}

pub const TABLE_END: &str = "</tbody></table></div>";

/// Shards that the view shows, with their number. A text that is looked for may be in the shard's name or a server's.
fn shown_shards(facts: &Facts) -> impl Iterator<Item = (usize, &ShardStatus)> {
    let all = facts.database().into_iter().flat_map(|it| it.shards.iter().enumerate());
    all.filter(|(_, it)| facts.view.shows_shard(&it.name))
}

fn shows_server(facts: &Facts, shard: &ShardStatus, it: &ServerStatus) -> bool {
    facts.view.shows(&[&shard.name, &it.address, role(it), it.problem.as_deref().unwrap_or("")])
}

fn role(it: &ServerStatus) -> &'static str {
    if it.role.is_empty() { "unknown" } else { it.role }
}

const NONE_SHOWN: &str = "<p class=empty>Nothing here fits the filter.</p>";

pub fn topology(facts: &Facts) -> String {
    let mut out = String::new();
    for (index, shard) in shown_shards(facts) {
        let servers: Vec<_> = shard.servers.iter().filter(|it| shows_server(facts, shard, it)).collect();
        if servers.is_empty() {
            continue;
        }
        let hot = if facts.is_hot(index) { "<b class=\"badge warning\">HOT</b>" } else { "" };
        put!(
            out,
            "<li class=\"shard c{}\"><h3><i class=swatch></i>{} {hot}</h3><ul class=servers>",
            colour(index),
            Text(&shard.name)
        );
        let rank = |it: &&ServerStatus| match it.role {
            "primary" => 0,
            "replica" => 2,
            // Most likely what was the primary.
            _ => 1,
        };
        let mut ordered = servers;
        ordered.sort_by_key(rank);
        ordered.iter().for_each(|it| server(&mut out, it));
        out.push_str("</ul></li>");
    }
    if out.is_empty() { NONE_SHOWN.to_owned() } else { format!("<ul class=topology>{out}</ul>") }
}

/// Class and words of how a server is.
fn state(it: &ServerStatus) -> (&'static str, &'static str) {
    match (it.role, it.breaker, it.serves) {
        _ if it.problem.is_some() => ("bad", "unreachable"),
        ("", _, _) => ("bad", "role unknown"),
        (_, "open", _) => ("bad", "left alone after failures"),
        (_, "half-open", _) => ("warn", "being tried again"),
        ("primary", _, _) => ("ok", "takes writes and reads"),
        (_, _, Some(false)) => ("warn", "too far behind for reads"),
        _ => ("ok", "takes reads"),
    }
}

fn server(out: &mut String, it: &ServerStatus) {
    let (class, words) = state(it);
    let role = role(it);
    put!(
        out,
        "<li class=\"server {role}\"><span class=role>{role}</span> <span class=address>{}</span>\
         <span class=\"state {class}\">{words}</span>",
        Text(&it.address)
    );
    if it.role == "replica" {
        let lag = it.lag_ms.map_or_else(|| "unknown".to_owned(), millis);
        let behind = it.lag_bytes.map(|it| format!(", {} behind", bytes(it as f64))).unwrap_or_default();
        put!(out, "<span class=lag>lag {lag}{behind}</span>");
    }
    if !matches!(it.breaker, "" | "closed") {
        put!(out, "<span class=breaker>breaker {}</span>", it.breaker);
    }
    if it.pools.size > 0 {
        let PoolSums { used, size, share } = used(it);
        put!(out, "<span class=pool>{}{used} of {size} in use</span>", fill_bar(share));
    }
    if let Some(problem) = &it.problem {
        put!(out, "<span class=problem>{}</span>", Text(problem));
    }
    out.push_str("</li>");
}

struct PoolSums {
    used: u64,
    size: u64,
    share: f64,
}

fn used(it: &ServerStatus) -> PoolSums {
    let (used, size) = (it.pools.active, it.pools.size);
    PoolSums { used, size, share: used as f64 / size.max(1) as f64 }
}

pub fn load(facts: &Facts) -> String {
    let Some(database) = facts.database() else { return String::new() };
    let most = database.shards.iter().map(ShardStatus::per_second).fold(0.0, f64::max);
    let total = sum(database, ShardStatus::per_second);
    let mean = total / database.shards.len().max(1) as f64;
    let rows: Vec<_> = shown_shards(facts).filter(|it| facts.view.shows(&[&it.1.name])).collect();
    if rows.is_empty() {
        return NONE_SHOWN.to_owned();
    }
    let columns = [
        "Shard",
        "Load (reads, writes; line: mean)",
        "Share|n",
        "Reads/s|n",
        "Writes/s|n",
        "Errors/s|n",
        "In flight|n",
        "Last 5 minutes",
    ];
    let mut out = table_head("Requests per second over the last ten seconds, by shard", &columns);
    for (index, it) in rows {
        let (row, hot) =
            if facts.is_hot(index) { (" hot", " <b class=\"badge warning\">HOT</b>") } else { ("", "") };
        let share = if total > 0.0 { percent(it.per_second() / total) } else { "–".to_owned() };
        put!(
            out,
            "<tr class=\"c{}{row}\"><th scope=row><i class=swatch></i>{}{hot}<td class=picture>{}<td class=n>{share}\
             <td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=picture>{}",
            colour(index),
            Text(&it.name),
            load_bar(it.reads_per_second, it.writes_per_second, most, mean),
            rate(it.reads_per_second),
            rate(it.writes_per_second),
            rate(it.errors_per_second),
            it.in_flight,
            sparkline(&it.history, HISTORY_LENGTH, HISTORY_INTERVAL_S, &it.name)
        );
    }
    out + TABLE_END
}

pub fn pools(facts: &Facts) -> String {
    let mut out = String::new();
    for (index, shard) in shown_shards(facts) {
        for it in shard.servers.iter().filter(|it| shows_server(facts, shard, it)) {
            let waiting = if it.pools.waiters > 0 { " hot" } else { "" };
            put!(
                out,
                "<tr class=\"c{}{waiting}\"><th scope=row>{}<td><i class=swatch></i>{}<td>{}<td class=picture>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
                colour(index),
                Text(&it.address),
                Text(&shard.name),
                role(it),
                fill_bar(used(it).share),
                it.pools.active,
                it.pools.idle,
                it.pools.connecting,
                it.pools.size,
                it.pools.waiters
            );
        }
    }
    if out.is_empty() {
        return NONE_SHOWN.to_owned();
    }
    let columns = [
        "Server",
        "Shard",
        "Role",
        "In use",
        "In use|n",
        "Idle|n",
        "Logging in|n",
        "At most|n",
        "Clients waiting|n",
    ];
    table_head("Server connections of all users together", &columns) + &out + TABLE_END
}

pub fn refusals(facts: &Facts) -> String {
    let all = facts.database().map(|it| it.refusals.as_slice()).unwrap_or_default();
    let shown: Vec<_> = all.iter().filter(|it| facts.view.shows(&[it.0])).collect();
    if shown.is_empty() {
        let what = if all.is_empty() {
            "<p class=empty>Nothing was refused since the start.</p>"
        } else {
            NONE_SHOWN
        };
        return what.to_owned();
    }
    let mut out =
        table_head("Statements that were refused since the start, by reason", &["Reason", "Times|n"]);
    for (reason, count) in shown {
        put!(out, "<tr><th scope=row>{}<td class=n>{}", Text(reason), whole(*count));
    }
    out + TABLE_END
}
