//! From reports of single servers to the roles and the freshness of one shard. Pure: no I/O, and
//! time is an argument.

mod membership;
mod pace;

pub use membership::LagBounds;
pub use pace::Pace;

use std::cmp::Ordering;
use std::time::Instant;

use super::ring::{Ring, Sample};
use crate::base::{Lsn, Position, Role, ServerId, ShardId};
use crate::route;
use membership::Membership;

/// What a server said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Since when the connection stands that it came by.
    pub up_since: Instant,
    pub in_recovery: bool,
    /// Why it is not to be the primary, though it says so itself.
    pub objection: Option<String>,
    /// Write position out of recovery, replay position in it.
    pub position: Option<Lsn>,
    /// `None` where the probing user may not ask. Out of recovery, the one it writes to. In recovery a lower bound: the control file learns
    /// of a new timeline late (at the next restartpoint), never early.
    pub timeline: Option<u32>,
    pub system_identifier: Option<i64>,
}

/// Why a probe has no observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Connection refused, closed, or login refused: it counts at once.
    Lost,
    /// No answer in time: a pause can look like this, so it counts from the second in a row.
    Silent,
    /// An answer that makes no sense: as `Silent`.
    Unclear,
}

/// The outcome of one probe.
#[derive(Clone, Debug)]
pub enum Report {
    Seen(Observation),
    Failed { failure: Failure, problem: String },
}

const UNCLEAR_MAX: u32 = 2;

#[derive(Clone, Debug)]
struct Tracked {
    address: String,
    reports: u64,
    unclear_in_a_row: u32,
    seen: Option<Observation>,
    /// When the question was sent that `seen` answers.
    observed_at: Option<Instant>,
    /// Since when its name stands for other addresses than before.
    moved_at: Option<Instant>,
    /// Why the last probe failed.
    failed: Option<String>,
    /// Why a server that answers is not in use.
    fenced: Option<String>,
    membership: Membership,
}

/// One shard as its servers' reports draw it.
#[derive(Debug)]
pub struct Estimate {
    id: ShardId,
    name: String,
    bounds: LagBounds,
    servers: Vec<Tracked>,
    /// The server that holds the primary's role now.
    primary: Option<usize>,
    /// The last to hold it, and on which timeline. Another server follows it on a higher one only:
    /// that is what a promotion leaves, and two servers writing on one timeline have diverged.
    primary_last: Option<(usize, Option<u32>)>,
    /// The highest timeline that any server of this system was seen on. A claim below it comes
    /// from a primary that has been replaced, even while its successor is down.
    timeline_high: Option<u32>,
    system_identifier: Option<i64>,
    /// Of `primary_last` alone: positions compare within a timeline only.
    ring: Ring,
}

impl Estimate {
    pub fn new(id: ShardId, name: String, addresses: Vec<String>, bounds: LagBounds) -> Estimate {
        let tracked = |address| Tracked {
            address,
            reports: 0,
            unclear_in_a_row: 0,
            seen: None,
            observed_at: None,
            moved_at: None,
            failed: None,
            fenced: None,
            membership: Membership::New,
        };
        Estimate {
            id,
            name,
            bounds,
            servers: addresses.into_iter().map(tracked).collect(),
            primary: None,
            primary_last: None,
            timeline_high: None,
            system_identifier: None,
            ring: Ring::default(),
        }
    }

    /// After a reload: goes on with what `before` knows of the servers that both have.
    pub fn adopt(&mut self, before: &Estimate) {
        let known = |address: &str| before.servers.iter().find(|it| it.address == address);
        let mut any = false;
        for server in &mut self.servers {
            if let Some(it) = known(&server.address) {
                *server = it.clone();
                any = true;
            }
        }
        if !any {
            return;
        }
        let added = self.servers.iter_mut().filter(|it| known(&it.address).is_none());
        added.for_each(|it| it.membership = Membership::ADDED);
        self.timeline_high = before.timeline_high;
        self.system_identifier = before.system_identifier;
        self.primary_last = before.primary_last.and_then(|(last, timeline)| {
            let address = &before.servers[last].address;
            let at = self.servers.iter().position(|it| it.address == *address)?;
            Some((at, timeline))
        });
        if self.primary_last.is_some() {
            self.ring = before.ring.clone();
        }
        self.elect();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes in one report; true when the role of any server changed, or the last primary turns out to be replaced.
    /// `started_at` is when the question was sent.
    pub fn apply(&mut self, index: usize, started_at: Instant, report: Report) -> bool {
        let before = (self.roles(), self.is_replaced());
        let Some(server) = self.servers.get_mut(index) else { return false };
        if server.moved_at.is_some_and(|it| started_at < it) {
            return false;
        }
        server.reports += 1;
        let mut position = None;
        match report {
            Report::Seen(observation) => {
                server.unclear_in_a_row = 0;
                server.failed = None;
                server.observed_at = Some(started_at);
                position = observation.position;
                server.seen = Some(observation);
            }
            Report::Failed { failure, problem } => {
                server.unclear_in_a_row += 1;
                server.failed = Some(problem);
                if failure == Failure::Lost || server.unclear_in_a_row >= UNCLEAR_MAX {
                    server.seen = None;
                }
            }
        }
        self.elect();
        if let Some(lsn) = position.filter(|_| self.primary == Some(index)) {
            self.ring.push(Sample { started_at, lsn });
        }
        (self.roles(), self.is_replaced()) != before
    }

    /// Since `at` the name of the server stands for another one, or for another way to it: what was known is given up, and so
    /// is what a probe from before then says. True when a role has changed.
    pub fn forget(&mut self, index: usize, at: Instant) -> bool {
        let before = self.roles();
        let Some(server) = self.servers.get_mut(index) else { return false };
        (server.seen, server.observed_at, server.unclear_in_a_row) = (None, None, 0);
        server.failed = Some("its name stands for another address: not probed there yet".into());
        server.moved_at = Some(at);
        self.elect();
        self.roles() != before
    }

    /// Grants the primary's role to at most one server and says of every other claim why not.
    fn elect(&mut self) {
        self.servers.iter_mut().for_each(|it| it.fenced = None);
        self.primary = None;
        // At start the first answer could come from a replaced primary: hear everyone once. Later a new server
        // can win by a later timeline alone, and need not be waited for.
        if self.primary_last.is_none() && self.servers.iter().any(|it| it.reports == 0) {
            return;
        }
        self.raise_timeline();
        let claims: Vec<usize> = (0..self.servers.len()).filter(|it| self.claims(*it)).collect();
        let mut standing = Vec::new();
        for at in claims {
            match self.objection(at) {
                Some(why) => self.servers[at].fenced = Some(why),
                None => standing.push(at),
            }
        }
        // More than one can stand at start alone, when nothing tells which of them to believe.
        self.primary = if let [only] = standing[..] { Some(only) } else { None };
        for at in standing.into_iter().filter(|_| self.primary.is_none()) {
            self.servers[at].fenced = Some("fenced: another server claims to be primary too".into());
        }
        if let Some(at) = self.primary {
            self.granted(at);
        }
        self.fence_strangers();
    }

    fn granted(&mut self, at: usize) {
        let Some(seen) = &self.servers[at].seen else { return };
        let granted = (at, seen.timeline);
        self.timeline_high = self.timeline_high.max(seen.timeline);
        self.system_identifier = self.system_identifier.or(seen.system_identifier);
        if self.primary_last != Some(granted) {
            self.ring.clear();
            self.primary_last = Some(granted);
        }
    }

    fn claims(&self, at: usize) -> bool {
        self.servers[at].seen.as_ref().is_some_and(|it| !it.in_recovery)
    }

    /// Servers of a system that is not (yet) this shard's cannot raise the mark for those that are.
    fn raise_timeline(&mut self) {
        let seen = || self.servers.iter().filter_map(|it| it.seen.as_ref());
        let mut systems = seen().filter_map(|it| it.system_identifier);
        let system = self.system_identifier.or_else(|| {
            let first = systems.next()?;
            systems.all(|it| it == first).then_some(first)
        });
        let high = seen().filter(|it| it.system_identifier == system).filter_map(|it| it.timeline).max();
        if system.is_some() {
            self.timeline_high = self.timeline_high.max(high);
        }
    }

    /// Why this claim to be primary cannot stand, whatever others claim.
    fn objection(&self, at: usize) -> Option<String> {
        let seen = self.servers[at].seen.as_ref()?;
        if let (Some(own), Some(shard)) = (seen.system_identifier, self.system_identifier)
            && own != shard
        {
            return Some(stranger(own, shard));
        }
        if let (Some(own), Some(high)) = (seen.timeline, self.timeline_high)
            && own < high
        {
            return Some(format!("fenced: a primary on timeline {own}, but timeline {high} has been seen"));
        }
        if let Some(why) = &seen.objection {
            return Some(format!("fenced: {why}"));
        }
        match self.primary_last {
            Some((last, timeline)) if last != at && seen.timeline.is_none_or(|it| Some(it) <= timeline) => {
                let last = &self.servers[last].address;
                Some(format!("fenced: claims to be primary, but on no later timeline than {last}"))
            }
            _ => None,
        }
    }

    fn fence_strangers(&mut self) {
        let Some(shard) = self.system_identifier else { return };
        for server in &mut self.servers {
            let own = server.seen.as_ref().and_then(|it| it.system_identifier);
            if let Some(own) = own.filter(|it| *it != shard) {
                server.fenced = Some(stranger(own, shard));
            }
        }
    }

    fn role(&self, at: usize) -> Option<Role> {
        let server = &self.servers[at];
        match &server.seen {
            Some(_) if self.primary == Some(at) => Some(Role::Primary),
            Some(seen) if seen.in_recovery && server.fenced.is_none() => Some(Role::Replica),
            _ => None,
        }
    }

    fn roles(&self) -> Vec<Option<Role>> {
        (0..self.servers.len()).map(|it| self.role(it)).collect()
    }

    fn is_replaced(&self) -> bool {
        let last = self.primary_last.and_then(|(_, timeline)| timeline);
        self.primary.is_none() && last.is_some() && last < self.timeline_high
    }

    /// Lets replicas into the set of those that serve reads and out of it. Before each [`Estimate::shard`], and at no other
    /// time: until the next one, reads judge a replica by what that says.
    pub fn settle(&mut self, now: Instant) {
        for at in 0..self.servers.len() {
            let is_replica = self.role(at) == Some(Role::Replica);
            let seen = self.servers[at].seen.as_ref().filter(|_| is_replica);
            let fresh_as_of = seen.and_then(|it| self.behind(it).ok()?.0);
            let server = &mut self.servers[at];
            server.membership = server.membership.step(fresh_as_of, now, self.bounds);
        }
    }

    /// The shard as routing sees it.
    pub fn shard(&self) -> route::Shard {
        let servers = (0..self.servers.len()).map(|it| self.server(it)).collect();
        let sampled_at = self.ring.newest().map(|it| it.started_at);
        route::Shard { name: self.name.clone(), servers, sampled_at, is_replaced: self.is_replaced() }
    }

    fn server(&self, at: usize) -> route::Server {
        let tracked = &self.servers[at];
        let id = ServerId { shard: self.id, index: at as u16 };
        let mut server = route::Server::unknown(id, tracked.address.clone());
        server.problem = tracked.failed.clone().or_else(|| tracked.fenced.clone());
        server.role = self.role(at);
        server.moved_at = tracked.moved_at;
        let Some(seen) = &tracked.seen else {
            server.problem.get_or_insert_with(|| "not probed yet".into());
            return server;
        };
        (server.up_since, server.observed_at) = (Some(seen.up_since), tracked.observed_at);
        server.timeline = seen.timeline;
        server.position = seen.position;
        server.joined = tracked.membership.joined();
        if server.role == Some(Role::Replica) {
            match self.behind(seen) {
                Ok((fresh_as_of, lag_bytes)) => {
                    server.fresh_as_of = fresh_as_of;
                    server.lag_bytes = Some(lag_bytes);
                }
                Err(why) => {
                    server.problem.get_or_insert(why);
                }
            }
        }
        server
    }

    pub fn position_behind(&self, floor: Instant) -> Option<Position> {
        let newest = self.ring.newest().filter(|it| it.started_at >= floor)?;
        let (_, timeline) = self.primary_last?;
        Some(Position { timeline: timeline?, lsn: newest.lsn })
    }

    /// Of an earlier timeline, all that is left of it is in every sample, and on every replica whose lag is known.
    pub fn moment_of(&self, position: Position) -> Option<Option<Instant>> {
        let (_, timeline) = self.primary_last?;
        match position.timeline.cmp(&timeline?) {
            Ordering::Less => Some(self.ring.passed(Lsn(0))),
            Ordering::Equal => Some(self.ring.passed(position.lsn)),
            Ordering::Greater => None,
        }
    }

    /// How fresh a replica is, or why nobody can tell.
    fn behind(&self, replica: &Observation) -> Result<(Option<Instant>, u64), String> {
        let newest = self.ring.newest().ok_or("lag unknown: no position of a primary")?;
        let primary = self.primary_last.and_then(|(_, timeline)| timeline);
        let position = replica.position.ok_or("lag unknown: no replay position")?;
        match (replica.timeline, primary) {
            (Some(own), Some(primary)) if own == primary => {}
            (Some(own), Some(primary)) => {
                return Err(format!(
                    "lag unknown: not known to follow timeline {primary}, last seen on {own}; \
                     pg_read_all_stats for the probe user shows a change at once"
                ));
            }
            _ => return Err("lag unknown: the probe user may not call pg_control_checkpoint()".into()),
        }
        Ok((self.ring.fresh_as_of(position), newest.lsn.0.saturating_sub(position.0)))
    }
}

fn stranger(own: i64, shard: i64) -> String {
    format!("fenced: system identifier {own}, but this shard's is {shard}; restart Keyway if that is meant")
}

#[cfg(test)]
mod tests;
