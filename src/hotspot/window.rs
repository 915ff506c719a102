//! What is counted in ten seconds, by one worker or by all of them.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::cells::Cells;
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
/// Calls, and keys, that are counted together. What they are counted in lies scattered over some hundred kilobytes, and the
/// code that counts is some more: for many at a time, in short loops, the processor fetches both side by side and once.
const PENDING_MAX: usize = 64;

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

/// A call without its keys, until it is counted with others.
#[derive(Clone, Copy, Debug)]
struct PendingCall {
    load: Load,
    table_id: u64,
    /// That have a part in what it cost.
    keys: u32,
    map: Option<u16>,
    shard: ShardId,
    role: Role,
    access: Access,
    first: bool,
    scattered: bool,
}

/// A key of one of the pending calls.
#[derive(Clone, Copy, Debug)]
struct PendingKey {
    hash: u64,
    part: u32,
    map: u16,
    call: u16,
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
    /// Not in the counts yet.
    calls: Vec<PendingCall>,
    keys: Vec<PendingKey>,
    /// Has a place in `tables`.
    known_table: Option<u64>,
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
            calls: Vec::with_capacity(PENDING_MAX),
            keys: Vec::with_capacity(PENDING_MAX),
            known_table: None,
        }
    }

    /// No allocation but for the first statement of a table. What it adds is in the counts after `settle` at the latest.
    #[inline]
    pub fn add(&mut self, call: &Call<'_>, layout: &Layout) {
        let Call { subject, shard, .. } = call;
        if let Some(name) = &subject.table
            && self.known_table != Some(subject.table_id)
        {
            self.name_table(subject.table_id, name);
        }
        let own = || call.keys.iter().filter(|it| it.place.shard == *shard);
        // What a statement costs, its keys share.
        let keys = match call.keys {
            [_] => 1,
            _ => own().count() as u32,
        };
        self.calls.push(PendingCall {
            load: call.load,
            table_id: subject.table_id,
            keys,
            map: subject.map,
            shard: *shard,
            role: call.role,
            access: call.access,
            first: call.first,
            scattered: call.shards > 1,
        });
        let call = (self.calls.len() - 1) as u16;
        for key in own() {
            let (map, hash) = layout.place(key);
            if self.keys.len() == PENDING_MAX {
                self.settle_keys(layout);
            }
            self.keys.push(PendingKey { hash, part: key.place.part, map: map as u16, call });
        }
        if self.calls.len() == PENDING_MAX {
            self.settle(layout);
        }
    }

    #[cold]
    fn name_table(&mut self, id: u64, name: &Arc<str>) {
        if self.tables.len() < TABLES_MAX {
            self.tables.entry(id).or_insert_with(|| TableCounts::new(name));
        }
        self.known_table = Some(id);
    }

    /// Counts what is pending.
    pub fn settle(&mut self, layout: &Layout) {
        self.settle_keys(layout);
        for call in &self.calls {
            if let Some(shard) = self.shards.get_mut(usize::from(call.shard.0)) {
                *match (call.role, call.access) {
                    (Role::Replica, _) => &mut shard.replica_reads,
                    (Role::Primary, Access::Read) => &mut shard.primary_reads,
                    (Role::Primary, Access::Write) => &mut shard.primary_writes,
                } += call.load;
                shard.scattered += u64::from(call.scattered);
            }
            if call.first
                && let Some(map) = call.map.and_then(|it| self.maps.get_mut(usize::from(it)))
            {
                map.statements += 1;
                map.scattered += u64::from(call.scattered);
            }
            if let Some(table) = self.tables.get_mut(&call.table_id) {
                // A statement is one call, however many shards do it.
                let load = Load { calls: if call.first { call.load.calls } else { 0 }, ..call.load };
                match call.access {
                    Access::Read => table.reads += load,
                    Access::Write => table.writes += load,
                }
            }
        }
        self.calls.clear();
    }

    /// Of calls that stay pending.
    fn settle_keys(&mut self, layout: &Layout) {
        let run = |it: &PendingKey| match usize::from(it.map) {
            index if layout.is_primary_keys(index) => 0,
            index => layout.map(index).map_or(0, |of| of.run(it.part)),
        };
        let access = |it: &PendingKey| self.calls[usize::from(it.call)].access;
        let heavy_key = |it: &PendingKey| HeavyKey { map: it.map, access: access(it), hash: it.hash };
        self.keys.retain(|it| usize::from(it.map) < self.maps.len());
        // Nothing is decided by what is read here, so that all of it is fetched side by side.
        let fetched = self.keys.iter().fold(0, |sum, it| {
            sum ^ self.maps[usize::from(it.map)].cells.fetch(run(it), access(it))
                ^ self.heavy.fetch(heavy_key(it))
        });
        std::hint::black_box(fetched);
        for it in self.keys.drain(..) {
            let (map, call) = (&mut self.maps[usize::from(it.map)], &self.calls[usize::from(it.call)]);
            let share = call.load.shared_by(call.keys.into());
            map.cells.add(run(&it), call.access, &share);
            let of = if map.distinct.len() > 1 { it.part as usize } else { 0 };
            if let Some(distinct) = map.distinct.get_mut(of) {
                distinct.add(it.hash);
            }
            self.heavy.add(heavy_key(&it), KeyPlace { shard: call.shard, part: it.part }, 1, share.time_us);
        }
    }

    /// Whether there is room for more.
    pub fn sample(&mut self, sample: Sample) -> bool {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        }
        self.samples.len() < SAMPLES_MAX
    }

    /// Both are settled.
    pub fn merge(&mut self, other: &Window) {
        debug_assert!(self.calls.is_empty() && other.calls.is_empty());
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
        self.calls.clear();
        self.keys.clear();
        self.known_table = None;
    }
}
