//! What could be done about a map's hot shards and keys, from what was counted: the first of these that holds.
//!
//! 1. statements of many shards are the load: said besides whatever follows, as no placement helps them;
//! 2. one key is: it lives apart, where load is then most even;
//! 3. keys rise or fall with the time and are written: another kind of key;
//! 4. a range would be even in two: split there;
//! 5. parts can move so that load is even;
//! 6. why there is nothing to do.

mod balance;
mod snippet;
#[cfg(test)]
mod tests;

pub use snippet::KeyedTable;

use balance::{EVEN, Move, PlacedKey, Placement};
use snippet::{Names, NewForm, NewMap, Rows, RowsOf};

use super::advice::{Advice, AdviceKind};
use super::load::Dimension;
use super::report::Heat;
use crate::base::ShardId;
use crate::shard::{Form, KeyValue, Map, Range};
use crate::sketch::{Interval, NoSplit, SplitPoint};

/// Of a map's statements, those of several shards that no placement helps.
const SCATTER_MIN: f64 = 0.3;
const DIRECTION_MIN: f64 = 0.8;
const WRITES_MIN: f64 = 0.5;
/// Of a shard's load, what one key has that is popular.
const POPULAR_MIN: f64 = 0.5;
/// More keys have no share that matters.
const KEYS_MAX: usize = 8;
/// How much more even load must become, in largest over mean.
const GAIN_MIN: f64 = 0.05;
/// Largest over mean that is even enough for one key alone to move, where no other way leaves the busiest with less:
/// a key is moved in no time, and the slots of half a shard are not.
const EVEN_ALONE: f64 = 1.2;

/// What was counted of a map, all in one dimension.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub database: &'a str,
    pub map: &'a Map,
    /// Names, by `ShardId`.
    pub shards: &'a [String],
    /// That the map places.
    pub tables: &'a [KeyedTable],
    pub dimension: Dimension,
    /// Of each part of the map.
    pub part_loads: &'a [u64],
    /// Of each shard, what no part of the map carries; none where it is empty.
    pub other_loads: &'a [u64],
    pub hot_shards: &'a [ShardId],
    /// The heaviest first.
    pub keys: &'a [HeavyLoad],
    /// What samples say of parts of a range map.
    pub splits: &'a [(u32, Result<SplitPoint<KeyValue>, NoSplit>)],
    /// Of the map's statements, those that several shards had a part in.
    pub scatter_share: f64,
    /// See `MapReport::direction`.
    pub direction: Option<f64>,
    /// Of calls.
    pub write_share: f64,
    /// In how many of the newest windows it is so, of how many.
    pub windows: (u8, u8),
}

/// A key, reads and writes together.
#[derive(Clone, Debug)]
pub struct HeavyLoad {
    pub hash: u64,
    /// Once it has been caught.
    pub value: Option<KeyValue>,
    pub part: u32,
    pub shard: ShardId,
    pub load: Interval,
    pub heat: Heat,
    /// Of its calls.
    pub write_share: f64,
}

/// In the order in which they should be thought of; never empty.
pub fn advise(situation: &Situation<'_>) -> Vec<Advice> {
    let parts = situation.map.parts() as u32;
    let owners = (0..parts).map(|it| situation.map.part_shard(it).unwrap_or(ShardId(0))).collect();
    let now = Placement::new(situation.part_loads, owners, situation.shards.len(), situation.other_loads);
    let it = Adviser { situation, names: situation.names(), before: now.max_over_mean(), now };
    let mut advice: Vec<Advice> = it.scatter().into_iter().collect();
    let key = it.single_key();
    // A key that lives where it does best keeps nothing else from being advised.
    let is_placed = key.as_ref().is_none_or(|it| it.max_over_mean.is_none());
    advice.extend(key);
    if is_placed {
        advice.extend(it.sequential().or_else(|| it.split()).or_else(|| it.moves()));
    }
    if advice.is_empty() {
        advice.push(it.nothing());
    }
    advice
}

impl<'a> Situation<'a> {
    fn names(&self) -> Names<'a> {
        Names { database: self.database, map: self.map, shards: self.shards, tables: self.tables }
    }
}

struct Adviser<'a> {
    situation: &'a Situation<'a>,
    names: Names<'a>,
    now: Placement<'a>,
    before: f64,
}

impl Adviser<'_> {
    fn scatter(&self) -> Option<Advice> {
        let share = self.situation.scatter_share;
        (share > SCATTER_MIN && self.total() > 0).then(|| {
            let text = format!(
                "{} of the statements on map {} ran on several shards, which no placement of keys makes fewer: \
                 name the key in them, look it up first, or make small tables reference tables",
                percent(share),
                self.situation.map.name,
            );
            self.advice(AdviceKind::Scatter, Heat::Warning, text)
        })
    }

    /// Of the heaviest key that another placement helps, or else of the heaviest.
    fn single_key(&self) -> Option<Advice> {
        let heavy = self.situation.keys.iter().filter(|it| self.is_the_load(it)).take(KEYS_MAX);
        let mut advice: Vec<Advice> = heavy.map(|it| self.about_key(it)).collect();
        let helped = advice.iter().position(|it| it.max_over_mean.is_some()).unwrap_or(0);
        (!advice.is_empty()).then(|| advice.swap_remove(helped))
    }

    fn about_key(&self, key: &HeavyLoad) -> Advice {
        let apart = self.apart(key);
        let here = self.now.with_key(apart);
        let (placement, moves) = self.place_key(&here, apart);
        let after = placement.max_over_mean();
        let of_map = self.shares(key.load, self.total());
        let shard = self.now.shard_load(key.shard) as u64;
        let of_shard = self.shares(key.load, shard);
        let mut text = format!(
            "one key, {:016x}, has {of_map} of the {} of map {} and {of_shard} of those of shard {}",
            key.hash,
            self.situation.dimension.label(),
            self.situation.map.name,
            self.shard(key.shard),
        );
        let moved_to = placement.key.map(|it| it.shard).filter(|it| *it != key.shard);
        let mut advice = self.advice(AdviceKind::SingleKey, Heat::Danger, String::new());
        if self.is_gain(after) {
            text.push_str(&match moved_to {
                Some(to) => {
                    format!("; pinned to shard {} it leaves the largest over mean load at", self.shard(to))
                }
                None => format!(
                    "; pinned where it is, with {} moved, the largest over mean load goes to",
                    self.parts(moves.len()),
                ),
            });
            text.push_str(&format!(" {after:.2} from {:.2}", self.before));
            advice.max_over_mean = Some((self.before, after));
            match &key.value {
                Some(value) => {
                    advice.snippet = self.pinned(key, value, &placement, &moves);
                }
                None => text.push_str(" (its value has not been caught yet, so there is nothing to paste)"),
            }
        } else if self.before <= EVEN {
            text.push_str("; shards are even all the same, so it stays where it is");
        } else {
            text.push_str(&format!(
                "; no shard could take it so that load is more even than {:.2}",
                self.before
            ));
        }
        text.push_str(if key.write_share < WRITES_MIN {
            ". Most of its calls are reads: let replicas answer them (docs/replicas.md), and identical ones share an \
             answer (`share_reads` of the table, or `hot_share`: docs/protection.md)"
        } else {
            ". Most of its calls are writes, which wait for one another: spread it over several rows, or let them take \
             turns without a server connection (`writes_at_once` of the table, or `hot_share`: docs/protection.md)"
        });
        advice.text = text;
        advice
    }

    /// Dangerous, or what its hot shard has too much of, or most of what that has.
    fn is_the_load(&self, key: &HeavyLoad) -> bool {
        let (load, lower) = (self.now.shard_load(key.shard), key.load.lower as f64);
        if load <= 0.0 {
            return false;
        }
        let mean = self.now.mean();
        let is_hot = self.situation.hot_shards.contains(&key.shard);
        key.heat == Heat::Danger || is_hot && (lower >= load - mean || lower >= load * POPULAR_MIN)
    }

    /// A key that is pinned is its part.
    fn apart(&self, key: &HeavyLoad) -> PlacedKey {
        let part = key.part as usize;
        let whole = self.now.loads.get(part).copied().unwrap_or(0);
        let is_pinned = part >= self.situation.map.own_parts();
        let load = if is_pinned { Interval { lower: whole, upper: whole } } else { key.load };
        PlacedKey { part, load, shard: key.shard }
    }

    /// The key alone on another shard, where that makes load even enough or as even as can be; else where it is, with
    /// other parts moved away from it.
    fn place_key<'b>(&self, here: &Placement<'b>, key: PlacedKey) -> (Placement<'b>, Vec<Move>) {
        let elsewhere = (0..here.shards).map(|it| ShardId(it as u16)).filter(|it| *it != key.shard);
        let alone: Vec<Placement<'b>> =
            elsewhere.map(|it| here.with_key(PlacedKey { shard: it, ..key })).collect();
        let mut among = here.clone();
        let moves = among.rebalance();
        let evenest = alone.iter().min_by(|a, b| a.max_over_mean().total_cmp(&b.max_over_mean()));
        let is_even = |it: &&Placement<'_>| it.max_over_mean() <= EVEN.max(among.max_over_mean());
        // A shard more makes the mean less, so that load may be less even by it and yet be better spread.
        let is_nearly =
            |it: &&Placement<'_>| it.max_over_mean() <= EVEN_ALONE && self.is_gain(it.max_over_mean());
        let best_spread =
            || alone.iter().filter(is_nearly).min_by(|a, b| a.largest_load().total_cmp(&b.largest_load()));
        let is_spread = |it: &&Placement<'_>| it.largest_load() <= among.largest_load();
        match evenest.filter(is_even).or_else(|| best_spread().filter(is_spread)) {
            Some(it) => (it.clone(), Vec::new()),
            None => (among, moves),
        }
    }

    fn is_gain(&self, after: f64) -> bool {
        after + GAIN_MIN < self.before
    }

    fn pinned(
        &self,
        key: &HeavyLoad,
        value: &KeyValue,
        placement: &Placement<'_>,
        moves: &[Move],
    ) -> Option<String> {
        let to = placement.key?.shard;
        let mut new = NewMap::of(self.situation.map);
        let mut rows = new.apply(moves, self.situation.map.own_parts());
        new.pin(value, to);
        if to != key.shard {
            rows.push(Rows { what: RowsOf::Key(value.clone()), from: key.shard, to });
        }
        self.names.snippet(&new, &rows)
    }

    fn sequential(&self) -> Option<Advice> {
        let direction = self.situation.direction.filter(|it| it.abs() > DIRECTION_MIN)?;
        if self.situation.write_share <= WRITES_MIN || self.situation.hot_shards.is_empty() {
            return None;
        }
        let text = format!(
            "keys of map {} {} with the time (direction {direction:.2}) and {} of its calls are writes, so that one range \
             has all that is new wherever it is split: place them by kind = \"hash\", or begin the key with what spreads it",
            self.situation.map.name,
            if direction > 0.0 { "rise" } else { "fall" },
            percent(self.situation.write_share),
        );
        Some(self.advice(AdviceKind::Sequential, Heat::Warning, text))
    }

    fn split(&self) -> Option<Advice> {
        let Form::Range(ranges) = self.situation.map.form() else { return None };
        let found = self.situation.splits.iter().filter_map(|(part, found)| {
            let (range, point) = (ranges.get(*part as usize)?, found.as_ref().ok()?);
            let is_inside = range.from.as_ref().is_none_or(|it| *it < point.key)
                && range.to.as_ref().is_none_or(|it| point.key < *it);
            let is_hot = self.situation.hot_shards.contains(&range.shard);
            (is_inside && is_hot).then(|| self.halves(*part as usize, range, point))?
        });
        let (after, advice) = found.min_by(|a, b| a.0.total_cmp(&b.0))?;
        self.is_gain(after).then_some(advice)
    }

    /// One half of a range on another shard, the one and there where load is most even.
    fn halves(&self, part: usize, range: &Range, point: &SplitPoint<KeyValue>) -> Option<(f64, Advice)> {
        let samples = (point.left + point.right + point.contained) as f64;
        let load = *self.now.loads.get(part)? as f64;
        // What lies on both sides costs both of them.
        let half = |alone: u64| (load * (alone + point.contained) as f64 / samples) as u64;
        let (left, right) = (half(point.left), half(point.right));
        let place = |(is_right, to): (bool, ShardId)| {
            let mut loads = self.now.loads.to_vec();
            let (stays, moves) = if is_right { (left, right) } else { (right, left) };
            loads[part] = stays;
            loads.push(moves);
            let mut owners = self.now.owners.clone();
            owners.push(to);
            (Placement::new(&loads, owners, self.now.shards, self.now.others).max_over_mean(), is_right, to)
        };
        let others = (0..self.now.shards).map(|it| ShardId(it as u16)).filter(|it| *it != range.shard);
        let choices = others.flat_map(|it| [(true, it), (false, it)]).map(place);
        let (after, is_right, to) = choices.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let share = |it: u64| percent(it as f64 / samples);
        let text = format!(
            "range {part} of map {} would be even in two: left {}, right {}, on both sides {}; with the {} half on shard \
             {} the largest over mean load goes to {after:.2} from {:.2}",
            self.situation.map.name,
            share(point.left),
            share(point.right),
            share(point.contained),
            if is_right { "right" } else { "left" },
            self.shard(to),
            self.before,
        );
        let mut advice = self.advice(AdviceKind::Split, Heat::Warning, text);
        advice.max_over_mean = Some((self.before, after));
        advice.snippet = self.cut(part, &point.key, is_right, to);
        Some((after, advice))
    }

    fn cut(&self, part: usize, at: &KeyValue, is_right: bool, to: ShardId) -> Option<String> {
        let mut new = NewMap::of(self.situation.map);
        let NewForm::Range(ranges) = &mut new.own else { return None };
        let range = ranges.get_mut(part)?;
        let mut right = Range { from: Some(at.clone()), ..range.clone() };
        range.to = Some(at.clone());
        let from = range.shard;
        let moved = if is_right { &mut right } else { range };
        moved.shard = to;
        let what = RowsOf::Range { from: moved.from.clone(), to: moved.to.clone() };
        ranges.insert(part + 1, right);
        self.names.snippet(&new, &[Rows { what, from, to }])
    }

    fn moves(&self) -> Option<Advice> {
        if self.situation.hot_shards.is_empty() {
            return None;
        }
        let mut placement = self.now.clone();
        let moves = placement.rebalance();
        let after = placement.max_over_mean();
        if moves.is_empty() || !self.is_gain(after) {
            return None;
        }
        let load: u64 = moves.iter().filter_map(|it| self.now.loads.get(it.part)).sum();
        let text = format!(
            "{} of map {} with {} of its {}, on other shards, bring the largest over mean load to {after:.2} from {:.2}",
            self.parts(moves.len()),
            self.situation.map.name,
            percent(load as f64 / self.total().max(1) as f64),
            self.situation.dimension.label(),
            self.before,
        );
        let mut new = NewMap::of(self.situation.map);
        let rows = new.apply(&moves, self.situation.map.own_parts());
        let mut advice = self.advice(AdviceKind::Move, Heat::Warning, text);
        advice.max_over_mean = Some((self.before, after));
        advice.snippet = self.names.snippet(&new, &rows);
        Some(advice)
    }

    fn nothing(&self) -> Advice {
        let name = &self.situation.map.name;
        let Some(hot) = self.situation.hot_shards.first() else {
            let text = match self.total() {
                0 => format!("map {name} has no load"),
                _ => {
                    format!("no shard of map {name} is hot: the largest over mean load is {:.2}", self.before)
                }
            };
            return self.advice(AdviceKind::None, Heat::Cool, text);
        };
        let why = if self.now.shards < 2 {
            "there is no other shard".to_owned()
        } else {
            let split =
                self.situation.splits.iter().find(|it| self.now.owners.get(it.0 as usize) == Some(hot));
            let split = split.and_then(|it| it.1.as_ref().err()).map(|it| no_split(*it) + ", and ");
            format!("{}no part of it could move so that load is more even", split.unwrap_or_default())
        };
        let text = format!(
            "shard {} has {:.2} times the mean {} of map {name}: {why}",
            self.shard(*hot),
            self.now.shard_load(*hot) / self.now.mean().max(1.0),
            self.situation.dimension.label(),
        );
        self.advice(AdviceKind::None, Heat::Warning, text)
    }

    fn advice(&self, kind: AdviceKind, heat: Heat, text: String) -> Advice {
        Advice {
            kind,
            heat,
            map: Some(self.situation.map.name.clone()),
            text,
            windows: self.situation.windows,
            max_over_mean: None,
            snippet: None,
        }
    }

    fn total(&self) -> u64 {
        self.situation.part_loads.iter().sum()
    }

    fn shares(&self, load: Interval, of: u64) -> String {
        let share = |it: u64| (it as f64 / of.max(1) as f64).min(1.0);
        format!("{} to {}", percent(share(load.lower)), percent(share(load.upper)))
    }

    /// `1 slot`, `3 ranges`.
    fn parts(&self, count: usize) -> String {
        let name = self.situation.map.part_name();
        match (count, name) {
            (1, name) => format!("1 {name}"),
            (_, "list entry") => format!("{count} list entries"),
            _ => format!("{count} {name}s"),
        }
    }

    fn shard(&self, shard: ShardId) -> &str {
        self.situation.shards.get(usize::from(shard.0)).map_or("?", String::as_str)
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn no_split(why: NoSplit) -> String {
    match why {
        NoSplit::TooFewSamples { have } => format!("too few keys were seen to split a range ({have})"),
        NoSplit::PopularKey { share } => format!("one key has {} of its range", percent(share)),
        NoSplit::Unbalanced { difference } => {
            format!("no place in its range has even sides (they differ by {} at least)", percent(difference))
        }
        NoSplit::Contained { share } => {
            format!("{} of the statements at least would be on both sides of any split", percent(share))
        }
    }
}
