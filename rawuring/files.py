"""Fixed files: the table of files that the kernel holds for a ring, and fds of every kind as SQE fields.

May import abi, errors and register. A slot of the table (a direct descriptor) goes wherever an
fd does, costs the kernel no look-up in the process's fd table, and is invisible to other rings.
"""

from __future__ import annotations

import errno
from collections import deque

from . import abi, register
from .errors import BufferUseError, OutOfOrderError, RawuringError
from .hints import Any, Final, Protocol

_FIXED_FILE: Final = int(abi.SqeFlag.FIXED_FILE)


class HasFileno(Protocol):
    """A socket, a file, ...: anything with an fd."""

    def fileno(self) -> int: ...


class Fixed:
    """A slot of a file table. It stays open until `close()` or until the table is unregistered."""

    __slots__ = ("table", "slot")

    def __init__(self, table: FileTable, slot: int) -> None:
        self.table = table
        self.slot = slot

    def close(self) -> None:
        """Empty the slot. Requests in flight keep the file."""
        self.table.update(self.slot, [-1])

    def __repr__(self) -> str:
        return f"Fixed(slot={self.slot})"


FileLike = int | HasFileno | Fixed


class FileTable:
    """The fixed-file table of a ring: one per ring. `table[slot]` is a `Fixed`.

    Example
        from rawuring import Ring

        with Ring() as ring:
            files = ring.file_table(4)
            file = ring.openat_direct("/dev/zero", files).wait()
            buffer = bytearray(8)
            print(file, ring.read(file, buffer).wait())  # Fixed(slot=0) 8

    Since      Linux 5.1 (slots picked by the kernel 5.19)      Man   io_uring_registered_files(7)
    """

    __slots__ = ("count", "_fd", "_registered", "_dropped")

    _registered: bool

    def __init__(self, fd: int, count: int, before: FileTable | None = None) -> None:
        if before is not None and before._registered:
            raise OutOfOrderError("a ring has one file table: unregister() the other first")
        if count < 1:
            raise RawuringError(f"a file table has at least one slot: {count} is none")
        self._fd = fd
        self.count = count
        # Slots that the kernel filled and nobody took, from finalizers of any thread.
        self._dropped: deque[int] = deque()
        self._registered = True
        try:
            register.files_sparse(fd, count)
        except BaseException:
            self.unregister()
            raise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, slot: int) -> Fixed:
        if not 0 <= slot < self.count:
            raise IndexError(f"slot {slot} is not in a table of {self.count}")
        return Fixed(self, slot)

    def update(self, slot: int, files: list[Any]) -> int:
        """Put files (-1 for none) into the slots from `slot` on. Returns how many were done."""
        self.check()
        fds = [fd_of(file, None)[0] for file in files]
        self.reclaim()
        return register.files_update(self._fd, slot, fds)

    def drop(self, slot: int) -> None:
        """Note that nobody took what the kernel put into a slot. Safe in a finalizer, in any thread."""
        self._dropped.append(slot)

    @property
    def owes(self) -> bool:
        """Is there anything for `reclaim` to do?"""
        return bool(self._dropped and self._registered)

    def reclaim(self) -> None:
        """Empty the slots that `drop` noted. In the ring's thread, and before a slot is filled, which may be one of them."""
        while self._dropped and self._registered:
            slot = self._dropped[0]; del self._dropped[0]  # fmt: skip
            try:
                register.files_update(self._fd, slot, [-1])
            except OSError as error:
                if error.errno != errno.EACCES:  # a restricted ring never can
                    self._dropped.appendleft(slot)
                raise

    def unregister(self) -> None:
        """Drop the table and close what is in it. A second call does nothing.

        Before Linux 6.13 the kernel waits here until no request uses a slot of the table any more.
        """
        if self._registered:
            try:
                register.unregister_files(self._fd)
            except OSError as error:
                if error.errno != errno.ENXIO:  # there is none: an interrupt came before it was said
                    raise
            self.release()

    def release(self) -> None:
        """Refuse later uses."""
        self._registered = False

    def check(self) -> None:
        """Raise an exception if the table is gone: its slots are of another one, or of none."""
        if not self._registered:
            raise OutOfOrderError("this file table is not registered any more: make a new one")


def fd_of(file: FileLike, table: FileTable | None) -> tuple[int, int]:
    """The (fd, sqe_flags) of a file: of an fd number, of an object with `fileno()`, of a `Fixed` of `table`."""
    if type(file) is int:
        return file, 0
    if type(file) is Fixed:
        file.table.check()
        if file.table is not table:
            raise OutOfOrderError("this slot is of the file table of another ring, where it is another file")
        return file.slot, _FIXED_FILE
    try:
        fd = file.fileno()  # type: ignore[union-attr]
    except AttributeError:
        if isinstance(file, int):
            return int(file), 0
        raise BufferUseError(f"{type(file).__name__} is no file: use an fd, a socket or file, or a Fixed") from None
    if fd < 0:
        raise OutOfOrderError(f"this {type(file).__name__} is closed")
    return fd, 0
