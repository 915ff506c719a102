//! What a statement waits for before it has a server: the end of a pause, or a primary. Nothing has been sent yet, so
//! that trying again is safe. The client may leave, or cancel, all the while.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::failover::Place;
use super::registry::Activity;
use super::session::Session;
use crate::backend::ConnectError;
use crate::base::{Reason, Refusal, ShardId, SqlState};
use crate::metrics::Limit;
use crate::pool::{Admission, Pool};

/// Between attempts to reach a server that cannot be connected to, unless a role changes first.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Between looks whether a client has left that has sent more already.
const LEAVING_PAUSE: Duration = Duration::from_millis(500);

/// Between looks at a server that is in doubt.
const DOUBT_PAUSE: Duration = Duration::from_millis(5);

/// How many connections may turn out to be lost before one is of use: all idle ones of a server that has gone are let go
/// of with the first.
const LOST_MAX: u32 = 3;

/// Why no server is at hand.
pub(super) enum Missing {
    /// An administrator has paused the database.
    Paused,
    /// The shard has no primary.
    Primary,
    /// Nor a replica for a read just now; another look may find one.
    Reader,
    /// It has one that cannot be connected to.
    Connection(Arc<Pool>, Arc<ConnectError>),
    /// It has one that says of itself that it is a standby.
    Standby,
    /// Its connection was gone before anything of the client's was sent.
    Lost,
    /// It has just closed a connection that was in use, and nobody has looked at it since.
    Doubted,
}

/// What one request for a server has waited through.
#[derive(Default)]
pub(super) struct Waited {
    /// In the queue of those who wait for a primary.
    place: Option<Place>,
    has_waited: bool,
    /// Connections lost.
    lost: u32,
    /// When a server that takes no more connections has been tried for long enough.
    full_until: Option<Instant>,
}

impl Waited {
    /// Who has waited already stands in no other queue's way.
    pub fn admission(&self) -> Admission {
        if self.has_waited { Admission::Held } else { Admission::Statement }
    }
}

impl Session {
    /// Waits for what is missing.
    ///
    /// # Errors
    /// 57P03 when the shard has had no primary for `failover_hold`, or too many wait for one already; 08006 when a server
    /// takes no more connections for `wait_timeout`; 57014 when the client has cancelled, or left.
    pub async fn wait_out(
        &mut self,
        missing: Missing,
        shard: ShardId,
        waited: &mut Waited,
    ) -> Result<(), Refusal> {
        // Those who wait for other reasons are not counted, or not for long.
        waited.has_waited |= !matches!(missing, Missing::Doubted | Missing::Lost);
        let began = Instant::now();
        self.record.waits(began);
        let done = match &missing {
            Missing::Paused => {
                // What was waited for before does not count, nor does the pause.
                (waited.place, self.cost().hold_ends) = (None, None);
                let traffic = self.database.traffic.clone();
                self.unless_gone(traffic.resumed()).await
            }
            Missing::Connection(pool, error) if error.is_full() => {
                let until = Instant::now() + self.database.wait_timeout;
                if Instant::now() >= *waited.full_until.get_or_insert(until) {
                    Err(cannot_connect(pool, error))
                } else {
                    self.unless_gone(tokio::time::sleep(RETRY_PAUSE)).await
                }
            }
            Missing::Doubted => self.unless_gone(tokio::time::sleep(DOUBT_PAUSE)).await,
            Missing::Lost => {
                waited.lost += 1;
                match waited.lost {
                    ..LOST_MAX => Ok(()),
                    _ => Err(self.no_primary(shard, &missing)),
                }
            }
            _ => self.wait_for_primary(&missing, shard, waited).await,
        };
        self.cost().waited(began.elapsed());
        self.record.set_activity(Activity::Active);
        done
    }

    async fn wait_for_primary(
        &mut self,
        missing: &Missing,
        shard: ShardId,
        waited: &mut Waited,
    ) -> Result<(), Refusal> {
        let database = self.database.clone();
        if waited.place.is_none() {
            waited.place = database.failover.enter(shard, database.failover_queue, &database.metrics);
            if waited.place.is_none() {
                self.shared.hits.hit(Limit::FailoverQueue);
                return Err(self.too_many_held(shard, missing));
            }
        }
        let now = Instant::now();
        let ends = *self.cost().hold_ends.get_or_insert(now + database.failover_hold);
        if now >= ends {
            self.shared.hits.hit(Limit::FailoverHold);
            return Err(self.no_primary(shard, missing));
        }
        // Before the look: a change behind it ends the wait.
        let Some(changed) = database.failover.changed(shard) else {
            return Err(self.no_primary(shard, missing));
        };
        let left = ends - now;
        let wait = match missing {
            Missing::Paused | Missing::Primary | Missing::Lost | Missing::Doubted => {
                if database.topology.snapshot().shard(shard).is_some_and(|it| it.primary().is_some()) {
                    return Ok(());
                }
                left
            }
            Missing::Connection(..) | Missing::Standby | Missing::Reader => left.min(RETRY_PAUSE),
        };
        self.unless_gone(tokio::time::timeout(wait, changed)).await.map(drop)
    }

    /// What comes of `done`, which is dropped when the client cancels or leaves before.
    pub async fn unless_gone<T>(&mut self, done: impl Future<Output = T>) -> Result<T, Refusal> {
        let slot = self.cancel.slot().clone();
        let waiting = slot.wait();
        let mut done = pin!(done);
        // Once it has sent its next request, it is looked at now and then: the end comes behind that.
        let (stream, mut looks) = (&mut self.stream, None::<tokio::time::Interval>);
        poll_fn(|cx| {
            if waiting.poll_cancelled(cx).is_ready() {
                return Poll::Ready(Err(cancelled_by_user()));
            }
            if let Poll::Ready(it) = done.as_mut().poll(cx) {
                return Poll::Ready(Ok(it));
            }
            // It will not read what it is told.
            if looks.is_none() && stream.poll_has_bytes(cx).is_ready() {
                if stream.is_closed_by_peer() {
                    return Poll::Ready(Err(cancelled_by_user()));
                }
                looks = Some(tokio::time::interval(LEAVING_PAUSE));
            }
            while looks.as_mut().is_some_and(|it| it.poll_tick(cx).is_ready()) {
                if stream.has_hung_up() {
                    return Poll::Ready(Err(cancelled_by_user()));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// As `unless_gone`, told and counted as a wait that began at `since`. When it ended, too.
    pub async fn wait_unless_gone<T>(
        &mut self,
        since: Instant,
        done: impl Future<Output = T>,
    ) -> Result<(T, Instant), Refusal> {
        self.record.waits(since);
        let done = self.unless_gone(done).await;
        let now = Instant::now();
        self.cost().waited(now.saturating_duration_since(since));
        self.record.set_activity(Activity::Active);
        Ok((done?, now))
    }

    /// What the servers of the shard are at, as far as it is known.
    pub fn no_primary(&self, shard: ShardId, missing: &Missing) -> Refusal {
        let refusal = self.without_primary(shard, missing);
        refusal
            .hint("try again later, promote a replica, or raise failover_hold in the configuration of keyway")
    }

    fn too_many_held(&self, shard: ShardId, missing: &Missing) -> Refusal {
        let refusal = self.without_primary(shard, missing);
        let hint = format!(
            "{} clients wait for one already: try again later, or raise failover_queue in the configuration of keyway",
            self.database.failover_queue
        );
        refusal.hint(hint)
    }

    fn without_primary(&self, shard: ShardId, missing: &Missing) -> Refusal {
        let cluster = self.database.topology.snapshot();
        let name = cluster.shard(shard).map_or("", |it| &it.name);
        let database = &self.database.name;
        let (message, detail) = match missing {
            Missing::Connection(pool, error) => {
                let spec = pool.spec();
                let what = format!("{}:{}, the primary of shard \"{name}\"", spec.host, spec.port);
                (format!("cannot connect to server {what} of database \"{database}\""), error.to_string())
            }
            Missing::Paused
            | Missing::Primary
            | Missing::Reader
            | Missing::Standby
            | Missing::Lost
            | Missing::Doubted => {
                let problems = cluster.shard(shard).map_or_else(String::new, |it| {
                    let told = it.servers.iter();
                    let told =
                        told.filter_map(|it| Some(format!("{}: {}", it.address, it.problem.as_ref()?)));
                    told.collect::<Vec<_>>().join("; ")
                });
                (format!("shard \"{name}\" of database \"{database}\" has no primary"), problems)
            }
        };
        let refusal = Refusal::new(Reason::NoServer, SqlState::CANNOT_CONNECT_NOW, message);
        if detail.is_empty() { refusal } else { refusal.detail(detail) }
    }
}

pub(super) fn cannot_connect(pool: &Pool, error: &ConnectError) -> Refusal {
    let spec = pool.spec();
    Refusal::new(
        Reason::NoServer,
        SqlState::CONNECTION_FAILURE,
        format!("cannot connect to server {}:{}", spec.host, spec.port),
    )
    .detail(error.to_string())
}

fn cancelled_by_user() -> Refusal {
    Refusal::new(Reason::Limit, SqlState::QUERY_CANCELED, "canceling statement due to user request")
}
