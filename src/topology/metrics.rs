//! What is known of servers, as metrics.

use std::time::Instant;

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::estimate::Failure;
use crate::base::{Role, ServerId};
use crate::metrics::{self, Limit, LimitHits, RegisterError, Registry};
use crate::route::Cluster;

const LABELS: [&str; 3] = ["database", "shard", "server"];

#[derive(Clone)]
pub struct TopologyMetricFamilies {
    lag_seconds: GaugeVec,
    lag_bytes: GaugeVec,
    serving: IntGaugeVec,
    role: IntGaugeVec,
    failures: IntCounterVec,
    moves: IntCounterVec,
    not_found: IntCounterVec,
    hits: LimitHits,
}

impl TopologyMetricFamilies {
    pub fn register(registry: &Registry, hits: &LimitHits) -> Result<TopologyMetricFamilies, RegisterError> {
        Ok(TopologyMetricFamilies {
            lag_seconds: registry.float_gauges(
                "keyway_replica_lag_seconds",
                "Time since the primary passed what the replica has replayed; NaN where unknown.",
                &LABELS,
            )?,
            lag_bytes: registry.float_gauges(
                "keyway_replica_lag_bytes",
                "Log that the replica has not replayed; NaN where unknown.",
                &LABELS,
            )?,
            serving: registry.gauges(
                "keyway_replica_serving",
                "1 while the replica is in the set of those that serve reads.",
                &LABELS,
            )?,
            role: registry.gauges(
                "keyway_server_role",
                "1 for the role that the server has.",
                &["database", "shard", "server", "role"],
            )?,
            failures: registry.counters(
                "keyway_probe_failures_total",
                "Probes that were not answered.",
                &LABELS,
            )?,
            moves: registry.counters(
                "keyway_dns_changes_total",
                "Lookups of the server's name that found an address gone.",
                &LABELS,
            )?,
            not_found: registry.counters(
                "keyway_dns_failures_total",
                "Lookups of the server's name that found nothing.",
                &LABELS,
            )?,
            hits: hits.clone(),
        })
    }

    /// Of a server that no database of the configuration has any more.
    pub fn forget(&self, database: &str, shard: &str, server: &str) {
        let of = [("database", database), ("shard", shard), ("server", server)];
        metrics::forget(&self.role, &of);
        metrics::forget(&self.lag_seconds, &of);
        metrics::forget(&self.lag_bytes, &of);
        metrics::forget(&self.serving, &of);
        metrics::forget(&self.failures, &of);
        metrics::forget(&self.moves, &of);
        metrics::forget(&self.not_found, &of);
    }

    pub(super) fn of_database(&self, database: &str, cluster: &Cluster) -> TopologyMetrics {
        let server = |shard: &str, server: &str| {
            let labels = [database, shard, server];
            let role = |role: Role| self.role.with_label_values(&[database, shard, server, role.label()]);
            ServerMetrics {
                lag_seconds: self.lag_seconds.with_label_values(&labels),
                lag_bytes: self.lag_bytes.with_label_values(&labels),
                serving: self.serving.with_label_values(&labels),
                primary: role(Role::Primary),
                replica: role(Role::Replica),
                failures: self.failures.with_label_values(&labels),
                moves: self.moves.with_label_values(&labels),
                not_found: self.not_found.with_label_values(&labels),
            }
        };
        let shards = cluster.shards.iter();
        TopologyMetrics {
            servers: shards
                .map(|it| it.servers.iter().map(|of| server(&it.name, &of.address)).collect())
                .collect(),
            hits: self.hits.clone(),
        }
    }
}

pub(super) struct TopologyMetrics {
    servers: Vec<Vec<ServerMetrics>>,
    hits: LimitHits,
}

struct ServerMetrics {
    lag_seconds: Gauge,
    lag_bytes: Gauge,
    serving: IntGauge,
    primary: IntGauge,
    replica: IntGauge,
    failures: IntCounter,
    moves: IntCounter,
    not_found: IntCounter,
}

impl TopologyMetrics {
    pub fn publish(&self, cluster: &Cluster, now: Instant) {
        for (shard, metrics) in cluster.shards.iter().zip(&self.servers) {
            for (server, metrics) in shard.servers.iter().zip(metrics) {
                let is = |role: Role| i64::from(server.role == Some(role));
                metrics.primary.set(is(Role::Primary));
                metrics.replica.set(is(Role::Replica));
                metrics.serving.set(i64::from(server.joined.is_some()));
                let known = server.role == Some(Role::Replica);
                let lag = server.lag(now).filter(|_| known);
                metrics.lag_seconds.set(lag.map_or(f64::NAN, |it| it.as_secs_f64()));
                let bytes = server.lag_bytes.filter(|_| known);
                metrics.lag_bytes.set(bytes.map_or(f64::NAN, |it| it as f64));
            }
        }
    }

    pub fn probe_failed(&self, server: ServerId, failure: Failure) {
        if failure == Failure::Silent {
            self.hits.hit(Limit::ProbeTime);
        }
        if let Some(it) = self.of(server) {
            it.failures.inc();
        }
    }

    pub fn moved(&self, server: ServerId) {
        if let Some(it) = self.of(server) {
            it.moves.inc();
        }
    }

    pub fn not_found(&self, server: ServerId) {
        if let Some(it) = self.of(server) {
            it.not_found.inc();
        }
    }

    fn of(&self, server: ServerId) -> Option<&ServerMetrics> {
        self.servers.get(usize::from(server.shard.0))?.get(usize::from(server.index))
    }
}
