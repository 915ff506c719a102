//! The connection that listens: to the first shard's primary, while any client listens. It follows a change of
//! primary and comes back when it is lost; what was notified in between nobody heard, and clients are told so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::Hub;
use crate::backend::{self, Backend, BackendSpec};
use crate::base::{ServerId, ShardId};
use crate::net::{self, Buffer};
use crate::topology::Topology;
use crate::wire::{self, BackendTag};

/// Channel, payload and header are bounded by PostgreSQL at far less (`NOTIFY_PAYLOAD_MAX_LENGTH`).
const MESSAGE_BYTES_MAX: usize = 1 << 17;
/// Without anybody who listens the connection is kept for so long.
const LINGER: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

const MISSED: &str = "notifications may have been missed: the connection on which keyway listens was lost";

/// Why a connection is over.
enum Over {
    /// Nobody listens.
    Unused,
    /// Another server is the primary now.
    Moved,
    Lost(String),
}

/// Listens for `hub` until `stopping` says so. `servers` are those of the first shard, in their order.
pub fn start(
    hub: &Arc<Hub>,
    servers: Vec<BackendSpec>,
    topology: Arc<Topology>,
    stopping: &watch::Receiver<bool>,
) {
    let mut stopping = stopping.clone();
    let listener = Listener { hub: hub.clone(), servers, topology };
    tokio::spawn(async move {
        // Cut off anywhere: whoever listens is about to be told to go.
        tokio::select! {
            () = listener.run() => {}
            _ = stopping.wait_for(|it| *it) => {}
        }
    });
}

struct Listener {
    hub: Arc<Hub>,
    servers: Vec<BackendSpec>,
    topology: Arc<Topology>,
}

impl Listener {
    async fn run(self) {
        let mut changes = self.topology.changes();
        let mut pause = PAUSE_MIN;
        loop {
            while self.hub.board.lock().is_empty() {
                self.hub.work.notified().await;
            }
            changes.borrow_and_update();
            let Some(spec) = self.primary().and_then(|it| self.servers.get(usize::from(it.index))) else {
                self.hub.fail("there is no primary");
                let _ = tokio::time::timeout(PAUSE_MAX, changes.changed()).await;
                continue;
            };
            match backend::connect(spec, Instant::now()).await {
                Ok(mut backend) => {
                    pause = PAUSE_MIN;
                    let over = self.listen_on(&mut backend, spec, &mut changes).await;
                    self.hub.lose(&over);
                    if matches!(over, Over::Lost(_)) {
                        self.topology.report_failure(backend.server);
                    }
                    backend.close().await;
                }
                Err(error) => {
                    tracing::warn!(host = %spec.host, port = spec.port, %error, "cannot connect to listen");
                    self.topology.report_failure(spec.server);
                    self.hub.fail(&error.to_string());
                    let _ = tokio::time::timeout(pause, changes.changed()).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn primary(&self) -> Option<ServerId> {
        self.topology.snapshot().shard(ShardId(0))?.primary().map(|it| it.id)
    }

    async fn listen_on(
        &self,
        backend: &mut Backend,
        spec: &BackendSpec,
        changes: &mut watch::Receiver<u64>,
    ) -> Over {
        let hub = &self.hub;
        hub.progress.send_modify(|it| (it.connected, it.problem) = (true, None));
        let (mut buffer, mut is_first) = (Buffer::default(), true);
        loop {
            let asked = hub.board.lock().begin();
            if let Some(text) = asked {
                let mut out = Vec::new();
                wire::query(&mut out, &text);
                if let Err(error) = backend.stream.write_all(&out).await {
                    return Over::Lost(error.to_string());
                }
            }
            let unused = hub.board.lock().is_empty();
            let read = tokio::select! {
                read = net::read_message(&mut backend.stream, &mut buffer, MESSAGE_BYTES_MAX) => read,
                () = hub.work.notified() => continue,
                _ = changes.changed() => match self.primary() {
                    // One that cannot be seen right now may still be there, and then nothing is missed.
                    Some(it) if it != backend.server => return Over::Moved,
                    _ => continue,
                },
                () = tokio::time::sleep(LINGER), if unused => return Over::Unused,
            };
            let (tag, total) = match read {
                Ok(it) => it,
                Err(error) => return Over::Lost(error.to_string()),
            };
            match BackendTag(tag) {
                BackendTag::READY_FOR_QUERY => hub.answered(std::mem::take(&mut is_first)),
                tag => {
                    if let Err(problem) = self.hear(tag, &buffer.filled()[..total], spec) {
                        return Over::Lost(problem);
                    }
                }
            }
            buffer.consume(total);
        }
    }

    fn hear(&self, tag: BackendTag, message: &[u8], spec: &BackendSpec) -> Result<(), String> {
        match tag {
            BackendTag::NOTIFICATION => {
                let (pid, channel) = wire::notification(message).map_err(|it| it.to_string())?;
                // Who is not Keyway's keeps the id that the server knows.
                let client = spec.holders.client_of(spec.server, pid).unwrap_or(pid);
                self.hub.hand_out(channel, &Bytes::from(wire::notification_of(message, client)));
            }
            BackendTag::ERROR => {
                let fields = wire::error_fields(message).map_err(|it| it.to_string())?;
                return Err(String::from_utf8_lossy(fields.message).into_owned());
            }
            _ => {}
        }
        Ok(())
    }
}

impl Hub {
    /// `is_first` of a connection: what was missed before it is told.
    fn answered(&self, is_first: bool) {
        let mut board = self.board.lock();
        let good = board.answered();
        if is_first {
            let mut notice = Vec::new();
            wire::notice(&mut notice, "01000", MISSED);
            let notice = Bytes::from(notice);
            // A client has its place at each of its channels; the first one tells it.
            board.all().filter(|it| it.take_loss()).for_each(|it| self.put(it, None, &notice));
        }
        drop(board);
        self.progress.send_modify(|it| it.good = good);
    }

    fn fail(&self, problem: &str) {
        self.progress.send_modify(|it| it.problem = Some(problem.into()));
    }

    fn lose(&self, over: &Over) {
        let mut board = self.board.lock();
        board.lost();
        let missed = !matches!(over, Over::Unused);
        if missed {
            board.all().for_each(|it| it.note_loss());
        }
        drop(board);
        let problem = match over {
            Over::Lost(problem) => {
                tracing::warn!(problem, "the connection that listens for clients is lost");
                Some(problem.as_str().into())
            }
            Over::Moved => {
                tracing::info!("listening moves to another primary");
                None
            }
            Over::Unused => None,
        };
        if missed {
            self.metrics.losses.inc();
        }
        self.progress.send_modify(|it| {
            (it.connected, it.problem) = (false, problem);
            it.losses += 1;
        });
    }
}
