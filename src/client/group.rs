//! A group of extended messages up to its Sync or Flush: what it asks for, and how it reads under the names that a
//! server has.

use std::sync::Arc;

use smallvec::SmallVec;

use super::bind::{self, hides_settings};
use super::deallocate;
use super::effects::is_prologue;
use super::merged::{Asked, Reading, Step};
use super::position;
use super::routing;
use super::sql_prepare::{self, SqlNames};
use super::statements::Statement;
use crate::backend::Backend;
use crate::proto::{Expect, Origin, Part, StatementId, UnitEnd};
use crate::route::{CursorStatement, Kind, Plan, Router};
use crate::wire::{self, Bind, Column, TxStatus};

/// One message of a group, its statement looked up. `rows_max` of Execute is 0 for all of them.
pub(super) enum Op<'a> {
    Parse {
        name: &'a [u8],
        statement: Arc<Statement>,
        raw: &'a [u8],
    },
    Bind {
        bind: Bind<'a>,
        statement: Arc<Statement>,
        plan: Arc<Plan>,
        sql: SqlNames,
    },
    DescribeStatement {
        statement: Arc<Statement>,
        sql: SqlNames,
    },
    DescribePortal {
        portal: &'a [u8],
        raw: &'a [u8],
    },
    Execute {
        rows_max: u32,
        portal: &'a [u8],
        raw: &'a [u8],
    },
    /// Execute of a DEALLOCATE that Keyway answers.
    Deallocate {
        plan: Arc<Plan>,
        portal: &'a [u8],
    },
    /// Execute of a PREPARE that is virtual: by the server where it lacks the statement, else by Keyway.
    Prepare {
        name: String,
        statement: Arc<Statement>,
        portal: &'a [u8],
        raw: &'a [u8],
    },
    CloseStatement {
        name: &'a [u8],
        raw: &'a [u8],
    },
    ClosePortal {
        portal: &'a [u8],
        raw: &'a [u8],
    },
    Sync {
        raw: &'a [u8],
    },
    Flush {
        raw: &'a [u8],
    },
}

impl<'a> Op<'a> {
    /// Which one it makes, uses or ends.
    pub fn portal(&self) -> Option<&'a [u8]> {
        match self {
            Op::Bind { bind, .. } => Some(bind.portal()),
            Op::Execute { portal, .. }
            | Op::Deallocate { portal, .. }
            | Op::Prepare { portal, .. }
            | Op::DescribePortal { portal, .. }
            | Op::ClosePortal { portal, .. } => Some(portal),
            _ => None,
        }
    }
}

/// A statement that runs, with the plan that holds for all of its group.
#[derive(Clone, Copy)]
pub(super) struct Bound<'g, 'a> {
    pub bind: &'g Bind<'a>,
    pub statement: &'g Arc<Statement>,
    pub plan: &'g Arc<Plan>,
    pub sql: &'g SqlNames,
}

pub(super) struct Group<'a> {
    pub ops: Vec<Op<'a>>,
    pub raw: &'a [u8],
    pub end: UnitEnd,
    /// A Sync of ours takes the place of its Flush, because nothing of it has to wait for the client's:
    /// drivers that prepare like this bind to a shard only with what comes next.
    pub ends_early: bool,
    /// Behind extended messages without their Sync.
    pub goes_on: bool,
}

/// The room of messages that have been dealt with, for the next group's: nothing is in it, so that it is collected
/// in place.
pub(super) fn recycled<'a>(mut ops: Vec<Op<'_>>) -> Vec<Op<'a>> {
    ops.clear();
    ops.into_iter().map_while(|_| None).collect()
}

impl<'a> Group<'a> {
    pub fn is_synced(&self) -> bool {
        self.end == UnitEnd::Sync
    }

    pub fn bound(&self) -> impl Iterator<Item = Bound<'_, 'a>> + Clone {
        self.ops.iter().filter_map(|it| match it {
            Op::Bind { bind, statement, plan, sql, .. } => Some(Bound { bind, statement, plan, sql }),
            _ => None,
        })
    }

    pub fn executes(&self) -> bool {
        self.ops
            .iter()
            .any(|it| matches!(it, Op::Execute { .. } | Op::Deallocate { .. } | Op::Prepare { .. }))
    }

    /// Keyway answers DEALLOCATE ALL.
    pub fn has_deallocate_all(&self) -> bool {
        let is_all =
            |it: &Op<'_>| matches!(it, Op::Deallocate { plan, .. } if plan.kind == Kind::DeallocateAll);
        self.ops.iter().any(is_all)
    }

    /// Those that servers know by name, whether they run or not.
    pub fn named(&self) -> impl Iterator<Item = &Arc<Statement>> {
        let of_protocol = self.ops.iter().filter_map(|it| match it {
            Op::Bind { statement, .. } | Op::DescribeStatement { statement, .. } => {
                Some(statement).filter(|it| !it.id.is_unnamed())
            }
            _ => None,
        });
        of_protocol.chain(self.executed())
    }

    /// What EXECUTE names.
    fn executed(&self) -> impl Iterator<Item = &Arc<Statement>> {
        self.ops.iter().flat_map(executed)
    }

    /// What only PREPARE can give a server, to be there first.
    fn needs(&self) -> impl Iterator<Item = &Arc<Statement>> {
        let of_protocol = |it| match it {
            &Op::Bind { ref statement, .. } | &Op::DescribeStatement { ref statement, .. } => Some(statement),
            _ => None,
        };
        let bound = self.ops.iter().filter_map(of_protocol);
        self.executed().chain(bound).filter(|it| it.is_prepared_alone())
    }

    /// The client is told anew what the rows of each statement are that it runs.
    pub fn describes_all(&self) -> bool {
        let mut told = true;
        for op in &self.ops {
            match op {
                Op::Bind { .. } => told = false,
                Op::DescribePortal { .. } => told = true,
                Op::Execute { .. } if !told => return false,
                _ => {}
            }
        }
        true
    }

    /// Of the statements that run.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.bound().map(|it| &**it.plan)
    }

    /// As `mixes` of a text: more than a COMMIT or ROLLBACK at the end, or a BEGIN in front of what leaves no settings.
    pub fn mixes(&self) -> bool {
        let plans: SmallVec<[&Plan; 4]> = self.plans().collect();
        let Some((last, others)) = plans.split_last().filter(|it| !it.1.is_empty()) else { return false };
        let ends = |it: &Plan| matches!(it.kind, Kind::Commit { .. } | Kind::Rollback { .. });
        let chains =
            |it: &Plan| matches!(it.kind, Kind::Commit { chain: true } | Kind::Rollback { chain: true });
        let begins = |it: &Plan| matches!(it.kind, Kind::Begin { .. });
        plans.iter().any(|it| is_prologue(&it.kind) || bind::mixes(&it.kind) || chains(it))
            || others.iter().any(|it| ends(it))
            || plans[1..].iter().any(|it| begins(it))
            || begins(plans[0])
                && (ends(last) || plans.iter().any(|it| it.makes_settings() || hides_settings(it)))
    }

    /// Nothing of it stays on the server but prepared statements: no portal does, nor an open end. Of a row
    /// limit the unnamed portal may stay, but the Bind or Query that leaves the shard destroys it anyway
    /// (manual, "Extended Query"); asyncpg has a limit of 1 wherever it wants one row.
    pub fn leaves_nothing(&self) -> bool {
        let mut open = false;
        (self.is_synced() || self.ends_early)
            && self.ops.iter().all(|op| match op {
                Op::Bind { bind, .. } => !std::mem::replace(&mut open, true) && bind.portal().is_empty(),
                Op::Execute { .. } | Op::Deallocate { .. } | Op::Prepare { .. } => std::mem::take(&mut open),
                Op::DescribePortal { .. } | Op::ClosePortal { .. } => open,
                _ => true,
            })
            && !open
    }

    /// Its only statement that runs, where several shards answer it together.
    pub fn reading(&self) -> Option<Reading<'_>> {
        let plan = self.bound().next()?.plan;
        Some(Reading::new(plan.shard_read()?, plan.version, self.asked()?))
    }

    /// Its only statement that runs.
    pub fn asked(&self) -> Option<Asked<'_>> {
        let Bound { bind, statement, .. } = self.bound().next()?;
        Some(Asked::bound(statement, bind, self.ops.iter().filter_map(step).collect()))
    }

    /// What is said of a cursor, where that is all: the only statement that runs, or the only one described.
    pub fn cursor_statement(&self, router: &Router) -> Option<CursorStatement> {
        let cursor = |kind: &Kind| match kind {
            Kind::Cursor(it) => Some(it.clone()),
            _ => None,
        };
        let mut bound = self.bound();
        match (bound.next(), bound.next()) {
            (Some(only), None) => cursor(&only.plan.kind),
            (None, _) => {
                let mut named = self.ops.iter().filter_map(|it| match it {
                    Op::Parse { statement, .. } | Op::DescribeStatement { statement, .. } => Some(statement),
                    _ => None,
                });
                let first = named.next()?;
                named.all(|it| it.id == first.id).then(|| cursor(&first.plan(router).kind)).flatten()
            }
            _ => None,
        }
    }

    /// What the client awaits of it; `None` where a pipeline goes on before or behind it.
    pub fn cursor_script(&self) -> Option<SmallVec<[Step; 4]>> {
        let whole = (self.is_synced() || self.ends_early) && !self.goes_on;
        whole.then(|| self.ops.iter().filter_map(step).collect())
    }

    /// Execute, Describe and Close of one portal that it has not bound, where that is all.
    pub fn portal_script(&self) -> Option<(&'a [u8], SmallVec<[Step; 4]>)> {
        let (mut name, mut script) = (None, SmallVec::new());
        for op in &self.ops {
            let portal = match op {
                Op::Sync { .. } | Op::Flush { .. } => continue,
                // Behind Close there is nothing to execute.
                _ if script.last() == Some(&Step::Closed) => return None,
                _ => op.portal()?,
            };
            if matches!(op, Op::Bind { .. }) || name.is_some_and(|it| it != portal) {
                return None;
            }
            name = Some(portal);
            script.extend(step(op));
        }
        Some((name?, script))
    }

    /// The portal that its only statement leaves to later groups: it has a name, and is not closed.
    pub fn leaves_portal(&self) -> Option<&'a [u8]> {
        let mut left = None;
        for op in &self.ops {
            match (op, op.portal()) {
                (Op::Bind { .. }, it) => left = it,
                (Op::ClosePortal { .. }, it) if it != left => {}
                (Op::ClosePortal { .. }, _) => return None,
                (_, Some(it)) if Some(it) != left => return None,
                _ => {}
            }
        }
        left.filter(|it| !it.is_empty())
    }

    /// What the client sees of the answer.
    pub fn part(&self) -> Part {
        Part { ready: !self.ends_early, ..Part::WHOLE }
    }

    /// Statements are parsed and described, and none is bound.
    pub fn only_prepares(&self) -> bool {
        self.ops.iter().all(|it| {
            matches!(
                it,
                Op::Parse { .. }
                    | Op::DescribeStatement { .. }
                    | Op::CloseStatement { .. }
                    | Op::Flush { .. }
            )
        })
    }

    /// Which is done in a transaction that has failed too.
    pub fn only_closes(&self) -> bool {
        let closes = |it: &Op<'_>| {
            let ends = matches!(it, Op::Sync { .. } | Op::Flush { .. });
            ends || matches!(it, Op::ClosePortal { .. } | Op::CloseStatement { .. })
        };
        self.ops.iter().all(closes)
    }

    /// There is more to it than Sync or Flush.
    pub fn asks(&self) -> bool {
        !self.ops.iter().all(|it| matches!(it, Op::Sync { .. } | Op::Flush { .. }))
    }

    /// Where all that it prepares or describes is one of what no server knows: EXPLAIN (KEYWAY), SHOW keyway.position.
    pub fn columns_of_ours(&self, router: &Router) -> Option<&'static [Column]> {
        let mut statements = self.ops.iter().filter_map(|it| match it {
            Op::Parse { statement, .. } | Op::DescribeStatement { statement, .. } => Some(statement),
            _ => None,
        });
        let columns = |it: &Arc<Statement>| match &it.plan(router).kind {
            Kind::ExplainRouting => Some(routing::COLUMNS),
            kind if position::is_shown(kind) => Some(position::COLUMNS),
            _ => None,
        };
        let first = columns(statements.next()?)?;
        statements.all(|it| columns(it).is_some_and(|it| std::ptr::eq(it, first))).then_some(first)
    }

    pub fn is_limited(&self) -> bool {
        self.ops.iter().any(|it| matches!(it, Op::Execute { rows_max: 1.., .. }))
    }

    /// Says what will be owed, and gives the bytes: as they came where no name has to be replaced.
    pub fn compose(&self, server: &mut Backend, out: &mut Vec<u8>) -> Option<&'a [u8]> {
        // A server that ignores everything up to Sync would keep them. What only PREPARE gives was there when this
        // was read, and cannot be sent amid a pipeline.
        let may_close = !(server.pipeline.is_skipping() || self.goes_on && self.needs().next().is_some());
        let closed = if may_close { server.statements.evict() } else { Vec::new() };
        for id in closed {
            wire::close_statement(out, id.server_name().as_bytes());
            server.pipeline.push(Expect::Close(Origin::Keyway));
        }
        if out.is_empty() && self.end != UnitEnd::Open && !self.ends_early && self.is_verbatim(server) {
            self.ops.iter().for_each(|it| owe(it, server));
            return Some(self.raw);
        }
        let mut sent = SmallVec::<[_; 4]>::new();
        // Names of ours are longer than the client's by no more than this: one allocation, not one for each step.
        out.reserve(self.raw.len() + 128);
        self.put_needs(server, &mut sent, out);
        for op in &self.ops {
            if !(self.ends_early && matches!(op, Op::Flush { .. })) {
                rewrite(op, server, &mut sent, out);
            }
        }
        if self.ends_early {
            out.extend_from_slice(wire::SYNC);
            server.pipeline.push(Expect::Sync);
        } else if self.end == UnitEnd::Open {
            out.extend_from_slice(wire::FLUSH);
        }
        None
    }

    /// PREPARE in front of everything, of what the server lacks and Parse cannot give it. In a transaction that has failed the server says so
    /// to what follows.
    fn put_needs(&self, server: &mut Backend, sent: &mut SmallVec<[StatementId; 4]>, out: &mut Vec<u8>) {
        if self.goes_on || server.pipeline.status() == TxStatus::Failed {
            return;
        }
        for it in self.needs() {
            if sql_prepare::put_in_front(it, server, out) {
                server.statements.set_unnamed(None);
                sent.push(it.id);
            }
        }
    }

    /// Only unnamed statements, each parsed in this group or the last one parsed on this server.
    fn is_verbatim(&self, server: &Backend) -> bool {
        let mut unnamed = server.statements.unnamed();
        let names_end = self.straight().map_or(self.ops.len(), |it| 1 + usize::from(it.parses));
        self.ops[..names_end].iter().all(|op| match op {
            Op::Parse { statement, .. } => {
                unnamed = Some(statement.id);
                statement.id.is_unnamed() && statement.moves().is_none()
            }
            Op::Bind { statement, .. } | Op::DescribeStatement { statement, .. } => {
                unnamed == Some(statement.id)
            }
            Op::CloseStatement { name, .. } => name.is_empty(),
            Op::Deallocate { .. } | Op::Prepare { .. } => false,
            _ => true,
        })
    }
}

fn executed<'g>(op: &'g Op<'_>) -> &'g [Arc<Statement>] {
    match op {
        Op::Bind { sql: SqlNames::Executed(needs), .. }
        | Op::DescribeStatement { sql: SqlNames::Executed(needs), .. } => needs,
        _ => &[],
    }
}

fn step(op: &Op<'_>) -> Option<Step> {
    match op {
        Op::Parse { .. } => Some(Step::Parsed),
        Op::Bind { .. } => Some(Step::Bound),
        Op::DescribeStatement { .. } => Some(Step::Statement),
        Op::DescribePortal { .. } => Some(Step::Portal),
        Op::Execute { rows_max, .. } => Some(Step::Rows(u64::from(*rows_max))),
        Op::CloseStatement { .. } | Op::ClosePortal { .. } => Some(Step::Closed),
        // It runs beside no other statement (`decide_group`).
        Op::Deallocate { .. } | Op::Prepare { .. } | Op::Sync { .. } | Op::Flush { .. } => None,
    }
}

fn owe(op: &Op<'_>, server: &mut Backend) {
    let expect = match op {
        Op::Parse { statement, .. } => {
            server.statements.set_unnamed(None);
            Expect::Parse(Origin::Client, statement.id)
        }
        Op::Bind { .. } => Expect::Bind,
        Op::DescribeStatement { .. } | Op::DescribePortal { .. } => Expect::Describe,
        Op::Execute { .. } => Expect::Execute,
        Op::Prepare { statement, .. } => Expect::ExecutePrepare(statement.id),
        Op::CloseStatement { .. } | Op::ClosePortal { .. } => Expect::Close(Origin::Client),
        Op::Sync { .. } => Expect::Sync,
        Op::Deallocate { plan, .. } => Expect::MadeExecute(deallocate::completion(&plan.kind)),
        Op::Flush { .. } => return,
    };
    server.pipeline.push(expect);
}

/// Appends one message under the server's names, with a Parse in front where it lacks the statement.
fn rewrite(op: &Op<'_>, server: &mut Backend, sent: &mut SmallVec<[StatementId; 4]>, out: &mut Vec<u8>) {
    executed(op).iter().for_each(|it| ensure(it, server, sent, out));
    match op {
        Op::Parse { statement, .. } if !statement.id.is_unnamed() => {
            if server.statements.has(statement.id) || sent.contains(&statement.id) {
                server.pipeline.push(Expect::MadeParse(statement.id));
            } else {
                parse_on(statement, server, Origin::Client, sent, out);
            }
        }
        Op::Parse { statement, .. } if statement.moves().is_some() => {
            parse_on(statement, server, Origin::Client, sent, out);
        }
        Op::Parse { statement, raw, .. } => {
            sent.push(statement.id);
            out.extend_from_slice(raw);
            owe(op, server);
        }
        Op::Bind { bind, statement, .. } => {
            ensure(statement, server, sent, out);
            if statement.id.is_unnamed() && bind.statement().is_empty() {
                out.extend_from_slice(bind.message());
            } else {
                wire::bind_renamed(out, bind, statement.server_name().as_bytes());
            }
            owe(op, server);
        }
        Op::DescribeStatement { statement, .. } => {
            ensure(statement, server, sent, out);
            wire::describe_statement(out, statement.server_name().as_bytes());
            owe(op, server);
        }
        Op::CloseStatement { name, .. } if !name.is_empty() => server.pipeline.push(Expect::MadeClose),
        Op::Deallocate { portal, .. } => {
            owe(op, server);
            // It could be executed later, and would be for real.
            wire::close_portal(out, portal);
            server.pipeline.push(Expect::Close(Origin::Keyway));
        }
        Op::Prepare { statement, portal, .. }
            if server.statements.has(statement.id) || sent.contains(&statement.id) =>
        {
            server.pipeline.push(Expect::MadeExecute(wire::PREPARED));
            wire::close_portal(out, portal);
            server.pipeline.push(Expect::Close(Origin::Keyway));
        }
        Op::Prepare { statement, raw, .. } => {
            out.extend_from_slice(raw);
            server.statements.send(statement.id, statement.server_text().len(), &statement.presence);
            sent.push(statement.id);
            owe(op, server);
        }
        Op::DescribePortal { raw, .. }
        | Op::Execute { raw, .. }
        | Op::CloseStatement { raw, .. }
        | Op::ClosePortal { raw, .. }
        | Op::Sync { raw }
        | Op::Flush { raw } => {
            out.extend_from_slice(raw);
            owe(op, server);
        }
    }
}

fn ensure(
    statement: &Statement,
    server: &mut Backend,
    sent: &mut SmallVec<[StatementId; 4]>,
    out: &mut Vec<u8>,
) {
    let there = if statement.id.is_unnamed() {
        let last = sent.iter().rev().find(|it| it.is_unnamed()).copied();
        last.or(server.statements.unnamed()) == Some(statement.id)
    } else {
        server.statements.has(statement.id) || sent.contains(&statement.id)
    };
    // Where it is not there all the same, its transaction has failed, and whatever is sent fails too.
    if !there && !statement.is_prepared_alone() {
        parse_on(statement, server, Origin::Keyway, sent, out);
    }
}

fn parse_on(
    statement: &Statement,
    server: &mut Backend,
    origin: Origin,
    sent: &mut SmallVec<[StatementId; 4]>,
    out: &mut Vec<u8>,
) {
    if statement.id.is_unnamed() {
        server.statements.set_unnamed(None);
    }
    let text = statement.server_text();
    wire::parse_named(out, statement.server_name().as_bytes(), text, &statement.oids);
    server.statements.send(statement.id, text.len(), &statement.presence);
    let expect = Expect::Parse(origin, statement.id);
    server.pipeline.push(expect);
    if let Some(moves) = statement.moves() {
        server.pipeline.move_errors(expect, moves);
    }
    sent.push(statement.id);
}

/// The answers of a group that no server has seen.
pub(super) fn put_made(
    group: &Group<'_>,
    notices: &[u8],
    tag: &str,
    columns: &[wire::Column],
    out: &mut Vec<u8>,
) {
    let describe = |out: &mut Vec<u8>| match columns {
        [] => out.extend_from_slice(wire::NO_DATA),
        columns => wire::describe_columns(out, columns, |_| false),
    };
    for op in &group.ops {
        match op {
            Op::Parse { .. } => out.extend_from_slice(wire::PARSE_COMPLETE),
            Op::Bind { .. } => out.extend_from_slice(wire::BIND_COMPLETE),
            Op::DescribeStatement { .. } => {
                wire::parameter_description(out, &[]);
                describe(out);
            }
            Op::DescribePortal { .. } => describe(out),
            Op::Execute { .. } => {
                out.extend_from_slice(notices);
                wire::command_complete(out, tag);
            }
            Op::Deallocate { plan, .. } => out.extend_from_slice(deallocate::completion(&plan.kind)),
            Op::Prepare { .. } => out.extend_from_slice(wire::PREPARED),
            Op::CloseStatement { .. } | Op::ClosePortal { .. } => {
                out.extend_from_slice(wire::CLOSE_COMPLETE);
            }
            Op::Sync { .. } | Op::Flush { .. } => {}
        }
    }
}
