//! One server's prober and those who listen to it. A reload lets new topologies listen to the probers of servers
//! that stay, so that no lag history is lost; a prober that nobody listens to ends.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::estimate::{Pace, Report};
use super::{ProbeSpec, Topology};
use crate::base::ServerId;

pub struct Feed {
    /// Of this server.
    pub spec: ProbeSpec,
    /// Asks the prober to look at once.
    pub urgent: Notify,
    /// The primary of this replica has been sampled.
    pub sampled: Notify,
    /// The same server may stand at another place for each. Two while sessions are on their way from one
    /// configuration to the next.
    listeners: Mutex<Vec<(Weak<Topology>, ServerId)>>,
}

impl Feed {
    pub fn new(spec: ProbeSpec) -> Arc<Feed> {
        Arc::new(Feed { spec, urgent: Notify::new(), sampled: Notify::new(), listeners: Mutex::default() })
    }

    pub fn listen(&self, topology: &Arc<Topology>, server: ServerId) {
        self.listeners.lock().push((Arc::downgrade(topology), server));
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
