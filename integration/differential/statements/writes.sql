-- Rows of several shards, each shard in a transaction of its own. Behind each the rows of all tables are compared.
INSERT INTO users (user_id, name) VALUES (2001, 'a'), (2002, 'b'), (2003, 'c'), (2004, 'd'), (2005, 'e'), (2006, 'f')
INSERT INTO users (name, age, user_id) VALUES ('it''s', DEFAULT, 2007), (E'\'x', NULL, '2008'::bigint), ($$y$$, 1 + 1, 2009) RETURNING user_id, name, age
INSERT INTO users (user_id, name, score, active, joined, rating) VALUES (2010, 'n', -1.005, true, '2026-02-28', 1.5), (2011, 'm', 1e2, 'f', date '2026-03-01', '2') RETURNING *
INSERT INTO users (user_id, name) VALUES ($1, $2), ($3, $4), ($5, $2) @ 2012 | x | 2013 | y | 2014
INSERT INTO users (user_id, name, age) VALUES ($1, $2, $3), ($4, $2, $3), ($5, upper($2), $3 + 1) RETURNING name, age @ 2015 | x | 7 | 2016 | 2017
INSERT INTO users (user_id, name, age) VALUES (2018, 'a', 1), (2019, 'b', 'x'), (2020, 'c', 3)
INSERT INTO users (user_id, name, age) VALUES (2018, 'a', 1), (2019, NULL, 2), (2020, 'c', 3)
INSERT INTO users (user_id, name) VALUES (2018, 'a'), (2019, 'b'), (2001, 'there already'), (2020, 'c')
INSERT INTO users (user_id, name) VALUES (2018, 'a'), (2019, 'b'), (2020, 'c'), (2019, 'twice')
INSERT INTO users (user_id, name) VALUES (2018, 'a'), (2001, 'b'), (2019, 'c'), (2002, 'd') ON CONFLICT DO NOTHING RETURNING user_id
INSERT INTO users (user_id, name) VALUES (2001, 'a'), (2002, 'b'), (2020, 'c'), (2021, 'd') ON CONFLICT (user_id) DO UPDATE SET name = users.name || excluded.name RETURNING name
INSERT INTO users AS u (user_id, name, age) VALUES (2001, 'a', 1), (2002, 'b', 2), (2003, 'c', 3) ON CONFLICT (user_id) DO UPDATE SET age = coalesce(u.age, 0) + excluded.age WHERE u.user_id <> 2002
INSERT INTO users (user_id, name, age) VALUES (2022, 'a', (SELECT 7)), (2023, 'b', (SELECT count(*) FROM countries)) RETURNING age
INSERT INTO users (user_id, name) VALUES (NULL, 'a'), (2024, 'b')
INSERT INTO users (user_id, name) VALUES (2025 - 1, 'a'), (2026, 'b')
INSERT INTO users (user_id, nothing) VALUES (2027, 'a'), (2028, 'b')
INSERT INTO users (user_id, name) VALUES (2027, 'a'), (2028, 'b', 'c')
INSERT INTO users (user_id, name) VALUES (2027, 'a'), (2028, 'b') RETURNING nothing
INSERT INTO orders (user_id, order_id, amount, status) VALUES (2001, 1, 5, 'new'), (2002, 1, 6.255, 'new'), (2003, 1, NULL, NULL), (2001, 2, 7, 'paid')
INSERT INTO orders (user_id, order_id, status) VALUES (2004, 1, 'thirteen long'), (2005, 1, 'x')
INSERT INTO events (occurred_at, kind) VALUES ('2025-12-31 10:00:00+00', 'p'), ('2026-02-20 10:00:00+00', 'q'), ('2026-05-20 10:00:00+00', 'r') RETURNING kind
INSERT INTO pgbench_accounts (aid, bid, abalance) VALUES (2001, 1, 1), (2002, 2, 2), (2003, 3, 3), (2004, 4, 4) RETURNING abalance
INSERT INTO pgbench_history (tid, bid, aid, delta) SELECT 1, bid, aid, abalance FROM pgbench_accounts WHERE aid > 2000
INSERT INTO tenants (tenant_id, name) VALUES ('00000000-0000-4000-8000-0000000f0011', 'a'), ('00000000-0000-4000-8000-0000000F0012', 'b'), ('{00000000-0000-4000-8000-0000000f0013}', 'c') RETURNING name
INSERT INTO orders (user_id, order_id, amount) SELECT user_id, 50, age FROM users WHERE user_id > 2000
INSERT INTO orders (user_id, order_id, amount) SELECT u.user_id, 51, sum(o.amount) FROM users u LEFT JOIN orders o ON o.user_id = u.user_id WHERE u.user_id > 2000 GROUP BY u.user_id RETURNING user_id, amount
INSERT INTO orders (user_id, order_id, amount) SELECT user_id, 50, age FROM users WHERE user_id > 2000
INSERT INTO orders (user_id, order_id, amount) SELECT user_id, 50, 0 FROM users WHERE user_id > 2000 ON CONFLICT (user_id, order_id) DO UPDATE SET amount = orders.amount + 1
INSERT INTO items (user_id, order_id, line, sku) SELECT user_id, order_id, row_number() OVER (PARTITION BY user_id ORDER BY order_id), 'made' FROM orders WHERE user_id > 2000 AND order_id > 40
INSERT INTO orders (user_id, order_id) SELECT user_id, 60 FROM users ORDER BY user_id LIMIT 3
INSERT INTO orders (user_id, order_id) SELECT DISTINCT user_id, 61 FROM orders WHERE user_id > 2000
INSERT INTO orders (user_id, order_id) SELECT age, 62 FROM users
UPDATE users SET age = coalesce(age, 0) + 1
UPDATE users SET age = age + 1 WHERE user_id > 2000 RETURNING user_id, age
UPDATE users SET name = name || $1 WHERE user_id = ANY ($2) RETURNING name @ ! | {2001,2002,2003,2004}
UPDATE users SET age = $1 WHERE name = $2 OR user_id IN (2001, 2005) @ 44 | b
UPDATE users SET score = 100000 * user_id WHERE user_id > 2000
UPDATE users SET age = 1 / (user_id - 2003) WHERE user_id > 2000
UPDATE users u SET age = o.order_id FROM orders o WHERE o.user_id = u.user_id AND o.order_id = 50
UPDATE users u SET rating = (SELECT count(*) FROM orders o WHERE o.user_id = u.user_id) WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.user_id AND o.order_id > 1)
UPDATE users u SET name = c.name FROM countries c WHERE c.code = u.country AND u.user_id < 20 RETURNING u.user_id, c.name
UPDATE users SET age = 1 WHERE country IN (SELECT code FROM countries WHERE population > 100000000)
UPDATE users SET age = (SELECT max(order_id) FROM orders)
UPDATE users SET joined = 'today'
UPDATE users SET user_id = user_id + 1
UPDATE users SET nothing = 1
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE bid IN (1, 2, 3)
UPDATE pgbench_tellers t SET tbalance = b.bbalance FROM pgbench_branches b WHERE b.bid = t.bid
UPDATE tasks SET done = NOT done WHERE state = 'open'
UPDATE tasks t SET hours = 0 FROM projects p WHERE p.tenant_id = t.tenant_id AND p.project_id = t.project_id AND p.budget IS NULL
DELETE FROM items WHERE qty IS NULL
DELETE FROM items i USING orders o WHERE o.user_id = i.user_id AND o.order_id = i.order_id AND o.status = 'done' RETURNING i.user_id, i.line
DELETE FROM orders WHERE user_id IN (2001, 2002, 2003) RETURNING *
DELETE FROM orders WHERE user_id > 2000 AND NOT EXISTS (SELECT 1 FROM users u WHERE u.user_id = orders.user_id AND u.age > 3)
DELETE FROM events WHERE kind IN ('p', 'q', 'r')
DELETE FROM users WHERE age > (SELECT avg(age) FROM users)
DELETE FROM users WHERE user_id > 2000
DELETE FROM pgbench_history
DELETE FROM pgbench_accounts WHERE aid > 2000 RETURNING aid
WITH gone AS (DELETE FROM orders RETURNING user_id) DELETE FROM users USING gone WHERE gone.user_id = users.user_id
BEGIN ;; INSERT INTO users (user_id, name) VALUES (2030, 'in a transaction') ;; COMMIT
