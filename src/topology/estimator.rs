//! From samples of positions to roles and lag. No I/O and no clock: every sample brings its time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::base::{Lsn, Role, ServerId, ShardId};
use crate::route::{Cluster, Server, Shard};

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub in_recovery: bool,
    /// Write position of a primary, replay position of a standby; a standby that has replayed nothing
    /// yet has none.
    pub position: Option<Lsn>,
    /// `None` where the probing user may not ask.
    pub timeline: Option<u32>,
    pub system: Option<i64>,
}

/// Older samples of a primary than this say only "too old".
const HISTORY: Duration = Duration::from_secs(600);
/// Full resolution for this long; behind it one sample a second is kept.
const FINE_HISTORY: Duration = Duration::from_secs(60);
const COARSE_STEP: Duration = Duration::from_secs(1);

/// Where the primary was when a probe of it started: all committed before `at` lies at or before `lsn`.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    lsn: Lsn,
}

#[derive(Debug)]
struct ServerView {
    server: Server,
    last: Option<Sample>,
}

#[derive(Debug)]
struct ShardView {
    name: String,
    servers: Vec<ServerView>,
    /// Of the present primary on its present timeline, oldest first.
    marks: VecDeque<Mark>,
    marked_timeline: Option<u32>,
}

#[derive(Debug)]
pub struct Estimator {
    shards: Vec<ShardView>,
}

impl Estimator {
    /// Shards by name, each with the addresses of its servers.
    pub fn new(shards: impl IntoIterator<Item = (String, Vec<String>)>) -> Estimator {
        let shards = shards.into_iter().enumerate().map(|(shard, (name, addresses))| {
            let servers = addresses.into_iter().enumerate().map(|(index, address)| {
                let id = ServerId { shard: ShardId(shard as u16), index: index as u16 };
                ServerView { server: Server::unknown(id, address), last: None }
            });
            ShardView { name, servers: servers.collect(), marks: VecDeque::new(), marked_timeline: None }
        });
        Estimator { shards: shards.collect() }
    }

    pub fn cluster(&self) -> Cluster {
        let shard = |it: &ShardView| Shard {
            name: it.name.clone(),
            servers: it.servers.iter().map(|it| it.server.clone()).collect(),
        };
        Cluster { shards: self.shards.iter().map(shard).collect() }
    }

    /// A probe that was sent at `started` has been answered.
    pub fn sampled(&mut self, id: ServerId, sample: Sample, started: Instant) {
        let Some(shard) = self.shards.get_mut(usize::from(id.shard.0)) else { return };
        let Some(view) = shard.servers.get_mut(usize::from(id.index)) else { return };
        view.last = Some(sample);
        view.server.problem = None;
        shard.elect();
        shard.place(usize::from(id.index), sample, started);
    }

    /// A server that cannot be asked has no role: unknown is unfit.
    pub fn failed(&mut self, id: ServerId, problem: String) {
        let Some(shard) = self.shards.get_mut(usize::from(id.shard.0)) else { return };
        let Some(view) = shard.servers.get_mut(usize::from(id.index)) else { return };
        view.last = None;
        view.server.problem = Some(problem);
        view.server.fresh_as_of = None;
        view.server.lag_bytes = None;
        shard.elect();
    }
}

impl ShardView {
    /// Grants roles. Of several that say they are primary the highest timeline wins, at a tie the one
    /// that was primary before; the others are fenced, because a write to them would be lost.
    fn elect(&mut self) {
        let claims = |it: &ServerView| it.last.is_some_and(|it| !it.in_recovery);
        let rank =
            |it: &ServerView| (it.last.and_then(|it| it.timeline), it.server.role == Some(Role::Primary));
        let mut winner: Option<usize> = None;
        for (index, view) in self.servers.iter().enumerate().filter(|(_, it)| claims(it)) {
            if winner.is_none_or(|best| rank(view) > rank(&self.servers[best])) {
                winner = Some(index);
            }
        }
        let system = winner.and_then(|it| self.servers[it].last).and_then(|it| it.system);
        for (index, view) in self.servers.iter_mut().enumerate() {
            let Some(last) = view.last else {
                view.server.role = None;
                continue;
            };
            let stranger = system.is_some() && last.system.is_some() && last.system != system;
            view.server.timeline = last.timeline;
            view.server.role = if winner == Some(index) {
                view.server.fresh_as_of = None;
                view.server.lag_bytes = None;
                Some(Role::Primary)
            } else if stranger {
                view.server.problem =
                    Some("belongs to another cluster: its system identifier differs".to_owned());
                None
            } else if last.in_recovery {
                Some(Role::Replica)
            } else {
                view.server.problem =
                    Some("also says it is primary, on an older timeline: fenced".to_owned());
                None
            };
            if view.server.role.is_none() {
                view.server.fresh_as_of = None;
            }
        }
    }

    /// Puts a sample into the ring, or against it.
    fn place(&mut self, index: usize, sample: Sample, started: Instant) {
        let role = self.servers[index].server.role;
        self.servers[index].server.position = sample.position;
        match (role, sample.position) {
            (Some(Role::Primary), Some(lsn)) => self.mark(Mark { at: started, lsn }, sample.timeline),
            (Some(Role::Replica), Some(lsn)) => {
                let fresh_as_of = self.passed(lsn);
                let newest = self.marks.back().map(|it| it.lsn.0.saturating_sub(lsn.0));
                let view = &mut self.servers[index].server;
                // Never backwards: what was replayed stays replayed. A probe that was overtaken by a
                // later one is the exception that would say otherwise.
                view.fresh_as_of = fresh_as_of.max(view.fresh_as_of.filter(|_| fresh_as_of.is_some()));
                view.lag_bytes = newest;
            }
            _ => {}
        }
    }

    fn mark(&mut self, mark: Mark, timeline: Option<u32>) {
        if timeline != self.marked_timeline {
            // Positions of two timelines cannot be compared.
            self.marks.clear();
            self.marked_timeline = timeline;
            for view in &mut self.servers {
                view.server.fresh_as_of = None;
            }
        }
        if self.marks.back().is_some_and(|it| it.at >= mark.at || it.lsn > mark.lsn) {
            return;
        }
        self.marks.push_back(mark);
        let age = |it: &Mark| mark.at.saturating_duration_since(it.at);
        while self.marks.front().is_some_and(|it| age(it) > HISTORY) {
            self.marks.pop_front();
        }
        self.thin(mark.at);
    }

    /// Drops the mark that has just left the fine part of the ring, unless it is a second younger than
    /// the one before it.
    fn thin(&mut self, now: Instant) {
        let old = |it: &Mark| now.saturating_duration_since(it.at) > FINE_HISTORY;
        let boundary = self.marks.partition_point(old);
        if boundary >= 2 {
            let step = self.marks[boundary - 1].at.saturating_duration_since(self.marks[boundary - 2].at);
            if step < COARSE_STEP {
                self.marks.remove(boundary - 1);
            }
        }
    }

    /// The newest moment at which the primary had written no more than `lsn`.
    fn passed(&self, lsn: Lsn) -> Option<Instant> {
        let after = self.marks.partition_point(|it| it.lsn <= lsn);
        after.checked_sub(1).and_then(|it| self.marks.get(it)).map(|it| it.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: ServerId = ServerId { shard: ShardId(0), index: 0 };
    const REPLICA: ServerId = ServerId { shard: ShardId(0), index: 1 };

    fn estimator() -> Estimator {
        Estimator::new([("s1".to_owned(), vec!["a:1".to_owned(), "b:1".to_owned()])])
    }

    fn sample(in_recovery: bool, lsn: u64, timeline: u32) -> Sample {
        Sample { in_recovery, position: Some(Lsn(lsn)), timeline: Some(timeline), system: Some(1) }
    }

    fn server(it: &Estimator, id: ServerId) -> Server {
        it.cluster().server(id).unwrap().clone()
    }

    fn lag_ms(it: &Estimator, now: Instant) -> Option<u128> {
        server(it, REPLICA).lag(now).map(|it| it.as_millis())
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn lag_is_time_since_the_primary_passed_what_is_replayed() {
        let (mut it, start) = (estimator(), Instant::now());
        for (ms, lsn) in [(0, 100), (100, 200), (200, 300)] {
            it.sampled(PRIMARY, sample(false, lsn, 1), at(start, ms));
        }
        it.sampled(REPLICA, sample(true, 250, 1), at(start, 210));
        assert_eq!(server(&it, REPLICA).fresh_as_of, Some(at(start, 100)));
        assert_eq!(server(&it, REPLICA).lag_bytes, Some(50));
        assert_eq!(lag_ms(&it, at(start, 220)), Some(120));
    }

    #[test]
    fn an_idle_primary_gives_no_lag_and_a_paused_replay_does() {
        let (mut it, start) = (estimator(), Instant::now());
        for ms in (0..5_000).step_by(100) {
            it.sampled(PRIMARY, sample(false, 100, 1), at(start, ms));
            it.sampled(REPLICA, sample(true, 100, 1), at(start, ms));
        }
        assert_eq!(lag_ms(&it, at(start, 4_900)), Some(0));
        for ms in (5_000..10_000).step_by(100) {
            it.sampled(PRIMARY, sample(false, ms, 1), at(start, ms));
            it.sampled(REPLICA, sample(true, 100, 1), at(start, ms));
        }
        assert_eq!(lag_ms(&it, at(start, 10_000)), Some(5_100));
    }

    #[test]
    fn without_samples_of_either_side_lag_grows_by_itself() {
        let (mut it, start) = (estimator(), Instant::now());
        it.sampled(PRIMARY, sample(false, 100, 1), start);
        it.sampled(REPLICA, sample(true, 100, 1), at(start, 10));
        assert_eq!(lag_ms(&it, at(start, 3_000)), Some(3_000), "the primary is silent");
        it.sampled(PRIMARY, sample(false, 100, 1), at(start, 3_000));
        assert_eq!(lag_ms(&it, at(start, 3_000)), Some(3_000), "the replica is silent");
        it.failed(REPLICA, "timeout".into());
        assert_eq!(lag_ms(&it, at(start, 3_000)), None);
        assert_eq!(server(&it, REPLICA).role, None);
    }

    #[test]
    fn positions_of_an_old_timeline_are_forgotten_at_promotion() {
        let (mut it, start) = (estimator(), Instant::now());
        it.sampled(PRIMARY, sample(false, 900, 1), start);
        it.sampled(REPLICA, sample(true, 800, 1), at(start, 10));
        it.failed(PRIMARY, "connection refused".into());
        assert!(it.cluster().shards[0].primary().is_none());
        it.sampled(REPLICA, sample(false, 850, 2), at(start, 20));
        assert_eq!(it.cluster().shards[0].primary().unwrap().id, REPLICA);
        it.sampled(PRIMARY, sample(true, 840, 2), at(start, 30));
        assert_eq!(server(&it, PRIMARY).lag(at(start, 30)), None, "older than every mark: unknown");
        it.sampled(PRIMARY, sample(true, 850, 2), at(start, 40));
        assert_eq!(server(&it, PRIMARY).fresh_as_of, Some(at(start, 20)));
    }

    #[test]
    fn of_two_primaries_the_higher_timeline_wins_and_the_other_is_fenced() {
        let (mut it, start) = (estimator(), Instant::now());
        it.sampled(PRIMARY, sample(false, 900, 1), start);
        it.sampled(REPLICA, sample(false, 850, 2), start);
        assert_eq!(it.cluster().shards[0].primary().unwrap().id, REPLICA);
        assert_eq!(server(&it, PRIMARY).role, None);
        assert!(server(&it, PRIMARY).problem.unwrap().contains("fenced"));
        it.sampled(REPLICA, sample(false, 860, 1), at(start, 10));
        assert_eq!(it.cluster().shards[0].primary().unwrap().id, REPLICA, "at a tie the old one stays");
    }

    #[test]
    fn a_server_of_another_cluster_is_not_used() {
        let (mut it, start) = (estimator(), Instant::now());
        it.sampled(PRIMARY, sample(false, 900, 1), start);
        it.sampled(REPLICA, Sample { system: Some(2), ..sample(true, 900, 1) }, start);
        assert_eq!((server(&it, REPLICA).role, server(&it, REPLICA).fresh_as_of), (None, None));
    }

    #[test]
    fn the_ring_stays_small() {
        let (mut it, start) = (estimator(), Instant::now());
        for tick in 0..20_000 {
            it.sampled(PRIMARY, sample(false, tick, 1), at(start, tick * 100));
        }
        let count = it.shards[0].marks.len();
        assert!((600..1_300).contains(&count), "{count}");
    }
}
