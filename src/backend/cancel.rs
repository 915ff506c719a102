//! Cancelling what a server connection runs, over a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::net::{self, Buffer, Connector, Stream};
use crate::wire::{self, CancelKey};

/// How long a server may take to deal with a cancel request before it is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where to cancel what one server connection runs, and with which key.
#[derive(Debug)]
pub struct CancelTarget {
    pub host: Arc<str>,
    pub port: u16,
    pub key: CancelKey,
    /// What the connection's TLS was made with, if it has any: the key is as good as the connection.
    pub tls: Option<Arc<Connector>>,
}

/// What is known at the end of a cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelEnd {
    /// The server has closed the connection, which it does when the signal is sent: from here on nothing of
    /// the request can reach a query that begins later.
    Done,
    /// No connection came about, so that nothing is on its way.
    NotSent,
    /// It may be on its way still, and may hit whatever the server connection runs then.
    Unknown,
}

impl CancelTarget {
    /// Dropped half way it is as good as `Unknown`.
    pub async fn cancel(&self) -> CancelEnd {
        let deadline = Instant::now() + CANCEL_TIMEOUT;
        let Ok(mut stream) = self.connect().await else { return CancelEnd::NotSent };
        let request = wire::cancel_request(&self.key);
        match timeout_at(deadline, ask(&mut stream, &request)).await {
            Ok(Ok(())) => CancelEnd::Done,
            _ => CancelEnd::Unknown,
        }
    }

    /// Up to the end of the handshake, if there is one: until then no key is sent.
    async fn connect(&self) -> std::io::Result<Stream> {
        match &self.tls {
            None => net::connect(&self.host, self.port, CANCEL_TIMEOUT).await,
            Some(tls) => {
                let dialled = net::dial((&self.host, self.port), tls, tls.again(), CANCEL_TIMEOUT).await;
                Ok(dialled.map_err(std::io::Error::other)?.stream)
            }
        }
    }
}

/// Sends, and waits for the other side to close.
async fn ask(stream: &mut Stream, request: &[u8]) -> std::io::Result<()> {
    stream.write_all(request).await?;
    let mut buffer = Buffer::default();
    while stream.read(&mut buffer).await? > 0 {
        buffer.consume(buffer.filled().len());
    }
    Ok(())
}
