//! What a session has set, as statements that set it again on another server (DESIGN D6, "emulate").

use std::collections::BTreeMap;
use std::sync::Arc;

/// One setting: the statement that makes it so. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub name: String,
    pub statement: String,
}

impl Assignment {
    /// A setting of the startup packet, or of set_config. Not SET: that would take a list such as
    /// `a, b` of search_path for one name.
    pub fn of_value(name: &str, value: &str) -> Assignment {
        Assignment { name: name.to_ascii_lowercase(), statement: set_config(name, Some(value), false) }
    }
}

/// Who the session is to the server; other settings are judged by it. SET SESSION AUTHORIZATION ends a SET
/// ROLE, and neither RESET ALL nor a change of other settings touches them.
const SESSION_AUTHORIZATION: &str = "session_authorization";
const ROLE: &str = "role";

/// A statement, and when it was made among the others: a privileged setting comes in front of the SET
/// ROLE that gave the privilege away.
#[derive(Clone, Debug)]
struct Made {
    statement: String,
    order: u32,
}

impl PartialEq for Made {
    fn eq(&self, other: &Made) -> bool {
        self.statement == other.statement
    }
}

impl Eq for Made {}

/// Settings of a session, or of a server connection. Equal ones cost a pointer comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Arc<Known>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    made: BTreeMap<String, Made>,
    /// One of them is custom: asked for with each statement, as those of Keyway are.
    has_custom: bool,
}

impl Settings {
    pub fn is_empty(&self) -> bool {
        self.0.made.is_empty()
    }

    /// Whether it says anything of this setting.
    pub fn has(&self, name: &str) -> bool {
        self.0.made.contains_key(name)
    }

    /// Whether it says anything of a custom setting whose name begins like this.
    pub fn has_custom(&self, prefix: &str) -> bool {
        if !self.0.has_custom {
            return false;
        }
        let from = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
        self.0.made.range::<str, _>(from).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    pub fn same(&self, other: &Settings) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }

    /// As `same`; equal ones become one, so that the next comparison is that of a pointer. It is the one at
    /// the lower address: sessions and servers that meet again and again all come to share it.
    pub fn unite(&mut self, other: &mut Settings) -> bool {
        if Arc::ptr_eq(&self.0, &other.0) {
            return true;
        }
        if self.0 != other.0 {
            return false;
        }
        if Arc::as_ptr(&self.0) < Arc::as_ptr(&other.0) {
            other.0 = self.0.clone();
        } else {
            self.0 = other.0.clone();
        }
        true
    }

    /// Takes the place of all settings that PostgreSQL shows (`visible`: name and value). What it does not show
    /// is at the session's start value, and custom ones (`app.tenant`), which it never shows, as they were.
    pub fn adopt(&mut self, visible: Vec<(String, String)>, startup: &Settings) {
        let mut kept = self.0.made.iter().filter(|(name, _)| is_custom(name)).collect::<Vec<_>>();
        kept.sort_by_key(|(_, it)| it.order);
        let mut next = startup.clone();
        for (name, it) in kept {
            next.set(Assignment { name: name.clone(), statement: it.statement.clone() });
        }
        // Who the session is comes last, and SET ROLE behind SET SESSION AUTHORIZATION, which ends it.
        let (identity, others): (Vec<_>, Vec<_>) = visible.into_iter().partition(|it| is_identity(&it.0));
        let (role, session): (Vec<_>, Vec<_>) = identity.into_iter().partition(|it| it.0 == ROLE);
        for (name, value) in others.into_iter().chain(session).chain(role) {
            next.set(Assignment::of_value(&name, &value));
        }
        *self = next;
    }

    /// The statement that makes a setting so, where the session has set it.
    pub fn statement(&self, name: &str) -> Option<&str> {
        self.0.made.get(name).map(|it| &it.statement[..])
    }

    pub fn set(&mut self, assignment: Assignment) {
        let Assignment { name, statement } = assignment;
        let known = Arc::make_mut(&mut self.0);
        if name == SESSION_AUTHORIZATION {
            known.made.remove(ROLE);
        }
        known.has_custom |= is_custom(&name);
        let order = known.made.values().map(|it| it.order + 1).max().unwrap_or(0);
        known.made.insert(name, Made { statement, order });
    }

    /// RESET: back to what the session started with, which is the server's own value where the
    /// startup packet said nothing. A custom setting goes on to exist by that (`find_option` of `guc.c`
    /// makes a placeholder of it), so the RESET itself is what another server has to see.
    pub fn reset(&mut self, name: &str, startup: &Settings) {
        match startup.0.made.get(name) {
            Some(it) => self.set(Assignment { name: name.to_owned(), statement: it.statement.clone() }),
            None if is_custom(name) => self.set(reset_of(name)),
            None => {
                let known = Arc::make_mut(&mut self.0);
                known.made.remove(name);
                if name == SESSION_AUTHORIZATION {
                    known.made.remove(ROLE);
                }
            }
        }
    }

    /// RESET ALL, which leaves ROLE and SESSION AUTHORIZATION as they are (`GUC_NO_RESET_ALL`).
    pub fn reset_all(&mut self, startup: &Settings) {
        let mut next = startup.clone();
        for name in self.0.made.keys().filter(|it| is_custom(it) && !startup.0.made.contains_key(*it)) {
            next.set(reset_of(name));
        }
        let identity = self.0.made.iter().filter(|(name, _)| is_identity(name));
        let mut identity: Vec<_> = identity.map(|(name, it)| (it.order, name, &it.statement)).collect();
        identity.sort_unstable();
        for (_, name, statement) in identity {
            next.set(Assignment { name: name.clone(), statement: statement.clone() });
        }
        *self = next;
    }

    /// The statements that turn a server set up like `self` into one set up like `wanted`.
    pub fn difference(&self, wanted: &Settings) -> Vec<String> {
        if self.same(wanted) {
            return Vec::new();
        }
        let has = |it: &Settings, name| it.0.made.contains_key(name);
        let mut out = Vec::new();
        // What is set is judged by who sets it: the login's own privileges come back first.
        if has(self, SESSION_AUTHORIZATION) {
            out.push("RESET SESSION AUTHORIZATION".to_owned());
        }
        if has(self, ROLE) || has(self, SESSION_AUTHORIZATION) {
            out.push("RESET ROLE".to_owned());
        }
        let gone =
            self.0.made.iter().filter(|(name, _)| !wanted.0.made.contains_key(*name) && !is_identity(name));
        let gone = gone.map(|(name, made)| (reset_of(name).statement, made));
        // What was reset last is so already.
        out.extend(gone.filter(|(reset, made)| *reset != made.statement).map(|(reset, _)| reset));
        let changed = wanted
            .0
            .made
            .iter()
            .filter(|(name, made)| is_identity(name) || self.0.made.get(*name) != Some(made));
        let mut changed: Vec<_> = changed.map(|(_, made)| made).collect();
        changed.sort_by_key(|it| it.order);
        out.extend(changed.into_iter().map(|it| it.statement.clone()));
        out
    }
}

/// A setting no module of the server knows (`app.tenant`): it exists from the first SET or RESET of it on.
fn is_custom(name: &str) -> bool {
    name.contains('.')
}

fn reset_of(name: &str) -> Assignment {
    Assignment { name: name.to_owned(), statement: format!("RESET {}", setting_name(name)) }
}

fn is_identity(name: &str) -> bool {
    name == SESSION_AUTHORIZATION || name == ROLE
}

/// The call that makes a setting; without a value it goes back to its default.
pub fn set_config(name: &str, value: Option<&str>, local: bool) -> String {
    let value = value.map_or("NULL".to_owned(), quote_literal);
    format!("SELECT pg_catalog.set_config({}, {value}, {local})", quote_literal(name))
}

/// A setting's name, each part quoted: `app.tenant` has two.
fn setting_name(name: &str) -> String {
    name.split('.').map(quote_name).collect::<Vec<_>>().join(".")
}

/// An identifier in double quotes.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal that means the same whatever standard_conforming_strings says.
pub fn quote_literal(text: &str) -> String {
    if text.contains('\\') {
        format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut it = Settings::default();
        for (name, value) in pairs {
            it.set(Assignment::of_value(name, value));
        }
        it
    }

    #[test]
    fn the_difference_resets_what_is_gone_and_sets_what_changed() {
        let server = settings(&[("work_mem", "4MB"), ("timezone", "UTC")]);
        let session = settings(&[("timezone", "UTC"), ("app.tenant", "o'neil")]);
        assert_eq!(
            server.difference(&session),
            ["RESET \"work_mem\"", "SELECT pg_catalog.set_config('app.tenant', 'o''neil', false)"]
        );
        assert!(session.difference(&session.clone()).is_empty());
    }

    #[test]
    fn custom_settings_are_found_by_how_their_names_begin() {
        let mut session = settings(&[("work_mem", "4MB"), ("timezone", "UTC")]);
        assert!(!session.has_custom("keyway."));
        session.set(Assignment::of_value("app.tenant", "7"));
        assert!(!session.has_custom("keyway.") && session.has_custom("app."));
        session.set(Assignment::of_value("keyway.shard", "s1"));
        // It goes on to exist: the RESET is what other servers have to see.
        session.reset("keyway.shard", &Settings::default());
        session.reset_all(&Settings::default());
        assert!(session.has_custom("keyway.") && !session.has("work_mem"));
    }

    #[test]
    fn equal_settings_become_one_and_others_stay_apart() {
        let mut all: Vec<Settings> = (0..4).map(|_| settings(&[("timezone", "UTC")])).collect();
        let (left, right) = all.split_at_mut(2);
        for _ in 0..2 {
            for session in &mut *left {
                for server in &mut *right {
                    assert!(session.unite(server));
                }
            }
        }
        assert!(all.iter().all(|it| Arc::ptr_eq(&it.0, &all[0].0)));
        let mut other = settings(&[("timezone", "Asia/Tokyo")]);
        assert!(!all[0].unite(&mut other));
        assert_eq!(other, settings(&[("timezone", "Asia/Tokyo")]));
        all[0].set(Assignment::of_value("work_mem", "1MB"));
        assert_eq!(all[1], settings(&[("timezone", "UTC")]), "what one sets is not the others'");
    }

    #[test]
    fn reset_goes_back_to_the_clients_own_startup_value() {
        let startup = settings(&[("timezone", "UTC")]);
        let mut it = startup.clone();
        it.set(Assignment::of_value("timezone", "Asia/Tokyo"));
        it.set(Assignment::of_value("work_mem", "1MB"));
        it.reset("timezone", &startup);
        it.reset("work_mem", &startup);
        assert!(it.same(&startup));
    }

    #[test]
    fn a_custom_setting_exists_after_a_reset_of_it() {
        let startup = settings(&[("app.region", "eu")]);
        let mut it = startup.clone();
        it.set(Assignment::of_value("app.tenant", "7"));
        it.set(Assignment::of_value("app.region", "us"));
        let set = it.clone();
        it.reset("app.tenant", &startup);
        it.reset("app.region", &startup);
        assert_eq!(startup.difference(&it), ["RESET \"app\".\"tenant\""]);
        assert!(it.difference(&startup).is_empty(), "a server where it was reset needs no other");
        let mut all = set;
        all.reset_all(&startup);
        assert_eq!(all, it);
    }

    #[test]
    fn a_role_stands_where_it_was_taken_and_is_given_back_first() {
        let set = |name: &str, statement: &str| Assignment { name: name.into(), statement: statement.into() };
        let mut it = Settings::default();
        it.set(set("log_statement", "SET log_statement = 'all'"));
        it.set(set("role", "SET ROLE app"));
        it.set(set("work_mem", "SET work_mem = '1MB'"));
        let fresh = Settings::default();
        let forth = ["SET log_statement = 'all'", "SET ROLE app", "SET work_mem = '1MB'"];
        assert_eq!(fresh.difference(&it), forth);
        assert_eq!(it.difference(&fresh), ["RESET ROLE", "RESET \"log_statement\"", "RESET \"work_mem\""]);
        let mut more = it.clone();
        more.set(set("work_mem", "SET work_mem = '2MB'"));
        assert_eq!(it.difference(&more), ["RESET ROLE", "SET ROLE app", "SET work_mem = '2MB'"]);
        it.reset_all(&fresh);
        assert_eq!(fresh.difference(&it), ["SET ROLE app"], "RESET ALL leaves it");
        it.set(set("session_authorization", "SET SESSION AUTHORIZATION b"));
        assert_eq!(fresh.difference(&it), ["SET SESSION AUTHORIZATION b"]);
        it.set(set("role", "SET ROLE c"));
        assert_eq!(it.difference(&fresh), ["RESET SESSION AUTHORIZATION", "RESET ROLE"]);
        it.reset("session_authorization", &fresh);
        assert!(it.is_empty());
    }

    #[test]
    fn what_the_server_shows_takes_the_place_of_what_was_set() {
        let startup = settings(&[("timezone", "UTC"), ("geqo", "off")]);
        let mut it = startup.clone();
        for (name, value) in [("work_mem", "1MB"), ("timezone", "Asia/Tokyo"), ("app.tenant", "7")] {
            it.set(Assignment::of_value(name, value));
        }
        it.adopt(vec![("role".into(), "app".into()), ("geqo".into(), "on".into())], &startup);
        let mut want = settings(&[("timezone", "UTC"), ("geqo", "on"), ("app.tenant", "7")]);
        want.set(Assignment::of_value("role", "app"));
        assert_eq!(it, want);
    }

    #[test]
    fn literals_survive_backslashes_and_quotes() {
        assert_eq!(quote_literal("a'b"), "'a''b'");
        assert_eq!(quote_literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(quote_name("a\"b"), "\"a\"\"b\"");
    }
}
