//! What nearly every request is: by itself, for one server, that takes all of it at once and answers in one piece. Whatever turns
//! out otherwise goes on in `perform` from where it is.
//!
//! ```text
//!  attach ──▶ ask ──sent──▶ answer_begins ──▶ take_answer ──whole, the client's as it is──▶ settle_at_once
//!              │ in part          │ lost       │   │ some, or for more than the client          ▲
//!              │                  │            │   └──▶ take_bytes ──to its end─────────────────┘
//!              │                  │            │ nothing     │ more to come, COPY, or to be tried again
//!              └──────────────────┴────────────┴─────────────┴──▶ go_on
//! ```
//! But for the waits for a connection and for the answer these are functions that wait for nothing. Their variables are on
//! the stack, which all sessions of a worker share and the cache has; those of an async function are the session's own, and cold
//! when its answer comes.

use std::io;
use std::time::Instant;

use super::perform::all_of;
use super::protect::Guard;
use super::query::no_shard;
use super::relay::{
    Flow, RelayError, Stop, begin, forward_at_once, note_prepared, read_replies, send_answer,
    server_readable, stop,
};
use super::request::{Attempt, Begun, Ran, Request, Tried};
use super::session::{End, Held, Session};
use crate::backend::Backend;
use crate::base::{Access, Role, ServerId, ShardId};
use crate::metrics::Live;
use crate::net::{Buffer, BufferStock, Stream};
use crate::proto::Replies;
use crate::route::{Excluded, Mode};
use crate::wire::TxStatus;

/// In bytes, of a request. A socket's buffer takes more.
const LENGTH_MAX: usize = 16 * 1024;

/// Where a request goes.
struct Destination {
    shard: ShardId,
    role: Role,
    excluded: Excluded,
    tries_left: usize,
}

/// A request that the held server has, as far as it is sent.
struct Asked {
    to: Destination,
    server: (ServerId, Role),
    at: Instant,
    sent: Sent,
}

enum Sent {
    All,
    /// All but this.
    Part(Vec<u8>),
    Failed(io::Error),
}

/// What is left of an answer that has not come to its end at once.
struct Rest {
    tried: Tried,
    so_far: SoFar,
}

enum SoFar {
    /// Nothing has been read.
    Sending,
    Begun(Begun),
    Stopped(Result<Stop, RelayError>),
}

impl Session {
    /// Whether a request is such a one. Of a longer one the server may take a part, and the rest would have to be copied.
    pub fn goes_at_once(&self, request: &Request<'_>) -> bool {
        request.decision.mode == Mode::One
            && matches!(request.guard, Guard::None)
            && request.payload.is_complete()
            && request.payload.length() <= LENGTH_MAX
            && !request.ends_blocks
            && self.is_plain()
    }

    /// As `run_on_one`, of one that `goes_at_once`.
    pub async fn run_at_once(&mut self, request: &Request<'_>) -> Result<Ran, End> {
        let Some(&shard) = request.decision.shards.first() else { return Ok(Ran::Refused(no_shard())) };
        let (role, tries_left) = (self.role_of(request), self.tries_of(request, shard));
        let mut to = Destination { shard, role, excluded: Excluded::default(), tries_left };
        let held = match self.attach_at_once(shard, role, request.started) {
            Some(it) => it,
            None => match self.attach(shard, role, &mut to.excluded, request.started).await {
                Ok(it) => it,
                Err(refusal) => return Ok(Ran::Refused(refusal)),
            },
        };
        let server = (held.server, held.role);
        self.held = Some(held);
        if request.access == Access::Write && !self.hold_as_own_at_once() {
            self.hold_as_own().await;
        }
        let asked = self.ask(request, to, server);
        let begins = self.answer_begins(&asked, request.access).await;
        match self.take_answer(request, &asked, begins)? {
            Ok(ran) => Ok(ran),
            // Rare: boxed, so that clients at work do not carry it.
            Err(rest) => Box::pin(self.go_on(request, asked, rest)).await,
        }
    }

    /// Sends it to the held server.
    fn ask(&mut self, request: &Request<'_>, to: Destination, server: (ServerId, Role)) -> Asked {
        self.send_touched();
        self.overdue = self.overdue();
        let at = self.sent_at(request, false);
        let mut out = self.outgoing();
        let raw = self.compose(request, &mut out);
        let bytes = all_of(raw, &mut out);
        let sent = match self.held.as_mut().map(|it| it.lease.stream.write_at_once(bytes)) {
            Some(Ok(None)) => Sent::All,
            Some(Ok(Some(rest))) => Sent::Part(rest.to_vec()),
            Some(Err(error)) => Sent::Failed(error),
            None => Sent::Failed(io::ErrorKind::NotConnected.into()),
        };
        self.keep_outgoing(out);
        Asked { to, server, at, sent }
    }

    /// Waits for the first of its answer.
    async fn answer_begins(&mut self, asked: &Asked, access: Access) -> Result<(), RelayError> {
        let Some(held) = self.held.as_mut().filter(|_| matches!(asked.sent, Sent::All)) else {
            return Ok(());
        };
        let _live = self.database.metrics.target(held.shard, held.role, access).map(Live::new);
        let server = &mut *held.lease;
        let tie = Some(&*server.record.tie).filter(|_| asked.to.tries_left > 0);
        server_readable(&mut self.stream, &mut server.stream, tie, &mut self.overdue).await
    }

    /// The inner error is what is left to be done for it.
    fn take_answer(
        &mut self,
        request: &Request<'_>,
        asked: &Asked,
        begins: Result<(), RelayError>,
    ) -> Result<Result<Ran, Box<Rest>>, End> {
        let mut flow = asked.attempt(request).flow(asked.server.1, asked.at);
        let so_far = match (begins, &asked.sent, &mut self.held) {
            (Err(error), ..) => SoFar::Stopped(Err(error)),
            (Ok(()), Sent::All, Some(held)) => {
                match hear_at_once(&mut self.stream, &mut held.lease, &self.shared.stock, &mut flow) {
                    Heard::Whole { named, committed } => {
                        self.note_ended(named, committed);
                        return Ok(Ok(self.answered(request, asked.to.shard, asked.server.1, &flow)));
                    }
                    Heard::Unsent { replies, rest } => {
                        let tried = Tried { replies: *replies, ..Tried::new(asked.server, flow) };
                        let so_far = SoFar::Begun(Begun { buffer: None, unsent: Some(rest) });
                        return Ok(Err(Box::new(Rest { tried, so_far })));
                    }
                    Heard::Bytes(buffer) => return self.take_bytes(request, asked, flow, buffer),
                    Heard::Otherwise(so_far) => so_far,
                }
            }
            (Ok(()), ..) => SoFar::Sending,
        };
        Ok(Err(Box::new(Rest { tried: Tried::new(asked.server, flow), so_far })))
    }

    /// Of an answer that is not all there, or that is not the client's as it is, `buffer` has some.
    #[inline(never)]
    fn take_bytes(
        &mut self,
        request: &Request<'_>,
        asked: &Asked,
        flow: Flow,
        buffer: Buffer,
    ) -> Result<Result<Ran, Box<Rest>>, End> {
        let mut tried = Tried::new(asked.server, flow);
        let (client, stock) = (&mut self.stream, &self.shared.stock);
        let Tried { replies, flow, .. } = &mut tried;
        let heard = match &mut self.held {
            Some(held) => relay_at_once(client, &mut held.lease, stock, buffer, replies, flow),
            None => Err(RelayError::ServerClosed),
        };
        let so_far = match heard {
            Ok(Ok(stop)) => SoFar::Stopped(Ok(stop)),
            Ok(Err(begun)) => SoFar::Begun(begun),
            Err(error) => SoFar::Stopped(Err(error)),
        };
        if !matches!(so_far, SoFar::Stopped(Ok(Stop::Drained))) || tried.replies.set_up_error.is_some() {
            return Ok(Err(Box::new(Rest { tried, so_far })));
        }
        self.note_answer(request, &tried.replies, &mut tried.flow)?;
        Ok(Ok(self.answered(request, asked.to.shard, asked.server.1, &tried.flow)))
    }

    /// The rest of what has been begun at once, as `run_on_one`.
    async fn go_on(&mut self, request: &Request<'_>, asked: Asked, rest: Box<Rest>) -> Result<Ran, End> {
        let mut attempt = asked.attempt(request);
        let Rest { mut tried, so_far } = *rest;
        let begun = match so_far {
            SoFar::Stopped(it) => Err(it),
            SoFar::Begun(it) => Ok(Some(it)),
            SoFar::Sending => Ok(None),
        };
        let stopped = match begun {
            Err(stopped) => stopped,
            Ok(begun) => {
                let sent = match asked.sent {
                    Sent::All => Ok(()),
                    Sent::Part(rest) => self.send(&rest, request.access).await,
                    Sent::Failed(error) => Err(error),
                };
                self.hear(request, sent, begun, &mut tried.replies, &mut tried.flow).await
            }
        };
        match self.end_attempt(request, &mut attempt, &mut tried, stopped).await? {
            Some(ran) => Ok(ran),
            None => self.try_on_one(request, attempt).await,
        }
    }

    /// Whether `settle` and `finish` have nothing to do but to mark a floor and to give the server back.
    fn settles_at_once(&self) -> bool {
        let is_free = |it: &Held| it.lease.pipeline.is_free() && it.lease.pipeline.status() == TxStatus::Idle;
        self.held.as_ref().is_some_and(is_free)
            && self.transaction.is_idle()
            && !self.unsynced
            && !self.ends_answer
            && !self.is_tied()
            && self.listening.is_none()
            && self.due.is_empty()
            && self.others.is_none()
    }

    /// As `settle` and `finish`. False is that there is more to do, or a cancel request to be waited for, which those do.
    pub fn settle_at_once(&mut self, wrote: bool) -> bool {
        if !self.settles_at_once() {
            return false;
        }
        let Some(detached) = self.cancel.slot().try_detach() else { return false };
        let now = self.cost().ended.take().unwrap_or_else(Instant::now);
        self.transaction.follow(TxStatus::Idle);
        let wrote = std::mem::take(&mut self.wrote) || wrote;
        if let Some(held) = self.held.take() {
            if wrote && held.role == Role::Primary && self.has_written() {
                self.mark_floor(held.shard, now);
            }
            held.release(detached, now);
        }
        self.count_transaction(now);
        true
    }
}

impl Asked {
    fn attempt(&self, request: &Request<'_>) -> Attempt {
        let Destination { shard, role, excluded, tries_left } = self.to;
        Attempt { excluded, ..Attempt::new(shard, role, tries_left, request) }
    }
}

/// What one read has found.
enum Heard {
    /// The client has all of the answer.
    Whole { named: usize, committed: bool },
    /// The client has not taken all of it.
    Unsent { replies: Box<Replies>, rest: Vec<u8> },
    /// Something else than a whole answer, of which nothing has been done.
    Bytes(Buffer),
    /// Nothing yet, or an end of one of both sides.
    Otherwise(SoFar),
}

/// One read, and a whole answer to the client.
fn hear_at_once(client: &mut Stream, server: &mut Backend, stock: &BufferStock, flow: &mut Flow) -> Heard {
    let mut buffer = stock.take();
    let stopped = |error| Heard::Otherwise(SoFar::Stopped(Err(error)));
    match server.stream.read_at_once(&mut buffer) {
        Ok(Some(0)) => return stopped(RelayError::ServerClosed),
        Err(error) => return stopped(RelayError::Server(error)),
        Ok(None) => {
            stock.give_back(buffer);
            return Heard::Otherwise(SoFar::Sending);
        }
        Ok(Some(_)) => {}
    }
    let Some(whole) = server.pipeline.take_whole(buffer.filled()) else { return Heard::Bytes(buffer) };
    flow.rows = whole.rows;
    note_prepared(server, whole.prepared.as_slice());
    let heard = match send_answer(client, buffer.filled(), flow) {
        Ok(None) => Heard::Whole { named: whole.named, committed: whole.tag == b"COMMIT" },
        Ok(Some(rest)) => Heard::Unsent { replies: Box::new(whole.replies()), rest },
        Err(error) => stopped(error),
    };
    stock.give_back(buffer);
    heard
}

/// What has been read, and what follows from it: why it has stopped, or what is left to be done.
fn relay_at_once(
    client: &mut Stream,
    server: &mut Backend,
    stock: &BufferStock,
    mut buffer: Buffer,
    replies: &mut Replies,
    flow: &mut Flow,
) -> Result<Result<Stop, Begun>, RelayError> {
    begin(server, replies);
    let consumed = read_replies(server, buffer.filled(), replies, flow)?;
    let unsent =
        if flow.is_clients() { forward_at_once(client, buffer.filled(), replies, flow)? } else { None };
    buffer.consume(consumed);
    let buffer = if buffer.is_empty() {
        stock.give_back(buffer);
        None
    } else {
        Some(buffer)
    };
    match stop(server, replies, flow) {
        Some(stop) if unsent.is_none() => Ok(Ok(stop)),
        _ => Ok(Err(Begun { buffer, unsent })),
    }
}
