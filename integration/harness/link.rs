//! A network that tests can break: connections to one address pass through here, and can be slowed, stalled and cut.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Fallible;

const CHUNK_BYTES: usize = 16_384;
/// Bounds what is on its way in one direction.
const CHUNKS_MAX: usize = 64;

/// Ends with all its connections when dropped.
pub struct Link {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    controls: Controls,
    accepting: JoinHandle<()>,
}

#[derive(Clone)]
struct Controls {
    stalled: watch::Sender<bool>,
    /// Each way.
    latency: watch::Sender<Duration>,
    cuts: watch::Sender<u64>,
}

impl Link {
    pub async fn to(target: SocketAddr) -> Fallible<Link> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let controls = Controls {
            stalled: watch::Sender::new(false),
            latency: watch::Sender::new(Duration::ZERO),
            cuts: watch::Sender::new(0),
        };
        let of_connections = controls.clone();
        let (target, targets) = watch::channel(target);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (controls, target) = (of_connections.clone(), *targets.borrow());
                connections.spawn(async move { serve(stream, target, &controls).await });
            }
        });
        Ok(Link { address, target, controls, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From its return on nothing passes, in either direction. Connections stay open, new ones are accepted and wait:
    /// as where packets are lost.
    pub fn stall(&self) {
        // Whoever writes holds the value borrowed, and this waits for that.
        self.controls.stalled.send_replace(true);
    }

    /// New connections lead to `target`; those that there are stay where they are.
    pub fn move_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// What was held back comes.
    pub fn resume(&self) {
        self.controls.stalled.send_replace(false);
    }

    /// Resets every connection that there is, stalled or not.
    pub fn cut(&self) {
        self.controls.cuts.send_modify(|it| *it += 1);
    }

    /// Of what is sent from now on.
    pub fn set_latency(&self, each_way: Duration) {
        self.controls.latency.send_replace(each_way);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut from: TcpStream, target: SocketAddr, controls: &Controls) -> io::Result<()> {
    let mut cuts = controls.cuts.subscribe();
    let mut stalled = controls.stalled.subscribe();
    let connecting = async {
        let _ = stalled.wait_for(|it| !it).await;
        TcpStream::connect(target).await
    };
    let mut to = tokio::select! {
        connected = connecting => connected?,
        _ = cuts.changed() => return reset(&from),
    };
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let cut = {
        let ((from_read, from_write), (to_read, to_write)) = (from.split(), to.split());
        let passing = async {
            tokio::try_join!(pass(from_read, to_write, controls), pass(to_read, from_write, controls))
        };
        tokio::select! {
            _ = passing => false,
            _ = cuts.changed() => true,
        }
    };
    if cut {
        reset(&from)?;
        reset(&to)?;
    }
    Ok(())
}

/// Closing it then sends no last word that says "read to here".
fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// One direction, to its end.
async fn pass(from: ReadHalf<'_>, to: WriteHalf<'_>, controls: &Controls) -> io::Result<()> {
    let (chunks, under_way) = mpsc::channel(CHUNKS_MAX);
    tokio::try_join!(
        take(from, chunks, controls.latency.subscribe()),
        give(to, under_way, &controls.stalled)
    )?;
    Ok(())
}

async fn take(
    from: ReadHalf<'_>,
    chunks: mpsc::Sender<(Instant, Bytes)>,
    latency: watch::Receiver<Duration>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        from.readable().await?;
        let count = match from.try_read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let due = Instant::now() + *latency.borrow();
        // An empty chunk is the end.
        let sent = chunks.send((due, Bytes::copy_from_slice(&buffer[..count]))).await;
        if count == 0 || sent.is_err() {
            return Ok(());
        }
    }
}

async fn give(
    to: WriteHalf<'_>,
    mut chunks: mpsc::Receiver<(Instant, Bytes)>,
    stalled: &watch::Sender<bool>,
) -> io::Result<()> {
    let mut changes = stalled.subscribe();
    while let Some((due, mut chunk)) = chunks.recv().await {
        sleep_until(due).await;
        let is_end = chunk.is_empty();
        while is_end || !chunk.is_empty() {
            let _ = changes.wait_for(|it| !it).await;
            to.writable().await?;
            let now_stalled = stalled.borrow();
            if *now_stalled {
                continue;
            }
            if is_end {
                return socket2::SockRef::from(to.as_ref()).shutdown(std::net::Shutdown::Write);
            }
            match to.try_write(&chunk) {
                Ok(count) => drop(chunk.split_to(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
