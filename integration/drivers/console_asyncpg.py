"""The console by asyncpg, which knows only the extended protocol and binary values: console_asyncpg.py URL"""

import asyncio
import sys

import asyncpg


async def main():
    connection = await asyncpg.connect(sys.argv[1])
    for _ in range(2):
        row = await connection.fetchrow("SHOW DATABASES")
        assert row["name"] == "plain" and row["pool_size"] == 6 and row["force_user"] is None, row
    statement = await connection.prepare("SHOW LISTS")
    assert [it.name for it in statement.get_attributes()] == ["list", "items"]
    assert dict(await statement.fetch())["databases"] == 1
    assert await connection.fetchval("SHOW VERSION") == (await connection.fetch("SHOW VERSION"))[0]["version"]
    assert await connection.execute("PAUSE") == "PAUSE"
    await connection.fetch("RESUME")
    try:
        await connection.fetch("SHOW NOTHING")
        raise AssertionError("no error")
    except asyncpg.PostgresSyntaxError as error:
        assert error.hint == "SHOW HELP lists what it knows"
    async with connection.transaction():
        assert len(await connection.fetch("SHOW CLIENTS")) == 1
    await connection.close()


asyncio.run(main())
print("done")
