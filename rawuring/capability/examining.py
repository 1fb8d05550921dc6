"""`examine`: ask, judge, and put the report together.

May import every room below capability, and its siblings. Never raises for what it finds.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import atomics
from ..diagnosis import Diagnosis, Facts, diagnoses, explain_setup_failure, facts
from ..diagnosis.report import CERTAIN, POSSIBLE
from ..errors import RawuringError, RingSetupError
from ..ring import Ring
from . import access, asking, behaviour, judging
from .answering import in_child
from .report import Kernel, Memlock, Report, Row, Tool, Verdict

_TRIAL_ENTRIES: Final = 8

# What a cause means to whoever wants a ring: by default that it is blocked.
_BLOCKED: Final = ("blocked", 3)
_ABSENT: Final = ("absent", 4)
_UNDECIDED: Final = ("undecided", 5)
_STATUS_OF: Final[Mapping[str, tuple[str, int]]] = {
    "absent": _ABSENT,
    "not-linux": _ABSENT,
    "emulator": _ABSENT,
    "memory-order": _ABSENT,
    "unknown": _UNDECIDED,
}


def examine(run: bool = False) -> Report:
    """Find out what is allowed here; with `run` try each behaviour too, which takes longer.

    Leaves no fd, process or file behind. Where rings count against RLIMIT_MEMLOCK, the kernel gives the room
    of the last of them back some milliseconds later.
    """
    seen = facts.gather()
    ring, found = _why_no_ring(seen)
    can_make_ring = seen.trial_errno == 0
    can_register = seen.register_errno in (errno.EINVAL, errno.EBADF)
    answers = asking.ask(can_make_ring, can_register)
    kernel = _kernel(seen)
    allowed = access.describe(seen, ring)
    tables = {name: judging.rows(name, answer, kernel.release) for name, answer in answers.items()}
    tried = behaviour.rows(run and not found, kernel.release)
    beyond = {name: answer.beyond for name, answer in answers.items()}
    return Report(
        tool=_tool(),
        kernel=kernel,
        verdict=_verdict(found, tables["opcodes"], allowed.memlock, kernel),
        access=allowed,
        diagnosis=found,
        **tables,
        behaviour=tried,
        surprises=judging.surprises({**tables, "behaviour": tried}, beyond, kernel.release),
        beyond=beyond,
    )


def _why_no_ring(seen: Facts) -> tuple[str | None, tuple[Diagnosis, ...]]:
    """What a `Ring` of this library says, and why none can be made: None and nothing if it can."""
    found = diagnoses(seen)
    # After ENOMEM it was tried for as long as a `Ring` tries.
    answer: Any = [errno.ENOMEM, None] if seen.trial_errno == errno.ENOMEM else in_child(_try_ring)
    if answer == []:
        return None, found
    text, why = _explain(*(answer or (None, None)))
    return text, found or (why,)


def _explain(errno_value: int | None, text: str | None) -> tuple[str, Diagnosis]:
    """In this process, which what is told to do may name, and not in the child."""
    if errno_value is not None:
        why = explain_setup_failure(errno_value, _TRIAL_ENTRIES, 0)
        return why.text, why
    if text is None:
        text = "A process that makes a ring is ended, or does not answer."
        return text, Diagnosis("unknown", POSSIBLE, text, "Run it under `strace -f` to see what ends it.")
    if atomics.backend == "none":
        return text, Diagnosis("memory-order", CERTAIN, f"{text}.", "Install libatomic (Debian: libatomic1).")
    return text, Diagnosis("unknown", POSSIBLE, f"io_uring_setup succeeds, and then: {text}.", "Look at `ulimit -a`.")


def _try_ring() -> list[object]:
    """The errno of a set-up that failed, or the text of what failed else; empty if a `Ring` can be made."""
    try:
        Ring(_TRIAL_ENTRIES).close()
    except RingSetupError as error:
        return [error.errno, None]
    except (OSError, RawuringError) as error:
        return [None, str(error)]
    return []


def _kernel(seen: Facts) -> Kernel:
    here = os.uname()
    # What the kernel's own code answers, or the sysctl that it shows, says that it is there.
    is_there = seen.setup_errno == errno.EFAULT or seen.enter_errno == errno.EBADF or seen.disabled is not None
    return Kernel(
        release=here.release,
        version=here.version,
        machine=here.machine,
        page_nbytes=mmap.PAGESIZE,
        config_io_uring=True if is_there else facts.configured(),
    )


def _tool() -> Tool:
    package = sys.modules[__name__.partition(".")[0]]
    return Tool(name=package.__name__, version=package.__version__, python=f"CPython {sys.version.split()[0]}")


def _verdict(found: Sequence[Diagnosis], opcodes: Sequence[Row], memlock: Memlock, kernel: Kernel) -> Verdict:
    if found:
        return Verdict(*status_of(found[0]), found[0].sentence)
    text = f"io_uring can be used here: Linux {kernel.release}"
    if any(row.present is not None for row in opcodes):
        count = sum(row.present is True for row in opcodes)
        text += f", with {count} of {len(opcodes)} known operations"
    if memlock.is_charged and memlock.largest_ring_entries is not None:
        text += f"; RLIMIT_MEMLOCK has room for one ring of {memlock.largest_ring_entries} entries"
    return Verdict("usable", 0, f"{text}.")


def status_of(first: Diagnosis) -> tuple[str, int]:
    """Status and exit code of a system where no ring can be made for this reason."""
    is_guess = first.confidence == POSSIBLE and first.cause != "policy"  # which says that there is one, not which
    return _UNDECIDED if is_guess else _STATUS_OF.get(first.cause, _BLOCKED)
