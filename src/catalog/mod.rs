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

mod metrics;
mod read;

pub use metrics::CatalogMetricFamilies;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::backend::BackendSpec;
use crate::base::{Role, ServerId, ShardId};
use crate::config::{self, Database};
use crate::route::{Catalog, Cluster, Router, Schema};
use metrics::CatalogMetrics;
use read::ReadError;

/// After a failure, doubled with each one more.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Of the time that passes, no more than one part in so many is spent on reads, whatever clients do.
const PAUSE_PER_READ: u32 = 10;

/// Where and as whom to read.
pub struct ReadSpec {
    /// Of any server of the database: the reader puts in its own.
    pub backend: BackendSpec,
    pub limits: config::Catalog,
    pub router: Arc<Router>,
    /// The newest snapshot of roles.
    pub cluster: Box<dyn Fn() -> Arc<Cluster> + Send + Sync>,
}

/// One database's catalog as clients see it: whether what the router has still holds.
pub struct CatalogWatch {
    state: Mutex<State>,
    /// `state.known`, for every statement to ask.
    known: AtomicBool,
    wake: Notify,
    newest: ArcSwap<Catalog>,
    metrics: CatalogMetrics,
}

#[derive(Default)]
struct State {
    /// Changes that are under way.
    changing: usize,
    /// Counts the beginnings and ends of changes.
    epoch: u64,
    known: bool,
    read_at: Option<Instant>,
}

/// DDL under way, until dropped.
pub struct Changing {
    watch: Arc<CatalogWatch>,
    doubts: bool,
}

impl Drop for Changing {
    fn drop(&mut self) {
        if self.doubts {
            let mut state = self.watch.state.lock();
            state.changing = state.changing.saturating_sub(1);
            self.watch.doubt(&mut state);
        }
        self.watch.wake.notify_one();
    }
}

impl CatalogWatch {
    /// Starts the reader; it ends when `stopping` says so or is dropped.
    pub fn start(
        database: &Database,
        spec: ReadSpec,
        families: &CatalogMetricFamilies,
        stopping: &watch::Receiver<bool>,
    ) -> Arc<CatalogWatch> {
        let names: Vec<String> = database.shards.iter().map(|it| it.name.clone()).collect();
        let watch = Arc::new(CatalogWatch {
            state: Mutex::default(),
            known: AtomicBool::new(false),
            wake: Notify::new(),
            newest: ArcSwap::default(),
            metrics: families.of_database(&database.name, &names),
        });
        let shards = database.shards.iter();
        let reader = Reader {
            addresses: shards.map(|it| it.servers.clone()).collect(),
            read: names.iter().map(|_| None).collect(),
            failing: vec![false; names.len()],
            unpublished: false,
            names,
            spec,
            watch: watch.clone(),
        };
        tokio::spawn(run(reader, stopping.clone()));
        watch
    }

    /// Something that the router's catalog does not know of may be there.
    pub fn is_in_doubt(&self) -> bool {
        !self.known.load(Ordering::Acquire)
    }

    pub fn newest(&self) -> Arc<Catalog> {
        self.newest.load_full()
    }

    /// DDL is about to be sent or committed. Where it `doubts` what is known, nothing is known from here on
    /// until it has been read what it did.
    pub fn change(self: &Arc<Self>, doubts: bool) -> Changing {
        if doubts {
            let mut state = self.state.lock();
            state.changing += 1;
            self.doubt(&mut state);
        }
        Changing { watch: self.clone(), doubts }
    }

    /// For metrics: how old what is known is.
    pub fn observe(&self, now: Instant) {
        let state = self.state.lock();
        self.metrics.age(state.read_at.map(|it| now.saturating_duration_since(it)), state.known);
    }

    fn doubt(&self, state: &mut State) {
        state.epoch += 1;
        state.known = false;
        self.known.store(false, Ordering::Release);
    }

    fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// All shards were read since `began_at`. Under `epoch` nothing changed meanwhile, unless another one
    /// has come; on several shards DDL reaches one after the other, so what is read while it is under way
    /// is no difference. `false` where it is not to be used.
    fn publish(&self, catalog: Option<Catalog>, router: &Router, epoch: u64, began_at: Instant) -> bool {
        let mut state = self.state.lock();
        if state.epoch != epoch || state.changing > 0 && router.shard_count() > 1 {
            return false;
        }
        if let Some(catalog) = catalog {
            let catalog = Arc::new(catalog);
            self.metrics.publish(&catalog);
            self.newest.store(catalog.clone());
            router.adopt(catalog);
        }
        state.read_at = Some(began_at);
        state.known = state.changing == 0;
        self.known.store(state.known, Ordering::Release);
        true
    }
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
    addresses: Vec<Vec<config::Address>>,
    spec: ReadSpec,
    read: Vec<Option<ShardRead>>,
    /// The last read of the shard failed.
    failing: Vec<bool>,
    /// Something of `read` is not the router's yet.
    unpublished: bool,
    watch: Arc<CatalogWatch>,
}

async fn run(mut reader: Reader, mut stopping: watch::Receiver<bool>) {
    let watch = reader.watch.clone();
    let reading = async {
        let mut failures = 0u32;
        loop {
            let began_at = Instant::now();
            failures = if reader.read_all().await { 0 } else { failures.saturating_add(1) };
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
                () = watch.wake.notified() => {}
            }
        }
    };
    // Cut off anywhere: a read that nobody waits for changes nothing.
    tokio::select! {
        () = reading => {}
        _ = stopping.wait_for(|it| *it) => {}
    }
}

impl Reader {
    /// `false` where a shard could not be read, or only from a replica, which may lack the last DDL.
    async fn read_all(&mut self) -> bool {
        let (epoch, began_at) = (self.watch.epoch(), Instant::now());
        let (mut complete, mut current) = (true, true);
        for shard in 0..self.names.len() {
            match self.read_shard(shard).await {
                Ok(Looked { changed, role }) => {
                    self.unpublished |= changed;
                    current &= role == Role::Primary || epoch == 0;
                    self.failing[shard] = false;
                }
                Err(error) => {
                    self.note_failure(shard, &error);
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
        if current && self.watch.publish(catalog, &self.spec.router, epoch, began_at) {
            self.unpublished = false;
        }
        current
    }

    /// Told once, until it is over. That no server is up is for the topology to say.
    fn note_failure(&mut self, shard: usize, error: &ReadError) {
        if matches!(error, ReadError::NoServer) {
            return;
        }
        self.watch.metrics.failed(shard);
        if !std::mem::replace(&mut self.failing[shard], true) {
            tracing::warn!(shard = self.names[shard], %error, "catalog cannot be read");
        }
    }

    async fn read_shard(&mut self, shard: usize) -> Result<Looked, ReadError> {
        let (index, role) = self.server(shard).ok_or(ReadError::NoServer)?;
        let address = self.addresses.get(shard).and_then(|it| it.get(index)).ok_or(ReadError::NoServer)?;
        let limits = &self.spec.limits;
        let mut backend = self.spec.backend.clone();
        backend.server = ServerId { shard: ShardId(shard as u16), index: index as u16 };
        (backend.host, backend.port) = (address.host.as_str().into(), address.port);
        backend.application_name = Some("keyway catalog");
        let known = self.read.get(shard).and_then(Option::as_ref).map(|it| it.digest.as_str());
        let reading = read::schema(&backend, limits.rows_max, known);
        let read = tokio::time::timeout(limits.timeout, reading).await;
        let read = read.map_err(|_| ReadError::Timeout(limits.timeout))??;
        self.watch.metrics.read(shard);
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
