"""Encoders for ranges of files and memory: SYNC_FILE_RANGE, FALLOCATE, FTRUNCATE, FADVISE, MADVISE, SPLICE, TEE.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

from .. import abi
from .base import SPLICE, Encoder

_SYNC_FILE_RANGE = int(abi.Op.SYNC_FILE_RANGE)
_FALLOCATE = int(abi.Op.FALLOCATE)
_FADVISE = int(abi.Op.FADVISE)
_MADVISE = int(abi.Op.MADVISE)
_SPLICE = int(abi.Op.SPLICE)
_TEE = int(abi.Op.TEE)
_FTRUNCATE = int(abi.Op.FTRUNCATE)


class RangePreps(Encoder):
    """The `prep_*` methods for ranges of files and memory."""

    __slots__ = ()

    def prep_sync_file_range(
        self, fd: int, nbytes: int, offset: int, sync_range_flags: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SYNC_FILE_RANGE: start or await writing the dirty pages of a range of a file.

        `nbytes` 0 is the whole file from `offset` on. It is no durability: see the manual's warning.

        Since      Linux 5.2            Man   io_uring_prep_sync_file_range(3), sync_file_range(2)
        Memory     none
        CQE res    0; < 0 -errno: EBADF, EINVAL, ESPIPE, EIO, ...
        CQE flags  none
        """
        self._encode(_SYNC_FILE_RANGE, fd, offset, 0, nbytes, sync_range_flags, user_data, sqe_flags,
                     personality=personality)  # fmt: skip

    def prep_fallocate(
        self, fd: int, mode: int, offset: int, nbytes: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FALLOCATE: reserve, punch out or zero a range of a file, as `mode` says.

        Since      Linux 5.6            Man   io_uring_prep_fallocate(3), fallocate(2)
        Memory     none
        CQE res    0; < 0 -errno: ENOSPC, EOPNOTSUPP, EFBIG, ...
        CQE flags  none
        """
        self._encode(_FALLOCATE, fd, offset, nbytes, mode, 0, user_data, sqe_flags, personality=personality)

    def prep_ftruncate(
        self, fd: int, nbytes: int, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FTRUNCATE: make a file `nbytes` long.

        Since      Linux 6.9            Man   io_uring_prep_ftruncate(3), ftruncate(2)
        Memory     none
        CQE res    0; < 0 -errno: EBADF, EINVAL not open for writing, EFBIG, ...
        CQE flags  none
        """
        self._encode(_FTRUNCATE, fd, nbytes, 0, 0, 0, user_data, sqe_flags, personality=personality)

    def prep_fadvise(
        self, fd: int, offset: int, nbytes: int, advice: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FADVISE: say how a range of a file will be used (os.POSIX_FADV_*).

        `nbytes` 0 is up to the end of the file.

        Since      Linux 5.6            Man   io_uring_prep_fadvise(3), posix_fadvise(2)
        Memory     none
        CQE res    0; < 0 -errno: EBADF, EINVAL, ESPIPE, ...
        CQE flags  none
        Limit      `nbytes` below 2**32: see `prep_fadvise64`
        """
        self._encode(_FADVISE, fd, offset, 0, nbytes, advice, user_data, sqe_flags, personality=personality)

    def prep_fadvise64(
        self, fd: int, offset: int, nbytes: int, advice: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FADVISE with a length of 64 bits.

        Since      Linux 6.11           Man   io_uring_prep_fadvise64(3), posix_fadvise(2)
        Memory     none
        CQE res    0; < 0 -errno: EBADF, EINVAL, ESPIPE, ...
        CQE flags  none
        """
        self._encode(_FADVISE, fd, offset, nbytes, 0, advice, user_data, sqe_flags, personality=personality)

    def prep_madvise(
        self, addr: int, nbytes: int, advice: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_MADVISE: say how memory will be used (mmap.MADV_*).

        Since      Linux 5.6            Man   io_uring_prep_madvise(3), madvise(2)
        Memory     completion: [addr, addr + nbytes), which some advice discards
        CQE res    0; < 0 -errno: EINVAL, ENOMEM not mapped, ...
        CQE flags  none
        Limit      `nbytes` below 2**32: see `prep_madvise64`
        """
        self._encode(_MADVISE, -1, 0, addr, nbytes, advice, user_data, sqe_flags)

    def prep_madvise64(
        self, addr: int, nbytes: int, advice: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_MADVISE with a length of 64 bits.

        Since      Linux 6.11           Man   io_uring_prep_madvise64(3), madvise(2)
        Memory     completion: [addr, addr + nbytes), which some advice discards
        CQE res    0; < 0 -errno: EINVAL, ENOMEM not mapped, ...
        CQE flags  none
        """
        self._encode(_MADVISE, -1, nbytes, addr, 0, advice, user_data, sqe_flags)

    def prep_splice(
        self, fd_in: int, off_in: int, fd_out: int, off_out: int, nbytes: int, splice_flags: int,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SPLICE: move up to `nbytes` between two files, of which one at least is a pipe.

        The offset of a pipe is -1; that of a file may be, for its position. FIXED_FILE is for
        `fd_out`, and Splice.FD_IN_FIXED in `splice_flags` for `fd_in`.

        Since      Linux 5.7            Man   io_uring_prep_splice(3), splice(2)
        Memory     none
        CQE res    n > 0 bytes, may be short; 0 end of file; < 0 -errno: EBADF, EINVAL no pipe, ESPIPE, ...
        CQE flags  none
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        SPLICE.pack_into(self._sqes, at, _SPLICE, sqe_flags, fd_out, off_out, off_in, nbytes, splice_flags,
                         user_data, personality, fd_in)  # fmt: skip
        self._at = at + self._stride

    def prep_tee(
        self, fd_in: int, fd_out: int, nbytes: int, splice_flags: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_TEE: copy up to `nbytes` from one pipe to another, and leave them in the first.

        FIXED_FILE is for `fd_out`, and Splice.FD_IN_FIXED in `splice_flags` for `fd_in`.

        Since      Linux 5.8            Man   io_uring_prep_tee(3), tee(2)
        Memory     none
        CQE res    n > 0 bytes, may be short; 0 no writer is left; < 0 -errno: EBADF, EINVAL no pipe, ...
        CQE flags  none
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        SPLICE.pack_into(self._sqes, at, _TEE, sqe_flags, fd_out, 0, 0, nbytes, splice_flags,
                         user_data, personality, fd_in)  # fmt: skip
        self._at = at + self._stride
