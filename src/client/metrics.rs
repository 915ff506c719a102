//! What clients and their statements cost and get.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Sessions;
use super::balance::{Balance, ReadMetrics};
use super::freshness::ReadReason;
use super::target_metrics::{TargetMetricFamilies, TargetMetrics};
use crate::base::{Access, Reason, Role, ShardId};
use crate::config;
use crate::metrics::{self, RegisterError, Registry};

/// The families, made once.
#[derive(Clone)]
pub struct ClientMetricFamilies {
    targets: TargetMetricFamilies,
    refusals: IntCounterVec,
    retries: IntCounterVec,
    evictions: IntCounterVec,
    renewals: IntCounterVec,
    pins: IntCounterVec,
    state_probes: IntCounterVec,
    pinned: IntGaugeVec,
    logins: IntCounterVec,
    replication: IntGaugeVec,
    replication_bytes: IntCounterVec,
    reads: IntCounterVec,
    /// Reads and floor misses, by server.
    server_reads: [IntCounterVec; 2],
    turned_down: IntCounterVec,
    floor_waits: IntCounterVec,
    held: IntGaugeVec,
    held_seconds: HistogramVec,
    pub clients: IntGauge,
    /// Those of `clients` that came with TLS.
    pub tls_clients: IntGauge,
    /// Those of `clients` that have been silent for a while; counted now and then.
    pub resting_clients: IntGauge,
}

fn pins(registry: &Registry) -> Result<IntCounterVec, RegisterError> {
    let help = "Clients that got a server connection of their own, by the state that needs it.";
    registry.counters("keyway_pins_total", help, &["database", "reason"])
}

fn state_probes(registry: &Registry) -> Result<IntCounterVec, RegisterError> {
    let help = "Times that a server was searched for state that a statement may have left on it.";
    registry.counters("keyway_state_probes_total", help, &["database"])
}

fn resting_clients(registry: &Registry) -> Result<IntGauge, RegisterError> {
    let help =
        "Client connections whose sessions have given up what only statements need, of keyway_clients.";
    Ok(registry.gauges("keyway_resting_clients", help, &[])?.with_label_values::<&str>(&[]))
}

fn logins(registry: &Registry) -> Result<IntCounterVec, RegisterError> {
    registry.counters("keyway_logins_total", "Logins by result: ok, refused, left.", &["result"])
}

fn reads(registry: &Registry) -> Result<IntCounterVec, RegisterError> {
    let help = "Reads that a replica could answer, by where they went and why.";
    registry.counters("keyway_reads_total", help, &["database", "target", "reason"])
}

fn server_reads(registry: &Registry) -> Result<[IntCounterVec; 2], RegisterError> {
    let of = ["database", "shard", "server"];
    Ok([
        registry.counters("keyway_server_reads_total", "Reads that went to a replica, by server.", &of)?,
        registry.counters(
            "keyway_server_floor_misses_total",
            "Reads that went to the primary because no replica had what they must see, counted for each that was within max_lag.",
            &of,
        )?,
    ])
}

fn turned_down(registry: &Registry) -> Result<IntCounterVec, RegisterError> {
    let help = "Reads that a replica turned down and that the primary then answered, by SQLSTATE: 25006 says that Keyway took a write for a read.";
    registry.counters("keyway_replica_refusals_total", help, &["database", "sqlstate"])
}

fn floor_waits(registry: &Registry) -> Result<IntCounterVec, RegisterError> {
    let help = "Statements of transactions on a replica that waited for it to have what was written.";
    registry.counters("keyway_floor_wait_total", help, &["database"])
}

fn held(registry: &Registry) -> Result<IntGaugeVec, RegisterError> {
    let help = "Statements that wait for their shard to have a primary, of at most failover_queue.";
    registry.gauges("keyway_failover_waiting", help, &["database"])
}

fn held_seconds(registry: &Registry) -> Result<HistogramVec, RegisterError> {
    let help = "Time that statements have waited for their shard to have a primary.";
    registry.latencies("keyway_failover_wait_seconds", help, &["database"])
}

fn replication_bytes(registry: &Registry) -> Result<IntCounterVec, RegisterError> {
    let help = "Bytes relayed between clients that speak the replication protocol and their servers.";
    registry.counters("keyway_replication_bytes_total", help, &["database", "to"])
}

impl ClientMetricFamilies {
    pub fn register(registry: &Registry) -> Result<ClientMetricFamilies, RegisterError> {
        Ok(ClientMetricFamilies {
            targets: TargetMetricFamilies::register(registry)?,
            refusals: registry.counters(
                "keyway_refusals_total",
                "Requests that keyway itself refused, by reason.",
                &["database", "reason"],
            )?,
            retries: registry.counters(
                "keyway_read_retries_total",
                "Reads sent again to another server after one failed before a byte of its answer.",
                &["database"],
            )?,
            evictions: registry.counters(
                "keyway_statement_evictions_total",
                "Prepared statements closed on a server connection to make room for others.",
                &["database"],
            )?,
            renewals: registry.counters(
                "keyway_statement_renewals_total",
                "Statements prepared and run again because a table had changed since.",
                &["database"],
            )?,
            pins: pins(registry)?,
            state_probes: state_probes(registry)?,
            pinned: registry.gauges(
                "keyway_pins",
                "Clients that have a server connection of their own now, by the state that needs it.",
                &["database", "reason"],
            )?,
            logins: logins(registry)?,
            replication: registry.gauges(
                "keyway_replication_connections",
                "Clients that speak the replication protocol, each with a server connection of its own.",
                &["database"],
            )?,
            replication_bytes: replication_bytes(registry)?,
            reads: reads(registry)?,
            floor_waits: floor_waits(registry)?,
            server_reads: server_reads(registry)?,
            turned_down: turned_down(registry)?,
            held: held(registry)?,
            held_seconds: held_seconds(registry)?,
            clients: registry
                .gauges("keyway_clients", "Client connections.", &[])?
                .with_label_values::<&str>(&[]),
            resting_clients: resting_clients(registry)?,
            tls_clients: registry
                .gauges("keyway_tls_clients", "Client connections with TLS, of keyway_clients.", &[])?
                .with_label_values::<&str>(&[]),
        })
    }

    pub fn login(&self, result: &str) {
        self.logins.with_label_values(&[result]).inc();
    }

    /// Of a shard that the configuration does not have any more.
    pub fn forget_shard(&self, database: &str, shard: &str) {
        self.targets.forget_shard(database, shard);
    }

    /// Of a server that no database of the configuration has any more.
    pub fn forget_server(&self, database: &str, shard: &str, server: &str) {
        let of = [("database", database), ("shard", shard), ("server", server)];
        self.server_reads.iter().for_each(|it| metrics::forget(it, &of));
    }

    /// How reads are spread in a database. `before` is what a reload replaces.
    pub fn balance(&self, database: &config::Database, before: Option<&Balance>) -> Balance {
        let of = |shard: &str, server: &str| {
            let [reads, floor_misses] = self
                .server_reads
                .each_ref()
                .map(|it| it.with_label_values(&[&*database.name, shard, server]));
            ReadMetrics { reads, floor_misses }
        };
        Balance::new(database, of, before)
    }

    /// What is not of a shard.
    pub fn forget_database(&self, database: &str) {
        let of = [("database", database)];
        metrics::forget(&self.refusals, &of);
        metrics::forget(&self.retries, &of);
        metrics::forget(&self.evictions, &of);
        metrics::forget(&self.renewals, &of);
        metrics::forget(&self.pins, &of);
        metrics::forget(&self.replication, &of);
        metrics::forget(&self.replication_bytes, &of);
        metrics::forget(&self.state_probes, &of);
        metrics::forget(&self.reads, &of);
        metrics::forget(&self.turned_down, &of);
        metrics::forget(&self.floor_waits, &of);
        metrics::forget(&self.held, &of);
        metrics::forget(&self.held_seconds, &of);
    }

    /// Counted when somebody looks: each session knows its own pin.
    pub fn count_pins(&self, sessions: &Sessions) {
        self.pinned.reset();
        for it in sessions.all() {
            if let Some(reason) = it.pin() {
                self.pinned.with_label_values(&[&*it.database, reason]).inc();
            }
        }
    }

    pub fn of_database(&self, database: &str, shards: &[String]) -> DatabaseMetrics {
        let target = |shard: &str, role: Role, access: Access| {
            self.targets.target([database, shard, role.label(), access.label()])
        };
        let shards = shards.iter().map(|shard| {
            [
                target(shard, Role::Primary, Access::Read),
                target(shard, Role::Primary, Access::Write),
                target(shard, Role::Replica, Access::Read),
            ]
        });
        let read = |it: ReadReason| {
            let [target, reason] = it.labels();
            self.reads.with_label_values(&[database, target, reason])
        };
        let refusal = |it: Reason| self.refusals.with_label_values(&[database, it.label()]);
        DatabaseMetrics {
            targets: shards.collect(),
            refusals: Reason::ALL.map(refusal).to_vec(),
            reads: ReadReason::ALL.map(read),
            floor_waits: self.floor_waits.with_label_values(&[database]),
            held: self.held.with_label_values(&[database]),
            held_seconds: self.held_seconds.with_label_values(&[database]),
            retries: self.retries.with_label_values(&[database]),
            evictions: self.evictions.with_label_values(&[database]),
            renewals: self.renewals.with_label_values(&[database]),
            state_probes: self.state_probes.with_label_values(&[database]),
            turned_down: self.turned_down.clone(),
            pins: self.pins.clone(),
            replication: self.replication.with_label_values(&[database]),
            to_client: self.replication_bytes.with_label_values(&[database, "client"]),
            to_server: self.replication_bytes.with_label_values(&[database, "server"]),
            database: database.to_owned(),
        }
    }
}

/// The handles of one database, resolved once.
pub struct DatabaseMetrics {
    targets: Vec<[TargetMetrics; 3]>,
    refusals: Vec<IntCounter>,
    /// By `ReadReason`.
    reads: [IntCounter; 9],
    pub floor_waits: IntCounter,
    /// Statements that wait for a primary, and how long they have.
    pub(super) held: IntGauge,
    pub(super) held_seconds: Histogram,
    pub retries: IntCounter,
    /// Replication connections now, and their bytes.
    pub replication: IntGauge,
    pub to_client: IntCounter,
    pub to_server: IntCounter,
    pub evictions: IntCounter,
    pub renewals: IntCounter,
    pub state_probes: IntCounter,
    turned_down: IntCounterVec,
    pins: IntCounterVec,
    database: String,
}

/// Sums over the roles of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardTotals {
    pub reads: u64,
    pub writes: u64,
    pub errors: u64,
    pub in_flight: i64,
}

/// Of requests that servers answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueryTotals {
    pub queries: u64,
    pub bytes: u64,
    pub seconds: f64,
}

impl DatabaseMetrics {
    pub fn target(&self, shard: ShardId, role: Role, access: Access) -> Option<&TargetMetrics> {
        let index = match (role, access) {
            (Role::Primary, Access::Read) => 0,
            (Role::Primary, Access::Write) => 1,
            (Role::Replica, _) => 2,
        };
        self.targets.get(usize::from(shard.0)).map(|it| &it[index])
    }

    /// All that has been counted of a shard, for rates.
    pub fn totals(&self, shard: ShardId) -> ShardTotals {
        let Some([read, write, replica]) = self.targets.get(usize::from(shard.0)) else {
            return ShardTotals::default();
        };
        ShardTotals {
            reads: read.queries() + replica.queries(),
            writes: write.queries(),
            errors: read.errors() + write.errors() + replica.errors(),
            in_flight: read.in_flight() + write.in_flight() + replica.in_flight(),
        }
    }

    /// Of all shards.
    pub fn query_totals(&self) -> QueryTotals {
        let mut totals = QueryTotals::default();
        for it in self.targets.iter().flatten() {
            totals.queries += it.queries();
            totals.bytes += it.bytes();
            totals.seconds += it.seconds();
        }
        totals
    }

    /// What was refused so far, reasons that never occurred left out.
    pub fn refusals(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counted = Reason::ALL.into_iter().zip(&self.refusals).map(|(reason, it)| (reason, it.get()));
        counted.filter(|(_, count)| *count > 0)
    }

    /// By a standby, which has few states for that; the read is made again.
    pub fn turned_down(&self, state: Option<&'static str>) {
        self.retries.inc();
        if let Some(state) = state {
            self.turned_down.with_label_values(&[self.database.as_str(), state]).inc();
        }
    }

    pub(super) fn read(&self, reason: ReadReason) {
        // `ALL` is in the order of the enum.
        self.reads[reason as usize].inc();
    }

    pub fn refused(&self, reason: Reason) {
        if let Some(index) = Reason::ALL.iter().position(|it| *it == reason) {
            self.refusals[index].inc();
        }
    }

    pub fn pinned(&self, reason: &str) {
        self.pins.with_label_values(&[self.database.as_str(), reason]).inc();
    }
}
