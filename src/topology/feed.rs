//! One server's prober and those who listen to it. A reload lets new topologies listen to the probers of servers
//! that stay, so that no lag history is lost; a prober that nobody listens to ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::estimate::{Failure, Pace, Report};
use super::patroni::Leadership;
use super::{ProbeSpec, Topology};
use crate::base::ServerId;

pub struct Feed {
    /// Of this server.
    pub spec: ProbeSpec,
    /// Asks the prober to look at once.
    pub urgent: Notify,
    /// The primary of this replica has been sampled.
    pub sampled: Notify,
    /// The server says that it is the primary: its Patroni is to be asked.
    pub claimed: Notify,
    pub leadership: Mutex<Leadership>,
    /// The prober's connection leads to an address that is not the server's any more.
    moved: AtomicBool,
    /// The same server may stand at another place for each. Two while sessions are on their way from one
    /// configuration to the next.
    listeners: Mutex<Vec<(Weak<Topology>, ServerId)>>,
}

impl Feed {
    pub fn new(spec: ProbeSpec) -> Arc<Feed> {
        Arc::new(Feed {
            spec,
            urgent: Notify::new(),
            sampled: Notify::new(),
            claimed: Notify::new(),
            leadership: Mutex::default(),
            moved: AtomicBool::new(false),
            listeners: Mutex::default(),
        })
    }

    pub fn listen(&self, topology: &Arc<Topology>, server: ServerId) {
        self.listeners.lock().push((Arc::downgrade(topology), server));
    }

    /// What the server's Patroni has to say to its report, if it has one.
    pub fn weigh(&self, report: &mut Report) {
        let Some(patroni) = &self.spec.patroni else { return };
        match report {
            Report::Seen(seen) if !seen.in_recovery => {
                seen.objection = self.leadership.lock().objection(patroni);
                self.claimed.notify_one();
            }
            Report::Failed { failure: Failure::Silent | Failure::Unclear, .. } => {}
            // When it comes back, or is promoted, what was said of it before is of no use.
            Report::Seen(_) | Report::Failed { .. } => *self.leadership.lock() = Leadership::Unasked,
        }
    }

    pub fn is_heard(&self) -> bool {
        self.listeners.lock().iter().any(|(topology, _)| topology.strong_count() > 0)
    }

    /// The server's name stands for other addresses: what listeners know is forgotten, and the prober looks anew. A probe
    /// that began before this moment says nothing, one that begins later finds `moved` set.
    pub fn move_away(&self) {
        self.moved.store(true, Ordering::SeqCst);
        let at = Instant::now();
        self.for_each(|topology, server| topology.move_away(server, at));
        self.urgent.notify_one();
    }

    /// Of the prober, when a probe has begun: whether it has to connect anew.
    pub fn takes_move(&self) -> bool {
        self.moved.swap(false, Ordering::SeqCst)
    }

    /// The server's name could not be looked up.
    pub fn not_found(&self) {
        self.for_each(|topology, server| topology.not_found(server));
    }

    fn for_each(&self, tell: impl Fn(&Topology, ServerId)) {
        let listeners = self.listeners.lock();
        let there = listeners.iter().filter_map(|(topology, server)| Some((topology.upgrade()?, *server)));
        let there: Vec<_> = there.collect();
        // Whoever is dropped here may be the last to know a topology.
        drop(listeners);
        there.iter().for_each(|(topology, server)| tell(topology, *server));
    }

    /// When to ask again: the soonest that anybody wants. `None` is nobody left.
    pub fn tell(&self, report: &Report, started_at: Instant) -> Option<Pace> {
        let mut soonest = None;
        self.listeners.lock().retain(|(topology, server)| {
            let pace = topology.upgrade().map(|it| it.learn(*server, report.clone(), started_at));
            soonest = soonest.max(pace);
            pace.is_some()
        });
        soonest
    }
}
