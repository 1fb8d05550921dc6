"""Owned operations where fds and slots come from and go: openat, openat2, close_fd, pipe, files_update, fixed_fd_install.

May import everything below ring. What the operations share is in `operations.base`.

What an operation brought belongs to it until `wait()` or the callback takes it: an fd is closed
with the operation, a slot that the kernel picked is emptied. A slot that you named is yours.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from struct import Struct

from .. import abi
from ..buffers import Pin, pin_readable, pin_writable
from ..errors import BufferUseError, OutOfOrderError, UnsupportedError
from ..files import FileTable, Fixed, fd_of
from ..hints import Any
from ..inflight import Callback, FdOperation, Operation, Waiter, close_quietly
from .base import FixedOperation, MemoryOperation, OwnedOperations, PathName, dirfd_of, pin_path, plain_fd

_ALLOC = abi.FILE_INDEX_ALLOC
_INT = Struct("=i")
_TWO_INTS = Struct("=2i")
_OPEN = os.O_RDONLY | os.O_CLOEXEC
_MAKES_FILE = os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY


class PipeOperation(MemoryOperation[tuple[int, int]]):
    """A pipe being made. Result: the fds of its read end and its write end, which are closed if nobody asks for it."""

    __slots__ = ("_taken",)

    _taken: bool

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self._taken = False

    def _value(self, res: int, cqe_flags: int) -> tuple[int, int]:
        reader, writer = _TWO_INTS.unpack(self._memory)
        self._taken = True; return reader, writer  # fmt: skip

    def __del__(self) -> None:
        cqe = getattr(self, "cqe", None)
        if cqe is not None and cqe[1] >= 0 and not self._taken:
            for fd in _TWO_INTS.unpack(self._memory):
                close_quietly(fd)


class SlotsOperation(MemoryOperation[list[Fixed]]):
    """An operation whose result is several slots of a file table.

    Those that the kernel picked, and wrote into the memory, are emptied if nobody asks for the result.
    """

    __slots__ = ("table", "slot", "_taken")

    table: FileTable
    slot: int  # the first one asked for, or FILE_INDEX_ALLOC

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        _, self.table, self.slot, _ = keep
        self._taken = self.slot != _ALLOC

    def _slots(self, res: int) -> list[int]:
        """The slots that were filled. `res` says how many."""
        if self.slot != _ALLOC:
            return list(range(self.slot, self.slot + res))
        return [slot for (slot,) in _INT.iter_unpack(self._memory)][:res]

    def _value(self, res: int, cqe_flags: int) -> list[Fixed]:
        filled = [self.table[slot] for slot in self._slots(res)]
        self._taken = True; return filled  # fmt: skip

    def error(self, res: int) -> OSError | UnsupportedError:
        if self.slot == _ALLOC and res == -errno.EOVERFLOW:
            # Slots from 0xffffffff on, which a kernel that picks none has no room for.
            return UnsupportedError(f"{self.name} into slots that the kernel picks", "5.19")
        return super().error(res)

    def __del__(self) -> None:
        cqe = getattr(self, "cqe", None)
        if cqe is not None and cqe[1] >= 0 and not self._taken:
            for slot in self._slots(cqe[1]):
                self.table.drop(slot)


class FixedPipeOperation(SlotsOperation):
    """A pipe being made in a file table. Result: the slots of its read end and its write end."""

    __slots__ = ()

    def _slots(self, res: int) -> list[int]:
        return super()._slots(2)  # the kernel says 0


class DescriptorOperations(OwnedOperations):
    """The owned operations on fds and slots of the file table."""

    __slots__ = ()

    def openat(
        self, path: PathName, open_flags: int = _OPEN, mode: int = 0o666, *, dir_fd: int | None = None,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Open a file. Result: an fd, which belongs to the operation until `wait()` or the callback takes it."""
        keep, addr, _ = pin_path(path)
        return self._queue(FdOperation, self.sq.prep_openat, (dirfd_of(dir_fd), addr, open_flags, mode), keep, callback,
                           sqe_flags)  # fmt: skip

    def openat_direct(
        self, path: PathName, into: FileTable, open_flags: int = os.O_RDONLY, mode: int = 0o666, *,
        slot: int = _ALLOC, dir_fd: int | None = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> FixedOperation:  # fmt: skip
        """Open a file into a slot of a file table, which the kernel picks unless `slot` says it. Result: a Fixed."""
        keep, addr, _ = pin_path(path)
        self._prepare_table(into)
        return self._queue(FixedOperation, self.sq.prep_openat_direct, (dirfd_of(dir_fd), addr, open_flags, mode, slot),
                           (keep, into, slot), callback, sqe_flags)  # fmt: skip

    def openat2(
        self, path: PathName, open_flags: int = _OPEN, mode: int = 0o666, *, resolve: int = 0,
        dir_fd: int | None = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Open a file whose path keeps rules: `resolve` is made of system.RESOLVE_*. Result: an fd, as of `openat`.

        A path that breaks a rule ends with EXDEV (BENEATH, NO_XDEV), ELOOP (NO_SYMLINKS, NO_MAGICLINKS)
        or EAGAIN (CACHED). Other than openat, openat2 refuses flags that it does not know.
        """
        keep, addr, _ = pin_path(path)
        how, how_addr, _ = _pin_how(open_flags, mode, resolve)
        return self._queue(FdOperation, self.sq.prep_openat2, (dirfd_of(dir_fd), addr, how_addr), (keep, how), callback,
                           sqe_flags)  # fmt: skip

    def openat2_direct(
        self, path: PathName, into: FileTable, open_flags: int = os.O_RDONLY, mode: int = 0o666, *, resolve: int = 0,
        slot: int = _ALLOC, dir_fd: int | None = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> FixedOperation:  # fmt: skip
        """Open a file as `openat2` does into a slot of a file table, as `openat_direct` does. Result: a Fixed."""
        keep, addr, _ = pin_path(path)
        how, how_addr, _ = _pin_how(open_flags, mode, resolve)
        self._prepare_table(into)
        return self._queue(FixedOperation, self.sq.prep_openat2_direct, (dirfd_of(dir_fd), addr, how_addr, slot),
                           ((keep, how), into, slot), callback, sqe_flags)  # fmt: skip

    def close_fd(
        self, fd: int | Fixed, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Close an fd number or a slot. Result: 0. Cancel what is in flight on it first: closing does not.

        A socket or file object would close the number a second time: detach it first.
        """
        if isinstance(fd, Fixed):
            slot, _ = fd_of(fd, self._file_table)
            return self._queue(Operation, self.sq.prep_close_direct, (slot,), fd, callback, sqe_flags)
        if not isinstance(fd, int):
            raise OutOfOrderError(
                f"close_fd closes a number, and this {type(fd).__name__} would close it again: pass its detach()"
            )
        return self._queue(Operation, self.sq.prep_close, (fd,), None, callback, sqe_flags)

    def pipe(
        self, pipe_flags: int = os.O_CLOEXEC, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> PipeOperation:
        """Make a pipe. Result: the fds (read end, write end), which belong to the operation until `wait()` gives them.

        Linux 6.16.
        """
        memory = bytearray(_TWO_INTS.size)
        keep, addr, _ = pin_writable(memory)
        return self._queue(PipeOperation, self.sq.prep_pipe, (addr, pipe_flags), (keep, memory), callback, sqe_flags)

    def pipe_direct(
        self, into: FileTable, pipe_flags: int = 0, *, slot: int = _ALLOC,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> FixedPipeOperation:  # fmt: skip
        """Make a pipe in two slots of a file table: those the kernel picks, or `slot` and the next.

        Result: a list of two Fixed, [read end, write end]. Linux 6.16.
        """
        self._prepare_table(into)
        memory = bytearray(_TWO_INTS.size)
        keep, addr, _ = pin_writable(memory)
        return self._queue(FixedPipeOperation, self.sq.prep_pipe_direct, (addr, pipe_flags, slot),
                           (keep, into, slot, memory), callback, sqe_flags)  # fmt: skip

    def files_update(
        self, files: Sequence[Any], into: FileTable, *, slot: int = _ALLOC,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> SlotsOperation:  # fmt: skip
        """Put files into slots of a file table: free ones that the kernel picks, or those from `slot` on.

        Result: a list of Fixed, shorter than `files` if the table is full or one of them is closed.
        With `slot`, a file may be -1 to empty its slot, or abi.REGISTER_FILES_SKIP to leave it as it
        is. `FileTable.update` does the same at once. Linux 5.6, slots that the kernel picks 5.19.
        """
        memory = bytearray(b"".join(_INT.pack(plain_fd(file)) for file in files))
        if not memory:
            raise BufferUseError("name at least one file to put into the table")
        self._prepare_table(into)
        keep, addr, _ = pin_writable(memory)
        return self._queue(SlotsOperation, self.sq.prep_files_update, (addr, len(files), slot),
                           ((keep, list(files)), into, slot, memory), callback, sqe_flags)  # fmt: skip

    def fixed_fd_install(
        self, file: Fixed, install_fd_flags: int = 0, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Give the file in a slot an ordinary fd as well. Result: the fd, as of `openat`. Linux 6.8.

        It is close-on-exec, unless `install_fd_flags` is FixedFd.NO_CLOEXEC.
        """
        if not isinstance(file, Fixed):
            raise BufferUseError(f"a slot of a file table gets an fd, and this {type(file).__name__} is none: pass a Fixed")
        slot, _ = fd_of(file, self._file_table)
        return self._queue(FdOperation, self.sq.prep_fixed_fd_install, (slot, install_fd_flags), file, callback, sqe_flags)


def _pin_how(open_flags: int, mode: int, resolve: int) -> Pin:
    """Pin a struct open_how. The mode of a file that is not made, which openat ignores, would be an error."""
    mode = mode if open_flags & _MAKES_FILE else 0
    return pin_readable(bytes(abi.OPEN_HOW.pack(flags=open_flags, mode=mode, resolve=resolve)))
