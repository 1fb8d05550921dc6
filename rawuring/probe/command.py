"""The course of the probe: read the command line, let `capability` find out, print, end with the right status.

May import `hints`, `capability`, and its siblings. The one module that prints.
"""

from __future__ import annotations

import os
import signal
import sys

from ..hints import TYPE_CHECKING
from . import arguments, comparing, document, requirements, text
from .errors import UsageError
from .page import Page, printable
from .programs import Program

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from typing import TextIO

    from .document import Document
    from .requirements import Requirement


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: see `arguments.EXIT_STATUSES`."""
    try:
        options = arguments.parse(sys.argv[1:] if argv is None else argv)
        status, output = (0, arguments.parser().format_help()) if options.help else answer(options)
        show(output.rstrip("\n"))
        return status
    except UsageError as error:
        complain(str(error))
        return 2
    except OSError as error:
        complain(f"cannot write: {error.strerror or error}")
        return 5
    except KeyboardInterrupt:
        return 130


def answer(options: Namespace) -> tuple[int, str]:
    """The exit status, and what to print."""
    saved = None if options.compare is None else document.read(options.compare)
    program = None if options.program is None else Program(options.program)

    def resolve() -> tuple[dict[str, Requirement], dict[str, Requirement]]:
        return requirements.resolve_all(present, options.require), program.resolve(present) if program else {}

    present = examine(options.run)
    required, needed = resolve()
    if requirements.needs_run(present, [*required.values(), *needed.values()]):
        present = examine(run=True)
        required, needed = resolve()
    answers = [row["present"] for _, row in required.values()]
    if program:
        answers.append(program.can_choose(needed))
    status = requirements.exit_status(present, answers)
    if options.json:
        return status, document.to_json(present)

    page = Page(arguments.width(sys.stdout), arguments.has_colour(options.color, sys.stdout))
    if options.summary:
        text.summary(present, page)
    elif options.verbose or not (options.require or program or saved):
        text.report(present, page, details=options.verbose)
    else:
        text.verdict(present, page)
    if required:
        requirements.print_required(required, page)
    if program:
        program.print(present, needed, page)
    if saved:
        comparing.compare(saved, present, page, options.compare)
    return status, str(page)


def examine(run: bool) -> Document:
    """What `capability` finds out. A fault of it is told in a sentence, as whatever cannot be found out is."""
    try:
        from .. import capability

        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # inherited; it hides which signal ended a child
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return capability.document(capability.examine(run))
    except Exception as error:
        import traceback

        from . import fallback

        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}, line {place.lineno}"
        return fallback.report(f"The probe itself failed: {type(error).__name__}: {error} ({where}).")


def show(output: str) -> None:
    """Print to standard output, whatever it can encode; a reader who has gone away is no error."""
    if sys.stdout is None:  # closed by whoever started this
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(output.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        give_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise


def complain(line: str) -> None:
    """Print to standard error, if there is one that takes it: the exit status says enough."""
    if sys.stderr is None:
        return
    try:
        print(f"probe: {printable(line)}", file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Lead a stream nowhere: what is still buffered would be written, and fail, when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
