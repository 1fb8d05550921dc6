"""Owned operations on files: read, write, their vectored and fixed forms, fsync, openat, close_fd.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .. import abi
from ..buffers import Buffer, BufferGroup, RegisteredBuffers, pin_iovecs, pin_readable, pin_writable
from ..errors import OutOfOrderError
from ..files import FileLike, FileTable, Fixed, fd_of
from ..inflight import BufferOperation, Callback, FdOperation, Operation, Outcome, Stream, ValueOperation, Waiter
from .base import OwnedOperations

AT_FDCWD = -100


class FixedOperation(ValueOperation[Fixed]):
    """An operation whose result is a slot of a file table.

    A slot that the kernel picked and that nobody took is emptied with the operation.
    """

    __slots__ = ("table", "slot", "_taken")

    table: FileTable
    slot: int  # the one asked for, or FILE_INDEX_ALLOC

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        _, self.table, self.slot = keep
        self._taken = self.slot != abi.FILE_INDEX_ALLOC

    def wait_cqe(self, timeout_ns: int | None = None) -> Outcome:
        outcome = super().wait_cqe(timeout_ns)
        self._taken = True
        return outcome

    def claim(self) -> None:
        self._taken = True

    def unclaim(self) -> None:
        self._taken = self.slot != abi.FILE_INDEX_ALLOC

    def _value(self, res: int, cqe_flags: int) -> Fixed:
        fixed = self.table[res if self.slot == abi.FILE_INDEX_ALLOC else self.slot]
        self._taken = True; return fixed  # fmt: skip

    def __del__(self) -> None:
        cqe = getattr(self, "cqe", None)
        if cqe is not None and cqe[1] >= 0 and not getattr(self, "_taken", True):
            self.table.drop(cqe[1])


class FixedStream(Stream[int]):
    """A stream of slots of a file table. Those that nobody took are emptied with the operation."""

    __slots__ = ("table",)

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self.table: FileTable
        _, self.table = keep

    def discard(self, res: int, cqe_flags: int) -> None:
        if res >= 0:
            self.table.drop(res)

    def __del__(self) -> None:
        self._discard_rest()


class FileOperations(OwnedOperations):
    """The owned operations on files."""

    __slots__ = ()

    def read(
        self, file: FileLike, buffer: Buffer, offset: int = -1, *, rw_flags: int = 0, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Read into `buffer` from `offset`, or from the file position with -1. Result: bytes read, 0 at the end.

        `buffer` is locked against resize until the final completion.
        """
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, nbytes = pin_writable(buffer)
        if sqe_flags:
            self._check_sqe_flags(sqe_flags)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "read", (file, keep), callback)
            self.sq.prep_read(fd, addr, nbytes, offset, rw_flags, ioprio, user_data=token,
                              sqe_flags=sqe_flags | fixed | self._link_flag)  # fmt: skip
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def read_select(
        self, file: FileLike, pool: BufferGroup, offset: int = -1, *, callback: Callback | None = None,
        sqe_flags: int = 0,
    ) -> BufferOperation:  # fmt: skip
        """Read into a provided buffer that the kernel picks. Result: the bytes read, empty at the end."""
        self._check_group(pool)
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(
            BufferOperation, self.sq.prep_read, (fd, 0, pool.nbytes, offset), (file, pool), callback,
            sqe_flags | fixed | abi.SqeFlag.BUFFER_SELECT, buf_group=pool.bgid,
        )  # fmt: skip

    def write(
        self, file: FileLike, buffer: Buffer, offset: int = -1, *, rw_flags: int = 0, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Write `buffer` at `offset`, or at the file position with -1. Result: bytes written, may be short."""
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, nbytes = pin_readable(buffer)
        if sqe_flags:
            self._check_sqe_flags(sqe_flags)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "write", (file, keep), callback)
            self.sq.prep_write(fd, addr, nbytes, offset, rw_flags, ioprio, user_data=token,
                               sqe_flags=sqe_flags | fixed | self._link_flag)  # fmt: skip
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def readv(
        self, file: FileLike, buffers: Sequence[Buffer], offset: int = -1, *, rw_flags: int = 0, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Read into several buffers, one after the other. Result: bytes read over all, 0 at the end."""
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, count = pin_iovecs(buffers, writable=True)
        return self._queue(Operation, self.sq.prep_readv, (fd, addr, count, offset), (file, keep), callback,
                           sqe_flags | fixed, rw_flags=rw_flags, ioprio=ioprio)  # fmt: skip

    def writev(
        self, file: FileLike, buffers: Sequence[Buffer], offset: int = -1, *, rw_flags: int = 0, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Write several buffers, one after the other. Result: bytes written over all, may be short."""
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, count = pin_iovecs(buffers, writable=False)
        return self._queue(Operation, self.sq.prep_writev, (fd, addr, count, offset), (file, keep), callback,
                           sqe_flags | fixed, rw_flags=rw_flags, ioprio=ioprio)  # fmt: skip

    def read_fixed(
        self, file: FileLike, buffers: RegisteredBuffers, index: int, offset: int = -1, *, start: int = 0,
        nbytes: int | None = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Read into registered buffer `index`, from its byte `start`, up to `nbytes` (None: to its end)."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, size = buffers.place(index, start, nbytes)
        return self._queue(Operation, self.sq.prep_read_fixed, (fd, addr, size, offset, index), (file, keep),
                           callback, sqe_flags | fixed)  # fmt: skip

    def write_fixed(
        self, file: FileLike, buffers: RegisteredBuffers, index: int, offset: int = -1, *, start: int = 0,
        nbytes: int | None = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Write from registered buffer `index`, from its byte `start`, up to `nbytes` (None: to its end)."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, size = buffers.place(index, start, nbytes)
        return self._queue(Operation, self.sq.prep_write_fixed, (fd, addr, size, offset, index), (file, keep),
                           callback, sqe_flags | fixed)  # fmt: skip

    def fsync(
        self, file: FileLike, fsync_flags: int = 0, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Write a file's dirty pages to its device. Result: 0. It does not wait for writes queued before it."""
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Operation, self.sq.prep_fsync, (fd, fsync_flags), file, callback, sqe_flags | fixed)

    def openat(
        self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes], open_flags: int = os.O_RDONLY | os.O_CLOEXEC,
        mode: int = 0o666, *, dir_fd: int | None = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Open a file. Result: an fd, which belongs to the operation until `wait()` or the callback takes it."""
        keep, addr, _ = pin_readable(_path_bytes(path))
        dfd = AT_FDCWD if dir_fd is None else dir_fd
        return self._queue(FdOperation, self.sq.prep_openat, (dfd, addr, open_flags, mode), keep, callback, sqe_flags)

    def openat_direct(
        self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes], into: FileTable,
        open_flags: int = os.O_RDONLY, mode: int = 0o666, *, slot: int = abi.FILE_INDEX_ALLOC,
        dir_fd: int | None = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> FixedOperation:  # fmt: skip
        """Open a file into a slot of a file table, which the kernel picks unless `slot` says it. Result: a Fixed."""
        self._check_table(into)
        keep, addr, _ = pin_readable(_path_bytes(path))
        dfd = AT_FDCWD if dir_fd is None else dir_fd
        into.check()
        return self._queue(FixedOperation, self.sq.prep_openat_direct, (dfd, addr, open_flags, mode, slot),
                           (keep, into, slot), callback, sqe_flags)  # fmt: skip

    def close_fd(
        self, fd: int | Fixed, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Close an fd number or a slot. Result: 0. Cancel what is in flight on it first: closing does not.

        A socket or file object would close the number a second time: detach it first.
        """
        if isinstance(fd, Fixed):
            fd.table.check()
            return self._queue(Operation, self.sq.prep_close_direct, (fd.slot,), fd, callback, sqe_flags)
        if not isinstance(fd, int):
            raise OutOfOrderError(
                f"close_fd closes a number, and this {type(fd).__name__} would close it again: pass its detach()"
            )
        return self._queue(Operation, self.sq.prep_close, (fd,), None, callback, sqe_flags)


def _path_bytes(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("embedded null byte in the path")
    return encoded + b"\0"
