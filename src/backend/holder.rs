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

    /// The client that process `pid` works for, by the id that this client was given.
    pub fn client_of(&self, server: Server, pid: u32) -> Option<u32> {
        let client = self.0.lock().get(&(server, pid))?.load(Ordering::Acquire);
        Some(client).filter(|it| *it != NOBODY)
    }
}

impl Holder {
    pub fn is(&self, client: u32) -> bool {
        self.cell.load(Ordering::Relaxed) == client
    }

    pub fn set(&self, client: u32) {
        self.cell.store(client, Ordering::Release);
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
        assert_eq!(holders.client_of(server(), 10), None, "nobody yet");
        holder.set(77);
        assert!(holder.is(77) && !holder.is(78));
        assert_eq!(holders.client_of(server(), 10), Some(77));
        assert_eq!(holders.client_of(("db2".into(), 5432), 10), None, "another server's process");
        let newer = holders.register(server(), 10);
        drop(holder);
        newer.set(78);
        assert_eq!(holders.client_of(server(), 10), Some(78));
        drop(newer);
        assert_eq!(holders.client_of(server(), 10), None);
    }
}
