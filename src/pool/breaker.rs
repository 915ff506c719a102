//! Whether a server is worth a try. After a failure nobody uses it for a while, which doubles with each
//! failure; then one login, or one statement, tries for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::backend::ConnectError;

const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Clients wait about as long before they see that a server is back.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Statements in a row that a server must lose: one that loses its connection may have met an administrator, or
/// the server's own clean-up.
const LOST_MAX: u32 = 3;
/// A statement that was let through to try, and of which nothing has been heard, tries no longer.
const TRIAL_MAX: Duration = Duration::from_secs(10);

/// ```text
///             a login failed, or LOST_MAX statements              the pause is over:
///             in a row lost their connection                      one login or statement
///   closed ─────────────────────────────────────▶ open until … ─────────────────────────▶ half-open
///     ▲                                                ▲                                  │       │
///     │                                                └────────── failed ────────────────┘       │
///     └──────────────────────────────────────── succeeded ───────────────────────────────────────┘
/// ```
pub struct Breaker {
    state: Mutex<State>,
    /// Closed, and no statement was lost since the last that was not: one look without a lock.
    is_sound: AtomicBool,
}

struct State {
    /// Times in a row that it opened.
    failures: u32,
    /// What opened it was lost statements: a login that succeeds closes it, and the next pause is longer all the same.
    by_statements: bool,
    /// Statements in a row.
    lost: u32,
    open: Option<Open>,
    /// Half-open: since when somebody tries.
    trial: Option<Instant>,
    /// Times since the start.
    opened: u64,
    entropy: u64,
}

struct Open {
    until: Instant,
    /// With the error that every client is told until then, where it was a login.
    error: Option<Arc<ConnectError>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    pub fn label(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

impl Breaker {
    pub fn new(entropy: u64) -> Breaker {
        let state =
            State { failures: 0, by_statements: false, lost: 0, open: None, trial: None, opened: 0, entropy };
        Breaker { state: Mutex::new(state), is_sound: AtomicBool::new(true) }
    }

    /// Open while somebody tries, too: nobody else may.
    pub fn state(&self, now: Instant) -> BreakerState {
        self.state_for(now, |_| true)
    }

    /// As `state`, of connections that are there: a server that takes no more of them may serve these for all that.
    pub fn statement_state(&self, now: Instant) -> BreakerState {
        self.state_for(now, |it| !it.error.as_deref().is_some_and(ConnectError::is_full))
    }

    fn state_for(&self, now: Instant, counts: impl Fn(&Open) -> bool) -> BreakerState {
        if self.is_sound.load(Ordering::Relaxed) {
            return BreakerState::Closed;
        }
        let state = self.state.lock();
        match state.open.as_ref().filter(|it| counts(it)) {
            None => BreakerState::Closed,
            Some(it) if now < it.until || state.is_tried(now) => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    pub fn opened_count(&self) -> u64 {
        self.state.lock().opened
    }

    /// Whether to connect now, or to send a statement; after failures only one at a time may. When not: until when
    /// to wait.
    pub fn may_try(&self, now: Instant) -> Result<(), Instant> {
        if self.is_sound.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut state = self.state.lock();
        match &state.open {
            None => Ok(()),
            Some(it) if now < it.until => Err(it.until),
            Some(_) if state.is_tried(now) => Err(now + PAUSE_MIN),
            Some(_) => {
                state.trial = Some(now);
                Ok(())
            }
        }
    }

    /// Why it is not worth to wait for a connection to this server.
    pub fn problem(&self, now: Instant) -> Option<Arc<ConnectError>> {
        let state = self.state.lock();
        let it = state.open.as_ref()?;
        it.error.clone().filter(|_| now < it.until || state.is_tried(now))
    }

    pub fn login_succeeded(&self) {
        let mut state = self.state.lock();
        if !state.by_statements {
            state.failures = 0;
        }
        (state.open, state.trial) = (None, None);
        self.is_sound.store(state.lost == 0 && state.failures == 0, Ordering::Relaxed);
    }

    /// Somebody else has seen the server: the pause is over. Who tries for all goes on doing so.
    pub fn reopen(&self, now: Instant) {
        let mut state = self.state.lock();
        if let Some(it) = &mut state.open {
            it.until = it.until.min(now);
        }
        state.failures = 0;
    }

    /// A login that the server itself refused shows that it is there.
    pub fn login_failed(&self, error: &Arc<ConnectError>, now: Instant) {
        if is_servers(error) {
            self.open(&mut self.state.lock(), Some(error.clone()), now);
        } else {
            self.login_succeeded();
        }
    }

    pub fn statement_succeeded(&self) {
        if self.is_sound.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        (state.failures, state.by_statements, state.lost) = (0, false, 0);
        (state.open, state.trial) = (None, None);
        self.is_sound.store(true, Ordering::Relaxed);
    }

    /// The server lost the connection under a statement, or did not answer. Not to be told of one that was ended on
    /// purpose, such as by `pg_terminate_backend`.
    pub fn statement_lost(&self, now: Instant) {
        let mut state = self.state.lock();
        state.lost = state.lost.saturating_add(1);
        self.is_sound.store(false, Ordering::Relaxed);
        if state.lost >= LOST_MAX || state.trial.is_some() {
            state.by_statements = true;
            self.open(&mut state, None, now);
        }
    }

    /// Whoever tried has left without a result: the next one may.
    pub fn trial_ended(&self) {
        self.state.lock().trial = None;
    }

    fn open(&self, state: &mut State, error: Option<Arc<ConnectError>>, now: Instant) {
        self.is_sound.store(false, Ordering::Relaxed);
        state.trial = None;
        // What was under way together fails together: that is one failure.
        if state.open.as_ref().is_some_and(|it| now < it.until) {
            return;
        }
        state.failures = state.failures.saturating_add(1);
        state.opened += 1;
        let pause = PAUSE_MIN.saturating_mul(1 << (state.failures - 1).min(8)).min(PAUSE_MAX);
        // Up to a quarter is taken off by chance, so that many proxies do not come back in step.
        state.entropy = state.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pause = pause - pause * (state.entropy >> 56) as u32 / 1024;
        state.open = Some(Open { until: now + pause, error });
    }
}

impl State {
    fn is_tried(&self, now: Instant) -> bool {
        self.trial.is_some_and(|it| now.saturating_duration_since(it) < TRIAL_MAX)
    }
}

/// Whether another login would fare no better: the server is gone, starting, stopping, or full.
fn is_servers(error: &ConnectError) -> bool {
    match error {
        ConnectError::Io(_) | ConnectError::Timeout(_) | ConnectError::Protocol(_) => true,
        ConnectError::Refused { state, .. } => state.starts_with("57P") || error.is_full(),
        // Another database may want other TLS of the same server.
        ConnectError::Login(_) | ConnectError::Tls(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::LoginFailure;

    fn error(state: &str) -> Arc<ConnectError> {
        Arc::new(ConnectError::Refused {
            state: state.to_owned(),
            message: "no".to_owned(),
            bytes: Box::default(),
        })
    }

    #[test]
    fn pauses_grow_to_a_bound_and_one_tries_for_all() {
        let (breaker, mut now, mut last) = (Breaker::new(7), Instant::now(), Duration::ZERO);
        assert!(breaker.may_try(now).is_ok() && breaker.problem(now).is_none());
        for round in 0..12u32 {
            breaker.login_failed(&error("57P03"), now);
            assert_eq!(breaker.state(now), BreakerState::Open);
            let until = breaker.may_try(now).unwrap_err();
            let pause = until - now;
            let most = PAUSE_MIN.saturating_mul(1 << round.min(8)).min(PAUSE_MAX);
            assert!(pause <= most && pause >= most * 3 / 4, "{round}: {pause:?}");
            assert!(breaker.problem(now).is_some());
            now = until;
            assert_eq!(breaker.state(now), BreakerState::HalfOpen);
            assert!(breaker.problem(now).is_none() && breaker.may_try(now).is_ok());
            assert!(breaker.problem(now).is_some() && breaker.may_try(now).is_err(), "another one tries");
            assert!(pause > last || most == PAUSE_MAX);
            last = pause;
        }
        assert_eq!(breaker.opened_count(), 12);
        breaker.login_succeeded();
        assert!(breaker.may_try(now).is_ok() && breaker.may_try(now).is_ok());
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }

    #[test]
    fn a_users_own_failure_opens_nothing_and_failures_together_are_one() {
        let (breaker, now) = (Breaker::new(7), Instant::now());
        breaker.login_failed(&error("28P01"), now);
        breaker.login_failed(&Arc::new(ConnectError::Login(LoginFailure::NoPassword)), now);
        assert!(breaker.may_try(now).is_ok());
        breaker.login_failed(&error("53300"), now);
        let until = breaker.may_try(now).unwrap_err();
        breaker.login_failed(&error("53300"), now);
        assert_eq!(breaker.may_try(now), Err(until));
        // A try that ended for another reason makes room for the next.
        assert!(breaker.may_try(until).is_ok());
        breaker.login_failed(&error("28P01"), until);
        assert!(breaker.may_try(until).is_ok());
    }

    #[test]
    fn a_full_server_serves_the_connections_that_it_has() {
        let (breaker, now) = (Breaker::new(7), Instant::now());
        breaker.login_failed(&error("53300"), now);
        assert!(breaker.may_try(now).is_err());
        assert_eq!(
            (breaker.state(now), breaker.statement_state(now)),
            (BreakerState::Open, BreakerState::Closed)
        );
        breaker.login_succeeded();
        breaker.login_failed(&error("57P03"), now);
        assert_eq!(breaker.statement_state(now), BreakerState::Open);
        let until = breaker.may_try(now).unwrap_err();
        assert_eq!(breaker.statement_state(until), BreakerState::HalfOpen);
        assert!(breaker.may_try(until).is_ok());
        assert_eq!(breaker.statement_state(until), BreakerState::Open, "another one tries");
    }

    #[test]
    fn statements_lost_in_a_row_open_it_and_one_tries() {
        let (breaker, now) = (Breaker::new(7), Instant::now());
        for _ in 0..2 * LOST_MAX {
            breaker.statement_lost(now);
            breaker.statement_succeeded();
        }
        assert_eq!(breaker.opened_count(), 0, "not in a row");
        for _ in 0..LOST_MAX {
            assert!(breaker.may_try(now).is_ok());
            breaker.statement_lost(now);
        }
        assert_eq!((breaker.state(now), breaker.opened_count()), (BreakerState::Open, 1));
        assert!(breaker.problem(now).is_none(), "no login has failed");
        let until = breaker.may_try(now).unwrap_err();
        assert!(breaker.may_try(until).is_ok());
        assert!(breaker.may_try(until).is_err());
        breaker.trial_ended();
        assert!(breaker.may_try(until).is_ok(), "the one before has left");
        breaker.statement_lost(until);
        let again = breaker.may_try(until).unwrap_err();
        assert!(again - until > until - now, "one was enough, and the pause is longer");
        assert!(breaker.may_try(again).is_ok());
        assert!(breaker.may_try(again + TRIAL_MAX).is_ok(), "nothing was heard of it");
        breaker.login_succeeded();
        assert_eq!(breaker.state(again), BreakerState::Closed);
        for _ in 0..LOST_MAX {
            breaker.statement_lost(again);
        }
        let third = breaker.may_try(again).unwrap_err();
        assert!(third - again > again - until, "that logins succeed does not make statements do so");
        assert!(breaker.may_try(third).is_ok());
        breaker.statement_succeeded();
        for _ in 1..LOST_MAX {
            breaker.statement_lost(third);
        }
        assert_eq!(breaker.state(third), BreakerState::Closed);
    }
}
