//! Replicas that a reload takes away and adds, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::harness::{
    Fallible, Harness, Outcome, OwnDatabase, Shared, SingleFixture, own_config, rows, run, until,
};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![harness.test("drain::a_replica_goes_without_an_error_and_comes_slowly", goes_and_comes)]
}

const SCHEMA: &str = "CREATE TABLE t (a int); CREATE VIEW here AS \
    SELECT current_setting('in_hot_standby')::bool AS is_replica, (SELECT count(*) FROM t) AS count";
const IS_REPLICA: &str = "SELECT is_replica FROM here";
const CLIENTS: usize = 6;

/// Clients that read all the time; any error ends them, and the test.
struct Readers {
    tasks: JoinSet<Fallible<()>>,
    ended: Arc<AtomicBool>,
    on_replica: Arc<AtomicUsize>,
    in_all: Arc<AtomicUsize>,
}

impl Readers {
    async fn start(own: &OwnDatabase) -> Fallible<Readers> {
        let mut readers = Readers {
            tasks: JoinSet::new(),
            ended: Arc::default(),
            on_replica: Arc::default(),
            in_all: Arc::default(),
        };
        for _ in 0..CLIENTS {
            let client = own.client().await?;
            let (ended, on_replica) = (readers.ended.clone(), readers.on_replica.clone());
            let in_all = readers.in_all.clone();
            readers.tasks.spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    if rows(&client, IS_REPLICA).await? == ["t"] {
                        on_replica.fetch_add(1, Ordering::Relaxed);
                    }
                    in_all.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            });
        }
        Ok(readers)
    }

    fn on_replica(&self) -> usize {
        self.on_replica.load(Ordering::Relaxed)
    }

    /// Until there have been so many more reads.
    async fn read_on(&self, count: usize) -> Fallible<()> {
        let before = self.in_all.load(Ordering::Relaxed);
        until("reads go on", async || Ok(self.in_all.load(Ordering::Relaxed) >= before + count)).await
    }

    async fn end(mut self) -> Fallible<()> {
        self.ended.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// What Keyway has open on the replica, probes included.
async fn connections(replica: &Client) -> Fallible<usize> {
    let asked = format!("SELECT FROM pg_stat_activity WHERE usename = '{USER}' AND datname = '{DATABASE}'");
    Ok(replica.query(&asked, &[]).await?.len())
}

async fn slow_starts(own: &OwnDatabase) -> Fallible<u64> {
    let name =
        format!("keyway_reads_total{{database=\"{DATABASE}\",reason=\"slow_start\",target=\"primary\"}} ");
    let text = own.keyway.metrics().await?;
    Ok(text.lines().find_map(|it| it.strip_prefix(&name)).unwrap_or("0").parse()?)
}

async fn goes_and_comes(harness: Arc<Shared>) -> Outcome {
    let settings = "max_lag = \"10s\"\n[databases.plain.replicas]\nslow_start = \"3s\"";
    let own = OwnDatabase::start(&harness, 1, settings, SCHEMA).await?;
    let (primary, replica) = (&own.servers.shard.primary, &own.servers.shard.replicas[0]);
    let readers = Readers::start(&own).await?;
    until("the replica reads", async || Ok(readers.on_replica() > 100)).await?;
    assert_eq!(slow_starts(&own).await?, 0, "nobody is slow when Keyway itself starts");

    let [open, busy] = [own.client().await?, own.client().await?];
    for client in [&open, &busy] {
        run(client, "BEGIN READ ONLY").await?;
        assert_eq!(rows(client, IS_REPLICA).await?, ["t"]);
    }
    let runs = tokio::spawn(async move {
        rows(&busy, "SELECT pg_sleep(2)").await?;
        rows(&busy, IS_REPLICA).await
    });
    let seen = replica.connect("postgres").await?;
    let sleeping = "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    until("it runs", async || Ok(!seen.query(sleeping, &[]).await?.is_empty())).await?;

    let without = format!(", \"{}\"", replica.address());
    let config = |listen: &str, admin: &str| own_config(&own.servers.shard, listen, admin, settings);
    own.keyway.reload(|listen, admin| config(listen, admin).replace(&without, "")).await?;
    // Two transactions are on it, and the prober for as long as they are.
    until("nothing else is left there", async || Ok(connections(&seen).await? <= 3)).await?;
    readers.read_on(CLIENTS * 2).await?;
    let before = readers.on_replica();
    readers.read_on(500).await?;
    assert_eq!(readers.on_replica(), before, "reads of a replica that is gone");
    assert_eq!(runs.await??, ["t"]);
    assert_eq!(rows(&open, IS_REPLICA).await?, ["t"]);
    run(&open, "COMMIT").await?;
    assert_eq!(rows(&open, IS_REPLICA).await?, ["f"]);
    until("nothing is left there", async || Ok(connections(&seen).await? == 0)).await?;
    assert!(primary.pid().is_some());

    own.keyway.reload(config).await?;
    until("the replica reads again", async || Ok(readers.on_replica() > before + 100)).await?;
    assert!(slow_starts(&own).await? > 0, "it has to warm up");
    readers.end().await?;
    Ok(())
}
