//! The HTTP side's connections, with bounds: it must not be the way to exhaust the process that
//! serves the database.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Enough for scrapers, probes and a few open pages; those beyond wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// A connection ends after this long, whatever it does: one bound for a header that never ends, a
/// reader that never reads and one that sits idle. Scrapers connect again by themselves.
const LIFETIME: Duration = Duration::from_secs(60);
/// After an accept that failed for want of something (file descriptors) trying at once would spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

pub struct BoundedListener {
    listener: TcpListener,
    room: Arc<Semaphore>,
    lifetime: Duration,
}

impl BoundedListener {
    pub fn new(listener: TcpListener) -> BoundedListener {
        BoundedListener::with_bounds(listener, CONNECTIONS_MAX, LIFETIME)
    }

    fn with_bounds(listener: TcpListener, connections_max: usize, lifetime: Duration) -> BoundedListener {
        BoundedListener { listener, room: Arc::new(Semaphore::new(connections_max)), lifetime }
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let room = self.room.clone().acquire_owned().await;
            match (self.listener.accept().await, room) {
                (Ok((stream, address)), Ok(room)) => {
                    let end = Box::pin(tokio::time::sleep(self.lifetime));
                    return (Connection { stream, end, _room: room }, address);
                }
                (Err(error), _) => tracing::warn!(%error, "cannot accept an HTTP connection"),
                // The semaphore is never closed; without this arm that would be an unwrap.
                (Ok(_), Err(_)) => {}
            }
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

pub struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _room: OwnedSemaphorePermit,
}

/// Who is at the other end of a request's connection, and when that ends.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub end: Instant,
}

impl Connected<IncomingStream<'_, BoundedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Peer {
        Peer { address: *stream.remote_addr(), end: stream.io().end.deadline() }
    }
}

impl Connection {
    fn within_lifetime(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.within_lifetime(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.within_lifetime(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn serve(connections_max: usize, lifetime: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounded = BoundedListener::with_bounds(listener, connections_max, lifetime);
        let router = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(async move { axum::serve(bounded, router).await });
        address
    }

    async fn answer(mut stream: TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A reset is an end as well.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_header_that_never_ends_does() {
        let address = serve(4, Duration::from_millis(50)).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let answer = answer(stream, "GET / HTTP/1.1\r\nHost: ").await;
        assert!(!answer.contains("hello"), "{answer}");
    }

    #[tokio::test]
    async fn those_beyond_the_bound_are_served_in_turn() {
        let address = serve(1, Duration::from_secs(60)).await;
        let first = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let second = tokio::spawn(answer(second, request));
        assert!(answer(first, request).await.ends_with("hello"));
        assert!(second.await.unwrap().ends_with("hello"));
    }
}
