//! What stands between two sides: passes bytes on, and holds cancel requests back while it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::Fallible;

/// Length and code of the first packet.
const HEAD_BYTES: usize = 8;
const CANCEL_REQUEST: u32 = 80_877_102;
/// Keyway's own, for one that it passes on to another Keyway.
const FORWARDED_CANCEL: u32 = 0x4B57_0001;

/// What becomes of cancel requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    Hold,
    /// Read, and answered by a reset: whoever sent one cannot know what became of it.
    Break,
}

/// Ends with all its connections when dropped.
pub struct Gate {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    target: watch::Sender<Option<SocketAddr>>,
    cancels: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Gate {
    /// Connections wait until the gate knows where they lead.
    pub async fn start(mode: Mode) -> Fallible<Gate> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, target) = (watch::Sender::new(mode), watch::Sender::new(None));
        let cancels = Arc::new(AtomicUsize::new(0));
        let (modes, targets, count) = (mode.subscribe(), target.subscribe(), cancels.clone());
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (modes, targets, count) = (modes.clone(), targets.clone(), count.clone());
                connections.spawn(async move {
                    let _ = serve(stream, modes, targets, &count).await;
                });
            }
        });
        Ok(Gate { address, mode, target, cancels, accepting })
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
        self.cancels.load(Ordering::SeqCst)
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
    cancels: &AtomicUsize,
) -> Fallible<()> {
    from.set_nodelay(true)?;
    let mut head = [0; HEAD_BYTES];
    from.read_exact(&mut head).await?;
    let code = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    if [CANCEL_REQUEST, FORWARDED_CANCEL].contains(&code) {
        cancels.fetch_add(1, Ordering::SeqCst);
        let mode = *modes.wait_for(|it| *it != Mode::Hold).await?;
        if mode == Mode::Break {
            // Closing without the last word that says "read to here".
            socket2::SockRef::from(&from).set_linger(Some(Duration::ZERO))?;
            return Ok(());
        }
    }
    let target = targets.wait_for(Option::is_some).await?.ok_or("no target")?;
    let mut to = TcpStream::connect(target).await?;
    to.set_nodelay(true)?;
    to.write_all(&head).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}
