//! What an administrator has said of a database: to pause it, or to take no new clients. Reloads leave it alone.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Traffic {
    paused: AtomicBool,
    disabled: AtomicBool,
    resumed: Notify,
}

impl Traffic {
    /// No session gets a server connection from now on. Those that have one keep it to the end of their
    /// transaction.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
    }

    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.resumed.notify_waiters();
    }

    /// Cheap enough for every statement.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Until nothing is paused. Cancel safe.
    pub async fn resumed(&self) {
        loop {
            // Registered before the look, so that no call is missed in between.
            let resumed = self.resumed.notified();
            if !self.paused.load(Ordering::SeqCst) {
                return;
            }
            resumed.await;
        }
    }

    pub fn set_disabled(&self, disabled: bool) {
        self.disabled.store(disabled, Ordering::Relaxed);
    }

    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed)
    }
}
