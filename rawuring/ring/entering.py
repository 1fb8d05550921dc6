"""Entering the kernel: submit, wait for completions, and go on where an enter stopped early.

May import everything below ring, `negotiation` excepted. Never looks into a completion.
"""

from __future__ import annotations

import errno
import select
import threading
import time
import weakref
from ctypes import addressof, c_char, c_size_t, c_void_p
from operator import index
from typing import Any, Final

from .. import abi, register, syscalls
from ..cq import CompletionQueue
from ..errors import LostCompletionsError, OutOfOrderError, RingClosedError, WrongThreadError, os_error
from ..mmap_ring import MappedRing
from ..operations.base import OwnedOperations
from ..sq import SubmissionQueue

GETEVENTS: Final = int(abi.Enter.GETEVENTS)
_SQ_WAKEUP: Final = int(abi.Enter.SQ_WAKEUP)
_EXT_ARG: Final = int(abi.Enter.EXT_ARG)
_REGISTERED_RING: Final = int(abi.Enter.REGISTERED_RING)

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
        "_owner", "_owner_thread", "_plain_owner", "_sqpoll",
        "_ext_arg", "_timespec", "_arg", "_argsz", "_timeout_memory", "__weakref__",
    )  # fmt: skip

    sq: SubmissionQueue
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
    _timeout_memory: Any

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

    def _submit_until(self, nr: int, deadline: int | None) -> int:
        self._check_no_chain()
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
                enter_flags |= GETEVENTS
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
        taken = _enter(self._enter_fd, to_submit, 0, self._enter_flags | GETEVENTS)
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
        _this_thread.registered.add(self)
        self._enter_fd, self._enter_flags = self._registered_index, _REGISTERED_RING
        self._getevents = GETEVENTS | _REGISTERED_RING

    def _thread_ended(self) -> None:
        """The owner is gone, and with it the registered index: it may be that of another ring now."""
        self._registered_index = -1
        self._enter_fd, self._enter_flags, self._getevents = self._fd, 0, GETEVENTS
        self._owner = self._plain_owner = -1

    def enable(self) -> None:
        """Enable a ring made with Setup.R_DISABLED; the calling thread becomes its owner.

        Since      Linux 5.10           Man   io_uring_enable_rings(3)
        """
        if self._closed is not None:
            raise self._closed.anew()
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
        # this is its thread, that no chain is being queued and that no SQ thread reads along.
        self._plain_owner = -1 if self._sqpoll or self._closed is not None else self._owner

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
