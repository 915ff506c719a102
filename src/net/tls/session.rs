//! TLS over one socket, without a buffer of its own for bytes that are not there: ciphertext is received
//! on the stack, and rustls keeps no more than the record that is under way.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, Connection, ProtocolVersion};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::super::buffer::Buffer;

/// One read of the socket: a record of the greatest size with its header.
const RECEIVED_BYTES: usize = 16 * 1024 + 320;
/// rustls takes no more ciphertext while this much plaintext is unread.
const UNREAD_BYTES_MAX: usize = 16 * 1024;
/// Plaintext taken at once; rustls buffers four times as much ciphertext before it takes less.
const WRITE_BYTES_MAX: usize = 16 * 1024;

/// ```text
/// Handshaking ──finished──▶ Open ──close_notify, end or error──▶ ended
/// ```
/// Every method that may wait is cancel safe: what was received, decrypted or encrypted stays here.
#[derive(Debug)]
pub struct TlsSession {
    connection: Connection,
    /// Ciphertext that waits for plaintext to be read.
    ahead: Vec<u8>,
    /// Bytes that are decrypted and not read.
    unread: usize,
    /// Nothing more will be received.
    ended: bool,
}

/// What both sides of a connection have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsTerms {
    version: ProtocolVersion,
    suite: CipherSuite,
}

/// As PgBouncer writes it: `TLSv1.3/TLS_AES_256_GCM_SHA384`.
impl fmt::Display for TlsTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.as_str().unwrap_or("TLS").replace('_', ".");
        let suite = self.suite.as_str().unwrap_or_default();
        write!(f, "{version}/{}", suite.replacen("TLS13_", "TLS_", 1))
    }
}

impl TlsSession {
    /// `None` before the end of the handshake.
    pub fn terms(&self) -> Option<TlsTerms> {
        let version = self.connection.protocol_version()?;
        Some(TlsTerms { version, suite: self.connection.negotiated_cipher_suite()?.suite() })
    }

    /// `ahead` is what has been received of the handshake already.
    pub fn new(connection: Connection, ahead: Vec<u8>) -> TlsSession {
        TlsSession { connection, ahead, unread: 0, ended: false }
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates()?.first()
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// The peer has ended, and everything that it said has been read.
    pub fn is_over(&self) -> bool {
        self.unread == 0 && self.ended
    }

    pub fn poll_handshake(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(tcp, cx))?;
            if !self.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_receive(tcp, cx))?;
        }
    }

    /// Ready when a read would find something: plaintext and not mere ciphertext, which may be TLS's own
    /// talk, the end, or an error.
    pub fn poll_readable(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What the socket did not take before goes out while its owner waits. That it cannot is told to
        // who writes: what the peer said before can still be read.
        let _ = self.poll_flush(tcp, cx);
        while self.unread == 0 && !self.ended {
            ready!(self.poll_receive(tcp, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub fn poll_read(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(tcp, cx))?;
        buffer.make_room();
        let mut room = buffer.room();
        let mut reader = self.connection.reader();
        let before = self.unread;
        while self.unread > 0 && room > 0 {
            let chunk = reader.fill_buf()?;
            let count = chunk.len().min(room);
            buffer.bytes.extend_from_slice(&chunk[..count]);
            reader.consume(count);
            self.unread -= count;
            room -= count;
        }
        Poll::Ready(Ok(before - self.unread))
    }

    /// Takes `bytes` or a part of them once what was taken before has gone out. They may go out later:
    /// with [`TlsSession::poll_flush`], or while somebody waits for the peer.
    pub fn poll_write(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(tcp, cx))?;
        let count = self.connection.writer().write(&bytes[..bytes.len().min(WRITE_BYTES_MAX)])?;
        match self.poll_flush(tcp, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    pub fn poll_flush(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            ready!(tcp.poll_write_ready(cx))?;
            match self.connection.write_tls(&mut Socket(tcp)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                _ => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has the end of the stream among what is to be flushed.
    pub fn say_end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Decrypts what was left over before, or what one read of the socket gives.
    fn poll_receive(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ahead = std::mem::take(&mut self.ahead);
        let received = if !ahead.is_empty() {
            self.decrypt(&ahead)
        } else {
            let mut bytes = [MaybeUninit::uninit(); RECEIVED_BYTES];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut *tcp).poll_read(cx, &mut bytes)) {
                Ok(()) if bytes.filled().is_empty() => {
                    // An end without close_notify is taken for one: PostgreSQL's messages say themselves
                    // where they end, so that one cut off is seen.
                    self.ended = true;
                    Ok(())
                }
                Ok(()) => self.decrypt(bytes.filled()),
                Err(error) => Err(error),
            }
        };
        if received.is_err() {
            self.ended = true;
        }
        // Answers of TLS itself: handshake, alerts, new keys.
        let _ = self.poll_flush(tcp, cx);
        Poll::Ready(received)
    }

    fn decrypt(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && self.unread < UNREAD_BYTES_MAX && !self.ended {
            self.connection.read_tls(&mut bytes)?;
            let state = self.connection.process_new_packets();
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.unread = state.plaintext_bytes_to_read();
            self.ended = state.peer_has_closed();
        }
        if !self.ended {
            self.ahead = bytes.to_vec();
        }
        Ok(())
    }
}

/// Takes what the socket takes now.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
