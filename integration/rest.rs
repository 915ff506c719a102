//! A client that has been silent for so long that its session rests, and then speaks: nothing that it had is gone.

use std::sync::Arc;

use keyway::demo::shop::USER;
use libtest_mimic::Trial;

use crate::harness::wire::{Wire, bind, describe, execute, flush, parse, query, sync};
use crate::harness::{APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, until};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("rest::what_a_client_had_it_has", what_a_client_had_it_has),
        harness.test("rest::time_goes_on", time_goes_on),
    ]
}

async fn start(harness: &Shared, limits: &str) -> Fallible<KeywayProcess> {
    let primary = harness.single().await?.shard.primary.address();
    harness
        .start_keyway(|listen, admin| {
            format!(
                "listen = \"{listen}\"\nadmin = \"{admin}\"\n[limits]\n{limits}\n\
                 [users.{USER}]\npassword = \"{APP_PASSWORD}\"\n\
                 [databases.{DATABASE}]\nservers = [\"{primary}\"]\n"
            )
        })
        .await
}

async fn log_in(keyway: &KeywayProcess) -> Fallible<Wire> {
    Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await
}

async fn asleep(keyway: &KeywayProcess, count: usize) -> Fallible<()> {
    let line = format!("keyway_resting_clients {count}");
    until("the clients rest", || async { Ok(keyway.metrics().await?.lines().any(|it| it == line)) }).await
}

/// Each with state of another kind; all rest, some are told something meanwhile, and all go on.
async fn what_a_client_had_it_has(harness: Arc<Shared>) -> Outcome {
    let keyway = start(&harness, "").await?;
    let (mut plain, mut pinned) = (log_in(&keyway).await?, log_in(&keyway).await?);
    let (mut within, mut failed) = (log_in(&keyway).await?, log_in(&keyway).await?);
    let (mut listening, mut amid) = (log_in(&keyway).await?, log_in(&keyway).await?);
    plain.rows("SET work_mem = '7MB'").await?;
    plain.ask(&[parse("s", "SELECT 4711"), sync()].concat(), 1).await?;
    pinned.rows("CREATE TEMP TABLE rested (a int); INSERT INTO rested VALUES (1)").await?;
    let pid = pinned.rows("SELECT pg_backend_pid()").await?;
    within.rows("BEGIN").await?;
    within.rows("SET LOCAL work_mem = '9MB'").await?;
    let of_transaction = within.rows("SELECT pg_current_xact_id()::text").await?;
    failed.rows("BEGIN").await?;
    failed.error("SELECT 1/0").await?;
    listening.rows("LISTEN rested").await?;
    amid.send(&[parse("", "SELECT 1"), bind("", "", &[], false), execute("", 0), flush()].concat()).await?;
    amid.until('C').await?;
    // Half a message keeps its client awake, and is not lost.
    let mut halfway = log_in(&keyway).await?;
    let whole = query("SELECT 'whole'");
    halfway.send(&whole[..7]).await?;
    asleep(&keyway, 6).await?;

    let mut other = log_in(&keyway).await?;
    other.rows("NOTIFY rested, 'one'").await?;
    let told = listening.until('A').await?;
    assert!(told.last().is_some_and(|it| it.body.ends_with(b"rested\0one\0")), "{told:?}");
    assert_eq!(plain.rows("SHOW work_mem").await?, ["7MB"]);
    let run = [bind("", "s", &[], false), describe('P', ""), execute("", 0), sync()].concat();
    assert!(plain.ask(&run, 1).await?.iter().any(|it| it.body.ends_with(b"4711")));
    assert_eq!(pinned.rows("SELECT a FROM rested").await?, ["1"]);
    assert_eq!(pinned.rows("SELECT pg_backend_pid()").await?, pid);
    assert_eq!(within.rows("SHOW work_mem").await?, ["9MB"]);
    assert_eq!(within.rows("SELECT pg_current_xact_id()::text").await?, of_transaction);
    within.rows("COMMIT").await?;
    assert!(failed.error("SELECT 1").await?.starts_with("25P02"));
    failed.rows("ROLLBACK").await?;
    assert_eq!(failed.rows("SELECT 2").await?, ["2"]);
    assert_eq!(amid.ask(&sync(), 1).await?.len(), 1);
    let mut answer = halfway.ask(&whole[7..], 1).await?.into_iter();
    assert!(answer.any(|it| it.body.ends_with(b"whole")));
    other.rows("NOTIFY rested, 'two'").await?;
    let told = listening.until('A').await?;
    assert!(told.last().is_some_and(|it| it.body.ends_with(b"rested\0two\0")), "{told:?}");
    Ok(())
}

/// Time-outs count from the last word, whether the session rests or not, and a server that dies is told of.
async fn time_goes_on(harness: Arc<Shared>) -> Outcome {
    let limits = "client_idle_timeout = \"9s\"\nidle_in_transaction_timeout = \"10s\"";
    let keyway = start(&harness, limits).await?;
    let (mut idle, mut within) = (log_in(&keyway).await?, log_in(&keyway).await?);
    idle.rows("SELECT 1").await?;
    within.rows("BEGIN").await?;
    within.rows("SELECT 1").await?;
    let mut pinned = log_in(&keyway).await?;
    pinned.rows("CREATE TEMP TABLE rested (a int)").await?;
    let pid = pinned.rows("SELECT pg_backend_pid()").await?.concat();
    asleep(&keyway, 3).await?;
    let direct = harness.single().await?.shard.primary.connect(DATABASE).await?;
    direct.simple_query(&format!("SELECT pg_terminate_backend({pid})")).await?;
    for (wire, state) in [(&mut pinned, "57P01"), (&mut idle, "57P05"), (&mut within, "25P03")] {
        let last = wire.until('E').await?;
        assert!(last.last().is_some_and(|it| it.error().starts_with(state)), "{state}: {last:?}");
    }
    Ok(())
}
