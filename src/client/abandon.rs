//! A server whose client has gone while it had work: it is made to stop, and counts against its pool until it
//! has, so that a client that dies leaves no lock and no transaction behind.

use std::ops::DerefMut;
use std::time::Duration;

use tokio::time::timeout;

use crate::backend::{Backend, CancelEnd};
use crate::net::Buffer;

/// A cancel request that comes before the query has begun cancels nothing, so it is sent again.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// With the pauses above more than half a minute; then the connection is closed whatever the server does.
const TRIES_MAX: u32 = 40;

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

/// Until the server closes, its answers unread.
async fn closed(server: &mut Backend) {
    let mut buffer = Buffer::default();
    while server.stream.read(&mut buffer).await.is_ok_and(|it| it > 0) {
        buffer.consume(buffer.filled().len());
    }
}
