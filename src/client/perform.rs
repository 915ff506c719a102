//! A request at its server or servers, of either protocol: sent, tried again where that is right, counted.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::abandon::abandon;
use super::answers::Leading;
use super::attach::{set_up_text, setting_refused};
use super::enlisted::Others;
use super::hotspots::Counted;
use super::query::no_shard;
use super::relay::{Flow, RelayError, Stop, forward_rest, relay, relay_on};
use super::request::{Attempt, Begun, Copying, Payload, Ran, Renewable, Request, Tried};
use super::session::{End, Session};
use super::statements::{Registry, Statement};
use super::target_metrics::TargetMetrics;
use crate::backend::Backend;
use crate::base::{Access, Refusal, Role, ServerId, ShardId, SqlState};
use crate::metrics::{Limit, Live};
use crate::proto::{Expect, Origin, Replies};
use crate::route::Mode;
use crate::wire;

/// What a session keeps at most to write its next request in.
const OUTGOING_BYTES_KEPT: usize = 4_096;

impl Session {
    pub async fn perform(&mut self, request: &Request<'_>) -> Result<Ran, End> {
        self.overdue = None;
        self.begin_cost(None);
        if request.decision.mode != Mode::One {
            self.send_touched();
        }
        let ran = if self.goes_at_once(request) {
            self.run_at_once(request).await
        } else {
            self.perform_at_length(request).await
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

    async fn perform_at_length(&mut self, request: &Request<'_>) -> Result<Ran, End> {
        match request.decision.mode {
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
        }
    }

    /// One server, again on another one while the client has seen nothing and it was only read
    /// (DESIGN invariant 5). With `leading` others wait for its answer too.
    pub async fn run_on_one(&mut self, request: &Request<'_>, leading: Option<Leading>) -> Result<Ran, End> {
        let Some(&shard) = request.decision.shards.first() else { return Ok(Ran::Refused(no_shard())) };
        let role = self.role_of(request);
        if let Err(refusal) = self.go_to(shard, role).await {
            return Ok(Ran::Refused(refusal));
        }
        let tries_left = self.tries_of(request, shard);
        self.try_on_one(request, Attempt { leading, ..Attempt::new(shard, role, tries_left, request) }).await
    }

    pub async fn try_on_one(&mut self, request: &Request<'_>, mut attempt: Attempt) -> Result<Ran, End> {
        loop {
            let shard = attempt.shard;
            let server = match self.held_or_attached(request, &mut attempt).await {
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
            let now = self.sent_at(request, attempt.leading.is_some());
            let mut tried = Tried::new(server, attempt.flow(server.1, now));
            tried.shown = attempt.leading.as_ref().and_then(|it| self.lead(it, server, now, &mut tried.flow));
            let stopped = self.exchange(request, &mut tried.replies, &mut tried.flow).await;
            if let Some(ran) = self.end_attempt(request, &mut attempt, &mut tried, stopped).await? {
                return Ok(ran);
            }
        }
    }

    /// Some microseconds after it came are not worth another look at a clock, but to those who wait for this answer as one
    /// that was asked for when they were waiting already.
    pub fn sent_at(&self, request: &Request<'_>, leads: bool) -> Instant {
        if !leads && self.record.is_prompt() { request.started } else { Instant::now() }
    }

    /// `None` is that it is to be tried again.
    pub async fn end_attempt(
        &mut self,
        request: &Request<'_>,
        attempt: &mut Attempt,
        tried: &mut Tried,
        stopped: Result<Stop, RelayError>,
    ) -> Result<Option<Ran>, End> {
        let Tried { server, replies, flow, shown } = tried;
        let (shard, role) = (attempt.shard, server.1);
        self.note_answer(request, replies, flow)?;
        if let Some(message) = &replies.set_up_error {
            let refusal = setting_refused(message);
            self.close_held().await;
            return Ok(Some(Ran::Refused(refusal)));
        }
        match stopped {
            Ok(Stop::Drained) => {
                self.end_led(attempt.leading.take(), *shown, role, flow).await?;
                return Ok(Some(self.answered(request, shard, role, flow)));
            }
            Ok(Stop::CopyIn) => {
                self.begin_copying(request, shard, role, std::mem::take(flow));
                return Ok(Some(Ran::CopyIn));
            }
            // Invariant 5 holds for writes too: the server refused the statement instead of running it, and it
            // was the first of a transaction of its own, so that nothing else had run either.
            Ok(Stop::Renew) => {
                attempt.may_renew = Renewable::default();
                self.database.metrics.renewals.inc();
            }
            Ok(Stop::Retry) => {
                attempt.excluded.add(server.0);
                attempt.role = Role::Primary;
                attempt.tries_left = 0;
                self.database.metrics.turned_down(flow.turned_down);
                self.let_go_if_free(Instant::now()).await;
            }
            Err(error) if attempt.tries_left > 0 && flow.sent_bytes == 0 && error.is_servers() => {
                attempt.tries_left -= 1;
                attempt.excluded.add(server.0);
                self.database.metrics.retries.inc();
                self.drop_server(&error);
            }
            Err(error) => {
                self.count(request, shard, role, flow, Instant::now());
                return self.lose_server(error, flow).map(Ran::Refused).map(Some);
            }
        }
        Ok(None)
    }

    /// The client has all of the answer.
    pub fn answered(&mut self, request: &Request<'_>, shard: ShardId, role: Role, flow: &Flow) -> Ran {
        self.count_answer(request, shard, role, flow);
        if let Some(held) = &mut self.held {
            held.reader.succeeded(flow.sent_at.filter(|_| role == Role::Replica));
        }
        Ran::Done { failed: flow.errors > 0 }
    }

    fn begin_copying(&mut self, request: &Request<'_>, shard: ShardId, role: Role, flow: Flow) {
        let (started, subject) = (request.started, request.subject.clone());
        let _live = self.live(shard, role, request.access);
        self.copying = Some(Box::new(Copying { started, subject, flow, _live }));
    }

    /// The server that the session has, or gets now.
    async fn held_or_attached(
        &mut self,
        request: &Request<'_>,
        attempt: &mut Attempt,
    ) -> Result<(ServerId, Role), Refusal> {
        if let Some(it) = &self.held {
            return Ok((it.server, it.role));
        }
        let (shard, role, now) = (attempt.shard, attempt.role, request.started);
        let held = match self.attach_at_once(shard, role, now) {
            Some(it) => it,
            None => self.attach(shard, role, &mut attempt.excluded, now).await?,
        };
        let placed = (held.server, held.role);
        self.held = Some(held);
        Ok(placed)
    }

    /// What the answer says of the session and of its server.
    pub fn note_answer(
        &mut self,
        request: &Request<'_>,
        replies: &Replies,
        flow: &mut Flow,
    ) -> Result<(), End> {
        if let Some(held) = self.held.as_mut().filter(|_| flow.outdated) {
            outdate(&mut held.lease, &self.database.statements, request.payload);
        }
        self.note_parameters(flow)?;
        self.note_ended(replies.named, replies.tag.as_slice() == b"COMMIT");
        Ok(())
    }

    /// How many Parses and Closes were done, and what became of the last transaction to end.
    pub fn note_ended(&mut self, named: usize, committed: bool) {
        self.named = u32::try_from(named).unwrap_or(u32::MAX);
        self.committed = committed;
    }

    pub fn role_of(&self, request: &Request<'_>) -> Role {
        // What a session in session mode leaves on its server may need the primary later.
        if self.is_session() { Role::Primary } else { request.decision.role }
    }

    /// How often the request may be made again after a server failed.
    pub fn tries_of(&self, request: &Request<'_>, shard: ShardId) -> usize {
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

    fn drop_server(&mut self, error: &RelayError) {
        if let Some(mut held) = self.held.take() {
            held.reader.lost(error, Instant::now());
            tracing::warn!(server = ?held.server, %error, "read is tried on another server");
            if error.is_end() {
                self.database.failover.doubt(held.server);
            }
            self.database.topology.report_failure(held.server);
            if matches!(error, RelayError::Silent) {
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
    ) -> Result<Stop, RelayError> {
        self.overdue = self.overdue();
        if request.access == Access::Write {
            self.hold_as_own().await;
        }
        let mut out = self.outgoing();
        let raw = self.compose(request, &mut out);
        let sent = self.send(all_of(raw, &mut out), request.access).await;
        self.keep_outgoing(out);
        self.hear(request, sent, None, replies, flow).await
    }

    /// To the held server.
    pub async fn send(&mut self, bytes: &[u8], access: Access) -> io::Result<()> {
        let Some(held) = &mut self.held else { return Err(io::ErrorKind::NotConnected.into()) };
        let _live = self.database.metrics.target(held.shard, held.role, access).map(Live::new);
        held.lease.stream.write_all(bytes).await
    }

    /// Where a request is written: empty.
    pub fn outgoing(&mut self) -> Vec<u8> {
        self.at_work.as_mut().map(|it| std::mem::take(&mut it.outgoing)).unwrap_or_default()
    }

    pub fn keep_outgoing(&mut self, mut out: Vec<u8>) {
        if let Some(it) = self.at_work.as_mut().filter(|_| out.capacity() <= OUTGOING_BYTES_KEPT) {
            out.clear();
            it.outgoing = out;
        }
    }

    /// What the held server is to be sent for the request: in `out`, then what comes behind that as the client sent it.
    pub fn compose<'a>(&mut self, request: &'a Request<'_>, out: &mut Vec<u8>) -> Option<&'a [u8]> {
        let mut part = request.payload.part();
        if (self.ends_answers() || self.is_spread()) && request.payload.is_complete() {
            part.ready = false;
            self.ends_answer = true;
        }
        let held = self.held.as_mut()?;
        let server = &mut *held.lease;
        server.pipeline.set_part(part);
        if std::mem::take(&mut held.needs_set_up) {
            if let Some(text) = set_up_text(server, &self.settings) {
                wire::query(out, &text);
                server.pipeline.push(Expect::SetUp);
                server.statements.set_unnamed(None);
            }
            // If it fails, the connection is closed.
            server.settings = self.settings.clone();
        }
        for statement in self.transaction.prologue() {
            wire::query(out, statement);
            server.pipeline.push(Expect::Query(Origin::Keyway));
            server.statements.set_unnamed(None);
        }
        let raw = request.payload.compose(server, out);
        self.record.counts.server_parses.add(server.pipeline.take_parses());
        let evicted = server.statements.take_evicted();
        if evicted.statements > 0 {
            self.database.metrics.evictions.inc_by(evicted.statements);
            self.shared.hits.hit_times(Limit::ServerStatements, evicted.over_count);
            self.shared.hits.hit_times(Limit::ServerStatementBytes, evicted.over_bytes);
        }
        raw
    }

    /// What the held server says of the request that was sent to it. With `begun` it has said some of it.
    pub async fn hear(
        &mut self,
        request: &Request<'_>,
        sent: io::Result<()>,
        begun: Option<Begun>,
        replies: &mut Replies,
        flow: &mut Flow,
    ) -> Result<Stop, RelayError> {
        let Some(held) = &mut self.held else { return Err(RelayError::ServerClosed) };
        let _live = self.database.metrics.target(held.shard, held.role, request.access).map(Live::new);
        let server = &mut *held.lease;
        let (client, stock, overdue) = (&mut self.stream, &self.shared.stock, &mut self.overdue);
        // A server that has gone may have said why: what can be read comes before the error of writing.
        let is_begun = begun.is_some();
        let (buffer, unsent) = begun.map_or((None, None), |it| (it.buffer, it.unsent));
        let forwarded = match unsent {
            Some(rest) => forward_rest(client, &rest, flow).await,
            None => Ok(()),
        };
        let stopped = match forwarded {
            Ok(()) if is_begun => relay_on(client, server, stock, buffer, replies, flow, overdue).await,
            Ok(()) => relay(client, server, stock, replies, flow, overdue).await,
            Err(error) => Err(error),
        };
        match (sent, stopped) {
            (Err(error), Err(RelayError::ServerClosed)) => Err(RelayError::Server(error)),
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

/// Nearly always it is one of both.
pub(super) fn all_of<'a>(raw: Option<&'a [u8]>, out: &'a mut Vec<u8>) -> &'a [u8] {
    match raw {
        Some(bytes) if out.is_empty() => bytes,
        Some(bytes) => {
            out.extend_from_slice(bytes);
            out
        }
        None => out,
    }
}
