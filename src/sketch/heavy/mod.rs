//! The keys with most of the calls and most of the time: Misra-Gries with reverse purge (Anderson et al. 2017, "A
//! high-performance algorithm for identifying frequent items in data streams"), for two weights in one table.
//!
//! An entry counts calls `c` and microseconds `t`. When the table is full, all entries pay `d` calls and `e`
//! microseconds (or what they have, if that is less), the 5/8 quantiles of what they have, rounded up by 1/32 at
//! most. Those that have nothing left are forgotten. Where `d` is not 0, and it was an addition that filled the table, a
//! key that brings 1 call at most and no more than `e` is turned away the first time from then on (`doorkeeper`), until an
//! addition fills the table again. `offset` is the sum of all `d`, and that of all `e`, and of what may be turned
//! away: 1 and `e` for each time that a doorkeeper began.
//!
//! **Bounds.** A key loses at most `d` in a purge if it has an entry, and nothing if it has none, and at most 1 by
//! each time that a doorkeeper began. So what it has lost is at most `offset`, and
//! `c <= true <= c + offset` for every key that was ever added, with `c = 0` where there is no entry. The same of `t`
//! and its own offset: an entry leaves only when both are 0, so that neither weight is lost without being accounted for.
//!
//! **How loose.** Of the K entries of a full table (3/4 of its slots) at least 3/8 have the quantile or more, and
//! lose that: the sum of `d * 32/33 * 3/8 * K` is no more than what was lost in all, which is no more than the total N.
//! What may be turned away is as much again, at most: so `offset <= N * 7.4 / slots`, 0.18 % of all with 4,096
//! slots, of calls and of time alike. Adding two sketches adds both sides of this, so that it holds for what was merged in
//! any order. Where nearly all keys come once, four of five of them are turned away and purges are a fifth as many,
//! so that it is a sixth of that or less from some ten thousand keys on.
//!
//! **Cost.** 5/8 have at most `d` calls, 5/8 at most `e` time, so a quarter at least has at most both and leaves:
//! a purge, which looks at each slot once, comes after that many new entries at the soonest.

mod doorkeeper;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::base::{Access, ShardId};
use doorkeeper::Doorkeeper;
pub use table::Home;
use table::{Entry, Table};

/// 140 KiB, and 15 for purges.
pub const SLOTS_DEFAULT: usize = 4096;
const SLOTS_MIN: usize = 16;
const SLOTS_MAX: usize = 1 << 20;
const DOOR_BITS_PER_SLOT: usize = 16;

/// What is counted. Two keys of one map with one hash are one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeavyKey {
    /// The map's place among those of its database: 32,767 at most.
    pub map: u16,
    pub access: Access,
    /// Of the key, well mixed.
    pub hash: u64,
}

/// Where the key was when it was added last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    pub shard: ShardId,
    pub part: u32,
}

/// What keys are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Calls,
    Time,
}

/// Both ends are true. A sum above `u64::MAX` counts as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    pub lower: u64,
    pub upper: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    pub calls: Interval,
    pub time_us: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeavyEntry {
    pub key: HeavyKey,
    pub place: KeyPlace,
    pub estimate: Estimate,
}

/// Heavy hitters of a stream of keys. Allocates when it is made, and for answers.
#[derive(Clone)]
pub struct HeavyHitters {
    table: Table,
    doorkeeper: Doorkeeper,
    /// Of all that was added, whether it has an entry or not.
    total: Estimate,
    offset: Sums,
}

/// One number for each weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    calls: u64,
    time_us: u64,
}

impl HeavyHitters {
    /// `slots` is rounded up to a power of two; three quarters of them hold entries. `seed` spreads keys over the
    /// slots: whoever does not know it cannot choose keys that fall on one another.
    pub fn new(slots: usize, seed: u64) -> HeavyHitters {
        let slots = slots.clamp(SLOTS_MIN, SLOTS_MAX).next_power_of_two();
        HeavyHitters {
            table: Table::new(slots, seed),
            doorkeeper: Doorkeeper::new(slots * DOOR_BITS_PER_SLOT),
            total: Estimate::default(),
            offset: Sums::default(),
        }
    }

    /// O(1) amortised: one look into the table, and a purge of it at times.
    #[inline]
    pub fn add(&mut self, key: HeavyKey, place: KeyPlace, calls: u64, time_us: u64) {
        self.add_at(self.home(key), key, place, calls, time_us);
    }

    /// `add`, of a key of which the home is known.
    #[inline]
    pub fn add_at(&mut self, home: Home, key: HeavyKey, place: KeyPlace, calls: u64, time_us: u64) {
        debug_assert_eq!(home, self.home(key));
        let weights = Sums { calls, time_us };
        self.total.calls.add(Interval::exactly(calls));
        self.total.time_us.add(Interval::exactly(time_us));
        if self.doorkeeper.turns_away(home, weights) {
            return;
        }
        if self.table.add(Entry::new(key, place, weights), home) {
            self.make_room();
        }
    }

    #[cold]
    fn make_room(&mut self) {
        let paid = self.purge();
        // Where keys pay no call, none is turned away.
        let limit = if paid.calls > 0 { Sums { calls: 1, ..paid } } else { Sums::default() };
        self.doorkeeper.open(limit);
        self.pay(limit);
    }

    /// Where the search for a key begins, for as long as the sketch is there.
    #[inline]
    pub fn home(&self, key: HeavyKey) -> Home {
        self.table.home(key)
    }

    /// Reads what `add_at` looks at first, for no more than that it is in the cache then.
    #[inline]
    pub fn fetch_door(&self, home: Home) -> u64 {
        self.doorkeeper.fetch(home)
    }

    /// Reads what `add_at` looks at then, and most likely changes, unless it turns the key away.
    #[inline]
    pub fn fetch_slot(&self, home: Home) -> u64 {
        self.table.fetch_slot(home, self.doorkeeper.lets_in(home))
    }

    /// Adds what another one has seen. The order in which several are merged changes the bounds, never that they
    /// are true.
    pub fn merge(&mut self, other: &HeavyHitters) {
        for entry in other.table.scattered() {
            if self.table.add(*entry, self.table.home_of(entry)) {
                self.purge();
            }
        }
        self.total.calls.add(other.total.calls);
        self.total.time_us.add(other.total.time_us);
        self.pay(other.offset);
    }

    /// Makes all that was added worth `keep` of it, from 0 to 1. The factor is rounded down to a multiple of
    /// 2^-32, see `factor`; bounds hold for what was added times that factor, as a real number.
    pub fn decay(&mut self, keep: f64) {
        let factor = factor(keep);
        if factor == 1 << 32 {
            return;
        }
        // What was paid for it will be worth less than what it could still turn away.
        self.doorkeeper.close();
        self.table.retain(|calls| scaled(calls, factor), |time_us| scaled(time_us, factor));
        // An entry's own rounding loses less than 1, which the offset makes good.
        let kept = |offset: u64| scaled_up(offset, factor).saturating_add(1);
        if self.total.calls.upper > 0 {
            self.offset.calls = kept(self.offset.calls);
        }
        if self.total.time_us.upper > 0 {
            self.offset.time_us = kept(self.offset.time_us);
        }
        self.total.calls.scale(factor);
        self.total.time_us.scale(factor);
    }

    /// As new, without allocating.
    pub fn clear(&mut self) {
        self.table.clear();
        self.doorkeeper.close();
        self.total = Estimate::default();
        self.offset = Sums::default();
    }

    /// True of keys that were never added, too: from 0 to the offset.
    pub fn get(&self, key: HeavyKey) -> Estimate {
        self.estimate(self.table.get(key).map_or(Sums::default(), |it| it.weights))
    }

    /// Where a key that has an entry was when it was added last.
    pub fn place(&self, key: HeavyKey) -> Option<KeyPlace> {
        self.table.get(key).map(|it| KeyPlace { shard: it.shard, part: it.part })
    }

    /// The `count` entries with the largest lower bounds, the largest first; of equals, the smaller hash.
    pub fn top(&self, count: usize, by: Weight) -> Vec<HeavyEntry> {
        let mut entries: Vec<HeavyEntry> = self.entries().collect();
        let weight = |it: &HeavyEntry| match by {
            Weight::Calls => it.estimate.calls.lower,
            Weight::Time => it.estimate.time_us.lower,
        };
        entries.sort_unstable_by(|a, b| weight(b).cmp(&weight(a)).then(a.key.hash.cmp(&b.key.hash)));
        entries.truncate(count);
        entries
    }

    /// In no order.
    pub fn entries(&self) -> impl Iterator<Item = HeavyEntry> {
        self.table.entries().map(|it| HeavyEntry {
            key: it.key(),
            place: KeyPlace { shard: it.shard, part: it.part },
            estimate: self.estimate(it.weights),
        })
    }

    /// Of all keys. Both ends are one number until it decays.
    pub fn total(&self) -> Estimate {
        self.total
    }

    /// How far the ends of a key's bounds are apart, in calls and in microseconds.
    pub fn offset(&self) -> (u64, u64) {
        (self.offset.calls, self.offset.time_us)
    }

    fn estimate(&self, weights: Sums) -> Estimate {
        // A key has no more than all have.
        let interval = |lower: u64, offset: u64, total: Interval| Interval {
            lower,
            upper: lower.saturating_add(offset).min(total.upper),
        };
        Estimate {
            calls: interval(weights.calls, self.offset.calls, self.total.calls),
            time_us: interval(weights.time_us, self.offset.time_us, self.total.time_us),
        }
    }

    /// What all have paid.
    fn purge(&mut self) -> Sums {
        let paid = self.table.quantiles();
        self.table.retain(|it| it.saturating_sub(paid.calls), |it| it.saturating_sub(paid.time_us));
        self.pay(paid);
        paid
    }

    fn pay(&mut self, paid: Sums) {
        self.offset.calls = self.offset.calls.saturating_add(paid.calls);
        self.offset.time_us = self.offset.time_us.saturating_add(paid.time_us);
    }
}

impl fmt::Debug for HeavyHitters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeavyHitters")
            .field("entries", &self.table.used())
            .field("total", &self.total)
            .field("offset", &self.offset)
            .finish()
    }
}

impl Interval {
    fn exactly(value: u64) -> Interval {
        Interval { lower: value, upper: value }
    }

    #[inline]
    fn add(&mut self, more: Interval) {
        self.lower = self.lower.saturating_add(more.lower);
        self.upper = self.upper.saturating_add(more.upper);
    }

    fn scale(&mut self, factor: u64) {
        self.lower = scaled(self.lower, factor);
        self.upper = scaled_up(self.upper, factor);
    }
}

/// In units of 2^-32.
fn factor(keep: f64) -> u64 {
    (keep.clamp(0.0, 1.0) * (1u64 << 32) as f64) as u64
}

fn scaled(value: u64, factor: u64) -> u64 {
    ((u128::from(value) * u128::from(factor)) >> 32) as u64
}

fn scaled_up(value: u64, factor: u64) -> u64 {
    (u128::from(value) * u128::from(factor)).div_ceil(1 << 32) as u64
}
