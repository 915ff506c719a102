//! Load of a map's key space over time, for drawing.

use super::load::Load;
use crate::base::ShardId;

/// What a cell is coloured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Calls,
    Reads,
    Writes,
    Rows,
    Bytes,
    Time,
    Errors,
}

impl Metric {
    pub const ALL: [Metric; 7] = [
        Metric::Calls,
        Metric::Reads,
        Metric::Writes,
        Metric::Rows,
        Metric::Bytes,
        Metric::Time,
        Metric::Errors,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Metric::Calls => "calls",
            Metric::Reads => "reads",
            Metric::Writes => "writes",
            Metric::Rows => "rows",
            Metric::Bytes => "bytes",
            Metric::Time => "time",
            Metric::Errors => "errors",
        }
    }

    pub fn of_label(label: &str) -> Option<Metric> {
        Metric::ALL.into_iter().find(|it| it.label() == label)
    }

    pub fn of(self, reads: &Load, writes: &Load) -> u64 {
        match self {
            Metric::Calls => reads.calls + writes.calls,
            Metric::Reads => reads.calls,
            Metric::Writes => writes.calls,
            Metric::Rows => reads.rows + writes.rows,
            Metric::Bytes => reads.bytes + writes.bytes,
            Metric::Time => reads.time_us + writes.time_us,
            Metric::Errors => reads.errors + writes.errors,
        }
    }
}

/// Time across (oldest first), key space down (in the order of the map).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMap {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    /// Row by row, per second; `None` where nothing was recorded.
    pub cells: Vec<Option<f32>>,
    pub marks: Vec<Mark>,
    pub shape: Shape,
}

/// From when to when, in seconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub from_s: u64,
    pub to_s: u64,
}

/// A run of parts of one shard: slots 0 to 63.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub first_part: u32,
    pub last_part: u32,
    pub shard: ShardId,
    /// `slots 0-63`.
    pub name: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub at_s: u64,
    pub kind: MarkKind,
    /// `shard s1: 10.0.0.2:5432 is the primary`.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    Start,
    Reload,
    Failover,
}

/// The shape that a map's load has, as one sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Too little was recorded.
    #[default]
    Unknown,
    Even,
    /// Times of much and of little load, alike all over the keys.
    Striped,
    /// Few parts have much of it all the time.
    Line,
    /// What is hot wanders through the keys.
    Diagonal,
    /// Some parts have more than others, none of them much of it.
    Uneven,
}

impl Shape {
    pub fn label(self) -> &'static str {
        match self {
            Shape::Unknown => "unknown",
            Shape::Even => "even",
            Shape::Striped => "striped",
            Shape::Line => "one line",
            Shape::Diagonal => "diagonal",
            Shape::Uneven => "uneven",
        }
    }

    /// What it means, for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Shape::Unknown => "Too little load was recorded to name a shape.",
            Shape::Even => "Even: all parts of the key space have about the same load.",
            Shape::Striped => "Striped: load comes and goes with the time, over all keys alike.",
            Shape::Line => "One line: few parts have much of the load all the time.",
            Shape::Diagonal => {
                "Diagonal: the load moves through the key space, as keys that are handed out in order make it."
            }
            Shape::Uneven => {
                "Uneven: some parts of the key space have more load than others, and no few parts have much of it."
            }
        }
    }
}
