//! A connected socket. It deliberately is no `AsyncRead` or `AsyncWrite`: only what the relay needs.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::buffer::Buffer;

#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
}

/// Connects to `host:port`, trying each address that the name has, all within `timeout`.
/// Cancel safe: dropping the future closes the socket.
pub async fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<Stream> {
    let attempt = tokio::time::timeout(timeout, TcpStream::connect((host, port)));
    let tcp = attempt.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Stream::new(tcp)
}

impl Stream {
    /// Small messages leave at once; a peer that vanished without a word is noticed by keepalive.
    pub fn new(tcp: TcpStream) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(10));
        socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
        Ok(Stream { tcp })
    }

    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.tcp.peer_addr().ok()
    }

    pub fn local(&self) -> Option<std::net::SocketAddr> {
        self.tcp.local_addr().ok()
    }

    /// Waits until a read would find something, holding no buffer. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.tcp.poll_read_ready(cx)).await
    }

    /// Waits until a read does find something, or the end: readiness may be a memory of bytes that are
    /// read already, and a read then waits for bytes that may never come. Cancel safe.
    pub async fn has_bytes(&self) -> io::Result<()> {
        loop {
            self.readable().await?;
            let mut byte = [std::mem::MaybeUninit::uninit()];
            let peek = || socket2::SockRef::from(&self.tcp).peek(&mut byte);
            match self.tcp.try_io(Interest::READABLE, peek) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return Ok(()),
            }
        }
    }

    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    /// Appends what there is; 0 is the end of the stream. Cancel safe.
    ///
    /// A read that does not fill the buffer clears tokio's readiness, so that the next wait asks
    /// epoll and not the socket: no read that ends in EAGAIN.
    pub async fn read(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        buffer.make_room();
        self.tcp.read_buf(&mut buffer.bytes).await
    }

    /// Sends what the socket takes, waiting until that is something. Cancel safe.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.tcp.writable().await?;
            match self.tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    /// Not cancel safe: a part may have been sent.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tcp.write_all(bytes).await
    }

    /// Whether the peer has closed its side; a readable socket with data says no. Costs a system
    /// call only when the socket is readable.
    pub fn is_closed_by_peer(&self) -> bool {
        let peeked = self.tcp.try_io(Interest::READABLE, || {
            let mut byte = [std::mem::MaybeUninit::uninit()];
            socket2::SockRef::from(&self.tcp).peek(&mut byte)
        });
        match peeked {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Whether an idle server connection has anything to say, which it should not.
    pub fn has_news(&self, cx: &mut Context<'_>) -> bool {
        self.tcp.poll_read_ready(cx).is_ready()
            && {
                let mut byte = [std::mem::MaybeUninit::uninit()];
                let peek = || socket2::SockRef::from(&self.tcp).peek(&mut byte);
                !matches!(self.tcp.try_io(Interest::READABLE, peek), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            }
    }

    /// Sends the end of the stream and reads on until the peer has closed too.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.tcp.shutdown().await
    }
}

/// Why no whole message came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("connection closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("invalid message length")]
    Frame,
    #[error("message of {0} bytes is too long")]
    TooLong(usize),
}

/// Waits until a whole message stands at the start of `buffer` and returns its tag and length. For the
/// cold path of logins: the relay walks headers itself. Cancel safe: what was read stays in `buffer`.
pub async fn read_message(
    stream: &mut Stream,
    buffer: &mut Buffer,
    bytes_max: usize,
) -> Result<(u8, usize), ReadError> {
    loop {
        if let Some(head) = crate::wire::header(buffer.filled()).map_err(|_| ReadError::Frame)? {
            if head.total > bytes_max {
                return Err(ReadError::TooLong(head.total));
            }
            if buffer.filled().len() >= head.total {
                return Ok((head.tag, head.total));
            }
        }
        if stream.read(buffer).await? == 0 {
            return Err(ReadError::Closed);
        }
    }
}
