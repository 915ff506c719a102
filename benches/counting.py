#!/usr/bin/env python3
"""What counting hot shards and keys costs: CPU time per transaction of Keyway with `hotspots` on, over that with them off.

Two Keyways before one PostgreSQL take turns of a tenth of a second (`turns.py`); each round gives a ratio. A process keeps the
places in memory that it has by chance, which alone make one some per cent dearer than another: all are started anew after some
rounds. Told are the median of the ratios, its standard error and their quartiles.

    benches/counting.py                  16 clients, two shards, 5 starts, each with 4 rounds of 3 s for each Keyway in each mode
    benches/counting.py --starts 2 --rounds 2
"""

import math
import statistics
import sys

import proxies

MODES = ("simple", "prepared")
NAMES = ("keyway, 2 shards", "keyway, 2 shards, hotspots off")


def ratios(bench, targets, mode, rounds):
    """Who begins changes from round to round."""
    found = []
    for index in range(rounds):
        samples = bench.all_samples(targets if index % 2 == 0 else targets[::-1], mode, proxies.VARIANT_CLIENTS)
        counted, uncounted = (samples[it].cpu_us for it in NAMES)
        found.append(counted / uncounted)
    return found


def main():
    parser = proxies.argparse.ArgumentParser(description=__doc__, formatter_class=proxies.argparse.RawDescriptionHelpFormatter)
    proxies.add_programs(parser)
    parser.add_argument("--starts", type=proxies.positive, default=5, help="of all programs (5)")
    parser.add_argument("--rounds", type=proxies.positive, default=4, help="of each start (4)")
    parser.add_argument("--seconds", type=proxies.positive, default=3, help="of each Keyway in each round (3)")
    arguments = parser.parse_args()
    if arguments.starts * arguments.rounds < 2:
        parser.error("one round has no scatter")
    arguments.scale, arguments.threads, arguments.variants = 10, 1, True
    arguments.keyway = arguments.keyway.resolve()
    found = {mode: [] for mode in MODES}
    try:
        for _ in range(arguments.starts):
            # What a Bench leaves ignores them.
            proxies.stop_by_signals()
            with proxies.Bench(arguments) as bench:
                targets = [next(it for it in bench.targets if it.name == name) for name in NAMES]
                for mode in MODES:
                    found[mode] += ratios(bench, targets, mode, arguments.rounds)
    except (proxies.Failure, OSError) as failure:
        print(f"counting: {failure}", file=sys.stderr)
        return 1
    for mode, of_mode in found.items():
        low, middle, high = statistics.quantiles(of_mode, n=4)
        # Of a median of values that scatter as a normal distribution does.
        error = 1.2533 * statistics.stdev(of_mode) / math.sqrt(len(of_mode))
        print(f"{mode}: {middle:.3f}, standard error {error:.3f} (quartiles {low:.3f} and {high:.3f}) of {len(of_mode)} rounds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
