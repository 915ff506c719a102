//! What is counted in ten seconds, by one worker or by all of them.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::layout::{Layout, MapLayout};
use super::load::Load;
use crate::base::{Access, NumberHasher, Role, ShardId};
use crate::route::{KeyRef, Subject};
use crate::shard::KeyValue;
use crate::sketch::{Distinct, HeavyHitters, HeavyKey, KeyPlace, SLOTS_DEFAULT};

/// Tables beyond these are not told apart: they are in the counts of their shards and maps alone.
const TABLES_MAX: usize = 512;
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

/// What was counted of a run of parts: a line of the cache for reads and writes.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    rows: u64,
    bytes: u64,
    time_us: u64,
    calls: u32,
    errors: u32,
}

impl Cell {
    #[inline]
    fn add(&mut self, load: &Load) {
        self.rows += load.rows;
        self.bytes += load.bytes;
        self.time_us += load.time_us;
        self.calls = self.calls.saturating_add(load.calls as u32);
        self.errors = self.errors.saturating_add(load.errors as u32);
    }

    fn load(&self) -> Load {
        let Cell { rows, bytes, time_us, calls, errors } = *self;
        Load { calls: calls.into(), rows, bytes, time_us, errors: errors.into() }
    }
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
    cells: Box<[[Cell; 2]]>,
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

impl MapCounts {
    fn new(layout: &MapLayout) -> MapCounts {
        let distinct = if layout.tells_parts_apart() { layout.parts.max(1) as usize } else { 1 };
        MapCounts {
            cells: vec![[Cell::default(); 2]; layout.runs()].into(),
            distinct: vec![Distinct::default(); distinct].into(),
            statements: 0,
            scattered: 0,
        }
    }

    /// Reads and writes of each run of parts.
    pub fn loads(&self) -> impl ExactSizeIterator<Item = (Load, Load)> {
        self.cells.iter().map(|[reads, writes]| (reads.load(), writes.load()))
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
        for (mine, other) in self.cells.iter_mut().zip(&other.cells) {
            mine[0].add(&other[0].load());
            mine[1].add(&other[1].load());
        }
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

    /// No allocation but for the first statement of a table.
    pub fn add(&mut self, call: &Call<'_>, layout: &Layout) {
        let Call { access, load, subject, .. } = call;
        if let Some(shard) = self.shards.get_mut(usize::from(call.shard.0)) {
            *match (call.role, access) {
                (Role::Replica, _) => &mut shard.replica_reads,
                (Role::Primary, Access::Read) => &mut shard.primary_reads,
                (Role::Primary, Access::Write) => &mut shard.primary_writes,
            } += *load;
            shard.scattered += u64::from(call.shards > 1);
        }
        self.count_table(call);
        if call.first
            && let Some(map) = subject.map.and_then(|it| self.maps.get_mut(usize::from(it)))
        {
            map.statements += 1;
            map.scattered += u64::from(call.shards > 1);
        }
        let own = || call.keys.iter().filter(|it| it.place.shard == call.shard);
        // What a statement costs, its keys share.
        let count = match call.keys {
            [_] => 1,
            _ => own().count() as u64,
        };
        for key in own() {
            let (index, hash) = layout.place(key);
            let (Some(map), Some(of)) = (self.maps.get_mut(index), layout.map(index)) else { continue };
            let part = key.place.part;
            let share = load.shared_by(count);
            let run = if layout.is_primary_keys(index) { 0 } else { of.run(part) };
            if let Some(cells) = map.cells.get_mut(run) {
                cells[usize::from(*access == Access::Write)].add(&share);
            }
            let of = if map.distinct.len() > 1 { part as usize } else { 0 };
            if let Some(it) = map.distinct.get_mut(of) {
                it.add(hash);
            }
            let key = HeavyKey { map: index as u16, access: *access, hash };
            self.heavy.add(key, KeyPlace { shard: call.shard, part }, 1, share.time_us);
        }
    }

    fn count_table(&mut self, call: &Call<'_>) {
        let Some(name) = &call.subject.table else { return };
        let counts = match self.tables.len() < TABLES_MAX {
            true => self.tables.entry(call.subject.table_id).or_insert_with(|| TableCounts::new(name)),
            false => match self.tables.get_mut(&call.subject.table_id) {
                Some(it) => it,
                None => return,
            },
        };
        // A statement is one call, however many shards do it.
        let load = Load { calls: if call.first { call.load.calls } else { 0 }, ..call.load };
        match call.access {
            Access::Read => counts.reads += load,
            Access::Write => counts.writes += load,
        }
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
            map.cells.fill([Cell::default(); 2]);
            map.distinct.iter_mut().for_each(Distinct::clear);
            (map.statements, map.scattered) = (0, 0);
        }
        self.heavy.clear();
        self.samples.clear();
    }
}
