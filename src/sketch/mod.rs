//! Summaries of streams in bounded memory, with bounds: heavy hitters, distinct counts, split points, skew.

mod distinct;
mod heavy;
mod skew;
mod split;

pub use distinct::Distinct;
pub use heavy::{
    Estimate, HeavyEntry, HeavyHitters, HeavyKey, Home, Interval, KeyPlace, SLOTS_DEFAULT, Weight,
};
pub use skew::{coefficient_of_variation, gini, max_over_mean};
pub use split::{CANDIDATES, NoSplit, SAMPLES_MIN, SplitFinder, SplitPoint};
