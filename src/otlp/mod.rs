//! Spans of statements, to an OpenTelemetry collector: OTLP over HTTP, as JSON
//! (https://opentelemetry.io/docs/specs/otlp/#otlphttp). Whoever hands a span over never waits: it has a place in the
//! queue or is dropped and counted.
//!
//! Of its own rather than the exporter of the `opentelemetry` crates, which bring a gRPC stack or a second HTTP client, for one
//! message of one kind.

mod exporter;
mod ids;
mod request;

pub use exporter::{Exporter, SpanMetrics};
pub use ids::Ids;
pub use request::request;

use std::sync::Arc;
use std::time::SystemTime;

/// One statement, or group of extended messages up to its Sync, as Keyway's client saw it.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace_id: u128,
    pub span_id: u64,
    pub parent_id: Option<u64>,
    /// Of few values: `SELECT orders`.
    pub name: String,
    pub began: SystemTime,
    pub ended: SystemTime,
    pub database: Arc<str>,
    pub user: Arc<str>,
    /// By name, with commas.
    pub shards: String,
    /// `None` where none was reached.
    pub role: Option<&'static str>,
    pub access: &'static str,
    /// Of the first statement; `None` where its text cannot be scanned.
    pub fingerprint: Option<u128>,
    /// Without literals and comments.
    pub text: Option<Arc<str>>,
    /// Statements of a group.
    pub statements: usize,
    /// For server connections.
    pub wait_us: u64,
    /// From the request's last byte to the end of the answer, of the shard that took longest.
    pub server_us: u64,
    pub rows: u64,
    pub bytes: u64,
    /// SQLSTATE of an error, by a server or Keyway.
    pub error: Option<String>,
}
