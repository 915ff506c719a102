-- What pgbench asks.
SELECT abalance FROM pgbench_accounts WHERE aid = 42
SELECT abalance FROM pgbench_accounts WHERE aid = $1 @ 43
UPDATE pgbench_accounts SET abalance = abalance + 17 WHERE aid = 42
UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2 @ -17 | 42
UPDATE pgbench_tellers SET tbalance = tbalance + 5 WHERE bid = 3 AND tid = 11
UPDATE pgbench_branches SET bbalance = bbalance + 5 WHERE bid = 3
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (11, 3, 42, 17, '2026-05-05 05:05:05')
BEGIN ;; UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 50 ;; SELECT abalance FROM pgbench_accounts WHERE aid = 50 ;; INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (1, 1, 50, 1) ;; COMMIT
BEGIN ;; UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 51 ;; ROLLBACK
-- Reports over all accounts.
SELECT count(*) FROM pgbench_accounts
SELECT sum(abalance) FROM pgbench_accounts
SELECT avg(abalance), min(abalance), max(abalance) FROM pgbench_accounts
SELECT bid, count(*), sum(abalance) FROM pgbench_accounts GROUP BY bid
=SELECT bid, count(*), sum(abalance) FROM pgbench_accounts GROUP BY bid ORDER BY bid
=SELECT bid, avg(abalance)::numeric(12,3) FROM pgbench_accounts GROUP BY bid ORDER BY avg(abalance) DESC, bid LIMIT 3
=SELECT aid, abalance FROM pgbench_accounts ORDER BY abalance DESC, aid LIMIT 10
=SELECT aid, abalance FROM pgbench_accounts ORDER BY abalance, aid LIMIT 10 OFFSET 20
=SELECT aid FROM pgbench_accounts WHERE abalance > 500 ORDER BY aid
=SELECT aid FROM pgbench_accounts WHERE abalance > $1 ORDER BY aid LIMIT $2 @ 500 | 7
SELECT count(*) FROM pgbench_accounts WHERE aid IN (1, 5, 9, 13, 17)
SELECT aid, bid FROM pgbench_accounts WHERE aid IN (1, 5, 9, 13, 17)
SELECT aid FROM pgbench_accounts WHERE aid BETWEEN 10 AND 20
SELECT DISTINCT bid FROM pgbench_accounts
SELECT DISTINCT filler FROM pgbench_accounts
=SELECT DISTINCT filler FROM pgbench_accounts ORDER BY filler
SELECT filler, count(*) FROM pgbench_accounts GROUP BY filler
SELECT aid FROM pgbench_accounts WHERE filler = 'a1'
SELECT abalance % 10 AS d, count(*) FROM pgbench_accounts GROUP BY d
SELECT abalance > 0, count(*), bool_and(aid > 0) FROM pgbench_accounts GROUP BY abalance > 0
SELECT count(*) FILTER (WHERE abalance > 0), count(*) FILTER (WHERE abalance < 0) FROM pgbench_accounts
SELECT variance(abalance), stddev(abalance) FROM pgbench_accounts
SELECT bid, variance(abalance) FROM pgbench_accounts GROUP BY bid
SELECT sum(abalance::bigint * abalance) FROM pgbench_accounts
SELECT sum(abalance) + count(*) * 2 FROM pgbench_accounts
SELECT max(abalance) FROM pgbench_accounts WHERE bid = 3
SELECT bit_xor(aid) FROM pgbench_accounts
SELECT count(DISTINCT bid) FROM pgbench_accounts
SELECT count(DISTINCT abalance % 5) FROM pgbench_accounts
SELECT sum(abalance)::float8 / count(*) FROM pgbench_accounts
SELECT aid, abalance FROM pgbench_accounts WHERE abalance = (SELECT max(abalance) FROM pgbench_accounts WHERE aid = 7)
-- Accounts and their history meet on one shard.
SELECT a.aid, h.delta FROM pgbench_accounts a JOIN pgbench_history h ON h.aid = a.aid WHERE a.aid = 14
SELECT a.aid, h.delta FROM pgbench_accounts a JOIN pgbench_history h USING (aid)
=SELECT a.aid, sum(h.delta) FROM pgbench_accounts a JOIN pgbench_history h USING (aid) GROUP BY a.aid ORDER BY a.aid
=SELECT a.bid, sum(h.delta) FROM pgbench_accounts a JOIN pgbench_history h USING (aid) GROUP BY a.bid ORDER BY a.bid
SELECT count(*) FROM pgbench_accounts a LEFT JOIN pgbench_history h USING (aid) WHERE h.aid IS NULL
SELECT a.aid FROM pgbench_accounts a WHERE NOT EXISTS (SELECT FROM pgbench_history h WHERE h.aid = a.aid)
SELECT a.aid FROM pgbench_accounts a WHERE a.aid IN (SELECT aid FROM pgbench_history WHERE delta > 40)
SELECT aid, (SELECT sum(delta) FROM pgbench_history h WHERE h.aid = a.aid) FROM pgbench_accounts a
=SELECT mtime, delta FROM pgbench_history ORDER BY mtime LIMIT 5
=SELECT mtime, delta FROM pgbench_history ORDER BY mtime DESC LIMIT 5
=SELECT aid, delta, mtime FROM pgbench_history WHERE delta BETWEEN -5 AND 5 ORDER BY delta, mtime
=SELECT date_trunc('hour', mtime) AS h, count(*), sum(delta) FROM pgbench_history GROUP BY h ORDER BY h
=SELECT extract(hour FROM mtime) AS h, count(*) FROM pgbench_history GROUP BY 1 ORDER BY 1
SELECT min(mtime), max(mtime), max(mtime) - min(mtime) FROM pgbench_history
SELECT tid, sum(delta) FROM pgbench_history GROUP BY tid HAVING sum(delta) > 50
-- Branches and tellers, by branch.
SELECT b.bid, b.bbalance, t.tid FROM pgbench_branches b JOIN pgbench_tellers t ON t.bid = b.bid
=SELECT b.bid, sum(t.tbalance) FROM pgbench_branches b JOIN pgbench_tellers t USING (bid) GROUP BY b.bid ORDER BY b.bid
SELECT bid FROM pgbench_branches b WHERE bbalance < (SELECT sum(tbalance) FROM pgbench_tellers t WHERE t.bid = b.bid)
SELECT bid, tid, row_number() OVER (PARTITION BY bid ORDER BY tid) FROM pgbench_tellers
SELECT bid, max(tbalance) OVER (PARTITION BY bid), tid FROM pgbench_tellers
SELECT count(*) FROM pgbench_tellers t, pgbench_branches b WHERE t.bid = b.bid AND b.bbalance > 0
SELECT bid, array_agg(tid ORDER BY tid) FROM pgbench_tellers GROUP BY bid
=SELECT bid, string_agg(tid::text, ' ' ORDER BY tid DESC) FROM pgbench_tellers GROUP BY bid ORDER BY bid
=SELECT bid, string_agg(tid::text, ' ' ORDER BY tid DESC) FROM pgbench_tellers WHERE tbalance > 0 GROUP BY bid ORDER BY 1 DESC
SELECT bid FROM pgbench_branches UNION ALL SELECT bid FROM pgbench_tellers
SELECT bid FROM pgbench_branches UNION SELECT bid FROM pgbench_tellers
SELECT a.bid, count(*) FROM pgbench_accounts a JOIN pgbench_branches b ON a.bid = b.bid GROUP BY a.bid
SELECT filler FROM pgbench_branches WHERE bid = 1
=SELECT filler, bid FROM pgbench_branches ORDER BY filler, bid
-- Writes.
INSERT INTO pgbench_accounts VALUES (1001, 1, 0, 'new'), (1002, 1, 0, 'new'), (1003, 2, 5, NULL)
INSERT INTO pgbench_accounts (aid, bid, abalance) VALUES (1004, 1, 1) RETURNING *
INSERT INTO pgbench_accounts (aid, bid, abalance) VALUES (1004, 1, 1) ON CONFLICT (aid) DO UPDATE SET abalance = pgbench_accounts.abalance + 10 RETURNING abalance
INSERT INTO pgbench_accounts (aid, bid) VALUES (1005, 'x')
INSERT INTO pgbench_accounts (aid, bid) VALUES (1006, 3), (1006, 3)
UPDATE pgbench_accounts SET filler = 'old' WHERE aid = 1001
UPDATE pgbench_accounts SET abalance = 0 WHERE aid IN (1001, 1003)
UPDATE pgbench_accounts SET abalance = -abalance WHERE aid = ANY('{1002,1004}')
DELETE FROM pgbench_accounts WHERE aid = 1001
DELETE FROM pgbench_accounts WHERE aid IN (1002, 1003)
INSERT INTO pgbench_history (tid, bid, aid, delta) SELECT 1, bid, aid, abalance FROM pgbench_accounts WHERE aid = 1004
INSERT INTO pgbench_history (tid, bid, aid, delta) SELECT 1, bid, aid, abalance FROM pgbench_accounts WHERE aid < 10
DELETE FROM pgbench_history WHERE aid = 1004 RETURNING delta
MERGE INTO pgbench_accounts a USING (VALUES (1004, 7)) v(aid, delta) ON a.aid = v.aid AND a.aid = 1004 WHEN MATCHED THEN UPDATE SET abalance = abalance + delta
TRUNCATE pgbench_history
SELECT count(*) FROM pgbench_history
