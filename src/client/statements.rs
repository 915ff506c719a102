//! Prepared statements: a client's names, and the texts that all clients share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Database;
use crate::proto::StatementId;
use crate::route::Planned;
use crate::sql;

/// A text with its parameter types, and the plan for it.
#[derive(Debug)]
pub struct Statement {
    pub id: StatementId,
    pub text: Box<[u8]>,
    /// As in Parse: big-endian, four bytes each.
    pub oids: Box<[u8]>,
    pub planned: Planned,
    /// Made by PREPARE: `text` is what stands behind its name. A server has taken it once.
    pub by_sql: Option<AtomicBool>,
}

impl Statement {
    /// PREPARE under the name that servers know it by.
    pub fn prepare_text(&self) -> String {
        format!("PREPARE {}{}", self.id.server_name(), self.text())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    pub fn oids(&self) -> Vec<u32> {
        self.oids.as_chunks::<4>().0.iter().map(|it| u32::from_be_bytes(*it)).collect()
    }
}

type Key = (Box<[u8]>, Box<[u8]>);

/// One id per text and types of a database, as long as some client uses it.
#[derive(Default)]
pub struct Registry {
    by_text: Mutex<HashMap<Key, Weak<Statement>>>,
    next_id: AtomicU64,
}

/// The map is swept when it has doubled since the last sweep.
const SWEEP_MIN: usize = 1_024;

impl Registry {
    /// The statement that all clients share under one server-side name.
    /// `version` is that of the plan.
    pub fn named(
        &self,
        text: &[u8],
        oids: &[u8],
        version: u64,
        plan: impl FnOnce() -> Planned,
    ) -> Arc<Statement> {
        self.shared((text.into(), oids.into()), None, version, plan)
    }

    /// The same for a statement of PREPARE, whose types are part of its text.
    pub fn by_sql(&self, body: &str, version: u64, plan: impl FnOnce() -> Planned) -> Arc<Statement> {
        // No list of types has one byte.
        self.shared((body.as_bytes().into(), [0].into()), Some(false), version, plan)
    }

    /// `taken` as in `Statement::by_sql`, where nobody has the text yet.
    fn shared(
        &self,
        key: Key,
        taken: Option<bool>,
        version: u64,
        plan: impl FnOnce() -> Planned,
    ) -> Arc<Statement> {
        let is_current = |it: &Arc<Statement>| it.planned.plan.version == version;
        if let Some(found) = self.by_text.lock().get(&key).and_then(Weak::upgrade).filter(is_current) {
            return found;
        }
        // Planned without the lock; two clients may do it at once, the first to come in wins.
        let planned = plan();
        let mut by_text = self.by_text.lock();
        let before = by_text.get(&key).and_then(Weak::upgrade);
        if let Some(found) = before.clone().filter(is_current) {
            return found;
        }
        if by_text.len() >= SWEEP_MIN && by_text.len() == by_text.capacity() {
            by_text.retain(|_, it| it.strong_count() > 0);
        }
        // Under another version of the maps it is the same statement to servers.
        let next = || StatementId::named(self.next_id.fetch_add(1, Ordering::Relaxed));
        let id = before.as_ref().map_or_else(next, |it| it.id);
        let known = before.as_ref().and_then(|it| it.by_sql.as_ref()).map(|it| it.load(Ordering::Relaxed));
        let by_sql = known.or(taken).map(AtomicBool::new);
        let made = Arc::new(Statement { id, text: key.0.clone(), oids: key.1.clone(), planned, by_sql });
        by_text.insert(key, Arc::downgrade(&made));
        made
    }

    /// Those that clients share, and how many have each.
    pub fn all(&self) -> Vec<(Arc<Statement>, usize)> {
        let by_text = self.by_text.lock();
        let mut found: Vec<_> = by_text.values().filter_map(Weak::upgrade).collect();
        drop(by_text);
        found.sort_by_key(|it| it.id);
        // One is held here.
        found.into_iter().map(|it| (Arc::strong_count(&it) - 1, it)).map(|(count, it)| (it, count)).collect()
    }

    /// A statement of this client alone.
    pub fn unnamed(&self, text: &[u8], oids: &[u8], planned: Planned) -> Arc<Statement> {
        let id = StatementId::unnamed(self.next_id.fetch_add(1, Ordering::Relaxed));
        Arc::new(Statement { id, text: text.into(), oids: oids.into(), planned, by_sql: None })
    }
}

/// The names of one client.
#[derive(Default)]
pub struct Names {
    named: HashMap<Box<[u8]>, Arc<Statement>>,
    unnamed: Option<Arc<Statement>>,
    /// Texts of `named`.
    bytes: usize,
}

impl Names {
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    pub fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        if name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.bytes += statement.text.len();
            if let Some(old) = self.named.insert(name.into(), statement) {
                self.bytes -= old.text.len();
            }
        }
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        if name.is_empty() {
            return self.unnamed.take().is_some();
        }
        let removed = self.named.remove(name);
        self.bytes -= removed.as_ref().map_or(0, |it| it.text.len());
        removed.is_some()
    }

    /// Plans carry the version of the maps that they were made with: an older one is never used (DESIGN
    /// invariant 10).
    pub fn plan_again(&mut self, database: &Database) {
        let (router, registry) = (&database.router, &database.statements);
        for it in self.named.values_mut() {
            *it = if it.by_sql.is_some() {
                let text = it.prepare_text();
                let Some(prepare) = sql::prepare_text(&text) else { continue };
                registry.by_sql(prepare.body, router.version(), || router.plan(prepare.statement))
            } else {
                registry.named(&it.text, &it.oids, router.version(), || router.plan(it.text()))
            };
        }
        if let Some(it) = &mut self.unnamed {
            let (text, oids) = (it.text.clone(), it.oids.clone());
            let planned = router.plan(it.text());
            *it = Arc::new(Statement { id: it.id, text, oids, planned, by_sql: None });
        }
    }

    pub fn clear(&mut self) {
        *self = Names::default();
    }

    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// Texts of the named ones.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
