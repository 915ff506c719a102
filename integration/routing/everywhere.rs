//! Reference tables and DDL: what every shard has.

use std::sync::Arc;

use libtest_mimic::Trial;
use tokio::sync::mpsc::Receiver;
use tokio_postgres::error::DbError;

use super::{Shards, insert_user};
use crate::harness::{Harness, Outcome, Shared, assert_error, connect_hearing, error_of, rows, run};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::everywhere::a_reference_write_is_on_every_shard", a_reference_write),
        harness.test("routing::everywhere::a_failing_write_says_where", a_failing_write_says_where),
        harness.test("routing::everywhere::a_reference_is_read_on_one_shard", a_reference_is_read_on_one),
        harness.test("routing::everywhere::copies_stay_equal", copies_stay_equal),
        harness.test("routing::everywhere::ddl_in_turn", ddl_in_turn),
        harness.test("routing::everywhere::ddl_stops_where_it_fails", ddl_stops_where_it_fails),
    ]
}

async fn heard(notices: &mut Receiver<DbError>) -> Option<DbError> {
    tokio::time::timeout(std::time::Duration::from_secs(10), notices.recv()).await.ok().flatten()
}

async fn a_reference_write(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    run(&client, "CREATE TABLE ref_written (code int PRIMARY KEY, name text)").await?;
    let all = "SELECT code, name FROM ref_written ORDER BY 1";
    let insert = "INSERT INTO ref_written VALUES ($1, $2), (2, 'b')";
    assert_eq!(client.execute(insert, &[&1i32, &"a"]).await?, 2, "rows of one copy are counted");
    assert_eq!(shards.everywhere(all).await?, [["1|a", "2|b"]; 2]);
    assert_eq!(client.execute("UPDATE ref_written SET name = 'c' WHERE code = 1", &[]).await?, 1);
    assert_eq!(shards.everywhere(all).await?, [["1|c", "2|b"]; 2]);
    let returned = rows(&client, "DELETE FROM ref_written WHERE code = 2 RETURNING name").await?;
    assert_eq!(returned, ["b"], "of one copy");
    assert_eq!(shards.everywhere(all).await?, [["1|c"]; 2]);
    for _ in 0..4 {
        let other = shards.client().await?;
        assert_eq!(rows(&client, all).await?, ["1|c"], "a session reads what it wrote");
        assert_error(
            &error_of(&other, "BEGIN; INSERT INTO ref_written VALUES (3, 'x'); COMMIT").await?,
            "0A000",
            "",
        );
        run(&other, "BEGIN").await?;
        let error = error_of(&other, "INSERT INTO ref_written VALUES (3, 'x')").await?;
        assert_error(&error, "0A000", "a reference table cannot be written in a transaction");
        run(&other, "ROLLBACK").await?;
    }
    assert_eq!(shards.everywhere(all).await?, [["1|c"]; 2]);
    Ok(())
}

async fn a_failing_write_says_where(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let (client, mut notices) = connect_hearing(&shards.url()).await?;
    run(&client, "CREATE TABLE ref_failing (code int PRIMARY KEY)").await?;
    for (index, name) in [(0, "s1"), (1, "s2")] {
        let direct = shards.direct(index).await?;
        run(&direct, "INSERT INTO ref_failing VALUES (7)").await?;
        let error = error_of(&client, "INSERT INTO ref_failing VALUES (6), (7)").await?;
        assert_error(&error, "23505", "duplicate key");
        let notice = heard(&mut notices).await.ok_or("no warning says where it failed")?;
        assert_eq!((notice.severity(), notice.code().code()), ("WARNING", "01000"));
        assert!(notice.message().contains(&format!("failed on shard {name}")), "{notice:?}");
        run(&direct, "DELETE FROM ref_failing").await?;
        let left = shards.everywhere("SELECT * FROM ref_failing").await?;
        assert_eq!(left, [vec![""; 0], vec![]], "rolled back on every shard");
    }
    let error = client.execute("INSERT INTO ref_failing VALUES ($1), ($1)", &[&8i32]).await;
    assert_eq!(error.expect_err("twice the same").code().map(|it| it.code()), Some("23505"));
    let notice = heard(&mut notices).await.ok_or("no warning says where it failed")?;
    assert!(notice.message().contains("failed on shard s1; no shard keeps it"), "{notice:?}");
    assert_eq!(client.execute("INSERT INTO ref_failing VALUES (9)", &[]).await?, 1);
    assert_eq!(shards.everywhere("SELECT * FROM ref_failing").await?, [["9"]; 2]);
    Ok(())
}

async fn a_reference_is_read_on_one(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    run(&client, "CREATE TABLE ref_read (a int)").await?;
    client.execute("INSERT INTO ref_read VALUES (1), (2), (3)", &[]).await?;
    let sql = "SELECT count(*), sum(a) FROM ref_read";
    assert_eq!(rows(&client, sql).await?, ["3|6"], "one copy, with any clause");
    assert_eq!(rows(&client, "SELECT a FROM ref_read ORDER BY a DESC LIMIT 2").await?, ["3", "2"]);
    // Different copies show which one answered: each session reads one, over sessions both are read.
    shards.direct(0).await?.batch_execute("UPDATE ref_read SET a = a + 10").await?;
    shards.shop.shop.wait_until_replayed().await?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let found = rows(&shards.client().await?, sql).await?;
        assert!(found == ["3|6"] || found == ["3|36"], "{found:?}");
        seen.extend(found);
        if seen.len() == 2 {
            return Ok(());
        }
    }
    Err(format!("only one shard's copy is read: {seen:?}").into())
}

/// What each shard would compute for itself would give each copy other rows.
async fn copies_stay_equal(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    for sql in [
        "INSERT INTO countries VALUES ('XX', random()::text)",
        "UPDATE countries SET name = now()::text",
        "UPDATE countries SET name = CURRENT_USER",
        "DELETE FROM countries WHERE code = (SELECT code FROM countries LIMIT 1)",
        "INSERT INTO countries SELECT 'XX', name FROM users WHERE user_id = 1",
    ] {
        assert_error(&error_of(&client, sql).await?, "0A000", "");
    }
    let fixed = shards.everywhere("SELECT count(*), count(DISTINCT name) FROM countries").await?;
    assert_eq!(fixed, [["6|6"]; 2]);
    Ok(())
}

async fn ddl_in_turn(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let columns = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('ddl_turn') \
                   AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    run(&client, "CREATE TABLE ddl_turn (a int)").await?;
    assert_eq!(shards.everywhere(columns).await?, [["a"]; 2]);
    client.execute("ALTER TABLE ddl_turn ADD COLUMN b text", &[]).await?;
    assert_eq!(shards.everywhere(columns).await?, [["a", "b"]; 2]);
    run(&client, "CREATE INDEX ddl_turn_a ON ddl_turn (a); COMMENT ON TABLE ddl_turn IS 'x'").await?;
    let index = "SELECT to_regclass('ddl_turn_a') IS NOT NULL, obj_description('ddl_turn'::regclass)";
    assert_eq!(shards.everywhere(index).await?, [["t|x"]; 2]);
    // Outside of a transaction block on each of them.
    run(&client, "CREATE INDEX CONCURRENTLY ddl_turn_b ON ddl_turn (b)").await?;
    run(&client, "DROP TABLE ddl_turn").await?;
    assert_eq!(shards.everywhere(columns).await?, [vec![""; 0], vec![]]);
    let tag = run(&client, "DROP TABLE IF EXISTS ddl_turn").await?;
    assert_eq!(tag.len(), 1, "one answer for all shards: {tag:?}");
    Ok(())
}

async fn ddl_stops_where_it_fails(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let (client, mut notices) = connect_hearing(&shards.url()).await?;
    let there = "SELECT to_regclass('ddl_stops') IS NOT NULL";
    for (index, want) in [
        (1, "failed on shard s2; done on: s1; not tried on: none"),
        (0, "failed on shard s1; done on: none; not tried on: s2"),
    ] {
        let direct = shards.direct(index).await?;
        run(&direct, "CREATE TABLE ddl_stops (other int)").await?;
        let error = error_of(&client, "CREATE TABLE ddl_stops (a int)").await?;
        assert_error(&error, "42P07", "relation \"ddl_stops\" already exists");
        let notice = heard(&mut notices).await.ok_or("no warning says where it stopped")?;
        assert!(notice.message().contains(want), "{notice:?}");
        let done = if index == 1 { ["t", "t"] } else { ["t", "f"] };
        assert_eq!(shards.everywhere(there).await?, done.map(|it| [it]));
        for index in [0, 1] {
            shards.direct(index).await?.batch_execute("DROP TABLE IF EXISTS ddl_stops").await?;
        }
    }
    let user_id = shards.user_on(0, 1_400_000);
    run(&client, &insert_user(user_id, "after")).await?;
    Ok(())
}
