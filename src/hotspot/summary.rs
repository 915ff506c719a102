//! From the counts of the newest windows to a report.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::counsel::counsel;
use super::curiosity::Name;
use super::heat::{self, HeatRules, KeyHeat, KeyRules, KeyShares, SpreadHeat, Weighed};
use super::layout::{Layout, MapLayout};
use super::load::{Dimension, Load};
use super::report::{Bounds, Heat, KeyReport, MapReport, PartReport, Report, ShardReport, Skew, TableReport};
use super::window::{MapCounts, Window};
use crate::base::{Access, ShardId};
use crate::shard::KeyValue;
use crate::sketch::{
    self, Estimate, HeavyEntry, HeavyHitters, HeavyKey, Interval, KeyPlace, SplitFinder, Weight,
};

/// Of each kind that a report lists.
const LISTED_MAX: usize = 100;
const TOPS: [usize; 3] = [1, 10, 100];

/// A window that has ended.
#[derive(Debug)]
pub(super) struct Recent {
    /// In seconds of Unix time.
    pub begin_s: u64,
    pub end_s: u64,
    pub window: Arc<Window>,
}

/// What is hot in a database, from window to window.
#[derive(Debug)]
pub(super) struct Heats {
    shards: SpreadHeat,
    maps: Vec<MapHeats>,
}

#[derive(Debug)]
struct MapHeats {
    /// By run.
    parts: SpreadHeat,
    /// By hash.
    keys: KeyHeat<u64>,
}

impl Heats {
    pub fn new(layout: &Layout) -> Heats {
        let of_map = |it: &MapLayout| {
            let shards: BTreeSet<u16> = it.owners.iter().map(|it| it.0).collect();
            MapHeats {
                parts: SpreadHeat::new(HeatRules::PARTS),
                keys: KeyHeat::new(KeyRules::of_shards(shards.len())),
            }
        };
        Heats { shards: SpreadHeat::new(HeatRules::SHARDS), maps: layout.maps.iter().map(of_map).collect() }
    }

    pub fn hot_shards(&self, count: usize) -> Vec<ShardId> {
        let is_hot = |it: &usize| self.shards.heat(*it).0 > Heat::Cool;
        (0..count).filter(is_hot).map(|it| ShardId(it as u16)).collect()
    }

    pub fn key(&self, map: usize, hash: u64) -> Heat {
        self.maps.get(map).map_or(Heat::Cool, |it| it.keys.heat(&hash).0)
    }

    /// By calls: the time of a few statements says more of the server than of the load.
    /// A shard that owns nothing and has no load is room, and no part of the mean.
    pub fn observe(&mut self, recent: &Recent, owners: &[bool]) {
        let window = heat::Window { from_s: recent.begin_s, to_s: recent.end_s };
        let weighed = |calls: u64| Weighed { load: calls, calls };
        let shards: Vec<Weighed> = recent.window.shards.iter().map(|it| weighed(it.calls())).collect();
        let counts = |(it, owns): (&Weighed, &bool)| *owns || it.calls > 0;
        let counted = shards.iter().zip(owners).filter(|it| counts(*it)).count();
        self.shards.observe_among(window, &shards, counted);
        for (index, (map, counts)) in self.maps.iter_mut().zip(&recent.window.maps).enumerate() {
            let loads: Vec<Weighed> = counts.loads().map(|it| weighed(it.0.calls + it.1.calls)).collect();
            map.parts.observe(window, &loads);
            let keys = Keys::of(index, &recent.window);
            map.keys.observe(window, keys.heaviest(LISTED_MAX), |it| keys.shares(*it));
        }
    }
}

pub(super) fn summarise(
    layout: &Layout,
    recent: &VecDeque<Recent>,
    names: &HashMap<(usize, u64), Name>,
    heats: &Heats,
    at_s: u64,
) -> Report {
    let mut windows = recent.iter();
    let Some(first) = windows.next() else {
        return Report {
            maps: layout.maps.iter().map(unused).collect(),
            shards: idle(layout),
            ..Report::default()
        };
    };
    let mut span = Window::clone(&first.window);
    windows.for_each(|it| span.merge(&it.window));
    let shards = layout.shards.iter().zip(&span.shards).enumerate().map(|(index, (shard, of))| ShardReport {
        shard: shard.clone(),
        primary_reads: of.primary_reads,
        primary_writes: of.primary_writes,
        replica_reads: of.replica_reads,
        scattered_calls: of.scattered,
        heat: heats.shards.heat(index).0,
        hot_since_s: heats.shards.heat(index).1,
    });
    let maps = layout.maps.iter().zip(&span.maps).enumerate();
    let maps: Vec<MapReport> =
        maps.map(|(index, (of, counts))| map(index, of, counts, &span, names, heats)).collect();
    Report {
        at_s,
        span_s: u32::try_from(at_s.saturating_sub(first.begin_s)).unwrap_or(u32::MAX),
        shards: shards.collect(),
        tables: tables(&span),
        advice: counsel(layout, recent, &span, names, heats, &maps),
        maps,
    }
}

fn idle(layout: &Layout) -> Vec<ShardReport> {
    layout.shards.iter().map(|it| ShardReport { shard: it.clone(), ..ShardReport::default() }).collect()
}

fn unused(of: &MapLayout) -> MapReport {
    MapReport { map: of.name.clone(), part_name: of.part_name, parts: of.parts, ..MapReport::default() }
}

fn tables(span: &Window) -> Vec<TableReport> {
    let report = |it: &super::window::TableCounts| TableReport {
        table: it.name.clone(),
        reads: it.reads,
        writes: it.writes,
    };
    let mut tables: Vec<TableReport> = span.tables.values().map(report).collect();
    let time = |it: &TableReport| it.reads.time_us + it.writes.time_us;
    tables.sort_by(|a, b| time(b).cmp(&time(a)).then_with(|| a.table.cmp(&b.table)));
    tables.truncate(LISTED_MAX);
    tables
}

fn map(
    index: usize,
    of: &MapLayout,
    counts: &MapCounts,
    span: &Window,
    names: &HashMap<(usize, u64), Name>,
    heats: &Heats,
) -> MapReport {
    let (reads, writes) = counts.total();
    let keys = Keys::of(index, span);
    let heat = heats.maps.get(index);
    let keys_listed = keys.listed(names, heat);
    let hot_parts = parts(of, counts, &keys.total, heat);
    let heats = keys_listed.iter().map(|it| it.heat).chain(hot_parts.iter().map(|it| it.heat));
    let hottest = heats.max().unwrap_or_default();
    let statements = counts.statements.max(1) as f64;
    MapReport {
        map: of.name.clone(),
        part_name: of.part_name,
        parts: of.parts,
        reads,
        writes,
        skews: Dimension::ALL.map(|it| skew(&by_shard(of, counts, it))),
        scatter_ratio: counts.scattered as f64 / statements,
        distinct_keys: counts.distinct_keys(),
        direction: finder(index, None, span).direction().filter(|_| of.is_range),
        top_shares: [keys.tops(Weight::Calls), keys.tops(Weight::Time)],
        keys: keys_listed,
        hot_parts,
        heat: hottest,
    }
}

/// Of the samples of a map's keys, or of those of one part, in the order in which statements named them.
pub(super) fn finder(map: usize, part: Option<u32>, span: &Window) -> SplitFinder<KeyValue> {
    let mut finder = SplitFinder::default();
    let of =
        span.samples.iter().filter(|it| usize::from(it.map) == map && part.is_none_or(|of| it.part == of));
    for (number, sample) in (0u64..).zip(of) {
        finder.record(&sample.value, &sample.value, xxh3_64(&number.to_le_bytes()));
    }
    finder
}

/// Over the shards that own some part.
fn by_shard(of: &MapLayout, counts: &MapCounts, dimension: Dimension) -> Vec<u64> {
    let count = of.owners.iter().map(|it| usize::from(it.0) + 1).max().unwrap_or(0);
    let mut loads: Vec<Option<u64>> = vec![None; count];
    for (owner, (reads, writes)) in of.owners.iter().zip(counts.loads()) {
        *loads[usize::from(owner.0)].get_or_insert(0) += dimension.of(&reads) + dimension.of(&writes);
    }
    loads.into_iter().flatten().collect()
}

fn skew(loads: &[u64]) -> Skew {
    Skew {
        max_over_mean: sketch::max_over_mean(loads),
        variation: sketch::coefficient_of_variation(loads),
        gini: sketch::gini(loads),
    }
}

fn parts(of: &MapLayout, counts: &MapCounts, total: &Load, heat: Option<&MapHeats>) -> Vec<PartReport> {
    let calls = |it: &(usize, (Load, Load))| it.1.0.calls + it.1.1.calls;
    let mut loaded: Vec<_> = counts.loads().enumerate().filter(|it| calls(it) > 0).collect();
    keep_first(&mut loaded, LISTED_MAX, |a, b| calls(b).cmp(&calls(a)).then(a.0.cmp(&b.0)));
    let report = |it: (usize, (Load, Load))| {
        let (run, (reads, writes)) = it;
        let part = of.first_part(run);
        PartReport {
            part,
            name: of.names[run].clone(),
            shard: of.owners[run],
            reads,
            writes,
            calls_share: share(calls(&it), total.calls),
            distinct_keys: counts.distinct_keys_of(part),
            heat: heat.map_or(Heat::Cool, |it| it.parts.heat(run).0),
        }
    };
    loaded.into_iter().map(report).collect()
}

/// The first `count` of what would stand in that order, in it: of some thousand, a hundred alone are sorted.
fn keep_first<T>(all: &mut Vec<T>, count: usize, order: impl Fn(&T, &T) -> Ordering) {
    if count < all.len() {
        all.select_nth_unstable_by(count, &order);
        all.truncate(count);
    }
    all.sort_unstable_by(order);
}

fn share(part: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { (part as f64 / total as f64).min(1.0) }
}

fn within(mut it: Estimate, total: &Load) -> Estimate {
    let limit = |it: &mut Interval, total: u64| it.upper = it.upper.min(total).max(it.lower);
    limit(&mut it.calls, total.calls);
    limit(&mut it.time_us, total.time_us);
    it
}

fn bounds(it: Interval) -> Bounds {
    Bounds { lower: it.lower as f64, upper: it.upper as f64 }
}

/// The heavy keys of one map. Its total is exact, which the sketch's is not.
pub(super) struct Keys<'a> {
    index: usize,
    heavy: &'a HeavyHitters,
    reads: Load,
    writes: Load,
    /// Of both.
    total: Load,
    /// Hashes of keys that have an entry, each once, with the estimate of reads and writes together.
    entries: Vec<(u64, Estimate)>,
}

impl<'a> Keys<'a> {
    /// Of one map in a window.
    pub fn of(index: usize, window: &'a Window) -> Keys<'a> {
        let (reads, writes) = window.maps[index].total();
        let mut total = reads;
        total += writes;
        let mut keys = Keys { index, heavy: &window.heavy, reads, writes, total, entries: Vec::new() };
        let own = window.heavy.entries().filter(|it| usize::from(it.key.map) == index);
        let of_entry = |HeavyEntry { key, estimate, .. }: HeavyEntry| match key.access {
            Access::Read => {
                let writes = keys.estimate(key.hash, Access::Write);
                Some((key.hash, keys.sum(within(estimate, &reads), writes)))
            }
            Access::Write => {
                let read = keys.estimate(key.hash, Access::Read);
                // What has an entry as read is there by that.
                let has_entry = read.calls.lower | read.time_us.lower > 0;
                (!has_entry).then(|| (key.hash, keys.sum(read, within(estimate, &writes))))
            }
        };
        keys.entries = own.filter_map(of_entry).collect();
        keys
    }

    /// Those that have an entry, the hottest first.
    pub fn heaviest(&self, count: usize) -> Vec<u64> {
        let share_of = |it: &Estimate| {
            share(it.calls.lower, self.total.calls).max(share(it.time_us.lower, self.total.time_us))
        };
        let mut keys: Vec<(u64, f64)> = self.entries.iter().map(|(hash, it)| (*hash, share_of(it))).collect();
        keep_first(&mut keys, count, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        keys.into_iter().map(|it| it.0).collect()
    }

    /// Where it was last.
    pub fn place(&self, hash: u64) -> Option<KeyPlace> {
        [Access::Read, Access::Write].into_iter().find_map(|it| self.heavy.place(self.key(hash, it)))
    }

    pub fn shares(&self, hash: u64) -> KeyShares {
        let both = self.estimates(hash)[2];
        KeyShares {
            calls: both.calls.lower,
            calls_share: self.calls_share(both.calls),
            time_share: self.time_share(both.time_us),
        }
    }

    fn calls_share(&self, it: Interval) -> Bounds {
        Bounds { lower: share(it.lower, self.total.calls), upper: share(it.upper, self.total.calls) }
    }

    fn time_share(&self, it: Interval) -> Bounds {
        Bounds { lower: share(it.lower, self.total.time_us), upper: share(it.upper, self.total.time_us) }
    }

    fn key(&self, hash: u64, access: Access) -> HeavyKey {
        HeavyKey { map: self.index as u16, access, hash }
    }

    /// A key has no more than its map has: where that has none, this is exact and needs no look.
    fn estimate(&self, hash: u64, access: Access) -> Estimate {
        let of = if access == Access::Read { &self.reads } else { &self.writes };
        if of.calls == 0 {
            return Estimate::default();
        }
        within(self.heavy.get(self.key(hash, access)), of)
    }

    fn sum(&self, reads: Estimate, writes: Estimate) -> Estimate {
        let sum = |a: Interval, b: Interval| Interval {
            lower: a.lower.saturating_add(b.lower),
            upper: a.upper.saturating_add(b.upper),
        };
        let both =
            Estimate { calls: sum(reads.calls, writes.calls), time_us: sum(reads.time_us, writes.time_us) };
        within(both, &self.total)
    }

    /// Reads, writes, and both together, of which none has more than the map has.
    pub fn estimates(&self, hash: u64) -> [Estimate; 3] {
        let [reads, writes] = [Access::Read, Access::Write].map(|it| self.estimate(hash, it));
        [reads, writes, self.sum(reads, writes)]
    }

    /// Shares of the hottest keys together.
    fn tops(&self, by: Weight) -> [Bounds; 3] {
        let (of, total): (fn(&Estimate) -> Interval, u64) = match by {
            Weight::Calls => (|it| it.calls, self.total.calls),
            Weight::Time => (|it| it.time_us, self.total.time_us),
        };
        let intervals: Vec<Interval> = self.entries.iter().map(|it| of(&it.1)).collect();
        let (calls, time_us) = self.heavy.offset();
        let unseen = if by == Weight::Calls { calls } else { time_us };
        // As a read and as a write.
        let kinds = [self.reads, self.writes].iter().filter(|it| it.calls > 0).count();
        let unseen = unseen.saturating_mul(kinds as u64);
        let mut lower: Vec<u64> = intervals.iter().map(|it| it.lower).collect();
        let mut upper: Vec<u64> = intervals.iter().map(|it| it.upper).collect();
        upper.extend(std::iter::repeat_n(unseen, LISTED_MAX));
        for it in [&mut lower, &mut upper] {
            keep_first(it, LISTED_MAX, |a, b| b.cmp(a));
        }
        let sum = |of: &[u64], count: usize| of.iter().take(count).fold(0u64, |a, b| a.saturating_add(*b));
        TOPS.map(|count| Bounds {
            lower: share(sum(&lower, count), total),
            upper: share(sum(&upper, count), total),
        })
    }

    /// The hottest by calls or by time, by the larger of their shares.
    fn listed(&self, names: &HashMap<(usize, u64), Name>, heat: Option<&MapHeats>) -> Vec<KeyReport> {
        let report = |(rank, hash): (u16, u64)| {
            let [reads, writes, both] = self.estimates(hash);
            let place = self.place(hash)?;
            let name = names.get(&(self.index, hash));
            let (heat, hot_since_s) = heat.map_or((Heat::Cool, None), |it| it.keys.heat(&hash));
            Some(KeyReport {
                rank,
                hash,
                text: name.map(|it| it.text.clone()),
                table: name.and_then(|it| it.table.clone()),
                shard: place.shard,
                part: place.part,
                calls: bounds(both.calls),
                reads: bounds(reads.calls),
                writes: bounds(writes.calls),
                time_us: bounds(both.time_us),
                calls_share: self.calls_share(both.calls),
                time_share: self.time_share(both.time_us),
                heat,
                hot_since_s,
            })
        };
        (1..).zip(self.heaviest(LISTED_MAX)).filter_map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_are_those_that_a_sort_puts_there(all in prop::collection::vec(0..20u8, 0..40), count in 0..50usize) {
            let mut numbered: Vec<(u8, usize)> = all.into_iter().zip(0..).collect();
            let mut sorted = numbered.clone();
            sorted.sort();
            sorted.truncate(count);
            keep_first(&mut numbered, count, Ord::cmp);
            prop_assert_eq!(numbered, sorted);
        }
    }
}
