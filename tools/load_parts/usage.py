"""What processes use up: CPU time and memory.

Imports its base only. Never starts or ends a process.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from tools.load_parts.base import LoadError


class Usage(NamedTuple):
    """What processes used up since they began, in nanoseconds."""

    cpu: int
    """CPU time of all threads, exact."""
    user: int
    """User mode's share of it, in whole clock ticks."""
    system: int
    """The kernel's share of it, in whole clock ticks."""
    waited: int
    """Time that the main thread was ready and something else ran on its CPU."""

    def since(self, before: Usage) -> Usage:
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))


def usage(pids: Sequence[int]) -> Usage:
    """The sum over these processes."""
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    cpu = user = system = waited = 0
    for pid in pids:
        try:
            # What clock_getcpuclockid(3) computes: the scheduler's clock of that process.
            cpu += time.clock_gettime_ns((~pid << 3) | 2)
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError as error:
            raise LoadError(f"process {pid} cannot be watched: {error}") from None
        user += int(fields[11]) * tick_ns
        system += int(fields[12]) * tick_ns
        with contextlib.suppress(OSError), open(f"/proc/{pid}/schedstat", encoding="ascii") as schedstat:
            waited += int(schedstat.read().split()[1])
    return Usage(cpu, user, system, waited)


def resident_nbytes(pids: Sequence[int]) -> int:
    """The memory that these processes have resident, shared pages counted once for each."""
    pages = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
                pages += int(statm.read().split()[1])
        except OSError as error:
            raise LoadError(f"process {pid} cannot be watched: {error}") from None
    return pages * os.sysconf("SC_PAGE_SIZE")
