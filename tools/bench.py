"""Measure rawuring beside its rivals: python tools/bench.py {nop,recv,echo,read,all} ...

    nop   CPU time per NOP through the ring: raw layer, owned layer, the PyPI binding liburing
    recv  CPU time to queue one recv: the same three
    echo  the echo server's modes beside its epoll twin, asyncio, uvloop and any other server
    read  random reads of 4 KiB beside os.preadv, threads and the binding
    all   everything, and the page docs/benchmarks.md from it

Contestants take turns in one run, and every ratio is that of two legs of the same round. Reports
are Markdown on stdout; --json FILE keeps every sample. Needs nothing but Python, and matplotlib for
plots; a rival that is not installed is named in the report.

Exit status: 0 measured, 1 something failed while running, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # run as a program: the path begins with this folder, not with the checkout
    sys.path.insert(0, ROOT)

from echo import needs
from tools import load
from tools.bench_parts import echo, echo_report, measure, page, plot, read_report, servers
from tools.bench_parts.echo_figures import Settings, Table
from tools.bench_parts.measure import BenchError, Json
from tools.load_parts.base import LoadError

MODES = "modes"
"""Stands for every mode of ours in a list of rows."""
DEFAULT_ROWS = f"{MODES},auto,epoll,asyncio,uvloop"
FEW_ROWS = "auto,bundle,zero-copy,epoll,asyncio,uvloop"

MOST = {"nop": 4096, "recv": 256}
"""The largest batch: of receives, as many as a socket holds the data for."""
MOST_DEPTH = 1024


def number_list(text: str) -> list[int]:
    try:
        return [load.positive(item) for item in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a list of numbers, such as 1,8,64") from None


def name_list(text: str) -> list[str]:
    names: list[str] = []
    for name in (word.strip() for word in text.split(",")):
        names += needs.MODES if name == MODES else filter(None, [name])
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text} names a row twice")
    return names


def external(text: str) -> servers.Server:
    try:
        return servers.external_row(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None


def external_anew(text: str) -> servers.Server:
    server = external(text)
    server.fresh = True
    return server


def plot_file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in plot.SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(plot.SUFFIXES)}")
    if not plot.available():
        raise argparse.ArgumentTypeError(plot.MISSING)
    return path


def add_pairs(command: argparse.ArgumentParser, pairs: int) -> None:
    command.add_argument("--pairs", type=load.positive, default=pairs, metavar="N",
                         help="rounds (default %(default)s)")  # fmt: skip


def add_servers(command: argparse.ArgumentParser) -> None:
    add_pairs(command, 9)
    command.add_argument("--seconds", type=load.duration, default=1.0, help="length of each leg of a server (default 1)")
    command.add_argument("--rows", type=name_list, default=DEFAULT_ROWS, metavar="NAME,NAME,...",
                         help="modes of ours (modes: all of them; auto: the one it picks), epoll, asyncio, "
                         "asyncio-streams, uvloop (default %(default)s)")  # fmt: skip
    command.add_argument("--against", metavar="NAME", default="auto",
                         help="the row that others are compared with: auto, or if it is none the first")  # fmt: skip
    command.add_argument("--server", type=external, action="append", default=[], metavar="'NAME=COMMAND {port}'",
                         help="one more row, in any language (may be repeated)")  # fmt: skip
    command.add_argument("--server-anew", type=external_anew, action="append", dest="server",
                         metavar="'NAME=COMMAND {port}'",
                         help="the same, started anew before each of its legs: for one that leaks")  # fmt: skip
    command.add_argument("--client-backend", choices=["auto", *load.BACKENDS], default="auto",
                         help="what our load generator stands on")  # fmt: skip


def add_reads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--depth-of-reads" if "all" in command.prog else "--depth", dest="depths", type=number_list,
                         default=[1, 32, 256], metavar="N,N,...", help="reads in flight (default 1,32,256)")  # fmt: skip
    command.add_argument("--files", type=number_list, default=[1, 64], metavar="N,N,...",
                         help="over how many files (default 1,64)")  # fmt: skip
    command.add_argument("--bytes", type=load.positive, default=256 << 20, metavar="N", dest="nbytes",
                         help="of all files together (default 256 MiB)")  # fmt: skip
    command.add_argument("--leg", type=load.duration, default=0.2, metavar="SECONDS",
                         help="length of each leg of a reader, about (default 0.2)")  # fmt: skip
    command.add_argument("--folder", type=Path, metavar="FOLDER", help="where to put the files for a while")


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", type=Path, metavar="FILE", help="write every leg there")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = load.Arguments(prog="bench.py", description="Measure rawuring beside its rivals.")
    commands = parser.add_subparsers(dest="what", required=True, metavar="{nop,recv,echo,read,all}")
    for what, batches, help_text in (
        ("nop", [1, 8, 64, 256], "CPU time per NOP through the ring"),
        ("recv", [64], "CPU time to queue one recv"),
    ):
        command = commands.add_parser(what, help=help_text)
        command.add_argument("--batch", type=number_list, default=batches, metavar="N,N,...",
                             help="requests per submission (default %(default)s)")  # fmt: skip
        add_pairs(command, 25)
        command.add_argument("--leg", type=load.duration, default=0.02, metavar="SECONDS",
                             help="length of each leg, about (default 0.02)")  # fmt: skip
        add_json(command)
    of_echo = commands.add_parser("echo", help="echo servers side by side")
    of_echo.add_argument("--connections", type=number_list, default=[50, 200, 1], metavar="N,N,...",
                         help="one table for each (default 50,200,1)")  # fmt: skip
    of_echo.add_argument("--size", type=load.positive, default=512, metavar="BYTES", help="of a message (default 512)")
    kind = of_echo.add_mutually_exclusive_group()
    kind.add_argument("--depth", type=load.positive, default=1, metavar="N",
                      help="messages in flight on each connection (default 1)")  # fmt: skip
    kind.add_argument("--rate", type=load.rate, metavar="N", help="so many messages a second, whoever keeps up: an open loop")
    kind.add_argument("--churn", action="store_true", help="a connection for each message")
    kind.add_argument("--deaf", type=number_list, metavar="N,N,...",
                      help="what the connections keep beside so many peers that send and never read")  # fmt: skip
    add_servers(of_echo)
    of_echo.add_argument("--fresh", action="store_true", help="start each server anew before each of its legs")
    of_echo.add_argument("--client", metavar="'COMMAND'",
                         help="another load generator; {port}, {connections}, {size}, {depth} and {seconds} are filled "
                         "in, and it prints a rate such as '1234 response/sec'")  # fmt: skip
    of_echo.add_argument("--plot", type=plot_file, metavar="FILE",
                         help="draw it, as .svg or .png; with several tables their connections go into the name")  # fmt: skip
    add_json(of_echo)
    of_read = commands.add_parser("read", help="file reads side by side")
    add_pairs(of_read, 9)
    add_reads(of_read)
    of_read.add_argument("--plot", type=plot_file, metavar="FILE", help="draw it, as .svg or .png")
    add_json(of_read)
    of_all = commands.add_parser("all", help="everything, and a page of it")
    add_servers(of_all)
    add_reads(of_all)
    of_all.add_argument("--rows-beyond", type=name_list, default=FEW_ROWS, metavar="NAME,NAME,...",
                        help="rows of the tables that the seed did not have (default %(default)s)")  # fmt: skip
    of_all.add_argument("--write", type=Path, metavar="FILE", help="write the page there, and its plots beside it")
    of_all.add_argument("--from", type=Path, dest="data", metavar="FILE",
                        help="measure nothing: make the page from what --json kept")  # fmt: skip
    add_json(of_all)
    options = parser.parse_args(argv)
    command = commands.choices[options.what]
    if options.what in ("echo", "all"):
        names = options.rows + [server.name for server in options.server]
        if len(set(names)) < len(names):
            command.error("two rows have the same name")
        if not names:
            command.error("there is no row to measure")
    if options.what == "echo":
        if options.size * options.depth > load.MOST_IN_FLIGHT:
            command.error(f"--size times --depth is at most {load.MOST_IN_FLIGHT} bytes")
        if options.client and (options.churn or options.rate or options.deaf):
            command.error("--client brings its own kind of load: leave --churn, --rate and --deaf out")
    if options.what in ("read", "all") and max(options.depths) > MOST_DEPTH:
        command.error(f"a depth is at most {MOST_DEPTH}")
    if options.what in MOST and max(options.batch) > MOST[options.what]:
        command.error(f"a batch is at most {MOST[options.what]}")
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.resolve().parent}")
    return options


def server_rows(names: Sequence[str], more: Sequence[servers.Server]) -> tuple[list[servers.Server], list[str]]:
    """The rows of those names and more of them, and why some are missing."""
    wanted = [servers.python_row(name) for name in names]
    rows = [*(row for row in wanted if isinstance(row, servers.Server)), *more]
    missing = [row for row in wanted if isinstance(row, str)]
    if not rows:
        raise BenchError(f"no server is left to measure: {'; '.join(missing)}")
    return rows, missing


def bench_nop(options: argparse.Namespace) -> tuple[Json, str]:
    from tools.bench_parts import ring

    with measure.pinned(measure.cpus()[-1]):
        result = ring.run(options.what, options.batch, options.pairs, options.leg)
    return result, ring.report(result)


def bench_echo(options: argparse.Namespace) -> tuple[Json, str]:
    rows, missing = server_rows(options.rows, options.server)
    cpus = measure.cpus()

    def settings(connections: int, deaf: int = 0) -> Settings:
        return Settings(
            connections, options.size, options.seconds, options.pairs, cpus[0], cpus[-1], depth=options.depth,
            rate=options.rate, churn=options.churn, deaf=deaf, client=options.client,
            client_backend=options.client_backend, fresh=options.fresh,
        )  # fmt: skip

    tables: list[list[Table]] = []
    with servers.running(rows, cpus[0]) as (up, refused):
        missing += refused
        for connections in options.connections:
            variants = [settings(connections, deaf) for deaf in [0, *(options.deaf or [])]]
            tables.append(echo.run(up, variants, options.against))
    every = [table for group in tables for table in group]
    if options.plot:
        for table in (group[0] for group in tables if group[0].measured()):
            name = options.plot
            if len(tables) > 1:
                name = name.with_stem(f"{name.stem}-{table.settings.connections}")
            plot.echo(table, name)
    result = {
        "benchmark": "echo",
        "missing": missing,
        "failed": echo_report.failures(every),
        "tables": [table.to_json() for table in every],
    }
    text = echo_report.report(every, missing)
    if options.deaf:
        text += "\n\n" + "\n\n".join(echo_report.deaf_table(group) for group in tables if group[0].measured())
    return result, text


def bench_read(options: argparse.Namespace) -> tuple[Json, str]:
    from tools.bench_parts import read

    result = read.run(options.depths, options.files, options.nbytes, options.pairs, options.leg, options.folder)
    if options.plot:
        plot.reads(result, options.plot)
    return result, read_report.report(result)


def measure_all(options: argparse.Namespace, words: Sequence[str]) -> Json:
    """Everything that the page tells of, as data."""
    from tools.bench_parts import read, ring

    where = measure.environment()
    cpus = measure.cpus()

    fifty = Settings(50, 512, options.seconds, options.pairs, cpus[0], cpus[-1], client_backend=options.client_backend)
    many, one = replace(fifty, connections=200), replace(fifty, connections=1)
    other_loads = [replace(fifty, depth=16), replace(fifty, size=65_536), replace(fifty, churn=True),
                   replace(fifty, rate=20_000.0)]  # fmt: skip
    lasting = [server for server in options.server if not server.fresh]  # the others leak what these loads use up
    rows, missing = server_rows(options.rows, options.server)
    with servers.running(rows, cpus[0], tolerant=True) as (up, refused):
        seed = [echo.run(up, [each], options.against)[0] for each in (fifty, many, one)]
    few, _ = server_rows(options.rows_beyond, lasting)
    with servers.running(few, cpus[0], tolerant=True) as (up, more_refused):
        beyond = [echo.run(up, [each], options.against)[0] for each in other_loads]
        deaf = echo.run(up, [many, replace(many, deaf=1), replace(many, deaf=20)], options.against)
    reads = read.run(options.depths, options.files, options.nbytes, options.pairs, options.leg, options.folder)
    with measure.pinned(cpus[-1]):
        nop = ring.run("nop", [1, 8, 64, 256], 25, 0.02)
    return {
        "benchmark": "all",
        "environment": where,
        "command": f"python3 tools/bench.py {echo_report.plain_command(words)}",
        "missing": list(dict.fromkeys([*missing, *refused, *more_refused])),
        "failed": echo_report.failures([*seed, *beyond, *deaf]),
        "seed": [table.to_json() for table in seed],
        "beyond": [table.to_json() for table in beyond],
        "deaf": [table.to_json() for table in deaf],
        "read": reads,
        "nop": nop,
    }


def bench_all(options: argparse.Namespace, words: Sequence[str]) -> tuple[Json, str]:
    result = json.loads(options.data.read_text()) if options.data else measure_all(options, words)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")  # before anything can go wrong with the page
    data = page.Data(result)
    images: dict[str, str] = {}
    if options.write and plot.available():
        images = page.draw(data, options.write.with_suffix(""))
    elif options.write:
        print(f"bench.py: the page has no plots: {plot.MISSING}", file=sys.stderr)
    text = page.write(data, images)
    if options.write:
        options.write.write_text(text)
        text = f"written: {options.write}"
    return result, text


BENCHES: dict[str, Callable[[argparse.Namespace], tuple[Json, str]]] = {
    "nop": bench_nop, "recv": bench_nop, "echo": bench_echo, "read": bench_read,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    words = sys.argv[1:] if argv is None else argv

    def ended(signal_number: int, frame: object) -> NoReturn:
        sys.exit(128 + signal_number)

    signal.signal(signal.SIGTERM, ended)  # the servers are ended on the way out
    load.raise_fd_limit()
    where = measure.environment()
    try:
        if options.what == "all":
            result, text = bench_all(options, words)
        else:
            result, report = BENCHES[options.what](options)
            text = f"{measure.environment_line(where)}\n\n{report}"
            if options.json:
                options.json.write_text(json.dumps({"environment": where, **result}, indent=1) + "\n")
    except (BenchError, LoadError, OSError) as error:
        measure.progress_done()
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        measure.progress_done()
        return 128 + signal.SIGINT
    print(text)
    failures = result.get("failed", [])
    for failure in failures:
        print(f"bench.py: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
