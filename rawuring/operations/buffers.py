"""Owned operations on provided buffers of the legacy kind.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

from ..buffers import BufferGroup, ProvidedBuffers
from ..errors import BufferUseError
from ..inflight import Callback, Operation
from .base import OwnedOperations


class BufferOperations(OwnedOperations):
    """The owned operations on provided buffers."""

    __slots__ = ()

    def provide_buffers(
        self, group: ProvidedBuffers, bid: int, count: int, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Give buffers `bid` to `bid + count - 1` of a group (`Ring.provided_buffers`) to the kernel."""
        self._check_group(group)
        if bid < 0 or count < 1 or bid + count > group.count:
            raise BufferUseError(f"this group has the buffers 0 to {group.count - 1}: {count} from {bid} on are not there")
        args = (group.addr_of(bid), group.nbytes, count, group.bgid, bid)
        return self._queue(Operation, self.sq.prep_provide_buffers, args, group, callback, sqe_flags)

    def remove_buffers(
        self, group: BufferGroup, count: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Take up to `count` buffers of a group back from the kernel. Result: how many."""
        self._check_group(group)
        return self._queue(Operation, self.sq.prep_remove_buffers, (count, group.bgid), group, callback, sqe_flags)
