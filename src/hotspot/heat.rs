//! What is hot, with hysteresis, so that a warning neither flickers nor comes of one odd window. Time comes in with the
//! windows.
//!
//! ```text
//!         over the limit in 3 of 5 windows (keys: 2 of 3, or 1 by half as much again)
//!   Cool -------------------------------------------------> Hot { since }
//!     ^                                                      |   ^
//!     |  low for 5 minutes without a break (keys: 1 minute)  |   | not low
//!     +------------------------------------------------------+---+
//! ```
//! That a shard is busy for a large part of its capacity, too, is not asked: a proxy does not know it.

use std::collections::HashMap;
use std::hash::Hash;

use super::report::{Bounds, Heat};

/// In seconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub from_s: u64,
    pub to_s: u64,
}

impl Window {
    fn length_s(self) -> u64 {
        self.to_s.saturating_sub(self.from_s).max(1)
    }
}

/// When something is hot and when no more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeatRules {
    /// Load over mean from which a window counts.
    pub hot_factor: f64,
    /// Load over mean below which it is low.
    pub cool_factor: f64,
    /// In so many of the newest so many windows, 8 at most.
    pub windows: (u8, u8),
    pub cool_after_s: u64,
    /// Below so many calls per second nothing is hot.
    pub calls_per_s_min: f64,
    /// Of the load of all, what one has at least: a slot with three times the load of others matters to nobody.
    pub share_min: f64,
}

impl HeatRules {
    pub const SHARDS: HeatRules = HeatRules {
        hot_factor: 1.5,
        cool_factor: 1.2,
        windows: (3, 5),
        cool_after_s: 300,
        calls_per_s_min: 10.0,
        share_min: 0.0,
    };

    pub const PARTS: HeatRules = HeatRules { share_min: 0.05, ..HeatRules::SHARDS };
}

/// What one of several had in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weighed {
    /// In whatever they are compared by.
    pub load: u64,
    pub calls: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// One bit for each of the newest windows, the newest lowest: whether it was over the limit.
    Cool {
        over: u8,
    },
    Hot {
        since_s: u64,
        low_since_s: Option<u64>,
    },
}

const COOL: State = State::Cool { over: 0 };

/// What a window says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Over,
    Between,
    Low,
}

impl State {
    fn next(self, verdict: Verdict, window: Window, windows: (u8, u8), cool_after_s: u64) -> State {
        match self {
            State::Cool { over } => {
                let kept = u8::MAX >> 8u8.saturating_sub(windows.1).min(7);
                let over = (over << 1 | u8::from(verdict == Verdict::Over)) & kept;
                if over.count_ones() >= u32::from(windows.0) {
                    return State::Hot { since_s: window.from_s, low_since_s: None };
                }
                State::Cool { over }
            }
            State::Hot { since_s, low_since_s } => {
                if verdict != Verdict::Low {
                    return State::Hot { since_s, low_since_s: None };
                }
                // A clock that steps back begins anew.
                let low_since_s = low_since_s.map_or(window.from_s, |it| it.min(window.from_s));
                if window.to_s.saturating_sub(low_since_s) >= cool_after_s {
                    return COOL;
                }
                State::Hot { since_s, low_since_s: Some(low_since_s) }
            }
        }
    }

    fn heat(self, hot: Heat) -> (Heat, Option<u64>) {
        match self {
            State::Cool { .. } => (Heat::Cool, None),
            State::Hot { since_s, .. } => (hot, Some(since_s)),
        }
    }
}

/// Of shards, or of the parts of a map: which of them have far more than their part.
#[derive(Clone, Debug)]
pub struct SpreadHeat {
    rules: HeatRules,
    states: Vec<State>,
}

impl SpreadHeat {
    pub fn new(rules: HeatRules) -> SpreadHeat {
        SpreadHeat { rules, states: Vec::new() }
    }

    /// What each had in the newest window, always in the same order. With another number than before all begin cool.
    pub fn observe(&mut self, window: Window, loads: &[Weighed]) {
        self.observe_among(window, loads, loads.len());
    }

    /// As `observe`, where so many of them count for the mean: the others are there to have nothing.
    pub fn observe_among(&mut self, window: Window, loads: &[Weighed], counted: usize) {
        if self.states.len() != loads.len() {
            self.states = vec![COOL; loads.len()];
        }
        let total = loads.iter().map(|it| it.load as f64).sum::<f64>();
        let mean = total / counted.max(1) as f64;
        let rules = self.rules;
        for (state, it) in self.states.iter_mut().zip(loads) {
            let (load, rate) = (it.load as f64, it.calls as f64 / window.length_s() as f64);
            let is_enough = rate >= rules.calls_per_s_min && load >= total * rules.share_min && total > 0.0;
            let verdict = if is_enough && load >= mean * rules.hot_factor {
                Verdict::Over
            } else if !is_enough || load < mean * rules.cool_factor {
                Verdict::Low
            } else {
                Verdict::Between
            };
            *state = state.next(verdict, window, rules.windows, rules.cool_after_s);
        }
    }

    /// `Warning` or `Cool`, and since when it is hot.
    pub fn heat(&self, at: usize) -> (Heat, Option<u64>) {
        self.states.get(at).copied().unwrap_or(COOL).heat(Heat::Warning)
    }
}

/// A key of this share of a map's load is dangerous: half of what a shard should have, and a fifth of all at most.
pub fn danger_share(shards: usize) -> f64 {
    (0.5 / shards.max(1) as f64).min(0.2)
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyRules {
    /// As `danger_share`.
    pub share: f64,
    pub calls_per_s_min: f64,
}

impl KeyRules {
    pub fn of_shards(shards: usize) -> KeyRules {
        KeyRules { share: danger_share(shards), calls_per_s_min: 10.0 }
    }
}

const KEY_WINDOWS: (u8, u8) = (2, 3);
const CERTAIN_FACTOR: f64 = 1.5;
const KEY_COOL_AFTER_S: u64 = 60;
/// No more keys can have a share of a thousandth each.
const KEYS_MAX: usize = 1_024;

/// What is known of a key in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KeyShares {
    /// At least so many.
    pub calls: u64,
    /// Of the map's.
    pub calls_share: Bounds,
    pub time_share: Bounds,
}

/// Which keys of a map are dangerous.
#[derive(Clone, Debug)]
pub struct KeyHeat<K> {
    rules: KeyRules,
    /// Of keys that are dangerous, or were over the limit in one of the newest windows.
    states: HashMap<K, State>,
}

impl<K: Eq + Hash + Clone> KeyHeat<K> {
    pub fn new(rules: KeyRules) -> KeyHeat<K> {
        KeyHeat { rules, states: HashMap::new() }
    }

    /// `heaviest` are the keys that may be over the limit, `shares` what is known of any key: of those that it followed
    /// already, too.
    pub fn observe(
        &mut self,
        window: Window,
        heaviest: impl IntoIterator<Item = K>,
        mut shares: impl FnMut(&K) -> KeyShares,
    ) {
        for key in heaviest {
            if self.states.len() < KEYS_MAX {
                self.states.entry(key).or_insert(COOL);
            }
        }
        let rules = self.rules;
        self.states.retain(|key, state| {
            let verdict = rules.verdict(&shares(key), window);
            let windows = if rules.is_certain(&shares(key)) { (1, KEY_WINDOWS.1) } else { KEY_WINDOWS };
            *state = state.next(verdict, window, windows, KEY_COOL_AFTER_S);
            *state != COOL
        });
    }

    /// `Danger` or `Cool`, and since when it is hot.
    pub fn heat(&self, key: &K) -> (Heat, Option<u64>) {
        self.states.get(key).copied().unwrap_or(COOL).heat(Heat::Danger)
    }
}

impl KeyRules {
    /// So far over that one window is enough: a user sees the key half a minute after it became hot.
    fn is_certain(self, it: &KeyShares) -> bool {
        it.calls_share.lower >= self.share * CERTAIN_FACTOR
    }

    /// By what is certain: over by the lower bound, low by the upper one.
    fn verdict(self, it: &KeyShares, window: Window) -> Verdict {
        let rate = it.calls as f64 / window.length_s() as f64;
        let (lower, upper) =
            (it.calls_share.lower.max(it.time_share.lower), it.calls_share.upper.max(it.time_share.upper));
        if rate >= self.calls_per_s_min && lower >= self.share {
            Verdict::Over
        } else if upper < self.share / 2.0 {
            Verdict::Low
        } else {
            Verdict::Between
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(number: u64) -> Window {
        Window { from_s: 1_000 + number * 10, to_s: 1_010 + number * 10 }
    }

    /// Feeds loads of two or more, a window each; tells in which windows the first was hot at the end.
    fn check(windows: &[&[u64]], expect: &str) {
        let mut heat = SpreadHeat::new(HeatRules::SHARDS);
        let mut got = String::new();
        for (number, loads) in windows.iter().enumerate() {
            let loads: Vec<Weighed> = loads.iter().map(|it| Weighed { load: *it, calls: *it }).collect();
            heat.observe(window(number as u64), &loads);
            got.push(if heat.heat(0).0 == Heat::Warning { 'H' } else { '.' });
        }
        assert_eq!(got, expect, "{windows:?}");
    }

    const OVER: &[u64] = &[1_600, 400];
    const BETWEEN: &[u64] = &[1_300, 700];
    const LOW: &[u64] = &[1_100, 900];

    #[test]
    fn a_shard_is_hot_after_three_of_five_windows() {
        check(&[OVER, OVER, OVER], "..H");
        check(&[OVER, LOW, OVER, LOW, OVER], "....H");
        check(&[OVER, LOW, LOW, OVER, LOW, OVER, LOW, LOW, OVER], ".........");
        check(&[OVER, BETWEEN, OVER, LOW, LOW, OVER, OVER], "......H");
        // 1.5 times the mean, exactly, and a little less.
        check(&[&[1_500, 500], &[1_500, 500], &[1_500, 500]], "..H");
        check(&[&[1_499, 501], &[1_499, 501], &[1_499, 501]], "...");
        // Too little to matter, and alone.
        check(&[&[90, 0], &[90, 0], &[90, 0]], "...");
        check(&[&[5_000], &[5_000], &[5_000]], "...");
        check(&[&[0, 0], &[0, 0], &[0, 0]], "...");
    }

    #[test]
    fn a_shard_is_hot_until_it_was_low_for_five_minutes() {
        let mut windows = vec![OVER; 3];
        windows.extend([LOW; 29]);
        check(&windows, &format!("..{}", "H".repeat(30)));
        windows.push(LOW);
        check(&windows, &format!("..{}.", "H".repeat(30)));
        // Anything else in between begins the five minutes anew.
        windows.insert(20, BETWEEN);
        check(&windows, &format!("..{}", "H".repeat(32)));
        // No load at all is low.
        let mut windows = vec![OVER; 3];
        windows.extend([&[0u64, 0][..]; 30]);
        check(&windows, &format!("..{}.", "H".repeat(30)));
    }

    fn hot(heat: &SpreadHeat) -> Vec<usize> {
        (0..heat.states.len()).filter(|it| heat.heat(*it).0 == Heat::Warning).collect()
    }

    #[test]
    fn a_clock_that_steps_back_neither_clears_nor_sticks() {
        let mut heat = SpreadHeat::new(HeatRules::SHARDS);
        let loads = |hot: u64| [Weighed { load: hot, calls: hot }, Weighed { load: 400, calls: 400 }];
        (100..103).for_each(|it| heat.observe(window(it), &loads(1_600)));
        assert_eq!(heat.heat(0), (Heat::Warning, Some(window(102).from_s)));
        heat.observe(window(103), &loads(400));
        // Back by 1,000 s, low from there on.
        (3..32).for_each(|it| heat.observe(window(it), &loads(400)));
        assert_eq!(heat.heat(0).0, Heat::Warning);
        heat.observe(window(32), &loads(400));
        assert_eq!(heat.heat(0), (Heat::Cool, None));
        assert_eq!((hot(&heat), heat.heat(9)), (Vec::new(), (Heat::Cool, None)));
    }

    #[test]
    fn a_part_is_hot_only_if_it_matters() {
        let mut heat = SpreadHeat::new(HeatRules::PARTS);
        let mut loads = vec![Weighed { load: 100, calls: 100 }; 4096];
        loads[7] = Weighed { load: 10_000, calls: 10_000 };
        (0..5).for_each(|it| heat.observe(window(it), &loads));
        assert!(hot(&heat).is_empty());
        loads[7] = Weighed { load: 30_000, calls: 30_000 };
        (5..10).for_each(|it| heat.observe(window(it), &loads));
        assert_eq!(hot(&heat), [7]);
        // Other parts than before.
        heat.observe(window(10), &loads[..100]);
        assert!(hot(&heat).is_empty());
    }

    fn shares(lower: f64, upper: f64) -> KeyShares {
        KeyShares { calls: 1_000, calls_share: Bounds { lower, upper }, time_share: Bounds::default() }
    }

    /// Feeds the bounds of a key's share, a window each.
    fn check_key(windows: &[KeyShares], expect: &str) {
        let mut heat = KeyHeat::new(KeyRules::of_shards(4));
        let mut got = String::new();
        for (number, it) in windows.iter().enumerate() {
            // It is among the heaviest as long as anything is certain of it.
            let heaviest = (it.calls_share.lower > 0.0 || it.time_share.lower > 0.0).then_some("k");
            heat.observe(window(number as u64), heaviest, |_| *it);
            got.push(if heat.heat(&"k").0 == Heat::Danger { 'D' } else { '.' });
        }
        assert_eq!(got, expect, "{windows:?}");
    }

    #[test]
    fn a_key_is_dangerous_by_its_lower_bound_and_no_more_by_its_upper_one() {
        let (over, unsure, low) = (shares(0.13, 0.14), shares(0.05, 0.3), shares(0.01, 0.06));
        check_key(&[over, over], ".D");
        check_key(&[over, low, over], "..D");
        check_key(&[over, low, low, over], "....");
        check_key(&[unsure; 4], "....");
        check_key(&[over, over, low, low, low, low, low, low], ".DDDDDD.");
        check_key(&[over, over, low, low, low, unsure, low, low, low, low, low, low], ".DDDDDDDDDD.");
        // No longer in the sketch: nothing is certain but that it is little.
        let gone = shares(0.0, 0.001);
        check_key(&[over, over, gone, gone, gone, gone, gone, gone], ".DDDDDD.");
        let by_time = KeyShares {
            calls: 100,
            calls_share: Bounds { lower: 0.0, upper: 0.01 },
            time_share: Bounds { lower: 0.5, upper: 0.6 },
        };
        check_key(&[by_time, by_time], ".D");
        check_key(&[KeyShares { calls: 99, ..by_time }; 3], "...");
    }

    #[test]
    fn keys_that_are_not_hot_are_forgotten() {
        let mut heat = KeyHeat::new(KeyRules::of_shards(2));
        for number in 0..100u64 {
            let keys = number * 50..number * 50 + 50;
            heat.observe(
                window(number),
                keys,
                |it| {
                    if *it == 7 { shares(0.4, 0.5) } else { shares(0.1, 0.19) }
                },
            );
            assert!(heat.states.len() <= 1, "{}", heat.states.len());
        }
        heat.observe(window(100), 0..5_000, |_| shares(0.3, 0.4));
        assert!(heat.states.len() <= KEYS_MAX);
    }

    #[test]
    fn danger_is_half_of_a_shards_part_or_a_fifth() {
        assert_eq!([1, 2, 4, 10].map(danger_share), [0.2, 0.2, 0.125, 0.05]);
        assert_eq!(danger_share(0), 0.2);
    }
}
