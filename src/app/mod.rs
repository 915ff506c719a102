//! Builds everything from a config, serves, and stops in order.

mod accept;
mod databases;
mod source;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::admin;
use crate::auth::{Credentials, Derivation};
use crate::cancel;
use crate::catalog::CatalogMetricFamilies;
use crate::client::{self, ClientMetricFamilies, Limits, Quota, Shared, Timeouts, UserPools};
use crate::config::{self, Config};
use crate::metrics::{LimitHits, RegisterError, Registry};
use crate::net::{self, BufferStock};
use crate::pool::{Ledger, PoolMetricFamilies};
use crate::proto;
use crate::sql::Parser;
use crate::topology::TopologyMetricFamilies;
use source::ProcessSource;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] RegisterError),
    #[error("no randomness to be had: {0}")]
    Randomness(getrandom::Error),
}

/// A running proxy.
pub struct Proxy {
    listen_addr: SocketAddr,
    admin_addr: SocketAddr,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
    shutdown_timeout: Duration,
    tasks: Vec<JoinHandle<()>>,
}

struct Families {
    client: ClientMetricFamilies,
    pool: PoolMetricFamilies,
    topology: TopologyMetricFamilies,
    catalog: CatalogMetricFamilies,
    hits: LimitHits,
}

impl Proxy {
    /// Starts serving. Servers need not be up yet: requests wait for them as the config says.
    pub fn start(config: &Config) -> Result<Proxy, StartError> {
        let registry = Registry::default();
        let hits = LimitHits::register(&registry)?;
        let families = Families {
            client: ClientMetricFamilies::register(&registry)?,
            pool: PoolMetricFamilies::register(&registry, &hits)?,
            topology: TopologyMetricFamilies::register(&registry)?,
            catalog: CatalogMetricFamilies::register(&registry)?,
            hits,
        };
        let (stop, stopping) = watch::channel(false);
        let listening = |address| move |error| StartError::Listen(address, error);
        let listener = net::listen(config.listen).map_err(listening(config.listen))?;
        let listen_addr = listener.local_addr().map_err(listening(config.listen))?;
        let shared = shared(config, &families, &stopping)?;
        let source = ProcessSource::new(&registry, shared.clone())?;
        let source = Arc::new(source);
        let mut stopped = stopping.clone();
        let end = async move {
            let _ = stopped.wait_for(|it| *it).await;
        };
        let (admin_addr, serving) =
            admin::serve(config.admin, source.clone(), end).map_err(listening(config.admin))?;
        let tasks = vec![
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "admin server failed");
                }
            }),
            tokio::spawn(accept::run(listener, shared.clone(), config.limits.clients_max)),
            tokio::spawn(tick(shared.clone(), source, stopping)),
        ];
        let shutdown_timeout = config.limits.shutdown_timeout;
        Ok(Proxy { listen_addr, admin_addr, stop, shared, shutdown_timeout, tasks })
    }

    pub fn listen_addr(&self) -> SocketAddr {
        self.listen_addr
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Every shard of every database has a primary.
    pub fn is_ready(&self) -> bool {
        self.shared.databases.values().all(|it| it.topology.is_ready())
    }

    /// Takes no new clients, tells idle ones to go, and lets transactions end for as long as the config
    /// allows.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true);
        let deadline = Instant::now() + self.shutdown_timeout;
        while self.shared.metrics.clients.get() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for database in self.shared.databases.values() {
            database.pools.for_each(UserPools::close_idle);
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn shared(
    config: &Config,
    families: &Families,
    stopping: &watch::Receiver<bool>,
) -> Result<Arc<Shared>, StartError> {
    let mut mock_secret = [0; 16];
    getrandom::fill(&mut mock_secret).map_err(StartError::Randomness)?;
    let limits = &config.limits;
    let derivation = derivation();
    let entropy = getrandom::u64().map_err(StartError::Randomness)?;
    let common = databases::Common {
        parser: Arc::new(Parser::new()),
        users: users(config, &derivation)?,
        derivation,
        ledger: Ledger::new(
            limits.server_connections_max,
            limits.server_logins_max,
            entropy,
            families.hits.clone(),
        ),
    };
    let databases = config.databases.iter().map(|it| {
        let database = databases::build(config, it, families, &common, stopping);
        (it.name.clone(), Arc::new(database))
    });
    Ok(Arc::new(Shared {
        databases: databases.collect(),
        users: common.users,
        mock_secret,
        limits: Limits {
            unit: proto::Limits { message_bytes_max: limits.message_bytes_max },
            login_timeout: limits.login_timeout,
            statements_max: limits.statements_max,
            server_statements_max: limits.server_statements_max,
            statement_bytes_max: limits.statement_bytes_max,
            timeouts: timeouts(limits),
        },
        hits: families.hits.clone(),
        logins: Semaphore::new(limits.logins_max),
        stock: BufferStock::new(limits.buffers_max),
        cancels: cancel::Registry::default(),
        metrics: families.client.clone(),
        stopping: stopping.clone(),
    }))
}

fn timeouts(limits: &config::Limits) -> Timeouts {
    Timeouts {
        client_idle: limits.client_idle_timeout,
        idle_in_transaction: limits.idle_in_transaction_timeout,
        aborted_transaction: limits.aborted_transaction_timeout,
        unfinished: limits.unfinished_timeout,
        query: limits.query_timeout,
        cancel: limits.cancel_timeout,
        transaction: limits.transaction_timeout,
    }
}

/// As many at once as there are cores.
fn derivation() -> Derivation {
    Derivation::new(std::thread::available_parallelism().map_or(1, usize::from))
}

fn users(config: &Config, derivation: &Derivation) -> Result<HashMap<String, client::User>, StartError> {
    let mut users = HashMap::new();
    for user in &config.users {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(StartError::Randomness)?;
        let credentials = Arc::new(Credentials::new(user.password.clone(), salt, derivation.clone()));
        // Made before the first login, which would take longer than those of names that nobody has.
        let made = credentials.clone();
        tokio::spawn(async move { made.verifier().await });
        let clients = Quota::new(user.clients_max);
        users.insert(user.name.clone(), client::User { method: user.auth, credentials, clients });
    }
    Ok(users)
}

/// Once a second: old server connections are closed, and rates are taken for the page.
async fn tick(shared: Arc<Shared>, source: Arc<ProcessSource>, mut stopping: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopping.wait_for(|it| *it) => return,
        }
        let now = Instant::now();
        source.sample(now);
        for database in shared.databases.values() {
            database.pools.reap(now);
        }
    }
}

/// The threads that serve clients.
pub fn runtime(workers: usize) -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if workers > 0 { workers } else { (cores / 2).max(1) };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .thread_name("keyway")
        .build()
}

/// Logs go to standard error; `RUST_LOG` says how much, else `level`. A descriptor of their own, because
/// libpg_query lets descriptor 2 point elsewhere while it parses, and a line in that time would be lost.
pub fn init_logging(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let stderr = io::stderr();
    let colours = stderr.is_terminal();
    let Ok(descriptor) = stderr.as_fd().try_clone_to_owned() else { return };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(Arc::new(File::from(descriptor)))
        .try_init();
}

/// SIGTERM or SIGINT.
pub async fn stop_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
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
