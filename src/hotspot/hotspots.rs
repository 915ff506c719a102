//! One database's hotspots: what statements are counted into and what readers see.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use thread_local::ThreadLocal;

use super::curiosity::Curiosity;
use super::heatmap::{HeatMap, Mark, Metric};
use super::history::History;
use super::layout::Layout;
use super::pending::{Pending, PendingKey, Record};
use super::report::Report;
use super::summary::{self, Heats, Recent};
use super::window::{Call, Sample, TABLES_MAX, TableNames, Window};
use crate::route::{KeyRef, NamedKey, Router};

/// Windows end at multiples of this, in Unix time.
pub const WINDOW_S: u64 = 10;
/// Reports are of so many: the last minute.
const WINDOWS: usize = 6;
/// Windows that are kept to be used again.
const SPARE_MAX: usize = 2;
/// Keys of which a window should have samples, for each map in order.
const SAMPLES_WANTED: u64 = 1_024;

/// Shared by all sessions of a database as long as its router stays as it is.
///
/// Each thread counts into a window of its own, in batches. Its lock is that thread's alone but for the moment, once in ten
/// seconds, in which the window is taken away, so that no statement waits for another
/// (docs/decisions/0014-each-thread-counts-hotspots-by-itself.md).
#[derive(Debug)]
pub struct Hotspots {
    is_on: bool,
    layout: Layout,
    /// Of the sketches: unknown to clients, who would choose keys by it.
    seed: u64,
    counting: ThreadLocal<Counting>,
    curiosity: Curiosity,
    kept: Mutex<Kept>,
    /// Not with `kept`: readers must not wait for a report to be made.
    history: Mutex<History>,
    report: ArcSwap<Report>,
    /// The end of the newest window.
    turned_s: AtomicU64,
    turning: Mutex<()>,
}

/// Of one thread.
#[derive(Debug)]
struct Counting {
    pending: Pending,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    window: Window,
    /// Of the thread's tables, at least of those that `pending` says have been named.
    names: TableNames,
}

impl Counting {
    fn new(window: Window) -> Counting {
        let counts = Counts { window, names: TableNames::default() };
        Counting { pending: Pending::default(), counts: Mutex::new(counts) }
    }

    #[inline]
    fn push(&self, record: &Record, layout: &Layout) {
        if !self.pending.push(record) {
            self.settle(&mut self.counts.lock(), layout);
            self.pending.push(record);
        }
    }

    /// Counts what is pending.
    fn settle(&self, counts: &mut Counts, layout: &Layout) {
        self.pending.drain(|unread| counts.window.add(unread, &counts.names, layout));
    }

    fn is_empty(&self, layout: &Layout) -> bool {
        let mut counts = self.counts.lock();
        self.settle(&mut counts, layout);
        counts.window.is_empty()
    }

    #[cold]
    fn name(&self, id: u64, name: &Arc<str>, layout: &Layout) {
        let mut counts = self.counts.lock();
        if counts.names.len() >= TABLES_MAX && !counts.names.contains_key(&id) {
            // What is pending is of these names.
            self.settle(&mut counts, layout);
            counts.names.clear();
            self.pending.forget_names();
        }
        counts.names.entry(id).or_insert_with(|| name.clone());
        self.pending.named(id);
    }
}

#[derive(Debug)]
struct Kept {
    recent: VecDeque<Recent>,
    /// Of times in which nothing was counted: one for all of them.
    empty: Option<Arc<Window>>,
    spare: Vec<Window>,
    heats: Heats,
}

impl Hotspots {
    /// `now_s` is Unix time; `history` is what is known of the load before, `before` what a reload replaces.
    pub fn new(
        database: &str,
        router: &Router,
        is_on: bool,
        seed: u64,
        now_s: u64,
        mut history: History,
        before: Option<&Hotspots>,
    ) -> Hotspots {
        let layout = Layout::of(database, router);
        history.set_maps(layout.maps.iter().map(|it| (it.name.clone(), it.history.clone())));
        let (heats, recent, spare) = (Heats::new(&layout), VecDeque::new(), Vec::new());
        let curiosity = Curiosity::new(layout.maps.iter().map(|it| it.is_range).collect());
        let hotspots = Hotspots {
            is_on,
            layout,
            seed,
            counting: ThreadLocal::new(),
            curiosity,
            kept: Mutex::new(Kept { recent, empty: None, spare, heats }),
            history: Mutex::new(history),
            report: ArcSwap::default(),
            turned_s: AtomicU64::new(now_s),
            turning: Mutex::default(),
        };
        if let Some(before) = before {
            hotspots.curiosity.remember(&before.curiosity);
        }
        hotspots.publish(&hotspots.kept.lock(), now_s);
        hotspots
    }

    /// Whether a reload may keep it.
    pub fn is_of(&self, is_on: bool) -> bool {
        self.is_on == is_on
    }

    /// A statement that a shard has answered.
    #[inline]
    pub fn count(&self, call: &Call<'_>) {
        if !self.is_on {
            return;
        }
        let (counting, layout) = (self.counting(), &self.layout);
        if let Some(name) = &call.subject.table
            && !counting.pending.has_named(call.subject.table_id)
        {
            counting.name(call.subject.table_id, name, layout);
        }
        let keys = call.keys.iter().filter(|it| it.place.shard == call.shard);
        let count = keys.clone().count() as u32;
        let mut record = Record::of(call, count);
        if count == 0 {
            return counting.push(&record, layout);
        }
        for key in keys {
            let (map, hash) = layout.place(key);
            let key = PendingKey { hash, part: key.place.part, map: map as u16 };
            counting.push(&record.with(key), layout);
            record.go_on();
        }
    }

    /// This thread's.
    #[inline]
    fn counting(&self) -> &Counting {
        self.counting.get_or(|| Counting::new(Window::new(&self.layout, self.seed)))
    }

    /// Values of keys may be wanted. One load, which is all that nearly every statement costs here.
    #[inline]
    pub fn is_curious(&self) -> bool {
        self.is_on && self.curiosity.is_awake()
    }

    /// Where a key is counted: the map's place in the report, and the hash that is the key's there.
    pub fn place(&self, key: &KeyRef) -> (usize, u64) {
        self.layout.place(key)
    }

    /// `Report::at_s` of the newest.
    pub fn reported_s(&self) -> u64 {
        self.report.load().at_s
    }

    /// Of one of these.
    pub fn wants(&self, keys: &[KeyRef]) -> bool {
        keys.iter().any(|it| {
            let (map, hash) = self.layout.place(it);
            self.curiosity.wants(map, hash)
        })
    }

    pub fn tell(&self, NamedKey { key, value, table }: NamedKey) {
        let (map, hash) = self.layout.place(&key);
        let table = self.layout.is_primary_keys(map).then(|| table.into());
        self.curiosity.take(map, hash, &value, table);
        if self.layout.map(map).is_some_and(|it| it.is_range) {
            let sample = Sample { map: map as u16, part: key.place.part, value };
            if !self.counting().counts.lock().window.sample(sample) {
                self.curiosity.stop_sampling();
            }
        }
    }

    pub fn want_no_more(&self, keys: &[KeyRef]) {
        let ids = keys.iter().map(|it| self.layout.place(it));
        self.curiosity.give_up(ids);
    }

    /// A window has ended.
    pub fn is_due(&self, now_s: u64) -> bool {
        self.is_on && now_s / WINDOW_S != self.turned_s.load(Ordering::Relaxed) / WINDOW_S
    }

    /// Ends the window and publishes what it says. Takes milliseconds: not for a thread that serves clients.
    pub fn turn(&self, now_s: u64) {
        // Whoever comes second, or late, finds the window ended.
        let Some(_turning) = self.turning.try_lock() else { return };
        if !self.is_due(now_s) {
            return;
        }
        let end_s = now_s - now_s % WINDOW_S;
        let begin_s = self.turned_s.swap(end_s, Ordering::Relaxed).min(end_s);
        let mut kept = self.kept.lock();
        let window = match self.take(&mut kept.spare) {
            Some(it) => Arc::new(it),
            None => {
                let empty = || Arc::new(Window::new(&self.layout, self.seed));
                kept.empty.get_or_insert_with(empty).clone()
            }
        };
        let recent = Recent { begin_s, end_s, window };
        kept.heats.observe(&recent, &self.layout.owners());
        self.record(&recent);
        kept.recent.push_back(recent);
        // A clock that was put back has windows of two times, of which the older ones say nothing of now.
        let oldest_s = end_s.saturating_sub(WINDOWS as u64 * WINDOW_S);
        let is_old = |it: &Recent| it.begin_s < oldest_s || it.end_s > end_s;
        while kept.recent.len() > 1
            && (kept.recent.len() > WINDOWS || kept.recent.front().is_some_and(is_old))
        {
            let old = kept.recent.pop_front().filter(|_| kept.spare.len() < SPARE_MAX);
            kept.spare.extend(old.and_then(|it| Arc::into_inner(it.window)));
        }
        self.publish(&kept, end_s);
    }

    /// Puts what was counted since the last window into the history: nothing is counted any more.
    pub fn end(&self, now_s: u64) {
        if !self.is_on {
            return;
        }
        let _turning = self.turning.lock();
        let begin_s = self.turned_s.swap(now_s, Ordering::Relaxed).min(now_s);
        let window = self.take(&mut self.kept.lock().spare);
        // That nothing was asked for is known, too.
        let window = window.unwrap_or_else(|| Window::new(&self.layout, self.seed));
        self.record(&Recent { begin_s, end_s: now_s, window: Arc::new(window) });
    }

    fn record(&self, recent: &Recent) {
        let mut history = self.history.lock();
        for (of, counts) in self.layout.maps.iter().zip(&recent.window.maps) {
            let loads = counts.loads().enumerate().filter(|it| it.1.0.calls + it.1.1.calls > 0);
            let loads = loads.map(|(run, (reads, writes))| (of.first_part(run), reads, writes));
            history.record(&of.name, recent.begin_s, recent.end_s, loads);
        }
    }

    /// What all threads have counted, if they have. Each is kept from counting for one batch at most.
    fn take(&self, spare: &mut Vec<Window>) -> Option<Window> {
        let mut whole: Option<Window> = None;
        for counting in self.counting.iter().filter(|it| !it.is_empty(&self.layout)) {
            let fresh = spare.pop().map(|mut it| {
                it.clear();
                it
            });
            let fresh = fresh.unwrap_or_else(|| Window::new(&self.layout, self.seed));
            let mut counts = counting.counts.lock();
            counting.settle(&mut counts, &self.layout);
            let taken = std::mem::replace(&mut counts.window, fresh);
            drop(counts);
            match &mut whole {
                None => whole = Some(taken),
                Some(whole) => {
                    whole.merge(&taken);
                    spare.push(taken);
                }
            }
        }
        whole
    }

    fn publish(&self, kept: &Kept, end_s: u64) {
        let names = self.curiosity.names();
        let report = summary::summarise(&self.layout, &kept.recent, &names, &kept.heats, end_s);
        self.curiosity.want(&report);
        if let Some(newest) = kept.recent.back() {
            let maps = self.layout.maps.iter().zip(&newest.window.maps);
            let named: u64 = maps.filter(|it| it.0.is_range).map(|it| it.1.statements).sum();
            self.curiosity.sample_every(named.div_ceil(SAMPLES_WANTED));
        }
        self.report.store(Arc::new(report));
    }

    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// At most so many rows and columns; `None` where there is no such map.
    pub fn heat_map(
        &self,
        map: &str,
        metric: Metric,
        last: Duration,
        rows_max: usize,
        columns_max: usize,
    ) -> Option<HeatMap> {
        let (last_s, now_s) = (last.as_secs().max(1), self.turned_s.load(Ordering::Relaxed));
        self.history.lock().heat_map(map, metric, last_s, (rows_max, columns_max), now_s)
    }

    /// Puts what happened into heat maps.
    pub fn mark(&self, mark: Mark) {
        self.history.lock().mark(mark);
    }

    pub fn history(&self) -> History {
        self.history.lock().clone()
    }
}

#[cfg(test)]
impl Hotspots {
    /// Windows of the last minute, and how many of them have memory of their own.
    pub fn windows(&self) -> (usize, usize) {
        let kept = self.kept.lock();
        let is_own = |it: &&Recent| kept.empty.as_ref().is_none_or(|empty| !Arc::ptr_eq(empty, &it.window));
        (kept.recent.len(), kept.recent.iter().filter(is_own).count())
    }
}
