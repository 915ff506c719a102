//! The same facts as JSON. Keys, and snippets that may have some in them, are null for those who may not see them.

use serde_json::{Value, json};

use super::access::Viewer;
use super::status::{DatabaseStatus, HISTORY_INTERVAL_S, PoolStatus, ServerStatus, ShardStatus, Status};
use crate::base::ShardId;
use crate::hotspot::{
    Advice, Bounds, Dimension, HeatMap, KeyReport, Load, MapReport, MarkKind, Metric, PartReport, Report,
    ShardReport, StatementReport,
};

pub fn status(it: &Status) -> Value {
    json!({
        "version": it.version,
        "at_s": it.at_s,
        "clients": it.clients,
        "databases": it.databases.iter().map(database).collect::<Vec<_>>(),
    })
}

fn database(it: &DatabaseStatus) -> Value {
    let refusals = it.refusals.iter().map(|(reason, count)| ((*reason).to_owned(), json!(count)));
    json!({
        "name": it.name,
        "shards": it.shards.iter().map(shard).collect::<Vec<_>>(),
        "refusals": refusals.collect::<serde_json::Map<_, _>>(),
    })
}

fn shard(it: &ShardStatus) -> Value {
    json!({
        "name": it.name,
        "reads_per_second": it.reads_per_second,
        "writes_per_second": it.writes_per_second,
        "errors_per_second": it.errors_per_second,
        "in_flight": it.in_flight,
        "history": { "interval_s": HISTORY_INTERVAL_S, "requests_per_second": it.history },
        "servers": it.servers.iter().map(server).collect::<Vec<_>>(),
    })
}

fn server(it: &ServerStatus) -> Value {
    let PoolStatus { active, idle, connecting, waiters, size } = it.pools;
    json!({
        "address": it.address,
        "role": (!it.role.is_empty()).then_some(it.role),
        "lag_ms": it.lag_ms,
        "lag_bytes": it.lag_bytes,
        "problem": it.problem,
        "serves_reads": it.serves,
        "breaker": (!it.breaker.is_empty()).then_some(it.breaker),
        "pools": { "active": active, "idle": idle, "connecting": connecting, "waiting_clients": waiters, "size": size },
    })
}

/// Names of shards by their ids.
pub struct Shards<'a>(pub &'a [ShardStatus]);

impl Shards<'_> {
    fn name(&self, id: ShardId) -> Option<&str> {
        self.0.get(usize::from(id.0)).map(|it| it.name.as_str())
    }
}

pub fn hotspots(
    database: &str,
    shards: &Shards<'_>,
    report: &Report,
    statements: &[StatementReport],
    viewer: Viewer,
) -> Value {
    json!({
        "database": database,
        "at_s": report.at_s,
        "span_s": report.span_s,
        "keys_are_redacted": !viewer.may_see_keys,
        "shards": report.shards.iter().map(shard_report).collect::<Vec<_>>(),
        "tables": report.tables.iter().map(|it| json!({
            "table": &*it.table, "reads": load(&it.reads), "writes": load(&it.writes),
        })).collect::<Vec<_>>(),
        "maps": report.maps.iter().map(|it| map(it, shards, viewer)).collect::<Vec<_>>(),
        "advice": report.advice.iter().map(|it| advice(it, viewer)).collect::<Vec<_>>(),
        "statements": statements.iter().map(statement).collect::<Vec<_>>(),
    })
}

fn load(it: &Load) -> Value {
    let Load { calls, rows, bytes, time_us, errors } = it;
    json!({ "calls": calls, "rows": rows, "bytes": bytes, "time_us": time_us, "errors": errors })
}

fn bounds(it: Bounds) -> Value {
    json!({ "lower": it.lower, "upper": it.upper })
}

fn shard_report(it: &ShardReport) -> Value {
    json!({
        "shard": it.shard,
        "primary_reads": load(&it.primary_reads),
        "primary_writes": load(&it.primary_writes),
        "replica_reads": load(&it.replica_reads),
        "scattered_calls": it.scattered_calls,
        "heat": it.heat.label(),
        "hot_since_s": it.hot_since_s,
    })
}

fn map(it: &MapReport, shards: &Shards<'_>, viewer: Viewer) -> Value {
    let skews = Dimension::ALL.map(|of| {
        let skew = it.skews[of as usize];
        let figures =
            json!({ "max_over_mean": skew.max_over_mean, "variation": skew.variation, "gini": skew.gini });
        (of.label().to_owned(), figures)
    });
    let tops = [Dimension::Calls, Dimension::Time].map(|of| {
        let [one, ten, hundred] = it.top_shares[of as usize].map(bounds);
        (of.label().to_owned(), json!({ "1": one, "10": ten, "100": hundred }))
    });
    json!({
        "map": it.map,
        "part_name": it.part_name,
        "parts": it.parts,
        "reads": load(&it.reads),
        "writes": load(&it.writes),
        "skew": skews.into_iter().collect::<serde_json::Map<_, _>>(),
        "top_shares": tops.into_iter().collect::<serde_json::Map<_, _>>(),
        "scatter_ratio": it.scatter_ratio,
        "distinct_keys": it.distinct_keys,
        "direction": it.direction,
        "heat": it.heat.label(),
        "keys": it.keys.iter().map(|it| key(it, shards, viewer)).collect::<Vec<_>>(),
        "hot_parts": it.hot_parts.iter().map(|it| part(it, shards)).collect::<Vec<_>>(),
    })
}

fn key(it: &KeyReport, shards: &Shards<'_>, viewer: Viewer) -> Value {
    json!({
        "rank": it.rank,
        "hash": format!("{:016x}", it.hash),
        "key": it.text.as_deref().filter(|_| viewer.may_see_keys),
        "table": it.table.as_deref(),
        "shard": shards.name(it.shard),
        "part": it.part,
        "calls": bounds(it.calls),
        "reads": bounds(it.reads),
        "writes": bounds(it.writes),
        "time_us": bounds(it.time_us),
        "calls_share": bounds(it.calls_share),
        "time_share": bounds(it.time_share),
        "heat": it.heat.label(),
        "hot_since_s": it.hot_since_s,
    })
}

fn part(it: &PartReport, shards: &Shards<'_>) -> Value {
    json!({
        "part": it.part,
        "name": it.name,
        "shard": shards.name(it.shard),
        "reads": load(&it.reads),
        "writes": load(&it.writes),
        "calls_share": it.calls_share,
        "distinct_keys": it.distinct_keys,
        "heat": it.heat.label(),
    })
}

fn advice(it: &Advice, viewer: Viewer) -> Value {
    json!({
        "kind": it.kind.label(),
        "heat": it.heat.label(),
        "map": it.map,
        "text": &*it.text,
        "windows": { "held": it.windows.0, "of": it.windows.1 },
        "max_over_mean": it.max_over_mean.map(|(now, then)| json!({ "now": now, "then": then })),
        "snippet": it.snippet.as_deref().filter(|_| viewer.may_see_keys),
    })
}

/// Estimated from those that were looked at.
fn statement(it: &StatementReport) -> Value {
    json!({
        "fingerprint": format!("{:032x}", it.fingerprint),
        "text": &*it.text,
        "shard": &*it.shard,
        "calls": it.calls,
        "errors": it.errors,
        "rows": it.rows,
        "time_us": { "lower": it.time_us, "upper": it.time_us + it.missed_us },
        "max_us": it.max_us,
    })
}

/// Cells are a list for each row, per second; null where nothing was recorded.
pub fn heat_map(it: &HeatMap, metric: Metric, shards: &Shards<'_>) -> Value {
    let kind = |it: MarkKind| match it {
        MarkKind::Start => "start",
        MarkKind::Reload => "reload",
        MarkKind::Failover => "failover",
    };
    let columns = it.columns.len().max(1);
    json!({
        "metric": metric.label(),
        "unit": match metric { Metric::Time => "µs/s".to_owned(), Metric::Bytes => "B/s".to_owned(), _ => format!("{}/s", metric.label()) },
        "columns": it.columns.iter().map(|it| json!({ "from_s": it.from_s, "to_s": it.to_s })).collect::<Vec<_>>(),
        "rows": it.rows.iter().map(|it| json!({
            "name": it.name, "shard": shards.name(it.shard), "first_part": it.first_part, "last_part": it.last_part,
        })).collect::<Vec<_>>(),
        "cells": it.cells.chunks(columns).collect::<Vec<_>>(),
        "marks": it.marks.iter().map(|it| json!({ "at_s": it.at_s, "kind": kind(it.kind), "text": it.text })).collect::<Vec<_>>(),
        "shape": it.shape.label(),
        "sentence": it.shape.sentence(),
    })
}
