//! Kinds of statements, and what may go to a replica.

use super::*;
use crate::base::Access;
use crate::sql::{CursorStatement, FetchRows, Isolation};

fn role(session: SessionView, sql: &str) -> Role {
    decide_in(&router_of(1), sql, &[], &session).unwrap().role
}

#[test]
fn only_what_is_known_to_read_goes_to_a_replica() {
    for sql in [
        "SELECT 1",
        "SELECT count(*), now(), lower(a), coalesce(a, b), CURRENT_TIMESTAMP FROM t GROUP BY 1",
        "SELECT random(), gen_random_uuid(), clock_timestamp()",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "VALUES (1)",
        "TABLE t",
        "COPY (SELECT 1) TO STDOUT",
        "COPY t TO STDOUT",
        "EXPLAIN SELECT 1",
        "EXPLAIN (ANALYZE, COSTS off) SELECT 1",
        "SELECT a::int, extract(year from b), trim(c), a AT TIME ZONE 'UTC', substring(a from 1) FROM t",
        "SELECT pg_catalog.lower('X')",
        "SELECT 1; SELECT 2",
    ] {
        assert_eq!(role(session(), sql), Role::Replica, "{sql}");
        let open = SessionView { in_transaction: true, ..session() };
        assert_eq!(role(open, sql), Role::Primary, "{sql}");
        let read_only = SessionView { read_only_transaction: true, ..open };
        assert_eq!(role(read_only, sql), Role::Replica, "{sql}");
    }
}

#[test]
fn everything_else_goes_to_the_primary() {
    for sql in [
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
        "SELECT * FROM t WHERE a IN (SELECT a FROM (SELECT 1 AS a FROM t FOR UPDATE) x)",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR KEY SHARE SKIP LOCKED",
        "SELECT nextval('s')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT set_config('a.b', 'c', true) FROM t",
        "SELECT my_function()",
        "SELECT app.lower('x')",
        "SELECT pg_notify('a', 'b')",
        "SELECT pg_is_in_recovery()",
        "SELECT pg_backend_pid(), inet_server_addr()",
        "SELECT txid_current()",
        "SELECT current_setting('port')",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM pg_catalog.pg_class c JOIN t ON true",
        "SHOW transaction_read_only",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
        "EXPLAIN (ANALYZE 'on') DELETE FROM t",
        "COPY (DELETE FROM t RETURNING *) TO STDOUT",
        "COPY t FROM STDIN",
        "COPY t TO '/tmp/x'",
        "COPY t TO PROGRAM 'cat'",
        "CREATE TABLE t (a int)",
        "SELECT * INTO t FROM u",
        "LOCK TABLE t",
        "NOTIFY x",
        "SELECT 1; DELETE FROM t",
        "SELEC 1",
        "SELECT 'open",
        "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE",
        "SELECT JSON_OBJECT('a': f())",
        "VACUUM",
        "SET x.y = 1",
    ] {
        assert_eq!(role(session(), sql), Role::Primary, "{sql}");
    }
}

fn kind(sql: &str) -> Kind {
    router_of(1).plan(sql).plan.kind.clone()
}

fn begin(read_only: bool, isolation: Option<Isolation>) -> Kind {
    Kind::Begin { read_only, isolation }
}

#[test]
fn transaction_control_is_told_apart() {
    assert_eq!(kind("BEGIN"), begin(false, None));
    assert_eq!(kind("begin work read only"), begin(true, None));
    assert_eq!(
        kind("START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ"),
        begin(true, Some(Isolation::RepeatableRead))
    );
    assert_eq!(kind("BEGIN READ ONLY READ WRITE"), begin(false, None));
    assert_eq!(
        kind("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"),
        begin(false, Some(Isolation::Serializable))
    );
    assert_eq!(kind("COMMIT"), Kind::Commit { chain: false });
    assert_eq!(kind("END AND CHAIN"), Kind::Commit { chain: true });
    assert_eq!(kind("/* x */ ABORT"), Kind::Rollback { chain: false });
    assert_eq!(kind("ROLLBACK AND CHAIN"), Kind::Rollback { chain: true });
    assert_eq!(kind("SAVEPOINT a"), Kind::Savepoint);
    assert_eq!(kind("ROLLBACK TO a"), Kind::RollbackTo);
    assert_eq!(kind("RELEASE a"), Kind::Release);
    assert!(kind("SELECT 1; COMMIT").is_transaction_control());
    assert!(!kind("SELECT 1; SELECT 2").is_transaction_control());
}

fn assign(name: &str, local: bool, value: Assigned) -> Kind {
    Kind::Set(SetStatement::Assign { name: name.to_owned(), local, value })
}

#[test]
fn settings_are_named() {
    let word = |it: &str| Assigned::Word(it.to_owned());
    assert_eq!(kind("SET Work_Mem = '1MB'"), assign("work_mem", false, Assigned::Literal));
    assert_eq!(kind("SET SESSION work_mem TO 64"), assign("work_mem", false, Assigned::Literal));
    assert_eq!(kind("SET LOCAL enable_seqscan = OFF"), assign("enable_seqscan", true, word("off")));
    assert_eq!(kind("SET search_path = a, b"), assign("search_path", false, Assigned::Literal));
    assert_eq!(kind("SET app.tenant = 'x'"), assign("app.tenant", false, Assigned::Literal));
    assert_eq!(kind("SET TIME ZONE 'UTC'"), assign("timezone", false, Assigned::Literal));
    assert_eq!(kind("SET TIME ZONE LOCAL"), Kind::Set(SetStatement::Reset { name: "timezone".into() }));
    assert_eq!(kind("SET NAMES 'utf8'"), assign("client_encoding", false, Assigned::Literal));
    assert_eq!(kind("SET a.b TO DEFAULT"), Kind::Set(SetStatement::Reset { name: "a.b".into() }));
    assert_eq!(kind("SET LOCAL work_mem TO DEFAULT"), assign("work_mem", true, Assigned::Default));
    assert_eq!(kind("RESET work_mem"), Kind::Set(SetStatement::Reset { name: "work_mem".into() }));
    assert_eq!(kind("RESET ALL"), Kind::Set(SetStatement::ResetAll));
    let transaction = |read_only| Kind::Set(SetStatement::Transaction { read_only, isolation: None });
    assert_eq!(kind("SET TRANSACTION READ ONLY"), transaction(Some(true)));
    assert_eq!(kind("SET TRANSACTION READ WRITE"), transaction(Some(false)));
    let isolation = Some(Isolation::Serializable);
    let serializable = Kind::Set(SetStatement::Transaction { read_only: None, isolation });
    assert_eq!(kind("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), serializable);
    assert_eq!(kind("SET transaction_read_only = off"), transaction(None));
    assert_eq!(
        kind("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
        Kind::Set(SetStatement::Characteristics { names: vec!["default_transaction_read_only"] })
    );
    assert_eq!(kind("SET ROLE x"), assign("role", false, word("x")));
    assert_eq!(kind("SET LOCAL ROLE x"), assign("role", true, word("x")));
    assert_eq!(kind("RESET ROLE"), Kind::Set(SetStatement::Reset { name: "role".into() }));
    assert_eq!(kind("SHOW Server_Version"), Kind::Show("server_version".into()));
    assert_eq!(kind("SHOW TIME ZONE"), Kind::Show("timezone".into()));
    assert_eq!(
        kind("SET standard_conforming_strings = on"),
        assign("standard_conforming_strings", false, word("on"))
    );
}

#[test]
fn session_statements_are_told_apart() {
    assert_eq!(kind("DISCARD ALL"), Kind::DiscardAll);
    assert_eq!(kind("DISCARD PLANS"), Kind::Statement);
    assert_eq!(kind("DEALLOCATE ALL"), Kind::DeallocateAll);
    assert_eq!(kind("DEALLOCATE PREPARE \"Name\""), Kind::Deallocate("Name".into()));
    assert_eq!(kind("PREPARE p AS SELECT 1"), Kind::SessionState("PREPARE"));
    assert_eq!(kind("UNLISTEN *"), Kind::Unlisten(None));
    assert_eq!(kind("UNLISTEN \"B\""), Kind::Unlisten(Some("B".into())));
    assert_eq!(kind("LISTEN a"), Kind::Listen("a".into()));
    assert_eq!(kind("CLOSE ALL"), Kind::Cursor(CursorStatement::CloseAll));
    let declare = CursorStatement::Declare { name: "c".into(), scroll: true, binary: true };
    assert_eq!(kind("DECLARE C BINARY SCROLL CURSOR FOR SELECT 1"), Kind::Cursor(declare));
    assert_eq!(kind("EXPLAIN DECLARE c CURSOR FOR SELECT 1"), Kind::Statement);
    let fetch = |rows| Kind::Cursor(CursorStatement::Fetch { name: "c".into(), moves: false, rows });
    for (sql, rows) in [
        ("FETCH c", FetchRows::Next(Some(1))),
        ("FETCH 7 FROM c", FetchRows::Next(Some(7))),
        ("FETCH FORWARD ALL IN c", FetchRows::Next(None)),
        ("FETCH 0 FROM c", FetchRows::Elsewhere),
        ("FETCH -1 FROM c", FetchRows::Elsewhere),
        ("FETCH PRIOR FROM c", FetchRows::Elsewhere),
        ("FETCH ABSOLUTE 3 FROM c", FetchRows::Elsewhere),
    ] {
        assert_eq!(kind(sql), fetch(rows), "{sql}");
    }
    assert_eq!(kind("CLOSE \"C\""), Kind::Cursor(CursorStatement::Close { name: "C".into() }));
    assert_eq!(kind("SELECT set_config('a.b', 'c', true)"), Kind::Statement);
    assert_eq!(kind("SELECT set_config('a.b', $1, false), 1"), Kind::Statement);
    assert_eq!(kind("SELECT set_config('a.b', 'c', 'true')"), Kind::SessionState("set_config"));
    assert_eq!(kind("SELECT pg_advisory_unlock_all()"), Kind::Statement);
    assert_eq!(
        kind("SELECT 1 WHERE pg_advisory_lock(1) IS NULL"),
        Kind::SessionState("session advisory lock")
    );
    assert_eq!(kind("EXPLAIN SELECT pg_advisory_lock(1)"), Kind::Statement);
    assert_eq!(
        kind("EXPLAIN ANALYZE SELECT pg_advisory_lock(1)"),
        Kind::SessionState("session advisory lock")
    );
    assert_eq!(kind("CREATE TEMP TABLE t (a int) ON COMMIT DROP"), Kind::Ddl);
    assert_eq!(kind("COPY t FROM STDIN"), Kind::CopyIn);
    assert_eq!(kind("COPY t TO STDOUT"), Kind::CopyOut);
    assert_eq!(kind("COPY t FROM '/tmp/x'"), Kind::Statement);
    assert_eq!(kind(""), Kind::Empty);
    assert_eq!(
        kind("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"),
        Kind::Several {
            parts: Box::new([
                Kind::Statement,
                Kind::Cursor(CursorStatement::CloseAll),
                Kind::Unlisten(None),
                Kind::Set(SetStatement::ResetAll)
            ]),
            transaction_control: false,
        }
    );
}

#[test]
fn what_is_not_understood_says_so() {
    let router = router_of(1);
    assert!(router.plan("SELECT 1").plan.understood);
    assert!(!router.plan("SELEC 1").plan.understood);
    let json = router.plan("SELECT JSON_OBJECT('a': 1)");
    assert!(!json.plan.understood);
    assert_eq!(json.plan.access, Access::Write);
}

#[test]
fn a_version_tells_maps_and_tables_apart() {
    let (three, again, one) = (router_of(3), router_of(3), router_of(1));
    assert_eq!(three.version(), again.version());
    assert_ne!(three.version(), one.version());
    assert_eq!(three.plan("SELECT 1").plan.version, three.version());
    let mut fewer = tables();
    fewer.pop_first();
    let names = vec!["s0".into(), "s1".into(), "s2".into()];
    let other = Router::of_parts(names, maps(), fewer, 10, Arc::new(Parser::new()));
    assert_ne!(three.version(), other.version());
}

/// The scanner's corpus through everything: no text may panic, and one shard refuses none.
#[test]
fn the_corpus_is_routed() {
    let (three, one) = (router_of(3), router_of(1));
    for sql in include_str!("../../sql/scan/corpus.sql").split("\n\n") {
        for at in (0..=sql.len()).filter(|at| sql.is_char_boundary(*at)) {
            let cut = &sql[..at];
            let _ = decide_in(&three, cut, &[], &session());
            let decision = decide_in(&one, cut, &[], &session());
            assert!(decision.is_ok(), "{cut}\n{decision:?}");
        }
    }
}

#[test]
fn what_reads_the_catalog_and_settings_may_be_run_again_elsewhere() {
    let router = router();
    let repeatable = |sql: &str| router.plan(sql).plan.repeatable;
    for sql in [
        "SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new",
        "SELECT oid FROM pg_catalog.pg_type WHERE oid = ANY($1)",
        "SHOW work_mem",
    ] {
        assert!(repeatable(sql), "{sql}");
    }
    for sql in ["SELECT now()", "SELECT pg_backend_pid()", "SELECT nextval('s')", "SELECT 1 FOR UPDATE"] {
        assert!(!repeatable(sql), "{sql}");
    }
}
