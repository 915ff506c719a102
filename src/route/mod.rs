//! Where a statement goes: `compile` turns facts into a plan, `decide` turns a plan and its keys
//! into shards and a role, or into a refusal.

mod cluster;

pub use cluster::{Cluster, Excluded, Freshness, Server, Shard};
