#!/usr/bin/env python3
"""Memory of Keyway for each client that is connected and asks nothing.

Starts a PostgreSQL of its own and Keyway, connects clients and lets each ask once, so that all that a session
keeps is there; then reads Keyway's resident set before, after, when all are at rest, and once more after a while in
which the kernel may have made huge pages of what is left (khugepaged looks every ten seconds).

    benches/idle_clients.py                 10,000 clients
    benches/idle_clients.py --clients 1000
    benches/idle_clients.py --tls           the same with TLS 1.3, its certificate made by openssl

Needs as many file descriptors here and in Keyway: the limit is raised as far as the hard one lets it.
"""

import argparse
import socket
import ssl
import struct
import sys
import time
import urllib.request
from pathlib import Path

import proxies

FEW = 100
LOGIN_TIMEOUT_S = 30
REST_TIMEOUT_S = 60
# A free page is given back after a second, at one of Keyway's looks, which come every second.
GIVE_BACK_S = 3
LATER_S = 45

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


class IdleClients(proxies.Bench):
    def start_proxies(self):
        text = KEYWAY.format(clients_max=self.arguments.clients + 2 * FEW, **self.ports)
        if self.arguments.tls:
            self.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-days", "2", "-subj", "/CN=localhost", "-keyout", self.directory / "key.pem",
                      "-out", self.directory / "cert.pem"])
            text += '[tls]\ncert = "cert.pem"\nkey = "key.pem"\n'
        toml = self.write("keyway.toml", text)
        self.keyway = self.start("keyway", [self.arguments.keyway, "run", "--config", toml])
        ask = lambda: self.psql(self.ports["keyway"], "bench", "SELECT 1")[1]
        self.wait_until("keyway", ask)

    def are_at_rest(self, count):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['admin']}/metrics") as answer:
            return f"\nkeyway_resting_clients {count}\n" in answer.read().decode()

    def wait_for_rest(self, count):
        deadline = time.monotonic() + REST_TIMEOUT_S
        while not self.are_at_rest(count):
            if time.monotonic() > deadline:
                raise proxies.Failure("the clients do not come to rest")
            time.sleep(0.5)
        time.sleep(GIVE_BACK_S)

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
                raise proxies.Failure(f"keyway answers {received[at:at + length]!r}")
            at += length
            if tag == b"Z" and at == len(received):
                return


def context():
    it = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    it.check_hostname, it.verify_mode = False, ssl.CERT_NONE
    return it


def connect(port, tls):
    stream = socket.create_connection(("127.0.0.1", port), LOGIN_TIMEOUT_S)
    # Else each login waits for an acknowledgement that the other side delays.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        stream.sendall(struct.pack("!II", 8, 80877103))
        if stream.recv(1) != b"S":
            raise proxies.Failure("keyway speaks no TLS")
        stream = tls.wrap_socket(stream)
    body = struct.pack("!I", 3 << 16) + b"user\0bench\0database\0bench\0application_name\0idle\0\0"
    stream.sendall(struct.pack("!I", len(body) + 4) + body)
    answered(stream)
    stream.sendall(message(b"Q", b"SELECT 1\0"))
    answered(stream)
    return stream


def tell(bench, count, base, when):
    bench.check()
    grown = bench.resident_kb() - base
    print(f"{count} clients, {when}: {grown} kB over {base} kB, {grown * 1024 / count:.0f} bytes each")


def measure(bench, count):
    port = bench.ports["keyway"]
    # What the first clients bring about is no client's own: plans, pools, the allocator's pages, the code of their rest.
    tls = context() if bench.arguments.tls else None
    clients = [connect(port, tls) for _ in range(FEW)]
    bench.wait_for_rest(FEW)
    base = bench.resident_kb()
    clients += [connect(port, tls) for _ in range(count)]
    tell(bench, count, base, "just answered")
    bench.wait_for_rest(len(clients))
    tell(bench, count, base, "at rest")
    time.sleep(LATER_S)
    tell(bench, count, base, f"at rest, {LATER_S} s later")
    for it in clients:
        it.close()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=proxies.positive, default=10_000)
    parser.add_argument("--tls", action="store_true")
    proxies.add_programs(parser)
    arguments = parser.parse_args()
    proxies.stop_by_signals()
    arguments.scale = 1
    arguments.keyway = arguments.keyway.resolve()
    return arguments


def main():
    arguments = parse_arguments()
    try:
        with IdleClients(arguments) as bench:
            measure(bench, arguments.clients)
    except (proxies.Failure, OSError) as failure:
        print(f"idle_clients: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
