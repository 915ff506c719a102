"""Loads that take turns of a tenth of a second: one pgbench runs while the others are stopped.

What a transaction costs depends on the machine's mood, which changes from second to second, by more than what proxies differ in.
In turns as short as these every target meets every mood, so that what is left between them is their own.
"""

import contextlib
import ctypes
import random
import re
import signal
import subprocess
import time
from pathlib import Path

TURN_S = 0.1
# For pgbench's clock, which goes on while it is stopped. Its end comes by the signal that its alarm would send.
FOREVER_S = 36_000
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
# The machine rests that has nothing to run but us, at so many looks in a row; looked for so often.
REST_LOOKS, REST_LOOKS_MAX = 2, 50
REST_PAUSE_S = 0.001
PR_SET_PDEATHSIG = 1


def cpu_seconds(pid):
    """User and system time of all threads of a process, of those that ended too: the clock of its CPU time, whose number is
    made of its pid (clock_getcpuclockid(3), CPUCLOCK_SCHED of the kernel)."""
    return 0.0 if pid is None else time.clock_gettime((~pid << 3) | 2)


def die_with_parent():
    """In a child before it runs its program: a stopped one would outlive us for ever."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def rest():
    """Waits until what was under way has come to its end, in servers too; not for ever, as others may use the machine."""
    quiet = 0
    for _ in range(REST_LOOKS_MAX):
        time.sleep(REST_PAUSE_S)
        # proc(5), loadavg: what can be run now, of all there is.
        runnable = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
        quiet = quiet + 1 if runnable <= 1 else 0
        if quiet == REST_LOOKS:
            break


class Load:
    """A pgbench that is stopped but in its turns, and what it has had: seconds, and CPU time of its proxy."""

    def __init__(self, process, clients, proxy_pid):
        self.process, self.clients, self.proxy_pid = process, clients, proxy_pid
        self.active_s = self.cpu_s = 0.0

    def start(self):
        """Lets it log in. `False` is that it does not."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with self.counted():
            # Its last connection is its last socket: the last login, or the first statements, are then under way.
            while self.is_running() and self.sockets() < self.clients and time.monotonic() < deadline:
                time.sleep(0.005)
            self.signal(signal.SIGSTOP)
        self.active_s = 0.0
        return time.monotonic() < deadline

    @contextlib.contextmanager
    def counted(self):
        """What it leaves under way belongs to it."""
        begun, before = time.monotonic(), cpu_seconds(self.proxy_pid)
        yield
        rest()
        self.cpu_s += cpu_seconds(self.proxy_pid) - before
        self.active_s += time.monotonic() - begun - REST_LOOKS * REST_PAUSE_S

    def sockets(self):
        try:
            return sum(1 for it in Path(f"/proc/{self.process.pid}/fd").iterdir() if "socket:" in str(it.readlink()))
        except OSError:
            return 0

    def is_running(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.is_running():
            self.process.send_signal(number)

    def turn(self):
        with self.counted():
            self.signal(signal.SIGCONT)
            time.sleep(TURN_S)
            self.signal(signal.SIGSTOP)

    def end(self):
        """Lets it finish: how many transactions it has done, or None and what it says."""
        with self.counted():
            self.signal(signal.SIGALRM)
            self.signal(signal.SIGCONT)
            try:
                out, errors = self.process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
                return None, "pgbench does not end"
        return counted_by(self.process, out, errors)

    def kill(self):
        if self.is_running():
            self.process.kill()
            self.process.communicate()


def counted_by(pgbench, out, errors):
    """The transactions of a pgbench that has ended, or None and its first error."""
    processed = re.search(r"actually processed: (\d+)", out)
    if pgbench.returncode == 0 and processed:
        return int(processed[1]), ""
    lines = [it for it in errors.splitlines() if "ERROR" in it or "error:" in it]
    return None, (lines or [f"status {pgbench.returncode}"])[0]


def take_turns(loads, seconds):
    """Until each has been active for so long. Who comes behind whom is left to chance."""
    dice = random.Random(1)
    while any(it.is_running() and it.active_s < seconds for it in loads):
        for it in dice.sample(loads, len(loads)):
            if it.is_running():
                it.turn()
