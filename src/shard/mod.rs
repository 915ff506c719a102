//! From a key to a shard: key values and their canonical bytes, hashes, slots, ranges, lists. Pure.

mod convert;
mod decimal;
mod integer;
mod key;
mod map;
mod postgres_hash;
mod read;
mod time;

pub use convert::{Purpose, Usage};
pub use decimal::{Decimal, parse as parse_decimal};
pub use key::{BadType, KeyColumn, KeyType, KeyValue};
pub use map::{Bound, COLUMNS_MAX, Form, HashFunction, ListEntry, Map, MapError, Place, Range, faults};
pub use postgres_hash::partition_hash;

#[cfg(test)]
mod tests;
