#!/usr/bin/env python3
"""Which share of reads leaves the primary at each level of consistency, and what that costs.

Starts a PostgreSQL with a streaming replica and Keyway before both, and has pgbench read and update rows of one table by
their key, in two mixes and with even and with skewed keys. The shares are Keyway's own counts (keyway_reads_total).

    benches/replica_reads.py                5 seconds for each cell
    benches/replica_reads.py --seconds 2 --write
"""

import argparse
import re
import sys
import urllib.request
from pathlib import Path

import proxies

BEGIN, END = "<!-- replicas:begin -->", "<!-- replicas:end -->"
LEVELS = ("global", "session", "eventual", "primary")
ROWS = 100_000
CLIENTS = 16
KEYS = {"even": f"random(1, {ROWS})", "Zipf (1.2)": f"random_zipfian(1, {ROWS}, 1.2)"}
READS_PERCENT = (95, 50)

SCRIPT = """\\set way random(1, 100)
\\set aid {keys}
\\if :way <= {reads_percent}
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
\\else
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
\\endif
"""

KEYWAY = """listen = "127.0.0.1:{keyway}"
admin = "127.0.0.1:{admin}"
[users.bench]
password = "bench"
auth = "trust"
"""
DATABASE = """[databases.{name}]
dbname = "bench"
servers = ["127.0.0.1:{postgres}", "127.0.0.1:{replica}"]
consistency = "{name}"
"""


class ReplicaReads(proxies.Bench):
    def start_proxies(self):
        self.ports["replica"] = proxies.free_ports(1)[0]
        self.start_replica()
        databases = "".join(DATABASE.format(name=it, **self.ports) for it in LEVELS)
        toml = self.write("keyway.toml", KEYWAY.format(**self.ports) + databases)
        self.keyway = self.start("keyway", [self.arguments.keyway, "run", "--config", toml])
        for level in LEVELS:
            self.wait_until(level, lambda: self.psql(self.ports["keyway"], level, "SELECT 1")[1])
        # Keyway knows the table's key, and has measured the replica.
        self.wait_until("a read of the replica", lambda: self.not_read("global", "replica"))

    def start_replica(self):
        data, local = self.directory / "replica", str(self.directory)
        as_owner = {} if self.owner is None else {
            "user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []}
        # The probes' user may ask for all that tells how far a replica is.
        problem = self.psql(self.ports["postgres"], "postgres", f"GRANT pg_monitor TO {proxies.USER}", local, "postgres")[1]
        if problem:
            raise proxies.Failure(problem)
        self.run([self.bin / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-h", local, "-p", self.ports["postgres"],
                  "-U", "postgres", "--no-sync"], env=proxies.environment(), **as_owner)
        settings = {"port": self.ports["replica"], "listen_addresses": "127.0.0.1",
                    "unix_socket_directories": local, "max_connections": proxies.SERVER_CONNECTIONS_MAX, "fsync": "off", "jit": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.start("replica", [self.bin / "postgres", "-D", data, *options], self.owner, proxies.signal.SIGINT)
        self.wait_until("the replica", lambda: self.psql(self.ports["replica"], "postgres", "SELECT 1", local,
                                                         "postgres")[1])

    def not_read(self, level, target):
        self.psql(self.ports["keyway"], level, "SELECT abalance FROM pgbench_accounts WHERE aid = 1")
        known = 'keyway_catalog_known{database="%s"} 1' % level in self.metrics()
        return None if known and self.reads(level).get((target, "fresh"), 0) > 0 else f"no read on a {target}"

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['admin']}/metrics") as answer:
            return answer.read().decode()

    def reads(self, level):
        """By target and reason."""
        found = re.findall(r'^keyway_reads_total\{database="%s",reason="(\w+)",target="(\w+)"\} (\d+)' % level,
                           self.metrics(), re.MULTILINE)
        return {(target, reason): int(count) for reason, target, count in found}

    def cell(self, level, keys, reads_percent):
        self.script = self.write("mix.sql", SCRIPT.format(keys=KEYS[keys], reads_percent=reads_percent))
        target = proxies.Target(level, self.ports["keyway"], level, self.keyway.pid)
        before, cpu = self.reads(level), proxies.cpu_seconds(self.keyway.pid)
        count, said = self.pgbench(target, "prepared", CLIENTS, ["-T", self.arguments.seconds])
        cpu_us = (proxies.cpu_seconds(self.keyway.pid) - cpu) * 1e6 / count
        after = self.reads(level)
        grown = {it: after[it] - before.get(it, 0) for it in after}
        share = lambda *of: sum(grown.get(it, 0) for it in of) / max(1, sum(grown.values()))
        return {
            "replica": share(("replica", "fresh")),
            "in flight": share(("primary", "in_flight")),
            "floor": share(("primary", "floor")),
            "tps": proxies.number(r"tps = ([\d.]+)", said),
            "cpu_us": cpu_us,
        }


def report(bench):
    lines = [
        f"Measured on {proxies.today()}: {proxies.processor()}, all on this machine; Keyway ({proxies.commit(bench.arguments.keyway)}), "
        f"one replica, `pgbench -M prepared`, {CLIENTS} clients, {ROWS:,} rows, {bench.arguments.seconds} s each.",
        "",
        "| reads | keys | level | of reads on the replica | primary: write in flight | primary: floor | tps | "
        "Keyway's CPU us per transaction |",
        "|--:|---|---|--:|--:|--:|--:|--:|",
    ]
    for reads_percent in READS_PERCENT:
        for keys in KEYS:
            for level in LEVELS:
                it = bench.cell(level, keys, reads_percent)
                line = (f"| {reads_percent} % | {keys} | {level} | {it['replica']:.1%} | {it['in flight']:.1%} | "
                        f"{it['floor']:.1%} | {it['tps']:.0f} | {it['cpu_us']:.1f} |")
                print(line, flush=True)
                lines.append(line)
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=proxies.positive, default=5)
    parser.add_argument("--keyway", type=Path, default=proxies.ROOT / "target/release/keyway", help="the program")
    parser.add_argument("--run-as", default="postgres", help="whose PostgreSQL is, where we are root")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    proxies.stop_by_signals()
    arguments.scale, arguments.threads = 1, 1
    arguments.keyway = arguments.keyway.resolve()
    try:
        with ReplicaReads(arguments) as bench:
            text = report(bench)
        if arguments.write:
            proxies.write_document(text, BEGIN, END)
    except (proxies.Failure, OSError) as failure:
        print(f"replica_reads: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
