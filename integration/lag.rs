//! The lag that Keyway believes in against the true one, which the tests know: a row counts up on the primary, and
//! what a replica shows of it is asked there directly. Each test is a trap into which other ways to measure lag fall.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::base::Role;
use keyway::demo::postgres::{Server, StopMode};
use keyway::demo::shop::USER;
use keyway::route::Joined;
use libtest_mimic::Trial;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::{Client, Statement};

use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Link, Outcome, OwnShard, Shared, SingleFixture, Watched, rows, run,
};

const DATABASE: &str = SingleFixture::DATABASE;
const TIMEOUT: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
const MAX_LAG: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("lag::an_idle_primary_leaves_none", an_idle_primary_leaves_none),
        harness.test("lag::paused_replay_shows_in_time_and_bytes", paused_replay),
        harness.test("lag::a_burst_of_log_is_followed_to_its_end", a_burst_of_log),
        harness.test("lag::a_delayed_replica_leaves_and_comes_back", a_delayed_replica),
        harness.test("lag::a_frozen_primary_makes_it_grow", a_frozen_primary),
        harness.test("lag::a_stalled_stream_makes_it_grow", a_stalled_stream),
        harness.test("lag::a_stalled_probe_makes_it_grow", a_stalled_probe),
        harness.test("lag::a_slow_network_adds_its_time", a_slow_network),
        harness.test("lag::a_replica_is_asked_after_its_primary", asked_after_its_primary),
        harness.test("lag::a_replica_of_a_replica", a_replica_of_a_replica),
        harness.test("lag::a_replica_that_starts_anew", a_replica_that_starts_anew),
        harness.test("lag::one_that_follows_a_new_timeline_late", follows_late),
        harness.test("lag::positions_of_two_timelines_are_not_compared", two_timelines),
    ]
}

/// A row that is counted up without end.
struct Beats {
    /// When count `n` was told to be committed: at `n - 1`.
    told: Arc<Mutex<Vec<Instant>>>,
    counting: JoinHandle<()>,
}

impl Beats {
    async fn start(primary: &Server) -> Fallible<Beats> {
        let client = primary.connect(DATABASE).await?;
        run(&client, "CREATE TABLE beat (n bigint); INSERT INTO beat VALUES (0)").await?;
        let told = Arc::default();
        let counting = Beats::count(client, &told).await?;
        Ok(Beats { told, counting })
    }

    async fn count(client: Client, told: &Arc<Mutex<Vec<Instant>>>) -> Fallible<JoinHandle<()>> {
        let told = told.clone();
        let beat = client.prepare("UPDATE beat SET n = $1").await?;
        Ok(tokio::spawn(async move {
            loop {
                let next = told.lock().len() as i64 + 1;
                if client.execute(&beat, &[&next]).await.is_err() {
                    return;
                }
                told.lock().push(Instant::now());
                sleep(MS * 5).await;
            }
        }))
    }

    fn stop(&self) {
        self.counting.abort();
    }

    /// Goes on at another primary from what that has.
    async fn go_on(&mut self, primary: &Server) -> Outcome {
        self.stop();
        let client = primary.connect(DATABASE).await?;
        let has: usize = rows(&client, "SELECT n FROM beat").await?[0].parse()?;
        // The last one may be there without having been told.
        self.told.lock().resize(has, Instant::now());
        self.counting = Beats::count(client, &self.told).await?;
        Ok(())
    }

    /// When the first was told that comes after `shown`; `None` is not yet.
    fn told_after(&self, shown: i64) -> Option<Instant> {
        self.told.lock().get(shown as usize).copied()
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A replica as Keyway sees it and as it is.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    /// `None` is unknown, or not a replica.
    fresh_as_of: Option<Instant>,
    /// All that was told until then is there, and what was told next is not.
    true_as_of: Instant,
    lag_bytes: Option<u64>,
    joined: Option<Joined>,
    observed_at: Option<Instant>,
}

impl Look {
    fn lag(&self) -> Option<Duration> {
        self.fresh_as_of.map(|it| self.at.saturating_duration_since(it))
    }

    fn true_lag(&self) -> Duration {
        self.at.saturating_duration_since(self.true_as_of)
    }

    fn serves(&self) -> bool {
        self.joined.is_some() && self.lag().is_some_and(|it| it <= MAX_LAG)
    }
}

/// Fields end in order: probes before servers.
struct Scene {
    watched: Watched,
    beats: Beats,
    /// To the replica that is looked at.
    eye: Client,
    shown: Statement,
    eye_since: Instant,
    /// Its place among the servers.
    index: usize,
    looks: Vec<Look>,
    own: OwnShard,
}

impl Scene {
    /// A primary and replicas, of which the last is looked at.
    async fn start(harness: &Shared, replicas: usize) -> Fallible<Scene> {
        let own = harness.fresh_shard(replicas).await?;
        let addresses: Vec<String> = own.shard.servers().map(Server::address).collect();
        Scene::of(own, &addresses).await
    }

    /// Returns when the replica serves reads.
    async fn of(own: OwnShard, addresses: &[String]) -> Fallible<Scene> {
        let primary = &own.shard.primary;
        primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
        // So that probes see at once which timeline a replica follows.
        primary.query_text(&format!("GRANT pg_read_all_stats TO {USER}")).await?;
        let beats = Beats::start(primary).await?;
        own.shard.wait_until_replayed().await?;
        let index = own.shard.replicas.len();
        let replica = &own.shard.replicas[index - 1];
        // So that a look is not cancelled for what is replayed.
        set(replica, "max_standby_streaming_delay", "-1").await?;
        let (eye, shown) = look_at(replica).await?;
        let watched = Watched::at(addresses, PROBE_INTERVAL, "max_lag = \"1s\"\n").await?;
        let looks = Vec::new();
        let mut scene = Scene { watched, beats, eye, shown, eye_since: Instant::now(), index, looks, own };
        scene.until("it serves", Look::serves).await?;
        Ok(scene)
    }

    fn replica(&self) -> &Server {
        &self.own.shard.replicas[self.index - 1]
    }

    /// # Errors
    /// Keyway takes the replica to be fresher than it is.
    async fn look(&mut self) -> Fallible<Look> {
        let server = self.watched.server(self.index);
        let at = Instant::now();
        // Since then it may have shown more, never less.
        let shown: i64 = self.eye.query_one(&self.shown, &[]).await?.get(0);
        let missed = self.beats.told_after(shown);
        // As sessions do: of a server that has started anew since, nothing is known.
        let is_known = server.role == Some(Role::Replica) && server.observed_at >= Some(self.eye_since);
        let look = Look {
            at,
            fresh_as_of: server.fresh_as_of.filter(|_| is_known),
            true_as_of: missed.map_or(at, |it| it.min(at)),
            lag_bytes: server.lag_bytes,
            joined: server.joined,
            observed_at: server.observed_at,
        };
        if look.fresh_as_of.is_some_and(|it| it > look.true_as_of) {
            return Err(format!(
                "fresher than it is, count {shown} is the last it shows: {look:?} {server:?}"
            )
            .into());
        }
        self.looks.push(look.clone());
        Ok(look)
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Look) -> bool) -> Fallible<Look> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let look = self.look().await?;
            if holds(&look) {
                return Ok(look);
            }
            if Instant::now() > deadline {
                return Err(format!("not within {TIMEOUT:?}: {what}: {look:?}").into());
            }
            sleep(MS * 5).await;
        }
    }

    /// For as long as that takes.
    async fn always(&mut self, time: Duration, what: &str, holds: impl Fn(&Look) -> bool) -> Outcome {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let look = self.look().await?;
            if !holds(&look) {
                return Err(format!("not always: {what}: {look:?}").into());
            }
            sleep(MS * 5).await;
        }
        Ok(())
    }

    /// How much longer than the true lag the believed one was, in looks since the last call that know it: up to two intervals
    /// of probes and two answers by design, and here what two busy cores make of it.
    fn assert_near(&mut self) {
        // Ten times what it takes on a busy machine.
        self.assert_within(MS * 500, MS * 3_000);
    }

    fn assert_within(&mut self, half_max: Duration, most_max: Duration) {
        let looks = std::mem::take(&mut self.looks);
        let excess = |it: &Look| Some(it.true_as_of - it.fresh_as_of?);
        let mut excesses: Vec<Duration> = looks.iter().filter_map(excess).collect();
        excesses.sort();
        assert!(excesses.len() >= 20, "of {} looks {} knew the lag", looks.len(), excesses.len());
        let part = |tenths: usize| excesses[(excesses.len() - 1) * tenths / 10];
        assert!(part(5) <= half_max && part(9) <= most_max, "half {:?}, most {:?}", part(5), part(9));
    }

    async fn asked(&self, sql: &str) -> Fallible<String> {
        Ok(rows(&self.eye, sql).await?.remove(0))
    }
}

async fn look_at(replica: &Server) -> Fallible<(Client, Statement)> {
    let eye = replica.connect(DATABASE).await?;
    let shown = eye.prepare("SELECT n FROM beat").await?;
    Ok((eye, shown))
}

async fn set(server: &Server, setting: &str, value: &str) -> Fallible<()> {
    let client = server.connect("postgres").await?;
    run(&client, &format!("ALTER SYSTEM SET {setting} = '{value}'")).await?;
    run(&client, "SELECT pg_reload_conf()").await?;
    Ok(())
}

/// The trap of `now() - pg_last_xact_replay_timestamp()`.
async fn an_idle_primary_leaves_none(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 1).await?;
    // What is told before it is written counts too.
    set(&scene.own.shard.primary, "synchronous_commit", "off").await?;
    scene.always(MS * 1_000, "known", |it| it.fresh_as_of.is_some()).await?;
    scene.assert_near();
    scene.beats.stop();
    let by_timestamp = "SELECT now() - pg_last_xact_replay_timestamp() > '3 s'";
    while scene.asked(by_timestamp).await? != "t" {
        scene.always(MS * 100, "known", |it| it.fresh_as_of.is_some()).await?;
    }
    // There is nothing that it lacks: all of the lag is excess.
    assert_eq!(scene.looks.last().map(Look::true_lag), Some(Duration::ZERO));
    scene.assert_near();
    scene.until("it serves", Look::serves).await?;
    Ok(())
}

/// The trap of `replay_lag` in pg_stat_replication, which is that of the last answer, and of comparing what is received.
async fn paused_replay(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 1).await?;
    scene.replica().pause_replay().await?;
    scene.until("two seconds behind", |it| it.true_lag() > MS * 2_000).await?;
    scene.until("out of the set", |it| it.joined.is_none()).await?;

    let behind = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::bigint";
    let primary = scene.own.shard.primary.connect(DATABASE).await?;
    let replayed = scene.asked("SELECT pg_last_wal_replay_lsn()").await?;
    let least: i64 = primary.query_one(behind, &[&replayed]).await?.get(0);
    let asked_at = Instant::now();
    // One sample more: the two halves of an answer are not published at once.
    let sampled_since = |scene: &Scene, at| scene.watched.server(0).observed_at > Some(at);
    while !sampled_since(&scene, asked_at) {
        scene.look().await?;
    }
    let look = scene.look().await?;
    let most: i64 = primary.query_one(behind, &[&replayed]).await?.get(0);
    let bytes = look.lag_bytes.ok_or("bytes are known")? as i64;
    assert!(least > 0 && least <= bytes && bytes <= most, "{least} <= {bytes} <= {most}");
    scene.assert_near();

    scene.replica().resume_replay().await?;
    let look = scene.until("back", Look::serves).await?;
    assert!(look.joined.is_some_and(|it| it.returned), "{look:?}");
    Ok(())
}

async fn a_burst_of_log(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 1).await?;
    scene.looks.clear();
    let primary = scene.own.shard.primary.connect(DATABASE).await?;
    run(&primary, "CREATE TABLE burst (a bigint, b text)").await?;
    let burst = "INSERT INTO burst SELECT it, repeat('x', 200) FROM generate_series(1, 200000) AS it";
    let bursting = tokio::spawn(async move { run(&primary, burst).await.map(|_| ()) });
    while !bursting.is_finished() {
        scene.look().await?;
    }
    bursting.await??;
    scene.replica().pause_replay().await?;
    let primary = scene.own.shard.primary.connect(DATABASE).await?;
    run(&primary, burst).await?;
    scene.until("bytes behind", |it| it.lag_bytes.is_some_and(|it| it > 40_000_000)).await?;
    scene.replica().resume_replay().await?;
    scene.until("at its end", |it| it.serves() && it.lag_bytes.is_some_and(|it| it < 1_000_000)).await?;
    scene.assert_near();
    scene.replica().wait_until_replayed(&scene.own.shard.primary).await?;
    assert_eq!(scene.asked("SELECT count(*) FROM burst").await?, "400000");
    Ok(())
}

/// Between half of `max_lag` and all of it: who is in stays, and who has left stays out.
async fn a_delayed_replica(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 1).await?;
    scene.looks.clear();
    set(scene.replica(), "recovery_min_apply_delay", "700ms").await?;
    let delayed = |it: &Look| it.true_lag() > MS * 650;
    let first = scene.until("delayed", delayed).await?.joined;
    // On a machine that was too busy it has left; then it must not come back.
    let stays = |it: &Look| it.true_lag() > MS * 500 && (it.joined == first || it.joined.is_none());
    scene.always(MS * 1_500, "delayed", stays).await?;
    scene.assert_near();

    scene.replica().pause_replay().await?;
    scene.until("out", |it| it.joined.is_none() && it.true_lag() > MAX_LAG).await?;
    scene.replica().resume_replay().await?;
    scene.until("within max_lag again", |it| it.lag().is_some_and(|it| it <= MAX_LAG)).await?;
    scene.always(MS * 1_500, "out", |it| it.joined.is_none() && !it.serves()).await?;
    let near = scene.looks.iter().rev().take(50).filter(|it| it.lag().is_some_and(|it| it <= MAX_LAG));
    assert!(near.count() >= 25, "near enough to stay, not to come back");

    scene.watched.reload("max_lag = \"5s\"\n")?;
    let look = scene.until("near enough by a new configuration", |it| it.joined.is_some()).await?;
    assert!(look.true_lag() > MS * 500 && look.joined.is_some_and(|it| it.returned), "{look:?}");
    scene.watched.reload("max_lag = \"1s\"\n")?;
    let kept = look.joined;
    scene.always(MS * 500, "it stays", |it| it.joined == kept || it.joined.is_none()).await?;
    set(scene.replica(), "recovery_min_apply_delay", "0").await?;
    scene.until("back", Look::serves).await?;
    Ok(())
}

/// The trap of `CASE WHEN receive_lsn = replay_lsn THEN 0`: nobody tells the replica that its primary is gone.
async fn a_frozen_primary(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 1).await?;
    scene.own.shard.primary.freeze()?;
    let frozen_at = Instant::now();
    let stood_still = |it: &Look| it.fresh_as_of.is_none_or(|it| it <= frozen_at);
    scene.always(MAX_LAG * 2, "no fresher than when it froze", stood_still).await?;
    let look = scene.look().await?;
    assert!(look.joined.is_none() && !look.serves(), "{look:?}");
    let looks_fine = "SELECT status = 'streaming' AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() \
                      FROM pg_stat_wal_receiver";
    assert_eq!(scene.asked(looks_fine).await?, "t");
    scene.own.shard.primary.thaw()?;
    scene.until("back", |it| it.serves() && it.fresh_as_of > Some(frozen_at)).await?;
    Ok(())
}

/// As with a frozen primary, which goes on writing.
async fn a_stalled_stream(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 1).await?;
    let link = Link::to(scene.own.shard.primary.address().parse()?).await?;
    scene.replica().follow(link.address().port())?;
    scene.replica().wait_until_following(link.address().port()).await?;
    scene.until("it serves", Look::serves).await?;
    scene.looks.clear();
    link.stall();
    scene.until("two seconds behind", |it| it.true_lag() > MS * 2_000).await?;
    scene.until("out of the set", |it| it.joined.is_none()).await?;
    assert_eq!(scene.asked("SELECT status FROM pg_stat_wal_receiver").await?, "streaming");
    scene.assert_near();
    link.resume();
    scene.until("back", Look::serves).await?;
    scene.replica().wait_until_replayed(&scene.own.shard.primary).await?;
    link.cut();
    scene.until("over a new connection", |it| it.serves() && it.at > Instant::now() - MS * 100).await?;
    Ok(())
}

/// Between Keyway and a replica that lacks nothing.
async fn a_stalled_probe(harness: Arc<Shared>) -> Outcome {
    let own = harness.fresh_shard(1).await?;
    let link = Link::to(own.shard.replicas[0].address().parse()?).await?;
    let addresses = [own.shard.primary.address(), link.address().to_string()];
    let mut scene = Scene::of(own, &addresses).await?;
    let metric = |scene: &Scene, name: &str| -> Fallible<f64> {
        let text = scene.watched.registry.text()?;
        let mut lines = text.lines().filter(|it| it.starts_with(name));
        let line = lines.find(|it| it.contains(&addresses[1])).ok_or("no such metric")?;
        Ok(line.rsplit(' ').next().ok_or("no value")?.parse()?)
    };
    while metric(&scene, "keyway_replica_serving{")? != 1.0 {
        scene.look().await?;
    }
    link.stall();
    let stalled_at = Instant::now();
    let stood_still = |it: &Look| it.fresh_as_of.is_none_or(|it| it <= stalled_at);
    let mut shown_s = Vec::new();
    while stalled_at.elapsed() < MAX_LAG * 2 {
        scene.always(MS * 50, "no fresher than when it stalled", stood_still).await?;
        shown_s.push(metric(&scene, "keyway_replica_lag_seconds{")?);
    }
    let look = scene.look().await?;
    assert!(look.fresh_as_of.is_none() && look.joined.is_none(), "two probes without an answer: {look:?}");
    scene.until("it lacks nothing", |it| it.true_lag() == Duration::ZERO).await?;
    // The primary's probes keep it up to date until nobody knows it any more.
    assert!(
        shown_s.iter().any(|it| *it > 0.3) && shown_s.last().is_some_and(|it| it.is_nan()),
        "{shown_s:?}"
    );
    link.resume();
    scene.until("back", |it| it.serves() && it.fresh_as_of > Some(stalled_at)).await?;
    Ok(())
}

/// Clocks are not compared, so that all that a slow network can do is to make answers late.
async fn a_slow_network(harness: Arc<Shared>) -> Outcome {
    const EACH_WAY: Duration = Duration::from_millis(60);
    let own = harness.fresh_shard(1).await?;
    let links = [&own.shard.primary, &own.shard.replicas[0]].map(Server::address);
    let links = [Link::to(links[0].parse()?).await?, Link::to(links[1].parse()?).await?];
    let mut scene = Scene::of(own, &links.each_ref().map(|it| it.address().to_string())).await?;
    links.iter().for_each(|it| it.set_latency(EACH_WAY));
    let slow_since = Some(Instant::now());
    scene.until("samples are slow", |it| it.fresh_as_of > slow_since).await?;
    scene.looks.clear();
    // The primary's answer takes both ways, and so does the replica's, which is asked after it.
    scene.always(MS * 1_500, "late", |it| it.lag().is_none_or(|it| it > EACH_WAY * 2)).await?;
    scene.assert_within(EACH_WAY * 4 + MS * 250, EACH_WAY * 4 + MS * 1_000);
    Ok(())
}

/// Asked at the same time as its primary, as both probers have started, it would never have what the primary says then.
async fn asked_after_its_primary(harness: Arc<Shared>) -> Outcome {
    const INTERVAL: Duration = Duration::from_millis(400);
    const EACH_WAY: Duration = Duration::from_millis(40);
    let mut scene = Scene::start(&harness, 1).await?;
    let link = Link::to(scene.own.shard.primary.address().parse()?).await?;
    let addresses = [link.address().to_string(), scene.replica().address()];
    scene.watched = Watched::at(&addresses, INTERVAL, "max_lag = \"10s\"\n").await?;
    link.set_latency(EACH_WAY);
    let slow_since = Some(Instant::now());
    scene.until("samples are slow", |it| it.joined.is_some() && it.fresh_as_of > slow_since).await?;
    scene.looks.clear();
    scene.always(INTERVAL * 8, "known", |it| it.fresh_as_of.is_some()).await?;
    let probes: BTreeSet<_> = scene.looks.iter().map(|it| it.observed_at).collect();
    assert!(probes.len() <= 12, "{} probes in 8 intervals", probes.len());
    // From what an answer takes to an interval more, else to two.
    scene.assert_within(EACH_WAY * 2 + INTERVAL, EACH_WAY * 2 + INTERVAL * 3);
    Ok(())
}

/// Its own source stands still while the primary, which it knows nothing of, goes on.
async fn a_replica_of_a_replica(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 2).await?;
    let between = scene.own.shard.replicas[0].port();
    scene.replica().follow(between)?;
    scene.replica().wait_until_following(between).await?;
    scene.until("it serves", Look::serves).await?;
    scene.looks.clear();
    scene.always(MS * 500, "known", |it| it.fresh_as_of.is_some()).await?;
    scene.assert_near();
    scene.own.shard.replicas[0].freeze()?;
    scene.until("two seconds behind", |it| it.true_lag() > MS * 2_000).await?;
    scene.until("out of the set", |it| it.joined.is_none()).await?;
    assert_eq!(scene.asked("SELECT status FROM pg_stat_wal_receiver").await?, "streaming");
    scene.assert_near();
    scene.own.shard.replicas[0].thaw()?;
    scene.until("back", Look::serves).await?;
    Ok(())
}

/// It shows less than before, for as long as a delay makes it that it has from its start on.
async fn a_replica_that_starts_anew(harness: Arc<Shared>) -> Outcome {
    const DELAY: Duration = Duration::from_millis(1_500);
    let mut scene = Scene::start(&harness, 1).await?;
    for _ in 0..3 {
        // Its tables are older than the delay.
        scene.always(DELAY, "known", |it| it.fresh_as_of.is_some()).await?;
        let client = scene.replica().connect("postgres").await?;
        run(&client, "ALTER SYSTEM SET recovery_min_apply_delay = '1500ms'").await?;
        let replica = &mut scene.own.shard.replicas[0];
        replica.kill().await?;
        replica.start().await?;
        (scene.eye, scene.shown) = look_at(replica).await?;
        scene.eye_since = Instant::now();
        scene.until("known again", |it| it.fresh_as_of.is_some()).await?;
        scene.until("delayed", |it| it.true_lag() > MS * 1_200 && it.joined.is_none()).await?;
        scene.looks.clear();
        scene.always(MS * 500, "out", |it| !it.serves()).await?;
        scene.assert_near();
        set(scene.replica(), "recovery_min_apply_delay", "0").await?;
        let look = scene.until("back", Look::serves).await?;
        assert!(look.joined.is_some_and(|it| it.returned), "{look:?}");
    }
    Ok(())
}

/// A switchover, of which one replica hears late.
async fn follows_late(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 2).await?;
    scene.replica().pause_replay().await?;
    scene.until("behind", |it| it.true_lag() > MS * 200).await?;
    scene.own.shard.primary.stop(StopMode::Fast).await?;
    let stopped_at = Instant::now();
    scene.own.shard.replicas[0].promote().await?;
    scene.beats.go_on(&scene.own.shard.replicas[0]).await?;
    let roles = [None, Some(Role::Primary), Some(Role::Replica)];
    scene.watched.until_roles(&roles).await?;
    scene.always(MAX_LAG, "unknown", |it| it.fresh_as_of.is_none() && it.joined.is_none()).await?;
    let problem = scene.watched.server(2).problem.unwrap_or_default();
    assert!(problem.contains("not known to follow timeline 2, last seen on 1"), "{problem}");
    // What it has not shown of the old timeline is still not on the new one.
    scene.replica().resume_replay().await?;
    scene.always(MAX_LAG, "unknown", |it| it.fresh_as_of.is_none() && it.joined.is_none()).await?;

    let successor = scene.own.shard.replicas[0].port();
    scene.replica().follow(successor)?;
    scene.until("it follows", |it| it.serves() && it.true_as_of > stopped_at).await?;
    scene.looks.clear();
    scene.always(MS * 500, "known", |it| it.fresh_as_of.is_some()).await?;
    scene.assert_near();

    let (eye, shown) = {
        let old = &mut scene.own.shard.primary;
        old.follow(successor)?;
        old.start().await?;
        look_at(old).await?
    };
    (scene.eye, scene.shown, scene.index, scene.eye_since) = (eye, shown, 0, Instant::now());
    scene.until("the old primary follows", |it| it.serves() && it.true_as_of > stopped_at).await?;
    scene.looks.clear();
    scene.always(MS * 500, "known", |it| it.fresh_as_of.is_some()).await?;
    scene.assert_near();
    Ok(())
}

/// The new primary had less than the replica, whose position is ahead and which lacks all that is written now.
async fn two_timelines(harness: Arc<Shared>) -> Outcome {
    let mut scene = Scene::start(&harness, 2).await?;
    let link = Link::to(scene.own.shard.primary.address().parse()?).await?;
    let behind = &scene.own.shard.replicas[0];
    behind.follow(link.address().port())?;
    behind.wait_until_following(link.address().port()).await?;
    link.stall();
    let primary = scene.own.shard.primary.connect(DATABASE).await?;
    run(&primary, "CREATE TABLE lost AS SELECT it, repeat('x', 200) FROM generate_series(1, 20000) AS it")
        .await?;
    scene.replica().wait_until_replayed(&scene.own.shard.primary).await?;
    scene.beats.stop();
    scene.own.shard.primary.kill().await?;
    scene.own.shard.replicas[0].promote().await?;
    let promoted_at = Instant::now();
    scene.beats.go_on(&scene.own.shard.replicas[0]).await?;
    scene.watched.until_roles(&[None, Some(Role::Primary), Some(Role::Replica)]).await?;
    let sampled = |scene: &Scene| scene.watched.server(1).observed_at > Some(promoted_at + MAX_LAG);
    while !sampled(&scene) {
        let (successor, replica) = (scene.watched.server(1), scene.watched.server(2));
        assert!(replica.position > successor.position, "{replica:?} {successor:?}");
        assert!(replica.fresh_as_of.is_none() && replica.joined.is_none(), "{replica:?}");
        assert!(replica.problem.is_some_and(|it| it.contains("not known to follow timeline 2")));
        sleep(MS * 5).await;
    }
    Ok(())
}
