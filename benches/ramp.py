#!/usr/bin/env python3
"""How long it takes until twenty more server connections are ready, over a slow link, with SCRAM.

Starts a PostgreSQL of its own, a link that delays what goes through it, and Keyway, whose pool has one connection.
Then so many clients begin a transaction at the same moment that twenty more are needed, and each is timed from there
until all have their answers: connect, login, BEGIN and a statement.

    benches/ramp.py                      5 ms there and back
    benches/ramp.py --round-trip-ms 10

The link is a relay: it holds bytes back for half of the round trip each way, and the first ones for a round trip more,
which is what connecting takes. So a login costs five round trips, as over a real link (connect, startup, two of SCRAM,
and the first statement).
"""

import argparse
import asyncio
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import proxies
import idle_clients

MORE = 20

KEYWAY = """listen = "127.0.0.1:{keyway}"
admin = "127.0.0.1:{admin}"
[users.bench]
password = "bench"
auth = "trust"
[databases.bench]
servers = ["127.0.0.1:{link}"]
[databases.bench.pool]
size = {size}
ramp = {ramp}
"""


class Link:
    """Serves in a thread of its own until the process ends."""

    def __init__(self, port, to, round_trip_s):
        self.port, self.to, self.round_trip_s = port, to, round_trip_s
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.serve(ready)), daemon=True).start()
        if not ready.wait(10):
            raise proxies.Failure("the link does not come up")

    async def serve(self, ready):
        server = await asyncio.start_server(self.relay, "127.0.0.1", self.port)
        ready.set()
        await server.serve_forever()

    async def relay(self, reader, writer):
        connected = asyncio.get_running_loop().time() + self.round_trip_s
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        await asyncio.gather(self.carry(reader, far_writer, connected), self.carry(far_reader, writer, 0))

    async def carry(self, reader, writer, not_before):
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(65536):
                at = max(loop.time(), not_before) + self.round_trip_s / 2
                loop.call_at(at, writer.write, data)
            loop.call_later(self.round_trip_s / 2, writer.close)
        except ConnectionError:
            writer.close()


class Ramp(proxies.Bench):
    def start_proxies(self):
        self.ports["link"] = proxies.free_ports(1)[0]
        Link(self.ports["link"], self.ports["postgres"], self.arguments.round_trip_ms / 1_000)

    def once(self):
        """Milliseconds, with a Keyway of its own."""
        text = KEYWAY.format(size=MORE + 1, ramp=self.arguments.ramp, **self.ports)
        toml = self.write("keyway.toml", text)
        keyway = self.start("keyway", [self.arguments.keyway, "run", "--config", toml])
        ask = lambda: self.psql(self.ports["keyway"], "bench", "SELECT 1")[1]
        self.wait_until("keyway", ask)
        clients = [idle_clients.connect(self.ports["keyway"], None) for _ in range(MORE + 1)]

        def begin(client):
            for text in (b"BEGIN\0", b"SELECT 1\0"):
                client.sendall(idle_clients.message(b"Q", text))
                idle_clients.answered(client)

        with ThreadPoolExecutor(MORE + 1) as pool:
            began = time.monotonic()
            list(pool.map(begin, clients))
            took = time.monotonic() - began
        for it in clients:
            it.close()
        keyway.stop()
        self.started.remove(keyway)
        return took * 1_000


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--round-trip-ms", type=float, default=5)
    parser.add_argument("--ramp", type=proxies.positive, default=20, help="as in the configuration")
    parser.add_argument("--rounds", type=proxies.positive, default=5)
    proxies.add_programs(parser)
    arguments = parser.parse_args()
    proxies.stop_by_signals()
    arguments.scale = 1
    arguments.keyway = arguments.keyway.resolve()
    return arguments


def main():
    arguments = parse_arguments()
    try:
        with Ramp(arguments) as bench:
            took = [bench.once() for _ in range(arguments.rounds)]
    except (proxies.Failure, OSError) as failure:
        print(f"ramp: {failure}", file=sys.stderr)
        return 1
    print(f"{MORE} connections more, {arguments.round_trip_ms:g} ms there and back, ramp {arguments.ramp}: "
          f"median {statistics.median(took):.0f} ms of {', '.join(f'{it:.0f}' for it in took)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
