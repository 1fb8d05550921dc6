"""A ring's queues at one moment, copied out of the shared memory.

May import abi, mmap_ring, ring, `requests` and `completions`. It moves no head and no tail. A
copy is not made in one piece: on a ring that is at work meanwhile (SQPOLL, completions that
come in) its parts may be of slightly different moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import abi
from ..mmap_ring import RingMemory
from ..ring import Ring
from .completions import CQE_NBYTES, Cqe, cqe_at
from .requests import SQE_NBYTES, Sqe, sqe
from .values import U32

_WIDE_OPS = (abi.Op.NOP128, abi.Op.URING_CMD128)


class Entry(NamedTuple):
    """An SQE or CQE in its place."""

    position: int
    """The count of slots before it since the ring was made."""
    slot: int
    nslots: int
    value: Sqe | Cqe


@dataclass(frozen=True)
class RingState:
    """Both queues. Positions are free-running: the slot of one is its low bits.

    The SQ's slots up to `sq_head` are consumed by the kernel, from there to `sq_published` it may
    consume them, from there to `sq_tail` they are written and it does not see them. The CQ's
    from `cq_head` to `cq_tail` hold completions that nobody has taken.
    """

    setup_flags: abi.Setup
    sq_entries: int
    sqe_nbytes: int
    has_sq_array: bool
    sq_head: int
    sq_published: int
    sq_tail: int
    sq_flags: abi.SqRingFlag
    sq_dropped: int
    cq_entries: int
    cqe_nbytes: int
    cq_head: int
    cq_tail: int
    cq_flags: abi.CqRingFlag | None
    """None where the kernel has no such word (before Linux 5.8)."""
    cq_overflow: int
    sqe_array: bytes = field(repr=False)
    cqe_array: bytes = field(repr=False)

    def sqes(self, start: int, stop: int) -> Iterator[Entry]:
        """The SQEs at the positions from `start` to `stop`, no more than there are slots."""
        position, stop = start, min(stop, start + self.sq_entries)
        while position < stop:
            slot = position & (self.sq_entries - 1)
            at = slot * self.sqe_nbytes
            nslots = 1
            if self.setup_flags & abi.Setup.SQE_MIXED and self.sqe_array[at] in _WIDE_OPS and slot + 1 < self.sq_entries:
                nslots = 2
            nbytes = SQE_NBYTES * nslots if self.sqe_nbytes == SQE_NBYTES else self.sqe_nbytes
            yield Entry(position, slot, nslots, sqe(self.sqe_array, at, nbytes))
            position += nslots

    def cqes(self, start: int, stop: int) -> Iterator[Entry]:
        """The CQEs at the positions from `start` to `stop`, fillers included, no more than there are slots."""
        position, stop = start, min(stop, start + self.cq_entries)
        while position < stop:
            slot = position & (self.cq_entries - 1)
            found = cqe_at(self.cqe_array, slot * self.cqe_nbytes, self.cqe_nbytes)
            nslots = 1
            mixed = self.setup_flags & abi.Setup.CQE_MIXED and found.cqe_flags & abi.CqeFlag.F_32
            if mixed and slot + 1 < self.cq_entries:
                found = cqe_at(self.cqe_array, slot * CQE_NBYTES, 2 * CQE_NBYTES)
                nslots = 2
            yield Entry(position, slot, nslots, found)
            position += nslots


def copy_of(memory: RingMemory, sq_tail: int, setup_flags: int) -> RingState:
    """The state of the queues in `memory`, of which `sq_tail` slots were ever written."""
    # Read in the order in which the words are moved, so that no queue seems to hold less than nothing.
    cq_head, sq_head = memory.cq_head.load(), memory.sq_head.load_acquire()
    sq_published, cq_tail = memory.sq_tail.load(), memory.cq_tail.load_acquire()
    consumed = sq_tail - (sq_tail - sq_head & U32)
    return RingState(
        setup_flags=abi.Setup(setup_flags),
        sq_entries=memory.sq_entries,
        sqe_nbytes=memory.sqe_nbytes,
        has_sq_array=memory.has_sq_array,
        sq_head=consumed,
        sq_published=consumed + (sq_published - sq_head & U32),
        sq_tail=sq_tail,
        sq_flags=abi.SqRingFlag(memory.sq_flags.load()),
        sq_dropped=memory.sq_dropped.load(),
        cq_entries=memory.cq_entries,
        cqe_nbytes=memory.cqe_nbytes,
        cq_head=cq_head,
        cq_tail=cq_head + (cq_tail - cq_head & U32),
        cq_flags=None if memory.cq_flags is None else abi.CqRingFlag(memory.cq_flags.load()),
        cq_overflow=memory.cq_overflow.load(),
        sqe_array=bytes(memory.sqes),
        cqe_array=bytes(memory.cqes),
    )


def state(ring: Ring) -> RingState:
    """The queues of a ring as they are now. RingClosedError if it is closed."""
    ring.sq.look()  # refuses a closed ring
    return copy_of(ring._memory, ring.sq.tail, ring.setup_flags)
