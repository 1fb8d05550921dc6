"""A load over streams on select.epoll: runs everywhere.

Imports its neighbours and the standard library.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence

from tools.load_parts.streams import DEAF_PIECE, Connection, Deaf, Shape, Streams


class EpollStreams(Streams):
    """One recv and one send per message, and an epoll_wait per turn."""

    backend = "epoll"

    def __init__(self, socks: Sequence[socket.socket], shape: Shape, deaf: Sequence[socket.socket] = ()) -> None:
        super().__init__(socks, shape, deaf)
        self.by_fd: dict[int, Connection | Deaf] = {}
        self.epoll = select.epoll()
        for connection in self.connections:
            self.watch(connection, select.EPOLLIN)
        for peer in self.deaf:
            self.watch(peer, select.EPOLLOUT)

    def watch(self, connection: Connection | Deaf, events: int) -> None:
        connection.sock.setblocking(False)
        self.by_fd[connection.fd] = connection
        self.epoll.register(connection.fd, events)

    def close(self) -> None:
        self.epoll.close()

    def send(self, connection: Connection) -> None:
        if connection.sending:
            return
        at = (self.at[connection.index] + connection.in_flight) % self.period
        message = self.block[at : at + min(connection.due, self.most)]
        try:
            nbytes = connection.sock.send(message)
        except BlockingIOError:
            nbytes = 0
        except OSError as error:
            self.ended(connection, str(error))
        connection.expected = message if self.single and nbytes == self.size else b""
        self.sent(connection, nbytes)
        if connection.due:
            connection.sending = 1
            self.epoll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def send_deaf(self, peer: Deaf) -> None:
        try:
            peer.left -= peer.sock.send(self.block[: min(peer.left, DEAF_PIECE)])
        except BlockingIOError:
            return
        except OSError:
            peer.gone = True
        if peer.gone or not peer.left:
            self.epoll.unregister(peer.fd)

    def event(self, connection: Connection | Deaf, event: int) -> None:
        """Whatever epoll reports of one connection."""
        if isinstance(connection, Deaf):
            self.send_deaf(connection)
            return
        if event & select.EPOLLOUT:
            connection.sending = 0
            self.epoll.modify(connection.fd, select.EPOLLIN)
        if event & ~select.EPOLLOUT:
            try:
                data = connection.sock.recv(self.most)
            except OSError as error:
                self.ended(connection, str(error))
            if not data:
                self.ended(connection, "the server closed it")
            self.received(connection, data)
        if connection.due:
            self.send(connection)

    def turn(self, timeout_ns: int | None = None) -> None:
        # epoll_wait counts whole milliseconds: for less it is asked again and again.
        events = self.epoll.poll(None if timeout_ns is None else timeout_ns // 1_000_000 / 1000)
        self.begin_turn()
        for fd, event in events:
            self.event(self.by_fd[fd], event)

    def run(self, until_ns: int) -> None:
        if not self.single:
            return super().run(until_ns)
        block, period, size, by_fd, at, sent_ns = self.block, self.period, self.size, self.by_fd, self.at, self.sent_ns
        poll, asked = self.epoll.poll, self.asked.append
        echoes = 0
        while True:
            events = poll()
            self.begin_turn()
            now_ns = self.now_ns
            if now_ns >= until_ns:
                break
            for fd, event in events:
                connection = by_fd[fd]
                expected = connection.expected
                if event != 1 or not expected or isinstance(connection, Deaf):  # 1 is EPOLLIN
                    self.event(connection, event)
                    continue
                try:
                    data = connection.sock.recv(size)
                except OSError as error:
                    self.ended(connection, str(error))
                if data != expected:
                    connection.expected = b""
                    if not data:
                        self.ended(connection, "the server closed it")
                    self.received(connection, data)
                    if connection.due:
                        self.send(connection)
                    continue
                # The message came back whole and as it was sent, and so goes the next one.
                index = connection.index
                start = at[index] + size
                if start >= period:
                    start -= period
                at[index] = start
                message = block[start : start + size]
                connection.expected = message
                echoes += 1
                asked(sent_ns[index])
                sent_ns[index] = now_ns
                try:
                    nbytes = connection.sock.send(message)
                except OSError:
                    nbytes = 0
                if nbytes != size:
                    connection.in_flight = nbytes
                    connection.due = size - nbytes
                    self.send(connection)
        self.echoes += echoes
