//! Which rows a statement touches, by the catalog.

use super::*;
use crate::route::catalog::{Catalog, Part, SchemaReader};
use crate::route::footprint::{Touched, table_id};

/// Names of tables, their oids from 17,001 on.
const TABLES: [(&str, char); 14] = [
    ("plain", 'r'),
    ("serial_text", 'r'),
    ("parent", 'r'),
    ("child", 'r'),
    ("whole", 'p'),
    ("part", 'r'),
    ("triggered", 'r'),
    ("stamped", 'r'),
    ("shown", 'v'),
    ("users", 'r'),
    ("ruled", 'r'),
    ("rounded", 'r'),
    ("rewritten", 'r'),
    ("identity", 'r'),
];

const AUDITS: &str = "BEGIN INSERT INTO plain VALUES (1); RETURN NEW; END";
const STAMPS: &str = "BEGIN NEW.at := now(); RETURN NEW; END";

pub(super) fn catalog() -> Catalog {
    let mut reader = SchemaReader::new(1_000);
    let mut row = |part: Part, row: &str| {
        let values: Vec<Option<&str>> = row.split('|').map(|it| (it != "-").then_some(it)).collect();
        reader.take(part, &values).unwrap();
    };
    row(Part::Database, "UTF8|c|C.UTF-8|150000|\"$user\", public");
    row(Part::SystemRelations, "pg_class|1259");
    row(Part::SystemFunctions, "nextval");
    let oid = |name: &str| 17_001 + TABLES.iter().position(|it| it.0 == name).unwrap();
    for (name, kind) in TABLES {
        row(Part::Relations, &format!("{}|public|{name}|{kind}|p|f", oid(name)));
    }
    for (name, kind) in TABLES {
        let of = if name == "serial_text" { 25 } else { 20 };
        let collation = if name == "serial_text" { 100 } else { 0 };
        let typmod = if name == "rounded" { 1 } else { -1 };
        let default = if name == "identity" { "i" } else { "" };
        row(Part::Columns, &format!("{}|id|1|{of}|{typmod}|{collation}|t|{default}", oid(name)));
        row(Part::Columns, &format!("{}|a|2|23|-1|0|f|", oid(name)));
        if kind != 'v' {
            row(Part::Constraints, &format!("{}|p|{{1}}|-|-|f", oid(name)));
        }
    }
    row(Part::Collations, "100|pg_catalog|default|d||t");
    row(Part::Constraints, &format!("{}|f|{{2}}|{}|{{1}}|t", oid("child"), oid("parent")));
    row(Part::Inheritance, &format!("{}|{}", oid("part"), oid("whole")));
    row(Part::Functions, &format!("20001|public|audits||v|f|plpgsql|f|-|{AUDITS}|a"));
    row(Part::Functions, &format!("20002|public|stamps||v|f|plpgsql|f|-|{STAMPS}|b"));
    row(Part::Functions, "20003|public|reads_some||s|f|c|f|-|-|c");
    row(Part::Functions, "20004|public|adds||i|f|sql|f|-|SELECT 1 + $1|d");
    row(Part::Triggers, &format!("{}|20001", oid("triggered")));
    row(Part::Triggers, &format!("{}|20002", oid("stamped")));
    row(Part::Functions, "20005|public|rewrites||v|f|plpgsql|f|-|BEGIN NEW.id := 7; RETURN NEW; END|e");
    row(Part::Triggers, &format!("{}|20005", oid("rewritten")));
    row(Part::TreeReferences, &format!("rule|{}|t|{}|-", oid("ruled"), oid("parent")));
    row(Part::TreeReferences, &format!("view|{}|t|{}|-", oid("shown"), oid("plain")));
    row(Part::TreeReferences, &format!("view|{}|t|{}|-", oid("shown"), oid("part")));
    Catalog::new(vec![Arc::new(reader.finish())], &["s0".into()])
}

fn with_catalog(shards: usize) -> Router {
    let router = router_of(shards);
    router.adopt(Arc::new(catalog()));
    router
}

/// `a`, or `a!` where it is keyed, in order; `*` is any table.
fn shown(touched: &Touched) -> String {
    let Touched::Tables(tables) = touched else { return "*".into() };
    let name = |id: u64| TABLES.iter().find(|it| table_id(it.0) == id).map_or("?", |it| it.0);
    let mut names: Vec<String> =
        tables.iter().map(|it| format!("{}{}", name(it.id), if it.keyed { "!" } else { "" })).collect();
    names.sort();
    names.join(" ")
}

#[test]
fn tables_are_told_by_the_catalog() {
    let router = with_catalog(1);
    let mut wrong = Vec::new();
    for (sql, reads, writes) in [
        ("SELECT 1", "", ""),
        ("SELECT * FROM plain WHERE id = 7", "plain!", ""),
        ("SELECT * FROM plain WHERE id IN (7, 8) AND a = 1", "plain!", ""),
        ("SELECT * FROM plain WHERE id = 7 OR a = 1", "plain", ""),
        ("SELECT * FROM plain WHERE id > 7", "plain", ""),
        ("SELECT * FROM plain p JOIN child c ON c.id = p.id WHERE p.id = 7", "child! plain!", ""),
        ("SELECT * FROM plain p JOIN child c ON c.a = p.id WHERE p.id = 7", "child plain", ""),
        ("SELECT * FROM plain WHERE id = 7 UNION SELECT * FROM child WHERE id = 7", "child plain", ""),
        ("SELECT * FROM shown WHERE id = 7", "plain whole", ""),
        ("SELECT * FROM part WHERE id = 7", "whole", ""),
        ("SELECT * FROM serial_text WHERE id = 'x'", "serial_text!", ""),
        ("SELECT * FROM missing", "*", ""),
        ("SELECT reads_some(1) FROM plain WHERE id = 7", "*", ""),
        ("SELECT adds(1), now(), nextval('s') FROM plain WHERE id = 7", "plain!", ""),
        ("SELECT audits()", "*", "*"),
        ("SELECT unheard_of()", "*", "*"),
        ("SELECT pg_advisory_xact_lock(1), pg_notify('a', 'b')", "", ""),
        ("SELECT * FROM plain WHERE id = 7 FOR UPDATE", "plain!", ""),
        ("COPY plain TO STDOUT", "plain", ""),
        ("EXPLAIN DELETE FROM plain", "", ""),
        ("INSERT INTO plain (id, a) VALUES (7, 1)", "", "plain!"),
        ("INSERT INTO plain (id, a) VALUES (7, 1), (8, 2)", "", "plain!"),
        ("INSERT INTO plain (a) VALUES (1)", "", "plain"),
        ("INSERT INTO plain (id, a) VALUES (7, 1) ON CONFLICT DO NOTHING", "", "plain!"),
        ("INSERT INTO plain (id) VALUES (7) ON CONFLICT (a) DO UPDATE SET a = 1", "", "plain"),
        ("UPDATE plain SET a = 2 WHERE id = 7", "", "plain!"),
        ("UPDATE plain SET id = 8 WHERE id = 7", "", "plain"),
        ("UPDATE plain SET a = 2", "", "plain"),
        ("DELETE FROM plain WHERE id = 7", "", "plain!"),
        ("DELETE FROM parent WHERE id = 7", "", "child parent!"),
        ("UPDATE part SET a = 1 WHERE id = 7", "", "whole"),
        ("INSERT INTO stamped (id) VALUES (7)", "", "stamped!"),
        ("INSERT INTO triggered (id) VALUES (7)", "", "*"),
        ("UPDATE shown SET a = 1", "", "*"),
        ("INSERT INTO ruled (id) VALUES (7)", "", "*"),
        ("SELECT * FROM rounded WHERE id = 7", "rounded", ""),
        ("INSERT INTO rewritten (id) VALUES (8)", "", "rewritten"),
        ("DELETE FROM rewritten WHERE id = 8", "", "rewritten"),
        ("SELECT * FROM rewritten WHERE id = 8", "rewritten!", ""),
        ("INSERT INTO identity (id) VALUES (8)", "", "identity"),
        ("UPDATE identity SET a = 1 WHERE id = 8", "", "identity!"),
        ("EXPLAIN ANALYZE EXECUTE p", "*", "*"),
        ("EXECUTE p", "", ""),
        ("COPY plain FROM STDIN", "", "plain"),
        ("WITH x AS (DELETE FROM plain WHERE id = 7 RETURNING a) SELECT * FROM x", "", "plain!"),
        ("CREATE TABLE x (a int)", "*", "*"),
        ("TRUNCATE plain", "*", "*"),
        ("DO 'BEGIN END'", "*", "*"),
        ("CALL audits()", "*", "*"),
        ("COMMIT PREPARED 'x'", "*", "*"),
        ("SET work_mem = 1", "", ""),
        ("BEGIN; UPDATE plain SET a = 1 WHERE id = 7; COMMIT", "", "plain!"),
        ("UPDATE plain SET a = 1 WHERE id = 7; SELECT * FROM parent WHERE id = 7", "parent!", "plain!"),
        ("LISTEN a", "", ""),
        ("not sql", "*", "*"),
    ] {
        let plan = router.plan(sql).plan;
        let found = (shown(&plan.footprint.reads), shown(&plan.footprint.writes));
        if (found.0.as_str(), found.1.as_str()) != (reads, writes) {
            wrong.push(format!("{sql}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn keys_are_the_same_however_they_are_written() {
    let router = with_catalog(1);
    let keys = |sql: &str, params: &[Option<&str>]| {
        let planned = router.plan(sql);
        let values: Vec<Option<&[u8]>> = params.iter().map(|it| it.map(str::as_bytes)).collect();
        let params = (!values.is_empty()).then_some(Params { oids: &[], formats: &[], values: &values });
        let source = KeySource { text: sql, literals: &planned.literals, params };
        router.touched_keys(&planned.plan, &source, &session()).map(|it| it.to_vec())
    };
    let seven = keys("SELECT * FROM plain WHERE id = 7", &[]).unwrap();
    assert_eq!(seven.len(), 1);
    for sql in [
        "SELECT * FROM plain WHERE id = '7'",
        "SELECT a FROM plain p WHERE 7::bigint = p.id AND a > 3",
        "UPDATE plain SET a = a + 1 WHERE id = 7",
        "INSERT INTO plain (a, id) VALUES (1, 7)",
    ] {
        assert_eq!(keys(sql, &[]).as_ref(), Some(&seven), "{sql}");
    }
    assert_eq!(keys("SELECT * FROM plain WHERE id = $1", &[Some("7")]).as_ref(), Some(&seven));
    assert_ne!(keys("SELECT * FROM plain WHERE id = 8", &[]).as_ref(), Some(&seven));
    assert_eq!(keys("SELECT * FROM plain WHERE id IN (7, 8)", &[]).map(|it| it.len()), Some(2));
    let many = format!("SELECT * FROM plain WHERE id IN ({})", vec!["1"; 40].join(", "));
    assert_eq!(keys(&many, &[]), None, "too many to list");
    assert_eq!(keys("SELECT * FROM plain WHERE a = 7", &[]), None);
    assert_eq!(keys("SELECT * FROM plain WHERE id = NULL", &[]), None);
}

#[test]
fn sharded_tables_go_by_their_shard_keys() {
    let router = with_catalog(3);
    for (sql, reads, writes) in [
        ("SELECT * FROM users WHERE user_id = 7", "users!", ""),
        ("SELECT * FROM users WHERE id = 7", "users", ""),
        ("UPDATE users SET a = 1 WHERE user_id = 7", "", "users!"),
        ("DELETE FROM users WHERE user_id IN (7, 8)", "", "users!"),
    ] {
        let plan = router.plan(sql).plan;
        let found = (shown(&plan.footprint.reads), shown(&plan.footprint.writes));
        assert_eq!((found.0.as_str(), found.1.as_str()), (reads, writes), "{sql}");
    }
}
