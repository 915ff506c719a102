//! From the counts of the newest windows to what `advise` asks.

use std::collections::{HashMap, VecDeque};

use super::advice::{Advice, AdviceKind};
use super::advise::{HeavyLoad, Situation, advise};
use super::curiosity::Name;
use super::layout::{Layout, MapLayout};
use super::load::Dimension;
use super::report::MapReport;
use super::summary::{Heats, Keys, Recent, finder};
use super::window::Window;
use crate::base::ShardId;

/// Keys that advice may be about.
const KEYS_MAX: usize = 10;
/// Ranges that are looked at for a place to split them.
const RANGES_MAX: usize = 8;
/// Windows of which advice says in how many it held.
const WINDOWS_MAX: usize = 5;

type Names = HashMap<(usize, u64), Name>;

/// What could be done about each map of a database, by calls. What a database of one shard tells its rows apart by
/// has no placement to advise on.
pub(super) fn counsel(
    layout: &Layout,
    recent: &VecDeque<Recent>,
    span: &Window,
    names: &Names,
    heats: &Heats,
    maps: &[MapReport],
) -> Vec<Advice> {
    let newest = || recent.iter().rev().take(WINDOWS_MAX);
    let mut all = Vec::new();
    for (index, of) in layout.maps.iter().enumerate() {
        let (Some(map), Some(report)) = (layout.router_map(index), maps.get(index)) else { continue };
        let of_window = |window: &Window, windows: (u8, u8)| {
            let counted = Counted::of(index, of, layout, window, names, heats);
            advise(&Situation {
                database: &layout.database,
                map,
                shards: &layout.shards,
                tables: &of.tables,
                dimension: Dimension::Calls,
                part_loads: &counted.part_loads,
                other_loads: &counted.other_loads,
                hot_shards: &counted.hot_shards,
                keys: &counted.keys,
                splits: &counted.splits(index, of, window),
                scatter_share: report.scatter_ratio,
                direction: report.direction,
                write_share: counted.write_share,
                windows,
            })
        };
        let kinds: Vec<Vec<AdviceKind>> =
            newest().map(|it| of_window(&it.window, (0, 0)).iter().map(|it| it.kind).collect()).collect();
        let mut advice = of_window(span, (0, kinds.len() as u8));
        for it in &mut advice {
            it.windows.0 = kinds.iter().filter(|kinds| kinds.contains(&it.kind)).count() as u8;
        }
        all.append(&mut advice);
    }
    all.sort_by_key(|it| (it.kind == AdviceKind::None, std::cmp::Reverse(it.heat)));
    all
}

struct Counted {
    part_loads: Vec<u64>,
    other_loads: Vec<u64>,
    hot_shards: Vec<ShardId>,
    keys: Vec<HeavyLoad>,
    write_share: f64,
}

impl Counted {
    fn of(
        index: usize,
        of: &MapLayout,
        layout: &Layout,
        window: &Window,
        names: &Names,
        heats: &Heats,
    ) -> Counted {
        let mut part_loads = vec![0; of.parts as usize];
        let mut on_shards = vec![0u64; layout.shards.len()];
        let (mut calls, mut writes) = (0, 0);
        for (run, (reads, written)) in window.maps[index].loads().enumerate() {
            let load = reads.calls + written.calls;
            calls += load;
            writes += written.calls;
            // Parts of one run are not told apart.
            let parts = of.parts_of(run);
            let count = parts.len().max(1) as u64;
            for (at, part) in parts.enumerate() {
                let rest = u64::from((at as u64) < load % count);
                if let Some(it) = part_loads.get_mut(part as usize) {
                    *it = load / count + rest;
                }
            }
            if let Some(it) = of.owners.get(run).and_then(|it| on_shards.get_mut(usize::from(it.0))) {
                *it += load;
            }
        }
        let other = |(all, own): (&super::window::ShardCounts, &u64)| all.calls().saturating_sub(*own);
        let keys = Keys::of(index, window);
        Counted {
            other_loads: window.shards.iter().zip(&on_shards).map(other).collect(),
            part_loads,
            hot_shards: heats.hot_shards(layout.shards.len()),
            keys: heavy_loads(index, &keys, names, heats),
            write_share: if calls == 0 { 0.0 } else { writes as f64 / calls as f64 },
        }
    }

    /// Of the busiest ranges.
    fn splits(&self, index: usize, of: &MapLayout, window: &Window) -> Splits {
        if !of.is_range {
            return Vec::new();
        }
        let mut ranges: Vec<u32> = (0..of.parts).collect();
        ranges.sort_by_key(|it| std::cmp::Reverse(self.part_loads.get(*it as usize).copied()));
        ranges.truncate(RANGES_MAX);
        ranges.into_iter().map(|it| (it, finder(index, Some(it), window).split_point())).collect()
    }
}

type Splits = Vec<(u32, Result<crate::sketch::SplitPoint<crate::shard::KeyValue>, crate::sketch::NoSplit>)>;

fn heavy_loads(index: usize, keys: &Keys<'_>, names: &Names, heats: &Heats) -> Vec<HeavyLoad> {
    let load = |hash: u64| {
        let (place, [_, writes, both]) = (keys.place(hash)?, keys.estimates(hash));
        Some(HeavyLoad {
            hash,
            value: names.get(&(index, hash)).map(|it| it.value.clone()),
            part: place.part,
            shard: place.shard,
            load: both.calls,
            heat: heats.key(index, hash),
            write_share: writes.calls.lower as f64 / both.calls.lower.max(1) as f64,
        })
    };
    keys.heaviest(KEYS_MAX).into_iter().filter_map(load).collect()
}
