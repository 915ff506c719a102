"""asyncpg with nothing but the connection string: with_asyncpg.py URL"""

import asyncio
import datetime
import decimal
import sys
import uuid

import asyncpg
from asyncpg import exceptions as errors

from checks import Checks

# More than a pool has slots.
CLIENTS = 40
STATEMENTS = 120
# Users of the shop that no other test touches.
FIRST_USER = 2_000_000

UTC = datetime.timezone.utc
# asyncpg sends and reads all of them in binary.
VALUES = [
    ("int2", -32768),
    ("int8", -(2**63)),
    ("int8", 2**63 - 1),
    ("bool", False),
    ("float8", 0.1),
    ("float8", float("nan")),
    ("text", "it's a \\ \"key\" \n\t of naïve 鍵 🔑"),
    ("numeric", decimal.Decimal("12345678901234567890.000123")),
    ("numeric", decimal.Decimal("0.00")),
    ("timestamptz", datetime.datetime(2026, 2, 28, 23, 59, 59, 999999, UTC)),
    ("timestamp", datetime.datetime(1999, 12, 31, 1, 2, 3)),
    ("date", datetime.date(1970, 1, 1)),
    ("time", datetime.time(23, 59, 59, 1)),
    ("interval", datetime.timedelta(days=3, seconds=7, microseconds=5)),
    ("uuid", uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
    ("bytea", bytes(range(256))),
    ("json", '{"a": [1, null]}'),
    ("int8[]", [1, None, -(2**63)]),
    ("int4[]", [[1, 2], [3, 4]]),
    ("text[]", ["a", None, "NULL", 'b,"c\\', ""]),
    ("uuid[]", [uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)]),
    ("int4range", asyncpg.Range(1, 5)),
    ("inet", __import__("ipaddress").ip_address("::1")),
]


class Target:
    """The database behind the URL, and what is the same in both."""

    @classmethod
    async def of(cls, url):
        it = cls()
        it.url, it.next_user = url, FIRST_USER
        conn = await it.connect()
        it.database = await conn.fetchval("SELECT current_database()")
        it.users = "users"
        if it.database != "shop":
            it.users = "asyncpg_users"
            await conn.execute(
                f"CREATE TABLE {it.users} (user_id bigint PRIMARY KEY, name text NOT NULL, "
                "email text NOT NULL, country char(2) NOT NULL)"
            )
        await conn.close()
        it.insert = f"INSERT INTO {it.users} (user_id, name, email, country) VALUES ($1, $2, '', 'NL')"
        it.change = f"UPDATE {it.users} SET name = $2 WHERE user_id = $1"
        return it

    async def connect(self, **options):
        return await asyncpg.connect(self.url, **options)

    def user(self):
        self.next_user += 1
        return self.next_user

    async def name(self, conn, user):
        return await conn.fetchval(f"SELECT name FROM {self.users} WHERE user_id = $1", user)

    async def users_of_two_shards(self, conn):
        """Found as a client can: by what Keyway refuses."""
        first = self.user()
        while True:
            second = self.user()
            try:
                async with conn.transaction():
                    for user in (first, second):
                        await conn.execute("SELECT FROM users WHERE user_id = $1 FOR UPDATE", user)
            except errors.FeatureNotSupportedError:
                return first, second


async def fails(check, what, error, awaited):
    try:
        await awaited
    except error as it:
        check.count += 1
        return it
    raise AssertionError(f"{what}: no {error.__name__}")


async def connects_and_tells_what_a_server_tells(target, check):
    conn = await target.connect()
    check.equal("answer", await conn.fetchval("SELECT 1"), 1)
    check.that("server version", conn.get_server_version().major >= 11)
    check.equal("encoding", conn.get_settings().server_encoding, "UTF8")
    check.equal("not in a transaction", conn.is_in_transaction(), False)
    check.that("process id", conn.get_server_pid() > 0)
    check.equal("simple protocol", await conn.execute("SELECT 1; SELECT 2"), "SELECT 1")
    row = await conn.fetchrow("SELECT 1 AS a, 'b'::text AS b, NULL AS c")
    check.equal("a row", dict(row), {"a": 1, "b": "b", "c": None})
    # What the driver sends when a pool takes a connection back.
    await conn.reset()
    check.equal("after reset()", await conn.fetchval("SELECT 1"), 1)
    await conn.close()


async def startup_settings_stay_with_their_client(target, check):
    settings = {"application_name": "it's asyncpg", "work_mem": "3MB", "TimeZone": "Asia/Tokyo"}
    conn, other = await target.connect(server_settings=settings), await target.connect()
    for _ in range(3):
        for name, value in settings.items():
            check.equal(name, await conn.fetchval(f"SHOW {name}"), value)
            check.that(f"another's {name}", await other.fetchval(f"SHOW {name}") != value)
    check.equal("reported", conn.get_settings().TimeZone, "Asia/Tokyo")
    await conn.execute("SET work_mem = '5MB'")
    check.equal("SET", await conn.fetchval("SHOW work_mem"), "5MB")
    await conn.reset()
    check.equal("reset() goes back to startup", await conn.fetchval("SHOW work_mem"), "3MB")
    wrong = target.connect(server_settings={"work_mem": "much"})
    await fails(check, "a wrong setting", errors.InvalidParameterValueError, wrong)
    await conn.close()
    await other.close()


async def settings_stay_with_their_client(target, check):
    one, two = await target.connect(), await target.connect()
    for conn, value in ((one, "11s"), (two, "12s")):
        await conn.execute(f"SET statement_timeout = '{value}'")
    for _ in range(5):
        for conn, value in ((one, "11s"), (two, "12s")):
            check.equal("SHOW", await conn.fetchval("SHOW statement_timeout"), value)
    async with one.transaction():
        await one.execute("SET LOCAL statement_timeout = '13s'")
        check.equal("SET LOCAL", await one.fetchval("SHOW statement_timeout"), "13s")
    check.equal("after it", await one.fetchval("SHOW statement_timeout"), "11s")
    await one.close()
    await two.close()


async def values_survive(target, check):
    conn = await target.connect()
    for type_name, value in VALUES:
        check.equal(type_name, await conn.fetchval(f"SELECT $1::{type_name}", value), value)
        check.equal(f"{type_name}, NULL", await conn.fetchval(f"SELECT $1::{type_name}", None), None)
    row = await conn.fetchrow("SELECT $1::int8 AS a, $2::text AS b, $3::uuid[] AS c", 1, None, [])
    check.equal("several", tuple(row), (1, None, []))
    large = "k" * 3_000_000
    check.that("3 MB", await conn.fetchval("SELECT $1::text", large) == large)
    # A type that the driver has to look up in the catalog, with its own recursive query.
    found = await conn.fetchval("SELECT ARRAY[ROW(1, 'a')]::record[]")
    check.equal("records", [tuple(it) for it in found], [(1, "a")])
    kinds = await conn.fetchval("SELECT $1::information_schema.sql_identifier", "a")
    check.equal("a domain", kinds, "a")
    await conn.close()


async def statements_follow_their_client(target, check):
    """Named statements, more of them than a pool has slots, on servers that change under them."""
    conns = [await target.connect() for _ in range(4)]
    prepared = []
    for index in range(STATEMENTS):
        conn = conns[index % len(conns)]
        prepared.append((index, conn, await conn.prepare(f"SELECT $1::int8 + {index} AS of_{index}")))
    for turn in range(3):
        for index, conn, statement in prepared[turn:] + prepared[:turn]:
            if turn == 1 and index % 10 == 0:
                async with conn.transaction():
                    got = await statement.fetchval(turn)
            else:
                got = await statement.fetchval(turn)
            check.equal(f"statement {index}", got, turn + index)
    check.equal("its columns", [it.name for it in prepared[7][2].get_attributes()], ["of_7"])
    check.equal("its parameters", [it.name for it in prepared[7][2].get_parameters()], ["int8"])
    # What fails in Execute has been prepared all the same.
    divide = await conns[0].prepare("SELECT 100 / $1::int4")
    for _ in range(2):
        await fails(check, "prepared division", errors.DivisionByZeroError, divide.fetchval(0))
        check.equal("prepared division", await divide.fetchval(4), 25)
    # One that the driver throws away to make room, and needs again.
    small = await target.connect(statement_cache_size=3)
    for turn in range(3):
        for index in range(12):
            got = await small.fetchval(f"SELECT $1::text || '{index}'", str(turn))
            check.equal("thrown away", got, f"{turn}{index}")
    none = await target.connect(statement_cache_size=0)
    for turn in range(5):
        check.equal("unnamed", await none.fetchval("SELECT $1::int4 * 2", turn), turn * 2)
    for conn in conns + [small, none]:
        await conn.close()


async def transactions_end_as_told(target, check):
    conn, user = await target.connect(), target.user()
    async with conn.transaction():
        await conn.execute(target.insert, user, "kept")
        check.equal("inside", conn.is_in_transaction(), True)
    check.equal("after COMMIT", await target.name(conn, user), "kept")
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute(target.change, user, "lost")
    check.equal("seen inside", await target.name(conn, user), "lost")
    await transaction.rollback()
    check.equal("after ROLLBACK", await target.name(conn, user), "kept")
    async with conn.transaction():
        await conn.execute(target.change, user, "outer")
        try:
            async with conn.transaction():
                await conn.execute(target.change, user, "inner")
                await conn.execute("SELECT 1/0")
        except errors.DivisionByZeroError:
            check.equal("before ROLLBACK TO", await target.name(conn, user), "outer")
        async with conn.transaction():
            await conn.execute(target.change, user, "inner and kept")
    check.equal("savepoints", await target.name(conn, user), "inner and kept")
    transaction = conn.transaction()
    await transaction.start()
    await fails(check, "error", errors.DivisionByZeroError, conn.fetchval("SELECT 1/$1::int4", 0))
    aborted = target.name(conn, user)
    await fails(check, "in an aborted transaction", errors.InFailedSQLTransactionError, aborted)
    await transaction.rollback()
    check.equal("idle again", conn.is_in_transaction(), False)
    async with conn.transaction(isolation="serializable", readonly=True, deferrable=True):
        # First of all: the snapshot of a serializable transaction is that of one shard.
        check.equal("a key", await target.name(conn, user), "inner and kept")
        check.equal("READ ONLY", await conn.fetchval("SHOW transaction_read_only"), "on")
        check.equal("isolation", await conn.fetchval("SHOW transaction_isolation"), "serializable")
        never = conn.execute(target.change, user, "never")
        await fails(check, "a write in it", errors.ReadOnlySQLTransactionError, never)
        raised = True
    check.that("to its end", raised)
    await conn.close()


async def errors_are_the_servers_own(target, check):
    conn, user = await target.connect(), target.user()
    await conn.execute(target.insert, user, "first")
    error = await fails(check, "a double", errors.UniqueViolationError, conn.execute(target.insert, user, "2"))
    check.equal("SQLSTATE", error.sqlstate, "23505")
    check.equal("its constraint", error.constraint_name, f"{target.users}_pkey")
    check.equal("its detail", error.detail, f"Key (user_id)=({user}) already exists.")
    for run in (conn.execute, conn.fetch):
        error = await fails(check, "syntax", errors.PostgresSyntaxError, run("SELECT 1 FORM x y"))
        check.equal("syntax", (error.sqlstate, error.position), ("42601", "15"))
        check.equal("its words", error.args[0], 'syntax error at or near "x"')
    error = await fails(check, "a table", errors.UndefinedTableError, conn.fetch("SELECT 1 FROM pg_none"))
    check.equal("no table", (error.sqlstate, error.position), ("42P01", "15"))
    for turn in range(3):
        divide = conn.fetchval("SELECT 1 / $1::int4", 0)
        await fails(check, "division", errors.DivisionByZeroError, divide)
        check.equal("usable", await conn.fetchval("SELECT $1::int4", turn), turn)
    await conn.close()


async def many_rows_go_in_one_batch(target, check):
    conn, user = await target.connect(), target.user()
    await conn.execute(target.insert, user, "one")
    await conn.executemany(target.change, [(user, f"name {it}") for it in range(200)])
    check.equal("the last one", await target.name(conn, user), "name 199")
    divide = f"UPDATE {target.users} SET name = (100 / $2::int4)::text WHERE user_id = $1"
    batch = [(user, 5), (user, 4), (user, 0), (user, 2)]
    await fails(check, "a batch", errors.DivisionByZeroError, conn.executemany(divide, batch))
    check.equal("nothing of it", await target.name(conn, user), "name 199")
    rows = await conn.fetchmany("SELECT $1::int8 * 2 AS twice", [(it,) for it in range(5)])
    check.equal("rows of a batch", [it["twice"] for it in rows], [0, 2, 4, 6, 8])
    await conn.close()


async def cursors_fetch_in_parts(target, check):
    conn = await target.connect()
    async with conn.transaction():
        got = [it[0] async for it in conn.cursor("SELECT generate_series(1, $1::int4)", 200, prefetch=7)]
        check.equal("iterated", got, list(range(1, 201)))
        cursor = await conn.cursor("SELECT g FROM generate_series(1, 100) AS g")
        check.equal("first", (await cursor.fetchrow())[0], 1)
        check.equal("many", [it[0] for it in await cursor.fetch(3)], [2, 3, 4])
        check.equal("jump", await cursor.forward(90), 90)
        # Another statement between the parts.
        check.equal("between", await conn.fetchval("SELECT 1"), 1)
        check.equal("the rest", [it[0] for it in await cursor.fetch(50)], [95, 96, 97, 98, 99, 100])
    check.equal("after it", await conn.fetchval("SELECT 1"), 1)
    await conn.close()


async def cancel_ends_a_statement_and_no_more(target, check):
    conn, other = await target.connect(), await target.connect()
    for _ in range(3):
        sleep = conn.fetchval("SELECT pg_sleep(60)", timeout=0.2)
        await fails(check, "timeout", asyncio.TimeoutError, sleep)
        check.equal("usable", await conn.fetchval("SELECT 1"), 1)
        check.equal("another client", await other.fetchval("SELECT 1"), 1)
    task = asyncio.create_task(conn.fetchval("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.2)
    task.cancel()
    await fails(check, "a task given up", asyncio.CancelledError, task)
    check.equal("usable", await conn.fetchval("SELECT 1"), 1)
    await conn.execute("SET statement_timeout = '100ms'")
    await fails(check, "the server's", errors.QueryCanceledError, conn.fetchval("SELECT pg_sleep(60)"))
    await conn.close()
    await other.close()


async def a_pool_shares_connections(target, check):
    async with asyncpg.create_pool(target.url, min_size=2, max_size=8) as pool:

        async def work(index):
            got = []
            for turn in range(5):
                async with pool.acquire() as conn, conn.transaction():
                    got.append(await conn.fetchval("SELECT $1::int4 + $2::int4", index, turn))
            return got

        answers = await asyncio.gather(*(work(it) for it in range(50)))
    check.equal("answers", answers, [[it + turn for turn in range(5)] for it in range(50)])


async def more_clients_than_servers(target, check):
    async def work(index):
        conn, user = await target.connect(), FIRST_USER + 500_000 + index
        await conn.execute(target.insert, user, f"of {index}")
        for turn in range(5):
            async with conn.transaction():
                name = await target.name(conn, user)
                await conn.fetchval("SELECT pg_sleep(0.001)")
                await conn.execute(target.change, user, f"{name} {turn}")
        name = await target.name(conn, user)
        await conn.close()
        return name

    answers = await asyncio.gather(*(work(it) for it in range(CLIENTS)))
    check.equal("answers", answers, [f"of {it} 0 1 2 3 4" for it in range(CLIENTS)])


# Only where there is one shard.


async def types_of_the_users_are_looked_up(target, check):
    conn = await target.connect()
    await conn.execute("CREATE TYPE asyncpg_mood AS ENUM ('sad', 'glad')")
    await conn.execute("CREATE TYPE asyncpg_pair AS (a int, mood asyncpg_mood)")
    check.equal("an enum", await conn.fetchval("SELECT $1::asyncpg_mood", "glad"), "glad")
    pair = await conn.fetchval("SELECT $1::asyncpg_pair[]", [(1, "sad")])
    check.equal("a row type", [tuple(it) for it in pair], [(1, "sad")])
    async with conn.transaction():
        check.equal("inside", await conn.fetchval("SELECT 'sad'::asyncpg_mood"), "sad")
    await conn.set_type_codec("json", encoder=str, decoder=len, schema="pg_catalog")
    check.equal("a codec", await conn.fetchval("SELECT '[1]'::json"), 3)
    await conn.close()


async def copy_goes_in_and_out(target, check):
    conn = await target.connect()
    await conn.execute("CREATE TABLE asyncpg_copied (id int8 PRIMARY KEY, name text, at timestamptz)")
    moment = datetime.datetime(2026, 11, 1, 12, tzinfo=UTC)
    rows = [(it, None if it % 7 == 0 else f"row {it}\n", moment) for it in range(20_000)]
    check.equal("in", await conn.copy_records_to_table("asyncpg_copied", records=rows), "COPY 20000")
    got = await conn.fetch("SELECT id, name, at FROM asyncpg_copied ORDER BY id")
    check.that("all of them", [tuple(it) for it in got] == rows)
    parts = []

    async def take(part):
        parts.append(part)

    query = "SELECT id, name FROM asyncpg_copied WHERE id < $1 ORDER BY id"
    check.equal("out", await conn.copy_from_query(query, 3, output=take, format="csv"), "COPY 3")
    check.equal("its text", b"".join(parts), b'0,\n1,"row 1\n"\n2,"row 2\n"\n')
    check.equal("a table", await conn.copy_from_table("asyncpg_copied", output=take), "COPY 20000")
    double = conn.copy_records_to_table("asyncpg_copied", records=[(1, "a", moment)])
    await fails(check, "a double", errors.UniqueViolationError, double)
    check.equal("usable", await conn.fetchval("SELECT count(*) FROM asyncpg_copied"), len(rows))

    def broken():
        yield (99_999, "a", moment)
        raise ZeroDivisionError

    given_up = conn.copy_records_to_table("asyncpg_copied", records=broken())
    await fails(check, "given up", ZeroDivisionError, given_up)
    check.equal("usable", await conn.fetchval("SELECT count(*) FROM asyncpg_copied"), len(rows))
    await conn.close()


# Only where there are several.


async def keys_choose_the_shard(target, check):
    conn, users = await target.connect(), list(range(1, 60))
    for user in users:
        check.equal("a key", await target.name(conn, user), f"user {user}")
    rows = await conn.fetch("SELECT user_id, name FROM users WHERE user_id = ANY($1::int8[])", users)
    check.equal("= ANY", {it[0]: it[1] for it in rows}, {it: f"user {it}" for it in users})
    dutch = await conn.fetch("SELECT user_id FROM users WHERE country = $1 AND user_id <= 2000", "NL")
    check.equal("over all shards", sorted(it[0] for it in dutch), list(range(250, 2001, 250)))
    moment = datetime.datetime(2025, 12, 31, 23, tzinfo=UTC)
    insert = "INSERT INTO events (occurred_at, user_id, kind) VALUES ($1, $2, 'asyncpg')"
    count = "SELECT count(*) FROM events WHERE occurred_at = $1 AND kind = 'asyncpg'"
    for hours in range(3):
        at = moment + datetime.timedelta(hours=hours)
        await conn.execute(insert, at, 1)
        check.equal("a key of time", await conn.fetchval(count, at), 1)
    for turn in range(8):
        user = target.user()
        async with conn.transaction():
            # Prepared inside, before its key is known.
            statement = await conn.prepare(f"SELECT name, {turn} FROM users WHERE user_id = $1")
            check.equal("nobody", await statement.fetchrow(user), None)
            await conn.execute(target.insert, user, "late")
        check.equal("kept", await target.name(conn, user), "late")
    await conn.close()


async def a_transaction_waits_for_its_first_key(target, check):
    """What names no key must not choose the shard; each user may be on either."""
    for _ in range(8):
        conn, user = await target.connect(), target.user()
        async with conn.transaction():
            # Sent with a row limit.
            check.equal("a constant", await conn.fetchval("SELECT 1"), 1)
            # A type that a new connection has to ask the catalog about.
            asked = await conn.fetchval("SELECT $1::information_schema.sql_identifier", "a")
            check.equal("a domain", asked, "a")
            check.equal("a reference table", await conn.fetchval("SELECT count(*) FROM countries"), 6)
            await conn.execute(target.insert, user, "late")
        check.equal("kept", await target.name(conn, user), "late")
        await conn.close()


async def what_needs_several_shards_is_refused(target, check):
    conn = await target.connect()
    first, second = await target.users_of_two_shards(conn)
    few = await conn.fetch("SELECT user_id FROM users WHERE user_id <= $1 ORDER BY user_id DESC LIMIT $2", 100, 3)
    check.equal("sorted", [row["user_id"] for row in few], [100, 99, 98])
    check.equal("counted", await conn.fetchval("SELECT count(*) FROM users WHERE user_id <= $1", 100), 100)
    # Both ask for one row and leave the others.
    last = "SELECT user_id, name FROM users WHERE user_id <= 100 ORDER BY user_id DESC"
    check.equal("one value", await conn.fetchval(last), 100)
    check.equal("one row", tuple(await conn.fetchrow(last)), (100, "user 100"))
    check.equal("any row", await conn.fetchval("SELECT 1 FROM users WHERE user_id <= 100"), 1)
    refused = [
        lambda: conn.fetch("SELECT row_number() OVER (ORDER BY user_id) FROM users"),
        lambda: conn.fetch("SELECT user_id FROM users FOR UPDATE"),
        lambda: conn.execute("UPDATE users SET name = 'x'"),
        lambda: conn.execute("DELETE FROM users WHERE user_id = ANY($1::int8[])", [first, second]),
        lambda: conn.execute("INSERT INTO users (name, email, country) VALUES ('a', 'b', 'NL')"),
        lambda: conn.executemany(target.insert, [(first, "a"), (second, "b")]),
        lambda: conn.copy_records_to_table("users", records=[(it, "a", "", "NL") for it in (first, second)]),
        lambda: conn.execute("CREATE TEMPORARY TABLE asyncpg_mine (a int)"),
    ]
    for index, run in enumerate(refused):
        error = await fails(check, f"refused[{index}]", errors.FeatureNotSupportedError, run())
        check.equal("SQLSTATE", error.sqlstate, "0A000")
        check.that("its hint", error.hint)
        check.equal("goes on", await conn.fetchval("SELECT $1::int4", index), index)
    async with conn.transaction():
        check.equal("in a transaction", await conn.fetchval(last), 100)
        async with conn.transaction():
            check.equal("one row", tuple(await conn.fetchrow(last)), (100, "user 100"))
        check.equal("names", [await target.name(conn, it) for it in (7, 8, 9)], ["user 7", "user 8", "user 9"])
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute(target.insert, first, "lost")
    elsewhere = conn.execute(target.insert, second, "never")
    await fails(check, "two shards", errors.FeatureNotSupportedError, elsewhere)
    here = target.name(conn, first)
    await fails(check, "in an aborted transaction", errors.InFailedSQLTransactionError, here)
    await transaction.rollback()
    check.equal("nothing of it", [await target.name(conn, it) for it in (first, second)], [None, None])
    await conn.close()


EVERYWHERE = [
    connects_and_tells_what_a_server_tells,
    startup_settings_stay_with_their_client,
    settings_stay_with_their_client,
    values_survive,
    statements_follow_their_client,
    transactions_end_as_told,
    errors_are_the_servers_own,
    many_rows_go_in_one_batch,
    cursors_fetch_in_parts,
    cancel_ends_a_statement_and_no_more,
    a_pool_shares_connections,
    more_clients_than_servers,
]
UNSHARDED = [types_of_the_users_are_looked_up, copy_goes_in_and_out]
async def cursors_read_several_shards(target, check):
    conn = await target.connect()
    query = "SELECT user_id, name FROM users WHERE user_id <= $1 ORDER BY user_id DESC"
    expected = [(it, f"user {it}") for it in range(120, 0, -1)]
    async with conn.transaction():
        rows = [tuple(it) async for it in conn.cursor(query, 120, prefetch=17)]
        check.equal("iterated", rows, expected)
        cursor = await conn.cursor(query, 120)
        check.equal("one", tuple(await cursor.fetchrow()), expected[0])
        check.equal("a statement in between", await target.name(conn, 7), "user 7")
        check.equal("many", [tuple(it) for it in await cursor.fetch(50)], expected[1:51])
        check.equal("past some", await cursor.forward(9), 9)
        check.equal("the rest", [tuple(it) for it in await cursor.fetch(1000)], expected[60:])
    await conn.close()


SHARDED = [
    keys_choose_the_shard,
    a_transaction_waits_for_its_first_key,
    what_needs_several_shards_is_refused,
    cursors_read_several_shards,
]


async def main(url):
    check, target = Checks(), await Target.of(url)
    for step in EVERYWHERE + (SHARDED if target.database == "shop" else UNSHARDED):
        print(step.__name__, flush=True)
        await step(target, check)
    check.finish()


asyncio.run(main(sys.argv[1]))
