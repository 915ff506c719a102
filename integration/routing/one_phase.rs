//! Writes on two shards where the configuration allows them: what one PostgreSQL would have done is there, or
//! nothing is, or the client is told where.

use std::sync::Arc;

use keyway::demo::postgres::Signal;
use keyway::demo::shop;
use libtest_mimic::Trial;
use tokio_postgres::types::Type;

use super::{Shards, config_text};
use crate::harness::{
    Fallible, Harness, Outcome, Shared, as_db_error, assert_error, assert_hits, connect, error_of, rows, run,
    until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::one_phase::updates_and_deletes", updates_and_deletes),
        harness.test("routing::one_phase::one_shard_fails_and_none_keeps", one_shard_fails),
        harness.test("routing::one_phase::a_commit_that_fails", a_commit_that_fails),
        harness.test("routing::one_phase::rows_are_split", rows_are_split),
        harness.test("routing::one_phase::rows_of_parameters", rows_of_parameters),
        harness.test("routing::one_phase::errors_are_of_the_clients_text", errors_are_of_the_clients_text),
        harness.test("routing::one_phase::rows_from_beside", rows_from_beside),
        harness.test("routing::one_phase::a_reload_allows_it_and_forbids_it", a_reload),
        harness.test("routing::one_phase::each_row_comes_once", each_row_comes_once),
        harness.test("routing::one_phase::a_lock_is_not_waited_for_without_end", a_lock),
    ]
}

/// `moves` is the tests' own: each has it under another name.
pub async fn start<'a>(harness: &'a Shared, table: &str) -> Fallible<Shards<'a>> {
    let more = format!(
        "\n[databases.shop]\ncross_shard_writes = \"one_phase\"\ncross_shard_lock_timeout = \"300ms\"\n\
         [databases.shop.maps.by_pair]\nkind = \"hash\"\ntype = [\"integer\", \"text\"]\n\
         [databases.shop.tables.{table}]\nmap = \"by_user\"\nkey = \"user_id\"\n\
         [databases.shop.tables.{table}_beside]\nmap = \"by_user\"\nkey = \"user_id\"\n\
         [databases.shop.tables.{table}_pairs]\nmap = \"by_pair\"\nkey = [\"a\", \"b\"]\n"
    );
    // Before Keyway reads the catalog.
    for shard in &harness.shop().await?.shop.shards {
        let direct = shard.primary.connect(shop::DATABASE).await?;
        for sql in [
            format!(
                "CREATE TABLE {table} (user_id bigint PRIMARY KEY, n integer DEFAULT 7, s text, \
                 CONSTRAINT small CHECK (n < 1000))"
            ),
            format!("CREATE TABLE {table}_beside (user_id bigint, n integer, s text)"),
            format!("CREATE TABLE {table}_pairs (n integer, b text, a integer, PRIMARY KEY (a, b))"),
            format!("GRANT ALL ON {table}, {table}_beside, {table}_pairs TO PUBLIC"),
        ] {
            run(&direct, &sql).await?;
        }
    }
    let shards = Shards::start_with(harness, &more).await?;
    shards.keyway.until_catalog_is_known(shop::DATABASE).await?;
    Ok(shards)
}

impl Shards<'_> {
    /// Three users, of the first, the second and the first shard.
    fn three(&self, from: i64) -> (i64, i64, i64) {
        let a = self.user_on(0, from);
        let b = self.user_on(1, a + 1);
        (a, b, self.user_on(0, b + 1))
    }
}

async fn updates_and_deletes(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_changed").await?;
    let client = shards.client().await?;
    let (a, b, c) = shards.three(1);
    for user in [a, b, c] {
        run(&client, &format!("INSERT INTO one_changed (user_id, n) VALUES ({user}, 1)")).await?;
    }
    let all = "SELECT user_id, n FROM one_changed ORDER BY 1";
    assert_eq!(client.execute("UPDATE one_changed SET n = n + 1", &[]).await?, 3);
    assert_eq!(
        shards.everywhere(all).await?,
        [vec![format!("{a}|2"), format!("{c}|2")], vec![format!("{b}|2")]]
    );
    let sql = "UPDATE one_changed SET n = n + $1 WHERE user_id = ANY ($2) RETURNING user_id, n";
    let mut got: Vec<(i64, i32)> =
        client.query(sql, &[&10i32, &vec![a, b]]).await?.iter().map(|it| (it.get(0), it.get(1))).collect();
    got.sort_unstable();
    let mut want = vec![(a, 12), (b, 12)];
    want.sort_unstable();
    assert_eq!(got, want);
    let mut got =
        rows(&client, &format!("DELETE FROM one_changed WHERE user_id IN ({b}, {c}) RETURNING n")).await?;
    got.sort();
    assert_eq!(got, ["12", "2"]);
    assert_eq!(shards.everywhere(all).await?, [vec![format!("{a}|12")], vec![]]);
    assert_eq!(client.execute("DELETE FROM one_changed WHERE n = 99", &[]).await?, 0);
    run(&client, "BEGIN").await?;
    let error = error_of(&client, "DELETE FROM one_changed").await?;
    assert_error(&error, "0A000", "cannot stand in a transaction");
    run(&client, "ROLLBACK").await?;
    Ok(())
}

async fn one_shard_fails(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_failing").await?;
    let client = shards.client().await?;
    let (a, b, c) = shards.three(1);
    let insert = format!("INSERT INTO one_failing (user_id, n) VALUES ({a}, 1), ({b}, 999), ({c}, 1)");
    assert_eq!(client.execute(&insert, &[]).await?, 3);
    let all = "SELECT user_id, n FROM one_failing ORDER BY 1";
    let before = shards.everywhere(all).await?;
    let error = error_of(&client, "UPDATE one_failing SET n = n + 1").await?;
    assert_error(&error, "23514", "small");
    let error =
        as_db_error(client.execute("UPDATE one_failing SET n = n + $1", &[&1i32]).await.expect_err("check"))?;
    assert_error(&error, "23514", "small");
    let d = shards.user_on(0, c + 1);
    for (from, to) in [(d, b), (b, d)] {
        let insert = format!("INSERT INTO one_failing (user_id) VALUES ({from}), ({to})");
        assert_error(&error_of(&client, &insert).await?, "23505", "one_failing_pkey");
        let error = as_db_error(client.execute(&insert, &[]).await.expect_err("a key twice"))?;
        assert_error(&error, "23505", "one_failing_pkey");
    }
    assert_eq!(shards.everywhere(all).await?, before);
    // The connections are as good as before.
    assert_eq!(client.execute("UPDATE one_failing SET n = n - 1", &[]).await?, 3);
    Ok(())
}

/// By a constraint that only one shard has, checked at COMMIT.
async fn a_commit_that_fails(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_deferred").await?;
    let client = shards.client().await?;
    let (a, b, _) = shards.three(1);
    let function = "CREATE FUNCTION one_deferred_no() RETURNS trigger LANGUAGE plpgsql AS \
                    $$ BEGIN RAISE EXCEPTION 'not here' USING ERRCODE = '23999'; END $$";
    let trigger = "CREATE CONSTRAINT TRIGGER no AFTER INSERT ON one_deferred DEFERRABLE INITIALLY DEFERRED \
                   FOR EACH ROW EXECUTE FUNCTION one_deferred_no()";
    let insert = format!("INSERT INTO one_deferred (user_id) VALUES ({a}), ({b})");
    let all = "SELECT user_id FROM one_deferred";
    for shard in [0, 1] {
        run(&shards.direct(shard).await?, function).await?;
    }
    run(&shards.direct(0).await?, trigger).await?;
    assert_error(&error_of(&client, &insert).await?, "23999", "not here");
    assert_eq!(shards.everywhere(all).await?, [vec![""; 0], vec![]]);
    run(&shards.direct(0).await?, "DROP TRIGGER no ON one_deferred").await?;
    run(&shards.direct(1).await?, trigger).await?;
    let error = error_of(&client, &insert).await?;
    assert_error(&error, "08007", "not committed on every shard");
    let detail = error.detail().unwrap_or_default();
    assert!(detail.contains("committed on: s1; not committed on: s2 (not here)"), "{detail}");
    assert_eq!(shards.everywhere(all).await?, [vec![a.to_string()], vec![]]);
    Ok(())
}

async fn rows_are_split(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_split").await?;
    let client = shards.client().await?;
    let (a, b, c) = shards.three(1);
    let insert = format!(
        "INSERT INTO one_split (s, user_id, n) VALUES ('it''s, (a)', {a}, DEFAULT), -- first\n \
         (E'\\'b)', '{b}'::bigint, 1 + 1), ($$c$$, {c}, NULL) RETURNING user_id, n, s"
    );
    let want = [format!("{a}|7|it's, (a)"), format!("{b}|2|'b)"), format!("{c}||c")];
    // In the order in which they are written, whichever shard has them.
    assert_eq!(
        rows(&client, &insert).await?.iter().map(|it| it.replace("NULL", "")).collect::<Vec<_>>(),
        want
    );
    let counts = shards.everywhere("SELECT count(*) FROM one_split").await?;
    assert_eq!(counts, [["2"], ["1"]]);
    let upsert = format!(
        "INSERT INTO one_split AS t (user_id, n) VALUES ({b}, 5), ({a}, 6), ({}, 8) \
         ON CONFLICT (user_id) DO UPDATE SET n = t.n + excluded.n RETURNING n",
        shards.user_on(1, c + 1)
    );
    assert_eq!(rows(&client, &upsert).await?, ["7", "13", "8"]);
    let nothing = format!(
        "INSERT INTO one_split (user_id, n) VALUES ({a}, 5), ({b}, 6) ON CONFLICT DO NOTHING RETURNING n"
    );
    assert_eq!(rows(&client, &nothing).await?.len(), 0);
    assert_eq!(client.execute(&nothing, &[]).await?, 0);
    // A key of two columns, not in their order.
    let pairs: Vec<String> = (0..30).map(|it| format!("({it}, 'b{}', {})", it % 7, it % 5)).collect();
    let insert = format!("INSERT INTO one_split_pairs (n, b, a) VALUES {} RETURNING n", pairs.join(", "));
    let numbers: Vec<String> = (0..30).map(|it| it.to_string()).collect();
    assert_eq!(rows(&client, &insert).await?, numbers);
    let counts = shards.everywhere("SELECT count(*) > 0 FROM one_split_pairs").await?;
    assert_eq!(counts, [["t"], ["t"]]);
    let found = rows(&client, "SELECT n FROM one_split_pairs WHERE a = 4 AND b = 'b1'").await?;
    assert_eq!(found, ["29"]);
    Ok(())
}

async fn rows_of_parameters(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_bound").await?;
    let client = shards.client().await?;
    let (a, b, c) = shards.three(1);
    // $4 stands in two rows, as a text in the first: so it is one in the other too.
    let sql = "INSERT INTO one_bound (user_id, s, n) VALUES ($1, $4, 1), ($2, $4, $5), ($3, 'x', $5) \
               RETURNING user_id, s, n";
    for statement in [
        client.prepare(sql).await?,
        client.prepare_typed(sql, &[Type::INT8, Type::INT8, Type::INT8, Type::TEXT, Type::INT4]).await?,
    ] {
        let found = client.query(&statement, &[&a, &b, &c, &"007", &2i32]).await?;
        let found: Vec<(i64, String, i32)> =
            found.iter().map(|it| (it.get(0), it.get(1), it.get(2))).collect();
        let want = [(a, "007".to_owned(), 1), (b, "007".to_owned(), 2), (c, "x".to_owned(), 2)];
        assert_eq!(found, want);
        assert_eq!(client.execute("DELETE FROM one_bound", &[]).await?, 3);
    }
    let error = as_db_error(
        client.query(sql, &[&a, &Option::<i64>::None, &c, &"007", &2i32]).await.expect_err("no key"),
    )?;
    assert_error(&error, "23502", "user_id");
    assert_eq!(shards.everywhere("SELECT 1 FROM one_bound").await?, [vec![""; 0], vec![]]);
    // Text parameters, unnamed statement: what many drivers send.
    let found = client
        .query_typed(
            sql,
            &[(&a, Type::INT8), (&b, Type::INT8), (&c, Type::INT8), (&"t", Type::TEXT), (&3i32, Type::INT4)],
        )
        .await?;
    assert_eq!(found.len(), 3);
    Ok(())
}

async fn errors_are_of_the_clients_text(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_wrong").await?;
    let client = shards.client().await?;
    let direct =
        connect(&shards.shop.shop.url(&shards.shop.shop.shards[0].primary.address().to_string())).await?;
    let (a, b, _) = shards.three(1);
    for sql in [
        format!("INSERT INTO one_wrong (user_id, n) VALUES ({a}, 1), ({b}, 'x')"),
        format!("INSERT INTO one_wrong (user_id, m) VALUES ({a}, 1), ({b}, 2)"),
        format!("INSERT INTO one_wrong (user_id, n) VALUES ({a}, 1), ({b}, 2, 3)"),
        format!("INSERT INTO one_wrong (user_id, n) VALUES ({a}, 1), ({b}, 2) RETURNING nothing"),
    ] {
        let (ours, theirs) = (error_of(&client, &sql).await?, error_of(&direct, &sql).await?);
        let told = |it: &tokio_postgres::error::DbError| {
            (it.code().clone(), it.message().to_owned(), it.position().cloned())
        };
        assert_eq!(told(&ours), told(&theirs), "{sql}");
    }
    assert_eq!(shards.everywhere("SELECT 1 FROM one_wrong").await?, [vec![""; 0], vec![]]);
    Ok(())
}

async fn rows_from_beside(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_source").await?;
    let client = shards.client().await?;
    let (a, b, c) = shards.three(1);
    let insert = format!("INSERT INTO one_source (user_id, n) VALUES ({a}, 1), ({b}, 2), ({c}, 3)");
    assert_eq!(client.execute(&insert, &[]).await?, 3);
    let sql = "INSERT INTO one_source_beside (user_id, n, s) SELECT user_id, n * $1, 'x' FROM one_source WHERE n > 1";
    assert_eq!(client.execute(sql, &[&10i32]).await?, 2);
    let sql = "INSERT INTO one_source_beside (user_id, n) SELECT user_id, sum(n) FROM one_source_beside \
               GROUP BY user_id RETURNING n";
    let mut got = rows(&client, sql).await?;
    got.sort();
    assert_eq!(got, ["20", "30"]);
    let all = "SELECT user_id, n, coalesce(s, '-') FROM one_source_beside ORDER BY 1, 2, 3";
    let of = |user: i64, n: i32| [format!("{user}|{n}|-"), format!("{user}|{n}|x")];
    assert_eq!(shards.everywhere(all).await?, [of(c, 30), of(b, 20)]);
    let sql = "INSERT INTO one_source_beside (user_id) SELECT user_id FROM one_source LIMIT 1";
    assert_error(&error_of(&client, sql).await?, "0A000", "LIMIT");
    Ok(())
}

async fn a_lock(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_locked").await?;
    let client = shards.client().await?;
    let (a, b, _) = shards.three(1);
    let insert = format!("INSERT INTO one_locked (user_id, n) VALUES ({a}, 1), ({b}, 2)");
    assert_eq!(client.execute(&insert, &[]).await?, 2);
    let holder = shards.direct(1).await?;
    run(&holder, "BEGIN; UPDATE one_locked SET n = 5").await?;
    let error = error_of(&client, "UPDATE one_locked SET n = 9").await?;
    assert_error(&error, "55P03", "lock timeout");
    assert_hits(&shards.keyway, "cross_shard_lock_timeout", 1).await?;
    // The rows of an INSERT wait for the same key.
    let c = shards.user_on(1, b + 1);
    run(&holder, &format!("INSERT INTO one_locked VALUES ({c})")).await?;
    let insert = format!("INSERT INTO one_locked (user_id) VALUES ({}), ({c})", shards.user_on(0, a + 1));
    assert_error(&error_of(&client, &insert).await?, "55P03", "lock timeout");
    assert_hits(&shards.keyway, "cross_shard_lock_timeout", 2).await?;
    // By a limit of the session's own none is counted.
    run(&client, "SET lock_timeout = '200ms'").await?;
    assert_error(&error_of(&client, &insert).await?, "55P03", "lock timeout");
    run(&client, "RESET lock_timeout").await?;
    assert_hits(&shards.keyway, "cross_shard_lock_timeout", 2).await?;
    run(&holder, "ROLLBACK").await?;
    assert_eq!(rows(&client, "SELECT n FROM one_locked ORDER BY 1").await?, ["1", "2"]);
    assert_eq!(rows(&client, "SHOW lock_timeout").await?, ["0"]);
    Ok(())
}

async fn a_reload(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_reloaded").await?;
    let client = shards.client().await?;
    let (a, b, _) = shards.three(1);
    let insert = format!("INSERT INTO one_reloaded (user_id, n) VALUES ({a}, 1), ({b}, 1)");
    assert_eq!(client.execute(&insert, &[]).await?, 2);
    let update = client.prepare("UPDATE one_reloaded SET n = n + 1").await?;
    assert_eq!(client.execute(&update, &[]).await?, 2);
    for (setting, allowed) in [("refuse", false), ("one_phase", true)] {
        let more = format!(
            "\n[databases.shop]\ncross_shard_writes = \"{setting}\"\n\
             [databases.shop.tables.one_reloaded]\nmap = \"by_user\"\nkey = \"user_id\"\n"
        );
        shards.keyway.write_config(|listen, admin| config_text(shards.shop, listen, admin) + &more)?;
        let before = shards.keyway.log().matches("configuration reloaded").count();
        shards.keyway.signal(Signal::HUP)?;
        until("the reload is done", || async {
            Ok(shards.keyway.log().matches("configuration reloaded").count() > before)
        })
        .await?;
        // A session in between goes along with its next statement.
        match client.execute(&update, &[]).await {
            Ok(count) => assert_eq!((count, allowed), (2, true)),
            Err(error) => {
                assert!(!allowed, "{error:?}");
                assert_error(&as_db_error(error)?, "0A000", "must name its shard key");
            }
        }
    }
    assert_eq!(rows(&client, "SELECT n FROM one_reloaded").await?, ["3", "3"]);
    Ok(())
}

/// What rivals do: rows on every shard, rows without a key everywhere, RETURNING in another format.
async fn each_row_comes_once(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "one_once").await?;
    let client = shards.client().await?;
    let sql = "INSERT INTO one_once (user_id, n, s) VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')";
    assert_eq!(client.execute(sql, &[]).await?, 3);
    let counts = shards.everywhere("SELECT user_id FROM one_once").await?.concat();
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert_eq!(rows(&client, "SELECT count(*) FROM one_once").await?, ["3"]);
    let error = error_of(&client, "INSERT INTO one_once (user_id) VALUES (NULL), (4)").await?;
    assert_error(&error, "23502", "user_id");
    let sql = "UPDATE one_once SET n = n + 1 WHERE user_id IN (1, 2, 3) RETURNING user_id, n";
    let mut found: Vec<(i64, i32)> =
        client.query(sql, &[]).await?.iter().map(|it| (it.get(0), it.get(1))).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 2), (2, 3), (3, 4)]);
    assert_eq!(rows(&client, "SELECT count(*) FROM one_once").await?, ["3"]);
    Ok(())
}
