"""Explain ENOMEM, EMFILE and ENFILE of a set-up.

May import `abi`. Never observes anything: what is known is given.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Final

from .. import abi
from .facts import MemoryLimit
from .report import CERTAIN, LIKELY, POSSIBLE, Diagnosis, failed, limit_text

_RINGS_HEADER_NBYTES: Final = 64  # heads, tails, masks and counters, at least


def explain_enomem(entries: int, setup_flags: int, cq_entries: int | None, memory: MemoryLimit) -> Diagnosis:
    nbytes = ring_nbytes(entries, setup_flags, cq_entries)
    evidence = (f"the ring needs about {nbytes} bytes", *memory.evidence())
    soft = memory.soft
    if memory.exempt or memory.charged is False or soft == -1:
        return Diagnosis(
            "memory",
            LIKELY,
            f"{failed(errno.ENOMEM)}: the kernel could not get about {nbytes} bytes for the ring, "
            "and RLIMIT_MEMLOCK is not the reason.",
            "Ask for fewer entries, or give this process more memory "
            "(memory.max of its cgroup; `docker run --memory=SIZE`; MemoryMax= of the systemd unit).",
            evidence,
        )
    too_small = soft is not None and soft < nbytes
    confidence = CERTAIN if memory.charged and too_small else LIKELY if memory.charged or too_small else POSSIBLE
    if soft is None:
        room = "its size is unknown"
    else:
        fits = largest_ring(soft, setup_flags)
        room = f"{soft} bytes for all rings of this user together, enough for "
        room += f"one of {fits} entries" if fits else "none"
    return Diagnosis(
        "memlock",
        confidence,
        f"{failed(errno.ENOMEM)}: the ring's memory counts against RLIMIT_MEMLOCK ({room}), "
        f"and about {nbytes} bytes more do not fit.",
        _raise_memlock(memory, nbytes),
        evidence,
    )


def explain_fd_limit(errno_value: int, soft: int | None, hard: int | None) -> Diagnosis:
    if errno_value == errno.ENFILE:
        return Diagnosis(
            "fd-limit",
            CERTAIN,
            f"{failed(errno_value)}: the system as a whole has as many files open as it may have.",
            "As root: `sysctl fs.file-max` shows the limit, `sysctl -w fs.file-max=NUMBER` raises it.",
        )
    if soft is not None and _may_raise(soft, hard):
        how = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({hard}, {hard}))"
    else:
        how = f"as root, `prlimit --pid {os.getpid()} --nofile=65536:65536`"
    return Diagnosis(
        "fd-limit",
        CERTAIN,
        f"{failed(errno_value)}: this process has as many files open as it may have ({limit_text(soft)}).",
        f"Close some, or raise the limit: {how}.",
        (f"RLIMIT_NOFILE is {limit_text(soft)} (soft), {limit_text(hard)} (hard)",),
    )


def ring_nbytes(entries: int, setup_flags: int, cq_entries: int | None = None) -> int:
    """About what the kernel allocates, in whole pages: the SQEs; the CQEs and the SQ's array."""
    sq = min(power_of_two(entries), abi.MAX_ENTRIES)
    cq = min(power_of_two(cq_entries), abi.MAX_CQ_ENTRIES) if cq_entries else 2 * sq
    sqe_nbytes = 128 if setup_flags & abi.Setup.SQE128 else 64
    cqe_nbytes = 32 if setup_flags & abi.Setup.CQE32 else 16
    array_nbytes = 0 if setup_flags & abi.Setup.NO_SQARRAY else 4 * sq
    return _whole_pages(sq * sqe_nbytes) + _whole_pages(_RINGS_HEADER_NBYTES + cq * cqe_nbytes + array_nbytes)


def largest_ring(limit_nbytes: int, setup_flags: int) -> int:
    """The most entries that a ring can have within the limit if it is the only one; 0 if none."""
    entries = abi.MAX_ENTRIES
    while entries and ring_nbytes(entries, setup_flags) > limit_nbytes:
        entries //= 2
    return entries


def power_of_two(count: int) -> int:
    """The next one, as the kernel rounds."""
    return 1 << max(0, count - 1).bit_length()


def user_name() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return "USER"


def group_name(gid: int) -> str | None:
    try:
        import grp

        return grp.getgrgid(gid).gr_name
    except (ImportError, KeyError, OverflowError):
        return None


def _raise_memlock(memory: MemoryLimit, nbytes: int) -> str:
    wanted = max(64 << 20, 4 * power_of_two(nbytes))
    ways = [
        f"at once, as root: `prlimit --pid {os.getpid()} --memlock={wanted}:{wanted}`",
        f"from the next login: a line `{user_name()} - memlock {wanted // 1024}` in /etc/security/limits.d/rings.conf",
        f"for a systemd service: LimitMEMLOCK={wanted}",
        f"for a container: `docker run --ulimit memlock={wanted}:{wanted}`",
    ]
    if memory.soft is not None and _may_raise(memory.soft, memory.hard):
        ways.insert(0, f"in the program: resource.setrlimit(resource.RLIMIT_MEMLOCK, ({memory.hard}, {memory.hard}))")
    return f"Close rings, ask for fewer entries, or raise the limit ({'; '.join(ways)})."


def _may_raise(soft: int, hard: int | None) -> bool:
    return soft >= 0 and hard is not None and (hard < 0 or hard > soft)


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
