//! Writes on several shards, where the configuration allows them.

use super::*;
use crate::config::CrossShardWrites;

fn one_phase() -> Router {
    router().with_cross_shard_writes(CrossShardWrites::OnePhase)
}

fn check_one_phase(cases: &[(&str, &str)]) {
    for (sql, expect) in cases {
        let got = said(&decide_in(&one_phase(), sql, &[], &session()));
        let holds = match expect.strip_prefix("! ") {
            Some(part) => got.starts_with("! ") && got.contains(part),
            None => got == *expect,
        };
        assert!(holds, "{sql}\n  expected {expect}\n  got      {got}");
    }
}

#[test]
fn updates_and_deletes_go_to_the_shards_of_their_keys() {
    check_one_phase(&[
        ("UPDATE users SET name = 'x' WHERE user_id = 7", "s0"),
        ("UPDATE users SET name = 'x' WHERE user_id IN (7, 107)", "each s0 s1"),
        ("UPDATE users SET name = 'x'", "each s0 s1 s2"),
        ("UPDATE users SET name = 'x' WHERE name = 'y' RETURNING user_id", "each s0 s1 s2"),
        ("DELETE FROM users WHERE user_id > 150", "each s1 s2"),
        ("DELETE FROM users u USING orders o WHERE o.user_id = u.user_id AND o.n = 1", "each s0 s1 s2"),
        ("DELETE FROM users u USING countries c WHERE c.code = u.country", "each s0 s1 s2"),
        (
            "UPDATE users u SET n = (SELECT count(*) FROM orders o WHERE o.user_id = u.user_id)",
            "each s0 s1 s2",
        ),
        ("UPDATE users SET n = random()", "each s0 s1 s2"),
        (
            "WITH c AS (SELECT code FROM countries) DELETE FROM users USING c WHERE code = country",
            "each s0 s1 s2",
        ),
    ]);
}

#[test]
fn what_is_not_beside_the_rows_is_refused() {
    check_one_phase(&[
        ("UPDATE users SET name = 'x' WHERE user_id IN (7, 300)", "! unmapped_key"),
        ("UPDATE users SET name = 'x' WHERE user_id IN (7, NULL)", "! unmapped_key"),
        ("UPDATE users SET user_id = 8", "! key_update"),
        ("DELETE FROM users u USING orders o WHERE o.n = u.n", "! join that does not equate"),
        ("UPDATE users u SET n = (SELECT count(*) FROM orders o)", "! subquery on a sharded table"),
        ("DELETE FROM users WHERE n IN (SELECT n FROM orders)", "! subquery on a sharded table"),
        (
            "WITH d AS (DELETE FROM orders RETURNING n) DELETE FROM users USING d WHERE d.n = users.n",
            "! inside",
        ),
        ("WITH d AS (DELETE FROM orders) DELETE FROM users", "! WITH"),
        ("UPDATE users SET at = now()", "! function now()"),
        ("UPDATE users SET at = clock_timestamp()", "each s0 s1 s2"),
        ("UPDATE users SET at = CURRENT_TIMESTAMP", "! CURRENT_TIMESTAMP"),
        ("UPDATE users SET at = 'today'", "! relative to now"),
        ("UPDATE users SET n = nextval('s')", "! function nextval()"),
        ("UPDATE users SET n = mine(n)", "! function mine()"),
        ("EXPLAIN DELETE FROM users", "! EXPLAIN"),
        ("MERGE INTO users u USING orders o ON u.user_id = o.user_id WHEN MATCHED THEN DELETE", "! MERGE"),
        ("DELETE FROM users; DELETE FROM orders", "! several statements"),
    ]);
    let inside = SessionView { in_transaction: true, ..session() };
    let sql = "DELETE FROM users";
    let got = said(&decide_in(&one_phase(), sql, &[], &inside));
    assert!(got.contains("cannot stand in a transaction"), "{got}");
}

#[test]
fn inserts_are_split_by_row() {
    check_one_phase(&[
        ("INSERT INTO users (user_id, n) VALUES (7, 1), (8, 2)", "s0"),
        ("INSERT INTO users (n, user_id) VALUES (1, 7), (DEFAULT, 107), (3, 8) RETURNING n", "split s0 s1"),
        ("INSERT INTO users (user_id) VALUES (7), (107) ON CONFLICT (user_id) DO NOTHING", "split s0 s1"),
        ("INSERT INTO users (user_id) VALUES (7), (NULL)", "! unmapped_key"),
        ("INSERT INTO users (user_id) VALUES (7), (300)", "! unmapped_key"),
        ("INSERT INTO users (user_id) VALUES (7), (107 + 1)", "! missing_key"),
        ("INSERT INTO users (user_id) VALUES (7), (DEFAULT)", "! missing_key"),
        ("INSERT INTO users (user_id, at) VALUES (7, now()), (107, now())", "! function now()"),
        ("INSERT INTO users (user_id, n) VALUES (7, 1), (107, (SELECT max(n) FROM orders))", "! subquery"),
        (
            "INSERT INTO users (user_id, n) VALUES (7, 1), (107, (SELECT max(n) FROM countries))",
            "split s0 s1",
        ),
        ("WITH x AS (SELECT 1) INSERT INTO users (user_id) VALUES (7), (107)", "! WITH"),
        ("INSERT INTO users (user_id) VALUES (7), (107) LIMIT 1", "! LIMIT"),
        ("INSERT INTO users (user_id) (VALUES (7), (107))", "! a list of rows"),
    ]);
    check(&[("INSERT INTO users (user_id) VALUES (7), (107)", "! multi_shard_write: several shards")]);
}

#[test]
fn inserts_from_beside_their_rows_are_pushed() {
    check_one_phase(&[
        ("INSERT INTO orders (user_id, n) SELECT user_id, n FROM users", "each s0 s1 s2"),
        (
            "INSERT INTO orders (user_id, n) SELECT user_id, n FROM users WHERE user_id IN (7, 107)",
            "each s0 s1",
        ),
        ("INSERT INTO orders (user_id, n) SELECT user_id, n FROM users WHERE user_id = 7", "s0"),
        (
            "INSERT INTO orders (user_id, n) SELECT user_id, count(*) FROM users GROUP BY user_id",
            "each s0 s1 s2",
        ),
        ("INSERT INTO orders (user_id, n) SELECT user_id, n FROM users LIMIT 3", "! LIMIT"),
        ("INSERT INTO orders (user_id, n) SELECT DISTINCT user_id, n FROM users", "each s0 s1 s2"),
        ("INSERT INTO orders (user_id, n) SELECT n, user_id FROM users", "! missing_key"),
        ("INSERT INTO orders (user_id) SELECT user_id FROM users, (SELECT n FROM items) i", "! "),
        ("INSERT INTO orders (user_id) SELECT u.user_id FROM users u JOIN items i ON i.n = u.n", "! "),
    ]);
}

#[test]
fn each_row_knows_its_shard() {
    let router = one_phase();
    let sql = "INSERT INTO users (user_id) VALUES ($1), (107), ($2), (8)";
    let planned = router.plan(sql);
    let values: [Option<&[u8]>; 2] = [Some(b"207"), Some(&7i64.to_be_bytes())];
    let params = Params { oids: &[0, 20], formats: &[0, 1], values: &values };
    let keys = KeySource { text: sql, literals: &planned.literals, params: Some(params) };
    let shards = router.row_shards(&planned.plan, &keys, &session()).unwrap();
    assert_eq!(shards[..], [2, 1, 0, 0].map(ShardId));
}

#[test]
fn the_hint_names_the_setting() {
    for (sql, named) in [
        ("DELETE FROM users", true),
        ("UPDATE users SET at = now()", false),
        ("INSERT INTO users (user_id) VALUES (7), (107)", true),
    ] {
        let refusal = decide_in(&router(), sql, &[], &session()).unwrap_err();
        assert_eq!(refusal.hint_text().unwrap().contains("cross_shard_writes"), named, "{sql}");
    }
}

#[test]
fn copied_rows_go_where_their_keys_say() {
    check(&[
        ("COPY users (user_id, name) FROM STDIN", "copy"),
        ("COPY users (name, user_id) FROM STDIN WITH (FORMAT csv, HEADER)", "copy"),
        ("COPY countries FROM STDIN", "copy"),
    ]);
    let inside = SessionView { in_transaction: true, ..session() };
    let got = said(&decide_in(&router(), "COPY users (user_id) FROM STDIN", &[], &inside));
    assert!(got.contains("cannot stand in a transaction"), "{got}");

    let router = router();
    let plan = |sql: &str| router.plan(sql).plan.copy().unwrap().clone();
    // The values of options count, not only their places.
    for (delimiter, escape) in [(b'|', b'"'), (b';', b'/')] {
        let (delimiter, escape) = (delimiter, escape);
        let sql = format!(
            "COPY users (name, user_id) FROM STDIN (FORMAT csv, DELIMITER '{}', ESCAPE '{}', NULL 'x')",
            delimiter as char, escape as char
        );
        for _ in 0..2 {
            let plan = plan(&sql);
            let form = plan.form();
            assert_eq!((form.delimiter, form.escape, form.quote), (delimiter, escape, b'"'), "{sql}");
            assert_eq!((&form.null[..], form.header, plan.fields()), ("x", false, &[1][..]));
        }
    }
    for (options, header) in [
        ("CSV HEADER", true),
        ("(HEADER)", true),
        ("(HEADER false)", false),
        ("(HEADER off)", false),
        ("(HEADER match)", true),
        ("(HEADER 1)", true),
        ("(HEADER 0)", false),
    ] {
        let plan = plan(&format!("COPY users (user_id) FROM STDIN {options}"));
        assert_eq!(plan.form().header, header, "{options}");
    }
}

#[test]
fn a_record_belongs_to_the_shard_of_its_key() {
    use crate::proto::CopyField;
    let router = router();
    let plan = router.plan("COPY users (user_id) FROM STDIN").plan.copy().unwrap().clone();
    let owner = |field, binary| match router.copy_owner(&plan, &[field], binary, true) {
        CopyOwner::Shard(ShardId(shard)) => format!("s{shard}"),
        CopyOwner::Every => "every".to_owned(),
        CopyOwner::Unknown(refusal) => format!("! {}", refusal.state().0),
    };
    let text = |it: &'static str| CopyField::Value(it.as_bytes().into());
    assert_eq!(owner(text("107"), false), "s1");
    assert_eq!(owner(text(" 7 "), false), "s0");
    assert_eq!(owner(CopyField::Value(207i64.to_be_bytes().to_vec().into()), true), "s2");
    assert_eq!(owner(text("300"), false), "! 23514");
    assert_eq!(owner(text("x"), false), "! 22P02");
    assert_eq!(owner(CopyField::Null, false), "! 23502");
    assert_eq!(owner(CopyField::Missing, false), "! 0A000");
    let plan = router.plan("COPY countries FROM STDIN").plan.copy().unwrap().clone();
    assert_eq!(router.copy_owner(&plan, &[], false, true), CopyOwner::Every);
}
