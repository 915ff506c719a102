//! A session's part in the protection of hot keys: reads that get another one's answer, or whose answer others get
//! (`answers`), and writes that wait for their turn (`turns`).

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::answers::{Answer, Asks, Leading, Primary, ReadId, Turn};
use super::extended::with_params;
use super::group::{Bound, Group, Op};
use super::protection_metrics::{ReadOutcome, WriteOutcome};
use super::relay::{Flow, Kept};
use super::request::{Payload, Ran, Request};
use super::session::{End, Session};
use super::sql_prepare::SqlNames;
use super::turns::{Bounds, Entered, Line, Turn as WriteTurn, Waiting};
use crate::base::{Access, Reason, Refusal, Role, ServerId, ShardId, SqlState};
use crate::metrics::Limit;
use crate::route::{Decision, KeySource, Plan};
use crate::wire::{self, TxStatus};

/// How often a read waits for others before it asks for itself.
const TRIES: usize = 3;
/// A longer request is not compared with others.
const REQUEST_BYTES_MAX: usize = 16_384;

/// What is to be done for one request.
#[derive(Default)]
pub(super) enum Guard {
    /// Nearly always.
    #[default]
    None,
    Read(Box<(Arc<ReadId>, Asks)>),
    Write(ShardId, Line, Bounds),
}

impl Session {
    /// For a request of one statement. `payload` is as it will be sent.
    pub fn guard(
        &self,
        plan: &Plan,
        decision: &Decision,
        keys: &KeySource<'_>,
        payload: Payload<'_>,
    ) -> Guard {
        let Some(protection) = &self.database.protection else { return Guard::None };
        let (protected, hotspots) = (&plan.protected, &self.database.hotspots);
        match plan.access {
            Access::Read if self.is_alone() && protection.shares(protected, decision, hotspots) => {
                let Some(&shard) = decision.shards.first() else { return Guard::None };
                // A date such as 'now' is another one each time.
                if keys.may_name_the_clock() {
                    return Guard::None;
                }
                let Some(request) = identity(payload) else { return Guard::None };
                let (user, settings) = (self.record.user.clone(), self.settings.clone());
                let id = Arc::new(ReadId { user, settings, shard, request: request.into_boxed_slice() });
                Guard::Read(Box::new((id, self.asks(plan, shard, decision.role))))
            }
            Access::Write => {
                let line = protection.line(protected, decision, hotspots);
                line.map_or(Guard::None, |(shard, line, bounds)| Guard::Write(shard, line, bounds))
            }
            Access::Read => Guard::None,
        }
    }

    /// As `guard`.
    pub fn guard_group(&self, group: &Group<'_>, decision: &Decision) -> Guard {
        if self.database.protection.is_none() {
            return Guard::None;
        }
        let mut bound = group.bound();
        match (bound.next(), bound.next()) {
            (Some(Bound { bind, statement, plan, sql: SqlNames::None }), None) => {
                with_params(bind, statement, |keys| self.guard(plan, decision, keys, Payload::Group(group)))
            }
            _ => Guard::None,
        }
    }

    /// What it reads is noted for `asks`, on a database without replicas too.
    pub fn may_share(&self, plan: &Plan, decision: &Decision) -> bool {
        plan.protected.shareable
            && self.database.protection.as_ref().is_some_and(|it| {
                it.shares(&plan.protected, decision, &self.database.hotspots) && self.is_alone()
            })
    }

    /// Its statement is a transaction of its own, of which nothing is on a server yet, and its answer ends as a server's does.
    fn is_alone(&self) -> bool {
        self.held.is_none()
            && !self.database.traffic.is_paused()
            && self.transaction.is_idle()
            && self.pinned.is_none()
            && !self.unsynced
            && !self.is_spread()
            && !self.is_session()
            && !self.ends_answers()
    }

    fn asks(&self, plan: &Plan, shard: ShardId, role: Role) -> Asks {
        let now = Instant::now();
        let (from, floor) = match &self.tracks {
            Some(it) => it.asks(shard, self.must(shard), &self.database.floors, now),
            None => (Some(now), None),
        };
        let primary = self.primary_of(shard);
        // Without one, or while nobody knows what has become of a write, nothing is certain.
        let is_certain = primary.is_some()
            && !self.tracks.as_ref().is_some_and(|it| it.doubts(&self.database.floors, now));
        let ttl = plan.protected.cache_ttl.filter(|_| is_certain);
        Asks { from, kept: floor.filter(|_| ttl.is_some()), ttl, role, primary }
    }

    fn primary_of(&self, shard: ShardId) -> Option<Primary> {
        let cluster = self.database.topology.snapshot();
        let it = cluster.shard(shard)?.primary()?;
        Some(Primary { server: it.id, timeline: it.timeline, moved_at: it.moved_at })
    }

    /// A request for one server, with what is done for hot keys in front of it.
    pub async fn run_guarded(&mut self, request: &Request<'_>) -> Result<Ran, End> {
        match &request.guard {
            Guard::None => self.run_on_one(request, None).await,
            Guard::Read(it) => Box::pin(self.run_shared(request, &it.0, &it.1)).await,
            Guard::Write(shard, line, bounds) => match Box::pin(self.take_turn(*shard, *line, *bounds)).await
            {
                Ok(()) => self.run_on_one(request, None).await,
                Err(refusal) => Ok(Ran::Refused(refusal)),
            },
        }
    }

    /// Its request is about to be sent. Says as of when its answer will be.
    pub fn lead(
        &self,
        leading: &Leading,
        (server, role): (ServerId, Role),
        now: Instant,
        flow: &mut Flow,
    ) -> Option<Instant> {
        let shown = match role {
            Role::Primary => Some(now),
            Role::Replica => self.database.topology.snapshot().server(server).and_then(|it| it.fresh_as_of),
        };
        leading.sent(shown);
        let terms = self.database.protection.as_ref().map(|it| it.terms());
        flow.kept = terms.map(|it| Kept::new(it.shared_reply_bytes_max));
        shown
    }

    /// Answers with what others have asked for, or asks for others too.
    async fn run_shared(&mut self, request: &Request<'_>, id: &Arc<ReadId>, asks: &Asks) -> Result<Ran, End> {
        let Some(protection) = self.database.protection.clone() else {
            return self.run_on_one(request, None).await;
        };
        let metrics = &protection.metrics;
        let waits_until = Instant::now() + self.database.wait_timeout;
        for _ in 0..TRIES {
            match protection.answers.join(id, asks, Instant::now()) {
                Turn::Kept(answer) => {
                    metrics.read(ReadOutcome::Kept);
                    return self.answer_with(request, &answer).await;
                }
                Turn::Lead(leading) => {
                    metrics.read(ReadOutcome::Asked);
                    return self.run_on_one(request, Some(leading)).await;
                }
                Turn::Alone => {
                    metrics.read(ReadOutcome::TooLong);
                    return self.run_on_one(request, None).await;
                }
                Turn::Follow(mut following) => {
                    let answer = tokio::time::timeout_at(waits_until.into(), following.answer());
                    match self.wait_unless_gone(Instant::now(), answer).await {
                        Err(refusal) => return Ok(Ran::Refused(refusal)),
                        Ok((Ok(Some(answer)), _)) => {
                            metrics.read(ReadOutcome::Shared);
                            return self.answer_with(request, &answer).await;
                        }
                        Ok((Ok(None), now)) if now < waits_until => {}
                        Ok(_) => break,
                    }
                }
            }
        }
        metrics.read(ReadOutcome::Alone);
        self.run_on_one(request, None).await
    }

    /// Ends as if a server had answered. What its rows are as of, `end_touching` notes.
    async fn answer_with(&mut self, request: &Request<'_>, answer: &Answer) -> Result<Ran, End> {
        let mut out = Vec::with_capacity(answer.bytes.len() + wire::READY_BYTES);
        out.extend_from_slice(&answer.bytes);
        wire::ready_for_query(&mut out, TxStatus::Idle);
        (self.named, self.committed) = (0, false);
        self.stream.write_all(&out).await.map_err(|_| End::Left)?;
        let flow = Flow {
            sent_bytes: out.len() as u64,
            rows: answer.rows,
            sent_at: Some(Instant::now()),
            ..Flow::default()
        };
        if let Some(&shard) = request.decision.shards.first() {
            self.count(request, shard, answer.role, &flow, Instant::now());
        }
        self.check_speed()?;
        Ok(Ran::Done { failed: false })
    }

    /// The whole answer is here: others get it, then the client of this session does, however slow that is.
    pub async fn end_led(
        &mut self,
        leading: Option<Leading>,
        shown: Option<Instant>,
        role: Role,
        flow: &mut Flow,
    ) -> Result<(), End> {
        let Some(leading) = leading else { return Ok(()) };
        let Some(kept) = flow.kept.take() else {
            self.shared.hits.hit(Limit::SharedReplyBytes);
            leading.too_long(Instant::now());
            return Ok(());
        };
        if let Some(length) = wire::plain_answer(&kept.bytes).filter(|_| flow.errors == 0) {
            let (bytes, rows, primary) = (kept.bytes[..length].into(), flow.rows, leading.primary());
            leading.answered(Answer { bytes, rows, role, shown, primary }, Instant::now());
        } else {
            // Whoever waits asks for himself, whether this client reads on or not.
            drop(leading);
        }
        flow.sent_bytes += kept.bytes.len() as u64;
        self.stream.write_all(&kept.bytes).await.map_err(|_| End::Left)
    }

    /// Before a write gets a server. Its turn lasts until its transaction ends.
    ///
    /// # Errors
    /// 53400 when too many wait already, 55P03 when `wait_timeout` has passed, 57014 when the client has cancelled, or left.
    async fn take_turn(&mut self, shard: ShardId, line: Line, bounds: Bounds) -> Result<(), Refusal> {
        let Some(protection) = self.database.protection.clone() else { return Ok(()) };
        let metrics = &protection.metrics;
        let turn = self.tracks.as_ref().and_then(|it| it.turn.as_ref());
        if self.held.is_some() || self.is_spread() || turn.is_some() {
            if turn.is_none_or(|it| !it.is_of(line)) {
                metrics.wrote(WriteOutcome::Bypassed);
            }
            return Ok(());
        }
        let (turn, outcome) = match protection.turns.enter(line, bounds) {
            Entered::Turn(turn) => (turn, WriteOutcome::AtOnce),
            Entered::Spared(turn) => (turn, WriteOutcome::Spared),
            Entered::Full => {
                metrics.wrote(WriteOutcome::Full);
                return Err(line_is_full(bounds));
            }
            Entered::Waiting(waiting) => {
                let began = Instant::now();
                let turn = self.wait_for_turn(shard, waiting).await;
                metrics.wait_seconds.observe(began.elapsed().as_secs_f64());
                let Some(turn) = turn? else {
                    metrics.wrote(WriteOutcome::TimedOut);
                    return Err(no_turn());
                };
                (turn, WriteOutcome::Waited)
            }
        };
        metrics.wrote(outcome);
        self.tracks().turn = Some(turn);
        Ok(())
    }

    /// `None` when `wait_timeout` has passed, in which a pause, and a time without a primary, do not count: those in front wait
    /// for that, too.
    async fn wait_for_turn(
        &mut self,
        shard: ShardId,
        waiting: Waiting,
    ) -> Result<Option<WriteTurn>, Refusal> {
        let mut turn = pin!(waiting.turn());
        loop {
            let waited = tokio::time::timeout(self.database.wait_timeout, &mut turn);
            match self.wait_unless_gone(Instant::now(), waited).await?.0 {
                Ok(turn) => return Ok(Some(turn)),
                Err(_) if self.database.traffic.is_paused() || self.primary_of(shard).is_none() => {}
                Err(_) => return Ok(None),
            }
        }
    }

    /// Behind each request: the next one in line may go on. One that was refused, or has lost its server, has nothing locked.
    pub fn end_turn(&mut self) {
        let Some(tracks) = self.tracks.as_mut().filter(|it| it.turn.is_some()) else { return };
        let is_over = self.transaction.is_idle() && !self.unsynced;
        if is_over || self.transaction.is_refused() && self.held.is_none() {
            tracks.turn = None;
        }
    }
}

fn line_is_full(bounds: Bounds) -> Refusal {
    let detail = format!("{} transactions wait for their turn to write it", bounds.waiting_max);
    Refusal::new(Reason::Limit, SqlState("53400"), "too many transactions write the same key")
        .detail(detail)
        .hint("try again later, or raise write_queue_max in the configuration of keyway")
}

fn no_turn() -> Refusal {
    Refusal::new(Reason::Limit, SqlState("55P03"), "canceling statement due to wait_timeout")
        .detail("other transactions that write the same key were first")
        .hint("keep transactions that write it short, or raise writes_at_once or pool.wait_timeout in the configuration of keyway")
}

/// What makes two requests the same to a server, names and portals left out.
fn identity(payload: Payload<'_>) -> Option<Vec<u8>> {
    match payload {
        Payload::Query(message) if message.len() <= REQUEST_BYTES_MAX => Some(message.to_vec()),
        Payload::Group(group) => of_group(group),
        _ => None,
    }
}

/// `None` unless it is one statement, run once and to its Sync.
fn of_group(group: &Group<'_>) -> Option<Vec<u8>> {
    let only = group.bound().next()?;
    let length = group.raw.len() + only.statement.text.len();
    if !group.is_synced() || group.goes_on || only.statement.moves().is_some() || length > REQUEST_BYTES_MAX {
        return None;
    }
    let (portal, id) = (only.bind.portal(), only.statement.id);
    let mut steps = SmallVec::<[u8; 16]>::new();
    let (mut out, mut runs) = (Vec::with_capacity(length + 64), 0);
    for op in &group.ops {
        // Any numbers, as long as they differ.
        let step = match op {
            Op::Parse { statement, .. } | Op::DescribeStatement { statement, .. } if statement.id != id => {
                return None;
            }
            _ if op.portal().is_some_and(|it| it != portal) => return None,
            Op::Parse { .. } => 1,
            Op::DescribeStatement { .. } => 2,
            Op::Bind { .. } => 3,
            Op::DescribePortal { .. } => 4,
            Op::Execute { rows_max, .. } => {
                runs += 1;
                out.extend_from_slice(&rows_max.to_be_bytes());
                5
            }
            Op::Sync { .. } => continue,
            _ => return None,
        };
        steps.push(step);
    }
    // A named statement is one for all that prepare the same; an unnamed one is what this group says.
    let is_parsed = group.ops.iter().any(|it| matches!(it, Op::Parse { .. }));
    if runs != 1 || id.is_unnamed() && !is_parsed {
        return None;
    }
    let named = if id.is_unnamed() { 0 } else { id.0 };
    out.extend_from_slice(&named.to_be_bytes());
    put(&mut out, &steps);
    put(&mut out, only.statement.text.as_bytes());
    put(&mut out, &only.statement.oids);
    only.bind.put_values(&mut out);
    Some(out)
}

/// So that no two lists of parts give the same bytes.
fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
    out.extend_from_slice(part);
}
