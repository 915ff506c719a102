//! How fresh the replica must be that answers a statement of this session: what the level of consistency asks for, of
//! what the session itself and all others have written (`floors`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::extended::with_params;
use super::floors::Floors;
use super::group::Bound;
use super::session::Session;
use super::sql_prepare::SqlNames;
use super::statements::Statement;
use super::tracks::{Must, Tracks};
use crate::base::{Access, Consistency, Reason, Refusal, Role, ServerId, ShardId, SqlState};
use crate::route::{Decision, Freshness, KeySource, Kind, Plan, SessionView, Touched};
use crate::wire::TxStatus;

/// Between looks at a replica that has to catch up.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Why a read went where it did; the label of `keyway_reads_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadReason {
    /// A replica has what it must see.
    Fresh,
    /// Its level of consistency is `primary`.
    Level,
    /// A write of its rows is under way.
    InFlight,
    /// A replica is within `max_lag`, and has not replayed a write that it must see.
    Floor,
    /// None is within `max_lag`.
    Lag,
    /// None is, and the one that is least late has to do.
    Stale,
    /// There is no primary that it could be late behind.
    NoPrimary,
    /// Those that are fresh enough have failed.
    Failed,
    /// Those that are have just come back, and this one is not of their part yet.
    Cold,
}

impl ReadReason {
    pub const ALL: [ReadReason; 9] = [
        ReadReason::Fresh,
        ReadReason::Level,
        ReadReason::InFlight,
        ReadReason::Floor,
        ReadReason::Lag,
        ReadReason::Stale,
        ReadReason::NoPrimary,
        ReadReason::Failed,
        ReadReason::Cold,
    ];

    pub fn labels(self) -> [&'static str; 2] {
        match self {
            ReadReason::Fresh => ["replica", "fresh"],
            ReadReason::Level => ["primary", "level"],
            ReadReason::InFlight => ["primary", "in_flight"],
            ReadReason::Floor => ["primary", "floor"],
            ReadReason::Lag => ["primary", "lag"],
            ReadReason::Stale => ["replica", "stale"],
            ReadReason::NoPrimary => ["replica", "no_primary"],
            ReadReason::Failed => ["primary", "failed"],
            ReadReason::Cold => ["primary", "slow_start"],
        }
    }
}

impl Session {
    pub fn tracks(&mut self) -> &mut Tracks {
        let floors = &self.database.floors;
        self.tracks.get_or_insert_with(|| Box::new(Tracks::new(floors.clone())))
    }

    fn consistency(&self, plan: &Plan, text: &str) -> Result<Consistency, Refusal> {
        let default = self.user_consistency.unwrap_or(self.database.consistency);
        let hint = self.hint();
        if hint.is_none() && !plan.is_hinted() {
            return Ok(default);
        }
        let hinted = self.database.router.hinted_consistency(plan, text, hint.as_ref())?;
        Ok(hinted.unwrap_or(default))
    }

    /// Before a statement is sent: what it writes will be in flight, and what it reads decides which replica may answer,
    /// or that none may.
    pub fn touch(
        &mut self,
        plan: &Plan,
        keys: &KeySource<'_>,
        view: &SessionView,
        decision: &mut Decision,
    ) -> Result<(), Refusal> {
        self.begin_touching();
        self.touch_rows(plan, keys.text, Some(keys), view, decision)
    }

    /// Beside `touch`: what EXECUTE names. The keys are among its arguments, which nobody looks into here.
    pub fn touch_named(
        &mut self,
        statements: &[Arc<Statement>],
        decision: &mut Decision,
    ) -> Result<(), Refusal> {
        let view = self.view();
        for it in statements {
            let plan = it.plan(&self.database.router);
            self.touch_rows(&plan, it.text(), None, &view, decision)?;
        }
        Ok(())
    }

    /// As `touch`, of all statements of a group that run.
    pub fn touch_group<'g, 'a: 'g>(
        &mut self,
        bound: impl Iterator<Item = Bound<'g, 'a>> + Clone,
        decision: &mut Decision,
    ) -> Result<(), Refusal> {
        self.begin_touching();
        let has_replicas = self.database.has_replicas;
        let touches = |it: &Bound<'_, '_>| {
            let (plan, names) = (it.plan, matches!(it.sql, SqlNames::Executed(_)));
            has_replicas
                || names
                || !plan.footprint.writes.is_nothing()
                || plan.is_hinted()
                || self.may_share(plan, decision)
        };
        if !bound.clone().any(|it| touches(&it)) {
            return Ok(());
        }
        let mut view = self.view();
        for it in bound {
            view.in_transaction |= matches!(it.plan.kind, Kind::Begin { .. });
            if let SqlNames::Executed(needs) = it.sql {
                self.touch_named(needs, decision)?;
            }
            let text = it.statement.text();
            let unbound = KeySource { text, literals: &it.statement.literals, params: None };
            match it.plan.footprint.params_read() {
                0 => self.touch_rows(it.plan, text, Some(&unbound), &view, decision)?,
                _ => with_params(it.bind, it.statement, |keys| {
                    self.touch_rows(it.plan, text, Some(keys), &view, decision)
                })?,
            }
        }
        Ok(())
    }

    fn begin_touching(&mut self) {
        if let Some(it) = &mut self.tracks {
            it.begin_reading();
        }
    }

    /// Code that Keyway does not see.
    pub fn touch_unknown(&mut self) {
        let commits = self.transaction.is_idle();
        self.tracks().written.add(&Floors::written(&Touched::All, None), commits);
    }

    fn touch_rows(
        &mut self,
        plan: &Plan,
        text: &str,
        keys: Option<&KeySource<'_>>,
        view: &SessionView,
        decision: &mut Decision,
    ) -> Result<(), Refusal> {
        let footprint = &plan.footprint;
        let has_replicas = self.database.has_replicas;
        // There even what may write reads.
        let on_replica = has_replicas && self.held.as_ref().is_some_and(|it| it.role == Role::Replica);
        let shares = self.may_share(plan, decision);
        let asks = shares || on_replica || has_replicas && decision.role == Role::Replica || plan.is_hinted();
        let level = if asks { Some(self.consistency(plan, text)?) } else { None };
        let reads =
            shares || has_replicas && (on_replica || plan.access == Access::Read) && reads_rows(&plan.kind);
        if footprint.writes.is_nothing() && !reads {
            return Ok(());
        }
        let keys = keys.and_then(|it| self.database.router.touched_keys(plan, it, view));
        if !footprint.writes.is_nothing() {
            let cells = Floors::written(&footprint.writes, keys.as_deref());
            // Nothing of an open transaction is committed before its COMMIT: neither can code of the server do that.
            let waits = view.in_transaction && plan.understood && !matches!(plan.kind, Kind::Several { .. });
            self.tracks().written.add(&cells, !waits);
        }
        if reads {
            self.must_see(level, &Floors::read(&footprint.reads, keys.as_deref()), decision);
        }
        Ok(())
    }

    /// What several statements of one request must see, one server has to have.
    fn must_see(&mut self, level: Option<Consistency>, cells: &[u32], decision: &mut Decision) {
        let floor = self.database.floors.floor(cells);
        let holds = self.held.is_some();
        let reason = self.tracks().must_see(level, cells, floor, holds);
        if let Some(reason) = reason.filter(|_| self.database.has_replicas) {
            decision.role = Role::Primary;
            self.database.metrics.read(reason);
        }
    }

    /// A request of these kinds comes next, which may be COMMIT or have one in it. `alone`: nothing else is in its
    /// pipeline, before or behind it.
    pub fn begin_commit<'k>(&mut self, kinds: impl Iterator<Item = &'k Kind>, alone: bool) {
        let (mut is_commit, mut ends, mut several, mut chains) = (false, false, false, false);
        for kind in kinds {
            is_commit |= matches!(kind, Kind::Commit { .. });
            ends |= matches!(kind, Kind::Commit { .. } | Kind::Rollback { .. } | Kind::RollbackTo);
            several |= matches!(kind, Kind::Several { transaction_control: true, .. });
            chains |= matches!(kind, Kind::Commit { chain: true });
        }
        self.committing = is_commit;
        if several || ends && !alone {
            // What stands behind an end is of another transaction, which a Sync may commit.
            self.tracks().written.commit();
        } else if is_commit
            // One that has failed is rolled back by it.
            && self.transaction.status() != TxStatus::Failed
            && let Some(it) = self.tracks.as_mut().filter(|it| !it.written.is_empty())
        {
            it.written.commit();
            it.chains = chains;
        }
    }

    /// A server is about to get the request.
    pub fn send_touched(&mut self) {
        if let Some(it) = &mut self.tracks {
            it.written.send();
        }
    }

    /// Behind each request: what it has written is told, what it has read is seen.
    pub fn end_touching(&mut self) {
        let Some(tracks) = &mut self.tracks else { return };
        if tracks.has_read() {
            let cluster = self.database.topology.snapshot();
            tracks.read_ended(&self.database.floors, &cluster, Instant::now());
        }
        tracks.begin_reading();
        let open = !self.transaction.is_idle()
            || self.unsynced
            || self.copying.is_some()
            || self.split_copy.is_some();
        // Behind AND CHAIN another transaction is open, which has written nothing yet.
        if std::mem::take(&mut tracks.chains) || !tracks.written.is_idle() && !open {
            tracks.written.end(Instant::now());
        }
    }

    /// A server is lost that has what this session writes: nobody will tell whether that was done.
    pub fn lose_written(&mut self) {
        if let Some(it) = &mut self.tracks {
            it.written.lose();
        }
    }

    /// Rows, not settings and the like.
    pub fn has_written(&self) -> bool {
        self.tracks.as_ref().is_some_and(|it| !it.written.is_empty())
    }

    /// An idle session has no use for it.
    pub fn forget_tracks(&mut self) {
        if self.held.is_some() {
            return;
        }
        let is_done =
            |it: &mut Box<Tracks>| it.written.is_idle() && it.handed.is_empty() && it.turn.is_none();
        if let Some(tracks) = self.tracks.take_if(is_done) {
            for floor in self.floors.iter_mut().filter(|it| **it < tracks.seen) {
                *floor = tracks.seen;
            }
        }
    }

    /// What a replica of `shard` must have for the statement under way.
    pub fn freshness(&self, shard: ShardId) -> Freshness {
        let must = self.must(shard);
        match &self.tracks {
            Some(it) => it.freshness(shard, must),
            None => Freshness { max_lag: must.max_lag, floor: must.own, ..Freshness::default() },
        }
    }

    pub fn must(&self, shard: ShardId) -> Must {
        Must { max_lag: self.database.max_lag, all: self.database.floor, own: self.own_floor(shard) }
    }

    /// After a reload servers may stand elsewhere.
    pub fn forget_places(&mut self) {
        if let Some(tracks) = &mut self.tracks {
            tracks.forget_places();
        }
    }

    /// A connection that was made since the server was looked at: it may have started anew in between, and show less than
    /// what is known of it.
    pub fn is_newer_than_known(&self, server: ServerId, ready_at: Instant) -> bool {
        let cluster = self.database.topology.snapshot();
        let observed_at = cluster.server(server).and_then(|it| it.observed_at);
        observed_at.is_none_or(|it| it < ready_at)
    }

    fn own_floor(&self, shard: ShardId) -> Option<Instant> {
        self.floors.get(usize::from(shard.0)).copied().flatten()
    }

    /// All that this session has written, seen, or been handed of a shard.
    pub fn whole_floor(&self, shard: ShardId) -> Option<Instant> {
        let tracks = self.tracks.as_ref();
        let seen = tracks.and_then(|it| it.seen).max(tracks.and_then(|it| it.handed(shard)));
        self.own_floor(shard).max(seen)
    }

    /// From here on it reads from no replica of the shard that is older.
    pub fn demand(&mut self, shard: ShardId, from: Instant) {
        let count = self.floors.len();
        let handed = &mut self.tracks().handed;
        handed.resize(count, None);
        if let Some(it) = handed.get_mut(usize::from(shard.0)) {
            *it = (*it).max(Some(from));
        }
    }

    /// It answers the statement under way.
    pub fn note_reading(&mut self, server: ServerId) {
        if let Some(tracks) = &mut self.tracks {
            tracks.will_read(server);
        }
    }

    /// A transaction that is on a replica stays there: it waits until that has what the next statement must see.
    ///
    /// # Errors
    /// 40001 when `wait_timeout` has passed.
    pub async fn catch_up(&mut self) -> Result<(), Refusal> {
        match &self.held {
            Some(held) => {
                let (server, role, ready_at) = (held.server, held.role, held.lease.ready_at);
                self.catch_up_at(server, role, ready_at).await
            }
            None => Ok(()),
        }
    }

    /// As `catch_up`, of one server of several.
    pub async fn catch_up_at(
        &mut self,
        server: ServerId,
        role: Role,
        ready_at: Instant,
    ) -> Result<(), Refusal> {
        let tracks = self.tracks.as_mut().filter(|it| role == Role::Replica && it.reads());
        let Some(tracks) = tracks else { return Ok(()) };
        tracks.will_read(server);
        if self.has_caught_up(server, ready_at) {
            return Ok(());
        }
        self.database.metrics.floor_waits.inc();
        let deadline = Instant::now() + self.database.wait_timeout;
        while Instant::now() < deadline {
            tokio::time::sleep(LOOK_PAUSE).await;
            if self.has_caught_up(server, ready_at) {
                return Ok(());
            }
        }
        let message = "replica of this transaction does not have what has been written in time";
        Err(Refusal::new(Reason::NoServer, SqlState("40001"), message)
            .hint("try the transaction again, or SET keyway.consistency = 'eventual'"))
    }

    fn has_caught_up(&self, server: ServerId, ready_at: Instant) -> bool {
        let Some(tracks) = &self.tracks else { return true };
        // What is known is of another server than the one that this transaction is on.
        if self.database.topology.has_moved_since(server, ready_at) {
            return false;
        }
        let Some(freshness) = tracks.freshness_now(self.freshness(server.shard), &self.database.floors)
        else {
            return false;
        };
        let is_known = |at: Option<Instant>| !freshness.demands() || at >= Some(ready_at);
        let cluster = self.database.topology.snapshot();
        cluster.server(server).is_some_and(|it| it.has(freshness) && is_known(it.observed_at))
    }
}

/// What does more than to concern its session or its transaction.
fn reads_rows(kind: &Kind) -> bool {
    match kind {
        Kind::Statement | Kind::CopyOut | Kind::Cursor(_) | Kind::SessionState(_) => true,
        Kind::Several { parts, .. } => parts.iter().any(reads_rows),
        _ => false,
    }
}
