//! Where the load of sharded databases is: counted per worker, put together in windows of ten seconds, told as reports,
//! heat maps and advice (DESIGN D8). Time comes in from outside.

mod advice;
mod heat;
mod heatmap;
mod history;
mod hotspots;
mod load;
mod report;

pub use advice::{Advice, AdviceKind};
pub use heat::{HeatRules, KeyHeat, KeyRules, KeyShares, SpreadHeat, Weighed, Window, danger_share};
pub use heatmap::{Column, HeatMap, Mark, MarkKind, Metric, Row, Shape};
pub use history::{
    History, HistoryFileError, Layout, LayoutPart, MAP_BYTES_MAX, PartKind, ShardSeries, decode_histories,
    encode_histories,
};
pub use hotspots::Hotspots;
pub use load::{Dimension, Load};
pub use report::{Bounds, Heat, KeyReport, MapReport, PartReport, Report, ShardReport, Skew, TableReport};
