//! SHOW REPLICAS.

use std::sync::Arc;
use std::time::Instant;

use super::tables::{Row, int, n, opt, pools_of, sorted, t, text};
use crate::base::Role;
use crate::client::{Database, Shared};
use crate::pool::{Pool, PoolUsage};
use crate::route::Server;
use crate::wire::{Column, Value};

pub(super) const REPLICAS: &[Column] = &[
    text("database"),
    text("shard"),
    text("server"),
    text("role"),
    int("lag_ms"),
    int("lag_bytes"),
    int("timeline"),
    text("position"),
    text("problem"),
    int("sample_age_ms"),
    text("serves"),
    text("breaker"),
    int("breaker_opened"),
    int("weight"),
    text("zone"),
    int("reads"),
    text("read_share"),
    int("floor_misses"),
    int("reads_outstanding"),
    int("latency_us"),
    int("sv_active"),
    int("sv_idle"),
    int("sv_login"),
    int("cl_waiting"),
];

/// Every server with what is known of it, primaries too: roles change.
pub(super) fn replicas(shared: &Shared, now: Instant) -> Vec<Row> {
    let mut rows = Vec::new();
    for database in sorted(shared) {
        let (cluster, pools) = (database.topology.snapshot(), pools_of(database));
        for shard in &cluster.shards {
            // Of a primary, what it reads for want of a replica is not told apart from its own.
            let reads = |it: &Server| database.balance.reads(it.id).map_or(0, |it| it.reads);
            let total = shard.servers.iter().map(reads).sum::<u64>();
            let of = shard.servers.iter().map(|it| replica(database, &shard.name, it, total, &pools, now));
            rows.extend(of);
        }
    }
    rows
}

/// `total` is of the reads that went to replicas of the shard.
fn replica(
    database: &Database,
    shard: &str,
    server: &Server,
    total: u64,
    pools: &[Arc<Pool>],
    now: Instant,
) -> Row {
    let own = || pools.iter().filter(|it| *it.name().server == *server.address);
    let usages: Vec<PoolUsage> = own().map(|it| it.usage()).collect();
    let sum = |of: fn(&PoolUsage) -> usize| n(usages.iter().map(of).sum::<usize>());
    let is_replica = server.role == Some(Role::Replica);
    let standing = own().next().map(|it| it.standing());
    let reads = database.balance.reads(server.id);
    let share = |reads: u64| format!("{:.1} %", reads as f64 * 100.0 / total as f64);
    let serves = match server.joined {
        Some(_) if is_replica => "yes",
        _ if is_replica => "no",
        _ => "",
    };
    vec![
        t(&database.name),
        t(shard),
        t(&server.address),
        opt(server.role, |it| t(it.label())),
        opt(server.lag(now).filter(|_| is_replica), |it| n(it.as_millis())),
        opt(server.lag_bytes.filter(|_| is_replica), n),
        opt(server.timeline, n),
        opt(server.position, |it| Value::Text(it.to_string())),
        opt(server.problem.as_deref(), t),
        opt(server.observed_at, |it| n(now.saturating_duration_since(it).as_millis())),
        t(serves),
        opt(standing, |it| t(it.breaker.state(now).label())),
        opt(standing, |it| n(it.breaker.opened_count())),
        opt(reads.as_ref(), |it| n(it.weight)),
        opt(reads.as_ref().and_then(|it| it.zone.as_deref()), t),
        opt(reads.as_ref(), |it| n(it.reads)),
        opt(reads.as_ref().filter(|_| total > 0), |it| Value::Text(share(it.reads))),
        opt(reads.as_ref(), |it| n(it.floor_misses)),
        opt(standing, |it| n(it.outstanding())),
        opt(standing, |it| n(it.latency_us(now))),
        sum(|it| it.active),
        sum(|it| it.idle),
        sum(|it| it.connecting),
        sum(|it| it.waiters),
    ]
}
