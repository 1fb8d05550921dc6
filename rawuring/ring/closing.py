"""The end of a ring: closing, being collected, and what a fork leaves of it.

May import everything below ring, and `looping`.

The kernel may write into the memory of a request until its final completion, and goes on for
some 10 to 60 ms after the ring's fd is closed. So what is in flight is cancelled and reaped first;
where that cannot be done, the memory is freed when the kernel has let go of the ring, or never.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
import warnings
import weakref
from ctypes import py_object, pythonapi

from .. import abi, register
from ..buffers import RegisteredBuffers
from ..errors import ForkedRingError, NestedWaitError, RawuringError, RingClosedError
from ..hints import Final
from ..inflight import Operation, Stream
from .looping import Looping
from .resolving import NOTHING

_CANCEL_EVERYTHING: Final = int(abi.Cancel.ANY | abi.Cancel.ALL)
_CLOSE_NS: Final = 5_000_000_000
_CANCEL_AGAIN_NS: Final = 50_000_000

_get_ident = threading.get_ident


class Closing(Looping):
    """A ring that ends without leaving the kernel anything that it could still write to."""

    __slots__ = ("_fds", "_torn_down", "_quiet", "_watch", "_kept_as", "_sq_start", "_registered_buffers")

    _fds: list[int]  # the ring's fd, for the line that closes it
    _torn_down: bool
    _quiet: bool  # the kernel has no request of this ring any more
    _watch: list[int]  # a fd that hangs up when the kernel has let go of the ring
    _kept_as: object  # the key of what `_kept` has of this ring, like no other ring's
    _sq_start: int
    _registered_buffers: RegisteredBuffers | None

    def close(self) -> None:
        """Cancel what is in flight, wait until the kernel is done with it, and give everything back.

        What was queued and never submitted is dropped, as if cancelled. If the kernel does not
        finish within five seconds, the memory it may still write to is kept for the rest of the
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
        self._take_back(0)
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

    def _raw_used(self) -> bool:
        """Were there more requests than those of the owned layer?"""
        return hasattr(self, "cq") and self.sq.tail - self._sq_start > self._resolved + len(self._inflight)

    def _tear_down(self) -> None:
        """Give everything back. Whatever interrupts it, it can be done again from the start."""
        if not self._quiet and self._kept_as not in _kept:
            pins = self._registered_buffers._pins if self._registered_buffers is not None else []
            if self._inflight or self._groups or pins:
                # Kept from now on, until the kernel is known to be done.
                _kept[self._kept_as] = (self._inflight, self._groups, pins)
        if hasattr(self, "cq") and self._closed is None:
            self._reap()  # a last look: completions may have brought fds
        if self._kept_as in _kept and self._fd >= 0 and not self._is_out_of_reach():
            self._watch_kernel()
        self._close_fd(RingClosedError("this ring is closed: make a new one"))
        if self._watch and _hung_up(self._watch[0]):
            self._quiet = True
            _kept.pop(self._kept_as, None)
        while self._watch:
            fd = self._watch[-1]; del self._watch[-1]; os.close(fd)  # fmt: skip
        unknown = len(self._inflight)
        self._let_go()
        self._torn_down = True
        if self._kept_as in _kept:
            warnings.warn(
                f"a ring was closed and the kernel may still work on {unknown} requests of it: their memory is kept",
                ResourceWarning,
                stacklevel=3,
                source=self,
            )

    def _is_out_of_reach(self) -> bool:
        """Is the ring known by a registered index alone, which says nothing to this thread?"""
        return isinstance(self._fd, register.RingIndex) and _get_ident() != self._owner

    def _watch_kernel(self) -> None:
        """Have `_watch` hang up when the kernel has let go of the ring: a pipe's reader, whose writer the ring holds."""
        while self._watch:  # of an attempt that was interrupted
            fd = self._watch[-1]; del self._watch[-1]; os.close(fd)  # fmt: skip
        if not self.features & abi.Feature.RSRC_TAGS:
            return  # before Linux 5.13 making a table waits for every request of the ring
        try:
            self._watch += os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return  # no fd is free
        try:
            self._give_writer(self._watch[1:])
        except OSError:
            reader = self._watch[0]; del self._watch[0]; os.close(reader)  # fmt: skip  # it would never hang up
        writer = self._watch[-1]; del self._watch[-1]; os.close(writer)  # fmt: skip

    def _give_writer(self, fds: list[int]) -> None:
        """Into the table that is there: before Linux 6.13 unregistering it waits for the requests that use its slots."""
        try:
            register.files_update(self._fd, 0, fds)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            register.files(self._fd, fds)

    def _close_fd(self, reason: RingClosedError) -> None:
        self._closed = reason
        self._plain_owner = -1
        if hasattr(self, "cq"):
            self.sq.close(reason)
            self.cq.close(reason)
        if hasattr(self, "_memory"):
            self._memory.close()
        if self._wait_region is not None:
            self._timeout.release()
            self._special.release()
            self._wait_region.close()
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
            fd = self._fds[-1]; del self._fds[-1]; os.close(fd)  # fmt: skip

    def _let_go(self) -> None:
        """Drop what was kept for the kernel, and what completions brought and nobody took."""
        events = self._reaped.events
        while events:
            operation, res, cqe_flags = events.popleft()
            if isinstance(operation, Stream):
                operation.discard(res, cqe_flags)
        self._batch = None
        self._reaped = NOTHING
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
            try:
                self._tear_down()
            except BaseException:
                # Python drops an interrupt in a finalizer, and goes on without what it kept from being
                # done. (One on entry, before the first line, cannot be mended: close your rings.)
                if not self._torn_down:
                    self._tear_down()
                raise

    def _forked(self) -> None:
        """In the child of a fork: the mappings are the parent's ring, and the fd keeps it alive."""
        if not self._torn_down:
            self._torn_down = True
            self._registered_index = -1
            self._close_fd(
                ForkedRingError("this ring was made before the fork and works only in the parent: make a new one here")
            )
            self._release_tables()


def _hung_up(reader: int) -> bool:
    """Wait for the kernel to let go of the ring (it takes some 10 to 60 ms after the fd is closed)."""
    poll = select.poll()
    poll.register(reader, 0)
    return bool(poll.poll(_CLOSE_NS // 1_000_000))


_kept: dict[object, object] = {}
"""What a ring could not free, since the kernel may still write to it."""
# The end of the interpreter, which empties every module, must not free it either.
pythonapi.Py_IncRef(py_object(_kept))

rings: weakref.WeakSet[Closing] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for ring in list(rings):
        ring._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
