//! What must hold, said by someone who knows the truth.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use keyway::base::{Consistency, Role};
use keyway::pool::BreakerState;
use keyway::route::{Freshness, Server};

use super::proxy::INTERVAL;
use super::world::{KEYS, State, World};
use super::{Counts, Sim, Us};

#[derive(Default)]
pub struct Oracle {
    /// Commits in the order in which clients were told.
    pub told: Vec<usize>,
    /// Commits in the order in which a read first showed them.
    pub shown: Vec<usize>,
    pub failure: Option<String>,
    applied: HashSet<u64>,
    /// Of each server that has answered a probe: its timeline, and whether it was in recovery.
    heard: Vec<(usize, u32, bool)>,
}

pub struct Read {
    pub session: usize,
    pub state: State,
    pub keys: u64,
    pub level: Consistency,
}

impl Oracle {
    pub fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }

    pub fn heard(&mut self, server: usize, timeline: u32, in_recovery: bool) {
        self.heard.retain(|it| it.0 != server);
        self.heard.push((server, timeline, in_recovery));
    }

    /// A write is sent to the server.
    pub fn writes_to(&mut self, server: usize) {
        let highest = self.heard.iter().map(|it| it.1).max();
        let own = self.heard.iter().find(|it| it.0 == server);
        if own.is_none_or(|it| it.2 || Some(it.1) < highest) {
            self.fail(format!("a write to server {server}, of which was heard {own:?}, of all {highest:?}"));
        }
    }

    pub fn applied(&mut self, operation: u64) {
        if !self.applied.insert(operation) {
            self.fail(format!("operation {operation} is applied twice"));
        }
    }

    pub fn held(&mut self, count: usize, max: usize) {
        if count > max {
            self.fail(format!("{count} are held, of {max}"));
        }
    }

    /// What a replica was, and what it is from `now` on: it comes back when it is well within `max_lag`.
    pub fn serves(&mut self, was: &Server, is: &Server, max_lag: Duration, now: Instant) {
        let Some(joined) = is.joined else { return };
        let back = (max_lag / 2).max(max_lag.min(Duration::from_micros(2 * INTERVAL)));
        let bound = if joined.returned && was.joined != is.joined { back } else { max_lag };
        if is.lag(now).is_none_or(|it| it > bound) {
            self.fail(format!("{is:?} serves reads"));
        }
    }

    /// `told` and `shown`: how many were before the read began.
    pub fn check_read(
        &mut self,
        world: &World,
        read: &Read,
        seen: &[Option<usize>; KEYS as usize],
        told: usize,
        shown: usize,
    ) {
        let (commits, Read { state, keys, level, session }) = (&world.commits, read);
        let is_due = |at: usize| {
            let it = &commits[at];
            it.keys & keys != 0 && !world.has(*state, it) && world.survives(it)
        };
        let due = |of: &[usize], own: bool| {
            of.iter().copied().find(|at| {
                let it = &commits[*at];
                it.keys & keys != 0 && (!own || it.session == *session) && is_due(*at)
            })
        };
        let (told, shown) = (&self.told[..told], &self.shown[..shown]);
        let missing = match level {
            Consistency::Global | Consistency::Primary => due(told, false).or_else(|| due(shown, false)),
            Consistency::Session => due(told, true),
            Consistency::Eventual => return,
        };
        let back = || (0..KEYS as usize).filter(|it| keys & 1 << it != 0).filter_map(|it| seen[it]);
        if let Some(at) = missing.or_else(|| back().find(|it| is_due(*it))) {
            let commit = commits[at];
            self.fail(format!(
                "a read of {keys:b} by session {session} at {level:?}, {state:?}, lacks {commit:?}"
            ));
        }
    }
}

impl Sim {
    /// A replica that is chosen now is no staler than `max_lag`. One that has started anew since it was looked at may be: its
    /// connections are newer than what is known, so that nobody reads over them yet.
    pub fn check_age(&mut self, server: usize, max_lag: Us) {
        let ended_at = self.instant(self.world.servers[server].ended_at);
        if self.proxy.shard().servers[server].up_since < Some(ended_at) {
            return;
        }
        let state = self.world.state(server);
        let Some(before) = self.now.checked_sub(max_lag) else { return };
        let old = self.world.commits.iter().take_while(|it| it.at < before);
        if let Some(it) = old.into_iter().find(|it| !self.world.has(state, it) && self.world.survives(it)) {
            let failure = format!("server {server} at {state:?} serves reads and lacks {it:?}");
            self.oracle.fail(failure);
        }
    }

    /// Why not everything is as it has to be once nothing is broken any more.
    pub fn ailment(&self) -> Option<String> {
        let (now, proxy) = (self.clock(), &self.proxy);
        let freshness =
            Freshness { max_lag: Duration::from_micros(proxy.max_lag.max(200_000)), ..Freshness::default() };
        let primary = self.world.rightful();
        if proxy.primary() != primary || primary.is_none() {
            return Some(format!("{:?} has the role and {primary:?} should", proxy.primary()));
        }
        for (at, server) in proxy.shard().servers.iter().enumerate().filter(|it| Some(it.0) != primary) {
            if server.role != Some(Role::Replica) || !server.may_serve(freshness, now) {
                return Some(format!("no read can go to {server:?}"));
            }
            if proxy.standings[at].breaker.state(now) != BreakerState::Closed {
                return Some(format!("server {at} is well and its breaker is not closed"));
            }
        }
        let clients = &self.clients;
        if clients.reads_since == 0 || clients.writes_since == 0 || proxy.held > 0 {
            let (reads, writes) = (clients.reads_since, clients.writes_since);
            return Some(format!("{reads} reads of replicas, {writes} writes, {} held", proxy.held));
        }
        let idle = clients.sessions.iter().position(|it| !it.has_done);
        idle.map(|it| format!("session {it} has nothing done"))
    }

    pub fn count(self) -> Counts {
        let mut counts = self.clients.counts;
        counts.breakers_opened = self.proxy.standings.iter().map(|it| it.breaker.opened_count()).sum();
        let lost = self.world.commits.iter().filter(|it| !self.world.survives(it)).count();
        counts.lost += lost as u64;
        counts
    }
}
