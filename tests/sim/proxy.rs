//! Keyway's view of the servers: probers around `topology::Estimate`, the snapshot that reads use, breakers, doubts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::base::{Lsn, Role, ServerId, ShardId};
use keyway::client::{Doubt, Fate, fate};
use keyway::pool::Standing;
use keyway::route::{Cluster, Shard};
use keyway::topology::{Estimate, Failure, LagBounds, Observation, Pace, Report};

use super::{Dice, MS, Note, Sim, Us, What};

pub const INTERVAL: Us = 100 * MS;
const TIMEOUT: Us = 150 * MS;
const SYSTEM: i64 = 7;

/// One that Keyway has to a server: a lease, an idle one, a prober's.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub ready_at: Us,
    pub incarnation: u32,
    /// What the server said of itself then.
    pub in_hot_standby: bool,
}

pub struct Prober {
    /// Since when, and to which start of the server.
    connection: Option<(Us, u32)>,
    failures: u32,
    entropy: u64,
    /// Of the question on its way.
    probe: u64,
    started: Us,
    is_asking: bool,
    due: Us,
    generation: u32,
    /// What has been asked for meanwhile: to ask again this soon.
    wake: Option<Us>,
}

pub struct Proxy {
    pub max_lag: Us,
    pub estimate: Estimate,
    pub cluster: Cluster,
    pub probers: Vec<Prober>,
    pub standings: Vec<Arc<Standing>>,
    pub doubts: Vec<Doubt>,
    pub idle: Vec<Vec<Connection>>,
    /// Those who wait for a primary.
    pub held: usize,
    looking: bool,
    published_at: Us,
    publishing: bool,
    next_probe: u64,
}

fn addresses(count: usize) -> Vec<String> {
    (0..count).map(|it| format!("db{it}")).collect()
}

fn estimate(count: usize, max_lag: Us) -> Estimate {
    let bounds = LagBounds::new(Duration::from_micros(max_lag), Duration::from_micros(INTERVAL));
    Estimate::new(ShardId(0), "s1".to_owned(), addresses(count), bounds)
}

pub fn server_id(server: usize) -> ServerId {
    ServerId { shard: ShardId(0), index: server as u16 }
}

impl Proxy {
    pub fn new(count: usize, base: Instant, dice: &mut Dice) -> Proxy {
        let max_lag = if dice.chance(50) { 400 * MS } else { 800 * MS };
        let prober = |entropy| Prober {
            connection: None,
            failures: 0,
            entropy,
            probe: 0,
            started: 0,
            is_asking: false,
            due: 0,
            generation: 0,
            wake: None,
        };
        let estimate = estimate(count, max_lag);
        Proxy {
            max_lag,
            cluster: Cluster { shards: vec![estimate.shard()] },
            estimate,
            probers: (0..count).map(|_| prober(dice.next())).collect(),
            standings: (0..count).map(|_| Standing::new(dice.next(), base)).collect(),
            doubts: (0..count).map(|_| Doubt::default()).collect(),
            idle: vec![Vec::new(); count],
            held: 0,
            looking: false,
            published_at: 0,
            publishing: false,
            next_probe: 0,
        }
    }

    pub fn shard(&self) -> &Shard {
        &self.cluster.shards[0]
    }

    pub fn primary(&self) -> Option<usize> {
        self.shard().primary().map(|it| usize::from(it.id.index))
    }
}

impl Sim {
    pub fn probe_start(&mut self, server: usize, generation: u32) {
        let prober = &mut self.proxy.probers[server];
        if prober.is_asking || prober.generation != generation {
            return;
        }
        self.proxy.next_probe += 1;
        let probe = self.proxy.next_probe;
        (prober.is_asking, prober.probe, prober.started) = (true, probe, self.now);
        let logs_in = prober.connection.is_none();
        self.after(TIMEOUT, What::ProbeTimeout { server, probe });
        let at = self.delivery(server);
        self.at(at, What::ProbeArrive { server, probe, logs_in });
    }

    fn is_asked(&self, server: usize, probe: u64) -> bool {
        let prober = &self.proxy.probers[server];
        prober.is_asking && prober.probe == probe
    }

    pub fn probe_arrive(&mut self, server: usize, probe: u64, logs_in: bool) {
        if !self.is_asked(server, probe) {
            return;
        }
        let (now, it) = (self.now, &self.world.servers[server]);
        if it.alive && now < it.frozen_until {
            return self.at(it.frozen_until, What::ProbeArrive { server, probe, logs_in });
        }
        let incarnation = it.incarnation;
        let is_known = self.proxy.probers[server].connection.is_some_and(|of| of.1 == incarnation);
        let report = if !it.alive || !logs_in && !is_known {
            let (failure, problem) = (Failure::Lost, "connection refused".to_owned());
            Report::Failed { failure, problem }
        } else if logs_in {
            let at = self.delivery(server);
            return self.at(at, What::ProbeReady { server, probe, incarnation });
        } else if self.dice.chance(1) {
            let (failure, problem) = (Failure::Unclear, "no sense".to_owned());
            Report::Failed { failure, problem }
        } else {
            let up_since = self.proxy.probers[server].connection.map_or(0, |it| it.0);
            Report::Seen(self.observation(server, up_since))
        };
        let at = self.delivery(server);
        self.at(at, What::ProbeAnswer { server, probe, report: Box::new(report) });
    }

    fn observation(&self, server: usize, up_since: Us) -> Observation {
        let it = &self.world.servers[server];
        let timeline = if it.is_standby { it.told_timeline } else { it.timeline };
        Observation {
            up_since: self.instant(up_since),
            in_recovery: it.is_standby,
            objection: None,
            position: Some(Lsn(self.world.state(server).lsn)),
            timeline: Some(timeline as u32 + 1),
            system_identifier: Some(SYSTEM),
        }
    }

    pub fn probe_ready(&mut self, server: usize, probe: u64, incarnation: u32) {
        if self.is_asked(server, probe) {
            self.proxy.probers[server].connection = Some((self.now, incarnation));
            let at = self.delivery(server);
            self.at(at, What::ProbeArrive { server, probe, logs_in: false });
        }
    }

    pub fn probe_answer(&mut self, server: usize, probe: u64, report: Report) {
        if self.is_asked(server, probe) {
            self.learn(server, report);
        }
    }

    pub fn probe_timeout(&mut self, server: usize, probe: u64) {
        if self.is_asked(server, probe) {
            self.learn(server, Report::Failed { failure: Failure::Silent, problem: "no answer".to_owned() });
        }
    }

    /// As `Topology::learn`, and the loop of `topology::probe::run` around it.
    fn learn(&mut self, server: usize, report: Report) {
        let prober = &mut self.proxy.probers[server];
        let started = prober.started;
        prober.is_asking = false;
        let is_sample = matches!(report, Report::Seen(_));
        if is_sample {
            prober.failures = 0;
        } else {
            prober.failures += 1;
            prober.connection = None;
        }
        if let Report::Seen(it) = &report {
            self.oracle.heard(server, it.timeline.unwrap_or_default(), it.in_recovery);
        }
        let started_at = self.instant(started);
        let changed = self.proxy.estimate.apply(server, started_at, report);
        if is_sample && self.proxy.estimate.is_primary(server) {
            let soon = (INTERVAL / 20).min(10 * MS);
            let followers: Vec<usize> = self.proxy.estimate.followers().collect();
            followers.into_iter().for_each(|it| self.wake(it, soon));
        }
        let pace = self.proxy.estimate.pace(server);
        if changed {
            self.publish();
        } else if !self.proxy.publishing {
            self.proxy.publishing = true;
            self.at(self.proxy.published_at + INTERVAL / 10, What::Publish);
        }
        self.pause(server, pace);
    }

    fn pause(&mut self, server: usize, pace: Pace) {
        let now = self.now;
        let prober = &mut self.proxy.probers[server];
        let interval = Duration::from_micros(INTERVAL);
        let pause = pace.pause(interval, prober.failures, &mut prober.entropy).as_micros() as Us;
        let due = prober.started + pause;
        prober.due = prober.wake.take().map_or(due, |it| due.min(now + it)).max(now);
        prober.generation += 1;
        let (at, generation) = (prober.due, prober.generation);
        self.at(at, What::ProbeStart { server, generation });
    }

    /// Somebody wants to know sooner.
    fn wake(&mut self, server: usize, delay: Us) {
        let now = self.now;
        let prober = &mut self.proxy.probers[server];
        if prober.is_asking {
            prober.wake = Some(prober.wake.map_or(delay, |it| it.min(delay)));
        } else if now + delay < prober.due {
            prober.due = now + delay;
            prober.generation += 1;
            let generation = prober.generation;
            self.after(delay, What::ProbeStart { server, generation });
        }
    }

    /// `Topology::report_failure`.
    pub fn report_failure(&mut self, server: usize) {
        self.wake(server, INTERVAL / 10);
    }

    pub fn publish_due(&mut self) {
        self.proxy.publishing = false;
        self.publish();
    }

    pub fn publish(&mut self) {
        let now = self.clock();
        self.proxy.published_at = self.now;
        self.proxy.estimate.settle(now);
        let before =
            std::mem::replace(&mut self.proxy.cluster, Cluster { shards: vec![self.proxy.estimate.shard()] });
        let max_lag = Duration::from_micros(self.proxy.max_lag);
        for (was, is) in before.shards[0].servers.iter().zip(&self.proxy.shard().servers) {
            self.oracle.serves(was, is, max_lag, now);
        }
        let of = |it: &Shard| (it.is_replaced, it.servers.iter().map(|it| it.role).collect::<Vec<_>>());
        if of(&before.shards[0]) == of(self.proxy.shard()) {
            return;
        }
        let letters = self.proxy.shard().servers.iter().map(|it| match it.role {
            Some(Role::Primary) => 'P',
            Some(Role::Replica) => 'R',
            None => '-',
        });
        let letters = letters.collect();
        self.note(Note::Roles(letters));
        for server in 0..self.proxy.standings.len() {
            let fate = fate(server, &before.shards[0], self.proxy.shard());
            self.meet(server, fate);
        }
        self.wake_held();
    }

    /// As `failover::apply` and `meet`.
    fn meet(&mut self, server: usize, fate: Fate) {
        if fate.reopen {
            self.proxy.standings[server].breaker.reopen(self.clock());
        }
        if fate.close {
            self.proxy.idle[server].clear();
        }
        self.meet_clients(server, fate);
    }

    /// While somebody is held, servers are looked at ten times a second.
    pub fn begin_looking(&mut self) {
        if !std::mem::replace(&mut self.proxy.looking, true) {
            self.look();
        }
    }

    pub fn look(&mut self) {
        if self.proxy.held == 0 {
            self.proxy.looking = false;
            return;
        }
        (0..self.proxy.probers.len()).for_each(|it| self.report_failure(it));
        self.after(100 * MS, What::Look);
    }

    /// A new topology takes the place of the old one, whose probers go on.
    pub fn reload(&mut self, max_lag: Us) {
        let mut new = estimate(self.proxy.standings.len(), max_lag);
        new.adopt(&self.proxy.estimate);
        (self.proxy.estimate, self.proxy.max_lag) = (new, max_lag);
        self.publish();
    }
}
