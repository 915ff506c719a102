//! Where the load of sharded databases is: counted per worker, put together in windows of ten seconds, told as reports,
//! heat maps and advice (DESIGN D8). Time comes in from outside.

mod advice;
mod advise;
mod cells;
mod counsel;
mod curiosity;
mod heat;
mod heatmap;
mod history;
mod hotspots;
mod layout;
mod load;
mod pending;
mod report;
mod statements;
mod summary;
mod window;

pub use advice::{Advice, AdviceKind};
pub use advise::{HeavyLoad, KeyedTable, Situation, advise};
pub use heatmap::{Column, HeatMap, Mark, MarkKind, Metric, Row, Shape};
pub use history::{
    History, HistoryFileError, MAP_BYTES_MAX, ShardSeries, decode_histories, encode_histories,
};
pub use hotspots::{Hotspots, WINDOW_S};
pub use layout::PRIMARY_KEYS;
pub use load::{Dimension, Load};
pub use report::{Bounds, Heat, KeyReport, MapReport, PartReport, Report, ShardReport, Skew, TableReport};
pub use statements::{STATEMENTS_MAX, Sample, StatementReport, Statements, TEXT_BYTES_MAX};
pub use window::Call;

#[cfg(test)]
mod tests;
