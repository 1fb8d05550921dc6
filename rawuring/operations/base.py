"""What the owned operations stand on.

May import everything below ring. Never writes an SQE itself.

The keyword arguments that operations share
    callback     called as callback(operation, res, cqe_flags) after the drain that found the
                 completion, in CQ order; a negative `res` is data
    sqe_flags    SqeFlag bits: IO_LINK, IO_DRAIN, ASYNC, ...; not CQE_SKIP_SUCCESS, since an
                 operation is in flight until its completion
"""

from __future__ import annotations

import os
from abc import abstractmethod
from operator import index

from .. import abi
from ..buffers import BufferGroup, BufferRing, IncrementalRing, Pin, ProvidedBuffers, RegisteredBuffers, pin_readable
from ..errors import BufferUseError, OutOfOrderError
from ..files import FileTable, Fixed, HasFileno, fd_of
from ..hints import Any, TypeVar
from ..inflight import (
    BufferOperation,
    BufferStream,
    Callback,
    Operation,
    Outcome,
    Prep,
    Stream,
    Value,
    ValueOperation,
    Waiter,
)
from ..sq import SubmissionQueue

Kind = TypeVar("Kind", bound=Operation[Any])
PathName = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def pin_path(path: PathName) -> Pin:
    """Pin a path, zero-terminated as the kernel reads it."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("embedded null byte in the path")
    return pin_readable(encoded + b"\0")


def dirfd_of(dir_fd: int | None) -> int:
    """The SQE's form of the directory that a path is relative to: None is the working directory."""
    return abi.AT_FDCWD if dir_fd is None else index(dir_fd)


def plain_fd(file: int | HasFileno) -> int:
    """The number of a file where the kernel takes no slot of a file table."""
    if isinstance(file, Fixed):
        raise BufferUseError("this operation takes no slot of a file table here: fixed_fd_install gives the file an fd")
    return fd_of(file, None)[0]


class MemoryOperation(ValueOperation[Value]):
    """An operation whose result the kernel writes into memory of its own: the last thing that is kept for it.

    Its callback asks `wait()` for the result, which is there at once.
    """

    __slots__ = ("_memory",)

    _memory: bytearray

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        *_, self._memory = keep


class FixedOperation(ValueOperation[Fixed]):
    """An operation whose result is a slot of a file table.

    A slot that the kernel picked and that nobody took is emptied with the operation.
    """

    __slots__ = ("table", "slot", "_taken")

    table: FileTable
    slot: int  # the one asked for, or FILE_INDEX_ALLOC

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        _, self.table, self.slot = keep
        self._taken = self.slot != abi.FILE_INDEX_ALLOC

    def wait_cqe(self, timeout_ns: int | None = None) -> Outcome:
        outcome = super().wait_cqe(timeout_ns)
        self._taken = True
        return outcome

    def claim(self) -> None:
        self._taken = True

    def unclaim(self) -> None:
        self._taken = self.slot != abi.FILE_INDEX_ALLOC

    def _value(self, res: int, cqe_flags: int) -> Fixed:
        fixed = self.table[res if self.slot == abi.FILE_INDEX_ALLOC else self.slot]
        self._taken = True; return fixed  # fmt: skip

    def __del__(self) -> None:
        cqe = getattr(self, "cqe", None)
        if cqe is not None and cqe[1] >= 0 and not getattr(self, "_taken", True):
            self.table.drop(cqe[1])


class FixedStream(Stream[int]):
    """A stream of slots of a file table. Those that nobody took are emptied with the operation."""

    __slots__ = ("table",)

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self.table: FileTable
        _, self.table = keep

    def discard(self, res: int, cqe_flags: int) -> None:
        if res >= 0:
            self.table.drop(res)

    def __del__(self) -> None:
        self._discard_rest()


class OwnedOperations:
    """The part of a ring that queues operations with everything they need kept alive."""

    __slots__ = ("_last_token", "_locates", "_expects_large")

    sq: SubmissionQueue
    """The submission queue: the raw layer's `prep_*` methods."""

    _link_flag: int
    """SqeFlag.IO_LINK inside `Ring.link`, else 0."""

    _inflight: dict[int, Operation[Any]]
    _groups: dict[int, BufferRing | ProvidedBuffers]
    _registered_buffers: RegisteredBuffers | None
    _file_table: FileTable | None

    _last_token: int
    """Of the operations. Counts up, and is never reused."""

    _locates: bool
    """Does the data of any completion lie where only the completions before it can tell?"""

    _expects_large: bool
    """Is the second half of any completion of interest?"""

    features: abi.Feature
    """What the kernel says it can do."""

    setup_flags: abi.Setup
    """What was granted."""

    _fd: int
    """The ring's, or its registered index."""

    @abstractmethod
    def submit(self) -> int:
        """Hand what is queued to the kernel."""

    @abstractmethod
    def _hand_over(self, timeout_ns: int | None) -> None:
        """Submit, and wait until the kernel has taken everything, which an SQ thread does when it comes to it."""

    @abstractmethod
    def lacks(self, name: str) -> str | None:
        """The release that what `name` stands for needs, if this kernel is older."""

    @abstractmethod
    def supports(self, op: abi.Op) -> bool:
        """Does this kernel have the operation?"""

    @abstractmethod
    def _begin(self, token: int, name: str, keep: object, callback: Callback | None) -> Operation[int]:
        """Make room for an SQE and enter an operation into the table. The caller writes the SQE next, with `prep_<name>`.

        For the operations that programs queue by the million: `_queue` takes twice the time. The
        table comes first and the SQE last, so that the kernel never knows of an operation that
        the table does not hold, whatever interrupts us; `_unqueue` mends the opposite.
        """

    @abstractmethod
    def _make_room(self, entries: int) -> None:
        """Submit, so that there is room for so many SQEs. Refuses to cut a chain."""

    @abstractmethod
    def _unqueue(self, token: int) -> None:
        """After an exception: forget the operation, and take back its SQE if it was written."""

    @abstractmethod
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
        """Enter an operation into the table, then write its SQE. Submits first if the SQ is full.

        `form` is what errors call it, if not by the name of its encoder.
        """

    def _join_flags(self, sqe_flags: int, fixed: int) -> int:
        """The flags of an SQE: those that were asked for, that of a slot of a file table, and that of a chain."""
        if sqe_flags:
            self._check_sqe_flags(sqe_flags)
        return sqe_flags | fixed | self._link_flag

    def _check_sqe_flags(self, sqe_flags: int) -> None:
        if sqe_flags & abi.SqeFlag.CQE_SKIP_SUCCESS:
            raise OutOfOrderError("an owned operation ends with its completion: CQE_SKIP_SUCCESS is for the raw layer")
        if sqe_flags & abi.SqeFlag.BUFFER_SELECT:
            raise OutOfOrderError("BUFFER_SELECT ignores the buffer: use recv_select, read_select or recv_multishot")

    # Each ring counts its tokens, groups and slots from the same start: those of another would fit, and be wrong.

    def _check_operation(self, operation: Operation[Any]) -> None:
        ring: object = operation._ring
        if ring is not self:
            raise OutOfOrderError(f"this {operation.name} is an operation of another ring: ask that one")

    def _check_group(self, group: BufferGroup) -> None:
        if not isinstance(group, BufferGroup):
            raise BufferUseError(
                f"{type(group).__name__} is no group of buffers: use what Ring.buffer_ring or provided_buffers made"
            )
        if self._groups.get(group.bgid) is not group:
            raise OutOfOrderError("this group of buffers is closed, or of another ring")

    def _check_receives(
        self, kind: type[Operation[Any]], pool: BufferGroup, sqe_flags: int, *, bundle: bool = False
    ) -> None:
        """Check a group that an operation of this kind is to receive into."""
        self._check_group(pool)
        pool.check_receives(sqe_flags, bundle=bundle)
        self._check_kind(kind, pool)

    def _check_kind(self, kind: type[Operation[Any]], pool: BufferGroup) -> None:
        """Refuse what would complete out of order with a receive in flight, where that mixes up the data."""
        if not isinstance(pool, IncrementalRing) or pool.in_order:
            return
        is_stream = issubclass(kind, Stream)
        for other in self._inflight.values():
            if isinstance(other, (BufferOperation, BufferStream)) and other.pool is pool:
                if isinstance(other, Stream) is not is_stream:
                    raise OutOfOrderError(
                        f"on this kernel the completions of streams overtake those of other receives, such as the {other.name} "
                        "in flight, which would mix up the data in incremental buffers (mended in Linux 6.15, and in later "
                        "ones of 6.12 and 6.14): give each kind a group of its own"
                    )

    def _check_buffers(self, buffers: RegisteredBuffers) -> None:
        if buffers is not self._registered_buffers:
            raise OutOfOrderError("these buffers are registered with another ring, or not any more")

    def _prepare_table(self, table: FileTable) -> None:
        """Check a table that an operation is to fill, and empty the slots that nobody took: not later, with what it puts there.

        The last step before queueing: the `fileno()` or path of a caller's object may do anything to the table.
        """
        table.check()
        if table is not self._file_table:
            raise OutOfOrderError("this file table is of another ring")
        table.reclaim()
