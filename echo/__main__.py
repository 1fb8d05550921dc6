"""`python -m echo [PORT]`: the command line of the echo server.

May import all of `echo`, and the ring server only when it is asked for, so that the epoll twin runs where io_uring
is blocked.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import resource
import select
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from echo.counts import Rates
from echo.service import EchoError, Options, Signals, UsageError, listen
from echo.workers import Workers

if TYPE_CHECKING:
    from echo.epoll_server import EpollServer
    from echo.server import RingServer


class Parser(argparse.ArgumentParser):
    """One line for bad usage, not two."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists the options)")


def integer(low: int, high: int) -> Callable[[str], int]:
    """A converter for argparse: a decimal number within bounds."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is out of range, use {low} to {high}")
        return number

    return convert


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A converter for argparse: a time within bounds."""

    def convert(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range, use {low:g} to {high:g} seconds")
        return number

    return convert


def parser() -> Parser:
    """The options, in the order in which people need them."""
    result = Parser(prog="python -m echo", description="Echo every byte back, until Ctrl-C.", allow_abbrev=False)
    add = result.add_argument
    add("port", metavar="PORT", nargs="?", type=integer(0, 65535), default=12345, help="default 12345; 0: any free one")
    add("--host", metavar="ADDR", default="127.0.0.1", help="default 127.0.0.1; 0.0.0.0 or :: (both families) for all")
    add("--mode", metavar="NAME", help="how the ring is used, default auto; --list-modes shows them")
    add("--backend", choices=("io_uring", "epoll"), default="io_uring", help="default io_uring")
    add("--workers", metavar="N", type=integer(1, 1024), default=1, help="processes that share the port, default 1")
    add("--max-connections", metavar="N", type=integer(1, 10**7), help="accept no more than this many at once")
    add("--backlog", metavar="N", type=integer(1, 65535), default=4096, help="connections that may wait, default 4096")
    add("--buffers", metavar="N", type=integer(1, 32768), default=128, help="in the shared pool, default 128")
    add("--buffer-size", metavar="BYTES", type=integer(1, 1 << 24), default=65536, help="of each, default 65536")
    add("--sqpoll", action="store_true", help="let a kernel thread take the submissions")
    add("--grace", metavar="SECONDS", type=seconds(0, 3600), default=2.0, help="to finish in after Ctrl-C, default 2")
    every = seconds(0.01, 3600)
    add("--stats", metavar="SECONDS", nargs="?", type=every, const=1.0, help="show live figures, default every second; before PORT write --stats=SECONDS")
    add("--quiet", action="store_true", help="say nothing but errors, and the port if it was 0")
    add("--list-modes", action="store_true", help="show the modes and what this kernel can do")
    return result


def say(text: str) -> None:
    """Print at once; a reader who has gone away does not stop the server."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def offer(text: str) -> None:
    """The same of what may be left out: a reader who is there and does not read does not stop the server either."""
    output = select.poll()
    output.register(1, select.POLLOUT)
    if output.poll(0):
        say(text)


def ignore(text: str) -> None:
    """What --quiet does with all that may be left out."""


def check(arguments: argparse.Namespace) -> None:
    """What argparse cannot check: options that exclude each other."""
    if arguments.backend == "epoll" and arguments.mode:
        raise UsageError("--mode belongs to --backend io_uring: leave one of the two out")
    if arguments.backend == "epoll" and arguments.sqpoll:
        raise UsageError("--sqpoll belongs to --backend io_uring: leave one of the two out")


def raise_file_limit() -> None:
    """A connection is a descriptor: take all that we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # the soft limit has to do


def serve(arguments: argparse.Namespace) -> None:
    """Run the server that the command line asks for, until a signal."""
    options = Options(
        max_connections=arguments.max_connections,
        mode=arguments.mode or "auto",
        buffers=arguments.buffers,
        buffer_nbytes=arguments.buffer_size,
        sqpoll=arguments.sqpoll,
        grace=arguments.grace,
        stats=arguments.stats,
    )
    quiet = arguments.quiet
    mention = ignore if quiet else offer
    tell = Rates(mention).tell
    make_server = server_class(arguments.backend)
    raise_file_limit()
    started = time.monotonic()
    with Signals() as signals, contextlib.ExitStack() as stack:
        server: Workers | EpollServer | RingServer
        where = arguments.host, arguments.port, arguments.backlog
        if arguments.workers > 1:
            server = Workers(*where, arguments.workers, make_server, signals, options, mention, tell)
            stack.callback(server.close)
        else:
            listener = stack.enter_context(listen(*where))
            server = make_server(listener, signals.reader, options, mention, tell)
            stack.callback(server.close)
        if not quiet:
            say(f"Listening on {server.address}, {server.about}. Ctrl-C stops.")
        elif not arguments.port:
            say(server.address.rpartition(":")[2])
        server.run()
        seconds = time.monotonic() - started
        mention(f"Stopped by {server.stopped_by} after {seconds:,.1f} s: {server.counts().text()}")


def server_class(backend: str) -> type[EpollServer] | type[RingServer]:
    """The server for a backend; only that one is imported."""
    if backend == "epoll":
        from echo.epoll_server import EpollServer

        return EpollServer
    check_python()
    from echo.server import RingServer

    return RingServer


def check_python() -> None:
    """Say in one line why rawuring refuses this Python."""
    try:
        importlib.import_module("rawuring")
    except ImportError as error:
        raise EchoError(f"{error}. Or use --backend epoll.") from None


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 stopped by a signal, 2 bad usage, 1 anything else that went wrong."""
    try:
        arguments = parser().parse_args(argv)
        if arguments.list_modes:
            check_python()
            from echo.server import describe_modes

            say(describe_modes())
        else:
            check(arguments)
            serve(arguments)
    except EchoError as error:
        print(f"echo: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"echo: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the server was ready for signals
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
