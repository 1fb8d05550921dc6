"""The echo server on `select.epoll`: what the ring server is measured against, and for where io_uring is blocked.

May import `connection.py` and `service.py`. Never imports rawuring.

A socket with nothing queued is watched edge-triggered, which spares the kernel a second look at it in every poll.
From the first short send until its queue is empty it is watched level-triggered, for just what is wanted.
"""

from __future__ import annotations

import select
import socket
from os import read, write

from echo.connection import Connection
from echo.service import ENDED, Options, Say, Service, Tell

IN, OUT = select.EPOLLIN, select.EPOLLOUT
RDHUP: int = getattr(select, "EPOLLRDHUP", 0x2000)  # PyPy does not name it
EDGE = select.EPOLLIN | RDHUP | select.EPOLLET
ACCEPTS_PER_TURN = 64


class EpollConnection(Connection):
    """A connection, its socket, and the events that epoll was last asked for."""

    __slots__ = ("fd", "sock", "watched")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        self.fd = sock.fileno()
        self.watched = EDGE


class EpollServer(Service[EpollConnection]):
    """Connections are known by descriptor: epoll forgets one when it is closed, so no event reaches its successor."""

    about = "backend epoll"

    def __init__(self, listener: socket.socket, signals: socket.socket, options: Options, say: Say, tell: Tell) -> None:
        super().__init__(listener, signals, options, say, tell)
        self._listener_fd = listener.fileno()
        self._signals_fd = signals.fileno()
        self._epoll = select.epoll()
        self._epoll.register(self._signals_fd, IN)
        self.accept_more()

    def run(self) -> None:
        poll, connections, size = self._epoll.poll, self.connections, self.options.buffer_nbytes
        while self.state != ENDED:
            nechoes = nbytes = 0
            timeout = None if self.alarm is None else self.attend()
            for fd, event in poll(-1 if timeout is None else timeout):  # PyPy's takes no None
                connection = connections.get(fd)
                if connection is None:
                    self._other(fd)
                elif event != IN or connection.nqueued:
                    self._serve(connection, event)
                else:
                    try:
                        data = read(fd, size)
                        try:
                            nsent = write(fd, data)
                        except BlockingIOError:
                            nsent = 0
                    except BlockingIOError:
                        continue
                    except OSError:
                        connection.lost()
                        self._settle(connection)
                        continue
                    nechoes += 1
                    nbytes += len(data)
                    if not 0 < nsent == len(data) < size:  # short, the end, or more is waiting
                        nechoes -= not data
                        self._received(connection, data, nsent)
                        self._settle(connection)
            self.nechoes += nechoes
            self.nbytes += nbytes

    def close(self) -> None:
        self._epoll.close()
        for connection in self.connections.values():
            connection.sock.close()

    def _serve(self, connection: EpollConnection, event: int) -> None:
        """Receive and send once, as far as the connection wants it and epoll reported it."""
        fd = connection.fd
        try:
            if connection.nqueued and event & ~IN:
                connection.sent(write(fd, connection.head()))
            if connection.reading and event & ~OUT:
                data = read(fd, self.options.buffer_nbytes)
                self._received(connection, data, 0)
                self.nechoes += bool(data)
                self.nbytes += len(data)
        except BlockingIOError:
            pass
        except OSError:
            connection.lost()
        self._settle(connection)

    @staticmethod
    def _received(connection: EpollConnection, data: bytes, nsent: int) -> None:
        if not data:
            connection.end_of_input()
        elif nsent < len(data):
            connection.keep(data[nsent:])

    def _settle(self, connection: EpollConnection) -> None:
        """Close the connection, or ask epoll for what it wants now."""
        if connection.finished():
            connection.sock.close()
            self.closed(connection.fd)
            return
        watched = OUT | (IN if connection.reading else 0) if connection.nqueued else EDGE
        if watched == EDGE or watched != connection.watched:  # asking anew for EDGE reports what came in the meantime
            self._epoll.modify(connection.fd, watched)
            connection.watched = watched

    # Accepting, and signals.

    def _other(self, fd: int) -> None:
        if fd == self._listener_fd and self.accepting:
            self._accept()
        elif fd == self._signals_fd:
            self.signalled(self.signals.recv(4096))

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if self.full():
                self._pause()
                return
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._pause()
                self.accept_failed(error.errno or 0)
                return
            sock.setblocking(False)
            self.opened(sock.fileno(), EpollConnection(sock))
            self._epoll.register(sock, EDGE)

    def _pause(self) -> None:
        self._epoll.unregister(self._listener_fd)
        self.accepting = False

    def accept_more(self) -> None:
        """Watch the listener."""
        self._epoll.register(self._listener_fd, IN)
        self.accepting = True

    def accept_no_more(self) -> None:
        """Close the listener; who waits in its backlog is refused."""
        if self.accepting:
            self._pause()
        self.listener.close()

    def stop_reading(self, connection: EpollConnection) -> None:
        """Shut down receiving; epoll reports that as it reports the end of a peer's input."""
        try:
            connection.sock.shutdown(socket.SHUT_RD)
        except OSError:
            self.abandon(connection)

    def abandon(self, connection: EpollConnection) -> None:
        """Close it."""
        connection.lost()
        self._settle(connection)
