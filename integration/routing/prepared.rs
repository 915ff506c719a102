//! Prepared statements of SQL and of the protocol on two shards: one space of names, and each execution where its
//! keys are.

use std::sync::Arc;

use keyway::demo::shop::{DATABASE, USER};
use libtest_mimic::Trial;

use super::{Shards, insert_user};
use crate::harness::wire::{Wire, bind, describe, execute, parse, query, sync};
use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, Shared, assert_error, error_of, rows, run};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::prepared::execute_goes_where_its_keys_are", execute_goes_where_its_keys_are),
        harness.test("routing::prepared::protocols_share_their_names", protocols_share_their_names),
        harness.test("routing::prepared::what_cannot_be_routed_is_refused", what_cannot_be_routed_is_refused),
    ]
}

async fn execute_goes_where_its_keys_are(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let (client, other) = (shards.client().await?, shards.client().await?);
    let users = [shards.user_on(0, 1_510_000), shards.user_on(1, 1_510_000)];
    run(&client, "PREPARE w (bigint, text) AS INSERT INTO users (user_id, name, email, country) VALUES ($1, $2, 'e', 'NL')")
        .await?;
    run(&client, "PREPARE r AS SELECT name, server_port FROM users_here WHERE user_id = $1").await?;
    run(&client, "PREPARE all_of (text) AS SELECT count(*), max(user_id) FROM users WHERE name LIKE $1")
        .await?;
    for (index, user_id) in users.into_iter().enumerate() {
        run(&client, &format!("EXECUTE w ({user_id}, 'executed {index}')")).await?;
        let ports: Vec<String> =
            shards.shop.shop.shards[index].servers().map(|it| it.port().to_string()).collect();
        let found = rows(&client, &format!("EXECUTE r ('{user_id}')")).await?;
        let [(name, port)] = found.iter().filter_map(|it| it.split_once('|')).collect::<Vec<_>>()[..] else {
            panic!("{found:?}")
        };
        assert_eq!(name, format!("executed {index}"));
        assert!(ports.iter().any(|it| it == port), "{port} of {ports:?}");
    }
    let counted = format!("2|{}", users.iter().max().unwrap());
    assert_eq!(rows(&client, "EXECUTE all_of ('executed _')").await?, [counted]);
    assert_eq!(
        shards.everywhere("SELECT name FROM users WHERE name LIKE 'executed _'").await?,
        [["executed 0"], ["executed 1"]]
    );
    // In a transaction, which the PREPARE does not bind to a shard.
    for sql in ["BEGIN", "PREPARE u AS UPDATE users SET email = $2 WHERE user_id = $1"] {
        run(&client, sql).await?;
    }
    run(&client, &format!("EXECUTE u ({}, 'changed')", users[1])).await?;
    let elsewhere = format!("EXECUTE u ({}, 'changed')", users[0]);
    assert_error(&error_of(&client, &elsewhere).await?, "0A000", "two shards");
    run(&client, "ROLLBACK").await?;
    run(&client, &elsewhere).await?;
    assert_eq!(
        shards.everywhere("SELECT email FROM users WHERE name LIKE 'executed _'").await?,
        [["changed"], ["e"]]
    );
    // Names are each client's own, statements everybody's.
    assert_error(&error_of(&other, "EXECUTE r (1)").await?, "26000", "\"r\" does not exist");
    run(&other, "PREPARE r AS SELECT 'other'").await?;
    assert_eq!(rows(&other, "EXECUTE r").await?, ["other"]);
    run(&client, "DEALLOCATE r").await?;
    assert_error(&error_of(&client, "EXECUTE r (1)").await?, "26000", "\"r\" does not exist");
    assert_eq!(rows(&other, "EXECUTE r").await?, ["other"]);
    let metrics = shards.keyway.metrics().await?;
    assert!(!metrics.lines().any(|it| it.starts_with("keyway_pins_total")), "{metrics}");
    Ok(())
}

/// The rows of an answer, columns apart by `|`, or its errors.
async fn told(wire: &mut Wire, bytes: &[u8]) -> Fallible<Vec<String>> {
    let mut told = Vec::new();
    for message in wire.ask(bytes, 1).await? {
        match message.tag {
            'D' => {
                let (mut fields, mut rest) = (Vec::new(), &message.body[2..]);
                while let Some((length, after)) = rest.split_first_chunk::<4>() {
                    let length = i32::from_be_bytes(*length).max(0) as usize;
                    fields.push(String::from_utf8_lossy(&after[..length]).into_owned());
                    rest = &after[length..];
                }
                told.push(fields.join("|"));
            }
            'E' => told.push(message.error()),
            _ => {}
        }
    }
    Ok(told)
}

async fn protocols_share_their_names(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let users = [shards.user_on(0, 1_520_000), shards.user_on(1, 1_520_000)];
    for user_id in users {
        run(&client, &insert_user(user_id, "shared name")).await?;
    }
    let mut wire = Wire::log_in(shards.keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let select = "SELECT user_id FROM users WHERE name = 'shared name' AND user_id = $1";
    assert_eq!(told(&mut wire, &[parse("parsed", select), sync()].concat()).await?, [""; 0]);
    assert_eq!(told(&mut wire, &query(&format!("PREPARE by_sql (bigint) AS {select}"))).await?, [""; 0]);
    for user_id in users.map(|it| it.to_string()) {
        for name in ["parsed", "by_sql"] {
            let by_sql = query(&format!("EXECUTE {name} ({user_id})"));
            assert_eq!(told(&mut wire, &by_sql).await?, [user_id.as_str()], "{name}, simple");
            let bound = bind("", name, &[user_id.as_str()], false);
            let bound = [bound, describe('P', ""), execute("", 0), sync()].concat();
            assert_eq!(told(&mut wire, &bound).await?, [user_id.as_str()], "{name}, bound");
            let by_parse = parse("", &format!("EXECUTE {name} ('{user_id}')"));
            let by_parse = [by_parse, bind("", "", &[], false), execute("", 0), sync()].concat();
            assert_eq!(told(&mut wire, &by_parse).await?, [user_id.as_str()], "{name}, EXECUTE by Parse");
        }
    }
    // All shards, merged, whoever made the statement and whoever runs it.
    let counts = "SELECT count(*) FROM users WHERE name = $1";
    assert_eq!(told(&mut wire, &[parse("counts", counts), sync()].concat()).await?, [""; 0]);
    assert_eq!(told(&mut wire, &query("EXECUTE counts ('shared name')")).await?, ["2"]);
    assert_eq!(told(&mut wire, &query(&format!("PREPARE more AS {counts}"))).await?, [""; 0]);
    let bound = [bind("", "more", &["shared name"], false), execute("", 0), sync()].concat();
    assert_eq!(told(&mut wire, &bound).await?, ["2"]);
    // DEALLOCATE and Close take the names of both.
    for (gone, name) in [(query("DEALLOCATE parsed"), "parsed"), (query("DEALLOCATE ALL"), "more")] {
        assert_eq!(told(&mut wire, &gone).await?, [""; 0]);
        let error = format!("26000 prepared statement \"{name}\" does not exist");
        assert_eq!(told(&mut wire, &query(&format!("EXECUTE {name} (1)"))).await?, [error.as_str()]);
        let bound = [bind("", name, &["1"], false), sync()].concat();
        assert_eq!(told(&mut wire, &bound).await?, [error.as_str()]);
    }
    Ok(())
}

async fn what_cannot_be_routed_is_refused(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    run(&client, "PREPARE p AS SELECT name FROM users WHERE user_id = $1").await?;
    run(&client, "PREPARE hinted AS SELECT count(*) FROM users WHERE user_id <= 100 /* keyway: shard=s1 */")
        .await?;
    for (state, told, sql) in [
        ("0A000", "no constant", "EXECUTE p (1 + 1)"),
        ("0A000", "no constant", "EXECUTE p ((SELECT pg_advisory_lock(1))::text::bigint)"),
        ("42601", "wrong number of parameters", "EXECUTE p"),
        ("0A000", "inside of another statement", "EXPLAIN EXECUTE p (1)"),
        ("0A000", "inside of another statement", "CREATE TABLE made AS EXECUTE p (1)"),
        ("0A000", "hint beside EXECUTE", "/* keyway: shard=s1 */ EXECUTE p (1)"),
        ("0A000", "hint in front of PREPARE", "/* keyway: shard=s1 */ PREPARE q AS SELECT 1"),
        ("0A000", "not built in", "PREPARE q (mood) AS SELECT $1"),
        ("0A000", "must name its shard key", "PREPARE q AS DELETE FROM users"),
        ("42P05", "already exists", "PREPARE p AS SELECT 1"),
        ("42703", "nothing", "PREPARE q AS SELECT nothing FROM users WHERE user_id = $1"),
        ("26000", "does not exist", "EXECUTE q (1)"),
    ] {
        match error_of(&client, sql).await {
            Ok(error) => {
                assert_eq!(error.code().code(), state, "{sql}: {error:?}");
                assert!(error.message().contains(told), "{sql}: {error:?}");
            }
            // A write of all shards is refused when it runs.
            Err(_) if told == "must name its shard key" => {
                assert_error(&error_of(&client, "EXECUTE q").await?, state, told);
                run(&client, "DEALLOCATE q").await?;
            }
            Err(error) => return Err(format!("{sql}: {error}").into()),
        }
    }
    let there = shards.everywhere("SELECT count(*) FROM users WHERE user_id <= 100").await?;
    assert_eq!(rows(&client, "EXECUTE hinted").await?, there[0]);
    Ok(())
}
