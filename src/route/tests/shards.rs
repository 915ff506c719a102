//! Keys to shards.

use super::*;

#[test]
fn one_key_names_one_shard() {
    check(&[
        ("SELECT * FROM users WHERE user_id = 7", "s0 replica"),
        ("SELECT * FROM users WHERE 107 = user_id", "s1 replica"),
        ("select * from USERS where USER_ID = 207", "s2 replica"),
        ("SELECT * FROM public.users WHERE user_id = 7", "s0 replica"),
        ("SELECT * FROM users AS u WHERE u.user_id = 107", "s1 replica"),
        ("SELECT * FROM users WHERE users.user_id = 107", "s1 replica"),
        ("SELECT * FROM users WHERE public.users.user_id = 107", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = 107 AND name = 'x' AND age > 3", "s1 replica"),
        ("SELECT * FROM users WHERE (name = 'x' OR age > 3) AND (user_id = 107)", "s1 replica"),
        ("SELECT count(*) FROM users WHERE user_id = 107 GROUP BY name ORDER BY 1 LIMIT 3", "s1 replica"),
        ("SELECT DISTINCT name FROM users WHERE user_id OPERATOR(pg_catalog.=) 107", "s1 replica"),
        ("SELECT * FROM \"Big Table\" WHERE \"Key Col\" = 107", "s1 replica"),
        ("SELECT * FROM app.accounts WHERE user_id = 107", "s1 replica"),
        ("SELECT * FROM accounts WHERE user_id = 107", "s1 replica"),
        ("TABLE countries", "any replica"),
        ("SELECT name FROM ONLY users WHERE user_id = 107", "s1 replica"),
        ("SELECT -- user_id = 7\n * FROM users /* WHERE user_id = 7 */ WHERE user_id = 107", "s1 replica"),
        ("SELECT * FROM users WHERE user_id IN (107)", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = ANY (ARRAY[107, 108])", "s1 replica"),
        ("SELECT * FROM users WHERE (user_id, name) = (107, 'x')", "s1 replica"),
        ("SELECT * FROM users WHERE (user_id, name) IN ((107, 'x'), (108, 'y'))", "s1 replica"),
    ]);
}

#[test]
fn predicates_are_algebra_over_shard_sets() {
    check(&[
        ("SELECT * FROM users WHERE user_id = 7 OR user_id = 8", "s0 replica"),
        ("SELECT * FROM users WHERE user_id = 7 OR user_id = 107", "scatter s0 s1 replica"),
        ("SELECT * FROM users WHERE user_id = 7 OR name = 'x'", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = 7 AND user_id = 107", "any replica"),
        ("SELECT * FROM users WHERE user_id IN (7, 7, 8)", "s0 replica"),
        ("SELECT * FROM users WHERE user_id IN (7, 107, 7)", "scatter s0 s1 replica"),
        ("SELECT * FROM users WHERE user_id IN (7, 107) AND user_id IN (107, 207)", "s1 replica"),
        ("SELECT * FROM users WHERE user_id IN (7, NULL)", "s0 replica"),
        ("SELECT count(*) FROM users WHERE user_id IN (7, 8)", "s0 replica"),
        ("SELECT * FROM users WHERE NOT user_id = 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id <> 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id > 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id >= 200", "s2 replica"),
        ("SELECT * FROM users WHERE user_id < 100", "s0 replica"),
        ("SELECT * FROM users WHERE 100 > user_id", "s0 replica"),
        ("SELECT * FROM users WHERE user_id <= 100", "scatter s0 s1 replica"),
        ("SELECT * FROM users WHERE user_id >= 100 AND user_id < 200", "s1 replica"),
        ("SELECT * FROM users WHERE user_id BETWEEN 7 AND 8", "s0 replica"),
        ("SELECT * FROM users WHERE user_id BETWEEN 7 AND 99.5", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id BETWEEN 7 AND lower(name)::int", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id NOT BETWEEN 7 AND 8", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE NOT user_id < 100", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id > 150 OR user_id = 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id < 50 OR user_id = 107", "scatter s0 s1 replica"),
        ("UPDATE users SET n = 1 WHERE user_id BETWEEN 110 AND 120", "s1"),
        ("DELETE FROM users WHERE user_id > 150", "! multi_shard_write: several shards"),
        ("SELECT * FROM docs WHERE name < 'b'", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = ANY ('{7,8}')", "s0 replica"),
        ("SELECT * FROM users WHERE user_id = ANY ('{7,107}'::bigint[])", "scatter s0 s1 replica"),
        ("SELECT * FROM users WHERE user_id = ANY (ARRAY[7, 107]::int[])", "scatter s0 s1 replica"),
        ("SELECT * FROM users WHERE user_id = ANY ('{7}'::numeric[])", "s0 replica"),
        ("SELECT * FROM users WHERE user_id = ANY ('{7}'::text[])", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id <> ANY ('{7}')", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = ALL ('{7}')", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id IS NOT DISTINCT FROM 7", "s0 replica"),
        ("SELECT * FROM users WHERE user_id IS NOT DISTINCT FROM NULL", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id IS DISTINCT FROM 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE (user_id, name) IN ((7, 'a'), (8, 'b'))", "s0 replica"),
        ("SELECT * FROM users WHERE (user_id, name) = (107, 'a')", "s1 replica"),
        ("SELECT * FROM users WHERE user_id = true", "any replica"),
        ("SELECT * FROM users WHERE user_id NOT IN (7)", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id IS NULL", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = 7 + 100", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id + 0 = 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = ALL (ARRAY[7])", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = 7 IS TRUE", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE false", "any replica"),
        ("SELECT * FROM users WHERE user_id = 7 AND (user_id = 8 OR user_id = 107)", "s0 replica"),
        ("SELECT * FROM users", "scatter s0 s1 s2 replica"),
        ("SELECT name, lower(name), now(), random() FROM users WHERE age > 3", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users WHERE user_id = 7 OR (user_id = 107 AND name = 'x')", "scatter s0 s1 replica"),
        ("SELECT * FROM users WHERE user_id = 300", "any replica"),
        ("SELECT * FROM users WHERE user_id = NULL", "any replica"),
        ("SELECT * FROM users WHERE CASE WHEN user_id = 7 THEN true END", "scatter s0 s1 s2 replica"),
    ]);
}

#[test]
fn joins_meet_where_their_keys_are_equated() {
    check(&[
        ("SELECT * FROM users u JOIN orders o ON o.user_id = u.user_id WHERE u.user_id = 107", "s1 replica"),
        ("SELECT * FROM users u JOIN orders o ON o.user_id = u.user_id WHERE o.user_id = 107", "s1 replica"),
        ("SELECT * FROM users JOIN orders USING (user_id) WHERE user_id = 107", "s1 replica"),
        ("SELECT * FROM users NATURAL JOIN orders WHERE user_id = 107", "s1 replica"),
        ("SELECT * FROM users u, orders o WHERE o.user_id = u.user_id AND u.user_id = 107", "s1 replica"),
        ("SELECT * FROM users u JOIN items i ON i.owner = u.user_id WHERE u.user_id = 107", "s1 replica"),
        ("SELECT * FROM users u JOIN items i ON i.owner = user_id WHERE owner = 107", "s1 replica"),
        (
            "SELECT * FROM users u JOIN orders o ON (o.user_id, 1) = (u.user_id, 1)",
            "scatter s0 s1 s2 replica",
        ),
        ("SELECT * FROM users u JOIN orders o USING (user_id)", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users u LEFT JOIN orders o USING (user_id)", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users u FULL JOIN orders o USING (user_id)", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users u JOIN countries c ON c.code = u.country", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users u LEFT JOIN countries c ON c.code = u.country", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users u JOIN countries c USING (code) WHERE u.user_id = 107", "s1 replica"),
        ("SELECT * FROM users a JOIN users b ON a.user_id = b.user_id WHERE a.user_id = 107", "s1 replica"),
        ("SELECT * FROM users a, users b WHERE a.user_id = 107 AND b.user_id = 108", "s1 replica"),
        (
            "SELECT * FROM users a, users b WHERE a.user_id = 7 AND b.user_id = 107",
            "! multi_shard_read: join",
        ),
        ("SELECT * FROM users a, orders b WHERE a.user_id = 7", "! multi_shard_read: join"),
        ("SELECT * FROM users a JOIN orders b ON a.id = b.id", "! multi_shard_read: join"),
        ("SELECT * FROM users a JOIN orders b ON a.user_id = b.user_id OR true", "! multi_shard_read: join"),
        ("SELECT * FROM users a JOIN orders b ON a.user_id > b.user_id", "! multi_shard_read: join"),
        // Keys of other maps are equal and yet elsewhere.
        ("SELECT * FROM users u JOIN smalls s ON s.k = u.user_id", "! multi_shard_read: join"),
        // A condition of an outer join does not restrict the side that is kept.
        (
            "SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.user_id AND u.user_id = 107",
            "scatter s0 s1 s2 replica",
        ),
        (
            "SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.user_id AND o.user_id = 107",
            "scatter s0 s1 s2 replica",
        ),
        ("SELECT * FROM countries c LEFT JOIN users u ON u.user_id = 107", "s1 replica"),
        (
            "SELECT * FROM countries c LEFT JOIN users u ON u.country = c.code",
            "! multi_shard_read: outer join",
        ),
        (
            "SELECT * FROM users u RIGHT JOIN countries c ON u.country = c.code",
            "! multi_shard_read: outer join",
        ),
        (
            "SELECT * FROM users u FULL JOIN countries c ON u.country = c.code",
            "! multi_shard_read: outer join",
        ),
        // An equality that an outer join need not satisfy links nothing.
        (
            "SELECT * FROM users a LEFT JOIN orders b ON a.x = b.x LEFT JOIN items c \
             ON a.user_id = b.user_id AND c.owner = a.user_id",
            "! multi_shard_read: join",
        ),
        (
            "SELECT * FROM users a LEFT JOIN (orders b JOIN items c ON b.user_id = c.owner) \
             ON a.user_id = b.user_id",
            "scatter s0 s1 s2 replica",
        ),
    ]);
}

#[test]
fn names_are_resolved_as_postgresql_does() {
    check(&[
        // The alias hides the table's name.
        ("SELECT * FROM users orders, orders o WHERE orders.user_id = 7 AND o.user_id = 8", "s0 replica"),
        ("SELECT * FROM countries users WHERE users.user_id = 7", "any replica"),
        ("SELECT * FROM users AS u (a, b) WHERE user_id = 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users AS u (a, b) WHERE u.user_id = 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM users u WHERE u.\"User_Id\" = 7", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM items WHERE user_id = 7", "scatter s0 s1 s2 replica"),
        // A column of another table of the join.
        ("SELECT * FROM users u, countries c WHERE c.user_id = 7", "scatter s0 s1 s2 replica"),
        // The alias of a join hides an outer table of the same name.
        (
            "SELECT * FROM users j WHERE EXISTS \
             (SELECT 1 FROM (orders o CROSS JOIN countries c) AS j WHERE j.user_id = j.user_id)",
            "! multi_shard_read: subquery",
        ),
        (
            "SELECT * FROM (countries c JOIN currencies d ON user_id = 7) JOIN users u ON true",
            "scatter s0 s1 s2 replica",
        ),
        (
            "SELECT * FROM (users u JOIN countries c ON true) AS j (user_id, b) WHERE user_id = 7",
            "scatter s0 s1 s2 replica",
        ),
        // A CTE hides a table, a schema shows it again.
        ("WITH users AS (SELECT 1 AS user_id) SELECT * FROM users WHERE user_id = 7", "any replica"),
        ("WITH users AS (SELECT 1 AS user_id) SELECT * FROM public.users WHERE user_id = 107", "s1 replica"),
        ("SELECT * FROM generate_series(1, 3) AS users (user_id) WHERE user_id = 7", "any replica"),
        ("SELECT * FROM users, generate_series(1, 3) g WHERE user_id = 107", "s1 replica"),
        ("SELECT * FROM other.users WHERE user_id = 7", "! unlisted_table: other.users"),
    ]);
}

#[test]
fn inner_queries_are_routed_by_themselves_and_combined() {
    check(&[
        (
            "SELECT * FROM users WHERE user_id = 107 AND id IN (SELECT id FROM orders WHERE user_id = 108)",
            "s1 replica",
        ),
        (
            "SELECT * FROM users WHERE user_id = 107 AND id IN (SELECT id FROM orders WHERE user_id = 8)",
            "! multi_shard_read: subquery",
        ),
        (
            "SELECT * FROM users WHERE user_id = 107 AND id IN (SELECT id FROM orders)",
            "! multi_shard_read: subquery",
        ),
        (
            "SELECT * FROM users u WHERE u.user_id = 107 AND EXISTS \
             (SELECT 1 FROM orders o WHERE o.user_id = u.user_id)",
            "s1 replica",
        ),
        (
            "SELECT (SELECT count(*) FROM orders o WHERE o.user_id = u.user_id) FROM users u",
            "scatter s0 s1 s2 replica",
        ),
        // A condition inside NOT EXISTS restricts nothing outside.
        (
            "SELECT * FROM users u WHERE NOT EXISTS \
             (SELECT 1 FROM orders o WHERE o.user_id = u.user_id AND o.user_id = 7)",
            "scatter s0 s1 s2 replica",
        ),
        (
            "SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.id = u.id)",
            "! multi_shard_read: subquery",
        ),
        // Inside, the name is the inner table's own.
        (
            "SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders u WHERE u.user_id = u.user_id)",
            "! multi_shard_read: subquery",
        ),
        ("SELECT * FROM users WHERE user_id IN (SELECT user_id FROM orders)", "scatter s0 s1 s2 replica"),
        (
            "SELECT * FROM users WHERE user_id IN (SELECT user_id FROM orders LIMIT 3)",
            "! multi_shard_read: subquery",
        ),
        ("SELECT * FROM users WHERE id IN (SELECT user_id FROM orders)", "! multi_shard_read: subquery"),
        ("SELECT * FROM users WHERE country IN (SELECT code FROM countries)", "scatter s0 s1 s2 replica"),
        ("SELECT * FROM (SELECT * FROM orders WHERE user_id = 107) o", "s1 replica"),
        ("SELECT * FROM (SELECT * FROM orders) o WHERE o.user_id = 107", "s1 replica"),
        ("SELECT * FROM (SELECT user_id AS u FROM orders) o WHERE o.u = 107", "s1 replica"),
        (
            "SELECT * FROM (SELECT id AS user_id FROM orders) o WHERE o.user_id = 107",
            "! multi_shard_read: FROM",
        ),
        (
            "SELECT * FROM (SELECT user_id, count(*) FROM orders GROUP BY user_id) o",
            "scatter s0 s1 s2 replica",
        ),
        (
            "SELECT * FROM (SELECT o.user_id FROM users u LEFT JOIN orders o USING (user_id)) s WHERE user_id = 107",
            "! multi_shard_read: FROM",
        ),
        (
            "SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.user_id \
             ORDER BY id LIMIT 3) x",
            "scatter s0 s1 s2 replica",
        ),
        (
            "SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.user_id \
             ORDER BY id LIMIT 3) x WHERE u.user_id = 107",
            "s1 replica",
        ),
    ]);
}

#[test]
fn reads_of_several_shards_are_merged() {
    check(&[
        ("SELECT count(*) FROM users", "merge s0 s1 s2 replica"),
        ("SELECT max(age) FROM users WHERE user_id IN (7, 107)", "merge s0 s1 replica"),
        ("SELECT string_agg(name, ',' ORDER BY name) FROM users", "merge s0 s1 s2 replica"),
        ("SELECT * FROM users ORDER BY name", "merge s0 s1 s2 replica"),
        ("SELECT * FROM users LIMIT 1", "merge s0 s1 s2 replica"),
        ("SELECT * FROM users OFFSET 1", "merge s0 s1 s2 replica"),
        ("SELECT * FROM users FETCH FIRST ROW ONLY", "merge s0 s1 s2 replica"),
        ("SELECT DISTINCT name FROM users", "merge s0 s1 s2 replica"),
        ("SELECT name FROM users GROUP BY name", "merge s0 s1 s2 replica"),
        ("SELECT user_id, count(*) FROM orders GROUP BY 1 ORDER BY 2", "merge s0 s1 s2 replica"),
        ("SELECT 1 FROM users HAVING true", "merge s0 s1 s2 replica"),
        ("SELECT row_number() OVER (PARTITION BY user_id) FROM orders", "merge s0 s1 s2 replica"),
        ("SELECT user_id FROM users EXCEPT SELECT user_id FROM orders", "merge s0 s1 s2 replica"),
        ("SELECT name FROM users UNION SELECT name FROM countries", "merge s0 s1 s2 replica"),
        ("SELECT count(*) FROM users WHERE user_id = 107", "s1 replica"),
    ]);
}

#[test]
fn queries_of_with_and_set_operations_are_combined() {
    check(&[
        ("WITH o AS (SELECT * FROM orders WHERE user_id = 107) SELECT * FROM o", "s1 replica"),
        ("WITH o AS (SELECT * FROM orders) SELECT * FROM o WHERE user_id = 107", "s1 replica"),
        (
            "WITH o (x) AS (SELECT * FROM orders) SELECT * FROM o WHERE user_id = 107",
            "! multi_shard_read: WITH",
        ),
        (
            "WITH o AS (SELECT * FROM orders WHERE user_id = 7) \
             SELECT * FROM o JOIN users u ON true WHERE u.user_id = 107",
            "! multi_shard_read: ",
        ),
        ("SELECT * FROM users WHERE user_id = 7 UNION SELECT * FROM users WHERE user_id = 8", "s0 replica"),
        (
            "SELECT * FROM users WHERE user_id = 7 UNION ALL SELECT * FROM users WHERE user_id = 107",
            "merge s0 s1 replica",
        ),
        ("SELECT code FROM countries EXCEPT SELECT code FROM currencies", "any replica"),
        (
            "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT * FROM t",
            "any replica",
        ),
        (
            "WITH RECURSIVE t AS (SELECT id FROM items WHERE owner = 107 UNION ALL \
             SELECT i.id FROM items i JOIN t ON i.parent = t.id WHERE i.owner = 107) SELECT * FROM t",
            "s1 replica",
        ),
    ]);
}

#[test]
fn what_names_no_shard_runs_on_any() {
    check(&[
        ("SELECT 1", "any replica"),
        ("SELECT now(), version()", "any replica"),
        ("VALUES (1), (2)", "any replica"),
        ("SELECT * FROM countries ORDER BY name LIMIT 5", "any replica"),
        ("SELECT count(*) FROM countries JOIN currencies USING (code)", "any replica"),
        ("SELECT relname FROM pg_class", "any"),
        ("SELECT * FROM pg_catalog.pg_type", "any"),
        ("SELECT table_name FROM information_schema.tables", "any"),
        ("SHOW server_version", "any"),
        ("SELECT current_setting('search_path')", "any"),
        ("SELECT pg_backend_pid()", "any"),
        ("SELECT pg_sleep(0)", "any"),
        ("BEGIN", "any"),
        ("COMMIT", "any"),
        ("SET work_mem = '1MB'", "any"),
        ("", "any replica"),
        (";", "any replica"),
        ("-- nothing", "any replica"),
    ]);
}

#[test]
fn writes_go_to_the_primary_of_their_key() {
    check(&[
        ("INSERT INTO users (user_id, name) VALUES (107, 'x')", "s1"),
        ("INSERT INTO users (name, user_id) VALUES ('x', 107), ('y', 108)", "s1"),
        ("INSERT INTO users (user_id) VALUES (107) ON CONFLICT (user_id) DO UPDATE SET name = 'x'", "s1"),
        ("INSERT INTO users (user_id) VALUES (107) ON CONFLICT DO NOTHING RETURNING *", "s1"),
        ("INSERT INTO users AS u (user_id) VALUES (-7)", "s0"),
        ("INSERT INTO orders (user_id, n) SELECT user_id, 1 FROM users WHERE user_id = 107", "s1"),
        ("INSERT INTO orders (user_id, n) SELECT u.user_id, 1 FROM users u WHERE u.user_id = 107", "s1"),
        ("INSERT INTO orders (user_id, n) SELECT 107, code FROM countries", "s1"),
        ("INSERT INTO orders (user_id, n) SELECT 107, n FROM orders WHERE user_id = 108", "s1"),
        ("INSERT INTO orders (user_id, n) VALUES (107, nextval('s'))", "s1"),
        (
            "INSERT INTO orders (user_id, n) VALUES (107, (SELECT max(n) FROM orders WHERE user_id = 107))",
            "s1",
        ),
        ("UPDATE users SET name = 'x' WHERE user_id = 107", "s1"),
        (
            "UPDATE users SET n = (SELECT count(*) FROM orders o WHERE o.user_id = users.user_id) \
             WHERE user_id = 107",
            "s1",
        ),
        ("UPDATE users SET name = 'x' WHERE user_id IN (107, 108)", "s1"),
        ("UPDATE orders o SET n = 1 FROM users u WHERE u.user_id = o.user_id AND u.user_id = 107", "s1"),
        ("UPDATE orders o SET n = 1 FROM countries c WHERE o.user_id = 107 AND c.code = 'x'", "s1"),
        ("DELETE FROM orders USING users u WHERE orders.user_id = u.user_id AND u.user_id = 107", "s1"),
        ("DELETE FROM users WHERE user_id = 7 AND user_id = 107", "any"),
        ("WITH x AS (DELETE FROM orders WHERE user_id = 107 RETURNING *) SELECT * FROM x", "s1"),
        (
            "WITH x AS (UPDATE users SET n = 1 WHERE user_id = 107 RETURNING *), \
             y AS (INSERT INTO orders (user_id) VALUES (108)) SELECT * FROM x",
            "s1",
        ),
        ("SELECT * FROM users WHERE user_id = 107 FOR UPDATE", "s1"),
        ("SELECT * FROM users u JOIN countries c ON true WHERE u.user_id = 107 FOR UPDATE OF u", "s1"),
        ("EXPLAIN ANALYZE DELETE FROM users WHERE user_id = 107", "s1"),
        ("EXPLAIN DELETE FROM users WHERE user_id = 107", "s1"),
        ("EXPLAIN SELECT * FROM users WHERE user_id = 107", "s1 replica"),
        ("COPY (SELECT * FROM users WHERE user_id = 107) TO STDOUT", "s1 replica"),
        ("COPY countries TO STDOUT", "any replica"),
    ]);
}

#[test]
fn reference_tables_are_written_everywhere() {
    check(&[
        ("INSERT INTO countries (code) VALUES ('ch')", "everywhere"),
        ("INSERT INTO countries (code, name) VALUES ('ch', lower('X')) ON CONFLICT DO NOTHING", "everywhere"),
        ("UPDATE countries SET name = 'x' WHERE code IN (SELECT code FROM currencies)", "everywhere"),
        ("DELETE FROM countries", "everywhere"),
        ("EXPLAIN DELETE FROM countries", "any"),
    ]);
}

#[test]
fn ddl_goes_to_every_shard_in_turn() {
    check(&[
        ("CREATE TABLE t (a int)", "in turn"),
        ("ALTER TABLE users ADD COLUMN x int", "in turn"),
        ("DROP TABLE IF EXISTS t", "in turn"),
        ("CREATE INDEX CONCURRENTLY i ON users (name)", "in turn"),
        ("CREATE SCHEMA s", "in turn"),
        ("CREATE SEQUENCE s", "in turn"),
        ("CREATE TYPE m AS ENUM ('a')", "in turn"),
        ("CREATE VIEW v AS SELECT * FROM users", "in turn"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "in turn"),
        ("CREATE EXTENSION pg_trgm", "in turn"),
        ("GRANT SELECT ON users TO app", "in turn"),
        ("COMMENT ON TABLE users IS 'x'", "in turn"),
        ("TRUNCATE users", "in turn"),
        ("VACUUM users", "in turn"),
        ("ANALYZE", "in turn"),
        ("REINDEX TABLE users", "in turn"),
        ("CHECKPOINT", "in turn"),
        ("CREATE TABLE t AS SELECT * FROM countries", "in turn"),
        ("CREATE TEMP TABLE t (a int) ON COMMIT DROP", "in turn"),
        ("CREATE TABLE t (a int); CREATE INDEX ON t (a)", "in turn"),
    ]);
}

#[test]
fn several_statements_share_one_shard() {
    check(&[
        ("SELECT * FROM users WHERE user_id = 107; SELECT * FROM orders WHERE user_id = 108", "s1 replica"),
        ("BEGIN; UPDATE users SET n = 1 WHERE user_id = 107; COMMIT", "s1"),
        ("SELECT 1; SELECT * FROM users WHERE user_id = 107", "s1 replica"),
        ("SELECT 1; SELECT 2", "any replica"),
        (
            "SELECT * FROM users WHERE user_id = 7; SELECT * FROM users WHERE user_id = 107",
            "! multi_shard_read: several statements",
        ),
        ("SELECT * FROM users; SELECT 1", "! multi_shard_read: several statements"),
        (
            "UPDATE users SET n = 1 WHERE user_id = 7; UPDATE users SET n = 1 WHERE user_id = 107",
            "! multi_shard_write: several shards",
        ),
        ("DELETE FROM countries; SELECT 1", "! unsupported: cannot share its text"),
        ("CREATE TABLE t (a int); SELECT 1", "! unsupported: cannot share its text"),
        // asyncpg's reset.
        ("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", "any"),
    ]);
}

#[test]
fn transactions_stay_on_their_shard() {
    let router = router();
    let on_s1 = SessionView { in_transaction: true, enlisted: Some(ShardId(1)), ..session() };
    let cases = [
        ("SELECT * FROM users WHERE user_id = 107", "s1"),
        ("SELECT * FROM users WHERE user_id = 7", "! multi_shard_write: two shards"),
        ("UPDATE users SET n = 1 WHERE user_id = 107", "s1"),
        ("UPDATE users SET n = 1 WHERE user_id = 7", "! multi_shard_write: two shards"),
        ("SELECT * FROM users", "! multi_shard_read: pipeline"),
        ("DELETE FROM countries", "! multi_shard_write: reference"),
        ("CREATE TABLE t (a int)", "! ddl: transaction"),
    ];
    for (sql, expect) in cases {
        check_in(&router, &on_s1, sql, &[], expect);
    }
    let enlisted = |sql: &str| decide_in(&router, sql, &[], &on_s1).unwrap().shards;
    assert_eq!(enlisted("SELECT 1").to_vec(), [ShardId(1)]);
    assert_eq!(enlisted("SELECT * FROM countries").to_vec(), [ShardId(1)]);
    assert_eq!(enlisted("SELECT * FROM users WHERE false").to_vec(), [ShardId(1)]);

    let open = SessionView { in_transaction: true, ..session() };
    check_in(&router, &open, "SELECT * FROM users", &[], "! multi_shard_read: pipeline");
    let open = SessionView { spreads: true, ..open };
    check_in(&router, &open, "SELECT * FROM users", &[], "scatter s0 s1 s2");
    let read_only = SessionView { read_only_transaction: true, ..open };
    check_in(&router, &read_only, "SELECT * FROM users", &[], "scatter s0 s1 s2 replica");
    check_in(&router, &read_only, "SELECT * FROM users WHERE user_id = 107", &[], "s1 replica");
    let read_only = SessionView { read_only_transaction: true, ..on_s1 };
    check_in(&router, &read_only, "SELECT * FROM users", &[], "! multi_shard_read: pipeline");
}

#[test]
fn transactions_read_on_many_shards_and_write_on_one() {
    let router = router();
    let read = SessionView { in_transaction: true, spreads: true, enlisted: Some(ShardId(1)), ..session() };
    for (sql, expect) in [
        ("SELECT * FROM users WHERE user_id = 7", "s0"),
        ("SELECT * FROM users", "scatter s0 s1 s2"),
        ("UPDATE users SET n = 1 WHERE user_id = 7", "s0"),
        ("SELECT * FROM users WHERE user_id = 7 FOR UPDATE", "s0"),
        ("NOTIFY x", "s0"),
        ("DECLARE c CURSOR FOR SELECT * FROM users", "merge s0 s1 s2"),
        ("DECLARE c SCROLL CURSOR FOR SELECT * FROM users", "! multi_shard_read: SCROLL"),
        ("DECLARE c SCROLL CURSOR FOR SELECT * FROM users WHERE user_id = 7", "s0"),
        ("SELECT * FROM users FOR UPDATE", "! multi_shard_read: FOR UPDATE"),
        ("SELECT user_id FROM users WHERE mine(n)", "! multi_shard_write: may write"),
        ("DELETE FROM countries", "! multi_shard_write: reference"),
    ] {
        check_in(&router, &read, sql, &[], expect);
    }
    let written = SessionView { written: Some(ShardId(2)), ..read };
    for (sql, expect) in [
        ("SELECT * FROM users WHERE user_id = 7", "s0"),
        ("SELECT * FROM users", "scatter s0 s1 s2"),
        ("UPDATE users SET n = 1 WHERE user_id = 207", "s2"),
        ("UPDATE users SET n = 1 WHERE user_id = 107", "! multi_shard_write: two shards"),
        ("SELECT * FROM users WHERE user_id = 7 FOR UPDATE", "! multi_shard_write: two shards"),
        ("NOTIFY x", "! multi_shard_write: NOTIFY"),
    ] {
        check_in(&router, &written, sql, &[], expect);
    }
}

#[test]
fn one_shard_takes_everything() {
    let router = router_of(1);
    for sql in [
        "SELECT * FROM anything ORDER BY 1",
        "SELEC 1",
        "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE",
        "LISTEN x",
        "INSERT INTO users VALUES (1)",
        "COPY users FROM STDIN",
        "CREATE TABLE t (a int)",
        "UPDATE users SET user_id = 1",
    ] {
        for session in [session(), SessionView { in_transaction: true, ..session() }] {
            let decision = decide_in(&router, sql, &[], &session).unwrap();
            assert_eq!(decision.shards.to_vec(), [ShardId(0)], "{sql}");
            assert_eq!(decision.mode, Mode::One, "{sql}");
            assert_eq!(decision.why, Why::OnlyShard, "{sql}");
        }
    }
    let keyed = decide_in(&router, "SELECT * FROM users WHERE user_id = 7", &[], &session()).unwrap();
    assert_eq!(keyed.keys.iter().map(|it| it.map).collect::<Vec<_>>(), [0]);
}

#[test]
fn keys_are_reported_each_once() {
    let router = router();
    let keys = |sql: &str| decide_in(&router, sql, &[], &session()).unwrap().keys.to_vec();
    let key = |it| KeyRef { map: 0, place: maps()[0].locate(&KeyValue::Int(it)).unwrap(), table: 0 };
    assert_eq!(keys("SELECT * FROM users WHERE user_id = 107"), [key(107)]);
    assert_eq!(keys("SELECT * FROM users WHERE user_id IN (107, 107)"), [key(107)]);
    assert_eq!(keys("SELECT * FROM users WHERE user_id IN (107, 108)"), [key(107), key(108)]);
    assert_eq!(keys("SELECT * FROM users"), []);
    let many: Vec<String> = (0..100).map(|it| it.to_string()).collect();
    let sql = format!("SELECT * FROM users WHERE user_id IN ({})", many.join(","));
    assert_eq!(keys(&sql).len(), KEYS_COUNTED_MAX);
}

#[test]
fn values_of_keys_are_told_to_who_asks() {
    let router = router();
    let sql = "SELECT * FROM users WHERE user_id IN (107, 108)";
    let planned = router.plan(sql);
    let source = KeySource { text: sql, literals: &planned.literals, params: None };
    let told = router.key_values(&planned.plan, &source, &session());
    let key = |it| KeyRef { map: 0, place: maps()[0].locate(&KeyValue::Int(it)).unwrap(), table: 0 };
    let named = |it| NamedKey { key: key(it), value: KeyValue::Int(it), table: "users".to_owned() };
    assert_eq!(told, [107, 108].map(named));
    assert_eq!(planned.plan.subject.map, Some(0));
    assert_eq!(planned.plan.subject.table.as_deref(), Some("users"));
    // What no index can hold is not kept.
    let sql = format!("SELECT * FROM docs WHERE name = '{}'", "x".repeat(3_000));
    let planned = router.plan(&sql);
    let source = KeySource { text: &sql, literals: &planned.literals, params: None };
    assert_eq!(router.decide(&planned.plan, &source, &session()).unwrap().keys.len(), 1);
    assert_eq!(router.key_values(&planned.plan, &source, &session()), []);
}
