"""Owned operations that tell another ring something: msg_ring, with data or with a file.

May import everything below ring. What the operations share is in `operations.base`.

The ring that is told gets a completion it did not ask for. Its owner finds it among those of the
raw layer, by a `user_data` that the two agreed on:

    for user_data, res, cqe_flags in target.completions(): ...

`run()` and `run_once()` wake up for it, and leave it there for `completions()` to take. It is the way
to wake a ring of another thread: nothing else of a ring may be used from there.
"""

from __future__ import annotations

from .. import abi
from ..errors import OutOfOrderError, RawuringError
from ..files import Fixed, fd_of
from ..hints import TYPE_CHECKING, Any
from ..inflight import OWNED, Callback, Operation, Waiter
from .base import FixedOperation, OwnedOperations

if TYPE_CHECKING:
    from ..ring import Ring


class PassOperation(FixedOperation):
    """A file on its way to another ring, which is told. Result: its `Fixed` there, which is that ring's."""

    __slots__ = ()

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self.unclaim()

    def unclaim(self) -> None:
        self._taken = True  # the completion over there has it


class RingOperations(OwnedOperations):
    """The owned operations that tell another ring something."""

    __slots__ = ()

    def msg_ring(
        self, target: Ring | int, res: int, user_data: int, *, cqe_flags: int | None = None,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Post a completion (user_data, res, cqe_flags) to another ring. Result: 0. Linux 5.18.

        `target` is a `Ring` or its fd. `user_data` is below 2**63, as all of the raw layer. With `cqe_flags`
        they are those of the completion over there, otherwise 0 (Linux 6.3).
        """
        _check_user_data(user_data)
        if not -(1 << 31) <= res < 1 << 32:
            raise RawuringError(f"the result in a completion has 32 bits, and {res} does not fit: send a number below 2**31")
        if cqe_flags is not None and not 0 <= cqe_flags < 1 << 32:
            raise RawuringError(f"the flags of a completion have 32 bits, and {cqe_flags:#x} does not fit")
        fd, _ = fd_of(target, None)
        if cqe_flags is None:
            return self._queue(Operation, self.sq.prep_msg_ring, (fd, res, user_data, 0), target, callback,
                               sqe_flags)  # fmt: skip
        return self._queue(Operation, self.sq.prep_msg_ring_cqe_flags, (fd, res, user_data, 0, cqe_flags), target,
                           callback, sqe_flags)  # fmt: skip

    def msg_ring_fd(
        self, target: Ring, source: Fixed, user_data: int = 0, *, slot: int = abi.FILE_INDEX_ALLOC,
        notify: bool = True, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> FixedOperation:  # fmt: skip
        """Put the file of a slot of this ring into the file table of another, which picks a slot unless `slot` says it.

        Result: the `Fixed` over there. The other ring gets a completion with `user_data`, whose `res` is
        the slot it picked, or 0. The file belongs to that ring, and stays in this one's slot as well.
        With `notify=False` nobody is told but this operation, and the slot is emptied with it unless
        `wait()` or the callback took it. Linux 6.0.
        """
        _check_user_data(user_data)
        if not isinstance(source, Fixed):
            raise RawuringError(f"only what is in a slot can be passed on, and this is a {type(source).__name__}")
        index, _ = fd_of(source, self._file_table)
        fd, _ = fd_of(target, None)
        table = target._file_table
        if table is None:
            raise OutOfOrderError("the other ring has no file table: make one there with file_table()")
        table.check()
        msg_ring_flags = 0 if notify else int(abi.MsgRing.CQE_SKIP)
        kind = PassOperation if notify else FixedOperation
        return self._queue(kind, self.sq.prep_msg_ring_fd, (fd, index, slot, user_data, msg_ring_flags),
                           ((target, source), table, slot), callback, sqe_flags)  # fmt: skip


def _check_user_data(user_data: int) -> None:
    if not 0 <= user_data < OWNED:
        raise RawuringError(f"the other ring tells messages from its own operations by user_data below 2**63, not {user_data}")
