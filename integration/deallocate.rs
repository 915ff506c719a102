//! DEALLOCATE beside other statements, on the one server of two clients: neither drops what the other has.

use std::sync::Arc;
use std::time::Duration;

use keyway::demo::shop::USER;
use libtest_mimic::Trial;

use crate::harness::wire::{Wire, bind, describe, execute, flush, parse, query, sync};
use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, Shared, SingleFixture};
use crate::sessions::narrow;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("deallocate::leaves_what_others_have", leaves_what_others_have),
        harness.test("deallocate::prepare_by_parse_is_virtual", prepared_by_parse),
        harness.test("deallocate::by_code_harms_nobody_else", by_code),
        harness.test("deallocate::of_a_pinned_client_leaves_what_others_have", of_a_pinned_client),
    ]
}

/// PREPARE and EXECUTE by the extended protocol are as virtual as by the simple one: no pin, no leak.
async fn prepared_by_parse(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let log_in = || Wire::log_in(keyway.listen(), USER, APP_PASSWORD, SingleFixture::DATABASE, &[]);
    let (mut one, mut other) = (log_in().await?, log_in().await?);
    let synced = |sql: &str| [extended(sql), sync()].concat();
    asks(&mut one, &[(synced("PREPARE p (int) AS SELECT $1 * 2"), "")]).await?;
    asks(&mut one, &[(synced("PREPARE unknown (pg_lsn) AS SELECT $1"), "")]).await?;
    asks(&mut other, &[(synced("EXECUTE p(1)"), "26000"), (synced("PREPARE p AS SELECT 'other'"), "")])
        .await?;
    for _ in 0..2 {
        let answer = one.ask(&synced("EXECUTE p(21)"), 1).await?;
        assert!(answer.iter().any(|it| it.tag == 'D' && it.body.ends_with(b"42")), "{answer:?}");
        let answer = other.ask(&synced("EXECUTE p"), 1).await?;
        assert!(answer.iter().any(|it| it.tag == 'D' && it.body.ends_with(b"other")), "{answer:?}");
    }
    let pins = keyway.metrics().await?;
    assert!(!pins.lines().any(|it| it.starts_with("keyway_pins_total")), "{pins}");
    // A server that has lost its statements gets them where they are asked for, but those of which Keyway does not
    // know the types in front: amid an open pipeline they cannot come.
    let pid = one.rows("SELECT pg_backend_pid()").await?.concat();
    let direct = harness.single().await?.shard.primary.connect(SingleFixture::DATABASE).await?;
    direct.simple_query(&format!("SELECT pg_terminate_backend({pid})")).await?;
    // The server may be gone for a while before Keyway hears of it: then a statement is its last.
    let mut served_by = pid.clone();
    for _ in 0..600 {
        let answer = one.ask(&query("SELECT pg_backend_pid()"), 1).await?;
        let row = answer.iter().find(|it| it.tag == 'D');
        served_by = row.map_or(served_by, |it| String::from_utf8_lossy(&it.body[6..]).into_owned());
        if served_by != pid {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(served_by, pid, "a new connection serves");
    one.send(&[extended("SELECT 1"), flush()].concat()).await?;
    one.until('C').await?;
    asks(&mut one, &[(synced("EXECUTE p(1)"), "")]).await?;
    let unknown = || [bind("", "unknown", &["0/1"], false), execute("", 0), sync()].concat();
    for expect in ["0A000", ""] {
        one.send(&[extended("SELECT 1"), flush()].concat()).await?;
        one.until('C').await?;
        asks(&mut one, &[(unknown(), expect), (synced("EXECUTE unknown('0/1')"), "")]).await?;
    }
    // Made in one pipeline, and meant to be executed in another.
    one.send(&[parse("", "PREPARE q AS SELECT 1"), bind("", "", &[], false), flush()].concat()).await?;
    one.until('E').await?;
    asks(&mut one, &[(sync(), ""), (synced("EXECUTE q"), "26000")]).await
}

/// What code drops on a server is prepared again, and nobody else sees it.
async fn by_code(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let log_in = || Wire::log_in(keyway.listen(), USER, APP_PASSWORD, SingleFixture::DATABASE, &[]);
    let (mut one, mut other) = (log_in().await?, log_in().await?);
    let prepared = [parse("s", "SELECT 4711"), parse("t", "SELECT 4712"), sync()].concat();
    let run = |name: &str| [bind("", name, &[], false), execute("", 0), sync()].concat();
    let parsed_anew = |name: &str| [parse(name, "SELECT 4711"), run(name)].concat();
    asks(&mut other, &[(prepared, ""), (run("s"), ""), (run("t"), "")]).await?;
    asks(&mut other, &[(query("PREPARE p AS SELECT 4713"), ""), (query("EXECUTE p"), "")]).await?;
    let drop_all = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$";
    let drop_some = "DO $$ DECLARE it text; BEGIN FOR it IN SELECT name FROM pg_prepared_statements \
        WHERE statement LIKE '%4711%' OR statement LIKE '%4713%' LOOP EXECUTE 'DEALLOCATE ' || it; END LOOP; END $$";
    for (at, code) in [drop_all, drop_some].into_iter().enumerate() {
        let questions = [
            run("s"),
            parsed_anew(&format!("u{at}")),
            [describe('S', "s"), sync()].concat(),
            query("EXECUTE p"),
            [extended("EXECUTE p"), sync()].concat(),
        ];
        for question in questions {
            asks(&mut one, &[(query(code), "")]).await?;
            asks(&mut other, &[(question, ""), (run("t"), ""), (run("s"), "")]).await?;
        }
        // In a transaction it is an error, once.
        asks(&mut one, &[(query(code), "")]).await?;
        asks(&mut other, &[(query("BEGIN"), ""), (query("SELECT 1"), ""), (run("s"), "26000")]).await?;
        asks(&mut other, &[(query("ROLLBACK"), ""), (run("s"), ""), (run("t"), "")]).await?;
        // So it is behind what has run, in one go.
        asks(&mut one, &[(query(code), "")]).await?;
        let behind = [extended("SELECT 1"), run("s")].concat();
        asks(&mut other, &[(behind.clone(), "26000"), (behind, ""), (query("EXECUTE p"), "")]).await?;
    }
    let metrics = keyway.metrics().await?;
    assert!(!metrics.lines().any(|it| it.starts_with("keyway_pins_total")), "{metrics}");
    Ok(())
}

fn extended(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], false), execute("", 0)].concat()
}

/// What is asked up to one ReadyForQuery, and how it ends: no error where this is empty.
type Ask = (Vec<u8>, &'static str);

async fn asks(wire: &mut Wire, asks: &[Ask]) -> Outcome {
    for (bytes, state) in asks {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let answer = wire.ask(bytes, 1).await?;
        let error = answer.iter().find(|it| it.tag == 'E').map(|it| it.error()).unwrap_or_default();
        assert!(error.starts_with(state) && error.is_empty() == state.is_empty(), "{shown:?}: {error}");
    }
    Ok(())
}

/// Another client's statement runs, and is still the one that it was.
async fn still_has(other: &mut Wire, name: &str) -> Outcome {
    let run = [bind("", "s", &[], false), execute("", 0), sync()].concat();
    let answer = other.ask(&run, 1).await?;
    assert!(answer.iter().any(|it| it.tag == 'D'), "{answer:?}");
    let kept = "SELECT name FROM pg_prepared_statements WHERE statement = 'SELECT 4711'";
    assert_eq!(other.rows(kept).await?, [name]);
    Ok(())
}

/// A client that has the statement of `still_has`, with the name that it has on the server.
async fn other_client(log_in: impl Future<Output = Fallible<Wire>>) -> Fallible<(Wire, String)> {
    let mut other = log_in.await?;
    other.ask(&[parse("s", "SELECT 4711"), sync()].concat(), 1).await?;
    let names = other.rows("SELECT name FROM pg_prepared_statements").await?;
    let [name] = &names[..] else { return Err(format!("{names:?}").into()) };
    assert!(name.starts_with("keyway_"), "{name}");
    Ok((other, name.clone()))
}

async fn leaves_what_others_have(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let log_in = || Wire::log_in(keyway.listen(), USER, APP_PASSWORD, SingleFixture::DATABASE, &[]);
    let mut one = log_in().await?;
    let (mut other, name) = other_client(log_in()).await?;
    let name = &name;
    one.ask(&[parse("s", "SELECT 4711"), sync()].concat(), 1).await?;
    let group =
        |parts: &[&str]| -> Vec<u8> { parts.iter().flat_map(|it| extended(it)).chain(sync()).collect() };
    let cases: [Ask; 17] = [
        (query("SELECT 1; DEALLOCATE ALL"), "0A000"),
        (query("BEGIN; DEALLOCATE ALL; COMMIT"), "0A000"),
        (query("SELECT 1; DEALLOCATE s"), "0A000"),
        (query("DEALLOCATE s; DEALLOCATE s"), "0A000"),
        (query(&format!("SELECT 1; DEALLOCATE {name}")), "0A000"),
        (query(&format!("DEALLOCATE {name}")), "26000"),
        (query(&format!("EXECUTE {name}")), "26000"),
        (query(&format!("SELECT 1; EXECUTE {name}")), "26000"),
        (query(&format!("PREPARE {name} AS SELECT 1; SELECT 2")), "0A000"),
        (query("PREPARE s AS SELECT 1; SELECT 2"), "42P05"),
        (group(&[&format!("DEALLOCATE {name}"), "SELECT 1"]), "26000"),
        (group(&[&format!("EXECUTE {name}")]), "26000"),
        // By itself PREPARE is given another name there.
        (group(&[&format!("PREPARE {name} AS SELECT 1"), &format!("DEALLOCATE {name}")]), ""),
        (group(&["SELECT 1", "DISCARD ALL"]), "25001"),
        (group(&["DEALLOCATE s", "SELECT 1"]), ""),
        (group(&["DEALLOCATE s"]), "26000"),
        (group(&["SELECT 1", "DEALLOCATE ALL", "SELECT 2"]), ""),
    ];
    for case in &cases {
        asks(&mut one, std::slice::from_ref(case)).await?;
        still_has(&mut other, name).await?;
    }
    // A portal that is left for later.
    for sql in ["DEALLOCATE ALL", "DISCARD ALL"] {
        one.send(&[parse("", sql), bind("", "", &[], false), flush()].concat()).await?;
        let error = one.until('E').await?.pop().map(|it| it.error()).unwrap_or_default();
        assert!(error.starts_with("0A000"), "{error}");
        one.ask(&sync(), 1).await?;
        still_has(&mut other, name).await?;
    }
    // A portal that was executed is not there to be executed for real.
    one.send(&[&extended("DEALLOCATE ALL")[..], &flush()].concat()).await?;
    one.until('C').await?;
    asks(&mut one, &[([execute("", 0), sync()].concat(), "34000")]).await?;
    still_has(&mut other, name).await
}

/// The server is the client's own for as long as it is pinned, but for the statements that others will meet.
async fn of_a_pinned_client(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let log_in = || Wire::log_in(keyway.listen(), USER, APP_PASSWORD, SingleFixture::DATABASE, &[]);
    let mut one = log_in().await?;
    let (mut other, name) = other_client(log_in()).await?;
    let group =
        |parts: &[&str]| -> Vec<u8> { parts.iter().flat_map(|it| extended(it)).chain(sync()).collect() };
    let cases: [Ask; 11] = [
        (query("CREATE TEMP TABLE mine (a int)"), ""),
        (query(&format!("DEALLOCATE {name}")), "26000"),
        (group(&[&format!("DEALLOCATE {name}")]), "26000"),
        (query("SELECT 1; DEALLOCATE ALL"), "0A000"),
        (query("DEALLOCATE ALL; DEALLOCATE ALL"), "0A000"),
        (group(&["DEALLOCATE ALL", "SELECT 1"]), "0A000"),
        // What is the server's is dropped there.
        (group(&["PREPARE p AS SELECT 1", "DEALLOCATE p", "SELECT 2"]), ""),
        (group(&["PREPARE p AS SELECT 1", "DEALLOCATE ALL"]), "0A000"),
        (query("PREPARE q AS SELECT 1; DEALLOCATE q"), ""),
        (query("EXECUTE q"), "26000"),
        (query("DROP TABLE mine"), ""),
    ];
    asks(&mut one, &cases).await?;
    still_has(&mut other, &name).await?;
    // By itself it is for real, and Keyway knows.
    asks(&mut one, &[(query("CREATE TEMP TABLE mine (a int)"), ""), (group(&["DEALLOCATE ALL"]), "")])
        .await?;
    asks(&mut one, &[(query("DROP TABLE mine"), "")]).await?;
    still_has(&mut other, &name).await
}
