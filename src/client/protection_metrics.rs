//! What the protection of hot keys counts.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::protection::Protection;
use crate::hotspot::Hotspots;
use crate::metrics::{self, Limit, LimitHits, RegisterError, Registry};

/// The families, made once.
#[derive(Clone)]
pub struct ProtectionMetricFamilies {
    reads: IntCounterVec,
    writes: IntCounterVec,
    wait_seconds: HistogramVec,
    evictions: IntCounterVec,
    waiting: IntGaugeVec,
    kept: IntGaugeVec,
    kept_bytes: IntGaugeVec,
    keys: IntGaugeVec,
    hits: LimitHits,
}

/// Of one database.
#[derive(Clone, Debug)]
pub struct ProtectionMetrics {
    reads: [IntCounter; 5],
    writes: [IntCounter; 6],
    pub wait_seconds: Histogram,
    pub evictions: IntCounter,
    pub hits: LimitHits,
}

/// How a read was answered that may have an answer in common with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// By a server, for all that came meanwhile.
    Asked,
    /// By what another one had asked for.
    Shared,
    /// By what was kept.
    Kept,
    /// By a server, for itself, because what it had waited for was lost, or would not do.
    Alone,
    /// Likewise, because such answers are too long.
    TooLong,
}

impl ReadOutcome {
    pub const ALL: [ReadOutcome; 5] = [
        ReadOutcome::Asked,
        ReadOutcome::Shared,
        ReadOutcome::Kept,
        ReadOutcome::Alone,
        ReadOutcome::TooLong,
    ];

    pub fn label(self) -> &'static str {
        match self {
            ReadOutcome::Asked => "asked",
            ReadOutcome::Shared => "shared",
            ReadOutcome::Kept => "kept",
            ReadOutcome::Alone => "alone",
            ReadOutcome::TooLong => "too_long",
        }
    }
}

/// How a transaction that begins with a write of one key got its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    AtOnce,
    Waited,
    /// It would have waited, but for the dry run.
    Spared,
    /// It had a server already, or a turn for another key.
    Bypassed,
    Full,
    TimedOut,
    // One that cancels or leaves is none of these.
}

impl WriteOutcome {
    pub const ALL: [WriteOutcome; 6] = [
        WriteOutcome::AtOnce,
        WriteOutcome::Waited,
        WriteOutcome::Spared,
        WriteOutcome::Bypassed,
        WriteOutcome::Full,
        WriteOutcome::TimedOut,
    ];

    pub fn label(self) -> &'static str {
        match self {
            WriteOutcome::AtOnce => "at_once",
            WriteOutcome::Waited => "waited",
            WriteOutcome::Spared => "dry_run",
            WriteOutcome::Bypassed => "bypassed",
            WriteOutcome::Full => "full",
            WriteOutcome::TimedOut => "timed_out",
        }
    }
}

impl ProtectionMetricFamilies {
    pub fn register(
        registry: &Registry,
        hits: &LimitHits,
    ) -> Result<ProtectionMetricFamilies, RegisterError> {
        let counters = |name, help, labels: &[&str]| registry.counters(name, help, labels);
        let gauges = |name, help| registry.gauges(name, help, &["database"]);
        Ok(ProtectionMetricFamilies {
            reads: counters(
                "keyway_protected_reads_total",
                "Reads of protected tables and hot keys, by how they were answered: asked, shared, kept, alone, too_long.",
                &["database", "result"],
            )?,
            writes: counters(
                "keyway_protected_writes_total",
                "Transactions that begin with a write of a protected key, by how they got their turn: at_once, waited, dry_run, bypassed, full, timed_out.",
                &["database", "result"],
            )?,
            wait_seconds: registry.latencies(
                "keyway_write_turn_wait_seconds",
                "Time that transactions have waited for their turn to write a key.",
                &["database"],
            )?,
            evictions: counters(
                "keyway_kept_answer_evictions_total",
                "Kept answers that made room for others.",
                &["database"],
            )?,
            waiting: gauges(
                "keyway_writes_waiting",
                "Transactions that wait for their turn to write a key.",
            )?,
            kept: gauges("keyway_kept_answers", "Answers of reads that are kept.")?,
            kept_bytes: gauges("keyway_kept_answer_bytes", "What kept answers take, of cache_bytes_max.")?,
            keys: gauges("keyway_protected_keys", "Keys that are protected because they are hot.")?,
            hits: hits.clone(),
        })
    }

    pub fn of(&self, database: &str) -> ProtectionMetrics {
        let label = [database];
        ProtectionMetrics {
            reads: ReadOutcome::ALL.map(|it| self.reads.with_label_values(&[database, it.label()])),
            writes: WriteOutcome::ALL.map(|it| self.writes.with_label_values(&[database, it.label()])),
            wait_seconds: self.wait_seconds.with_label_values(&label),
            evictions: self.evictions.with_label_values(&label),
            hits: self.hits.clone(),
        }
    }

    /// Gauges as of now.
    pub fn observe(&self, database: &str, protection: Option<&Protection>, hotspots: &Hotspots) {
        let Some(protection) = protection else { return self.forget(database) };
        let (label, usage) = ([database], protection.usage(hotspots));
        self.waiting.with_label_values(&label).set(usage.waiting as i64);
        self.kept.with_label_values(&label).set(usage.kept as i64);
        self.kept_bytes.with_label_values(&label).set(usage.kept_bytes as i64);
        self.keys.with_label_values(&label).set(usage.hot_keys as i64);
    }

    /// Of a database that is gone, or has no protection any more.
    pub fn forget(&self, database: &str) {
        let of = [("database", database)];
        metrics::forget(&self.reads, &of);
        metrics::forget(&self.writes, &of);
        metrics::forget(&self.wait_seconds, &of);
        metrics::forget(&self.evictions, &of);
        metrics::forget(&self.waiting, &of);
        metrics::forget(&self.kept, &of);
        metrics::forget(&self.kept_bytes, &of);
        metrics::forget(&self.keys, &of);
    }
}

impl ProtectionMetrics {
    pub(super) fn read(&self, outcome: ReadOutcome) {
        // `ALL` is in the order of the enum.
        self.reads[outcome as usize].inc();
    }

    pub(super) fn wrote(&self, outcome: WriteOutcome) {
        self.writes[outcome as usize].inc();
        match outcome {
            WriteOutcome::Full => self.hits.hit(Limit::WriteQueue),
            WriteOutcome::TimedOut => self.hits.hit(Limit::WaitTime),
            _ => {}
        }
    }

    pub fn reads(&self) -> impl Iterator<Item = (ReadOutcome, u64)> {
        ReadOutcome::ALL.into_iter().zip(self.reads.iter().map(IntCounter::get))
    }

    pub fn writes(&self) -> impl Iterator<Item = (WriteOutcome, u64)> {
        WriteOutcome::ALL.into_iter().zip(self.writes.iter().map(IntCounter::get))
    }
}
