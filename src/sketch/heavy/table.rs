//! Open addressing with linear probing, for entries that only leave all at once.

use super::{HeavyKey, KeyPlace, Sums};
use crate::base::{Access, ShardId};

/// 32 bytes, two to a cache line. Free where both weights are 0.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    hash: u64,
    pub weights: Sums,
    pub part: u32,
    pub shard: ShardId,
    /// The map, and in the lowest bit whether it is a write.
    tag: u16,
}

const FREE: Entry =
    Entry { hash: 0, weights: Sums { calls: 0, time_us: 0 }, part: 0, shard: ShardId(0), tag: 0 };

impl Entry {
    #[inline]
    pub fn new(key: HeavyKey, place: KeyPlace, weights: Sums) -> Entry {
        Entry { hash: key.hash, weights, part: place.part, shard: place.shard, tag: tag(key) }
    }

    pub fn key(&self) -> HeavyKey {
        let access = if self.tag & 1 == 0 { Access::Read } else { Access::Write };
        HeavyKey { map: self.tag >> 1, access, hash: self.hash }
    }

    #[inline]
    fn is_free(&self) -> bool {
        self.weights.calls | self.weights.time_us == 0
    }
}

#[inline]
fn tag(key: HeavyKey) -> u16 {
    debug_assert!(key.map <= u16::MAX >> 1);
    key.map << 1 | u16::from(key.access == Access::Write)
}

/// Numbers below 64 have a bucket each, larger ones share those of their highest bit, 32 of them.
const BUCKETS: usize = 1920;

#[inline]
fn bucket(value: u64) -> usize {
    let shift = (value | 32).ilog2() - 5;
    ((shift as usize) << 5) + (value >> shift) as usize
}

/// The largest number in it.
fn bucket_end(bucket: usize) -> u64 {
    match (bucket >> 5).checked_sub(1) {
        None | Some(0) => bucket as u64,
        Some(shift) => ((bucket as u64 & 31 | 32) << shift) + ((1 << shift) - 1),
    }
}

fn quantile(histogram: &[u32; BUCKETS], wanted: usize) -> u64 {
    let mut seen = 0;
    let reaches = |it: &u32| {
        seen += *it as usize;
        seen >= wanted
    };
    histogram.iter().position(reaches).map_or(0, bucket_end)
}

#[derive(Clone)]
pub struct Table {
    /// A power of two, a quarter of them free but for the moment before a purge.
    slots: Box<[Entry]>,
    used: usize,
    /// Odd, so that multiplying by it spreads keys as a universal hash does (Dietzfelbinger et al. 1997).
    multiplier: u64,
    shift: u32,
    /// How many entries have so much, for quantiles: of calls, of time.
    histograms: Box<[[u32; BUCKETS]; 2]>,
}

impl Table {
    pub fn new(slots: usize, seed: u64) -> Table {
        Table {
            slots: vec![FREE; slots].into_boxed_slice(),
            used: 0,
            multiplier: seed | 1,
            shift: 64 - slots.trailing_zeros(),
            histograms: Box::new([[0; BUCKETS]; 2]),
        }
    }

    pub fn used(&self) -> usize {
        self.used
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter(|it| !it.is_free())
    }

    /// Far from the order of their homes: taken in that order into a smaller table, they would fill one end of it.
    pub fn scattered(&self) -> impl Iterator<Item = &Entry> {
        let mask = self.slots.len() - 1;
        // The golden ratio's part of the slots, odd, so that every slot is met once.
        let stride = (self.slots.len() * 158 / 256) | 1;
        (0..self.slots.len()).map(move |it| &self.slots[(it * stride) & mask]).filter(|it| !it.is_free())
    }

    pub fn get(&self, key: HeavyKey) -> Option<&Entry> {
        let tag = tag(key);
        let mut at = self.home(key.hash, tag);
        loop {
            let slot = &self.slots[at];
            if slot.is_free() {
                return None;
            }
            if slot.hash == key.hash && slot.tag == tag {
                return Some(slot);
            }
            at = self.next(at);
        }
    }

    /// Whether there are now more entries than there should be.
    #[inline]
    pub fn add(&mut self, entry: Entry) -> bool {
        if entry.is_free() {
            return false;
        }
        let mut at = self.home(entry.hash, entry.tag);
        loop {
            let slot = &mut self.slots[at];
            if slot.is_free() {
                *slot = entry;
                self.used += 1;
                return self.used > self.slots.len() / 4 * 3;
            }
            if slot.hash == entry.hash && slot.tag == entry.tag {
                slot.weights.calls = slot.weights.calls.saturating_add(entry.weights.calls);
                slot.weights.time_us = slot.weights.time_us.saturating_add(entry.weights.time_us);
                (slot.shard, slot.part) = (entry.shard, entry.part);
                return false;
            }
            at = self.next(at);
        }
    }

    /// Changes all weights; what has none left is gone. Entries move towards their homes on the way: from behind
    /// a free slot on, each is put into the first free slot from its home, which is its own at the latest, and
    /// what stands between the two has been put there before and stays.
    pub fn retain(&mut self, calls: impl Fn(u64) -> u64, time_us: impl Fn(u64) -> u64) {
        let start = self.slots.iter().position(Entry::is_free).unwrap_or(0);
        let mut from = start;
        for _ in 0..self.slots.len() {
            let mut entry = std::mem::replace(&mut self.slots[from], FREE);
            from = self.next(from);
            if entry.is_free() {
                continue;
            }
            entry.weights.calls = calls(entry.weights.calls);
            entry.weights.time_us = time_us(entry.weights.time_us);
            if entry.is_free() {
                self.used -= 1;
                continue;
            }
            let mut to = self.home(entry.hash, entry.tag);
            while !self.slots[to].is_free() {
                to = self.next(to);
            }
            self.slots[to] = entry;
        }
    }

    /// What 5/8 of the entries have at most, of each weight on its own: up to 1/32 more than the quantile.
    pub fn quantiles(&mut self) -> Sums {
        let [calls, time_us] = &mut *self.histograms;
        calls.fill(0);
        time_us.fill(0);
        let entries = self.slots.iter().filter(|it| !it.is_free());
        entries.for_each(|it| {
            calls[bucket(it.weights.calls)] += 1;
            time_us[bucket(it.weights.time_us)] += 1;
        });
        let wanted = (self.used * 5).div_ceil(8);
        Sums { calls: quantile(calls, wanted), time_us: quantile(time_us, wanted) }
    }

    #[cfg(test)]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// From an entry's home to where it stands, at most.
    #[cfg(test)]
    pub fn steps_max(&self) -> usize {
        let steps =
            |(at, it): (usize, &Entry)| at.wrapping_sub(self.home(it.hash, it.tag)) & (self.slots.len() - 1);
        let used = self.slots.iter().enumerate().filter(|(_, it)| !it.is_free());
        used.map(steps).max().unwrap_or(0)
    }

    pub fn clear(&mut self) {
        self.slots.fill(FREE);
        self.used = 0;
    }

    #[inline]
    fn home(&self, hash: u64, tag: u16) -> usize {
        // Tags are told apart in the middle of the word, where they reach the bits that are kept.
        let word = hash ^ u64::from(tag) << 24;
        (word.wrapping_mul(self.multiplier) >> self.shift) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_end_within_a_thirty_second_of_what_they_hold() {
        let edges = (0..64).map(|it| 1u64 << it);
        let near = edges
            .flat_map(|it| (0..70).flat_map(move |off| [it.saturating_sub(off), it.saturating_add(off)]));
        let mut values: Vec<u64> = near.chain(0..5_000).chain([u64::MAX]).collect();
        values.sort_unstable();
        for pair in values.windows(2) {
            assert!(bucket(pair[0]) <= bucket(pair[1]), "{pair:?}");
        }
        for value in values {
            let end = bucket_end(bucket(value));
            assert!(value <= end && end - value <= value / 32, "{value} {end}");
            assert!(bucket(end) == bucket(value) && bucket(value) < BUCKETS);
            assert!(end == u64::MAX || bucket(end + 1) == bucket(value) + 1, "{value} {end}");
        }
    }
}
