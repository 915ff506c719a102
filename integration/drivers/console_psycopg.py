"""The console by psycopg, in each of its ways to ask: console_psycopg.py URL"""

import sys

import psycopg

url = sys.argv[1]

# A transaction of its own around the first statement, as psycopg begins by itself.
with psycopg.connect(url) as connection:
    for binary in (False, True):
        for prepare in (False, True):
            cursor = connection.cursor(binary=binary)
            cursor.execute("SHOW DATABASES", prepare=prepare)
            names = [it.name for it in cursor.description]
            row = dict(zip(names, cursor.fetchone()))
            assert row["name"] == "plain" and row["pool_size"] == 6, row
            assert row["force_user"] is None and cursor.fetchone() is None
    cursor.execute("PAUSE")
    cursor.execute("RESUME")
    try:
        cursor.execute("SHOW NOTHING")
        raise AssertionError("no error")
    except psycopg.errors.SyntaxError as error:
        assert error.diag.message_hint == "SHOW HELP lists what it knows"
    connection.rollback()
    assert connection.execute("SHOW VERSION").fetchone()[0].startswith("keyway ")

with psycopg.connect(url, autocommit=True) as connection:
    with connection.pipeline():
        first = connection.execute("SHOW VERSION")
        second = connection.execute("SHOW LISTS")
        assert first.fetchone()[0].startswith("keyway ") and ("databases", 1) in second.fetchall()

with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
    assert connection.execute("SHOW STATE; SHOW VERSION").fetchone() == ("active", "yes")

print("done")
