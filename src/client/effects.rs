//! What a statement means for the session besides its answer: what Keyway answers itself, and what it
//! takes note of when a server has.

use super::deallocate::no_statement;
use super::encoding;
use super::pins::ORIGIN;
use super::session::Session;
use crate::base::{Reason, Refusal, SqlState};
use crate::proto::{Assignment, Bond, PROLOGUE_MAX, Settings, StatementId, TransactionMode, set_config};
use crate::route::{Kind, SessionHint, SetStatement, SettingMade};
use crate::sql::{Lexer, TokenKind};
use crate::wire::{self, Column, TxStatus};

/// Who answers a statement.
pub(super) enum Answer {
    /// Keyway: notices, then this command tag. Where it has columns, DataRows stand among the notices.
    Made {
        notices: Vec<u8>,
        tag: &'static str,
        columns: &'static [Column],
    },
    Refused(Refusal),
    Server,
    /// A server, with another text: the end of a transaction that Keyway aborted.
    Rollback {
        chain: bool,
    },
}

fn made(tag: &'static str) -> Answer {
    Answer::made(tag)
}

impl Answer {
    pub fn made(tag: &'static str) -> Answer {
        Answer::Made { notices: Vec::new(), tag, columns: &[] }
    }
}

/// Statements that were described before may be described otherwise from now on.
fn changes_tables(text: &str) -> bool {
    let first = Lexer::new(text.as_bytes()).token().ok().flatten();
    let word = first.and_then(|it| text.get(it.start..it.end)).unwrap_or_default();
    word.eq_ignore_ascii_case("alter") || word.eq_ignore_ascii_case("drop")
}

/// BEGIN and START TRANSACTION are one statement with two tags.
pub(super) fn begin_tag(text: &str) -> &'static str {
    let first = Lexer::new(text.as_bytes()).token().ok().flatten();
    let word = first.and_then(|it| text.get(it.start..it.end)).unwrap_or_default();
    if word.eq_ignore_ascii_case("start") { "START TRANSACTION" } else { "BEGIN" }
}

impl Session {
    /// Who answers `text`. What Keyway answers has taken effect when this returns.
    pub fn answer(&mut self, kind: &Kind, text: &str) -> Answer {
        if self.transaction.is_refused() {
            return self.answer_refused(kind);
        }
        if let Some(answer) = self.answer_channels(kind, text) {
            return answer;
        }
        if let Some(answer) = self.answer_position(kind, text) {
            return answer;
        }
        if let Err(refusal) = self.check_hint(kind, text) {
            return Answer::Refused(refusal);
        }
        match kind {
            Kind::Several { parts, transaction_control }
                if self.is_spread() && (*transaction_control || parts.iter().any(is_prologue)) =>
            {
                Answer::Refused(Refusal::unsupported(
                    Reason::MultiShardRead,
                    "several statements in one text cannot end, mark or set what several shards have in common",
                    "send each statement by itself",
                ))
            }
            Kind::Several { parts, .. } if parts.iter().any(|it| self.is_merged_cursor(it)) => {
                Answer::Refused(Refusal::unsupported(
                    Reason::MultiShardRead,
                    "a cursor over several shards cannot be used by a text of several statements",
                    "send each statement by itself",
                ))
            }
            Kind::Set(SetStatement::Assign { name, .. })
                if name == "client_encoding" && !encoding::is_served_by_set(text) =>
            {
                Answer::Refused(encoding::refusal(""))
            }
            // The server tells that the transaction is aborted.
            Kind::DiscardAll | Kind::DeallocateAll | Kind::Deallocate(_)
                if self.transaction.status() == TxStatus::Failed && !self.unsynced =>
            {
                Answer::Server
            }
            Kind::Deallocate(name)
                if self.names.get(name.as_bytes()).is_some() || StatementId::is_server_name(name) =>
            {
                self.answer_statements(kind)
            }
            Kind::SessionState("LOAD") if !self.is_session() => Answer::Refused(Refusal::unsupported(
                Reason::SessionState,
                "LOAD would stay with a server connection that other clients use",
                "set session_preload_libraries of the role or database",
            )),
            Kind::DiscardAll | Kind::DeallocateAll | Kind::Deallocate(_) if !self.is_tied() => {
                self.answer_statements(kind)
            }
            Kind::ExplainRouting => self.explain_routing(text),
            _ if self.transaction.is_deferred() => self.answer_deferred(kind, text),
            // A held server is that of an open transaction, of an unfinished pipeline or of a pin:
            // BEGIN belongs to it.
            Kind::Begin { read_only, isolation } if self.held.is_none() && self.transaction.is_idle() => {
                let mode = TransactionMode { read_only: *read_only, isolation: *isolation };
                self.transaction.defer(text, mode, self.floors.len() > 1);
                made(begin_tag(text))
            }
            _ => Answer::Server,
        }
    }

    fn answer_refused(&mut self, kind: &Kind) -> Answer {
        match kind {
            Kind::Commit { chain } | Kind::Rollback { chain } if self.held.is_some() => {
                Answer::Rollback { chain: *chain }
            }
            Kind::Commit { chain: true } | Kind::Rollback { chain: true } => Answer::Refused(not_chained()),
            Kind::Commit { .. } | Kind::Rollback { .. } => {
                let untold = self.untold.take().filter(|_| matches!(kind, Kind::Commit { .. }));
                self.transaction.end();
                untold.map_or_else(|| made("ROLLBACK"), Answer::Refused)
            }
            Kind::RollbackTo if self.held.is_some() => Answer::Server,
            _ => Answer::Refused(self.untold.take().unwrap_or_else(aborted)),
        }
    }

    /// Where a statement cannot go is nothing to tell a client whose transaction the server has aborted.
    pub fn refusal_of(&self, refusal: Refusal) -> Refusal {
        if self.transaction.status() == TxStatus::Failed { aborted() } else { refusal }
    }

    fn answer_deferred(&mut self, kind: &Kind, text: &str) -> Answer {
        // On one shard there is no choice to wait for: the server can judge at once.
        let keep = self.floors.len() > 1 && self.transaction.prologue_len() < PROLOGUE_MAX;
        let tag = match kind {
            Kind::Begin { .. } => {
                let mut notices = Vec::new();
                wire::notice(&mut notices, "25001", "there is already a transaction in progress");
                return Answer::Made { notices, tag: begin_tag(text), columns: &[] };
            }
            // A prologue has to be judged by a server before COMMIT may succeed.
            Kind::Commit { chain: false } if self.transaction.prologue_len() == 1 => {
                self.due.extend(self.transaction.channel_changes().cloned());
                self.transaction.end();
                return made("COMMIT");
            }
            Kind::Rollback { chain: false } => {
                self.transaction.end();
                return made("ROLLBACK");
            }
            Kind::Set(SetStatement::Reset { .. } | SetStatement::ResetAll) if keep => "RESET",
            Kind::Set(_) if keep => "SET",
            Kind::Savepoint if keep => "SAVEPOINT",
            Kind::Release if keep => "RELEASE",
            Kind::RollbackTo if keep => "ROLLBACK",
            _ => return Answer::Server,
        };
        self.take_effect(kind, text);
        made(tag)
    }

    /// Statements live under Keyway's names on servers that others use too: clients close names of
    /// their own, never a server's.
    fn answer_statements(&mut self, kind: &Kind) -> Answer {
        let answer = self.drop_statements(kind);
        self.record.set_statements(self.names.len());
        answer
    }

    fn drop_statements(&mut self, kind: &Kind) -> Answer {
        match kind {
            Kind::DiscardAll if !self.transaction.is_idle() => Answer::Refused(Refusal::new(
                Reason::Protocol,
                SqlState::ACTIVE_SQL_TRANSACTION,
                "DISCARD ALL cannot run inside a transaction block",
            )),
            // What came before a Flush has no Sync yet (`PreventInTransactionBlock` in xact.c).
            Kind::DiscardAll if self.unsynced => Answer::Refused(Refusal::new(
                Reason::Protocol,
                SqlState::ACTIVE_SQL_TRANSACTION,
                "DISCARD ALL cannot be executed within a pipeline",
            )),
            Kind::DiscardAll => {
                self.names.clear();
                self.settings = self.startup.clone();
                self.take_channels(kind);
                made("DISCARD ALL")
            }
            Kind::DeallocateAll => {
                self.names.clear_named();
                made("DEALLOCATE ALL")
            }
            Kind::Deallocate(name) if self.names.remove(name.as_bytes()) => made("DEALLOCATE"),
            Kind::Deallocate(name) => Answer::Refused(no_statement(name)),
            _ => Answer::Server,
        }
    }

    /// Takes note of a statement that a server has answered without an error.
    pub fn take_effect(&mut self, kind: &Kind, text: &str) {
        self.take_channels(kind);
        if is_prologue(kind) {
            self.others.tell(text);
        }
        match kind {
            Kind::Set(it) => {
                self.transaction.record(text);
                self.take_set(it, text);
            }
            Kind::Savepoint => self.transaction.savepoint(&savepoint_name(text), text),
            Kind::Release => self.transaction.release(&savepoint_name(text), text),
            // Sent as part of a pipeline.
            Kind::Begin { read_only, isolation } if self.transaction.is_idle() && !self.unsynced => {
                let mode = TransactionMode { read_only: *read_only, isolation: *isolation };
                self.transaction.defer(text, mode, self.floors.len() > 1);
                self.transaction.bind(Bond::Bound);
                // What else of it has run is not told any more.
                if let Some(held) = &self.held {
                    self.transaction.write_on(held.shard);
                }
            }
            Kind::Commit { chain: true } | Kind::Rollback { chain: true } => self.chain(kind),
            Kind::RollbackTo => {
                self.transaction.rollback_to(&savepoint_name(text), text);
                self.transaction.unrefuse();
                self.retain_cursors();
            }
            Kind::Cursor(cursor) => self.take_cursor(cursor),
            Kind::Ddl if changes_tables(text) => self.database.statements.retire_all(),
            Kind::DiscardAll | Kind::DeallocateAll => self.forget_server_statements(kind),
            Kind::Several { parts, .. } if parts.contains(&Kind::Set(SetStatement::ResetAll)) => {
                self.take_set(&SetStatement::ResetAll, text);
            }
            Kind::Several { parts, .. } => {
                for it in parts {
                    if let Kind::Cursor(cursor) = it {
                        self.take_cursor(cursor);
                    }
                }
            }
            _ => {}
        }
    }

    /// Only a pinned client's server is told to drop statements: it has none of them any more, ours
    /// included, and what was pinned is gone with DISCARD ALL.
    fn forget_server_statements(&mut self, kind: &Kind) {
        self.names.clear();
        if let Some(held) = &mut self.held {
            held.lease.statements.clear();
            if *kind == Kind::DiscardAll {
                held.lease.settings = Settings::default();
                self.settings = self.startup.clone();
                // DISCARD ALL leaves a replication origin.
                if self.pinned != Some(ORIGIN) {
                    self.unpin();
                }
                self.suspected = None;
            }
        }
    }

    /// Whether the session can keep what set_config is about to set.
    pub fn check_settings(&mut self, made: &[SettingMade]) -> Result<(), Refusal> {
        for it in made {
            let value = it.value.as_deref();
            match it.name.as_str() {
                "client_encoding" if !value.is_none_or(encoding::is_served) => {
                    return Err(encoding::refusal(value.unwrap_or_default()));
                }
                name if name.starts_with(SessionHint::PREFIX) => {
                    self.database.router.check_hint(name, value)?;
                }
                "standard_conforming_strings"
                | "transaction_isolation"
                | "transaction_read_only"
                | "transaction_deferrable" => {
                    return Err(Refusal::unsupported(
                        Reason::SessionState,
                        format!("set_config of \"{}\" is not supported", it.name),
                        "use SET",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes note of what set_config has set on a server.
    pub fn take_settings(&mut self, made: &[SettingMade]) {
        for it in made {
            if !self.transaction.is_idle() {
                let text = set_config(&it.name, it.value.as_deref(), it.local);
                self.transaction.record(&text);
                self.others.tell(&text);
            }
            if it.local {
                let statement = set_config(&it.name, it.value.as_deref(), true);
                self.transaction.set_local(Assignment { name: it.name.clone(), statement });
                continue;
            }
            let name = it.name.clone();
            match &it.value {
                Some(value) => {
                    let it = Assignment::of_value(&name, value);
                    if self.transaction.is_idle() { self.set_now(it) } else { self.transaction.set(it) }
                }
                None if self.transaction.is_idle() => {
                    // As RESET, but for the session's own start value: set_config knows the server's.
                    self.with_server_settings(|it| it.reset(&name, &Settings::default()));
                    self.settings.reset(&name, &Settings::default());
                }
                None => self.transaction.reset(&name),
            }
        }
    }

    fn take_set(&mut self, statement: &SetStatement, text: &str) {
        let text = text.trim().trim_end_matches(';');
        let assignment = |name: &str| Assignment { name: name.to_owned(), statement: text.to_owned() };
        let in_transaction = !self.transaction.is_idle();
        match statement {
            SetStatement::Assign { local: true, name, .. } => self.transaction.set_local(assignment(name)),
            SetStatement::Transaction { isolation: None, .. } => {}
            SetStatement::Transaction { isolation, .. } => self.transaction.set_isolation(*isolation),
            SetStatement::Assign { name, .. } if in_transaction => self.transaction.set(assignment(name)),
            SetStatement::Assign { name, .. } => self.set_now(assignment(name)),
            SetStatement::Characteristics { names } => {
                for name in names {
                    // One statement sets several: repeated for each name, which comes to the same.
                    let it = assignment(name);
                    if in_transaction { self.transaction.set(it) } else { self.set_now(it) }
                }
            }
            SetStatement::Reset { name } if in_transaction => self.transaction.reset(name),
            SetStatement::Reset { name } => {
                self.settings.reset(name, &self.startup);
                self.with_server_settings(|it| it.reset(name, &Settings::default()));
            }
            SetStatement::ResetAll if in_transaction => self.transaction.reset_all(),
            SetStatement::ResetAll => {
                self.settings.reset_all(&self.startup);
                self.with_server_settings(|it| it.reset_all(&Settings::default()));
            }
        }
    }

    fn set_now(&mut self, assignment: Assignment) {
        self.with_server_settings(|it| it.set(assignment.clone()));
        self.settings.set(assignment);
    }

    fn with_server_settings(&mut self, change: impl FnOnce(&mut Settings)) {
        if let Some(held) = &mut self.held {
            change(&mut held.lease.settings);
        }
    }

    /// The status that ends an answer of ours.
    pub fn put_ready(&self, out: &mut Vec<u8>) {
        let status = match self.transaction.status() {
            TxStatus::Idle => self.held.as_ref().map_or(TxStatus::Idle, |it| it.lease.pipeline.status()),
            status => status,
        };
        self.put_ready_as(out, status);
    }

    pub fn put_ready_as(&self, out: &mut Vec<u8>, status: TxStatus) {
        if status == TxStatus::Idle {
            self.put_notifications(out);
        }
        wire::ready_for_query(out, status);
    }
}

/// Statements that can be made again when a transaction begins anew on another shard.
pub(super) fn is_prologue(kind: &Kind) -> bool {
    matches!(kind, Kind::Set(_) | Kind::Savepoint | Kind::Release | Kind::RollbackTo)
}

/// No server knows how it was begun.
fn not_chained() -> Refusal {
    let message =
        "AND CHAIN is not supported in a transaction that was aborted before it had a server, or has lost it";
    Refusal::unsupported(Reason::Unsupported, message, "send ROLLBACK, and begin another transaction")
}

pub(super) fn aborted() -> Refusal {
    Refusal::new(
        Reason::Unsupported,
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// The name that ends SAVEPOINT, RELEASE and ROLLBACK TO, as PostgreSQL folds it.
fn savepoint_name(text: &str) -> String {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut name = String::new();
    while let Ok(Some(token)) = lexer.token() {
        match (token.kind, text.get(token.start..token.end).unwrap_or_default()) {
            (TokenKind::Word, word) => name = word.to_ascii_lowercase(),
            (TokenKind::QuotedName, quoted) => {
                let inside = quoted.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
                name = inside.unwrap_or(quoted).replace("\"\"", "\"");
            }
            _ => {}
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::savepoint_name;

    #[test]
    fn savepoint_names_are_folded_unless_quoted() {
        assert_eq!(savepoint_name("SAVEPOINT Sp1;"), "sp1");
        assert_eq!(savepoint_name("ROLLBACK TO SAVEPOINT \"Sp 1\" ;"), "Sp 1");
        assert_eq!(savepoint_name("release a"), "a");
        assert_eq!(savepoint_name("SAVEPOINT \"a\"\"B\" -- c; d"), "a\"B");
    }
}
