//! Every limit of the config, hit on purpose: who hits it is told in PostgreSQL's terms, is counted, and
//! takes nothing from others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyway::demo::postgres::Server;
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, NoTls};

use crate::harness::wire::{Wire, bind, execute, flush, message, parse, query, startup, sync};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, OwnShard, Shared, SingleFixture, as_db_error,
    assert_error, assert_hits, connect, error_of, rows, run, until, until_hits,
};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("limits::clients_in_all_of_a_user_and_of_a_database", clients),
        harness.test("limits::waiters_and_their_time", waiters_and_their_time),
        harness.test("limits::logins_at_once_and_their_time", logins_at_once_and_their_time),
        harness.test("limits::bytes_before_login", bytes_before_login),
        harness.test("limits::idle_clients", idle_clients),
        harness.test("limits::idle_transactions", idle_transactions),
        harness.test("limits::unfinished_exchanges", unfinished_exchanges),
        harness.test("limits::long_queries", long_queries),
        harness.test("limits::long_queries_on_several_shards", long_queries_on_several_shards),
        harness.test("limits::servers_that_do_not_cancel", servers_that_do_not_cancel),
        harness.test("limits::long_transactions", long_transactions),
        harness.test("limits::prepared_statements", prepared_statements),
        harness.test("limits::a_big_message", a_big_message),
        harness.test("limits::memory_of_a_merge", memory_of_a_merge),
        harness.test("limits::server_connections_are_shared", server_connections_are_shared),
        harness.test("limits::busy_users_share_too", busy_users_share_too),
        harness.test("limits::more_users_than_connections", more_users_than_connections),
        harness.test("limits::each_bound_on_server_connections", each_bound_on_server_connections),
        harness.test("limits::a_server_that_is_gone_is_tried_now_and_then", a_server_that_is_gone),
    ]
}

/// What one test says in its configuration.
#[derive(Clone, Copy, Default)]
pub struct Said<'a> {
    pub limits: &'a str,
    pub user: &'a str,
    pub users: &'a str,
    pub database: &'a str,
    pub pool: &'a str,
}

pub fn config(servers: &str, said: Said<'_>) -> impl Fn(&str, &str) -> String {
    let Said { limits, user, users, database, pool } = said;
    let rest = format!(
        "[limits]\n{limits}\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n{user}\n{users}\n\
         [databases.{DATABASE}]\nservers = [\"{servers}\"]\n{database}\n[databases.{DATABASE}.pool]\n{pool}\n"
    );
    move |listen, admin| format!("listen = \"{listen}\"\nadmin = \"{admin}\"\n{rest}")
}

/// Only the primary, so that it is clear who serves.
pub async fn keyway(harness: &Shared, said: Said<'_>) -> Fallible<KeywayProcess> {
    let address = harness.single().await?.shard.primary.address();
    harness.start_keyway(config(&address, said)).await
}

fn url(keyway: &KeywayProcess, user: &str) -> String {
    keyway.url(user, APP_PASSWORD, DATABASE)
}

pub async fn client(keyway: &KeywayProcess) -> Fallible<Client> {
    connect(&url(keyway, USER)).await
}

async fn refusal(url: &str) -> Fallible<DbError> {
    match tokio_postgres::connect(url, NoTls).await {
        Ok(_) => Err("logged in".into()),
        Err(error) => as_db_error(error),
    }
}

async fn wire(keyway: &KeywayProcess) -> Fallible<Wire> {
    Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await
}

/// The error that ends a session whose client says nothing more.
pub async fn last_words(wire: &mut Wire) -> Fallible<String> {
    let words = wire.until('E').await?;
    let last = words.last().ok_or("no last words")?;
    assert_eq!(last.field('V').as_deref(), Some("FATAL"), "{last:?}");
    assert!(wire.rest().await?.is_empty());
    Ok(last.error())
}

async fn clients(harness: Arc<Shared>) -> Outcome {
    let said = Said { user: "clients_max = 1", database: "clients_max = 1", ..Said::default() };
    let keyway = keyway(&harness, said).await?;
    let first = client(&keyway).await?;
    assert_error(
        &refusal(&url(&keyway, USER)).await?,
        "53300",
        &format!("too many connections for role \"{USER}\""),
    );
    assert_hits(&keyway, "users.clients_max", 1).await?;
    drop(first);
    until("there is room", async || Ok(client(&keyway).await.is_ok())).await?;

    let said = Said { database: "clients_max = 1", ..Said::default() };
    let keyway = self::keyway(&harness, said).await?;
    let first = client(&keyway).await?;
    let error = refusal(&url(&keyway, USER)).await?;
    assert_error(&error, "53300", &format!("too many connections for database \"{DATABASE}\""));
    assert_hits(&keyway, "databases.clients_max", 1).await?;
    drop(first);
    until("there is room", async || Ok(client(&keyway).await.is_ok())).await?;

    let keyway = self::keyway(&harness, Said { limits: "clients_max = 1", ..Said::default() }).await?;
    let first = client(&keyway).await?;
    assert_error(&refusal(&url(&keyway, USER)).await?, "53300", "sorry, too many clients already");
    assert_hits(&keyway, "limits.clients_max", 1).await?;
    drop(first);
    Ok(until("there is room", async || Ok(client(&keyway).await.is_ok())).await?)
}

async fn waiters_and_their_time(harness: Arc<Shared>) -> Outcome {
    let said = Said { pool: "size = 1\nwaiters_max = 1\nwait_timeout = \"1s\"", ..Said::default() };
    let keyway = keyway(&harness, said).await?;
    let [holder, waiter, third] = [client(&keyway).await?, client(&keyway).await?, client(&keyway).await?];
    run(&holder, "BEGIN; SELECT 1").await?;
    let waiting = tokio::spawn(async move { error_of(&waiter, "SELECT 1").await });
    until("it waits", async || {
        Ok(keyway.metrics().await?.contains("keyway_pool_waiters{") && waiters(&keyway).await? == 1)
    })
    .await?;
    let error = error_of(&third, "SELECT 1").await?;
    assert_error(&error, "53300", "no connection to server");
    assert_eq!(error.detail(), Some("1 clients wait for a connection already"));
    let error = waiting.await??;
    assert_error(&error, "53300", "no connection to server");
    assert_eq!(error.detail(), Some("no connection became free within 1s"));
    assert_hits(&keyway, "waiters_max", 1).await?;
    assert_hits(&keyway, "wait_timeout", 1).await?;
    assert_hits(&keyway, "pool.size", 1).await?;
    run(&holder, "COMMIT").await?;
    Ok(run(&third, "SELECT 1").await.map(drop)?)
}

async fn waiters(keyway: &KeywayProcess) -> Fallible<u64> {
    let metrics = keyway.metrics().await?;
    let line = metrics.lines().find(|it| it.starts_with("keyway_pool_waiters{")).unwrap_or(" 0");
    Ok(line.rsplit(' ').next().unwrap_or("0").parse()?)
}

async fn logins_at_once_and_their_time(harness: Arc<Shared>) -> Outcome {
    let said = Said { limits: "logins_max = 1\nlogin_timeout = \"2s\"", ..Said::default() };
    let keyway = keyway(&harness, said).await?;
    // Who has not spoken takes no turn.
    let mut silent = Wire::connect(keyway.listen()).await?;
    client(&keyway).await?;
    let mut slow = Wire::connect(keyway.listen()).await?;
    slow.send(&startup(196_608, &[("user", USER), ("database", DATABASE)])).await?;
    assert_eq!(slow.message().await?.tag, 'R');
    let waiting = {
        let url = url(&keyway, USER);
        tokio::spawn(async move { connect(&url).await.map(drop) })
    };
    until("the second waits", async || Ok(keyway.limit_hits("logins_max").await? == 1)).await?;
    assert!(!waiting.is_finished());
    drop(slow);
    waiting.await??;
    assert_eq!(last_words(&mut silent).await?, "57014 canceling authentication due to timeout");
    assert_hits(&keyway, "login_timeout", 1).await
}

async fn bytes_before_login(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, Said::default()).await?;
    // PostgreSQL's MAX_STARTUP_PACKET_LENGTH: 10,000 bytes are taken, the next is not waited for.
    let packet = |length: usize| {
        let base = startup(196_608, &[("user", USER), ("application_name", "")]).len();
        startup(196_608, &[("user", USER), ("application_name", &"x".repeat(length - base))])
    };
    let mut most = Wire::connect(keyway.listen()).await?;
    most.send(&packet(10_000)).await?;
    assert_eq!(most.message().await?.tag, 'R');
    let mut more = Wire::connect(keyway.listen()).await?;
    more.send(&packet(10_001)[..4]).await?;
    assert_eq!(last_words(&mut more).await?, "08P01 invalid length of startup packet");
    assert_hits(&keyway, "startup_packet", 1).await?;
    // Nor is a password of any length.
    most.send(&[b'p', 0, 1, 0, 4]).await?;
    assert_eq!(last_words(&mut most).await?, "08P01 invalid message length");
    Ok(())
}

async fn idle_clients(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, Said { limits: "client_idle_timeout = \"1s\"", ..Said::default() }).await?;
    let (mut idle, mut half, busy) = (wire(&keyway).await?, wire(&keyway).await?, client(&keyway).await?);
    run(&busy, "BEGIN").await?;
    half.send(&query("SELECT 1")[..3]).await?;
    let text = "57P05 terminating connection due to idle-session timeout";
    assert_eq!(last_words(&mut idle).await?, text);
    assert_eq!(last_words(&mut half).await?, text);
    assert_hits(&keyway, "client_idle_timeout", 2).await?;
    // Inside a transaction another limit holds.
    Ok(run(&busy, "SELECT 1").await.map(drop)?)
}

/// Sessions of Keyway's that are inside a transaction and do nothing.
async fn idle_in_transaction(harness: &Shared, name: &str) -> Fallible<Option<String>> {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND state LIKE 'idle in transaction%'"
    );
    Ok(harness.single().await?.shard.primary.query_text(&sql).await?)
}

async fn idle_transactions(harness: Arc<Shared>) -> Outcome {
    let limits = "idle_in_transaction_timeout = \"3s\"\naborted_transaction_timeout = \"1s\"";
    let keyway = keyway(&harness, Said { limits, ..Said::default() }).await?;
    let named = [("application_name", "limits_idle")];
    let log_in = async || Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &named).await;
    let (mut open, mut aborted, mut deferred, idle) =
        (log_in().await?, log_in().await?, log_in().await?, client(&keyway).await?);
    open.ask(&query("BEGIN; SELECT 1"), 1).await?;
    aborted.ask(&query("BEGIN; SELECT 1/0"), 1).await?;
    // No server knows of this one yet.
    deferred.ask(&query("BEGIN"), 1).await?;
    assert_eq!(idle_in_transaction(&harness, "limits_idle").await?.as_deref(), Some("2"));
    let text = "25P03 terminating connection due to idle-in-transaction timeout";
    assert_eq!(last_words(&mut aborted).await?, text);
    assert_hits(&keyway, "aborted_transaction_timeout", 1).await?;
    // Half a message is no sign of life.
    open.send(&query("SELECT 1")[..3]).await?;
    assert_eq!(last_words(&mut open).await?, text);
    assert_eq!(last_words(&mut deferred).await?, text);
    assert_hits(&keyway, "idle_in_transaction_timeout", 2).await?;
    until("the servers' transactions have ended", async || {
        Ok(idle_in_transaction(&harness, "limits_idle").await?.as_deref() == Some("0"))
    })
    .await?;
    Ok(run(&idle, "SELECT 1").await.map(drop)?)
}

async fn unfinished_exchanges(harness: Arc<Shared>) -> Outcome {
    let said = Said { limits: "unfinished_timeout = \"300ms\"", pool: "size = 1", ..Said::default() };
    let keyway = keyway(&harness, said).await?;
    let mut wire = wire(&keyway).await?;
    wire.send(&[parse("", "SELECT 1"), bind("", "", &[], false), execute("", 0), flush()].concat()).await?;
    wire.until('C').await?;
    assert_eq!(last_words(&mut wire).await?, "25P03 terminating connection due to unfinished extended query");
    assert_hits(&keyway, "unfinished_timeout", 1).await?;
    // The server is free for others.
    assert_eq!(rows(&client(&keyway).await?, "SELECT 2").await?, ["2"]);
    // An error of Keyway's own waits for its Sync too.
    let mut wire = self::wire(&keyway).await?;
    wire.send(&[bind("", "no_such", &[], false), flush()].concat()).await?;
    wire.until('E').await?;
    assert_eq!(last_words(&mut wire).await?, "25P03 terminating connection due to unfinished extended query");
    Ok(())
}

async fn long_queries(harness: Arc<Shared>) -> Outcome {
    let said = Said { limits: "query_timeout = \"500ms\"", pool: "size = 1", ..Said::default() };
    let keyway = keyway(&harness, said).await?;
    let (client, other) = (client(&keyway).await?, client(&keyway).await?);
    for round in 1..=3 {
        let error = error_of(&client, "SELECT pg_sleep(60)").await?;
        // The server's own words.
        assert_error(&error, "57014", "canceling statement due to user request");
        assert_eq!(error.routine(), Some("ProcessInterrupts"));
        assert_hits(&keyway, "query_timeout", round).await?;
        // Nobody else is hit, on the same server.
        assert_eq!(rows(&other, "SELECT 1").await?, ["1"]);
    }
    let error = as_db_error(client.query("SELECT pg_sleep($1)", &[&60f64]).await.err().ok_or("no error")?)?;
    assert_error(&error, "57014", "canceling statement due to user request");
    // Each statement has its own time, a transaction none.
    run(&client, "BEGIN").await?;
    for _ in 0..4 {
        run(&client, "SELECT pg_sleep(0.1)").await?;
    }
    Ok(run(&client, "COMMIT").await.map(drop)?)
}

async fn servers_that_do_not_cancel(harness: Arc<Shared>) -> Outcome {
    let said = Said { limits: "query_timeout = \"200ms\"\ncancel_timeout = \"200ms\"", ..Said::default() };
    let keyway = keyway(&harness, said).await?;
    let mut wire = wire(&keyway).await?;
    wire.rows("CREATE TABLE IF NOT EXISTS limits_copied (a int)").await?;
    // A server that waits for COPY data hears no cancel request (`ProcessClientReadInterrupt`).
    wire.send(&query("COPY limits_copied FROM STDIN")).await?;
    wire.until('G').await?;
    wire.send(&message('d', b"1\n")).await?;
    let answer = wire.until('Z').await?;
    assert_eq!(answer[0].error(), "57014 canceling statement due to statement timeout");
    assert!(answer[0].field('D').is_some_and(|it| it.contains("its connection was closed")));
    assert_hits(&keyway, "query_timeout", 1).await?;
    assert_hits(&keyway, "cancel_timeout", 1).await?;
    // What the client goes on sending is for nobody, as after any error of a COPY.
    wire.send(&[message('d', b"2\n"), message('c', b"")].concat()).await?;
    assert_eq!(wire.rows("SELECT count(*) FROM limits_copied").await?, ["0"]);
    Ok(())
}

async fn long_queries_on_several_shards(harness: Arc<Shared>) -> Outcome {
    let shop = &harness.shop().await?.shop;
    let limits = "[limits]\nquery_timeout = \"300ms\"";
    let config = |listen: &str, admin: &str| shop.config_text(listen, admin).replace("[limits]", limits);
    let keyway = harness.start_keyway(config).await?;
    let client = connect(&shop.url(&keyway.listen().to_string())).await?;
    let mut blockers = Vec::new();
    for shard in &shop.shards {
        let blocker = shard.primary.connect(keyway::demo::shop::DATABASE).await?;
        run(&blocker, "BEGIN; SELECT FROM countries FOR UPDATE").await?;
        blockers.push(blocker);
    }
    let update = "UPDATE countries SET name = name /* limits_long */";
    let error = error_of(&client, update).await?;
    assert_error(&error, "57014", "canceling statement due to user request");
    // Both servers were told, and have stopped.
    for shard in &shop.shards {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UPDATE%limits_long%' AND state = 'active'";
        until("the servers have stopped", async || {
            Ok(shard.primary.query_text(sql).await?.as_deref() == Some("0"))
        })
        .await?;
    }
    drop(blockers);
    assert_hits(&keyway, "query_timeout", 1).await?;
    until("it works again", async || Ok(run(&client, update).await.is_ok())).await?;
    Ok(run(&client, "SELECT 1").await.map(drop)?)
}

async fn long_transactions(harness: Arc<Shared>) -> Outcome {
    let said = Said { limits: "transaction_timeout = \"700ms\"", ..Said::default() };
    let keyway = keyway(&harness, said).await?;
    let text = "25P04 terminating connection due to transaction timeout";
    let mut idle = wire(&keyway).await?;
    idle.ask(&query("BEGIN"), 1).await?;
    idle.ask(&query("SELECT 1"), 1).await?;
    assert_eq!(last_words(&mut idle).await?, text);
    let mut busy = wire(&keyway).await?;
    busy.ask(&query("BEGIN"), 1).await?;
    busy.ask(&query("SELECT 'limits_long'"), 1).await?;
    busy.send(&query("SELECT pg_sleep(60), 'limits_long'")).await?;
    assert_eq!(last_words(&mut busy).await?, text);
    let mut implicit = wire(&keyway).await?;
    implicit.send(&query("SELECT pg_sleep(60), 'limits_long'")).await?;
    assert_eq!(last_words(&mut implicit).await?, text);
    assert_hits(&keyway, "transaction_timeout", 3).await?;
    let primary = &harness.single().await?.shard.primary;
    until("the servers have stopped working", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(60), ''limits_long%' \
                   AND state = 'active' AND pid <> pg_backend_pid()";
        Ok(primary.query_text(sql).await?.as_deref() == Some("0"))
    })
    .await?;
    // Short ones may follow one another for as long as they like.
    let client = client(&keyway).await?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        run(&client, "BEGIN; SELECT pg_sleep(0.1); COMMIT").await?;
    }
    Ok(())
}

async fn prepared_statements(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, Said { limits: "statements_max = 2", ..Said::default() }).await?;
    let mut wire = wire(&keyway).await?;
    let prepare = |name: &str, text: &str| [parse(name, text), sync()].concat();
    for name in ["a", "b"] {
        wire.ask(&prepare(name, "SELECT 1"), 1).await?;
    }
    let third = wire.ask(&prepare("c", "SELECT 1"), 1).await?;
    assert_eq!(third[0].error(), "54000 a client may have 2 prepared statements");
    assert_hits(&keyway, "statements_max", 1).await?;
    wire.rows("DEALLOCATE a").await?;
    assert_eq!(wire.ask(&prepare("c", "SELECT 1"), 1).await?[0].tag, '1');

    let keyway =
        self::keyway(&harness, Said { limits: "statement_bytes_max = 2000", ..Said::default() }).await?;
    let mut wire = self::wire(&keyway).await?;
    let long = format!("SELECT {}1", " ".repeat(1_500));
    for name in ["a", "b"] {
        assert_eq!(wire.ask(&prepare(name, &long), 1).await?[0].tag, '1');
    }
    let third = wire.ask(&prepare("c", "SELECT 1"), 1).await?;
    assert_eq!(third[0].error(), "54000 the texts of a client's prepared statements may have 2000 bytes");
    assert_hits(&keyway, "statement_bytes_max", 1).await?;
    // PREPARE counts as Parse does, and what is given up makes room.
    assert!(wire.error("PREPARE d AS SELECT 1").await?.starts_with("54000"));
    wire.rows("DEALLOCATE a").await?;
    wire.rows("PREPARE d AS SELECT 1").await?;
    Ok(())
}

async fn a_big_message(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, Said { limits: "message_bytes_max = 65536", ..Said::default() }).await?;
    let mut wire = wire(&keyway).await?;
    wire.send(&query(&format!("SELECT '{}'", "x".repeat(65_536)))[..10]).await?;
    assert_eq!(last_words(&mut wire).await?, "08P01 invalid message length");
    assert_hits(&keyway, "message_bytes_max", 1).await
}

/// A shard of one test's own, with users `one` to `count`, and their part of the configuration.
pub async fn with_users(harness: &Shared, count: usize, each: &str) -> Fallible<(OwnShard, String)> {
    let own = harness.fresh_shard(0).await?;
    let primary = &own.shard.primary;
    primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
    let (admin, mut users) = (primary.connect(DATABASE).await?, String::new());
    for index in 1..=count {
        run(&admin, &format!("CREATE ROLE user{index} LOGIN PASSWORD '{APP_PASSWORD}'")).await?;
        users += &format!("[users.user{index}]\npassword = \"{APP_PASSWORD}\"\n{each}\n");
    }
    Ok((own, users))
}

/// Server connections by user, those of probes left out.
async fn connections(server: &Server) -> Fallible<String> {
    let sql = "SELECT coalesce(string_agg(usename || ' ' || count, ', ' ORDER BY usename), '') FROM \
               (SELECT usename, count(*) FROM pg_stat_activity WHERE usename LIKE 'user%' GROUP BY 1) AS it";
    Ok(server.query_text(sql).await?.unwrap_or_default())
}

async fn until_connections(server: &Server, wanted: &str) -> Outcome {
    let what = format!("server connections are {wanted}");
    Ok(until(&what, async || Ok(connections(server).await? == wanted)).await?)
}

/// `count` clients of `user`, each inside a transaction on a server connection of its own.
pub async fn busy(keyway: &KeywayProcess, user: &str, count: usize) -> Fallible<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = connect(&url(keyway, user)).await?;
        run(&client, "BEGIN; SELECT 1").await?;
        clients.push(client);
    }
    Ok(clients)
}

async fn server_connections_are_shared(harness: Arc<Shared>) -> Outcome {
    let (own, users) = with_users(&harness, 3, "").await?;
    let primary = &own.shard.primary;
    let said = Said { limits: "server_connections_max = 3", users: &users, ..Said::default() };
    let keyway = harness.start_keyway(config(&primary.address(), said)).await?;
    // All idle with one user; another needs one.
    let first = busy(&keyway, "user1", 3).await?;
    for client in &first {
        run(client, "COMMIT").await?;
    }
    until_connections(primary, "user1 3").await?;
    let second = busy(&keyway, "user2", 1).await?;
    until_connections(primary, "user1 2, user2 1").await?;
    // All busy: the third waits for what is released first.
    let again = busy(&keyway, "user1", 2).await?;
    let third = {
        // Its greeting needs a server too, so it waits there.
        let url = url(&keyway, "user3");
        tokio::spawn(async move {
            let client = connect(&url).await?;
            rows(&client, "SELECT 3").await
        })
    };
    until_hits(&keyway, "limits.server_connections_max", 2).await?;
    assert!(!third.is_finished());
    run(&again[0], "COMMIT").await?;
    assert_eq!(third.await??, ["3"]);
    for client in [&again[1], &second[0]] {
        run(client, "COMMIT").await?;
    }
    Ok(())
}

/// Clients of `user` that ask one statement after the other, until they are aborted; counts statements.
fn working(
    keyway: &KeywayProcess,
    user: &str,
    count: usize,
) -> (Vec<JoinHandle<Fallible<()>>>, Arc<AtomicU64>) {
    let done = Arc::new(AtomicU64::new(0));
    let work = |_| {
        let (url, done) = (url(keyway, user), done.clone());
        tokio::spawn(async move {
            let client = connect(&url).await?;
            while done.load(Ordering::Relaxed) < u64::MAX {
                run(&client, "SELECT pg_sleep(0.01)").await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    ((0..count).map(work).collect(), done)
}

async fn busy_users_share_too(harness: Arc<Shared>) -> Outcome {
    let (own, users) = with_users(&harness, 2, "").await?;
    let primary = &own.shard.primary;
    let said = Said { limits: "server_connections_max = 4", users: &users, ..Said::default() };
    let keyway = harness.start_keyway(config(&primary.address(), said)).await?;
    // More clients of each than there are connections, none of which is ever idle.
    let (first, _) = working(&keyway, "user1", 8);
    until_connections(primary, "user1 4").await?;
    let (second, _) = working(&keyway, "user2", 8);
    until_connections(primary, "user1 2, user2 2").await?;
    // And so it stays: connections are not made anew for ever. Not at once: a busy machine may leave all
    // clients of a user without their turn, and then its connections are idle and go to the other.
    let pids =
        "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity WHERE usename LIKE 'user%'";
    until("the same connections serve on", async || {
        let before = primary.query_text(pids).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(primary.query_text(pids).await? == before)
    })
    .await?;
    for it in first.iter().chain(&second) {
        assert!(!it.is_finished());
        it.abort();
    }
    Ok(())
}

async fn more_users_than_connections(harness: Arc<Shared>) -> Outcome {
    let (own, users) = with_users(&harness, 3, "").await?;
    let said = Said { limits: "server_connections_max = 1", users: &users, ..Said::default() };
    let keyway = harness.start_keyway(config(&own.shard.primary.address(), said)).await?;
    let users = ["user1", "user2", "user3"].map(|it| working(&keyway, it, 2));
    until("all have had their turns", async || Ok(users.iter().all(|it| it.1.load(Ordering::Relaxed) > 30)))
        .await?;
    for it in users.iter().flat_map(|it| &it.0) {
        assert!(!it.is_finished());
        it.abort();
    }
    Ok(())
}

async fn each_bound_on_server_connections(harness: Arc<Shared>) -> Outcome {
    let (own, users) = with_users(&harness, 2, "server_connections_max = 2").await?;
    let primary = &own.shard.primary;
    let wait = "wait_timeout = \"200ms\"";
    let said = Said { users: &users, database: "server_connections_max = 3", pool: wait, ..Said::default() };
    let keyway = harness.start_keyway(config(&primary.address(), said)).await?;
    let first = busy(&keyway, "user1", 2).await?;
    let third = connect(&url(&keyway, "user1")).await?;
    assert_error(&error_of(&third, "SELECT 1").await?, "53300", "no connection to server");
    assert_hits(&keyway, "users.server_connections_max", 1).await?;
    let second = busy(&keyway, "user2", 1).await?;
    let fourth = connect(&url(&keyway, "user2")).await?;
    assert_error(&error_of(&fourth, "SELECT 1").await?, "53300", "no connection to server");
    assert_hits(&keyway, "databases.server_connections_max", 1).await?;
    assert_eq!(connections(primary).await?, "user1 2, user2 1");
    run(&first[0], "COMMIT").await?;
    run(&third, "SELECT 1").await?;
    run(&second[0], "COMMIT").await?;
    Ok(run(&fourth, "SELECT 1").await.map(drop)?)
}

async fn a_server_that_is_gone(harness: Arc<Shared>) -> Outcome {
    let (mut own, users) = with_users(&harness, 1, "").await?;
    // A probe needs longer to see what a login sees at once.
    let said = Said {
        users: &users,
        database: "probe_interval = \"30s\"\nmax_lag = \"1m\"",
        pool: "wait_timeout = \"1s\"",
        ..Said::default()
    };
    let keyway = harness.start_keyway(config(&own.shard.primary.address(), said)).await?;
    let clients = [client(&keyway).await?, client(&keyway).await?, client(&keyway).await?];
    own.shard.primary.kill().await?;
    let refused = async |client: &Client| {
        let error = error_of(client, "SELECT 1 FOR UPDATE").await?;
        assert!(["08006", "57P01", "57P02", "57P03"].contains(&error.code().code()), "{error:?}");
        Fallible::Ok(())
    };
    // Every client asks again and again, and each attempt is for all of them.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        for client in &clients {
            refused(client).await?;
        }
    }
    let attempts = keyway.log().matches("cannot connect to server").count();
    assert!((3..=20).contains(&attempts), "{attempts} attempts:\n{}", keyway.log());
    own.shard.primary.start().await?;
    for client in &clients {
        until("it is back", async || Ok(rows(client, "SELECT 1 FOR UPDATE").await.is_ok())).await?;
    }
    Ok(())
}

async fn memory_of_a_merge(harness: Arc<Shared>) -> Outcome {
    let shop = &harness.shop().await?.shop;
    let limits = "[limits]\nmerge_bytes_max = 65536";
    let config = |listen: &str, admin: &str| shop.config_text(listen, admin).replace("[limits]", limits);
    let keyway = harness.start_keyway(config).await?;
    let client = connect(&shop.url(&keyway.listen().to_string())).await?;
    // Sorted rows are merged as they come, distinct ones are kept.
    run(&client, "SELECT repeat('x', 900), user_id FROM users ORDER BY user_id").await?;
    assert_hits(&keyway, "merge_bytes_max", 0).await?;
    let error =
        error_of(&client, "SELECT DISTINCT decode(repeat('00', 900), 'hex'), user_id FROM users").await?;
    assert_error(&error, "54000", "more than 65536 bytes");
    assert_hits(&keyway, "merge_bytes_max", 1).await?;
    assert_eq!(rows(&client, "SELECT count(*) > 100 FROM users").await?, ["t"]);
    Ok(())
}
