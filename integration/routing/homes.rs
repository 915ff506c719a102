//! Tables of one shard, schemas as homes, keys of several columns and arrays of keys, on two shards.

use std::sync::Arc;

use keyway::demo::shop;
use libtest_mimic::Trial;
use tokio_postgres::Client;

use super::Shards;
use crate::harness::{Fallible, Harness, Outcome, Shared, assert_error, connect, error_of, rows, run};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![harness.test("routing::homes::rows_are_where_their_home_is", rows_are_where_their_home_is)]
}

const HOMES: &str = r#"
[databases.shop.schemas.home_one]
shard = "s1"
[databases.shop.schemas.home_two]
shard = "s2"
[databases.shop.tables.home_lone]
shard = "s2"
[databases.shop.maps.home_pair]
kind = "list"
type = ["bigint", "text"]
lists = [{ values = [[1, "a"], [2, "b"]], shard = "s1" }, { values = [[1, "b"]], shard = "s2" }]
[databases.shop.tables.home_pairs]
map = "home_pair"
key = ["n", "w"]
"#;

/// On both shards, but for a table that is on its own shard alone.
async fn create(shards: &Shards<'_>) -> Fallible<()> {
    for index in 0..2 {
        let direct = shards.direct(index).await?;
        direct
            .batch_execute(&format!(
                "CREATE SCHEMA home_one; CREATE SCHEMA home_two; CREATE TABLE home_one.notes (a int); \
                 CREATE TABLE home_two.notes (a int); CREATE TABLE home_pairs (n bigint, w text, x int); \
                 GRANT USAGE ON SCHEMA home_one, home_two TO {0}; \
                 GRANT ALL ON home_one.notes, home_two.notes, home_pairs TO {0}",
                shop::USER
            ))
            .await?;
    }
    let lone = format!("CREATE TABLE home_lone (a int); GRANT ALL ON home_lone TO {}", shop::USER);
    Ok(shards.direct(1).await?.batch_execute(&lone).await?)
}

async fn drop_all(shards: &Shards<'_>) -> Fallible<()> {
    for index in 0..2 {
        let direct = shards.direct(index).await?;
        let all =
            "DROP SCHEMA home_one, home_two CASCADE; DROP TABLE home_pairs; DROP TABLE IF EXISTS home_lone";
        direct.batch_execute(all).await?;
    }
    Ok(())
}

async fn rows_are_where_their_home_is(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    create(&shards).await?;
    let config =
        |listen: &str, admin: &str| format!("{}{HOMES}", shards.shop.shop.config_text(listen, admin));
    let keyway = harness.start_keyway(config).await?;
    let client = connect(&shards.shop.shop.url(&keyway.listen().to_string())).await?;
    schemas(&shards, &client).await?;
    lone_table(&shards, &client).await?;
    pairs(&shards, &client).await?;
    arrays(&shards, &client).await?;
    drop(client);
    drop_all(&shards).await?;
    Ok(())
}

async fn schemas(shards: &Shards<'_>, client: &Client) -> Fallible<()> {
    let error = error_of(client, "SELECT a FROM notes").await?;
    assert_error(&error, "0A000", "search_path");
    run(client, "INSERT INTO home_one.notes VALUES (1)").await?;
    run(client, "SET search_path TO home_two, public").await?;
    run(client, "INSERT INTO notes VALUES (2)").await?;
    client.execute("INSERT INTO notes VALUES ($1)", &[&3i32]).await?;
    assert_eq!(rows(client, "SELECT a FROM notes ORDER BY a").await?, ["2", "3"]);
    let found = shards.everywhere(
        "SELECT 'one', a FROM home_one.notes UNION ALL SELECT 'two', a FROM home_two.notes ORDER BY 2",
    );
    assert_eq!(found.await?.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);

    run(client, "BEGIN").await?;
    run(client, "SET LOCAL search_path TO home_one").await?;
    assert_error(&error_of(client, "SELECT a FROM notes").await?, "0A000", "search_path");
    run(client, "ROLLBACK").await?;
    assert_eq!(rows(client, "SELECT a FROM notes ORDER BY a").await?, ["2", "3"]);
    run(client, "BEGIN").await?;
    run(client, "SET search_path TO home_one").await?;
    run(client, "COMMIT").await?;
    assert_eq!(rows(client, "SELECT a FROM notes").await?, ["1"]);
    run(client, "SELECT set_config('search_path', 'home_two', false)").await?;
    assert_eq!(rows(client, "SELECT count(*) FROM notes").await?, ["2"]);
    run(client, "RESET search_path").await?;
    assert_error(&error_of(client, "SELECT a FROM notes").await?, "0A000", "search_path");
    Ok(())
}

/// What is parsed before its keys are known is parsed where its table is.
async fn lone_table(shards: &Shards<'_>, client: &Client) -> Fallible<()> {
    for a in 0..4i32 {
        client.execute("INSERT INTO public.home_lone VALUES ($1)", &[&a]).await?;
    }
    let count: i64 = client.query_one("SELECT count(*) FROM public.home_lone", &[]).await?.get(0);
    assert_eq!(count, 4);
    assert_eq!(rows(&shards.direct(1).await?, "SELECT count(*) FROM home_lone").await?, ["4"]);
    Ok(())
}

async fn pairs(shards: &Shards<'_>, client: &Client) -> Fallible<()> {
    for (n, w) in [(1i64, "a"), (2, "b"), (1, "b")] {
        client.execute("INSERT INTO public.home_pairs (w, n) VALUES ($2, $1)", &[&n, &w]).await?;
    }
    let found = shards.everywhere("SELECT count(*) FROM home_pairs").await?;
    assert_eq!(found, [["2"], ["1"]]);
    let update = "UPDATE public.home_pairs SET x = 1 WHERE (n, w) = ($1, $2)";
    assert_eq!(client.execute(update, &[&1i64, &"b"]).await?, 1);
    let none = error_of(client, "INSERT INTO public.home_pairs (n, w) VALUES (9, 'a')").await?;
    assert_error(&none, "23514", "no shard");
    Ok(())
}

async fn arrays(shards: &Shards<'_>, client: &Client) -> Fallible<()> {
    let first = shards.user_on(1, 1);
    let keys = vec![first, shards.user_on(1, first + 1)];
    let sql = "SELECT count(*) FROM public.users WHERE user_id = ANY ($1)";
    let count: i64 = client.query_one(sql, &[&keys]).await?.get(0);
    assert_eq!(count, 2, "an aggregate is answered, so one shard was asked");
    let text =
        format!("SELECT count(*) FROM public.users WHERE user_id = ANY ('{{{},{}}}')", keys[0], keys[1]);
    assert_eq!(rows(client, &text).await?, ["2"]);
    Ok(())
}
