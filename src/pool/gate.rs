//! Whether a server is worth a try. After a failure nobody connects to it for a while, which doubles with
//! each failure; then one login tries for all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::backend::ConnectError;

const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Clients wait about as long before they see that a server is back.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// ```text
///         failed                    pause over, may_try            succeeded
///   open ────────▶ closed until … ─────────────────────▶ trying ─────────────▶ open
///                       ▲                                   │ failed
///                       └───────────────────────────────────┘
/// ```
pub(super) struct Gate {
    state: Mutex<State>,
}

struct State {
    failures: u32,
    /// With the error that every client is told until then.
    closed: Option<(Instant, Arc<ConnectError>)>,
    trying: bool,
    entropy: u64,
}

impl Gate {
    pub fn new(entropy: u64) -> Gate {
        Gate { state: Mutex::new(State { failures: 0, closed: None, trying: false, entropy }) }
    }

    /// Whether to connect now; after failures only one at a time may. When not: until when to wait.
    pub fn may_try(&self, now: Instant) -> Result<(), Instant> {
        let mut state = self.state.lock();
        match &state.closed {
            None => Ok(()),
            Some((until, _)) if now < *until => Err(*until),
            Some(_) if state.trying => Err(now + PAUSE_MIN),
            Some(_) => {
                state.trying = true;
                Ok(())
            }
        }
    }

    /// Why it is not worth to wait for this server.
    pub fn problem(&self, now: Instant) -> Option<Arc<ConnectError>> {
        let state = self.state.lock();
        let (until, error) = state.closed.as_ref()?;
        (now < *until || state.trying).then(|| error.clone())
    }

    pub fn succeeded(&self) {
        let mut state = self.state.lock();
        (state.failures, state.closed, state.trying) = (0, None, false);
    }

    /// Somebody else has seen the server. A login that tries for all goes on doing so.
    pub fn reopen(&self) {
        let mut state = self.state.lock();
        if let Some((until, _)) = &mut state.closed {
            *until = Instant::now().min(*until);
        }
        state.failures = 0;
    }

    /// A login that the server itself refused shows that it is there.
    pub fn failed(&self, error: &Arc<ConnectError>, now: Instant) {
        if !is_servers(error) {
            return self.succeeded();
        }
        let mut state = self.state.lock();
        state.trying = false;
        // Logins that were under way together fail together: that is one failure.
        if state.closed.as_ref().is_some_and(|(until, _)| now < *until) {
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let pause = PAUSE_MIN.saturating_mul(1 << (state.failures - 1).min(8)).min(PAUSE_MAX);
        // Up to a quarter is taken off by chance, so that many proxies do not come back in step.
        state.entropy = state.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pause = pause - pause * (state.entropy >> 56) as u32 / 1024;
        state.closed = Some((now + pause, error.clone()));
    }
}

/// Whether another login would fare no better: the server is gone, starting, stopping, or full.
fn is_servers(error: &ConnectError) -> bool {
    match error {
        ConnectError::Io(_) | ConnectError::Timeout(_) | ConnectError::Protocol(_) => true,
        ConnectError::Refused { state, .. } => state.starts_with("57P") || state.starts_with("53"),
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
        let (gate, mut now, mut last) = (Gate::new(7), Instant::now(), Duration::ZERO);
        assert!(gate.may_try(now).is_ok() && gate.problem(now).is_none());
        for round in 0..12u32 {
            gate.failed(&error("57P03"), now);
            let until = gate.may_try(now).unwrap_err();
            let pause = until - now;
            let most = PAUSE_MIN.saturating_mul(1 << round.min(8)).min(PAUSE_MAX);
            assert!(pause <= most && pause >= most * 3 / 4, "{round}: {pause:?}");
            assert!(gate.problem(now).is_some());
            now = until;
            assert!(gate.problem(now).is_none() && gate.may_try(now).is_ok());
            assert!(gate.problem(now).is_some() && gate.may_try(now).is_err(), "another one tries");
            assert!(pause > last || most == PAUSE_MAX);
            last = pause;
        }
        gate.succeeded();
        assert!(gate.may_try(now).is_ok() && gate.may_try(now).is_ok());
    }

    #[test]
    fn a_users_own_failure_closes_nothing_and_failures_together_are_one() {
        let (gate, now) = (Gate::new(7), Instant::now());
        gate.failed(&error("28P01"), now);
        gate.failed(&Arc::new(ConnectError::Login(LoginFailure::NoPassword)), now);
        assert!(gate.may_try(now).is_ok());
        gate.failed(&error("53300"), now);
        let until = gate.may_try(now).unwrap_err();
        gate.failed(&error("53300"), now);
        assert_eq!(gate.may_try(now), Err(until));
        // A try that ended for another reason makes room for the next.
        assert!(gate.may_try(until).is_ok());
        gate.failed(&error("28P01"), until);
        assert!(gate.may_try(until).is_ok());
    }
}
