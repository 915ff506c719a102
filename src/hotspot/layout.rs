//! What counts are told apart by: the shards and maps of one version of a database's configuration.

use xxhash_rust::xxh3::xxh3_64;

use super::advise::KeyedTable;
use super::history::{self, LayoutPart, PartKind};
use crate::base::ShardId;
use crate::config::TableName;
use crate::route::{KeyRef, Router};
use crate::shard::{Form, Map};

/// Parts of a map are counted in runs, so that there are at most so many.
pub const RUNS_MAX: u32 = 4096;
/// Maps of at most so many parts have their distinct keys estimated for each.
const PARTS_TOLD_APART_MAX: u32 = 64;

#[derive(Clone, Debug, Default)]
pub struct Layout {
    pub database: String,
    pub shards: Vec<String>,
    pub maps: Vec<MapLayout>,
    /// Maps of the configuration. In a database of one shard, primary keys stand behind them as one map more.
    configured: usize,
}

#[derive(Clone, Debug)]
pub struct MapLayout {
    /// `None` of primary keys.
    map: Option<Map>,
    /// That it places.
    pub tables: Vec<KeyedTable>,
    pub name: String,
    pub part_name: &'static str,
    /// Pinned keys stand behind slots, ranges or entries.
    pub parts: u32,
    own_parts: u32,
    /// A run is `1 << shift` parts; each pinned key is one by itself.
    pub shift: u32,
    /// Of each run; a run of several parts is of the shard of its first.
    pub owners: Vec<ShardId>,
    /// Of each part, for the history.
    pub history: history::Layout,
    /// Names of the runs, without a pinned key's value.
    pub names: Vec<String>,
    /// Its keys are in order, so that it can be split.
    pub is_range: bool,
}

/// The map of what a database of one shard tells its rows apart by.
pub const PRIMARY_KEYS: &str = "primary_key";

impl Layout {
    /// Maps stand in the order of the configuration.
    pub fn of(database: &str, router: &Router) -> Layout {
        let shards: Vec<String> =
            (0..router.shard_count() as u16).map(|it| router.shard_name(ShardId(it)).to_owned()).collect();
        let maps = (0..).map_while(|it| Some((router.map(it)?, router.keyed_tables(it))));
        let names: Vec<u64> = shards.iter().map(|it| xxh3_64(it.as_bytes())).collect();
        let mut maps: Vec<MapLayout> = maps.map(|(map, tables)| MapLayout::of(map, tables, &names)).collect();
        let configured = maps.len();
        if shards.len() == 1 {
            maps.push(MapLayout::primary_keys(&names));
        }
        Layout { database: database.to_owned(), shards, maps, configured }
    }

    /// Where a key is counted: the map, and the hash by which its keys are told apart.
    #[inline]
    pub fn place(&self, key: &KeyRef) -> (usize, u64) {
        let map = usize::from(key.map);
        if map < self.configured {
            return (map, key.place.key_hash);
        }
        // Key 7 of one table has nothing to do with key 7 of another.
        (self.configured, key.place.key_hash.rotate_left(17) ^ key.table)
    }

    /// By shard, whether it owns a part of some map; all do where there is no map.
    pub fn owners(&self) -> Vec<bool> {
        let mut owners = vec![self.maps.is_empty(); self.shards.len()];
        for owner in self.maps.iter().flat_map(|it| &it.owners) {
            if let Some(it) = owners.get_mut(usize::from(owner.0)) {
                *it = true;
            }
        }
        owners
    }

    pub fn map(&self, index: usize) -> Option<&MapLayout> {
        self.maps.get(index)
    }

    /// As the configuration has it.
    pub fn router_map(&self, index: usize) -> Option<&Map> {
        self.maps.get(index)?.map.as_ref()
    }

    pub fn is_primary_keys(&self, map: usize) -> bool {
        map >= self.configured
    }
}

impl MapLayout {
    /// `shards` are hashes of their names.
    fn of(map: &Map, tables: Vec<(TableName, Vec<String>)>, shards: &[u64]) -> MapLayout {
        let table = |(table, columns): (TableName, Vec<String>)| KeyedTable {
            schema: table.schema,
            name: table.name,
            columns,
        };
        let parts = u32::try_from(map.parts()).unwrap_or(u32::MAX);
        let own_parts = (map.own_parts() as u32).min(parts);
        let mut shift = 0;
        while own_parts.saturating_sub(1) >> shift >= RUNS_MAX {
            shift += 1;
        }
        let kind = match map.form() {
            Form::Hash { .. } => PartKind::Slot,
            Form::Range(_) => PartKind::Range,
            Form::List { .. } => PartKind::ListEntry,
        };
        let firsts = (0..own_parts).step_by(1 << shift).chain(own_parts..parts);
        let name = |part: u32| match part.checked_sub(own_parts) {
            Some(pinned) => format!("pinned key {} of {}", pinned + 1, parts - own_parts),
            // Values of a list are keys.
            None if kind == PartKind::ListEntry => format!("list entry {part}"),
            None => map.describe_part(part),
        };
        let (owners, names) = firsts.map(|it| (map.part_shard(it).unwrap_or(ShardId(0)), name(it))).unzip();
        let part = |part: u32| LayoutPart {
            shard: map.part_shard(part).unwrap_or(ShardId(0)),
            identity: xxh3_64(map.describe_part(part).as_bytes()),
        };
        let all: Vec<LayoutPart> = (0..parts).map(part).collect();
        MapLayout {
            map: Some(map.clone()),
            tables: tables.into_iter().map(table).collect(),
            history: history::Layout::new(kind, own_parts as usize, &all, shards),
            name: map.name.clone(),
            part_name: map.part_name(),
            parts,
            own_parts,
            shift,
            owners,
            names,
            is_range: kind == PartKind::Range,
        }
    }

    /// Where a part is counted.
    #[inline]
    pub fn run(&self, part: u32) -> usize {
        match part.checked_sub(self.own_parts) {
            Some(pinned) => self.own_runs() + pinned as usize,
            None => (part >> self.shift) as usize,
        }
    }

    pub fn parts_of(&self, run: usize) -> std::ops::Range<u32> {
        let first = self.first_part(run);
        let end = self.first_part(run + 1).min(self.parts);
        // The last run of slots ends where pinned keys begin.
        first..if first < self.own_parts { end.min(self.own_parts) } else { end }
    }

    /// The first part of a run.
    pub fn first_part(&self, run: usize) -> u32 {
        match run.checked_sub(self.own_runs()) {
            Some(pinned) => self.own_parts + pinned as u32,
            None => (run as u32) << self.shift,
        }
    }

    fn own_runs(&self) -> usize {
        self.own_parts.div_ceil(1 << self.shift) as usize
    }

    fn primary_keys(shards: &[u64]) -> MapLayout {
        let part = LayoutPart { shard: ShardId(0), identity: 0 };
        MapLayout {
            map: None,
            tables: Vec::new(),
            history: history::Layout::new(PartKind::ListEntry, 1, &[part], shards),
            name: PRIMARY_KEYS.to_owned(),
            part_name: "table",
            parts: 1,
            own_parts: 1,
            shift: 0,
            owners: vec![ShardId(0)],
            names: vec!["all tables".to_owned()],
            is_range: false,
        }
    }

    pub fn runs(&self) -> usize {
        self.owners.len()
    }

    /// Distinct keys are estimated for each part.
    pub fn tells_parts_apart(&self) -> bool {
        self.parts <= PARTS_TOLD_APART_MAX
    }
}
