"""asyncpg through Keyway: with_asyncpg.py SHARDED_URL PLAIN_URL. Ends with the number of checks.

asyncpg prepares everything under names of its own and reads the catalog for types that it does not know."""

import asyncio
import datetime
import decimal
import sys
import uuid

import asyncpg

SHARDED, PLAIN = sys.argv[1], sys.argv[2]
USER_ID = 920_001
checks = 0


def check(what, got, want):
    global checks
    checks += 1
    if got != want:
        sys.exit(f"{what}: got {got!r}, want {want!r}")


async def fails(what, state, awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as error:
        check(what, error.sqlstate, state)
        return error
    sys.exit(f"{what}: no error")


async def values(conn):
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
    sql = "SELECT $1::int, $2::int8, $3::text, $4::numeric, $5::timestamptz, $6::uuid, $7::bytea, $8::text, $9::int[], $10::bool"
    for _ in range(3):
        check("values", tuple(await conn.fetchrow(sql, *row)), row)


async def types(conn):
    await conn.execute("DROP TYPE IF EXISTS drv_mood; CREATE TYPE drv_mood AS ENUM ('sad', 'glad')")
    check("an enum", await conn.fetchval("SELECT $1::drv_mood", "glad"), "glad")
    check("an array of it", await conn.fetchval("SELECT ARRAY['sad', 'glad']::drv_mood[]"), ["sad", "glad"])
    check("a range", (await conn.fetchval("SELECT int4range(1, 5)")).upper, 5)
    await conn.execute("DROP TYPE drv_mood")


async def transactions(conn):
    await conn.execute("DROP TABLE IF EXISTS drv_asyncpg; CREATE TABLE drv_asyncpg (id int PRIMARY KEY, t text)")
    async with conn.transaction():
        await conn.execute("INSERT INTO drv_asyncpg VALUES ($1, $2)", 1, "kept")
        try:
            async with conn.transaction():
                await conn.execute("INSERT INTO drv_asyncpg VALUES (2, 'not kept')")
                raise ValueError
        except ValueError:
            pass
    async with conn.transaction(isolation="serializable", readonly=True):
        check("a read only transaction", await conn.fetchval("SELECT count(*) FROM drv_asyncpg"), 1)
        await fails("a write in it", "25006", conn.execute("DELETE FROM drv_asyncpg"))
    check("rows", [it["id"] for it in await conn.fetch("SELECT id FROM drv_asyncpg")], [1])


async def errors(conn):
    await fails("unique violation", "23505", conn.execute("INSERT INTO drv_asyncpg VALUES ($1, 'again')", 1))
    await fails("syntax error", "42601", conn.fetch("SELEC 1"))
    await fails("division by zero", "22012", conn.fetch("SELECT 1 / $1::int", 0))
    check("after errors", await conn.fetchval("SELECT 1"), 1)


async def many(conn):
    await conn.executemany("INSERT INTO drv_asyncpg VALUES ($1, $2)", [(n, "many") for n in range(100, 1100)])
    check("executemany", await conn.fetchval("SELECT count(*) FROM drv_asyncpg WHERE id >= 100"), 1000)
    await fails(
        "executemany is one transaction",
        "23505",
        conn.executemany("INSERT INTO drv_asyncpg VALUES ($1, $2)", [(9000, "new"), (100, "taken")]),
    )
    check("nothing of it stayed", await conn.fetchval("SELECT count(*) FROM drv_asyncpg WHERE id = 9000"), 0)
    rows = [(n, "x" * 200) for n in range(10_000, 15_000)]
    check("copied in", await conn.copy_records_to_table("drv_asyncpg", records=rows), "COPY 5000")
    got = bytearray()

    async def take(data):
        got.extend(data)

    result = await conn.copy_from_query("SELECT id FROM drv_asyncpg WHERE id >= $1 ORDER BY id", 10_000, output=take)
    check("copied out", (result, got.split()[0], got.split()[-1]), ("COPY 5000", b"10000", b"14999"))
    async with conn.transaction():
        cursor = conn.cursor("SELECT id FROM drv_asyncpg WHERE id >= 10000 ORDER BY id", prefetch=100)
        check("a cursor", [it["id"] async for it in cursor], list(range(10_000, 15_000)))


async def timeouts(conn):
    try:
        await conn.fetch("SELECT pg_sleep(30)", timeout=0.3)
        sys.exit("no time-out")
    except asyncio.TimeoutError:
        pass
    check("after a time-out", await conn.fetchval("SELECT 6"), 6)


async def statements(url):
    """More statements than pool slots and connections, each on several servers in turn."""
    one, other = await asyncpg.connect(url), await asyncpg.connect(url)
    left = [await one.prepare(f"SELECT $1::int + {n}") for n in range(40)]
    right = [await other.prepare(f"SELECT $1::int + {n} + 1000") for n in range(40)]
    for turn in range(3):
        for n in range(40):
            check("a prepared statement", await left[n].fetchval(turn), turn + n)
            check("the other's", await right[n].fetchval(turn), turn + n + 1000)
    check("attributes", [it.type.name for it in left[0].get_attributes()], ["int4"])
    await one.close()
    await other.close()


async def pools(url):
    async with asyncpg.create_pool(url, min_size=5, max_size=30, server_settings={"application_name": "drv asyncpg"}) as pool:

        async def work(n):
            async with pool.acquire() as conn:
                await conn.execute("SET statement_timeout = 54321")
                return await conn.fetchval("SELECT $1::int + length(current_setting('application_name'))", n)

        if url == PLAIN:
            got = await asyncio.gather(*(work(n) for n in range(200)))
            check("a driver's own pool", got, [n + 11 for n in range(200)])
        async with pool.acquire() as conn:
            # The driver resets a connection with RESET ALL among others.
            check("reset by the pool", await conn.fetchval("SHOW statement_timeout"), "0")
            check("application name", await conn.fetchval("SHOW application_name"), "drv asyncpg")


async def sharded(conn):
    for table in ("orders", "users"):
        await conn.execute(f"DELETE FROM {table} WHERE user_id = $1", USER_ID)
    await conn.execute("INSERT INTO users (user_id, name, email, country) VALUES ($1, $2, 'e', 'NL')", USER_ID, "asyncpg")
    async with conn.transaction():
        await conn.execute("INSERT INTO orders (user_id, amount) VALUES ($1, $2)", USER_ID, decimal.Decimal("3.50"))
        check("in a transaction", await conn.fetchval("SELECT amount FROM orders WHERE user_id = $1", USER_ID), decimal.Decimal("3.50"))
    for key in range(1, 200):
        check("each key", await conn.fetchval("SELECT user_id FROM users WHERE user_id = $1", key), key)
    found = await conn.fetch("SELECT user_id FROM users WHERE user_id = ANY($1::bigint[])", [1, 2, 3, 4, 5])
    check("a list over shards", sorted(it[0] for it in found), [1, 2, 3, 4, 5])
    error = await fails("a refusal", "0A000", conn.fetch("SELECT count(*) FROM users"))
    check("it has a hint", bool(error.hint), True)
    check("after a refusal", await conn.fetchval("SELECT 7"), 7)
    for table in ("orders", "users"):
        await conn.execute(f"DELETE FROM {table} WHERE user_id = $1", USER_ID)


async def main():
    plain = await asyncpg.connect(PLAIN)
    await values(plain)
    await types(plain)
    await transactions(plain)
    await errors(plain)
    await many(plain)
    await timeouts(plain)
    await plain.execute("DROP TABLE drv_asyncpg")
    await plain.close()
    conn = await asyncpg.connect(SHARDED)
    await values(conn)
    await sharded(conn)
    await timeouts(conn)
    await conn.close()
    for url in (PLAIN, SHARDED):
        await statements(url)
        await pools(url)
    print(f"{checks} checks")


asyncio.run(main())
