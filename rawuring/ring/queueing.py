"""Queueing owned operations: the table first, the SQE last; chains; cancelling.

May import everything below ring, and `resolving`. It never writes an SQE itself.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .. import abi, syscalls
from ..errors import OutOfOrderError, SubmissionQueueFullError
from ..files import Fixed, fd_of
from ..hints import Any, Final
from ..inflight import BufferOperation, BufferStream, Callback, Operation, Prep, Stream
from ..operations.base import FixedStream, Kind
from .entering import deadline_after
from .resolving import Resolving

_IO_LINK: Final = int(abi.SqeFlag.IO_LINK)
_SQ_WAIT: Final = int(abi.Enter.SQ_WAIT)
_LOOK_AGAIN_S: Final = 0.0001

_CQE_SKIP: Final = int(abi.SqeFlag.CQE_SKIP_SUCCESS)
_REFUSED: Final = _CQE_SKIP | int(abi.SqeFlag.BUFFER_SELECT)

_enter = syscalls.enter


class Queueing(Resolving):
    """A ring that queues operations with everything they need kept alive."""

    __slots__ = ("_link_flag",)

    def _queue(
        self,
        kind: type[Kind],
        prep: Prep,
        args: tuple[Any, ...],
        keep: object = None,
        callback: Callback | None = None,
        sqe_flags: int = 0,
        form: str = "",
        **fields: int,
    ) -> Kind:
        if sqe_flags & _REFUSED and not (issubclass(kind, BufferOperation) and not sqe_flags & _CQE_SKIP):
            self._check_sqe_flags(sqe_flags)
        token = self._last_token = self._last_token + 1
        try:
            if not self.sq.has_room():
                self._make_room(1)
            operation = kind()
            name = form or prep.__name__.removeprefix("prep_")
            operation.begin(self, token, name, keep, callback)  # type: ignore[arg-type]
            if isinstance(operation, Stream):
                operation.request = (kind, prep, args, keep, callback, sqe_flags, fields)
            self._inflight[token] = operation
            prep(*args, user_data=token, sqe_flags=sqe_flags | self._link_flag, **fields)
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def _begin(self, token: int, name: str, keep: object, callback: Callback | None) -> Operation[int]:
        sq = self.sq
        if sq._at == sq._limit and not sq.has_room():
            self._make_room(1)
        operation: Operation[int] = Operation()
        # The same as operation.begin(self, token, name, keep, callback), without the call.
        operation.token = token
        operation.cqe = None
        operation.callback = callback
        operation.special = callback is not None
        operation._ring = self  # type: ignore[assignment]  # which is a Looping as well
        operation.name = name
        operation._keep = keep
        self._inflight[token] = operation
        return operation

    def _unqueue(self, token: int) -> None:
        sq = self.sq
        if sq.holds(token):
            if not sq.unpublished or sq.last_user_data() != token:
                return  # a signal handler went on with the queue: it stays in flight
            sq.discard_last()
        self._inflight.pop(token, None)

    def _make_room(self, entries: int) -> None:
        if self._chaining():
            raise OutOfOrderError(
                "the submission queue is full in the middle of a chain: reserve more entries for it, with Ring.link"
            )
        self.submit()
        while self.sq.space_left < entries:
            if not self._sqpoll:
                raise SubmissionQueueFullError("the kernel took nothing of a full submission queue: reap completions")
            # The SQ thread is at work: sleep until it has consumed something.
            taken = _enter(self._enter_fd, 0, 0, self._enter_flags | _SQ_WAIT)
            if taken < 0:
                self._after_failure(-taken, 0)

    def _hand_over(self, timeout_ns: int | None) -> None:
        self.submit()
        deadline = deadline_after(timeout_ns)
        while self._sqpoll and self.sq.ready:
            # SQ_WAIT returns at once while the queue is not full.
            if deadline is not None and time.monotonic_ns() >= deadline:
                raise TimeoutError("the SQ thread has not taken what is queued")
            time.sleep(_LOOK_AGAIN_S)

    @contextmanager
    def link(self, entries: int) -> Iterator[None]:
        """Chain the operations queued inside: each starts when the one before has succeeded.

        A short read or write counts as a failure and cancels the rest; so does an expired
        `link_timeout`. Room for `entries` SQEs is made first, so that the chain is submitted as
        one. Nothing of it may be submitted inside: wait after the block. An exception inside
        takes the whole chain back: its operations are done, with ECANCELED.

        Example
            import tempfile
            from rawuring import Ring

            with Ring() as ring, tempfile.TemporaryFile() as file:
                with ring.link(2):
                    written = ring.write(file, b"hello", 0)
                    synced = ring.fsync(file)
                print(synced.wait(), written.wait())  # 0 5
        """
        self._check_usable()
        if self._link_flag:
            raise OutOfOrderError("chains do not nest: end this one first")
        if entries > self.sq.entries:
            raise OutOfOrderError(f"a chain of {entries} does not fit a submission queue of {self.sq.entries}")
        if self.sq.space_left < entries:
            self._make_room(entries)
        start = self.sq.tail
        try:
            self._plain_owner = -1  # submitting takes the slow way, which refuses
            self._link_flag = _IO_LINK
            yield
            queued = self.sq.tail - start
            if queued > entries:
                raise OutOfOrderError(f"{queued} operations were queued in a chain of {entries}: say so when making it")
            self._end_chain(start)
        except BaseException:
            try:
                self._take_back_chain(start)
            except BaseException:
                self._take_back_chain(start)  # once more, for an interrupt that came before it was done
                raise
            raise

    def _chaining(self) -> bool:
        """Would what is queued next be part of a chain?"""
        return bool(self._link_flag) or self.sq.ends_linked()

    def _end_chain(self, start: int) -> None:
        if self.sq.tail > start and self.sq.unpublished:
            self.sq.unlink_last()
        self._link_flag = 0
        self._find_plain_owner()

    def _take_back_chain(self, start: int) -> None:
        self._take_back(start)
        self._end_chain(start)

    def _take_back(self, start: int) -> None:
        """Cancel what was queued from position `start` on and not published."""
        sq = self.sq
        while sq.tail > start and sq.unpublished:
            operation = self._inflight.get(sq.last_user_data())
            if operation is not None:
                operation.cqe = (operation.token, -errno.ECANCELED, 0)
            sq.discard_last()
        for operation in list(self._inflight.values()):
            if operation.cqe is not None:
                operation.settle()
                self._inflight.pop(operation.token, None)

    def repeat(self, operation: Stream[Any]) -> Stream[Any]:
        """Queue a stream's request once more."""
        self._check_usable()
        kind, prep, args, keep, callback, sqe_flags, fields = operation.request
        if isinstance(operation, BufferStream):
            pool: Any = operation.pool
            self._check_group(pool)
            self._check_kind(kind, pool)
        elif isinstance(operation, FixedStream):
            self._prepare_table(operation.table)
        file = keep[0] if isinstance(keep, tuple) else keep
        if (isinstance(file, Fixed) or hasattr(file, "fileno")) and fd_of(file, self._file_table)[0] != args[0]:
            raise OutOfOrderError(f"the file of this {operation.name} has another fd now: queue it anew")
        repeated: Stream[Any] = self._queue(kind, prep, args, keep, callback, sqe_flags, operation.name, **fields)
        return repeated

    def cancel(self, operation: Operation[Any]) -> Operation[Any]:
        """Queue the request that cancels an operation. Its own completion (0 or 1, ENOENT, EALREADY) is of no interest."""
        self._check_usable()
        self._check_operation(operation)
        if self._link_flag:
            raise OutOfOrderError("a cancel cannot be part of a chain: end the chain first")
        return self._queue(Operation, self.sq.prep_cancel, (operation.token, 0))
