//! The accept loop: one task per connection, no more than the config allows.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::client::{self, Console, Latest, Shared};
use crate::net::Stream;
use crate::wire::{self, Severity};

/// After an accept that failed for want of something (file descriptors) trying at once would spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

pub async fn run(
    listener: TcpListener,
    latest: Arc<Latest>,
    console: Arc<dyn Console>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            it = listener.accept() => it,
            _ = stopping.wait_for(|it| *it) => return,
        };
        let stream = match accepted {
            Ok((tcp, _)) => Stream::accepted(tcp),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let shared = latest.load();
        let free = shared.clients.take().map(|it| (it, false));
        match free.or_else(|| shared.reserve.take().map(|it| (it, true))) {
            Some((place, reserved)) => {
                tokio::spawn(client::serve(stream, latest.clone(), console.clone(), place, reserved));
            }
            None => turn_away(stream, &shared),
        }
    }
}

fn turn_away(mut stream: Stream, shared: &Shared) {
    shared.metrics.login("refused");
    let refusal = client::too_many(shared);
    tokio::spawn(async move {
        let mut out = Vec::new();
        wire::error(&mut out, Severity::Fatal, &refusal);
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&out)).await;
    });
}
