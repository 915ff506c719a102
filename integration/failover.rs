//! What the death, the freeze and the planned change of a server cost the clients that work meanwhile: counted, with every
//! write accounted for. A load of writers and readers goes on through all of it, each over one socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyway::demo::postgres::{Server, Shard, StopMode};
use keyway::demo::shop::USER;
use keyway::hotspot::PRIMARY_KEYS;
use libtest_mimic::Trial;
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement};

use crate::harness::wire::{Wire, message, query};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, OwnDatabase, Shared, SingleFixture,
    assert_error, assert_hits, connect, error_of, rows, run, unsharded_config, until, until_hits,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("failover::a_replica_freezes_and_is_killed", a_replica_freezes_and_is_killed),
        harness.test("failover::the_primary_is_killed_and_comes_back", the_primary_is_killed_and_comes_back),
        harness.test("failover::the_primary_freezes_and_thaws", the_primary_freezes_and_thaws),
        harness.test("failover::switchovers_with_and_without_a_pause", switchovers),
        harness.test("failover::the_queue_is_bounded_and_in_order", the_queue_is_bounded_and_in_order),
        harness.test("failover::servers_tell_of_their_roles", servers_tell_of_their_roles),
        harness.test("failover::a_pause_of_several_shards", a_pause_of_several_shards),
    ]
}

/// Without a key: a write that is done twice is there twice.
const SCHEMA: &str = "CREATE TABLE writes (id bigint, part int); CREATE TABLE calm AS SELECT 7 AS a; \
    CREATE VIEW here AS SELECT current_setting('port') AS port";
const INSERT: &str = "INSERT INTO writes VALUES ($1, $2)";
/// What a server ends a connection with, or Keyway tells of one that ended.
const LOST: [&str; 4] = ["08006", "57P01", "57P02", "57P03"];

fn config(shard: &Shard, listen: &str, admin: &str, settings: &str) -> String {
    let text = unsharded_config(shard, listen, admin);
    format!("admin_users = [\"{USER}\"]\n{text}{settings}\n")
}

async fn start(harness: &Shared, replicas: usize, settings: &str) -> Fallible<OwnDatabase> {
    let servers = harness.fresh_shard(replicas).await?;
    servers.shard.primary.create_database(SingleFixture::DATABASE, USER, APP_PASSWORD).await?;
    let config = |listen: &str, admin: &str| config(&servers.shard, listen, admin, settings);
    let keyway = harness.start_keyway(config).await?;
    let own = OwnDatabase { keyway, servers };
    run(&own.client().await?, SCHEMA).await?;
    own.servers.shard.wait_until_replayed().await?;
    own.keyway.until_catalog_is_known(SingleFixture::DATABASE).await?;
    Ok(own)
}

/// From here on what is acknowledged is on a replica.
async fn synchronous(own: &OwnDatabase) -> Fallible<()> {
    let primary = &own.servers.shard.primary;
    primary.query_text("ALTER SYSTEM SET synchronous_standby_names = '*'").await?;
    primary.query_text("SELECT pg_reload_conf()").await?;
    let in_sync = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')::text";
    until("a replica is in sync", async || Ok(primary.query_text(in_sync).await?.as_deref() == Some("true")))
        .await
}

async fn console(keyway: &KeywayProcess) -> Fallible<Client> {
    connect(&keyway.url(USER, APP_PASSWORD, "keyway")).await
}

async fn gauge(keyway: &KeywayProcess, name: &str) -> Fallible<f64> {
    let metrics = keyway.metrics().await?;
    let line = metrics.lines().find(|it| it.starts_with(name)).ok_or_else(|| format!("no {name}"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

async fn until_held(keyway: &KeywayProcess, count: usize) -> Fallible<()> {
    let name = "keyway_failover_waiting{";
    until(&format!("{count} are held"), async || Ok(gauge(keyway, name).await? == count as f64)).await
}

/// How a client works. Writers write rows of their own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Simple,
    Extended,
    SimpleTransaction,
    ExtendedTransaction,
    Reader,
    ExtendedReader,
}

const KINDS: [Kind; 6] = [
    Kind::Simple,
    Kind::Extended,
    Kind::SimpleTransaction,
    Kind::ExtendedTransaction,
    Kind::Reader,
    Kind::ExtendedReader,
];

/// What became of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    /// The client has been told that it is not done.
    NotDone,
    /// Nobody can tell.
    Unknown,
}

#[derive(Debug, Default)]
struct Log {
    writes: Vec<(i64, Fate)>,
    /// What the client was told, by SQLSTATE and message.
    errors: Vec<String>,
    longest: Duration,
}

struct Load {
    stop: Arc<AtomicBool>,
    /// What each client has done without an error.
    done: Vec<Arc<AtomicU64>>,
    clients: Vec<(Kind, JoinHandle<Fallible<Log>>)>,
}

/// Clients by what they do, with what all of them have been told.
struct Report {
    logs: Vec<(Kind, Log)>,
}

impl Load {
    /// `each` clients of every kind.
    async fn start(own: &OwnDatabase, each: usize) -> Fallible<Load> {
        let (stop, newest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let mut load = Load { stop: stop.clone(), done: Vec::new(), clients: Vec::new() };
        for index in 0..KINDS.len() * each {
            let (kind, done) = (KINDS[index % KINDS.len()], Arc::new(AtomicU64::new(0)));
            let worker = Worker {
                client: own.client().await?,
                kind,
                next: (index as i64 + 1) * 1_000_000,
                newest: newest.clone(),
                log: Log::default(),
            };
            load.clients.push((kind, tokio::spawn(worker.work(stop.clone(), done.clone()))));
            load.done.push(done);
        }
        load.more(3).await?;
        Ok(load)
    }

    /// Until every client has done `count` things more.
    async fn more(&self, count: u64) -> Fallible<()> {
        let from: Vec<u64> = self.done.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let moved =
            || self.done.iter().zip(&from).all(|(it, from)| it.load(Ordering::Relaxed) >= from + count);
        let ended = || self.clients.iter().any(|it| it.1.is_finished());
        let what = format!("{count} more of each client, from {from:?}");
        until(&what, async || if ended() { Err("a client has ended".into()) } else { Ok(moved()) }).await
    }

    async fn end(self) -> Fallible<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut logs = Vec::new();
        for (kind, client) in self.clients {
            logs.push((kind, client.await?.map_err(|error| format!("{kind:?}: {error}"))?));
        }
        Ok(Report { logs })
    }
}

struct Worker {
    client: Client,
    kind: Kind,
    next: i64,
    /// A write that some client has been told is done.
    newest: Arc<AtomicI64>,
    log: Log,
}

impl Worker {
    async fn work(mut self, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Fallible<Log> {
        let insert = self.client.prepare(INSERT).await?;
        let count = self.client.prepare("SELECT count(*) FROM writes WHERE id = $1").await?;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let before = self.log.errors.len();
            match self.kind {
                Kind::Reader | Kind::ExtendedReader => self.read(&count).await?,
                _ => {
                    let (id, fate) = (self.next, self.write(&insert).await?);
                    self.next += 1;
                    self.log.writes.push((id, fate));
                    if fate == Fate::Done {
                        self.newest.store(id, Ordering::SeqCst);
                    }
                }
            }
            self.log.longest = self.log.longest.max(began.elapsed());
            if self.log.errors.len() == before {
                done.fetch_add(1, Ordering::Relaxed);
            }
            // So that all get their turns on a small machine.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(self.log)
    }

    /// An error of the session, which goes on; any other is one of the socket.
    fn told<T>(&mut self, result: Result<T, tokio_postgres::Error>) -> Fallible<Result<T, DbError>> {
        match result {
            Ok(it) => Ok(Ok(it)),
            Err(error) => match error.as_db_error() {
                Some(told) => {
                    self.log.errors.push(format!("{} {}", told.code().code(), told.message()));
                    Ok(Err(told.clone()))
                }
                None => Err(format!("the session ended: {error:?}").into()),
            },
        }
    }

    /// What has just been written, and what a replica has for long.
    async fn read(&mut self, count: &Statement) -> Fallible<()> {
        let id = self.newest.load(Ordering::SeqCst);
        let (found, calm) = match self.kind {
            Kind::Reader => {
                let sql = format!("SELECT count(*) FROM writes WHERE id = {id}");
                let read = self.client.simple_query(&sql).await;
                let found = self.told(read)?.ok().map(|it| number(&it));
                let read = self.client.simple_query("SELECT a FROM calm").await;
                (found, self.told(read)?.ok().map(|it| number(&it)))
            }
            _ => {
                let read = self.client.query_one(count, &[&id]).await;
                let found = self.told(read)?.ok().map(|it| it.get::<_, i64>(0));
                let read = self.client.query_one("SELECT a FROM calm", &[]).await;
                (found, self.told(read)?.ok().map(|it| it.get::<_, i32>(0).into()))
            }
        };
        if id != 0 && found == Some(0) || calm.is_some_and(|it| it != 7) {
            return Err(
                format!("a read does not see {id}, which was acknowledged: {found:?}, {calm:?}").into()
            );
        }
        Ok(())
    }

    async fn write(&mut self, insert: &Statement) -> Fallible<Fate> {
        let id = self.next;
        let simple = |part: i32| format!("INSERT INTO writes VALUES ({id}, {part})");
        match self.kind {
            Kind::Simple => {
                let wrote = self.client.simple_query(&simple(0)).await;
                self.fate_of_one(wrote)
            }
            Kind::Extended => {
                let wrote = self.client.execute(insert, &[&id, &0]).await;
                self.fate_of_one(wrote)
            }
            _ => {
                for (step, part) in [("BEGIN", 0), ("INSERT", 1), ("INSERT", 2), ("COMMIT", 0)] {
                    let done = match (step, self.kind) {
                        ("INSERT", Kind::ExtendedTransaction) => {
                            self.client.execute(insert, &[&id, &part]).await.map(drop)
                        }
                        ("INSERT", _) => self.client.simple_query(&simple(part)).await.map(drop),
                        _ => self.client.simple_query(step).await.map(drop),
                    };
                    if let Err(error) = self.told(done)? {
                        if step == "COMMIT" && error.code().code() == "08007" {
                            return Ok(Fate::Unknown);
                        }
                        assert!(LOST.contains(&error.code().code()), "{step}: {error:?}");
                        // It ends with a ROLLBACK, as the error said.
                        self.client.simple_query("ROLLBACK").await?;
                        return Ok(Fate::NotDone);
                    }
                }
                Ok(Fate::Done)
            }
        }
    }

    fn fate_of_one<T>(&mut self, wrote: Result<T, tokio_postgres::Error>) -> Fallible<Fate> {
        Ok(match self.told(wrote)? {
            Ok(_) => Fate::Done,
            // It had no server.
            Err(error) if error.code().code() == "57P03" => Fate::NotDone,
            Err(error) => {
                assert!(LOST.contains(&error.code().code()), "{error:?}");
                Fate::Unknown
            }
        })
    }
}

fn number(messages: &[SimpleQueryMessage]) -> i64 {
    let row = messages.iter().find_map(|it| match it {
        SimpleQueryMessage::Row(it) => it.get(0),
        _ => None,
    });
    row.and_then(|it| it.parse().ok()).unwrap_or(-1)
}

impl Report {
    fn errors(&self) -> usize {
        self.logs.iter().map(|it| it.1.errors.len()).sum()
    }

    fn with(&self, fate: Fate) -> BTreeSet<i64> {
        let writes = self.logs.iter().flat_map(|it| &it.1.writes);
        writes.filter(|it| it.1 == fate).map(|it| it.0).collect()
    }

    fn tell(&self, what: &str) {
        let writes: usize = self.logs.iter().map(|it| it.1.writes.len()).sum();
        let longest = |is: fn(Kind) -> bool| {
            self.logs.iter().filter(|it| is(it.0)).map(|it| it.1.longest).max().unwrap_or_default()
        };
        let reads = longest(|it| matches!(it, Kind::Reader | Kind::ExtendedReader));
        println!(
            "failover, {what}: {} clients, {writes} writes, {} errors, {} unknown, longest write {:?}, longest read {reads:?}",
            self.logs.len(),
            self.errors(),
            self.with(Fate::Unknown).len(),
            longest(|it| !matches!(it, Kind::Reader | Kind::ExtendedReader)),
        );
        for (kind, log) in self.logs.iter().filter(|it| !it.1.errors.is_empty()) {
            println!("  {kind:?}: {}", log.errors.join("; "));
        }
    }

    /// Each write is on `primary` as its client was told, and none is there twice.
    async fn check(&self, primary: &Server) -> Fallible<()> {
        let there = written(primary).await?;
        for (kind, log) in &self.logs {
            let parts: &[i32] = match kind {
                Kind::SimpleTransaction | Kind::ExtendedTransaction => &[1, 2],
                _ => &[0],
            };
            for (id, fate) in &log.writes {
                let found = there.get(id).map_or(&[][..], |it| it);
                match fate {
                    Fate::Done => assert_eq!(found, parts, "{kind:?} {id} was acknowledged"),
                    Fate::NotDone => assert!(found.is_empty(), "{kind:?} {id} had failed: {found:?}"),
                    Fate::Unknown => {
                        assert!(
                            found.is_empty() || found == parts,
                            "{kind:?} {id} is there in part: {found:?}"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// A statement under way when a server dies is all that a client loses, and no reader loses anything.
    fn assert_errors_of_one_death(&self) {
        for (kind, log) in &self.logs {
            let most = if matches!(kind, Kind::Reader | Kind::ExtendedReader) { 0 } else { 1 };
            assert!(log.errors.len() <= most, "{kind:?}: {:?}", log.errors);
        }
    }
}

/// The parts that are there of each write.
async fn written(server: &Server) -> Fallible<BTreeMap<i64, Vec<i32>>> {
    let client = server.connect(SingleFixture::DATABASE).await?;
    let mut there = BTreeMap::<i64, Vec<i32>>::new();
    for row in client.query("SELECT id, part FROM writes ORDER BY id, part", &[]).await? {
        there.entry(row.get(0)).or_default().push(row.get(1));
    }
    Ok(there)
}

/// Long enough that nobody gives up on a machine that does other things too.
const PATIENT: &str = "max_lag = \"1h\"\nfailover_hold = \"60s\"\nprobe_timeout = \"500ms\"\n\
    pool = { size = 4, wait_timeout = \"60s\", connect_timeout = \"30s\" }";

async fn a_replica_freezes_and_is_killed(harness: Arc<Shared>) -> Outcome {
    let mut own = start(&harness, 1, PATIENT).await?;
    for what in ["a replica freezes", "a replica is killed"] {
        let load = Load::start(&own, 2).await?;
        let replica = &mut own.servers.shard.replicas[0];
        match what {
            "a replica freezes" => replica.freeze()?,
            _ => drop(replica.kill().await?),
        }
        load.more(20).await?;
        match what {
            "a replica freezes" => replica.thaw()?,
            _ => replica.start().await?,
        }
        load.more(5).await?;
        let report = load.end().await?;
        report.tell(what);
        assert_eq!(report.errors(), 0);
        report.check(&own.servers.shard.primary).await?;
        clear(&own.servers.shard.primary).await?;
    }
    Ok(())
}

/// For the next load, whose clients have the same numbers.
async fn clear(primary: &Server) -> Fallible<()> {
    Ok(primary.connect(SingleFixture::DATABASE).await?.batch_execute("TRUNCATE writes").await?)
}

async fn the_primary_is_killed_and_comes_back(harness: Arc<Shared>) -> Outcome {
    let mut own = start(&harness, 1, PATIENT).await?;
    synchronous(&own).await?;
    let load = Load::start(&own, 2).await?;
    own.servers.shard.primary.kill().await?;
    let died = Instant::now();
    own.servers.shard.replicas[0].promote().await?;
    let promoted = died.elapsed();
    load.more(10).await?;
    println!("failover, the primary is killed: promoted after {promoted:?}");

    // It still thinks that it is the primary.
    own.servers.shard.primary.start().await?;
    let address = own.servers.shard.primary.address();
    let console = console(&own.keyway).await?;
    until("the old primary is fenced", async || {
        let servers = rows(&console, "SHOW REPLICAS").await?;
        Ok(servers.iter().any(|it| it.contains(&address) && it.contains("fenced: a primary on timeline 1")))
    })
    .await?;
    let old = written(&own.servers.shard.primary).await?;
    load.more(10).await?;
    let report = load.end().await?;
    report.tell("the primary is killed, a replica promoted");
    assert_eq!(written(&own.servers.shard.primary).await?, old, "nothing reaches the old one");
    report.assert_errors_of_one_death();
    Ok(report.check(&own.servers.shard.replicas[0]).await?)
}

async fn the_primary_freezes_and_thaws(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, PATIENT).await?;
    synchronous(&own).await?;
    let load = Load::start(&own, 2).await?;
    own.servers.shard.primary.freeze()?;
    own.servers.shard.replicas[0].promote().await?;
    load.more(10).await?;
    // What it had been sent before is done now, on a server that does not count any more.
    own.servers.shard.primary.thaw()?;
    load.more(20).await?;
    let report = load.end().await?;
    report.tell("the primary freezes, a replica is promoted");
    report.assert_errors_of_one_death();
    report.check(&own.servers.shard.replicas[0]).await?;
    let (old, new) =
        (written(&own.servers.shard.primary).await?, written(&own.servers.shard.replicas[0]).await?);
    let unknown = report.with(Fate::Unknown);
    for id in old.keys().filter(|it| !new.contains_key(it)) {
        assert!(unknown.contains(id), "{id} went to the old primary");
    }
    Ok(())
}

/// As docs/replicas.md has it, and back without the pause.
async fn switchovers(harness: Arc<Shared>) -> Outcome {
    let mut own = start(&harness, 1, PATIENT).await?;
    let load = Load::start(&own, 2).await?;
    let console = console(&own.keyway).await?;
    let began = Instant::now();
    run(&console, &format!("PAUSE {}", SingleFixture::DATABASE)).await?;
    let paused = began.elapsed();
    let Shard { primary: first, replicas, .. } = &mut own.servers.shard;
    let second = &mut replicas[0];
    assert!(first.stop(StopMode::Fast).await?.success());
    second.promote().await?;
    run(&console, &format!("RESUME {}", SingleFixture::DATABASE)).await?;
    println!("failover, in a pause: paused after {paused:?}, resumed after {:?}", began.elapsed());
    load.more(10).await?;

    // The old primary follows the new one, and is read.
    follow(first, second).await?;
    let is_read = format!("|{}|", first.address());
    until("the old primary is a replica", async || {
        let servers = rows(&console, "SHOW REPLICAS").await?;
        Ok(servers.iter().any(|it| format!("|{it}").contains(&is_read) && it.contains("|replica|")))
    })
    .await?;
    load.more(10).await?;
    let report = load.end().await?;
    report.tell("a switchover in a pause");
    assert_eq!(report.errors(), 0);
    report.check(second).await?;
    first.wait_until_replayed(second).await?;
    clear(second).await?;
    first.wait_until_replayed(second).await?;

    // A fast shutdown sends all to the replica that is committed.
    let load = Load::start(&own, 2).await?;
    let Shard { primary: first, replicas, .. } = &mut own.servers.shard;
    assert!(replicas[0].stop(StopMode::Fast).await?.success());
    first.promote().await?;
    load.more(10).await?;
    let report = load.end().await?;
    report.tell("a switchover without a pause");
    report.assert_errors_of_one_death();
    Ok(report.check(first).await?)
}

/// Starts a primary that was stopped as a standby of the one that has followed it.
async fn follow(old: &mut Server, new: &Server) -> Fallible<()> {
    std::fs::write(old.data_dir().join("standby.signal"), "")?;
    let settings = std::fs::read_to_string(new.data_dir().join("postgresql.auto.conf"))?;
    let conninfo =
        settings.lines().rfind(|it| it.starts_with("primary_conninfo")).ok_or("no primary_conninfo")?;
    let conninfo = conninfo.replace(&format!("port={}", old.port()), &format!("port={}", new.port()));
    std::fs::write(old.data_dir().join("postgresql.auto.conf"), format!("{conninfo}\n"))?;
    old.start().await?;
    Ok(old.wait_until_streaming().await?)
}

const WRITE: &str = "INSERT INTO writes VALUES (1, 0)";

/// A statement of its own that waits, and what comes of it.
fn waiting(client: Client, sql: &'static str) -> JoinHandle<(Fallible<DbError>, Client)> {
    tokio::spawn(async move { (error_of(&client, sql).await, client) })
}

async fn the_queue_is_bounded_and_in_order(harness: Arc<Shared>) -> Outcome {
    let mut own = start(&harness, 1, "max_lag = \"1h\"\nfailover_hold = \"5m\"\nfailover_queue = 2").await?;
    let keyway = &own.keyway;
    let (first, third) = (own.client().await?, own.client().await?);
    let mut second = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, SingleFixture::DATABASE, &[]).await?;
    // What a primary that dies has written last may be on no replica, whoever waits for it: then reads are right to refuse.
    reads_a_replica(keyway, &first).await?;
    own.servers.shard.primary.kill().await?;
    until("the primary is missed", async || Ok(keyway.http("/readyz").await?.0 == 503)).await?;

    // BEGIN takes no server yet.
    run(&first, "BEGIN").await?;
    let token = first.cancel_token();
    let first = waiting(first, WRITE);
    second.send(&query(WRITE)).await?;
    until_held(keyway, 2).await?;
    let error = error_of(&third, WRITE).await?;
    assert_error(&error, "57P03", "has no primary");
    assert!(error.hint().is_some_and(|it| it.contains("failover_queue")), "{error:?}");
    assert_hits(keyway, "failover_queue", 1).await?;
    assert_hits(keyway, "failover_hold", 0).await?;

    // Who cancels or leaves makes room.
    token.cancel_query(NoTls).await?;
    let (error, first) = first.await?;
    assert_error(&error?, "57014", "user request");
    run(&first, "ROLLBACK").await?;
    until_held(keyway, 1).await?;
    second.send(&message('X', b"")).await?;
    drop(second);
    until_held(keyway, 0).await?;

    its_time_is_over(&own, first).await?;
    a_pause_takes_over(&mut own, third).await?;
    Ok(in_order(&mut own).await?)
}

async fn reload(own: &OwnDatabase, settings: &str) -> Fallible<()> {
    own.keyway.write_config(|listen, admin| config(&own.servers.shard, listen, admin, settings))?;
    run(&console(&own.keyway).await?, "RELOAD").await.map(drop)
}

/// The primary is down.
async fn its_time_is_over(own: &OwnDatabase, client: Client) -> Outcome {
    reload(own, "max_lag = \"1h\"\nfailover_hold = \"1s\"\nfailover_queue = 2").await?;
    let (primary, asked) = (own.servers.shard.primary.address(), Instant::now());
    let error = error_of(&client, WRITE).await?;
    assert_error(&error, "57P03", "has no primary");
    assert!(error.hint().is_some_and(|it| it.contains("failover_hold")), "{error:?}");
    assert!(error.detail().is_some_and(|it| it.contains(&primary)), "{error:?}");
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_hits(&own.keyway, "failover_hold", 1).await?;
    until_held(&own.keyway, 0).await?;
    assert!(gauge(&own.keyway, "keyway_failover_wait_seconds_sum{").await? >= 1.0);
    // Reads that the replica can answer go on.
    let read = async || client.simple_query("SELECT a FROM calm").await;
    if until("a read", async || Ok(read().await.is_ok())).await.is_err() {
        return Err(format!("no read goes on: {:?}", read().await.err()).into());
    }
    Ok(())
}

/// Until Keyway knows a replica that has all that reads of `calm` must see.
async fn reads_a_replica(keyway: &KeywayProcess, client: &Client) -> Fallible<()> {
    let name = format!(
        "keyway_reads_total{{database=\"{}\",reason=\"fresh\",target=\"replica\"}}",
        SingleFixture::DATABASE
    );
    let read = async || {
        client.simple_query("SELECT a FROM calm").await?;
        Ok(gauge(keyway, &name).await? > 0.0)
    };
    until("a replica reads", read).await
}

/// The primary is down, and is back in the end.
async fn a_pause_takes_over(own: &mut OwnDatabase, cancelled: Client) -> Fallible<()> {
    let settings = "max_lag = \"1h\"\nfailover_hold = \"5m\"\nfailover_queue = 12\n\
        pool = { size = 1, waiters_max = 2, wait_timeout = \"60s\" }";
    reload(own, settings).await?;
    let (keyway, console) = (&own.keyway, console(&own.keyway).await?);
    let (paused, last) = (own.client().await?, own.client().await?);
    // A pause stops the clock of who waits already, and takes who comes.
    let write =
        |client: Client| tokio::spawn(async move { client.simple_query(WRITE).await.map(|_| client) });
    let held = write(last);
    until_held(keyway, 1).await?;
    run(&console, "PAUSE plain").await?;
    let token = cancelled.cancel_token();
    let (paused, again) = (write(paused), waiting(cancelled, WRITE));
    let wait = async |count: usize| {
        let waits = |it: &&String| it.contains("|waiting|");
        until("they wait", async || {
            Ok(rows(&console, "SHOW CLIENTS").await?.iter().filter(waits).count() == count)
        })
        .await
    };
    wait(3).await?;
    token.cancel_query(NoTls).await?;
    let (error, cancelled) = again.await?;
    assert_error(&error?, "57014", "user request");
    wait(2).await?;
    own.servers.shard.primary.start().await?;
    run(&console, "RESUME plain").await?;
    held.await??;
    paused.await??;
    run(&cancelled, WRITE).await?;
    until_held(&own.keyway, 0).await?;
    let there = written(&own.servers.shard.primary).await?;
    assert_eq!(there.get(&1).map(Vec::len), Some(3), "those that were not given up");
    Ok(())
}

/// More clients than the pool has places for, and for clients that wait: those were counted already.
async fn in_order(own: &mut OwnDatabase) -> Fallible<()> {
    const COUNT: usize = 12;
    let client = own.client().await?;
    run(&client, "CREATE TABLE arrivals (place bigserial, who int)").await?;
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        clients.push(own.client().await?);
    }
    own.servers.shard.primary.kill().await?;
    until("the primary is missed", async || Ok(own.keyway.http("/readyz").await?.0 == 503)).await?;
    let mut waiting = Vec::new();
    for (who, client) in clients.into_iter().enumerate() {
        let sql = format!("INSERT INTO arrivals (who) VALUES ({who})");
        waiting.push(tokio::spawn(async move { client.simple_query(&sql).await.map(drop) }));
        until_held(&own.keyway, who + 1).await?;
    }
    own.servers.shard.primary.start().await?;
    for it in waiting {
        it.await??;
    }
    let direct = own.servers.shard.primary.connect(SingleFixture::DATABASE).await?;
    let order = rows(&direct, "SELECT who FROM arrivals ORDER BY place").await?;
    assert_eq!(order.len(), COUNT);
    for (place, who) in order.iter().enumerate() {
        // Those that are woken together run in any order of a few; a stampede would mix all.
        assert!(place.abs_diff(who.parse()?) <= COUNT / 2, "{order:?}");
    }
    Ok(())
}

/// Nothing is found out by a probe that is due.
const RARE: &str = "max_lag = \"5m\"\nprobe_interval = \"60s\"";

async fn servers_tell_of_their_roles(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"5m\"").await?;
    let (primary, replica) = (&own.servers.shard.primary, &own.servers.shard.replicas[0]);
    let port = "SELECT port FROM here";
    let client = own.client().await?;
    let is_replicas = async || Ok(rows(&client, port).await? == [replica.port().to_string()]);
    until("a read on the replica", is_replicas).await?;
    own.keyway.write_config(|listen, admin| config(&own.servers.shard, listen, admin, RARE))?;
    run(&console(&own.keyway).await?, "RELOAD").await?;
    let probed =
        "SELECT max(query_start)::text FROM pg_stat_activity WHERE application_name = 'keyway probe'";
    let before = primary.query_text(probed).await?;
    assert!(before.is_some());
    // The session's own doing; but it might be the server's.
    run(&client, "SET default_transaction_read_only = on").await?;
    assert_error(&error_of(&client, "INSERT INTO writes VALUES (1, 0)").await?, "25006", "read-only");
    until("the primary is looked at", async || Ok(primary.query_text(probed).await? != before)).await?;
    run(&client, "RESET default_transaction_read_only").await?;

    let began = Instant::now();
    until("a read on the replica", is_replicas).await?;
    replica.promote().await?;
    // Its connection says so with the next answer.
    until("the new primary is found", async || {
        run(&client, port).await?;
        // One that was under way at the old primary when that lost its role is lost with its connection.
        if let Err(error) = client.simple_query("INSERT INTO writes VALUES (2, 0)").await {
            let error = error.as_db_error().ok_or("the client was sent away")?;
            assert_error(error, "08006", "server connection");
        }
        Ok(written(replica).await?.contains_key(&2))
    })
    .await?;
    let found = began.elapsed();
    assert!(found < Duration::from_secs(40), "before the next probe: {found:?}");
    // Heat maps tell of it.
    let map = format!("/api/heatmap?database={}&map={PRIMARY_KEYS}", SingleFixture::DATABASE);
    let said = format!(": {} is the primary", replica.address());
    until("start, reload and failover are marked", async || {
        let (_, body) = own.keyway.http(&map).await?;
        let drawn: serde_json::Value = serde_json::from_str(&body)?;
        let marks: Vec<_> = drawn["marks"].as_array().into_iter().flatten().collect();
        let kinds: Vec<_> = marks.iter().filter_map(|it| it["kind"].as_str()).collect();
        let text = marks.last().and_then(|it| it["text"].as_str()).unwrap_or_default();
        Ok(kinds == ["start", "reload", "failover"] && text.ends_with(&said))
    })
    .await?;
    Ok(())
}

async fn a_pause_of_several_shards(harness: Arc<Shared>) -> Outcome {
    let shop = &harness.shop().await?.shop;
    let config = |listen: &str, admin: &str| {
        format!("admin_users = [\"{USER}\"]\n{}", shop.config_text(listen, admin))
    };
    let keyway = harness.start_keyway(config).await?;
    let url = shop.url(&keyway.listen().to_string());
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for index in 0..6 {
        let (client, stop, done) = (connect(&url).await?, stop.clone(), done.clone());
        clients.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                if index % 2 == 0 {
                    assert_eq!(rows(&client, "SELECT count(*) > 0 FROM users").await?, ["t"]);
                } else {
                    // Its second statement needs a further server, pause or not.
                    run(&client, "BEGIN").await?;
                    run(&client, "SELECT name FROM users WHERE user_id = 1").await?;
                    run(&client, "SELECT count(*) FROM users").await?;
                    run(&client, "COMMIT").await?;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            Fallible::Ok(())
        }));
    }
    let console = console(&keyway).await?;
    for _ in 0..10 {
        let from = done.load(Ordering::Relaxed);
        until("more", async || Ok(done.load(Ordering::Relaxed) > from + 20)).await?;
        run(&console, "PAUSE").await?;
        run(&console, "RESUME").await?;
    }
    stop.store(true, Ordering::Relaxed);
    for it in clients {
        it.await??;
    }
    until_hits(&keyway, "failover_queue", 0).await?;
    Ok(())
}
