//! Connecting to a server: a socket, and TLS on it as the attempt at hand says.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;

use super::buffer::Buffer;
use super::stream::Stream;
use super::tls::{Connector, Encryption, EndPoint, end_point};
use crate::wire;

#[derive(Debug, Error)]
pub enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("server does not speak TLS, which `server_tls` of this database requires")]
    NotOffered,
    #[error("server answered the request for TLS with something else")]
    NoAnswer,
    /// Whoever is in between has sent bytes ahead of TLS, as if they came from the server.
    #[error("received unencrypted data after the answer to the request for TLS")]
    Injected,
    #[error("server did not agree on ALPN protocol \"postgresql\", which direct TLS needs")]
    NoAlpn,
}

/// A connected server.
#[derive(Debug)]
pub struct Dialled {
    pub stream: Stream,
    /// Of the server's certificate.
    pub end_point: Option<EndPoint>,
}

/// Connects to `host:port` without TLS, trying each address that the name has, all within `timeout`.
/// Cancel safe: dropping the future closes the socket.
pub async fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<Stream> {
    let attempt = tokio::time::timeout(timeout, TcpStream::connect((host, port)));
    let tcp = attempt.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Stream::new(tcp)
}

/// As `connect`, with TLS as `encryption` has it.
pub async fn dial(
    (host, port): (&str, u16),
    connector: &Connector,
    encryption: Encryption,
    timeout: Duration,
) -> Result<Dialled, DialError> {
    let dialling = async {
        let stream = Stream::new(TcpStream::connect((host, port)).await?)?;
        secure(stream, host, connector, encryption).await
    };
    let dialled = tokio::time::timeout(timeout, dialling).await;
    dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn secure(
    mut stream: Stream,
    host: &str,
    connector: &Connector,
    encryption: Encryption,
) -> Result<Dialled, DialError> {
    let wanted = match encryption {
        Encryption::None => false,
        Encryption::Direct => true,
        Encryption::Offered | Encryption::Required => ask(&mut stream).await?,
    };
    if !wanted {
        return match encryption {
            Encryption::Required => Err(DialError::NotOffered),
            _ => Ok(Dialled { stream, end_point: None }),
        };
    }
    let handshake = connector.metrics.with_server();
    let session = connector.session(host).map_err(DialError::Handshake)?;
    let session = stream.handshake(session).await.map_err(DialError::Handshake)?;
    if encryption == Encryption::Direct && session.alpn() != Some(wire::ALPN) {
        return Err(DialError::NoAlpn);
    }
    let end_point = end_point(session);
    handshake.done();
    Ok(Dialled { stream, end_point })
}

/// Whether the server speaks TLS. More than its answer is an attack (CVE-2021-23222).
async fn ask(stream: &mut Stream) -> Result<bool, DialError> {
    stream.write_all(&wire::tls_request()).await?;
    let mut buffer = Buffer::default();
    if stream.read(&mut buffer).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
    }
    let answer = buffer.filled();
    match wire::tls_answer(&answer[..1]) {
        None => Err(DialError::NoAnswer),
        Some(_) if answer.len() > 1 => Err(DialError::Injected),
        Some(speaks) => Ok(speaks),
    }
}
