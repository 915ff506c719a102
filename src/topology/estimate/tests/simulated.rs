//! Random lives of a primary, its successors and one replica, by the millisecond, with the truth known.

use super::*;

const LIVES: u64 = 120;
const LIFE_MS: u64 = 12_000;
const WATCHED: usize = 2;

#[test]
fn a_replica_is_never_fresher_than_it_is_and_no_staler_than_samples_say() {
    let (mut known, mut promotions) = (0, 0);
    for seed in 1..=LIVES {
        let mut life = Life::new(seed);
        (0..LIFE_MS).for_each(|ms| life.pass(ms));
        known += life.known;
        promotions += life.logs.len() - 1;
    }
    assert!(
        known > LIVES * 50 && promotions > LIVES as usize,
        "{known} times known, {promotions} promotions"
    );
}

/// What one timeline's primary has written: where its log ended at each millisecond from `born_ms` on.
struct Log {
    born_ms: u64,
    ends: Vec<u64>,
}

impl Log {
    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Where it ended at `ms`; before its birth nobody was told anything by it.
    fn at(&self, ms: u64) -> u64 {
        let index = ms.saturating_sub(self.born_ms) as usize;
        self.ends.get(index).copied().unwrap_or(self.end())
    }
}

#[derive(Clone)]
enum Probe {
    Due { at: u64 },
    Asked { started: u64, seen_at: u64 },
    Answered { started: u64, heard_at: u64, report: Report },
}

struct Life {
    seed: u64,
    state: u64,
    scene: Scene,
    /// By timeline, from 1.
    logs: Vec<Log>,
    primary: usize,
    writes: bool,
    replica_timeline: usize,
    replica_position: u64,
    replays: bool,
    probes: [Probe; 3],
    /// Heard from the primary of the highest timeline that was heard of.
    samples: Vec<(u64, u64)>,
    heard_timeline: u32,
    last: Option<route::Joined>,
    known: u64,
}

impl Life {
    fn new(seed: u64) -> Life {
        let due = |at| Probe::Due { at };
        Life {
            seed,
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            scene: Scene::new(),
            logs: vec![Log { born_ms: 0, ends: vec![1_000] }],
            primary: 0,
            writes: true,
            replica_timeline: 1,
            replica_position: 1_000,
            replays: true,
            probes: [due(0), due(3), due(seed % 100)],
            samples: Vec::new(),
            heard_timeline: 0,
            last: None,
            known: 0,
        }
    }

    fn below(&mut self, count: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % count
    }

    fn pass(&mut self, ms: u64) {
        match self.below(4_000) {
            0 => self.promote(ms),
            1..=3 => self.writes = !self.writes,
            4..=6 => self.replays = !self.replays,
            7 => self.restart(),
            8 => self.rebuild(),
            _ => {}
        }
        let written = if self.writes { self.below(50) } else { 0 };
        let log = self.logs.last_mut().unwrap();
        if ms > log.born_ms {
            log.ends.push(log.end() + written);
        }
        if self.replays {
            self.replay();
        }
        (0..self.probes.len()).for_each(|it| self.probe(it, ms));
    }

    /// Of a server that lacks the end of the log.
    fn promote(&mut self, ms: u64) {
        let lost = self.below(3_000);
        let fork = self.logs.last().unwrap().end().saturating_sub(lost);
        self.logs.push(Log { born_ms: ms, ends: vec![fork] });
        self.primary = 1 - self.primary;
    }

    fn restart(&mut self) {
        let lost = self.below(2_000);
        self.replica_position = self.replica_position.saturating_sub(lost);
    }

    /// As a copy of the primary.
    fn rebuild(&mut self) {
        (self.replica_timeline, self.replica_position) = (self.logs.len(), self.logs.last().unwrap().end());
    }

    /// Up to the end of its timeline, and on along the next one where that forked off ahead of it.
    fn replay(&mut self) {
        let step = self.below(120);
        let end = match self.logs.get(self.replica_timeline) {
            Some(next) => next.ends[0],
            None => self.logs[self.replica_timeline - 1].end(),
        };
        if self.replica_position > end {
            return;
        }
        self.replica_position = end.min(self.replica_position + step);
        if self.replica_position == end && self.replica_timeline < self.logs.len() {
            self.replica_timeline += 1;
        }
    }

    fn probe(&mut self, server: usize, ms: u64) {
        match self.probes[server].clone() {
            Probe::Due { at } if at <= ms => {
                let seen_at = ms + self.below(15);
                self.probes[server] = Probe::Asked { started: ms, seen_at };
            }
            Probe::Asked { started, seen_at } if seen_at <= ms => {
                let report = self.report(server);
                let heard_at = ms + self.below(15);
                self.probes[server] = Probe::Answered { started, heard_at, report };
            }
            Probe::Answered { started, heard_at, report } if heard_at <= ms => {
                self.probes[server] = Probe::Due { at: started + 60 + self.below(80) };
                self.hear(server, started, ms, report);
            }
            _ => {}
        }
    }

    fn report(&mut self, server: usize) -> Report {
        let silent = self.below(30) == 0;
        if silent || server != WATCHED && server != self.primary {
            let failure = if silent { Failure::Silent } else { Failure::Lost };
            return Report::Failed { failure, problem: "no answer".into() };
        }
        let of = if server == WATCHED {
            observation(true, self.replica_position, Some(self.replica_timeline as u32))
        } else {
            observation(false, self.logs.last().unwrap().end(), Some(self.logs.len() as u32))
        };
        Report::Seen(of)
    }

    fn hear(&mut self, server: usize, started: u64, ms: u64, report: Report) {
        self.scene.estimate.apply(server, self.scene.at(started), report.clone());
        if let Report::Seen(seen) = report {
            let (position, timeline) = (seen.position.unwrap().0, seen.timeline.unwrap());
            if server != WATCHED && timeline >= self.heard_timeline {
                if timeline > self.heard_timeline {
                    (self.samples, self.heard_timeline) = (Vec::new(), timeline);
                }
                self.samples.push((started, position));
            } else if server == WATCHED {
                self.check(position, timeline);
            }
        }
        self.check_membership(ms);
    }

    fn check(&mut self, position: u64, timeline: u32) {
        let server = &self.scene.estimate.shard().servers[WATCHED];
        let Some(fresh) = server.fresh_as_of else { return };
        let fresh_ms = (fresh - self.scene.start).as_millis() as u64;
        let told = |seed| format!("seed {seed}: as of {fresh_ms} at {position} of timeline {timeline}");
        assert_eq!(timeline, self.heard_timeline, "{}", told(self.seed));
        // All that was told before it is there.
        let log = &self.logs[timeline as usize - 1];
        assert!(fresh_ms <= log.born_ms || log.at(fresh_ms - 1) <= position, "{}", told(self.seed));
        let best = self.samples.iter().filter(|it| it.1 <= position).map(|it| it.0).max();
        let newest = self.samples.last().map_or(0, |it| it.0);
        // Beyond five seconds samples are thinned.
        let is_dense = best.is_some_and(|it| newest - it < 5_000);
        assert!(
            Some(fresh_ms) <= best && (!is_dense || Some(fresh_ms) == best),
            "{} {best:?}",
            told(self.seed)
        );
        self.known += 1;
    }

    fn check_membership(&mut self, ms: u64) {
        let now = self.scene.at(ms);
        self.scene.estimate.settle(now);
        let server = &self.scene.estimate.shard().servers[WATCHED];
        if let Some(joined) = server.joined {
            let lag = server.lag(now).unwrap();
            let max = if joined.returned && self.last != Some(joined) { 500 } else { 1_000 };
            assert!(lag <= Duration::from_millis(max), "seed {}: {joined:?} at {lag:?}", self.seed);
        }
        self.last = server.joined;
    }
}
