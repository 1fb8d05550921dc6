"""SQEs apart from any ring, to be copied into one as often as they are needed.

May import abi, errors and prep. It never makes a system call and never holds a reference to memory
behind an address.

A program that queues many requests of the same kind writes the same bytes again and again. Here
they are written once, in memory of their own; before each turn only what differs is written
anew, a field of all of them at a time; and `SubmissionQueue.put_block` copies a run of them into
the queue at the price of a copy, however many they are. The kernel never writes into an SQE.

A field of all the SQEs is a column: a memoryview over the same memory, whose items lie as far
apart as the SQEs.
"""

from __future__ import annotations

from struct import Struct

from . import abi
from .errors import RawuringError, SqeBlockFullError
from .hints import Any
from .prep import Preps

_SQE_NBYTES = abi.IO_URING_SQE.nbytes


class SqeBlock(Preps):
    """`entries` SQEs apart from any ring: `prep_*` writes them, `column` changes them, `ring.sq.put_block` queues them.

    sqe_nbytes     the size of an SQE: 128 for a ring with Setup.SQE128

    A block holds no request of 128 bytes unless that is the size of its SQEs: on a ring with
    Setup.SQE_MIXED queue such a request by itself.

    The block may be changed, or go, as soon as `put_block` has returned. Memory behind the addresses
    in it must live as each request says, counted from the time that its SQE is queued. A block
    belongs to no ring and to no thread.

    Example
        from array import array
        from rawuring import Ring, SqeBlock

        block = SqeBlock(4)
        for _ in range(4):
            block.prep_nop()
        numbers = block.column("user_data")
        with Ring() as ring:
            for first in (10, 20):
                numbers[:] = array("Q", range(first, first + 4))
                ring.sq.put_block(block)
                ring.submit_and_wait(4)
                print([number for number, _, _ in ring.completions()])  # [10, 11, 12, 13], then [20, 21, 22, 23]
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: int, sqe_nbytes: int = _SQE_NBYTES) -> None:
        if entries < 1:
            raise RawuringError(f"a block holds one SQE or more, not {entries}")
        if sqe_nbytes not in (_SQE_NBYTES, 2 * _SQE_NBYTES):
            raise RawuringError(f"an SQE has 64 bytes, or 128 on a ring with Setup.SQE128, not {sqe_nbytes}")
        self._entries = entries
        self._stride = sqe_nbytes
        self._sqes = memoryview(bytearray(entries * sqe_nbytes))
        self._at, self._limit = 0, entries * sqe_nbytes
        self._mixed = False

    @property
    def entries(self) -> int:
        """How many SQEs fit."""
        return self._entries

    @property
    def tail(self) -> int:
        """How many SQEs are written: the index of the next."""
        return self._at // self._stride

    @property
    def space_left(self) -> int:
        """How many SQEs can be written before the block is full."""
        return self._entries - self.tail

    def column(self, name: str) -> memoryview[int]:
        """A field of struct io_uring_sqe in all the SQEs: `entries` items, to be read, assigned, and sliced.

        `name` is the kernel's, as in `abi.IO_URING_SQE`, and so are the items: `flags` has what
        encoders call sqe_flags, and `file_index` is 1 for slot 0. A slice takes a slice of another
        column of that kind, or an array.array of the same type: "Q" for user_data, off and addr, "I"
        for len and rw_flags, "i" for fd, "H" for buf_index, ioprio and personality, "B" for opcode and flags.

        Nothing but an item's size is checked: user_data must stay below 2**63, and an operation that
        takes no value in a field may refuse it, or mean something by it.
        """
        field = abi.IO_URING_SQE.fields.get(name)
        if field is None or field.signed is None:
            raise RawuringError(f"struct io_uring_sqe has no number {name!r}: abi.IO_URING_SQE.fields has its fields")
        column_format: Any = field.codec.format[1:]  # without its "=", which a memoryview does not know
        return self._sqes.cast(column_format)[field.offset // field.nbytes :: self._stride // field.nbytes]

    def clear(self) -> None:
        """Forget what is written: the next `prep_*` writes the first SQE. Columns go on."""
        self._at = 0

    def _encode128(self, shape: Struct, *values: int | bytes) -> None:
        if self._stride != shape.size:
            raise RawuringError(
                "a block of 64-byte SQEs holds no request of 128 bytes: queue it by itself on a ring with "
                "Setup.SQE_MIXED (Linux 6.19), or make both for SQEs of 128 bytes, with Setup.SQE128"
            )
        super()._encode128(shape, *values)

    def _make_room(self) -> int:
        raise SqeBlockFullError(
            f"the block is full ({self.entries} SQEs): make a larger one, or clear() it and write it anew"
        )
