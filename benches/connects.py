#!/usr/bin/env python3
"""Connect, log in (SCRAM-SHA-256, no TLS), one statement, the end: how many per second, and what each costs the proxy.

Starts a PostgreSQL of its own, PgBouncer, HAProxy in TCP mode and Keyway, as benches/e2e.py does. Two kinds of clients: `pgbench -C`
on one thread, which derives the keys of its password for each connection, longer than any proxy takes; and benches/connects.rs, which keeps them.

    cargo build --release --example connects
    benches/connects.py             the table, a minute
    benches/connects.py --write     and puts it into docs/performance.md
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

import proxies
from turns import cpu_seconds

BEGIN, END = "<!-- connects:begin -->", "<!-- connects:end -->"
KEPT, DERIVED = "keys kept", "pgbench -C"
# Of each kind: fewer than a pool holds, so that nobody waits for a server.
CLIENTS = {KEPT: 16, DERIVED: 4}
NAMES = ("direct", "keyway", "pgbouncer", "haproxy")
STATEMENT = "SELECT abalance FROM pgbench_accounts WHERE aid = 1"


class Connects(proxies.Bench):
    def connected(self, target, kind):
        """Connections per second, and CPU microseconds of the proxy for each."""
        before = cpu_seconds(target.pid)
        seconds, clients = self.arguments.seconds, CLIENTS[kind]
        if kind == KEPT:
            out = self.run([self.arguments.client, f"127.0.0.1:{target.port}", target.database, proxies.USER, proxies.PASSWORD,
                            clients, seconds, STATEMENT])
            count = proxies.number(r"(\d+) connections", out)
            rate = count / proxies.number(r"in ([\d.]+) s", out)
        else:
            count, out = self.pgbench(target, "simple", clients, ["-C", "-T", seconds])
            rate = proxies.number(r"tps = ([\d.]+)", out)
        return rate, (cpu_seconds(target.pid) - before) * 1e6 / count

    def measure(self):
        targets = [it for it in self.targets if it.name in NAMES]
        found = {}
        for index in range(self.arguments.rounds):
            for kind in CLIENTS:
                turn = index % len(targets)
                for target in targets[turn:] + targets[:turn]:
                    self.check()
                    found.setdefault((kind, target.name), []).append(self.connected(target, kind))
        return found


def report(bench, found):
    rounds = bench.arguments.rounds
    lines = [
        f"Measured on {proxies.today()}: {proxies.processor()}, all on this machine. {proxies.version_of(bench.arguments.keyway, '--version').capitalize()}"
        f"{proxies.commit(bench.arguments.keyway)}, {proxies.version_of(bench.pgbouncer, '--version')}; median of "
        f"{rounds} round{proxies.plural(rounds)} of {bench.arguments.seconds} s.",
        "",
        "| clients | target | connects per second | CPU us of the proxy for each |",
        "|---|---|--:|--:|",
    ]
    medians = {}
    for kind in CLIENTS:
        for name in NAMES:
            rate, cost = medians[kind, name] = [statistics.median(it) for it in zip(*found[kind, name])]
            lines.append(f"| {CLIENTS[kind]}, {kind} | {name} | {rate:.0f} | {'' if name == 'direct' else f'{cost:.0f}'} |")
    (rate, cost), (other_rate, other_cost) = medians[KEPT, "keyway"], medians[KEPT, "pgbouncer"]
    goals = [proxies.Goal("connects per second of PgBouncer's, keys kept", "at least", 1.5, rate / other_rate)]
    lines += ["", *proxies.goal_lines(goals), "", f"A connection costs Keyway {cost / other_cost:.2f} of what it costs PgBouncer."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description="connects per second through Keyway and others")
    proxies.add_programs(parser)
    parser.add_argument("--client", type=Path, default=proxies.ROOT / "target" / "release" / "examples" / "connects",
                        help="of `cargo build --release --example connects`")
    parser.add_argument("--rounds", type=proxies.positive, default=5)
    parser.add_argument("--seconds", type=proxies.positive, default=2, help="of each target in each round (2)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    if not os.access(arguments.client, os.X_OK):
        parser.error(f"{arguments.client} is no program; cargo build --release --example connects makes it")
    proxies.stop_by_signals()
    arguments.scale, arguments.threads = 1, 1
    arguments.keyway, arguments.client = arguments.keyway.resolve(), arguments.client.resolve()
    return proxies.table_of("connects", arguments, Connects, lambda bench: report(bench, bench.measure()), (BEGIN, END))


if __name__ == "__main__":
    sys.exit(main())
