//! A Keyway that has just started knows no catalog for a moment, and would refuse what it cannot merge without one. So clients
//! that log in then wait for the first, but not for long: a shard may be down, and most statements need none.
//!
//! ```text
//!  awaited ──every shard read, or catalog_wait from the start on──▶ over
//! ```

use std::time::Instant;

use tokio::sync::watch;

pub(super) struct FirstLook {
    done: watch::Sender<bool>,
    until: Instant,
}

impl FirstLook {
    /// `done` where what is known is of these servers already.
    pub fn new(done: bool, until: Instant) -> FirstLook {
        FirstLook { done: watch::Sender::new(done), until }
    }

    pub fn is_awaited(&self, now: Instant) -> bool {
        now < self.until && !*self.done.borrow()
    }

    /// Wakes who waits.
    pub fn done(&self) {
        self.done.send_if_modified(|it| !std::mem::replace(it, true));
    }

    /// Until it is over: whether it is done. Cancel safe.
    pub async fn over(&self) -> bool {
        let mut done = self.done.subscribe();
        // The sender lives as long as `self`.
        tokio::time::timeout_at(self.until.into(), done.wait_for(|it| *it)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_is_over_when_it_is_done_or_has_had_its_time() {
        let now = Instant::now();
        let until = now + Duration::from_secs(3600);
        let known = FirstLook::new(true, until);
        assert!(!known.is_awaited(now));
        assert!(known.over().await);

        let look = FirstLook::new(false, until);
        assert!(look.is_awaited(now) && !look.is_awaited(until));
        let (waited, ()) = tokio::join!(look.over(), async { look.done() });
        assert!(waited && !look.is_awaited(now));

        let late = FirstLook::new(false, now);
        assert!(!late.over().await && !late.is_awaited(now));
    }
}
