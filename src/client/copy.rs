//! COPY FROM STDIN on one server: data streams through in whatever pieces it comes.

use std::time::Instant;

use super::relay::{Flow, RelayError, Stop, relay, step};
use super::session::{End, Session};
use crate::base::{Reason, Refusal, SqlState};
use crate::net::Buffer;
use crate::proto::{Replies, UnitEnd};
use crate::wire::{self, FrontendTag};

pub(super) enum CopyEnd {
    /// Extended protocol: the Sync that ends it is still to come from the client.
    Open,
    /// The answer is complete.
    Drained,
}

/// What the client's next bytes are.
enum Step {
    /// So many bytes to pass on; the rest of the message is still to come.
    Pass {
        bytes: usize,
        rest: usize,
    },
    /// CopyDone or CopyFail, to pass on.
    Last {
        bytes: usize,
    },
    /// Sync or Flush, which a server in copy-in mode ignores.
    Skip {
        bytes: usize,
    },
    More,
}

impl Session {
    /// Passes COPY data on until the client ends it or the server objects.
    pub async fn copy_in(&mut self, buffer: &mut Buffer) -> Result<CopyEnd, End> {
        let (mut rest, mut news) = (0, News::default());
        loop {
            match next_step(buffer.filled(), rest)? {
                Step::More => match self.wait_for_data(buffer).await? {
                    Some(Speaker::Client) => {}
                    Some(Speaker::Server) => {
                        if let Some(end) = self.hear_server(&mut news).await? {
                            self.end_message(buffer, rest).await?;
                            return Ok(end);
                        }
                    }
                    None => {
                        if let Some(Err(error)) = self.overdue.as_mut().map(|it| it.pass()) {
                            let end = self.copy_lost(error, &std::mem::take(&mut news.flow)).await?;
                            self.end_message(buffer, rest).await?;
                            return Ok(end);
                        }
                    }
                },
                Step::Skip { bytes } => buffer.consume(bytes),
                Step::Pass { bytes, rest: left } => {
                    self.pass_on(buffer, bytes).await?;
                    rest = left;
                }
                Step::Last { bytes } => {
                    self.pass_on(buffer, bytes).await?;
                    return self.finish_copy(news).await;
                }
            }
        }
    }

    /// A notice goes to the client and the COPY goes on; an error ends it.
    async fn hear_server(&mut self, news: &mut News) -> Result<Option<CopyEnd>, End> {
        let Some(held) = &mut self.held else { return Err(End::Left) };
        let stock = self.shared.stock.clone();
        news.replies.copy_in = false;
        let News { replies, flow } = news;
        let mut buffer = None;
        let stepped = loop {
            let stepped = step(&mut self.stream, &mut held.lease, &stock, &mut buffer, replies, flow).await;
            // The rest of half a message is certain to come.
            if stepped.is_err() || buffer.is_none() {
                break stepped;
            }
        };
        match stepped {
            Ok(()) if replies.error.is_none() && replies.copy_in => {
                Err(End::Fatal(violation("a second COPY inside one statement")))
            }
            Ok(()) if replies.error.is_none() && !held.lease.pipeline.is_drained() => Ok(None),
            Ok(()) => self.finish_copy(std::mem::take(news)).await.map(Some),
            Err(error) => self.copy_lost(error, &std::mem::take(&mut news.flow)).await.map(Some),
        }
    }

    async fn pass_on(&mut self, buffer: &mut Buffer, bytes: usize) -> Result<(), End> {
        let Some(held) = &mut self.held else { return Err(End::Left) };
        // A server that has gone says so on read, with its reason; data for it is dropped.
        let _ = held.lease.stream.write_all(&buffer.filled()[..bytes]).await;
        buffer.consume(bytes);
        Ok(())
    }

    /// Reads more of the client, or finds that the server has spoken. Only then is the server read: it
    /// waits for the client. `None` is that the statement takes too long.
    async fn wait_for_data(&mut self, buffer: &mut Buffer) -> Result<Option<Speaker>, End> {
        let Some(held) = &mut self.held else { return Err(End::Left) };
        let overdue = self.overdue.as_ref().map(|it| it.at);
        tokio::select! {
            biased;
            _ = held.lease.stream.has_bytes() => Ok(Some(Speaker::Server)),
            read = self.stream.read(buffer) => match read {
                Ok(count) if count > 0 => Ok(Some(Speaker::Client)),
                _ => Err(End::Left),
            },
            () = passed(overdue), if overdue.is_some() => Ok(None),
        }
    }

    /// Deals with what is left of a message when COPY ends within it. A server that has the start of it
    /// needs the rest, even to ignore it: it would take what follows, the Sync it waits for, for data.
    async fn end_message(&mut self, buffer: &mut Buffer, mut rest: usize) -> Result<(), End> {
        while rest > 0 {
            let count = rest.min(buffer.filled().len());
            if self.held.is_some() {
                self.pass_on(buffer, count).await?;
            } else {
                buffer.consume(count);
            }
            rest -= count;
            if rest > 0 && self.stream.read(buffer).await.map_err(|_| End::Left)? == 0 {
                return Err(End::Left);
            }
        }
        Ok(())
    }

    async fn finish_copy(&mut self, news: News) -> Result<CopyEnd, End> {
        let News { mut replies, mut flow } = news;
        let Some(held) = &mut self.held else { return Err(End::Left) };
        replies.copy_in = false;
        if self.unsynced {
            // Nothing more is certain to come before the client's Sync.
            if let Some(copying) = &mut self.copying {
                copying.flow.add(&flow);
            }
            return Ok(CopyEnd::Open);
        }
        let stock = self.shared.stock.clone();
        match relay(&mut self.stream, &mut held.lease, &stock, &mut replies, &mut flow, &mut self.overdue)
            .await
        {
            Ok(Stop::Drained | Stop::Retry) => {
                let (shard, role) = (held.shard, held.role);
                if let Some(copying) = self.copying.take() {
                    self.count_copy(&copying, shard, role, &flow);
                }
                Ok(CopyEnd::Drained)
            }
            Ok(Stop::CopyIn) => Err(End::Fatal(violation("a second COPY inside one statement"))),
            Err(error) => self.copy_lost(error, &flow).await,
        }
    }

    async fn copy_lost(&mut self, error: RelayError, flow: &Flow) -> Result<CopyEnd, End> {
        let unsynced = self.unsynced;
        let at = self.held.as_ref().map(|it| (it.shard, it.role));
        if let (Some(copying), Some((shard, role))) = (self.copying.take(), at) {
            self.count_copy(&copying, shard, role, flow);
        }
        let refusal = self.lose_server(error, flow)?;
        if unsynced {
            self.refuse_group(refusal, UnitEnd::Flush).await?;
        } else {
            self.refuse_simple(refusal).await?;
        }
        Ok(CopyEnd::Open)
    }
}

async fn passed(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

#[derive(PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Server,
}

/// What the server has said while data still came.
#[derive(Default)]
struct News {
    replies: Replies,
    flow: Flow,
}

fn violation(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, message)
}

fn next_step(bytes: &[u8], rest: usize) -> Result<Step, End> {
    if rest > 0 {
        let count = rest.min(bytes.len());
        return Ok(if count == 0 { Step::More } else { Step::Pass { bytes: count, rest: rest - count } });
    }
    let head = wire::header(bytes).map_err(|_| End::Fatal(violation("invalid message length")))?;
    let Some(head) = head else { return Ok(Step::More) };
    let here = head.total.min(bytes.len());
    Ok(match FrontendTag(head.tag) {
        FrontendTag::COPY_DATA => Step::Pass { bytes: here, rest: head.total - here },
        FrontendTag::COPY_DONE | FrontendTag::COPY_FAIL if here < head.total => Step::More,
        FrontendTag::COPY_DONE | FrontendTag::COPY_FAIL => Step::Last { bytes: head.total },
        FrontendTag::SYNC | FrontendTag::FLUSH if here < head.total => Step::More,
        FrontendTag::SYNC | FrontendTag::FLUSH => Step::Skip { bytes: head.total },
        FrontendTag::TERMINATE => return Err(End::Left),
        FrontendTag(tag) => {
            let message = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
            return Err(End::Fatal(violation(message)));
        }
    })
}
