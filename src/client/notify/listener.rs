//! The connection that listens: to the first shard's primary, while any client listens. It follows a change of
//! primary and comes back when it is lost; what was notified in between nobody heard, and clients are told so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::AbortHandle;

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

/// Where to listen, as the newest configuration says.
pub struct ListenerSpec {
    /// Those of the first shard, in their order.
    pub servers: Vec<BackendSpec>,
    pub topology: Arc<Topology>,
}

impl ListenerSpec {
    fn primary(&self) -> Option<(ServerId, &BackendSpec)> {
        let server = self.topology.snapshot().shard(ShardId(0))?.primary()?.id;
        Some((server, self.servers.get(usize::from(server.index))?))
    }
}

/// The task that listens for a hub. It ends when this is dropped: with the last session of its database.
pub struct Listener {
    spec: watch::Sender<Arc<ListenerSpec>>,
    task: AbortHandle,
}

impl Listener {
    /// Listens for `hub` until `stopping` says so.
    pub fn start(hub: &Arc<Hub>, spec: ListenerSpec, stopping: &watch::Receiver<bool>) -> Listener {
        let (spec, news) = watch::channel(Arc::new(spec));
        let (hub, mut stopping) = (hub.clone(), stopping.clone());
        let task = tokio::spawn(async move {
            // Cut off anywhere: whoever listens has been told to go.
            tokio::select! {
                () = listen(&hub, news) => {}
                _ = stopping.wait_for(|it| *it) => {}
            }
        });
        Listener { spec, task: task.abort_handle() }
    }

    /// After a reload. A connection to what is still the primary stays, and nothing is missed.
    pub fn take_up(&self, spec: ListenerSpec) {
        self.spec.send_replace(Arc::new(spec));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether listening on one is listening on the other.
fn is_same_server(a: &BackendSpec, b: &BackendSpec) -> bool {
    (&a.host, a.port, &a.database, &a.user) == (&b.host, b.port, &b.database, &b.user)
}

async fn listen(hub: &Hub, mut news: watch::Receiver<Arc<ListenerSpec>>) {
    let mut pause = PAUSE_MIN;
    loop {
        while hub.board.lock().is_empty() {
            hub.work.notified().await;
        }
        let at = news.borrow_and_update().clone();
        let mut changes = at.topology.changes();
        let Some((server, spec)) = at.primary() else {
            hub.fail("there is no primary");
            wait_for_news(&mut news, &mut changes, PAUSE_MAX).await;
            continue;
        };
        match backend::connect(spec, Instant::now()).await {
            Ok(mut backend) => {
                pause = PAUSE_MIN;
                let over = listen_on(hub, &mut backend, spec, &mut news).await;
                hub.lose(&over);
                if matches!(over, Over::Lost(_)) {
                    at.topology.report_failure(server);
                }
                backend.close().await;
            }
            Err(error) => {
                tracing::warn!(host = %spec.host, port = spec.port, %error, "cannot connect to listen");
                at.topology.report_failure(server);
                hub.fail(&error.to_string());
                wait_for_news(&mut news, &mut changes, pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Another role or another configuration, but not for longer than `pause`.
async fn wait_for_news(
    news: &mut watch::Receiver<Arc<ListenerSpec>>,
    changes: &mut watch::Receiver<u64>,
    pause: Duration,
) {
    tokio::select! {
        _ = changes.changed() => {}
        Ok(()) = news.changed() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

/// What is newest in `news` may have changed since `spec` was found there.
async fn listen_on(
    hub: &Hub,
    backend: &mut Backend,
    spec: &BackendSpec,
    news: &mut watch::Receiver<Arc<ListenerSpec>>,
) -> Over {
    hub.progress.send_modify(|it| (it.connected, it.problem) = (true, None));
    let (mut buffer, mut is_first) = (Buffer::default(), true);
    let mut at = news.borrow_and_update().clone();
    let mut changes = at.topology.changes();
    loop {
        // One that cannot be seen right now may still be there, and then nothing is missed.
        if at.primary().is_some_and(|(_, it)| !is_same_server(it, spec)) {
            return Over::Moved;
        }
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
            _ = changes.changed() => continue,
            Ok(()) = news.changed() => {
                at = news.borrow_and_update().clone();
                changes = at.topology.changes();
                continue;
            }
            () = tokio::time::sleep(LINGER), if unused => return Over::Unused,
        };
        let (tag, total) = match read {
            Ok(it) => it,
            Err(error) => return Over::Lost(error.to_string()),
        };
        match BackendTag(tag) {
            BackendTag::READY_FOR_QUERY => hub.answered(std::mem::take(&mut is_first)),
            tag => {
                if let Err(problem) = hub.hear(tag, &buffer.filled()[..total], spec) {
                    return Over::Lost(problem);
                }
            }
        }
        buffer.consume(total);
    }
}

impl Hub {
    fn hear(&self, tag: BackendTag, message: &[u8], spec: &BackendSpec) -> Result<(), String> {
        match tag {
            BackendTag::NOTIFICATION => {
                let (pid, channel) = wire::notification(message).map_err(|it| it.to_string())?;
                // Who is not Keyway's keeps the id that the server knows.
                let client = self.holders.client_of((spec.host.clone(), spec.port), pid).unwrap_or(pid);
                self.hand_out(channel, &Bytes::from(wire::notification_of(message, client)));
            }
            BackendTag::ERROR => {
                let fields = wire::error_fields(message).map_err(|it| it.to_string())?;
                return Err(String::from_utf8_lossy(fields.message).into_owned());
            }
            _ => {}
        }
        Ok(())
    }

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
