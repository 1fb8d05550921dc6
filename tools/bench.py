"""Measure rawuring beside its rivals: python tools/bench.py {nop,recv,echo} ...

    nop   CPU time per NOP through the ring: raw layer, owned layer, the PyPI binding liburing
    recv  CPU time to queue one recv: the same three
    echo  the echo server's modes beside its epoll twin, asyncio, uvloop and any other server

Contestants take turns in one run, and every ratio is that of two legs of the same round. Reports
are Markdown on stdout; --json FILE keeps every sample. Needs nothing but Python; a rival that is
not installed is named in the report.

Exit status: 0 measured, 1 something failed while running, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # run as a program: the path begins with this folder, not with the checkout
    sys.path.insert(0, ROOT)

from tools import load
from tools.bench_parts import echo, measure, servers
from tools.bench_parts.measure import BenchError, Json
from tools.load_parts.base import LoadError

DEFAULT_ROWS = "auto,epoll,asyncio,uvloop"

MOST = {"nop": 4096, "recv": 256}
"""The largest batch: of receives, as many as a socket holds the data for."""


def number_list(text: str) -> list[int]:
    try:
        return [load.positive(item) for item in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a list of numbers, such as 1,8,64") from None


def name_list(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text} names a row twice")
    return names


def external(text: str) -> servers.Server:
    try:
        return servers.external_row(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = load.Arguments(prog="bench.py", description="Measure rawuring beside its rivals.")
    commands = parser.add_subparsers(dest="what", required=True, metavar="{nop,recv,echo}")
    for what, batches, help_text in (
        ("nop", [1, 8, 64, 256], "CPU time per NOP through the ring"),
        ("recv", [64], "CPU time to queue one recv"),
    ):
        command = commands.add_parser(what, help=help_text)
        command.add_argument("--batch", type=number_list, default=batches, metavar="N,N,...",
                             help="requests per submission (default %(default)s)")  # fmt: skip
        command.add_argument("--pairs", type=load.positive, default=25, metavar="N", help="rounds (default 25)")
        command.add_argument("--leg", type=load.duration, default=0.02, metavar="SECONDS",
                             help="length of each leg, about (default 0.02)")  # fmt: skip
        command.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    command = commands.add_parser("echo", help="echo servers side by side")
    command.add_argument("--connections", type=number_list, default=[50], metavar="N,N,...",
                         help="one table for each (default 50)")  # fmt: skip
    command.add_argument("--size", type=load.positive, default=512, metavar="BYTES", help="of a message (default 512)")
    command.add_argument("--depth", type=load.positive, default=1, metavar="N",
                         help="messages in flight on each connection (default 1)")  # fmt: skip
    command.add_argument("--pairs", type=load.positive, default=9, metavar="N", help="rounds (default 9)")
    command.add_argument("--seconds", type=load.duration, default=1.0, help="length of each leg (default 1)")
    command.add_argument("--rows", type=name_list, default=name_list(DEFAULT_ROWS), metavar="NAME,NAME,...",
                         help="modes of ours, epoll, asyncio, asyncio-streams, uvloop; the first is what the others are compared "
                         f"with (default {DEFAULT_ROWS})")  # fmt: skip
    command.add_argument("--server", type=external, action="append", default=[], metavar="'NAME=COMMAND {port}'",
                         help="one more row, in any language (may be repeated)")  # fmt: skip
    command.add_argument("--fresh", action="store_true", help="start each server anew before each of its legs")
    command.add_argument("--client", metavar="'COMMAND'",
                         help="another load generator; {port}, {connections}, {size}, {depth} and {seconds} are filled "
                         "in, and it prints a rate such as '1234 response/sec'")  # fmt: skip
    command.add_argument("--client-backend", choices=["auto", *load.BACKENDS], default="auto",
                         help="what our load generator stands on")  # fmt: skip
    command.add_argument("--json", type=Path, metavar="FILE", help="write every leg there")
    options = parser.parse_args(argv)
    if options.what == "echo":
        names = options.rows + [server.name for server in options.server]
        if len(set(names)) < len(names):
            command.error("two rows have the same name")
        if not names:
            command.error("there is no row to measure")
        if options.size * options.depth > load.MOST_IN_FLIGHT:
            command.error(f"--size times --depth is at most {load.MOST_IN_FLIGHT} bytes")
    elif max(options.batch) > MOST[options.what]:
        commands.choices[options.what].error(f"a batch is at most {MOST[options.what]}")
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.resolve().parent}")
    return options


def bench_ring(options: argparse.Namespace) -> tuple[Json, str]:
    from tools.bench_parts import ring

    with measure.pinned(measure.cpus()[-1]):
        result = ring.run(options.what, options.batch, options.pairs, options.leg)
    return result, ring.report(result)


def bench_echo(options: argparse.Namespace) -> tuple[Json, str]:
    wanted = [servers.python_row(name) for name in options.rows]
    rows = [row for row in wanted if isinstance(row, servers.Server)] + options.server
    missing = [row for row in wanted if isinstance(row, str)]
    if not rows:
        raise BenchError(f"no server is left to measure: {'; '.join(missing)}")
    cpus = measure.cpus()
    settings = [
        echo.Settings(connections, options.size, options.depth, options.seconds, options.pairs, options.client,
                      options.client_backend, server_cpu=cpus[0], client_cpu=cpus[-1], fresh=options.fresh)  # fmt: skip
        for connections in options.connections
    ]
    with servers.running(rows, cpus[0]):
        tables = [(each, echo.run(rows, each)) for each in settings]
    result = {
        "benchmark": "echo",
        "missing": missing,
        "tables": [echo.as_json(each, table) for each, table in tables],
    }
    return result, echo.report(tables, missing)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)

    def ended(signal_number: int, frame: object) -> NoReturn:
        sys.exit(128 + signal_number)

    signal.signal(signal.SIGTERM, ended)  # the servers are ended on the way out
    load.raise_fd_limit()
    where = measure.environment()
    try:
        result, text = bench_echo(options) if options.what == "echo" else bench_ring(options)
        if options.json:
            options.json.write_text(json.dumps({"environment": where, **result}, indent=1) + "\n")
    except (BenchError, LoadError, OSError) as error:
        measure.progress_done()
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        measure.progress_done()
        return 128 + signal.SIGINT
    print(f"{measure.environment_line(where)}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
