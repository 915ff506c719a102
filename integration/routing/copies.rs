//! COPY FROM STDIN into two shards: each row is on its shard, once; or PostgreSQL's error is the answer, with the
//! line as the client counts, and nothing is kept.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use keyway::demo::shop;
use libtest_mimic::Trial;
use tokio_postgres::Client;
use tokio_postgres::error::DbError;

use super::Shards;
use super::one_phase::start;
use crate::harness::wire::{self, Wire};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, as_db_error, assert_error, error_of, rows, run, until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::copies::every_format", every_format),
        harness.test("routing::copies::columns_by_the_catalog", columns_by_the_catalog),
        harness.test("routing::copies::errors_name_the_clients_line", errors_name_the_clients_line),
        harness.test("routing::copies::refused_at_a_second_shard", refused_at_a_second_shard),
        harness.test("routing::copies::a_client_gives_up_or_leaves", a_client_gives_up_or_leaves),
        harness.test("routing::copies::by_a_query", by_a_query),
        harness.test("routing::copies::much_data_and_much_to_say", much_data_and_much_to_say),
        harness.test("routing::copies::reference_tables", reference_tables),
        harness.test("routing::copies::a_lock_is_not_waited_for_without_end", a_lock),
    ]
}

async fn copy(client: &Client, sql: &str, pieces: Vec<Bytes>) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in::<_, Bytes>(sql).await?;
    tokio::pin!(sink);
    for piece in pieces {
        sink.send(piece).await?;
    }
    sink.finish().await
}

async fn copy_error(client: &Client, sql: &str, data: &str) -> Fallible<DbError> {
    let copied = copy(client, sql, vec![data.to_owned().into()]).await;
    as_db_error(copied.err().ok_or_else(|| format!("no error: {sql} {data:?}"))?)
}

fn pieces(data: &[u8], size: usize) -> Vec<Bytes> {
    data.chunks(size).map(Bytes::copy_from_slice).collect()
}

/// `user_id|n|s` of all rows, by shard, and that each is on its own.
async fn placed(shards: &Shards<'_>, table: &str) -> Fallible<Vec<Vec<String>>> {
    let all = shards.everywhere(&format!("SELECT user_id, n, s FROM {table} ORDER BY 1")).await?;
    for (shard, rows) in all.iter().enumerate() {
        for row in rows {
            let user: i64 = row.split('|').next().ok_or("no column")?.parse()?;
            assert_eq!(shards.user_on(shard, user), user, "{row} is on shard {shard}");
        }
    }
    Ok(all)
}

fn binary(rows: &[(i64, i32, Option<&str>)]) -> Vec<u8> {
    let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for (user, n, s) in rows {
        out.extend(3u16.to_be_bytes());
        out.extend([&4i32.to_be_bytes()[..], &n.to_be_bytes()].concat());
        match s {
            Some(s) => out.extend([&(s.len() as i32).to_be_bytes()[..], s.as_bytes()].concat()),
            None => out.extend((-1i32).to_be_bytes()),
        }
        out.extend([&8i32.to_be_bytes()[..], &user.to_be_bytes()].concat());
    }
    out.extend((-1i16).to_be_bytes());
    out
}

async fn every_format(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "copied").await?;
    let client = shards.client().await?;
    let data: Vec<(i64, i32, Option<&str>)> = (1..=40)
        .map(|it| (it, it as i32 * 2, [None, Some("a\nb"), Some("\"q\",\t\\"), Some("")][it as usize % 4]))
        .collect();
    let text: String = data
        .iter()
        .map(|(user, n, s)| {
            let s = s.map_or("\\N".to_owned(), |it| {
                it.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t")
            });
            format!("{n}\t{s}\t{user}\n")
        })
        .collect();
    let csv: String = data
        .iter()
        .map(|(user, n, s)| {
            let s = s.map_or(String::new(), |it| format!("\"{}\"", it.replace('"', "\"\"")));
            format!("{n},{s},{user}\n")
        })
        .collect();
    let options = [
        ("", text.clone().into_bytes()),
        ("", format!("{text}\\.\nwhat follows is ignored\n").into_bytes()),
        ("(FORMAT csv)", csv.clone().into_bytes()),
        ("(FORMAT csv, HEADER)", format!("n,s,user_id\n{csv}").into_bytes()),
        ("(FORMAT csv, HEADER match)", format!("n,s,user_id\n{}", csv.trim_end()).into_bytes()),
        ("(FORMAT csv, DELIMITER '|', NULL '-')", csv.replace(',', "|").replace("||", "|-|").into_bytes()),
        ("(FORMAT binary)", binary(&data)),
    ];
    let mut first = None;
    for (options, bytes) in &options {
        for size in [1, 7, 100_000] {
            let sql = format!("COPY copied (n, s, user_id) FROM STDIN {options}");
            assert_eq!(copy(&client, &sql, pieces(bytes, size)).await?, 40, "{sql} by {size}");
            let all = placed(&shards, "copied").await?;
            assert!(all.iter().all(|it| it.len() > 5), "{all:?}");
            if options.contains('|') {
                // The delimiter is replaced in the data too.
                assert_eq!(all.concat().len(), 40);
            } else {
                assert_eq!(*first.get_or_insert_with(|| all.clone()), all, "{sql} by {size}");
            }
            assert_eq!(client.execute("DELETE FROM copied", &[]).await?, 40);
        }
    }
    Ok(())
}

async fn columns_by_the_catalog(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "copied_all").await?;
    let client = shards.client().await?;
    let text: String = (1..=20).map(|it| format!("{it}\t{it}\tx\n")).collect();
    assert_eq!(copy(&client, "COPY copied_all FROM STDIN", vec![text.into()]).await?, 20);
    assert_eq!(placed(&shards, "copied_all").await?.concat().len(), 20);
    let text: String = (1..=20).map(|it| format!("{it}\tb{}\t{}\n", it % 3, it % 4)).collect();
    assert!(copy(&client, "COPY copied_all_pairs FROM STDIN", vec![text.into()]).await.is_err());
    let text: String = (0..12).map(|it| format!("{it}\tb{}\t{}\n", it % 3, it % 4)).collect();
    assert_eq!(copy(&client, "COPY copied_all_pairs FROM STDIN", vec![text.into()]).await?, 12);
    for it in 0..12 {
        let sql = format!("SELECT n FROM copied_all_pairs WHERE b = 'b{}' AND a = {}", it % 3, it % 4);
        assert_eq!(rows(&client, &sql).await?, [it.to_string()]);
    }
    // Behind Keyway's back the key's place changes: what stands there now is not taken for the key.
    for shard in 0..2 {
        let sql = "ALTER TABLE copied_all_beside DROP COLUMN user_id, ADD COLUMN user_id bigint";
        shards.direct(shard).await?.batch_execute(sql).await?;
    }
    let text: String = (1..=20).map(|it| format!("{it}\tx\t{}\n", 100 - it)).collect();
    if let Err(error) = copy(&client, "COPY copied_all_beside FROM STDIN", vec![text.into()]).await {
        assert_eq!(error.code().map(|it| it.code()), Some("22P02"), "{error:?}");
    }
    placed(&shards, "copied_all_beside").await?;
    Ok(())
}

async fn errors_name_the_clients_line(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "copied_wrong").await?;
    let client = shards.client().await?;
    let direct = shards.direct(0).await?;
    let line = |user: i64, n: &str| format!("{user},{n},\"a\nb\"\n");
    let good: String = (1..=30).map(|it| line(it, "1")).collect();
    let text = |user: &str, n: &str| {
        let lines = (1..=9).map(|it| format!("{it}\t1\tx\n")).collect::<String>();
        format!("{lines}{user}\t{n}\tx\n20\t1\tx\n")
    };
    for (options, data) in [
        ("(FORMAT csv)", format!("{good}{}{}", line(31, "x"), line(32, "1"))),
        ("(FORMAT csv)", format!("{good}{}{}", line(31, "5000"), line(32, "1"))),
        ("(FORMAT csv)", format!("{good}7,1\n")),
        ("(FORMAT csv)", format!("{good}31,1,x,y\n")),
        ("(FORMAT csv)", format!("{good}{}", line(9, "1"))),
        ("(FORMAT csv)", format!("{good}31,1,\"open")),
        ("(FORMAT csv, HEADER match)", format!("user_id,m,s\n{good}")),
        ("", text("10", "x")),
        ("", text("11", "x")),
        ("", text("12", "x")),
        ("", text("x", "1")),
        ("", text("\\N", "1")),
        ("", text("99999999999999999999", "1")),
        ("", text("10\t1\t2", "1")),
        ("", text("10", "1").replace("x\n20", "x\r\n20")),
        ("", format!("{}21", text("10", "1"))),
    ] {
        let sql = format!("COPY copied_wrong (user_id, n, s) FROM STDIN {options}");
        let ours = copy_error(&client, &sql, &data).await?;
        let theirs = copy_error(&direct, &sql, &data).await?;
        let told =
            |it: &DbError| (it.code().clone(), it.message().to_owned(), it.where_().map(str::to_owned));
        // A broken line end is found before a server sees it, and told at its own line.
        if ours.message().contains("literal carriage") {
            assert_eq!((ours.code(), ours.message()), (theirs.code(), theirs.message()));
        } else {
            assert_eq!(told(&ours), told(&theirs), "{options} {data:?}");
        }
        assert_eq!(placed(&shards, "copied_wrong").await?.concat(), [""; 0], "{data:?}");
    }
    // As good as before.
    let copied = copy(&client, "COPY copied_wrong FROM STDIN", vec![text("10", "1").into()]).await?;
    assert_eq!(copied, 11);
    Ok(())
}

async fn refused_at_a_second_shard(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let client = shards.client().await?;
    let a = shards.user_on(0, 2_300_000);
    let (a2, b) = (shards.user_on(0, a + 1), shards.user_on(1, a + 1));
    let line = |user: i64| format!("{user}\tcopy\te\tNL\n");
    let sql = "COPY users (user_id, name, email, country) FROM STDIN";
    let error = copy_error(&client, sql, &[line(a), line(b)].concat()).await?;
    assert_error(&error, "0A000", "several shards");
    assert_eq!(error.where_(), Some("COPY users, line 2"));
    assert!(error.hint().is_some_and(|it| it.contains("cross_shard_writes")), "{error:?}");
    let there = format!("SELECT user_id FROM users WHERE user_id IN ({a}, {a2}, {b}) ORDER BY 1");
    assert_eq!(shards.everywhere(&there).await?, [vec![""; 0], vec![]]);
    // Of one shard they need no setting.
    assert_eq!(copy(&client, sql, vec![[line(a), line(a2)].concat().into()]).await?, 2);
    assert_eq!(shards.everywhere(&there).await?, [vec![a.to_string(), a2.to_string()], vec![]]);
    run(&client, "BEGIN").await?;
    let error = as_db_error(client.execute(sql, &[]).await.expect_err("in a transaction"))?;
    assert_error(&error, "0A000", "cannot stand in a transaction");
    run(&client, "ROLLBACK").await?;
    Ok(())
}

async fn a_client_gives_up_or_leaves(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "copied_half").await?;
    let sql = "COPY copied_half FROM STDIN";
    let data = || Bytes::from((1..=50).map(|it| format!("{it}\t1\tx\n")).collect::<String>());
    let client = shards.client().await?;
    let mut sink = Box::pin(client.copy_in::<_, Bytes>(sql).await?);
    sink.send(data()).await?;
    // Dropped, it sends CopyFail.
    drop(sink);
    assert_eq!(rows(&client, "SELECT user_id FROM copied_half").await?.len(), 0);
    let leaver = shards.client().await?;
    let mut sink = Box::pin(leaver.copy_in::<_, Bytes>(sql).await?);
    sink.send(data()).await?;
    sink.flush().await?;
    drop((sink, leaver));
    assert_eq!(copy(&client, sql, vec![data()]).await?, 50);
    assert_eq!(copy(&client, sql, Vec::new()).await?, 0);
    assert_eq!(placed(&shards, "copied_half").await?.concat().len(), 50);
    Ok(())
}

async fn by_a_query(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "copied_simple").await?;
    let mut client =
        Wire::log_in(shards.keyway.listen(), shop::USER, APP_PASSWORD, shop::DATABASE, &[]).await?;
    let tags = |it: &[wire::Message]| it.iter().map(|it| it.tag).collect::<String>();
    client.send(&wire::query("COPY copied_simple FROM STDIN")).await?;
    assert_eq!(client.message().await?.tag, 'G');
    let answer = [
        wire::message('d', b"1\t1\tx\n2\t"),
        wire::message('H', b""),
        wire::message('d', b"2\ty\n3\t3\tz"),
        wire::message('c', b""),
    ];
    let answer = client.ask(&answer.concat(), 1).await?;
    assert_eq!(tags(&answer), "CZ");
    assert_eq!(answer[0].body, b"COPY 3\0");
    assert_eq!(placed(&shards, "copied_simple").await?.concat().len(), 3);
    // What comes behind an error is passed over, up to the next Query.
    client.send(&wire::query("COPY copied_simple FROM STDIN")).await?;
    assert_eq!(client.message().await?.tag, 'G');
    let wrong = [
        wire::message('d', b"4\t1\tx\n5\tx\ty\n"),
        wire::message('d', &b"6\t1\tx\n".repeat(20_000)),
        wire::message('c', b""),
    ];
    let answer = client.ask(&wrong.concat(), 1).await?;
    assert_eq!(tags(&answer).replace('N', ""), "EZ");
    assert_eq!(client.rows("SELECT count(*) FROM copied_simple").await?, ["3"]);
    client.send(&wire::query("COPY copied_simple FROM STDIN")).await?;
    assert_eq!(client.message().await?.tag, 'G');
    let given_up = [wire::message('d', b"4\t1\tx\n"), wire::message('f', b"no more\0")];
    let answer = client.ask(&given_up.concat(), 1).await?;
    assert_eq!(tags(&answer), "EZ");
    assert!(answer[0].error().contains("no more"), "{}", answer[0].error());
    assert_eq!(answer[0].field('W').as_deref(), Some("COPY copied_simple, line 2"));
    assert_eq!(client.rows("SELECT count(*) FROM copied_simple").await?, ["3"]);
    Ok(())
}

/// A trigger's notices would fill the way back of a server that nobody reads.
async fn much_data_and_much_to_say(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "copied_much").await?;
    let client = shards.client().await?;
    let row = "x".repeat(200);
    let data: Vec<Bytes> = (0..60)
        .map(|block| {
            let lines = (0..1_000).map(|it| format!("{}\t1\t{row}\n", block * 1_000 + it));
            lines.collect::<String>().into()
        })
        .collect();
    assert_eq!(copy(&client, "COPY copied_much FROM STDIN", data).await?, 60_000);
    // One row of many messages, and the end right behind the data.
    let large = format!("70000,1,\"{}\"\n70001,1,x", "large,\"\"\n".repeat(300_000));
    let sql = "COPY copied_much FROM STDIN (FORMAT csv)";
    assert_eq!(copy(&client, sql, pieces(large.as_bytes(), 50_000)).await?, 2);
    let there = "SELECT length(s) FROM copied_much WHERE user_id = 70000";
    assert_eq!(rows(&client, there).await?, ["2400000"]);
    assert_eq!(client.execute("DELETE FROM copied_much WHERE user_id >= 70000", &[]).await?, 2);
    let sums = rows(&client, "SELECT count(*), sum(user_id) FROM copied_much").await?;
    assert_eq!(sums, ["60000|1799970000"]);
    assert_eq!(client.execute("DELETE FROM copied_much", &[]).await?, 60_000);
    for shard in 0..2 {
        let sql = "CREATE FUNCTION copied_much_said() RETURNS trigger LANGUAGE plpgsql AS \
                   $$ BEGIN RAISE NOTICE '%', repeat('said', 1000); RETURN NEW; END $$; \
                   CREATE TRIGGER said BEFORE INSERT ON copied_much FOR EACH ROW EXECUTE FUNCTION copied_much_said()";
        run(&shards.direct(shard).await?, sql).await?;
    }
    let data: Vec<Bytes> = (0..8)
        .map(|block| {
            let lines = (0..1_000).map(|it| format!("{}\t1\t{row}\n", block * 1_000 + it));
            lines.collect::<String>().into()
        })
        .collect();
    assert_eq!(copy(&client, "COPY copied_much FROM STDIN", data).await?, 8_000);
    assert_eq!(rows(&client, "SELECT count(*) FROM copied_much").await?, ["8000"]);
    Ok(())
}

async fn a_lock(harness: Arc<Shared>) -> Outcome {
    let shards = start(&harness, "copied_locked").await?;
    let holder = shards.direct(1).await?;
    let taken = shards.user_on(1, 1);
    let data: String = (1..=taken + 20).map(|it| format!("{it}\t1\tx\n")).collect();
    // For a table before the data, and for a key amid it.
    let hold = [
        "LOCK TABLE copied_locked IN ACCESS EXCLUSIVE MODE".to_owned(),
        format!("INSERT INTO copied_locked VALUES ({taken})"),
    ];
    for (held, sql) in hold.into_iter().enumerate() {
        run(&holder, "BEGIN").await?;
        run(&holder, &sql).await?;
        // A COPY that fails before its data is the end of a connection of this driver's.
        let client = shards.client().await?;
        let error = copy_error(&client, "COPY copied_locked FROM STDIN", &data).await?;
        assert_error(&error, "55P03", "lock timeout");
        // The error is told before the other shard has ended its part.
        let hits = format!("keyway_limit_hits_total{{limit=\"cross_shard_lock_timeout\"}} {}\n", held + 1);
        until("the limit to be counted", async || Ok(shards.keyway.metrics().await?.contains(&hits))).await?;
        run(&holder, "ROLLBACK").await?;
        assert_eq!(placed(&shards, "copied_locked").await?.concat(), [""; 0]);
    }
    let copied = copy(&shards.client().await?, "COPY copied_locked FROM STDIN", vec![data.into()]).await?;
    assert_eq!(copied, (taken + 20) as u64);
    Ok(())
}

async fn reference_tables(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start_with(&harness, "").await?;
    for shard in 0..2 {
        let sql = "CREATE TABLE IF NOT EXISTS ref_copied (id int PRIMARY KEY, name text); \
                   GRANT ALL ON ref_copied TO PUBLIC";
        run(&shards.direct(shard).await?, sql).await?;
    }
    drop(shards);
    let more = "\n[databases.shop.tables.ref_copied]\nreference = true\n";
    let shards = Shards::start_with(&harness, more).await?;
    let client = shards.client().await?;
    let copied = copy(&client, "COPY ref_copied FROM STDIN", vec!["1\ta\n2\tb\n".into()]).await?;
    assert_eq!(copied, 2);
    let all = shards.everywhere("SELECT id, name FROM ref_copied ORDER BY 1").await?;
    assert_eq!(all, [["1|a", "2|b"]; 2]);
    assert_error(&copy_error(&client, "COPY ref_copied FROM STDIN", "3\tc\n2\tb\n").await?, "23505", "pkey");
    assert_eq!(shards.everywhere("SELECT count(*) FROM ref_copied").await?, [["2"]; 2]);
    assert_error(&error_of(&client, "COPY ref_copied FROM STDIN (FREEZE, WHAT 1)").await?, "0A000", "option");
    Ok(())
}
