"""The modes on registered files and registered buffers, one request at a time: READ_FIXED and WRITE_FIXED.

May import `one_at_a_time.py`, `base.py`, the errors of `service.py` and the names of rawuring.

A connection has a slot in the ring's file table beside its descriptor; the slot's number is also that of its buffer. The
table is made for a number of connections, and all their buffers are pinned from the start, so there is a limit to them:
accepting stops below it.
"""

from __future__ import annotations

import resource
import select
from ctypes import addressof, c_char
from typing import TYPE_CHECKING

from echo.modes.base import POLL, RECV, SEND
from echo.modes.one_at_a_time import BufferedConnection, OneAtATime, Slab
from echo.service import EchoError
from rawuring import RawuringError, abi

if TYPE_CHECKING:
    from echo.server import RingServer

FIXED_FILE = int(abi.SqeFlag.FIXED_FILE)

MOST_CONNECTIONS = 1024
"""Unless --max-connections says otherwise."""
MOST_NBYTES = 4096
"""Of a buffer: it is pinned whether its connection is there or not."""


class FixedConnection(BufferedConnection):
    """A connection and its slot."""

    __slots__ = ("slot",)

    slot: int


class ReadFixedWriteFixed(OneAtATime[FixedConnection]):
    """READ_FIXED and WRITE_FIXED."""

    name = "read-fixed-write-fixed"
    what = "READ_FIXED, then WRITE_FIXED, on registered files and buffers"
    connection_class = FixedConnection

    def __init__(self, server: RingServer) -> None:
        super().__init__(server)
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = min(server.options.max_connections or MOST_CONNECTIONS, soft_limit)
        self.most_connections = count
        self._slab = Slab(min(server.options.buffer_nbytes, MOST_NBYTES), count)
        memory = self._slab.grow()
        self._start = addressof(c_char.from_buffer(memory))
        try:
            self._files = self.ring.file_table(count)
            self.ring.register_buffers([memory])
        except (OSError, RawuringError) as error:
            raise EchoError(
                f"cannot register {count} files, and {count} buffers of {self._slab.nbytes} bytes ({error}): choose fewer "
                "with --max-connections, or raise the limit of locked memory (ulimit -l)"
            ) from None

    def prepare(self, connection: FixedConnection) -> None:
        connection.slot = (connection.addr - self._start) // self._slab.nbytes
        self._files.update(connection.slot, [connection.fd])

    def close(self, connection: FixedConnection) -> None:
        # Before Linux 6.13 the table lets go of the file only when older requests on its other files have completed.
        self.shut_down(connection)
        self._files.update(connection.slot, [-1])
        super().close(connection)

    def receive(self, connection: FixedConnection) -> None:
        self.ring.sq.prep_read_fixed(
            connection.slot, connection.addr, self._slab.nbytes, 0, 0, user_data=connection.key + RECV, sqe_flags=FIXED_FILE
        )

    def send(self, connection: FixedConnection) -> None:
        addr = connection.addr + connection.start
        self.ring.sq.prep_write_fixed(
            connection.slot, addr, connection.nleft, 0, 0, user_data=connection.key + SEND, sqe_flags=FIXED_FILE
        )


class PollReadFixedWriteFixed(ReadFixedWriteFixed):
    """POLL_ADD, READ_FIXED, WRITE_FIXED."""

    name = "poll-read-fixed-write-fixed"
    what = "POLL_ADD before each READ_FIXED, then WRITE_FIXED"
    polls = True

    def poll(self, connection: FixedConnection, sqe_flags: int = 0) -> None:
        self.ring.sq.prep_poll_add(
            connection.slot, select.POLLIN, user_data=connection.key + POLL, sqe_flags=FIXED_FILE
        )
