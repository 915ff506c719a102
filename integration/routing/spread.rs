//! Transactions that read on several shards and write on one.

use std::sync::Arc;
use std::time::Duration;

use keyway::demo::shop::{self, USER};
use libtest_mimic::Trial;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Shards, insert_user};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, as_db_error, assert_error, connect, error_of, rows,
    run, until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::spread::reads_see_what_the_transaction_wrote", own_writes),
        harness.test("routing::spread::one_shard_of_all_is_written", one_is_written),
        harness.test("routing::spread::an_error_on_one_shard_aborts_all", an_error_aborts),
        harness.test("routing::spread::savepoints_reach_every_shard", savepoints),
        harness.test("routing::spread::settings_reach_every_shard", settings),
        harness.test("routing::spread::one_snapshot_is_refused", one_snapshot),
        harness.test("routing::spread::prepared_statements", prepared),
        harness.test("routing::spread::code_that_hides_settings", hidden_settings),
        harness.test("routing::spread::nothing_is_left_of_a_client_that_dies", death),
        harness.test("routing::spread::a_lost_server_ends_the_transaction", lost_server),
        harness.test("routing::spread::a_cancel_reaches_every_shard", cancel),
        harness.test("routing::spread::a_pause_waits_for_its_end", pause),
        harness.test("routing::spread::transactions_are_shown", shown),
        harness.test("routing::spread::a_write_stays_the_transactions", a_write_stays),
        harness.test("routing::spread::what_only_one_server_knows_is_not_spread", what_only_one_knows),
    ]
}

/// Transactions that are open on each shard, by this client's name.
pub async fn open_on(shards: &Shards<'_>, name: &str) -> Fallible<Vec<usize>> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE application_name = '{name}' AND xact_start IS NOT NULL"
    );
    Ok(shards.everywhere(&sql).await?.iter().map(Vec::len).collect())
}

/// Until a transaction of `name` is open on neither shard: one that was left would stay.
pub async fn until_none_is_open(shards: &Shards<'_>, name: &str) -> Fallible<()> {
    until("no transaction is open", async || Ok(open_on(shards, name).await? == [0, 0])).await
}

pub async fn named(shards: &Shards<'_>, name: &str) -> Fallible<Client> {
    connect(&format!("{}?application_name={name}", shards.url())).await
}

/// One user on each shard, from `from` on.
pub async fn users(shards: &Shards<'_>, from: i64, name: &str) -> Fallible<[i64; 2]> {
    let ids = [shards.user_on(0, from), shards.user_on(1, from)];
    let client = shards.client().await?;
    for id in ids {
        run(&client, &insert_user(id, name)).await?;
    }
    Ok(ids)
}

pub fn count(name: &str) -> String {
    format!("SELECT count(*) FROM users WHERE name = '{name}'")
}

async fn own_writes(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    for index in [0, 1] {
        let name = format!("spread_own_{index}");
        let [a, b] = users(&shards, 1_420_000 + 1000 * index as i64, &name).await?;
        let client = named(&shards, &name).await?;
        let (own, other) = if index == 0 { (a, b) } else { (b, a) };
        let next = shards.user_on(index, own + 1);
        run(&client, "BEGIN").await?;
        assert_eq!(rows(&client, &count(&name)).await?, ["2"]);
        run(&client, &insert_user(next, &name)).await?;
        assert_eq!(rows(&client, &count(&name)).await?, ["3"], "with its own write");
        let order = format!("SELECT user_id FROM users WHERE name = '{name}' ORDER BY user_id DESC LIMIT 2");
        let mut ids = [a, b, next];
        ids.sort_unstable();
        assert_eq!(rows(&client, &order).await?, [ids[2].to_string(), ids[1].to_string()]);
        let one = |id| format!("SELECT name FROM users WHERE user_id = {id}");
        assert_eq!(rows(&client, &one(other)).await?, [&name[..]]);
        assert_eq!(rows(&client, &one(next)).await?, [&name[..]]);
        assert_eq!(
            rows(&client, &format!("SELECT user_id FROM users WHERE name = '{name}'")).await?.len(),
            3
        );
        assert_eq!(open_on(&shards, &name).await?, [1, 1]);
        let outside = shards.everywhere(&one(next)).await?;
        assert_eq!(outside.iter().flatten().count(), 0, "not committed yet");
        // What is committed meanwhile is seen by the next statement, on every shard.
        let late = shards.user_on(1 - index, other + 1);
        run(&shards.client().await?, &insert_user(late, &name)).await?;
        assert_eq!(rows(&client, &count(&name)).await?, ["4"]);
        run(&client, "COMMIT").await?;
        assert_eq!(shards.everywhere(&one(next)).await?[index], [&name[..]]);
        until_none_is_open(&shards, &name).await?;

        run(&client, "BEGIN").await?;
        run(&client, &format!("DELETE FROM users WHERE user_id = {next}")).await?;
        assert_eq!(rows(&client, &count(&name)).await?, ["3"]);
        run(&client, "ROLLBACK").await?;
        assert_eq!(rows(&client, &count(&name)).await?, ["4"]);
        until_none_is_open(&shards, &name).await?;
    }
    Ok(())
}

async fn one_is_written(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_403_000, "spread_one").await?;
    let client = named(&shards, "spread_one").await?;
    let update = |id: i64| format!("UPDATE users SET email = 'written' WHERE user_id = {id}");
    for (first, second) in [(a, b), (b, a)] {
        // Reads of one shard and of both come before; the first write decides.
        run(&client, "BEGIN").await?;
        rows(&client, &format!("SELECT name FROM users WHERE user_id = {second}")).await?;
        rows(&client, &count("spread_one")).await?;
        run(&client, &update(first)).await?;
        rows(&client, &format!("SELECT name FROM users WHERE user_id = {second}")).await?;
        run(&client, &update(first)).await?;
        assert_error(
            &error_of(&client, &update(second)).await?,
            "0A000",
            "transaction would touch two shards",
        );
        assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
        assert_eq!(tag(&client, "COMMIT").await?, None, "there is nothing to commit");
        until_none_is_open(&shards, "spread_one").await?;
        run(&client, "BEGIN").await?;
        rows(&client, &format!("SELECT name FROM users WHERE user_id = {second}")).await?;
        run(&client, &update(first)).await?;
        run(&client, "COMMIT").await?;
        let written = format!("SELECT email FROM users WHERE user_id = {first}");
        assert_eq!(rows(&client, &written).await?, ["written"]);
        run(&client, &format!("UPDATE users SET email = 'e' WHERE user_id = {first}")).await?;
    }
    for sql in ["SELECT name FROM users FOR UPDATE", "INSERT INTO countries VALUES ('XX', 'x')"] {
        run(&client, "BEGIN").await?;
        rows(&client, &count("spread_one")).await?;
        assert_error(&error_of(&client, sql).await?, "0A000", "");
        run(&client, "ROLLBACK").await?;
    }
    Ok(())
}

/// Rows of a command tag, if it has any.
async fn tag(client: &Client, sql: &str) -> Fallible<Option<u64>> {
    let messages = run(client, sql).await?;
    let found = messages.iter().find_map(|it| match it {
        SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    });
    Ok(found.filter(|it| *it > 0))
}

async fn an_error_aborts(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_404_000, "spread_error").await?;
    let client = named(&shards, "spread_error").await?;
    let failing = [
        // In both protocols of shards: rows that follow one another, merged rows, one shard alone.
        format!("SELECT 1 / (user_id - {b}) FROM users WHERE name = 'spread_error'"),
        format!("SELECT 1 / (user_id - {a}) FROM users WHERE name = 'spread_error' ORDER BY 1"),
        format!("SELECT sum(1 / (user_id - {b})) FROM users WHERE name = 'spread_error'"),
        format!("SELECT 1 / 0 FROM users WHERE user_id = {a}"),
        format!("SELECT 1 / 0 FROM users WHERE user_id = {b}"),
    ];
    for sql in &failing {
        for write in [a, b] {
            run(&client, "BEGIN").await?;
            run(&client, &format!("UPDATE users SET email = 'x' WHERE user_id = {write}")).await?;
            assert_eq!(rows(&client, &count("spread_error")).await?, ["2"]);
            assert_error(&error_of(&client, sql).await?, "22012", "division by zero");
            for id in [a, b] {
                let sql = format!("SELECT 1 FROM users WHERE user_id = {id}");
                assert_error(&error_of(&client, &sql).await?, "25P02", "aborted");
            }
            assert_error(&error_of(&client, &count("spread_error")).await?, "25P02", "aborted");
            assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
            run(&client, "ROLLBACK").await?;
            until_none_is_open(&shards, "spread_error").await?;
            let mail = "SELECT count(*) FROM users WHERE name = 'spread_error' AND email = 'x'";
            assert_eq!(rows(&client, mail).await?, ["0"]);
        }
    }
    // Many rows are under way on the other shard when one fails.
    let many = format!(
        "SELECT g, 1 / (CASE WHEN user_id = {a} THEN 0 ELSE 1 END) FROM users, generate_series(1, 200000) AS g \
         WHERE name = 'spread_error' ORDER BY g"
    );
    run(&client, "BEGIN").await?;
    run(&client, "SAVEPOINT s").await?;
    assert_eq!(rows(&client, &count("spread_error")).await?, ["2"]);
    assert_error(&error_of(&client, &many).await?, "22012", "division by zero");
    run(&client, "ROLLBACK TO s").await?;
    assert_eq!(rows(&client, &count("spread_error")).await?, ["2"], "all servers go on");
    run(&client, "COMMIT").await?;
    until_none_is_open(&shards, "spread_error").await?;
    Ok(())
}

async fn savepoints(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_405_000, "spread_save").await?;
    let client = named(&shards, "spread_save").await?;
    let update = |id: i64, to: &str| format!("UPDATE users SET email = '{to}' WHERE user_id = {id}");
    let mails = "SELECT email FROM users WHERE name = 'spread_save' ORDER BY user_id";
    let fail = |id: i64| format!("SELECT 1 / 0 FROM users WHERE user_id = {id}");
    for (write, read) in [(a, b), (b, a)] {
        run(&client, "BEGIN").await?;
        run(&client, &update(write, "kept")).await?;
        run(&client, "SAVEPOINT \"Outer\"").await?;
        run(&client, &update(write, "lost")).await?;
        // This one is enlisted behind the savepoint.
        assert_error(&error_of(&client, &fail(read)).await?, "22012", "division");
        run(&client, "ROLLBACK TO SAVEPOINT \"Outer\"").await?;
        let mut seen = rows(&client, mails).await?;
        seen.sort();
        assert_eq!(seen, ["e", "kept"]);
        run(&client, "SAVEPOINT s").await?;
        run(&client, &update(write, "lost")).await?;
        run(&client, "SAVEPOINT t").await?;
        run(&client, "RELEASE SAVEPOINT t").await?;
        for id in [write, read] {
            assert_error(&error_of(&client, &fail(id)).await?, "22012", "division");
            run(&client, "ROLLBACK TO s").await?;
        }
        assert_error(
            &error_of(&client, mails.replace("email", "no_such").as_str()).await?,
            "42703",
            "no_such",
        );
        run(&client, "ROLLBACK TO s").await?;
        assert_error(&error_of(&client, "RELEASE SAVEPOINT nowhere").await?, "3B001", "nowhere");
        run(&client, "ROLLBACK TO s").await?;
        run(&client, "RELEASE \"Outer\"").await?;
        assert_error(&error_of(&client, "ROLLBACK TO s").await?, "3B001", "\"s\"");
        run(&client, "ROLLBACK").await?;
        assert_eq!(rows(&client, mails).await?, ["e", "e"]);
    }
    // As a framework nests its blocks: more of them than are kept at once.
    run(&client, "BEGIN").await?;
    for round in 0..100 {
        run(&client, "SAVEPOINT s").await?;
        run(&client, &update(a, &round.to_string())).await?;
        run(&client, "RELEASE s").await?;
    }
    assert_eq!(rows(&client, mails).await?.len(), 2);
    run(&client, "COMMIT").await?;
    assert_eq!(rows(&client, &format!("SELECT email FROM users WHERE user_id = {a}")).await?, ["99"]);
    Ok(())
}

/// `SHOW` tells of one server; these ask each.
pub async fn setting_on(client: &Client, ids: [i64; 2], name: &str) -> Fallible<Vec<String>> {
    let mut found = Vec::new();
    for id in ids {
        let sql = format!("SELECT current_setting('{name}') FROM users WHERE user_id = {id}");
        found.extend(rows(client, &sql).await?);
    }
    Ok(found)
}

async fn settings(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let ids = users(&shards, 1_406_000, "spread_set").await?;
    let client = named(&shards, "spread_set").await?;
    run(&client, "BEGIN").await?;
    run(&client, "SET LOCAL work_mem = '1234kB'").await?;
    run(&client, "SELECT set_config('app.tenant', 'first', true)").await?;
    rows(&client, &format!("SELECT 1 FROM users WHERE user_id = {}", ids[0])).await?;
    run(&client, "SET LOCAL lock_timeout = '4321ms'").await?;
    let both = async || {
        let mut found = Vec::new();
        for id in ids {
            let sql = format!(
                "SELECT current_setting('work_mem'), current_setting('lock_timeout'), \
                 current_setting('app.tenant') FROM users WHERE user_id = {id}"
            );
            found.extend(rows(&client, &sql).await?);
        }
        found.dedup();
        Fallible::Ok(found)
    };
    assert_eq!(both().await?, ["1234kB|4321ms|first"]);
    run(&client, "SET statement_timeout = '54321ms'").await?;
    run(&client, "SAVEPOINT s").await?;
    run(&client, "SET LOCAL work_mem = '2345kB'").await?;
    run(&client, "SELECT set_config('app.tenant', 'second', true)").await?;
    assert_eq!(both().await?, ["2345kB|4321ms|second"]);
    assert_eq!(setting_on(&client, ids, "statement_timeout").await?, ["54321ms", "54321ms"]);
    run(&client, "ROLLBACK TO s").await?;
    assert_eq!(both().await?, ["1234kB|4321ms|first"]);
    assert_error(&error_of(&client, "SET LOCAL work_mem = 'much'").await?, "22023", "work_mem");
    run(&client, "ROLLBACK TO s").await?;
    assert_eq!(both().await?, ["1234kB|4321ms|first"]);
    run(&client, "COMMIT").await?;
    for _ in 0..3 {
        assert_eq!(setting_on(&client, ids, "statement_timeout").await?, ["54321ms", "54321ms"]);
        assert_eq!(setting_on(&client, ids, "lock_timeout").await?, ["0", "0"]);
    }
    // Whoever gets these servers next has settings of his own.
    let other = shards.client().await?;
    for _ in 0..3 {
        assert_eq!(setting_on(&other, ids, "statement_timeout").await?, ["0", "0"]);
    }
    run(&client, "BEGIN").await?;
    rows(&client, &count("spread_set")).await?;
    run(&client, "SET statement_timeout = '6s'").await?;
    run(&client, "ROLLBACK").await?;
    assert_eq!(setting_on(&client, ids, "statement_timeout").await?, ["54321ms", "54321ms"]);
    run(&client, "BEGIN READ ONLY").await?;
    rows(&client, &count("spread_set")).await?;
    assert_eq!(setting_on(&client, ids, "transaction_read_only").await?, ["on", "on"]);
    run(&client, "COMMIT").await?;
    run(&client, "BEGIN").await?;
    rows(&client, &count("spread_set")).await?;
    run(&client, "SET TRANSACTION READ ONLY").await?;
    assert_eq!(setting_on(&client, ids, "transaction_read_only").await?, ["on", "on"]);
    run(&client, "COMMIT").await?;
    Ok(())
}

async fn one_snapshot(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_407_000, "spread_level").await?;
    let client = named(&shards, "spread_level").await?;
    let one = |id: i64| format!("SELECT name FROM users WHERE user_id = {id}");
    let refused = async |sql: &str| {
        let error = error_of(&client, sql).await?;
        assert_error(&error, "0A000", "cannot read from several shards");
        assert!(error.hint().is_some_and(|it| it.contains("READ COMMITTED")), "{error:?}");
        assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
        run(&client, "ROLLBACK").await?;
        until_none_is_open(&shards, "spread_level").await?;
        Fallible::Ok(())
    };
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for begin in [
            format!("BEGIN ISOLATION LEVEL {level}"),
            format!("BEGIN; SET TRANSACTION ISOLATION LEVEL {level}"),
        ] {
            let begin = async || {
                for it in begin.split("; ") {
                    run(&client, it).await?;
                }
                Fallible::Ok(())
            };
            begin().await?;
            refused(&count("spread_level")).await?;
            begin().await?;
            assert_eq!(rows(&client, &one(a)).await?, ["spread_level"]);
            refused(&one(b)).await?;
            begin().await?;
            assert_eq!(rows(&client, &one(a)).await?, ["spread_level"]);
            refused(&count("spread_level")).await?;
            begin().await?;
            assert_eq!(rows(&client, &one(a)).await?, ["spread_level"], "one shard is no matter");
            run(&client, "COMMIT").await?;
        }
        let set = format!("SET default_transaction_isolation = '{}'", level.to_lowercase());
        run(&client, &set).await?;
        run(&client, "BEGIN").await?;
        refused(&count("spread_level")).await?;
        run(&client, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        assert_eq!(rows(&client, &count("spread_level")).await?, ["2"]);
        run(&client, "COMMIT").await?;
        run(&client, "RESET default_transaction_isolation").await?;
    }
    run(&client, "BEGIN ISOLATION LEVEL READ UNCOMMITTED").await?;
    assert_eq!(rows(&client, &count("spread_level")).await?, ["2"]);
    run(&client, "COMMIT").await?;
    // What began by a text of several statements cannot be begun elsewhere.
    run(&client, &format!("BEGIN; {}", one(a))).await?;
    assert_error(&error_of(&client, &one(b)).await?, "0A000", "two shards");
    run(&client, "ROLLBACK").await?;
    Ok(())
}

async fn prepared(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_408_000, "spread_prepared").await?;
    let mut client = named(&shards, "spread_prepared").await?;
    let one = client.prepare("SELECT name FROM users WHERE user_id = $1").await?;
    let many = client.prepare("SELECT user_id FROM users WHERE name = $1 ORDER BY user_id").await?;
    let update = client.prepare("UPDATE users SET email = $2 WHERE user_id = $1").await?;
    let ids = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|it| it.get(0)).collect::<Vec<i64>>();
    let mut expected = vec![a, b];
    expected.sort_unstable();
    let mut transaction = client.transaction().await?;
    assert_eq!(ids(transaction.query(&many, &[&"spread_prepared"]).await?), expected);
    for id in [a, b, a] {
        assert_eq!(transaction.query_one(&one, &[&id]).await?.get::<_, &str>(0), "spread_prepared");
    }
    assert_eq!(transaction.execute(&update, &[&b, &"first"]).await?, 1);
    let nested = transaction.transaction().await?;
    assert_eq!(nested.execute(&update, &[&b, &"second"]).await?, 1);
    assert_eq!(ids(nested.query(&many, &[&"spread_prepared"]).await?), expected);
    nested.rollback().await?;
    let error = as_db_error(transaction.execute(&update, &[&a, &"never"]).await.expect_err("two shards"))?;
    assert_error(&error, "0A000", "two shards");
    let error = as_db_error(transaction.query(&many, &[&"x"]).await.expect_err("aborted"))?;
    assert_error(&error, "25P02", "aborted");
    transaction.rollback().await?;

    let transaction = client.transaction().await?;
    // One row of a portal that is not read to its end, as drivers ask that want one.
    let portal = transaction.bind(&one, &[&b]).await?;
    assert_eq!(ids(transaction.query(&many, &[&"spread_prepared"]).await?), expected);
    let shown = transaction.query_portal(&portal, 1).await?;
    assert_eq!(shown[0].get::<_, &str>(0), "spread_prepared", "the portal is where it was bound");
    assert_eq!(transaction.execute(&update, &[&b, &"third"]).await?, 1);
    assert_eq!(ids(transaction.query(&many, &[&"spread_prepared"]).await?), expected);
    transaction.commit().await?;
    let mail = client.query_one("SELECT email FROM users WHERE user_id = $1", &[&b]).await?;
    assert_eq!(mail.get::<_, &str>(0), "third");
    until_none_is_open(&shards, "spread_prepared").await?;
    Ok(())
}

/// A function may set what rows are shown by; another shard would not know.
async fn hidden_settings(harness: Arc<Shared>) -> Outcome {
    for shard in &harness.shop().await?.shop.shards {
        let direct = shard.primary.connect(shop::DATABASE).await?;
        let body = "BEGIN EXECUTE 'SET LOCAL work_mem = ''3456kB'''; RETURN 1; END";
        let sql = format!(
            "CREATE OR REPLACE FUNCTION spread_hides() RETURNS int LANGUAGE plpgsql AS $f$ {body} $f$"
        );
        run(&direct, &sql).await?;
    }
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_409_000, "spread_hidden").await?;
    let client = named(&shards, "spread_hidden").await?;
    let call = format!("SELECT spread_hides() FROM users WHERE user_id = {a}");
    run(&client, "BEGIN").await?;
    assert_eq!(rows(&client, &call).await?, ["1"]);
    let one = format!("SELECT name FROM users WHERE user_id = {b}");
    assert_error(&error_of(&client, &one).await?, "0A000", "may have made settings");
    run(&client, "ROLLBACK").await?;
    run(&client, "BEGIN").await?;
    assert_eq!(rows(&client, &one).await?, ["spread_hidden"]);
    assert_eq!(rows(&client, &call).await?, ["1"]);
    assert_eq!(setting_on(&client, [a, a], "work_mem").await?, ["3456kB", "3456kB"]);
    assert_error(&error_of(&client, &count("spread_hidden")).await?, "0A000", "may have made settings");
    run(&client, "ROLLBACK").await?;
    until_none_is_open(&shards, "spread_hidden").await?;
    Ok(())
}

/// A read that ends when it is cancelled.
fn slow(name: &str) -> String {
    format!(
        "SELECT user_id FROM users, generate_series(1, 100000) AS a, generate_series(1, 100000) AS b \
         WHERE name = '{name}' AND a + b < user_id % 1 ORDER BY user_id"
    )
}

async fn death(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, _] = users(&shards, 1_410_000, "spread_death").await?;
    for running in [false, true] {
        let url = format!("{}?application_name=spread_death", shards.url());
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        run(&client, "BEGIN").await?;
        // What is being compiled cannot be cancelled.
        run(&client, "SET LOCAL jit = off").await?;
        run(&client, &format!("UPDATE users SET email = 'dead' WHERE user_id = {a}")).await?;
        assert_eq!(rows(&client, &count("spread_death")).await?, ["2"]);
        assert_eq!(open_on(&shards, "spread_death").await?, [1, 1]);
        if running {
            let slow = slow("spread_death");
            let slow = tokio::time::timeout(Duration::from_millis(300), client.simple_query(&slow)).await;
            assert!(slow.is_err(), "it runs");
        }
        connection.abort();
        until("servers to be free of the client", async || {
            Ok(open_on(&shards, "spread_death").await? == [0, 0])
        })
        .await?;
        let dead = "SELECT count(*) FROM users WHERE name = 'spread_death' AND email = 'dead'";
        assert_eq!(rows(&shards.client().await?, dead).await?, ["0"]);
    }
    Ok(())
}

async fn lost_server(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_411_000, "spread_lost").await?;
    for killed in [0, 1] {
        for next in [
            count("spread_lost"),
            format!("SELECT 1 FROM users WHERE user_id = {}", [a, b][killed]),
            "SAVEPOINT s".to_owned(),
        ] {
            let client = named(&shards, "spread_lost").await?;
            run(&client, "BEGIN").await?;
            run(&client, &format!("UPDATE users SET email = 'lost' WHERE user_id = {a}")).await?;
            assert_eq!(rows(&client, &count("spread_lost")).await?, ["2"]);
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                        WHERE application_name = 'spread_lost'";
            assert!(!rows(&shards.direct(killed).await?, kill).await?.is_empty());
            error_of(&client, &next).await?;
            assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
            run(&client, "ROLLBACK").await?;
            until("no transaction to be left", async || Ok(open_on(&shards, "spread_lost").await? == [0, 0]))
                .await?;
            let lost = "SELECT count(*) FROM users WHERE name = 'spread_lost' AND email = 'lost'";
            assert_eq!(rows(&client, lost).await?, ["0"]);
        }
    }
    // A reader that is gone at COMMIT is no matter to what was written.
    let client = named(&shards, "spread_lost").await?;
    run(&client, "BEGIN").await?;
    run(&client, &format!("UPDATE users SET email = 'kept' WHERE user_id = {a}")).await?;
    assert_eq!(rows(&client, &count("spread_lost")).await?, ["2"]);
    let kill =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'spread_lost'";
    assert!(!rows(&shards.direct(1).await?, kill).await?.is_empty());
    run(&client, "COMMIT").await?;
    assert_eq!(rows(&client, &format!("SELECT email FROM users WHERE user_id = {a}")).await?, ["kept"]);
    Ok(())
}

async fn cancel(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    users(&shards, 1_412_000, "spread_cancel").await?;
    let client = named(&shards, "spread_cancel").await?;
    run(&client, "BEGIN").await?;
    run(&client, "SET LOCAL jit = off").await?;
    run(&client, "SAVEPOINT s").await?;
    assert_eq!(rows(&client, &count("spread_cancel")).await?, ["2"]);
    let token = client.cancel_token();
    let slow = slow("spread_cancel");
    let sleeping = client.simple_query(&slow);
    let cancelling = async {
        let running = "SELECT pid FROM pg_stat_activity WHERE application_name = 'spread_cancel' \
                       AND state = 'active' AND query LIKE '%generate_series%'";
        until("both shards to run it", async || {
            Ok(shards.everywhere(running).await?.iter().all(|it| it.len() == 1))
        })
        .await?;
        token.cancel_query(tokio_postgres::NoTls).await?;
        Fallible::Ok(())
    };
    let sleeping = async { Fallible::Ok(sleeping.await.expect_err("cancelled")) };
    let (error, ()) = tokio::try_join!(sleeping, cancelling)?;
    assert_error(&as_db_error(error)?, "57014", "cancel");
    run(&client, "ROLLBACK TO s").await?;
    assert_eq!(rows(&client, &count("spread_cancel")).await?, ["2"]);
    run(&client, "COMMIT").await?;
    until_none_is_open(&shards, "spread_cancel").await?;
    Ok(())
}

async fn pause(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, _] = users(&shards, 1_413_000, "spread_pause").await?;
    let client = named(&shards, "spread_pause").await?;
    let console = console(&shards).await?;
    run(&client, "BEGIN").await?;
    rows(&client, &format!("SELECT name FROM users WHERE user_id = {a}")).await?;
    let pausing = console.simple_query("PAUSE");
    let going_on = async {
        let paused = async || {
            let state = rows(&self::console(&shards).await?, "SHOW STATE").await?;
            Ok(state.iter().any(|it| it == "paused|yes"))
        };
        until("the database to be paused", paused).await?;
        // Of a shard on which it has no server yet.
        assert_eq!(rows(&client, &count("spread_pause")).await?, ["2"]);
        run(&client, "COMMIT").await?;
        Fallible::Ok(())
    };
    let (paused, went_on) = tokio::join!(pausing, going_on);
    went_on?;
    paused?;
    run(&console, "RESUME").await?;
    assert_eq!(rows(&client, &count("spread_pause")).await?, ["2"]);
    Ok(())
}

pub async fn console(shards: &Shards<'_>) -> Fallible<Client> {
    connect(&shards.keyway.url(USER, APP_PASSWORD, "keyway")).await
}

async fn shown(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_414_000, "spread_shown").await?;
    let client = named(&shards, "spread_shown").await?;
    let console = console(&shards).await?;
    // database, state, isolation, shards, write_shard, statements
    let shown = async || {
        let rows = rows(&console, "SHOW TRANSACTIONS").await?;
        let own = rows.into_iter().filter(|it| it.ends_with("|spread_shown"));
        let picked = own.map(|row| {
            let it: Vec<&str> = row.split('|').collect();
            [it[0], it[4], it[5], it[6], it[7], it[10]].join("|")
        });
        Fallible::Ok(picked.collect::<Vec<String>>())
    };
    // It is told behind the answer.
    let shows = async |expected: &[&str]| {
        until(&format!("{expected:?} to be shown"), async || Ok(shown().await? == expected)).await
    };
    shows(&[]).await?;
    run(&client, "BEGIN").await?;
    shows(&["shop|open|NULL||NULL|0"]).await?;
    rows(&client, &format!("SELECT name FROM users WHERE user_id = {b}")).await?;
    shows(&["shop|open|NULL|s2|NULL|1"]).await?;
    rows(&client, &count("spread_shown")).await?;
    shows(&["shop|open|read committed|s2, s1|NULL|2"]).await?;
    run(&client, &format!("UPDATE users SET email = 'x' WHERE user_id = {a}")).await?;
    shows(&["shop|open|read committed|s2, s1|s1|3"]).await?;
    error_of(&client, "SELECT 1 / 0").await?;
    shows(&["shop|aborted|read committed|s2, s1|s1|4"]).await?;
    run(&client, "ROLLBACK").await?;
    shows(&[]).await?;
    run(&client, "BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    shows(&["shop|open|serializable||NULL|0"]).await?;
    run(&client, "COMMIT").await?;
    rows(&client, &count("spread_shown")).await?;
    shows(&[]).await?;
    Ok(())
}

/// What goes to the main server behind a write elsewhere takes nothing of the write away.
async fn a_write_stays(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_416_000, "spread_stays").await?;
    let client = named(&shards, "spread_stays").await?;
    let read = |id: i64| format!("SELECT email FROM users WHERE user_id = {id}");
    for (number, set) in ["", "SET statement_timeout = '50s'"].iter().enumerate() {
        run(&client, "BEGIN").await?;
        if !set.is_empty() {
            run(&client, set).await?;
        }
        rows(&client, &read(a)).await?;
        run(&client, &format!("UPDATE users SET email = 'kept {number}' WHERE user_id = {b}")).await?;
        run(&client, &format!("PREPARE spread_{number} AS SELECT 4711 + {number}")).await?;
        assert_eq!(rows(&client, &format!("EXECUTE spread_{number}")).await?.len(), 1);
        let statement =
            client.prepare(&format!("SELECT name, 'spread {number}' FROM users WHERE user_id = $1")).await?;
        client.query_one(&statement, &[&a]).await?;
        run(&client, "COMMIT").await?;
        assert_eq!(rows(&client, &read(b)).await?, [format!("kept {number}")]);
    }
    Ok(())
}

/// Where Keyway cannot tell a further server all that was done to the transaction, it takes none.
async fn what_only_one_knows(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_418_000, "spread_knows").await?;
    let client = named(&shards, "spread_knows").await?;
    let read = |id: i64| format!("SELECT email FROM users WHERE user_id = {id}");
    for first in ["SET LOCAL work_mem = '1234kB'; ", "SAVEPOINT s; "] {
        run(&client, "BEGIN").await?;
        run(&client, &format!("{first}{}", read(a))).await?;
        let error = error_of(&client, &read(b)).await?;
        assert_eq!(error.code().code(), "0A000", "{first}: {error:?}");
        run(&client, "ROLLBACK").await?;
    }
    // Once it is spread, such a text is refused.
    run(&client, "BEGIN").await?;
    assert_eq!(rows(&client, &count("spread_knows")).await?, ["2"]);
    let error = error_of(&client, &format!("SAVEPOINT s; {}", read(a))).await?;
    assert_eq!(error.code().code(), "0A000", "{error:?}");
    run(&client, "ROLLBACK").await?;
    Ok(())
}
