"""Encoders for the life of sockets: SOCKET, BIND, LISTEN, ACCEPT, CONNECT, SHUTDOWN.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

from .. import abi
from .base import Encoder, encoded_file_index

_ACCEPT = int(abi.Op.ACCEPT)
_CONNECT = int(abi.Op.CONNECT)
_SHUTDOWN = int(abi.Op.SHUTDOWN)
_SOCKET = int(abi.Op.SOCKET)
_BIND = int(abi.Op.BIND)
_LISTEN = int(abi.Op.LISTEN)

_ACCEPT_MULTISHOT = int(abi.Accept.MULTISHOT)


class SocketPreps(Encoder):
    """The `prep_*` methods for the life of sockets."""

    __slots__ = ()

    def prep_socket(
        self, domain: int, socktype: int, protocol: int, reserved_flags: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SOCKET: make a socket. `socktype` may contain SOCK_CLOEXEC and SOCK_NONBLOCK.

        Since      Linux 5.19           Man   io_uring_prep_socket(3), socket(2)
        Memory     none
        CQE res    an fd, yours to close; < 0 -errno: EAFNOSUPPORT, EPROTONOSUPPORT, EMFILE, ...
        CQE flags  none
        Limit      `reserved_flags` is 0
        """
        self._encode(_SOCKET, domain, socktype, 0, protocol, reserved_flags, user_data, sqe_flags,
                     personality=personality)  # fmt: skip

    def prep_socket_direct(
        self, domain: int, socktype: int, protocol: int, file_index: int, reserved_flags: int = 0,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SOCKET into slot `file_index` of the file table, or FILE_INDEX_ALLOC.

        Since      Linux 5.19           Man   io_uring_prep_socket_direct(3)
        Memory     none
        CQE res    0, or the slot with FILE_INDEX_ALLOC; < 0 -errno: ENFILE table full, ENXIO no table, ...
        CQE flags  none
        Limit      SOCK_CLOEXEC gives EINVAL; `reserved_flags` is 0
        """
        self._encode(_SOCKET, domain, socktype, 0, protocol, reserved_flags, user_data, sqe_flags,
                     personality=personality, file_index=encoded_file_index(file_index))  # fmt: skip

    def prep_socket_direct_alloc(
        self, domain: int, socktype: int, protocol: int, reserved_flags: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SOCKET into a slot of the file table that the kernel picks.

        Since      Linux 5.19           Man   io_uring_prep_socket_direct_alloc(3)
        Memory     none
        CQE res    the slot; < 0 -errno: ENFILE table full or no table, EAFNOSUPPORT, ...
        CQE flags  none
        Limit      SOCK_CLOEXEC gives EINVAL; `reserved_flags` is 0
        """
        self._encode(_SOCKET, domain, socktype, 0, protocol, reserved_flags, user_data, sqe_flags,
                     personality=personality, file_index=abi.FILE_INDEX_ALLOC)  # fmt: skip

    def prep_bind(
        self, fd: int, sockaddr_addr: int, addrlen: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_BIND: bind to the struct sockaddr of `addrlen` bytes at `sockaddr_addr`.

        Since      Linux 6.11           Man   io_uring_prep_bind(3), bind(2)
        Memory     submit: the address
        CQE res    0; < 0 -errno: EADDRINUSE, EACCES, EINVAL bound already, ...
        CQE flags  none
        """
        self._encode(_BIND, fd, addrlen, sockaddr_addr, 0, 0, user_data, sqe_flags, personality=personality)

    def prep_listen(
        self, fd: int, backlog: int, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_LISTEN: let a socket accept connections, of which `backlog` may wait.

        Since      Linux 6.11           Man   io_uring_prep_listen(3), listen(2)
        Memory     none
        CQE res    0; < 0 -errno: EADDRINUSE, EOPNOTSUPP, ...
        CQE flags  none
        """
        self._encode(_LISTEN, fd, 0, 0, backlog, 0, user_data, sqe_flags, personality=personality)

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
