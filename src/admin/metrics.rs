//! What the dashboard counts of itself.

use prometheus::{IntCounter, IntGauge};

use super::access::Denial;
use crate::metrics::{LimitHits, RegisterError, Registry};

#[derive(Clone)]
pub struct AdminMetrics {
    /// By `Denial`.
    refusals: [IntCounter; Denial::ALL.len()],
    pub streams: IntGauge,
    pub limit_hits: LimitHits,
}

impl AdminMetrics {
    pub fn register(registry: &Registry, limit_hits: &LimitHits) -> Result<AdminMetrics, RegisterError> {
        let refusals = registry.counters(
            "keyway_admin_refusals_total",
            "Requests for the dashboard or its JSON that were refused, by what they lacked.",
            &["reason"],
        )?;
        let streams = registry.gauges(
            "keyway_admin_streams",
            "Dashboards, and readers of /api/events, that are sent what is new as it comes.",
            &[],
        )?;
        let labels: &[&str] = &[];
        Ok(AdminMetrics {
            refusals: Denial::ALL.map(|it| refusals.with_label_values(&[it.label()])),
            streams: streams.with_label_values(labels),
            limit_hits: limit_hits.clone(),
        })
    }

    pub fn refused(&self, denial: Denial) {
        self.refusals[denial as usize].inc();
    }
}
