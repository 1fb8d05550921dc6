"""What the modes with one request at a time for each connection share: each has a receive buffer of its own.

May import `base.py` and the names of rawuring.

As nothing is received before all is sent, the connection's queue stays empty: a peer that does not read is simply
not read from. A mode of this family says how it receives and sends, and whether it polls before it receives.
"""

from __future__ import annotations

import mmap
import select
from ctypes import addressof, c_char
from typing import TYPE_CHECKING, TypeVar

from echo.modes.base import KIND, POLL, RECV, SEND, TRY_AGAIN, Mode, RingConnection

if TYPE_CHECKING:
    from echo.server import RingServer


class BufferedConnection(RingConnection):
    """A connection and its buffer, of which [start, start + nleft) is still to be sent."""

    __slots__ = ("addr", "nleft", "start")

    addr: int
    nleft: int
    start: int


class Slab:
    """Buffers of one size at fixed addresses, made as they are needed. Pages that were never written take no memory."""

    def __init__(self, nbytes: int, batch: int | None = None) -> None:
        self.nbytes = nbytes
        self._batch = batch or max(1, (4 << 20) // nbytes)
        self._free: list[int] = []
        self._pins: list[c_char] = []

    def grow(self) -> mmap.mmap:
        """Make a batch more of them, in one piece of memory."""
        memory = mmap.mmap(-1, self._batch * self.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        first = c_char.from_buffer(memory)
        self._pins.append(first)
        self._free.extend(addressof(first) + i * self.nbytes for i in reversed(range(self._batch)))
        return memory

    def take(self) -> int:
        """The address of a free buffer, the one last used if there is any."""
        if not self._free:
            self.grow()
        return self._free.pop()

    def put(self, addr: int) -> None:
        """Give a buffer back."""
        self._free.append(addr)


B = TypeVar("B", bound=BufferedConnection)


class OneAtATime(Mode[B]):
    """Receive, send what came, receive, ..."""

    polls = False
    """Whether a poll comes before each receive."""

    def __init__(self, server: RingServer) -> None:
        super().__init__(server)
        self._slab = Slab(server.options.buffer_nbytes)

    def begin(self, connection: B) -> None:
        connection.addr = self._slab.take()
        self.prepare(connection)
        self.await_input(connection)

    def prepare(self, connection: B) -> None:
        """The connection has its buffer: do once what is needed to use it."""

    def close(self, connection: B) -> None:
        super().close(connection)
        self._slab.put(connection.addr)

    def abandon(self, connection: B) -> None:
        connection.lost()
        self.shut_down(connection)

    def receive(self, connection: B) -> None:
        """Receive into the connection's buffer."""
        raise NotImplementedError

    def send(self, connection: B) -> None:
        """Send what is left in the connection's buffer."""
        raise NotImplementedError

    def poll(self, connection: B, sqe_flags: int = 0) -> None:
        """Ask for a completion when something can be received."""
        self.ring.sq.prep_poll_add(
            connection.fd, select.POLLIN, user_data=connection.key + POLL, sqe_flags=sqe_flags
        )

    def await_input(self, connection: B) -> None:
        """Arm what completes when something has come."""
        if self.polls:
            self.poll(connection)
        else:
            self.receive(connection)

    def polled(self, connection: B, res: int) -> None:
        """A poll has completed."""
        if res > 0:
            self.receive(connection)
        else:
            self.exception(connection, POLL, res)

    def run(self) -> None:
        server, get = self.server, self.connections.get
        send, await_input, polled = self.send, self.await_input, self.polled
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
                    send(connection)
                    nechoes += 1
                    nbytes += res
                elif kind == SEND and res == connection.nleft:
                    await_input(connection)
                elif kind == POLL:
                    polled(connection, res)
                else:
                    self.exception(connection, kind, res)
            server.nechoes = nechoes
            server.nbytes = nbytes

    def exception(self, connection: B, kind: int, res: int) -> None:
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
