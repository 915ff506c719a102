//! One database of the config as clients use it: router, topology, pools.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Families;
use crate::backend::BackendSpec;
use crate::base::{ServerId, ShardId};
use crate::client::{self, StatementRegistry, UserPools};
use crate::config::{self, Config, User};
use crate::pool::{Pool, PoolLimits};
use crate::route::Router;
use crate::sql::Parser;
use crate::topology::{ProbeSpec, Topology};

pub fn build(
    config: &Config,
    database: &config::Database,
    families: &Families,
    parser: &Arc<Parser>,
    stopping: &watch::Receiver<bool>,
) -> client::Database {
    let shards: Vec<String> = database.shards.iter().map(|it| it.name.clone()).collect();
    let probe = &database.probe;
    let spec = ProbeSpec {
        dbname: database.dbname.clone(),
        user: probe.user.clone(),
        password: config.user(&probe.user).and_then(|it| it.password.as_ref()).map(|it| it.reveal().clone()),
        interval: probe.interval,
        timeout: probe.timeout,
    };
    let pools = config
        .users
        .iter()
        .map(|user| (user.name.clone(), Arc::new(user_pools(config, database, user, families))));
    client::Database {
        name: database.name.clone(),
        router: Router::new(database, config.limits.plans_max, parser.clone()),
        topology: Topology::start(database, &spec, &families.topology, stopping),
        pools: pools.collect(),
        statements: StatementRegistry::default(),
        metrics: families.client.of_database(&database.name, &shards),
        max_lag: database.max_lag,
        wait_timeout: database.pool.wait_timeout,
    }
}

fn user_pools(config: &Config, database: &config::Database, user: &User, families: &Families) -> UserPools {
    let pool = |shard: usize, index: usize, address: &config::Address| {
        let spec = BackendSpec {
            server: ServerId { shard: ShardId(shard as u16), index: index as u16 },
            host: address.host.as_str().into(),
            port: address.port,
            user: user.name.as_str().into(),
            password: user.password.as_ref().map(|it| it.reveal().clone()),
            database: database.dbname.as_str().into(),
            connect_timeout: database.pool.connect_timeout,
            message_bytes_max: config.limits.message_bytes_max,
            statements_max: config.limits.server_statements_max,
        };
        let limits = PoolLimits {
            size: database.pool.size,
            waiters_max: database.pool.waiters_max,
            wait_timeout: database.pool.wait_timeout,
            idle_timeout: database.pool.idle_timeout,
            lifetime: database.pool.lifetime,
            ramp: database.pool.ramp,
        };
        let labels = [&*database.name, &*database.shards[shard].name, &*address.to_string(), &*user.name];
        Pool::new(spec, limits, families.pool.of(labels))
    };
    let shards = database.shards.iter().enumerate().map(|(shard, it)| {
        it.servers.iter().enumerate().map(|(index, address)| pool(shard, index, address)).collect()
    });
    UserPools { shards: shards.collect(), parameters: Mutex::default() }
}
