//! The configuration as a list of keys and values, for people who look at a running process. Secrets are no part
//! of it.

use std::fmt::Display;
use std::time::Duration;

use super::settings::{self, Kind, Setting};
use super::{
    Auth, ClientTls, Config, CrossShardWrites, Dashboard, Database, Limits, Log, PoolMode, Secret, ServerTls,
    ShardServers, Tracing, User,
};

/// One key with its section in front: `limits.clients_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub value: String,
    pub default: Option<String>,
    /// By a reload.
    pub changeable: bool,
}

impl Auth {
    pub fn label(self) -> &'static str {
        match self {
            Auth::Scram => "scram",
            Auth::Md5 => "md5",
            Auth::Password => "password",
            Auth::Trust => "trust",
            Auth::Cert => "cert",
        }
    }
}

impl PoolMode {
    pub fn label(self) -> &'static str {
        match self {
            PoolMode::Transaction => "transaction",
            PoolMode::Session => "session",
        }
    }
}

impl CrossShardWrites {
    pub fn label(self) -> &'static str {
        match self {
            CrossShardWrites::Refuse => "refuse",
            CrossShardWrites::OnePhase => "one_phase",
        }
    }
}

/// How a value is written in the file.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "off".to_owned(), Shown::shown)
    }
}

/// All fields have to be named, so that a new one is not left out.
macro_rules! list {
    ($list:ident, $path:expr, $settings:expr, $type:ident, $of:expr; $($field:ident)*) => {{
        let $type { $($field),* } = $of;
        $($list.put($path, $settings, stringify!($field), $field.shown());)*
    }};
}

impl Config {
    /// In the order of the file's reference.
    pub fn listed(&self) -> Vec<Listed> {
        let Config {
            listen,
            admin,
            dashboard,
            workers,
            instance,
            peers,
            tls,
            limits,
            users,
            databases,
            console,
            hotspots,
            log,
            tracing,
        } = self;
        let mut list = List::default();
        list.put("", settings::TOP, "listen", listen.to_string());
        list.put("", settings::TOP, "admin", admin.to_string());
        list.put("", settings::TOP, "workers", workers.to_string());
        list.put("", settings::TOP, "instance", instance.map(usize::from).shown());
        list.0.iter_mut().for_each(|it| it.changeable = false);
        let Dashboard { admin_token, redact_keys, admin_streams_max } = dashboard;
        list.put("", &[], "admin_token", given(admin_token.is_some()));
        list.put("", settings::TOP, "redact_keys", redact_keys.to_string());
        list.put("", settings::TOP, "admin_streams_max", admin_streams_max.to_string());
        list.put("", settings::TOP, "peers", names(peers));
        list.put("", settings::TOP, "admin_users", names(&console.admin_users));
        list.put("", settings::TOP, "stats_users", names(&console.stats_users));
        list.put("", settings::TOP, "hotspots", hotspots.hotspots.to_string());
        let history = hotspots
            .hotspot_history
            .as_ref()
            .map_or_else(|| "none".to_owned(), |it| it.display().to_string());
        list.put("", settings::TOP, "hotspot_history", history);
        list_telemetry(&mut list, log, tracing);
        list_client_tls(&mut list, tls);
        list_limits(&mut list, limits);
        users.iter().for_each(|it| list_user(&mut list, it));
        databases.iter().for_each(|it| list_database(&mut list, it));
        list.0
    }
}

fn names(of: &[impl Display]) -> String {
    of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The files are told by what they are for: their contents are in force, whatever their names.
fn given(is_given: bool) -> String {
    if is_given { "given" } else { "none" }.to_owned()
}

fn list_telemetry(list: &mut List, log: &Log, tracing: &Tracing) {
    let Log { format, slow_statement, slow_statements_max } = log;
    list.put("log.", settings::LOG, "format", format.label().to_owned());
    list.0.iter_mut().rev().take(1).for_each(|it| it.changeable = false);
    list.put("log.", settings::LOG, "slow_statement", slow_statement.shown());
    list.put("log.", settings::LOG, "slow_statements_max", slow_statements_max.shown());
    let Tracing { otlp_endpoint, sample_ratio, spans_max } = tracing;
    let endpoint = otlp_endpoint.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string);
    list.put("tracing.", settings::TRACING, "otlp_endpoint", endpoint);
    list.put("tracing.", settings::TRACING, "sample_ratio", sample_ratio.to_string());
    list.put("tracing.", settings::TRACING, "spans_max", spans_max.shown());
}

fn list_client_tls(list: &mut List, tls: &ClientTls) {
    let ClientTls { mode, identity, authorities, min_version } = tls;
    list.put("tls.", settings::TLS, "mode", mode.label().to_owned());
    list.put("tls.", &[], "cert", given(identity.is_some()));
    list.put("tls.", &[], "ca", given(authorities.is_some()));
    list.put("tls.", settings::TLS, "min_version", min_version.label().to_owned());
}

fn list_server_tls(list: &mut List, path: &str, tls: &ServerTls) {
    let ServerTls { mode, authorities, identity, is_direct } = tls;
    list.put(path, settings::DATABASE, "server_tls", mode.label().to_owned());
    list.put(path, &[], "server_ca", given(authorities.is_some()));
    list.put(path, &[], "server_cert", given(identity.is_some()));
    let negotiation = if *is_direct { "direct" } else { "postgres" };
    list.put(path, settings::DATABASE, "server_tls_negotiation", negotiation.to_owned());
}

fn list_limits(list: &mut List, limits: &Limits) {
    list!(list, "limits.", settings::LIMITS, Limits, limits;
        clients_max login_timeout logins_max cancels_max server_connections_max server_logins_max
        message_bytes_max statements_max statement_bytes_max merge_bytes_max server_statements_max
        server_statement_bytes_max plans_max client_idle_timeout
        idle_in_transaction_timeout aborted_transaction_timeout unfinished_timeout query_timeout
        cancel_timeout transaction_timeout channels_max notification_bytes_max shutdown_timeout buffers_max);
}

fn list_user(list: &mut List, user: &User) {
    let User { name, auth, password, clients_max, server_connections_max, pool_mode, consistency } = user;
    let path = format!("users.{name}.");
    // What kind it is, and never what it is.
    let kind = match password {
        None => "none",
        Some(Secret::Plain(_)) => "given",
        Some(Secret::Md5(_)) => "given as an MD5 digest",
        Some(Secret::Scram(_)) => "given as a SCRAM verifier",
    };
    list.put(&path, &[], "password", kind.to_owned());
    list.put(&path, settings::USER, "auth", auth.label().to_owned());
    list.put(&path, settings::USER, "clients_max", clients_max.shown());
    list.put(&path, settings::USER, "server_connections_max", server_connections_max.shown());
    if let Some(it) = consistency {
        list.put(&path, settings::USER, "consistency", it.label().to_owned());
    }
    if let Some(it) = pool_mode {
        list.put(&path, settings::USER, "pool_mode", it.label().to_owned());
    }
}

fn list_servers(list: &mut List, path: &str, shard: &ShardServers) {
    list.put(path, &[], &format!("shards.{}.servers", shard.name), names(&shard.servers));
    let patroni: Vec<_> = shard.patroni.iter().flatten().collect();
    if !patroni.is_empty() {
        list.put(path, &[], &format!("shards.{}.patroni", shard.name), names(&patroni));
    }
}

fn list_database(list: &mut List, database: &Database) {
    let Database {
        name,
        dbname,
        shards,
        pool,
        replicas,
        max_lag,
        probe,
        catalog,
        server_auth,
        server_tls,
        auth_query,
        clients_max,
        server_connections_max,
        replication_connections_max,
        failover_hold,
        failover_queue,
        pool_mode,
        consistency,
        cross_shard_writes,
        cross_shard_lock_timeout,
        maps,
        tables,
        protection,
        table_protection,
        schemas,
        default_shard,
    } = database;
    let (path, of) = (format!("databases.{name}."), settings::DATABASE);
    shards.iter().for_each(|it| list_servers(list, &path, it));
    list.put(&path, of, "dbname", dbname.clone());
    list.put(&path, of, "max_lag", max_lag.shown());
    list.put(&path, of, "probe_user", probe.user.clone());
    list.put(&path, of, "probe_interval", probe.interval.shown());
    list.put(&path, of, "probe_timeout", probe.timeout.shown());
    list.put(&path, of, "dns_interval", probe.dns_interval.shown());
    list.put(&path, of, "catalog_interval", catalog.interval.shown());
    list.put(&path, of, "catalog_timeout", catalog.timeout.shown());
    list.put(&path, of, "catalog_wait", catalog.wait.shown());
    list.put(&path, of, "catalog_rows_max", catalog.rows_max.shown());
    list.put(&path, of, "server_auth", methods(*server_auth));
    list_server_tls(list, &path, server_tls);
    if let Some(it) = auth_query {
        list.put(&path, of, "auth_user", it.user.clone());
        list.put(&path, of, "auth_query", it.text.clone());
        list.put(&path, of, "auth_query_method", it.method.label().to_owned());
        list.put(&path, of, "auth_query_timeout", it.timeout.shown());
        list.put(&path, of, "auth_query_lifetime", it.lifetime.shown());
        list.put(&path, of, "auth_query_users_max", it.users_max.shown());
    }
    list.put(&path, of, "clients_max", clients_max.shown());
    list.put(&path, of, "server_connections_max", server_connections_max.shown());
    list.put(&path, of, "replication_connections_max", replication_connections_max.shown());
    list.put(&path, of, "failover_hold", failover_hold.shown());
    list.put(&path, of, "failover_queue", failover_queue.shown());
    list.put(&path, of, "pool_mode", pool_mode.label().to_owned());
    list.put(&path, of, "consistency", consistency.label().to_owned());
    list.put(&path, of, "cross_shard_writes", cross_shard_writes.label().to_owned());
    list.put(&path, of, "cross_shard_lock_timeout", cross_shard_lock_timeout.shown());
    list.put(&path, &[], "maps", names(&maps.iter().map(|it| it.name.as_str()).collect::<Vec<_>>()));
    list.put(&path, &[], "tables", tables.len().to_string());
    list.put(&path, &[], "schemas", names(&schemas.keys().collect::<Vec<_>>()));
    let shard = default_shard.and_then(|it| shards.get(usize::from(it.0)));
    list.put(&path, of, "default_shard", shard.map_or("none", |it| &it.name).to_owned());
    list_pool(list, &format!("{path}pool."), pool);
    list_replicas(list, &format!("{path}replicas."), replicas);
    list_protection(list, &format!("{path}protection."), protection);
    for (table, it) in table_protection {
        list_table_protection(list, &format!("{path}tables.{table}."), *it);
    }
}

fn methods(server_auth: super::ServerAuth) -> String {
    let methods =
        [("scram", server_auth.scram), ("md5", server_auth.md5), ("password", server_auth.password)];
    methods.iter().filter(|it| it.1).map(|it| it.0).collect::<Vec<_>>().join(", ")
}

fn list_replicas(list: &mut List, path: &str, replicas: &super::Replicas) {
    let super::Replicas { zone, zone_penalty, slow_start, when_stale, primary_read_share } = replicas;
    let of = settings::REPLICAS;
    list.put(path, of, "zone", zone.clone().unwrap_or_else(|| "none".to_owned()));
    list.put(path, of, "zone_penalty", zone_penalty.shown());
    list.put(path, of, "slow_start", slow_start.shown());
    list.put(path, of, "when_stale", when_stale.label().to_owned());
    list.put(path, of, "primary_read_share", primary_read_share.to_string());
}

fn list_protection(list: &mut List, path: &str, protection: &super::Protection) {
    let super::Protection { hot_share, dry_run, .. } = protection;
    let of = settings::PROTECTION;
    list.put(path, of, "hot_share", hot_share.map_or_else(|| "off".to_owned(), |it| it.to_string()));
    list.put(path, of, "hot_writes_at_once", protection.hot_writes_at_once.shown());
    list.put(path, of, "write_queue_max", protection.write_queue_max.shown());
    list.put(path, of, "dry_run", dry_run.to_string());
    list.put(path, of, "shared_reply_bytes_max", protection.shared_reply_bytes_max.shown());
    list.put(path, of, "cache_bytes_max", protection.cache_bytes_max.shown());
}

fn list_table_protection(list: &mut List, path: &str, protection: super::TableProtection) {
    let super::TableProtection { share_reads, cache_ttl, writes_at_once } = protection;
    list.put(path, settings::TABLE, "share_reads", share_reads.to_string());
    list.put(path, settings::TABLE, "cache_ttl", cache_ttl.shown());
    list.put(path, settings::TABLE, "writes_at_once", writes_at_once.shown());
}

fn list_pool(list: &mut List, path: &str, pool: &super::Pool) {
    use super::Pool;
    list!(list, path, settings::POOL, Pool, pool;
        size waiters_max wait_timeout connect_timeout idle_timeout lifetime ramp);
}

#[derive(Default)]
struct List(Vec<Listed>);

impl List {
    /// The default is that of the setting which has this key.
    fn put(&mut self, path: &str, settings: &[&Setting], key: &str, value: String) {
        let setting = settings.iter().find(|it| it.key == key);
        let default = setting.map(|it| match &it.kind {
            Kind::Count { default, .. } => default.to_string(),
            Kind::OptionalCount { .. } => "off".to_owned(),
            Kind::Duration { default, .. } | Kind::Other { default, .. } => (*default).to_owned(),
        });
        self.0.push(Listed { key: format!("{path}{key}"), value, default, changeable: true });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn everything_is_listed_but_secrets() {
        let text = "
            admin_users = ['app']
            [users.app]
            password = 'very secret'
            [users.old]
            password = 'md5a3556571e93b0d20722ba62be61e8c2d'
            auth = 'md5'
            [databases.shop]
            servers = ['db1:5432', '[::1]:6432']
            clients_max = 7
            [databases.shop.pool]
            lifetime = '90m'
            ";
        let listed = Config::parse(text, Path::new("."), &|_| None).unwrap().listed();
        let of = |key: &str| listed.iter().find(|it| it.key == key).unwrap_or_else(|| panic!("{key}"));
        assert_eq!(of("listen").value, "127.0.0.1:6432");
        assert!(!of("listen").changeable && of("admin_users").changeable);
        assert_eq!(of("admin_users").value, "app");
        assert_eq!(of("limits.clients_max").default.as_deref(), Some("10000"));
        assert_eq!(of("users.app.password").value, "given");
        assert_eq!(of("users.old.password").value, "given as an MD5 digest");
        assert_eq!(of("users.old.auth").value, "md5");
        assert_eq!(of("databases.shop.shards.main.servers").value, "db1:5432, [::1]:6432");
        assert_eq!(of("databases.shop.clients_max").value, "7");
        assert_eq!(of("databases.shop.server_connections_max").value, "off");
        assert_eq!(of("databases.shop.pool.lifetime").value, "1h 30m");
        assert!(!format!("{listed:?}").contains("secret") && !format!("{listed:?}").contains("a3556571"));
        assert_eq!(listed.iter().filter(|it| it.key.starts_with("limits.")).count(), settings::LIMITS.len());
    }
}
