//! What the load of one database says as of a moment. Immutable: made in the background after each window, read by
//! the console, the page, the metrics and what protects hot keys.

use std::sync::Arc;

use super::advice::Advice;
use super::load::{Dimension, Load};
use crate::base::ShardId;

/// Both ends are true of what was counted, whatever the sketch forgot (DESIGN D8).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    pub lower: f64,
    pub upper: f64,
}

/// How hot a range or a key is, with hysteresis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Heat {
    #[default]
    Cool,
    /// A range or a shard carries far more than its part.
    Warning,
    /// One key does.
    Danger,
}

impl Heat {
    pub fn label(self) -> &'static str {
        match self {
            Heat::Cool => "cool",
            Heat::Warning => "warning",
            Heat::Danger => "danger",
        }
    }
}

/// A database's load in the newest windows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The end of the newest window, in seconds of Unix time; 0 before there was one.
    pub at_s: u64,
    /// What it covers: up to the last minute.
    pub span_s: u32,
    /// By `ShardId`.
    pub shards: Vec<ShardReport>,
    /// The busiest first.
    pub tables: Vec<TableReport>,
    /// In the order of the configuration, those without a statement too.
    pub maps: Vec<MapReport>,
    /// In the order in which they should be thought of; says why there is none, too.
    pub advice: Vec<Advice>,
}

#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    pub shard: String,
    pub primary_reads: Load,
    pub primary_writes: Load,
    pub replica_reads: Load,
    /// Of all calls, those that more shards had a part in.
    pub scattered_calls: u64,
    /// `Warning` where it carries far more than its part.
    pub heat: Heat,
    /// Since when, in seconds of Unix time.
    pub hot_since_s: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct TableReport {
    pub table: Arc<str>,
    pub reads: Load,
    pub writes: Load,
}

#[derive(Clone, Debug, Default)]
pub struct MapReport {
    pub map: String,
    /// `slot`, `range`, `list entry`.
    pub part_name: &'static str,
    pub parts: u32,
    /// Of the statements that name keys of it.
    pub reads: Load,
    pub writes: Load,
    /// Over the shards that own a part of it, by `Dimension`.
    pub skews: [Skew; Dimension::COUNT],
    /// Of the calls that concern it, the share that went to several shards.
    pub scatter_ratio: f64,
    /// Different keys that were named.
    pub distinct_keys: f64,
    /// From -1 (each key below the one before) to 1 (each above): near 1, keys are handed out in order. `None` where the map
    /// does not order its keys, or too few were seen.
    pub direction: Option<f64>,
    /// The hottest first, at most 100.
    pub keys: Vec<KeyReport>,
    /// Shares of the hottest 1, 10 and 100 keys, by `Dimension::Calls` and `Dimension::Time`.
    pub top_shares: [[Bounds; 3]; 2],
    /// The hottest parts first, at most 100.
    pub hot_parts: Vec<PartReport>,
    pub heat: Heat,
}

/// How uneven load is over shards.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Skew {
    /// 1 where it is even; 0 where there is none.
    pub max_over_mean: f64,
    /// Standard deviation over mean.
    pub variation: f64,
    /// From 0 (even) to 1 (one has all).
    pub gini: f64,
}

#[derive(Clone, Debug)]
pub struct KeyReport {
    /// From 1.
    pub rank: u16,
    /// xxh3 of the key's canonical bytes: what others than administrators see of it.
    pub hash: u64,
    /// The key as SQL would print it, once it has been caught. For administrators alone.
    pub text: Option<Arc<str>>,
    /// Where keys of different tables are different keys: in a database of one shard.
    pub table: Option<Arc<str>>,
    pub shard: ShardId,
    pub part: u32,
    /// In the span of the report, reads and writes together.
    pub calls: Bounds,
    /// Of `calls`.
    pub reads: Bounds,
    pub writes: Bounds,
    pub time_us: Bounds,
    /// Of all of the map, reads and writes together.
    pub calls_share: Bounds,
    pub time_share: Bounds,
    /// `Danger` or `Cool`.
    pub heat: Heat,
    pub hot_since_s: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct PartReport {
    pub part: u32,
    /// `slot 17 of 4096`.
    pub name: String,
    pub shard: ShardId,
    pub reads: Load,
    pub writes: Load,
    pub calls_share: f64,
    /// Different keys that were named, where the map has few parts.
    pub distinct_keys: Option<f64>,
    /// `Warning` or `Cool`.
    pub heat: Heat,
}
