"""The completion queue: taking CQEs out of shared memory.

May import abi, errors, atomics, mmap_ring and cqe_block. It never makes a system call: whether the
kernel has completions that it has not posted yet is told by `needs_enter`.

A CQE is 16 bytes: user_data u64, res s32, flags u32. The kernel writes CQEs, then moves the
tail; we read the tail (acquire), copy the CQEs out, then move the head (release), which gives
the slots back. Nothing that `drain()` returned refers to shared memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from struct import Struct

from . import abi
from .atomics import Cell
from .cqe_block import CQE, CQE32, Cqe, CqeBlock
from .errors import RawuringError, RingClosedError
from .hints import Any, NoReturn
from .mmap_ring import RingMemory

U32 = 0xFFFF_FFFF

Cqe32 = tuple[int, int, int, int, int]  # and big_cqe[0], big_cqe[1]

_CQE32_BIG = Struct("=QiIQQ")
_SLOT_NBYTES = abi.IO_URING_CQE.nbytes
assert CQE.size == _SLOT_NBYTES

_CQ_OVERFLOW = int(abi.SqRingFlag.CQ_OVERFLOW)
_PENDING = int(abi.SqRingFlag.CQ_OVERFLOW | abi.SqRingFlag.TASKRUN)
_EVENTFD_DISABLED = int(abi.CqRingFlag.EVENTFD_DISABLED)
_F_SKIP = int(abi.CqeFlag.SKIP)
_F_32 = int(abi.CqeFlag.F_32)


class _Refusal:
    """The cells of a closed queue."""

    __slots__ = ("_reason",)

    def __init__(self, reason: RingClosedError) -> None:
        self._reason = reason

    def __getitem__(self, index: int, /) -> int:
        raise self._reason.anew()

    def __setitem__(self, index: int, value: int, /) -> None:
        raise self._reason.anew()


class CompletionQueue:
    """The CQ of one ring."""

    __slots__ = (
        "_memory", "_cqes", "_nbytes", "_head", "_mask", "_unpack", "_walk", "_walked", "_lap_end", "_tail_cell",
        "_head_cell", "_big", "_mixed", "_hidden_work", "_closed",
    )  # fmt: skip

    def __init__(self, memory: RingMemory, setup_flags: int = 0) -> None:
        self._memory = memory
        self._cqes = memory.cqes
        self._nbytes = memory.cqe_nbytes
        self._mask = memory.cq_entries - 1
        self._head = memory.cq_head.load()  # counts on without limit, like the positions in sq.py
        self._tail_cell: Cell = memory.cq_tail.cell  # loads acquire
        self._head_cell: Cell = memory.cq_head.cell  # stores release
        self._big = bool(setup_flags & abi.Setup.CQE32)
        self._mixed = bool(setup_flags & abi.Setup.CQE_MIXED)
        self._unpack = (CQE32 if self._big else CQE).iter_unpack
        self._walk: Iterator[Any] = iter(())
        self._walked = -1  # the head that `_walk` stands at
        self._lap_end = -1  # and the one that it reaches, at the end of the array
        # A DEFER_TASKRUN ring posts only inside an enter with GETEVENTS; only with TASKRUN_FLAG
        # does it say when that is worth while. An IOPOLL ring asks the device in such an enter.
        self._hidden_work = bool(
            (setup_flags & abi.Setup.DEFER_TASKRUN and not setup_flags & abi.Setup.TASKRUN_FLAG)
            or (setup_flags & abi.Setup.IOPOLL and not setup_flags & abi.Setup.SQPOLL)
        )
        self._closed: RingClosedError | None = None

    @property
    def entries(self) -> int:
        """How many slots there are: a power of two."""
        return self._mask + 1

    @property
    def ready(self) -> int:
        """How many slots hold CQEs to take now (with CQE_MIXED a large CQE fills two)."""
        return (self._tail_cell[0] - self._head) & U32

    @property
    def head(self) -> int:
        """How many slots were ever taken."""
        return self._head

    @property
    def overflowed(self) -> bool:
        """Does the kernel hold completions back because the CQ was full? An enter with GETEVENTS posts them."""
        self._check_open()
        return bool(self._memory.sq_flags.load() & _CQ_OVERFLOW)

    @property
    def lost(self) -> int:
        """How many completions the kernel had no memory for. Anything but 0 is a defect that cannot be mended."""
        self._check_open()
        return self._memory.cq_overflow.load()

    @property
    def needs_enter(self) -> bool:
        """Could an enter with GETEVENTS post completions that are not in the queue yet?

        True after overflow, with pending task work (Setup.TASKRUN_FLAG), and always on a
        DEFER_TASKRUN ring without TASKRUN_FLAG and an IOPOLL ring without SQPOLL, which do not tell.
        """
        self._check_open()
        return self._hidden_work or bool(self._memory.sq_flags.load() & _PENDING)

    def drain(self) -> list[Cqe]:
        """Take every CQE that is there: (user_data, res, cqe_flags), in the order they were posted.

        The list is all yours: the slots are given back before it is returned. On rings with
        32-byte CQEs the second half is left out: see `drain32`.
        """
        head = self._head
        count = (self._tail_cell[0] - head) & U32
        if not count:
            return []
        # One iterator per lap walks along the array with the head: to make one per batch, over a
        # slice, would cost more than unpacking five CQEs.
        if head != self._walked or head + count > self._lap_end:
            batch = self._copy_apart(count)
        else:
            self._walked = -1  # until the head is there too: an interrupt may come in between
            batch = [*islice(self._walk, count)]
        head += count
        try:
            self._head_cell[0] = head & U32
        except BaseException:
            self.advance_to(head)
            raise
        self._head = self._walked = head
        return batch

    def peek(self) -> tuple[list[Cqe], int]:
        """Copy what is there without taking it. Returns the CQEs and the head that takes them all.

        `peek()` then `advance_to(head)` is `drain()` in two steps, for those who must have the
        batch in safe hands before its slots are given back.
        """
        head = self._head
        count = (self._tail_cell[0] - head) & U32
        return self._copy(count) if count else [], head + count

    def advance_to(self, head: int) -> None:
        """Give every slot before `head` back to the kernel."""
        try:
            self._head_cell[0] = head & U32
        except BaseException:
            # Where the store is a call, an interrupt comes after it: the kernel has the slots, and may fill them anew.
            self._head_cell[0] = head & U32
            self._head = head
            raise
        self._head = head

    def take_block(self, block: CqeBlock) -> int:
        """Take what is there, as much of it as the block has room for, in the order it was posted. Returns how many.

        The block is written from its start. For rings whose CQEs all have the size of the block's, so not
        with Setup.CQE_MIXED; and for those on which every request is raw: what completes an owned operation
        is taken like the rest, and the operation never hears of it.
        """
        head, nbytes = self._head, self._nbytes
        count = (self._tail_cell[0] - head) & U32
        if block._stride != nbytes or self._mixed:
            self._refuse_block()
        if count > block._entries:
            count = block._entries
        slot = head & self._mask
        run = self._mask + 1 - slot
        if count <= run:
            block._memory[: count * nbytes] = self._cqes[slot * nbytes : (slot + count) * nbytes]
        else:
            # The rest lies at the start of the array.
            block._memory[: run * nbytes] = self._cqes[slot * nbytes :]
            block._memory[run * nbytes : count * nbytes] = self._cqes[: (count - run) * nbytes]
        self.advance_to(head + count)
        return count

    def drain32(self) -> list[Cqe32]:
        """Like `drain`, with big_cqe[0] and big_cqe[1]: (user_data, res, cqe_flags, big0, big1).

        For rings with Setup.CQE32 or Setup.CQE_MIXED, where a 16-byte CQE has big0 == big1 == 0.
        """
        batch, head = self.peek32()
        self.advance_to(head)
        return batch

    def peek32(self) -> tuple[list[Cqe32], int]:
        """`peek` with what `drain32` returns."""
        count = (self._tail_cell[0] - self._head) & U32
        if self._mixed:
            batch = self._walk_mixed(count)
        elif self._big:
            slots = ((self._head + i) & self._mask for i in range(count))
            batch = [_CQE32_BIG.unpack_from(self._cqes, slot * 32) for slot in slots]
        else:
            raise RawuringError("this ring has 16-byte CQEs: ask for Setup.CQE32 or Setup.CQE_MIXED, or use drain()")
        return batch, self._head + count

    def eventfd_enabled(self, enabled: bool) -> None:
        """Let completions signal the registered eventfd, or not (for the next ones).

        Since      Linux 5.8            Man   io_uring_cq_eventfd_toggle(3)
        """
        self._check_open()
        word = self._memory.cq_flags
        if word is None:
            raise RawuringError("this kernel cannot switch the eventfd off: unregister it instead (Linux 5.8 can)")
        bits = word.load()
        word.store(bits & ~_EVENTFD_DISABLED if enabled else bits | _EVENTFD_DISABLED)

    def move(self, memory: RingMemory) -> None:
        """Go on in other memory, where the kernel has put the head, the tail and the CQEs of this one."""
        self._walked = -1
        # In one statement, within which no signal is handled.
        self._memory, self._cqes, self._mask, self._tail_cell, self._head_cell = (
            memory, memory.cqes, memory.cq_entries - 1, memory.cq_tail.cell, memory.cq_head.cell
        )  # fmt: skip

    def close(self, reason: RingClosedError) -> None:
        """Refuse every later use with `reason`. Touches no shared memory."""
        self._closed = reason
        self._tail_cell = self._head_cell = _Refusal(reason)
        self._walk = iter(())

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed.anew()

    def _refuse_block(self) -> NoReturn:
        if self._mixed:
            raise RawuringError("a ring with Setup.CQE_MIXED has CQEs of two sizes, and a block one: use drain32()")
        raise RawuringError(f"this ring has CQEs of {self._nbytes} bytes: make the block with CqeBlock(entries, {self._nbytes})")

    def _copy(self, count: int) -> list[Cqe]:
        """The next `count` slots, without taking them."""
        if self._mixed:
            return [cqe[:3] for cqe in self._walk_mixed(count)]
        start = (self._head & self._mask) * self._nbytes
        end = start + count * self._nbytes
        size = (self._mask + 1) * self._nbytes
        if end <= size:
            return list(self._unpack(self._cqes[start:end]))
        # The rest lies at the start of the array.
        return [*self._unpack(self._cqes[start:]), *self._unpack(self._cqes[: end - size])]

    def _copy_apart(self, count: int) -> list[Cqe]:
        """`_copy`, and put the iterator of `drain` where the head will be."""
        self._walked = -1
        batch = self._copy(count)
        head = self._head + count
        self._walk = self._unpack(self._cqes[(head & self._mask) * self._nbytes :])
        self._lap_end = head if self._mixed else (head | self._mask) + 1
        return batch

    def _walk_mixed(self, count: int) -> list[Cqe32]:
        # Setup.CQE_MIXED: 16-byte slots; F_32 marks a CQE of two slots, which never wraps: the
        # kernel posts a filler marked F_SKIP instead.
        batch: list[Cqe32] = []
        done = 0
        while done < count:
            at = ((self._head + done) & self._mask) * _SLOT_NBYTES
            user_data, res, cqe_flags = CQE.unpack_from(self._cqes, at)
            if cqe_flags & _F_32:
                batch.append(_CQE32_BIG.unpack_from(self._cqes, at))
                done += 2
            else:
                if not cqe_flags & _F_SKIP:
                    batch.append((user_data, res, cqe_flags, 0, 0))
                done += 1
        return batch
