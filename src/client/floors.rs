//! What has been written through this Keyway and when, in cells: reads at `global` and `session` consistency ask which
//! replica has it (DESIGN D5). A cell stands for a key's rows of a table, for a whole table, or for all tables; several may
//! fall together, which errs to the fresh side.
//!
//! ```text
//!          a write is sent              its transaction has ended
//!  still ─────────────────▶ in flight ───────────────────────────▶ still, raised to that moment
//! ```
//! While a write is in flight nobody but its server knows whether it is committed, so that its rows are read on the
//! primary. Thus what one session has been told, or another one has seen, no replica lacks that serves a read
//! of the same rows: reads do not go back in time either.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::route::{Touched, TouchedTable};

/// 512 kB for each database.
const CELLS: usize = 1 << 16;
/// A cell's time, in ticks since the database was set up; above it the number of writes in flight.
const TIME_BITS: u32 = 44;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// So that the time lasts for eight years.
const TICK_NS: u128 = 16_000;

/// Cells for everything, in front of those that are found by hash: writes that may be of any table, and writes at all.
/// Apart, as the first is read by every read and the second is written by every write.
const ANY_TABLE: u32 = 0;
const LATEST: u32 = 16;
const FIRST: u32 = 32;

/// What a table's cells are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Writes of any of its rows.
    Row = 1,
    /// Writes that may be of any of its rows.
    Whole = 2,
    /// Writes of rows of one key.
    Key = 3,
}

pub type Cells = SmallVec<[u32; 6]>;

/// The cells of a database. No lock: each is one word.
pub struct Floors {
    base: Instant,
    cells: Box<[AtomicU64]>,
    doubts: Mutex<Vec<Doubt>>,
    /// Of `doubts`, those that have ended included.
    doubts_count: AtomicUsize,
}

/// Cells of a write of which nobody was told whether it was done: its server may be at it still, or may commit it only when
/// a standby has it. Replicas that lack it will have it; an answer that is kept never will.
struct Doubt {
    cells: Cells,
    until: Instant,
}

/// As long as a server is told again and again to stop (`abandon`), and a while more.
const DOUBT: Duration = Duration::from_secs(60);
/// More of them, or of more rows, are taken for one of everything.
const DOUBTS_MAX: usize = 64;
const DOUBT_CELLS_MAX: usize = 64;

/// What a read must find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The last of the writes that have ended.
    pub at: Option<Instant>,
    /// Others are under way.
    pub in_flight: bool,
}

impl Floors {
    pub fn new(base: Instant) -> Arc<Floors> {
        let mut cells = Vec::with_capacity(CELLS);
        while cells.len() < CELLS {
            // Not one by one: without optimisation that would be most of what a short life in `tests/sim.rs` takes.
            cells.append(&mut Vec::from([const { AtomicU64::new(0) }; 4_096]));
        }
        let (doubts, doubts_count) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Floors { base, cells: cells.into(), doubts, doubts_count })
    }

    /// Those that a write raises. `keys` are hashes of the keys whose rows it writes in keyed tables.
    pub fn written(touched: &Touched, keys: Option<&[u64]>) -> Cells {
        let Touched::Tables(tables) = touched else { return Cells::from_slice(&[ANY_TABLE, LATEST]) };
        let mut cells = Cells::new();
        for table in tables {
            cells.push(cell(Kind::Row, table.id, 0));
            match keys.filter(|_| table.keyed) {
                Some(keys) => cells.extend(keys.iter().map(|it| cell(Kind::Key, table.id, *it))),
                None => cells.push(cell(Kind::Whole, table.id, 0)),
            }
        }
        if !cells.is_empty() {
            cells.push(LATEST);
        }
        cells
    }

    /// Those whose writes a read must see.
    pub fn read(touched: &Touched, keys: Option<&[u64]>) -> Cells {
        let Touched::Tables(tables) = touched else { return Cells::from_slice(&[LATEST]) };
        let mut cells = Cells::new();
        for TouchedTable { id, keyed } in tables {
            match keys.filter(|_| *keyed) {
                Some(keys) => {
                    cells.push(cell(Kind::Whole, *id, 0));
                    cells.extend(keys.iter().map(|it| cell(Kind::Key, *id, *it)));
                }
                None => cells.push(cell(Kind::Row, *id, 0)),
            }
        }
        // DDL is among what raises it: of functions and types too.
        cells.push(ANY_TABLE);
        cells
    }

    pub fn floor(&self, cells: &[u32]) -> Floor {
        let words = cells.iter().filter_map(|it| self.cells.get(*it as usize));
        let (mut ticks, mut in_flight) = (0, false);
        for word in words.map(|it| it.load(Ordering::Acquire)) {
            ticks = ticks.max(word & TIME_MASK);
            in_flight |= word > TIME_MASK;
        }
        Floor { at: (ticks > 0).then(|| self.time(ticks)), in_flight }
    }

    fn begin(&self, cells: &[u32]) {
        for word in cells.iter().filter_map(|it| self.cells.get(*it as usize)) {
            word.fetch_add(1 << TIME_BITS, Ordering::AcqRel);
        }
    }

    fn end(&self, cells: &[u32], now: Instant) {
        let ticks = self.ticks(now);
        for word in cells.iter().filter_map(|it| self.cells.get(*it as usize)) {
            let raised = |it: u64| {
                let time = (it & TIME_MASK).max(ticks);
                Some((it & !TIME_MASK).saturating_sub(1 << TIME_BITS) | time)
            };
            // It has an answer for every value.
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, raised);
        }
    }

    /// Nobody knows what has become of a write of these.
    fn doubt(&self, cells: &[u32], now: Instant) {
        let mut doubts = self.doubts.lock();
        doubts.retain(|it| now < it.until);
        let is_all = doubts.len() >= DOUBTS_MAX || cells.len() > DOUBT_CELLS_MAX;
        if is_all {
            doubts.clear();
        }
        let cells = if is_all { Cells::from_slice(&[ANY_TABLE, LATEST]) } else { Cells::from_slice(cells) };
        doubts.push(Doubt { cells, until: now + DOUBT });
        self.doubts_count.store(doubts.len(), Ordering::Release);
    }

    /// Whether a write of which nobody knows whether it was done may be of what a read of these cells gives.
    pub fn doubts(&self, cells: &[u32], now: Instant) -> bool {
        self.doubts_count.load(Ordering::Acquire) > 0
            && self
                .doubts
                .lock()
                .iter()
                .any(|it| now < it.until && it.cells.iter().any(|it| cells.contains(it)))
    }

    /// Never before `at`.
    fn ticks(&self, at: Instant) -> u64 {
        let ns = at.saturating_duration_since(self.base).as_nanos();
        (u64::try_from(ns.div_ceil(TICK_NS)).unwrap_or(TIME_MASK)).clamp(1, TIME_MASK)
    }

    fn time(&self, ticks: u64) -> Instant {
        self.base + Duration::from_nanos(ticks.saturating_mul(TICK_NS as u64))
    }
}

fn cell(kind: Kind, table: u64, key: u64) -> u32 {
    // Both are hashes already; the multiplication spreads what their sum has.
    let mixed = (table.rotate_left(kind as u32 * 7) ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    FIRST + (mixed >> 32) as u32 % (CELLS as u32 - FIRST)
}

/// The cells that a session's transaction has written. Dropped with a write in flight, it ends that: nobody knows
/// what has become of it.
pub struct Written {
    floors: Arc<Floors>,
    cells: Vec<u32>,
    /// What is sent next may commit it.
    commits: bool,
    in_flight: bool,
    /// Its server was lost while it was in flight.
    is_lost: bool,
}

/// A transaction that writes more rows than this by their keys raises everything.
const WRITTEN_MAX: usize = 4_096;

impl Written {
    pub fn new(floors: Arc<Floors>) -> Written {
        Written { floors, cells: Vec::new(), commits: false, in_flight: false, is_lost: false }
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// `commits`: what is sent next may commit it.
    pub fn add(&mut self, cells: &[u32], commits: bool) {
        let known = self.cells.len();
        for cell in cells {
            // Of a long transaction's the last ones are looked at, so that this does not grow with its square.
            let from = self.cells.len().saturating_sub(64);
            if !self.cells[from..].contains(cell) {
                self.cells.push(*cell);
            }
        }
        if self.cells.len() > WRITTEN_MAX && known <= WRITTEN_MAX {
            self.cells.push(ANY_TABLE);
        }
        if self.in_flight {
            self.floors.begin(&self.cells[known..]);
        }
        self.commits |= commits;
        if self.cells.len() > 2 * WRITTEN_MAX {
            self.forget_rows();
        }
    }

    /// What raises everything raises rows too.
    fn forget_rows(&mut self) {
        if self.in_flight {
            // In this order: there is no moment at which its rows are in flight nowhere.
            self.floors.begin(&[ANY_TABLE, LATEST]);
            self.floors.end(&self.cells, Instant::now());
        }
        self.cells.clear();
        self.cells.extend([ANY_TABLE, LATEST]);
    }

    /// COMMIT comes next, or may.
    pub fn commit(&mut self) {
        self.commits = true;
    }

    /// Nothing is written, and nothing expected to be committed.
    pub fn is_idle(&self) -> bool {
        self.cells.is_empty() && !self.commits
    }

    /// Something is about to be sent: where it may commit, nobody knows from here on whether it has.
    pub fn send(&mut self) {
        if self.commits && !self.in_flight {
            self.in_flight = true;
            self.floors.begin(&self.cells);
        }
    }

    /// Its transaction has ended, whatever its end was.
    pub fn end(&mut self, now: Instant) {
        let is_lost = std::mem::take(&mut self.is_lost);
        if std::mem::take(&mut self.in_flight) {
            if is_lost {
                // In this order: there is no moment at which it is neither in flight nor in doubt.
                self.floors.doubt(&self.cells, now);
            }
            self.floors.end(&self.cells, now);
        }
        self.cells.clear();
        self.commits = false;
    }

    /// Whoever had it is gone, and has not told its end.
    pub fn lose(&mut self) {
        self.is_lost |= self.in_flight;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if self.in_flight {
            self.lose();
            self.end(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tables(of: &[(u64, bool)]) -> Touched {
        Touched::Tables(of.iter().map(|(id, keyed)| TouchedTable { id: *id, keyed: *keyed }).collect())
    }

    fn floor(floors: &Floors, touched: &Touched, keys: Option<&[u64]>) -> Floor {
        floors.floor(&Floors::read(touched, keys))
    }

    #[test]
    fn a_key_is_raised_alone_and_seen_by_reads_of_the_whole_table() {
        let start = Instant::now();
        let floors = Floors::new(start);
        let (users, orders) = (tables(&[(1, true)]), tables(&[(2, true)]));
        let mut written = Written::new(floors.clone());
        written.add(&Floors::written(&users, Some(&[7])), true);
        assert_eq!(floor(&floors, &users, None), Floor::default(), "nothing is sent");
        written.send();
        for (touched, keys, in_flight) in [
            (&users, Some(&[7][..]), true),
            (&users, Some(&[8]), false),
            (&users, Some(&[8, 7]), true),
            (&users, None, true),
            (&orders, None, false),
            (&orders, Some(&[7]), false),
            (&Touched::All, None, true),
        ] {
            assert_eq!(floor(&floors, touched, keys), Floor { at: None, in_flight }, "{touched:?} {keys:?}");
        }
        written.end(start + MS);
        let raised = floor(&floors, &users, Some(&[7]));
        assert!(!raised.in_flight && raised.at >= Some(start + MS));
        assert!(raised.at <= Some(start + MS + Duration::from_micros(16)));
        assert_eq!(floor(&floors, &users, Some(&[8])), Floor::default());
        assert_eq!(floor(&floors, &users, None).at, raised.at);
        assert_eq!(floor(&floors, &Touched::All, None).at, raised.at);
    }

    #[test]
    fn a_write_of_any_row_or_table_is_seen_by_all() {
        let start = Instant::now();
        let floors = Floors::new(start);
        let (users, unkeyed) = (tables(&[(1, true)]), tables(&[(1, false)]));
        let mut written = Written::new(floors.clone());
        written.add(&Floors::written(&unkeyed, Some(&[7])), true);
        written.send();
        written.end(start + MS);
        assert!(floor(&floors, &users, Some(&[8])).at >= Some(start + MS));
        assert_eq!(floor(&floors, &tables(&[(3, true)]), Some(&[8])).at, None);
        written.add(&Floors::written(&Touched::All, None), true);
        written.send();
        written.end(start + MS * 2);
        assert!(floor(&floors, &tables(&[(3, true)]), Some(&[8])).at >= Some(start + MS * 2));
        assert!(floor(&floors, &Touched::default(), None).at >= Some(start + MS * 2), "it may call or cast");
    }

    #[test]
    fn a_transaction_is_in_flight_from_its_commit_on() {
        let start = Instant::now();
        let floors = Floors::new(start);
        let users = tables(&[(1, true)]);
        let mut written = Written::new(floors.clone());
        written.add(&Floors::written(&users, Some(&[7])), false);
        written.send();
        assert_eq!(floor(&floors, &users, None), Floor::default());
        written.commit();
        written.send();
        written.send();
        written.add(&Floors::written(&users, Some(&[8])), false);
        assert!(floor(&floors, &users, Some(&[8])).in_flight);
        written.end(start + MS);
        written.end(start + MS * 9);
        assert!(!floor(&floors, &users, None).in_flight);
        assert!(floor(&floors, &users, Some(&[8])).at < Some(start + MS * 2));
        // Rolled back before it was sent: nothing happened.
        written.add(&Floors::written(&users, Some(&[9])), false);
        written.end(start + MS * 5);
        assert_eq!(floor(&floors, &users, Some(&[9])).at, None);
    }

    #[test]
    fn a_session_that_dies_ends_its_write() {
        let start = Instant::now();
        let floors = Floors::new(start);
        let users = tables(&[(1, true)]);
        let mut written = Written::new(floors.clone());
        written.add(&Floors::written(&users, Some(&[7])), true);
        written.send();
        drop(written);
        let left = floor(&floors, &users, Some(&[7]));
        assert!(!left.in_flight && left.at.is_some());
        let doubts = |keys: &[u64], after: Duration| {
            floors.doubts(&Floors::read(&users, Some(keys)), Instant::now() + after)
        };
        assert!(doubts(&[7], MS) && !doubts(&[8], MS) && !doubts(&[7], DOUBT));
        for key in 0..2 * DOUBTS_MAX as u64 {
            let mut written = Written::new(floors.clone());
            written.add(&Floors::written(&users, Some(&[100 + key])), true);
            written.send();
            written.lose();
            written.end(Instant::now());
        }
        assert!(doubts(&[8], MS), "too many to tell apart");
        assert!(floors.doubts.lock().len() <= DOUBTS_MAX);
    }

    #[test]
    fn a_long_transaction_is_bounded() {
        let start = Instant::now();
        let floors = Floors::new(start);
        let mut written = Written::new(floors.clone());
        let users = tables(&[(1, true)]);
        for key in 0..20_000u64 {
            written.add(&Floors::written(&users, Some(&[key.wrapping_mul(0x1234_5678_9ABC_DEF1)])), key > 9);
            written.send();
        }
        assert!(written.cells.len() <= 2 * WRITTEN_MAX + 8);
        assert!(floor(&floors, &tables(&[(9, true)]), Some(&[1])).in_flight, "everything is");
        written.end(start + MS);
        let cells: Vec<u64> = floors.cells.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        assert!(cells.iter().all(|it| *it <= TIME_MASK), "nothing is left in flight");
    }
}
