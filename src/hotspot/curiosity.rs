//! The values of hot keys, which counts know by their hashes alone: they are caught from a later statement that names
//! them, so that no other statement pays for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::report::{Heat, KeyReport, MapReport, Report};
use crate::shard::KeyValue;

/// Names that are kept, of keys that are or were hot.
const NAMES_MAX: usize = 1_024;
/// Keys of less than this share of their map's calls and time have no name: under an even load others are listed each
/// time.
const SHARE_MIN: f64 = 0.001;
/// Longer values are cut: they are for people.
const NAME_CHARS_MAX: usize = 200;

/// By map and hash.
type Id = (usize, u64);

/// A kilobit for the hundred or so keys that are wanted at most.
const MARK_WORDS: usize = 16;

fn mark(map: usize, hash: u64) -> (usize, u64) {
    // The highest bits choose the shard, and hot keys may all be of one.
    let at = hash as usize ^ map;
    (at / 64 % MARK_WORDS, 1 << (at % 64))
}

/// What a key is called.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub value: KeyValue,
    pub text: Arc<str>,
    /// Where keys of different tables are different keys.
    pub table: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Curiosity {
    /// Whether a map's keys are sampled.
    sampled: Vec<bool>,
    is_awake: AtomicBool,
    wanted: Mutex<Vec<Id>>,
    /// A bit for each of `wanted`, and for keys that share it: nearly every statement sees by one load that its key is none.
    marks: [AtomicU64; MARK_WORDS],
    names: Mutex<HashMap<Id, Name>>,
    /// There is room for samples.
    is_sampling: AtomicBool,
    /// Statements of sampled maps in this window, of which each so many-th is looked at.
    seen: AtomicU64,
    every: AtomicU64,
}

impl Curiosity {
    /// By map, whether values of its keys are to be sampled.
    pub fn new(sampled: Vec<bool>) -> Curiosity {
        let (is_awake, is_sampling) =
            (AtomicBool::new(sampled.contains(&true)), AtomicBool::new(sampled.contains(&true)));
        Curiosity {
            sampled,
            is_awake,
            wanted: Mutex::default(),
            marks: [const { AtomicU64::new(0) }; MARK_WORDS],
            names: Mutex::default(),
            is_sampling,
            seen: AtomicU64::new(0),
            every: AtomicU64::new(1),
        }
    }

    /// Maps keep their places over a reload where nothing else is wanted; a name that is not right any more would be of
    /// another hash.
    pub fn remember(&self, before: &Curiosity) {
        *self.names.lock() = before.names.lock().clone();
    }

    pub fn is_awake(&self) -> bool {
        self.is_awake.load(Ordering::Relaxed)
    }

    pub fn wants(&self, map: usize, hash: u64) -> bool {
        let is_sampled = self.sampled.get(map) == Some(&true);
        if is_sampled && self.is_sampling.load(Ordering::Relaxed) {
            let every = self.every.load(Ordering::Relaxed).max(1);
            if self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(every) {
                return true;
            }
        }
        let (word, bit) = mark(map, hash);
        if self.marks[word].load(Ordering::Relaxed) & bit == 0 {
            return false;
        }
        // Whoever waits here would be the second to look at the same key.
        self.wanted.try_lock().is_some_and(|it| it.contains(&(map, hash)))
    }

    /// The value of a key that was wanted.
    pub fn take(&self, map: usize, hash: u64, value: &KeyValue, table: Option<Arc<str>>) {
        let mut wanted = self.wanted.lock();
        let Some(at) = wanted.iter().position(|it| *it == (map, hash)) else { return };
        wanted.swap_remove(at);
        self.rest(&wanted);
        drop(wanted);
        let mut text = value.to_string();
        if let Some((at, _)) = text.char_indices().nth(NAME_CHARS_MAX) {
            text.truncate(at);
            text.push_str("...");
        }
        self.names.lock().insert((map, hash), Name { value: value.clone(), text: text.into(), table });
    }

    /// Of keys whose values could not be told.
    pub fn give_up(&self, ids: impl Iterator<Item = Id>) {
        let Some(mut wanted) = self.wanted.try_lock() else { return };
        for id in ids {
            wanted.retain(|it| *it != id);
        }
        self.rest(&wanted);
    }

    /// Until the next window.
    pub fn stop_sampling(&self) {
        self.is_sampling.store(false, Ordering::Relaxed);
        self.rest(&self.wanted.lock());
    }

    fn rest(&self, wanted: &[Id]) {
        if wanted.is_empty() && !self.is_sampling.load(Ordering::Relaxed) {
            self.is_awake.store(false, Ordering::Relaxed);
        }
    }

    pub fn names(&self) -> HashMap<Id, Name> {
        self.names.lock().clone()
    }

    /// From now on the names that a report lacks are wanted; those that it does not need make room.
    pub fn want(&self, report: &Report) {
        let is_wanted = |it: &&KeyReport| {
            it.heat > Heat::Cool || it.calls_share.lower.max(it.time_share.lower) >= SHARE_MIN
        };
        let of_map = |(map, it): (usize, &MapReport)| -> Vec<Id> {
            it.keys.iter().filter(is_wanted).map(|it| (map, it.hash)).collect()
        };
        let keys = || (0..).zip(&report.maps).flat_map(of_map);
        let mut names = self.names.lock();
        if names.len() > NAMES_MAX {
            let needed: Vec<Id> = keys().collect();
            names.retain(|it, _| needed.contains(it));
        }
        let missing: Vec<Id> = keys().filter(|it| !names.contains_key(it)).collect();
        drop(names);
        let samples = self.sampled.contains(&true);
        let is_awake = !missing.is_empty() || samples;
        let mut marks = [0; MARK_WORDS];
        for (map, hash) in &missing {
            let (word, bit) = mark(*map, *hash);
            marks[word] |= bit;
        }
        *self.wanted.lock() = missing;
        self.marks.iter().zip(marks).for_each(|(it, bits)| it.store(bits, Ordering::Relaxed));
        self.is_sampling.store(samples, Ordering::Relaxed);
        self.is_awake.store(is_awake, Ordering::Relaxed);
    }

    /// Of the next window, of which the last one gives an idea.
    pub fn sample_every(&self, every: u64) {
        self.seen.store(0, Ordering::Relaxed);
        self.every.store(every.max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use crate::hotspot::report::Bounds;

    fn report(hash: u64) -> Report {
        let none = Bounds::default();
        let key = KeyReport {
            rank: 1,
            hash,
            text: None,
            table: None,
            shard: ShardId(0),
            part: 0,
            calls: none,
            reads: none,
            writes: none,
            time_us: none,
            calls_share: none,
            time_share: none,
            heat: Heat::Danger,
            hot_since_s: None,
        };
        let map = MapReport { keys: vec![key], ..MapReport::default() };
        Report { maps: vec![MapReport::default(), map], ..Report::default() }
    }

    #[test]
    fn a_wanted_key_is_caught_once_and_nothing_is_looked_at_then() {
        let curiosity = Curiosity::new(vec![false, false]);
        assert!(!curiosity.is_awake());
        curiosity.want(&report(7));
        assert!(curiosity.is_awake() && curiosity.wants(1, 7));
        assert!(!curiosity.wants(0, 7) && !curiosity.wants(1, 8));
        curiosity.take(1, 8, &KeyValue::Int(1), None);
        curiosity.take(1, 7, &KeyValue::Int(42), None);
        assert!(!curiosity.is_awake() && !curiosity.wants(1, 7));
        assert_eq!(&*curiosity.names()[&(1, 7)].text, "42");
        assert_eq!(curiosity.names().len(), 1);
        curiosity.want(&report(7));
        assert!(!curiosity.is_awake());
    }

    #[test]
    fn each_so_many_th_statement_of_a_sampled_map_is_looked_at() {
        let curiosity = Curiosity::new(vec![true, false]);
        assert!(curiosity.is_awake());
        curiosity.sample_every(4);
        assert_eq!((0..100).filter(|_| curiosity.wants(0, 1)).count(), 25);
        assert_eq!((0..100).filter(|_| curiosity.wants(1, 1)).count(), 0);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let curiosity = Curiosity::new(vec![false, false]);
        curiosity.want(&report(7));
        curiosity.take(1, 7, &KeyValue::Text("é".repeat(1_000).into()), None);
        assert_eq!(curiosity.names()[&(1, 7)].text.chars().count(), NAME_CHARS_MAX + 3);
    }
}
