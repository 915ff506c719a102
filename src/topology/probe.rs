//! One server's prober: a connection of its own with its own time-out, so that a full pool or a slow
//! query is never taken for lag.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::estimator::Sample;
use super::{ProbeSpec, Topology};
use crate::base::ServerId;
use crate::config::Address;

/// Role and position; any user may ask (manual, "System Administration Functions").
const POSITION: &str = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() \
     THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END";
/// Timeline and identity as well: functions that an administrator may have closed to users. A standby's
/// own checkpoint may be older than the timeline it follows, hence the greatest of what it knows.
const FULL: &str = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() \
     THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN greatest((pg_control_checkpoint()).timeline_id, \
     (pg_control_recovery()).min_recovery_end_timeline) \
     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END, \
     (pg_control_system()).system_identifier";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub struct Prober {
    pub server: ServerId,
    address: Address,
    spec: ProbeSpec,
    client: Option<Client>,
    query: &'static str,
}

/// Probes until told to stop.
pub async fn run(
    mut prober: Prober,
    topology: Arc<Topology>,
    urgent: Arc<Notify>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut failures = 0u32;
    loop {
        let started = Instant::now();
        let outcome = prober.probe().await;
        failures = if outcome.is_ok() { 0 } else { failures.saturating_add(1) };
        topology.learn(prober.server, outcome, started);
        let pause = pause(prober.spec.interval, failures).saturating_sub(started.elapsed());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Bounded even where clients report a dead server all the time.
            () = urgent.notified() => tokio::time::sleep(prober.spec.interval / 10).await,
            () = stopped(&mut stopping) => return,
        }
    }
}

/// `wait_for` gives a guard that must not live across an await.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|it| *it).await;
}

/// Doubles with every failure, so that a dead server is not flooded.
fn pause(interval: Duration, failures: u32) -> Duration {
    interval.saturating_mul(1 << failures.min(6)).min(BACKOFF_MAX.max(interval))
}

impl Prober {
    pub fn new(server: ServerId, address: Address, spec: ProbeSpec) -> Prober {
        Prober { server, address, spec, client: None, query: FULL }
    }

    async fn probe(&mut self) -> Result<Sample, String> {
        let timeout = self.spec.timeout;
        match tokio::time::timeout(timeout, self.ask()).await {
            Ok(Ok(sample)) => Ok(sample),
            Ok(Err(problem)) => {
                self.client = None;
                Err(problem)
            }
            Err(_) => {
                self.client = None;
                Err(format!("no answer to a probe within {}", humantime::format_duration(timeout)))
            }
        }
    }

    async fn ask(&mut self) -> Result<Sample, String> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = Some(self.connect().await?);
        }
        let Some(client) = &self.client else { return Err("no connection".to_owned()) };
        let rows = match client.simple_query(self.query).await {
            Err(error) if error.code().is_some_and(|it| it.code() == INSUFFICIENT_PRIVILEGE) => {
                self.query = POSITION;
                client.simple_query(self.query).await
            }
            other => other,
        };
        let rows = rows.map_err(|error| format!("probe: {}", reason(&error)))?;
        let row = rows.iter().find_map(|it| match it {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or("probe: no row")?;
        let text = |index: usize| if index < row.len() { row.get(index) } else { None };
        Ok(Sample {
            in_recovery: text(0) == Some("t"),
            position: text(1).and_then(|it| it.parse().ok()),
            timeline: text(2).and_then(|it| it.parse().ok()),
            system: text(3).and_then(|it| it.parse().ok()),
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
