//! What became of cancel requests.

use prometheus::{IntCounter, IntGauge};

use crate::metrics::{RegisterError, Registry};

/// The bounded `result` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The servers were told.
    Sent,
    /// Its client ran nothing.
    Idle,
    /// No client has such a key: it left, or somebody guesses.
    Unknown,
    Forwarded,
    /// A server or another Keyway could not be told, or did not say that it was done.
    Failed,
    /// `cancels_max` were under way.
    Refused,
}

impl Outcome {
    const ALL: [Outcome; 6] = [
        Outcome::Sent,
        Outcome::Idle,
        Outcome::Unknown,
        Outcome::Forwarded,
        Outcome::Failed,
        Outcome::Refused,
    ];

    fn label(self) -> &'static str {
        match self {
            Outcome::Sent => "sent",
            Outcome::Idle => "idle",
            Outcome::Unknown => "unknown",
            Outcome::Forwarded => "forwarded",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
        }
    }
}

#[derive(Clone)]
pub struct CancelMetrics {
    /// In the order of the enum.
    ended: [IntCounter; 6],
    pub(super) in_flight: IntGauge,
}

impl CancelMetrics {
    pub fn register(registry: &Registry) -> Result<CancelMetrics, RegisterError> {
        let ended = registry.counters(
            "keyway_cancels_total",
            "Cancel requests of clients by result: sent, idle, unknown, forwarded, failed, refused.",
            &["result"],
        )?;
        let in_flight = registry.gauges("keyway_cancels_in_flight", "Cancel requests under way.", &[])?;
        Ok(CancelMetrics {
            ended: Outcome::ALL.map(|it| ended.with_label_values(&[it.label()])),
            in_flight: in_flight.with_label_values::<&str>(&[]),
        })
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        if let Some(counter) = self.ended.get(outcome as usize) {
            counter.inc();
        }
    }
}
