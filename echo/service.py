"""What both echo servers do alike: the listening socket, signals, pauses in accepting, the grace period, statistics.

May import the standard library, `connection.py` and `counts.py`; never sends, receives or accepts.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Generic, TypeVar

from echo.connection import Connection
from echo.counts import Counts

ACCEPT_PAUSE = 0.1
"""Seconds without accepting after the process ran out of descriptors or memory; trying again at once would spin."""

OUT_OF_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""accept() errors that pass when something is closed."""

OF_THE_PEER = frozenset({
    errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENONET, errno.EINTR, errno.EAGAIN,
})
"""accept() errors that belong to the connection which was about to be accepted, see accept(2)."""

GIVE_UP_SECONDS = 1.0
"""How long what is abandoned may take to end."""

RUNNING, STOPPING, GIVING_UP, ENDED = range(4)


class EchoError(Exception):
    """Something that the user can put right: its text says what, in one line."""

    status = 1


class UsageError(EchoError):
    """The command line asks for something that does not exist."""

    status = 2


@dataclass(frozen=True)
class Options:
    """What the command line says of a server; where it listens, its listener knows."""

    mode: str = "auto"
    max_connections: int | None = None
    buffers: int = 128
    buffer_nbytes: int = 64 * 1024
    sqpoll: bool = False
    grace: float = 2.0
    stats: float | None = None


# ---------------------------------------------------------------------------------------------- the listening socket


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket to listen on, whose accepted sockets inherit TCP_NODELAY and SO_KEEPALIVE.

    With `shared` others may be bound to the same port, if they are so too.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"cannot resolve {host!r} ({_reason(error)}): use an address such as 127.0.0.1") from None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise EchoError(f"cannot open a socket for {host!r}: {_reason(error)}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _explain(error, host, port) from None
    return sock


def listen(host: str, port: int, backlog: int, *, shared: bool = False) -> socket.socket:
    """The same, listening."""
    sock = bind(host, port, shared=shared)
    try:
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _explain(error, host, port) from None
    return sock


def _explain(error: OSError, host: str, port: int) -> EchoError:
    if error.errno == errno.EADDRINUSE:
        return EchoError(
            f"port {port} on {host} is taken: stop what listens there (ss -ltnp shows it), or choose another, "
            "0 for any free one"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"{host} is not an address of this machine (ip addr shows them): use 127.0.0.1, or 0.0.0.0 for all of them"
        )
    if error.errno == errno.EACCES:
        return EchoError(f"not allowed to listen on port {port}: ports below 1024 need root, choose a higher one")
    return EchoError(f"cannot listen on {host} port {port}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def address_of(listener: socket.socket) -> str:
    """Where it listens, as people write it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# ----------------------------------------------------------------------------------------------------------- signals


class Signals:
    """SIGINT and SIGTERM as bytes that arrive at the socket `reader`, so that a server waits for them as for a peer.

    The interpreter's C handler writes the byte at once, wherever the program is: no signal falls between a last look
    at a flag and the wait.
    """

    CAUGHT = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {signum: signal.signal(signum, self._ignore) for signum in self.CAUGHT}

    @staticmethod
    def _ignore(signum: int, frame: FrameType | None) -> None:
        """Only a signal with a Python handler reaches the wake-up descriptor."""

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self.reader.close()
        self._writer.close()


# ------------------------------------------------------------------------------------------------------- the service

C = TypeVar("C", bound=Connection)
Say = Callable[[str], None]
Tell = Callable[[Counts], None]


class Service(Generic[C]):
    """The life of a server. A subclass has the loop, and does the things whose body is `...` here."""

    about = ""
    """How it serves and why so, for the first line."""

    def __init__(self, listener: socket.socket, signals: socket.socket, options: Options, say: Say, tell: Tell) -> None:
        """`signals` is where numbers of signals arrive, each a byte; `tell` is given the counts every `options.stats`."""
        self.listener = listener
        self.address = address_of(listener)
        self.signals = signals
        self.options = options
        self.say = say
        self.tell = tell
        self._said_full = False  # once is enough
        self.state = RUNNING
        self.stopped_by = ""
        self.connections: dict[int, C] = {}
        self.accepting = False
        self.most_connections = options.max_connections

        self.nconnections = 0
        self.nechoes = 0
        self.nbytes = 0

        self.alarm: float | None = None
        """When `attend` must be called next; None spares the loop the call."""
        self._resume_at: float | None = None
        self._end_at: float | None = None
        self._report_at = None if options.stats is None else time.monotonic() + options.stats
        self._set_alarm()

    # What a subclass does.

    def accept_more(self) -> None:
        """Start to accept."""
        ...

    def accept_no_more(self) -> None:
        """Stop to accept, for good."""
        ...

    def stop_reading(self, connection: C) -> None:
        """End the input of a connection: what the socket has already received is still read, then the end of file."""
        ...

    def abandon(self, connection: C) -> None:
        """End a connection, whatever is queued."""
        ...

    def run(self) -> None:
        """Serve until the state is ENDED."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...

    # Connections.

    def full(self) -> bool:
        """Whether another connection would be one too many."""
        return self.most_connections is not None and len(self.connections) >= self.most_connections

    def opened(self, key: int, connection: C) -> None:
        """A connection was accepted."""
        self.connections[key] = connection
        self.nconnections += 1

    def closed(self, key: int) -> None:
        """A connection has given back its descriptor, or is about to: there is room for the next."""
        del self.connections[key]
        if self.state == RUNNING:
            if not self.accepting and not self.full():
                self.accept_more()
        elif not self.connections:
            self.state = ENDED

    def accept_failed(self, error: int) -> None:
        """accept() failed and is not armed any more."""
        self.accepting = False
        if error in OUT_OF_ROOM:
            if not self._said_full:
                self._said_full = True
                self.say(f"Accepting pauses at {len(self.connections)} connections: {os.strerror(error)}. Others wait.")
            self._resume_at = time.monotonic() + ACCEPT_PAUSE
            self._set_alarm()
        elif error in OF_THE_PEER:
            self.accept_more()
        else:
            raise EchoError(f"cannot accept connections any more: {os.strerror(error)}")

    # Stopping.

    def signalled(self, signums: bytes) -> None:
        """Signals came: the first begins the grace period, the next ends it. None come any more: nobody is there."""
        if not signums:
            self.state = ENDED
        for signum in signums:
            if signum not in Signals.CAUGHT:
                continue
            if self.state == RUNNING:
                self.stopped_by = signal.Signals(signum).name
                self._stop()
            else:
                self._give_up()

    def _stop(self) -> None:
        self.state = STOPPING
        self._resume_at = None
        self._end_at = time.monotonic() + self.options.grace
        self._set_alarm()
        self.accept_no_more()
        self._end_all(self.stop_reading)

    def _give_up(self) -> None:
        if self.state == STOPPING:
            self.state = GIVING_UP
            self._end_at = time.monotonic() + GIVE_UP_SECONDS
            self._set_alarm()
            self._end_all(self.abandon)
        else:
            self.state = ENDED

    def _end_all(self, end: Callable[[C], None]) -> None:
        for connection in tuple(self.connections.values()):
            end(connection)
        if not self.connections:
            self.state = ENDED

    # Time.

    def attend(self) -> float | None:
        """Do what is due by now; the seconds until the next time, None for never."""
        now = time.monotonic()
        if self._resume_at is not None and now >= self._resume_at:
            self._resume_at = None
            if not self.accepting and not self.full():
                self.accept_more()
        if self._end_at is not None and now >= self._end_at:
            self._end_at = None
            self._give_up()
        if self._report_at is not None and now >= self._report_at:
            assert self.options.stats is not None
            self._report_at = now + self.options.stats
            self.tell(self.counts())
        self._set_alarm()
        if self.state == ENDED:
            return 0.0
        return None if self.alarm is None else max(0.0, self.alarm - now)

    def _set_alarm(self) -> None:
        times = [at for at in (self._resume_at, self._end_at, self._report_at) if at is not None]
        self.alarm = min(times, default=None)

    # Statistics.

    def counts(self) -> Counts:
        """What was done from the start to now."""
        return Counts(len(self.connections), self.nconnections, self.nechoes, self.nbytes)
