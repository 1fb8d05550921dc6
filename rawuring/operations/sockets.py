"""Owned operations on sockets: accept, connect, send, recv, sendmsg, recvmsg, shutdown.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .. import abi
from ..buffers import Buffer, BufferGroup, pin_iovecs, pin_readable, pin_writable
from ..errors import BufferUseError
from ..files import FileLike, FileTable, Fixed, fd_of
from ..inflight import (
    BufferOperation,
    BufferStream,
    Callback,
    FdOperation,
    FdStream,
    Operation,
    Stream,
    ValueOperation,
    Waiter,
    close_quietly,
)
from .base import FixedOperation, FixedStream, OwnedOperations

SOCK_CLOEXEC = os.O_CLOEXEC  # the same bit on every architecture, by definition
_NO_MEMORY: tuple[object, int, int] = (None, 0, 0)

AncillaryData = tuple[int, int, bytes]  # level, type, data: as socket.recvmsg has it


class Message(NamedTuple):
    """What recvmsg brought, in the shape of socket.recvmsg and with the address last."""

    nbytes: int
    ancdata: list[AncillaryData]
    msg_flags: int
    address: Any


class MessageOperation(ValueOperation[Message]):
    """A recvmsg in flight. Result: a `Message`. Fds that came with one that nobody took are closed with the operation."""

    __slots__ = ("_memory", "_taken")

    _memory: tuple[bytearray, bytearray, bytearray]  # msghdr, name, control data: written by the kernel
    _taken: bool

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        *_, self._memory = keep
        self._taken = False

    def _value(self, res: int, cqe_flags: int) -> Message:
        header, name, _ = self._memory
        got = abi.MSGHDR.unpack(header)
        message = Message(res, self._ancdata(), got["msg_flags"], decode_address(bytes(name[: got["msg_namelen"]])))
        self._taken = True; return message  # fmt: skip

    def _ancdata(self) -> list[AncillaryData]:
        header, _, control = self._memory
        return list(unpack_control(control[: abi.MSGHDR.get(header, "msg_controllen")]))

    def __del__(self) -> None:
        cqe = getattr(self, "cqe", None)
        if cqe is None or cqe[1] < 0 or self._taken or not self._memory[2]:
            return
        import socket

        for level, kind, data in self._ancdata():
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                for fd in memoryview(data).cast("i"):
                    close_quietly(fd)


class SocketOperations(OwnedOperations):
    """The owned operations on sockets."""

    __slots__ = ()

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
        self._check_table(into)
        fd, fixed = fd_of(listener, self._file_table)
        into.check()
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
        self._check_table(into)
        fd, fixed = fd_of(listener, self._file_table)
        into.check()
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
        keep, addr, nbytes = pin_readable(encode_address(_family(sock, family), address))
        return self._queue(Operation, self.sq.prep_connect, (fd, addr, nbytes), (sock, keep), callback,
                           sqe_flags | fixed)  # fmt: skip

    def send(
        self, sock: FileLike, buffer: Buffer, msg_flags: int = 0, *, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Send `buffer`. Result: bytes sent, may be short unless `msg_flags` has MSG_WAITALL. One at a time per socket."""
        fd, fixed = fd_of(sock, self._file_table)
        keep, addr, nbytes = pin_readable(buffer)
        if sqe_flags:
            self._check_sqe_flags(sqe_flags)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "send", (sock, keep), callback)
            self.sq.prep_send(fd, addr, nbytes, msg_flags, ioprio, user_data=token,
                              sqe_flags=sqe_flags | fixed | self._link_flag)  # fmt: skip
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def recv(
        self, sock: FileLike, buffer: Buffer, msg_flags: int = 0, *, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Receive into `buffer`, which is locked against resize until the final completion. Result: bytes, 0 at the end.

        One at a time per socket.
        """
        fd, fixed = fd_of(sock, self._file_table)
        keep, addr, nbytes = pin_writable(buffer)
        if sqe_flags:
            self._check_sqe_flags(sqe_flags)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "recv", (sock, keep), callback)
            self.sq.prep_recv(fd, addr, nbytes, msg_flags, ioprio, user_data=token,
                              sqe_flags=sqe_flags | fixed | self._link_flag)  # fmt: skip
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def recv_select(
        self, sock: FileLike, pool: BufferGroup, msg_flags: int = 0, *, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> BufferOperation:  # fmt: skip
        """Receive once into a provided buffer that the kernel picks when data is there. Result: the bytes received."""
        self._check_group(pool)
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(
            BufferOperation, self.sq.prep_recv, (fd, 0, pool.nbytes, msg_flags), (sock, pool), callback,
            sqe_flags | fixed | abi.SqeFlag.BUFFER_SELECT, buf_group=pool.bgid, ioprio=ioprio,
        )  # fmt: skip

    def recv_multishot(
        self, sock: FileLike, pool: BufferGroup, msg_flags: int = 0, *, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> BufferStream:  # fmt: skip
        """Receive into buffers of `pool` until the end, an error or ENOBUFS (pool empty): see `BufferGroup.lend`."""
        self._check_group(pool)
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(BufferStream, self.sq.prep_recv_multishot, (fd, 0, 0, msg_flags), (sock, pool), callback,
                           sqe_flags | fixed, buf_group=pool.bgid, ioprio=ioprio)  # fmt: skip

    def sendmsg(
        self, sock: FileLike, buffers: Sequence[Buffer], ancdata: Iterable[tuple[int, int, Buffer]] = (),
        msg_flags: int = 0, address: Any = None, *, family: int | None = None,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Send several buffers, control data and a destination, as socket.sendmsg does. Result: bytes sent."""
        fd, fixed = fd_of(sock, self._file_table)
        vectors, iov_addr, count = pin_iovecs(buffers, writable=False)
        name = _NO_MEMORY if address is None else pin_readable(encode_address(_family(sock, family), address))
        control = pin_readable(pack_control(ancdata))
        header = abi.MSGHDR.pack(msg_name=name[1], msg_namelen=name[2], msg_iov=iov_addr, msg_iovlen=count,
                                 msg_control=control[1] if control[2] else 0, msg_controllen=control[2])  # fmt: skip
        pinned, addr, _ = pin_writable(header)
        return self._queue(Operation, self.sq.prep_sendmsg, (fd, addr, msg_flags),
                           (sock, vectors, name, control, pinned), callback, sqe_flags | fixed)  # fmt: skip

    def recvmsg(
        self, sock: FileLike, buffers: Sequence[Buffer], control_nbytes: int = 0, msg_flags: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> MessageOperation:  # fmt: skip
        """Receive into several buffers, with up to `control_nbytes` of control data. Result: a `Message`."""
        fd, fixed = fd_of(sock, self._file_table)
        vectors, iov_addr, count = pin_iovecs(buffers, writable=True)
        memory = bytearray(abi.MSGHDR.nbytes), bytearray(abi.SOCKADDR_STORAGE.nbytes), bytearray(control_nbytes)
        pins = [pin_writable(part) for part in memory]
        for field, value in (
            ("msg_name", pins[1][1]), ("msg_namelen", pins[1][2]), ("msg_iov", iov_addr), ("msg_iovlen", count),
            ("msg_control", pins[2][1]), ("msg_controllen", pins[2][2]),
        ):  # fmt: skip
            abi.MSGHDR.put(memory[0], field, value)
        return self._queue(MessageOperation, self.sq.prep_recvmsg, (fd, pins[0][1], msg_flags),
                           (sock, vectors, pins, memory), callback, sqe_flags | fixed)  # fmt: skip

    def shutdown(
        self, sock: FileLike, how: int, *, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Shut down a direction: socket.SHUT_RD, SHUT_WR or SHUT_RDWR. Result: 0."""
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(Operation, self.sq.prep_shutdown, (fd, how), sock, callback, sqe_flags | fixed)


def _family(sock: FileLike, family: int | None) -> int:
    if family is None:
        family = getattr(sock, "family", None)
    if family is None or isinstance(sock, (int, Fixed)) and family is None:
        raise BufferUseError("the address family of an fd or a Fixed is not known here: pass family=socket.AF_...")
    return int(family)


def encode_address(family: int, address: Any) -> bytes:
    """A Python socket address as a struct sockaddr. Host names are not looked up: that would block."""
    import socket

    if family == socket.AF_UNIX:
        path = os.fsencode(address) if not isinstance(address, (bytes, bytearray)) else bytes(address)
        if len(path) >= 108:
            raise ValueError(f"an AF_UNIX path has at most 107 bytes: {len(path)}")
        # The abstract namespace starts with a zero byte and has no terminator.
        return bytes(abi.SOCKADDR_UN.pack(sun_family=family)[:2]) + path + (b"" if path[:1] == b"\0" else b"\0")
    try:
        if family == socket.AF_INET:
            host, port = address
            return bytes(abi.SOCKADDR_IN.pack(
                sin_family=family, sin_port=port, sin_addr=socket.inet_pton(family, host)))  # fmt: skip
        if family == socket.AF_INET6:
            host, port, flowinfo, scope_id = (*address, 0, 0)[:4]
            return bytes(abi.SOCKADDR_IN6.pack(
                sin6_family=family, sin6_port=port, sin6_flowinfo=flowinfo, sin6_scope_id=scope_id,
                sin6_addr=socket.inet_pton(family, host)))  # fmt: skip
    except OSError:
        kind = "IPv6" if family == socket.AF_INET6 else "IPv4"
        raise ValueError(
            f"{host!r} is not a numeric {kind} address: look names up with socket.getaddrinfo first, since that blocks"
        ) from None
    except (TypeError, ValueError, struct.error):
        raise ValueError(f"{address!r} is no address of this family: use (host, port) as socket.connect does") from None
    raise ValueError(f"addresses of family {family} are not known here: encode the sockaddr and use sq.prep_connect")


def decode_address(name: bytes) -> Any:
    """A struct sockaddr as a Python socket address; None without one; the bytes of an unknown family."""
    import socket

    if len(name) < 2:
        return None
    family = abi.SOCKADDR_STORAGE.get(name.ljust(abi.SOCKADDR_STORAGE.nbytes, b"\0"), "ss_family")
    if family == socket.AF_INET:
        fields = abi.SOCKADDR_IN.unpack(name)
        return socket.inet_ntop(family, fields["sin_addr"]), fields["sin_port"]
    if family == socket.AF_INET6:
        fields = abi.SOCKADDR_IN6.unpack(name)
        host = socket.inet_ntop(family, fields["sin6_addr"])
        return host, fields["sin6_port"], fields["sin6_flowinfo"], fields["sin6_scope_id"]
    if family == socket.AF_UNIX:
        path = name[2:]
        return path if path[:1] == b"\0" else os.fsdecode(path.split(b"\0", 1)[0])
    return name


_CMSG_ALIGN = 8  # sizeof(long) on 64-bit machines


def _aligned(nbytes: int) -> int:
    return (nbytes + _CMSG_ALIGN - 1) & ~(_CMSG_ALIGN - 1)


def pack_control(ancdata: Iterable[tuple[int, int, Buffer]]) -> bytes:
    """Control messages (level, type, data) as the kernel reads them (cmsg(3))."""
    control = b""
    for level, kind, data in ancdata:
        payload = bytes(data)
        header = abi.CMSGHDR.pack(cmsg_len=abi.CMSGHDR.nbytes + len(payload), cmsg_level=level, cmsg_type=kind)
        control += bytes(header) + payload.ljust(_aligned(len(payload)), b"\0")
    return control


def unpack_control(control: bytearray) -> Iterable[AncillaryData]:
    """The control messages in what the kernel wrote."""
    at = 0
    while at + abi.CMSGHDR.nbytes <= len(control):
        header = abi.CMSGHDR.unpack(control, at)
        end = at + header["cmsg_len"]
        if header["cmsg_len"] < abi.CMSGHDR.nbytes:
            return
        yield header["cmsg_level"], header["cmsg_type"], bytes(control[at + abi.CMSGHDR.nbytes : end])
        at = _aligned(end)
