"""What the modes share whose receives take their buffers from a pool that belongs to all connections.

May import `base.py`, `connection.py`, the errors of `service.py` and the names of rawuring. A mode of this family
says what pool it has, and how it receives.

What was received is sent straight from its pool buffer, by a send that never waits (MSG_DONTWAIT). What the socket
does not take is copied to the connection's own queue, sent from there by ordinary sends, and the buffer goes back:
no peer holds buffers by not reading.

Silent sends. On a ring whose completions are posted only while we wait (DEFER_TASKRUN), a send that succeeds needs no
CQE (CQE_SKIP_SUCCESS): with MSG_WAITALL it is silent exactly when the socket took all of it, and otherwise has its CQE
at once, before that of any receive that completes later. So after the turn that follows it is known to have succeeded,
and its buffer goes back with the others of its turn. A receive that is armed behind a send must therefore not
complete while SQEs are submitted: it polls first.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from ctypes import addressof, c_char
from typing import TYPE_CHECKING, Protocol

from echo.connection import LOST
from echo.modes.base import (
    BUFFER_SHIFT,
    F_BUFFER,
    F_MORE,
    IN_PLACE,
    IOVEC,
    KIND,
    MSGHDR,
    NOSIGNAL,
    SEND,
    SKIP_SUCCESS,
    TRY_AGAIN,
    Cqe,
    Mode,
    RingConnection,
)
from echo.service import RUNNING, EchoError
from rawuring import RawuringError, abi

if TYPE_CHECKING:
    from echo.modes.columns import Columns
    from echo.server import RingServer

AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
ALL_AT_ONCE = AT_ONCE | int(socket.MSG_WAITALL)
NO_BUFFER = -errno.ENOBUFS
PAUSED = -errno.ECANCELED

NEVER = 1 << 62
"""The turn from which a connection is free to send, while that is decided by a completion."""


Lent = tuple[int, int]  # bid, nbytes


class Pool(Protocol):
    """Buffers of one size, known to the kernel as a group. It lends one to us with a completion."""

    bgid: int
    count: int
    nbytes: int

    def addr_of(self, bid: int) -> int:
        """Where a buffer is."""

    def view(self, bid: int, nbytes: int) -> memoryview:
        """The first bytes of a buffer."""

    def give_back(self, bids: list[int]) -> None:
        """Let the kernel have buffers again."""


class Gathered:
    """Pool buffers that are sent together, and the structures that name them to the kernel."""

    __slots__ = ("_pin", "addr", "lent")

    def __init__(self, pool: Pool, lent: list[Lent]) -> None:
        self.lent = lent
        memory = bytearray(MSGHDR.size + len(lent) * IOVEC.size)
        self._pin = c_char.from_buffer(memory)
        self.addr = addressof(self._pin)
        MSGHDR.pack_into(memory, 0, self.addr + MSGHDR.size, len(lent))
        for i, (bid, nbytes) in enumerate(lent):
            IOVEC.pack_into(memory, MSGHDR.size + i * IOVEC.size, pool.addr_of(bid), nbytes)


class PooledConnection(RingConnection):
    """A connection and the pool buffers that it has."""

    __slots__ = ("behind", "bid", "free_from", "gathered", "nlent", "nread", "receiving", "sending", "starved", "waits")

    def __init__(self, key: int, fd: int) -> None:
        super().__init__(key, fd)
        self.receiving = False  # the receive is armed
        self.starved = False  # it found no buffer, and is in the queue for one
        self.sending = False  # a send is in flight that will have a CQE
        self.nread = 0  # sends that have succeeded, and whose buffers somebody may still read
        self.free_from = 0  # the turn from which on a send can be queued
        self.waits = False  # for the end of the next turn
        self.bid = self.nlent = 0  # the buffer of the last send from the pool, and how much it was to send
        self.gathered: Gathered | None = None  # its buffers, if they were several
        self.behind: list[Lent] = NONE_BEHIND  # what was received since then


NONE_BEHIND: list[Lent] = []
"""Shared by all connections without any; never appended to."""


class Pooled(Mode[PooledConnection]):
    """Receive into a buffer of the pool, and send it from there."""

    connection_class = PooledConnection

    def __init__(self, server: RingServer) -> None:
        super().__init__(server)
        count, nbytes = 1 << (server.options.buffers - 1).bit_length(), server.options.buffer_nbytes
        try:
            self.pool = self.make_pool(count, nbytes)
        except (OSError, RawuringError) as error:
            raise EchoError(
                f"cannot have {count} buffers of {nbytes} bytes ({error}): "
                "choose fewer with --buffers, or smaller ones with --buffer-size"
            ) from None
        self.addrs = [self.pool.addr_of(bid) for bid in range(count)]
        self.ordinary_nbytes = nbytes
        """A completion that brings more is for `received_much`."""
        self._silent = bool(self.ring.setup_flags & abi.Setup.DEFER_TASKRUN and self._skip_success)
        self.send_flags = (ALL_AT_ONCE, SKIP_SUCCESS) if self._silent else (AT_ONCE, 0)
        self._turn = 0
        self.lent: list[int] = []  # buffers that go back at the end of the next turn
        self.batch = self.pool.count // 4  # that many go back together
        self.ntaken = self._ngiven = 0  # buffers that the kernel took out of the pool, and that went back
        self.later: list[PooledConnection] = []  # connections that go on when their send is known to have succeeded
        self.starved: deque[PooledConnection] = deque()  # first come, first fed
        self.busy: set[int] = set()  # descriptors of connections that are not free to send
        self._columns: Columns | None = None

    def make_pool(self, count: int, nbytes: int) -> Pool:
        """The buffers, all with the kernel."""
        raise NotImplementedError

    def arm(self, connection: PooledConnection) -> None:
        """Queue a receive, which must not complete while SQEs are submitted if sends are silent."""
        raise NotImplementedError

    def disarm(self, connection: PooledConnection) -> None:
        """Too much is queued: end the receive that is armed, if it does not end with its next completion anyway."""

    def received_much(self, res: int, cqe_flags: int) -> list[Lent]:
        """The buffers of a completion that brought more than `ordinary_nbytes`."""
        raise NotImplementedError

    def begin(self, connection: PooledConnection) -> None:
        self._receive(connection)

    def close(self, connection: PooledConnection) -> None:
        super().close(connection)
        self.busy.discard(connection.fd)
        if connection.behind:
            self.lent.extend(bid for bid, _ in connection.behind)

    def taker(self) -> Callable[[], list[Cqe] | None]:
        return self._columns.taker() if self._columns else super().taker()

    def run(self) -> None:
        server, pool, connections, prep_send = self.server, self.pool, self.connections, self.ring.sq.prep_send
        addrs, silent, ordinary_nbytes = self.addrs, self._silent, self.ordinary_nbytes
        msg_flags, sqe_flags = self.send_flags
        for completions in server.turns():
            self._turn = turn = self._turn + 1
            nechoes = nbytes = 0
            spent = self._take_spent() if len(self.lent) >= self.batch or self.starved else None
            later = self._take_later() if self.later else ()
            stopping = server.state != RUNNING
            lend = self.lent.append
            for user_data, res, cqe_flags in completions:
                if user_data & KIND or not 0 < res <= ordinary_nbytes:
                    self.other(user_data, res, cqe_flags)
                    continue
                connection = connections[user_data]  # there it stays until its receive has ended
                bid = cqe_flags >> BUFFER_SHIFT
                if connection.free_from <= turn:
                    prep_send(
                        connection.fd, addrs[bid], res, msg_flags, user_data=user_data + SEND, sqe_flags=sqe_flags
                    )
                    connection.bid = bid
                    connection.nlent = res
                    if silent:
                        connection.free_from = turn + 1
                        lend(bid)
                    else:
                        connection.free_from = NEVER
                        connection.sending = True
                else:
                    self._received(connection, [(bid, res)])
                nechoes += 1
                nbytes += res
                if not cqe_flags & F_MORE:
                    connection.receiving = False
                    self._settle(connection)
                elif stopping:
                    self._look_again(connection)
            server.nechoes += nechoes
            server.nbytes += nbytes
            self.ntaken += nechoes
            if spent:
                self.give_back(spent)
            if later:
                self._go_on_with(later)
            nfree = 0
            if self.starved:
                nfree = pool.count + self._ngiven - self.ntaken
                self._feed(nfree)
            self.hurry = bool(self.later or (self.starved and (self.lent or nfree > 0)))

    def abandon(self, connection: PooledConnection) -> None:
        self._lose(connection)
        self._settle(connection)

    def _take_spent(self) -> list[int]:
        """The buffers of all silent sends up to the last turn, to be given back when this one is over."""
        spent, self.lent = self.lent, []
        return spent

    def give_back(self, bids: list[int]) -> None:
        """Let the kernel have buffers again."""
        self.pool.give_back(bids)
        if self._columns:
            self._columns.given_back(self._ngiven, bids)
        self._ngiven += len(bids)

    def _take_later(self) -> list[PooledConnection]:
        later, self.later = self.later, []
        return later

    # Receiving.

    def _receive(self, connection: PooledConnection) -> None:
        connection.receiving = True
        self.arm(connection)

    def _received(self, connection: PooledConnection, lent: list[Lent]) -> None:
        """Something was received that `run` does not send: it is much, or the last send is not known to have succeeded."""
        if connection.state == LOST:
            self.lent.extend(bid for bid, _ in lent)
            if connection.receiving:
                self._look_again(connection)
        elif connection.nqueued:
            self._keep(connection, lent)
            self.lent.extend(bid for bid, _ in lent)
        elif connection.free_from <= self._turn:
            connection.behind = lent
            self._go_on(connection)
        elif connection.behind:
            connection.behind.extend(lent)
        else:
            connection.behind = lent
            if not connection.sending:
                self._wait_a_turn(connection)

    def _received_much(self, connection: PooledConnection, res: int, cqe_flags: int) -> None:
        lent = self.received_much(res, cqe_flags)
        self.ntaken += len(lent)
        self.server.nechoes += 1
        self.server.nbytes += res
        connection.receiving = bool(cqe_flags & F_MORE)
        self._received(connection, lent)
        if not connection.receiving:
            self._settle(connection)
        elif self.server.state != RUNNING:
            self._look_again(connection)

    def _look_again(self, connection: PooledConnection) -> None:
        """A connection that was shut down has received: have the receive, which is still armed, find the end.

        A multishot receive that took the last byte waits for the next event (Linux 6.12; 6.1 tries once more).
        If it was armed when the connection had been reset or shut down already, with bytes to read, none comes.
        """
        self.shut_down(connection, socket.SHUT_RDWR if connection.state == LOST else socket.SHUT_RD)

    def _keep(self, connection: PooledConnection, lent: list[Lent], start: int = 0) -> None:
        """Copy what is in these buffers from `start` on to the queue, and stop receiving if that is too long now."""
        was_reading = connection.reading
        for bid, nbytes in lent:
            if start < nbytes:
                connection.keep(self.pool.view(bid, nbytes)[start:])
            start = max(start - nbytes, 0)
        if was_reading and not connection.reading and connection.receiving:
            self.disarm(connection)

    def _not_received(self, connection: PooledConnection, res: int, cqe_flags: int) -> None:
        """A receive brought no bytes: the end of the input, no buffer, a cancel of ours, an error."""
        if cqe_flags & F_BUFFER:
            self.ntaken += 1
            self.lent.append(cqe_flags >> BUFFER_SHIFT)
        connection.receiving = bool(cqe_flags & F_MORE)
        if res == NO_BUFFER:
            if connection.reading:
                connection.starved = True
                self.starved.append(connection)
                return
        elif res == 0:
            connection.end_of_input()
        elif res != PAUSED and res not in TRY_AGAIN:
            self._lose(connection)
        self._settle(connection)

    def _feed(self, nfree: int) -> None:
        """There are buffers in the pool: let as many of the starved receive again.

        Not all of them need one. Linux 6.1 looks for a buffer before it looks for data, so who has received all there
        is starves as well, and takes none when it is fed: the next turn feeds others.
        """
        while nfree > 0 and self.starved:
            connection = self.starved.popleft()
            connection.starved = False
            if connection.reading and not connection.receiving:
                self.server.make_room()
                self._receive(connection)
                nfree -= 1

    # Sending.

    def send_from_pool(self, connection: PooledConnection, lent: list[Lent]) -> None:
        """As `run` does with a buffer that it can send at once, and more than one together."""
        msg_flags, sqe_flags = self.send_flags
        user_data = connection.key + SEND
        if len(lent) == 1:
            ((bid, nbytes),) = lent
            addr = self.pool.addr_of(bid)
            self.ring.sq.prep_send(connection.fd, addr, nbytes, msg_flags, user_data=user_data, sqe_flags=sqe_flags)
            connection.bid = bid
            connection.nlent = nbytes
        else:
            gathered = connection.gathered = Gathered(self.pool, lent)
            self.ring.sq.prep_sendmsg(connection.fd, gathered.addr, msg_flags, user_data=user_data, sqe_flags=sqe_flags)
            connection.nlent = sum(nbytes for _, nbytes in lent)
        if self._silent:
            self.lent.extend(bid for bid, _ in lent)
            self._wait_a_turn(connection)
        else:
            self._occupy(connection)
            connection.sending = True

    def _send_from_queue(self, connection: PooledConnection) -> None:
        """An ordinary send, which waits until the socket takes something."""
        head = connection.head()
        self.ring.sq.prep_send(
            connection.fd, addressof(c_char.from_buffer(head)), len(head), NOSIGNAL, user_data=connection.key + SEND
        )
        self._occupy(connection)
        connection.sending = True

    def _occupy(self, connection: PooledConnection) -> None:
        """A completion is to decide when it can send again."""
        connection.free_from = NEVER
        self.busy.add(connection.fd)

    def _lent_to_send(self, connection: PooledConnection) -> list[Lent]:
        """The pool buffers of the last send."""
        return connection.gathered.lent if connection.gathered else [(connection.bid, connection.nlent)]

    def _sent(self, connection: PooledConnection, res: int) -> None:
        """A send has a CQE: one from the queue; or one from the pool that was short, or could not be silent."""
        connection.sending = False
        if res < 0 and res not in TRY_AGAIN:
            self._lose(connection)
        elif connection.state != LOST:
            if connection.nqueued:
                connection.sent(max(res, 0))
            elif res < connection.nlent:
                self._keep(connection, self._lent_to_send(connection), max(res, 0))
                self._keep(connection, connection.behind)
                self.lent.extend(bid for bid, _ in connection.behind)
                connection.behind = NONE_BEHIND
            if connection.nqueued:
                self._send_from_queue(connection)
        self._go_on(connection)

    def _wait_a_turn(self, connection: PooledConnection) -> None:
        """Go on when the silent send in flight is known to have succeeded, or has failed."""
        self._occupy(connection)
        if not connection.waits:
            connection.waits = True
            self.later.append(connection)

    def _go_on_with(self, connections: list[PooledConnection]) -> None:
        for connection in connections:
            connection.waits = False
            if connection.state != LOST:
                self.server.make_room()
                self._go_on(connection)

    def _go_on(self, connection: PooledConnection) -> None:
        """The last send has ended: send what has come behind it, or do whatever else there is to do."""
        connection.gathered = None
        if not connection.sending and connection.state != LOST:
            if connection.behind:
                lent = connection.behind[: abi.MAX_IOVECS]
                connection.behind = connection.behind[abi.MAX_IOVECS :] or NONE_BEHIND
                self.send_from_pool(connection, lent)
            else:
                connection.free_from = self._turn
                self.busy.discard(connection.fd)
        self._settle(connection)

    # Ending.

    def _settle(self, connection: PooledConnection) -> None:
        """Arm the receive if it should be, or close the connection if nothing is in flight any more."""
        if not connection.finished():
            if connection.reading and not connection.receiving and not connection.starved:
                self._receive(connection)
        elif connection.sending or connection.receiving or (connection.nread and connection.state != LOST):
            pass  # their completions bring us here again
        elif connection.state != LOST and connection.free_from > self._turn:
            self._wait_a_turn(connection)
        else:
            self.server.retire(connection)

    def _lose(self, connection: PooledConnection) -> None:
        """The connection has failed: make what is in flight complete."""
        connection.lost()
        self._occupy(connection)
        if connection.sending or connection.receiving:
            self.shut_down(connection)

    def other(self, user_data: int, res: int, cqe_flags: int) -> None:
        kind = user_data & KIND
        if kind == IN_PLACE:
            user_data = self._answer_failed(user_data - IN_PLACE)
            kind = SEND
        connection = self.connections.get(user_data - kind)
        if connection is None:
            self.server.complete(user_data, res, cqe_flags)
        elif kind == SEND:
            if not self._silent and not connection.nqueued:
                self.lent.extend(bid for bid, _ in self._lent_to_send(connection))
            self._sent(connection, res)
        elif res > 0:
            self._received_much(connection, res, cqe_flags)
        else:
            self._not_received(connection, res, cqe_flags)

    def _answer_failed(self, place: int) -> int:
        """A send of the last turn, which `Columns` queued: have the connection know of it. Returns its user_data."""
        columns = self._columns
        assert columns
        key = columns.keys[place]
        connection = self.connections[key]
        connection.bid = columns.bids[place]
        connection.nlent = columns.lens[place]
        return key + SEND
