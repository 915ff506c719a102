//! Names of prepared statements on servers: one per text and parameter types, whoever prepared it,
//! so that clients in transaction pooling share them.

use std::collections::HashMap;

/// Stands for one text with its parameter types; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u64);

/// The highest bit tells unnamed statements from named ones.
const UNNAMED: u64 = 1 << 63;

impl StatementId {
    /// Shared by clients under a name of ours.
    pub fn named(number: u64) -> StatementId {
        StatementId(number & !UNNAMED)
    }

    /// One client's unnamed statement.
    pub fn unnamed(number: u64) -> StatementId {
        StatementId(number | UNNAMED)
    }

    pub fn is_unnamed(self) -> bool {
        self.0 & UNNAMED != 0
    }

    /// The name on every server.
    pub fn server_name(self) -> String {
        format!("keyway_{}", self.0)
    }
}

/// The statements that one server connection holds, bounded; the least recently used go first.
#[derive(Debug)]
pub struct ServerStatements {
    last_use: HashMap<StatementId, u64>,
    uses: u64,
    count_max: usize,
    /// The unnamed statement, gone with the next Query (manual, "Extended Query").
    unnamed: Option<StatementId>,
}

impl ServerStatements {
    pub fn new(count_max: usize) -> ServerStatements {
        ServerStatements { last_use: HashMap::new(), uses: 0, count_max: count_max.max(1), unnamed: None }
    }

    /// Whether the server has it; counts as a use.
    pub fn has(&mut self, id: StatementId) -> bool {
        self.uses += 1;
        let uses = self.uses;
        self.last_use.get_mut(&id).map(|it| *it = uses).is_some()
    }

    /// The server has acknowledged it.
    pub fn insert(&mut self, id: StatementId) {
        self.uses += 1;
        self.last_use.insert(id, self.uses);
    }

    /// Statements to close so that there is room again. An eighth goes at once, so that a workload
    /// with more texts than room does not search the whole map for every one of them.
    pub fn evict(&mut self) -> Vec<StatementId> {
        if self.last_use.len() <= self.count_max {
            return Vec::new();
        }
        let excess = self.last_use.len() - self.count_max + self.count_max / 8;
        let mut by_age: Vec<_> = self.last_use.iter().map(|(id, used)| (*used, *id)).collect();
        by_age.sort_unstable();
        let evicted: Vec<_> = by_age.into_iter().take(excess).map(|(_, id)| id).collect();
        for id in &evicted {
            self.last_use.remove(id);
        }
        evicted
    }

    pub fn unnamed(&self) -> Option<StatementId> {
        self.unnamed
    }

    pub fn set_unnamed(&mut self, id: Option<StatementId>) {
        self.unnamed = id;
    }

    pub fn len(&self) -> usize {
        self.last_use.len()
    }

    pub fn is_empty(&self) -> bool {
        self.last_use.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_first() {
        let mut it = ServerStatements::new(8);
        (0..9).for_each(|id| it.insert(StatementId(id)));
        assert!(it.has(StatementId(0)));
        assert_eq!(it.evict(), [StatementId(1), StatementId(2)]);
        assert!(it.has(StatementId(0)) && !it.has(StatementId(1)));
        assert_eq!(it.evict(), []);
        assert_eq!(it.len(), 7);
    }
}
