//! Reads on replicas that are fresh enough, and what the death of a server costs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use keyway::demo::postgres::Signal;
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use rustix::process::{Pid, kill_process};
use tokio_postgres::Client;

use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, OwnDatabase, Shared, SingleFixture, as_db_error, assert_error,
    error_of, rows, run, unsharded_config, until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("replicas::reads_and_only_reads_go_to_them", reads_and_only_reads_go_to_them),
        harness.test("replicas::one_that_lags_is_left_alone", one_that_lags_is_left_alone),
        harness.test("replicas::without_any_the_primary_reads", without_any_the_primary_reads),
        harness.test("replicas::unknown_lag_is_unfit", unknown_lag_is_unfit),
        harness.test("replicas::a_session_reads_what_it_wrote", a_session_reads_what_it_wrote),
        harness.test("replicas::one_that_dies_costs_no_reader_anything", one_that_dies_costs_nothing),
        harness.test("replicas::a_write_waits_for_a_primary", a_write_waits_for_a_primary),
        harness.test("replicas::a_primary_that_dies_ends_the_transaction", a_primary_that_dies),
        harness.test("replicas::a_primary_that_dies_in_silence", a_primary_that_dies_in_silence),
        harness.test("replicas::a_commit_without_an_answer_is_unknown", a_commit_without_an_answer),
    ]
}

/// Its view tells which server answers by its settings: functions that ask the server where they are would not go to a
/// replica.
const SCHEMA: &str = "CREATE TABLE t (a int); CREATE VIEW here AS \
    SELECT current_setting('port')::int AS port, current_setting('in_hot_standby')::bool AS is_replica, \
    (SELECT count(*) FROM t) AS count";

pub async fn start(harness: &Shared, replicas: usize, settings: &str) -> Fallible<OwnDatabase> {
    OwnDatabase::start(harness, replicas, settings, SCHEMA).await
}

impl OwnDatabase {
    fn primary(&self) -> String {
        self.servers.shard.primary.port().to_string()
    }

    fn replicas(&self) -> BTreeSet<String> {
        self.servers.shard.replicas.iter().map(|it| it.port().to_string()).collect()
    }

    /// Until a read goes to a server of `ports`.
    async fn until_read_on(&self, client: &Client, ports: &BTreeSet<String>) -> Fallible<()> {
        until(&format!("a read on {ports:?}"), || async { Ok(ports.contains(&port(client).await?)) }).await
    }

    async fn count_on_primary(&self) -> Fallible<String> {
        let direct = self.servers.shard.primary.connect(SingleFixture::DATABASE).await?;
        Ok(rows(&direct, "SELECT count(*) FROM t").await?.remove(0))
    }
}

async fn port(client: &Client) -> Fallible<String> {
    Ok(rows(client, "SELECT port FROM here").await?.remove(0))
}

async fn reads_and_only_reads_go_to_them(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 2, "max_lag = \"1h\"").await?;
    let client = own.client().await?;
    for replica in own.replicas() {
        own.until_read_on(&client, &BTreeSet::from([replica])).await?;
    }
    let mut seen = BTreeSet::new();
    // One that has just been slow has fewer for a while.
    let deadline = Instant::now() + Duration::from_secs(60);
    for number in 0.. {
        assert_eq!(rows(&client, "SELECT is_replica FROM here").await?, ["t"]);
        seen.insert(port(&client).await?);
        let port: i32 = client.query_one("SELECT port FROM here", &[]).await?.get(0);
        seen.insert(port.to_string());
        if number >= 40 && (seen.len() == 2 || Instant::now() > deadline) {
            break;
        }
    }
    assert_eq!(seen, own.replicas(), "each of them, and nobody else");
    let prepared = client.prepare("SELECT port FROM here WHERE port > $1").await?;
    for _ in 0..20 {
        let port: i32 = client.query_one(&prepared, &[&0i32]).await?.get(0);
        assert!(own.replicas().contains(&port.to_string()));
    }

    for begin in ["BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"] {
        run(&client, begin).await?;
        let first = port(&client).await?;
        assert!(own.replicas().contains(&first), "{begin}: {first}");
        for _ in 0..10 {
            assert_eq!(port(&client).await?, first, "a transaction stays where it is");
        }
        assert_error(&error_of(&client, "INSERT INTO t VALUES (1)").await?, "25006", "read-only transaction");
        assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
        run(&client, "ROLLBACK").await?;
    }
    for begin in ["BEGIN", "BEGIN READ WRITE", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE"] {
        run(&client, begin).await?;
        assert_eq!(port(&client).await?, own.primary(), "{begin}");
        run(&client, "COMMIT").await?;
    }
    for write in [
        "INSERT INTO t VALUES (1) RETURNING inet_server_port()",
        "UPDATE t SET a = 2 RETURNING inet_server_port()",
        "WITH gone AS (DELETE FROM t RETURNING 1) SELECT inet_server_port() FROM gone",
        "SELECT inet_server_port()",
        "SELECT port FROM here, (SELECT pg_backend_pid()) AS it",
        "CREATE TEMP TABLE mine (a int); SELECT port FROM here",
    ] {
        let client = own.client().await?;
        assert_eq!(rows(&client, write).await?, [own.primary()], "{write}");
    }
    run(&client, "INSERT INTO t VALUES (3)").await?;
    assert_eq!(rows(&client, "SELECT a FROM t FOR UPDATE").await?, ["3"], "a replica cannot lock rows");
    Ok(())
}

async fn one_that_lags_is_left_alone(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"500ms\"").await?;
    let client = own.client().await?;
    let (replica, primary) = (&own.servers.shard.replicas[0], &own.servers.shard.primary);
    own.until_read_on(&client, &own.replicas()).await?;
    replica.pause_replay().await?;
    // Past Keyway: no session of its has a floor.
    let direct = primary.connect(SingleFixture::DATABASE).await?;
    run(&direct, "INSERT INTO t VALUES (1)").await?;
    replica.wait_until_received(primary).await?;
    let written = Instant::now();
    let old = until("a read on the primary", || async {
        let found = rows(&client, "SELECT port, count FROM here").await?.remove(0);
        let (port, count) = found.split_once('|').ok_or("two columns")?;
        assert!(port != own.primary() || count == "1", "the primary has the row");
        assert!(port == own.primary() || count == "0", "the replica does not show it");
        Ok(port == own.primary())
    });
    old.await?;
    assert!(written.elapsed() < Duration::from_secs(10), "{:?}", written.elapsed());
    for _ in 0..50 {
        assert_eq!(rows(&client, "SELECT port, count FROM here").await?, [format!("{}|1", own.primary())]);
        run(&client, "BEGIN READ ONLY").await?;
        assert_eq!(port(&client).await?, own.primary());
        run(&client, "COMMIT").await?;
    }
    // As of its last sample, which may be older than the lag that reads are judged by.
    until("the metric says so too", || async {
        let metrics = own.keyway.metrics().await?;
        let lag = metrics
            .lines()
            .find(|it| it.starts_with("keyway_replica_lag_seconds") && it.contains(&replica.address()))
            .and_then(|it| it.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(lag.is_some_and(|it| it > 0.5))
    })
    .await?;
    replica.resume_replay().await?;
    own.until_read_on(&client, &own.replicas()).await?;
    assert_eq!(rows(&client, "SELECT count FROM here").await?, ["1"]);
    Ok(())
}

async fn without_any_the_primary_reads(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 0, "").await?;
    let client = own.client().await?;
    assert_eq!(port(&client).await?, own.primary());
    run(&client, "BEGIN READ ONLY").await?;
    assert_eq!(rows(&client, "SHOW transaction_read_only").await?, ["on"]);
    assert_eq!(port(&client).await?, own.primary());
    assert_error(&error_of(&client, "INSERT INTO t VALUES (1)").await?, "25006", "read-only transaction");
    run(&client, "ROLLBACK").await?;
    run(&client, "INSERT INTO t VALUES (1)").await?;
    assert_eq!(rows(&client, "SELECT count FROM here").await?, ["1"]);
    Ok(())
}

async fn unknown_lag_is_unfit(harness: Arc<Shared>) -> Outcome {
    let servers = harness.fresh_shard(1).await?;
    let shard = &servers.shard;
    shard.primary.create_database(SingleFixture::DATABASE, USER, APP_PASSWORD).await?;
    // Without it the user cannot tell that the two are of one cluster.
    let admin = shard.primary.connect(SingleFixture::DATABASE).await?;
    run(&admin, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").await?;
    shard.wait_until_replayed().await?;
    let config = |listen: &str, admin: &str| unsharded_config(shard, listen, admin) + "max_lag = \"1h\"\n";
    let keyway = harness.start_keyway(config).await?;
    let own = OwnDatabase { keyway, servers };
    let client = own.client().await?;
    run(&client, SCHEMA).await?;
    own.servers.shard.wait_until_replayed().await?;
    let address = own.servers.shard.replicas[0].address();
    until("a replica of unknown lag", || async {
        let text = own.keyway.metrics().await?;
        let is = |name: &str, label: &str, value: &str| {
            text.lines().any(|it| {
                it.starts_with(name) && it.contains(&address) && it.contains(label) && it.ends_with(value)
            })
        };
        Ok(is("keyway_server_role{", "role=\"replica\"", " 1")
            && is("keyway_replica_lag_seconds{", "", " NaN"))
    })
    .await?;
    for _ in 0..50 {
        assert_eq!(port(&client).await?, own.primary());
    }
    Ok(())
}

/// Each way to write, while a replica that serves reads is a while behind.
async fn a_session_reads_what_it_wrote(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let replica = own.servers.shard.replicas[0].connect("postgres").await?;
    run(&replica, "ALTER SYSTEM SET recovery_min_apply_delay = '150ms'").await?;
    run(&replica, "SELECT pg_reload_conf()").await?;
    let mut client = own.client().await?;
    let insert = "INSERT INTO t VALUES ($1)";
    const WAYS: usize = 8;
    for way in 0..WAYS * 2 {
        let before: i64 = rows(&client, "SELECT count FROM here").await?[0].parse()?;
        own.until_read_on(&client, &own.replicas()).await?;
        match way % WAYS {
            0 => drop(run(&client, "INSERT INTO t VALUES (1)").await?),
            1 => drop(client.execute(insert, &[&1i32]).await?),
            2 => {
                for sql in ["BEGIN", "INSERT INTO t VALUES (1)", "SELECT 1", "COMMIT"] {
                    run(&client, sql).await?;
                }
            }
            3 => {
                let transaction = client.transaction().await?;
                transaction.execute(insert, &[&1i32]).await?;
                transaction.commit().await?;
            }
            4 => drop(run(&client, "BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1").await?),
            5 => {
                let sink = client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await?;
                tokio::pin!(sink);
                sink.send("1\n".into()).await?;
                assert_eq!(sink.finish().await?, 1);
            }
            6 => drop(
                run(&client, "WITH new AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM new").await?,
            ),
            _ => drop(run(&client, "DO $$ BEGIN INSERT INTO t VALUES (1); END $$").await?),
        }
        let after: i64 = rows(&client, "SELECT count FROM here").await?[0].parse()?;
        assert_eq!(after, before + 1, "way {} to write", way % WAYS);
        if way % WAYS == WAYS - 1 {
            // DO may have left anything behind, so its server stays with the client.
            client = own.client().await?;
            // Of what another session wrote it knows nothing.
            own.servers.shard.wait_until_replayed().await?;
        }
    }
    for way in 0..300 {
        let before: i64 = client.query_one("SELECT count FROM here", &[]).await?.get(0);
        match way % 2 {
            0 => drop(client.execute("INSERT INTO t VALUES (1)", &[]).await?),
            _ => drop(run(&client, "INSERT INTO t VALUES (1)").await?),
        }
        let after: i64 = client.query_one("SELECT count FROM here", &[]).await?.get(0);
        assert_eq!(after, before + 1, "read {way}");
    }
    Ok(())
}

const READERS: usize = 6;

async fn one_that_dies_costs_nothing(harness: Arc<Shared>) -> Outcome {
    let mut own = start(&harness, 2, "max_lag = \"1h\"").await?;
    let watcher = own.client().await?;
    own.until_read_on(&watcher, &own.replicas()).await?;
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut readers = Vec::new();
    for index in 0..READERS {
        let (stop, reads, client) = (stop.clone(), reads.clone(), own.client().await?);
        readers.push(tokio::spawn(async move {
            let prepared = client.prepare("SELECT port FROM here WHERE port > $1").await?;
            while !stop.load(Ordering::Relaxed) {
                match index % 3 {
                    0 => assert_eq!(rows(&client, "SELECT port FROM here").await?.len(), 1),
                    1 => assert_eq!(client.query(&prepared, &[&0i32]).await?.len(), 1),
                    // Long enough to be under way when its server dies.
                    _ => assert_eq!(
                        rows(&client, "SELECT count(*) FROM generate_series(1, 20000), t").await?,
                        ["0"]
                    ),
                }
                reads.fetch_add(1, Ordering::Relaxed);
            }
            Fallible::Ok(())
        }));
    }
    let more = async |count: u64| {
        let from = reads.load(Ordering::Relaxed);
        until("more reads", || async { Ok(reads.load(Ordering::Relaxed) > from + count) }).await
    };
    for round in 0..2 {
        for index in [0, 1] {
            more(100).await?;
            own.servers.shard.replicas[index].kill().await?;
            more(100).await.map_err(|error| format!("round {round}, replica {index} dead: {error}"))?;
        }
        assert_eq!(port(&watcher).await?, own.primary(), "nobody else is left");
        for index in [0, 1] {
            own.servers.shard.replicas[index].start().await?;
        }
        let mut seen = BTreeSet::new();
        let all = own.replicas();
        while !all.is_subset(&seen) {
            own.until_read_on(&watcher, &all.difference(&seen).cloned().collect()).await?;
            seen.extend(all.difference(&seen).next().cloned());
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await?.map_err(|error| format!("a reader saw an error: {error:?}"))?;
    }
    let metrics = own.keyway.metrics().await?;
    let retries = metrics.lines().find(|it| it.starts_with("keyway_read_retries_total{")).unwrap_or_default();
    assert!(!retries.is_empty() && !retries.ends_with(" 0"), "some were under way: {retries}");
    Ok(())
}

async fn a_write_waits_for_a_primary(harness: Arc<Shared>) -> Outcome {
    const WAIT: Duration = Duration::from_secs(2);
    let settings = "max_lag = \"1h\"\nfailover_hold = \"2s\"\npool = { connect_timeout = \"1s\" }";
    let mut own = start(&harness, 1, settings).await?;
    let client = own.client().await?;
    own.until_read_on(&client, &own.replicas()).await?;
    run(&client, "INSERT INTO t VALUES (1)").await?;
    own.servers.shard.wait_until_replayed().await?;
    own.until_read_on(&client, &own.replicas()).await?;
    own.servers.shard.primary.kill().await?;
    own.keyway.wait_for_status("/readyz", 503).await?;
    let (_, missing) = own.keyway.http("/readyz").await?;
    assert!(missing.contains("shard main has no primary"), "{missing}");

    let asked = Instant::now();
    let error = error_of(&client, "INSERT INTO t VALUES (2)").await?;
    assert_error(&error, "57P03", "has no primary");
    assert!(error.hint().is_some(), "{error:?}");
    let waited = asked.elapsed();
    assert!(waited >= WAIT && waited < WAIT * 4, "it waits failover_hold: {waited:?}");
    assert_eq!(rows(&client, "SELECT count, is_replica FROM here").await?, ["1|t"], "reads go on");

    // A write that is waiting when the primary comes back is served.
    let waiting = async {
        loop {
            match client.execute("INSERT INTO t VALUES (3)", &[]).await {
                Ok(count) => return Fallible::Ok(count),
                Err(error) => assert_error(&as_db_error(error)?, "57P03", "has no primary"),
            }
        }
    };
    let (started, waiting) = tokio::join!(own.servers.shard.primary.start(), waiting);
    started?;
    assert_eq!(waiting?, 1);
    own.keyway.wait_for_status("/readyz", 200).await?;
    assert_eq!(own.count_on_primary().await?, "2");
    assert_eq!(rows(&client, "SELECT count FROM here").await?, ["2"]);
    Ok(())
}

async fn a_primary_that_dies(harness: Arc<Shared>) -> Outcome {
    let mut own = start(&harness, 1, "").await?;
    let (client, writer) = (own.client().await?, own.client().await?);
    run(&client, "BEGIN").await?;
    run(&client, "INSERT INTO t VALUES (1)").await?;
    let slow = "INSERT INTO t SELECT 2 FROM pg_sleep(600)";
    let running = tokio::spawn(async move { (error_of(&writer, slow).await, writer) });
    let direct = own.servers.shard.primary.connect("postgres").await?;
    let active = format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{slow}'");
    until("the write runs", || async { Ok(rows(&direct, &active).await? == ["1"]) }).await?;
    own.servers.shard.primary.kill().await?;

    let (error, writer) = running.await?;
    assert!(["08006", "57P01", "57P02"].contains(&error?.code().code()), "a write is not tried again");
    let error = error_of(&client, "INSERT INTO t VALUES (1)").await?;
    assert!(["08006", "57P01", "57P02"].contains(&error.code().code()), "{error:?}");
    assert_error(&error_of(&client, "INSERT INTO t VALUES (1)").await?, "25P02", "aborted");
    assert_error(&error_of(&client, "SELECT 1").await?, "25P02", "aborted");
    run(&client, "ROLLBACK").await?;

    own.servers.shard.primary.start().await?;
    own.keyway.wait_for_status("/readyz", 200).await?;
    assert_eq!(own.count_on_primary().await?, "0", "nothing of either is left");
    run(&client, "INSERT INTO t VALUES (3)").await?;
    run(&writer, "INSERT INTO t VALUES (4)").await?;
    assert_eq!(own.count_on_primary().await?, "2");
    let direct = own.servers.shard.primary.connect("postgres").await?;
    assert_eq!(rows(&direct, &active).await?, ["0"], "no retry runs");
    Ok(())
}

/// The server goes while nothing runs on it, and Keyway hears of it before the client asks for anything.
async fn a_primary_that_dies_in_silence(harness: Arc<Shared>) -> Outcome {
    let mut own = start(&harness, 0, "").await?;
    let (committing, inserting) = (own.client().await?, own.client().await?);
    run(&committing, "CREATE FUNCTION note() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'").await?;
    for client in [&committing, &inserting] {
        run(client, "BEGIN").await?;
        run(client, "INSERT INTO t VALUES (note())").await?;
    }
    own.servers.shard.primary.kill().await?;
    let address = own.servers.shard.primary.address();
    until("both connections are gone", || async {
        let text = own.keyway.metrics().await?;
        let mut active = text.lines().filter(|it| {
            it.starts_with("keyway_pool_connections{") && it.contains(&address) && it.contains("\"active\"")
        });
        Ok(active.all(|it| it.ends_with(" 0")))
    })
    .await?;
    let error = error_of(&committing, "COMMIT").await?;
    assert!(["08006", "57P01", "57P02"].contains(&error.code().code()), "{error:?}");
    let error = error_of(&inserting, "INSERT INTO t VALUES (2)").await?;
    assert!(["08006", "57P01", "57P02"].contains(&error.code().code()), "{error:?}");
    assert_error(&error_of(&inserting, "SELECT 1").await?, "25P02", "aborted");
    own.servers.shard.primary.start().await?;
    own.keyway.wait_for_status("/readyz", 200).await?;
    assert_eq!(rows(&committing, "SELECT count FROM here").await?, ["0"]);
    run(&inserting, "COMMIT").await?;
    assert_eq!(own.count_on_primary().await?, "0");
    Ok(())
}

async fn a_commit_without_an_answer(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 0, "").await?;
    let client = own.client().await?;
    run(&client, "BEGIN").await?;
    run(&client, "INSERT INTO t VALUES (1)").await?;
    let pid: i32 = rows(&client, "SELECT pg_backend_pid()").await?[0].parse()?;
    let primary = &own.servers.shard.primary;
    primary.freeze()?;
    let committing = tokio::spawn(async move { (error_of(&client, "COMMIT").await, client) });
    until("COMMIT is under way", || async {
        let metrics = own.keyway.metrics().await?;
        let mut lines = metrics.lines().filter(|it| it.starts_with("keyway_queries_in_flight{"));
        Ok(lines.any(|it| it.ends_with(" 1")))
    })
    .await?;
    kill_process(Pid::from_raw(pid).ok_or("no pid")?, Signal::KILL)?;
    let (error, client) = committing.await?;
    assert_error(&error?, "08007", "not known whether the transaction was committed");
    primary.thaw()?;
    // The session is out of its transaction, and waits for a server that recovers from the crash.
    let mut inserted = client.execute("INSERT INTO t VALUES (2)", &[]).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while inserted.is_err() && Instant::now() < deadline {
        inserted = client.execute("INSERT INTO t VALUES (2)", &[]).await;
    }
    assert_eq!(inserted?, 1);
    let direct = primary.connect(SingleFixture::DATABASE).await?;
    assert_eq!(rows(&direct, "SELECT a FROM t").await?, ["2"], "COMMIT never ran, nor ran again");
    Ok(())
}
