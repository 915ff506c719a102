-- One key.
SELECT * FROM users WHERE user_id = 7
SELECT name, age FROM users WHERE user_id = '17'
SELECT name FROM users WHERE user_id = 17::bigint
SELECT name FROM users WHERE 17 = user_id
SELECT name FROM users WHERE user_id = $1 @ 23
SELECT name FROM users WHERE user_id = $1 AND age > $2 @ 23 | 1
SELECT count(*) FROM users WHERE user_id = 7
SELECT count(*), max(age) FROM users WHERE user_id = 999
=SELECT order_id, amount FROM orders WHERE user_id = 11 ORDER BY amount DESC NULLS LAST, order_id LIMIT 2
SELECT DISTINCT status FROM orders WHERE user_id = 12
SELECT status, count(*) FROM orders WHERE user_id = 13 GROUP BY status
=SELECT order_id, sum(amount) OVER (ORDER BY order_id) FROM orders WHERE user_id = 14 ORDER BY order_id
SELECT u.name, o.order_id FROM users u JOIN orders o USING (user_id) WHERE user_id = 15
SELECT u.name, o.order_id FROM users u, orders o WHERE u.user_id = o.user_id AND o.user_id = 16
SELECT name FROM users WHERE user_id = 7 AND user_id = 8
SELECT name FROM users WHERE user_id = NULL
SELECT name FROM users WHERE user_id IS NULL
SELECT name FROM users WHERE user_id = 7 OR user_id = 7
SELECT name FROM users WHERE (user_id, age) = (7, 67)
SELECT name FROM users WHERE user_id = 12 FOR UPDATE
SELECT name, (SELECT count(*) FROM orders o WHERE o.user_id = u.user_id) FROM users u WHERE user_id = 21
SELECT name FROM users WHERE user_id IN (SELECT user_id FROM orders WHERE user_id = 22)
WITH mine AS (SELECT * FROM orders WHERE user_id = 24) SELECT count(*), min(amount) FROM mine
SELECT user_id FROM users WHERE user_id = 7 UNION ALL SELECT user_id FROM orders WHERE user_id = 7
SELECT string_agg(status, ',' ORDER BY order_id) FROM orders WHERE user_id = 25
SELECT array_agg(order_id ORDER BY order_id DESC) FROM orders WHERE user_id = 26
SELECT u.name, c.name FROM users u JOIN countries c ON c.code = u.country WHERE u.user_id = 27
SELECT 1 / (user_id - 7) FROM users WHERE user_id = 7
SELECT nothing FROM users WHERE user_id = 7
SELECT name FROM users WHERE user_id = 'seven'
SELECT name FROM users WHERE user_id = 7.0
SELECT name FROM users WHERE user_id = 99999999999999999999
-- Several keys.
SELECT name FROM users WHERE user_id IN (1, 2, 3, 4, 5)
SELECT name FROM users WHERE user_id = ANY('{1,2,3}')
SELECT name FROM users WHERE user_id = ANY(ARRAY[4, 5, 6])
SELECT name FROM users WHERE user_id = ANY($1) @ {7,8,9,10}
SELECT name FROM users WHERE user_id = ANY($1::bigint[]) @ {7,8,NULL}
SELECT name FROM users WHERE user_id = 1 OR user_id = 30
SELECT name FROM users WHERE user_id IN (1, 2, 3) AND age > 30
SELECT name FROM users WHERE user_id IN ($1, $2) @ 31 | 32
=SELECT user_id FROM users WHERE user_id IN (5, 3, 9, 1) ORDER BY user_id
=SELECT user_id FROM users WHERE user_id IN (5, 3, 9, 1) ORDER BY user_id DESC LIMIT 2
SELECT count(*) FROM orders WHERE user_id IN (1, 2, 3, 4)
SELECT sum(amount), avg(amount) FROM orders WHERE user_id IN (1, 2, 3, 4)
SELECT u.name, o.order_id FROM users u JOIN orders o ON o.user_id = u.user_id WHERE u.user_id IN (1, 2, 3)
SELECT name FROM users WHERE user_id BETWEEN 10 AND 14
SELECT name FROM users WHERE user_id > 70
-- All shards: rows after one another.
SELECT * FROM users
SELECT name, score FROM users WHERE age > 40
SELECT * FROM users WHERE name LIKE 'user%' AND country IS NULL
SELECT user_id, order_id FROM orders WHERE amount > 20
SELECT u.name, o.order_id, i.sku FROM users u JOIN orders o ON u.user_id = o.user_id JOIN items i ON i.user_id = o.user_id AND i.order_id = o.order_id
SELECT u.user_id, o.order_id FROM users u LEFT JOIN orders o ON o.user_id = u.user_id AND o.amount > 40
SELECT u.user_id, o.order_id FROM orders o RIGHT JOIN users u ON o.user_id = u.user_id
SELECT u.user_id, o.order_id FROM users u FULL JOIN orders o ON o.user_id = u.user_id
SELECT u.name, c.name FROM users u JOIN countries c ON c.code = u.country
SELECT u.name, c.name FROM users u LEFT JOIN countries c ON c.code = u.country
SELECT u.name, c.name FROM countries c JOIN users u ON c.code = u.country WHERE c.population > 60000000
SELECT u.user_id, x.n FROM users u, LATERAL (SELECT count(*) AS n FROM orders o WHERE o.user_id = u.user_id) x
SELECT upper(name), length(name), name || country FROM users
SELECT CASE WHEN age > 50 THEN 'old' WHEN age > 30 THEN 'mid' ELSE 'young' END, user_id FROM users
SELECT coalesce(country, '--'), user_id % 5 FROM users
SELECT age::text, score::int, joined::timestamp FROM users
SELECT user_id FROM users WHERE joined > date '2025-01-01' AND active
SELECT user_id FROM users WHERE active IS NOT TRUE
SELECT user_id FROM users WHERE NOT active
SELECT user_id FROM users WHERE age IS DISTINCT FROM 25
SELECT user_id FROM users WHERE score BETWEEN 0 AND 10.5
SELECT user_id FROM users WHERE country IN ('NL', 'DE') OR age < 20
SELECT user_id FROM users WHERE country = $1 AND age < $2 @ NL | 60
SELECT user_id, $1::text FROM users WHERE age > 60 @ hello
SELECT 1 FROM users WHERE false
SELECT name FROM users WHERE 1 = 0
TABLE countries
SELECT * FROM ONLY users
SELECT users.* FROM users WHERE users.age = 25
SELECT u FROM (SELECT user_id AS u FROM users) s WHERE u < 10
SELECT s.a + 1 FROM (SELECT user_id AS a, age FROM users WHERE age > 30) s WHERE s.a < 40
SELECT occurred_at, kind FROM events WHERE kind = 'pay'
SELECT occurred_at, payload, span FROM events WHERE weight > 1
-- ORDER BY, LIMIT, OFFSET.
=SELECT user_id, name FROM users ORDER BY user_id
=SELECT user_id, name FROM users ORDER BY user_id DESC
=SELECT user_id FROM users ORDER BY name, user_id
=SELECT name FROM users ORDER BY user_id
=SELECT name FROM users ORDER BY age, user_id
=SELECT name FROM users ORDER BY age DESC, user_id
=SELECT name FROM users ORDER BY age NULLS FIRST, user_id
=SELECT name FROM users ORDER BY age DESC NULLS LAST, user_id DESC
=SELECT user_id, score FROM users ORDER BY score, user_id
=SELECT user_id FROM users ORDER BY joined DESC, user_id
=SELECT user_id FROM users ORDER BY active, user_id
=SELECT user_id, rating FROM users ORDER BY rating DESC, user_id
=SELECT user_id AS id FROM users ORDER BY id
=SELECT user_id, name FROM users ORDER BY 2, 1
=SELECT user_id, name FROM users ORDER BY 2 DESC, 1
=SELECT user_id FROM users ORDER BY user_id % 10, user_id
=SELECT user_id FROM users ORDER BY -user_id
=SELECT user_id FROM users ORDER BY lower(name), user_id
=SELECT user_id FROM users ORDER BY name COLLATE "C", user_id
=SELECT user_id FROM users ORDER BY user_id LIMIT 3
=SELECT user_id FROM users ORDER BY user_id LIMIT 3 OFFSET 5
=SELECT user_id FROM users ORDER BY user_id OFFSET 75
=SELECT user_id FROM users ORDER BY user_id LIMIT 0
=SELECT user_id FROM users ORDER BY user_id LIMIT ALL
=SELECT user_id FROM users ORDER BY user_id LIMIT NULL
=SELECT user_id FROM users ORDER BY user_id FETCH FIRST 4 ROWS ONLY
=SELECT user_id FROM users ORDER BY user_id FETCH FIRST ROW ONLY
=SELECT age FROM users ORDER BY age FETCH FIRST 5 ROWS WITH TIES
=SELECT user_id FROM users ORDER BY user_id LIMIT $1 @ 4
=SELECT user_id FROM users ORDER BY user_id LIMIT $1 OFFSET $2 @ 4 | 10
=SELECT user_id FROM users WHERE age > $1 ORDER BY user_id LIMIT $2 @ 40 | 6
=SELECT user_id FROM users ORDER BY user_id LIMIT 2 + 3
=SELECT user_id FROM users ORDER BY user_id LIMIT 1000000
SELECT user_id FROM users ORDER BY user_id LIMIT -1
=SELECT o.user_id, o.order_id, u.name FROM orders o JOIN users u USING (user_id) ORDER BY o.amount DESC NULLS LAST, o.user_id, o.order_id LIMIT 10
=SELECT o.order_id, c.name FROM orders o JOIN users u USING (user_id) JOIN countries c ON c.code = u.country ORDER BY c.name, o.user_id, o.order_id LIMIT 12
=SELECT placed_at FROM orders ORDER BY placed_at, user_id, order_id LIMIT 5
=SELECT occurred_at FROM events ORDER BY occurred_at LIMIT 7
=SELECT occurred_at FROM events ORDER BY weight, occurred_at
=SELECT occurred_at FROM events ORDER BY weight DESC, occurred_at DESC
=SELECT occurred_at, span FROM events ORDER BY span, occurred_at LIMIT 20
=SELECT payload FROM events ORDER BY payload LIMIT 8
=SELECT kind, occurred_at FROM events WHERE occurred_at >= '2026-01-05' AND occurred_at < '2026-01-15' ORDER BY occurred_at
=SELECT * FROM users ORDER BY user_id LIMIT 5
=SELECT *, age + 1 FROM users ORDER BY age + 1, user_id LIMIT 5
=SELECT name n FROM users ORDER BY n, user_id LIMIT 7
=SELECT country, user_id FROM users ORDER BY country, user_id
=SELECT country, user_id FROM users ORDER BY country DESC NULLS LAST, user_id LIMIT 15
=SELECT status, user_id, order_id FROM orders ORDER BY status NULLS FIRST, 2, 3 LIMIT 20
=SELECT price, user_id, order_id, line FROM items ORDER BY price DESC, user_id, order_id, line LIMIT 9
=SELECT line, user_id, order_id FROM items ORDER BY line, user_id, order_id OFFSET 5 LIMIT 9
-- DISTINCT.
SELECT DISTINCT country FROM users
=SELECT DISTINCT country FROM users ORDER BY country
=SELECT DISTINCT country FROM users ORDER BY country DESC LIMIT 3
SELECT DISTINCT age % 10 FROM users
SELECT DISTINCT name, country FROM users
SELECT DISTINCT user_id FROM orders
SELECT DISTINCT status, amount > 20 FROM orders
SELECT DISTINCT o.user_id, u.name FROM orders o JOIN users u USING (user_id)
SELECT DISTINCT active FROM users
SELECT DISTINCT weight FROM events
=SELECT DISTINCT ON (country) country, user_id FROM users ORDER BY country, user_id
=SELECT DISTINCT ON (country) country, name, user_id FROM users ORDER BY country, age DESC NULLS LAST, user_id
=SELECT DISTINCT ON (user_id) user_id, order_id FROM orders ORDER BY user_id, order_id DESC
=SELECT DISTINCT age FROM users ORDER BY age OFFSET 3 LIMIT 4
-- Aggregates.
SELECT count(*) FROM users
SELECT count(*) + 1 FROM users
SELECT count(*), count(age), count(country) FROM users
SELECT sum(age) FROM users
SELECT sum(user_id) FROM users
SELECT sum(score) FROM users
SELECT avg(age) FROM users
SELECT avg(user_id) FROM users
SELECT avg(score) FROM users
SELECT min(age), max(age), min(name), max(name), min(joined), max(joined) FROM users
SELECT min(score), max(score), min(country), max(country) FROM users
SELECT bool_and(active), bool_or(active), every(active) FROM users
SELECT bit_and(age), bit_or(age) FROM users
SELECT bit_xor(user_id) FROM users
SELECT stddev(age), stddev_pop(age), stddev_samp(age), variance(age), var_pop(age), var_samp(age) FROM users
SELECT stddev(score), variance(score) FROM users
SELECT stddev(user_id) FROM users WHERE user_id = 1 OR user_id = 2
SELECT stddev_samp(amount), var_pop(amount) FROM orders WHERE amount < 0.5
SELECT count(DISTINCT country) FROM users
SELECT count(DISTINCT age), count(DISTINCT name), count(*) FROM users
SELECT sum(DISTINCT age), avg(DISTINCT age) FROM users
SELECT count(*) FILTER (WHERE age > 40), sum(age) FILTER (WHERE active) FROM users
SELECT sum(amount) / count(*) FROM orders
SELECT round(avg(amount), 2) FROM orders
SELECT max(amount) - min(amount) FROM orders
SELECT sum(amount * 2 + 1) FROM orders
SELECT sum(qty * price) FROM items
SELECT coalesce(sum(amount), 0) FROM orders WHERE amount > 1000
SELECT sum(amount), avg(amount), min(amount), count(amount) FROM orders WHERE false
SELECT count(*) FROM users WHERE false
SELECT 'n', count(*) FROM users
SELECT count(*)::int, sum(age)::text FROM users
SELECT count(*) > 10, count(*) = 80 FROM users
SELECT CASE WHEN count(*) > 10 THEN 'many' ELSE 'few' END FROM users
SELECT sum(age) % 7, -sum(age), abs(min(score)) FROM users
SELECT greatest(max(age), 100), least(min(age), 0) FROM users
SELECT nullif(count(*), 80) FROM users
SELECT max(occurred_at), min(occurred_at), max(span) FROM events
SELECT max(weight), min(weight), count(weight) FROM events
SELECT sum(weight) FROM events WHERE weight < 100
SELECT count(*) FROM users u JOIN orders o USING (user_id)
SELECT sum(o.amount) FROM users u JOIN orders o USING (user_id) WHERE u.country = 'NL'
SELECT count(*) FROM users u JOIN countries c ON c.code = u.country WHERE c.population > 60000000
SELECT string_agg(name, ',' ORDER BY user_id) FROM users WHERE age > 60
SELECT array_agg(user_id ORDER BY user_id) FROM users WHERE age > 60
SELECT array_agg(age ORDER BY age DESC, user_id) FROM users WHERE country = 'NL'
SELECT string_agg(DISTINCT country, '/' ORDER BY country) FROM users
SELECT count(*) FROM users HAVING count(*) > 10
SELECT count(*) FROM users HAVING count(*) > 1000
SELECT sum(age) FROM users WHERE user_id > $1 @ 40
SELECT count(*) + $1::int FROM users @ 5
SELECT count(user_id), count(1), count(NULL) FROM users
SELECT avg(qty), avg(line), sum(qty), sum(line) FROM items
SELECT sum(rating) FROM users
SELECT avg(amount)::numeric(10,4), sum(amount)::float8 FROM orders
SELECT max(user_id) + min(user_id) * 2 FROM users
SELECT avg(age) > 40, avg(age) BETWEEN 10 AND 90 FROM users
SELECT 100.0 * count(*) FILTER (WHERE active) / count(*) FROM users
SELECT sum(sum) FROM (SELECT sum(amount) FROM orders GROUP BY user_id) s
-- GROUP BY.
SELECT country, count(*) FROM users GROUP BY country
=SELECT country, count(*) FROM users GROUP BY country ORDER BY country
=SELECT country, count(*) FROM users GROUP BY country ORDER BY count(*) DESC, country
=SELECT country, count(*) AS n FROM users GROUP BY country ORDER BY n DESC, country LIMIT 3
=SELECT country, count(*) FROM users GROUP BY 1 ORDER BY 2 DESC, 1 OFFSET 1
SELECT country, sum(age), avg(age), min(name) FROM users GROUP BY country
SELECT count(*) FROM users GROUP BY country
SELECT country, active, count(*) FROM users GROUP BY country, active
SELECT age / 10, count(*) FROM users GROUP BY age / 10
=SELECT age / 10 AS decade, count(*), avg(score) FROM users GROUP BY decade ORDER BY decade
SELECT country, count(*) FROM users GROUP BY country HAVING count(*) > 10
SELECT country FROM users GROUP BY country HAVING sum(age) > 300 AND max(age) < 80
=SELECT country, count(*) FROM users WHERE age > 30 GROUP BY country HAVING avg(age) > 40 ORDER BY country
SELECT user_id, count(*) FROM orders GROUP BY user_id
=SELECT user_id, sum(amount) FROM orders GROUP BY user_id ORDER BY sum(amount) DESC NULLS LAST, user_id LIMIT 5
SELECT user_id, max(amount) - min(amount) FROM orders GROUP BY user_id HAVING count(*) > 2
SELECT status, count(*), sum(amount), avg(amount) FROM orders GROUP BY status
=SELECT status, count(DISTINCT user_id) FROM orders GROUP BY status ORDER BY status
=SELECT status, string_agg(user_id::text, ',' ORDER BY user_id, order_id) FROM orders WHERE amount > 40 GROUP BY status ORDER BY status
=SELECT date_trunc('month', placed_at) AS m, count(*), sum(amount) FROM orders GROUP BY m ORDER BY m
=SELECT date_trunc('day', occurred_at) AS d, count(*) FROM events GROUP BY d ORDER BY d LIMIT 10
=SELECT kind, count(*), max(weight) FROM events GROUP BY kind ORDER BY kind
=SELECT c.name, count(*) FROM users u JOIN countries c ON c.code = u.country GROUP BY c.name ORDER BY c.name
=SELECT u.country, sum(o.amount) FROM users u JOIN orders o USING (user_id) GROUP BY u.country ORDER BY u.country
=SELECT u.country, sum(i.qty * i.price) AS total FROM users u JOIN orders o USING (user_id) JOIN items i USING (user_id, order_id) GROUP BY u.country ORDER BY total DESC NULLS LAST, u.country
=SELECT sku, sum(qty), count(*) FILTER (WHERE qty IS NULL) FROM items GROUP BY sku ORDER BY sku
=SELECT upper(name), count(*) FROM users GROUP BY upper(name) ORDER BY upper(name)
SELECT country, count(*) + 1, sum(age) * 2 FROM users GROUP BY country
SELECT coalesce(country, 'none'), count(*) FROM users GROUP BY coalesce(country, 'none')
SELECT country, stddev(age), var_pop(score) FROM users GROUP BY country
SELECT active, bool_or(age > 70), bit_or(age) FROM users GROUP BY active
SELECT country, count(*) * 100 / 80 AS share FROM users GROUP BY country
SELECT country FROM users GROUP BY country
=SELECT country, age FROM users GROUP BY country, age ORDER BY country, age LIMIT 10
SELECT country, count(*) FROM users GROUP BY ROLLUP (country)
SELECT country, active, count(*) FROM users GROUP BY GROUPING SETS ((country), (active))
=SELECT name, count(*) FROM users WHERE user_id IN (1, 2, 3, 14, 15, 16) GROUP BY name ORDER BY 1
SELECT nothing, count(*) FROM users GROUP BY nothing
SELECT name, count(*) FROM users
-- Sublinks, CTEs, windows, set operations.
SELECT name FROM users WHERE user_id IN (SELECT user_id FROM orders WHERE amount > 45)
SELECT name FROM users WHERE user_id NOT IN (SELECT user_id FROM orders WHERE amount > 10)
SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.user_id AND o.status = 'paid')
SELECT name FROM users u WHERE NOT EXISTS (SELECT FROM orders o WHERE o.user_id = u.user_id)
SELECT count(*) FROM users u WHERE EXISTS (SELECT FROM orders o WHERE o.user_id = u.user_id AND amount > 30)
SELECT user_id, (SELECT max(amount) FROM orders o WHERE o.user_id = u.user_id) FROM users u
SELECT user_id, (SELECT c.name FROM countries c WHERE c.code = u.country) FROM users u
SELECT name FROM users WHERE country IN (SELECT code FROM countries WHERE population > 60000000)
SELECT name FROM users WHERE age > (SELECT avg(age) FROM users)
SELECT user_id, order_id FROM orders o WHERE amount = (SELECT max(amount) FROM orders WHERE user_id = o.user_id)
WITH o AS (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) SELECT u.name, o.n FROM users u JOIN o USING (user_id)
=WITH o AS (SELECT user_id, sum(amount) AS total FROM orders GROUP BY user_id) SELECT user_id, total FROM o ORDER BY total DESC NULLS LAST, user_id LIMIT 5
WITH big AS (SELECT * FROM orders WHERE amount > 20) SELECT count(*), sum(amount) FROM big
WITH a AS (SELECT 1 AS x) SELECT x, user_id FROM a, users WHERE user_id < 5
SELECT user_id, order_id, row_number() OVER (PARTITION BY user_id ORDER BY order_id) FROM orders
SELECT user_id, order_id, sum(amount) OVER (PARTITION BY user_id ORDER BY order_id) FROM orders
SELECT user_id, rank() OVER (ORDER BY user_id) FROM users
SELECT * FROM (SELECT user_id, order_id, row_number() OVER (PARTITION BY user_id ORDER BY amount DESC NULLS LAST, order_id) AS n FROM orders) s WHERE n = 1
SELECT user_id FROM users UNION ALL SELECT user_id FROM orders
SELECT user_id FROM users UNION SELECT user_id FROM orders
SELECT user_id FROM users INTERSECT SELECT user_id FROM orders
SELECT user_id FROM users EXCEPT SELECT user_id FROM orders
SELECT name FROM users UNION SELECT name FROM countries
=SELECT user_id FROM users WHERE age < 30 UNION ALL SELECT user_id FROM orders WHERE amount > 48 ORDER BY 1
=SELECT country FROM users UNION SELECT code FROM countries ORDER BY 1
SELECT country FROM users WHERE user_id = 1 UNION SELECT country FROM users WHERE user_id = 2
SELECT user_id FROM users WHERE user_id = 1 UNION ALL SELECT user_id FROM users WHERE user_id = 2
=SELECT user_id FROM users WHERE user_id = 1 UNION ALL SELECT user_id FROM users WHERE user_id = 2 UNION ALL SELECT user_id FROM users WHERE user_id = 3 ORDER BY user_id DESC
SELECT s.country, s.n FROM (SELECT country, count(*) AS n FROM users GROUP BY country) s WHERE s.n > 9
SELECT avg(n) FROM (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) s
SELECT n, count(*) FROM (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) s GROUP BY n
SELECT a.user_id, b.user_id FROM users a JOIN users b ON a.age = b.age WHERE a.user_id < b.user_id
SELECT u.user_id, e.kind FROM users u JOIN events e ON e.user_id = u.user_id
VALUES (1, 'a'), (2, 'b')
SELECT 1, 'x', NULL, now() IS NOT NULL
SELECT * FROM generate_series(1, 3)
SELECT * FROM countries c CROSS JOIN (VALUES (1), (2)) v(n)
SELECT name FROM countries WHERE code = 'NL'
=SELECT code, population FROM countries ORDER BY population DESC NULLS LAST, code
SELECT count(*), avg(population) FROM countries
SELECT count(*) FROM nowhere
SELEC 1
SELECT user_id FROM users WHERE age > 30 GROUP BY
-- Cursors over reads.
BEGIN ;; DECLARE c CURSOR FOR SELECT user_id FROM users WHERE user_id = 7 ;; FETCH 5 FROM c ;; COMMIT
BEGIN ;; DECLARE c CURSOR FOR SELECT user_id FROM users ORDER BY user_id ;; =FETCH 5 FROM c ;; =FETCH 3 FROM c ;; CLOSE c ;; COMMIT
BEGIN ;; DECLARE c CURSOR FOR SELECT count(*) FROM users ;; FETCH ALL FROM c ;; COMMIT
-- Transactions.
BEGIN ;; SELECT name FROM users WHERE user_id = 7 ;; SELECT count(*) FROM orders WHERE user_id = 7 ;; COMMIT
BEGIN ;; SELECT name FROM users WHERE user_id = 7 ;; SELECT name FROM users WHERE user_id = 8 ;; SELECT name FROM users WHERE user_id = 9 ;; COMMIT
BEGIN ;; SELECT count(*) FROM users ;; SELECT name FROM users WHERE user_id = 8 ;; COMMIT
BEGIN ;; SELECT name FROM users WHERE user_id = 3 ;; SELECT sum(amount) FROM orders ;; ROLLBACK
BEGIN READ ONLY ;; SELECT count(*) FROM users ;; SELECT max(amount) FROM orders ;; COMMIT
BEGIN ;; SELECT 1/0 FROM users WHERE user_id = 1 ;; SELECT name FROM users WHERE user_id = 1 ;; ROLLBACK
BEGIN ;; SAVEPOINT a ;; SELECT 1/0 FROM users WHERE user_id = 1 ;; ROLLBACK TO a ;; SELECT name FROM users WHERE user_id = 1 ;; COMMIT
BEGIN ;; SELECT name FROM users WHERE user_id = 1 ;; SAVEPOINT a ;; SELECT 1/0 FROM users ;; ROLLBACK TO a ;; SELECT count(*) FROM users ;; COMMIT
BEGIN ISOLATION LEVEL REPEATABLE READ ;; SELECT name FROM users WHERE user_id = 7 ;; SELECT age FROM users WHERE user_id = 7 ;; COMMIT
BEGIN ;; UPDATE users SET age = age WHERE user_id = 7 ;; SELECT count(*) FROM users ;; ROLLBACK
-- Writes.
INSERT INTO users (user_id, name, age) VALUES (1001, 'one', 1)
INSERT INTO users (user_id, name, age) VALUES (1002, 'two', 2) RETURNING user_id, name
INSERT INTO users (user_id, name) VALUES ($1, $2) @ 1003 | three
INSERT INTO users (user_id, name) VALUES (1004, 'a'), (1005, 'b'), (1006, 'c'), (1007, 'd')
INSERT INTO users (user_id, name) VALUES (1008, 'a'), (1009, 'b'), (1010, 'c') RETURNING user_id, name, age
INSERT INTO users (user_id, name) VALUES ($1, $2), ($3, $4) @ 1011 | x | 1012 | y
INSERT INTO users VALUES (1013, 'all', 'NL', 3, 4.5, true, '2026-01-01', 1.5)
INSERT INTO users (user_id, name) VALUES (1001, 'again')
INSERT INTO users (user_id, name) VALUES (1001, 'again') ON CONFLICT DO NOTHING
INSERT INTO users (user_id, name) VALUES (1001, 'again') ON CONFLICT (user_id) DO UPDATE SET name = excluded.name RETURNING name
INSERT INTO users (user_id, name) VALUES (1014, NULL)
INSERT INTO users (name) VALUES ('no key')
INSERT INTO orders (user_id, order_id, amount) VALUES (1001, 1, 5), (1001, 2, 6)
INSERT INTO orders (user_id, order_id, amount) SELECT user_id, 9, 1 FROM users WHERE user_id = 1001
INSERT INTO orders (user_id, order_id, amount) SELECT user_id, 10, age FROM users WHERE user_id > 1000
INSERT INTO items (user_id, order_id, line, sku) SELECT user_id, order_id, 9, note FROM orders WHERE user_id = 1001
UPDATE users SET age = 50 WHERE user_id = 1001
UPDATE users SET age = 51 WHERE user_id = 1002 RETURNING age, user_id
UPDATE users SET age = coalesce(age, 0) + 1 WHERE user_id IN (1001, 1002, 1003, 1004)
UPDATE users SET age = 5 WHERE user_id = 999999
UPDATE orders SET amount = amount + 1 FROM users u WHERE u.user_id = orders.user_id AND u.user_id = 1001
UPDATE users SET user_id = 77 WHERE user_id = 1001
UPDATE users SET age = 'x' WHERE user_id = 1001
DELETE FROM items WHERE user_id = 1001
DELETE FROM orders WHERE user_id = 1001 RETURNING order_id
DELETE FROM users WHERE user_id = 1013
DELETE FROM users USING orders WHERE orders.user_id = users.user_id AND users.user_id = 1002
BEGIN ;; INSERT INTO users (user_id, name) VALUES (2001, 'tx') ;; INSERT INTO orders (user_id, order_id) VALUES (2001, 1) ;; COMMIT
BEGIN ;; INSERT INTO users (user_id, name) VALUES (2002, 'tx') ;; ROLLBACK
BEGIN ;; UPDATE users SET age = 1 WHERE user_id = 2001 ;; SAVEPOINT a ;; UPDATE users SET age = 2 WHERE user_id = 2001 ;; ROLLBACK TO a ;; COMMIT
INSERT INTO countries VALUES ('BE', 'Belgium', 11600000, 30528)
UPDATE countries SET population = 17950000 WHERE code = 'NL'
UPDATE countries SET area = area * 2 RETURNING code, area
DELETE FROM countries WHERE code = 'BE'
INSERT INTO events (occurred_at, kind) VALUES ('2025-12-31 10:00:00+00', 'x')
INSERT INTO events (occurred_at, kind) VALUES ('2026-01-20 10:00:00+00', 'x'), ('2026-03-01 00:00:00+00', 'y')
INSERT INTO events (occurred_at, kind) VALUES ('2025-12-31 10:00:00+00', 'p'), ('2026-02-20 10:00:00+00', 'q')
DELETE FROM events WHERE occurred_at = '2025-12-31 10:00:00+00'

-- Prepared statements of SQL.
DEALLOCATE ALL ;; PREPARE p AS SELECT name, age FROM users WHERE user_id = $1 ;; EXECUTE p (7) ;; EXECUTE p ('8') ;; EXECUTE p (NULL) ;; EXECUTE p (-1) ;; DEALLOCATE p ;; EXECUTE p (7)
DEALLOCATE ALL ;; PREPARE p (bigint, int) AS SELECT order_id FROM orders WHERE user_id = $1 AND order_id > $2 ORDER BY 1 ;; =EXECUTE p (11, 0) ;; =EXECUTE p (12, -5) ;; EXECUTE p (12) ;; EXECUTE p ('x', 1) ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p (text) AS SELECT count(*), max(age) FROM users WHERE name > $1 ;; EXECUTE p ('a') ;; EXECUTE p (NULL) ;; EXECUTE p (7) ;; EXECUTE p (true) ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p AS SELECT user_id, name FROM users ORDER BY user_id LIMIT $1 ;; =EXECUTE p (5) ;; =EXECUTE p (0) ;; EXECUTE p (-1) ;; DEALLOCATE ALL
DEALLOCATE ALL ;; PREPARE p AS SELECT country, count(*) FROM users WHERE age > $1 GROUP BY country ;; EXECUTE p (30) ;; EXECUTE p (1000) ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p AS SELECT name FROM users WHERE user_id = ANY ($1) ;; EXECUTE p ('{1,2,3}') ;; EXECUTE p ('{7}') ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p AS SELECT name FROM countries WHERE code = $1 ;; EXECUTE p ('de') ;; EXECUTE p ('none') ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p AS SELECT 1 + $1 ;; EXECUTE p (1) ;; EXECUTE p (1.5) ;; EXECUTE p ((SELECT 1)) ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p AS SELECT nothing FROM users WHERE user_id = $1 ;; EXECUTE p (7)
DEALLOCATE ALL ;; PREPARE p (int) AS SELECT age FROM users WHERE user_id = $1 ;; EXECUTE p (007) ;; EXECUTE p (0x11) ;; EXECUTE p (7.4) ;; EXECUTE p ('7'::text) ;; EXECUTE p (99999999999) ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p AS INSERT INTO users (user_id, name, age) VALUES ($1, $2, $3) RETURNING user_id, age ;; EXECUTE p (2051, 'by EXECUTE', 5) ;; EXECUTE p (2052, NULL, NULL) ;; EXECUTE p (2051, 'twice', 6) ;; EXECUTE p (NULL, 'no key', 6) ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p AS UPDATE users SET age = age + $2 WHERE user_id = $1 ;; BEGIN ;; EXECUTE p (2051, 10) ;; SELECT age FROM users WHERE user_id = 2051 ;; ROLLBACK ;; EXECUTE p (2051, 1) ;; EXECUTE p (2051, 100) ;; DEALLOCATE p
DEALLOCATE ALL ;; BEGIN ;; PREPARE p AS SELECT age FROM users WHERE user_id = $1 ;; EXECUTE p (2051) ;; ROLLBACK ;; EXECUTE p (2052) ;; DEALLOCATE p
DEALLOCATE ALL ;; BEGIN ;; PREPARE p AS SELECT age FROM users WHERE user_id = $1 ;; UPDATE users SET age = 3 WHERE user_id = 2052 ;; EXECUTE p (2052) ;; COMMIT ;; DEALLOCATE p
DEALLOCATE ALL ;; PREPARE p AS DELETE FROM users WHERE user_id = $1 ;; EXECUTE p (2051) ;; EXECUTE p (2052) ;; EXECUTE p (2053) ;; DEALLOCATE p
DEALLOCATE ALL ;; BEGIN ;; SELECT 1/0 ;; PREPARE p AS SELECT 1 ;; EXECUTE p ;; ROLLBACK ;; EXECUTE p
DEALLOCATE ALL ;; PREPARE p AS SELECT 1 ;; PREPARE p AS SELECT 2 ;; EXECUTE p ;; DEALLOCATE p
