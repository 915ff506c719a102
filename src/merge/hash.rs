//! The hash of rows that are kept by their canonical bytes. Seeded from outside, as values are the clients'
//! choice and this module draws no random numbers.

use std::hash::{BuildHasher, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

#[derive(Clone, Debug)]
pub(super) struct ByteHash {
    pub seed: u64,
}

pub(super) struct ByteHasher(u64);

impl BuildHasher for ByteHash {
    type Hasher = ByteHasher;

    fn build_hasher(&self) -> ByteHasher {
        ByteHasher(self.seed)
    }
}

impl Hasher for ByteHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The length that stands before a slice; its bytes tell slices apart already.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
