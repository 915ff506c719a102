//! What lives as long as the process: it builds a snapshot from a configuration at the start and at each reload,
//! and lets go of what the last one had and this one has not.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::databases::{Building, Common};
use super::keeper::HotspotKeeper;
use super::tls::Next;
use super::watchers::watchers;
use super::{Drain, Families, StartError};
use crate::admin::Admission;
use crate::auth::{Credentials, Derivation};
use crate::cancel::{self, Instance};
use crate::client::{self, Latest, Limits, Quota, Rights, Sessions, Shared, Timeouts};
use crate::config::{self, Config, Difference, Problem};
use crate::net::{BufferStock, Lookup};
use crate::pool::{Bounds, Ledger, Pool, PoolName};
use crate::proto;
use crate::sql::Parser;

/// Places for clients of the console when `clients_max` is reached.
const RESERVE: usize = 4;

pub struct Process {
    common: Common,
    latest: Arc<Latest>,
    /// The file, where the configuration came from one.
    path: Option<PathBuf>,
    /// What `latest` was built of. Held while a reload is under way.
    config: Mutex<Config>,
    /// Who may see the dashboard.
    admission: watch::Sender<Admission>,
    /// How to end, once the console has said so.
    end: watch::Sender<Option<Drain>>,
}

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the configuration came from no file")]
    NoFile,
    #[error("the configuration file has {} problems", .0.len())]
    Problems(Vec<Problem>),
    #[error("{0}")]
    Build(#[from] StartError),
}

impl Process {
    pub fn new(
        config: &Config,
        path: Option<&Path>,
        families: Families,
        lookup: Lookup,
        (stopping, ended): (watch::Receiver<bool>, watch::Receiver<bool>),
    ) -> Result<Process, StartError> {
        let entropy = getrandom::u64().map_err(StartError::Randomness)?;
        let ledger = Ledger::new(bounds(&config.limits), entropy, families.hits.clone());
        let common = Common {
            families,
            parser: Arc::new(Parser::new()),
            derivation: derivation(),
            ledger,
            lookup,
            keeper: Arc::new(HotspotKeeper::new(config.hotspots.hotspot_history.as_deref())),
            stopping,
            ended,
        };
        let latest = Arc::new(Latest::new(build(config, &common, None)?));
        let path = path.map(Path::to_owned);
        let end = watch::Sender::new(None);
        let admission = watch::Sender::new(Admission::new(&config.dashboard));
        Ok(Process { common, latest, path, config: Mutex::new(config.clone()), admission, end })
    }

    pub fn latest(&self) -> &Arc<Latest> {
        &self.latest
    }

    pub fn config(&self) -> Config {
        self.config.lock().clone()
    }

    pub fn admission(&self) -> watch::Receiver<Admission> {
        self.admission.subscribe()
    }

    /// What is to be done once a second for hotspots.
    pub fn keep_hotspots(&self) {
        // A reload has it while it reads files.
        let Some(path) = self.config.try_lock().map(|it| it.hotspots.hotspot_history.clone()) else { return };
        self.common.keeper.tick(&self.latest.load(), path);
    }

    /// Before the process ends.
    pub fn write_hotspots(&self) {
        let path = self.config.lock().hotspots.hotspot_history.clone();
        if let Some(path) = path {
            self.common.keeper.write_last(&self.latest.load(), &path);
        }
    }

    pub fn end(&self, drain: Drain) {
        self.end.send_replace(Some(drain));
    }

    /// Cancel safe.
    pub async fn asked_to_end(&self) -> Drain {
        let mut asked = self.end.subscribe();
        match asked.wait_for(Option::is_some).await.map(|it| *it) {
            Ok(Some(drain)) => drain,
            // The sender lives as long as this.
            _ => std::future::pending().await,
        }
    }

    /// Reads the file anew. What its difference does not touch lives on; with an error nothing has changed.
    pub fn reload(&self) -> Result<Difference, ReloadError> {
        let path = self.path.as_deref().ok_or(ReloadError::NoFile)?;
        let mut config = self.config.lock();
        let mut wanted = Config::load(path).map_err(ReloadError::Problems)?;
        let difference = Difference::between(&config, &wanted);
        // A configuration holds what is in its files: new certificates under the same names are a difference.
        if difference.is_empty() {
            return Ok(difference);
        }
        let before = self.latest.load();
        let shared = build(&wanted, &self.common, Some(&before))?;
        // These take a restart: until then what holds is what was.
        (wanted.listen, wanted.admin, wanted.workers) = (config.listen, config.admin, config.workers);
        wanted.instance = config.instance;
        wanted.log.format = config.log.format;
        self.admission.send_replace(Admission::new(&wanted.dashboard));
        *config = wanted;
        self.latest.store(shared);
        let after = self.latest.load();
        self.common.keeper.mark_reload(&after);
        after.sessions.call_all();
        retire(&before, &after);
        self.forget(&before, &after);
        // Bounds may have been raised.
        self.common.ledger.serve();
        Ok(difference)
    }

    /// The series of what is gone.
    fn forget(&self, before: &Shared, after: &Shared) {
        let families = &self.common.families;
        let left = names_of(after);
        let gone = |of: fn(&Names) -> &BTreeSet<Vec<String>>, was: &Names| {
            of(was).difference(of(&left)).cloned().collect::<Vec<_>>()
        };
        let was = names_of(before);
        for name in was.pools.difference(&left.pools) {
            families.pool.forget(name);
        }
        for it in gone(|it| &it.servers, &was) {
            families.topology.forget(&it[0], &it[1], &it[2]);
            families.client.forget_server(&it[0], &it[1], &it[2]);
            families.pool.forget_server(&it[0], &it[1], &it[2]);
        }
        for it in gone(|it| &it.shards, &was) {
            families.client.forget_shard(&it[0], &it[1]);
            families.catalog.forget_shard(&it[0], &it[1]);
        }
        for name in before.databases.keys().filter(|it| !after.databases.contains_key(*it)) {
            families.client.forget_database(name);
            families.protection.forget(name);
            families.notify.forget(name);
            families.catalog.forget_database(name);
            families.plans.forget(name);
            families.hotspots.forget(name);
        }
    }
}

/// For the log. A reload that was asked for by a signal has nobody else to tell.
pub fn tell(reloaded: &Result<Difference, ReloadError>) {
    match reloaded {
        Ok(difference) => {
            tracing::info!(%difference, "configuration reloaded");
            if !difference.restart.is_empty() {
                tracing::warn!(keys = difference.restart.join(", "), "these keys take a restart");
            }
        }
        Err(error) => {
            if let ReloadError::Problems(problems) = error {
                problems.iter().for_each(|it| tracing::error!("configuration: {it}"));
            }
            tracing::error!(%error, "configuration not reloaded: everything stays as it was");
        }
    }
}

/// What metrics name.
struct Names {
    pools: BTreeSet<PoolName>,
    /// Database, shard, server.
    servers: BTreeSet<Vec<String>>,
    /// Database, shard.
    shards: BTreeSet<Vec<String>>,
}

fn names_of(shared: &Shared) -> Names {
    let mut names = Names { pools: BTreeSet::new(), servers: BTreeSet::new(), shards: BTreeSet::new() };
    for database in shared.databases.values() {
        for shard in &database.topology.snapshot().shards {
            names.shards.insert(vec![database.name.clone(), shard.name.clone()]);
            let server = |it: &crate::route::Server| {
                vec![database.name.clone(), shard.name.clone(), it.address.clone()]
            };
            names.servers.extend(shard.servers.iter().map(server));
        }
    }
    names.pools.extend(pools_of(shared).iter().map(|it| it.name().clone()));
    names
}

fn pools_of(shared: &Shared) -> Vec<Arc<Pool>> {
    let mut pools = Vec::new();
    for database in shared.databases.values() {
        database.pools.for_each(|it| pools.extend(it.all().cloned()));
    }
    pools
}

/// Pools that no client of the new configuration uses: sessions that are still on their way to it end what they
/// have begun there.
fn retire(before: &Shared, after: &Shared) {
    let kept = pools_of(after);
    let is_kept = |it: &Arc<Pool>| kept.iter().any(|of| Arc::ptr_eq(of, it));
    pools_of(before).iter().filter(|it| !is_kept(it)).for_each(Pool::retire);
}

/// One snapshot. Of `before` all is taken over that is still as wanted.
fn build(config: &Config, common: &Common, before: Option<&Shared>) -> Result<Shared, StartError> {
    let mut mock_secret = before.map_or([0; 16], |it| it.mock_secret);
    if before.is_none() {
        getrandom::fill(&mut mock_secret).map_err(StartError::Randomness)?;
    }
    let limits = &config.limits;
    let next = Next::new(config, &common.families.tls)?;
    let users = users(config, &common.derivation, before)?;
    common.ledger.set_bounds(bounds(limits));
    let sessions = before.map_or_else(|| Arc::new(Sessions::default()), |it| it.sessions.clone());
    let building =
        Building { config, common, users: &users, sessions: &sessions, before, now: Instant::now() };
    // From here on nothing fails.
    let (acceptors, connectors) = next.take_over(before);
    let databases = config.databases.iter().zip(connectors);
    let databases =
        databases.map(|(it, tls)| (it.name.clone(), Arc::new(building.database(it, tls)))).collect();
    let logins = before.filter(|it| it.limits.logins_max == limits.logins_max).map(|it| it.logins.clone());
    let stock = before.map(|it| &it.stock).filter(|it| it.spare_max() == limits.buffers_max);
    let clients = before.map_or_else(|| Quota::new(None), |it| it.clients.clone());
    clients.set_max(Some(limits.clients_max));
    Ok(Shared {
        version: before.map_or(0, |it| it.version + 1),
        databases,
        users,
        mock_secret,
        tls: acceptors,
        limits: self::limits(limits),
        hits: common.families.hits.clone(),
        logins: logins.unwrap_or_else(|| Arc::new(Semaphore::new(limits.logins_max))),
        clients,
        ledger: common.ledger.clone(),
        rights: Rights {
            admins: config.console.admin_users.iter().cloned().collect(),
            viewers: config.console.stats_users.iter().cloned().collect(),
        },
        reserve: before.map_or_else(|| Quota::new(Some(RESERVE)), |it| it.reserve.clone()),
        sessions,
        stock: stock
            .cloned()
            .unwrap_or_else(|| BufferStock::new(limits.buffers_max, common.families.hits.clone())),
        cancels: cancels(config, common, before)?,
        metrics: common.families.client.clone(),
        watchers: watchers(config, common, before),
        stopping: common.stopping.clone(),
    })
}

/// Keys that clients have name the instance that this process began with.
fn cancels(
    config: &Config,
    common: &Common,
    before: Option<&Shared>,
) -> Result<cancel::Registry, StartError> {
    let registry = match (before, config.instance) {
        (Some(it), _) => it.cancels.clone(),
        (None, number) => {
            let number = match number {
                Some(it) => it,
                None => getrandom::u32().map_err(StartError::Randomness)? as u16,
            };
            let families = &common.families;
            cancel::Registry::new(Instance::new(number), families.hits.clone(), families.cancel.clone())
        }
    };
    let peers = config.peers.iter().map(|it| (Instance::new(it.instance), it.address.clone()));
    registry.set_terms(peers.collect(), config.limits.cancels_max);
    Ok(registry)
}

fn bounds(limits: &config::Limits) -> Bounds {
    Bounds {
        server_connections_max: limits.server_connections_max,
        server_logins_max: limits.server_logins_max,
    }
}

fn limits(limits: &config::Limits) -> Limits {
    Limits {
        unit: proto::Limits { message_bytes_max: limits.message_bytes_max },
        login_timeout: limits.login_timeout,
        logins_max: limits.logins_max,
        statements_max: limits.statements_max,
        statement_bytes_max: limits.statement_bytes_max,
        merge_bytes_max: limits.merge_bytes_max,
        timeouts: Timeouts {
            client_idle: limits.client_idle_timeout,
            idle_in_transaction: limits.idle_in_transaction_timeout,
            aborted_transaction: limits.aborted_transaction_timeout,
            unfinished: limits.unfinished_timeout,
            query: limits.query_timeout,
            cancel: limits.cancel_timeout,
            transaction: limits.transaction_timeout,
        },
    }
}

/// As many at once as there are cores.
fn derivation() -> Derivation {
    Derivation::new(std::thread::available_parallelism().map_or(1, usize::from))
}

/// Who has the same password as before keeps the keys that were made of it or learned.
fn users(
    config: &Config,
    derivation: &Derivation,
    before: Option<&Shared>,
) -> Result<HashMap<String, client::User>, StartError> {
    let mut users = HashMap::new();
    for user in &config.users {
        let known = before.and_then(|it| it.users.get(&user.name));
        let kept = known.map(|it| &it.credentials).filter(|it| it.secret() == user.password.as_ref());
        let credentials = match kept {
            Some(it) => it.clone(),
            None => credentials(user, derivation)?,
        };
        let clients = known.map_or_else(|| Quota::new(None), |it| it.clients.clone());
        clients.set_max(user.clients_max);
        let made = client::User {
            method: user.auth,
            credentials,
            clients,
            pool_mode: user.pool_mode,
            consistency: user.consistency,
        };
        users.insert(user.name.clone(), made);
    }
    Ok(users)
}

fn credentials(user: &config::User, derivation: &Derivation) -> Result<Arc<Credentials>, StartError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(StartError::Randomness)?;
    let credentials = Arc::new(Credentials::new(user.password.clone(), salt, derivation.clone()));
    // Made before the first login, which would take longer than those of names that nobody has.
    let made = credentials.clone();
    tokio::spawn(async move { made.verifier().await });
    Ok(credentials)
}
