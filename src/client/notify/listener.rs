//! The connections that listen: to each shard's primary, while any client listens. One follows a change of primary
//! and comes back when it is lost; what was notified in between nobody heard, and clients are told so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Hub;
use crate::backend::{self, Backend, BackendSpec, Sender};
use crate::base::{ServerId, ShardId};
use crate::metrics::Limit;
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

/// Where to listen to one shard, as the newest configuration says.
pub struct ListenerSpec {
    pub name: Arc<str>,
    pub shard: ShardId,
    /// In their order.
    pub servers: Vec<BackendSpec>,
    pub topology: Arc<Topology>,
}

impl ListenerSpec {
    fn primary(&self) -> Option<(ServerId, &BackendSpec)> {
        let server = self.topology.snapshot().shard(self.shard)?.primary()?.id;
        Some((server, self.servers.get(usize::from(server.index))?))
    }
}

/// The tasks that listen for a hub, one to each shard. They end when this is dropped: with the last session of their
/// database.
pub struct Listener {
    hub: Arc<Hub>,
    lines: Mutex<BTreeMap<Arc<str>, Line>>,
    stopping: watch::Receiver<bool>,
}

/// Of one shard. Dropped, it ends.
struct Line {
    spec: watch::Sender<Arc<ListenerSpec>>,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Listens for `hub` until `stopping` says so.
    pub fn start(hub: &Arc<Hub>, specs: Vec<ListenerSpec>, stopping: &watch::Receiver<bool>) -> Listener {
        let (hub, lines, stopping) = (hub.clone(), Mutex::default(), stopping.clone());
        let listener = Listener { hub, lines, stopping };
        listener.take_up(specs);
        listener
    }

    /// After a reload. A connection to what is still the primary of a shard stays, and nothing is missed.
    pub fn take_up(&self, specs: Vec<ListenerSpec>) {
        let mut lines = self.lines.lock();
        lines.retain(|name, _| {
            let stays = specs.iter().any(|it| it.name == *name);
            if !stays {
                self.hub.close(name);
            }
            stays
        });
        for spec in specs {
            let name = spec.name.clone();
            self.hub.open(&name, spec.shard == ShardId(0));
            match lines.get(&name) {
                Some(line) => drop(line.spec.send_replace(Arc::new(spec))),
                None => drop(lines.insert(name, self.line(spec))),
            }
        }
    }

    fn line(&self, spec: ListenerSpec) -> Line {
        let name = spec.name.clone();
        let (spec, news) = watch::channel(Arc::new(spec));
        let (hub, mut stopping) = (self.hub.clone(), self.stopping.clone());
        let task = tokio::spawn(async move {
            // Cut off anywhere: whoever listens has been told to go, or the shard is gone.
            tokio::select! {
                () = listen(&hub, &name, news) => {}
                _ = stopping.wait_for(|it| *it) => {}
            }
        });
        Line { spec, task: task.abort_handle() }
    }
}

/// Whether listening on one is listening on the other.
fn is_same_server(a: &BackendSpec, b: &BackendSpec) -> bool {
    (&a.host, a.port, &a.database, &a.user) == (&b.host, b.port, &b.database, &b.user)
}

async fn listen(hub: &Hub, name: &Arc<str>, mut news: watch::Receiver<Arc<ListenerSpec>>) {
    let (mut pause, mut work) = (PAUSE_MIN, hub.work.subscribe());
    loop {
        work.mark_unchanged();
        while hub.board.lock().is_empty() {
            // It may be there when it is wanted next.
            hub.note_progress(name, |it| it.problem = None);
            // The sender lives as long as the hub.
            let _ = work.changed().await;
        }
        let at = news.borrow_and_update().clone();
        let mut changes = at.topology.changes();
        let Some((server, spec)) = at.primary() else {
            hub.fail(name, "there is no primary");
            wait_for_news(&mut news, &mut changes, PAUSE_MAX).await;
            continue;
        };
        match backend::connect(spec, Instant::now()).await {
            Ok(mut backend) => {
                pause = PAUSE_MIN;
                let over = listen_on(hub, name, &mut backend, spec, &mut news).await;
                hub.lose(name, &over);
                if matches!(over, Over::Lost(_)) {
                    at.topology.report_failure(server);
                }
                backend.close().await;
            }
            Err(error) => {
                tracing::warn!(host = %spec.host, port = spec.port, %error, "cannot connect to listen");
                if error.is_timeout() {
                    hub.hits.hit(Limit::ConnectTime);
                }
                at.topology.report_failure(server);
                hub.fail(name, &error.to_string());
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
    name: &Arc<str>,
    backend: &mut Backend,
    spec: &BackendSpec,
    news: &mut watch::Receiver<Arc<ListenerSpec>>,
) -> Over {
    hub.note_progress(name, |it| (it.connected, it.problem) = (true, None));
    let (mut buffer, mut work) = (Buffer::default(), hub.work.subscribe());
    let mut at = news.borrow_and_update().clone();
    let mut changes = at.topology.changes();
    loop {
        // One that cannot be seen right now may still be there, and then nothing is missed.
        let is_elsewhere = |(server, it): (ServerId, &BackendSpec)| {
            !is_same_server(it, spec) || at.topology.has_moved_since(server, backend.connected_at)
        };
        if at.primary().is_some_and(is_elsewhere) {
            return Over::Moved;
        }
        work.mark_unchanged();
        let asked = hub.board.lock().begin(name);
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
            Ok(()) = work.changed() => continue,
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
            BackendTag::READY_FOR_QUERY => hub.answered(name),
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
                let client = match self.holders.sender((spec.host.clone(), spec.port), pid) {
                    Sender::Client(client) => client,
                    Sender::Unknown => pid,
                    Sender::Copy => return Ok(()),
                };
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

    /// What was missed before is told with the first answer behind it.
    fn answered(&self, shard: &str) {
        let mut board = self.board.lock();
        let (good, tells) = board.answered(shard);
        if tells {
            let mut notice = Vec::new();
            wire::notice(&mut notice, "01000", MISSED);
            let notice = Bytes::from(notice);
            // A client has its place at each of its channels; the first one tells it.
            board.all().filter(|it| it.take_loss(shard)).for_each(|it| self.put(it, None, &notice));
        }
        drop(board);
        self.note_progress(shard, |it| it.good = good);
    }

    fn fail(&self, shard: &str, problem: &str) {
        self.note_progress(shard, |it| it.problem = Some(problem.into()));
    }

    fn lose(&self, shard: &Arc<str>, over: &Over) {
        let mut board = self.board.lock();
        board.lost(shard);
        let missed = !matches!(over, Over::Unused);
        if missed {
            board.all().for_each(|it| it.note_loss(shard));
            board.note_missed(shard);
        }
        drop(board);
        let problem = match over {
            Over::Lost(problem) => {
                tracing::warn!(%shard, problem, "the connection that listens for clients is lost");
                Some(problem.as_str().into())
            }
            Over::Moved => {
                tracing::info!(%shard, "listening moves to another primary");
                None
            }
            Over::Unused => None,
        };
        if missed {
            self.metrics.losses.inc();
        }
        self.note_progress(shard, |it| {
            (it.connected, it.problem) = (false, problem);
            it.losses += 1;
        });
    }
}
