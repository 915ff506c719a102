//! Which parts of a map are one row, and where rows of an earlier form of the map are now.

use std::collections::HashMap;

use crate::base::ShardId;

/// More rows than a screen has.
pub const ROWS_MAX: usize = 768;
/// Parts that are many are dealt to about so many rows, so that borders of shards have room.
const ROWS_WANTED: usize = 512;
/// Load of shards beyond these is in the rows alone.
pub const SHARDS_MAX: usize = 256;

/// What parts are, for their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    Slot,
    Range,
    ListEntry,
}

/// A part of a map as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutPart {
    pub shard: ShardId,
    /// Equal for parts that hold the same keys, of whatever form of the map: a hash of what describes the part. Never
    /// printed.
    pub identity: u64,
}

/// A map's parts in rows. Parts of one row are of one shard, as far as `ROWS_MAX` rows are enough for that.
#[derive(Clone, Debug)]
pub struct Layout {
    pub(super) kind: PartKind,
    /// Without pinned keys, which stand behind.
    pub(super) own_parts: u32,
    pub(super) identities: Vec<u64>,
    /// Of each part; not kept in files.
    pub(super) part_shards: Vec<ShardId>,
    pub(super) rows: Vec<RowSpan>,
    /// A hash of each shard's name, by `ShardId`.
    pub(super) shards: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowSpan {
    pub first: u32,
    /// One behind the last.
    pub end: u32,
    pub shard: ShardId,
}

impl Layout {
    /// `own_parts` of the parts are slots, ranges or entries; pinned keys follow. `shards` are hashes of the shards'
    /// names, by `ShardId`.
    pub fn new(kind: PartKind, own_parts: usize, parts: &[LayoutPart], shards: &[u64]) -> Layout {
        let mut shards = shards.to_vec();
        shards.truncate(SHARDS_MAX);
        Layout {
            kind,
            own_parts: own_parts.min(parts.len()) as u32,
            identities: parts.iter().map(|it| it.identity).collect(),
            part_shards: parts.iter().map(|it| it.shard).collect(),
            rows: rows(own_parts, parts),
            shards,
        }
    }

    /// `slots 0-7`, `range 3`, `pinned keys 0-1`.
    pub fn name(&self, first: u32, last: u32) -> String {
        let pinned = first.checked_sub(self.own_parts);
        let (one, many) = match (self.kind, pinned) {
            (_, Some(_)) => ("pinned key", "pinned keys"),
            (PartKind::Slot, _) => ("slot", "slots"),
            (PartKind::Range, _) => ("range", "ranges"),
            (PartKind::ListEntry, _) => ("list entry", "list entries"),
        };
        let from = pinned.map_or(0, |_| self.own_parts);
        match (first - from, last - from) {
            (first, last) if first == last => format!("{one} {first}"),
            (first, last) => format!("{many} {first}-{last}"),
        }
    }

    /// Whether what was recorded in one is right in the other as it is.
    pub(super) fn agrees(&self, other: &Layout) -> bool {
        let parts = |it: &Layout| (it.kind, it.own_parts);
        parts(self) == parts(other)
            && self.identities == other.identities
            && self.rows == other.rows
            && self.shards == other.shards
    }

    /// The row of each part.
    pub(super) fn row_of_parts(&self) -> Vec<u16> {
        let rows = (0..=u16::MAX).zip(&self.rows);
        rows.flat_map(|(row, span)| std::iter::repeat_n(row, (span.end - span.first) as usize)).collect()
    }
}

/// Runs of as few parts as `ROWS_MAX` allows, at multiples of their length, cut where the shard changes and before
/// the pinned keys.
fn rows(own_parts: usize, parts: &[LayoutPart]) -> Vec<RowSpan> {
    let mut length = parts.len().div_ceil(ROWS_WANTED).max(1).next_power_of_two();
    if parts.len() <= ROWS_MAX {
        length = 1;
    }
    while length < parts.len() {
        let rows = runs(own_parts, parts, length, true);
        if rows.len() <= ROWS_MAX {
            return rows;
        }
        length *= 2;
    }
    // Shards that take turns: a row is named after the shard of its first part.
    let length = parts.len().div_ceil(ROWS_WANTED).max(1).next_power_of_two();
    runs(own_parts, parts, length, false)
}

fn runs(own_parts: usize, parts: &[LayoutPart], length: usize, by_shard: bool) -> Vec<RowSpan> {
    let mut rows: Vec<RowSpan> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        match rows.last_mut() {
            Some(row) if at % length != 0 && at != own_parts && !(by_shard && row.shard != part.shard) => {
                row.end = at as u32 + 1;
            }
            _ => rows.push(RowSpan { first: at as u32, end: at as u32 + 1, shard: part.shard }),
        }
    }
    rows
}

/// How rows of one layout come from those of another.
#[derive(Debug)]
pub(super) struct Conversion {
    /// For each row, the rows that it had parts of with the share of each; `None` where a part was not there.
    pub rows: Vec<Option<Vec<(u16, f64)>>>,
    pub shards: Vec<Option<u16>>,
}

impl Conversion {
    /// `None` where no part is in both.
    pub fn new(old: &Layout, new: &Layout) -> Option<Conversion> {
        let by_identity: HashMap<u64, usize> =
            old.identities.iter().enumerate().map(|(at, it)| (*it, at)).collect();
        let old_rows = old.row_of_parts();
        let mut sources = |span: &RowSpan| {
            let mut counts: Vec<(u16, u32)> = Vec::new();
            for part in span.first..span.end {
                let identity = new.identities.get(part as usize)?;
                let row = *old_rows.get(*by_identity.get(identity)?)?;
                match counts.iter_mut().find(|it| it.0 == row) {
                    Some(count) => count.1 += 1,
                    None => counts.push((row, 1)),
                }
            }
            let share = |(row, count): (u16, u32)| {
                let span = old.rows.get(usize::from(row))?;
                Some((row, f64::from(count) / f64::from(span.end - span.first)))
            };
            counts.into_iter().map(share).collect::<Option<Vec<_>>>()
        };
        let rows: Vec<_> = new.rows.iter().map(&mut sources).collect();
        let place = |name: &u64| old.shards.iter().position(|it| it == name).map(|it| it as u16);
        let shards = new.shards.iter().map(place).collect();
        rows.iter().any(Option::is_some).then_some(Conversion { rows, shards })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(shards: impl Iterator<Item = u16>) -> Vec<LayoutPart> {
        shards.enumerate().map(|(at, it)| LayoutPart { shard: ShardId(it), identity: at as u64 }).collect()
    }

    fn spans(parts: &[LayoutPart], own_parts: usize) -> Vec<RowSpan> {
        let layout = Layout::new(PartKind::Slot, own_parts, parts, &[]);
        let mut next = 0;
        for row in &layout.rows {
            assert!(row.first == next && row.end > row.first, "{row:?}");
            next = row.end;
        }
        assert_eq!(next as usize, parts.len());
        assert!(layout.rows.len() <= ROWS_MAX, "{} rows", layout.rows.len());
        layout.rows
    }

    #[test]
    fn rows_are_runs_of_one_shard_and_never_too_many() {
        assert_eq!(spans(&slots((0..4096).map(|it| it * 4 / 4096)), 4096).len(), 512);
        let thirds = slots((0..4096u32).map(|it| (it * 3 / 4096) as u16));
        let rows = spans(&thirds, 4096);
        assert_eq!(rows.len(), 514);
        for row in rows {
            let shards = &thirds[row.first as usize..row.end as usize];
            assert!(shards.iter().all(|it| it.shard == row.shard));
        }
        // Slots that shards take in turn.
        assert_eq!(spans(&slots((0..4096).map(|it| it % 8)), 4096).len(), 512);
        assert_eq!(spans(&slots((0..65_536u32).map(|it| (it / 100 % 7) as u16)), 65_536).len(), 717);
        assert_eq!(spans(&slots((0..700).map(|it| it % 2)), 700).len(), 700);
        assert_eq!(spans(&slots((0..1).map(|_| 0)), 1).len(), 1);
        assert_eq!(spans(&[], 0).len(), 0);
    }

    #[test]
    fn pinned_keys_have_rows_of_their_own() {
        let rows = spans(&slots((0..4100).map(|_| 0)), 4096);
        assert!(rows.iter().any(|it| it.end == 4096) && rows.iter().any(|it| it.first == 4096));
        let layout = Layout::new(PartKind::Range, 3, &slots((0..5).map(|_| 0)), &[]);
        assert_eq!((layout.name(0, 2), layout.name(1, 1)), ("ranges 0-2".to_owned(), "range 1".to_owned()));
        assert_eq!(
            (layout.name(3, 4), layout.name(4, 4)),
            ("pinned keys 0-1".to_owned(), "pinned key 1".to_owned())
        );
    }

    #[test]
    fn rows_come_from_the_rows_that_had_their_parts() {
        let old = Layout::new(PartKind::Slot, 4096, &slots((0..4096).map(|_| 0)), &[7, 8]);
        let moved =
            Layout::new(PartKind::Slot, 4096, &slots((0..4096).map(|it| u16::from(it >= 100))), &[8, 9]);
        let conversion = Conversion::new(&old, &moved).unwrap();
        assert_eq!(conversion.shards, [Some(1), None]);
        // Slots 96 to 103 were one row and are two.
        let cut = moved.rows.iter().position(|it| it.first == 96).unwrap();
        assert_eq!(conversion.rows[cut], Some(vec![(12, 0.5)]));
        assert_eq!(conversion.rows[cut + 1], Some(vec![(12, 0.5)]));
        for row in 0..old.rows.len() as u16 {
            let all = conversion.rows.iter().flatten().flatten().filter(|it| it.0 == row);
            assert!((all.map(|it| it.1).sum::<f64>() - 1.0).abs() < 1e-9);
        }
        let mut other = slots((0..4096).map(|_| 0));
        other.iter_mut().for_each(|it| it.identity += 1_000_000);
        assert!(Conversion::new(&old, &Layout::new(PartKind::Slot, 4096, &other, &[])).is_none());
    }
}
