//! What a read sees at each level of consistency, while replicas lag, pause and die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio_postgres::Client;

use crate::harness::wire::{Wire, bind, execute, flush, parse, query, sync};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, OwnDatabase, OwnShard, Shared, SingleFixture,
    TEST_TIMEOUT, Xorshift, assert_error, connect, error_of, own_config, rows, run, until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("consistency::global_sees_what_others_wrote", global),
        harness.test("consistency::positions_are_carried_to_other_sessions", positions),
        harness.test("consistency::other_levels_see_less", levels),
        harness.test("consistency::a_transaction_is_seen_when_it_is_committed", transactions),
        harness.test("consistency::what_is_written_is_told_by_the_catalog", catalog),
        harness.test("consistency::whatever_way_it_is_written", ways),
        harness.test("consistency::however_it_ends", later_ends),
        harness.test("consistency::a_commit_that_is_not_written_yet_counts", not_written),
        harness.test("consistency::a_transaction_on_a_replica_waits", waits),
        harness.test_within(causal_limit(), "consistency::no_read_goes_back_under_faults", causal),
        harness.test_within(
            causal_limit(),
            "consistency::no_read_goes_back_with_shared_answers",
            causal_together,
        ),
        harness.test("consistency::the_checker_finds_what_is_wrong", checker_finds),
    ]
}

/// Each seed at two levels, and as long as any other test for what comes before and behind.
fn causal_limit() -> Duration {
    let seeds = from_environment("KEYWAY_CAUSAL_SEEDS", 1).unwrap_or(1);
    let seconds = from_environment("KEYWAY_CAUSAL_SECONDS", 6).unwrap_or(6);
    TEST_TIMEOUT + Duration::from_secs(seeds * seconds * 3)
}

/// `served` tells which server answers, and is of no table.
const SCHEMA: &str = "CREATE TABLE kv (id bigint PRIMARY KEY, v bigint NOT NULL DEFAULT 0); \
    CREATE TABLE other (id bigint PRIMARY KEY, v bigint); \
    CREATE TABLE child (id bigint PRIMARY KEY, kv bigint REFERENCES kv ON DELETE CASCADE); \
    CREATE TABLE audited (id bigint PRIMARY KEY); \
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN UPDATE other SET v = v + 1 WHERE id = 1; RETURN NEW; END'; \
    CREATE TRIGGER audits AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION audit(); \
    CREATE TABLE ruled (id bigint); \
    CREATE RULE raises AS ON INSERT TO ruled DO ALSO UPDATE kv SET v = v + 1 WHERE id = NEW.id; \
    CREATE FUNCTION raise(bigint) RETURNS void LANGUAGE sql AS 'UPDATE kv SET v = v + 1 WHERE id = $1'; \
    CREATE FUNCTION value_of(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT v FROM kv WHERE id = $1'; \
    CREATE VIEW served AS SELECT current_setting('in_hot_standby')::bool AS by_replica; \
    CREATE VIEW doubled AS SELECT id, 2 * v AS v FROM kv; \
    INSERT INTO kv SELECT g, 0 FROM generate_series(1, 200) g; INSERT INTO other VALUES (1, 0), (2, 0)";

async fn start(harness: &Shared, replicas: usize, settings: &str) -> Fallible<OwnDatabase> {
    let own = OwnDatabase::start(harness, replicas, settings, SCHEMA).await?;
    own.until_replicas_serve().await?;
    Ok(own)
}

impl OwnDatabase {
    /// Nothing that was written is missing on any replica.
    async fn until_replicas_serve(&self) -> Fallible<()> {
        let client = self.client().await?;
        until("replicas serve", || async {
            let served = rows(&client, "SELECT by_replica FROM kv, served WHERE id = 1").await?;
            Ok(served == ["t"])
        })
        .await
    }

    async fn pause(&self) -> Fallible<()> {
        for it in &self.servers.shard.replicas {
            it.pause_replay().await?;
        }
        Ok(())
    }

    async fn resume(&self) -> Fallible<()> {
        for it in &self.servers.shard.replicas {
            it.resume_replay().await?;
        }
        Ok(())
    }

    async fn reads(&self, target: &str, reason: &str) -> Fallible<u64> {
        let name = format!(
            "keyway_reads_total{{database=\"{}\",reason=\"{reason}\",target=\"{target}\"}} ",
            SingleFixture::DATABASE
        );
        let metrics = self.keyway.metrics().await?;
        let count = metrics.lines().find_map(|it| it.strip_prefix(&name)).ok_or("no such metric")?;
        Ok(count.parse()?)
    }
}

async fn client_of(keyway: &KeywayProcess) -> Fallible<Client> {
    connect(&keyway.url(USER, APP_PASSWORD, SingleFixture::DATABASE)).await
}

/// The value of a key, and whether a replica told it.
async fn read(client: &Client, id: i64) -> Fallible<(i64, bool)> {
    let sql = format!("SELECT v, by_replica FROM kv, served WHERE id = {id}");
    let row = rows(client, &sql).await?.concat();
    let (value, by_replica) = row.split_once('|').ok_or("no row")?;
    Ok((value.parse()?, by_replica == "t"))
}

async fn global(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 2, "max_lag = \"1h\"").await?;
    let (writer, reader) = (own.client().await?, own.client().await?);
    own.pause().await?;
    let update = "UPDATE kv SET v = v + 1 WHERE id = ";
    run(&writer, &format!("{update} 1")).await?;
    writer.execute("UPDATE kv SET v = v + 1 WHERE id = $1", &[&2i64]).await?;
    run(&writer, "INSERT INTO kv (id, v) VALUES (1001, 5)").await?;
    for id in [1, 2] {
        assert_eq!(read(&reader, id).await?, (1, false), "key {id}");
    }
    assert_eq!(read(&reader, 1001).await?, (5, false));
    // Other rows of the table are as they were; by each protocol.
    for id in [3, 4, 100] {
        assert_eq!(read(&reader, id).await?, (0, true), "key {id}");
        assert_eq!(read(&writer, id).await?, (0, true), "key {id}");
    }
    let by_param = "SELECT v, by_replica FROM kv, served WHERE id = $1";
    for (id, want) in [(2i64, (1i64, false)), (3, (0, true))] {
        let row = reader.query_one(by_param, &[&id]).await?;
        assert_eq!((row.get(0), row.get(1)), want);
    }
    // All rows of it, by whichever name, are no replica's.
    for sql in [
        "SELECT count(*) FROM kv, served WHERE by_replica",
        "SELECT count(*) FROM doubled, served WHERE by_replica",
        "SELECT count(*) FROM kv, served WHERE by_replica AND id IN (1, 3)",
    ] {
        assert_eq!(rows(&reader, sql).await?, ["0"], "{sql}");
    }
    for sql in ["SELECT by_replica FROM other, served WHERE id = 1", "SELECT by_replica FROM served"] {
        assert_eq!(rows(&reader, sql).await?, ["t"], "{sql}");
    }
    // A write of any row raises all of them, until it is replayed.
    run(&writer, "UPDATE kv SET v = v + 1 WHERE v > 100").await?;
    assert_eq!(read(&reader, 3).await?, (0, false));
    assert!(own.reads("primary", "floor").await? > 0 && own.reads("replica", "fresh").await? > 0);
    own.resume().await?;
    until("a replica has it", || async { Ok(read(&reader, 1).await? == (1, true)) }).await?;
    assert_eq!(read(&reader, 1001).await?.0, 5);
    Ok(())
}

/// What one Keyway knows of its own writes, another one does not: the token carries it.
async fn positions(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let other = harness
        .start_keyway(|listen, admin| own_config(&own.servers.shard, listen, admin, "max_lag = \"1h\""))
        .await?;
    let url = other.url(USER, APP_PASSWORD, SingleFixture::DATABASE);
    let (writer, reader) = (own.client().await?, connect(&url).await?);
    assert_eq!(rows(&writer, "SHOW keyway.position").await?, [""], "it has done nothing");
    until("the other one reads from the replica", || async { Ok(read(&reader, 1).await? == (0, true)) })
        .await?;
    run(&writer, "UPDATE kv SET v = 7 WHERE id = 1").await?;
    let replayed = rows(&writer, "SHOW keyway.position").await?.remove(0);
    assert!(replayed.starts_with("main=1:"), "{replayed}");
    own.servers.shard.wait_until_replayed().await?;
    run(&reader, &format!("SET keyway.position = '{replayed}'")).await?;
    until("it is known to be replayed", || async { Ok(read(&reader, 1).await? == (7, true)) }).await?;
    own.pause().await?;
    run(&writer, "UPDATE kv SET v = 8 WHERE id = 1").await?;
    let shown = writer.prepare("SHOW keyway.position").await?;
    assert_eq!(shown.columns()[0].name(), "keyway.position");
    let token: String = writer.query_one(&shown, &[]).await?.get(0);
    assert_ne!(token, replayed);
    assert_eq!(read(&reader, 1).await?, (7, true), "it knows nothing of the write");

    let set = reader.prepare(&format!("SET keyway.position TO '{token}'")).await?;
    reader.execute(&set, &[]).await?;
    assert_eq!(read(&reader, 1).await?, (8, false));
    assert_eq!(read(&reader, 2).await?, (0, false), "nobody knows of which rows it is");
    assert_eq!(rows(&reader, "SHOW keyway.position").await?.remove(0).split(':').next(), Some("main=1"));
    for (level, expect) in [("session", (8, false)), ("eventual", (7, true)), ("global", (8, false))] {
        run(&reader, &format!("SET keyway.consistency = '{level}'")).await?;
        assert_eq!(read(&reader, 1).await?, expect, "{level}");
    }
    // Nothing is given up by that, nor by an older one.
    for sql in [
        "RESET keyway.position".to_owned(),
        format!("SET keyway.position = '{replayed}'"),
        "SET keyway.position = ''".to_owned(),
    ] {
        run(&reader, &sql).await?;
        assert_eq!(read(&reader, 1).await?, (8, false), "{sql}");
    }
    // From the first statement on, for a pool that is told at connecting.
    let fresh = connect(&format!("{url}?options=-c%20keyway.position%3D{token}")).await?;
    assert_eq!(read(&fresh, 1).await?, (8, false));
    let fresh = connect(&url).await?;
    assert_eq!(read(&fresh, 1).await?, (7, true));
    for (sql, state, message) in [
        ("SET keyway.position = 'here'", "22023", "\"here\""),
        ("SET keyway.position = 'other=1:0/1'", "22023", "other"),
        ("SELECT set_config('keyway.position', 'x', false)", "22023", "can only be set by SET"),
        ("SET keyway.position = ''; SELECT 1", "0A000", "several statements"),
    ] {
        assert_error(&error_of(&fresh, sql).await?, state, message);
    }
    assert!(connect(&format!("{url}?options=-c%20keyway.position%3Dx")).await.is_err());
    own.resume().await?;
    until("the replica has it", || async { Ok(read(&reader, 1).await? == (8, true)) }).await?;
    Ok(())
}

async fn levels(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let (writer, reader) = (own.client().await?, own.client().await?);
    own.pause().await?;
    run(&writer, "UPDATE kv SET v = 1 WHERE id = 1").await?;
    assert_eq!(read(&reader, 1).await?, (1, false));
    let hinted = |level: &str| {
        format!("/* keyway: consistency={level} */ SELECT v, by_replica FROM kv, served WHERE id = 1")
    };
    assert_eq!(rows(&reader, &hinted("eventual")).await?, ["0|t"]);
    assert_eq!(rows(&reader, &hinted("primary")).await?, ["1|f"]);
    // The session has seen it: at no level but one does it forget that.
    assert_eq!(rows(&reader, &hinted("session")).await?, ["1|f"]);
    let fresh = own.client().await?;
    assert_eq!(rows(&fresh, &hinted("session")).await?, ["0|t"], "it has seen nothing yet");
    run(&fresh, "SET keyway.consistency = 'session'").await?;
    assert_eq!(read(&fresh, 1).await?, (0, true));
    run(&fresh, "UPDATE kv SET v = v + 1 WHERE id = 2").await?;
    assert_eq!(read(&fresh, 2).await?, (1, false), "its own write");
    run(&fresh, "SET keyway.consistency = 'eventual'").await?;
    assert_eq!(read(&fresh, 2).await?, (0, true));
    run(&fresh, "SET keyway.consistency = 'primary'").await?;
    assert_eq!(read(&fresh, 3).await?, (0, false));
    run(&fresh, "RESET keyway.consistency").await?;
    assert_eq!(read(&fresh, 3).await?, (0, true));
    assert_error(&error_of(&fresh, "SET keyway.consistency = 'strong'").await?, "22023", "\"strong\"");
    assert_error(&error_of(&fresh, &hinted("none")).await?, "22023", "\"none\"");
    own.resume().await?;
    Ok(())
}

async fn transactions(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let (writer, reader) = (own.client().await?, own.client().await?);
    own.pause().await?;
    run(&writer, "BEGIN").await?;
    run(&writer, "UPDATE kv SET v = 1 WHERE id = 1").await?;
    run(&writer, "UPDATE kv SET v = 1 WHERE id = 2").await?;
    assert_eq!(read(&reader, 1).await?, (0, true), "it is not committed");
    run(&writer, "COMMIT").await?;
    for id in [1, 2] {
        assert_eq!(read(&reader, id).await?, (1, false));
    }
    run(&writer, "BEGIN").await?;
    run(&writer, "UPDATE kv SET v = 1 WHERE id = 3").await?;
    run(&writer, "ROLLBACK").await?;
    assert_eq!(read(&reader, 3).await?, (0, true), "nothing happened");
    run(&writer, "BEGIN; UPDATE kv SET v = 1 WHERE id = 4; COMMIT").await?;
    assert_eq!(read(&reader, 4).await?, (1, false));
    // While a write is under way nobody knows whether it is committed.
    let direct = own.servers.shard.primary.connect(SingleFixture::DATABASE).await?;
    run(&direct, "BEGIN; SELECT FROM kv WHERE id = 5 FOR UPDATE").await?;
    let waiting = tokio::spawn(async move { run(&writer, "UPDATE kv SET v = 1 WHERE id = 5").await });
    until("it is in flight", || async { Ok(!read(&reader, 5).await?.1) }).await?;
    assert_eq!(read(&reader, 5).await?, (0, false));
    assert_eq!(read(&reader, 6).await?, (0, true));
    run(&direct, "COMMIT").await?;
    waiting.await??;
    assert_eq!(read(&reader, 5).await?, (1, false));
    assert!(own.reads("primary", "in_flight").await? > 0);
    own.resume().await?;
    Ok(())
}

async fn catalog(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let (writer, reader) = (own.client().await?, own.client().await?);
    run(&writer, "INSERT INTO child (id, kv) VALUES (1, 200)").await?;
    own.until_replicas_serve().await?;
    let served = async |sql: &str| Fallible::Ok(rows(&reader, sql).await? == ["t"]);
    let child = "SELECT by_replica FROM served LEFT JOIN child ON child.id = 2";
    until("it is replayed", || served("SELECT by_replica FROM served LEFT JOIN child ON child.id = 1"))
        .await?;
    own.pause().await?;
    assert!(served(child).await?);
    run(&writer, "DELETE FROM kv WHERE id = 200").await?;
    assert!(!served(child).await?, "a cascade may reach any row");
    let other = "SELECT by_replica FROM other, served WHERE id = 2";
    assert!(served(other).await?);
    run(&writer, "INSERT INTO audited VALUES (1)").await?;
    assert!(!served(other).await?, "a trigger writes what its code names");
    assert_eq!(rows(&reader, "SELECT v FROM other WHERE id = 1").await?, ["1"]);
    own.resume().await?;
    until("it is replayed", || served(other)).await?;
    own.pause().await?;
    run(&writer, "DO 'BEGIN UPDATE kv SET v = 9 WHERE id = 1; END'").await?;
    assert_eq!(read(&reader, 1).await?, (9, false));
    assert!(!served(other).await?, "of DO nobody knows");
    own.resume().await?;
    Ok(())
}

/// Each way to raise one key by one.
async fn ways(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let (writer, reader) = (own.client().await?, own.client().await?);
    let mut wire =
        Wire::log_in(own.keyway.listen(), USER, APP_PASSWORD, SingleFixture::DATABASE, &[]).await?;
    let raised = |id: i64| format!("UPDATE kv SET v = v + 1 WHERE id = {id}");
    run(&writer, "PREPARE raise_it (bigint) AS UPDATE kv SET v = v + 1 WHERE id = $1").await?;
    wire.ask(&query("PREPARE raise_it (bigint) AS UPDATE kv SET v = v + 1 WHERE id = $1"), 1).await?;
    let bound = |sql: &str| [parse("", sql), bind("", "", &[], false), execute("", 0)].concat();
    for (name, first) in [
        ("EXECUTE", query("EXECUTE raise_it(1)")),
        ("EXECUTE by Bind", [bound("EXECUTE raise_it(1)"), sync()].concat()),
        ("EXECUTE in a text", query("SELECT 1; EXECUTE raise_it(1)")),
        ("EXPLAIN ANALYZE EXECUTE", query("EXPLAIN ANALYZE EXECUTE raise_it(1)")),
        ("two statements", query("SELECT 1; UPDATE kv SET v = v + 1 WHERE id = 1")),
        ("a CTE", query("WITH w AS (UPDATE kv SET v = v + 1 WHERE id = 1 RETURNING v) SELECT * FROM w")),
        ("a function", query("SELECT raise(1)")),
        ("a rule", query("INSERT INTO ruled VALUES (1)")),
        ("a rule, by Bind", [bound("INSERT INTO ruled VALUES (1)"), sync()].concat()),
        ("DO", query("DO 'BEGIN PERFORM raise(1); END'")),
        (
            "a transaction in a pipeline",
            [bound("BEGIN"), bound(&raised(1)), bound("COMMIT"), sync()].concat(),
        ),
        (
            "a statement behind ROLLBACK",
            [bound("BEGIN"), bound("ROLLBACK"), bound(&raised(1)), sync()].concat(),
        ),
    ] {
        own.resume().await?;
        until("it is replayed", || async { Ok(read(&reader, 1).await?.1) }).await?;
        let (before, _) = read(&reader, 1).await?;
        own.pause().await?;
        let answer = wire.ask(&first, 1).await?;
        assert!(answer.iter().all(|it| it.tag != 'E'), "{name}: {answer:?}");
        assert_eq!(read(&reader, 1).await?, (before + 1, false), "{name}");
    }
    // What DDL has made is there.
    run(&writer, "CREATE FUNCTION made(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'").await?;
    assert_eq!(rows(&reader, "SELECT made(1)").await?, ["2"]);
    run(&writer, "CREATE TYPE mood AS ENUM ('sad')").await?;
    assert_eq!(rows(&reader, "SELECT 'sad'::mood").await?, ["sad"]);
    own.resume().await?;
    Ok(wire.shut().await?)
}

/// The same of what ends in other requests than it began.
async fn later_ends(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let reader = own.client().await?;
    let mut wire =
        Wire::log_in(own.keyway.listen(), USER, APP_PASSWORD, SingleFixture::DATABASE, &[]).await?;
    let raised = |id: i64| format!("UPDATE kv SET v = v + 1 WHERE id = {id}");
    wire.ask(&query("PREPARE raise_it (bigint) AS UPDATE kv SET v = v + 1 WHERE id = $1"), 1).await?;
    let bound = |sql: &str| [parse("", sql), bind("", "", &[], false), execute("", 0)].concat();
    for name in ["behind ROLLBACK", "behind ROLLBACK and Flush", "behind ROLLBACK TO", "AND CHAIN", "EXECUTE"]
    {
        own.resume().await?;
        until("it is replayed", || async { Ok(read(&reader, 1).await?.1) }).await?;
        let (before, _) = read(&reader, 1).await?;
        own.pause().await?;
        wire.ask(&query("BEGIN"), 1).await?;
        match name {
            "behind ROLLBACK" => {
                wire.ask(&query("SELECT 1"), 1).await?;
                wire.ask(&[bound("ROLLBACK"), bound(&raised(1)), sync()].concat(), 1).await?;
            }
            "behind ROLLBACK and Flush" => {
                wire.ask(&query("SELECT 1"), 1).await?;
                wire.send(&[bound("ROLLBACK"), flush()].concat()).await?;
                wire.until('C').await?;
                wire.ask(&[bound(&raised(1)), sync()].concat(), 1).await?;
            }
            "behind ROLLBACK TO" => {
                wire.ask(&query(&raised(1)), 1).await?;
                wire.ask(&query("SAVEPOINT s"), 1).await?;
                wire.ask(&query("SELECT 1/0"), 1).await?;
                wire.ask(&[bound("ROLLBACK TO s"), bound("COMMIT"), sync()].concat(), 1).await?;
            }
            "AND CHAIN" => {
                wire.ask(&query(&raised(1)), 1).await?;
                wire.ask(&query("COMMIT AND CHAIN"), 1).await?;
                assert_eq!(read(&reader, 2).await?, (0, true), "{name}");
                assert_eq!(read(&reader, 1).await?, (before + 1, false), "{name}");
                wire.ask(&query("ROLLBACK"), 1).await?;
            }
            _ => {
                wire.ask(&query("EXECUTE raise_it(1)"), 1).await?;
                assert_eq!(read(&reader, 1).await?, (before, true), "{name}");
                wire.ask(&query("COMMIT"), 1).await?;
            }
        }
        assert_eq!(read(&reader, 1).await?, (before + 1, false), "{name}");
    }
    own.resume().await?;
    Ok(wire.shut().await?)
}

/// With synchronous_commit off a commit is told before it is in the log that replicas get.
async fn not_written(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let direct = own.servers.shard.primary.connect(SingleFixture::DATABASE).await?;
    // Ten seconds is as rare as it can be.
    run(&direct, "ALTER SYSTEM SET wal_writer_delay = '10s'").await?;
    run(&direct, "SELECT pg_reload_conf()").await?;
    let (writer, reader) = (own.client().await?, own.client().await?);
    run(&writer, "SET synchronous_commit = off").await?;
    for value in 1..=400 {
        run(&writer, &format!("UPDATE kv SET v = {value} WHERE id = 1")).await?;
        // Long enough for samples of the primary that were started since.
        let until = Instant::now() + Duration::from_millis(if value % 100 == 0 { 600 } else { 0 });
        loop {
            assert_eq!(read(&reader, 1).await?.0, value);
            if Instant::now() >= until {
                break;
            }
        }
    }
    // An idle primary is caught up with, wherever its log ends.
    until("a replica has it", || async { Ok(read(&reader, 1).await? == (400, true)) }).await?;
    Ok(())
}

async fn waits(harness: Arc<Shared>) -> Outcome {
    let settings = "max_lag = \"1h\"\npool = { wait_timeout = \"3s\" }";
    let own = start(&harness, 1, settings).await?;
    let (writer, reader) = (own.client().await?, own.client().await?);
    run(&reader, "BEGIN READ ONLY").await?;
    assert_eq!(read(&reader, 1).await?, (0, true));
    own.pause().await?;
    run(&writer, "UPDATE kv SET v = 1 WHERE id = 2").await?;
    assert_eq!(read(&reader, 3).await?, (0, true), "it has other rows");
    let (found, resumed) = tokio::join!(read(&reader, 2), async {
        let waits = format!("keyway_floor_wait_total{{database=\"{}\"}} 1", SingleFixture::DATABASE);
        until("it waits", || async { Ok(own.keyway.metrics().await?.lines().any(|it| it == waits)) }).await?;
        own.resume().await
    });
    resumed?;
    assert_eq!(found?, (1, true), "the same server, when it has the row");
    own.pause().await?;
    run(&writer, "UPDATE kv SET v = 2 WHERE id = 2").await?;
    let late = error_of(&reader, "SELECT v FROM kv WHERE id = 2").await?;
    assert_error(&late, "40001", "in time");
    run(&reader, "ROLLBACK").await?;
    // So does what may write, as far as that is known.
    run(&reader, "BEGIN READ ONLY").await?;
    assert_eq!(read(&reader, 3).await?, (0, true));
    assert_error(&error_of(&reader, "SELECT value_of(2)").await?, "40001", "in time");
    run(&reader, "ROLLBACK").await?;
    assert_eq!(read(&reader, 2).await?, (2, false));
    own.resume().await?;
    Ok(())
}

/// What a run of the checker has seen.
#[derive(Default)]
struct Seen {
    reads: u64,
    by_replica: u64,
    writes: u64,
    wrong: Vec<String>,
}

const REGISTERS: usize = 40;

/// How the checker reads, and of how many registers.
#[derive(Clone, Copy)]
struct Readers {
    registers: usize,
    /// Which server answers is asked too, so that no answer is shared.
    asks_server: bool,
}

const APART: Readers = Readers { registers: REGISTERS, asks_server: true };
/// So few that many read the same at once.
const TOGETHER: Readers = Readers { registers: 6, asks_server: false };

/// Sessions raise registers and read them. A register only grows, so that a read is stale if it is below what anyone
/// was told before the read began (at `global`), or what its own session has written or seen.
async fn check(
    keyway: &KeywayProcess,
    level: &str,
    sessions: usize,
    time: Duration,
    seed: u64,
    readers: Readers,
) -> Fallible<Seen> {
    let told: Arc<Vec<AtomicU64>> = Arc::new((0..readers.registers).map(|_| AtomicU64::new(0)).collect());
    let ends = Instant::now() + time;
    let mut running = Vec::new();
    for session in 0..sessions {
        let (client, told, level) = (client_of(keyway).await?, told.clone(), level.to_owned());
        running.push(tokio::spawn(async move {
            run(&client, &format!("SET keyway.consistency = '{level}'")).await?;
            let mut random = Xorshift(seed.wrapping_mul(0x9E37_79B9).wrapping_add(session as u64 + 1));
            let (mut seen, mut own) = (Seen::default(), vec![0u64; readers.registers]);
            while Instant::now() < ends {
                let register = (random.next() % readers.registers as u64) as usize;
                let id = register as i64 + 1;
                let extended = random.next().is_multiple_of(2);
                if random.next().is_multiple_of(5) {
                    let value = raise(&client, id, extended, random.next().is_multiple_of(3)).await?;
                    told[register].fetch_max(value, Ordering::SeqCst);
                    own[register] = own[register].max(value);
                    seen.writes += 1;
                    continue;
                }
                let all = told[register].load(Ordering::SeqCst);
                let must = if level == "global" { all.max(own[register]) } else { own[register] };
                let (value, by_replica) = match (readers.asks_server, extended) {
                    (true, false) => read(&client, id).await?,
                    (true, true) => {
                        let sql = "SELECT v, by_replica FROM kv, served WHERE id = $1";
                        let row = client.query_one(sql, &[&id]).await?;
                        (row.get(0), row.get(1))
                    }
                    (false, false) => {
                        let sql = format!("SELECT v FROM kv WHERE id = {id}");
                        (rows(&client, &sql).await?.concat().parse()?, false)
                    }
                    (false, true) => {
                        let sql = "SELECT v FROM kv WHERE id = $1";
                        (client.query_one(sql, &[&id]).await?.get(0), false)
                    }
                };
                if (value as u64) < must {
                    let whom = if by_replica { "a replica" } else { "the primary" };
                    seen.wrong.push(format!("register {id}: {value} of {whom}, {must} was told or seen"));
                }
                own[register] = own[register].max(value as u64);
                seen.reads += 1;
                seen.by_replica += u64::from(by_replica);
            }
            Fallible::Ok(seen)
        }));
    }
    let mut all = Seen::default();
    for it in running {
        let seen = it.await??;
        all.reads += seen.reads;
        all.by_replica += seen.by_replica;
        all.writes += seen.writes;
        all.wrong.extend(seen.wrong);
    }
    Ok(all)
}

async fn raise(client: &Client, id: i64, extended: bool, in_transaction: bool) -> Fallible<u64> {
    let sql = "UPDATE kv SET v = v + 1 WHERE id = $1 RETURNING v";
    if in_transaction {
        run(client, "BEGIN").await?;
    }
    let value: i64 = match extended {
        true => client.query_one(sql, &[&id]).await?.get(0),
        false => rows(client, &sql.replace("$1", &id.to_string())).await?.concat().parse()?,
    };
    if in_transaction {
        run(client, "COMMIT").await?;
    }
    Ok(value as u64)
}

/// Pauses and resumes replay, kills replicas and starts them again, until it is told to stop.
async fn disturb(own: &mut OwnShard, seed: u64, stop: &AtomicBool) -> Fallible<u64> {
    let (mut random, mut faults) = (Xorshift(seed | 1), 0);
    let count = own.shard.replicas.len();
    while !stop.load(Ordering::Relaxed) {
        let replica = &mut own.shard.replicas[(random.next() % count as u64) as usize];
        let pause = Duration::from_millis(20 + random.next() % 400);
        match random.next() % 6 {
            0 => {
                replica.kill().await?;
                tokio::time::sleep(pause).await;
                replica.start().await?;
            }
            1 => {
                replica.freeze()?;
                tokio::time::sleep(pause).await;
                replica.thaw()?;
            }
            _ => {
                replica.pause_replay().await?;
                tokio::time::sleep(pause).await;
                replica.resume_replay().await?;
            }
        }
        faults += 1;
        tokio::time::sleep(pause / 2).await;
    }
    Ok(faults)
}

fn from_environment(name: &str, otherwise: u64) -> Fallible<u64> {
    Ok(std::env::var(name).map_or(Ok(otherwise), |it| it.parse())?)
}

/// `make causal SEEDS=10 SECONDS=60 SESSIONS=64` runs it, and `causal_together`, for longer.
async fn causal(harness: Arc<Shared>) -> Outcome {
    let mut own = start(&harness, 2, "max_lag = \"1h\"").await?;
    run_causal(&mut own, APART).await
}

/// The same where reads have answers in common, and answers are kept.
async fn causal_together(harness: Arc<Shared>) -> Outcome {
    let settings = "max_lag = \"1h\"\n[databases.plain.tables.kv]\nshare_reads = true\ncache_ttl = \"1h\"";
    let mut own = start(&harness, 2, settings).await?;
    run_causal(&mut own, TOGETHER).await?;
    let metrics = own.keyway.metrics().await?;
    for result in ["shared", "kept"] {
        let name = format!("keyway_protected_reads_total{{database=\"plain\",result=\"{result}\"}} ");
        let count = metrics.lines().find_map(|it| it.strip_prefix(&name)).ok_or("no such metric")?;
        println!("{count} reads {result}");
        assert!(count.parse::<u64>()? > 0, "none {result}: the run says nothing");
    }
    Ok(())
}

async fn run_causal(own: &mut OwnDatabase, readers: Readers) -> Outcome {
    let seeds = from_environment("KEYWAY_CAUSAL_SEEDS", 1)?;
    let time = Duration::from_secs(from_environment("KEYWAY_CAUSAL_SECONDS", 6)?);
    let sessions = from_environment("KEYWAY_CAUSAL_SESSIONS", 16)? as usize;
    for seed in 1..=seeds {
        for level in ["global", "session"] {
            run(&own.client().await?, "UPDATE kv SET v = 0").await?;
            let stop = AtomicBool::new(false);
            let OwnDatabase { keyway, servers } = &mut *own;
            let checking = async {
                let seen = check(keyway, level, sessions, time, seed, readers).await;
                stop.store(true, Ordering::Relaxed);
                seen
            };
            let (seen, faults) = tokio::join!(checking, disturb(servers, seed * 7919, &stop));
            let (seen, faults) = (seen?, faults?);
            println!(
                "seed {seed}, {level}: {} reads, {} of them by replicas, {} writes, {faults} faults, {} wrong",
                seen.reads,
                seen.by_replica,
                seen.writes,
                seen.wrong.len()
            );
            assert!(
                seen.wrong.is_empty(),
                "seed {seed}, {level}: {:#?}",
                &seen.wrong[..seen.wrong.len().min(9)]
            );
            let says = seen.by_replica > 0 || !readers.asks_server;
            assert!(says && seen.writes > 0 && faults > 0, "the run says nothing");
        }
    }
    Ok(())
}

/// Without floors the same run has stale reads.
async fn checker_finds(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    own.pause().await?;
    let seen = check(&own.keyway, "eventual", 4, Duration::from_millis(1_500), 1, APART).await?;
    assert!(!seen.wrong.is_empty(), "{} reads, {} writes", seen.reads, seen.writes);
    own.resume().await?;
    Ok(())
}
