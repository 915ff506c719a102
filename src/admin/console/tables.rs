//! What SHOW shows: PgBouncer's columns with its meanings where it has the table, ours behind them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Console;
use super::command::Table;
use super::protection::{PROTECTION, protection};
use super::replicas::{REPLICAS, replicas};
use super::stats::{StatTotals, totals_of};
use crate::backend::ServerRecord;
use crate::base::{Role, ShardId};
use crate::client::{Activity, Database, SessionRecord, Shared};
use crate::config::Config;
use crate::net::TlsTerms;
use crate::pool::{Pool, PoolUsage};
use crate::wire::{Column, ColumnType, Value};

pub(super) type Row = Vec<Value>;

pub(super) const fn text(name: &'static str) -> Column {
    Column { name, of: ColumnType::Text }
}

pub(super) const fn int(name: &'static str) -> Column {
    Column { name, of: ColumnType::Int }
}

/// `N` is how many there are in all.
const fn behind_socket<const N: usize>(ours: &[Column]) -> [Column; N] {
    let mut columns = [ours[0]; N];
    let mut at = 0;
    while at < N {
        columns[at] = if at < SOCKET.len() { SOCKET[at] } else { ours[at - SOCKET.len()] };
        at += 1;
    }
    columns
}

const HELP: &[Column] = &[text("command"), text("effect")];
const VERSION: &[Column] = &[text("version")];
const KEY_VALUE: &[Column] = &[text("key"), text("value")];
const LISTS: &[Column] = &[text("list"), int("items")];
const CONFIG: &[Column] = &[text("key"), text("value"), text("default"), text("changeable")];
const POOLS: &[Column] = &[
    text("database"),
    text("user"),
    int("cl_active"),
    int("cl_waiting"),
    int("cl_active_cancel_req"),
    int("cl_waiting_cancel_req"),
    int("sv_active"),
    int("sv_active_cancel"),
    int("sv_being_canceled"),
    int("sv_idle"),
    int("sv_used"),
    int("sv_tested"),
    int("sv_login"),
    int("maxwait"),
    int("maxwait_us"),
    text("pool_mode"),
    text("load_balance_hosts"),
    int("cl_pinned"),
    int("size"),
];
/// What a client and a server have alike.
const SOCKET: [Column; 21] = [
    text("type"),
    text("user"),
    text("database"),
    text("replication"),
    text("state"),
    text("addr"),
    int("port"),
    text("local_addr"),
    int("local_port"),
    text("connect_time"),
    text("request_time"),
    int("wait"),
    int("wait_us"),
    int("close_needed"),
    text("ptr"),
    text("link"),
    int("remote_pid"),
    text("tls"),
    text("application_name"),
    int("prepared_statements"),
    int("id"),
];
const CLIENTS: &[Column] = &behind_socket::<23>(&[int("pid"), text("pin")]);
const SERVERS: &[Column] = &behind_socket::<24>(&[text("shard"), text("role"), int("client_id")]);
const DATABASES: &[Column] = &[
    text("name"),
    text("host"),
    int("port"),
    text("database"),
    text("force_user"),
    int("pool_size"),
    int("min_pool_size"),
    int("reserve_pool_size"),
    int("server_lifetime"),
    text("pool_mode"),
    text("load_balance_hosts"),
    int("max_connections"),
    int("current_connections"),
    int("max_client_connections"),
    int("current_client_connections"),
    int("paused"),
    int("disabled"),
    int("shards"),
    int("servers"),
    int("max_lag_ms"),
];
const USERS: &[Column] = &[
    text("name"),
    int("pool_size"),
    int("reserve_pool_size"),
    text("pool_mode"),
    int("max_user_connections"),
    int("current_connections"),
    int("max_user_client_connections"),
    int("current_client_connections"),
    text("auth"),
    text("console"),
];
const STATS_TOTALS: &[Column] = &[
    text("database"),
    int("server_assignment_count"),
    int("xact_count"),
    int("query_count"),
    int("bytes_received"),
    int("bytes_sent"),
    int("xact_time"),
    int("query_time"),
    int("wait_time"),
    int("client_parse_count"),
    int("server_parse_count"),
    int("bind_count"),
];
const STATS: &[Column] = &[
    text("database"),
    int("total_server_assignment_count"),
    int("total_xact_count"),
    int("total_query_count"),
    int("total_received"),
    int("total_sent"),
    int("total_xact_time"),
    int("total_query_time"),
    int("total_wait_time"),
    int("total_client_parse_count"),
    int("total_server_parse_count"),
    int("total_bind_count"),
    int("avg_server_assignment_count"),
    int("avg_xact_count"),
    int("avg_query_count"),
    int("avg_recv"),
    int("avg_sent"),
    int("avg_xact_time"),
    int("avg_query_time"),
    int("avg_wait_time"),
    int("avg_client_parse_count"),
    int("avg_server_parse_count"),
    int("avg_bind_count"),
];
const PINS: &[Column] = &[
    text("database"),
    text("user"),
    int("client_id"),
    text("reason"),
    text("shard"),
    text("server"),
    int("server_pid"),
    text("application_name"),
];
const TRANSACTIONS: &[Column] = &[
    text("database"),
    text("user"),
    int("client_id"),
    int("pid"),
    text("state"),
    text("isolation"),
    text("shards"),
    text("write_shard"),
    text("begin_time"),
    int("age_ms"),
    int("statements"),
    text("application_name"),
];
const SHARDS: &[Column] = &[
    text("database"),
    text("shard"),
    int("servers"),
    text("primary"),
    int("replicas"),
    int("reads"),
    int("writes"),
    int("errors"),
    int("in_flight"),
];
const PREPARED: &[Column] = &[
    text("database"),
    text("name"),
    text("statement"),
    text("parameter_types"),
    text("protocol"),
    int("clients"),
    int("uses"),
    int("servers"),
];

pub fn columns(table: Table) -> &'static [Column] {
    match table {
        Table::Help => HELP,
        Table::Pools => POOLS,
        Table::Clients => CLIENTS,
        Table::Servers => SERVERS,
        Table::Databases => DATABASES,
        Table::Stats => STATS,
        Table::StatsTotals | Table::StatsAverages => STATS_TOTALS,
        Table::Lists => LISTS,
        Table::Config => CONFIG,
        Table::Users => USERS,
        Table::Version => VERSION,
        Table::Pins => PINS,
        Table::Transactions => TRANSACTIONS,
        Table::Shards => SHARDS,
        Table::Replicas => REPLICAS,
        Table::Protection => PROTECTION,
        Table::Prepared => PREPARED,
        Table::State => KEY_VALUE,
    }
}

/// As many values in each row as there are columns.
pub fn rows(table: Table, console: &Console) -> Vec<Row> {
    let shared = console.latest.load();
    let now = Instant::now();
    match table {
        Table::Help => help(),
        Table::Pools => pools(&shared, now),
        Table::Clients => clients(&shared, now),
        Table::Servers => servers(&shared),
        Table::Databases => databases(&shared, &console.operator.config()),
        Table::Stats | Table::StatsTotals | Table::StatsAverages => {
            stats(table, &totals_of(&shared), console.operator.stats_before(), now)
        }
        Table::Lists => lists(&shared),
        Table::Config => config(&console.operator.config()),
        Table::Users => users(&shared, &console.operator.config()),
        Table::Version => vec![vec![t(concat!("keyway ", env!("CARGO_PKG_VERSION")))]],
        Table::Pins => pins(&shared),
        Table::Transactions => transactions(&shared, now),
        Table::Shards => shards(&shared),
        Table::Replicas => replicas(&shared, now),
        Table::Protection => protection(&shared),
        Table::Prepared => prepared(&shared),
        Table::State => state(&shared),
    }
}

pub(super) fn t(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(super) fn n(number: impl TryInto<i64>) -> Value {
    Value::Int(number.try_into().unwrap_or(i64::MAX))
}

pub(super) fn opt<T>(value: Option<T>, shown: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, shown)
}

/// As PgBouncer writes it, in UTC.
fn time(at: SystemTime) -> Value {
    let at: chrono::DateTime<chrono::Utc> = chrono::DateTime::from_timestamp(
        at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as i64,
        0,
    )
    .unwrap_or_default();
    Value::Text(at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Seconds, and the micro seconds behind them.
fn wait(time: Duration) -> [Value; 2] {
    [n(time.as_secs()), n(time.subsec_micros())]
}

fn place(address: Option<SocketAddr>) -> [Value; 2] {
    match address {
        Some(it) => [Value::Text(it.ip().to_string()), n(it.port())],
        None => [Value::Null, Value::Null],
    }
}

pub(super) fn sorted(shared: &Shared) -> Vec<&Arc<Database>> {
    let mut databases: Vec<_> = shared.databases.values().collect();
    databases.sort_by(|a, b| a.name.cmp(&b.name));
    databases
}

pub(super) fn pools_of(database: &Database) -> Vec<Arc<Pool>> {
    let mut pools = Vec::new();
    database.pools.for_each(|user| pools.extend(user.all().cloned()));
    pools.sort_by(|a, b| a.name().cmp(b.name()));
    pools
}

fn help() -> Vec<Row> {
    let tables: Vec<_> = Table::ALL.iter().map(|it| it.0).filter(|it| *it != "TOTALS").collect();
    let shows = format!("SHOW {}", tables.join("|"));
    let commands = [
        (shows.as_str(), "tables; docs/console.md has their columns"),
        ("SHOW PROTECTION", "what is done for hot keys: reads shared and kept, writes that take turns"),
        ("SHOW HOTSPOTS|SKEW|ADVICE", "hot shards and keys, how uneven load is, and what to do about it"),
        ("SHOW KEYS [map]", "the keys with most load, with bounds"),
        ("SHOW HEATMAP map [metric] [LAST '1h']", "load of a map's keys over time, drawn in blocks"),
        ("RELOAD", "reads the configuration file anew"),
        ("PAUSE [db]", "lets transactions end, closes server connections, has new transactions wait"),
        ("RESUME [db]", "ends PAUSE and KILL"),
        ("RECONNECT [db]", "makes server connections anew, each when it is released next"),
        ("WAIT_CLOSE [db]", "returns when RECONNECT or RELOAD has left no old server connection"),
        ("DISABLE db", "refuses new clients"),
        ("ENABLE db", "ends DISABLE"),
        ("KILL [db]", "drops clients and server connections at once, has new transactions wait"),
        ("KILL_CLIENT id", "drops one client at once"),
        ("SHUTDOWN", "ends when transactions have, or after shutdown_timeout"),
        ("SHUTDOWN WAIT_FOR_SERVERS", "ends when transactions have"),
        ("SHUTDOWN WAIT_FOR_CLIENTS", "takes no new clients, and ends when all have left"),
    ];
    commands.into_iter().map(|(command, effect)| vec![t(command), t(effect)]).collect()
}

/// One row for each user of a database, over all its servers.
fn pools(shared: &Shared, now: Instant) -> Vec<Row> {
    #[derive(Default)]
    struct Sum {
        usage: PoolUsage,
        active: usize,
        waiting: usize,
        pinned: usize,
        waited: Duration,
    }
    let mut sums: BTreeMap<(String, String), Sum> = BTreeMap::new();
    for database in shared.databases.values() {
        for pool in pools_of(database) {
            let key = (database.name.clone(), pool.name().user.to_string());
            let (sum, usage) = (&mut sums.entry(key).or_default().usage, pool.usage());
            sum.active += usage.active;
            sum.idle += usage.idle;
            sum.connecting += usage.connecting;
            sum.size += usage.size;
        }
    }
    for session in shared.sessions.all() {
        // Of a database or a user that a reload has just removed there is no row.
        let key = (session.database.to_string(), session.user.to_string());
        let Some(sum) = sums.get_mut(&key) else { continue };
        match session.waited(now) {
            Some(waited) => {
                sum.waiting += 1;
                sum.waited = sum.waited.max(waited);
            }
            None => sum.active += 1,
        }
        sum.pinned += usize::from(session.pin().is_some());
    }
    let row = |((database, user), it): ((String, String), Sum)| {
        let [maxwait, maxwait_us] = wait(it.waited);
        let of_user = shared.users.get(&user).and_then(|it| it.pool_mode);
        let of_database = || shared.databases.get(&database).map(|it| it.pool_mode);
        let mode = of_user.or_else(of_database).unwrap_or_default();
        vec![
            Value::Text(database),
            Value::Text(user),
            n(it.active),
            n(it.waiting),
            n(0),
            n(0),
            n(it.usage.active),
            n(0),
            n(0),
            n(it.usage.idle),
            n(0),
            n(0),
            n(it.usage.connecting),
            maxwait,
            maxwait_us,
            t(mode.label()),
            Value::Null,
            n(it.pinned),
            n(it.usage.size),
        ]
    };
    sums.into_iter().map(row).collect()
}

/// One open server connection and its pool.
struct Server {
    pool: Arc<Pool>,
    record: Arc<ServerRecord>,
    idle: bool,
    closing: bool,
}

impl Server {
    fn handle(&self) -> String {
        format!("server-{}-{}", self.pool.name().server, self.record.pid)
    }

    /// Who has it.
    fn session(&self) -> Option<u64> {
        self.record.session().filter(|_| !self.idle)
    }
}

/// Those of pools that reloads have replaced too.
fn all_servers(shared: &Shared) -> Vec<Server> {
    let mut pools = shared.ledger.pools();
    pools.sort_by(|a, b| a.name().cmp(b.name()));
    let of_pool = |pool: Arc<Pool>| {
        let server = |it: crate::pool::ServerUse| Server {
            pool: pool.clone(),
            record: it.record,
            idle: it.idle,
            closing: it.closing,
        };
        pool.servers().into_iter().map(server).collect::<Vec<_>>()
    };
    pools.into_iter().flat_map(of_pool).collect()
}

fn by_session(shared: &Shared) -> BTreeMap<u64, Server> {
    all_servers(shared).into_iter().filter_map(|it| Some((it.session()?, it))).collect()
}

/// Empty without TLS.
fn tls(terms: Option<TlsTerms>) -> Value {
    Value::Text(terms.map(|it| it.to_string()).unwrap_or_default())
}

fn clients(shared: &Shared, now: Instant) -> Vec<Row> {
    let servers = by_session(shared);
    let row = |it: &Arc<SessionRecord>| {
        let server = servers.get(&it.id);
        let waited = it.waited(now);
        let state = match it.activity() {
            _ if waited.is_some() => "waiting",
            Activity::Idle if server.is_none() => "idle",
            _ => "active",
        };
        let ([addr, port], [local_addr, local_port]) = (place(it.peer()), place(None));
        let [wait, wait_us] = wait(waited.unwrap_or_default());
        vec![
            t("C"),
            t(&it.user),
            t(&it.database),
            t("none"),
            t(state),
            addr,
            port,
            local_addr,
            local_port,
            time(it.connected_time()),
            time(it.request_time()),
            wait,
            wait_us,
            n(0),
            Value::Text(format!("client-{}", it.id)),
            opt(server, |it| Value::Text(it.handle())),
            n(0),
            tls(it.tls()),
            t(it.application_name.as_deref().unwrap_or_default()),
            n(it.statements()),
            n(it.id),
            n(it.pid),
            opt(it.pin(), t),
        ]
    };
    shared.sessions.all().iter().map(row).collect()
}

fn servers(shared: &Shared) -> Vec<Row> {
    let row = |it: Server| {
        let (name, session) = (it.pool.name(), it.session());
        let client = session.and_then(|it| shared.sessions.get(it));
        let requested = client.as_ref().map_or(it.record.connected_time, |it| it.request_time());
        let cluster = shared.databases.get(&*name.database).map(|it| it.topology.snapshot());
        let role = cluster.as_ref().and_then(|it| {
            let servers = it.shards.iter().flat_map(|it| &it.servers);
            servers.into_iter().find(|it| *it.address == *name.server)?.role
        });
        let [local_addr, local_port] = place(it.record.local);
        vec![
            t("S"),
            t(&name.user),
            t(&name.database),
            t("none"),
            t(if it.idle { "idle" } else { "active" }),
            t(&it.pool.spec().host),
            n(it.pool.spec().port),
            local_addr,
            local_port,
            time(it.record.connected_time),
            time(requested),
            n(0),
            n(0),
            n(i64::from(it.closing)),
            Value::Text(it.handle()),
            opt(client.as_ref(), |it| Value::Text(format!("client-{}", it.id))),
            n(it.record.pid),
            tls(it.record.tls),
            t(client.as_ref().and_then(|it| it.application_name.as_deref()).unwrap_or_default()),
            n(0),
            n(it.record.pid),
            t(&name.shard),
            opt(role, |it| t(Role::label(it))),
            opt(session, n),
        ]
    };
    all_servers(shared).into_iter().map(row).collect()
}

fn databases(shared: &Shared, config: &Config) -> Vec<Row> {
    let row = |it: &Arc<Database>| {
        let said = config.database(&it.name)?;
        let servers: Vec<_> = said.shards.iter().flat_map(|it| &it.servers).collect();
        let hosts: Vec<_> = servers.iter().map(|it| it.host.as_str()).collect();
        let open: usize = pools_of(it).iter().map(|it| it.open_count()).sum();
        Some(vec![
            t(&it.name),
            Value::Text(hosts.join(",")),
            opt(servers.first(), |it| n(it.port)),
            t(&said.dbname),
            Value::Null,
            n(said.pool.size),
            n(0),
            n(0),
            n(said.pool.lifetime.as_secs()),
            t(said.pool_mode.label()),
            Value::Null,
            n(said.server_connections_max.unwrap_or(0)),
            n(open),
            n(said.clients_max.unwrap_or(0)),
            n(it.clients.taken()),
            n(i64::from(it.traffic.is_paused())),
            n(i64::from(it.traffic.is_disabled())),
            n(said.shards.len()),
            n(servers.len()),
            n(said.max_lag.as_millis()),
        ])
    };
    sorted(shared).into_iter().filter_map(row).collect()
}

fn users(shared: &Shared, config: &Config) -> Vec<Row> {
    let pools: Vec<_> = shared.databases.values().flat_map(|it| pools_of(it)).collect();
    let row = |it: &crate::config::User| {
        let own = pools.iter().filter(|pool| *pool.name().user == *it.name);
        let clients = shared.users.get(&it.name).map_or(0, |it| it.clients.taken());
        let console = match (shared.rights.admins.contains(&it.name), shared.rights.may_look(&it.name)) {
            (true, _) => "admin",
            (false, true) => "stats",
            (false, false) => "",
        };
        vec![
            t(&it.name),
            Value::Null,
            Value::Null,
            opt(it.pool_mode, |it| t(it.label())),
            n(it.server_connections_max.unwrap_or(0)),
            n(own.map(|it| it.open_count()).sum::<usize>()),
            n(it.clients_max.unwrap_or(0)),
            n(clients),
            t(it.auth.label()),
            t(console),
        ]
    };
    config.users.iter().map(row).collect()
}

fn stats(
    table: Table,
    totals: &BTreeMap<String, StatTotals>,
    before: Option<(Instant, BTreeMap<String, StatTotals>)>,
    now: Instant,
) -> Vec<Row> {
    let row = |(name, totals): (&String, &StatTotals)| {
        let averages = match &before {
            Some((at, before)) => {
                let before = before.get(name).copied().unwrap_or_default();
                totals.averages(&before, now.saturating_duration_since(*at))
            }
            None => [0; 11],
        };
        let values: Vec<u64> = match table {
            Table::StatsTotals => totals.columns().to_vec(),
            Table::StatsAverages => averages.to_vec(),
            _ => [totals.columns(), averages].concat(),
        };
        std::iter::once(t(name)).chain(values.into_iter().map(n)).collect()
    };
    totals.iter().map(row).collect()
}

fn lists(shared: &Shared) -> Vec<Row> {
    let pools: Vec<_> = shared.databases.values().flat_map(|it| pools_of(it)).collect();
    let sessions = shared.sessions.all();
    let open: usize = pools.iter().map(|it| it.open_count()).sum();
    let logins = shared.limits.logins_max.saturating_sub(shared.logins.available_permits());
    let topologies = shared.databases.values().map(|it| it.topology.shard_count());
    let items = [
        ("databases", shared.databases.len()),
        ("users", shared.users.len()),
        ("peers", 0),
        ("pools", pools.len()),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", sessions.len()),
        ("login_clients", logins),
        ("free_servers", 0),
        ("used_servers", open),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
        ("shards", topologies.sum()),
        ("pins", sessions.iter().filter(|it| it.pin().is_some()).count()),
        ("prepared", shared.databases.values().map(|it| it.statements.count()).sum()),
    ];
    items.into_iter().map(|(list, items)| vec![t(list), n(items)]).collect()
}

fn config(config: &Config) -> Vec<Row> {
    let row = |it: crate::config::Listed| {
        let changeable = if it.changeable { "yes" } else { "no" };
        vec![Value::Text(it.key), Value::Text(it.value), opt(it.default, Value::Text), t(changeable)]
    };
    config.listed().into_iter().map(row).collect()
}

fn pins(shared: &Shared) -> Vec<Row> {
    let servers = by_session(shared);
    let row = |it: &Arc<SessionRecord>| {
        let (reason, server) = (it.pin()?, servers.get(&it.id));
        Some(vec![
            t(&it.database),
            t(&it.user),
            n(it.id),
            t(reason),
            opt(server, |it| t(&it.pool.name().shard)),
            opt(server, |it| t(&it.pool.name().server)),
            opt(server, |it| n(it.record.pid)),
            t(it.application_name.as_deref().unwrap_or_default()),
        ])
    };
    shared.sessions.all().iter().filter_map(row).collect()
}

/// Those that clients have begun by BEGIN.
fn transactions(shared: &Shared, now: Instant) -> Vec<Row> {
    let row = |it: &Arc<SessionRecord>| {
        let open = it.transaction()?;
        let router = shared.databases.get(&*it.database).map(|it| &it.router);
        let name = |shard: ShardId| router.map_or("", |it| it.shard_name(shard));
        let shards: Vec<_> = open.shards.iter().map(|it| name(*it)).collect();
        Some(vec![
            t(&it.database),
            t(&it.user),
            n(it.id),
            n(it.pid),
            t(if open.aborted { "aborted" } else { "open" }),
            opt(open.isolation, |it| t(it.name())),
            Value::Text(shards.join(", ")),
            opt(open.written, |it| t(name(it))),
            time(it.connected_time() + open.began),
            n(it.age(now).saturating_sub(open.began).as_millis()),
            n(open.statements),
            t(it.application_name.as_deref().unwrap_or_default()),
        ])
    };
    shared.sessions.all().iter().filter_map(row).collect()
}

fn shards(shared: &Shared) -> Vec<Row> {
    let mut rows = Vec::new();
    for database in sorted(shared) {
        let cluster = database.topology.snapshot();
        for (index, shard) in cluster.shards.iter().enumerate() {
            let totals = database.metrics.totals(ShardId(index as u16));
            let replicas = shard.servers.iter().filter(|it| it.role == Some(Role::Replica));
            rows.push(vec![
                t(&database.name),
                t(&shard.name),
                n(shard.servers.len()),
                opt(shard.primary(), |it| t(&it.address)),
                n(replicas.count()),
                n(totals.reads),
                n(totals.writes),
                n(totals.errors),
                n(totals.in_flight),
            ]);
        }
    }
    rows
}

fn prepared(shared: &Shared) -> Vec<Row> {
    let mut rows = Vec::new();
    for database in sorted(shared) {
        for it in database.statements.snapshot() {
            let types: Vec<_> = it.oids.iter().map(u32::to_string).collect();
            rows.push(vec![
                t(&database.name),
                Value::Text(it.name),
                Value::Text(it.text),
                Value::Text(types.join(",")),
                t(if it.by_sql { "simple" } else { "extended" }),
                n(it.clients),
                n(it.uses),
                n(it.servers),
            ]);
        }
    }
    rows
}

fn state(shared: &Shared) -> Vec<Row> {
    let paused = !shared.databases.is_empty() && shared.databases.values().all(|it| it.traffic.is_paused());
    let yes = |it: bool| if it { "yes" } else { "no" };
    let stopping = *shared.stopping.borrow();
    vec![
        vec![t("active"), t(yes(!paused && !stopping))],
        vec![t("paused"), t(yes(paused))],
        vec![t("suspended"), t("no")],
    ]
}
