//! One database of the config as clients use it: router, topology, pools.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::Families;
use super::keeper::HotspotKeeper;
use crate::auth::{Credentials, Derivation};
use crate::backend::{BackendSpec, Holders};
use crate::base::ShardId;
use crate::catalog::{CatalogWatch, ReadSpec};
use crate::client::{
    self, Failover, Floors, Hub, Listener, ListenerSpec, NotifyLimits, PoolDirectory, PoolMaker, Protection,
    Quota, Shared, UserLookup, UserPools,
};
use crate::config::{self, Config};
use crate::hotspot::{Hotspots, Statements};
use crate::net::{Connectors, Lookup};
use crate::pool::{Ledger, Pool, PoolLimits, PoolMetricFamilies, PoolName};
use crate::proto::StatementBounds;
use crate::route::Router;
use crate::sql::Parser;
use crate::topology::{ProbeSpec, Topology};

/// What all databases share, whatever the configuration is.
pub struct Common {
    pub families: Families,
    pub parser: Arc<Parser>,
    pub derivation: Derivation,
    pub ledger: Arc<Ledger>,
    pub lookup: Lookup,
    pub keeper: Arc<HotspotKeeper>,
    pub stopping: watch::Receiver<bool>,
    /// For those who watch servers, which drains need.
    pub ended: watch::Receiver<bool>,
}

/// One configuration on its way to be served.
pub struct Building<'a> {
    pub config: &'a Config,
    pub common: &'a Common,
    pub users: &'a HashMap<String, client::User>,
    pub sessions: &'a Arc<client::Sessions>,
    /// What a reload replaces. Its parts are taken over where they are still as wanted.
    pub before: Option<&'a Shared>,
    pub now: Instant,
}

impl Building<'_> {
    /// `tls` is of this database, from before where it was there before.
    pub fn database(&self, database: &config::Database, tls: Arc<Connectors>) -> client::Database {
        let Common { families, parser, ended, .. } = self.common;
        let before = self.before.and_then(|it| it.databases.get(&database.name)).map(|it| &**it);
        let shards: Vec<String> = database.shards.iter().map(|it| it.name.clone()).collect();
        let router = Router::new(database, self.config.limits.plans_max, parser.clone());
        let kept = before.map(|it| &it.router).filter(|it| it.is_same(&router)).cloned();
        let router = kept.unwrap_or_else(|| Arc::new(router));
        let moved = before.is_some_and(|it| it.router.config_version() != router.config_version());
        let clients = before.map_or_else(|| Quota::new(None), |it| it.clients.clone());
        clients.set_max(database.clients_max);
        let replication = before.map_or_else(|| Quota::new(None), |it| it.replication.clone());
        replication.set_max(Some(database.replication_connections_max));
        let topology = before.map(|it| &it.topology);
        let hub = self.hub(database, before);
        let probe = self.probe(database, &tls, &hub.holders);
        let topology = Topology::start(database, &probe, &families.topology, ended, topology);
        let failover = before.map(|it| &it.failover).filter(|it| it.is_of(&topology)).cloned();
        let failover = failover.unwrap_or_else(|| {
            Failover::start(&topology, &database.name, &self.common.ledger, self.sessions)
        });
        let listener = self.listener(&hub, listeners(database, &probe.backend, &topology), before);
        let catalog = self.catalog(database, probe.backend, &topology, before);
        catalog.serve(&router);
        let hotspots = self.hotspots(&router, before, &database.name);
        let protection = self.protection(database, &router, &failover, before);
        client::Database {
            name: database.name.clone(),
            dbname: database.dbname.as_str().into(),
            router,
            topology,
            catalog,
            pools: self.pools(database, &tls, &hub.holders, before),
            lookup: self.lookup(database, &tls, &hub.holders, before),
            tls,
            clients,
            replication,
            traffic: before.map_or_else(Arc::default, |it| it.traffic.clone()),
            statements: before.map_or_else(Arc::default, |it| it.statements.clone()),
            hub,
            listener,
            metrics: families.client.of_database(&database.name, &shards),
            pool_mode: database.pool_mode,
            consistency: database.consistency,
            balance: families.client.balance(database, before.map(|it| &it.balance)),
            has_replicas: database.shards.iter().any(|it| it.servers.len() > 1),
            costly: self.costly(before),
            hotspots,
            protection,
            floors: before.map_or_else(|| Floors::new(self.now), |it| it.floors.clone()),
            max_lag: database.max_lag,
            floor: if moved { Some(self.now) } else { before.and_then(|it| it.floor) },
            wait_timeout: database.pool.wait_timeout,
            failover,
            failover_hold: database.failover_hold,
            failover_queue: database.failover_queue,
            cross_shard_lock_timeout: database.cross_shard_lock_timeout,
        }
    }

    /// Those of `before` where rows live as they did.
    fn hotspots(&self, router: &Router, before: Option<&client::Database>, name: &str) -> Arc<Hotspots> {
        let is_on = self.config.hotspots.hotspots;
        let same = |it: &&client::Database| {
            it.router.config_version() == router.config_version() && it.hotspots.is_of(is_on)
        };
        match before.filter(same) {
            Some(it) => it.hotspots.clone(),
            None => self.common.keeper.hotspots(name, router, is_on, before.map(|it| &*it.hotspots)),
        }
    }

    /// That of `before` where statements go as they did.
    fn protection(
        &self,
        database: &config::Database,
        router: &Arc<Router>,
        failover: &Arc<Failover>,
        before: Option<&client::Database>,
    ) -> Option<Arc<Protection>> {
        let same =
            |it: &&client::Database| Arc::ptr_eq(&it.router, router) && Arc::ptr_eq(&it.failover, failover);
        let kept = before.filter(same).and_then(|it| it.protection.clone());
        let new = || Protection::new(database, self.common.families.protection.of(&database.name));
        kept.filter(|it| it.is_of(&database.protection)).or_else(new)
    }

    /// A text has the fingerprint that it had, whatever the maps are.
    fn costly(&self, before: Option<&client::Database>) -> Option<Arc<Statements>> {
        let kept = before.and_then(|it| it.costly.clone());
        self.config.hotspots.hotspots.then(|| kept.unwrap_or_default())
    }

    /// Whoever listens goes on doing so.
    fn hub(&self, database: &config::Database, before: Option<&client::Database>) -> Arc<Hub> {
        let limits = NotifyLimits {
            channels_max: self.config.limits.channels_max,
            bytes_max: self.config.limits.notification_bytes_max,
            wait_timeout: database.pool.wait_timeout,
        };
        let families = &self.common.families;
        let new = || Hub::new(limits, families.notify.of_database(&database.name), families.hits.clone());
        let hub = before.map_or_else(new, |it| it.hub.clone());
        hub.set_limits(limits);
        hub
    }

    fn listener(
        &self,
        hub: &Arc<Hub>,
        specs: Vec<ListenerSpec>,
        before: Option<&client::Database>,
    ) -> Arc<Listener> {
        match before {
            Some(it) => {
                it.listener.take_up(specs);
                it.listener.clone()
            }
            None => Arc::new(Listener::start(hub, specs, &self.common.ended)),
        }
    }

    fn probe(&self, database: &config::Database, tls: &Arc<Connectors>, holders: &Holders) -> ProbeSpec {
        let probe = &database.probe;
        let nobody = || Arc::new(Credentials::new(None, [0; 16], self.common.derivation.clone()));
        let credentials = self.users.get(&probe.user).map_or_else(nobody, |it| it.credentials.clone());
        // Probers put in their own server.
        let anywhere = config::Address { host: String::new(), port: 0 };
        let backend =
            self::spec(&self.config.limits, database, tls, &anywhere, &probe.user, &credentials, holders);
        ProbeSpec {
            backend,
            interval: probe.interval,
            timeout: probe.timeout,
            dns_interval: probe.dns_interval,
            lookup: self.common.lookup.clone(),
            patroni: None,
        }
    }

    /// The watch of `before` where it reads the same servers in the same way.
    fn catalog(
        &self,
        database: &config::Database,
        backend: BackendSpec,
        topology: &Arc<Topology>,
        before: Option<&client::Database>,
    ) -> Arc<CatalogWatch> {
        let roles = topology.clone();
        let cluster = Box::new(move || roles.snapshot().clone());
        let spec = ReadSpec { backend, limits: database.catalog.clone(), cluster };
        let kept = before.filter(|it| Arc::ptr_eq(&it.topology, topology)).map(|it| &it.catalog);
        match kept.filter(|it| it.is_same(&spec)) {
            Some(kept) => kept.clone(),
            None => {
                let (families, before) = (&self.common.families, before.map(|it| &it.catalog));
                CatalogWatch::start(database, spec, &families.catalog, &self.common.ended, before)
            }
        }
    }

    fn pools(
        &self,
        database: &config::Database,
        tls: &Arc<Connectors>,
        holders: &Holders,
        before: Option<&client::Database>,
    ) -> PoolDirectory {
        let found_max = database.auth_query.as_ref().map_or(0, |it| it.users_max);
        let users = self.config.users.iter();
        let bounds = users.filter_map(|it| Some((it.name.clone(), it.server_connections_max?)));
        let maker = Maker {
            database: database.clone(),
            limits: self.config.limits.clone(),
            tls: tls.clone(),
            connections_max: bounds.collect(),
            families: self.common.families.pool.clone(),
            ledger: self.common.ledger.clone(),
            holders: holders.clone(),
        };
        let directory = PoolDirectory::new(Box::new(maker), found_max, database.pool.idle_timeout);
        for (name, it) in self.users {
            let pools = before.and_then(|it| it.pools.get(name));
            directory.list(name, &it.credentials, pools.as_deref(), self.now);
        }
        if let Some(it) = before {
            directory.adopt(&it.pools);
        }
        directory
    }

    fn lookup(
        &self,
        database: &config::Database,
        tls: &Arc<Connectors>,
        holders: &Holders,
        before: Option<&client::Database>,
    ) -> Option<Arc<UserLookup>> {
        let query = database.auth_query.clone()?;
        let credentials = &self.users.get(&query.user)?.credentials;
        let servers = database.shards.first()?.servers.iter();
        let spec = |it| spec(&self.config.limits, database, tls, it, &query.user, credentials, holders);
        let servers = servers.map(spec).collect();
        let made = UserLookup::new(
            query,
            servers,
            self.common.derivation.clone(),
            self.common.families.hits.clone(),
        );
        let kept = before.and_then(|it| it.lookup.as_ref()).filter(|it| it.is_same(&made));
        Some(kept.cloned().unwrap_or_else(|| Arc::new(made)))
    }
}

/// Who probes listens too: everybody may, and nobody's own rights are needed for it.
fn listeners(
    database: &config::Database,
    probe: &BackendSpec,
    topology: &Arc<Topology>,
) -> Vec<ListenerSpec> {
    let server = |address: &config::Address| BackendSpec {
        host: address.host.as_str().into(),
        port: address.port,
        application_name: Some("keyway listener"),
        ..probe.clone()
    };
    let spec = |(index, shard): (u16, &config::ShardServers)| ListenerSpec {
        name: shard.name.as_str().into(),
        shard: ShardId(index),
        servers: shard.servers.iter().map(server).collect(),
        topology: topology.clone(),
    };
    (0..).zip(&database.shards).map(spec).collect()
}

fn spec(
    limits: &config::Limits,
    database: &config::Database,
    tls: &Arc<Connectors>,
    address: &config::Address,
    user: &str,
    credentials: &Arc<Credentials>,
    holders: &Holders,
) -> BackendSpec {
    BackendSpec {
        host: address.host.as_str().into(),
        port: address.port,
        user: user.into(),
        credentials: credentials.clone(),
        server_auth: database.server_auth,
        tls: tls.clone(),
        database: database.dbname.as_str().into(),
        application_name: None,
        connect_timeout: database.pool.connect_timeout,
        message_bytes_max: limits.message_bytes_max,
        statements: StatementBounds {
            count_max: limits.server_statements_max,
            bytes_max: limits.server_statement_bytes_max,
        },
        holders: holders.clone(),
    }
}

/// Makes pools as the config says, also for users that come later.
struct Maker {
    database: config::Database,
    limits: config::Limits,
    tls: Arc<Connectors>,
    /// By user, where there is a bound.
    connections_max: HashMap<String, usize>,
    families: PoolMetricFamilies,
    ledger: Arc<Ledger>,
    holders: Holders,
}

impl Maker {
    fn name(&self, shard: usize, address: &config::Address, user: &str) -> PoolName {
        PoolName {
            database: self.database.name.as_str().into(),
            shard: self.database.shards[shard].name.as_str().into(),
            server: address.to_string().into(),
            user: user.into(),
        }
    }

    /// The pool of `before` where it is still as wanted, else a new one.
    fn pool(
        &self,
        name: PoolName,
        address: &config::Address,
        credentials: &Arc<Credentials>,
        before: Option<&UserPools>,
    ) -> Arc<Pool> {
        let pool = &self.database.pool;
        let limits = PoolLimits {
            size: pool.size,
            waiters_max: pool.waiters_max,
            wait_timeout: pool.wait_timeout,
            idle_timeout: pool.idle_timeout,
            lifetime: pool.lifetime,
            ramp: pool.ramp,
        };
        let user = &*name.user;
        let bound_of_database = (self.database.name.as_str(), self.database.server_connections_max);
        let bound_of_user = (user, self.connections_max.get(user).copied());
        let terms = self.ledger.terms(&name.server, bound_of_database, bound_of_user);
        let spec = spec(&self.limits, &self.database, &self.tls, address, user, credentials, &self.holders);
        let kept = before.and_then(|it| it.all().find(|it| it.is_same(&name, &spec, &limits, &terms)));
        kept.cloned().unwrap_or_else(|| {
            let metrics = self.families.of(&name);
            Pool::new(name, spec, limits, &self.ledger, terms, metrics)
        })
    }
}

impl PoolMaker for Maker {
    fn make(&self, user: &str, credentials: &Arc<Credentials>, before: Option<&UserPools>) -> UserPools {
        let shards = self.database.shards.iter().enumerate().map(|(shard, servers)| {
            let pool = |it| self.pool(self.name(shard, it, user), it, credentials, before);
            servers.servers.iter().map(pool).collect()
        });
        let pools = UserPools::new(shards.collect(), credentials.clone());
        if let Some(it) = before {
            pools.keep_parameters(it);
        }
        pools
    }

    fn forget(&self, user: &str) {
        for (shard, servers) in self.database.shards.iter().enumerate() {
            servers.servers.iter().for_each(|it| self.families.forget(&self.name(shard, it, user)));
        }
    }
}
