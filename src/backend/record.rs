//! A server connection as others see it while somebody uses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use crate::base::Role;
use crate::net::{Stream, Tie, TlsTerms};

#[derive(Debug)]
pub struct ServerRecord {
    /// The server's process.
    pub pid: u32,
    pub local: Option<SocketAddr>,
    pub tls: Option<TlsTerms>,
    pub connected_at: Instant,
    /// The same for people.
    pub connected_time: SystemTime,
    /// What is known of its server by those who watch that.
    pub tie: Arc<Tie>,
    /// The session that has it, or had it last, above a bit for a server that is used as the primary; 0 for none yet.
    session: AtomicU64,
}

impl ServerRecord {
    pub(super) fn new(pid: u32, connected_at: Instant, stream: &Stream) -> ServerRecord {
        let (local, tls) = (stream.local(), stream.tls_terms());
        let connected_time = SystemTime::now();
        let (tie, session) = (Arc::default(), AtomicU64::new(0));
        ServerRecord { pid, local, tls, connected_at, connected_time, tie, session }
    }

    pub fn set_session(&self, session: u64, role: Role) {
        self.session.store(session << 1 | u64::from(role == Role::Primary), Ordering::Relaxed);
    }

    pub fn session(&self) -> Option<u64> {
        Some(self.session.load(Ordering::Relaxed) >> 1).filter(|it| *it != 0)
    }

    /// Whether its session has it, or had it last, as the primary.
    pub fn is_primary(&self) -> bool {
        self.session.load(Ordering::Relaxed) & 1 == 1
    }
}
