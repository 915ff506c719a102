//! The registry and its text form. It owns no metric but the one that all parts share, `LimitHits`: each
//! part makes its own through the registry that its constructor is given, and keeps the handles of its
//! label values.

mod family;
mod limits;
mod tally;

pub use family::{Family, FamilyKind};
pub use limits::{Limit, LimitHits};
pub use tally::Tally;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricType;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder,
};

/// From 100 microseconds to 10 seconds: a cached read on the same host up to a query that hurts.
pub const LATENCY_BUCKETS_SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Of what each pool has one: half of a large page would be these, and a wait is long or is not.
const WAIT_BUCKETS_SECONDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0];

#[derive(Clone, Default)]
pub struct Registry {
    prometheus: prometheus::Registry,
    families: Arc<Mutex<Vec<Family>>>,
}

/// Takes away the series of a family that have these values of labels: what they told of is gone.
pub fn forget<B: MetricVecBuilder>(family: &MetricVec<B>, of: &[(&str, &str)]) {
    for metric in family.collect().iter().flat_map(|it| it.get_metric()) {
        let labels: HashMap<&str, &str> =
            metric.get_label().iter().map(|it| (it.name(), it.value())).collect();
        if of.iter().all(|(name, value)| labels.get(name) == Some(value)) {
            // Another one may have been quicker.
            let _ = family.remove(&labels);
        }
    }
}

/// A metric could not be made: its name is taken or not valid. A fault of the program, told at start.
pub type RegisterError = prometheus::Error;

impl Registry {
    fn register<M: Collector + Clone + 'static>(
        &self,
        metric: M,
        kind: FamilyKind,
        (name, help, labels): (&str, &str, &[&str]),
    ) -> Result<M, RegisterError> {
        self.prometheus.register(Box::new(metric.clone()))?;
        let labels = labels.iter().map(|it| (*it).to_owned()).collect();
        self.families.lock().push(Family { name: name.to_owned(), kind, labels, help: help.to_owned() });
        Ok(metric)
    }

    /// All of them by name, those without a series too.
    pub fn families(&self) -> Vec<Family> {
        let mut families = self.families.lock().clone();
        families.sort_by(|a, b| a.name.cmp(&b.name));
        families
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, RegisterError> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.register(metric, FamilyKind::Counter, (name, help, labels))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, RegisterError> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.register(metric, FamilyKind::Gauge, (name, help, labels))
    }

    /// Gauges of fractions: seconds, shares.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, RegisterError> {
        let metric = GaugeVec::new(Opts::new(name, help), labels)?;
        self.register(metric, FamilyKind::Gauge, (name, help, labels))
    }

    pub fn latencies(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, RegisterError> {
        self.histograms(&LATENCY_BUCKETS_SECONDS, name, help, labels)
    }

    /// In fewer steps than latencies.
    pub fn waits(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, RegisterError> {
        self.histograms(&WAIT_BUCKETS_SECONDS, name, help, labels)
    }

    fn histograms(
        &self,
        buckets: &[f64],
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<HistogramVec, RegisterError> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metric = HistogramVec::new(options, labels)?;
        self.register(metric, FamilyKind::Histogram, (name, help, labels))
    }

    /// Of series that are shown of something else.
    pub fn made_by<B: MetricVecBuilder<P = Opts> + 'static>(
        &self,
        builder: B,
        kind: FamilyKind,
        (name, help, labels): (&str, &str, &[&str]),
    ) -> Result<MetricVec<B>, RegisterError> {
        let shown_as = match kind {
            FamilyKind::Counter => MetricType::COUNTER,
            FamilyKind::Gauge => MetricType::GAUGE,
            FamilyKind::Histogram => MetricType::HISTOGRAM,
        };
        let labelled = labels.iter().map(|it| (*it).to_owned()).collect();
        let metric = MetricVec::create(shown_as, builder, Opts::new(name, help).variable_labels(labelled))?;
        self.register(metric, kind, (name, help, labels))
    }

    /// Every metric in Prometheus' text form, version 0.0.4.
    pub fn text(&self) -> Result<String, RegisterError> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.prometheus.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

/// How much there is of something.
pub trait Level {
    fn rise(&self);
    fn fall(&self);
}

impl Level for IntGauge {
    fn rise(&self) {
        self.inc();
    }

    fn fall(&self) {
        self.dec();
    }
}

impl<L: Level> Level for &L {
    fn rise(&self) {
        (**self).rise();
    }

    fn fall(&self) {
        (**self).fall();
    }
}

/// Counts something that lives, for as long as it lives.
#[derive(Debug)]
pub struct Live<L: Level>(L);

impl<L: Level> Live<L> {
    /// Takes a reference, or a handle where what lives outlives the borrow.
    pub fn new(level: L) -> Live<L> {
        level.rise();
        Live(level)
    }
}

impl<L: Level> Drop for Live<L> {
    fn drop(&mut self) {
        self.0.fall();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_guard_counts_up_and_down() {
        let registry = Registry::default();
        let gauges = registry.gauges("keyway_things", "Things that live.", &["kind"]).unwrap();
        let gauge = gauges.with_label_values(&["a"]);
        let live = Live::new(&gauge);
        assert!(registry.text().unwrap().contains("keyway_things{kind=\"a\"} 1"));
        drop(live);
        assert!(registry.text().unwrap().contains("keyway_things{kind=\"a\"} 0"));
        assert!(registry.gauges("keyway_things", "Again.", &[]).is_err());
    }

    #[test]
    fn a_family_is_known_before_it_has_a_series() {
        let registry = Registry::default();
        registry.latencies("keyway_wait_seconds", "Waits.", &["database", "shard"]).unwrap();
        registry.counters("keyway_sent_bytes_total", "Bytes.", &[]).unwrap();
        assert!(registry.counters("keyway_sent_bytes_total", "Again.", &["no"]).is_err());
        assert_eq!(registry.text().unwrap(), "");
        let families = registry.families();
        let told = |it: &Family| format!("{} {} {}", it.name, it.kind.label(), it.unit());
        let told: Vec<String> = families.iter().map(told).collect();
        assert_eq!(told, ["keyway_sent_bytes_total counter bytes", "keyway_wait_seconds histogram seconds"]);
        assert_eq!(families[1].labels, ["database", "shard"]);
    }

    #[test]
    fn what_is_gone_has_no_series() {
        let registry = Registry::default();
        let counters = registry.counters("keyway_events", "Events.", &["database", "shard"]).unwrap();
        for labels in [["a", "s1"], ["a", "s2"], ["b", "s1"]] {
            counters.with_label_values(&labels).inc();
        }
        forget(&counters, &[("database", "a"), ("shard", "s2")]);
        forget(&counters, &[("database", "b")]);
        let text = registry.text().unwrap();
        assert!(text.contains("{database=\"a\",shard=\"s1\"} 1"), "{text}");
        assert_eq!(text.lines().filter(|it| !it.starts_with('#')).count(), 1, "{text}");
    }
}
