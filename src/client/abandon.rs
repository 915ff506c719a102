//! A server whose client has gone while it had work: it is made to stop, and counts against its pool until it
//! has, so that a client that dies leaves no lock and no transaction behind.

use std::ops::DerefMut;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::session::Held;
use crate::backend::{Backend, CancelEnd};
use crate::cancel::Targets;
use crate::net::Buffer;
use crate::proto::{Part, Replies};

/// A cancel request that comes before the query has begun cancels nothing, so it is sent again.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// With the pauses above more than half a minute; then the connection is closed whatever the server does.
const TRIES_MAX: u32 = 40;
/// With pauses that double, about six seconds: by then a server has begun what it was sent.
const CLOSED_TRIES: u32 = 7;

/// Cancels what runs until the server has closed the connection, which it does behind all that it was sent,
/// and at once where it waits for COPY data. `held` keeps the connection's place until then.
pub(super) fn abandon(mut held: impl DerefMut<Target = Backend> + Send + 'static) {
    tokio::spawn(async move {
        let mut again = AGAIN_MIN;
        // It reads no more, and ends when it gets there.
        let _ = held.stream.shutdown().await;
        for _ in 0..TRIES_MAX {
            let target = held.cancel.clone();
            let cancelled = timeout(AGAIN_MAX, target.cancel()).await;
            let refused = cancelled == Ok(CancelEnd::NotSent);
            if refused || timeout(again, closed(&mut held)).await.is_ok() {
                break;
            }
            again = (again * 2).min(AGAIN_MAX);
        }
        drop(held);
    });
}

/// As `abandon`, of connections that were closed in the middle of a statement: no answer tells when it has ended. A
/// cancel that comes later than that finds nobody.
pub(super) fn cancel_closed(targets: Targets) {
    if targets.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let mut again = AGAIN_MIN;
        for _ in 0..CLOSED_TRIES {
            join_all(targets.iter().map(|it| timeout(AGAIN_MAX, it.cancel()))).await;
            tokio::time::sleep(again).await;
            again *= 2;
        }
    });
}

/// Ends what runs on servers that their client goes on to use, and reads away what they say. Whether they all have ended
/// within `grace` of it, each with a status of its own. `buffers` hold what of each was read and not dealt with.
pub(super) async fn quiet(team: &mut [Held], buffers: &mut [Buffer], grace: Duration) -> bool {
    let each = team.iter_mut().zip(buffers);
    let busy = each.filter(|(it, _)| !it.lease.pipeline.is_drained());
    let quieted = busy.map(|(it, buffer)| timeout(grace, drained(&mut it.lease, buffer)));
    join_all(quieted).await.into_iter().all(|it| it == Ok(true))
}

/// What is not certain to have arrived could hit the next statement.
async fn drained(server: &mut Backend, buffer: &mut Buffer) -> bool {
    let target = server.cancel.clone();
    let mut replies = Replies::default();
    server.pipeline.set_part(Part::SILENT);
    let mut cancelling = pin!(target.cancel());
    // One that has said all is at its end anyway.
    let mut cancelled = server.pipeline.has_sent_rows().then_some(CancelEnd::NotSent);
    while !server.pipeline.is_drained() {
        tokio::select! {
            end = &mut cancelling, if cancelled.is_none() => cancelled = Some(end),
            read = server.stream.read(buffer) => {
                if !read.is_ok_and(|it| it > 0) {
                    return false;
                }
                replies.next_buffer();
                let Ok(consumed) = server.pipeline.feed(buffer.filled(), &mut replies) else { return false };
                buffer.consume(consumed);
            }
        }
    }
    let end = match cancelled {
        Some(it) => it,
        None => cancelling.await,
    };
    end != CancelEnd::Unknown
}

/// Until the server closes, its answers unread.
async fn closed(server: &mut Backend) {
    let mut buffer = Buffer::default();
    while server.stream.read(&mut buffer).await.is_ok_and(|it| it > 0) {
        buffer.consume(buffer.filled().len());
    }
}
