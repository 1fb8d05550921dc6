"""Encoders for waiting and stopping: NOP, POLL, TIMEOUT, LINK_TIMEOUT, ASYNC_CANCEL.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

import sys

from .. import abi
from .base import NOP, SQE128, U32, Encoder

_NOP = int(abi.Op.NOP)
_POLL_ADD = int(abi.Op.POLL_ADD)
_POLL_REMOVE = int(abi.Op.POLL_REMOVE)
_TIMEOUT = int(abi.Op.TIMEOUT)
_TIMEOUT_REMOVE = int(abi.Op.TIMEOUT_REMOVE)
_ASYNC_CANCEL = int(abi.Op.ASYNC_CANCEL)
_LINK_TIMEOUT = int(abi.Op.LINK_TIMEOUT)
_NOP128 = int(abi.Op.NOP128)

_POLL_MULTI = int(abi.Poll.ADD_MULTI)
_TIMEOUT_UPDATE = int(abi.Timeout.UPDATE)
_CANCEL_FD = int(abi.Cancel.FD)

_BIG_ENDIAN = sys.byteorder == "big"

_pack_nop = NOP.pack_into


def poll32_events(poll_mask: int) -> int:
    """`poll_mask` as the SQE stores it: on big-endian machines its 16-bit halves are swapped."""
    if _BIG_ENDIAN and 0 <= poll_mask <= U32:  # what does not fit is refused when the SQE is written
        return (poll_mask << 16 | poll_mask >> 16) & U32
    return poll_mask


class WaitingPreps(Encoder):
    """The `prep_*` methods for waiting and stopping."""

    __slots__ = ()

    def prep_nop(self, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_NOP: complete, and do nothing.

        Since      Linux 5.1            Man   io_uring_prep_nop(3)
        Memory     none
        CQE res    0
        CQE flags  none
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_nop(self._sqes, at, _NOP, sqe_flags, -1, user_data)
        self._at = at + self._stride

    def prep_nop_flags(
        self, nop_flags: int, res: int = 0, fd: int = -1, buf_index: int = 0, extra1: int = 0, extra2: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_NOP with Nop flags: for tests of what surrounds a request.

        `res` comes back in the CQE with Nop.INJECT_RESULT; `fd` and `buf_index` are looked up
        with Nop.FILE and Nop.FIXED_BUFFER; `extra1` and `extra2` come back in the second half
        of a CQE of 32 bytes with Nop.CQE32 (6.18).

        Since      Linux 6.10           Man   io_uring_prep_nop(3)
        Memory     none
        CQE res    0, or what was injected; < 0 -errno: EBADF no such file, EFAULT no such buffer (0 on some before 7.0)
        CQE flags  none
        """
        self._encode(_NOP, fd, extra1, extra2, res & U32, nop_flags, user_data, sqe_flags, buf=buf_index)

    def prep_nop128(
        self, nop_flags: int = 0, res: int = 0, fd: int = -1, buf_index: int = 0, extra1: int = 0, extra2: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_NOP128: a NOP in an SQE of 128 bytes. The arguments are those of `prep_nop_flags`.

        Since      Linux 6.19           Man   io_uring_prep_nop128(3)
        Memory     none
        CQE res    0, or what was injected; < 0 -errno: EBADF no such file, EFAULT no such buffer
        CQE flags  none
        Limit      needs Setup.SQE_MIXED or Setup.SQE128
        """
        self._encode128(SQE128, _NOP128, sqe_flags, 0, fd, extra1, extra2, res & U32, nop_flags,
                        user_data, buf_index, 0, 0, 0, 0)  # fmt: skip

    def prep_poll_add(
        self, fd: int, poll_mask: int, poll_flags: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_POLL_ADD: complete once when an event of `poll_mask` (select.POLLIN, ...) is there.

        Since      Linux 5.1            Man   io_uring_prep_poll_add(3), poll(2)
        Memory     none
        CQE res    > 0 the events that are ready; < 0 -errno: EBADF, ECANCELED, ...
        CQE flags  none
        """
        self._encode(_POLL_ADD, fd, 0, 0, poll_flags, poll32_events(poll_mask), user_data, sqe_flags)

    def prep_poll_multishot(self, fd: int, poll_mask: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue a multishot IORING_OP_POLL_ADD: a CQE at each event, as with edge-triggered epoll.

        Since      Linux 5.13           Man   io_uring_prep_poll_multishot(3)
        Memory     none
        CQE res    > 0 the events that are ready; < 0 -errno: EBADF, ECANCELED, ...
        CQE flags  MORE: still armed, without it queue it anew
        """
        self._encode(_POLL_ADD, fd, 0, 0, _POLL_MULTI, poll32_events(poll_mask), user_data, sqe_flags)

    def prep_poll_remove(self, target_user_data: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_POLL_REMOVE: stop the poll request whose user_data is `target_user_data`.

        Since      Linux 5.1            Man   io_uring_prep_poll_remove(3)
        Memory     none
        CQE res    0 (the poll itself ends with ECANCELED); < 0 -errno: ENOENT, EALREADY
        CQE flags  none
        """
        self._encode(_POLL_REMOVE, -1, 0, target_user_data, 0, 0, user_data, sqe_flags)

    def prep_poll_update(
        self, old_user_data: int, new_user_data: int, poll_mask: int, poll_flags: int, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_POLL_REMOVE as an update of a poll request in flight.

        `poll_flags`: Poll.UPDATE_EVENTS takes `poll_mask`, Poll.UPDATE_USER_DATA takes
        `new_user_data`, Poll.ADD_MULTI keeps it multishot.

        Since      Linux 5.13           Man   io_uring_prep_poll_update(3)
        Memory     none
        CQE res    0; < 0 -errno: ENOENT, EALREADY
        CQE flags  none
        Limit      before Linux 5.16, and on 6.16, 6.17 and the first ones of 6.18, a poll that is updated to
                   what is so already never completes; with SQPOLL the process then never ends (seen on 6.17)
        """
        self._encode(_POLL_REMOVE, -1, new_user_data, old_user_data, poll_flags, poll32_events(poll_mask),
                     user_data, sqe_flags)  # fmt: skip

    def prep_timeout(
        self, ts_addr: int, count: int, timeout_flags: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_TIMEOUT: complete when the struct __kernel_timespec at `ts_addr` has passed.

        With `count` it also completes when that many other requests have. With
        Timeout.MULTISHOT `count` is the number of repeats, 0 for no end. With
        Timeout.IMMEDIATE_ARG (7.1) `ts_addr` is no address but the nanoseconds themselves.

        Since      Linux 5.4            Man   io_uring_prep_timeout(3)
        Memory     submit: the timespec
        CQE res    -ETIME passed; 0 count reached; < 0 -errno: ECANCELED, EINVAL, ...
        CQE flags  MORE with Timeout.MULTISHOT (6.4)
        """
        self._encode(_TIMEOUT, -1, count, ts_addr, 1, timeout_flags, user_data, sqe_flags)

    def prep_timeout_remove(
        self, target_user_data: int, timeout_flags: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_TIMEOUT_REMOVE: stop the timeout whose user_data is `target_user_data`.

        Since      Linux 5.5            Man   io_uring_prep_timeout_remove(3)
        Memory     none
        CQE res    0 (the timeout itself ends with ECANCELED); < 0 -errno: ENOENT, EBUSY, EALREADY
        CQE flags  none
        """
        self._encode(_TIMEOUT_REMOVE, -1, 0, target_user_data, 0, timeout_flags, user_data, sqe_flags)

    def prep_timeout_update(
        self, ts_addr: int, target_user_data: int, timeout_flags: int, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_TIMEOUT_REMOVE as an update: the timeout gets the timespec at `ts_addr`.

        Timeout.UPDATE is set for you; a LINK_TIMEOUT needs Timeout.LINK_UPDATE as well (5.15).

        Since      Linux 5.11           Man   io_uring_prep_timeout_update(3)
        Memory     submit: the timespec
        CQE res    0; < 0 -errno: ENOENT, EBUSY, EALREADY, EINVAL
        CQE flags  none
        """
        self._encode(_TIMEOUT_REMOVE, -1, ts_addr, target_user_data, 0, timeout_flags | _TIMEOUT_UPDATE,
                     user_data, sqe_flags)  # fmt: skip

    def prep_link_timeout(self, ts_addr: int, timeout_flags: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_LINK_TIMEOUT: cancel the request queued just before, linked to it, after a time.

        The request before must carry SqeFlag.IO_LINK, and both must be submitted together.

        Since      Linux 5.5            Man   io_uring_prep_link_timeout(3)
        Memory     submit: the timespec
        CQE res    -ETIME it fired; -ECANCELED it was not needed; < 0 -errno: ENOENT, EALREADY, EINVAL
        CQE flags  none
        """
        self._encode(_LINK_TIMEOUT, -1, 0, ts_addr, 1, timeout_flags, user_data, sqe_flags)

    def prep_cancel(
        self, target_user_data: int, cancel_flags: int, opcode: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_ASYNC_CANCEL: cancel requests by user_data, opcode or all.

        `cancel_flags` 0 matches `target_user_data`; Cancel.ALL takes every match, Cancel.ANY
        matches anything, Cancel.OP matches `opcode`, with Cancel.USERDATA both are needed.

        Since      Linux 5.5 (flags 5.19, OP and USERDATA 6.6) Man   io_uring_prep_cancel(3)
        Memory     none
        CQE res    0 one was cancelled, or the count with ALL or ANY; < 0 -errno: ENOENT none found,
                   EALREADY it is running and cannot be stopped; both are normal
        CQE flags  none
        """
        self._encode(_ASYNC_CANCEL, -1, 0, target_user_data, opcode, cancel_flags, user_data, sqe_flags)

    def prep_cancel64(
        self, target_user_data: int, cancel_flags: int, opcode: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_ASYNC_CANCEL: the same as `prep_cancel`, whose user_data has 64 bits here, too.

        Since      Linux 5.5 (flags 5.19, OP and USERDATA 6.6) Man   io_uring_prep_cancel64(3)
        Memory     none
        CQE res    as for `prep_cancel`
        CQE flags  none
        """
        self.prep_cancel(target_user_data, cancel_flags, opcode, user_data=user_data, sqe_flags=sqe_flags)

    def prep_cancel_fd(
        self, fd: int, cancel_flags: int, opcode: int = 0, target_user_data: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_ASYNC_CANCEL: cancel requests on `fd`. Cancel.FD is set for you.

        Cancel.FD_FIXED: `fd` is a slot of the file table. Cancel.USERDATA and Cancel.OP narrow
        the match to `target_user_data` and `opcode`.

        Since      Linux 5.19           Man   io_uring_prep_cancel_fd(3)
        Memory     none
        CQE res    as for `prep_cancel`; EBADF the fd is not open
        CQE flags  none
        Limit      with Cancel.USERDATA nothing matches before Linux 7.0 (mended in later ones of 6.12 and 6.18)
        """
        self._encode(_ASYNC_CANCEL, fd, 0, target_user_data, opcode, cancel_flags | _CANCEL_FD, user_data, sqe_flags)
