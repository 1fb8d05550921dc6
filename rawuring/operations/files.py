"""Owned operations that read and write files: read, write, their vectored, fixed and multishot forms, fsync.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import abi
from ..buffers import Buffer, BufferGroup, RegisteredBuffers, iovec_array, pin_iovecs, pin_readable, pin_writable
from ..files import FileLike, fd_of
from ..inflight import BufferOperation, BufferStream, Callback, Operation
from .base import OwnedOperations


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
        if sqe_flags or fixed or self._link_flag:
            sqe_flags = self._join_flags(sqe_flags, fixed)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "read", (file, keep), callback)
            self.sq.prep_read(fd, addr, nbytes, offset, rw_flags, ioprio, user_data=token, sqe_flags=sqe_flags)
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def read_select(
        self, file: FileLike, pool: BufferGroup, offset: int = -1, *, callback: Callback | None = None,
        sqe_flags: int = 0,
    ) -> BufferOperation:  # fmt: skip
        """Read into a provided buffer that the kernel picks. Result: the bytes read, empty at the end."""
        self._check_receives(BufferOperation, pool, sqe_flags)
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(
            BufferOperation, self.sq.prep_read, (fd, 0, pool.nbytes, offset), (file, pool, False), callback,
            sqe_flags | fixed | abi.SqeFlag.BUFFER_SELECT, buf_group=pool.bgid,
        )  # fmt: skip

    def read_multishot(
        self, file: FileLike, pool: BufferGroup, offset: int = -1, *, callback: Callback | None = None,
        sqe_flags: int = 0,
    ) -> BufferStream:  # fmt: skip
        """Read into buffers of `pool` whenever there is something, until the end, an error or ENOBUFS (pool empty).

        For pipes, terminals and the like, of which a poll can tell. See `BufferGroup.lend`. Linux 6.7.
        """
        self._check_receives(BufferStream, pool, sqe_flags)
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(BufferStream, self.sq.prep_read_multishot, (fd, 0, offset, pool.bgid), (file, pool, False),
                           callback, sqe_flags | fixed)  # fmt: skip

    def write(
        self, file: FileLike, buffer: Buffer, offset: int = -1, *, rw_flags: int = 0, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Write `buffer` at `offset`, or at the file position with -1. Result: bytes written, may be short."""
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, nbytes = pin_readable(buffer)
        if sqe_flags or fixed or self._link_flag:
            sqe_flags = self._join_flags(sqe_flags, fixed)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "write", (file, keep), callback)
            self.sq.prep_write(fd, addr, nbytes, offset, rw_flags, ioprio, user_data=token, sqe_flags=sqe_flags)
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
        nbytes: int | None = None, rw_flags: int = 0, ioprio: int = 0, callback: Callback | None = None,
        sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Read into registered buffer `index`, from its byte `start`, up to `nbytes` (None: to its end)."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, size = buffers.place(index, start, nbytes)
        return self._queue(Operation, self.sq.prep_read_fixed, (fd, addr, size, offset, index), (file, keep),
                           callback, sqe_flags | fixed, rw_flags=rw_flags, ioprio=ioprio)  # fmt: skip

    def write_fixed(
        self, file: FileLike, buffers: RegisteredBuffers, index: int, offset: int = -1, *, start: int = 0,
        nbytes: int | None = None, rw_flags: int = 0, ioprio: int = 0, callback: Callback | None = None,
        sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Write from registered buffer `index`, from its byte `start`, up to `nbytes` (None: to its end)."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, size = buffers.place(index, start, nbytes)
        return self._queue(Operation, self.sq.prep_write_fixed, (fd, addr, size, offset, index), (file, keep),
                           callback, sqe_flags | fixed, rw_flags=rw_flags, ioprio=ioprio)  # fmt: skip

    def readv_fixed(
        self, file: FileLike, buffers: RegisteredBuffers, index: int, parts: Iterable[tuple[int, int]],
        offset: int = -1, *, rw_flags: int = 0, ioprio: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Read into `parts` of registered buffer `index`: (start, nbytes) pairs. Result: bytes read over all. Linux 6.15."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, count = iovec_array([buffers.place(index, start, nbytes) for start, nbytes in parts])
        return self._queue(Operation, self.sq.prep_readv_fixed, (fd, addr, count, offset, rw_flags, index), (file, keep),
                           callback, sqe_flags | fixed, ioprio=ioprio)  # fmt: skip

    def writev_fixed(
        self, file: FileLike, buffers: RegisteredBuffers, index: int, parts: Iterable[tuple[int, int]],
        offset: int = -1, *, rw_flags: int = 0, ioprio: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Write from `parts` of registered buffer `index`: (start, nbytes) pairs. Result: bytes written over all. Linux 6.15."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(file, self._file_table)
        keep, addr, count = iovec_array([buffers.place(index, start, nbytes) for start, nbytes in parts])
        return self._queue(Operation, self.sq.prep_writev_fixed, (fd, addr, count, offset, rw_flags, index), (file, keep),
                           callback, sqe_flags | fixed, ioprio=ioprio)  # fmt: skip

    def fsync(
        self, file: FileLike, fsync_flags: int = 0, *, offset: int = 0, nbytes: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Write a file's dirty pages to its device, or those of a range. Result: 0.

        With Fsync.DATASYNC only the metadata that is needed to read them. `nbytes` 0 is up to the
        end. It does not wait for writes queued before it.
        """
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Operation, self.sq.prep_fsync, (fd, fsync_flags, offset, nbytes), file, callback,
                           sqe_flags | fixed)  # fmt: skip
