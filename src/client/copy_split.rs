//! COPY FROM STDIN into several shards. Records go to their shards as they come, in messages of many; a server that
//! does not keep up stops the client, as one alone would. Each shard copies in a transaction of its own, and all
//! are committed, or none is.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::copy::{CopyEnd, passed};
use super::hotspots::Counted;
use super::many::Team;
use super::merged::{Asked, Step, Stop, receive};
use super::relay::{Flow, RelayError};
use super::request::{Ran, Request};
use super::session::{End, Session};
use super::target_metrics::TargetMetrics;
use crate::base::{Access, Reason, Refusal, Role, ShardId, SqlState};
use crate::metrics::Live;
use crate::net::Buffer;
use crate::proto::{CopyReader, Expect, Found, LineMap, Origin, Part, Replies, UnitEnd};
use crate::route::{CopyOwner, CopyPlan, ShardSet, Subject};
use crate::wire::{self, CopyInput};

/// Of records that wait to be sent to one shard.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// A COPY that the client asks for.
pub(super) struct Copied<'a> {
    pub plan: Arc<CopyPlan>,
    pub asked: Asked<'a>,
}

/// ```text
///             record of nobody, client gives up             CopyFail to all
///   copying ───────────────────────────────────▶ stopped ────────────────────▶ rolled back
///      │                                            ▲                              ▲
///      │ CopyDone                                   │ error of a shard             │
///      ▼                                            │                              │
///   ending: CopyDone to all ────────────────────────┘                              │
///      │ all have done it                        first COMMIT fails                │
///      ▼                                                                           │
///   committing ────────────────────────────────────────────────────────────────────┘
/// ```
pub(super) struct CopySplit {
    plan: Arc<CopyPlan>,
    team: Team,
    reader: CopyReader,
    /// Data of the client from the start of a record on.
    pending: Vec<u8>,
    /// Of the client's CopyData message, what is still to come.
    rest: usize,
    /// CopyData messages for each shard, without their lengths.
    outs: Vec<Vec<u8>>,
    lines: Vec<LineMap>,
    replies: Replies,
    buffers: Vec<Buffer>,
    /// Shards whose error the client has been told.
    failed: Vec<usize>,
    /// Why no more records are taken, which the client has not been told.
    stopped: Option<Stopped>,
    /// The shard of the first record, where no other may follow.
    only: Option<usize>,
    /// The marker at the end of the data was there.
    is_over: bool,
    started: Instant,
    subject: Subject,
    flow: Flow,
    _live: Vec<Option<Live<TargetMetrics>>>,
}

struct Stopped {
    refusal: Refusal,
    /// A server has the record and may object to it in PostgreSQL's own words.
    asks: bool,
}

/// How the client has ended its data.
enum Last {
    Done,
    Fail(Vec<u8>),
    /// It has not.
    Open,
}

impl CopySplit {
    fn new(
        copied: &Copied<'_>,
        team: Team,
        request: &Request<'_>,
        live: Vec<Option<Live<TargetMetrics>>>,
    ) -> CopySplit {
        let count = team.len();
        CopySplit {
            plan: copied.plan.clone(),
            team,
            reader: CopyReader::new(copied.plan.form().clone()),
            pending: Vec::new(),
            rest: 0,
            outs: vec![Vec::new(); count],
            lines: vec![LineMap::default(); count],
            replies: Replies::default(),
            buffers: (0..count).map(|_| Buffer::default()).collect(),
            failed: Vec::new(),
            stopped: None,
            only: None,
            is_over: false,
            started: request.started,
            subject: request.subject.clone(),
            flow: Flow::sent_now(),
            _live: live,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.is_some() || !self.failed.is_empty()
    }

    fn is_waiting_for_data(&self, index: usize) -> bool {
        !self.team[index].lease.pipeline.is_drained()
    }

    /// The record, or what else the reader has found, is this shard's.
    fn append(&mut self, index: usize, range: std::ops::Range<usize>) {
        let lines = self.reader.lines_of(&self.pending[range.clone()], self.lines[index].is_empty());
        let last = self.reader.lines();
        let out = &mut self.outs[index];
        if out.is_empty() {
            wire::begin_copy_data(out);
        }
        out.extend_from_slice(&self.pending[range]);
        self.lines[index].add(lines, last);
    }

    fn stop(&mut self, refusal: Refusal, asks: bool) {
        let context = format!("COPY {}, line {}", self.plan.table(), self.reader.lines().max(1));
        self.stopped = Some(Stopped { refusal: refusal.within(context), asks });
    }

    /// An error's or a notice's context with the line as the client counts.
    fn context(&self, index: usize, context: &str) -> Option<String> {
        let start = format!("COPY {}, ", self.plan.table());
        let at = context.match_indices(&start).map(|it| it.0).find(|it| {
            // At the start of a line of the context.
            *it == 0 || context.as_bytes()[it - 1] == b'\n'
        })?;
        let behind = at + start.len();
        let digits = behind + context[behind..].find(|it: char| it.is_ascii_digit())?;
        let end = context[digits..].find(|it: char| !it.is_ascii_digit());
        let end = end.map_or(context.len(), |it| digits + it);
        let line = self.lines[index].clients(context[digits..end].parse().ok()?, self.reader.lines());
        Some(match line {
            Some(line) => format!("{}{line}{}", &context[..digits], &context[end..]),
            None => format!("{}{}", context[..behind].trim_end_matches(", "), &context[end..]),
        })
    }
}

impl Session {
    /// Begins the COPY on each shard; from `Ran::CopyIn` on the client's data comes to `copy_split_in`.
    pub async fn start_copy(&mut self, request: &Request<'_>, copied: &Copied<'_>) -> Result<Ran, End> {
        let team = match self.assemble(&request.decision.shards, Role::Primary).await {
            Ok(it) => it,
            Err(refusal) => return Ok(Ran::Refused(refusal)),
        };
        self.hold_each(&team, copied.plan.is_for_every_shard()).await;
        let live = team.iter().map(|it| self.live(it.shard, it.role, Access::Write)).collect();
        if self.overdue.is_none() {
            self.overdue = self.overdue();
        }
        let mut copy = CopySplit::new(copied, team, request, live);
        match self.begin_copies(&mut copy, &copied.asked).await {
            Ok(()) if copy.failed.is_empty() => {
                self.split_copy = Some(Box::new(copy));
                Ok(Ran::CopyIn)
            }
            Ok(()) => self.end_copies(copy, Last::Open).await,
            Err(stop) => self.lose_copies(copy, stop).await,
        }
    }

    async fn begin_copies(&mut self, copy: &mut CopySplit, asked: &Asked<'_>) -> Result<(), Stop> {
        let mut out = Vec::new();
        for step in &asked.script {
            match step {
                Step::Parsed | Step::Bound | Step::Closed => self.put_done(*step, &mut out),
                Step::Statement => {
                    wire::parameter_description(&mut out, &[]);
                    out.extend_from_slice(wire::NO_DATA);
                }
                Step::Portal if !asked.is_query => out.extend_from_slice(wire::NO_DATA),
                Step::Portal => {}
                Step::Rows(_) => break,
            }
        }
        self.put(&out, &mut copy.flow).await?;
        let (begin, statement) = (self.begin_on_each(), copy.plan.statement(&asked.text));
        for (index, held) in copy.team.iter_mut().enumerate() {
            let mut out = Vec::new();
            wire::query(&mut out, &begin);
            wire::query(&mut out, &statement);
            let server = &mut *held.lease;
            server.pipeline.set_part(Part { describe: index == 0, ..Part::SILENT });
            server.pipeline.push(Expect::Query(Origin::Keyway));
            server.pipeline.push(Expect::Query(Origin::Client));
            server.statements.set_unnamed(None);
            server.stream.write_all(&out).await.map_err(RelayError::Server)?;
        }
        // The first one's word goes to the client, so it comes last.
        for index in (0..copy.team.len()).rev() {
            copy.replies.copy_in = false;
            while !copy.replies.copy_in && copy.is_waiting_for_data(index) {
                let mut servers = [&mut *copy.team[index].lease];
                self.wait_for(&mut servers, &[true]).await?;
                self.hear_copy(copy, index).await?;
            }
        }
        Ok(())
    }

    /// One read of what a shard has to say.
    async fn hear_copy(&mut self, copy: &mut CopySplit, index: usize) -> Result<(), Stop> {
        let server = &mut *copy.team[index].lease;
        let buffer = &mut copy.buffers[index];
        if server.stream.read(buffer).await.map_err(RelayError::Server)? == 0 {
            return Err(RelayError::ServerClosed.into());
        }
        let consumed = receive(server, buffer, &mut copy.replies)?;
        let told: Vec<u8> = copy
            .replies
            .pieces
            .iter()
            .flat_map(|it| it.bytes(copy.buffers[index].filled()).to_vec())
            .collect();
        let has_failed = copy.replies.error.is_some();
        copy.flow.note_error(copy.buffers[index].filled(), &copy.replies);
        copy.buffers[index].consume(consumed);
        let told = wire::map_contexts(&told, |it| copy.context(index, it));
        if has_failed {
            copy.failed.push(index);
        }
        self.put(&told, &mut copy.flow).await?;
        Ok(())
    }

    /// Takes the client's data to its end.
    pub async fn copy_split_in(
        &mut self,
        mut copy: Box<CopySplit>,
        buffer: &mut Buffer,
    ) -> Result<CopyEnd, End> {
        let is_extended = std::mem::take(&mut self.unsynced);
        let fed = self.feed_copies(&mut copy, buffer).await;
        let mut rest = copy.rest;
        let ran = match fed {
            Ok(last) => self.end_copies(*copy, last).await?,
            Err(stop) => self.lose_copies(*copy, stop).await?,
        };
        // The end of a message that nobody wants is no message.
        while rest > 0 {
            let count = rest.min(buffer.filled().len());
            buffer.consume(count);
            rest -= count;
            if rest > 0 && self.stream.read(buffer).await.map_err(|_| End::Left)? == 0 {
                return Err(End::Left);
            }
        }
        match ran {
            Ran::Refused(refusal) if is_extended => {
                self.refuse_group(refusal, UnitEnd::Flush).await?;
            }
            Ran::Refused(refusal) => self.refuse_simple(refusal).await?,
            // It is past its error, the client is not before its Sync.
            ran if is_extended => self.skipping = ran.has_failed(),
            _ => self.say_ready().await?,
        }
        self.tell_copied();
        Ok(CopyEnd::Open)
    }

    async fn feed_copies(&mut self, copy: &mut CopySplit, buffer: &mut Buffer) -> Result<Last, Stop> {
        loop {
            if copy.is_stopped() {
                return Ok(Last::Open);
            }
            if copy.rest > 0 && !buffer.is_empty() {
                let count = copy.rest.min(buffer.filled().len());
                copy.pending.extend_from_slice(&buffer.filled()[..count]);
                buffer.consume(count);
                copy.rest -= count;
                self.sort_records(copy, false);
                for index in 0..copy.team.len() {
                    if copy.outs[index].len() >= OUT_BYTES_MAX {
                        self.flush_copy(copy, index).await?;
                    }
                }
                continue;
            }
            let input =
                if copy.rest > 0 { None } else { wire::copy_input(buffer.filled()).map_err(malformed)? };
            let Some((input, length)) = input else {
                for index in 0..copy.team.len() {
                    self.flush_copy(copy, index).await?;
                }
                self.wait_for_copy_data(copy, buffer).await?;
                continue;
            };
            let last = match input {
                CopyInput::Data(bytes) => {
                    copy.rest = bytes;
                    None
                }
                CopyInput::Skip => None,
                CopyInput::Done => Some(Last::Done),
                CopyInput::Fail(why) => Some(Last::Fail(why.to_vec())),
                CopyInput::Terminate => return Err(RelayError::ClientLeft.into()),
                CopyInput::Other(_) => return Err(malformed(wire::BodyError)),
            };
            buffer.consume(length);
            if let Some(last) = last {
                self.sort_records(copy, matches!(last, Last::Done));
                return Ok(last);
            }
        }
    }

    /// Gives each whole record of what is pending to its shard. `is_all`: so is what is left.
    fn sort_records(&self, copy: &mut CopySplit, is_all: bool) {
        let mut start = 0;
        while copy.stopped.is_none() && !copy.is_over {
            let found = match copy.reader.next(&copy.pending[start..], is_all) {
                Ok(it) => it,
                Err(refusal) => return copy.stop(refusal, false),
            };
            match found {
                Found::More => break,
                Found::Broken => {
                    copy.append(0, start..copy.pending.len());
                    let refusal = Refusal::new(Reason::Protocol, SqlState("22P04"), "malformed COPY data");
                    return copy.stop(refusal, true);
                }
                Found::Head(end) | Found::End(end) => {
                    for index in 0..copy.team.len() {
                        copy.append(index, start..start + end);
                    }
                    copy.is_over = matches!(found, Found::End(_));
                    start += end;
                }
                Found::Record(end) => {
                    self.sort_record(copy, start..start + end);
                    start += end;
                }
            }
        }
        if copy.is_over {
            start = copy.pending.len();
        }
        copy.pending.drain(..start);
        if copy.pending.len() > self.shared.limits.unit.message_bytes_max {
            let message = "a row of COPY data is longer than message_bytes_max";
            copy.stop(Refusal::new(Reason::Limit, SqlState::PROGRAM_LIMIT_EXCEEDED, message), false);
        }
    }

    fn sort_record(&self, copy: &mut CopySplit, range: std::ops::Range<usize>) {
        let router = &self.database.router;
        let fields = copy.reader.fields(&copy.pending[range.clone()], copy.plan.fields());
        let owner = router.copy_owner(&copy.plan, &fields, copy.reader.is_binary(), self.utc);
        match owner {
            CopyOwner::Every => {
                for index in 0..copy.team.len() {
                    copy.append(index, range.clone());
                }
            }
            CopyOwner::Shard(shard) => {
                let Some(index) = copy.team.iter().position(|it| it.shard == shard) else { return };
                let first = *copy.only.get_or_insert(index);
                if first != index && !router.writes_in_one_phase() {
                    return copy.stop(several(copy.plan.table()), false);
                }
                copy.append(index, range);
            }
            // Whether it is one for PostgreSQL, a server says.
            CopyOwner::Unknown(refusal) => {
                let index = copy.only.unwrap_or(0);
                copy.append(index, range);
                copy.only = Some(index);
                copy.stop(refusal, true);
            }
        }
    }

    /// Sends a shard what waits for it. One that has much to say takes nothing until it is heard.
    async fn flush_copy(&mut self, copy: &mut CopySplit, index: usize) -> Result<(), Stop> {
        let mut out = std::mem::take(&mut copy.outs[index]);
        if out.is_empty() || !copy.is_waiting_for_data(index) {
            return Ok(());
        }
        wire::end_copy_data(&mut out);
        let mut at = 0;
        while at < out.len() {
            match copy.team[index].lease.stream.write_or_hear(&out[at..]).await {
                Ok(Some(count)) => at += count,
                // A server that has gone says so on read, with its reason.
                Ok(None) | Err(_) => self.hear_copy(copy, index).await?,
            }
        }
        out.clear();
        copy.outs[index] = out;
        Ok(())
    }

    /// Until the client has sent more, or a shard has spoken, which it does only where something is wrong.
    async fn wait_for_copy_data(&mut self, copy: &mut CopySplit, buffer: &mut Buffer) -> Result<(), Stop> {
        let overdue = self.overdue.as_ref().map(|it| it.at);
        let team = &mut copy.team;
        let spoken = poll_fn(|cx| {
            let spoken = team.iter_mut().position(|it| it.lease.stream.has_news(cx));
            spoken.map_or(Poll::Pending, Poll::Ready)
        });
        let speaker = tokio::select! {
            biased;
            index = spoken => Some(index),
            read = self.stream.read(buffer) => match read {
                Ok(count) if count > 0 => return Ok(()),
                _ => return Err(RelayError::ClientLeft.into()),
            },
            () = passed(overdue), if overdue.is_some() => None,
        };
        match speaker {
            Some(index) => self.hear_copy(copy, index).await,
            None => self.overdue.as_mut().map_or(Ok(()), |it| it.pass()).map_err(Stop::from),
        }
    }

    /// Ends the COPY on each shard, and commits it on all of them or on none.
    async fn end_copies(&mut self, mut copy: CopySplit, last: Last) -> Result<Ran, End> {
        let ended = match &copy.stopped {
            Some(_) => self.ask_for_error(&mut copy).await,
            None => self.end_data(&mut copy, &last).await,
        };
        if let Err(stop) = ended {
            return self.lose_copies(copy, stop).await;
        }
        self.count_copies(&copy);
        let CopySplit { mut team, failed, stopped, plan, replies, .. } = copy;
        if let (Some(stopped), true) = (stopped, failed.is_empty()) {
            self.roll_back_each(&mut team).await;
            self.dismiss(team).await;
            return Ok(Ran::Refused(stopped.refusal));
        }
        if matches!(last, Last::Fail(_)) {
            self.roll_back_each(&mut team).await;
            self.dismiss(team).await;
            return Ok(Ran::Unready { failed: true });
        }
        let failed: Vec<ShardId> = failed.iter().map(|it| team[*it].shard).collect();
        let mut end = Vec::new();
        let tag = if plan.fields().is_empty() { replies.shown_tag() } else { replies.summed_tag() };
        wire::command_complete(&mut end, &tag);
        self.end_on_each(team, &failed, &end).await
    }

    async fn end_data(&mut self, copy: &mut CopySplit, last: &Last) -> Result<(), Stop> {
        for index in 0..copy.team.len() {
            self.flush_copy(copy, index).await?;
        }
        let mut end = Vec::new();
        match last {
            Last::Done if copy.failed.is_empty() => wire::copy_done(&mut end),
            Last::Fail(why) => wire::copy_fail(&mut end, why),
            _ => wire::copy_fail(&mut end, b"another shard has failed"),
        }
        self.tell_copies(copy, |_| true, &end).await
    }

    /// One server has the record that nobody could place, and says what it thinks of it.
    async fn ask_for_error(&mut self, copy: &mut CopySplit) -> Result<(), Stop> {
        let asked = copy.only.unwrap_or(0);
        if copy.stopped.as_ref().is_some_and(|it| it.asks) && copy.failed.is_empty() {
            self.flush_copy(copy, asked).await?;
            let mut end = Vec::new();
            wire::copy_done(&mut end);
            self.tell_copies(copy, |it| it == asked, &end).await?;
        }
        copy.replies.failed = true;
        let mut end = Vec::new();
        wire::copy_fail(&mut end, b"the data is not for several shards");
        self.tell_copies(copy, |_| true, &end).await
    }

    /// Sends these shards the end of their data and hears them out.
    async fn tell_copies(
        &mut self,
        copy: &mut CopySplit,
        told: impl Fn(usize) -> bool,
        end: &[u8],
    ) -> Result<(), Stop> {
        for index in (0..copy.team.len()).filter(|it| told(*it)) {
            if copy.is_waiting_for_data(index) {
                copy.team[index].lease.stream.write_all(end).await.map_err(RelayError::Server)?;
            }
        }
        for index in (0..copy.team.len()).filter(|it| told(*it)) {
            while copy.is_waiting_for_data(index) {
                let mut servers = [&mut *copy.team[index].lease];
                self.wait_for(&mut servers, &[true]).await?;
                self.hear_copy(copy, index).await?;
            }
        }
        Ok(())
    }

    fn count_copies(&mut self, copy: &CopySplit) {
        self.count_lock_wait(&copy.flow);
        let shards: ShardSet = copy.team.iter().map(|it| it.shard).collect();
        let (subject, started) = (&copy.subject, copy.started);
        let counted = Counted { subject, access: Access::Write, shards: &shards, keys: &[], started };
        let (rows, count) = (copy.replies.rows, copy.team.len());
        let whole = Flow { rows, ..copy.flow.share(0, 1) };
        for (index, held) in copy.team.iter().enumerate() {
            let flow = whole.share(index, count);
            let spent = self.count_done(&counted, held.shard, held.role, &flow, Instant::now());
            self.cost().add(spent, held.role, &flow);
        }
    }

    /// The connections are closed, which rolls back what they have.
    async fn lose_copies(&mut self, copy: CopySplit, stop: Stop) -> Result<Ran, End> {
        self.count_copies(&copy);
        match stop {
            Stop::Lost(error) => self.lose_team(copy.team, error).await,
            Stop::Refused(refusal) => Err(End::Fatal(refusal)),
            Stop::Told => Ok(Ran::Unready { failed: true }),
        }
    }
}

fn several(table: &str) -> Refusal {
    Refusal::unsupported(
        Reason::MultiShardWrite,
        format!("rows of COPY FROM STDIN into table \"{table}\" belong to several shards"),
        "copy the rows of each shard by themselves; with cross_shard_writes = \"one_phase\" each shard commits by \
         itself",
    )
}

fn malformed(error: wire::BodyError) -> Stop {
    Stop::Refused(Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, error.to_string()))
}
