//! One server as its connections show it, of all databases and users: worth a try or not, how busy, how fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::breaker::Breaker;

/// In which a latency counts for 1/e of what it did.
const MEMORY: Duration = Duration::from_secs(5);

pub struct Standing {
    pub breaker: Breaker,
    /// Reads on replicas, and transactions.
    outstanding: AtomicU32,
    latency: Latency,
}

impl Standing {
    pub fn new(entropy: u64, now: Instant) -> Arc<Standing> {
        let latency = Latency { base: now, word: AtomicU64::new(0) };
        Arc::new(Standing { breaker: Breaker::new(entropy), outstanding: AtomicU32::new(0), latency })
    }

    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Moving, of reads on this server, as a replica; zero where there were none lately.
    pub fn latency_us(&self, now: Instant) -> u32 {
        self.latency.at(now)
    }
}

/// A moving mean in one word, the microseconds above the time in milliseconds. Of two that write at once one is lost,
/// which a mean can bear.
struct Latency {
    base: Instant,
    word: AtomicU64,
}

impl Latency {
    /// Goes round every 49 days.
    fn ms(&self, at: Instant) -> u32 {
        at.saturating_duration_since(self.base).as_millis() as u32
    }

    fn at(&self, now: Instant) -> u32 {
        let word = self.word.load(Ordering::Relaxed);
        faded((word >> 32) as u32, self.ms(now).wrapping_sub(word as u32))
    }

    fn add(&self, took: Duration, now: Instant) {
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let word = self.word.load(Ordering::Relaxed);
        let ms = self.ms(now);
        let mean = mean((word >> 32) as u32, ms.wrapping_sub(word as u32), took_us);
        self.word.store(u64::from(mean) << 32 | u64::from(ms), Ordering::Relaxed);
    }
}

/// A latency of which nothing was heard for `age_ms` is believed less and less, so that a server which was slow once
/// is asked again.
fn faded(mean_us: u32, age_ms: u32) -> u32 {
    match age_ms {
        0 => mean_us,
        _ => (mean_us as f32 * (-(age_ms as f32) / MEMORY.as_millis() as f32).exp()) as u32,
    }
}

/// Samples that come together count for a hundredth each, those that come alone for the more the older the mean is.
fn mean(mean_us: u32, age_ms: u32, sample_us: u32) -> u32 {
    if mean_us == 0 {
        return sample_us;
    }
    let share = (1.0 - (-(age_ms as f32) / MEMORY.as_millis() as f32).exp()).max(0.01);
    let (old, new) = (mean_us as f32, sample_us as f32);
    (old + (new - old) * share).max(1.0) as u32
}

/// Something under way at a server.
pub struct Busy(Arc<Standing>);

impl Busy {
    pub fn new(standing: Arc<Standing>) -> Busy {
        standing.outstanding.fetch_add(1, Ordering::Relaxed);
        Busy(standing)
    }

    pub fn succeeded(&self, took: Duration, now: Instant) {
        self.0.latency.add(took, now);
        self.0.breaker.statement_succeeded();
    }

    pub fn lost(&self, now: Instant) {
        self.0.breaker.statement_lost(now);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The breaker is half-open and waits for what becomes of this; when it ends without a word, the next one may try.
pub struct Trial {
    standing: Arc<Standing>,
    is_pending: bool,
}

impl Trial {
    /// Behind a `may_try` that said yes.
    pub fn new(standing: Arc<Standing>) -> Trial {
        Trial { standing, is_pending: true }
    }

    /// The breaker has been told.
    pub fn settle(&mut self) {
        self.is_pending = false;
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.is_pending {
            self.standing.breaker.trial_ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_and_fades() {
        let start = Instant::now();
        let standing = Standing::new(1, start);
        assert_eq!(standing.latency_us(start), 0);
        let busy = Busy::new(standing.clone());
        busy.succeeded(Duration::from_millis(1), start);
        assert_eq!(standing.latency_us(start), 1_000);
        // Ten times as slow from now on, a thousand times a second.
        let mut now = start;
        for _ in 0..2_000 {
            now += Duration::from_millis(1);
            busy.succeeded(Duration::from_millis(10), now);
        }
        let slow = standing.latency_us(now);
        assert!((9_000..=10_000).contains(&slow), "{slow}");
        let later = standing.latency_us(now + MEMORY * 2);
        assert!(later < slow / 7 && later > slow / 8, "{later}");
        assert_eq!(standing.latency_us(now + Duration::from_secs(3_600)), 0);
        // One that comes after a long time counts for nearly all.
        busy.succeeded(Duration::from_millis(2), now + MEMORY * 10);
        assert!((1_990..2_010).contains(&standing.latency_us(now + MEMORY * 10)));
    }

    #[test]
    fn what_is_under_way_is_counted_and_a_trial_ends_with_it() {
        let now = Instant::now();
        let standing = Standing::new(1, now);
        for _ in 0..3 {
            standing.breaker.statement_lost(now);
        }
        let until = standing.breaker.may_try(now).unwrap_err();
        standing.breaker.may_try(until).unwrap();
        let (trial, one, other) =
            (Trial::new(standing.clone()), Busy::new(standing.clone()), Busy::new(standing.clone()));
        assert_eq!(standing.outstanding(), 2);
        drop((one, other));
        assert!(standing.breaker.may_try(until).is_err());
        drop(trial);
        assert!(standing.breaker.may_try(until).is_ok());
        assert_eq!(standing.outstanding(), 0);
        let mut told = Trial::new(standing.clone());
        told.settle();
        drop(told);
        assert!(standing.breaker.may_try(until).is_err(), "the other one tries");
    }
}
