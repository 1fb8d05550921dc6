"""What all modes share: the kinds of completions, a connection on a ring, and what the server asks of a mode.

May import `connection.py` and the names of rawuring. Never queues a request.

`user_data` of a request is the key of its connection plus a kind. No key is used twice, so a completion that comes
when its connection is gone finds nobody, whoever has the file descriptor by then.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from echo.connection import Connection
from rawuring import Ring

if TYPE_CHECKING:
    from echo.server import RingServer

Cqe = tuple[int, int, int]  # user_data, res, cqe_flags

KEY_STEP = 8
KIND = KEY_STEP - 1
RECV, SEND, POLL, ACCEPT, SIGNAL, UNHEEDED = range(6)
assert RECV == 0, "the hot paths use the user_data of a receive as the key"


class RingConnection(Connection):
    """A connection that a ring serves."""

    __slots__ = ("fd", "key")

    def __init__(self, key: int, fd: int) -> None:
        super().__init__()
        self.key = key
        self.fd = fd


def shut_down(fd: int, how: int = socket.SHUT_RDWR) -> None:
    """shutdown(2): requests on the socket complete; nothing happens to one that has been reset."""
    sock = socket.socket(fileno=fd)
    try:
        sock.shutdown(how)
    except OSError:
        pass
    finally:
        sock.detach()


C = TypeVar("C", bound=RingConnection)


class Mode(Generic[C]):
    """A way to receive and to send. It never learns how connections come, and says when one is to be closed."""

    name: str
    what: str
    """In a few words, for --list-modes."""
    needs: str
    """The kernel release that brought it."""
    connection_class: type[C]
    multishot_accept = False

    hurry = False
    """Whether there is something to do that no completion will announce: the next wait must be none."""

    def __init__(self, server: RingServer) -> None:
        self.server = server
        self.ring = server.ring
        self.connections: dict[int, Any] = server.connections

    @classmethod
    def missing(cls, ring: Ring) -> str | None:
        """What this kernel lacks for the mode, None if nothing."""
        raise NotImplementedError

    def begin(self, connection: C) -> None:
        """A connection was accepted: arm its first receive."""
        raise NotImplementedError

    def run(self) -> None:
        """Handle all of `server.turns()`; what is not of a connection goes to `server.complete`."""
        raise NotImplementedError

    def release(self, connection: C) -> None:
        """Take back the buffers of a connection that is about to be closed."""
        raise NotImplementedError

    def abandon(self, connection: C) -> None:
        """Give the connection up: it closes as soon as its requests have completed."""
        raise NotImplementedError
