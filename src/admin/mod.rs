//! HTTP for people and machines: metrics, health, and a page that shows where the load is; and the SQL console.
//! It reads what it is given and owns no state.

mod console;
mod hotspot_metrics;
mod listener;
mod page;

pub use console::{Console, Operator, Shutdown, StatTotals, totals_of};
pub use hotspot_metrics::HotspotMetricFamilies;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::net;
use listener::BoundedListener;

/// What the page shows, read anew for each request.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub version: &'static str,
    pub clients: i64,
    pub databases: Vec<DatabaseStatus>,
}

#[derive(Clone, Debug, Default)]
pub struct DatabaseStatus {
    pub name: String,
    pub shards: Vec<ShardStatus>,
    /// By reason, since the start.
    pub refusals: Vec<(&'static str, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct ShardStatus {
    pub name: String,
    /// Requests per second over the last ten seconds.
    pub reads_per_second: f64,
    pub writes_per_second: f64,
    pub errors_per_second: f64,
    pub in_flight: i64,
    pub servers: Vec<ServerStatus>,
}

#[derive(Clone, Debug, Default)]
pub struct ServerStatus {
    pub address: String,
    /// `primary`, `replica`, or empty where unknown.
    pub role: &'static str,
    pub lag_ms: Option<u64>,
    pub lag_bytes: Option<u64>,
    pub problem: Option<String>,
    pub pools: PoolStatus,
}

/// The pools of all users on one server.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolStatus {
    pub active: u64,
    pub idle: u64,
    pub connecting: u64,
    pub waiters: u64,
    pub size: u64,
}

/// Where the admin side gets its facts.
pub trait Source: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// Prometheus' text form, or why there is none.
    fn metrics(&self) -> Result<String, String>;
    /// What keeps the process from being ready; empty when it is.
    fn missing(&self) -> Vec<String>;
}

/// Serves until `stop` ends. An address that cannot be had is an error at once.
pub fn serve(
    address: SocketAddr,
    source: Arc<dyn Source>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<(SocketAddr, impl Future<Output = io::Result<()>>)> {
    let listener = net::listen(address)?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/", get(dashboard))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(source);
    let serving =
        async move { axum::serve(BoundedListener::new(listener), router).with_graceful_shutdown(stop).await };
    Ok((bound, serving))
}

async fn dashboard(State(source): State<Arc<dyn Source>>) -> Html<String> {
    Html(page::render(&source.status()))
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> Response {
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
