//! The catalog from rows as the shards give them.

use super::*;

/// Rows of one shard; names stand for oids by their place in the list of relations.
#[derive(Default)]
struct Shard {
    reader: SchemaReader,
}

impl Shard {
    fn new() -> Shard {
        let mut shard = Shard { reader: SchemaReader::new(1_000) };
        shard.row(Part::Database, "UTF8|c|C.UTF-8|150000|\"$user\", public");
        shard.row(Part::SystemRelations, "pg_class|1259");
        shard.row(Part::SystemRelations, "pg_settings|12000");
        shard.row(Part::SystemFunctions, "nextval");
        shard
    }

    /// Values between bars; `-` is NULL.
    fn row(&mut self, part: Part, row: &str) -> &mut Shard {
        let values: Vec<Option<&str>> = row.split('|').map(|it| (it != "-").then_some(it)).collect();
        self.reader.take(part, &values).unwrap();
        self
    }

    fn table(&mut self, oid: Oid, name: &str) -> &mut Shard {
        self.relation(oid, "public", name, 'r')
    }

    fn relation(&mut self, oid: Oid, schema: &str, name: &str, kind: char) -> &mut Shard {
        self.row(Part::Relations, &format!("{oid}|{schema}|{name}|{kind}|p|f"))
    }

    /// A column of an integer, or of what is said behind its name: `b|20|-1|0|f|`.
    fn column(&mut self, table: Oid, number: i16, column: &str) -> &mut Shard {
        let (name, rest) = column.split_once('|').unwrap_or((column, "23|-1|0|f|"));
        self.row(Part::Columns, &format!("{table}|{name}|{number}|{rest}"))
    }

    fn function(&mut self, oid: Oid, name: &str, volatility: char, language: &str, body: &str) -> &mut Shard {
        let body = if matches!(language, "sql" | "plpgsql") { body } else { "-" };
        self.row(
            Part::Functions,
            &format!("{oid}|public|{name}||{volatility}|f|{language}|f|-|{body}|md5 of {body}"),
        )
    }

    fn finish(&mut self) -> Arc<Schema> {
        Arc::new(std::mem::take(&mut self.reader).finish())
    }

    fn catalog(&mut self) -> Catalog {
        Catalog::new(vec![self.finish()], &["s1".into()])
    }
}

fn table(name: &str) -> Table {
    match name.split_once('.') {
        Some((schema, name)) => Table { schema: Some(schema.into()), name: name.into() },
        None => Table { schema: None, name: name.into() },
    }
}

const LOCKS: &str = "BEGIN PERFORM pg_advisory_lock(1); RETURN 1; END";
const STAMPS: &str = "BEGIN NEW.at := now(); RETURN NEW; END";

#[test]
fn volatility_and_words_say_what_a_function_leaves() {
    let catalog = Shard::new()
        .function(20_001, "locks", 'v', "plpgsql", LOCKS)
        .function(20_002, "stamps", 'v', "plpgsql", STAMPS)
        .function(20_003, "calls", 'v', "sql", "SELECT locks()")
        .function(20_004, "stable", 's', "plpgsql", "BEGIN RETURN QUERY EXECUTE 'SELECT 1'; END")
        .function(20_005, "mislabelled", 's', "plpgsql", LOCKS)
        .function(20_006, "native", 'v', "c", "")
        .function(20_007, "native_stable", 's', "c", "")
        .row(Part::Functions, "20008|public|uuid_generate_v4||v|f|c|f|uuid-ossp|-|x")
        .function(20_009, "twice", 'i', "sql", "SELECT 1")
        .function(20_010, "twice", 'v', "sql", "SET work_mem = 1")
        .catalog();
    let all = Effects::ANYTHING;
    for (name, effects) in [
        ("locks", Effects::STATE.and(Effects::WRITES)),
        ("stamps", Effects::WRITES),
        ("calls", Effects::STATE.and(Effects::WRITES)),
        ("stable", Effects::NONE),
        ("mislabelled", Effects::STATE),
        ("native", all),
        ("native_stable", Effects::NONE),
        ("uuid_generate_v4", Effects::NONE),
        ("twice", Effects::SETTINGS.and(Effects::WRITES)),
    ] {
        let found = catalog.calling(None, name).unwrap().effects;
        assert_eq!(found.only(Effects::ANYTHING.and(Effects::PRIMARY)), effects, "{name}");
    }
    for (name, tables) in [
        ("stamps", Effects::NONE),
        ("calls", Effects::NONE),
        ("stable", Effects::READS),
        ("native", Effects::TABLES.and(Effects::READS)),
        ("native_stable", Effects::READS),
        ("uuid_generate_v4", Effects::NONE),
    ] {
        let found = catalog.calling(None, name).unwrap().effects;
        assert_eq!(found.only(Effects::TABLES.and(Effects::READS)), tables, "{name}");
    }
    assert_eq!(catalog.calling(None, "nothing"), None);
    assert_eq!(catalog.calling(Some("app"), "locks"), None);
    assert_eq!(catalog.calling(None, "twice").unwrap().volatility, Volatility::Volatile);
    assert!(catalog.is_built_in("nextval") && !catalog.is_built_in("locks"));
}

#[test]
fn relations_do_what_hangs_on_them() {
    let mut shard = Shard::new();
    shard.function(20_001, "locks", 'v', "plpgsql", LOCKS).function(20_002, "stamps", 'v', "plpgsql", STAMPS);
    for (oid, name) in
        [(1, "plain"), (2, "triggered"), (3, "parent"), (4, "child"), (5, "whole"), (6, "part")]
    {
        shard.table(17_000 + oid, name);
    }
    shard.relation(17_007, "public", "seen", 'v').relation(17_008, "public", "outer_view", 'v');
    shard.relation(17_009, "public", "numbers", 'S').relation(17_010, "public", "settings_view", 'v');
    shard.table(17_011, "checked").table(17_012, "stamped").relation(17_013, "public", "counting", 'v');
    let catalog = shard
        .row(Part::Triggers, "17002|20001")
        .row(Part::Triggers, "17012|20002")
        // Deleting from `parent` writes `child`, which deletes from nothing else.
        .row(Part::Constraints, "17004|f|{1}|17003|{1}|t")
        .row(Part::Triggers, "17004|20001")
        .row(Part::Inheritance, "17006|17005")
        .row(Part::Triggers, "17006|20001")
        .row(Part::TreeReferences, "view|17007|f|20001|locks")
        .row(Part::TreeReferences, "view|17007|t|17001|-")
        .row(Part::TreeReferences, "view|17008|t|17007|-")
        .row(Part::TreeReferences, "view|17010|t|12000|-")
        .row(Part::TreeReferences, "view|17013|f|1574|nextval")
        .row(Part::TreeReferences, "check|17011|f|20001|locks")
        .catalog();
    let (state, writes) = (Effects::STATE, Effects::WRITES);
    for (name, reads, written) in [
        ("plain", Effects::NONE, Effects::NONE),
        ("triggered", Effects::NONE, state.and(writes)),
        ("parent", Effects::NONE, state.and(writes)),
        ("whole", Effects::NONE, state.and(writes)),
        ("part", Effects::NONE, state.and(writes)),
        ("seen", state.and(writes), state.and(writes)),
        ("outer_view", state.and(writes), state.and(writes)),
        ("numbers", Effects::PRIMARY, Effects::NONE),
        ("settings_view", Effects::PRIMARY, Effects::SETTINGS.and(Effects::PRIMARY)),
        ("checked", Effects::NONE, state.and(writes)),
        ("stamped", Effects::NONE, writes),
        ("counting", writes, writes),
    ] {
        assert_eq!(catalog.reading(&table(name)), Some(reads), "reading {name}");
        assert_eq!(catalog.writing(&table(name)), Some(written), "writing {name}");
    }
    assert_eq!(catalog.reading(&table("nothing")), None);
    assert_eq!(catalog.reading(&table("app.plain")), None);
}

#[test]
fn domains_and_policies_count_where_they_are_used() {
    let mut shard = Shard::new();
    shard
        .function(20_001, "locks", 'v', "plpgsql", LOCKS)
        .table(17_001, "of_domain")
        .table(17_002, "guarded");
    let catalog = shard
        .row(Part::Types, "18001|public|positive|d|23|0|0")
        .row(Part::Types, "18002|public|more_positive|d|18001|0|0")
        .column(17_001, 1, "a|18002|-1|0|f|")
        .row(Part::TreeReferences, "domain|18001|f|20001|locks")
        .row(Part::TreeReferences, "policy|17002|f|20001|locks")
        .catalog();
    assert_eq!(catalog.reading(&table("of_domain")), Some(Effects::NONE));
    assert!(catalog.writing(&table("of_domain")).unwrap().leaves());
    assert!(catalog.reading(&table("guarded")).unwrap().leaves());
}

#[test]
fn a_search_path_says_what_a_name_means() {
    let mut shard = Shard::new();
    shard.relation(17_001, "public", "t", 'r').relation(17_002, "app", "t", 'r');
    shard.relation(17_003, "public", "pg_class", 'r').relation(17_004, "anna", "u", 'r');
    let schema = shard.finish();
    let found = |name: &str, path: &str| {
        let path = SearchPath::parse(path, "anna");
        schema.resolve(&table(name), &path).map(|it| it.oid)
    };
    assert_eq!(found("t", "public"), Some(17_001));
    assert_eq!(found("t", "app, public"), Some(17_002));
    assert_eq!(found("t", "nothing"), None);
    assert_eq!(found("app.t", "public"), Some(17_002));
    assert_eq!(found("u", "\"$user\", public"), Some(17_004));
    assert_eq!(found("pg_class", "public"), None, "PostgreSQL's own comes first");
    assert_eq!(found("pg_class", "public, pg_catalog"), Some(17_003));
    let of = schema.search_paths.of("anna").unwrap();
    assert_eq!(of.schemas().collect::<Vec<_>>(), ["pg_catalog", "anna", "public"]);
}

#[test]
fn differences_name_what_differs() {
    let shard = |column: &str, unique: &str, body: &str| {
        let mut shard = Shard::new();
        shard.table(17_000, "t").column(17_000, 1, "id").column(17_000, 3, column);
        shard.row(Part::Constraints, &format!("17000|{unique}|0|-|f"));
        shard.function(20_001, "f", 'i', "sql", body).finish()
    };
    let same = || shard("b|20|-1|0|f|", "p|{1}", "SELECT 1");
    let names = ["s1".to_owned(), "s2".to_owned()];
    let told = |first: Arc<Schema>, other: Arc<Schema>| {
        let catalog = Catalog::new(vec![first, other], &names);
        catalog.difference(&table("t"), |_| true).map(|(name, it)| format!("{name}: {it}"))
    };
    assert_eq!(told(same(), same()), None);
    for (other, want) in [
        (shard("b|23|-1|0|f|", "p|{1}", ""), "column \"b\" is int8 on shard \"s1\", int4 on shard \"s2\""),
        (shard("b|20|-1|0|t|", "p|{1}", ""), "int8 on shard \"s1\", int8 not null on shard \"s2\""),
        (shard("c|20|-1|0|f|", "p|{1}", ""), "its columns are id, b on shard \"s1\", id, c on"),
        (shard("b|20|-1|0|f|", "u|{1}", ""), "its keys are primary key (id) on shard \"s1\", unique (id)"),
        (Shard::new().finish(), "it does not exist on shard \"s2\""),
    ] {
        let said = told(same(), other).unwrap();
        assert!(said.starts_with("public.t: ") && said.contains(want), "{said}\n{want}");
    }
    assert!(told(Shard::new().finish(), same()).unwrap().contains("on shard \"s1\""));
    let unlike = Catalog::new(vec![same(), shard("b|20|-1|0|f|", "p|{1}", "SELECT 2")], &names);
    assert_eq!(unlike.calling(None, "f").unwrap().volatility, Volatility::Stable);
    let both = Catalog::new(vec![same(), same()], &names);
    assert_eq!(both.calling(None, "f").unwrap().volatility, Volatility::Immutable);
    assert_ne!(both.version(), unlike.version());
}

#[test]
fn texts_are_in_the_order_of_their_bytes_where_the_collation_says_so() {
    let mut shard = Shard::new();
    shard
        .row(Part::Collations, "100|pg_catalog|default|d||t")
        .row(Part::Collations, "950|pg_catalog|C|c|C|t");
    shard.row(Part::Collations, "18001|public|german|i|de|t");
    shard.row(Part::Collations, "18002|public|points|b|C.UTF-8|t");
    let schema = shard.finish();
    assert_eq!(
        [100, 950, 18_001, 18_002, 7].map(|it| schema.is_byte_order(it)),
        [false, true, false, true, false]
    );
}

#[test]
fn what_is_too_large_or_senseless_is_an_error() {
    let mut reader = SchemaReader::new(1);
    let row = [Some("nextval")];
    assert!(reader.take(Part::SystemFunctions, &row).is_ok());
    assert!(matches!(reader.take(Part::SystemFunctions, &row), Err(RowError::TooMany(1))));
    let mut reader = SchemaReader::new(10);
    let senseless = reader.take(Part::Relations, &[Some("x"), None]);
    assert!(matches!(senseless, Err(RowError::Senseless(Part::Relations))));
}

fn router(shards: &[&str]) -> crate::route::Router {
    use crate::config::{TableName, TableRule};
    let names = shards.iter().map(|it| (*it).to_owned()).collect();
    let countries = TableName { schema: None, name: "t".into() };
    let tables = [(countries, TableRule::Reference)].into();
    crate::route::Router::of_parts(names, Vec::new(), tables, 100, Arc::default())
}

#[test]
fn plans_know_what_functions_and_tables_do() {
    use crate::base::Access;
    use crate::route::{Kind, Leaves};
    let router = router(&["s1"]);
    let before = router.plan("SELECT native()").plan;
    assert!(before.meets_catalog && router.plan("SELECT a FROM t").plan.meets_catalog);
    assert!(!router.plan("SELECT now(), lower('A')").plan.meets_catalog);
    let mut shard = Shard::new();
    shard.function(20_001, "native", 'v', "c", "").function(20_002, "stable", 's', "sql", "SELECT 1");
    shard
        .function(20_003, "lower", 'i', "sql", "SELECT $1")
        .function(20_004, "stamps", 'v', "plpgsql", STAMPS);
    shard.table(17_001, "t").table(17_002, "triggered").relation(17_003, "public", "seen", 'v');
    shard.row(Part::Relations, "17004|public|unlogged|r|u|f").row(Part::Triggers, "17002|20001");
    shard.row(Part::TreeReferences, "view|17003|f|20001|native");
    router.adopt(Arc::new(shard.catalog()));
    assert_ne!(router.version(), before.version);
    let opaque = Some(Leaves { settings: true, unknown_table: false });
    let temporary = Some(Leaves { settings: true, unknown_table: true });
    for (sql, access, leaves) in [
        ("SELECT native()", Access::Write, opaque),
        ("SELECT stable(), lower('A')", Access::Read, None),
        ("SELECT stamps()", Access::Write, None),
        ("SELECT nextval('s')", Access::Write, None),
        ("SELECT newer()", Access::Write, opaque),
        ("SELECT a FROM t", Access::Read, None),
        ("SELECT a FROM seen", Access::Write, opaque),
        ("SELECT a FROM triggered", Access::Read, None),
        ("INSERT INTO triggered VALUES (1)", Access::Write, opaque),
        ("WITH x AS (DELETE FROM triggered RETURNING a) SELECT * FROM x", Access::Write, opaque),
        ("COPY triggered FROM STDIN", Access::Write, opaque),
        ("COPY triggered TO STDOUT", Access::Read, None),
        ("INSERT INTO t VALUES (1)", Access::Write, None),
        ("SELECT a FROM not_there", Access::Read, temporary),
        ("SELECT a FROM pg_class", Access::Read, None),
        ("EXPLAIN SELECT native()", Access::Write, None),
        ("EXPLAIN ANALYZE SELECT native()", Access::Write, opaque),
        ("DECLARE c CURSOR FOR SELECT native()", Access::Write, opaque),
        ("SELECT query_to_xml('SELECT native()', true, true, '')", Access::Write, opaque),
        ("SELECT 1; SELECT native()", Access::Write, opaque),
    ] {
        let plan = router.plan(sql).plan;
        assert_eq!((plan.access, plan.leaves), (access, leaves), "{sql}");
        assert_eq!(plan.version, router.version());
    }
    assert!(router.plan("SELECT a FROM unlogged").plan.primary_only);
    let settings = router.plan("UPDATE pg_settings SET setting = '1' WHERE name = 'x'").plan;
    assert_eq!(settings.kind, Kind::SessionState("set_config"));
}

#[test]
fn ddl_says_what_it_does_to_the_catalog() {
    use crate::route::SchemaChange;
    let router = router(&["s1"]);
    for (sql, change) in [
        ("CREATE TABLE t (a int)", SchemaChange::Any),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", SchemaChange::Any),
        ("SELECT 1 AS a INTO t", SchemaChange::Any),
        ("SELECT 1; ALTER TABLE t ADD b int", SchemaChange::Any),
        ("DROP TABLE t", SchemaChange::Harmless),
        ("CREATE INDEX ON t (a)", SchemaChange::Harmless),
        ("CREATE TEMP TABLE t (a int)", SchemaChange::None),
        ("TRUNCATE t", SchemaChange::None),
        ("SELECT 1", SchemaChange::None),
    ] {
        assert_eq!(router.plan(sql).plan.schema_change, change, "{sql}");
    }
}

#[test]
fn a_table_that_differs_is_refused_until_it_does_not() {
    let router = router(&["s1", "s2"]);
    let shard = |column: &str| Shard::new().table(17_000, "t").column(17_000, 1, column).finish();
    let names = ["s1".to_owned(), "s2".to_owned()];
    let refusal =
        |sql: &str| router.plan(sql).plan.refusal().map(|it| (it.reason(), it.message().to_owned()));
    router.adopt(Arc::new(Catalog::new(vec![shard("a|23|-1|0|f|"), shard("a|20|-1|0|f|")], &names)));
    let (reason, message) = refusal("SELECT a FROM t").unwrap();
    assert_eq!(reason, crate::base::Reason::Difference);
    assert_eq!(message, "table \"t\" is not the same on every shard");
    assert_eq!(refusal("ALTER TABLE t ALTER a TYPE bigint"), None, "what makes it the same is not");
    router.adopt(Arc::new(Catalog::new(vec![shard("a|20|-1|0|f|"), shard("a|20|-1|0|f|")], &names)));
    assert_eq!(refusal("SELECT a FROM t"), None);
}

#[test]
fn a_schema_that_lives_on_one_shard_is_not_asked_of_the_others() {
    let schemas = [("tenant_0".to_owned(), crate::base::ShardId(0))].into();
    let router = router(&["s1", "s2"]).with_homes(schemas, None);
    let names = ["s1".to_owned(), "s2".to_owned()];
    let homed = || Shard::new().table(17_000, "t").relation(17_001, "tenant_0", "t", 'r').finish();
    let refused = |first: Arc<Schema>, other: Arc<Schema>| {
        router.adopt(Arc::new(Catalog::new(vec![first, other], &names)));
        router.plan("SELECT * FROM t").plan.refusal().map(|it| it.reason())
    };
    assert_eq!(refused(homed(), Shard::new().table(17_000, "t").finish()), None);
    assert_eq!(refused(homed(), Shard::new().finish()), Some(crate::base::Reason::Difference));
}

#[test]
fn a_catalog_makes_no_other_router() {
    let (one, other) = (router(&["s1"]), router(&["s1"]));
    assert!(one.is_same(&other));
    one.adopt(Arc::new(Shard::new().table(17_000, "t").catalog()));
    assert_ne!(one.version(), other.version());
    assert!(one.is_same(&other) && one.config_version() == other.config_version());
    assert!(!one.is_same(&router(&["s1", "s2"])));
}

/// Two shards on which the users of ids below 100 are apart from the others.
fn sharded() -> crate::route::Router {
    use crate::config::{TableName, TableRule};
    use crate::shard::{KeyType, KeyValue, Map, Range};
    let range = |from: Option<i64>, to: Option<i64>, shard| Range {
        from: from.map(KeyValue::Int),
        to: to.map(KeyValue::Int),
        shard: ShardId(shard),
    };
    let ranges = vec![range(None, Some(100), 0), range(Some(100), None, 1)];
    let map = Arc::new(Map::range("by_id", &[KeyType::Bigint.into()], ranges).unwrap());
    let rule = TableRule::Sharded { map: 0, key: vec!["id".into()] };
    let tables = [(TableName { schema: None, name: "t".into() }, rule)].into();
    crate::route::Router::of_parts(vec!["s1".into(), "s2".into()], vec![map], tables, 100, Arc::default())
}

/// A table of a text, and what the database and the text are compared by.
fn text_shard(database: &str, collation: Oid, more: &[(Part, &str)]) -> Arc<Schema> {
    let mut shard = Shard { reader: SchemaReader::new(1_000) };
    shard.row(Part::Database, &format!("{database}|150000|public"));
    shard
        .row(Part::Collations, "100|pg_catalog|default|d||t")
        .row(Part::Collations, "950|pg_catalog|C|c|C|t");
    shard.row(Part::Collations, "18001|public|german|i|de|t");
    shard.table(17_000, "t").column(17_000, 1, "id|20|-1|0|t|");
    shard.column(17_000, 2, &format!("name|25|-1|{collation}|f|"));
    for (part, row) in more {
        shard.row(*part, row);
    }
    shard.finish()
}

fn text_catalog(first: Arc<Schema>, other: Arc<Schema>) -> Arc<Catalog> {
    Arc::new(Catalog::new(vec![first, other], &["s1".into(), "s2".into()]))
}

/// How rows of both shards are sorted by their first column.
fn sorted_by(router: &crate::route::Router, sql: &str) -> crate::merge::Collation {
    use crate::route::{Described, KeySource};
    let planned = router.plan(sql);
    let read = planned.plan.shard_read().unwrap_or_else(|| panic!("{sql}: {:?}", planned.plan));
    let source = KeySource { text: sql, literals: &planned.literals, params: None };
    let output = crate::wire::RowField {
        name: b"name",
        table_oid: 0,
        attribute: 0,
        type_oid: 25,
        type_bytes: -1,
        type_mod: -1,
        binary: false,
    };
    let described = Described { param_oids: &[], outputs: &[output], typing: &[] };
    read.query(&source, &described, true).unwrap().spec.sorted[0].collation
}

#[test]
fn texts_of_several_shards_are_sorted_by_bytes_where_every_collation_says_so() {
    use crate::merge::Collation::{Bytes, Deterministic, Unknown};
    let router = sharded();
    let sql = "SELECT name FROM t ORDER BY name";
    assert_eq!(sorted_by(&router, sql), Unknown, "nothing is known");
    let c = || text_shard("UTF8|c|C", 100, &[]);
    let domain = (Part::Types, "18010|public|word|d|25|0|18001");
    for (first, other, want) in [
        (c(), c(), Bytes),
        (text_shard("UTF8|b|C.UTF-8", 100, &[]), c(), Bytes),
        (text_shard("UTF8|c|C", 950, &[]), text_shard("UTF8|c|C", 950, &[]), Bytes),
        (c(), text_shard("UTF8|c|de_DE.utf8", 100, &[]), Deterministic),
        (c(), text_shard("UTF8|i|C", 100, &[]), Deterministic),
        (c(), text_shard("LATIN1|c|C", 100, &[]), Deterministic),
        (text_shard("UTF8|c|C", 18_001, &[]), text_shard("UTF8|c|C", 18_001, &[]), Deterministic),
        (text_shard("UTF8|c|C", 100, &[domain]), text_shard("UTF8|c|C", 100, &[domain]), Deterministic),
    ] {
        let told = format!("{:?} {:?}", first.locale, other.locale);
        router.adopt(text_catalog(first, other));
        assert_eq!(sorted_by(&router, sql), want, "{told}");
    }
    router.adopt(text_catalog(c(), c()));
    assert_eq!(sorted_by(&router, "SELECT lower(name) FROM t ORDER BY 1"), Bytes);
    assert_eq!(sorted_by(&router, "SELECT name FROM t ORDER BY name COLLATE \"C\""), Bytes);
    assert_eq!(sorted_by(&router, "SELECT name COLLATE german FROM t ORDER BY 1"), Deterministic);
    let inner = "SELECT x FROM (SELECT id, name COLLATE \"de-x-icu\" AS x FROM t) s ORDER BY x";
    assert_eq!(sorted_by(&router, inner), Deterministic);
    // Where a collation may find different bytes equal, neither what is of it nor what could be is told apart.
    let folding = (Part::Collations, "18003|public|folding|i|und-u-ks-level2|f");
    let with = |of: Oid| text_shard("UTF8|c|C", of, &[folding]);
    router.adopt(text_catalog(with(100), with(100)));
    assert_eq!(sorted_by(&router, sql), Bytes);
    assert_eq!(sorted_by(&router, "SELECT name COLLATE folding FROM t ORDER BY 1"), Unknown);
    router.adopt(text_catalog(with(100), with(18_003)));
    assert_eq!(sorted_by(&router, sql), Unknown);
}

/// The statement as servers get it, and its shards by their numbers; or the message of its refusal.
fn named(router: &crate::route::Router, sql: &str, session: &crate::route::SessionView) -> String {
    use crate::route::KeySource;
    let planned = router.plan(sql);
    let keys = KeySource { text: sql, literals: &planned.literals, params: None };
    match router.decide(&planned.plan, &keys, session) {
        Err(refusal) => format!("! {}", refusal.message()),
        Ok(decision) => {
            let shards: Vec<u16> = decision.shards.iter().map(|it| it.0).collect();
            let text = planned.plan.column_lists().map_or(sql.to_owned(), |it| it.name(sql).text);
            format!("{text} {shards:?}")
        }
    }
}

/// A column was dropped in front of the key, one is generated, and one has a name to be quoted.
fn wide_shard() -> Arc<Schema> {
    let mut shard = Shard::new();
    shard.table(17_000, "t").column(17_000, 1, "a \"b|25|-1|0|f|").column(17_000, 3, "id|20|-1|0|t|");
    shard.column(17_000, 4, "g|20|-1|0|f|g").column(17_000, 5, "n|20|-1|0|t|i").finish()
}

#[test]
fn columns_that_an_insert_leaves_out_are_the_catalogs() {
    let router = sharded();
    let session = crate::route::SessionView::default();
    let refused = "! INSERT into table \"t\" does not name its columns";
    assert_eq!(named(&router, "INSERT INTO t VALUES ('x', 7)", &session), refused, "nothing is known");
    router.adopt(text_catalog(wide_shard(), wide_shard()));
    let (two, all) = ("(\"a \"\"b\", \"id\")", "(\"a \"\"b\", \"id\", \"g\", \"n\")");
    for (sql, want) in [
        ("INSERT INTO t VALUES ('x', 7)", format!("INSERT INTO t {two} VALUES ('x', 7) [0]")),
        ("INSERT INTO t VALUES ('x', '100')", format!("INSERT INTO t {two} VALUES ('x', '100') [1]")),
        (
            "INSERT INTO public.t AS u VALUES ('x', 7, DEFAULT, 5), ('y', 8, DEFAULT, 6) RETURNING u.id",
            format!(
                "INSERT INTO public.t AS u {all} VALUES ('x', 7, DEFAULT, 5), ('y', 8, DEFAULT, 6) RETURNING u.id [0]"
            ),
        ),
        // One too many is for the server to tell.
        (
            "INSERT INTO t VALUES ('x', 7, 1, 2, 3)",
            format!("INSERT INTO t {all} VALUES ('x', 7, 1, 2, 3) [0]"),
        ),
        ("INSERT INTO t SELECT 'x', 107", format!("INSERT INTO t {two} SELECT 'x', 107 [1]")),
        ("EXPLAIN INSERT INTO t VALUES ('x', 7)", format!("EXPLAIN INSERT INTO t {two} VALUES ('x', 7) [0]")),
        (
            "WITH i AS (INSERT INTO t VALUES ('x', 7) RETURNING id) SELECT id FROM i",
            format!("WITH i AS (INSERT INTO t {two} VALUES ('x', 7) RETURNING id) SELECT id FROM i [0]"),
        ),
        (
            "INSERT INTO t VALUES ('x', 7); INSERT INTO t VALUES ('y', 8)",
            format!("INSERT INTO t {two} VALUES ('x', 7); INSERT INTO t {two} VALUES ('y', 8) [0]"),
        ),
        ("INSERT INTO t (id) VALUES (7)", "INSERT INTO t (id) VALUES (7) [0]".to_owned()),
        ("INSERT INTO t VALUES ('x')", "! INSERT into table \"t\" lacks its shard key \"id\"".to_owned()),
        (
            "INSERT INTO t DEFAULT VALUES",
            "! INSERT into table \"t\" has no constant for its shard key \"id\"".to_owned(),
        ),
        (
            "INSERT INTO t SELECT * FROM t WHERE id = 7",
            "! INSERT into table \"t\" has no constant for its shard key \"id\"".to_owned(),
        ),
        ("INSERT INTO U&\"t\" VALUES ('x', 7)", refused.to_owned()),
    ] {
        assert_eq!(named(&router, sql, &session), want, "{sql}");
    }
    // As few as the values are, the columns do not change what is refused of the rest.
    let other = "INSERT INTO t VALUES ('x', 7), ('y', 107)";
    assert!(named(&router, other, &session).contains("several shards"));
    // Another order on one shard, or another table of the name.
    let mut shard = Shard::new();
    shard.table(17_000, "t").column(17_000, 1, "id|20|-1|0|t|").column(17_000, 2, "a \"b|25|-1|0|f|");
    router.adopt(text_catalog(wide_shard(), shard.finish()));
    assert!(named(&router, "INSERT INTO t VALUES ('x', 7)", &session).starts_with("! "));
    let two = || {
        let mut shard = Shard::new();
        shard.table(17_000, "t").column(17_000, 1, "id|20|-1|0|t|");
        shard.relation(17_001, "app", "t", 'r').column(17_001, 1, "x|20|-1|0|t|").finish()
    };
    router.adopt(text_catalog(two(), two()));
    assert_eq!(named(&router, "INSERT INTO t VALUES (7)", &session), refused);
    assert_eq!(
        named(&router, "INSERT INTO public.t VALUES (7)", &session),
        "INSERT INTO public.t (\"id\") VALUES (7) [0]"
    );
}

#[test]
fn a_name_in_group_by_is_an_outputs_where_no_table_has_it() {
    let router = sharded();
    let refused = |sql: &str| router.plan(sql).plan.shard_read().is_none();
    let by = |name: &str| format!("SELECT lower(name) AS {name}, count(*) FROM t GROUP BY {name}");
    assert!(refused(&by("word")), "nothing is known");
    let c = || text_shard("UTF8|c|C", 100, &[]);
    router.adopt(text_catalog(c(), c()));
    assert!(!refused(&by("word")));
    assert!(refused(&by("name")), "a column of the table");
    assert!(refused(&by("ctid")), "a column of every table");
    for sql in [
        "SELECT lower(name) AS x, count(*) FROM t AS t(id, name, x) GROUP BY x",
        "SELECT lower(name) AS x, count(*) FROM t, generate_series(1, 2) AS x GROUP BY x",
        "SELECT lower(name) AS x, count(*) FROM t JOIN newer USING (id) GROUP BY x",
    ] {
        assert!(refused(sql), "{sql}");
    }
    let more = [(Part::Columns, "17000|word|3|25|-1|100|f|")];
    let other = || text_shard("UTF8|c|C", 100, &more);
    router.adopt(text_catalog(other(), other()));
    assert!(refused(&by("word")));
}
