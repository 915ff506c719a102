//! What SHOW TRANSACTIONS tells of a session's open transaction. The session stores it behind each answer, without a
//! lock where the transaction is on one shard.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::session::Session;
use crate::base::ShardId;
use crate::sql::Isolation;
use crate::wire::TxStatus;

/// No shard. Numbers of shards have 16 bits.
const NONE: u32 = u32::MAX;

/// As seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// From the login to its first request.
    pub began: Duration,
    /// As far as it is known.
    pub isolation: Option<Isolation>,
    pub aborted: bool,
    /// Those with a server of it, the main one first; none before a statement needs one.
    pub shards: Vec<ShardId>,
    pub written: Option<ShardId>,
    /// Requests of the client behind BEGIN.
    pub statements: u64,
}

#[derive(Debug, Default)]
struct OtherShards(Vec<ShardId>);

#[derive(Debug)]
pub(super) struct TransactionRecord {
    /// Micro seconds since the login and one; 0 where none is open.
    began_us: AtomicU64,
    statements: AtomicU64,
    isolation: AtomicU8,
    status: AtomicU8,
    main: AtomicU32,
    written: AtomicU32,
    /// Shards beside the main one: one word for a session that never has any.
    others: Mutex<Option<Box<OtherShards>>>,
}

impl Default for TransactionRecord {
    fn default() -> TransactionRecord {
        TransactionRecord {
            began_us: AtomicU64::new(0),
            statements: AtomicU64::new(0),
            isolation: AtomicU8::new(0),
            status: AtomicU8::new(0),
            main: AtomicU32::new(NONE),
            written: AtomicU32::new(NONE),
            others: Mutex::default(),
        }
    }
}

fn number(shard: Option<ShardId>) -> u32 {
    shard.map_or(NONE, |it| u32::from(it.0))
}

fn shard(number: u32) -> Option<ShardId> {
    u16::try_from(number).ok().map(ShardId)
}

impl TransactionRecord {
    /// A server of the transaction is asked.
    pub fn set_main(&self, shard: Option<ShardId>) {
        self.main.store(number(shard), Ordering::Relaxed);
    }

    pub fn add(&self, shard: ShardId) {
        self.others.lock().get_or_insert_default().0.push(shard);
    }

    fn end(&self) {
        self.began_us.store(0, Ordering::Relaxed);
        self.statements.store(0, Ordering::Relaxed);
        self.main.store(NONE, Ordering::Relaxed);
    }

    pub fn read(&self) -> Option<OpenTransaction> {
        let began_us = self.began_us.load(Ordering::Relaxed).checked_sub(1)?;
        let main = shard(self.main.load(Ordering::Relaxed));
        let others = self.others.lock();
        Some(OpenTransaction {
            began: Duration::from_micros(began_us),
            isolation: Isolation::ALL.get(usize::from(self.isolation.load(Ordering::Relaxed))).copied(),
            aborted: self.status.load(Ordering::Relaxed) == TxStatus::Failed as u8,
            shards: main.into_iter().chain(others.iter().flat_map(|it| it.0.iter().copied())).collect(),
            written: shard(self.written.load(Ordering::Relaxed)),
            statements: self.statements.load(Ordering::Relaxed).saturating_sub(1),
        })
    }
}

impl Session {
    /// Behind each unit of the client's.
    pub fn show_transaction(&mut self) {
        let record = self.record.record();
        let it = &record.transaction;
        if self.transaction.is_idle() {
            if std::mem::take(&mut self.shows_transaction) {
                it.end();
                if let Some(others) = &mut *it.others.lock() {
                    others.0.clear();
                }
            }
            return;
        }
        if !std::mem::replace(&mut self.shows_transaction, true)
            && let Some(began) = self.began
        {
            it.began_us.store(record.micros(began) + 1, Ordering::Relaxed);
        }
        it.statements.store(it.statements.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let isolation = self.transaction.isolation().map_or(u8::MAX, |it| it as u8);
        it.isolation.store(isolation, Ordering::Relaxed);
        it.status.store(self.transaction.status() as u8, Ordering::Relaxed);
        it.set_main(self.home().map(|it| it.0));
        it.written.store(number(self.transaction.written()), Ordering::Relaxed);
        if self.is_spread() {
            let mut others = it.others.lock();
            let shards = &mut others.get_or_insert_default().0;
            shards.clear();
            shards.extend(self.others.shards());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_told_until_it_ends() {
        let it = TransactionRecord::default();
        assert_eq!(it.read(), None);
        it.began_us.store(6, Ordering::Relaxed);
        it.isolation.store(Isolation::Serializable as u8, Ordering::Relaxed);
        it.set_main(Some(ShardId(2)));
        it.add(ShardId(0));
        it.statements.store(3, Ordering::Relaxed);
        let read = it.read().unwrap();
        assert_eq!((read.began, read.statements), (Duration::from_micros(5), 2));
        assert_eq!((read.isolation, read.aborted), (Some(Isolation::Serializable), false));
        assert_eq!((read.shards, read.written), (vec![ShardId(2), ShardId(0)], None));
        it.end();
        assert_eq!(it.read(), None);
    }
}
