"""psycopg 3 with nothing but the connection string: with_psycopg.py URL"""

import asyncio
import datetime
import decimal
import sys
import threading
import uuid

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import scalar_row
from psycopg.types import TypeInfo

from checks import Checks

# More than a pool has slots.
CLIENTS = 40
STATEMENTS = 120
# Users of the shop that no other test touches.
FIRST_USER = 8_000_000

UTC = datetime.timezone.utc
# One of each end, and what text has to escape.
VALUES = [
    ("int2", -32768),
    ("int4", 2147483647),
    ("int8", -(2**63)),
    ("int8", 2**63 - 1),
    ("bool", True),
    ("float8", 0.1),
    ("text", ""),
    ("text", "it's a \\ \"key\" \n\t of naïve 鍵 🔑"),
    ("numeric", decimal.Decimal("12345678901234567890.000123")),
    ("numeric", decimal.Decimal("-0.5")),
    ("timestamptz", datetime.datetime(2026, 2, 28, 23, 59, 59, 999999, UTC)),
    ("timestamp", datetime.datetime(1999, 12, 31, 1, 2, 3)),
    ("date", datetime.date(1970, 1, 1)),
    ("interval", datetime.timedelta(days=3, seconds=7, microseconds=5)),
    ("uuid", uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
    ("bytea", bytes(range(256))),
    ("bytea", b""),
    ("int8[]", [1, None, -(2**63)]),
    ("text[]", ["a", None, "NULL", 'b,"c\\', ""]),
    ("uuid[]", [uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)]),
    ("int4[]", []),
]


class Target:
    """The database behind the URL, and what is the same in both."""

    def __init__(self, url):
        self.url = url
        with self.connect() as conn:
            self.database = conn.execute("SELECT current_database()").fetchone()[0]
            self.users = "users"
            if self.database != "shop":
                self.users = "psycopg_users"
                conn.execute(
                    f"CREATE TABLE {self.users} (user_id bigint PRIMARY KEY, name text NOT NULL, "
                    "email text NOT NULL, country char(2) NOT NULL)"
                )
        self.insert = f"INSERT INTO {self.users} (user_id, name, email, country) VALUES (%s, %s, '', 'NL')"
        self.next_user = FIRST_USER

    def connect(self, **options):
        return psycopg.connect(self.url, **{"autocommit": True, **options})

    def user(self):
        self.next_user += 1
        return self.next_user

    def name(self, conn, user):
        row = conn.execute(f"SELECT name FROM {self.users} WHERE user_id = %s", [user]).fetchone()
        return row and row[0]

    def users_of_two_shards(self, conn):
        """Found as a client can: by what Keyway refuses."""
        first = self.user()
        while True:
            second = self.user()
            try:
                with conn.transaction():
                    for user in (first, second):
                        conn.execute("SELECT FROM users WHERE user_id = %s FOR UPDATE", [user])
            except errors.FeatureNotSupported:
                return first, second


def fails(check, what, error, run):
    try:
        run()
    except error as it:
        check.count += 1
        return it
    raise AssertionError(f"{what}: no {error.__name__}")


def connects_and_tells_what_a_server_tells(target, check):
    with target.connect() as conn:
        check.equal("answer", conn.execute("SELECT 1").fetchone(), (1,))
        check.that("server version", conn.info.server_version >= 110000)
        check.equal("encoding", conn.info.encoding, "utf-8")
        check.equal("status", conn.info.transaction_status, TransactionStatus.IDLE)
        check.equal("strings", conn.info.parameter_status("standard_conforming_strings"), "on")
        check.equal("database", conn.info.dbname, target.database)
        check.that("process id", conn.info.backend_pid > 0)
        cursor = conn.execute("SELECT 1 AS a, 'b'::text AS b, NULL AS c")
        check.equal("names", [it.name for it in cursor.description], ["a", "b", "c"])
        check.equal("types", [it.type_code for it in cursor.description], [23, 25, 25])
        check.equal("empty statement", conn.execute("").statusmessage, None)
        # Several statements in one text go through the simple protocol, and one result each.
        cursor = conn.execute("SELECT 1; SELECT 2")
        check.equal("first of two", cursor.fetchone(), (1,))
        check.equal("a second", cursor.nextset(), True)
        check.equal("second of two", cursor.fetchone(), (2,))


def connects_in_each_way_that_libpq_knows(target, check):
    for options in (
        {"sslmode": "prefer"},
        {"sslmode": "disable", "gssencmode": "disable"},
        {"channel_binding": "prefer"},
        {"max_protocol_version": "latest"},
        # Keyway takes writes whatever server it has asked on the client's behalf.
        {"target_session_attrs": "read-write"},
        {"target_session_attrs": "primary"},
        {"connect_timeout": 5, "keepalives_idle": 3, "tcp_user_timeout": 1000},
        {"client_encoding": "UTF8"},
    ):
        with target.connect(**options) as conn:
            check.equal(f"{options}", conn.execute("SELECT 1").fetchone(), (1,))
    if "sslmode=require" in target.url:
        with target.connect() as conn:
            check.that("TLS", conn.pgconn.ssl_in_use)
        return
    refused = lambda: target.connect(sslmode="require")
    error = fails(check, "TLS", psycopg.OperationalError, refused)
    check.that("libpq's own words", "server does not support SSL" in str(error))


def startup_options_stay_with_their_client(target, check):
    options = {"application_name": "it's psycopg", "options": "-c work_mem=3MB -c TimeZone=Asia/Tokyo"}
    with target.connect(**options) as conn, target.connect() as other:
        for _ in range(3):
            show = lambda it, name: it.execute(f"SHOW {name}").fetchone()[0]
            check.equal("work_mem", show(conn, "work_mem"), "3MB")
            check.equal("application_name", show(conn, "application_name"), "it's psycopg")
            check.equal("TimeZone", show(conn, "TimeZone"), "Asia/Tokyo")
            check.that("another's work_mem", show(other, "work_mem") != "3MB")
            check.that("another's name", show(other, "application_name") != "it's psycopg")
        check.equal("reported name", conn.info.parameter_status("application_name"), "it's psycopg")
        check.equal("reported zone", conn.info.parameter_status("TimeZone"), "Asia/Tokyo")
        conn.execute("SET work_mem = '5MB'")
        conn.execute("RESET work_mem")
        check.equal("RESET goes back to startup", show(conn, "work_mem"), "3MB")
    with target.connect(options="-c search_path=pg_catalog,public") as conn:
        schemas = conn.execute("SELECT current_schemas(false)::text[]").fetchone()[0]
        check.equal("search_path", schemas, ["pg_catalog", "public"])
    wrong = lambda: target.connect(options="-c work_mem=much")
    error = fails(check, "a wrong option", psycopg.OperationalError, wrong)
    check.that("its text", 'invalid value for parameter "work_mem"' in str(error))


def settings_stay_with_their_client(target, check):
    with target.connect() as one, target.connect() as two:
        for conn, value in ((one, "11s"), (two, "12s")):
            conn.execute("SELECT set_config('lock_timeout', %s, true)", [value])
            conn.execute(f"SET statement_timeout = '{value}'")
        for _ in range(5):
            for conn, value in ((one, "11s"), (two, "12s")):
                check.equal("SHOW", conn.execute("SHOW statement_timeout").fetchone()[0], value)
        with one.transaction():
            one.execute("SET LOCAL statement_timeout = '13s'")
            check.equal("SET LOCAL", one.execute("SHOW statement_timeout").fetchone()[0], "13s")
        check.equal("after it", one.execute("SHOW statement_timeout").fetchone()[0], "11s")
        with one.transaction(force_rollback=True):
            one.execute("SET statement_timeout = '14s'")
            check.equal("SET", one.execute("SHOW statement_timeout").fetchone()[0], "14s")
        check.equal("rolled back", one.execute("SHOW statement_timeout").fetchone()[0], "11s")
        with one.transaction():
            one.execute("SET statement_timeout = '15s'")
        check.equal("committed", one.execute("SHOW statement_timeout").fetchone()[0], "15s")
        for name, value in (("search_path", "public, pg_catalog"), ("custom.of_one", "it's \\ one")):
            got = one.execute("SELECT set_config(%s, %s, false)", [name, value]).fetchone()[0]
            check.equal("set_config", got, value)
            for _ in range(3):
                check.equal("afterwards", one.execute(f"SHOW {name}").fetchone()[0], value)
        with one.transaction(force_rollback=True):
            one.execute("SELECT set_config('custom.of_one', 'lost', false)")
        check.equal("set_config rolled back", one.execute("SHOW custom.of_one").fetchone()[0], "it's \\ one")
        others = two.execute("SELECT current_setting('custom.of_one', true)").fetchone()[0]
        check.that("not another's", not others)
        two.execute("SET TIME ZONE 'Asia/Kolkata'")
        check.equal("reported", two.info.parameter_status("TimeZone"), "Asia/Kolkata")
        moment = datetime.datetime(2026, 1, 1, tzinfo=UTC)
        shown = two.execute("SELECT %s::timestamptz::text", [moment]).fetchone()[0]
        check.equal("in its zone", shown, "2026-01-01 05:30:00+05:30")
        shown = one.execute("SELECT %s::timestamptz::text", [moment]).fetchone()[0]
        check.that("not in another's", "+05:30" not in shown)
        two.execute("RESET ALL")
        check.that("RESET ALL", two.execute("SHOW statement_timeout").fetchone()[0] != "12s")


def values_survive_in_text_and_binary(target, check):
    with target.connect() as conn:
        for asked in ("%t", "%b", "%s"):
            for binary in (False, True):
                for type_name, value in VALUES:
                    if asked == "%b" and value == []:
                        continue  # psycopg cannot tell the type of an empty list in binary
                    cursor = conn.cursor(binary=binary)
                    row = cursor.execute(f"SELECT {asked}::{type_name}", [value]).fetchone()
                    check.equal(f"{type_name} through {asked}, binary {binary}", row[0], value)
                row = conn.cursor(binary=binary).execute("SELECT %s::int8, %s::text", [None, None]).fetchone()
                check.equal("NULL", row, (None, None))
        nan = conn.execute("SELECT %b::numeric", [decimal.Decimal("NaN")]).fetchone()[0]
        check.that("NaN", nan.is_nan())
        large = "k" * 3_000_000
        check.equal("3 MB", conn.execute("SELECT %s::text", [large]).fetchone()[0] == large, True)


def statements_follow_their_client(target, check):
    """Named statements, more of them than a pool has slots, on servers that change under them."""
    conns = [target.connect(prepare_threshold=0) for _ in range(4)]
    for conn in conns:
        conn.prepared_max = STATEMENTS
    for turn in range(3):
        for index in range(STATEMENTS):
            conn = conns[(index + turn) % len(conns)]
            statement = f"SELECT %s::int8 + {index} AS of_{index}"
            if turn == 1 and index % 10 == 0:
                with conn.transaction():
                    row = conn.execute(statement, [turn]).fetchone()
            else:
                row = conn.execute(statement, [turn]).fetchone()
            check.equal(statement, row, (turn + index,))
    # One that the driver throws away to make room, and needs again.
    conns[0].prepared_max = 5
    for turn in range(3):
        for index in range(12):
            row = conns[0].execute(f"SELECT %s::text || '{index}'", [str(turn)]).fetchone()
            check.equal("thrown away", row, (f"{turn}{index}",))
    # A name of the driver's is the same in each client, for another text.
    for round_ in range(3):
        for index, conn in enumerate(conns[1:]):
            statement = f"SELECT %s::int4 * {index + 2}"
            check.equal(statement, conn.execute(statement, [7]).fetchone(), (7 * (index + 2),))
    # What fails in Execute has been prepared all the same.
    for divisor, want in ((0, None), (4, 25), (0, None), (5, 20)):
        divide = lambda: conns[1].execute("SELECT 100 / %s::int4", [divisor]).fetchone()
        if want is None:
            fails(check, "prepared division", errors.DivisionByZero, divide)
        else:
            check.equal("prepared division", divide(), (want,))
    for conn in conns:
        conn.close()


def transactions_end_as_told(target, check):
    with target.connect() as conn:
        kept, lost, inner = target.user(), None, None
        with conn.transaction():
            conn.execute(target.insert, [kept, "kept"])
            check.equal("inside", conn.info.transaction_status, TransactionStatus.INTRANS)
        check.equal("after COMMIT", target.name(conn, kept), "kept")
        change = f"UPDATE {target.users} SET name = %s WHERE user_id = %s"
        with conn.transaction(force_rollback=True):
            conn.execute(change, ["lost", kept])
            check.equal("seen inside", target.name(conn, kept), "lost")
        check.equal("after ROLLBACK", target.name(conn, kept), "kept")
        with conn.transaction():
            conn.execute(change, ["outer", kept])
            try:
                with conn.transaction("sp"):
                    conn.execute(change, ["inner", kept])
                    conn.execute("SELECT 1/0")
            except errors.DivisionByZero:
                check.equal("before ROLLBACK TO", target.name(conn, kept), "outer")
            with conn.transaction():
                conn.execute(change, ["inner and kept", kept])
        check.equal("savepoints", target.name(conn, kept), "inner and kept")
        with conn.transaction(force_rollback=True):
            fails(check, "error", errors.DivisionByZero, lambda: conn.execute("SELECT 1/0"))
            check.equal("aborted", conn.info.transaction_status, TransactionStatus.INERROR)
            aborted = lambda: target.name(conn, kept)
            fails(check, "in an aborted transaction", errors.InFailedSqlTransaction, aborted)
        check.equal("idle again", conn.info.transaction_status, TransactionStatus.IDLE)
    # The driver's default: BEGIN by itself, ended by commit() and rollback().
    with target.connect(autocommit=False) as conn:
        change_name = lambda name: conn.execute(change, [name, kept])
        change_name("by commit()")
        conn.commit()
        change_name("by nobody")
        conn.rollback()
        check.equal("commit() and rollback()", target.name(conn, kept), "by commit()")
        conn.commit()
        conn.commit()
        conn.read_only = True
        check.equal("BEGIN READ ONLY", conn.execute("SHOW transaction_read_only").fetchone(), ("on",))
        fails(check, "a write in it", errors.ReadOnlySqlTransaction, lambda: change_name("never"))
        conn.rollback()
        conn.read_only = None
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        level = conn.execute("SHOW transaction_isolation").fetchone()
        check.equal("isolation", level, ("repeatable read",))


def errors_are_the_servers_own(target, check):
    with target.connect() as conn:
        user = target.user()
        conn.execute(target.insert, [user, "first"])
        again = lambda: conn.execute(target.insert, [user, "second"])
        error = fails(check, "a double", errors.UniqueViolation, again)
        check.equal("SQLSTATE", error.sqlstate, "23505")
        check.equal("its table", error.diag.table_name, target.users)
        check.equal("its constraint", error.diag.constraint_name, f"{target.users}_pkey")
        check.that("its detail", f"Key (user_id)=({user}) already exists." in error.diag.message_detail)
        error = fails(check, "syntax", errors.SyntaxError, lambda: conn.execute("SELECT 1 FORM x y"))
        check.equal("syntax", (error.sqlstate, error.diag.statement_position), ("42601", "15"))
        error = fails(check, "a table", errors.UndefinedTable, lambda: conn.execute("SELECT 1 FROM pg_none"))
        check.equal("no table", (error.sqlstate, error.diag.statement_position), ("42P01", "15"))
        for run in range(3):
            divide = lambda: conn.execute("SELECT 1 / %s", [0])
            error = fails(check, "division", errors.DivisionByZero, divide)
            check.equal("its words", error.diag.message_primary, "division by zero")
            check.equal("usable", conn.execute("SELECT %s", [run]).fetchone(), (run,))
        text = lambda: conn.execute("SELECT %s::int4", ["seven"])
        check.equal("junk", fails(check, "junk", errors.DataError, text).sqlstate, "22P02")


def pipelines_answer_in_order(target, check):
    with target.connect() as conn:
        user = target.user()
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int4", [it]) for it in range(100)]
            check.equal("in order", [it.fetchone()[0] for it in cursors], list(range(100)))
        with conn.pipeline() as pipeline:
            with conn.transaction():
                conn.execute(target.insert, [user, "piped"])
                read = conn.execute(f"SELECT name FROM {target.users} WHERE user_id = %s", [user])
            pipeline.sync()
            check.equal("in a transaction", read.fetchone(), ("piped",))
        try:
            with conn.pipeline():
                good = conn.execute("SELECT 'good'")
                bad = conn.execute("SELECT 1 / %s::int4", [0])
                skipped = conn.execute(target.insert, [user, "skipped"])
            raise AssertionError("no error left the pipeline")
        except errors.DivisionByZero:
            check.equal("before the error", good.fetchone(), ("good",))
        check.equal("after it", conn.execute("SELECT 1").fetchone(), (1,))
        check.equal("nothing of it", target.name(conn, user), "piped")
        with conn.pipeline() as pipeline:
            fails(check, "in a part", errors.DivisionByZero, lambda: conn.execute("SELECT 1/0").fetchone())
            pipeline.sync()
            check.equal("next part", conn.execute("SELECT 2").fetchone(), (2,))
        update = f"UPDATE {target.users} SET name = %s WHERE user_id = %s"
        with conn.cursor() as cursor:
            cursor.executemany(update, [(f"name {it}", user) for it in range(50)])
            check.equal("executemany", cursor.rowcount, 50)
        check.equal("the last one", target.name(conn, user), "name 49")
        with conn.cursor() as cursor:
            cursor.executemany("SELECT %s::int8", [(it,) for it in range(5)], returning=True)
            got = [cursor.fetchone()[0]]
            while cursor.nextset():
                got.append(cursor.fetchone()[0])
            check.equal("executemany returning", got, [0, 1, 2, 3, 4])


def cursors_of_the_server_fetch_in_parts(target, check):
    with target.connect() as conn:
        with conn.transaction(), conn.cursor(name="parts") as cursor:
            cursor.execute("SELECT g FROM generate_series(1, %s) AS g", [1000])
            check.equal("first", cursor.fetchone(), (1,))
            check.equal("many", len(cursor.fetchmany(500)), 500)
            cursor.scroll(100)
            check.equal("after a jump", cursor.fetchone(), (602,))
            check.equal("the rest", len(cursor.fetchall()), 398)
        with conn.transaction(), conn.cursor(name="iterated") as cursor:
            cursor.itersize = 7
            cursor.execute("SELECT g::text FROM generate_series(1, 50) AS g")
            check.equal("iterated", [int(it[0]) for it in cursor], list(range(1, 51)))
        streamed = [it[0] for it in conn.cursor().stream("SELECT generate_series(1, %s)", [300])]
        check.equal("row by row", streamed, list(range(1, 301)))


def cancel_ends_a_statement_and_no_more(target, check):
    with target.connect() as conn, target.connect() as other:
        for cancel in (conn.cancel, conn.cancel_safe):
            timer = threading.Timer(0.3, cancel)
            timer.start()
            sleep = lambda: conn.execute("SELECT pg_sleep(60)")
            error = fails(check, "cancel", errors.QueryCanceled, sleep)
            check.equal("SQLSTATE", error.sqlstate, "57014")
            timer.join()
            check.equal("usable", conn.execute("SELECT 1").fetchone(), (1,))
        # Nothing runs: a cancel that comes late must hit nobody.
        conn.cancel_safe()
        check.equal("another client", other.execute("SELECT 1").fetchone(), (1,))
        check.equal("itself", conn.execute("SELECT 1").fetchone(), (1,))
        conn.execute("SET statement_timeout = '100ms'")
        error = fails(check, "timeout", errors.QueryCanceled, lambda: conn.execute("SELECT pg_sleep(60)"))
        check.that("its words", "statement timeout" in str(error))


def the_catalog_is_read(target, check):
    with target.connect() as conn:
        info = TypeInfo.fetch(conn, "timestamptz")
        check.equal("TypeInfo", (info.oid, info.array_oid), (1184, 1185))
        columns = conn.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
            [target.users],
        ).fetchall()
        want = [("user_id", "bigint"), ("name", "text"), ("email", "text"), ("country", "character(2)")]
        check.equal("columns", columns, want)
        counted = conn.execute(
            "SELECT count(*) FROM information_schema.columns WHERE table_name = %s", [target.users]
        ).fetchone()
        check.equal("information_schema", counted, (4,))


def threads_have_their_own(target, check):
    failures = []

    def work(index):
        try:
            with target.connect(application_name=f"thread {index}") as conn:
                user = FIRST_USER + 500_000 + index
                conn.execute(target.insert, [user, f"of {index}"])
                for turn in range(15):
                    with conn.transaction():
                        conn.execute(
                            f"UPDATE {target.users} SET name = name || %s WHERE user_id = %s", [str(turn % 10), user]
                        )
                    shown = conn.execute("SHOW application_name").fetchone()[0]
                    assert shown == f"thread {index}", shown
                want = f"of {index}" + "".join(str(it % 10) for it in range(15))
                got = target.name(conn, user)
                assert got == want, f"{got!r} is not {want!r}"
        except BaseException as it:
            failures.append(it)

    threads = [threading.Thread(target=work, args=[it]) for it in range(8)]
    for it in threads:
        it.start()
    for it in threads:
        it.join()
    check.equal("failures", failures, [])


def more_clients_than_servers(target, check):
    async def client(index):
        conn = await psycopg.AsyncConnection.connect(target.url, autocommit=True)
        async with conn:
            got = []
            for turn in range(5):
                async with conn.transaction():
                    cursor = await conn.execute("SELECT %s::int4 + %s::int4, pg_sleep(0.001)", [index, turn])
                    got.append((await cursor.fetchone())[0])
            return got

    async def all_clients():
        return await asyncio.gather(*(client(it) for it in range(CLIENTS)))

    answers = asyncio.run(all_clients())
    check.equal("answers", answers, [[it + turn for turn in range(5)] for it in range(CLIENTS)])


# Only where there is one shard.


def copy_goes_in_and_out(target, check):
    with target.connect(row_factory=scalar_row) as conn:
        conn.execute("CREATE TABLE psycopg_copied (id int8 PRIMARY KEY, name text, at timestamptz, raw bytea)")
        moment = datetime.datetime(2026, 11, 1, 12, tzinfo=UTC)
        rows = [(it, None if it % 7 == 0 else f"row\t{it}\n\\", moment, bytes([it % 256])) for it in range(20_000)]
        for options in ("", " (FORMAT binary)"):
            conn.execute("TRUNCATE psycopg_copied")
            with conn.cursor() as cursor:
                with cursor.copy(f"COPY psycopg_copied FROM STDIN{options}") as copy:
                    copy.set_types(["int8", "text", "timestamptz", "bytea"])
                    for row in rows:
                        copy.write_row(row)
                check.equal("COPY in", cursor.rowcount, len(rows))
                query = "SELECT id, name, at, raw FROM psycopg_copied ORDER BY id"
                with cursor.copy(f"COPY ({query}) TO STDOUT{options}") as copy:
                    copy.set_types(["int8", "text", "timestamptz", "bytea"])
                    got = list(copy.rows())
                check.equal("COPY out", got == rows, True)
        copy_in = "COPY psycopg_copied (id, name) FROM STDIN"

        def fed(*parts):
            with conn.cursor().copy(copy_in) as copy:
                for part in parts:
                    copy.write(part)

        error = fails(check, "a double", errors.UniqueViolation, lambda: fed("1\ta\n"))
        check.that("its line", "COPY psycopg_copied, line 1" in error.diag.context)
        error = fails(check, "junk", errors.InvalidTextRepresentation, lambda: fed("99999\ta\n", "x\ty\n"))
        check.equal("usable", conn.execute("SELECT 1").fetchone(), 1)

        def given_up():
            with conn.cursor().copy(copy_in) as copy:
                copy.write("99999\ta\n")
                raise ZeroDivisionError

        fails(check, "given up", ZeroDivisionError, given_up)
        count = conn.execute("SELECT count(*) FROM psycopg_copied").fetchone()
        check.equal("nothing of these", count, len(rows))
        with conn.transaction():
            fed("99999\tkept\n")
            with conn.cursor().copy("COPY psycopg_copied (name) TO STDOUT") as copy:
                check.that("seen inside", "kept" in [row[0] for row in list(copy.rows())])

        def left_half_way():
            with conn.cursor().copy("COPY (SELECT generate_series(1, 10000000)) TO STDOUT") as copy:
                check.that("first bytes", len(copy.read()) > 0)
                raise ZeroDivisionError

        # The driver cancels the statement.
        fails(check, "left half way", ZeroDivisionError, left_half_way)
        check.equal("usable", conn.execute("SELECT 1").fetchone(), 1)


def session_state_stays_with_its_client(target, check):
    with target.connect() as one, target.connect() as two:
        one.execute("CREATE TEMPORARY TABLE psycopg_mine (a int)")
        one.execute("INSERT INTO psycopg_mine VALUES (1), (2)")
        unknown = lambda: two.execute("SELECT a FROM psycopg_mine")
        fails(check, "another's table", errors.UndefinedTable, unknown)
        check.equal("its own", one.execute("SELECT sum(a) FROM psycopg_mine").fetchone(), (3,))
        with two.cursor(name="held", withhold=True) as cursor:
            cursor.execute("SELECT g FROM generate_series(1, 10) AS g")
            check.equal("WITH HOLD", cursor.fetchmany(4), [(1,), (2,), (3,), (4,)])
            check.equal("another client", one.execute("SELECT count(*) FROM psycopg_mine").fetchone(), (2,))
            check.equal("WITH HOLD, later", len(cursor.fetchall()), 6)


def notifications_come_while_a_client_is_idle(target, check):
    with target.connect() as listener, target.connect() as other:
        listener.execute("LISTEN psycopg_news")
        for turn in range(3):
            other.execute("SELECT pg_notify('psycopg_news', %s)", [f"news {turn}"])
            heard = [it.payload for it in listener.notifies(timeout=30, stop_after=1)]
            check.equal("a notification", heard, [f"news {turn}"])
        with listener.transaction():
            other.execute("NOTIFY psycopg_news, 'after COMMIT'")
            check.equal("not inside", list(listener.notifies(timeout=0.05)), [])
        heard = [it.payload for it in listener.notifies(timeout=30, stop_after=1)]
        check.equal("after it", heard, ["after COMMIT"])


def a_pinned_server_is_heard_while_its_client_is_idle(target, check):
    with target.connect() as pinned, target.connect() as other:
        pinned.execute("CREATE TEMPORARY TABLE psycopg_pin (a int)")
        pinned.execute("LISTEN psycopg_pin")
        other.execute("NOTIFY psycopg_pin, 'to a pinned client'")
        heard = [it.payload for it in pinned.notifies(timeout=30, stop_after=1)]
        check.equal("a notification", heard, ["to a pinned client"])
        server = pinned.execute("SELECT pg_backend_pid()").fetchone()[0]
        other.execute("SELECT pg_terminate_backend(%s)", [server])
        # Told at once, not at the next statement.
        gone = lambda: list(pinned.notifies(timeout=30, stop_after=1))
        fails(check, "a server that was ended", psycopg.OperationalError, gone)
        check.equal("and closed", pinned.closed, True)
        check.equal("another client", other.execute("SELECT 1").fetchone(), (1,))


# Only where there are several.


def keys_choose_the_shard(target, check):
    with target.connect() as conn:
        users = list(range(1, 60))
        names = {it: f"user {it}" for it in users}
        for binary in ("%s", "%b", "%t"):
            statement = f"SELECT name FROM users WHERE user_id = {binary}"
            for user in users:
                check.equal(statement, conn.execute(statement, [user]).fetchone(), (names[user],))
        for condition in ("= ANY(%s)", "= ANY(%b)"):
            rows = conn.execute(f"SELECT user_id, name FROM users WHERE user_id {condition}", [users]).fetchall()
            check.equal(condition, dict(rows), names)
        rows = conn.execute("SELECT name FROM users WHERE user_id IN (1, 2, 3, 4, 5, 6)").fetchall()
        check.equal("IN", sorted(it[0] for it in rows), [names[it] for it in range(1, 7)])
        rows = conn.execute("SELECT user_id FROM users WHERE country = %s AND user_id <= 2000", ["NL"]).fetchall()
        check.equal("over all shards", sorted(it[0] for it in rows), list(range(250, 2001, 250)))
        rows = conn.execute(
            "SELECT u.name, o.order_id FROM users u JOIN orders o USING (user_id) "
            "WHERE user_id = %s AND o.order_id <= 2 ORDER BY 2",
            [7],
        ).fetchall()
        check.equal("a join", rows, [("user 7", 1), ("user 7", 2)])
        check.equal("a reference table", conn.execute("SELECT count(*) FROM countries").fetchone(), (6,))
        with conn.cursor().copy("COPY (SELECT name FROM users WHERE user_id = 42) TO STDOUT") as copy:
            check.equal("COPY out of one shard", list(copy.rows()), [("user 42",)])


def a_transaction_waits_for_its_first_key(target, check):
    """What names no key must not choose the shard; each user may be on either."""
    insert = target.insert
    for _ in range(8):
        with target.connect() as conn:
            user = target.user()
            with conn.transaction():
                check.equal("SHOW", conn.execute("SHOW transaction_read_only").fetchone(), ("off",))
                check.equal("a constant", conn.execute("SELECT 1").fetchone(), (1,))
                check.equal("a parameter", conn.execute("SELECT %s::int4", [2], prepare=True).fetchone(), (2,))
                conn.execute("SET LOCAL work_mem = '2MB'")
                check.equal("SET LOCAL", conn.execute("SHOW work_mem").fetchone(), ("2MB",))
                # Parse by itself, before a key is known.
                conn.execute(insert, [user, "late"], prepare=True)
                check.equal("SET LOCAL went along", conn.execute("SHOW work_mem").fetchone(), ("2MB",))
            check.equal("kept", target.name(conn, user), "late")
            with conn.transaction(force_rollback=True):
                fails(check, "error", errors.DivisionByZero, lambda: conn.execute("SELECT 1/0"))
                check.equal("aborted", conn.info.transaction_status, TransactionStatus.INERROR)
                aborted = lambda: conn.execute(insert, [target.user(), "never"])
                fails(check, "aborted", errors.InFailedSqlTransaction, aborted)
            with conn.transaction(force_rollback=True):
                none = lambda: conn.execute("SELECT nothing FROM users WHERE user_id = %s", [user], prepare=True)
                fails(check, "a Parse that fails", errors.UndefinedColumn, none)
                fails(check, "aborted by Parse", errors.InFailedSqlTransaction, aborted)


def what_needs_several_shards_is_refused(target, check):
    with target.connect() as conn:
        first, second = target.users_of_two_shards(conn)
        sorted_few = "SELECT user_id FROM users WHERE user_id <= %s ORDER BY user_id DESC LIMIT %s"
        check.equal("sorted", conn.execute(sorted_few, [100, 3]).fetchall(), [(100,), (99,), (98,)])
        counted = conn.execute("SELECT count(*) FROM users WHERE user_id <= %s", [100], prepare=True)
        check.equal("counted", counted.fetchone(), (100,))
        refused = [
            lambda: conn.execute("SELECT row_number() OVER (ORDER BY user_id) FROM users"),
            lambda: conn.execute("SELECT user_id FROM users FOR UPDATE"),
            lambda: conn.execute("UPDATE users SET name = 'x'"),
            lambda: conn.execute("DELETE FROM users WHERE user_id = ANY(%s)", [[first, second]]),
            lambda: conn.execute("INSERT INTO users (name, email, country) VALUES ('a', 'b', 'NL')"),
            lambda: conn.execute("UPDATE users SET user_id = %s WHERE user_id = %s", [first, second]),
            lambda: conn.cursor().executemany(target.insert, [(first, "a"), (second, "b")]),
            lambda: conn.execute("CREATE TEMPORARY TABLE psycopg_mine (a int)"),
            lambda: conn.cursor(name="held", withhold=True).execute("SELECT 1"),
        ]
        for index, run in enumerate(refused):
            error = fails(check, f"refused[{index}]", errors.FeatureNotSupported, run)
            check.equal("SQLSTATE", error.sqlstate, "0A000")
            check.that("its hint", error.diag.message_hint)
            check.equal("goes on", conn.execute("SELECT %s", [index]).fetchone(), (index,))
            check.equal("status", conn.info.transaction_status, TransactionStatus.IDLE)
        with conn.transaction(force_rollback=True):
            conn.execute(target.insert, [first, "lost"])
            elsewhere = lambda: conn.execute(target.insert, [second, "never"])
            fails(check, "two shards", errors.FeatureNotSupported, elsewhere)
            check.equal("aborted", conn.info.transaction_status, TransactionStatus.INERROR)
            here = lambda: target.name(conn, first)
            fails(check, "in an aborted transaction", errors.InFailedSqlTransaction, here)
        with conn.transaction(force_rollback=True):
            conn.execute(target.insert, [first, "lost"])
            fails(check, "the server's error", errors.DivisionByZero, lambda: conn.execute("SELECT 1/0"))
            fails(check, "whatever the shard", errors.InFailedSqlTransaction, elsewhere)
        with conn.transaction():
            conn.execute(target.insert, [first, "kept"])
            try:
                with conn.transaction():
                    conn.execute(target.insert, [second, "never"])
            except errors.FeatureNotSupported:
                check.equal("after ROLLBACK TO", target.name(conn, first), "kept")
        got = [target.name(conn, it) for it in (first, second)]
        check.equal("what is left", got, ["kept", None])


def cursors_read_several_shards(target, check):
    query = "SELECT user_id, name FROM users WHERE user_id <= %s ORDER BY user_id DESC"
    expected = [(it, f"user {it}") for it in range(300, 0, -1)]
    for binary in (False, True):
        with target.connect() as conn:
            with conn.transaction(), conn.cursor(name="Of shards", binary=binary) as cursor:
                cursor.execute(query, [300])
                check.equal("names", [it.name for it in cursor.description], ["user_id", "name"])
                check.equal("one", cursor.fetchone(), expected[0])
                check.equal("many", cursor.fetchmany(99), expected[1:100])
                other = conn.execute("SELECT count(*) FROM users WHERE user_id <= %s", [300])
                check.equal("a statement in between", other.fetchone(), (300,))
                cursor.scroll(50)
                check.equal("after a jump", cursor.fetchone(), expected[150])
                check.equal("the rest", cursor.fetchall(), expected[151:])
                check.equal("nothing is left", cursor.fetchone(), None)
            with conn.transaction(), conn.cursor(name="iterated", binary=binary) as cursor:
                cursor.itersize = 7
                cursor.execute(query, [50])
                check.equal("iterated", list(cursor), expected[250:])
                cursor.execute(query, [2])
                check.equal("anew", cursor.fetchall(), expected[298:])
            with conn.transaction(force_rollback=True), conn.cursor(name="back", scrollable=True) as cursor:
                fails(check, "SCROLL", errors.FeatureNotSupported, lambda: cursor.execute(query, [2]))


EVERYWHERE = [
    connects_and_tells_what_a_server_tells,
    connects_in_each_way_that_libpq_knows,
    startup_options_stay_with_their_client,
    settings_stay_with_their_client,
    values_survive_in_text_and_binary,
    statements_follow_their_client,
    transactions_end_as_told,
    errors_are_the_servers_own,
    pipelines_answer_in_order,
    cursors_of_the_server_fetch_in_parts,
    cancel_ends_a_statement_and_no_more,
    the_catalog_is_read,
    threads_have_their_own,
    more_clients_than_servers,
]
UNSHARDED = [
    copy_goes_in_and_out,
    session_state_stays_with_its_client,
    notifications_come_while_a_client_is_idle,
    a_pinned_server_is_heard_while_its_client_is_idle,
]
SHARDED = [
    keys_choose_the_shard,
    a_transaction_waits_for_its_first_key,
    what_needs_several_shards_is_refused,
    cursors_read_several_shards,
]


def main(url):
    check, target = Checks(), Target(url)
    for step in EVERYWHERE + (SHARDED if target.database == "shop" else UNSHARDED):
        print(step.__name__, flush=True)
        step(target, check)
    check.finish()


main(sys.argv[1])
