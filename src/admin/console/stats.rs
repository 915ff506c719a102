//! What databases have done since the start, as SHOW STATS sums it up.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::{Database, Shared};

/// Counts and micro seconds since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatTotals {
    pub assignments: u64,
    pub transactions: u64,
    pub queries: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub transaction_us: u64,
    pub query_us: u64,
    pub wait_us: u64,
    pub client_parses: u64,
    pub server_parses: u64,
    pub binds: u64,
}

pub fn totals_of(shared: &Shared) -> BTreeMap<String, StatTotals> {
    shared.databases.values().map(|it| (it.name.clone(), of_database(shared, it))).collect()
}

fn of_database(shared: &Shared, database: &Database) -> StatTotals {
    let (sessions, queries) = (shared.sessions.totals(&database.name), database.metrics.query_totals());
    let mut wait_seconds = 0.0;
    database.pools.for_each(|it| wait_seconds += it.all().map(|it| it.wait_seconds()).sum::<f64>());
    StatTotals {
        assignments: sessions.assignments,
        transactions: sessions.transactions,
        queries: queries.queries,
        received_bytes: sessions.received_bytes,
        sent_bytes: queries.bytes,
        transaction_us: sessions.transaction_us,
        query_us: micros(queries.seconds),
        wait_us: micros(wait_seconds),
        client_parses: sessions.parses,
        server_parses: sessions.server_parses,
        binds: sessions.binds,
    }
}

fn micros(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds).unwrap_or_default().as_micros() as u64
}

impl StatTotals {
    /// In the order of the columns of SHOW STATS_TOTALS.
    pub fn columns(&self) -> [u64; 11] {
        [
            self.assignments,
            self.transactions,
            self.queries,
            self.received_bytes,
            self.sent_bytes,
            self.transaction_us,
            self.query_us,
            self.wait_us,
            self.client_parses,
            self.server_parses,
            self.binds,
        ]
    }

    /// In the order of the columns of SHOW STATS_AVERAGES: counts per second, times per transaction or query.
    pub fn averages(&self, before: &StatTotals, span: Duration) -> [u64; 11] {
        let (now, then) = (self.columns(), before.columns());
        let mut grown = [0; 11];
        grown
            .iter_mut()
            .zip(now.iter().zip(then))
            .for_each(|(it, (now, then))| *it = now.saturating_sub(then));
        let [assignments, transactions, queries, received, sent, transaction_us, query_us, wait_us, ..] =
            grown;
        let per_second = |it: u64| (it as f64 / span.as_secs_f64().max(0.001)) as u64;
        [
            per_second(assignments),
            per_second(transactions),
            per_second(queries),
            per_second(received),
            per_second(sent),
            transaction_us / transactions.max(1),
            query_us / queries.max(1),
            per_second(wait_us),
            per_second(grown[8]),
            per_second(grown[9]),
            per_second(grown[10]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_per_second_and_per_one() {
        let before = StatTotals { transactions: 10, queries: 20, ..StatTotals::default() };
        let now = StatTotals {
            transactions: 30,
            queries: 60,
            transaction_us: 4_000,
            query_us: 2_000,
            sent_bytes: 100,
            ..before
        };
        let averages = now.averages(&before, Duration::from_secs(10));
        assert_eq!(averages, [0, 2, 4, 0, 10, 200, 50, 0, 0, 0, 0]);
        assert_eq!(before.averages(&now, Duration::ZERO), [0; 11]);
    }
}
