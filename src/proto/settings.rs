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

/// Settings of a session, or of a server connection. Equal ones cost a pointer comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Arc<BTreeMap<String, String>>);

impl Settings {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn same(&self, other: &Settings) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }

    pub fn set(&mut self, assignment: Assignment) {
        Arc::make_mut(&mut self.0).insert(assignment.name, assignment.statement);
    }

    /// RESET: back to what the session started with, which is the server's own value where the
    /// startup packet said nothing.
    pub fn reset(&mut self, name: &str, startup: &Settings) {
        let map = Arc::make_mut(&mut self.0);
        match startup.0.get(name) {
            Some(statement) => map.insert(name.to_owned(), statement.clone()),
            None => map.remove(name),
        };
    }

    /// The statements that turn a server set up like `self` into one set up like `wanted`.
    pub fn difference(&self, wanted: &Settings) -> Vec<String> {
        let gone = self.0.keys().filter(|it| !wanted.0.contains_key(*it));
        let reset = gone.map(|it| format!("RESET {}", setting_name(it)));
        let changed = wanted.0.iter().filter(|(name, statement)| self.0.get(*name) != Some(statement));
        reset.chain(changed.map(|(_, statement)| statement.clone())).collect()
    }
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
    fn literals_survive_backslashes_and_quotes() {
        assert_eq!(quote_literal("a'b"), "'a''b'");
        assert_eq!(quote_literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(quote_name("a\"b"), "\"a\"\"b\"");
    }
}
