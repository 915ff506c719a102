//! Open addressing, in groups of slots, for entries that only leave all at once.

use super::{HeavyKey, KeyPlace, Sums};
use crate::base::{Access, ShardId};

/// 32 bytes, two to a cache line and none on two of them. Nothing is left of it where both weights are 0.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Entry {
    hash: u64,
    pub weights: Sums,
    pub part: u32,
    pub shard: ShardId,
    /// The map, and in the lowest bit whether it is a write.
    tag: u16,
}

const NONE: Entry =
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
    fn is_empty(&self) -> bool {
        self.weights.calls | self.weights.time_us == 0
    }

    #[inline]
    fn is_of(&self, hash: u64, tag: u16) -> bool {
        self.hash == hash && self.tag == tag
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

/// Slots whose marks are looked at together, as the bytes of a word.
const GROUP: usize = 8;
const LOWEST: u64 = 0x0101_0101_0101_0101;
/// What `Marks::having` takes for a mark is at most that mark with its lowest bit turned: never the 0 of a free slot, where an
/// entry that is gone may still be read.
const MARK_MIN: u8 = 2;

/// The marks of a group's slots, the first in the lowest byte: 0 where a slot is free, else some bits of its entry's hash.
/// All of them are a few kilobytes, which stay in the caches where entries do not: a search fetches the entry that it is
/// for, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks(u64);

impl Marks {
    /// The slots that have this mark, as the highest bit of each one's byte, and perhaps slots above the lowest of them whose mark
    /// differs in the lowest bit alone. Of 0, exactly the lowest is right.
    #[inline]
    fn having(self, mark: u8) -> u64 {
        let differ = self.0 ^ (LOWEST * u64::from(mark));
        differ.wrapping_sub(LOWEST) & !differ & (LOWEST << 7)
    }

    #[inline]
    fn first_free(self) -> Option<usize> {
        match self.having(0) {
            0 => None,
            it => Some(it.trailing_zeros() as usize / 8),
        }
    }

    /// Of a free slot.
    #[inline]
    fn put(&mut self, slot: usize, mark: u8) {
        self.0 |= u64::from(mark) << (slot * 8);
    }

    /// The slot is free from then on; the mark that it had.
    #[inline]
    fn take(&mut self, slot: usize) -> u8 {
        let mark = (self.0 >> (slot * 8)) as u8;
        self.0 ^= u64::from(mark) << (slot * 8);
        mark
    }

    /// Those slots are free from then on: the lowest bit of each one's byte is set in `slots`. How many of them were not.
    #[inline]
    fn clear(&mut self, slots: u64) -> usize {
        const LOW: u64 = LOWEST * 0x7F;
        let cleared = self.0 & (slots * 0xFF);
        self.0 ^= cleared;
        let used = (((cleared & LOW) + LOW) | cleared) >> 7 & LOWEST;
        (used.wrapping_mul(LOWEST) >> 56) as usize
    }

    /// Slots that are not free.
    #[inline]
    fn used(self) -> impl Iterator<Item = usize> {
        (0..GROUP).filter(move |it| (self.0 >> (it * 8)) as u8 != 0)
    }
}

/// Entries stand in the first group from their home on that had a free slot; a search ends at a group that has one.
#[derive(Clone)]
pub struct Table {
    /// A power of two of groups.
    marks: Box<[Marks]>,
    /// A quarter of them free but for the moment before a purge.
    slots: Box<[Entry]>,
    used: usize,
    /// Odd, so that multiplying by it spreads keys as a universal hash does (Dietzfelbinger et al. 1997).
    multiplier: u64,
    shift: u32,
    /// How many entries have so much, for quantiles: of calls, of time.
    histograms: Box<[[u32; BUCKETS]; 2]>,
}

/// Where the search for an entry begins: as long as the table is there, whatever is added.
///
/// The high half of its hash times the multiplier, of which the highest bits choose the group and the lowest are the mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home(u32);

#[cfg(test)]
impl Home {
    pub fn of_word(word: u32) -> Home {
        Home(word)
    }
}

impl Home {
    /// Its highest bits are the best mixed.
    #[inline]
    pub fn word(self) -> u32 {
        self.0
    }

    #[inline]
    fn mark(self) -> u8 {
        (self.0 as u8).max(MARK_MIN)
    }
}

/// Where a search ended.
enum Found {
    Entry(usize),
    Free { group: usize, slot: usize },
}

impl Table {
    /// `slots` is a power of two, and more than a group.
    pub fn new(slots: usize, seed: u64) -> Table {
        let groups = slots / GROUP;
        Table {
            marks: vec![Marks::default(); groups].into_boxed_slice(),
            slots: vec![NONE; slots].into_boxed_slice(),
            used: 0,
            multiplier: seed | 1,
            shift: u32::BITS - groups.trailing_zeros(),
            histograms: Box::new([[0; BUCKETS]; 2]),
        }
    }

    pub fn used(&self) -> usize {
        self.used
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let groups = self.marks.iter().zip(self.slots.chunks_exact(GROUP));
        groups.flat_map(|(marks, slots)| marks.used().map(move |it| &slots[it]))
    }

    /// Far from the order of their homes: taken in that order into a smaller table, they would fill one end of it.
    pub fn scattered(&self) -> impl Iterator<Item = &Entry> {
        let mask = self.marks.len() - 1;
        // The golden ratio's part of the groups, odd, so that every group is met once.
        let stride = (self.marks.len() * 158 / 256) | 1;
        let order = (0..self.marks.len()).map(move |it| (it * stride) & mask);
        order.flat_map(move |group| self.marks[group].used().map(move |it| &self.slots[group * GROUP + it]))
    }

    pub fn get(&self, key: HeavyKey) -> Option<&Entry> {
        match self.find(key.hash, tag(key), self.home(key)) {
            Found::Entry(at) => Some(&self.slots[at]),
            Found::Free { .. } => None,
        }
    }

    /// Reads the slot where a search most likely ends, without a branch that depends on what is there; what is not wanted is
    /// read from the first group.
    #[inline]
    pub fn fetch_slot(&self, home: Home, is_wanted: bool) -> u64 {
        let group = self.group(home) * usize::from(is_wanted);
        let marks = self.marks[group];
        let having = marks.having(home.mark());
        let free = marks.having(0) & u64::from(having == 0).wrapping_neg();
        let slot = (having | free | 1 << 63).trailing_zeros() as usize / 8;
        self.slots[group * GROUP + slot].weights.calls
    }

    #[inline]
    fn find(&self, hash: u64, tag: u16, home: Home) -> Found {
        let mut group = self.group(home);
        loop {
            let marks = self.marks[group];
            let mut candidates = marks.having(home.mark());
            while candidates != 0 {
                let at = group * GROUP + candidates.trailing_zeros() as usize / 8;
                if self.slots[at].is_of(hash, tag) {
                    return Found::Entry(at);
                }
                candidates &= candidates - 1;
            }
            if let Some(slot) = marks.first_free() {
                return Found::Free { group, slot };
            }
            group = self.next(group);
        }
    }

    /// Whether there are now more entries than there should be.
    #[inline]
    pub fn add(&mut self, entry: Entry, home: Home) -> bool {
        if entry.is_empty() {
            return false;
        }
        match self.find(entry.hash, entry.tag, home) {
            Found::Entry(at) => {
                let slot = &mut self.slots[at];
                slot.weights.calls = slot.weights.calls.saturating_add(entry.weights.calls);
                slot.weights.time_us = slot.weights.time_us.saturating_add(entry.weights.time_us);
                (slot.shard, slot.part) = (entry.shard, entry.part);
                false
            }
            Found::Free { group, slot } => {
                self.marks[group].put(slot, home.mark());
                self.slots[group * GROUP + slot] = entry;
                self.used += 1;
                self.used > self.slots.len() / 4 * 3
            }
        }
    }

    /// Changes all weights; what has none left is gone, and others move towards their homes.
    pub fn retain(&mut self, calls: impl Fn(u64) -> u64, time_us: impl Fn(u64) -> u64) {
        // Behind a group with a free slot every entry is in its home. From there on, what stands between an entry and its
        // home has been put there before and stays.
        let free = self.marks.iter().position(|it| it.first_free().is_some());
        let (mut group, mut has_guests) = (free.unwrap_or(0), free.is_none());
        for _ in 0..self.marks.len() {
            group = self.next(group);
            let was_full = self.marks[group].first_free().is_none();
            // All slots alike, without a branch: what is read and changed in a free one is of no one.
            let mut empty = 0;
            for (slot, entry) in self.slots[group * GROUP..][..GROUP].iter_mut().enumerate() {
                entry.weights.calls = calls(entry.weights.calls);
                entry.weights.time_us = time_us(entry.weights.time_us);
                empty |= u64::from(entry.is_empty()) << (slot * 8);
            }
            self.used -= self.marks[group].clear(empty);
            if has_guests {
                self.bring_home(group);
            }
            has_guests = was_full;
        }
    }

    /// Each entry into the first free slot from its home on, which is its own at the latest.
    fn bring_home(&mut self, from: usize) {
        for slot in self.marks[from].used() {
            let entry = self.slots[from * GROUP + slot];
            let mut group = self.group(self.home_of(&entry));
            if group == from {
                continue;
            }
            let mark = self.marks[from].take(slot);
            let slot = loop {
                match self.marks[group].first_free() {
                    Some(slot) => break slot,
                    None => group = self.next(group),
                }
            };
            self.marks[group].put(slot, mark);
            self.slots[group * GROUP + slot] = entry;
        }
    }

    /// What 5/8 of the entries have at most, of each weight on its own: up to 1/32 more than the quantile.
    pub fn quantiles(&mut self) -> Sums {
        let [calls, time_us] = &mut *self.histograms;
        calls.fill(0);
        time_us.fill(0);
        for (marks, slots) in self.marks.iter().zip(self.slots.chunks_exact(GROUP)) {
            for it in marks.used() {
                let Sums { calls: count, time_us: time } = slots[it].weights;
                calls[bucket(count)] += 1;
                time_us[bucket(time)] += 1;
            }
        }
        let wanted = (self.used * 5).div_ceil(8);
        Sums { calls: quantile(calls, wanted), time_us: quantile(time_us, wanted) }
    }

    #[cfg(test)]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Groups from an entry's home to its own, at most.
    #[cfg(test)]
    pub fn steps_max(&self) -> usize {
        let steps = |group: usize, it: &Entry| {
            group.wrapping_sub(self.group(self.home_of(it))) & (self.marks.len() - 1)
        };
        let of_group = |group: usize| self.marks[group].used().map(move |it| (group, it));
        let used = (0..self.marks.len()).flat_map(of_group);
        used.map(|(group, it)| steps(group, &self.slots[group * GROUP + it])).max().unwrap_or(0)
    }

    pub fn clear(&mut self) {
        self.marks.fill(Marks::default());
        self.used = 0;
    }

    #[inline]
    pub fn home(&self, key: HeavyKey) -> Home {
        self.home_by(key.hash, tag(key))
    }

    #[inline]
    pub fn home_of(&self, entry: &Entry) -> Home {
        self.home_by(entry.hash, entry.tag)
    }

    #[inline]
    fn home_by(&self, hash: u64, tag: u16) -> Home {
        // Tags are told apart in the middle of the word, where they reach the bits that are kept.
        let word = (hash ^ u64::from(tag) << 24).wrapping_mul(self.multiplier);
        Home((word >> u32::BITS) as u32)
    }

    #[inline]
    fn group(&self, home: Home) -> usize {
        (home.0 >> self.shift) as usize
    }

    #[inline]
    fn next(&self, group: usize) -> usize {
        (group + 1) & (self.marks.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_where_they_are() {
        let mut marks = Marks::default();
        assert_eq!((marks.first_free(), marks.having(7)), (Some(0), 0));
        for (slot, mark) in [7, 3, 255, 7, 128, 127, 2, 8].into_iter().enumerate() {
            assert_eq!(marks.first_free(), Some(slot));
            marks.put(slot, mark);
        }
        assert_eq!(marks.first_free(), None);
        let lowest = |marks: Marks, mark| marks.having(mark).trailing_zeros() as usize / 8;
        assert_eq!([7, 3, 255, 128, 127, 2, 8].map(|it| lowest(marks, it)), [0, 1, 2, 4, 5, 6, 7]);
        assert!(marks.having(7) & 0x80 << 24 != 0 && marks.having(9) == 0);
        assert_eq!((marks.take(4), marks.first_free()), (128, Some(4)));
        assert_eq!((marks.take(0), marks.first_free(), lowest(marks, 7)), (7, Some(0), 3));
        assert!(marks.used().eq([1, 2, 3, 5, 6, 7]));
    }

    #[test]
    fn slots_are_freed_together_and_those_that_were_not_free_are_counted() {
        for used in 0..=255u64 {
            for freed in 0..=255u64 {
                let all = |slots: u64| (0..GROUP).filter(move |it| slots >> it & 1 == 1);
                let mut marks = Marks::default();
                all(used).for_each(|it| marks.put(it, [2, 128, 255, 127][it % 4]));
                let count = marks.clear(all(freed).map(|it| 1 << (it * 8)).sum());
                assert_eq!(count, (used & freed).count_ones() as usize, "{used:x} {freed:x}");
                assert!(marks.used().eq(all(used & !freed)), "{used:x} {freed:x}");
            }
        }
    }

    #[test]
    fn no_search_looks_at_a_free_slot() {
        for mark in MARK_MIN..=255 {
            for above in [0, mark - 1, mark ^ 1, mark, 255] {
                for slot in 0..GROUP - 1 {
                    let mut marks = Marks::default();
                    marks.put(slot, mark);
                    marks.put(slot + 1, above);
                    let used = marks.used().fold(0, |all, it| all | 0x80u64 << (it * 8));
                    assert_eq!(marks.having(mark) & !used, 0, "{mark} {above} {slot}");
                }
            }
        }
    }

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
