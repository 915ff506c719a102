//! Who is told of statements, as a configuration has it.

use std::sync::Arc;

use super::databases::Common;
use crate::client::{Shared, SlowLog, Traces, Watchers};
use crate::config::Config;
use crate::otlp::{Exporter, Ids};

/// The queue of `before` goes on where the collector is the same one.
pub fn watchers(config: &Config, common: &Common, before: Option<&Shared>) -> Watchers {
    let hits = &common.families.hits;
    let log = &config.log;
    let slow = log.slow_statement.map(|it| SlowLog::new(it, log.slow_statements_max, hits.clone()));
    let tracing = &config.tracing;
    let before = before.and_then(|it| it.watchers.traces.as_ref());
    let traces = tracing.otlp_endpoint.as_ref().map(|endpoint| {
        let kept = before.map(|it| &it.exporter).filter(|it| it.is_of(endpoint, tracing.spans_max));
        let start = || {
            let metrics = common.families.spans.clone();
            Arc::new(Exporter::start(endpoint.clone(), tracing.spans_max, metrics, hits.clone()))
        };
        // Without randomness to be had, ids of two processes may meet.
        let ids = || Arc::new(Ids::new(getrandom::u64().unwrap_or(u64::from(std::process::id()))));
        Traces {
            exporter: kept.cloned().unwrap_or_else(start),
            ratio: tracing.sample_ratio,
            ids: before.map_or_else(ids, |it| it.ids.clone()),
        }
    });
    Watchers { slow, traces }
}
