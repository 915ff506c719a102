//! Transaction pooling that leaks nothing: fewer servers than clients, and still each client finds the
//! session that it left, and none of another's.

use std::sync::Arc;

use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio_postgres::Client;

use crate::harness::wire::{Message, Wire, bind, describe, execute, parse, query, sync};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, assert_error,
    assert_hits, connect, error_of, rows, run, unsharded_config, until,
};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("sessions::settings_stay_with_their_client", settings_stay_with_their_client),
        harness.test("sessions::settings_follow_the_transaction", settings_follow_the_transaction),
        harness.test("sessions::startup_settings_are_the_clients", startup_settings_are_the_clients),
        harness.test("sessions::set_config_is_kept_like_set", set_config_is_kept_like_set),
        harness.test("sessions::statements_of_one_name_are_apart", statements_of_one_name_are_apart),
        harness.test("sessions::more_statements_than_a_server_keeps", more_statements_than_a_server_keeps),
        harness
            .test("sessions::longer_statements_than_a_server_keeps", longer_statements_than_a_server_keeps),
        harness.test("sessions::a_changed_table_under_a_statement", a_changed_table_under_a_statement),
        harness.test("sessions::a_statement_is_renewed_when_its_table_has_changed", a_statement_is_renewed),
        harness.test("sessions::what_one_server_has_pins_it", what_one_server_has_pins_it),
        harness.test("sessions::a_pin_ends_with_discard_all", a_pin_ends_with_discard_all),
        harness.test("sessions::who_leaves_a_transaction_leaves_nothing", who_leaves_leaves_nothing),
        harness.test("sessions::a_query_whose_client_left_is_cancelled", a_client_that_left),
        harness.test("sessions::waiters_are_served_in_their_order", waiters_are_served),
        harness.test("sessions::shutdown_lets_transactions_end", shutdown_lets_transactions_end),
    ]
}

/// Keyway with so few server connections that every client gets another's.
pub async fn narrow(harness: &Shared, settings: &str) -> Fallible<KeywayProcess> {
    let shard = &harness.single().await?.shard;
    // Only the primary, so that there is exactly one server connection.
    let address = shard.primary.address();
    harness
        .start_keyway(|listen, admin| {
            let config = unsharded_config(shard, listen, admin);
            let (head, _) = config.split_once("servers = ").unwrap_or((&config, ""));
            format!("{head}servers = [\"{address}\"]\n[databases.{DATABASE}.pool]\nsize = 1\n{settings}\n")
        })
        .await
}

pub async fn client(keyway: &KeywayProcess) -> Fallible<Client> {
    connect(&keyway.url(USER, APP_PASSWORD, DATABASE)).await
}

pub async fn show(client: &Client, name: &str) -> Fallible<String> {
    Ok(rows(client, &format!("SHOW {name}")).await?.concat())
}

async fn settings_stay_with_their_client(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let (one, other, fresh) = (client(&keyway).await?, client(&keyway).await?, client(&keyway).await?);
    for sql in [
        "SET work_mem = '5MB'",
        "SET search_path TO a, \"B c\"",
        "SET app.tenant = 'it''s'",
        "SET TIME ZONE -3",
    ] {
        run(&one, sql).await?;
    }
    run(&other, "SET work_mem = '6MB'").await?;
    let default = show(&fresh, "work_mem").await?;
    for _ in 0..3 {
        assert_eq!(show(&one, "work_mem").await?, "5MB");
        assert_eq!(show(&other, "work_mem").await?, "6MB");
        assert_eq!(show(&fresh, "work_mem").await?, default);
        assert_eq!(show(&one, "search_path").await?, "a, \"B c\"");
        assert_eq!(show(&other, "search_path").await?, "\"$user\", public");
        assert_eq!(rows(&one, "SELECT current_setting('app.tenant')").await?, ["it's"]);
        assert_eq!(rows(&other, "SELECT coalesce(current_setting('app.tenant', true), '')").await?, [""]);
        assert_eq!(show(&one, "timezone").await?, "<-03>+03");
    }
    run(&one, "RESET work_mem").await?;
    assert_eq!(show(&fresh, "work_mem").await?, default);
    assert_eq!(show(&one, "work_mem").await?, default);
    run(&one, "RESET ALL").await?;
    assert_eq!(show(&other, "work_mem").await?, "6MB");
    assert_eq!(show(&one, "search_path").await?, "\"$user\", public");
    // A value that no server takes changes nothing.
    assert_error(&error_of(&other, "SET work_mem = 'much'").await?, "22023", "invalid value for parameter");
    assert_eq!(show(&other, "work_mem").await?, "6MB");
    run(&other, "DISCARD ALL").await?;
    assert_eq!(show(&other, "work_mem").await?, default);
    Ok(())
}

async fn settings_follow_the_transaction(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    let default = show(&other, "work_mem").await?;
    for (sql, want) in [
        (&["BEGIN", "SET LOCAL work_mem = '7MB'", "SELECT 1", "COMMIT"][..], &default[..]),
        (&["BEGIN", "SET work_mem = '7MB'", "ROLLBACK"], &default),
        (&["BEGIN", "SET work_mem = '7MB'", "COMMIT"], "7MB"),
        (&["BEGIN", "SAVEPOINT a", "SET work_mem = '8MB'", "ROLLBACK TO a", "COMMIT"], "7MB"),
        (
            &[
                "BEGIN",
                "SET work_mem = '8MB'",
                "SAVEPOINT a",
                "SET work_mem = '9MB'",
                "ROLLBACK TO a",
                "COMMIT",
            ],
            "8MB",
        ),
        (&["BEGIN", "SET work_mem = '9MB'", "RESET work_mem", "COMMIT"], &default),
    ] {
        for it in sql {
            run(&one, it).await?;
        }
        assert_eq!(show(&other, "work_mem").await?, default, "{sql:?}");
        assert_eq!(show(&one, "work_mem").await?, want, "{sql:?}");
    }
    // COMMIT of a transaction that has failed is a ROLLBACK.
    for it in ["BEGIN", "SET work_mem = '7MB'"] {
        run(&one, it).await?;
    }
    assert_error(&error_of(&one, "SELECT 1/0").await?, "22012", "division by zero");
    run(&one, "COMMIT").await?;
    assert_eq!(show(&one, "work_mem").await?, default);
    Ok(())
}

async fn startup_settings_are_the_clients(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let mut other = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let settings = [
        ("application_name", "mine"),
        ("options", "-c work_mem=5MB -c search_path=a,b -c geqo=off"),
        ("TimeZone", "Asia/Tokyo"),
        ("datestyle", "German"),
    ];
    let mut one = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &settings).await?;
    let wanted = [
        ("application_name", "mine"),
        ("work_mem", "5MB"),
        ("search_path", "a,b"),
        ("geqo", "off"),
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "German, DMY"),
    ];
    for _ in 0..3 {
        for (name, value) in wanted {
            assert_eq!(one.rows(&format!("SHOW {name}")).await?, [value], "{name}");
            assert_ne!(other.rows(&format!("SHOW {name}")).await?, [value], "{name}");
        }
    }
    for sql in ["SET work_mem = '9MB'", "SET search_path = public", "RESET ALL"] {
        one.rows(sql).await?;
    }
    other.rows("SELECT 1").await?;
    for (name, value) in wanted {
        assert_eq!(one.rows(&format!("SHOW {name}")).await?, [value], "{name}, after RESET ALL");
    }
    Ok(())
}

async fn set_config_is_kept_like_set(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    run(&one, "SELECT set_config('app.tenant', 'one', false)").await?;
    other.query_one("SELECT set_config($1, $2, false)", &[&"app.tenant", &"other"]).await?;
    for _ in 0..3 {
        assert_eq!(rows(&one, "SELECT current_setting('app.tenant')").await?, ["one"]);
        assert_eq!(rows(&other, "SELECT current_setting('app.tenant')").await?, ["other"]);
    }
    for sql in ["BEGIN", "SELECT set_config('app.tenant', 'inside', true)"] {
        run(&one, sql).await?;
    }
    assert_eq!(rows(&one, "SELECT current_setting('app.tenant')").await?, ["inside"]);
    run(&one, "COMMIT").await?;
    assert_eq!(rows(&one, "SELECT current_setting('app.tenant')").await?, ["one"]);
    for sql in ["BEGIN", "SELECT set_config('app.tenant', 'undone', false)", "ROLLBACK"] {
        run(&one, sql).await?;
    }
    assert_eq!(rows(&one, "SELECT current_setting('app.tenant')").await?, ["one"]);
    Ok(())
}

async fn statements_of_one_name_are_apart(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let log_in = || Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]);
    let (mut one, mut other) = (log_in().await?, log_in().await?);
    one.ask(&[parse("s", "SELECT $1::int + 1"), sync()].concat(), 1).await?;
    other.ask(&[parse("s", "SELECT 'text ' || $1::text"), sync()].concat(), 1).await?;
    let run = [bind("", "s", &["1"], false), execute("", 0), sync()].concat();
    let value = |it: &[crate::harness::wire::Message]| {
        let row = it.iter().find(|it| it.tag == 'D').map(|it| it.body[6..].to_vec());
        String::from_utf8(row.unwrap_or_default()).unwrap_or_default()
    };
    for _ in 0..3 {
        assert_eq!(value(&one.ask(&run, 1).await?), "2");
        assert_eq!(value(&other.ask(&run, 1).await?), "text 1");
        for wire in [&mut one, &mut other] {
            // In a transaction, and under an unnamed statement of somebody else's.
            wire.ask(&query("BEGIN"), 1).await?;
            assert!(!value(&wire.ask(&run, 1).await?).is_empty());
            wire.ask(&query("COMMIT"), 1).await?;
            wire.ask(&[parse("", "SELECT 3"), sync()].concat(), 1).await?;
        }
    }
    // DEALLOCATE and DISCARD reach the protocol's names, as in PostgreSQL.
    one.rows("DEALLOCATE s").await?;
    let gone = one.ask(&run, 1).await?;
    assert!(gone[0].error().starts_with("26000"), "{}", gone[0].error());
    other.rows("DEALLOCATE ALL").await?;
    let gone = other.ask(&[describe('S', "s"), sync()].concat(), 1).await?;
    assert!(gone[0].error().starts_with("26000"), "{}", gone[0].error());
    Ok(())
}

async fn more_statements_than_a_server_keeps(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "[limits]\nserver_statements_max = 8").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    let mut statements = Vec::new();
    for n in 0..30 {
        statements.push(one.prepare(&format!("SELECT {n} + $1::int")).await?);
    }
    for turn in 0..3i32 {
        for (n, statement) in statements.iter().enumerate() {
            let got: i32 = one.query_one(statement, &[&turn]).await?.get(0);
            assert_eq!(got, n as i32 + turn);
        }
        let kept: i64 = other.query_one("SELECT count(*) FROM pg_prepared_statements", &[]).await?.get(0);
        assert!(kept <= 9, "{kept} statements on the server");
    }
    assert!(keyway.limit_hits("server_statements_max").await? >= 3);
    assert_hits(&keyway, "server_statement_bytes_max", 0).await
}

/// Long texts make room as many statements do, those of PREPARE too.
async fn longer_statements_than_a_server_keeps(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "[limits]\nserver_statement_bytes_max = 65536").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    let text = |n: usize| format!("SELECT {n} + $1::int /* {} */", "long ".repeat(2000));
    let mut statements = Vec::new();
    for n in 0..12 {
        statements.push(one.prepare(&text(n)).await?);
        run(&other, &format!("PREPARE p{n} (int) AS {}", text(n))).await?;
    }
    for turn in 0..2i32 {
        for (n, statement) in statements.iter().enumerate() {
            let got: i32 = one.query_one(statement, &[&turn]).await?.get(0);
            assert_eq!(got, n as i32 + turn);
            assert_eq!(
                rows(&other, &format!("EXECUTE p{n}({turn})")).await?,
                [(n as i32 + turn).to_string()]
            );
        }
        let kept = rows(&other, "SELECT count(*) FROM pg_prepared_statements").await?.concat();
        assert!(kept.parse::<u32>()? <= 8, "{kept} statements on the server");
    }
    let metrics = keyway.metrics().await?;
    let line = metrics.lines().find(|it| it.starts_with("keyway_statement_evictions_total{"));
    assert!(line.is_some_and(|it| !it.ends_with(" 0")), "{line:?}");
    assert!(keyway.limit_hits("server_statement_bytes_max").await? >= 2);
    Ok(())
}

/// A statement that was described before is an error, as from PostgreSQL; one that is described anew runs.
async fn a_statement_is_renewed(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let direct = harness.single().await?.shard.primary.connect(DATABASE).await?;
    run(&direct, &format!("SET ROLE {USER}; CREATE TABLE renewed (a int)")).await?;
    let mut wire = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let mut other = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let insert = "INSERT INTO renewed DEFAULT VALUES RETURNING *";
    let write = |portal: bool| {
        let described = if portal { describe('P', "") } else { Vec::new() };
        [bind("", "w", &[], false), described, execute("", 0), sync()].concat()
    };
    let tags = |answer: &[Message]| answer.iter().map(|it| it.tag).collect::<String>();
    wire.ask(&[parse("w", insert), sync()].concat(), 1).await?;
    assert_eq!(tags(&wire.ask(&write(true), 1).await?), "2TDCZ");
    wire.rows("PREPARE r AS SELECT * FROM renewed LIMIT 1").await?;
    wire.rows("EXECUTE r").await?;
    run(&direct, "ALTER TABLE renewed ADD b text").await?;
    // Described anew: it runs, once.
    let answer = wire.ask(&write(true), 1).await?;
    assert_eq!(tags(&answer), "2TDCZ");
    assert_eq!(answer[1].body[1], 2, "two columns are described");
    assert_eq!(rows(&direct, "SELECT count(*) FROM renewed").await?, ["2"]);
    let answer = wire.ask(&query("EXECUTE r"), 1).await?;
    assert_eq!((tags(&answer), answer[0].body[1]), ("TDCZ".to_owned(), 2));
    // Not described: the client would take the rows for what they were. The next time it runs.
    run(&direct, "ALTER TABLE renewed ADD c text").await?;
    let answer = wire.ask(&write(false), 1).await?;
    assert_eq!(tags(&answer), "EZ");
    assert_eq!(answer[0].error(), "0A000 cached plan must not change result type");
    assert_eq!(tags(&wire.ask(&write(true), 1).await?), "2TDCZ");
    assert_eq!(rows(&direct, "SELECT count(*) FROM renewed").await?, ["3"]);
    // Inside of a transaction, as from PostgreSQL too; and then it is prepared anew.
    run(&direct, "ALTER TABLE renewed ADD d text").await?;
    wire.rows("BEGIN").await?;
    assert_eq!(tags(&wire.ask(&write(true), 1).await?), "EZ");
    assert!(wire.error("EXECUTE r").await?.starts_with("25P02"));
    wire.rows("ROLLBACK").await?;
    wire.rows("BEGIN").await?;
    assert_eq!(tags(&wire.ask(&write(true), 1).await?), "2TDCZ");
    wire.rows("COMMIT").await?;
    assert_eq!(rows(&direct, "SELECT count(*) FROM renewed").await?, ["4"]);
    // Behind another statement of the same transaction it is not run again.
    run(&direct, "ALTER TABLE renewed ADD e text").await?;
    let first = [parse("", "INSERT INTO renewed (a) VALUES (7)"), bind("", "", &[], false), execute("", 0)];
    let answer = wire.ask(&[first.concat(), write(true)].concat(), 1).await?;
    assert_eq!(tags(&answer), "12CEZ");
    assert_eq!(rows(&direct, "SELECT count(*) FROM renewed").await?, ["4"]);
    // Who prepares it after that gets it as it is, whatever servers have under its old name.
    let answer = other.ask(&[parse("w", insert), describe('S', "w"), sync()].concat(), 1).await?;
    assert_eq!(tags(&answer), "1tTZ");
    assert_eq!(answer[2].body[1], 5);
    run(&direct, "DROP TABLE renewed").await?;
    let metrics = keyway.metrics().await?;
    let line = metrics.lines().find(|it| it.starts_with("keyway_statement_renewals_total{"));
    assert!(line.is_some_and(|it| it.ends_with(" 2")), "{line:?}");
    Ok(())
}

/// PostgreSQL's own error, and its way out of it: parsing again.
async fn a_changed_table_under_a_statement(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let one = client(&keyway).await?;
    run(&one, "CREATE TABLE sessions_changed (a int)").await?;
    let statement = one.prepare("SELECT * FROM sessions_changed").await?;
    one.query(&statement, &[]).await?;
    run(&one, "ALTER TABLE sessions_changed ADD b text").await?;
    let error = one.query(&statement, &[]).await.err().ok_or("no error")?;
    assert_eq!(error.code().map(|it| it.code()), Some("0A000"), "{error}");
    assert!(
        error.to_string().contains("cached plan must not change result type")
            || error.as_db_error().is_some()
    );
    let again = one.prepare("SELECT * FROM sessions_changed").await?;
    assert_eq!(again.columns().len(), 2);
    one.query(&again, &[]).await?;
    run(&one, "DROP TABLE sessions_changed").await?;
    Ok(())
}

/// With one server connection a pinned one is all there is: another client waits until it is given back.
async fn what_one_server_has_pins_it(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"200ms\"").await?;
    for (pinning, probe, reason) in [
        ("CREATE TEMP TABLE mine (a int)", "SELECT count(*) FROM mine", "temp"),
        ("SELECT pg_advisory_lock(77)", "SELECT count(*) FROM pg_locks", "advisory"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH c", "WITH HOLD"),
        ("SELECT setseed(0.5)", "SELECT random()", "setseed"),
    ] {
        let (one, other) = (client(&keyway).await?, client(&keyway).await?);
        run(&one, pinning).await?;
        run(&one, probe).await.map_err(|it| format!("{pinning}: {it}"))?;
        let error = error_of(&other, "SELECT 1").await?;
        assert_error(&error, "53300", "is free");
        let metrics = keyway.metrics().await?;
        let counted = |it: &&str| it.starts_with("keyway_pins_total") && it.contains(reason);
        assert!(metrics.lines().any(|it| counted(&it)), "{reason}: {metrics}");
        drop(one);
        // The server is closed with all that it had.
        until("the next client is served", || async { Ok(run(&other, "SELECT 1").await.is_ok()) }).await?;
        assert_eq!(rows(&other, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await?, ["0"]);
        assert_eq!(rows(&other, "SELECT to_regclass('mine') IS NULL").await?, ["t"]);
        assert_eq!(
            rows(&other, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'p'").await?,
            ["0"]
        );
        assert_eq!(rows(&other, "SELECT count(*) FROM pg_listening_channels()").await?, ["0"]);
    }
    Ok(())
}

async fn a_pin_ends_with_discard_all(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (one, other) = (client(&keyway).await?, client(&keyway).await?);
    for sql in ["CREATE TEMP TABLE mine (a int)", "SET work_mem = '5MB'", "DISCARD ALL"] {
        run(&one, sql).await?;
    }
    assert_eq!(rows(&other, "SELECT to_regclass('mine') IS NULL").await?, ["t"]);
    assert_eq!(rows(&one, "SELECT to_regclass('mine') IS NULL").await?, ["t"]);
    assert_eq!(show(&one, "work_mem").await?, show(&other, "work_mem").await?);
    Ok(())
}

async fn who_leaves_leaves_nothing(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let other = client(&keyway).await?;
    run(&other, "CREATE TABLE sessions_left (a int)").await?;
    let one = client(&keyway).await?;
    for sql in
        ["BEGIN", "INSERT INTO sessions_left VALUES (1)", "LOCK TABLE sessions_left", "SET work_mem = '5MB'"]
    {
        run(&one, sql).await?;
    }
    drop(one);
    assert_eq!(rows(&other, "SELECT count(*) FROM sessions_left").await?, ["0"]);
    assert_ne!(show(&other, "work_mem").await?, "5MB");
    run(&other, "DROP TABLE sessions_left").await?;
    Ok(())
}

async fn a_client_that_left(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let direct = fixture.shard.primary.connect(DATABASE).await?;
    let mut wire = Wire::log_in(fixture.keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    // DO is no read, so it is on the primary, where `direct` looks.
    wire.send(&query("DO $$ BEGIN PERFORM pg_sleep(600), 'left alone'; END $$")).await?;
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %left alone%'";
    let count = || async { Fallible::Ok(direct.query_one(running, &[]).await?.get::<_, i64>(0)) };
    until("it runs", || async { Ok(count().await? == 1) }).await?;
    drop(wire);
    until("it is cancelled", || async { Ok(count().await? == 0) }).await?;
    Ok(())
}

async fn waiters_are_served(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let holder = client(&keyway).await?;
    run(&holder, "CREATE SEQUENCE turns").await?;
    run(&holder, "BEGIN").await?;
    run(&holder, "SELECT 1").await?;
    // The one server numbers them: when answers are read says little.
    let mut turns = tokio::task::JoinSet::new();
    for n in 0..5i64 {
        let client = client(&keyway).await?;
        turns.spawn(async move { (n + 1, rows(&client, "SELECT nextval('turns')").await.ok()) });
        let waiters = format!(" {}", n + 1);
        until("one more waits", || async {
            let metrics = keyway.metrics().await?;
            let counted = |it: &str| it.starts_with("keyway_pool_waiters") && it.ends_with(&waiters);
            Ok(metrics.lines().any(counted))
        })
        .await?;
    }
    run(&holder, "COMMIT").await?;
    while let Some(turn) = turns.join_next().await {
        let (n, turn) = turn?;
        assert_eq!(turn, Some(vec![n.to_string()]));
    }
    run(&holder, "DROP SEQUENCE turns").await?;
    Ok(())
}

async fn shutdown_lets_transactions_end(harness: Arc<Shared>) -> Outcome {
    let mut keyway = narrow(&harness, "").await?;
    let (busy, idle) = (client(&keyway).await?, client(&keyway).await?);
    run(&idle, "SELECT 1").await?;
    run(&busy, "BEGIN").await?;
    run(&busy, "SELECT 1").await?;
    keyway.signal(keyway::demo::postgres::Signal::TERM)?;
    until("idle clients are told to go", || async { Ok(idle.is_closed()) }).await?;
    assert_eq!(rows(&busy, "SELECT 'still here'").await?, ["still here"]);
    run(&busy, "COMMIT").await?;
    let status = keyway.wait_until_ended().await?;
    assert!(status.success(), "{status}:\n{}", keyway.log());
    Ok(())
}
