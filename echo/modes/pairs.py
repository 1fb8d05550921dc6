"""The modes that receive and send with a pair of operations, one at a time; and their twins, which poll first.

May import `one_at_a_time.py`, `base.py` and the names of rawuring.
"""

from __future__ import annotations

import errno
from ctypes import addressof, c_char

from echo.connection import LOST
from echo.modes.base import IOVEC, MSGHDR, NOSIGNAL, RECV, SEND, TRY_AGAIN
from echo.modes.one_at_a_time import BufferedConnection, OneAtATime
from rawuring import abi

CANCELLED = -errno.ECANCELED
IO_LINK = int(abi.SqeFlag.IO_LINK)


class ReadWrite(OneAtATime[BufferedConnection]):
    """READ and WRITE. A WRITE raises SIGPIPE where a SEND need not: the interpreter ignores it from its start."""

    name = "read-write"
    what = "READ, then WRITE, one at a time"
    connection_class = BufferedConnection

    def receive(self, connection: BufferedConnection) -> None:
        self.ring.sq.prep_read(
            connection.fd, connection.addr, self._slab.nbytes, 0, user_data=connection.key + RECV
        )

    def send(self, connection: BufferedConnection) -> None:
        addr = connection.addr + connection.start
        self.ring.sq.prep_write(connection.fd, addr, connection.nleft, 0, user_data=connection.key + SEND)


class RecvSend(OneAtATime[BufferedConnection]):
    """RECV and SEND."""

    name = "recv-send"
    what = "RECV, then SEND, one at a time"
    connection_class = BufferedConnection

    def receive(self, connection: BufferedConnection) -> None:
        self.ring.sq.prep_recv(
            connection.fd, connection.addr, self._slab.nbytes, 0, user_data=connection.key + RECV
        )

    def send(self, connection: BufferedConnection) -> None:
        addr = connection.addr + connection.start
        self.ring.sq.prep_send(connection.fd, addr, connection.nleft, NOSIGNAL, user_data=connection.key + SEND)


# ------------------------------------------------------------------------------- with structs that describe the memory

RECEIVED_INTO, SENT_FROM = 0, IOVEC.size  # where in `structs` the struct iovecs are
RECEIVED, SENT = 2 * IOVEC.size, 2 * IOVEC.size + MSGHDR.size  # and the struct msghdrs


class DescribedConnection(BufferedConnection):
    """A connection and the structs that describe its buffer to the kernel."""

    __slots__ = ("_pin", "structs", "structs_addr")

    def __init__(self, key: int, fd: int) -> None:
        super().__init__(key, fd)
        self.structs = bytearray(SENT + MSGHDR.size)
        self._pin = c_char.from_buffer(self.structs)
        self.structs_addr = addressof(self._pin)


class ReadvWritev(OneAtATime[DescribedConnection]):
    """READV and WRITEV of one buffer."""

    name = "readv-writev"
    what = "READV, then WRITEV, one at a time"
    connection_class = DescribedConnection

    def prepare(self, connection: DescribedConnection) -> None:
        IOVEC.pack_into(connection.structs, RECEIVED_INTO, connection.addr, self._slab.nbytes)

    def receive(self, connection: DescribedConnection) -> None:
        iovec_addr = connection.structs_addr + RECEIVED_INTO
        self.ring.sq.prep_readv(connection.fd, iovec_addr, 1, 0, user_data=connection.key + RECV)

    def send(self, connection: DescribedConnection) -> None:
        IOVEC.pack_into(connection.structs, SENT_FROM, connection.addr + connection.start, connection.nleft)
        iovec_addr = connection.structs_addr + SENT_FROM
        self.ring.sq.prep_writev(connection.fd, iovec_addr, 1, 0, user_data=connection.key + SEND)


class RecvmsgSendmsg(OneAtATime[DescribedConnection]):
    """RECVMSG and SENDMSG of one buffer."""

    name = "recvmsg-sendmsg"
    what = "RECVMSG, then SENDMSG, one at a time"
    connection_class = DescribedConnection

    def prepare(self, connection: DescribedConnection) -> None:
        structs, addr = connection.structs, connection.structs_addr
        IOVEC.pack_into(structs, RECEIVED_INTO, connection.addr, self._slab.nbytes)
        MSGHDR.pack_into(structs, RECEIVED, addr + RECEIVED_INTO, 1)
        MSGHDR.pack_into(structs, SENT, addr + SENT_FROM, 1)

    def receive(self, connection: DescribedConnection) -> None:
        self.ring.sq.prep_recvmsg(
            connection.fd, connection.structs_addr + RECEIVED, 0, user_data=connection.key + RECV
        )

    def send(self, connection: DescribedConnection) -> None:
        IOVEC.pack_into(connection.structs, SENT_FROM, connection.addr + connection.start, connection.nleft)
        self.ring.sq.prep_sendmsg(
            connection.fd, connection.structs_addr + SENT, NOSIGNAL, user_data=connection.key + SEND
        )


# ------------------------------------------------------------------------------------------------ with a poll before


class PollReadvWritev(ReadvWritev):
    """POLL_ADD, READV, WRITEV."""

    name = "poll-readv-writev"
    what = "POLL_ADD before each READV, then WRITEV"
    polls = True


class PollRecvmsgSendmsg(RecvmsgSendmsg):
    """POLL_ADD, RECVMSG, SENDMSG."""

    name = "poll-recvmsg-sendmsg"
    what = "POLL_ADD before each RECVMSG, then SENDMSG"
    polls = True


class PollReadWrite(ReadWrite):
    """POLL_ADD, READ, WRITE."""

    name = "poll-read-write"
    what = "POLL_ADD before each READ, then WRITE"
    polls = True


class PollRecvSend(RecvSend):
    """POLL_ADD, RECV, SEND."""

    name = "poll-recv-send"
    what = "POLL_ADD before each RECV, then SEND"
    polls = True


class LinkPollRecvSend(RecvSend):
    """POLL_ADD linked to RECV, both queued together; SEND.

    A poll that fails breaks the link, and the receive behind it is cancelled: both complete, in either order.
    """

    name = "link-poll-recv-send"
    what = "POLL_ADD linked to RECV, then SEND"

    def await_input(self, connection: BufferedConnection) -> None:
        self.poll(connection, IO_LINK)
        self.receive(connection)

    def polled(self, connection: BufferedConnection, res: int) -> None:
        if res < 0 and res != CANCELLED and res not in TRY_AGAIN:
            connection.lost()

    def exception(self, connection: BufferedConnection, kind: int, res: int) -> None:
        if kind == RECV and res == CANCELLED and connection.state != LOST:
            self.await_input(connection)
        else:
            super().exception(connection, kind, res)
