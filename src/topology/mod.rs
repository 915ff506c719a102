//! Which server is what, and how far behind: one prober per server, and from their answers a snapshot
//! that routing reads without a lock (DESIGN D5).

mod estimate;
mod feed;
mod metrics;
mod names;
mod patroni;
mod probe;
mod ring;

pub use estimate::{Estimate, Failure, LagBounds, Observation, Pace, Report};
pub use metrics::TopologyMetricFamilies;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::backend::BackendSpec;
use crate::base::{Position, ServerId, ShardId};
use crate::config::{Address, Database, ShardServers};
use crate::net::{Lookup, is_name};
use crate::route::{Cluster, Server};
use feed::Feed;
use metrics::TopologyMetrics;

pub struct Topology {
    cluster: ArcSwap<Cluster>,
    bounds: LagBounds,
    /// What the probers write, by shard. Routing reads `cluster` alone.
    estimates: Mutex<Vec<Estimate>>,
    metrics: TopologyMetrics,
    /// A reload has put another one in its place: the metrics are of that one.
    replaced: AtomicBool,
    /// Counts changes of roles.
    changes: watch::Sender<u64>,
    /// The estimates know more than `cluster` says, or this has ended.
    dirty: Arc<Notify>,
    /// One for each server.
    feeds: Vec<Vec<Arc<Feed>>>,
    on_move: OnceLock<OnMove>,
}

/// What else has to be done, and is done before anybody hears of the server again, when connections made before a moment
/// lead to an address that is not the server's any more.
type OnMove = Box<dyn Fn(&Server, Instant) + Send + Sync>;

/// Where and as whom to probe.
#[derive(Clone)]
pub struct ProbeSpec {
    /// Of any server of the database: probers put in their own.
    pub backend: BackendSpec,
    pub interval: Duration,
    pub timeout: Duration,
    /// How often names are looked up; `None` is never.
    pub dns_interval: Option<Duration>,
    pub lookup: Lookup,
    /// Of this server.
    pub patroni: Option<Address>,
}

impl ProbeSpec {
    fn of(&self, address: &Address, patroni: Option<&Address>) -> ProbeSpec {
        let mut spec = self.clone();
        spec.patroni = patroni.cloned();
        (spec.backend.host, spec.backend.port) = (address.host.as_str().into(), address.port);
        spec.backend.application_name = Some("keyway probe");
        // The probe's own time-out covers the login too.
        spec.backend.connect_timeout = spec.timeout * 2;
        spec
    }

    fn is_same(&self, other: &ProbeSpec) -> bool {
        self.backend.is_same(&other.backend)
            && (self.interval, self.timeout) == (other.interval, other.timeout)
            && self.dns_interval == other.dns_interval
            && self.patroni == other.patroni
    }

    /// How often the server's name is looked up, if it is one.
    fn lookups(&self) -> Option<Duration> {
        self.dns_interval.filter(|_| is_name(&self.backend.host))
    }
}

impl Topology {
    /// Starts the probers; they end when `stopping` says so or is dropped, or when no topology listens any
    /// more. With `before`, at a reload, those of servers that stay go on, and what they found out is kept.
    pub fn start(
        database: &Database,
        spec: &ProbeSpec,
        families: &TopologyMetricFamilies,
        stopping: &watch::Receiver<bool>,
        before: Option<&Arc<Topology>>,
    ) -> Arc<Topology> {
        let feeds = |it: &ShardServers| {
            let servers = it.servers.iter().zip(&it.patroni);
            servers.map(|(of, patroni)| feed_of(spec.of(of, patroni.as_ref()), before)).collect()
        };
        let feeds: Vec<Vec<Arc<Feed>>> = database.shards.iter().map(feeds).collect();
        let bounds = LagBounds::new(database.max_lag, spec.interval);
        if let Some(before) = before.filter(|it| it.bounds == bounds && it.is_same(database, &feeds)) {
            return before.clone();
        }
        let estimate = |(shard, servers)| estimate_of(shard, servers, bounds);
        let mut estimates: Vec<Estimate> = database.shards.iter().enumerate().map(estimate).collect();
        if let Some(before) = before {
            before.replaced.store(true, Ordering::Relaxed);
            let known = before.estimates.lock();
            for estimate in &mut estimates {
                if let Some(it) = known.iter().find(|it| it.name() == estimate.name()) {
                    estimate.adopt(it);
                }
            }
        }
        let cluster = cluster_of(&mut estimates, Instant::now());
        let topology = Arc::new(Topology {
            metrics: families.of_database(&database.name, &cluster),
            cluster: ArcSwap::from_pointee(cluster),
            bounds,
            estimates: Mutex::new(estimates),
            replaced: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            dirty: Arc::default(),
            feeds,
            on_move: OnceLock::new(),
        });
        for (shard, feeds) in topology.feeds.iter().enumerate() {
            for (index, feed) in feeds.iter().enumerate() {
                let server = ServerId { shard: ShardId(shard as u16), index: index as u16 };
                feed.listen(&topology, server);
                if before.is_some_and(|it| it.has(feed)) {
                    continue;
                }
                tokio::spawn(probe::run(feed.clone(), stopping.clone()));
                if let Some(interval) = feed.spec.lookups() {
                    tokio::spawn(names::follow(feed.clone(), interval, stopping.clone()));
                }
            }
        }
        let (weak, dirty) = (Arc::downgrade(&topology), topology.dirty.clone());
        tokio::spawn(publish_while_alive(weak, dirty, spec.interval / 10, stopping.clone()));
        topology
    }

    fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }

    fn all_feeds(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.feeds.iter().flatten()
    }

    fn has(&self, feed: &Arc<Feed>) -> bool {
        self.all_feeds().any(|it| Arc::ptr_eq(it, feed))
    }

    /// Whether it is the topology of these shards with these probers.
    fn is_same(&self, database: &Database, feeds: &[Vec<Arc<Feed>>]) -> bool {
        let estimates = self.estimates.lock();
        let names = || estimates.iter().map(Estimate::name);
        names().eq(database.shards.iter().map(|it| it.name.as_str()))
            && self.feeds.len() == feeds.len()
            && self
                .feeds
                .iter()
                .zip(feeds)
                .all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b)))
    }

    /// The newest snapshot; cheap enough for every statement.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Cluster>> {
        self.cluster.load()
    }

    pub fn shard_count(&self) -> usize {
        self.feeds.len()
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
        let found = self.feeds.get(usize::from(server.shard.0));
        if let Some(feed) = found.and_then(|it| it.get(usize::from(server.index))) {
            feed.urgent.notify_one();
        }
    }

    /// Where the primary of the shard was at a moment behind `floor`; `None` where no sample is of after it yet.
    pub fn position_behind(&self, shard: ShardId, floor: Instant) -> Option<Position> {
        self.estimates.lock().get(usize::from(shard.0))?.position_behind(floor)
    }

    /// A moment at which the primary of the shard had passed `position`, as early as is known, and `None` inside where
    /// that is not. `None` for a timeline that no primary here has been on.
    pub fn moment_of(&self, shard: ShardId, position: Position) -> Option<Option<Instant>> {
        self.estimates.lock().get(usize::from(shard.0))?.moment_of(position)
    }

    /// Somebody waits for a server of the shard to be there: have a look at each now.
    pub fn look_at(&self, shard: ShardId) {
        let feeds = self.feeds.get(usize::from(shard.0)).into_iter().flatten();
        feeds.for_each(|it| it.urgent.notify_one());
    }

    /// To be called once, by whoever keeps connections to the servers.
    pub fn on_move(&self, act: impl Fn(&Server, Instant) + Send + Sync + 'static) {
        let _ = self.on_move.set(Box::new(act));
    }

    /// Whether connections to the server that were made at `connected_at` lead to an address that it has no more.
    pub fn has_moved_since(&self, server: ServerId, connected_at: Instant) -> bool {
        let cluster = self.snapshot();
        cluster.server(server).and_then(|it| it.moved_at).is_some_and(|it| connected_at < it)
    }

    /// The name of the server stands for other addresses since `at`. Nothing is known of what is there, so that it has no
    /// role until it has been asked.
    fn move_away(&self, server: ServerId, at: Instant) {
        if let (Some(act), Some(it)) = (self.on_move.get(), self.snapshot().server(server)) {
            act(it, at);
        }
        let mut estimates = self.estimates.lock();
        let Some(estimate) = estimates.get_mut(usize::from(server.shard.0)) else { return };
        let roles_changed = estimate.forget(usize::from(server.index), at);
        self.publish(&mut estimates);
        drop(estimates);
        if !self.is_replaced() {
            self.metrics.moved(server);
        }
        if roles_changed {
            self.changes.send_modify(|it| *it += 1);
        }
    }

    fn not_found(&self, server: ServerId) {
        if !self.is_replaced() {
            self.metrics.not_found(server);
        }
    }

    /// A change of roles is published at once; positions wait for [`publish_while_alive`], so
    /// that the work for a snapshot does not grow with the square of the number of servers. Says when to ask again.
    fn learn(&self, server: ServerId, report: Report, started_at: Instant) -> Pace {
        if let Report::Failed { failure, .. } = &report
            && !self.is_replaced()
        {
            self.metrics.probe_failed(server, *failure);
        }
        let (shard, index) = (usize::from(server.shard.0), usize::from(server.index));
        let is_sample = matches!(report, Report::Seen(_));
        let mut estimates = self.estimates.lock();
        let Some(estimate) = estimates.get_mut(shard) else { return Pace::Usual };
        let roles_changed = estimate.apply(index, started_at, report);
        if is_sample && estimate.is_primary(index) {
            estimate.followers().for_each(|it| self.feeds[shard][it].sampled.notify_one());
        }
        let pace = estimate.pace(index);
        if !roles_changed {
            drop(estimates);
            self.dirty.notify_one();
            return pace;
        }
        self.publish(&mut estimates);
        drop(estimates);
        tracing::info!(cluster = %describe(&self.snapshot()), "roles changed");
        self.changes.send_modify(|it| *it += 1);
        pace
    }

    /// The estimates are borrowed from their lock, which keeps snapshots in order.
    fn publish(&self, estimates: &mut [Estimate]) {
        let now = Instant::now();
        let cluster = Arc::new(cluster_of(estimates, now));
        if !self.is_replaced() {
            self.metrics.publish(&cluster, now);
        }
        self.cluster.store(cluster);
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        self.dirty.notify_one();
    }
}

/// The prober that already watches the server as `spec` says, or a new one that is not started yet.
fn feed_of(spec: ProbeSpec, before: Option<&Arc<Topology>>) -> Arc<Feed> {
    let known = before.and_then(|it| it.all_feeds().find(|it| it.spec.is_same(&spec)));
    known.cloned().unwrap_or_else(|| Feed::new(spec))
}

fn estimate_of(shard: usize, servers: &ShardServers, bounds: LagBounds) -> Estimate {
    let addresses = servers.servers.iter().map(Address::to_string).collect();
    Estimate::new(ShardId(shard as u16), servers.name.clone(), addresses, bounds)
}

fn cluster_of(estimates: &mut [Estimate], now: Instant) -> Cluster {
    estimates.iter_mut().for_each(|it| it.settle(now));
    Cluster { shards: estimates.iter().map(Estimate::shard).collect() }
}

async fn publish_while_alive(
    topology: Weak<Topology>,
    dirty: Arc<Notify>,
    pause: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let publishing = async {
        loop {
            dirty.notified().await;
            let Some(topology) = topology.upgrade() else { return };
            topology.publish(&mut topology.estimates.lock());
            drop(topology);
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
