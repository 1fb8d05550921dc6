"""Resolving completions: which operation each belongs to, what became of it, and its callback.

May import everything below ring, and `entering`. Waits only as a raw request's owner asks it to.

Every step may be interrupted, and is then taken again: the completions are safe in `_batch`
before their slots are given back, and leave it in the same statement that adds what came of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from .. import abi
from ..buffers import BufferRing, ProvidedBuffers
from ..cqe_block import Cqe as RawCqe
from ..errors import NestedWaitError, RawuringError
from ..files import FileTable
from ..hints import Any, Final
from ..inflight import OWNED, BufferOperation, BufferStream, Large, LargeStream, Operation, Stream
from .entering import ENTER_CALL, NR_ENTER, Entering

_F_MORE: Final = int(abi.CqeFlag.MORE)
_U32: Final = 0xFFFF_FFFF

_get_ident = threading.get_ident


class _Batch:
    """CQEs that were copied out of the CQ and are not resolved yet."""

    __slots__ = ("first", "head", "cqes", "operations")

    # There is no __init__: a class without one is called in half the time.
    first: int  # the head of the CQ before the batch: what counts its CQEs
    head: int  # and after it, for when the batch is safe here
    cqes: list[RawCqe]
    operations: list[Operation[Any] | None] | None


Event = tuple[Operation[Any], int, int]


class _Reaped:
    """What came of completions and was not handed out yet. Replaced as a whole, so that one store commits a step."""

    __slots__ = ("raw", "events")

    def __init__(self, raw: list[list[RawCqe]], events: deque[Event]) -> None:
        self.raw = raw  # of the raw layer: one list or none, until `completions()` hands it out
        self.events = events  # completions whose callbacks have not run yet


NOTHING: Final = _Reaped([], deque())


class Resolving(Entering):
    """A ring that knows what is in flight, and resolves completions."""

    __slots__ = ("_inflight", "_resolved", "_batch", "_reaped", "_busy", "_calling", "_groups", "_file_table")

    _inflight: dict[int, Operation[Any]]
    _resolved: int  # operations that had their final completion
    _batch: _Batch | None  # being resolved
    _reaped: _Reaped
    _busy: bool  # resolving a batch
    _calling: bool  # running callbacks
    _groups: dict[int, BufferRing | ProvidedBuffers]
    _file_table: FileTable | None

    @property
    def in_flight(self) -> int:
        """How many owned operations have no final completion yet."""
        return len(self._inflight)

    def submit_and_wait(
        self,
        nr: int = 1,
        timeout_ns: int | None = None,
        *,
        until_ns: int | None = None,
        min_wait_ns: int = 0,
        signal_mask: Iterable[int] | None = None,
    ) -> int:
        """Submit, and wait until `nr` completions are there to be taken. Returns how many SQEs the kernel took.

        With `nr` 0 it waits for nothing and has the kernel post what it holds back. More than
        the CQ holds is never waited for. When `timeout_ns` nanoseconds have passed it returns
        all the same: what is there is in `completions()`. Python signal handlers run while it
        waits, and it goes on waiting unless they raise.

        until_ns     instead of `timeout_ns`, the time at which it returns at the latest: of
                     time.monotonic_ns(), or of the clock that `register_clock` set (Linux 6.12)
        min_wait_ns  gather at most so long, in whole microseconds: then one completion is enough,
                     and without a timeout none (Linux 6.12)
        signal_mask  the signals to block while it waits, and no others, as in pselect(2) (Linux 5.11)

        A signal that arrives between the interpreter's last check and the system call is
        handled when the wait ends. Who must not miss it blocks it with `signal.pthread_sigmask`
        and waits with a `signal_mask` without it; or gives `signal.set_wakeup_fd` an fd that a
        read on this ring is armed on.
        """
        if (
            timeout_ns is not None or _get_ident() != self._plain_owner or nr < 0 or self._reaped is not NOTHING
            or self._batch is not None or until_ns is not None or min_wait_ns or signal_mask is not None
        ):  # fmt: skip
            self._check_usable()
            if nr < 0:
                raise RawuringError(f"no fewer than 0 completions can be waited for: {nr}")
            nr = max(nr - self._count_copied(), 0)
            return self._submit_until(nr, *self._terms(timeout_ns, until_ns, min_wait_ns, signal_mask))
        sq, cq = self.sq, self.cq
        # `sq.flush()`, written out.
        tail = sq._lap + (sq._at >> sq._shift)
        if tail != sq._published:
            sq._tail_plain[0] = tail & _U32
            sq._published = tail
        pending = tail - sq._consumed
        taken: int = ENTER_CALL(NR_ENTER, self._enter_fd, pending, nr, self._getevents, None)
        if taken == pending:
            sq._consumed = sq._published
            if (cq._tail_cell[0] - cq._head) & _U32 >= nr:
                return taken
        elif taken < 0:
            self._check_lost()  # EBADR is said once, and nobody keeps the errno of this call
        return self._complete_enter(None if taken < 0 else taken, nr, None)

    def completions(self) -> list[RawCqe]:
        """Take the completions of raw requests: (user_data, res, cqe_flags), in CQ order, all that are there.

        Completions of owned operations are resolved and their callbacks called on the way.
        Nothing is submitted and nothing waited for.
        """
        if not self._inflight and self._batch is None and (self._reaped is NOTHING or self._nothing_reaped()):
            # Nothing of the owned layer is in flight: every CQE is the caller's.
            if _get_ident() != self._plain_owner:
                self._check_usable()
                self._check_no_chain()
            return self.cq.drain()
        self._check_usable()
        self._check_no_chain()
        self._reap()
        self._run_callbacks()
        self._reclaim()
        raw = self._reaped.raw
        if not raw:
            return []
        # No call stands between the look and the return: an interrupt comes after a call, and would lose it.
        batch = raw[0]; del raw[0]; return batch  # fmt: skip

    def _count_copied(self) -> int:
        """How many completions are there to be taken, though not in the CQ."""
        reaped, batch = self._reaped, self._batch
        count = len(reaped.raw[0]) if reaped.raw else 0
        if not self._calling:
            count += len(reaped.events)  # that an exception kept from being called
        if batch is not None:  # an interrupt left it
            self.cq.advance_to(batch.head)
            count += len(batch.cqes)
        return count

    def _reap(self) -> None:
        """Take what is in the CQ and resolve it.

        Every step may be interrupted and is then taken again: the batch is in `_batch` before
        its slots are given back, and leaves it in the same statement that adds what came of it.
        """
        if self._busy:
            return  # a finalizer that runs while a batch is resolved
        try:
            try:
                self._busy = True
                if self._batch is not None:
                    self._resolve()  # what an interrupt left: what is in the CQ comes behind it
                self._resolve()
            finally:
                self._busy = False
        except BaseException:
            self._busy = False  # once more, for an interrupt that came before that line
            raise

    def _resolve(self) -> None:
        cq, batch = self.cq, self._batch
        if batch is None:
            first = cq._head
            cqes, head = self._peek_large() if self._expects_large else cq.peek()
            if head == first:
                return
            batch = _Batch()
            batch.first, batch.head, batch.cqes, batch.operations = first, head, cqes, None
            self._batch = batch
        cq.advance_to(batch.head)
        cqes = batch.cqes
        kept = self._resolve_plain(cqes)
        if kept is None:
            kept = self._resolve_special(batch)
        else:
            self._batch = None
            self._resolved += len(cqes)
            if self._reaped is not NOTHING:
                self._nothing_reaped()
        # Dropping what was kept alive may run finalizers, which are other people's code.
        for operation in kept:
            operation.settle()

    def _resolve_plain(self, cqes: list[RawCqe]) -> list[Operation[Any]] | None:
        """Resolve a batch without anything special. Returns the operations that keep something, or None: it is special."""
        inflight = self._inflight
        kept: list[Operation[Any]] = []
        for cqe in cqes:
            try:
                operation = inflight[cqe[0]]
            except KeyError:  # of the raw layer
                return None
            if operation.special or cqe[2] and cqe[2] & _F_MORE:
                return None
            operation.cqe = cqe
            if operation._keep is not None:
                kept.append(operation)
        if len(cqes) == len(inflight):
            inflight.clear()
        else:
            for user_data, _, _ in cqes:
                inflight.pop(user_data, None)
        return kept

    def _peek_large(self) -> tuple[list[RawCqe], int]:
        """The completions that are there, those of a `LargeStream` with their second halves."""
        found, head = self.cq.peek32()
        cqes: list[RawCqe] = []
        for user_data, res, cqe_flags, *big_cqe in found:
            if isinstance(self._inflight.get(user_data), LargeStream):
                cqe_flags = large = Large(cqe_flags)
                large.big_cqe = big_cqe[0], big_cqe[1]
            cqes.append((user_data, res, cqe_flags))
        return cqes, head

    def _resolve_special(self, batch: _Batch) -> list[Operation[Any]]:
        """Resolve a batch with streams, callbacks or requests of the raw layer in it. Returns the operations that ended."""
        inflight = self._inflight
        if batch.operations is None:
            # Looked up once and for all, since the table forgets them below.
            batch.operations = [inflight.get(user_data) for user_data, _, _ in batch.cqes]
        if self._locates:
            _locate(batch, batch.operations)
        events: list[Event] = []
        raw: list[RawCqe] = []
        ended: list[Operation[Any]] = []
        nstrays = 0  # final completions of operations that are gone
        for position, (cqe, operation) in enumerate(zip(batch.cqes, batch.operations), batch.first):
            user_data, res, cqe_flags = cqe
            if operation is None:
                if user_data < OWNED:
                    raw.append(cqe)
                elif not cqe_flags & _F_MORE:
                    nstrays += 1
                continue
            if isinstance(operation, Stream):
                operation.add((res, cqe_flags), position)
            elif cqe_flags & _F_MORE:
                operation.note_first(cqe)
            if operation.callback is not None:
                events.append((operation, res, cqe_flags))
            if not cqe_flags & _F_MORE:
                operation.cqe = cqe
                inflight.pop(user_data, None)
                ended.append(operation)
        if raw or events:
            reaped = self._reaped
            # One statement ends the batch and adds what came of it: no signal is handled between its stores.
            self._batch, self._reaped = None, _Reaped(
                [sum(reaped.raw, []) + raw] if raw else reaped.raw,
                deque([*reaped.events, *events]) if events else reaped.events,
            )
        else:
            self._batch = None
        self._resolved += len(ended) + nstrays
        return ended

    def _nothing_reaped(self) -> bool:
        reaped = self._reaped
        if not reaped.raw and not reaped.events:
            self._reaped = NOTHING
            return True
        return False

    def _run_callbacks(self) -> None:
        if not self._reaped.events or self._calling:
            return
        try:
            try:
                self._calling = True
                # Looked up anew each time: a callback may call completions(), which adds to them.
                while self._reaped.events:
                    self._call(self._reaped.events)
                self._nothing_reaped()
            finally:
                self._calling = False
        except BaseException:
            self._calling = False  # once more, for an interrupt that came before that line
            raise

    def _call(self, events: deque[Event]) -> None:
        operation, res, cqe_flags = event = events[0]
        callback = operation.callback
        assert callback is not None
        started = False
        try:
            operation.claim()
            events.popleft()
            # In one line: no interrupt comes in between, and has it called twice or never.
            started = True; callback(operation, res, cqe_flags)  # fmt: skip
        except BaseException:
            if not started:
                operation.unclaim()
                if not events or events[0] is not event:
                    events.appendleft(event)
            raise

    def _reclaim(self) -> None:
        """Give back what completions brought and nobody took."""
        for group in self._groups.values():
            if group.owes:
                group.reclaim()
        if self._file_table is not None and self._file_table.owes:
            self._file_table.reclaim()

    def _check_can_wait(self, what: str) -> None:
        if self._calling or self._busy:
            raise NestedWaitError(
                f"{what}() inside a callback would wait for the loop that called it: queue the operation with a "
                "callback of its own"
            )
        self._check_usable()


def _locate(batch: _Batch, operations: list[Operation[Any] | None]) -> None:
    """Note of each completion where its data is, if that depends on the ones before: in their order, and once."""
    for i, operation in enumerate(operations):
        if isinstance(operation, (BufferOperation, BufferStream)) and (operation.bundles or operation.pool.locates):
            user_data, res, cqe_flags = batch.cqes[i]
            if type(cqe_flags) is int:
                located = operation.pool.locate(batch.first + i, res, cqe_flags, bundle=operation.bundles)
                batch.cqes[i] = user_data, res, located
