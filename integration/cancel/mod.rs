//! A cancel request stops the statement that its client runs, and nobody else's.

mod gate;
mod peers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use self::gate::{Gate, Mode};
use crate::harness::wire::{Wire, cancel_request, query};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, as_db_error,
    assert_error, connect, error_of, rows, run, unsharded_config, until,
};
use crate::routing::Shards;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    let mut tests = vec![
        harness.test("cancel::stops_one_statement_and_no_other", stops_one_statement_and_no_other),
        harness.test("cancel::a_wrong_secret_does_nothing", a_wrong_secret_does_nothing),
        harness.test("cancel::of_an_idle_client_hits_nobody", of_an_idle_client_hits_nobody),
        harness.test("cancel::reaches_every_shard_of_a_scattered_read", reaches_every_shard),
        harness.test("cancel::finds_what_is_left_of_a_failed_set_up", failed_set_up),
        harness.test("cancel::long_keys_at_protocol_3_2", long_keys),
        harness.test("cancel::keys_of_servers_are_as_long_as_they_may_be", keys_of_servers),
        harness.test("cancel::a_storm_hits_nobody_else", a_storm_hits_nobody_else),
        harness.test("cancel::a_server_being_cancelled_is_given_to_nobody", given_to_nobody),
        harness.test("cancel::an_end_unknown_costs_the_connection", an_end_unknown),
        harness.test("cancel::outlives_its_canceller_and_the_login_timeout", outlives_its_canceller),
    ];
    tests.extend(peers::tests(harness));
    tests
}

const SLEEPERS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %sleeper%'";

async fn stops_one_statement_and_no_other(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let direct = fixture.shard.primary.connect("plain").await?;
    let (one, other) = (fixture.client().await?, fixture.client().await?);
    let token = one.cancel_token();
    let sleep = |client: tokio_postgres::Client, seconds: &str| {
        let sql = format!("DO $$ BEGIN PERFORM pg_sleep({seconds}), 'sleeper'; END $$");
        tokio::spawn(async move { (client.simple_query(&sql).await.map(drop), client) })
    };
    let (one, other) = (sleep(one, "600"), sleep(other, "3"));
    until("both run", || async { Ok(direct.query_one(SLEEPERS, &[]).await?.get::<_, i64>(0) == 2) }).await?;
    token.cancel_query(NoTls).await?;
    let (ended, one) = one.await?;
    assert_eq!(ended.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(rows(&one, "SELECT 1").await?, ["1"]);
    let (ended, _) = other.await?;
    ended?;
    Ok(())
}

async fn send(address: SocketAddr, pid: u32, secret: u32) -> Fallible<()> {
    request(address, &[pid, secret].map(u32::to_be_bytes).concat()).await
}

/// The packet by hand, as tokio-postgres does not let its secret be changed.
async fn request(address: SocketAddr, key: &[u8]) -> Fallible<()> {
    let mut wire = Wire::connect(address).await?;
    wire.send(&cancel_request(key)).await?;
    // Closed without a word, whatever it did.
    assert!(wire.rest().await?.is_empty());
    Ok(())
}

/// DO blocks with `mark` in them that servers run now.
async fn running(direct: &Client, mark: &str) -> Fallible<i64> {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %' || $1 || '%'";
    Ok(direct.query_one(sql, &[&mark]).await?.get(0))
}

async fn a_wrong_secret_does_nothing(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let address = fixture.keyway.listen();
    let mut wire = Wire::connect(address).await?;
    let parameters = [("user", USER), ("database", "plain")];
    wire.send(&crate::harness::wire::startup(196_608, &parameters)).await?;
    wire.prove(APP_PASSWORD).await?;
    let greeting = wire.until('Z').await?;
    let key = greeting.iter().find(|it| it.tag == 'K').ok_or("no key")?.body.clone();
    let word = |at: usize| u32::from_be_bytes(key[at..at + 4].try_into().unwrap());
    let (pid, secret) = (word(0), word(4));
    let direct = fixture.shard.primary.connect("plain").await?;
    wire.send(&crate::harness::wire::query("DO $$ BEGIN PERFORM pg_sleep(600), 'wrong secret'; END $$"))
        .await?;
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %wrong secret%'";
    let count = || async { Fallible::Ok(direct.query_one(running, &[]).await?.get::<_, i64>(0)) };
    until("it runs", || async { Ok(count().await? == 1) }).await?;
    for (pid, secret) in [(pid, secret ^ 1), (pid ^ 1, secret), (0, 0)] {
        send(address, pid, secret).await?;
        assert_eq!(count().await?, 1);
    }
    send(address, pid, secret).await?;
    let answer = wire.until('Z').await?;
    assert!(answer.iter().any(|it| it.tag == 'E' && it.error().starts_with("57014")));
    Ok(())
}

/// One server connection for all: a cancel that comes late must not hit who has it next.
async fn of_an_idle_client_hits_nobody(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let keyway = harness
        .start_keyway(|listen, admin| {
            unsharded_config(shard, listen, admin) + "[databases.plain.pool]\nsize = 1\n"
        })
        .await?;
    let url = keyway.url(USER, APP_PASSWORD, "plain");
    let (late, busy) = (connect(&url).await?, connect(&url).await?);
    let token = late.cancel_token();
    for n in 0..100 {
        run(&late, "SELECT 1").await?;
        let cancel = token.cancel_query(NoTls);
        let (cancelled, answer) = tokio::join!(cancel, rows(&busy, "SELECT 'fine' FROM pg_sleep(0.002)"));
        cancelled?;
        assert_eq!(answer.map_err(|it| format!("round {n}: {it}"))?, ["fine"]);
    }
    Ok(())
}

/// Whether the server runs the read of several shards.
async fn reading(direct: &Client) -> Fallible<i64> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1";
    Ok(direct.query_one(sql, &[&"%4711%"]).await?.get(0))
}

async fn reaches_every_shard(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.shop().await?;
    let client = fixture.client().await?;
    let token = client.cancel_token();
    let mut servers = Vec::new();
    for server in fixture.shop.shards.iter().flat_map(|it| it.servers()) {
        servers.push(server.connect("postgres").await?);
    }
    let answer = client.simple_query(
        "SELECT a FROM users, generate_series(1, 10000) a, generate_series(1, 10000) b, generate_series(1, 10000) c \
         WHERE user_id IN (1, 2, 3, 4, 5, 6, 7, 8) AND a + b + c < -4711",
    );
    // One that comes later than the end of the statement would hit the next.
    let cancel = async {
        until("both shards run it", || async {
            let mut count = 0;
            for it in &servers {
                count += reading(it).await?;
            }
            Ok(count == 2)
        })
        .await?;
        Fallible::Ok(token.cancel_query(NoTls).await?)
    };
    let (answer, cancelled) = tokio::join!(answer, cancel);
    cancelled?;
    assert_eq!(answer.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    for it in &servers {
        until("no shard runs it", || async { Ok(reading(it).await? == 0) }).await?;
    }
    assert_eq!(rows(&client, "SELECT name FROM users WHERE user_id = 5").await?, ["user 5"]);
    Ok(())
}

/// A transaction goes on at the servers that it has when a further one does not take the session's settings.
async fn failed_set_up(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let direct = shards.direct(0).await?;
    run(&direct, "CREATE TEXT SEARCH CONFIGURATION public.cancel_here (COPY = pg_catalog.simple)").await?;
    let [a, b] = [0, 1].map(|it| shards.user_on(it, 1_450_000));
    let read = |id: i64, what: &str| {
        format!("SELECT {what} WHERE NOT EXISTS (SELECT FROM users WHERE user_id = {id})")
    };
    let client = shards.client().await?;
    // Only the first shard knows the value.
    for sql in ["BEGIN", &read(a, "1"), "SET default_text_search_config = 'public.cancel_here'", "COMMIT"] {
        run(&client, sql).await?;
    }
    for sql in ["BEGIN", &read(a, "1"), "SAVEPOINT s"] {
        run(&client, sql).await?;
    }
    assert_error(&error_of(&client, &read(b, "1")).await?, "22023", "default_text_search_config");
    run(&client, "ROLLBACK TO s").await?;
    let token = client.cancel_token();
    let slow = read(a, "pg_sleep(600), 'cancel_here'");
    let sleeping = async { Fallible::Ok(client.simple_query(&slow).await.expect_err("cancelled")) };
    let cancelling = async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                       AND query LIKE '%''cancel_here'' WHERE NOT%' AND pid <> pg_backend_pid()";
        until("it runs", async || Ok(rows(&direct, running).await? == ["1"])).await?;
        token.cancel_query(NoTls).await?;
        Fallible::Ok(())
    };
    let (error, ()) = tokio::try_join!(sleeping, cancelling)?;
    assert_error(&as_db_error(error)?, "57014", "cancel");
    run(&client, "ROLLBACK TO s").await?;
    assert_eq!(rows(&client, &read(a, "1")).await?, ["1"]);
    run(&client, "COMMIT").await?;
    Ok(())
}

async fn long_keys(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let direct = fixture.shard.primary.connect("plain").await?;
    let (mut wire, key) = peers::client(&fixture.keyway, 196_610).await?;
    assert_eq!(key.len(), 4 + 32);
    wire.send(&query("DO $$ BEGIN PERFORM pg_sleep(600), 'long key'; END $$")).await?;
    until("it runs", || async { Ok(running(&direct, "long key").await? == 1) }).await?;
    let mut wrong = key.clone();
    wrong[35] ^= 1;
    let longer = [&key[..], &[0]].concat();
    for wrong in [&wrong[..], &key[..8], &key[..35], &longer, &[&key[..], &[0; 220]].concat()] {
        request(fixture.keyway.listen(), wrong).await?;
        assert_eq!(running(&direct, "long key").await?, 1);
    }
    // Not longer than a key may be, and not shorter.
    for wrong in [&[&key[..], &[0; 225]].concat(), &key[..4]] {
        let mut refused = Wire::connect(fixture.keyway.listen()).await?;
        refused.send(&cancel_request(wrong)).await?;
        assert!(refused.message().await?.error().starts_with("08P01"));
    }
    request(fixture.keyway.listen(), &key).await?;
    let answer = wire.until('Z').await?;
    assert!(answer.iter().any(|it| it.tag == 'E' && it.error().starts_with("57014")));
    Ok(())
}

/// A server's key is as long as its version lets it be, and a server that knows of no newer versions is spoken to
/// as it likes.
async fn keys_of_servers(harness: Arc<Shared>) -> Outcome {
    let (new, old) = (&harness.single18().await?.shard, &harness.single().await?.shard);
    for (shard, mode, bytes) in [(new, Mode::Pass, 12 + 32), (new, Mode::Old, 16), (old, Mode::Pass, 16)] {
        let gate = Gate::start(mode).await?;
        gate.lead_to(shard.primary.address().parse()?);
        let keyway = gated_by(&harness, &gate, "").await?;
        let direct = shard.primary.connect(SingleFixture::DATABASE).await?;
        let (mut wire, key) = peers::client(&keyway, 196_608).await?;
        wire.send(&query("DO $$ BEGIN PERFORM pg_sleep(600), 'key of a server'; END $$")).await?;
        until("it runs", || async { Ok(running(&direct, "key of a server").await? == 1) }).await?;
        request(keyway.listen(), &key).await?;
        let answer = wire.until('Z').await?;
        assert!(answer.iter().any(|it| it.tag == 'E' && it.error().starts_with("57014")), "{answer:?}");
        assert_eq!((gate.cancel_bytes(), gate.refused() > 0), (bytes, mode == Mode::Old));
    }
    Ok(())
}

/// One server connection, three that cancel one client's statements as fast as they can, short ones that end
/// before their cancels and long ones that do not, and two others whose statements come between.
async fn a_storm_hits_nobody_else(harness: Arc<Shared>) -> Outcome {
    const ROUNDS: usize = 10;
    let shard = &harness.single().await?.shard;
    let keyway = harness
        .start_keyway(|listen, admin| {
            // Each waits for all that the victim runs, and for its cancels, on however busy a machine.
            unsharded_config(shard, listen, admin)
                + "[databases.plain.pool]\nsize = 1\nwait_timeout = \"2m\"\n"
        })
        .await?;
    let url = keyway.url(USER, APP_PASSWORD, "plain");
    let victim = connect(&url).await?;
    let (token, over) = (victim.cancel_token(), Arc::new(AtomicBool::new(false)));
    let storm: Vec<_> = (0..3)
        .map(|_| {
            let (token, over) = (token.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    token.cancel_query(NoTls).await?;
                }
                Fallible::Ok(())
            })
        })
        .collect();
    let hit = {
        let over = over.clone();
        tokio::spawn(async move {
            let (mut hits, mut seconds) = (0, ["0.01", "1"].into_iter().cycle());
            while !over.load(Ordering::Relaxed) {
                let sql = format!("SELECT pg_sleep({})", seconds.next().unwrap_or("2"));
                match victim.simple_query(&sql).await {
                    Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => hits += 1,
                    other => drop(other?),
                }
            }
            Fallible::Ok(hits)
        })
    };
    let others = (0..2).map(|_| async {
        let client = connect(&url).await?;
        for round in 0..ROUNDS {
            let answer = rows(&client, "SELECT 'fine' FROM pg_sleep(0.002)").await;
            assert_eq!(answer.map_err(|it| format!("round {round}: {it}"))?, ["fine"]);
        }
        Fallible::Ok(())
    });
    let ended = futures_util::future::try_join_all(others).await;
    over.store(true, Ordering::Relaxed);
    for task in storm {
        task.await??;
    }
    let hits: u32 = hit.await??;
    ended?;
    assert!(hits > 0, "no cancel has hit its own client");
    Ok(())
}

/// One server connection, behind a gate.
async fn gated(harness: &Shared, gate: &Gate, more: &str) -> Fallible<KeywayProcess> {
    gate.lead_to(harness.single().await?.shard.primary.address().parse()?);
    gated_by(harness, gate, more).await
}

async fn gated_by(harness: &Shared, gate: &Gate, more: &str) -> Fallible<KeywayProcess> {
    let server = gate.address();
    harness
        .start_keyway(|listen, admin| {
            format!(
                "listen = \"{listen}\"\nadmin = \"{admin}\"\n[limits]\n{more}\n[users.{USER}]\npassword = \
                 \"{APP_PASSWORD}\"\n[databases.{}]\nservers = [\"{server}\"]\n[databases.{}.pool]\nsize = 1\n",
                SingleFixture::DATABASE,
                SingleFixture::DATABASE
            )
        })
        .await
}

/// A statement that has ended, and the cancel for it that the gate holds.
async fn held_cancel(
    harness: &Shared,
    keyway: &KeywayProcess,
    gate: &Gate,
    table: &str,
) -> Fallible<(Wire, Wire)> {
    let lock = harness.single().await?.shard.primary.connect("plain").await?;
    let sql =
        format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (); GRANT SELECT ON {table} TO PUBLIC");
    lock.batch_execute(&sql).await?;
    lock.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await?;
    let (mut victim, key) = peers::client(keyway, 196_608).await?;
    let text = format!("SELECT count(*) FROM {table}");
    victim.send(&query(&text)).await?;
    // On another connection: a transaction goes on to see what it first saw of the activity of others.
    let direct = harness.single().await?.shard.primary.connect("plain").await?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = $1";
    until("the statement waits", || async {
        Ok(direct.query_one(waiting, &[&text]).await?.get::<_, i64>(0) == 1)
    })
    .await?;
    let mut canceller = Wire::connect(keyway.listen()).await?;
    canceller.send(&cancel_request(&key)).await?;
    until("the cancel is on its way", || async { Ok(gate.cancels() == 1) }).await?;
    lock.batch_execute("COMMIT").await?;
    let answer = victim.until('Z').await;
    assert!(answer?.iter().all(|it| it.tag != 'E'), "{table}");
    Ok((victim, canceller))
}

async fn given_to_nobody(harness: Arc<Shared>) -> Outcome {
    let gate = Gate::start(Mode::Hold).await?;
    let keyway = gated(&harness, &gate, "").await?;
    let (_victim, mut canceller) = held_cancel(&harness, &keyway, &gate, "cancel_given").await?;
    let (mut other, _) = peers::client(&keyway, 196_608).await?;
    other.send(&query("SELECT 'mine' FROM pg_sleep(0.2)")).await?;
    let waiting = |metrics: String| {
        let mut lines = metrics.lines().filter(|it| it.starts_with("keyway_pool_waiters{"));
        lines.any(|it| it.ends_with(" 1"))
    };
    until("the other client waits", || async { Ok(waiting(keyway.metrics().await?)) }).await?;
    assert!(keyway.metrics().await?.contains("keyway_cancels_in_flight 1\n"));
    gate.set(Mode::Pass);
    // It is told after the server's end, and nobody is hit.
    assert!(canceller.rest().await?.is_empty());
    assert!(keyway.metrics().await?.contains("keyway_cancels_total{result=\"sent\"} 1\n"));
    let answer = other.until('Z').await?;
    assert!(answer.iter().all(|it| it.tag != 'E'), "{answer:?}");
    Ok(())
}

async fn an_end_unknown(harness: Arc<Shared>) -> Outcome {
    let gate = Gate::start(Mode::Hold).await?;
    let keyway = gated(&harness, &gate, "").await?;
    let (mut before, _) = peers::client(&keyway, 196_608).await?;
    // Without asking for it by its function, which would pin the client to the server.
    let which = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%who runs cancel_unknown%'";
    let pid = before.rows(which).await?;
    assert_eq!(before.rows(which).await?, pid);
    let (_victim, mut canceller) = held_cancel(&harness, &keyway, &gate, "cancel_unknown").await?;
    gate.set(Mode::Break);
    assert!(canceller.rest().await?.is_empty());
    // The server's process that a lost request could still hit serves nobody any more.
    let now = before.rows(which).await?;
    assert!(now.len() == 1 && now != pid, "{now:?}, before {pid:?}");
    assert!(keyway.metrics().await?.contains("keyway_cancels_total{result=\"failed\"} 1\n"));
    Ok(())
}

async fn outlives_its_canceller(harness: Arc<Shared>) -> Outcome {
    let gate = Gate::start(Mode::Hold).await?;
    let keyway = gated(&harness, &gate, "login_timeout = \"300ms\"").await?;
    let (mut victim, canceller) = held_cancel(&harness, &keyway, &gate, "cancel_outlives").await?;
    drop(canceller);
    // Longer than login_timeout, by a login that it ends.
    let mut silent = Wire::connect(keyway.listen()).await?;
    assert!(!silent.rest().await?.is_empty());
    assert!(keyway.metrics().await?.contains("keyway_cancels_in_flight 1\n"));
    gate.set(Mode::Pass);
    let sent = || async { Ok(keyway.metrics().await?.contains("keyway_cancels_total{result=\"sent\"} 1\n")) };
    until("the server is told", sent).await?;
    assert_eq!(victim.rows("SELECT 'well'").await?, ["well"]);
    Ok(())
}
