//! A server whose client has gone while it had work: it is made to stop, and counts against its pool until it
//! has, so that a client that dies leaves no lock and no transaction behind.

use std::time::Duration;

use tokio::time::timeout;

use crate::cancel::{Target, send_cancel};
use crate::net::Buffer;
use crate::pool::Lease;

/// A cancel request that comes before the query has begun cancels nothing, so it is sent again.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// With the pauses above more than half a minute; then the connection is closed whatever the server does.
const TRIES_MAX: u32 = 40;

/// Cancels what runs until the server has closed the connection, which it does behind all that it was sent,
/// and at once where it waits for COPY data.
pub(super) fn abandon(mut lease: Lease, target: Target) {
    tokio::spawn(async move {
        let mut again = AGAIN_MIN;
        // It reads no more, and ends when it gets there.
        let _ = lease.stream.shutdown().await;
        for _ in 0..TRIES_MAX {
            let cancelled = timeout(AGAIN_MAX, send_cancel(&target)).await;
            let refused = matches!(cancelled, Ok(Err(_)));
            if refused || timeout(again, closed(&mut lease)).await.is_ok() {
                break;
            }
            again = (again * 2).min(AGAIN_MAX);
        }
        drop(lease);
    });
}

/// Until the server closes, its answers unread.
async fn closed(lease: &mut Lease) {
    let mut buffer = Buffer::default();
    while lease.stream.read(&mut buffer).await.is_ok_and(|it| it > 0) {
        buffer.consume(buffer.filled().len());
    }
}
