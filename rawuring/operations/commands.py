"""Owned operations that a driver takes, and those for tests: uring_cmd, discard of block devices, NOP with flags.

May import everything below ring. What the operations share is in `operations.base`. The commands
of sockets are in `operations.sockets`.
"""

from __future__ import annotations

from .. import abi
from ..buffers import Buffer, Pin, RegisteredBuffers, pin_readable, pin_writable
from ..files import FileLike, fd_of
from ..inflight import Callback, Operation
from .base import OwnedOperations

_CMD_FIXED = int(abi.UringCmd.FIXED)
_NOP_FILE = int(abi.Nop.FILE)
_NOP_FIXED_FILE = int(abi.Nop.FIXED_FILE)
_NOP_FIXED_BUFFER = int(abi.Nop.FIXED_BUFFER)
_NOTHING: Pin = (None, 0, 0)
_WIDE_SLOTS = 3  # of a mixed ring: a request of two, and what fills the end of the array


def _pin_either(buffer: Buffer | None) -> Pin:
    """Pin what a driver reads or writes: which of both is its own affair."""
    if buffer is None:
        return _NOTHING
    return pin_readable(buffer) if memoryview(buffer).readonly else pin_writable(buffer)


class CommandOperations(OwnedOperations):
    """The owned operations that a driver takes, and those for tests."""

    __slots__ = ()

    def uring_cmd(
        self, file: FileLike, cmd_op: int, cmd: bytes = b"", buffer: Buffer | None = None, *, uring_cmd_flags: int = 0,
        keep: object = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Have the driver of a file do `cmd_op`. Result: the driver's. Linux 5.19.

        cmd     the command: up to 16 bytes, or 80 on a ring with Setup.SQE128
        buffer  what `addr` and `len` of the SQE name, locked until the completion
        keep    what else the command points to: held until the completion
        """
        fd, fixed = fd_of(file, self._file_table)
        pinned, addr, nbytes = _pin_either(buffer)
        return self._queue(Operation, self.sq.prep_uring_cmd, (cmd_op, fd, cmd, uring_cmd_flags, addr, nbytes),
                           (file, pinned, keep), callback, sqe_flags | fixed)  # fmt: skip

    def uring_cmd_fixed(
        self, file: FileLike, cmd_op: int, buffers: RegisteredBuffers, index: int, cmd: bytes = b"", *, start: int = 0,
        nbytes: int | None = None, keep: object = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """`uring_cmd` on registered buffer `index`, from its byte `start`, `nbytes` of it (None: to its end). Linux 6.1."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(file, self._file_table)
        pinned, addr, size = buffers.place(index, start, nbytes)
        return self._queue(Operation, self.sq.prep_uring_cmd, (cmd_op, fd, cmd, _CMD_FIXED, addr, size, index),
                           (file, pinned, keep), callback, sqe_flags | fixed)  # fmt: skip

    def uring_cmd128(
        self, file: FileLike, cmd_op: int, cmd: bytes = b"", buffer: Buffer | None = None, *, uring_cmd_flags: int = 0,
        keep: object = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """`uring_cmd` with up to 80 bytes, on a ring with Setup.SQE_MIXED or Setup.SQE128. Linux 6.19.

        In a chain on a mixed ring it takes up to three of the entries.
        """
        fd, fixed = fd_of(file, self._file_table)
        pinned, addr, nbytes = _pin_either(buffer)
        self._make_wide_room()
        return self._queue(Operation, self.sq.prep_uring_cmd128, (cmd_op, fd, cmd, uring_cmd_flags, addr, nbytes),
                           (file, pinned, keep), callback, sqe_flags | fixed)  # fmt: skip

    def cmd_discard(
        self, file: FileLike, offset: int, nbytes: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Give up the data of a range of a block device. Result: 0. Linux 6.12."""
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Operation, self.sq.prep_cmd_discard, (fd, offset, nbytes), file, callback, sqe_flags | fixed)

    def cmd_zone_reset_all(
        self, file: FileLike, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Reset every zone of a zoned block device, which discards all its data. Result: 0. Linux 7.3."""
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Operation, self.sq.prep_cmd_zone_reset_all, (fd,), file, callback, sqe_flags | fixed)

    def nop_flags(
        self, nop_flags: int, res: int = 0, *, file: FileLike | None = None, buffers: RegisteredBuffers | None = None,
        index: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Complete as `nop_flags` say, for tests of what surrounds an operation. Older kernels than Linux 6.10 ignore them.

        Nop.INJECT_RESULT gives the completion the result `res`, an error for instance. Nop.FILE is
        set for you with a `file`, and Nop.FIXED_BUFFER with `buffers` (6.13): the kernel looks them up.
        """
        args, keep = self._nop_args(nop_flags, res, file, buffers, index)
        return self._queue(Operation, self.sq.prep_nop_flags, args, keep, callback, sqe_flags)

    def nop128(
        self, nop_flags: int = 0, res: int = 0, *, file: FileLike | None = None,
        buffers: RegisteredBuffers | None = None, index: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """`nop_flags` in an SQE of 128 bytes, on a ring with Setup.SQE_MIXED or Setup.SQE128. Linux 6.19."""
        args, keep = self._nop_args(nop_flags, res, file, buffers, index)
        self._make_wide_room()
        return self._queue(Operation, self.sq.prep_nop128, args, keep, callback, sqe_flags)

    def _nop_args(
        self, nop_flags: int, res: int, file: FileLike | None, buffers: RegisteredBuffers | None, index: int
    ) -> tuple[tuple[int, ...], object]:
        fd, pinned = -1, None
        if file is not None:
            fd, fixed = fd_of(file, self._file_table)
            nop_flags |= _NOP_FILE | (_NOP_FIXED_FILE if fixed else 0)
        if buffers is not None:
            self._check_buffers(buffers)
            pinned, _, _ = buffers.place(index, 0, None)
            nop_flags |= _NOP_FIXED_BUFFER
        return (nop_flags, res, fd, index), (file, pinned)

    def _make_wide_room(self) -> None:
        """Room for a request of 128 bytes, which on a mixed ring is more than the one slot that others need."""
        entries = min(_WIDE_SLOTS, self.sq.entries)
        if self.sq.space_left < entries and not self._link_flag:
            self._make_room(entries)
