//! Server-sent events: what is new, every two seconds, to a bounded number of readers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::access::{Admission, Viewer};
use super::page::{Facts, Part, View, parts};
use super::{Source, api};
use crate::metrics::Live;

const INTERVAL: Duration = Duration::from_secs(2);
/// A line that says nothing, for proxies that end what is silent.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// When a browser asks again after an end.
const RETRY: Duration = Duration::from_secs(1);

/// Streams that are open; each has a place.
pub struct Streams {
    open: AtomicUsize,
    gauge: IntGauge,
}

pub struct Place {
    streams: Arc<Streams>,
    _live: Live<IntGauge>,
}

impl Streams {
    pub fn new(gauge: IntGauge) -> Arc<Streams> {
        Arc::new(Streams { open: AtomicUsize::new(0), gauge })
    }

    /// Nothing where `max` are open.
    pub fn place(self: &Arc<Streams>, max: usize) -> Option<Place> {
        let more = |open| (open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place { streams: self.clone(), _live: Live::new(self.gauge.clone()) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a stream tells.
pub enum Wanted {
    /// The status, as `/api/status` has it.
    Status,
    /// Parts of the page that have changed.
    Page(Box<PageReader>),
}

pub struct PageReader {
    view: View,
    viewer: Viewer,
    /// What the reader has.
    sent: Vec<Part>,
    /// The report whose heat map that is.
    heat_of: Option<u64>,
}

impl PageReader {
    pub fn new(view: View, viewer: Viewer) -> PageReader {
        PageReader { view, viewer, sent: Vec::new(), heat_of: None }
    }

    /// What has changed since the last look.
    fn changed(&mut self, source: &dyn Source) -> Vec<Part> {
        let facts = Facts::gather(source, &self.view, self.viewer, self.heat_of);
        let with_heat = self.heat_of != Some(facts.report_at_s());
        self.heat_of = Some(facts.report_at_s());
        let mut changed = Vec::new();
        for part in parts(&facts, with_heat) {
            match self.sent.iter_mut().find(|it| it.id == part.id) {
                Some(it) if *it == part => continue,
                Some(it) => it.html.clone_from(&part.html),
                None => self.sent.push(part.clone()),
            }
            changed.push(part);
        }
        changed
    }
}

impl Wanted {
    fn event(&mut self, source: &dyn Source) -> Option<Event> {
        match self {
            Wanted::Status => {
                let status = api::status(&source.status());
                Some(Event::default().event("status").data(status.to_string()))
            }
            Wanted::Page(reader) => {
                let changed = reader.changed(source);
                if changed.is_empty() {
                    return None;
                }
                let pairs = changed.into_iter().map(|it| (it.id.to_owned(), it.html.into()));
                let object = serde_json::Value::Object(pairs.collect());
                Some(Event::default().event("parts").data(object.to_string()))
            }
        }
    }
}

/// By what a reader was let in, and what would be asked of one now.
pub struct Rights {
    pub by: Admission,
    pub now: watch::Receiver<Admission>,
}

impl Rights {
    fn hold(&self) -> bool {
        self.now.borrow().is_as(&self.by)
    }
}

struct Stream {
    source: Arc<dyn Source>,
    /// Away while a thread writes what is new.
    wanted: Option<Wanted>,
    ticks: Interval,
    rights: Rights,
    ended: watch::Receiver<bool>,
    end: Instant,
    _place: Place,
    is_first: bool,
}

/// Ends in order when the process stops, when a reload asks for another token, and before the connection's own end at
/// `end` would cut it. The connection is not used again: its end is near.
pub fn stream(
    source: Arc<dyn Source>,
    wanted: Wanted,
    place: Place,
    rights: Rights,
    (ended, end): (watch::Receiver<bool>, Instant),
) -> Response {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let wanted = Some(wanted);
    let begun = Stream { source, wanted, ticks, rights, ended, end, _place: place, is_first: true };
    let events = stream::unfold(begun, |mut it| async move {
        let event = it.next().await?;
        Some((Ok::<_, Infallible>(event), it))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    ([(header::CONNECTION, "close")], sse).into_response()
}

impl Stream {
    /// Nothing at the end. Not cancel safe: dropped in between, the stream has to be dropped with it.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                biased;
                _ = self.ended.wait_for(|it| *it) => return None,
                () = sleep_until(self.end) => return None,
                _ = self.ticks.tick() => {}
            }
            if !self.rights.hold() {
                return None;
            }
            let (mut wanted, source) = (self.wanted.take()?, self.source.clone());
            // Not on the threads that serve queries.
            let written = spawn_blocking(move || (wanted.event(&*source), wanted)).await;
            let (event, wanted) = written.ok()?;
            self.wanted = Some(wanted);
            let Some(event) = event else { continue };
            let event = if std::mem::take(&mut self.is_first) { event.retry(RETRY) } else { event };
            return Some(event);
        }
    }
}
