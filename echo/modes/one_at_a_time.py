"""The modes with one request at a time for each connection, each with a receive buffer of its own.

May import `base.py` and the names of rawuring.

As nothing is received before all is sent, the connection's queue stays empty: a peer that does not read is simply
not read from. A further mode of this family says how it receives and sends.
"""

from __future__ import annotations

import errno
import mmap
import select
import socket
from ctypes import addressof, c_char
from typing import TYPE_CHECKING

from echo.modes.base import KIND, POLL, RECV, SEND, Mode, RingConnection, shut_down
from rawuring import Ring, abi

if TYPE_CHECKING:
    from echo.server import RingServer

NOSIGNAL = int(socket.MSG_NOSIGNAL)
TRY_AGAIN = (-errno.EAGAIN, -errno.EINTR)


class BufferedConnection(RingConnection):
    """A connection and its buffer, of which [start, start + nleft) is still to be sent."""

    __slots__ = ("addr", "nleft", "start")

    addr: int
    nleft: int
    start: int


class Slab:
    """Buffers of one size at fixed addresses, made as they are needed. Pages that were never written take no memory."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._batch = max(1, (4 << 20) // nbytes)
        self._free: list[int] = []
        self._memory: list[tuple[mmap.mmap, c_char]] = []

    def take(self) -> int:
        """The address of a free buffer, the one last used if there is any."""
        if not self._free:
            memory = mmap.mmap(-1, self._batch * self.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            first = c_char.from_buffer(memory)
            self._memory.append((memory, first))
            self._free.extend(addressof(first) + i * self.nbytes for i in reversed(range(self._batch)))
        return self._free.pop()

    def put(self, addr: int) -> None:
        """Give a buffer back."""
        self._free.append(addr)


class RecvSend(Mode[BufferedConnection]):
    """RECV, SEND of what came, RECV, ..."""

    name = "recv-send"
    what = "RECV, then SEND, one at a time"
    needs = "5.6"
    connection_class = BufferedConnection

    def __init__(self, server: RingServer) -> None:
        super().__init__(server)
        self._slab = Slab(server.options.buffer_nbytes)
        self._prep_recv = self.ring.sq.prep_recv
        self._prep_send = self.ring.sq.prep_send

    @classmethod
    def missing(cls, ring: Ring) -> str | None:
        return None if ring.supports(abi.Op.RECV) and ring.supports(abi.Op.SEND) else f"needs Linux {cls.needs}"

    def begin(self, connection: BufferedConnection) -> None:
        connection.addr = self._slab.take()
        self.await_input(connection)

    def release(self, connection: BufferedConnection) -> None:
        self._slab.put(connection.addr)

    def abandon(self, connection: BufferedConnection) -> None:
        connection.lost()
        shut_down(connection.fd)

    def await_input(self, connection: BufferedConnection) -> None:
        """Arm what completes when something has come: the receive itself."""
        self.receive(connection)

    def receive(self, connection: BufferedConnection) -> None:
        """Receive into the connection's buffer."""
        self._prep_recv(connection.fd, connection.addr, self._slab.nbytes, 0, user_data=connection.key + RECV)

    def send(self, connection: BufferedConnection) -> None:
        """Send what is left in the connection's buffer."""
        addr = connection.addr + connection.start
        self._prep_send(connection.fd, addr, connection.nleft, NOSIGNAL, user_data=connection.key + SEND)

    def run(self) -> None:
        server, get = self.server, self.connections.get
        nechoes = nbytes = 0
        for completions in server.turns():
            for user_data, res, cqe_flags in completions:
                kind = user_data & KIND
                connection = get(user_data - kind)
                if connection is None:
                    server.complete(user_data, res, cqe_flags)
                elif kind == RECV and res > 0:
                    connection.start = 0
                    connection.nleft = res
                    self.send(connection)
                    nechoes += 1
                    nbytes += res
                elif kind == SEND and res == connection.nleft:
                    self.await_input(connection)
                elif kind == POLL and res > 0:
                    self.receive(connection)
                else:
                    self._exception(connection, kind, res)
            server.nechoes = nechoes
            server.nbytes = nbytes

    def _exception(self, connection: BufferedConnection, kind: int, res: int) -> None:
        """A short send, the end of the input, an error."""
        if kind == SEND and (res >= 0 or res in TRY_AGAIN):
            sent = max(res, 0)
            connection.start += sent
            connection.nleft -= sent
            self.send(connection)
        elif res in TRY_AGAIN:
            self.await_input(connection)
        else:
            if kind == RECV and res == 0:
                connection.end_of_input()
            else:
                connection.lost()
            self.server.retire(connection)


class PollRecvSend(RecvSend):
    """POLL_ADD, RECV, SEND of what came, POLL_ADD, ..."""

    name = "poll-recv-send"
    what = "POLL_ADD before each RECV, then SEND"

    def await_input(self, connection: BufferedConnection) -> None:
        """Arm what completes when something has come: a poll."""
        self.ring.sq.prep_poll_add(connection.fd, select.POLLIN, user_data=connection.key + POLL)
