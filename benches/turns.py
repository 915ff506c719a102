"""Loads that take turns of a tenth of a second: one pgbench runs while the others are stopped.

What a transaction costs depends on the machine's mood, which changes from second to second, by more than what proxies differ in.
In turns as short as these every target meets every mood, so that what is left between them is their own.
"""

import contextlib
import re
import signal
import subprocess
import time
from pathlib import Path

TURN_S = 0.1
# For pgbench's clock, which goes on while it is stopped. Its end comes by the signal that its alarm would send.
FOREVER_S = 36_000
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
# A proxy rests that has used so little CPU time in a millisecond; looked for so often.
REST_CPU_S, REST_LOOKS_MAX = 20e-6, 50


def cpu_seconds(pid):
    """User and system time of all threads of a process, of those that ended too. To the nanosecond: the clock of a
    process's CPU time, whose number is made of its pid (clock_getcpuclockid(3), CPUCLOCK_SCHED of the kernel)."""
    return 0.0 if pid is None else time.clock_gettime((~pid << 3) | 2)


class Load:
    """A pgbench that is stopped but in its turns, and what it has had: seconds, and CPU time of its proxy."""

    def __init__(self, process, clients, proxy_pid):
        self.process, self.proxy_pid = process, proxy_pid
        self.active_s = self.cpu_s = 0.0
        with self.counted():
            started = time.monotonic()
            # Its last connection is its last socket: the last login, or the first statements, are then under way.
            while self.is_running() and self.sockets() < clients and time.monotonic() < started + START_TIMEOUT_S:
                time.sleep(0.005)
            self.signal(signal.SIGSTOP)
        self.active_s = 0.0

    @contextlib.contextmanager
    def counted(self):
        """What it leaves under way belongs to it: over is over when the proxy has come to rest."""
        begun, before = time.monotonic(), cpu_seconds(self.proxy_pid)
        yield
        last = cpu_seconds(self.proxy_pid)
        for _ in range(REST_LOOKS_MAX):
            time.sleep(0.001)
            now = cpu_seconds(self.proxy_pid)
            if now - last < REST_CPU_S:
                break
            last = now
        self.cpu_s += cpu_seconds(self.proxy_pid) - before
        self.active_s += time.monotonic() - begun

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
    """Until each has been active for so long."""
    while any(it.is_running() and it.active_s < seconds for it in loads):
        for it in loads:
            if it.is_running():
                it.turn()
