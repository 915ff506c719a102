//! DDL that clients send, counted for all who read catalogs. It lives as long as the database: during a reload
//! sessions of two configurations, each with a watch of its own, change the same servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::concern::Concern;

/// What is kept of changes that no read has seen; of more all statements may be concerned.
const CONCERNS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Changes {
    /// The epoch changes under its lock.
    doubts: Mutex<Doubts>,
    /// Counts beginnings and ends of changes that raise doubts.
    epoch: AtomicU64,
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct Doubts {
    /// How many changes are under way.
    under_way: usize,
    /// When the last one began or ended.
    changed_at: Option<Instant>,
    /// Of changes behind the epoch that was read last.
    concerns: Vec<Concern>,
    read_in: u64,
}

/// DDL under way, until dropped.
pub struct Changing {
    changes: Arc<Changes>,
    doubts: bool,
}

impl Changes {
    /// From here on nothing is known where it `doubts`, until it has been read what it did.
    pub fn begin(self: &Arc<Self>, doubts: bool, concern: Concern) -> Changing {
        if doubts {
            let mut doubts = self.doubts.lock();
            doubts.under_way += 1;
            doubts.changed_at = Some(Instant::now());
            if doubts.concerns.len() >= CONCERNS_MAX {
                doubts.concerns = vec![Concern::All];
            } else if !doubts.concerns.contains(&concern) {
                doubts.concerns.push(concern);
            }
            self.epoch.fetch_add(1, Ordering::Release);
        }
        Changing { changes: self.clone(), doubts }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn changed_at(&self) -> Option<Instant> {
        self.doubts.lock().changed_at
    }

    /// All that was changed up to this epoch has been read, and nothing is under way.
    pub fn read(&self, epoch: u64) {
        let mut doubts = self.doubts.lock();
        if self.epoch() == epoch && doubts.under_way == 0 {
            doubts.concerns.clear();
            doubts.read_in = epoch;
        }
    }

    /// Whether a statement may be concerned by what has changed behind an epoch.
    pub fn concern(&self, text: &str, epoch: u64) -> bool {
        let doubts = self.doubts.lock();
        // What lies further back is not kept.
        epoch < doubts.read_in || doubts.concerns.iter().any(|it| it.meets(text))
    }

    /// The epoch, and how many changes are under way in it.
    pub fn now(&self) -> (u64, usize) {
        let doubts = self.doubts.lock();
        (self.epoch(), doubts.under_way)
    }

    /// Wakes at every end.
    pub fn ends(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        if self.doubts {
            let mut doubts = self.changes.doubts.lock();
            doubts.under_way = doubts.under_way.saturating_sub(1);
            doubts.changed_at = Some(Instant::now());
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
        let (first, second) = (changes.begin(true, Concern::All), changes.begin(true, Concern::All));
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
        drop(changes.begin(false, Concern::All));
        assert_eq!(changes.now(), (0, 0));
        assert!(ends.has_changed().unwrap());
    }

    #[test]
    fn a_change_concerns_whom_it_meets_until_it_has_been_read() {
        let changes = Arc::new(Changes::default());
        let (of_users, of_orders) = ("SELECT name FROM users", "SELECT name FROM orders");
        let change = changes.begin(true, Concern::of("ALTER TABLE users ADD COLUMN a int"));
        assert!(changes.concern(of_users, 0) && !changes.concern(of_orders, 0));
        // One that is under way has not been read.
        changes.read(changes.epoch());
        assert!(changes.concern(of_users, 0));
        drop(change);
        changes.read(1);
        assert!(changes.concern(of_users, 0), "it ended behind what was read");
        changes.read(2);
        assert!(!changes.concern(of_users, 2));
        assert!(changes.concern(of_orders, 0), "who knows less may be concerned by anything");
        for table in 0..=CONCERNS_MAX {
            drop(changes.begin(true, Concern::of(&format!("CREATE TABLE t{table} (a int)"))));
        }
        assert!(changes.concern(of_orders, 2), "too many to be kept");
    }
}
