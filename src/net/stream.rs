//! A connected socket. It deliberately is no `AsyncRead` or `AsyncWrite`: only what the relay needs.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::buffer::Buffer;
use super::tie::Tie;
use super::tls::{Acceptor, ClientFacts, TlsMetrics, TlsSession, TlsTerms};

/// Small messages leave at once; a peer that vanished without a word is noticed by keepalive.
pub(super) fn set_options(socket: &impl AsFd) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&keepalive)
}

/// With TLS or without. Without it costs one look at a field that is in the cache already.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<TlsSession>>,
    /// Where others watch the peer. Who cuts it wakes the task that uses the stream.
    tie: Option<Arc<Tie>>,
}

impl Stream {
    /// Of a connection that was made to a server.
    pub fn new(tcp: TcpStream) -> io::Result<Stream> {
        set_options(&tcp)?;
        Ok(Stream::accepted(tcp))
    }

    /// Of a connection to a listener that has the options, and hands them on (tcp(7)): four system calls less.
    pub fn accepted(tcp: TcpStream) -> Stream {
        Stream { tcp, tls: None, tie: None }
    }

    /// From here on reads and writes fail once `tie` is cut, also those that wait.
    pub fn bind(&mut self, tie: Arc<Tie>) {
        self.tie = Some(tie);
    }

    fn check(&self) -> io::Result<()> {
        self.tie.as_ref().map_or(Ok(()), |it| it.check())
    }

    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.tcp.peer_addr().ok()
    }

    pub fn local(&self) -> Option<std::net::SocketAddr> {
        self.tcp.local_addr().ok()
    }

    /// From here on everything goes through `session`. Cut off half way, the stream is of no use.
    pub(super) async fn handshake(&mut self, session: TlsSession) -> io::Result<&TlsSession> {
        let session = self.tls.insert(Box::new(session));
        poll_fn(|cx| session.poll_handshake(&mut self.tcp, cx)).await?;
        Ok(session)
    }

    /// Makes TLS of a connection whose client has asked for it. `ahead` is what it has sent of its
    /// handshake already. Dropped half way, the stream is of no use.
    pub async fn accept_tls(
        &mut self,
        acceptor: &Acceptor,
        metrics: &TlsMetrics,
        ahead: Vec<u8>,
    ) -> io::Result<ClientFacts> {
        let handshake = metrics.with_client();
        let session = self.handshake(acceptor.session(ahead)?).await?;
        handshake.done();
        Ok(acceptor.facts(session))
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub fn tls_terms(&self) -> Option<TlsTerms> {
        self.tls.as_ref()?.terms()
    }

    /// The protocol that the peers have agreed on (ALPN).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.alpn()
    }

    /// In between, when nothing can be said to the peer.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|it| it.is_handshaking())
    }

    /// Waits until a read does find something, or the end: readiness may be a memory of bytes that are
    /// read already, and a read then waits for bytes that may never come. Cancel safe.
    pub async fn has_bytes(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_has_bytes(cx)).await
    }

    /// As [`Stream::has_bytes`], for who waits for several things at once.
    pub fn poll_has_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_readable(cx))?;
            if self.tls.is_some() || !matches!(self.peek(), Err(error) if is_not_yet(&error)) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether a read would find something, holding no buffer. Without TLS it may be a memory, as said
    /// at [`Stream::has_bytes`]. Cancel safe.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        match &mut self.tls {
            None => self.tcp.poll_read_ready(cx),
            Some(tls) => tls.poll_readable(&mut self.tcp, cx),
        }
    }

    /// Whether the socket is readable as far as tokio knows, for a task that was woken: cheaper than to ask to be woken once more.
    /// It takes nothing of the task's budget, and says no with TLS.
    pub fn is_readable(&self) -> bool {
        self.tls.is_none() && self.tcp.try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    /// Appends what there is; 0 is the end of the stream. Cancel safe.
    pub async fn read(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// As [`Stream::read`], of a stream that has just been readable: the socket is asked before readiness is
    /// asked for once more. It takes nothing of the task's budget, so that it is for who has waited. Cancel safe.
    pub async fn read_ready(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        if self.tls.is_none() {
            self.check()?;
            match self.receive(buffer) {
                Err(error) if is_not_yet(&error) => {}
                read => return read,
            }
        }
        self.read(buffer).await
    }

    /// As [`Stream::read_ready`], without waiting: `None` is that nothing has come yet. Who waits next has to ask for
    /// readiness anew.
    pub fn read_at_once(&mut self, buffer: &mut Buffer) -> io::Result<Option<usize>> {
        let read = match self.tls {
            None => self.check().and_then(|()| self.receive(buffer)),
            Some(_) => match self.poll_read(&mut Context::from_waker(Waker::noop()), buffer) {
                Poll::Ready(read) => read,
                Poll::Pending => return Ok(None),
            },
        };
        match read {
            Err(error) if is_not_yet(&error) => Ok(None),
            read => read.map(Some),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        self.check()?;
        if let Some(tls) = &mut self.tls {
            return tls.poll_read(&mut self.tcp, cx, buffer);
        }
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.receive(buffer) {
                Err(error) if is_not_yet(&error) => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// What there is, without waiting.
    ///
    /// A read that does not fill the buffer has emptied the socket: tokio is told that it would block, so that the
    /// next wait asks epoll and not the socket, and no read ends in EAGAIN.
    fn receive(&self, buffer: &mut Buffer) -> io::Result<usize> {
        let bytes = buffer.room_to_read();
        let room = bytes.capacity() - bytes.len();
        let mut taken = 0;
        let received = self.tcp.try_io(Interest::READABLE, || {
            (taken, _) = rustix::net::recv(&self.tcp, spare_capacity(bytes), RecvFlags::empty())?;
            if (1..room).contains(&taken) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match received {
            Err(error) if taken == 0 => Err(error),
            _ => Ok(taken),
        }
    }

    /// What the socket takes, without waiting.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.try_io(Interest::WRITABLE, || self.send_at_once(bytes))
    }

    /// The same past what tokio knows of the socket, which learns nothing of it: who gets "not yet" has to try again in a
    /// way of tokio's before it waits.
    fn send_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.tcp, bytes, SendFlags::NOSIGNAL)?)
    }

    /// Sends what the socket takes, waiting until that is something. `None` is that it takes nothing and
    /// the peer has spoken, or gone. Cancel safe.
    pub async fn write_or_hear(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        poll_fn(|cx| {
            if let Poll::Ready(written) = self.poll_write(cx, bytes) {
                return Poll::Ready(written.map(Some));
            }
            // An error is heard by who reads next.
            self.poll_has_bytes(cx).map(|_| Ok(None))
        })
        .await
    }

    /// Sends what the socket takes, waiting until that is something. With TLS it may go out later, while the
    /// stream's owner waits for the peer. Cancel safe.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write(cx, bytes)).await
    }

    /// Sends what the socket takes. With TLS some of it may go out later, with [`Stream::poll_flush`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        if let Some(tls) = &mut self.tls {
            return tls.poll_write(&mut self.tcp, cx, bytes);
        }
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match self.send(bytes) {
                Err(error) if is_not_yet(&error) => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Ready when all that was written is with the socket.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.poll_flush(&mut self.tcp, cx),
        }
    }

    /// As [`Stream::write_all`], without waiting. `Some` is the rest, which that has to be called for; with TLS it may be empty,
    /// when what was written has not gone out yet.
    pub fn write_at_once<'a>(&mut self, mut bytes: &'a [u8]) -> io::Result<Option<&'a [u8]>> {
        self.check()?;
        let Some(tls) = &mut self.tls else {
            let sent = match self.send_at_once(bytes) {
                Err(error) if is_not_yet(&error) => 0,
                sent => sent?,
            };
            return Ok((sent < bytes.len()).then(|| &bytes[sent..]));
        };
        let cx = &mut Context::from_waker(Waker::noop());
        while !bytes.is_empty() {
            match tls.poll_write(&mut self.tcp, cx, bytes) {
                Poll::Ready(written) => bytes = &bytes[written?..],
                Poll::Pending => return Ok(Some(bytes)),
            }
        }
        match tls.poll_flush(&mut self.tcp, cx) {
            Poll::Ready(flushed) => flushed.map(|()| None),
            Poll::Pending => Ok(Some(bytes)),
        }
    }

    /// Not cancel safe: a part may have been sent.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        if self.tls.is_none() {
            // A socket nearly always takes all at once: only one that does not is waited for.
            let sent = match self.send_at_once(bytes) {
                Err(error) if is_not_yet(&error) => 0,
                sent => sent?,
            };
            if sent == bytes.len() {
                return Ok(());
            }
            bytes = &bytes[sent..];
        }
        let tie = self.tie.as_deref();
        let Some(tls) = &mut self.tls else {
            let mut writing = pin!(self.tcp.write_all(bytes));
            return poll_fn(|cx| {
                tie.map_or(Ok(()), Tie::check)?;
                writing.as_mut().poll(cx)
            })
            .await;
        };
        poll_fn(|cx| {
            tie.map_or(Ok(()), Tie::check)?;
            while !bytes.is_empty() {
                let count = ready!(tls.poll_write(&mut self.tcp, cx, bytes))?;
                bytes = &bytes[count..];
            }
            tls.poll_flush(&mut self.tcp, cx)
        })
        .await
    }

    fn peek(&self) -> io::Result<usize> {
        self.tcp.try_io(Interest::READABLE, || {
            let mut byte = [std::mem::MaybeUninit::uninit()];
            socket2::SockRef::from(&self.tcp).peek(&mut byte)
        })
    }

    /// Whether the peer has closed its side; a readable socket with data says no. Of a stream that has
    /// just been readable. Costs a system call only when the socket is readable.
    pub fn is_closed_by_peer(&self) -> bool {
        if let Some(tls) = &self.tls {
            return tls.is_over();
        }
        match self.peek() {
            Ok(count) => count == 0,
            Err(error) => !is_not_yet(&error),
        }
    }

    /// Whether the peer has closed its side, whatever it has sent before that and nobody has read.
    pub fn has_hung_up(&self) -> bool {
        let mut ready = pin!(self.tcp.ready(Interest::READABLE));
        match ready.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(it)) => it.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// As [`Stream::has_news`], for who does not wait for it.
    pub fn has_spoken(&mut self) -> bool {
        match self.tls {
            None => self.check().is_err() || !matches!(self.peek(), Err(error) if is_not_yet(&error)),
            Some(_) => self.has_news(&mut Context::from_waker(Waker::noop())),
        }
    }

    /// Whether an idle server connection has anything to say, which it should not.
    pub fn has_news(&mut self, cx: &mut Context<'_>) -> bool {
        self.poll_has_bytes(cx).is_ready()
    }

    /// Sends the end of the stream; the peer may still speak.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.say_end();
            poll_fn(|cx| tls.poll_flush(&mut self.tcp, cx)).await?;
        }
        self.tcp.shutdown().await
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
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
