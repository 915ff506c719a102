SELECT 1

SELECT * FROM users WHERE user_id = 7

select U.*, o.id from public.users as U join orders o using (user_id) where U.user_id = 42 order by o.id desc limit 10 offset 5

SELECT "Mixed Case", "with ""quotes""" FROM "Some Table" WHERE "Some Table"."id" = $1

INSERT INTO orders (user_id, id, note) VALUES (7, 1, 'it''s'), (8, 2, E'tab\there'), (9, 3, NULL) ON CONFLICT (user_id, id) DO UPDATE SET note = excluded.note RETURNING *

UPDATE orders SET note = 'x' || note, amount = amount * 1.05 WHERE user_id = -7 AND id IN (1,2,3)

DELETE FROM orders USING users u WHERE orders.user_id = u.user_id AND u.user_id = 0x1F

SELECT -1, - 1, +1, a-1, a -1, a- -1, 1-1, 1 -1

SELECT a=-1, a<-1, a>-1, a<>-1, a!=-1, a<=-1, a>=-1

SELECT a@-1, a ?- b, a ?| b, a ?& b, a #> '{a,b}', a #>> '{a}', a -> 'x' ->> 'y', a @> b, a <@ b

SELECT 1.5, .5, 1., 1e10, 1E-5, 1.5e+3, 1..2, 10_000, 1_0.0_1e1_0, 0b1010, 0o17, 0xDEAD_BEEF, 9223372036854775808

SELECT 'a' 'b'

SELECT 'a'
'b'

SELECT 'a' -- comment
'b'

SELECT 'a' /* no */ 'b'

SELECT E'\'' , E'\\', E'a\nb', E'\u00e9\U0001F600', E'\x41\101'

SELECT U&'d\0061t\+000061', U&"d\0061t", U&'d!0061' UESCAPE '!'

SELECT B'0101', b'1', X'1F', x'ab'

SELECT N'abc', n'abc', nchar 'abc', n 'abc'

SELECT $$dollar$$, $tag$with $$ inside$tag$, $_1$x$_1$, $é$x$é$

SELECT $1, $2::int, $10 + $11, ($1), [$1]

SELECT a::int::text, CAST(a AS numeric(10,2)), int '7', date '2026-01-01', interval '1 day' hour to minute

SELECT /* a /* nested */ b */ 1 -- end

-- leading comment
SELECT 1

/* leading */ SELECT 1;

SELECT 1;;SELECT 2

SELECT a.b.c, a.*, (a).b, a[1], a[1:2], a[:], ARRAY[1,2,3], ARRAY[[1],[2]]

SELECT f(a => 1, b := 2), f(VARIADIC x)

SELECT * FROM t WHERE a BETWEEN 1 AND 10 OR b LIKE 'x%' ESCAPE '!' OR c ~* '^a' AND NOT d IS NULL

SELECT count(*) FILTER (WHERE x > 1), sum(x) OVER (PARTITION BY y ORDER BY z ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t GROUP BY ROLLUP (a, b) HAVING count(*) > 1

WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n+1 FROM t WHERE n < 100) SELECT sum(n) FROM t

WITH x AS MATERIALIZED (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM x

MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = s.a WHEN NOT MATCHED THEN INSERT VALUES (s.id)

BEGIN

BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE

START TRANSACTION READ WRITE

COMMIT AND CHAIN

ROLLBACK TO SAVEPOINT "S1"

SET search_path TO app, public

SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY

SET TIME ZONE 'UTC'

SET LOCAL statement_timeout = '5s'

RESET ALL

SHOW server_version

COPY t (a, b) FROM STDIN WITH (FORMAT csv, DELIMITER ',', QUOTE '"')

COPY (SELECT * FROM t WHERE a = 1) TO STDOUT

CREATE TABLE t (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, a text COLLATE "C" DEFAULT 'x' CHECK (a <> ''), b int REFERENCES u (id))

CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN RETURN 1; END $body$

DO $$ BEGIN RAISE NOTICE '%', 1; END $$

PREPARE p (int) AS SELECT $1

EXECUTE p (1)

DEALLOCATE ALL

LISTEN "Chan"

SELECT a COLLATE "de_DE", a AT TIME ZONE 'UTC', EXTRACT(year FROM now()), SUBSTRING(a FROM 1 FOR 2), TRIM(BOTH ' ' FROM a), OVERLAY(a PLACING 'x' FROM 1)

SELECT CASE WHEN a THEN 1 ELSE 2 END, COALESCE(a, b), NULLIF(a, 1), GREATEST(1, 2)

SELECT * FROM a NATURAL LEFT OUTER JOIN b CROSS JOIN c FULL JOIN d ON (c.x = d.x)

SELECT * FROM generate_series(1, 10) WITH ORDINALITY AS g(a, b), LATERAL (SELECT g.a) x

SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b NULLS LAST FETCH FIRST 5 ROWS ONLY FOR UPDATE OF t SKIP LOCKED

VALUES (1, 'a'), (2, 'b')

TABLE users

EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT 1

VACUUM (VERBOSE, ANALYZE) t

GRANT SELECT, INSERT (a, b) ON TABLE t TO "Role" WITH GRANT OPTION

SELECT a+++b, a*-b, a/-b, a|/b, a||/b, a !~ b, a !~~* b, |/ 25.0, @ -5, a & b | c # d << 1 >> 2

SELECT a<b, a>b, a<=b, a>=b, a=b, a<>b, a!=b, a=>b, a<=>b

SELECT *-1, */*c*/1, 1+/*c*/-1, 1+--c
1

SELECT f$1, f$$, _$, a$b$c

SELECT größe, ÀÉ FROM tábla WHERE ß = 'ß'

SELECT '', "x"'', 'x'"y", 1'a', a'b'

SELECT json_build_object('a', 1) -> 'a', '{"a": [1,2]}'::jsonb @? '$.a[*] ? (@ > 1)'

SELECT :a

SELECT a : b, a:b, a::b, a:=b

SELECT c FROM t0 WHERE a=7 AND b = 7/*0*/

SELECT c FROM t0 WHERE a=-7 AND b = -7/*0*/

SELECT c FROM t0 WHERE a=1.5 AND b = 1.5/*0*/

SELECT c FROM t0 WHERE a='x' AND b = 'x'/*0*/

SELECT c FROM t0 WHERE a=E'\n' AND b = E'\n'/*0*/

SELECT c FROM t0 WHERE a=$1 AND b = $1/*0*/

SELECT c FROM t0 WHERE a=$$d$$ AND b = $$d$$/*0*/

SELECT c FROM t0 WHERE a=B'1' AND b = B'1'/*0*/

SELECT c FROM t0 WHERE a=NULL AND b = NULL/*0*/

SELECT c FROM t0 WHERE a=0xff AND b = 0xff/*0*/

SELECT c FROM t0 WHERE a=X'ff' AND b = X'ff'/*0*/

SELECT c FROM t1 WHERE a<7 AND b < 7/*1*/

SELECT c FROM t1 WHERE a<-7 AND b < -7/*1*/

SELECT c FROM t1 WHERE a<1.5 AND b < 1.5/*1*/

SELECT c FROM t1 WHERE a<'x' AND b < 'x'/*1*/

SELECT c FROM t1 WHERE a<E'\n' AND b < E'\n'/*1*/

SELECT c FROM t1 WHERE a<$1 AND b < $1/*1*/

SELECT c FROM t1 WHERE a<$$d$$ AND b < $$d$$/*1*/

SELECT c FROM t1 WHERE a<B'1' AND b < B'1'/*1*/

SELECT c FROM t1 WHERE a<NULL AND b < NULL/*1*/

SELECT c FROM t1 WHERE a<0xff AND b < 0xff/*1*/

SELECT c FROM t1 WHERE a<X'ff' AND b < X'ff'/*1*/

SELECT c FROM t2 WHERE a>7 AND b > 7/*2*/

SELECT c FROM t2 WHERE a>-7 AND b > -7/*2*/

SELECT c FROM t2 WHERE a>1.5 AND b > 1.5/*2*/

SELECT c FROM t2 WHERE a>'x' AND b > 'x'/*2*/

SELECT c FROM t2 WHERE a>E'\n' AND b > E'\n'/*2*/

SELECT c FROM t2 WHERE a>$1 AND b > $1/*2*/

SELECT c FROM t2 WHERE a>$$d$$ AND b > $$d$$/*2*/

SELECT c FROM t2 WHERE a>B'1' AND b > B'1'/*2*/

SELECT c FROM t2 WHERE a>NULL AND b > NULL/*2*/

SELECT c FROM t2 WHERE a>0xff AND b > 0xff/*2*/

SELECT c FROM t2 WHERE a>X'ff' AND b > X'ff'/*2*/

SELECT c FROM t3 WHERE a<=7 AND b <= 7/*3*/

SELECT c FROM t3 WHERE a<=-7 AND b <= -7/*3*/

SELECT c FROM t3 WHERE a<=1.5 AND b <= 1.5/*3*/

SELECT c FROM t3 WHERE a<='x' AND b <= 'x'/*3*/

SELECT c FROM t3 WHERE a<=E'\n' AND b <= E'\n'/*3*/

SELECT c FROM t3 WHERE a<=$1 AND b <= $1/*3*/

SELECT c FROM t3 WHERE a<=$$d$$ AND b <= $$d$$/*3*/

SELECT c FROM t3 WHERE a<=B'1' AND b <= B'1'/*3*/

SELECT c FROM t3 WHERE a<=NULL AND b <= NULL/*3*/

SELECT c FROM t3 WHERE a<=0xff AND b <= 0xff/*3*/

SELECT c FROM t3 WHERE a<=X'ff' AND b <= X'ff'/*3*/

SELECT c FROM t4 WHERE a>=7 AND b >= 7/*4*/

SELECT c FROM t4 WHERE a>=-7 AND b >= -7/*4*/

SELECT c FROM t4 WHERE a>=1.5 AND b >= 1.5/*4*/

SELECT c FROM t4 WHERE a>='x' AND b >= 'x'/*4*/

SELECT c FROM t4 WHERE a>=E'\n' AND b >= E'\n'/*4*/

SELECT c FROM t4 WHERE a>=$1 AND b >= $1/*4*/

SELECT c FROM t4 WHERE a>=$$d$$ AND b >= $$d$$/*4*/

SELECT c FROM t4 WHERE a>=B'1' AND b >= B'1'/*4*/

SELECT c FROM t4 WHERE a>=NULL AND b >= NULL/*4*/

SELECT c FROM t4 WHERE a>=0xff AND b >= 0xff/*4*/

SELECT c FROM t4 WHERE a>=X'ff' AND b >= X'ff'/*4*/

SELECT c FROM t5 WHERE a<>7 AND b <> 7/*5*/

SELECT c FROM t5 WHERE a<>-7 AND b <> -7/*5*/

SELECT c FROM t5 WHERE a<>1.5 AND b <> 1.5/*5*/

SELECT c FROM t5 WHERE a<>'x' AND b <> 'x'/*5*/

SELECT c FROM t5 WHERE a<>E'\n' AND b <> E'\n'/*5*/

SELECT c FROM t5 WHERE a<>$1 AND b <> $1/*5*/

SELECT c FROM t5 WHERE a<>$$d$$ AND b <> $$d$$/*5*/

SELECT c FROM t5 WHERE a<>B'1' AND b <> B'1'/*5*/

SELECT c FROM t5 WHERE a<>NULL AND b <> NULL/*5*/

SELECT c FROM t5 WHERE a<>0xff AND b <> 0xff/*5*/

SELECT c FROM t5 WHERE a<>X'ff' AND b <> X'ff'/*5*/

SELECT c FROM t6 WHERE a!=7 AND b != 7/*6*/

SELECT c FROM t6 WHERE a!=-7 AND b != -7/*6*/

SELECT c FROM t6 WHERE a!=1.5 AND b != 1.5/*6*/

SELECT c FROM t6 WHERE a!='x' AND b != 'x'/*6*/

SELECT c FROM t6 WHERE a!=E'\n' AND b != E'\n'/*6*/

SELECT c FROM t6 WHERE a!=$1 AND b != $1/*6*/

SELECT c FROM t6 WHERE a!=$$d$$ AND b != $$d$$/*6*/

SELECT c FROM t6 WHERE a!=B'1' AND b != B'1'/*6*/

SELECT c FROM t6 WHERE a!=NULL AND b != NULL/*6*/

SELECT c FROM t6 WHERE a!=0xff AND b != 0xff/*6*/

SELECT c FROM t6 WHERE a!=X'ff' AND b != X'ff'/*6*/

SELECT c FROM t7 WHERE a@>7 AND b @> 7/*7*/

SELECT c FROM t7 WHERE a@>-7 AND b @> -7/*7*/

SELECT c FROM t7 WHERE a@>1.5 AND b @> 1.5/*7*/

SELECT c FROM t7 WHERE a@>'x' AND b @> 'x'/*7*/

SELECT c FROM t7 WHERE a@>E'\n' AND b @> E'\n'/*7*/

SELECT c FROM t7 WHERE a@>$1 AND b @> $1/*7*/

SELECT c FROM t7 WHERE a@>$$d$$ AND b @> $$d$$/*7*/

SELECT c FROM t7 WHERE a@>B'1' AND b @> B'1'/*7*/

SELECT c FROM t7 WHERE a@>NULL AND b @> NULL/*7*/

SELECT c FROM t7 WHERE a@>0xff AND b @> 0xff/*7*/

SELECT c FROM t7 WHERE a@>X'ff' AND b @> X'ff'/*7*/

SELECT c FROM t8 WHERE a->>7 AND b ->> 7/*8*/

SELECT c FROM t8 WHERE a->>-7 AND b ->> -7/*8*/

SELECT c FROM t8 WHERE a->>1.5 AND b ->> 1.5/*8*/

SELECT c FROM t8 WHERE a->>'x' AND b ->> 'x'/*8*/

SELECT c FROM t8 WHERE a->>E'\n' AND b ->> E'\n'/*8*/

SELECT c FROM t8 WHERE a->>$1 AND b ->> $1/*8*/

SELECT c FROM t8 WHERE a->>$$d$$ AND b ->> $$d$$/*8*/

SELECT c FROM t8 WHERE a->>B'1' AND b ->> B'1'/*8*/

SELECT c FROM t8 WHERE a->>NULL AND b ->> NULL/*8*/

SELECT c FROM t8 WHERE a->>0xff AND b ->> 0xff/*8*/

SELECT c FROM t8 WHERE a->>X'ff' AND b ->> X'ff'/*8*/

SELECT c FROM t9 WHERE a||7 AND b || 7/*9*/

SELECT c FROM t9 WHERE a||-7 AND b || -7/*9*/

SELECT c FROM t9 WHERE a||1.5 AND b || 1.5/*9*/

SELECT c FROM t9 WHERE a||'x' AND b || 'x'/*9*/

SELECT c FROM t9 WHERE a||E'\n' AND b || E'\n'/*9*/

SELECT c FROM t9 WHERE a||$1 AND b || $1/*9*/

SELECT c FROM t9 WHERE a||$$d$$ AND b || $$d$$/*9*/

SELECT c FROM t9 WHERE a||B'1' AND b || B'1'/*9*/

SELECT c FROM t9 WHERE a||NULL AND b || NULL/*9*/

SELECT c FROM t9 WHERE a||0xff AND b || 0xff/*9*/

SELECT c FROM t9 WHERE a||X'ff' AND b || X'ff'/*9*/

SELECT c FROM t10 WHERE a~*7 AND b ~* 7/*10*/

SELECT c FROM t10 WHERE a~*-7 AND b ~* -7/*10*/

SELECT c FROM t10 WHERE a~*1.5 AND b ~* 1.5/*10*/

SELECT c FROM t10 WHERE a~*'x' AND b ~* 'x'/*10*/

SELECT c FROM t10 WHERE a~*E'\n' AND b ~* E'\n'/*10*/

SELECT c FROM t10 WHERE a~*$1 AND b ~* $1/*10*/

SELECT c FROM t10 WHERE a~*$$d$$ AND b ~* $$d$$/*10*/

SELECT c FROM t10 WHERE a~*B'1' AND b ~* B'1'/*10*/

SELECT c FROM t10 WHERE a~*NULL AND b ~* NULL/*10*/

SELECT c FROM t10 WHERE a~*0xff AND b ~* 0xff/*10*/

SELECT c FROM t10 WHERE a~*X'ff' AND b ~* X'ff'/*10*/

SELECT c FROM t11 WHERE a<<|7 AND b <<| 7/*11*/

SELECT c FROM t11 WHERE a<<|-7 AND b <<| -7/*11*/

SELECT c FROM t11 WHERE a<<|1.5 AND b <<| 1.5/*11*/

SELECT c FROM t11 WHERE a<<|'x' AND b <<| 'x'/*11*/

SELECT c FROM t11 WHERE a<<|E'\n' AND b <<| E'\n'/*11*/

SELECT c FROM t11 WHERE a<<|$1 AND b <<| $1/*11*/

SELECT c FROM t11 WHERE a<<|$$d$$ AND b <<| $$d$$/*11*/

SELECT c FROM t11 WHERE a<<|B'1' AND b <<| B'1'/*11*/

SELECT c FROM t11 WHERE a<<|NULL AND b <<| NULL/*11*/

SELECT c FROM t11 WHERE a<<|0xff AND b <<| 0xff/*11*/

SELECT c FROM t11 WHERE a<<|X'ff' AND b <<| X'ff'/*11*/

SELECT c FROM t12 WHERE a?-7 AND b ?- 7/*12*/

SELECT c FROM t12 WHERE a?--7 AND b ?- -7/*12*/

SELECT c FROM t12 WHERE a?-1.5 AND b ?- 1.5/*12*/

SELECT c FROM t12 WHERE a?-'x' AND b ?- 'x'/*12*/

SELECT c FROM t12 WHERE a?-E'\n' AND b ?- E'\n'/*12*/

SELECT c FROM t12 WHERE a?-$1 AND b ?- $1/*12*/

SELECT c FROM t12 WHERE a?-$$d$$ AND b ?- $$d$$/*12*/

SELECT c FROM t12 WHERE a?-B'1' AND b ?- B'1'/*12*/

SELECT c FROM t12 WHERE a?-NULL AND b ?- NULL/*12*/

SELECT c FROM t12 WHERE a?-0xff AND b ?- 0xff/*12*/

SELECT c FROM t12 WHERE a?-X'ff' AND b ?- X'ff'/*12*/

SELECT c FROM t13 WHERE a-7 AND b - 7/*13*/

SELECT c FROM t13 WHERE a--7 AND b - -7/*13*/

SELECT c FROM t13 WHERE a-1.5 AND b - 1.5/*13*/

SELECT c FROM t13 WHERE a-'x' AND b - 'x'/*13*/

SELECT c FROM t13 WHERE a-E'\n' AND b - E'\n'/*13*/

SELECT c FROM t13 WHERE a-$1 AND b - $1/*13*/

SELECT c FROM t13 WHERE a-$$d$$ AND b - $$d$$/*13*/

SELECT c FROM t13 WHERE a-B'1' AND b - B'1'/*13*/

SELECT c FROM t13 WHERE a-NULL AND b - NULL/*13*/

SELECT c FROM t13 WHERE a-0xff AND b - 0xff/*13*/

SELECT c FROM t13 WHERE a-X'ff' AND b - X'ff'/*13*/

SELECT c FROM t14 WHERE a+7 AND b + 7/*14*/

SELECT c FROM t14 WHERE a+-7 AND b + -7/*14*/

SELECT c FROM t14 WHERE a+1.5 AND b + 1.5/*14*/

SELECT c FROM t14 WHERE a+'x' AND b + 'x'/*14*/

SELECT c FROM t14 WHERE a+E'\n' AND b + E'\n'/*14*/

SELECT c FROM t14 WHERE a+$1 AND b + $1/*14*/

SELECT c FROM t14 WHERE a+$$d$$ AND b + $$d$$/*14*/

SELECT c FROM t14 WHERE a+B'1' AND b + B'1'/*14*/

SELECT c FROM t14 WHERE a+NULL AND b + NULL/*14*/

SELECT c FROM t14 WHERE a+0xff AND b + 0xff/*14*/

SELECT c FROM t14 WHERE a+X'ff' AND b + X'ff'/*14*/
