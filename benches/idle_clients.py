#!/usr/bin/env python3
"""Memory of Keyway for each client that is connected and asks nothing.

Starts a PostgreSQL of its own and Keyway, connects clients and lets each ask once, so that all that a session
keeps is there; then reads Keyway's resident set before and after.

    benches/idle_clients.py                 10,000 clients
    benches/idle_clients.py --clients 1000

Needs as many file descriptors here and in Keyway: the limit is raised as far as the hard one lets it.
"""

import argparse
import resource
import socket
import struct
import sys
from pathlib import Path

import e2e

FEW = 100
LOGIN_TIMEOUT_S = 30

KEYWAY = """listen = "127.0.0.1:{keyway}"
admin = "127.0.0.1:{admin}"
[limits]
clients_max = {clients_max}
[users.bench]
password = "bench"
auth = "trust"
[databases.bench]
servers = ["127.0.0.1:{postgres}"]
"""


class IdleClients(e2e.Bench):
    def start_proxies(self):
        toml = self.write("keyway.toml", KEYWAY.format(clients_max=self.arguments.clients + FEW, **self.ports))
        self.keyway = self.start("keyway", [self.arguments.keyway, "run", "--config", toml])
        ask = lambda: self.psql(self.ports["keyway"], "bench", "SELECT 1")[1]
        self.wait_until("keyway", ask)

    def resident_kb(self):
        lines = Path(f"/proc/{self.keyway.pid}/status").read_text().splitlines()
        return next(int(it.split()[1]) for it in lines if it.startswith("VmRSS:"))


def message(tag, body):
    return tag + struct.pack("!I", len(body) + 4) + body


def answered(stream):
    """Reads up to ReadyForQuery."""
    received = b""
    while True:
        received += stream.recv(65536)
        at = 0
        while at + 5 <= len(received):
            length = struct.unpack_from("!I", received, at + 1)[0] + 1
            tag = received[at:at + 1]
            if tag == b"E":
                raise e2e.Failure(f"keyway answers {received[at:at + length]!r}")
            at += length
            if tag == b"Z" and at == len(received):
                return


def connect(port):
    stream = socket.create_connection(("127.0.0.1", port), LOGIN_TIMEOUT_S)
    body = struct.pack("!I", 3 << 16) + b"user\0bench\0database\0bench\0application_name\0idle\0\0"
    stream.sendall(struct.pack("!I", len(body) + 4) + body)
    answered(stream)
    stream.sendall(message(b"Q", b"SELECT 1\0"))
    answered(stream)
    return stream


def measure(bench, count):
    port = bench.ports["keyway"]
    # What the first clients bring about is no client's own: plans, pools, the allocator's pages.
    clients = [connect(port) for _ in range(FEW)]
    base = bench.resident_kb()
    clients += [connect(port) for _ in range(count)]
    bench.check()
    grown = bench.resident_kb() - base
    print(f"{count} idle clients: {grown} kB over {base} kB, {grown * 1024 / count:.0f} bytes each")
    for it in clients:
        it.close()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=e2e.positive, default=10_000)
    parser.add_argument("--keyway", type=Path, default=e2e.ROOT / "target/release/keyway", help="the program")
    parser.add_argument("--run-as", default="postgres", help="whose PostgreSQL is, where we are root")
    arguments = parser.parse_args()
    arguments.scale = 1
    arguments.keyway = arguments.keyway.resolve()
    return arguments


def main():
    arguments = parse_arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with IdleClients(arguments) as bench:
            measure(bench, arguments.clients)
    except (e2e.Failure, OSError) as failure:
        print(f"idle_clients: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
