//! Cursors over several shards, and over one of them in a transaction that has several.

use std::sync::Arc;

use libtest_mimic::Trial;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Shards, insert_user};
use crate::harness::wire::{Message, bind, close, describe, execute, flush, parse, query, sync};
use crate::harness::{Fallible, Harness, Outcome, Shared, assert_error, error_of, rows, run};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::cursors::rows_come_as_they_are_fetched", fetched),
        harness.test("routing::cursors::in_both_protocols", both_protocols),
        harness.test("routing::cursors::what_is_refused", refused),
        harness.test("routing::cursors::savepoints_end_them", savepoints),
        harness.test("routing::cursors::each_is_where_it_was_declared", places),
        harness.test("routing::cursors::many_rows", many_rows),
        harness.test("routing::cursors::portals_are_read_in_parts", portals),
        harness.test("routing::cursors::portals_end_as_in_postgresql", portal_ends),
        harness.test("routing::cursors::begin_comes_along", begin_ahead),
    ]
}

/// So many users under one name, over both shards; their ids in order.
async fn users(shards: &Shards<'_>, from: i64, count: i64, name: &str) -> Fallible<Vec<String>> {
    let client = shards.client().await?;
    for id in from..from + count {
        run(&client, &insert_user(id, name)).await?;
    }
    Ok((from..from + count).map(|it| it.to_string()).collect())
}

/// The number that the command tag has.
async fn told(client: &Client, sql: &str) -> Fallible<u64> {
    let messages = run(client, sql).await?;
    let tag = messages.iter().find_map(|it| match it {
        SimpleQueryMessage::CommandComplete(count) => Some(*count),
        _ => None,
    });
    tag.ok_or_else(|| "no command tag".into())
}

fn declare(cursor: &str, name: &str) -> String {
    format!("DECLARE {cursor} CURSOR FOR SELECT user_id FROM users WHERE name = '{name}' ORDER BY user_id")
}

async fn fetched(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let ids = users(&shards, 1_500_000, 20, "cursor_fetched").await?;
    let client = shards.client().await?;
    run(&client, "BEGIN").await?;
    run(&client, &declare("c", "cursor_fetched")).await?;
    assert_eq!(rows(&client, "FETCH 3 FROM c").await?, ids[..3]);
    // Statements in between use the same servers.
    let count = "SELECT count(*) FROM users WHERE name = 'cursor_fetched'";
    assert_eq!(rows(&client, count).await?, ["20"]);
    assert_eq!(rows(&client, "FETCH c").await?, ids[3..4]);
    run(&client, &insert_user(1_500_050, "cursor_fetched")).await?;
    assert_eq!(rows(&client, count).await?, ["21"]);
    assert_eq!(told(&client, "MOVE 4 IN c").await?, 4);
    assert_eq!(rows(&client, "FETCH FORWARD 2 FROM c").await?, ids[8..10]);
    assert_eq!(rows(&client, "FETCH ALL IN c").await?, ids[10..], "without what was inserted since");
    assert_eq!(rows(&client, "FETCH 5 FROM c").await?, [""; 0]);
    assert_eq!(told(&client, "MOVE ALL FROM c").await?, 0);
    run(&client, "CLOSE c").await?;
    run(&client, &declare("c", "cursor_fetched")).await?;
    assert_eq!(told(&client, "FETCH ALL FROM c").await?, 21);
    run(&client, "ROLLBACK").await?;
    assert_eq!(rows(&client, count).await?, ["20"]);
    for server in shards
        .everywhere("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'FETCH%' AND state <> 'idle'")
        .await?
    {
        assert_eq!(server, ["0"]);
    }

    // Groups, distinct rows, limits: what the merge does it does batch by batch.
    run(&client, "BEGIN").await?;
    run(
        &client,
        "DECLARE g NO SCROLL CURSOR FOR SELECT user_id % 4, count(*) FROM users \
         WHERE name = 'cursor_fetched' GROUP BY 1 ORDER BY 1",
    )
    .await?;
    run(
        &client,
        "DECLARE l CURSOR WITHOUT HOLD FOR SELECT user_id FROM users WHERE name = 'cursor_fetched' \
         ORDER BY user_id LIMIT 5 OFFSET 2",
    )
    .await?;
    assert_eq!(rows(&client, "FETCH 2 FROM g").await?, ["0|5", "1|5"]);
    assert_eq!(rows(&client, "FETCH 4 FROM l").await?, ids[2..6]);
    assert_eq!(rows(&client, "FETCH 9 FROM g").await?, ["2|5", "3|5"]);
    assert_eq!(rows(&client, "FETCH NEXT FROM l").await?, ids[6..7]);
    assert_eq!(rows(&client, "FETCH NEXT FROM l").await?, [""; 0]);
    run(&client, "CLOSE ALL").await?;
    assert_error(&error_of(&client, "FETCH g").await?, "34000", "\"g\"");
    run(&client, "ROLLBACK").await?;
    Ok(())
}

async fn both_protocols(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let ids = users(&shards, 1_501_000, 10, "cursor_extended").await?;
    let mut client = shards.client().await?;
    let transaction = client.transaction().await?;
    let declare =
        "DECLARE c CURSOR FOR SELECT user_id, name FROM users WHERE name = $1 ORDER BY user_id DESC";
    assert_eq!(transaction.execute(declare, &[&"cursor_extended"]).await?, 0);
    let fetch = transaction.prepare("FETCH 4 FROM c").await?;
    assert_eq!(fetch.columns().iter().map(|it| it.name()).collect::<Vec<_>>(), ["user_id", "name"]);
    let mut found = Vec::new();
    loop {
        let rows = transaction.query(&fetch, &[]).await?;
        if rows.is_empty() {
            break;
        }
        assert!(rows.len() <= 4);
        found.extend(rows.iter().map(|it| it.get::<_, i64>(0).to_string()));
        let one =
            transaction.query_one("SELECT name FROM users WHERE user_id = $1", &[&1_501_003i64]).await?;
        assert_eq!(one.get::<_, &str>(0), "cursor_extended");
    }
    found.reverse();
    assert_eq!(found, ids);
    transaction.execute("CLOSE c", &[]).await?;
    transaction.execute(declare, &[&"cursor_extended"]).await?;
    assert_eq!(transaction.execute("MOVE 7 IN c", &[]).await?, 7);
    assert_eq!(transaction.query("FETCH ALL FROM c", &[]).await?.len(), 3);
    transaction.commit().await?;
    assert_eq!(rows(&client, "SELECT 1").await?, ["1"]);
    Ok(())
}

async fn refused(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    users(&shards, 1_502_000, 4, "cursor_refused").await?;
    let client = shards.client().await?;
    assert_error(&error_of(&client, &declare("c", "cursor_refused")).await?, "25P01", "transaction blocks");
    let declaring = [
        ("0A000", "SCROLL", declare("c", "x").replace("CURSOR", "SCROLL CURSOR")),
        ("0A000", "WITH HOLD", declare("c", "x").replace("CURSOR", "CURSOR WITH HOLD")),
        ("0A000", "FOR UPDATE", "DECLARE c CURSOR FOR SELECT name FROM users FOR UPDATE".to_owned()),
        ("42703", "no_such", "DECLARE c CURSOR FOR SELECT no_such FROM users".to_owned()),
    ];
    for (state, part, sql) in &declaring {
        run(&client, "BEGIN").await?;
        assert_error(&error_of(&client, sql).await?, state, part);
        assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
        run(&client, "ROLLBACK").await?;
    }
    for sql in [
        "FETCH BACKWARD 1 FROM c",
        "FETCH PRIOR FROM c",
        "FETCH -2 FROM c",
        "FETCH 0 FROM c",
        "FETCH LAST FROM c",
        "FETCH ABSOLUTE 2 FROM c",
        "MOVE BACKWARD ALL IN c",
        "FETCH c; SELECT 1",
    ] {
        run(&client, "BEGIN").await?;
        run(&client, &declare("c", "cursor_refused")).await?;
        assert_eq!(rows(&client, "FETCH 1 FROM c").await?.len(), 1);
        assert_error(&error_of(&client, sql).await?, "0A000", "cursor");
        run(&client, "ROLLBACK").await?;
    }
    run(&client, "BEGIN").await?;
    run(&client, &declare("c", "cursor_refused")).await?;
    assert_error(&error_of(&client, &declare("c", "cursor_refused")).await?, "42P03", "\"c\" already exists");
    run(&client, "ROLLBACK").await?;
    run(&client, "BEGIN").await?;
    run(&client, &declare("c", "cursor_refused")).await?;
    run(&client, "COMMIT").await?;
    run(&client, "BEGIN").await?;
    assert_error(&error_of(&client, "FETCH 1 FROM c").await?, "34000", "\"c\" does not exist");
    run(&client, "ROLLBACK").await?;
    run(&client, "BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    assert_error(&error_of(&client, &declare("c", "x")).await?, "0A000", "REPEATABLE READ");
    run(&client, "ROLLBACK").await?;
    Ok(())
}

async fn savepoints(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let ids = users(&shards, 1_503_000, 6, "cursor_save").await?;
    let client = shards.client().await?;
    run(&client, "BEGIN").await?;
    run(&client, &declare("outer_one", "cursor_save")).await?;
    assert_eq!(rows(&client, "FETCH 1 FROM outer_one").await?, ids[..1]);
    run(&client, "SAVEPOINT s").await?;
    run(&client, &declare("inner_one", "cursor_save")).await?;
    assert_eq!(rows(&client, "FETCH 2 FROM inner_one").await?, ids[..2]);
    assert_eq!(rows(&client, "FETCH 2 FROM outer_one").await?, ids[1..3]);
    run(&client, "ROLLBACK TO s").await?;
    assert_eq!(rows(&client, "FETCH 1 FROM outer_one").await?, ids[3..4], "its place is kept");
    assert_error(&error_of(&client, "FETCH 1 FROM inner_one").await?, "34000", "inner_one");
    run(&client, "ROLLBACK TO s").await?;
    run(&client, &declare("inner_one", "cursor_save")).await?;
    run(&client, "RELEASE s").await?;
    assert_eq!(rows(&client, "FETCH ALL FROM inner_one").await?, ids);
    // One that has failed stays so.
    let fails = "DECLARE f CURSOR FOR SELECT 1 / (user_id - 1503004) FROM users WHERE name = 'cursor_save' \
                 ORDER BY user_id";
    run(&client, fails).await?;
    run(&client, "SAVEPOINT t").await?;
    assert_error(&error_of(&client, "FETCH ALL FROM f").await?, "22012", "division");
    assert_error(&error_of(&client, "FETCH 1 FROM outer_one").await?, "25P02", "aborted");
    run(&client, "ROLLBACK TO t").await?;
    assert_error(&error_of(&client, "FETCH 1 FROM f").await?, "55000", "cannot be run");
    run(&client, "ROLLBACK TO t").await?;
    assert_eq!(rows(&client, "FETCH ALL FROM outer_one").await?, ids[4..]);
    run(&client, "COMMIT").await?;
    Ok(())
}

async fn places(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let (a, b) = (shards.user_on(0, 1_504_000), shards.user_on(1, 1_504_000));
    let client = shards.client().await?;
    for id in [a, b] {
        run(&client, &insert_user(id, "cursor_place")).await?;
    }
    let one = |cursor: &str, id: i64| {
        format!(
            "DECLARE {cursor} CURSOR FOR SELECT user_id, g FROM users, generate_series(1, 3) AS g WHERE user_id = {id}"
        )
    };
    run(&client, "BEGIN").await?;
    run(&client, &one("on_a", a)).await?;
    run(&client, &one("on_b", b)).await?;
    run(&client, &declare("on_both", "cursor_place")).await?;
    for round in 1..=2 {
        assert_eq!(rows(&client, "FETCH 1 FROM on_b").await?, [format!("{b}|{round}")]);
        assert_eq!(rows(&client, "FETCH 1 FROM on_a").await?, [format!("{a}|{round}")]);
        assert_eq!(rows(&client, "FETCH 1 FROM on_both").await?.len(), 1);
    }
    for (cursor, again) in
        [("on_a", &one("on_a", b)), ("on_b", &one("on_b", b)), ("on_b", &declare("on_b", "x"))]
    {
        run(&client, "SAVEPOINT s").await?;
        assert_error(&error_of(&client, again).await?, "42P03", cursor);
        run(&client, "ROLLBACK TO s").await?;
    }
    run(&client, "CLOSE on_b").await?;
    run(&client, &declare("on_b", "cursor_place")).await?;
    assert_eq!(rows(&client, "FETCH ALL FROM on_b").await?.len(), 2);
    run(&client, "COMMIT").await?;
    Ok(())
}

/// More than a batch, of rows narrow and wide.
async fn many_rows(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    users(&shards, 1_505_000, 6, "cursor_many").await?;
    let client = shards.client().await?;
    for (width, count) in [(1, 30_000), (100_000, 300)] {
        run(&client, "BEGIN").await?;
        run(
            &client,
            &format!(
                "DECLARE c CURSOR FOR SELECT user_id, g, repeat('x', {width}) FROM users, \
                 generate_series(1, {count}) AS g WHERE name = 'cursor_many' ORDER BY g, user_id"
            ),
        )
        .await?;
        let (mut seen, mut last) = (0, (0, 0));
        loop {
            let some = rows(&client, "FETCH FORWARD 977 FROM c").await?;
            if some.is_empty() {
                break;
            }
            for row in some {
                let mut columns = row.split('|');
                let id: i64 = columns.next().unwrap().parse()?;
                let g: i64 = columns.next().unwrap().parse()?;
                assert!((g, id) > last, "in order");
                last = (g, id);
                seen += 1;
            }
        }
        assert_eq!(seen, 6 * count);
        run(&client, "COMMIT").await?;
    }
    Ok(())
}

async fn portals(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let ids = users(&shards, 1_506_000, 20, "portal_parts").await?;
    let mut client = shards.client().await?;
    let transaction = client.transaction().await?;
    let query = "SELECT user_id, name FROM users WHERE name = $1 ORDER BY user_id";
    let portal = transaction.bind(query, &[&"portal_parts"]).await?;
    let backwards = format!("{query} DESC");
    let other = transaction.bind(&backwards, &[&"portal_parts"]).await?;
    let (mut found, mut found_backwards) = (Vec::new(), Vec::new());
    for count in [7, 7, 6] {
        for row in transaction.query_portal(&portal, count).await? {
            found.push(row.get::<_, i64>(0).to_string());
        }
        let one =
            transaction.query_one("SELECT name FROM users WHERE user_id = $1", &[&1_506_003i64]).await?;
        assert_eq!(one.get::<_, &str>(0), "portal_parts");
        for row in transaction.query_portal(&other, 3).await? {
            found_backwards.push(row.get::<_, i64>(0).to_string());
        }
    }
    assert_eq!(found, ids);
    assert!(transaction.query_portal(&portal, 5).await?.is_empty());
    assert_eq!(transaction.query_portal(&other, 0).await?.len(), 11);
    found_backwards.reverse();
    assert_eq!(found_backwards, ids[11..]);
    drop((portal, other));
    transaction.execute("UPDATE users SET email = 'kept' WHERE user_id = 1506001", &[]).await?;
    transaction.commit().await?;
    assert_eq!(rows(&client, "SELECT email FROM users WHERE user_id = 1506001").await?, ["kept"]);
    for server in shards.everywhere("SELECT count(*) FROM pg_cursors").await? {
        assert_eq!(server, ["0"]);
    }
    Ok(())
}

fn tags(messages: &[Message]) -> String {
    messages.iter().map(|it| it.tag).collect()
}

async fn portal_ends(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    users(&shards, 1_507_000, 6, "portal_ends").await?;
    let mut wire = shards.wire().await?;
    wire.ask(&query("BEGIN"), 1).await?;
    let sql = "SELECT user_id FROM users WHERE name = 'portal_ends' ORDER BY user_id";
    let bound = |portal: &str| [parse("", sql), bind(portal, "", &[], false)].concat();
    // Bind alone; then rows, which stop at a limit even where it is that of all of them.
    assert_eq!(tags(&wire.ask(&[bound("p"), sync()].concat(), 1).await?), "12Z");
    assert_eq!(tags(&wire.ask(&[describe('P', "p"), sync()].concat(), 1).await?), "TZ");
    assert_eq!(tags(&wire.ask(&[execute("p", 4), sync()].concat(), 1).await?), "DDDDsZ");
    assert_eq!(tags(&wire.ask(&[describe('P', "p"), execute("p", 2), sync()].concat(), 1).await?), "TDDsZ");
    let last = wire.ask(&[execute("p", 2), sync()].concat(), 1).await?;
    assert_eq!((tags(&last).as_str(), &last[0].body[..]), ("CZ", &b"SELECT 0\0"[..]));
    // With Flush in place of Sync, as node-postgres has its cursors.
    wire.send(&[bound("f"), describe('P', "f"), flush()].concat()).await?;
    assert_eq!(tags(&wire.until('T').await?), "12T");
    wire.send(&[execute("f", 5), flush()].concat()).await?;
    assert_eq!(tags(&wire.until('s').await?), "DDDDDs");
    wire.send(&[execute("f", 5), flush()].concat()).await?;
    assert_eq!(tags(&wire.until('C').await?), "DC");
    assert_eq!(tags(&wire.ask(&[close('P', "f"), sync()].concat(), 1).await?), "3Z");
    // The name is taken, of a portal and of a cursor alike; Close frees it, alone or in front of what comes next.
    let taken = wire.ask(&[bound("p"), sync()].concat(), 1).await?;
    assert_error_message(&taken, "42P03", "\"p\" already exists");
    wire.ask(&query("ROLLBACK"), 1).await?;
    wire.ask(&query("BEGIN"), 1).await?;
    assert_eq!(tags(&wire.ask(&[bound("p"), execute("p", 1), sync()].concat(), 1).await?), "12DsZ");
    assert_eq!(wire.rows("FETCH 2 FROM p").await?, ["1507001", "1507002"]);
    let one = "SELECT name FROM users WHERE user_id = 1507003";
    let next = [close('P', "p"), parse("", one), bind("", "", &[], false), execute("", 0), sync()].concat();
    assert_eq!(tags(&wire.ask(&next, 1).await?), "312DCZ");
    assert_eq!(tags(&wire.ask(&[bound("p"), execute("p", 0), sync()].concat(), 1).await?), "12DDDDDDCZ");
    assert_eq!(tags(&wire.ask(&[close('P', "p"), sync()].concat(), 1).await?), "3Z");
    let gone = wire.ask(&[execute("p", 1), sync()].concat(), 1).await?;
    assert_error_message(&gone, "34000", "\"p\" does not exist");
    // An error of its rows, behind a Flush: all is skipped up to Sync.
    wire.ask(&query("ROLLBACK"), 1).await?;
    wire.ask(&query("BEGIN"), 1).await?;
    let fails = "SELECT 1 / (user_id - 1507004) FROM users WHERE name = 'portal_ends' ORDER BY user_id";
    wire.send(&[parse("", fails), bind("e", "", &[], false), execute("e", 2), flush()].concat()).await?;
    let failed = wire.until('E').await?;
    assert_error_message(&failed, "22012", "division by zero");
    let skipped = wire.ask(&[execute("e", 1), flush(), sync()].concat(), 1).await?;
    assert_eq!((tags(&skipped).as_str(), &skipped[0].body[..]), ("Z", &b"E"[..]));
    wire.ask(&query("ROLLBACK"), 1).await?;
    // It ends with its transaction, and with the savepoint that it was bound behind.
    wire.ask(&query("BEGIN"), 1).await?;
    wire.ask(&[bound("outer"), execute("outer", 1), sync()].concat(), 1).await?;
    wire.ask(&query("SAVEPOINT s"), 1).await?;
    wire.ask(&[bound("late"), execute("late", 1), sync()].concat(), 1).await?;
    wire.ask(&query("ROLLBACK TO s"), 1).await?;
    assert_eq!(tags(&wire.ask(&[execute("outer", 1), sync()].concat(), 1).await?), "DsZ");
    let gone = wire.ask(&[execute("late", 1), sync()].concat(), 1).await?;
    assert_error_message(&gone, "34000", "\"late\" does not exist");
    wire.ask(&query("ROLLBACK"), 1).await?;
    wire.ask(&query("BEGIN"), 1).await?;
    let gone = wire.ask(&[execute("outer", 1), sync()].concat(), 1).await?;
    assert_error_message(&gone, "34000", "\"outer\" does not exist");
    wire.ask(&query("ROLLBACK"), 1).await?;
    // Outside of a transaction each Sync ends it.
    assert_eq!(tags(&wire.ask(&[bound("p"), execute("p", 2), sync()].concat(), 1).await?), "12DDsZ");
    let gone = wire.ask(&[execute("p", 1), sync()].concat(), 1).await?;
    assert_error_message(&gone, "34000", "\"p\" does not exist");
    assert_eq!(wire.rows("SELECT 1").await?, ["1"]);
    Ok(wire.shut().await?)
}

/// As pgJDBC begins transactions: along with their first statement.
async fn begin_ahead(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    users(&shards, 1_508_000, 6, "begin_ahead").await?;
    let (a, b) = (shards.user_on(0, 1_508_000), shards.user_on(1, 1_508_000));
    let mut wire = shards.wire().await?;
    let run =
        |sql: &str| [parse("", sql), bind("", "", &[], false), describe('P', ""), execute("", 0)].concat();
    let begin = [parse("begin", "BEGIN"), bind("", "begin", &[], false), execute("", 0)].concat();
    let again = [bind("", "begin", &[], false), execute("", 0)].concat();
    let all = "SELECT count(*) FROM users WHERE name = 'begin_ahead'";
    let answer = wire.ask(&[begin, run(all), sync()].concat(), 1).await?;
    assert_eq!((tags(&answer).as_str(), answer[8].body.as_slice()), ("12C12TDCZ", &b"T"[..]));
    // What has only been read does not bind: either shard can be written on.
    for (read, written) in [(a, b), (b, a), (a, a)] {
        wire.ask(&query("ROLLBACK"), 1).await?;
        let read = format!("SELECT count(*) FROM users WHERE user_id = {read}");
        assert_eq!(tags(&wire.ask(&[again.clone(), run(&read), sync()].concat(), 1).await?), "2C12TDCZ");
        let write = format!("UPDATE users SET email = 'ahead' WHERE user_id = {written}");
        let wrote = wire.ask(&[run(&write), sync()].concat(), 1).await?;
        assert_eq!(tags(&wrote), "12nCZ", "{}", wrote[0].error());
    }
    // The first portal of a transaction, of which rows are read in parts.
    wire.ask(&query("ROLLBACK"), 1).await?;
    let sql = "SELECT user_id FROM users WHERE name = 'begin_ahead' ORDER BY user_id";
    let first = [again.clone(), parse("s", sql), bind("C_1", "s", &[], false), describe('P', "C_1")].concat();
    let answer = wire.ask(&[first, execute("C_1", 4), sync()].concat(), 1).await?;
    assert_eq!(tags(&answer), "2C12TDDDDsZ");
    assert_eq!(tags(&wire.ask(&[execute("C_1", 4), sync()].concat(), 1).await?), "DDCZ");
    let end = [close('P', "C_1"), run("COMMIT"), sync()].concat();
    assert_eq!(tags(&wire.ask(&end, 1).await?), "312nCZ");
    // An error behind it leaves the transaction failed, as that of a server does.
    let failed = wire.ask(&[again.clone(), run("SELECT no_such FROM users"), sync()].concat(), 1).await?;
    assert_eq!(tags(&failed), "2CEZ");
    assert_eq!(failed[3].body, b"E");
    assert_eq!(wire.error("SELECT 1").await?.split(' ').next(), Some("25P02"));
    wire.ask(&query("ROLLBACK"), 1).await?;
    let refused = [again, run("SELECT row_number() OVER () FROM users"), sync()].concat();
    let refused = wire.ask(&refused, 1).await?;
    assert_eq!((tags(&refused).as_str(), &refused[3].body[..]), ("2CEZ", &b"E"[..]));
    wire.ask(&query("ROLLBACK"), 1).await?;
    assert_eq!(wire.rows(all).await?, ["6"]);
    Ok(wire.shut().await?)
}

fn assert_error_message(messages: &[Message], state: &str, part: &str) {
    let error =
        messages.iter().find(|it| it.tag == 'E').unwrap_or_else(|| panic!("no error: {}", tags(messages)));
    let (found, message) = (error.field('C').unwrap_or_default(), error.field('M').unwrap_or_default());
    assert!(found == state && message.contains(part), "{}", error.error());
}
