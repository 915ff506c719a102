//! A server connection for the next request: chosen, checked out, set up as the session wants it.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::UserPools;
use super::session::{Held, Session};
use crate::backend::{Backend, ConnectError};
use crate::base::{Reason, Refusal, Role, ServerId, ShardId, SqlState};
use crate::cancel::Target;
use crate::net::Buffer;
use crate::pool::{CheckoutError, Lease, Pool};
use crate::proto::{Expect, Origin, Replies};
use crate::route::{Excluded, Freshness};
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
        let deadline = now + self.database.wait_timeout;
        let mut changes = None;
        loop {
            let Some((server, role)) = self.choose(shard, role, *excluded, now) else {
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
            let Some(pool) = self.pools.get(server).cloned() else { return Err(self.no_primary(shard)) };
            let lease = match pool.try_checkout() {
                Some(it) => it,
                None => match pool.checkout().await {
                    Ok(it) => it,
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
            match self.set_up(lease, Origin::Keyway).await {
                Ok((lease, _)) => {
                    self.cancel.slot().attach(target_of(&lease, &pool));
                    return Ok(Held { lease, shard, role });
                }
                Err(SetUpError::Refused(refusal)) => return Err(refusal),
                Err(SetUpError::Lost) => {
                    self.database.topology.report_failure(server);
                    excluded.add(server);
                    now = Instant::now();
                    if now > deadline {
                        return Err(self.no_primary(shard));
                    }
                }
            }
        }
    }

    fn choose(
        &mut self,
        shard: ShardId,
        role: Role,
        excluded: Excluded,
        now: Instant,
    ) -> Option<(ServerId, Role)> {
        let cluster = self.database.topology.snapshot();
        let shard_state = cluster.shard(shard)?;
        if role == Role::Replica {
            self.entropy = self.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let floor = self.floors.get(usize::from(shard.0)).copied().flatten();
            let freshness = Freshness { max_lag: self.database.max_lag, floor };
            let found = shard_state.replica(freshness, excluded, self.entropy >> 33, now);
            if let Some(replica) = found {
                return Some((replica.id, Role::Replica));
            }
        }
        shard_state.primary().map(|it| (it.id, Role::Primary))
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

    /// Makes the connection's settings the session's, in one round trip and only where they differ.
    async fn set_up(&mut self, mut lease: Lease, origin: Origin) -> Result<(Lease, Reported), SetUpError> {
        if lease.settings.same(&self.settings) {
            return Ok((lease, Vec::new()));
        }
        let statements = lease.settings.difference(&self.settings);
        let reported = if statements.is_empty() {
            Vec::new()
        } else {
            run_own(&mut lease, &statements.join(";\n"), origin).await?
        };
        lease.settings = self.settings.clone();
        Ok((lease, reported))
    }

    /// Parameters for the greeting, from a server that has taken the client's startup settings.
    pub async fn ask_for_parameters(&mut self) -> Result<Vec<(String, String)>, Refusal> {
        let shard = ShardId((self.entropy % self.floors.len().max(1) as u64) as u16);
        let bare = std::mem::take(&mut self.settings);
        let held = self.attach(shard, Role::Replica, &mut Excluded::default(), Instant::now()).await;
        self.settings = bare;
        let held = held?;
        self.cancel.slot().detach().await;
        let base = held.lease.parameters.clone();
        *self.pools.parameters.lock() = Some(base.clone());
        let mut parameters = base.to_vec();
        match self.set_up(held.lease, Origin::Client).await {
            Err(SetUpError::Refused(refusal)) => return Err(refusal),
            Err(SetUpError::Lost) => return Err(self.no_primary(shard)),
            Ok((lease, reported)) => {
                lease.release(Instant::now());
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

/// Runs a text of Keyway's own, of which the client sees nothing.
pub(super) async fn run_own(
    server: &mut Backend,
    text: &str,
    origin: Origin,
) -> Result<Reported, SetUpError> {
    let (mut out, mut buffer) = (Vec::new(), Buffer::default());
    let (mut replies, mut reported, mut refusal) = (Replies::default(), Vec::new(), None);
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
                reported.push((name.to_owned(), value.to_owned()));
            }
        }
        if let Some(range) = replies.error.clone() {
            refusal = Some(setting_refused(&buffer.filled()[range]));
        }
        buffer.consume(consumed);
    }
    refusal.map_or(Ok(reported), |it| Err(SetUpError::Refused(it)))
}

fn setting_refused(message: &[u8]) -> Refusal {
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
        ConnectError::Refused(state, _) => state.starts_with("28") || state.starts_with("3D"),
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

fn no_connection(pool: &Pool, error: &CheckoutError) -> Refusal {
    let spec = pool.spec();
    Refusal::new(
        Reason::Limit,
        SqlState::TOO_MANY_CONNECTIONS,
        format!("no connection to server {}:{} is free", spec.host, spec.port),
    )
    .detail(error.to_string())
    .hint("raise pool.size or pool.wait_timeout in the configuration of keyway, or keep transactions short")
}

fn target_of(server: &Backend, pool: &Pool) -> Target {
    Target { host: pool.spec().host.clone(), port: pool.spec().port, key: server.cancel_key }
}

/// Where to cancel what `server` runs.
pub(super) fn cancel_target(server: &Backend, pools: &UserPools) -> Option<Target> {
    pools.get(server.server).map(|pool| target_of(server, pool))
}
