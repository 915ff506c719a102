//! What an administrator does to a pool, and sees of it.

use std::sync::Arc;
use std::time::Instant;

use super::Pool;
use crate::backend::ServerRecord;

/// One open connection.
pub struct ServerUse {
    pub record: Arc<ServerRecord>,
    pub idle: bool,
    /// It will be closed when it is released.
    pub closing: bool,
}

impl Pool {
    /// Hands out nothing until `resume`; who waits is told to come again then. What is in use is closed when it
    /// is released, what is idle now.
    pub fn pause(self: &Arc<Pool>) {
        let mut state = self.state.lock();
        // One that a reload has replaced closes its connections anyway.
        state.paused = !state.retired;
        state.waiters.send_away();
        drop(state);
        self.close_idle();
    }

    pub fn resume(self: &Arc<Pool>) {
        self.state.lock().paused = false;
    }

    /// Closes every connection of now, those in use when they are released.
    pub fn renew(self: &Arc<Pool>, now: Instant) {
        self.state.lock().fresh_since = Some(now);
        self.close_idle();
    }

    /// Its server has lost its role: who waits is told to look again.
    pub fn evict(&self) {
        self.state.lock().waiters.send_away();
    }

    /// Its server has been seen to be there: the next one who needs a connection need not wait for the end of a back-off.
    pub fn reopen(&self, now: Instant) {
        self.standing().breaker.reopen(now);
    }

    /// Whether connections are open that are only there until they are released.
    pub fn is_closing(&self) -> bool {
        self.servers().iter().any(|it| it.closing)
    }

    /// Connections, those being made left out.
    pub fn open_count(&self) -> usize {
        let state = self.state.lock();
        state.open - state.connecting
    }

    /// That clients have waited for since the start.
    pub fn wait_seconds(&self) -> f64 {
        self.metrics.waited_seconds()
    }

    pub fn servers(&self) -> Vec<ServerUse> {
        let state = self.state.lock();
        let records = state.records.iter().filter_map(std::sync::Weak::upgrade);
        let server = |record: Arc<ServerRecord>| {
            let idle = state.idle.iter().any(|it| Arc::ptr_eq(&it.record, &record));
            let closing = !idle && (state.paused || state.retired || !state.is_fresh(record.connected_at));
            ServerUse { record, idle, closing }
        };
        records.map(server).collect()
    }
}
