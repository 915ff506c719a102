//! From facts and the catalog to the rows that a statement touches.

use crate::base::ShardId;
use crate::route::catalog::{
    Catalog, Column, ColumnDefault, Effects, FIRST_NORMAL_OID, Relation, RelationKind, Schema,
};
use crate::route::footprint::{Footprint, Touched, TouchedTable, names_keys, table_id};
use crate::route::plan::{Class, Target};
use crate::route::router::Router;
use crate::sql::{CursorStatement, Statement, Table, Utility, Write};

use super::Splitter;
use super::effects::Calls;
use super::tables::{self, Standing, is_catalog};

/// `standings` are those of the configuration.
pub(super) fn footprint(
    router: &Router,
    it: &Statement,
    calls: &Calls<'_>,
    standings: &[Vec<Standing>],
    splitter: &Splitter<'_>,
    catalog: &Catalog,
) -> Footprint {
    match &it.utility {
        _ if it.explain == Some(false) => return Footprint::default(),
        // Nobody looks up what an EXECUTE in it names.
        Some(Utility::Session(_)) if it.explain.is_some() => return Footprint::all(),
        None
        | Some(
            Utility::CopyOut { server_file: false }
            | Utility::CopyIn { server_file: false }
            | Utility::Cursor(CursorStatement::Declare { .. }),
        ) => {}
        Some(utility) if touches_no_rows(utility) => return Footprint::default(),
        Some(_) => return Footprint::all(),
    }
    if it.unknown.is_some() {
        return Footprint::all();
    }
    let by_primary_key = tables::by_primary_key(router, it, standings, catalog);
    let standings = by_primary_key.as_deref().unwrap_or(standings);
    let class = only_class(router, it, standings, splitter, catalog);
    let (reads_all, writes_all) = calls.touch_tables(catalog);
    let mut reads = Reached { all: reads_all, ..Reached::default() };
    let mut writes = Reached { all: writes_all, ..Reached::default() };
    let copies = matches!(it.utility, Some(Utility::CopyIn { .. }));
    for (level, standings) in it.levels.iter().zip(standings) {
        for (index, (relation, standing)) in level.relations.iter().zip(standings).enumerate() {
            let Some(table) = &relation.table else { continue };
            let keyed = class.is_some() && matches!(standing, Standing::Sharded { .. });
            if index == 0 && (level.write.is_some() || copies) {
                let keeps = keeps_keys(level.write.as_ref(), class.as_ref());
                let keyed = keyed && keeps && stores_as_written(level.write.as_ref(), table, catalog);
                writes.written(table, keyed, catalog);
            } else {
                reads.read(table, keyed, catalog);
            }
        }
    }
    Footprint { reads: reads.touched(), writes: writes.touched(), class }
}

/// Of the session, or of the transaction.
fn touches_no_rows(utility: &Utility) -> bool {
    use Utility as U;
    match utility {
        U::Begin { .. } | U::Commit { .. } | U::Rollback { .. } | U::Savepoint | U::RollbackTo => true,
        U::Release | U::Set(_) | U::SetSnapshot | U::Show(_) | U::SetConstraints | U::Lock => true,
        U::SessionRelease | U::DiscardAll | U::DeallocateAll | U::Deallocate(_) => true,
        U::Listen(_) | U::Unlisten(_) | U::Notify | U::Cursor(_) => true,
        // What EXECUTE names is looked up, and has a plan of its own.
        U::Session(label) => matches!(*label, "PREPARE" | "EXECUTE"),
        U::TwoPhase | U::CopyIn { .. } | U::CopyOut { .. } | U::Ddl | U::CreateAs | U::Server => false,
    }
}

/// The class of all tables that have a key, where it names its keys one by one.
fn only_class(
    router: &Router,
    it: &Statement,
    standings: &[Vec<Standing>],
    splitter: &Splitter<'_>,
    catalog: &Catalog,
) -> Option<Class> {
    let Ok(Target::Keyed(keyed)) = tables::target(router, it, standings, splitter, catalog) else {
        return None;
    };
    let mut classes = keyed.classes.into_iter().filter(|it| it.map.is_some());
    let only = classes.next().filter(|it| names_keys(&it.keys))?;
    classes.next().is_none().then_some(only)
}

/// The rows that it writes have the keys by which it finds them. A row that ON CONFLICT updates is found by
/// whichever unique index it violates.
fn keeps_keys(write: Option<&Write>, class: Option<&Class>) -> bool {
    let is_key = |assigned: &String| {
        class.is_none_or(|it| it.column.split(',').any(|of| of.trim() == assigned.as_str()))
    };
    match write {
        Some(Write::Insert { conflict_assigns, .. }) => conflict_assigns.is_empty(),
        Some(Write::Update { assigns }) => !assigns.iter().any(is_key),
        Some(Write::Delete) => true,
        Some(Write::Merge) | None => false,
    }
}

/// Its rows have the keys that the text gives them. OVERRIDING USER VALUE has those of an identity column made anew.
fn stores_as_written(write: Option<&Write>, table: &Table, catalog: &Catalog) -> bool {
    let mut stores = true;
    for_each(catalog, table, |_, relation| {
        let key = relation.unique.first().filter(|it| it.primary);
        let is_made = |it: &Column| {
            it.default == ColumnDefault::Identity && key.is_some_and(|key| key.columns.contains(&it.number))
        };
        let made = matches!(write, Some(Write::Insert { .. })) && relation.columns.iter().any(is_made);
        stores &= !relation.key_rewritten && !made;
    });
    stores
}

/// Tables that were met, or the knowledge that it may be any.
#[derive(Default)]
struct Reached {
    all: bool,
    tables: Vec<TouchedTable>,
}

impl Reached {
    fn touched(self) -> Touched {
        if self.all { Touched::All } else { Touched::of(self.tables) }
    }

    fn read(&mut self, table: &Table, keyed: bool, catalog: &Catalog) {
        match catalog.reading(table) {
            Some(effects) => self.all |= effects.has(Effects::READS),
            // They are read on the primary.
            None if is_catalog(table) => return,
            None => self.all = true,
        }
        for_each(catalog, table, |schema, relation| self.add_read(schema, relation, keyed, 0));
    }

    fn add_read(&mut self, schema: &Schema, relation: &Relation, keyed: bool, depth: usize) {
        if relation.kind != RelationKind::View {
            self.add_roots(schema, relation, keyed, 0);
            return;
        }
        for oid in relation.view_of.iter().filter(|it| **it >= FIRST_NORMAL_OID) {
            match schema.relation(*oid).filter(|_| depth < DEPTH_MAX) {
                Some(base) => self.add_read(schema, base, false, depth + 1),
                None => self.all = true,
            }
        }
    }

    fn written(&mut self, table: &Table, keyed: bool, catalog: &Catalog) {
        match catalog.writing(table) {
            Some(effects) => self.all |= effects.has(Effects::TABLES),
            None => self.all = true,
        }
        for_each(catalog, table, |schema, relation| {
            // Which of its base tables it writes, its rule says.
            self.all |= relation.kind == RelationKind::View;
            self.add_roots(schema, relation, keyed, 0);
            self.add_cascades(schema, relation, 0);
        });
    }

    /// What it is a part of, in the end.
    fn add_roots(&mut self, schema: &Schema, relation: &Relation, keyed: bool, depth: usize) {
        if relation.parents.is_empty() || depth >= DEPTH_MAX {
            self.tables.push(TouchedTable { id: table_id(&relation.name.name), keyed });
        }
        for parent in &relation.parents {
            match schema.relation(*parent).filter(|_| depth < DEPTH_MAX) {
                // A part may have other keys than the whole.
                Some(parent) => self.add_roots(schema, parent, false, depth + 1),
                None => self.all = true,
            }
        }
    }

    /// Tables whose rows go or change with those of this one.
    fn add_cascades(&mut self, schema: &Schema, relation: &Relation, depth: usize) {
        let family = family(schema, relation);
        for other in schema.relations() {
            let cascades = other.foreign_keys.iter().any(|it| it.cascades && family.contains(&it.references));
            if !cascades {
                continue;
            }
            let known = self.tables.len();
            self.add_roots(schema, other, false, 0);
            let is_new = |it: &TouchedTable, before: &[TouchedTable]| {
                !before.iter().any(|of| of.id == it.id && !of.keyed)
            };
            let (before, added) = self.tables.split_at(known);
            if added.iter().any(|it| is_new(it, before)) {
                if depth < DEPTH_MAX {
                    self.add_cascades(schema, other, depth + 1);
                } else {
                    self.all = true;
                }
            }
        }
    }
}

/// Views of views, parts of parts, cascades of cascades.
const DEPTH_MAX: usize = 16;

/// It, what it is part of, and its parts.
fn family(schema: &Schema, relation: &Relation) -> Vec<u32> {
    let mut family = vec![relation.oid];
    let mut at = 0;
    while let Some(oid) = family.get(at).copied() {
        at += 1;
        let parents = schema.relation(oid).map(|it| it.parents.to_vec()).unwrap_or_default();
        let parts = schema.relations().iter().filter(|it| it.parents.contains(&oid)).map(|it| it.oid);
        for oid in parents.into_iter().chain(parts) {
            if !family.contains(&oid) {
                family.push(oid);
            }
        }
    }
    family
}

/// Each relation that the name may mean, on each shard.
fn for_each(catalog: &Catalog, table: &Table, mut then: impl FnMut(&Schema, &Relation)) {
    for schema in (0..).map_while(|it| catalog.shard(ShardId(it))) {
        for relation in schema.relations_named(table.schema.as_deref(), &table.name) {
            then(schema, relation);
        }
    }
}
