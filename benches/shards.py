#!/usr/bin/env python3
"""What four shards cost: rows merged in order and COPY split, beside one PostgreSQL with the same rows.

Starts five PostgreSQL servers (four shards and one that holds everything) and Keyway, on free ports and in one
temporary directory. Loads a table of wide rows and one of narrow rows through COPY, then reads each of them back
sorted by its key.

    benches/shards.py                         1,000,000 wide rows and 10,000,000 narrow ones, some minutes
    benches/shards.py --wide 20000 --narrow 100000     does it all work? half a minute
    benches/shards.py --write                 and puts the table into docs/performance.md

MB are 10^6 bytes as they pass the client's socket. Keyway's memory is how much its peak resident set, reset before each
run, lies above what it was at rest before.
"""

import argparse
import signal
import socket
import statistics
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import proxies

SHARDS = 4
BEGIN, END = "<!-- shards:begin -->", "<!-- shards:end -->"
SEND_BYTES = 256 * 1024
TIMEOUT_S = 600
ROWS_IN_TURN = 20_000
READY = b"Z\0\0\0\x05I"

TABLES = """CREATE TABLE wide (id bigint PRIMARY KEY, name text NOT NULL, padding text NOT NULL);
CREATE TABLE narrow (id bigint, value integer)"""

KEYWAY = """listen = "127.0.0.1:{keyway}"
admin = "127.0.0.1:{admin}"
[users.bench]
password = "bench"
auth = "trust"
[databases.bench]
cross_shard_writes = "one_phase"
{shards}
[databases.bench.maps.by_id]
kind = "hash"
type = "bigint"
[databases.bench.tables.wide]
map = "by_id"
key = "id"
[databases.bench.tables.narrow]
map = "by_id"
key = "id"
"""


@dataclass(frozen=True)
class Run:
    rows: int
    megabytes: float
    seconds: float
    # Of Keyway; None where it does not stand in between.
    cpu_seconds: float | None
    peak_megabytes: float | None


class Shards(proxies.Bench):
    """`ports` has one of the single server under "postgres", and those of the shards under "s1" to "s4"."""

    def __init__(self, arguments):
        super().__init__(arguments)
        self.names = [f"s{it + 1}" for it in range(SHARDS)]
        self.ports |= dict(zip(self.names, proxies.free_ports(SHARDS)))

    def start_postgres(self):
        as_owner = {} if self.owner is None else {
            "user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []}
        template = self.directory / "template"
        self.run([self.bin / "initdb", "-D", template, "-U", "postgres", "--auth=trust", "--encoding=UTF8",
                  "--locale=C", "--no-sync"], env=proxies.environment(), **as_owner)
        for name in ["postgres", *self.names]:
            data = self.directory / name
            self.run(["cp", "-a", template, data])
            settings = {
                "port": self.ports[name], "listen_addresses": "127.0.0.1", "unix_socket_directories": self.directory,
                "shared_buffers": "64MB", "work_mem": "64MB", "max_wal_size": "4GB", "fsync": "off",
                "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": 0, "autovacuum": "off", "jit": "off",
                # Sorting is the servers' work and not what is measured: one process each, as on a machine of its own.
                "max_parallel_workers_per_gather": 0,
            }
            options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
            self.start(name, [self.bin / "postgres", "-D", data, *options], self.owner, signal.SIGINT)
        for name in ["postgres", *self.names]:
            port = self.ports[name]
            self.wait_until(name, lambda: self.psql(port, "postgres", "SELECT 1", user="postgres")[1])
            for database, text in [("postgres", f"CREATE ROLE {proxies.USER} LOGIN SUPERUSER PASSWORD '{proxies.PASSWORD}'"),
                                   ("postgres", f"CREATE DATABASE bench OWNER {proxies.USER}"), ("bench", TABLES)]:
                problem = self.psql(port, database, text, user="postgres" if database == "postgres" else proxies.USER)[1]
                if problem:
                    raise proxies.Failure(f"{text}: {problem}")

    def start_proxies(self):
        shards = "\n".join(
            f'[databases.bench.shards.{it}]\nservers = ["127.0.0.1:{self.ports[it]}"]' for it in self.names)
        toml = self.write("keyway.toml", KEYWAY.format(shards=shards, **self.ports))
        self.keyway = self.start("keyway", [self.arguments.keyway, "run", "--config", toml])
        ask = lambda: self.psql(self.ports["keyway"], "bench", "SELECT count(*) FROM wide")[1]
        self.wait_until("keyway", ask)

    def resident_kb(self, line):
        lines = Path(f"/proc/{self.keyway.pid}/status").read_text().splitlines()
        return next(int(it.split()[1]) for it in lines if it.startswith(line))

    def watched(self, through_keyway, work):
        """Runs `work`, which gives rows and bytes."""
        pid = self.keyway.pid
        # 5 resets the peak (proc(5), clear_refs).
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before, cpu, started = self.resident_kb("VmRSS:"), proxies.cpu_seconds(pid), time.monotonic()
        rows, size = work()
        seconds = time.monotonic() - started
        if not through_keyway:
            return Run(rows, size / 1e6, seconds, None, None)
        peak = (self.resident_kb("VmHWM:") - before) * 1024 / 1e6
        return Run(rows, size / 1e6, seconds, proxies.cpu_seconds(pid) - cpu, peak)


class Client:
    """A connection that looks at no more than what it needs, so that it is never the slow one."""

    def __init__(self, port):
        self.stream = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        body = struct.pack("!I", 3 << 16) + b"user\0bench\0database\0bench\0\0"
        self.stream.sendall(struct.pack("!I", len(body) + 4) + body)
        self.buffer = bytearray(1 << 20)
        self.until(READY)

    def send(self, tag, body):
        self.stream.sendall(tag + struct.pack("!I", len(body) + 4) + body)

    def until(self, end):
        """How many bytes come up to `end`, and the last of them."""
        size, tail = 0, b""
        while not tail.endswith(end):
            count = self.stream.recv_into(self.buffer)
            if count == 0:
                raise proxies.Failure(f"connection closed behind {tail!r}")
            size += count
            tail = (tail + self.buffer[max(0, count - 400):count])[-400:]
            if tail.startswith(b"E\0") and size < 400:
                raise proxies.Failure(tail.decode(errors="replace"))
        return size, tail

    def tag(self, tail, word):
        at = tail.rfind(word)
        if at < 0:
            raise proxies.Failure(f"no {word!r} at the end of the answer: {tail!r}")
        return int(tail[at + len(word):tail.index(b"\0", at)])

    def read(self, text):
        self.send(b"Q", text.encode() + b"\0")
        size, tail = self.until(READY)
        return self.tag(tail, b"SELECT "), size

    def copy_in(self, table, path, messages=False):
        """With `messages` the file holds CopyData messages, not what is to be in them."""
        self.send(b"Q", f"COPY {table} FROM STDIN\0".encode())
        if self.stream.recv(1) != b"G":
            raise proxies.Failure(f"COPY {table} is refused: {self.stream.recv(400)!r}")
        length = struct.unpack("!I", self.stream.recv(4, socket.MSG_WAITALL))[0]
        self.stream.recv(length - 4, socket.MSG_WAITALL)
        size = 0
        with open(path, "rb") as file:
            while chunk := file.read(SEND_BYTES):
                if messages:
                    self.stream.sendall(chunk)
                else:
                    self.send(b"d", chunk)
                size += len(chunk)
        self.send(b"c", b"")
        _, tail = self.until(READY)
        return self.tag(tail, b"COPY "), size


def rows_of(bench, name, count, row):
    path = bench.directory / f"{name}.copy"
    with open(path, "w") as file:
        for first in range(0, count, ROWS_IN_TURN):
            # Not in the order of the key, so that sorting has something to do; a step that shares no factor with the
            # count visits each number once.
            file.write("".join(row(it) for it in range(first, min(first + ROWS_IN_TURN, count))))
    return path


def measure(bench):
    """(what, target) to its run."""
    arguments, runs = bench.arguments, {}
    targets = [("one PostgreSQL", "postgres"), ("keyway, 4 shards", "keyway")]
    wide = rows_of(bench, "wide", arguments.wide, lambda it: f"{it}\tcustomer-{it:08}\t{'.' * 60}\n")
    step = next(it for it in range(7_368_787, 8_000_000) if arguments.narrow % it)
    narrow = rows_of(bench, "narrow", arguments.narrow,
                     lambda it: f"{it * step % arguments.narrow}\t{it & 0xFFFF}\n")
    works = [
        ("COPY, wide rows", lambda it: it.copy_in("wide", wide)),
        ("COPY, narrow rows", lambda it: it.copy_in("narrow", narrow)),
        ("sorted, wide rows", lambda it: it.read("SELECT id, name, padding FROM wide ORDER BY id")),
        ("sorted, narrow rows", lambda it: it.read("SELECT id, value FROM narrow ORDER BY id")),
    ]
    for what, work in works:
        repeats = arguments.rounds if what.startswith("sorted") else 1
        for _ in range(repeats):
            for target, port in targets:
                bench.check()
                client = Client(bench.ports[port])
                run = bench.watched(port == "keyway", lambda: work(client))
                client.stream.close()
                expected = arguments.wide if "wide" in what else arguments.narrow
                if run.rows != expected:
                    raise proxies.Failure(f"{what}, {target}: {run.rows} rows instead of {expected}")
                runs.setdefault((what, target), []).append(run)
                print(f"{what}: {target}: {run}", file=sys.stderr)
    return runs


def report(bench, runs):
    arguments = bench.arguments
    lines = [
        f"Measured on {proxies.today()}: {proxies.processor()}, {proxies.os.cpu_count()} cores, all on this machine. "
        f"Keyway{proxies.commit(arguments.keyway)}, {proxies.version_of(bench.bin / 'postgres', '-V')}; medians of "
        f"{arguments.rounds} rounds where rows are read, one run of each COPY.",
        "",
        "| | target | rows | MB | rows per second | MB/s | Keyway's CPU s per GB | Keyway's memory, MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (what, target), all_of in runs.items():
        middle = lambda name: statistics.median(getattr(it, name) for it in all_of)
        rows, megabytes, seconds = middle("rows"), middle("megabytes"), middle("seconds")
        own = ["", ""]
        if all_of[0].cpu_seconds is not None:
            own = [f"{middle('cpu_seconds') / megabytes * 1000:.2f}", f"{middle('peak_megabytes'):.1f}"]
        lines.append(f"| {what} | {target} | {rows:,.0f} | {megabytes:.1f} | {rows / seconds:,.0f} | "
                     f"{megabytes / seconds:.1f} | {' | '.join(own)} |")
    return "\n".join(lines) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyway", type=Path, default=proxies.ROOT / "target/release/keyway", help="the program")
    parser.add_argument("--wide", type=proxies.positive, default=1_000_000, help="rows")
    parser.add_argument("--narrow", type=proxies.positive, default=10_000_000, help="rows")
    parser.add_argument("--rounds", type=proxies.positive, default=3, help="how often rows are read")
    parser.add_argument("--run-as", default="postgres", help="whose PostgreSQL is, where we are root")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    proxies.stop_by_signals()
    arguments.keyway = arguments.keyway.resolve()
    return arguments


def main():
    return proxies.table_of("shards", parse_arguments(), Shards, lambda bench: report(bench, measure(bench)), (BEGIN, END))


if __name__ == "__main__":
    sys.exit(main())
