//! The configuration: a TOML file to a checked `Config`, with every error at once, each with its line
//! and what to write instead. A config that loads is valid (DESIGN invariant 9).

mod admin;
mod check;
mod database;
mod difference;
mod document;
mod listing;
mod login;
mod map;
mod peers;
mod protection;
mod reference;
mod replicas;
mod secret;
mod settings;
mod sqlname;
mod table;
mod telemetry;
mod tls;
mod user;

pub use difference::{Change, Difference};
pub use listing::Listed;
pub use protection::{Protection, TableProtection};
pub use reference::reference;
pub use secret::{Md5Digest, Password, ScramVerifier, Secret};
pub use settings::{keys, measures};
pub use telemetry::{Endpoint, Log, LogFormat, Ratio, Tracing};
pub use tls::{Authorities, ClientTls, Identity, ServerTls, TlsMode, TlsVersion};

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::{Consistency, ShardId};
use crate::shard::Map;

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// HTTP: metrics, health, dashboard.
    pub admin: SocketAddr,
    pub dashboard: Dashboard,
    /// Threads; 0 is one per core.
    pub workers: usize,
    /// Of several Keyways behind one address, from 1 to `cancel::Instance::MAX`.
    pub instance: Option<u16>,
    pub peers: Vec<Peer>,
    pub tls: ClientTls,
    pub limits: Limits,
    pub users: Vec<User>,
    pub databases: Vec<Database>,
    pub console: Console,
    pub hotspots: HotspotTerms,
    pub log: Log,
    pub tracing: Tracing,
}

/// What is kept of hot shards and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotspotTerms {
    pub hotspots: bool,
    pub hotspot_history: Option<PathBuf>,
}

/// Who may see the dashboard, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboard {
    /// Without one: browsers on this machine.
    pub admin_token: Option<Password>,
    pub redact_keys: bool,
    pub admin_streams_max: usize,
}

/// A Keyway behind the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub instance: u16,
    pub address: Address,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.instance, self.address)
    }
}

/// Who may use it; names of `Config::users`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    pub admin_users: Vec<String>,
    pub stats_users: Vec<String>,
}

/// Databases that every process has: the console's name, and that of PgBouncer's.
pub const CONSOLE_DATABASES: [&str; 2] = ["keyway", "pgbouncer"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub clients_max: usize,
    pub login_timeout: Duration,
    pub logins_max: usize,
    pub cancels_max: usize,
    /// To one server.
    pub server_connections_max: Option<usize>,
    /// To one server.
    pub server_logins_max: usize,
    pub message_bytes_max: usize,
    /// Prepared statements of one client.
    pub statements_max: usize,
    /// Their texts.
    pub statement_bytes_max: usize,
    pub merge_bytes_max: usize,
    /// Prepared statements on one server connection.
    pub server_statements_max: usize,
    /// Their texts.
    pub server_statement_bytes_max: usize,
    pub plans_max: usize,
    pub client_idle_timeout: Option<Duration>,
    pub idle_in_transaction_timeout: Option<Duration>,
    pub aborted_transaction_timeout: Option<Duration>,
    pub unfinished_timeout: Option<Duration>,
    pub query_timeout: Option<Duration>,
    pub cancel_timeout: Duration,
    pub transaction_timeout: Option<Duration>,
    /// Of one client.
    pub channels_max: usize,
    /// That wait for one client.
    pub notification_bytes_max: usize,
    pub shutdown_timeout: Duration,
    pub buffers_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub auth: Auth,
    pub password: Option<Secret>,
    pub clients_max: Option<usize>,
    pub server_connections_max: Option<usize>,
    /// `None` is as the database says.
    pub pool_mode: Option<PoolMode>,
    pub consistency: Option<Consistency>,
}

/// When a server connection may go to another client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// When no transaction is open, and no state is left that only one session can hold.
    #[default]
    Transaction,
    /// When its client has left. Databases of one shard only.
    Session,
}

/// What becomes of a statement that writes rows of several shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossShardWrites {
    #[default]
    Refuse,
    /// Each shard commits by itself, one after the other.
    OnePhase,
}

/// How a client shows that it is who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    Scram,
    /// A SCRAM verifier is checked by SCRAM for all that, as PostgreSQL does.
    Md5,
    /// In clear text.
    Password,
    Trust,
    /// A certificate with the user's name.
    Cert,
}

/// The methods by which Keyway logs in to servers that ask for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerAuth {
    pub scram: bool,
    pub md5: bool,
    pub password: bool,
}

impl Default for ServerAuth {
    fn default() -> ServerAuth {
        ServerAuth { scram: true, md5: false, password: false }
    }
}

/// Where the passwords of users are that the config does not list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthQuery {
    /// A name of `Config::users`: who asks.
    pub user: String,
    pub text: String,
    /// How users so found log in.
    pub method: Auth,
    pub timeout: Duration,
    /// How long an answer is believed.
    pub lifetime: Duration,
    pub users_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    /// The name on the servers.
    pub dbname: String,
    /// `shards[i]` is `ShardId(i)`: the order of the file.
    pub shards: Vec<ShardServers>,
    pub pool: Pool,
    pub replicas: Replicas,
    pub max_lag: Duration,
    pub probe: Probe,
    pub catalog: Catalog,
    pub server_auth: ServerAuth,
    pub server_tls: ServerTls,
    pub auth_query: Option<AuthQuery>,
    pub clients_max: Option<usize>,
    pub server_connections_max: Option<usize>,
    pub replication_connections_max: usize,
    pub failover_hold: Duration,
    /// Clients that may be held so at once.
    pub failover_queue: usize,
    pub pool_mode: PoolMode,
    pub consistency: Consistency,
    pub cross_shard_writes: CrossShardWrites,
    pub cross_shard_lock_timeout: Option<Duration>,
    pub maps: Vec<Arc<Map>>,
    pub tables: BTreeMap<TableName, TableRule>,
    pub protection: Protection,
    /// Of tables that say something, whether `tables` has them or not.
    pub table_protection: BTreeMap<TableName, TableProtection>,
    /// Schemas whose tables all live on one shard.
    pub schemas: BTreeMap<String, ShardId>,
    /// Where tables live that are not listed.
    pub default_shard: Option<ShardId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardServers {
    pub name: String,
    pub servers: Vec<Address>,
    /// In the order of `servers`.
    pub preferences: Vec<Preference>,
    /// Where the Patroni of each answers over HTTP.
    pub patroni: Vec<Option<Address>>,
}

/// What speaks for reading from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    pub weight: u16,
    pub zone: Option<String>,
}

/// How reads are spread over the replicas of each shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicas {
    pub zone: Option<String>,
    pub zone_penalty: usize,
    pub slow_start: Duration,
    pub when_stale: WhenStale,
    pub primary_read_share: Share,
}

/// A part of a whole, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u16);

impl Share {
    pub const WHOLE: Share = Share(1_000);

    /// From 0.0 to 1.0.
    pub fn new(fraction: f64) -> Share {
        Share((fraction * 1_000.0).round() as u16)
    }

    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }

    /// Of a whole of so many, rounded up.
    pub fn of(self, whole: usize) -> usize {
        (whole * usize::from(self.0)).div_ceil(1_000)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", f32::from(self.0) / 1_000.0)
    }
}

/// A read while no replica is within `max_lag`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStale {
    #[default]
    Primary,
    LeastStale,
    Error,
}

impl WhenStale {
    pub const ALL: [WhenStale; 3] = [WhenStale::Primary, WhenStale::LeastStale, WhenStale::Error];

    pub fn label(self) -> &'static str {
        match self {
            WhenStale::Primary => "primary",
            WhenStale::LeastStale => "least_stale",
            WhenStale::Error => "error",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Of one user on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub size: usize,
    pub waiters_max: usize,
    pub wait_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub lifetime: Duration,
    pub ramp: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// A name of `Config::users`.
    pub user: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// Of lookups of names; `None` is never.
    pub dns_interval: Option<Duration>,
}

/// How the catalogs of the shards are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    pub interval: Duration,
    pub timeout: Duration,
    pub wait: Duration,
    pub rows_max: usize,
}

/// A table, each part as the catalog has it: folded to lower case unless it was quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    pub schema: Option<String>,
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableRule {
    /// Rows live where `maps[map]` puts the values of the columns `key`, as many as the map's key has.
    Sharded { map: usize, key: Vec<String> },
    /// The same rows on every shard.
    Reference,
    /// All rows on one shard.
    Shard(ShardId),
}

/// One thing wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: Option<usize>,
    pub message: String,
    /// What to write.
    pub instead: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}; write {}", self.message, self.instead)
    }
}

impl Config {
    /// Reads and checks a file. Password files are looked for beside it.
    pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            vec![Problem {
                line: None,
                message: format!("cannot read {}: {error}", path.display()),
                instead: "the path of a readable file after --config".to_owned(),
            }]
        })?;
        let directory = path.parent().unwrap_or(Path::new("."));
        Config::parse(&text, directory, &|name| std::env::var(name).ok())
    }

    /// Checks a text; `env` looks environment variables up.
    pub fn parse(
        text: &str,
        directory: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, Vec<Problem>> {
        check::config(text, directory, env)
    }

    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|it| it.name == name)
    }

    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|it| it.name == name)
    }
}

#[cfg(test)]
mod tests;
