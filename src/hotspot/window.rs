//! What is counted in ten seconds, by one worker or by all of them.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::cells::Cells;
use super::layout::{Layout, MapLayout};
use super::load::Load;
use super::pending::{PENDING_MAX, PendingKey, Recorded, Unread};
use crate::base::{Access, NumberHasher, Role, ShardId};
use crate::route::{KeyRef, Subject};
use crate::shard::KeyValue;
use crate::sketch::{Distinct, HeavyHitters, HeavyKey, Home, KeyPlace, SLOTS_DEFAULT};

/// Tables beyond these are not told apart: they are in the counts of their shards and maps alone.
pub const TABLES_MAX: usize = 512;
/// By their ids.
pub(super) type TableNames = HashMap<u64, Arc<str>, BuildHasherDefault<NumberHasher>>;
/// Keys of which the values are kept, for split points and the direction of access.
const SAMPLES_MAX: usize = 2_048;
/// What one shard did for a statement.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub shard: ShardId,
    pub role: Role,
    pub access: Access,
    /// How many shards had a part in it.
    pub shards: usize,
    /// This one is the first of them, so that the statement is counted with it.
    pub first: bool,
    /// Of the whole statement.
    pub keys: &'a [KeyRef],
    pub subject: &'a Subject,
    pub load: Load,
}

#[derive(Clone, Debug)]
pub(super) struct TableCounts {
    pub name: Arc<str>,
    pub reads: Load,
    pub writes: Load,
}

impl TableCounts {
    fn new(name: &Arc<str>) -> TableCounts {
        TableCounts { name: name.clone(), reads: Load::default(), writes: Load::default() }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct ShardCounts {
    pub primary_reads: Load,
    pub primary_writes: Load,
    pub replica_reads: Load,
    pub scattered: u64,
}

impl ShardCounts {
    pub fn calls(&self) -> u64 {
        self.primary_reads.calls + self.primary_writes.calls + self.replica_reads.calls
    }
}

#[derive(Clone, Debug)]
pub(super) struct MapCounts {
    cells: Cells,
    /// Of the map, or of each of its parts where they are few.
    distinct: Box<[Distinct]>,
    /// Statements of tables that are in the map, and those of them that several shards had a part in.
    pub statements: u64,
    pub scattered: u64,
}

/// The value of a key that a statement named.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub map: u16,
    pub part: u32,
    pub value: KeyValue,
}

#[derive(Clone, Debug)]
pub(super) struct Window {
    pub shards: Box<[ShardCounts]>,
    pub tables: HashMap<u64, TableCounts, BuildHasherDefault<NumberHasher>>,
    pub maps: Box<[MapCounts]>,
    pub heavy: HeavyHitters,
    pub samples: Vec<Sample>,
}

/// Where one key of a record is counted.
#[derive(Clone, Copy, Debug)]
struct Spot {
    home: Home,
    run: u32,
    map: u16,
    access: Access,
}

impl Default for Spot {
    fn default() -> Spot {
        Spot { home: Home::default(), run: 0, map: 0, access: Access::Read }
    }
}

#[inline]
fn heavy_key(access: Access, key: &PendingKey) -> HeavyKey {
    HeavyKey { map: key.map, access, hash: key.hash }
}

impl MapCounts {
    fn new(layout: &MapLayout) -> MapCounts {
        let distinct = if layout.tells_parts_apart() { layout.parts.max(1) as usize } else { 1 };
        MapCounts {
            cells: Cells::new(layout.runs()),
            distinct: vec![Distinct::default(); distinct].into(),
            statements: 0,
            scattered: 0,
        }
    }

    /// Reads and writes of each run of parts.
    pub fn loads(&self) -> impl ExactSizeIterator<Item = (Load, Load)> {
        self.cells.loads()
    }

    /// Reads and writes of all of it.
    pub fn total(&self) -> (Load, Load) {
        let (mut reads, mut writes) = (Load::default(), Load::default());
        for (read, write) in self.loads() {
            reads += read;
            writes += write;
        }
        (reads, writes)
    }

    /// Of all of it.
    pub fn distinct_keys(&self) -> f64 {
        let mut all = Distinct::default();
        self.distinct.iter().for_each(|it| all.merge(it));
        all.estimate()
    }

    /// `None` where its parts are not told apart.
    pub fn distinct_keys_of(&self, part: u32) -> Option<f64> {
        let known = self.distinct.len() > 1 || self.cells.len() == 1;
        self.distinct.get(part as usize).filter(|_| known).map(Distinct::estimate)
    }

    fn merge(&mut self, other: &MapCounts) {
        self.cells.merge(&other.cells);
        for (mine, other) in self.distinct.iter_mut().zip(&other.distinct) {
            mine.merge(other);
        }
        self.statements += other.statements;
        self.scattered += other.scattered;
    }
}

impl Window {
    /// `seed` spreads keys over the slots of the sketch.
    pub fn new(layout: &Layout, seed: u64) -> Window {
        Window {
            shards: vec![ShardCounts::default(); layout.shards.len()].into(),
            tables: HashMap::default(),
            maps: layout.maps.iter().map(MapCounts::new).collect(),
            heavy: HeavyHitters::new(SLOTS_DEFAULT, seed),
            samples: Vec::new(),
        }
    }

    /// Allocates for the first statement of a table, of which `names` are asked, and for sums that no cell has room for.
    pub fn add(&mut self, records: Unread<'_>, names: &TableNames, layout: &Layout) {
        self.add_calls(records.clone().filter(|it| !it.is_more()), names);
        let is_known = |key: &PendingKey| usize::from(key.map) < layout.maps.len();
        let keys = records.filter_map(|it| Some((it, it.key().filter(is_known)?)));
        let (mut spots, mut count) = ([Spot::default(); PENDING_MAX], 0);
        for (spot, (it, key)) in spots.iter_mut().zip(keys.clone()) {
            *spot = self.spot(it, &key, layout);
            count += 1;
        }
        self.fetch(&spots[..count]);
        for (spot, (it, key)) in spots.iter().zip(keys) {
            let map = &mut self.maps[usize::from(spot.map)];
            let share = it.load().shared_by(it.keys().into());
            map.cells.add(spot.run as usize, spot.access, &share);
            let of = if map.distinct.len() > 1 { key.part as usize } else { 0 };
            if let Some(distinct) = map.distinct.get_mut(of) {
                distinct.add(key.hash);
            }
            let place = KeyPlace { shard: it.shard(), part: key.part };
            self.heavy.add_at(spot.home, heavy_key(spot.access, &key), place, 1, share.time_us);
        }
    }

    #[inline]
    fn spot(&self, record: Recorded<'_>, key: &PendingKey, layout: &Layout) -> Spot {
        let (map, access) = (usize::from(key.map), record.access());
        let run = if layout.is_primary_keys(map) { 0 } else { layout.maps[map].run(key.part) };
        Spot { home: self.heavy.home(heavy_key(access, key)), run: run as u32, map: key.map, access }
    }

    /// Reads what will be changed, for no more than that it is in the cache then: statements touch it in no order, so that
    /// little of it is there. Short loops have more reads under way at any time.
    fn fetch(&self, spots: &[Spot]) {
        let cell = |it: &Spot| self.maps[usize::from(it.map)].cells.fetch(it.run as usize, it.access);
        let first = spots.iter().fold(0, |all, it| all ^ cell(it) ^ self.heavy.fetch_door(it.home));
        let second = spots.iter().fold(0, |all, it| all ^ self.heavy.fetch_slot(it.home));
        std::hint::black_box(first ^ second);
    }

    fn add_calls<'a>(&mut self, calls: impl Iterator<Item = Recorded<'a>>, names: &TableNames) {
        // Of calls of one table and one kind that follow one another.
        let (mut table, mut sum) = ((0, Access::Read), Load::default());
        for call in calls {
            let (load, shards) = (call.load(), u64::from(call.is_scattered()));
            if let Some(shard) = self.shards.get_mut(usize::from(call.shard().0)) {
                *match (call.role(), call.access()) {
                    (Role::Replica, _) => &mut shard.replica_reads,
                    (Role::Primary, Access::Read) => &mut shard.primary_reads,
                    (Role::Primary, Access::Write) => &mut shard.primary_writes,
                } += load;
                shard.scattered += shards;
            }
            if call.is_first()
                && let Some(map) = call.map().and_then(|it| self.maps.get_mut(usize::from(it)))
            {
                map.statements += 1;
                map.scattered += shards;
            }
            let of = (call.table_id(), call.access());
            if of != table {
                self.add_to_table(table, sum, names);
                (table, sum) = (of, Load::default());
            }
            // A statement is one call, however many shards do it.
            sum += Load { calls: if call.is_first() { load.calls } else { 0 }, ..load };
        }
        self.add_to_table(table, sum, names);
    }

    fn add_to_table(&mut self, (id, access): (u64, Access), load: Load, names: &TableNames) {
        if id == 0 {
            return;
        }
        let table = match self.tables.get_mut(&id) {
            Some(it) => it,
            None => {
                let Some(name) = names.get(&id).filter(|_| self.tables.len() < TABLES_MAX) else { return };
                self.tables.entry(id).or_insert_with(|| TableCounts::new(name))
            }
        };
        match access {
            Access::Read => table.reads += load,
            Access::Write => table.writes += load,
        }
    }

    /// Nothing was counted: whatever is counted is a call of a shard.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.shards.iter().all(|it| it.calls() == 0)
    }

    /// Whether there is room for more.
    pub fn sample(&mut self, sample: Sample) -> bool {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        }
        self.samples.len() < SAMPLES_MAX
    }

    pub fn merge(&mut self, other: &Window) {
        for (mine, other) in self.shards.iter_mut().zip(&other.shards) {
            mine.primary_reads += other.primary_reads;
            mine.primary_writes += other.primary_writes;
            mine.replica_reads += other.replica_reads;
            mine.scattered += other.scattered;
        }
        for (id, other) in &other.tables {
            let mine = self.tables.entry(*id).or_insert_with(|| TableCounts::new(&other.name));
            mine.reads += other.reads;
            mine.writes += other.writes;
        }
        self.maps.iter_mut().zip(&other.maps).for_each(|(mine, other)| mine.merge(other));
        self.heavy.merge(&other.heavy);
        let room = SAMPLES_MAX.saturating_sub(self.samples.len());
        self.samples.extend(other.samples.iter().take(room).cloned());
    }

    /// As new; what it has allocated stays.
    pub fn clear(&mut self) {
        self.shards.fill(ShardCounts::default());
        self.tables.clear();
        for map in &mut self.maps {
            map.cells.clear();
            map.distinct.iter_mut().for_each(Distinct::clear);
            (map.statements, map.scattered) = (0, 0);
        }
        self.heavy.clear();
        self.samples.clear();
    }
}
