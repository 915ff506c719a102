//! Server connections to one server as one user to one database, shared by all clients and cores.
//!
//! ```text
//!              checkout: none idle, room left
//!   (nothing) ───────────────────────────────▶ connecting ──▶ handed to the first waiter, else idle
//!                                                  │ failed
//!                                                  ▼
//!   idle ◀── release (free, young enough) ── leased ── drop, or not free ──▶ closed
//!    └────────────── checkout ─────────────────▶┘
//! ```
//! A free connection goes straight to the longest waiter; idle ones are taken last in, first out, so
//! that those not needed grow old and close. A pool that a reload has replaced is retired: it serves whoever
//! has come already and keeps nothing.

mod breaker;
mod checkout;
mod control;
mod ledger;
mod metrics;
mod standing;
mod waiters;

pub use breaker::{Breaker, BreakerState};
pub use checkout::{Checkout, Queued};
pub use control::ServerUse;
pub use ledger::{Bound, Bounds, Ledger, Terms};
pub use metrics::{PoolMetricFamilies, PoolMetrics, PoolName, PoolUsage};
pub use standing::{Busy, Standing, Trial};
pub use waiters::{Ticket, Waiters};

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;

use crate::backend::{self, Backend, BackendSpec, ConnectError, ServerRecord};
use crate::metrics::Limit;
use ledger::Membership;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Connections, those being made included.
    pub size: usize,
    pub waiters_max: usize,
    pub wait_timeout: Duration,
    pub idle_timeout: Duration,
    pub lifetime: Duration,
    /// Logins under way at once.
    pub ramp: usize,
}

#[derive(Clone, Debug, Error)]
pub enum CheckoutError {
    /// The server could not be reached or refused the login.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    #[error("no connection became free within {0:?}")]
    WaitTimeout(Duration),
    /// By an administrator, or its server has another role now: it is to be looked for anew.
    #[error("the pool is paused")]
    Paused,
    #[error("{0} clients wait for a connection already")]
    TooManyWaiters(usize),
}

/// Who asks for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Waits in the queue if there is room in it, and not in a pause.
    Statement,
    /// Has waited elsewhere, where those who wait are bounded already.
    Held,
    /// An open transaction, which a pause waits for.
    Transaction,
}

type Handed = Result<Box<Backend>, Unserved>;

/// What a waiter gets in place of a connection.
enum Unserved {
    Connect(Arc<ConnectError>),
    TimedOut,
}

pub struct Pool {
    name: PoolName,
    spec: BackendSpec,
    limits: PoolLimits,
    state: Mutex<State>,
    membership: Membership,
    metrics: PoolMetrics,
}

#[derive(Default)]
struct State {
    #[allow(
        clippy::vec_box,
        reason = "between idle list, waiters and leases a connection moves as one word"
    )]
    idle: Vec<Box<Backend>>,
    waiters: Waiters<Handed>,
    /// Idle, leased and connecting.
    open: usize,
    connecting: usize,
    /// Somebody will look again when the server is worth another try.
    retrying: bool,
    /// Another pool has taken its place: nothing is kept idle.
    retired: bool,
    /// Somebody will end the waits that take too long.
    expiring: bool,
    /// Nothing is handed out, nor kept.
    paused: bool,
    /// Connections from before are closed when they are released.
    fresh_since: Option<Instant>,
    /// Of connections that are open; those that have closed are swept out now and then.
    records: Vec<Weak<ServerRecord>>,
}

/// A connection in use. Dropping it closes the connection; `release` gives it back.
pub struct Lease {
    backend: Option<Box<Backend>>,
    pool: Arc<Pool>,
}

impl Pool {
    /// `terms` are those of `ledger` for this pool.
    pub fn new(
        name: PoolName,
        spec: BackendSpec,
        limits: PoolLimits,
        ledger: &Arc<Ledger>,
        terms: Arc<Terms>,
        metrics: PoolMetrics,
    ) -> Arc<Pool> {
        Arc::new_cyclic(|pool| {
            let membership = ledger.join(pool.clone(), terms);
            Pool { name, spec, limits, state: Mutex::default(), membership, metrics }
        })
    }

    pub fn name(&self) -> &PoolName {
        &self.name
    }

    pub fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    /// Of its server, which other pools have in common with it.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.membership.terms.standing
    }

    /// Whether its connections may go on where a pool like this is wanted.
    pub fn is_same(&self, name: &PoolName, spec: &BackendSpec, limits: &PoolLimits, terms: &Terms) -> bool {
        self.name == *name
            && self.spec.is_same(spec)
            && self.limits == *limits
            && self.membership.terms.is_same(terms)
    }

    /// Nobody comes any more: what is idle is closed now, what is in use when it is released.
    pub fn retire(self: &Arc<Pool>) {
        let mut state = self.state.lock();
        // Who is late must not wait for a RESUME that goes to the pools of the new configuration.
        (state.retired, state.paused) = (true, false);
        drop(state);
        self.close_idle();
    }

    /// How it is used now; the gauges are brought up to date too. They are set when somebody looks and
    /// not at each checkout, which would cost every query the cache lines of all of them.
    pub fn usage(&self) -> PoolUsage {
        let usage = self.state.lock().usage(self.limits.size);
        self.metrics.publish(&usage);
        self.metrics.observe(self.standing(), Instant::now());
        usage
    }

    fn lease(self: &Arc<Pool>, backend: Box<Backend>) -> Lease {
        Lease { backend: Some(backend), pool: self.clone() }
    }

    /// Starts logins while waiters outnumber them and there is room. Whether this pool has begun to wait
    /// for room that others have: then the ledger is to be served, without the lock.
    #[must_use]
    fn grow(self: &Arc<Pool>, state: &mut State) -> bool {
        // In a pause transactions alone wait.
        while state.connecting < self.limits.ramp
            && state.open < self.limits.size
            && state.connecting < state.waiters.len()
        {
            let now = Instant::now();
            if let Err(no_room) = self.membership.open(now) {
                return no_room.newly_queued;
            }
            if let Err(until) = self.standing().breaker.may_try(now) {
                self.membership.login_ended();
                self.membership.closed(1);
                self.put_off(state, now, until);
                return false;
            }
            state.open += 1;
            state.connecting += 1;
            let pool = self.clone();
            tokio::spawn(async move {
                let result = backend::connect(&pool.spec, Instant::now()).await;
                pool.connected(result);
            });
        }
        false
    }

    /// The server has failed others: waiters that no open connection will serve are told so.
    fn put_off(self: &Arc<Pool>, state: &mut State, now: Instant, until: Instant) {
        if state.open == 0
            && let Some(error) = self.standing().breaker.problem(now)
        {
            state.fail_all(&error);
            return;
        }
        if !std::mem::replace(&mut state.retrying, true) {
            let pool = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                pool.state.lock().retrying = false;
                pool.grow_now();
                pool.membership.ledger.serve();
            });
        }
    }

    /// There may be room. The caller serves the ledger.
    fn grow_now(self: &Arc<Pool>) {
        let _queued = self.grow(&mut self.state.lock());
    }

    fn connected(self: &Arc<Pool>, result: Result<Backend, ConnectError>) {
        self.membership.login_ended();
        let breaker = &self.standing().breaker;
        let mut state = self.state.lock();
        state.connecting -= 1;
        match result {
            Ok(mut backend) => {
                breaker.login_succeeded();
                backend.expires_at = backend.connected_at.checked_add(self.limits.lifetime);
                if state.records.len() >= 2 * state.open.max(4) {
                    state.records.retain(|it| it.strong_count() > 0);
                }
                state.records.push(Arc::downgrade(&backend.record));
                if state.is_fresh(backend.connected_at) {
                    self.put(&mut state, Box::new(backend), Instant::now());
                } else {
                    // It was under way when all were renewed: where it leads to is what they were renewed for.
                    self.close_count(&mut state, 1);
                    tokio::spawn(Box::new(backend).close());
                }
            }
            Err(error) => {
                tracing::warn!(host = %self.spec.host, port = self.spec.port, user = %self.spec.user,
                    %error, "cannot connect to server");
                let error = Arc::new(error);
                breaker.login_failed(&error, Instant::now());
                self.close_count(&mut state, 1);
                self.metrics.connect_failed(&error);
                // With other connections at work waiters are served by those; with none, whoever
                // waits had better know at once.
                if state.open == 0 {
                    state.fail_all(&error);
                }
            }
        }
        let _queued = self.grow(&mut state);
        self.close_unwanted(state);
        self.membership.ledger.serve();
    }

    /// What nobody took who was thought to wait.
    fn close_unwanted(self: &Arc<Pool>, mut state: MutexGuard<'_, State>) {
        if !state.may_keep() {
            let idle = std::mem::take(&mut state.idle);
            self.close_all(state, idle.into_iter());
        }
    }

    fn close_count(&self, state: &mut State, count: usize) {
        state.open -= count;
        self.membership.closed(count);
    }

    /// To the longest waiter that still waits, else to the idle ones.
    fn put(&self, state: &mut State, backend: Box<Backend>, now: Instant) {
        if let Err(Ok(mut backend)) = state.waiters.hand(Ok(backend)) {
            backend.idle_since = now;
            state.idle.push(backend);
        }
    }

    fn take_back(self: &Arc<Pool>, backend: Box<Backend>, now: Instant) {
        let (is_free, is_old) = (backend.pipeline.is_free(), is_old(&backend, now));
        if is_free && is_old {
            self.metrics.hit(Limit::Lifetime);
        }
        let fit = is_free && !is_old;
        let mut state = self.state.lock();
        let fit_here =
            fit && state.open <= self.limits.size && state.may_keep() && state.is_fresh(backend.connected_at);
        if fit_here && !self.membership.should_yield(!state.waiters.is_empty(), now) {
            self.put(&mut state, backend, now);
            self.close_unwanted(state);
            return;
        }
        self.forget(state);
        if fit {
            tokio::spawn(backend.close());
        }
    }

    fn forget(self: &Arc<Pool>, mut state: MutexGuard<'_, State>) {
        self.close_count(&mut state, 1);
        // Whoever waits for room in the ledger comes before this pool's next one.
        drop(state);
        self.membership.ledger.serve();
        self.grow_now();
        self.membership.ledger.serve();
    }

    /// Closes connections that are too old or idle for too long.
    pub fn reap(self: &Arc<Pool>, now: Instant) {
        let expired = |it: &Backend| {
            let is_idle = now.saturating_duration_since(it.idle_since) >= self.limits.idle_timeout;
            let limit = is_old(it, now).then_some(Limit::Lifetime);
            limit.or(is_idle.then_some(Limit::ServerIdle))
        };
        let mut state = self.state.lock();
        let (old, kept): (Vec<_>, Vec<_>) = state.idle.drain(..).partition(|it| expired(it).is_some());
        state.idle = kept;
        old.iter().filter_map(|it| expired(it)).for_each(|it| self.metrics.hit(it));
        self.close_all(state, old.into_iter());
    }

    /// Closes what is idle, because the server's role changed or the pool is going away.
    pub fn close_idle(self: &Arc<Pool>) {
        let mut state = self.state.lock();
        let idle = std::mem::take(&mut state.idle);
        self.close_all(state, idle.into_iter());
    }

    fn close_all(
        self: &Arc<Pool>,
        mut state: MutexGuard<'_, State>,
        old: impl ExactSizeIterator<Item = Box<Backend>>,
    ) {
        if old.len() == 0 {
            return;
        }
        self.close_count(&mut state, old.len());
        let _queued = self.grow(&mut state);
        drop(state);
        self.membership.ledger.serve();
        for backend in old {
            tokio::spawn(backend.close());
        }
    }

    /// Closes the connection that has been idle longest, where no client waits for one; says whether.
    fn give_up_idle(self: &Arc<Pool>) -> bool {
        let mut state = self.state.lock();
        if !state.waiters.is_empty() || state.idle.is_empty() {
            return false;
        }
        let backend = state.idle.remove(0);
        self.close_count(&mut state, 1);
        drop(state);
        tokio::spawn(backend.close());
        true
    }
}

impl State {
    /// Whether a connection that is free may stay, for a waiter or idle.
    fn may_keep(&self) -> bool {
        !self.paused && (!self.retired || !self.waiters.is_empty())
    }

    fn fail_all(&mut self, error: &Arc<ConnectError>) {
        while self.waiters.hand(Err(Unserved::Connect(error.clone()))).is_ok() {}
    }

    fn is_fresh(&self, connected_at: Instant) -> bool {
        self.fresh_since.is_none_or(|it| connected_at >= it)
    }

    fn usage(&self, size: usize) -> PoolUsage {
        let (idle, connecting) = (self.idle.len(), self.connecting);
        PoolUsage {
            active: self.open - idle - connecting,
            idle,
            connecting,
            waiters: self.waiters.len(),
            size,
        }
    }
}

impl Lease {
    pub fn standing(&self) -> &Arc<Standing> {
        self.pool.standing()
    }

    pub fn spec(&self) -> &BackendSpec {
        &self.pool.spec
    }

    /// Gives the connection back; one that is not free is closed instead (DESIGN invariant 4).
    pub fn release(mut self, now: Instant) {
        if let Some(backend) = self.backend.take() {
            self.pool.take_back(backend, now);
        }
    }
}

fn is_old(backend: &Backend, now: Instant) -> bool {
    backend.expires_at.is_some_and(|it| now >= it)
}

impl std::ops::Deref for Lease {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        // Only `release` and `drop` take it, and both end the lease.
        match &self.backend {
            Some(it) => it,
            None => unreachable!("a lease without a connection"),
        }
    }
}

impl std::ops::DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Backend {
        match &mut self.backend {
            Some(it) => it,
            None => unreachable!("a lease without a connection"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.backend.take().is_some() {
            self.pool.forget(self.pool.state.lock());
        }
    }
}

#[cfg(test)]
mod tests;
