//! Which server is what, and how far behind: one prober per server, and from their answers a snapshot
//! that routing reads without a lock (DESIGN D5).

mod estimate;
mod metrics;
mod probe;
mod ring;

pub use metrics::TopologyMetricFamilies;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::backend::BackendSpec;
use crate::base::{ServerId, ShardId};
use crate::config::{Address, Database, ShardServers};
use crate::route::Cluster;
use estimate::{Estimate, Report};
use metrics::TopologyMetrics;
use probe::Prober;

pub struct Topology {
    cluster: ArcSwap<Cluster>,
    /// What the probers write, by shard. Routing reads `cluster` alone.
    estimates: Mutex<Vec<Estimate>>,
    metrics: TopologyMetrics,
    /// Counts changes of roles.
    changes: watch::Sender<u64>,
    /// The estimates know more than `cluster` says.
    dirty: Notify,
    /// Asks a prober to look at once, one for each server.
    urgent: Vec<Vec<Arc<Notify>>>,
}

/// Where and as whom to probe.
#[derive(Clone)]
pub struct ProbeSpec {
    /// Of any server of the database: probers put in their own.
    pub backend: BackendSpec,
    pub interval: Duration,
    pub timeout: Duration,
}

impl Topology {
    /// Starts the probers; they end when `stopping` says so or is dropped.
    pub fn start(
        database: &Database,
        spec: &ProbeSpec,
        families: &TopologyMetricFamilies,
        stopping: &watch::Receiver<bool>,
    ) -> Arc<Topology> {
        let estimates: Vec<Estimate> = database.shards.iter().enumerate().map(estimate_of).collect();
        let cluster = cluster_of(&estimates);
        let topology = Arc::new(Topology {
            metrics: families.of_database(&database.name, &cluster),
            cluster: ArcSwap::from_pointee(cluster),
            estimates: Mutex::new(estimates),
            changes: watch::Sender::new(0),
            dirty: Notify::new(),
            urgent: database
                .shards
                .iter()
                .map(|it| it.servers.iter().map(|_| Arc::default()).collect())
                .collect(),
        });
        for (shard, servers) in database.shards.iter().enumerate() {
            for (index, address) in servers.servers.iter().enumerate() {
                let server = ServerId { shard: ShardId(shard as u16), index: index as u16 };
                let prober = Prober::new(server, address, spec.clone());
                let urgent = topology.urgent[shard][index].clone();
                tokio::spawn(probe::run(prober, topology.clone(), urgent, stopping.clone()));
            }
        }
        tokio::spawn(publish_while_running(topology.clone(), spec.interval / 10, stopping.clone()));
        topology
    }

    /// The newest snapshot; cheap enough for every statement.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Cluster>> {
        self.cluster.load()
    }

    pub fn shard_count(&self) -> usize {
        self.urgent.len()
    }

    /// Every shard has a primary.
    pub fn is_ready(&self) -> bool {
        self.snapshot().shards.iter().all(|it| it.primary().is_some())
    }

    /// Wakes at every change of a role. To miss none: subscribe, look at the snapshot, then wait.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The data path could not use a server: have a look now.
    pub fn report_failure(&self, server: ServerId) {
        let found = self.urgent.get(usize::from(server.shard.0));
        if let Some(urgent) = found.and_then(|it| it.get(usize::from(server.index))) {
            urgent.notify_one();
        }
    }

    /// A change of roles is published at once; positions wait for [`publish_while_running`], so
    /// that the work for a snapshot does not grow with the square of the number of servers.
    fn learn(&self, server: ServerId, report: Report, started_at: Instant) {
        if matches!(report, Report::Failed { .. }) {
            self.metrics.probe_failed(server);
        }
        let mut estimates = self.estimates.lock();
        let Some(estimate) = estimates.get_mut(usize::from(server.shard.0)) else { return };
        if !estimate.apply(usize::from(server.index), started_at, report) {
            drop(estimates);
            self.dirty.notify_one();
            return;
        }
        self.publish(&estimates);
        drop(estimates);
        tracing::info!(cluster = %describe(&self.snapshot()), "roles changed");
        self.changes.send_modify(|it| *it += 1);
    }

    /// The estimates are borrowed from their lock, which keeps snapshots in order.
    fn publish(&self, estimates: &[Estimate]) {
        let cluster = Arc::new(cluster_of(estimates));
        self.metrics.publish(&cluster, Instant::now());
        self.cluster.store(cluster);
    }
}

fn estimate_of((shard, servers): (usize, &ShardServers)) -> Estimate {
    let addresses = servers.servers.iter().map(Address::to_string).collect();
    Estimate::new(ShardId(shard as u16), servers.name.clone(), addresses)
}

fn cluster_of(estimates: &[Estimate]) -> Cluster {
    Cluster { shards: estimates.iter().map(Estimate::shard).collect() }
}

async fn publish_while_running(
    topology: Arc<Topology>,
    pause: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let publishing = async {
        loop {
            topology.dirty.notified().await;
            topology.publish(&topology.estimates.lock());
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = publishing => {}
        () = probe::stopped(&mut stopping) => {}
    }
}

fn describe(cluster: &Cluster) -> String {
    let server = |it: &crate::route::Server| {
        format!("{} {}", it.address, it.role.map_or("unknown", crate::base::Role::label))
    };
    let shard = |it: &crate::route::Shard| {
        format!("{}: {}", it.name, it.servers.iter().map(server).collect::<Vec<_>>().join(", "))
    };
    cluster.shards.iter().map(shard).collect::<Vec<_>>().join("; ")
}
