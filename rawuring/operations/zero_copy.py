"""Owned operations that send without copying: send_zc, sendmsg_zc, and both from registered buffers.

May import everything below ring. What the operations share is in `operations.base`, and
`inflight.ZeroCopyOperation` says what their two completions are.

The keyword arguments that they share
    zc_flags     RecvSend bits: POLL_FIRST; ZC_REPORT_USAGE (Linux 6.2), for `copied` to tell whether
                 the kernel copied after all, as it does over loopback
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import abi
from ..buffers import Buffer, RegisteredBuffers, iovec_array, pin_iovecs, pin_readable
from ..files import FileLike, fd_of
from ..hints import Any
from ..inflight import Callback, ZeroCopyOperation
from .addresses import NO_ADDRESS, pin_address
from .base import OwnedOperations
from .messages import pin_message

_REPORT_USAGE = int(abi.RecvSend.ZC_REPORT_USAGE)


class ZeroCopyOperations(OwnedOperations):
    """The owned operations that send without copying."""

    __slots__ = ()

    def send_zc(
        self, sock: FileLike, buffer: Buffer, msg_flags: int = 0, address: Any = None, *, family: int | None = None,
        zc_flags: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> ZeroCopyOperation:  # fmt: skip
        """Send `buffer` without copying it. Result: bytes sent. One at a time per socket. Linux 6.0.

        The buffer is the kernel's until `wait_released()`: what is written into it before is sent.
        Pays for large buffers on TCP or UDP and a real network card; other sockets refuse it with EOPNOTSUPP.
        """
        fd, fixed = fd_of(sock, self._file_table)
        keep, addr, nbytes = pin_readable(buffer)
        name = NO_ADDRESS if address is None else pin_address(sock, address, family)
        return self._queue(
            ZeroCopyOperation, self.sq.prep_send_zc, (fd, addr, nbytes, msg_flags, zc_flags, name[1], name[2]),
            (_reports(zc_flags), sock, keep, name), callback, sqe_flags | fixed, _form("send_zc", zc_flags),
        )  # fmt: skip

    def send_zc_fixed(
        self, sock: FileLike, buffers: RegisteredBuffers, index: int, msg_flags: int = 0, address: Any = None, *,
        start: int = 0, nbytes: int | None = None, family: int | None = None, zc_flags: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> ZeroCopyOperation:  # fmt: skip
        """Send from registered buffer `index`, from its byte `start`, up to `nbytes` (None: to its end). Linux 6.0."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(sock, self._file_table)
        keep, addr, size = buffers.place(index, start, nbytes)
        name = NO_ADDRESS if address is None else pin_address(sock, address, family)
        return self._queue(
            ZeroCopyOperation, self.sq.prep_send_zc_fixed,
            (fd, addr, size, msg_flags, zc_flags, index, name[1], name[2]),
            (_reports(zc_flags), sock, keep, name), callback, sqe_flags | fixed, _form("send_zc_fixed", zc_flags),
        )  # fmt: skip

    def sendmsg_zc(
        self, sock: FileLike, buffers: Sequence[Buffer], ancdata: Iterable[tuple[int, int, Buffer]] = (),
        msg_flags: int = 0, address: Any = None, *, family: int | None = None, zc_flags: int = 0,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> ZeroCopyOperation:  # fmt: skip
        """Send several buffers without copying them, with control data and a destination. Result: bytes sent. Linux 6.1."""
        fd, fixed = fd_of(sock, self._file_table)
        name = NO_ADDRESS if address is None else pin_address(sock, address, family)
        keep, addr = pin_message(pin_iovecs(buffers, writable=False), ancdata, name)
        return self._queue(
            ZeroCopyOperation, self.sq.prep_sendmsg_zc, (fd, addr, msg_flags, zc_flags),
            (_reports(zc_flags), sock, keep), callback, sqe_flags | fixed, _form("sendmsg_zc", zc_flags),
        )  # fmt: skip

    def sendmsg_zc_fixed(
        self, sock: FileLike, buffers: RegisteredBuffers, index: int, parts: Sequence[tuple[int, int]],
        ancdata: Iterable[tuple[int, int, Buffer]] = (), msg_flags: int = 0, address: Any = None, *,
        family: int | None = None, zc_flags: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> ZeroCopyOperation:  # fmt: skip
        """Send parts of registered buffer `index`, each as (start, bytes), one after the other. Linux 6.15."""
        self._check_buffers(buffers)
        fd, fixed = fd_of(sock, self._file_table)
        name = NO_ADDRESS if address is None else pin_address(sock, address, family)
        vectors = iovec_array([buffers.place(index, start, nbytes) for start, nbytes in parts])
        keep, addr = pin_message(vectors, ancdata, name)
        return self._queue(
            ZeroCopyOperation, self.sq.prep_sendmsg_zc_fixed, (fd, addr, msg_flags, index, zc_flags),
            (_reports(zc_flags), sock, keep), callback, sqe_flags | fixed, _form("sendmsg_zc_fixed", zc_flags),
        )  # fmt: skip


def _reports(zc_flags: int) -> bool:
    return bool(zc_flags & _REPORT_USAGE)


def _form(name: str, zc_flags: int) -> str:
    """What errors call it: the report came later than the operations."""
    return f"{name} with ZC_REPORT_USAGE" if zc_flags & _REPORT_USAGE and name != "sendmsg_zc_fixed" else name
