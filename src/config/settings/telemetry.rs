//! The log, and traces.

use super::{Setting, count, optional_duration, other};

pub const LOG_SECTION: Setting = other(
    "log",
    "",
    "text, and no slow statements",
    "what is written to standard error; RUST_LOG says how much (info without it)",
);
pub const LOG_FORMAT: Setting = other(
    "format",
    "\"text\"",
    "text",
    "\"text\" for people, or \"json\": one object a line. Holds from the start on",
);
pub const SLOW_STATEMENT: Setting = optional_duration(
    "slow_statement",
    "off",
    "1ms",
    "365d",
    "a statement that takes longer, waiting for a connection included, is logged: its text without literals and comments, its fingerprint, who ran it, where, how long it waited and ran, rows, bytes and SQLSTATE",
);
pub const SLOW_STATEMENTS_MAX: Setting = count(
    "slow_statements_max",
    10,
    1,
    100_000,
    "of these in a second; the next line says how many were left out",
);
pub const LOG: &[&Setting] = &[&LOG_FORMAT, &SLOW_STATEMENT, &SLOW_STATEMENTS_MAX];

pub const TRACING_SECTION: Setting = other(
    "tracing",
    "",
    "none: nothing is traced",
    "one OpenTelemetry span for each statement, or group of extended messages up to its Sync",
);
pub const OTLP_ENDPOINT: Setting = other(
    "otlp_endpoint",
    "\"off\"",
    "off",
    "where a collector takes OTLP over HTTP, as \"http://127.0.0.1:4318\"; spans go to /v1/traces there, as JSON. Without TLS: have the collector on this host or on a private network",
);
pub const SAMPLE_RATIO: Setting = other(
    "sample_ratio",
    "0.01",
    "0.01",
    "of statements that bring no `traceparent` in a comment of theirs (sqlcommenter), this share is traced, 0.0 to 1.0; those that bring one are as it says",
);
pub const SPANS_MAX: Setting = count(
    "spans_max",
    4_096,
    1,
    1_000_000,
    "spans that wait for the collector, up to 3 kB each; more are dropped",
);
pub const TRACING: &[&Setting] = &[&OTLP_ENDPOINT, &SAMPLE_RATIO, &SPANS_MAX];
