//! What differs between two configurations: what a reload has to do, and what it tells.

use std::collections::BTreeMap;
use std::fmt;

use super::{
    ClientTls, Config, Console, Dashboard, Database, HotspotTerms, Limits, Log, Pool, Tracing, User,
};

/// From one configuration to the next. Empty where both say the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys that hold from start to end of a process; the new values wait for a restart.
    pub restart: Vec<&'static str>,
    /// Keys at the top of the file that hold at once.
    pub top: Vec<&'static str>,
    /// Keys of `[tls]`, or what is in their files.
    pub tls: Vec<&'static str>,
    /// Keys of `[limits]`.
    pub limits: Vec<&'static str>,
    pub users: BTreeMap<String, Change>,
    pub databases: BTreeMap<String, Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Removed,
    /// Which of its parts: keys and sections of the file.
    Changed(Vec<&'static str>),
}

/// The names of the fields that differ. All fields have to be named, so that a new one cannot be left out.
macro_rules! differing {
    ($type:ident, $before:expr, $after:expr; $($field:ident)*) => {{
        let $type { $($field),* } = $before;
        let mut names = Vec::new();
        $(if *$field != $after.$field { names.push(stringify!($field)); })*
        names
    }};
}

impl Difference {
    pub fn between(before: &Config, after: &Config) -> Difference {
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
        } = before;
        let restart = [
            ("listen", *listen != after.listen),
            ("admin", *admin != after.admin),
            ("workers", *workers != after.workers),
            ("instance", *instance != after.instance),
            ("log.format", log.format != after.log.format),
        ];
        let mut top = differing!(Console, console, after.console; admin_users stats_users);
        top.extend(
            differing!(Dashboard, dashboard, after.dashboard; admin_token redact_keys admin_streams_max),
        );
        top.extend(differing!(HotspotTerms, hotspots, after.hotspots; hotspots hotspot_history));
        top.extend((*peers != after.peers).then_some("peers"));
        let told = differing!(Log, log, after.log; format slow_statement slow_statements_max);
        top.extend(told.into_iter().filter(|it| *it != "format"));
        top.extend(differing!(Tracing, tracing, after.tracing; otlp_endpoint sample_ratio spans_max));
        Difference {
            restart: restart.into_iter().filter(|it| it.1).map(|it| it.0).collect(),
            top,
            tls: differing!(ClientTls, tls, after.tls; mode identity authorities min_version),
            limits: of_limits(limits, &after.limits),
            users: changes(users, &after.users, |it| &it.name, of_user),
            databases: changes(databases, &after.databases, |it| &it.name, of_database),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Difference::default()
    }
}

/// By name: what only one side has, and what both have and is not the same.
fn changes<T>(
    before: &[T],
    after: &[T],
    name: impl Fn(&T) -> &String,
    differing: impl Fn(&T, &T) -> Vec<&'static str>,
) -> BTreeMap<String, Change> {
    let find = |list: &[T], wanted: &String| list.iter().position(|it| name(it) == wanted);
    let mut changes = BTreeMap::new();
    for it in before {
        let change = match find(after, name(it)) {
            None => Change::Removed,
            Some(at) => match differing(it, &after[at]) {
                same if same.is_empty() => continue,
                parts => Change::Changed(parts),
            },
        };
        changes.insert(name(it).clone(), change);
    }
    let added = after.iter().filter(|it| find(before, name(it)).is_none());
    changes.extend(added.map(|it| (name(it).clone(), Change::Added)));
    changes
}

fn of_limits(before: &Limits, after: &Limits) -> Vec<&'static str> {
    differing!(Limits, before, after;
        clients_max login_timeout logins_max cancels_max server_connections_max server_logins_max
        message_bytes_max statements_max statement_bytes_max merge_bytes_max server_statements_max
        server_statement_bytes_max plans_max client_idle_timeout
        idle_in_transaction_timeout aborted_transaction_timeout unfinished_timeout query_timeout
        cancel_timeout transaction_timeout channels_max notification_bytes_max shutdown_timeout buffers_max)
}

fn of_user(before: &User, after: &User) -> Vec<&'static str> {
    differing!(User, before, after; name auth password clients_max server_connections_max pool_mode consistency)
}

fn of_database(before: &Database, after: &Database) -> Vec<&'static str> {
    let mut parts = differing!(Database, before, after;
        name dbname shards pool replicas max_lag probe catalog server_auth server_tls auth_query clients_max
        server_connections_max replication_connections_max failover_hold failover_queue pool_mode consistency
        cross_shard_writes cross_shard_lock_timeout maps tables protection table_protection schemas default_shard);
    if let Some(at) = parts.iter().position(|it| *it == "pool") {
        parts.splice(at..=at, of_pool(&before.pool, &after.pool));
    }
    parts
}

fn of_pool(before: &Pool, after: &Pool) -> Vec<&'static str> {
    let inside = differing!(Pool, before, after;
        size waiters_max wait_timeout connect_timeout idle_timeout lifetime ramp);
    inside
        .into_iter()
        .map(|it| match it {
            "size" => "pool.size",
            "waiters_max" => "pool.waiters_max",
            "wait_timeout" => "pool.wait_timeout",
            "connect_timeout" => "pool.connect_timeout",
            "idle_timeout" => "pool.idle_timeout",
            "lifetime" => "pool.lifetime",
            _ => "pool.ramp",
        })
        .collect()
}

/// One line for the log: `limits: clients_max; database shop: shards, maps; user bob removed`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = Vec::new();
        told.extend(self.top.iter().map(|it| (*it).to_owned()));
        if !self.tls.is_empty() {
            told.push(format!("tls: {}", self.tls.join(", ")));
        }
        if !self.limits.is_empty() {
            told.push(format!("limits: {}", self.limits.join(", ")));
        }
        let named = [("database", &self.databases), ("user", &self.users)];
        for (what, changes) in named {
            told.extend(changes.iter().map(|(name, change)| match change {
                Change::Added => format!("{what} {name} added"),
                Change::Removed => format!("{what} {name} removed"),
                Change::Changed(parts) => format!("{what} {name}: {}", parts.join(", ")),
            }));
        }
        if !self.restart.is_empty() {
            told.push(format!("after a restart: {}", self.restart.join(", ")));
        }
        f.write_str(if told.is_empty() { "nothing changed" } else { "" })?;
        f.write_str(&told.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BEFORE: &str = "
        [users.app]
        password = 'a'
        [users.other]
        password = 'b'
        [databases.shop.shards.s1]
        servers = ['db1:5432', 'db2:5432']
        [databases.shop.shards.s2]
        servers = ['db3:5432']
        [databases.shop.maps.by_user]
        kind = 'hash'
        type = 'bigint'
        slots = 4
        assign = [{ slots = '0-1', shard = 's1' }, { slots = '2-3', shard = 's2' }]
        [databases.shop.tables.users]
        map = 'by_user'
        key = 'id'
        [databases.plain]
        servers = ['db4:5432']
        [databases.plain.pool]
        size = 3
        ";

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("."), &|_| None).unwrap()
    }

    fn check(from: &str, to: &str, expect: &str) {
        assert!(BEFORE.contains(from), "{from}");
        let after = BEFORE.replace(from, to);
        let difference = Difference::between(&config(BEFORE), &config(&after));
        assert_eq!(difference.to_string(), expect, "{from} -> {to}");
        assert_eq!(difference.is_empty(), expect == "nothing changed");
    }

    #[test]
    fn each_part_is_named() {
        check("size = 3", "size = 3 # spare", "nothing changed");
        check("[users.app]", "stats_users = ['other']\n[users.app]", "stats_users");
        check("password = 'a'", "password = 'A'", "user app: password");
        check("[users.other]\n", "[users.new]\n", "user new added; user other removed");
        check("'db2:5432'", "'db2:5432', 'db5:5432'", "database shop: shards");
        check(
            "'0-1', shard = 's1' }, { slots = '2-3'",
            "'0-2', shard = 's1' }, { slots = '3'",
            "database shop: maps",
        );
        check("key = 'id'", "key = 'user_id'", "database shop: tables");
        check("size = 3", "size = 4\nlifetime = '2h'", "database plain: pool.size, pool.lifetime");
        check("databases.plain", "databases.simple", "database plain removed; database simple added");
        check(
            "[users.app]",
            "listen = '127.0.0.1:1'\nworkers = 2\n[limits]\nclients_max = 7\n[users.app]",
            "limits: clients_max; after a restart: listen, workers",
        );
        check(
            "servers = ['db4:5432']",
            "servers = ['db4:5432']\nserver_auth = ['md5']\nprobe_user = 'other'\nmax_lag = '2s'",
            "database plain: max_lag, probe, server_auth",
        );
    }
}
