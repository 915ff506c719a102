-- What rivals answer wrongly and silently: one key of two taken for the statement's, keys found where they restrict nothing,
-- limits of each shard, orders and groups that are lost, expressions over aggregates, rows on every shard.
SELECT id FROM t WHERE id = 1 UNION SELECT id FROM t WHERE id = 2
SELECT id FROM t WHERE id = 1 UNION ALL SELECT id FROM t WHERE id = 2
SELECT id = 5 FROM t
SELECT CASE WHEN id = 1 THEN 'a' ELSE 'b' END FROM t
SELECT count(*) FILTER (WHERE id = 1) FROM t
SELECT * FROM t a JOIN t b ON a.id = 1 AND b.id = 2
SELECT a.id, b.id FROM t a LEFT JOIN t b ON b.id = a.id AND a.id = 1
SELECT id FROM t WHERE v IN (SELECT v FROM t WHERE id = 1)
SELECT id FROM t WHERE id IN (1, 2, 3, 4, 5, 6, 7)
SELECT 1 FROM t LIMIT 3
SELECT 1 FROM t LIMIT 0
SELECT 1 FROM t OFFSET 38
SELECT 1 FROM t LIMIT NULL
= SELECT id FROM t ORDER BY v, id
= SELECT id, v FROM t ORDER BY v % 10, id DESC
= SELECT id, v FROM t ORDER BY v NULLS FIRST, id
= SELECT id, v FROM t ORDER BY v DESC NULLS LAST, id
= SELECT s FROM t ORDER BY s, id
= SELECT s FROM t ORDER BY s COLLATE "C" DESC
SELECT count(*) FROM t GROUP BY v
SELECT v % 2, count(*) FROM t GROUP BY v % 2
SELECT count(*) + 1 FROM t
SELECT coalesce(sum(v), 0) FROM t
SELECT sum(v) / count(v) FROM t
SELECT v, count(*) FROM t GROUP BY v HAVING count(*) > 3
= SELECT v, count(*) FROM t GROUP BY v ORDER BY v LIMIT 2
= SELECT count(*) FROM t GROUP BY v ORDER BY v NULLS FIRST LIMIT 1 OFFSET 1
SELECT id, row_number() OVER (ORDER BY id) FROM t
SELECT DISTINCT v FROM t
INSERT INTO t (id, v, s) VALUES (101, 1, 'a'), (102, 2, 'b'), (103, 3, 'c') ;; SELECT count(*) FROM t
INSERT INTO t VALUES (104, 1, 'a'), (105, 2, 'b'), (106, 3, 'c')
INSERT INTO t (id, v, s) VALUES (NULL, 1, 'a')
INSERT INTO t (id, v, s) VALUES (101, 1, 'there already')
UPDATE t SET v = v + 1 WHERE v = 1
DELETE FROM t WHERE id = 101 OR id = 102
SELECT count(*), min(id), max(s) FROM t
SELECT id, v FROM t WHERE id = $1 OR id = $2 @ 3 | 4
