//! Clients that speak the replication protocol (manual, "Streaming Replication Protocol"): each gets a server
//! connection of its own, logged in with its parameters, and bytes go both ways as they come. Nothing of it
//! is pooled or routed, so that nothing of it has to be understood.
//!
//! ```text
//! admitted ──▶ primary found ──▶ logged in there ──▶ greeted ──▶ relaying ──▶ one side or Keyway ends
//! ```

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::abandon::abandon;
use super::login::{Claim, database_of, places, pools_of, registered, say_goodbye};
use super::quota::Place;
use super::registry::{Identity, Registered};
use super::{Database, Latest, Shared, UserPools};
use crate::backend::{self, Backend, ConnectError};
use crate::base::{Reason, Refusal, ServerId, ShardId, SqlState};
use crate::cancel;
use crate::metrics::{Limit, Live};
use crate::net::{Buffer, BufferStock, Stream};
use crate::wire::{self, Replication, StartupParameters, TxStatus};

/// Between attempts to reach a primary, unless its role changes first.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// What libpq's programs call the database that a physical connection does not name.
const PLACEHOLDER: &str = "replication";

/// A client that has proved who it is, and may have a connection.
pub(super) struct Wanted {
    shared: Arc<Shared>,
    database: Arc<Database>,
    pools: Arc<UserPools>,
    cancel: cancel::Registered,
    pub record: Registered,
    /// For the server's startup packet.
    parameters: Vec<(String, String)>,
    _of_client: [Option<Place>; 2],
    place: Place,
}

/// Its server connection. It has its place until it is closed.
struct Link {
    backend: Backend,
    _place: Place,
}

impl Deref for Link {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.backend
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut Backend {
        &mut self.backend
    }
}

/// A physical connection is to a cluster, and its programs name no database that is there. Where one has the
/// name that they give, it is meant; else whichever, if all are on the same servers.
pub(super) fn choose_database(name: &mut String, shared: &Shared) {
    if name != PLACEHOLDER || shared.databases.contains_key(name) {
        return;
    }
    let servers = |it: &Database| {
        let cluster = it.topology.snapshot();
        let addresses = cluster.shards.iter().map(|it| it.servers.iter().map(|it| it.address.clone()));
        addresses.map(Iterator::collect).collect::<Vec<Vec<_>>>()
    };
    let mut databases: Vec<_> = shared.databases.values().collect();
    databases.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some((first, others)) = databases.split_first() {
        let all_of_them = servers(first);
        if others.iter().all(|it| servers(it) == all_of_them) {
            name.clone_from(&first.name);
        }
    }
}

pub(super) fn admit(
    parameters: StartupParameters,
    latest: &Latest,
    peer: Option<SocketAddr>,
    claim: &Claim,
) -> Result<Wanted, Refusal> {
    let shared = latest.load();
    let database = database_of(&parameters, &shared).map_err(|it| match parameters.replication {
        Replication::Physical => it.hint(
            "give a database of the configuration of keyway the name that this connection asks for, to say which servers it means",
        ),
        _ => it,
    })?;
    if database.topology.shard_count() > 1 {
        return Err(Refusal::unsupported(
            Reason::Unsupported,
            format!("database \"{}\" has several shards, which have no log in common", database.name),
            "connect to the primary of each shard itself",
        ));
    }
    let of_client = places(&parameters.user, database, &shared)?;
    let pools = pools_of(&parameters.user, database, claim, &shared)?;
    let place = database.replication.take().ok_or_else(|| {
        shared.hits.hit(Limit::Replication);
        let message = format!("too many replication connections to database \"{}\"", database.name);
        Refusal::new(Reason::Limit, SqlState::TOO_MANY_CONNECTIONS, message)
            .hint("raise replication_connections_max in the configuration of keyway")
    })?;
    let cancel = registered(&parameters, &shared)?;
    let application_name = parameters.settings.iter().find(|it| it.0 == "application_name");
    let record = shared.sessions.register(Identity {
        database: database.name.as_str().into(),
        user: parameters.user.as_str().into(),
        peer,
        pid: cancel.pid(),
        application_name: application_name.map(|it| it.1.as_str().into()),
    });
    // Who came too late for the call of a reload calls itself.
    if latest.load().version != shared.version {
        record.call();
    }
    let word = if parameters.replication == Replication::Logical { "database" } else { "true" };
    let mut settings = vec![("replication".to_owned(), word.to_owned())];
    settings.extend(parameters.settings);
    Ok(Wanted {
        database: database.clone(),
        shared: shared.clone(),
        pools,
        cancel,
        record,
        parameters: settings,
        _of_client: of_client,
        place,
    })
}

/// Serves the client to its end.
pub(super) async fn serve(mut stream: Stream, buffer: Buffer, latest: &Latest, wanted: Wanted) {
    let Wanted { shared, database, pools, cancel, record, parameters, _of_client, place } = wanted;
    record.wake_this_task().await;
    let (backend, server) = match connect(&database, &pools, &parameters, &shared).await {
        Ok(it) => it,
        Err(failure) => {
            shared.metrics.login("refused");
            return tell(&mut stream, &failure).await;
        }
    };
    shared.metrics.login("ok");
    let _live = Live::new(&database.metrics.replication);
    let _tls = stream.is_tls().then(|| Live::new(&shared.metrics.tls_clients));
    let mut link = Link { backend, _place: place };
    link.record.set_session(record.id, crate::base::Role::Primary);
    cancel.slot().attach(link.cancel.clone());
    let ended = match greet(&mut stream, &link, &cancel).await {
        Ok(()) => {
            let over = poll_fn(|_| if is_over(&record, latest) { Poll::Ready(()) } else { Poll::Pending });
            tokio::select! {
                it = relay(&mut stream, &mut link, buffer, &shared, &database) => it,
                // Woken by whoever calls or kills this task.
                () = over => Ended::Stopping,
                () = replaced(&database, server) => Ended::Stopping,
            }
        }
        Err(_) => Ended::Client,
    };
    drop(cancel);
    match ended {
        Ended::Server => {
            let _ = stream.shutdown().await;
        }
        // What still runs there stops, and the connection closes.
        Ended::Client | Ended::Stopping => abandon(link),
    }
}

/// Killed by an administrator, or of a database or a user that a reload has removed.
fn is_over(record: &Registered, latest: &Latest) -> bool {
    if record.is_called() {
        record.answer();
        let latest = latest.load();
        let database = latest.databases.get(&*record.database);
        if database.is_none_or(|it| it.pools.get(&record.user).is_none()) {
            return true;
        }
    }
    record.is_killed()
}

enum Failure {
    Refused(Refusal),
    /// The server's own words, to be passed on as they are.
    Server(Box<[u8]>),
}

async fn tell(stream: &mut Stream, failure: &Failure) {
    match failure {
        Failure::Refused(refusal) => say_goodbye(stream, refusal).await,
        Failure::Server(bytes) => {
            if stream.write_all(bytes).await.is_ok() {
                let _ = stream.shutdown().await;
            }
        }
    }
}

/// To the primary, which is waited for as by a statement.
async fn connect(
    database: &Database,
    pools: &UserPools,
    parameters: &[(String, String)],
    shared: &Shared,
) -> Result<(Backend, ServerId), Failure> {
    let deadline = Instant::now() + database.failover_hold;
    let mut changes = database.topology.changes();
    let mut stopping = shared.stopping.clone();
    let settings: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut problem = "no primary is known".to_owned();
    loop {
        if let Some(server) = primary(database)
            && let Some(pool) = pools.get(server)
        {
            match backend::connect_with(pool.spec(), &settings, Instant::now()).await {
                Ok(backend) => return Ok((backend, server)),
                Err(ConnectError::Refused { bytes, .. }) => return Err(Failure::Server(bytes)),
                Err(error) => {
                    if error.is_timeout() {
                        shared.hits.hit(Limit::ConnectTime);
                    }
                    database.topology.report_failure(server);
                    problem = error.to_string();
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::select! {
            _ = tokio::time::timeout(left.min(RETRY_PAUSE), changes.changed()) => {}
            () = stopped(&mut stopping) => problem = "keyway is shutting down".to_owned(),
        }
        if Instant::now() >= deadline || *stopping.borrow() {
            let message = format!("cannot connect to the primary of database \"{}\"", database.name);
            let refusal = Refusal::new(Reason::NoServer, SqlState::CANNOT_CONNECT_NOW, message);
            return Err(Failure::Refused(refusal.detail(problem)));
        }
    }
}

fn primary(database: &Database) -> Option<ServerId> {
    Some(database.topology.snapshot().shard(ShardId(0))?.primary()?.id)
}

/// Until another server is the primary: what this one still tells is of a log that does not count.
async fn replaced(database: &Database, server: ServerId) {
    let mut changes = database.topology.changes();
    while primary(database).is_none_or(|it| it == server) && changes.changed().await.is_ok() {}
    if primary(database).is_none_or(|it| it == server) {
        // A reload has put another topology in the place of this one, whose connections live on.
        std::future::pending::<()>().await;
    }
}

/// `wait_for` gives a guard that must not live across an await.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|it| *it).await;
}

/// What the server told at login, with a key of Keyway's.
async fn greet(stream: &mut Stream, server: &Backend, cancel: &cancel::Registered) -> io::Result<()> {
    let mut out = Vec::new();
    wire::authentication_ok(&mut out);
    for (name, value) in server.parameters.iter() {
        wire::parameter_status(&mut out, name, value);
    }
    wire::backend_key_data(&mut out, &cancel.key());
    wire::ready_for_query(&mut out, TxStatus::Idle);
    stream.write_all(&out).await
}

/// Which side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Client,
    Server,
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

/// What can be done next on one way.
enum Event {
    /// So many bytes were written.
    Wrote(io::Result<usize>),
    /// Its source has something to read, or has ended.
    Spoke(io::Result<()>),
}

/// Writes what is pending, or waits for more.
fn poll_way(
    cx: &mut Context<'_>,
    from: &mut Stream,
    to: &mut Stream,
    pending: Option<&Buffer>,
) -> Poll<Event> {
    match pending {
        Some(it) => to.poll_write(cx, it.filled()).map(Event::Wrote),
        None => from.poll_has_bytes(cx).map(Event::Spoke),
    }
}

/// Bytes both ways, each at the pace of its reader: nothing is read that has not been written. Each way holds
/// one buffer at most, and none while it is still. No time-out: a standby may be silent for as long as its
/// server allows (`wal_sender_timeout`).
async fn relay(
    client: &mut Stream,
    link: &mut Link,
    first: Buffer,
    shared: &Shared,
    database: &Database,
) -> Ended {
    let (stock, metrics) = (&shared.stock, &database.metrics);
    let mut stopping = shared.stopping.clone();
    // The client may have sent its first command with its proof.
    let mut to_server = Some(first).filter(|it| !it.is_empty());
    let mut to_client: Option<Buffer> = None;
    let server = &mut link.backend.stream;
    let mut order = [Way::ToServer, Way::ToClient];
    loop {
        // Both get their turns where both could go on for ever.
        order.reverse();
        let next = poll_fn(|cx| {
            for way in order {
                let polled = match way {
                    Way::ToServer => poll_way(cx, client, server, to_server.as_ref()),
                    Way::ToClient => poll_way(cx, server, client, to_client.as_ref()),
                };
                if let Poll::Ready(event) = polled {
                    return Poll::Ready((way, event));
                }
            }
            // What TLS holds back goes out while both wait. That it cannot is told to who writes next.
            let _ = (client.poll_flush(cx), server.poll_flush(cx));
            Poll::Pending
        });
        // Cancel safe: what is not done now is done in the next round.
        let (way, event) = tokio::select! {
            it = next => it,
            () = stopped(&mut stopping) => return Ended::Stopping,
        };
        match (way, event) {
            (Way::ToServer, Event::Wrote(Ok(count))) => {
                metrics.to_server.inc_by(count as u64);
                consume(&mut to_server, count, stock);
            }
            (Way::ToClient, Event::Wrote(Ok(count))) => {
                metrics.to_client.inc_by(count as u64);
                consume(&mut to_client, count, stock);
            }
            // A server that has gone may have said why: that is read first, and its end behind it.
            (Way::ToServer, Event::Wrote(Err(_))) => consume(&mut to_server, usize::MAX, stock),
            (Way::ToClient, Event::Wrote(Err(_))) => return Ended::Client,
            (Way::ToServer, Event::Spoke(ready)) => match read(client, ready, stock).await {
                Some(it) => to_server = Some(it),
                None => return Ended::Client,
            },
            (Way::ToClient, Event::Spoke(ready)) => match read(server, ready, stock).await {
                Some(it) => to_client = Some(it),
                None => return Ended::Server,
            },
        }
    }
}

fn consume(buffer: &mut Option<Buffer>, count: usize, stock: &BufferStock) {
    if let Some(mut it) = buffer.take() {
        it.consume(count.min(it.filled().len()));
        if it.is_empty() {
            stock.give_back(it);
        } else {
            *buffer = Some(it);
        }
    }
}

/// `None` is the end of the stream.
async fn read(stream: &mut Stream, ready: io::Result<()>, stock: &BufferStock) -> Option<Buffer> {
    ready.ok()?;
    let mut buffer = stock.take();
    match stream.read(&mut buffer).await {
        Ok(count) if count > 0 => Some(buffer),
        _ => {
            stock.give_back(buffer);
            None
        }
    }
}
