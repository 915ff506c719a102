//! What ties a client to a server, and when it ends; and what does not tie, because Keyway keeps it. There
//! is one server connection, so a client that is tied to it keeps every other one waiting.

use std::sync::Arc;

use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio_postgres::Client;

use crate::harness::{
    Fallible, Harness, Outcome, Shared, SingleFixture, assert_error, error_of, rows, run, until,
};
use crate::sessions::{client, narrow, show};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("pins::end_when_the_state_is_gone", pins_end),
        harness.test("pins::code_that_leaves_nothing_does_not_pin", clean_code),
        harness.test("pins::code_that_leaves_state_pins", dirty_code),
        harness.test("pins::settings_made_by_code_are_the_clients", settings_by_code),
        harness.test("pins::settings_among_statements_are_the_clients", settings_among_statements),
        harness.test("pins::roles_stay_with_their_client", roles),
        harness.test("pins::a_setting_that_fails_stops_the_statement", settings_that_fail),
        harness.test("pins::prepared_by_sql_and_not_pinned", prepared_by_sql),
        harness.test("pins::prepared_by_sql_in_transactions", prepared_in_transactions),
        harness.test("pins::load_is_refused", load),
    ]
}

/// One more client gets the server.
async fn is_free(other: &Client) -> Fallible<()> {
    assert_eq!(rows(other, "SELECT 'free'").await?, ["free"]);
    Ok(())
}

async fn pins_end(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    for (begin, end) in [
        (&["CREATE TEMP TABLE mine (a int)", "INSERT INTO mine VALUES (1)"][..], "DROP TABLE mine"),
        (&["CREATE TEMP TABLE mine (a int)"], "DISCARD TEMP"),
        (&["BEGIN", "CREATE TEMP TABLE mine (a int)"], "ROLLBACK"),
        (&["CREATE TEMP SEQUENCE mine"], "DROP SEQUENCE mine"),
        (&["SELECT pg_advisory_lock(78)", "SELECT pg_advisory_lock(78)"], "SELECT pg_advisory_unlock_all()"),
        (&["SELECT pg_advisory_lock(78)"], "SELECT pg_advisory_unlock(78)"),
        (&["BEGIN", "SELECT pg_try_advisory_lock(78)", "SELECT pg_advisory_unlock(78)"], "COMMIT"),
        (&["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH c"], "CLOSE c"),
        (&["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"], "ROLLBACK"),
        (&["DECLARE c CURSOR WITH HOLD FOR SELECT 1"], "CLOSE ALL"),
        (&["LISTEN pins_end; LISTEN pins_end_too"], "UNLISTEN *"),
    ] {
        for sql in begin {
            run(&one, sql).await.map_err(|it| format!("{sql}: {it}"))?;
        }
        run(&one, end).await.map_err(|it| format!("{end}: {it}"))?;
        is_free(&other).await.map_err(|it| format!("{begin:?}, {end}: {it}"))?;
        // And by the extended protocol.
        for sql in begin.iter().filter(|it| !it.contains(';')).chain([&end]) {
            one.execute(*sql, &[]).await.map_err(|it| format!("{sql}: {it}"))?;
        }
        is_free(&other).await.map_err(|it| format!("{begin:?}, {end}: {it}"))?;
    }
    // A lock that was not to be had is none.
    let direct = harness.single().await?.shard.primary.connect(SingleFixture::DATABASE).await?;
    run(&direct, "SELECT pg_advisory_lock(79)").await?;
    assert_eq!(rows(&one, "SELECT pg_try_advisory_lock(79)").await?, ["f"]);
    Ok(is_free(&other).await?)
}

async fn clean_code(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    run(&one, "CREATE PROCEDURE pins_nothing() LANGUAGE plpgsql AS $$ BEGIN END $$").await?;
    for sql in [
        "DO $$ BEGIN PERFORM 1; END $$",
        "CALL pins_nothing()",
        "DO $$ BEGIN CREATE TEMP TABLE mine (a int) ON COMMIT DROP; END $$",
        "DO $$ BEGIN PERFORM pg_advisory_xact_lock(5); END $$",
        "DO $$ BEGIN SET LOCAL work_mem = '5MB'; END $$",
    ] {
        run(&one, sql).await?;
        is_free(&other).await.map_err(|it| format!("{sql}: {it}"))?;
    }
    // A text that no grammar knows leaves nothing either.
    assert_error(&error_of(&one, "SELEC 1").await?, "42601", "SELEC");
    is_free(&other).await?;
    run(&one, "DROP PROCEDURE pins_nothing()").await?;
    Ok(())
}

async fn dirty_code(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"200ms\"").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    for (begin, look, end) in [
        (
            "DO $$ BEGIN CREATE TEMP TABLE mine (a int); END $$",
            "SELECT count(*) FROM mine",
            "DO $$ BEGIN DROP TABLE mine; END $$",
        ),
        ("DO $$ BEGIN PERFORM pg_advisory_lock(80); END $$", "SELECT 1", "SELECT pg_advisory_unlock(80)"),
        ("DO $$ BEGIN EXECUTE 'PREPARE pins_p AS SELECT 1'; END $$", "EXECUTE pins_p", "DEALLOCATE pins_p"),
    ] {
        run(&one, begin).await?;
        let error = error_of(&other, "SELECT 1").await.map_err(|it| format!("{begin}: {it}"))?;
        assert_error(&error, "53300", "is free");
        run(&one, look).await.map_err(|it| format!("{look}: {it}"))?;
        run(&one, end).await?;
        is_free(&other).await.map_err(|it| format!("{begin}: {it}"))?;
    }
    Ok(())
}

async fn settings_by_code(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    let default = show(&other, "work_mem").await?;
    run(&one, "SET application_name = 'mine'").await?;
    run(
        &one,
        "DO $$ BEGIN SET work_mem = '5MB'; PERFORM set_config('app.pins', 'it''s', false); \
         SET search_path = a, \"B c\"; END $$",
    )
    .await?;
    for _ in 0..3 {
        assert_eq!(show(&other, "work_mem").await?, default);
        assert_eq!(show(&other, "search_path").await?, "\"$user\", public");
        assert_eq!(rows(&other, "SELECT coalesce(current_setting('app.pins', true), '')").await?, [""]);
        assert_eq!(show(&one, "work_mem").await?, "5MB");
        assert_eq!(show(&one, "search_path").await?, "a, \"B c\"");
        assert_eq!(show(&one, "application_name").await?, "mine");
        assert_eq!(rows(&one, "SELECT current_setting('app.pins')").await?, ["it's"]);
    }
    run(&one, "DO $$ BEGIN RESET work_mem; END $$").await?;
    is_free(&other).await?;
    assert_eq!(show(&one, "work_mem").await?, default);
    assert_eq!(show(&one, "search_path").await?, "a, \"B c\"");
    Ok(())
}

async fn settings_among_statements(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    let default = show(&other, "work_mem").await?;
    run(&one, "SET work_mem = '5MB'; SET app.among = 'x'; SELECT 1").await?;
    run(&one, "BEGIN; SET statement_timeout = '7s'; COMMIT").await?;
    run(&one, "BEGIN; SET lock_timeout = '7s'; ROLLBACK").await?;
    for _ in 0..2 {
        assert_eq!(show(&other, "work_mem").await?, default);
        assert_eq!(show(&other, "statement_timeout").await?, "0");
        assert_eq!(show(&one, "work_mem").await?, "5MB");
        assert_eq!(show(&one, "statement_timeout").await?, "7s");
        assert_eq!(show(&one, "lock_timeout").await?, "0");
        assert_eq!(rows(&one, "SELECT current_setting('app.among')").await?, ["x"]);
    }
    Ok(())
}

async fn roles(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let direct = harness.single().await?.shard.primary.connect(SingleFixture::DATABASE).await?;
    run(&direct, &format!("CREATE ROLE pins_role; GRANT pins_role TO {USER}")).await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    let who = "SELECT current_user || ' ' || session_user";
    let (plain, taken) = (format!("{USER} {USER}"), format!("pins_role {USER}"));
    for sql in ["SET work_mem = '5MB'", "SET ROLE pins_role", "SET statement_timeout = '8s'"] {
        run(&one, sql).await?;
    }
    for _ in 0..3 {
        assert_eq!(rows(&other, who).await?, [plain.as_str()]);
        assert_eq!(rows(&one, who).await?, [taken.as_str()]);
        assert_eq!(show(&one, "statement_timeout").await?, "8s");
    }
    run(&one, "RESET ALL").await?;
    is_free(&other).await?;
    assert_eq!(rows(&one, who).await?, [taken.as_str()], "RESET ALL leaves the role");
    for (sql, want) in [
        ("SET ROLE NONE", &plain),
        ("SET ROLE pins_role", &taken),
        ("RESET ROLE", &plain),
        ("SELECT set_config('role', 'pins_role', false)", &taken),
        ("DISCARD ALL", &plain),
        ("DO $$ BEGIN SET ROLE pins_role; END $$", &taken),
        ("DO $$ BEGIN RESET ROLE; END $$", &plain),
    ] {
        run(&one, sql).await?;
        assert_eq!(rows(&other, who).await?, [plain.as_str()], "{sql}");
        assert_eq!(rows(&one, who).await?, [want.as_str()], "{sql}");
    }
    for (end, want) in [("ROLLBACK", &plain), ("COMMIT", &taken)] {
        for sql in ["BEGIN", "SET ROLE pins_role", end] {
            run(&one, sql).await?;
        }
        is_free(&other).await?;
        assert_eq!(rows(&one, who).await?, [want.as_str()], "{end}");
    }
    Ok(())
}

/// The role is gone by the time that another server connection is to take it: the statement must not run as
/// somebody else.
async fn settings_that_fail(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let direct = harness.single().await?.shard.primary.connect(SingleFixture::DATABASE).await?;
    run(&direct, &format!("CREATE ROLE pins_gone; GRANT pins_gone TO {USER}")).await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    run(&other, "CREATE TABLE pins_ran (a int)").await?;
    run(&one, "SET ROLE pins_gone").await?;
    is_free(&other).await?;
    run(&direct, "DROP ROLE pins_gone").await?;
    for sql in ["INSERT INTO pins_ran VALUES (1)", "SELECT 1", "DO $$ BEGIN END $$"] {
        assert_error(&error_of(&one, sql).await?, "22023", "pins_gone");
        let error = one.execute(sql, &[]).await.err().ok_or("it ran")?;
        assert!(error.to_string().contains("db error") && format!("{error:?}").contains("pins_gone"));
    }
    run(&one, "BEGIN").await?;
    assert_error(&error_of(&one, "SELECT 1").await?, "22023", "pins_gone");
    assert_error(&error_of(&one, "SELECT 1").await?, "25P02", "aborted");
    run(&one, "ROLLBACK").await?;
    assert_eq!(rows(&other, "SELECT count(*) FROM pins_ran").await?, ["0"]);
    run(&one, "DISCARD ALL").await?;
    run(&one, "INSERT INTO pins_ran VALUES (1)").await?;
    run(&other, "DROP TABLE pins_ran").await?;
    Ok(())
}

async fn prepared_by_sql(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    run(&one, "PREPARE p (int) AS SELECT $1 + 1").await?;
    run(&other, "PREPARE p AS SELECT 'other ' || $1").await?;
    run(&other, "PREPARE \"P 2\" (int) AS SELECT $1 + 1").await?;
    for _ in 0..2 {
        assert_eq!(rows(&one, "EXECUTE p(41)").await?, ["42"]);
        assert_eq!(rows(&other, "EXECUTE p('one')").await?, ["other one"]);
        assert_eq!(rows(&other, "execute \"P 2\" (1)").await?, ["2"]);
        assert!(rows(&one, "EXPLAIN EXECUTE p(1)").await?.concat().contains("Result"));
    }
    assert_eq!(rows(&one, "EXECUTE p(1); EXECUTE p(2)").await?, ["2", "3"]);
    let many = "CREATE TABLE pins_made AS EXECUTE p(5)";
    run(&one, many).await?;
    assert_eq!(rows(&other, "SELECT * FROM pins_made").await?, ["6"]);
    run(&one, "DROP TABLE pins_made").await?;
    assert_error(&error_of(&one, "PREPARE p AS SELECT 1").await?, "42P05", "\"p\" already exists");
    assert_error(&error_of(&one, "EXECUTE q").await?, "26000", "\"q\" does not exist");
    assert_error(&error_of(&one, "PREPARE q AS SELECT nothing").await?, "42703", "nothing");
    assert_error(&error_of(&one, "EXECUTE q").await?, "26000", "\"q\" does not exist");
    assert_error(&error_of(&one, "EXECUTE p('x')").await?, "22P02", "invalid input syntax");
    assert_eq!(rows(&one, "EXECUTE p(1)").await?, ["2"]);
    run(&one, "DEALLOCATE p").await?;
    assert_error(&error_of(&one, "EXECUTE p(1)").await?, "26000", "\"p\" does not exist");
    assert_eq!(rows(&other, "EXECUTE p('still')").await?, ["other still"]);
    run(&other, "DISCARD ALL").await?;
    assert_error(&error_of(&other, "EXECUTE p('x')").await?, "26000", "does not exist");
    // What the statement leaves pins as it would by itself.
    run(&one, "PREPARE l AS SELECT pg_advisory_lock(81)").await?;
    run(&one, "EXECUTE l").await?;
    until("it is pinned", || async {
        let metrics = keyway.metrics().await?;
        Ok(metrics.lines().any(|it| it.starts_with("keyway_pins_total") && it.contains("advisory")))
    })
    .await?;
    run(&one, "SELECT pg_advisory_unlock(81)").await?;
    Ok(is_free(&other).await?)
}

async fn prepared_in_transactions(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    for sql in ["BEGIN", "PREPARE p AS SELECT 7", "ROLLBACK"] {
        run(&one, sql).await?;
    }
    is_free(&other).await?;
    assert_eq!(rows(&one, "EXECUTE p").await?, ["7"], "it outlives ROLLBACK");
    run(&other, "PREPARE p AS SELECT 7").await?;
    run(&other, "BEGIN").await?;
    assert_error(&error_of(&other, "SELECT 1/0").await?, "22012", "division");
    assert_error(&error_of(&other, "EXECUTE p").await?, "25P02", "aborted");
    assert_error(&error_of(&other, "PREPARE q AS SELECT 7").await?, "25P02", "aborted");
    run(&other, "ROLLBACK").await?;
    assert_error(&error_of(&other, "EXECUTE q").await?, "26000", "does not exist");
    assert_eq!(rows(&other, "EXECUTE p").await?, ["7"]);
    // A new server connection gets it again, behind BEGIN too.
    let direct = harness.single().await?.shard.primary.connect(SingleFixture::DATABASE).await?;
    let pid = rows(&one, "SELECT pg_backend_pid()").await?.concat();
    run(&direct, &format!("SELECT pg_terminate_backend({pid})")).await?;
    until("a new connection serves", || async { Ok(run(&one, "SELECT 1").await.is_ok()) }).await?;
    run(&one, "BEGIN").await?;
    assert_eq!(rows(&one, "EXECUTE p").await?, ["7"]);
    run(&one, "COMMIT").await?;
    Ok(())
}

async fn load(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let one = client(&keyway).await?;
    assert_error(&error_of(&one, "LOAD 'auto_explain'").await?, "0A000", "LOAD");
    Ok(())
}
