//! What could be done about hot shards, ranges and keys, and why nothing can.

use super::report::Heat;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdviceKind {
    /// Statements that many shards have a part in are the load.
    Scatter,
    /// One key is the load: no split helps.
    SingleKey,
    /// Keys are handed out in order, so that the newest range has all writes.
    Sequential,
    /// A range would be even in two.
    Split,
    /// Slots that would make shards even, elsewhere.
    Move,
    /// Why there is nothing to say.
    None,
}

impl AdviceKind {
    pub fn label(self) -> &'static str {
        match self {
            AdviceKind::Scatter => "scatter",
            AdviceKind::SingleKey => "single_key",
            AdviceKind::Sequential => "sequential",
            AdviceKind::Split => "split",
            AdviceKind::Move => "move",
            AdviceKind::None => "none",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    pub kind: AdviceKind,
    pub heat: Heat,
    pub map: Option<String>,
    /// One sentence with its numbers, no key in it.
    pub text: String,
    /// In how many of the newest windows it held, of how many: `3 of 5`.
    pub windows: (u8, u8),
    /// Largest over mean load of shards now, and as predicted once it is done.
    pub max_over_mean: Option<(f64, f64)>,
    /// What to put into the configuration, or to run: for administrators alone, it may have keys in it.
    pub snippet: Option<String>,
}
