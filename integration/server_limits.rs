//! Limits of what Keyway keeps and of how it uses servers, hit on purpose: each is counted, and does what it is
//! there for. Those that clients run into themselves are in `limits`.

use std::sync::Arc;

use keyway::demo::postgres::{Server, Signal};
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::harness::wire::{Wire, query};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, OwnShard, Shared, SingleFixture, assert_error,
    assert_hits, connect, error_of, rows, run, unsharded_config, until, until_hits,
};
use crate::limits::{Said, busy, client, config, keyway, last_words, with_users};

const DATABASE: &str = SingleFixture::DATABASE;
/// No probe comes between: that a server hangs is not known yet.
const UNPROBED: &str = "probe_interval = \"30s\"\nmax_lag = \"1m\"";

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("limits::size_of_a_pool", size_of_a_pool),
        harness.test("limits::logins_to_a_server_ramp", logins_to_a_server_ramp),
        harness.test("limits::servers_that_do_not_let_in", servers_that_do_not_let_in),
        harness.test("limits::server_connections_that_nobody_uses", server_connections_that_nobody_uses),
        harness.test("limits::server_connections_that_are_old", server_connections_that_are_old),
        harness.test("limits::servers_that_do_not_answer_probes", servers_that_do_not_answer_probes),
        harness.test("limits::catalogs_that_take_too_long", catalogs_that_take_too_long),
        harness.test("limits::catalogs_that_are_too_large", catalogs_that_are_too_large),
        harness.test("limits::plans_make_room", plans_make_room),
        harness.test("limits::spare_buffers", spare_buffers),
        harness.test("limits::a_big_message_of_a_server", a_big_message_of_a_server),
        harness.test("limits::shutdown_cuts_off", shutdown_cuts_off),
        harness.test("limits::shutdown_waits_for_no_server", shutdown_waits_for_no_server),
    ]
}

/// A server of one test's own, which it may freeze.
async fn own(harness: &Shared) -> Fallible<OwnShard> {
    let own = harness.fresh_shard(0).await?;
    own.shard.primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
    Ok(own)
}

async fn before(harness: &Shared, server: &Server, said: Said<'_>) -> Fallible<KeywayProcess> {
    harness.start_keyway(config(&server.address(), said)).await
}

/// The statement of a client that waits.
fn asking(client: Client) -> JoinHandle<Fallible<Vec<String>>> {
    tokio::spawn(async move { rows(&client, "SELECT 7").await })
}

/// The sum over all labels.
async fn metric(keyway: &KeywayProcess, name: &str) -> Fallible<f64> {
    let metrics = keyway.metrics().await?;
    let values = metrics.lines().filter(|it| it.starts_with(name));
    Ok(values.filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

async fn connecting(keyway: &KeywayProcess) -> Fallible<usize> {
    let metrics = keyway.metrics().await?;
    let gauges = metrics.lines().filter(|it| it.starts_with("keyway_pool_connections{"));
    let connecting = gauges.filter(|it| it.contains("state=\"connecting\""));
    Ok(connecting.filter_map(|it| it.rsplit(' ').next()?.parse::<usize>().ok()).sum())
}

async fn size_of_a_pool(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, Said { pool: "size = 2", ..Said::default() }).await?;
    let held = busy(&keyway, USER, 2).await?;
    assert_hits(&keyway, "pool.size", 0).await?;
    let waiting = [asking(client(&keyway).await?), asking(client(&keyway).await?)];
    until_hits(&keyway, "pool.size", 2).await?;
    assert_eq!(connecting(&keyway).await?, 0);
    run(&held[0], "COMMIT").await?;
    for it in waiting {
        assert_eq!(it.await??, ["7"]);
    }
    Ok(())
}

async fn logins_to_a_server_ramp(harness: Arc<Shared>) -> Outcome {
    let (own, users) = with_users(&harness, 2, "").await?;
    let primary = &own.shard.primary;
    let said = Said {
        users: &users,
        database: UNPROBED,
        pool: "connect_timeout = \"1m\"\nwait_timeout = \"1m\"",
        ..Said::default()
    };
    let pool = format!("{}\nramp = 1", said.pool);
    let keyway = before(&harness, primary, Said { pool: &pool, ..said }).await?;
    two_logins(&keyway, primary, ["user1", "user1"], "ramp").await?;
    assert_hits(&keyway, "ramp", 1).await?;
    let keyway = before(&harness, primary, Said { limits: "server_logins_max = 1", ..said }).await?;
    two_logins(&keyway, primary, ["user1", "user2"], "server_logins_max").await?;
    assert_hits(&keyway, "server_logins_max", 1).await
}

/// Two users' clients need a server connection each, to a server that lets nobody in for a while.
async fn two_logins(keyway: &KeywayProcess, primary: &Server, users: [&str; 2], limit: &str) -> Outcome {
    // What was needed to greet clients is in use.
    let _held = [busy(keyway, "user1", 1).await?, busy(keyway, "user2", 1).await?];
    let url = |user: &str| keyway.url(user, APP_PASSWORD, DATABASE);
    let [first, second] = [connect(&url(users[0])).await?, connect(&url(users[1])).await?];
    assert_hits(keyway, limit, 0).await?;
    primary.freeze()?;
    let first = asking(first);
    until("one logs in", async || Ok(connecting(keyway).await? == 1)).await?;
    let second = asking(second);
    until_hits(keyway, limit, 1).await?;
    assert_eq!(connecting(keyway).await?, 1, "{limit}");
    primary.thaw()?;
    for it in [first, second] {
        assert_eq!(it.await??, ["7"]);
    }
    Ok(())
}

async fn servers_that_do_not_let_in(harness: Arc<Shared>) -> Outcome {
    let own = own(&harness).await?;
    let primary = &own.shard.primary;
    let (pool, database) = ("connect_timeout = \"200ms\"", format!("{UNPROBED}\nfailover_hold = \"2s\""));
    let keyway = before(&harness, primary, Said { database: &database, pool, ..Said::default() }).await?;
    primary.freeze()?;
    // The greeting needs a server.
    let error = match Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await {
        Ok(_) => return Err("logged in".into()),
        Err(error) => error.to_string(),
    };
    assert!(error.starts_with("57P03 cannot connect to server"), "{error}");
    assert!(keyway.limit_hits("connect_timeout").await? >= 1);
    primary.thaw()?;
    until("it is served", async || Ok(client(&keyway).await.is_ok())).await?;
    Ok(())
}

/// Server connections of clients, as the server has them.
async fn connections(server: &Server) -> Fallible<Option<String>> {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}' AND application_name NOT LIKE 'keyway%'"
    );
    Ok(server.query_text(&sql).await?)
}

async fn server_connections_that_nobody_uses(harness: Arc<Shared>) -> Outcome {
    let own = own(&harness).await?;
    let primary = &own.shard.primary;
    let said = Said { pool: "idle_timeout = \"1s\"", ..Said::default() };
    let keyway = before(&harness, primary, said).await?;
    let (client, _other) = (client(&keyway).await?, client(&keyway).await?);
    run(&client, "BEGIN; SELECT 1").await?;
    assert_eq!(connections(primary).await?.as_deref(), Some("1"));
    run(&client, "COMMIT").await?;
    until_hits(&keyway, "idle_timeout", 1).await?;
    until("it is closed", async || Ok(connections(primary).await?.as_deref() == Some("0"))).await?;
    assert_hits(&keyway, "lifetime", 0).await?;
    assert_eq!(rows(&client, "SELECT 1").await?, ["1"]);
    Ok(())
}

async fn server_connections_that_are_old(harness: Arc<Shared>) -> Outcome {
    let said = Said { pool: "size = 1\nlifetime = \"1s\"", ..Said::default() };
    let keyway = keyway(&harness, said).await?;
    let client = client(&keyway).await?;
    let pid = "SELECT pg_backend_pid()";
    // Whatever is under way is not cut short.
    run(&client, "BEGIN").await?;
    let first = rows(&client, pid).await?;
    run(&client, "SELECT pg_sleep(1.1)").await?;
    assert_eq!(rows(&client, pid).await?, first);
    assert_hits(&keyway, "lifetime", 0).await?;
    run(&client, "COMMIT").await?;
    until_hits(&keyway, "lifetime", 1).await?;
    assert_ne!(rows(&client, pid).await?, first);
    // An idle one goes too.
    until_hits(&keyway, "lifetime", 2).await?;
    assert_hits(&keyway, "idle_timeout", 0).await
}

async fn servers_that_do_not_answer_probes(harness: Arc<Shared>) -> Outcome {
    let own = own(&harness).await?;
    let primary = &own.shard.primary;
    let database = "probe_interval = \"50ms\"\nprobe_timeout = \"500ms\"\nfailover_hold = \"300ms\"";
    let said = Said { database, ..Said::default() };
    let keyway = before(&harness, primary, said).await?;
    let client = client(&keyway).await?;
    primary.freeze()?;
    until("it is not used", async || {
        Ok(keyway.http("/readyz").await?.0 == 503 && keyway.limit_hits("probe_timeout").await? >= 2)
    })
    .await?;
    let error = error_of(&client, "SELECT 1").await?;
    assert_error(&error, "57P03", "has no primary");
    assert!(error.detail().is_some_and(|it| it.contains("no answer to a probe within 500ms")), "{error:?}");
    assert!(metric(&keyway, "keyway_probe_failures_total{").await? >= 2.0);
    primary.thaw()?;
    until("it is back", async || Ok(rows(&client, "SELECT 1").await.is_ok())).await?;
    Ok(())
}

async fn catalogs_that_take_too_long(harness: Arc<Shared>) -> Outcome {
    let own = own(&harness).await?;
    let primary = &own.shard.primary;
    let database = format!("{UNPROBED}\ncatalog_interval = \"100ms\"\ncatalog_timeout = \"1s\"");
    let keyway = before(&harness, primary, Said { database: &database, ..Said::default() }).await?;
    until("the catalog is known", async || Ok(metric(&keyway, "keyway_catalog_known{").await? == 1.0))
        .await?;
    primary.freeze()?;
    until_hits(&keyway, "catalog_timeout", 1).await?;
    assert!(metric(&keyway, "keyway_catalog_read_failures_total{").await? >= 1.0);
    assert!(keyway.log().contains("no answer within 1s"), "{}", keyway.log());
    primary.thaw()?;
    let reads = metric(&keyway, "keyway_catalog_reads_total{").await?;
    until("it is read again", async || Ok(metric(&keyway, "keyway_catalog_reads_total{").await? > reads))
        .await?;
    Ok(())
}

async fn catalogs_that_are_too_large(harness: Arc<Shared>) -> Outcome {
    let own = own(&harness).await?;
    let primary = &own.shard.primary;
    let columns: Vec<String> = (0..1_200).map(|it| format!("c{it} int")).collect();
    let direct = primary.connect(DATABASE).await?;
    run(&direct, &format!("CREATE TABLE wide ({})", columns.join(", "))).await?;
    run(&direct, "CREATE FUNCTION grows() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'").await?;
    run(&direct, &format!("GRANT ALL ON wide TO {USER}")).await?;
    let keyway =
        before(&harness, primary, Said { database: "catalog_rows_max = 1000", ..Said::default() }).await?;
    until("it is too large", async || Ok(keyway.limit_hits("catalog_rows_max").await? >= 1)).await?;
    assert!(keyway.log().contains("catalog cannot be read"), "{}", keyway.log());
    assert_eq!(metric(&keyway, "keyway_catalog_known{").await?, 0.0);
    // Nothing is known, so that what a function leaves behind is looked for.
    let client = client(&keyway).await?;
    assert_eq!(rows(&client, "SELECT grows()").await?, ["1"]);
    assert!(metric(&keyway, "keyway_state_probes_total{").await? >= 1.0);
    Ok(())
}

async fn plans_make_room(harness: Arc<Shared>) -> Outcome {
    const TEXTS: usize = 100;
    let keyway = keyway(&harness, Said { limits: "plans_max = 16", ..Said::default() }).await?;
    let client = client(&keyway).await?;
    for _ in 0..2 {
        for it in 0..TEXTS {
            assert_eq!(rows(&client, &format!("SELECT 1 AS text{it}")).await?, ["1"]);
        }
    }
    // Each text is one plan, so that the second round finds no more than so many.
    let hits = keyway.limit_hits("plans_max").await?;
    assert!(hits >= 2 * TEXTS as u64 - 2 * 16, "{hits}");
    assert_eq!(metric(&keyway, "keyway_plan_cache_evictions_total{").await?, hits as f64);
    assert!(metric(&keyway, "keyway_plan_cache_misses_total{").await? >= (2 * TEXTS - 16) as f64);
    Ok(())
}

async fn spare_buffers(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, Said { limits: "buffers_max = 1", ..Said::default() }).await?;
    let client = client(&keyway).await?;
    let long = "x".repeat(50_000);
    for round in 1..=10 {
        assert_eq!(
            rows(&client, &format!("SELECT repeat('x', 50000), {round}")).await?,
            [format!("{long}|{round}")]
        );
    }
    // The client's and its server's: one is kept.
    assert!(keyway.limit_hits("buffers_max").await? >= 5);
    Ok(())
}

async fn a_big_message_of_a_server(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, Said { limits: "message_bytes_max = 65536", ..Said::default() }).await?;
    let client = client(&keyway).await?;
    // Rows of any length pass.
    assert_eq!(rows(&client, "SELECT repeat('x', 100000)").await?, ["x".repeat(100_000)]);
    assert_hits(&keyway, "message_bytes_max", 0).await?;
    let error = error_of(&client, "DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 100000); END $$").await?;
    assert_error(&error, "08006", "server connection was lost");
    assert!(error.detail().is_some_and(|it| it.contains("over message_bytes_max")), "{error:?}");
    assert_hits(&keyway, "message_bytes_max", 1).await?;
    assert_eq!(rows(&client, "SELECT 1").await?, ["1"]);
    Ok(())
}

/// One client that is silent inside a transaction, and one whose statement runs.
async fn caught(keyway: &KeywayProcess) -> Fallible<(Wire, Wire)> {
    let log_in = async || Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await;
    let (mut silent, mut working) = (log_in().await?, log_in().await?);
    silent.ask(&query("BEGIN; SELECT 1"), 1).await?;
    working.send(&query("SELECT pg_sleep(600)")).await?;
    until("both are at work", async || {
        let metrics = keyway.metrics().await?;
        let gauges = metrics.lines().filter(|it| it.starts_with("keyway_pool_connections{"));
        let active = gauges.filter(|it| it.contains("state=\"active\"") && it.ends_with(" 2"));
        Ok(active.count() == 1)
    })
    .await?;
    Ok((silent, working))
}

const CUT_OFF: &str = "57P01 terminating connection due to administrator command";

async fn shutdown_cuts_off(harness: Arc<Shared>) -> Outcome {
    let own = own(&harness).await?;
    let primary = &own.shard.primary;
    let config = |listen: &str, admin: &str| {
        unsharded_config(&own.shard, listen, admin) + "[limits]\nshutdown_timeout = \"2s\"\n"
    };
    let mut keyway = harness.start_keyway(config).await?;
    let (mut silent, mut working) = caught(&keyway).await?;
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active'";
    assert_eq!(primary.query_text(sleeping).await?.as_deref(), Some("1"));
    keyway.signal(Signal::TERM)?;
    // It says so while it waits, and what it waits for.
    keyway.wait_for_status("/readyz", 503).await?;
    assert_eq!(keyway.http("/readyz").await?.1, "keyway is stopping\n");
    assert!(keyway.metrics().await?.contains("keyway_clients 2\n"));
    assert_hits(&keyway, "shutdown_timeout", 0).await?;
    assert_eq!(silent.rows("SELECT 'still here'").await?, ["still here"]);
    assert_eq!(last_words(&mut silent).await?, CUT_OFF);
    assert!(working.rest().await?.is_empty(), "in the middle of an answer no word is safe");
    drop((silent, working));
    let status = keyway.wait_until_ended().await?;
    assert!(status.success(), "{status}:\n{}", keyway.log());
    assert!(keyway.log().contains("shutdown_timeout is over"), "{}", keyway.log());
    // The server was told, not only left.
    assert_eq!(primary.query_text(sleeping).await?.as_deref(), Some("0"));
    Ok(())
}

/// A server that hangs keeps the process a little longer, in which its last figures can be read.
async fn shutdown_waits_for_no_server(harness: Arc<Shared>) -> Outcome {
    let own = own(&harness).await?;
    let primary = &own.shard.primary;
    let said = Said { limits: "shutdown_timeout = \"200ms\"", database: UNPROBED, ..Said::default() };
    let mut keyway = before(&harness, primary, said).await?;
    let (mut silent, _working) = caught(&keyway).await?;
    primary.freeze()?;
    keyway.signal(Signal::TERM)?;
    assert_eq!(last_words(&mut silent).await?, CUT_OFF);
    assert_hits(&keyway, "shutdown_timeout", 2).await?;
    let status = keyway.wait_until_ended().await?;
    assert!(status.success(), "{status}:\n{}", keyway.log());
    Ok(())
}
