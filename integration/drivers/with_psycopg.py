"""psycopg 3 through Keyway: with_psycopg.py SHARDED_URL PLAIN_URL. Ends with the number of checks."""

import datetime
import decimal
import sys
import threading
import uuid

import psycopg

SHARDED, PLAIN = sys.argv[1], sys.argv[2]
USER_ID = 910_001
checks = 0


def check(what, got, want):
    global checks
    checks += 1
    if got != want:
        sys.exit(f"{what}: got {got!r}, want {want!r}")


def fails(what, state, call):
    """The error's SQLSTATE is part of what a driver sees."""
    try:
        call()
    except psycopg.Error as error:
        check(what, error.sqlstate, state)
        return error
    sys.exit(f"{what}: no error")


def values(conn):
    row = (
        7,
        2**62,
        "naïve ☃",
        decimal.Decimal("12.50"),
        datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc),
        uuid.UUID("6f1c1f6e-7f1b-4f5e-9d53-6d8a5f2f8a11"),
        b"\x00\xff\x27\x5c",
        None,
        [1, 2, 3],
        True,
    )
    sql = (
        "SELECT %s::int, %s::int8, %s::text, %s::numeric, %s::timestamptz, %s::uuid, %s::bytea, %s::text,"
        " %s::int[], %s::bool"
    )
    for binary in (False, True):
        with conn.cursor(binary=binary) as cursor:
            cursor.execute(sql, row)
            check(f"values, binary={binary}", cursor.fetchone(), row)
    with conn.cursor() as cursor:
        cursor.execute(sql.replace("%s", "%b"), row)
        check("values, binary parameters", cursor.fetchone(), row)


def transactions(conn):
    conn.execute("DROP TABLE IF EXISTS drv_psycopg")
    conn.execute("CREATE TABLE drv_psycopg (id int PRIMARY KEY, t text)")
    with conn.transaction():
        conn.execute("INSERT INTO drv_psycopg VALUES (%s, %s)", (1, "kept"))
        try:
            with conn.transaction():
                conn.execute("INSERT INTO drv_psycopg VALUES (2, 'not kept')")
                raise ValueError
        except ValueError:
            pass
        conn.execute("INSERT INTO drv_psycopg VALUES (3, 'kept')")
    try:
        with conn.transaction():
            conn.execute("DELETE FROM drv_psycopg")
            raise ValueError
    except ValueError:
        pass
    rows = conn.execute("SELECT id FROM drv_psycopg ORDER BY id").fetchall()
    check("rows after savepoints and rollback", rows, [(1,), (3,)])


def errors(conn):
    fails("unique violation", "23505", lambda: conn.execute("INSERT INTO drv_psycopg VALUES (1, 'again')"))
    error = fails("syntax error", "42601", lambda: conn.execute("SELEC 1"))
    check("position of a syntax error", error.diag.statement_position, "1")
    fails("division by zero", "22012", lambda: conn.execute("SELECT 1 / %s::int", (0,)))
    check("after errors", conn.execute("SELECT 1").fetchone(), (1,))
    with conn.transaction():
        fails("in a transaction", "42P01", lambda: conn.execute("SELECT * FROM no_such_table"))
        fails("after it", "25P02", lambda: conn.execute("SELECT 1"))
        raise psycopg.Rollback
    check("after the rollback", conn.execute("SELECT 2").fetchone(), (2,))


def prepared(url):
    """The same names on two connections, and more statements than the first executions of each."""
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
        for turn in range(12):
            for conn in (one, other):
                for add in range(5):
                    row = conn.execute(f"SELECT %s::int + {add}", (turn,), prepare=True).fetchone()
                    check("a prepared statement", row, (turn + add,))


def pipelines(conn):
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("SELECT %s::int * 2", (n,)) for n in range(50)]
        pipeline.sync()
        check("a pipeline", [it.fetchone()[0] for it in cursors], [n * 2 for n in range(50)])
    with conn.pipeline() as pipeline:
        bad = conn.execute("SELECT 1 / %s::int", (0,))
        fails("an error in a pipeline", "22012", pipeline.sync)
    check("after the pipeline", conn.execute("SELECT 3").fetchone(), (3,))
    del bad
    with conn.cursor() as cursor:
        cursor.executemany("INSERT INTO drv_psycopg VALUES (%s, %s)", [(n, "many") for n in range(100, 200)])
    check("executemany", conn.execute("SELECT count(*) FROM drv_psycopg WHERE id >= 100").fetchone(), (100,))


def copies(conn):
    with conn.cursor() as cursor:
        with cursor.copy("COPY drv_psycopg FROM STDIN") as copy:
            for n in range(1000, 3000):
                copy.write_row((n, "x" * 200))
        check("rows copied in", cursor.rowcount, 2000)
        with cursor.copy("COPY (SELECT id FROM drv_psycopg WHERE id >= 1000 ORDER BY id) TO STDOUT") as copy:
            check("rows copied out", [int(row[0]) for row in copy.rows()], list(range(1000, 3000)))
        with cursor.copy("COPY drv_psycopg (id) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4"])
            copy.write_row((5000,))

        def twice():
            with cursor.copy("COPY drv_psycopg FROM STDIN") as copy:
                copy.write_row((1, "taken"))

        fails("an error in COPY", "23505", twice)
    check("after COPY", conn.execute("SELECT 4").fetchone(), (4,))


def cursors(conn):
    with conn.transaction(), conn.cursor(name="drv_cursor") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT generate_series(1, 1000)")
        check("a server side cursor", sum(row[0] for row in cursor), 500_500)


def cancels(conn):
    timer = threading.Timer(0.3, conn.cancel)
    timer.start()
    fails("cancel", "57014", lambda: conn.execute("SELECT pg_sleep(30)"))
    timer.join()
    check("after cancel", conn.execute("SELECT 5").fetchone(), (5,))


def settings(url):
    options = {"application_name": "drv psycopg", "options": "-c statement_timeout=12345 -c DateStyle=German"}
    with psycopg.connect(url, autocommit=True, **options) as one, psycopg.connect(url, autocommit=True) as other:
        one.execute("SET work_mem = '5MB'")
        for _ in range(5):
            shown = [one.execute(f"SHOW {it}").fetchone()[0] for it in ("application_name", "statement_timeout", "work_mem")]
            check("settings of one", shown, ["drv psycopg", "12345ms", "5MB"])
            check("settings of the other", other.execute("SHOW work_mem").fetchone() == ("5MB",), False)
            check("date style", one.execute("SELECT '2026-01-31'::date::text").fetchone(), ("31.01.2026",))
        one.execute("RESET work_mem")
        check("after RESET", one.execute("SHOW work_mem").fetchone(), other.execute("SHOW work_mem").fetchone())
        check("parameter status", one.info.parameter_status("client_encoding"), "UTF8")


def sharded(conn):
    conn.execute("DELETE FROM orders WHERE user_id = %s", (USER_ID,))
    conn.execute("DELETE FROM users WHERE user_id = %s", (USER_ID,))
    sql = "INSERT INTO users (user_id, name, email, country) VALUES (%s, %s, 'e', 'NL')"
    conn.execute(sql, (USER_ID, "psycopg"))
    fails("a duplicate on its shard", "23505", lambda: conn.execute(sql, (USER_ID, "psycopg")))
    with conn.transaction():
        conn.execute("INSERT INTO orders (user_id, amount) VALUES (%s, 3.50)", (USER_ID,))
        rows = conn.execute(
            "SELECT u.name, o.amount FROM users u JOIN orders o USING (user_id) WHERE u.user_id = %s", (USER_ID,)
        ).fetchall()
        check("a join in a transaction", rows, [("psycopg", decimal.Decimal("3.50"))])
    for key in range(1, 200):
        row = conn.execute("SELECT user_id FROM users WHERE user_id = %s", (key,)).fetchone()
        check("each key on its shard", row, (key,))
    found = conn.execute("SELECT user_id FROM users WHERE user_id = ANY(%s)", ([1, 2, 3, 4, 5, 6, 7, 8],)).fetchall()
    check("a list over shards", sorted(found), [(n,) for n in range(1, 9)])
    fails("a refusal", "0A000", lambda: conn.execute("SELECT count(*) FROM users"))
    error = fails("a refused write", "0A000", lambda: conn.execute("DELETE FROM orders"))
    check("it has a hint", bool(error.diag.message_hint), True)
    check("after refusals", conn.execute("SELECT name FROM countries WHERE code = 'NL'").fetchone() is not None, True)
    conn.execute("DELETE FROM orders WHERE user_id = %s", (USER_ID,))
    conn.execute("DELETE FROM users WHERE user_id = %s", (USER_ID,))


def concurrently(url):
    faults = []

    def work(worker):
        try:
            with psycopg.connect(url, autocommit=True) as conn:
                for n in range(100):
                    row = conn.execute("SELECT %s::int, %s::int", (worker, n)).fetchone()
                    if row != (worker, n):
                        faults.append(row)
        except psycopg.Error as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(it,)) for it in range(30)]
    for it in threads:
        it.start()
    for it in threads:
        it.join()
    check("30 connections at once", faults, [])


with psycopg.connect(PLAIN, autocommit=True) as plain:
    values(plain)
    transactions(plain)
    errors(plain)
    pipelines(plain)
    copies(plain)
    cursors(plain)
    cancels(plain)
    plain.execute("DROP TABLE drv_psycopg")
prepared(PLAIN)
settings(PLAIN)
concurrently(PLAIN)
with psycopg.connect(SHARDED, autocommit=True) as conn:
    values(conn)
    sharded(conn)
prepared(SHARDED)
settings(SHARDED)
concurrently(SHARDED)
print(f"{checks} checks")
