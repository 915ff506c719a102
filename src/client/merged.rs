//! A read that several shards answer together. One of them describes the statement, all of them run their
//! part of it at once, and `merge` makes one answer of their rows: rows are read only of shards whose next ones are
//! needed, so that memory stays bounded however large the results are.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use smallvec::SmallVec;

use super::abandon::quiet;
use super::many::cancel_all;
use super::relay::{Flow, RelayError};
use super::request::{Ran, Request};
use super::session::{End, Held, Session};
use super::statements::Statement;
use crate::backend::Backend;
use crate::base::{Reason, Refusal, SqlState};
use crate::merge::{Budget, Format, Merger, Progress, ResultFormats};
use crate::net::Buffer;
use crate::proto::{Expect, Origin, Part, Replies, StatementId};
use crate::route::{Described, KeySource, Literal, Params, ShardQuery, ShardRead};
use crate::sql::Filled;
use crate::wire::{self, Bind, RowField};

/// Of rows that wait to be written.
pub(super) const OUT_BYTES_MAX: usize = 64 * 1024;

/// A statement that several shards answer together.
pub(super) struct Reading<'a> {
    read: Arc<ShardRead>,
    /// Of the plan.
    version: u64,
    asked: Asked<'a>,
}

/// A statement of the client's with its values, of which shards are sent what is made of it.
pub(super) struct Asked<'a> {
    pub text: Cow<'a, str>,
    pub literals: &'a [Literal],
    /// As in Parse.
    pub oids: &'a [u8],
    pub values: Vec<(i16, Option<&'a [u8]>)>,
    pub results: ResultFormats,
    /// What the client awaits in front of the rows, in order.
    pub script: SmallVec<[Step; 4]>,
    /// It came as a Query, whose answer tells nothing of rows that are none.
    pub is_query: bool,
}

/// A message of the answer that is not of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Parsed,
    Bound,
    Closed,
    /// ParameterDescription and RowDescription of the statement.
    Statement,
    /// RowDescription with the formats of the rows.
    Portal,
    /// So many rows, 0 for all, with CommandComplete or PortalSuspended.
    Rows(u64),
}

impl<'a> Reading<'a> {
    /// `read` is of a plan of this version.
    pub fn new(read: &Arc<ShardRead>, version: u64, asked: Asked<'a>) -> Reading<'a> {
        Reading { read: read.clone(), version, asked }
    }

    /// How it is merged by its plan, and the version of that.
    pub fn planned(&self) -> (Arc<ShardRead>, u64) {
        (self.read.clone(), self.version)
    }

    pub fn asked(&self) -> &Asked<'a> {
        &self.asked
    }
}

impl<'a> Asked<'a> {
    pub fn simple(text: &'a str, literals: &'a [Literal]) -> Asked<'a> {
        let script = SmallVec::from_slice(&[Step::Portal, Step::Rows(0)]);
        let (values, results) = (Vec::new(), ResultFormats::default());
        let text = Cow::Borrowed(text);
        Asked { text, literals, oids: &[], values, results, script, is_query: true }
    }

    /// By EXECUTE, with values as text.
    pub fn executed(statement: &'a Statement, values: &[Option<&'a [u8]>]) -> Asked<'a> {
        let values = values.iter().map(|it| (0, *it)).collect();
        Asked { oids: &statement.oids, values, ..Asked::simple(statement.text(), &statement.literals) }
    }

    pub fn bound(statement: &'a Statement, bind: &Bind<'a>, script: SmallVec<[Step; 4]>) -> Asked<'a> {
        let values = bind.values().iter().enumerate();
        let values = values.map(|(at, it)| (i16::from(bind.formats().is_binary(at)), it)).collect();
        let format = |it| if it == 1 { Format::Binary } else { Format::Text };
        Asked {
            text: Cow::Borrowed(statement.text()),
            literals: &statement.literals,
            oids: &statement.oids,
            values,
            results: ResultFormats(bind.result_formats().codes().map(format).collect()),
            script,
            is_query: false,
        }
    }

    /// How many rows all Executes ask for; `None`: all.
    fn rows_max(&self) -> Option<u64> {
        self.script.iter().try_fold(0, |sum, step| match step {
            Step::Rows(0) => None,
            Step::Rows(rows_max) => Some(sum + rows_max),
            _ => Some(sum),
        })
    }

    fn declared_oid(&self, number: u16) -> u32 {
        let at = usize::from(number).saturating_sub(1);
        self.oids.as_chunks::<4>().0.get(at).map_or(0, |it| u32::from_be_bytes(*it))
    }

    /// Gives `then` the places of the statement's values.
    pub fn with_source<T>(&self, then: impl FnOnce(&KeySource<'_>) -> T) -> T {
        let oids: Vec<u32> = (1..=self.values.len() as u16).map(|it| self.declared_oid(it)).collect();
        let formats: Vec<i16> = self.values.iter().map(|it| it.0).collect();
        let values: Vec<Option<&[u8]>> = self.values.iter().map(|it| it.1).collect();
        let params = Params { oids: &oids, formats: &formats, values: &values };
        then(&KeySource { text: &self.text, literals: self.literals, params: Some(params) })
    }
}

/// Why a statement over shards ends without its whole answer.
pub(super) enum Stop {
    Refused(Refusal),
    Lost(RelayError),
    /// A shard's error, which the client has.
    Told,
}

impl From<RelayError> for Stop {
    fn from(error: RelayError) -> Stop {
        Stop::Lost(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

/// What one shard has said of the statement, as it came.
#[derive(Default)]
pub(super) struct Description {
    pub parameters: Vec<u32>,
    /// RowDescription, empty for a statement without rows.
    pub row: Vec<u8>,
    typing: Vec<u8>,
}

impl Description {
    /// What each shard runs of the statement; `holds` as in `ShardRead::query`.
    pub fn shard_query(
        &self,
        read: &ShardRead,
        asked: &Asked<'_>,
        holds: bool,
    ) -> Result<ShardQuery, Refusal> {
        self.with(|described| asked.with_source(|source| read.query(source, described, holds)))
    }

    /// As `ShardRead::needs_catalog`.
    pub fn needs_catalog(&self, read: &ShardRead) -> Result<bool, Refusal> {
        self.with(|described| Ok(read.needs_catalog(described)))
    }

    fn with<T>(&self, then: impl FnOnce(&Described<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let (outputs, typing) = (fields(&self.row)?, fields(&self.typing)?);
        then(&Described { param_oids: &self.parameters, outputs: &outputs, typing: &typing })
    }
}

fn fields(message: &[u8]) -> Result<Vec<RowField<'_>>, Refusal> {
    if message.is_empty() {
        return Ok(Vec::new());
    }
    wire::row_fields(message).map_err(|_| malformed())
}

pub(super) fn malformed() -> Refusal {
    Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, "a server's description is malformed")
}

impl Session {
    /// What the client awaits of a Parse, Bind or Close that was done; of other steps nothing.
    pub(super) fn put_done(&mut self, step: Step, out: &mut Vec<u8>) {
        let message = match step {
            Step::Parsed => {
                self.named += 1;
                wire::PARSE_COMPLETE
            }
            Step::Bound => wire::BIND_COMPLETE,
            Step::Closed => wire::CLOSE_COMPLETE,
            Step::Statement | Step::Portal | Step::Rows(_) => return,
        };
        out.extend_from_slice(message);
    }

    pub async fn run_merged(&mut self, request: &Request<'_>, reading: &Reading<'_>) -> Result<Ran, End> {
        let mut team = match self.assemble_readers(request).await {
            Ok(it) => it,
            Err(refusal) => return Ok(Ran::Refused(refusal)),
        };
        let _live: Vec<_> = team.iter().map(|it| self.live(it.shard, it.role, request.access)).collect();
        if self.overdue.is_none() {
            self.overdue = self.overdue();
        }
        let mut flow = Flow::sent_now();
        let mut buffers = Vec::new();
        let ended = self.merge_answers(&mut team, reading, &mut buffers, &mut flow).await;
        let now = Instant::now();
        for (index, held) in team.iter().enumerate() {
            self.count(request, held.shard, held.role, &flow.share(index, team.len()), now);
        }
        match ended {
            Ok(()) => {
                self.stand_down_or_dismiss(team, false).await;
                Ok(Ran::Unready { failed: false })
            }
            Err(Stop::Lost(error)) => self.lose_team(team, error).await,
            Err(stop) => {
                self.abandon_rest(team, buffers).await;
                match stop {
                    Stop::Refused(refusal) => Ok(Ran::Refused(refusal)),
                    _ => Ok(Ran::Unready { failed: true }),
                }
            }
        }
    }

    /// Whoever is done is free, and nobody waits for the others.
    async fn abandon_rest(&mut self, mut team: Vec<Held>, mut buffers: Vec<Buffer>) {
        if self.is_spread() {
            buffers.resize_with(team.len(), Buffer::default);
            return match quiet(&mut team, &mut buffers, self.shared.limits.timeouts.cancel).await {
                true => self.stand_down(team, true),
                false => {
                    let _closed = self.cancel.slot().detach().await;
                    cancel_all(team, &RelayError::ClientLeft);
                    self.lose_others();
                }
            };
        }
        let (free, busy) = team.into_iter().partition(|it| it.lease.pipeline.is_drained());
        cancel_all(busy, &RelayError::ClientLeft);
        self.dismiss(free).await;
    }

    async fn merge_answers(
        &mut self,
        team: &mut [Held],
        reading: &Reading<'_>,
        unread: &mut Vec<Buffer>,
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let first = team.first_mut().ok_or(RelayError::ServerClosed)?;
        let asked = &reading.asked;
        let settled = self.settle_read(first, reading, flow).await?;
        let (described, query) = (&settled.described, &settled.query);
        for held in team.iter_mut() {
            send(&mut held.lease, asked, query, &described.parameters).await?;
        }
        // Behind a run of minutes it would be refused for what began long after its tables were locked.
        self.check_settled(settled.basis, asked)?;
        let budget = Budget { memory_bytes_max: self.shared.limits.merge_bytes_max, hash_seed: self.entropy };
        let merger = Merger::new(query.spec.clone(), team.len(), asked.results.clone(), budget);
        let mut merging = Merging::new(merger, team.len());
        wire::parameter_description(&mut merging.statement, &described.parameters);
        merging.statement.extend_from_slice(&described.row);
        let mut script = asked.script.iter();
        // What the statement's description has shown to be right.
        while let Some(step @ (Step::Parsed | Step::Statement)) = script.as_slice().first() {
            script.next();
            match step {
                Step::Statement => merging.out.extend_from_slice(&merging.statement),
                _ => self.put_done(*step, &mut merging.out),
            }
        }
        let script = script.as_slice();
        merging.front = script.iter().take_while(|it| !matches!(it, Step::Rows(_))).copied().collect();
        let ended = self.follow(&mut merging, team, script, flow).await;
        let ended = ended.map_err(|it| settled.basis.explain(it));
        *unread = merging.buffers;
        ended
    }

    /// Lets one shard describe the statement as the client wrote it, and what `typing` asks.
    pub async fn describe(
        &mut self,
        held: &mut Held,
        asked: &Asked<'_>,
        typing: Option<&Filled>,
        flow: &mut Flow,
    ) -> Result<Description, Stop> {
        let server = &mut *held.lease;
        server.pipeline.set_part(Part::COLLECTED);
        let mut out = Vec::new();
        parse(server, &mut out, &asked.text, asked.oids);
        wire::describe_statement(&mut out, b"");
        server.pipeline.push(Expect::Describe);
        if let Some(typing) = typing {
            let oids = typing.params.iter().flat_map(|it| asked.declared_oid(*it).to_be_bytes());
            parse(server, &mut out, &typing.text, &oids.collect::<Vec<_>>());
            wire::describe_statement(&mut out, b"");
            server.pipeline.push(Expect::Describe);
        }
        out.extend_from_slice(wire::SYNC);
        server.pipeline.push(Expect::Sync);
        server.stream.write_all(&out).await.map_err(RelayError::Server)?;
        let (mut buffer, mut replies, mut messages) = (Buffer::default(), Replies::default(), Vec::new());
        while !server.pipeline.is_drained() {
            self.wait_for(&mut [&mut *server], &[true]).await?;
            if server.stream.read(&mut buffer).await.map_err(RelayError::Server)? == 0 {
                return Err(RelayError::ServerClosed.into());
            }
            let consumed = receive(server, &buffer, &mut replies)?;
            let input = buffer.filled();
            messages.extend(replies.descriptions.iter().map(|it| input[it.clone()].to_vec()));
            if !replies.pieces.is_empty() {
                let bytes: Vec<u8> = replies.pieces.iter().flat_map(|it| it.bytes(input).to_vec()).collect();
                self.put(&bytes, flow).await?;
            }
            flow.count_error(input, &replies);
            buffer.consume(consumed);
        }
        if flow.errors > 0 {
            return Err(Stop::Told);
        }
        let mut described = Description::default();
        let mut messages = messages.into_iter();
        let oids = messages.next().ok_or_else(malformed)?;
        described.parameters = wire::parameter_oids(&oids).map_err(|_| malformed())?;
        described.row = messages.next().filter(|it| it.as_slice() != wire::NO_DATA).unwrap_or_default();
        described.typing = messages.nth(1).unwrap_or_default();
        Ok(described)
    }

    pub async fn put(&mut self, bytes: &[u8], flow: &mut Flow) -> Result<(), RelayError> {
        flow.sent_bytes += bytes.len() as u64;
        self.stream.write_all(bytes).await.map_err(|_| RelayError::ClientLeft)
    }

    /// Gives the client what it awaits, step by step.
    async fn follow(
        &mut self,
        merging: &mut Merging,
        team: &mut [Held],
        script: &[Step],
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        while !merging.is_described() {
            self.receive_rows(merging, team, flow).await?;
        }
        for step in script {
            let out = &mut merging.out;
            match step {
                Step::Bound | Step::Closed => self.put_done(*step, out),
                Step::Portal => out.extend_from_slice(merging.merger.description()),
                Step::Rows(rows_max) => self.rows(merging, team, *rows_max, flow).await?,
                Step::Statement => out.extend_from_slice(&merging.statement),
                // It stands in front.
                Step::Parsed => {}
            }
        }
        merging.stage = Stage::Over;
        self.put(&merging.out, flow).await?;
        merging.out.clear();
        // A LIMIT may be reached before the shards have sent what they have: it is no more than that for each.
        while team.iter().any(|it| !it.lease.pipeline.is_drained()) {
            self.receive_rows(merging, team, flow).await?;
        }
        Ok(())
    }

    /// One Execute of the portal. As PostgreSQL does, it pauses at its limit even where no row is left.
    async fn rows(
        &mut self,
        merging: &mut Merging,
        team: &mut [Held],
        rows_max: u64,
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let before = merging.merger.rows();
        merging.merger.pause_at((rows_max > 0).then_some(before + rows_max));
        merging.open()?;
        let paused = loop {
            match merging.merger.pull(&mut merging.out, OUT_BYTES_MAX)? {
                Progress::Done => break false,
                Progress::Paused => break true,
                Progress::OutFull => {
                    self.put(&merging.out, flow).await?;
                    merging.out.clear();
                }
                Progress::NeedRows => self.receive_rows(merging, team, flow).await?,
            }
        };
        if paused {
            merging.out.extend_from_slice(wire::PORTAL_SUSPENDED);
        } else {
            let rows = merging.merger.rows() - before;
            wire::command_complete(&mut merging.out, &format!("SELECT {rows}"));
        }
        Ok(())
    }

    /// One read of one shard whose rows are needed, or, where none are, of one that still has something to say.
    async fn receive_rows(
        &mut self,
        merging: &mut Merging,
        team: &mut [Held],
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let wanted = merging.wanted(team);
        let mut servers: SmallVec<[&mut Backend; 8]> = team.iter_mut().map(|it| &mut *it.lease).collect();
        let index = self.wait_for(&mut servers, &wanted).await?;
        drop(servers);
        let server = &mut *team[index].lease;
        let mut buffer = std::mem::take(&mut merging.buffers[index]);
        if server.stream.read(&mut buffer).await.map_err(RelayError::Server)? == 0 {
            return Err(RelayError::ServerClosed.into());
        }
        let consumed = receive(server, &buffer, &mut merging.replies)?;
        let (at, is_waiting) = (merging.out.len(), !merging.is_described());
        let taken = merging.take(index, buffer.filled(), server.pipeline.has_sent_rows());
        flow.count_error(buffer.filled(), &merging.replies);
        buffer.consume(consumed);
        merging.buffers[index] = buffer;
        taken?;
        let failed = merging.replies.error.is_some();
        if failed && is_waiting && merging.described[index] {
            let error = merging.out.split_off(at);
            for step in &merging.front {
                match step {
                    Step::Portal => merging.out.extend_from_slice(merging.merger.description()),
                    Step::Statement => merging.out.extend_from_slice(&merging.statement),
                    _ => self.put_done(*step, &mut merging.out),
                }
            }
            merging.out.extend_from_slice(&error);
        }
        if failed || merging.out.len() >= OUT_BYTES_MAX {
            self.put(&merging.out, flow).await?;
            merging.out.clear();
        }
        if failed {
            return Err(Stop::Told);
        }
        Ok(())
    }

    /// Until one of the wanted servers has something to read, or the client leaves, or time is up.
    pub async fn wait_for(
        &mut self,
        servers: &mut [&mut Backend],
        wanted: &[bool],
    ) -> Result<usize, RelayError> {
        let client = &mut self.stream;
        let mut watching = true;
        let mut readable = poll_fn(|cx| {
            for (index, server) in servers.iter_mut().enumerate().filter(|(index, _)| wanted[*index]) {
                if let Poll::Ready(ready) = server.stream.poll_readable(cx) {
                    return Poll::Ready(ready.map(|()| index).map_err(RelayError::Server));
                }
            }
            if watching && client.poll_readable(cx).is_ready() {
                if client.is_closed_by_peer() {
                    return Poll::Ready(Err(RelayError::ClientLeft));
                }
                watching = false;
            }
            Poll::Pending
        });
        let Some(overdue) = &mut self.overdue else { return readable.await };
        loop {
            match Box::pin(tokio::time::timeout_at(overdue.at.into(), &mut readable)).await {
                Ok(readable) => return readable,
                Err(_) => overdue.pass()?,
            }
        }
    }
}

/// How far the client's answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Something stands in front of the rows: those that come with descriptions wait.
    Before,
    Rows,
    /// The client asks for no more rows.
    Over,
}

/// A merge under way.
pub(super) struct Merging {
    pub merger: Merger,
    pub buffers: Vec<Buffer>,
    pub replies: Replies,
    /// For the client.
    pub out: Vec<u8>,
    /// What Describe of the statement is answered with.
    statement: Vec<u8>,
    /// By shard: it has described its rows.
    described: Vec<bool>,
    /// Rows that came along with a description: of one read each.
    early: Vec<Vec<u8>>,
    stage: Stage,
    /// Shards that have ended, which the merger has not been told yet.
    ended: Vec<bool>,
    /// What the client awaits before rows: an error of a shard that has got so far comes behind it.
    front: SmallVec<[Step; 2]>,
}

impl Merging {
    pub fn new(merger: Merger, shards: usize) -> Merging {
        Merging {
            merger,
            buffers: (0..shards).map(|_| Buffer::default()).collect(),
            replies: Replies::default(),
            out: Vec::new(),
            statement: Vec::new(),
            described: vec![false; shards],
            early: vec![Vec::new(); shards],
            stage: Stage::Before,
            ended: vec![false; shards],
            front: SmallVec::new(),
        }
    }

    pub fn is_described(&self) -> bool {
        !self.described.contains(&false)
    }

    /// Which shards to read from: those without a description, then those whose rows are needed; in the end
    /// those that still have something to say.
    fn wanted(&self, team: &[Held]) -> SmallVec<[bool; 8]> {
        if !self.is_described() {
            return self.described.iter().map(|it| !it).collect();
        }
        let owes: SmallVec<[bool; 8]> = team.iter().map(|it| !it.lease.pipeline.is_drained()).collect();
        let needed = |(index, owes): (usize, &bool)| *owes && self.merger.wants_rows(index);
        let needed: SmallVec<[bool; 8]> = owes.iter().enumerate().map(needed).collect();
        if needed.contains(&true) { needed } else { owes }
    }

    /// Takes what a shard has sent. `ended`: no more rows come of it.
    pub fn take(&mut self, index: usize, input: &[u8], ended: bool) -> Result<(), Refusal> {
        for range in std::mem::take(&mut self.replies.descriptions) {
            self.merger.describe(index, &input[range])?;
            self.described[index] = true;
        }
        let rows = std::mem::take(&mut self.replies.collected);
        for range in rows {
            match self.stage {
                Stage::Before => self.early[index].extend_from_slice(&input[range]),
                Stage::Rows => self.feed(index, &input[range])?,
                Stage::Over => {}
            }
        }
        for piece in &self.replies.pieces {
            self.out.extend_from_slice(piece.bytes(input));
        }
        self.ended[index] |= ended && self.replies.error.is_none();
        if self.stage == Stage::Rows { self.tell_ends() } else { Ok(()) }
    }

    /// Rows may be written from here on: all shards have described them.
    pub fn open(&mut self) -> Result<(), Refusal> {
        self.stage = Stage::Rows;
        for index in 0..self.early.len() {
            let rows = std::mem::take(&mut self.early[index]);
            self.feed(index, &rows)?;
        }
        self.tell_ends()
    }

    fn tell_ends(&mut self) -> Result<(), Refusal> {
        for index in 0..self.ended.len() {
            if std::mem::take(&mut self.ended[index]) {
                self.merger.end(index)?;
            }
        }
        Ok(())
    }

    fn feed(&mut self, index: usize, rows: &[u8]) -> Result<(), Refusal> {
        if !rows.is_empty() && !self.merger.is_done() {
            let through = self.merger.feed(index, rows)?;
            self.out.extend_from_slice(&rows[through]);
        }
        Ok(())
    }
}

/// Of what nobody asks for again.
pub(super) const PARSING: Expect = Expect::Parse(Origin::Keyway, StatementId::unnamed(u64::MAX));

pub(super) fn parse(server: &mut Backend, out: &mut Vec<u8>, text: &str, oids: &[u8]) {
    server.statements.set_unnamed(None);
    wire::parse_named(out, b"", text.as_bytes(), oids);
    server.pipeline.push(PARSING);
}

/// A shard's part of the statement, with the parameters that stand in it.
pub(super) async fn send(
    server: &mut Backend,
    asked: &Asked<'_>,
    query: &ShardQuery,
    oids: &[u32],
) -> Result<(), RelayError> {
    let params = &query.filled.params;
    let of = |it: &u16| usize::from(*it).saturating_sub(1);
    let oids = params.iter().flat_map(|it| oids.get(of(it)).copied().unwrap_or(0).to_be_bytes());
    let values: Vec<_> =
        params.iter().map(|it| asked.values.get(of(it)).copied().unwrap_or((0, None))).collect();
    let results = query.spec.shard_formats(query.columns, &asked.results);
    let results: Vec<i16> = results.0.iter().map(|it| i16::from(*it == Format::Binary)).collect();
    let mut out = Vec::new();
    server.pipeline.set_part(Part::COLLECTED);
    parse(server, &mut out, &query.filled.text, &oids.collect::<Vec<_>>());
    // What is more than a portal with a limit can show, no shard has to send: neither has it to be read away.
    let rows_max = asked.rows_max().and_then(|it| query.spec.rows_max_of_a_shard(it));
    let rows_max = rows_max.and_then(|it| u32::try_from(it).ok());
    wire::run_unnamed(&mut out, &values, &results, rows_max.unwrap_or(0));
    out.extend_from_slice(wire::SYNC);
    for expect in [Expect::Bind, Expect::Describe, Expect::Execute, Expect::Sync] {
        server.pipeline.push(expect);
    }
    server.stream.write_all(&out).await.map_err(RelayError::Server)
}

/// Says what a read of the server's socket means; how many bytes of it are dealt with.
pub(super) fn receive(
    server: &mut Backend,
    buffer: &Buffer,
    replies: &mut Replies,
) -> Result<usize, RelayError> {
    replies.next_buffer();
    Ok(server.pipeline.feed(buffer.filled(), replies)?)
}
