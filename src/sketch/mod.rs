//! Summaries of streams in bounded memory, with bounds: heavy hitters, distinct counts, split points, skew.
