"""What an echo server keeps when many have come and gone: python tests/echo_endurance.py [--mode multishot] ...

Two measurements, each on a new server: its memory with many connections at once, all echoing; and its memory and
descriptors after many connections were opened and closed in every manner. The tests make them with small numbers; as a
program it makes them with the given ones, prints figures, and fails if the server kept anything.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from echo_client import NOISE, EchoProcess, expect, expect_end, in_threads, message, receive, reset
from emulation import HANG_S

BATCH = 60  # connections at a time: one of each manner from ten threads
SPARE_FDS = 100


@dataclass
class Figures:
    """What was seen of the server before and after."""

    before_nbytes: int
    after_nbytes: int
    before_fds: int
    after_fds: int


def connect_from(port: int, number: int) -> socket.socket:
    """A connection from one of many addresses: each has its own ports, of which closed ones are blocked for a while."""
    sock = socket.create_connection(("127.0.0.1", port), HANG_S, (f"127.0.{1 + number // 200 % 200}.{1 + number % 200}", 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def many_at_once(server: EchoProcess, nconnections: int, nbytes: int = 512) -> Figures:
    """Connect all, then have all of them send at once, twice, and check every byte."""
    before_nbytes, before_fds = server.resident_nbytes(), server.nfds()
    with ExitStack() as stack:
        socks = [stack.enter_context(connect_from(server.port, number)) for number in range(nconnections)]
        for turn in range(2):
            for number, sock in enumerate(socks):
                sock.sendall(message(number, turn, nbytes))
            for number, sock in enumerate(socks):
                expect(sock, message(number, turn, nbytes))
        figures = Figures(before_nbytes, server.resident_nbytes(), before_fds, server.nfds())
    server.settle()
    return figures


def clean(sock: socket.socket) -> None:
    sock.sendall(NOISE[:2000])
    expect(sock, NOISE[:2000])


def half_close(sock: socket.socket) -> None:
    sock.sendall(NOISE[:20_000])
    sock.shutdown(socket.SHUT_WR)
    expect(sock, NOISE[:20_000])
    expect_end(sock)


def reset_when_idle(sock: socket.socket) -> None:
    clean(sock)
    reset(sock)


def silent(sock: socket.socket) -> None:
    """Nothing is ever sent."""


def in_mid_send(sock: socket.socket) -> None:
    """Closed while much is on its way in both directions."""
    sock.sendall(NOISE[:200_000])
    receive(sock, 100)


def reset_in_mid_send(sock: socket.socket) -> None:
    in_mid_send(sock)
    reset(sock)


MANNERS = (clean, half_close, reset_when_idle, silent, in_mid_send, reset_in_mid_send)


def come_and_go(server: EchoProcess, nconnections: int) -> None:
    """So many connections, a few at a time, each opened and closed in one of the manners."""

    def one(number: int) -> None:
        with connect_from(server.port, number) as sock:
            MANNERS[number % len(MANNERS)](sock)

    in_threads(one, range(nconnections), 10)
    server.settle()


def opened_and_closed(server: EchoProcess, nconnections: int) -> Figures:
    """The same, after as many as it takes to have everything made that is made once."""
    come_and_go(server, min(nconnections, 2000))
    before_nbytes, before_fds = server.resident_nbytes(), server.nfds()
    come_and_go(server, nconnections)
    return Figures(before_nbytes, server.resident_nbytes(), before_fds, server.nfds())


def servers(arguments: argparse.Namespace) -> Iterator[tuple[str, tuple[str, ...]]]:
    for mode in arguments.modes.split(","):
        most = ("--max-connections", str(arguments.connections)) if "fixed" in mode else ()
        yield mode, ("--backend", "epoll") if mode == "epoll" else ("--mode", mode, *most)


def main() -> int:
    parser = argparse.ArgumentParser(description="What an echo server keeps when many have come and gone.")
    parser.add_argument("--modes", default="multishot", help="modes of the server or epoll, with commas between")
    parser.add_argument("--connections", type=int, default=1000, help="at once (default %(default)s)")
    parser.add_argument("--turnover", type=int, default=3000, help="opened and closed (default %(default)s)")
    parser.add_argument("--nbytes", type=int, default=512, help="of each message of those at once")
    arguments = parser.parse_args()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    if arguments.connections + SPARE_FDS > hard_limit:
        parser.error(f"no more than {hard_limit - SPARE_FDS} connections: the limit of descriptors is {hard_limit}")
    failed = False
    for name, options in servers(arguments):
        with EchoProcess(*options) as server:
            figures = many_at_once(server, arguments.connections, arguments.nbytes)
            each = (figures.after_nbytes - figures.before_nbytes) / arguments.connections
            print(
                f"{name}: {figures.before_nbytes / 2**20:.1f} MiB alone, {figures.after_nbytes / 2**20:.1f} MiB with "
                f"{arguments.connections} connections that echo: {each:.0f} bytes each", flush=True,
            )  # fmt: skip
            server.stop()
        with EchoProcess(*options) as server:
            figures = opened_and_closed(server, arguments.turnover)
            grown = figures.after_nbytes - figures.before_nbytes
            print(
                f"{name}: {arguments.turnover} opened and closed: {grown / 1024:+.0f} KiB, "
                f"{figures.after_fds - figures.before_fds:+d} descriptors", flush=True,
            )  # fmt: skip
            failed = failed or grown > 2 << 20 or figures.after_fds != figures.before_fds
            server.stop()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
