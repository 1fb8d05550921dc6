"""Queues of another size, while requests are in flight.

May import everything below ring, and `closing`.

Within one call the kernel gives the ring new queues and forgets the old ones. What could fail
afterwards is tried before: as much address space as the new mappings take is reserved. Completions that
wait in the CQ are moved by the kernel, and queued SQEs by us: before Linux 7.0 the kernel moves large
entries wrongly, and after 2**32 of them none.
"""

from __future__ import annotations

import errno
import os
from ctypes import addressof, c_char

from .. import abi, register, syscalls
from ..errors import OutOfOrderError, RawuringError, UnsupportedError, os_error
from ..hints import NoReturn
from ..mmap_ring import MappedRing, OwnMemory, Reservation, queue_entries
from .closing import Closing
from .negotiation import release

_Setup = abi.Setup


class Resizing(Closing):
    """A ring whose queues can grow and shrink."""

    __slots__ = ("_answer",)

    _answer: bytearray  # the struct io_uring_params that describes the queues

    def resize(self, sq_entries: int, cq_entries: int | None = None) -> None:
        """Give the ring queues of these sizes, rounded up to powers of two; if not said, the CQ has twice the SQ's.

        Requests in flight go on. What is queued, and completions that were not taken, must fit:
        otherwise this is an OutOfOrderError and nothing has changed. Only rings with
        Setup.DEFER_TASKRUN and NO_SQARRAY can do it, as a Ring is unless told otherwise. The sizes
        that the queues have already change nothing.

        Since      Linux 6.13           Man   io_uring_resize_rings(3)
        """
        self._check_usable()
        self._check_no_chain()
        sq_rounded, cq_rounded = self._sizes(sq_entries, cq_entries)
        if (sq_rounded, cq_rounded) == (self.sq.entries, self.cq.entries):
            return  # not asked of the kernel: 6.16 then says yes, and does not take the memory of a NO_MMAP ring
        self._check_can_move(sq_rounded)
        setup_flags = self.setup_flags & _Setup.CLAMP | (0 if cq_entries is None else _Setup.CQSIZE)
        params = abi.IO_URING_PARAMS.pack(sq_entries=sq_entries, cq_entries=cq_entries or 0, flags=int(setup_flags))
        room: OwnMemory | Reservation
        if self.setup_flags & _Setup.NO_MMAP:
            room = OwnMemory(sq_entries, cq_entries or 0, self.setup_flags)
            abi.IO_URING_PARAMS.put(params, "sq_off.user_addr", room.sqes_addr)
            abi.IO_URING_PARAMS.put(params, "cq_off.user_addr", room.rings_addr)
        else:
            room = Reservation(_resized(self._answer, sq_rounded, cq_rounded))
        verb = abi.Register.RESIZE_RINGS | (
            abi.REGISTER_USE_REGISTERED_RING if isinstance(self._fd, register.RingIndex) else 0
        )
        addr = addressof(c_char.from_buffer(params))
        before = self._memory
        answers: list[int] = []
        try:
            self.sq.withdraw()
            # The list takes the answer before an interrupt can come.
            answers.extend(map(syscalls.register_call, (syscalls.NR_REGISTER,), (self._fd,), (verb,), (addr,), (1,)))
            if answers[0] < 0:
                self._refuse(syscalls.last_errno())
            self._move(params, room, before)
        except BaseException:
            if answers and answers[0] >= 0 and self._closed is None:
                self._move(params, room, before)  # once more, for an interrupt that came before it was done
            else:
                room.close()
            raise

    def _move(self, params: bytearray, room: OwnMemory | Reservation, before: MappedRing) -> None:
        """Go on in the new queues. It may be done again from the start."""
        get = abi.IO_URING_PARAMS.get
        answer = _resized(self._answer, get(params, "sq_entries"), get(params, "cq_entries"))
        try:
            if isinstance(room, Reservation):
                room.close()
                memory = MappedRing(self._fd, answer)
            else:
                memory = MappedRing(self._fd, answer, room)
        except OSError:
            self._quiet = False
            self._tear_down()  # the kernel reads the old queues no more, and the new ones are out of reach
            raise
        self.sq.move(memory)
        self.cq.move(memory)
        self._memory, self._answer = memory, answer
        before.close()

    def _sizes(self, sq_entries: int, cq_entries: int | None) -> tuple[int, int]:
        """The sizes that the kernel makes of those asked for, if this ring can have them."""
        for flag in (_Setup.DEFER_TASKRUN, _Setup.NO_SQARRAY):
            if not self.setup_flags & flag:
                raise RawuringError(f"a ring without Setup.{flag.name} cannot be resized: make a larger one")
        limits = {"sq_entries": (sq_entries, abi.MAX_ENTRIES), "cq_entries": (cq_entries, abi.MAX_CQ_ENTRIES)}
        for name, (number, limit) in limits.items():
            if self.setup_flags & _Setup.CLAMP:
                limit = (1 << 32) - 1
            if number is not None and not 1 <= number <= limit:
                raise RawuringError(f"{name} is a number from 1 to {limit}, not {number}")
        sq_rounded, cq_rounded = queue_entries(sq_entries, cq_entries or 0)
        if cq_rounded < sq_rounded:
            raise RawuringError(f"a CQ of {cq_entries} is smaller than an SQ of {sq_entries}: ask for more")
        return sq_rounded, cq_rounded

    def _check_can_move(self, sq_rounded: int) -> None:
        if self.sq.ready > sq_rounded or self.sq.ready and self.setup_flags & _Setup.SQE_MIXED:
            raise OutOfOrderError(f"{self.sq.ready} entries are queued and cannot be moved along: submit() them first")
        if self.setup_flags & (_Setup.CQE32 | _Setup.CQE_MIXED) and (self.cq.ready or self.cq.overflowed):
            raise OutOfOrderError("completions of 32 bytes cannot be moved along: take completions first")

    def _refuse(self, errno_value: int) -> NoReturn:
        if errno_value == errno.EOVERFLOW:
            raise OutOfOrderError(
                f"{self.cq.ready} completions are there, more than the new queue holds: take completions() first"
            )
        if errno_value == errno.EINVAL and release(os.uname().release) < release(abi.Register.RESIZE_RINGS.since):
            raise UnsupportedError("Ring.resize", abi.Register.RESIZE_RINGS.since)
        raise os_error(errno_value, "io_uring_register")


def _resized(answer: bytearray, sq_entries: int, cq_entries: int) -> bytearray:
    """The description of a ring's queues with other sizes. The offsets of their words are the same for all sizes."""
    resized = bytearray(answer)
    abi.IO_URING_PARAMS.put(resized, "sq_entries", sq_entries)
    abi.IO_URING_PARAMS.put(resized, "cq_entries", cq_entries)
    return resized
