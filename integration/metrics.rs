//! What `/metrics`, `/healthz` and `/readyz` tell, and that it moves with what clients do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::SinkExt;
use keyway::demo::postgres::{Shard, free_port};
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio_postgres::{Client, NoTls};

use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, as_db_error,
    assert_error, connect, error_of, rows, run, unsharded_config, until,
};
use crate::routing::{Shards, insert_user};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("metrics::the_text_is_valid_and_whole", the_text_is_valid_and_whole),
        harness.test("metrics::queries_count_where_they_went", queries_count_where_they_went),
        harness.test("metrics::errors_and_refusals_count", errors_and_refusals_count),
        harness.test("metrics::plans_count_hits_and_misses", plans_count_hits_and_misses),
        harness.test("metrics::a_copy_counts_once", a_copy_counts_once),
        harness.test("metrics::what_is_in_flight_shows", what_is_in_flight_shows),
        harness.test("metrics::a_full_pool_shows_who_waits", a_full_pool_shows_who_waits),
        harness.test("metrics::logins_and_clients_count", logins_and_clients_count),
        harness.test("metrics::servers_show_role_lag_and_failures", servers_show_role_lag_and_failures),
        harness.test("metrics::not_ready_before_a_primary_is_known", not_ready_before_a_primary_is_known),
    ]
}

/// Name and labels as in the text, to the value.
#[derive(Debug)]
struct Metrics {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

/// Reads Prometheus' text form, and takes nothing that the format does not allow.
fn parse(text: &str) -> Fallible<Metrics> {
    let (mut series, mut types, mut helps) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut family = String::new();
    assert!(text.ends_with('\n'), "the last line ends");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').ok_or_else(|| format!("no text: {line}"))?;
            assert!(is_name(name) && !help.trim().is_empty(), "{line}");
            assert!(helps.insert(name.to_owned()), "twice: {line}");
            family = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
            assert!(name == family && helps.contains(name), "TYPE follows HELP: {line}");
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
        } else {
            let (of, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
            let name = of.split('{').next().unwrap_or(of);
            let kind = types.get(&family).ok_or_else(|| format!("no TYPE in front: {line}"))?;
            let suffix = name.strip_prefix(&family[..]).ok_or_else(|| format!("out of place: {line}"))?;
            let fits = if kind == "histogram" {
                matches!(suffix, "_bucket" | "_sum" | "_count")
            } else {
                suffix.is_empty()
            };
            assert!(fits && is_name(name), "{line}");
            check_labels(of)?;
            let value: f64 = value.replace("Inf", "inf").parse().map_err(|_| format!("no number: {line}"))?;
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            assert!(series.insert(of.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    let metrics = Metrics { series, types };
    metrics.check_histograms()?;
    Ok(metrics)
}

fn is_name(name: &str) -> bool {
    let valid = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
    name.starts_with("keyway_") && name.chars().all(valid)
}

/// `{name="value",...}` with the names in order, each once.
fn check_labels(of: &str) -> Fallible<()> {
    let Some((_, labels)) = of.split_once('{') else { return Ok(()) };
    let labels = labels.strip_suffix("\"}").ok_or_else(|| format!("open: {of}"))?;
    let mut names = BTreeSet::new();
    for label in labels.split("\",") {
        let (name, value) = label.split_once("=\"").ok_or_else(|| format!("no value: {of}"))?;
        assert!(name.chars().all(|it| it.is_ascii_lowercase() || it == '_'), "{of}");
        assert!(!value.contains(['"', '\n', '\\']), "{of}");
        assert!(names.insert(name), "{of}");
    }
    Ok(())
}

impl Metrics {
    async fn of(keyway: &KeywayProcess) -> Fallible<Metrics> {
        parse(&keyway.metrics().await?)
    }

    /// When all that `client` did is counted: what Keyway itself answers, it answers after that.
    async fn after(keyway: &KeywayProcess, client: &Client) -> Fallible<Metrics> {
        run(client, "BEGIN").await?;
        run(client, "ROLLBACK").await?;
        Metrics::of(keyway).await
    }

    /// The sum of a metric's series that have all of these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    fn matching(&self, name: &str, labels: &[&str]) -> impl Iterator<Item = (&str, f64)> {
        self.series.iter().filter_map(move |(of, value)| {
            let of_name = of.split('{').next() == Some(name);
            (of_name && labels.iter().all(|it| of.contains(it))).then_some((&of[..], *value))
        })
    }

    /// What has become more since `before`, for one metric, without its name.
    fn since(&self, before: &Metrics, name: &str) -> Vec<(String, f64)> {
        let more = |(of, now): (&str, f64)| {
            let more = now - before.series.get(of).copied().unwrap_or(0.0);
            (more != 0.0).then(|| (of[name.len()..].to_owned(), more))
        };
        self.matching(name, &[]).filter_map(more).collect()
    }

    fn check_histograms(&self) -> Fallible<()> {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut of_labels = BTreeMap::<String, Vec<(f64, f64)>>::new();
            for (of, value) in self.matching(&format!("{name}_bucket"), &[]) {
                let (rest, le) = of.split_once(",le=\"").ok_or_else(|| format!("no le: {of}"))?;
                let (le, after) = le.split_once('"').ok_or("open")?;
                let le = le.replace("+Inf", "inf").parse().map_err(|_| format!("no number: {of}"))?;
                let rest = format!("{}{}", rest.trim_end_matches(','), after.trim_start_matches(','));
                of_labels.entry(rest.replace("_bucket", "_count")).or_default().push((le, value));
            }
            for (count, mut buckets) in of_labels {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{count}: {buckets:?}");
                let last = buckets.last().copied();
                assert_eq!(last, self.series.get(&count).map(|it| (f64::INFINITY, *it)), "{count}");
            }
        }
        Ok(())
    }
}

async fn the_text_is_valid_and_whole(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    run(&client, &insert_user(shards.user_on(0, 2_000_000), "metrics")).await?;
    run(&client, "SELECT name FROM users WHERE name = 'metrics'").await?;
    let metrics = Metrics::of(&shards.keyway).await?;
    let catalogue = std::fs::read_to_string("docs/metrics.md")?;
    for name in metrics.types.keys() {
        assert!(catalogue.contains(&format!("| `{name}` |")), "docs/metrics.md has no {name}");
    }
    for shard in ["shard=\"s1\"", "shard=\"s2\""] {
        for (role, access) in [("primary", "read"), ("primary", "write"), ("replica", "read")] {
            let labels =
                ["database=\"shop\"", shard, &format!("role=\"{role}\""), &format!("access=\"{access}\"")];
            for name in [
                "keyway_queries_total",
                "keyway_errors_total",
                "keyway_query_seconds_count",
                "keyway_query_seconds_sum",
                "keyway_query_bytes_total",
                "keyway_queries_in_flight",
            ] {
                assert_eq!(metrics.matching(name, &labels).count(), 1, "{name} of {labels:?}");
            }
            assert!(metrics.matching("keyway_query_seconds_bucket", &labels).count() > 10);
        }
    }
    let servers: Vec<String> =
        shards.shop.shop.shards.iter().flat_map(Shard::servers).map(|it| it.address()).collect();
    for server in &servers {
        let server = format!("server=\"{server}\"");
        for state in ["idle", "active", "connecting"] {
            let labels = [&server[..], "user=\"app\"", &format!("state=\"{state}\"")];
            assert_eq!(metrics.matching("keyway_pool_connections", &labels).count(), 1, "{labels:?}");
        }
        for name in
            ["keyway_pool_waiters", "keyway_pool_wait_seconds_count", "keyway_pool_connect_failures_total"]
        {
            assert_eq!(metrics.matching(name, &[&server, "user=\"app\""]).count(), 1, "{name} of {server}");
        }
        assert_eq!(metrics.matching("keyway_replica_lag_seconds", &[&server]).count(), 1, "{server}");
    }
    for name in
        ["keyway_plan_cache_hits_total", "keyway_plan_cache_misses_total", "keyway_read_retries_total"]
    {
        assert_eq!(metrics.matching(name, &["database=\"shop\""]).count(), 1, "{name}");
    }
    assert!(metrics.matching("keyway_refusals_total", &["reason=\"multi_shard_write\""]).count() == 1);
    Ok(())
}

const WHERE: &str = "access=\"{access}\",database=\"shop\",role=\"{role}\",shard=\"{shard}\"";

fn target(shard: &str, role: &str, access: &str) -> String {
    format!("{{{}}}", WHERE.replace("{access}", access).replace("{role}", role).replace("{shard}", shard))
}

async fn queries_count_where_they_went(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let mut user_id = 2_010_000;
    for (index, shard) in [(0, "s1"), (1, "s2")] {
        user_id = shards.user_on(index, user_id + 1);
        let before = Metrics::of(&shards.keyway).await?;
        run(&client, &insert_user(user_id, "counted")).await?;
        let after = Metrics::after(&shards.keyway, &client).await?;
        let of = target(shard, "primary", "write");
        for name in ["keyway_queries_total", "keyway_query_seconds_count"] {
            assert_eq!(after.since(&before, name), [(of.clone(), 1.0)], "{name}");
        }
        // CommandComplete "INSERT 0 1" and ReadyForQuery.
        assert_eq!(after.since(&before, "keyway_query_bytes_total"), [(of.clone(), 16.0 + 6.0)]);
        let seconds = after.since(&before, "keyway_query_seconds_sum");
        assert!(
            matches!(&seconds[..], [(it, time)] if *it == of && *time > 0.0 && *time < 30.0),
            "{seconds:?}"
        );

        shards.shop.shop.wait_until_replayed().await?;
        let select = format!("SELECT server_port FROM users_here WHERE user_id = {user_id}");
        let before = Metrics::of(&shards.keyway).await?;
        let port = rows(&client, &select).await?.remove(0);
        let after = Metrics::after(&shards.keyway, &client).await?;
        let primary = shards.shop.shop.shards[index].primary.port().to_string();
        let role = if port == primary { "primary" } else { "replica" };
        assert_eq!(after.since(&before, "keyway_queries_total"), [(target(shard, role, "read"), 1.0)]);
    }
    // In the extended protocol a group up to its Sync counts, in a transaction each of its statements.
    let statement = client.prepare("UPDATE users SET name = 'n' WHERE user_id = $1").await?;
    let before = Metrics::of(&shards.keyway).await?;
    for _ in 0..5 {
        client.execute(&statement, &[&user_id]).await?;
    }
    run(&client, "BEGIN").await?;
    run(&client, &format!("UPDATE users SET name = 'm' WHERE user_id = {user_id}")).await?;
    run(&client, "COMMIT").await?;
    let after = Metrics::after(&shards.keyway, &client).await?;
    assert_eq!(after.since(&before, "keyway_queries_total"), [(target("s2", "primary", "write"), 7.0)]);
    // A read of all shards counts on each, a write of a reference table too.
    let before = Metrics::of(&shards.keyway).await?;
    run(&client, "SELECT name FROM users WHERE name = 'counted'").await?;
    let after = Metrics::after(&shards.keyway, &client).await?;
    let since = after.since(&before, "keyway_queries_total");
    assert!(
        since.len() == 2 && since.iter().all(|it| it.1 == 1.0 && it.0.contains("access=\"read\"")),
        "{since:?}"
    );
    assert!(since.iter().any(|it| it.0.contains("s1")) && since.iter().any(|it| it.0.contains("s2")));
    let before = after;
    run(&client, "UPDATE countries SET name = name WHERE code = '--'").await?;
    let after = Metrics::after(&shards.keyway, &client).await?;
    let each = ["s1", "s2"].map(|it| (target(it, "primary", "write"), 1.0));
    assert_eq!(after.since(&before, "keyway_queries_total"), each);
    Ok(())
}

async fn errors_and_refusals_count(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 2_020_000), shards.user_on(1, 2_020_000));
    run(&client, &insert_user(b, "error")).await?;
    let before = Metrics::of(&shards.keyway).await?;
    error_of(&client, &insert_user(b, "error")).await?;
    let after = Metrics::after(&shards.keyway, &client).await?;
    assert_eq!(after.since(&before, "keyway_errors_total"), [(target("s2", "primary", "write"), 1.0)]);
    assert_eq!(after.since(&before, "keyway_refusals_total"), []);
    for (reason, sql) in [
        ("parse", "SELEC".to_owned()),
        ("unlisted_table", "SELECT * FROM nowhere".to_owned()),
        ("missing_key", "INSERT INTO users (name) VALUES ('x')".to_owned()),
        ("unmapped_key", "INSERT INTO users (user_id) VALUES (NULL)".to_owned()),
        ("bad_key", "SELECT name FROM users WHERE user_id = 'x'".to_owned()),
        ("multi_shard_write", format!("DELETE FROM users WHERE user_id IN ({a}, {b})")),
        ("multi_shard_read", "SELECT row_number() OVER () FROM users".to_owned()),
        ("key_update", format!("UPDATE users SET user_id = {a} WHERE user_id = {b}")),
        ("session_state", "CREATE TEMPORARY TABLE news (a int)".to_owned()),
        ("unsupported", "COMMIT PREPARED 'news'".to_owned()),
    ] {
        let before = Metrics::of(&shards.keyway).await?;
        error_of(&client, &sql).await?;
        let after = Metrics::after(&shards.keyway, &client).await?;
        let of = format!("{{database=\"shop\",reason=\"{reason}\"}}");
        assert_eq!(after.since(&before, "keyway_refusals_total"), [(of, 1.0)], "{sql}");
        assert_eq!(after.since(&before, "keyway_queries_total"), [], "no server has seen it: {sql}");
    }
    Ok(())
}

async fn plans_count_hits_and_misses(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let counts = async |before: &Metrics| {
        let after = Metrics::of(&shards.keyway).await?;
        let of = |name: &str| after.sum(name, &[]) - before.sum(name, &[]);
        Fallible::Ok((of("keyway_plan_cache_hits_total"), of("keyway_plan_cache_misses_total")))
    };
    // Plans of before the catalog was read are made anew.
    until("the catalog is known", async || {
        Ok(Metrics::of(&shards.keyway).await?.sum("keyway_catalog_known", &[]) == 1.0)
    })
    .await?;
    let before = Metrics::of(&shards.keyway).await?;
    for user_id in 2_030_000..2_030_010 {
        run(&client, &format!("SELECT name  AS counted_plan FROM users WHERE user_id = {user_id}")).await?;
    }
    assert_eq!(counts(&before).await?, (9.0, 1.0), "one plan for all literals");
    let before = Metrics::of(&shards.keyway).await?;
    for _ in 0..3 {
        error_of(&client, "SELECT counted_plan FROM").await?;
    }
    assert_eq!(counts(&before).await?, (0.0, 3.0), "an error has no plan");
    Ok(())
}

/// Database `plain` behind a Keyway that nobody else uses.
async fn quiet(harness: &Shared, settings: &str) -> Fallible<KeywayProcess> {
    let fixture = harness.single().await?;
    let config = |listen: &str, admin: &str| unsharded_config(&fixture.shard, listen, admin) + settings;
    harness.start_keyway(config).await
}

async fn session(keyway: &KeywayProcess) -> Fallible<Client> {
    connect(&keyway.url(USER, APP_PASSWORD, SingleFixture::DATABASE)).await
}

async fn a_copy_counts_once(harness: Arc<Shared>) -> Outcome {
    let keyway = quiet(&harness, "").await?;
    let client = session(&keyway).await?;
    run(&client, "CREATE TABLE copy_counted (a int)").await?;
    let statement = client.prepare("COPY copy_counted FROM STDIN").await?;
    let before = Metrics::of(&keyway).await?;
    let sink = client.copy_in::<_, bytes::Bytes>(&statement).await?;
    tokio::pin!(sink);
    sink.send("1\n2\n".into()).await?;
    let during = Metrics::of(&keyway).await?;
    assert_eq!(during.sum("keyway_queries_in_flight", &["role=\"primary\"", "access=\"write\""]), 1.0);
    assert_eq!(during.sum("keyway_queries_in_flight", &[]), 1.0);
    assert_eq!(sink.finish().await?, 2);
    let after = Metrics::after(&keyway, &client).await?;
    let since = after.since(&before, "keyway_queries_total");
    assert!(
        matches!(&since[..], [(of, count)] if of.contains("access=\"write\"") && *count == 1.0),
        "{since:?}"
    );
    assert_eq!(after.sum("keyway_queries_in_flight", &[]), 0.0);
    let before = after;
    let sink = client.copy_in::<_, bytes::Bytes>(&statement).await?;
    tokio::pin!(sink);
    sink.send("x\n".into()).await?;
    sink.finish().await.expect_err("x is no integer");
    let after = Metrics::after(&keyway, &client).await?;
    assert_eq!(after.since(&before, "keyway_queries_total").iter().map(|it| it.1).sum::<f64>(), 1.0);
    assert_eq!(after.since(&before, "keyway_errors_total").iter().map(|it| it.1).sum::<f64>(), 1.0);
    assert_eq!(after.sum("keyway_queries_in_flight", &[]), 0.0);
    Ok(())
}

async fn what_is_in_flight_shows(harness: Arc<Shared>) -> Outcome {
    let keyway = quiet(&harness, "").await?;
    let client = session(&keyway).await?;
    let (cancel, sleep) = (client.cancel_token(), "SELECT pg_sleep(600)");
    let sleeping = tokio::spawn(async move { error_of(&client, sleep).await });
    let in_flight = async || {
        Fallible::Ok(Metrics::of(&keyway).await?.sum("keyway_queries_in_flight", &["role=\"primary\""]))
    };
    until("a query is in flight", || async { Ok(in_flight().await? == 1.0) }).await?;
    let active = Metrics::of(&keyway).await?.sum("keyway_pool_connections", &["state=\"active\""]);
    assert_eq!(active, 1.0);
    let direct = harness.single().await?.shard.primary.connect("postgres").await?;
    let running = format!("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = '{sleep}'");
    until("the server runs it", || async { Ok(!rows(&direct, &running).await?.is_empty()) }).await?;
    cancel.cancel_query(NoTls).await?;
    assert_error(&sleeping.await??, "57014", "canceling statement due to user request");
    until("nothing is in flight", || async { Ok(in_flight().await? == 0.0) }).await?;
    until("its connection is idle", || async {
        let metrics = Metrics::of(&keyway).await?;
        let connections = |it| metrics.sum("keyway_pool_connections", &[it]);
        Ok(connections("state=\"active\"") == 0.0 && connections("state=\"idle\"") >= 1.0)
    })
    .await?;
    Ok(())
}

async fn a_full_pool_shows_who_waits(harness: Arc<Shared>) -> Outcome {
    let keyway = quiet(&harness, "pool = { size = 1, wait_timeout = \"30s\" }\n").await?;
    let (holder, waiter) = (session(&keyway).await?, session(&keyway).await?);
    let fixture = harness.single().await?;
    let server = format!("server=\"{}\"", fixture.shard.primary.address());
    run(&holder, "BEGIN").await?;
    run(&holder, "SELECT pg_backend_pid()").await?;
    let before = Metrics::of(&keyway).await?;
    let waiting = tokio::spawn(async move { rows(&waiter, "SELECT pg_backend_pid()").await });
    let waiters = async || Fallible::Ok(Metrics::of(&keyway).await?.sum("keyway_pool_waiters", &[&server]));
    until("somebody waits", || async { Ok(waiters().await? == 1.0) }).await?;
    run(&holder, "COMMIT").await?;
    assert_eq!(waiting.await??.len(), 1);
    let after = Metrics::of(&keyway).await?;
    assert_eq!(waiters().await?, 0.0);
    let waited = |name: &str| after.sum(name, &[&server]) - before.sum(name, &[&server]);
    assert_eq!(waited("keyway_pool_wait_seconds_count"), 1.0);
    assert!(waited("keyway_pool_wait_seconds_sum") > 0.0);
    let connections = after.sum("keyway_pool_connections", &[&server]);
    assert_eq!(connections, 1.0, "size is the bound");
    Ok(())
}

async fn logins_and_clients_count(harness: Arc<Shared>) -> Outcome {
    let keyway = quiet(&harness, "").await?;
    let client = session(&keyway).await?;
    let metrics = Metrics::after(&keyway, &client).await?;
    assert_eq!(metrics.sum("keyway_clients", &[]), 1.0);
    assert_eq!(metrics.sum("keyway_logins_total", &["result=\"ok\""]), 1.0);
    let url = keyway.url(USER, "wrong", SingleFixture::DATABASE);
    let error = tokio_postgres::connect(&url, NoTls).await.err().ok_or("a wrong password")?;
    assert_error(&as_db_error(error)?, "28P01", "password authentication failed");
    drop(client);
    until("both have left", || async { Ok(Metrics::of(&keyway).await?.sum("keyway_clients", &[]) == 0.0) })
        .await?;
    let metrics = Metrics::of(&keyway).await?;
    assert_eq!(metrics.sum("keyway_logins_total", &["result=\"refused\""]), 1.0);
    assert_eq!(metrics.sum("keyway_logins_total", &[]), 2.0);
    Ok(())
}

async fn servers_show_role_lag_and_failures(harness: Arc<Shared>) -> Outcome {
    let mut own = harness.fresh_shard(1).await?;
    own.shard.primary.create_database(SingleFixture::DATABASE, USER, APP_PASSWORD).await?;
    own.shard.wait_until_replayed().await?;
    let config = |listen: &str, admin: &str| unsharded_config(&own.shard, listen, admin);
    let mut keyway = harness.start_keyway(config).await?;
    let [primary, replica] = [&own.shard.primary, &own.shard.replicas[0]].map(|it| it.address());
    let role = |metrics: &Metrics, server: &str, role: &str| {
        metrics.sum("keyway_server_role", &[&format!("\"{server}\""), &format!("role=\"{role}\"")])
    };
    until("lag is known", || async {
        let metrics = Metrics::of(&keyway).await?;
        let lag = metrics.sum("keyway_replica_lag_seconds", &[&replica]);
        let bytes = metrics.sum("keyway_replica_lag_bytes", &[&replica]);
        Ok(role(&metrics, &replica, "replica") == 1.0 && (0.0..60.0).contains(&lag) && bytes >= 0.0)
    })
    .await?;
    let metrics = Metrics::of(&keyway).await?;
    assert_eq!((role(&metrics, &primary, "primary"), role(&metrics, &primary, "replica")), (1.0, 0.0));
    assert_eq!(role(&metrics, &replica, "primary"), 0.0);
    assert!(metrics.sum("keyway_replica_lag_seconds", &[&primary]).is_nan(), "a primary has none");
    assert_eq!(metrics.sum("keyway_probe_failures_total", &[&primary]), 0.0);
    assert_eq!(keyway.http("/readyz").await?, (200, "ready\n".to_owned()));

    own.shard.primary.kill().await?;
    keyway.wait_for_status("/readyz", 503).await?;
    let (_, body) = keyway.http("/readyz").await?;
    assert_eq!(body, "database plain: shard main has no primary\n");
    assert_eq!(keyway.http("/healthz").await?.0, 200, "the process is well");
    until("failed probes", || async {
        let metrics = Metrics::of(&keyway).await?;
        Ok(metrics.sum("keyway_probe_failures_total", &[&primary]) > 0.0
            && role(&metrics, &primary, "primary") == 0.0)
    })
    .await?;
    own.shard.primary.start().await?;
    keyway.wait_for_status("/readyz", 200).await?;
    Ok(())
}

async fn not_ready_before_a_primary_is_known(harness: Arc<Shared>) -> Outcome {
    let nobody = free_port(&[])?;
    let config = |listen: &str, admin: &str| {
        format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n\
             [databases.plain]\nservers = [\"127.0.0.1:{nobody}\"]\nfailover_hold = \"300ms\"\n"
        )
    };
    let keyway = harness.start_keyway_unready(config).await?;
    assert_eq!(keyway.http("/healthz").await?, (200, "ok\n".to_owned()));
    let (status, body) = keyway.http("/readyz").await?;
    assert_eq!((status, &body[..]), (503, "database plain: shard main has no primary\n"));
    let metrics = Metrics::of(&keyway).await?;
    assert_eq!(metrics.sum("keyway_server_role", &[]), 0.0);
    let url = keyway.url(USER, APP_PASSWORD, SingleFixture::DATABASE);
    let error = tokio_postgres::connect(&url, NoTls).await.err().ok_or("there is no server")?;
    assert_error(&as_db_error(error)?, "57P03", "has no primary");
    Ok(())
}
