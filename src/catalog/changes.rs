//! DDL that clients send, counted for all who read catalogs. It lives as long as the database: during a reload
//! sessions of two configurations, each with a watch of its own, change the same servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Default)]
pub(super) struct Changes {
    /// How many are under way. The epoch changes under its lock.
    under_way: Mutex<usize>,
    /// Counts beginnings and ends of those that raise doubts.
    epoch: AtomicU64,
    /// When the last of these began or ended.
    changed_at: Mutex<Option<Instant>>,
    ended: watch::Sender<()>,
}

/// DDL under way, until dropped.
pub struct Changing {
    changes: Arc<Changes>,
    doubts: bool,
}

impl Changes {
    /// From here on nothing is known where it `doubts`, until it has been read what it did.
    pub fn begin(self: &Arc<Self>, doubts: bool) -> Changing {
        if doubts {
            let mut under_way = self.under_way.lock();
            *under_way += 1;
            *self.changed_at.lock() = Some(Instant::now());
            self.epoch.fetch_add(1, Ordering::Release);
        }
        Changing { changes: self.clone(), doubts }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn changed_at(&self) -> Option<Instant> {
        *self.changed_at.lock()
    }

    /// The epoch, and how many changes are under way in it.
    pub fn now(&self) -> (u64, usize) {
        let under_way = self.under_way.lock();
        (self.epoch(), *under_way)
    }

    /// Wakes at every end.
    pub fn ends(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        if self.doubts {
            let mut under_way = self.changes.under_way.lock();
            *under_way = under_way.saturating_sub(1);
            *self.changes.changed_at.lock() = Some(Instant::now());
            self.changes.epoch.fetch_add(1, Ordering::Release);
        }
        self.changes.ended.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_where_a_change_begins_and_where_it_ends() {
        let changes = Arc::new(Changes::default());
        let ends = changes.ends();
        assert_eq!(changes.now(), (0, 0));
        let (first, second) = (changes.begin(true), changes.begin(true));
        assert_eq!(changes.now(), (2, 2));
        assert!(!ends.has_changed().unwrap());
        drop(first);
        assert_eq!(changes.now(), (3, 1));
        assert!(ends.has_changed().unwrap());
        drop(second);
        assert_eq!(changes.now(), (4, 0));
    }

    #[test]
    fn a_harmless_change_is_read_and_raises_no_doubt() {
        let changes = Arc::new(Changes::default());
        let ends = changes.ends();
        drop(changes.begin(false));
        assert_eq!(changes.now(), (0, 0));
        assert!(ends.has_changed().unwrap());
    }
}
