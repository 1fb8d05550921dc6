"""Owned commands to sockets: bytes that wait, options, names, time stamps.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

import sys

from .. import abi
from ..buffers import Buffer, pin_readable, pin_writable
from ..files import FileLike, fd_of
from ..hints import Any
from ..inflight import Callback, Operation, ValueOperation, Waiter
from .addresses import decode_address
from .base import OwnedOperations

_INT_NBYTES = 4
_NAME_NBYTES = abi.SOCKADDR_STORAGE.nbytes


class OptionOperation(ValueOperation["int | bytes"]):
    """A socket option on its way: an int, or bytes if a length was given."""

    __slots__ = ("_memory", "_is_int")

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self._memory: bytearray
        self._is_int: bool
        *_, self._memory, self._is_int = keep

    def _value(self, res: int, cqe_flags: int) -> int | bytes:
        found = bytes(self._memory[:res])
        return int.from_bytes(found, sys.byteorder, signed=True) if self._is_int else found


class NameOperation(ValueOperation[Any]):
    """The address of a socket on its way, as Python has it."""

    __slots__ = ("_name", "_length")

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        self._name: bytearray
        self._length: bytearray
        *_, self._name, self._length = keep

    def _value(self, res: int, cqe_flags: int) -> Any:
        return decode_address(bytes(self._name[: int.from_bytes(self._length, sys.byteorder)]))


class SocketCommands(OwnedOperations):
    """The owned commands to sockets."""

    __slots__ = ()

    def siocinq(
        self, sock: FileLike, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Ask how many bytes wait in a socket to be received. Result: bytes. Linux 6.5."""
        return self._ask(abi.SocketOp.SIOCINQ, sock, callback, sqe_flags)

    def siocoutq(
        self, sock: FileLike, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Ask how many bytes wait in a socket to be sent, or for the peer's word that they came. Result: bytes. Linux 6.5."""
        return self._ask(abi.SocketOp.SIOCOUTQ, sock, callback, sqe_flags)

    def getsockopt(
        self, sock: FileLike, level: int, optname: int, buflen: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> OptionOperation:  # fmt: skip
        """Ask for an option, as socket.getsockopt does. Result: an int, or up to `buflen` bytes. Linux 6.7.

        Of level SOL_SOCKET alone: others get EOPNOTSUPP.
        """
        fd, fixed = fd_of(sock, self._file_table)
        memory = bytearray(buflen or _INT_NBYTES)
        keep, addr, nbytes = pin_writable(memory)
        return self._queue(
            OptionOperation, self.sq.prep_cmd_sock, (abi.SocketOp.GETSOCKOPT, fd, level, optname, addr, nbytes),
            (sock, keep, memory, not buflen), callback, sqe_flags | fixed, "getsockopt",
        )  # fmt: skip

    def setsockopt(
        self, sock: FileLike, level: int, optname: int, value: int | Buffer, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Set an option, as socket.setsockopt does. Result: 0. Linux 6.7."""
        fd, fixed = fd_of(sock, self._file_table)
        data = value.to_bytes(_INT_NBYTES, sys.byteorder, signed=True) if isinstance(value, int) else value
        keep, addr, nbytes = pin_readable(data)
        return self._queue(
            Operation, self.sq.prep_cmd_sock, (abi.SocketOp.SETSOCKOPT, fd, level, optname, addr, nbytes),
            (sock, keep), callback, sqe_flags | fixed, "setsockopt",
        )  # fmt: skip

    def getsockname(
        self, sock: FileLike, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> NameOperation:
        """Ask for a socket's own address. Result: as socket.getsockname has it. Linux 6.19."""
        return self._ask_name("getsockname", 0, sock, callback, sqe_flags)

    def getpeername(
        self, sock: FileLike, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> NameOperation:
        """Ask for the address of a socket's peer. Result: as socket.getpeername has it. Linux 6.19."""
        return self._ask_name("getpeername", 1, sock, callback, sqe_flags)

    def _ask(self, command: abi.SocketOp, sock: FileLike, callback: Callback | None, sqe_flags: int) -> Operation[int]:
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(Operation, self.sq.prep_cmd_sock, (command, fd, 0, 0, 0, 0), sock, callback,
                           sqe_flags | fixed, command.name.lower())  # fmt: skip

    def _ask_name(
        self, form: str, peer: int, sock: FileLike, callback: Callback | None, sqe_flags: int
    ) -> NameOperation:
        fd, fixed = fd_of(sock, self._file_table)
        name, length = bytearray(_NAME_NBYTES), bytearray(_NAME_NBYTES.to_bytes(_INT_NBYTES, sys.byteorder))
        pins = pin_writable(name), pin_writable(length)
        return self._queue(NameOperation, self.sq.prep_cmd_getsockname, (fd, pins[0][1], pins[1][1], peer),
                           (sock, pins, name, length), callback, sqe_flags | fixed, form)  # fmt: skip
