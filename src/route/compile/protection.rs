//! What may be done for a statement's tables while they, or keys of theirs, are hot.

use crate::base::Access;
use crate::config::{TableProtection, TableRule};
use crate::route::catalog::Catalog;
use crate::route::footprint::table_id;
use crate::route::plan::{KeyWrite, Kind, Plan, Protected};
use crate::route::router::Router;
use crate::sql::{Clause, Statement, Table};

use super::effects::Calls;

/// `plan` is of the statement, but for this.
pub(super) fn protected(
    router: &Router,
    it: &Statement,
    plan: &Plan,
    calls: &Calls<'_>,
    catalog: &Catalog,
) -> Protected {
    if plan.kind != Kind::Statement || !plan.understood || it.explain.is_some() {
        return Protected::default();
    }
    let tables = || it.levels.iter().flat_map(|it| &it.relations).filter_map(|it| it.table.as_ref());
    match plan.access {
        Access::Write => {
            let writes = it.levels.iter().filter(|it| it.write.is_some());
            let mut written = writes.filter_map(|it| it.relations.first()?.table.as_ref());
            let Some(first) = written.next() else { return Protected::default() };
            let said = |it: &Table| router.table_protection(it).writes_at_once;
            let at_once = said(first).into_iter().chain(written.filter_map(said)).min();
            let of_one_row = is_of_one_row(router, first, catalog);
            let write = Some(KeyWrite { table: table_id(&first.name), at_once, of_one_row });
            Protected { write, ..Protected::default() }
        }
        Access::Read if is_shareable(it, plan, calls, catalog, tables()) => {
            let all = tables().map(|it| router.table_protection(it)).reduce(both);
            let TableProtection { share_reads, cache_ttl, .. } = all.unwrap_or_default();
            Protected { shareable: true, shares: share_reads, cache_ttl, write: None }
        }
        Access::Read => Protected::default(),
    }
}

/// Two sessions of one user with the same settings that ask it at one moment get the same rows, and the rows are those
/// of the tables that it names.
fn is_shareable<'t>(
    it: &Statement,
    plan: &Plan,
    calls: &Calls<'_>,
    catalog: &Catalog,
    mut tables: impl Iterator<Item = &'t Table> + Clone,
) -> bool {
    it.utility.is_none()
        && !it.asks_session_value
        && calls.are_alike()
        && plan.leaves.is_none()
        && !plan.primary_only
        && tables.clone().next().is_some()
        && !it.levels.iter().any(|it| it.clauses.contains(&Clause::TableSample))
        && tables.all(|it| catalog.shows_own_rows(it))
}

/// Keys of the table that are counted are its primary key's, and so of one row each. On one shard there are no others.
fn is_of_one_row(router: &Router, table: &Table, catalog: &Catalog) -> bool {
    match router.rule(table) {
        Some(TableRule::Sharded { key, .. }) => catalog.primary_key(table).is_some_and(|it| it == *key),
        Some(TableRule::Reference) => false,
        Some(TableRule::Shard(_)) | None => router.shard_count() == 1,
    }
}

/// What holds for a read of two tables.
fn both(a: TableProtection, b: TableProtection) -> TableProtection {
    TableProtection {
        share_reads: a.share_reads && b.share_reads,
        cache_ttl: a.cache_ttl.zip(b.cache_ttl).map(|(a, b)| a.min(b)),
        writes_at_once: None,
    }
}
