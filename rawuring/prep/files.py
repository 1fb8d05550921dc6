"""Encoders for reading and writing files: READ, WRITE and their vectored, fixed and multishot forms, FSYNC.

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
_READ = int(abi.Op.READ)
_WRITE = int(abi.Op.WRITE)
_READ_MULTISHOT = int(abi.Op.READ_MULTISHOT)
_READV_FIXED = int(abi.Op.READV_FIXED)
_WRITEV_FIXED = int(abi.Op.WRITEV_FIXED)

_BUFFER_SELECT = int(abi.SqeFlag.BUFFER_SELECT)

_pack_file_io = FILE_IO.pack_into


class FilePreps(Encoder):
    """The `prep_*` methods for reading and writing files."""

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

    def prep_readv2(
        self, fd: int, iovecs_addr: int, nr_vecs: int, offset: int, rw_flags: int, ioprio: int = 0,
        buf_group: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_READV: the same as `prep_readv`, where `rw_flags` may be left out.

        Since      Linux 5.1            Man   io_uring_prep_readv2(3), preadv2(2)
        Memory     submit: the iovec array; completion: the buffers are written
        CQE res    n >= 0 bytes over all buffers, may be short; < 0 -errno
        CQE flags  BUFFER with BUFFER_SELECT (one iovec)
        Limit      1024 buffers
        """
        self.prep_readv(fd, iovecs_addr, nr_vecs, offset, rw_flags, ioprio, buf_group, personality,
                        user_data=user_data, sqe_flags=sqe_flags)  # fmt: skip

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

    def prep_writev2(
        self, fd: int, iovecs_addr: int, nr_vecs: int, offset: int, rw_flags: int, ioprio: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_WRITEV: the same as `prep_writev`, where `rw_flags` may be left out.

        Since      Linux 5.1            Man   io_uring_prep_writev2(3), pwritev2(2)
        Memory     submit: the iovec array; completion: the buffers are read
        CQE res    n >= 0 bytes over all buffers, may be short; < 0 -errno
        CQE flags  none
        Limit      1024 buffers
        """
        self.prep_writev(fd, iovecs_addr, nr_vecs, offset, rw_flags, ioprio, personality,
                         user_data=user_data, sqe_flags=sqe_flags)  # fmt: skip

    def prep_readv_fixed(
        self, fd: int, iovecs_addr: int, nr_vecs: int, offset: int, rw_flags: int, buf_index: int,
        ioprio: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_READV_FIXED: like `prep_readv`, into parts of registered buffer `buf_index`.

        Since      Linux 6.15           Man   io_uring_prep_readv_fixed(3)
        Memory     submit: the iovec array; registered: its addresses lie inside the registered buffer
        CQE res    n >= 0 bytes over all parts, may be short; < 0 -errno: EFAULT outside the buffer or
                   no such buffer, ...
        CQE flags  none
        Limit      1024 parts
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _READV_FIXED, sqe_flags, ioprio,
                      fd, offset, iovecs_addr, nr_vecs, rw_flags, user_data, buf_index, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_writev_fixed(
        self, fd: int, iovecs_addr: int, nr_vecs: int, offset: int, rw_flags: int, buf_index: int,
        ioprio: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_WRITEV_FIXED: like `prep_writev`, from parts of registered buffer `buf_index`.

        Since      Linux 6.15           Man   io_uring_prep_writev_fixed(3)
        Memory     submit: the iovec array; registered: its addresses lie inside the registered buffer
        CQE res    n >= 0 bytes over all parts, may be short; < 0 -errno: EFAULT outside the buffer or
                   no such buffer, ...
        CQE flags  none
        Limit      1024 parts
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _WRITEV_FIXED, sqe_flags, ioprio,
                      fd, offset, iovecs_addr, nr_vecs, rw_flags, user_data, buf_index, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_read_multishot(
        self, fd: int, nbytes: int, offset: int, buf_group: int, rw_flags: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_READ_MULTISHOT: a CQE each time there is something to read, in a buffer of `buf_group`.

        BUFFER_SELECT is set for you. `nbytes` is 0: each read takes what a buffer holds.

        Since      Linux 6.7            Man   io_uring_prep_read_multishot(3)
        Memory     final: the provided buffers, of which each is yours from its CQE until given back
        CQE res    n > 0 bytes; 0 end of file; < 0 -errno: ENOBUFS (group empty), EBADFD (the file cannot
                   be polled, as no regular file can), ECANCELED, ...
        CQE flags  BUFFER: id in cqe_flags >> 16; MORE: still armed, without it queue it anew
        Limit      pipes, terminals, sockets and the like
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_file_io(self._sqes, at, _READ_MULTISHOT, sqe_flags | _BUFFER_SELECT, 0,
                      fd, offset, 0, nbytes, rw_flags, user_data, buf_group, personality)  # fmt: skip
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
