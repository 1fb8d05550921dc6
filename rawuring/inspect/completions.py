"""A CQE as a value: what its result and its flags say.

May import abi, `values` and `requests`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final

from .. import abi
from ..abi.fields import ARGUMENTS
from .requests import Sqe
from .values import enum_names, errno_name, poll_names, shown

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CQE_NBYTES: Final = abi.IO_URING_CQE.nbytes
_CQE: Final = Struct("=QiI")
_BIG: Final = Struct("=QQ")
_LOW_HALF: Final = (1 << abi.CQE_BUFFER_SHIFT) - 1
_COPIED: Final = abi.NOTIF_USAGE_ZC_COPIED - (1 << 32)  # as `res` is signed


@dataclass(frozen=True)
class Cqe:
    """A completion. `inspect.cqe(user_data, res, cqe_flags)` makes it, `pack()` is the way back."""

    user_data: int
    res: int
    cqe_flags: int
    op: Sqe | abi.Op | int | None = None
    """What it completes, if the caller knows: `meaning` is the better for it."""
    big_cqe: tuple[int, int] | None = None
    """The second 16 bytes: with Setup.CQE32, or where the flags have F_32."""

    @property
    def flags(self) -> abi.CqeFlag:
        """The low half of `cqe_flags`."""
        return abi.CqeFlag(self.cqe_flags & _LOW_HALF)

    @property
    def buffer_id(self) -> int | None:
        """Which provided buffer the kernel took; None without CqeFlag.BUFFER."""
        return self.cqe_flags >> abi.CQE_BUFFER_SHIFT if self.cqe_flags & abi.CqeFlag.BUFFER else None

    @property
    def more(self) -> bool:
        """Will the same request post another CQE?"""
        return bool(self.cqe_flags & abi.CqeFlag.MORE)

    @property
    def error(self) -> str | None:
        """The errno's name, such as `EAGAIN`; None for a success."""
        if self.res >= 0 or self.cqe_flags & abi.CqeFlag.NOTIF:
            return None
        return errno_name(self.res)[1:]

    @property
    def copied(self) -> bool | None:
        """Of a zero-copy send's notification: was the data copied after all? None of any other CQE.

        The kernel tells only if the request had RecvSend.ZC_REPORT_USAGE, else this is False.
        """
        return self.res == _COPIED if self.cqe_flags & abi.CqeFlag.NOTIF else None

    @property
    def meaning(self) -> str:
        """What `res` says, in a few words."""
        if self.cqe_flags & abi.CqeFlag.SKIP:
            return "a filler, to be ignored"
        if self.copied is not None:
            return "the kernel is done with the memory" + (", the data was copied" if self.copied else "")
        if self.error is not None:
            return f"{errno_name(self.res)}, {os.strerror(-self.res)}"
        op = self.op.op if isinstance(self.op, Sqe) else self.op
        if not isinstance(op, abi.Op):
            return str(self.res)
        arguments = ARGUMENTS[op]
        if self._injected():
            return f"{self.res}, as the request had it"
        if arguments.res == "fd":
            return self._new_fd()
        if arguments.res == "poll":
            return poll_names(self.res)
        if not self.res:
            return arguments.res_zero or (f"0 {arguments.res}" if arguments.res else "done")
        if arguments.res == "slot":
            return f"slot {self.res}"
        return f"{self.res} {arguments.res}" if arguments.res else str(self.res)

    def pack(self) -> bytes:
        """The bytes in the CQ, 16 or 32."""
        first = _CQE.pack(self.user_data, self.res, self.cqe_flags)
        return first + _BIG.pack(*self.big_cqe) if self.big_cqe is not None else first

    def __str__(self) -> str:
        """One line."""
        words = [f"user_data={shown('user_data', self.user_data)}", f"res={self.res}"]
        if self.meaning != str(self.res):
            words.append(f"({self.meaning})")
        if self.flags:
            words.append(f"cqe_flags={enum_names(self.flags, abi.CqeFlag)}")
        upper = self.cqe_flags >> abi.CQE_BUFFER_SHIFT
        if self.buffer_id is not None:
            words.append(f"buffer={self.buffer_id}")
        elif upper:
            words.append(f"upper_flags={upper:#x}")
        if self.big_cqe is not None:
            words.append(f"big_cqe={self.big_cqe[0]:#x},{self.big_cqe[1]:#x}")
        return " ".join(words)

    def _injected(self) -> bool:
        if not isinstance(self.op, Sqe) or self.op.op not in (abi.Op.NOP, abi.Op.NOP128):
            return False
        nop_flags = self.op["nop_flags"]
        return isinstance(nop_flags, int) and bool(nop_flags & abi.Nop.INJECT_RESULT)

    def _new_fd(self) -> str:
        """An fd or a slot: only the request tells which."""
        if not isinstance(self.op, Sqe):
            return f"fd {self.res}, or a slot if the request named one"
        file_index = self.op.values.get("file_index")
        if not isinstance(file_index, int):
            return f"fd {self.res}"
        return f"slot {self.res if file_index == abi.FILE_INDEX_ALLOC else file_index}"


def cqe(
    user_data: int,
    res: int,
    cqe_flags: int,
    op: Sqe | abi.Op | int | None = None,
    big_cqe: tuple[int, int] | None = None,
) -> Cqe:
    """A completion as `ring.completions()` gives it, made readable; `op` is what it completes."""
    return Cqe(user_data, res, cqe_flags, op, big_cqe)


def cqe_at(
    buffer: ReadableBuffer, offset: int = 0, nbytes: int = CQE_NBYTES, op: Sqe | abi.Op | int | None = None
) -> Cqe:
    """Decode the CQE of `nbytes` (16, or 32 with Setup.CQE32 or CqeFlag.F_32) at `offset`."""
    if nbytes not in (CQE_NBYTES, 2 * CQE_NBYTES):
        raise ValueError(f"a CQE has 16 or 32 bytes, not {nbytes}")
    view = memoryview(buffer).cast("B")
    user_data, res, cqe_flags = _CQE.unpack_from(view, offset)
    big = _BIG.unpack_from(view, offset + CQE_NBYTES) if nbytes > CQE_NBYTES else None
    return Cqe(user_data, res, cqe_flags, op, big)
