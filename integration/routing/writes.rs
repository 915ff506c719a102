//! Writes that one shard takes, and those that none may: nothing of these is on any shard afterwards.

use std::sync::Arc;

use libtest_mimic::Trial;

use super::{Shards, insert_user};
use crate::harness::{Harness, Outcome, Shared, as_db_error, assert_error, error_of, run};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::writes::rows_of_one_shard", rows_of_one_shard),
        harness.test("routing::writes::refused_writes_leave_nothing", refused_writes_leave_nothing),
        harness.test("routing::writes::refused_when_prepared_too", refused_when_prepared_too),
        harness.test("routing::writes::a_servers_error_is_passed_on", a_servers_error_is_passed_on),
    ]
}

const STATE: &str = "SELECT user_id, name FROM users WHERE user_id BETWEEN 1100000 AND 1199999 ORDER BY 1";

async fn rows_of_one_shard(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let a = shards.user_on(1, 1_200_000);
    let b = shards.user_on(1, a + 1);
    let insert = format!(
        "INSERT INTO users (name, user_id, email, country) VALUES ('m', {a}, 'e', 'NL'), ('m', {b}, 'e', 'NL')"
    );
    assert_eq!(client.execute(&insert, &[]).await?, 2);
    let update = format!("UPDATE users SET name = 'n' WHERE user_id IN ({a}, {b}) AND name = 'm'");
    assert_eq!(client.execute(&update, &[]).await?, 2);
    let upsert = format!("{} ON CONFLICT (user_id) DO UPDATE SET name = 'o'", insert_user(a, "p"));
    assert_eq!(client.execute(&upsert, &[]).await?, 1);
    let names = format!("SELECT name FROM users WHERE user_id IN ({a}, {b}) ORDER BY user_id");
    assert_eq!(shards.everywhere(&names).await?, [vec![], vec!["o", "n"]]);
    let delete = format!("DELETE FROM users WHERE user_id = {a} RETURNING name");
    assert_eq!(client.query_one(&delete, &[]).await?.get::<_, String>(0), "o");
    assert_eq!(shards.everywhere(&names).await?, [vec![], vec!["n"]]);
    Ok(())
}

async fn refused_writes_leave_nothing(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 1_100_000), shards.user_on(1, 1_100_000));
    let (free_a, free_b) = (shards.user_on(0, a + 1), shards.user_on(1, b + 1));
    for user_id in [a, b] {
        run(&client, &insert_user(user_id, "kept")).await?;
    }
    let before = shards.everywhere(STATE).await?;
    assert_eq!(before, [[format!("{a}|kept")], [format!("{b}|kept")]]);
    for (part, sql) in [
        ("user_id", "INSERT INTO users (name, email, country) VALUES ('x', 'e', 'NL')".to_owned()),
        ("INSERT into table", "INSERT INTO users DEFAULT VALUES".to_owned()),
        (
            "user_id",
            "INSERT INTO users (user_id, name, email, country) VALUES (DEFAULT, 'x', 'e', 'NL')".to_owned(),
        ),
        (
            "user_id",
            "INSERT INTO users (user_id, name, email, country) VALUES (1100000 + 1, 'x', 'e', 'NL')"
                .to_owned(),
        ),
        (
            "several shards",
            format!(
                "INSERT INTO users (user_id, name, email, country) VALUES ({free_a}, 'x', 'e', 'NL'), ({free_b}, 'x', 'e', 'NL')"
            ),
        ),
        (
            "user_id",
            format!("INSERT INTO users (user_id, name, email, country) SELECT {free_a} + 0, 'x', 'e', 'NL'"),
        ),
        ("user_id", format!("UPDATE users SET user_id = {free_a}, name = 'x' WHERE user_id = {a}")),
        ("user_id", format!("UPDATE users SET (name, user_id) = ('x', {free_a}) WHERE user_id = {a}")),
        (
            "user_id",
            format!("{} ON CONFLICT (user_id) DO UPDATE SET user_id = {free_a}", insert_user(a, "x")),
        ),
        ("user_id", "UPDATE users SET name = 'x'".to_owned()),
        ("user_id", "UPDATE users SET name = 'x' WHERE name = 'kept'".to_owned()),
        ("user_id", "UPDATE users SET name = 'x' WHERE user_id > 1100000 AND user_id < 1199999".to_owned()),
        ("user_id", format!("UPDATE users SET name = 'x' WHERE user_id <> {a}")),
        ("several shards", format!("UPDATE users SET name = 'x' WHERE user_id IN ({a}, {b})")),
        ("several shards", format!("UPDATE users SET name = 'x' WHERE user_id = {a} OR user_id = {b}")),
        ("user_id", format!("UPDATE users SET name = 'x' WHERE user_id = {a} OR name = 'kept'")),
        ("user_id", "DELETE FROM users".to_owned()),
        ("user_id", "DELETE FROM users WHERE name = 'kept'".to_owned()),
        ("several shards", format!("DELETE FROM users WHERE user_id IN ({a}, {b})")),
        (
            "",
            format!(
                "WITH gone AS (DELETE FROM users WHERE user_id = {a}) DELETE FROM users WHERE user_id = {b}"
            ),
        ),
        ("", format!("DELETE FROM users USING orders WHERE users.user_id = {a} AND orders.order_id = 1")),
        ("", "TRUNCATE users".to_owned() + "; SELECT 1"),
        ("unlisted", "INSERT INTO unlisted VALUES (1)".to_owned()),
    ] {
        let error = error_of(&client, &sql).await?;
        assert_eq!(error.code().code(), "0A000", "{sql}: {error:?}");
        assert!(error.message().contains(part), "{sql}: {error:?}");
        assert!(error.hint().is_some(), "{sql}: {error:?}");
    }
    assert_eq!(shards.everywhere(STATE).await?, before);
    Ok(())
}

async fn refused_when_prepared_too(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 1_210_000), shards.user_on(1, 1_210_000));
    let two = "INSERT INTO users (user_id, name, email, country) VALUES ($1, 'two', 'e', 'NL'), ($2, 'two', 'e', 'NL')";
    let two = client.prepare(two).await?;
    let error = as_db_error(client.execute(&two, &[&a, &b]).await.expect_err("two shards"))?;
    assert_error(&error, "0A000", "several shards");
    let update = client.prepare("UPDATE users SET name = 'two' WHERE user_id = ANY ($1)").await?;
    let error = as_db_error(client.execute(&update, &[&vec![a, b]]).await.expect_err("a list of keys"))?;
    assert_error(&error, "0A000", "several shards");
    let error = as_db_error(client.prepare("UPDATE users SET user_id = $1").await.expect_err("the key"))?;
    assert_error(&error, "0A000", "user_id");
    let names = "SELECT user_id FROM users WHERE name = 'two'";
    assert_eq!(shards.everywhere(names).await?, [vec![""; 0], vec![]]);
    // The same statement is fine with keys of one shard.
    let a2 = shards.user_on(0, a + 1);
    assert_eq!(client.execute(&two, &[&a, &a2]).await?, 2);
    assert_eq!(client.execute(&update, &[&vec![a, a2]]).await?, 2);
    assert_eq!(shards.everywhere(names).await?.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0]);
    Ok(())
}

async fn a_servers_error_is_passed_on(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let a = shards.user_on(1, 1_220_000);
    run(&client, &insert_user(a, "first")).await?;
    let (ours, theirs) = (
        error_of(&client, &insert_user(a, "second")).await?,
        error_of(&shards.direct(1).await?, &insert_user(a, "second")).await?,
    );
    assert_error(&ours, "23505", "users_pkey");
    assert_eq!((ours.detail(), ours.constraint()), (theirs.detail(), theirs.constraint()));
    let sql = format!("SELECT nothing FROM users WHERE user_id = {a}");
    let (ours, theirs) = (error_of(&client, &sql).await?, error_of(&shards.direct(1).await?, &sql).await?);
    assert_eq!((ours.code(), ours.position()), (theirs.code(), theirs.position()));
    Ok(())
}
