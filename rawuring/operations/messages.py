"""Owned operations on messages: sendmsg, recvmsg, with control data and fds, once or as a stream.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import abi
from ..buffers import Buffer, BufferGroup, IncrementalRing, Pin, pin_iovecs, pin_readable, pin_writable
from ..errors import BufferUseError
from ..files import FileLike, fd_of
from ..hints import TYPE_CHECKING, Any, Final
from ..inflight import BufferStream, Callback, Operation, ValueOperation, Waiter, close_quietly
from .addresses import NO_ADDRESS, decode_address, pin_address
from .base import OwnedOperations

if TYPE_CHECKING:
    from .received import Message

AncillaryData = tuple[int, int, bytes]  # level, type, data: as socket.recvmsg has it

MSG_CTRUNC: Final = 0x8
MSG_TRUNC: Final = 0x20
_MSG_DONTWAIT: Final = 0x40
_MSG_CMSG_CLOEXEC: Final = 0x4000_0000
_POLL_FIRST: Final = int(abi.RecvSend.POLL_FIRST)
_FD_NBYTES: Final = 4
_HEADER_NBYTES: Final = abi.IO_URING_RECVMSG_OUT.nbytes


def fds_in(ancdata: Iterable[AncillaryData]) -> list[int]:
    """The fds that control messages brought (SCM_RIGHTS)."""
    import socket
    from array import array

    fds = array("i")
    for level, kind, data in ancdata:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) // _FD_NBYTES * _FD_NBYTES])
    return fds.tolist()


class MessageOperation(ValueOperation["Message"]):
    """A recvmsg in flight. Result: a `Message`. Fds that came with one that nobody took are closed with the operation."""

    __slots__ = ("_memory", "_taken")

    _memory: tuple[bytearray, bytearray, bytearray]  # msghdr, name, control data: written by the kernel
    _taken: bool

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        *_, self._memory = keep
        self._taken = False

    def _value(self, res: int, cqe_flags: int) -> Message:
        from .received import Message

        header, name, _ = self._memory
        got = abi.MSGHDR.unpack(header)
        message = Message(res, self._ancdata(), got["msg_flags"], decode_address(bytes(name[: got["msg_namelen"]])))
        self._taken = True; return message  # fmt: skip

    def _ancdata(self) -> list[AncillaryData]:
        # All that was written since it was zeroed: where the kernel tried more than once, msg_controllen counts
        # the last try's alone, and the fds of the others would stay open.
        return list(unpack_control(self._memory[2]))

    def __del__(self) -> None:
        cqe = getattr(self, "cqe", None)
        if cqe is None or cqe[1] < 0 or self._taken or not self._memory[2]:
            return
        for fd in fds_in(self._ancdata()):
            close_quietly(fd)


class LentMessage:
    """A message of a `MessageStream`, in its buffer, for `with`: on exit `payload` is dead and the buffer is given back.

    Fds in the control data are closed then, unless `fds` or `ancdata` was asked for: then they are yours.
    """

    __slots__ = ("_loan", "_view", "_control", "_name", "_taken", "payload", "msg_flags")

    payload: memoryview
    """What was sent, as much of it as the buffer has room for."""

    msg_flags: int

    def __init__(self, stream: MessageStream, res: int, cqe_flags: int) -> None:
        self._taken = False
        self._control = self._name = b""
        self._loan = stream.pool.lend(res, cqe_flags)
        self._view = view = self._loan.__enter__()
        start = _HEADER_NBYTES + stream.name_nbytes + stream.control_nbytes
        if len(view) < start:  # the end, or an error
            self.payload, self.msg_flags = view[:0], 0
            return
        out = abi.IO_URING_RECVMSG_OUT.unpack(view)
        name = view[_HEADER_NBYTES:][: min(out["namelen"], stream.name_nbytes)]
        control = view[_HEADER_NBYTES + stream.name_nbytes :][: min(out["controllen"], stream.control_nbytes)]
        self._name, self._control = bytes(name), bytes(control)
        self.payload = view[start : start + out["payloadlen"]]
        self.msg_flags = out["flags"]

    @property
    def address(self) -> Any:
        """Who sent it, as a Python socket address; None on a connected socket."""
        return decode_address(self._name)

    @property
    def ancdata(self) -> list[AncillaryData]:
        """The control messages, as socket.recvmsg has them. Fds among them are yours from now on."""
        self._taken = True
        return list(unpack_control(self._control))

    @property
    def fds(self) -> list[int]:
        """The fds in the control data, which are yours to close from now on."""
        return fds_in(self.ancdata)

    @property
    def is_truncated(self) -> bool:
        """Was the message longer than the buffer? The rest of it is lost."""
        return bool(self.msg_flags & MSG_TRUNC)

    @property
    def is_control_truncated(self) -> bool:
        """Was there more control data than room for it? The kernel closed the fds that were left over."""
        return bool(self.msg_flags & MSG_CTRUNC)

    def __repr__(self) -> str:
        try:
            nbytes = len(self.payload)
        except ValueError:
            return "<LentMessage given back>"
        return f"<LentMessage nbytes={nbytes} address={self.address!r} msg_flags={self.msg_flags:#x}>"

    def __enter__(self) -> LentMessage:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._close_fds()
            self.payload.release()
        finally:
            self._loan.__exit__()

    def _close_fds(self) -> None:
        if self._control and not self._taken:
            self._taken = True
            for fd in fds_in(unpack_control(self._control)):
                close_quietly(fd)

    def __del__(self) -> None:
        self._close_fds()


class MessageStream(BufferStream):
    """A recvmsg that goes on: each completion is a message in a provided buffer, which `lend` hands out.

    Buffers that nobody took go back with the operation, and the fds in them are closed.
    """

    __slots__ = ("name_nbytes", "control_nbytes")

    pool: BufferGroup
    name_nbytes: int  # room that each buffer has for an address, whether it is used or not
    control_nbytes: int  # and for control data

    def begin(self, ring: Waiter, token: int, name: str, keep: Any, callback: Callback | None) -> None:
        super().begin(ring, token, name, keep, callback)
        *_, self.name_nbytes, self.control_nbytes = keep

    def lend(self, res: int, cqe_flags: int) -> LentMessage:
        """The message of one completion, in place: once for each."""
        return LentMessage(self, res, cqe_flags)

    def discard(self, res: int, cqe_flags: int) -> None:
        if self.control_nbytes:
            at = _HEADER_NBYTES + self.name_nbytes
            for bid, start, nbytes in self.pool.parts(res, cqe_flags):
                written = self.pool.peek(bid, nbytes, start)
                if nbytes >= at + self.control_nbytes:
                    control_nbytes = min(abi.IO_URING_RECVMSG_OUT.get(written, "controllen"), self.control_nbytes)
                    for fd in fds_in(unpack_control(written[at : at + control_nbytes])):
                        close_quietly(fd)
        super().discard(res, cqe_flags)


class MessageOperations(OwnedOperations):
    """The owned operations on messages."""

    __slots__ = ()

    def sendmsg(
        self, sock: FileLike, buffers: Sequence[Buffer], ancdata: Iterable[tuple[int, int, Buffer]] = (),
        msg_flags: int = 0, address: Any = None, *, family: int | None = None, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Send several buffers, control data and a destination, as socket.sendmsg does. Result: bytes sent."""
        fd, fixed = fd_of(sock, self._file_table)
        vectors, iov_addr, count = pin_iovecs(buffers, writable=False)
        name = NO_ADDRESS if address is None else pin_address(sock, address, family)
        keep, addr = pin_message((vectors, iov_addr, count), ancdata, name)
        return self._queue(Operation, self.sq.prep_sendmsg, (fd, addr, msg_flags), (sock, keep), callback,
                           sqe_flags | fixed, ioprio=ioprio)  # fmt: skip

    def send_fds(
        self, sock: FileLike, buffers: Sequence[Buffer], fds: Sequence[int], msg_flags: int = 0, address: Any = None,
        *, family: int | None = None, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Send fds along with at least one byte over an AF_UNIX socket, as socket.send_fds does. Result: bytes sent.

        The other end gets fds of its own for the same files; keep yours open until this is done.
        """
        import socket
        from array import array

        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds).tobytes())
        return self.sendmsg(sock, buffers, [rights], msg_flags, address, family=family, callback=callback,
                            sqe_flags=sqe_flags)  # fmt: skip

    def recvmsg(
        self, sock: FileLike, buffers: Sequence[Buffer], control_nbytes: int = 0, msg_flags: int = 0, *,
        ioprio: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> MessageOperation:  # fmt: skip
        """Receive into several buffers, with up to `control_nbytes` of control data. Result: a `Message`.

        On Linux 6.17 and the first ones of 6.18 a stream of AF_UNIX adds a control message SCM_INQ (24
        bytes) that nobody asked for at each try, which comes before the fds if there was nothing yet;
        without room for it the message says that its control data is truncated.
        """
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
                           (sock, vectors, pins, memory), callback, sqe_flags | fixed, ioprio=ioprio)  # fmt: skip

    def recv_fds(
        self, sock: FileLike, buffers: Sequence[Buffer], maxfds: int, msg_flags: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> MessageOperation:  # fmt: skip
        """Receive with room for up to `maxfds` fds. Result: a `Message`, whose `fds` are yours to close.

        They are closed on exec, as every fd that Python makes.
        """
        control_nbytes = abi.CMSGHDR.nbytes + _aligned(maxfds * _FD_NBYTES)
        # On Linux 6.17 a try in vain would take of the room for fds: wait first.
        polls_first = self.supports(abi.Op.SOCKET) and not msg_flags & _MSG_DONTWAIT  # SOCKET: of the same release
        return self.recvmsg(sock, buffers, control_nbytes, msg_flags | _MSG_CMSG_CLOEXEC,
                            ioprio=_POLL_FIRST if polls_first else 0, callback=callback, sqe_flags=sqe_flags)  # fmt: skip

    def recvmsg_multishot(
        self, sock: FileLike, pool: BufferGroup, control_nbytes: int = 0, msg_flags: int = 0, *,
        name_nbytes: int = abi.SOCKADDR_STORAGE.nbytes, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> MessageStream:  # fmt: skip
        """Receive messages into buffers of `pool` until an error or ENOBUFS (pool empty): see `MessageStream.lend`.

        Each buffer has 16 bytes of a header, then `name_nbytes` and `control_nbytes` of room for the
        sender's address and for control data, used or not, and what is left for the message itself.
        Before Linux 6.18 a message without any data ends the stream.

        Example
            import socket
            from rawuring import Ring

            ours, theirs = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
            with Ring() as ring, ours, theirs:
                ours.bind(("127.0.0.1", 0))
                pool = ring.buffer_ring(count=8, nbytes=2048)
                stream = ring.recvmsg_multishot(ours, pool)
                theirs.sendto(b"hello", ours.getsockname())
                with stream.lend(*stream.next()) as message:
                    print(bytes(message.payload), message.address[0])  # b'hello' 127.0.0.1
        """
        self._check_receives(MessageStream, pool, sqe_flags)
        fd, fixed = fd_of(sock, self._file_table)
        if isinstance(pool, IncrementalRing):
            raise BufferUseError("messages need whole buffers: one does not fit into what is left of an incremental one")
        if control_nbytes < 0 or name_nbytes < 0 or pool.nbytes <= _HEADER_NBYTES + name_nbytes + control_nbytes:
            raise BufferUseError(
                f"a buffer of {pool.nbytes} bytes has no room for a header of {_HEADER_NBYTES}, an address of up to "
                f"{name_nbytes}, control data of up to {control_nbytes} and a message"
            )
        header, addr, _ = pin_writable(abi.MSGHDR.pack(msg_namelen=name_nbytes, msg_controllen=control_nbytes))
        return self._queue(MessageStream, self.sq.prep_recvmsg_multishot, (fd, addr, msg_flags),
                           (sock, pool, False, header, name_nbytes, control_nbytes), callback, sqe_flags | fixed,
                           buf_group=pool.bgid, ioprio=ioprio)  # fmt: skip


def pin_message(vectors: Pin, ancdata: Iterable[tuple[int, int, Buffer]], name: Pin) -> tuple[object, int]:
    """Pin a struct msghdr for sending. Returns (keep, address)."""
    control = pin_readable(pack_control(ancdata))
    header = abi.MSGHDR.pack(msg_name=name[1], msg_namelen=name[2], msg_iov=vectors[1], msg_iovlen=vectors[2],
                             msg_control=control[1] if control[2] else 0, msg_controllen=control[2])  # fmt: skip
    pinned, addr, _ = pin_writable(header)
    return (vectors, name, control, pinned), addr


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


def unpack_control(control: bytes | bytearray) -> Iterable[AncillaryData]:
    """The control messages in what the kernel wrote."""
    at = 0
    while at + abi.CMSGHDR.nbytes <= len(control):
        header = abi.CMSGHDR.unpack(control, at)
        end = at + header["cmsg_len"]
        if header["cmsg_len"] < abi.CMSGHDR.nbytes:
            return
        yield header["cmsg_level"], header["cmsg_type"], bytes(control[at + abi.CMSGHDR.nbytes : end])
        at = _aligned(end)
