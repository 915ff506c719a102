//! Rows of a database of one shard are told apart by primary keys, as those of several shards are by shard keys.

use crate::route::catalog::{Catalog, ColumnDefault};
use crate::route::router::Router;
use crate::shard::KeyType;
use crate::sql::{Relation, Statement, Table};

use super::Standing;

/// Tables of a database of one shard stand there with their primary keys, of one column; `None` where none has one.
pub(in crate::route::compile) fn by_primary_key(
    router: &Router,
    it: &Statement,
    standings: &[Vec<Standing>],
    catalog: &Catalog,
) -> Option<Vec<Vec<Standing>>> {
    if router.shard_count() != 1 {
        return None;
    }
    let mut found = false;
    let mut of = |relation: &Relation, standing: &Standing| {
        let key = match standing {
            Standing::Unlisted(table) => primary_key(router, table, catalog),
            Standing::Fixed { .. } => relation.table.as_ref().and_then(|it| primary_key(router, it, catalog)),
            Standing::Sharded { .. } => return standing.clone(),
            _ => None,
        };
        found |= key.is_some();
        match key {
            Some((map, column)) => Standing::Sharded { map, key: vec![column] },
            // Nothing is said of its rows.
            None => Standing::Derived,
        }
    };
    let levels = it.levels.iter().zip(standings);
    let standings = levels
        .map(|(level, of_level)| level.relations.iter().zip(of_level).map(|(a, b)| of(a, b)).collect())
        .collect();
    found.then_some(standings)
}

fn primary_key(router: &Router, table: &Table, catalog: &Catalog) -> Option<(usize, String)> {
    let mut named = catalog.schema()?.relations_named(table.schema.as_deref(), &table.name);
    let relation = named.next()?;
    // Two tables of one name may have keys that differ.
    if named.next().is_some() || !relation.parents.is_empty() {
        return None;
    }
    let [number] = relation.unique.first().filter(|it| it.primary)?.columns[..] else { return None };
    let column = relation.columns.iter().find(|it| it.number == number)?;
    let key_type = KeyType::of_oid(column.type_oid)?;
    // What is stored is not what is written, where it is cut, rounded or computed.
    if column.typmod != -1 || column.default == ColumnDefault::Generated {
        return None;
    }
    // Texts may be equal there that are not the same.
    if key_type.is_collated() && !catalog.schema()?.is_deterministic(column.collation) {
        return None;
    }
    Some((router.primary_key_map(key_type)?, column.name.to_string()))
}
