//! What no client should send. Each gets PostgreSQL's own error where there is one, within the login
//! timeout, and a client that behaves notices nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::demo::shop::USER;
use libtest_mimic::Trial;

use crate::harness::wire::{Message, Wire, flush, message, parse, query, startup, sync};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, rows, unsharded_config,
    until,
};

const PROTOCOL: u32 = 196_608;
const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("bad_input::startup_packets", startup_packets),
        harness.test("bad_input::logins", logins),
        harness.test("bad_input::settings_of_the_startup_packet", settings_of_the_startup_packet),
        harness.test("bad_input::silence_ends_with_the_login_timeout", silence),
        harness.test("bad_input::after_login", after_login),
        harness.test("bad_input::a_message_over_the_limit", a_message_over_the_limit),
        harness.test("bad_input::too_many_clients", too_many_clients),
        harness.test("bad_input::a_client_that_never_reads", a_client_that_never_reads),
        harness.test("bad_input::client_encodings", client_encodings),
    ]
}

fn session(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup(PROTOCOL, parameters)
}

/// The first message that comes back, or `None` where the connection just ends.
async fn first_answer(address: SocketAddr, bytes: &[u8]) -> Fallible<Option<Message>> {
    let mut wire = Wire::connect(address).await?;
    wire.send(bytes).await?;
    Ok(wire.message().await.ok())
}

fn told(answer: &Option<Message>) -> Option<String> {
    answer.as_ref().map(Message::error)
}

async fn startup_packets(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let quiet = fixture.client().await?;
    // Of the protocol versions that Keyway speaks.
    let direct: SocketAddr = harness.single18().await?.shard.primary.address().parse()?;
    let with_length = |length: u32, rest: &[u8]| [&length.to_be_bytes()[..], rest].concat();
    for (what, bytes, same) in [
        ("a length of 0", with_length(0, &[]), false),
        ("a length of 7", with_length(7, &[0; 3]), false),
        ("a huge length", with_length(0x7FFF_FFFF, &[0; 8]), false),
        ("a negative length", with_length(0xFFFF_FFFF, &[0; 8]), false),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), false),
        // PostgreSQL says it in the words of that protocol.
        ("protocol 2.0", startup(0x2_0000, &[("user", USER)]), false),
        ("protocol 4.0", startup(0x4_0000, &[("user", USER)]), true),
        ("no user", session(&[("database", DATABASE)]), true),
        ("an empty user", session(&[("user", ""), ("database", DATABASE)]), true),
        ("no terminator", with_length(13, b"\0\x03\0\0user\0"), true),
        ("a name without a value", with_length(14, b"\0\x03\0\0user\0\0"), true),
    ] {
        let got = first_answer(fixture.keyway.listen(), &bytes).await?;
        if same {
            let want = first_answer(direct, &bytes).await?;
            assert_eq!(told(&got), told(&want), "{what}");
        } else if let Some(got) = got {
            // PostgreSQL closes without a word.
            assert!(got.tag == 'E' && ["08P01", "0A000"].contains(&&got.error()[..5]), "{what}");
        }
        assert_eq!(rows(&quiet, "SELECT 1").await?, ["1"], "after {what}");
    }
    Ok(())
}

async fn login_error(address: SocketAddr, user: &str, password: &str, dbname: &str) -> Fallible<String> {
    match Wire::log_in(address, user, password, dbname, &[]).await {
        Ok(_) => Err("let in".into()),
        Err(error) => Ok(error.to_string()),
    }
}

async fn logins(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let quiet = fixture.client().await?;
    let (direct, through) = (fixture.shard.primary.address().parse()?, fixture.keyway.listen());
    for (user, password, dbname, state) in [
        (USER, "wrong", DATABASE, "28P01"),
        (USER, "", DATABASE, "28P01"),
        ("nobody", "wrong", DATABASE, "28P01"),
        (USER, APP_PASSWORD, "nowhere", "3D000"),
    ] {
        let got = login_error(through, user, password, dbname).await?;
        assert_eq!(got, login_error(direct, user, password, dbname).await?);
        assert!(got.starts_with(state), "{got}");
        assert_eq!(rows(&quiet, "SELECT 1").await?, ["1"]);
    }
    // What is no SASL answer.
    for bytes in [message('p', b"SCRAM-SHA-256"), message('p', &[0xff; 40]), query("SELECT 1"), sync()] {
        let mut wire = Wire::connect(through).await?;
        wire.send(&session(&[("user", USER), ("database", DATABASE)])).await?;
        wire.message().await?;
        wire.send(&bytes).await?;
        let answer = wire.message().await?;
        assert_eq!(answer.tag, 'E');
        assert!(["08P01", "28P01", "28000"].contains(&&answer.error()[..5]), "{}", answer.error());
    }
    // By the server, which knows who has the right to it.
    let replication = [("replication", "database")];
    let refused = async |at| match Wire::log_in(at, USER, APP_PASSWORD, DATABASE, &replication).await {
        Ok(_) => Err("a replication connection was let in".into()),
        Err(error) => Fallible::Ok(error.to_string()),
    };
    let error = refused(through).await?;
    assert!(error.starts_with("42501"), "{error}");
    assert_eq!(error, refused(direct).await?);
    assert_eq!(rows(&quiet, "SELECT 1").await?, ["1"]);
    Ok(())
}

async fn settings_of_the_startup_packet(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let (direct, through) = (fixture.shard.primary.address().parse()?, fixture.keyway.listen());
    for settings in [
        [("work_mem", "much")],
        [("no_such_setting", "1")],
        [("options", "-c work_mem=much")],
        [("DateStyle", "Klingon")],
    ] {
        let error = async |address| {
            let login = Wire::log_in(address, USER, APP_PASSWORD, DATABASE, &settings).await;
            login.err().map(|it| it.to_string()).ok_or_else(|| format!("{settings:?} was taken"))
        };
        assert_eq!(error(through).await?, error(direct).await?, "{settings:?}");
    }
    Ok(())
}

async fn own_keyway(harness: &Shared, limits: &str) -> Fallible<KeywayProcess> {
    let shard = &harness.single().await?.shard;
    harness
        .start_keyway(|listen, admin| unsharded_config(shard, listen, admin) + "[limits]\n" + limits + "\n")
        .await
}

async fn clients(keyway: &KeywayProcess) -> Fallible<u64> {
    let metrics = keyway.metrics().await?;
    let line = metrics.lines().find_map(|it| it.strip_prefix("keyway_clients "));
    Ok(line.ok_or("no gauge of clients")?.parse()?)
}

async fn silence(harness: Arc<Shared>) -> Outcome {
    let keyway = own_keyway(&harness, "login_timeout = \"500ms\"").await?;
    let mut good = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let half = session(&[("user", USER), ("database", DATABASE)]);
    let started = Instant::now();
    let mut silent = Vec::new();
    for bytes in [&[][..], &half[..3], &half[..20], &half[..]] {
        let mut wire = Wire::connect(keyway.listen()).await?;
        wire.send(bytes).await?;
        silent.push(wire);
    }
    for mut wire in silent {
        wire.rest().await?;
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(450), "closed after {took:?}");
    assert_eq!(good.rows("SELECT 'still here'").await?, ["still here"]);
    until("one client left", || async { Ok(clients(&keyway).await? == 1) }).await?;
    Ok(())
}

async fn after_login(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let quiet = fixture.client().await?;
    let keyway = &fixture.keyway;
    let (direct, through): (SocketAddr, _) = (fixture.shard.primary.address().parse()?, keyway.listen());
    let raw = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes()[..]].concat();
    for (what, bytes) in [
        ("an unknown type", raw(b'y', 4)),
        ("a type that only servers send", raw(b'T', 4)),
        ("a length below 4", raw(b'Q', 3)),
        ("a negative length", raw(b'Q', 0xFFFF_FFFF)),
        ("a Sync with a huge length", raw(b'S', 0x1000_0000)),
        ("a Query without its end", message('Q', b"SELECT 1")),
        ("a Bind that is cut", [parse("", "SELECT 1"), message('B', b"\0\0\0\x05"), sync()].concat()),
    ] {
        let mut answers = Vec::new();
        for address in [through, direct] {
            let mut wire = Wire::log_in(address, USER, APP_PASSWORD, DATABASE, &[]).await?;
            wire.send(&bytes).await?;
            let first = wire.until('E').await.ok().and_then(|mut it| it.pop());
            answers.push(first);
        }
        let state = |it: &Option<Message>| told(it).map(|it| it[..5].to_owned());
        // Where PostgreSQL closes without a word, Keyway may say why.
        let want = state(&answers[1]).unwrap_or("08P01".to_owned());
        assert_eq!(state(&answers[0]).unwrap_or(want.clone()), want, "{what}");
        assert_eq!(rows(&quiet, "SELECT 1").await?, ["1"], "after {what}");
    }
    // A frame that ends half way, by a close.
    let mut wire = Wire::log_in(through, USER, APP_PASSWORD, DATABASE, &[]).await?;
    wire.send(&query("SELECT 1")[..7]).await?;
    wire.shut().await?;
    // And one that is left hanging keeps no server.
    let mut hanging = Wire::log_in(through, USER, APP_PASSWORD, DATABASE, &[]).await?;
    hanging.send(&query("SELECT 1")[..7]).await?;
    assert_eq!(rows(&quiet, "SELECT 1").await?, ["1"]);
    hanging.send(&query("SELECT 1")[7..]).await?;
    assert_eq!(hanging.until('Z').await?.len(), 4);
    Ok(())
}

async fn a_message_over_the_limit(harness: Arc<Shared>) -> Outcome {
    let keyway = own_keyway(&harness, "message_bytes_max = 65536").await?;
    let mut good = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let long = format!("SELECT '{}'", "x".repeat(70_000));
    for bytes in [query(&long), [parse("", &long), sync()].concat()] {
        let mut wire = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
        // The server side may close before all is written.
        let _ = wire.send(&bytes).await;
        let answer = wire.message().await?;
        assert!(answer.tag == 'E' && answer.error().starts_with("08P01"), "{}", answer.error());
        assert!(answer.field('H').is_some_and(|it| it.contains("message_bytes_max")));
    }
    assert_eq!(good.rows("SELECT length(repeat('x', 200000))").await?, ["200000"]);
    let long = "y".repeat(60_000);
    assert!(good.rows(&format!("SELECT '{long}'")).await? == [long]);
    Ok(())
}

async fn too_many_clients(harness: Arc<Shared>) -> Outcome {
    let keyway = own_keyway(&harness, "clients_max = 2").await?;
    let log_in = || Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]);
    let (mut first, second) = (log_in().await?, log_in().await?);
    let error = log_in().await.err().ok_or("a third client was let in")?.to_string();
    assert_eq!(error, "53300 sorry, too many clients already");
    drop(second);
    until("a place is free", || async { Ok(log_in().await.is_ok()) }).await?;
    assert_eq!(first.rows("SELECT 1").await?, ["1"]);
    Ok(())
}

/// It asks for far more than buffers hold and takes nothing: its server waits, others do not, and the
/// memory of the process stays bounded.
async fn a_client_that_never_reads(harness: Arc<Shared>) -> Outcome {
    let keyway = own_keyway(&harness, "").await?;
    let mut greedy = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let rows = "SELECT repeat('x', 10000) FROM generate_series(1, 20000)";
    greedy.send(&[query(rows), query(rows), parse("", "SELECT 1"), flush()].concat()).await?;
    let mut good = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    for n in 0..200 {
        assert_eq!(good.rows(&format!("SELECT {n}")).await?, [n.to_string()]);
    }
    let resident_kb = keyway.resident_kb()?;
    assert!(resident_kb < 120_000, "{resident_kb} kB for 400 MB that nobody reads");
    drop(greedy);
    until("it is gone", || async { Ok(clients(&keyway).await? == 1) }).await?;
    Ok(())
}

async fn client_encodings(harness: Arc<Shared>) -> Outcome {
    let through = harness.single().await?.keyway.listen();
    for name in ["UTF8", "utf-8", "unicode", "SQL_ASCII"] {
        let mut wire =
            Wire::log_in(through, USER, APP_PASSWORD, DATABASE, &[("client_encoding", name)]).await?;
        assert_eq!(wire.rows("SELECT 'é'").await?, ["é"], "{name}");
    }
    let error = Wire::log_in(through, USER, APP_PASSWORD, DATABASE, &[("client_encoding", "LATIN1")]).await;
    assert!(error.err().ok_or("LATIN1 was taken")?.to_string().starts_with("0A000"));
    let mut wire = Wire::log_in(through, USER, APP_PASSWORD, DATABASE, &[]).await?;
    for sql in [
        "SET client_encoding TO 'SJIS'",
        "SET NAMES 'LATIN1'",
        "SELECT set_config('client_encoding', 'GBK', false)",
    ] {
        assert!(wire.error(sql).await?.starts_with("0A000"), "{sql}");
    }
    assert_eq!(wire.rows("SHOW client_encoding").await?, ["UTF8"]);
    // Where no SET announces it, the session ends before anything is misread.
    wire.send(&query("DO $$ BEGIN PERFORM set_config('client_encoding', 'LATIN1', false); END $$")).await?;
    let rest = String::from_utf8_lossy(&wire.rest().await?).into_owned();
    assert!(rest.contains("FATAL") && rest.contains("LATIN1"), "{rest}");
    Ok(())
}
