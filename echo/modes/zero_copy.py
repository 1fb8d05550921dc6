"""The mode in which large messages are sent without a copy: SEND_ZC and SENDMSG_ZC, from the buffers of the pool.

May import `multishot.py`, `pooled.py`, `base.py` and the names of rawuring.

Such a send has two completions: of the second, the notification, it is known that nobody reads its buffers any more,
neither the network card nor a retransmission. Until then they stay lent, and a connection that ends well stays open.
A peer that does not read holds buffers that way, so only half of the pool is ever sent without a copy.

The name of such a send is its first buffer, which is lent once at a time, and not its connection.
"""

from __future__ import annotations

import errno
import socket
from struct import Struct
from typing import TYPE_CHECKING

from echo.modes.base import BUFFER_SHIFT, F_MORE, KIND, ZERO_COPY
from echo.modes.multishot import Multishot
from echo.modes.pooled import AT_ONCE, Gathered, Lent, PooledConnection
from rawuring import abi

if TYPE_CHECKING:
    from echo.server import RingServer

LINGER = Struct("ii")

F_NOTIF = int(abi.CqeFlag.NOTIF)
CANNOT_PIN = (-errno.ENOMEM, -errno.ENOBUFS)
"""More memory would be pinned than the user or the socket may have: it has to be copied."""

COPIED_NBYTES = 16 * 1024 - 1
"""Up to here a message is copied, which costs less than to pin its pages and to take a second completion."""


class ZeroCopy(Multishot):
    """Multishot, where large messages are not copied when they are sent."""

    name = "zero-copy"
    what = "multishot, and SEND_ZC for large messages"

    def __init__(self, server: RingServer) -> None:
        super().__init__(server)
        self.ordinary_nbytes = min(self.ordinary_nbytes, COPIED_NBYTES)
        self._read: dict[int, tuple[PooledConnection, list[Lent]]] = {}  # by first buffer: what somebody may still read
        self._nread = 0  # how many buffers these are

    def received_much(self, res: int, cqe_flags: int) -> list[Lent]:
        return [(cqe_flags >> BUFFER_SHIFT, res)]

    def send_from_pool(self, connection: PooledConnection, lent: list[Lent]) -> None:
        nbytes = sum(nbytes for _, nbytes in lent)
        if nbytes <= COPIED_NBYTES or self._nread + len(lent) > self.pool.count // 2:
            super().send_from_pool(connection, lent)
            return
        connection.bid = bid = lent[0][0]
        connection.nlent = nbytes
        self._read[bid] = connection, lent
        self._nread += len(lent)
        connection.nread += 1
        user_data = ZERO_COPY | bid
        if len(lent) == 1:
            addr = self.pool.addr_of(bid)
            self.ring.sq.prep_send_zc(connection.fd, addr, nbytes, AT_ONCE, 0, user_data=user_data)
        else:
            gathered = connection.gathered = Gathered(self.pool, lent)
            self.ring.sq.prep_sendmsg_zc(connection.fd, gathered.addr, AT_ONCE, user_data=user_data)
        self._occupy(connection)
        connection.sending = True

    def other(self, user_data: int, res: int, cqe_flags: int) -> None:
        if user_data & KIND != ZERO_COPY:
            super().other(user_data, res, cqe_flags)
            return
        bid = user_data - ZERO_COPY
        connection, lent = self._read[bid]
        if not cqe_flags & F_MORE:
            del self._read[bid]
            self._nread -= len(lent)
            self.lent.extend(bid for bid, _ in lent)
            connection.nread -= 1
        if not cqe_flags & F_NOTIF:
            self._sent(connection, -errno.EAGAIN if res in CANNOT_PIN else res)
        elif connection.finished() and self.connections.get(connection.key) is connection:
            self._settle(connection)

    def abandon(self, connection: PooledConnection) -> None:
        # A reset when it is closed: the kernel drops what the peer has not read, and reads our buffers no more.
        sock = socket.socket(fileno=connection.fd)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER.pack(1, 0))
        sock.detach()
        super().abandon(connection)
