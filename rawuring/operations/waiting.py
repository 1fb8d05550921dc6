"""Owned operations for waiting: nop, poll, timeout, link_timeout; and cancelling by operation, file, kind or all.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

import errno

from .. import abi, register
from ..buffers import pin_writable
from ..errors import OutOfOrderError, UnsupportedError
from ..files import FileLike, fd_of
from ..hints import Any
from ..inflight import Callback, Operation, Stream
from .base import OwnedOperations

NS_PER_S = 1_000_000_000


def timespec(timeout_ns: int) -> bytearray:
    """A struct __kernel_timespec of so many nanoseconds."""
    return abi.KERNEL_TIMESPEC.pack(tv_sec=timeout_ns // NS_PER_S, tv_nsec=timeout_ns % NS_PER_S)


class WaitingOperations(OwnedOperations):
    """The owned operations for waiting."""

    __slots__ = ()

    def nop(self, *, callback: Callback | None = None, sqe_flags: int = 0) -> Operation[int]:
        """Complete, and do nothing. Result: 0."""
        if sqe_flags or self._link_flag:
            sqe_flags = self._join_flags(sqe_flags, 0)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "nop", None, callback)
            self.sq.prep_nop(user_data=token, sqe_flags=sqe_flags)
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def poll(
        self, file: FileLike, poll_mask: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Wait until one of the events select.POLLIN, ... is there. Result: the events that are."""
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Operation, self.sq.prep_poll_add, (fd, poll_mask), file, callback, sqe_flags | fixed)

    def poll_multishot(
        self, file: FileLike, poll_mask: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Stream[int]:
        """A completion at each event, as with edge-triggered epoll: `res` is the events that are there.

        There is no level-triggered one: the kernel refuses Poll.ADD_LEVEL (seen on Linux 6.18).
        """
        fd, fixed = fd_of(file, self._file_table)
        return self._queue(Stream, self.sq.prep_poll_multishot, (fd, poll_mask), file, callback, sqe_flags | fixed)

    def timeout(
        self, timeout_ns: int, count: int = 0, timeout_flags: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """A timer. Its final completion has `res` -ETIME (62): use `wait_cqe()`, `wait()` would raise it.

        With `count`, it also completes, with 0, when that many other requests have. With
        Timeout.ABS `timeout_ns` is a point on CLOCK_MONOTONIC (time.monotonic_ns).
        """
        keep, addr, _ = pin_writable(timespec(timeout_ns))
        return self._queue(
            Operation, self.sq.prep_timeout, (addr, count, timeout_flags), keep, callback, sqe_flags
        )

    def timeout_multishot(
        self, timeout_ns: int, count: int = 0, timeout_flags: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Stream[int]:  # fmt: skip
        """A timer that repeats, `count` times or without end: each completion has `res` -ETIME. Linux 6.4."""
        keep, addr, _ = pin_writable(timespec(timeout_ns))
        return self._queue(Stream, self.sq.prep_timeout, (addr, count, timeout_flags | abi.Timeout.MULTISHOT), keep,
                           callback, sqe_flags)  # fmt: skip

    def timeout_update(
        self, operation: Operation[int], timeout_ns: int, timeout_flags: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Give a timer in flight another time, from now on. Result: 0, or ENOENT when it is over.

        Also one of a `link_timeout` (Linux 5.15), whose operation must have begun.
        """
        self._check_operation(operation)
        form = ""
        if operation.name == "link_timeout":
            form = "link_timeout_update"
            timeout_flags |= abi.Timeout.LINK_UPDATE
        keep, addr, _ = pin_writable(timespec(timeout_ns))
        return self._queue(Operation, self.sq.prep_timeout_update, (addr, operation.token, timeout_flags), keep,
                           callback, sqe_flags, form)  # fmt: skip

    def timeout_remove(
        self, operation: Operation[int], *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Stop a timer, which ends with ECANCELED. Result: 0, or ENOENT when it is over."""
        self._check_operation(operation)
        return self._queue(
            Operation, self.sq.prep_timeout_remove, (operation.token, 0), operation, callback, sqe_flags
        )

    def poll_update(
        self, operation: Operation[int], poll_mask: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Have a poll in flight wait for other events. Result: 0, or ENOENT when it is over. Linux 5.13.

        Its user_data, which the kernel could change as well, is how the ring finds the operation.
        Before Linux 5.16, and on 6.16, 6.17 and the first ones of 6.18, a poll whose new events are there
        already never completes, cannot be cancelled, and with SQPOLL keeps the process from ending.
        """
        self._check_operation(operation)
        poll_flags = abi.Poll.UPDATE_EVENTS | (abi.Poll.ADD_MULTI if isinstance(operation, Stream) else 0)
        return self._queue(Operation, self.sq.prep_poll_update, (operation.token, 0, poll_mask, int(poll_flags)),
                           operation, callback, sqe_flags)  # fmt: skip

    def poll_remove(
        self, operation: Operation[int], *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Stop a poll, which ends with ECANCELED. Result: 0, or ENOENT when it is over."""
        self._check_operation(operation)
        return self._queue(Operation, self.sq.prep_poll_remove, (operation.token,), operation, callback, sqe_flags)

    def link_timeout(
        self, timeout_ns: int, timeout_flags: int = 0, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Cancel the operation queued just before after a time. Inside `Ring.link`, after its target.

        Its `res`: -ETIME it fired, -ECANCELED it was not needed.
        """
        if not self.sq.ends_linked():
            raise OutOfOrderError(
                "a link_timeout watches the operation queued just before it: queue both inside Ring.link, in this order"
            )
        if self.sq.last_opcode() == abi.Op.LINK_TIMEOUT:
            raise OutOfOrderError("what was queued just before has its link_timeout: an operation has one")
        keep, addr, _ = pin_writable(timespec(timeout_ns))
        return self._queue(Operation, self.sq.prep_link_timeout, (addr, timeout_flags), keep, callback, sqe_flags)

    def cancel_fd(
        self, file: FileLike, cancel_flags: int = abi.Cancel.ALL, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Cancel what is in flight on a file. Result: how many, with Cancel.ALL. Linux 5.19."""
        fd, fixed = fd_of(file, self._file_table)
        if fixed:
            cancel_flags |= abi.Cancel.FD_FIXED
        return self._queue(Operation, self.sq.prep_cancel_fd, (fd, int(cancel_flags)), file, callback, sqe_flags)

    def cancel_all(self, *, callback: Callback | None = None, sqe_flags: int = 0) -> Operation[int]:
        """Cancel everything in flight, raw requests included. Result: how many. Linux 5.19."""
        everything = int(abi.Cancel.ANY | abi.Cancel.ALL)
        return self._queue(Operation, self.sq.prep_cancel, (0, everything), None, callback, sqe_flags)

    def cancel_op(
        self, op: abi.Op, file: FileLike | None = None, cancel_flags: int = abi.Cancel.ALL, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Cancel what is in flight of one operation, raw requests included, on all files or one.

        Result: how many, with Cancel.ALL; without it one is cancelled, and the result is 0, or 1 of a
        waitid or a wait for a futex. Linux 6.6.
        """
        # Older kernels do not look at the flag, and would cancel what else is there (seen on 6.1).
        if not (self.supports(abi.Op.WAITID) or self.setup_flags & abi.Setup.NO_SQARRAY):  # of 6.7 and 6.6
            raise UnsupportedError("cancel_op", abi.Cancel.OP.since)
        cancel_flags = int(cancel_flags | abi.Cancel.OP)
        if file is None:
            return self._queue(Operation, self.sq.prep_cancel, (0, cancel_flags, int(op)), None, callback, sqe_flags,
                               "cancel_op")  # fmt: skip
        fd, fixed = fd_of(file, self._file_table)
        if fixed:
            cancel_flags |= int(abi.Cancel.FD_FIXED)
        return self._queue(Operation, self.sq.prep_cancel_fd, (fd, cancel_flags, int(op)), file, callback, sqe_flags,
                           "cancel_op")  # fmt: skip

    def cancel_any(self, *, callback: Callback | None = None, sqe_flags: int = 0) -> Operation[int]:
        """Cancel one request in flight, whichever the kernel finds first. Result: 1. Linux 5.19."""
        return self._queue(Operation, self.sq.prep_cancel, (0, int(abi.Cancel.ANY)), None, callback, sqe_flags)

    def sync_cancel(
        self, target: Operation[Any] | FileLike, cancel_flags: int = 0, *, timeout_ns: int | None = NS_PER_S
    ) -> int:
        """Cancel an operation, or with a file one that is in flight on it, and wait until the kernel has stopped it.

        What is queued is submitted first, and an SQ thread waited for until it has taken it. Returns 0; with Cancel.ALL all on the file, and how many that
        were. Each of them gets its final completion as always. Raises FileNotFoundError if nothing is
        found, TimeoutError if it still runs after `timeout_ns`. Linux 6.0.
        """
        self._hand_over(timeout_ns)
        try:
            if isinstance(target, Operation):
                self._check_operation(target)
                found = register.sync_cancel(self._fd, target.token, cancel_flags=int(cancel_flags), timeout_ns=timeout_ns)
            else:
                fd, fixed = fd_of(target, self._file_table)
                cancel_flags |= abi.Cancel.FD | (abi.Cancel.FD_FIXED if fixed else 0)
                found = register.sync_cancel(self._fd, target_fd=fd, cancel_flags=int(cancel_flags), timeout_ns=timeout_ns)
            # The kernel says 1 of a waitid or a wait for a futex, whatever was asked (seen on Linux 6.18).
            return found if cancel_flags & (abi.Cancel.ALL | abi.Cancel.ANY) else 0
        except OSError as error:
            if error.errno == errno.ETIME:
                raise TimeoutError("sync_cancel: it still runs") from None
            if error.errno == errno.EINVAL and self.lacks("sync_cancel"):
                raise UnsupportedError("sync_cancel", abi.Register.SYNC_CANCEL.since) from None
            raise
