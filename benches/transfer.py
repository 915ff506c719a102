#!/usr/bin/env python3
"""Large results and COPY through Keyway, beside the other proxies: MB per second, and CPU seconds of the proxy per GB.

Starts a PostgreSQL of its own, PgBouncer, HAProxy in TCP mode and Keyway, as benches/e2e.py does, and moves the same rows
through each in turn, in both directions, over one connection. The client looks at no more bytes than it must.

    benches/transfer.py             the table, about a minute
    benches/transfer.py --write     and puts it into docs/performance.md
"""

import argparse
import statistics
import struct
import sys
import time

import proxies
import shards

BEGIN, END = "<!-- transfer:begin -->", "<!-- transfer:end -->"
ROWS = 400_000
SCHEMA = f"""CREATE TABLE big (id integer, filler text);
INSERT INTO big SELECT id, repeat('x', 240) FROM generate_series(1, {ROWS}) id;
CREATE TABLE sink (LIKE big);"""
BY_ROW = "COPY FROM STDIN, a message for each row"
KINDS = ("SELECT", "COPY TO STDOUT", "COPY FROM STDIN", BY_ROW)


class Transfer(proxies.Bench):
    auth = "trust"

    def start_postgres(self):
        super().start_postgres()
        problem = self.psql(self.ports["postgres"], "bench", SCHEMA)[1]
        if problem:
            raise proxies.Failure(problem)

    def moved(self, target, kind):
        """Bytes, seconds, and CPU seconds of the proxy."""
        client = shards.Client(target.port)
        before, started = proxies.cpu_seconds(target.pid), time.monotonic()
        if kind == "SELECT":
            _, size = client.read("SELECT * FROM big")
        elif kind == "COPY TO STDOUT":
            client.send(b"Q", b"COPY big TO STDOUT\0")
            size, _ = client.until(shards.READY)
        else:
            _, size = client.copy_in("sink", *((self.by_row, True) if kind == BY_ROW else (self.file,)))
        seconds, spent = time.monotonic() - started, proxies.cpu_seconds(target.pid) - before
        client.stream.close()
        if kind.startswith("COPY FROM"):
            self.psql(self.ports["postgres"], "bench", "TRUNCATE sink")
        return size, seconds, spent

    def measure(self):
        self.file = self.directory / "big.copy"
        command = [self.bin / "psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(self.ports["postgres"]), "-U", proxies.USER,
                   "-d", "bench", "-c", f"\\copy big TO '{self.file}'"]
        self.run(command, env=proxies.client_environment())
        self.by_row = self.directory / "rows.copy"
        with open(self.file, "rb") as rows, open(self.by_row, "wb") as messages:
            messages.writelines(b"d" + struct.pack("!I", len(row) + 4) + row for row in rows)
        targets = [it for it in self.targets if it.name in ("direct", "keyway", "pgbouncer", "haproxy")]
        found = {}
        for index in range(self.arguments.rounds):
            for kind in KINDS:
                turn = index % len(targets)
                for target in targets[turn:] + targets[:turn]:
                    self.check()
                    found.setdefault((kind, target.name), []).append(self.moved(target, kind))
        return [it.name for it in targets], found


def report(bench, names, found):
    lines = [
        f"Measured on {proxies.today()}: {proxies.processor()}, all on this machine. {proxies.version_of(bench.arguments.keyway, '--version').capitalize()}"
        f"{proxies.commit(bench.arguments.keyway)}, {proxies.version_of(bench.pgbouncer, '--version')}; {ROWS:,} rows, median of "
        f"{bench.arguments.rounds} rounds.",
        "",
        "| | target | MB | MB/s | CPU s per GB |",
        "|---|---|--:|--:|--:|",
    ]
    medians = {}
    for kind in KINDS:
        for name in names:
            runs = found[kind, name]
            size = runs[0][0] / 1e6
            speed = statistics.median(run[0] / 1e6 / run[1] for run in runs)
            cpu = statistics.median(run[2] * 1e9 / run[0] for run in runs)
            medians[kind, name] = speed, cpu
            lines.append(f"| {kind} | {name} | {size:.0f} | {speed:.0f} | {'' if name == 'direct' else f'{cpu:.2f}'} |")
    goals = []
    for kind in KINDS:
        (own_speed, own_cpu), (speed, cpu) = medians[kind, "keyway"], medians[kind, "haproxy"]
        goals.append(proxies.Goal(f"MB/s of HAProxy's, {kind}", "at least", 1.0, own_speed / speed))
        goals.append(proxies.Goal(f"CPU per GB of HAProxy's, {kind}", "at most", 1.0, own_cpu / cpu if cpu else None))
    return "\n".join([*lines, "", *proxies.goal_lines(goals)]) + "\n"


def main():
    parser = argparse.ArgumentParser(description="large results and COPY through Keyway and others")
    proxies.add_programs(parser)
    parser.add_argument("--rounds", type=proxies.positive, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    proxies.stop_by_signals()
    arguments.scale, arguments.threads, arguments.seconds = 1, 1, 1
    arguments.keyway = arguments.keyway.resolve()
    return proxies.table_of("transfer", arguments, Transfer, lambda bench: report(bench, *bench.measure()), (BEGIN, END))


if __name__ == "__main__":
    sys.exit(main())
