//! A cancel request stops the statement that its client runs, and nobody else's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::harness::wire::Wire;
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, connect, rows, run, unsharded_config, until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("cancel::stops_one_statement_and_no_other", stops_one_statement_and_no_other),
        harness.test("cancel::a_wrong_secret_does_nothing", a_wrong_secret_does_nothing),
        harness.test("cancel::of_an_idle_client_hits_nobody", of_an_idle_client_hits_nobody),
        harness.test("cancel::reaches_every_shard_of_a_scattered_read", reaches_every_shard),
    ]
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

/// The packet by hand, as tokio-postgres does not let its secret be changed.
async fn send(address: SocketAddr, pid: u32, secret: u32) -> Fallible<()> {
    let mut wire = Wire::connect(address).await?;
    let words = [16u32, 80_877_102, pid, secret];
    wire.send(&words.map(u32::to_be_bytes).concat()).await?;
    // Closed without a word, whatever it did.
    assert!(wire.rest().await?.is_empty());
    Ok(())
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

async fn reaches_every_shard(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.shop().await?;
    let client = fixture.client().await?;
    let token = client.cancel_token();
    let reading =
        client.simple_query("SELECT a FROM users, generate_series(1, 10000) a, generate_series(1, 10000) b, generate_series(1, 10000) c \
         WHERE user_id IN (1, 2, 3, 4, 5, 6, 7, 8) AND a + b + c < 0");
    let ended = AtomicBool::new(false);
    let cancel = async {
        // It may come before the statement has reached its servers: repeat until it has ended, and let the
        // last one end before the next statement, which it would hit.
        while !ended.load(Ordering::Relaxed) {
            token.cancel_query(NoTls).await?;
        }
        Fallible::Ok(())
    };
    let reading = async {
        let answer = reading.await;
        ended.store(true, Ordering::Relaxed);
        answer
    };
    let (answer, cancelled) = tokio::join!(reading, cancel);
    cancelled?;
    assert_eq!(answer.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(rows(&client, "SELECT name FROM users WHERE user_id = 5").await?, ["user 5"]);
    Ok(())
}
