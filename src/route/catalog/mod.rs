//! What the shards' own catalogs say of a database: an immutable snapshot that `catalog` fills and swaps.
//! Nothing here asks a server or a clock.
//!
//! Names are looked up in two ways. [`Schema::resolve`] gives what a name means under one `search_path`.
//! What a statement may do is asked of every object of its name ([`Catalog::reading`], [`Catalog::calling`]):
//! that holds under every `search_path`, also under those that functions set for themselves, so no plan
//! depends on one for it.

mod columns;
mod difference;
mod effects;
mod rows;
mod search_path;

pub use difference::Difference;
pub use effects::Effects;
pub use rows::{LOCAL_PATH, Part, RowError, SchemaReader};
pub use search_path::{SearchPath, SearchPaths};

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::ShardId;
use crate::sql::{Table, Volatility};

/// PostgreSQL's object identifiers; those of users begin at 16,384 (`FirstNormalObjectId`).
pub type Oid = u32;

pub const FIRST_NORMAL_OID: Oid = 16_384;

/// The catalog of a database, over all its shards.
#[derive(Debug, Default)]
pub struct Catalog {
    version: u64,
    /// In the order of the config; empty as long as not every shard has been read.
    shards: Vec<Arc<Schema>>,
    /// Relations that are not the same on every shard.
    differences: BTreeMap<QualifiedName, Difference>,
    /// Functions that are not the same on every shard.
    unlike_functions: Vec<QualifiedName>,
}

/// Schema and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QualifiedName {
    pub schema: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What calling a function means, over all functions of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called {
    pub effects: Effects,
    /// The most volatile one's.
    pub volatility: Volatility,
}

impl Catalog {
    /// Of every shard, in the order of the config, with their names.
    pub fn new(shards: Vec<Arc<Schema>>, names: &[String]) -> Catalog {
        let mut catalog = Catalog::default();
        let name = |at: usize| names.get(at).map_or("", String::as_str);
        if let Some(first) = shards.first() {
            for (index, other) in shards.iter().enumerate().skip(1) {
                let found = difference::of(first, name(0), other, name(index));
                for (name, difference) in found.relations {
                    catalog.differences.entry(name).or_insert(difference);
                }
                catalog.unlike_functions.extend(found.functions);
            }
            let version = shards.iter().fold(0u64, |it, of| it.rotate_left(7) ^ of.version);
            // Zero is the version of nothing.
            catalog.version = version.max(1);
        }
        catalog.shards = shards;
        catalog
    }

    /// Differs where the content does; zero where nothing is known.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn is_known(&self) -> bool {
        !self.shards.is_empty()
    }

    /// That of the first shard, which is that of all where [`Catalog::difference`] names none.
    pub fn schema(&self) -> Option<&Schema> {
        self.shards.first().map(|it| &**it)
    }

    pub fn shard(&self, shard: ShardId) -> Option<&Schema> {
        self.shards.get(usize::from(shard.0)).map(|it| &**it)
    }

    pub fn differences(&self) -> impl Iterator<Item = (&QualifiedName, &Difference)> {
        self.differences.iter()
    }

    /// What is not the same on every shard of a relation that this name may mean, in schemas that are to be
    /// on all of them.
    pub fn difference(
        &self,
        table: &Table,
        is_everywhere: impl Fn(&str) -> bool,
    ) -> Option<(&QualifiedName, &Difference)> {
        let named = |it: &QualifiedName| {
            *it.name == *table.name && table.schema.as_deref().is_none_or(|schema| schema == &*it.schema)
        };
        self.differences.iter().find(|(name, _)| named(name) && is_everywhere(&name.schema))
    }

    /// What a read of the relation may do; `None` where none has this name.
    pub fn reading(&self, table: &Table) -> Option<Effects> {
        self.effects_of(table, |it| it.reads)
    }

    /// A read of the name gives rows that the relation itself holds, whoever asks and when: not those of a view or a foreign
    /// server, nor what policies leave of them.
    pub fn shows_own_rows(&self, table: &Table) -> bool {
        use RelationKind as K;
        let own = |it: &Relation| {
            matches!(it.kind, K::Table | K::Partitioned | K::MaterializedView) && !it.row_security
        };
        let named = |it: &Schema| {
            it.relations_named(table.schema.as_deref(), &table.name).map(own).reduce(|a, b| a && b)
        };
        self.shards.iter().filter_map(|it| named(it)).reduce(|a, b| a && b).unwrap_or(false)
    }

    /// The columns of its primary key, in its order; `None` where it has none, or tables of this name differ.
    pub fn primary_key(&self, table: &Table) -> Option<Vec<&str>> {
        let mut named = self.schema()?.relations_named(table.schema.as_deref(), &table.name);
        let only = named.next().filter(|_| named.next().is_none())?;
        let numbers = &only.unique.first().filter(|it| it.primary)?.columns;
        let name = |number: &i16| only.columns.iter().find(|it| it.number == *number).map(|it| &*it.name);
        numbers.iter().map(name).collect()
    }

    /// What a write of the relation may do, by its triggers, rules, defaults, checks and cascades.
    pub fn writing(&self, table: &Table) -> Option<Effects> {
        self.effects_of(table, |it| it.writes)
    }

    fn effects_of(&self, table: &Table, of: impl Fn(&Relation) -> Effects + Copy) -> Option<Effects> {
        let named = |it: &Schema| {
            it.relations_named(table.schema.as_deref(), &table.name).map(of).reduce(Effects::and)
        };
        self.shards.iter().filter_map(|it| named(it)).reduce(Effects::and)
    }

    /// What calling the function may do; `None` where none of the user's has this name.
    pub fn calling(&self, schema: Option<&str>, name: &str) -> Option<Called> {
        let one = |it: &Function| Called { effects: it.effects, volatility: it.volatility };
        let both = |a: Called, b: Called| Called {
            effects: a.effects.and(b.effects),
            volatility: a.volatility.max(b.volatility),
        };
        let named = |it: &Schema| it.functions_named(schema, name).map(one).reduce(both);
        let mut called = self.shards.iter().filter_map(|it| named(it)).reduce(both)?;
        let same = |it: &QualifiedName| &*it.name == name && schema.is_none_or(|of| of == &*it.schema);
        if called.volatility == Volatility::Immutable && self.unlike_functions.iter().any(same) {
            // Immutable on each, but not the same on all.
            called.volatility = Volatility::Stable;
        }
        Some(called)
    }

    /// Whether PostgreSQL itself has a function of this name; only of those that no list of Keyway's has.
    pub fn is_built_in(&self, name: &str) -> bool {
        self.schema().is_some_and(|it| it.system_functions.binary_search_by(|it| (**it).cmp(name)).is_ok())
    }

    /// Custom settings that functions name.
    pub fn custom_settings(&self) -> &[String] {
        self.schema().map_or(&[], |it| &it.custom_settings)
    }
}

/// The catalog of one shard's database.
#[derive(Debug, Default)]
pub struct Schema {
    /// A hash of all that was read.
    version: u64,
    pub locale: Locale,
    pub server_version_num: u32,
    pub search_paths: SearchPaths,
    /// Ascending by oid.
    relations: Vec<Relation>,
    functions: Vec<Function>,
    relation_names: HashMap<Arc<str>, SmallVec<[u32; 1]>>,
    function_names: HashMap<Arc<str>, SmallVec<[u32; 1]>>,
    /// Of `pg_catalog`, which comes first in every search path that does not name it.
    system_relations: Vec<Arc<str>>,
    /// Without those that `sql::built_in` lists.
    system_functions: Vec<Arc<str>>,
    types: HashMap<Oid, Type>,
    collations: HashMap<Oid, Collation>,
    /// Custom settings that functions name, of which PostgreSQL gives no list.
    custom_settings: Vec<String>,
    rows: usize,
    bytes: usize,
}

/// How texts of the database are compared where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locale {
    /// `UTF8`, `LATIN1` and so on.
    pub encoding: String,
    /// `c` for libc, `i` for ICU, `b` for PostgreSQL's own.
    pub provider: char,
    pub collate: String,
}

impl Locale {
    /// Texts of the default collation are ordered by their bytes.
    pub fn is_byte_order(&self) -> bool {
        is_byte_order(self.provider, &self.collate)
    }
}

/// PostgreSQL's own provider compares code points, which UTF-8 keeps in the order of its bytes (manual,
/// "Collation Support").
fn is_byte_order(provider: char, collate: &str) -> bool {
    match provider {
        'c' => matches!(collate, "C" | "POSIX"),
        'b' => true,
        _ => false,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collation {
    pub schema: Arc<str>,
    pub name: Arc<str>,
    /// As in [`Locale`]; `d` is the database's default.
    pub provider: char,
    pub collate: String,
    /// Texts are equal where their bytes are, and only there.
    pub deterministic: bool,
}

/// A table, partitioned table, view, materialized view, foreign table or sequence.
#[derive(Clone, Debug)]
pub struct Relation {
    pub oid: Oid,
    pub name: QualifiedName,
    pub kind: RelationKind,
    pub unlogged: bool,
    pub row_security: bool,
    /// In their order; what is dropped is not there.
    pub columns: Vec<Column>,
    /// The primary key first.
    pub unique: Vec<Unique>,
    pub foreign_keys: Vec<ForeignKey>,
    /// What it inherits from or is a partition of.
    pub parents: SmallVec<[Oid; 1]>,
    /// Relations that a view reads, those of PostgreSQL's own included.
    pub view_of: Vec<Oid>,
    /// A trigger may give a row another primary key than its statement says.
    pub key_rewritten: bool,
    reads: Effects,
    writes: Effects,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    Partitioned,
    View,
    MaterializedView,
    Foreign,
    Sequence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Arc<str>,
    /// `attnum`, from 1, with gaps where columns were dropped.
    pub number: i16,
    pub type_oid: Oid,
    /// -1 for none.
    pub typmod: i32,
    /// 0 where the type has none.
    pub collation: Oid,
    pub not_null: bool,
    pub default: ColumnDefault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnDefault {
    None,
    Expression,
    Identity,
    Generated,
}

/// A primary key or unique constraint, by column numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    pub primary: bool,
    pub columns: Vec<i16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    pub columns: Vec<i16>,
    pub references: Oid,
    pub referenced_columns: Vec<i16>,
    /// Deleting or updating the referenced row writes this table: CASCADE, SET NULL, SET DEFAULT.
    pub cascades: bool,
}

/// A type of the user's that some column has, or an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    pub schema: Arc<str>,
    pub name: Arc<str>,
    /// `typtype`: `e` for enums, `d` for domains.
    pub kind: char,
    /// Of a domain; 0 for others.
    pub base: Oid,
    /// 0 where values have none.
    pub collation: Oid,
    /// Of an array; 0 for others.
    pub element: Oid,
    /// Of an enum, in its order.
    pub labels: Vec<Arc<str>>,
}

#[derive(Clone, Debug)]
pub struct Function {
    pub oid: Oid,
    pub name: QualifiedName,
    /// With their types: what tells overloads apart.
    pub arguments: Arc<str>,
    pub volatility: Volatility,
    /// `prokind`: `f`, `p` procedure, `a` aggregate, `w` window function.
    pub kind: char,
    pub language: Arc<str>,
    pub security_definer: bool,
    /// The extension that it came with.
    pub extension: Option<Arc<str>>,
    /// Of its source.
    body_hash: u64,
    effects: Effects,
}

impl Schema {
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Rows that were read for it.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn relations(&self) -> &[Relation] {
        &self.relations
    }

    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    pub fn relation(&self, oid: Oid) -> Option<&Relation> {
        let at = self.relations.binary_search_by_key(&oid, |it| it.oid).ok()?;
        self.relations.get(at)
    }

    pub fn type_of(&self, oid: Oid) -> Option<&Type> {
        self.types.get(&oid)
    }

    pub fn collation(&self, oid: Oid) -> Option<&Collation> {
        self.collations.get(&oid)
    }

    /// Texts of this collation are equal where their bytes are; `false` where that is not known. A database's
    /// own always is (manual, "Nondeterministic Collations").
    pub fn is_deterministic(&self, collation: Oid) -> bool {
        self.collation(collation).is_some_and(|it| it.deterministic)
    }

    /// Texts of this collation are ordered by their bytes; `false` where that is not known.
    pub fn is_byte_order(&self, collation: Oid) -> bool {
        match self.collation(collation) {
            Some(it) if it.provider == 'd' => self.locale.is_byte_order(),
            Some(it) => is_byte_order(it.provider, &it.collate),
            None => false,
        }
    }

    /// What a name means under a search path: the first relation of it, PostgreSQL's own and temporary ones
    /// excepted, which are not kept. `None` too where one of PostgreSQL's own comes first.
    pub fn resolve(&self, table: &Table, path: &SearchPath) -> Option<&Relation> {
        if let Some(schema) = table.schema.as_deref() {
            return self.relations_named(Some(schema), &table.name).next();
        }
        for schema in path.schemas() {
            if schema == "pg_catalog" {
                if self.system_relations.binary_search_by(|it| (**it).cmp(&table.name)).is_ok() {
                    return None;
                }
                continue;
            }
            if let Some(found) = self.relations_named(Some(schema), &table.name).next() {
                return Some(found);
            }
        }
        None
    }

    /// All relations of a name, in one schema or in any.
    pub fn relations_named<'s, 'n>(
        &'s self,
        schema: Option<&'n str>,
        name: &'n str,
    ) -> impl Iterator<Item = &'s Relation> + use<'s, 'n> {
        let found = self.relation_names.get(name).into_iter().flatten();
        let found = found.filter_map(|it| self.relations.get(*it as usize));
        found.filter(move |it| schema.is_none_or(|schema| schema == &*it.name.schema))
    }

    /// All functions of a name, in one schema or in any.
    pub fn functions_named<'s, 'n>(
        &'s self,
        schema: Option<&'n str>,
        name: &'n str,
    ) -> impl Iterator<Item = &'s Function> + use<'s, 'n> {
        let found = self.function_names.get(name).into_iter().flatten();
        let found = found.filter_map(|it| self.functions.get(*it as usize));
        found.filter(move |it| schema.is_none_or(|schema| schema == &*it.name.schema))
    }
}

#[cfg(test)]
mod tests;
