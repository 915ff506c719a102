//! Which statements cost a database most, by fingerprint: in bounded memory, from samples of what ran.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

/// Fingerprints that are kept at a time.
pub const STATEMENTS_MAX: usize = 256;

/// What is told is of the last one to two of these.
const GENERATION_S: u64 = 600;

/// Of a normalised text, the rest is cut off.
pub const TEXT_BYTES_MAX: usize = 2_048;

/// From here on each is recorded.
const SLOW_US: u64 = 100_000;
/// From here on, and below, one in so many is, while they are not so many that it would cost much.
const MIDDLING_US: u64 = 10_000;
const MIDDLING_ONE_IN: u32 = 8;
const QUICK_ONE_IN: u32 = 64;
/// Where more are recorded in a second, each is to stand for twice as many; where not even a quarter, for half.
const RECORDED_MAX_PER_S: u32 = 128;
/// How many times one may stand for twice as many.
const DOUBLINGS_MAX: u32 = 8;

/// One fingerprint, over the last ten to twenty minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementReport {
    pub fingerprint: u128,
    /// Without literals and comments, cut at `TEXT_BYTES_MAX`.
    pub text: Arc<str>,
    /// Estimated, as all sums are: `weight`.
    pub calls: u64,
    pub errors: u64,
    /// Sent to clients or changed.
    pub rows: u64,
    /// From the whole request to the end of its answer, waiting included.
    pub time_us: u64,
    /// More time that it may have taken before it had a place in the table, at most.
    pub missed_us: u64,
    pub max_us: u64,
    /// Of the call that took longest; `several` where it had more than one.
    pub shard: Arc<str>,
}

/// A request that was chosen by `weight`.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub fingerprint: u128,
    pub weight: u32,
    pub failed: bool,
    pub rows: u64,
    pub time_us: u64,
    pub shard: &'a str,
}

/// Of one database. Locked for samples alone.
#[derive(Debug, Default)]
pub struct Statements {
    generations: Mutex<Generations>,
    middling: Pace,
    quick: Pace,
}

#[derive(Debug, Default)]
struct Generations {
    now: HashMap<u128, StatementReport>,
    before: HashMap<u128, StatementReport>,
    began_s: u64,
}

/// How fast samples of a kind come, and so how rarely they are taken. Changed by whoever has the lock of the generations.
#[derive(Debug, Default)]
struct Pace {
    /// How many times one that is recorded stands for twice as many as it would.
    doublings: AtomicU32,
    /// Since the last second, or doubling.
    recorded: AtomicU32,
}

impl Pace {
    /// Of a power of two.
    #[inline]
    fn one_in(&self, least: u32) -> u32 {
        least << self.doublings.load(Ordering::Relaxed)
    }

    fn record(&self) {
        if self.recorded.fetch_add(1, Ordering::Relaxed) >= RECORDED_MAX_PER_S {
            self.recorded.store(0, Ordering::Relaxed);
            let more = self.doublings.load(Ordering::Relaxed) + 1;
            self.doublings.store(more.min(DOUBLINGS_MAX), Ordering::Relaxed);
        }
    }

    fn end_second(&self) {
        if self.recorded.swap(0, Ordering::Relaxed) < RECORDED_MAX_PER_S / 4 {
            let fewer = self.doublings.load(Ordering::Relaxed).saturating_sub(1);
            self.doublings.store(fewer, Ordering::Relaxed);
        }
    }
}

impl Statements {
    /// How many statements one that is to be recorded stands for; `None` where it is not. `dice` is random. Asked for once
    /// of each statement, as it changes.
    ///
    /// The expected sums are the true ones: what is recorded with a chance of 1 in n counts n times.
    #[inline]
    pub fn weight(&self, time_us: u64, dice: u32) -> Option<u32> {
        let one_in = match time_us {
            SLOW_US.. => 1,
            MIDDLING_US.. => self.middling.one_in(MIDDLING_ONE_IN),
            _ => self.quick.one_in(QUICK_ONE_IN),
        };
        // Powers of two.
        (dice & (one_in - 1) == 0).then_some(one_in)
    }

    /// `text` is asked for where the fingerprint is new. `now_s` is in seconds of Unix time.
    pub fn record(&self, sample: &Sample<'_>, text: impl FnOnce() -> Arc<str>, now_s: u64) {
        let mut generations = self.generations.lock();
        generations.turn(now_s);
        match sample.time_us {
            SLOW_US.. => {}
            MIDDLING_US.. => self.middling.record(),
            _ => self.quick.record(),
        }
        generations.record(sample, text);
    }

    /// To be called once a second.
    pub fn tick(&self) {
        let _alone = self.generations.lock();
        self.middling.end_second();
        self.quick.end_second();
    }

    /// Those that took most time first.
    pub fn report(&self, now_s: u64) -> Vec<StatementReport> {
        let mut generations = self.generations.lock();
        generations.turn(now_s);
        let mut all = generations.before.clone();
        for it in generations.now.values() {
            all.entry(it.fingerprint).and_modify(|known| known.unite(it)).or_insert_with(|| it.clone());
        }
        drop(generations);
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_by_key(|it| (std::cmp::Reverse(it.time_us), it.fingerprint));
        all.truncate(STATEMENTS_MAX);
        all
    }
}

impl Generations {
    fn turn(&mut self, now_s: u64) {
        let age_s = now_s.saturating_sub(self.began_s);
        if age_s < GENERATION_S {
            return;
        }
        self.before = std::mem::take(&mut self.now);
        if age_s >= 2 * GENERATION_S {
            self.before.clear();
        }
        self.began_s = now_s;
    }

    /// A full table gives the place of the one that took least time to the next fingerprint, which may have taken as
    /// much before (Space-Saving): one that takes more than 1/`STATEMENTS_MAX` of all time is always there.
    fn record(&mut self, sample: &Sample<'_>, text: impl FnOnce() -> Arc<str>) {
        let table = &mut self.now;
        if let Some(known) = table.get_mut(&sample.fingerprint) {
            return known.add(sample);
        }
        let mut missed_us = 0;
        if table.len() >= STATEMENTS_MAX
            && let Some(least) = table.values().min_by_key(|it| it.time_us.saturating_add(it.missed_us))
        {
            missed_us = least.time_us.saturating_add(least.missed_us);
            let least = least.fingerprint;
            table.remove(&least);
        }
        let mut new = StatementReport {
            fingerprint: sample.fingerprint,
            text: text(),
            calls: 0,
            errors: 0,
            rows: 0,
            time_us: 0,
            missed_us,
            max_us: 0,
            shard: "".into(),
        };
        new.add(sample);
        table.insert(sample.fingerprint, new);
    }
}

impl StatementReport {
    fn add(&mut self, sample: &Sample<'_>) {
        let weight = u64::from(sample.weight);
        self.calls += weight;
        self.errors += weight * u64::from(sample.failed);
        self.rows = self.rows.saturating_add(weight.saturating_mul(sample.rows));
        self.time_us = self.time_us.saturating_add(weight.saturating_mul(sample.time_us));
        if self.max_us <= sample.time_us {
            self.max_us = sample.time_us;
            if *self.shard != *sample.shard {
                self.shard = sample.shard.into();
            }
        }
    }

    fn unite(&mut self, more: &StatementReport) {
        self.calls += more.calls;
        self.errors += more.errors;
        self.rows = self.rows.saturating_add(more.rows);
        self.time_us = self.time_us.saturating_add(more.time_us);
        self.missed_us = self.missed_us.saturating_add(more.missed_us);
        if self.max_us <= more.max_us {
            self.max_us = more.max_us;
            self.shard = more.shard.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(fingerprint: u128, time_us: u64) -> Sample<'static> {
        Sample { fingerprint, weight: 1, failed: false, rows: 2, time_us, shard: "s1" }
    }

    fn record(statements: &Statements, it: &Sample<'_>, now_s: u64) {
        statements.record(it, || format!("SELECT {}", it.fingerprint).into(), now_s);
    }

    #[test]
    fn sums_maximum_and_shard_of_the_slowest_call() {
        let statements = Statements::default();
        record(&statements, &sample(7, 300), 1);
        record(&statements, &Sample { shard: "s2", weight: 8, failed: true, ..sample(7, 500) }, 2);
        record(&statements, &sample(8, 10_000), 2);
        record(&statements, &sample(7, 400), 3);
        let report = statements.report(4);
        assert_eq!(report.iter().map(|it| it.fingerprint).collect::<Vec<_>>(), [8, 7]);
        let it = &report[1];
        assert_eq!((it.calls, it.errors, it.rows), (10, 8, 20));
        assert_eq!((it.time_us, it.max_us, it.missed_us), (300 + 8 * 500 + 400, 500, 0));
        assert_eq!((&*it.text, &*it.shard), ("SELECT 7", "s2"));
    }

    #[test]
    fn it_is_bounded_and_keeps_those_that_take_most() {
        let statements = Statements::default();
        // 20,000 fingerprints that come once each, among them one that has a tenth of all time.
        let mut true_us = 0;
        for at in 0..20_000_u64 {
            record(&statements, &sample(u128::from(at) + 10, 1_000 + at % 7), 1);
            if at % 10 == 0 {
                record(&statements, &sample(1, 1_111), 1);
                true_us += 1_111;
            }
        }
        assert_eq!(statements.generations.lock().now.len(), STATEMENTS_MAX);
        let report = statements.report(1);
        assert_eq!(report.len(), STATEMENTS_MAX);
        let heavy = report.iter().find(|it| it.fingerprint == 1).unwrap();
        assert!(heavy.time_us <= true_us && true_us <= heavy.time_us + heavy.missed_us, "{heavy:?}");
        assert_eq!(report[0].fingerprint, 1);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let statements = Statements::default();
        record(&statements, &sample(1, 10), 1_000);
        record(&statements, &sample(2, 20), 1_599);
        record(&statements, &sample(2, 30), 1_601);
        let report = statements.report(2_190);
        assert_eq!(
            report.iter().map(|it| (it.fingerprint, it.time_us)).collect::<Vec<_>>(),
            [(2, 50), (1, 10)]
        );
        assert_eq!(statements.report(2_202).len(), 1, "of the first generation nothing is left");
        assert!(statements.report(9_999).is_empty());
    }

    #[test]
    fn weights_make_up_for_what_is_left_out() {
        let statements = Statements::default();
        for (time_us, one_in) in [(0, 64), (9_999, 64), (10_000, 8), (99_999, 8), (100_000, 1), (u64::MAX, 1)]
        {
            let weight = |dice| statements.weight(time_us, dice);
            let sum: u64 = (0..6_400).filter_map(weight).map(u64::from).sum();
            assert_eq!(sum, 6_400, "{time_us}");
            assert_eq!(weight(one_in), Some(one_in));
        }
    }

    #[test]
    fn of_many_a_second_fewer_are_recorded() {
        let statements = Statements::default();
        let second = |time_us: u64, count: u32| {
            statements.tick();
            let weights = (0..count).filter_map(|it| statements.weight(time_us, it));
            let recorded = weights.inspect(|weight| {
                record(&statements, &Sample { weight: *weight, ..sample(7, time_us) }, 1);
            });
            recorded.fold((0, 0), |(count, sum), weight| (count + 1, sum + u64::from(weight)))
        };
        second(10, 1 << 20);
        let (recorded, stand_for) = second(10, 1 << 20);
        assert!(recorded <= 2 * RECORDED_MAX_PER_S, "{recorded}");
        assert!(stand_for.abs_diff(1 << 20) < 1 << 15, "{stand_for}");
        assert_eq!(second(20_000, 800), (100, 800), "those that take longer are another matter");
        assert_eq!(second(100_000, 800), (800, 800));
        // Nothing comes for some seconds.
        (0..DOUBLINGS_MAX).for_each(|_| statements.tick());
        assert_eq!(second(10, 1 << 11), (32, 1 << 11), "of few, one in 64 again");
    }
}
