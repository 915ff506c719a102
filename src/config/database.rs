//! [databases.NAME]: shards, maps, tables.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::document::{Section, shown};
use super::login;
use super::protection;
use super::replicas;
use super::settings::{self, Setting};
use super::tls;
use super::user::{self, check_name};
use super::{
    Address, Catalog, CrossShardWrites, Database, Pool, PoolMode, Probe, ShardServers, User, map, table,
};

const POSTGRES_PORT: u16 = 5432;

/// `route::Excluded` has a bit for each.
const SERVERS_MAX: usize = 64;
const SHARDS_MAX: usize = 1024;

/// The servers of a database and where each was named.
type Seen = BTreeMap<Address, usize>;

pub fn databases(top: &Section<'_>, users: &[User], directory: &Path) -> Vec<Database> {
    let section = top.section(settings::DATABASES_SECTION.key, "databases");
    if section.entries().is_empty() {
        section.add(
            section.offset,
            "no database is configured",
            "[databases.NAME] with servers = [\"host:port\"]",
        );
    }
    section
        .entries()
        .into_iter()
        .map(|(name, _)| {
            let path = format!("databases.{name}");
            database(&section.section(name, &path), name, users, directory)
        })
        .collect()
}

fn database(section: &Section<'_>, name: &str, users: &[User], directory: &Path) -> Database {
    section.check_keys(settings::DATABASE);
    check_name(section, section.offset, "database", name);
    if super::CONSOLE_DATABASES.contains(&name) {
        let message = format!("database `{name}` would hide the console");
        let instead = format!("another name, with dbname = \"{name}\"");
        section.add(section.offset, message, instead);
    }
    let dbname = section.text(&settings::DBNAME);
    if let Some((dbname, offset)) = dbname {
        check_name(section, offset, "database", dbname);
    }
    let probe = probe(section, users);
    let shards = shards(section, name);
    let maps = map::maps(section, &shards);
    let (tables, table_protection) = table::tables(section, &maps, &shards);
    let (schemas, default_shard) = (table::schemas(section, &shards), table::default_shard(section, &shards));
    Database {
        name: name.to_owned(),
        dbname: dbname.map_or(name, |it| it.0).to_owned(),
        pool: pool(section, name),
        replicas: replicas::replicas(section, name),
        max_lag: max_lag(section, probe.interval),
        probe,
        catalog: catalog(section),
        server_auth: login::server_auth(section),
        server_tls: tls::servers(section, directory),
        auth_query: login::auth_query(section, users),
        clients_max: section.optional_count(&settings::DATABASE_CLIENTS_MAX),
        server_connections_max: section.optional_count(&settings::DATABASE_CONNECTIONS_MAX),
        replication_connections_max: section.count(&settings::REPLICATION_CONNECTIONS_MAX),
        failover_hold: section.duration(&settings::FAILOVER_HOLD).unwrap_or_default(),
        failover_queue: section.count(&settings::FAILOVER_QUEUE),
        pool_mode: pool_mode(section, name, shards.len(), users),
        consistency: user::consistency(section, &settings::CONSISTENCY).unwrap_or_default(),
        cross_shard_writes: cross_shard_writes(section),
        cross_shard_lock_timeout: section.duration(&settings::CROSS_SHARD_LOCK_TIMEOUT),
        maps: maps.into_iter().map(|it| it.1).collect(),
        shards,
        tables,
        protection: protection::protection(section, name),
        table_protection,
        schemas,
        default_shard,
    }
}

/// A session cannot be on several shards.
fn pool_mode(section: &Section<'_>, name: &str, shards: usize, users: &[User]) -> PoolMode {
    let mode = user::pool_mode(section, &settings::POOL_MODE).unwrap_or_default();
    if shards < 2 {
        return mode;
    }
    let instead = "pool_mode = \"session\" in databases of one shard alone";
    let message = format!("database `{name}` has several shards");
    if mode == PoolMode::Session {
        let offset = section.get(settings::POOL_MODE.key).map_or(section.offset, |it| it.span().start);
        section.add(offset, format!("`pool_mode` is \"session\" and {message}"), instead);
    }
    for user in users.iter().filter(|it| it.pool_mode == Some(PoolMode::Session)) {
        let message = format!("`pool_mode` of user `{}` is \"session\" and {message}", user.name);
        section.add(section.offset, message, instead);
    }
    mode
}

fn cross_shard_writes(section: &Section<'_>) -> CrossShardWrites {
    let Some((text, offset)) = section.text(&settings::CROSS_SHARD_WRITES) else {
        return CrossShardWrites::default();
    };
    match text {
        "refuse" => CrossShardWrites::Refuse,
        "one_phase" => CrossShardWrites::OnePhase,
        other => {
            let instead = "cross_shard_writes = \"refuse\" or \"one_phase\"";
            section.add(offset, format!("`cross_shard_writes` is \"{other}\""), instead);
            CrossShardWrites::default()
        }
    }
}

fn pool(section: &Section<'_>, name: &str) -> Pool {
    let path = format!("databases.{name}.pool");
    let it = section.section(settings::POOL_SECTION.key, &path);
    it.check_keys(settings::POOL);
    let duration = |setting: &Setting| it.duration(setting).unwrap_or_default();
    Pool {
        size: it.count(&settings::SIZE),
        waiters_max: it.count(&settings::WAITERS_MAX),
        wait_timeout: duration(&settings::WAIT_TIMEOUT),
        connect_timeout: duration(&settings::CONNECT_TIMEOUT),
        idle_timeout: duration(&settings::IDLE_TIMEOUT),
        lifetime: duration(&settings::LIFETIME),
        ramp: it.count(&settings::RAMP),
    }
}

/// Lag includes the age of the samples, so that one below their interval could be met by luck alone.
fn max_lag(section: &Section<'_>, interval: Duration) -> Duration {
    let max_lag = section.duration(&settings::MAX_LAG).unwrap_or_default();
    if max_lag < interval {
        let named = [&settings::MAX_LAG, &settings::PROBE_INTERVAL].iter().find_map(|it| section.get(it.key));
        section.add(
            named.map_or(section.offset, |it| it.span().start),
            "`max_lag` is below `probe_interval`: no replica could show that it meets it",
            "a `max_lag` of at least twice the `probe_interval`",
        );
    }
    max_lag
}

fn probe(section: &Section<'_>, users: &[User]) -> Probe {
    let user = match login::own_user(section, &settings::PROBE_USER, users) {
        Some(name) => name,
        None => match users.iter().find(|it| login::may_log_in_alone(it)) {
            Some(first) => &first.name,
            None => {
                if !users.is_empty() && !section.has(settings::PROBE_USER.key) {
                    let message = "no user can watch the servers: of none the password itself is known";
                    section.add(section.offset, message, "probe_user = a user with a password");
                }
                ""
            }
        },
    };
    Probe {
        user: user.to_owned(),
        interval: section.duration(&settings::PROBE_INTERVAL).unwrap_or_default(),
        timeout: section.duration(&settings::PROBE_TIMEOUT).unwrap_or_default(),
        dns_interval: section.duration(&settings::DNS_INTERVAL),
    }
}

fn catalog(section: &Section<'_>) -> Catalog {
    Catalog {
        interval: section.duration(&settings::CATALOG_INTERVAL).unwrap_or_default(),
        timeout: section.duration(&settings::CATALOG_TIMEOUT).unwrap_or_default(),
        wait: section.duration(&settings::CATALOG_WAIT).unwrap_or_default(),
        rows_max: section.count(&settings::CATALOG_ROWS_MAX),
    }
}

fn shards(section: &Section<'_>, name: &str) -> Vec<ShardServers> {
    let mut seen = Seen::new();
    let shards = match (section.has(settings::SERVERS.key), section.has(settings::SHARDS_SECTION.key)) {
        (true, false) => vec![servers(section, "main", &mut seen)],
        (false, true) => {
            let path = format!("databases.{name}.shards");
            let all = section.section(settings::SHARDS_SECTION.key, &path);
            all.entries()
                .into_iter()
                .map(|(shard, _)| {
                    let path = format!("databases.{name}.shards.{shard}");
                    let it = all.section(shard, &path);
                    it.check_keys(settings::SHARD);
                    servers(&it, shard, &mut seen)
                })
                .collect()
        }
        (true, true) => {
            section.add(
                section.offset,
                format!("database `{name}` has both `servers` and `shards`"),
                "one of them",
            );
            Vec::new()
        }
        (false, false) => Vec::new(),
    };
    if shards.len() > SHARDS_MAX {
        let message = format!("database `{name}` has {} shards", shards.len());
        section.add(section.offset, message, format!("at most {SHARDS_MAX} shards"));
    }
    if shards.is_empty() && !(section.has(settings::SERVERS.key) && section.has(settings::SHARDS_SECTION.key))
    {
        let instead = format!("servers = [\"host:port\"], or [databases.{name}.shards.NAME]");
        section.add(section.offset, format!("database `{name}` has no servers"), instead);
    }
    shards
}

/// A server named twice would count double, or be the primary of two shards.
fn servers(section: &Section<'_>, name: &str, seen: &mut Seen) -> ShardServers {
    let mut found = ShardServers {
        name: name.to_owned(),
        servers: Vec::new(),
        preferences: Vec::new(),
        patroni: Vec::new(),
    };
    let Some(value) = section.get(settings::SERVERS.key) else {
        section.add(
            section.offset,
            format!("no `servers` in [{}]", section.path),
            "servers = [\"host:port\"]",
        );
        return found;
    };
    let Some(list) = value.get_ref().as_array() else {
        section.wrong_kind(&settings::SERVERS, value, "[\"host:port\", ...]");
        return found;
    };
    if list.is_empty() || list.len() > SERVERS_MAX {
        let message = format!("`servers` has {} servers", list.len());
        section.add(value.span().start, message, format!("1 to {SERVERS_MAX} servers"));
    }
    for entry in list.iter() {
        let offset = entry.span().start;
        let server = replicas::server(section, entry);
        match server.address.and_then(|it| address(it, POSTGRES_PORT)) {
            None => section.add(
                offset,
                format!("{} is no server", shown(entry)),
                "\"host:port\", an IPv6 address in brackets, or { address = \"host:port\", weight = 2, zone = \"a\" }",
            ),
            Some(it) => match seen.get(&it) {
                Some(first) => {
                    let line = section.findings.line(*first);
                    let message = format!("server {it} stands twice in this database, first in line {line}");
                    section.add(offset, message, "each server once");
                }
                None => {
                    seen.insert(it.clone(), offset);
                    found.servers.push(it);
                    found.preferences.push(server.preference);
                    found.patroni.push(server.patroni);
                }
            },
        }
    }
    found
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`.
pub(super) fn address(text: &str, default_port: u16) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(default_port), |it| it.parse().ok().filter(|it| *it > 0))?;
    let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_' | ':');
    let valid = !host.is_empty() && host.chars().all(allowed);
    valid.then(|| Address { host: host.to_ascii_lowercase(), port })
}
