//! One database's hotspots: what statements are counted into and what readers see.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::heatmap::{HeatMap, Metric};
use super::report::Report;

/// Shared by all sessions of a database; outlives reloads that keep the database.
#[derive(Debug, Default)]
pub struct Hotspots {
    report: ArcSwap<Report>,
}

impl Hotspots {
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// At most so many rows and columns; `None` where there is no such map.
    pub fn heat_map(
        &self,
        _map: &str,
        _metric: Metric,
        _last: Duration,
        _rows_max: usize,
        _columns_max: usize,
    ) -> Option<HeatMap> {
        None
    }
}
