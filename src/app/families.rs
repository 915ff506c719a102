//! Every family of metrics that the program has.

use super::source::PlanMetricFamilies;
use crate::admin::{AdminMetrics, HotspotMetricFamilies};
use crate::cancel::CancelMetrics;
use crate::catalog::CatalogMetricFamilies;
use crate::client::{ClientMetricFamilies, NotifyMetricFamilies, ProtectionMetricFamilies};
use crate::metrics::{LimitHits, RegisterError, Registry};
use crate::net::TlsMetrics;
use crate::otlp::SpanMetrics;
use crate::pool::PoolMetricFamilies;
use crate::topology::TopologyMetricFamilies;

pub struct Families {
    pub client: ClientMetricFamilies,
    pub pool: PoolMetricFamilies,
    pub topology: TopologyMetricFamilies,
    pub catalog: CatalogMetricFamilies,
    pub tls: TlsMetrics,
    pub cancel: CancelMetrics,
    pub notify: NotifyMetricFamilies,
    pub plans: PlanMetricFamilies,
    pub hotspots: HotspotMetricFamilies,
    pub protection: ProtectionMetricFamilies,
    pub spans: SpanMetrics,
    pub dashboard: AdminMetrics,
    pub hits: LimitHits,
}

impl Families {
    pub fn register(registry: &Registry) -> Result<Families, RegisterError> {
        let hits = LimitHits::register(registry)?;
        Ok(Families {
            client: ClientMetricFamilies::register(registry)?,
            pool: PoolMetricFamilies::register(registry, &hits)?,
            topology: TopologyMetricFamilies::register(registry, &hits)?,
            notify: NotifyMetricFamilies::register(registry)?,
            catalog: CatalogMetricFamilies::register(registry, &hits)?,
            tls: TlsMetrics::register(registry)?,
            plans: PlanMetricFamilies::register(registry, &hits)?,
            cancel: CancelMetrics::register(registry)?,
            hotspots: HotspotMetricFamilies::register(registry)?,
            protection: ProtectionMetricFamilies::register(registry, &hits)?,
            spans: SpanMetrics::register(registry)?,
            dashboard: AdminMetrics::register(registry, &hits)?,
            hits,
        })
    }
}
