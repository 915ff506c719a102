//! Prepared statements: a client's names, and the texts that all clients share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::proto::{Presence, StatementId};
use crate::route::{Literals, Plan, Planned, Router};
use crate::sql::{ColumnLists, Moves, NamedText, PrepareText};

/// A text with its parameter types, and the plan for it.
#[derive(Debug)]
pub struct Statement {
    pub id: StatementId,
    /// Its name on servers, made once; empty for an unnamed one.
    name: Box<str>,
    pub text: Box<str>,
    /// As in Parse: big-endian, four bytes each.
    pub oids: Box<[u8]>,
    pub literals: Literals,
    /// The newest one made; [`Statement::plan`] makes another where it has grown old.
    plan: ArcSwap<Plan>,
    /// Made by PREPARE.
    by_sql: Option<BySql>,
    named: Option<Box<Named>>,
    /// Servers that have it.
    pub presence: Presence,
}

/// What servers get in place of a text that leaves columns to the catalog.
#[derive(Debug)]
struct Named {
    lists: Arc<ColumnLists>,
    text: String,
    moves: Arc<Moves>,
}

impl Named {
    fn of(text: &str, plan: &Plan) -> Option<Box<Named>> {
        let lists = plan.column_lists()?.clone();
        let NamedText { text, moves } = lists.name(text);
        Some(Box::new(Named { lists, text, moves: Arc::new(moves) }))
    }
}

/// What PREPARE says beyond the statement.
#[derive(Debug)]
struct BySql {
    /// All behind its name, with the statement at its end.
    body: Box<str>,
    /// A server has taken it once.
    taken: AtomicBool,
    /// The types that it declares are known by their oids, so that Parse can make the same of it.
    typed: bool,
}

impl Statement {
    /// PREPARE under the name that servers know it by; `None` of one that was made by Parse.
    pub fn prepare_text(&self) -> Option<String> {
        let by_sql = self.by_sql.as_ref()?;
        let types = by_sql.body.strip_suffix(self.text()).unwrap_or(&by_sql.body);
        let text = std::str::from_utf8(self.server_text()).unwrap_or_default();
        Some(format!("PREPARE {}{types}{text}", self.name))
    }

    /// What servers parse.
    pub fn server_text(&self) -> &[u8] {
        self.named.as_ref().map_or(self.text.as_bytes(), |it| it.text.as_bytes())
    }

    /// What servers know it by; empty for an unnamed one.
    pub fn server_name(&self) -> &str {
        &self.name
    }

    /// A Parse of this text and these types made it.
    pub fn is_parse_of(&self, text: &[u8], oids: &[u8]) -> bool {
        self.by_sql.is_none() && self.text.as_bytes() == text && *self.oids == *oids
    }

    /// How places of errors in `server_text` lie in the client's text, if that is another one.
    pub fn moves(&self) -> Option<&Arc<Moves>> {
        self.named.as_ref().map(|it| &it.moves)
    }

    /// Servers get the columns that the plan has taken for those of the table.
    pub fn is_of(&self, plan: &Plan) -> bool {
        self.named.as_ref().map(|it| &it.lists) == plan.column_lists()
    }

    /// A server gets it by PREPARE alone: it declares types of which no oid is known.
    pub fn is_prepared_alone(&self) -> bool {
        self.by_sql.as_ref().is_some_and(|it| !it.typed)
    }

    /// Some server has taken the text of its PREPARE.
    pub fn is_taken(&self) -> bool {
        self.by_sql.as_ref().is_some_and(|it| it.taken.load(Ordering::Relaxed))
    }

    /// A server has taken it, should it have been made by PREPARE.
    pub fn mark_taken(&self) {
        if let Some(it) = &self.by_sql {
            it.taken.store(true, Ordering::Relaxed);
        }
    }

    fn key(&self) -> Key {
        match &self.by_sql {
            Some(it) => key_by_sql(&it.body),
            None => (self.text.as_bytes().into(), self.oids.clone()),
        }
    }

    /// The plan by the router's rules and newest catalog (DESIGN invariant 10). During a reload sessions of two
    /// routers may share the statement: each gets its own router's, made again when the other one was here.
    pub fn plan(&self, router: &Router) -> Arc<Plan> {
        let plan = self.plan.load();
        if plan.version == router.version() {
            return plan.clone();
        }
        let newer = router.plan(self.text()).plan;
        self.plan.store(newer.clone());
        newer
    }

    /// Whether its plan is the newest, and it is as servers are to have it by that: what `Session::current` gives then.
    pub fn is_current(&self, router: &Router) -> bool {
        let plan = self.plan.load();
        plan.version == router.version() && self.is_of(&plan)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn oids(&self) -> impl Iterator<Item = u32> {
        self.oids.as_chunks::<4>().0.iter().map(|it| u32::from_be_bytes(*it))
    }
}

/// A shared statement as `Registry::snapshot` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedStatus {
    /// The name on servers.
    pub name: String,
    pub text: String,
    /// Types of parameters that its clients gave.
    pub oids: Vec<u32>,
    /// Made by PREPARE.
    pub by_sql: bool,
    /// Clients that have it.
    pub clients: usize,
    /// How often clients have prepared it.
    pub uses: u64,
    /// Server connections that have it.
    pub servers: u32,
}

type Key = (Box<[u8]>, Box<[u8]>);

/// No list of types has one byte.
fn key_by_sql(body: &str) -> Key {
    (body.as_bytes().into(), [0].into())
}

#[derive(Debug)]
struct Entry {
    statement: Weak<Statement>,
    uses: u64,
}

/// One id per text and types of a database, as long as some client uses it.
#[derive(Default)]
pub struct Registry {
    by_text: Mutex<HashMap<Key, Entry>>,
    next_id: AtomicU64,
}

/// The map is swept when it has doubled since the last sweep.
const SWEEP_MIN: usize = 1_024;

impl Registry {
    /// The statement that all clients share under one server-side name.
    pub fn named(&self, text: &str, oids: &[u8], plan: impl FnOnce() -> Planned) -> Arc<Statement> {
        self.shared((text.as_bytes().into(), oids.into()), plan, |id, planned| Statement {
            id,
            name: server_name(id),
            text: text.into(),
            oids: oids.into(),
            literals: planned.literals,
            named: Named::of(text, &planned.plan),
            plan: ArcSwap::new(planned.plan),
            by_sql: None,
            presence: Presence::default(),
        })
    }

    /// The same for a statement of PREPARE, whose types are part of its text.
    pub fn by_sql(&self, prepare: &PrepareText<'_>, plan: impl FnOnce() -> Planned) -> Arc<Statement> {
        let oids = prepare.oids.as_deref().unwrap_or_default();
        self.shared(key_by_sql(prepare.body), plan, |id, planned| Statement {
            id,
            name: server_name(id),
            text: prepare.statement.into(),
            oids: oids.iter().flat_map(|it| it.to_be_bytes()).collect(),
            literals: planned.literals,
            named: Named::of(prepare.statement, &planned.plan),
            plan: ArcSwap::new(planned.plan),
            by_sql: Some(BySql {
                body: prepare.body.into(),
                taken: AtomicBool::new(false),
                typed: prepare.oids.is_some(),
            }),
            presence: Presence::default(),
        })
    }

    fn shared(
        &self,
        key: Key,
        plan: impl FnOnce() -> Planned,
        make: impl FnOnce(StatementId, Planned) -> Statement,
    ) -> Arc<Statement> {
        if let Some(found) = take(&mut self.by_text.lock(), &key) {
            return found;
        }
        // Planned without the lock; two clients may do it at once, the first to come in wins.
        let planned = plan();
        let mut by_text = self.by_text.lock();
        if let Some(found) = take(&mut by_text, &key) {
            return found;
        }
        if by_text.len() >= SWEEP_MIN && by_text.len() == by_text.capacity() {
            by_text.retain(|_, it| it.statement.strong_count() > 0);
        }
        let id = StatementId::named(self.next_id.fetch_add(1, Ordering::Relaxed));
        let made = Arc::new(make(id, planned));
        let statement = Arc::downgrade(&made);
        by_text.insert(key, Entry { statement, uses: 1 });
        made
    }

    /// Servers may describe it otherwise than they did: whoever prepares the text from now on gets a
    /// statement that no server has yet.
    pub fn retire(&self, statement: &Arc<Statement>) {
        let is_it = |it: &Entry| it.statement.upgrade().is_some_and(|it| it.id == statement.id);
        let key = statement.key();
        let mut by_text = self.by_text.lock();
        if by_text.get(&key).is_some_and(is_it) {
            by_text.remove(&key);
        }
    }

    /// As `retire`, of all.
    pub fn retire_all(&self) {
        self.by_text.lock().clear();
    }

    /// Of those that some client has.
    pub fn count(&self) -> usize {
        self.by_text.lock().values().filter(|it| it.statement.strong_count() > 0).count()
    }

    /// What some client has prepared, in the order in which it was first prepared.
    pub fn snapshot(&self) -> Vec<PreparedStatus> {
        let found = |it: &Entry| it.statement.upgrade().map(|statement| (statement, it.uses));
        let mut found: Vec<_> = self.by_text.lock().values().filter_map(found).collect();
        found.sort_unstable_by_key(|(statement, _)| statement.id);
        let status = |(it, uses): (Arc<Statement>, u64)| PreparedStatus {
            name: it.id.server_name(),
            text: it.by_sql.as_ref().map_or_else(|| it.text(), |by_sql| &by_sql.body).to_owned(),
            oids: if it.by_sql.is_some() { Vec::new() } else { it.oids().collect() },
            by_sql: it.by_sql.is_some(),
            // One is held here.
            clients: Arc::strong_count(&it) - 1,
            uses,
            servers: it.presence.servers(),
        };
        found.into_iter().map(status).collect()
    }

    /// A statement of this client alone.
    pub fn unnamed(&self, text: &str, oids: &[u8], planned: Planned) -> Arc<Statement> {
        let id = StatementId::unnamed(self.next_id.fetch_add(1, Ordering::Relaxed));
        let named = Named::of(text, &planned.plan);
        let (literals, plan) = (planned.literals, ArcSwap::new(planned.plan));
        let (text, oids, presence) = (text.into(), oids.into(), Presence::default());
        let name = server_name(id);
        Arc::new(Statement { id, name, text, oids, literals, plan, by_sql: None, named, presence })
    }

    /// In place of `old`, which is not as its plan is any more: another one of its text, for all who prepare it.
    pub fn renewed(&self, old: &Statement, planned: Planned) -> Arc<Statement> {
        if old.id.is_unnamed() {
            return self.unnamed(&old.text, &old.oids, planned);
        }
        let key = old.key();
        let mut by_text = self.by_text.lock();
        let entry = by_text.get(&key);
        let uses = entry.map_or(1, |it| it.uses);
        if let Some(found) = entry.and_then(|it| it.statement.upgrade())
            && found.is_of(&planned.plan)
        {
            return found;
        }
        let by_sql = old.by_sql.as_ref().map(|it| BySql {
            body: it.body.clone(),
            taken: AtomicBool::new(it.taken.load(Ordering::Relaxed)),
            typed: it.typed,
        });
        let id = StatementId::named(self.next_id.fetch_add(1, Ordering::Relaxed));
        let made = Arc::new(Statement {
            id,
            name: server_name(id),
            text: old.text.clone(),
            oids: old.oids.clone(),
            literals: planned.literals,
            named: Named::of(&old.text, &planned.plan),
            plan: ArcSwap::new(planned.plan),
            by_sql,
            presence: Presence::default(),
        });
        by_text.insert(key, Entry { statement: Arc::downgrade(&made), uses });
        made
    }
}

fn server_name(id: StatementId) -> Box<str> {
    if id.is_unnamed() { Box::default() } else { id.server_name().into() }
}

/// The statement of a text, prepared once more.
fn take(by_text: &mut HashMap<Key, Entry>, key: &Key) -> Option<Arc<Statement>> {
    let entry = by_text.get_mut(key)?;
    let found = entry.statement.upgrade()?;
    entry.uses += 1;
    Some(found)
}

/// The names of one client.
#[derive(Default)]
pub struct Names {
    /// Not there for a client that names none.
    named: Option<Box<NamesInUse>>,
    unnamed: Option<Arc<Statement>>,
}

#[derive(Default)]
struct NamesInUse {
    by_name: HashMap<Box<[u8]>, Arc<Statement>>,
    /// Texts of all.
    bytes: usize,
}

impl Names {
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        match name {
            b"" => self.unnamed.as_ref(),
            _ => self.named.as_ref()?.by_name.get(name),
        }
    }

    pub fn insert(&mut self, name: &[u8], statement: &Arc<Statement>) {
        if name.is_empty() {
            // The same text was parsed once more.
            if !self.unnamed.as_ref().is_some_and(|it| Arc::ptr_eq(it, statement)) {
                self.unnamed = Some(statement.clone());
            }
        } else {
            let named = self.named.get_or_insert_default();
            named.bytes += statement.text.len();
            if let Some(old) = named.by_name.insert(name.into(), statement.clone()) {
                named.bytes -= old.text.len();
            }
        }
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        if name.is_empty() {
            return self.unnamed.take().is_some();
        }
        let Some(named) = &mut self.named else { return false };
        let removed = named.by_name.remove(name);
        named.bytes -= removed.as_ref().map_or(0, |it| it.text.len());
        removed.is_some()
    }

    pub fn clear(&mut self) {
        *self = Names::default();
    }

    /// As DEALLOCATE ALL, which leaves the unnamed statement.
    pub fn clear_named(&mut self) {
        self.named = None;
    }

    pub fn len(&self) -> usize {
        self.named.as_ref().map_or(0, |it| it.by_name.len())
    }

    /// Texts of the named ones.
    pub fn bytes(&self) -> usize {
        self.named.as_ref().map_or(0, |it| it.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sql::Parser;

    #[test]
    fn a_text_is_one_statement_until_it_is_retired() {
        let text = "[users.app]\npassword = \"x\"\n[databases.shop]\nservers = [\"127.0.0.1\"]\n";
        let config = Config::parse(text, std::path::Path::new("."), &|_| None).unwrap();
        let router = Router::new(&config.databases[0], 16, Arc::new(Parser::new()));
        let registry = Registry::default();
        let named = |text: &str| registry.named(text, &[], || router.plan(text));
        let (one, again, other) = (named("SELECT 1"), named("SELECT 1"), named("SELECT 2"));
        assert!(Arc::ptr_eq(&one, &again) && one.id != other.id);
        let status = registry.snapshot();
        assert_eq!((status.len(), status[0].uses, status[0].servers), (2, 2, 0));
        assert_eq!((&status[0].text[..], &status[1].text[..]), ("SELECT 1", "SELECT 2"));
        registry.retire(&one);
        let renewed = named("SELECT 1");
        assert_ne!(renewed.id, one.id);
        registry.retire(&one);
        assert!(Arc::ptr_eq(&renewed, &named("SELECT 1")), "another's retirement is not its own");
        drop(other);
        assert_eq!(registry.snapshot().len(), 1);
    }
}
