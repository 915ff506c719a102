//! Which server of a shard answers a read: what the configuration says of servers and what their connections show,
//! put before `route::balance`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::UserPools;
use super::freshness::ReadReason;
use super::relay::RelayError;
use super::session::Session;
use crate::base::{Reason, Refusal, Role, ServerId, ShardId, SqlState};
use crate::config::{self, WhenStale};
use crate::metrics::Limit;
use crate::pool::{BreakerState, Busy, Standing, Trial};
use crate::proto::Unexpected;
use crate::route::{Choice, Excluded, Freshness, Load, Offer, Server, Shard, warmth};

/// Of one database.
pub struct Balance {
    servers: Vec<Vec<Preferred>>,
    slow_start: Duration,
    zone_penalty: f32,
    when_stale: WhenStale,
    /// For reads that are a replica's, by shard: how many a primary takes at once. `None` is no bound.
    spill: Option<Spill>,
}

struct Preferred {
    weight: u16,
    is_far: bool,
    zone: Option<String>,
    metrics: ReadMetrics,
}

/// Of one server.
pub(super) struct ReadMetrics {
    pub reads: IntCounter,
    pub floor_misses: IntCounter,
}

struct Spill {
    count: usize,
    shards: Vec<(String, Arc<Semaphore>)>,
}

/// How reads have come to a server, for SHOW REPLICAS.
#[derive(Clone, Debug)]
pub struct ServerReads {
    pub weight: u16,
    pub zone: Option<String>,
    pub reads: u64,
    pub floor_misses: u64,
}

/// What a session has beside the connection to the server that it reads from. Small, as sessions are.
#[derive(Default)]
pub(super) struct Reader {
    /// On a replica.
    busy: Option<Busy>,
    aside: Option<Box<Aside>>,
}

/// What few have.
enum Aside {
    /// A place among those who read on the primary for want of a replica.
    Spilled { _place: OwnedSemaphorePermit },
    /// On a replica that has failed before.
    Trial(Trial),
}

/// Where a statement goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub server: ServerId,
    pub role: Role,
    /// Of a read that a replica could answer.
    pub reason: Option<ReadReason>,
}

impl Reader {
    pub fn spilled(place: Option<OwnedSemaphorePermit>) -> Reader {
        Reader { busy: None, aside: place.map(|it| Box::new(Aside::Spilled { _place: it })) }
    }

    /// On a connection to a replica; after failures one statement at a time tries. `None` is not this one.
    pub fn of_replica(standing: &Arc<Standing>, now: Instant) -> Option<Reader> {
        let busy = || Some(Busy::new(standing.clone()));
        match standing.breaker.statement_state(now) {
            BreakerState::Closed => Some(Reader { busy: busy(), aside: None }),
            BreakerState::Open => None,
            BreakerState::HalfOpen => {
                standing.breaker.may_try(now).ok()?;
                let trial = Trial::new(standing.clone());
                Some(Reader { busy: busy(), aside: Some(Box::new(Aside::Trial(trial))) })
            }
        }
    }

    /// `sent_at` is of what it was sent: what was waited for before is not this server's.
    pub fn succeeded(&mut self, sent_at: Option<Instant>) {
        if let (Some(it), Some(sent_at)) = (&self.busy, sent_at) {
            let now = Instant::now();
            it.succeeded(now.saturating_duration_since(sent_at), now);
            self.settle();
        }
    }

    pub fn lost(&mut self, error: &RelayError, now: Instant) {
        if error.is_servers()
            && !ended_alone(error)
            && let Some(it) = &self.busy
        {
            it.lost(now);
            self.settle();
        }
    }

    fn settle(&mut self) {
        if let Some(Aside::Trial(it)) = self.aside.as_deref_mut() {
            it.settle();
        }
    }
}

/// The server has ended this connection, which says nothing about others: an administrator did, or the server's own
/// time-outs and recovery conflicts (`ProcessInterrupts` in postgres.c).
fn ended_alone(error: &RelayError) -> bool {
    const ALONE: [&str; 6] = ["57P01", "57P04", "57P05", "25P03", "25P04", "40001"];
    matches!(error, RelayError::Unexpected(Unexpected::Fatal(state, _)) if ALONE.contains(&state.as_str()))
}

impl Balance {
    /// `before` is what a reload replaces: who reads on a primary now keeps counting where the bound is the same.
    pub(super) fn new(
        database: &config::Database,
        metrics: impl Fn(&str, &str) -> ReadMetrics,
        before: Option<&Balance>,
    ) -> Balance {
        let config::Replicas { zone, zone_penalty, slow_start, when_stale, primary_read_share } =
            &database.replicas;
        let is_far = |it: &Option<String>| zone.is_some() && it.is_some() && it != zone;
        let shard = |shard: &config::ShardServers| {
            let both = shard.servers.iter().zip(&shard.preferences);
            let server = |(address, it): (&config::Address, &config::Preference)| Preferred {
                weight: it.weight,
                is_far: is_far(&it.zone),
                zone: it.zone.clone(),
                metrics: metrics(&shard.name, &address.to_string()),
            };
            both.map(server).collect()
        };
        let count = primary_read_share.of(database.pool.size);
        let bounded = *primary_read_share != config::Share::WHOLE;
        let kept = before.and_then(|it| it.spill.as_ref()).filter(|it| it.count == count);
        let spill = || {
            let place = |name: &str| {
                let known = kept.and_then(|it| it.shards.iter().find(|of| of.0 == name));
                known.map_or_else(|| Arc::new(Semaphore::new(count)), |it| it.1.clone())
            };
            let shards = database.shards.iter().map(|it| (it.name.clone(), place(&it.name)));
            Spill { count, shards: shards.collect() }
        };
        Balance {
            servers: database.shards.iter().map(shard).collect(),
            slow_start: *slow_start,
            zone_penalty: *zone_penalty as f32,
            when_stale: *when_stale,
            spill: bounded.then(spill),
        }
    }

    /// Whether reads may find no place on a primary.
    pub(super) fn is_bounded(&self) -> bool {
        self.spill.is_some()
    }

    fn preferred(&self, server: ServerId) -> Option<&Preferred> {
        self.servers.get(usize::from(server.shard.0))?.get(usize::from(server.index))
    }

    pub fn reads(&self, server: ServerId) -> Option<ServerReads> {
        let it = self.preferred(server)?;
        Some(ServerReads {
            weight: it.weight,
            zone: it.zone.clone(),
            reads: it.metrics.reads.get(),
            floor_misses: it.metrics.floor_misses.get(),
        })
    }

    /// `None` for one that has failed and is not to be tried yet.
    fn offer(&self, server: &Server, pools: &UserPools, now: Instant) -> Option<Offer> {
        let (it, standing) = (self.preferred(server.id)?, pools.get(server.id)?.standing());
        if standing.breaker.statement_state(now) == BreakerState::Open {
            return None;
        }
        let load = Load { outstanding: standing.outstanding(), latency_us: standing.latency_us(now) };
        let penalty = if it.is_far { self.zone_penalty } else { 1.0 };
        Some(Offer::new(it.weight, load, penalty, self.warmth(server, now)))
    }

    fn warmth(&self, server: &Server, now: Instant) -> f32 {
        match server.joined.filter(|it| it.returned) {
            Some(it) => warmth(now.saturating_duration_since(it.at), self.slow_start),
            None => 1.0,
        }
    }
}

impl Session {
    /// A server for `role` as things are; a read that no replica may answer is the primary's.
    ///
    /// # Errors
    /// Where the configuration wants an error rather than that.
    pub fn choose(
        &mut self,
        shard: ShardId,
        role: Role,
        excluded: Excluded,
        now: Instant,
    ) -> Result<Option<Placed>, Refusal> {
        // Who was to answer before, and did not, has shown nothing.
        if let Some(it) = &mut self.tracks {
            it.will_not_read(shard);
        }
        let cluster = self.database.topology.snapshot();
        let Some(state) = cluster.shard(shard) else { return Ok(None) };
        let primary = state.primary().map(|it| Placed { server: it.id, role: Role::Primary, reason: None });
        if role == Role::Primary {
            return Ok(primary);
        }
        if state.servers.len() < 2 {
            let reason = Some(ReadReason::Lag);
            return Ok(primary.map(|it| Placed { reason, ..it }));
        }
        self.entropy = self.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let freshness = self.freshness(shard);
        let balance = &self.database.balance;
        let offer = |it: &Server| {
            if excluded.has(it.id) { None } else { balance.offer(it, &self.pools, now) }
        };
        let (found, reason) = match state.replica(freshness, now, self.entropy >> 16, offer) {
            Choice::One(it) => (Some(it.id), ReadReason::Fresh),
            Choice::Cold(_) if primary.is_some() && !balance.is_bounded() => (None, ReadReason::Cold),
            Choice::Cold(it) => (Some(it.id), ReadReason::Fresh),
            Choice::Nobody => self.without_replica(state, freshness, excluded, now)?,
        };
        let replica = found.map(|server| Placed { server, role: Role::Replica, reason: None });
        Ok(replica.or(primary).map(|it| Placed { reason: Some(reason), ..it }))
    }

    /// A replica that was chosen for the statement under way would be chosen now as well.
    pub fn is_fit_still(&self, placed: Placed, now: Instant) -> bool {
        let cluster = self.database.topology.snapshot();
        let Some(server) = cluster.server(placed.server).filter(|it| it.role == Some(Role::Replica)) else {
            return false;
        };
        let freshness = self.freshness(placed.server.shard);
        match placed.reason {
            // However late it was.
            Some(ReadReason::NoPrimary | ReadReason::Stale) => server.has(freshness),
            _ => server.may_serve(freshness, now),
        }
    }

    fn without_replica(
        &self,
        shard: &Shard,
        freshness: Freshness,
        excluded: Excluded,
        now: Instant,
    ) -> Result<(Option<ServerId>, ReadReason), Refusal> {
        let any = Freshness { max_lag: freshness.max_lag, ..Freshness::default() };
        if shard.has_replica(freshness, now) {
            return Ok((None, ReadReason::Failed));
        }
        if shard.has_replica(any, now) {
            return Ok((None, ReadReason::Floor));
        }
        let may =
            |it: &Server| !excluded.has(it.id) && self.database.balance.offer(it, &self.pools, now).is_some();
        let hold = self.database.failover_hold;
        if let Some(it) = shard.left_behind(freshness, hold, now, may) {
            return Ok((Some(it.id), ReadReason::NoPrimary));
        }
        match self.database.balance.when_stale {
            WhenStale::Primary => Ok((None, ReadReason::Lag)),
            WhenStale::LeastStale => {
                let found = shard.least_stale(freshness, may).map(|it| it.id);
                Ok((found, if found.is_some() { ReadReason::Stale } else { ReadReason::Lag }))
            }
            WhenStale::Error => Err(stale(&self.database.name, shard, freshness, now)),
        }
    }

    /// Once a connection is found.
    pub fn count_read(&mut self, placed: Placed, now: Instant) {
        let Some(reason) = placed.reason else { return };
        let database = &self.database;
        database.metrics.read(reason);
        if placed.role == Role::Replica {
            if let Some(it) = database.balance.preferred(placed.server) {
                it.metrics.reads.inc();
            }
            self.note_reading(placed.server);
        } else if reason == ReadReason::Floor {
            let cluster = database.topology.snapshot();
            let within = Freshness { max_lag: database.max_lag, ..Freshness::default() };
            let servers = cluster.shard(placed.server.shard).map(|it| it.servers.as_slice());
            let late = servers.unwrap_or_default().iter().filter(|it| it.may_serve(within, now));
            late.filter_map(|it| database.balance.preferred(it.id))
                .for_each(|it| it.metrics.floor_misses.inc());
        }
    }

    /// For a read that was to go to a replica. Waits while as many as may read on the primary of the shard, for
    /// `wait_timeout`.
    pub async fn spill(&mut self, shard: ShardId) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let database = self.database.clone();
        let Some(spill) = &database.balance.spill else { return Ok(None) };
        // Where there are no replicas the reads are the primary's own.
        let own = |it: &[Preferred]| it.len() < 2;
        if database.balance.servers.get(usize::from(shard.0)).is_none_or(|it| own(it)) {
            return Ok(None);
        }
        let Some((name, places)) = spill.shards.get(usize::from(shard.0)) else { return Ok(None) };
        if let Ok(it) = places.clone().try_acquire_owned() {
            return Ok(Some(it));
        }
        self.shared.hits.hit(Limit::PrimaryReads);
        if spill.count == 0 {
            return Err(no_place(name, 0));
        }
        let waiting = tokio::time::timeout(database.wait_timeout, places.clone().acquire_owned());
        match self.unless_gone(waiting).await? {
            Ok(Ok(it)) => Ok(Some(it)),
            _ => Err(no_place(name, spill.count)),
        }
    }
}

fn no_place(shard: &str, count: usize) -> Refusal {
    let message =
        format!("no replica of shard \"{shard}\" can answer the read, and its primary takes no more");
    Refusal::new(Reason::Limit, SqlState::TOO_MANY_CONNECTIONS, message)
        .detail(format!("reads for want of a replica that it takes at once: {count}"))
        .hint("raise replicas.primary_read_share in the configuration of keyway, or try again later")
}

fn stale(database: &str, shard: &Shard, freshness: Freshness, now: Instant) -> Refusal {
    let lag = |it: &Server| match it.lag(now) {
        Some(lag) => format!("{} ms", lag.as_millis()),
        None => it.problem.clone().unwrap_or_else(|| "unknown".to_owned()),
    };
    let replicas = shard.servers.iter().filter(|it| it.role != Some(Role::Primary));
    let told: Vec<_> = replicas.map(|it| format!("{}: {}", it.address, lag(it))).collect();
    let message = format!(
        "no replica of shard \"{}\" of database \"{database}\" is within {} ms of its primary",
        shard.name,
        freshness.max_lag.as_millis()
    );
    Refusal::new(Reason::NoServer, SqlState::CANNOT_CONNECT_NOW, message)
        .detail(told.join("; "))
        .hint("try again later, read with /* keyway: consistency=primary */, or change replicas.when_stale")
}
