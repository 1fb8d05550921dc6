"""Encoders for events of other kinds: EPOLL_CTL, EPOLL_WAIT, WAITID, FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAITV.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

from .. import abi
from .base import U32, Encoder

_EPOLL_CTL = int(abi.Op.EPOLL_CTL)
_WAITID = int(abi.Op.WAITID)
_FUTEX_WAIT = int(abi.Op.FUTEX_WAIT)
_FUTEX_WAKE = int(abi.Op.FUTEX_WAKE)
_FUTEX_WAITV = int(abi.Op.FUTEX_WAITV)
_EPOLL_WAIT = int(abi.Op.EPOLL_WAIT)


class EventPreps(Encoder):
    """The `prep_*` methods for events of other kinds."""

    __slots__ = ()

    def prep_epoll_ctl(
        self, epfd: int, fd: int, epoll_op: int, event_addr: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_EPOLL_CTL: add (1), remove (2) or modify (3) what epoll fd `epfd` knows of `fd`.

        Since      Linux 5.6            Man   io_uring_prep_epoll_ctl(3), epoll_ctl(2)
        Memory     submit: the struct epoll_event (abi.EPOLL_EVENT) at `event_addr`
        CQE res    0; < 0 -errno: EEXIST, ENOENT, EPERM the file cannot be polled, ...
        CQE flags  none
        """
        self._encode(_EPOLL_CTL, epfd, fd & U32, event_addr, epoll_op, 0, user_data, sqe_flags)

    def prep_epoll_wait(
        self, fd: int, events_addr: int, maxevents: int, reserved_flags: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_EPOLL_WAIT: wait until the epoll fd `fd` has events, and take up to `maxevents`.

        Since      Linux 6.15           Man   io_uring_prep_epoll_wait(3), epoll_wait(2)
        Memory     completion: struct epoll_event[] (abi.EPOLL_EVENT) at `events_addr` is written
        CQE res    n > 0 events; < 0 -errno: EBADF, EINVAL no epoll fd, ECANCELED, ...
        CQE flags  none
        Limit      `reserved_flags` is 0; for a time limit link a timeout to it
        """
        self._encode(_EPOLL_WAIT, fd, 0, events_addr, maxevents, reserved_flags, user_data, sqe_flags)

    def prep_waitid(
        self, idtype: int, target_id: int, siginfo_addr: int, options: int, reserved_flags: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_WAITID: wait until a child process changes as `options` say.

        `idtype` is os.P_PID, os.P_PIDFD, os.P_ALL, ...; `options` are os.WEXITED, os.WSTOPPED,
        os.WNOWAIT, ... `siginfo_addr` may be 0.

        Since      Linux 6.7            Man   io_uring_prep_waitid(3), waitid(2)
        Memory     completion: a siginfo_t of 128 bytes (abi.SIGINFO) is written
        CQE res    0; < 0 -errno: ECHILD, EINVAL, ECANCELED, ...
        CQE flags  none
        Limit      `reserved_flags` is 0
        """
        self._encode(_WAITID, target_id, siginfo_addr, 0, idtype, reserved_flags, user_data, sqe_flags,
                     file_index=options)  # fmt: skip

    def prep_futex_wake(
        self, futex_addr: int, val: int, mask: int, futex_flags: int, reserved_flags: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FUTEX_WAKE: wake up to `val` waiters of the futex at `futex_addr` whose mask meets `mask`.

        `futex_flags` are Futex2 bits, as for `prep_futex_wait`.

        Since      Linux 6.7            Man   io_uring_prep_futex_wake(3)
        Memory     completion: the futex
        CQE res    n >= 0 were woken; < 0 -errno: EINVAL, EFAULT
        CQE flags  none
        Limit      `reserved_flags` is 0
        """
        self._encode(_FUTEX_WAKE, futex_flags, val, futex_addr, 0, reserved_flags, user_data, sqe_flags, addr3=mask)

    def prep_futex_wait(
        self, futex_addr: int, val: int, mask: int, futex_flags: int, reserved_flags: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FUTEX_WAIT: wait for a wake-up of the futex at `futex_addr`, if it holds `val`.

        `futex_flags` are Futex2 bits: Futex2.SIZE_U32, and Futex2.PRIVATE unless processes share
        it. `mask` is abi.FUTEX_BITSET_MATCH_ANY, or some bits of which a wake-up must have one.

        Since      Linux 6.7            Man   io_uring_prep_futex_wait(3)
        Memory     completion: the futex
        CQE res    0 woken; < 0 -errno: EAGAIN it held another value, EINVAL, ECANCELED, ...
        CQE flags  none
        Limit      `reserved_flags` is 0
        """
        self._encode(_FUTEX_WAIT, futex_flags, val, futex_addr, 0, reserved_flags, user_data, sqe_flags, addr3=mask)

    def prep_futex_waitv(
        self, futexv_addr: int, nr_futex: int, reserved_flags: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FUTEX_WAITV: wait for a wake-up of any of `nr_futex` futexes.

        `futexv_addr` is that of struct futex_waitv[] (abi.FUTEX_WAITV).

        Since      Linux 6.7            Man   io_uring_prep_futex_waitv(3), futex_waitv(2)
        Memory     submit: the array; completion: the futexes
        CQE res    the index of the one that was woken; < 0 -errno: EAGAIN one held another value, EINVAL,
                   ECANCELED, ...
        CQE flags  none
        Limit      128 futexes; `reserved_flags` is 0
        """
        self._encode(_FUTEX_WAITV, 0, 0, futexv_addr, nr_futex, reserved_flags, user_data, sqe_flags)
