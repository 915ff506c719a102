//! Explicit transactions: on the shard of the first key, and on no other.

use std::sync::Arc;

use libtest_mimic::Trial;
use tokio_postgres::Client;

use super::{Shards, insert_user};
use crate::harness::{
    Fallible, Harness, Outcome, Shared, as_db_error, assert_error, connect, error_of, rows, run,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::transactions::the_first_key_enlists", the_first_key_enlists),
        harness.test("routing::transactions::prepared_statements_enlist", prepared_statements_enlist),
        harness.test("routing::transactions::a_second_shard_aborts", a_second_shard_aborts),
        harness.test("routing::transactions::a_savepoint_survives_a_refusal", a_savepoint_survives_a_refusal),
        harness.test("routing::transactions::settings_and_savepoints_move_along", settings_move_along),
        harness.test("routing::transactions::one_snapshot_stays_on_its_shard", one_snapshot_stays),
        harness.test("routing::transactions::what_depends_on_its_server_binds", what_binds),
        harness.test("routing::transactions::read_only", read_only),
        harness.test("routing::transactions::a_chained_one_goes_on", chained),
    ]
}

const TIMES: usize = 4;

async fn begin(client: &Client, first: &str) -> Fallible<()> {
    run(client, "BEGIN").await?;
    if !first.is_empty() {
        run(client, first).await?;
    }
    Ok(())
}

/// Several sessions each, because a statement that may run anywhere runs on another shard in each.
async fn the_first_key_enlists(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let mut user_id = 1_300_000;
    for first in [
        "",
        "SELECT 1",
        "SELECT name FROM countries WHERE code = 'NL'",
        "SELECT name FROM users WHERE user_id = NULL",
        "SHOW transaction_isolation",
        "SAVEPOINT a",
        "SET LOCAL work_mem = '1MB'",
        "SELECT upper(name) FROM countries; ",
    ] {
        for _ in 0..TIMES {
            let client = shards.client().await?;
            for index in [0, 1] {
                user_id = shards.user_on(index, user_id + 1);
                begin(&client, first).await?;
                client
                    .simple_query(&insert_user(user_id, "enlisted"))
                    .await
                    .map_err(|error| format!("after {first:?} on shard {index}: {error:?}"))?;
                let here = format!("SELECT name FROM users WHERE user_id = {user_id}");
                assert_eq!(rows(&client, &here).await?, ["enlisted"], "it sees its own write");
                assert_eq!(rows(&client, "SELECT count(*) FROM countries").await?, ["6"]);
                let before = shards.everywhere(&here).await?;
                assert_eq!(before.iter().flatten().count(), 0, "not committed yet");
                run(&client, "COMMIT").await?;
                let after = shards.everywhere(&here).await?;
                assert_eq!(
                    (&after[index][..], after.iter().flatten().count()),
                    (&["enlisted".into()][..], 1)
                );
            }
        }
    }
    Ok(())
}

/// A driver prepares inside the transaction, before a key is known.
async fn prepared_statements_enlist(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let mut user_id = 1_310_000;
    for isolation in ["read committed", "serializable"] {
        for index in [0, 1, 1, 0] {
            user_id = shards.user_on(index, user_id + 1);
            let mut client = shards.client().await?;
            let level = match isolation {
                "serializable" => tokio_postgres::IsolationLevel::Serializable,
                _ => tokio_postgres::IsolationLevel::ReadCommitted,
            };
            let transaction = client.build_transaction().isolation_level(level).start().await?;
            let insert =
                "INSERT INTO users (user_id, name, email, country) VALUES ($1, 'prepared', 'e', 'NL')";
            transaction.execute(insert, &[&user_id]).await?;
            let select = transaction.prepare("SELECT name FROM users WHERE user_id = $1").await?;
            assert_eq!(transaction.query_one(&select, &[&user_id]).await?.get::<_, String>(0), "prepared");
            let shown: String = transaction.query_one("SHOW transaction_isolation", &[]).await?.get(0);
            assert_eq!(shown, isolation, "it moved as it was begun");
            transaction.commit().await?;
            let here = format!("SELECT name FROM users WHERE user_id = {user_id}");
            assert_eq!(shards.everywhere(&here).await?[index], ["prepared"]);
        }
    }
    Ok(())
}

async fn a_second_shard_aborts(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 1_320_000), shards.user_on(1, 1_320_000));
    begin(&client, &insert_user(a, "first")).await?;
    let error = error_of(&client, &insert_user(b, "second")).await?;
    assert_error(&error, "0A000", "transaction would touch two shards");
    assert!(error.detail().is_some_and(|it| it.contains("\"s1\"") && it.contains("\"s2\"")), "{error:?}");
    for sql in ["SELECT 1".to_owned(), insert_user(a + 1, "third"), "SHOW work_mem".to_owned()] {
        assert_error(&error_of(&client, &sql).await?, "25P02", "current transaction is aborted");
    }
    run(&client, "ROLLBACK").await?;
    assert_eq!(rows(&client, "SELECT 1").await?, ["1"], "the session goes on");

    // COMMIT of an aborted transaction rolls back, as PostgreSQL's does.
    begin(&client, &insert_user(a, "first")).await?;
    let lock = format!("SELECT name FROM users WHERE user_id = {b} FOR UPDATE");
    assert_error(&error_of(&client, &lock).await?, "0A000", "two shards");
    run(&client, "COMMIT").await?;
    let names = format!("SELECT name FROM users WHERE user_id IN ({a}, {b})");
    assert_eq!(shards.everywhere(&names).await?, [vec![""; 0], vec![]]);

    for (part, sql) in [
        ("transaction", "CREATE TABLE in_a_transaction (a int)"),
        ("transaction", "INSERT INTO countries VALUES ('XX', 'x')"),
    ] {
        begin(&client, &insert_user(a, "first")).await?;
        assert_error(&error_of(&client, sql).await?, "0A000", part);
        assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
        run(&client, "ROLLBACK").await?;
        begin(&client, "").await?;
        assert_error(&error_of(&client, sql).await?, "0A000", part);
        assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
        run(&client, "ROLLBACK").await?;
    }

    let mut client = shards.client().await?;
    let transaction = client.transaction().await?;
    let insert = transaction
        .prepare("INSERT INTO users (user_id, name, email, country) VALUES ($1, 'first', 'e', 'NL')")
        .await?;
    transaction.execute(&insert, &[&a]).await?;
    let error = as_db_error(transaction.execute(&insert, &[&b]).await.expect_err("two shards"))?;
    assert_error(&error, "0A000", "transaction would touch two shards");
    let error = as_db_error(transaction.execute(&insert, &[&a]).await.expect_err("aborted"))?;
    assert_error(&error, "25P02", "aborted");
    transaction.rollback().await?;
    assert_eq!(shards.everywhere(&names).await?, [vec![""; 0], vec![]]);
    Ok(())
}

async fn a_savepoint_survives_a_refusal(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 1_330_000), shards.user_on(1, 1_330_000));
    begin(&client, &insert_user(a, "kept")).await?;
    run(&client, "SAVEPOINT s").await?;
    assert_error(&error_of(&client, &insert_user(b, "lost")).await?, "0A000", "two shards");
    run(&client, "ROLLBACK TO SAVEPOINT s").await?;
    run(&client, "COMMIT").await?;
    let names = format!("SELECT name FROM users WHERE user_id IN ({a}, {b})");
    assert_eq!(shards.everywhere(&names).await?, [vec!["kept"], vec![]]);

    // A savepoint made before anything binds the transaction goes where the transaction goes.
    for index in [0, 1] {
        let c = shards.user_on(index, 1_331_000);
        begin(&client, "SELECT 1").await?;
        run(&client, "SAVEPOINT s").await?;
        assert_error(&error_of(&client, "SELECT 1 / 0").await?, "22012", "division");
        run(&client, "ROLLBACK TO s").await?;
        run(&client, &insert_user(c, "lost")).await?;
        run(&client, "ROLLBACK TO s; ").await?;
        run(&client, &insert_user(c, "kept")).await?;
        run(&client, "RELEASE s").await?;
        run(&client, "COMMIT").await?;
        let name = format!("SELECT name FROM users WHERE user_id = {c}");
        assert_eq!(shards.everywhere(&name).await?[index], ["kept"]);
    }
    Ok(())
}

async fn settings_move_along(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    for index in [0, 1] {
        let client = shards.client().await?;
        let user_id = shards.user_on(index, 1_340_000);
        begin(&client, "SET LOCAL work_mem = '1234kB'").await?;
        run(&client, "SELECT 1").await?;
        run(&client, "SET LOCAL lock_timeout = '4321ms'").await?;
        run(&client, "SET statement_timeout = '54321ms'").await?;
        run(&client, &insert_user(user_id, "moved")).await?;
        for (name, value) in
            [("work_mem", "1234kB"), ("lock_timeout", "4321ms"), ("statement_timeout", "54321ms")]
        {
            assert_eq!(rows(&client, &format!("SHOW {name}")).await?, [value]);
        }
        run(&client, "COMMIT").await?;
        assert_eq!(rows(&client, "SHOW statement_timeout").await?, ["54321ms"], "kept by COMMIT");
        assert_eq!(rows(&client, "SHOW lock_timeout").await?, ["0"], "LOCAL ends with it");
        for other in [0, 1] {
            let user_id = shards.user_on(other, 1_341_000);
            let both = format!(
                "SELECT current_setting('statement_timeout'), current_setting('lock_timeout') \
                 FROM (SELECT 1) AS t WHERE NOT EXISTS (SELECT FROM users WHERE user_id = {user_id})"
            );
            assert_eq!(rows(&client, &both).await?, ["54321ms|0"], "on shard {other}");
        }
    }
    Ok(())
}

/// A snapshot taken on one shard says nothing of another: refused, unless it is taken where the key is.
async fn one_snapshot_stays(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let mut refused = 0;
    for (index, level) in [0, 1].into_iter().flat_map(|it| [(it, "REPEATABLE READ"), (it, "SERIALIZABLE")]) {
        for _ in 0..TIMES {
            let client = shards.client().await?;
            let user_id = shards.user_on(index, 1_350_000);
            run(&client, &format!("BEGIN ISOLATION LEVEL {level}")).await?;
            assert_eq!(rows(&client, "SELECT count(*) FROM countries").await?, ["6"]);
            let select = format!("SELECT count(*) FROM users WHERE user_id = {user_id}");
            match rows(&client, &select).await {
                Ok(found) => assert_eq!(found, ["0"]),
                Err(_) => {
                    refused += 1;
                    assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
                }
            }
            run(&client, "ROLLBACK").await?;
            // Without a first read it begins where its key is.
            run(&client, &format!("BEGIN ISOLATION LEVEL {level}")).await?;
            assert_eq!(rows(&client, &select).await?, ["0"]);
            run(&client, "COMMIT").await?;
        }
    }
    let all = TIMES * 4;
    assert!(refused > 0 && refused < all, "{refused} of {all} began on the other shard");
    Ok(())
}

/// What shows or leaves something of its server ties the transaction to it: keys elsewhere are read on further
/// servers.
async fn what_binds(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let cursor = "DECLARE c CURSOR FOR SELECT code FROM countries ORDER BY code COLLATE \"C\"";
    for first in ["SELECT now()", "SELECT txid_current()", cursor] {
        let client = shards.client().await?;
        begin(&client, "").await?;
        let before = rows(&client, first).await?;
        for index in [0, 1, 0] {
            let user_id = shards.user_on(index, 1_360_000);
            let select = format!("SELECT count(*) FROM users WHERE user_id = {user_id}");
            assert_eq!(rows(&client, &select).await?, ["0"]);
            match first == cursor {
                true => assert_eq!(rows(&client, "FETCH 1 FROM c").await?.len(), 1),
                false => assert_eq!(rows(&client, first).await?, before, "{first}"),
            }
        }
        run(&client, "COMMIT").await?;
    }
    Ok(())
}

/// As PostgreSQL has it: settings of the session stay where they are committed, and modes go on.
async fn chained(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let direct =
        connect(&shards.shop.shop.url(&shards.shop.shop.shards[0].primary.address().to_string())).await?;
    let (a, none) = (shards.user_on(0, 1_380_000), shards.user_on(0, 1_381_000));
    let shown = async |client: &Client| {
        let mut shown = Vec::new();
        for name in [
            "transaction_isolation",
            "transaction_read_only",
            "lock_timeout",
            "statement_timeout",
            "work_mem",
        ] {
            let sql = format!(
                "SELECT current_setting('{name}') WHERE NOT EXISTS (SELECT FROM users WHERE user_id = {none})"
            );
            shown.extend(rows(client, &sql).await?);
        }
        Fallible::Ok(shown.join(" "))
    };
    let mut told = Vec::new();
    let ours = shards.client().await?;
    for client in [&ours, &direct] {
        let mut seen = Vec::new();
        for sql in [
            "SET lock_timeout = '1s'",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "SET statement_timeout = '11s'",
            "SET LOCAL work_mem = '1234kB'",
            &insert_user(a, "chained"),
            "COMMIT AND CHAIN",
            "SET TRANSACTION READ ONLY",
            "SET statement_timeout = '12s'",
            "ROLLBACK AND CHAIN",
            "SET statement_timeout = '13s'",
            "COMMIT AND CHAIN",
            "SELECT 1 / 0",
            "COMMIT AND CHAIN",
            "SET statement_timeout = '14s'",
            "COMMIT",
        ] {
            let ended = client.simple_query(sql).await.err().and_then(|it| it.code().cloned());
            seen.push(format!("{sql}: {ended:?}"));
            if sql != "SELECT 1 / 0" {
                seen.push(shown(client).await?);
            }
        }
        run(client, &format!("DELETE FROM users WHERE user_id = {a}")).await?;
        told.push(seen);
    }
    assert_eq!(told[0], told[1]);
    assert!(told[0].iter().any(|it| it == "repeatable read off 1s 11s 4MB"), "{told:?}");
    // It has its settings on whichever server is next, and nobody else has.
    let b = shards.user_on(1, 1_380_000);
    for user_id in [a, b, a, b] {
        let sql = format!(
            "SELECT current_setting('statement_timeout') WHERE NOT EXISTS (SELECT FROM users WHERE user_id = {user_id})"
        );
        assert_eq!(rows(&ours, &sql).await?, ["14s"]);
        assert_eq!(rows(&shards.client().await?, &sql).await?, ["0"]);
    }
    Ok(())
}

async fn read_only(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    for index in [0, 1, 0, 1] {
        let client = shards.client().await?;
        let user_id = shards.user_on(index, 1_370_000 + index as i64 * 100);
        run(&client, "BEGIN READ ONLY").await?;
        assert_eq!(rows(&client, "SELECT count(*) FROM countries").await?, ["6"]);
        let select = format!("SELECT count(*) FROM users WHERE user_id = {user_id}");
        assert_eq!(rows(&client, &select).await?, ["0"]);
        assert_eq!(rows(&client, "SHOW transaction_read_only").await?, ["on"]);
        let error = error_of(&client, &insert_user(user_id, "never")).await?;
        assert_error(&error, "25006", "read-only transaction");
        run(&client, "ROLLBACK").await?;
    }
    Ok(())
}
