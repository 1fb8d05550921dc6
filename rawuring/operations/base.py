"""What the owned operations stand on.

May import abi, errors, inflight and sq. Never writes an SQE itself.

The keyword arguments that operations share
    callback     called as callback(operation, res, cqe_flags) after the drain that found the
                 completion, in CQ order; a negative `res` is data
    sqe_flags    SqeFlag bits: IO_LINK, IO_DRAIN, ASYNC, ...
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

from ..inflight import Callback, Operation, Prep
from ..sq import SubmissionQueue

Kind = TypeVar("Kind", bound=Operation[Any])


class OwnedOperations:
    """The part of a ring that queues operations with everything they need kept alive."""

    __slots__ = ()

    sq: SubmissionQueue
    """The submission queue: the raw layer's `prep_*` methods."""

    _link_flag: int
    """SqeFlag.IO_LINK inside `Ring.link`, else 0."""

    @abstractmethod
    def _begin(self, name: str, keep: object, callback: Callback | None) -> Operation[int]:
        """Enter an operation into the table and make room for its SQE, which the caller writes next, with `prep_<name>`.

        `_queue` in two steps, which takes half its time, for the operations that programs queue
        by the million.
        """

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
