//! Where the load of sharded databases is: counted per worker, put together in windows of ten seconds, told as reports,
//! heat maps and advice (DESIGN D8). Time comes in from outside.

mod advice;
mod heatmap;
mod hotspots;
mod load;
mod report;
mod statements;

pub use advice::{Advice, AdviceKind};
pub use heatmap::{Column, HeatMap, Mark, MarkKind, Metric, Row, Shape};
pub use hotspots::Hotspots;
pub use load::{Dimension, Load};
pub use report::{Bounds, Heat, KeyReport, MapReport, PartReport, Report, ShardReport, Skew, TableReport};
pub use statements::{STATEMENTS_MAX, Sample, StatementReport, Statements, TEXT_BYTES_MAX, weight};
