//! `docs/metrics.md`, written from the families that the program registers: what each is and where to look next.

use std::collections::BTreeSet;

use super::Families;
use crate::metrics::{Family, RegisterError, Registry};

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("metrics: {0}")]
    Register(#[from] RegisterError),
    #[error("the catalogue (src/app/catalogue.rs) does not say where to look next from {0}")]
    Unlisted(String),
    #[error("the catalogue (src/app/catalogue.rs) has {0}, which no part registers")]
    Unknown(&'static str),
    #[error(
        "{0} has the label {1}, of which the catalogue (src/app/catalogue.rs) does not say what bounds it"
    )]
    UnboundedLabel(String, String),
}

/// Every label, and what its values are taken from: lists of the code or names of the configuration, and never a
/// key, a value or another text of a client.
pub const LABELS: &[(&str, &str)] = &[
    ("access", "`read`, `write`"),
    ("database", "databases of the configuration"),
    ("dimension", "what load is compared by: `calls`, `time`, `bytes`"),
    (
        "limit",
        "settings of the configuration that bound something, as `limits.clients_max` or `query_timeout`",
    ),
    ("map", "maps of the configuration"),
    ("rank", "`1` (the hottest) to `10`"),
    (
        "reason",
        "of refusals, pins, reads and denials of the dashboard: lists of the code, as `multi_shard_write`, `temporary table`, `floor`",
    ),
    ("result", "`ok`, `failed`, `refused` and the like, each from a list of the code"),
    ("role", "`primary`, `replica`"),
    ("server", "`host:port` of the configuration"),
    ("shard", "shards of the configuration"),
    ("side", "`client`, `server`"),
    ("sqlstate", "the few with which a standby turns a read down: `25006`, `40001`, `0A000`, `55000`"),
    ("state", "of a connection: `idle`, `active`, `connecting`"),
    ("target", "`primary`, `replica`"),
    ("to", "`client`, `server`"),
    ("top", "`1`, `10`, `100` keys"),
    ("user", "users of the configuration, and those whom `auth_query` found, at most `auth_query_users_max`"),
];

/// Sections of the page, each family with what to do about it.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "Statements",
        &[
            (
                "keyway_queries_total",
                "the load of each shard: `SHOW STATS`, `SHOW SHARDS`; uneven: `SHOW SKEW`",
            ),
            (
                "keyway_query_seconds",
                "slow: `keyway_pool_wait_seconds` tells waiting from work, `[log] slow_statement` names the statement",
            ),
            ("keyway_errors_total", "the server's log; `[log] slow_statement` and traces carry the SQLSTATE"),
            ("keyway_query_bytes_total", "large answers: `SHOW STATS`, statements without LIMIT"),
            ("keyway_queries_in_flight", "piling up: `SHOW POOLS`, `SHOW TRANSACTIONS`"),
            (
                "keyway_refusals_total",
                "`reason` says which rule; the error's hint says what to write instead (docs/sharding.md)",
            ),
            (
                "keyway_plan_cache_hits_total",
                "with the misses, the share of statements that were routed without parsing",
            ),
            (
                "keyway_plan_cache_misses_total",
                "many: texts that differ by more than values; use parameters, or raise `plans_max`",
            ),
            ("keyway_plan_cache_evictions_total", "raise `plans_max`"),
            ("keyway_statement_evictions_total", "raise `server_statements_max`, or prepare fewer texts"),
            ("keyway_statement_renewals_total", "follows DDL; otherwise look for what changes tables"),
            (
                "keyway_spans_total",
                "`queue_full`: raise `spans_max` or lower `sample_ratio`; `failed`: the log says what the collector answered",
            ),
            (
                "keyway_limit_hits_total",
                "`limit` is the setting that was hit: raise it, or find who runs into it (`SHOW CLIENTS`)",
            ),
        ],
    ),
    (
        "Clients",
        &[
            ("keyway_clients", "`SHOW CLIENTS`; the bound is `clients_max`"),
            ("keyway_tls_clients", "those of `keyway_clients` with TLS; without: `[tls] mode = \"require\"`"),
            ("keyway_resting_clients", "clients that are silent: a smaller pool in the application would do"),
            ("keyway_logins_total", "`refused`: the log names user and reason"),
            ("keyway_pins", "`SHOW PINS`: pinned clients keep a server connection from others"),
            (
                "keyway_pins_total",
                "`reason` is the state that pins: take it out of the application where it can be",
            ),
            (
                "keyway_state_probes_total",
                "statements (DO, CALL) after which the server is searched: each costs a round trip",
            ),
            ("keyway_cancels_total", "`failed`, `refused`: the log, `cancels_max`"),
            ("keyway_cancels_in_flight", "the bound is `cancels_max`"),
            ("keyway_tls_handshakes_total", "`failed`: the log says by whom and why (docs/tls.md)"),
            ("keyway_replication_connections", "the bound is `replication_connections_max`"),
            ("keyway_replication_bytes_total", "what replication clients transfer"),
            ("keyway_channels", "LISTEN: `SHOW CLIENTS`, `channels_max`"),
            ("keyway_listening_clients", "LISTEN: `SHOW CLIENTS`"),
            (
                "keyway_notifications_total",
                "what is delivered; clients that do not read them hit `notification_bytes_max`",
            ),
            (
                "keyway_listener_losses_total",
                "the log: which server went; clients may have missed notifications",
            ),
        ],
    ),
    (
        "Reads and replicas",
        &[
            (
                "keyway_reads_total",
                "`reason` says why reads went to the primary: `floor`, lag, transaction (docs/replicas.md)",
            ),
            ("keyway_server_reads_total", "uneven: `SHOW REPLICAS` has the weight, zone and latency of each"),
            (
                "keyway_server_floor_misses_total",
                "the replica is behind what clients have written: `keyway_replica_lag_seconds`",
            ),
            (
                "keyway_replica_refusals_total",
                "`25006` is a write that was taken for a read: name the function in the hint of the log",
            ),
            (
                "keyway_read_retries_total",
                "servers fail reads: `keyway_server_breaker_open`, the servers' logs",
            ),
            (
                "keyway_floor_wait_total",
                "`keyway_replica_lag_seconds`; read at `consistency = \"eventual\"` where that is enough",
            ),
            ("keyway_replica_lag_seconds", "`SHOW REPLICAS`; beyond `max_lag` a replica serves no reads"),
            (
                "keyway_replica_lag_bytes",
                "grows without end: the replica has stopped to replay or lost its connection",
            ),
            ("keyway_replica_serving", "0: `SHOW REPLICAS` says why"),
            ("keyway_server_reads_outstanding", "much more on one than on others: it is slow"),
            ("keyway_server_read_latency_seconds", "much more on one than on others: look at that server"),
        ],
    ),
    (
        "Servers and failover",
        &[
            ("keyway_server_role", "no `primary` in a shard: `SHOW SHARDS`, `/readyz`, the log"),
            ("keyway_probe_failures_total", "the server or the way to it; the log has the error"),
            ("keyway_server_breaker_open", "the server is left alone: `SHOW SERVERS`, its log"),
            ("keyway_server_breaker_opened_total", "a server that comes and goes"),
            (
                "keyway_failover_waiting",
                "statements that wait for a primary: `SHOW SHARDS`; the bound is `failover_queue`",
            ),
            (
                "keyway_failover_wait_seconds",
                "how long a failover took for statements; the bound is `failover_hold`",
            ),
            ("keyway_dns_changes_total", "the name moved: connections to the old address are given up"),
            ("keyway_dns_failures_total", "the resolver; the old address goes on to be used"),
        ],
    ),
    (
        "Pools",
        &[
            (
                "keyway_pool_connections",
                "`SHOW POOLS`; `active` at `pool.size` all the time: raise it or find what holds them (`SHOW TRANSACTIONS`)",
            ),
            ("keyway_pool_waiters", "more than 0 for long: `pool.size`, `SHOW TRANSACTIONS`, `SHOW PINS`"),
            ("keyway_pool_wait_seconds", "what clients lose by waiting"),
            (
                "keyway_pool_connect_failures_total",
                "the log has the error: password, `max_connections`, network",
            ),
        ],
    ),
    (
        "Catalog",
        &[
            (
                "keyway_catalog_known",
                "0 for long: the log; until it is read again statements take the careful way",
            ),
            (
                "keyway_catalog_age_seconds",
                "more than `catalog_interval`: `keyway_catalog_read_failures_total`",
            ),
            ("keyway_catalog_differences", "`SHOW SHARDS`, the log: make the tables the same on every shard"),
            ("keyway_catalog_read_failures_total", "the log: rights of `probe_user`, `catalog_timeout`"),
            ("keyway_catalog_reads_total", "often: DDL, or sequences and functions that change"),
            ("keyway_catalog_rows", "the bound is `catalog_rows_max`"),
            ("keyway_catalog_bytes", "memory of the process"),
        ],
    ),
    (
        "Hot shards and keys",
        &[
            ("keyway_hot", "`SHOW HOTSPOTS`, then `SHOW ADVICE`: it says what helps, with a command"),
            ("keyway_skew_max_over_mean", "over 1.5: `SHOW SKEW`, then `SHOW HOTSPOTS`"),
            ("keyway_skew_variation", "`SHOW SKEW`"),
            ("keyway_skew_gini", "`SHOW SKEW`"),
            (
                "keyway_hot_key_share_lower",
                "`SHOW KEYS` has the key; no split helps against a single one, `SHOW ADVICE` says what does",
            ),
            ("keyway_hot_key_share_upper", "with the lower bound, how sure that is"),
            ("keyway_top_keys_share_lower", "few keys with much of the load: `SHOW KEYS`"),
            ("keyway_top_keys_share_upper", "with the lower bound, how sure that is"),
            ("keyway_distinct_keys", "few: the map cannot spread them; choose another key"),
            ("keyway_access_direction", "near 1: keys in order all go to the newest range; use a hash map"),
            (
                "keyway_scatter_ratio",
                "statements without the key: `SHOW ADVICE`; a table that they could use as reference",
            ),
        ],
    ),
    (
        "Protection of hot keys",
        &[
            (
                "keyway_protected_reads_total",
                "`shared` and `kept` are what servers are spared; `too_long`, many: raise `shared_reply_bytes_max` (docs/protection.md)",
            ),
            (
                "keyway_protected_writes_total",
                "`full`, `timed_out`: `writes_at_once`, shorter transactions; `bypassed`: put the write of the key first in its transaction",
            ),
            (
                "keyway_write_turn_wait_seconds",
                "what writers of a key lose by waiting: `SHOW KEYS` has the key",
            ),
            (
                "keyway_writes_waiting",
                "more than 0 for long: `SHOW PROTECTION`; the bound for each key is `write_queue_max`",
            ),
            ("keyway_kept_answers", "`SHOW PROTECTION`"),
            ("keyway_kept_answer_bytes", "the bound is `cache_bytes_max`"),
            ("keyway_kept_answer_evictions_total", "with few answers `kept`: raise `cache_bytes_max`"),
            ("keyway_protected_keys", "`SHOW KEYS`: which they are; `SHOW ADVICE`: what would help for good"),
        ],
    ),
    (
        "Dashboard",
        &[
            ("keyway_admin_streams", "the bound is `admin_streams_max`; a page whose tab is hidden has none"),
            (
                "keyway_admin_refusals_total",
                "`token`, many: somebody guesses; `host`, `site`: a page of another site asks; docs/dashboard.md",
            ),
        ],
    ),
];

const HEAD: &str = "\
# Metrics

`GET /metrics` at the `admin` address, in Prometheus' text form. Names end in their unit; what counts up ends in
`_total`. Labels have few values, all from the configuration or from lists in the code: never a key, a value or another
text of a client. What a reload takes out of the configuration has no series any more.

Alerts that use them are in `config/prometheus/alerts.yml`, dashboards in `config/grafana/dashboards`. This page is written
from the code (`src/app/catalogue.rs`): `cargo test --test metrics_catalogue` compares it with what the program registers.
";

/// The page, of the families that the program registers.
pub fn catalogue() -> Result<String, CatalogueError> {
    let families = registered()?;
    let mut text = HEAD.to_owned();
    text.push_str("\n## Labels\n\n| label | values |\n|---|---|\n");
    for (label, values) in LABELS {
        text.push_str(&format!("| `{label}` | {values} |\n"));
    }
    let mut left: BTreeSet<&str> = families.iter().map(|it| &*it.name).collect();
    for (title, entries) in SECTIONS {
        text.push_str(&format!("\n## {title}\n\n"));
        text.push_str(
            "| name | type, unit | labels | meaning | where to look next |\n|---|---|---|---|---|\n",
        );
        for (name, next) in *entries {
            let family = families.iter().find(|it| it.name == *name).ok_or(CatalogueError::Unknown(name))?;
            left.remove(name);
            text.push_str(&row(family, next));
        }
    }
    match left.first() {
        Some(name) => Err(CatalogueError::Unlisted((*name).to_owned())),
        None => Ok(text),
    }
}

/// As the program has them, without a proxy: with the labels checked.
pub fn registered() -> Result<Vec<Family>, CatalogueError> {
    let registry = Registry::default();
    Families::register(&registry)?;
    let families = registry.families();
    for family in &families {
        if let Some(label) = family.labels.iter().find(|it| !LABELS.iter().any(|(name, _)| name == it)) {
            return Err(CatalogueError::UnboundedLabel(family.name.clone(), label.clone()));
        }
    }
    Ok(families)
}

fn row(family: &Family, next: &str) -> String {
    let unit = match (family.kind, family.unit()) {
        (kind, "") => kind.label().to_owned(),
        (kind, unit) => format!("{}, {unit}", kind.label()),
    };
    let labels: Vec<String> = family.labels.iter().map(|it| format!("`{it}`")).collect();
    let Family { name, help, .. } = family;
    format!("| `{name}` | {unit} | {} | {help} | {next} |\n", labels.join(", "))
}
