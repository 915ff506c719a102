//! The probers of one shard in the test's own process, so that a test compares their times with its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::auth::{Credentials, Derivation};
use keyway::backend::BackendSpec;
use keyway::base::Role;
use keyway::config::{Config, Database, Secret, ServerAuth};
use keyway::demo::postgres::Shard;
use keyway::demo::shop::USER;
use keyway::metrics::{LimitHits, Registry};
use keyway::net::{Connector, Connectors, Lookup, TlsMetrics};
use keyway::route::{Cluster, Server};
use keyway::topology::{ProbeSpec, Topology, TopologyMetricFamilies};
use tokio::sync::watch;
use tokio::time::sleep;

use super::fixture::servers_config;
use super::{APP_PASSWORD, Fallible, SingleFixture};

const TIMEOUT: Duration = Duration::from_secs(30);

/// They end when this is dropped.
pub struct Watched {
    pub topology: Arc<Topology>,
    pub registry: Registry,
    addresses: Vec<String>,
    spec: ProbeSpec,
    families: TopologyMetricFamilies,
    running: watch::Sender<bool>,
}

impl Watched {
    pub async fn start(shard: &Shard) -> Fallible<Watched> {
        let addresses: Vec<String> = shard.servers().map(|it| it.address()).collect();
        Watched::at(&addresses, Duration::from_millis(20), "").await
    }

    /// Names are looked up in the ordinary way.
    pub async fn at(addresses: &[String], interval: Duration, settings: &str) -> Fallible<Watched> {
        Watched::by(addresses, interval, settings, Lookup::of_system()).await
    }

    /// `settings` are lines of the database's table in the configuration.
    pub async fn by(
        addresses: &[String],
        interval: Duration,
        settings: &str,
        lookup: Lookup,
    ) -> Fallible<Watched> {
        let database = database(addresses, settings)?;
        let (running, stopping) = watch::channel(false);
        let registry = Registry::default();
        let connector = Connector::new(&database.server_tls, TlsMetrics::register(&registry)?)?;
        let spec = ProbeSpec {
            backend: BackendSpec {
                host: "".into(),
                port: 0,
                user: USER.into(),
                credentials: Arc::new(Credentials::new(
                    Secret::parse(APP_PASSWORD),
                    [0; 16],
                    Derivation::new(1),
                )),
                server_auth: ServerAuth::default(),
                tls: Arc::new(Connectors::new(connector)),
                database: SingleFixture::DATABASE.into(),
                application_name: None,
                connect_timeout: TIMEOUT,
                message_bytes_max: 65_536,
                holders: Default::default(),
                statements: keyway::proto::StatementBounds { count_max: 8, bytes_max: 1 << 20 },
            },
            interval,
            timeout: Duration::from_millis(500),
            dns_interval: database.probe.dns_interval,
            lookup,
            patroni: None,
        };
        let families = TopologyMetricFamilies::register(&registry, &LimitHits::register(&registry)?)?;
        let topology = Topology::start(&database, &spec, &families, &stopping, None);
        Ok(Watched { topology, registry, addresses: addresses.to_owned(), spec, families, running })
    }

    /// As when the configuration is read again, with other settings.
    pub fn reload(&mut self, settings: &str) -> Fallible<()> {
        let database = database(&self.addresses, settings)?;
        let (stopping, before) = (self.running.subscribe(), self.topology.clone());
        self.topology = Topology::start(&database, &self.spec, &self.families, &stopping, Some(&before));
        Ok(())
    }

    /// What is known of a server now, by its place in the configuration.
    pub fn server(&self, index: usize) -> Server {
        self.topology.snapshot().shards[0].servers[index].clone()
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) -> Fallible<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !holds(&self.topology.snapshot()) {
            if Instant::now() > deadline {
                return Err(format!("not within {TIMEOUT:?}: {what}: {:#?}", self.topology.snapshot()).into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    pub async fn until_roles(&self, roles: &[Option<Role>]) -> Fallible<()> {
        let of = |it: &Cluster| it.shards[0].servers.iter().map(|it| it.role).collect::<Vec<_>>();
        self.until(&format!("{roles:?}"), |it| of(it) == roles).await
    }
}

fn database(addresses: &[String], settings: &str) -> Fallible<Database> {
    let text = servers_config(addresses, "127.0.0.1:1", "127.0.0.1:2") + settings;
    let config = Config::parse(&text, Path::new("."), &|_| None).map_err(|it| format!("{it:?}"))?;
    Ok(config.databases.into_iter().next().ok_or("no database")?)
}
