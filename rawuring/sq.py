"""The submission queue: which slots are free, and when the kernel gets to see them.

May import abi, errors, atomics, mmap_ring, prep and sqe_block. It never makes a system call and
never holds a reference to memory behind an address.

Three positions, each the count of all SQEs before it since the ring was made:

    consumed   the kernel has consumed every SQE before it (its own word for it is the head)
    published  the kernel may consume up to here (the word we store is the tail)
    tail       ours alone: SQEs between `published` and `tail` are written and not yet visible

`prep_*` and `put_block` move `tail`, `flush()` moves `published`, an `io_uring_enter` (or the SQ
thread) moves the head. The kernel's head and tail are free-running u32: they wrap at 2**32, and
the slot of a position is its low bits. Ours count on without limit and are cut to 32 bits where
they meet the kernel's.

The tail is kept as what the encoders need: `lap`, its value at slot 0 of the array, and `at`,
the offset of the next slot in bytes. They write slots up to `limit`, the end of a run of free
slots; there, `has_room()` finds the next run, on the next lap if the array has ended.

All count slots. On a ring with Setup.SQE_MIXED a request of 128 bytes fills two, and so does the
kernel count it.
"""

from __future__ import annotations

import sys

from . import abi, atomics
from .errors import RawuringError, RingClosedError, SubmissionQueueFullError
from .hints import NoReturn
from .mmap_ring import RingMemory
from .prep import Preps
from .prep.base import U32
from .sqe_block import SqeBlock

_NEED_WAKEUP = int(abi.SqRingFlag.NEED_WAKEUP)
_FLAGS_OFFSET = abi.IO_URING_SQE.fields["flags"].offset
_USER_DATA_OFFSET = abi.IO_URING_SQE.fields["user_data"].offset
_IO_LINK = int(abi.SqeFlag.IO_LINK)
_LINKS = _IO_LINK | int(abi.SqeFlag.IO_HARDLINK)
_WIDE = (int(abi.Op.NOP128), int(abi.Op.URING_CMD128))


class SubmissionQueue(Preps):
    """The SQ of one ring: `prep_*` and `put_block` to queue, `flush()` to publish. `Ring.submit()` flushes, too."""

    __slots__ = ("_memory", "_lap", "_published", "_consumed", "_entries", "_shift", "_tail_plain", "_sqpoll", "_closed")

    def __init__(self, memory: RingMemory, *, sqpoll: bool = False, mixed: bool = False) -> None:
        self._memory = memory
        self._sqpoll = sqpoll
        self._closed: RingClosedError | None = None
        self._sqes = memory.sqes
        self._stride = memory.sqe_nbytes
        self._mixed = mixed
        self._shift = memory.sqe_nbytes.bit_length() - 1
        self._entries = memory.sq_entries
        tail = self._published = self._consumed = memory.sq_tail.load()
        slot = tail & (self._entries - 1)
        self._lap = tail - slot
        self._at = self._limit = slot * self._stride
        self._tail_plain = memory.sq_tail_plain

    @property
    def entries(self) -> int:
        """How many SQEs fit: a power of two."""
        return self._entries

    @property
    def tail(self) -> int:
        """How many SQEs were ever written: the position of the next."""
        return self._lap + (self._at >> self._shift)

    @property
    def ready(self) -> int:
        """How many SQEs were written and not yet consumed by the kernel."""
        self.look()
        return self.tail - self._consumed

    @property
    def space_left(self) -> int:
        """How many SQEs can be written before the queue is full."""
        return self.entries - self.ready

    @property
    def unpublished(self) -> int:
        """How many SQEs were written and not yet published."""
        return self.tail - self._published

    @property
    def dropped(self) -> int:
        """How many SQEs the kernel refused for a bad index in the SQ array: always 0 here."""
        self._check_open()
        return self._memory.sq_dropped.load()

    def put_block(self, block: SqeBlock, start: int = 0, count: int | None = None) -> None:
        """Queue copies of a block's SQEs: `count` from index `start` on, or all that are written from there on.

        All or none: SubmissionQueueFullError if there is no room for all of them. Their links mean
        what they mean elsewhere, and the last one may link to what is queued next.

        Memory     none of the block's, which may be changed at once; what its addresses name, as each request says
        """
        stride, at = self._stride, self._at
        first = start * stride
        end = block._at if count is None else first + count * stride
        nbytes = end - first
        if block._stride != stride or not 0 <= first <= end <= block._at:
            self._refuse_block(block, start, count)
        if not 0 < nbytes <= self._limit - at:
            self._find_run()
            at = self._at
            if nbytes > self._limit - at:
                self._put_over_the_end(block._sqes[first:end])
                return
        # In one statement, within which no signal is handled, as in `_put_over_the_end`: what `holds` finds is queued.
        self._sqes[at : at + nbytes], self._at = block._sqes[first:end], at + nbytes

    def flush(self) -> int:
        """Publish what was written. Returns how many SQEs the kernel has not consumed yet, by the last look.

        This is the point of no return: with SQPOLL the kernel may start at once.
        """
        tail = self._lap + (self._at >> self._shift)
        if self._sqpoll:
            # The SQ thread reads the tail whenever it likes: every byte of the SQEs must be visible
            # before it. Noted first, so that nothing is taken back which the thread may have; and
            # stored even if noted, since an interrupt may have come in between.
            self._published = tail
            self._memory.sq_tail.store_release(tail & U32)
        elif tail != self._published:
            # Nobody looks before our io_uring_enter, which orders everything.
            self._tail_plain[0] = tail & U32
            self._published = tail
        return tail - self._consumed

    def all_consumed(self) -> None:
        """Note that an enter has just consumed everything that was published: spares a look at the head."""
        self._consumed = self._published

    def look(self) -> None:
        """Read how far the kernel has come."""
        self._check_open()
        head = self._memory.sq_head
        # A slot may be written anew once the head has passed it. The SQ thread moves the head
        # while we look: acquire, so that our writes cannot overtake its reads of the old SQE.
        seen = head.load_acquire() if self._sqpoll else head.load()
        self._consumed = self._published - ((self._published - seen) & U32)

    def needs_wakeup(self) -> bool:
        """After a flush on an SQPOLL ring: does the SQ thread sleep, so that it must be woken?

        The thread sets NEED_WAKEUP, then looks at the tail once more, then sleeps. We store the
        tail, then look at NEED_WAKEUP. Either side must see the other's store, and that takes a
        full fence between store and load on every architecture, x86 included: a store may wait
        in the store buffer while a later load is answered. Without it both can miss each other,
        and the requests lie there until something else wakes the thread.
        """
        self._check_open()
        atomics.full_fence()
        return bool(self._memory.sq_flags.load() & _NEED_WAKEUP)

    def unlink_last(self) -> None:
        """Take IO_LINK off the SQE written last, which ends a chain there. It must not be published yet."""
        if self.tail == self._published:
            raise RawuringError("the last SQE is already published: end the chain before submitting it")
        self._sqes[self._last() + _FLAGS_OFFSET] &= ~_IO_LINK

    def ends_linked(self) -> bool:
        """Does the SQE written last link to the next, and is it not published yet?"""
        return bool(self._open_links())

    def last_opcode(self) -> int:
        """The opcode of the SQE written last."""
        return self._sqes[self._last()]

    def last_user_data(self) -> int:
        """The user_data of the SQE written last."""
        at = self._last() + _USER_DATA_OFFSET
        return int.from_bytes(self._sqes[at : at + 8], sys.byteorder)

    def holds(self, user_data: int) -> bool:
        """Is there an SQE with this user_data, consumed or not, that no later one was written over?"""
        if self._closed is not None:
            return False
        seen = self._sqes.cast("Q")[_USER_DATA_OFFSET // 8 :: self._stride // 8].tolist()
        if self._at != self._limit:
            del seen[self._at // self._stride]  # the next slot, which an encoder may not have finished
        return user_data in seen

    def discard_last(self) -> None:
        """Take back the SQE written last. It must not be published yet."""
        if self.tail == self._published:
            raise RawuringError("the last SQE is already published: the kernel may have it")
        last = self._last()
        if self._at:
            self._at = last
        else:
            self._lap, self._at, self._limit = self._lap - self._entries, last, self._entries * self._stride

    def withdraw(self) -> None:
        """Publish nothing of what the kernel has not consumed, as if no `flush()` had come. Not with SQPOLL."""
        self.look()
        # Noted first: what is published and not known to be is published once more, and does no harm.
        self._published = self._consumed
        self._tail_plain[0] = self._consumed & U32

    def move(self, memory: RingMemory) -> None:
        """Go on in other memory, whose head and tail the kernel has set to those of this one. After `withdraw()`.

        It may be done again after an interrupt, from the start.
        """
        stride, entries, tail = self._stride, memory.sq_entries, self.tail
        for position in range(self._consumed, tail):
            at, to = (position & (self._entries - 1)) * stride, (position & (entries - 1)) * stride
            memory.sqes[to : to + stride] = self._sqes[at : at + stride]
        slot = tail & (entries - 1)
        # In one statement, within which no signal is handled.
        self._memory, self._sqes, self._entries, self._tail_plain, self._lap, self._at, self._limit = (
            memory, memory.sqes, entries, memory.sq_tail_plain, tail - slot, slot * stride, slot * stride
        )  # fmt: skip

    def close(self, reason: RingClosedError) -> None:
        """Refuse every later use with `reason`. Touches no shared memory."""
        self._closed = reason
        self._limit = self._at
        self._published = self._consumed = self.tail

    def _last(self) -> int:
        """Where the SQE written last starts. On a ring of mixed sizes, only if it is not published."""
        if not self._mixed:
            return (self._at or self._entries * self._stride) - self._stride
        # Only what comes before a slot tells whether an SQE starts in it.
        start = position = self._published
        while position < self.tail:
            start = position
            position += self._width(self._place(start))
        return self._place(start)

    def _open_links(self) -> int:
        # A published one links to nothing: its chain ended at the submit.
        return 0 if self.tail == self._published else self._sqes[self._last() + _FLAGS_OFFSET] & _LINKS

    def _place(self, position: int) -> int:
        return (position & (self._entries - 1)) * self._stride

    def _width(self, at: int) -> int:
        """How many slots the SQE takes that starts there."""
        return 2 if self._sqes[at] in _WIDE else 1

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed.anew()

    def has_room(self) -> bool:
        """Is there a free slot? If the run of free slots has ended, this finds the next."""
        if self._at == self._limit:
            self._find_run()
        return self._at != self._limit

    def _find_run(self) -> None:
        """Look how far the run of free slots that starts at the tail goes."""
        self.look()
        tail = self.tail
        slot = tail & (self._entries - 1)
        free = min(self._entries - (tail - self._consumed), self._entries - slot)
        # In one statement, within which no signal is handled: each alone would be wrong.
        self._lap, self._at, self._limit = tail - slot, slot * self._stride, (slot + free) * self._stride

    def _make_room(self) -> int:
        if not self.has_room():
            raise SubmissionQueueFullError(
                f"the submission queue is full ({self.entries} entries): call submit(), then queue again, "
                "or make the ring larger"
            )
        return self._at

    def _put_over_the_end(self, sqes: memoryview) -> None:
        """Queue SQEs of which the run of free slots, just found, holds only the first."""
        at, limit, run = self._at, self._limit, self._limit - self._at
        rest = len(sqes) - run
        space = (self._entries - (self.tail - self._consumed)) * self._stride
        if len(sqes) > space:
            raise SubmissionQueueFullError(
                f"the submission queue ({self.entries} entries) has no room for {len(sqes) // self._stride} SQEs, and "
                "none of them was queued: call submit(), then queue them again, or make the ring larger"
            )
        # The run ends with the array, and the next one starts with it.
        self._sqes[at:limit], self._sqes[:rest], self._lap, self._at, self._limit = (
            sqes[:run], sqes[run:], self._lap + self._entries, rest, space - run
        )  # fmt: skip

    def _refuse_block(self, block: SqeBlock, start: int, count: int | None) -> NoReturn:
        self._check_open()
        if block._stride != self._stride:
            raise RawuringError(
                f"a block of {block._stride}-byte SQEs does not fit a ring of {self._stride}-byte ones: "
                f"make it with SqeBlock(entries, {self._stride})"
            )
        wanted = "any" if count is None else count
        raise RawuringError(f"the block has {block.tail} SQEs that are written, and not {wanted} from index {start} on")


class RewindingQueue(SubmissionQueue):
    """The SQ of a ring with Setup.SQ_REWIND: every enter starts at slot 0, and no word tells what it took.

    So the slots from 0 on are those of the positions from `consumed` on, and what enters answered is
    noted in `answers` by those who make them, within one statement: an answer that an interrupt
    lost would have its requests submitted twice.
    """

    __slots__ = ("answers",)

    answers: list[int]
    """What the last enter returned, unless it is settled: the SQEs it took, or -1."""

    def __init__(self, memory: RingMemory, *, mixed: bool = False) -> None:
        super().__init__(memory, mixed=mixed)
        self.answers = []
        self._limit = self._entries * self._stride

    def flush(self) -> int:
        self._published = tail = self.tail
        return tail - self._consumed

    def look(self) -> None:
        """Settle what the last enter took: what it left goes to the front, for the next."""
        self._check_open()
        if not self.answers:
            return
        taken = max(self.answers[0], 0)
        consumed, start, end = self._consumed + taken, taken * self._stride, self._at
        rest = bytes(self._sqes[start:end])
        # In one statement, within which no signal is handled.
        self._sqes[: end - start], self._consumed, self._lap, self._at, self.answers = (
            rest, consumed, consumed, end - start, []
        )  # fmt: skip

    def _find_run(self) -> None:
        self.look()

    def withdraw(self) -> None:
        self.look()
        self._published = self._consumed

    def move(self, memory: RingMemory) -> None:
        memory.sqes[: self._at] = self._sqes[: self._at]
        self._memory, self._sqes, self._entries, self._tail_plain, self._limit = (
            memory, memory.sqes, memory.sq_entries, memory.sq_tail_plain, memory.sq_entries * self._stride
        )  # fmt: skip

    def _place(self, position: int) -> int:
        return (position - self._lap) * self._stride
