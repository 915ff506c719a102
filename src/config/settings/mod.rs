//! Every setting, once: its key, default, bound and reason. `config/reference.toml` is written from
//! this list, and unknown keys are found by it.

mod admin;
mod hotspots;
mod protection;
mod replicas;
mod tables;
mod telemetry;

pub use admin::*;
pub use hotspots::*;
pub use protection::*;
pub use replicas::*;
pub use tables::*;
pub use telemetry::*;

pub struct Setting {
    pub key: &'static str,
    pub kind: Kind,
    pub reason: &'static str,
}

pub enum Kind {
    Count {
        default: usize,
        min: usize,
        max: usize,
    },
    /// Off without a value.
    OptionalCount {
        min: usize,
        max: usize,
    },
    /// Texts in humantime's form: `100ms`, `1h 30m`.
    Duration {
        default: &'static str,
        min: &'static str,
        max: &'static str,
        may_be_off: bool,
    },
    /// Anything else; `example` is what the reference shows, `default` what holds without it.
    Other {
        example: &'static str,
        default: &'static str,
    },
}

const fn count(key: &'static str, default: usize, min: usize, max: usize, reason: &'static str) -> Setting {
    Setting { key, kind: Kind::Count { default, min, max }, reason }
}

const fn optional_count(key: &'static str, min: usize, max: usize, reason: &'static str) -> Setting {
    Setting { key, kind: Kind::OptionalCount { min, max }, reason }
}

/// `default` may be `"off"`.
const fn optional_duration(
    key: &'static str,
    default: &'static str,
    min: &'static str,
    max: &'static str,
    reason: &'static str,
) -> Setting {
    Setting { key, kind: Kind::Duration { default, min, max, may_be_off: true }, reason }
}

const fn duration(
    key: &'static str,
    default: &'static str,
    min: &'static str,
    max: &'static str,
    reason: &'static str,
) -> Setting {
    Setting { key, kind: Kind::Duration { default, min, max, may_be_off: false }, reason }
}

const fn other(
    key: &'static str,
    example: &'static str,
    default: &'static str,
    reason: &'static str,
) -> Setting {
    Setting { key, kind: Kind::Other { example, default }, reason }
}

pub const LISTEN: Setting =
    other("listen", "\"127.0.0.1:6432\"", "127.0.0.1:6432", "where clients connect; IPv6 in brackets");
pub const WORKERS: Setting = count(
    "workers",
    0,
    0,
    1024,
    "threads that serve clients; 0 is one for each two cores, at least one: a thread serves tens of thousands of small queries per second, and threads without enough to do cost wake-ups",
);
pub const ADMIN_USERS: Setting = other(
    "admin_users",
    "[\"app\"]",
    "nobody",
    "users of this file who may do everything in the console, which is database `keyway`, or `pgbouncer`",
);
pub const STATS_USERS: Setting = other(
    "stats_users",
    "[\"app\"]",
    "nobody",
    "users of this file who may use SHOW in the console, and nothing else",
);
pub const INSTANCE: Setting = optional_count(
    "instance",
    1,
    2047,
    "which of several keyways behind one address this is, for `peers`: another number on each. Off: chosen by chance at each start",
);
pub const PEERS: Setting = other(
    "peers",
    "[]",
    "none",
    "the other keyways behind the same address, each as { instance = 2, address = \"10.0.0.12:6432\" }: a cancel request comes on a connection of its own and may reach any of them, and is passed on to the one that its key names. The list may be the same on all, this one included; the way between them is not encrypted",
);
pub const LIMITS_SECTION: Setting = other("limits", "", "", "bounds for all clients together and for each");
pub const TLS_SECTION: Setting = other(
    "tls",
    "",
    "none: clients get no TLS",
    "towards clients; the files are read together with this one, their paths are beside it",
);
pub const USERS_SECTION: Setting = other("users", "", "required", "who may log in");
pub const DATABASES_SECTION: Setting = other("databases", "", "required", "what clients may connect to");
pub const TOP: &[&Setting] = &[
    &LISTEN,
    &ADMIN,
    &ADMIN_TOKEN,
    &REDACT_KEYS,
    &ADMIN_STREAMS_MAX,
    &WORKERS,
    &INSTANCE,
    &PEERS,
    &ADMIN_USERS,
    &STATS_USERS,
    &HOTSPOTS,
    &HOTSPOT_HISTORY,
    &LOG_SECTION,
    &TRACING_SECTION,
    &TLS_SECTION,
    &LIMITS_SECTION,
    &USERS_SECTION,
    &DATABASES_SECTION,
];

pub const TLS_MODE: Setting = other(
    "mode",
    "\"disable\"",
    "prefer in a [tls] section",
    "\"disable\" (the files are not looked at), \"allow\" or \"prefer\" (with TLS or without, as the client likes), \"require\" (28000 without), \"verify-ca\" (and a certificate by `ca`) or \"verify-full\" (and its CN is the user's name)",
);
pub const TLS_CERT: Setting = other(
    "cert",
    "\"server.crt\"",
    "required, unless the mode is disable",
    "the certificate that clients are shown, the chain behind it, as PEM",
);
pub const TLS_KEY: Setting = other(
    "key",
    "\"server.key\"",
    "required, unless the mode is disable",
    "its key, as PEM without a passphrase",
);
pub const TLS_CA: Setting = other(
    "ca",
    "\"clients-ca.crt\"",
    "none: clients are asked for no certificate",
    "who vouches for certificates of clients; one that is shown is checked in every mode",
);
pub const TLS_MIN_VERSION: Setting =
    other("min_version", "\"1.2\"", "1.2", "the lowest version of TLS, \"1.2\" or \"1.3\"");
pub const TLS: &[&Setting] = &[&TLS_MODE, &TLS_CERT, &TLS_KEY, &TLS_CA, &TLS_MIN_VERSION];

pub const CLIENTS_MAX: Setting =
    count("clients_max", 10_000, 1, 1_000_000, "client connections; the next one gets 53300");
pub const LOGIN_TIMEOUT: Setting = duration(
    "login_timeout",
    "15s",
    "100ms",
    "10m",
    "from connect to the end of login; a silent client is dropped",
);
pub const MESSAGE_BYTES_MAX: Setting = count(
    "message_bytes_max",
    67_108_864,
    65_536,
    1_073_741_823,
    "one Query, Parse or Bind, or all messages up to a Sync; rows and COPY data stream through and are not bounded",
);
pub const STATEMENTS_MAX: Setting = count(
    "statements_max",
    10_000,
    1,
    1_000_000,
    "prepared statements of one client; the next one gets 54000",
);
pub const SERVER_STATEMENTS_MAX: Setting = count(
    "server_statements_max",
    500,
    8,
    100_000,
    "prepared statements on one server connection; the least recently used is closed for the next",
);
pub const SERVER_STATEMENT_BYTES_MAX: Setting = count(
    "server_statement_bytes_max",
    16_777_216,
    65_536,
    1_073_741_824,
    "their texts; a server needs several times as much memory for the statements themselves",
);
pub const PLANS_MAX: Setting =
    count("plans_max", 10_000, 16, 10_000_000, "routing plans kept for each database, about 1 kB each");
pub const STATEMENT_BYTES_MAX: Setting = count(
    "statement_bytes_max",
    67_108_864,
    1_024,
    1_073_741_824,
    "texts of one client's prepared statements; the next one gets 54000",
);
pub const MERGE_BYTES_MAX: Setting = count(
    "merge_bytes_max",
    67_108_864,
    65_536,
    1_099_511_627_776,
    "groups, distinct rows and rows to be sorted of one read over several shards; one that needs more gets 54000",
);
pub const LOGINS_MAX: Setting = count(
    "logins_max",
    1_000,
    1,
    1_000_000,
    "clients that are logging in at once, counted from their startup packet; the next ones wait, within `login_timeout`",
);
pub const CANCELS_MAX: Setting = count(
    "cancels_max",
    1_000,
    1,
    100_000,
    "cancel requests under way at once, each with a connection to a server or a peer; the next one is dropped, as PostgreSQL may drop one",
);
pub const SERVER_CONNECTIONS_MAX: Setting = optional_count(
    "server_connections_max",
    1,
    1_000_000,
    "connections to one server (host and port) of all databases and users together; set it below the server's max_connections, less two for each database: one probes, and one listens while clients LISTEN. At the bound a pool without waiters gives up an idle connection for the one that waits longest, and a pool with more than its share gives up the next that is released",
);
pub const SERVER_LOGINS_MAX: Setting = count(
    "server_logins_max",
    32,
    1,
    10_000,
    "logins under way at once to one server (host and port), of all pools together",
);
pub const CLIENT_IDLE_TIMEOUT: Setting = optional_duration(
    "client_idle_timeout",
    "off",
    "1s",
    "365d",
    "a client that asks nothing for this long is disconnected with 57P05; off as PostgreSQL's idle_session_timeout",
);
pub const IDLE_IN_TRANSACTION_TIMEOUT: Setting = optional_duration(
    "idle_in_transaction_timeout",
    "off",
    "100ms",
    "365d",
    "a client that is silent for this long inside a transaction is disconnected with 25P03; off as in PostgreSQL, since the work so far is lost",
);
pub const ABORTED_TRANSACTION_TIMEOUT: Setting = optional_duration(
    "aborted_transaction_timeout",
    "10m",
    "100ms",
    "365d",
    "the same inside a transaction that has failed: nothing is lost by its end, and until then it keeps a server connection from others",
);
pub const UNFINISHED_TIMEOUT: Setting = optional_duration(
    "unfinished_timeout",
    "1h",
    "100ms",
    "365d",
    "a client that is silent for this long behind extended messages without their Sync is disconnected with 25P03: they keep a server connection as a transaction does, and no driver leaves them so",
);
pub const QUERY_TIMEOUT: Setting = optional_duration(
    "query_timeout",
    "off",
    "10ms",
    "365d",
    "a statement that a server runs for longer is cancelled, and gets the server's 57014; off as PostgreSQL's statement_timeout, which knows single statements where this one takes a whole message",
);
pub const CANCEL_TIMEOUT: Setting = duration(
    "cancel_timeout",
    "5s",
    "10ms",
    "1h",
    "a server that has not ended a statement this long after `query_timeout` is disconnected, and the client gets 57014 from keyway",
);
pub const TRANSACTION_TIMEOUT: Setting = optional_duration(
    "transaction_timeout",
    "off",
    "10ms",
    "365d",
    "a client whose transaction, or statement outside of one, takes longer is disconnected with 25P04; off as in PostgreSQL 17",
);
pub const CHANNELS_MAX: Setting = count(
    "channels_max",
    1_000,
    1,
    1_000_000,
    "channels that one client may LISTEN to; the next one gets 54000",
);
pub const NOTIFICATION_BYTES_MAX: Setting = count(
    "notification_bytes_max",
    1_048_576,
    16_384,
    1_073_741_824,
    "notifications that wait for one client that does not read them or is in a transaction; with more it is disconnected with 53400",
);
pub const SHUTDOWN_TIMEOUT: Setting = duration(
    "shutdown_timeout",
    "30s",
    "0s",
    "1h",
    "on SIGTERM open transactions may end for this long; what is left then is cut off",
);
pub const BUFFERS_MAX: Setting = count(
    "buffers_max",
    1_024,
    1,
    1_000_000,
    "spare buffers of 16 kB, for each worker, beside up to eight larger ones; idle clients hold none",
);
pub const LIMITS: &[&Setting] = &[
    &CLIENTS_MAX,
    &LOGIN_TIMEOUT,
    &MESSAGE_BYTES_MAX,
    &LOGINS_MAX,
    &CANCELS_MAX,
    &SERVER_CONNECTIONS_MAX,
    &SERVER_LOGINS_MAX,
    &STATEMENTS_MAX,
    &STATEMENT_BYTES_MAX,
    &MERGE_BYTES_MAX,
    &SERVER_STATEMENTS_MAX,
    &SERVER_STATEMENT_BYTES_MAX,
    &PLANS_MAX,
    &CLIENT_IDLE_TIMEOUT,
    &IDLE_IN_TRANSACTION_TIMEOUT,
    &ABORTED_TRANSACTION_TIMEOUT,
    &UNFINISHED_TIMEOUT,
    &QUERY_TIMEOUT,
    &CANCEL_TIMEOUT,
    &TRANSACTION_TIMEOUT,
    &CHANNELS_MAX,
    &NOTIFICATION_BYTES_MAX,
    &SHUTDOWN_TIMEOUT,
    &BUFFERS_MAX,
];

pub const PASSWORD: Setting = other(
    "password",
    "{ env = \"APP_PASSWORD\" }",
    "none",
    "a string, { env = \"NAME\" } or { file = \"PATH\" } (beside this file; one newline at its end is dropped); clients must know it and servers are shown it; or what PostgreSQL stores in its place (pg_authid): with a SCRAM verifier keyway logs in to servers that have the same one, once a client has logged in and so shown the key, with an MD5 digest to servers that ask for MD5",
);
pub const AUTH: Setting = other(
    "auth",
    "\"scram\"",
    "scram",
    "how clients show who they are: \"scram\" (SCRAM-SHA-256), \"md5\" (broken since long, for clients that know no better), \"password\" (in clear text), \"trust\" (no password asked: only where everyone on the network may be this user) or \"cert\" (a certificate by `tls.ca` whose CN is the user's name)",
);
pub const USER_CLIENTS_MAX: Setting = optional_count(
    "clients_max",
    1,
    1_000_000,
    "client connections of this user; the next one gets 53300. Off: `limits.clients_max` alone bounds them",
);
pub const USER_CONNECTIONS_MAX: Setting = optional_count(
    "server_connections_max",
    1,
    1_000_000,
    "connections of this user to all servers of all databases together",
);
pub const USER_POOL_MODE: Setting = other(
    "pool_mode",
    "\"transaction\"",
    "that of the database",
    "of this user's clients, whatever their database says",
);
pub const USER_CONSISTENCY: Setting = other(
    "consistency",
    "\"session\"",
    "that of the database",
    "of this user's reads, whatever their database says",
);
pub const USER: &[&Setting] =
    &[&PASSWORD, &AUTH, &USER_CLIENTS_MAX, &USER_CONNECTIONS_MAX, &USER_POOL_MODE, &USER_CONSISTENCY];

pub const SERVERS: Setting = other(
    "servers",
    "[\"10.0.0.1:5432\", \"10.0.0.2:5432\"]",
    "required, or `shards`",
    "the servers of a shard, primary and replicas in any order: keyway finds out which is which and follows a change. Each is \"host:port\", or { address = \"host:port\", weight = 2, zone = \"a\" }: of reads a server of weight 2 gets twice as many, and one of another zone than `replicas.zone` few; patroni = \"http://10.0.0.1:8008\" names its Patroni, without whose word it is not the primary",
);
pub const DBNAME: Setting =
    other("dbname", "\"shop\"", "the name of the section", "the database's name on the servers");
pub const MAX_LAG: Setting = duration(
    "max_lag",
    "1s",
    "1ms",
    "1h",
    "a replica serves reads only while its measured lag is at most this; unknown lag is too much. One that was further behind comes back at half of it, or at two probe intervals",
);
pub const PROBE_USER: Setting = other(
    "probe_user",
    "\"app\"",
    "the first user whose password keyway has",
    "who watches the servers and reads their catalogs; needs only the right to connect",
);
pub const PROBE_INTERVAL: Setting = duration(
    "probe_interval",
    "100ms",
    "10ms",
    "1m",
    "how often each server is asked for its role and position; up to four times as often while a shard has no primary, and of a replica while it lacks what was written last",
);
pub const PROBE_TIMEOUT: Setting = duration(
    "probe_timeout",
    "1s",
    "50ms",
    "1m",
    "a server that does not answer a probe in time is not used",
);
pub const DNS_INTERVAL: Setting = optional_duration(
    "dns_interval",
    "15s",
    "100ms",
    "1h",
    "how often the names in `servers` are looked up: when one has lost an address, its server is asked anew what it is, and connections from before are closed, those in use when they are released. IP addresses are not looked up. Off: a name is looked up when a connection is made, and at no other time",
);
pub const CATALOG_INTERVAL: Setting = duration(
    "catalog_interval",
    "1m",
    "100ms",
    "1d",
    "how often each shard's catalog is looked at for changes that others make: functions, triggers, views, tables; what clients change through keyway is read at once",
);
pub const CATALOG_TIMEOUT: Setting =
    duration("catalog_timeout", "30s", "100ms", "1h", "a catalog that is not read by then is tried again");
pub const CATALOG_WAIT: Setting = duration(
    "catalog_wait",
    "3s",
    "10ms",
    "1m",
    "how long a client waits for the catalogs of several shards: one that logs in before they were read at all, from the start on; a read of several shards that needs them to merge texts, from the begin or the end of DDL on. Then the one is greeted, and the other refused",
);
pub const CATALOG_ROWS_MAX: Setting = count(
    "catalog_rows_max",
    1_000_000,
    1_000,
    100_000_000,
    "rows of a shard's catalog that are kept, most of them columns, at about 100 bytes each; of a larger one nothing is known, so that servers are searched for session state after every statement",
);
pub const SERVER_AUTH: Setting = other(
    "server_auth",
    "[\"scram\"]",
    "[\"scram\"]",
    "the methods by which keyway shows a password to servers, of \"scram\", \"md5\" and \"password\": who stands in for a server learns the password by the last, and what is nearly as good by the second; a server that asks nothing is always fine",
);
pub const SERVER_TLS: Setting = other(
    "server_tls",
    "\"disable\"",
    "prefer",
    "TLS to servers, with the meaning of libpq's sslmode: \"disable\" (the files are not looked at), \"allow\" (where a server insists), \"prefer\" (where it can), \"require\", \"verify-ca\" (its certificate is by `server_ca`) or \"verify-full\" (and names the host as `servers` has it); only the last keeps out who stands in for a server",
);
pub const SERVER_CA: Setting = other(
    "server_ca",
    "\"servers-ca.crt\"",
    "required to verify",
    "who vouches for servers, as PEM; the system's own list is in a file such as /etc/ssl/certs/ca-certificates.crt",
);
pub const SERVER_CERT: Setting =
    other("server_cert", "\"keyway.crt\"", "none", "the certificate that servers are shown that ask for one");
pub const SERVER_KEY: Setting = other(
    "server_key",
    "\"keyway.key\"",
    "required with `server_cert`",
    "its key, as PEM without a passphrase",
);
pub const SERVER_TLS_NEGOTIATION: Setting = other(
    "server_tls_negotiation",
    "\"postgres\"",
    "postgres",
    "\"postgres\" asks a server for TLS first, \"direct\" begins with it, which saves a round trip and needs PostgreSQL 17 and a `server_tls` that requires TLS",
);
pub const AUTH_USER: Setting = other(
    "auth_user",
    "\"app\"",
    "none: only users of this file log in",
    "asks servers of the first shard for the passwords of users that this file does not list, over a connection of its own",
);
pub const AUTH_QUERY: Setting = other(
    "auth_query",
    "\"SELECT usename, CASE WHEN valuntil < now() THEN NULL ELSE passwd END FROM pg_catalog.pg_shadow WHERE usename = $1\"",
    "SELECT usename, CASE WHEN valuntil < now() THEN NULL ELSE passwd END FROM pg_catalog.pg_shadow WHERE usename = $1",
    "gives name and password of user $1, in at most one row; run as `auth_user` with search_path = pg_catalog, so other schemas have to be named; a SECURITY DEFINER function keeps `auth_user` from being a superuser",
);
pub const AUTH_QUERY_METHOD: Setting = other(
    "auth_query_method",
    "\"scram\"",
    "scram",
    "how users found by `auth_query` log in: \"scram\", or \"md5\" where some have MD5 digests",
);
pub const AUTH_QUERY_TIMEOUT: Setting = duration(
    "auth_query_timeout",
    "5s",
    "10ms",
    "1m",
    "a login waits this long for an answer, then it is refused",
);
pub const AUTH_QUERY_LIFETIME: Setting = duration(
    "auth_query_lifetime",
    "30s",
    "0s",
    "1h",
    "answers are believed this long; after a wrong password the server is asked again",
);
pub const AUTH_QUERY_USERS_MAX: Setting = count(
    "auth_query_users_max",
    1_000,
    1,
    100_000,
    "users found by `auth_query` that may be connected at once, each with pools of its own, and answers remembered; the next one gets 53300",
);
pub const DATABASE_CLIENTS_MAX: Setting = optional_count(
    "clients_max",
    1,
    1_000_000,
    "client connections to this database; the next one gets 53300. Off: `limits.clients_max` alone bounds them",
);
pub const DATABASE_CONNECTIONS_MAX: Setting = optional_count(
    "server_connections_max",
    1,
    1_000_000,
    "connections of all users to all servers of this database together",
);
pub const REPLICATION_CONNECTIONS_MAX: Setting = count(
    "replication_connections_max",
    10,
    0,
    10_000,
    "clients that speak the replication protocol (pg_basebackup, pg_receivewal, subscriptions), each with a connection of its own to the primary, which counts among the server's max_wal_senders and not in pools; the next one gets 53300. Only where the database has one shard",
);
pub const POOL_MODE: Setting = other(
    "pool_mode",
    "\"transaction\"",
    "transaction",
    "when a server connection may go to another client: \"transaction\" (after each transaction; what only a session can hold keeps it longer) or \"session\" (when its client leaves: then it is closed, which no state outlives). A client in session mode is always on the primary, and keeps a place of `pool.size`; only on databases of one shard",
);
pub const FAILOVER_HOLD: Setting = duration(
    "failover_hold",
    "10s",
    "0s",
    "1h",
    "how long a statement that needs the primary waits while its shard has none, or none that can be connected to; then it fails with 57P03. Reads that a replica may answer go on",
);
pub const FAILOVER_QUEUE: Setting =
    count("failover_queue", 1_000, 0, 1_000_000, "clients that may wait so at once; the next one gets 57P03");
pub const CONSISTENCY: Setting = other(
    "consistency",
    "\"global\"",
    "global",
    "what a read sees that a replica could answer: \"global\" (what any client of this Keyway has been told is written), \"session\" (what its own session has written, and nothing older than what that has seen), \"eventual\" (a replica within `max_lag`, whatever was written) or \"primary\" (no replica). Where no replica has it, the primary answers. A session says SET keyway.consistency, a statement /* keyway: consistency=... */",
);
pub const CROSS_SHARD_WRITES: Setting = other(
    "cross_shard_writes",
    "\"refuse\"",
    "refuse",
    "a statement that writes rows of several shards: \"refuse\", or \"one_phase\": each shard does its part in a transaction of its own, and they are committed one after the other once all have done it. A shard that fails in between leaves the write on some shards and not on others; the client is told so with 08007, which names them, and nobody reads all shards at one point in time",
);
pub const CROSS_SHARD_LOCK_TIMEOUT: Setting = optional_duration(
    "cross_shard_lock_timeout",
    "10s",
    "10ms",
    "1h",
    "such a statement, and a write of a reference table, waits this long for a lock, then it fails with 55P03: of two that wait for each other on different shards no server knows. A session's own lock_timeout comes first",
);
pub const POOL_SECTION: Setting = other("pool", "", "", "server connections of one user on one server");
pub const SHARDS_SECTION: Setting = other("shards", "", "one shard named main", "instead of `servers`");
pub const MAPS_SECTION: Setting = other("maps", "", "none", "which shard a key lives on");
pub const TABLES_SECTION: Setting = other(
    "tables",
    "",
    "none",
    "the tables of a database with several shards; others are refused, but for those of `schemas` and `default_shard`",
);
pub const SCHEMAS_SECTION: Setting = other(
    "schemas",
    "",
    "none",
    "schemas whose tables, unless they are listed, all live on one shard: a schema for each tenant. The session's search_path decides what a name without schema means; it has to be set by the session, and begin with such a schema or have none",
);
pub const DEFAULT_SHARD: Setting = other(
    "default_shard",
    "\"s1\"",
    "none: other tables are refused",
    "the shard of every table, and view, that is not listed; a view of sharded tables must not be among them, for it would show that shard's rows alone",
);
pub const DATABASE: &[&Setting] = &[
    &SERVERS,
    &DBNAME,
    &MAX_LAG,
    &PROBE_USER,
    &PROBE_INTERVAL,
    &PROBE_TIMEOUT,
    &DNS_INTERVAL,
    &CATALOG_INTERVAL,
    &CATALOG_TIMEOUT,
    &CATALOG_WAIT,
    &CATALOG_ROWS_MAX,
    &SERVER_AUTH,
    &SERVER_TLS,
    &SERVER_CA,
    &SERVER_CERT,
    &SERVER_KEY,
    &SERVER_TLS_NEGOTIATION,
    &AUTH_USER,
    &AUTH_QUERY,
    &AUTH_QUERY_METHOD,
    &AUTH_QUERY_TIMEOUT,
    &AUTH_QUERY_LIFETIME,
    &AUTH_QUERY_USERS_MAX,
    &DATABASE_CLIENTS_MAX,
    &DATABASE_CONNECTIONS_MAX,
    &REPLICATION_CONNECTIONS_MAX,
    &FAILOVER_HOLD,
    &FAILOVER_QUEUE,
    &CONSISTENCY,
    &POOL_MODE,
    &CROSS_SHARD_WRITES,
    &CROSS_SHARD_LOCK_TIMEOUT,
    &POOL_SECTION,
    &REPLICAS_SECTION,
    &PROTECTION_SECTION,
    &SHARDS_SECTION,
    &MAPS_SECTION,
    &TABLES_SECTION,
    &SCHEMAS_SECTION,
    &DEFAULT_SHARD,
];
pub const SHARD: &[&Setting] = &[&SERVERS];

pub const SIZE: Setting = count("size", 20, 1, 10_000, "connections, those being made included");
pub const WAITERS_MAX: Setting = count(
    "waiters_max",
    10_000,
    1,
    1_000_000,
    "clients that may wait for a connection; the next one gets 53300",
);
pub const WAIT_TIMEOUT: Setting = duration(
    "wait_timeout",
    "10s",
    "10ms",
    "1h",
    "how long a client waits for a connection before it gets 53300",
);
pub const CONNECT_TIMEOUT: Setting =
    duration("connect_timeout", "5s", "10ms", "10m", "connect and log in to a server");
pub const IDLE_TIMEOUT: Setting =
    duration("idle_timeout", "10m", "1s", "365d", "a connection idle for this long is closed");
pub const LIFETIME: Setting =
    duration("lifetime", "1h", "1s", "365d", "a connection this old is closed when it is next idle");
pub const RAMP: Setting = count(
    "ramp",
    20,
    1,
    1_000,
    "logins under way at once; those of all pools of a server are bounded by `server_logins_max`",
);
pub const POOL: &[&Setting] =
    &[&SIZE, &WAITERS_MAX, &WAIT_TIMEOUT, &CONNECT_TIMEOUT, &IDLE_TIMEOUT, &LIFETIME, &RAMP];

pub const MAP_KIND: Setting =
    other("kind", "\"hash\"", "required", "\"hash\" (slots), \"range\" or \"list\"; see docs/sharding.md");
pub const MAP_TYPE: Setting = other(
    "type",
    "\"bigint\"",
    "required",
    "the column's type as it is declared: smallint, integer, bigint, numeric (whole numbers of up to 38 digits), boolean, text, varchar(N), char(N), enum, uuid, bytea, date, timestamp, timestamptz, with its length or precision; a list of two to four for a key of several columns",
);
pub const MAP_HASH: Setting = other(
    "hash",
    "\"xxh3\"",
    "xxh3",
    "the hash of a hash map: \"xxh3\", or \"postgres\" for data that lies as PARTITION BY HASH puts it: then a slot is a remainder and `slots` the modulus, so that slot 1 of 4 is FOR VALUES WITH (MODULUS 4, REMAINDER 1). Rows lie where it put them, so that it cannot change later",
);
pub const MAP_SLOTS: Setting = count(
    "slots",
    4_096,
    1,
    65_536,
    "slots of a hash map, a power of two, or any number with hash = \"postgres\"; dealt to the shards evenly in runs unless `assign` is given",
);
pub const MAP_ASSIGN: Setting = other(
    "assign",
    "[{ slots = \"0-2047\", shard = \"s1\" }, { slots = \"2048-4095\", shard = \"s2\" }]",
    "even runs in the order of the shards",
    "which shard has which slots of a hash map",
);
pub const MAP_RANGES: Setting = other(
    "ranges",
    "[{ to = \"2026-01-01T00:00:00Z\", shard = \"s1\" }, { from = \"2026-01-01T00:00:00Z\", shard = \"s2\" }]",
    "required for a range map",
    "half open: `from` is in the range, `to` is not; without one of them it has no end there. The bounds of a key of several columns are lists, ordered by the first column, then the next",
);
pub const MAP_COLLATION: Setting = other(
    "collation",
    "\"C\"",
    "required for ranges of text",
    "the collation that the column is declared with; others than \"C\" order text in ways that the servers alone know",
);
pub const MAP_LISTS: Setting = other(
    "lists",
    "[{ values = [\"de\", \"at\"], shard = \"s1\" }]",
    "required for a list map",
    "the keys of each shard; a shard may have several lists",
);
pub const MAP_DEFAULT: Setting = other(
    "default",
    "\"s2\"",
    "none: writes of other keys are refused",
    "the shard of keys that stand in no list",
);
pub const MAP_PINNED: Setting = other(
    "pinned",
    "[{ key = 42, shard = \"s2\" }]",
    "none",
    "keys that live on another shard than their slot, range or list says, such as one large tenant; also written as [[databases.shop.maps.by_user.pinned]]",
);
pub const MAP: &[&Setting] = &[
    &MAP_KIND,
    &MAP_TYPE,
    &MAP_HASH,
    &MAP_SLOTS,
    &MAP_ASSIGN,
    &MAP_RANGES,
    &MAP_COLLATION,
    &MAP_LISTS,
    &MAP_DEFAULT,
    &MAP_PINNED,
];

/// Every key with the section it stands in, `*` for a name that the file chooses: what
/// `config/reference.toml` must show.
pub fn keys() -> Vec<(&'static str, &'static str)> {
    keys_where(|_| true)
}

/// Those that are a number or a time.
pub fn measures() -> Vec<(&'static str, &'static str)> {
    keys_where(|it| !matches!(it.kind, Kind::Other { .. }))
}

fn keys_where(wanted: impl Fn(&Setting) -> bool) -> Vec<(&'static str, &'static str)> {
    let sections: [(&'static str, &[&'static Setting]); 14] = [
        ("", TOP),
        ("log", LOG),
        ("tracing", TRACING),
        ("tls", TLS),
        ("limits", LIMITS),
        ("users.*", USER),
        ("databases.*", DATABASE),
        ("databases.*.pool", POOL),
        ("databases.*.replicas", REPLICAS),
        ("databases.*.protection", PROTECTION),
        ("databases.*.shards.*", SHARD),
        ("databases.*.maps.*", MAP),
        ("databases.*.tables.*", TABLE),
        ("databases.*.schemas.*", SCHEMA),
    ];
    let of = |(path, all): &(&'static str, &[&'static Setting])| {
        let (path, all) = (*path, all.iter());
        all.filter(|it| wanted(it)).map(|it| (path, it.key)).collect::<Vec<_>>()
    };
    sections.iter().flat_map(of).collect()
}
