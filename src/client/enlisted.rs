//! A transaction on several shards. The first server that it got is its main one: what any shard can answer is
//! answered there. Others are enlisted by reads that need them; one of all is written on.
//!
//! ```text
//!              a read needs a further shard            COMMIT, ROLLBACK
//!   one server ────────────────────────────▶ spread ───────────────────▶ none
//!                                            │    ▲ each enlisted server begins as `Transaction::beginning` says
//!                                            │    └── and is told what all have to do (`tell_others`)
//!                                            └─ an error on one: aborted on all, until ROLLBACK TO or ROLLBACK
//!                                            └─ one is lost: all are closed
//! ```
//! Only in READ COMMITTED: under the levels above, all statements see one snapshot, and servers have no common one.
//! While a server works for a statement it is the held one; in between the main one is.

use std::time::Instant;

use futures_util::future::join_all;

use super::attach::{SetUpError, run_own};
use super::cursors::Cursors;
use super::effects::{aborted, is_prologue};
use super::many::Team;
use super::session::{Held, Session};
use crate::base::{Reason, Refusal, Role, ShardId, SqlState};
use crate::cancel::Detached;
use crate::proto::{Bond, Ended, Origin};
use crate::route::{Decision, Kind, Plan};
use crate::sql::Isolation;
use crate::wire::TxStatus;

const LEVEL: &str = "SELECT pg_catalog.current_setting('transaction_isolation')";

/// One word, and no memory, where the transaction has one server and no cursor.
#[derive(Default)]
pub(super) struct Others(Option<Box<Enlisted>>);

#[derive(Default)]
struct Enlisted {
    servers: Vec<Held>,
    /// Where there are several.
    main: Option<ShardId>,
    portals: Vec<(Box<[u8]>, PortalHome)>,
    cursors: Cursors,
    /// What each of them is to be told of what one has done.
    untold: Vec<String>,
    /// By AND CHAIN, of which they are to be told.
    ended: Option<Ended>,
}

/// Where a portal is that the main server does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortalHome {
    On(ShardId),
    /// It was of several shards, and ended with its Sync.
    Ended,
}

impl Others {
    fn enlisted(&mut self) -> &mut Enlisted {
        self.0.get_or_insert_default()
    }

    fn servers(&self) -> &[Held] {
        self.0.as_ref().map_or(&[], |it| &it.servers)
    }

    fn remove(&mut self, shard: ShardId) -> Option<Held> {
        let servers = &mut self.0.as_mut()?.servers;
        let at = servers.iter().position(|it| it.shard == shard)?;
        Some(servers.swap_remove(at))
    }

    fn get(&self, shard: ShardId) -> Option<&Held> {
        self.servers().iter().find(|it| it.shard == shard)
    }

    pub fn main(&self) -> Option<ShardId> {
        self.0.as_ref()?.main
    }

    /// In the order in which they were enlisted, as far as it is known.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.servers().iter().map(|it| it.shard)
    }

    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub fn cursors(&self) -> Option<&Cursors> {
        self.0.as_ref().map(|it| &it.cursors)
    }

    pub fn cursors_mut(&mut self) -> &mut Cursors {
        &mut self.enlisted().cursors
    }

    /// Something holds for the transaction as a whole that one server has done.
    pub fn tell(&mut self, text: &str) {
        if let Some(it) = self.0.as_mut().filter(|it| it.main.is_some()) {
            it.untold.push(text.to_owned());
        }
    }

    pub fn portal(&self, name: &[u8]) -> Option<PortalHome> {
        self.0.as_ref()?.portals.iter().find(|it| *it.0 == *name).map(|it| it.1)
    }

    /// `None`: on the main server, or nowhere.
    pub fn place_portal(&mut self, name: &[u8], home: Option<PortalHome>) {
        let portals = &mut self.enlisted().portals;
        portals.retain(|it| *it.0 != *name);
        portals.extend(home.map(|it| (name.into(), it)));
    }
}

impl Session {
    /// The open transaction has several servers.
    pub fn is_spread(&self) -> bool {
        self.others.main().is_some()
    }

    fn server_of(&self, shard: ShardId) -> Option<&Held> {
        self.held.as_ref().filter(|it| it.shard == shard).or_else(|| self.others.get(shard))
    }

    /// Where what names no shard goes on.
    pub fn home(&self) -> Option<(ShardId, Role)> {
        let main = self.others.main().filter(|_| !self.unsynced);
        let held = main.and_then(|it| self.server_of(it)).or(self.held.as_ref());
        held.map(|it| (it.shard, it.role))
    }

    /// Which server's word at the end of the transaction is the client's answer.
    pub fn home_of_end(&self) -> Option<(ShardId, Role)> {
        let written = self.transaction.written().filter(|_| self.is_spread() && !self.unsynced);
        let written = written.and_then(|it| self.server_of(it));
        written.map(|it| (it.shard, it.role)).or_else(|| self.home())
    }

    /// Makes the server of `shard` the held one, enlisted if it is not.
    pub async fn switch_to(&mut self, shard: ShardId, role: Role) -> Result<(), Refusal> {
        self.enlist(shard, role).await?;
        self.swap_in(shard);
        Ok(())
    }

    fn swap_in(&mut self, shard: ShardId) {
        if self.held.as_ref().is_some_and(|it| it.shard == shard) {
            return;
        }
        if let Some(wanted) = self.others.remove(shard) {
            let before = self.held.replace(wanted);
            self.others.enlisted().servers.extend(before);
        }
    }

    fn swap_back(&mut self) {
        if let Some(main) = self.others.main() {
            self.swap_in(main);
        }
    }

    /// Behind a `detach` because of another server: cancels find those that the transaction has.
    pub fn attach_again(&self, detached: Detached) {
        for held in self.held.iter().chain(self.others.servers()) {
            self.cancel.slot().attach_again(held.lease.cancel.clone(), detached);
        }
    }

    /// The servers of `shards`, all enlisted, for a statement that needs them at once. `stand_down` has to follow,
    /// or `lose_others`.
    pub async fn enlist_team(&mut self, shards: &[ShardId], role: Role) -> Result<Team, Refusal> {
        for &shard in shards {
            self.enlist(shard, role).await?;
        }
        self.others.enlisted().servers.extend(self.held.take());
        Ok(shards.iter().filter_map(|it| self.others.remove(*it)).collect())
    }

    /// A statement of several servers is over. `failed`: it has aborted the transaction on some.
    pub fn stand_down(&mut self, team: Team, failed: bool) {
        for mut held in team {
            self.record.counts.server_parses.add(held.lease.pipeline.take_parses());
            self.others.enlisted().servers.push(held);
        }
        self.swap_back();
        if failed {
            self.transaction.refuse();
        }
    }

    /// A server of the transaction is gone: so is the transaction, on all of them.
    pub fn lose_others(&mut self) {
        if self.is_spread() {
            self.others = Others::default();
            self.held = None;
            self.transaction.lose();
        }
    }

    /// The transaction gets a server there.
    async fn enlist(&mut self, shard: ShardId, role: Role) -> Result<(), Refusal> {
        if self.is_spread() && self.server_of(shard).is_some() {
            return Ok(());
        }
        if self.transaction.status() == TxStatus::Failed {
            return Err(aborted());
        }
        if let Some(held) = &mut self.held
            && self.others.main().is_none()
        {
            let level = run_own(&mut held.lease, LEVEL, Origin::Keyway).await;
            let main = held.shard;
            self.spread_if(main, level).await?;
        }
        if self.server_of(shard).is_some() {
            return Ok(());
        }
        if !self.transaction.can_begin_again() {
            return Err(not_repeatable());
        }
        let mut held = self.attach_set_up(shard, role).await?;
        match self.others.main() {
            None => self.record.transaction.set_main(Some(shard)),
            Some(_) => self.record.transaction.add(shard),
        }
        let texts = self.transaction.beginning().join("\n;\n");
        let begun = run_own(&mut held.lease, &format!("{texts}\n;\n{LEVEL}"), Origin::Keyway).await;
        match begun {
            Ok(_) if self.others.main().is_none() => {
                self.transaction.follow(TxStatus::Open);
                self.held = Some(held);
                self.spread_if(shard, begun).await
            }
            Ok(answer) => {
                check_level(answer.rows.last())?;
                self.others.enlisted().servers.push(held);
                Ok(())
            }
            // It is closed, with what was begun.
            Err(SetUpError::Refused(refusal)) => Err(refusal),
            Err(SetUpError::Lost) => {
                self.database.topology.report_failure(held.server);
                Err(lost())
            }
        }
    }

    /// The held server is the main one of several from here on, if its isolation level, which was asked for, allows
    /// that.
    async fn spread_if(
        &mut self,
        main: ShardId,
        asked: Result<super::attach::OwnAnswer, SetUpError>,
    ) -> Result<(), Refusal> {
        match asked {
            Ok(answer) => {
                self.transaction.set_isolation(level_of(answer.rows.last()).and_then(Isolation::of_name));
                check_level(answer.rows.last())?;
                self.others.enlisted().main = Some(main);
                self.transaction.bind(Bond::Bound);
                Ok(())
            }
            Err(SetUpError::Refused(refusal)) => Err(refusal),
            Err(SetUpError::Lost) => {
                let _closed = self.cancel.slot().detach().await;
                self.held = None;
                self.transaction.lose();
                Err(lost())
            }
        }
    }

    /// Behind a statement that the held server has done: what holds for the transaction as a whole is done by the
    /// others too.
    pub async fn tell_others(&mut self) -> Result<(), Refusal> {
        let enlisted = self.others.enlisted();
        if let Some(ended) = enlisted.ended.take() {
            self.chain_others(ended).await;
            return Ok(());
        }
        let texts = std::mem::take(&mut enlisted.untold);
        if texts.is_empty() {
            return Ok(());
        }
        let text = texts.join("\n;\n");
        let told = enlisted.servers.iter_mut().map(|it| run_own(&mut it.lease, &text, Origin::Keyway));
        for told in join_all(told).await {
            match told {
                Ok(_) => {}
                Err(SetUpError::Refused(refusal)) => {
                    self.transaction.refuse();
                    return Err(refusal);
                }
                Err(SetUpError::Lost) => {
                    let _closed = self.cancel.slot().detach().await;
                    self.lose_others();
                    return Err(lost());
                }
            }
        }
        Ok(())
    }

    /// The held server has ended an answer with `status`. `sets`: the transaction has made settings that outlive it.
    pub async fn settle_others(&mut self, status: TxStatus, sets: bool) {
        match status {
            // What was only read is as well rolled back, which takes back what was set.
            TxStatus::Idle => self.end_others(self.committed && !sets).await,
            TxStatus::Failed => {
                // The others do not know.
                self.transaction.refuse();
                self.swap_back();
            }
            TxStatus::Open => self.swap_back(),
        }
    }

    /// The transaction has ended at the held server, which alone may have written. One that cannot be told is closed.
    pub async fn end_others(&mut self, commit: bool) {
        if self.pinned.is_some() {
            self.swap_back();
        }
        let mut servers = std::mem::take(&mut self.others).0.map(|it| it.servers).unwrap_or_default();
        let text = if commit { "COMMIT" } else { "ROLLBACK" };
        let told = servers.iter_mut().map(|it| run_own(&mut it.lease, text, Origin::Keyway));
        let told = join_all(told).await;
        // From here on a cancel finds nothing.
        let detached = self.cancel.slot().detach().await;
        for (mut held, told) in servers.into_iter().zip(told) {
            let clean = match (&told, self.suspected.clone()) {
                (Err(_), _) => false,
                (Ok(_), None) => true,
                (Ok(_), Some(suspicion)) => matches!(self.look_at(&mut held, &suspicion).await, Ok(None)),
            };
            if clean {
                held.release(detached, Instant::now());
            }
        }
        match &self.held {
            Some(held) => self.cancel.slot().attach_again(held.lease.cancel.clone(), detached),
            None => debug_assert!(matches!(detached, Detached::Clean | Detached::Doubtful)),
        }
    }

    /// AND CHAIN, which the held server has done: its status does not tell that a transaction has ended. The others do
    /// the same, so that all have what the transaction has set.
    pub fn chain(&mut self, kind: &Kind) {
        if let Some(tracks) = &mut self.tracks {
            tracks.turn = None;
        }
        let Some(held) = &mut self.held else { return };
        let committed = self.committed && matches!(kind, Kind::Commit { .. });
        let ended = if committed { Ended::Committed } else { Ended::RolledBack };
        let mut servers = vec![&mut held.lease.settings];
        if let Some(it) = self.others.0.as_mut() {
            it.cursors.clear();
            it.portals.clear();
            it.ended = it.main.map(|_| ended);
            servers.extend(it.servers.iter_mut().map(|it| &mut it.lease.settings));
        }
        let settled = self.transaction.settle(ended, &mut self.settings, &mut servers, &self.startup);
        self.due.extend(settled);
        self.transaction.chain();
    }

    /// Ends a transaction that Keyway has aborted, and begins another one, without a word of a server to the client.
    pub async fn chain_silently(&mut self) {
        let Some(held) = &mut self.held else { return };
        let told = run_own(&mut held.lease, "ROLLBACK AND CHAIN", Origin::Keyway).await;
        self.transaction.follow(held.lease.pipeline.status());
        self.chain(&Kind::Rollback { chain: true });
        if told.is_err() {
            self.close_held().await;
            self.transaction.lose();
            self.untold = Some(lost());
        } else if self.is_spread() {
            self.others.enlisted().ended = None;
            self.chain_others(Ended::RolledBack).await;
        }
    }

    /// Nothing of the transaction before can fail any more. A server that cannot go on takes the next one with it, of
    /// which its first statement is told.
    async fn chain_others(&mut self, ended: Ended) {
        let text = match ended {
            Ended::Committed => "COMMIT AND CHAIN",
            Ended::RolledBack => "ROLLBACK AND CHAIN",
        };
        let servers = self.others.enlisted().servers.iter_mut();
        let told = join_all(servers.map(|it| run_own(&mut it.lease, text, Origin::Keyway))).await;
        if told.iter().any(Result::is_err) {
            let _closed = self.cancel.slot().detach().await;
            self.lose_others();
            self.untold = Some(lost());
        }
    }
}

fn level_of(row: Option<&Vec<Option<String>>>) -> Option<&str> {
    row?.first()?.as_deref()
}

fn check_level(row: Option<&Vec<Option<String>>>) -> Result<(), Refusal> {
    let level = level_of(row).unwrap_or("unknown");
    // READ UNCOMMITTED is the same in PostgreSQL.
    if matches!(level, "read committed" | "read uncommitted") { Ok(()) } else { Err(one_snapshot(level)) }
}

fn one_snapshot(level: &str) -> Refusal {
    Refusal::unsupported(
        Reason::MultiShardRead,
        format!("a transaction of isolation level {} cannot read from several shards", level.to_uppercase()),
        "use READ COMMITTED, or name shard keys of one shard alone",
    )
    .detail("its statements see one snapshot, and servers have no common one")
}

impl Session {
    /// No server may answer that lacks a setting of the transaction.
    pub fn check_hidden(&self, plan: &Plan, decision: &Decision) -> Result<(), Refusal> {
        match self.transaction.hidden_settings() {
            Some(only) if decision.shards[..] != [only] => {
                if plan.kind.is_transaction_control() || is_prologue(&plan.kind) {
                    return Ok(());
                }
                Err(hidden_settings())
            }
            _ => Ok(()),
        }
    }
}

fn hidden_settings() -> Refusal {
    Refusal::unsupported(
        Reason::SessionState,
        "a transaction cannot read from several shards behind code that may have made settings",
        "make them with SET or set_config, or call the code outside of the transaction",
    )
    .detail("one server has them, and the others would answer without them")
}

fn not_repeatable() -> Refusal {
    Refusal::unsupported(
        Reason::MultiShardRead,
        "transaction cannot be begun on a further shard",
        "send BEGIN by itself, and fewer than 64 settings and open savepoints",
    )
    .detail("what began it, and what it has set since, is not known in full")
}

fn lost() -> Refusal {
    let message = "server connection was lost inside a transaction";
    Refusal::new(Reason::NoServer, SqlState::CONNECTION_FAILURE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_of_many_snapshots_spread() {
        let check = |level: &str| check_level(Some(&vec![Some(level.to_owned())]));
        assert!(check("read committed").is_ok() && check("read uncommitted").is_ok());
        for level in ["repeatable read", "serializable", "unheard of"] {
            let refusal = check(level).unwrap_err();
            assert_eq!(refusal.state(), SqlState::FEATURE_NOT_SUPPORTED);
            assert!(refusal.message().contains(&level.to_uppercase()) && refusal.hint_text().is_some());
        }
        assert!(check_level(None).is_err());
    }

    #[test]
    fn portals_are_where_they_were_bound_last() {
        let mut others = Others::default();
        others.place_portal(b"p", Some(PortalHome::On(ShardId(2))));
        others.place_portal(b"", Some(PortalHome::Ended));
        assert_eq!(others.portal(b"p"), Some(PortalHome::On(ShardId(2))));
        others.place_portal(b"p", None);
        assert_eq!((others.portal(b"p"), others.portal(b"")), (None, Some(PortalHome::Ended)));
    }
}
