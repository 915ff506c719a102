//! LISTEN and NOTIFY over fewer server connections than clients: who listens keeps no server, hears what is
//! committed from the answer to LISTEN on, between its statements, and knows what it sent itself.

use std::collections::HashSet;
use std::sync::Arc;

use keyway::demo::shop::USER;
use libtest_mimic::Trial;

use crate::harness::wire::{Message, Wire, bind, execute, parse, query, sync};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, assert_hits, connect,
    rows, run, unsharded_config, until,
};
use crate::sessions::narrow;

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("listen::many_clients_on_one_server", many_clients_on_one_server),
        harness.test("listen::what_follows_its_answer_is_heard", what_follows_its_answer_is_heard),
        harness.test("listen::it_follows_the_transaction", it_follows_the_transaction),
        harness.test("listen::notifications_come_between_statements", they_come_between_statements),
        harness.test("listen::own_notifications_have_the_own_pid", own_notifications_have_the_own_pid),
        harness.test("listen::others_are_known_by_their_pid", others_are_known_by_their_pid),
        harness.test("listen::channels_are_listed", channels_are_listed),
        harness.test("listen::it_ends_with_its_client", it_ends_with_its_client),
        harness.test("listen::it_follows_the_primary", it_follows_the_primary),
        harness.test("listen::it_comes_back_when_its_connection_is_lost", it_comes_back),
        harness.test("listen::one_that_does_not_read_is_given_up", one_that_does_not_read),
        harness.test("listen::channels_are_bounded", channels_are_bounded),
        harness.test("listen::without_a_server_it_is_refused", without_a_server),
        harness.test("listen::on_several_shards_it_is_the_first", on_several_shards),
    ]
}

async fn log_in(keyway: &KeywayProcess) -> Fallible<Wire> {
    Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await
}

/// A client and the pid that it was given.
async fn known(keyway: &KeywayProcess) -> Fallible<(Wire, u32)> {
    let mut wire = Wire::connect(keyway.listen()).await?;
    let parameters = [("user", USER), ("database", DATABASE)];
    wire.send(&crate::harness::wire::startup(196_608, &parameters)).await?;
    wire.prove(APP_PASSWORD).await?;
    let greeting = wire.until('Z').await?;
    let key = greeting.iter().find(|it| it.tag == 'K').ok_or("no BackendKeyData")?;
    Ok((wire, u32::from_be_bytes(key.body[..4].try_into()?)))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    pid: u32,
    channel: String,
    payload: String,
}

fn heard(message: &Message) -> Option<Heard> {
    let (pid, rest) = message.body.split_at_checked(4).filter(|_| message.tag == 'A')?;
    let mut texts = rest.split(|it| *it == 0).map(|it| String::from_utf8_lossy(it).into_owned());
    let pid = u32::from_be_bytes(pid.try_into().ok()?);
    Some(Heard { pid, channel: texts.next()?, payload: texts.next()? })
}

/// The next notification to a client that asks nothing.
async fn next(wire: &mut Wire) -> Fallible<Heard> {
    let messages = wire.until('A').await?;
    messages.last().and_then(heard).ok_or_else(|| format!("no notification: {messages:?}").into())
}

/// Message types of an answer, and what it told.
async fn ask(wire: &mut Wire, sql: &str) -> Fallible<(String, Vec<String>)> {
    let answer = wire.ask(&query(sql), 1).await?;
    if let Some(error) = answer.iter().find(|it| it.tag == 'E') {
        return Err(format!("{sql}: {}", error.error()).into());
    }
    let payloads = answer.iter().filter_map(heard).map(|it| it.payload).collect();
    Ok((answer.iter().map(|it| it.tag).collect(), payloads))
}

async fn gauge(keyway: &KeywayProcess, name: &str) -> Fallible<i64> {
    let metrics = keyway.metrics().await?;
    let line = metrics.lines().find(|it| it.starts_with(&format!("{name}{{"))).ok_or("no such metric")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

async fn until_gauge(keyway: &KeywayProcess, name: &str, value: i64) -> Fallible<()> {
    until(&format!("{name} is {value}"), || async { Ok(gauge(keyway, name).await? == value) }).await
}

async fn many_clients_on_one_server(harness: Arc<Shared>) -> Outcome {
    const CLIENTS: usize = 30;
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let mut clients = Vec::new();
    for index in 0..CLIENTS {
        let mut wire = log_in(&keyway).await?;
        ask(&mut wire, "LISTEN many_all").await?;
        ask(&mut wire, &format!("LISTEN many_{index}; LISTEN \"Many {}\"", index % 2)).await?;
        clients.push(wire);
    }
    assert_eq!(gauge(&keyway, "keyway_listening_clients").await?, CLIENTS as i64);
    assert_eq!(gauge(&keyway, "keyway_channels").await?, CLIENTS as i64 + 3);
    let mut sender = log_in(&keyway).await?;
    ask(&mut sender, "NOTIFY many_all, 'to all'").await?;
    for (index, wire) in clients.iter_mut().enumerate() {
        assert_eq!(next(wire).await?.payload, "to all");
        ask(&mut sender, &format!("SELECT pg_notify('many_{index}', 'to {index}')")).await?;
        let it = next(wire).await?;
        assert_eq!((it.channel, it.payload), (format!("many_{index}"), format!("to {index}")));
    }
    ask(&mut sender, "NOTIFY \"Many 1\"; NOTIFY many_all, 'last'").await?;
    for (index, wire) in clients.iter_mut().enumerate() {
        if index % 2 == 1 {
            assert_eq!(next(wire).await?.channel, "Many 1");
        }
        assert_eq!(next(wire).await?.payload, "last", "and nothing else before");
        // They are served by the one server connection meanwhile.
        assert_eq!(wire.rows("SELECT 1").await?, ["1"]);
    }
    // Each with as many as it was told.
    assert_eq!(gauge(&keyway, "keyway_notifications_total").await?, (CLIENTS * 3 + CLIENTS / 2) as i64);
    assert!(!keyway.metrics().await?.contains("reason=\"LISTEN\""), "nobody is pinned");
    Ok(())
}

/// No wait between the answer to LISTEN and a NOTIFY of somebody else.
async fn what_follows_its_answer_is_heard(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "").await?;
    let mut direct = direct(&harness).await?;
    for turn in 0..50 {
        let mut wire = log_in(&keyway).await?;
        let listen = format!("LISTEN follows_{}", turn % 7);
        if turn % 2 == 0 {
            ask(&mut wire, &listen).await?;
        } else {
            wire.ask(&[parse("", &listen), bind("", "", &[], false), execute("", 0), sync()].concat(), 1)
                .await?;
        }
        ask(&mut direct, &format!("NOTIFY follows_{}, '{turn}'", turn % 7)).await?;
        assert_eq!(next(&mut wire).await?.payload, turn.to_string());
        if turn % 3 == 0 {
            ask(&mut wire, &format!("UNLISTEN follows_{}", turn % 7)).await?;
            ask(&mut direct, &format!("NOTIFY follows_{}, 'not heard'", turn % 7)).await?;
            ask(&mut wire, "LISTEN follows_end").await?;
            ask(&mut direct, "NOTIFY follows_end, 'end'").await?;
            assert_eq!(next(&mut wire).await?.payload, "end");
        }
    }
    Ok(())
}

/// To the primary itself.
async fn direct(harness: &Shared) -> Fallible<Wire> {
    let address = harness.single().await?.shard.primary.address().parse()?;
    Wire::log_in(address, USER, APP_PASSWORD, DATABASE, &[]).await
}

async fn it_follows_the_transaction(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (mut wire, mut sender) = (log_in(&keyway).await?, direct(&harness).await?);
    // What each leaves listened to, of a, b and c.
    for (statements, left) in [
        (&["BEGIN", "LISTEN a", "COMMIT"][..], "a"),
        (&["BEGIN", "LISTEN b", "ROLLBACK"], "a"),
        (&["BEGIN", "LISTEN b", "UNLISTEN a", "ROLLBACK"], "a"),
        (&["BEGIN", "SELECT 1", "LISTEN b", "UNLISTEN a", "COMMIT"], "b"),
        (&["BEGIN", "LISTEN a", "SAVEPOINT s", "LISTEN c", "ROLLBACK TO s", "COMMIT"], "ab"),
        (&["BEGIN", "SAVEPOINT s", "UNLISTEN *", "LISTEN c", "RELEASE s", "COMMIT"], "c"),
        (&["BEGIN", "SAVEPOINT s", "LISTEN a", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s", "COMMIT"], "c"),
        (&["BEGIN", "LISTEN a", "COMMIT AND CHAIN", "LISTEN b", "ROLLBACK"], "ac"),
        (&["BEGIN", "LISTEN b", "ROLLBACK AND CHAIN", "UNLISTEN c", "COMMIT"], "a"),
        (&["START TRANSACTION READ ONLY", "LISTEN c", "END"], "ac"),
        (&["UNLISTEN a; UNLISTEN c"], ""),
        (&["BEGIN; LISTEN a; COMMIT"], "a"),
        (&["SELECT 1; LISTEN b"], "ab"),
        (&["UNLISTEN *"], ""),
        (&["LISTEN a", "SELECT 1; UNLISTEN a"], ""),
        (&["LISTEN a; LISTEN b", "DISCARD ALL"], ""),
        (&["LISTEN a", "CREATE TEMP TABLE listen_t (a int)", "LISTEN b", "UNLISTEN a", "DISCARD ALL"], ""),
    ] {
        for sql in statements {
            ask(&mut wire, sql).await?;
        }
        hears(&mut wire, &mut sender, left).await.map_err(|error| format!("{statements:?}: {error}"))?;
    }
    // One that fails leaves nothing.
    ask(&mut wire, "BEGIN").await?;
    ask(&mut wire, "LISTEN a").await?;
    assert_eq!(wire.error("SELECT 1/0").await?, "22012 division by zero");
    assert!(wire.error("LISTEN b").await?.starts_with("25P02"));
    ask(&mut wire, "COMMIT").await?;
    hears(&mut wire, &mut sender, "").await?;
    // What cannot be followed is refused, and aborts the transaction.
    for sql in ["COMMIT; SELECT 1", "PREPARE TRANSACTION 'x'"] {
        ask(&mut wire, "BEGIN").await?;
        ask(&mut wire, "LISTEN a").await?;
        assert!(wire.error(sql).await?.starts_with("0A000"), "{sql}");
        ask(&mut wire, "ROLLBACK").await?;
    }
    hears(&mut wire, &mut sender, "").await?;
    Ok(())
}

/// Says something on a, b and c, and holds what is heard to `left`.
async fn hears(wire: &mut Wire, sender: &mut Wire, left: &str) -> Fallible<()> {
    // A server that listens itself is done with everything once it has answered: both ways are.
    for channel in ["a", "b", "c"] {
        ask(sender, &format!("NOTIFY {channel}, '{channel}'")).await?;
    }
    let mut got = String::new();
    while got.len() < left.len() {
        got.push_str(&next(wire).await?.payload);
    }
    let more = ask(wire, "SELECT pg_sleep(0.005)").await?.1.concat();
    if format!("{got}{more}") == left { Ok(()) } else { Err(format!("heard {got}{more}, not {left}").into()) }
}

async fn they_come_between_statements(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (mut wire, mut sender) = (log_in(&keyway).await?, direct(&harness).await?);
    ask(&mut wire, "LISTEN between").await?;
    ask(&mut wire, "LISTEN between_end").await?;
    // In a transaction only when it has ended, in front of its ReadyForQuery.
    for (begin, work, end) in [
        ("BEGIN", "SELECT 1", "COMMIT"),
        ("BEGIN", "SELECT 1", "ROLLBACK"),
        ("BEGIN", "LISTEN between", "COMMIT"),
    ] {
        ask(&mut wire, begin).await?;
        ask(&mut wire, work).await?;
        ask(&mut sender, "NOTIFY between, 'held back'").await?;
        // By now it has arrived at Keyway.
        let mut other = log_in(&keyway).await?;
        ask(&mut other, "LISTEN between_other").await?;
        assert_eq!(ask(&mut wire, "SHOW work_mem").await?.1, Vec::<String>::new(), "inside of {end}");
        let (tags, told) = ask(&mut wire, end).await?;
        assert_eq!((&tags[..], &told[..]), ("CAZ", &["held back".to_owned()][..]), "{begin} {work} {end}");
    }
    // While a statement runs: behind its answer.
    wire.send(&query("SELECT pg_sleep(0.3), 'slow'")).await?;
    ask(&mut sender, "NOTIFY between, 'meanwhile'").await?;
    let answer: String = wire.until('Z').await?.iter().map(|it| it.tag).collect();
    assert_eq!(answer, "TDCAZ");
    // By the extended protocol, and not between messages without their Sync.
    let group = [parse("", "SELECT 1"), bind("", "", &[], false), execute("", 0)].concat();
    wire.send(&[group.clone(), crate::harness::wire::flush()].concat()).await?;
    wire.until('C').await?;
    ask(&mut sender, "NOTIFY between, 'unsynced'").await?;
    let mut other = log_in(&keyway).await?;
    ask(&mut other, "LISTEN between_other").await?;
    wire.send(&[group, sync()].concat()).await?;
    let answer: String = wire.until('Z').await?.iter().map(|it| it.tag).collect();
    assert_eq!(answer, "12DCAZ");
    // COPY, and an error.
    ask(&mut sender, "CREATE TABLE between_t (a int)").await?;
    wire.send(&query("COPY between_t FROM STDIN")).await?;
    wire.until('G').await?;
    ask(&mut sender, "NOTIFY between, 'copied'").await?;
    ask(&mut other, "LISTEN between_another").await?;
    use crate::harness::wire::message;
    wire.send(&[message('d', b"1\n"), message('c', b"")].concat()).await?;
    let answer: String = wire.until('Z').await?.iter().map(|it| it.tag).collect();
    assert_eq!(answer, "CAZ");
    wire.send(&query("SELECT 1 / (count(*) - 1) FROM pg_sleep(0.2)")).await?;
    ask(&mut sender, "NOTIFY between, 'in vain'; DROP TABLE between_t").await?;
    let answer: String = wire.until('Z').await?.iter().map(|it| it.tag).collect();
    assert!(answer.ends_with("EAZ"), "{answer}");
    Ok(())
}

async fn own_notifications_have_the_own_pid(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (mut wire, pid) = known(&keyway).await?;
    let mut other = log_in(&keyway).await?;
    for sql in [
        "CREATE TABLE own_t (a int)",
        "CREATE FUNCTION own_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            PERFORM pg_notify('own', 'by trigger'); RETURN NEW; END $$",
        "CREATE TRIGGER own AFTER INSERT ON own_t FOR EACH ROW EXECUTE FUNCTION own_f()",
        "LISTEN own",
    ] {
        ask(&mut wire, sql).await?;
    }
    // Others use the same server connection in between.
    for _ in 0..20 {
        for sql in [
            "NOTIFY own, 'plain'",
            "SELECT pg_notify('own', 'by function')",
            "INSERT INTO own_t VALUES (1)",
            "DO $$ BEGIN PERFORM pg_notify('own', 'by DO'); END $$",
        ] {
            ask(&mut other, "NOTIFY own, 'of the other'").await?;
            let answer = wire.ask(&query(sql), 1).await?;
            let told: Vec<_> = answer.iter().filter_map(heard).collect();
            // In its own answer, in front of ReadyForQuery, after those that came before.
            let (own, others): (Vec<_>, Vec<_>) =
                told.into_iter().partition(|it| it.payload != "of the other");
            assert_eq!(own.len(), 1, "{sql}");
            assert!(own.iter().all(|it| it.pid == pid), "{sql}: {own:?}, not {pid}");
            assert!(others.iter().all(|it| it.pid != pid), "{sql}: {others:?}");
            if others.is_empty() {
                assert_ne!(next(&mut wire).await?.pid, pid);
            }
            ask(&mut other, "SELECT 1").await?;
        }
    }
    // In a transaction with its LISTEN.
    let (mut wire, pid) = known(&keyway).await?;
    for sql in ["BEGIN", "LISTEN own", "NOTIFY own, 'at once'"] {
        assert_eq!(ask(&mut wire, sql).await?.1.len(), 0);
    }
    let answer = wire.ask(&query("COMMIT"), 1).await?;
    let told: Vec<_> = answer.iter().filter_map(heard).collect();
    assert_eq!((told.len(), told[0].pid, &told[0].payload[..]), (1, pid, "at once"));
    ask(&mut other, "DROP TABLE own_t; DROP FUNCTION own_f").await?;
    Ok(())
}

async fn others_are_known_by_their_pid(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let mut wire = log_in(&keyway).await?;
    ask(&mut wire, "LISTEN others").await?;
    for _ in 0..5 {
        let (mut one, pid) = known(&keyway).await?;
        ask(&mut one, "NOTIFY others").await?;
        assert_eq!(next(&mut wire).await?.pid, pid);
    }
    // Who does not come through Keyway has the id that its server knows.
    let mut direct = direct(&harness).await?;
    let pid: u32 = direct.rows("SELECT pg_backend_pid()").await?.concat().parse()?;
    ask(&mut direct, "NOTIFY others").await?;
    assert_eq!(next(&mut wire).await?.pid, pid);
    Ok(())
}

async fn channels_are_listed(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (mut wire, mut other) = (log_in(&keyway).await?, log_in(&keyway).await?);
    let list = "SELECT * FROM pg_listening_channels() ORDER BY 1";
    assert_eq!(wire.rows(list).await?, Vec::<String>::new());
    ask(&mut wire, "LISTEN listed_b; LISTEN \"Listed a\"").await?;
    for _ in 0..3 {
        assert_eq!(wire.rows(list).await?, ["Listed a", "listed_b"]);
        assert_eq!(other.rows(list).await?, Vec::<String>::new());
        assert_eq!(wire.rows("SELECT count(*) FROM pg_catalog.pg_listening_channels()").await?, ["2"]);
        ask(&mut other, "NOTIFY listed_b, 'once'").await?;
        assert_eq!(next(&mut wire).await?.payload, "once");
        assert_eq!(ask(&mut wire, "SELECT 1").await?.1, Vec::<String>::new(), "and not twice");
    }
    let group = [parse("", list), bind("", "", &[], false), execute("", 0), sync()].concat();
    let answer = wire.ask(&group, 1).await?;
    assert_eq!(answer.iter().filter(|it| it.tag == 'D').count(), 2);
    assert_eq!(other.rows(list).await?, Vec::<String>::new());
    ask(&mut wire, "BEGIN").await?;
    assert!(wire.error(list).await?.starts_with("0A000"));
    ask(&mut wire, "ROLLBACK").await?;
    // A server that listens itself because of code is not asked to tell what Keyway tells.
    ask(&mut wire, "DO $$ BEGIN EXECUTE 'LISTEN listed_b'; EXECUTE 'LISTEN listed_c'; END $$").await?;
    assert_eq!(wire.rows(list).await?, ["Listed a", "listed_b", "listed_c"]);
    let mut direct = direct(&harness).await?;
    ask(&mut direct, "NOTIFY listed_b, 'b'; NOTIFY listed_c, 'c'").await?;
    let told = [next(&mut wire).await?.payload, next(&mut wire).await?.payload];
    assert_eq!(HashSet::from(told), HashSet::from(["b".to_owned(), "c".to_owned()]));
    assert_eq!(ask(&mut wire, "SELECT pg_sleep(0.005)").await?.1, Vec::<String>::new());
    ask(&mut wire, "UNLISTEN *").await?;
    assert_eq!(wire.rows(list).await?, Vec::<String>::new());
    assert_eq!(other.rows(list).await?, Vec::<String>::new(), "and the server is free");
    Ok(())
}

async fn it_ends_with_its_client(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (mut stays, mut leaves) = (log_in(&keyway).await?, log_in(&keyway).await?);
    ask(&mut stays, "LISTEN ends_a").await?;
    ask(&mut leaves, "LISTEN ends_a; LISTEN ends_b").await?;
    ask(&mut leaves, "BEGIN").await?;
    ask(&mut leaves, "LISTEN ends_c").await?;
    assert_eq!(gauge(&keyway, "keyway_channels").await?, 2);
    drop(leaves);
    until_gauge(&keyway, "keyway_channels", 1).await?;
    until_gauge(&keyway, "keyway_listening_clients", 1).await?;
    let mut direct = direct(&harness).await?;
    ask(&mut direct, "NOTIFY ends_a, 'still'").await?;
    assert_eq!(next(&mut stays).await?.payload, "still");
    ask(&mut stays, "UNLISTEN ends_a").await?;
    assert_eq!(gauge(&keyway, "keyway_listening_clients").await?, 0);
    // The connection that listens goes too, when nobody has needed it for a while.
    let listeners = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keyway listener' \
        AND query LIKE '%ends_%'";
    let mut asked = 0;
    while direct.rows(listeners).await? != ["0"] {
        asked += 1;
        assert!(asked < 600, "it stays");
        direct.rows("SELECT pg_sleep(0.1)").await?;
    }
    Ok(())
}

async fn it_follows_the_primary(harness: Arc<Shared>) -> Outcome {
    let mut own = harness.fresh_shard(1).await?;
    own.shard.primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
    own.shard.wait_until_replayed().await?;
    let config = |listen: &str, admin: &str| {
        unsharded_config(&own.shard, listen, admin) + "[databases.plain.pool]\nwait_timeout = \"60s\"\n"
    };
    let keyway = harness.start_keyway(config).await?;
    let mut wire = log_in(&keyway).await?;
    ask(&mut wire, "LISTEN moves").await?;
    let mut sender = log_in(&keyway).await?;
    ask(&mut sender, "NOTIFY moves, 'before'").await?;
    assert_eq!(next(&mut wire).await?.payload, "before");
    own.shard.primary.kill().await?;
    own.shard.replicas[0].promote().await?;
    // It is told that it may have missed something, and then hears again.
    let told = wire.until('N').await?;
    let notice = told.last().ok_or("nothing told")?;
    assert!(notice.error().starts_with("01000 notifications may have been missed"), "{}", notice.error());
    assert_eq!(gauge(&keyway, "keyway_listener_losses_total").await?, 1);
    until("a write goes to the new primary", || async {
        let mut sender = log_in(&keyway).await?;
        Ok(ask(&mut sender, "NOTIFY moves, 'after'").await.is_ok())
    })
    .await?;
    assert_eq!(next(&mut wire).await?.payload, "after");
    assert_eq!(wire.rows("SELECT count(*) FROM pg_listening_channels()").await?, ["1"]);
    Ok(())
}

async fn it_comes_back(harness: Arc<Shared>) -> Outcome {
    let keyway = narrow(&harness, "wait_timeout = \"30s\"").await?;
    let (mut wire, mut direct) = (log_in(&keyway).await?, direct(&harness).await?);
    for turn in 0..3 {
        ask(&mut wire, &format!("LISTEN back_{turn}")).await?;
        let ended = direct
            .rows(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
                 WHERE application_name = 'keyway listener' AND query LIKE '%back_%'",
            )
            .await?;
        assert_eq!(ended, ["t"], "one connection listens");
        wire.until('N').await?;
        for channel in 0..=turn {
            ask(&mut direct, &format!("NOTIFY back_{channel}, '{turn}'")).await?;
            assert_eq!(next(&mut wire).await?.channel, format!("back_{channel}"));
        }
    }
    Ok(())
}

async fn one_that_does_not_read(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let config = |listen: &str, admin: &str| {
        unsharded_config(shard, listen, admin) + "[limits]\nnotification_bytes_max = 65536\n"
    };
    let keyway = harness.start_keyway(config).await?;
    let (mut slow, mut waits, mut reads) =
        (log_in(&keyway).await?, log_in(&keyway).await?, log_in(&keyway).await?);
    for wire in [&mut slow, &mut waits, &mut reads] {
        ask(wire, "LISTEN flood").await?;
    }
    ask(&mut waits, "BEGIN").await?;
    let mut direct = direct(&harness).await?;
    let (mut said, mut turn) = (0, 0);
    while keyway.limit_hits("notification_bytes_max").await? < 2 {
        turn += 1;
        assert!(turn < 3000, "it is never too much");
        ask(&mut direct, "SELECT pg_notify('flood', i || repeat('x', 7000)) FROM generate_series(1, 4) i")
            .await?;
        for _ in 0..4 {
            assert!(next(&mut reads).await?.payload.ends_with('x'));
            said += 1;
        }
    }
    // In a transaction nothing was told, so that it is the limit at once.
    let last = waits.until('E').await?.pop().ok_or("nothing")?;
    assert!(
        last.error().starts_with("53400 terminating connection because it does not read"),
        "{}",
        last.error()
    );
    // The one that did not read finds what was sent, and the reason.
    let told = slow.until('E').await?;
    assert!(told.last().ok_or("nothing")?.error().starts_with("53400"), "{:?}", told.last());
    assert!(told.len() < said, "some were dropped");
    ask(&mut direct, "NOTIFY flood, 'over'").await?;
    assert_eq!(next(&mut reads).await?.payload, "over", "others are as before");
    until_gauge(&keyway, "keyway_listening_clients", 1).await?;
    Ok(())
}

async fn channels_are_bounded(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let config =
        |listen: &str, admin: &str| unsharded_config(shard, listen, admin) + "[limits]\nchannels_max = 3\n";
    let keyway = harness.start_keyway(config).await?;
    let mut wire = log_in(&keyway).await?;
    ask(&mut wire, "LISTEN a; LISTEN b").await?;
    assert_eq!(wire.error("LISTEN c; LISTEN d").await?, "54000 a client may listen to 3 channels");
    ask(&mut wire, "BEGIN").await?;
    ask(&mut wire, "LISTEN c").await?;
    ask(&mut wire, "LISTEN a").await?;
    assert!(wire.error("LISTEN d").await?.starts_with("54000"));
    ask(&mut wire, "ROLLBACK").await?;
    assert_eq!(gauge(&keyway, "keyway_channels").await?, 2);
    ask(&mut wire, "UNLISTEN a").await?;
    ask(&mut wire, "LISTEN c; LISTEN d").await?;
    assert_hits(&keyway, "channels_max", 2).await
}

async fn without_a_server(harness: Arc<Shared>) -> Outcome {
    let mut own = harness.fresh_shard(0).await?;
    own.shard.primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
    let config = |listen: &str, admin: &str| {
        unsharded_config(&own.shard, listen, admin) + "[databases.plain.pool]\nwait_timeout = \"500ms\"\n"
    };
    let keyway = harness.start_keyway(config).await?;
    let mut wire = log_in(&keyway).await?;
    own.shard.primary.kill().await?;
    assert!(wire.error("LISTEN nobody").await?.starts_with("57P03 cannot listen"));
    // A transaction that has only listened fails with its COMMIT.
    ask(&mut wire, "BEGIN").await?;
    ask(&mut wire, "LISTEN nobody").await?;
    assert!(wire.error("COMMIT").await?.starts_with("57P03 cannot listen"));
    until_gauge(&keyway, "keyway_channels", 0).await?;
    own.shard.primary.start().await?;
    until("it listens again", || async {
        let mut wire = log_in(&keyway).await?;
        Ok(ask(&mut wire, "LISTEN nobody").await.is_ok())
    })
    .await?;
    Ok(())
}

async fn on_several_shards(harness: Arc<Shared>) -> Outcome {
    let shop = harness.shop().await?;
    let url = shop.url();
    let (one, mut heard) = notified(&url).await?;
    let other = connect(&url).await?;
    run(&one, "LISTEN shards").await?;
    for sql in [
        "NOTIFY shards, 'plain'",
        "SELECT pg_notify('shards', 'function')",
        "BEGIN; NOTIFY shards, 'text'; COMMIT",
    ] {
        run(&other, sql).await?;
    }
    other.execute("SELECT pg_notify($1, $2)", &[&"shards", &"parameters"]).await?;
    for sql in ["BEGIN", "SELECT 1", "NOTIFY shards, 'block'", "COMMIT"] {
        run(&other, sql).await?;
    }
    for want in ["plain", "function", "text", "parameters", "block"] {
        assert_eq!(heard.recv().await.ok_or("the connection ended")?, want, "each once");
    }
    // A transaction stays on its shard.
    let places = rows(&other, "SELECT user_id FROM users WHERE user_id < 40").await?;
    let mut refused = 0;
    for id in places {
        run(&other, "BEGIN").await?;
        run(&other, &format!("SELECT * FROM users WHERE user_id = {id} FOR UPDATE")).await?;
        match other.simple_query("NOTIFY shards, 'not here'").await {
            Ok(_) => drop(run(&other, "ROLLBACK").await?),
            Err(error) => {
                let error = error.as_db_error().ok_or("no error of a server")?.clone();
                assert_eq!(error.code().code(), "0A000", "{error:?}");
                assert!(error.detail().is_some_and(|it| it.contains("first shard") || it.contains("s1")));
                refused += 1;
                run(&other, "ROLLBACK").await?;
            }
        }
    }
    assert!(refused > 0, "some users are on the other shard");
    run(&other, "NOTIFY shards, 'end'").await?;
    assert_eq!(heard.recv().await.ok_or("the connection ended")?, "end");
    assert_eq!(rows(&one, "SELECT pg_listening_channels()").await?, ["shards"]);
    Ok(())
}

/// A client, and the payloads that it is notified of.
async fn notified(url: &str) -> Fallible<(tokio_postgres::Client, tokio::sync::mpsc::Receiver<String>)> {
    let (client, mut connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let (told, heard) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        let next = |cx: &mut std::task::Context<'_>| connection.poll_message(cx);
        let mut next = std::future::poll_fn(next);
        while let Some(Ok(message)) = (&mut next).await {
            if let tokio_postgres::AsyncMessage::Notification(it) = message {
                let _ = told.try_send(it.payload().to_owned());
            }
        }
    });
    Ok((client, heard))
}
