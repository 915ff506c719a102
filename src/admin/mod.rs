//! HTTP for people and machines: metrics, health, and a page that shows where the load is; and the SQL console.
//! It reads what it is given and owns no state.

mod access;
mod api;
mod console;
mod events;
mod hotspot_metrics;
mod listener;
mod metrics;
mod page;
mod site;
mod status;

pub use access::Admission;
pub use console::{Console, Operator, Shutdown, StatTotals, totals_of};
pub use hotspot_metrics::HotspotMetricFamilies;
pub use metrics::AdminMetrics;
pub use status::{
    DatabaseStatus, HISTORY_INTERVAL_S, HISTORY_LENGTH, PoolStatus, ServerStatus, ShardStatus, Status,
};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::hotspot::{HeatMap, Metric, Report, StatementReport};
use crate::net;
use listener::{BoundedListener, Peer};
use site::Site;

/// Where the admin side gets its facts.
pub trait Source: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// `None` where there is no such database.
    fn hotspots(&self, database: &str) -> Option<Arc<Report>>;
    /// At most so many rows and columns; `None` where there is no such database or map.
    fn heat_map(
        &self,
        database: &str,
        map: &str,
        metric: Metric,
        last: Duration,
        rows_max: usize,
        columns_max: usize,
    ) -> Option<HeatMap>;
    /// Those that took the most time first.
    fn statements(&self, database: &str) -> Vec<StatementReport>;
    /// Prometheus' text form, or why there is none.
    fn metrics(&self) -> Result<String, String>;
    /// What keeps the process from being ready; empty when it is.
    fn missing(&self) -> Vec<String>;
}

/// Serves until `stop` ends. An address that cannot be had is an error at once. Metrics and health are for everybody
/// who reaches it; `admission` says who may see the rest.
pub fn serve(
    address: SocketAddr,
    source: Arc<dyn Source>,
    admission: watch::Receiver<Admission>,
    metrics: AdminMetrics,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<(SocketAddr, impl Future<Output = io::Result<()>>)> {
    let listener = net::listen(address)?;
    let bound = listener.local_addr()?;
    let (ending, ended) = watch::channel(false);
    let stop = async move {
        stop.await;
        let _ = ending.send(true);
    };
    let site = Site::new(source.clone(), admission, metrics, bound, ended);
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(source)
        .merge(site.router())
        .into_make_service_with_connect_info::<Peer>();
    let serving =
        async move { axum::serve(BoundedListener::new(listener), router).with_graceful_shutdown(stop).await };
    Ok((bound, serving))
}

async fn metrics_text(State(source): State<Arc<dyn Source>>) -> Response {
    const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    match source.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

async fn ready(State(source): State<Arc<dyn Source>>) -> Response {
    let missing = source.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
}

#[cfg(test)]
mod tests;
