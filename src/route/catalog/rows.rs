//! From rows of the system catalogs to a [`Schema`]: which questions are asked, in which order, and what
//! their rows mean. A relation, a function and whatever hangs on them are known by oid until the end.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::effects::{Effects, Graph};
use super::{
    Collation, Column, ColumnDefault, FIRST_NORMAL_OID, ForeignKey, Function, Oid, QualifiedName, Relation,
    RelationKind, Schema, Type, Unique,
};
use crate::route::compile::built_in_effects;
use crate::sql::{self, Volatility};

/// Between [`Part::Database`], which tells the reader's own `search_path`, and the others.
pub const LOCAL_PATH: &str = "SET LOCAL search_path = pg_catalog";

/// One question; all are asked in one snapshot, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Database,
    SearchPaths,
    SystemRelations,
    SystemFunctions,
    Relations,
    Columns,
    Types,
    EnumLabels,
    Collations,
    Constraints,
    Inheritance,
    Functions,
    FunctionReferences,
    Triggers,
    TreeReferences,
}

impl Part {
    pub const ALL: [Part; 15] = [
        Part::Database,
        Part::SearchPaths,
        Part::SystemRelations,
        Part::SystemFunctions,
        Part::Relations,
        Part::Columns,
        Part::Types,
        Part::EnumLabels,
        Part::Collations,
        Part::Constraints,
        Part::Inheritance,
        Part::Functions,
        Part::FunctionReferences,
        Part::Triggers,
        Part::TreeReferences,
    ];

    pub fn sql(self) -> &'static str {
        match self {
            Part::Database => DATABASE,
            Part::SearchPaths => SEARCH_PATHS,
            Part::SystemRelations => SYSTEM_RELATIONS,
            Part::SystemFunctions => SYSTEM_FUNCTIONS,
            Part::Relations => RELATIONS,
            Part::Columns => COLUMNS,
            Part::Types => TYPES,
            Part::EnumLabels => ENUM_LABELS,
            Part::Collations => COLLATIONS,
            Part::Constraints => CONSTRAINTS,
            Part::Inheritance => INHERITANCE,
            Part::Functions => FUNCTIONS,
            Part::FunctionReferences => FUNCTION_REFERENCES,
            Part::Triggers => TRIGGERS,
            Part::TreeReferences => TREE_REFERENCES,
        }
    }
}

/// Columns that not every version has are taken from the row as JSON. `reset_val` hides the server's own
/// value where the role or the database has one.
const DATABASE: &str = "SELECT pg_catalog.pg_encoding_to_char(d.encoding), \
    coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c'), coalesce(d.datcollate, \
    pg_catalog.to_jsonb(d) ->> 'datlocale', ''), pg_catalog.current_setting('server_version_num'), \
    (SELECT CASE WHEN source IN ('database', 'user', 'database user', 'client', 'session') THEN NULL \
     ELSE reset_val END FROM pg_catalog.pg_settings WHERE name = 'search_path') \
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

const SEARCH_PATHS: &str = "SELECT s.setdatabase <> 0, coalesce(r.rolname, ''), substr(c, 13) \
    FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c \
    WHERE c LIKE 'search\\_path=%' AND s.setdatabase IN (0, \
    (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1, 2";

const SYSTEM_RELATIONS: &str = "SELECT relname, oid FROM pg_class \
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') ORDER BY relname COLLATE \"C\"";

const SYSTEM_FUNCTIONS: &str = "SELECT DISTINCT proname COLLATE \"C\" FROM pg_proc \
    WHERE pronamespace = 'pg_catalog'::regnamespace ORDER BY 1";

/// Temporary ones belong to sessions.
const RELATIONS: &str = "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relrowsecurity \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384 \
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' ORDER BY c.oid";

const COLUMNS: &str = "SELECT a.attrelid, a.attname, a.attnum, a.atttypid, a.atttypmod, a.attcollation, \
    a.attnotnull, CASE WHEN a.attidentity <> '' THEN 'i' WHEN a.attgenerated <> '' THEN 'g' \
    WHEN a.atthasdef THEN 'd' ELSE '' END \
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.oid >= 16384 \
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND a.attnum > 0 \
    AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

/// Not the row types of tables, of which there are as many as tables.
const TYPES: &str = "SELECT t.oid, n.nspname, t.typname, t.typtype, t.typbasetype, t.typelem, t.typcollation \
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid >= 16384 \
    AND (t.typtype IN ('e', 'd', 'r', 'm') OR t.oid IN (SELECT atttypid FROM pg_attribute \
    WHERE attrelid >= 16384 AND attnum > 0)) ORDER BY t.oid";

const ENUM_LABELS: &str = "SELECT enumtypid, enumlabel FROM pg_enum ORDER BY enumtypid, enumsortorder";

const COLLATIONS: &str = "SELECT l.oid, n.nspname, l.collname, l.collprovider, coalesce(l.collcollate, \
    to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', ''), l.collisdeterministic \
    FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace \
    WHERE l.oid >= 16384 OR l.oid IN (100, 950, 951) OR l.oid IN (SELECT attcollation FROM pg_attribute \
    WHERE attrelid >= 16384 AND attnum > 0) ORDER BY l.oid";

const CONSTRAINTS: &str = "SELECT conrelid, contype, conkey, confrelid, confkey, \
    confupdtype IN ('c', 'n', 'd') OR confdeltype IN ('c', 'n', 'd') FROM pg_constraint \
    WHERE oid >= 16384 AND contype IN ('p', 'u', 'f') ORDER BY conrelid, contype, conkey, oid";

const INHERITANCE: &str = "SELECT inhrelid, inhparent FROM pg_inherits ORDER BY inhrelid, inhseqno";

/// The source of the languages whose words are read, where it is not too long for that. The functions that describe
/// a function see the newest catalog whatever the snapshot: of one dropped since, which the snapshot still shows, they
/// give NULL. It is left out; the digest has its row, so the next read is a whole one.
const FUNCTIONS: &str = "SELECT p.oid, n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), \
    p.provolatile, p.prokind, l.lanname, p.prosecdef, e.extname, \
    CASE WHEN l.lanname IN ('sql', 'plpgsql') THEN (SELECT body \
    FROM coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body WHERE octet_length(body) <= 65536) END, md5(concat(p.prosrc, ' ', p.probin)) \
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang \
    LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.objsubid = 0 \
    AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' \
    LEFT JOIN pg_extension e ON e.oid = d.refobjid \
    WHERE p.oid >= 16384 AND n.nspname !~ '^pg_temp_' \
    AND pg_get_function_identity_arguments(p.oid) IS NOT NULL ORDER BY p.oid";

/// Support functions of aggregates, defaults of arguments, and bodies that the server has parsed.
const FUNCTION_REFERENCES: &str = "SELECT DISTINCT objid, refclassid = 'pg_proc'::regclass, refobjid \
    FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid >= 16384 AND refobjid >= 16384 \
    AND refclassid IN ('pg_proc'::regclass, 'pg_class'::regclass) AND deptype IN ('n', 'a') ORDER BY 1, 2, 3";

/// Those of foreign keys are internal and call nothing of the user's.
const TRIGGERS: &str = "SELECT DISTINCT tgrelid, tgfoid FROM pg_trigger \
    WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgfoid >= 16384 ORDER BY 1, 2";

/// What the stored trees of rules, defaults, checks, policies and WHEN conditions name: `pg_depend` leaves
/// out all that is PostgreSQL's own. Of functions only those that are the user's or not immutable.
const TREE_REFERENCES: &str = "WITH tree(kind, owner, text) AS ( \
    SELECT CASE ev_type WHEN '1' THEN 'view' ELSE 'rule' END, ev_class, concat(ev_action::text, ev_qual::text) \
        FROM pg_rewrite WHERE ev_class >= 16384 \
    UNION ALL SELECT 'default', adrelid, adbin::text FROM pg_attrdef WHERE adrelid >= 16384 \
    UNION ALL SELECT 'check', conrelid, conbin::text FROM pg_constraint WHERE contype = 'c' AND conrelid >= 16384 \
    UNION ALL SELECT 'domain', contypid, conbin::text FROM pg_constraint WHERE contype = 'c' AND contypid >= 16384 \
    UNION ALL SELECT 'check', tgrelid, tgqual::text FROM pg_trigger WHERE tgqual IS NOT NULL \
    UNION ALL SELECT 'policy', polrelid, concat(polqual::text, polwithcheck::text) FROM pg_policy), \
    named(kind, owner, is_relation, oid) AS ( \
    SELECT DISTINCT kind, owner, m[1] = 'relid', m[2]::oid \
        FROM tree, regexp_matches(text, ':(funcid|opfuncid|aggfnoid|winfnoid|relid) (\\d+)', 'g') m) \
    SELECT kind, owner, is_relation, named.oid, p.proname FROM named \
        LEFT JOIN pg_proc p ON NOT is_relation AND p.oid = named.oid \
        WHERE is_relation AND named.oid <> 0 OR p.oid >= 16384 OR p.provolatile <> 'i' \
    UNION ALL SELECT 'locks', owner, true, owner, NULL FROM tree WHERE kind = 'view' \
        AND text LIKE '%:hasForUpdate true%' ORDER BY 1, 2, 3, 4";

#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("a row of {0:?} makes no sense")]
    Senseless(Part),
    #[error("the catalog has more than {0} rows")]
    TooMany(usize),
}

/// Functions of extensions that leave nothing in a session and write nothing, whatever their volatility.
const HARMLESS_EXTENSIONS: &[&str] = &[
    "citext",
    "cube",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "ltree",
    "pgcrypto",
    "seg",
    "unaccent",
    "uuid-ossp",
    "vector",
];

/// Custom settings that a probe asks for, of all that functions name.
const CUSTOM_SETTINGS_MAX: usize = 64;

/// Where the text of a stored tree belongs.
enum Owner {
    View(Oid),
    Rule(Oid),
    /// Default, check, condition: looked at by writes only.
    Write(Oid),
    Policy(Oid),
    Domain(Oid),
}

/// Takes the rows of one shard, in any number of calls, part by part.
#[derive(Default)]
pub struct SchemaReader {
    schema: Schema,
    rows_max: usize,
    hash: Xxh3Default,
    interned: HashSet<Arc<str>>,
    relation_at: HashMap<Oid, usize>,
    function_at: HashMap<Oid, usize>,
    system: HashMap<Oid, Arc<str>>,
    bodies: Vec<Option<sql::Body>>,
    function_references: Vec<(Oid, bool, Oid)>,
    triggers: Vec<(Oid, Oid)>,
    /// Owner, and the relation or function that it names.
    relation_references: Vec<(Owner, Oid)>,
    user_functions: Vec<(Owner, Oid)>,
    built_in: Vec<(Owner, Effects)>,
    custom: BTreeSet<String>,
}

/// A row's values as text.
struct Values<'a>(Part, &'a [Option<&'a str>]);

impl<'a> Values<'a> {
    fn text(&self, at: usize) -> Result<&'a str, RowError> {
        self.1.get(at).copied().flatten().ok_or(RowError::Senseless(self.0))
    }

    fn optional(&self, at: usize) -> Option<&'a str> {
        self.1.get(at).copied().flatten()
    }

    fn number<T: std::str::FromStr>(&self, at: usize) -> Result<T, RowError> {
        self.text(at)?.parse().map_err(|_| RowError::Senseless(self.0))
    }

    fn flag(&self, at: usize) -> Result<bool, RowError> {
        Ok(self.text(at)? == "t")
    }

    fn letter(&self, at: usize) -> Result<char, RowError> {
        self.text(at)?.chars().next().ok_or(RowError::Senseless(self.0))
    }

    /// `{1,2}`; nothing for NULL.
    fn numbers(&self, at: usize) -> Result<Vec<i16>, RowError> {
        let Some(text) = self.optional(at) else { return Ok(Vec::new()) };
        let items = text.trim_matches(['{', '}']).split(',');
        items.map(|it| it.parse().map_err(|_| RowError::Senseless(self.0))).collect()
    }
}

impl SchemaReader {
    /// A catalog of more than `rows_max` rows is given up.
    pub fn new(rows_max: usize) -> SchemaReader {
        SchemaReader { rows_max, ..SchemaReader::default() }
    }

    pub fn take(&mut self, part: Part, row: &[Option<&str>]) -> Result<(), RowError> {
        self.schema.rows += 1;
        if self.schema.rows > self.rows_max {
            return Err(RowError::TooMany(self.rows_max));
        }
        self.hash.update(&[part as u8]);
        for value in row {
            self.hash.update(value.unwrap_or("\0").as_bytes());
            self.hash.update(b"\0");
        }
        let row = Values(part, row);
        match part {
            Part::Database => self.database(&row),
            Part::SearchPaths => self.search_path(&row),
            Part::SystemRelations => self.system_relation(&row),
            Part::SystemFunctions => {
                if sql::built_in(row.text(0)?).is_none() {
                    let name = self.intern(row.text(0)?);
                    self.schema.system_functions.push(name);
                }
                Ok(())
            }
            Part::Relations => self.relation(&row),
            Part::Columns => self.column(&row),
            Part::Types => self.type_of(&row),
            Part::EnumLabels => self.enum_label(&row),
            Part::Collations => self.collation(&row),
            Part::Constraints => self.constraint(&row),
            Part::Inheritance => self.inheritance(&row),
            Part::Functions => self.function(&row),
            Part::FunctionReferences => {
                self.function_references.push((row.number(0)?, row.flag(1)?, row.number(2)?));
                Ok(())
            }
            Part::Triggers => {
                self.triggers.push((row.number(0)?, row.number(1)?));
                Ok(())
            }
            Part::TreeReferences => self.tree_reference(&row),
        }
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(found) = self.interned.get(text) {
            return found.clone();
        }
        // Two words of counts, and what an allocation takes.
        self.schema.bytes += text.len() + 32;
        let made: Arc<str> = text.into();
        self.interned.insert(made.clone());
        made
    }

    fn name(&mut self, schema: &str, name: &str) -> QualifiedName {
        QualifiedName { schema: self.intern(schema), name: self.intern(name) }
    }

    fn database(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        self.schema.locale = super::Locale {
            encoding: row.text(0)?.to_owned(),
            provider: row.letter(1)?,
            collate: row.text(2)?.to_owned(),
        };
        self.schema.server_version_num = row.number(3)?;
        self.schema.search_paths.server = row.optional(4).map(str::to_owned);
        Ok(())
    }

    fn search_path(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let key = (row.flag(0)?, row.text(1)?.to_owned());
        self.schema.search_paths.by_role.insert(key, row.text(2)?.to_owned());
        Ok(())
    }

    fn system_relation(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let name = self.intern(row.text(0)?);
        self.system.insert(row.number(1)?, name.clone());
        self.schema.system_relations.push(name);
        Ok(())
    }

    fn relation(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let oid = row.number(0)?;
        let name = self.name(row.text(1)?, row.text(2)?);
        let kind = match row.letter(3)? {
            'r' => RelationKind::Table,
            'p' => RelationKind::Partitioned,
            'v' => RelationKind::View,
            'm' => RelationKind::MaterializedView,
            'f' => RelationKind::Foreign,
            'S' => RelationKind::Sequence,
            _ => return Err(RowError::Senseless(row.0)),
        };
        self.relation_at.insert(oid, self.schema.relations.len());
        self.schema.bytes += size_of::<Relation>() + size_of::<(Oid, usize)>();
        self.schema.relations.push(Relation {
            oid,
            name,
            kind,
            unlogged: row.letter(4)? == 'u',
            row_security: row.flag(5)?,
            columns: Vec::new(),
            unique: Vec::new(),
            foreign_keys: Vec::new(),
            parents: SmallVec::new(),
            view_of: Vec::new(),
            key_rewritten: false,
            reads: Effects::NONE,
            writes: Effects::NONE,
        });
        Ok(())
    }

    fn relation_mut(&mut self, oid: Oid) -> Option<&mut Relation> {
        let at = *self.relation_at.get(&oid)?;
        self.schema.relations.get_mut(at)
    }

    fn column(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let column = Column {
            name: self.intern(row.text(1)?),
            number: row.number(2)?,
            type_oid: row.number(3)?,
            typmod: row.number(4)?,
            collation: row.number(5)?,
            not_null: row.flag(6)?,
            default: match row.text(7)? {
                "i" => ColumnDefault::Identity,
                "g" => ColumnDefault::Generated,
                "d" => ColumnDefault::Expression,
                _ => ColumnDefault::None,
            },
        };
        self.schema.bytes += size_of::<Column>();
        if let Some(relation) = self.relation_mut(row.number(0)?) {
            relation.columns.push(column);
        }
        Ok(())
    }

    fn type_of(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let QualifiedName { schema, name } = self.name(row.text(1)?, row.text(2)?);
        let (kind, base, element) = (row.letter(3)?, row.number(4)?, row.number(5)?);
        self.schema.bytes += size_of::<Type>();
        let collation = row.number(6)?;
        let made = Type { schema, name, kind, base, element, collation, labels: Vec::new() };
        self.schema.types.insert(row.number(0)?, made);
        Ok(())
    }

    fn enum_label(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let label = self.intern(row.text(1)?);
        if let Some(it) = self.schema.types.get_mut(&row.number(0)?) {
            it.labels.push(label);
        }
        Ok(())
    }

    fn collation(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let QualifiedName { schema, name } = self.name(row.text(1)?, row.text(2)?);
        let (provider, collate) = (row.letter(3)?, row.text(4)?.to_owned());
        let made = Collation { schema, name, provider, collate, deterministic: row.flag(5)? };
        self.schema.collations.insert(row.number(0)?, made);
        Ok(())
    }

    fn constraint(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let (kind, columns) = (row.letter(1)?, row.numbers(2)?);
        let foreign = if kind == 'f' {
            let (references, referenced_columns) = (row.number(3)?, row.numbers(4)?);
            Some(ForeignKey {
                columns: columns.clone(),
                references,
                referenced_columns,
                cascades: row.flag(5)?,
            })
        } else {
            None
        };
        self.schema.bytes += size_of::<ForeignKey>() + 2 * columns.len();
        let Some(relation) = self.relation_mut(row.number(0)?) else { return Ok(()) };
        match foreign {
            Some(it) => relation.foreign_keys.push(it),
            None => relation.unique.push(Unique { primary: kind == 'p', columns }),
        }
        Ok(())
    }

    fn inheritance(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let parent = row.number(1)?;
        if let Some(relation) = self.relation_mut(row.number(0)?) {
            relation.parents.push(parent);
        }
        Ok(())
    }

    fn function(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let oid = row.number(0)?;
        let name = self.name(row.text(1)?, row.text(2)?);
        let body = row.optional(9);
        if let Some(text) = body {
            self.custom.extend(sql::named_settings(text));
        }
        let function = Function {
            oid,
            name,
            arguments: self.intern(row.text(3)?),
            volatility: match row.letter(4)? {
                'i' => Volatility::Immutable,
                's' => Volatility::Stable,
                _ => Volatility::Volatile,
            },
            kind: row.letter(5)?,
            language: self.intern(row.text(6)?),
            security_definer: row.flag(7)?,
            extension: row.optional(8).map(|it| self.intern(it)),
            body_hash: xxh3_64([body.unwrap_or_default(), row.text(10)?].concat().as_bytes()),
            effects: Effects::NONE,
        };
        self.bodies.push(body.map(sql::body));
        self.function_at.insert(oid, self.schema.functions.len());
        self.schema.bytes += size_of::<Function>();
        self.schema.functions.push(function);
        Ok(())
    }

    fn tree_reference(&mut self, row: &Values<'_>) -> Result<(), RowError> {
        let (owner, named) = (row.number(1)?, row.number(3)?);
        let of = |kind: &str| {
            Some(match kind {
                "view" => Owner::View(owner),
                "rule" => Owner::Rule(owner),
                "default" | "check" => Owner::Write(owner),
                "policy" => Owner::Policy(owner),
                "domain" => Owner::Domain(owner),
                _ => return None,
            })
        };
        let kind = row.text(0)?;
        if kind == "locks" {
            self.built_in.push((Owner::View(owner), Effects::WRITES));
            return Ok(());
        }
        let owner = of(kind).ok_or(RowError::Senseless(row.0))?;
        if row.flag(2)? {
            if let Owner::View(view) = owner {
                let is_self = named == view;
                if let Some(it) = self.relation_mut(view).filter(|_| !is_self) {
                    it.view_of.push(named);
                }
            }
            self.relation_references.push((owner, named));
        } else if named >= FIRST_NORMAL_OID {
            self.user_functions.push((owner, named));
        } else {
            self.built_in.push((owner, built_in_effects(row.text(4)?)));
        }
        Ok(())
    }

    /// The schema, with the effects of all its objects.
    pub fn finish(mut self) -> Schema {
        self.schema.version = self.hash.digest();
        let custom = std::mem::take(&mut self.custom);
        self.schema.custom_settings = custom.into_iter().take(CUSTOM_SETTINGS_MAX).collect();
        for (at, it) in self.schema.relations.iter_mut().enumerate() {
            it.unique.sort_by_key(|it| !it.primary);
            it.columns.shrink_to_fit();
            self.schema.relation_names.entry(it.name.name.clone()).or_default().push(at as u32);
        }
        for (at, it) in self.schema.functions.iter().enumerate() {
            self.schema.function_names.entry(it.name.name.clone()).or_default().push(at as u32);
        }
        let name_bytes = size_of::<(Arc<str>, SmallVec<[u32; 1]>)>();
        self.schema.bytes +=
            name_bytes * (self.schema.relation_names.len() + self.schema.function_names.len());
        let rewritten: Vec<usize> =
            (0..self.schema.relations.len()).filter(|it| self.rewrites_key(*it)).collect();
        for at in rewritten {
            self.schema.relations[at].key_rewritten = true;
        }
        let effects = self.graph().propagate();
        let functions = self.schema.functions.len();
        for (it, effects) in self.schema.functions.iter_mut().zip(&effects) {
            it.effects = *effects;
        }
        let of_relations = effects.get(functions..).unwrap_or_default().as_chunks::<2>().0;
        for (it, [reads, writes]) in self.schema.relations.iter_mut().zip(of_relations) {
            (it.reads, it.writes) = (*reads, *writes);
        }
        self.schema
    }

    /// Functions first, then each relation as it is read and as it is written.
    fn graph(&self) -> Graph {
        let mut graph = Graph::new(self.schema.functions.len() + 2 * self.schema.relations.len());
        for at in 0..self.schema.functions.len() {
            self.add_function(at, &mut graph);
        }
        for (function, is_function, used) in &self.function_references {
            let Some(&node) = self.function_at.get(function) else { continue };
            if *is_function {
                self.uses_function(&mut graph, node, *used);
            } else if let Some(&at) = self.relation_at.get(used) {
                graph.uses(node, self.reads(at));
                graph.uses(node, self.writes(at));
            }
        }
        let mut domains: HashMap<Oid, Vec<(Option<Oid>, Effects)>> = HashMap::new();
        for (owner, function) in &self.user_functions {
            match owner {
                Owner::Domain(oid) => domains.entry(*oid).or_default().push((Some(*function), Effects::NONE)),
                owner => {
                    self.nodes_of(owner).iter().for_each(|it| self.uses_function(&mut graph, *it, *function));
                }
            }
        }
        for (owner, effects) in &self.built_in {
            match owner {
                Owner::Domain(oid) => domains.entry(*oid).or_default().push((None, *effects)),
                owner => self.nodes_of(owner).iter().for_each(|it| graph.add(*it, *effects)),
            }
        }
        for (table, function) in &self.triggers {
            if let Some(&at) = self.relation_at.get(table) {
                self.uses_function(&mut graph, self.writes(at), *function);
            }
        }
        self.relation_references
            .iter()
            .for_each(|(owner, used)| self.uses_relation(&mut graph, owner, *used));
        for at in 0..self.schema.relations.len() {
            self.add_relation(at, &domains, &mut graph);
        }
        // Which tables the actions of rules write is not told apart.
        let of_references = self.relation_references.iter().chain(&self.user_functions).map(|it| &it.0);
        for owner in of_references.chain(self.built_in.iter().map(|it| &it.0)) {
            if matches!(owner, Owner::Rule(_)) {
                self.nodes_of(owner).iter().for_each(|it| graph.add(*it, Effects::TABLES));
            }
        }
        graph
    }

    fn reads(&self, relation: usize) -> usize {
        self.schema.functions.len() + 2 * relation
    }

    fn writes(&self, relation: usize) -> usize {
        self.reads(relation) + 1
    }

    fn nodes_of(&self, owner: &Owner) -> SmallVec<[usize; 2]> {
        let (oid, reads, writes) = match owner {
            Owner::View(oid) => (oid, true, false),
            Owner::Rule(oid) | Owner::Write(oid) => (oid, false, true),
            Owner::Policy(oid) => (oid, true, true),
            Owner::Domain(_) => return SmallVec::new(),
        };
        let Some(&at) = self.relation_at.get(oid) else { return SmallVec::new() };
        let nodes = [(reads, self.reads(at)), (writes, self.writes(at))];
        nodes.into_iter().filter(|(used, _)| *used).map(|(_, node)| node).collect()
    }

    fn uses_function(&self, graph: &mut Graph, node: usize, function: Oid) {
        if let Some(&at) = self.function_at.get(&function) {
            graph.uses(node, at);
        }
    }

    /// A view is read as what it reads, and written as what it reads is written, where it can be. What a
    /// rule does to a relation is not told apart.
    fn uses_relation(&self, graph: &mut Graph, owner: &Owner, used: Oid) {
        let Some(&at) = self.relation_at.get(&used) else {
            let writes_settings = self.system.get(&used).is_some_and(|it| &**it == "pg_settings");
            let effects = if writes_settings { Effects::SETTINGS } else { Effects::NONE };
            match owner {
                Owner::View(view) => {
                    if let Some(&view) = self.relation_at.get(view) {
                        graph.add(self.reads(view), Effects::PRIMARY);
                        graph.add(self.writes(view), effects);
                    }
                }
                owner => self.nodes_of(owner).iter().for_each(|it| graph.add(*it, effects)),
            }
            return;
        };
        match owner {
            Owner::View(view) => {
                if let Some(&view) = self.relation_at.get(view) {
                    graph.uses(self.reads(view), self.reads(at));
                    graph.uses(self.writes(view), self.writes(at));
                }
            }
            owner => {
                for node in self.nodes_of(owner) {
                    graph.uses(node, self.reads(at));
                    if matches!(owner, Owner::Rule(_)) {
                        graph.uses(node, self.writes(at));
                    }
                }
            }
        }
    }

    fn add_function(&self, at: usize, graph: &mut Graph) {
        let (Some(function), Some(body)) = (self.schema.functions.get(at), self.bodies.get(at)) else {
            return;
        };
        if function.kind == 'a' {
            // What its support functions are.
            return;
        }
        let trusted = function.volatility != Volatility::Volatile;
        let harmless = function.extension.as_deref().is_some_and(|it| HARMLESS_EXTENSIONS.contains(&it));
        if !trusted && !harmless {
            graph.add(at, Effects::WRITES);
        }
        if trusted {
            graph.mask(at, Effects::STATE.and(Effects::SETTINGS).and(Effects::READS));
        }
        let shown = body.as_ref().is_some_and(|it| !it.dynamic && !self.names_relations(it));
        if !shown && !harmless {
            if !trusted {
                graph.add(at, Effects::TABLES);
            }
            if function.volatility != Volatility::Immutable {
                graph.add(at, Effects::READS);
            }
        }
        let Some(body) = body else {
            // Code that is not read does what its volatility says.
            if !trusted && !harmless {
                graph.add(at, Effects::ANYTHING);
            }
            return;
        };
        // Whoever runs texts and says that it changes nothing is believed, as PostgreSQL believes it.
        if !(trusted && body.dynamic) {
            let told = [(body.state, Effects::STATE), (body.settings, Effects::SETTINGS)];
            told.into_iter().filter(|(is, _)| *is).for_each(|(_, it)| graph.add(at, it));
        }
        for name in &body.names {
            for used in self.schema.function_names.get(&**name).into_iter().flatten() {
                graph.uses(at, *used as usize);
            }
            for used in self.schema.relation_names.get(&**name).into_iter().flatten() {
                graph.uses(at, self.reads(*used as usize));
                graph.uses(at, self.writes(*used as usize));
            }
        }
    }

    /// A trigger may give a row another key than its statement does: its code names the column, or calls code that is
    /// not looked into for that.
    fn rewrites_key(&self, at: usize) -> bool {
        let Some(relation) = self.schema.relations.get(at) else { return false };
        let key = relation.unique.first().filter(|it| it.primary);
        let is_key = |it: &Column| key.is_some_and(|key| key.columns.contains(&it.number));
        let names: Vec<&str> = relation.columns.iter().filter(|it| is_key(it)).map(|it| &*it.name).collect();
        let may_rewrite = |function: &Oid| {
            let body = self.function_at.get(function).and_then(|it| self.bodies.get(*it)?.as_ref());
            body.is_none_or(|body| {
                let calls = |it: &String| self.schema.function_names.contains_key(&**it);
                body.dynamic || body.names.iter().any(|it| names.contains(&&**it) || calls(it))
            })
        };
        self.triggers.iter().filter(|it| it.0 == relation.oid).any(|it| may_rewrite(&it.1))
    }

    /// A word of it may be one.
    fn names_relations(&self, body: &sql::Body) -> bool {
        body.names.iter().any(|it| self.schema.relation_names.contains_key(&**it))
    }

    fn add_relation(
        &self,
        at: usize,
        domains: &HashMap<Oid, Vec<(Option<Oid>, Effects)>>,
        graph: &mut Graph,
    ) {
        let Some(relation) = self.schema.relations.get(at) else { return };
        let (reads, writes) = (self.reads(at), self.writes(at));
        if relation.row_security {
            graph.add(reads, Effects::READS);
        }
        let elsewhere = matches!(relation.kind, RelationKind::Foreign | RelationKind::Sequence);
        if elsewhere || relation.unlogged {
            graph.add(reads, Effects::PRIMARY);
        }
        if relation.kind == RelationKind::View {
            graph.uses(writes, reads);
        }
        // A row written to the whole may go to a part, and a part has the triggers of the whole.
        for parent in relation.parents.iter().filter_map(|it| self.relation_at.get(it)) {
            graph.uses(self.reads(*parent), reads);
            graph.uses(self.writes(*parent), writes);
            graph.uses(writes, self.writes(*parent));
        }
        for key in relation.foreign_keys.iter().filter(|it| it.cascades) {
            if let Some(&referenced) = self.relation_at.get(&key.references) {
                graph.uses(self.writes(referenced), writes);
            }
        }
        if domains.is_empty() {
            return;
        }
        for column in &relation.columns {
            // A domain may be over a domain; the chain ends at a type of PostgreSQL's own.
            let mut of = Some(column.type_oid);
            for _ in 0..16 {
                let Some(oid) = of else { break };
                for (function, effects) in domains.get(&oid).into_iter().flatten() {
                    graph.add(writes, *effects);
                    if let Some(function) = function {
                        self.uses_function(graph, writes, *function);
                    }
                }
                of = self.schema.types.get(&oid).map(|it| if it.base != 0 { it.base } else { it.element });
            }
        }
    }
}
