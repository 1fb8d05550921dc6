"""Encoders for sockets: ACCEPT, CONNECT, SEND, RECV, SENDMSG, RECVMSG, SHUTDOWN.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

from .. import abi
from .base import SOCKET_IO, Encoder
from .files import encoded_file_index

_SENDMSG = int(abi.Op.SENDMSG)
_RECVMSG = int(abi.Op.RECVMSG)
_ACCEPT = int(abi.Op.ACCEPT)
_CONNECT = int(abi.Op.CONNECT)
_SEND = int(abi.Op.SEND)
_RECV = int(abi.Op.RECV)
_SHUTDOWN = int(abi.Op.SHUTDOWN)

_ACCEPT_MULTISHOT = int(abi.Accept.MULTISHOT)
_RECV_MULTISHOT = int(abi.RecvSend.RECV_MULTISHOT)
_BUFFER_SELECT = int(abi.SqeFlag.BUFFER_SELECT)

_pack_socket_io = SOCKET_IO.pack_into


class SocketPreps(Encoder):
    """The `prep_*` methods for sockets."""

    __slots__ = ()

    def prep_send(
        self, sockfd: int, addr: int, nbytes: int, msg_flags: int, ioprio: int = 0, buf_group: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SEND: send up to `nbytes` from memory at `addr`.

        With MSG_WAITALL a send that blocks is continued by the kernel until all is sent.

        Since      Linux 5.6            Man   io_uring_prep_send(3), send(2)
        Memory     completion: [addr, addr + nbytes) is read
        CQE res    n >= 0 bytes, may be short; < 0 -errno: EPIPE (no signal), ECONNRESET, ECANCELED, ...
        CQE flags  BUFFER with BUFFER_SELECT (6.10)
        Limit      one send in flight per socket, or their bytes may mix
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_socket_io(self._sqes, at, _SEND, sqe_flags, ioprio,
                        sockfd, addr, nbytes, msg_flags, user_data, buf_group, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_recv(
        self, sockfd: int, addr: int, nbytes: int, msg_flags: int, ioprio: int = 0, buf_group: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_RECV: receive up to `nbytes` into memory at `addr`.

        Since      Linux 5.6            Man   io_uring_prep_recv(3), recv(2)
        Memory     completion: [addr, addr + nbytes) is written
        CQE res    n > 0 bytes, may be short; 0 peer closed; < 0 -errno: ECONNRESET, ECANCELED, ENOBUFS, ...
        CQE flags  SOCK_NONEMPTY: more is waiting; BUFFER with BUFFER_SELECT
        Limit      one recv in flight per socket, or their order is undefined
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_socket_io(self._sqes, at, _RECV, sqe_flags, ioprio,
                        sockfd, addr, nbytes, msg_flags, user_data, buf_group, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_recv_multishot(
        self, sockfd: int, addr: int, nbytes: int, msg_flags: int, buf_group: int, ioprio: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue a multishot IORING_OP_RECV: a CQE each time data comes, in a buffer of `buf_group`.

        BUFFER_SELECT is set for you; `addr` is 0; `nbytes` caps each CQE, 0 is a whole buffer.

        Since      Linux 6.0            Man   io_uring_prep_recv_multishot(3)
        Memory     final: the provided buffers, of which each is yours from its CQE until given back
        CQE res    n > 0 bytes; 0 peer closed; < 0 -errno: ENOBUFS (group empty), ECONNRESET, ECANCELED, ...
        CQE flags  BUFFER: id in cqe_flags >> 16; MORE: still armed, without it queue it anew; SOCK_NONEMPTY
        Limit      one recv in flight per socket
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_socket_io(self._sqes, at, _RECV, sqe_flags | _BUFFER_SELECT,
                        ioprio | _RECV_MULTISHOT, sockfd, addr, nbytes, msg_flags, user_data,
                        buf_group, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_sendmsg(
        self, fd: int, msg_addr: int, msg_flags: int, ioprio: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SENDMSG: send what the struct msghdr at `msg_addr` names.

        Since      Linux 5.3            Man   io_uring_prep_sendmsg(3), sendmsg(2)
        Memory     submit: msghdr, iovec array and name; completion: control data and the buffers are read
        CQE res    n >= 0 bytes, may be short; < 0 -errno: EPIPE, ECONNRESET, EMSGSIZE, ...
        CQE flags  none
        Limit      one send in flight per socket, or their bytes may mix
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_socket_io(self._sqes, at, _SENDMSG, sqe_flags, ioprio,
                        fd, msg_addr, 1, msg_flags, user_data, 0, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_recvmsg(
        self, fd: int, msg_addr: int, msg_flags: int, ioprio: int = 0, buf_group: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_RECVMSG: receive into what the struct msghdr at `msg_addr` names.

        Since      Linux 5.3            Man   io_uring_prep_recvmsg(3), recvmsg(2)
        Memory     submit: the iovec array; completion: msghdr, name, control data and buffers are written
        CQE res    n >= 0 bytes; 0 peer closed; < 0 -errno
        CQE flags  SOCK_NONEMPTY; BUFFER with BUFFER_SELECT
        Limit      one recv in flight per socket, or their order is undefined
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_socket_io(self._sqes, at, _RECVMSG, sqe_flags, ioprio,
                        fd, msg_addr, 1, msg_flags, user_data, buf_group, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_accept(
        self, fd: int, sockaddr_addr: int, addrlen_addr: int, accept_flags: int, ioprio: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_ACCEPT: take one connection from a listening socket.

        `sockaddr_addr` and `addrlen_addr` (a socklen_t, in and out) are both 0, or both memory
        for the peer's address. `accept_flags` are SOCK_CLOEXEC and SOCK_NONBLOCK.

        Since      Linux 5.5            Man   io_uring_prep_accept(3), accept4(2)
        Memory     completion: the address and its length are written
        CQE res    an fd, yours to close; < 0 -errno: EMFILE, ECANCELED, ...
        CQE flags  SOCK_NONEMPTY (6.10): more connections are waiting
        """
        self._encode(_ACCEPT, fd, addrlen_addr, sockaddr_addr, 0, accept_flags, user_data, sqe_flags,
                     ioprio=ioprio, personality=personality)  # fmt: skip

    def prep_accept_direct(
        self, fd: int, sockaddr_addr: int, addrlen_addr: int, accept_flags: int, file_index: int,
        ioprio: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_ACCEPT into slot `file_index` of the file table, or FILE_INDEX_ALLOC.

        Since      Linux 5.15           Man   io_uring_prep_accept_direct(3)
        Memory     completion: the address and its length are written
        CQE res    0, or the slot with FILE_INDEX_ALLOC (5.19); < 0 -errno: ENFILE table full (the
                   connection is accepted and destroyed), ENXIO no table, ...
        CQE flags  SOCK_NONEMPTY (6.10)
        Limit      SOCK_CLOEXEC gives EINVAL
        """
        self._encode(_ACCEPT, fd, addrlen_addr, sockaddr_addr, 0, accept_flags, user_data, sqe_flags,
                     ioprio=ioprio, personality=personality,
                     file_index=encoded_file_index(file_index))  # fmt: skip

    def prep_multishot_accept(
        self, fd: int, sockaddr_addr: int, addrlen_addr: int, accept_flags: int, ioprio: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue a multishot IORING_OP_ACCEPT: a CQE for each connection.

        Since      Linux 5.19           Man   io_uring_prep_multishot_accept(3)
        Memory     final: the address and its length, overwritten by each connection: better 0
        CQE res    an fd, yours to close; < 0 -errno: EMFILE, ECANCELED, ...
        CQE flags  MORE: still armed, without it queue it anew; SOCK_NONEMPTY (6.10)
        """
        self._encode(_ACCEPT, fd, addrlen_addr, sockaddr_addr, 0, accept_flags, user_data, sqe_flags,
                     ioprio=ioprio | _ACCEPT_MULTISHOT, personality=personality)  # fmt: skip

    def prep_multishot_accept_direct(
        self, fd: int, sockaddr_addr: int, addrlen_addr: int, accept_flags: int, ioprio: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue a multishot IORING_OP_ACCEPT into slots of the file table that the kernel picks.

        Since      Linux 5.19           Man   io_uring_prep_multishot_accept_direct(3)
        Memory     final: the address and its length, overwritten by each connection: better 0
        CQE res    a slot, yours to close; < 0 -errno: ENFILE table full (the connection is
                   accepted and destroyed), ...
        CQE flags  MORE: still armed, without it queue it anew; SOCK_NONEMPTY (6.10)
        Limit      SOCK_CLOEXEC gives EINVAL
        """
        self._encode(_ACCEPT, fd, addrlen_addr, sockaddr_addr, 0, accept_flags, user_data, sqe_flags,
                     ioprio=ioprio | _ACCEPT_MULTISHOT, personality=personality,
                     file_index=abi.FILE_INDEX_ALLOC)  # fmt: skip

    def prep_connect(
        self, fd: int, sockaddr_addr: int, addrlen: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_CONNECT: connect to the struct sockaddr of `addrlen` bytes at `sockaddr_addr`.

        Since      Linux 5.5            Man   io_uring_prep_connect(3), connect(2)
        Memory     submit: the address
        CQE res    0; < 0 -errno: ECONNREFUSED, ETIMEDOUT, ECANCELED, ...
        CQE flags  none
        """
        self._encode(_CONNECT, fd, addrlen, sockaddr_addr, 0, 0, user_data, sqe_flags, personality=personality)

    def prep_shutdown(self, fd: int, how: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_SHUTDOWN: `how` is socket.SHUT_RD, SHUT_WR or SHUT_RDWR.

        Since      Linux 5.11           Man   io_uring_prep_shutdown(3), shutdown(2)
        Memory     none
        CQE res    0; < 0 -errno: ENOTCONN, ...
        CQE flags  none
        """
        self._encode(_SHUTDOWN, fd, 0, 0, how, 0, user_data, sqe_flags)
