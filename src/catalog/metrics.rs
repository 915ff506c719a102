//! What is known of catalogs, as metrics.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::base::ShardId;
use crate::metrics::{self, Limit, LimitHits, RegisterError, Registry};
use crate::route::Catalog;

#[derive(Clone)]
pub struct CatalogMetricFamilies {
    reads: IntCounterVec,
    failures: IntCounterVec,
    rows: IntGaugeVec,
    bytes: IntGaugeVec,
    age_seconds: GaugeVec,
    known: IntGaugeVec,
    differences: IntGaugeVec,
    hits: LimitHits,
}

impl CatalogMetricFamilies {
    pub fn register(registry: &Registry, hits: &LimitHits) -> Result<CatalogMetricFamilies, RegisterError> {
        let shard = ["database", "shard"];
        let database = ["database"];
        Ok(CatalogMetricFamilies {
            reads: registry.counters(
                "keyway_catalog_reads_total",
                "Times that a shard's catalog was looked at.",
                &shard,
            )?,
            failures: registry.counters(
                "keyway_catalog_read_failures_total",
                "Times that a shard's catalog could not be read.",
                &shard,
            )?,
            rows: registry.gauges(
                "keyway_catalog_rows",
                "Rows that a shard's catalog was made of.",
                &shard,
            )?,
            bytes: registry.gauges("keyway_catalog_bytes", "What a shard's catalog takes, about.", &shard)?,
            age_seconds: registry.float_gauges(
                "keyway_catalog_age_seconds",
                "Time since the catalogs of all shards were looked at; NaN where they never were.",
                &database,
            )?,
            known: registry.gauges(
                "keyway_catalog_known",
                "0 where the catalog may have changed since it was read.",
                &database,
            )?,
            differences: registry.gauges(
                "keyway_catalog_differences",
                "Tables that are not the same on every shard.",
                &database,
            )?,
            hits: hits.clone(),
        })
    }

    /// Of a shard that the configuration does not have any more.
    pub fn forget_shard(&self, database: &str, shard: &str) {
        let of = [("database", database), ("shard", shard)];
        metrics::forget(&self.reads, &of);
        metrics::forget(&self.failures, &of);
        metrics::forget(&self.rows, &of);
        metrics::forget(&self.bytes, &of);
    }

    /// What is not of a shard.
    pub fn forget_database(&self, database: &str) {
        let of = [("database", database)];
        metrics::forget(&self.age_seconds, &of);
        metrics::forget(&self.known, &of);
        metrics::forget(&self.differences, &of);
    }

    pub(super) fn of_database(&self, database: &str, shards: &[String]) -> CatalogMetrics {
        let shard = |shard: &String| {
            let labels = [database, shard];
            ShardMetrics {
                reads: self.reads.with_label_values(&labels),
                failures: self.failures.with_label_values(&labels),
                rows: self.rows.with_label_values(&labels),
                bytes: self.bytes.with_label_values(&labels),
            }
        };
        CatalogMetrics {
            shards: shards.iter().map(shard).collect(),
            age_seconds: self.age_seconds.with_label_values(&[database]),
            known: self.known.with_label_values(&[database]),
            differences: self.differences.with_label_values(&[database]),
            hits: self.hits.clone(),
        }
    }
}

pub(super) struct CatalogMetrics {
    shards: Vec<ShardMetrics>,
    age_seconds: Gauge,
    known: IntGauge,
    differences: IntGauge,
    hits: LimitHits,
}

struct ShardMetrics {
    reads: IntCounter,
    failures: IntCounter,
    rows: IntGauge,
    bytes: IntGauge,
}

impl CatalogMetrics {
    pub fn read(&self, shard: usize) {
        if let Some(it) = self.shards.get(shard) {
            it.reads.inc();
        }
    }

    /// By which limit, if one is to blame.
    pub fn failed(&self, shard: usize, limit: Option<Limit>) {
        if let Some(it) = self.shards.get(shard) {
            it.failures.inc();
        }
        if let Some(it) = limit {
            self.hits.hit(it);
        }
    }

    pub fn publish(&self, catalog: &Catalog) {
        for (index, metrics) in self.shards.iter().enumerate() {
            let Some(schema) = catalog.shard(ShardId(index as u16)) else { continue };
            metrics.rows.set(schema.rows() as i64);
            metrics.bytes.set(schema.bytes() as i64);
        }
        self.differences.set(catalog.differences().count() as i64);
    }

    pub fn age(&self, age: Option<Duration>, known: bool) {
        self.age_seconds.set(age.map_or(f64::NAN, |it| it.as_secs_f64()));
        self.known.set(i64::from(known));
    }
}
