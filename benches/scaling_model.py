#!/usr/bin/env python3
"""What becomes of a transaction's cost with more workers than this machine has cores: a closed queueing network.

Each worker is a customer that is never idle. It works by itself (a delay: nobody is in its way) and passes what only
one worker may have at a time (queues): the list of a pool's idle connections, twice, and the driver that reads events for all of
them (epoll, tokio's multi-threaded runtime has one). Cache lines that another worker had last make its own work longer:
what belongs to a server connection, which goes from one to the other, and the few counters that all share. Exact mean value analysis says
how often a transaction ends, and how much of the time each is held.

    benches/scaling_model.py
    benches/scaling_model.py --own-us 12 --pools 4

What the model does not know: memory bandwidth, more than one socket, hyper-threads, and whether PostgreSQL and the clients keep up.
"""

import argparse
from dataclasses import dataclass

# As they were measured of the whole: 8,600 in 4.2 us of user time.
INSTRUCTIONS_PER_US = 2_000
# What a worker waits for a cache line that another core has written last, on one socket.
LINE_US = 0.07


@dataclass(frozen=True)
class Queue:
    name: str
    visits: float
    # While it is held, of each visit: instructions, lines that come from the worker that held it before, and time in the kernel.
    instructions: int
    lines: float
    kernel_us: float = 0.0
    # How many of it there are, evenly used.
    count: int = 1

    def demand_us(self, workers):
        foreign = 1 - 1 / workers
        held_us = self.instructions / INSTRUCTIONS_PER_US + self.lines * LINE_US * foreign + self.kernel_us
        return self.visits * held_us / self.count


@dataclass(frozen=True)
class Answer:
    per_us: float
    # By queue: part of the time that it is held.
    held: dict


def analysed(own_us, queues, workers):
    """Mean value analysis, exact for one class and queues without priorities (Reiser and Lavenberg, 1980)."""
    demands = [(it, it.demand_us(workers)) for it in queues]
    lengths = [0.0] * len(demands)
    for customers in range(1, workers + 1):
        stays = [demand * (1 + length) for (_, demand), length in zip(demands, lengths)]
        # Of each kind there are several, all alike.
        whole = own_us + sum(stay * it.count for (it, _), stay in zip(demands, stays))
        per_us = customers / whole
        lengths = [per_us * it for it in stays]
    return Answer(per_us, {it.name: per_us * demand for (it, demand) in demands})


def queues_of(arguments):
    return [
        Queue("pool", 2, arguments.pool_instructions, arguments.pool_lines, count=arguments.pools),
        Queue("driver", 1, arguments.driver_instructions, arguments.driver_lines, arguments.driver_kernel_us),
    ]


def answer(arguments, workers):
    own_us = arguments.own_us + arguments.lines * LINE_US * (1 - 1 / workers)
    return analysed(own_us, queues_of(arguments), workers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own-us", type=float, default=16.0, help="of one worker, system calls too (16)")
    parser.add_argument("--lines", type=float, default=10.0, help="of a server connection and the counters that are shared (10)")
    parser.add_argument("--pools", type=int, default=1, help="that share the load evenly (1)")
    parser.add_argument("--pool-instructions", type=int, default=160, help="while its list is held (160)")
    parser.add_argument("--pool-lines", type=float, default=3.0, help="of the list (3)")
    parser.add_argument("--driver-instructions", type=int, default=900, help="to read and tell the events of a transaction (900)")
    parser.add_argument("--driver-lines", type=float, default=3.0, help="of the tasks that it wakes (3)")
    parser.add_argument("--driver-kernel-us", type=float, default=0.2, help="its part of a call of epoll_wait (0.2)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    arguments = parser.parse_args()
    print("| workers | tps | times one worker's | us per transaction | of one worker's | pool held | driver held |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    one = answer(arguments, 1).per_us
    for workers in arguments.workers:
        it = answer(arguments, workers)
        cost_us = workers / it.per_us
        print(f"| {workers} | {it.per_us * 1e6:.0f} | {it.per_us / one:.1f} | {cost_us:.1f} | {cost_us * one:.2f} | "
              f"{it.held['pool']:.0%} | {it.held['driver']:.0%} |")


if __name__ == "__main__":
    main()
