#!/usr/bin/env python3
"""What counting hot shards and keys costs: CPU time per transaction of Keyway with `hotspots` on, over that with them off.

Two Keyways before one PostgreSQL take turns, on, off, off, on, in short runs, so that the machine's mood, which changes from
second to second, is nearly that of both; each pair gives a ratio, and their median is told with its quartiles.

    benches/counting.py                  16 clients, two shards, 40 pairs of 1 s in each mode
    benches/counting.py --pairs 10
"""

import statistics
import sys

import e2e

MODES = ("simple", "prepared")


def ratios(bench, on, off, mode, pairs):
    found = []
    for index in range(pairs):
        order = (on, off) if index % 2 == 0 else (off, on)
        cpu = {it.name: bench.sample(it, mode, e2e.VARIANT_CLIENTS).cpu_us for it in order}
        found.append(cpu[on.name] / cpu[off.name])
    return found


def main():
    parser = e2e.argparse.ArgumentParser(description=__doc__, formatter_class=e2e.argparse.RawDescriptionHelpFormatter)
    e2e.add_programs(parser)
    parser.add_argument("--pairs", type=e2e.positive, default=40)
    arguments = parser.parse_args()
    arguments.seconds, arguments.scale, arguments.threads, arguments.variants = 1, 10, 1, True
    arguments.keyway = arguments.keyway.resolve()
    try:
        with e2e.Bench(arguments) as bench:
            on, off = (next(it for it in bench.targets if it.name == name)
                       for name in ("keyway, 2 shards", "keyway, 2 shards, hotspots off"))
            for mode in MODES:
                found = ratios(bench, on, off, mode, arguments.pairs)
                low, middle, high = statistics.quantiles(found, n=4)
                print(f"{mode}: {middle:.3f} (quartiles {low:.3f} and {high:.3f}) of {len(found)} pairs", flush=True)
    except (e2e.Failure, OSError) as failure:
        print(f"counting: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
