#!/usr/bin/env python3
"""Transactions per second, and CPU time per transaction, of Keyway beside what it stands in for.

Starts a PostgreSQL of its own, PgBouncer, HAProxy in TCP mode and Keyway, on free ports and in one
temporary directory, and lets pgbench ask each for one row by its key. The targets of a cell (mode, clients)
take turns of a tenth of a second (`turns.py`), so that all meet every mood of the machine.

    benches/e2e.py                  the table, about half an hour
    benches/e2e.py --quick          does it all work? a minute
    benches/e2e.py --write          and puts the table into docs/performance.md
    benches/e2e.py --floor target/release/examples/floor   beside the least that a proxy can do (floor.rs)

The exit status is 1 when a cell failed, which the table then says too.
"""

import argparse
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import proxies
from proxies import (
    POOL_SIZE, VARIANT_CLIENTS, Bench, Failure, Goal, Stopped, commit, goal_lines, keeps_prepared, number, plural, positive,
    processor, program, share, today, transactions, version_of, write_document)
from turns import cpu_seconds

BEGIN, END = "<!-- e2e:begin -->", "<!-- e2e:end -->"
# Of each name: together no more than the pool holds, so that nobody waits.
ALTERNATING_CLIENTS = 8
SYSCALL_CLIENTS = 40
# Twenty-five for each server connection.
CROWD = 500
CROWD_TRANSACTIONS = 80
EXTRA_TARGETS = ("keyway", "pgbouncer", "haproxy")


def left_out(bench):
    """(target, mode) that cannot work. By luck it sometimes does, when a client finds its old server again."""
    return set() if keeps_prepared(bench.pgbouncer) else {("pgbouncer", "prepared")}


def cell_targets(bench, clients):
    named = bench.arguments.targets
    return [it for it in bench.targets
            if (clients == VARIANT_CLIENTS or not it.is_variant) and (named is None or it.name in named)]


def measure(bench):
    samples, failures = {}, {}
    arguments = bench.arguments
    skip = left_out(bench)
    cells = [(mode, clients) for mode in arguments.modes for clients in arguments.clients]
    for _ in range(arguments.rounds):
        for mode, clients in cells:
            bench.check()
            targets = [it for it in cell_targets(bench, clients) if (it.name, mode) not in skip]
            for name, sample in bench.samples(targets, mode, clients).items():
                if isinstance(sample, Failure):
                    bench.check()
                    failures.setdefault((mode, clients, name), str(sample))
                    print(f"{mode:9} {clients:3} {name:30} fails: {sample}", file=sys.stderr)
                    continue
                samples.setdefault((mode, clients, name), []).append(sample)
                cpu = "" if sample.cpu_us is None else f"{sample.cpu_us:7.1f} us"
                print(f"{mode:9} {clients:3} {name:30} {sample.tps:9.0f} tps {cpu}", file=sys.stderr)
    return samples, failures


def alternating_cpu_us(bench, target):
    """CPU time per transaction of clients under two application_names, whose settings go back and forth
    between the server connections that they share. Logins are taken off as in `samples`."""
    def run(until):
        before = cpu_seconds(target.pid)
        both = [bench.pgbench_started(target, "simple", ALTERNATING_CLIENTS, until, PGAPPNAME=it)
                for it in ("bench_a", "bench_b")]
        count = sum(transactions(it)[0] for it in both)
        return cpu_seconds(target.pid) - before, count
    logins, few = run(["-t", 1])
    spent, many = run(["-T", bench.arguments.seconds])
    return max(spent - logins, 0.0) * 1e6 / max(many - few, 1)


def syscalls_per_transaction(bench, target):
    """By strace, whose cost does not matter here. Two runs of different length: logins fall out."""
    def run(transactions_each):
        counts = bench.directory / "syscalls"
        counts.unlink(missing_ok=True)
        trace = subprocess.Popen([program("strace"), "-f", "-c", "-U", "calls,name", "-o", counts, "-p", str(target.pid)],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            # It says so when it has attached, or why it cannot.
            said = trace.stderr.readline()
            if "attached" not in said:
                raise Failure(f"strace: {said.strip()}")
            done, _ = bench.pgbench(target, "simple", SYSCALL_CLIENTS, ["-t", transactions_each])
        finally:
            trace.send_signal(signal.SIGINT)
            trace.communicate()
        return number(r"(\d+)\s+total", counts.read_text()), done
    (short, few), (long, many) = run(50), run(250)
    return (long - short) / (many - few)


def crowd_p99_of_p50(bench, target):
    """Of the latencies that pgbench logs for each transaction. Of a run by count, as time would be over before all have
    logged in; its first and last quarter, where clients come and go, are not looked at."""
    prefix = bench.directory / "latencies"
    for it in bench.directory.glob("latencies*"):
        it.unlink()
    bench.pgbench(target, "simple", CROWD, ["-t", CROWD_TRANSACTIONS, "-l", f"--log-prefix={prefix}"])
    # client, transaction, latency in microseconds, script, and when it ended: seconds, microseconds.
    rows = [it.split() for log in bench.directory.glob("latencies*") for it in log.read_text().splitlines()]
    rows.sort(key=lambda it: (int(it[4]), int(it[5])))
    latencies = sorted(int(it[2]) for it in rows[len(rows) // 4:len(rows) * 3 // 4])
    if len(latencies) < CROWD:
        raise Failure(f"{len(latencies)} transactions are too few to tell")
    return latencies[len(latencies) * 99 // 100] / latencies[len(latencies) // 2]


EXTRAS = [
    ("CPU us per transaction, alternating application_name", "keyway pgbouncer", alternating_cpu_us),
    (f"system calls per transaction, {SYSCALL_CLIENTS} clients", "keyway pgbouncer haproxy", syscalls_per_transaction),
    (f"p99 of p50, {CROWD} clients, pool of {POOL_SIZE}", "keyway pgbouncer", crowd_p99_of_p50),
]


def measure_extras(bench, failures):
    """(what, target) to its values, of each round one."""
    found = {}
    for _ in range(bench.arguments.rounds):
        for what, names, measured in EXTRAS:
            for target in (it for it in bench.targets if it.name in names.split()):
                bench.check()
                try:
                    value = measured(bench, target)
                except Failure as failure:
                    bench.check()
                    failures.setdefault((what, None, target.name), str(failure))
                    print(f"{what}: {target.name} fails: {failure}", file=sys.stderr)
                    continue
                found.setdefault((what, target.name), []).append(value)
                print(f"{what}: {target.name} {value:.1f}", file=sys.stderr)
    return found


def extras_table(bench, extras, failures):
    lines = ["| | " + " | ".join(EXTRA_TARGETS) + " | keyway of PgBouncer's |", "|---|" + "--:|" * (len(EXTRA_TARGETS) + 1)]
    for what, names, _ in EXTRAS:
        medians = {it: statistics.median(extras[what, it]) for it in EXTRA_TARGETS
                   if (what, it) in extras and (what, None, it) not in failures}
        cells = [f"{medians[it]:.1f}" if it in medians else "fails" if it in names.split() else "" for it in EXTRA_TARGETS]
        lines.append(f"| {what} | {' | '.join(cells)} | {share(medians.get('keyway'), medians.get('pgbouncer'))} |")
    return lines


def goals_table(bench, samples, extras, failures):
    """What has to hold, measured: ratios to PgBouncer in the same rounds."""
    def cell(mode, name, what="cpu_us", clients=VARIANT_CLIENTS):
        key = mode, clients, name
        return median(samples[key], what) if key in samples and key not in failures else None

    def ratio(own, other):
        return own / other if own is not None and other else None

    def of_bouncer(mode, name):
        return ratio(cell(mode, name), cell(mode, "pgbouncer"))

    def extra(what):
        values = extras.get((what, "keyway"))
        return None if values is None else statistics.median(values)

    def slowest(other):
        """Transactions per second of the other one's, in the cell where that is least."""
        cells = [(mode, clients) for mode in bench.arguments.modes for clients in bench.arguments.clients]
        pairs = [(cell(mode, "keyway", "tps", clients), cell(mode, other, "tps", clients)) for mode, clients in cells]
        ratios = [it for it in (ratio(*pair) for pair in pairs) if it is not None]
        return min(ratios) if ratios else None

    _, syscalls, crowd = (it[0] for it in EXTRAS)
    cpu = f"CPU time per transaction of PgBouncer's, {VARIANT_CLIENTS} clients"
    goals = [Goal(f"{cpu}, simple", "at most", 1.0, of_bouncer("simple", "keyway"))]
    goals += [Goal(f"{cpu}, {it}", "at most", 0.85, of_bouncer(it, "keyway")) for it in ("extended", "prepared")]
    for name in ("keyway, 2 shards", "keyway, 4 shards"):
        goals.append(Goal(f"{cpu}, simple, {name.removeprefix('keyway, ')}", "at most", 1.1, of_bouncer("simple", name)))
    counted, uncounted = "keyway, 2 shards", "keyway, 2 shards, hotspots off"
    for mode in ("simple", "prepared"):
        goals.append(Goal(f"CPU time per transaction with hotspots, of that without, {mode}", "at most", 1.03,
                          ratio(cell(mode, counted), cell(mode, uncounted))))
    goals.append(Goal("CPU time per transaction of 2 workers, of 1 worker's, simple", "at most", 1.1,
                      ratio(cell("simple", "keyway, 2 workers"), cell("simple", "keyway"))))
    goals += [Goal(f"tps of {title}'s, in the worst cell", "at least", 1.0, slowest(name))
              for name, title in (("pgbouncer", "PgBouncer"), ("haproxy", "HAProxy"))]
    goals += [
        Goal(crowd, "at most", 2.0, extra(crowd)),
        Goal(syscalls, "at most", 4.3, extra(syscalls)),
    ]
    return goal_lines(goals)


def median(samples, what):
    values = [getattr(it, what) for it in samples]
    return None if None in values else statistics.median(values)


def table(bench, samples, failures):
    lines = ["| mode | clients | target | tps | of direct | latency ms | CPU us per transaction | of PgBouncer's |",
             "|---|--:|---|--:|--:|--:|--:|--:|"]
    skip = left_out(bench)
    for mode in bench.arguments.modes:
        for clients in bench.arguments.clients:
            # A cell that failed once has no median that could stand beside the others.
            cell = {it.name: samples[mode, clients, it.name] for it in bench.targets
                    if (mode, clients, it.name) in samples and (mode, clients, it.name) not in failures}
            direct = median(cell["direct"], "tps") if "direct" in cell else None
            bouncer = median(cell["pgbouncer"], "cpu_us") if "pgbouncer" in cell else None
            for target in cell_targets(bench, clients):
                start = f"| {mode} | {clients} | {target.name} |"
                if target.name not in cell:
                    word = "not possible" if (target.name, mode) in skip else "fails"
                    lines.append(f"{start} {word} | | | | |")
                    continue
                tps, latency, cpu = (median(cell[target.name], it) for it in ("tps", "latency_ms", "cpu_us"))
                lines.append(f"{start} {tps:.0f} | {share(tps, direct)} | {latency:.3f} | "
                             f"{'' if cpu is None else f'{cpu:.1f}'} | {share(cpu, bouncer)} |")
    return lines


def causes(failures):
    """Each error once, with the target that it belongs to. pgbench numbers its clients."""
    found = {}
    for (what, clients, target), text in failures.items():
        text = re.sub(r'^pgbench: error: |client \d+ |"P\d+_\d+"', "", text).strip().splitlines()[0]
        found.setdefault((target, what if clients is None else f"mode {what}"), text)
    return [f"`{target}` fails in {what}: {text}" for (target, what), text in found.items()]


def report(bench, samples, extras, failures):
    arguments = bench.arguments
    haproxy = re.sub(r"HAProxy version (\S+).*", r"HAProxy \1", version_of(bench.haproxy, "-v"))
    keyway = version_of(arguments.keyway, "--version")
    lines = [
        f"Measured on {today()}: {processor()}, {os.cpu_count()} cores, Linux {platform.release()}; everything, "
        "pgbench too, on this machine.",
        "",
        f"{keyway.capitalize()}{commit(arguments.keyway)}, {version_of(bench.bin / 'postgres', '-V').replace('(PostgreSQL) ', '')}, "
        f"{version_of(bench.pgbouncer, '--version')}, {haproxy}. `pgbench` with {arguments.threads} "
        f"thread{plural(arguments.threads)}, scale {arguments.scale}, one row by its key; median of "
        f"{arguments.rounds} round{plural(arguments.rounds)} of {arguments.seconds} s.",
        "",
        *table(bench, samples, failures),
        "",
        *(extras_table(bench, extras, failures) + [""] if bench.arguments.extras else []),
        *goals_table(bench, samples, extras, failures),
    ]
    notes = causes(failures)
    if any(mode in arguments.modes for _, mode in left_out(bench)):
        notes.insert(0, "PgBouncer keeps prepared statements in transaction mode apart from version 1.21 on.")
    return "\n".join(lines + ([""] + [f"- {it}" for it in notes] if notes else [])) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(description="Keyway beside PostgreSQL, PgBouncer and HAProxy")
    modes = ("simple", "extended", "prepared")
    proxies.add_programs(parser)
    parser.add_argument("--floor", type=Path, help="the relay of `cargo build --release --example floor`, beside them")
    parser.add_argument("--modes", nargs="+", choices=modes, default=list(modes), help="pgbench -M")
    parser.add_argument("--clients", nargs="+", type=positive, help="pgbench -c (1 16 64 500)")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="in the table of cells, of these alone")
    parser.add_argument("--seconds", type=positive, help="of each target in each round of a cell (5)")
    parser.add_argument("--rounds", type=positive, help="of each cell (3)")
    parser.add_argument("--scale", type=positive, help="100,000 rows each (10)")
    parser.add_argument("--threads", type=positive, default=1, help="pgbench -j (1)")
    parser.add_argument("--no-variants", dest="variants", action="store_false",
                        help="without hotspots off, 4 shards and 2 workers")
    parser.add_argument("--no-extras", dest="extras", action="store_false", help="the table of cells alone")
    parser.add_argument("--quick", action="store_true", help="short: 1 and 16 clients, one round of 2 s, scale 1")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    usual, short = ([1, 16, 64, 500], 5, 3, 10), ([1, 16], 2, 1, 1)
    for name, value in zip(("clients", "seconds", "rounds", "scale"), short if arguments.quick else usual):
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.quick and arguments.write:
        parser.error("a quick run is nothing to publish")
    if not os.access(arguments.keyway, os.X_OK):
        parser.error(f"{arguments.keyway} is no program; cargo build --release makes it")
    if arguments.floor is not None and not os.access(arguments.floor, os.X_OK):
        parser.error(f"{arguments.floor} is no program; cargo build --release --example floor makes it")
    arguments.keyway = arguments.keyway.resolve()
    return arguments


def check_names(bench):
    unknown = set(bench.arguments.targets or ()) - {it.name for it in bench.targets}
    if unknown:
        raise Failure(f"no target {', '.join(sorted(unknown))}; there are {', '.join(it.name for it in bench.targets)}")


def main():
    arguments = parse_arguments()
    proxies.stop_by_signals()
    try:
        with Bench(arguments) as bench:
            check_names(bench)
            samples, failures = measure(bench)
            extras = measure_extras(bench, failures) if arguments.extras else {}
            text = report(bench, samples, extras, failures)
        print(text)
        if arguments.write:
            write_document(text, BEGIN, END)
    except Failure as failure:
        print(f"e2e: {failure}", file=sys.stderr)
        return 1
    except Stopped as stop:
        print(f"e2e: stopped by {signal.Signals(stop.args[0]).name}", file=sys.stderr)
        return 128 + stop.args[0]
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
