//! What a thread has yet to count: a ring that it alone writes, without a lock or an instruction that waits for others.
//! Whoever counts for it reads, one at a time.

use std::array;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::layout::Layout;
use super::load::Load;
use super::window::Call;
use crate::base::{Access, Role, ShardId};
use crate::route::KeyRef;

/// A power of two. What is counted lies scattered over some hundred kilobytes, and the code that counts is some more: for so
/// many at a time, in short loops, the processor fetches both side by side and once.
pub const PENDING_MAX: usize = 64;

/// Places for tables that were named lately, each for ids that agree in their lowest bits: two tables that share one are named
/// anew in turns, which takes the lock.
const NAMED: usize = 64;

const WORDS: usize = 8;

/// A line of the cache: other threads write others.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot([AtomicU64; WORDS]);

#[derive(Debug)]
pub(super) struct Pending {
    slots: [Slot; PENDING_MAX],
    /// Written so far, by the thread that it belongs to.
    written: AtomicUsize,
    /// Read so far, by whoever has the lock of the counts.
    read: AtomicUsize,
    /// Of the thread alone.
    named: [AtomicU64; NAMED],
}

/// A call with one of its keys. A call of several keys is several of these, of which the first alone is of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub load: Load,
    /// 0 where it names none.
    pub table_id: u64,
    pub map: Option<u16>,
    pub shard: ShardId,
    pub role: Role,
    pub access: Access,
    /// The shard is the statement's first.
    pub first: bool,
    pub scattered: bool,
    /// A further key of the call before.
    pub is_more: bool,
    /// That have a part in what the call cost.
    pub keys: u32,
    pub key: Option<PendingKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingKey {
    pub hash: u64,
    pub part: u32,
    pub map: u16,
}

/// Bits of a record's flags.
mod flag {
    pub const REPLICA: u64 = 1;
    pub const WRITE: u64 = 1 << 1;
    pub const FIRST: u64 = 1 << 2;
    pub const SCATTERED: u64 = 1 << 3;
    pub const MORE: u64 = 1 << 4;
    pub const KEY: u64 = 1 << 5;
    pub const MAP: u64 = 1 << 6;
}

impl Record {
    /// Of a call, without a key.
    #[inline]
    pub fn of(call: &Call<'_>) -> Record {
        Record {
            load: call.load,
            table_id: if call.subject.table.is_some() { call.subject.table_id } else { 0 },
            map: call.subject.map,
            shard: call.shard,
            role: call.role,
            access: call.access,
            first: call.first,
            scattered: call.shards > 1,
            is_more: false,
            keys: call.keys.iter().filter(|it| it.place.shard == call.shard).count() as u32,
            key: None,
        }
    }

    #[inline]
    pub fn with(self, key: &KeyRef, layout: &Layout) -> Record {
        let (map, hash) = layout.place(key);
        Record { key: Some(PendingKey { hash, part: key.place.part, map: map as u16 }), ..self }
    }

    #[inline]
    fn words(&self) -> [u64; WORDS] {
        let flag = |is: bool, flag: u64| if is { flag } else { 0 };
        let flags = flag(self.role == Role::Replica, flag::REPLICA)
            | flag(self.access == Access::Write, flag::WRITE)
            | flag(self.first, flag::FIRST)
            | flag(self.scattered, flag::SCATTERED)
            | flag(self.is_more, flag::MORE)
            | flag(self.key.is_some(), flag::KEY)
            | flag(self.map.is_some(), flag::MAP);
        let key = self.key.unwrap_or(PendingKey { hash: 0, part: 0, map: 0 });
        let (map, shard) = (u64::from(self.map.unwrap_or(0)), u64::from(self.shard.0));
        // More than so many of either are of no statement.
        let [calls, errors] = [self.load.calls, self.load.errors].map(|it| it.min(u32::MAX.into()));
        [
            self.load.rows,
            self.load.bytes,
            self.load.time_us,
            self.table_id,
            key.hash,
            u64::from(key.part) | u64::from(key.map) << 32 | flags << 48,
            u64::from(self.keys) | shard << 32 | map << 48,
            calls | errors << 32,
        ]
    }

    #[inline]
    fn from_words(words: [u64; WORDS]) -> Record {
        let [rows, bytes, time_us, table_id, hash, place, of, counts] = words;
        let has = |flag: u64| place >> 48 & flag != 0;
        Record {
            load: Load { calls: counts as u32 as u64, rows, bytes, time_us, errors: counts >> 32 },
            table_id,
            map: has(flag::MAP).then_some((of >> 48) as u16),
            shard: ShardId((of >> 32) as u16),
            role: if has(flag::REPLICA) { Role::Replica } else { Role::Primary },
            access: if has(flag::WRITE) { Access::Write } else { Access::Read },
            first: has(flag::FIRST),
            scattered: has(flag::SCATTERED),
            is_more: has(flag::MORE),
            keys: of as u32,
            key: has(flag::KEY).then_some(PendingKey { hash, part: place as u32, map: (place >> 32) as u16 }),
        }
    }
}

impl Default for Pending {
    fn default() -> Pending {
        Pending {
            slots: array::from_fn(|_| Slot::default()),
            written: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            named: array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Pending {
    /// By the thread that it belongs to. `false` where it is full, and nothing has been written.
    #[inline]
    pub fn push(&self, record: &Record) -> bool {
        let at = self.written.load(Ordering::Relaxed);
        // What stood there has been read before `read` said so.
        if at.wrapping_sub(self.read.load(Ordering::Acquire)) >= PENDING_MAX {
            return false;
        }
        for (slot, word) in self.slots[at % PENDING_MAX].0.iter().zip(record.words()) {
            slot.store(word, Ordering::Relaxed);
        }
        self.written.store(at.wrapping_add(1), Ordering::Release);
        true
    }

    /// By one thread at a time, whichever: moves all to `records`.
    pub fn drain(&self, records: &mut Vec<Record>) {
        let (mut at, end) = (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Acquire));
        while at != end {
            let slot = &self.slots[at % PENDING_MAX].0;
            records.push(Record::from_words(array::from_fn(|it| slot[it].load(Ordering::Relaxed))));
            at = at.wrapping_add(1);
        }
        self.read.store(end, Ordering::Release);
    }

    /// Whether a table was named lately, by the thread that it belongs to.
    #[inline]
    pub fn has_named(&self, table_id: u64) -> bool {
        self.named[table_id as usize % NAMED].load(Ordering::Relaxed) == table_id
    }

    pub fn named(&self, table_id: u64) {
        self.named[table_id as usize % NAMED].store(table_id, Ordering::Relaxed);
    }

    /// All names are to be said again.
    pub fn forget_names(&self) {
        self.named.iter().for_each(|it| it.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let load = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
        let key = prop::option::of((any::<u64>(), any::<u32>(), any::<u16>()));
        let of = (any::<u64>(), prop::option::of(any::<u16>()), any::<u16>(), any::<u32>());
        (load, key, of, any::<[bool; 5]>()).prop_map(
            |(load, key, of, [replica, write, first, scattered, is_more])| {
                let (calls, rows, bytes, time_us, errors) = load;
                let (table_id, map, shard, keys) = of;
                Record {
                    load: Load { calls: calls.into(), rows, bytes, time_us, errors: errors.into() },
                    table_id,
                    map,
                    shard: ShardId(shard),
                    role: if replica { Role::Replica } else { Role::Primary },
                    access: if write { Access::Write } else { Access::Read },
                    first,
                    scattered,
                    is_more,
                    keys,
                    key: key.map(|(hash, part, map)| PendingKey { hash, part, map }),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in(records in prop::collection::vec(record(), 0..200), drained in 1usize..80) {
            let (pending, mut read, mut waiting) = (Pending::default(), Vec::new(), 0);
            for it in &records {
                if waiting == drained.min(PENDING_MAX) {
                    prop_assert!(drained < PENDING_MAX || !pending.push(it), "it is full");
                    pending.drain(&mut read);
                    waiting = 0;
                }
                prop_assert!(pending.push(it));
                waiting += 1;
            }
            pending.drain(&mut read);
            prop_assert_eq!(read, records);
        }
    }

    #[test]
    fn nothing_is_lost_or_read_twice_while_it_is_written() {
        let pending = Pending::default();
        let record = |number: u64| {
            let load = Load { rows: number, ..Load::default() };
            let of = (ShardId(0), Role::Primary, Access::Read);
            Record {
                load,
                table_id: number,
                map: None,
                shard: of.0,
                role: of.1,
                access: of.2,
                first: true,
                scattered: false,
                is_more: false,
                keys: 0,
                key: None,
            }
        };
        const COUNT: u64 = 100_000;
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..COUNT {
                    while !pending.push(&record(number)) {
                        std::thread::yield_now();
                    }
                }
            });
            while read.len() < COUNT as usize {
                pending.drain(&mut read);
                std::thread::yield_now();
            }
        });
        assert!(read.iter().zip(0..).all(|(it, number)| *it == record(number)));
    }

    #[test]
    fn names_are_known_until_they_are_forgotten() {
        let pending = Pending::default();
        assert!(!pending.has_named(8));
        pending.named(8);
        assert!(pending.has_named(8) && !pending.has_named(8 + NAMED as u64));
        pending.forget_names();
        assert!(!pending.has_named(8));
    }
}
