"""Owned operations on the life of sockets: socket, bind, listen, accept, connect, shutdown.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

import os

from .. import abi
from ..files import FileLike, FileTable, fd_of
from ..hints import Any
from ..inflight import Callback, FdOperation, FdStream, Operation, Stream
from .addresses import pin_address
from .base import FixedOperation, FixedStream, OwnedOperations

SOCK_CLOEXEC = os.O_CLOEXEC  # the same bit on every architecture, by definition


class SocketOperations(OwnedOperations):
    """The owned operations on sockets."""

    __slots__ = ()

    def socket(
        self, family: int = -1, type: int = -1, proto: int = -1, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Make a socket; the arguments are those of socket.socket. Result: an fd, which is closed on exec.

        It belongs to the operation until `wait()` or the callback takes it. `socket.socket(fileno=fd)`
        makes an object of it.
        """
        domain, kind, protocol = _socket_arguments(family, type, proto)
        return self._queue(FdOperation, self.sq.prep_socket, (domain, kind | SOCK_CLOEXEC, protocol), None, callback,
                           sqe_flags)  # fmt: skip

    def socket_direct(
        self, into: FileTable, family: int = -1, type: int = -1, proto: int = -1, *, slot: int = abi.FILE_INDEX_ALLOC,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> FixedOperation:  # fmt: skip
        """Make a socket in a slot of a file table, which the kernel picks unless `slot` says it. Result: a `Fixed`."""
        domain, kind, protocol = _socket_arguments(family, type, proto)
        self._prepare_table(into)
        return self._queue(FixedOperation, self.sq.prep_socket_direct, (domain, kind, protocol, slot),
                           (None, into, slot), callback, sqe_flags)  # fmt: skip

    def bind(
        self, sock: FileLike, address: Any, *, family: int | None = None,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Bind to `address`, in the form that socket.bind takes, with a numeric host. Result: 0. Linux 6.11.

        `family` is needed only where `sock` has no `family`, as an fd number or a `Fixed`.
        """
        fd, fixed = fd_of(sock, self._file_table)
        keep, addr, nbytes = pin_address(sock, address, family)
        return self._queue(Operation, self.sq.prep_bind, (fd, addr, nbytes), (sock, keep), callback,
                           sqe_flags | fixed)  # fmt: skip

    def listen(
        self, sock: FileLike, backlog: int = 128, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Let a socket accept connections, of which `backlog` may wait. Result: 0. Linux 6.11."""
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(Operation, self.sq.prep_listen, (fd, backlog), sock, callback, sqe_flags | fixed)

    def accept(
        self, listener: FileLike, accept_flags: int = SOCK_CLOEXEC, *, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Take one connection. Result: an fd, which belongs to the operation until `wait()` or the callback takes it.

        `socket.socket(fileno=fd)` makes a socket of it, whose `getpeername()` has the address.
        """
        fd, fixed = fd_of(listener, self._file_table)
        return self._queue(
            FdOperation, self.sq.prep_accept, (fd, 0, 0, accept_flags), listener, callback, sqe_flags | fixed,
            ioprio=ioprio,
        )  # fmt: skip

    def accept_direct(
        self, listener: FileLike, into: FileTable, *, slot: int = abi.FILE_INDEX_ALLOC, accept_flags: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> FixedOperation:  # fmt: skip
        """Take one connection into a slot of a file table, which the kernel picks unless `slot` says it.

        Result: a `Fixed`. When the table is full the kernel accepts the connection, destroys it
        and answers ENFILE: keep a slot free for each accept in flight.
        """
        fd, fixed = fd_of(listener, self._file_table)
        self._prepare_table(into)
        return self._queue(FixedOperation, self.sq.prep_accept_direct, (fd, 0, 0, accept_flags, slot),
                           (listener, into, slot), callback, sqe_flags | fixed)  # fmt: skip

    def accept_multishot(
        self, listener: FileLike, accept_flags: int = SOCK_CLOEXEC, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Stream[int]:  # fmt: skip
        """Take connections until told otherwise: each completion's `res` is an fd, yours to close."""
        fd, fixed = fd_of(listener, self._file_table)
        return self._queue(FdStream, self.sq.prep_multishot_accept, (fd, 0, 0, accept_flags), listener, callback,
                           sqe_flags | fixed)  # fmt: skip

    def accept_multishot_direct(
        self, listener: FileLike, into: FileTable, *, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Stream[int]:  # fmt: skip
        """Take connections into a file table: each completion's `res` is a slot: `into[res]` is its `Fixed`.

        When the table is full the kernel accepts a connection, destroys it and answers ENFILE.
        """
        fd, fixed = fd_of(listener, self._file_table)
        self._prepare_table(into)
        return self._queue(FixedStream, self.sq.prep_multishot_accept_direct, (fd, 0, 0, 0), (listener, into), callback,
                           sqe_flags | fixed)  # fmt: skip

    def connect(
        self, sock: FileLike, address: Any, *, family: int | None = None,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Connect to `address`, in the form that socket.connect takes, with a numeric host. Result: 0.

        `family` is needed only where `sock` has no `family`, as an fd number or a `Fixed`.
        """
        fd, fixed = fd_of(sock, self._file_table)
        keep, addr, nbytes = pin_address(sock, address, family)
        return self._queue(Operation, self.sq.prep_connect, (fd, addr, nbytes), (sock, keep), callback,
                           sqe_flags | fixed)  # fmt: skip

    def shutdown(
        self, sock: FileLike, how: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Shut down a direction: socket.SHUT_RD, SHUT_WR or SHUT_RDWR. Result: 0."""
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(Operation, self.sq.prep_shutdown, (fd, how), sock, callback, sqe_flags | fixed)


def _socket_arguments(family: int, kind: int, proto: int) -> tuple[int, int, int]:
    """Those of socket(2), with the defaults of socket.socket."""
    import socket

    return (
        socket.AF_INET if family == -1 else family,
        socket.SOCK_STREAM if kind == -1 else kind,
        0 if proto == -1 else proto,
    )
