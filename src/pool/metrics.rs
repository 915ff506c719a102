//! What a pool tells of itself.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::backend::ConnectError;
use crate::metrics::{Limit, LimitHits, RegisterError, Registry};

/// The families, made once for all pools.
#[derive(Clone)]
pub struct PoolMetricFamilies {
    connections: IntGaugeVec,
    waiters: IntGaugeVec,
    wait: HistogramVec,
    connect_failures: IntCounterVec,
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
            wait: registry.latencies(
                "keyway_pool_wait_seconds",
                "Time that clients waited where no connection was idle.",
                &LABELS,
            )?,
            connect_failures: registry.counters(
                "keyway_pool_connect_failures_total",
                "Connections to servers that could not be made.",
                &LABELS,
            )?,
            hits: hits.clone(),
        })
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

impl PoolMetrics {
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
