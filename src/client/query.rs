//! The simple protocol, and one request to one server, which both protocols share.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::abandon::abandon;
use super::answers::Leading;
use super::attach::{set_up_text, setting_refused};
use super::bind::mixes;
use super::copy_split::Copied;
use super::cursors::{CursorFormats, Declaring};
use super::declared::declared_query;
use super::effects::Answer;
use super::enlisted::Others;
use super::hotspots::Counted;
use super::merged::{Asked, Reading};
use super::named::NamedQuery;
use super::protect::Guard;
use super::relay::{Flow, Stop, relay};
use super::request::{Copying, Parted, Payload, Ran, Renewable, Request};
use super::session::{End, Outcome, Session};
use super::split::Inserting;
use super::sql_prepare::{Executed, Renamed, Values};
use super::statements::{Registry, Statement};
use super::target_metrics::TargetMetrics;
use crate::backend::Backend;
use crate::base::{Access, Reason, Refusal, Role, ServerId, ShardId, SqlState};
use crate::metrics::{Limit, Live};
use crate::proto::{Expect, Origin, Replies};
use crate::route::{
    CursorStatement, Decision, Excluded, KeySet, KeySource, Kind, Mode, Plan, Planned, SettingMade, Subject,
};
use crate::wire;

/// What a session keeps at most to write its next request in.
const OUTGOING_BYTES_KEPT: usize = 4_096;

impl Session {
    pub async fn query(&mut self, message: &[u8]) -> Result<Outcome, End> {
        let started = Instant::now();
        self.count_request(started, message.len());
        let text = match wire::query_text(message).map(std::str::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return self.refuse(not_utf8()).await,
            Err(error) => return Err(End::Fatal(malformed(&error))),
        };
        let planned = self.plan_of(text);
        match self.plain_query(message, text, &planned, started).await? {
            Some(outcome) => Ok(outcome),
            None => self.any_query(message, text, &planned, started).await,
        }
    }

    async fn any_query(
        &mut self,
        message: &[u8],
        text: &str,
        planned: &Planned,
        started: Instant,
    ) -> Result<Outcome, End> {
        let plan = &planned.plan;
        let renamed = match self.answer_in_time(&plan.kind, text).await {
            Answer::Server => match self.rename(plan, text) {
                Ok(it) => it,
                Err(answer) => return self.say(answer).await,
            },
            answer => return self.say(answer).await,
        };
        if let Kind::Cursor(cursor) = &plan.kind
            && self.is_merged_cursor(&plan.kind)
        {
            return Box::pin(self.query_cursor(cursor)).await;
        }
        let executed = renamed.as_ref().and_then(|it| it.executed.as_ref());
        let values = executed.map_or_else(Values::default, Executed::values);
        let (runs, keys) = match executed {
            Some(it) => (&it.plan, it.keys(&values)),
            None => (plan, KeySource { text, literals: &planned.literals, params: None }),
        };
        let decision = match self.place_query(runs, renamed.as_ref(), &keys) {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let made = match self.settings_made(runs, &keys) {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let lent = match self.prepare_channels(&plan.kind, runs.lists_channels, &decision).await {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await,
        };
        self.suspect_renamed(plan, text, renamed.as_ref());
        // Rows of a Query are always described.
        let alone = renamed.is_some() && self.transaction.is_idle() && !self.unsynced;
        let renewable = Renewable { lost: alone, outdated: alone };
        self.begin_commit(std::iter::once(&plan.kind), !self.unsynced);
        // The ReadyForQuery of a Query ends what had no Sync.
        self.unsynced = false;
        let ends_blocks = !plan.understood || matches!(plan.kind, Kind::Several { .. });
        let named = plan.column_lists().map(|it| NamedQuery::new(it, text));
        let payload = Payload::of_query(message, renamed.as_ref(), named.as_ref());
        let guard = self.guard(runs, &decision, &keys, payload);
        let (access, subject) = (runs.access, &runs.subject);
        let asked = || match executed {
            Some(it) => Asked::executed(&it.statement, &values),
            None => Asked::simple(text, &planned.literals),
        };
        let parted = match self.parted(runs, &decision, &keys, asked) {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let request =
            Request { payload, decision, access, started, renewable, ends_blocks, subject, parted, guard };
        let ran = self.perform(&request).await?;
        self.take_back_channels(lent).await;
        self.committing = false;
        self.bind_to(runs, &request.decision);
        if !ran.has_failed() {
            self.take_settings(&made);
            self.take_prepared(renamed.as_ref());
        }
        self.end_query(&plan.kind, text, ran, access).await
    }

    fn take_prepared(&mut self, renamed: Option<&Renamed>) {
        if let Some((name, statement)) = renamed.and_then(|it| it.prepares.as_ref()) {
            self.name_prepared(name, statement.clone());
        }
    }

    /// Where it goes, and how fresh that must be.
    fn place_query(
        &mut self,
        plan: &Plan,
        renamed: Option<&Renamed>,
        keys: &KeySource<'_>,
    ) -> Result<Decision, Refusal> {
        let mut decision = self.decide_query(plan, renamed, keys)?;
        self.tell_keys(plan, keys, &decision);
        let view = self.view();
        self.touch(plan, keys, &view, &mut decision)?;
        if let Some(it) = renamed.filter(|it| it.executed.is_none()) {
            self.touch_named(&it.needs, &mut decision)?;
        }
        Ok(decision)
    }

    /// On several shards PREPARE goes to one that can judge its text.
    fn decide_query(
        &self,
        plan: &Plan,
        renamed: Option<&Renamed>,
        keys: &KeySource<'_>,
    ) -> Result<Decision, Refusal> {
        match renamed.and_then(|it| it.prepares.as_ref()) {
            Some((_, statement)) if self.has_shards() => {
                Ok(self.decision_to_describe(self.home(), Some(statement)))
            }
            _ => {
                let mut view = self.view();
                view.spreads &= !mixes(&plan.kind);
                self.decide(plan, keys, &view).map_err(|it| self.refusal_of(it))
            }
        }
    }

    /// What of a statement several shards do together.
    pub fn parted<'a>(
        &self,
        plan: &Plan,
        decision: &Decision,
        keys: &KeySource<'_>,
        asked: impl FnOnce() -> Asked<'a>,
    ) -> Result<Option<Box<Parted<'a>>>, Refusal> {
        if decision.mode == Mode::One {
            return Ok(None);
        }
        let mut parted = Box::new(Parted::default());
        match (decision.mode, plan.shard_read(), plan.inserted_rows(), plan.copy()) {
            (Mode::Merge, Some(read), ..) => {
                let mut asked = asked();
                let Kind::Cursor(CursorStatement::Declare { name, binary, .. }) = &plan.kind else {
                    parted.reading = Some(Reading::new(read, asked));
                    return Ok(Some(parted));
                };
                asked.text = declared_query(&asked.text).ok_or_else(no_shard)?.into();
                let reading = Reading::new(read, asked);
                let formats = if *binary { CursorFormats::Binary } else { CursorFormats::OfFetch };
                parted.declaring = Some(Declaring { reading, name: name.clone(), formats });
            }
            (Mode::Split, _, Some(rows), _) => {
                let owners = self.database.router.row_shards(plan, keys, &self.view())?;
                parted.inserting = Some(Inserting::new(rows, owners, asked(), plan.column_lists()));
            }
            (Mode::Copy, _, _, Some(plan)) => {
                parted.copied = Some(Copied { plan: plan.clone(), asked: asked() });
            }
            _ => {}
        }
        Ok(Some(parted))
    }

    async fn say(&mut self, answer: Answer) -> Result<Outcome, End> {
        match answer {
            Answer::Made { notices, tag, columns } if !columns.is_empty() => {
                let mut out = Vec::new();
                wire::describe_columns(&mut out, columns, |_| false);
                out.extend_from_slice(&notices);
                wire::command_complete(&mut out, tag);
                self.put_ready(&mut out);
                self.stream.write_all(&out).await.map(|()| Outcome::Done).map_err(|_| End::Left)
            }
            Answer::Made { mut notices, tag, .. } => {
                if let Err(refusal) = self.put_in_force().await {
                    return self.refuse(refusal).await;
                }
                wire::command_complete(&mut notices, tag);
                if self.unsynced {
                    return self.end_at_server(&notices).await;
                }
                self.put_ready(&mut notices);
                self.stream.write_all(&notices).await.map(|()| Outcome::Done).map_err(|_| End::Left)
            }
            Answer::Refused(refusal) => self.refuse(refusal).await,
            Answer::Rollback { chain } => self.roll_back(chain).await,
            Answer::Server => Ok(Outcome::Done),
        }
    }

    /// What set_config is about to set, where the session can keep it.
    pub fn settings_made(
        &mut self,
        plan: &Plan,
        keys: &KeySource<'_>,
    ) -> Result<SmallVec<[SettingMade; 1]>, Refusal> {
        if !plan.makes_settings() {
            return Ok(SmallVec::new());
        }
        let made = plan.settings_made(keys)?;
        self.check_settings(&made)?;
        Ok(made)
    }

    pub async fn end_query(
        &mut self,
        kind: &Kind,
        text: &str,
        ran: Ran,
        access: Access,
    ) -> Result<Outcome, End> {
        match ran {
            Ran::Done { failed } => {
                if !failed {
                    self.take_effect(kind, text);
                    if self.is_spread()
                        && let Err(refusal) = Box::pin(self.tell_others()).await
                    {
                        return self.refuse(refusal).await;
                    }
                }
                self.settle(access == Access::Write).await;
                self.finish().await?;
            }
            Ran::CopyIn => return Ok(Outcome::CopyIn),
            Ran::Refused(refusal) => return self.refuse(refusal).await,
            Ran::Unready { failed } => {
                if !failed {
                    self.take_effect(kind, text);
                }
                self.say_ready().await?;
            }
        }
        Ok(Outcome::Done)
    }

    pub async fn say_ready(&mut self) -> Result<(), End> {
        let mut out = Vec::new();
        self.put_ready(&mut out);
        self.stream.write_all(&out).await.map_err(|_| End::Left)?;
        self.check_speed()
    }

    pub async fn refuse(&mut self, refusal: Refusal) -> Result<Outcome, End> {
        self.abandon_unsynced().await;
        self.refuse_simple(refusal).await.map(|()| Outcome::Done)
    }

    /// Ends a transaction at its server that Keyway has aborted.
    async fn roll_back(&mut self, chain: bool) -> Result<Outcome, End> {
        let (text, mut message) = (if chain { "ROLLBACK AND CHAIN" } else { "ROLLBACK" }, Vec::new());
        wire::query(&mut message, text);
        let decision = self.decision_on(self.home_of_end());
        let payload = Payload::Query(&message);
        let started = Instant::now();
        let (access, renewable, ends_blocks) = (Access::Write, Renewable::default(), true);
        let (subject, parted, guard) = (&Subject::default(), None, Guard::None);
        let request =
            Request { payload, decision, access, started, renewable, ends_blocks, subject, parted, guard };
        let ran = self.perform(&request).await?;
        self.end_query(&Kind::Rollback { chain }, text, ran, Access::Write).await
    }

    /// For what names no shard.
    pub fn decision_on(&self, home: Option<(ShardId, Role)>) -> Decision {
        let (shard, role) = home.unwrap_or((ShardId(0), Role::Primary));
        let why = crate::route::Why::Anywhere;
        Decision { shards: [shard].into_iter().collect(), role, mode: Mode::One, keys: KeySet::new(), why }
    }

    pub async fn perform(&mut self, request: &Request<'_>) -> Result<Ran, End> {
        self.overdue = None;
        self.begin_cost(None);
        if request.decision.mode != Mode::One {
            self.send_touched();
        }
        let ran = match request.decision.mode {
            Mode::One => self.run_guarded(request).await,
            Mode::Scatter | Mode::Merge
                if let Some(declaring) = request.parted().and_then(|it| it.declaring.as_ref()) =>
            {
                Box::pin(self.run_declare(request, declaring)).await
            }
            Mode::Scatter | Mode::Merge => match request.parted().and_then(|it| it.reading.as_ref()) {
                Some(reading) => self.run_merged(request, reading).await,
                None => self.run_scattered(request).await,
            },
            Mode::Everywhere | Mode::OnePhase => self.run_everywhere(request).await,
            Mode::Split => match request.parted().and_then(|it| it.inserting.as_ref()) {
                Some(inserting) => self.run_split(request, inserting).await,
                None => Ok(Ran::Refused(no_shard())),
            },
            Mode::Copy => match request.parted().and_then(|it| it.copied.as_ref()) {
                // Boxed, as it is more than twice as large as all others, which every client at work would carry.
                Some(copied) => Box::pin(self.start_copy(request, copied)).await,
                None => Ok(Ran::Refused(no_shard())),
            },
            Mode::InTurn => self.run_in_turn(request).await,
        };
        if let (Mode::Merge, Ok(Ran::Refused(refusal))) = (request.decision.mode, &ran)
            && refusal.state() == SqlState::PROGRAM_LIMIT_EXCEEDED
        {
            self.shared.hits.hit(Limit::MergeBytes);
        }
        if self.held.is_none() {
            // Where no server is held there is nothing to look at.
            self.suspected = None;
        }
        self.tell_request(request, &ran);
        ran
    }

    /// One server, again on another one while the client has seen nothing and it was only read
    /// (DESIGN invariant 5). With `leading` others wait for its answer too.
    pub async fn run_on_one(
        &mut self,
        request: &Request<'_>,
        mut leading: Option<Leading>,
    ) -> Result<Ran, End> {
        let Some(&shard) = request.decision.shards.first() else { return Ok(Ran::Refused(no_shard())) };
        let (mut role, mut excluded) = (self.role_of(request), Excluded::default());
        if let Err(refusal) = self.go_to(shard, role).await {
            return Ok(Ran::Refused(refusal));
        }
        let (mut tries_left, mut may_renew) = (self.tries_of(request, shard), request.renewable);
        loop {
            let server = match self.held_or_attached(shard, role, &mut excluded, request.started).await {
                Ok(it) => it,
                Err(refusal) => return Ok(Ran::Refused(refusal)),
            };
            if let Err(refusal) = self.set_up_held(request.ends_blocks).await {
                return Ok(Ran::Refused(refusal));
            }
            if !self.transaction.is_idle() && !self.is_spread() {
                self.record.transaction.set_main(Some(shard));
            }
            self.send_touched();
            let mut replies = Replies::default();
            let mut flow = Flow { may_leave: tries_left > 0, may_renew, ..Flow::default() };
            flow.may_retry = flow.may_leave && server.1 == Role::Replica;
            // Some microseconds after it came are not worth another look at a clock, but to those who wait for this answer as one
            // that was asked for when they were waiting already.
            let is_prompt = leading.is_none() && self.record.is_prompt();
            let now = if is_prompt { request.started } else { Instant::now() };
            flow.sent_at = Some(now);
            let shown = leading.as_ref().and_then(|it| self.lead(it, server, now, &mut flow));
            let stopped = self.exchange(request, &mut replies, &mut flow).await;
            self.note_answer(&replies, &mut flow)?;
            if let Some(message) = &replies.set_up_error {
                let refusal = setting_refused(message);
                self.close_held().await;
                return Ok(Ran::Refused(refusal));
            }
            match stopped {
                Ok(Stop::Drained) => {
                    self.end_led(leading.take(), shown, server.1, &mut flow).await?;
                    self.count_answer(request, shard, server.1, &flow);
                    if let Some(held) = &mut self.held {
                        held.reader.succeeded(flow.sent_at.filter(|_| server.1 == Role::Replica));
                    }
                    return Ok(Ran::Done { failed: flow.errors > 0 });
                }
                Ok(Stop::CopyIn) => {
                    self.begin_copying(request, shard, server.1, flow);
                    return Ok(Ran::CopyIn);
                }
                // Invariant 5 holds for writes too: the server refused the statement instead of running it, and it
                // was the first of a transaction of its own, so that nothing else had run either.
                Ok(Stop::Renew) => {
                    may_renew = Renewable::default();
                    self.database.metrics.renewals.inc();
                }
                Ok(Stop::Retry) => {
                    excluded.add(server.0);
                    role = Role::Primary;
                    tries_left = 0;
                    self.database.metrics.turned_down(flow.turned_down);
                    self.let_go_if_free(Instant::now()).await;
                }
                Err(error) if tries_left > 0 && flow.sent_bytes == 0 && error.is_servers() => {
                    tries_left -= 1;
                    excluded.add(server.0);
                    self.database.metrics.retries.inc();
                    self.drop_server(&error);
                }
                Err(error) => {
                    self.count(request, shard, server.1, &flow, Instant::now());
                    return self.lose_server(error, &flow).map(Ran::Refused);
                }
            }
        }
    }

    fn begin_copying(&mut self, request: &Request<'_>, shard: ShardId, role: Role, flow: Flow) {
        let (started, subject) = (request.started, request.subject.clone());
        let _live = self.live(shard, role, request.access);
        self.copying = Some(Box::new(Copying { started, subject, flow, _live }));
    }

    /// The server that the session has, or gets now.
    async fn held_or_attached(
        &mut self,
        shard: ShardId,
        role: Role,
        excluded: &mut Excluded,
        now: Instant,
    ) -> Result<(ServerId, Role), Refusal> {
        if let Some(it) = &self.held {
            return Ok((it.server, it.role));
        }
        let held = match self.attach_at_once(shard, role, now) {
            Some(it) => it,
            None => self.attach(shard, role, excluded, now).await?,
        };
        let placed = (held.server, held.role);
        self.held = Some(held);
        Ok(placed)
    }

    fn note_answer(&mut self, replies: &Replies, flow: &mut Flow) -> Result<(), End> {
        self.note_parameters(flow)?;
        self.named = u32::try_from(replies.named).unwrap_or(u32::MAX);
        self.committed = replies.tag.as_slice() == b"COMMIT";
        Ok(())
    }

    fn role_of(&self, request: &Request<'_>) -> Role {
        // What a session in session mode leaves on its server may need the primary later.
        if self.is_session() { Role::Primary } else { request.decision.role }
    }

    /// How often the request may be made again after a server failed.
    fn tries_of(&self, request: &Request<'_>, shard: ShardId) -> usize {
        let repeatable = request.access == Access::Read
            && request.payload.is_complete()
            && self.held.is_none()
            && self.transaction.is_idle()
            && self.pinned.is_none();
        let servers = self.pools.shards.get(usize::from(shard.0)).map_or(0, Vec::len);
        if repeatable { servers + 1 } else { 0 }
    }

    /// Before a text that would end the block which guards the settings.
    async fn set_up_held(&mut self, ends_blocks: bool) -> Result<(), Refusal> {
        if !ends_blocks {
            return Ok(());
        }
        let Some(mut held) = self.held.take() else { return Ok(()) };
        match self.set_up_now(&mut held).await {
            Ok(()) => {
                self.held = Some(held);
                Ok(())
            }
            Err(error) => Err(self.set_up_failed(error, &held).await),
        }
    }

    /// Closes the held connection, with all that is on it.
    pub async fn close_held(&mut self) {
        let _closed = self.cancel.slot().detach().await;
        self.held = None;
        self.others = Others::default();
        self.unpin();
        self.suspected = None;
        self.unsynced = false;
    }

    fn drop_server(&mut self, error: &super::relay::RelayError) {
        if let Some(mut held) = self.held.take() {
            held.reader.lost(error, Instant::now());
            tracing::warn!(server = ?held.server, %error, "read is tried on another server");
            if error.is_end() {
                self.database.failover.doubt(held.server);
            }
            self.database.topology.report_failure(held.server);
            if matches!(error, super::relay::RelayError::Silent) {
                // It would go on with it as soon as it can.
                abandon(held.lease);
            }
        }
        let _closed = self.cancel.slot().try_detach();
    }

    /// Sends the request to the held server, BEGIN in front of it where one waits, and relays the answer.
    async fn exchange(
        &mut self,
        request: &Request<'_>,
        replies: &mut Replies,
        flow: &mut Flow,
    ) -> Result<Stop, super::relay::RelayError> {
        self.overdue = self.overdue();
        if request.access == Access::Write {
            self.hold_as_own().await;
        }
        let mut part = request.payload.part();
        if (self.ends_answers() || self.is_spread()) && request.payload.is_complete() {
            part.ready = false;
            self.ends_answer = true;
        }
        let Some(held) = &mut self.held else { return Err(super::relay::RelayError::ServerClosed) };
        let _live = self.database.metrics.target(held.shard, held.role, request.access).map(Live::new);
        let server = &mut *held.lease;
        server.pipeline.set_part(part);
        let mut out = self.at_work.as_mut().map(|it| std::mem::take(&mut it.outgoing)).unwrap_or_default();
        if std::mem::take(&mut held.needs_set_up) {
            if let Some(text) = set_up_text(server, &self.settings) {
                wire::query(&mut out, &text);
                server.pipeline.push(Expect::SetUp);
                server.statements.set_unnamed(None);
            }
            // If it fails, the connection is closed.
            server.settings = self.settings.clone();
        }
        for statement in self.transaction.prologue() {
            wire::query(&mut out, statement);
            server.pipeline.push(Expect::Query(Origin::Keyway));
            server.statements.set_unnamed(None);
        }
        let raw = request.payload.compose(server, &mut out);
        self.record.counts.server_parses.add(server.pipeline.take_parses());
        let evicted = server.statements.take_evicted();
        if evicted.statements > 0 {
            self.database.metrics.evictions.inc_by(evicted.statements);
            self.shared.hits.hit_times(Limit::ServerStatements, evicted.over_count);
            self.shared.hits.hit_times(Limit::ServerStatementBytes, evicted.over_bytes);
        }
        let sent = match raw {
            Some(bytes) if out.is_empty() => server.stream.write_all(bytes).await,
            Some(bytes) => {
                out.extend_from_slice(bytes);
                server.stream.write_all(&out).await
            }
            None => server.stream.write_all(&out).await,
        };
        if let Some(it) = self.at_work.as_mut().filter(|_| out.capacity() <= OUTGOING_BYTES_KEPT) {
            out.clear();
            it.outgoing = out;
        }
        // A server that has gone may have said why: what can be read comes before the error of writing.
        let stopped =
            relay(&mut self.stream, server, &self.shared.stock, replies, flow, &mut self.overdue).await;
        if flow.outdated {
            outdate(server, &self.database.statements, request.payload);
        }
        match (sent, stopped) {
            (Err(error), Err(super::relay::RelayError::ServerClosed)) => {
                Err(super::relay::RelayError::Server(error))
            }
            (_, stopped) => stopped,
        }
    }

    pub fn live(&self, shard: ShardId, role: Role, access: Access) -> Option<Live<TargetMetrics>> {
        self.database.metrics.target(shard, role, access).cloned().map(Live::new)
    }

    /// As `count`, of an answer that has just come to its end. Where several servers hold the transaction, `settle` has
    /// others to hear of.
    fn count_answer(&mut self, request: &Request<'_>, shard: ShardId, role: Role, flow: &Flow) {
        let now = Instant::now();
        self.count(request, shard, role, flow, now);
        self.cost().ended = (!self.is_spread()).then_some(now);
    }

    pub fn count(&mut self, request: &Request<'_>, shard: ShardId, role: Role, flow: &Flow, now: Instant) {
        if request.decision.mode != Mode::One {
            self.count_lock_wait(flow);
        }
        match self.copying.take() {
            // This is the Sync that ends it.
            Some(copying) => self.count_copy(&copying, shard, role, flow, now),
            None => {
                let Request { subject, access, started, decision, .. } = request;
                let (shards, keys) = (&decision.shards[..], &decision.keys[..]);
                let counted = Counted { subject, access: *access, shards, keys, started: *started };
                let spent = self.count_done(&counted, shard, role, flow, now);
                self.cost().add(spent, role, flow);
            }
        }
    }

    /// Where several shards write together: by Keyway's limit unless the session has one of its own.
    pub fn count_lock_wait(&self, flow: &Flow) {
        if flow.waited_for_lock && !self.settings.has("lock_timeout") {
            self.shared.hits.hit(Limit::LockTime);
        }
    }

    /// A COPY is counted once, from its statement to the end of its answer.
    pub fn count_copy(&mut self, copying: &Copying, shard: ShardId, role: Role, flow: &Flow, now: Instant) {
        let mut whole = Flow { sent_at: copying.flow.sent_at, ..Flow::default() };
        whole.add(&copying.flow);
        whole.add(flow);
        let (subject, started) = (&copying.subject, copying.started);
        let counted = Counted { subject, access: Access::Write, shards: &[shard], keys: &[], started };
        let spent = self.count_done(&counted, shard, role, &whole, now);
        self.cost().add(spent, role, &whole);
    }
}

/// What the server has under these names is closed with the next request, and whoever prepares the texts from
/// now on gets statements that no server has as they were.
fn outdate(server: &mut Backend, registry: &Registry, payload: Payload<'_>) {
    let mut outdate = |it: &Arc<Statement>| {
        server.statements.outdate(it.id);
        registry.retire(it);
    };
    match payload {
        Payload::Query(_) | Payload::Named(_) => {}
        Payload::Renamed(renamed) => renamed.needs.iter().for_each(&mut outdate),
        Payload::Group(group) => group.named().for_each(&mut outdate),
    }
}

fn no_shard() -> Refusal {
    Refusal::new(Reason::Unsupported, SqlState::INTERNAL_ERROR, "no shard")
}

pub(super) fn not_utf8() -> Refusal {
    Refusal::new(
        Reason::Unsupported,
        SqlState("22021"),
        "invalid byte sequence for encoding \"UTF8\" in a statement",
    )
    .hint("send statements in UTF8")
}

pub(super) fn malformed(error: &wire::BodyError) -> Refusal {
    Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, error.to_string())
}
