//! The accept loop: one task per connection, no more than the config allows.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::base::{Reason, Refusal, SqlState};
use crate::client::{self, Shared};
use crate::metrics::Limit;
use crate::net::Stream;
use crate::wire::{self, Severity};

/// After an accept that failed for want of something (file descriptors) trying at once would spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

pub async fn run(listener: TcpListener, shared: Arc<Shared>, clients_max: usize) {
    let room = Arc::new(Semaphore::new(clients_max.min(Semaphore::MAX_PERMITS)));
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = tokio::select! {
            it = listener.accept() => it,
            _ = stopping.wait_for(|it| *it) => return,
        };
        let stream = match accepted.and_then(|(tcp, _)| Stream::new(tcp)) {
            Ok(it) => it,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        match room.clone().try_acquire_owned() {
            Ok(permit) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    client::serve(stream, shared).await;
                    drop(permit);
                });
            }
            Err(_) => turn_away(stream, &shared),
        }
    }
}

fn turn_away(mut stream: Stream, shared: &Shared) {
    shared.metrics.login("refused");
    shared.hits.hit(Limit::Clients);
    let refusal =
        Refusal::new(Reason::Limit, SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already");
    tokio::spawn(async move {
        let mut out = Vec::new();
        wire::error(&mut out, Severity::Fatal, &refusal);
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&out)).await;
    });
}
