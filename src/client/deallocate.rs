//! DEALLOCATE beside other statements: in a pipeline, and in a text of several. Names are the client's own, so
//! no server is told: its statements are there for others too.
//!
//! In a group of the extended protocol a server parses and binds DEALLOCATE, so that its errors come in their
//! place, and Keyway answers Execute and closes the portal. What a server has of its own is the server's to
//! drop, which only a client that is tied to one can have.

use std::sync::Arc;

use super::effects::Answer;
use super::group::{Bound, Group, Op};
use super::session::Session;
use super::sql_prepare::SqlNames;
use super::statements::Names;
use crate::base::{Reason, Refusal, SqlState};
use crate::proto::StatementId;
use crate::route::{Kind, Plan};
use crate::sql;
use crate::wire::{self, TxStatus};

/// The whole answer to a DEALLOCATE that is executed.
pub(super) fn completion(kind: &Kind) -> &'static [u8] {
    if *kind == Kind::DeallocateAll { wire::ALL_DEALLOCATED } else { wire::DEALLOCATED }
}

fn tag(kind: &Kind) -> &'static str {
    if *kind == Kind::DeallocateAll { "DEALLOCATE ALL" } else { "DEALLOCATE" }
}

/// The names of `kind` are gone.
pub(super) fn drop_names(kind: &Kind, names: &mut Names) {
    match kind {
        Kind::Deallocate(name) => drop(names.remove(name.as_bytes())),
        _ => names.clear_named(),
    }
}

/// Whether a name would not be found any more behind this.
pub(super) fn drops(kind: &Kind, name: &[u8]) -> bool {
    match kind {
        Kind::Deallocate(it) => it.as_bytes() == name,
        _ => !name.is_empty(),
    }
}

fn is_deallocate(kind: &Kind) -> bool {
    matches!(kind, Kind::Deallocate(_) | Kind::DeallocateAll)
}

pub(super) fn no_statement(name: &str) -> Refusal {
    let message = format!("prepared statement \"{name}\" does not exist");
    Refusal::new(Reason::Protocol, SqlState::INVALID_SQL_STATEMENT_NAME, message)
}

impl<'a> Group<'a> {
    /// What a portal of this group runs.
    fn bound_to(&self, portal: &[u8]) -> Option<(&Arc<Plan>, &SqlNames)> {
        self.ops.iter().rev().find_map(|op| match op {
            Op::Bind { bind, plan, sql, .. } if bind.portal() == portal => Some((plan, sql)),
            _ => None,
        })
    }

    /// Nothing runs but DEALLOCATE, by Keyway; its tag.
    pub fn only_deallocates(&self) -> Option<&'static str> {
        let runs =
            |it: &&Op<'_>| matches!(it, Op::Execute { .. } | Op::Deallocate { .. } | Op::Prepare { .. });
        let mut runs = self.ops.iter().filter(runs);
        match (runs.next(), runs.next()) {
            (Some(Op::Deallocate { plan, .. }), None) => Some(tag(&plan.kind)),
            _ => None,
        }
    }

    /// A portal that makes or drops statements and is not executed here.
    fn leaves_naming_portal(&self) -> bool {
        let mut open: Vec<&[u8]> = Vec::new();
        for op in &self.ops {
            match op {
                Op::Bind { bind, plan, sql, .. } => {
                    open.retain(|it| *it != bind.portal());
                    if is_deallocate(&plan.kind)
                        || plan.kind == Kind::DiscardAll
                        || matches!(sql, SqlNames::Prepared(..))
                    {
                        open.push(bind.portal());
                    }
                }
                Op::Execute { portal, .. }
                | Op::Deallocate { portal, .. }
                | Op::Prepare { portal, .. }
                | Op::ClosePortal { portal, .. } => {
                    open.retain(|it| it != portal);
                }
                _ => {}
            }
        }
        !open.is_empty()
    }
}

impl Session {
    /// A server may have statements of this client's own by the end of the group so far.
    fn may_have_own(&self, group: &Group<'_>) -> bool {
        let own = |it: Bound<'_, '_>| {
            matches!(it.plan.kind, Kind::SessionState(_)) && matches!(it.sql, SqlNames::None)
        };
        self.is_tied() || group.bound().any(own)
    }

    /// What Execute means at this place of a group.
    pub(super) fn read_execute<'a>(
        &self,
        execute: wire::Execute<'a>,
        raw: &'a [u8],
        group: &Group<'a>,
    ) -> Op<'a> {
        let portal = execute.portal;
        let here = |plan: &Plan| match &plan.kind {
            Kind::Deallocate(name) => self.find(name.as_bytes(), group).is_some(),
            Kind::DeallocateAll => !self.may_have_own(group),
            _ => false,
        };
        match group.bound_to(portal) {
            Some((plan, _)) if here(plan) => Op::Deallocate { plan: plan.clone(), portal },
            // The second time a portal cannot be run, as the server says.
            Some((_, SqlNames::Prepared(name, statement))) if self.find(name.as_bytes(), group).is_none() => {
                Op::Prepare { name: name.clone(), statement: statement.clone(), portal, raw }
            }
            _ => {
                let rows_max = u32::try_from(execute.rows_max).unwrap_or(0);
                Op::Execute { rows_max, portal, raw }
            }
        }
    }

    /// Names of SQL's statements that a text bound here may not have.
    pub(super) fn check_sql_names(&self, plan: &Plan, group: &Group<'_>) -> Result<(), Refusal> {
        match &plan.kind {
            Kind::Deallocate(name)
                if StatementId::is_server_name(name) && self.find(name.as_bytes(), group).is_none() =>
            {
                Err(no_statement(name))
            }
            _ => Ok(()),
        }
    }

    /// What drops statements of a server, and not by itself: then it is not known which ones are there behind it.
    pub(super) fn refuse_dropping(&self, group: &Group<'_>) -> Option<Refusal> {
        let drops = |it: &Kind| is_deallocate(it) || matches!(it, Kind::DiscardAll);
        if !group.bound().any(|it| drops(&it.plan.kind) || matches!(it.sql, SqlNames::Prepared(..))) {
            return None;
        }
        let hint = "send a Sync in front of it and behind it";
        let all = group.plans().any(|it| it.kind == Kind::DeallocateAll);
        if group.plans().count() > 1 && group.plans().any(|it| it.kind == Kind::DiscardAll) {
            let message = "DISCARD ALL cannot be executed within a pipeline";
            return Some(
                Refusal::new(Reason::Protocol, SqlState::ACTIVE_SQL_TRANSACTION, message).hint(hint),
            );
        }
        let message = if group.leaves_naming_portal() {
            "PREPARE, DEALLOCATE and DISCARD ALL bound in one pipeline and executed in another are not supported"
        } else if all && group.plans().count() > 1 && !group.has_deallocate_all() {
            "DEALLOCATE ALL beside other statements is not supported for a client that keeps its server"
        } else {
            return None;
        };
        Some(Refusal::unsupported(Reason::SessionState, message, hint))
    }

    /// The answer to a text of several statements, if it names prepared ones in a way that no server can answer.
    pub(super) fn answer_names(&mut self, parts: &[Kind], text: &str) -> Option<Answer> {
        if parts.contains(&Kind::SessionState("PREPARE"))
            && let Err(refusal) =
                check_prepared(sql::prepare_names(text), |it| self.names.get(it.as_bytes()).is_some())
        {
            return Some(Answer::Refused(refusal));
        }
        let own = |it: &Kind| match it {
            Kind::Deallocate(name) => {
                self.names.get(name.as_bytes()).is_none() && !StatementId::is_server_name(name)
            }
            kind => *kind != Kind::DeallocateAll,
        };
        // The first statement fails in an aborted transaction, which none of these ends.
        let aborted = self.transaction.status() == TxStatus::Failed
            && !self.unsynced
            && !parts.iter().any(Kind::is_transaction_control);
        if parts.iter().all(own) || aborted {
            return None;
        }
        if !self.is_tied() && self.has_all(parts) {
            let mut replies = Vec::new();
            for (index, kind) in parts.iter().enumerate() {
                drop_names(kind, &mut self.names);
                if index + 1 < parts.len() {
                    wire::command_complete(&mut replies, tag(kind));
                }
            }
            self.record.set_statements(self.names.len());
            return Some(Answer::Made { notices: replies, tag: parts.last().map_or("", tag), columns: &[] });
        }
        Some(Answer::Refused(Refusal::unsupported(
            Reason::SessionState,
            "DEALLOCATE beside other statements in one text is not supported",
            "send it by itself",
        )))
    }

    /// Nothing but DEALLOCATE of what is there when its turn comes.
    fn has_all(&self, parts: &[Kind]) -> bool {
        parts.iter().enumerate().all(|(index, kind)| match kind {
            Kind::Deallocate(name) => {
                let name = name.as_bytes();
                self.names.get(name).is_some() && !parts[..index].iter().any(|it| drops(it, name))
            }
            kind => *kind == Kind::DeallocateAll,
        })
    }
}

/// PREPARE that a server runs as it is.
fn check_prepared(
    names: impl IntoIterator<Item = String>,
    is_taken: impl Fn(&str) -> bool,
) -> Result<(), Refusal> {
    for name in names {
        if is_taken(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Refusal::new(Reason::Protocol, SqlState::DUPLICATE_PREPARED_STATEMENT, message));
        }
        if StatementId::is_server_name(&name) {
            return Err(Refusal::unsupported(
                Reason::SessionState,
                format!("prepared statement \"{name}\" has a name as keyway gives them on servers"),
                "use another name, or send PREPARE by itself in the simple protocol",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_messages_with_their_tags() {
        for kind in [Kind::DeallocateAll, Kind::Deallocate("p".into())] {
            let mut made = Vec::new();
            wire::command_complete(&mut made, tag(&kind));
            assert_eq!(made, completion(&kind));
        }
    }

    #[test]
    fn what_a_server_runs_as_it_is_has_a_name_of_its_own() {
        let check = |name: &str| {
            let checked = check_prepared([name.to_owned()], |it| it == "taken");
            checked.err().map(|it| it.state().0)
        };
        assert_eq!(check("free"), None);
        assert_eq!(check("keyway_"), None);
        assert_eq!(check("keyway_a1"), None);
        assert_eq!(check("taken"), Some("42P05"));
        assert_eq!(check("keyway_12"), Some("0A000"));
    }

    #[test]
    fn the_unnamed_statement_stays() {
        assert!(drops(&Kind::DeallocateAll, b"p") && !drops(&Kind::DeallocateAll, b""));
        assert!(drops(&Kind::Deallocate("p".into()), b"p") && !drops(&Kind::Deallocate("p".into()), b"q"));
    }
}
