//! What a pool tells of itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::breaker::BreakerState;
use super::standing::Standing;
use crate::backend::ConnectError;
use crate::metrics::{self, Limit, LimitHits, RegisterError, Registry};

/// The families, made once for all pools.
#[derive(Clone)]
pub struct PoolMetricFamilies {
    connections: IntGaugeVec,
    waiters: IntGaugeVec,
    wait: HistogramVec,
    connect_failures: IntCounterVec,
    servers: ServerMetricFamilies,
    hits: LimitHits,
}

const LABELS: [&str; 4] = ["database", "shard", "server", "user"];

impl PoolMetricFamilies {
    pub fn register(registry: &Registry, hits: &LimitHits) -> Result<PoolMetricFamilies, RegisterError> {
        let states = ["database", "shard", "server", "user", "state"];
        Ok(PoolMetricFamilies {
            connections: registry.gauges(
                "keyway_pool_connections",
                "Server connections by state: idle, active, connecting.",
                &states,
            )?,
            waiters: registry.gauges(
                "keyway_pool_waiters",
                "Clients that wait for a server connection.",
                &LABELS,
            )?,
            wait: registry.waits(
                "keyway_pool_wait_seconds",
                "Time that clients waited where no connection was idle.",
                &LABELS,
            )?,
            connect_failures: registry.counters(
                "keyway_pool_connect_failures_total",
                "Connections to servers that could not be made.",
                &LABELS,
            )?,
            servers: ServerMetricFamilies::register(registry)?,
            hits: hits.clone(),
        })
    }

    /// Of a server that no database of the configuration has any more.
    pub fn forget_server(&self, database: &str, shard: &str, server: &str) {
        self.servers.forget(&[("database", database), ("shard", shard), ("server", server)]);
    }

    /// Of a pool that is gone for good.
    pub fn forget(&self, name: &PoolName) {
        let labels = name.labels();
        let [database, shard, server, user] = labels;
        for state in ["idle", "active", "connecting"] {
            let _ = self.connections.remove_label_values(&[database, shard, server, user, state]);
        }
        let _ = self.waiters.remove_label_values(&labels);
        let _ = self.wait.remove_label_values(&labels);
        let _ = self.connect_failures.remove_label_values(&labels);
    }

    pub fn of(&self, name: &PoolName) -> PoolMetrics {
        let labels = name.labels();
        let [database, shard, server, user] = labels;
        let state = |it: &str| self.connections.with_label_values(&[database, shard, server, user, it]);
        PoolMetrics {
            idle: state("idle"),
            active: state("active"),
            connecting: state("connecting"),
            waiters: self.waiters.with_label_values(&labels),
            wait: self.wait.with_label_values(&labels),
            connect_failures: self.connect_failures.with_label_values(&labels),
            server: self.servers.of(&[database, shard, server]),
            hits: self.hits.clone(),
        }
    }
}

/// What a pool is of, as metrics and the console name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolName {
    pub database: Arc<str>,
    pub shard: Arc<str>,
    /// Host and port.
    pub server: Arc<str>,
    pub user: Arc<str>,
}

impl PoolName {
    fn labels(&self) -> [&str; 4] {
        [&self.database, &self.shard, &self.server, &self.user]
    }
}

/// The handles of one pool.
#[derive(Clone)]
pub struct PoolMetrics {
    idle: IntGauge,
    active: IntGauge,
    connecting: IntGauge,
    waiters: IntGauge,
    wait: Histogram,
    connect_failures: IntCounter,
    server: ServerMetrics,
    hits: LimitHits,
}

/// What a pool looks like from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolUsage {
    pub active: usize,
    pub idle: usize,
    pub connecting: usize,
    pub waiters: usize,
    /// Connections that there may be.
    pub size: usize,
}

/// What the pools of one server have in common.
#[derive(Clone)]
struct ServerMetricFamilies {
    breaker_open: IntGaugeVec,
    breaker_opened: IntCounterVec,
    outstanding: IntGaugeVec,
    latency_seconds: GaugeVec,
}

impl ServerMetricFamilies {
    fn register(registry: &Registry) -> Result<ServerMetricFamilies, RegisterError> {
        let of = ["database", "shard", "server"];
        Ok(ServerMetricFamilies {
            breaker_open: registry.gauges(
                "keyway_server_breaker_open",
                "1 while the server is not used because it has failed, or has yet to show that it is back.",
                &of,
            )?,
            breaker_opened: registry.counters(
                "keyway_server_breaker_opened_total",
                "Times that a server was left alone for a while because it had failed.",
                &of,
            )?,
            outstanding: registry.gauges(
                "keyway_server_reads_outstanding",
                "Reads under way at the server as a replica, transactions too, of all databases.",
                &of,
            )?,
            latency_seconds: registry.float_gauges(
                "keyway_server_read_latency_seconds",
                "Moving mean of reads at the server as a replica, by which they are spread; 0 without any.",
                &of,
            )?,
        })
    }

    fn of(&self, labels: &[&str; 3]) -> ServerMetrics {
        ServerMetrics {
            breaker_open: self.breaker_open.with_label_values(labels),
            breaker_opened: self.breaker_opened.with_label_values(labels),
            outstanding: self.outstanding.with_label_values(labels),
            latency_seconds: self.latency_seconds.with_label_values(labels),
        }
    }

    fn forget(&self, of: &[(&str, &str)]) {
        metrics::forget(&self.breaker_open, of);
        metrics::forget(&self.breaker_opened, of);
        metrics::forget(&self.outstanding, of);
        metrics::forget(&self.latency_seconds, of);
    }
}

#[derive(Clone)]
struct ServerMetrics {
    breaker_open: IntGauge,
    breaker_opened: IntCounter,
    outstanding: IntGauge,
    latency_seconds: Gauge,
}

impl PoolMetrics {
    /// When somebody looks, as `publish`.
    pub(super) fn observe(&self, standing: &Standing, now: Instant) {
        let it = &self.server;
        it.breaker_open.set(i64::from(standing.breaker.state(now) != BreakerState::Closed));
        it.breaker_opened.inc_by(standing.breaker.opened_count().saturating_sub(it.breaker_opened.get()));
        it.outstanding.set(i64::from(standing.outstanding()));
        it.latency_seconds.set(f64::from(standing.latency_us(now)) / 1e6);
    }

    pub(super) fn publish(&self, usage: &PoolUsage) {
        self.idle.set(usage.idle as i64);
        self.active.set(usage.active as i64);
        self.connecting.set(usage.connecting as i64);
        self.waiters.set(usage.waiters as i64);
    }

    pub(super) fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    pub(super) fn waited_seconds(&self) -> f64 {
        self.wait.get_sample_sum()
    }

    pub(super) fn hit(&self, limit: Limit) {
        self.hits.hit(limit);
    }

    pub(super) fn connect_failed(&self, error: &ConnectError) {
        self.connect_failures.inc();
        if error.is_timeout() {
            self.hit(Limit::ConnectTime);
        }
    }
}
