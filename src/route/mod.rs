//! Where a statement goes: `compile` turns facts into a plan, `decide` turns a plan and its keys
//! into shards and a role, or into a refusal.

mod array;
mod assign;
mod balance;
mod catalog;
mod cluster;
mod compile;
mod copy;
mod decide;
mod evaluate;
mod explain;
mod footprint;
mod hint;
mod keys;
mod plan;
mod reads;
mod router;

pub use assign::SettingMade;
pub use balance::{Choice, Load, Offer, warmth};
pub use catalog::{
    Called, Catalog, Collation, Column, ColumnDefault, Difference, Effects, ForeignKey, Function, LOCAL_PATH,
    Locale, Oid, Part, QualifiedName, Relation, RelationKind, RowError, Schema, SchemaReader, SearchPath,
    SearchPaths, Type, Unique,
};
pub use cluster::{Cluster, Excluded, Freshness, Joined, Server, Shard};
pub use copy::{CopyOwner, CopyPlan};
pub use decide::{Decision, KEYS_COUNTED_MAX, KeyRef, KeySet, Mode, Path, SessionView, ShardSet, Why};
pub use evaluate::NamedKey;
pub use footprint::{Footprint, Touched, TouchedTable};
pub use hint::SessionHint;
pub use keys::{KeySource, Params};
pub use plan::{KeyWrite, Kind, Leaves, Plan, Protected, Subject};
pub use reads::{Described, Manner, ShardQuery, ShardRead};
pub use router::{PlanCacheCounts, Planned, Router};

pub use crate::sql::{Assigned, CursorStatement, FetchRows, Literal, Literals, SchemaChange, SetStatement};

#[cfg(test)]
mod tests;
