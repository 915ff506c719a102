//! What shards would have if parts of a map lived elsewhere.

use crate::base::ShardId;
use crate::sketch::Interval;

/// Largest over mean load that is even enough.
pub const EVEN: f64 = 1.1;
/// Of the load that moves, what the busier of two shards must lose by it.
const GAIN_MIN: f64 = 0.5;
/// No more than anybody would move at once.
const MOVES_MAX: usize = 1_024;

/// A map's load and where it lives. A key may be looked at apart from its part.
#[derive(Clone, Debug)]
pub struct Placement<'a> {
    /// Of each part.
    pub loads: &'a [u64],
    /// Of each part.
    pub owners: Vec<ShardId>,
    /// How many shards there are; load is compared over those that have a part.
    pub shards: usize,
    /// Of each shard, what no part carries; of those behind its end, none.
    pub others: &'a [u64],
    pub key: Option<PlacedKey>,
    /// Of each shard, as if no key were apart: advice asks for them some seventy times, of a thousand parts and more.
    sums: Vec<ShardSum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct ShardSum {
    parts: usize,
    load: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedKey {
    /// Where it is counted.
    pub part: usize,
    pub load: Interval,
    /// Where it lives, wherever the part does.
    pub shard: ShardId,
}

/// A part that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub part: usize,
    pub from: ShardId,
    pub to: ShardId,
}

impl<'a> Placement<'a> {
    pub fn new(loads: &'a [u64], owners: Vec<ShardId>, shards: usize, others: &'a [u64]) -> Placement<'a> {
        let shards = owners.iter().map(|it| usize::from(it.0) + 1).max().unwrap_or(0).max(shards);
        let other = |it: usize| ShardSum { parts: 0, load: others.get(it).copied().unwrap_or(0) as f64 };
        let mut sums: Vec<ShardSum> = (0..shards).map(other).collect();
        for (part, owner) in owners.iter().enumerate() {
            let sum = &mut sums[usize::from(owner.0)];
            sum.parts += 1;
            sum.load += loads.get(part).copied().unwrap_or(0) as f64;
        }
        Placement { loads, owners, shards, others, key: None, sums }
    }

    /// With a key apart. It has no more than its part.
    pub fn with_key(&self, key: PlacedKey) -> Placement<'a> {
        let part = self.loads.get(key.part).copied().unwrap_or(0);
        let load = Interval { lower: key.load.lower.min(part), upper: key.load.upper.min(part) };
        Placement { key: Some(PlacedKey { load, ..key }), ..self.clone() }
    }

    /// By `ShardId`, if the key has so much.
    fn shard_loads(&self, key_load: u64) -> Vec<f64> {
        let mut loads: Vec<f64> = self.sums.iter().map(|it| it.load).collect();
        let mut add = |shard: ShardId, load: f64| {
            if let Some(sum) = loads.get_mut(usize::from(shard.0)) {
                *sum += load;
            }
        };
        if let Some(key) = self.key
            && let Some(owner) = self.owners.get(key.part)
        {
            add(*owner, -(key_load as f64));
            add(key.shard, key_load as f64);
        }
        loads
    }

    /// Shards that have a part, or the key. One that a pinned key leaves, and that has nothing else, counts: load is not
    /// made even by leaving a shard idle.
    fn owning(&self) -> Vec<usize> {
        let has_key = |it: usize| self.key.is_some_and(|key| usize::from(key.shard.0) == it);
        (0..self.shards).filter(|it| self.sums[*it].parts > 0 || has_key(*it)).collect()
    }

    pub fn shard_load(&self, shard: ShardId) -> f64 {
        self.shard_loads(self.key_load()).get(usize::from(shard.0)).copied().unwrap_or(0.0)
    }

    pub fn mean(&self) -> f64 {
        let (loads, owning) = (self.shard_loads(self.key_load()), self.owning());
        owning.iter().map(|it| loads[*it]).sum::<f64>() / owning.len().max(1) as f64
    }

    /// Largest over mean of the shards that have a part; 0 without load. Where a key's load is known within bounds,
    /// the worst: the load of each shard is linear in it, so the largest of them is convex, and worst at one of
    /// the ends.
    pub fn max_over_mean(&self) -> f64 {
        let (load, owning) = (self.key.map_or(Interval::default(), |it| it.load), self.owning());
        let of = |it: u64| max_over_mean(&self.shard_loads(it), &owning);
        of(load.lower).max(of(load.upper))
    }

    /// Of the busiest shard, at the worse end of a key's bounds.
    pub fn largest_load(&self) -> f64 {
        let load = self.key.map_or(Interval::default(), |it| it.load);
        let of = |it: u64| self.shard_loads(it).into_iter().fold(0.0, f64::max);
        of(load.lower).max(of(load.upper))
    }

    fn key_load(&self) -> u64 {
        self.key.map_or(0, |it| it.load.lower + (it.load.upper - it.load.lower) / 2)
    }

    /// Moves parts until load is even enough: among the shards that have some, or onto idle ones too, whichever ends
    /// more even.
    pub fn rebalance(&mut self) -> Vec<Move> {
        let (mut among, mut onto_all) = (self.clone(), self.clone());
        let moves_among = among.rebalance_over(&self.owning());
        let moves_onto_all = onto_all.rebalance_over(&(0..self.shards).collect::<Vec<_>>());
        let is_better = onto_all.max_over_mean() + 0.02 < among.max_over_mean();
        let (better, moves) = if is_better { (onto_all, moves_onto_all) } else { (among, moves_among) };
        *self = better;
        moves
    }

    /// As few moves as it can, each from the busiest shard to the idlest. None makes a shard as busy as the busiest
    /// was, and each takes from the busier of the two half of what it moves at least.
    fn rebalance_over(&mut self, shards: &[usize]) -> Vec<Move> {
        let mut loads = self.shard_loads(self.key_load());
        let mut by_load = self.movable();
        let mut moves = Vec::new();
        while moves.len() < MOVES_MAX && max_over_mean(&loads, shards) > EVEN {
            let more = |a: &usize, b: &usize| if loads[*b] > loads[*a] { *b } else { *a };
            let less = |a: &usize, b: &usize| if loads[*b] < loads[*a] { *b } else { *a };
            let from = shards.iter().copied().reduce(|a, b| more(&a, &b));
            let to = shards.iter().copied().reduce(|a, b| less(&a, &b));
            let (Some(from), Some(to)) = (from, to) else { break };
            let mean = shards.iter().map(|it| loads[*it]).sum::<f64>() / shards.len() as f64;
            let Some((part, load)) = choose(&mut by_load[from], &loads, (from, to), mean) else { break };
            moves.push(Move { part, from: ShardId(from as u16), to: ShardId(to as u16) });
            self.give(part, to);
            loads[from] -= load;
            loads[to] += load;
            let at = by_load[to].partition_point(|it| it.1 < load);
            by_load[to].insert(at, (part, load));
        }
        moves
    }

    fn give(&mut self, part: usize, to: usize) {
        let load = self.loads[part] as f64;
        let from = &mut self.sums[usize::from(self.owners[part].0)];
        from.parts -= 1;
        from.load -= load;
        let new = &mut self.sums[to];
        new.parts += 1;
        new.load += load;
        self.owners[part] = ShardId(to as u16);
    }

    /// Of each shard, its parts with what they have without the key, the least first.
    fn movable(&self) -> Vec<Vec<(usize, f64)>> {
        let mut parts = vec![Vec::new(); self.shards];
        for (part, (owner, load)) in self.owners.iter().zip(self.loads).enumerate() {
            let apart = self.key.filter(|it| it.part == part).map_or(0, |_| self.key_load());
            if let Some(parts) = parts.get_mut(usize::from(owner.0)) {
                parts.push((part, (load - apart) as f64));
            }
        }
        parts.iter_mut().for_each(|it| it.sort_by(|a, b| a.1.total_cmp(&b.1)));
        parts
    }
}

/// The largest part that makes neither shard pass the mean, or the smallest that does, whichever leaves the busier of
/// the two with less, and takes enough from it.
fn choose(
    parts: &mut Vec<(usize, f64)>,
    loads: &[f64],
    (from, to): (usize, usize),
    mean: f64,
) -> Option<(usize, f64)> {
    let room = (loads[from] - mean).min(mean - loads[to]);
    let above = parts.partition_point(|it| it.1 <= room);
    let fitting = above.checked_sub(1).filter(|it| parts[*it].1 > 0.0);
    let busier = |it: &usize| (loads[from] - parts[*it].1).max(loads[to] + parts[*it].1);
    let gains = |it: &usize| loads[from] - busier(it) >= GAIN_MIN * parts[*it].1;
    let candidates = fitting.into_iter().chain((above < parts.len()).then_some(above)).filter(gains);
    let at = candidates.min_by(|a, b| busier(a).total_cmp(&busier(b)))?;
    Some(parts.remove(at))
}

fn max_over_mean(loads: &[f64], shards: &[usize]) -> f64 {
    let sum = shards.iter().map(|it| loads[*it]).sum::<f64>();
    let largest = shards.iter().map(|it| loads[*it]).fold(0.0, f64::max);
    if sum <= 0.0 { 0.0 } else { largest * shards.len() as f64 / sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(of: &[u16]) -> Vec<ShardId> {
        of.iter().map(|it| ShardId(*it)).collect()
    }

    /// Parts with their loads and owners; how many have to move, and how even it is then.
    fn check(loads: &[u64], of: &[u16], moves: usize, expect: f64) {
        let mut placement = Placement::new(loads, owners(of), 0, &[]);
        let got = placement.rebalance();
        let even = placement.max_over_mean();
        assert_eq!(got.len(), moves, "{loads:?} {of:?}: {got:?}");
        assert!((even - expect).abs() < 0.005, "{loads:?} {of:?}: {got:?}, {even}");
    }

    #[test]
    fn as_few_parts_move_as_make_load_even() {
        check(&[10, 10, 10, 10], &[0, 0, 1, 1], 0, 1.0);
        check(&[30, 10, 10, 10, 10, 10], &[0, 0, 0, 0, 1, 1], 2, 1.0);
        // One too large for the mean beats one too small.
        check(&[200, 50, 400, 350], &[0, 0, 0, 1], 1, 1.1);
        check(&[5; 40], &[[0; 30].as_slice(), &[1; 10]].concat(), 8, 1.1);
        // One part has it all: nothing to move.
        check(&[100, 0, 0, 0], &[0, 0, 1, 1], 0, 2.0);
        check(&[90, 0, 60, 0], &[0, 0, 1, 1], 0, 1.2);
        check(&[60, 50, 10], &[0, 0, 1], 1, 60.0 * 2.0 / 120.0);
        check(&[0, 0], &[0, 1], 0, 0.0);
        check(&[7, 9], &[3, 3], 0, 1.0);
    }

    #[test]
    fn an_idle_shard_takes_what_the_others_cannot() {
        let loads = [30, 30, 30, 30, 30, 30];
        let mut placement = Placement::new(&loads, owners(&[0, 0, 0, 0, 1, 1]), 3, &[]);
        assert!((placement.max_over_mean() - 120.0 / 90.0).abs() < 1e-9);
        // Three and three do as well, with one move.
        let moves = placement.rebalance();
        assert_eq!((moves.len(), placement.owning().len()), (1, 2));
        let loads = [50, 50, 50];
        let mut placement = Placement::new(&loads, owners(&[0, 0, 1]), 3, &[]);
        let moves = placement.rebalance();
        assert_eq!((moves.len(), moves[0].to, placement.owning().len()), (1, ShardId(2), 3));
        assert!((placement.max_over_mean() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_no_part_carries_stays_where_it_is() {
        let loads = [10, 10, 10, 10];
        let mut placement = Placement::new(&loads, owners(&[0, 0, 1, 1]), 0, &[20, 0]);
        assert!((placement.max_over_mean() - 40.0 / 30.0).abs() < 1e-9);
        assert_eq!(placement.rebalance().len(), 1);
        assert!((placement.max_over_mean() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_key_lives_apart_from_its_part() {
        let loads = [100, 20, 30, 30];
        let key = PlacedKey { part: 0, load: Interval { lower: 60, upper: 500 }, shard: ShardId(0) };
        let here = Placement::new(&loads, owners(&[0, 0, 1, 1]), 0, &[]).with_key(key);
        assert!((here.max_over_mean() - 120.0 / 90.0).abs() < 1e-9);
        let there = here.with_key(PlacedKey { shard: ShardId(1), ..key });
        // At most 100, its part's, there; at least 60.
        assert!((there.max_over_mean() - 160.0 / 90.0).abs() < 1e-9);
    }
}
