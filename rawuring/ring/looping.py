"""Waiting for owned operations: turns of submit, wait, resolve, call back.

May import everything below ring, and `queueing`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable

from ..errors import RESTARTS, OutOfOrderError
from ..hints import Any, Final
from ..inflight import Cqe, Operation, Stream
from .entering import deadline_after
from .queueing import Queueing
from .terms import Terms

_CANCEL_NS: Final = 1_000_000_000
_CANCEL_AGAIN_NS: Final = 10_000_000

# A cancellation that finds a request in a worker thread of the kernel interrupts it.
_CANCELLED: Final = (errno.ECANCELED, errno.EINTR, *RESTARTS)


class Looping(Queueing):
    """A ring that waits until operations are done."""

    __slots__ = ("_stopping",)

    _stopping: bool

    def run_once(
        self,
        timeout_ns: int | None = None,
        *,
        until_ns: int | None = None,
        signal_mask: Iterable[int] | None = None,
    ) -> bool:
        """Submit, wait for at least one completion, resolve what is there and call the callbacks.

        Returns False if `timeout_ns` nanoseconds passed, or `until_ns` did, without one. `until_ns`
        and `signal_mask` are those of `submit_and_wait`.
        """
        self._check_can_wait("run_once")
        deadline, terms = self._terms(timeout_ns, until_ns, 0, signal_mask)
        now = time.monotonic_ns if terms is None else terms.now
        while not self._turn(deadline, terms):
            if deadline is not None and now() >= deadline:
                return False
        return True

    def run(self) -> None:
        """Call callbacks as completions come, until `stop()` or until nothing is in flight any more.

        What the last callbacks queued is submitted, and not waited for.

        Example
            from rawuring import Ring

            def done(operation, res, cqe_flags):
                print(operation.name, res)  # nop 0

            with Ring() as ring:
                ring.nop(callback=done)
                ring.run()
        """
        self._check_can_wait("run")
        self._stopping = False
        while not self._stopping and (self._inflight or self._reaped.events or self._batch is not None):
            self._turn(None)
        self.submit()

    def stop(self) -> None:
        """Have `run()` return when the callbacks of the completions at hand have run.

        For callbacks. From a signal handler it takes effect with the next completion: `submit_and_wait`
        tells how a program wakes up for a signal.
        """
        self._stopping = True

    def wait_for(self, operation: Operation[Any], timeout_ns: int | None) -> Cqe:
        """Submit and wait until an operation has the completion with its result."""
        answer = operation.answer
        if answer is None:
            self._check_can_wait("wait")
            deadline = None if timeout_ns is None else deadline_after(timeout_ns)
            while True:
                self._turn(deadline)
                answer = operation.answer
                if answer is not None:
                    break
                if deadline is not None and time.monotonic_ns() >= deadline:
                    return self._time_out(operation)
        if operation._keep is not None and operation.cqe is not None:
            operation.settle()
        return answer

    def wait_next(self, operation: Stream[Any], timeout_ns: int | None) -> bool:
        """Submit and wait until a stream has a completion to take. False after the final one."""
        if not operation.stream[0] and operation.cqe is None:
            if not self._wait(lambda: bool(operation.stream[0]) or operation.cqe is not None, timeout_ns):
                raise TimeoutError(f"{operation.name}: no completion in time")
        return bool(operation.stream[0])

    def wait_end(self, operation: Operation[Any], timeout_ns: int | None) -> None:
        """Submit and wait until an operation has its final completion, and do not cancel it."""
        if not self._wait(lambda: operation.cqe is not None, timeout_ns):
            raise TimeoutError(f"{operation.name}: the kernel still needs the memory")
        operation.settle()

    def _wait(self, is_there: Callable[[], bool], timeout_ns: int | None) -> bool:
        """Submit and wait until something is there. False if the time passed before."""
        if not is_there():
            self._check_can_wait("wait")
            deadline = deadline_after(timeout_ns)
            while not is_there():
                if deadline is not None and time.monotonic_ns() >= deadline:
                    return False
                self._turn(deadline)
        return True

    def _time_out(self, operation: Operation[Any]) -> Cqe:
        deadline = time.monotonic_ns() + _CANCEL_NS
        while operation.answer is None and time.monotonic_ns() < deadline:
            # Again and again: a timer that repeats is not found between two of its periods.
            self.cancel(operation)
            until = time.monotonic_ns() + _CANCEL_AGAIN_NS
            while operation.answer is None and time.monotonic_ns() < until:
                self._turn(until)
        answer = operation.answer
        if answer is None:
            raise TimeoutError(
                f"{operation.name}: timed out, and the kernel cannot cancel it: it stays in flight, "
                "and the ring keeps its memory"
            )
        if operation.cqe is not None:
            operation.settle()
        if -answer[1] in _CANCELLED:
            raise TimeoutError(f"{operation.name}: timed out and was cancelled")
        return answer

    def _turn(self, deadline: int | None, terms: Terms | None = None) -> bool:
        """Submit, wait for a completion, resolve, call back. False if there was none, for whatever reason."""
        if self._link_flag:
            raise OutOfOrderError("a chain cannot be waited for inside its block: wait after it")
        cq = self.cq
        head = cq._head if self._batch is None else -1
        if self._reaped.events:
            self._run_callbacks()
            return True
        try:
            if self._groups or self._file_table is not None:
                self._reclaim()
            waits = 0 if self._batch is not None or cq.ready else 1
            if deadline is None and terms is None and not self._reaped.raw:
                self.submit_and_wait(waits)
            else:
                self._submit_until(waits, deadline, terms)
        except OSError as error:
            # Before Linux 5.19 nothing more is taken while completions overflow.
            if error.errno not in (errno.EBUSY, errno.EAGAIN):
                raise
            if not cq.ready:
                time.sleep(0.001)
        self._reap()
        if self._reaped.events:
            self._run_callbacks()
        return cq._head != head
