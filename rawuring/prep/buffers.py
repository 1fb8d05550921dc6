"""Encoders for provided buffers of the legacy kind: PROVIDE_BUFFERS, REMOVE_BUFFERS.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

from .. import abi
from .base import Encoder

_PROVIDE_BUFFERS = int(abi.Op.PROVIDE_BUFFERS)
_REMOVE_BUFFERS = int(abi.Op.REMOVE_BUFFERS)


class BufferPreps(Encoder):
    """The `prep_*` methods for provided buffers."""

    __slots__ = ()

    def prep_provide_buffers(
        self, addr: int, nbytes: int, nr: int, bgid: int, bid: int, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_PROVIDE_BUFFERS: give the kernel `nr` buffers of `nbytes` each, side by side at `addr`.

        They get the ids `bid`, `bid` + 1, ... in group `bgid`. A buffer ring
        (`Ring.buffer_ring`, 5.19) does the same without a request per return.

        Since      Linux 5.7            Man   io_uring_prep_provide_buffers(3)
        Memory     final: each buffer until a CQE brings it back or REMOVE_BUFFERS took it out
        CQE res    >= 0 provided; < 0 -errno: E2BIG, EINVAL (the group is a buffer ring), ENOMEM
        CQE flags  none
        """
        self._encode(_PROVIDE_BUFFERS, nr, bid, addr, nbytes, 0, user_data, sqe_flags, buf=bgid)

    def prep_remove_buffers(self, nr: int, bgid: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_REMOVE_BUFFERS: take up to `nr` buffers out of group `bgid`.

        Since      Linux 5.7            Man   io_uring_prep_remove_buffers(3)
        Memory     none
        CQE res    how many were removed; < 0 -errno: ENOENT no such group, EINVAL
        CQE flags  none
        """
        self._encode(_REMOVE_BUFFERS, nr, 0, 0, 0, 0, user_data, sqe_flags, buf=bgid)
