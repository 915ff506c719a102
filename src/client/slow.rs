//! The log of slow statements: one line each, so many in a second, and never a literal.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::{Limit, LimitHits};

pub struct SlowLog {
    pub(super) threshold_us: u64,
    per_second: usize,
    hits: LimitHits,
    lines: Mutex<Lines>,
}

/// Lines of the second that began at `since`, and those that were left out before it.
#[derive(Debug)]
struct Lines {
    since: Instant,
    written: usize,
    left_out: u64,
}

/// One of them. `text` is without literals and comments; `None` cannot be told apart from them.
pub struct SlowStatement<'a> {
    pub database: &'a str,
    pub user: &'a str,
    pub shards: &'a str,
    pub role: Option<&'static str>,
    pub fingerprint: Option<u128>,
    pub text: Option<&'a str>,
    pub statements: usize,
    pub took: Duration,
    pub wait: Duration,
    pub server: Duration,
    pub rows: u64,
    pub bytes: u64,
    pub state: Option<&'a str>,
}

impl SlowLog {
    pub fn new(threshold: Duration, per_second: usize, hits: LimitHits) -> SlowLog {
        let lines = Mutex::new(Lines { since: Instant::now(), written: 0, left_out: 0 });
        SlowLog { threshold_us: threshold.as_micros() as u64, per_second, hits, lines }
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        took.as_micros() as u64 >= self.threshold_us
    }

    pub(super) fn tell(&self, it: &SlowStatement<'_>) {
        let Some(left_out) = self.lines.lock().admit(Instant::now(), self.per_second) else {
            return self.hits.hit(Limit::SlowStatements);
        };
        // Names and text may hold anything that PostgreSQL takes in quotes: `?` escapes what would end the line.
        tracing::warn!(
            target: "keyway::slow_statement",
            database = it.database,
            user = it.user,
            shards = it.shards,
            role = it.role.unwrap_or("none"),
            fingerprint = it.fingerprint.map_or_else(|| "none".to_owned(), |it| format!("{it:032x}")),
            statements = it.statements,
            took_ms = milliseconds(it.took),
            wait_ms = milliseconds(it.wait),
            server_ms = milliseconds(it.server),
            rows = it.rows,
            bytes = it.bytes,
            sqlstate = it.state.unwrap_or("00000"),
            left_out,
            statement = it.text.unwrap_or("(a text that PostgreSQL's scanner refuses)"),
            "slow statement"
        );
    }
}

impl Lines {
    /// How many were left out since the last line, if there may be another one.
    fn admit(&mut self, now: Instant, per_second: usize) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.written) = (now, 0);
        }
        if self.written >= per_second {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_in_a_second() {
        let now = Instant::now();
        let mut lines = Lines { since: now, written: 0, left_out: 0 };
        let at = |ms: u64| now + Duration::from_millis(ms);
        assert_eq!([lines.admit(at(0), 2), lines.admit(at(10), 2)], [Some(0), Some(0)]);
        assert_eq!([lines.admit(at(20), 2), lines.admit(at(999), 2)], [None, None]);
        assert_eq!([lines.admit(at(1_000), 2), lines.admit(at(1_001), 2)], [Some(2), Some(0)]);
        assert_eq!(lines.admit(at(1_500), 2), None);
        assert_eq!(lines.admit(at(5_000), 2), Some(1));
    }
}
