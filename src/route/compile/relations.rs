//! What the relations that a statement names do besides: views, triggers, rules, defaults, cascades.

use crate::base::{Reason, Refusal, SqlState};
use crate::route::catalog::{Catalog, Effects};
use crate::route::router::Router;
use crate::sql::{Statement, Table, Utility};

use super::tables::{Standing, is_catalog};

#[derive(Debug, Default)]
pub(super) struct Relations {
    /// Of those that the catalog has.
    pub effects: Effects,
    /// The catalog is known and lacks one of them: temporary, or newer.
    pub unknown: bool,
    /// Some are not PostgreSQL's own.
    pub any: bool,
    /// An UPDATE of `pg_settings` is set_config.
    pub writes_settings: bool,
}

impl Relations {
    pub fn of(it: &Statement, catalog: &Catalog) -> Relations {
        let mut relations = Relations::default();
        let copies = matches!(it.utility, Some(Utility::CopyIn { .. }));
        for level in &it.levels {
            for (index, relation) in level.relations.iter().enumerate() {
                let Some(table) = &relation.table else { continue };
                let written = index == 0 && (level.write.is_some() || copies);
                relations.add(table, written, catalog);
            }
        }
        relations
    }

    fn add(&mut self, table: &Table, written: bool, catalog: &Catalog) {
        let found = if written { catalog.writing(table) } else { catalog.reading(table) };
        match found {
            Some(effects) => {
                self.any = true;
                self.effects = self.effects.and(effects);
            }
            None if is_catalog(table) => self.writes_settings |= written && table.name == "pg_settings",
            None => {
                self.any = true;
                self.unknown |= catalog.is_known();
            }
        }
    }
}

/// A table of which the shards say different things.
pub(super) fn unlike(
    router: &Router,
    it: &Statement,
    standings: &[Vec<Standing>],
    catalog: &Catalog,
) -> Option<Refusal> {
    // A table of a schema that lives on one shard is missing on the others, whatever its name is.
    let is_everywhere = |schema: &str| router.schema_shard(schema).is_none();
    let of_level = it.levels.iter().zip(standings);
    let mut listed = of_level.flat_map(|(level, standings)| level.relations.iter().zip(standings));
    let (name, difference) = listed.find_map(|(relation, standing)| match standing {
        Standing::Sharded { .. } | Standing::Reference => {
            catalog.difference(relation.table.as_ref()?, is_everywhere)
        }
        _ => None,
    })?;
    Some(
        Refusal::new(
            Reason::Difference,
            SqlState("55000"),
            format!("table \"{}\" is not the same on every shard", name.name),
        )
        .detail(difference.to_string())
        .hint("make its definition the same on every shard"),
    )
}
