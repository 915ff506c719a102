//! What may be done for a statement's tables while they, or keys of theirs, are hot.

use crate::base::Access;
use crate::config::TableProtection;
use crate::route::catalog::Catalog;
use crate::route::plan::{Kind, Plan, Protected};
use crate::route::router::Router;
use crate::sql::{Statement, Table};

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
            let written = writes.filter_map(|it| it.relations.first()?.table.as_ref());
            let at_once = written.filter_map(|it| router.table_protection(it).writes_at_once);
            Protected { writes_at_once: at_once.min(), ..Protected::default() }
        }
        Access::Read if is_shareable(it, plan, calls, catalog, tables()) => {
            let all = tables().map(|it| router.table_protection(it)).reduce(both);
            let TableProtection { share_reads, cache_ttl, .. } = all.unwrap_or_default();
            Protected { shareable: true, shares: share_reads, cache_ttl, writes_at_once: None }
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
        && tables.all(|it| catalog.shows_own_rows(it))
}

/// What holds for a read of two tables.
fn both(a: TableProtection, b: TableProtection) -> TableProtection {
    TableProtection {
        share_reads: a.share_reads && b.share_reads,
        cache_ttl: a.cache_ttl.zip(b.cache_ttl).map(|(a, b)| a.min(b)),
        writes_at_once: None,
    }
}
