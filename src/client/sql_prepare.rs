//! PREPARE and EXECUTE of SQL, virtual as those of the protocol are: one statement per text on each
//! server, under a name of Keyway's, whoever prepared it. In the extended protocol names are looked up by Bind and
//! Describe, which get a statement of the text under the server's names in place of the client's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::deallocate::no_statement;
use super::effects::Answer;
use super::group::Group;
use super::session::Session;
use super::statements::Statement;
use crate::base::{Reason, Refusal, SqlState};
use crate::metrics::Limit;
use crate::proto::StatementId;
use crate::route::{Kind, Literals, Plan, Planned};
use crate::sql;
use crate::wire::{self, TxStatus};

type Needs = SmallVec<[Arc<Statement>; 1]>;

/// A Query under other names.
#[derive(Default)]
pub(super) struct Renamed {
    /// In place of the client's message.
    pub message: Vec<u8>,
    /// PREPARE is the whole text: this is its name, taken when a server has done it.
    pub prepares: Option<(String, Arc<Statement>)>,
    /// What EXECUTE names, to be there first.
    pub needs: Needs,
}

/// The names of SQL's statements in a text that is bound or described.
#[derive(Default)]
pub(super) enum SqlNames {
    /// None that are virtual.
    #[default]
    None,
    /// By PREPARE, which a server gets under a name of Keyway's.
    Prepared(String, Arc<Statement>),
    Executed(Needs),
}

impl Session {
    /// What is sent in place of `text`, if it names a prepared statement of SQL.
    pub fn rename(&mut self, plan: &Plan, text: &str) -> Result<Option<Renamed>, Answer> {
        match &plan.kind {
            Kind::SessionState("PREPARE") => self.rename_prepare(text),
            Kind::SessionState("EXECUTE") => self.rename_execute(text),
            Kind::Several { parts, .. } => match self.answer_names(parts, text) {
                Some(answer) => Err(answer),
                None if parts.contains(&Kind::SessionState("EXECUTE")) => self.rename_execute(text),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn rename_prepare(&mut self, text: &str) -> Result<Option<Renamed>, Answer> {
        let Some(prepare) = sql::prepare_text(text) else { return Ok(None) };
        let name = prepare.name;
        if self.transaction.status() != TxStatus::Failed {
            self.check_new_name(name.as_bytes()).map_err(Answer::Refused)?;
        }
        let router = &self.database.router;
        let statement = self
            .database
            .statements
            .by_sql(prepare.body, prepare.statement, || router.plan(prepare.statement));
        let taken = statement.by_sql.as_ref().is_some_and(|it| it.load(Ordering::Relaxed));
        if taken && self.transaction.status() != TxStatus::Failed {
            // Some server has judged this text already.
            self.names.insert(name.as_bytes(), statement);
            return Err(Answer::Made { notices: Vec::new(), tag: "PREPARE", columns: &[] });
        }
        let mut message = Vec::new();
        wire::query(&mut message, &statement.prepare_text());
        Ok(Some(Renamed { message, prepares: Some((name, statement)), ..Renamed::default() }))
    }

    fn rename_execute(&mut self, text: &str) -> Result<Option<Renamed>, Answer> {
        let (needs, out) = executed(text, |it| self.names.get(it.as_bytes())).map_err(Answer::Refused)?;
        if needs.is_empty() {
            return Ok(None);
        }
        let mut renamed = Renamed { needs, ..Renamed::default() };
        wire::query(&mut renamed.message, &out);
        Ok(Some(renamed))
    }

    /// What is bound or described at this place of a group: `statement` itself, or where it names statements of SQL,
    /// an unnamed one in its place.
    pub fn rename_bound(
        &mut self,
        statement: Arc<Statement>,
        plan: &Plan,
        group: &Group<'_>,
    ) -> Result<(Arc<Statement>, SqlNames), Refusal> {
        let text = statement.text();
        let (text, names) = match &plan.kind {
            Kind::SessionState("PREPARE") => {
                let Some(it) = sql::prepare_text(text) else { return Ok((statement, SqlNames::None)) };
                if self.transaction.status() != TxStatus::Failed {
                    self.check_name(it.name.as_bytes(), group)?;
                }
                let router = &self.database.router;
                let made =
                    self.database.statements.by_sql(it.body, it.statement, || router.plan(it.statement));
                (made.prepare_text(), SqlNames::Prepared(it.name, made))
            }
            Kind::SessionState("EXECUTE") => {
                let (needs, text) = executed(text, |it| self.find(it.as_bytes(), group))?;
                if needs.is_empty() {
                    return Ok((statement, SqlNames::None));
                }
                self.check_amid_pipeline(&needs)?;
                (text, SqlNames::Executed(needs))
            }
            _ => return Ok((statement, SqlNames::None)),
        };
        let planned = Planned {
            plan: statement.plan(&self.database.router),
            literals: Literals::default(),
            hit: false,
        };
        Ok((self.database.statements.unnamed(text.as_bytes(), &statement.oids, planned), names))
    }

    /// A PREPARE that has to come first would end a pipeline.
    fn check_amid_pipeline(&mut self, needs: &[Arc<Statement>]) -> Result<(), Refusal> {
        let mut has =
            |it: &Arc<Statement>| self.held.as_mut().is_some_and(|held| held.lease.statements.has(it.id));
        if !self.unsynced || needs.iter().all(&mut has) {
            return Ok(());
        }
        Err(Refusal::unsupported(
            Reason::SessionState,
            "EXECUTE in the middle of a pipeline, on a server that lacks the statement, is not supported",
            "send a Sync in front of it",
        ))
    }

    /// PREPARE has been done: the name is the client's from now on, and no ROLLBACK takes it away.
    pub fn name_prepared(&mut self, name: &str, statement: Arc<Statement>) {
        if let Some(held) = &mut self.held {
            let statements = &mut held.lease.statements;
            statements.send(statement.id, statement.text.len(), &statement.presence);
            statements.insert(statement.id);
        }
        statement.mark_taken();
        self.names.insert(name.as_bytes(), statement);
        self.record.set_statements(self.names.len());
    }

    /// Whether a client may give this name to one more statement.
    pub fn check_new_name(&self, name: &[u8]) -> Result<(), Refusal> {
        if self.names.get(name).is_some() {
            let name = String::from_utf8_lossy(name);
            return Err(Refusal::new(
                Reason::Protocol,
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let limits = &self.shared.limits;
        if self.names.len() >= limits.statements_max {
            self.shared.hits.hit(Limit::Statements);
            return Err(Refusal::new(
                Reason::Limit,
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("a client may have {} prepared statements", limits.statements_max),
            )
            .hint("close statements, or raise limits.statements_max in the configuration of keyway"));
        }
        if self.names.bytes() >= limits.statement_bytes_max {
            self.shared.hits.hit(Limit::StatementBytes);
            return Err(Refusal::new(
                Reason::Limit,
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "the texts of a client's prepared statements may have {} bytes",
                    limits.statement_bytes_max
                ),
            )
            .hint("close statements, or raise limits.statement_bytes_max in the configuration of keyway"));
        }
        Ok(())
    }
}

/// What EXECUTE names in `text`, and the text under the names that servers have.
fn executed<'n>(
    text: &str,
    find: impl Fn(&str) -> Option<&'n Arc<Statement>>,
) -> Result<(Needs, String), Refusal> {
    let (mut needs, mut out, mut copied) = (Needs::new(), String::new(), 0);
    for it in sql::execute_names(text) {
        let Some(statement) = find(&it.name) else {
            if StatementId::is_server_name(&it.name) {
                return Err(no_statement(&it.name));
            }
            continue;
        };
        if statement.by_sql.is_none() {
            return Err(Refusal::unsupported(
                Reason::SessionState,
                format!("prepared statement \"{}\" was not made by PREPARE", it.name),
                "run it by Bind, as it was made by Parse",
            ));
        }
        out.push_str(&text[copied..it.place.start]);
        out.push_str(&statement.id.server_name());
        copied = it.place.end;
        needs.push(statement.clone());
    }
    out.push_str(&text[copied..]);
    Ok((needs, out))
}
