//! Which server an open transaction is bound to: none for good, until a statement runs that depends on
//! the shard.

use std::time::Instant;

use super::attach::{SetUpError, run_own};
use super::effects::is_prologue;
use super::enlisted::PortalHome;
use super::group::{Bound, Group, Op};
use super::session::Session;
use super::sql_prepare::SqlNames;
use crate::base::{Access, Reason, Refusal, Role, ShardId, SqlState};
use crate::proto::{Bond, Origin};
use crate::route::{Decision, Kind, Mode, Plan, Why};

/// Ends the transaction only where each statement sees what is committed at its start: elsewhere the
/// snapshot of the first one holds for all, and no other shard has it. The division fails then, and with
/// it the text before its ROLLBACK.
const LEAVE: &str = "SELECT 1 OPERATOR(pg_catalog./) (pg_catalog.current_setting('transaction_isolation') \
     OPERATOR(pg_catalog.=) 'read committed')::pg_catalog.int4; ROLLBACK";

impl Session {
    /// A transaction is at a server and may still go to another shard.
    pub fn is_movable(&self) -> bool {
        self.transaction.is_movable() && self.pinned.is_none() && !self.unsynced
    }

    /// A Query of `plan` has run.
    pub fn bind_to(&mut self, plan: &Plan, decision: &Decision) {
        if self.transaction.is_idle() || is_prologue(&plan.kind) {
            return;
        }
        if mixes(&plan.kind) {
            self.transaction.forget_beginning();
        }
        if let Some(&shard) = decision.shards.first() {
            if may_write(plan) {
                self.transaction.write_on(shard);
            }
            // What every shard has run is on all of them.
            let everywhere = decision.shards.len() == self.floors.len();
            if !everywhere && hides_settings(plan) {
                self.transaction.hide_settings(shard);
            }
        }
        self.transaction.bind(bond(plan, decision.why));
    }

    /// A group has run. A portal outlives its group inside a transaction.
    pub fn bind_to_group(&mut self, group: &Group<'_>, decision: &Decision) {
        if self.transaction.is_idle() {
            return;
        }
        if !group.leaves_nothing() {
            self.transaction.bind(Bond::Bound);
        }
        for Bound { plan, sql, .. } in group.bound() {
            match sql {
                // What EXECUTE runs, and not EXECUTE.
                SqlNames::Executed(needs) => {
                    for it in needs {
                        let plan = it.plan(&self.database.router);
                        self.bind_to(&plan, decision);
                    }
                }
                SqlNames::Prepared(..) | SqlNames::None => self.bind_to(plan, decision),
            }
        }
        let Some(main) = self.others.main() else { return };
        let home = match (decision.mode, decision.shards.first()) {
            (Mode::One, Some(&shard)) => (shard != main).then_some(PortalHome::On(shard)),
            _ => Some(PortalHome::Ended),
        };
        for op in &group.ops {
            match op {
                // It is a cursor.
                Op::Bind { .. } if self.portal_left(group, decision).is_some() => {}
                Op::Bind { bind, .. } => self.others.place_portal(bind.portal(), home),
                Op::ClosePortal { portal, .. } => self.others.place_portal(portal, None),
                _ => {}
            }
        }
    }

    /// Before a request is sent to the server that is held, if one is.
    pub async fn go_to(&mut self, shard: ShardId, role: Role) -> Result<(), Refusal> {
        self.move_to(shard, role).await?;
        self.catch_up().await
    }

    /// For a statement of `shard`: the transaction takes a server there too, or ends at the one that it has, to begin
    /// anew, where nothing ties it to that.
    pub async fn move_to(&mut self, shard: ShardId, role: Role) -> Result<(), Refusal> {
        let movable = self.is_movable();
        let Some(held) = &mut self.held else { return Ok(()) };
        if held.shard == shard {
            return Ok(());
        }
        if !movable {
            return self.switch_to(shard, role).await;
        }
        let from = held.shard;
        let text = if self.transaction.bond() == Bond::None { "ROLLBACK" } else { LEAVE };
        match run_own(&mut held.lease, text, Origin::Keyway).await {
            Ok(_) => {
                self.transaction.defer_again();
                // What only the state of the catalog makes suspect may move.
                self.look_for_state().await;
                if self.is_tied() {
                    return Err(self.one_snapshot(from, shard));
                }
                self.let_go_if_free(Instant::now()).await;
                Ok(())
            }
            Err(SetUpError::Refused(_)) => Err(self.one_snapshot(from, shard)),
            Err(SetUpError::Lost) => {
                let _closed = self.cancel.slot().detach().await;
                self.held = None;
                self.transaction.lose();
                let message = "server connection was lost inside a transaction";
                Err(Refusal::new(Reason::NoServer, SqlState::CONNECTION_FAILURE, message))
            }
        }
    }

    fn one_snapshot(&self, from: ShardId, to: ShardId) -> Refusal {
        let name = |it| self.database.router.shard_name(it);
        Refusal::unsupported(
            Reason::MultiShardWrite,
            "transaction would touch two shards",
            "name a shard key in its first statement, or use READ COMMITTED",
        )
        .detail(format!(
            "its isolation level holds it to the snapshot taken on shard \"{}\", the statement belongs to \
             shard \"{}\"",
            name(from),
            name(to)
        ))
    }
}

/// On its shard, more than what ends with the transaction.
fn may_write(plan: &Plan) -> bool {
    let is_name = plan.kind == Kind::SessionState("PREPARE");
    plan.access == Access::Write && !plan.kind.is_transaction_control() && !is_name
}

/// A text of several statements that does more to the transaction than to run in it: only its server knows what of it
/// has been done, and in which order.
pub(super) fn mixes(kind: &Kind) -> bool {
    match kind {
        Kind::Several { parts, transaction_control } => *transaction_control || parts.iter().any(is_prologue),
        _ => false,
    }
}

/// By what is known of its code.
pub(super) fn hides_settings(plan: &Plan) -> bool {
    plan.leaves.is_some_and(|it| it.settings && !it.unknown_table)
}

fn bond(plan: &Plan, why: Why) -> Bond {
    let anywhere = matches!(why, Why::Anywhere | Why::NoRow);
    match plan.kind {
        Kind::Statement | Kind::Show(_) if anywhere && plan.repeatable => Bond::Read,
        // The name is the client's, whatever becomes of the transaction.
        Kind::SessionState("PREPARE") if anywhere => Bond::Read,
        _ => Bond::Bound,
    }
}
