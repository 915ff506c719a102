#!/usr/bin/env python3
"""What counting hot shards and keys costs: CPU time per transaction of Keyway with `hotspots` on, over that with them off.

Two Keyways before one PostgreSQL, one of which counts, take turns of a tenth of a second (`turns.py`). A process keeps the places
in memory that it has by chance, which alone make one some per cent dearer than another: so after some rounds both reload
a configuration and change places. A pair is the geometric mean of a round's ratio before the change and one's after it, from
which the processes' own difference is gone. Told are the median of all pairs, its standard error and their quartiles.

    benches/counting.py                  16 clients, two shards, 3 starts of 4 pairs of 3 s for each Keyway in each mode
    benches/counting.py --starts 2 --pairs 2 --modes simple
"""

import math
import os
import signal
import statistics
import sys

import proxies

MODES = ("simple", "extended", "prepared")
# Whether it counts is asked of its console.
SETTINGS = 'stats_users = ["bench"]\nhotspots = {}'
# As `proxies` names them, whichever counts.
NAMES = {"keyway, 2 shards": "keyway", "keyway, 2 shards, hotspots off": "uncounted"}


class Counting(proxies.Bench):
    def let_count(self, counting):
        """This one from now on, and the other no more."""
        for target in self.both():
            name = NAMES[target.name]
            wanted = "true" if name == counting else "false"
            self.write_keyway(name, SETTINGS.format(wanted))
            os.kill(target.pid, signal.SIGHUP)
            self.wait_until(f"{name} with hotspots {wanted}", lambda: self.is_not_so(target, wanted))

    def is_not_so(self, target, wanted):
        listed, problem = self.psql(target.port, "keyway", "SHOW CONFIG")
        if problem:
            return problem
        values = dict(it.split("|")[:2] for it in listed.splitlines())
        return None if values["hotspots"] == wanted else f"hotspots are {values['hotspots']}"

    def both(self):
        return [it for it in self.targets if it.name in NAMES]

    def ratios(self, mode, rounds, counting):
        """Of the one that counts over the other. Who begins changes from round to round."""
        found = []
        for index in range(rounds):
            samples = self.all_samples(self.both()[:: 1 if index % 2 == 0 else -1], mode, proxies.VARIANT_CLIENTS)
            cpu_us = {NAMES[name]: it.cpu_us for name, it in samples.items()}
            (other,) = cpu_us.keys() - {counting}
            found.append(cpu_us[counting] / cpu_us[other])
        return found

    def pairs(self, modes, count):
        """Of each mode, so many."""
        found = {mode: [] for mode in modes}
        for counting in NAMES.values():
            self.let_count(counting)
            for mode in modes:
                found[mode].append(self.ratios(mode, count, counting))
        return {mode: [math.sqrt(one * other) for one, other in zip(*halves)] for mode, halves in found.items()}


def main():
    parser = proxies.argparse.ArgumentParser(description=__doc__, formatter_class=proxies.argparse.RawDescriptionHelpFormatter)
    proxies.add_programs(parser)
    parser.add_argument("--starts", type=proxies.positive, default=3, help="of all programs (3)")
    parser.add_argument("--pairs", type=proxies.positive, default=4, help="of rounds, of each start (4)")
    parser.add_argument("--seconds", type=proxies.positive, default=3, help="of each Keyway in each round (3)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    arguments = parser.parse_args()
    if arguments.starts * arguments.pairs < 2:
        parser.error("one pair has no scatter")
    arguments.scale, arguments.threads, arguments.variants = 10, 1, True
    arguments.keyway = arguments.keyway.resolve()
    # Each once.
    arguments.modes = list(dict.fromkeys(arguments.modes))
    found = {mode: [] for mode in arguments.modes}
    try:
        for _ in range(arguments.starts):
            # What a Bench leaves ignores them.
            proxies.stop_by_signals()
            with Counting(arguments) as bench:
                for mode, pairs in bench.pairs(arguments.modes, arguments.pairs).items():
                    found[mode] += pairs
                    print(f"{mode}: " + " ".join(f"{it:.3f}" for it in pairs), file=sys.stderr, flush=True)
    except (proxies.Failure, OSError) as failure:
        print(f"counting: {failure}", file=sys.stderr)
        return 1
    for mode, of_mode in found.items():
        low, middle, high = statistics.quantiles(of_mode, n=4)
        # Of a median of values that scatter as a normal distribution does.
        error = 1.2533 * statistics.stdev(of_mode) / math.sqrt(len(of_mode))
        print(f"{mode}: {middle:.3f}, standard error {error:.3f} (quartiles {low:.3f} and {high:.3f}) of {len(of_mode)} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
