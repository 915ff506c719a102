//! What statements of one shard, role and access come to: counted by every statement, so that each thread has it all in a
//! few lines of its cache (`Tally`).

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Metric, MetricVec, MetricVecBuilder, Opts};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair};
use prometheus::{Error, proto};

use crate::metrics::{FamilyKind, LATENCY_BUCKETS_SECONDS, Level, RegisterError, Registry, Tally, forget};

const LABELS: [&str; 4] = ["database", "shard", "role", "access"];

const BUCKETS: usize = LATENCY_BUCKETS_SECONDS.len();

/// Cells of a tally. The first line of the cache has all that a quick statement changes.
mod cell {
    pub const IN_FLIGHT: usize = 0;
    pub const QUERIES: usize = 1;
    pub const BYTES: usize = 2;
    pub const SECONDS: usize = 3;
    /// By the bound that it is not above; the last is of those above all.
    pub const FIRST_BUCKET: usize = 4;
    pub const ERRORS: usize = FIRST_BUCKET + super::BUCKETS + 1;
    pub const COUNT: usize = ERRORS + 1;
}

/// A handle.
#[derive(Clone, Debug, Default)]
pub struct TargetMetrics(Arc<Tally<{ cell::COUNT }>>);

impl TargetMetrics {
    pub fn done(&self, took: Duration, errors: u64, bytes: u64) {
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BUCKETS_SECONDS.iter().position(|it| seconds <= *it).unwrap_or(BUCKETS);
        let cells = self.0.own();
        cells.add(cell::QUERIES, 1);
        cells.add(cell::BYTES, bytes);
        cells.add_fraction(cell::SECONDS, seconds);
        cells.add(cell::FIRST_BUCKET + bucket, 1);
        if errors > 0 {
            cells.add(cell::ERRORS, errors);
        }
    }

    pub fn queries(&self) -> u64 {
        self.0.sum(cell::QUERIES)
    }

    pub fn errors(&self) -> u64 {
        self.0.sum(cell::ERRORS)
    }

    pub fn bytes(&self) -> u64 {
        self.0.sum(cell::BYTES)
    }

    pub fn seconds(&self) -> f64 {
        self.0.sum_of_fractions(cell::SECONDS)
    }

    /// Below none where one has ended whose beginning is not seen yet.
    pub fn in_flight(&self) -> i64 {
        (self.0.sum(cell::IN_FLIGHT) as i64).max(0)
    }

    fn histogram(&self) -> Histogram {
        let mut count = 0;
        let buckets = LATENCY_BUCKETS_SECONDS.iter().enumerate().map(|(index, bound)| {
            count += self.0.sum(cell::FIRST_BUCKET + index);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        // Of the same look: the last bucket may not have less than the others.
        histogram.set_sample_count(count + self.0.sum(cell::FIRST_BUCKET + BUCKETS));
        histogram.set_sample_sum(self.seconds());
        histogram
    }
}

/// Requests under way.
impl Level for TargetMetrics {
    fn rise(&self) {
        self.0.own().add(cell::IN_FLIGHT, 1);
    }

    fn fall(&self) {
        self.0.own().take_off(cell::IN_FLIGHT, 1);
    }
}

/// The families, which show the same tallies.
#[derive(Clone)]
pub struct TargetMetricFamilies {
    queries: MetricVec<Show>,
    others: [MetricVec<Show>; 4],
}

/// What a family shows of a tally, and the family that has them; it has them itself where that is none.
#[derive(Clone)]
struct Show {
    what: What,
    owner: Option<MetricVec<Show>>,
}

#[derive(Clone, Copy)]
enum What {
    Queries,
    Errors,
    Seconds,
    Bytes,
    InFlight,
}

#[derive(Clone)]
struct Shown {
    what: What,
    target: TargetMetrics,
    labels: Vec<LabelPair>,
}

impl MetricVecBuilder for Show {
    type M = Shown;
    type P = Opts;

    fn build<V: AsRef<str>>(&self, opts: &Opts, values: &[V]) -> Result<Shown, Error> {
        let values: Vec<&str> = values.iter().map(V::as_ref).collect();
        let target = match &self.owner {
            Some(owner) => owner.get_metric_with_label_values(&values)?.target,
            None => TargetMetrics::default(),
        };
        let mut labels: Vec<LabelPair> = Vec::with_capacity(values.len());
        for (name, value) in opts.variable_labels.iter().zip(values) {
            let mut label = LabelPair::default();
            label.set_name(name.clone());
            label.set_value(value.to_owned());
            labels.push(label);
        }
        labels.sort();
        Ok(Shown { what: self.what, target, labels })
    }
}

impl Metric for Shown {
    fn metric(&self) -> proto::Metric {
        let mut metric = proto::Metric::from_label(self.labels.clone());
        let mut count = |value: u64| {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            metric.set_counter(counter);
        };
        match self.what {
            What::Queries => count(self.target.queries()),
            What::Errors => count(self.target.errors()),
            What::Bytes => count(self.target.bytes()),
            What::Seconds => metric.set_histogram(self.target.histogram()),
            What::InFlight => {
                let mut gauge = Gauge::default();
                gauge.set_value(self.target.in_flight() as f64);
                metric.set_gauge(gauge);
            }
        }
        metric
    }
}

impl TargetMetricFamilies {
    pub fn register(registry: &Registry) -> Result<TargetMetricFamilies, RegisterError> {
        let family = |what, owner: Option<&MetricVec<Show>>, kind, name, help| {
            registry.made_by(Show { what, owner: owner.cloned() }, kind, (name, help, &LABELS))
        };
        let queries = family(
            What::Queries,
            None,
            FamilyKind::Counter,
            "keyway_queries_total",
            "Statements or groups up to a Sync, by where they went.",
        )?;
        let other = |what, kind, name, help| family(what, Some(&queries), kind, name, help);
        let others = [
            other(
                What::Errors,
                FamilyKind::Counter,
                "keyway_errors_total",
                "Errors that servers answered with.",
            )?,
            other(
                What::Seconds,
                FamilyKind::Histogram,
                "keyway_query_seconds",
                "From the whole request to the end of its answer, waiting for a connection included.",
            )?,
            other(
                What::Bytes,
                FamilyKind::Counter,
                "keyway_query_bytes_total",
                "Bytes of answers sent to clients.",
            )?,
            other(What::InFlight, FamilyKind::Gauge, "keyway_queries_in_flight", "Requests under way.")?,
        ];
        Ok(TargetMetricFamilies { queries, others })
    }

    /// Its series are shown from now on.
    pub fn target(&self, labels: [&str; 4]) -> TargetMetrics {
        self.others.iter().for_each(|it| drop(it.with_label_values(&labels)));
        self.queries.with_label_values(&labels).target
    }

    /// Of a shard that the configuration does not have any more.
    pub fn forget_shard(&self, database: &str, shard: &str) {
        let of = [("database", database), ("shard", shard)];
        forget(&self.queries, &of);
        self.others.iter().for_each(|it| forget(it, &of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Live;

    const TARGET: [&str; 4] = ["db", "main", "primary", "read"];

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|it| it.strip_prefix(series)?.trim().parse().ok())
    }

    #[test]
    fn families_show_one_tally() {
        let registry = Registry::default();
        let families = TargetMetricFamilies::register(&registry).unwrap();
        let target = families.target(TARGET);
        for (us, errors, bytes) in [(80, 0, 100), (100, 0, 20), (101, 2, 3), (20_000_000, 0, 4)] {
            target.done(Duration::from_micros(us), errors, bytes);
        }
        let live = Live::new(&target);
        let elsewhere = std::thread::scope(|it| it.spawn(|| Live::new(target.clone())).join().unwrap());
        let text = registry.text().unwrap();
        let of = r#"{access="read",database="db",role="primary",shard="main"}"#;
        let bucket = |le: &str| {
            let of = format!(r#"{{access="read",database="db",role="primary",shard="main",le="{le}"}}"#);
            value(&text, &format!("keyway_query_seconds_bucket{of}"))
        };
        assert_eq!(value(&text, &format!("keyway_queries_total{of}")), Some(4.0), "{text}");
        assert_eq!(value(&text, &format!("keyway_errors_total{of}")), Some(2.0));
        assert_eq!(value(&text, &format!("keyway_query_bytes_total{of}")), Some(127.0));
        assert_eq!(value(&text, &format!("keyway_queries_in_flight{of}")), Some(2.0));
        assert_eq!(value(&text, &format!("keyway_query_seconds_count{of}")), Some(4.0));
        let seconds = value(&text, &format!("keyway_query_seconds_sum{of}")).unwrap();
        assert!((seconds - 20.000281).abs() < 1e-9, "{seconds}");
        assert_eq!(["0.0001", "0.00025", "10", "+Inf"].map(bucket), [2.0, 3.0, 3.0, 4.0].map(Some));
        drop((live, elsewhere));
        assert_eq!(target.in_flight(), 0);
    }

    #[test]
    fn a_shard_that_comes_back_begins_anew_in_all_families() {
        let registry = Registry::default();
        let families = TargetMetricFamilies::register(&registry).unwrap();
        families.target(TARGET).done(Duration::ZERO, 1, 1);
        assert_eq!(families.target(TARGET).queries(), 1, "a reload has the same");
        families.forget_shard("db", "main");
        assert!(!registry.text().unwrap().contains("main"));
        let target = families.target(TARGET);
        target.done(Duration::ZERO, 3, 1);
        assert_eq!((target.queries(), target.errors()), (1, 3));
        let text = registry.text().unwrap();
        assert!(
            text.lines().any(|it| it.starts_with("keyway_errors_total{") && it.ends_with(" 3")),
            "{text}"
        );
    }
}
