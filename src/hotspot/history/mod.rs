//! Load of maps' parts for up to five weeks, in bounded memory: the newest minute in spans of 10 s, older ones in ever
//! longer spans, as TiDB's key visualizer keeps them. Time comes in from outside.
//!
//! ```text
//! record -> 6 x 10 s -> 60 x 1 min -> 210 x 2 min -> 160 x 6 min -> 288 x 30 min -> 168 x 4 h -> forgotten
//! ```
//! What a level has no room for goes into the newest span of the next, or begins one there. So every moment is in
//! one span, and a span knows how much of it was covered: a gap is nothing recorded, not a low rate.

mod draw;
mod file;
mod layout;
mod packed;
mod recorded;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use draw::ShardSeries;
pub use file::{HistoryFileError, decode_histories, encode_histories};
pub use layout::{Layout, LayoutPart, PartKind, ROWS_MAX, SHARDS_MAX};

use super::heatmap::Mark;
use super::load::Load;
use layout::Conversion;
use recorded::{MEASURES, Recorded};

struct Level {
    span_s: u64,
    columns_max: usize,
}

const LEVELS: [Level; 6] = [
    Level { span_s: 10, columns_max: 6 },
    Level { span_s: 60, columns_max: 60 },
    Level { span_s: 120, columns_max: 210 },
    Level { span_s: 360, columns_max: 160 },
    Level { span_s: 1_800, columns_max: 288 },
    Level { span_s: 14_400, columns_max: 168 },
];

const COLUMNS_MAX: usize = 892;

/// What the columns of one map may take, 11.3 MB; a hash map of 4,096 slots on four shards that is busy in all of
/// them for five weeks takes 6 MB.
pub const MAP_BYTES_MAX: usize =
    COLUMNS_MAX * (size_of::<Recorded>() + MEASURES * 2 * (ROWS_MAX + SHARDS_MAX) + ROWS_MAX / 8);

pub const MARKS_MAX: usize = 512;
const MARK_BYTES_MAX: usize = 256;

/// A clock that goes back by less waits until it is where it was; one that goes back by more was wrong before.
const STEP_BACK_MAX_S: u64 = 600;

/// Of one database.
#[derive(Clone, Debug, Default)]
pub struct History {
    maps: Vec<(String, MapHistory)>,
    /// The oldest first.
    marks: VecDeque<Mark>,
}

#[derive(Clone, Debug)]
struct MapHistory {
    layout: Layout,
    levels: [VecDeque<Recorded>; LEVELS.len()],
}

impl History {
    /// Takes the maps as they are now, in the order of the configuration. What was recorded of a map of the same name
    /// stays as far as it has the same parts; what was recorded of others is dropped.
    pub fn set_maps(&mut self, maps: impl IntoIterator<Item = (String, Layout)>) {
        let mut before = std::mem::take(&mut self.maps);
        let map = |(name, layout): (String, Layout)| {
            let map = match before.iter().position(|it| it.0 == name) {
                Some(at) => before.swap_remove(at).1.with_layout(layout),
                None => MapHistory::new(layout),
            };
            (name, map)
        };
        self.maps = maps.into_iter().map(map).collect();
    }

    /// Loads of a map's parts in a window, reads and writes apart, in seconds of Unix time; parts without load may be
    /// left out. Whether it was recorded: not where there is no such map, where the window is empty, and where
    /// it begins before the end of another.
    pub fn record(
        &mut self,
        map: &str,
        from_s: u64,
        to_s: u64,
        loads: impl IntoIterator<Item = (u32, Load, Load)>,
    ) -> bool {
        let Some((_, map)) = self.maps.iter_mut().find(|it| it.0 == map) else { return false };
        map.record((from_s, to_s), loads.into_iter())
    }

    pub fn mark(&mut self, mut mark: Mark) {
        let end = mark.text.floor_char_boundary(MARK_BYTES_MAX);
        mark.text.truncate(end);
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
    }

    /// On the heap, of all maps' columns.
    pub fn bytes(&self) -> usize {
        self.maps.iter().map(|it| it.1.bytes()).sum()
    }

    fn map(&self, name: &str) -> Option<&MapHistory> {
        self.maps.iter().find(|it| it.0 == name).map(|it| &it.1)
    }
}

impl MapHistory {
    fn new(layout: Layout) -> MapHistory {
        MapHistory { layout, levels: Default::default() }
    }

    fn with_layout(mut self, layout: Layout) -> MapHistory {
        if !self.layout.agrees(&layout) {
            let Some(conversion) = Conversion::new(&self.layout, &layout) else {
                return MapHistory::new(layout);
            };
            let old = &self.layout;
            let columns = self.levels.iter_mut().flat_map(VecDeque::iter_mut);
            columns.for_each(|it| *it = it.convert(&conversion, old));
        }
        self.layout = layout;
        self
    }

    fn record(&mut self, span: (u64, u64), loads: impl Iterator<Item = (u32, Load, Load)>) -> bool {
        let newest_s = self.levels.iter().filter_map(|it| Some(it.back()?.to_s)).max().unwrap_or(0);
        if newest_s > span.0.saturating_add(STEP_BACK_MAX_S) {
            self.levels.iter_mut().for_each(|it| it.retain(|it| it.to_s <= span.0));
        } else if newest_s > span.0 {
            return false;
        }
        if span.0 >= span.1 {
            return false;
        }
        let column = Recorded::new(&self.layout, span, loads);
        self.push(column);
        true
    }

    fn push(&mut self, column: Recorded) {
        let mut column = Some(column);
        for (level, columns) in LEVELS.iter().zip(&mut self.levels) {
            let Some(next) = column.take() else { return };
            let is_same_span = |it: &&mut Recorded| {
                it.from_s / level.span_s == next.from_s / level.span_s && it.known == next.known
            };
            match columns.back_mut().filter(is_same_span) {
                Some(newest) => newest.append(&next, &self.layout),
                None => columns.push_back(next),
            }
            if columns.len() > level.columns_max {
                column = columns.pop_front();
            }
        }
    }

    /// The oldest first.
    fn columns(&self) -> impl Iterator<Item = (&'static Level, &Recorded)> {
        LEVELS.iter().zip(&self.levels).rev().flat_map(|(level, it)| it.iter().map(move |it| (level, it)))
    }

    fn bytes(&self) -> usize {
        self.columns().map(|(_, it)| size_of::<Recorded>() + it.bytes()).sum()
    }
}
