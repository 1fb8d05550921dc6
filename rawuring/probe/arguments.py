"""The command line of the probe.

May import `hints` and its sibling `errors`.
"""

from __future__ import annotations

import argparse
import os

from ..hints import TYPE_CHECKING, NoReturn
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

PROGRAM = "python -m rawuring"
EXIT_STATUSES = """\
exit status:
  0  io_uring can be used, and all that was required is there
  1  it can be used, and something required is missing
  2  bad usage
  3  a policy blocks it: seccomp, a sysctl, a security module, a limit
  4  there is none: not Linux, too old, built without it
  5  it could not be found out
"""


class Parser(argparse.ArgumentParser):
    """One line for bad usage, not two."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists the options)")


def parser() -> Parser:
    """The options, in the order in which people need them."""
    result = Parser(
        prog=PROGRAM,
        description="Say whether io_uring can be used here, what this kernel can do, and if not, why.",
        epilog=EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    add = result.add_argument
    how = result.add_mutually_exclusive_group()
    how.add_argument("--summary", action="store_true", help="the verdict, and a line for each section")
    how.add_argument("-v", "--verbose", action="store_true", help="every row, its man page, and what answered")
    how.add_argument("-j", "--json", action="store_true", help="everything as JSON, by rawuring/probe/schema.json")
    add("--run", action="store_true", help="make a small round trip for what only that can show; takes seconds")
    add("--require", metavar="NAME,...", action="append", default=[], help="is this there? any name of a report's rows")
    add("--for", metavar="PROGRAM", dest="program", help="which modes of a program can run here, such as echo")
    add("--compare", metavar="FILE", help="what differs from a report that --json made elsewhere or earlier")
    add("--color", choices=("auto", "always", "never"), default="auto", help="default auto: where a terminal shows it")
    add("-h", "--help", action="store_true", help="show this, and end")
    return result


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = parser().parse_args(arguments)
    options.require = [name.strip() for names in options.require for name in names.split(",")]
    if "" in options.require:
        raise UsageError("--require: a name is empty")
    if options.json and options.compare is not None:
        raise UsageError("--compare shows differences as text: leave one of --compare and --json out")
    return options


def has_colour(choice: str, output: TextIO | None) -> bool:
    """Is text to be coloured? NO_COLOR (no-color.org) forbids it unless it was asked for."""
    if choice != "auto":
        return choice == "always"
    is_unwanted = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return output is not None and output.isatty() and not is_unwanted


def width(output: TextIO | None) -> int:
    """Of the terminal, by COLUMNS or as it says itself; 80 where there is none."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and 0 < len(columns) < 6 and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(output.fileno()).columns or 80 if output else 80
    except (OSError, ValueError):  # not a terminal; no descriptor
        return 80

