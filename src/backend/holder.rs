//! Which client a server process works for, by the process's id: a notification tells only that one, and
//! clients know each other, and themselves, by the ids that Keyway gave them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

/// Host and port: connections outlive a reload that moves their server to another place.
type Server = (Arc<str>, u16);
type Cells = HashMap<(Server, u32), Arc<AtomicU32>>;

/// All connections of one database. Locked when one is made or ends, and for each notification.
#[derive(Clone, Debug, Default)]
pub struct Holders(Arc<Mutex<Cells>>);

/// One connection's place there, given up when it is dropped. Writing to it touches nothing that others use.
#[derive(Debug)]
pub struct Holder {
    cell: Arc<AtomicU32>,
    key: (Server, u32),
    all: Holders,
}

/// No client has had it: process ids begin at 1.
const NOBODY: u32 = 0;
/// What it writes is a copy of what another server writes. No process has this id.
const COPY: u32 = u32::MAX;

/// Whom a notification of a server process is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// By the id that it was given.
    Client(u32),
    /// A client whose write every shard does: another one tells of it.
    Copy,
    /// Nobody of Keyway's, as far as is known.
    Unknown,
}

impl Holders {
    pub fn register(&self, server: Server, pid: u32) -> Holder {
        let cell = Arc::new(AtomicU32::new(NOBODY));
        let key = (server, pid);
        self.0.lock().insert(key.clone(), cell.clone());
        Holder { cell, key, all: self.clone() }
    }

    /// Whether who is entered in one is found in the other.
    pub fn is_same(&self, other: &Holders) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// For whom process `pid` works.
    pub fn sender(&self, server: Server, pid: u32) -> Sender {
        match self.0.lock().get(&(server, pid)).map(|it| it.load(Ordering::Acquire)) {
            None | Some(NOBODY) => Sender::Unknown,
            Some(COPY) => Sender::Copy,
            Some(client) => Sender::Client(client),
        }
    }
}

impl Holder {
    pub fn is(&self, client: u32) -> bool {
        self.cell.load(Ordering::Relaxed) == client
    }

    pub fn set(&self, client: u32) {
        self.cell.store(client, Ordering::Release);
    }

    pub fn is_copy(&self) -> bool {
        self.is(COPY)
    }

    /// Until the next one is entered, what it notifies is told by another server.
    pub fn set_copy(&self) {
        self.set(COPY);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut cells = self.all.0.lock();
        // The process may have ended long ago, and its id be that of a newer connection.
        if cells.get(&self.key).is_some_and(|it| Arc::ptr_eq(it, &self.cell)) {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_works_for_who_wrote_last() {
        let server = || ("db1".into(), 5432);
        let holders = Holders::default();
        let holder = holders.register(server(), 10);
        assert_eq!(holders.sender(server(), 10), Sender::Unknown, "nobody yet");
        holder.set(77);
        assert!(holder.is(77) && !holder.is(78));
        assert_eq!(holders.sender(server(), 10), Sender::Client(77));
        assert_eq!(holders.sender(("db2".into(), 5432), 10), Sender::Unknown, "another server's process");
        let newer = holders.register(server(), 10);
        drop(holder);
        newer.set(78);
        assert_eq!(holders.sender(server(), 10), Sender::Client(78));
        newer.set_copy();
        assert!(newer.is_copy());
        assert_eq!(holders.sender(server(), 10), Sender::Copy);
        drop(newer);
        assert_eq!(holders.sender(server(), 10), Sender::Unknown);
    }
}
