"""CQEs apart from any ring: a batch of completions, to be looked at a field of all of them at a time.

May import abi and errors. It never makes a system call, and what is in it refers to no memory shared with the kernel.

The counterpart of `sqe_block`. A program that answers each of many completions with one request
need not look at them one by one: `CompletionQueue.take_block` copies them into a block at the
price of a copy, however many they are, and statements over a column of it do for all of them what
a loop would do for each: compare it with what is expected, add it up, or assign it to a column
of a block of SQEs.
"""

from __future__ import annotations

import sys
from struct import Struct

from . import abi
from .errors import RawuringError
from .hints import Any

_CQE_NBYTES = abi.IO_URING_CQE.nbytes
_BIG_ENDIAN = sys.byteorder == "big"
_INTEGERS = frozenset("hHiIlLqQ")

Cqe = tuple[int, int, int]  # user_data, res, cqe_flags

CQE = Struct("=QiI")
CQE32 = Struct("=QiI16x")


class CqeBlock:
    """Room for `entries` completions: `ring.cq.take_block` fills it, `column` and `cqes` show what is there.

    cqe_nbytes     the size of a CQE: 32 for a ring with Setup.CQE32

    A block belongs to no ring and to no thread. Each `take_block` writes it from the start.

    Example
        from rawuring import CqeBlock, Ring

        block = CqeBlock(8)
        user_data, res = block.column("user_data"), block.column("res")
        with Ring() as ring:
            for number in range(3):
                ring.sq.prep_nop(user_data=number)
            ring.submit_and_wait(3)
            count = ring.cq.take_block(block)
            print(user_data[:count].tolist(), max(res[:count]))  # [0, 1, 2] 0
    """

    __slots__ = ("_entries", "_stride", "_memory")

    def __init__(self, entries: int, cqe_nbytes: int = _CQE_NBYTES) -> None:
        if entries < 1:
            raise RawuringError(f"a block has room for one completion or more, not {entries}")
        if cqe_nbytes not in (_CQE_NBYTES, 2 * _CQE_NBYTES):
            raise RawuringError(f"a CQE has 16 bytes, or 32 on a ring with Setup.CQE32, not {cqe_nbytes}")
        self._entries = entries
        self._stride = cqe_nbytes
        self._memory = memoryview(bytearray(entries * cqe_nbytes))

    @property
    def entries(self) -> int:
        """How many completions fit."""
        return self._entries

    def column(self, name: str, item_format: str = "") -> memoryview[int]:
        """A field of struct io_uring_cqe in all the CQEs: `entries` items, of which the last `take_block` wrote the first.

        `name` is the kernel's: user_data, res or flags. Slices can be compared, and assigned to slices of
        a column of an SqeBlock whose items have the same format: "Q" for user_data, "i" for res, "I" for flags.

        item_format    another format: one of the field's size has its bits with another sign, and one of half
                       its size the lower half of them. So column("res", "I") suits `len` of an SQE, and
                       column("user_data", "i") `fd`, where requests have their descriptor in the lower half.
        """
        field = abi.IO_URING_CQE.fields.get(name)
        if field is None or field.signed is None:
            raise RawuringError(f"struct io_uring_cqe has no number {name!r}: it has user_data, res and flags")
        wanted: Any = item_format or field.codec.format[1:]  # without its "=", which a memoryview does not know
        if wanted not in _INTEGERS:
            raise RawuringError(f"{item_format!r} is no format of an integer of 2 to 8 bytes, as array.array names them")
        items = self._memory.cast(wanted)
        offset, nbytes = field.offset, items.itemsize
        if nbytes not in (field.nbytes, field.nbytes // 2):
            raise RawuringError(f"{name} has {field.nbytes} bytes: {item_format!r} is for neither all of them nor half")
        if nbytes < field.nbytes and _BIG_ENDIAN:
            offset += nbytes
        return items[offset // nbytes :: self._stride // nbytes]

    def cqes(self, count: int) -> list[Cqe]:
        """The first `count` completions one by one: (user_data, res, cqe_flags), as `drain()` has them.

        No more than the last `take_block` returned are new.
        """
        if not 0 <= count <= self._entries:
            raise RawuringError(f"the block has room for {self._entries} completions, not for {count}")
        unpack = (CQE if self._stride == _CQE_NBYTES else CQE32).iter_unpack
        return [*unpack(self._memory[: count * self._stride])]
