//! Which of several replicas that are fresh enough answers a read: of two that are drawn by weight, mostly the one that
//! costs less. Drawing keeps many proxies from running to the same server at once; comparing only two does too.

use std::time::Duration;

/// Below this, differences of latency are the network's mood.
const LATENCY_MIN_US: u32 = 250;
/// A server that has just come back gets this part of its weight at first.
const WARMTH_MIN: f32 = 0.05;

/// What speaks for and against a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// By which it is drawn.
    weight: f32,
    cost: f32,
    /// From 0, for one that has been away and whose caches are cold, to 1.
    warmth: f32,
}

/// How busy a server is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub outstanding: u32,
    /// Zero is not known.
    pub latency_us: u32,
}

impl Offer {
    /// `weight` is at least 1; `penalty` multiplies the cost of a server of another zone, 1 is none.
    pub fn new(weight: u16, load: Load, penalty: f32, warmth: f32) -> Offer {
        let weight = f32::from(weight.max(1));
        // As many for each part of the weight cost the same.
        let queue = 1.0 + load.outstanding as f32 / weight;
        let latency = load.latency_us.max(LATENCY_MIN_US) as f32;
        Offer { weight: weight * warmth, cost: queue * latency * penalty, warmth }
    }
}

/// How much of its weight a server gets `since` its return.
pub fn warmth(since: Duration, slow_start: Duration) -> f32 {
    if since >= slow_start { 1.0 } else { since.div_duration_f32(slow_start).clamp(WARMTH_MIN, 1.0) }
}

/// What was chosen among what was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<T> {
    Nobody,
    One(T),
    /// All that there is has just come back, and somebody else had better take this one.
    Cold(T),
}

#[cfg(test)]
impl<T> Choice<T> {
    /// Nobody else being there.
    pub fn any(self) -> Option<T> {
        match self {
            Choice::Nobody => None,
            Choice::One(it) | Choice::Cold(it) => Some(it),
        }
    }
}

/// Draws one by weight and another one among the rest, and goes over to that one the more surely the less it costs:
/// never where it costs as much, three times in four where it costs half. So a weight of two is twice the reads among
/// servers that do equally well, and one that is ten times as slow gets a hundredth of its share.
pub fn choose<T: Copy>(offers: impl Iterator<Item = (T, Offer)> + Clone, entropy: u64) -> Choice<T> {
    let mut dice = Dice(entropy);
    let (mut total, mut warmest, mut count) = (0.0f32, 0.0f32, 0usize);
    for (_, it) in offers.clone() {
        (total, warmest, count) = (total + it.weight, warmest.max(it.warmth), count + 1);
    }
    let Some((first, (found, one))) = drawn(offers.clone().enumerate(), total * dice.part()) else {
        return Choice::Nobody;
    };
    let mut chosen = found;
    if count > 1 {
        let rest = offers.enumerate().filter(|(at, _)| *at != first);
        if let Some((_, (found, other))) = drawn(rest, (total - one.weight) * dice.part()) {
            let ratio = other.cost / one.cost;
            if ratio < 1.0 && dice.part() < 1.0 - ratio * ratio {
                chosen = found;
            }
        }
    }
    if warmest < 1.0 && dice.part() >= warmest { Choice::Cold(chosen) } else { Choice::One(chosen) }
}

/// The one in whose part of the sum of weights `at` lies; the last one where rounding has lost it.
fn drawn<T>(offers: impl Iterator<Item = (usize, (T, Offer))>, mut at: f32) -> Option<(usize, (T, Offer))> {
    let mut last = None;
    for it in offers {
        at -= it.1.1.weight;
        let found = at < 0.0;
        last = Some(it);
        if found {
            break;
        }
    }
    last
}

/// From one number as many as are needed (SplitMix64, from which the constants are).
struct Dice(u64);

impl Dice {
    /// From 0, below 1.
    fn part(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 40) as f32 / (1u32 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 40_000;

    fn offer(weight: u16, outstanding: u32, latency_us: u32, penalty: f32) -> Offer {
        Offer::new(weight, Load { outstanding, latency_us }, penalty, 1.0)
    }

    /// In parts of a thousand.
    fn shares(offers: &[Offer]) -> Vec<usize> {
        let mut counts = vec![0; offers.len()];
        for entropy in 0..DRAWS as u64 {
            let offers = offers.iter().copied().enumerate();
            counts[choose(offers, entropy.wrapping_mul(0xD134_2543_DE82_EF95)).any().unwrap()] += 1;
        }
        counts.iter().map(|it| it * 1_000 / DRAWS).collect()
    }

    #[track_caller]
    fn check(offers: &[Offer], expect: &[usize]) {
        let found = shares(offers);
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.abs_diff(*expect) <= 15, "{found:?} is not about {expect:?} of {offers:?}");
        }
    }

    #[test]
    fn weights_are_shares_among_equals() {
        assert_eq!(choose(std::iter::empty::<(u8, Offer)>(), 7), Choice::Nobody);
        check(&[offer(1, 0, 0, 1.0)], &[1_000]);
        check(&[offer(1, 0, 0, 1.0), offer(1, 0, 0, 1.0)], &[500, 500]);
        check(&[offer(3, 0, 900, 1.0), offer(1, 0, 900, 1.0)], &[750, 250]);
        check(&[offer(2, 0, 0, 1.0), offer(1, 0, 0, 1.0), offer(1, 0, 0, 1.0)], &[500, 250, 250]);
        // Three times as many at the one of three times the weight is as it should be.
        check(&[offer(3, 6, 900, 1.0), offer(1, 2, 900, 1.0)], &[750, 250]);
    }

    #[test]
    fn who_costs_more_gets_less() {
        check(&[offer(1, 1, 900, 1.0), offer(1, 0, 900, 1.0)], &[125, 875]);
        check(&[offer(1, 0, 9_000, 1.0), offer(1, 0, 900, 1.0)], &[5, 995]);
        check(&[offer(1, 0, 240, 1.0), offer(1, 0, 30, 1.0)], &[500, 500]);
        check(&[offer(1, 0, 900, 4.0), offer(1, 0, 900, 1.0)], &[31, 969]);
        // The near one is loaded, so that the far one costs less.
        check(&[offer(1, 0, 900, 4.0), offer(1, 15, 900, 1.0)], &[969, 31]);
        let mut found = shares(&[offer(1, 0, 9_000, 1.0), offer(1, 0, 900, 1.0), offer(1, 0, 900, 1.0)]);
        assert!(found.remove(0) < 15 && found[0].abs_diff(found[1]) < 20, "{found:?}");
    }

    #[test]
    fn who_comes_back_is_warmed_up() {
        let slow_start = Duration::from_secs(10);
        assert_eq!(warmth(Duration::ZERO, slow_start), WARMTH_MIN);
        assert_eq!(warmth(Duration::from_secs(5), slow_start), 0.5);
        assert_eq!(warmth(slow_start, slow_start), 1.0);
        assert_eq!(warmth(Duration::ZERO, Duration::ZERO), 1.0);
        let cold = Offer::new(1, Load::default(), 1.0, 0.25);
        check(&[cold, offer(1, 0, 0, 1.0)], &[200, 800]);
        // Alone it takes a part, and the rest is for the primary.
        let taken =
            (0..DRAWS as u64).filter(|it| choose([(1, cold)].into_iter(), *it) == Choice::One(1)).count();
        assert!((taken * 1_000 / DRAWS).abs_diff(250) < 15, "{taken}");
        assert_eq!(choose([(1, cold)].into_iter(), 7).any(), Some(1));
    }
}
