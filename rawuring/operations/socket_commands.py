"""Owned commands to sockets: bytes that wait, options, names, time stamps.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

import sys

from .. import abi, system
from ..buffers import Buffer, pin_readable, pin_writable
from ..errors import RawuringError
from ..files import FileLike, fd_of
from ..hints import Any
from ..inflight import Callback, Large, LargeStream, Operation, ValueOperation, Waiter
from .addresses import decode_address
from .base import OwnedOperations

_F_MORE = int(abi.CqeFlag.MORE)
_U32 = 0xFFFF_FFFF
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


class TimestampStream(LargeStream[int]):
    """A socket's time stamps on their way: a completion for each, which `timestamp` makes a value of."""

    __slots__ = ()

    def timestamp(self, res: int, cqe_flags: int) -> system.TxTimestamp | None:
        """The time stamp of one completion. None of the final one, whose negative `res` says why it ended."""
        if not cqe_flags & _F_MORE or not isinstance(cqe_flags, Large):
            return None
        seconds, nanoseconds = cqe_flags.big_cqe
        return system.TxTimestamp(
            key=res & _U32,
            time_ns=seconds * 10**9 + nanoseconds,
            kind=cqe_flags >> abi.TIMESTAMP_TYPE_SHIFT,
            is_hardware=bool(cqe_flags & abi.TimestampCqeFlag.TSTAMP_HW),
        )


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

    def tx_timestamp(
        self, sock: FileLike, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> TimestampStream:
        """Take the time stamps of what a socket sends, instead of reading its error queue. Linux 6.17.

            stamping = system.SOF_TIMESTAMPING_TX_SOFTWARE | system.SOF_TIMESTAMPING_SOFTWARE
            keyed = system.SOF_TIMESTAMPING_OPT_ID | system.SOF_TIMESTAMPING_OPT_TSONLY
            sock.setsockopt(socket.SOL_SOCKET, system.SO_TIMESTAMPING, stamping | keyed)
            stream = ring.tx_timestamp(sock)
            sock.send(b"hello")
            stamp = stream.timestamp(*stream.next())

        The socket's options say which time stamps are made (timestamping(7)); without OPT_ID every
        `key` is 0. On a ring with Setup.CQE32 or Setup.CQE_MIXED.
        """
        if not self.setup_flags & (abi.Setup.CQE32 | abi.Setup.CQE_MIXED):
            raise RawuringError("a time stamp comes in a completion of 32 bytes: make the ring with Setup.CQE32 or CQE_MIXED")
        fd, fixed = fd_of(sock, self._file_table)
        self._expects_large = True
        return self._queue(TimestampStream, self.sq.prep_cmd_sock, (abi.SocketOp.TX_TIMESTAMP, fd, 0, 0, 0, 0), sock,
                           callback, sqe_flags | fixed, "tx_timestamp")  # fmt: skip

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
