//! Requests per second of each shard over the last minutes, for the page's lines.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::admin::{HISTORY_INTERVAL_S, HISTORY_LENGTH};

#[derive(Default)]
pub struct History<K> {
    /// When the totals were last taken.
    at: Option<Instant>,
    shards: HashMap<K, Line>,
}

struct Line {
    /// Requests since the start, at the last take.
    total: u64,
    per_second: VecDeque<f32>,
}

impl<K: std::hash::Hash + Eq + Clone> History<K> {
    /// Takes totals once in an interval; shards that are gone are forgotten.
    pub fn take(&mut self, now: Instant, totals: impl Iterator<Item = (K, u64)>) {
        let since = self.at.map(|it| now.saturating_duration_since(it));
        if since.is_some_and(|it| it < Duration::from_secs(HISTORY_INTERVAL_S)) {
            return;
        }
        self.at = Some(now);
        let mut before = std::mem::take(&mut self.shards);
        for (name, total) in totals {
            let mut line = before.remove(&name).unwrap_or(Line { total, per_second: VecDeque::new() });
            if let Some(since) = since {
                line.per_second.push_back(total.saturating_sub(line.total) as f32 / since.as_secs_f32());
            }
            while line.per_second.len() > HISTORY_LENGTH {
                line.per_second.pop_front();
            }
            line.total = total;
            self.shards.insert(name, line);
        }
    }

    /// The oldest first.
    pub fn of(&self, shard: &K) -> Vec<f32> {
        self.shards.get(shard).map(|it| it.per_second.iter().copied().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_came_between_two_takes() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        history.take(at(0), [("a", 100)].into_iter());
        history.take(at(3), [("a", 500)].into_iter());
        assert!(history.of(&"a").is_empty(), "one take is no rate, and another comes after the interval");
        history.take(at(5), [("a", 600), ("b", 7)].into_iter());
        history.take(at(15), [("a", 700), ("b", 7)].into_iter());
        assert_eq!(history.of(&"a"), [100.0, 10.0]);
        assert_eq!(history.of(&"b"), [0.0, 0.0]);
        history.take(at(20), [("b", 3)].into_iter());
        assert!(history.of(&"a").is_empty(), "it is gone");
        assert_eq!(history.of(&"b"), [0.0, 0.0, 0.0], "counters that begin anew are no negative rate");
        for step in 5..200 {
            history.take(at(5 * step), [("b", 3 + step)].into_iter());
        }
        assert_eq!(history.of(&"b").len(), HISTORY_LENGTH);
    }
}
