//! A server connection for the next request: chosen, checked out, set up as the session wants it.

use std::time::Instant;

use super::balance::{Placed, Reader};
use super::session::{Held, Session};
use super::waiting::{Missing, Waited, cannot_connect};
use crate::backend::{Backend, ConnectError};
use crate::base::{Reason, Refusal, Role, ShardId, SqlState};
use crate::net::Buffer;
use crate::pool::{Admission, Checkout, CheckoutError, Lease, Pool};
use crate::proto::{Expect, Origin, Replies, Settings};
use crate::route::Excluded;
use crate::wire;

impl Session {
    /// Waits for a server that may serve the role; for a read no replica that is fresh enough means the primary. For a
    /// connection of it `wait_timeout` at most, for a primary `failover_hold`. Nothing has been sent yet, so trying again
    /// is safe.
    pub async fn attach(
        &mut self,
        shard: ShardId,
        role: Role,
        excluded: &mut Excluded,
        mut now: Instant,
    ) -> Result<Held, Refusal> {
        let mut waited = Waited::default();
        loop {
            match self.try_attach(shard, role, excluded, &waited, now).await? {
                Ok(held) => return Ok(held),
                Err(missing) => {
                    if matches!(missing, Missing::Reader) {
                        // What kept it from them may be over.
                        *excluded = Excluded::default();
                    }
                    Box::pin(self.wait_out(missing, shard, &mut waited)).await?;
                }
            }
            now = Instant::now();
        }
    }

    /// As `attach`, where there is nothing to wait for or to weigh: the shard has one server, and a connection of it is
    /// free. `None` is for `attach` to say more of.
    pub fn attach_at_once(&mut self, shard: ShardId, role: Role, now: Instant) -> Option<Held> {
        let database = &self.database;
        if database.has_replicas || database.traffic.is_paused() || self.is_spread() {
            return None;
        }
        let placed = self.choose(shard, role, Excluded::default(), now).ok()??;
        let spills = placed.role != role && self.database.balance.is_bounded();
        if spills || self.database.failover.doubts(placed.server) {
            return None;
        }
        let lease = self.pools.get(placed.server)?.try_checkout()?;
        self.count_read(placed, now);
        Some(self.take(lease, shard, placed, Reader::default()))
    }

    /// As `attach`, but only for a connection of a server that is there: else it says what has to be waited for.
    pub async fn try_attach(
        &mut self,
        shard: ShardId,
        role: Role,
        excluded: &mut Excluded,
        waited: &Waited,
        mut now: Instant,
    ) -> Result<Result<Held, Missing>, Refusal> {
        // A pause waits for the transaction to end.
        let amid = self.held.is_some() || self.is_spread();
        let admission = if amid { Admission::Transaction } else { waited.admission() };
        loop {
            if self.database.traffic.is_paused() && !amid {
                return Ok(Err(Missing::Paused));
            }
            let Some(placed) = self.choose(shard, role, *excluded, now)? else {
                return Ok(Err(if role == Role::Replica { Missing::Reader } else { Missing::Primary }));
            };
            if placed.role == Role::Primary && self.database.failover.doubts(placed.server) {
                return Ok(Err(Missing::Doubted));
            }
            let mut reader = Reader::default();
            if placed.role != role && self.database.balance.is_bounded() {
                reader = Reader::spilled(self.spill(shard).await?);
            }
            let lease = match self.check_out(placed, admission, excluded).await? {
                Ok(Some(it)) => it,
                Ok(None) => {
                    now = Instant::now();
                    continue;
                }
                Err(missing) => return Ok(Err(missing)),
            };
            if placed.role == Role::Replica {
                let is_newer = self.is_newer_than_known(placed.server, lease.ready_at);
                if is_newer {
                    self.database.topology.look_at(shard);
                }
                match Reader::of_replica(lease.standing(), now).filter(|_| !is_newer) {
                    Some(it) => reader = it,
                    // Where the primary has few places for it, it had better come again in a moment.
                    None if self.database.balance.is_bounded() => {
                        lease.release(now);
                        return Ok(Err(Missing::Doubted));
                    }
                    None => {
                        excluded.add(placed.server);
                        lease.release(now);
                        continue;
                    }
                }
            }
            self.count_read(placed, now);
            let server = placed.server;
            let held = self.take(lease, shard, placed, reader);
            let Some(missing) = self.contradiction(&held) else { return Ok(Ok(held)) };
            self.database.topology.report_failure(server);
            let detached = self.cancel.slot().detach().await;
            held.release(detached, now);
            self.attach_again(detached);
            return Ok(Err(missing));
        }
    }

    /// `None` where another server is to be looked for.
    async fn check_out(
        &mut self,
        placed: Placed,
        admission: Admission,
        excluded: &mut Excluded,
    ) -> Result<Result<Option<Lease>, Missing>, Refusal> {
        let (server, role) = (placed.server, placed.role);
        let Some(pool) = self.pools.get(server).cloned() else {
            return Err(self.no_primary(server.shard, &Missing::Primary));
        };
        let served = match pool.checkout(admission) {
            Ok(Checkout::Lease(it)) => return Ok(Ok(Some(it))),
            Ok(Checkout::Queued(queued)) => {
                let since = queued.since();
                let (served, now) = self.wait_unless_gone(since, queued.served()).await?;
                pool.note_waited(now.saturating_duration_since(since));
                served.map(|it| (it, now))
            }
            Err(error) => Err(error),
        };
        match served {
            // In the wait it may have fallen behind, or started anew with less than it had.
            Ok((it, now)) if role == Role::Replica && !self.is_fit_still(placed, now) => {
                it.release(now);
                Ok(Ok(None))
            }
            Ok((it, _)) => Ok(Ok(Some(it))),
            Err(CheckoutError::Paused) => Ok(Ok(None)),
            Err(CheckoutError::Connect(error)) => {
                self.database.topology.report_failure(server);
                excluded.add(server);
                match role {
                    Role::Primary if is_final(&error) => Err(cannot_connect(&pool, &error)),
                    Role::Primary => Ok(Err(Missing::Connection(pool, error))),
                    Role::Replica => Ok(Ok(None)),
                }
            }
            Err(error) => Err(no_connection(&pool, &error)),
        }
    }

    fn take(&mut self, mut lease: Lease, shard: ShardId, placed: Placed, reader: Reader) -> Held {
        let (server, role) = (placed.server, placed.role);
        lease.record.set_session(self.record.id, role);
        self.record.counts.assignments.add(1);
        self.cancel.slot().attach(lease.cancel.clone());
        let pid = lease.cancel.key.pid;
        lease.pipeline.know_as(pid, self.cancel.pid());
        let needs_set_up = !lease.settings.unite(&mut self.settings);
        Held { lease, shard, server, role, needs_set_up, reader }
    }

    /// Of a server that is to be used as the primary; not on a shard of one server, which nobody takes over from. Behind
    /// `take`: from then on a change of roles finds the connection (`Failover`).
    fn contradiction(&self, held: &Held) -> Option<Missing> {
        if held.role != Role::Primary || !self.database.has_replicas {
            return None;
        }
        let cluster = self.database.topology.snapshot();
        let primary = cluster.shard(held.shard).and_then(|it| it.primary()).filter(|it| it.id == held.server);
        match primary {
            None => Some(Missing::Primary),
            // What it said before the last look was of before its promotion.
            Some(it)
                if held.lease.in_hot_standby == Some(true) && it.observed_at < Some(held.lease.ready_at) =>
            {
                Some(Missing::Standby)
            }
            Some(_) => None,
        }
    }

    /// As `attach`, with the session's settings made at once: where several servers answer, or where the
    /// client's text could leave the transaction block that guards them (`set_up_text`).
    pub async fn attach_set_up(&mut self, shard: ShardId, role: Role) -> Result<Held, Refusal> {
        let mut waited = Waited::default();
        loop {
            match self.try_attach_set_up(shard, role, &waited).await? {
                Ok(held) => return Ok(held),
                Err(missing) => Box::pin(self.wait_out(missing, shard, &mut waited)).await?,
            }
        }
    }

    /// As `try_attach`, likewise.
    pub async fn try_attach_set_up(
        &mut self,
        shard: ShardId,
        role: Role,
        waited: &Waited,
    ) -> Result<Result<Held, Missing>, Refusal> {
        let mut excluded = Excluded::default();
        let mut held = match self.try_attach(shard, role, &mut excluded, waited, Instant::now()).await? {
            Ok(it) => it,
            missing => return Ok(missing),
        };
        match self.set_up_now(&mut held).await {
            Ok(()) => Ok(Ok(held)),
            Err(SetUpError::Lost) => {
                self.database.topology.report_failure(held.server);
                drop(held);
                let detached = self.cancel.slot().detach().await;
                self.attach_again(detached);
                Ok(Err(Missing::Lost))
            }
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
                self.no_primary(held.shard, &Missing::Primary)
            }
        }
    }

    /// Parameters for the greeting, from a server that has taken the client's startup settings.
    pub async fn ask_for_parameters(&mut self) -> Result<Vec<(String, String)>, Refusal> {
        let shard = ShardId((self.entropy % self.floors.len().max(1) as u64) as u16);
        let mut held = match self.attach(shard, Role::Replica, &mut Excluded::default(), Instant::now()).await
        {
            Ok(it) => it,
            // What the configuration says of reads without a replica is not said of logins.
            Err(_) => self.attach(shard, Role::Primary, &mut Excluded::default(), Instant::now()).await?,
        };
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
