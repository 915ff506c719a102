//! One database of the config as clients use it: router, topology, pools.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::Families;
use crate::auth::{Credentials, Derivation};
use crate::backend::BackendSpec;
use crate::base::{ServerId, ShardId};
use crate::catalog::{CatalogWatch, ReadSpec};
use crate::client::{self, PoolDirectory, PoolMaker, Quota, StatementRegistry, UserLookup, UserPools};
use crate::config::{self, Config};
use crate::pool::{Ledger, Pool, PoolLimits, PoolMetricFamilies};
use crate::route::Router;
use crate::sql::Parser;
use crate::topology::{ProbeSpec, Topology};

/// What all databases share.
pub struct Common {
    pub parser: Arc<Parser>,
    pub users: HashMap<String, client::User>,
    pub derivation: Derivation,
    pub ledger: Arc<Ledger>,
}

pub fn build(
    config: &Config,
    database: &config::Database,
    families: &Families,
    common: &Common,
    stopping: &watch::Receiver<bool>,
) -> client::Database {
    let Common { parser, users, derivation, .. } = common;
    let shards: Vec<String> = database.shards.iter().map(|it| it.name.clone()).collect();
    let probe = &database.probe;
    let nobody = Arc::new(Credentials::new(None, [0; 16], derivation.clone()));
    let credentials = users.get(&probe.user).map_or(&nobody, |it| &it.credentials);
    // Probers put in their own server.
    let anywhere = config::Address { host: String::new(), port: 0 };
    let place = ServerPlace { shard: 0, index: 0, address: &anywhere };
    let backend = self::spec(&config.limits, database, place, &probe.user, credentials);
    let spec = ProbeSpec { backend, interval: probe.interval, timeout: probe.timeout };
    let topology = Topology::start(database, &spec, &families.topology, stopping);
    let router = Arc::new(Router::new(database, config.limits.plans_max, parser.clone()));
    let roles = topology.clone();
    let spec = ReadSpec {
        backend: spec.backend,
        limits: database.catalog.clone(),
        router: router.clone(),
        cluster: Box::new(move || roles.snapshot().clone()),
    };
    client::Database {
        name: database.name.clone(),
        router,
        topology,
        catalog: CatalogWatch::start(database, spec, &families.catalog, stopping),
        pools: pools(config, database, families, common),
        lookup: lookup(config, database, users, derivation),
        clients: Quota::new(database.clients_max),
        statements: StatementRegistry::default(),
        metrics: families.client.of_database(&database.name, &shards),
        max_lag: database.max_lag,
        wait_timeout: database.pool.wait_timeout,
    }
}

fn pools(
    config: &Config,
    database: &config::Database,
    families: &Families,
    common: &Common,
) -> PoolDirectory {
    let found_max = database.auth_query.as_ref().map_or(0, |it| it.users_max);
    let bounds = config.users.iter().filter_map(|it| Some((it.name.clone(), it.server_connections_max?)));
    let maker = Maker {
        database: database.clone(),
        limits: config.limits.clone(),
        connections_max: bounds.collect(),
        families: families.pool.clone(),
        ledger: common.ledger.clone(),
    };
    let directory = PoolDirectory::new(Box::new(maker), found_max, database.pool.idle_timeout);
    let now = Instant::now();
    common.users.iter().for_each(|(name, it)| directory.list(name, &it.credentials, now));
    directory
}

fn lookup(
    config: &Config,
    database: &config::Database,
    users: &HashMap<String, client::User>,
    derivation: &Derivation,
) -> Option<UserLookup> {
    let query = database.auth_query.clone()?;
    let credentials = &users.get(&query.user)?.credentials;
    let servers = database.shards.first()?.servers.iter().enumerate();
    let spec = |(index, address)| {
        spec(&config.limits, database, ServerPlace { shard: 0, index, address }, &query.user, credentials)
    };
    let servers = servers.map(spec).collect();
    Some(UserLookup::new(query, servers, derivation.clone()))
}

/// One server of the config and where it stands there.
#[derive(Clone, Copy)]
struct ServerPlace<'a> {
    shard: usize,
    index: usize,
    address: &'a config::Address,
}

fn spec(
    limits: &config::Limits,
    database: &config::Database,
    place: ServerPlace<'_>,
    user: &str,
    credentials: &Arc<Credentials>,
) -> BackendSpec {
    BackendSpec {
        server: ServerId { shard: ShardId(place.shard as u16), index: place.index as u16 },
        host: place.address.host.as_str().into(),
        port: place.address.port,
        user: user.into(),
        credentials: credentials.clone(),
        server_auth: database.server_auth,
        database: database.dbname.as_str().into(),
        application_name: None,
        connect_timeout: database.pool.connect_timeout,
        message_bytes_max: limits.message_bytes_max,
        statements_max: limits.server_statements_max,
    }
}

/// Makes pools as the config says, also for users that come later.
struct Maker {
    database: config::Database,
    limits: config::Limits,
    /// By user, where there is a bound.
    connections_max: HashMap<String, usize>,
    families: PoolMetricFamilies,
    ledger: Arc<Ledger>,
}

impl Maker {
    fn places(&self) -> impl Iterator<Item = ServerPlace<'_>> {
        self.database.shards.iter().enumerate().flat_map(|(shard, it)| {
            let servers = it.servers.iter().enumerate();
            servers.map(move |(index, address)| ServerPlace { shard, index, address })
        })
    }

    fn pool(&self, place: ServerPlace<'_>, user: &str, credentials: &Arc<Credentials>) -> Arc<Pool> {
        let pool = &self.database.pool;
        let limits = PoolLimits {
            size: pool.size,
            waiters_max: pool.waiters_max,
            wait_timeout: pool.wait_timeout,
            idle_timeout: pool.idle_timeout,
            lifetime: pool.lifetime,
            ramp: pool.ramp,
        };
        let shard = &self.database.shards[place.shard].name;
        let server = place.address.to_string();
        let metrics = self.families.of([&self.database.name, shard, &server, user]);
        let bound_of_database = (self.database.name.as_str(), self.database.server_connections_max);
        let bound_of_user = (user, self.connections_max.get(user).copied());
        let terms = self.ledger.terms(&server, bound_of_database, bound_of_user);
        let spec = spec(&self.limits, &self.database, place, user, credentials);
        Pool::new(spec, limits, &self.ledger, terms, metrics)
    }
}

impl PoolMaker for Maker {
    fn make(&self, user: &str, credentials: &Arc<Credentials>) -> UserPools {
        let mut shards = vec![Vec::new(); self.database.shards.len()];
        self.places().for_each(|it| shards[it.shard].push(self.pool(it, user, credentials)));
        UserPools::new(shards, credentials.clone())
    }

    fn forget(&self, user: &str) {
        for place in self.places() {
            let shard = &self.database.shards[place.shard].name;
            self.families.forget([&self.database.name, shard, &place.address.to_string(), user]);
        }
    }
}
