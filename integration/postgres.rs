//! The clusters themselves, which every other test stands on.

use std::path::Path;
use std::sync::Arc;

use keyway::demo::postgres::{Installation, PostgresError, Server, StopMode};
use libtest_mimic::Trial;

use crate::harness::{Harness, Outcome, Shared, cluster_options};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test(
            "postgres::a_replica_streams_pauses_and_is_promoted",
            a_replica_streams_pauses_and_is_promoted,
        ),
        harness.test(
            "postgres::servers_stop_crash_freeze_and_start_again",
            servers_stop_crash_freeze_and_start_again,
        ),
        harness
            .test("postgres::nothing_is_left_of_a_start_that_failed", nothing_is_left_of_a_start_that_failed),
    ]
}

async fn a_replica_streams_pauses_and_is_promoted(harness: Arc<Shared>) -> Outcome {
    let own = harness.fresh_shard(1).await?;
    let (primary, replica) = (&own.shard.primary, &own.shard.replicas[0]);
    assert_eq!(replica.query_text("SELECT pg_is_in_recovery()").await?.as_deref(), Some("t"));
    primary.query_text("CREATE TABLE t (a int)").await?;
    replica.wait_until_replayed(primary).await?;
    let count = "SELECT count(*) FROM t";
    assert_eq!(replica.query_text(count).await?.as_deref(), Some("0"));

    replica.pause_replay().await?;
    primary.query_text("INSERT INTO t VALUES (1)").await?;
    replica.wait_until_received(primary).await?;
    assert_eq!(replica.query_text(count).await?.as_deref(), Some("0"), "received, and held back");
    replica.resume_replay().await?;
    replica.wait_until_replayed(primary).await?;
    assert_eq!(replica.query_text(count).await?.as_deref(), Some("1"));

    replica.promote().await?;
    replica.query_text("INSERT INTO t VALUES (2)").await?;
    assert_eq!(replica.query_text(count).await?.as_deref(), Some("2"));
    let (pids, dir) = (pids(own.shard.servers()), own.dir.path().to_owned());
    assert_eq!(pids.len(), 2);
    drop(own);
    assert_nothing_left(&pids, &dir);
    Ok(())
}

async fn servers_stop_crash_freeze_and_start_again(harness: Arc<Shared>) -> Outcome {
    let mut own = harness.fresh_shard(0).await?;
    let server = &mut own.shard.primary;
    let port = server.port();
    server.query_text("CREATE TABLE t AS SELECT 1 AS a").await?;
    assert!(server.stop(StopMode::Fast).await?.success());
    assert!(server.connect("postgres").await.is_err());
    server.start().await?;
    server.restart(StopMode::Immediate).await?;
    server.kill().await?;
    server.start().await?;
    assert_eq!(server.port(), port);
    assert_eq!(server.query_text("SELECT a FROM t").await?.as_deref(), Some("1"));

    let client = server.connect("postgres").await?;
    server.freeze()?;
    let query = client.simple_query("SELECT 1");
    tokio::pin!(query);
    let soon = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(soon, &mut query).await.is_err(), "a frozen server answers nothing");
    server.thaw()?;
    query.await?;

    server.freeze()?;
    let (pids, dir) = (pids(own.shard.servers()), own.dir.path().to_owned());
    drop(own);
    assert_nothing_left(&pids, &dir);
    Ok(())
}

async fn nothing_is_left_of_a_start_that_failed(harness: Arc<Shared>) -> Outcome {
    let dir = harness.fresh_dir()?;
    let path = dir.path().to_owned();
    let mut options = cluster_options();
    options.settings.push(("shared_buffers".to_owned(), "a lot".to_owned()));
    let installation: &Arc<Installation> = harness.installation();
    let started = Server::primary(installation, dir.path(), "bad", &options).await;
    let Err(PostgresError::Server { log, .. }) = started else {
        return Err(format!("a bad setting was taken: {started:?}").into());
    };
    assert!(log.contains("shared_buffers"), "the error shows the server's log: {log}");
    drop(dir);
    assert_nothing_left(&[], &path);
    Ok(())
}

fn pids<'a>(servers: impl Iterator<Item = &'a Server>) -> Vec<u32> {
    servers.filter_map(Server::pid).collect()
}

fn assert_nothing_left(pids: &[u32], dir: &Path) {
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
    assert!(!dir.exists(), "{} is still there", dir.display());
}
