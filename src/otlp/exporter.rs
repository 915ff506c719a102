//! The queue of spans and the task that sends them on.
//!
//! ```text
//!  sessions ──offer──▶ queue (spans_max) ──▶ batch ──POST──▶ collector
//!            full: dropped                    after a second, or when it is full
//!                                             failed: again twice, then dropped
//! ```

use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Span, request};
use crate::config::Endpoint;
use crate::metrics::{Limit, LimitHits, RegisterError, Registry};
use crate::net::http_post;

/// In one request.
const BATCH_MAX: usize = 512;
/// How long a span waits for others.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// For a request and its answer.
const POST_TIMEOUT: Duration = Duration::from_secs(5);
/// Before each try to send a batch.
const RETRY_DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)];
/// For what is in the queue when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct SpanMetrics {
    exported: IntCounter,
    queue_full: IntCounter,
    failed: IntCounter,
}

impl SpanMetrics {
    pub fn register(registry: &Registry) -> Result<SpanMetrics, RegisterError> {
        let spans = registry.counters(
            "keyway_spans_total",
            "Spans of statements by result: exported, queue_full (dropped as spans_max waited), failed (dropped as the collector did not take them).",
            &["result"],
        )?;
        let of = |result: &str| spans.with_label_values(&[result]);
        Ok(SpanMetrics { exported: of("exported"), queue_full: of("queue_full"), failed: of("failed") })
    }
}

enum Message {
    Span(Box<Span>),
    /// All before it are to be sent now.
    Flush(oneshot::Sender<()>),
}

/// The sessions' end of the queue. The task ends when the last one is gone, and sends what is left.
pub struct Exporter {
    endpoint: Endpoint,
    spans_max: usize,
    queue: mpsc::Sender<Message>,
    metrics: SpanMetrics,
    hits: LimitHits,
}

impl Exporter {
    pub fn start(endpoint: Endpoint, spans_max: usize, metrics: SpanMetrics, hits: LimitHits) -> Exporter {
        let (queue, spans) = mpsc::channel(spans_max);
        let collector = Collector { endpoint: endpoint.clone(), metrics: metrics.clone(), is_down: false };
        tokio::spawn(export(spans, collector));
        Exporter { endpoint, spans_max, queue, metrics, hits }
    }

    pub fn is_of(&self, endpoint: &Endpoint, spans_max: usize) -> bool {
        self.endpoint == *endpoint && self.spans_max == spans_max
    }

    /// Never waits.
    pub fn offer(&self, span: Span) {
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.metrics.queue_full.inc();
            self.hits.hit(Limit::Spans);
        }
    }

    /// Until the collector has what was offered so far, or has shown that it does not take it, for two seconds at most.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let all = async {
            if self.queue.send(Message::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, all).await;
    }
}

struct Collector {
    endpoint: Endpoint,
    metrics: SpanMetrics,
    /// The log has been told.
    is_down: bool,
}

async fn export(mut queue: mpsc::Receiver<Message>, mut collector: Collector) {
    let mut batch: Vec<Span> = Vec::new();
    while let Some(first) = queue.recv().await {
        let deadline = Instant::now() + BATCH_DELAY;
        let (mut flush, mut next) = (None, Some(first));
        while let Some(message) = next {
            match message {
                Message::Span(span) => batch.push(*span),
                Message::Flush(done) => flush = Some(done),
            }
            if flush.is_some() || batch.len() >= BATCH_MAX {
                break;
            }
            next = tokio::time::timeout_at(deadline, queue.recv()).await.ok().flatten();
        }
        if !batch.is_empty() {
            collector.take(&batch).await;
            batch.clear();
        }
        if let Some(done) = flush {
            let _ = done.send(());
        }
    }
}

impl Collector {
    async fn take(&mut self, batch: &[Span]) {
        let body = request(batch);
        let mut last = String::new();
        for delay in RETRY_DELAYS {
            tokio::time::sleep(delay).await;
            match self.post(body.clone()).await {
                Ok(()) => {
                    self.metrics.exported.inc_by(batch.len() as u64);
                    if std::mem::take(&mut self.is_down) {
                        tracing::info!(collector = %self.endpoint, "spans are taken again");
                    }
                    return;
                }
                Err(Failed { error, may_try_again }) => {
                    last = error;
                    if !may_try_again {
                        break;
                    }
                }
            }
        }
        self.metrics.failed.inc_by(batch.len() as u64);
        if !std::mem::replace(&mut self.is_down, true) {
            tracing::warn!(collector = %self.endpoint, error = last, "spans are not taken");
        }
    }

    async fn post(&self, body: String) -> Result<(), Failed> {
        let Endpoint { address, path } = &self.endpoint;
        let path = format!("{path}/v1/traces");
        let answer = http_post(&address.host, address.port, &path, "application/json", body);
        match tokio::time::timeout(POST_TIMEOUT, answer).await {
            Ok(Ok(200..=299)) => Ok(()),
            // What the specification names as worth another try.
            Ok(Ok(status)) => Err(Failed {
                error: format!("HTTP status {status}"),
                may_try_again: matches!(status, 429 | 502 | 503 | 504),
            }),
            Ok(Err(error)) => Err(Failed { error: error.to_string(), may_try_again: true }),
            Err(_) => {
                Err(Failed { error: format!("no answer within {POST_TIMEOUT:?}"), may_try_again: true })
            }
        }
    }
}

struct Failed {
    error: String,
    may_try_again: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use parking_lot::Mutex;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Address;
    use crate::otlp::request::tests::example;

    /// Answers the first request with `first`, later ones with 200.
    async fn collector(first: StatusCode) -> (Endpoint, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (list, asked) = (taken.clone(), Arc::new(AtomicU64::new(0)));
        let take = move |body: String| async move {
            if asked.fetch_add(1, Ordering::Relaxed) == 0 && first != StatusCode::OK {
                return first;
            }
            list.lock().push(body);
            StatusCode::OK
        };
        let router = Router::new().route("/otlp/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (Endpoint { address, path: "/otlp".to_owned() }, taken)
    }

    fn exporter(endpoint: Endpoint, spans_max: usize) -> (Exporter, SpanMetrics) {
        let registry = Registry::default();
        let metrics = SpanMetrics::register(&registry).unwrap();
        let hits = LimitHits::register(&registry).unwrap();
        (Exporter::start(endpoint, spans_max, metrics.clone(), hits), metrics)
    }

    fn counts(metrics: &SpanMetrics) -> [u64; 3] {
        [metrics.exported.get(), metrics.queue_full.get(), metrics.failed.get()]
    }

    #[tokio::test]
    async fn spans_come_in_batches_and_again_after_a_503() {
        let (endpoint, taken) = collector(StatusCode::SERVICE_UNAVAILABLE).await;
        let (exporter, metrics) = exporter(endpoint, 100);
        (0..3).for_each(|_| exporter.offer(example()));
        exporter.flush().await;
        assert_eq!(counts(&metrics), [3, 0, 0]);
        let bodies = taken.lock().clone();
        assert_eq!(bodies.len(), 1);
        assert_eq!(bodies[0].matches("\"spanId\"").count(), 3);
    }

    #[tokio::test]
    async fn what_the_collector_refuses_is_dropped_at_once() {
        let (endpoint, taken) = collector(StatusCode::BAD_REQUEST).await;
        let (exporter, metrics) = exporter(endpoint, 100);
        exporter.offer(example());
        exporter.flush().await;
        assert_eq!(counts(&metrics), [0, 0, 1]);
        exporter.offer(example());
        exporter.flush().await;
        assert_eq!(counts(&metrics), [1, 0, 1]);
        assert_eq!(taken.lock().len(), 1);
    }

    /// The task has no turn before the queue is full: nothing here waits.
    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let (endpoint, _) = collector(StatusCode::OK).await;
        let (exporter, metrics) = exporter(endpoint, 4);
        (0..10).for_each(|_| exporter.offer(example()));
        assert_eq!(counts(&metrics), [0, 6, 0]);
        exporter.flush().await;
        assert_eq!(counts(&metrics), [4, 6, 0]);
    }
}
