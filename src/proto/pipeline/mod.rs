//! What one server still owes, oldest first, and so what each of its messages means. This alone
//! forwards, swallows or makes up a reply (DESIGN invariant 3), for one server or, through `Part`,
//! for each of many.

mod whole;

pub use whole::Whole;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use thiserror::Error;

use super::statements::StatementId;
use crate::sql::Moves;
use crate::wire::{self, BackendTag, TxStatus};

/// Who caused a request. Replies to Keyway's own are swallowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Client,
    Keyway,
}

/// One reply that is owed. An extended reply ends with its completion message, `Query` with
/// ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Query(Origin),
    /// A Query of ours that makes the server's settings the session's, in front of the client's. If it fails,
    /// nothing of what follows is the client's to see (`Replies::set_up_error`).
    SetUp,
    /// PREPARE under a name of ours, in front of a client's EXECUTE; the server then has the statement.
    Prepare(StatementId),
    /// ParseComplete; the server then has the statement.
    Parse(Origin, StatementId),
    /// A ParseComplete of ours, for a statement that this server has already.
    MadeParse(StatementId),
    Bind,
    /// RowDescription or NoData, for a statement behind a ParameterDescription.
    Describe,
    Execute,
    /// Execute of a PREPARE under a name of ours, by the client; the server then has the statement.
    ExecutePrepare(StatementId),
    Close(Origin),
    /// A CloseComplete of ours: closing a client's name leaves the shared statement alone.
    MadeClose,
    /// A CommandComplete of ours, these bytes: what was executed changes names of the client's alone.
    MadeExecute(&'static [u8]),
    Sync,
    /// A Sync of ours behind a Parse of ours, in front of a client's Query.
    OwnSync,
}

/// Which of a server's replies the client sees when several servers answer one statement. Errors are
/// seen once, whoever sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Completions of Parse, Bind and Close, and descriptions.
    pub describe: bool,
    pub rows: bool,
    pub complete: Complete,
    pub ready: bool,
    /// Rows of Execute and descriptions are for a merge to look at: `Replies::collected`, `Replies::descriptions`.
    pub collect: bool,
}

/// What becomes of CommandComplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    Forward,
    /// Forwarded with the rows of all parts so far added up.
    Sum,
    /// Kept in `Replies::tag`.
    Hold,
}

impl Part {
    pub const WHOLE: Part =
        Part { describe: true, rows: true, complete: Complete::Forward, ready: true, collect: false };
    pub const SILENT: Part =
        Part { describe: false, rows: false, complete: Complete::Hold, ready: false, collect: false };
    pub const COLLECTED: Part = Part { collect: true, ..Part::SILENT };
    /// All but the end of the answer, which is made up when every server has done its work.
    pub const UNFINISHED: Part = Part { describe: true, rows: true, ..Part::SILENT };

    /// Part `index` of `count` answers whose rows follow one another.
    pub fn of_rows(index: usize, count: usize) -> Part {
        let last = index + 1 == count;
        let complete = if last { Complete::Sum } else { Complete::Hold };
        Part { describe: index == 0, rows: true, complete, ready: last, collect: false }
    }

    /// Part `index` of `count` answers of which the last one speaks for all.
    pub fn of_turns(index: usize, count: usize) -> Part {
        if index + 1 == count { Part::WHOLE } else { Part::SILENT }
    }
}

/// A piece of the bytes for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the input, as they came.
    Input(Range<usize>),
    Made(&'static [u8]),
    Owned(Vec<u8>),
}

impl Piece {
    /// What to write; `input` as it was given to `feed`.
    pub fn bytes<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Piece::Input(range) => input.get(range.clone()).unwrap_or_default(),
            Piece::Made(bytes) => bytes,
            Piece::Owned(bytes) => bytes,
        }
    }
}

/// What one call of `feed` found. Reused from call to call; over several parts the sums stay.
#[derive(Debug, Default)]
pub struct Replies {
    /// For the client, in order; adjacent input is one piece.
    pub pieces: SmallVec<[Piece; 4]>,
    /// Replies of ours that come before the server's first: sent along with it.
    pub made: SmallVec<[Piece; 4]>,
    /// Statements that the server has from now on.
    pub prepared: SmallVec<[StatementId; 2]>,
    /// How many Parses, Closes, `ExecutePrepare`s and `MadeExecute`s of the client are done, before any error.
    pub named: usize,
    /// ParameterStatus messages of the client's own doing, as ranges of the input.
    pub parameters: SmallVec<[Range<usize>; 2]>,
    /// Rows that answer Keyway's own Query, as ranges of the input.
    pub own_rows: SmallVec<[Range<usize>; 1]>,
    /// Rows that answer an Execute of which the rows are collected, as ranges of the input.
    pub collected: SmallVec<[Range<usize>; 1]>,
    /// ParameterDescription, RowDescription and NoData likewise.
    pub descriptions: SmallVec<[Range<usize>; 1]>,
    /// The last ErrorResponse, as a range of the input.
    pub error: Option<Range<usize>>,
    /// ErrorResponse to `Expect::SetUp`: the server must not be used as if it were set up.
    pub set_up_error: Option<Vec<u8>>,
    /// The server waits for CopyData.
    pub copy_in: bool,
    /// Some part has sent an error to the client: later ones stay silent until the end.
    pub failed: bool,
    /// Rows of the command tags of all parts.
    pub rows: u64,
    /// Command tag of the last client command, without its zero byte.
    pub tag: SmallVec<[u8; 24]>,
    /// Name, type and format of the columns that the first part described.
    columns: Option<Vec<u8>>,
}

impl Replies {
    /// Forgets what belongs to one buffer; `named`, `failed`, `rows` and `tag` belong to the whole answer.
    pub fn next_buffer(&mut self) {
        self.pieces.clear();
        self.prepared.clear();
        self.parameters.clear();
        self.own_rows.clear();
        self.collected.clear();
        self.descriptions.clear();
        self.error = None;
    }

    /// The last command tag.
    pub fn shown_tag(&self) -> String {
        String::from_utf8_lossy(&self.tag).into_owned()
    }

    /// The last command tag with the rows of all parts.
    pub fn summed_tag(&self) -> String {
        with_rows(&self.shown_tag(), self.rows)
    }

    fn forward(&mut self, range: Range<usize>) {
        match self.pieces.last_mut() {
            Some(Piece::Input(last)) if last.end == range.start => last.end = range.end,
            _ => self.pieces.push(Piece::Input(range)),
        }
    }
}

/// A message that no request explains, or one that ends the connection: the server connection is
/// closed (DESIGN invariant 4).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unexpected {
    #[error("server sent message type 0x{tag:02x} where {want} was expected")]
    Message { tag: u8, want: &'static str },
    #[error("server sent a malformed message of type 0x{0:02x}")]
    Malformed(u8),
    #[error("server sent a message of {0} bytes, over message_bytes_max")]
    TooLong(usize),
    /// FATAL or PANIC: SQLSTATE and message.
    #[error("{1}")]
    Fatal(String, String),
    #[error("shards describe the result differently")]
    Columns,
}

/// ```text
///            push(request)                       feed: completion
///   drained ───────────────▶ owing ──────────────────────────────▶ drained
///                              │ ErrorResponse, no Sync owed yet      ▲
///                              ▼                                      │ ReadyForQuery
///                           skipping ── push(Sync) ──▶ owing [Sync] ──┘
/// ```
/// While `skipping` the server ignores everything up to Sync (manual, "Extended Query").
#[derive(Debug)]
pub struct Pipeline {
    owed: VecDeque<Expect>,
    skipping: bool,
    status: TxStatus,
    part: Part,
    /// Bytes of a message that is longer than the buffer, still to come, and whether they are forwarded.
    rest: usize,
    rest_forwarded: bool,
    muted: bool,
    parses: u64,
    /// What is owed for texts that are longer than the client's.
    moved: Vec<(Expect, Arc<Moves>)>,
    /// The server's process, and the id that its client knows itself by.
    known_as: (u32, u32),
    message_bytes_max: usize,
}

enum Verdict {
    Forward,
    Swallow,
}

impl Pipeline {
    pub fn new(message_bytes_max: usize) -> Pipeline {
        Pipeline {
            owed: VecDeque::new(),
            skipping: false,
            status: TxStatus::Idle,
            part: Part::WHOLE,
            rest: 0,
            rest_forwarded: false,
            muted: false,
            parses: 0,
            moved: Vec::new(),
            known_as: (0, 0),
            message_bytes_max,
        }
    }

    pub fn status(&self) -> TxStatus {
        self.status
    }

    /// Nothing is owed; in `skipping` only a Sync can bring more.
    pub fn is_drained(&self) -> bool {
        self.owed.is_empty() && self.rest == 0
    }

    /// The rows of an Execute may come next.
    pub fn is_executing(&self) -> bool {
        self.owed.front() == Some(&Expect::Execute)
    }

    /// No row comes any more of what is owed now.
    pub fn has_sent_rows(&self) -> bool {
        !self.owed.contains(&Expect::Execute)
    }

    /// The client has a part of a message of which the rest is still to come.
    pub fn is_amid_message(&self) -> bool {
        self.rest > 0 && self.rest_forwarded
    }

    /// Whether the connection may go to somebody else (DESIGN invariant 4).
    pub fn is_free(&self) -> bool {
        self.is_drained() && !self.skipping && self.status == TxStatus::Idle
    }

    /// An extended exchange without its Sync, so that the implicit transaction is open.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Sets which replies the client sees of what is pushed next.
    pub fn set_part(&mut self, part: Part) {
        self.part = part;
    }

    /// Whether the client is not to see notifications of this server, because it is told of them otherwise.
    pub fn mute_notifications(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// A notification from the server's own process `server` is one of `client`, by the id that it was given.
    pub fn know_as(&mut self, server: u32, client: u32) {
        self.known_as = (server, client);
    }

    /// How often the server was asked to prepare something since this was last asked.
    pub fn take_parses(&mut self) -> u64 {
        std::mem::take(&mut self.parses)
    }

    pub fn push(&mut self, expect: Expect) {
        match expect {
            Expect::Sync | Expect::OwnSync => self.skipping = false,
            // A Query too: only Sync ends it (`ignore_till_sync` in postgres.c).
            _ if self.skipping => return,
            _ => {}
        }
        if let Expect::Parse(..) | Expect::Prepare(_) | Expect::ExecutePrepare(_) = expect {
            self.parses += 1;
        }
        self.owed.push_back(expect);
    }

    /// An error in answer to `expect` has its place in a text into which Keyway has put something; until the next
    /// ReadyForQuery behind which nothing is owed.
    pub fn move_errors(&mut self, expect: Expect, moves: &Arc<Moves>) {
        self.moved.push((expect, moves.clone()));
    }

    /// Replies of ours that stand first in line need no message of the server.
    #[inline]
    pub fn release_made(&mut self, replies: &mut Replies) {
        let made =
            |it: &Expect| matches!(it, Expect::MadeParse(_) | Expect::MadeClose | Expect::MadeExecute(_));
        if self.owed.front().is_some_and(made) {
            self.make_replies(replies);
        }
    }

    fn make_replies(&mut self, replies: &mut Replies) {
        while let Some(expect) = self.owed.front().copied() {
            let (bytes, shown) = match expect {
                Expect::MadeParse(statement) => {
                    replies.prepared.push(statement);
                    (wire::PARSE_COMPLETE, self.part.describe)
                }
                Expect::MadeClose => (wire::CLOSE_COMPLETE, self.part.describe),
                Expect::MadeExecute(bytes) => (bytes, self.part.complete != Complete::Hold),
                _ => return,
            };
            self.owed.pop_front();
            replies.named += usize::from(!replies.failed);
            if shown && !replies.failed {
                replies.pieces.push(Piece::Made(bytes));
            }
        }
    }

    /// Walks the messages in `input` and returns how many bytes were dealt with; the rest is the
    /// start of a message whose body is needed whole, to be given again with more behind it.
    pub fn feed(&mut self, input: &[u8], replies: &mut Replies) -> Result<usize, Unexpected> {
        let mut at = self.feed_rest(input, replies);
        let mut before = None;
        while let Some(head) = wire::header(&input[at..]).map_err(|_| Unexpected::Malformed(input[at]))? {
            let tag = BackendTag(head.tag);
            let mut end = at + head.total;
            if end <= input.len() {
                // Where there are two rows there are more, and where there is one it pays for no look.
                if before.replace(tag) == Some(tag) && self.is_plain_row(tag) {
                    end += wire::run_bytes(&input[end..], head.tag);
                }
                match self.message(tag, input, at..end, replies)? {
                    Verdict::Forward => replies.forward(at..end),
                    Verdict::Swallow => {}
                }
                self.release_made(replies);
                at = end;
                continue;
            }
            if !self.is_plain_row(tag) {
                if head.total > self.message_bytes_max {
                    return Err(Unexpected::TooLong(head.total));
                }
                break;
            }
            self.rest_forwarded = matches!(self.row(tag, replies)?, Verdict::Forward);
            self.rest = head.total;
            at += self.feed_rest(&input[at..], &mut Replies::default());
            if self.rest_forwarded {
                replies.forward(end - head.total..at);
            }
            break;
        }
        Ok(at)
    }

    /// Nothing is done with it that is not done with those like it behind it, as none of them changes what is owed.
    #[inline]
    fn is_plain_row(&self, tag: BackendTag) -> bool {
        matches!(tag, BackendTag::DATA_ROW | BackendTag::COPY_DATA)
            && !self.part.collect
            && self.owed.front() != Some(&Expect::Query(Origin::Keyway))
    }

    fn feed_rest(&mut self, input: &[u8], replies: &mut Replies) -> usize {
        let count = self.rest.min(input.len());
        self.rest -= count;
        if count > 0 && self.rest_forwarded {
            replies.forward(0..count);
        }
        count
    }

    #[inline]
    fn message(
        &mut self,
        tag: BackendTag,
        input: &[u8],
        range: Range<usize>,
        replies: &mut Replies,
    ) -> Result<Verdict, Unexpected> {
        match tag {
            BackendTag::DATA_ROW if self.owed.front() == Some(&Expect::Query(Origin::Keyway)) => {
                replies.own_rows.push(range);
                Ok(Verdict::Swallow)
            }
            BackendTag::DATA_ROW if self.part.collect && self.is_executing() => {
                match replies.collected.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => replies.collected.push(range),
                }
                Ok(Verdict::Swallow)
            }
            BackendTag::DATA_ROW | BackendTag::COPY_DATA | BackendTag::COPY_DONE => self.row(tag, replies),
            BackendTag::READY_FOR_QUERY => self.ready(&input[range]),
            BackendTag::COMMAND_COMPLETE => self.complete(&input[range], replies),
            BackendTag::ROW_DESCRIPTION | BackendTag::NO_DATA | BackendTag::PARAMETER_DESCRIPTION => {
                if self.part.collect && self.is_clients() {
                    replies.descriptions.push(range.clone());
                }
                self.description(tag, &input[range], replies)
            }
            BackendTag::PARSE_COMPLETE | BackendTag::BIND_COMPLETE | BackendTag::CLOSE_COMPLETE => {
                self.extended(tag, replies)
            }
            BackendTag::EMPTY_QUERY | BackendTag::PORTAL_SUSPENDED | BackendTag::FUNCTION_RESULT => {
                self.end_of_execute(tag, replies)
            }
            BackendTag::COPY_IN | BackendTag::COPY_OUT => self.copy(tag, replies),
            BackendTag::ERROR => self.error(input, range, replies),
            BackendTag::PARAMETER_STATUS => {
                let forward = self.is_clients() && self.part.describe;
                if forward {
                    replies.parameters.push(range);
                }
                Ok(if forward { Verdict::Forward } else { Verdict::Swallow })
            }
            // What the client listens for comes at any moment, in the middle of Keyway's own too.
            BackendTag::NOTIFICATION => Ok(self.notification(&input[range], replies)),
            BackendTag::NOTICE => Ok(if self.is_clients() { Verdict::Forward } else { Verdict::Swallow }),
            BackendTag(tag) => Err(Unexpected::Message { tag, want: "a reply" }),
        }
    }

    fn notification(&self, message: &[u8], replies: &mut Replies) -> Verdict {
        let (server, client) = self.known_as;
        if self.muted {
            Verdict::Swallow
        } else if wire::notification(message).is_ok_and(|it| it.0 == server) {
            replies.pieces.push(Piece::Owned(wire::notification_of(message, client)));
            Verdict::Swallow
        } else {
            Verdict::Forward
        }
    }

    /// Whether what comes now answers a request of the client, or none (asynchronous messages).
    fn is_clients(&self) -> bool {
        !matches!(
            self.owed.front(),
            Some(
                Expect::SetUp
                    | Expect::Prepare(_)
                    | Expect::Query(Origin::Keyway)
                    | Expect::Parse(Origin::Keyway, _)
                    | Expect::Close(Origin::Keyway)
                    | Expect::OwnSync
            )
        )
    }

    fn shown(&self, wanted: bool, replies: &Replies) -> Verdict {
        if wanted && !replies.failed && self.is_clients() { Verdict::Forward } else { Verdict::Swallow }
    }

    #[inline]
    fn row(&self, tag: BackendTag, replies: &Replies) -> Result<Verdict, Unexpected> {
        match self.owed.front() {
            Some(Expect::Query(_) | Expect::SetUp | Expect::Execute) => {
                Ok(self.shown(self.part.rows, replies))
            }
            _ => Err(Unexpected::Message { tag: tag.0, want: "no row" }),
        }
    }

    fn ready(&mut self, message: &[u8]) -> Result<Verdict, Unexpected> {
        let status = wire::tx_status(message).map_err(|_| Unexpected::Malformed(message[0]))?;
        let first = self.owed.pop_front();
        if self.owed.is_empty() {
            self.moved.clear();
        }
        match first {
            Some(Expect::Query(Origin::Keyway) | Expect::SetUp | Expect::Prepare(_) | Expect::OwnSync) => {
                self.status = status;
                Ok(Verdict::Swallow)
            }
            Some(Expect::Query(Origin::Client) | Expect::Sync) => {
                self.status = status;
                Ok(if self.part.ready { Verdict::Forward } else { Verdict::Swallow })
            }
            _ => Err(Unexpected::Message { tag: message[0], want: "no ReadyForQuery" }),
        }
    }

    fn complete(&mut self, message: &[u8], replies: &mut Replies) -> Result<Verdict, Unexpected> {
        let shown = self.shown(true, replies);
        match self.owed.front() {
            Some(Expect::Query(_) | Expect::SetUp) => {}
            Some(Expect::Prepare(statement)) => replies.prepared.push(*statement),
            Some(Expect::Execute) => {
                self.owed.pop_front();
            }
            Some(Expect::ExecutePrepare(statement)) => {
                replies.prepared.push(*statement);
                replies.named += usize::from(!replies.failed);
                self.owed.pop_front();
            }
            _ => return Err(Unexpected::Message { tag: message[0], want: "no CommandComplete" }),
        }
        if matches!(shown, Verdict::Swallow) {
            return Ok(Verdict::Swallow);
        }
        let tag = wire::copied_tag(message);
        replies.tag = SmallVec::from_slice(tag);
        replies.rows += wire::rows_of(tag).unwrap_or(0);
        Ok(match self.part.complete {
            Complete::Forward => Verdict::Forward,
            Complete::Hold => Verdict::Swallow,
            Complete::Sum => {
                replies.pieces.push(Piece::Owned(summed(tag, replies.rows)));
                Verdict::Swallow
            }
        })
    }

    fn description(
        &mut self,
        tag: BackendTag,
        message: &[u8],
        replies: &mut Replies,
    ) -> Result<Verdict, Unexpected> {
        let shown = self.shown(self.part.describe, replies);
        let compared = self.part.complete != Complete::Forward && !self.part.collect && self.is_clients();
        match self.owed.front() {
            Some(Expect::Query(_) | Expect::SetUp) if tag == BackendTag::ROW_DESCRIPTION => {}
            Some(Expect::Describe) if tag == BackendTag::PARAMETER_DESCRIPTION => return Ok(shown),
            Some(Expect::Describe) => {
                self.owed.pop_front();
            }
            _ => return Err(Unexpected::Message { tag: tag.0, want: "no description" }),
        }
        if tag == BackendTag::ROW_DESCRIPTION && compared {
            same_columns(message, replies)?;
        }
        Ok(shown)
    }

    fn extended(&mut self, tag: BackendTag, replies: &mut Replies) -> Result<Verdict, Unexpected> {
        let shown = self.shown(self.part.describe, replies);
        match (self.owed.front().copied(), tag) {
            (Some(Expect::Parse(_, statement)), BackendTag::PARSE_COMPLETE) => {
                replies.prepared.push(statement);
            }
            (Some(Expect::Bind), BackendTag::BIND_COMPLETE) => {}
            (Some(Expect::Close(_)), BackendTag::CLOSE_COMPLETE) => {}
            (Some(_), _) => return Err(Unexpected::Message { tag: tag.0, want: "another reply" }),
            (None, _) => return Err(Unexpected::Message { tag: tag.0, want: "nothing" }),
        }
        let clients = matches!(
            self.owed.pop_front(),
            Some(Expect::Parse(Origin::Client, _) | Expect::Close(Origin::Client))
        );
        replies.named += usize::from(clients && !replies.failed);
        Ok(shown)
    }

    fn end_of_execute(&mut self, tag: BackendTag, replies: &mut Replies) -> Result<Verdict, Unexpected> {
        let shown = self.shown(self.part.complete == Complete::Forward, replies);
        match self.owed.front() {
            Some(Expect::Query(_)) => {}
            Some(Expect::Execute) => {
                self.owed.pop_front();
            }
            _ => return Err(Unexpected::Message { tag: tag.0, want: "no end of execution" }),
        }
        Ok(shown)
    }

    fn copy(&mut self, tag: BackendTag, replies: &mut Replies) -> Result<Verdict, Unexpected> {
        if !matches!(self.owed.front(), Some(Expect::Query(_) | Expect::Execute)) {
            return Err(Unexpected::Message { tag: tag.0, want: "no COPY" });
        }
        if tag == BackendTag::COPY_IN {
            replies.copy_in = true;
            // A server in copy-in mode ignores Sync (manual, "COPY Operations"): the one sent along
            // with Execute is never answered.
            if self.owed.front() == Some(&Expect::Execute) && self.owed.get(1) == Some(&Expect::Sync) {
                self.owed.remove(1);
            }
        }
        Ok(self.shown(self.part.describe || tag == BackendTag::COPY_OUT, replies))
    }

    fn error(
        &mut self,
        input: &[u8],
        range: Range<usize>,
        replies: &mut Replies,
    ) -> Result<Verdict, Unexpected> {
        let message = &input[range.clone()];
        let fields = wire::error_fields(message).map_err(|_| Unexpected::Malformed(message[0]))?;
        if matches!(fields.severity, b"FATAL" | b"PANIC") {
            let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
            return Err(Unexpected::Fatal(text(fields.state), text(fields.message)));
        }
        let front = self.owed.front();
        let moves = self.moved.iter().find(|it| Some(&it.0) == front);
        let moved = moves.and_then(|it| wire::map_position(message, |place| it.1.original(place)));
        match front {
            Some(Expect::SetUp) => {
                replies.set_up_error = Some(message.to_vec());
                replies.failed = true;
                self.part = Part::SILENT;
                return Ok(Verdict::Swallow);
            }
            Some(Expect::Query(_) | Expect::Prepare(_)) => {}
            Some(_) => {
                while self.owed.front().is_some_and(|it| !matches!(it, Expect::Sync | Expect::OwnSync)) {
                    self.owed.pop_front();
                }
                self.skipping = self.owed.is_empty();
            }
            None => return Err(Unexpected::Message { tag: message[0], want: "nothing" }),
        }
        if replies.failed {
            return Ok(Verdict::Swallow);
        }
        // The error of a prologue of ours (BEGIN, SET LOCAL) is the answer to the client's statement,
        // which then fails in the aborted transaction: that second error is swallowed.
        let ours = matches!(
            self.owed.front(),
            Some(Expect::Query(Origin::Keyway) | Expect::Prepare(_) | Expect::OwnSync)
        );
        replies.failed = self.part != Part::WHOLE || ours;
        replies.error = Some(range);
        let Some(moved) = moved else { return Ok(Verdict::Forward) };
        replies.pieces.push(Piece::Owned(moved));
        Ok(Verdict::Swallow)
    }
}

/// `SELECT 3` with the count replaced.
fn with_rows(tag: &str, rows: u64) -> String {
    match tag.rsplit_once(' ') {
        Some((verb, count)) if count.parse::<u64>().is_ok() => format!("{verb} {rows}"),
        _ => tag.to_owned(),
    }
}

fn summed(tag: &[u8], rows: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::command_complete(&mut out, &with_rows(&String::from_utf8_lossy(tag), rows));
    out
}

/// Rows of two shards may follow one another only when their columns are the same.
fn same_columns(message: &[u8], replies: &mut Replies) -> Result<(), Unexpected> {
    let shapes = wire::column_shapes(message).map_err(|_| Unexpected::Malformed(message[0]))?;
    let mut bytes = Vec::new();
    for (name, type_oid, format) in shapes {
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(&type_oid.to_be_bytes());
        bytes.extend_from_slice(&format.to_be_bytes());
    }
    match &replies.columns {
        Some(first) if *first != bytes => Err(Unexpected::Columns),
        Some(_) => Ok(()),
        None => {
            replies.columns = Some(bytes);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
