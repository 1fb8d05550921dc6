"""The kernel's worker threads (io-wq), which run what would block: where, and how many.

May import abi, errors, syscalls. Workers belong to the thread that owns the ring, or to the SQ
thread of one with Setup.SQPOLL: every ring of the thread shares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct, pack
from typing import Final, NamedTuple

from .. import abi
from .calling import call

__all__ = ["WorkerLimits", "iowq_aff", "iowq_max_workers", "unregister_iowq_aff"]

_LIMITS: Final = Struct("=2I")


def iowq_aff(fd: int, cpus: Iterable[int]) -> None:
    """Let the workers run on these CPUs alone. CPUs that do not exist are ignored, even when all of them are.

    Since      Linux 5.14           Man   io_uring_register_iowq_aff(3)
    Errors     EINVAL one that the cpuset of the thread excludes, or none was given
    """
    bits = sum(1 << cpu for cpu in set(cpus))
    # unsigned long[], the lowest CPUs first.
    words = [bits >> shift & 0xFFFF_FFFF_FFFF_FFFF for shift in range(0, bits.bit_length(), 64)]
    mask = bytearray(pack(f"={len(words)}Q", *words))
    call(fd, abi.Register.IOWQ_AFF, mask, len(mask))


def unregister_iowq_aff(fd: int) -> None:
    """Let the workers run on every CPU their thread may use.

    Since      Linux 5.14           Man   io_uring_unregister_iowq_aff(3)
    """
    call(fd, abi.Register.UNREGISTER_IOWQ_AFF)


class WorkerLimits(NamedTuple):
    """How many workers there may be: for work that ends soon (files), and for other (sockets, pipes)."""

    bound: int
    unbound: int


def iowq_max_workers(fd: int, bound: int = 0, unbound: int = 0) -> WorkerLimits:
    """Set how many workers there may be, 0 leaves a number as it is. Returns the limits before.

    Since      Linux 5.15           Man   io_uring_register_iowq_max_workers(3)
    Errors     EINVAL more than 2**31 - 1
    """
    arg = bytearray(_LIMITS.pack(bound, unbound))
    call(fd, abi.Register.IOWQ_MAX_WORKERS, arg, 2)
    return WorkerLimits(*_LIMITS.unpack(arg))
