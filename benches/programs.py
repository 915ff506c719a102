#!/usr/bin/env python3
"""CPU time per transaction of several Keyways and of PgBouncer before one PostgreSQL, in turns of a tenth of a second
(`turns.py`): what a change, or another way to build, comes to. All are started anew after some rounds (`counting.py` says why).

    benches/programs.py before=/tmp/keyway-before after=target/release/keyway
    benches/programs.py keyway=target/pgo/keyway --clients 500
    benches/programs.py plain=target/release/keyway profile=target/pgo/keyway --database sharded
"""

import math
import random
import statistics
import sys
from pathlib import Path

import proxies

MODES = ("simple", "extended", "prepared")


class Programs(proxies.Bench):
    """A target for each program, before PgBouncer."""

    def __init__(self, arguments):
        super().__init__(arguments)
        ports = [f"program{it}{of}" for it in range(len(arguments.programs)) for of in ("", "_admin")]
        self.ports |= dict(zip(ports, proxies.free_ports(len(ports))))

    def variants(self, keyway):
        return [self.program(index, *it) for index, it in enumerate(self.arguments.programs)]

    def program(self, index, name, path):
        port = f"program{index}"
        self.arguments.keyway = path
        started = self.start_keyway(port, self.arguments.settings)
        return proxies.Target(name, self.ports[port], self.arguments.database, started.pid, True)


def named(text):
    name, _, path = text.partition("=")
    if not name or not Path(path).is_file():
        raise proxies.argparse.ArgumentTypeError(f"{text} is no NAME=PROGRAM")
    return name, Path(path).resolve()


def mean(values):
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def main():
    parser = proxies.argparse.ArgumentParser(description=__doc__, formatter_class=proxies.argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+", type=named, metavar="NAME=PROGRAM", help="Keyways")
    parser.add_argument("--pgbouncer", type=Path, help="another one than the system's")
    parser.add_argument("--run-as", default="postgres", help="who runs PostgreSQL when root starts this (postgres)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="pgbench -M")
    parser.add_argument("--database", default="bench", help="of the Keyways: bench, sharded or four (bench, as of PgBouncer)")
    parser.add_argument("--settings", default="", help="in front of the Keyways' configuration, as in 'workers = 2'")
    parser.add_argument("--clients", type=proxies.positive, default=proxies.VARIANT_CLIENTS,
                        help=f"of each program ({proxies.VARIANT_CLIENTS}); its pool has {proxies.POOL_SIZE} connections")
    parser.add_argument("--starts", type=proxies.positive, default=3, help="of all programs (3)")
    parser.add_argument("--rounds", type=proxies.positive, default=3, help="of each start (3)")
    parser.add_argument("--seconds", type=proxies.positive, default=3, help="of each program in each round (3)")
    arguments = parser.parse_args()
    if arguments.starts * arguments.rounds < 2:
        parser.error("one round has no scatter")
    arguments.scale, arguments.threads, arguments.keyway = 10, 1, arguments.programs[0][1]
    names = [name for name, _ in arguments.programs] + ["pgbouncer"]
    found = {mode: [] for mode in arguments.modes}
    try:
        for _ in range(arguments.starts):
            proxies.stop_by_signals()
            with Programs(arguments) as bench:
                targets = [it for it in bench.targets if it.name in names]
                for mode, rounds in found.items():
                    for _ in range(arguments.rounds):
                        random.shuffle(targets)
                        samples = bench.all_samples(targets, mode, arguments.clients)
                        rounds.append({name: it.cpu_us for name, it in samples.items()})
    except (proxies.Failure, OSError) as failure:
        print(f"programs: {failure}", file=sys.stderr)
        return 1
    for mode, rounds in found.items():
        for name in names:
            ratio, error = mean([it[name] / it["pgbouncer"] for it in rounds])
            cpu_us, _ = mean([it[name] for it in rounds])
            print(f"{mode}, {name}: {cpu_us:.2f} us, of PgBouncer's {ratio:.3f} (standard error {error:.3f}, {len(rounds)} rounds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
