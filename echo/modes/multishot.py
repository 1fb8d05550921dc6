"""The modes in which one receive per connection stays armed, into a provided-buffer ring.

May import `pooled.py`, `columns.py`, `base.py`, `trials.py` and the names of rawuring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from echo.modes import trials
from echo.modes.base import RECV, UNHEEDED
from echo.modes.columns import Columns
from echo.modes.pooled import Lent, Pool, Pooled, PooledConnection
from rawuring import abi

if TYPE_CHECKING:
    from echo.server import RingServer

POLL_FIRST = int(abi.RecvSend.POLL_FIRST)
BUNDLE = int(abi.RecvSend.BUNDLE)


class Multishot(Pooled):
    """Multishot accept, multishot receive into a provided-buffer ring, sends from its buffers."""

    name = "multishot"
    what = "multishot accept and receive, into a shared ring of buffers"
    multishot_accept = True
    ioprio = POLL_FIRST

    def __init__(self, server: RingServer) -> None:
        super().__init__(server)
        if self._silent:
            self._columns = Columns(self, min(self.pool.count, self.ring.entries, self.ring.cq.entries - 1))

    def make_pool(self, count: int, nbytes: int) -> Pool:
        return self.ring.buffer_ring(count, nbytes)

    def arm(self, connection: PooledConnection) -> None:
        self.ring.sq.prep_recv_multishot(
            connection.fd, 0, 0, 0, buf_group=self.pool.bgid, user_data=connection.key + RECV, ioprio=self.ioprio
        )

    def disarm(self, connection: PooledConnection) -> None:
        self.ring.sq.prep_cancel(connection.key + RECV, 0, user_data=UNHEEDED)


class Bundle(Multishot):
    """A completion brings as many buffers as there is data for; they are sent together.

    They lie in the ring one after the other, in the order in which they were given back, and all but the last are full.
    Where the kernel shortens buffers, what brings no more than fits into one may be in two all the same: nothing is an
    ordinary echo there.

    What a bundle brought is sent by one SENDMSG, not by a bundle: that would take whatever is first in a group, which
    is right only where each connection has a group of its own.
    """

    name = "bundle"
    what = "multishot, where a completion may fill several buffers"
    ioprio = POLL_FIRST | BUNDLE

    def __init__(self, server: RingServer) -> None:
        whole_buffers = trials.has(server.ring, "whole_buffers")
        super().__init__(server)
        if not whole_buffers:
            self.ordinary_nbytes = 0

    def make_pool(self, count: int, nbytes: int) -> Pool:
        self._buffers = self.ring.buffer_ring(count, nbytes)
        self._buffers.follow()
        return self._buffers

    def received_much(self, res: int, cqe_flags: int) -> list[Lent]:
        located = self._buffers.locate(0, res, cqe_flags)
        return [(bid, nbytes) for bid, _, nbytes in self._buffers.parts(res, located)]
