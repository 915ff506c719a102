#!/usr/bin/env python3
"""Transactions per second, and CPU time per transaction, of Keyway beside what it stands in for.

Starts a PostgreSQL of its own, PgBouncer, HAProxy in TCP mode and Keyway, on free ports and in one
temporary directory, and lets pgbench ask each for one row by its key. The targets of a cell (mode, clients)
take turns of a tenth of a second (`turns.py`), so that all meet every mood of the machine.

    benches/e2e.py                  the table, about half an hour
    benches/e2e.py --quick          does it all work? a minute
    benches/e2e.py --write          and puts the table into docs/performance.md

The exit status is 1 when a cell failed, which the table then says too.
"""

import argparse
import datetime
import os
import platform
import pwd
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import turns
from turns import cpu_seconds

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- e2e:begin -->", "<!-- e2e:end -->"

USER = PASSWORD = "bench"
POOL_SIZE = 20
ROWS_PER_SCALE = 100_000
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
CONNECT_CLIENTS = 4
# Of each name: together no more than the pool holds, so that nobody waits.
ALTERNATING_CLIENTS = 8
SYSCALL_CLIENTS = 40
# Twenty-five for each server connection.
CROWD = 500
CROWD_TRANSACTIONS = 80
# The cells of the main table where further variants of Keyway stand beside the others.
VARIANT_CLIENTS = 16
EXTRA_TARGETS = ("direct", "keyway", "pgbouncer", "haproxy")
SHARDED = {"sharded": 2, "four": 4}

# pgbench's own "select only" script. As a file, because for a built-in one pgbench first counts the
# rows of pgbench_branches, which is no statement for a database with several shards.
SCRIPT = """\\set aid random(1, {rows})
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
"""

PGBOUNCER = """[databases]
bench = host=127.0.0.1 port={postgres} dbname=bench
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {pgbouncer}
unix_socket_dir =
auth_type = {auth}
auth_file = {directory}/userlist.txt
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 2000
client_login_timeout = 600
"""
# From 1.21 on; the value is the default of 1.24.
PREPARED = "max_prepared_statements = 200\n"

HAPROXY = """global
    maxconn 2000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:{haproxy}
    server postgres 127.0.0.1:{postgres}
"""

KEYWAY = """listen = "127.0.0.1:{keyway}"
admin = "127.0.0.1:{admin}"
{settings}
[users.bench]
password = "bench"
{auth}

[limits]
login_timeout = "10m"

[databases.bench]
servers = ["127.0.0.1:{postgres}"]
[databases.bench.pool]
size = {pool_size}
{sharded}"""


def sharded_database(name, shards, postgres):
    """Its shards are one server under several addresses: each statement must be routed by its key, and still all
    targets ask the same rows of the same PostgreSQL."""
    lines = [f"[databases.{name}]", 'dbname = "bench"', f"[databases.{name}.pool]", f"size = {POOL_SIZE}"]
    for it in range(1, shards + 1):
        lines += [f"[databases.{name}.shards.s{it}]", f'servers = ["127.0.0.{it}:{postgres}"]']
    lines += [f"[databases.{name}.maps.by_aid]", 'kind = "hash"', 'type = "integer"',
              f"[databases.{name}.tables.pgbench_accounts]", 'map = "by_aid"', 'key = "aid"']
    return "\n".join(lines) + "\n"


class Failure(Exception):
    """What was asked for cannot be had; the text says why."""


class Stopped(BaseException):
    """A signal asked us to end; no Failure, because a cell that fails does not end the run."""


@dataclass(frozen=True)
class Target:
    name: str
    port: int
    database: str
    pid: int | None = None
    # Another way to run Keyway, which stands in few cells.
    is_variant: bool = False


@dataclass(frozen=True)
class Sample:
    tps: float
    latency_ms: float
    cpu_us: float | None


class Started:
    """A process of ours: its log, and its end."""

    def __init__(self, name, command, log, owner=None, stop=signal.SIGTERM):
        self.name, self.log, self.stop_signal = name, log, stop
        identity = {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        with open(log, "wb") as out:
            # A session of its own: Ctrl-C is for us, who then stop all in order.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=log.parent,
                env=environment(), start_new_session=True, **identity)

    @property
    def pid(self):
        return self.process.pid

    def check(self):
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise Failure(f"{self.name} ended with status {self.process.returncode}:\n{tail}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def environment(**more):
    """Ours without what would steer libpq, so that a run depends on its arguments alone."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return clean | {"LC_ALL": "C"} | more


def client_environment():
    return environment(PGPASSWORD=PASSWORD, PGSSLMODE="disable", PGGSSENCMODE="disable", PGCONNECT_TIMEOUT="120")


def program(name, directory=None):
    # Debian keeps haproxy and pgbouncer in sbin, which an ordinary user's PATH lacks.
    path = str(directory) if directory else os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise Failure(f"no {name} here; scripts/install.sh bench installs what is missing")
    return found


def postgres_directory():
    if os.environ.get("PG_BINDIR"):
        return Path(os.environ["PG_BINDIR"])
    versions = [it for it in Path("/usr/lib/postgresql").glob("*/bin") if (it / "initdb").exists()]
    if versions:
        return max(versions, key=lambda it: float(it.parent.name))
    return Path(program("initdb")).parent


def free_ports(count):
    """Held all at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return ports


class Bench:
    """Everything that runs; leaving it leaves no process and no file behind."""

    # How clients and proxies show who they are.
    auth = "scram-sha-256"

    def __init__(self, arguments):
        self.arguments = arguments
        self.owner = None
        self.loads = {}
        # Clients, their proxies and servers, of thousands of connections; what is started inherits it.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if os.geteuid() == 0:
            try:
                self.owner = pwd.getpwnam(arguments.run_as)
            except KeyError:
                raise Failure(f"PostgreSQL does not run as root, and there is no user {arguments.run_as}") from None
        self.bin = postgres_directory()
        self.pgbouncer = getattr(arguments, "pgbouncer", None) or program("pgbouncer")
        self.haproxy = program("haproxy")
        self.started = []
        names = ("postgres", "pgbouncer", "haproxy", "keyway", "admin", "uncounted", "uncounted_admin", "two_workers",
                 "two_workers_admin")
        self.ports = dict(zip(names, free_ports(len(names))))
        self.directory = None

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="keyway-e2e-"))
        try:
            if self.owner:
                os.chown(self.directory, self.owner.pw_uid, self.owner.pw_gid)
            self.start_postgres()
            self.start_proxies()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        # A second Ctrl-C must not leave half of them running.
        for it in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(it, signal.SIG_IGN)
        self.end_loads()
        for it in reversed(self.started):
            it.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def check(self):
        for it in self.started:
            it.check()

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        if self.owner:
            os.chown(path, self.owner.pw_uid, self.owner.pw_gid)
        path.chmod(0o600)
        return path

    def start(self, name, command, owner=None, stop=signal.SIGTERM):
        it = Started(name, [str(it) for it in command], self.directory / f"{name}.log", owner, stop)
        self.started.append(it)
        return it

    def wait_until(self, what, answered):
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            self.check()
            problem = answered()
            if problem is None:
                return
            if time.monotonic() > deadline:
                raise Failure(f"{what} does not answer: {problem}")
            time.sleep(0.05)

    def run(self, command, **options):
        done = subprocess.run([str(it) for it in command], cwd=self.directory, capture_output=True, text=True, **options)
        if done.returncode != 0:
            raise Failure(f"{command[0]} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout

    def psql(self, port, database, text, host="127.0.0.1", user=USER):
        """The answer, or None and what went wrong."""
        command = [self.bin / "psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", str(port), "-U", user,
                   "-d", database, "-c", text]
        done = subprocess.run(command, env=client_environment(), capture_output=True, text=True)
        return (done.stdout.strip(), None) if done.returncode == 0 else (None, done.stderr.strip())

    def start_postgres(self):
        data, port = self.directory / "data", self.ports["postgres"]
        as_owner = {} if self.owner is None else {
            "user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []}
        self.run([self.bin / "initdb", "-D", data, "-U", "postgres", "--auth-local=trust", f"--auth-host={self.auth}",
                  "--encoding=UTF8", "--locale=C", "--no-sync"], env=environment(), **as_owner)
        settings = {
            "port": port, "listen_addresses": "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4", "unix_socket_directories": self.directory,
            "shared_buffers": "256MB", "max_connections": 2000, "authentication_timeout": "10min", "fsync": "off", "synchronous_commit": "off",
            "full_page_writes": "off", "autovacuum": "off", "jit": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        # SIGINT is a fast shutdown; SIGTERM would wait for clients.
        self.start("postgres", [self.bin / "postgres", "-D", data, *options], self.owner, signal.SIGINT)
        local = str(self.directory)
        self.wait_until("postgres", lambda: self.psql(port, "postgres", "SELECT 1", local, "postgres")[1])
        for text in (f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'", f"CREATE DATABASE bench OWNER {USER}"):
            problem = self.psql(port, "postgres", text, local, "postgres")[1]
            if problem:
                raise Failure(f"{text}: {problem}")
        self.run([self.bin / "pgbench", "-i", "-q", "-s", str(self.arguments.scale), "-h", "127.0.0.1", "-p", str(port),
                  "-U", USER, "bench"], env=client_environment())
        # What the load wrote is written out now, not while we measure.
        self.psql(port, "bench", "CHECKPOINT", local, "postgres")

    def start_proxies(self):
        words = self.ports | {"directory": self.directory, "pool_size": POOL_SIZE, "auth": self.auth}
        self.write("userlist.txt", f'"{USER}" "{PASSWORD}"\n')
        prepares = PREPARED if keeps_prepared(self.pgbouncer) else ""
        ini = self.write("pgbouncer.ini", PGBOUNCER.format(**words) + prepares)
        cfg = self.write("haproxy.cfg", HAPROXY.format(**words))
        rows = self.arguments.scale * ROWS_PER_SCALE
        self.script = self.write("select.sql", SCRIPT.format(rows=rows))
        pgbouncer = self.start("pgbouncer", [self.pgbouncer, ini], self.owner)
        # -db: one process in the foreground, whose pid is the one that serves.
        haproxy = self.start("haproxy", [self.haproxy, "-db", "-f", cfg])
        keyway = self.start_keyway("keyway")
        ports = self.ports
        self.targets = [
            Target("direct", ports["postgres"], "bench"),
            Target("keyway", ports["keyway"], "bench", keyway.pid),
            Target("keyway, 2 shards", ports["keyway"], "sharded", keyway.pid),
            *self.variants(keyway),
            Target("pgbouncer", ports["pgbouncer"], "bench", pgbouncer.pid),
            Target("haproxy", ports["haproxy"], "bench", haproxy.pid),
        ]
        for it in self.targets:
            # One key on each of the two shards, whichever way they fall.
            for aid in (1, rows // 2, rows):
                text = f"SELECT aid FROM pgbench_accounts WHERE aid = {aid}"
                self.wait_until(it.name, lambda: self.wrong_answer(it, text, str(aid)))

    def start_keyway(self, name, settings=""):
        """With `settings` in front of its configuration; `name` is that of its ports."""
        postgres = self.ports["postgres"]
        auth = 'auth = "trust"' if self.auth == "trust" else ""
        sharded = "".join(sharded_database(it, count, postgres) for it, count in SHARDED.items())
        admin = self.ports["admin" if name == "keyway" else f"{name}_admin"]
        text = KEYWAY.format(keyway=self.ports[name], admin=admin, postgres=postgres, settings=settings, auth=auth,
                             pool_size=POOL_SIZE, sharded=sharded)
        toml = self.write(f"{name}.toml", text)
        return self.start(name, [self.arguments.keyway, "run", "--config", toml])

    def variants(self, keyway):
        if not getattr(self.arguments, "variants", False):
            return []
        uncounted = self.start_keyway("uncounted", "hotspots = false")
        two = self.start_keyway("two_workers", "workers = 2")
        return [
            Target("keyway, 2 shards, hotspots off", self.ports["uncounted"], "sharded", uncounted.pid, True),
            Target("keyway, 4 shards", self.ports["keyway"], "four", keyway.pid, True),
            Target("keyway, 2 workers", self.ports["two_workers"], "bench", two.pid, True),
        ]

    def wrong_answer(self, target, text, want):
        answer, problem = self.psql(target.port, target.database, text)
        return problem if problem or answer == want else f"{text} gave {answer}"

    def pgbench(self, target, mode, clients, until):
        """Transactions, and the rest of what pgbench says, or a Failure with its first error."""
        return transactions(self.pgbench_started(target, mode, clients, until))

    def pgbench_started(self, target, mode, clients, until, **environment):
        command = [self.bin / "pgbench", "-n", "-h", "127.0.0.1", "-p", target.port, "-U", USER, "-M", mode,
                   "-c", clients, "-j", min(self.arguments.threads, clients), "-f", self.script, *until, target.database]
        return subprocess.Popen([str(it) for it in command], cwd=self.directory,
                                env=client_environment() | environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, preexec_fn=turns.die_with_parent)

    def samples(self, targets, mode, clients):
        """One cell once: the Sample of each target, or the Failure that it met. They take turns of a tenth of a
        second. Logins cost CPU time too (SCRAM), so a run of one transaction per client is taken off the proxy's account."""
        found, logins, self.loads = {}, {}, {}
        for target in targets:
            try:
                # The first of a cell opens server connections too, which is no login of a client.
                self.pgbench(target, mode, clients, ["-t", 1])
                turns.rest()
                before = cpu_seconds(target.pid)
                count, _ = self.pgbench(target, mode, clients, ["-t", 1])
                turns.rest()
                logins[target.name] = count, cpu_seconds(target.pid) - before
                started = self.pgbench_started(target, mode, clients, ["-T", turns.FOREVER_S])
                self.loads[target.name] = turns.Load(started, clients, target.pid)
                if not self.loads[target.name].start():
                    raise Failure("its clients do not log in")
            except Failure as failure:
                found[target.name] = failure
        turns.take_turns([it for name, it in self.loads.items() if name not in found], self.arguments.seconds)
        for name, load in self.loads.items():
            if name not in found:
                count, problem = load.end()
                found[name] = sample_of(load, clients, count, *logins[name]) if count else Failure(problem or "no transaction")
        self.end_loads()
        return found

    def end_loads(self):
        for it in self.loads.values():
            it.kill()
        self.loads = {}


def sample_of(load, clients, count, logins, logins_cpu_s):
    """No client waits between its transactions, so that their rate tells the latency."""
    tps = count / load.active_s
    cpu_us = max(load.cpu_s - logins_cpu_s, 0.0) * 1e6 / max(count - logins, 1)
    return Sample(tps, clients * 1000 / tps, cpu_us if load.proxy_pid else None)


def transactions(pgbench):
    """How many a pgbench has done when it ends, and what it says."""
    out, errors = pgbench.communicate()
    count, problem = turns.counted_by(pgbench, out, errors)
    if count is None:
        raise Failure(problem)
    return count, out


def number(pattern, text):
    found = re.search(pattern, text)
    if found is None:
        raise Failure(f"pgbench printed nothing like {pattern}:\n{text}")
    return float(found[1])


def keeps_prepared(pgbouncer):
    """Whether it knows prepared statements in transaction mode."""
    version = re.search(r"(\d+)\.(\d+)", version_of(pgbouncer, "--version"))
    return version is None or (int(version[1]), int(version[2])) >= (1, 21)


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


def connects_per_second(bench, target):
    """A login, one statement, the end: SCRAM-SHA-256 without TLS."""
    _, out = bench.pgbench(target, "simple", CONNECT_CLIENTS, ["-C", "-T", bench.arguments.seconds])
    return number(r"tps = ([\d.]+)", out)


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
    ("connects per second", "direct keyway pgbouncer haproxy", connects_per_second),
    ("CPU us per transaction, alternating application_name", "keyway pgbouncer", alternating_cpu_us),
    (f"system calls per transaction, {SYSCALL_CLIENTS} clients", "keyway pgbouncer haproxy", syscalls_per_transaction),
    (f"p99 of p50, {CROWD} clients, pool of {POOL_SIZE}", "keyway pgbouncer", crowd_p99_of_p50),
]


@dataclass(frozen=True)
class Goal:
    what: str
    # "at most" or "at least".
    sense: str
    goal: float
    measured: float | None


def goal_lines(goals):
    """Each as goal, measured, and how much of the goal that is."""
    lines = ["| what | goal | measured | of the goal | |", "|---|---|--:|--:|---|"]
    for it in goals:
        if it.measured is None:
            lines.append(f"| {it.what} | {it.sense} {it.goal:.2f} | not measured | | |")
            continue
        is_met = it.measured <= it.goal if it.sense == "at most" else it.measured >= it.goal
        ratio = it.measured / it.goal
        lines.append(f"| {it.what} | {it.sense} {it.goal:.2f} | {it.measured:.2f} | {ratio:.2f} | {'met' if is_met else 'missed'} |")
    return lines


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

    def extra(what, over=None):
        values = [extras.get((what, it)) for it in ("keyway", over) if it]
        if None in values:
            return None
        return statistics.median(values[0]) / (statistics.median(values[1]) if over else 1)

    def slowest(other):
        """Transactions per second of the other one's, in the cell where that is least."""
        cells = [(mode, clients) for mode in bench.arguments.modes for clients in bench.arguments.clients]
        pairs = [(cell(mode, "keyway", "tps", clients), cell(mode, other, "tps", clients)) for mode, clients in cells]
        ratios = [it for it in (ratio(*pair) for pair in pairs) if it is not None]
        return min(ratios) if ratios else None

    connects, _, syscalls, crowd = (it[0] for it in EXTRAS)
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
        Goal(f"{connects} of PgBouncer's", "at least", 1.5, extra(connects, "pgbouncer")),
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


def share(value, whole):
    return "" if value is None or not whole else f"{value / whole:.2f}"


def causes(failures):
    """Each error once, with the target that it belongs to. pgbench numbers its clients."""
    found = {}
    for (what, clients, target), text in failures.items():
        text = re.sub(r'^pgbench: error: |client \d+ |"P\d+_\d+"', "", text).strip().splitlines()[0]
        found.setdefault((target, what if clients is None else f"mode {what}"), text)
    return [f"`{target}` fails in {what}: {text}" for (target, what), text in found.items()]


def version_of(command, option):
    done = subprocess.run([str(command), option], capture_output=True, text=True)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def commit(keyway):
    """Of this tree, if the program was built in it."""
    if ROOT / "target" not in keyway.parents:
        return ""
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""


def processor():
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def today():
    return datetime.datetime.now(datetime.timezone.utc).date()


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


def plural(count):
    return "" if count == 1 else "s"


def write_document(text, begin=BEGIN, end=END):
    document = DOCUMENT.read_text()
    if document.count(begin) != 1 or document.count(end) != 1:
        raise Failure(f"{DOCUMENT} has not one {begin} and one {end}")
    before, rest = document.split(begin)
    after = rest.split(end)[1]
    DOCUMENT.write_text(f"{before}{begin}\n{text}{end}{after}")


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def add_programs(parser):
    parser.add_argument("--keyway", type=Path, default=ROOT / "target" / "release" / "keyway", help="the program")
    parser.add_argument("--pgbouncer", type=Path, help="another one than the system's")
    parser.add_argument("--run-as", default="postgres", help="who runs PostgreSQL when root starts this (postgres)")


def parse_arguments():
    parser = argparse.ArgumentParser(description="Keyway beside PostgreSQL, PgBouncer and HAProxy")
    modes = ("simple", "extended", "prepared")
    add_programs(parser)
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
    arguments.keyway = arguments.keyway.resolve()
    return arguments


def check_names(bench):
    unknown = set(bench.arguments.targets or ()) - {it.name for it in bench.targets}
    if unknown:
        raise Failure(f"no target {', '.join(sorted(unknown))}; there are {', '.join(it.name for it in bench.targets)}")


def stopped(number, _):
    raise Stopped(number)


def stop_by_signals():
    """All that a Bench has started ends with it, whichever signal asks."""
    for it in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(it, stopped)


def main():
    arguments = parse_arguments()
    stop_by_signals()
    try:
        with Bench(arguments) as bench:
            check_names(bench)
            samples, failures = measure(bench)
            extras = measure_extras(bench, failures) if arguments.extras else {}
            text = report(bench, samples, extras, failures)
        print(text)
        if arguments.write:
            write_document(text)
    except Failure as failure:
        print(f"e2e: {failure}", file=sys.stderr)
        return 1
    except Stopped as stop:
        print(f"e2e: stopped by {signal.Signals(stop.args[0]).name}", file=sys.stderr)
        return 128 + stop.args[0]
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
