//! The same bytes to PostgreSQL and to Keyway: the answers are the same, message for message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyway::demo::shop::USER;
use libtest_mimic::Trial;

use crate::harness::wire::{
    Message, Wire, bind, close, describe, execute, flush, message, parse, query, startup, sync,
};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, SingleFixture, unsharded_config, until,
};

/// A buffer of Keyway's holds an answer of so many bytes, and no two sockets so many answers.
const LATE_BYTES: usize = 6_000;
const LATE_ANSWERS: usize = 3_000;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("protocol::answers_are_postgresqls", answers_are_postgresqls),
        harness.test("protocol::flush_brings_answers_before_sync", flush_brings_answers_before_sync),
        harness.test("protocol::an_answer_of_keyways_ends_a_flushed_pipeline", answers_end_pipelines),
        harness.test("protocol::bytes_one_by_one", bytes_one_by_one),
        harness.test("protocol::long_messages_stream_through", long_messages_stream_through),
        harness
            .test("protocol::a_client_that_reads_late_gets_all_answers", a_client_that_reads_late_gets_all),
        harness.test("protocol::encryption_is_declined_and_login_goes_on", encryption_is_declined),
        harness.test("protocol::a_newer_protocol_is_negotiated", a_newer_protocol_is_negotiated),
        harness.test("protocol::the_greeting_is_postgresqls", the_greeting_is_postgresqls),
    ]
}

/// The same session to both.
async fn both(fixture: &SingleFixture) -> Fallible<[Wire; 2]> {
    let addresses: [SocketAddr; 2] = [fixture.shard.primary.address().parse()?, fixture.keyway.listen()];
    let [direct, through] = addresses
        .map(|it| Wire::log_in(it, USER, APP_PASSWORD, SingleFixture::DATABASE, &[("timezone", "UTC")]));
    Ok([direct.await?, through.await?])
}

/// Units of messages, how many answers end in ReadyForQuery.
type Conversation = (&'static str, Vec<u8>, usize);

/// In one session one after the other.
fn conversations() -> Vec<Conversation> {
    [simple(), extended(), copies()].concat()
}

fn all(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

fn simple() -> Vec<Conversation> {
    vec![
        ("an empty query", query(""), 1),
        ("only a comment", query("-- nothing"), 1),
        ("several statements", query("SELECT 1; SELECT 'b' AS x, NULL; SELECT 3 WHERE false"), 1),
        ("an error in the middle", query("SELECT 1; SELECT 1/0; SELECT 2"), 1),
        ("a syntax error", query("SELECT 1 FRO t"), 1),
        ("two queries in one packet", all(&[query("SELECT 1"), query("SELECT 2")]), 2),
        ("a notice", query("DO $$ BEGIN RAISE NOTICE 'heard' USING HINT = 'listen'; END $$"), 1),
        ("a transaction's status", all(&[query("BEGIN"), query("SELECT 1"), query("SELECT 1/0")]), 3),
        ("an aborted transaction", all(&[query("SELECT 1"), query("COMMIT"), query("SELECT 2")]), 3),
        ("BEGIN twice", all(&[query("BEGIN"), query("BEGIN"), query("ROLLBACK")]), 3),
        ("COMMIT without BEGIN", query("COMMIT"), 1),
    ]
}

fn extended() -> Vec<Conversation> {
    let whole = |sql: &str, values: &[&str]| {
        all(&[parse("", sql), bind("", "", values, false), describe('P', ""), execute("", 0), sync()])
    };
    let mut conversations = vec![
        ("unnamed, text", whole("SELECT $1::int + 1, $2::text", &["41", "it's"]), 1),
        ("unnamed, an error at Bind", whole("SELECT $1::int", &["x"]), 1),
        ("unnamed, an error at Execute", whole("SELECT 1 / $1::int", &["0"]), 1),
        ("unnamed, an error at Parse", whole("SELECT nothing", &[]), 1),
        ("no rows to describe", whole("SET work_mem = '5MB'", &[]), 1),
        ("an empty statement", whole("", &[]), 1),
        (
            "named, described, binary",
            all(&[
                parse("s1", "SELECT $1::int8 AS a, $2::text AS b"),
                describe('S', "s1"),
                bind("", "s1", &["7", "x"], true),
                execute("", 0),
                sync(),
            ]),
            1,
        ),
        ("named, again", all(&[bind("", "s1", &["8", "y"], false), execute("", 0), sync()]), 1),
        ("a name that is taken", all(&[parse("s1", "SELECT 2"), sync()]), 1),
        ("named, closed", all(&[close('S', "s1"), sync()]), 1),
        ("a name that is gone", all(&[bind("", "s1", &[], false), execute("", 0), sync()]), 1),
        ("closing what never was", all(&[close('S', "nothing"), close('P', "nothing"), sync()]), 1),
        ("a portal that never was", all(&[execute("nothing", 0), sync()]), 1),
        ("describing what never was", all(&[describe('S', "nothing"), sync()]), 1),
    ];
    conversations.extend(pipelines(&whole));
    conversations
}

fn pipelines(whole: &dyn Fn(&str, &[&str]) -> Vec<u8>) -> Vec<Conversation> {
    vec![
        (
            "rows in parts",
            all(&[
                parse("", "SELECT generate_series(1, 5)"),
                bind("p", "", &[], false),
                execute("p", 2),
                execute("p", 2),
                execute("p", 2),
                sync(),
            ]),
            1,
        ),
        (
            "an error skips to Sync, twice",
            all(&[
                parse("", "SELECT 1/0"),
                bind("", "", &[], false),
                execute("", 0),
                parse("lost", "SELECT 1"),
                execute("", 0),
                sync(),
                bind("", "lost", &[], false),
                sync(),
                sync(),
            ]),
            3,
        ),
        (
            "a pipeline is one transaction",
            all(&[
                whole("CREATE TABLE protocol_t (a int UNIQUE)", &[]),
                parse("i", "INSERT INTO protocol_t VALUES ($1)"),
                bind("", "i", &["1"], false),
                execute("", 0),
                bind("", "i", &["1"], false),
                execute("", 0),
                sync(),
                whole("SELECT count(*) FROM protocol_t", &[]),
                whole("DROP TABLE protocol_t", &[]),
            ]),
            4,
        ),
    ]
}

fn copies() -> Vec<Conversation> {
    vec![
        ("COPY out", query("COPY (VALUES (1, 'a'), (2, NULL)) TO STDOUT"), 1),
        (
            "COPY in",
            all(&[
                query("CREATE TEMP TABLE c (a int)"),
                query("COPY c FROM STDIN"),
                message('d', b"1\n2\n"),
                message('d', b"3\n"),
                message('c', b""),
                query("SELECT sum(a) FROM c"),
            ]),
            3,
        ),
        ("COPY in that fails", all(&[query("COPY c FROM STDIN"), message('f', b"no more\0")]), 1),
        (
            "COPY in with bad data",
            all(&[query("COPY c FROM STDIN"), message('d', b"x\n"), message('c', b""), query("SELECT 1")]),
            2,
        ),
        (
            "COPY in, extended",
            all(&[
                parse("", "COPY c FROM STDIN"),
                bind("", "", &[], false),
                execute("", 0),
                sync(),
                message('d', b"7\n"),
                message('c', b""),
                sync(),
            ]),
            1,
        ),
        ("a stray CopyDone", all(&[message('c', b""), query("SELECT max(a) FROM c")]), 1),
        ("dropping it", query("DISCARD ALL"), 1),
    ]
}

async fn answers_are_postgresqls(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let [mut direct, mut through] = both(fixture).await?;
    for (name, bytes, answers) in conversations() {
        let want = direct.ask(&bytes, answers).await.map_err(|it| format!("{name}, directly: {it}"))?;
        let got = through.ask(&bytes, answers).await.map_err(|it| format!("{name}: {it}"))?;
        assert_eq!(shown(&got), shown(&want), "{name}");
    }
    Ok(())
}

/// What must be equal: all but the source lines that PostgreSQL adds to errors and a Keyway's cannot have.
fn shown(messages: &[Message]) -> Vec<String> {
    let show = |it: &Message| match it.tag {
        'E' | 'N' => {
            let fields = ['S', 'V', 'C', 'M', 'D', 'H', 'P', 'W', 'n', 's', 't', 'c'];
            let told = fields.iter().filter_map(|of| Some(format!("{of}{}", it.field(*of)?)));
            format!("{} {}", it.tag, told.collect::<Vec<_>>().join(" | "))
        }
        tag => format!("{tag} {}", it.body.escape_ascii()),
    };
    messages.iter().map(show).collect()
}

async fn flush_brings_answers_before_sync(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    for mut wire in both(fixture).await? {
        wire.send(&[parse("f", "SELECT $1::int"), describe('S', "f"), flush()].concat()).await?;
        let tags: Vec<char> = wire.until('T').await?.iter().map(|it| it.tag).collect();
        assert_eq!(tags, ['1', 't', 'T']);
        wire.send(&[bind("", "f", &["5"], false), execute("", 0), flush()].concat()).await?;
        let tags: Vec<char> = wire.until('C').await?.iter().map(|it| it.tag).collect();
        assert_eq!(tags, ['2', 'D', 'C']);
        let end = wire.ask(&sync(), 1).await?;
        assert_eq!(shown(&end), ["Z I"]);
        // An error is told at once, and the rest is ignored until Sync.
        wire.send(&[parse("", "SELECT nothing"), flush()].concat()).await?;
        assert!(wire.message().await?.error().starts_with("42703"));
        let end = wire.ask(&[execute("", 0), sync()].concat(), 1).await?;
        assert_eq!(shown(&end), ["Z I"]);
        assert_eq!(wire.rows("SELECT 'well'").await?, ["well"]);
    }
    Ok(())
}

/// What Keyway answers itself behind a Flush has the server commit, or abort, what came before it.
async fn answers_end_pipelines(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let extended = |sql| [parse("", sql), bind("", "", &[], false), execute("", 0), sync()].concat();
    let endings = [
        (extended("DEALLOCATE d"), "12CZ", "committed"),
        (query("DEALLOCATE d"), "CZ", "committed"),
        (query("DEALLOCATE ALL"), "CZ", "committed"),
        (extended("DISCARD ALL"), "12EZ", "aborted"),
        (query("DISCARD ALL"), "EZ", "aborted"),
    ];
    for mut wire in both(fixture).await? {
        for (ending, expected, fate) in &endings {
            wire.ask(&[parse("d", "SELECT 1"), sync()].concat(), 1).await?;
            let begun =
                [parse("", "SELECT txid_current()"), bind("", "", &[], false), execute("", 0), flush()];
            wire.send(&begun.concat()).await?;
            let answer = wire.until('C').await?;
            let row = answer.iter().find(|it| it.tag == 'D').ok_or("no row")?;
            let id = String::from_utf8_lossy(&row.body[6..]).into_owned();
            let answer = wire.ask(ending, 1).await?;
            // An error of Keyway's comes without what a server has done of the group before it.
            let tags: String = answer.iter().map(|it| it.tag).collect();
            assert!(tags == *expected || tags == "EZ" && expected.ends_with("EZ"), "{tags} for {expected}");
            if *fate == "aborted" {
                let error = answer.iter().find(|it| it.tag == 'E').ok_or("no error")?.error();
                assert!(error.starts_with("25001 DISCARD ALL cannot "), "{error}");
                wire.ask(&query("DEALLOCATE d"), 1).await?;
            }
            assert_eq!(wire.rows(&format!("SELECT txid_status({id})")).await?, [*fate], "{expected}");
        }
    }
    Ok(())
}

async fn bytes_one_by_one(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let [_, mut through] = both(fixture).await?;
    let bytes =
        [query("SELECT 'slow'"), parse("", "SELECT 2"), bind("", "", &[], false), execute("", 0), sync()];
    for byte in bytes.concat() {
        through.send(&[byte]).await?;
    }
    let answers = [through.until('Z').await?, through.until('Z').await?].concat();
    let tags: String = answers.iter().map(|it| it.tag).collect();
    assert_eq!(tags, "TDCZ12DCZ");
    Ok(())
}

/// Far more than any buffer, both ways.
async fn long_messages_stream_through(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let [_, mut through] = both(fixture).await?;
    let long = "x".repeat(5_000_000);
    let rows = through.rows(&format!("SELECT '{long}'")).await?;
    assert!(rows == [long.as_str()]);
    let bound =
        [parse("", "SELECT $1::text"), bind("", "", &[&long], false), execute("", 0), sync()].concat();
    let answer = through.ask(&bound, 1).await?;
    assert!(answer.iter().any(|it| it.tag == 'D' && it.body.ends_with(long.as_bytes())));
    assert_eq!(
        through.rows("SELECT count(*) FROM (SELECT repeat('y', 1000), generate_series(1, 20000)) a").await?,
        ["20000"]
    );
    Ok(())
}

/// Each of them is there in one piece, and all of them are more than sockets hold: Keyway has to wait for its client amid
/// one of them.
async fn a_client_that_reads_late_gets_all(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let keyway = harness.start_keyway(|listen, admin| unsharded_config(shard, listen, admin)).await?;
    let mut wire = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, SingleFixture::DATABASE, &[]).await?;
    let text = "x".repeat(LATE_BYTES);
    let extended = |sql: &str| [parse("", sql), bind("", "", &[], false), execute("", 0), sync()].concat();
    for (ask, tags) in [(query as fn(&str) -> Vec<u8>, "TDCZ"), (extended, "12DCZ")] {
        let sql = |it: usize| format!("SELECT '{it} ' || repeat('x', {LATE_BYTES})");
        let asked: Vec<Vec<u8>> = (0..LATE_ANSWERS).map(|it| ask(&sql(it))).collect();
        wire.send(&asked.concat()).await?;
        let before = AtomicUsize::new(0);
        until("Keyway waits for its client", async || {
            let sent = client_bytes(&keyway.metrics().await?);
            Ok(sent > 0 && before.swap(sent, Ordering::Relaxed) == sent)
        })
        .await?;
        for it in 0..LATE_ANSWERS {
            let answer = wire.until('Z').await?;
            assert_eq!(answer.iter().map(|it| it.tag).collect::<String>(), tags);
            let row = answer.iter().find(|it| it.tag == 'D').ok_or("no row")?;
            let is_own = row.body.ends_with(format!("{it} {text}").as_bytes());
            assert!(is_own && row.body.len() == 2 + 4 + format!("{it} {text}").len(), "answer {it}");
        }
    }
    Ok(())
}

/// All that clients have been sent of servers.
fn client_bytes(metrics: &str) -> usize {
    let values = metrics.lines().filter(|it| it.starts_with("keyway_query_bytes_total{"));
    values.filter_map(|it| it.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

async fn encryption_is_declined(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let mut wire = Wire::connect(fixture.keyway.listen()).await?;
    for code in [80_877_103u32, 80_877_104] {
        let request = [8u32.to_be_bytes(), code.to_be_bytes()].concat();
        wire.send(&request).await?;
        assert_eq!(wire.bytes(1).await?, b"N");
    }
    wire.send(&startup(196_608, &[("user", USER), ("database", SingleFixture::DATABASE)])).await?;
    wire.prove(APP_PASSWORD).await?;
    assert_eq!(wire.until('Z').await?.last().map(|it| it.tag), Some('Z'));
    Ok(())
}

async fn a_newer_protocol_is_negotiated(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single18().await?;
    let mut answers = Vec::new();
    for address in [fixture.shard.primary.address().parse()?, fixture.keyway.listen()] {
        let mut wire = Wire::connect(address).await?;
        let parameters = [("user", USER), ("database", SingleFixture::DATABASE), ("_pq_.nothing", "1")];
        wire.send(&startup(196_610, &parameters)).await?;
        answers.push(wire.message().await?);
    }
    assert_eq!(answers[1], answers[0]);
    Ok(())
}

/// The same parameters, in the same order.
async fn the_greeting_is_postgresqls(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let mut greetings = Vec::new();
    for address in [fixture.shard.primary.address().parse()?, fixture.keyway.listen()] {
        let mut wire = Wire::connect(address).await?;
        let settings =
            [("application_name", "greeting"), ("DateStyle", "German"), ("client_encoding", "UTF8")];
        let parameters = [&[("user", USER), ("database", SingleFixture::DATABASE)], &settings[..]].concat();
        wire.send(&startup(196_608, &parameters)).await?;
        wire.prove(APP_PASSWORD).await?;
        let mut told: Vec<String> = wire
            .until('Z')
            .await?
            .iter()
            .filter(|it| it.tag == 'S')
            .map(|it| it.body.escape_ascii().to_string())
            .collect();
        told.sort();
        greetings.push(told);
    }
    // A replica may have answered, and says so.
    for it in &mut greetings {
        it.retain(|it| !it.starts_with("in_hot_standby"));
    }
    assert_eq!(greetings[1], greetings[0]);
    Ok(())
}
