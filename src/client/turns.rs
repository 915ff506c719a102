//! Lines of those who want to write the same key: a few at a time, the others wait in the order in which they came, where
//! they hold no server connection. Who has a turn has it until the end of its transaction.
//!
//! ```text
//!  (no line) ──first enters──▶ n at work, nobody waits ──n at its bound──▶ n at work, m wait in order
//!      ▲                          │           ▲                               │  one leaves: the longest
//!      └──────────last leaves─────┘           └──────────────nobody waits─────┘  waiter has its turn
//! ```
//! Nobody waits who has a turn, or a server: what it has locked there another one may wait for, and the server, which would
//! find such a circle, knows nothing of these lines.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::pool::{Ticket, Waiters};

/// A key of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    pub table: u64,
    pub map: u16,
    pub key: u64,
}

/// How many may be at work in a line, and wait in it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub at_once: usize,
    pub waiting_max: usize,
    /// Nobody waits.
    pub dry_run: bool,
}

#[derive(Default)]
struct Standing {
    at_work: usize,
    waiting: Waiters<()>,
}

/// Of one database.
#[derive(Default)]
pub struct Turns {
    lines: Mutex<HashMap<Line, Standing>>,
    waiting: AtomicUsize,
}

/// A place at work. Dropped, it is the longest waiter's.
pub struct Turn {
    turns: Arc<Turns>,
    line: Line,
}

/// A place in the line.
pub struct Waiting {
    turns: Arc<Turns>,
    line: Line,
    /// `None` once it is a turn.
    ticket: Option<Ticket<()>>,
}

pub enum Entered {
    Turn(Turn),
    /// It would have had to wait.
    Spared(Turn),
    Waiting(Waiting),
    Full,
}

impl Turns {
    pub fn enter(self: &Arc<Turns>, line: Line, bounds: Bounds) -> Entered {
        let mut lines = self.lines.lock();
        let standing = lines.entry(line).or_default();
        let turns = self.clone();
        if standing.at_work < bounds.at_once || bounds.dry_run {
            let is_free = standing.at_work < bounds.at_once;
            standing.at_work += 1;
            let turn = Turn { turns, line };
            return if is_free { Entered::Turn(turn) } else { Entered::Spared(turn) };
        }
        if standing.waiting.len() >= bounds.waiting_max {
            return Entered::Full;
        }
        let ticket = Some(standing.waiting.join(Instant::now()));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Entered::Waiting(Waiting { turns, line, ticket })
    }

    /// In all lines.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn leave(&self, line: Line) {
        let mut lines = self.lines.lock();
        let Some(standing) = lines.get_mut(&line) else { return };
        if standing.waiting.hand(()).is_err() {
            standing.at_work = standing.at_work.saturating_sub(1);
            if standing.at_work == 0 {
                lines.remove(&line);
            }
        }
    }
}

impl Turn {
    pub fn is_of(&self, line: Line) -> bool {
        self.line == line
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.leave(self.line);
    }
}

impl Waiting {
    /// Cancel safe: dropped before it has come, the turn is the next one's.
    pub async fn turn(mut self) -> Turn {
        if let Some(ticket) = &mut self.ticket {
            // A line is not gone while somebody waits in it.
            ticket.handed().await;
        }
        self.ticket = None;
        Turn { turns: self.turns.clone(), line: self.line }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.turns.waiting.fetch_sub(1, Ordering::Relaxed);
        let Some(ticket) = self.ticket.take() else { return };
        let mut lines = self.turns.lines.lock();
        // With a turn inside it is at work, and with none in front of it somebody else is: the line is there.
        let came = lines.get_mut(&self.line).and_then(|it| it.waiting.leave(ticket)).is_some();
        drop(lines);
        if came {
            self.turns.leave(self.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    const LINE: Line = Line { table: 1, map: 0, key: 7 };
    const BOUNDS: Bounds = Bounds { at_once: 1, waiting_max: 2, dry_run: false };

    fn turn(entered: Entered) -> Turn {
        match entered {
            Entered::Turn(it) => it,
            _ => panic!("no turn"),
        }
    }

    fn waiting(entered: Entered) -> Waiting {
        match entered {
            Entered::Waiting(it) => it,
            _ => panic!("does not wait"),
        }
    }

    #[tokio::test]
    async fn turns_come_in_order_and_lines_end() {
        let turns = Arc::new(Turns::default());
        let first = turn(turns.enter(LINE, BOUNDS));
        let other = turn(turns.enter(Line { key: 8, ..LINE }, BOUNDS));
        let (second, third) = (waiting(turns.enter(LINE, BOUNDS)), waiting(turns.enter(LINE, BOUNDS)));
        assert!(matches!(turns.enter(LINE, BOUNDS), Entered::Full));
        assert_eq!(turns.waiting(), 2);
        let (mut second, mut third) = (pin!(second.turn()), pin!(third.turn()));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        let second = second.await;
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        drop(third.await);
        drop(other);
        assert_eq!(turns.waiting(), 0);
        assert!(turns.lines.lock().is_empty());
    }

    #[tokio::test]
    async fn one_who_leaves_makes_room_and_passes_its_turn_on() {
        let turns = Arc::new(Turns::default());
        let first = turn(turns.enter(LINE, BOUNDS));
        let (gone, handed) = (waiting(turns.enter(LINE, BOUNDS)), waiting(turns.enter(LINE, BOUNDS)));
        drop(gone);
        let last = waiting(turns.enter(LINE, BOUNDS));
        drop(first);
        // It has its turn and does not know it.
        drop(handed);
        drop(last.turn().await);
        assert!(turns.lines.lock().is_empty() && turns.waiting() == 0);
    }

    #[test]
    fn a_dry_run_only_counts() {
        let turns = Arc::new(Turns::default());
        let bounds = Bounds { dry_run: true, ..BOUNDS };
        let _first = turn(turns.enter(LINE, bounds));
        let second = turns.enter(LINE, bounds);
        assert!(matches!(second, Entered::Spared(_)));
        drop(second);
        assert!(matches!(turns.enter(LINE, bounds), Entered::Spared(_)));
        assert_eq!(turns.waiting(), 0);
    }
}
