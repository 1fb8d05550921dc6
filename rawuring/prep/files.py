"""Encoders for files: READ, WRITE and their vectored and fixed forms, FSYNC, OPENAT, CLOSE.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

from .. import abi
from .base import FILE_IO, Encoder

# Plain ints: an IntEnum member as an argument of pack_into costs as much as the call itself.
_READV = int(abi.Op.READV)
_WRITEV = int(abi.Op.WRITEV)
_FSYNC = int(abi.Op.FSYNC)
_READ_FIXED = int(abi.Op.READ_FIXED)
_WRITE_FIXED = int(abi.Op.WRITE_FIXED)
_OPENAT = int(abi.Op.OPENAT)
_CLOSE = int(abi.Op.CLOSE)
_READ = int(abi.Op.READ)
_WRITE = int(abi.Op.WRITE)

_pack_file_io = FILE_IO.pack_into


def encoded_file_index(file_index: int) -> int:
    """The SQE's form of a fixed slot: slot + 1, since 0 means "an ordinary fd"; ALLOC stands for itself."""
    return file_index if file_index == abi.FILE_INDEX_ALLOC else file_index + 1


class FilePreps(Encoder):
    """The `prep_*` methods for files."""

    __slots__ = ()

    def prep_read(
        self, fd: int, addr: int, nbytes: int, offset: int, rw_flags: int = 0, ioprio: int = 0,
        buf_group: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_READ: read up to `nbytes` at `offset` into memory at `addr`.

        `offset` -1 reads at the file position and moves it (Feature.RW_CUR_POS).

        Since      Linux 5.6            Man   io_uring_prep_read(3), read(2)
        Memory     completion: [addr, addr + nbytes) is written
        CQE res    n >= 0 bytes, may be short; 0 end of file; < 0 -errno: EBADF, EFAULT, EINVAL, ...
        CQE flags  BUFFER with BUFFER_SELECT: the buffer id is cqe_flags >> 16
        Limit      nbytes is capped to 0x7ffff000
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _READ, sqe_flags, ioprio, fd,
                      offset, addr, nbytes, rw_flags, user_data, buf_group, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_write(
        self, fd: int, addr: int, nbytes: int, offset: int, rw_flags: int = 0, ioprio: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_WRITE: write up to `nbytes` from memory at `addr` at `offset`.

        `offset` -1 writes at the file position and moves it (Feature.RW_CUR_POS).

        Since      Linux 5.6            Man   io_uring_prep_write(3), write(2)
        Memory     completion: [addr, addr + nbytes) is read
        CQE res    n >= 0 bytes, may be short; < 0 -errno: EBADF, ENOSPC, EPIPE, ...
        CQE flags  none
        Limit      nbytes is capped to 0x7ffff000
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _WRITE, sqe_flags, ioprio, fd,
                      offset, addr, nbytes, rw_flags, user_data, 0, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_read_fixed(
        self, fd: int, addr: int, nbytes: int, offset: int, buf_index: int, rw_flags: int = 0,
        ioprio: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_READ_FIXED: like `prep_read`, into registered buffer `buf_index`.

        Since      Linux 5.1            Man   io_uring_prep_read_fixed(3)
        Memory     registered: `addr` is an address inside the registered buffer, not an offset
        CQE res    n >= 0 bytes, may be short; < 0 -errno: EFAULT outside the buffer or no such buffer, ...
        CQE flags  none
        Limit      nbytes is capped to 0x7ffff000
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _READ_FIXED, sqe_flags, ioprio,
                      fd, offset, addr, nbytes, rw_flags, user_data, buf_index, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_write_fixed(
        self, fd: int, addr: int, nbytes: int, offset: int, buf_index: int, rw_flags: int = 0,
        ioprio: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_WRITE_FIXED: like `prep_write`, from registered buffer `buf_index`.

        Since      Linux 5.1            Man   io_uring_prep_write_fixed(3)
        Memory     registered: `addr` is an address inside the registered buffer, not an offset
        CQE res    n >= 0 bytes, may be short; < 0 -errno: EFAULT outside the buffer or no such buffer, ...
        CQE flags  none
        Limit      nbytes is capped to 0x7ffff000
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _WRITE_FIXED, sqe_flags, ioprio,
                      fd, offset, addr, nbytes, rw_flags, user_data, buf_index, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_readv(
        self, fd: int, iovecs_addr: int, nr_vecs: int, offset: int, rw_flags: int = 0, ioprio: int = 0,
        buf_group: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_READV: read into the `nr_vecs` buffers that struct iovec[] at `iovecs_addr` names.

        Since      Linux 5.1            Man   io_uring_prep_readv(3), preadv2(2)
        Memory     submit: the iovec array; completion: the buffers are written
        CQE res    n >= 0 bytes over all buffers, may be short; < 0 -errno
        CQE flags  BUFFER with BUFFER_SELECT (one iovec)
        Limit      1024 buffers
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _READV, sqe_flags, ioprio, fd,
                      offset, iovecs_addr, nr_vecs, rw_flags, user_data, buf_group, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_writev(
        self, fd: int, iovecs_addr: int, nr_vecs: int, offset: int, rw_flags: int = 0, ioprio: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_WRITEV: write from the `nr_vecs` buffers that struct iovec[] at `iovecs_addr` names.

        Since      Linux 5.1            Man   io_uring_prep_writev(3), pwritev2(2)
        Memory     submit: the iovec array; completion: the buffers are read
        CQE res    n >= 0 bytes over all buffers, may be short; < 0 -errno
        CQE flags  none
        Limit      1024 buffers
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _WRITEV, sqe_flags, ioprio, fd,
                      offset, iovecs_addr, nr_vecs, rw_flags, user_data, 0, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_fsync(
        self, fd: int, fsync_flags: int, offset: int = 0, nbytes: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FSYNC: write a file's dirty pages to its device.

        `fsync_flags` is 0 or Fsync.DATASYNC. `nbytes` 0 syncs from `offset` to the end. It does
        not wait for writes queued before it: link them, or use SqeFlag.IO_DRAIN.

        Since      Linux 5.1            Man   io_uring_prep_fsync(3), fsync(2)
        Memory     none
        CQE res    0; < 0 -errno: EBADF, EINVAL, EIO, ...
        CQE flags  none
        """
        self._encode(_FSYNC, fd, offset, 0, nbytes, fsync_flags, user_data, sqe_flags, personality=personality)

    def prep_openat(
        self, dfd: int, path_addr: int, open_flags: int, mode: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_OPENAT: open the zero-terminated path at `path_addr`, relative to `dfd`.

        Since      Linux 5.6            Man   io_uring_prep_openat(3), openat(2)
        Memory     submit: the path
        CQE res    an fd, yours to close; < 0 -errno: ENOENT, EACCES, EMFILE, ...
        CQE flags  none
        Limit      `dfd` is an ordinary fd: FIXED_FILE gives EBADF
        """
        self._encode(_OPENAT, dfd, 0, path_addr, mode, open_flags, user_data, sqe_flags, personality=personality)

    def prep_openat_direct(
        self, dfd: int, path_addr: int, open_flags: int, mode: int, file_index: int, personality: int = 0,
        *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_OPENAT into slot `file_index` of the file table, or FILE_INDEX_ALLOC.

        Since      Linux 5.15           Man   io_uring_prep_openat_direct(3)
        Memory     submit: the path
        CQE res    0, or the slot with FILE_INDEX_ALLOC (5.19); < 0 -errno: ENFILE table full, ENXIO no table, ...
        CQE flags  none
        Limit      O_CLOEXEC gives EINVAL
        """
        self._encode(_OPENAT, dfd, 0, path_addr, mode, open_flags, user_data, sqe_flags,
                     personality=personality, file_index=encoded_file_index(file_index))  # fmt: skip

    def prep_close(self, fd: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_CLOSE: close an fd.

        Requests in flight on the fd go on: cancel them first.

        Since      Linux 5.6            Man   io_uring_prep_close(3), close(2)
        Memory     none
        CQE res    0; < 0 -errno: EBADF, ...
        CQE flags  none
        Limit      FIXED_FILE gives EBADF: see `prep_close_direct`
        """
        self._encode(_CLOSE, fd, 0, 0, 0, 0, user_data, sqe_flags)

    def prep_close_direct(self, file_index: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_CLOSE: empty slot `file_index` of the file table.

        Since      Linux 5.15           Man   io_uring_prep_close_direct(3)
        Memory     none
        CQE res    0; < 0 -errno: EBADF empty slot, ENXIO no table, ...
        CQE flags  none
        """
        self._encode(_CLOSE, 0, 0, 0, 0, 0, user_data, sqe_flags, file_index=encoded_file_index(file_index))
