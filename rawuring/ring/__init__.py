"""`Ring`: one io_uring, with both layers on it.

May import everything below it. It never writes an SQE itself: the raw layer is `ring.sq.prep_*`,
the owned operations are in `operations`.

Each module of this folder builds on the one before: `negotiation` (set-up), `terms` (of a wait),
`entering` (submit and wait), `resolving` (completions and callbacks), `queueing` (operations,
chains), `looping` (waiting for operations), `closing`, `resizing`; here is what a ring is made of,
and what is registered with it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence

from .. import abi, atomics, register
from ..buffers import Buffer, BufferRing, IncrementalRing, OutgoingRing, ProvidedBuffers, RegisteredBuffers
from ..cq import CompletionQueue
from ..errors import BufferUseError, OutOfOrderError, RawuringError, RingClosedError, UnsupportedError
from ..files import FileTable
from ..hints import Final, NoReturn, TypeVar
from ..inflight import OWNED
from ..mmap_ring import MappedRing
from ..operations import Operations
from ..sq import RewindingQueue, SubmissionQueue
from .closing import rings
from .negotiation import WANTED_FLAGS, check_ordering, implied_flags, refuse_flags, release, set_up
from .ordering import streams_keep_order
from .resizing import Resizing
from .resolving import NOTHING

__all__ = ["WANTED_FLAGS", "Ring"]

_Setup = abi.Setup
Group = TypeVar("Group", bound=BufferRing)

FIRST_FRESH_BGID: Final = 64
"""Groups from here on begin anew each time. Those below have a place of their own in kernels such as
6.1, which keeps the head of a buffer ring that was closed for the one that comes after it."""

# Which release explains that an encoder's request is refused, where the opcode alone does not.
_FORMS: Final[dict[str, str]] = {
    "readv": abi.Op.READV.since,
    "multishot_accept": abi.Accept.MULTISHOT.since,
    "multishot_accept_direct": abi.Accept.MULTISHOT.since,
    "accept_direct": abi.Accept.MULTISHOT.since,
    "openat_direct": abi.Accept.MULTISHOT.since,
    "openat2_direct": abi.Accept.MULTISHOT.since,
    "pipe_direct": abi.Op.PIPE.since,
    "fadvise64": "6.11",
    "madvise64": "6.11",
    "cmd_discard": abi.BlockOp.DISCARD.since,
    "cmd_zone_reset_all": abi.BlockOp.ZONE_RESET_ALL.since,
    "recv_multishot": abi.RecvSend.RECV_MULTISHOT.since,
    "recv_multishot_total": "6.17",
    "recvmsg_multishot": abi.RecvSend.RECV_MULTISHOT.since,
    "send_bundle": abi.RecvSend.BUNDLE.since,
    "socket_direct": abi.Op.SOCKET.since,
    "sendto": "6.1",
    "send_zc_fixed": abi.Op.SEND_ZC.since,
    "sendmsg_zc_fixed": "6.15",
    **{f"{name} with ZC_REPORT_USAGE": abi.RecvSend.ZC_REPORT_USAGE.since
       for name in ("send_zc", "send_zc_fixed", "sendmsg_zc")},
    **{command.name.lower(): command.since for command in abi.SocketOp},
    "getpeername": abi.SocketOp.GETSOCKNAME.since,
    "msg_ring_cqe_flags": abi.MsgRing.FLAGS_PASS.since,
    "msg_ring_fd": abi.MsgRingCommand.SEND_FD.since,
    "link_timeout_update": abi.Timeout.LINK_UPDATE.since,
    "poll_multishot": abi.Poll.ADD_MULTI.since,
    "poll_update": abi.Poll.UPDATE_EVENTS.since,
    "cancel": abi.Cancel.ALL.since,
    "cancel_fd": abi.Cancel.FD.since,
    "sync_cancel": abi.Register.SYNC_CANCEL.since,
    "timeout_update": abi.Timeout.UPDATE.since,
}


class Ring(Resizing, Operations):
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
    register_waits
                   have the kernel read timeouts and the like from a page that it has pinned, instead
                   of copying them (Linux 6.13): the ring's one memory region
    mask_features  Feature bits to act without, as if this kernel lacked them (for tests)

    With Setup.NO_MMAP the queues are in memory of this process, which the ring allocates. With
    REGISTERED_FD_ONLY, too, it has no fd, only a registered index, which is of the thread that made it
    even if it starts disabled. With IOPOLL a wait asks the device over and over, for as long as it takes.
    With SQE_MIXED a request of 128 bytes counts as two SQEs.

    Raises RingSetupError, whose text says why and what to do.

    A ring works in the thread that made it (with Setup.R_DISABLED: that called `enable`). A child of
    a fork has no part in it: there it is closed, and says so (ForkedRingError); the parent's goes
    on. Queue nothing from a signal handler or a finalizer, which may run in the middle of another
    operation's queueing. Close it, or use it as a context manager.

    Example
        import os
        from rawuring import Ring

        reader, writer = os.pipe()
        with Ring() as ring:
            ring.write(writer, b"hello")               # queued
            buffer = bytearray(16)
            nbytes = ring.read(reader, buffer).wait()  # submits both, and waits for this one
            print(bytes(buffer[:nbytes]))              # b'hello'
        os.close(reader), os.close(writer)

    Since      Linux 5.10           Man   io_uring_setup(2), io_uring(7)
    """

    __slots__ = ("_supported", "_ended_groups")

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
        register_waits: bool = False,
        mask_features: int = 0,
    ) -> None:
        self._fd = -1
        self._fds = []
        self._torn_down = True
        self._quiet = False
        self._watch = []
        self._kept_as = object()
        self._closed = RingClosedError("this ring was never set up")
        self._inflight = {}
        self._batch = None
        self._reaped = NOTHING
        self._groups = {}
        self._ended_groups: set[int] = set()
        self._registered_buffers = None
        self._file_table = None
        self._registered_index = -1
        self._wait_region = None
        self._supported: frozenset[int] | None = None
        self._last_token = OWNED - 1
        self._resolved = 0
        self._link_flag = 0
        self._locates = self._expects_large = False
        self._busy = False
        self._calling = False
        self._stopping = False
        self._sqpoll = self._spins = self._rewinds = False
        self._iowait = True
        self._clock = time.CLOCK_MONOTONIC
        self._own()

        numbers = {
            "setup_flags": setup_flags, "wanted_flags": wanted_flags, "cq_entries": cq_entries,
            "sq_thread_cpu": sq_thread_cpu, "sq_thread_idle_ms": sq_thread_idle_ms,
        }  # fmt: skip
        for name, number in numbers.items():
            if not 0 <= (number or 0) < 1 << 32:
                raise RawuringError(f"{name} is a number from 0 to 2**32 - 1, not {number}")
        starts_disabled = bool(setup_flags & _Setup.R_DISABLED)
        setup_flags |= implied_flags(cq_entries, sq_thread_cpu, attach_to)
        if register_waits:
            setup_flags |= _Setup.R_DISABLED
        refuse_flags(setup_flags | wanted_flags)
        if mask_features & abi.Feature.EXT_ARG:
            # The ring's fd is polled in its stead, and such a ring's wakes no poll. No kernel has only one of them.
            wanted_flags &= ~int(_Setup.DEFER_TASKRUN)
        params = abi.IO_URING_PARAMS.pack(
            cq_entries=cq_entries or 0,
            sq_thread_cpu=sq_thread_cpu or 0,
            sq_thread_idle=sq_thread_idle_ms,
            wq_fd=0 if attach_to is None else attach_to.fileno(),
        )
        self._fd, answer, own_memory = set_up(entries, setup_flags, wanted_flags, params)
        try:
            self.setup_flags = _Setup(abi.IO_URING_PARAMS.get(answer, "flags"))
            if self.setup_flags & _Setup.REGISTERED_FD_ONLY:
                self._fd = self._registered_index = register.RingIndex(self._fd)
            else:
                self._fds.append(self._fd)
            self._torn_down = False
            self._answer = answer
            self.features = abi.Feature(abi.IO_URING_PARAMS.get(answer, "features") & ~int(mask_features))
            check_ordering(self.setup_flags)
            self._sqpoll = bool(self.setup_flags & _Setup.SQPOLL)
            self._spins = bool(self.setup_flags & _Setup.IOPOLL) and not self._sqpoll
            self._rewinds = bool(self.setup_flags & _Setup.SQ_REWIND)
            self._own()
            self._memory = MappedRing(self._fd, answer, own_memory)
            mixed = bool(self.setup_flags & _Setup.SQE_MIXED)
            if self._rewinds:
                self.sq = RewindingQueue(self._memory, mixed=mixed)
            else:
                self.sq = SubmissionQueue(self._memory, sqpoll=self._sqpoll, mixed=mixed)
            self._sq_start = self.sq.tail
            self.cq = CompletionQueue(self._memory, self.setup_flags)
            self._prepare_timeouts()
            if register_waits:
                self._register_waits()
                if not starts_disabled:
                    register.enable_rings(self._fd)
                    self.setup_flags &= ~_Setup.R_DISABLED
            self._closed = None
            self._find_plain_owner()
            # An index belongs to a thread: a disabled ring gets it from the one that enables it.
            self._wants_index = register_ring_fd and starts_disabled and self._registered_index < 0
            if self._registered_index >= 0:
                self._note_index()
            else:
                self._name_ring()
                if register_ring_fd and not self._wants_index:
                    self._register_ring_fd()
            rings.add(self)
        except BaseException:
            self._closed = None
            self.close()
            if own_memory is not None:
                own_memory.close()
            raise

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
        if form is not None and release(os.uname().release) < release(form):
            return form
        return None

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

    def buffer_ring(
        self, count: int, nbytes: int, *, bgid: int | None = None, incremental: bool = False
    ) -> BufferRing:
        """Make a group of `count` (a power of two) provided buffers of `nbytes` each.

        With `incremental` the kernel uses a buffer up bit by bit, so that few large ones hold the
        data of many completions: an `IncrementalRing` (Linux 6.12).

        Since      Linux 5.19           Man   io_uring_setup_buf_ring(3)
        """
        if not incremental:
            return self._buffer_ring(BufferRing, count, nbytes, bgid)
        pool = self._buffer_ring(IncrementalRing, count, nbytes, bgid)
        pool.in_order = streams_keep_order(Ring)
        return pool

    def send_buffers(self, count: int, nbytes: int, *, bgid: int | None = None) -> OutgoingRing:
        """Make a group of `count` (a power of two) buffers of up to `nbytes` each for `send_bundle`: see `OutgoingRing`.

        Since      Linux 6.10           Man   io_uring_prep_send_bundle(3)
        """
        if not self.features & abi.Feature.RECVSEND_BUNDLE:
            raise UnsupportedError("sending bundles", abi.Feature.RECVSEND_BUNDLE.since)
        return self._buffer_ring(OutgoingRing, count, nbytes, bgid)

    def _buffer_ring(self, kind: type[Group], count: int, nbytes: int, bgid: int | None) -> Group:
        self._check_usable()
        if atomics.backend == "none":
            raise RawuringError(
                "a buffer ring needs ordered stores, which cannot be had here: install libatomic (Debian: libatomic1)"
            )
        pool = kind(self._fd, self._free_bgid(bgid), count, nbytes)
        # In the table before the kernel knows of it, as operations are.
        self._groups[pool.bgid] = pool
        self._locates = self._locates or pool.locates
        try:
            pool.register()
            if pool.bgid in self._ended_groups:
                self._check_begins_anew(pool)
        except BaseException as error:
            pool.unregister()
            del self._groups[pool.bgid]
            for what, since in (("a provided-buffer ring", "5.19"), ("an incremental one", abi.PbufRing.INC.since)):
                if getattr(error, "errno", 0) == errno.EINVAL and release(os.uname().release) < release(since):
                    raise UnsupportedError(what, since) from None
            raise
        return pool

    def close_buffer_ring(self, pool: BufferRing) -> None:
        """Take a group back from the kernel. Nothing in flight may use it: cancel that first, and reap it.

        A second call does nothing.
        """
        self._check_usable()
        if isinstance(pool, ProvidedBuffers):
            raise BufferUseError("a group of the legacy kind is the ring's to its end: remove_buffers empties it")
        if isinstance(pool, BufferRing) and not pool._open and self._groups.get(pool.bgid) is not pool:
            return
        self._check_group(pool)
        users = [op for op in self._inflight.values() if getattr(op, "pool", None) is pool]
        if users:
            raise OutOfOrderError(
                f"{len(users)} operations still receive into this group: cancel them and wait for their "
                "final completions first"
            )
        pool.unregister()
        self._groups.pop(pool.bgid, None)
        if pool.bgid < FIRST_FRESH_BGID:
            self._ended_groups.add(pool.bgid)

    def _check_begins_anew(self, pool: BufferRing) -> None:
        """Refuse a group in which the kernel would go on where its last ring ended, past the tail: into lent buffers."""
        try:
            begins_anew = register.buf_ring_head(self._fd, pool.bgid) == 0
        except OSError:
            begins_anew = False
        if not begins_anew:
            raise OutOfOrderError(
                f"group {pool.bgid} had a ring before, and this kernel goes on where that ended: leave out `bgid` for a "
                f"free one, or take one from {FIRST_FRESH_BGID} on"
            )

    def provided_buffers(self, count: int, nbytes: int, *, bgid: int | None = None) -> ProvidedBuffers:
        """Make a group of the legacy kind and queue the request that provides all its buffers.

        Since      Linux 5.7            Man   io_uring_prep_provide_buffers(3)
        """
        self._check_usable()
        bgid = self._free_bgid(bgid)

        def provide(bid: int, how_many: int) -> None:
            before = self._last_token
            try:
                self.provide_buffers(group, bid, how_many)
            except BaseException:
                # One in flight brings the kernel the buffers all the same.
                if not any(each._keep is group and each.token > before for each in self._inflight.values()):
                    group.drop(list(range(bid, bid + how_many)))
                raise

        group = ProvidedBuffers(bgid, count, nbytes, provide, self._chaining)
        self._groups[bgid] = group
        try:
            provide(0, count)
        except BaseException:
            if group.owes:
                del self._groups[bgid]
            raise
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

    def _free_bgid(self, bgid: int | None) -> int:
        if bgid is None:
            return next(bgid for bgid in range(FIRST_FRESH_BGID, 1 << 16) if bgid not in self._groups)
        if bgid in self._groups:
            raise OutOfOrderError(f"there is a group {bgid} of provided buffers already: leave out `bgid` for a free one")
        return bgid

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ring cannot be copied or pickled: make another one")

    def __repr__(self) -> str:
        if self._closed is not None:
            return "<Ring closed>"
        name = "index" if isinstance(self._fd, register.RingIndex) else "fd"
        return f"<Ring {name}={self._fd:d} entries={self.sq.entries} in_flight={len(self._inflight)} {self.setup_flags!r}>"
