//! What merging rows of several shards has to know of the columns of tables. What is not known does not hold.

use super::{Catalog, Column, ColumnDefault, Oid, Relation, Schema};
use crate::merge::Collation;
use crate::sql::Table;

/// Every table has these, and no list of columns names them (manual, "System Columns").
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

impl Catalog {
    /// How texts compare that a statement makes of the columns of these tables, where it writes COLLATE with
    /// another collation than those that compare bytes (`collates`) or none at all.
    pub fn collation<'t>(
        &self,
        tables: impl Iterator<Item = &'t Table> + Clone,
        collates: bool,
    ) -> Collation {
        let all = |holds: &dyn Fn(&Schema) -> bool| self.is_known() && self.shards.iter().all(|it| holds(it));
        // Their bytes reach Keyway as they are in the database only where all is UTF-8.
        let by_bytes = |schema: &Schema| {
            schema.locale.encoding == "UTF8"
                && schema.locale.is_byte_order()
                && schema.texts_of(tables.clone(), |it| schema.is_byte_order(it))
        };
        if !collates && all(&by_bytes) {
            return Collation::Bytes;
        }
        let deterministic = |schema: &Schema| {
            schema.collations.values().all(|it| it.deterministic)
                || !collates && schema.texts_of(tables.clone(), |it| schema.is_deterministic(it))
        };
        if all(&deterministic) { Collation::Deterministic } else { Collation::Unknown }
    }

    /// What COPY takes without a list of columns, where every shard has them in this order: under whichever search
    /// path there is one table of the name.
    pub fn copied_columns(&self, table: &Table) -> Option<Vec<String>> {
        self.ordered_columns(table, |it| it.default != ColumnDefault::Generated)
    }

    /// What INSERT fills without a list of columns, likewise. A generated column has its place there, which takes
    /// DEFAULT.
    pub fn inserted_columns(&self, table: &Table) -> Option<Vec<String>> {
        self.ordered_columns(table, |_| true)
    }

    fn ordered_columns(&self, table: &Table, takes: impl Fn(&Column) -> bool) -> Option<Vec<String>> {
        let of = |schema: &Schema| {
            let mut named = schema.relations_named(table.schema.as_deref(), &table.name);
            let (only, None) = (named.next()?, named.next()) else { return None };
            let taken = only.columns.iter().filter(|it| takes(it));
            Some(taken.map(|it| it.name.to_string()).collect::<Vec<_>>())
        };
        let first = of(self.shards.first().filter(|_| self.is_known())?)?;
        self.shards.iter().all(|it| of(it).as_ref() == Some(&first)).then_some(first)
    }

    /// None of these tables has a column of this name on any shard.
    pub fn lacks_column<'t>(&self, tables: impl Iterator<Item = &'t Table> + Clone, name: &str) -> bool {
        let lacks = |it: &Relation| it.columns.iter().all(|it| &*it.name != name);
        self.is_known()
            && !SYSTEM_COLUMNS.contains(&name)
            && self.shards.iter().all(|it| all_known(it, tables.clone(), lacks))
    }
}

/// It holds for all relations that the names may mean, under whichever search path, and each name has one.
fn all_known<'t>(
    schema: &Schema,
    mut tables: impl Iterator<Item = &'t Table>,
    holds: impl Fn(&Relation) -> bool,
) -> bool {
    tables.all(|table| {
        let mut named = schema.relations_named(table.schema.as_deref(), &table.name).peekable();
        named.peek().is_some() && named.all(&holds)
    })
}

impl Schema {
    /// It holds for the collations of all columns of these tables, and of all domains, because a cast can give a
    /// value the collation of its domain.
    fn texts_of<'t>(
        &self,
        tables: impl Iterator<Item = &'t Table> + Clone,
        holds: impl Fn(Oid) -> bool,
    ) -> bool {
        // 0 stands for no collation: there is nothing to compare by it.
        let holds = |it: Oid| it == 0 || holds(it);
        self.types.values().all(|it| holds(it.collation))
            && all_known(self, tables, |it| it.columns.iter().all(|it| holds(it.collation)))
    }
}
