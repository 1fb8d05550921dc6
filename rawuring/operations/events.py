"""Owned operations on events of other kinds: epoll_ctl, epoll_wait, waitid, futex_wait, futex_wake, futex_waitv.

May import everything below ring. What the operations share is in `operations.base`.

A futex is a 32-bit word of memory, aligned to its size: part of an mmap, of shared memory or of a
bytearray. It stays where it is, pinned, for as long as somebody waits for it through the ring.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from .. import abi, system
from ..buffers import Buffer, Pin, pin_readable, pin_writable
from ..errors import BufferUseError
from ..files import FileLike, HasFileno, fd_of
from ..inflight import Callback, Operation
from ..prep.commands import u32_pair
from .base import MemoryOperation, OwnedOperations, plain_fd

_SIZE_U32 = int(abi.Futex2.SIZE_U32)
_PRIVATE = int(abi.Futex2.PRIVATE)
_FUTEX_NBYTES = 4


class EventsOperation(MemoryOperation["list[system.EpollEvent]"]):
    """An epoll_wait in flight. Result: a list of `EpollEvent`."""

    __slots__ = ()

    def _value(self, res: int, cqe_flags: int) -> list[system.EpollEvent]:
        layout, memory = abi.EPOLL_EVENT, self._memory
        return [
            system.EpollEvent(layout.get(memory, "data", at), layout.get(memory, "events", at))
            for at in range(0, res * layout.nbytes, layout.nbytes)
        ]


class ChildOperation(MemoryOperation["os.waitid_result | None"]):
    """A waitid in flight. Result: that of os.waitid."""

    __slots__ = ()

    def _value(self, res: int, cqe_flags: int) -> os.waitid_result | None:
        found = abi.SIGINFO.unpack(self._memory)
        if not found["si_pid"]:
            return None  # WNOHANG, and no child had anything to tell
        names = ("si_pid", "si_uid", "si_signo", "si_status", "si_code")
        return os.waitid_result([found[name] for name in names])


def _pin_futex(word: Buffer) -> Pin:
    keep, addr, nbytes = pin_writable(word)
    if nbytes != _FUTEX_NBYTES or addr % _FUTEX_NBYTES:
        raise BufferUseError(
            f"a futex is {_FUTEX_NBYTES} bytes at a multiple of {_FUTEX_NBYTES}, and this is {nbytes} bytes"
            + (" elsewhere" if addr % _FUTEX_NBYTES else "") + ": use a slice of a memoryview, of an mmap for instance"
        )  # fmt: skip
    return keep, addr, nbytes


class EventOperations(OwnedOperations):
    """The owned operations on events of other kinds."""

    __slots__ = ()

    def epoll_ctl(
        self, epoll: int | HasFileno, epoll_op: int, file: int | HasFileno, events: int = 0, data: int | None = None, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Add, modify or remove (system.EPOLL_CTL_*) what an epoll object knows of a file. Result: 0.

        `events` are EPOLLIN, ... of `select`. `data` are the 64 bits that come with an event; None
        is the file's fd, as select.epoll has it.
        """
        fd = plain_fd(file)
        event = abi.EPOLL_EVENT.pack(events=events, data=u32_pair(fd, 0) if data is None else data)
        keep, addr, _ = pin_readable(event)
        return self._queue(Operation, self.sq.prep_epoll_ctl, (plain_fd(epoll), fd, epoll_op, addr),
                           (epoll, file, keep), callback, sqe_flags)  # fmt: skip

    def epoll_wait(
        self, epoll: FileLike, maxevents: int = 64, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> EventsOperation:
        """Wait until an epoll object has events, and take up to `maxevents`. Result: a list of `system.EpollEvent`.

        Linux 6.15.
        """
        if maxevents < 1:
            raise BufferUseError(f"at least one event can be waited for, not {maxevents}")
        fd, fixed = fd_of(epoll, self._file_table)
        memory = bytearray(maxevents * abi.EPOLL_EVENT.nbytes)
        keep, addr, _ = pin_writable(memory)
        return self._queue(EventsOperation, self.sq.prep_epoll_wait, (fd, addr, maxevents), (epoll, keep, memory),
                           callback, sqe_flags | fixed)  # fmt: skip

    def waitid(
        self, idtype: int, id: int, options: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> ChildOperation:
        """Wait until a child process changes, with the arguments of os.waitid. Result: as there. Linux 6.7.

        It takes the exit status, unless os.WNOWAIT is among the options: whoever else waits for the
        child, as a `subprocess.Popen` does, then misses it.
        """
        memory = bytearray(abi.SIGINFO.nbytes)
        keep, addr, _ = pin_writable(memory)
        return self._queue(ChildOperation, self.sq.prep_waitid, (idtype, id, addr, options), (keep, memory), callback,
                           sqe_flags)  # fmt: skip

    def futex_wait(
        self, word: Buffer, expected: int, *, mask: int = abi.FUTEX_BITSET_MATCH_ANY, futex_flags: int = _PRIVATE,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Wait for a wake-up of a futex, if it holds `expected`; else it ends with EAGAIN. Result: 0. Linux 6.7.

        `mask`: a wake-up must have one of these bits. `futex_flags` 0 is for a word that processes
        share. The word is looked at when the request is submitted.

        Example
            import mmap
            from rawuring import Ring

            word = memoryview(mmap.mmap(-1, mmap.PAGESIZE))[:4]  # 32 bits at a multiple of 4
            with Ring() as ring:
                waiting = ring.futex_wait(word, 0)
                ring.submit()
                word.cast("I")[0] = 1
                print(ring.futex_wake(word).wait())  # 1
                print(waiting.wait())                # 0
        """
        keep, addr, _ = _pin_futex(word)
        return self._queue(Operation, self.sq.prep_futex_wait, (addr, expected, mask, futex_flags | _SIZE_U32), keep,
                           callback, sqe_flags)  # fmt: skip

    def futex_wake(
        self, word: Buffer, count: int = 1, *, mask: int = abi.FUTEX_BITSET_MATCH_ANY, futex_flags: int = _PRIVATE,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Wake up to `count` who wait for a futex, through a ring or by futex(2). Result: how many. Linux 6.7."""
        keep, addr, _ = _pin_futex(word)
        return self._queue(Operation, self.sq.prep_futex_wake, (addr, count, mask, futex_flags | _SIZE_U32), keep,
                           callback, sqe_flags)  # fmt: skip

    def futex_waitv(
        self, words: Iterable[tuple[Buffer, int]], *, futex_flags: int = _PRIVATE,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Wait for a wake-up of any of up to 128 futexes: (word, expected) pairs. Result: the position of one. Linux 6.7."""
        pins = [(_pin_futex(word), expected) for word, expected in words]
        array, addr, _ = pin_readable(b"".join(
            abi.FUTEX_WAITV.pack(val=expected, uaddr=word_addr, flags=futex_flags | _SIZE_U32)
            for (_, word_addr, _), expected in pins
        ))  # fmt: skip
        return self._queue(Operation, self.sq.prep_futex_waitv, (addr, len(pins)), (array, pins), callback, sqe_flags)
