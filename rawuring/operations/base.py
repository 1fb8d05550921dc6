"""What the owned operations stand on.

May import everything below ring. Never writes an SQE itself.

The keyword arguments that operations share
    callback     called as callback(operation, res, cqe_flags) after the drain that found the
                 completion, in CQ order; a negative `res` is data
    sqe_flags    SqeFlag bits: IO_LINK, IO_DRAIN, ASYNC, ...; not CQE_SKIP_SUCCESS, since an
                 operation is in flight until its completion
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

from .. import abi
from ..buffers import BufferGroup, BufferRing, ProvidedBuffers, RegisteredBuffers
from ..errors import BufferUseError, OutOfOrderError
from ..files import FileTable
from ..inflight import Callback, Operation, Prep
from ..sq import SubmissionQueue

Kind = TypeVar("Kind", bound=Operation[Any])


class OwnedOperations:
    """The part of a ring that queues operations with everything they need kept alive."""

    __slots__ = ("_last_token",)

    sq: SubmissionQueue
    """The submission queue: the raw layer's `prep_*` methods."""

    _link_flag: int
    """SqeFlag.IO_LINK inside `Ring.link`, else 0."""

    _groups: dict[int, BufferRing | ProvidedBuffers]
    _registered_buffers: RegisteredBuffers | None
    _file_table: FileTable | None

    _last_token: int
    """Of the operations. Counts up, and is never reused."""

    @abstractmethod
    def _begin(self, token: int, name: str, keep: object, callback: Callback | None) -> Operation[int]:
        """Make room for an SQE and enter an operation into the table. The caller writes the SQE next, with `prep_<name>`.

        For the operations that programs queue by the million: `_queue` takes twice the time. The
        table comes first and the SQE last, so that the kernel never knows of an operation that
        the table does not hold, whatever interrupts us; `_unqueue` mends the opposite.
        """

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
        **fields: int,
    ) -> Kind:
        """Enter an operation into the table, then write its SQE. Submits first if the SQ is full."""

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

    def _check_buffers(self, buffers: RegisteredBuffers) -> None:
        if buffers is not self._registered_buffers:
            raise OutOfOrderError("these buffers are registered with another ring, or not any more")

    def _check_table(self, table: FileTable) -> None:
        table.check()
        if table is not self._file_table:
            raise OutOfOrderError("this file table is of another ring")
