"""A message to a ring from code that has none.

May import abi, errors, syscalls.
"""

from __future__ import annotations

from .. import abi
from ..errors import RawuringError
from .calling import RingIndex, call

__all__ = ["sync_msg"]


def sync_msg(fd: int, res: int, user_data: int, cqe_flags: int | None = None) -> None:
    """Post a CQE to the ring `fd`, of any thread or process: like MSG_RING, without a ring to submit it on.

    Its owner sees `user_data`, `res` (as a signed 32-bit number) and `cqe_flags`. On a
    DEFER_TASKRUN ring it appears when the owner enters.

    Since      Linux 6.13           Man   io_uring_register_sync_msg(3)
    Errors     EBADFD not a ring, or a disabled one; EOVERFLOW its CQ is full and no memory is left
    """
    if isinstance(fd, RingIndex):
        raise RawuringError("a message goes to a ring's fd, not to a registered index")
    arg = abi.IO_URING_SQE.pack(
        opcode=int(abi.Op.MSG_RING),
        fd=fd,
        len=res & 0xFFFF_FFFF,
        off=user_data,
        msg_ring_flags=0 if cqe_flags is None else int(abi.MsgRing.FLAGS_PASS),
        file_index=cqe_flags or 0,
    )
    call(-1, abi.Register.SEND_MSG_RING, arg, 1)
