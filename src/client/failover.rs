//! What a change of roles means for those who use the servers, and where statements wait while a shard has no
//! primary: in a queue with a bound, each for its own time.
//!
//! ```text
//!                      no primary, or none that can be connected to
//!   `Session::attach` ─────────────────────────────────────────────▶ held ──role changes──▶ looks again
//!                                                                     │ `failover_hold` is over: 57P03
//!                                                                     │ client cancels: 57014, or leaves
//! ```
//! A server that is the primary no more loses its idle connections and those who wait for one at once. What is used as the
//! primary goes on while nobody else has the role, and is cut off when somebody has: what it would still write would be
//! on no server that counts. What is used for reads that another server can answer is left by these (`Tie`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use prometheus::Histogram;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Sessions;
use crate::base::{Role, ShardId};
use crate::metrics::Live;
use crate::pool::{Ledger, Pool, ServerUse};
use crate::route::{Cluster, Server, Shard};
use crate::topology::Topology;

use super::metrics::DatabaseMetrics;

/// Between looks at the servers of a shard while somebody is held there.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Of one topology.
pub struct Failover {
    shards: Vec<Held>,
    /// On all of them.
    count: AtomicUsize,
    topology: Weak<Topology>,
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
        let (count, weak) = (AtomicUsize::new(0), Arc::downgrade(topology));
        let failover = Arc::new(Failover { shards, count, topology: weak.clone() });
        let followed = failover.clone();
        let (ledger, sessions, database) = (ledger.clone(), sessions.clone(), database.to_owned());
        let mut changes = topology.changes();
        let mut before = topology.snapshot().clone();
        tokio::spawn(async move {
            // Its sender ends with the topology.
            while changes.changed().await.is_ok() {
                let Some(topology) = weak.upgrade() else { return };
                let after = topology.snapshot().clone();
                let pools: Vec<_> =
                    ledger.pools().into_iter().filter(|it| *it.name().database == *database).collect();
                apply(&before, &after, &pools, &sessions);
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
struct Fate {
    /// It is there.
    reopen: bool,
    /// Nobody new comes.
    vacate: bool,
    /// What can be had elsewhere is had there.
    doubt: bool,
    /// What is used as the primary is used no more.
    cut: bool,
}

fn fate(was: Option<Role>, server: &Server, shard: &Shard) -> Fate {
    let is = server.role;
    Fate {
        reopen: is.is_some(),
        // A replica that is promoted keeps its sessions.
        vacate: was != is && (was == Some(Role::Primary) || was.is_some() && is.is_none()),
        doubt: is.is_none(),
        cut: is != Some(Role::Primary) && (is.is_some() || shard.primary().is_some()),
    }
}

fn apply(before: &Cluster, after: &Cluster, pools: &[Arc<Pool>], sessions: &Sessions) {
    let now = Instant::now();
    for (shard, before) in after.shards.iter().zip(&before.shards) {
        for (server, before) in shard.servers.iter().zip(&before.servers) {
            let fate = fate(before.role, server, shard);
            for pool in pools.iter().filter(|it| *it.name().server == *server.address) {
                if fate.reopen && before.role.is_none() {
                    pool.reopen(now);
                }
                if fate.vacate {
                    pool.vacate(now);
                }
                pool.servers().iter().filter(|it| !it.idle).for_each(|it| meet(it, fate, sessions));
            }
        }
    }
}

fn meet(used: &ServerUse, fate: Fate, sessions: &Sessions) {
    let tie = &used.record.tie;
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
    use crate::base::ServerId;

    fn shard(roles: &[Option<Role>]) -> Shard {
        let server = |(index, role): (usize, &Option<Role>)| {
            let id = ServerId { shard: ShardId(0), index: index as u16 };
            Server { role: *role, ..Server::unknown(id, String::new()) }
        };
        Shard { name: "main".to_owned(), servers: roles.iter().enumerate().map(server).collect() }
    }

    /// Of the first server, as `[reopen, vacate, doubt, cut]`.
    fn check(was: Option<Role>, roles: &[Option<Role>], expect: [bool; 4]) {
        let shard = shard(roles);
        let Fate { reopen, vacate, doubt, cut } = fate(was, &shard.servers[0], &shard);
        assert_eq!([reopen, vacate, doubt, cut], expect, "{was:?} -> {roles:?}");
    }

    #[test]
    fn a_primary_is_cut_off_when_another_one_has_its_role() {
        const PRIMARY: Option<Role> = Some(Role::Primary);
        const REPLICA: Option<Role> = Some(Role::Replica);
        check(PRIMARY, &[PRIMARY, REPLICA], [true, false, false, false]);
        check(PRIMARY, &[None, REPLICA], [false, true, true, false]);
        check(None, &[None, PRIMARY], [false, false, true, true]);
        check(PRIMARY, &[None, PRIMARY], [false, true, true, true]);
        // Cut is what is used as the primary alone.
        check(PRIMARY, &[REPLICA, None], [true, true, false, true]);
        check(None, &[PRIMARY, REPLICA], [true, false, false, false]);
        check(REPLICA, &[PRIMARY, None], [true, false, false, false]);
        check(REPLICA, &[None, PRIMARY], [false, true, true, true]);
        check(REPLICA, &[REPLICA, PRIMARY], [true, false, false, true]);
    }
}
