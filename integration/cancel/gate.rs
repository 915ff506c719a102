//! What stands between two sides: passes bytes on, holds cancel requests back while it is told to, or plays an
//! old server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyway::base::{Reason, Refusal};
use keyway::wire::{self, Severity};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::Fallible;

/// Length and code of the first packet.
const HEAD_BYTES: usize = 8;
const PROTOCOL_3_0: u32 = 196_608;
const CANCEL_REQUEST: u32 = 80_877_102;
/// Keyway's own, for one that it passes on to another Keyway.
const FORWARDED_CANCEL: u32 = 0x4B57_0001;

/// What becomes of cancel requests, and of newer versions than 3.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    Hold,
    /// Read, and answered by a reset: whoever sent one cannot know what became of it.
    Break,
    /// Other versions than 3.0 are refused, as by servers that do not negotiate.
    Old,
}

#[derive(Default)]
struct Seen {
    cancels: AtomicUsize,
    /// Of the last cancel request.
    cancel_bytes: AtomicUsize,
    refused: AtomicUsize,
}

/// Ends with all its connections when dropped.
pub struct Gate {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    target: watch::Sender<Option<SocketAddr>>,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

impl Gate {
    /// Connections wait until the gate knows where they lead.
    pub async fn start(mode: Mode) -> Fallible<Gate> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, target) = (watch::Sender::new(mode), watch::Sender::new(None));
        let seen = Arc::new(Seen::default());
        let (modes, targets, count) = (mode.subscribe(), target.subscribe(), seen.clone());
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (modes, targets, count) = (modes.clone(), targets.clone(), count.clone());
                connections.spawn(async move {
                    let _ = serve(stream, modes, targets, &count).await;
                });
            }
        });
        Ok(Gate { address, mode, target, seen, accepting })
    }

    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cancel requests that have come so far.
    pub fn cancels(&self) -> usize {
        self.seen.cancels.load(Ordering::SeqCst)
    }

    /// How long the last of them was.
    pub fn cancel_bytes(&self) -> usize {
        self.seen.cancel_bytes.load(Ordering::SeqCst)
    }

    /// Startup packets that an old server did not understand.
    pub fn refused(&self) -> usize {
        self.seen.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut from: TcpStream,
    mut modes: watch::Receiver<Mode>,
    mut targets: watch::Receiver<Option<SocketAddr>>,
    seen: &Seen,
) -> Fallible<()> {
    from.set_nodelay(true)?;
    let mut head = [0; HEAD_BYTES];
    from.read_exact(&mut head).await?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (length, code) = (word(0), word(4));
    if [CANCEL_REQUEST, FORWARDED_CANCEL].contains(&code) {
        seen.cancel_bytes.store(length as usize, Ordering::SeqCst);
        seen.cancels.fetch_add(1, Ordering::SeqCst);
        let mode = *modes.wait_for(|it| *it != Mode::Hold).await?;
        if mode == Mode::Break {
            // Closing without the last word that says "read to here".
            socket2::SockRef::from(&from).set_linger(Some(Duration::ZERO))?;
            return Ok(());
        }
    } else if code != PROTOCOL_3_0 && *modes.borrow() == Mode::Old {
        seen.refused.fetch_add(1, Ordering::SeqCst);
        from.read_exact(&mut vec![0; length as usize - HEAD_BYTES]).await?;
        let (mut out, message) =
            (Vec::new(), "unsupported frontend protocol 3.2: server supports 1.0 to 3.0");
        wire::error(&mut out, Severity::Fatal, &Refusal::unsupported(Reason::Protocol, message, ""));
        from.write_all(&out).await?;
        return Ok(());
    }
    let target = targets.wait_for(Option::is_some).await?.ok_or("no target")?;
    let mut to = TcpStream::connect(target).await?;
    to.set_nodelay(true)?;
    to.write_all(&head).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}
