"""Owned operations that send and receive: send, sendto, recv, into provided buffers, as streams, as bundles.

May import everything below ring. What the operations share is in `operations.base`.
"""

from __future__ import annotations

from .. import abi
from ..buffers import Buffer, BufferGroup, BufferRing, OutgoingRing, iovec_array, pin_readable, pin_writable
from ..errors import BufferUseError, UnsupportedError
from ..files import FileLike, fd_of
from ..hints import Any
from ..inflight import BufferOperation, BufferStream, Callback, Operation, SendStream
from .addresses import pin_address
from .base import OwnedOperations
from .messages import pin_message


class TransferOperations(OwnedOperations):
    """The owned operations that send and receive."""

    __slots__ = ()

    def send(
        self, sock: FileLike, buffer: Buffer, msg_flags: int = 0, *, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Send `buffer`. Result: bytes sent, may be short unless `msg_flags` has MSG_WAITALL. One at a time per socket."""
        fd, fixed = fd_of(sock, self._file_table)
        keep, addr, nbytes = pin_readable(buffer)
        if sqe_flags or fixed or self._link_flag:
            sqe_flags = self._join_flags(sqe_flags, fixed)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "send", (sock, keep), callback)
            self.sq.prep_send(fd, addr, nbytes, msg_flags, ioprio, user_data=token, sqe_flags=sqe_flags)
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def sendto(
        self, sock: FileLike, buffer: Buffer, address: Any, msg_flags: int = 0, *, family: int | None = None,
        ioprio: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Send `buffer` to `address`, in the form that socket.sendto takes. Result: bytes sent.

        `family` is needed only where `sock` has no `family`, as an fd number or a `Fixed`. Before
        Linux 6.1 it is a sendmsg.
        """
        fd, fixed = fd_of(sock, self._file_table)
        data, addr, nbytes = pin_readable(buffer)
        name, name_addr, name_nbytes = name_pin = pin_address(sock, address, family)
        if self.supports(abi.Op.SENDMSG_ZC):  # of the same release
            return self._queue(Operation, self.sq.prep_sendto, (fd, addr, nbytes, msg_flags, name_addr, name_nbytes),
                               (sock, data, name), callback, sqe_flags | fixed, ioprio=ioprio)  # fmt: skip
        keep, addr = pin_message(iovec_array([(data, addr, nbytes)]), (), name_pin)
        return self._queue(Operation, self.sq.prep_sendmsg, (fd, addr, msg_flags), (sock, keep), callback,
                           sqe_flags | fixed, "sendto", ioprio=ioprio)  # fmt: skip

    def recv(
        self, sock: FileLike, buffer: Buffer, msg_flags: int = 0, *, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Receive into `buffer`, which is locked against resize until the final completion. Result: bytes, 0 at the end.

        One at a time per socket.
        """
        fd, fixed = fd_of(sock, self._file_table)
        keep, addr, nbytes = pin_writable(buffer)
        if sqe_flags or fixed or self._link_flag:
            sqe_flags = self._join_flags(sqe_flags, fixed)
        token = self._last_token = self._last_token + 1
        try:
            operation = self._begin(token, "recv", (sock, keep), callback)
            self.sq.prep_recv(fd, addr, nbytes, msg_flags, ioprio, user_data=token, sqe_flags=sqe_flags)
            return operation
        except BaseException:
            self._unqueue(token)
            raise

    def recv_select(
        self, sock: FileLike, pool: BufferGroup, msg_flags: int = 0, *, bundle: bool = False, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> BufferOperation:  # fmt: skip
        """Receive once into a provided buffer that the kernel picks when data is there. Result: the bytes received.

        With `bundle` into as many buffers as there is data for (Linux 6.10): see `BufferGroup.lend_bundle`.
        """
        self._check_receives(BufferOperation, pool, sqe_flags, bundle=bundle)
        if bundle:
            ioprio |= self._begin_bundles(pool)
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(
            BufferOperation, self.sq.prep_recv, (fd, 0, 0 if bundle else pool.nbytes, msg_flags), (sock, pool, bundle),
            callback, sqe_flags | fixed | abi.SqeFlag.BUFFER_SELECT, buf_group=pool.bgid, ioprio=ioprio,
        )  # fmt: skip

    def recv_multishot(
        self, sock: FileLike, pool: BufferGroup, msg_flags: int = 0, *, total_nbytes: int = 0, bundle: bool = False,
        ioprio: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> BufferStream:  # fmt: skip
        """Receive into buffers of `pool` until the end, an error or ENOBUFS (pool empty): see `BufferGroup.lend`.

        With `total_nbytes` it also ends when so many or more have come (Linux 6.17). With `bundle` a
        completion fills as many buffers as there is data for (6.10): see `BufferGroup.lend_bundle`.
        """
        self._check_receives(BufferStream, pool, sqe_flags, bundle=bundle)
        if bundle:
            ioprio |= self._begin_bundles(pool)
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(BufferStream, self.sq.prep_recv_multishot, (fd, 0, 0, msg_flags), (sock, pool, bundle),
                           callback, sqe_flags | fixed, "recv_multishot_total" if total_nbytes else "",
                           buf_group=pool.bgid, ioprio=ioprio, total_nbytes=total_nbytes)  # fmt: skip

    def send_bundle(
        self, sock: FileLike, pool: OutgoingRing, msg_flags: int = 0, *, ioprio: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> SendStream:  # fmt: skip
        """Send everything that was `put` into a group made by `Ring.send_buffers`, in that order.

        `wait()` has the number of bytes sent, over all completions: if they are fewer, or it fails, the rest is
        dropped. A send that is done before more was put may end with ENOBUFS: nothing was left. Linux 6.10.
        """
        self._check_group(pool)
        if not isinstance(pool, OutgoingRing):
            raise BufferUseError("these buffers are to receive into: Ring.send_buffers makes those to send from")
        fd, fixed = fd_of(sock, self._file_table)
        return self._queue(SendStream, self.sq.prep_send_bundle, (fd, 0, msg_flags, pool.bgid), (sock, pool, True),
                           callback, sqe_flags | fixed, ioprio=ioprio)  # fmt: skip

    def _begin_bundles(self, pool: BufferGroup) -> int:
        """Have completions of bundles located from now on. Returns what asks the kernel for one."""
        if not self.features & abi.Feature.RECVSEND_BUNDLE:
            raise UnsupportedError("receiving bundles", abi.Feature.RECVSEND_BUNDLE.since)
        if not isinstance(pool, BufferRing):
            raise BufferUseError("bundles fill buffers of a buffer ring: use what Ring.buffer_ring made")
        pool.follow()
        self._locates = True
        return int(abi.RecvSend.BUNDLE)
