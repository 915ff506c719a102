//! COPY FROM STDIN on one server: data streams through in whatever pieces it comes.

use std::future::poll_fn;
use std::time::Instant;

use super::query::malformed;
use super::relay::{Flow, RelayError, Stop, relay, step};
use super::session::{End, Session};
use crate::base::{Reason, Refusal, SqlState};
use crate::net::Buffer;
use crate::proto::{Replies, UnitEnd};
use crate::wire::{self, CopyInput};

pub(super) enum CopyEnd {
    /// Extended protocol: the Sync that ends it is still to come from the client.
    Open,
    /// The answer is complete.
    Drained,
}

/// What the client's next bytes are.
enum Step {
    /// So many bytes to pass on now.
    Pass {
        bytes: usize,
        of: Message,
    },
    /// Sync or Flush, which a server in copy-in mode ignores.
    Skip {
        bytes: usize,
    },
    More,
}

/// The messages that are on their way to the server: one, or CopyData and more of it.
#[derive(Clone, Copy, Default)]
struct Message {
    /// Bytes that the server lacks.
    rest: usize,
    /// CopyDone or CopyFail.
    is_last: bool,
}

impl Session {
    /// Passes COPY data on until the client ends it or the server objects.
    pub async fn copy_in(&mut self, buffer: &mut Buffer) -> Result<CopyEnd, End> {
        if let Some(split) = self.split_copy.take() {
            return self.copy_split_in(split, buffer).await;
        }
        let (mut message, mut news, mut streams) = (Message::default(), News::default(), false);
        loop {
            let speaker = match next_step(buffer.filled(), message)? {
                Step::More => {
                    let speaker = self.wait_for_data(buffer, streams).await?;
                    streams |= buffer.is_full();
                    speaker
                }
                Step::Skip { bytes } => {
                    buffer.consume(bytes);
                    continue;
                }
                Step::Pass { bytes, of } => match self.pass_on(buffer, bytes).await? {
                    Some(count) if of.is_last && count == of.rest => return self.finish_copy(news).await,
                    Some(count) => {
                        message = Message { rest: of.rest - count, ..of };
                        continue;
                    }
                    None => Some(Speaker::Server),
                },
            };
            let end = match speaker {
                Some(Speaker::Client) => None,
                Some(Speaker::Server) => self.hear_server(&mut news).await?,
                None => match self.overdue.as_mut().map(|it| it.pass()) {
                    Some(Err(error)) => Some(self.copy_lost(error, &std::mem::take(&mut news.flow)).await?),
                    _ => None,
                },
            };
            if let Some(end) = end {
                self.end_message(buffer, message.rest).await?;
                return Ok(end);
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

    /// Passes on as much of the next `bytes` as the server takes. `None` is that it takes nothing and has
    /// spoken: one that has much to say, as a trigger may, reads no more until it is heard.
    async fn pass_on(&mut self, buffer: &mut Buffer, bytes: usize) -> Result<Option<usize>, End> {
        let Some(held) = &mut self.held else { return Err(End::Left) };
        let passed = match held.lease.stream.write_or_hear(&buffer.filled()[..bytes]).await {
            Ok(None) => return Ok(None),
            Ok(Some(count)) => count,
            // A server that has gone says so on read, with its reason; data for it is dropped.
            Err(_) => bytes,
        };
        buffer.consume(passed);
        Ok(Some(passed))
    }

    /// Reads more of the client, or finds that the server has spoken. Only then is the server read: it
    /// waits for the client. `None` is that the statement takes too long.
    async fn wait_for_data(&mut self, buffer: &mut Buffer, streams: bool) -> Result<Option<Speaker>, End> {
        let Some(held) = &mut self.held else { return Err(End::Left) };
        let (server, client, stock) = (&mut held.lease.stream, &mut self.stream, &self.shared.stock);
        let overdue = self.overdue.as_ref().map(|it| it.at);
        if buffer.is_empty() {
            // A client that takes its time holds no buffer.
            stock.give_back(std::mem::take(buffer));
        }
        let reading = async {
            if buffer.is_empty() {
                poll_fn(|cx| client.poll_readable(cx)).await?;
                *buffer = stock.take();
            }
            if streams {
                stock.widen(buffer);
            }
            client.read(buffer).await
        };
        tokio::select! {
            biased;
            _ = server.has_bytes() => Ok(Some(Speaker::Server)),
            read = reading => match read {
                Ok(count) if count > 0 => Ok(Some(Speaker::Client)),
                _ => Err(End::Left),
            },
            () = passed(overdue), if overdue.is_some() => Ok(None),
        }
    }

    /// Deals with what is left of the messages that are on their way when COPY ends. A server that has the start of one
    /// needs the rest, even to ignore it: it would take what follows, the Sync it waits for, for data. Of more
    /// CopyData behind it nothing comes (`PostgresMain` in postgres.c ignores it).
    async fn end_message(&mut self, buffer: &mut Buffer, mut rest: usize) -> Result<(), End> {
        while rest > 0 {
            let count = rest.min(buffer.filled().len());
            if let Some(held) = &mut self.held {
                let _ = held.lease.stream.write_all(&buffer.filled()[..count]).await;
            }
            buffer.consume(count);
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
            Ok(Stop::Drained | Stop::Retry | Stop::Renew) => {
                let (shard, role) = (held.shard, held.role);
                if let Some(copying) = self.copying.take() {
                    self.count_copy(&copying, shard, role, &flow, Instant::now());
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
            self.count_copy(&copying, shard, role, flow, Instant::now());
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

pub(super) async fn passed(at: Option<Instant>) {
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

fn next_step(bytes: &[u8], message: Message) -> Result<Step, End> {
    let pass = |of: Message| match of.rest.min(bytes.len()) {
        0 => Step::More,
        bytes => Step::Pass { bytes, of },
    };
    if message.rest > 0 {
        return Ok(pass(message));
    }
    let input = wire::copy_input(bytes).map_err(|it| End::Fatal(malformed(&it)))?;
    let Some((input, length)) = input else { return Ok(Step::More) };
    Ok(match input {
        // Many a client sends each row as a message: they go on together.
        CopyInput::Data(_) => pass(Message { rest: wire::copy_data_bytes(bytes), is_last: false }),
        CopyInput::Done | CopyInput::Fail(_) => pass(Message { rest: length, is_last: true }),
        CopyInput::Skip => Step::Skip { bytes: length },
        CopyInput::Terminate => return Err(End::Left),
        CopyInput::Other(tag) => {
            let message = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
            return Err(End::Fatal(violation(message)));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn passed_of(bytes: &[u8], message: Message) -> (usize, usize, bool) {
        match next_step(bytes, message) {
            Ok(Step::Pass { bytes, of }) => (bytes, of.rest, of.is_last),
            _ => panic!("nothing is passed on of {bytes:?}"),
        }
    }

    #[test]
    fn rows_go_on_together_with_the_beginning_of_the_last_one() {
        let rows = [message(b'd', b"1\n"), message(b'd', b""), message(b'd', b"22\n")].concat();
        let rest = Message { rest: 3, is_last: false };
        for behind in
            [vec![], message(b'c', b""), message(b'S', b""), b"d\0\0".to_vec(), b"d\0\0\0\x03".to_vec()]
        {
            let bytes = [&rows[..], &behind].concat();
            assert_eq!(passed_of(&bytes, Message::default()), (rows.len(), rows.len(), false), "{behind:?}");
            assert_eq!(passed_of(&bytes, rest), (3, 3, false), "what is on its way comes first");
        }
        let part = [&rows[..], b"d\0\0\0\x0eabc"].concat();
        assert_eq!(passed_of(&part, Message::default()), (part.len(), part.len() + 7, false));
        assert_eq!(passed_of(b"d\0\0\0\x0eabc", Message::default()), (8, 15, false));
    }

    #[test]
    fn what_ends_a_copy_is_passed_on_whole_and_alone() {
        let fail = message(b'f', b"why\0");
        let bytes = [&fail[..], &message(b'd', b"1")].concat();
        assert_eq!(passed_of(&bytes, Message::default()), (fail.len(), fail.len(), true));
        assert!(matches!(next_step(&fail[..7], Message::default()), Ok(Step::More)));
        let skipped = next_step(&message(b'H', b""), Message::default());
        assert!(matches!(skipped, Ok(Step::Skip { bytes: 5 })));
    }

    #[test]
    fn nothing_that_may_be_long_is_waited_for() {
        for head in [
            &b"f\x7f\xff\xff\xff"[..],
            b"c\0\0\x30\0",
            b"S\0\0\x30\0",
            b"Q\0\0\0\xff",
            b"?\0\0\0\xff",
            b"d\0\0\0\x03",
        ] {
            assert!(matches!(next_step(head, Message::default()), Err(End::Fatal(_))), "{head:?}");
        }
    }
}
