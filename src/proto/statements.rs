//! Names of prepared statements on servers: one per text and parameter types, whoever prepared it,
//! so that clients in transaction pooling share them.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::NumberHasher;

/// Stands for one text with its parameter types; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u64);

const SERVER_NAME: &str = "keyway_";

/// The highest bit tells unnamed statements from named ones.
const UNNAMED: u64 = 1 << 63;

impl StatementId {
    /// Shared by clients under a name of ours.
    pub fn named(number: u64) -> StatementId {
        StatementId(number & !UNNAMED)
    }

    /// One client's unnamed statement.
    pub const fn unnamed(number: u64) -> StatementId {
        StatementId(number | UNNAMED)
    }

    pub fn is_unnamed(self) -> bool {
        self.0 & UNNAMED != 0
    }

    /// The name on every server.
    pub fn server_name(self) -> String {
        format!("{SERVER_NAME}{}", self.0)
    }

    /// Whether some statement has this name on servers.
    pub fn is_server_name(name: &str) -> bool {
        let number = name.strip_prefix(SERVER_NAME).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit())
    }
}

/// On how many servers a statement is.
#[derive(Clone, Debug, Default)]
pub struct Presence(Arc<AtomicU32>);

impl Presence {
    pub fn servers(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One server has it for as long as this lives.
#[derive(Debug)]
struct Present(Presence);

impl Present {
    fn new(presence: Presence) -> Present {
        presence.0.fetch_add(1, Ordering::Relaxed);
        Present(presence)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a server is about to be given.
#[derive(Debug)]
struct Sent {
    id: StatementId,
    bytes: usize,
    presence: Presence,
}

#[derive(Debug)]
struct Held {
    used: u64,
    bytes: usize,
    _present: Present,
}

/// How much one server connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementBounds {
    pub count_max: usize,
    /// Texts.
    pub bytes_max: usize,
}

/// What had to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    pub statements: u64,
    /// Times that there were too many, and that their texts were too long.
    pub over_count: u64,
    pub over_bytes: u64,
}

/// The statements that one server connection holds, bounded; the least recently used go first.
#[derive(Debug)]
pub struct ServerStatements {
    held: HashMap<StatementId, Held, BuildHasherDefault<NumberHasher>>,
    bytes: usize,
    uses: u64,
    bounds: StatementBounds,
    /// On their way; whichever the server acknowledges it holds.
    sent: Vec<Sent>,
    /// To be closed, whatever their use.
    outdated: Vec<StatementId>,
    evicted: Evicted,
    /// The unnamed statement, gone with the next Query (manual, "Extended Query").
    unnamed: Option<StatementId>,
}

impl ServerStatements {
    pub fn new(bounds: StatementBounds) -> ServerStatements {
        let bounds = StatementBounds { count_max: bounds.count_max.max(1), ..bounds };
        ServerStatements {
            held: HashMap::default(),
            bytes: 0,
            uses: 0,
            bounds,
            sent: Vec::new(),
            outdated: Vec::new(),
            evicted: Evicted::default(),
            unnamed: None,
        }
    }

    /// As new: the server has none any more.
    pub fn clear(&mut self) {
        *self = ServerStatements { evicted: self.evicted, ..ServerStatements::new(self.bounds) };
    }

    /// Whether the server has it; counts as a use.
    pub fn has(&mut self, id: StatementId) -> bool {
        self.uses += 1;
        let uses = self.uses;
        self.held.get_mut(&id).map(|it| it.used = uses).is_some()
    }

    /// A Parse or PREPARE of it, of so many bytes, is on its way.
    pub fn send(&mut self, id: StatementId, bytes: usize, presence: &Presence) {
        self.sent.push(Sent { id, bytes, presence: presence.clone() });
    }

    pub fn is_on_its_way(&self, id: StatementId) -> bool {
        self.sent.iter().any(|it| it.id == id)
    }

    /// The server has acknowledged it. What is not acknowledged it does not have.
    pub fn insert(&mut self, id: StatementId) {
        self.uses += 1;
        let used = self.uses;
        if let Some(held) = self.held.get_mut(&id) {
            held.used = used;
            return;
        }
        let at = self.sent.iter().position(|it| it.id == id);
        let (bytes, presence) = at.map_or_else(Default::default, |it| {
            let sent = self.sent.swap_remove(it);
            (sent.bytes, sent.presence)
        });
        self.bytes += bytes;
        self.held.insert(id, Held { used, bytes, _present: Present::new(presence) });
    }

    /// What the server holds of it is no use any more: it is closed in front of the next request.
    pub fn outdate(&mut self, id: StatementId) {
        if self.remove(id) {
            self.outdated.push(id);
        }
    }

    /// The server has dropped one of them by itself, and who knows which others: they are closed in front of the next
    /// request, and are not there from now on.
    pub fn doubt(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.outdated.extend(held.into_keys());
        self.bytes = 0;
    }

    fn remove(&mut self, id: StatementId) -> bool {
        let Some(held) = self.held.remove(&id) else { return false };
        self.bytes -= held.bytes;
        true
    }

    /// Statements to close so that there is room again. An eighth goes at once, so that a workload
    /// with more texts than room does not search the whole map for every one of them. Nothing is on its way
    /// when this is called.
    pub fn evict(&mut self) -> Vec<StatementId> {
        self.sent.clear();
        let mut closed = std::mem::take(&mut self.outdated);
        let StatementBounds { count_max, bytes_max } = self.bounds;
        let (over_count, over_bytes) = (self.held.len() > count_max, self.bytes > bytes_max);
        if !over_count && !over_bytes {
            return closed;
        }
        self.evicted.over_count += u64::from(over_count);
        self.evicted.over_bytes += u64::from(over_bytes);
        let (count_left, bytes_left) = (count_max - count_max / 8, bytes_max - bytes_max / 8);
        let mut by_age: Vec<_> = self.held.iter().map(|(id, it)| (it.used, *id)).collect();
        by_age.sort_unstable();
        for (_, id) in by_age {
            if self.held.len() <= count_left && self.bytes <= bytes_left {
                break;
            }
            self.remove(id);
            self.evicted.statements += 1;
            closed.push(id);
        }
        closed
    }

    /// Since this was last asked.
    pub fn take_evicted(&mut self) -> Evicted {
        std::mem::take(&mut self.evicted)
    }

    pub fn unnamed(&self) -> Option<StatementId> {
        self.unnamed
    }

    pub fn set_unnamed(&mut self, id: Option<StatementId>) {
        self.unnamed = id;
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(bytes_max: usize, sizes: &[usize]) -> (ServerStatements, Presence) {
        let mut it = ServerStatements::new(StatementBounds { count_max: 8, bytes_max });
        let presence = Presence::default();
        for (id, bytes) in sizes.iter().enumerate() {
            it.send(StatementId(id as u64), *bytes, &presence);
            it.insert(StatementId(id as u64));
        }
        (it, presence)
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let (mut it, presence) = holding(1_000, &[1; 9]);
        assert_eq!(presence.servers(), 9);
        assert!(it.has(StatementId(0)));
        assert_eq!(it.evict(), [StatementId(1), StatementId(2)]);
        assert!(it.has(StatementId(0)) && !it.has(StatementId(1)));
        assert_eq!(it.evict(), []);
        let evicted = Evicted { statements: 2, over_count: 1, over_bytes: 0 };
        assert_eq!((it.len(), it.take_evicted(), it.take_evicted()), (7, evicted, Evicted::default()));
        drop(it);
        assert_eq!(presence.servers(), 0, "gone with the connection");
    }

    #[test]
    fn long_texts_make_room_too() {
        let (mut it, _) = holding(100, &[50, 30, 20]);
        assert_eq!(it.evict(), []);
        it.send(StatementId(3), 1, &Presence::default());
        it.insert(StatementId(3));
        it.has(StatementId(0));
        assert_eq!(it.evict(), [StatementId(1)]);
        assert_eq!((it.bytes, it.len()), (71, 3));
        // One that is longer than all room goes with the next request.
        it.send(StatementId(4), 500, &Presence::default());
        it.insert(StatementId(4));
        assert_eq!(it.evict().len(), 4);
        assert_eq!((it.bytes, it.len()), (0, 0));
        assert_eq!(it.take_evicted(), Evicted { statements: 5, over_count: 0, over_bytes: 2 });
    }

    #[test]
    fn what_is_not_acknowledged_is_not_held() {
        let (mut it, presence) = holding(100, &[]);
        it.send(StatementId(7), 10, &presence);
        assert_eq!(it.evict(), []);
        assert!(!it.has(StatementId(7)));
        assert_eq!((it.bytes, presence.servers()), (0, 0));
    }

    #[test]
    fn what_is_in_doubt_is_closed_and_not_there() {
        let (mut it, presence) = holding(100, &[10, 10]);
        it.doubt();
        assert!(it.is_empty() && !it.has(StatementId(0)));
        assert_eq!((it.bytes, presence.servers()), (0, 0));
        let mut closed = it.evict();
        closed.sort_unstable();
        assert_eq!(closed, [StatementId(0), StatementId(1)]);
        assert_eq!((it.evict().len(), it.take_evicted()), (0, Evicted::default()));
    }

    #[test]
    fn what_is_outdated_is_closed_once() {
        let (mut it, presence) = holding(100, &[10, 10]);
        it.outdate(StatementId(0));
        it.outdate(StatementId(0));
        it.outdate(StatementId(9));
        assert!(!it.has(StatementId(0)) && it.has(StatementId(1)));
        assert_eq!(it.evict(), [StatementId(0)]);
        assert_eq!(it.evict(), []);
        assert_eq!((it.bytes, presence.servers(), it.take_evicted().statements), (10, 1, 0));
        it.clear();
        assert!(it.is_empty());
        assert_eq!(presence.servers(), 0);
    }
}
