//! Whether a replica is in the set of those that serve reads: it leaves at one lag and comes back at a lower one, so
//! that a replica which hovers at `max_lag` does not swing between taking reads and being left alone.

use std::time::{Duration, Instant};

use crate::route::Joined;

/// How far behind the members of a database's set may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagBounds {
    /// `max_lag`: above it, a member leaves.
    leave: Duration,
    /// At or below it, one that left comes back.
    back: Duration,
}

impl LagBounds {
    /// Comes back at half of `max_lag`, but nothing is asked for that probes cannot show: of a busy primary, a
    /// replica that has everything shows the age of the primary's newest sample, up to `probe_interval`, and what the
    /// two answers and a busy Keyway take, for which the second one is. `max_lag` itself is never too much.
    pub fn new(max_lag: Duration, probe_interval: Duration) -> LagBounds {
        LagBounds { leave: max_lag, back: (max_lag / 2).max(max_lag.min(probe_interval * 2)) }
    }
}

/// ```text
///  New ── lag within `leave` ─────▶ In (not returned)
///   │ lag above it                   │ lag above `leave`, or unknown, now or meanwhile
///   ▼                                ▼
///  Out ── lag within `back` ──▶ In, returned if it has been there before, or was added; else as above
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Its lag has never been known.
    New,
    /// `fresh_as_of` is what reads have judged it by since the last step.
    In { joined: Joined, fresh_as_of: Instant },
    Out {
        /// It has to warm up when it comes: it has been away, or is new among others.
        is_cold: bool,
    },
}

impl Membership {
    /// Of a replica that a reload adds to servers which are known: it comes as one that has been away.
    pub const ADDED: Membership = Membership::Out { is_cold: true };

    pub fn joined(self) -> Option<Joined> {
        match self {
            Membership::In { joined, .. } => Some(joined),
            Membership::New | Membership::Out { .. } => None,
        }
    }

    /// At `now`, before reads are shown `fresh_as_of`; `None` is unknown, or not a replica.
    pub fn step(self, fresh_as_of: Option<Instant>, now: Instant, bounds: LagBounds) -> Membership {
        use Membership::{In, New, Out};
        let is_within = |at: Instant, lag: Duration| now.saturating_duration_since(at) <= lag;
        let enter =
            |at: Instant, returned: bool| In { joined: Joined { at: now, returned }, fresh_as_of: at };
        let before = match self {
            // Reads have found it too old while no report came.
            In { fresh_as_of, .. } if !is_within(fresh_as_of, bounds.leave) => Out { is_cold: true },
            other => other,
        };
        match (before, fresh_as_of) {
            (In { joined, .. }, Some(at)) if is_within(at, bounds.leave) => In { joined, fresh_as_of: at },
            (In { .. }, _) => Out { is_cold: true },
            (New, None) => New,
            (New, Some(at)) if is_within(at, bounds.leave) => enter(at, false),
            (New, Some(_)) => Out { is_cold: false },
            (Out { is_cold }, Some(at)) if is_within(at, bounds.back) => enter(at, is_cold),
            (Out { is_cold }, _) => Out { is_cold },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Steps at times and with lags in milliseconds, the lag `None` where it is unknown; says after each whether it is
    /// in (`I`), has returned (`R`), is out (`-`) or new (`n`).
    fn steps(bounds: LagBounds, steps: &[(u64, Option<u64>)]) -> String {
        let start = Instant::now() + SECOND * 1_000;
        let mut it = Membership::New;
        let letters = steps.iter().map(|(at_ms, lag_ms)| {
            let now = start + Duration::from_millis(*at_ms);
            it = it.step(lag_ms.map(|lag| now - Duration::from_millis(lag)), now, bounds);
            match it {
                Membership::New => 'n',
                Membership::In { joined: Joined { returned: false, .. }, .. } => 'I',
                Membership::In { .. } => 'R',
                Membership::Out { .. } => '-',
            }
        });
        letters.collect()
    }

    fn usual(of: &[(u64, Option<u64>)]) -> String {
        steps(LagBounds::new(SECOND, SECOND / 10), of)
    }

    #[test]
    fn it_leaves_above_max_lag_and_comes_back_below_half_of_it() {
        let lags = [10, 1_000, 1_001, 1_000, 700, 501, 500, 1_000, 1_001, 600];
        let steps: Vec<_> = lags.iter().enumerate().map(|(at, lag)| (at as u64 * 100, Some(*lag))).collect();
        assert_eq!(usual(&steps), "II----RR--");
    }

    #[test]
    fn unknown_is_out_and_the_first_time_is_no_return() {
        assert_eq!(
            usual(&[(0, None), (100, Some(900)), (200, None), (300, Some(600)), (400, Some(0))]),
            "nI--R"
        );
        assert_eq!(usual(&[(0, Some(5_000)), (100, Some(700)), (200, Some(400))]), "--I", "it was never in");
    }

    #[test]
    fn one_that_reads_found_too_old_between_two_reports_has_left() {
        // At 1,200 the report of 100 was too old, whatever the next one says.
        assert_eq!(usual(&[(100, Some(0)), (1_200, Some(700))]), "I-");
        assert_eq!(usual(&[(100, Some(0)), (1_200, Some(100))]), "IR");
        assert_eq!(usual(&[(100, Some(0)), (1_100, Some(700))]), "II");
    }

    #[test]
    fn it_keeps_when_it_joined() {
        let (start, bounds) = (Instant::now(), LagBounds::new(SECOND, SECOND / 10));
        let at = |tenths: u32| start + SECOND / 10 * tenths;
        let mut it = Membership::New.step(Some(at(0)), at(1), bounds);
        it = it.step(Some(at(2)), at(3), bounds);
        assert_eq!(it.joined(), Some(Joined { at: at(1), returned: false }));
        it = it.step(None, at(4), bounds).step(Some(at(4)), at(5), bounds);
        assert_eq!(it.joined(), Some(Joined { at: at(5), returned: true }));
    }

    #[test]
    fn no_lag_is_asked_for_that_probes_cannot_show() {
        let back_ms = |max_lag_ms, interval_ms| {
            let of = Duration::from_millis;
            LagBounds::new(of(max_lag_ms), of(interval_ms)).back.as_millis()
        };
        assert_eq!(back_ms(1_000, 100), 500);
        assert_eq!(back_ms(300, 100), 200);
        assert_eq!(back_ms(150, 100), 150);
        assert_eq!(back_ms(100, 100), 100);
    }
}
