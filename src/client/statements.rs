//! Prepared statements: a client's names, and the texts that all clients share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::proto::StatementId;
use crate::route::{Literals, Plan, Planned, Router};

/// A text with its parameter types, and the plan for it.
#[derive(Debug)]
pub struct Statement {
    pub id: StatementId,
    pub text: Box<[u8]>,
    /// As in Parse: big-endian, four bytes each.
    pub oids: Box<[u8]>,
    pub literals: Literals,
    /// The newest one made; [`Statement::plan`] makes another where it has grown old.
    plan: ArcSwap<Plan>,
    /// Where in `text` the statement begins that is planned.
    planned_from: usize,
    /// Made by PREPARE: `text` is what stands behind its name. A server has taken it once.
    pub by_sql: Option<AtomicBool>,
}

impl Statement {
    /// PREPARE under the name that servers know it by.
    pub fn prepare_text(&self) -> String {
        format!("PREPARE {}{}", self.id.server_name(), self.text())
    }

    /// The plan by the router's rules and newest catalog (DESIGN invariant 10). During a reload sessions of two
    /// routers may share the statement: each gets its own router's, made again when the other one was here.
    pub fn plan(&self, router: &Router) -> Arc<Plan> {
        let plan = self.plan.load();
        if plan.version == router.version() {
            return plan.clone();
        }
        let newer = router.plan(self.text().get(self.planned_from..).unwrap_or_default()).plan;
        self.plan.store(newer.clone());
        newer
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
    pub fn named(&self, text: &[u8], oids: &[u8], plan: impl FnOnce() -> Planned) -> Arc<Statement> {
        self.shared((text.into(), oids.into()), None, 0, plan)
    }

    /// The same for a statement of PREPARE, whose types are part of its text: `statement` is its end.
    pub fn by_sql(&self, body: &str, statement: &str, plan: impl FnOnce() -> Planned) -> Arc<Statement> {
        let planned_from = body.len().saturating_sub(statement.len());
        // No list of types has one byte.
        self.shared((body.as_bytes().into(), [0].into()), Some(AtomicBool::new(false)), planned_from, plan)
    }

    fn shared(
        &self,
        key: Key,
        by_sql: Option<AtomicBool>,
        planned_from: usize,
        plan: impl FnOnce() -> Planned,
    ) -> Arc<Statement> {
        if let Some(found) = self.by_text.lock().get(&key).and_then(Weak::upgrade) {
            return found;
        }
        // Planned without the lock; two clients may do it at once, the first to come in wins.
        let planned = plan();
        let mut by_text = self.by_text.lock();
        if let Some(found) = by_text.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        if by_text.len() >= SWEEP_MIN && by_text.len() == by_text.capacity() {
            by_text.retain(|_, it| it.strong_count() > 0);
        }
        let id = StatementId::named(self.next_id.fetch_add(1, Ordering::Relaxed));
        let (literals, plan) = (planned.literals, ArcSwap::new(planned.plan));
        let (text, oids) = (key.0.clone(), key.1.clone());
        let made = Arc::new(Statement { id, text, oids, literals, plan, planned_from, by_sql });
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
        let (literals, plan) = (planned.literals, ArcSwap::new(planned.plan));
        let (text, oids) = (text.into(), oids.into());
        Arc::new(Statement { id, text, oids, literals, plan, planned_from: 0, by_sql: None })
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
