//! What ties a client to one server connection, for how long, and how it is found out.
//!
//! ```text
//!              a statement may leave state         probe finds it
//!   free ───────────────────────────▶ suspected ────────────────▶ pinned
//!    ▲                                  │    ▲                      │
//!    │ probe finds nothing              │    │ may have given it    │
//!    ├──────────────────────────────────┘    └── back (CLOSE, DROP ─┤
//!    │                                            UNLISTEN ...)     │
//!    └───────────────────────── DISCARD ALL ────────────────────────┘
//! ```
//! The probe runs when a transaction is over, behind the answer, so no statement waits for it but the
//! client's own next one. What no catalog shows pins at once. Nothing suspected costs nothing.

use super::attach::run_own;
use super::session::Session;
use super::sql_prepare::Renamed;
use crate::proto::{Origin, Settings, quote_literal};
use crate::route::{Kind, Plan, SetStatement};

/// Why state may be on the server that only its client may meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    pub reason: &'static str,
    /// Code that Keyway cannot follow has run: settings may have changed too.
    pub opaque: bool,
    /// Custom settings that may have been made: PostgreSQL lists none of them.
    pub custom: Vec<String>,
}

/// The server itself listens: the statement was not sent by itself, or code did it.
pub(super) const LISTEN: &str = "LISTEN";

/// How the state that a statement leaves can be found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    Probed,
    Opaque,
    /// No catalog shows it: kept until DISCARD ALL.
    Hidden,
}

fn trace(reason: &str) -> Trace {
    match reason {
        "DO" | "CALL" | "EXECUTE" | "function" | "not_understood" | "set_config" | "set_among_statements" => {
            Trace::Opaque
        }
        "currval" | "setseed" | "dblink connection" | "replication origin" => Trace::Hidden,
        _ => Trace::Probed,
    }
}

/// The state that pins, by name, or NULL. Statements of Keyway's own names are not the client's.
const STATE: &str = "SELECT CASE \
    WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql AND name !~ '^keyway_') \
        THEN 'PREPARE' \
    WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) THEN 'WITH HOLD cursor' \
    WHEN EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) THEN 'LISTEN' \
    WHEN EXISTS (SELECT FROM pg_catalog.pg_locks \
        WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()) THEN 'session advisory lock' \
    WHEN pg_catalog.pg_my_temp_schema() <> 0 AND EXISTS (SELECT FROM pg_catalog.pg_depend \
        WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass \
        AND refobjid = pg_catalog.pg_my_temp_schema()) THEN 'temporary object' END";

/// Settings that differ from what a new session has, and who the session is.
const SETTINGS: &str = "; SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
    WHERE source = 'session' AND name !~ '^transaction_' AND name <> 'client_encoding' \
    UNION ALL SELECT 'role', pg_catalog.current_setting('role') \
    UNION ALL SELECT 'session_authorization', session_user::pg_catalog.text";

/// The labels of pins as metrics and SHOW PINS have them.
const REASONS: [&str; 5] =
    ["PREPARE", "WITH HOLD cursor", "LISTEN", "session advisory lock", "temporary object"];

impl Session {
    /// Takes note of what `plan` may leave behind, before it runs.
    pub fn suspect(&mut self, plan: &Plan, text: &str) {
        if self.is_session() {
            // Its server is nobody else's, whatever is left there.
            return;
        }
        let reason = match &plan.kind {
            Kind::SessionState(reason) => Some(*reason),
            Kind::Listen(_) => Some(LISTEN),
            Kind::Several { parts, .. } => parts.iter().find_map(|it| match it {
                Kind::SessionState(reason) => Some(*reason),
                Kind::Listen(_) => Some(LISTEN),
                Kind::Set(it) if !is_local(it) => Some("set_among_statements"),
                _ => None,
            }),
            _ if !plan.understood => Some("not_understood"),
            _ => None,
        };
        if let Some(reason) = reason {
            match trace(reason) {
                Trace::Hidden => self.pin(reason),
                Trace::Probed => self.raise(reason, false, Vec::new()),
                Trace::Opaque => self.raise(reason, true, custom_settings(&plan.kind, text)),
            }
        } else if let Some(reason) = self.pinned.filter(|it| plan.may_release && trace(it) == Trace::Probed) {
            self.raise(reason, false, Vec::new());
        }
    }

    /// As `suspect`: PREPARE under a name of Keyway's leaves nothing, and EXECUTE what its statement leaves.
    pub fn suspect_renamed(&mut self, plan: &Plan, text: &str, renamed: Option<&Renamed>) {
        match renamed {
            Some(it) if it.prepares.is_some() => {}
            Some(it) if plan.kind == Kind::SessionState("EXECUTE") && text.matches('(').count() < 2 => {
                for statement in &it.needs {
                    self.suspect(&statement.planned.plan, statement.text());
                }
            }
            _ => self.suspect(plan, text),
        }
    }

    /// A function of which only the oid is known has been called.
    pub fn suspect_function(&mut self) {
        if self.is_session() {
            return;
        }
        self.raise("function", true, Vec::new());
    }

    fn raise(&mut self, reason: &'static str, opaque: bool, custom: Vec<String>) {
        let it = self.suspected.get_or_insert(Suspicion { reason, opaque, custom: Vec::new() });
        it.opaque |= opaque;
        it.custom.extend(custom);
    }

    fn pin(&mut self, reason: &'static str) {
        if self.pinned.is_none() {
            self.pinned = Some(reason);
            self.record.set_pin(Some(reason));
            self.database.metrics.pinned(reason);
        }
    }

    /// The reason, if there was one.
    pub fn unpin(&mut self) -> Option<&'static str> {
        let reason = self.pinned.take();
        if reason.is_some() {
            self.record.set_pin(None);
        }
        reason
    }

    /// Asks the server, which is idle, for the state that is suspected. Where it does not answer, the
    /// suspicion stays, and the server with its client.
    pub async fn look_for_state(&mut self) {
        let (Some(suspicion), Some(held)) = (self.suspected.take(), &mut self.held) else { return };
        let mut text = STATE.to_owned();
        if suspicion.opaque {
            text.push_str(SETTINGS);
            for name in &suspicion.custom {
                let name = quote_literal(name);
                text.push_str(&format!(" UNION ALL SELECT {name}, pg_catalog.current_setting({name}, true)"));
            }
        }
        let Ok(answer) = run_own(&mut held.lease, &text, Origin::Keyway).await else {
            self.suspected = Some(suspicion);
            return;
        };
        // Whoever has left is noticed at the next read.
        let _ = self.stream.write_all(&answer.notifications).await;
        let mut rows = answer.rows.into_iter();
        let found = rows.next().and_then(|it| it.into_iter().next().flatten());
        if suspicion.opaque {
            let pair = |row: Vec<Option<String>>| <[Option<String>; 2]>::try_from(row).ok();
            let settings = rows.filter_map(pair).filter_map(|[name, value]| Some((name?, value?)));
            self.adopt_settings(settings.collect());
        }
        let found = found.and_then(|it| REASONS.into_iter().find(|of| *of == it));
        if self.pinned.is_some_and(|it| trace(it) == Trace::Probed && Some(it) != found) {
            self.unpin();
        }
        if let Some(reason) = found {
            self.pin(reason);
        }
        if found == Some(LISTEN) {
            self.listen_once().await;
        }
    }

    /// The session has what the server has.
    fn adopt_settings(&mut self, mut visible: Vec<(String, String)>) {
        let Some(held) = &mut self.held else { return };
        let user = held.lease.spec().user.clone();
        visible.retain(|(name, value)| match name.as_str() {
            "role" => value != "none",
            "session_authorization" => **value != *user,
            _ => true,
        });
        // The server has what it shows, and not the start values of this session.
        held.lease.settings.adopt(visible.clone(), &Settings::default());
        self.settings.adopt(visible, &self.startup);
    }
}

/// Names of custom settings that a text sets: of several statements those of its SETs, of code those that
/// it names as `set_config('app.tenant', ...)` or `SET app.tenant`.
fn custom_settings(kind: &Kind, text: &str) -> Vec<String> {
    if let Kind::Several { parts, .. } = kind {
        let name = |it: &Kind| match it {
            Kind::Set(SetStatement::Assign { name, local: false, .. }) => Some(name.clone()),
            _ => None,
        };
        let mut names: Vec<_> = parts.iter().filter_map(name).filter(|it| it.contains('.')).collect();
        names.extend(named_settings(text));
        return names;
    }
    named_settings(text)
}

/// Looks at words, not at syntax: a name too many costs a column of the probe.
fn named_settings(text: &str) -> Vec<String> {
    let is_name = |it: char| it.is_alphanumeric() || matches!(it, '_' | '.' | '$');
    let words = text.split(|it: char| !is_name(it)).filter(|it| !it.is_empty());
    let (mut names, mut before) = (Vec::new(), "");
    for word in words {
        let set = ["set", "session", "set_config"].iter().any(|it| before.eq_ignore_ascii_case(it))
            || before.to_ascii_lowercase().ends_with(".set_config");
        if set && word.contains('.') && names.len() < NAMED_SETTINGS_MAX {
            names.push(word.to_ascii_lowercase());
        }
        before = word;
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Beyond this a text is not worth the search.
const NAMED_SETTINGS_MAX: usize = 64;

fn is_local(statement: &SetStatement) -> bool {
    matches!(statement, SetStatement::Assign { local: true, .. } | SetStatement::Transaction { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_settings_are_found_in_code() {
        let code = "DO $$ BEGIN PERFORM set_config('app.Tenant', '7', false); SET SESSION a.b = 1; \
            PERFORM pg_catalog.set_config('app.user', x.y, false); UPDATE t SET c = d.e; END $$";
        assert_eq!(named_settings(code), ["a.b", "app.tenant", "app.user"]);
        assert!(named_settings("DO $$ BEGIN SET work_mem = 1; END $$").is_empty());
    }
}
