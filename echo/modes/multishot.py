"""The modes in which one receive per connection stays armed, into a provided-buffer ring.

May import `pooled.py`, `base.py` and the names of rawuring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from echo.modes.base import RECV, UNHEEDED
from echo.modes.pooled import BUFFER_SHIFT, Lent, Pool, Pooled, PooledConnection
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

    def make_pool(self, count: int, nbytes: int) -> Pool:
        return self.ring.buffer_ring(count, nbytes)

    def arm(self, connection: PooledConnection) -> None:
        self.ring.sq.prep_recv_multishot(
            connection.fd, 0, 0, 0, buf_group=self._pool.bgid, user_data=connection.key + RECV, ioprio=self.ioprio
        )

    def disarm(self, connection: PooledConnection) -> None:
        self.ring.sq.prep_cancel(connection.key + RECV, 0, user_data=UNHEEDED)


class Bundle(Multishot):
    """A completion brings as many buffers as there is data for; they are sent together.

    They lie in the ring one after the other, in the order in which they were given back, and all but the last are full.

    What a bundle brought is sent by one SENDMSG, not by a bundle: that would take whatever is first in a group, which
    is right only where each connection has a group of its own.
    """

    name = "bundle"
    what = "multishot, where a completion may fill several buffers"
    ioprio = POLL_FIRST | BUNDLE

    def __init__(self, server: RingServer) -> None:
        super().__init__(server)
        self._following = [*range(1, self._pool.count), 0]  # by bid: which was given back after it
        self._last = self._pool.count - 1  # the one given back last

    def give_back(self, bids: list[int]) -> None:
        for bid in bids:
            self._following[self._last] = bid
            self._last = bid
        super().give_back(bids)

    def received_much(self, res: int, cqe_flags: int) -> list[Lent]:
        lent, bid, size = [], cqe_flags >> BUFFER_SHIFT, self._pool.nbytes
        for start in range(0, res, size):
            lent.append((bid, min(res - start, size)))
            bid = self._following[bid]
        return lent
