//! Hints that say where a statement goes, and EXPLAIN (KEYWAY), which says where it would.

use std::sync::Arc;

use libtest_mimic::Trial;

use super::{Shards, insert_user};
use crate::harness::{Harness, Outcome, Shared, assert_error, error_of, rows, run, until};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::hints::a_comment_names_the_place", a_comment_names_the_place),
        harness.test("routing::hints::a_session_names_the_place", a_session_names_the_place),
        harness.test("routing::hints::wrong_ones_are_errors", wrong_ones_are_errors),
        harness.test("routing::hints::explain_answers_with_rows", explain_answers_with_rows),
    ]
}

async fn a_comment_names_the_place(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let users = [shards.user_on(0, 1_070_000), shards.user_on(1, 1_070_000)];
    for user_id in users {
        run(&client, &insert_user(user_id, "hinted")).await?;
    }
    for (index, user_id) in users.into_iter().enumerate() {
        let name = &shards.shop.shop.shards[index].name;
        let select = "SELECT user_id FROM users WHERE name = 'hinted'";
        for hint in
            [format!("shard={name}"), format!("key={user_id}"), format!("map=by_user key='{user_id}'")]
        {
            let sql = format!("/* keyway: {hint} */ {select}");
            assert_eq!(rows(&client, &sql).await?, [user_id.to_string()], "{hint}");
            let sql = format!("{select} /* keyway: {hint} */ AND user_id > $1");
            let found = client.query(&sql, &[&0i64]).await?;
            assert_eq!(found.iter().map(|it| it.get(0)).collect::<Vec<i64>>(), [user_id], "{hint}, extended");
        }
        // What no merge can do, one shard can.
        let window = format!("/* keyway: shard={name} */ SELECT row_number() OVER () FROM users LIMIT 1");
        assert_eq!(rows(&client, &window).await?, ["1"]);
        let write = format!("/* keyway: shard={name} */ UPDATE users SET email = 'h' WHERE name = 'hinted'");
        run(&client, &write).await?;
        let changed =
            shards.everywhere("SELECT count(*) FROM users WHERE name = 'hinted' AND email = 'h'").await?;
        assert_eq!(changed.concat().iter().filter(|it| **it == "1").count(), index + 1);
    }
    // DDL on one shard is seen there alone.
    let name = &shards.shop.shop.shards[1].name;
    run(&client, &format!("/* keyway: shard={name} */ CREATE TABLE hinted_only (a int)")).await?;
    let there = shards.everywhere("SELECT to_regclass('hinted_only') IS NOT NULL").await?;
    assert_eq!(there, [["f"], ["t"]]);
    // A table that is not listed is where the hint says.
    let unlisted = format!("/* keyway: shard={name} */ INSERT INTO hinted_only VALUES (7)");
    run(&client, &unlisted).await?;
    let unlisted = format!("/* keyway: shard={name} */ SELECT a FROM hinted_only");
    assert_eq!(rows(&client, &unlisted).await?, ["7"]);
    let port = format!("SELECT server_port FROM users_here WHERE user_id = {}", users[0]);
    let primary = [shards.shop.shop.shards[0].primary.port().to_string()];
    let other = shards.client().await?;
    until("a read on a replica", async || {
        Ok(rows(&other, &format!("/* keyway: role=replica */ {port}")).await? != primary)
    })
    .await?;
    assert_eq!(rows(&other, &format!("/* keyway: role=primary */ {port}")).await?, primary);
    Ok(())
}

async fn a_session_names_the_place(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let users = [shards.user_on(0, 1_080_000), shards.user_on(1, 1_080_000)];
    for user_id in users {
        run(&client, &insert_user(user_id, "set")).await?;
    }
    let select = "SELECT user_id FROM users WHERE name = 'set' ORDER BY user_id";
    let mut all = users;
    all.sort_unstable();
    let all = all.map(|it| it.to_string());
    assert_eq!(rows(&client, select).await?, all);
    run(&client, &format!("SET keyway.shard = '{}'", shards.shop.shop.shards[1].name)).await?;
    assert_eq!(rows(&client, select).await?, [users[1].to_string()]);
    assert_eq!(rows(&client, "SHOW keyway.shard").await?, [shards.shop.shop.shards[1].name.clone()]);
    run(&client, "RESET keyway.shard").await?;
    assert_eq!(rows(&client, select).await?, all);
    // In a transaction, where it ends with it, and with its savepoint.
    run(&client, "BEGIN").await?;
    run(&client, &format!("SET LOCAL keyway.key = {}", users[0])).await?;
    assert_eq!(rows(&client, select).await?, [users[0].to_string()]);
    run(&client, "COMMIT").await?;
    assert_eq!(rows(&client, select).await?, all);
    // The session names the key, and each statement the map of it, here against the session's own.
    run(&client, &format!("SET keyway.key = '{}'", users[1])).await?;
    run(&client, "SET keyway.map = 'by_time'").await?;
    let of_map = format!("/* keyway: map=by_user */ {select}");
    assert_eq!(rows(&client, &of_map).await?, [users[1].to_string()]);
    assert_error(&error_of(&client, "/* keyway: map=s9 */ SELECT 1").await?, "22023", "does not exist");
    run(&client, "RESET keyway.map").await?;
    assert_eq!(rows(&client, &of_map).await?, [users[1].to_string()]);
    run(&client, "RESET keyway.key").await?;
    run(&client, "SELECT set_config('keyway.role', 'primary', false)").await?;
    let port = format!("SELECT server_port FROM users_here WHERE user_id = {}", users[0]);
    let primary = [shards.shop.shop.shards[0].primary.port().to_string()];
    for _ in 0..5 {
        assert_eq!(rows(&client, &port).await?, primary);
    }
    run(&client, "SET keyway.role = replica").await?;
    until("a read on a replica", async || Ok(rows(&client, &port).await? != primary)).await?;
    assert_error(&error_of(&client, &insert_user(users[0] + 1, "never")).await?, "25006", "replica");
    run(&client, "RESET ALL").await?;
    // Another session knows nothing of it.
    run(&client, &format!("SET keyway.shard = '{}'", shards.shop.shop.shards[0].name)).await?;
    assert_eq!(rows(&shards.client().await?, select).await?, all);
    Ok(())
}

async fn wrong_ones_are_errors(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (user_id, name) = (shards.user_on(0, 1_090_000), &shards.shop.shop.shards[1].name);
    for (state, told, sql) in [
        ("22023", "does not exist", "/* keyway: shard=s9 */ SELECT 1".to_owned()),
        ("22023", "does not exist", "/* keyway: map=s9 key=1 */ SELECT 1".to_owned()),
        ("22023", "unrecognized", "/* keyway: shards=s1 */ SELECT 1".to_owned()),
        ("22023", "malformed", "/* keyway: s1 */ SELECT 1".to_owned()),
        ("22023", "invalid role", "/* keyway: role=standby */ SELECT 1".to_owned()),
        ("22023", "map", "/* keyway: key=1 */ SELECT 1".to_owned()),
        ("22023", "no key", "/* keyway: map=by_user */ SELECT 1".to_owned()),
        ("22023", "no key", format!("/* keyway: map=by_user shard={name} */ SELECT 1")),
        ("22P02", "bigint", "/* keyway: map=by_user key=x */ SELECT 1".to_owned()),
        (
            "22023",
            "contradicts",
            format!("/* keyway: shard={name} */ SELECT FROM users WHERE user_id = {user_id}"),
        ),
        ("22023", "contradicts", format!("/* keyway: shard={name} */ {}", insert_user(user_id, "never"))),
        ("22023", "reference table", format!("/* keyway: shard={name} */ DELETE FROM countries")),
        ("25006", "replica", "/* keyway: role=replica */ DELETE FROM users WHERE user_id = 1".to_owned()),
        ("22023", "does not exist", "SET keyway.shard = 's9'".to_owned()),
        ("22023", "does not exist", "SELECT set_config('keyway.shard', 's9', false)".to_owned()),
        ("22023", "unrecognized", "SET keyway.shards = 's1'".to_owned()),
    ] {
        let error = error_of(&client, &sql).await.map_err(|error| format!("{sql}: {error}"))?;
        assert_eq!(error.code().code(), state, "{sql}: {error:?}");
        assert!(error.message().contains(told), "{sql}: {error:?}");
    }
    run(&client, "BEGIN").await?;
    run(&client, &insert_user(user_id, "never")).await?;
    assert_eq!(rows(&client, &format!("/* keyway: shard={name} */ SELECT 1")).await?, ["1"]);
    let elsewhere = format!("/* keyway: shard={name} */ SELECT name FROM users FOR UPDATE");
    assert_error(&error_of(&client, &elsewhere).await?, "0A000", "two shards");
    run(&client, "ROLLBACK").await?;
    assert_eq!(shards.everywhere("SELECT 1 FROM users WHERE name = 'never'").await?, [vec![""; 0], vec![]]);
    Ok(())
}

async fn explain_answers_with_rows(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let user_id = shards.user_on(1, 1_095_000);
    let name = &shards.shop.shop.shards[1].name;
    let one = format!("EXPLAIN (KEYWAY) SELECT name FROM users WHERE user_id = {user_id}");
    let told = rows(&client, &one).await?;
    assert_eq!(told[0], format!("shards:  {name}"), "{told:?}");
    assert!(told.iter().any(|it| it == "role:    replica"), "{told:?}");
    let falls_back = "else:    the primary, while no replica is fresh enough";
    assert!(told.iter().any(|it| it == falls_back), "{told:?}");
    let hinted = rows(&client, &format!("{one} /* keyway: role=replica */")).await?;
    assert!(hinted.iter().any(|it| it == falls_back), "{hinted:?}");
    let hinted = rows(&client, &format!("{one} /* keyway: role=primary */")).await?;
    assert!(!hinted.iter().any(|it| it == falls_back), "{hinted:?}");
    assert!(told.iter().any(|it| it.starts_with("key:     users.user_id")), "{told:?}");
    let prepared: Vec<String> = client.query(&one, &[]).await?.iter().map(|it| it.get(0)).collect();
    assert_eq!(prepared, told);
    let merged = "EXPLAIN (KEYWAY) SELECT country, count(*) FROM users GROUP BY country ORDER BY 2 LIMIT 3";
    let told = rows(&client, merged).await?;
    assert!(told.iter().any(|it| it == "mode:    merge"), "{told:?}");
    assert!(told.iter().any(|it| it.starts_with("merge:   groups by 1 keys")), "{told:?}");
    let sorted = "EXPLAIN (KEYWAY) SELECT name FROM users ORDER BY user_id LIMIT 3";
    let told = rows(&client, sorted).await?;
    assert!(told.iter().any(|it| it.starts_with("pushed:  SELECT name")), "{told:?}");
    let refused = rows(&client, "EXPLAIN (KEYWAY) DELETE FROM users").await?;
    assert!(refused[0].starts_with("refused: "), "{refused:?}");
    assert!(refused.iter().any(|it| it == "reason:  multi_shard_write"), "{refused:?}");
    // Nothing of it has run.
    assert_eq!(rows(&client, "SELECT count(*) > 0 FROM users").await?, ["t"]);
    Ok(())
}
