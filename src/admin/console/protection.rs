//! SHOW PROTECTION.

use super::tables::{Row, int, n, opt, sorted, t, text};
use crate::client::Shared;
use crate::wire::Column;

pub(super) const PROTECTION: &[Column] = &[
    text("database"),
    text("hot_share"),
    text("dry_run"),
    int("hot_keys"),
    int("reads_asked"),
    int("reads_shared"),
    int("reads_kept"),
    int("reads_alone"),
    int("reads_too_long"),
    int("kept_answers"),
    int("kept_bytes"),
    int("writes_at_once"),
    int("writes_waited"),
    int("writes_dry_run"),
    int("writes_bypassed"),
    int("writes_full"),
    int("writes_timed_out"),
    int("writes_waiting"),
];

/// Of databases that protect something.
pub(super) fn protection(shared: &Shared) -> Vec<Row> {
    let of = |database: &crate::client::Database| {
        let it = database.protection.as_ref()?;
        let (terms, usage) = (it.terms(), it.usage(&database.hotspots));
        let mut row = vec![
            t(&database.name),
            opt(terms.hot_share, |it| t(&it.to_string())),
            t(if terms.dry_run { "yes" } else { "no" }),
            n(usage.hot_keys as u64),
        ];
        row.extend(it.metrics.reads().map(|(_, count)| n(count)));
        row.extend([n(usage.kept as u64), n(usage.kept_bytes)]);
        row.extend(it.metrics.writes().map(|(_, count)| n(count)));
        row.push(n(usage.waiting as u64));
        Some(row)
    };
    sorted(shared).into_iter().filter_map(|it| of(it)).collect()
}
