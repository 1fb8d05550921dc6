"""What all modes share: the kinds of completions, a connection on a ring, and what the server asks of a mode.

May import `connection.py` and the names of rawuring. Receives and sends nothing.

`user_data` of a request is the key of its connection plus a kind. A key has the descriptor in its lower half, and above
the kind a number that 2**28 other connections have before it comes again: a completion that comes when its connection is
gone finds nobody, whoever has the descriptor by then.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from echo.connection import Connection
from rawuring import abi

if TYPE_CHECKING:
    from echo.server import RingServer

Cqe = tuple[int, int, int]  # user_data, res, cqe_flags

KEY_STEP = 1 << 35
KEYS_END = 1 << 63
KIND = 7 << 32
RECV, SEND, POLL, ACCEPT, SIGNAL, UNHEEDED, ZERO_COPY, IN_PLACE = range(0, 8 << 32, 1 << 32)
assert RECV == 0, "the hot paths use the user_data of a receive as the key"

F_MORE = int(abi.CqeFlag.MORE)
F_BUFFER = int(abi.CqeFlag.BUFFER)
BUFFER_SHIFT = int(abi.CQE_BUFFER_SHIFT)
SKIP_SUCCESS = int(abi.SqeFlag.CQE_SKIP_SUCCESS)
NOSIGNAL = int(socket.MSG_NOSIGNAL)
TRY_AGAIN = (-errno.EAGAIN, -errno.EINTR)

IOVEC = Struct("=QQ")
MSGHDR = Struct("=16xQQ24x")  # of struct msghdr, msg_iov and msg_iovlen


class RingConnection(Connection):
    """A connection that a ring serves."""

    __slots__ = ("fd", "key")

    def __init__(self, key: int, fd: int) -> None:
        super().__init__()
        self.key = key
        self.fd = fd


C = TypeVar("C", bound=RingConnection)


class Mode(Generic[C]):
    """A way to receive and to send. It never learns how connections come, and says when one is to be closed."""

    name: str
    what: str
    """In a few words, for --list-modes."""
    connection_class: type[C]
    multishot_accept = False

    most_connections: int | None = None
    """How many it can have at once, if it knows."""

    hurry = False
    """Whether there is something to do that no completion will announce: the next wait must be none."""

    nanswered = nanswered_bytes = 0
    """Completions that its taker has dealt with, and what they brought: each was an echo."""

    def __init__(self, server: RingServer) -> None:
        self.server = server
        self.ring = server.ring
        self.connections: dict[int, Any] = server.connections
        self._skip_success = SKIP_SUCCESS if self.ring.features & abi.Feature.CQE_SKIP else 0

    def begin(self, connection: C) -> None:
        """A connection was accepted: arm its first receive."""
        raise NotImplementedError

    def taker(self) -> Callable[[], list[Cqe] | None]:
        """A function for after an enter: what has completed, or None if the mode has dealt with all of it."""
        return self.ring.completions

    def run(self) -> None:
        """Handle all of `server.turns()`; what is not of a connection goes to `server.complete`."""
        raise NotImplementedError

    def close(self, connection: C) -> None:
        """Close a connection that has nothing in flight, and take back its buffers."""
        self.ring.sq.prep_close(connection.fd, user_data=UNHEEDED, sqe_flags=self._skip_success)

    def abandon(self, connection: C) -> None:
        """Give the connection up: it closes as soon as its requests have completed."""
        raise NotImplementedError

    def shut_down(self, connection: C, how: int = socket.SHUT_RDWR) -> None:
        """shutdown(2): requests on the socket complete, or look at it again. Also where it has been reset."""
        sock = socket.socket(fileno=connection.fd)
        try:
            sock.shutdown(how)
        except OSError:
            pass
        finally:
            sock.detach()
