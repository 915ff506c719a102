//! Where a range would be even in two, or why it would not, as CockroachDB finds it (pkg/kv/kvserver/split): candidates are
//! drawn from the accesses themselves, and every access is counted as left of each of them, right of it, or on both sides.

use std::cmp::Ordering;

pub const CANDIDATES: usize = 20;
/// Fewer accesses say nothing of a candidate.
pub const SAMPLES_MIN: u64 = 100;
/// How far the two sides may differ, of what lies on one of them.
const IMBALANCE_MAX: f64 = 0.25;
/// Of the accesses, those that a split would send to both sides.
const CONTAINED_MAX: f64 = 0.5;
const POPULAR_MIN: f64 = 0.5;

#[derive(Clone, Debug)]
pub struct SplitFinder<K> {
    candidates: Vec<Candidate<K>>,
    accesses: u64,
}

/// Counted from when it was drawn.
#[derive(Clone, Debug)]
struct Candidate<K> {
    key: K,
    left: u64,
    /// At the key or above it.
    right: u64,
    /// Of those, at the key itself.
    equal: u64,
    contained: u64,
}

/// The right side begins with the key.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitPoint<K> {
    pub key: K,
    pub left: u64,
    pub right: u64,
    pub contained: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoSplit {
    /// Of the candidate that has most.
    TooFewSamples { have: u64 },
    /// This share of the accesses is of one key, which no split divides.
    PopularKey { share: f64 },
    /// The least difference of two sides, of their sum.
    Unbalanced { difference: f64 },
    /// The least share of accesses that both sides would have a part in.
    Contained { share: f64 },
}

impl<K> Default for SplitFinder<K> {
    fn default() -> SplitFinder<K> {
        SplitFinder { candidates: Vec::new(), accesses: 0 }
    }
}

impl<K: Ord + Clone> SplitFinder<K> {
    /// An access to the keys from `first` to `last`, of one key where these are equal. `entropy` is a random
    /// number, another one each time: which accesses become candidates must not hang on their order.
    pub fn record(&mut self, first: &K, last: &K, entropy: u64) {
        self.accesses += 1;
        let drawn = match self.candidates.len() {
            length if length < CANDIDATES => Some(length),
            // The n-th access takes a place with probability CANDIDATES / n: Vitter's algorithm R.
            _ => usize::try_from(entropy % self.accesses).ok().filter(|it| *it < CANDIDATES),
        };
        for candidate in &mut self.candidates {
            candidate.count(first, last);
        }
        if let Some(place) = drawn {
            let fresh = Candidate { key: first.clone(), left: 0, right: 0, equal: 0, contained: 0 };
            match self.candidates.get_mut(place) {
                Some(old) => *old = fresh,
                None => self.candidates.push(fresh),
            }
        }
    }

    /// What was recorded.
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// As new.
    pub fn clear(&mut self) {
        self.candidates.clear();
        self.accesses = 0;
    }

    /// The candidate with the least difference and the fewest accesses that it would cut in two.
    ///
    /// # Errors
    /// Why there is none; a popular key comes first, as it is the reason of the others.
    pub fn split_point(&self) -> Result<SplitPoint<K>, NoSplit> {
        let sampled = || self.candidates.iter().filter(|it| it.samples() >= SAMPLES_MIN);
        if sampled().next().is_none() {
            let have = self.candidates.iter().map(Candidate::samples).max().unwrap_or(0);
            return Err(NoSplit::TooFewSamples { have });
        }
        let popular = self.popular_key().map_or(0.0, |it| it.1);
        if popular >= POPULAR_MIN {
            return Err(NoSplit::PopularKey { share: popular });
        }
        let fit =
            sampled().filter(|it| it.difference() < IMBALANCE_MAX && it.contained_share() < CONTAINED_MAX);
        let score = |it: &&Candidate<K>| it.difference() + it.contained_share();
        if let Some(best) = fit.min_by(|a, b| score(a).total_cmp(&score(b))) {
            let Candidate { key, left, right, contained, .. } = best.clone();
            return Ok(SplitPoint { key, left, right, contained });
        }
        let least = |of: fn(&Candidate<K>) -> f64| sampled().map(of).fold(1.0, f64::min);
        let contained = least(Candidate::contained_share);
        if contained >= CONTAINED_MAX {
            return Err(NoSplit::Contained { share: contained });
        }
        Err(NoSplit::Unbalanced { difference: least(Candidate::difference) })
    }

    /// The candidate that has most accesses to itself, and its share of those since it was drawn.
    pub fn popular_key(&self) -> Option<(K, f64)> {
        let share = |it: &Candidate<K>| it.equal as f64 / it.samples() as f64;
        let sampled = self.candidates.iter().filter(|it| it.samples() >= SAMPLES_MIN);
        let popular = sampled.max_by(|a, b| share(a).total_cmp(&share(b)))?;
        Some((popular.key.clone(), share(popular)))
    }

    /// From -1, each key below those before it, to 1, each above; 0 where keys come in no order. Accesses to a
    /// candidate itself say nothing of it. `None` as long as too few were seen.
    pub fn direction(&self) -> Option<f64> {
        let sampled = self.candidates.iter().filter(|it| it.samples() >= SAMPLES_MIN);
        let (mut below, mut above) = (0, 0);
        for candidate in sampled {
            below += candidate.left;
            above += candidate.right - candidate.equal;
        }
        let sum = below + above;
        (sum >= SAMPLES_MIN).then(|| (above as f64 - below as f64) / sum as f64)
    }
}

impl<K: Ord> Candidate<K> {
    fn count(&mut self, first: &K, last: &K) {
        match (first.cmp(&self.key), last.cmp(&self.key)) {
            (Ordering::Less, Ordering::Less) => self.left += 1,
            (Ordering::Less, _) => self.contained += 1,
            (order, last) => {
                self.right += 1;
                self.equal += u64::from(order.is_eq() && last.is_eq());
            }
        }
    }

    fn samples(&self) -> u64 {
        self.left + self.right + self.contained
    }

    /// 1 where all lies on both sides: nothing is known to be even then.
    fn difference(&self) -> f64 {
        match self.left + self.right {
            0 => 1.0,
            sum => self.left.abs_diff(self.right) as f64 / sum as f64,
        }
    }

    fn contained_share(&self) -> f64 {
        self.contained as f64 / self.samples() as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// xorshift64*, seeded.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn finder(accesses: u64, mut keys: impl FnMut(u64, u64) -> (i64, i64)) -> SplitFinder<i64> {
        let mut state = 77;
        let mut finder = SplitFinder::default();
        for at in 0..accesses {
            let (first, last) = keys(at, random(&mut state));
            finder.record(&first, &last, random(&mut state));
        }
        finder
    }

    fn point(key: i64) -> (i64, i64) {
        (key, key)
    }

    #[test]
    fn even_keys_are_split_near_their_middle() {
        let finder = finder(10_000, |_, random| point((random % 1_000) as i64));
        let found = finder.split_point().unwrap();
        assert!((375..=625).contains(&found.key), "{found:?}");
        assert!(found.left + found.right >= SAMPLES_MIN && found.contained == 0);
        let direction = finder.direction().unwrap();
        assert!(direction.abs() < 0.5, "{direction}");
    }

    #[test]
    fn a_split_is_where_the_load_is_even_and_not_the_key_space() {
        // Nine of ten accesses are in the highest tenth of the keys.
        let skewed = |_: u64, random: u64| {
            let key = (random / 16 % 1_000) as i64;
            point(if random.is_multiple_of(10) { key } else { 900 + key % 100 })
        };
        let found = finder(10_000, skewed).split_point().unwrap();
        assert!((900..=980).contains(&found.key), "{found:?}");
    }

    #[test]
    fn few_accesses_are_too_few() {
        let finder = finder(100, |at, _| point(at as i64));
        let refused = finder.split_point().unwrap_err();
        assert!(matches!(refused, NoSplit::TooFewSamples { have: 80..SAMPLES_MIN }), "{refused:?}");
        assert_eq!(SplitFinder::<i64>::default().split_point(), Err(NoSplit::TooFewSamples { have: 0 }));
        assert_eq!((finder.direction(), finder.popular_key()), (None, None));
    }

    #[test]
    fn one_key_with_most_accesses_cannot_be_split() {
        let popular =
            |_: u64, random: u64| point(if random % 10 < 7 { 5 } else { (random / 16 % 1_000) as i64 });
        let finder = finder(10_000, popular);
        let Err(NoSplit::PopularKey { share }) = finder.split_point() else {
            panic!("{:?}", finder.split_point())
        };
        assert!((0.6..0.8).contains(&share), "{share}");
        assert_eq!(finder.popular_key().unwrap().0, 5);
        // It lies low, so that what is not it comes from above, which is no order of time.
        assert!(finder.direction().is_some());
    }

    #[test]
    fn two_keys_at_the_ends_of_a_range_can_be_split_and_three_unlike_ones_cannot() {
        let two = finder(2_000, |_, random| point((random % 2) as i64));
        assert_eq!(
            two.split_point().unwrap_err(),
            NoSplit::PopularKey { share: two.popular_key().unwrap().1 }
        );
        // 40 % at the low end, 45 % in the middle, 15 % above: 40 to 60 is even enough.
        let three = |_: u64, random: u64| {
            point([0, 1, 2][usize::from(random % 100 >= 40) + usize::from(random % 100 >= 85)])
        };
        assert_eq!(finder(4_000, three).split_point().unwrap().key, 1);
        // 30 % and 49 % and 21 %: 30 to 70 and 79 to 21 are not.
        let uneven = |_: u64, random: u64| {
            point([0, 1, 2][usize::from(random % 100 >= 30) + usize::from(random % 100 >= 76)])
        };
        let refused = finder(4_000, uneven).split_point().unwrap_err();
        let NoSplit::Unbalanced { difference } = refused else { panic!("{refused:?}") };
        assert!((0.25..0.5).contains(&difference), "{difference}");
    }

    #[test]
    fn scans_of_everything_cannot_be_split() {
        let scans = finder(2_000, |at, _| ((at % 50) as i64, 1_000));
        let refused = scans.split_point().unwrap_err();
        let NoSplit::Unbalanced { .. } = refused else { panic!("{refused:?}") };
        let wide = finder(2_000, |at, random| {
            let low = (at % 3) as i64;
            if random.is_multiple_of(20) { point(500) } else { (low, 1_000 - low) }
        });
        let refused = wide.split_point().unwrap_err();
        assert!(matches!(refused, NoSplit::Contained { .. } | NoSplit::Unbalanced { .. }), "{refused:?}");
    }

    #[test]
    fn keys_that_rise_or_fall_have_a_direction() {
        assert_eq!(finder(3_000, |at, _| point(at as i64)).direction(), Some(1.0));
        assert_eq!(finder(3_000, |at, _| point(-(at as i64))).direction(), Some(-1.0));
        let rising = finder(5_000, |at, random| point((at + random % 100) as i64));
        assert!(rising.direction().unwrap() > 0.8);
    }

    proptest! {
        #[test]
        fn counters_are_those_of_a_linear_count(keys in prop::collection::vec((0i64..50, 0i64..5), 1..300), seed: u64) {
            let mut finder = SplitFinder::default();
            let mut state = seed | 1;
            // When each candidate was drawn is seen by what has no counts yet.
            let mut born: Vec<usize> = Vec::new();
            for (at, (first, width)) in keys.iter().enumerate() {
                finder.record(first, &(first + width), random(&mut state));
                prop_assert!(finder.candidates.len() <= CANDIDATES);
                for (place, candidate) in finder.candidates.iter().enumerate() {
                    if candidate.samples() == 0 && born.get(place) != Some(&at) {
                        if place == born.len() { born.push(at) } else { born[place] = at }
                    }
                }
            }
            for (candidate, born) in finder.candidates.iter().zip(&born) {
                let since = &keys[born + 1..];
                let key = candidate.key;
                let count = |test: &dyn Fn(i64, i64) -> bool| since.iter().filter(|(a, w)| test(*a, a + w)).count() as u64;
                prop_assert_eq!(candidate.left, count(&|_, last| last < key));
                prop_assert_eq!(candidate.right, count(&|first, _| first >= key));
                prop_assert_eq!(candidate.equal, count(&|first, last| first == key && last == key));
                prop_assert_eq!(candidate.samples(), since.len() as u64);
            }
            if let Ok(found) = finder.split_point() {
                let sides = (found.left + found.right) as f64;
                prop_assert!(found.left.abs_diff(found.right) as f64 / sides < IMBALANCE_MAX);
            }
        }
    }
}
