//! Cursors over several shards. Each shard has a cursor of its own, under a name of Keyway's, from which it is asked for
//! batches of rows, as many as the merge of them needs: between two FETCHes nothing is under way, so that other
//! statements of the transaction use the same servers, and memory holds one batch of each shard.
//!
//! ```text
//!           DECLARE            first FETCH: formats of rows are known       an error while it is read
//!   (none) ────────▶ declared ─────────────────────────────────────▶ open ───────────────────────▶ failed
//!                       │ CLOSE, ROLLBACK TO a savepoint before it      │                              │
//!                       └──────────────────▶ (none) ◀───────────────────┴──────────────────────────────┘
//! ```
//! Names of all cursors of a database of several shards are kept, for FETCH to go where they are.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::abandon::quiet;
use super::enlisted::PortalHome;
use super::group::Group;
use super::hotspots::Counted;
use super::many::Team;
use super::merged::{Asked, Merging, OUT_BYTES_MAX, Reading, Step, Stop, malformed, parse, receive, send};
use super::relay::{Flow, RelayError};
use super::request::{Ran, Request};
use super::session::{End, Outcome, Session};
use super::settled::Settled;
use crate::backend::Backend;
use crate::base::{Access, Reason, Refusal, Role, ShardId, SqlState};
use crate::merge::{Budget, Format, Merger, Progress, ResultFormats};
use crate::metrics::Limit;
use crate::net::Buffer;
use crate::proto::{Expect, Part, Replies};
use crate::route::{CursorStatement, FetchRows, Kind, ShardQuery, ShardSet, Subject};
use crate::sql::Filled;
use crate::wire;

/// What a shard is asked for at once, about.
const BATCH_BYTES: u64 = 64 * 1024;
const BATCH_ROWS_MIN: u64 = 32;
const BATCH_ROWS_MAX: u64 = 1024;

/// By name, as PostgreSQL folds it.
#[derive(Default)]
pub(super) struct Cursors(Vec<Cursor>);

struct Cursor {
    name: String,
    /// The transaction's.
    number: u32,
    home: Home,
}

enum Home {
    On(ShardId),
    Merged(Box<MergedCursor>),
}

/// Where a cursor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CursorPlace {
    On(ShardId),
    Merged,
}

pub(super) struct MergedCursor {
    /// On the shards.
    server_name: String,
    shards: ShardSet,
    role: Role,
    query: ShardQuery,
    /// RowDescription of its rows as text.
    description: Vec<u8>,
    formats: CursorFormats,
    /// From the first FETCH on, with the formats of that.
    open: Option<(Merging, ResultFormats)>,
    batch_rows: u64,
    failed: bool,
}

/// A DECLARE of several shards.
pub(super) struct Declaring<'a> {
    pub reading: Reading<'a>,
    pub name: String,
    pub formats: CursorFormats,
}

/// In which formats a cursor gives its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CursorFormats {
    OfFetch,
    /// By DECLARE, whatever a FETCH has.
    Binary,
    /// It is a portal: PostgreSQL has both under one kind of name.
    OfBind(ResultFormats),
}

impl Cursors {
    fn find(&self, name: &str) -> Option<&Cursor> {
        self.0.iter().find(|it| it.name == name)
    }

    pub fn add_on(&mut self, shard: ShardId, name: &str, number: u32) {
        self.0.push(Cursor { name: name.to_owned(), number, home: Home::On(shard) });
    }

    /// Its number, if it is there.
    pub fn remove(&mut self, name: &str) -> Option<u32> {
        let at = self.0.iter().rposition(|it| it.name == name)?;
        Some(self.0.remove(at).number)
    }

    fn take(&mut self, name: &str) -> Option<Cursor> {
        let at = self.0.iter().position(|it| it.name == name)?;
        Some(self.0.remove(at))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Those whose DECLARE stands.
    pub fn retain(&mut self, stands: impl Fn(u32) -> bool) {
        self.0.retain(|it| stands(it.number));
    }
}

pub(super) fn exists(name: &str) -> Refusal {
    Refusal::new(Reason::Protocol, SqlState("42P03"), format!("cursor \"{name}\" already exists"))
}

fn too_many() -> Refusal {
    Refusal::new(Reason::Limit, SqlState("53400"), "too many open cursors over several shards")
        .hint("close those that are read, or raise limits.statements_max in the configuration of keyway")
}

/// It reaches a place where only what goes to servers can stand.
pub(super) fn not_alone(name: &str) -> Refusal {
    not_supported("use amid a pipeline", name)
}

fn not_supported(what: &str, name: &str) -> Refusal {
    Refusal::unsupported(
        Reason::MultiShardRead,
        format!("{what} of cursor \"{name}\" over several shards is not supported"),
        "fetch forward, or restrict the query to one shard with its shard key",
    )
}

impl Session {
    /// Of a cursor that is there.
    pub fn cursor_place(&self, name: &str) -> Option<CursorPlace> {
        let cursor = self.others.cursors()?.find(name).filter(|it| self.transaction.has_cursor(it.number))?;
        Some(match cursor.home {
            Home::On(shard) => CursorPlace::On(shard),
            Home::Merged(_) => CursorPlace::Merged,
        })
    }

    /// ROLLBACK TO has undone some.
    pub fn retain_cursors(&mut self) {
        if self.others.cursors().is_some() {
            let transaction = &self.transaction;
            self.others.cursors_mut().retain(|it| transaction.has_cursor(it));
        }
    }

    /// Before a DECLARE: its name must be free on every shard.
    pub fn check_cursor_name(&self, kind: &Kind, decided: &[ShardId]) -> Result<(), Refusal> {
        let Kind::Cursor(CursorStatement::Declare { name, .. }) = kind else { return Ok(()) };
        match self.cursor_place(name) {
            // The server itself says so.
            Some(CursorPlace::On(shard)) if decided == [shard] => Ok(()),
            Some(_) => Err(exists(name)),
            None => Ok(()),
        }
    }

    /// Whether Keyway itself fetches from the cursor that the statement names.
    pub fn is_merged_cursor(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Cursor(CursorStatement::Declare { .. }) => false,
            Kind::Cursor(it) => {
                it.name().is_some_and(|it| self.cursor_place(it) == Some(CursorPlace::Merged))
            }
            _ => false,
        }
    }

    /// Takes note of what a server has done with cursors of its own.
    pub fn take_cursor(&mut self, statement: &CursorStatement) {
        if self.transaction.is_idle() || self.floors.len() == 1 {
            return;
        }
        match statement {
            CursorStatement::Declare { name, .. } => {
                // One of several shards is there already.
                if self.cursor_place(name) != Some(CursorPlace::Merged)
                    && let Some(shard) = self.held.as_ref().map(|it| it.shard)
                {
                    self.forget_cursor(name);
                    let number = self.transaction.declare();
                    self.others.cursors_mut().add_on(shard, name, number);
                }
            }
            CursorStatement::Fetch { .. } => {}
            CursorStatement::Close { name } => self.forget_cursor(name),
            CursorStatement::CloseAll => {
                self.others.cursors_mut().clear();
                self.transaction.close_cursors();
                self.others.tell("CLOSE ALL");
            }
        }
    }

    /// One of the name is not there any more, if it was.
    fn forget_cursor(&mut self, name: &str) {
        if let Some(number) = self.others.cursors_mut().remove(name) {
            self.transaction.close_cursor(number);
        }
    }

    /// DECLARE on each shard.
    pub async fn run_declare(
        &mut self,
        request: &Request<'_>,
        declaring: &Declaring<'_>,
    ) -> Result<Ran, End> {
        if self.others.cursors().is_some_and(|it| it.0.len() >= self.shared.limits.statements_max) {
            self.shared.hits.hit(Limit::Statements);
            return Ok(Ran::Refused(too_many()));
        }
        let mut team = match self.assemble_readers(request).await {
            Ok(it) => it,
            Err(refusal) => return Ok(Ran::Refused(refusal)),
        };
        let _live: Vec<_> = team.iter().map(|it| self.live(it.shard, it.role, request.access)).collect();
        self.overdue = self.overdue();
        let (mut flow, mut buffers) = (Flow::sent_now(), Vec::new());
        let declared = self.declare_on_each(&mut team, declaring, &mut buffers, &mut flow).await;
        let now = Instant::now();
        for (index, held) in team.iter().enumerate() {
            self.count(request, held.shard, held.role, &flow.share(index, team.len()), now);
        }
        match declared {
            Ok(cursor) => {
                self.stand_down(team, false);
                self.forget_cursor(&declaring.name);
                let number = self.transaction.declare();
                let home = Home::Merged(cursor);
                self.others.cursors_mut().0.push(Cursor { name: declaring.name.clone(), number, home });
                Ok(Ran::Unready { failed: false })
            }
            Err(stop) => self.stop_cursor(team, buffers, stop).await,
        }
    }

    /// A cursor on each server, and what the client awaits of that.
    async fn declare_on_each(
        &mut self,
        team: &mut Team,
        declaring: &Declaring<'_>,
        buffers: &mut Vec<Buffer>,
        flow: &mut Flow,
    ) -> Result<Box<MergedCursor>, Stop> {
        let asked = declaring.reading.asked();
        let first = team.first_mut().ok_or(RelayError::ServerClosed)?;
        let Settled { described, query, basis } = self.settle_read(first, &declaring.reading, flow).await?;
        let server_name = format!("keyway_cursor_{}", self.transaction.next_cursor());
        let text = format!("DECLARE {server_name} NO SCROLL CURSOR FOR {}", query.filled.text);
        let declare = ShardQuery {
            filled: Filled { text, params: query.filled.params.clone() },
            columns: 0,
            spec: Arc::default(),
        };
        for held in team.iter_mut() {
            send(&mut held.lease, asked, &declare, &described.parameters).await?;
        }
        buffers.resize_with(team.len(), Buffer::default);
        self.hear_all(team, buffers, flow).await?;
        self.check_settled(basis, asked)?;
        let mut cursor = Box::new(MergedCursor {
            server_name,
            shards: team.iter().map(|it| it.shard).collect(),
            role: team.first().map_or(Role::Primary, |it| it.role),
            query,
            description: described.row,
            formats: declaring.formats.clone(),
            open: None,
            batch_rows: BATCH_ROWS_MIN,
            failed: false,
        });
        let told = match declaring.formats {
            CursorFormats::OfBind(_) => {
                self.tell_bound(&mut cursor, team, asked, &described.parameters, flow).await
            }
            _ => self.tell_declared(asked, &described.parameters, flow).await,
        };
        if let (Err(_), Some((merging, _))) = (&told, &mut cursor.open) {
            *buffers = std::mem::take(&mut merging.buffers);
        }
        told.map(|()| cursor)
    }

    async fn tell_declared(
        &mut self,
        asked: &Asked<'_>,
        parameters: &[u32],
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let mut out = Vec::new();
        for step in &asked.script {
            match step {
                Step::Parsed | Step::Bound | Step::Closed => self.put_done(*step, &mut out),
                Step::Statement => {
                    wire::parameter_description(&mut out, parameters);
                    out.extend_from_slice(wire::NO_DATA);
                }
                Step::Portal if asked.is_query => {}
                Step::Portal => out.extend_from_slice(wire::NO_DATA),
                Step::Rows(_) => wire::command_complete(&mut out, "DECLARE CURSOR"),
            }
        }
        Ok(self.put(&out, flow).await?)
    }

    /// FETCH, MOVE or CLOSE of a cursor of several shards, by a Query.
    pub async fn query_cursor(&mut self, statement: &CursorStatement) -> Result<Outcome, End> {
        let (name, formats) = (statement.name().unwrap_or(""), ResultFormats::default());
        let told =
            Told { by: By::Statement(statement), script: &[Step::Portal, Step::Rows(0)], is_query: true };
        match self.run_cursor(name, &told, &formats).await? {
            Ran::Refused(refusal) => self.refuse(refusal).await,
            _ => {
                self.say_ready().await?;
                Ok(Outcome::Done)
            }
        }
    }

    /// The same by a group, whose only statement it is; `None`: it is for others.
    pub async fn group_cursor(&mut self, group: &Group<'_>) -> Result<Option<Outcome>, End> {
        let Some(statement) = group.cursor_statement(&self.database.router) else { return Ok(None) };
        if self.transaction.is_refused() || !self.is_merged_cursor(&Kind::Cursor(statement.clone())) {
            return Ok(None);
        }
        let Some(script) = group.cursor_script() else {
            let refusal = not_supported("a pipeline with other statements", statement.name().unwrap_or(""));
            return self.refuse_group(refusal, group.end).await.map(Some);
        };
        let formats = group.asked().map(|it| it.results).unwrap_or_default();
        self.named = 0;
        let told = Told { by: By::Statement(&statement), script: &script, is_query: false };
        let ran = self.run_cursor(statement.name().unwrap_or(""), &told, &formats).await?;
        self.end_cursor_group(group, ran).await.map(Some)
    }

    /// No server has an unfinished part of it.
    pub async fn end_cursor_group(&mut self, group: &Group<'_>, ran: Ran) -> Result<Outcome, End> {
        if let Ran::Refused(refusal) = ran {
            return self.refuse_group(refusal, group.end).await;
        }
        let failed = ran.has_failed();
        self.name_statements(group, if failed { self.named as usize } else { usize::MAX });
        if group.is_synced() {
            self.say_ready().await?;
        } else {
            self.skipping = failed;
        }
        Ok(Outcome::Done)
    }

    pub async fn run_cursor(
        &mut self,
        name: &str,
        told: &Told<'_>,
        formats: &ResultFormats,
    ) -> Result<Ran, End> {
        let found = self.others.cursors().and_then(|it| it.find(name));
        let Some(Cursor { home: Home::Merged(cursor), .. }) = found else {
            return Ok(Ran::Refused(malformed()));
        };
        if let Err(refusal) = check_told(cursor, name, told, formats) {
            return Ok(Ran::Refused(refusal));
        }
        let (shards, role) = (cursor.shards.clone(), cursor.role);
        let mut team = match self.enlist_team(&shards, role).await {
            Ok(it) => it,
            Err(refusal) => return Ok(Ran::Refused(refusal)),
        };
        // Out of its place while it is read: it must not be met half way.
        let taken = self.others.cursors_mut().take(name);
        let Some(Cursor { name, number, home: Home::Merged(mut cursor) }) = taken else {
            return Ok(Ran::Refused(malformed()));
        };
        let _live: Vec<_> = team.iter().map(|it| self.live(it.shard, it.role, Access::Read)).collect();
        self.overdue = self.overdue();
        let (started, mut flow) = (Instant::now(), Flow::default());
        let done = match told.by {
            By::Statement(it) => {
                self.tell_of_cursor(&mut cursor, &mut team, it, told, formats, &mut flow).await
            }
            By::Portal => self.tell_by_name(&mut cursor, &mut team, told.script, &mut flow).await,
        };
        let subject = &Subject::default();
        let counted = Counted { subject, access: Access::Read, shards: &shards, keys: &[], started };
        let now = Instant::now();
        for (index, held) in team.iter().enumerate() {
            self.count_done(&counted, held.shard, held.role, &flow.share(index, team.len()), now);
        }
        let closed = told.closes();
        if let Err(stop) = done {
            let buffers = cursor.open.take().map(|it| it.0.buffers).unwrap_or_default();
            cursor.failed = true;
            self.others.cursors_mut().0.push(Cursor { name, number, home: Home::Merged(cursor) });
            return self.stop_cursor(team, buffers, stop).await;
        }
        if closed {
            self.transaction.close_cursor(number);
        } else {
            self.others.cursors_mut().0.push(Cursor { name, number, home: Home::Merged(cursor) });
        }
        self.stand_down(team, false);
        Ok(Ran::Unready { failed: false })
    }

    async fn stop_cursor(
        &mut self,
        mut team: Team,
        mut buffers: Vec<Buffer>,
        stop: Stop,
    ) -> Result<Ran, End> {
        if let Stop::Lost(error) = stop {
            return self.lose_team(team, error).await;
        }
        buffers.resize_with(team.len(), Buffer::default);
        if quiet(&mut team, &mut buffers, self.shared.limits.timeouts.cancel).await {
            self.stand_down(team, true);
        } else {
            let _closed = self.cancel.slot().detach().await;
            super::many::cancel_all(team, &RelayError::ClientLeft);
            self.lose_others();
        }
        match stop {
            Stop::Refused(refusal) => Ok(Ran::Refused(refusal)),
            _ => Ok(Ran::Unready { failed: true }),
        }
    }

    async fn tell_of_cursor(
        &mut self,
        cursor: &mut MergedCursor,
        team: &mut Team,
        statement: &CursorStatement,
        told: &Told<'_>,
        formats: &ResultFormats,
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let Told { script, is_query, .. } = told;
        let (moves, rows) = match statement {
            CursorStatement::Fetch { moves, rows: FetchRows::Next(count), .. } => (*moves, *count),
            _ => (true, Some(0)),
        };
        let shows = !moves;
        // A Describe by itself opens nothing: the formats come with Bind.
        let opens = script.iter().any(|it| matches!(it, Step::Rows(_) | Step::Portal));
        if cursor.open.is_none() && opens && matches!(statement, CursorStatement::Fetch { .. }) {
            self.open_cursor(cursor, team, formats, flow).await?;
        }
        let mut out = Vec::new();
        for step in *script {
            match step {
                Step::Parsed | Step::Bound | Step::Closed => self.put_done(*step, &mut out),
                Step::Statement => {
                    wire::parameter_description(&mut out, &[]);
                    out.extend_from_slice(if shows { &cursor.description } else { wire::NO_DATA });
                }
                Step::Portal if shows => out.extend_from_slice(cursor.row_description()),
                Step::Portal if *is_query => {}
                Step::Portal => out.extend_from_slice(wire::NO_DATA),
                Step::Rows(_) => {
                    self.put(&out, flow).await?;
                    out.clear();
                    let tag = match statement {
                        CursorStatement::Close { .. } => {
                            self.close_on_each(cursor, team, flow).await?;
                            "CLOSE CURSOR".to_owned()
                        }
                        _ => {
                            let count = self.fetch(cursor, team, rows, shows, flow).await?;
                            format!("{} {count}", if shows { "FETCH" } else { "MOVE" })
                        }
                    };
                    wire::command_complete(&mut out, &tag);
                }
            }
        }
        Ok(self.put(&out, flow).await?)
    }

    /// The first batch of each shard, which is described with it.
    pub async fn open_cursor(
        &mut self,
        cursor: &mut MergedCursor,
        team: &mut Team,
        formats: &ResultFormats,
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let formats = match &cursor.formats {
            CursorFormats::OfFetch => formats.clone(),
            CursorFormats::Binary => ResultFormats(vec![Format::Binary]),
            CursorFormats::OfBind(formats) => formats.clone(),
        };
        let budget = Budget { memory_bytes_max: self.shared.limits.merge_bytes_max, hash_seed: self.entropy };
        let merger = Merger::new(cursor.query.spec.clone(), team.len(), formats.clone(), budget);
        cursor.open = Some((Merging::new(merger, team.len()), formats));
        let all: SmallVec<[bool; 8]> = team.iter().map(|_| true).collect();
        self.next_batches(cursor, team, &all, flow).await?;
        let Some((merging, _)) = &mut cursor.open else { return Err(malformed().into()) };
        if !merging.is_described() {
            return Err(malformed().into());
        }
        Ok(())
    }

    /// Gives the client so many rows, or moves past them; how many there were.
    pub async fn fetch(
        &mut self,
        cursor: &mut MergedCursor,
        team: &mut Team,
        count: Option<u64>,
        shows: bool,
        flow: &mut Flow,
    ) -> Result<u64, Stop> {
        let mut before = None;
        loop {
            let Some((merging, _)) = &mut cursor.open else { return Err(malformed().into()) };
            let first = *before.get_or_insert(merging.merger.rows());
            // Rows that pass through cannot be held back, nor dropped.
            merging.merger.pause_at(Some(count.map_or(u64::MAX, |it| first.saturating_add(it))));
            merging.open()?;
            let progress = merging.merger.pull(&mut merging.out, OUT_BYTES_MAX)?;
            if !shows {
                merging.out.clear();
            }
            if merging.out.len() >= OUT_BYTES_MAX || !matches!(progress, Progress::NeedRows) {
                self.put(&merging.out, flow).await?;
                merging.out.clear();
            }
            match progress {
                Progress::Done | Progress::Paused => return Ok(merging.merger.rows() - first),
                Progress::OutFull => {}
                Progress::NeedRows => {
                    let wanted = (0..team.len()).map(|it| merging.merger.wants_rows(it)).collect();
                    self.next_batches(cursor, team, &wanted, flow).await?;
                }
            }
        }
    }

    /// One more batch of each shard that is wanted.
    async fn next_batches(
        &mut self,
        cursor: &mut MergedCursor,
        team: &mut Team,
        wanted: &SmallVec<[bool; 8]>,
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let batch_rows = cursor.batch_rows;
        let text = format!("FETCH FORWARD {batch_rows} FROM {}", cursor.server_name);
        let Some((merging, formats)) = &mut cursor.open else { return Err(malformed().into()) };
        let results = cursor.query.spec.shard_formats(cursor.query.columns, formats);
        let results: Vec<i16> = results.0.iter().map(|it| i16::from(*it == Format::Binary)).collect();
        for (held, _) in team.iter_mut().zip(wanted).filter(|it| *it.1) {
            ask(&mut held.lease, &text, &results).await?;
        }
        let (mut bytes, mut count) = (0, 0);
        loop {
            let owes: SmallVec<[bool; 8]> = team.iter().map(|it| !it.lease.pipeline.is_drained()).collect();
            if !owes.contains(&true) {
                break;
            }
            let mut servers: SmallVec<[&mut Backend; 8]> = team.iter_mut().map(|it| &mut *it.lease).collect();
            let index = self.wait_for(&mut servers, &owes).await?;
            drop(servers);
            let server = &mut *team[index].lease;
            let mut buffer = std::mem::take(&mut merging.buffers[index]);
            if server.stream.read(&mut buffer).await.map_err(RelayError::Server)? == 0 {
                return Err(RelayError::ServerClosed.into());
            }
            merging.replies.tag.clear();
            let consumed = receive(server, &buffer, &mut merging.replies)?;
            bytes += merging.replies.collected.iter().map(|it| it.len()).sum::<usize>();
            // CommandComplete is among what has come.
            let rows = Some(&merging.replies.tag).filter(|it| !it.is_empty());
            let rows = rows.and_then(|it| wire::rows_of(it));
            count += rows.unwrap_or(0);
            let taken = merging.take(index, buffer.filled(), rows.is_some_and(|it| it < batch_rows));
            flow.count_error(buffer.filled(), &merging.replies);
            buffer.consume(consumed);
            merging.buffers[index] = buffer;
            taken?;
            // Notices and errors: rows come of `pull` alone.
            if !merging.out.is_empty() && merging.replies.error.is_some() {
                self.put(&merging.out, flow).await?;
                return Err(Stop::Told);
            }
        }
        self.put(&merging.out, flow).await?;
        merging.out.clear();
        cursor.batch_rows = next_batch(batch_rows, bytes as u64, count);
        Ok(())
    }

    /// Until every server has answered; their notices and errors are the client's.
    async fn hear_all(
        &mut self,
        team: &mut Team,
        buffers: &mut [Buffer],
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let mut replies = Replies::default();
        loop {
            let owes: SmallVec<[bool; 8]> = team.iter().map(|it| !it.lease.pipeline.is_drained()).collect();
            if !owes.contains(&true) {
                return Ok(());
            }
            let mut servers: SmallVec<[&mut Backend; 8]> = team.iter_mut().map(|it| &mut *it.lease).collect();
            let index = self.wait_for(&mut servers, &owes).await?;
            drop(servers);
            let (server, buffer) = (&mut *team[index].lease, &mut buffers[index]);
            if server.stream.read(buffer).await.map_err(RelayError::Server)? == 0 {
                return Err(RelayError::ServerClosed.into());
            }
            let consumed = receive(server, buffer, &mut replies)?;
            for piece in &replies.pieces {
                let bytes = piece.bytes(buffer.filled()).to_vec();
                self.put(&bytes, flow).await?;
            }
            flow.count_error(buffer.filled(), &replies);
            buffer.consume(consumed);
            if replies.error.is_some() {
                return Err(Stop::Told);
            }
        }
    }

    /// Where a Close is one of several messages, whose answer comes with theirs.
    pub async fn close_cursor(&mut self, name: &str) -> Result<Result<(), Refusal>, End> {
        let Some((shards, role)) = self.merged_place(name) else { return Ok(Ok(())) };
        let mut team = match self.enlist_team(&shards, role).await {
            Ok(it) => it,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let taken = self.others.cursors_mut().take(name);
        let Some(Cursor { number, home: Home::Merged(cursor), .. }) = taken else {
            self.stand_down(team, false);
            return Ok(Ok(()));
        };
        self.overdue = self.overdue();
        match self.close_on_each(&cursor, &mut team, &mut Flow::default()).await {
            Ok(()) => {
                self.stand_down(team, false);
                self.transaction.close_cursor(number);
                self.others.place_portal(name.as_bytes(), Some(PortalHome::Ended));
                Ok(Ok(()))
            }
            Err(stop) => match self.stop_cursor(team, Vec::new(), stop).await? {
                Ran::Refused(refusal) => Ok(Err(refusal)),
                _ => Ok(Err(malformed())),
            },
        }
    }

    /// Which servers a cursor of several shards needs.
    fn merged_place(&self, name: &str) -> Option<(ShardSet, Role)> {
        match &self.others.cursors()?.find(name)?.home {
            Home::Merged(it) => Some((it.shards.clone(), it.role)),
            Home::On(_) => None,
        }
    }

    pub async fn close_on_each(
        &mut self,
        cursor: &MergedCursor,
        team: &mut Team,
        flow: &mut Flow,
    ) -> Result<(), Stop> {
        let text = format!("CLOSE {}", cursor.server_name);
        for held in team.iter_mut() {
            ask(&mut held.lease, &text, &[]).await?;
        }
        let mut buffers: Vec<Buffer> = team.iter().map(|_| Buffer::default()).collect();
        match self.hear_all(team, &mut buffers, flow).await {
            // None of these fails on a server that is well.
            Err(Stop::Told) => Err(RelayError::ServerClosed.into()),
            heard => heard,
        }
    }
}

impl MergedCursor {
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub fn formats(&self) -> &CursorFormats {
        &self.formats
    }

    /// As the statement is described.
    pub fn described(&self) -> &[u8] {
        &self.description
    }

    /// In the formats of the FETCHes.
    pub fn row_description(&self) -> &[u8] {
        self.open.as_ref().map_or(&self.description, |it| it.0.merger.description())
    }
}

/// How a cursor is spoken of.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    Statement(&'a CursorStatement),
    /// Execute, Describe and Close of its name.
    Portal,
}

/// What a cursor is told, and what the client awaits of that.
pub(super) struct Told<'a> {
    pub by: By<'a>,
    pub script: &'a [Step],
    pub is_query: bool,
}

impl Told<'_> {
    fn closes(&self) -> bool {
        let runs = |it: &Step| matches!(it, Step::Rows(_));
        match self.by {
            By::Statement(CursorStatement::Close { .. }) => self.script.iter().any(runs),
            By::Statement(_) => false,
            By::Portal => self.script.contains(&Step::Closed),
        }
    }
}

async fn ask(server: &mut Backend, text: &str, results: &[i16]) -> Result<(), RelayError> {
    let mut out = Vec::new();
    server.pipeline.set_part(Part::COLLECTED);
    parse(server, &mut out, text, &[]);
    wire::run_unnamed(&mut out, &[], results, 0);
    out.extend_from_slice(wire::SYNC);
    for expect in [Expect::Bind, Expect::Describe, Expect::Execute, Expect::Sync] {
        server.pipeline.push(expect);
    }
    server.stream.write_all(&out).await.map_err(RelayError::Server)
}

/// How many rows to ask for, after a batch of `rows` with `bytes`.
fn next_batch(before: u64, bytes: u64, rows: u64) -> u64 {
    let fitting = BATCH_BYTES * rows.max(1) / bytes.max(1);
    if rows == 0 { before } else { fitting.clamp(1, BATCH_ROWS_MAX).min(before.saturating_mul(4)) }
}

fn check_told(
    cursor: &MergedCursor,
    name: &str,
    told: &Told<'_>,
    formats: &ResultFormats,
) -> Result<(), Refusal> {
    let script = told.script;
    if cursor.failed && !told.closes() {
        let message = format!("portal \"{name}\" cannot be run");
        return Err(Refusal::new(Reason::Protocol, SqlState("55000"), message));
    }
    let By::Statement(CursorStatement::Fetch { moves, rows, .. }) = told.by else { return Ok(()) };
    let FetchRows::Next(count) = rows else {
        return Err(not_supported("FETCH or MOVE other than forward", name));
    };
    let limited = |it: &Step| match it {
        Step::Rows(limit @ 1..) => count.is_none_or(|it| it >= *limit),
        _ => false,
    };
    if script.iter().any(limited) {
        return Err(not_supported("FETCH with a row limit of Execute", name));
    }
    let is_bound = script.iter().any(|it| matches!(it, Step::Rows(_) | Step::Portal));
    let first = match &cursor.formats {
        CursorFormats::OfFetch => cursor.open.as_ref().map(|it| &it.1),
        CursorFormats::Binary => None,
        CursorFormats::OfBind(formats) => Some(formats),
    };
    let differ = |it: &ResultFormats| (0..cursor.query.columns).any(|at| it.of(at) != formats.of(at));
    if is_bound && !moves && first.is_some_and(differ) {
        return Err(not_supported("FETCH in formats other than those of the first one", name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_about_as_many_bytes() {
        assert_eq!(next_batch(32, 32 * 8, 32), 128, "it grows step by step");
        assert_eq!(next_batch(1024, 1024 * 8, 1024), BATCH_ROWS_MAX);
        assert_eq!(next_batch(32, 32 << 20, 32), 1);
        assert_eq!(next_batch(64, 0, 0), 64, "nothing is known");
    }

    #[test]
    fn cursors_are_found_by_name() {
        let mut cursors = Cursors::default();
        cursors.add_on(ShardId(1), "a", 1);
        cursors.add_on(ShardId(0), "b", 2);
        assert_eq!((cursors.remove("a"), cursors.remove("a")), (Some(1), None));
        cursors.add_on(ShardId(2), "a", 3);
        assert_eq!(cursors.find("a").map(|it| it.number), Some(3));
        cursors.retain(|it| it != 3);
        assert!(cursors.find("a").is_none() && cursors.find("b").is_some());
        cursors.remove("b");
        assert!(cursors.0.is_empty());
    }
}
