"""`Ring`: one io_uring, with both layers on it.

May import everything below it. It never writes an SQE itself: the raw layer is `ring.sq.prep_*`,
the owned operations are in `operations`.

Set-up, submitting and waiting, resolving completions, closing, and what happens to a ring in
another thread or after a fork: all of it is here, in this order.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import addressof, c_char, c_size_t, c_void_p, py_object, pythonapi
from itertools import count as _count
from typing import Any, Final, NamedTuple

from . import abi, atomics, register, syscalls
from .buffers import Buffer, BufferRing, ProvidedBuffers, RegisteredBuffers
from .cq import CompletionQueue
from .cq import Cqe as RawCqe
from .errors import (
    ForkedRingError,
    LostCompletionsError,
    NestedWaitError,
    OutOfOrderError,
    RawuringError,
    RingClosedError,
    RingSetupError,
    SubmissionQueueFullError,
    UnsupportedError,
    WrongThreadError,
    os_error,
)
from .files import FileTable, fd_of
from .inflight import OWNED, Callback, Cqe, Operation, Prep, Stream
from .mmap_ring import MappedRing
from .operations import BufferOperations, FileOperations, SocketOperations, WaitingOperations
from .operations.base import Kind
from .sq import SubmissionQueue

_Setup = abi.Setup

WANTED_FLAGS: Final = _Setup.SINGLE_ISSUER | _Setup.DEFER_TASKRUN | _Setup.SUBMIT_ALL | _Setup.NO_SQARRAY
"""The set-up flags that a `Ring` asks for on its own and does without where the kernel lacks them."""

_NOT_YET: Final = _Setup.NO_MMAP | _Setup.REGISTERED_FD_ONLY | _Setup.SQE_MIXED | _Setup.SQ_REWIND

_GETEVENTS: Final = int(abi.Enter.GETEVENTS)
_SQ_WAKEUP: Final = int(abi.Enter.SQ_WAKEUP)
_SQ_WAIT: Final = int(abi.Enter.SQ_WAIT)
_EXT_ARG: Final = int(abi.Enter.EXT_ARG)
_REGISTERED_RING: Final = int(abi.Enter.REGISTERED_RING)
_F_MORE: Final = int(abi.CqeFlag.MORE)
_IO_LINK: Final = int(abi.SqeFlag.IO_LINK)
_CANCEL_EVERYTHING: Final = int(abi.Cancel.ANY | abi.Cancel.ALL)

_NS_PER_S: Final = 1_000_000_000
_SETUP_RETRY_NS: Final = 300_000_000
_CLOSE_NS: Final = 1_000_000_000
_CANCEL_AGAIN_NS: Final = 50_000_000

_get_ident = threading.get_ident
_enter = syscalls.enter
_enter_call = syscalls.enter_call
_NR_ENTER: Final = syscalls.NR_ENTER
_U32: Final = 0xFFFF_FFFF

# Which member's release explains that an encoder's request is refused, where the opcode alone does not.
_FORMS: Final[dict[str, abi.Op | abi.Accept | abi.RecvSend | abi.Poll | abi.Cancel | abi.Timeout]] = {
    "readv": abi.Op.READV,
    "multishot_accept": abi.Accept.MULTISHOT,
    "multishot_accept_direct": abi.Accept.MULTISHOT,
    "accept_direct": abi.Accept.MULTISHOT,
    "openat_direct": abi.Accept.MULTISHOT,
    "recv_multishot": abi.RecvSend.RECV_MULTISHOT,
    "poll_multishot": abi.Poll.ADD_MULTI,
    "poll_update": abi.Poll.UPDATE_EVENTS,
    "cancel": abi.Cancel.ALL,
    "cancel_fd": abi.Cancel.FD,
    "timeout_update": abi.Timeout.UPDATE,
}


class _Batch:
    """CQEs that were copied out of the CQ and are not resolved yet."""

    __slots__ = ("first", "head", "cqes", "operations")

    def __init__(self, first: int, head: int, cqes: list[RawCqe]) -> None:
        self.first = first  # the head of the CQ before the batch: what counts its CQEs
        self.head = head  # and after it, for when the batch is safe here
        self.cqes = cqes
        self.operations: list[Operation[Any] | None] | None = None


Event = tuple[Operation[Any], int, int]


class _Reaped(NamedTuple):
    """Where the ring stands with its completions. Replaced as a whole, so that one store commits a step."""

    batch: _Batch | None  # being resolved
    raw: list[list[RawCqe]]  # of the raw layer: one list or none, until `completions()` hands it out
    events: deque[Event]  # completions whose callbacks have not run yet


_NOTHING: Final = _Reaped(None, [], deque())


class Ring(FileOperations, SocketOperations, WaitingOperations, BufferOperations):
    """An io_uring: queue operations, submit them together, take their completions.

    The raw layer: `ring.sq.prep_*(...)`, `ring.submit_and_wait(1)`, `ring.completions()`.
    The owned layer: `ring.recv(sock, buffer)` and the like return an `Operation`, whose
    `wait()` gives the result; `run()` calls callbacks.

    entries        SQEs, rounded up to a power of two, 1 to 32768
    setup_flags    Setup flags that must be granted. WANTED_FLAGS are added where the kernel has
                   them and they go together with yours; `ring.setup_flags` tells what was granted
    wanted_flags   what to add instead of WANTED_FLAGS
    cq_entries     CQEs, at least `entries`; twice as many if not said (Setup.CQSIZE is set for you)
    sq_thread_cpu, sq_thread_idle_ms
                   for Setup.SQPOLL: the CPU of the SQ thread (Setup.SQ_AFF is set for you), and
                   how long it spins before it sleeps; 0 is the kernel's default, about a second
    attach_to      another ring, whose kernel threads this one shares (Setup.ATTACH_WQ is set for you)
    register_ring_fd
                   enter through a registered fd: about 1 % faster, and only in this thread
    mask_features  Feature bits to act without, as if this kernel lacked them (for tests)

    Raises RingSetupError, whose text says why and what to do.

    A ring works in the thread that made it (with Setup.R_DISABLED: that called `enable`), and
    not after a fork. Close it, or use it as a context manager.

    Since      Linux 5.10           Man   io_uring_setup(2), io_uring(7)
    """

    __slots__ = (
        "sq", "cq", "setup_flags", "features",
        "_fd", "_memory", "_closed", "_enter_fd", "_enter_flags", "_getevents", "_registered_index",
        "_owner", "_owner_thread", "_plain_owner", "_sqpoll", "_supported",
        "_inflight", "_resolved", "_sq_start", "_reaped", "_link_flag",
        "_busy", "_calling", "_stopping",
        "_fds", "_torn_down", "_quiet", "_watch", "_number",
        "_groups", "_registered_buffers", "_file_table",
        "_ext_arg", "_timespec", "_arg", "_argsz", "_timeout_memory", "__weakref__",
    )  # fmt: skip

    def __init__(
        self,
        entries: int = 256,
        setup_flags: int = 0,
        *,
        wanted_flags: int = WANTED_FLAGS,
        cq_entries: int | None = None,
        sq_thread_cpu: int | None = None,
        sq_thread_idle_ms: int = 0,
        attach_to: Ring | None = None,
        register_ring_fd: bool = False,
        mask_features: int = 0,
    ) -> None:
        self._fd = -1
        self._fds: list[int] = []  # the same, for the line that closes it
        self._torn_down = True
        self._quiet = False  # the kernel has no request of this ring any more
        self._watch: list[int] = []  # a fd that hangs up when the kernel has let go of the ring
        self._number = next(_numbers)
        self._closed: RingClosedError | None = RingClosedError("this ring was never set up")
        self._inflight: dict[int, Operation[Any]] = {}
        self._reaped = _NOTHING
        self._groups: dict[int, BufferRing | ProvidedBuffers] = {}
        self._registered_buffers: RegisteredBuffers | None = None
        self._file_table: FileTable | None = None
        self._registered_index = -1
        self._supported: frozenset[int] | None = None
        self._last_token = OWNED - 1
        self._resolved = 0  # operations that had their final completion
        self._link_flag = 0
        self._busy = False  # resolving a batch
        self._calling = False  # running callbacks
        self._stopping = False
        self._sqpoll = False
        self._own()

        numbers = {"setup_flags": setup_flags, "cq_entries": cq_entries, "sq_thread_cpu": sq_thread_cpu,
                   "sq_thread_idle_ms": sq_thread_idle_ms}  # fmt: skip
        for name, number in numbers.items():
            if not 0 <= (number or 0) < 1 << 32:
                raise RawuringError(f"{name} is a number from 0 to 2**32 - 1, not {number}")
        setup_flags |= _implied_flags(cq_entries, sq_thread_cpu, attach_to)
        _refuse_flags(setup_flags)
        if mask_features & abi.Feature.EXT_ARG:
            # The ring's fd is polled in its stead, and such a ring's wakes no poll. No kernel has only one of them.
            wanted_flags &= ~_Setup.DEFER_TASKRUN
        params = abi.IO_URING_PARAMS.pack(
            cq_entries=cq_entries or 0,
            sq_thread_cpu=sq_thread_cpu or 0,
            sq_thread_idle=sq_thread_idle_ms,
            wq_fd=0 if attach_to is None else attach_to.fileno(),
        )
        self._fd, answer = _set_up(entries, setup_flags, wanted_flags, params)
        try:
            self._fds.append(self._fd)
            self._torn_down = False
            self.setup_flags = _Setup(abi.IO_URING_PARAMS.get(answer, "flags"))
            """The Setup flags that were granted."""
            self.features = abi.Feature(abi.IO_URING_PARAMS.get(answer, "features") & ~mask_features)
            """The Feature bits of this kernel, less `mask_features`."""
            _check_ordering(self.setup_flags)
            self._sqpoll = bool(self.setup_flags & _Setup.SQPOLL)
            self._own()
            self._memory = MappedRing(self._fd, answer)
            self.sq = SubmissionQueue(self._memory, sqpoll=self._sqpoll)
            self.cq = CompletionQueue(self._memory, self.setup_flags)
            """The completion queue."""
            self._sq_start = self.sq.tail
            self._enter_fd, self._enter_flags = self._fd, 0
            self._getevents = _GETEVENTS
            self._prepare_timeouts()
            self._closed = None
            if register_ring_fd:
                self._register_ring_fd()
        except BaseException:
            self._closed = None
            self.close()
            raise
        _rings.add(self)

    # --- what the kernel granted

    @property
    def entries(self) -> int:
        """How many SQEs fit."""
        return self.sq.entries

    @property
    def in_flight(self) -> int:
        """How many owned operations have no final completion yet."""
        return len(self._inflight)

    @property
    def closed(self) -> bool:
        """Was the ring closed (or inherited through a fork, which is the same)?"""
        return self._closed is not None

    def fileno(self) -> int:
        """The ring's fd. It polls readable when there are completions to take.

        On a DEFER_TASKRUN ring that wakes nobody who is polling already (seen on Linux 6.18):
        an event loop waits for an eventfd instead (`register_eventfd`), or makes the ring with
        wanted flags that lack it.
        """
        if self._closed is not None:
            raise self._closed.anew()
        return self._fd

    def supports(self, op: abi.Op) -> bool:
        """Does this kernel have the operation? The kernel is asked, once."""
        if self._supported is None:
            self._check_usable()
            self._supported = register.probe(self._fd)
        return int(op) in self._supported

    def require(self, op: abi.Op) -> None:
        """Raise UnsupportedError, which names the release, if this kernel lacks the operation."""
        if not self.supports(op):
            raise UnsupportedError(op.kernel_name, op.since)

    def lacks(self, name: str) -> str | None:
        """The release that a `prep_<name>` needs, if this kernel is older; None if the reason is another."""
        if self._supported is None and self._closed is not None:
            return None  # nobody is left to ask
        op = abi.Op.__members__.get(name.upper())
        if op is not None and not self.supports(op):
            return str(op.since)
        form = _FORMS.get(name)
        if form is not None and _release(os.uname().release) < _release(form.since):
            return str(form.since)
        return None

    # --- submitting and waiting

    def submit(self) -> int:
        """Hand what was queued to the kernel. Returns how many SQEs it took (with SQPOLL: were published).

        On a DEFER_TASKRUN ring what completes later is posted only inside an enter that waits:
        after `submit()` alone, the completion queue shows no more than what completed at once.
        """
        if _get_ident() != self._plain_owner:
            self._check_usable()
            return self._complete_enter(0, None, None)
        sq = self.sq
        pending = sq.flush()
        if not pending:
            return 0
        taken: int = _enter_call(_NR_ENTER, self._enter_fd, pending, 0, self._enter_flags, None)
        if taken == pending:
            sq.all_consumed()
            return taken
        return self._complete_enter(None if taken < 0 else taken, None, None)

    def submit_and_wait(self, nr: int = 1, timeout_ns: int | None = None) -> int:
        """Submit, and wait until `nr` completions are there to be taken. Returns how many SQEs the kernel took.

        With `nr` 0 it waits for nothing and has the kernel post what it holds back. More than
        the CQ holds is never waited for. When `timeout_ns` nanoseconds have passed it returns
        all the same: what is there is in `completions()`. Python signal handlers run while it
        waits, and it goes on waiting unless they raise.

        A signal that arrives between the interpreter's last check and the system call is
        handled when the wait ends: who must not miss it gives `signal.set_wakeup_fd` an fd
        that a read on this ring is armed on.
        """
        if timeout_ns is not None or _get_ident() != self._plain_owner or self._reaped.raw:
            self._check_usable()
            if self._reaped.raw:
                nr = max(nr - len(self._reaped.raw[0]), 0)  # these are there to be taken, though not in the CQ
            return self._submit_until(nr, None if timeout_ns is None else time.monotonic_ns() + timeout_ns)
        sq, cq = self.sq, self.cq
        pending = sq.flush()
        taken: int = _enter_call(_NR_ENTER, self._enter_fd, pending, nr, self._getevents, None)
        if taken == pending:
            sq.all_consumed()
            if (cq._tail_cell[0] - cq._head) & _U32 >= nr:
                return taken
        return self._complete_enter(None if taken < 0 else taken, nr, None)

    def completions(self) -> list[RawCqe]:
        """Take the completions of raw requests: (user_data, res, cqe_flags), in CQ order, all that are there.

        Completions of owned operations are resolved and their callbacks called on the way.
        Nothing is submitted and nothing waited for.
        """
        if not self._inflight and (self._reaped is _NOTHING or self._nothing_reaped()):
            # Nothing of the owned layer is in flight: every CQE is the caller's.
            return self.cq.drain()
        self._check_usable()
        self._reap()
        self._run_callbacks()
        # Taken and handed over in one line: no interrupt comes in between, and loses them.
        return self._reaped.raw.pop() if self._reaped.raw else []

    def run_once(self, timeout_ns: int | None = None) -> bool:
        """Submit, wait for at least one completion, resolve what is there and call the callbacks.

        Returns False if `timeout_ns` nanoseconds passed without one.
        """
        self._check_can_wait("run_once")
        deadline = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
        while not self._turn(deadline):
            if deadline is not None and time.monotonic_ns() >= deadline:
                return False
        return True

    def run(self) -> None:
        """Call callbacks as completions come, until `stop()` or until nothing is in flight any more."""
        self._check_can_wait("run")
        self._stopping = False
        while not self._stopping and (self._inflight or self._reaped.events):
            self._turn(None)

    def stop(self) -> None:
        """Have `run()` return when the callbacks of the completions at hand have run."""
        self._stopping = True

    @contextmanager
    def link(self, entries: int) -> Iterator[None]:
        """Chain the operations queued inside: each starts when the one before has succeeded.

        A short read or write counts as a failure and cancels the rest; so does an expired
        `link_timeout`. Room for `entries` SQEs is made first, so that the chain is submitted as
        one. Nothing of it may be submitted inside: wait after the block.
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
            try:
                self._link_flag = _IO_LINK
                yield
            finally:
                self._end_chain(start)
        except BaseException:
            self._end_chain(start)  # once more, for an interrupt that came before it was done
            raise
        queued = self.sq.tail - start
        if queued > entries:
            raise OutOfOrderError(f"{queued} operations were queued in a chain of {entries}: say so when making it")

    def _end_chain(self, start: int) -> None:
        self._link_flag = 0
        if self.sq.tail > start and self.sq.unpublished:
            self.sq.unlink_last()

    # --- what is registered

    def enable(self) -> None:
        """Enable a ring made with Setup.R_DISABLED; the calling thread becomes its owner.

        Since      Linux 5.10           Man   io_uring_enable_rings(3)
        """
        if self._closed is not None:
            raise self._closed.anew()
        register.enable_rings(self._fd)
        self._own()

    def register_buffers(self, buffers: Sequence[Buffer]) -> RegisteredBuffers:
        """Register buffers for `read_fixed` and `write_fixed`: one table per ring.

        The kernel pins their pages, which counts against RLIMIT_MEMLOCK.

        Since      Linux 5.1            Man   io_uring_registered_buffers(7)
        """
        self._check_usable()
        self._registered_buffers = RegisteredBuffers(self._fd, buffers, self._registered_buffers)
        return self._registered_buffers

    def file_table(self, count: int) -> FileTable:
        """Register a table of `count` empty slots for fixed files: one per ring.

        Since      Linux 5.1            Man   io_uring_registered_files(7)
        """
        self._check_usable()
        self._file_table = FileTable(self._fd, count, self._file_table)
        return self._file_table

    def buffer_ring(self, count: int, nbytes: int, *, bgid: int | None = None) -> BufferRing:
        """Make a group of `count` (a power of two) provided buffers of `nbytes` each.

        Since      Linux 5.19           Man   io_uring_setup_buf_ring(3)
        """
        self._check_usable()
        if atomics.backend == "none":
            raise RawuringError(
                "a buffer ring needs ordered stores, which cannot be had here: install libatomic (Debian: libatomic1)"
            )
        pool = BufferRing(self._fd, self._free_bgid(bgid), count, nbytes)
        # In the table before the kernel knows of it, as operations are.
        self._groups[pool.bgid] = pool
        try:
            pool.register()
        except OSError as error:
            del self._groups[pool.bgid]
            if error.errno == errno.EINVAL and _release(os.uname().release) < (5, 19):
                raise UnsupportedError("a provided-buffer ring", "5.19") from None
            raise
        return pool

    def close_buffer_ring(self, pool: BufferRing) -> None:
        """Take a group back from the kernel. Nothing in flight may use it: cancel that first, and reap it."""
        self._check_usable()
        users = [op for op in self._inflight.values() if getattr(op, "pool", None) is pool]
        if users:
            raise OutOfOrderError(
                f"{len(users)} operations still receive into this group: cancel them and wait for their "
                "final completions first"
            )
        pool.unregister()
        self._groups.pop(pool.bgid, None)

    def provided_buffers(self, count: int, nbytes: int, *, bgid: int | None = None) -> ProvidedBuffers:
        """Make a group of the legacy kind and queue the request that provides all its buffers.

        Since      Linux 5.7            Man   io_uring_prep_provide_buffers(3)
        """
        self._check_usable()
        bgid = self._free_bgid(bgid)

        def provide(bid: int, how_many: int) -> object:
            return self.provide_buffers(group, bid, how_many)

        group = ProvidedBuffers(bgid, count, nbytes, provide)
        self._groups[bgid] = group
        provide(0, count)
        return group

    def register_eventfd(self, event_fd: int, *, only_async: bool = False) -> None:
        """Let completions signal an eventfd. A hint: on a DEFER_TASKRUN ring enter before looking.

        With `only_async` those alone that a worker thread of the kernel made, never a receive's.

        Since      Linux 5.2            Man   io_uring_register_eventfd(3)
        """
        self._check_usable()
        register.eventfd(self._fd, event_fd, only_async=only_async)

    def unregister_eventfd(self) -> None:
        """Drop the eventfd."""
        self._check_usable()
        register.unregister_eventfd(self._fd)

    # --- queueing owned operations (the contract is in operations.base)

    def _queue(
        self,
        kind: type[Kind],
        prep: Prep,
        args: tuple[Any, ...],
        keep: object = None,
        callback: Callback | None = None,
        sqe_flags: int = 0,
        **fields: int,
    ) -> Kind:
        token = self._last_token = self._last_token + 1
        try:
            if not self.sq.has_room():
                self._make_room(1)
            operation = kind()
            operation.begin(self, token, prep.__name__.removeprefix("prep_"), keep, callback)
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
        operation._ring = self
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

    def repeat(self, operation: Stream[Any]) -> Stream[Any]:
        """Queue a stream's request once more."""
        self._check_usable()
        kind, prep, args, keep, callback, sqe_flags, fields = operation.request
        file = keep[0] if isinstance(keep, tuple) else keep
        if hasattr(file, "fileno") and fd_of(file)[0] != args[0]:
            raise OutOfOrderError(f"the file of this {operation.name} has another fd now: queue it anew")
        repeated: Stream[Any] = self._queue(kind, prep, args, keep, callback, sqe_flags, **fields)
        return repeated

    def cancel(self, operation: Operation[Any]) -> Operation[Any]:
        """Queue the request that cancels an operation. Its own completion (0, ENOENT, EALREADY) is of no interest."""
        self._check_usable()
        if self._link_flag:
            raise OutOfOrderError("a cancel cannot be part of a chain: end the chain first")
        return self._queue(Operation, self.sq.prep_cancel, (operation.token, 0))

    def _make_room(self, entries: int) -> None:
        if self._link_flag:
            raise OutOfOrderError("the submission queue is full in the middle of a chain: reserve more entries for it")
        self.submit()
        while self.sq.space_left < entries:
            if not self._sqpoll:
                raise SubmissionQueueFullError("the kernel took nothing of a full submission queue: reap completions")
            # The SQ thread is at work: sleep until it has consumed something.
            taken = _enter(self._enter_fd, 0, 0, self._enter_flags | _SQ_WAIT)
            if taken < 0:
                self._after_failure(-taken, 0)

    # --- waiting for owned operations

    def wait_for(self, operation: Operation[Any], timeout_ns: int | None) -> Cqe:
        """Submit and wait until an operation has its final completion."""
        if operation.cqe is None:
            self._check_can_wait("wait")
            deadline = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
            while operation.cqe is None:
                self._turn(deadline)
                if deadline is not None and operation.cqe is None and time.monotonic_ns() >= deadline:
                    return self._time_out(operation)
        operation.settle()
        return operation.cqe

    def wait_next(self, operation: Stream[Any], timeout_ns: int | None) -> bool:
        """Submit and wait until a stream has a completion to take. False after the final one."""
        if not operation.stream[0] and operation.cqe is None:
            self._check_can_wait("wait")
            deadline = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
            while not operation.stream[0] and operation.cqe is None:
                if deadline is not None and time.monotonic_ns() >= deadline:
                    raise TimeoutError(f"{operation.name}: no completion in time")
                self._turn(deadline)
        return bool(operation.stream[0])

    def _time_out(self, operation: Operation[Any]) -> Cqe:
        self.cancel(operation)
        deadline = time.monotonic_ns() + _CLOSE_NS
        while operation.cqe is None and time.monotonic_ns() < deadline:
            self._turn(deadline)
        if operation.cqe is None:
            raise TimeoutError(
                f"{operation.name}: timed out, and the kernel cannot cancel it: it stays in flight, "
                "and the ring keeps its memory"
            )
        operation.settle()
        if operation.cqe[1] in (-errno.ECANCELED, -errno.EINTR):  # EINTR: of a worker thread of the kernel
            raise TimeoutError(f"{operation.name}: timed out and was cancelled")
        return operation.cqe

    def _turn(self, deadline: int | None) -> bool:
        """Submit, wait for a completion, resolve, call back. False if there was none, for whatever reason."""
        if self._link_flag:
            raise OutOfOrderError("a chain cannot be waited for inside its block: wait after it")
        drained = self.cq.head
        if self._reaped.events:
            self._run_callbacks()
            return True
        self._reclaim()
        waits = 0 if self.cq.ready or self._reaped.batch is not None else 1
        try:
            if deadline is None and not self._reaped.raw:
                self.submit_and_wait(waits)
            else:
                self._submit_until(waits, deadline)
        except OSError as error:
            # Before Linux 5.19 nothing more is taken while completions overflow.
            if error.errno not in (errno.EBUSY, errno.EAGAIN):
                raise
            if not self.cq.ready:
                time.sleep(0.001)
        self._reap()
        self._run_callbacks()
        return self.cq.head != drained

    def _reclaim(self) -> None:
        """Give back what completions brought and nobody took."""
        for group in self._groups.values():
            if group._returned:
                group.reclaim()
        if self._file_table is not None and self._file_table._dropped:
            self._file_table.reclaim()

    def _reap(self) -> None:
        """Take what is in the CQ and resolve it.

        Every step may be interrupted and is then taken again: the batch is in `_reaped` before
        its slots are given back, and leaves it in the same store that adds what came of it.
        """
        if self._busy:
            return  # a finalizer that runs while a batch is resolved
        try:
            try:
                self._busy = True
                self._resolve()
            finally:
                self._busy = False
        except BaseException:
            self._busy = False  # once more, for an interrupt that came before that line
            raise

    def _resolve(self) -> None:
        reaped = self._reaped
        batch = reaped.batch
        if batch is None:
            first = self.cq.head
            cqes, head = self.cq.peek()
            if head == first:
                return
            batch = _Batch(first, head, cqes)
            self._commit(batch, reaped.raw, reaped.events)
        self.cq.advance_to(batch.head)
        inflight, cqes = self._inflight, batch.cqes
        get = inflight.get
        kept: list[Operation[Any]] = []
        special = False
        for cqe in cqes:
            operation = get(cqe[0])
            if operation is None or operation.special or cqe[2] & _F_MORE:
                special = True
                continue
            operation.cqe = cqe
            if operation._keep is not None:
                kept.append(operation)
        if special:
            self._resolve_special(batch, kept, reaped)
        else:
            if len(cqes) == len(inflight):
                inflight.clear()
            else:
                for user_data, _, _ in cqes:
                    inflight.pop(user_data, None)
            self._commit(None, reaped.raw, reaped.events)
            self._resolved += len(cqes)
        # Dropping what was kept alive may run finalizers, which are other people's code.
        for operation in kept:
            operation.settle()

    def _commit(self, batch: _Batch | None, raw: list[list[RawCqe]], events: deque[Event]) -> None:
        self._reaped = _Reaped(batch, raw, events) if batch is not None or raw or events else _NOTHING

    def _nothing_reaped(self) -> bool:
        self._commit(*self._reaped)
        return self._reaped is _NOTHING

    def _resolve_special(self, batch: _Batch, kept: list[Operation[Any]], reaped: _Reaped) -> None:
        """Streams, callbacks and requests of the raw layer: what makes a batch more than outcomes."""
        inflight = self._inflight
        if batch.operations is None:
            # Looked up once and for all, since the table forgets them below.
            batch.operations = [inflight.get(user_data) for user_data, _, _ in batch.cqes]
        events: list[Event] = []
        raw: list[RawCqe] = []
        for position, (cqe, operation) in enumerate(zip(batch.cqes, batch.operations), batch.first):
            user_data, res, cqe_flags = cqe
            if operation is None:
                if user_data < OWNED:
                    raw.append(cqe)
                continue
            if isinstance(operation, Stream):
                operation.add((res, cqe_flags), position)
            if operation.callback is not None:
                events.append((operation, res, cqe_flags))
            if not cqe_flags & _F_MORE:
                operation.cqe = cqe
                inflight.pop(user_data, None)
                kept.append(operation)
        self._commit(
            None,
            [sum(reaped.raw, []) + raw] if raw else reaped.raw,
            deque([*reaped.events, *events]) if events else reaped.events,
        )
        self._resolved += sum(1 for user_data, _, cqe_flags in batch.cqes if user_data >= OWNED and not cqe_flags & _F_MORE)

    def _run_callbacks(self) -> None:
        if not self._reaped.events or self._calling:
            return
        try:
            try:
                self._calling = True
                # Looked up anew each time: a callback may call completions(), which adds to them.
                while self._reaped.events:
                    self._call(self._reaped.events)
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

    # --- entering the kernel

    def _prepare_timeouts(self) -> None:
        """Memory for the timeout of an enter, written anew for each."""
        self._ext_arg = bool(self.features & abi.Feature.EXT_ARG)
        timespec, arg = bytearray(abi.KERNEL_TIMESPEC.nbytes), bytearray(abi.IO_URING_GETEVENTS_ARG.nbytes)
        pins = c_char.from_buffer(timespec), c_char.from_buffer(arg)
        abi.IO_URING_GETEVENTS_ARG.put(arg, "ts", addressof(pins[0]))
        self._timeout_memory = (timespec, arg, pins)
        self._timespec = memoryview(timespec).cast("q")
        self._arg, self._argsz = c_void_p(addressof(pins[1])), c_size_t(len(arg))

    def _register_ring_fd(self) -> None:
        if not self.features & abi.Feature.EXT_ARG:
            return
        try:
            self._registered_index = register.ring_fd(self._fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBUSY):
                raise
            return  # before Linux 5.18, or 16 are registered: the plain fd does the same
        self._enter_fd, self._enter_flags = self._registered_index, _REGISTERED_RING
        self._getevents = _GETEVENTS | _REGISTERED_RING

    def _submit_until(self, nr: int, deadline: int | None) -> int:
        if deadline is not None and not self._ext_arg:
            return self._submit_and_poll(nr, deadline)
        return self._complete_enter(None, nr, deadline)

    def _complete_enter(self, taken: int | None, nr: int | None, deadline: int | None) -> int:
        """Enter until everything published is consumed and `nr` completions are there, or the deadline has passed.

        `taken` is what an enter before this one took, None if there was none or it failed. An
        enter stops early for many reasons: a bad SQE without SUBMIT_ALL, a signal, a timeout
        request that fired, the wait's own timeout; `min_complete` is not a promise either. So the
        queues decide, not the result. `nr` None does not wait at all.
        """
        sq, cq = self.sq, self.cq
        total = taken or 0
        entered = taken is not None
        expired = False
        waits = 0 if nr is None else min(nr, cq.entries)
        while True:
            enter_flags = self._enter_flags
            if self._sqpoll:
                total += sq.unpublished
                to_submit = 0
                if sq.flush() and sq.needs_wakeup():
                    enter_flags |= _SQ_WAKEUP
                elif nr is None:
                    return total
            else:
                sq.look()
                to_submit = sq.flush()
                if nr is None and not to_submit:
                    return total
            if nr is not None:
                if expired and not to_submit or entered and not to_submit and cq.ready >= waits:
                    return total
                enter_flags |= _GETEVENTS
            if deadline is None or not waits or expired:
                taken = _enter(self._enter_fd, to_submit, 0 if expired else waits, enter_flags)
            else:
                remaining = max(deadline - time.monotonic_ns(), 0)
                self._timespec[0], self._timespec[1] = divmod(remaining, _NS_PER_S)
                taken = _enter(self._enter_fd, to_submit, waits, enter_flags | _EXT_ARG, self._arg, self._argsz)
            if taken < 0:
                total += self._after_failure(-taken, to_submit)
            elif taken == 0 and to_submit:
                raise os_error(errno.EAGAIN, "io_uring_enter took nothing of what was submitted")
            else:
                total += taken
            entered = True
            if nr is None and self._sqpoll:
                return total  # the thread is awake, or on its way
            expired = deadline is not None and time.monotonic_ns() >= deadline

    def _after_failure(self, code: int, to_submit: int) -> int:
        """Go on after an enter that failed with an errno: how many SQEs were taken; or the exception for it.

        When a signal ends a wait, its Python handler runs before the errno can be asked for, and
        may leave one of its own there. An enter that does not wait is not interrupted: what it
        fails with is true.
        """
        if code in (errno.EINTR, errno.ETIME):
            return 0  # the signal handlers have run, or it is for the deadline to decide
        if code == errno.EBADR and self.cq.lost:
            raise LostCompletionsError("the kernel had no memory for completions and dropped some: make a new ring")
        taken = _enter(self._enter_fd, to_submit, 0, self._enter_flags | _GETEVENTS)
        if taken >= 0:
            return taken
        code = -taken
        if code == errno.EEXIST:
            raise WrongThreadError("only the thread that made (or enabled) this ring may enter it")
        if code == errno.EBADFD:
            raise OutOfOrderError("this ring is disabled (Setup.R_DISABLED): call enable() in the thread that will use it")
        if code == errno.EBUSY:
            raise os_error(code, "io_uring_enter: completions have overflowed, take completions() and submit again")
        raise os_error(code, "io_uring_enter")

    def _submit_and_poll(self, nr: int, deadline: int) -> int:
        """`_submit_until` for kernels whose enter takes no timeout: poll the ring's fd instead."""
        total = self._complete_enter(None, 0, None)
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while self.cq.ready < min(nr, self.cq.entries):
            remaining = deadline - time.monotonic_ns()
            if remaining <= 0:
                break
            if self.cq.ready:
                time.sleep(min(remaining, 1_000_000) / _NS_PER_S)  # it polls readable, and that is not enough
            else:
                poll.poll(-(-remaining // 1_000_000))
            self._complete_enter(None, 0, None)
        return total

    # --- who may use it

    def _own(self) -> None:
        """The calling thread is the ring's from now on."""
        self._owner_thread = threading.current_thread()
        self._owner = _get_ident()
        # What submit and submit_and_wait compare with: one look tells that the ring is open, that
        # this is its thread and that no SQ thread reads along.
        self._plain_owner = -1 if self._sqpoll else self._owner

    def _check_usable(self) -> None:
        if self._closed is not None:
            raise self._closed.anew()
        if _get_ident() != self._owner:
            raise WrongThreadError(
                f"this ring belongs to thread {self._owner_thread.name!r}: make a ring in each thread that needs one, "
                "or make it with Setup.R_DISABLED and call enable() in the thread that will use it"
            )

    def _check_can_wait(self, what: str) -> None:
        if self._calling or self._busy:
            raise NestedWaitError(
                f"{what}() inside a callback would wait for the loop that called it: queue the operation with a "
                "callback of its own"
            )
        self._check_usable()

    def _free_bgid(self, bgid: int | None) -> int:
        if bgid is None:
            return next(bgid for bgid in range(1 << 16) if bgid not in self._groups)
        if bgid in self._groups:
            raise OutOfOrderError(f"there is a group {bgid} of provided buffers already: leave out `bgid` for a free one")
        return bgid

    # --- the end

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is in flight, wait until the kernel is done with it, and give everything back.

        What was queued and never submitted is dropped, as if cancelled. If the kernel does not
        finish within a second, the memory it may still write to is kept for the rest of the
        process and a ResourceWarning says so. A second call does nothing, unless the first was
        interrupted: then it goes on.

        Callbacks of what is cancelled, and those still to come, do not run any more.
        """
        if self._torn_down:
            return
        if self._calling or self._busy:
            raise NestedWaitError("close() inside a callback would wait for the loop that called it: call stop() there")
        if self._closed is None:
            if _get_ident() == self._owner:
                self._quiet = self._quiesce()
            elif self._owner_thread.is_alive():
                self._check_usable()
        self._tear_down()

    def _quiesce(self) -> bool:
        """Cancel and reap everything. True if the kernel has no request of this ring any more, for all we know."""
        if not hasattr(self, "cq"):
            return True
        self._link_flag = 0
        self._take_back()
        self._reap()
        raw_used = self._raw_used()
        if not self._inflight and not raw_used:
            return True
        deadline = time.monotonic_ns() + _CLOSE_NS
        one_by_one = False
        cancels: set[int] = set()
        try:
            while time.monotonic_ns() < deadline:
                if one_by_one:
                    for token in [token for token in self._inflight if token not in cancels]:
                        cancels.add(self._queue(Operation, self.sq.prep_cancel, (token, 0)).token)
                else:
                    sweep = self._queue(Operation, self.sq.prep_cancel, (0, _CANCEL_EVERYTHING))
                    cancels.add(sweep.token)
                until = min(time.monotonic_ns() + _CANCEL_AGAIN_NS, deadline)
                while self._inflight and time.monotonic_ns() < until:
                    self._submit_until(0 if self.cq.ready else 1, until)
                    self._reap()
                if not one_by_one and sweep.cqe is not None and sweep.cqe[1] == -errno.EINVAL:
                    one_by_one = True  # before Linux 5.19
                if not self._inflight:
                    return not raw_used
        except (OSError, RawuringError):
            pass  # disabled, restricted, or worse: the kernel cancels everything when the fd is closed
        return False

    def _take_back(self) -> None:
        """Cancel what was queued and never submitted."""
        while self.sq.unpublished:
            operation = self._inflight.get(self.sq.last_user_data())
            if operation is not None:
                operation.cqe = (operation.token, -errno.ECANCELED, 0)
            self.sq.discard_last()
        for operation in list(self._inflight.values()):
            if operation.cqe is not None:
                operation.settle()
                self._inflight.pop(operation.token, None)

    def _raw_used(self) -> bool:
        """Were there more requests than those of the owned layer?"""
        return hasattr(self, "sq") and self.sq.tail - self._sq_start > self._resolved + len(self._inflight)

    def _tear_down(self) -> None:
        """Give everything back. Whatever interrupts it, it can be done again from the start."""
        if hasattr(self, "cq") and self._closed is None:
            self._reap()  # a last look: completions may have brought fds
        if not self._quiet and self._number not in _kept:
            pins = self._registered_buffers._pins if self._registered_buffers is not None else []
            if self._inflight or self._groups or pins:
                # Kept from now on, until the kernel is known to be done.
                _kept[self._number] = (self._inflight, self._groups, pins)
        if self._number in _kept and not self._watch:
            self._watch_kernel()
        self._close_fd(RingClosedError("this ring is closed: make a new one"))
        if self._watch and _hung_up(self._watch[0]):
            self._quiet = True
            _kept.pop(self._number, None)
        while self._watch:
            os.close(self._watch.pop())
        unknown = len(self._inflight)
        self._let_go()
        self._torn_down = True
        if self._number in _kept:
            warnings.warn(
                f"a ring was closed and the kernel may still work on {unknown} requests of it: their memory is kept",
                ResourceWarning,
                stacklevel=3,
                source=self,
            )

    def _watch_kernel(self) -> None:
        """Have `_watch` hang up when the kernel has let go of the ring: a pipe's reader, whose writer the ring holds."""
        pipe: list[int] = []
        try:
            pipe += os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                register.unregister_files(self._fd)
            except OSError:
                pass  # there was no table
            register.files(self._fd, pipe[1:])
            self._watch.append(pipe.pop(0))
        except OSError:
            pass  # in another thread, for instance
        finally:
            while pipe:
                os.close(pipe.pop())

    def _close_fd(self, reason: RingClosedError) -> None:
        self._closed = reason
        self._plain_owner = -1
        if hasattr(self, "cq"):
            self.sq.close(reason)
            self.cq.close(reason)
        if hasattr(self, "_memory"):
            self._memory.close()
        # Forgotten before it is dropped: an interrupt in between leaks it, the other order could
        # drop an index that another ring has been given since.
        index, self._registered_index = self._registered_index, -1
        if index >= 0 and _get_ident() == self._owner:
            try:
                register.unregister_ring_fd(self._fd, index)
            except OSError:
                pass  # the thread's end drops it
        self._fd = -1
        while self._fds:
            os.close(self._fds.pop())

    def _let_go(self) -> None:
        """Drop what was kept for the kernel, and what completions brought and nobody took."""
        events = self._reaped.events
        while events:
            operation, res, cqe_flags = events.popleft()
            if isinstance(operation, Stream):
                operation.discard(res, cqe_flags)
        self._reaped = _NOTHING
        self._inflight = {}
        self._release_tables()
        self._groups = {}

    def _release_tables(self) -> None:
        # They know the ring by the number of its fd, which something else may be given now.
        for group in self._groups.values():
            group.release()
        if self._registered_buffers is not None:
            self._registered_buffers.release()
        if self._file_table is not None:
            self._file_table.release()

    def __del__(self) -> None:
        if getattr(self, "_torn_down", True):
            return
        try:
            if self._closed is None:
                self._quiet = not self._inflight and not self._raw_used()
                warnings.warn(
                    f"unclosed ring with {len(self._inflight)} operations in flight",
                    ResourceWarning,
                    stacklevel=1,
                    source=self,
                )
        finally:
            self._tear_down()

    def _forked(self) -> None:
        """In the child of a fork: the mappings are the parent's ring, and the fd keeps it alive."""
        if not self._torn_down:
            self._torn_down = True
            self._registered_index = -1
            self._close_fd(
                ForkedRingError("this ring was made before the fork and works only in the parent: make a new one here")
            )
            self._release_tables()

    def __repr__(self) -> str:
        if self._closed is not None:
            return "<Ring closed>"
        return f"<Ring fd={self._fd} entries={self.sq.entries} in_flight={len(self._inflight)} {self.setup_flags!r}>"


# --- set-up


def _implied_flags(cq_entries: int | None, sq_thread_cpu: int | None, attach_to: Ring | None) -> int:
    implied = 0
    if cq_entries is not None:
        implied |= _Setup.CQSIZE
    if sq_thread_cpu is not None:
        implied |= _Setup.SQ_AFF
    if attach_to is not None:
        implied |= _Setup.ATTACH_WQ
    return implied


def _refuse_flags(setup_flags: int) -> None:
    not_yet = setup_flags & _NOT_YET
    if not_yet:
        raise RawuringError(f"{_Setup(not_yet)!r}: a Ring cannot be made with that yet")
    if setup_flags & _Setup.SQPOLL and not atomics.has_full_fence:
        raise RawuringError(
            "Setup.SQPOLL needs a full memory fence, which cannot be had here: install libatomic (Debian: libatomic1)"
        )


def _check_ordering(granted: int) -> None:
    if atomics.backend == "none" and (granted & _Setup.SQPOLL or not granted & _Setup.DEFER_TASKRUN):
        raise RawuringError(
            "this machine orders memory weakly and neither libatomic nor executable memory can be had: only a ring "
            "with Setup.DEFER_TASKRUN and without SQPOLL is safe; install libatomic (Debian: libatomic1)"
        )


def _compatible(wanted: int, named: int) -> int:
    """The wanted flags that go together with those that the caller named."""
    for one, other in abi.SETUP_CONFLICTS:
        if named & one:
            wanted &= ~other
        if named & other:
            wanted &= ~one
    return _with_requirements(wanted, named)


def _with_requirements(wanted: int, named: int) -> int:
    """The wanted flags less those whose requirements are neither wanted nor named."""
    for flag, any_of in abi.SETUP_REQUIRES.items():
        if wanted & flag and not any((wanted | named) & needed for needed in any_of):
            wanted &= ~flag
    return wanted


def _steps(wanted: int) -> Iterator[int]:
    """Sets of wanted flags to try: all of them, then without the newest, and so on."""
    flags = sorted((flag for flag in _Setup if wanted & flag), key=lambda flag: _release(flag.since))
    while True:
        yield sum(flags)
        if not flags:
            return
        flags.pop()


def _set_up(entries: int, named: int, wanted: int, params: bytearray) -> tuple[int, bytearray]:
    """io_uring_setup with the best flags that are granted. Returns the fd and the kernel's answer."""
    if not 0 <= entries < 1 << 32:
        raise RawuringError(f"a ring has 1 to {abi.MAX_ENTRIES} entries: {entries} cannot be had")
    last: OSError | None = None
    for optional in _steps(_compatible(wanted & ~named, named)):
        attempt = bytearray(params)
        abi.IO_URING_PARAMS.put(attempt, "flags", named | _with_requirements(optional, named))
        try:
            return _set_up_patiently(entries, attempt), attempt
        except OSError as error:
            last = error
            if error.errno != errno.EINVAL:
                break
    assert last is not None and last.errno is not None
    from . import diagnosis  # only a failure pays for it

    cq_entries = abi.IO_URING_PARAMS.get(params, "cq_entries") if named & _Setup.CQSIZE else None
    explained = diagnosis.explain_setup_failure(last.errno, entries, named, cq_entries)
    raise RingSetupError(last.errno, explained.text) from None


def _set_up_patiently(entries: int, params: bytearray) -> int:
    """io_uring_setup; ENOMEM is tried again for a while, since the memory of a closed ring comes back late."""
    deadline = time.monotonic_ns() + _SETUP_RETRY_NS
    while True:
        try:
            return syscalls.setup(entries, params)
        except OSError as error:
            if error.errno != errno.ENOMEM or time.monotonic_ns() >= deadline:
                raise
        time.sleep(0.01)


def _release(text: str) -> tuple[int, int]:
    """(major, minor) of a kernel release such as 6.12.3-amd64. It explains; it never decides."""
    major, _, rest = text.partition(".")
    minor = ""
    for char in rest:
        if not char.isdigit():
            break
        minor += char
    return int(major), int(minor or 0)


def _hung_up(reader: int) -> bool:
    """Wait for the kernel to let go of the ring (it takes some 10 to 60 ms after the fd is closed)."""
    poll = select.poll()
    poll.register(reader, 0)
    return bool(poll.poll(_CLOSE_NS // 1_000_000))


# --- beyond the life of a ring

_numbers = _count()

_kept: dict[int, object] = {}
"""What a ring could not free, since the kernel may still write to it."""
# The end of the interpreter, which empties every module, must not free it either.
pythonapi.Py_IncRef(py_object(_kept))

_rings: weakref.WeakSet[Ring] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for ring in list(_rings):
        ring._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
