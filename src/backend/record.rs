//! A server connection as others see it while somebody uses it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use crate::net::{Stream, TlsTerms};

#[derive(Debug)]
pub struct ServerRecord {
    /// The server's process.
    pub pid: u32,
    pub local: Option<SocketAddr>,
    pub tls: Option<TlsTerms>,
    pub connected_at: Instant,
    /// The same for people.
    pub connected_time: SystemTime,
    /// The session that has it, or had it last; 0 for none yet.
    session: AtomicU64,
}

impl ServerRecord {
    pub(super) fn new(pid: u32, connected_at: Instant, stream: &Stream) -> ServerRecord {
        let (local, tls) = (stream.local(), stream.tls_terms());
        let connected_time = SystemTime::now();
        ServerRecord { pid, local, tls, connected_at, connected_time, session: AtomicU64::new(0) }
    }

    pub fn set_session(&self, session: u64) {
        self.session.store(session, Ordering::Relaxed);
    }

    pub fn session(&self) -> Option<u64> {
        Some(self.session.load(Ordering::Relaxed)).filter(|it| *it != 0)
    }
}
