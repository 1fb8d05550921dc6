"""The mode that receives into a group of buffers of the legacy kind, one receive at a time.

May import `pooled.py`, `base.py`, `trials.py` and the names of rawuring.

Giving buffers back is a request. Who has nothing to receive must hold none of them: the receive polls first, which it
can by itself from Linux 5.19 on; before, a POLL_ADD is queued in its place.
"""

from __future__ import annotations

import mmap
import select
from ctypes import addressof, c_char
from typing import TYPE_CHECKING

from echo.modes import trials
from echo.modes.base import KIND, POLL, RECV, UNHEEDED
from echo.modes.pooled import Pool, Pooled, PooledConnection
from rawuring import abi

if TYPE_CHECKING:
    from echo.server import RingServer

BUFFER_SELECT = int(abi.SqeFlag.BUFFER_SELECT)
POLL_FIRST = int(abi.RecvSend.POLL_FIRST)
BGID = 0


class LegacyGroup:
    """A group of the legacy kind: buffers of one size, side by side."""

    bgid = BGID

    def __init__(self, server: RingServer, count: int, nbytes: int, sqe_flags: int) -> None:
        self.count = count
        self.nbytes = nbytes
        self._server = server
        self._sqe_flags = sqe_flags
        memory = mmap.mmap(-1, count * nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(memory)
        self._first = c_char.from_buffer(memory)
        self._provide(0, count)

    def addr_of(self, bid: int) -> int:
        """Where a buffer is."""
        return addressof(self._first) + bid * self.nbytes

    def view(self, bid: int, nbytes: int) -> memoryview:
        """The first bytes of a buffer."""
        start = bid * self.nbytes
        return self._view[start : start + nbytes]

    def give_back(self, bids: list[int]) -> None:
        """Let the kernel have buffers again: a request for each run of neighbours."""
        first = end = -1
        for bid in sorted(bids):
            if bid != end:
                if first >= 0:
                    self._provide(first, end - first)
                first = bid
            end = bid + 1
        if first >= 0:
            self._provide(first, end - first)

    def _provide(self, bid: int, count: int) -> None:
        self._server.make_room()
        self._server.ring.sq.prep_provide_buffers(
            self.addr_of(bid), self.nbytes, count, BGID, bid, user_data=UNHEEDED, sqe_flags=self._sqe_flags
        )


class ProvidedBuffers(Pooled):
    """RECV into a buffer that the kernel picks; SEND from there."""

    name = "provided-buffers"
    what = "RECV into a buffer of a shared group (the legacy kind), then SEND"

    def __init__(self, server: RingServer) -> None:
        self._poll_first = trials.has(server.ring, "recv_poll_first")
        super().__init__(server)

    def make_pool(self, count: int, nbytes: int) -> Pool:
        return LegacyGroup(self.server, count, nbytes, self._skip_success)

    def arm(self, connection: PooledConnection) -> None:
        if self._poll_first:
            self._recv(connection, POLL_FIRST)
        else:
            self.ring.sq.prep_poll_add(connection.fd, select.POLLIN, user_data=connection.key + POLL)

    def _recv(self, connection: PooledConnection, ioprio: int = 0) -> None:
        self.ring.sq.prep_recv(
            connection.fd, 0, self.pool.nbytes, 0, ioprio=ioprio, buf_group=BGID,
            user_data=connection.key + RECV, sqe_flags=BUFFER_SELECT,
        )  # fmt: skip

    def other(self, user_data: int, res: int, cqe_flags: int) -> None:
        connection = self.connections.get(user_data - POLL) if user_data & KIND == POLL else None
        if connection is not None and res > 0:
            self._recv(connection)
        else:
            super().other(user_data, res, cqe_flags)
