//! What is refused, with its reason and what to do instead.

use super::*;
use crate::base::SqlState;

#[test]
fn reads_that_cannot_be_merged_name_their_clause() {
    check(&[
        ("SELECT row_number() OVER () FROM users", "! multi_shard_read: window function"),
        ("SELECT row_number() OVER (PARTITION BY name) FROM users", "! multi_shard_read: window function"),
        ("SELECT count(*), sum(count(*)) OVER () FROM users", "! multi_shard_read: window function"),
        ("SELECT * FROM users FOR SHARE", "! multi_shard_read: FOR UPDATE"),
        ("SELECT * FROM users TABLESAMPLE SYSTEM (1)", "! multi_shard_read: TABLESAMPLE"),
        ("SELECT my_sum(age) FROM users", "! multi_shard_read: my_sum"),
        ("SELECT name, count(*) FROM users GROUP BY ROLLUP (name)", "! multi_shard_read: ROLLUP"),
        ("SELECT * FROM users LIMIT (SELECT 3)", "! multi_shard_read: LIMIT with a computed value"),
        ("SELECT n FROM (SELECT name AS n FROM users LIMIT 3) s", "! multi_shard_read: LIMIT"),
        ("SELECT n FROM (SELECT count(*) AS n FROM users) s", "! multi_shard_read: aggregate"),
        ("SELECT name FROM users INTERSECT SELECT note FROM orders", "! multi_shard_read: INTERSECT"),
        ("SELECT name FROM users UNION ALL SELECT name FROM countries", "! multi_shard_read: UNION ALL"),
        ("EXPLAIN SELECT * FROM users", "! multi_shard_read: EXPLAIN"),
        ("COPY users TO STDOUT", "! multi_shard_read: COPY"),
        ("COPY (SELECT * FROM users) TO STDOUT", "! multi_shard_read: COPY"),
        ("DECLARE c CURSOR FOR SELECT * FROM users", "! protocol: transaction blocks"),
        ("SELECT * FROM users, pg_class", "! multi_shard_read: catalog"),
    ]);
}

#[test]
fn writes_need_their_key() {
    check(&[
        ("INSERT INTO users (name) VALUES ('x')", "! missing_key: lacks its shard key"),
        ("INSERT INTO users VALUES (7, 'x')", "! missing_key: name its columns"),
        ("INSERT INTO users DEFAULT VALUES", "! missing_key: "),
        ("INSERT INTO users (user_id) VALUES (DEFAULT)", "! missing_key: no constant"),
        ("INSERT INTO users (user_id) VALUES (nextval('s'))", "! missing_key: no constant"),
        ("INSERT INTO users (user_id) VALUES (7), (7 + 1)", "! missing_key: no constant"),
        ("INSERT INTO events (at) VALUES (now())", "! missing_key: no constant"),
        ("INSERT INTO orders (user_id) SELECT code FROM countries", "! missing_key: no constant"),
        ("INSERT INTO orders (user_id) SELECT id FROM users WHERE user_id = 7", "! missing_key: no constant"),
        (
            "INSERT INTO orders (user_id, n) SELECT * FROM orders WHERE user_id = 7",
            "! missing_key: no constant",
        ),
        (
            "INSERT INTO orders (user_id) SELECT u.user_id FROM countries c LEFT JOIN users u ON u.user_id = 7",
            "! missing_key: no constant",
        ),
        (
            "INSERT INTO orders (user_id) SELECT user_id FROM users WHERE user_id = 7 UNION SELECT 8",
            "! missing_key: no constant",
        ),
        ("INSERT INTO orders (user_id) SELECT user_id FROM users", "! multi_shard_write: "),
        (
            "INSERT INTO orders (user_id, n) SELECT 7, n FROM orders WHERE user_id = 107",
            "! multi_shard_write: ",
        ),
        ("INSERT INTO users (user_id) VALUES (7), (107)", "! multi_shard_write: several shards"),
        ("INSERT INTO users (user_id) VALUES (NULL)", "! unmapped_key: null value"),
        ("INSERT INTO users (user_id) VALUES (300)", "! unmapped_key: no shard"),
        ("UPDATE users SET name = 'x'", "! multi_shard_write: must name its shard key \"user_id\""),
        ("UPDATE users SET name = 'x' WHERE name = 'y'", "! multi_shard_write: must name its shard key"),
        ("UPDATE users SET name = 'x' WHERE user_id IN (7, 107)", "! multi_shard_write: several shards"),
        ("UPDATE users SET name = 'x' WHERE user_id = 300", "! unmapped_key: no shard"),
        ("UPDATE users SET name = 'x' WHERE user_id = NULL", "! unmapped_key: null value"),
        ("DELETE FROM users", "! multi_shard_write: must name its shard key"),
        (
            "DELETE FROM orders USING users u WHERE u.user_id = 7",
            "! multi_shard_write: must name its shard key",
        ),
        ("DELETE FROM users WHERE user_id = 7 OR name = 'x'", "! multi_shard_write: must name its shard key"),
        ("WITH x AS (DELETE FROM orders) SELECT * FROM users WHERE user_id = 7", "! multi_shard_write: "),
        (
            "WITH x AS (DELETE FROM orders WHERE user_id = 107) SELECT * FROM users WHERE user_id = 7",
            "! multi_shard_write: several shards",
        ),
        ("DELETE FROM users WHERE CURRENT OF c", "! multi_shard_write: must name its shard key"),
    ]);
}

#[test]
fn keys_do_not_change() {
    check(&[
        ("UPDATE users SET user_id = 8 WHERE user_id = 7", "! key_update: user_id"),
        ("UPDATE users SET (name, user_id) = ('x', 8) WHERE user_id = 7", "! key_update: user_id"),
        (
            "INSERT INTO users (user_id) VALUES (7) ON CONFLICT (name) DO UPDATE SET user_id = excluded.user_id",
            "! key_update: user_id",
        ),
        ("WITH x AS (UPDATE orders SET user_id = 8 WHERE user_id = 7) SELECT 1", "! key_update: user_id"),
    ]);
}

#[test]
fn tables_are_listed() {
    check(&[
        ("SELECT * FROM nowhere", "! unlisted_table: nowhere"),
        ("SELECT * FROM users u JOIN my_view v ON true WHERE u.user_id = 7", "! unlisted_table: my_view"),
        ("INSERT INTO nowhere (a) VALUES (1)", "! unlisted_table: nowhere"),
        ("SELECT * FROM \"Users\" WHERE user_id = 7", "! unlisted_table: Users"),
        ("SELECT * FROM users WHERE user_id = (SELECT max(id) FROM nowhere)", "! unlisted_table: nowhere"),
        ("COPY nowhere TO STDOUT", "! unlisted_table: nowhere"),
    ]);
    let refusal = decide_in(&router(), "SELECT * FROM nowhere", &[], &session()).unwrap_err();
    assert_eq!(refusal.state(), SqlState::FEATURE_NOT_SUPPORTED);
    assert!(refusal.hint_text().unwrap().contains("list it"));
}

#[test]
fn reference_tables_keep_their_copies_equal() {
    check(&[
        ("INSERT INTO countries (code, at) VALUES ('x', now())", "! multi_shard_write: now()"),
        (
            "INSERT INTO countries (code, at) VALUES ('x', CURRENT_TIMESTAMP)",
            "! multi_shard_write: CURRENT_TIMESTAMP",
        ),
        ("INSERT INTO countries (code, at) VALUES ('x', 'now')", "! multi_shard_write: relative to now"),
        (
            "INSERT INTO countries (code, at) VALUES ('x', date ' Today 12:00 UTC')",
            "! multi_shard_write: relative to now",
        ),
        ("INSERT INTO countries (code, name) VALUES ('x', 'the here and now')", "everywhere"),
        ("UPDATE countries SET n = random()", "! multi_shard_write: random()"),
        ("INSERT INTO countries (id) VALUES (nextval('s'))", "! multi_shard_write: nextval()"),
        ("INSERT INTO countries (id) VALUES (my_function(1))", "! multi_shard_write: my_function()"),
        ("INSERT INTO countries (id) SELECT id FROM currencies LIMIT 1", "! multi_shard_write: LIMIT"),
        (
            "INSERT INTO countries (id) SELECT user_id FROM users WHERE user_id = 7",
            "! multi_shard_write: sharded",
        ),
        ("INSERT INTO countries (id) SELECT oid FROM pg_class", "! multi_shard_write: catalogs"),
        ("WITH x AS (DELETE FROM countries) SELECT 1", "! multi_shard_write: inside another"),
        ("SELECT * FROM countries FOR UPDATE", "! unsupported: locked"),
        ("SELECT * FROM users u, countries c WHERE u.user_id = 7 FOR UPDATE", "! unsupported: locked"),
        ("EXPLAIN ANALYZE DELETE FROM countries", "! unsupported: EXPLAIN ANALYZE"),
    ]);
}

#[test]
fn what_one_server_keeps_is_refused() {
    check(&[
        ("PREPARE p AS SELECT 1", "! session_state: PREPARE"),
        ("EXECUTE p", "! session_state: EXECUTE"),
        ("CREATE TEMP TABLE t (a int)", "! session_state: temporary object"),
        ("CREATE TABLE pg_temp.t (a int)", "! session_state: temporary object"),
        ("CREATE TEMP VIEW v AS SELECT 1", "! session_state: temporary object"),
        ("CREATE TEMP SEQUENCE s", "! session_state: temporary object"),
        (
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "! session_state: temporary object",
        ),
        ("CREATE TEMP TABLE t AS SELECT 1", "! session_state: temporary object"),
        ("SELECT 1 INTO TEMP t", "! session_state: temporary object"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "! session_state: WITH HOLD"),
        ("SELECT pg_advisory_lock(1)", "! session_state: advisory lock"),
        (
            "SELECT pg_catalog.pg_try_advisory_lock(1) FROM users WHERE user_id = 7",
            "! session_state: advisory lock",
        ),
        ("SELECT set_config('a.b', 'c' || 'd', false)", "! session_state: set_config"),
        ("SELECT set_config('a.b', 'c', false) WHERE random() < 0.5", "! session_state: set_config"),
        ("SELECT coalesce(set_config('a.b', 'c', false), '')", "! session_state: set_config"),
        ("SELECT set_config('a.b', 'c', $1)", "! session_state: set_config"),
        ("SELECT currval('s')", "! session_state: currval"),
        ("SELECT lastval()", "! session_state: currval"),
        ("SELECT setseed(0.5)", "! session_state: setseed"),
        ("LOAD 'x'", "! session_state: LOAD"),
        ("DO $$ BEGIN END $$", "! session_state: DO"),
        ("CALL p()", "! session_state: CALL"),
        ("SELECT 1; LISTEN x", "! unsupported: LISTEN beside"),
    ]);
}

#[test]
fn what_has_no_answer_on_several_shards_is_refused() {
    check(&[
        (
            "MERGE INTO users u USING orders o ON u.user_id = o.user_id WHEN MATCHED THEN DELETE",
            "! unsupported: MERGE",
        ),
        ("COPY users FROM STDIN", "! missing_key: does not name its columns"),
        ("COPY users (name) FROM STDIN", "! missing_key: lacks its shard key"),
        ("COPY users (user_id) FROM STDIN WHERE user_id > 1", "! multi_shard_write: WHERE"),
        ("COPY users (user_id) FROM STDIN (ENCODING 'latin1')", "! multi_shard_write: ENCODING"),
        ("COPY users (user_id) FROM STDIN (FORMAT csv, FORCE_NULL (user_id))", "! multi_shard_write: FORCE"),
        ("COPY users (user_id) FROM STDIN (ON_ERROR ignore)", "! multi_shard_write: ON_ERROR"),
        ("COPY users (user_id) FROM STDIN (DELIMITER 'ab')", "! multi_shard_write: one byte"),
        ("COPY pg_class FROM STDIN", "! unsupported: catalog"),
        ("COPY users TO '/tmp/x'", "! unsupported: COPY"),
        ("COPY countries TO PROGRAM 'cat'", "! unsupported: COPY"),
        ("CREATE TABLE t AS SELECT * FROM users WHERE user_id = 7", "! ddl: sharded"),
        ("SELECT * INTO t FROM users", "! ddl: sharded"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM users", "! ddl: sharded"),
        ("CREATE TABLE t AS SELECT * FROM nowhere", "! unlisted_table: nowhere"),
        ("PREPARE TRANSACTION 'x'", "! unsupported: two-phase"),
        ("COMMIT PREPARED 'x'", "! unsupported: two-phase"),
        ("SELECT pg_notify('x', name) FROM users WHERE id = 1", "! unsupported: pg_notify"),
        ("NOTIFY x; SELECT * FROM users WHERE id = 1", "! unsupported: NOTIFY beside"),
        ("LOCK TABLE users", "! unsupported: LOCK TABLE"),
        ("SET TRANSACTION SNAPSHOT '1'", "! unsupported: SNAPSHOT"),
        ("SELECT pg_advisory_xact_lock(1)", "! unsupported: pg_advisory_xact_lock"),
        ("SELECT query_to_xml('SELECT * FROM users', true, true, '')", "! unsupported: query_to_xml"),
        ("SELECT lo_create(0)", "! unsupported: lo_create"),
        ("UPDATE pg_class SET relname = 'x'", "! unsupported: catalog"),
        ("SELECT nextval('s')", "! unsupported: nextval"),
        ("SELECT my_function(1)", "! unsupported: my_function"),
        ("SELECT * FROM other.my_function(1)", "! unsupported: my_function"),
        ("SELECT JSON_OBJECT('a': 1) FROM users WHERE user_id = 7", "! unsupported: kind"),
        ("SET standard_conforming_strings = off", "! unsupported: standard_conforming_strings"),
        ("SET standard_conforming_strings = 'off'", "! unsupported: standard_conforming_strings"),
    ]);
}

#[test]
fn what_cannot_be_parsed_is_postgresqls_own_error() {
    let router = router();
    let refusal = |sql: &str| decide_in(&router, sql, &[], &session()).unwrap_err();
    let syntax = |sql: &str, message: &str, position: Option<u32>| {
        let refusal = refusal(sql);
        assert_eq!(refusal.state(), SqlState::SYNTAX_ERROR, "{sql}");
        assert_eq!(refusal.message(), message, "{sql}");
        assert_eq!(refusal.position(), position, "{sql}");
    };
    syntax("SELEC 1", "syntax error at or near \"SELEC\"", Some(1));
    syntax("SELECT 1 FROM", "syntax error at end of input", Some(14));
    syntax("SELECT é, FROM users", "syntax error at or near \"FROM\"", Some(11));
    syntax("SELECT a a a", "syntax error at or near \"a\"", Some(12));
    syntax("SELECT 'open", "unterminated quoted string at or near \"'open\"", Some(8));
    syntax("SELECT 1; SELECT * FROM users WHERE WHERE", "syntax error at or near \"WHERE\"", Some(37));
    for deep in [
        format!("SELECT {}true", "NOT ".repeat(5_000)),
        format!("SELECT {}1{}", "f(".repeat(20_000), ")".repeat(20_000)),
        format!("SELECT {}1{}", "(SELECT ".repeat(2_000), ")".repeat(2_000)),
        format!("SELECT 1{}", "::int".repeat(5_000)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(5_000)),
        format!("SELECT {}1{}", "f(".repeat(80), ")".repeat(80)),
    ] {
        let refusal = refusal(&deep);
        assert_eq!(refusal.state(), SqlState::STATEMENT_TOO_COMPLEX, "{refusal} {:.30}", deep);
    }
}

#[test]
fn a_failed_text_is_not_kept() {
    let router = router();
    // The same fingerprint: one is a type modifier out of bounds, which the grammar refuses.
    assert!(decide_in(&router, "SELECT 1::float(0)", &[], &session()).is_err());
    assert!(decide_in(&router, "SELECT 1::float(8)", &[], &session()).is_ok());
    assert_eq!(router.plan_cache_counts().plans, 1);
}
