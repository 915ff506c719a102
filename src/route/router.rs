//! One database's routing: its maps, its tables and the plans made for them.

use std::collections::BTreeMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, UnitWeighter};
use xxhash_rust::xxh3::Xxh3;

use crate::base::{NumberHasher, Reason, Refusal, ShardId, SqlState};
use crate::config::{CrossShardWrites, Database, TableName, TableProtection, TableRule};
use crate::shard::{HashFunction, KeyType, Map};
use crate::sql::{self, Literals, Parser, Scan, Table};

use super::catalog::Catalog;
use super::compile;
use super::decide::Path;
use super::plan::Plan;

/// Immutable but for its cache and the catalog that it is given; a reload builds a new one.
#[derive(Debug)]
pub struct Router {
    shards: Vec<String>,
    maps: Vec<Arc<Map>>,
    tables: BTreeMap<TableName, TableRule>,
    /// Schemas whose tables all live on one shard.
    schemas: BTreeMap<String, ShardId>,
    default_shard: Option<ShardId>,
    cross_shard_writes: CrossShardWrites,
    table_protection: BTreeMap<TableName, TableProtection>,
    /// Of `table_protection`, which plans depend on and places of rows do not.
    protection_version: u64,
    /// Of all above but for `cross_shard_writes`, which plans do not depend on.
    config_version: u64,
    catalog: ArcSwap<Catalog>,
    /// Of the plans to be used: made of `config_version` and the newest catalog's.
    version: AtomicU64,
    /// For primary keys of one column, of a database of one shard.
    primary_key_maps: Vec<(KeyType, Map)>,
    parser: Arc<Parser>,
    plans: PlanCache,
    plans_max: usize,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: Evictions,
}

type PlanCache = Cache<u128, Arc<Plan>, UnitWeighter, BuildHasherDefault<NumberHasher>, Evictions>;

/// Plans that had to make room.
#[derive(Clone, Debug, Default)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<u128, Arc<Plan>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _fingerprint: u128, _plan: Arc<Plan>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A text's plan and where its literals stand.
#[derive(Clone, Debug)]
pub struct Planned {
    pub plan: Arc<Plan>,
    pub literals: Literals,
    /// The plan was in the cache.
    pub hit: bool,
}

/// What the cache has done since the router was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCacheCounts {
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
    pub plans: u64,
}

impl Router {
    /// `plans_max` bounds the cache; `parser` is the process's only one.
    pub fn new(database: &Database, plans_max: usize, parser: Arc<Parser>) -> Router {
        let shards = database.shards.iter().map(|it| it.name.clone()).collect();
        let (maps, tables) = (database.maps.clone(), database.tables.clone());
        Router::of_parts(shards, maps, tables, plans_max, parser)
            .with_homes(database.schemas.clone(), database.default_shard)
            .with_cross_shard_writes(database.cross_shard_writes)
            .with_protection(database.table_protection.clone())
    }

    pub(super) fn with_protection(self, table_protection: BTreeMap<TableName, TableProtection>) -> Router {
        let form = format!("{table_protection:?}");
        let is_none = table_protection.is_empty();
        let protection_version = if is_none { 0 } else { xxhash_rust::xxh3::xxh3_64(form.as_bytes()) };
        let version = AtomicU64::new(self.config_version ^ protection_version);
        Router { table_protection, protection_version, version, ..self }
    }

    pub(super) fn with_cross_shard_writes(self, cross_shard_writes: CrossShardWrites) -> Router {
        Router { cross_shard_writes, ..self }
    }

    /// Whether a statement may write rows of several shards.
    pub fn writes_in_one_phase(&self) -> bool {
        self.cross_shard_writes == CrossShardWrites::OnePhase
    }

    /// The router of a database where whole schemas, or all tables that are not listed, live on one shard.
    pub(super) fn with_homes(
        self,
        schemas: BTreeMap<String, ShardId>,
        default_shard: Option<ShardId>,
    ) -> Router {
        let form = format!("{} {schemas:?} {default_shard:?}", self.config_version);
        let config_version = xxhash_rust::xxh3::xxh3_64(form.as_bytes());
        let version = AtomicU64::new(config_version);
        Router { schemas, default_shard, config_version, version, ..self }
    }

    pub(super) fn of_parts(
        shards: Vec<String>,
        maps: Vec<Arc<Map>>,
        tables: BTreeMap<TableName, TableRule>,
        plans_max: usize,
        parser: Arc<Parser>,
    ) -> Router {
        let plans_max = plans_max.max(1);
        let (hasher, evictions) = (BuildHasherDefault::default(), Evictions::default());
        let plans = PlanCache::with(plans_max, plans_max as u64, UnitWeighter, hasher, evictions.clone());
        let config_version = version(&shards, &maps, &tables);
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        let (schemas, default_shard) = (BTreeMap::new(), None);
        let (catalog, version) = (ArcSwap::default(), AtomicU64::new(config_version));
        let primary_key_maps = if shards.len() == 1 { primary_key_maps() } else { Vec::new() };
        Router {
            primary_key_maps,
            shards,
            maps,
            tables,
            schemas,
            default_shard,
            cross_shard_writes: CrossShardWrites::default(),
            table_protection: BTreeMap::new(),
            protection_version: 0,
            config_version,
            catalog,
            version,
            parser,
            plans,
            plans_max,
            hits,
            misses,
            evictions,
        }
    }

    /// Whether names without schema need the session's search_path: `SessionView::path`.
    pub fn reads_path(&self) -> bool {
        !self.schemas.is_empty()
    }

    /// What a search_path says of names without schema: its schemas in their order, `$user` replaced. Schemas
    /// behind the first are looked in only for what that one lacks.
    pub fn path(&self, schemas: &[&str]) -> Path {
        let own = |it: &&&str| !matches!(**it, "pg_catalog" | "pg_temp");
        match schemas.iter().find(own).and_then(|it| self.schemas.get(*it)) {
            Some(shard) => Path::Shard(*shard),
            // A later schema may have the table that the first one lacks.
            None if schemas.iter().any(|it| self.schemas.contains_key(*it)) => Path::Unknown,
            None => Path::Elsewhere,
        }
    }

    pub(super) fn schema_shard(&self, schema: &str) -> Option<ShardId> {
        self.schemas.get(schema).copied()
    }

    pub(super) fn default_shard(&self) -> Option<ShardId> {
        self.default_shard
    }

    pub(super) fn is_listed(&self, name: &str) -> bool {
        self.rule(&Table { schema: None, name: name.to_owned() }).is_some()
    }

    /// Changes when a map, a table's rule, a home, the list of shards or the catalog does. A plan of another
    /// version is not to be used (DESIGN invariant 10).
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// As `version`, the catalog left out: where rows live, as the configuration has it.
    pub fn config_version(&self) -> u64 {
        self.config_version
    }

    /// From here on plans are made with this catalog.
    pub fn adopt(&self, catalog: Arc<Catalog>) {
        let version = self.version_with(&catalog);
        self.catalog.store(catalog);
        self.version.store(version, Ordering::Release);
    }

    fn version_with(&self, catalog: &Catalog) -> u64 {
        self.config_version ^ self.protection_version ^ catalog.version()
    }

    /// Whether the other one would do all that this one does: at a reload its plans are kept then.
    pub fn is_same(&self, other: &Router) -> bool {
        self.config_version == other.config_version
            && self.plans_max == other.plans_max
            && self.cross_shard_writes == other.cross_shard_writes
            && self.protection_version == other.protection_version
    }

    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub fn shard_name(&self, shard: ShardId) -> &str {
        self.shards.get(usize::from(shard.0)).map_or("", String::as_str)
    }

    /// Tables that a map places, with the columns of their keys.
    pub fn keyed_tables(&self, map: usize) -> Vec<(TableName, Vec<String>)> {
        let of_map = |(name, rule): (&TableName, &TableRule)| match rule {
            TableRule::Sharded { map: of, key } if *of == map => Some((name.clone(), key.clone())),
            _ => None,
        };
        self.tables.iter().filter_map(of_map).collect()
    }

    pub fn map(&self, index: usize) -> Option<&Map> {
        self.maps.get(index).map(|it| &**it)
    }

    /// Behind the maps of the configuration stand those by which rows of tables without one are told apart.
    pub(super) fn any_map(&self, index: usize) -> Option<&Map> {
        match index.checked_sub(self.maps.len()) {
            None => self.map(index),
            Some(at) => self.primary_key_maps.get(at).map(|(_, map)| map),
        }
    }

    /// The index for `any_map` of a map for keys of these types.
    pub(super) fn primary_key_map(&self, key_type: KeyType) -> Option<usize> {
        let at = self.primary_key_maps.iter().position(|it| it.0 == key_type)?;
        Some(self.maps.len() + at)
    }

    pub fn plan_cache_counts(&self) -> PlanCacheCounts {
        PlanCacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.0.load(Ordering::Relaxed),
            plans: self.plans.len() as u64,
        }
    }

    /// The plan of `text`, from the cache or made now.
    pub fn plan(&self, text: &str) -> Planned {
        let scan = sql::scan(text);
        if scan.well_formed
            && let Some(plan) = self.cached(text, &scan)
            && plan.version == self.version()
        {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Planned { plan, literals: scan.literals, hit: true };
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let parsed = self.parser.facts(text, &scan.literals);
        // A text that fails may share its fingerprint with one that does not, and what the two scanners
        // do not agree on has no fingerprint.
        let keep = scan.well_formed && parsed.is_ok();
        let splitter = compile::Splitter { parser: &self.parser, text, literals: &scan.literals };
        let catalog = self.catalog.load();
        let mut plan = compile::compile(self, &catalog, parsed, &splitter);
        plan.version = self.version_with(&catalog);
        plan.hinted = scan.hinted;
        let plan = Arc::new(plan);
        if keep {
            self.plans.insert(scan.fingerprint, plan.clone());
            if !plan.fixed_literals.is_empty() {
                self.plans.insert(with_literals(text, &scan, &plan.fixed_literals), plan.clone());
            }
        }
        Planned { plan, literals: scan.literals, hit: false }
    }

    /// Whether a plan that was found here before is the one to be used still, which is a hit too.
    pub fn reuse(&self, plan: &Plan) -> bool {
        let is_current = plan.version == self.version();
        if is_current {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        is_current
    }

    /// Where a plan depends on values of literals, the one under the fingerprint says on which, and that for
    /// these values is beside it.
    fn cached(&self, text: &str, scan: &Scan) -> Option<Arc<Plan>> {
        let plan = self.plans.get(&scan.fingerprint)?;
        if plan.fixed_literals.is_empty() {
            return Some(plan);
        }
        self.plans.get(&with_literals(text, scan, &plan.fixed_literals))
    }

    pub(super) fn rule(&self, table: &Table) -> Option<&TableRule> {
        of_table(&self.tables, table)
    }

    pub(super) fn table_protection(&self, table: &Table) -> TableProtection {
        of_table(&self.table_protection, table).copied().unwrap_or_default()
    }
}

/// What is said of a table as SQL names it. Without a schema on either side the name alone decides,
/// as does `public`, unless tables of several schemas have it.
fn of_table<'a, T>(tables: &'a BTreeMap<TableName, T>, table: &Table) -> Option<&'a T> {
    let exact = TableName { schema: table.schema.clone(), name: table.name.clone() };
    if let Some(it) = tables.get(&exact) {
        return Some(it);
    }
    match table.schema.as_deref() {
        Some("public") => tables.get(&TableName { schema: None, name: table.name.clone() }),
        Some(_) => None,
        None => {
            let mut named = tables.iter().filter(|(it, _)| it.name == table.name);
            match (named.next(), named.next()) {
                (Some((_, only)), None) => Some(only),
                _ => None,
            }
        }
    }
}

fn primary_key_maps() -> Vec<(KeyType, Map)> {
    let of = |key_type: KeyType| {
        let slots = vec![ShardId(0)];
        let map = Map::hash("primary key", &[key_type.into()], HashFunction::Xxh3, slots).ok()?;
        Some((key_type, map))
    };
    use KeyType as K;
    let types = [
        K::Bigint,
        K::Integer,
        K::Smallint,
        K::Text,
        K::Varchar,
        K::Uuid,
        K::Numeric,
        K::Date,
        K::Timestamp,
        K::Timestamptz,
    ];
    types.into_iter().filter_map(of).collect()
}

/// A fingerprint that does not forget these literals.
fn with_literals(text: &str, scan: &Scan, indexes: &[u32]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&scan.fingerprint.to_le_bytes());
    for literal in indexes.iter().filter_map(|it| scan.literals.get(*it as usize)) {
        hash.update(literal.written(text).as_bytes());
        hash.update(&[0]);
    }
    hash.digest128()
}

fn version(shards: &[String], maps: &[Arc<Map>], tables: &BTreeMap<TableName, TableRule>) -> u64 {
    let mut form = String::new();
    for shard in shards {
        form.push_str(&format!("shard {shard:?};"));
    }
    for map in maps {
        form.push_str(&format!("map {:?} {};", map.name, map.fingerprint()));
    }
    for (name, rule) in tables {
        form.push_str(&format!("table {name:?} {rule:?};"));
    }
    xxhash_rust::xxh3::xxh3_64(form.as_bytes())
}

/// What a text that gave no facts is answered with on several shards.
pub(super) fn not_parsed(error: &sql::NotParsed) -> Refusal {
    match error {
        sql::NotParsed::Syntax { message, position } => {
            let refusal = Refusal::new(Reason::Parse, SqlState::SYNTAX_ERROR, message.clone());
            match position {
                Some(position) => refusal.at(*position),
                None => refusal,
            }
        }
        sql::NotParsed::TooComplex => {
            let message = "statement is too long or nested too deeply to be routed";
            Refusal::new(Reason::Parse, SqlState::STATEMENT_TOO_COMPLEX, message)
                .hint("split the statement, or nest its expressions less deeply")
        }
    }
}
