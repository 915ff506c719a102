//! What a family of metrics is, whether it has a series yet or not: for the catalogue.

/// How a family's values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Goes up only; its rate is what tells.
    Counter,
    Gauge,
    /// Has `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl FamilyKind {
    pub fn label(self) -> &'static str {
        match self {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: String,
    pub kind: FamilyKind,
    /// Names, in the order in which the code gives their values.
    pub labels: Vec<String>,
    /// One sentence.
    pub help: String,
}

impl Family {
    /// The unit that the name ends in, or what is counted.
    pub fn unit(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(&self.name);
        match name.rsplit('_').next() {
            Some("seconds") => "seconds",
            Some("bytes") => "bytes",
            Some("ratio" | "lower" | "upper" | "gini" | "variation" | "direction" | "mean") => "ratio",
            _ => "",
        }
    }
}
