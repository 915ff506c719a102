//! Clusters that tests share: they may add rows of their own, and must leave servers, roles and settings as
//! they found them.

use std::sync::Arc;

use ::keyway::demo::postgres::{Installation, Shard};
use ::keyway::demo::shop::{self, Shop, ShopOptions};
use tokio_postgres::Client;

use super::{Fallible, KeywayProcess, OwnShard, Shared, cluster_options, connect, run};

pub const APP_PASSWORD: &str = "keyhole";

/// The demo's shop: shards `s1` and `s2`, each a primary and a replica. Keyway ends first.
pub struct ShopFixture {
    pub keyway: KeywayProcess,
    pub shop: Shop,
}

impl ShopFixture {
    pub(super) async fn start(harness: &Shared) -> Fallible<ShopFixture> {
        let options = ShopOptions { shards: 2, spares: 0, replicas: 1, postgres: cluster_options() };
        let shop = Shop::start(harness.installation(), harness.dir(), &options).await?;
        let config = |listen: &str, admin: &str| shop.config_text(listen, admin);
        let keyway = harness.start_keyway(config).await?;
        let fixture = ShopFixture { keyway, shop };
        let client = fixture.client().await?;
        shop::create_schema(&client).await?;
        shop::fill(&client).await?;
        fixture.shop.wait_until_replayed().await?;
        Ok(fixture)
    }

    /// The one connection string.
    pub fn url(&self) -> String {
        self.shop.url(&self.keyway.listen().to_string())
    }

    /// Through Keyway.
    pub async fn client(&self) -> Fallible<Client> {
        connect(&self.url()).await
    }
}

/// Database `plain` on one primary and its replicas. Keyway ends first.
pub struct SingleFixture {
    pub keyway: KeywayProcess,
    pub shard: Shard,
}

impl SingleFixture {
    pub const DATABASE: &str = "plain";

    pub(super) async fn start(
        harness: &Shared,
        installation: &Arc<Installation>,
        name: &str,
        replicas: usize,
    ) -> Fallible<SingleFixture> {
        let shard = Shard::start(installation, harness.dir(), name, replicas, &cluster_options()).await?;
        shard.primary.create_database(SingleFixture::DATABASE, shop::USER, APP_PASSWORD).await?;
        shard.wait_until_replayed().await?;
        let config = |listen: &str, admin: &str| unsharded_config(&shard, listen, admin);
        let keyway = harness.start_keyway(config).await?;
        Ok(SingleFixture { keyway, shard })
    }

    /// The one connection string.
    pub fn url(&self) -> String {
        self.keyway.url(shop::USER, APP_PASSWORD, SingleFixture::DATABASE)
    }

    /// Through Keyway.
    pub async fn client(&self) -> Fallible<Client> {
        connect(&self.url()).await
    }
}

/// The smallest configuration for database `plain` on one shard.
pub fn unsharded_config(shard: &Shard, listen: &str, admin: &str) -> String {
    let addresses: Vec<String> = shard.servers().map(|it| it.address()).collect();
    servers_config(&addresses, listen, admin)
}

/// As `unsharded_config`, of servers that are reached at these addresses.
pub fn servers_config(addresses: &[String], listen: &str, admin: &str) -> String {
    let servers: Vec<String> = addresses.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{}]\npassword = \"{APP_PASSWORD}\"\n\
         [databases.{}]\nservers = [{}]\n",
        shop::USER,
        SingleFixture::DATABASE,
        servers.join(", ")
    )
}

/// The same with more in the database's table, and the console for its user.
pub fn own_config(shard: &Shard, listen: &str, admin: &str, settings: &str) -> String {
    let stats = format!("stats_users = [\"{}\"]\n", shop::USER);
    stats + &unsharded_config(shard, listen, admin) + settings + "\n"
}

/// Database `plain` on servers of one test.
pub struct OwnDatabase {
    pub keyway: KeywayProcess,
    pub servers: OwnShard,
}

impl OwnDatabase {
    /// `settings` are lines of the database's table in the configuration. Returns when `schema` is on the replicas and in
    /// Keyway's catalog: before that, a statement may leave anything on its server.
    pub async fn start(
        harness: &Shared,
        replicas: usize,
        settings: &str,
        schema: &str,
    ) -> Fallible<OwnDatabase> {
        let servers = harness.fresh_shard(replicas).await?;
        servers.shard.primary.create_database(SingleFixture::DATABASE, shop::USER, APP_PASSWORD).await?;
        let config = |listen: &str, admin: &str| own_config(&servers.shard, listen, admin, settings);
        let keyway = harness.start_keyway(config).await?;
        let own = OwnDatabase { keyway, servers };
        run(&own.client().await?, schema).await?;
        own.servers.shard.wait_until_replayed().await?;
        own.keyway.until_catalog_is_known(SingleFixture::DATABASE).await?;
        Ok(own)
    }

    pub async fn client(&self) -> Fallible<Client> {
        connect(&self.keyway.url(shop::USER, APP_PASSWORD, SingleFixture::DATABASE)).await
    }

    pub async fn console(&self) -> Fallible<Client> {
        connect(&self.keyway.url(shop::USER, APP_PASSWORD, "keyway")).await
    }
}
