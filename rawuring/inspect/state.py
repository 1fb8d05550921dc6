"""A ring's queues at one moment, copied out of the shared memory.

May import abi, mmap_ring, prep, sq, ring, `requests` and `completions`. It moves no head and no
tail. A copy is not made in one piece: on a ring that is at work meanwhile (SQPOLL, completions
that come in) its parts may be of slightly different moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import abi
from ..mmap_ring import RingMemory
from ..prep.base import U32
from ..ring import Ring
from ..sq import RewindingQueue, SubmissionQueue
from .completions import CQE_NBYTES, Cqe, cqe_at
from .requests import SQE_NBYTES, Sqe, sqe

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
    """Both queues. Positions are free-running: the slot of one is its low bits (but see `sq_origin`).

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
    sq_origin: int
    """A position that lies in slot 0: 0, but for Setup.SQ_REWIND, where every submit starts there anew."""
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

    def sq_slot(self, position: int) -> int:
        """The slot of the SQ that a position lies in."""
        return (position - self.sq_origin) & (self.sq_entries - 1)

    def cq_slot(self, position: int) -> int:
        """The slot of the CQ that a position lies in."""
        return position & (self.cq_entries - 1)

    def sqes(self, start: int, stop: int) -> Iterator[Entry]:
        """The SQEs at the positions from `start` to `stop`, no more than there are slots."""
        position, stop = start, min(stop, start + self.sq_entries)
        while position < stop:
            slot = self.sq_slot(position)
            at = slot * self.sqe_nbytes
            wide = self.setup_flags & abi.Setup.SQE_MIXED and self.sqe_array[at] in _WIDE_OPS
            nslots = 2 if wide and slot + 1 < self.sq_entries else 1
            nbytes = SQE_NBYTES * nslots if self.sqe_nbytes == SQE_NBYTES else self.sqe_nbytes
            yield Entry(position, slot, nslots, sqe(self.sqe_array, at, nbytes))
            position += nslots

    def cqes(self, start: int, stop: int) -> Iterator[Entry]:
        """The CQEs at the positions from `start` to `stop`, fillers included, no more than there are slots."""
        position, stop = start, min(stop, start + self.cq_entries)
        while position < stop:
            slot = self.cq_slot(position)
            found = cqe_at(self.cqe_array, slot * self.cqe_nbytes, self.cqe_nbytes)
            wide = self.setup_flags & abi.Setup.CQE_MIXED and found.cqe_flags & abi.CqeFlag.F_32
            nslots = 2 if wide and slot + 1 < self.cq_entries else 1
            if nslots == 2:
                found = cqe_at(self.cqe_array, slot * CQE_NBYTES, 2 * CQE_NBYTES)
            yield Entry(position, slot, nslots, found)
            position += nslots


def copy_of(memory: RingMemory, sq: SubmissionQueue, setup_flags: int) -> RingState:
    """The state of the queues in `memory`, of which `sq` is the one for submission."""
    # Each head before its tail, so that no queue seems to hold less than nothing.
    sq_head, sq_tail, cq_head = memory.sq_head.load_acquire(), memory.sq_tail.load(), memory.cq_head.load()
    cq_tail = memory.cq_tail.load_acquire()
    next_position, origin = sq.tail, 0
    if isinstance(sq, RewindingQueue):
        # No word of the kernel's counts here.
        origin = sq._lap
        consumed = origin + max([0, *sq.answers])
        published = next_position - sq.unpublished
    else:
        consumed = next_position - (next_position - sq_head & U32)
        published = consumed + (sq_tail - sq_head & U32)
    return RingState(
        setup_flags=abi.Setup(setup_flags),
        sq_entries=memory.sq_entries,
        sqe_nbytes=memory.sqe_nbytes,
        has_sq_array=memory.has_sq_array,
        sq_head=consumed,
        sq_published=published,
        sq_tail=next_position,
        sq_origin=origin,
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
    _ = ring.sq.dropped  # which a closed ring does not tell
    return copy_of(ring._memory, ring.sq, ring.setup_flags)
