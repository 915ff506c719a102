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
//!
//! What functions, triggers and views may leave is in the plan, as `route::Catalog` has it. While that is in
//! doubt, everything that it could tell of is suspected.

use std::sync::Arc;

use super::attach::{SetUpError, run_own};
use super::group::Bound;
use super::session::{Held, Session};
use super::sql_prepare::{Renamed, SqlNames};
use super::statements::Statement;
use crate::catalog::Concern;
use crate::proto::{Origin, Settings, quote_literal};
use crate::route::{Kind, Leaves, Plan, SchemaChange, SetStatement};
use crate::sql::named_settings;

/// Why state may be on the server that only its client may meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    pub reason: &'static str,
    /// Code that Keyway cannot follow has run: settings may have changed too.
    pub opaque: bool,
    /// Custom settings that may have been made: PostgreSQL lists none of them.
    pub custom: Vec<String>,
    /// A replication origin may have been given back.
    pub origin: bool,
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
        "currval" | "setseed" | "dblink connection" | ORIGIN => Trace::Hidden,
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
        AND refobjid = pg_catalog.pg_my_temp_schema()) THEN 'temporary object'";

/// Only who has one may ask for it.
const ORIGIN_STATE: &str =
    " WHEN pg_catalog.pg_replication_origin_session_is_setup() THEN 'replication origin'";
pub(super) const ORIGIN: &str = "replication origin";

/// Settings that differ from what a new session has, and who the session is.
const SETTINGS: &str = "; SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
    WHERE source = 'session' AND name !~ '^transaction_' AND name <> 'client_encoding' \
    UNION ALL SELECT 'role', pg_catalog.current_setting('role') \
    UNION ALL SELECT 'session_authorization', session_user::pg_catalog.text";

/// The labels of pins as metrics and SHOW PINS have them.
const REASONS: [&str; 6] =
    ["PREPARE", "WITH HOLD cursor", "LISTEN", "session advisory lock", "temporary object", ORIGIN];

impl Session {
    /// Takes note of what `plan` may leave behind, before it runs.
    pub fn suspect(&mut self, plan: &Plan, text: &str) {
        if !self.is_session() {
            self.suspect_state(plan, text);
        }
        self.note_schema_change(plan, text);
    }

    /// In session mode nobody else meets what is left on the server.
    fn suspect_state(&mut self, plan: &Plan, text: &str) {
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
                Trace::Probed => {
                    self.raise(reason, false, Vec::new());
                }
                Trace::Opaque => {
                    self.raise(reason, true, custom_settings(&plan.kind, text));
                }
            }
        } else if let Some(reason) = self.pinned.filter(|it| plan.may_release && trace(it) == Trace::Probed) {
            self.raise(reason, false, Vec::new());
        }
        if plan.may_release && self.pinned == Some(ORIGIN) {
            self.raise(ORIGIN, false, Vec::new()).origin = true;
        }
        self.suspect_code(plan, text);
    }

    /// Functions, triggers and the like of which no word of the text tells.
    fn suspect_code(&mut self, plan: &Plan, text: &str) {
        let anything = Leaves { settings: true, unknown_table: true };
        // What was known a moment ago may be known better now: then the plan is of the catalog before.
        let is_old = || plan.version != self.database.router.version();
        let in_doubt = || plan.meets_catalog && (self.database.catalog.is_in_doubt() || is_old());
        let leaves = match plan.leaves {
            // Most likely one of its own temporary ones, which is looked for when it gives the server back.
            Some(it) if it.unknown_table && self.pinned == Some("temporary object") => return,
            Some(it) => it,
            // Event triggers, and what a transaction has just made and calls.
            None if has_ddl(&plan.kind) || in_doubt() => anything,
            None => return,
        };
        let custom = if leaves.settings { custom_settings(&plan.kind, text) } else { Vec::new() };
        self.raise("function", leaves.settings, custom);
    }

    /// DDL counts when it is committed: from just before until it has been read, the catalog is in doubt.
    fn note_schema_change(&mut self, plan: &Plan, text: &str) {
        self.schema_change = self.schema_change.max(plan.schema_change).max(hidden_change(plan, text));
        let commits = self.transaction.is_idle() || plan.kind.is_transaction_control();
        if commits && self.schema_change != SchemaChange::None && self.changing.is_none() {
            let doubts = self.schema_change == SchemaChange::Any;
            // At COMMIT its text tells nothing of what the transaction has changed.
            self.changing = Some(self.database.catalog.change(doubts, Concern::of(text)));
        }
    }

    /// A unit of the client's has been dealt with.
    pub fn end_schema_change(&mut self) {
        if self.schema_change != SchemaChange::None && self.transaction.is_idle() && !self.unsynced {
            self.schema_change = SchemaChange::None;
            self.changing = None;
        }
    }

    /// As `suspect`: PREPARE under a name of Keyway's leaves nothing, and EXECUTE what its statement leaves.
    pub fn suspect_renamed(&mut self, plan: &Plan, text: &str, renamed: Option<&Renamed>) {
        match renamed {
            Some(it) if it.prepares.is_some() => {}
            Some(it) => self.suspect_executed(plan, text, &it.needs),
            None => self.suspect(plan, text),
        }
    }

    /// As `suspect_renamed`, of a Bind.
    pub fn suspect_bound(&mut self, it: Bound<'_, '_>) {
        match it.sql {
            SqlNames::Prepared(..) => {}
            SqlNames::Executed(needs) => self.suspect_executed(it.plan, it.statement.text(), needs),
            SqlNames::None => self.suspect(it.plan, it.statement.text()),
        }
    }

    fn suspect_executed(&mut self, plan: &Plan, text: &str, needs: &[Arc<Statement>]) {
        // With more parentheses there may be calls among the values.
        if plan.kind != Kind::SessionState("EXECUTE") || text.matches('(').count() >= 2 {
            return self.suspect(plan, text);
        }
        for statement in needs {
            self.suspect(&statement.plan(&self.database.router), statement.text());
        }
    }

    /// A function of which only the oid is known has been called.
    pub fn suspect_function(&mut self) {
        if self.is_session() {
            return;
        }
        self.raise("function", true, Vec::new());
    }

    fn raise(&mut self, reason: &'static str, opaque: bool, custom: Vec<String>) -> &mut Suspicion {
        let none = Suspicion { reason, opaque, custom: Vec::new(), origin: false };
        let it = self.suspected.get_or_insert_with(|| Box::new(none));
        it.opaque |= opaque;
        it.custom.extend(custom);
        it
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
        let Some(suspicion) = self.suspected.take() else { return };
        let Some(mut held) = self.held.take() else { return };
        // The client has its answer: a cancel that comes late must not hit the question.
        let detached = self.cancel.slot().detach().await;
        let found = self.look_at(&mut held, &suspicion).await;
        self.cancel.slot().attach_again(held.lease.cancel.clone(), detached);
        self.held = Some(held);
        let Ok(found) = found else {
            self.suspected = Some(suspicion);
            return;
        };
        let shown = |it: &str| trace(it) == Trace::Probed || it == ORIGIN && suspicion.origin;
        if self.pinned.is_some_and(|it| shown(it) && Some(it) != found) {
            self.unpin();
        }
        if let Some(reason) = found {
            self.pin(reason);
        }
        if found == Some(LISTEN) {
            self.listen_once().await;
        }
    }

    /// What pins on a server. The settings that it has are the session's afterwards.
    pub async fn look_at(
        &mut self,
        held: &mut Held,
        suspicion: &Suspicion,
    ) -> Result<Option<&'static str>, SetUpError> {
        let mut text = STATE.to_owned();
        text.push_str(if suspicion.origin { ORIGIN_STATE } else { "" });
        text.push_str(" END");
        let catalog = self.database.catalog.newest();
        if suspicion.opaque {
            text.push_str(SETTINGS);
            let mut names: Vec<&String> = suspicion.custom.iter().chain(catalog.custom_settings()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let name = quote_literal(name);
                text.push_str(&format!(" UNION ALL SELECT {name}, pg_catalog.current_setting({name}, true)"));
            }
        }
        self.database.metrics.state_probes.inc();
        let answer = run_own(&mut held.lease, &text, Origin::Keyway).await?;
        // Whoever has left is noticed at the next read.
        let _ = self.stream.write_all(&answer.notifications).await;
        let mut rows = answer.rows.into_iter();
        let found = rows.next().and_then(|it| it.into_iter().next().flatten());
        if suspicion.opaque {
            let pair = |row: Vec<Option<String>>| <[Option<String>; 2]>::try_from(row).ok();
            let settings = rows.filter_map(pair).filter_map(|[name, value]| Some((name?, value?)));
            // One that was once set there, by anybody, is an empty string ever after.
            let told = |(name, value): &(String, String)| {
                !value.is_empty() || suspicion.custom.contains(name) || self.settings.has(name)
            };
            let settings = settings.filter(|it| !it.0.contains('.') || told(it)).collect();
            self.adopt_settings(held, settings);
        }
        Ok(found.and_then(|it| REASONS.into_iter().find(|of| *of == it)))
    }

    /// The session has what the server has.
    fn adopt_settings(&mut self, held: &mut Held, mut visible: Vec<(String, String)>) {
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

/// DDL of code: migrations come as DO. What a procedure does, no word of its call tells.
fn hidden_change(plan: &Plan, text: &str) -> SchemaChange {
    let named = |words: [&str; 3]| {
        let lower = text.to_ascii_lowercase();
        words.iter().any(|it| lower.contains(it))
    };
    match plan.kind {
        Kind::SessionState("DO") if named(["create", "alter", "execute"]) => SchemaChange::Any,
        Kind::SessionState("CALL") => SchemaChange::Harmless,
        _ if !plan.understood => SchemaChange::Harmless,
        _ => SchemaChange::None,
    }
}

fn has_ddl(kind: &Kind) -> bool {
    match kind {
        Kind::Ddl => true,
        Kind::Several { parts, .. } => parts.contains(&Kind::Ddl),
        _ => false,
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

fn is_local(statement: &SetStatement) -> bool {
    matches!(statement, SetStatement::Assign { local: true, .. } | SetStatement::Transaction { .. })
}
