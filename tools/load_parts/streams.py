"""Loads over connections that stay: a closed loop of so many messages in flight, or an open loop of a given rate.

Imports its neighbours. Here is what the two backends share: what was sent, what came back, and how long it took.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from tools.load_parts.base import Bytes, Load, LoadError
from tools.load_parts.schedule import Schedule

OPEN_LOOP_PIECE = 1 << 16
"""An open loop that has fallen behind sends at most about this much at once on a connection."""

DEAF_PIECE = 1 << 16
"""What a deaf peer sends at once."""


class Connection:
    """What one connection has under way. All lengths in bytes."""

    __slots__ = ("due", "expected", "fd", "in_flight", "index", "marked", "partial", "sending", "sock", "wakes_whole")

    def __init__(self, index: int, sock: socket.socket) -> None:
        self.index = index
        self.sock = sock
        self.fd = sock.fileno()
        self.in_flight = 0    # sent and not yet back
        self.partial = 0      # how much of the message now coming back is there
        self.due = 0          # may be sent and is not yet
        self.sending = 0      # of the send that the ring has not completed; on epoll, 1 while the socket is full
        self.marked = 0       # until the message whose wait is timed has come back whole
        self.expected = b""   # the message in flight while it is the only one and untouched
        self.wakes_whole = True  # perhaps, by SO_RCVLOWAT: whoever connected may have set it


class Deaf:
    """A peer that sends and never reads."""

    __slots__ = ("fd", "gone", "index", "left", "sock")

    expected = b""
    """As of a Connection that has none: the quick way of a loop does not meet it."""

    def __init__(self, index: int, sock: socket.socket, nbytes: int) -> None:
        self.index = index
        self.sock = sock
        self.fd = sock.fileno()
        self.left = nbytes  # still to be sent
        self.gone = False   # the server hung up


@dataclass(frozen=True)
class Shape:
    """What is asked of a load over streams."""

    size: int
    """Bytes of a message."""
    depth: int = 1
    """Messages in flight on each connection, in a closed loop."""
    rate: float | None = None
    """Messages per second over all connections: an open loop."""
    deaf_nbytes: int = 1 << 30
    """What each deaf peer sends."""


class Streams(Load):
    """What the backends share: the streams, and the tally of what came back.

    In a closed loop waits are timed from the turn of the loop that sent a message to the turn that had its
    answer, and kept as two moments: to subtract them can wait until the measuring is over.
    """

    def __init__(self, socks: Sequence[socket.socket], shape: Shape, deaf: Sequence[socket.socket] = ()) -> None:
        size, depth = shape.size, shape.depth
        is_open = shape.rate is not None
        super().__init__(len(socks), size, size * (max(1, OPEN_LOOP_PIECE // size) if is_open else depth))
        self.depth = depth
        self.single = depth == 1 and not is_open
        self.schedule = Schedule(shape.rate, len(socks)) if shape.rate is not None else None
        self.connections = [Connection(index, sock) for index, sock in enumerate(socks)]
        self.deaf = [Deaf(index, sock, shape.deaf_nbytes) for index, sock in enumerate(deaf)]
        self.deaf_nbytes = shape.deaf_nbytes
        # By the index of a connection, when the timed message was sent. In the block the next byte
        # to send is `in_flight` after the next one to come back.
        self.sent_ns = [0] * len(socks)
        self.asked: list[int] = []  # when each timed message was sent,
        self.answered: list[tuple[int, int]] = []  # and up to which of them were answered when

    def forget(self) -> None:
        super().forget()
        self.asked.clear()
        self.answered.clear()
        if self.schedule:
            self.schedule.forget()

    def waits_ns(self) -> list[int]:
        if self.schedule:
            return sorted(self.schedule.waits)
        self.answered.append((self.now_ns, len(self.asked)))
        waits: list[int] = []
        for now_ns, end in self.answered:
            waits += [now_ns - asked_ns for asked_ns in self.asked[len(waits) : end]]
        return sorted(waits)

    def deaf_sent_nbytes(self) -> int:
        """What the deaf peers have sent, all in all."""
        return sum(self.deaf_nbytes - peer.left for peer in self.deaf)

    def start(self) -> None:
        for peer in self.deaf:
            self.send_deaf(peer)
        if self.schedule:
            self.schedule.begin()
        else:
            for connection in self.connections:
                connection.due = self.most
                self.send(connection)

    def run(self, until_ns: int) -> None:
        if not self.schedule:
            return super().run(until_ns)
        while self.now_ns < until_ns:
            self.release(self.schedule)
            self.turn(max(min(self.schedule.next_ns(), until_ns) - time.perf_counter_ns(), 0))

    def release(self, schedule: Schedule) -> None:
        """Send what the schedule has for now: at most once on each connection, however many messages that is."""
        connections, numbers = self.connections, schedule.take_due(time.perf_counter_ns())
        for number in numbers:
            connections[number % len(connections)].due += self.size
        for number in numbers[: len(connections)]:
            self.send(connections[number % len(connections)])

    def drain(self) -> None:
        for connection in self.connections:
            connection.due %= self.size  # the rest of a message that has begun; others stay unsent
        super().drain()

    def begin_turn(self) -> None:
        self.answered.append((self.now_ns, len(self.asked)))
        super().begin_turn()

    def send(self, connection: Connection) -> None:
        """Send what is due."""
        raise NotImplementedError

    def send_deaf(self, peer: Deaf) -> None:
        """Send more of what a deaf peer has left."""
        raise NotImplementedError

    def received(self, connection: Connection, data: Bytes) -> None:
        """Compare what came back and account for it: each whole message makes another one due."""
        nbytes = len(data)
        index = connection.index
        at = self.at[index]
        if nbytes > connection.in_flight:
            raise LoadError(f"connection {index}: {nbytes - connection.in_flight} bytes more came back than went")
        # With a start this is a memcmp of the two in place; `==` would copy one, and crawl over a memoryview.
        if not self.block.startswith(data, at):
            self.wrong(index, data)
        self.at[index] = (at + nbytes) % self.period
        connection.in_flight -= nbytes
        whole, connection.partial = divmod(connection.partial + nbytes, self.size)
        if connection.partial and connection.wakes_whole:
            # A socket whose buffer fills up wakes early, and then the rest of the message by itself wakes nobody.
            connection.wakes_whole = False
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self.echoes += whole
        if self.schedule:
            self.schedule.answer(index, whole, self.now_ns)
            return
        if not self.stopping:
            connection.due += whole * self.size
        if connection.marked > 0:
            connection.marked -= nbytes
            if connection.marked <= 0:
                self.asked.append(self.sent_ns[index])

    def sent(self, connection: Connection, nbytes: int) -> None:
        """Account for bytes that the socket took; one message at a time has its wait timed."""
        connection.due -= nbytes
        connection.in_flight += nbytes
        if connection.marked <= 0:
            connection.marked = connection.in_flight
            self.sent_ns[connection.index] = self.now_ns

    def ended(self, connection: Connection, why: str) -> NoReturn:
        raise LoadError(f"connection {connection.index}: {why}, with {connection.in_flight} bytes in flight")

    def unanswered(self) -> int:
        return sum(connection.in_flight > 0 or connection.due > 0 for connection in self.connections)
