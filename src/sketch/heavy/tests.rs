use std::collections::HashMap;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;

/// xorshift64*, seeded.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

const PLACE: KeyPlace = KeyPlace { shard: ShardId(0), part: 0 };

fn key(number: u64) -> HeavyKey {
    let access = if number.is_multiple_of(3) { Access::Write } else { Access::Read };
    HeavyKey { map: (number % 5) as u16, access, hash: xxh3_64(&number.to_le_bytes()) }
}

type Addition = (HeavyKey, u64, u64);

/// What a sketch has seen, beside it.
struct Witness {
    sketch: HeavyHitters,
    exact: HashMap<HeavyKey, (f64, f64)>,
    /// Whole numbers as far as nothing decayed.
    sums: HashMap<HeavyKey, (u64, u64)>,
}

impl Witness {
    fn new(slots: usize) -> Witness {
        Witness { sketch: HeavyHitters::new(slots, 0x9E37_79B9), exact: HashMap::new(), sums: HashMap::new() }
    }

    fn of(slots: usize, stream: &[Addition]) -> Witness {
        let mut witness = Witness::new(slots);
        stream.iter().for_each(|it| witness.add(*it));
        witness
    }

    fn add(&mut self, (key, calls, time_us): Addition) {
        self.sketch.add(key, PLACE, calls, time_us);
        let exact = self.exact.entry(key).or_default();
        *exact = (exact.0 + calls as f64, exact.1 + time_us as f64);
        let sums = self.sums.entry(key).or_default();
        *sums = (sums.0.saturating_add(calls), sums.1.saturating_add(time_us));
    }

    fn merge(&mut self, other: &Witness) {
        self.sketch.merge(&other.sketch);
        for (key, more) in &other.exact {
            let exact = self.exact.entry(*key).or_default();
            *exact = (exact.0 + more.0, exact.1 + more.1);
        }
        for (key, more) in &other.sums {
            let sums = self.sums.entry(*key).or_default();
            *sums = (sums.0.saturating_add(more.0), sums.1.saturating_add(more.1));
        }
    }

    /// Exactly, while nothing decayed.
    fn check(&self, name: &str) {
        for (key, sums) in &self.sums {
            let got = self.sketch.get(*key);
            assert!(got.calls.lower <= sums.0 && sums.0 <= got.calls.upper, "{name}: {sums:?} {got:?}");
            assert!(got.time_us.lower <= sums.1 && sums.1 <= got.time_us.upper, "{name}: {sums:?} {got:?}");
        }
        self.check_size(name);
    }

    /// That the bounds are as tight as the module says, and memory as small.
    fn check_size(&self, name: &str) {
        let slots = self.sketch.table.slots();
        assert!(self.sketch.table.used() <= slots / 4 * 3, "{name}");
        assert_eq!(self.sketch.entries().count(), self.sketch.table.used(), "{name}");
        let full = slots / 4 * 3 + 1;
        let paying = (full - ((full * 5).div_ceil(8) - 1)) as u128;
        let (calls, time_us) = self.sketch.offset();
        // At most half of it is of what was turned away.
        let purged = |offset: u64| u128::from(offset).div_ceil(2);
        let kept = |weight: fn(&Estimate) -> u64| {
            self.sketch.entries().map(|it| u128::from(weight(&it.estimate))).sum::<u128>()
        };
        let total = self.sketch.total();
        if total.calls.upper < u64::MAX {
            let kept = kept(|it| it.calls.lower);
            assert!(purged(calls) * paying * 32 / 33 + kept <= u128::from(total.calls.upper), "{name}");
        }
        if total.time_us.upper < u64::MAX {
            let kept = kept(|it| it.time_us.lower);
            assert!(purged(time_us) * paying * 32 / 33 + kept <= u128::from(total.time_us.upper), "{name}");
        }
    }

    /// As a factor of exactly a multiple of 2^-32, so that f64 errs by its own rounding alone.
    fn decay(&mut self, keep: f64) {
        self.sketch.decay(keep);
        let exactly = factor(keep) as f64 / (1u64 << 32) as f64;
        self.exact.values_mut().for_each(|it| *it = (it.0 * exactly, it.1 * exactly));
        self.sums.clear();
    }

    fn check_decayed(&self, name: &str) {
        let inside = |it: Interval, exact: f64| {
            let slack = exact * 1e-12;
            it.lower as f64 <= exact + slack && exact <= it.upper as f64 + slack
        };
        let mut sum = (0.0, 0.0);
        for (key, exact) in &self.exact {
            let got = self.sketch.get(*key);
            assert!(inside(got.calls, exact.0) && inside(got.time_us, exact.1), "{name}: {exact:?} {got:?}");
            sum = (sum.0 + exact.0, sum.1 + exact.1);
        }
        let total = self.sketch.total();
        assert!(inside(total.calls, sum.0) && inside(total.time_us, sum.1), "{name}: {sum:?} {total:?}");
    }
}

const STREAMS: [&str; 10] =
    ["uniform", "zipf", "sorted", "bursts", "late", "flood", "heavy time", "huge", "nothing", "seesaw"];

/// About 4 times as many keys as the sketch has slots.
fn stream(kind: &str, slots: u64, length: u64, random: &mut Random) -> Vec<Addition> {
    let universe = slots * 4;
    let mut one = |at: u64| match kind {
        "uniform" => (key(random.below(universe)), 1, random.below(2_000)),
        // Rank r in about 1 of r.
        "zipf" => {
            let rank = (universe as f64).powf(random.below(1 << 20) as f64 / (1 << 20) as f64) as u64;
            (key(rank), 1, 300 + random.below(50))
        }
        "sorted" => (key(at * universe / length), 1, at % 7),
        "bursts" => (key(at / 50 % universe), 1 + random.below(9), 100),
        // One key that comes only when the table has been full for long.
        "late" if at * 2 > length && at.is_multiple_of(2) => (key(universe + 1), 1, 900),
        "late" => (key(random.below(universe)), 1, 10),
        // Each key once: nothing but purges.
        "flood" => (key(at + 1_000_000), 1, at),
        // The keys with the time are not those with the calls.
        "heavy time" if at.is_multiple_of(10) => (key(at % 4 + 10_000_000), 1, 1_000_000 + random.below(100)),
        "heavy time" => (key(random.below(universe)), 20, random.below(2)),
        "huge" => (key(random.below(universe)), random.next() >> random.below(64), random.next()),
        "nothing" => (key(random.below(universe)), random.below(2), random.below(2) * 50),
        // Calls and time of an entry are as unlike as can be.
        _ if at.is_multiple_of(2) => (key(random.below(universe)), 1 << random.below(30), 0),
        _ => (key(random.below(universe)), 0, 1 << random.below(40)),
    };
    (0..length).map(&mut one).collect()
}

#[test]
fn bounds_hold_in_a_thousand_streams() {
    let mut random = Random(42);
    for round in 0..100 {
        for kind in STREAMS {
            let slots = [16, 32, 64, 128][round % 4];
            let length = 1 + random.below(slots * 40);
            let name = format!("{kind}, round {round}, {slots} slots, {length} long");
            let stream = stream(kind, slots, length, &mut random);
            Witness::of(slots as usize, &stream).check(&name);
        }
    }
}

#[test]
fn bounds_hold_in_full_size() {
    let mut random = Random(7);
    for kind in STREAMS {
        let stream = stream(kind, 4096, 60_000, &mut random);
        Witness::of(4096, &stream).check(kind);
    }
}

#[test]
fn bounds_hold_in_full_size_when_sketches_are_merged_and_decay() {
    let mut random = Random(13);
    for kind in STREAMS.into_iter().filter(|it| *it != "huge") {
        let [mut first, second] = [20_000, 30_000].map(|length| {
            let stream = stream(kind, 4096, length, &mut random);
            Witness::of(4096, &stream)
        });
        first.merge(&second);
        first.check(kind);
        first.decay(0.7937);
        stream(kind, 4096, 10_000, &mut random).into_iter().for_each(|it| first.add(it));
        first.check_decayed(kind);
    }
}

#[test]
fn bounds_hold_whatever_is_merged_in_whatever_order() {
    let mut random = Random(3);
    for round in 0..100 {
        let mut parts: Vec<Witness> = (0..2 + random.below(5))
            .map(|_| {
                let kind = STREAMS[random.below(STREAMS.len() as u64) as usize];
                let slots = 16 << random.below(3);
                let length = random.below(1_000);
                Witness::of(slots as usize, &stream(kind, slots, length, &mut random))
            })
            .collect();
        // Any tree of merges: two of the rest become one until one is left. Of different sizes, the tightness is
        // that of the smallest, which is not what `check_size` asks.
        while parts.len() > 1 {
            let other = parts.swap_remove(random.below(parts.len() as u64) as usize);
            let at = random.below(parts.len() as u64) as usize;
            parts[at].merge(&other);
            for (key, sums) in &parts[at].sums {
                let got = parts[at].sketch.get(*key);
                assert!(got.calls.lower <= sums.0 && sums.0 <= got.calls.upper, "round {round}");
                assert!(got.time_us.lower <= sums.1 && sums.1 <= got.time_us.upper, "round {round}");
            }
        }
    }
}

#[test]
fn merging_is_as_tight_as_one_sketch_of_everything() {
    let mut random = Random(5);
    for round in 0..50 {
        let mut all = Witness::new(64);
        for _ in 0..10 {
            let kind = STREAMS[random.below(STREAMS.len() as u64) as usize];
            all.merge(&Witness::of(64, &stream(kind, 64, 500, &mut random)));
            all.check(&format!("round {round}"));
        }
    }
}

#[test]
fn bounds_hold_after_decay() {
    let mut random = Random(11);
    for round in 0..60 {
        let kind = STREAMS.into_iter().filter(|it| *it != "huge").nth(round % 9).unwrap();
        let mut witness = Witness::new(32);
        for step in 0..30 {
            let part = random.below(200);
            stream(kind, 32, part, &mut random).into_iter().for_each(|it| witness.add(it));
            let keep = [0.0, 0.5, 0.7937, 0.99, 1.0][random.below(5) as usize];
            let keep = if keep == 0.0 && step % 7 != 0 { 0.9 } else { keep };
            witness.decay(keep);
            witness.check_decayed(&format!("{kind}, round {round}, step {step}"));
        }
    }
}

#[test]
fn what_decays_for_long_is_forgotten() {
    let mut random = Random(1);
    let mut witness = Witness::of(64, &stream("uniform", 64, 5_000, &mut random));
    (0..400).for_each(|_| witness.decay(0.79));
    assert_eq!(witness.sketch.entries().count(), 0);
    // What is left of the offset is what rounding may have lost of what is added from now on.
    let (calls, time_us) = witness.sketch.offset();
    assert!(calls <= 10 && time_us <= 10, "{calls} {time_us}");
    witness.check_decayed("long after");
}

#[test]
fn nothing_is_lost_before_the_table_is_full() {
    let mut sketch = HeavyHitters::new(16, 1);
    for number in 0..12u16 {
        let place = KeyPlace { shard: ShardId(number), part: u32::from(number) * 7 };
        sketch.add(key(number.into()), place, number.into(), 1);
    }
    assert_eq!(sketch.offset(), (0, 0));
    let top = sketch.top(2, Weight::Calls);
    assert_eq!((top[0].key, top[1].key, top.len()), (key(11), key(10), 2));
    assert_eq!(top[0].place, KeyPlace { shard: ShardId(11), part: 77 });
    assert_eq!(top[0].estimate.calls, Interval { lower: 11, upper: 11 });
    assert_eq!(sketch.get(key(99)), Estimate::default());
    sketch.clear();
    assert_eq!((sketch.total(), sketch.entries().count()), (Estimate::default(), 0));
}

#[test]
fn keys_that_come_once_are_turned_away_once_the_table_was_full() {
    let mut random = Random(17);
    let mut witness = Witness::new(4096);
    for at in 0..100_000u64 {
        witness.add((key(at + 1_000_000), 1, 200 + random.below(600)));
        // Hot from the middle on.
        if at >= 50_000 && at.is_multiple_of(100) {
            witness.add((key(7), 1, 400));
        }
    }
    witness.check("once each");
    // Purges come with the 3,073rd key and, without a doorkeeper, with at most each 1,920th from there on.
    let (calls, time_us) = witness.sketch.offset();
    assert!(calls < 100_000 / 1_920 / 2, "{calls}");
    assert!(time_us < witness.sketch.total().time_us.upper / 1_920, "{time_us}");
    let hot = witness.sketch.top(1, Weight::Calls)[0];
    assert!(hot.key == key(7) && hot.estimate.calls.lower > 450, "{hot:?}");
}

#[test]
fn reads_and_writes_and_maps_are_told_apart() {
    let mut sketch = HeavyHitters::new(64, 1);
    let read = HeavyKey { map: 3, access: Access::Read, hash: 9 };
    let keys = [read, HeavyKey { access: Access::Write, ..read }, HeavyKey { map: 32_767, ..read }];
    for (calls, key) in (1..).zip(keys) {
        sketch.add(key, PLACE, calls, 0);
    }
    for (calls, key) in (1..).zip(keys) {
        assert_eq!(sketch.get(key).calls, Interval { lower: calls, upper: calls });
    }
    assert!(sketch.entries().all(|it| keys.contains(&it.key)));
}

#[test]
fn a_slow_key_among_many_quick_ones_is_found_by_its_time() {
    let mut random = Random(9);
    let mut witness = Witness::new(256);
    for at in 0..100_000u64 {
        witness.add((key(random.below(20_000)), 1, 100));
        // One call in a thousand, half of all time.
        if at.is_multiple_of(1_000) {
            witness.add((key(77_777), 1, 100_000));
        }
    }
    let slowest = witness.sketch.top(1, Weight::Time)[0];
    assert_eq!(slowest.key, key(77_777));
    let share = slowest.estimate.time_us.lower as f64 / witness.sketch.total().time_us.upper as f64;
    assert!((0.48..=0.5).contains(&share), "{share}");
    witness.check("slow key");
}

#[test]
fn keys_that_share_low_or_high_bits_cost_no_long_walks() {
    // As an attacker would choose them who does not know the seed: the whole table in one slot of a plain mask or shift.
    for shift in [0, 12, 44, 52] {
        let mut sketch = HeavyHitters::new(4096, 0x1234_5678_9ABC_DEF1);
        for number in 0..3_000u64 {
            sketch.add(HeavyKey { map: 0, access: Access::Read, hash: number << shift }, PLACE, 1, 1);
        }
        let walked = sketch.table.steps_max();
        assert!(walked < 1_500 / 8, "shift {shift}: {walked} groups");
    }
}

#[test]
fn what_was_cleared_away_is_never_met_again() {
    let read = |hash| HeavyKey { map: 0, access: Access::Read, hash };
    let mut random = Random(11);
    for seed in 0..64 {
        let mut sketch = HeavyHitters::new(16, seed);
        for _ in 0..20 {
            // Few marks and groups, so that what is left of the round before lies in the way.
            let numbers: Vec<u64> = (0..12).map(|_| random.below(8) << 32 | random.below(6)).collect();
            sketch.clear();
            let mut exact = HashMap::new();
            for number in numbers {
                sketch.add(read(number), PLACE, 1 + number % 3, 0);
                *exact.entry(number).or_insert(0) += 1 + number % 3;
            }
            for (number, calls) in &exact {
                let got = sketch.get(read(*number)).calls;
                assert!(
                    got.lower <= *calls && *calls <= got.upper,
                    "seed {seed}: {number:x}: {calls}, {got:?}"
                );
            }
            let kept: u64 = sketch.entries().map(|it| it.estimate.calls.lower).sum();
            assert!(kept <= exact.values().sum(), "seed {seed}: {kept}");
        }
    }
}

proptest! {
    #[test]
    fn any_stream_keeps_its_bounds(
        adds in prop::collection::vec((0u64..60, any::<u16>(), any::<u32>()), 0..600),
        seed: u64,
        cut in 0usize..600,
    ) {
        let stream: Vec<Addition> =
            adds.iter().map(|it| (key(it.0), u64::from(it.1 % 4), u64::from(it.2 % 1_000))).collect();
        let (first, second) = stream.split_at(cut.min(stream.len()));
        let (mut a, b) = (Witness::new(16), Witness::of(16, second));
        a.sketch = HeavyHitters::new(16, seed);
        first.iter().for_each(|it| a.add(*it));
        a.merge(&b);
        a.check("any");
        let other_way = { let mut it = b; it.merge(&Witness::of(16, first)); it };
        other_way.check("the other way");
        prop_assert_eq!(a.sketch.total(), other_way.sketch.total());
    }
}
