//! What a change of roles means for those who use the servers, and where statements wait while a shard has no
//! primary: in a queue with a bound, each for its own time.
//!
//! ```text
//!                      no primary, or none that can be connected to
//!   `Session::attach` ─────────────────────────────────────────────▶ held ──role changes──▶ looks again
//!                                                                     │ `failover_hold` is over: 57P03
//!                                                                     │ client cancels: 57014, or leaves
//! ```
//! Who waits for a connection of a server that loses its role is sent on at once. What is used as the primary goes on while
//! nobody else has the role. When somebody has, idle connections are closed and those in use are cut off: what they would still
//! write would be on no server that counts. They are cut off, too, once a later timeline shows that somebody will have it. Reads that another server can answer leave one without a role (`Tie`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::Histogram;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Sessions;
use crate::base::{Role, ServerId, ShardId};
use crate::metrics::Live;
use crate::pool::{Ledger, Pool, ServerUse};
use crate::route::{Cluster, Server, Shard};
use crate::topology::Topology;

use super::metrics::DatabaseMetrics;

/// Between looks at the servers of a shard while somebody is held there.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How long a server is doubted at most: several times what an urgent look at one that is there takes.
const DOUBT_MAX: Duration = Duration::from_millis(250);
/// How long it is not doubted again.
const DOUBT_AGAIN: Duration = Duration::from_secs(1);

/// Of one topology.
pub struct Failover {
    shards: Vec<Held>,
    /// On all of them.
    count: AtomicUsize,
    doubts: Vec<Vec<Doubt>>,
    topology: Weak<Topology>,
}

/// That a server is about to go, from a connection of its that has: the first sign of a shutdown or a crash. Until it has
/// been looked at, at once, no statement is sent to it that could only fail; the others that are still open may not know yet.
#[derive(Default)]
pub struct Doubt {
    /// One look tells that there is none.
    is_there: AtomicBool,
    since: Mutex<Option<Instant>>,
}

impl Doubt {
    /// A server that turns out to be there, though somebody ends connections of its now and then, is not doubted all the
    /// time.
    pub fn begin(&self, now: Instant) {
        let mut since = self.since.lock();
        if since.is_none_or(|it| now.saturating_duration_since(it) >= DOUBT_AGAIN) {
            *since = Some(now);
            self.is_there.store(true, Ordering::Release);
        }
    }

    /// A look that was begun behind it ends it, and so does `DOUBT_MAX`.
    pub fn holds(&self, observed_at: Option<Instant>, now: Instant) -> bool {
        let since = self.since.lock();
        let holds = since.is_some_and(|it| {
            observed_at.is_none_or(|at| at <= it) && now.saturating_duration_since(it) < DOUBT_MAX
        });
        if !holds {
            self.is_there.store(false, Ordering::Release);
        }
        holds
    }
}

/// Who waits for the primary of a shard.
#[derive(Default)]
struct Held {
    count: AtomicUsize,
    /// Wakes in the order of arrival.
    changed: Notify,
    looking: AtomicBool,
}

/// A place in the queue. Dropping it gives it up.
pub struct Place {
    failover: Arc<Failover>,
    shard: ShardId,
    since: Instant,
    seconds: Histogram,
    _live: Live<prometheus::IntGauge>,
}

impl Failover {
    /// Follows `topology` for as long as it lives, for the pools of `database` in `ledger` and who uses them.
    pub fn start(
        topology: &Arc<Topology>,
        database: &str,
        ledger: &Arc<Ledger>,
        sessions: &Arc<Sessions>,
    ) -> Arc<Failover> {
        let shards = (0..topology.shard_count()).map(|_| Held::default()).collect();
        let doubts = |it: &Shard| it.servers.iter().map(|_| Doubt::default()).collect();
        let doubts = topology.snapshot().shards.iter().map(doubts).collect();
        let (count, weak) = (AtomicUsize::new(0), Arc::downgrade(topology));
        let failover = Arc::new(Failover { shards, count, doubts, topology: weak.clone() });
        renew_on_move(topology, database, ledger);
        let followed = failover.clone();
        let (ledger, sessions, database) = (ledger.clone(), sessions.clone(), database.to_owned());
        let mut changes = topology.changes();
        let mut before = topology.snapshot().clone();
        let mut timelines = Timelines::default();
        timelines.take(&before);
        tokio::spawn(async move {
            // Its sender ends with the topology.
            while changes.changed().await.is_ok() {
                let Some(topology) = weak.upgrade() else { return };
                let after = topology.snapshot().clone();
                let pools: Vec<_> =
                    ledger.pools().into_iter().filter(|it| *it.name().database == *database).collect();
                apply(&before, &after, &pools, &sessions);
                timelines.take(&after).iter().for_each(|it| leave_behind(it, &pools, &sessions));
                before = after;
                followed.shards.iter().for_each(|it| it.changed.notify_waiters());
            }
        });
        failover
    }

    /// Whether it follows this one.
    pub fn is_of(&self, topology: &Arc<Topology>) -> bool {
        Weak::ptr_eq(&self.topology, &Arc::downgrade(topology))
    }

    /// A place among `max`; `None` when all are taken.
    pub fn enter(
        self: &Arc<Failover>,
        shard: ShardId,
        max: usize,
        metrics: &DatabaseMetrics,
    ) -> Option<Place> {
        let held = self.shards.get(usize::from(shard.0))?;
        let room = |count| (count < max).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        held.count.fetch_add(1, Ordering::SeqCst);
        if !held.looking.swap(true, Ordering::SeqCst) {
            tokio::spawn(look(self.clone(), shard));
        }
        let (failover, since) = (self.clone(), Instant::now());
        let (seconds, _live) = (metrics.held_seconds.clone(), Live::new(metrics.held.clone()));
        Some(Place { failover, shard, since, seconds, _live })
    }

    fn doubt_of(&self, server: ServerId) -> Option<&Doubt> {
        self.doubts.get(usize::from(server.shard.0))?.get(usize::from(server.index))
    }

    /// A connection of the server was lost that was in use. `Topology::report_failure` has to follow.
    pub fn doubt(&self, server: ServerId) {
        if let Some(it) = self.doubt_of(server) {
            it.begin(Instant::now());
        }
    }

    /// Whether a statement had better wait until the server has been looked at; for a moment at most.
    pub fn doubts(&self, server: ServerId) -> bool {
        let Some(doubt) = self.doubt_of(server).filter(|it| it.is_there.load(Ordering::Acquire)) else {
            return false;
        };
        let Some(topology) = self.topology.upgrade() else { return false };
        let cluster = topology.snapshot();
        doubt.holds(cluster.server(server).and_then(|it| it.observed_at), Instant::now())
    }

    /// Ends with the next change of a role from now on. `None` is no such shard.
    pub fn changed(&self, shard: ShardId) -> Option<Notified<'_>> {
        self.shards.get(usize::from(shard.0)).map(|it| it.changed.notified())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.failover.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(held) = self.failover.shards.get(usize::from(self.shard.0)) {
            held.count.fetch_sub(1, Ordering::SeqCst);
        }
        self.seconds.observe(self.since.elapsed().as_secs_f64());
    }
}

/// What is idle at an address that is not a server's any more is closed before anybody hears of the server again; what is in
/// use serves its client until it is released.
fn renew_on_move(topology: &Topology, database: &str, ledger: &Arc<Ledger>) {
    let (ledger, database) = (ledger.clone(), database.to_owned());
    topology.on_move(move |server, at| {
        let pools = ledger.pools().into_iter();
        let of_server =
            |it: &Arc<Pool>| *it.name().database == *database && *it.name().server == *server.address;
        pools.filter(of_server).for_each(|it| it.renew(at));
    });
}

/// A server that is gone is probed more and more rarely. While somebody waits for one to come back, as often as it can be.
async fn look(failover: Arc<Failover>, shard: ShardId) {
    let Some(held) = failover.shards.get(usize::from(shard.0)) else { return };
    loop {
        while held.count.load(Ordering::SeqCst) > 0 {
            let Some(topology) = failover.topology.upgrade() else { return };
            topology.look_at(shard);
            drop(topology);
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        held.looking.store(false, Ordering::SeqCst);
        // Who has come in between has seen that somebody looks.
        if held.count.load(Ordering::SeqCst) == 0 || held.looking.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}

/// What becomes of the connections to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// It is there.
    pub reopen: bool,
    /// Who waits for one had better look for another server.
    pub evict: bool,
    /// Nobody needs them any more. One that has only fallen silent may need them when it is back, and then most of all.
    pub close: bool,
    /// What can be had elsewhere is had there.
    pub doubt: bool,
    /// What is used as the primary is used no more.
    pub cut: bool,
}

/// `before` and `after` are of the same shard.
pub fn fate(index: usize, before: &Shard, after: &Shard) -> Fate {
    let role = |it: &Shard| it.servers.get(index).and_then(|it| it.role);
    let primary = |it: &Shard| it.primary().map(|it| it.id);
    let (was, is) = (role(before), role(after));
    let is_replaced = primary(after).is_some() && primary(before) != primary(after);
    Fate {
        reopen: was.is_none() && is.is_some(),
        // A replica that is promoted keeps its sessions.
        evict: was != is && (was == Some(Role::Primary) || was.is_some() && is.is_none()),
        close: was == Some(Role::Primary) && is.is_some() && was != is || is.is_none() && is_replaced,
        doubt: is.is_none(),
        cut: is != Some(Role::Primary) && (is.is_some() || primary(after).is_some() || after.is_replaced),
    }
}

fn apply(before: &Cluster, after: &Cluster, pools: &[Arc<Pool>], sessions: &Sessions) {
    let now = Instant::now();
    for (shard, before) in after.shards.iter().zip(&before.shards) {
        for (index, server) in shard.servers.iter().enumerate() {
            let fate = fate(index, before, shard);
            for pool in pools.iter().filter(|it| *it.name().server == *server.address) {
                if fate.reopen {
                    pool.reopen(now);
                }
                if fate.evict {
                    pool.evict();
                }
                if fate.close {
                    pool.renew(now);
                }
                pool.servers().iter().for_each(|it| meet(it, fate, sessions));
            }
        }
    }
}

/// On which timeline each server was the primary last.
#[derive(Default)]
struct Timelines(HashMap<ServerId, u32>);

impl Timelines {
    /// Says which primaries stand for others now, on a later timeline: their names have moved.
    fn take<'a>(&mut self, cluster: &'a Cluster) -> Vec<&'a Server> {
        let mut moved = Vec::new();
        for primary in cluster.shards.iter().filter_map(Shard::primary) {
            let Some(timeline) = primary.timeline else { continue };
            let before = self.0.insert(primary.id, timeline);
            if primary.moved_at.is_some() && before.is_some_and(|it| it < timeline) {
                moved.push(primary);
            }
        }
        moved
    }
}

/// What is still used at the address that the primary's name had before is on a primary that has been replaced.
fn leave_behind(primary: &Server, pools: &[Arc<Pool>], sessions: &Sessions) {
    let fate = Fate { cut: true, ..Fate::default() };
    for pool in pools.iter().filter(|it| *it.name().server == *primary.address) {
        let is_left =
            |it: &ServerUse| Some(it.record.connected_at) < primary.moved_at && it.record.is_primary();
        pool.servers().iter().filter(|it| !it.idle && is_left(it)).for_each(|it| meet(it, fate, sessions));
    }
}

fn meet(used: &ServerUse, fate: Fate, sessions: &Sessions) {
    let tie = &used.record.tie;
    if used.idle {
        // It may have been doubted when it was in use.
        if !fate.doubt {
            tie.restore();
        }
        return;
    }
    if fate.cut && used.record.is_primary() {
        tie.cut();
    } else if fate.doubt {
        tie.doubt();
    } else {
        return tie.restore();
    }
    // It may wait for a word of the server.
    if let Some(session) = used.record.session().and_then(|it| sessions.get(it)) {
        session.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(roles: &[Option<Role>; 2]) -> Shard {
        let server = |(index, role): (usize, &Option<Role>)| {
            let id = ServerId { shard: ShardId(0), index: index as u16 };
            Server { role: *role, ..Server::unknown(id, String::new()) }
        };
        let servers = roles.iter().enumerate().map(server).collect();
        Shard { name: "main".to_owned(), servers, ..Shard::default() }
    }

    /// Of the first server, as `[reopen, evict, close, doubt, cut]`.
    fn check(before: [Option<Role>; 2], after: [Option<Role>; 2], expect: [bool; 5]) {
        let Fate { reopen, evict, close, doubt, cut } = fate(0, &shard(&before), &shard(&after));
        assert_eq!([reopen, evict, close, doubt, cut], expect, "{before:?} -> {after:?}");
    }

    #[test]
    fn a_doubt_ends_with_a_look_and_does_not_come_back_at_once() {
        let (doubt, start) = (Doubt::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!doubt.holds(None, at(0)));
        doubt.begin(at(10));
        assert!(doubt.is_there.load(Ordering::Relaxed));
        assert!(doubt.holds(Some(at(9)), at(11)) && doubt.holds(None, at(100)));
        assert!(!doubt.holds(Some(at(12)), at(13)), "it has been looked at");
        assert!(!doubt.is_there.load(Ordering::Relaxed));
        doubt.begin(at(500));
        assert!(!doubt.is_there.load(Ordering::Relaxed), "so soon again");
        doubt.begin(at(1_010));
        assert!(doubt.holds(Some(at(12)), at(1_011)));
        assert!(!doubt.holds(Some(at(12)), at(1_260)), "nobody looks");
    }

    #[test]
    fn a_primary_that_has_moved_is_another_one_on_a_later_timeline() {
        let cluster = |role, timeline, has_moved: bool| {
            let mut shard = shard(&[role, None]);
            shard.servers[0].timeline = timeline;
            shard.servers[0].moved_at = has_moved.then(Instant::now);
            Cluster { shards: vec![shard] }
        };
        const PRIMARY: Option<Role> = Some(Role::Primary);
        let mut timelines = Timelines::default();
        let mut check = |role, timeline, has_moved, expect| {
            let cluster = cluster(role, timeline, has_moved);
            assert_eq!(timelines.take(&cluster).len(), expect, "{role:?} {timeline:?}");
        };
        check(PRIMARY, Some(1), false, 0);
        // The same address has another server, as behind a balancer: nobody knows which connections are of which.
        check(PRIMARY, Some(2), false, 0);
        check(None, None, true, 0);
        check(PRIMARY, Some(2), true, 0);
        check(PRIMARY, None, true, 0);
        check(PRIMARY, Some(3), true, 1);
        check(PRIMARY, Some(3), true, 0);
    }

    #[test]
    fn a_primary_is_cut_off_when_another_one_has_its_role() {
        const PRIMARY: Option<Role> = Some(Role::Primary);
        const REPLICA: Option<Role> = Some(Role::Replica);
        check([PRIMARY, REPLICA], [PRIMARY, None], [false; 5]);
        check([PRIMARY, REPLICA], [None, REPLICA], [false, true, false, true, false]);
        check([None, REPLICA], [PRIMARY, REPLICA], [true, false, false, false, false]);
        check([None, REPLICA], [None, PRIMARY], [false, false, true, true, true]);
        check([None, PRIMARY], [None, PRIMARY], [false, false, false, true, true]);
        check([PRIMARY, REPLICA], [None, PRIMARY], [false, true, true, true, true]);
        // Of a replica, what was used as the primary before is cut off.
        check([PRIMARY, REPLICA], [REPLICA, None], [false, true, true, false, true]);
        check([REPLICA, PRIMARY], [PRIMARY, None], [false; 5]);
        check([REPLICA, PRIMARY], [None, PRIMARY], [false, true, false, true, true]);
        check([REPLICA, None], [REPLICA, PRIMARY], [false, false, false, false, true]);
        let lost = [shard(&[None, REPLICA]), Shard { is_replaced: true, ..shard(&[None, REPLICA]) }];
        assert!(fate(0, &lost[0], &lost[1]).cut && !fate(0, &lost[0], &lost[0]).cut, "by one not seen yet");
    }
}
