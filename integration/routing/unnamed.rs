//! INSERT without a list of columns into sharded tables: values are for the columns that the catalog has in their
//! order, servers are sent their names, and errors are those of the client's own text.

use std::sync::Arc;

use keyway::demo::shop::{DATABASE, USER};
use libtest_mimic::Trial;
use tokio_postgres::Client;
use tokio_postgres::error::DbError;

use super::one_phase::start;
use super::{Shards, insert_user};
use crate::harness::wire::{Wire, bind, describe, execute, parse, sync};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, as_db_error, assert_error, connect, error_of, rows,
    run, until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::unnamed::of_one_shard", of_one_shard),
        harness.test("routing::unnamed::of_several_shards", of_several_shards),
        harness.test("routing::unnamed::errors_are_of_the_clients_text", errors_are_of_the_clients_text),
        harness.test("routing::unnamed::generated_and_identity_columns", generated_and_identity_columns),
        harness.test("routing::unnamed::prepared_statements_outlive_columns", prepared_statements),
        harness.test("routing::unnamed::a_stale_catalog_misplaces_nothing", a_stale_catalog),
    ]
}

/// Of the users whose rows are not on their own shard.
async fn misplaced(shards: &Shards<'_>, table: &str) -> Fallible<Vec<String>> {
    let mut found = Vec::new();
    let all = shards.everywhere(&format!("SELECT user_id FROM {table}")).await?;
    for (shard, users) in all.iter().enumerate() {
        for user in users {
            let number: i64 = user.parse()?;
            if shards.user_on(shard, number) != number {
                found.push(format!("{user} on {shard}"));
            }
        }
    }
    Ok(found)
}

async fn of_one_shard(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "unnamed_one").await?;
    let client = shards.client().await?;
    let users: Vec<i64> =
        [0, 1, 0, 1].into_iter().zip([1, 10, 20, 30]).map(|(it, from)| shards.user_on(it, from)).collect();
    let [a, b, c, d] = users[..] else { return Err("four users".into()) };
    let all = "SELECT user_id, n, s FROM unnamed_one WHERE user_id = ";
    // Fewer values than columns leave the rest to their defaults.
    run(&client, &format!("INSERT INTO unnamed_one VALUES ({a}, 1, 'x')")).await?;
    run(&client, &format!("INSERT INTO public.unnamed_one AS t VALUES ({b})")).await?;
    assert_eq!(client.execute("INSERT INTO unnamed_one VALUES ($1, $2, $3)", &[&c, &3i32, &"z"]).await?, 1);
    let upsert = format!(
        "INSERT INTO unnamed_one AS t VALUES ({a}, 5, DEFAULT) ON CONFLICT (user_id) \
         DO UPDATE SET n = t.n + excluded.n RETURNING user_id, n, s"
    );
    assert_eq!(rows(&client, &upsert).await?, [format!("{a}|6|x")]);
    let returned =
        client.query_one("INSERT INTO unnamed_one VALUES ($1, DEFAULT) RETURNING *", &[&d]).await?;
    assert_eq!((returned.get::<_, i64>(0), returned.get::<_, i32>(1)), (d, 7));
    for (user, want) in [(a, "6|x"), (b, "7|NULL"), (c, "3|z"), (d, "7|NULL")] {
        let found = rows(&client, &format!("{all}{user}")).await?;
        assert_eq!(found, [format!("{user}|{want}")]);
    }
    // Several rows and several statements of one shard; a write in WITH; a query for a source; a transaction.
    let (e, f) = (shards.user_on(1, 100), shards.user_on(1, 200));
    let sql = format!("INSERT INTO unnamed_one VALUES ({e}, 1), ({f}, 2) RETURNING n");
    assert_eq!(rows(&client, &sql).await?, ["1", "2"]);
    run(
        &client,
        &format!(
            "INSERT INTO unnamed_one_beside VALUES ({e}, 1, 'é'); INSERT INTO unnamed_one_beside VALUES ({f})"
        ),
    )
    .await?;
    let sql = format!(
        "WITH i AS (INSERT INTO unnamed_one_beside VALUES ({a}, 9, 'with') RETURNING user_id, s) SELECT s FROM i"
    );
    assert_eq!(rows(&client, &sql).await?, ["with"]);
    let sql =
        "INSERT INTO unnamed_one_beside SELECT user_id, n, 'copied' FROM unnamed_one WHERE user_id = $1";
    assert_eq!(client.execute(sql, &[&c]).await?, 1);
    run(&client, "BEGIN").await?;
    run(&client, &format!("INSERT INTO unnamed_one_beside VALUES ({b}, 2, 'kept')")).await?;
    run(&client, "COMMIT").await?;
    let found = rows(&client, "SELECT user_id, n, s FROM unnamed_one_beside ORDER BY user_id").await?;
    let mut want = [(a, "9|with"), (b, "2|kept"), (c, "3|copied"), (e, "1|é"), (f, "NULL|NULL")];
    want.sort_unstable();
    assert_eq!(found, want.iter().map(|it| format!("{}|{}", it.0, it.1)).collect::<Vec<_>>());
    // As pg_dump writes it, and the key not in front.
    run(&client, "SELECT pg_catalog.set_config('search_path', '', false)").await?;
    for n in 0..12 {
        let sql = format!("INSERT INTO public.unnamed_one_pairs VALUES ({n}, 'b{}', {});", n % 3, n % 4);
        run(&client, &sql).await?;
    }
    for n in 0..12 {
        let sql = format!("SELECT n FROM public.unnamed_one_pairs WHERE b = 'b{}' AND a = {}", n % 3, n % 4);
        assert_eq!(rows(&client, &sql).await?, [n.to_string()]);
    }
    for table in ["unnamed_one", "unnamed_one_beside"] {
        assert_eq!(misplaced(&shards, table).await?, [""; 0]);
    }
    for (part, sql) in [
        ("lacks its shard key \"a, b\"", "INSERT INTO public.unnamed_one_pairs VALUES (1, 'b')"),
        ("has no constant", "INSERT INTO public.unnamed_one DEFAULT VALUES"),
        ("has no constant", "INSERT INTO public.unnamed_one VALUES (DEFAULT)"),
        ("has no constant", "INSERT INTO public.unnamed_one SELECT * FROM public.unnamed_one_beside"),
    ] {
        assert_error(&error_of(&client, sql).await?, "0A000", part);
    }
    Ok(())
}

async fn of_several_shards(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "unnamed_many").await?;
    let client = shards.client().await?;
    let users: Vec<i64> = (1..=20).collect();
    let values: Vec<String> = users.iter().map(|it| format!("({it}, {it}, 's{it}')")).collect();
    let insert = format!("INSERT INTO unnamed_many AS m VALUES {} RETURNING m.user_id, s", values.join(", "));
    let want: Vec<String> = users.iter().map(|it| format!("{it}|s{it}")).collect();
    assert_eq!(rows(&client, &insert).await?, want, "in their order");
    assert_eq!(misplaced(&shards, "unnamed_many").await?, [""; 0]);
    assert!(shards.everywhere("SELECT 1 FROM unnamed_many").await?.iter().all(|it| it.len() > 3));
    // Parameters keep their numbers, in each of its forms.
    let sql =
        "INSERT INTO unnamed_many VALUES ($2, $1), ($3, $1), ($4, DEFAULT), ($5, $1) RETURNING user_id, n";
    let statement = client.prepare(sql).await?;
    for round in 1..=2i64 {
        let [a, b, c, d] = [1, 2, 3, 4].map(|it| it + 100 * round);
        let found = client.query(&statement, &[&5i32, &a, &b, &c, &d]).await?;
        let found: Vec<(i64, i32)> = found.iter().map(|it| (it.get(0), it.get(1))).collect();
        assert_eq!(found, [(a, 5), (b, 5), (c, 7), (d, 5)]);
    }
    run(&client, "PREPARE w AS INSERT INTO unnamed_many VALUES ($1, $3, 'y'), ($2, $3, 'x')").await?;
    run(&client, "EXECUTE w (301, 302, 1)").await?;
    run(&client, "EXECUTE w (303, 304, 1)").await?;
    // All of one shard, by the same names.
    let (a, b) = (shards.user_on(0, 400), shards.user_on(0, 410));
    run(&client, &format!("EXECUTE w ({a}, {b}, 2)")).await?;
    let select = "SELECT count(*), sum(n) FROM unnamed_many WHERE user_id > 300";
    assert_eq!(rows(&client, select).await?, ["6|8"]);
    let sql = "INSERT INTO unnamed_many_beside SELECT user_id, n + $1 FROM unnamed_many WHERE user_id < $2";
    assert_eq!(client.execute(sql, &[&1i32, &21i64]).await?, 20);
    for table in ["unnamed_many", "unnamed_many_beside"] {
        assert_eq!(misplaced(&shards, table).await?, [""; 0]);
    }
    assert_eq!(rows(&client, "SELECT sum(n) FROM unnamed_many_beside WHERE s IS NULL").await?, ["230"]);
    // One wrong row, and none is there.
    let error = error_of(&client, "INSERT INTO unnamed_many VALUES (501, 1), (502, 1), (503, 5000)").await?;
    assert_error(&error, "23514", "small");
    assert_eq!(rows(&client, "SELECT 1 FROM unnamed_many WHERE user_id > 500").await?, [""; 0]);
    Ok(())
}

async fn errors_are_of_the_clients_text(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "unnamed_wrong").await?;
    let client = shards.client().await?;
    let direct =
        connect(&shards.shop.shop.url(&shards.shop.shop.shards[0].primary.address().to_string())).await?;
    let (a, b) = (shards.user_on(0, 1), shards.user_on(1, 1));
    let told = |it: &DbError| (it.code().clone(), it.message().to_owned(), it.position().cloned());
    for sql in [
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 'x')"),
        format!("/* é */ INSERT INTO unnamed_wrong AS t VALUES ({a}, 1, 'é', 'more')"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1) RETURNING nothing"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1) ON CONFLICT (nothing) DO NOTHING"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, no_such_function())"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1), ({a}, 'x')"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1), ({b}, 'x')"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1, 'é', 2), ({b}, 2, 'é', 2)"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1), ({b}, 2) RETURNING nothing"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1), ({b}, 2, 'more')"),
        format!(
            "INSERT INTO unnamed_wrong VALUES ({a}, 1); INSERT INTO unnamed_wrong VALUES ({a}, 1, nothing)"
        ),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1, 'x', )"),
    ] {
        let (ours, theirs) = (error_of(&client, &sql).await?, error_of(&direct, &sql).await?);
        assert_eq!(told(&ours), told(&theirs), "{sql}");
        let error = async |it: &Client| as_db_error(it.prepare(&sql).await.expect_err("an error"));
        // As one statement alone can be prepared.
        if !sql.contains(';') {
            assert_eq!(told(&error(&client).await?), told(&error(&direct).await?), "{sql}");
        }
    }
    assert_eq!(shards.everywhere("SELECT 1 FROM unnamed_wrong").await?, [vec![""; 0], vec![]]);
    // In a pipeline each error is of its own statement.
    let pipeline = |sql: &str| {
        let insert = parse("", &format!("INSERT INTO unnamed_wrong VALUES ({a}, 1)"));
        let insert = [insert, bind("", "", &[], false), execute("", 0)].concat();
        [insert, parse("", sql), bind("", "", &[], false), execute("", 0), sync()].concat()
    };
    let mut ours = Wire::log_in(shards.keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let address = shards.shop.shop.shards[0].primary.address().parse()?;
    let mut theirs = Wire::log_in(address, USER, APP_PASSWORD, DATABASE, &[]).await?;
    for sql in [
        format!("SELECT nothing FROM unnamed_wrong WHERE user_id = {a}"),
        format!("INSERT INTO unnamed_wrong VALUES ({a}, 1, nothing)"),
    ] {
        let mut places = Vec::new();
        for wire in [&mut ours, &mut theirs] {
            let answer = wire.ask(&pipeline(&sql), 1).await?;
            let error = answer.iter().find(|it| it.tag == 'E').ok_or("no error")?;
            places.push((error.error(), error.field('P')));
        }
        assert_eq!(places[0], places[1], "{sql}");
        assert!(places[0].1.is_some());
    }
    Ok(())
}

/// With tables of the client's own, whose DDL goes through Keyway.
async fn start_own<'a>(harness: &'a Shared, table: &str, interval: &str) -> Fallible<Shards<'a>> {
    let more = format!(
        "\n[databases.shop]\ncross_shard_writes = \"one_phase\"\ncatalog_interval = \"{interval}\"\n\
         [databases.shop.tables.{table}]\nmap = \"by_user\"\nkey = \"user_id\"\n"
    );
    Shards::start_with(harness, &more).await
}

/// The table, once Keyway knows it: a row is taken.
async fn until_known(client: &Client, insert: &str) -> Outcome {
    until("the catalog has the table", async || Ok(client.simple_query(insert).await.is_ok())).await?;
    Ok(())
}

async fn generated_and_identity_columns(harness: Arc<Shared>) -> Outcome {
    let shards = start_own(&harness, "unnamed_made", "1h").await?;
    let client = shards.client().await?;
    for shard in 0..2 {
        let sql = "CREATE TABLE unnamed_made (gone int, twice bigint GENERATED ALWAYS AS (user_id * 2) STORED, \
                   user_id bigint, number int GENERATED ALWAYS AS IDENTITY, \"S s\" text DEFAULT 'd'); \
                   ALTER TABLE unnamed_made DROP COLUMN gone; GRANT ALL ON unnamed_made TO PUBLIC";
        shards.direct(shard).await?.batch_execute(sql).await?;
    }
    // DDL of anything through Keyway has the catalog read anew.
    run(&client, "CREATE TABLE unnamed_made_other (a int)").await?;
    until_known(&client, "INSERT INTO unnamed_made VALUES (DEFAULT, 0)").await?;
    run(&client, "DELETE FROM unnamed_made").await?;
    let sql = "INSERT INTO unnamed_made VALUES (DEFAULT, 7, DEFAULT, 'x') RETURNING twice, user_id, \"S s\"";
    assert_eq!(rows(&client, sql).await?, ["14|7|x"]);
    let sql =
        "INSERT INTO unnamed_made VALUES (DEFAULT, 8), (DEFAULT, 9), (DEFAULT, 10) RETURNING twice, \"S s\"";
    assert_eq!(rows(&client, sql).await?, ["16|d", "18|d", "20|d"]);
    let sql = "INSERT INTO unnamed_made OVERRIDING USER VALUE VALUES (DEFAULT, $1, 500)";
    assert_eq!(client.execute(sql, &[&11i64]).await?, 1);
    let sql = "INSERT INTO unnamed_made OVERRIDING SYSTEM VALUE VALUES (DEFAULT, $1, 500) RETURNING number";
    assert_eq!(client.query_one(sql, &[&12i64]).await?.get::<_, i32>(0), 500);
    assert_eq!(misplaced(&shards, "unnamed_made").await?, [""; 0]);
    let direct = shards.direct(0).await?;
    for sql in [
        "INSERT INTO unnamed_made VALUES (1, 7)",
        "INSERT INTO unnamed_made VALUES (DEFAULT, 7, 1)",
        "INSERT INTO unnamed_made VALUES (1, 7), (2, 8), (3, 9)",
        "INSERT INTO unnamed_made SELECT 1, 7",
    ] {
        let (ours, theirs) = (error_of(&client, sql).await?, error_of(&direct, sql).await?);
        let told =
            |it: &DbError| (it.code().clone(), it.message().to_owned(), it.detail().map(str::to_owned));
        assert_eq!(told(&ours), told(&theirs), "{sql}");
        assert_eq!(ours.code().code(), "428C9", "{sql}");
    }
    Ok(())
}

/// When columns change, a prepared statement is another one for servers, under the client's name, as PostgreSQL would
/// look at it anew.
async fn prepared_statements(harness: Arc<Shared>) -> Outcome {
    let shards = start_own(&harness, "unnamed_kept", "1h").await?;
    let (client, owner) = (shards.client().await?, shards.client().await?);
    run(&owner, "CREATE TABLE unnamed_kept (n bigint, user_id bigint, s text)").await?;
    until_known(&client, "INSERT INTO unnamed_kept VALUES (0, 1)").await?;
    let sql = "INSERT INTO unnamed_kept VALUES ($1::bigint, $2::bigint)";
    let mut wire = Wire::log_in(shards.keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let statement = client.prepare(sql).await?;
    run(&client, &format!("PREPARE w AS {sql}")).await?;
    let made =
        wire.ask(&[parse("named", sql), parse("", sql), describe('S', "named"), sync()].concat(), 1).await?;
    assert_eq!(made.iter().map(|it| it.tag).collect::<String>(), "11tnZ");
    let both = async |wire: &mut Wire, first: i64, second: i64| {
        assert_eq!(client.execute(&statement, &[&first, &second]).await?, 1);
        run(&client, &format!("EXECUTE w ({first}, {second})")).await?;
        for name in ["named", ""] {
            let values = [first.to_string(), second.to_string()];
            let bound = bind("", name, &[&values[0], &values[1]], false);
            let answer = wire.ask(&[bound, execute("", 0), sync()].concat(), 1).await?;
            let tags: String = answer.iter().map(|it| it.tag).collect();
            assert_eq!(tags, "2CZ", "{name}: {answer:?}");
        }
        Fallible::Ok(())
    };
    for user in [shards.user_on(0, 100), shards.user_on(1, 100)] {
        both(&mut wire, 5, user).await?;
    }
    // The first column is the key's now.
    run(&owner, "ALTER TABLE unnamed_kept DROP COLUMN n, ADD COLUMN n bigint").await?;
    until_known(&client, "INSERT INTO unnamed_kept VALUES (2, 'x', 3)").await?;
    run(&owner, "ALTER TABLE unnamed_kept DROP COLUMN s").await?;
    until("the catalog has two columns", async || {
        Ok(client.simple_query("INSERT INTO unnamed_kept VALUES (3, 4)").await.is_ok())
    })
    .await?;
    for user in [shards.user_on(0, 200), shards.user_on(1, 200)] {
        both(&mut wire, user, 6).await?;
    }
    let counts = "SELECT n, count(*), min(user_id) >= 200 FROM unnamed_kept WHERE user_id >= 100 GROUP BY n ORDER BY n";
    assert_eq!(rows(&client, counts).await?, ["6|8|t", "NULL|8|f"], "what was in the dropped column is gone");
    assert_eq!(misplaced(&shards, "unnamed_kept").await?, [""; 0]);
    Ok(())
}

async fn a_stale_catalog(harness: Arc<Shared>) -> Outcome {
    let shards = start_own(&harness, "unnamed_stale", "1h").await?;
    let client = shards.client().await?;
    run(&client, "CREATE TABLE unnamed_stale (n bigint, user_id bigint, s text)").await?;
    until_known(&client, "INSERT INTO unnamed_stale VALUES (0, 1)").await?;
    let statement = client.prepare("INSERT INTO unnamed_stale VALUES ($1, $2)").await?;
    run(&client, "DELETE FROM unnamed_stale").await?;
    // Behind Keyway's back another column comes to be where the key was.
    for shard in 0..2 {
        let sql =
            "ALTER TABLE unnamed_stale DROP COLUMN user_id, ADD COLUMN user_id bigint, ADD COLUMN m bigint";
        shards.direct(shard).await?.batch_execute(sql).await?;
    }
    for user in 1..=20i64 {
        run(&client, &format!("INSERT INTO unnamed_stale VALUES ({}, {user})", 1000 + user)).await?;
        client.execute(&statement, &[&(2000 + user), &(100 + user)]).await?;
    }
    let many: Vec<String> = (201..=220).map(|it| format!("({it}, {it}, 'x')")).collect();
    run(&client, &format!("INSERT INTO unnamed_stale VALUES {}", many.join(", "))).await?;
    assert_eq!(misplaced(&shards, "unnamed_stale").await?, [""; 0]);
    assert_eq!(rows(&client, "SELECT count(*), min(n) FROM unnamed_stale WHERE n > 0").await?, ["60|201"]);
    for shard in 0..2 {
        shards.direct(shard).await?.batch_execute("ALTER TABLE unnamed_stale DROP COLUMN n").await?;
    }
    let error = error_of(&client, "INSERT INTO unnamed_stale VALUES (5, 301)").await?;
    assert_error(&error, "42703", "\"n\"");
    let error = as_db_error(client.execute(&statement, &[&5i64, &301i64]).await.expect_err("no column"))?;
    assert_error(&error, "42703", "\"n\"");
    let error = error_of(&client, "INSERT INTO unnamed_stale VALUES (1, 301), (2, 302), (3, 303)").await?;
    assert_error(&error, "42703", "\"n\"");
    assert_eq!(rows(&client, "SELECT 1 FROM unnamed_stale WHERE user_id > 300").await?, [""; 0]);
    // The session goes on as before.
    let user = shards.user_on(1, 1_610_000);
    run(&client, &insert_user(user, "stale")).await?;
    Ok(())
}
