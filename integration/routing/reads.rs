//! Reads by key, by several keys and by none.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyway::demo::shop;
use libtest_mimic::Trial;

use super::{Shards, config_text, insert_user};
use crate::harness::{Harness, Outcome, Shared, assert_error, error_of, rows, run, until};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::reads::a_key_names_the_shard", a_key_names_the_shard),
        harness.test("routing::reads::a_parameter_is_a_key", a_parameter_is_a_key),
        harness.test("routing::reads::lists_of_keys", lists_of_keys),
        harness.test("routing::reads::without_a_key_each_row_comes_once", without_a_key_each_row_comes_once),
        harness.test("routing::reads::rows_of_all_shards_are_merged", rows_of_all_shards_are_merged),
        harness.test("routing::reads::a_first_statement_is_merged_too", a_first_statement_is_merged_too),
        harness.test("routing::reads::what_cannot_be_merged_is_refused", what_cannot_be_merged_is_refused),
        harness.test("routing::reads::texts_that_may_be_equal", texts_that_may_be_equal),
        harness.test("routing::reads::joins_meet_on_one_shard", joins_meet_on_one_shard),
        harness.test("routing::reads::null_matches_nothing", null_matches_nothing),
        harness.test("routing::reads::ranges_of_time", ranges_of_time),
        harness.test("routing::reads::a_parse_error_is_postgresqls", a_parse_error_is_postgresqls),
        harness.test("routing::reads::several_statements_in_a_text", several_statements_in_a_text),
    ]
}

/// What `keyway route` says, Keyway does.
async fn a_key_names_the_shard(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let dir = harness.fresh_dir()?;
    let config = dir.path().join("keyway.toml");
    std::fs::write(&config, config_text(shards.shop, "127.0.0.1:1", "127.0.0.1:2"))?;
    for index in [0, 1] {
        let user_id = shards.user_on(index, 1_000_000);
        run(&client, &insert_user(user_id, "key")).await?;
        let sql = format!("SELECT name, server_port FROM users_here WHERE user_id = {user_id}");
        let mut command = harness.keyway_command();
        let told = command.args(["route", "--config"]).arg(&config).arg(&sql).output().await?;
        let told = String::from_utf8(told.stdout)?;
        let shard = &shards.shop.shop.shards[index];
        assert!(told.lines().any(|it| it == format!("shards:  {}", shard.name)), "{told}");
        assert!(told.lines().any(|it| it == "role:    replica"), "{told}");

        let found = rows(&client, &sql).await?;
        let [found] = &found[..] else { return Err(format!("{found:?}").into()) };
        let port: u16 = found.strip_prefix("key|").ok_or("another row")?.parse()?;
        assert!(shard.servers().any(|it| it.port() == port), "{port} is not of {}", shard.name);
        let direct = format!("SELECT name FROM users WHERE user_id = {user_id}");
        let mut want = vec![Vec::new(), Vec::new()];
        want[index] = vec!["key".to_owned()];
        assert_eq!(shards.everywhere(&direct).await?, want, "the row is where it belongs, and only there");
    }
    Ok(())
}

async fn a_parameter_is_a_key(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let insert = "INSERT INTO orders (user_id, order_id, amount) VALUES ($1, $2, 1)";
    let insert = client.prepare(insert).await?;
    let select = client.prepare("SELECT order_id FROM orders WHERE order_id > 0 AND user_id = $1").await?;
    let cast = client.prepare("SELECT order_id FROM orders WHERE user_id = $1::text::bigint").await;
    assert!(cast.is_ok(), "it can be prepared: only its keys are unknown");
    for user_id in 1_010_000..1_010_020i64 {
        assert_eq!(client.execute(&insert, &[&user_id, &7i64]).await?, 1);
        let found = client.query(&select, &[&user_id]).await?;
        assert_eq!(found.len(), 1);
        let here = format!("SELECT order_id FROM orders WHERE user_id = {user_id}");
        let direct = shards.everywhere(&here).await?;
        assert_eq!(direct[shards.owner(user_id)], ["7"]);
        assert_eq!(direct.iter().flatten().count(), 1);
    }
    // Text parameters, of every spelling that PostgreSQL takes.
    for text in ["1010003", " 1010003 ", "+1010003", "001010003"] {
        let found = rows(&client, &format!("SELECT order_id FROM orders WHERE user_id = '{text}'")).await?;
        assert_eq!(found, ["7"], "{text:?}");
    }
    let error = error_of(&client, "SELECT order_id FROM orders WHERE user_id = '12x'").await?;
    assert_error(&error, "22P02", "invalid input syntax for type bigint: \"12x\"");
    Ok(())
}

async fn lists_of_keys(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 1_020_000), shards.user_on(1, 1_020_000));
    let c = shards.user_on(0, a + 1);
    for user_id in [a, b, c] {
        run(&client, &insert_user(user_id, "list")).await?;
    }
    let sorted = |mut it: Vec<String>| {
        it.sort();
        it
    };
    let mut all = vec![a.to_string(), b.to_string(), c.to_string()];
    all.sort();
    let select = |what: &str| format!("SELECT user_id FROM users WHERE {what}");

    let one_shard = format!("{} ORDER BY user_id DESC LIMIT 5", select(&format!("user_id IN ({a}, {c})")));
    assert_eq!(rows(&client, &one_shard).await?, [c.to_string(), a.to_string()], "no merge on one shard");
    for list in [
        format!("user_id IN ({a}, {b}, {c}, {a})"),
        format!("user_id = ANY (ARRAY[{a}, {b}, {c}]::bigint[])"),
        format!("user_id = {a} OR user_id = {b} OR user_id IN ({c})"),
        format!("user_id IN ({a}, {b}, {c}) AND user_id IN ({a}, {b}, {c}) AND name = 'list'"),
    ] {
        assert_eq!(sorted(rows(&client, &select(&list)).await?), all, "{list}");
    }
    let both = format!("user_id IN ({a}, {b}) AND user_id = {b}");
    assert_eq!(rows(&client, &select(&both)).await?, [b.to_string()]);
    let none = format!("user_id = {a} AND user_id = {b}");
    assert_eq!(rows(&client, &select(&none)).await?, [""; 0]);

    let statement = client.prepare("SELECT user_id FROM users WHERE user_id IN ($1, $2, $3)").await?;
    let found = client.query(&statement, &[&a, &b, &c]).await?;
    assert_eq!(sorted(found.iter().map(|it| it.get::<_, i64>(0).to_string()).collect()), all);
    let found = client.query(&statement, &[&a, &a, &None::<i64>]).await?;
    assert_eq!(found.len(), 1);
    let ordered = format!("{} ORDER BY user_id", select(&format!("user_id IN ({a}, {b})")));
    let mut both = [a, b];
    both.sort_unstable();
    assert_eq!(rows(&client, &ordered).await?, both.map(|it| it.to_string()));
    Ok(())
}

async fn without_a_key_each_row_comes_once(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let users: Vec<i64> = (1_030_000..1_030_040).collect();
    for user_id in &users {
        run(&client, &insert_user(*user_id, "scatter")).await?;
    }
    let select = "SELECT user_id, name FROM users WHERE name = 'scatter'";
    let mut want: Vec<String> = users.iter().map(|it| format!("{it}|scatter")).collect();
    want.sort();
    let mut found = rows(&client, select).await?;
    found.sort();
    assert_eq!(found, want);
    let found = client.query("SELECT user_id FROM users WHERE name = $1", &[&"scatter"]).await?;
    assert_eq!(found.len(), users.len());
    let tag = run(&client, select).await?;
    let count = tag.iter().find_map(|it| match it {
        tokio_postgres::SimpleQueryMessage::CommandComplete(count) => Some(*count),
        _ => None,
    });
    assert_eq!(count, Some(users.len() as u64), "the tag counts the rows of all shards");
    assert_eq!(rows(&client, "SELECT user_id FROM users WHERE name = 'nobody'").await?, [""; 0]);
    // Rows of both shards, each with what its own shard knows.
    let placed = rows(&client, "SELECT server_port, user_id FROM users_here WHERE name = 'scatter'").await?;
    let mut by_port = BTreeMap::<String, usize>::new();
    for row in &placed {
        let (port, user_id) = row.split_once('|').ok_or("two columns")?;
        let owner = &shards.shop.shop.shards[shards.owner(user_id.parse()?)];
        assert!(owner.servers().any(|it| it.port().to_string() == port), "{row}");
        *by_port.entry(port.to_owned()).or_default() += 1;
    }
    assert_eq!((placed.len(), by_port.len()), (users.len(), 2), "{by_port:?}");
    // An error of a shard reaches the client once, and the session goes on.
    let error = error_of(&client, "SELECT 1 / (user_id - user_id) FROM users WHERE name = 'scatter'").await?;
    assert_error(&error, "22012", "division by zero");
    assert_eq!(rows(&client, "SELECT 1").await?, ["1"]);
    Ok(())
}

/// Without its catalog, which a Keyway that has just started has not read, it would be refused.
async fn a_first_statement_is_merged_too(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let none = "SELECT country, count(*) FROM users WHERE name = 'nobody at all' GROUP BY country";
    assert_eq!(rows(&client, none).await?, [""; 0]);
    Ok(())
}

/// `integration/differential` compares many more with PostgreSQL; here are the kinds, by both protocols.
async fn rows_of_all_shards_are_merged(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let first = 1_032_000i64;
    for (user_id, country) in (first..).zip(["NL", "KE", "NL", "DE", "KE", "NL"]) {
        let insert = "INSERT INTO users (user_id, name, email, country) VALUES ($1, 'merged', '', $2)";
        client.execute(insert, &[&user_id, &country]).await?;
    }
    let user = |at: i64| (first + at).to_string();
    for (sql, want) in [
        ("SELECT count(*) FROM users WHERE name = 'merged'", vec!["6".to_owned()]),
        ("SELECT max(user_id) FROM users WHERE name = 'merged'", vec![user(5)]),
        ("SELECT user_id FROM users WHERE name = 'merged' ORDER BY user_id", (0..6).map(user).collect()),
        ("SELECT user_id FROM users WHERE name = 'merged' ORDER BY 1 DESC LIMIT 2", vec![user(5), user(4)]),
        ("SELECT user_id FROM users WHERE name = 'merged' ORDER BY 1 OFFSET 4", vec![user(4), user(5)]),
        ("SELECT count(*) + 1 FROM users WHERE name = 'merged' HAVING count(*) > 5", vec!["7".to_owned()]),
        (
            "SELECT user_id FROM users WHERE name = 'merged' \
             UNION SELECT user_id FROM orders WHERE user_id < 0 ORDER BY 1 LIMIT 1",
            vec![user(0)],
        ),
    ] {
        assert_eq!(rows(&client, sql).await?, want, "{sql}");
        assert_eq!(client.query(sql, &[]).await?.len(), want.len(), "{sql}, extended");
    }
    let grouped = "SELECT country, count(*) FROM users WHERE name = $1 GROUP BY country";
    let grouped = client.query(grouped, &[&"merged"]).await?;
    let mut counts: Vec<(String, i64)> = grouped.iter().map(|it| (it.get(0), it.get(1))).collect();
    counts.sort();
    assert_eq!(counts, [("DE".to_owned(), 1), ("KE".to_owned(), 2), ("NL".to_owned(), 3)]);
    let mut distinct = rows(&client, "SELECT DISTINCT country FROM users WHERE name = 'merged'").await?;
    distinct.sort();
    assert_eq!(distinct, ["DE", "KE", "NL"]);
    Ok(())
}

/// A collation may find texts equal whose bytes are not. A catalog that was read before does not hold for what comes right behind a
/// change, in either protocol.
async fn texts_that_may_be_equal(harness: Arc<Shared>) -> Outcome {
    // A busy machine may take its time to read one.
    let shards = Shards::start_with(&harness, &catalog_wait("1m")).await?;
    let client = shards.client().await?;
    shards.keyway.until_catalog_is_known(shop::DATABASE).await?;
    run(&client, "CREATE TABLE tastings (day date, what text)").await?;
    run(&client, "INSERT INTO tastings (day, what) VALUES ('2026-06-30', 'Tea')").await?;
    run(&client, "INSERT INTO tastings (day, what) VALUES ('2026-07-01', 'tea')").await?;
    let distinct = "SELECT DISTINCT what FROM tastings";
    let mut found = rows(&client, distinct).await?;
    found.sort();
    assert_eq!(found, ["Tea", "tea"]);
    let prepared = client.prepare(distinct).await?;
    assert_eq!(client.query(&prepared, &[]).await?.len(), 2);
    run(&client, &format!("PREPARE tasted AS {distinct}")).await?;
    run(
        &client,
        "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    )
    .await?;
    run(&client, "ALTER TABLE tastings ALTER what TYPE text COLLATE folding").await?;
    let error = client.query(&prepared, &[]).await.err().ok_or("merged by the catalog before")?;
    assert_error(error.as_db_error().ok_or("not the server's")?, "0A000", "deterministic");
    for sql in [
        distinct,
        "EXECUTE tasted",
        "SELECT what FROM tastings GROUP BY what",
        "SELECT count(DISTINCT what) FROM tastings",
        "SELECT what FROM tastings UNION SELECT what FROM tastings",
    ] {
        let error = error_of(&client, sql).await?;
        assert_error(&error, "0A000", "deterministic");
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM tastings WHERE what = 'TEA'").await?, ["2"]);
    run(&client, "ALTER TABLE tastings ALTER what TYPE text COLLATE \"default\"").await?;
    assert_eq!(client.query(&prepared, &[]).await?.len(), 2);
    assert_eq!(rows(&client, "EXECUTE tasted").await?.len(), 2);
    drop(client);
    a_long_change_is_not_waited_for(&harness).await
}

/// Behind `catalog_wait` a read that needs the catalog is refused; others have waited for nothing.
async fn a_long_change_is_not_waited_for(harness: &Shared) -> Outcome {
    let shards = Shards::start_with(harness, &catalog_wait("100ms")).await?;
    let (client, changer) = (shards.client().await?, shards.client().await?);
    shards.keyway.until_catalog_is_known(shop::DATABASE).await?;
    // A change concerns whoever names its table. Who reads that waits for its lock, so it is named in passing.
    let named = "FROM users WHERE name = 'nobody at all' /* and no tastings */";
    let distinct = format!("SELECT DISTINCT name {named}");
    // A column of this name would be meant in place of the result.
    let grouped = format!("SELECT length(name) AS whose, count(*) {named} GROUP BY whose");
    for sql in [&distinct, &grouped] {
        assert_eq!(rows(&client, sql).await?, [""; 0], "{sql}");
    }
    let before = shards.keyway.limit_hits("catalog_wait").await?;
    let locker = shards.direct(0).await?;
    run(&locker, "BEGIN; LOCK TABLE tastings").await?;
    let changing = changer.batch_execute("ALTER TABLE tastings ADD COLUMN whose text");
    let reading = async {
        let waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'tastings'::regclass";
        until("the change waits for the lock", async || Ok(rows(&locker, waits).await? == ["1"])).await?;
        for sql in [&distinct, &grouped] {
            let error = error_of(&client, sql).await?;
            assert_error(&error, "55006", "schema changes");
        }
        assert!(shards.keyway.limit_hits("catalog_wait").await? > before);
        for sql in [
            "SELECT DISTINCT name FROM users WHERE name = 'nobody at all'",
            &format!("SELECT count(*) {named}"),
            &format!("SELECT user_id {named} ORDER BY user_id"),
            &format!("SELECT DISTINCT user_id {named}"),
            &format!("SELECT name {named} ORDER BY name COLLATE \"C\""),
        ] {
            assert!(rows(&client, sql).await?.len() < 2, "{sql}");
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let unlocking = async {
        let read = reading.await;
        run(&locker, "ROLLBACK").await.and(read)
    };
    let (changed, read) = tokio::join!(changing, unlocking);
    read?;
    changed?;
    shards.keyway.until_catalog_is_known(shop::DATABASE).await?;
    for sql in [&distinct, &grouped] {
        assert_eq!(rows(&client, sql).await?, [""; 0], "{sql}");
    }
    Ok(())
}

fn catalog_wait(wait: &str) -> String {
    format!("[databases.{}]\ncatalog_wait = \"{wait}\"\n", shop::DATABASE)
}

async fn what_cannot_be_merged_is_refused(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    for (clause, sql) in [
        ("DISTINCT ON", "SELECT DISTINCT ON (country) user_id FROM users"),
        ("percentile_cont", "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY user_id) FROM users"),
        ("ROLLUP", "SELECT country, count(*) FROM users GROUP BY ROLLUP (country)"),
        ("window function", "SELECT row_number() OVER () FROM users"),
        ("EXCEPT", "SELECT name FROM users EXCEPT ALL SELECT email FROM users"),
        ("FOR UPDATE", "SELECT user_id FROM users FOR UPDATE"),
        ("TABLESAMPLE", "SELECT user_id FROM users TABLESAMPLE SYSTEM (10)"),
        ("subquery", "SELECT name FROM users WHERE user_id = (SELECT max(user_id) FROM users)"),
        ("WITH", "WITH t AS (SELECT user_id FROM users LIMIT 1) SELECT * FROM t"),
    ] {
        let error = error_of(&client, sql).await?;
        assert_eq!(error.code().code(), "0A000", "{sql}: {error:?}");
        assert!(error.message().contains(clause), "{sql} names {clause}: {error:?}");
        assert!(error.hint().is_some(), "{sql}: {error:?}");
        let prepared = client.query(sql, &[]).await.err().and_then(|it| it.code().cloned());
        assert_eq!(prepared.as_ref().map(|it| it.code()), Some("0A000"), "{sql}, extended");
    }
    // Of one shard each of them is that shard's own business.
    let user_id = shards.user_on(0, 1_035_000);
    for sql in [
        format!("SELECT count(*) FROM users WHERE user_id = {user_id}"),
        format!(
            "SELECT country, count(*) FROM users WHERE user_id = {user_id} GROUP BY 1 HAVING count(*) > 0"
        ),
        format!("SELECT DISTINCT name FROM users WHERE user_id = {user_id} ORDER BY 1 LIMIT 1"),
        format!("SELECT row_number() OVER () FROM users WHERE user_id = {user_id} FOR KEY SHARE")
            .replace("row_number() OVER ()", "name"),
        format!(
            "SELECT user_id FROM users WHERE user_id = {user_id} UNION SELECT user_id FROM orders WHERE user_id = {user_id}"
        ),
    ] {
        client.simple_query(&sql).await.map_err(|error| format!("{sql}: {error:?}"))?;
    }
    Ok(())
}

async fn joins_meet_on_one_shard(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 1_040_000), shards.user_on(1, 1_040_000));
    for user_id in [a, b] {
        run(&client, &insert_user(user_id, "join")).await?;
        let order =
            format!("INSERT INTO orders (user_id, order_id, amount) VALUES ({user_id}, 1, {user_id})");
        run(&client, &order).await?;
    }
    let by_key = format!(
        "SELECT o.amount::int, c.name FROM users u JOIN orders o ON o.user_id = u.user_id \
         JOIN countries c ON c.code = u.country WHERE u.user_id = {b}"
    );
    assert_eq!(rows(&client, &by_key).await?, [format!("{b}|Netherlands")]);
    let all = "SELECT o.user_id FROM users u JOIN orders o USING (user_id) WHERE u.name = 'join'";
    let mut found = rows(&client, all).await?;
    found.sort();
    let mut want = [a.to_string(), b.to_string()];
    want.sort();
    assert_eq!(found, want, "rows that belong together are together");
    let apart = "SELECT u.user_id FROM users u JOIN orders o ON o.order_id = u.user_id";
    let error = error_of(&client, apart).await?;
    assert_eq!(error.code().code(), "0A000", "{error:?}");
    let crossed = format!("SELECT 1 FROM users u, orders o WHERE u.user_id = {a} AND o.user_id = {b}");
    assert_eq!(error_of(&client, &crossed).await?.code().code(), "0A000");
    let met = format!("SELECT o.order_id FROM users u, orders o WHERE u.user_id = {a} AND o.user_id = {a}");
    assert_eq!(rows(&client, &met).await?, ["1"]);
    Ok(())
}

async fn null_matches_nothing(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    assert_eq!(rows(&client, "SELECT name FROM users WHERE user_id = NULL").await?, [""; 0]);
    assert_eq!(rows(&client, "SELECT name FROM users WHERE user_id IN (NULL)").await?, [""; 0]);
    let found = client.query("SELECT name FROM users WHERE user_id = $1", &[&None::<i64>]).await?;
    assert!(found.is_empty());
    assert_eq!(
        rows(&client, "SELECT count(*) FROM users WHERE user_id = NULL").await?,
        ["0"],
        "one row of 0"
    );
    let error = error_of(
        &client,
        "INSERT INTO users (user_id, name, email, country) VALUES (NULL, 'null key', 'e', 'NL')",
    )
    .await?;
    assert_error(&error, "23502", "null value in shard key \"user_id\" of table \"users\"");
    let insert = "INSERT INTO users (user_id, name, email, country) VALUES ($1, 'null key', 'e', 'NL')";
    let error = client.execute(insert, &[&None::<i64>]).await.expect_err("a NULL key has no shard");
    assert_eq!(error.code().map(|it| it.code()), Some("23502"));
    let left = shards.everywhere("SELECT 1 FROM users WHERE name = 'null key'").await?;
    assert_eq!(left, [vec![""; 0], vec![]]);
    Ok(())
}

async fn ranges_of_time(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let event = |time: &str| {
        format!("INSERT INTO events (occurred_at, user_id, kind) VALUES ('{time}', 1050000, 'range')")
    };
    for (time, shard) in [
        ("2025-12-31 23:59:59.999999+00", 0),
        ("2026-01-01 00:00:00+00", 1),
        ("2026-01-01 00:30:00+01", 0),
        ("2031-05-05T05:05:05Z", 1),
    ] {
        run(&client, &event(time)).await?;
        let here = format!("SELECT 1 FROM events WHERE kind = 'range' AND occurred_at = '{time}'");
        let mut want = vec![Vec::new(), Vec::new()];
        want[shard] = vec!["1".to_owned()];
        assert_eq!(shards.everywhere(&here).await?, want, "{time}");
        let select = format!("SELECT kind FROM events WHERE occurred_at = '{time}' AND kind = 'range'");
        let found = rows(&client, &select).await?;
        assert_eq!(found, ["range"], "{time}");
    }
    run(&client, "CREATE TABLE visits (day date, what text)").await?;
    run(&client, "INSERT INTO visits (day, what) VALUES ('2026-06-30', 'in'), ('2026-01-01', 'in')").await?;
    run(&client, "INSERT INTO visits (day, what) VALUES ('2026-07-01', 'in')").await?;
    for day in ["2025-12-31", "2027-01-01"] {
        let sql = format!("INSERT INTO visits (day, what) VALUES ('{day}', 'out')");
        assert_error(&error_of(&client, &sql).await?, "23514", "no shard for \"day\" of table \"visits\"");
        let sql = format!("UPDATE visits SET what = 'out' WHERE day = '{day}'");
        assert_error(&error_of(&client, &sql).await?, "23514", "no shard for \"day\"");
        let found = rows(&client, &format!("SELECT what FROM visits WHERE day = '{day}'")).await?;
        assert_eq!(found, [""; 0], "no shard has such a row");
    }
    let all = shards.everywhere("SELECT what, count(*) FROM visits GROUP BY what").await?;
    assert_eq!(all, [["in|2"], ["in|1"]]);
    Ok(())
}

async fn a_parse_error_is_postgresqls(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let direct = shards.direct(0).await?;
    for sql in
        ["SELEC 1", "SELECT 'ä', FROM users", "SELECT * FROM users WHERE (", "SELECT 'open", "SELECT 1; FOO"]
    {
        let (ours, theirs) = (error_of(&client, sql).await?, error_of(&direct, sql).await?);
        let shown = |it: &tokio_postgres::error::DbError| {
            (it.severity().to_owned(), it.code().clone(), it.message().to_owned(), it.position().cloned())
        };
        assert_eq!(shown(&ours), shown(&theirs), "{sql}");
        let prepared = client.prepare(sql).await.expect_err("it cannot be parsed");
        assert_eq!(prepared.code().map(|it| it.code()), Some("42601"), "{sql}");
    }
    assert_eq!(rows(&client, "SELECT 1").await?, ["1"]);
    Ok(())
}

async fn several_statements_in_a_text(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 1_060_000), shards.user_on(1, 1_060_000));
    let c = shards.user_on(0, a + 1);
    let text = |x: i64, y: i64| format!("{}; {}", insert_user(x, "text"), insert_user(y, "text"));
    run(&client, &text(a, c)).await?;
    let found = rows(&client, &format!("SELECT 1; SELECT name FROM users WHERE user_id = {c}")).await?;
    assert_eq!(found, ["1", "text"]);
    let names = "SELECT user_id FROM users WHERE name = 'text' ORDER BY 1";
    let mut want = vec![vec![a.to_string(), c.to_string()], Vec::new()];
    want[0].sort();
    assert_eq!(shards.everywhere(names).await?, want);

    let error = error_of(&client, &text(shards.user_on(0, c + 1), b)).await?;
    assert_error(&error, "0A000", "several shards");
    // One text is one transaction: the second statement's error takes the first one back.
    let error = error_of(&client, &text(shards.user_on(0, c + 1), a)).await?;
    assert_error(&error, "23505", "duplicate key");
    assert_eq!(shards.everywhere(names).await?, want, "nothing came of what failed");
    Ok(())
}
