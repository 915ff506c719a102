//! PREPARE and EXECUTE of SQL, virtual as those of the protocol are: one statement per text on each
//! server, under a name of Keyway's, whoever prepared it. Simple protocol only; sent by the extended
//! protocol, PREPARE pins.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::deallocate::no_statement;
use super::effects::Answer;
use super::session::Session;
use super::statements::Statement;
use crate::base::{Reason, Refusal, SqlState};
use crate::metrics::Limit;
use crate::proto::StatementId;
use crate::route::{Kind, Plan};
use crate::sql;
use crate::wire::{self, TxStatus};

/// A Query under other names.
#[derive(Default)]
pub(super) struct Renamed {
    /// In place of the client's message.
    pub message: Vec<u8>,
    /// PREPARE is the whole text: this is its name, taken when a server has done it.
    pub prepares: Option<(String, Arc<Statement>)>,
    /// What EXECUTE names, to be there first.
    pub needs: SmallVec<[Arc<Statement>; 1]>,
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
            return Err(Answer::Made { notices: Vec::new(), tag: "PREPARE" });
        }
        let mut message = Vec::new();
        wire::query(&mut message, &statement.prepare_text());
        Ok(Some(Renamed { message, prepares: Some((name, statement)), ..Renamed::default() }))
    }

    fn rename_execute(&mut self, text: &str) -> Result<Option<Renamed>, Answer> {
        let (mut renamed, mut out, mut copied) = (Renamed::default(), String::new(), 0);
        for it in sql::execute_names(text) {
            let Some(statement) = self.names.get(it.name.as_bytes()) else {
                if StatementId::is_server_name(&it.name) {
                    return Err(Answer::Refused(no_statement(&it.name)));
                }
                continue;
            };
            if statement.by_sql.is_none() {
                return Err(Answer::Refused(Refusal::unsupported(
                    Reason::SessionState,
                    format!("prepared statement \"{}\" was not made by PREPARE", it.name),
                    "run it by Bind, as it was made by Parse",
                )));
            }
            out.push_str(&text[copied..it.place.start]);
            out.push_str(&statement.id.server_name());
            copied = it.place.end;
            renamed.needs.push(statement.clone());
        }
        if renamed.needs.is_empty() {
            return Ok(None);
        }
        out.push_str(&text[copied..]);
        wire::query(&mut renamed.message, &out);
        Ok(Some(renamed))
    }

    /// EXECUTE by the extended protocol, of a name that no server knows or that is another's.
    pub fn refuse_virtual(&self, text: &str) -> Option<Refusal> {
        let names = sql::execute_names(text);
        let foreign = |it: &&sql::ExecuteName| {
            StatementId::is_server_name(&it.name) && self.names.get(it.name.as_bytes()).is_none()
        };
        if let Some(it) = names.iter().find(foreign) {
            return Some(no_statement(&it.name));
        }
        names.iter().any(|it| self.names.get(it.name.as_bytes()).is_some()).then(|| {
            Refusal::unsupported(
                Reason::SessionState,
                "EXECUTE by the extended protocol of a statement that the simple protocol prepared",
                "send both by the same protocol",
            )
        })
    }

    /// PREPARE has been done: the name is the client's from now on, and no ROLLBACK takes it away.
    pub fn name_prepared(&mut self, name: &str, statement: Arc<Statement>) {
        if let Some(held) = &mut self.held {
            let statements = &mut held.lease.statements;
            statements.send(statement.id, statement.text.len(), &statement.presence);
            statements.insert(statement.id);
        }
        if let Some(taken) = &statement.by_sql {
            taken.store(true, Ordering::Relaxed);
        }
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
