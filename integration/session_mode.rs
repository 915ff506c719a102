//! Session mode: a client keeps its server until it leaves, and nobody has that server after it.

use std::sync::Arc;

use keyway::demo::postgres::Signal;
use keyway::demo::shop::USER;
use libtest_mimic::Trial;

use crate::harness::wire::{Wire, bind, execute, parse, query, sync};
use crate::harness::{APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, until};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("session_mode::a_client_keeps_its_server", a_client_keeps_its_server),
        harness.test("session_mode::it_may_be_a_users", it_may_be_a_users),
        harness.test("session_mode::it_is_on_the_primary", it_is_on_the_primary),
        harness.test("session_mode::it_listens_by_itself", it_listens_by_itself),
        harness.test("session_mode::it_ends_with_its_server", it_ends_with_its_server),
    ]
}

/// Two server connections to the primary. `user` are lines of the user's table, `database` of the database's.
async fn start(harness: &Shared, user: &str, database: &str) -> Fallible<KeywayProcess> {
    let primary = harness.single().await?.shard.primary.address();
    harness
        .start_keyway(|listen, admin| {
            format!(
                "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n{user}\n\
                 [databases.{DATABASE}]\nservers = [\"{primary}\"]\n{database}\n\
                 [databases.{DATABASE}.pool]\nsize = 2\nwait_timeout = \"300ms\"\n"
            )
        })
        .await
}

const SESSION: &str = "pool_mode = \"session\"";

async fn log_in(keyway: &KeywayProcess) -> Fallible<Wire> {
    Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[("application_name", "mine")]).await
}

async fn pid(wire: &mut Wire) -> Fallible<String> {
    Ok(wire.rows("SELECT pg_backend_pid()").await?.concat())
}

async fn a_client_keeps_its_server(harness: Arc<Shared>) -> Outcome {
    let keyway = start(&harness, "", SESSION).await?;
    let (mut one, mut two) = (log_in(&keyway).await?, log_in(&keyway).await?);
    let pids = [pid(&mut one).await?, pid(&mut two).await?];
    assert_ne!(pids[0], pids[1]);
    // State that transaction pooling cannot see.
    for sql in [
        "CREATE FUNCTION pg_temp.sets() RETURNS text LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '7MB'; \
            CREATE TEMP TABLE kept (a int); PERFORM pg_advisory_lock(4242); RETURN 'set'; END $$",
        "SELECT pg_temp.sets()",
        "PREPARE p AS SELECT 'prepared'",
        "SET statement_timeout = '9s'",
    ] {
        one.rows(sql).await?;
    }
    // The server's own no.
    assert!(one.error("LOAD 'auto_explain'").await?.starts_with("42501"));
    one.ask(&[parse("s", "SELECT 's'"), sync()].concat(), 1).await?;
    for _ in 0..3 {
        assert_eq!(two.rows("SHOW work_mem").await?, ["4MB"]);
        assert_eq!(two.rows("SHOW application_name").await?, ["mine"]);
        assert_eq!(one.rows("SHOW work_mem").await?, ["7MB"]);
        assert_eq!(one.rows("SHOW statement_timeout").await?, ["9s"]);
        assert_eq!(one.rows("SELECT count(*) FROM kept").await?, ["0"]);
        assert_eq!(one.rows("EXECUTE p").await?, ["prepared"]);
        let answer = one.ask(&[bind("", "s", &[], false), execute("", 0), sync()].concat(), 1).await?;
        assert!(answer.iter().any(|it| it.tag == 'D'));
        for sql in ["BEGIN", "SELECT 1", "COMMIT"] {
            one.rows(sql).await?;
        }
        assert_eq!([pid(&mut one).await?, pid(&mut two).await?], pids);
    }
    // Both places are taken.
    let mut third = log_in(&keyway).await?;
    assert!(third.error("SELECT 1").await?.starts_with("53300"));
    one.rows("DISCARD ALL").await?;
    assert_eq!(one.rows("SHOW work_mem").await?, ["4MB"]);
    assert_eq!(one.rows("SHOW application_name").await?, ["mine"], "as at its start");
    assert_eq!(pid(&mut one).await?, pids[0]);
    drop(one);
    // Nobody gets the server that it had.
    until("its place is free", || async {
        let mut third = log_in(&keyway).await?;
        Ok(third.rows("SELECT 1").await.is_ok() && !pids.contains(&pid(&mut third).await?))
    })
    .await?;
    // A session that is idle goes when the process is to end.
    let mut keyway = keyway;
    keyway.signal(Signal::TERM)?;
    assert!(two.until('E').await?.last().ok_or("nothing")?.error().starts_with("57P01"));
    assert!(keyway.wait_until_ended().await?.success());
    Ok(())
}

async fn it_may_be_a_users(harness: Arc<Shared>) -> Outcome {
    let keyway = start(&harness, SESSION, "").await?;
    let mut one = log_in(&keyway).await?;
    let first = pid(&mut one).await?;
    let mut others = [log_in(&keyway).await?, log_in(&keyway).await?];
    pid(&mut others[0]).await?;
    assert!(others[1].error("SELECT 1").await?.starts_with("53300"));
    assert_eq!(pid(&mut one).await?, first);
    // A user's own word is the last one.
    let keyway = start(&harness, "pool_mode = \"transaction\"", SESSION).await?;
    let mut all = Vec::new();
    for _ in 0..5 {
        let mut wire = log_in(&keyway).await?;
        wire.rows("SELECT 1").await?;
        all.push(wire);
    }
    Ok(())
}

async fn it_is_on_the_primary(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let config = |listen: &str, admin: &str| {
        crate::harness::unsharded_config(shard, listen, admin) + "max_lag = \"1h\"\npool_mode = \"session\"\n"
    };
    let keyway = harness.start_keyway(config).await?;
    let mut one = log_in(&keyway).await?;
    for sql in ["SELECT 1", "CREATE TEMP VIEW here AS SELECT inet_server_port() AS port"] {
        one.rows(sql).await?;
    }
    for _ in 0..30 {
        assert_eq!(one.rows("SELECT port FROM here").await?, [shard.primary.port().to_string()]);
    }
    one.rows("BEGIN READ ONLY").await?;
    assert_eq!(one.rows("SELECT port FROM here").await?, [shard.primary.port().to_string()]);
    one.rows("COMMIT").await?;
    Ok(())
}

async fn it_listens_by_itself(harness: Arc<Shared>) -> Outcome {
    let keyway = start(&harness, "", SESSION).await?;
    let mut one = Wire::connect(keyway.listen()).await?;
    one.send(&crate::harness::wire::startup(196_608, &[("user", USER), ("database", DATABASE)])).await?;
    one.prove(APP_PASSWORD).await?;
    let greeting = one.until('Z').await?;
    let key = greeting.iter().find(|it| it.tag == 'K').ok_or("no BackendKeyData")?;
    one.rows("LISTEN sessions_own").await?;
    one.rows("BEGIN").await?;
    assert_eq!(one.rows("SELECT pg_listening_channels()").await?, ["sessions_own"]);
    one.rows("COMMIT").await?;
    let answer = one.ask(&query("NOTIFY sessions_own, 'own'"), 1).await?;
    let own = answer.iter().find(|it| it.tag == 'A').ok_or("it does not hear itself")?;
    assert_eq!(own.body[..4], key.body[..4], "its own pid is the one that it was given");
    let mut other = log_in(&keyway).await?;
    other.rows("NOTIFY sessions_own, 'another'").await?;
    let heard = one.until('A').await?;
    assert_ne!(heard.last().ok_or("nothing")?.body[..4], key.body[..4]);
    one.rows("UNLISTEN *").await?;
    assert_eq!(one.rows("SELECT pg_listening_channels()").await?, Vec::<String>::new());
    Ok(())
}

async fn it_ends_with_its_server(harness: Arc<Shared>) -> Outcome {
    let keyway = start(&harness, "", SESSION).await?;
    let (mut one, mut two) = (log_in(&keyway).await?, log_in(&keyway).await?);
    let first = pid(&mut one).await?;
    two.rows(&format!("SELECT pg_terminate_backend({first})")).await?;
    let told = one.until('E').await?;
    assert!(told.last().ok_or("nothing")?.error().starts_with("57P01"), "what it had there is gone");
    assert_eq!(two.rows("SELECT 1").await?, ["1"]);
    Ok(())
}
