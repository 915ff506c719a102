//! COPY in and out: every byte of it, errors in the middle, clients that leave, and what is refused where
//! there are several shards.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::io::AsyncWriteExt;
use tokio_postgres::Client;
use tokio_postgres::error::DbError;

use crate::harness::wire::{self, Wire};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, SingleFixture, as_db_error, assert_error, error_of,
    rows, run, until,
};
use crate::routing::{Shards, insert_user};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("copy::each_format_there_and_back", each_format_there_and_back),
        harness.test("copy::megabytes_in_odd_pieces", megabytes_in_odd_pieces),
        harness.test("copy::an_error_in_the_middle_costs_only_the_copy", an_error_in_the_middle),
        harness.test("copy::an_error_while_half_a_message_is_sent", an_error_in_half_a_message),
        harness.test("copy::each_row_is_a_message_of_its_own", each_row_is_a_message),
        harness.test("copy::an_error_while_many_messages_are_on_their_way", an_error_in_many_messages),
        harness.test("copy::what_is_no_copy_data_ends_the_connection", no_copy_data),
        harness.test("copy::a_server_with_much_to_say_in_between", a_server_with_much_to_say),
        harness.test("copy::a_client_gives_up", a_client_gives_up),
        harness.test("copy::a_client_leaves", a_client_leaves),
        harness.test("copy::in_transactions", in_transactions),
        harness.test("copy::psql_copies", psql_copies),
        harness.test("copy::on_several_shards", on_several_shards),
    ]
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

async fn copy_in(client: &Client, sql: &str, pieces: impl IntoIterator<Item = Bytes>) -> Fallible<u64> {
    let sink = client.copy_in::<_, Bytes>(sql).await?;
    tokio::pin!(sink);
    for piece in pieces {
        sink.send(piece).await?;
    }
    Ok(sink.finish().await?)
}

async fn copy_out(client: &Client, sql: &str) -> Fallible<Vec<u8>> {
    let pieces: Vec<Bytes> = client.copy_out(sql).await?.try_collect().await?;
    Ok(pieces.concat())
}

/// By the extended protocol. Not by `copy_in`, which sends a Sync too many after an error at the start.
async fn refused_at_once(client: &Client, sql: &str) -> Fallible<DbError> {
    as_db_error(client.execute(sql, &[]).await.err().ok_or_else(|| format!("not refused: {sql}"))?)
}

/// What begins a COPY, and what ends its data.
fn by_both_protocols(sql: &str) -> [(Vec<u8>, Vec<u8>); 2] {
    let group = [wire::parse("", sql), wire::bind("", "", &[], false), wire::execute("", 0), wire::sync()];
    let done = wire::message('c', &[]);
    [(wire::query(sql), done.clone()), (group.concat(), [done, wire::sync()].concat())]
}

async fn count(client: &Client, table: &str) -> Fallible<String> {
    Ok(rows(client, &format!("SELECT count(*) FROM {table}")).await?.remove(0))
}

async fn each_format_there_and_back(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    let direct = fixture.shard.primary.connect(SingleFixture::DATABASE).await?;
    run(&client, "CREATE TABLE copy_from (a int, b text, c timestamptz, d bytea)").await?;
    run(
        &client,
        "INSERT INTO copy_from SELECT it, CASE it % 5 WHEN 0 THEN NULL WHEN 1 THEN '' \
         WHEN 2 THEN E'tab\\tline\\nback\\\\slash' WHEN 3 THEN '\"quoted\", ä' ELSE '\\.' END, \
         timestamptz '2026-01-01 00:00:00+00' + it * interval '1 second', decode(lpad(to_hex(it), 8, '0'), 'hex') \
         FROM generate_series(1, 2000) AS it",
    )
    .await?;
    for options in ["", "(FORMAT csv)", "(FORMAT csv, HEADER, DELIMITER ';', NULL 'none')", "(FORMAT binary)"]
    {
        run(&client, "DROP TABLE IF EXISTS copy_to; CREATE TABLE copy_to (LIKE copy_from)").await?;
        let out = format!("COPY (SELECT * FROM copy_from ORDER BY a) TO STDOUT {options}");
        let data = copy_out(&client, &out).await?;
        assert_eq!(data, copy_out(&direct, &out).await?, "{options}");
        let copied = copy_in(&client, &format!("COPY copy_to FROM STDIN {options}"), [data.into()]).await?;
        assert_eq!(copied, 2000, "{options}");
        let difference = "SELECT count(*) FROM (TABLE copy_from EXCEPT TABLE copy_to) AS it";
        assert_eq!(rows(&client, difference).await?, ["0"], "{options}");
        assert_eq!(count(&direct, "copy_to").await?, "2000");
    }
    Ok(())
}

async fn megabytes_in_odd_pieces(harness: Arc<Shared>) -> Outcome {
    const ROWS: usize = 20_000;
    const LONG: usize = 1_500_000;
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    run(&client, "CREATE TABLE copy_big (a int, b text)").await?;
    let mut data = Vec::new();
    for a in 0..ROWS {
        // Some are larger than any buffer on the way.
        let length = if a % 9_000 == 0 { LONG } else { a % 400 };
        data.extend_from_slice(format!("{a}\t").as_bytes());
        data.extend((0..length).map(|it| b'a' + ((a + it) % 26) as u8));
        data.push(b'\n');
    }
    for piece in [13_337, 1_048_577, data.len()] {
        run(&client, "TRUNCATE copy_big").await?;
        let pieces = data.chunks(piece).map(Bytes::copy_from_slice);
        assert_eq!(copy_in(&client, "COPY copy_big FROM STDIN", pieces).await?, ROWS as u64);
        let out = copy_out(&client, "COPY (SELECT * FROM copy_big ORDER BY a) TO STDOUT").await?;
        assert!(out == data, "{} bytes came back of {}, in pieces of {piece}", out.len(), data.len());
    }
    Ok(())
}

async fn an_error_in_the_middle(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    run(&client, "CREATE TABLE copy_error (a int)").await?;
    let line = Bytes::from("1\n".repeat(10_000));
    // Early, so that the server has said no long before the client is done; and in the last line.
    for bad in [0, 5, 199] {
        let pieces = (0..200).map(|it| if it == bad { Bytes::from("no number\n") } else { line.clone() });
        let sink = client.copy_in::<_, Bytes>("COPY copy_error FROM STDIN").await?;
        tokio::pin!(sink);
        let mut failed = None;
        for piece in pieces {
            if let Err(error) = sink.send(piece).await {
                failed = Some(error);
                break;
            }
        }
        let error = match failed {
            Some(error) => error,
            None => sink.finish().await.expect_err("one line is no number"),
        };
        assert_error(&as_db_error(error)?, "22P02", "invalid input syntax for type integer: \"no number\"");
        assert_eq!(count(&client, "copy_error").await?, "0", "the connection is usable, the table empty");
        assert_eq!(client.query_one("SELECT 7", &[]).await?.get::<_, i32>(0), 7);
    }
    assert_error(&refused_at_once(&client, "COPY copy_nowhere FROM STDIN").await?, "42P01", "copy_nowhere");
    let error =
        copy_out(&client, "COPY (SELECT 1 / (3 - a) FROM generate_series(1, 3) AS a) TO STDOUT").await;
    assert!(error.is_err_and(|it| format!("{it:?}").contains("division by zero")), "half way out");
    assert_eq!(copy_in(&client, "COPY copy_error FROM STDIN", [line]).await?, 10_000);
    Ok(())
}

/// The server has objected while half a message was with it: it needs the other half before it finds what
/// comes behind.
async fn an_error_in_half_a_message(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let address = fixture.keyway.listen();
    let mut wire = Wire::log_in(address, USER, APP_PASSWORD, SingleFixture::DATABASE, &[]).await?;
    wire.rows("CREATE TABLE copy_half (a int)").await?;
    for (begin, end) in by_both_protocols("COPY copy_half FROM STDIN") {
        for sent in [1, 4, 5, 6, 40_000] {
            wire.send(&begin).await?;
            wire.until('G').await?;
            let long = wire::message('d', "1\n".repeat(25_000).as_bytes());
            let (head, tail) = long.split_at(sent);
            wire.send(&[&wire::message('d', b"no number\n"), head].concat()).await?;
            let said = wire.until('E').await?;
            assert!(said.last().is_some_and(|it| it.error().starts_with("22P02")), "{said:?}");
            wire.send(&[tail, &end].concat()).await?;
            wire.until('Z').await?;
            assert_eq!(wire.rows("SELECT 7").await?, ["7"], "{sent} bytes were sent");
            assert_eq!(wire.rows("SELECT count(*) FROM copy_half").await?, ["0"]);
        }
    }
    Ok(())
}

/// They go on together, as far as each read brings them, and an error in the middle costs only the COPY.
async fn each_row_is_a_message(harness: Arc<Shared>) -> Outcome {
    const ROWS: usize = 20_000;
    let fixture = harness.single().await?;
    let address = fixture.keyway.listen();
    let mut wire = Wire::log_in(address, USER, APP_PASSWORD, SingleFixture::DATABASE, &[]).await?;
    wire.rows("CREATE TABLE copy_rows (a int, b text)").await?;
    let rows_of = |wrong: Option<usize>| {
        let mut data = Vec::new();
        for a in 0..ROWS {
            let row =
                if wrong == Some(a) { "no number".into() } else { format!("{a}\t{}\n", "b".repeat(a % 90)) };
            data.extend(wire::message('d', row.as_bytes()));
            if wrong.is_none() && a % 700 == 0 {
                // A server in copy-in mode ignores both.
                data.extend([wire::flush(), wire::sync()].concat());
            }
        }
        data.extend(wire::message('c', &[]));
        data
    };
    let right = format!("{ROWS} {} {}", ROWS * (ROWS - 1) / 2, (0..ROWS).map(|it| it % 90).sum::<usize>());
    for piece in [7_001, 65_536, usize::MAX] {
        wire.rows("TRUNCATE copy_rows").await?;
        wire.send(&wire::query("COPY copy_rows FROM STDIN")).await?;
        wire.until('G').await?;
        for bytes in rows_of(None).chunks(piece) {
            wire.send(bytes).await?;
        }
        wire.until('Z').await?;
        let sums = "SELECT concat_ws(' ', count(*), sum(a), sum(length(b))) FROM copy_rows";
        assert_eq!(wire.rows(sums).await?, [right.as_str()], "in pieces of {piece}");
        for wrong in [0, 1, ROWS / 2, ROWS - 1] {
            wire.send(&wire::query("COPY copy_rows FROM STDIN")).await?;
            wire.until('G').await?;
            for bytes in rows_of(Some(wrong)).chunks(piece) {
                wire.send(bytes).await?;
            }
            let answer = wire.until('Z').await?;
            let error = answer.iter().find(|it| it.tag == 'E').map(|it| it.error());
            assert!(error.as_ref().is_some_and(|it| it.starts_with("22P02")), "row {wrong}: {error:?}");
            assert_eq!(wire.rows(sums).await?, [right.as_str()], "after an error in row {wrong}");
        }
    }
    Ok(())
}

/// More than all buffers on the way hold, while the server does not read, and then it objects.
async fn an_error_in_many_messages(harness: Arc<Shared>) -> Outcome {
    const ROWS: usize = 200_000;
    const LOCK: &str = "pg_advisory_xact_lock(7001)";
    let fixture = harness.single().await?;
    let address = fixture.keyway.listen();
    let mut wire = Wire::log_in(address, USER, APP_PASSWORD, SingleFixture::DATABASE, &[]).await?;
    wire.rows("CREATE TABLE copy_many (a int, b text)").await?;
    let wait = format!("BEGIN PERFORM {LOCK}; RAISE EXCEPTION 'no row is right'; END");
    wire.rows(&format!("CREATE FUNCTION copy_waits() RETURNS trigger LANGUAGE plpgsql AS $$ {wait} $$"))
        .await?;
    wire.rows("CREATE TRIGGER waits BEFORE INSERT ON copy_many FOR EACH ROW EXECUTE FUNCTION copy_waits()")
        .await?;
    let row = wire::message('d', format!("1\t{}\n", "b".repeat(90)).as_bytes());
    let holder = fixture.client().await?;
    for (begin, end) in by_both_protocols("COPY copy_many FROM STDIN") {
        let data = [row.repeat(ROWS), end].concat();
        run(&holder, "BEGIN").await?;
        run(&holder, &format!("SELECT {LOCK}")).await?;
        wire.send(&begin).await?;
        wire.until('G').await?;
        let letting_go = async {
            let waiting = "SELECT count(*) FROM pg_locks WHERE objid = 7001 AND NOT granted";
            until("the server waits", || async { Ok(rows(&holder, waiting).await? == ["1"]) }).await?;
            run(&holder, "COMMIT").await
        };
        let (sent, let_go) = tokio::join!(wire.send(&data), letting_go);
        sent?;
        let_go?;
        let answer = wire.until('Z').await?;
        let error = answer.iter().find(|it| it.tag == 'E').map(|it| it.error());
        assert_eq!(error.as_deref(), Some("P0001 no row is right"));
        assert_eq!(wire.rows("SELECT count(*) FROM copy_many").await?, ["0"]);
    }
    Ok(())
}

/// Behind rows, so that it is found in what has come with them. As PostgreSQL does, nothing is waited for that is too long.
async fn no_copy_data(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    run(&client, "CREATE TABLE copy_no_data (a int)").await?;
    for wrong in [&b"f\x7f\xff\xff\xff"[..], b"d\0\0\0\x03", b"?\0\0\0\x04", b"Q\x7f\0\0\0"] {
        let address = fixture.keyway.listen();
        let mut wire = Wire::log_in(address, USER, APP_PASSWORD, SingleFixture::DATABASE, &[]).await?;
        wire.send(&wire::query("COPY copy_no_data FROM STDIN")).await?;
        wire.until('G').await?;
        wire.send(&[&wire::message('d', b"1\n").repeat(3)[..], wrong].concat()).await?;
        let error = wire.until('E').await?.last().map(|it| it.error()).unwrap_or_default();
        assert!(error.starts_with("08P01"), "{wrong:?}: {error}");
    }
    assert_eq!(count(&client, "copy_no_data").await?, "0");
    Ok(())
}

/// It reads no data while nobody hears its notices, and by then has more data than it ever takes at once.
async fn a_server_with_much_to_say(harness: Arc<Shared>) -> Outcome {
    const ROWS: usize = 2_500;
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    let direct = fixture.shard.primary.connect(SingleFixture::DATABASE).await?;
    client
        .batch_execute(
            "CREATE TABLE copy_noisy (a int, b text);
             CREATE FUNCTION copy_noise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_xact_lock(20);
                 RAISE NOTICE '%', repeat('noise', 400000);
                 RETURN new;
             END $$;
             CREATE TRIGGER noisy BEFORE INSERT ON copy_noisy FOR EACH ROW WHEN (new.a < 60)
                 EXECUTE FUNCTION copy_noise()",
        )
        .await?;
    direct.batch_execute("SELECT pg_advisory_lock(20)").await?;
    let taken = Arc::new(AtomicUsize::new(0));
    let (counted, data) = (taken.clone(), "d".repeat(16_000));
    let pieces = (0..ROWS).map(|it| {
        counted.fetch_add(1, Ordering::Relaxed);
        Bytes::from(format!("{it}\t{data}\n"))
    });
    let copying = copy_in(&client, "COPY copy_noisy FROM STDIN", pieces);
    let letting_go = async {
        // Once every buffer on the way is full.
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            match taken.load(Ordering::Relaxed) {
                it if it > 0 && it == last => break,
                it => last = it,
            }
        }
        Fallible::Ok(direct.batch_execute("SELECT pg_advisory_unlock(20)").await?)
    };
    let (copied, let_go) = tokio::join!(copying, letting_go);
    let_go?;
    assert_eq!(copied?, ROWS as u64);
    assert_eq!(rows(&client, "SELECT 7").await?, ["7"]);
    Ok(())
}

async fn a_client_gives_up(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    run(&client, "CREATE TABLE copy_failed (a int)").await?;
    for _ in 0..3 {
        let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY copy_failed FROM STDIN").await?);
        sink.send("1\n2\n".into()).await?;
        // Dropped, it sends CopyFail.
        drop(sink);
        assert_eq!(count(&client, "copy_failed").await?, "0");
    }
    assert_eq!(copy_in(&client, "COPY copy_failed FROM STDIN", ["3\n".into()]).await?, 1);
    assert_eq!(copy_in(&client, "COPY copy_failed FROM STDIN", []).await?, 0, "nothing at all is fine");
    assert_eq!(rows(&client, "SELECT a FROM copy_failed").await?, ["3"]);
    Ok(())
}

/// Its server connection is not given to the next one half way through a COPY.
async fn a_client_leaves(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let watcher = fixture.client().await?;
    run(&watcher, "CREATE TABLE copy_left (a int)").await?;
    let direct = fixture.shard.primary.connect("postgres").await?;
    for out in [false, true] {
        let (client, connection) = tokio_postgres::connect(&fixture.url(), tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        let sql = if out {
            "COPY (SELECT repeat('left', 1000) FROM generate_series(1, 1000000)) TO STDOUT"
        } else {
            "COPY copy_left FROM STDIN"
        };
        let mut sink = None;
        let mut stream = None;
        if out {
            let mut copied = Box::pin(client.copy_out(sql).await?);
            assert!(copied.try_next().await?.is_some());
            stream = Some(copied);
        } else {
            let mut copied = Box::pin(client.copy_in::<_, Bytes>(sql).await?);
            copied.send("1\n".into()).await?;
            sink = Some(copied);
        }
        connection.abort();
        let _ = connection.await;
        drop((sink, stream, client));
        let running =
            format!("SELECT 1 FROM pg_stat_activity WHERE state <> 'idle' AND query = {}", literal(sql));
        until("the server has stopped it", || async { Ok(rows(&direct, &running).await?.is_empty()) })
            .await?;
        for _ in 0..20 {
            assert_eq!(count(&watcher, "copy_left").await?, "0");
            assert_eq!(copy_out(&watcher, "COPY (SELECT 5) TO STDOUT").await?, b"5\n");
        }
    }
    Ok(())
}

async fn in_transactions(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    run(&client, "CREATE TABLE copy_inside (a int)").await?;
    run(&client, "BEGIN").await?;
    assert_eq!(copy_in(&client, "COPY copy_inside FROM STDIN", ["1\n".into()]).await?, 1);
    assert_eq!(count(&client, "copy_inside").await?, "1");
    run(&client, "SAVEPOINT s").await?;
    copy_in(&client, "COPY copy_inside FROM STDIN", ["x\n".into()]).await.expect_err("x is no number");
    assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
    run(&client, "ROLLBACK TO s").await?;
    assert_eq!(copy_in(&client, "COPY copy_inside FROM STDIN", ["2\n".into()]).await?, 1);
    run(&client, "COMMIT").await?;
    assert_eq!(rows(&client, "SELECT a FROM copy_inside ORDER BY a").await?, ["1", "2"]);
    run(&client, "BEGIN READ ONLY").await?;
    assert_eq!(copy_out(&client, "COPY copy_inside TO STDOUT").await?, b"1\n2\n");
    let error = refused_at_once(&client, "COPY copy_inside FROM STDIN").await?;
    assert_error(&error, "25006", "read-only transaction");
    run(&client, "ROLLBACK").await?;
    Ok(())
}

/// psql copies by the simple protocol.
async fn psql_copies(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    run(&client, "CREATE TABLE copy_psql (a int, b text)").await?;
    let lines: String = (0..50_000).map(|it| format!("{it}\tline {it}\n")).collect();
    let script = format!(
        "COPY copy_psql FROM STDIN;\n{lines}\\.\nSELECT count(*) FROM copy_psql;\n\
         COPY copy_psql FROM STDIN;\n1\ttoo\tmany\n\\.\nSELECT count(*) FROM copy_psql;\n\
         BEGIN; COPY copy_psql FROM STDIN; SELECT 'between'; COMMIT;\n1\ta\n\\.\n\
         COPY (SELECT * FROM copy_psql WHERE a = 49999) TO STDOUT;\nSELECT 'end';\n"
    );
    let mut psql = tokio::process::Command::new(harness.installation().client_program("psql")?);
    psql.args(["-X", "-A", "-t", "-q", &fixture.url()]).kill_on_drop(true);
    let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = psql.stdin.take().ok_or("stdin is piped")?;
    let writing = tokio::spawn(async move { stdin.write_all(script.as_bytes()).await });
    let done = psql.wait_with_output().await?;
    writing.await??;
    let (out, errors) = (String::from_utf8(done.stdout)?, String::from_utf8(done.stderr)?);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines, ["50000", "50000", "between", "49999\tline 49999", "end"], "{errors}");
    assert!(errors.contains("extra data after last expected column"), "{errors}");
    assert_eq!(errors.matches("ERROR").count(), 1, "{errors}");
    // Another connection than the one that wrote: its reads may be a little behind.
    until("the row is on the replicas", || async { Ok(count(&client, "copy_psql").await? == "50001") })
        .await?;
    Ok(())
}

async fn on_several_shards(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let (a, b) = (shards.user_on(0, 2_100_000), shards.user_on(1, 2_100_000));
    for user_id in [a, b] {
        run(&client, &insert_user(user_id, "copied")).await?;
    }
    for sql in [
        "COPY users (name) FROM STDIN",
        "COPY users FROM '/etc/passwd'",
        "COPY users FROM PROGRAM 'true'",
        "COPY users TO '/tmp/users'",
        "COPY users TO STDOUT",
        "COPY (SELECT * FROM users ORDER BY user_id) TO STDOUT",
    ] {
        assert_error(&error_of(&client, sql).await?, "0A000", "");
        assert_error(&refused_at_once(&client, sql).await?, "0A000", "");
    }
    for user_id in [a, b] {
        let sql = format!("COPY (SELECT name FROM users WHERE user_id = {user_id}) TO STDOUT");
        assert_eq!(copy_out(&client, &sql).await?, b"copied\n", "of one shard");
    }
    let countries = copy_out(&client, "COPY countries (code) TO STDOUT").await?;
    assert_eq!(String::from_utf8(countries)?.lines().count(), 6, "any copy will do");
    let left = shards.everywhere("SELECT count(*) FROM countries").await?;
    assert_eq!(left, [["6"]; 2]);
    assert_eq!(rows(&client, "SELECT 1").await?, ["1"]);
    Ok(())
}
