//! One client: login, then units of work, each decided, sent, relayed. One task drives a client and
//! the server connection that it holds, so a query crosses no channel (DESIGN D9).

mod abandon;
mod answers;
mod at_once;
mod at_work;
mod attach;
mod balance;
mod begun;
mod bind;
mod copy;
mod copy_split;
mod cursors;
mod deallocate;
mod declared;
mod effects;
mod encoding;
mod enlisted;
mod extended;
mod failover;
mod floors;
mod freshness;
mod function_call;
mod group;
mod hints;
mod hotspots;
mod listening;
mod login;
mod lookup;
mod many;
mod merged;
mod metrics;
mod named;
mod notify;
mod observed;
mod one_phase;
mod perform;
mod pins;
mod plain;
mod portals;
mod position;
mod protect;
mod protection;
mod protection_metrics;
mod query;
mod quota;
mod recent;
mod registry;
mod relay;
mod reload;
mod replication;
mod request;
mod rest;
mod routing;
mod search_path;
mod session;
mod settled;
mod slow;
mod split;
mod sql_prepare;
mod statements;
mod target_metrics;
mod timeouts;
mod tracks;
mod traffic;
mod transactions;
mod turns;
mod users;
mod visitor;
mod waiting;

pub use balance::{Balance, ServerReads};
pub use failover::{Doubt, Failover, Fate, fate};
pub use floors::{Cells, Floor, Floors, Written};
pub use login::{serve, too_many};
pub use lookup::UserLookup;
pub use metrics::{ClientMetricFamilies, DatabaseMetrics, ShardTotals};
pub use notify::{Hub, Listener, ListenerSpec, NotifyLimits, NotifyMetricFamilies};
pub use observed::{Traces, Watchers, unix_s};
pub use protection::{Protection, ProtectionUsage};
pub use protection_metrics::{ProtectionMetricFamilies, ProtectionMetrics, ReadOutcome, WriteOutcome};
pub use quota::Quota;
pub use registry::{Activity, Registered, SessionRecord, Sessions, Totals};
pub use reload::{Latest, sent_away};
pub use slow::SlowLog;
pub use statements::{PreparedStatus, Registry as StatementRegistry};
pub use timeouts::Timeouts;
pub use tracks::{Must, Tracks};
pub use traffic::Traffic;
pub use transactions::OpenTransaction;
pub use users::{PoolDirectory, PoolMaker, User};
pub use visitor::{Console, Place, Rights, Visitor};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::auth::Credentials;
use crate::base::{Consistency, ServerId};
use crate::cancel;
use crate::catalog::CatalogWatch;
use crate::config::PoolMode;
use crate::hotspot::{Hotspots, Statements};
use crate::metrics::LimitHits;
use crate::net::{Acceptors, BufferStock, Connectors};
use crate::pool::{Ledger, Pool};
use crate::proto;
use crate::route::Router;
use crate::topology::Topology;

/// What all clients share; immutable but for what its parts count. A reload makes another one, with the parts
/// that stay (DESIGN invariant 9).
pub struct Shared {
    /// Counts reloads.
    pub version: u64,
    pub databases: HashMap<String, Arc<Database>>,
    pub users: HashMap<String, User>,
    /// Makes the salt of users that do not exist.
    pub mock_secret: [u8; 16],
    pub tls: Arc<Acceptors>,
    pub limits: Limits,
    pub hits: LimitHits,
    /// One for each client that is logging in.
    pub logins: Arc<Semaphore>,
    /// A place for each client connection.
    pub clients: Arc<Quota>,
    pub sessions: Arc<Sessions>,
    /// Has the pools of all databases.
    pub ledger: Arc<Ledger>,
    /// In the console.
    pub rights: Rights,
    /// A few places for clients of the console beyond `clients`.
    pub reserve: Arc<Quota>,
    pub stock: BufferStock,
    pub cancels: cancel::Registry,
    pub metrics: ClientMetricFamilies,
    /// Who is told what statements cost.
    pub watchers: Watchers,
    /// True from the moment that the process is asked to end.
    pub stopping: watch::Receiver<bool>,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub unit: proto::Limits,
    pub login_timeout: Duration,
    pub logins_max: usize,
    pub statements_max: usize,
    pub statement_bytes_max: usize,
    /// For groups and distinct rows of one read over several shards.
    pub merge_bytes_max: usize,
    pub timeouts: Timeouts,
}

/// One database with all that routing to it needs.
pub struct Database {
    pub name: String,
    /// The name on the servers.
    pub dbname: Arc<str>,
    pub router: Arc<Router>,
    pub topology: Arc<Topology>,
    pub catalog: Arc<CatalogWatch>,
    /// By user; pools stand as servers do in `route::Cluster`.
    pub pools: PoolDirectory,
    pub lookup: Option<Arc<UserLookup>>,
    /// To its servers.
    pub tls: Arc<Connectors>,
    pub clients: Arc<Quota>,
    /// Clients that speak the replication protocol.
    pub replication: Arc<Quota>,
    /// Lives as long as the database.
    pub traffic: Arc<Traffic>,
    /// Lives as long as the database: names on servers are never given twice.
    pub statements: Arc<StatementRegistry>,
    /// Who listens to what. Lives as long as the database.
    pub hub: Arc<Hub>,
    pub listener: Arc<Listener>,
    pub metrics: DatabaseMetrics,
    pub pool_mode: PoolMode,
    pub consistency: Consistency,
    pub balance: Balance,
    /// Some shard has more servers than one.
    pub has_replicas: bool,
    /// Lives as long as the router.
    pub hotspots: Arc<Hotspots>,
    /// `None` where nothing is done for hot keys.
    pub protection: Option<Arc<Protection>>,
    /// Which statements cost most, unless `hotspots` is off. Lives as long as the database.
    pub costly: Option<Arc<Statements>>,
    /// Lives as long as the database.
    pub floors: Arc<Floors>,
    pub max_lag: Duration,
    /// No replica serves a session that has not replayed this: when rows may last have changed their shards.
    pub floor: Option<Instant>,
    /// How long a statement waits for a connection of a server that takes no more, or for a replica to catch up.
    pub wait_timeout: Duration,
    /// As long as the topology.
    pub failover: Arc<Failover>,
    /// How long a statement waits for its shard to have a primary.
    pub failover_hold: Duration,
    /// How many may at once.
    pub failover_queue: usize,
    /// Of transactions on several shards at once.
    pub cross_shard_lock_timeout: Option<Duration>,
}

/// ParameterStatus of a server: names and values.
pub type Parameters = Arc<[(String, String)]>;

/// The pools of one user, and what servers tell every client of this user at login.
pub struct UserPools {
    pub shards: Vec<Vec<Arc<Pool>>>,
    pub credentials: Arc<Credentials>,
    pub parameters: Mutex<Option<Parameters>>,
    /// Of the last startup packet.
    startup: Mutex<(proto::Settings, Option<Arc<str>>)>,
}

impl UserPools {
    pub fn new(shards: Vec<Vec<Arc<Pool>>>, credentials: Arc<Credentials>) -> UserPools {
        UserPools { shards, credentials, parameters: Mutex::default(), startup: Mutex::default() }
    }

    /// The settings of a startup packet and the name in it, in one place for all clients that bring the same:
    /// applications connect many times with one.
    pub fn share(
        &self,
        startup: proto::Settings,
        application_name: Option<String>,
    ) -> (proto::Settings, Option<Arc<str>>) {
        let mut known = self.startup.lock();
        if !known.0.same(&startup) || known.1.as_deref() != application_name.as_deref() {
            *known = (startup, application_name.map(Into::into));
        }
        known.clone()
    }

    /// Of the database and of its user, as all that are of these pools have them.
    fn names(&self, database: &Database, user: &str) -> (Arc<str>, Arc<str>) {
        match self.all().next().map(|it| it.name()) {
            Some(it) => (it.database.clone(), it.user.clone()),
            None => (database.name.as_str().into(), user.into()),
        }
    }

    /// What servers told at logins before, where this is the same database on one of the same servers.
    pub fn keep_parameters(&self, before: &UserPools) {
        let is_same = |a: &Arc<Pool>, b: &Arc<Pool>| {
            let (a, b) = (a.spec(), b.spec());
            (&a.host, a.port, &a.database) == (&b.host, b.port, &b.database)
        };
        if self.all().any(|it| before.all().any(|of| is_same(it, of))) {
            *self.parameters.lock() = before.parameters.lock().clone();
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.shards.iter().flatten()
    }

    pub fn close_idle(&self) {
        self.all().for_each(|it| it.close_idle());
    }

    pub fn get(&self, server: ServerId) -> Option<&Arc<Pool>> {
        self.shards.get(usize::from(server.shard.0))?.get(usize::from(server.index))
    }
}
