"""What benches run: a PostgreSQL of their own, PgBouncer, HAProxy in TCP mode and Keyway, on free ports and in one temporary
directory; pgbench before each of them, and what it costs the proxy.
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

USER = PASSWORD = "bench"
# A replica may not allow fewer than its primary.
SERVER_CONNECTIONS_MAX = 2000
POOL_SIZE = 20
ROWS_PER_SCALE = 100_000
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
# The cells of the main table where further variants of Keyway stand beside the others.
VARIANT_CLIENTS = 16
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
                 "two_workers_admin", "floor")
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
            "shared_buffers": "256MB", "max_connections": SERVER_CONNECTIONS_MAX, "authentication_timeout": "10min", "fsync": "off", "synchronous_commit": "off",
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
        floor = self.start_floor()
        self.targets = [
            Target("direct", ports["postgres"], "bench"),
            Target("keyway", ports["keyway"], "bench", keyway.pid),
            Target("keyway, 2 shards", ports["keyway"], "sharded", keyway.pid),
            *self.variants(keyway),
            Target("pgbouncer", ports["pgbouncer"], "bench", pgbouncer.pid),
            Target("haproxy", ports["haproxy"], "bench", haproxy.pid),
            *floor,
        ]
        for it in self.targets:
            # One key on each of the two shards, whichever way they fall.
            for aid in (1, rows // 2, rows):
                text = f"SELECT aid FROM pgbench_accounts WHERE aid = {aid}"
                self.wait_until(it.name, lambda: self.wrong_answer(it, text, str(aid)))

    def start_floor(self):
        """The relay that does nothing but receive and send, if one is named."""
        path = getattr(self.arguments, "floor", None)
        if path is None:
            return []
        port, postgres = self.ports["floor"], self.ports["postgres"]
        started = self.start("floor", [path.resolve(), port, f"127.0.0.1:{postgres}"])
        return [Target("floor", port, "bench", started.pid)]

    def start_keyway(self, name, settings=""):
        """With `settings` in front of its configuration; `name` is that of its ports."""
        toml = self.write_keyway(name, settings)
        return self.start(name, [self.arguments.keyway, "run", "--config", toml])

    def write_keyway(self, name, settings):
        """The file of its configuration, with `settings` in front."""
        postgres = self.ports["postgres"]
        auth = 'auth = "trust"' if self.auth == "trust" else ""
        sharded = "".join(sharded_database(it, count, postgres) for it, count in SHARDED.items())
        admin = self.ports["admin" if name == "keyway" else f"{name}_admin"]
        text = KEYWAY.format(keyway=self.ports[name], admin=admin, postgres=postgres, settings=settings, auth=auth,
                             pool_size=POOL_SIZE, sharded=sharded)
        return self.write(f"{name}.toml", text)

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

    def all_samples(self, targets, mode, clients):
        """As `samples`, where no target may fail."""
        found = self.samples(targets, mode, clients)
        for it in found.values():
            if isinstance(it, Failure):
                raise it
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


def plural(count):
    return "" if count == 1 else "s"


def share(value, whole):
    return "" if value is None or not whole else f"{value / whole:.2f}"


def write_document(text, begin, end):
    document = DOCUMENT.read_text()
    if document.count(begin) != 1 or document.count(end) != 1:
        raise Failure(f"{DOCUMENT} has not one {begin} and one {end}")
    before, rest = document.split(begin)
    after = rest.split(end)[1]
    DOCUMENT.write_text(f"{before}{begin}\n{text}{end}{after}")


def table_of(name, arguments, bench, text_of, marks):
    """What a bench that makes one table ends as: the table that `text_of` makes of the Bench printed, and written between its marks if
    that is wanted, or what failed. The exit status."""
    try:
        with bench(arguments) as it:
            text = text_of(it)
        print(text)
        if arguments.write:
            write_document(text, *marks)
    except (Failure, OSError) as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 1
    except Stopped as stop:
        return 128 + stop.args[0]
    return 0


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def add_programs(parser):
    parser.add_argument("--keyway", type=Path, default=ROOT / "target" / "release" / "keyway", help="the program")
    parser.add_argument("--pgbouncer", type=Path, help="another one than the system's")
    parser.add_argument("--run-as", default="postgres", help="who runs PostgreSQL when root starts this (postgres)")


def stopped(number, _):
    raise Stopped(number)


def stop_by_signals():
    """All that a Bench has started ends with it, whichever signal asks."""
    for it in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(it, stopped)


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
