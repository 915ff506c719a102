//! How a connection is got: an idle one at once, else in the order of asking.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Admission, CheckoutError, Handed, Lease, Pool, State, Ticket, Unserved};
use crate::backend::Backend;
use crate::metrics::Limit;

/// What comes of asking for a connection.
pub enum Checkout<'a> {
    Lease(Lease),
    Queued(Queued<'a>),
}

/// A place in a pool's queue. Dropped with a connection inside (its client leaves in the same instant), it gives that back.
pub struct Queued<'a> {
    pool: &'a Arc<Pool>,
    since: Instant,
    /// `None` once it has been served.
    ticket: Option<Ticket<Handed>>,
}

impl Pool {
    /// An idle connection, without waiting and without a system call.
    pub fn try_checkout(self: &Arc<Pool>) -> Option<Lease> {
        let mut state = self.state.lock();
        let (found, has_closed) = self.take_idle(&mut state);
        drop(state);
        if has_closed {
            self.membership.ledger.serve();
        }
        found.map(|it| self.lease(it))
    }

    /// An idle connection, or a place in the queue for one that is new or becomes free. Does not wait.
    pub fn checkout(self: &Arc<Pool>, admission: Admission) -> Result<Checkout<'_>, CheckoutError> {
        let mut state = self.state.lock();
        let (found, has_closed) = self.take_idle(&mut state);
        if let Some(it) = found {
            drop(state);
            if has_closed {
                self.membership.ledger.serve();
            }
            return Ok(Checkout::Lease(self.lease(it)));
        }
        if has_closed {
            // Whoever waits for room in the ledger comes before this pool's next one.
            drop(state);
            self.membership.ledger.serve();
            state = self.state.lock();
        }
        let (queued, wants_room) = self.enqueue(&mut state, admission)?;
        drop(state);
        if wants_room {
            self.membership.ledger.serve();
        }
        Ok(Checkout::Queued(queued))
    }

    /// And whether connections were closed that turned out to be of no use: then the ledger is to be served, without the
    /// lock.
    fn take_idle(&self, state: &mut State) -> (Option<Box<Backend>>, bool) {
        // None is idle in a pause, whoever asks.
        if state.paused {
            return (None, false);
        }
        let (mut dead, mut found) = (0, None);
        while let Some(mut backend) = state.idle.pop() {
            if !backend.has_news() {
                found = Some(backend);
                break;
            }
            // A server speaks to an idle connection only to say that it ends, or that its
            // configuration changed: neither may surprise the next client.
            dead += 1;
        }
        if dead > 0 {
            self.close_count(state, dead);
        }
        (found, dead > 0)
    }

    /// And whether the pool has begun to wait for room (`grow`).
    fn enqueue(
        self: &Arc<Pool>,
        state: &mut State,
        admission: Admission,
    ) -> Result<(Queued<'_>, bool), CheckoutError> {
        if state.paused && admission != Admission::Transaction {
            return Err(CheckoutError::Paused);
        }
        let now = Instant::now();
        // With other connections at work waiters are served by those; with none, whoever would wait
        // for a server that is known to be gone had better know at once.
        if state.open == 0
            && let Some(error) = self.standing().breaker.problem(now)
        {
            return Err(CheckoutError::Connect(error));
        }
        if state.waiters.len() >= self.limits.waiters_max && admission == Admission::Statement {
            self.metrics.hit(Limit::Waiters);
            return Err(CheckoutError::TooManyWaiters(self.limits.waiters_max));
        }
        let ticket = Some(state.waiters.join(now));
        if !std::mem::replace(&mut state.expiring, true) {
            self.expire_from(now + self.limits.wait_timeout);
        }
        let wants_room = self.grow(state);
        self.note_wait(state);
        Ok((Queued { pool: self, since: now, ticket }, wants_room))
    }

    /// Behind `grow`: who has come last waits for more than a login where one of the pool's bounds is in the
    /// way. Bounds that pools share are counted in the ledger.
    fn note_wait(&self, state: &State) {
        if state.connecting >= state.waiters.len() {
            return;
        }
        if state.open >= self.limits.size {
            self.metrics.hit(Limit::PoolSize);
        } else if state.connecting >= self.limits.ramp {
            self.metrics.hit(Limit::Ramp);
        }
    }

    /// Ends waits that take too long, as long as there are any. One timer for all of them: who comes later is not due
    /// earlier, and nearly all are served long before.
    fn expire_from(self: &Arc<Pool>, mut due: Instant) {
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep_until(due.into()).await;
                // Whoever waits holds it.
                let Some(next) = pool.upgrade().and_then(|it| it.expire(Instant::now())) else { return };
                due = next;
            }
        });
    }

    /// When the next one is due; `None` where nobody waits, and whoever does next has this begun again.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let timeout = self.limits.wait_timeout;
        let mut state = self.state.lock();
        let (count, next) = match now.checked_sub(timeout) {
            Some(since) => state.waiters.hand_all_since(since, || Err(Unserved::TimedOut)),
            None => (0, Some(now)),
        };
        state.expiring = next.is_some();
        drop(state);
        (0..count).for_each(|_| self.metrics.hit(Limit::WaitTime));
        next.map(|since| since + timeout)
    }

    /// A wait for a connection that has ended.
    pub fn note_waited(&self, time: Duration) {
        self.metrics.waited(time);
    }
}

impl Queued<'_> {
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Cancel safe.
    pub async fn served(mut self) -> Result<Lease, CheckoutError> {
        let handed = match &mut self.ticket {
            Some(it) => it.handed().await,
            None => None,
        };
        // Its place in the queue is gone.
        self.ticket = None;
        match handed {
            Some(Ok(backend)) => Ok(self.pool.lease(backend)),
            Some(Err(Unserved::Connect(error))) => Err(CheckoutError::Connect(error)),
            Some(Err(Unserved::TimedOut)) => Err(CheckoutError::WaitTimeout(self.pool.limits.wait_timeout)),
            // Sent away: in a pause, or where the server has another role now.
            None => Err(CheckoutError::Paused),
        }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let left = self.pool.state.lock().waiters.leave(ticket);
        if let Some(Ok(backend)) = left {
            self.pool.take_back(backend, Instant::now());
        }
    }
}
