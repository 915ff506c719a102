//! What is to be done with the shards' rows, as plain data: the plan writes it, `Merger` follows it.

use super::aggregate::Aggregate;
use super::expression::Expression;
use super::types::Format;

/// What the planner knows of how texts compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Collation {
    /// Collation C or POSIX: by bytes.
    Bytes,
    /// Texts are equal where their bytes are, as in every deterministic collation; their order is not known.
    Deterministic,
    /// Texts of different bytes may be equal. Of no concern to types that have no collation.
    #[default]
    Unknown,
}

/// One expression of ORDER BY, computed by the shards into a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SortKey {
    pub column: usize,
    pub descending: bool,
    /// As resolved: PostgreSQL's default is last where ascending and first where descending.
    pub nulls_first: bool,
    pub collation: Collation,
}

impl SortKey {
    /// Ascending, NULLs last.
    pub fn ascending(column: usize) -> SortKey {
        SortKey { column, descending: false, nulls_first: false, collation: Collation::Deterministic }
    }

    #[must_use]
    pub fn descending(self) -> SortKey {
        SortKey { descending: true, nulls_first: true, ..self }
    }

    #[must_use]
    pub fn by_bytes(self) -> SortKey {
        SortKey { collation: Collation::Bytes, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Distinct {
    #[default]
    No,
    /// DISTINCT and UNION: one of each set of rows that are equal in the visible columns.
    Rows,
    /// DISTINCT ON: the first of each set of rows that are equal in so many leading sort keys.
    On(usize),
}

/// LIMIT, OFFSET and FETCH, as numbers. A shard is asked for the first `offset + count` rows at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Window {
    pub offset: u64,
    /// `None`: all.
    pub count: Option<u64>,
    /// FETCH ... WITH TIES: also what is equal to the last row in the sort keys.
    pub with_ties: bool,
}

/// One column of the result of a grouping.
#[derive(Clone, Debug)]
pub struct Output {
    pub name: Box<str>,
    /// Over the row of group keys followed by aggregates.
    pub expression: Expression,
    /// `atttypmod` of the result, -1 for none. That of a group key that is shown as it is, is its column's.
    pub type_mod: i32,
}

/// GROUP BY over rows that the shards have grouped: equal groups become one.
#[derive(Clone, Debug, Default)]
pub struct Grouping {
    /// Columns of the shards' rows. None: one group, also of no rows.
    pub keys: Vec<usize>,
    pub aggregates: Vec<Aggregate>,
    pub having: Option<Expression>,
    /// The row that is made of each group: visible columns, sort keys.
    pub outputs: Vec<Output>,
    /// Over `outputs`. None: groups come in the order in which they were found, which is that of
    /// `MergeSpec::sorted` where this begins with all group keys.
    pub sort: Vec<SortKey>,
}

/// In PostgreSQL's order: the shards' rows, grouping, HAVING, outputs, DISTINCT, ORDER BY, LIMIT.
#[derive(Clone, Debug, Default)]
pub struct MergeSpec {
    /// The order in which *each shard* sends its rows. None: rows follow one another as they come (UNION
    /// ALL).
    pub sorted: Vec<SortKey>,
    pub grouping: Option<Grouping>,
    pub distinct: Distinct,
    /// Of the texts that DISTINCT and GROUP BY tell apart.
    pub collation: Collation,
    pub window: Window,
    /// What the client sees, in this order: columns of the shards' rows, or of `Grouping::outputs`.
    pub visible: Vec<usize>,
}

/// Result formats as Bind has them: none (text), one for all columns, or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ResultFormats(pub Vec<Format>);

impl ResultFormats {
    pub fn of(&self, column: usize) -> Format {
        let formats = &self.0;
        if formats.len() == 1 { formats[0] } else { formats.get(column).copied().unwrap_or_default() }
    }
}

impl MergeSpec {
    /// How many rows of each shard are enough to show `rows` of the result; `None`: all of them.
    pub fn rows_max_of_a_shard(&self, rows: u64) -> Option<u64> {
        let as_they_come = self.grouping.is_none() && matches!(self.distinct, Distinct::No);
        // One more lets the merge see what follows in order.
        as_they_come.then(|| rows.saturating_add(self.window.offset).saturating_add(1))
    }

    /// The result formats to ask each shard for, for `columns` columns, where the client asked for `client`.
    /// What is passed on as it is comes in the client's format, what is only compared in binary. What is
    /// computed with comes as text where some of the result goes out as text: its form shows the session's
    /// DateStyle and IntervalStyle, and what is not ISO is refused, not rewritten.
    pub fn shard_formats(&self, columns: usize, client: &ResultFormats) -> ResultFormats {
        let as_text = (0..self.visible.len()).any(|it| client.of(it) == Format::Text);
        let computed = if self.grouping.is_some() && as_text { Format::Text } else { Format::Binary };
        let mut formats = vec![computed; columns];
        for (shown, column) in self.visible.iter().enumerate() {
            let passed = match &self.grouping {
                None => Some(*column),
                Some(grouping) => grouping.passed_column(*column),
            };
            if let Some(format) = passed.and_then(|it| formats.get_mut(it)) {
                *format = client.of(shown);
            }
        }
        ResultFormats(formats)
    }
}

impl Grouping {
    /// The shards' column whose bytes an output shows as they are.
    fn passed_column(&self, output: usize) -> Option<usize> {
        let Expression::Column(at) = self.outputs.get(output)?.expression else { return None };
        match at.checked_sub(self.keys.len()) {
            None => self.keys.get(at).copied(),
            Some(at) => self.aggregates.get(at)?.passed_column(),
        }
    }
}
