//! Ids of traces and spans, which nobody else has.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// A count under a random seed: as good as random numbers, without asking the system for each.
#[derive(Debug)]
pub struct Ids {
    seed: u64,
    count: AtomicU64,
}

impl Ids {
    /// `seed` is random, and another one in each process.
    pub fn new(seed: u64) -> Ids {
        Ids { seed, count: AtomicU64::new(0) }
    }

    /// None is zero, which the specification forbids.
    pub fn trace(&self) -> u128 {
        xxh3_128_with_seed(&self.next(), self.seed).max(1)
    }

    pub fn span(&self) -> u64 {
        xxh3_64_with_seed(&self.next(), self.seed).max(1)
    }

    fn next(&self) -> [u8; 8] {
        self.count.fetch_add(1, Ordering::Relaxed).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn they_differ_and_so_do_those_of_another_seed() {
        let (ids, others) = (Ids::new(1), Ids::new(2));
        let traces: HashSet<u128> = (0..1_000).flat_map(|_| [ids.trace(), others.trace()]).collect();
        let spans: HashSet<u64> = (0..1_000).flat_map(|_| [ids.span(), others.span()]).collect();
        assert_eq!((traces.len(), spans.len()), (2_000, 2_000));
    }
}
