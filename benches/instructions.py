#!/usr/bin/env python3
"""Instructions of Keyway per transaction of pgbench, counted by callgrind: whole statements, from socket to socket, without
the kernel. They do not depend on what else the machine does, but for what Keyway does by time (probes, `hotspots`).

Two runs of pgbench that differ in length alone are dumped apart: what both have, such as logins, falls out of the difference.

    benches/instructions.py                            simple, extended, prepared; one server, hotspots off
    benches/instructions.py --database sharded --settings ''   two shards, with hotspots
    benches/instructions.py --cache                    with the lines that a 32 kB cache of instructions misses
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import proxies

MODES = ("simple", "extended", "prepared")
CLIENTS = 16
# Transactions of each client.
WARM_UP, SHORT, LONG = 50, 100, 600
# A core of a server of 2023: 32 kB, 8 ways.
CACHE = ("--cache-sim=yes", "--I1=32768,8,64", "--D1=49152,12,64", "--LL=2097152,16,64")
START_TIMEOUT_S = 120
DUMP_TIMEOUT_S = 120


class UnderCallgrind(proxies.Bench):
    def __init__(self, arguments, directory):
        super().__init__(arguments)
        self.dumps = directory
        self.settings = arguments.settings

    def start_keyway(self, name, settings=""):
        return super().start_keyway(name, self.settings)

    def start(self, name, command, *rest, **named):
        if name == "keyway":
            tool = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={self.dumps}/out"]
            command = tool + list(CACHE if self.arguments.cache else ()) + list(command)
        return super().start(name, command, *rest, **named)

    def dump(self, pid):
        """Totals since the last one, by event."""
        before = set(self.dumps.iterdir())
        subprocess.run(["callgrind_control", "--dump", str(pid)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        files, end = [], time.monotonic() + DUMP_TIMEOUT_S
        while not files or not all("totals:" in it.read_text() for it in files):
            if time.monotonic() > end:
                raise proxies.Failure("callgrind wrote no dump")
            time.sleep(0.2)
            files = [it for it in self.dumps.iterdir() if it not in before]
        return totals(it.read_text() for it in files)

    def counted(self, target, mode, each):
        transactions, _ = self.pgbench(target, mode, CLIENTS, ["-t", each])
        return transactions, self.dump(target.pid)


def totals(texts):
    sums = {}
    for text in texts:
        events = re.search(r"^events: (.*)", text, re.M)[1].split()
        counts = re.search(r"^totals: (.*)", text, re.M)[1].split()
        for event, count in zip(events, counts):
            sums[event] = sums.get(event, 0) + int(count)
    return sums


def main():
    parser = proxies.argparse.ArgumentParser(description=__doc__, formatter_class=proxies.argparse.RawDescriptionHelpFormatter)
    proxies.add_programs(parser)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="pgbench -M")
    parser.add_argument("--database", default="bench", help="bench, sharded (two shards) or four (bench)")
    parser.add_argument("--settings", default="hotspots = false", help="in front of the configuration (hotspots = false)")
    parser.add_argument("--cache", action="store_true", help="count lines that a cache of instructions misses, too")
    arguments = parser.parse_args()
    proxies.stop_by_signals()
    arguments.scale, arguments.threads, arguments.seconds, arguments.variants = 1, 1, 1, False
    arguments.keyway = arguments.keyway.resolve()
    proxies.START_TIMEOUT_S = START_TIMEOUT_S
    try:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory).chmod(0o777)
            with UnderCallgrind(arguments, Path(directory)) as bench:
                target = next(it for it in bench.targets if it.database == arguments.database and it.name.startswith("keyway"))
                for mode in arguments.modes:
                    bench.counted(target, mode, WARM_UP)
                    (few, before), (many, after) = (bench.counted(target, mode, it) for it in (SHORT, LONG))
                    per = {it: (after[it] - before.get(it, 0)) / (many - few) for it in after}
                    misses = f", {per['I1mr']:.0f} lines missed" if "I1mr" in per else ""
                    print(f"{mode}: {per['Ir']:,.0f} instructions per transaction{misses}", flush=True)
    except (proxies.Failure, OSError, subprocess.CalledProcessError) as failure:
        print(f"instructions: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
