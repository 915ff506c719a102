//! One server's prober: a connection of its own with its own time-out, so that a full pool or a slow
//! query is never taken for lag.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::ProbeSpec;
use super::estimate::{Failure, Observation, Report};
use super::feed::Feed;
use super::patroni::{self, Leadership};
use crate::backend::{self, Backend, ConnectError, QuestionError, Row};
use crate::wire;

/// Both positions of one moment, the later one asked for first.
macro_rules! end_of_log {
    () => {
        "(SELECT CASE WHEN i - w <= 40 AND (w - '0/0'::pg_lsn) % current_setting('wal_block_size')::int = 0 \
         THEN w ELSE i END FROM (SELECT pg_current_wal_insert_lsn() AS i, pg_current_wal_lsn() AS w OFFSET 0) AS at)"
    };
}

/// Role, position, timeline, identity (manual, "System Administration Functions" and "System
/// Information Functions"). Open to everyone unless an administrator closed them. A standby's control
/// file learns of a new timeline at its next restartpoint only, hence the greatest of what it knows;
/// `received_tli` is null without `pg_read_all_stats`.
///
/// Out of recovery the position is where the next record goes: with `synchronous_commit = off` a commit is told before it is
/// written. Behind a full page that is past the header of the next one, where no replica gets to before there is a record: the
/// shortest has 24 bytes, the headers have 24 and 40 (`XLogBytePosToRecPtr` in xlog.c, xlog_internal.h).
const FULL: &str = concat!(
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE ",
    end_of_log!(),
    " END, CASE WHEN pg_is_in_recovery() THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()), \
     (SELECT min_recovery_end_timeline FROM pg_control_recovery()), \
     (SELECT received_tli FROM pg_stat_wal_receiver)) \
     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END, \
     (SELECT system_identifier FROM pg_control_system())"
);
/// For a user who may not ask for more: a primary is found, replicas are not used, because nothing
/// says that their positions are of the primary's timeline.
const POSITION: &str = concat!(
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE ",
    end_of_log!(),
    " END"
);
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// Parts of the interval.
const URGENT_PART: u32 = 10;
const REPLAY_PART: u32 = 20;
/// What a replica takes to replay what its primary has just been seen to have does not grow with the interval.
const REPLAY_MAX: Duration = Duration::from_millis(10);

pub struct Prober {
    spec: ProbeSpec,
    connection: Option<Backend>,
    query: &'static str,
    entropy: u64,
}

/// Probes until told to stop, or until nobody listens.
pub async fn run(feed: Arc<Feed>, mut stopping: watch::Receiver<bool>) {
    let mut prober = Prober::new(feed.spec.clone());
    let probing = async {
        let mut failures = 0u32;
        loop {
            let started = Instant::now();
            if feed.takes_move() {
                prober.connection = None;
                *feed.leadership.lock() = Leadership::Unasked;
            }
            let mut report = prober.probe().await;
            feed.weigh(&mut report);
            failures = if matches!(report, Report::Seen(_)) { 0 } else { failures.saturating_add(1) };
            let Some(pace) = feed.tell(&report, started) else { return };
            let interval = prober.spec.interval;
            let pause = pace.pause(interval, failures, &mut prober.entropy).saturating_sub(started.elapsed());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Bounded even where clients report a dead server all the time.
                () = feed.urgent.notified() => tokio::time::sleep(interval / URGENT_PART).await,
                () = feed.sampled.notified() => {
                    tokio::time::sleep((interval / REPLAY_PART).min(REPLAY_MAX)).await;
                }
            }
        }
    };
    // Cut off anywhere: a probe that nobody waits for changes nothing.
    tokio::select! {
        () = probing => {}
        () = patroni::ask_if_there(feed.clone()) => {}
        () = stopped(&mut stopping) => {}
    }
}

/// `wait_for` gives a guard that must not live across an await.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|it| *it).await;
}

impl Prober {
    pub fn new(spec: ProbeSpec) -> Prober {
        // Jitter needs to differ between probers, not to be secret: without randomness the port does.
        let entropy = getrandom::u64().unwrap_or(u64::from(spec.backend.port) << 32);
        Prober { spec, connection: None, query: FULL, entropy }
    }

    async fn probe(&mut self) -> Report {
        let timeout = self.spec.timeout;
        match tokio::time::timeout(timeout, self.ask()).await {
            Ok(Ok(observation)) => Report::Seen(observation),
            Ok(Err((failure, problem))) => Report::Failed { failure, problem },
            Err(_) => {
                let timeout = humantime::format_duration(timeout);
                Report::Failed {
                    failure: Failure::Silent,
                    problem: format!("no answer to a probe within {timeout}"),
                }
            }
        }
    }

    /// One on which the server has said nothing since.
    fn idle_connection(&mut self) -> Option<Backend> {
        let mut connection = self.connection.take()?;
        (!connection.has_news()).then_some(connection)
    }

    /// The connection is kept only where the server has answered on it.
    async fn ask(&mut self) -> Result<Observation, (Failure, String)> {
        let mut connection = match self.idle_connection() {
            Some(it) => it,
            None => {
                // What was refused may have been granted since.
                self.query = FULL;
                let connecting = backend::connect(&self.spec.backend, Instant::now()).await;
                connecting.map_err(|error| (Failure::Lost, format!("connect: {}", reason(&error))))?
            }
        };
        let mut asked = connection.rows(&question(self.query)).await;
        if matches!(&asked, Err(QuestionError::Refused { state, .. }) if state == INSUFFICIENT_PRIVILEGE) {
            self.query = POSITION;
            asked = connection.rows(&question(self.query)).await;
        }
        let rows = asked.map_err(|error| match error {
            // One that leaves the session open, as one from a server in the middle of its promotion, may be
            // gone at the next probe. A broken connection is not like that.
            QuestionError::Refused { message, .. } => (Failure::Unclear, format!("probe: {message}")),
            QuestionError::Lost(error) => (Failure::Lost, format!("probe: {}", reason(&error))),
        })?;
        let observed = observation(&rows, connection.ready_at);
        if observed.is_ok() {
            self.connection = Some(connection);
        }
        observed
    }
}

fn question(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::query(&mut out, text);
    out
}

fn observation(rows: &[Row], up_since: Instant) -> Result<Observation, (Failure, String)> {
    let senseless = || (Failure::Unclear, "probe: the answer makes no sense".to_owned());
    let row = rows.first().ok_or_else(senseless)?;
    let text = |index: usize| row.get(index).and_then(Option::as_deref);
    let in_recovery = match text(0) {
        Some("t") => true,
        Some("f") => false,
        _ => return Err(senseless()),
    };
    Ok(Observation {
        up_since,
        in_recovery,
        objection: None,
        position: text(1).and_then(|it| it.parse().ok()),
        timeline: text(2).and_then(|it| it.parse().ok()),
        system_identifier: text(3).and_then(|it| it.parse().ok()),
    })
}

/// The server's own words where it said any.
fn reason(error: &ConnectError) -> String {
    match error {
        ConnectError::Refused { message, .. } => message.clone(),
        other => other.to_string(),
    }
}
