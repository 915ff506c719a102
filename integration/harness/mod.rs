//! What every topic's tests share: clusters that start when the first test asks for them, Keyway processes
//! in front of them, and an end that leaves nothing behind. `main` owns the harness and stops it, because
//! what a static holds is never dropped.

mod fixture;
mod keyway;
mod link;
mod postgres18;
mod random;
mod watched;
pub mod wire;

pub use fixture::{
    APP_PASSWORD, OwnDatabase, ShopFixture, SingleFixture, own_config, servers_config, unsharded_config,
};
pub use keyway::{
    KeywayProcess, as_db_error, assert_error, assert_hits, connect, connect_hearing, error_of, http_get,
    rows, run, until, until_hits,
};
pub use link::Link;
pub use random::Xorshift;
pub use watched::Watched;

use std::error::Error;
use std::future::Future;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::keyway::demo::postgres::{Installation, Options, Server, Shard, Signal, StopMode, WorkDir, children};
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::OnceCell;
use tokio::time::timeout;

const TASKS_TIMEOUT: Duration = Duration::from_secs(10);

/// Ten times what the longest test takes on a busy machine: one that hangs must not take the others along.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(300);

/// What a test returns: any error fails it with its text.
pub type Outcome = Result<(), Failed>;
pub type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Options of clusters that are thrown away.
pub fn cluster_options() -> Options {
    Options { password: APP_PASSWORD.to_owned(), fsync: false, settings: Vec::new(), template: None }
}

pub struct Harness {
    shared: Arc<Shared>,
    runtime: Runtime,
}

/// What tests see of the harness. Fixtures are dropped before the directory that they live in.
pub struct Shared {
    shop: OnceCell<ShopFixture>,
    single: OnceCell<SingleFixture>,
    single18: OnceCell<SingleFixture>,
    installation18: OnceCell<Arc<Installation>>,
    template: OnceCell<PathBuf>,
    installation: Arc<Installation>,
    dir: WorkDir,
}

impl Harness {
    pub fn new() -> Fallible<Arc<Harness>> {
        let installation = Arc::new(Installation::find()?);
        let dir = WorkDir::temporary(&installation)?;
        let shared = Shared {
            shop: OnceCell::new(),
            single: OnceCell::new(),
            single18: OnceCell::new(),
            installation18: OnceCell::new(),
            template: OnceCell::new(),
            installation,
            dir,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let harness = Arc::new(Harness { shared: Arc::new(shared), runtime });
        let dir = harness.shared.dir.path().to_owned();
        harness.runtime.spawn(async move {
            let signal = interrupted().await;
            end_children().await;
            // What is left was told by its dying parent; nothing of it needs files any more.
            let _ = std::fs::remove_dir_all(dir);
            std::process::exit(128 + signal);
        });
        Ok(harness)
    }

    /// A test on the harness's own threads: servers live as long as the thread that started them, and a
    /// test's own thread may end before the last test does.
    pub fn test<F>(
        self: &Arc<Harness>,
        name: &str,
        test: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Trial
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.test_within(TEST_TIMEOUT, name, test)
    }

    /// As `test`, for one that takes as long as it is told to.
    pub fn test_within<F>(
        self: &Arc<Harness>,
        limit: Duration,
        name: &str,
        test: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Trial
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let harness = self.clone();
        Trial::test(name, move || {
            let test = test(harness.shared.clone());
            let running = harness.runtime.spawn(async move { timeout(limit, test).await });
            match harness.runtime.block_on(running) {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(format!("it did not end within {limit:?}").into()),
                Err(error) => resume_unwind(error.into_panic()),
            }
        })
    }

    /// Runs beside the tests from now on. A trial has to wait for its end.
    pub fn beside<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Harness>,
        task: impl FnOnce(Arc<Shared>) -> F,
    ) {
        self.runtime.spawn(task(self.shared.clone()));
    }

    /// Stops all clusters and removes their files.
    pub fn stop(harness: Arc<Harness>) {
        let harness = Arc::into_inner(harness).expect("no test holds the harness any more");
        let Harness { shared, runtime } = harness;
        // Tasks first: a test that failed may have left one that uses a fixture.
        runtime.shutdown_timeout(TASKS_TIMEOUT);
        drop(Arc::into_inner(shared).expect("no task holds the clusters any more"));
    }
}

impl Shared {
    /// Two shards, each a primary and a replica, with the shop's tables filled, behind one Keyway.
    pub async fn shop(&self) -> Fallible<&ShopFixture> {
        self.shop.get_or_try_init(|| ShopFixture::start(self)).await
    }

    /// A primary and two replicas, unsharded, behind one Keyway.
    pub async fn single(&self) -> Fallible<&SingleFixture> {
        self.single.get_or_try_init(|| SingleFixture::start(self, self.installation(), "single", 2)).await
    }

    /// One server of PostgreSQL 18, unsharded, behind one Keyway.
    pub async fn single18(&self) -> Fallible<&SingleFixture> {
        let start = async || {
            let installation = self.installation18().await?;
            SingleFixture::start(self, installation, "single18", 0).await
        };
        self.single18.get_or_try_init(start).await
    }

    /// PostgreSQL 18.
    pub async fn installation18(&self) -> Fallible<&Arc<Installation>> {
        let lay_out = async || Ok(Arc::new(postgres18::lay_out(&self.dir().join("postgres18"))?));
        self.installation18.get_or_try_init(lay_out).await
    }

    /// Servers that one test may stop, promote and kill, with nothing in front.
    pub async fn fresh_shard(&self, replicas: usize) -> Fallible<OwnShard> {
        let dir = self.fresh_dir()?;
        let options = Options { template: Some(self.template().await?.clone()), ..cluster_options() };
        let shard = Shard::start(&self.installation, dir.path(), "main", replicas, &options).await?;
        Ok(OwnShard { shard, dir })
    }

    /// A cluster to copy: `initdb` takes longer than most tests.
    async fn template(&self) -> Fallible<&PathBuf> {
        let make = async || {
            let mut server =
                Server::primary(&self.installation, self.dir(), "template", &cluster_options()).await?;
            server.stop(StopMode::Fast).await?;
            Fallible::Ok(server.data_dir().to_owned())
        };
        self.template.get_or_try_init(make).await
    }

    pub fn fresh_dir(&self) -> Fallible<WorkDir> {
        Ok(WorkDir::temporary_in(&self.installation, self.dir.path())?)
    }

    pub fn installation(&self) -> &Arc<Installation> {
        &self.installation
    }

    /// Where shared fixtures keep their files.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

/// Servers of one test. They end before their directory does.
pub struct OwnShard {
    pub shard: Shard,
    pub dir: WorkDir,
}

/// Ctrl-C and SIGTERM end the process without a drop: the number of the signal that came.
async fn interrupted() -> i32 {
    let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
    let (Ok(mut first), Ok(mut second)) = (signal(interrupt), signal(terminate)) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = first.recv() => interrupt.as_raw_value(),
        _ = second.recv() => terminate.as_raw_value(),
    }
}

/// SIGINT is a fast shutdown to PostgreSQL and an orderly one to Keyway.
async fn end_children() {
    let deadline = Instant::now() + TASKS_TIMEOUT;
    loop {
        let children = children(std::process::id());
        if children.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in children {
            let _ = rustix::process::kill_process(pid, Signal::INT);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
