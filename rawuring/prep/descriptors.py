"""Encoders for where fds and slots of the file table come from and go: OPENAT, CLOSE, PIPE, FILES_UPDATE.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

from .. import abi
from .base import NOP, Encoder, encoded_file_index

_OPENAT = int(abi.Op.OPENAT)
_CLOSE = int(abi.Op.CLOSE)
_FILES_UPDATE = int(abi.Op.FILES_UPDATE)
_OPENAT2 = int(abi.Op.OPENAT2)
_FIXED_FD_INSTALL = int(abi.Op.FIXED_FD_INSTALL)
_PIPE = int(abi.Op.PIPE)

_AT_FDCWD = abi.AT_FDCWD
_OPEN_HOW_NBYTES = abi.OPEN_HOW.nbytes
_FIXED_FILE = int(abi.SqeFlag.FIXED_FILE)

_pack_of_fd = NOP.pack_into


class DescriptorPreps(Encoder):
    """The `prep_*` methods for fds and slots of the file table."""

    __slots__ = ()

    def prep_open(
        self, path_addr: int, open_flags: int, mode: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_OPENAT: open the zero-terminated path at `path_addr`, relative to the working directory.

        Since      Linux 5.6            Man   io_uring_prep_open(3), open(2)
        Memory     submit: the path
        CQE res    an fd, yours to close; < 0 -errno: ENOENT, EACCES, EMFILE, ...
        CQE flags  none
        """
        self._encode(_OPENAT, _AT_FDCWD, 0, path_addr, mode, open_flags, user_data, sqe_flags,
                     personality=personality)  # fmt: skip

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

    def prep_open_direct(
        self, path_addr: int, open_flags: int, mode: int, file_index: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_OPENAT, relative to the working directory, into slot `file_index` of the file table.

        Since      Linux 5.15           Man   io_uring_prep_open_direct(3)
        Memory     submit: the path
        CQE res    0, or the slot with FILE_INDEX_ALLOC (5.19); < 0 -errno: ENFILE table full, ENXIO no table, ...
        CQE flags  none
        Limit      O_CLOEXEC gives EINVAL
        """
        self._encode(_OPENAT, _AT_FDCWD, 0, path_addr, mode, open_flags, user_data, sqe_flags,
                     personality=personality, file_index=encoded_file_index(file_index))  # fmt: skip

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

    def prep_openat2(
        self, dfd: int, path_addr: int, how_addr: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_OPENAT2: open a path as the struct open_how (abi.OPEN_HOW) at `how_addr` says.

        Since      Linux 5.6            Man   io_uring_prep_openat2(3), openat2(2)
        Memory     submit: the path and the struct
        CQE res    an fd, yours to close; < 0 -errno: ENOENT, EACCES, EXDEV or ELOOP for what its resolve
                   flags forbid, EINVAL, ...
        CQE flags  none
        Limit      `dfd` is an ordinary fd: FIXED_FILE gives EBADF
        """
        self._encode(_OPENAT2, dfd, how_addr, path_addr, _OPEN_HOW_NBYTES, 0, user_data, sqe_flags,
                     personality=personality)  # fmt: skip

    def prep_openat2_direct(
        self, dfd: int, path_addr: int, how_addr: int, file_index: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_OPENAT2 into slot `file_index` of the file table, or FILE_INDEX_ALLOC.

        Since      Linux 5.15           Man   io_uring_prep_openat2_direct(3)
        Memory     submit: the path and the struct
        CQE res    0, or the slot with FILE_INDEX_ALLOC (5.19); < 0 -errno: ENFILE table full, ENXIO no table, ...
        CQE flags  none
        Limit      O_CLOEXEC gives EINVAL
        """
        self._encode(_OPENAT2, dfd, how_addr, path_addr, _OPEN_HOW_NBYTES, 0, user_data, sqe_flags,
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
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_of_fd(self._sqes, at, _CLOSE, sqe_flags, fd, user_data)
        self._at = at + self._stride

    def prep_close_direct(self, file_index: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_CLOSE: empty slot `file_index` of the file table.

        Since      Linux 5.15           Man   io_uring_prep_close_direct(3)
        Memory     none
        CQE res    0; < 0 -errno: EBADF empty slot, ENXIO no table, ...
        CQE flags  none
        """
        self._encode(_CLOSE, 0, 0, 0, 0, 0, user_data, sqe_flags, file_index=encoded_file_index(file_index))

    def prep_files_update(
        self, fds_addr: int, nr_fds: int, offset: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FILES_UPDATE: put `nr_fds` fds, of int[] at `fds_addr`, into the file table from `offset` on.

        -1 empties a slot, abi.REGISTER_FILES_SKIP leaves it as it is. With `offset`
        FILE_INDEX_ALLOC (5.19) the kernel picks free slots and writes their numbers over the fds.

        Since      Linux 5.6            Man   io_uring_prep_files_update(3)
        Memory     completion: the array is read, and written with FILE_INDEX_ALLOC
        CQE res    how many were done; < 0 -errno: EBADF, ENXIO no table, EINVAL, ...
        CQE flags  none
        """
        # The kernel reads the low half of the field; liburing's int fills the upper with its sign.
        off = abi.CURRENT_POSITION if offset == abi.FILE_INDEX_ALLOC else offset
        self._encode(_FILES_UPDATE, -1, off, fds_addr, nr_fds, 0, user_data, sqe_flags)

    def prep_fixed_fd_install(
        self, fd: int, install_fd_flags: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FIXED_FD_INSTALL: give the file in slot `fd` of the file table an ordinary fd as well.

        FIXED_FILE is set for you. The new fd is close-on-exec unless `install_fd_flags` is
        FixedFd.NO_CLOEXEC.

        Since      Linux 6.8            Man   io_uring_prep_fixed_fd_install(3)
        Memory     none
        CQE res    an fd, yours to close; < 0 -errno: EBADF empty slot, EMFILE, ...
        CQE flags  none
        """
        self._encode(_FIXED_FD_INSTALL, fd, 0, 0, 0, install_fd_flags, user_data, sqe_flags | _FIXED_FILE)

    def prep_pipe(
        self, fds_addr: int, pipe_flags: int, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_PIPE: make a pipe and write its read end, then its write end, to int[2] at `fds_addr`.

        `pipe_flags` are O_CLOEXEC, O_NONBLOCK, O_DIRECT.

        Since      Linux 6.16           Man   io_uring_prep_pipe(3), pipe2(2)
        Memory     completion: two ints are written: fds, yours to close
        CQE res    0; < 0 -errno: EMFILE, EFAULT, EINVAL, ...
        CQE flags  none
        """
        self._encode(_PIPE, 0, 0, fds_addr, 0, pipe_flags, user_data, sqe_flags, personality=personality)

    def prep_pipe_direct(
        self, fds_addr: int, pipe_flags: int, file_index: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_PIPE into slots `file_index` and the next of the file table, or FILE_INDEX_ALLOC for both.

        Since      Linux 6.16           Man   io_uring_prep_pipe_direct(3)
        Memory     completion: with FILE_INDEX_ALLOC the two slots are written to int[2] at `fds_addr`
        CQE res    0; < 0 -errno: ENFILE table full, ENXIO no table, EINVAL outside the table, ...
        CQE flags  none
        Limit      O_CLOEXEC gives EINVAL
        """
        self._encode(_PIPE, 0, 0, fds_addr, 0, pipe_flags, user_data, sqe_flags,
                     personality=personality, file_index=encoded_file_index(file_index))  # fmt: skip
