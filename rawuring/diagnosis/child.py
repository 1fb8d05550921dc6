"""Do something in a forked child, whose end tells as well: a seccomp filter may kill it.

May import the standard library only. Never raises for what goes wrong in the child or in making
it, and never leaves a child process, whatever interrupts the wait for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

UNWRITTEN: Final = 0xFF
"""What the memory that a child answers in is filled with at first."""

TIMEOUT_S: Final = 5.0
_BEGUN: Final = 0
_PR_SET_DUMPABLE: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


class Outcome(NamedTuple):
    """What a child wrote, and the signal that ended its work. A child that could not be made wrote nothing."""

    octets: bytes
    killed_by: int | None = None
    refusal: int | None = None  # the errno with which no child could be made


def run(work: Callable[[memoryview], None], nbytes: int, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Let `work` answer in `nbytes` bytes of memory, in a forked child that has so long for it.

    The memory is shared. A pipe would need two fds, which may be what is lacking, and would not
    end while a child of another thread holds a copy. `work` had better import nothing: a module that
    another thread is importing just now stays locked in the child.
    """
    parent, pid, killed_by = os.getpid(), 0, None
    nothing = bytes([UNWRITTEN]) * nbytes
    try:
        shared = mmap.mmap(-1, nbytes + 1)
    except OSError as error:
        return Outcome(nothing, refusal=error.errno)
    with shared, memoryview(shared) as memory:
        memory[:] = nothing + bytes([UNWRITTEN])
        try:
            with warnings.catch_warnings():
                # The warning is about locks held by other threads; the child takes none.
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                pid = os.fork()
                if pid == 0:
                    _work_and_exit(work, memory)
            killed_by = _wait(pid, timeout_s)
        except (OSError, RuntimeError) as error:  # too many processes, or an interpreter that must not fork
            return Outcome(nothing, refusal=None if pid else getattr(error, "errno", None))
        finally:
            # An exception raised by a signal handler can come here in both processes.
            if os.getpid() != parent:
                os._exit(1)
            if pid > 0:
                _end(pid)
        # What ends it before it begins, a filter on what prepares it, says nothing about its work.
        return Outcome(bytes(memory[:-1]), killed_by if memory[-1] == _BEGUN else None)


def _work_and_exit(work: Callable[[memoryview], None], memory: memoryview) -> NoReturn:
    try:
        _leave_no_core()
        memory[-1] = _BEGUN
        work(memory[:-1])
    finally:
        os._exit(0)


def _leave_no_core() -> None:
    """As far as a filter lets it: sandboxes forbid limits, and what else changes a process."""
    with contextlib.suppress(OSError):
        signal.signal(signal.SIGSYS, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _wait(pid: int, timeout_s: float) -> int | None:
    """Wait for the child, which a filter may also have stopped; the signal that ended it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # SIGCHLD is ignored, or somebody else waits for any child
            return None
        if ended:
            return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        time.sleep(0.0005)
    return None


def _end(pid: int) -> None:
    """End the child if it is still there. Asked first, since its id may be another's by now."""
    with contextlib.suppress(OSError):  # it is gone, or a filter lets nobody wait
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
