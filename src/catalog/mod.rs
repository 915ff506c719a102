//! The catalogs of a database's shards: read at start, on a timer and after DDL that clients send, compared,
//! and given to the router as one [`route::Catalog`](crate::route::Catalog).
//!
//! ```text
//!             every shard read, nothing changed meanwhile
//!   in doubt ─────────────────────────────────────────────▶ known
//!      ▲                                                      │
//!      └──────────── DDL is sent, or has come to its end ─────┘
//! ```
//! What is in doubt is taken to be able to leave anything in a session (`client::pins`). A read that fails
//! leaves what was known as it was, and its age shows.

mod changes;
mod concern;
mod first_look;
mod metrics;
mod read;

pub use changes::Changing;
pub use concern::Concern;
pub use metrics::CatalogMetricFamilies;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::backend::BackendSpec;
use crate::base::Role;
use crate::config::{self, Database, ShardServers};
use crate::route::{Catalog, Cluster, Router, Schema};
use changes::Changes;
use first_look::FirstLook;
use metrics::CatalogMetrics;
use read::ReadError;

/// After a failure, doubled with each one more.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Of the time that passes, no more than one part in so many is spent on reads, whatever clients do.
const PAUSE_PER_READ: u32 = 10;
/// No change has this one.
const NEVER: u64 = u64::MAX;

/// Where and as whom to read.
pub struct ReadSpec {
    /// Of any server of the database: the reader puts in its own.
    pub backend: BackendSpec,
    pub limits: config::Catalog,
    /// The newest snapshot of roles.
    pub cluster: Box<dyn Fn() -> Arc<Cluster> + Send + Sync>,
}

/// One database's catalog as clients see it: whether what the router has still holds. A reload that changes
/// where catalogs are read puts another watch in its place; this one is in doubt from then on.
pub struct CatalogWatch {
    changes: Arc<Changes>,
    /// The epoch of `changes` whose catalog the routers have.
    known_in: AtomicU64,
    /// Likewise, but what a reload takes over stays so.
    read_in: AtomicU64,
    state: Mutex<State>,
    newest: ArcSwap<Catalog>,
    first_look: FirstLook,
    /// Wakes whenever something is known anew.
    published: watch::Sender<()>,
    metrics: CatalogMetrics,
    /// What it was started with.
    backend: BackendSpec,
    limits: config::Catalog,
    shards: Vec<ShardServers>,
}

#[derive(Default)]
struct State {
    /// Those that sessions still use: a reload may make a new one while older ones are at work.
    routers: Vec<Weak<Router>>,
    read_at: Option<Instant>,
    /// The reader ends when it is dropped; none once another watch has replaced this one.
    alive: Option<oneshot::Sender<()>>,
}

impl CatalogWatch {
    /// Starts the reader; it ends when `stopping` says so or is dropped, or when nobody has the watch any more.
    /// `before` is replaced: what it knows is taken over where the shards are the same.
    pub fn start(
        database: &Database,
        spec: ReadSpec,
        families: &CatalogMetricFamilies,
        stopping: &watch::Receiver<bool>,
        before: Option<&Arc<CatalogWatch>>,
    ) -> Arc<CatalogWatch> {
        let names: Vec<String> = database.shards.iter().map(|it| it.name.clone()).collect();
        let (alive, gone) = oneshot::channel();
        let mut state = State { alive: Some(alive), ..State::default() };
        let (mut newest, mut read_in) = (Arc::default(), NEVER);
        if let Some(before) = before {
            let read_at = before.replace();
            if before.backend.database == spec.backend.database && are_same(&before.shards, &database.shards)
            {
                (state.read_at, newest) = (read_at, before.newest());
                read_in = before.read_in.load(Ordering::Acquire);
            }
        }
        let first_look = FirstLook::new(state.read_at.is_some(), Instant::now() + spec.limits.wait);
        let watch = Arc::new(CatalogWatch {
            changes: before.map_or_else(Arc::default, |it| it.changes.clone()),
            known_in: AtomicU64::new(NEVER),
            read_in: AtomicU64::new(read_in),
            state: Mutex::new(state),
            newest: ArcSwap::new(newest),
            first_look,
            published: watch::Sender::new(()),
            metrics: families.of_database(&database.name, &names),
            backend: spec.backend.clone(),
            limits: spec.limits.clone(),
            shards: database.shards.clone(),
        });
        let reader = Reader {
            read: names.iter().map(|_| None).collect(),
            failing: vec![false; names.len()],
            unpublished: false,
            names,
            spec,
            watch: Arc::downgrade(&watch),
        };
        tokio::spawn(run(reader, watch.changes.clone(), gone, stopping.clone()));
        watch
    }

    /// Whether it reads as `spec` says. That the servers are the same, the caller knows.
    pub fn is_same(&self, spec: &ReadSpec) -> bool {
        self.backend.is_same(&spec.backend) && self.limits == spec.limits
    }

    /// Whether a client that logs in at `now` has to wait for [`CatalogWatch::first_look`]: of several shards the catalog tells what
    /// can be merged.
    pub fn awaits_first_look(&self, now: Instant) -> bool {
        self.shards.len() > 1 && self.first_look.is_awaited(now)
    }

    /// Until the catalog has been read once, or has had `catalog_wait` for that. Whether it has been. Cancel safe.
    pub async fn first_look(&self) -> bool {
        self.first_look.over().await
    }

    /// The router has what is known, and gets what will be read.
    pub fn serve(&self, router: &Arc<Router>) {
        let mut state = self.state.lock();
        state.routers.retain(|it| it.strong_count() > 0 && !std::ptr::eq(it.as_ptr(), Arc::as_ptr(router)));
        state.routers.push(Arc::downgrade(router));
        router.adopt(self.newest());
    }

    /// Something that the routers' catalog does not know of may be there.
    pub fn is_in_doubt(&self) -> bool {
        self.known_in.load(Ordering::Acquire) != self.changes.epoch()
    }

    /// DDL that may concern a statement has been sent, or has ended, since the catalog was read; one that never was tells nothing
    /// that could be otherwise.
    pub fn is_outdated(&self, text: &str) -> bool {
        let read_in = self.read_in.load(Ordering::Acquire);
        read_in != NEVER && read_in != self.changes.epoch() && self.changes.concern(text, read_in)
    }

    /// Until the catalog has been read behind DDL, which a moment does; a long change is not waited for to its end, but `catalog_wait`
    /// from its begin on. Whether it has been read for such a statement. Cancel safe.
    pub async fn settled(&self, text: &str) -> bool {
        let mut published = self.published.subscribe();
        if let Some(changed_at) = self.changes.changed_at() {
            // The sender lives as long as `self`.
            let settled = async { while self.is_outdated(text) && published.changed().await.is_ok() {} };
            let _ = tokio::time::timeout_at((changed_at + self.limits.wait).into(), settled).await;
        }
        !self.is_outdated(text)
    }

    pub fn newest(&self) -> Arc<Catalog> {
        self.newest.load_full()
    }

    /// DDL is about to be sent or committed. Where it `doubts` what is known, nothing is known from here on
    /// until it has been read what it did.
    pub fn change(&self, doubts: bool, concern: Concern) -> Changing {
        self.changes.begin(doubts, concern)
    }

    /// For metrics: how old what is known is.
    pub fn observe(&self, now: Instant) {
        let read_at = self.state.lock().read_at;
        self.metrics.age(read_at.map(|it| now.saturating_duration_since(it)), !self.is_in_doubt());
    }

    /// In doubt for ever. When it was read last.
    fn replace(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        state.alive = None;
        self.known_in.store(NEVER, Ordering::Release);
        state.read_at
    }

    /// All shards were read since `began_at`. Under `epoch` nothing changed meanwhile, unless another one
    /// has come; on several shards DDL reaches one after the other, so what is read while it is under way
    /// is no difference. `false` where it is not to be used.
    fn publish(&self, catalog: Option<Catalog>, epoch: u64, began_at: Instant) -> bool {
        let mut state = self.state.lock();
        // A change that begins from here on has another epoch.
        let (now, changing) = self.changes.now();
        if state.alive.is_none() || now != epoch || changing > 0 && self.shards.len() > 1 {
            return false;
        }
        if let Some(catalog) = catalog {
            let catalog = Arc::new(catalog);
            self.metrics.publish(&catalog);
            self.newest.store(catalog.clone());
            state.routers.iter().filter_map(Weak::upgrade).for_each(|it| it.adopt(catalog.clone()));
        }
        state.read_at = Some(began_at);
        self.first_look.done();
        if changing == 0 {
            self.known_in.store(epoch, Ordering::Release);
            self.read_in.store(epoch, Ordering::Release);
            self.changes.read(epoch);
        }
        self.published.send_replace(());
        true
    }
}

/// The same shards in the same order. A server that both have tells that a shard is the same one.
fn are_same(before: &[ShardServers], after: &[ShardServers]) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| {
            before.name == after.name && before.servers.iter().any(|it| after.servers.contains(it))
        })
}

/// What was read of one shard last.
struct ShardRead {
    digest: String,
    schema: Arc<Schema>,
}

/// What a look at one shard has brought.
struct Looked {
    changed: bool,
    role: Role,
}

struct Reader {
    names: Vec<String>,
    spec: ReadSpec,
    read: Vec<Option<ShardRead>>,
    /// The last read of the shard failed.
    failing: Vec<bool>,
    /// Something of `read` is not the router's yet.
    unpublished: bool,
    watch: Weak<CatalogWatch>,
}

async fn run(
    mut reader: Reader,
    changes: Arc<Changes>,
    gone: oneshot::Receiver<()>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut ends = changes.ends();
    let reading = async {
        let mut failures = 0u32;
        loop {
            let began_at = Instant::now();
            let Some(watch) = reader.watch.upgrade() else { return };
            failures = if reader.read_all(&watch).await { 0 } else { failures.saturating_add(1) };
            // The watch lives as long as clients have it.
            drop(watch);
            let took = began_at.elapsed();
            if failures > 0 {
                tokio::time::sleep(
                    RETRY_PAUSE_MIN.saturating_mul(1 << (failures - 1).min(6)).min(RETRY_PAUSE_MAX),
                )
                .await;
                continue;
            }
            // What has changed while it was read is read again, but not without a pause.
            tokio::time::sleep((took * PAUSE_PER_READ).min(reader.spec.limits.interval)).await;
            tokio::select! {
                () = tokio::time::sleep(reader.spec.limits.interval) => {}
                // The sender lives as long as `changes`.
                _ = ends.changed() => {}
            }
        }
    };
    // Cut off anywhere: a read that nobody waits for changes nothing.
    tokio::select! {
        () = reading => {}
        _ = gone => {}
        _ = stopping.wait_for(|it| *it) => {}
    }
}

impl Reader {
    /// `false` where a shard could not be read, or only from a replica, which may lack the last DDL.
    async fn read_all(&mut self, watch: &CatalogWatch) -> bool {
        let (epoch, began_at) = (watch.changes.epoch(), Instant::now());
        let (mut complete, mut current) = (true, true);
        for shard in 0..self.names.len() {
            match self.read_shard(shard, watch).await {
                Ok(Looked { changed, role }) => {
                    self.unpublished |= changed;
                    current &= role == Role::Primary || epoch == 0;
                    self.failing[shard] = false;
                }
                Err(error) => {
                    self.note_failure(shard, &error, watch);
                    complete = false;
                }
            }
        }
        if !complete {
            return false;
        }
        let schemas = self.read.iter().map(|it| it.as_ref().map(|it| it.schema.clone()));
        let catalog = self.unpublished.then(|| schemas.collect::<Option<Vec<_>>>()).flatten();
        let catalog = catalog.map(|it| Catalog::new(it, &self.names));
        for (name, difference) in catalog.iter().flat_map(Catalog::differences) {
            tracing::warn!(table = %name, %difference, "table is not the same on every shard");
        }
        if current && watch.publish(catalog, epoch, began_at) {
            self.unpublished = false;
        }
        current
    }

    /// Told once, until it is over. That no server is up is for the topology to say.
    fn note_failure(&mut self, shard: usize, error: &ReadError, watch: &CatalogWatch) {
        if matches!(error, ReadError::NoServer) {
            return;
        }
        watch.metrics.failed(shard, error.limit());
        if !std::mem::replace(&mut self.failing[shard], true) {
            tracing::warn!(shard = self.names[shard], %error, "catalog cannot be read");
        }
    }

    async fn read_shard(&mut self, shard: usize, watch: &CatalogWatch) -> Result<Looked, ReadError> {
        let (index, role) = self.server(shard).ok_or(ReadError::NoServer)?;
        let address =
            watch.shards.get(shard).and_then(|it| it.servers.get(index)).ok_or(ReadError::NoServer)?;
        let limits = &self.spec.limits;
        let mut backend = self.spec.backend.clone();
        (backend.host, backend.port) = (address.host.as_str().into(), address.port);
        backend.application_name = Some("keyway catalog");
        let known = self.read.get(shard).and_then(Option::as_ref).map(|it| it.digest.as_str());
        let reading = read::schema(&backend, limits.rows_max, known);
        let read = tokio::time::timeout(limits.timeout, reading).await;
        let read = read.map_err(|_| ReadError::Timeout(limits.timeout))??;
        watch.metrics.read(shard);
        let Some((digest, schema)) = read else { return Ok(Looked { changed: false, role }) };
        let before = self.read[shard].replace(ShardRead { digest, schema: Arc::new(schema) });
        let after = self.read[shard].as_ref();
        let changed = before.map(|it| it.schema.version()) != after.map(|it| it.schema.version());
        Ok(Looked { changed, role })
    }

    /// The shard's primary, else any server.
    fn server(&self, shard: usize) -> Option<(usize, Role)> {
        let cluster = (self.spec.cluster)();
        let servers = &cluster.shards.get(shard)?.servers;
        let of = |role: Role| servers.iter().position(|it| it.role == Some(role)).map(|it| (it, role));
        of(Role::Primary).or_else(|| of(Role::Replica))
    }
}
