//! Which statements may share an answer or take turns, by the catalog and by what tables say.

use std::time::Duration;

use super::*;
use crate::config::TableProtection;

fn router() -> Router {
    let says = |share_reads: bool, cache_ms: Option<u64>, writes_at_once| TableProtection {
        share_reads,
        cache_ttl: cache_ms.map(Duration::from_millis),
        writes_at_once,
    };
    let name = |name: &str| TableName { schema: None, name: name.to_owned() };
    let protection = BTreeMap::from([
        (name("plain"), says(true, Some(500), Some(2))),
        (name("child"), says(true, Some(200), None)),
        (name("parent"), says(true, None, Some(1))),
        (name("shown"), says(true, Some(500), None)),
    ]);
    let router = router_of(1).with_protection(protection);
    router.adopt(Arc::new(footprints::catalog()));
    router
}

#[test]
fn only_reads_that_repeat_are_shared() {
    let router = router();
    let of = |sql: &str| router.plan(sql).plan.protected;
    for sql in [
        "SELECT * FROM plain WHERE id = 7",
        "SELECT count(*), lower('A'), adds(1) FROM public.plain p, plain q WHERE p.id = $1",
        "SELECT to_char(1.5, '9.9') FROM plain",
        "WITH p AS (SELECT * FROM plain) SELECT * FROM p",
    ] {
        assert!(of(sql).shareable && of(sql).shares, "{sql}");
    }
    for sql in [
        "SELECT 1",
        "SELECT now() FROM plain",
        "SELECT random() FROM plain",
        "SELECT current_user FROM plain",
        "SELECT CURRENT_DATE FROM plain",
        "SELECT reads_some(1) FROM plain",
        "SELECT unheard_of() FROM plain",
        "SELECT nextval('s') FROM plain",
        "SELECT current_setting('a.b') FROM plain",
        "SELECT * FROM plain FOR SHARE",
        "SELECT * FROM plain TABLESAMPLE SYSTEM (10)",
        "SELECT * FROM plain, shown",
        "SELECT * FROM missing",
        "SELECT * FROM pg_class",
        "EXPLAIN SELECT * FROM plain",
        "DECLARE c CURSOR FOR SELECT * FROM plain",
        "COPY plain TO STDOUT",
        "SELECT * FROM plain; SELECT * FROM plain",
        "INSERT INTO plain VALUES (1) RETURNING *",
    ] {
        assert!(!of(sql).shareable, "{sql}");
    }
}

#[test]
fn every_table_of_a_read_must_say_so() {
    let router = router();
    let of = |sql: &str| {
        let it = router.plan(sql).plan.protected;
        (it.shareable, it.shares, it.cache_ttl.map(|it| it.as_millis()))
    };
    assert_eq!(of("SELECT * FROM plain"), (true, true, Some(500)));
    assert_eq!(of("SELECT * FROM plain, child"), (true, true, Some(200)));
    assert_eq!(of("SELECT * FROM plain, parent"), (true, true, None));
    assert_eq!(of("SELECT * FROM plain, part"), (true, false, None));
    assert_eq!(of("SELECT * FROM plain WHERE id IN (SELECT id FROM part)"), (true, false, None));
    assert_eq!(of("SELECT * FROM part"), (true, false, None));
}

#[test]
fn turns_are_of_the_table_that_is_written() {
    let router = router();
    let of = |sql: &str| router.plan(sql).plan.protected.write.map(|it| (it.at_once, it.of_one_row));
    assert_eq!(of("UPDATE plain SET a = 1 WHERE id = 7"), Some((Some(2), true)));
    assert_eq!(of("DELETE FROM part WHERE id IN (SELECT id FROM plain)"), Some((None, true)));
    assert_eq!(
        of("WITH d AS (DELETE FROM parent RETURNING id) UPDATE plain SET a = 1"),
        Some((Some(1), true))
    );
    for sql in [
        "SELECT * FROM plain WHERE id = 7 FOR UPDATE",
        "EXPLAIN ANALYZE UPDATE plain SET a = 1 WHERE id = 7",
        "SELECT unheard_of(id) FROM plain WHERE id = 7",
        "BEGIN; UPDATE plain SET a = 1 WHERE id = 7",
        "TRUNCATE plain",
    ] {
        assert_eq!(of(sql), None, "{sql}");
    }
    let line = |sql: &str| router.plan(sql).plan.protected.write.unwrap().table;
    assert_eq!(line("UPDATE plain SET a = 1"), line("UPDATE public.plain SET a = 2"));
}

/// Rows of one tenant do not wait for one another.
#[test]
fn keys_of_many_rows_make_no_line_by_themselves() {
    let router = router_of(3);
    router.adopt(Arc::new(footprints::catalog()));
    let of = |sql: &str| router.plan(sql).plan.protected.write.unwrap().of_one_row;
    assert!(!of("UPDATE users SET a = 1 WHERE user_id = 7"), "its primary key is another column");
    assert!(!of("INSERT INTO orders (user_id) VALUES (7)"), "nothing is known of it");
}

#[test]
fn plans_are_made_anew_where_tables_say_something_else() {
    let (with, without) = (router_of(3).with_protection(BTreeMap::new()), router());
    assert_eq!(with.version(), router_of(3).version());
    assert_ne!(with.version(), without.version());
    let name = TableName { schema: None, name: "users".into() };
    let says = TableProtection { share_reads: true, ..TableProtection::NONE };
    let other = router_of(3).with_protection(BTreeMap::from([(name, says)]));
    assert!(!other.is_same(&with));
    assert_eq!(other.config_version(), with.config_version(), "rows live where they did");
}
