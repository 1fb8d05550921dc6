"""Cancelling requests and waiting until they are gone, in one call.

May import abi, errors, syscalls.
"""

from __future__ import annotations

from .. import abi
from ..hints import Final
from .calling import call

__all__ = ["sync_cancel"]

_WITHOUT_LIMIT: Final = (-1, -1)


def sync_cancel(
    fd: int,
    user_data: int = 0,
    target_fd: int = -1,
    cancel_flags: int = 0,
    *,
    opcode: int = 0,
    timeout_ns: int | None = None,
) -> int:
    """Cancel what ASYNC_CANCEL would, and wait, up to `timeout_ns`, for what is running and stops later.

    By `user_data`; by `target_fd` with Cancel.FD (a slot with Cancel.FD_FIXED); by `opcode` with
    Cancel.OP; several of these with Cancel.USERDATA; everything with Cancel.ANY. Returns how many
    with Cancel.ALL or ANY, which is 0 where none was found; otherwise 0, or 1 of a waitid or a wait
    for a futex (seen on 6.18). Each of them completes, with ECANCELED or EINTR, in a CQE that may
    come later than the return.

    With FD and USERDATA together nothing matches before Linux 7.0 (mended in later ones of 6.12 and 6.18).

    Set a timeout on a DEFER_TASKRUN ring: nothing wakes the call when what was running ends, so it
    may wait for all of it (seen on 6.18). The request is cancelled all the same.

    Since      Linux 6.0 (OP 6.6)   Man   io_uring_register_sync_cancel(3)
    Errors     ENOENT nothing matches; ETIME it still runs; EINTR; EBADF `target_fd`; EINVAL
    """
    seconds = _WITHOUT_LIMIT if timeout_ns is None else divmod(timeout_ns, 10**9)
    layout = abi.IO_URING_SYNC_CANCEL_REG
    arg = layout.pack(addr=user_data, fd=target_fd, flags=int(cancel_flags), opcode=int(opcode))
    layout.put(arg, "timeout.tv_sec", seconds[0])
    layout.put(arg, "timeout.tv_nsec", seconds[1])
    return call(fd, abi.Register.SYNC_CANCEL, arg, 1)
