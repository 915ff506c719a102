//! Which server is what, and how far behind: one prober per server, and from their answers a snapshot
//! that routing reads without a lock (DESIGN D5).

mod estimator;
mod metrics;
mod probe;

pub use metrics::TopologyMetricFamilies;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::base::ServerId;
use crate::config::{Address, Database};
use crate::route::Cluster;
use estimator::Estimator;
use metrics::TopologyMetrics;
use probe::Prober;

pub struct Topology {
    cluster: ArcSwap<Cluster>,
    estimator: Mutex<Estimator>,
    metrics: TopologyMetrics,
    /// Wakes those who wait for a role to change.
    changed: Notify,
    /// Asks a prober to look at once, one for each server.
    urgent: Vec<Vec<Arc<Notify>>>,
}

/// Where and as whom to probe.
#[derive(Clone)]
pub struct ProbeSpec {
    pub dbname: String,
    pub user: String,
    pub password: Option<Arc<str>>,
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
        let estimator = Estimator::new(
            database
                .shards
                .iter()
                .map(|shard| (shard.name.clone(), shard.servers.iter().map(Address::to_string).collect())),
        );
        let topology = Arc::new(Topology {
            cluster: ArcSwap::from_pointee(estimator.cluster()),
            metrics: families.of_database(&database.name, &estimator.cluster()),
            estimator: Mutex::new(estimator),
            changed: Notify::new(),
            urgent: database
                .shards
                .iter()
                .map(|it| it.servers.iter().map(|_| Arc::default()).collect())
                .collect(),
        });
        for (shard, servers) in database.shards.iter().enumerate() {
            for (index, address) in servers.servers.iter().enumerate() {
                let server = ServerId { shard: crate::base::ShardId(shard as u16), index: index as u16 };
                let prober = Prober::new(server, address.clone(), spec.clone());
                let urgent = topology.urgent[shard][index].clone();
                tokio::spawn(probe::run(prober, topology.clone(), urgent, stopping.clone()));
            }
        }
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

    /// Waits for the next change of a role. A change between a look at the snapshot and this call is
    /// missed, so callers bound the wait.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The data path could not use a server: have a look now.
    pub fn report_failure(&self, server: ServerId) {
        let found = self.urgent.get(usize::from(server.shard.0));
        if let Some(urgent) = found.and_then(|it| it.get(usize::from(server.index))) {
            urgent.notify_one();
        }
    }

    fn learn(&self, server: ServerId, outcome: Result<estimator::Sample, String>, started: Instant) {
        let mut estimator = self.estimator.lock();
        match outcome {
            Ok(sample) => estimator.sampled(server, sample, started),
            Err(problem) => {
                self.metrics.probe_failed(server);
                estimator.failed(server, problem);
            }
        }
        let cluster = Arc::new(estimator.cluster());
        let before = self.cluster.swap(cluster.clone());
        drop(estimator);
        self.metrics.publish(&cluster, Instant::now());
        let roles = |of: &Cluster| {
            of.shards.iter().flat_map(|it| it.servers.iter().map(|it| it.role)).collect::<Vec<_>>()
        };
        if roles(&before) != roles(&cluster) {
            tracing::info!(?server, cluster = %describe(&cluster), "roles changed");
            self.changed.notify_waiters();
        }
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
