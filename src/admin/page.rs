//! The page: one HTML document that needs nothing from anywhere else and loads itself again.

use std::fmt::Write;

use super::{DatabaseStatus, ServerStatus, ShardStatus, Status};

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}\
body{max-width:70rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid color-mix(in srgb,currentColor 20%,transparent)}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.bar{display:inline-block;height:.7rem;background:#3b82f6;border-radius:2px;vertical-align:middle}\
.hot .bar{background:#dc2626}.problem{color:#dc2626}.muted{opacity:.65}";

/// A shard with this many times the mean load is marked.
const HOT_RATIO: f64 = 1.5;
/// Below this rate a ratio says nothing.
const HOT_PER_SECOND_MIN: f64 = 10.0;

pub fn render(status: &Status) -> String {
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=2><title>keyway</title><style>{STYLE}</style>\
         <h1>keyway <small class=muted>{}</small></h1>\
         <p>{} clients · <a href=/metrics>metrics</a> · <a href=/readyz>readiness</a></p>",
        escaped(status.version),
        status.clients
    );
    status.databases.iter().for_each(|it| database(&mut out, it));
    out
}

fn database(out: &mut String, it: &DatabaseStatus) {
    let load = |of: &ShardStatus| of.reads_per_second + of.writes_per_second;
    let most = it.shards.iter().map(load).fold(0.0, f64::max);
    let mean = it.shards.iter().map(load).sum::<f64>() / it.shards.len().max(1) as f64;
    let _ = write!(out, "<h2>{}</h2>", escaped(&it.name));
    if it.shards.len() > 1 && mean > 0.0 {
        let _ = write!(out, "<p>busiest shard over mean: <b>{:.2}</b></p>", most / mean);
    }
    out.push_str(
        "<table><tr><th>shard<th>load<th class=n>reads/s<th class=n>writes/s<th class=n>errors/s<th class=n>in flight",
    );
    for shard in &it.shards {
        let hot = it.shards.len() > 1 && load(shard) > HOT_RATIO * mean && load(shard) > HOT_PER_SECOND_MIN;
        let width = if most > 0.0 { 12.0 * load(shard) / most } else { 0.0 };
        let _ = write!(
            out,
            "<tr{}><td>{}<td><span class=bar style=\"width:{width:.1}rem\"></span>{}<td class=n>{:.1}<td class=n>{:.1}<td class=n>{:.1}<td class=n>{}",
            if hot { " class=hot" } else { "" },
            escaped(&shard.name),
            if hot { " hot" } else { "" },
            shard.reads_per_second,
            shard.writes_per_second,
            shard.errors_per_second,
            shard.in_flight
        );
    }
    out.push_str(
        "</table><table><tr><th>server<th>shard<th>role<th class=n>lag<th class=n>bytes behind\
         <th class=n>in use<th class=n>idle<th class=n>connecting<th class=n>of<th class=n>waiting<th>",
    );
    for shard in &it.shards {
        shard.servers.iter().for_each(|of| server(out, &shard.name, of));
    }
    out.push_str("</table>");
    if !it.refusals.is_empty() {
        out.push_str("<table><tr><th>refused because of<th class=n>times since the start");
        for (reason, count) in &it.refusals {
            let _ = write!(out, "<tr><td>{}<td class=n>{count}", escaped(reason));
        }
        out.push_str("</table>");
    }
}

fn server(out: &mut String, shard: &str, it: &ServerStatus) {
    let role = if it.role.is_empty() { "unknown" } else { it.role };
    let number = |it: Option<u64>, unit: &str| it.map_or_else(|| "–".to_owned(), |it| format!("{it}{unit}"));
    let _ = write!(
        out,
        "<tr><td>{}<td>{}<td>{role}<td class=n>{}<td class=n>{}\
         <td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=problem>{}",
        escaped(&it.address),
        escaped(shard),
        number(it.lag_ms, " ms"),
        number(it.lag_bytes, ""),
        it.pools.active,
        it.pools.idle,
        it.pools.connecting,
        it.pools.size,
        it.pools.waiters,
        escaped(it.problem.as_deref().unwrap_or(""))
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(name: &str, reads_per_second: f64) -> ShardStatus {
        let server = ServerStatus {
            address: "10.0.0.1:5432".into(),
            problem: Some("<refused>".into()),
            ..ServerStatus::default()
        };
        ShardStatus { name: name.into(), reads_per_second, servers: vec![server], ..ShardStatus::default() }
    }

    #[test]
    fn the_hot_shard_is_marked_and_text_is_escaped() {
        let shards = vec![shard("s1", 90.0), shard("s2", 10.0)];
        let refusals = vec![("missing_key", 12)];
        let databases = vec![DatabaseStatus { name: "shop".into(), shards, refusals }];
        let html = render(&Status { version: "0", clients: 3, databases });
        assert_eq!(html.matches("class=hot").count(), 1);
        assert!(html.contains("busiest shard over mean: <b>1.80</b>"));
        assert!(html.contains("&lt;refused&gt;") && !html.contains("<refused>"));
        assert!(html.contains("<td>missing_key<td class=n>12"));
        assert!(!html.contains("http://") && !html.contains("https://"), "no outside resource");
    }

    #[test]
    fn even_load_marks_nothing() {
        let shards = vec![shard("s1", 50.0), shard("s2", 50.0)];
        let databases = vec![DatabaseStatus { name: "shop".into(), shards, refusals: Vec::new() }];
        assert!(!render(&Status { version: "0", clients: 0, databases }).contains("class=hot"));
    }
}
