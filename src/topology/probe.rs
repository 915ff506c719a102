//! One server's prober: a connection of its own with its own time-out, so that a full pool or a slow
//! query is never taken for lag.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::estimate::{Failure, Observation, Report};
use super::{ProbeSpec, Topology};
use crate::base::ServerId;
use crate::config::Address;

/// Role, position, timeline, identity (manual, "System Administration Functions" and "System
/// Information Functions"). Open to everyone unless an administrator closed them. A standby's control
/// file learns of a new timeline at its next restartpoint only, hence the greatest of what it knows;
/// `received_tli` is null without `pg_read_all_stats`.
const FULL: &str = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() \
     THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()), \
     (SELECT min_recovery_end_timeline FROM pg_control_recovery()), \
     (SELECT received_tli FROM pg_stat_wal_receiver)) \
     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END, \
     (SELECT system_identifier FROM pg_control_system())";
/// For a user who may not ask for more: a primary is found, replicas are not used, because nothing
/// says that their positions are of the primary's timeline.
const POSITION: &str = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() \
     THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub struct Prober {
    pub server: ServerId,
    address: Address,
    spec: ProbeSpec,
    client: Option<Client>,
    query: &'static str,
    entropy: u64,
}

/// Probes until told to stop.
pub async fn run(
    mut prober: Prober,
    topology: Arc<Topology>,
    urgent: Arc<Notify>,
    mut stopping: watch::Receiver<bool>,
) {
    let probing = async {
        let mut failures = 0u32;
        loop {
            let started = Instant::now();
            let report = prober.probe().await;
            failures = if matches!(report, Report::Seen(_)) { 0 } else { failures.saturating_add(1) };
            topology.learn(prober.server, report, started);
            let pause = prober.pause(failures).saturating_sub(started.elapsed());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Bounded even where clients report a dead server all the time.
                () = urgent.notified() => tokio::time::sleep(prober.spec.interval / 10).await,
            }
        }
    };
    // Cut off anywhere: a probe that nobody waits for changes nothing.
    tokio::select! {
        () = probing => {}
        () = stopped(&mut stopping) => {}
    }
}

/// `wait_for` gives a guard that must not live across an await.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|it| *it).await;
}

impl Prober {
    pub fn new(server: ServerId, address: Address, spec: ProbeSpec) -> Prober {
        // Jitter needs to differ between probers, not to be secret: without randomness the place does.
        let entropy = getrandom::u64().unwrap_or(u64::from(server.index) << 32);
        Prober { server, address, spec, client: None, query: FULL, entropy }
    }

    /// The interval, doubled with every failure after the first, so that a dead server is not
    /// flooded and one that only paused is asked again soon. Up to a quarter is taken off by chance,
    /// so that many probers do not come back in step.
    fn pause(&mut self, failures: u32) -> Duration {
        let interval = self.spec.interval;
        if failures == 0 {
            return interval;
        }
        let doubled = interval.saturating_mul(1 << (failures - 1).min(6)).min(BACKOFF_MAX.max(interval));
        self.entropy = self.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        doubled - doubled * (self.entropy >> 56) as u32 / 1024
    }

    async fn probe(&mut self) -> Report {
        let timeout = self.spec.timeout;
        match tokio::time::timeout(timeout, self.ask()).await {
            Ok(Ok(observation)) => Report::Seen(observation),
            Ok(Err((failure, problem))) => {
                self.client = None;
                Report::Failed { failure, problem }
            }
            Err(_) => {
                self.client = None;
                let timeout = humantime::format_duration(timeout);
                Report::Failed {
                    failure: Failure::Unclear,
                    problem: format!("no answer to a probe within {timeout}"),
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<Observation, (Failure, String)> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            // What was refused may have been granted since.
            self.query = FULL;
            self.client = Some(self.connect().await.map_err(|it| (Failure::Lost, it))?);
        }
        let Some(client) = &self.client else { return Err((Failure::Lost, "no connection".to_owned())) };
        let rows = match client.simple_query(self.query).await {
            Err(error) if error.code().is_some_and(|it| it.code() == INSUFFICIENT_PRIVILEGE) => {
                self.query = POSITION;
                client.simple_query(self.query).await
            }
            other => other,
        };
        let rows = rows.map_err(|error| (failure_of(&error), format!("probe: {}", reason(&error))))?;
        let row = rows.iter().find_map(|it| match it {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let senseless = || (Failure::Unclear, "probe: the answer makes no sense".to_owned());
        let row = row.ok_or_else(senseless)?;
        let text = |index: usize| if index < row.len() { row.get(index) } else { None };
        let in_recovery = match text(0) {
            Some("t") => true,
            Some("f") => false,
            _ => return Err(senseless()),
        };
        Ok(Observation {
            in_recovery,
            position: text(1).and_then(|it| it.parse().ok()),
            timeline: text(2).and_then(|it| it.parse().ok()),
            system_identifier: text(3).and_then(|it| it.parse().ok()),
        })
    }

    async fn connect(&self) -> Result<Client, String> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.address.host)
            .port(self.address.port)
            .user(&self.spec.user)
            .dbname(&self.spec.dbname)
            .application_name("keyway probe")
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = &self.spec.password {
            config.password(password.as_bytes());
        }
        let (client, connection) =
            config.connect(NoTls).await.map_err(|error| format!("connect: {}", reason(&error)))?;
        // Ends by itself when the client is dropped.
        tokio::spawn(connection);
        Ok(client)
    }
}

/// An error that leaves the session open, as one from a server in the middle of its promotion, may be
/// gone at the next probe. FATAL and a broken connection are not like that.
fn failure_of(error: &tokio_postgres::Error) -> Failure {
    match error.as_db_error() {
        Some(it) if it.severity() == "ERROR" => Failure::Unclear,
        _ => Failure::Lost,
    }
}

/// The innermost cause: "error connecting to server" alone helps nobody.
fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(it) = error.as_db_error() {
        return it.message().to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
