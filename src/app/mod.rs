//! Builds everything from a config, serves, and stops in order.

mod accept;
mod catalogue;
mod databases;
mod families;
mod history;
mod keeper;
mod operator;
mod process;
mod signals;
mod source;
mod tls;
mod watchers;

pub use catalogue::{CatalogueError, LABELS, catalogue, registered};
pub use families::Families;
pub use process::ReloadError;
pub use signals::{Signals, serve, stop_signal};

use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin;
use crate::client::UserPools;
use crate::config::{Config, LogFormat};
use crate::metrics::{Limit, LimitHits, RegisterError, Registry};
use crate::net::{self, Lookup, TlsError};
use crate::sql::Parser;
use operator::ProcessOperator;
use process::Process;
use source::{CountedFamilies, ProcessSource};

/// For clients that are cut off to be told so, and for their servers to be told to cancel what they run.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] RegisterError),
    #[error("no randomness to be had: {0}")]
    Randomness(getrandom::Error),
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// A running proxy.
pub struct Proxy {
    listen_addr: SocketAddr,
    admin_addr: SocketAddr,
    ends: Ends,
    process: Arc<Process>,
    tasks: Vec<JoinHandle<()>>,
    hits: LimitHits,
}

/// The end comes in steps, each told to those whom it concerns.
struct Ends {
    /// No client is taken any more.
    accepting: watch::Sender<bool>,
    /// Sessions go when they are between transactions.
    sessions: watch::Sender<bool>,
    /// Nothing is left to watch servers for.
    topology: watch::Sender<bool>,
}

/// What the end waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Transactions, for as long as `shutdown_timeout` allows.
    Timeout,
    /// Transactions, however long they take.
    Transactions,
    /// Clients, until they leave by themselves.
    Clients,
}

impl Proxy {
    /// Starts serving; `path` is what a reload reads. Servers need not be up yet: requests wait for them as
    /// the config says.
    pub fn start(config: &Config, path: Option<&Path>) -> Result<Proxy, StartError> {
        Proxy::start_with(config, path, Lookup::of_system())
    }

    /// `lookup` tells whether a server's name has moved; connecting looks it up by itself.
    pub fn start_with(config: &Config, path: Option<&Path>, lookup: Lookup) -> Result<Proxy, StartError> {
        let registry = Registry::default();
        let families = Families::register(&registry)?;
        let hits = families.hits.clone();
        let (accepting, closed) = watch::channel(false);
        let (sessions, stopping) = watch::channel(false);
        let (topology, ended) = watch::channel(false);
        let listening = |address| move |error| StartError::Listen(address, error);
        let listener = net::listen(config.listen).map_err(listening(config.listen))?;
        let listen_addr = listener.local_addr().map_err(listening(config.listen))?;
        let counted = CountedFamilies::of(&families);
        let dashboard = families.dashboard.clone();
        let mut served = ended.clone();
        let process = Arc::new(Process::new(config, path, families, lookup, (stopping.clone(), ended))?);
        let latest = process.latest();
        let source = Arc::new(ProcessSource::new(&registry, latest.clone(), counted, closed.clone()));
        let operator = Arc::new(ProcessOperator::new(process.clone(), source.clone()));
        let console = Arc::new(admin::Console::new(latest.clone(), operator));
        // A drain is to be seen too.
        let end = async move {
            let _ = served.wait_for(|it| *it).await;
        };
        let (admin_addr, serving) =
            admin::serve(config.admin, source.clone(), process.admission(), dashboard, end)
                .map_err(listening(config.admin))?;
        let tasks = vec![
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "admin server failed");
                }
            }),
            tokio::spawn(accept::run(listener, latest.clone(), console, closed)),
            tokio::spawn(tick(process.clone(), source, stopping)),
        ];
        let ends = Ends { accepting, sessions, topology };
        Ok(Proxy { listen_addr, admin_addr, ends, process, tasks, hits })
    }

    /// Reads the configuration file anew, and tells the log what came of it.
    pub fn reload(&self) {
        process::tell(&self.process.reload());
    }

    pub fn listen_addr(&self) -> SocketAddr {
        self.listen_addr
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Every shard of every database has a primary.
    pub fn is_ready(&self) -> bool {
        self.process.latest().load().databases.values().all(|it| it.topology.is_ready())
    }

    /// What the console's SHUTDOWN asks for, once it does. Cancel safe.
    pub async fn asked_to_end(&self) -> Drain {
        self.process.asked_to_end().await
    }

    /// Takes no new clients, tells idle ones to go unless it is for them to say, and lets transactions end.
    pub async fn shutdown(self, drain: Drain) {
        let _ = self.ends.accepting.send(true);
        let shared = self.process.latest().load();
        if drain != Drain::Clients {
            let _ = self.ends.sessions.send(true);
            shared.sessions.call_all();
        }
        let timeout = self.process.config().limits.shutdown_timeout;
        let deadline = (drain == Drain::Timeout).then(|| Instant::now() + timeout);
        let clients = || shared.metrics.clients.get().max(0) as usize;
        let left = drained(clients, deadline).await;
        let _ = self.ends.sessions.send(true);
        if left > 0 {
            tracing::warn!(clients = left, "shutdown_timeout is over: transactions are cut off");
            self.hits.hit_times(Limit::Shutdown, left as u64);
            shared.sessions.kill_all();
            // Servers that are told to stop are in use until they have.
            let busy = || shared.ledger.pools().iter().map(|it| it.usage().active).sum::<usize>();
            drained(|| clients() + busy(), Some(Instant::now() + FAREWELL_TIMEOUT)).await;
        }
        if let Some(traces) = &shared.watchers.traces {
            traces.exporter.flush().await;
        }
        let _ = self.ends.topology.send(true);
        for database in shared.databases.values() {
            database.pools.for_each(UserPools::close_idle);
        }
        self.process.write_hotspots();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What is left when there is nothing left, or at the deadline.
async fn drained(left: impl Fn() -> usize, deadline: Option<Instant>) -> usize {
    loop {
        let left = left();
        if left == 0 || deadline.is_some_and(|it| Instant::now() >= it) {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Once a second: old server connections are closed, and rates are taken for the page.
async fn tick(process: Arc<Process>, source: Arc<ProcessSource>, mut stopping: watch::Receiver<bool>) {
    let latest = process.latest();
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopping.wait_for(|it| *it) => return,
        }
        let now = Instant::now();
        source.sample(now);
        process.keep_hotspots();
        for database in latest.load().databases.values() {
            database.pools.reap(now);
        }
        let shared = latest.load();
        shared.metrics.resting_clients.set(shared.sessions.let_rest(now) as i64);
        give_memory_back();
    }
}

/// mimalloc gives the system what has been free for a second, but has a look only when one of its pages becomes
/// free, which in a process whose clients are silent none does. An allocation of this size is a page of its own.
fn give_memory_back() {
    const BYTES: usize = 1 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BYTES)));
}

/// For a process that serves. What silent clients give up is given back by the page, and the kernel fills such
/// holes again where it makes huge pages of what is around them (khugepaged): within minutes ten thousand clients
/// at rest take as much as they did at work.
pub fn forbid_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "cannot do without huge pages: silent clients will take more memory");
    }
}

/// Threads for what would hold clients up do not stay: while there is but one thread, the kernel takes no reference
/// to a file for each system call (`fdget` in fs/file.c).
const IDLE_THREAD_KEPT: Duration = Duration::from_millis(100);

/// The threads that serve clients. A single one shares its tasks with nobody, and does without what
/// sharing costs (docs/decisions/0008-a-single-worker-steals-no-work.md).
pub fn runtime(workers: usize) -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if workers > 0 { workers } else { (cores / 2).max(1) };
    let mut builder = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(workers).enable_all().thread_name("keyway");
    builder.thread_keep_alive(IDLE_THREAD_KEPT).build()
}

/// Logs go to standard error; `RUST_LOG` says how much, else `level`. A descriptor of their own, because
/// libpg_query lets descriptor 2 point elsewhere while it parses, and a line in that time would be lost.
pub fn init_logging(level: &str, format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let stderr = io::stderr();
    let colours = stderr.is_terminal();
    let Ok(descriptor) = stderr.as_fd().try_clone_to_owned() else { return };
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(Arc::new(File::from(descriptor)));
    let _ = match format {
        LogFormat::Text => lines.with_ansi(colours).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).try_init(),
    };
}

/// `keyway route`: prints where a statement would go. No server is asked.
pub fn route(
    config: &Config,
    database: Option<&str>,
    sql: &str,
    params: &[String],
) -> std::process::ExitCode {
    let found = match (database, config.databases.as_slice()) {
        (Some(name), _) => config.database(name),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some(database) = found else {
        let names: Vec<_> = config.databases.iter().map(|it| it.name.as_str()).collect();
        eprintln!("keyway: name the database: --database with one of {}", names.join(", "));
        return std::process::ExitCode::FAILURE;
    };
    let router = crate::route::Router::new(database, config.limits.plans_max, Arc::new(Parser::new()));
    let params: Vec<Option<&str>> = params.iter().map(|it| Some(it.as_str())).collect();
    match router.explain(sql, &params) {
        Ok(lines) => {
            print!("{lines}");
            std::process::ExitCode::SUCCESS
        }
        Err(lines) => {
            print!("{lines}");
            std::process::ExitCode::FAILURE
        }
    }
}
