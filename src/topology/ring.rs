//! The log positions of one primary over time. No clock: times are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::base::Lsn;

/// "Everything committed before `started_at` ends at or before `lsn`": the clock is read before
/// the question is sent, so the answer can only be later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub started_at: Instant,
    pub lsn: Lsn,
}

/// Samples in order of time and position, dense for seconds, thin for minutes. A replica between
/// two samples counts as fresh as the older one, so thinning errs to the stale side.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Newest first; a sample that outgrows one tier moves to the next or is dropped.
    tiers: [Tier; 3],
}

#[derive(Clone, Debug)]
struct Tier {
    samples: VecDeque<Sample>,
    age_max: Duration,
    gap_min: Duration,
    count_max: usize,
}

/// What [`Ring::push`] made of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Kept,
    /// Started before the newest sample, which knows more.
    OutOfOrder,
    /// The log got shorter: a restore or a crash that lost log. The old samples said nothing
    /// about what is there now, so the ring starts anew.
    Restarted,
}

impl Default for Ring {
    fn default() -> Ring {
        let tier = |age_max_s, gap_min_ms, count_max| Tier {
            samples: VecDeque::new(),
            age_max: Duration::from_secs(age_max_s),
            gap_min: Duration::from_millis(gap_min_ms),
            count_max,
        };
        Ring { tiers: [tier(5, 0, 512), tier(60, 100, 600), tier(600, 1_000, 600)] }
    }
}

impl Ring {
    pub fn push(&mut self, sample: Sample) -> Pushed {
        let mut pushed = Pushed::Kept;
        if let Some(newest) = self.newest() {
            if sample.started_at < newest.started_at {
                return Pushed::OutOfOrder;
            }
            if sample.lsn < newest.lsn {
                self.clear();
                pushed = Pushed::Restarted;
            } else if sample.lsn == newest.lsn {
                // Idle: the later start answers every question that the earlier one did, better.
                self.tiers[0].samples.pop_back();
            }
        }
        self.tiers[0].samples.push_back(sample);
        self.thin(sample.started_at);
        pushed
    }

    fn thin(&mut self, now: Instant) {
        for at in 0..self.tiers.len() {
            while let Some(aged) = self.tiers[at].take_aged(now) {
                if let Some(next) = self.tiers.get_mut(at + 1) {
                    next.accept(aged);
                }
            }
        }
    }

    pub fn clear(&mut self) {
        self.tiers.iter_mut().for_each(|it| it.samples.clear());
    }

    pub fn newest(&self) -> Option<Sample> {
        self.tiers.iter().find_map(|it| it.samples.back().copied())
    }

    /// The start of the newest sample at or before `position`: all that was committed before it
    /// is replayed there. `None` when the position is older than every sample.
    pub fn fresh_as_of(&self, position: Lsn) -> Option<Instant> {
        self.tiers.iter().find_map(|tier| {
            let after = tier.samples.partition_point(|it| it.lsn <= position);
            after.checked_sub(1).and_then(|at| tier.samples.get(at)).map(|it| it.started_at)
        })
    }

    /// The start of the oldest sample at or behind `position`: whoever has replayed what that has, has replayed this.
    /// `None` where there is none yet.
    pub fn passed(&self, position: Lsn) -> Option<Instant> {
        self.tiers.iter().rev().find_map(|tier| {
            let at = tier.samples.partition_point(|it| it.lsn < position);
            tier.samples.get(at).map(|it| it.started_at)
        })
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.tiers.iter().map(|it| it.samples.len()).sum()
    }
}

impl Tier {
    fn take_aged(&mut self, now: Instant) -> Option<Sample> {
        let oldest = self.samples.front()?;
        let aged = now.saturating_duration_since(oldest.started_at) > self.age_max;
        if aged || self.samples.len() > self.count_max { self.samples.pop_front() } else { None }
    }

    fn accept(&mut self, sample: Sample) {
        let gap = |it: &Sample| sample.started_at.saturating_duration_since(it.started_at);
        if self.samples.back().is_none_or(|it| gap(it) >= self.gap_min) {
            self.samples.push_back(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sample(start: Instant, at_ms: u32, lsn: u64) -> Sample {
        Sample { started_at: start + MS * at_ms, lsn: Lsn(lsn) }
    }

    #[test]
    fn a_position_is_as_fresh_as_the_newest_sample_at_or_before_it() {
        let start = Instant::now();
        let mut ring = Ring::default();
        assert_eq!(ring.fresh_as_of(Lsn(7)), None);
        for (at_ms, lsn) in [(0, 100), (100, 200), (200, 300)] {
            assert_eq!(ring.push(sample(start, at_ms, lsn)), Pushed::Kept);
        }
        let check = |position, want: Option<u32>| {
            assert_eq!(ring.fresh_as_of(Lsn(position)), want.map(|it| start + MS * it), "{position}");
        };
        check(99, None);
        check(100, Some(0));
        check(199, Some(0));
        check(200, Some(100));
        check(300, Some(200));
        check(999, Some(200));
    }

    #[test]
    fn an_idle_primary_keeps_one_sample_with_the_latest_start() {
        let start = Instant::now();
        let mut ring = Ring::default();
        (0..10_000).for_each(|it| assert_eq!(ring.push(sample(start, it * 100, 100)), Pushed::Kept));
        assert_eq!(ring.count(), 1);
        assert_eq!(ring.fresh_as_of(Lsn(100)), Some(start + MS * 999_900));
    }

    #[test]
    fn an_earlier_start_is_ignored_and_a_shorter_log_starts_anew() {
        let start = Instant::now();
        let mut ring = Ring::default();
        ring.push(sample(start, 100, 200));
        assert_eq!(ring.push(sample(start, 50, 150)), Pushed::OutOfOrder);
        assert_eq!(ring.fresh_as_of(Lsn(150)), None);
        assert_eq!(ring.push(sample(start, 200, 120)), Pushed::Restarted);
        assert_eq!(ring.fresh_as_of(Lsn(200)), Some(start + MS * 200));
        assert_eq!(ring.count(), 1);
    }

    #[test]
    fn memory_is_bounded_and_thinning_errs_to_the_stale_side() {
        let start = Instant::now();
        let mut ring = Ring::default();
        // 20 minutes, a probe each 10 ms, one byte of log a millisecond.
        let last_ms = 1_200_000;
        (0..=last_ms).step_by(10).for_each(|it| {
            ring.push(sample(start, it, u64::from(it)));
        });
        assert!(ring.count() <= 512 + 600 + 600, "{} samples", ring.count());
        for (lag_ms, resolution_ms) in [(0, 10), (4_000, 10), (30_000, 110), (300_000, 1_100)] {
            let truth = start + MS * (last_ms - lag_ms);
            let fresh = ring.fresh_as_of(Lsn(u64::from(last_ms - lag_ms))).unwrap();
            assert!(fresh <= truth && truth - fresh <= MS * resolution_ms, "{lag_ms} ms behind");
        }
        assert_eq!(ring.fresh_as_of(Lsn(u64::from(last_ms - 700_000))), None);
    }
}
