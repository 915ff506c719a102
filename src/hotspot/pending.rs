//! What a thread has yet to count: a ring that it alone writes, without a lock or an instruction that waits for others.
//! Whoever counts for it reads, one at a time.

use std::array;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::load::Load;
use super::window::Call;
use crate::base::{Access, Role, ShardId};

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

/// A call with one of its keys, as it stands in a slot. A call of several keys is several of these, of which the first alone
/// is of the call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record([u64; WORDS]);

/// A record in its slot: what is not asked for is not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded<'a>(&'a Slot);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingKey {
    pub hash: u64,
    pub part: u32,
    pub map: u16,
}

/// Words of a record.
mod word {
    pub const ROWS: usize = 0;
    pub const BYTES: usize = 1;
    pub const TIME_US: usize = 2;
    pub const TABLE_ID: usize = 3;
    pub const HASH: usize = 4;
    /// Of the key: its part, its map and, from `flag::SHIFT` on, flags of the record.
    pub const KEY: usize = 5;
    /// Of the call: its keys, its shard and its map.
    pub const CALL: usize = 6;
    /// Calls and errors.
    pub const COUNTS: usize = 7;
}

mod flag {
    pub const SHIFT: u32 = 48;
    pub const REPLICA: u32 = 48;
    pub const WRITE: u32 = 49;
    pub const FIRST: u32 = 50;
    pub const SCATTERED: u32 = 51;
    pub const MORE: u32 = 52;
    pub const KEY: u32 = 53;
    pub const MAP: u32 = 54;
}

impl Record {
    /// Of a call, without a key; so many have a part in what it cost.
    #[inline]
    pub fn of(call: &Call<'_>, keys: u32) -> Record {
        let flag = |is: bool, bit: u32| u64::from(is) << bit;
        let flags = flag(call.role == Role::Replica, flag::REPLICA)
            | flag(call.access == Access::Write, flag::WRITE)
            | flag(call.first, flag::FIRST)
            | flag(call.shards > 1, flag::SCATTERED)
            | flag(call.subject.map.is_some(), flag::MAP);
        let (map, shard) = (call.subject.map.unwrap_or(0), call.shard.0);
        // More than so many of either are of no statement.
        let [calls, errors] = [call.load.calls, call.load.errors].map(|it| it.min(u32::MAX.into()));
        let mut words = [0; WORDS];
        words[word::ROWS] = call.load.rows;
        words[word::BYTES] = call.load.bytes;
        words[word::TIME_US] = call.load.time_us;
        words[word::TABLE_ID] = if call.subject.table.is_some() { call.subject.table_id } else { 0 };
        words[word::KEY] = flags;
        words[word::CALL] = u64::from(keys) | u64::from(shard) << 32 | u64::from(map) << 48;
        words[word::COUNTS] = calls | errors << 32;
        Record(words)
    }

    /// With a key, where it had none.
    #[inline]
    pub fn with(&self, key: PendingKey) -> Record {
        let mut record = *self;
        record.0[word::HASH] = key.hash;
        record.0[word::KEY] |= u64::from(key.part) | u64::from(key.map) << 32 | 1 << flag::KEY;
        record
    }

    /// The next are further keys of the call.
    #[inline]
    pub fn go_on(&mut self) {
        self.0[word::KEY] |= 1 << flag::MORE;
    }
}

impl Recorded<'_> {
    #[inline]
    fn word(self, at: usize) -> u64 {
        self.0.0[at].load(Ordering::Relaxed)
    }

    #[inline]
    fn has(self, bit: u32) -> bool {
        debug_assert!(bit >= flag::SHIFT);
        self.word(word::KEY) >> bit & 1 == 1
    }

    #[inline]
    pub fn load(self) -> Load {
        let counts = self.word(word::COUNTS);
        Load {
            calls: counts as u32 as u64,
            rows: self.word(word::ROWS),
            bytes: self.word(word::BYTES),
            time_us: self.word(word::TIME_US),
            errors: counts >> 32,
        }
    }

    /// 0 where it names none.
    #[inline]
    pub fn table_id(self) -> u64 {
        self.word(word::TABLE_ID)
    }

    #[inline]
    pub fn map(self) -> Option<u16> {
        self.has(flag::MAP).then(|| (self.word(word::CALL) >> 48) as u16)
    }

    #[inline]
    pub fn shard(self) -> ShardId {
        ShardId((self.word(word::CALL) >> 32) as u16)
    }

    #[inline]
    pub fn role(self) -> Role {
        if self.has(flag::REPLICA) { Role::Replica } else { Role::Primary }
    }

    #[inline]
    pub fn access(self) -> Access {
        if self.has(flag::WRITE) { Access::Write } else { Access::Read }
    }

    /// The shard is the statement's first.
    #[inline]
    pub fn is_first(self) -> bool {
        self.has(flag::FIRST)
    }

    #[inline]
    pub fn is_scattered(self) -> bool {
        self.has(flag::SCATTERED)
    }

    /// A further key of the call before.
    #[inline]
    pub fn is_more(self) -> bool {
        self.has(flag::MORE)
    }

    /// That have a part in what the call cost.
    #[inline]
    pub fn keys(self) -> u32 {
        self.word(word::CALL) as u32
    }

    #[inline]
    pub fn key(self) -> Option<PendingKey> {
        let of = self.word(word::KEY);
        self.has(flag::KEY).then(|| PendingKey {
            hash: self.word(word::HASH),
            part: of as u32,
            map: (of >> 32) as u16,
        })
    }
}

/// What is still to be counted, in order.
#[derive(Clone)]
pub(super) struct Unread<'a> {
    slots: &'a [Slot; PENDING_MAX],
    at: usize,
    end: usize,
}

impl<'a> Iterator for Unread<'a> {
    type Item = Recorded<'a>;

    #[inline]
    fn next(&mut self) -> Option<Recorded<'a>> {
        if self.at == self.end {
            return None;
        }
        let slot = &self.slots[self.at % PENDING_MAX];
        self.at = self.at.wrapping_add(1);
        Some(Recorded(slot))
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
        for (slot, word) in self.slots[at % PENDING_MAX].0.iter().zip(record.0) {
            slot.store(word, Ordering::Relaxed);
        }
        self.written.store(at.wrapping_add(1), Ordering::Release);
        true
    }

    /// By one thread at a time, whichever: what is there is `count`ed, and then free to be written anew.
    #[inline]
    pub fn drain(&self, count: impl FnOnce(Unread<'_>)) {
        let (at, end) = (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Acquire));
        count(Unread { slots: &self.slots, at, end });
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
    use crate::route::Subject;

    /// All that a record says.
    type Said = (Load, (u64, Option<u16>, ShardId, Role, Access), [bool; 3], u32, Option<PendingKey>);

    fn said(it: Recorded<'_>) -> Said {
        let of = (it.table_id(), it.map(), it.shard(), it.role(), it.access());
        (it.load(), of, [it.is_first(), it.is_scattered(), it.is_more()], it.keys(), it.key())
    }

    fn drain(pending: &Pending, into: &mut Vec<Said>) {
        pending.drain(|unread| into.extend(unread.map(said)));
    }

    /// A record, and what it is to say.
    fn record() -> impl Strategy<Value = (Record, Said)> {
        let load = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
        let key = prop::option::of((any::<u64>(), any::<u32>(), any::<u16>()));
        let of = (any::<u64>(), prop::option::of(any::<u16>()), any::<u16>(), any::<u32>());
        (load, key, of, any::<[bool; 5]>()).prop_map(
            |(load, key, (table_id, map, shard, keys), [replica, write, first, scattered, is_more])| {
                let (calls, rows, bytes, time_us, errors) = load;
                let load = Load { calls: calls.into(), rows, bytes, time_us, errors: errors.into() };
                let shard = ShardId(shard);
                let role = if replica { Role::Replica } else { Role::Primary };
                let access = if write { Access::Write } else { Access::Read };
                let subject = Subject { table: Some("t".into()), table_id, map };
                let shards = 1 + usize::from(scattered);
                let call = Call { shard, role, access, shards, first, keys: &[], subject: &subject, load };
                let mut record = Record::of(&call, keys);
                if is_more {
                    record.go_on();
                }
                let key = key.map(|(hash, part, map)| PendingKey { hash, part, map });
                let record = key.map_or(record, |it| record.with(it));
                let of = (table_id, map, shard, role, access);
                (record, (load, of, [first, scattered, is_more], keys, key))
            },
        )
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in(records in prop::collection::vec(record(), 0..200), drained in 1usize..80) {
            let (pending, mut read, mut waiting) = (Pending::default(), Vec::new(), 0);
            for (it, _) in &records {
                if waiting == drained.min(PENDING_MAX) {
                    prop_assert!(drained < PENDING_MAX || !pending.push(it), "it is full");
                    drain(&pending, &mut read);
                    waiting = 0;
                }
                prop_assert!(pending.push(it));
                waiting += 1;
            }
            drain(&pending, &mut read);
            prop_assert_eq!(read, records.into_iter().map(|it| it.1).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_is_lost_or_read_twice_while_it_is_written() {
        let pending = Pending::default();
        const COUNT: u64 = 100_000;
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..COUNT {
                    while !pending.push(&Record([number; WORDS])) {
                        std::thread::yield_now();
                    }
                }
            });
            while read.len() < COUNT as usize {
                pending.drain(|unread| read.extend(unread.map(|it| array::from_fn(|at| it.word(at)))));
                std::thread::yield_now();
            }
        });
        assert!(read.iter().zip(0..).all(|(it, number)| *it == [number; WORDS]));
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
