//! A Keyway that has just started knows no catalog for a moment, and would refuse what it cannot merge without one. So clients
//! that log in then wait for the first, but not for long: a shard may be down, and most statements need none.
//!
//! ```text
//!  awaited ──every shard read, or FIRST_LOOK_MAX over──▶ over
//! ```

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// From the start on.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(3);

pub(super) struct FirstLook {
    done: watch::Sender<bool>,
    until: Instant,
}

impl FirstLook {
    /// `done` where what is known is of these servers already.
    pub fn new(done: bool, now: Instant) -> FirstLook {
        FirstLook { done: watch::Sender::new(done), until: now + FIRST_LOOK_MAX }
    }

    pub fn is_awaited(&self, now: Instant) -> bool {
        now < self.until && !*self.done.borrow()
    }

    /// Wakes who waits.
    pub fn done(&self) {
        self.done.send_if_modified(|it| !std::mem::replace(it, true));
    }

    /// Until it is over. Cancel safe.
    pub async fn over(&self) {
        let mut done = self.done.subscribe();
        // That the time is up is as good; the sender lives as long as `self`.
        let _ = tokio::time::timeout_at(self.until.into(), done.wait_for(|it| *it)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_over_when_it_is_done_or_has_had_its_time() {
        let now = Instant::now();
        let known = FirstLook::new(true, now);
        assert!(!known.is_awaited(now));
        known.over().await;

        let look = FirstLook::new(false, now);
        assert!(look.is_awaited(now) && !look.is_awaited(now + FIRST_LOOK_MAX));
        let (waited, ()) = tokio::join!(
            async {
                look.over().await;
                // Not by the clock, or this test would take that long.
                *look.done.borrow()
            },
            async { look.done() }
        );
        assert!(waited && !look.is_awaited(now));

        let late = FirstLook { done: watch::Sender::new(false), until: now };
        late.over().await;
        assert!(!late.is_awaited(now));
    }
}
