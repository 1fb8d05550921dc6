"""Owned operations on ranges of files and memory: fallocate, ftruncate, fadvise, madvise, sync_file_range, splice, tee.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

import mmap

from .. import abi
from ..buffers import Buffer, pin_readable, pin_writable
from ..errors import BufferUseError
from ..files import FileLike, fd_of
from ..inflight import Callback, Operation
from .base import OwnedOperations

_U32 = 0xFFFF_FFFF
_FD_IN_FIXED = int(abi.Splice.FD_IN_FIXED)


class RangeOperations(OwnedOperations):
    """The owned operations on ranges of files and memory."""

    __slots__ = ()

    def fallocate(
        self, file: FileLike, offset: int, nbytes: int, mode: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Reserve a range of a file, or with system.FALLOC_FL_* punch it out, zero it, ... Result: 0."""
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Operation, self.sq.prep_fallocate, (fd, mode, offset, nbytes), file, callback,
                           sqe_flags | fixed)  # fmt: skip

    def ftruncate(
        self, file: FileLike, nbytes: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Make a file `nbytes` long. Result: 0. Linux 6.9."""
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Operation, self.sq.prep_ftruncate, (fd, nbytes), file, callback, sqe_flags | fixed)

    def fadvise(
        self, file: FileLike, offset: int, nbytes: int, advice: int, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Say how a range of a file will be used: os.POSIX_FADV_*. Result: 0.

        `nbytes` 0 is up to the end; 2**32 and more need Linux 6.11.
        """
        fd, fixed = fd_of(file, self._file_table)
        prep = self.sq.prep_fadvise if nbytes <= _U32 else self.sq.prep_fadvise64
        return self._queue(Operation, prep, (fd, offset, nbytes, advice), file, callback, sqe_flags | fixed)

    def madvise(
        self, buffer: Buffer, advice: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Say how memory will be used: mmap.MADV_*. Result: 0. 4 GiB and more need Linux 6.11.

        `buffer` is an mmap, or a writable buffer of whole pages (mmap.PAGESIZE): advice goes by the
        page, and some of it discards the content or stays with the pages when their owner is gone.
        """
        if isinstance(buffer, mmap.mmap):
            keep, addr, nbytes = pin_readable(buffer)
        else:
            keep, addr, nbytes = pin_writable(buffer)
            if addr % mmap.PAGESIZE or nbytes % mmap.PAGESIZE:
                raise BufferUseError(f"madvise takes whole pages of {mmap.PAGESIZE} bytes: use an mmap, or a view of one")
        prep = self.sq.prep_madvise if nbytes <= _U32 else self.sq.prep_madvise64
        return self._queue(Operation, prep, (addr, nbytes, advice), keep, callback, sqe_flags)

    def sync_file_range(
        self, file: FileLike, offset: int, nbytes: int, sync_range_flags: int, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Start or await writing the dirty pages of a range: system.SYNC_FILE_RANGE_*. Result: 0.

        `nbytes` 0 is up to the end. It makes nothing durable: `fsync` does.
        """
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Operation, self.sq.prep_sync_file_range, (fd, nbytes, offset, sync_range_flags), file, callback,
                           sqe_flags | fixed)  # fmt: skip

    def splice(
        self, src: FileLike, dst: FileLike, nbytes: int, offset_src: int | None = None, offset_dst: int | None = None,
        splice_flags: int = 0, *, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Move up to `nbytes` between two files, one of them a pipe. Result: bytes, may be short, 0 at the end.

        An offset of None is the file's position, and that of a pipe. `splice_flags` are os.SPLICE_F_*.
        """
        fd_in, src_fixed = fd_of(src, self._file_table)
        fd_out, fixed = fd_of(dst, self._file_table)
        args = (fd_in, -1 if offset_src is None else offset_src, fd_out, -1 if offset_dst is None else offset_dst,
                nbytes, splice_flags | (_FD_IN_FIXED if src_fixed else 0))  # fmt: skip
        return self._queue(Operation, self.sq.prep_splice, args, (src, dst), callback, sqe_flags | fixed)

    def tee(
        self, src: FileLike, dst: FileLike, nbytes: int, splice_flags: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Copy up to `nbytes` from one pipe to another, and leave them in the first. Result: bytes, may be short."""
        fd_in, src_fixed = fd_of(src, self._file_table)
        fd_out, fixed = fd_of(dst, self._file_table)
        args = (fd_in, fd_out, nbytes, splice_flags | (_FD_IN_FIXED if src_fixed else 0))
        return self._queue(Operation, self.sq.prep_tee, args, (src, dst), callback, sqe_flags | fixed)
