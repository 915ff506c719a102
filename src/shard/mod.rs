//! From a key to a shard: key values and their canonical bytes, hashes, slots, ranges. Pure.

mod key;
mod map;
mod time;

pub use key::{KeyType, KeyValue};
pub use map::{HashFunction, Map, MapError, Place, Range, faults};
