//! PREPARE and EXECUTE of SQL, virtual as those of the protocol are: one statement per text on each
//! server, under a name of Keyway's, whoever prepared it. In the extended protocol names are looked up by Bind and
//! Describe, which get a statement of the text under the server's names in place of the client's.
//!
//! Both protocols share one space of names, as in PostgreSQL: EXECUTE runs what Parse has made, Bind what PREPARE has.
//! A server gets either by Parse, in its place in a pipeline; by PREPARE only what declares types of the user's own.
//!
//! On several shards EXECUTE is routed as a Bind of its statement would be, which takes values that are constants.

use std::sync::Arc;

use smallvec::SmallVec;

use super::deallocate::no_statement;
use super::effects::Answer;
use super::group::Group;
use super::session::Session;
use super::statements::Statement;
use crate::backend::Backend;
use crate::base::{Reason, Refusal, Role, ShardId, SqlState};
use crate::metrics::Limit;
use crate::proto::{Expect, Origin, StatementId};
use crate::route::{Decision, KeySource, Kind, Literals, Params, Plan, Planned};
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
    /// EXECUTE on several shards is the whole text.
    pub executed: Option<Executed>,
}

/// A statement that EXECUTE runs, to be routed.
pub(super) struct Executed {
    pub statement: Arc<Statement>,
    pub plan: Arc<Plan>,
    oids: Vec<u32>,
    values: Vec<Option<String>>,
}

/// As text, NULL as `None`.
pub(super) type Values<'a> = SmallVec<[Option<&'a [u8]>; 8]>;

impl Executed {
    pub fn values(&self) -> Values<'_> {
        self.values.iter().map(|it| it.as_deref().map(str::as_bytes)).collect()
    }

    /// Where its keys are, given what `values` gave.
    pub fn keys<'a>(&'a self, values: &'a [Option<&'a [u8]>]) -> KeySource<'a> {
        let params = Params { oids: &self.oids, formats: &[], values };
        KeySource { text: self.statement.text(), literals: &self.statement.literals, params: Some(params) }
    }
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
            // Whatever it names, an aborted transaction is what the server tells of.
            Kind::SessionState("EXECUTE") if self.transaction.status() == TxStatus::Failed => Ok(None),
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
        if self.transaction.status() != TxStatus::Failed {
            self.check_new_name(prepare.name.as_bytes()).map_err(Answer::Refused)?;
        }
        let statement = self.prepared(&prepare, text).map_err(Answer::Refused)?;
        let name = prepare.name;
        if statement.is_taken() && self.transaction.status() != TxStatus::Failed {
            // Some server has judged this text already.
            self.names.insert(name.as_bytes(), &statement);
            self.record.set_statements(self.names.len());
            return Err(Answer::Made { notices: Vec::new(), tag: "PREPARE", columns: &[] });
        }
        let mut message = Vec::new();
        wire::query(&mut message, &statement.prepare_text().unwrap_or_default());
        Ok(Some(Renamed { message, prepares: Some((name, statement)), ..Renamed::default() }))
    }

    /// The statement of a PREPARE. On several shards what cannot run there for any values is refused.
    fn prepared(&self, prepare: &sql::PrepareText<'_>, text: &str) -> Result<Arc<Statement>, Refusal> {
        let router = &self.database.router;
        let statement = self.database.statements.by_sql(prepare, || router.plan(prepare.statement));
        let (statement, _) = self.current(statement);
        if !self.has_shards() || self.transaction.status() == TxStatus::Failed {
            return Ok(statement);
        }
        if statement.is_prepared_alone() {
            return Err(not_on_shards(
                "PREPARE with a type that is not built in",
                "cast the parameter in the statement in place of the declaration",
            ));
        }
        let plan = statement.plan(router);
        if router.plan(text).plan.is_hinted() && !plan.is_hinted() {
            return Err(not_on_shards("a keyway hint in front of PREPARE", "write it behind AS"));
        }
        plan.refusal().map_or(Ok(statement), |it| Err(it.clone()))
    }

    fn rename_execute(&mut self, text: &str) -> Result<Option<Renamed>, Answer> {
        self.renew_executed(text);
        let (needs, out) = executed(text, |it| self.names.get(it.as_bytes())).map_err(Answer::Refused)?;
        if needs.is_empty() && !self.has_shards() {
            return Ok(None);
        }
        self.check_amid_pipeline(&needs).map_err(Answer::Refused)?;
        let executed = match self.transaction.status() {
            TxStatus::Failed => None,
            _ => self.routed(text, |it| self.names.get(it.as_bytes())).map_err(Answer::Refused)?,
        };
        let mut renamed = Renamed { needs, executed, ..Renamed::default() };
        wire::query(&mut renamed.message, &out);
        Ok(Some(renamed))
    }

    /// On several shards, what `text`, an EXECUTE, runs.
    fn routed<'n>(
        &self,
        text: &str,
        find: impl Fn(&str) -> Option<&'n Arc<Statement>>,
    ) -> Result<Option<Executed>, Refusal> {
        if !self.has_shards() {
            return Ok(None);
        }
        let Some(execute) = sql::execute_text(text) else {
            return Err(not_on_shards("EXECUTE inside of another statement", "use the statement itself"));
        };
        let router = &self.database.router;
        let statement = find(&execute.name).ok_or_else(|| no_statement(&execute.name))?.clone();
        if router.plan(text).plan.is_hinted() {
            return Err(not_on_shards(
                "a keyway hint beside EXECUTE",
                "write it in the statement that is prepared, or use SET",
            ));
        }
        let values = execute.values.ok_or_else(|| {
            not_on_shards(
                "a value of EXECUTE that is no constant",
                "bind it, or compute it in the application",
            )
        })?;
        let (oids, plan) = (statement.oids().collect::<Vec<_>>(), statement.plan(router));
        if !statement.is_of(&plan) {
            return Err(columns_have_changed(&execute.name));
        }
        let expected = sql::params_max(statement.text()).max(oids.len());
        if values.len() != expected {
            let message = format!("wrong number of parameters for prepared statement \"{}\"", execute.name);
            let refusal = Refusal::new(Reason::Protocol, SqlState::SYNTAX_ERROR, message);
            return Err(refusal.detail(format!("Expected {expected} parameters but got {}.", values.len())));
        }
        Ok(Some(Executed { statement, plan, oids, values }))
    }

    /// As `routed`, of a bound text under the names of servers, and what it names.
    pub fn routed_bound(&self, text: &str, needs: &[Arc<Statement>]) -> Result<Option<Executed>, Refusal> {
        self.routed(text, |_| needs.first())
    }

    /// Any server can parse and describe: that of the transaction, its `place`, or one of the shard that has the
    /// statement's table.
    pub fn decision_to_describe(
        &self,
        place: Option<(ShardId, Role)>,
        statement: Option<&Arc<Statement>>,
    ) -> Decision {
        let mut decision = self.decision_on(place);
        let home = statement.and_then(|it| it.plan(&self.database.router).home());
        if let Some(home) = home.filter(|_| self.held.is_some() && self.view().spreads) {
            decision.shards = [home].into_iter().collect();
        }
        if self.held.is_none() {
            let any = ShardId((self.entropy % self.floors.len().max(1) as u64) as u16);
            decision.shards = [home.unwrap_or(any)].into_iter().collect();
            if self.transaction.is_read_only() {
                decision.role = Role::Replica;
            }
        }
        decision
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
                let made = self.prepared(&it, text)?;
                (made.prepare_text().unwrap_or_default(), SqlNames::Prepared(it.name, made))
            }
            Kind::SessionState("EXECUTE") => {
                self.renew_executed(text);
                let (needs, text) = executed(text, |it| self.find(it.as_bytes(), group))?;
                if needs.is_empty() {
                    return Ok((statement, SqlNames::None));
                }
                let alone: Needs = needs.iter().filter(|it| it.is_prepared_alone()).cloned().collect();
                self.check_amid_pipeline(&alone)?;
                (text, SqlNames::Executed(needs))
            }
            _ => return Ok((statement, SqlNames::None)),
        };
        let planned = Planned {
            plan: statement.plan(&self.database.router),
            literals: Literals::default(),
            hit: false,
        };
        Ok((self.database.statements.unnamed(&text, &statement.oids, planned), names))
    }

    /// What has to come first with an end of its own would end a pipeline.
    pub fn check_amid_pipeline(&mut self, needs: &[Arc<Statement>]) -> Result<(), Refusal> {
        let mut has =
            |it: &Arc<Statement>| self.held.as_mut().is_some_and(|held| held.lease.statements.has(it.id));
        if !self.unsynced || needs.iter().all(&mut has) {
            return Ok(());
        }
        Err(Refusal::unsupported(
            Reason::SessionState,
            "a statement made by PREPARE in the middle of a pipeline, on a server that lacks it, is not supported",
            "send a Sync in front of it",
        ))
    }

    /// PREPARE has been done: the name is the client's from now on, and no ROLLBACK takes it away.
    pub fn name_prepared(&mut self, name: &str, statement: Arc<Statement>) {
        if let Some(held) = &mut self.held {
            let statements = &mut held.lease.statements;
            statements.send(statement.id, statement.server_text().len(), &statement.presence);
            statements.insert(statement.id);
        }
        statement.mark_taken();
        self.names.insert(name.as_bytes(), &statement);
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
        out.push_str(&text[copied..it.place.start]);
        out.push_str(&statement.id.server_name());
        copied = it.place.end;
        needs.push(statement.clone());
    }
    out.push_str(&text[copied..]);
    Ok((needs, out))
}

/// What the server lacks is sent in front of a Query, or of a group, with an end of its own. Whether it lacked it.
pub(super) fn put_in_front(statement: &Statement, server: &mut Backend, out: &mut Vec<u8>) -> bool {
    if server.statements.has(statement.id) || server.statements.is_on_its_way(statement.id) {
        return false;
    }
    match statement.prepare_text() {
        Some(text) => {
            wire::query(out, &text);
            server.pipeline.push(Expect::Prepare(statement.id));
        }
        None => {
            let name = statement.id.server_name();
            wire::parse_named(out, name.as_bytes(), statement.server_text(), &statement.oids);
            out.extend_from_slice(wire::SYNC);
            server.pipeline.push(Expect::Parse(Origin::Keyway, statement.id));
            server.pipeline.push(Expect::OwnSync);
        }
    }
    server.statements.send(statement.id, statement.server_text().len(), &statement.presence);
    true
}

/// Between the look at the name and that at the plan.
fn columns_have_changed(name: &str) -> Refusal {
    let message = format!("columns have changed that prepared statement \"{name}\" leaves to the catalog");
    Refusal::unsupported(Reason::SessionState, message, "execute it again")
}

fn not_on_shards(what: &str, hint: &'static str) -> Refusal {
    let message = format!("{what} is not supported on a database of several shards");
    Refusal::unsupported(Reason::SessionState, message, hint)
}
