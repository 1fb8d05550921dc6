"""A load generator for echo servers: python tools/load.py PORT [--connections 50] [--size 512] ...

By default a closed loop: on each connection `depth` messages are in flight, and the next is sent when
one has come back. With --rate an open loop: so many messages a second, whatever the server makes of
them, and a message's wait begins when it was to be sent. With --churn each connection is for one
message: connect, echo, close. Deaf peers (--deaf) send beside all that and never read.

Every byte that comes back is compared with what was sent there. After a warm-up the measured window
is timed; then what is in flight is awaited, and a byte too many is an error as well. With --watch PID
the CPU time of that process is read at both ends of the window, so it belongs to exactly the echoes
that were counted.

Imports the standard library and its parts, and with them rawuring for the ring backend. Starts and
ends no server. Exit status: 0 measured and every byte right, 1 not, 2 bad usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # run as a program: the path begins with this folder, not with the checkout
    sys.path.insert(0, ROOT)

from tools.load_parts.base import Load, LoadError, histogram, percentile
from tools.load_parts.churn import EpollChurn
from tools.load_parts.epoll import EpollStreams
from tools.load_parts.streams import Shape, Streams
from tools.load_parts.usage import resident_nbytes, usage

MOST_IN_FLIGHT = 1 << 24

STALLED_AFTER_S = 10
"""A phase that lasts this much longer than it should: the server has stopped answering."""

EXTENSION_NS = 20_000_000
"""A window in which nothing was answered is made longer by this, again and again."""

CONNECTED_WITHIN_S = 10.0

MOST_LOW_WATER = 1 << 18
"""A single message up to this size is received when it is whole, not piece by piece."""

PARTS = {"p50_ns": 0.50, "p99_ns": 0.99, "p999_ns": 0.999}
"""The percentiles of the waits."""

BACKENDS = ("ring", "epoll")
"""How to be quick, and how to run everywhere."""


def connect(host: str, port: int, count: int, low_water: int) -> list[socket.socket]:
    """That many connections that wake up for `low_water` bytes; closed again if one of them fails."""
    with contextlib.ExitStack() as undo:
        socks = []
        for _ in range(count):
            sock = undo.enter_context(socket.create_connection((host, port), CONNECTED_WITHIN_S))
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
            socks.append(sock)
        undo.pop_all()
    return socks


def measure(load: Load, warm_up_s: float, seconds: float, watch: Sequence[int]) -> dict[str, Any]:
    """Start the load, let it settle, measure for that long (and until there is an answer), and wait for the last one."""

    def stalled(signal_number: int, frame: object) -> NoReturn:
        raise LoadError(
            f"no end after {STALLED_AFTER_S} s more than planned: {load.unanswered()} connections wait for an answer"
        )

    def run_for(duration_s: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, duration_s + STALLED_AFTER_S)
        load.run(time.perf_counter_ns() + int(duration_s * 1e9))

    previous = signal.signal(signal.SIGALRM, stalled)
    try:
        signal.setitimer(signal.ITIMER_REAL, STALLED_AFTER_S)
        load.start()
        run_for(warm_up_s)
        load.forget()
        server, own = usage(watch), usage([os.getpid()])
        began_ns = time.perf_counter_ns()
        run_for(seconds)
        while not load.echoes:  # the machine had no time for us, or the server has stopped answering
            load.run(time.perf_counter_ns() + EXTENSION_NS)
        wall_ns = time.perf_counter_ns() - began_ns
        server, own = usage(watch).since(server), usage([os.getpid()]).since(own)
        resident = resident_nbytes(watch)
        echoes, turns, waits_ns = load.echoes, load.turns, load.waits_ns()
        signal.setitimer(signal.ITIMER_REAL, STALLED_AFTER_S)
        load.drain()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return {
        "echoes": echoes,
        "turns": turns,
        "wall_ns": wall_ns,
        "client_cpu_ns": own.cpu,
        "client_waited_ns": own.waited,
        "server_cpu_ns": server.cpu,
        "server_user_ns": server.user,
        "server_system_ns": server.system,
        "server_waited_ns": server.waited,
        "server_resident_nbytes": resident,
        **{name: percentile(waits_ns, part) if waits_ns else None for name, part in PARTS.items()},
        "histogram": histogram(waits_ns),
    }


def of_streams(load: Streams) -> dict[str, Any]:
    """What there is to tell of an open loop and of deaf peers."""
    result: dict[str, Any] = {}
    if load.schedule:
        result["lag_p99_ns"] = percentile(sorted(load.schedule.lags) or [0], 0.99)
    if load.deaf:
        result["deaf_sent_nbytes"] = load.deaf_sent_nbytes()
        result["deaf_gone"] = sum(peer.gone for peer in load.deaf)
    return result


def check_silence(socks: Sequence[socket.socket]) -> None:
    """After the last answer nothing more may come."""
    for index, sock in enumerate(socks):
        with contextlib.suppress(BlockingIOError):
            extra = sock.recv(65_536, socket.MSG_DONTWAIT)
            what = f"{len(extra)} bytes too many came back" if extra else "the server closed it"
            raise LoadError(f"connection {index}: {what} after the last answer")


def raise_fd_limit() -> None:
    """Raise the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Arguments(argparse.ArgumentParser):
    """Bad usage is one line, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help tells more)\n")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def rate(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1e7:
        raise argparse.ArgumentTypeError(f"{text} is not a number of messages a second up to 10,000,000")
    return number


def duration(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds up to 3600")
    return number


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="load.py", description="A load generator for echo servers.")
    parser.add_argument("port", type=positive)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--connections", type=positive, default=50, metavar="N")
    parser.add_argument("--size", type=positive, default=512, metavar="BYTES")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--depth", type=positive, default=1, metavar="N",
                      help="messages in flight on each connection")  # fmt: skip
    kind.add_argument("--rate", type=rate, metavar="N",
                      help="an open loop of so many messages a second over all connections")  # fmt: skip
    kind.add_argument("--churn", action="store_true",
                      help="a connection for each message, N of them at a time")  # fmt: skip
    parser.add_argument("--deaf", type=positive, default=0, metavar="N", help="more peers that send and never read")
    parser.add_argument("--deaf-bytes", type=positive, default=1 << 30, metavar="BYTES",
                        help="what each of them sends at most (default 1 GiB)")  # fmt: skip
    parser.add_argument("--seconds", type=duration, default=1.0, help="the measured window")
    parser.add_argument("--warm-up", type=duration, default=0.2, metavar="SECONDS")
    parser.add_argument("--client-backend", choices=["auto", *BACKENDS], default="auto")
    parser.add_argument("--watch", type=positive, action="append", default=[], metavar="PID",
                        help="also tell the CPU time of this process (may be repeated)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    if options.size * options.depth > MOST_IN_FLIGHT:
        parser.error(f"--size times --depth is at most {MOST_IN_FLIGHT} bytes")
    if options.churn and options.deaf:
        parser.error("--deaf goes with connections that stay, not with --churn")
    return options


def made(backend: str, on_ring: Callable[[], Load], on_epoll: Callable[[], Load]) -> Load:
    """The load on that backend; "auto" is the first that works here."""
    if backend == "epoll":
        return on_epoll()
    try:
        return on_ring()
    except (ImportError, NotImplementedError, OSError):
        if backend == "ring":
            raise
        return on_epoll()


def churned(options: argparse.Namespace) -> dict[str, Any]:
    """Measure connections that come and go."""
    family, _, _, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]

    def on_ring() -> Load:
        from tools.load_parts.churn import RingChurn

        return RingChurn((family, address), options.connections, options.size)

    def on_epoll() -> Load:
        return EpollChurn((family, address), options.connections, options.size)

    with contextlib.closing(made(options.client_backend, on_ring, on_epoll)) as load:
        return {"backend": load.backend, **measure(load, options.warm_up, options.seconds, options.watch)}


def streamed(options: argparse.Namespace) -> dict[str, Any]:
    """Measure connections that stay."""
    shape = Shape(options.size, options.depth, options.rate, options.deaf_bytes)

    def on_ring() -> Streams:
        from tools.load_parts.ring import RingStreams

        return RingStreams(socks, shape, deaf)

    def on_epoll() -> Streams:
        return EpollStreams(socks, shape, deaf)

    whole = options.depth == 1 and not options.rate and options.size <= MOST_LOW_WATER
    with contextlib.ExitStack() as cleanup:
        socks = connect(options.host, options.port, options.connections, options.size if whole else 1)
        for sock in socks:
            cleanup.callback(sock.close)
        deaf = connect(options.host, options.port, options.deaf, 1)
        for sock in deaf:
            cleanup.callback(sock.close)
        with contextlib.closing(made(options.client_backend, on_ring, on_epoll)) as load:
            assert isinstance(load, Streams)
            result = measure(load, options.warm_up, options.seconds, options.watch)
            result.update(of_streams(load))
        check_silence(socks)
    return {"backend": load.backend, **result}


def summary(result: dict[str, Any]) -> str:
    """What a reader at a terminal wants to know."""
    wall_ns, echoes = result["wall_ns"], result["echoes"]

    def wait(name: str) -> str:
        return "-" if result[name] is None else f"{result[name] / 1e3:,.0f} us"

    each = "connections for one message each" if result["churn"] else "connections"
    lines = [
        f"{echoes / wall_ns * 1e9:,.0f} echoes/s over {result['connections']} {each}, every byte right; this client "
        f"({result['backend']}) was {result['client_cpu_ns'] / wall_ns:.0%} busy; wait p50 {wait('p50_ns')}, "
        f"p99 {wait('p99_ns')}, p99.9 {wait('p999_ns')}"
    ]
    if result["rate"]:
        lines.append(f"asked for {result['rate']:,.0f} a second; this client was late by {wait('lag_p99_ns')} (p99)")
    if result["deaf"]:
        lines.append(f"{result['deaf']} deaf peers sent {result['deaf_sent_nbytes']:,} bytes; "
                     f"the server hung up on {result['deaf_gone']}")  # fmt: skip
    if result["watched"]:
        lines.append(f"watched: {result['server_cpu_ns'] / echoes / 1e3:.2f} us of CPU an echo, "
                     f"{result['server_resident_nbytes'] / 2**20:,.0f} MiB resident at the end")  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    raise_fd_limit()
    try:
        result = churned(options) if options.churn else streamed(options)
    except (ImportError, LoadError, NotImplementedError, OSError) as error:  # the third is an UnsupportedError
        print(f"load.py: {error}", file=sys.stderr)
        return 1
    asked = ("connections", "size", "depth", "rate", "churn", "deaf")
    result = {**{name: getattr(options, name) for name in asked}, "watched": len(options.watch), **result}
    print(json.dumps(result) if options.json else summary(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
