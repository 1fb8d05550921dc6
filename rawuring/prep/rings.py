"""Encoders for messages between rings: MSG_RING.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.

`fd` is that of the target ring, or with FIXED_FILE the slot where that ring is in the file table.
"""

from __future__ import annotations

from .. import abi
from .base import U32, Encoder, encoded_file_index

_MSG_RING = int(abi.Op.MSG_RING)

_DATA = int(abi.MsgRingCommand.DATA)
_SEND_FD = int(abi.MsgRingCommand.SEND_FD)
_FLAGS_PASS = int(abi.MsgRing.FLAGS_PASS)


class RingPreps(Encoder):
    """The `prep_*` methods for messages between rings."""

    __slots__ = ()

    def prep_msg_ring(
        self, fd: int, res: int, data: int, msg_ring_flags: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_MSG_RING: post a CQE with user_data `data` and result `res` to another ring.

        Since      Linux 5.18           Man   io_uring_prep_msg_ring(3)
        Memory     none
        CQE res    0; < 0 -errno: EBADFD no ring or not enabled, EOVERFLOW the other CQ is full, EINVAL
        CQE flags  none
        """
        self._encode(_MSG_RING, fd, data, _DATA, res & U32, msg_ring_flags, user_data, sqe_flags)

    def prep_msg_ring_cqe_flags(
        self, fd: int, res: int, data: int, msg_ring_flags: int, cqe_flags: int, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_MSG_RING: like `prep_msg_ring`, and the CQE over there gets `cqe_flags` as its flags.

        MsgRing.FLAGS_PASS is set for you.

        Since      Linux 6.3            Man   io_uring_prep_msg_ring_cqe_flags(3)
        Memory     none
        CQE res    0; < 0 -errno: EBADFD no ring or not enabled, EOVERFLOW the other CQ is full, EINVAL
        CQE flags  none
        """
        self._encode(_MSG_RING, fd, data, _DATA, res & U32, msg_ring_flags | _FLAGS_PASS, user_data, sqe_flags,
                     file_index=cqe_flags)  # fmt: skip

    def prep_msg_ring_fd(
        self, fd: int, source_index: int, target_index: int, data: int, msg_ring_flags: int, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_MSG_RING: put the file in slot `source_index` into slot `target_index` of another ring.

        That ring gets a CQE with user_data `data`, unless MsgRing.CQE_SKIP is in `msg_ring_flags`.
        `target_index` may be FILE_INDEX_ALLOC.

        Since      Linux 6.0            Man   io_uring_prep_msg_ring_fd(3)
        Memory     none
        CQE res    0, or the slot with FILE_INDEX_ALLOC, here and over there; < 0 -errno: EBADF empty slot,
                   EBADFD no ring or not enabled, ENFILE table full, ENXIO no table, ...
        CQE flags  none
        """
        self._encode(_MSG_RING, fd, data, _SEND_FD, 0, msg_ring_flags, user_data, sqe_flags,
                     file_index=encoded_file_index(target_index), addr3=source_index)  # fmt: skip

    def prep_msg_ring_fd_alloc(
        self, fd: int, source_index: int, data: int, msg_ring_flags: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_MSG_RING: put the file in slot `source_index` into a free slot of another ring.

        That ring gets a CQE with user_data `data`, unless MsgRing.CQE_SKIP is in `msg_ring_flags`.

        Since      Linux 6.0            Man   io_uring_prep_msg_ring_fd_alloc(3)
        Memory     none
        CQE res    the slot, here and over there; < 0 -errno: EBADF empty slot, EBADFD no ring or not
                   enabled, ENFILE table full or no table, ...
        CQE flags  none
        """
        self._encode(_MSG_RING, fd, data, _SEND_FD, 0, msg_ring_flags, user_data, sqe_flags,
                     file_index=abi.FILE_INDEX_ALLOC, addr3=source_index)  # fmt: skip
