//! Rows of several shards to the rows that one PostgreSQL would have sent (DESIGN D7): sorted streams to one,
//! partial aggregates to whole ones, DISTINCT, LIMIT. Pure: bytes in, bytes out.
//!
//! `route` writes a `MergeSpec`, with what `partials` says that the shards have to compute; `client` makes a
//! `Merger` of it, feeds it with what the shards send and writes what it gives:
//!
//! ```text
//! describe(shard, RowDescription) for each shard; description() goes to the client
//! loop: pull(out) ── NeedRows ─▶ for each shard with wants_rows(): feed(shard, rows) or end(shard)
//!                 ── OutFull ──▶ write out
//!                 ── Done ─────▶ write out; CommandComplete with rows(); cancel what has not ended
//! ```
//! Values are compared and computed as PostgreSQL does (`value`, `order`, `numeric`, `arithmetic`); what
//! Keyway cannot vouch for is refused when the plan is made or the rows are described, before a row is sent.

mod aggregate;
mod arithmetic;
mod cast;
mod datetime;
mod describe;
mod distinct;
mod error;
mod expression;
mod grouped;
mod hash;
mod list;
mod merger;
mod numeric;
mod order;
mod row;
mod source;
mod spec;
mod state;
mod types;
mod value;
mod window;

pub use aggregate::{Aggregate, AggregateFunction, Partial, Partials, partials};
pub use arithmetic::{Function, Operator};
pub use cast::NumericModifier;
pub use datetime::Interval;
pub use expression::{Columns, Comparison, Expression};
pub use merger::{Budget, Merger, Progress};
pub use numeric::Numeric;
pub use spec::{Collation, Distinct, Grouping, MergeSpec, Output, ResultFormats, SortKey, Window};
pub use types::{Format, Type};
pub use value::Value;
