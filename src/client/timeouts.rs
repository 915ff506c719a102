//! How long a client may be silent, and how long its statements and transactions may run. A clock is read
//! and a timer made only where a time-out is configured and there is something to wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::relay::RelayError;
use super::session::Session;
use crate::base::{Reason, Refusal, SqlState};
use crate::cancel;
use crate::metrics::{Limit, LimitHits};
use crate::wire::TxStatus;

/// `None` is for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeouts {
    pub client_idle: Option<Duration>,
    pub idle_in_transaction: Option<Duration>,
    pub aborted_transaction: Option<Duration>,
    /// Behind extended messages without their Sync.
    pub unfinished: Option<Duration>,
    pub query: Option<Duration>,
    /// How long a server may take to end what it was asked to cancel.
    pub cancel: Duration,
    pub transaction: Option<Duration>,
}

/// What a session is in when its client says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Idle,
    Unfinished,
    InTransaction,
    Aborted,
}

/// When the client will be sent away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub until: Instant,
    limit: Limit,
}

impl Timeouts {
    fn silence(&self, silence: Silence) -> Option<(Duration, Limit)> {
        let in_transaction = self.idle_in_transaction.map(|it| (it, Limit::IdleInTransaction));
        match silence {
            Silence::Idle => self.client_idle.map(|it| (it, Limit::ClientIdle)),
            Silence::Unfinished => self.unfinished.map(|it| (it, Limit::Unfinished)),
            Silence::InTransaction => in_transaction,
            // It is a transaction too.
            Silence::Aborted => {
                let aborted = self.aborted_transaction.map(|it| (it, Limit::AbortedTransaction));
                [aborted, in_transaction].into_iter().flatten().min_by_key(|it| it.0)
            }
        }
    }
}

/// When the statement that a server runs has taken long enough.
pub(super) struct Overdue {
    pub at: Instant,
    next: Next,
    slot: Arc<cancel::Slot>,
    grace: Duration,
    hits: LimitHits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    CancelStatement,
    GiveUp,
    EndTransaction,
}

impl Overdue {
    /// The time has come. The first time a statement is cancelled, and its server says so to the client;
    /// one that does not is not waited for.
    pub fn pass(&mut self) -> Result<(), RelayError> {
        match self.next {
            Next::CancelStatement => {
                self.hits.hit(Limit::QueryTime);
                let slot = self.slot.clone();
                tokio::spawn(async move { slot.cancel().await });
                self.at += self.grace;
                self.next = Next::GiveUp;
                Ok(())
            }
            Next::GiveUp => {
                self.hits.hit(Limit::CancelTime);
                Err(RelayError::NotCancelled(self.grace))
            }
            Next::EndTransaction => {
                self.hits.hit(Limit::TransactionTime);
                Err(RelayError::TransactionTime)
            }
        }
    }
}

impl Session {
    /// Before each unit of work: outside of a transaction this one begins it.
    pub fn begin_transaction_time(&mut self) {
        if let Some(it) = self.shared.limits.timeouts.transaction
            && self.transaction.is_idle()
            && !self.unsynced
        {
            self.transaction_ends = Some(Instant::now() + it);
        }
    }

    /// How long the client may say nothing from now on.
    pub fn patience(&self) -> Option<Patience> {
        let timeouts = &self.shared.limits.timeouts;
        let silence = match self.transaction.status() {
            _ if self.unsynced || self.skipping => Silence::Unfinished,
            TxStatus::Idle => Silence::Idle,
            TxStatus::Open => Silence::InTransaction,
            TxStatus::Failed => Silence::Aborted,
        };
        let silent = timeouts.silence(silence);
        let silent = silent.map(|(it, limit)| Patience { until: Instant::now() + it, limit });
        let transaction = self.transaction_ends.filter(|_| silence != Silence::Idle);
        let transaction = transaction.map(|until| Patience { until, limit: Limit::TransactionTime });
        [silent, transaction].into_iter().flatten().min_by_key(|it| it.until)
    }

    /// For the statement that is being sent.
    pub fn overdue(&self) -> Option<Box<Overdue>> {
        let timeouts = &self.shared.limits.timeouts;
        let query = timeouts.query.map(|it| (Instant::now() + it, Next::CancelStatement));
        let transaction = self.transaction_ends.map(|it| (it, Next::EndTransaction));
        let (at, next) = [query, transaction].into_iter().flatten().min_by_key(|it| it.0)?;
        let hits = self.shared.hits.clone();
        let slot = self.cancel.slot().clone();
        Some(Box::new(Overdue { at, next, slot, grace: timeouts.cancel, hits }))
    }

    /// The client has been silent for too long.
    pub fn out_of_patience(&self, patience: Patience) -> Refusal {
        self.shared.hits.hit(patience.limit);
        let (state, text) = match patience.limit {
            Limit::TransactionTime => return transaction_time(),
            Limit::ClientIdle => ("57P05", "terminating connection due to idle-session timeout"),
            Limit::AbortedTransaction => return in_transaction().detail("The transaction had failed."),
            Limit::Unfinished => ("25P03", "terminating connection due to unfinished extended query"),
            _ => return in_transaction(),
        };
        Refusal::new(Reason::Limit, SqlState(state), text)
    }
}

fn in_transaction() -> Refusal {
    let text = "terminating connection due to idle-in-transaction timeout";
    Refusal::new(Reason::Limit, SqlState("25P03"), text)
}

/// As PostgreSQL 17 says it.
pub(super) fn transaction_time() -> Refusal {
    Refusal::new(Reason::Limit, SqlState("25P04"), "terminating connection due to transaction timeout")
}

/// The server did not end the statement itself.
pub(super) fn statement_time(grace: Duration) -> Refusal {
    Refusal::new(Reason::Limit, SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
        .detail(format!(
            "the server did not answer the cancel request within {grace:?}; its connection was closed"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aborted_transaction_is_a_transaction_too() {
        let of = |aborted: Option<u64>, idle: Option<u64>| {
            let seconds = |it: Option<u64>| it.map(Duration::from_secs);
            let timeouts = Timeouts {
                aborted_transaction: seconds(aborted),
                idle_in_transaction: seconds(idle),
                ..Timeouts::default()
            };
            timeouts.silence(Silence::Aborted).map(|it| (it.0.as_secs(), it.1))
        };
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some(5), None), Some((5, Limit::AbortedTransaction)));
        assert_eq!(of(Some(5), Some(3)), Some((3, Limit::IdleInTransaction)));
        assert_eq!(of(None, Some(3)), Some((3, Limit::IdleInTransaction)));
        assert_eq!(Timeouts::default().silence(Silence::Unfinished), None);
    }
}
