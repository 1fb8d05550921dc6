"""Entering the kernel: submit, wait for completions, and go on where an enter stopped early.

May import everything below ring, and `terms`. Never looks into a completion.
"""

from __future__ import annotations

import errno
import select
import threading
import time
import weakref
from collections.abc import Iterable
from ctypes import c_size_t, c_void_p
from mmap import PAGESIZE
from operator import index

from .. import abi, register, syscalls
from ..cq import CompletionQueue
from ..errors import (
    LostCompletionsError,
    OutOfOrderError,
    RawuringError,
    RingClosedError,
    UnsupportedError,
    WrongThreadError,
    os_error,
)
from ..hints import Final
from ..mmap_ring import MappedRing, Mapping
from ..operations.base import OwnedOperations
from ..sq import RewindingQueue, SubmissionQueue
from .terms import EnterArgument, Terms, mask_of, min_until

GETEVENTS: Final = int(abi.Enter.GETEVENTS)
_SQ_WAKEUP: Final = int(abi.Enter.SQ_WAKEUP)
_REGISTERED_RING: Final = int(abi.Enter.REGISTERED_RING)
_NO_IOWAIT: Final = int(abi.Enter.NO_IOWAIT)

_NS_PER_S: Final = 1_000_000_000

_get_ident = threading.get_ident
_enter = syscalls.enter
ENTER_CALL: Final = syscalls.enter_call
NR_ENTER: Final = syscalls.NR_ENTER


def deadline_after(timeout_ns: int | None) -> int | None:
    """The time.monotonic_ns() at which a wait of so many nanoseconds ends; None for one without end."""
    return None if timeout_ns is None else time.monotonic_ns() + index(timeout_ns)


class _Registered(weakref.WeakSet):  # type: ignore[type-arg]
    """The rings whose fds a thread has registered. Their indices end with it, and its ident may be another thread's then."""

    def __del__(self) -> None:
        for ring in self:
            ring._thread_ended()


class _Thread(threading.local):
    def __init__(self) -> None:
        self.registered = _Registered()


_this_thread = _Thread()


class Entering(OwnedOperations):
    """A ring that can submit and wait, and knows whose it is."""

    __slots__ = (
        "sq", "cq", "setup_flags", "features",
        "_fd", "_memory", "_closed", "_enter_fd", "_enter_flags", "_getevents", "_registered_index", "_wants_index",
        "_owner", "_owner_thread", "_plain_owner", "_sqpoll", "_spins", "_rewinds", "_iowait", "_clock",
        "_ext_arg", "_timeout", "_special", "_wait_region", "__weakref__",
    )  # fmt: skip

    sq: SubmissionQueue
    """The submission queue, whose `prep_*` methods are the raw layer."""
    cq: CompletionQueue
    """The completion queue."""
    setup_flags: abi.Setup
    """The Setup flags that were granted."""
    features: abi.Feature
    """The Feature bits of this kernel, less `mask_features`."""

    _fd: int
    _memory: MappedRing
    _closed: RingClosedError | None
    _enter_fd: int
    _registered_index: int
    _wants_index: bool  # to be registered by the thread that enables the ring
    _sqpoll: bool
    _spins: bool  # a wait asks the device over and over instead of sleeping
    _rewinds: bool
    _iowait: bool
    _clock: int  # of the kernel's timeouts
    _timeout: EnterArgument  # of waits with a timeout and no more
    _special: EnterArgument  # of waits with terms
    _wait_region: Mapping | None  # where the two are, if they are registered

    @property
    def entries(self) -> int:
        """How many SQEs fit."""
        return self.sq.entries

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
        if isinstance(self._fd, register.RingIndex):
            raise RawuringError("a ring with Setup.REGISTERED_FD_ONLY has no fd to poll or to share: make it without")
        return self._fd

    def submit(self) -> int:
        """Hand what was queued to the kernel. Returns how many SQEs it took (with SQPOLL: were published).

        On a DEFER_TASKRUN ring what completes later is posted only inside an enter that waits:
        after `submit()` alone, the completion queue shows no more than what completed at once.
        """
        if _get_ident() != self._plain_owner:
            self._check_usable()
            self._check_no_chain()
            return self._complete_enter(0, None, None)
        sq = self.sq
        pending = sq.flush()
        if not pending:
            return 0
        taken: int = ENTER_CALL(NR_ENTER, self._enter_fd, pending, 0, self._enter_flags, None)
        if taken == pending:
            sq.all_consumed()
            return taken
        return self._complete_enter(None if taken < 0 else taken, None, None)

    def set_iowait(self, counts: bool) -> None:
        """Let a thread that waits for requests in flight count as waiting for I/O, as it does at first, or as idle.

        I/O wait keeps the CPU's frequency up, and shows as %iowait in the system's statistics.

        Since      Linux 6.15           Man   io_uring_set_iowait(3)
        """
        self._check_usable()
        if not self.features & abi.Feature.NO_IOWAIT:
            raise UnsupportedError("Enter.NO_IOWAIT", abi.Enter.NO_IOWAIT.since)
        self._iowait = bool(counts)
        self._name_ring()

    def register_clock(self, clock_id: int) -> None:
        """Measure the timeouts of waits by time.CLOCK_MONOTONIC, as at first, or by time.CLOCK_BOOTTIME.

        The latter goes on while the machine sleeps. `until_ns` is a time of this clock.

        Since      Linux 6.12           Man   io_uring_register_clock(3)
        """
        self._check_usable()
        if not self.features & abi.Feature.MIN_TIMEOUT:
            raise UnsupportedError("the clock of a ring", abi.Register.CLOCK.since)
        register.clock(self._fd, clock_id)
        self._clock = clock_id

    def _now(self) -> int:
        return time.clock_gettime_ns(self._clock)

    def _terms(
        self, timeout_ns: int | None, until_ns: int | None, min_wait_ns: int, signal_mask: Iterable[int] | None
    ) -> tuple[int | None, Terms | None]:
        """The deadline of a wait, and its other terms if it has any. Refuses what kernel or ring cannot do."""
        if until_ns is None and not min_wait_ns and signal_mask is None:
            return deadline_after(timeout_ns), None
        if until_ns is not None and timeout_ns is not None:
            raise RawuringError("a wait ends after `timeout_ns` or at `until_ns`: give one of them")
        if self._spins and (min_wait_ns or signal_mask is not None):
            raise RawuringError("a ring with Setup.IOPOLL does not sleep: it takes no min_wait_ns and no signal_mask")
        if min_wait_ns and not self.features & abi.Feature.MIN_TIMEOUT:
            raise UnsupportedError("a minimum wait", abi.Feature.MIN_TIMEOUT.since)
        if until_ns is not None and not self.features & abi.Feature.MIN_TIMEOUT:
            # Of the same release, and without a feature of its own.
            raise UnsupportedError("Enter.ABS_TIMER", abi.Enter.ABS_TIMER.since)
        if not self._ext_arg:
            raise UnsupportedError("a signal mask with a wait", abi.Feature.EXT_ARG.since)
        terms = Terms(
            self._now if until_ns is not None else time.monotonic_ns,
            until_ns is not None,
            min_until(min_wait_ns),
            None if signal_mask is None else mask_of(signal_mask),
        )
        return (deadline_after(timeout_ns) if until_ns is None else max(index(until_ns), 0)), terms

    def _submit_until(self, nr: int, deadline: int | None, terms: Terms | None = None) -> int:
        self._check_no_chain()
        if deadline is not None and not self._ext_arg:
            return self._submit_and_poll(nr, deadline)
        return self._complete_enter(None, nr, deadline, terms)

    def _complete_enter(
        self, taken: int | None, nr: int | None, deadline: int | None, terms: Terms | None = None
    ) -> int:
        """Enter until everything published is consumed and `nr` completions are there, or the deadline has passed.

        `taken` is what an enter before this one took, None if there was none or it failed. An
        enter stops early for many reasons: a bad SQE without SUBMIT_ALL, a signal, a timeout
        request that fired, the wait's own timeout; `min_complete` is not a promise either. So the
        queues decide, not the result. `nr` None does not wait at all.
        """
        sq, cq = self.sq, self.cq
        enter = self._enter_noting if self._rewinds else _enter
        now = time.monotonic_ns if terms is None else terms.now
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
                if terms is not None and terms.min_until is not None and time.monotonic_ns() >= terms.min_until:
                    waits = min(waits, 1)
                    expired = expired or deadline is None
                if entered and not to_submit and (expired or cq.ready >= waits):
                    return total
                enter_flags |= GETEVENTS
            if not waits or expired or deadline is None and terms is None:
                taken = enter(self._enter_fd, to_submit, 0 if expired else waits, enter_flags)
            elif self._spins:
                taken = enter(self._enter_fd, to_submit, 0, enter_flags)  # it would not look at the timeout
            elif terms is None:
                assert deadline is not None
                timeout = self._timeout
                timeout.tell_timeout(max(deadline - now(), 0))
                enter_flags |= timeout.enter_flags
                taken = enter(self._enter_fd, to_submit, waits, enter_flags, timeout.arg, timeout.argsz)
            else:
                special = self._special
                enter_flags |= special.tell(deadline, terms)
                taken = enter(self._enter_fd, to_submit, waits, enter_flags, special.arg, special.argsz)
            if taken < 0:
                total += self._after_failure(-taken, to_submit)
            elif taken == 0 and to_submit:
                raise os_error(errno.EAGAIN, "io_uring_enter took nothing of what was submitted")
            else:
                total += taken
            entered = True
            if nr is None and self._sqpoll:
                return total  # the thread is awake, or on its way
            expired = deadline is not None and now() >= deadline

    def _enter_noting(
        self,
        fd: int,
        to_submit: int,
        min_complete: int,
        enter_flags: int,
        arg: c_void_p | None = None,
        argsz: c_size_t = syscalls.NO_ARGUMENT,
    ) -> int:
        """`syscalls.enter` for a ring with Setup.SQ_REWIND: what it answered is in the queue's `answers` at once."""
        sq = self.sq
        assert isinstance(sq, RewindingQueue)
        # The list takes the answer before an interrupt can come.
        arguments = (NR_ENTER,), (fd,), (to_submit,), (min_complete,), (enter_flags,), (arg,), (argsz,)
        sq.answers.extend(map(syscalls.enter_call_errno, *arguments))
        return sq.answers[0] if sq.answers[0] >= 0 else -syscalls.last_errno()

    def _check_lost(self) -> None:
        if self.cq.lost:
            raise LostCompletionsError("the kernel had no memory for completions and dropped some: make a new ring")

    def _after_failure(self, code: int, to_submit: int) -> int:
        """Go on after an enter that failed with an errno: how many SQEs were taken; or the exception for it.

        When a signal ends a wait, its Python handler runs before the errno can be asked for, and
        may leave one of its own there. An enter that does not wait is not interrupted: what it
        fails with is true.
        """
        if code in (errno.EINTR, errno.ETIME):
            return 0  # the signal handlers have run, or it is for the deadline to decide
        if code == errno.EBADR:
            self._check_lost()
        self.sq.look()
        enter = self._enter_noting if self._rewinds else _enter
        taken = enter(self._enter_fd, to_submit, 0, self._enter_flags | GETEVENTS)
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

    def _prepare_timeouts(self) -> None:
        """Memory for what an enter that waits is told."""
        self._ext_arg = bool(self.features & abi.Feature.EXT_ARG)
        self._timeout, self._special = EnterArgument(), EnterArgument()

    def _register_waits(self) -> None:
        """Have the kernel read what an enter that waits is told from a page that it has pinned. On a disabled ring."""
        self._wait_region = region = Mapping(PAGESIZE)
        try:
            register.region(self._fd, region.addr, PAGESIZE, abi.MemRegion.REG_WAIT_ARG)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise UnsupportedError("a registered wait", abi.MemRegion.REG_WAIT_ARG.since) from None
            raise
        self._timeout, self._special = EnterArgument(region, 0), EnterArgument(region, 1)

    def _register_ring_fd(self) -> None:
        if not self.features & abi.Feature.EXT_ARG:
            return
        try:
            self._registered_index = register.ring_fd(self._fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBUSY):
                raise
            return  # before Linux 5.18, or 16 are registered: the plain fd does the same
        self._note_index()

    def _note_index(self) -> None:
        """Enter by the registered index from now on, for as long as this thread lives."""
        _this_thread.registered.add(self)
        self._name_ring()

    def _name_ring(self) -> None:
        """What an enter calls the ring: its registered index, or its fd."""
        is_registered = self._registered_index >= 0
        flags = (_REGISTERED_RING if is_registered else 0) | (0 if self._iowait else _NO_IOWAIT)
        # In one statement, within which no signal is handled: an index is not to be taken for an fd.
        self._enter_fd, self._enter_flags, self._getevents = (
            self._registered_index if is_registered else self._fd, flags, GETEVENTS | flags
        )  # fmt: skip

    def _thread_ended(self) -> None:
        """The owner is gone, and with it the registered index: it may be that of another ring now."""
        self._registered_index = -1
        if isinstance(self._fd, register.RingIndex):
            self._fd = -1  # and the ring
        self._name_ring()
        self._owner = self._plain_owner = -1

    def enable(self) -> None:
        """Enable a ring made with Setup.R_DISABLED; the calling thread becomes its owner.

        Example
            import threading
            from rawuring import Ring, abi

            def work(ring):
                ring.enable()                 # from here on it is this thread's
                with ring:
                    print(ring.nop().wait())  # 0

            thread = threading.Thread(target=work, args=(Ring(8, abi.Setup.R_DISABLED),))
            thread.start()
            thread.join()

        Since      Linux 5.10           Man   io_uring_enable_rings(3)
        """
        if self._closed is not None:
            raise self._closed.anew()
        if isinstance(self._fd, register.RingIndex):
            self._check_usable()  # an index says nothing to another thread
        register.enable_rings(self._fd)
        self._own()
        if self._wants_index:
            self._register_ring_fd()

    def _own(self) -> None:
        """The calling thread is the ring's from now on."""
        self._owner_thread = threading.current_thread()
        self._owner = _get_ident()
        self._find_plain_owner()

    def _find_plain_owner(self) -> None:
        # What submit and submit_and_wait compare with: one look tells that the ring is open, that
        # this is its thread, that no chain is being queued, that no SQ thread reads along and that
        # the head tells what an enter took.
        self._plain_owner = -1 if self._sqpoll or self._rewinds or self._closed is not None else self._owner

    def _check_no_chain(self) -> None:
        if self._link_flag:
            raise OutOfOrderError("nothing is submitted inside a link block, which would cut the chain: do it after it")

    def _check_usable(self) -> None:
        if self._closed is not None:
            raise self._closed.anew()
        if _get_ident() != self._owner:
            raise WrongThreadError(
                f"this ring belongs to thread {self._owner_thread.name!r}: make a ring in each thread that needs one, "
                "or make it with Setup.R_DISABLED and call enable() in the thread that will use it"
            )
