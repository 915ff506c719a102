//! Both ends of TLS over real sockets.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};

use super::super::buffer::Buffer;
use super::super::dial::{DialError, dial};
use super::super::stream::Stream;
use super::*;
use crate::config::{Authorities, ClientTls, Identity, ServerTls, TlsMode};
use crate::metrics::Registry;
use crate::wire;

const SOON: Duration = Duration::from_secs(30);

fn metrics() -> TlsMetrics {
    TlsMetrics::register(&Registry::default()).unwrap()
}

struct Ends {
    client: Stream,
    server: Stream,
}

fn identity(name: &str) -> (Identity, Arc<Authorities>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes());
    let chain = vec![made.cert.der().clone()];
    let authorities = Authorities::new(chain.clone()).unwrap();
    (Identity::new(chain, key.unwrap()).unwrap(), Arc::new(authorities))
}

fn acceptor(identity: &Identity, mode: TlsMode) -> Acceptor {
    let tls = ClientTls {
        mode,
        identity: Some(identity.clone()),
        authorities: None,
        min_version: TlsVersion::V1_2,
    };
    Acceptor::new(&tls).unwrap().unwrap()
}

fn connector(authorities: &Arc<Authorities>) -> Connector {
    let tls = ServerTls {
        mode: TlsMode::VerifyFull,
        authorities: Some(authorities.clone()),
        identity: None,
        is_direct: true,
    };
    Connector::new(&tls, metrics()).unwrap()
}

async fn accept(listener: &TcpListener) -> Stream {
    Stream::new(listener.accept().await.unwrap().0).unwrap()
}

/// Connected and past their handshake, which each side has found fit for channel binding.
async fn ends() -> Ends {
    let (identity, authorities) = identity("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (acceptor, connector, metrics) =
        (acceptor(&identity, TlsMode::Require), connector(&authorities), metrics());
    let serving = async {
        let mut stream = accept(&listener).await;
        let facts = stream.accept_tls(&acceptor, &metrics, Vec::new()).await.unwrap();
        (stream, facts)
    };
    let ((server, facts), dialled) =
        tokio::join!(serving, dial(("localhost", port), &connector, Encryption::Direct, SOON));
    let dialled = dialled.unwrap();
    assert!(facts.end_point.is_some());
    assert_eq!(facts.end_point, dialled.end_point);
    assert_eq!(server.alpn(), Some(b"postgresql".as_slice()));
    Ends { client: dialled.stream, server }
}

async fn plain_ends() -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), accept(&listener));
    Ends { client: Stream::new(client.unwrap()).unwrap(), server }
}

fn is_readable(stream: &mut Stream) -> bool {
    stream.poll_readable(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// All of `count` bytes.
async fn read_exactly(stream: &mut Stream, count: usize) -> Vec<u8> {
    let mut buffer = Buffer::default();
    let reading = async {
        while buffer.filled().len() < count {
            assert!(stream.read(&mut buffer).await.unwrap() > 0, "ended");
        }
    };
    tokio::time::timeout(SOON, reading).await.unwrap();
    buffer.take()
}

#[tokio::test]
async fn plaintext_that_is_decrypted_counts_as_readable() {
    let Ends { mut client, mut server } = ends().await;
    assert!(!is_readable(&mut server), "no news is no news");
    // Two records in one read of the socket, of which the buffer takes one byte less than there are.
    client.write_all(&[1; 10_000]).await.unwrap();
    client.write_all(&[2; 10_000]).await.unwrap();
    tokio::time::timeout(SOON, server.has_bytes()).await.unwrap().unwrap();
    let mut got = Vec::new();
    while got.len() < 20_000 {
        let mut buffer = Buffer::default();
        tokio::time::timeout(SOON, server.read(&mut buffer)).await.unwrap().unwrap();
        got.extend(buffer.take());
    }
    assert_eq!((got[9_999], got[10_000], got.len()), (1, 2, 20_000));
    assert!(!is_readable(&mut server) && !server.has_news(&mut Context::from_waker(Waker::noop())));
}

#[tokio::test]
async fn what_is_not_taken_at_once_is_written_on() {
    for Ends { mut client, mut server } in [plain_ends().await, ends().await] {
        assert_eq!(server.read_at_once(&mut Buffer::default()).unwrap(), None, "nothing has come");
        let all: Vec<u8> = (0..20_000_000usize).map(|it| (it * 31) as u8).collect();
        let rest = client.write_at_once(&all).unwrap().expect("more than sockets hold");
        let (wrote, got) = tokio::join!(client.write_all(rest), read_exactly(&mut server, all.len()));
        wrote.unwrap();
        assert!(got == all);
        assert_eq!(client.write_at_once(b"x").unwrap(), None);
        let mut buffer = Buffer::default();
        tokio::time::timeout(SOON, server.has_bytes()).await.unwrap().unwrap();
        assert_eq!(server.read_at_once(&mut buffer).unwrap(), Some(1));
        assert_eq!(buffer.take(), b"x");
        drop(client);
        tokio::time::timeout(SOON, server.has_bytes()).await.unwrap().unwrap();
        assert_eq!(server.read_at_once(&mut buffer).unwrap_or(Some(0)), Some(0), "the end");
    }
}

#[tokio::test]
async fn much_goes_both_ways_at_once() {
    let Ends { mut client, mut server } = ends().await;
    let pattern = |seed: usize| (0..3_000_000usize).map(|it| (it * 31 + seed) as u8).collect::<Vec<_>>();
    let (up, down) = (pattern(1), pattern(2));
    let uploading = async {
        client.write_all(&up).await.unwrap();
        read_exactly(&mut client, down.len()).await
    };
    let serving = async {
        let got = read_exactly(&mut server, up.len()).await;
        server.write_all(&down).await.unwrap();
        got
    };
    let (got_down, got_up) = tokio::join!(uploading, serving);
    assert!(got_up == up && got_down == down);
}

#[tokio::test]
async fn a_writer_that_is_held_up_hears_the_peer_and_loses_nothing() {
    let Ends { mut client, mut server } = ends().await;
    let mut sent = 0usize;
    // Until the socket takes no more: the other side does not read.
    let chunk: Vec<u8> = (0..8_000usize).map(|it| it as u8).collect();
    loop {
        let mut writing = pin!(client.write_or_hear(&chunk));
        match tokio::time::timeout(Duration::from_millis(300), &mut writing).await {
            Ok(written) => sent += written.unwrap().unwrap(),
            Err(_) => break,
        }
        assert!(sent < 1 << 30);
    }
    server.write_all(b"stop").await.unwrap();
    let heard = tokio::time::timeout(SOON, client.write_or_hear(&chunk)).await.unwrap().unwrap();
    assert_eq!(heard, None);
    assert_eq!(read_exactly(&mut client, 4).await, b"stop");
    // What was taken goes out while the writer merely waits to hear more.
    let waiting = tokio::spawn(async move {
        client.has_bytes().await.unwrap();
        read_exactly(&mut client, 2).await
    });
    let got = read_exactly(&mut server, sent).await;
    assert_eq!(got.len(), sent);
    assert!(got.chunks(1 << 20).flatten().take(8_000).eq(&chunk));
    server.write_all(b"ok").await.unwrap();
    assert_eq!(waiting.await.unwrap(), b"ok");
}

#[tokio::test]
async fn an_end_is_seen_with_and_without_goodbye() {
    for says_goodbye in [true, false] {
        let Ends { mut client, mut server } = ends().await;
        client.write_all(b"last").await.unwrap();
        if says_goodbye {
            client.shutdown().await.unwrap();
        }
        drop(client);
        tokio::time::timeout(SOON, server.has_bytes()).await.unwrap().unwrap();
        assert!(!server.is_closed_by_peer(), "there is something to read");
        assert_eq!(read_exactly(&mut server, 4).await, b"last");
        tokio::time::timeout(SOON, server.has_bytes()).await.unwrap().unwrap();
        assert!(server.is_closed_by_peer());
        assert_eq!(server.read(&mut Buffer::default()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_half_closed_stream_still_hears() {
    let Ends { mut client, mut server } = ends().await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut Buffer::default()).await.unwrap(), 0);
    server.write_all(b"late").await.unwrap();
    assert_eq!(read_exactly(&mut client, 4).await, b"late");
}

/// A server that answers SSLRequest with these bytes, and what is made of that.
async fn answered(answer: &'static [u8], encryption: Encryption) -> Result<bool, DialError> {
    let (_, authorities) = identity("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = async {
        let mut stream = accept(&listener).await;
        assert_eq!(read_exactly(&mut stream, 8).await, wire::tls_request());
        stream.write_all(answer).await.unwrap();
        stream
    };
    let connector = connector(&authorities);
    let (_open, dialled) = tokio::join!(serving, dial(("localhost", port), &connector, encryption, SOON));
    dialled.map(|it| it.stream.is_tls())
}

#[tokio::test]
async fn a_server_without_tls_is_taken_or_left() {
    assert!(!answered(b"N", Encryption::Offered).await.unwrap());
    assert!(matches!(answered(b"N", Encryption::Required).await, Err(DialError::NotOffered)));
    for encryption in [Encryption::Offered, Encryption::Required] {
        assert!(matches!(answered(b"E", encryption).await, Err(DialError::NoAnswer)));
        assert!(matches!(answered(b"SR\0\0\0", encryption).await, Err(DialError::Injected)));
        assert!(matches!(answered(b"NR\0\0\0", encryption).await, Err(DialError::Injected)));
    }
}

#[tokio::test]
async fn rubbish_in_place_of_a_handshake_is_an_error() {
    let (identity, _) = identity("localhost");
    let (acceptor, metrics) = (acceptor(&identity, TlsMode::Require), metrics());
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\x05rubbish and more of it", b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut server = accept(&listener).await;
        tokio::io::AsyncWriteExt::write_all(&mut client, rubbish).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut client).await.unwrap();
        let accepted = tokio::time::timeout(SOON, server.accept_tls(&acceptor, &metrics, Vec::new()));
        assert!(accepted.await.unwrap().is_err(), "{rubbish:?}");
        assert!(server.is_handshaking());
    }
}

#[test]
fn attempts_follow_the_mode() {
    let attempts = |mode, is_direct| {
        let authorities = identity("x").1;
        let tls = ServerTls { mode, authorities: Some(authorities), identity: None, is_direct };
        Connector::new(&tls, metrics()).unwrap().attempts()
    };
    use Encryption::{Direct, None as Plain, Offered, Required};
    assert_eq!(attempts(TlsMode::Disable, false), [Plain]);
    assert_eq!(attempts(TlsMode::Allow, false), [Plain, Required]);
    assert_eq!(attempts(TlsMode::Prefer, false), [Offered, Plain]);
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        assert_eq!(attempts(mode, false), [Required]);
        assert_eq!(attempts(mode, true), [Direct]);
    }
}

#[tokio::test]
async fn a_swap_is_for_the_next_client() {
    let ((first, authorities), (second, _)) = (identity("localhost"), identity("localhost"));
    let acceptors = Acceptors::new(Some(acceptor(&first, TlsMode::Prefer)), metrics());
    let before = acceptors.current().unwrap();
    acceptors.replace(Some(acceptor(&second, TlsMode::Require)));
    let after = acceptors.current().unwrap();
    assert!(!before.is_required() && after.is_required());
    let connectors = Connectors::new(connector(&authorities));
    let before = connectors.current();
    connectors.replace(connector(&authorities));
    assert!(!Arc::ptr_eq(&before, &connectors.current()));
    acceptors.replace(None);
    assert!(acceptors.current().is_none());
}
