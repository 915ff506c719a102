#!/usr/bin/env python3
"""Fails where a statement takes more instructions than it did: more than 5 % over the figures in benches/gate.toml.

Instructions are counted by valgrind, which no other work on the machine disturbs, of runs of two lengths, so that
starting falls out. The figures are of one compiler: when that changes, or when more is meant to be done, they are written
anew, by a commit that says why.

    benches/gate.py                   compare
    benches/gate.py --optimised       of a build with Keyway optimised, which takes minutes, and whole statements too
    benches/gate.py --write           write the figures
    benches/gate.py --only scan plan  of these alone

What is built is benches/gate.rs as tests are: where they have been built that is a matter of seconds, so that this runs
with them. Such code does more than a release does, and grows with it.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FIGURES = Path(__file__).resolve().parent / "gate.toml"
GROWTH_MAX = 1.05
# Shrunk so far, figures should be written anew: else so much could be lost again without a word.
SHRUNK = 0.90
# Once through is enough where nothing depends on when something happens.
COUNTS = {"scan": (100, 300), "plan": (100, 300), "relay": (100, 300), "relay_1000_rows": (5, 15)}
# Whole statements are counted in the task of their client alone: beside it is what other threads, and time, bring about.
SERVED = (100, 300)
TASK = "keyway::client::login::serve::*"


def built(optimised):
    command = ["cargo", "build", "--bench", "gate", "--message-format=json-render-diagnostics"]
    # The packages that it is made of are those of the tests either way.
    for name, value in {"opt-level": "1", "debug-assertions": "false", "overflow-checks": "false"}.items():
        command += ["--config", f"profile.dev.package.keyway.{name}={value}"] if optimised else []
    done = subprocess.run(command, cwd=FIGURES.parent.parent, stdout=subprocess.PIPE, text=True, check=True)
    said = [json.loads(it) for it in done.stdout.splitlines()]
    return next(it["executable"] for it in said if it.get("executable") and it["target"]["name"] == "gate")


def instructions(program, name, count):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    if name not in COUNTS:
        command.append(f"--toggle-collect={TASK}")
    command += [program, name, str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return int(found[1])


def measured(program, name):
    short, long = COUNTS.get(name, SERVED)
    return (instructions(program, name, long) - instructions(program, name, short)) / (long - short)


def main():
    parser = argparse.ArgumentParser(description="instructions per statement, beside those of benches/gate.toml")
    parser.add_argument("--program", type=Path, help="one that is built already")
    parser.add_argument("--only", nargs="+", help="names")
    parser.add_argument("--optimised", action="store_true", help="Keyway, at opt-level 1")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    program = arguments.program.resolve() if arguments.program else built(arguments.optimised)
    all_known = tomllib.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    build = "optimised" if arguments.optimised else "tests"
    known = all_known.get(build, {})
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    names = arguments.only or [it for it in said if arguments.optimised or it in COUNTS]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(names, pool.map(lambda it: measured(program, it), names)))
    print(f"{'instructions per':24} {'figure':>10} {'measured':>10} {'ratio':>6}")
    status = 0
    for name, value in found.items():
        figure = known.get(name)
        ratio = value / figure if figure else None
        said = ""
        if figure is None:
            said = "" if arguments.write else "no figure"
        elif ratio > GROWTH_MAX:
            said = "GROWN"
        elif ratio < SHRUNK:
            said = "shrunk: write the figures anew"
        if said in ("GROWN", "no figure") and not arguments.write:
            status = 1
        print(f"{name:24} {figure or '':>10} {value:>10.0f} {'' if ratio is None else f'{ratio:.2f}':>6}  {said}")
    if arguments.write:
        lines = ["# Instructions of each build, written by benches/gate.py --write."]
        for name, figures in (all_known | {build: known | found}).items():
            lines += ["", f"[{name}]"] + [f"{of} = {round(value)}" for of, value in figures.items()]
        FIGURES.write_text("\n".join(lines) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
