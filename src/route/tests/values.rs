//! Key values: literals, casts, parameters in text and binary.

use super::*;
use crate::base::SqlState;

#[test]
fn literals_in_every_notation() {
    check(&[
        ("SELECT * FROM users WHERE user_id = '107'", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = E'\\x3107'", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = $$107$$", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = '1'\n'07'", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 0x6b", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 1_07", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 000107", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 107.0", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 10.7e1", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 107.5", "any replica"),
        ("SELECT * FROM users WHERE user_id = -7", "s0 replica"),
        ("SELECT * FROM users WHERE user_id=-7", "s0 replica"),
        ("SELECT * FROM users WHERE user_id = - /* minus */ 107", "s0 replica"),
        ("SELECT * FROM users WHERE user_id = - -107", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = -(-107)", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = '-7'", "s0 replica"),
        ("SELECT * FROM users WHERE user_id = 107::bigint", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = -107::int", "s0 replica"),
        ("SELECT * FROM users WHERE user_id = '107'::int", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = CAST('107' AS bigint)", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = bigint '107'", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 3000000000", "any replica"),
        ("SELECT * FROM users WHERE user_id = 99999999999999999999999", "any replica"),
        ("SELECT * FROM smalls WHERE k = 40000", "any replica"),
        ("SELECT * FROM smalls WHERE k = -1", "s0 replica"),
        ("SELECT * FROM smalls WHERE k = '40000'", "! bad_key: out of range"),
        ("SELECT * FROM users WHERE user_id = 'x'", "! bad_key: invalid input syntax"),
        // Casts that change the value tell nothing of the key.
        ("SELECT * FROM users WHERE user_id = 107.6::int", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = '107'::text::int", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = '107'::numeric", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 107.0::numeric", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = '107.5'::numeric", "any replica"),
        ("SELECT * FROM smalls WHERE k = '40000'::int", "any replica"),
        ("SELECT * FROM users WHERE user_id = -'107'::int", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM docs WHERE name = 7::text", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM docs WHERE name = 'abc'::varchar(2)", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM docs WHERE name = 'abc'::char(5)", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM events WHERE at = '2025-05-05 00:00:00+00'", "s0 replica"),
        ("SELECT * FROM events WHERE at = timestamptz '2026-05-05T00:00:00Z'", "s1 replica"),
        ("SELECT * FROM events WHERE at = '2026-05-05T00:00:00'", "s1 replica"),
        ("SELECT * FROM events WHERE at = 7", "any replica"),
        ("INSERT INTO users (user_id) VALUES (107.0)", "s1"),
        ("INSERT INTO users (user_id) VALUES (107.5)", "! bad_key: cannot have a fraction"),
        ("INSERT INTO users (user_id) VALUES ('0107')", "s1"),
        ("INSERT INTO users (user_id) VALUES (99999999999999999999999)", "! bad_key: out of range"),
        ("INSERT INTO events (at) VALUES ('now')", "! bad_key: "),
    ]);
}

#[test]
fn text_keys_agree_between_notations() {
    let router = router();
    let shard =
        |sql: &str, params: &[Option<&str>]| decide_in(&router, sql, params, &session()).unwrap().shards[0];
    let plain = shard("SELECT * FROM docs WHERE name = 'it''s'", &[]);
    assert_eq!(shard("SELECT * FROM docs WHERE name = E'it\\'s'", &[]), plain);
    assert_eq!(shard("SELECT * FROM docs WHERE name = $$it's$$", &[]), plain);
    assert_eq!(shard("SELECT * FROM docs WHERE name = $1", &[Some("it's")]), plain);
    assert_eq!(shard("INSERT INTO docs (name) VALUES ($1::text)", &[Some("it's")]), plain);
    let number = shard("SELECT * FROM docs WHERE name = '-7'", &[]);
    assert_eq!(shard("INSERT INTO docs (name) VALUES (-007)", &[]), number);
}

#[test]
fn an_offset_decides_where_the_session_does_not() {
    let router = router();
    let elsewhere = SessionView { utc: false, ..session() };
    let bare = "SELECT * FROM events WHERE at = '2026-05-05T00:00:00'";
    let refusal = decide_in(&router, bare, &[], &elsewhere).unwrap_err();
    assert!(refusal.hint_text().unwrap().contains("offset"), "{refusal}");
    let offset = "SELECT * FROM events WHERE at = '2026-05-05T00:00:00+02'";
    check_in(&router, &elsewhere, offset, &[], "s1 replica");
}

#[test]
fn parameters_as_text() {
    check_params(&[
        ("SELECT * FROM users WHERE user_id = $1", &["107"], "s1 replica"),
        ("SELECT * FROM users WHERE user_id = $2 AND name = $1", &["x", "107"], "s1 replica"),
        ("SELECT * FROM users WHERE user_id IN ($1, $2)", &["7", "107"], "scatter s0 s1 replica"),
        ("SELECT * FROM users WHERE user_id IN ($1, $2)", &["107", "108"], "s1 replica"),
        ("SELECT * FROM users WHERE user_id = $1::bigint", &["107"], "s1 replica"),
        ("SELECT * FROM users WHERE user_id = $1", &["NULL"], "any replica"),
        ("SELECT * FROM users WHERE user_id = $1", &["x"], "! bad_key: invalid input syntax"),
        ("SELECT * FROM users WHERE user_id = $2", &["7"], "! protocol: no value for parameter $2"),
        ("SELECT * FROM users WHERE user_id = ANY ($1)", &["{7}"], "s0 replica"),
        (
            "SELECT * FROM users WHERE user_id = ANY ($1::bigint[])",
            &["{7,107,NULL}"],
            "scatter s0 s1 replica",
        ),
        ("SELECT * FROM users WHERE user_id = ANY ($1)", &["{}"], "any replica"),
        ("SELECT * FROM users WHERE user_id = ANY ($1)", &["NULL"], "any replica"),
        (
            "SELECT * FROM users WHERE user_id = ANY ($1)",
            &["{{7}}"],
            "! bad_key: which shard keys an array holds",
        ),
        ("DELETE FROM users WHERE user_id = ANY ($1)", &["{107,108}"], "s1"),
        ("DELETE FROM users WHERE user_id = ANY ($1)", &["{7,107}"], "! multi_shard_write: several shards"),
        ("SELECT * FROM users WHERE user_id IS NOT DISTINCT FROM $1", &["107"], "s1 replica"),
        ("SELECT * FROM users WHERE user_id IS NOT DISTINCT FROM $1", &["NULL"], "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id BETWEEN $1 AND $2", &["107", "150"], "s1 replica"),
        ("SELECT * FROM users WHERE user_id BETWEEN $1 AND $2", &["NULL", "150"], "any replica"),
        ("SELECT * FROM users WHERE user_id = $1::text", &["7"], "scatter s0 s1 s2 replica"),
        ("INSERT INTO users (user_id, name) VALUES ($1, $2)", &["107", "x"], "s1"),
        (
            "INSERT INTO users (user_id) VALUES ($1), ($2)",
            &["107", "7"],
            "! multi_shard_write: several shards",
        ),
        ("INSERT INTO users (user_id) VALUES ($1)", &["NULL"], "! unmapped_key: null"),
        ("UPDATE users SET n = $1 WHERE user_id = $2", &["1", "300"], "! unmapped_key: no shard"),
        ("SELECT * FROM smalls WHERE k = $1", &["40000"], "! bad_key: out of range"),
        ("SELECT * FROM smalls WHERE k = $1::int", &["40000"], "any replica"),
    ]);
}

fn bound(sql: &str, oid: u32, format: i16, value: &[u8]) -> String {
    let router = router();
    let planned = router.plan(sql);
    assert!(planned.plan.needs_params());
    let values = [Some(value)];
    let params = Params { oids: &[oid], formats: &[format], values: &values };
    let keys = KeySource { text: sql, literals: &planned.literals, params: Some(params) };
    said(&router.decide(&planned.plan, &keys, &session()))
}

#[test]
fn parameters_in_binary() {
    let sql = "SELECT * FROM users WHERE user_id = $1";
    assert_eq!(bound(sql, 20, 1, &107i64.to_be_bytes()), "s1 replica");
    assert_eq!(bound(sql, 0, 1, &107i64.to_be_bytes()), "s1 replica");
    assert_eq!(bound(sql, 23, 1, &107i32.to_be_bytes()), "s1 replica");
    assert_eq!(bound(sql, 21, 1, &107i16.to_be_bytes()), "s1 replica");
    assert_eq!(bound(sql, 20, 0, b"107"), "s1 replica");
    assert!(bound(sql, 20, 1, &[1, 2, 3]).starts_with("! bad_key"));
    assert!(bound(sql, 701, 1, &107f64.to_be_bytes()).starts_with("! bad_key"));
    assert!(bound(sql, 20, 0, &[0xFF]).starts_with("! bad_key"));
    let cast = "SELECT * FROM users WHERE user_id = $1::int";
    assert_eq!(bound(cast, 0, 1, &107i32.to_be_bytes()), "s1 replica");
    assert_eq!(bound(cast, 25, 1, b"107"), "s1 replica");
    let small = "SELECT * FROM smalls WHERE k = $1";
    assert_eq!(bound(small, 20, 1, &107i64.to_be_bytes()), "s1 replica");
    assert_eq!(bound(small, 20, 1, &40_000i64.to_be_bytes()), "any replica");
    let docs = "SELECT * FROM docs WHERE name = $1";
    assert_eq!(bound(docs, 25, 1, b"x"), bound(docs, 0, 0, b"x"));
}

#[test]
fn a_plan_serves_every_value() {
    let router = router();
    for (value, shard) in [(7, "s0"), (107, "s1"), (207, "s2")] {
        let sql = format!("SELECT * FROM users WHERE user_id = {value}");
        check_in(&router, &session(), &sql, &[], &format!("{shard} replica"));
    }
    let counts = router.plan_cache_counts();
    assert_eq!((counts.misses, counts.plans), (1, 1));
    assert_eq!(counts.hits, 5);
}

/// Each pair shares a fingerprint; what the first one makes the cache keep must hold for the second.
#[test]
fn a_plan_depends_on_no_literals_value() {
    let pairs = [
        ("SELECT * FROM users WHERE user_id = -0", "SELECT * FROM users WHERE user_id = -107", "s0 replica"),
        (
            "SELECT * FROM users WHERE user_id = - -0",
            "SELECT * FROM users WHERE user_id = - -107",
            "s1 replica",
        ),
        (
            "SELECT * FROM users WHERE user_id = 5",
            "SELECT * FROM users WHERE user_id = 3000000000",
            "any replica",
        ),
        (
            "SELECT * FROM users WHERE user_id = 3000000000",
            "SELECT * FROM users WHERE user_id = 107",
            "s1 replica",
        ),
        (
            "SELECT * FROM users WHERE user_id = -3000000000",
            "SELECT * FROM users WHERE user_id = -7",
            "s0 replica",
        ),
        (
            "SELECT * FROM users WHERE user_id = 1.5",
            "SELECT * FROM users WHERE user_id = 107.0",
            "s1 replica",
        ),
        ("SELECT * FROM users LIMIT 0", "SELECT * FROM users LIMIT 1", "merge s0 s1 s2 replica"),
        (
            "EXPLAIN (ANALYZE 'off') SELECT * FROM users WHERE user_id = 107 FOR UPDATE",
            "EXPLAIN (ANALYZE 'on') SELECT * FROM users WHERE user_id = 107 FOR UPDATE",
            "s1",
        ),
        (
            "EXPLAIN (ANALYZE 'off') DELETE FROM countries",
            "EXPLAIN (ANALYZE 'on') DELETE FROM countries",
            "! unsupported: EXPLAIN ANALYZE",
        ),
        (
            "EXPLAIN (ANALYZE /* c */ 0) DELETE FROM countries",
            "EXPLAIN (ANALYZE /* c */ 1) DELETE FROM countries",
            "! unsupported: EXPLAIN ANALYZE",
        ),
        ("COMMENT ON TABLE users IS 'pg_temp'", "COMMENT ON TABLE users IS 'x'", "in turn"),
        ("CREATE TABLE t (a int) /* pg_temp */", "CREATE TABLE t (a int)", "in turn"),
        (
            "SET standard_conforming_strings = 'on'",
            "SET standard_conforming_strings = 'off'",
            "! unsupported: standard_conforming_strings",
        ),
        (
            "SELECT set_config('a', 'b', 'true')",
            "SELECT set_config('a', 'b', 'f')",
            "! session_state: set_config",
        ),
    ];
    for (first, second, expect) in pairs {
        let router = router();
        assert_eq!(crate::sql::scan(first).fingerprint, crate::sql::scan(second).fingerprint, "{second}");
        router.plan(first);
        assert!(router.plan(second).hit, "{second}");
        check_in(&router, &session(), second, &[], expect);
    }
    check(&[
        ("EXPLAIN (ANALYZE off) DELETE FROM countries", "any"),
        ("EXPLAIN (ANALYZE false, COSTS off) DELETE FROM countries", "any"),
        ("EXPLAIN (ANALYZE) DELETE FROM countries", "! unsupported: EXPLAIN ANALYZE"),
        ("SELECT * FROM users WHERE user_id = 0", "s0 replica"),
    ]);
}

#[test]
fn no_value_before_bind_is_said() {
    let router = router();
    let sql = "SELECT * FROM users WHERE user_id = $1";
    let refusal = decide_in(&router, sql, &[], &session()).unwrap_err();
    assert_eq!(refusal.state(), SqlState::PROTOCOL_VIOLATION);
    assert!(!router.plan("SELECT $1, * FROM countries").plan.needs_params());
}

#[test]
fn explain_says_where_and_why() {
    let router = router();
    let said = router.explain("SELECT * FROM users WHERE user_id = $1", &[Some("107")]).unwrap();
    let want = "shards:  s1\nrole:    replica\nelse:    the primary, while no replica is fresh enough\nmode:    one\naccess:  read\n\
                key:     users.user_id = 107 (map by_user, range from 100 to 200, shard s1)\n\
                why:     its shard keys name them\n";
    assert_eq!(said, want);
    let refused = router.explain("DELETE FROM users", &[]).unwrap_err();
    assert!(refused.contains("SQLSTATE 0A000"), "{refused}");
    assert!(refused.contains("reason:  multi_shard_write"), "{refused}");
    assert!(refused.contains("hint:    restrict it"), "{refused}");
}
