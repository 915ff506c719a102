//! COMMIT AND CHAIN and ROLLBACK AND CHAIN of transactions that have several servers.

use std::sync::Arc;

use libtest_mimic::Trial;

use super::Shards;
use super::spread::{count, named, open_on, setting_on, users};
use crate::harness::{Harness, Outcome, Shared, assert_error, error_of, rows, run, until};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::chained::settings_are_on_every_shard", settings),
        harness.test("routing::chained::an_aborted_one_is_followed_by_another", aborted),
    ]
}

/// Each server begins the next transaction too, with what the one before has set.
async fn settings(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let ids = users(&shards, 1_415_000, "chained_set").await?;
    let [a, b] = ids;
    let client = named(&shards, "chained_set").await?;
    let update = |id: i64, to: &str| format!("UPDATE users SET email = '{to}' WHERE user_id = {id}");
    let read = |id: i64| format!("SELECT email FROM users WHERE user_id = {id}");
    run(&client, "SET lock_timeout = '1001ms'").await?;
    for (round, (first, second)) in [(a, b), (b, a)].into_iter().enumerate() {
        let kept = format!("{}ms", 2001 + round);
        run(&client, "BEGIN").await?;
        assert_eq!(rows(&client, &count("chained_set")).await?, ["2"]);
        run(&client, &format!("SET statement_timeout = '{kept}'")).await?;
        run(&client, "SET LOCAL work_mem = '1234kB'").await?;
        run(&client, "DECLARE c CURSOR FOR SELECT user_id FROM users WHERE name = 'chained_set'").await?;
        run(&client, &update(first, "first")).await?;
        run(&client, "COMMIT AND CHAIN").await?;
        assert_eq!(open_on(&shards, "chained_set").await?, [1, 1]);
        assert_error(&error_of(&client, "FETCH c").await?, "34000", "\"c\"");
        run(&client, "ROLLBACK AND CHAIN").await?;
        for (name, value) in
            [("statement_timeout", &kept[..]), ("lock_timeout", "1001ms"), ("work_mem", "4MB")]
        {
            assert_eq!(setting_on(&client, ids, name).await?, [value, value], "{name}");
        }
        // It is another transaction: it writes where it likes, and what is rolled back is so everywhere.
        run(&client, "SET statement_timeout = '9999ms'").await?;
        run(&client, &update(second, "lost")).await?;
        run(&client, "ROLLBACK AND CHAIN").await?;
        assert_eq!(setting_on(&client, ids, "statement_timeout").await?, [&kept[..], &kept[..]]);
        run(&client, &update(second, "second")).await?;
        run(&client, "COMMIT").await?;
        assert_eq!(open_on(&shards, "chained_set").await?, [0, 0]);
        assert_eq!(rows(&client, &read(first)).await?, ["first"]);
        assert_eq!(rows(&client, &read(second)).await?, ["second"]);
        // Whoever gets the servers next has settings of his own.
        for _ in 0..3 {
            let other = shards.client().await?;
            assert_eq!(setting_on(&other, ids, "statement_timeout").await?, ["0", "0"]);
            assert_eq!(setting_on(&client, ids, "statement_timeout").await?, [&kept[..], &kept[..]]);
        }
    }
    Ok(())
}

/// Whoever has aborted it: servers that do not know of that begin the next one as well.
async fn aborted(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_415_500, "chained_aborted").await?;
    let client = named(&shards, "chained_aborted").await?;
    let update = |id: i64, to: &str| format!("UPDATE users SET email = '{to}' WHERE user_id = {id}");
    let read = |id: i64| format!("SELECT email FROM users WHERE user_id = {id}");
    // On one shard so far: the next one stays there.
    run(&client, "BEGIN").await?;
    run(&client, &update(a, "third")).await?;
    run(&client, "COMMIT AND CHAIN").await?;
    let error = error_of(&client, &update(b, "never")).await?;
    assert_eq!(error.code().code(), "0A000", "{error:?}");
    // Keyway has aborted it, of which its server does not know.
    run(&client, "SET statement_timeout = '8888ms'").await.expect_err("aborted");
    run(&client, "COMMIT AND CHAIN").await?;
    assert_eq!(rows(&client, &read(a)).await?, ["third"]);
    assert_eq!(open_on(&shards, "chained_aborted").await?, [1, 0]);
    run(&client, "COMMIT").await?;
    // The same of several, by the other protocol.
    run(&client, "BEGIN").await?;
    assert_eq!(rows(&client, &count("chained_aborted")).await?, ["2"]);
    run(&client, &update(a, "lost")).await?;
    assert_error(&error_of(&client, &update(b, "never")).await?, "0A000", "two shards");
    client.query_typed("ROLLBACK AND CHAIN", &[]).await?;
    assert_eq!(open_on(&shards, "chained_aborted").await?, [1, 1]);
    assert_eq!(client.execute(&update(b, "later"), &[]).await?, 1);
    client.execute("COMMIT AND CHAIN", &[]).await?;
    assert_eq!(client.execute(&update(a, "later"), &[]).await?, 1);
    run(&client, "COMMIT").await?;
    let later = "SELECT count(*) FROM users WHERE name = 'chained_aborted' AND email = 'later'";
    assert_eq!(rows(&client, later).await?, ["2"]);
    // Before there is a server nobody knows how it was begun.
    run(&client, "BEGIN").await?;
    assert_error(&error_of(&client, "DELETE FROM users").await?, "0A000", "");
    assert_error(&error_of(&client, "ROLLBACK AND CHAIN").await?, "0A000", "AND CHAIN");
    assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
    run(&client, "ROLLBACK").await?;
    // One that is lost is no matter to what is committed, and ends the next transaction.
    run(&client, "BEGIN").await?;
    assert_eq!(rows(&client, &count("chained_aborted")).await?, ["2"]);
    run(&client, &update(a, "fourth")).await?;
    let kill =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'chained_aborted'";
    assert!(!rows(&shards.direct(1).await?, kill).await?.is_empty());
    run(&client, "COMMIT AND CHAIN").await?;
    assert_error(&error_of(&client, &read(a)).await?, "08006", "lost inside a transaction");
    assert_error(&error_of(&client, &read(a)).await?, "25P02", "aborted");
    run(&client, "ROLLBACK").await?;
    assert_eq!(rows(&client, &read(a)).await?, ["fourth"]);
    until("no transaction to be left", async || Ok(open_on(&shards, "chained_aborted").await? == [0, 0]))
        .await?;
    Ok(())
}
