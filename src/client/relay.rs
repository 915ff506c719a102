//! From one server to the client: headers are looked at, bodies forwarded from the buffer they were
//! received in (DESIGN D1). No buffer is held while nothing is in flight.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::encoding;
use super::request::Renewable;
use super::timeouts::Overdue;
use crate::backend::{Backend, IN_HOT_STANDBY};
use crate::net::{Buffer, BufferStock, Stream, Tie};
use crate::proto::{Part, Piece, Replies, StatementId, Unexpected};
use crate::wire;

/// Why the relay stopped without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing is owed any more.
    Drained,
    /// The server waits for the client's COPY data.
    CopyIn,
    /// A replica refused the read in a way that another server would not, and the client has seen
    /// nothing of it.
    Retry,
    /// The server's statement is of a table as it was, and the client has seen nothing: it did not run.
    Renew,
}

#[derive(Debug, Error)]
pub enum RelayError {
    #[error("client left")]
    ClientLeft,
    #[error("server connection failed: {0}")]
    Server(io::Error),
    #[error("server closed the connection")]
    ServerClosed,
    #[error("server has stopped answering")]
    Silent,
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    #[error("server did not end the statement within {0:?} of a cancel request")]
    NotCancelled(Duration),
    #[error("transaction took longer than transaction_timeout")]
    TransactionTime,
}

impl RelayError {
    /// Whether the server is to blame, so that another one might do better.
    pub fn is_servers(&self) -> bool {
        !matches!(self, RelayError::ClientLeft | RelayError::NotCancelled(_) | RelayError::TransactionTime)
    }

    /// The server has gone, or this connection alone.
    pub fn is_end(&self) -> bool {
        match self {
            RelayError::Server(_) | RelayError::ServerClosed => true,
            RelayError::Unexpected(Unexpected::Fatal(state, _)) => {
                ["57P01", "57P02", "57P03"].contains(&&**state)
            }
            _ => false,
        }
    }
}

/// What a relay counts for metrics, retries and the end of a statement.
#[derive(Debug, Default)]
pub struct Flow {
    /// Bytes that the client has been sent of this answer.
    pub sent_bytes: u64,
    /// Sent or changed, by the command tags.
    pub rows: u64,
    pub errors: u64,
    /// Of the last one.
    pub state: Option<[u8; 5]>,
    /// When the request went out, where the clock was read for it; when it came, where that was as good as then.
    pub sent_at: Option<Instant>,
    /// A lock was not had in time (55P03).
    pub waited_for_lock: bool,
    /// TimeZone as the client was last told of it.
    pub time_zone: Option<String>,
    /// client_encoding as the client was told, where Keyway cannot read it.
    pub foreign_encoding: Option<String>,
    /// Nothing may be forwarded yet that a retry elsewhere would contradict.
    pub may_retry: bool,
    /// It is a read that another server can answer, should this one be thought to be gone.
    pub may_leave: bool,
    /// The server has said something of its role that may be news.
    pub tells_role: bool,
    /// With what a standby has turned the read down; its answer is swallowed to the end.
    pub turned_down: Option<&'static str>,
    /// The request can be made again if its statement turns out to be of no use on this server.
    pub may_renew: Renewable,
    /// It is.
    pub outdated: bool,
    /// It will be made again; the answer is swallowed to the end.
    pub renewing: bool,
    /// What has come of an answer that the client gets only when all of it is there.
    /// It is gone when the answer turns out to be too long for that.
    pub kept: Option<Kept>,
}

/// An answer that others wait for too, so that no client's slowness may hold it up.
#[derive(Debug)]
pub struct Kept {
    pub bytes: Vec<u8>,
    bytes_max: usize,
}

impl Kept {
    pub fn new(bytes_max: usize) -> Kept {
        Kept { bytes: Vec::new(), bytes_max }
    }
}

impl Flow {
    /// Of a request that is about to be sent.
    pub fn sent_now() -> Flow {
        Flow { sent_at: Some(Instant::now()), ..Flow::default() }
    }

    /// What one of several shards had of an answer that is of all of them together. An error is the first one's.
    pub fn share(&self, index: usize, shards: usize) -> Flow {
        let (at, shards) = (index as u64, shards.max(1) as u64);
        let part = |whole: u64| whole / shards + u64::from(at < whole % shards);
        let first = index == 0;
        Flow {
            sent_bytes: part(self.sent_bytes),
            rows: part(self.rows),
            errors: if first { self.errors } else { 0 },
            state: self.state.filter(|_| first),
            waited_for_lock: self.waited_for_lock && first,
            sent_at: self.sent_at,
            ..Flow::default()
        }
    }

    pub fn add(&mut self, more: &Flow) {
        self.sent_bytes += more.sent_bytes;
        self.rows += more.rows;
        self.errors += more.errors;
        self.state = more.state.or(self.state);
    }

    /// What comes is for the client: no other server is asked in this one's place.
    pub fn is_clients(&self) -> bool {
        self.turned_down.is_none() && !self.renewing
    }

    /// Takes note of the error that `feed` has found in `input`, if there is one.
    pub fn note_error(&mut self, input: &[u8], replies: &Replies) {
        if let Some(state) = self.count_error(input, replies) {
            self.waited_for_lock |= state == b"55P03";
            self.tells_role |= state == b"25006";
        }
    }

    /// As `note_error`, without what it says of locks and roles.
    pub fn count_error<'a>(&mut self, input: &'a [u8], replies: &Replies) -> Option<&'a [u8]> {
        let range = replies.error.clone()?;
        self.errors += 1;
        let state = wire::error_fields(&input[range]).map_or(&b""[..], |it| it.state);
        self.state = state.try_into().ok().or(self.state);
        Some(state)
    }
}

/// SQLSTATEs with which a standby turns down a read that the primary answers: read only transaction,
/// conflict with recovery, feature of a primary (unlogged tables), no position on a standby.
const STANDBY_STATES: [&str; 4] = ["25006", "40001", "0A000", "55000"];

/// Forwards replies until nothing is owed. Not cancel safe: dropped half way, the connection is not
/// free and the pool closes it.
pub async fn relay(
    client: &mut Stream,
    server: &mut Backend,
    stock: &BufferStock,
    replies: &mut Replies,
    flow: &mut Flow,
    overdue: &mut Option<Box<Overdue>>,
) -> Result<Stop, RelayError> {
    begin(server, replies);
    if server.pipeline.is_drained() {
        forward(client, &[], replies, flow).await?;
    }
    relay_on(client, server, stock, None, replies, flow, overdue).await
}

/// Before the first word of the server's: replies of ours that need none wait for it, unless there is nothing to wait for.
pub fn begin(server: &mut Backend, replies: &mut Replies) {
    replies.next_buffer();
    server.pipeline.release_made(replies);
    if !server.pipeline.is_drained() {
        replies.made = std::mem::take(&mut replies.pieces);
    }
}

/// As `relay`, from where it is. `buffer` holds the start of a message.
pub async fn relay_on(
    client: &mut Stream,
    server: &mut Backend,
    stock: &BufferStock,
    mut buffer: Option<Buffer>,
    replies: &mut Replies,
    flow: &mut Flow,
    overdue: &mut Option<Box<Overdue>>,
) -> Result<Stop, RelayError> {
    loop {
        if let Some(stop) = stop(server, replies, flow) {
            return Ok(stop);
        }
        let tie = Some(&*server.record.tie).filter(|_| flow.may_leave && flow.sent_bytes == 0);
        server_readable(client, &mut server.stream, tie, overdue).await?;
        step(client, server, stock, &mut buffer, replies, flow).await?;
    }
}

/// Whether there is nothing more to relay.
pub fn stop(server: &Backend, replies: &Replies, flow: &Flow) -> Option<Stop> {
    match () {
        () if replies.copy_in => Some(Stop::CopyIn),
        () if !server.pipeline.is_drained() => None,
        () if flow.renewing => Some(Stop::Renew),
        () if flow.turned_down.is_some() => Some(Stop::Retry),
        () => Some(Stop::Drained),
    }
}

/// One read of the server's socket and what follows from it. `buffer` holds the start of a message
/// between calls, and is given back whenever it is empty.
pub async fn step(
    client: &mut Stream,
    server: &mut Backend,
    stock: &BufferStock,
    buffer: &mut Option<Buffer>,
    replies: &mut Replies,
    flow: &mut Flow,
) -> Result<(), RelayError> {
    let filled = buffer.get_or_insert_with(|| stock.take());
    if server.stream.read_ready(filled).await.map_err(RelayError::Server)? == 0 {
        return Err(RelayError::ServerClosed);
    }
    let consumed = read_replies(server, filled.filled(), replies, flow)?;
    if flow.is_clients() {
        forward(client, filled.filled(), replies, flow).await?;
    }
    filled.consume(consumed);
    if filled.is_empty()
        && let Some(empty) = buffer.take()
    {
        stock.give_back(empty);
    }
    Ok(())
}

/// What the server has said, as far as it has come: how many bytes of `input` that is.
pub fn read_replies(
    server: &mut Backend,
    input: &[u8],
    replies: &mut Replies,
    flow: &mut Flow,
) -> Result<usize, RelayError> {
    replies.next_buffer();
    let rows = replies.rows;
    let consumed = server.pipeline.feed(input, replies)?;
    flow.rows += replies.rows - rows;
    if !replies.made.is_empty() {
        let made = std::mem::take(&mut replies.made);
        let later = std::mem::replace(&mut replies.pieces, made);
        replies.pieces.extend(later);
    }
    let useless = useless(input, replies);
    if let Some(it) = useless {
        let may_renew = if it == Useless::Lost { flow.may_renew.lost } else { flow.may_renew.outdated };
        flow.outdated = it == Useless::Outdated;
        flow.renewing = may_renew && flow.sent_bytes == 0 && begins_with_error(replies);
    }
    if flow.renewing {
        replies.failed = true;
        server.pipeline.set_part(Part::SILENT);
    } else if flow.may_retry
        && let Some(state) = standby_error(input, replies)
    {
        flow.turned_down = Some(state);
        flow.may_retry = false;
        replies.failed = true;
        server.pipeline.set_part(Part::SILENT);
    }
    note(server, input, replies, flow);
    if useless == Some(Useless::Lost) {
        server.statements.doubt();
    }
    Ok(consumed)
}

fn standby_error(input: &[u8], replies: &Replies) -> Option<&'static str> {
    let fields = wire::error_fields(&input[replies.error.clone()?]).ok()?;
    STANDBY_STATES.into_iter().find(|it| it.as_bytes() == fields.state)
}

/// Why a statement under a name of ours cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Useless {
    /// "cached plan must not change result type".
    Outdated,
    /// Code has dropped it, of which no word of a text told.
    Lost,
}

/// It is told when a statement is looked at for Bind, Describe or EXECUTE (`RevalidateCachedQuery` in plancache.c,
/// `FetchPreparedStatement` in prepare.c), before any of it runs; with a context it is of a statement inside a
/// function, which runs.
fn useless(input: &[u8], replies: &Replies) -> Option<Useless> {
    let fields =
        wire::error_fields(&input[replies.error.clone()?]).ok().filter(|it| it.context.is_empty())?;
    match fields.state {
        b"0A000" if fields.routine == b"RevalidateCachedQuery" => Some(Useless::Outdated),
        b"26000" if names_ours(fields.message) => Some(Useless::Lost),
        _ => None,
    }
}

/// Whatever the language and its quotes.
fn names_ours(message: &[u8]) -> bool {
    let is_name = |it: &u8| it.is_ascii_alphanumeric() || *it == b'_';
    let words = message.split(|it| !is_name(it));
    words.filter_map(|it| std::str::from_utf8(it).ok()).any(StatementId::is_server_name)
}

/// Nothing of the server's goes to the client before the error; behind it may be ReadyForQuery.
fn begins_with_error(replies: &Replies) -> bool {
    let mut servers = replies.pieces.iter().filter_map(|it| match it {
        Piece::Input(range) => Some(range.start),
        Piece::Made(_) | Piece::Owned(_) => None,
    });
    servers.next() == replies.error.as_ref().map(|it| it.start) && servers.next().is_none()
}

/// Takes note of what the replies say of the server and the session.
fn note(server: &mut Backend, input: &[u8], replies: &Replies, flow: &mut Flow) {
    note_prepared(server, &replies.prepared);
    flow.note_error(input, replies);
    for range in &replies.parameters {
        match wire::parameter(&input[range.clone()]) {
            Ok(("TimeZone", value)) => flow.time_zone = Some(value.to_owned()),
            Ok(("client_encoding", value)) if !encoding::is_served(value) => {
                flow.foreign_encoding = Some(value.to_owned());
            }
            Ok((IN_HOT_STANDBY, value)) => {
                server.in_hot_standby = Some(value == "on");
                flow.tells_role = true;
            }
            _ => {}
        }
    }
}

/// What the server has from now on.
pub fn note_prepared(server: &mut Backend, prepared: &[StatementId]) {
    for id in prepared {
        if id.is_unnamed() {
            server.statements.set_unnamed(Some(*id));
        } else {
            server.statements.insert(*id);
        }
    }
}

/// Writes the pieces to the client: nearly always one, straight from the receive buffer.
async fn forward(
    client: &mut Stream,
    input: &[u8],
    replies: &Replies,
    flow: &mut Flow,
) -> Result<(), RelayError> {
    if let Some(kept) = &mut flow.kept {
        replies.pieces.iter().for_each(|it| kept.bytes.extend_from_slice(it.bytes(input)));
        if kept.bytes.len() <= kept.bytes_max {
            return Ok(());
        }
    }
    let sent = match (flow.kept.take(), replies.pieces.as_slice()) {
        (Some(kept), _) => client.write_all(&kept.bytes).await.map(|()| kept.bytes.len()),
        (None, []) => return Ok(()),
        (None, [piece]) => {
            let bytes = piece.bytes(input);
            client.write_all(bytes).await.map(|()| bytes.len())
        }
        (None, pieces) => {
            let joined = joined(pieces, input);
            client.write_all(&joined).await.map(|()| joined.len())
        }
    };
    flow.sent_bytes += sent.map_err(|_| RelayError::ClientLeft)? as u64;
    flow.may_retry = false;
    Ok(())
}

/// As `forward`, of an answer that nothing is kept of, without waiting. The rest, which may be empty, is for `forward_rest`.
pub fn forward_at_once(
    client: &mut Stream,
    input: &[u8],
    replies: &Replies,
    flow: &mut Flow,
) -> Result<Option<Vec<u8>>, RelayError> {
    let all;
    let bytes = match replies.pieces.as_slice() {
        [] => return Ok(None),
        [piece] => piece.bytes(input),
        pieces => {
            all = joined(pieces, input);
            &all[..]
        }
    };
    send_answer(client, bytes, flow)
}

/// As `forward_at_once`, of bytes that are the client's as they are.
pub fn send_answer(
    client: &mut Stream,
    bytes: &[u8],
    flow: &mut Flow,
) -> Result<Option<Vec<u8>>, RelayError> {
    let rest = client.write_at_once(bytes).map_err(|_| RelayError::ClientLeft)?;
    flow.sent_bytes += (bytes.len() - rest.map_or(0, <[u8]>::len)) as u64;
    flow.may_retry = false;
    Ok(rest.map(<[u8]>::to_vec))
}

pub async fn forward_rest(client: &mut Stream, rest: &[u8], flow: &mut Flow) -> Result<(), RelayError> {
    client.write_all(rest).await.map_err(|_| RelayError::ClientLeft)?;
    flow.sent_bytes += rest.len() as u64;
    Ok(())
}

fn joined(pieces: &[Piece], input: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(pieces.iter().map(|it| it.bytes(input).len()).sum());
    pieces.iter().for_each(|it| joined.extend_from_slice(it.bytes(input)));
    joined
}

/// Waits for the server, and notices a client that leaves in the meantime: nobody would read the
/// answer, and the query should not run on. With `tie`, one that is thought to be gone is waited for no longer.
pub async fn server_readable(
    client: &mut Stream,
    server: &mut Stream,
    tie: Option<&Tie>,
    overdue: &mut Option<Box<Overdue>>,
) -> Result<(), RelayError> {
    let (mut watching, mut has_waited) = (true, false);
    let mut readable = poll_fn(|cx| {
        if std::mem::replace(&mut has_waited, true) && server.is_readable() {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(ready) = server.poll_readable(cx) {
            return Poll::Ready(ready.map_err(RelayError::Server));
        }
        if tie.is_some_and(Tie::is_doubtful) {
            return Poll::Ready(Err(RelayError::Silent));
        }
        if watching && client.poll_readable(cx).is_ready() {
            if client.is_closed_by_peer() {
                return Poll::Ready(Err(RelayError::ClientLeft));
            }
            // It has sent the next request already: that waits, and its leaving shows on write.
            watching = false;
        }
        Poll::Pending
    });
    let Some(overdue) = overdue else { return readable.await };
    loop {
        // The timer is made known to the runtime only when the server is not ready at once.
        match Box::pin(tokio::time::timeout_at(overdue.at.into(), &mut readable)).await {
            Ok(readable) => return readable,
            Err(_) => overdue.pass()?,
        }
    }
}
