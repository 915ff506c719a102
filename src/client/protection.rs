//! What a database does for its hot keys: which are hot enough, by what is counted of them, and what was done.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::answers::Answers;
use super::protection_metrics::ProtectionMetrics;
use super::turns::{Bounds, Line, Turns};
use crate::base::ShardId;
use crate::config;
use crate::hotspot::{Hotspots, Report};
use crate::route::{Decision, KeyRef, Mode, Protected};

/// Below so many calls per second no key is protected by itself: the load of a database that is nearly idle is always that of
/// a few keys.
const CALLS_PER_S_MIN: f64 = 10.0;
/// A key stays protected down to this part of the share from which it is.
const KEPT_ABOVE: f64 = 0.5;

/// A map and a key's hash, as `Hotspots::place` has them.
type HotKey = (usize, u64);

/// Lives as long as its settings, the router and the topology.
pub struct Protection {
    terms: config::Protection,
    pub answers: Arc<Answers>,
    pub turns: Arc<Turns>,
    hot: ArcSwap<HashSet<HotKey>>,
    /// The report that `hot` is of.
    hot_at_s: AtomicU64,
    refreshing: Mutex<()>,
    pub metrics: ProtectionMetrics,
}

/// What is protected now.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProtectionUsage {
    pub hot_keys: usize,
    /// Transactions that wait for their turn.
    pub waiting: usize,
    /// Answers, and their bytes.
    pub kept: usize,
    pub kept_bytes: u64,
}

impl Protection {
    /// `None` where nothing is protected.
    pub fn new(database: &config::Database, metrics: ProtectionMetrics) -> Option<Arc<Protection>> {
        let terms = database.protection.clone();
        if terms.hot_share.is_none() && database.table_protection.is_empty() {
            return None;
        }
        Some(Arc::new(Protection {
            answers: Answers::new(
                terms.cache_bytes_max,
                metrics.evictions.clone(),
                Some(metrics.hits.clone()),
            ),
            turns: Arc::default(),
            hot: ArcSwap::default(),
            hot_at_s: AtomicU64::new(0),
            refreshing: Mutex::default(),
            terms,
            metrics,
        }))
    }

    /// Whether a reload may keep it.
    pub fn is_of(&self, terms: &config::Protection) -> bool {
        self.terms == *terms
    }

    /// Keys are protected by themselves.
    pub fn is_automatic(&self) -> bool {
        self.terms.hot_share.is_some()
    }

    pub fn terms(&self) -> &config::Protection {
        &self.terms
    }

    pub fn usage(&self, hotspots: &Hotspots) -> ProtectionUsage {
        self.refresh(hotspots);
        let (hot_keys, waiting) = (self.hot.load().len(), self.turns.waiting());
        let (kept, kept_bytes) = self.answers.usage();
        ProtectionUsage { hot_keys, waiting, kept, kept_bytes }
    }

    /// Once for each report, by whoever comes first.
    fn refresh(&self, hotspots: &Hotspots) {
        let (Some(share), at_s) = (self.terms.hot_share, hotspots.reported_s()) else { return };
        if self.hot_at_s.load(Ordering::Acquire) == at_s {
            return;
        }
        let Some(_refreshing) = self.refreshing.try_lock() else { return };
        let hot = hot_keys(&hotspots.report(), share.fraction(), &self.hot.load());
        self.hot.store(Arc::new(hot));
        self.hot_at_s.store(at_s, Ordering::Release);
    }

    fn is_hot(&self, hotspots: &Hotspots, key: &KeyRef) -> bool {
        if !self.is_automatic() {
            return false;
        }
        self.refresh(hotspots);
        let hot = self.hot.load();
        !hot.is_empty() && hot.contains(&hotspots.place(key))
    }

    /// Reads that are the same as this one get one answer.
    pub fn shares(&self, protected: &Protected, decision: &Decision, hotspots: &Hotspots) -> bool {
        protected.shareable
            && decision.mode == Mode::One
            && (protected.shares
                || protected.cache_ttl.is_some()
                || only_key(decision).is_some_and(|it| self.is_hot(hotspots, it)))
    }

    /// The line that a write has to stand in, where it is one of a single key.
    pub fn line(
        &self,
        protected: &Protected,
        decision: &Decision,
        hotspots: &Hotspots,
    ) -> Option<(ShardId, Line, Bounds)> {
        let write = protected.write?;
        let (key, shard) = (only_key(decision)?, decision.shards.first()?);
        let at_once = match write.at_once {
            _ if decision.mode != Mode::One => return None,
            Some(it) => it,
            // Others than the row's own would stand in line for nothing.
            None if write.of_one_row && self.is_hot(hotspots, key) => self.terms.hot_writes_at_once,
            None => return None,
        };
        let line = Line { table: write.table, map: key.map, key: key.place.key_hash };
        let (waiting_max, dry_run) = (self.terms.write_queue_max, self.terms.dry_run);
        Some((*shard, line, Bounds { at_once, waiting_max, dry_run }))
    }
}

fn only_key(decision: &Decision) -> Option<&KeyRef> {
    match &decision.keys[..] {
        [only] => Some(only),
        _ => None,
    }
}

/// `before` are those that were hot by the report before.
fn hot_keys(report: &Report, share: f64, before: &HashSet<HotKey>) -> HashSet<HotKey> {
    let calls_min = CALLS_PER_S_MIN * f64::from(report.span_s.max(1));
    let keys = report.maps.iter().enumerate().flat_map(|(map, it)| it.keys.iter().map(move |it| (map, it)));
    let hot = keys.filter(|(map, it)| {
        let least = if before.contains(&(*map, it.hash)) { share * KEPT_ABOVE } else { share };
        it.calls.lower >= calls_min && it.calls_share.lower >= least
    });
    hot.map(|(map, it)| (map, it.hash)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hotspot::{Bounds, Heat, KeyReport, MapReport};

    fn key(hash: u64, calls: f64, share: (f64, f64)) -> KeyReport {
        KeyReport {
            rank: 1,
            hash,
            text: None,
            table: None,
            shard: ShardId(0),
            part: 0,
            calls: Bounds { lower: calls, upper: calls },
            reads: Bounds::default(),
            writes: Bounds::default(),
            time_us: Bounds::default(),
            calls_share: Bounds { lower: share.0, upper: share.1 },
            time_share: Bounds::default(),
            heat: Heat::Cool,
            hot_since_s: None,
        }
    }

    #[test]
    fn a_key_is_hot_by_its_lower_bound_and_stays_so_for_a_while() {
        let report = |keys: Vec<KeyReport>| Report {
            span_s: 10,
            maps: vec![MapReport::default(), MapReport { keys, ..MapReport::default() }],
            ..Report::default()
        };
        let of = |keys, before: &[HotKey]| hot_keys(&report(keys), 0.2, &before.iter().copied().collect());
        let hot = of(vec![key(7, 500.0, (0.2, 0.3)), key(8, 500.0, (0.19, 0.9))], &[]);
        assert_eq!(hot, HashSet::from([(1, 7)]));
        let cooler = || vec![key(7, 500.0, (0.1, 0.1))];
        assert_eq!(of(cooler(), &[(1, 7)]), HashSet::from([(1, 7)]));
        assert!(of(cooler(), &[(0, 7), (1, 8)]).is_empty());
        assert!(of(vec![key(7, 500.0, (0.09, 0.1))], &[(1, 7)]).is_empty());
        assert!(of(vec![key(7, 99.0, (1.0, 1.0))], &[]).is_empty(), "nearly idle");
    }
}
