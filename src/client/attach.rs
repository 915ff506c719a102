//! A server connection for the next request: chosen, checked out, set up as the session wants it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::balance::{self, Reader};
use super::registry::Activity;
use super::session::{Held, Session};
use crate::backend::{Backend, ConnectError};
use crate::base::{Reason, Refusal, Role, ShardId, SqlState};
use crate::net::Buffer;
use crate::pool::{CheckoutError, Lease, Pool};
use crate::proto::{Expect, Origin, Replies, Settings};
use crate::route::Excluded;
use crate::wire;

/// Between attempts to reach a primary that cannot be connected to, unless its role changes first.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Session {
    /// Waits, within `wait_timeout`, for a server that may serve the role; for a read no replica that
    /// is fresh enough means the primary. Nothing has been sent yet, so trying again is safe.
    pub async fn attach(
        &mut self,
        shard: ShardId,
        role: Role,
        excluded: &mut Excluded,
        mut now: Instant,
    ) -> Result<Held, Refusal> {
        let mut deadline = now + self.database.wait_timeout;
        let mut changes = None;
        loop {
            if self.database.traffic.is_paused() {
                // The pause waits for the transaction to end.
                if self.held.is_some() || self.is_spread() {
                    return Err(paused());
                }
                self.record.waits(now);
                self.database.traffic.resumed().await;
                self.record.set_activity(Activity::Active);
                // What was waited for in the meantime does not count.
                now = Instant::now();
                deadline = now + self.database.wait_timeout;
            }
            let wanted = role;
            let Some(placed) = self.choose(shard, wanted, *excluded, now)? else {
                // The first look that finds nothing is made again with a receiver at hand: a change
                // after that look ends the wait.
                let Some(changes) = &mut changes else {
                    changes = Some(self.database.topology.changes());
                    continue;
                };
                if !wait_for_change(changes, deadline, None).await {
                    return Err(self.no_primary(shard));
                }
                now = Instant::now();
                continue;
            };
            let (server, role) = (placed.server, placed.role);
            let mut reader = Reader::default();
            if role != wanted {
                reader.spilled = self.spill(shard, deadline).await?;
            }
            let Some(pool) = self.pools.get(server).cloned() else { return Err(self.no_primary(shard)) };
            let mut lease = match pool.try_checkout() {
                Some(it) => it,
                None => match self.wait_for_server(&pool).await {
                    Ok(it) => it,
                    Err(CheckoutError::Paused) => {
                        now = Instant::now();
                        continue;
                    }
                    Err(CheckoutError::Connect(error)) => {
                        self.database.topology.report_failure(server);
                        excluded.add(server);
                        let changes = changes.get_or_insert_with(|| self.database.topology.changes());
                        let last = role == Role::Primary
                            && (is_final(&error)
                                || !wait_for_change(changes, deadline, Some(RETRY_PAUSE)).await);
                        if last {
                            return Err(cannot_connect(&pool, &error));
                        }
                        now = Instant::now();
                        continue;
                    }
                    Err(error) => return Err(no_connection(&pool, &error)),
                },
            };
            if role == Role::Replica && self.is_newer_than_known(server, lease.ready_at) {
                // What is known of the server may be of before it started anew.
                excluded.add(server);
                lease.release(now);
                continue;
            }
            if role == Role::Replica {
                reader.busy = balance::begin(pool.standing(), now);
                if reader.busy.is_none() {
                    // Another one tries it just now.
                    excluded.add(server);
                    lease.release(now);
                    continue;
                }
            }
            self.count_read(placed);
            lease.record.set_session(self.record.id);
            self.record.counts.assignments.add(1);
            self.cancel.slot().attach(lease.cancel.clone());
            let pid = lease.cancel.key.pid;
            lease.pipeline.know_as(pid, self.cancel.pid());
            let needs_set_up = !lease.settings.unite(&mut self.settings);
            return Ok(Held { lease, shard, server, role, needs_set_up, reader });
        }
    }

    async fn wait_for_server(&self, pool: &Arc<Pool>) -> Result<Lease, CheckoutError> {
        self.record.waits(Instant::now());
        let checked_out = pool.checkout().await;
        self.record.set_activity(Activity::Active);
        checked_out
    }

    /// As `attach`, with the session's settings made at once: where several servers answer, or where the
    /// client's text could leave the transaction block that guards them (`set_up_text`).
    pub async fn attach_set_up(&mut self, shard: ShardId, role: Role) -> Result<Held, Refusal> {
        let mut held = self.attach(shard, role, &mut Excluded::default(), Instant::now()).await?;
        match self.set_up_now(&mut held).await {
            Ok(()) => Ok(held),
            Err(error) => Err(self.set_up_failed(error, &held).await),
        }
    }

    pub async fn set_up_now(&self, held: &mut Held) -> Result<(), SetUpError> {
        if std::mem::take(&mut held.needs_set_up) {
            set_up(&mut held.lease, &self.settings, Origin::Keyway).await?;
        }
        Ok(())
    }

    /// The connection is to be closed: it has some of the settings, or is gone. Those that the transaction has beside it go on.
    pub async fn set_up_failed(&mut self, error: SetUpError, held: &Held) -> Refusal {
        let detached = self.cancel.slot().detach().await;
        self.attach_again(detached);
        match error {
            SetUpError::Refused(refusal) => refusal,
            SetUpError::Lost => {
                self.database.topology.report_failure(held.server);
                self.no_primary(held.shard)
            }
        }
    }

    fn no_primary(&self, shard: ShardId) -> Refusal {
        let cluster = self.database.topology.snapshot();
        let name = cluster.shard(shard).map_or("", |it| &it.name);
        let problems = cluster.shard(shard).map_or_else(String::new, |it| {
            let told =
                it.servers.iter().filter_map(|it| Some(format!("{}: {}", it.address, it.problem.as_ref()?)));
            told.collect::<Vec<_>>().join("; ")
        });
        let refusal = Refusal::new(
            Reason::NoServer,
            SqlState::CANNOT_CONNECT_NOW,
            format!("shard \"{name}\" of database \"{}\" has no primary", self.database.name),
        )
        .hint("try again later, or promote a replica");
        if problems.is_empty() { refusal } else { refusal.detail(problems) }
    }

    /// Parameters for the greeting, from a server that has taken the client's startup settings.
    pub async fn ask_for_parameters(&mut self) -> Result<Vec<(String, String)>, Refusal> {
        let shard = ShardId((self.entropy % self.floors.len().max(1) as u64) as u16);
        let mut held = self.attach(shard, Role::Replica, &mut Excluded::default(), Instant::now()).await?;
        // Nobody knows this session's key yet.
        let _clean = self.cancel.slot().detach().await;
        // What a login tells is told anew with the client's own values: so from the server's own first.
        if let Err(error) = set_up(&mut held.lease, &Settings::default(), Origin::Keyway).await {
            return Err(self.set_up_failed(error, &held).await);
        }
        let base = held.lease.parameters.clone();
        *self.pools.parameters.lock() = Some(base.clone());
        let mut parameters = base.to_vec();
        match set_up(&mut held.lease, &self.settings, Origin::Client).await {
            Err(error) => return Err(self.set_up_failed(error, &held).await),
            Ok(reported) => {
                held.lease.release(Instant::now());
                for (name, value) in reported {
                    match parameters.iter_mut().find(|it| it.0 == name) {
                        Some(known) => known.1 = value,
                        None => parameters.push((name, value)),
                    }
                }
            }
        }
        Ok(parameters)
    }
}

/// Makes the connection's settings these, in one round trip and only where they differ.
async fn set_up(server: &mut Backend, wanted: &Settings, origin: Origin) -> Result<Reported, SetUpError> {
    let statements = server.settings.difference(wanted);
    let reported = if statements.is_empty() {
        Vec::new()
    } else {
        run_own(server, &statements.join(";\n"), origin).await?.reported
    };
    server.settings = wanted.clone();
    Ok(reported)
}

/// The text that makes the connection's settings `wanted`, to be sent in front of the client's request
/// without waiting for its answer (`Expect::SetUp`). In a transaction block: where a statement of it
/// fails, the block stays open and aborted, and what follows fails as well instead of running with the
/// settings of somebody else.
pub(super) fn set_up_text(server: &Backend, wanted: &Settings) -> Option<String> {
    let statements = server.settings.difference(wanted);
    (!statements.is_empty()).then(|| format!("BEGIN;\n{};\nCOMMIT", statements.join(";\n")))
}

/// Waits for the topology to change or for `pause`; `false` when the deadline has passed.
async fn wait_for_change(
    changes: &mut watch::Receiver<u64>,
    deadline: Instant,
    pause: Option<Duration>,
) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let wait = pause.map_or(left, |it| it.min(left));
    let _ = tokio::time::timeout(wait, changes.changed()).await;
    Instant::now() < deadline
}

#[derive(Debug)]
pub(super) enum SetUpError {
    /// The server does not take a setting of the session.
    Refused(Refusal),
    Lost,
}

/// ParameterStatus messages that settings brought about.
pub(super) type Reported = Vec<(String, String)>;

/// What a text of Keyway's own has brought.
#[derive(Debug, Default)]
pub(super) struct OwnAnswer {
    pub reported: Reported,
    /// Of all its statements, in order.
    pub rows: Vec<Vec<Option<String>>>,
    /// Notifications that came meanwhile, as they came.
    pub notifications: Vec<u8>,
}

/// Runs a text of Keyway's own, of which the client sees nothing.
pub(super) async fn run_own(
    server: &mut Backend,
    text: &str,
    origin: Origin,
) -> Result<OwnAnswer, SetUpError> {
    let (mut out, mut buffer) = (Vec::new(), Buffer::default());
    let (mut replies, mut answer, mut refusal) = (Replies::default(), OwnAnswer::default(), None);
    wire::query(&mut out, text);
    server.pipeline.push(Expect::Query(origin));
    server.statements.set_unnamed(None);
    server.stream.write_all(&out).await.map_err(|_| SetUpError::Lost)?;
    while !server.pipeline.is_drained() {
        if server.stream.read(&mut buffer).await.map_err(|_| SetUpError::Lost)? == 0 {
            return Err(SetUpError::Lost);
        }
        replies.next_buffer();
        let consumed = server.pipeline.feed(buffer.filled(), &mut replies).map_err(|_| SetUpError::Lost)?;
        for range in &replies.parameters {
            if let Ok((name, value)) = wire::parameter(&buffer.filled()[range.clone()]) {
                answer.reported.push((name.to_owned(), value.to_owned()));
            }
        }
        for piece in &replies.pieces {
            answer.notifications.extend_from_slice(piece.bytes(buffer.filled()));
        }
        for range in &replies.own_rows {
            let row = wire::row_texts(&buffer.filled()[range.clone()]).map_err(|_| SetUpError::Lost)?;
            answer.rows.push(row.into_iter().map(|it| it.map(str::to_owned)).collect());
        }
        if let Some(range) = replies.error.clone() {
            refusal = Some(setting_refused(&buffer.filled()[range]));
        }
        buffer.consume(consumed);
    }
    refusal.map_or(Ok(answer), |it| Err(SetUpError::Refused(it)))
}

pub(super) fn setting_refused(message: &[u8]) -> Refusal {
    let fields = wire::error_fields(message).unwrap_or_default();
    let state = match fields.state {
        b"42704" => SqlState("42704"),
        b"42501" => SqlState("42501"),
        b"55P02" => SqlState("55P02"),
        _ => SqlState::INVALID_PARAMETER_VALUE,
    };
    Refusal::new(Reason::SessionState, state, String::from_utf8_lossy(fields.message).into_owned())
}

/// The server is there and says no: waiting will not help.
fn is_final(error: &ConnectError) -> bool {
    match error {
        ConnectError::Login(_) => true,
        ConnectError::Refused { state, .. } => state.starts_with("28") || state.starts_with("3D"),
        _ => false,
    }
}

fn cannot_connect(pool: &Pool, error: &ConnectError) -> Refusal {
    let spec = pool.spec();
    Refusal::new(
        Reason::NoServer,
        SqlState::CONNECTION_FAILURE,
        format!("cannot connect to server {}:{}", spec.host, spec.port),
    )
    .detail(error.to_string())
}

fn paused() -> Refusal {
    let message = "database is paused, and a transaction that has a server can take no further one";
    Refusal::new(Reason::Limit, SqlState::CANNOT_CONNECT_NOW, message)
        .hint("begin the transaction again: it waits until the pause is over")
}

fn no_connection(pool: &Pool, error: &CheckoutError) -> Refusal {
    let spec = pool.spec();
    Refusal::new(
        Reason::Limit,
        SqlState::TOO_MANY_CONNECTIONS,
        format!("no connection to server {}:{} is free", spec.host, spec.port),
    )
    .detail(error.to_string())
    .hint("raise pool.size, pool.wait_timeout or server_connections_max in the configuration of keyway, or keep transactions short")
}
