"""Encoders for sending and receiving: SEND, RECV, SENDMSG, RECVMSG, as multishot and as bundles.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.
"""

from __future__ import annotations

from .. import abi
from .base import SEND_TO, SOCKET_IO, SQE, Encoder

_SENDMSG = int(abi.Op.SENDMSG)
_RECVMSG = int(abi.Op.RECVMSG)
_SEND = int(abi.Op.SEND)
_RECV = int(abi.Op.RECV)

_RECV_MULTISHOT = int(abi.RecvSend.RECV_MULTISHOT)
_BUNDLE = int(abi.RecvSend.BUNDLE)
_BUFFER_SELECT = int(abi.SqeFlag.BUFFER_SELECT)

_pack_socket_io = SOCKET_IO.pack_into
_pack_sqe = SQE.pack_into


class TransferPreps(Encoder):
    """The `prep_*` methods for sending and receiving."""

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

    def prep_sendto(
        self, sockfd: int, addr: int, nbytes: int, msg_flags: int, sockaddr_addr: int, addrlen: int,
        ioprio: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SEND to the struct sockaddr of `addrlen` bytes at `sockaddr_addr`.

        Since      Linux 6.1            Man   io_uring_prep_sendto(3), sendto(2)
        Memory     submit: the address; completion: [addr, addr + nbytes) is read
        CQE res    n >= 0 bytes; < 0 -errno: EMSGSIZE, ECONNREFUSED, EDESTADDRREQ, ...
        CQE flags  none
        Limit      `prep_sendmsg` has an address on older kernels, too
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        SEND_TO.pack_into(self._sqes, at, _SEND, sqe_flags, ioprio, sockfd, sockaddr_addr, addr, nbytes, msg_flags,
                          user_data, 0, personality, addrlen)  # fmt: skip
        self._at = at + self._stride

    def prep_send_bundle(
        self, sockfd: int, nbytes: int, msg_flags: int, buf_group: int, ioprio: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SEND for as many buffers of `buf_group`, in their order, as can be sent at once.

        BUFFER_SELECT is set for you. `nbytes` is a limit for all of them, or 0.

        Since      Linux 6.10           Man   io_uring_prep_send_bundle(3)
        Memory     completion: the provided buffers are read, and those that were sent are yours again
        CQE res    n >= 0 bytes, over several buffers; < 0 -errno: ENOBUFS (group empty), EPIPE, ...
        CQE flags  BUFFER: id of the first in cqe_flags >> 16; MORE: see the manual
        Limit      needs a buffer ring, and Feature.RECVSEND_BUNDLE
        """
        self._encode(_SEND, sockfd, 0, 0, nbytes, msg_flags, user_data, sqe_flags | _BUFFER_SELECT,
                     ioprio=ioprio | _BUNDLE, buf=buf_group, personality=personality)  # fmt: skip

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
        personality: int = 0, total_nbytes: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue a multishot IORING_OP_RECV: a CQE each time data comes, in a buffer of `buf_group`.

        BUFFER_SELECT is set for you; `addr` is 0; `nbytes` caps each CQE, 0 is a whole buffer.
        It ends when `total_nbytes` or more came, 0 for no end. Before 6.17 both must be 0.
        With RecvSend.POLL_FIRST on a TCP socket that had been reset, or shut down with SHUT_RD,
        when bytes were still to be read, it takes these and is not told of the end (Linux 6.12;
        6.1 tells): a shutdown(2) after a CQE with MORE has it look again.

        Since      Linux 6.0            Man   io_uring_prep_recv_multishot(3)
        Memory     final: the provided buffers, of which each is yours from its CQE until given back
        CQE res    n > 0 bytes; 0 peer closed; < 0 -errno: ENOBUFS (group empty), ECONNRESET, ECANCELED, ...
        CQE flags  BUFFER: id in cqe_flags >> 16; MORE: still armed, without it queue it anew; SOCK_NONEMPTY
        Limit      one recv in flight per socket
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_sqe(self._sqes, at, _RECV, sqe_flags | _BUFFER_SELECT, ioprio | _RECV_MULTISHOT, sockfd, 0, addr, nbytes,
                  msg_flags, user_data, buf_group, personality, total_nbytes, 0, 0)  # fmt: skip
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
        Limit      one recv in flight per socket, or their order is undefined. On 6.17 and the first ones
                   of 6.18 a stream of AF_UNIX adds an SCM_INQ to the control data at each try, in vain or
                   not: without room for it MSG_CTRUNC is set. With control data from more than one try (these,
                   or MSG_WAITALL) msg_controllen counts the last one's: what follows may hold fds
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        _pack_socket_io(self._sqes, at, _RECVMSG, sqe_flags, ioprio,
                        fd, msg_addr, 1, msg_flags, user_data, buf_group, personality)  # fmt: skip
        self._at = at + self._stride

    def prep_recvmsg_multishot(
        self, fd: int, msg_addr: int, msg_flags: int, buf_group: int, ioprio: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue a multishot IORING_OP_RECVMSG: a CQE for each message, in a buffer of `buf_group`.

        BUFFER_SELECT is set for you. Of the struct msghdr at `msg_addr` only msg_namelen and
        msg_controllen count: each buffer gets a struct io_uring_recvmsg_out
        (abi.IO_URING_RECVMSG_OUT), room for a name and for control data of those sizes, then the
        payload. With RecvSend.POLL_FIRST it may miss an end as `prep_recv_multishot` does.

        Since      Linux 6.0            Man   io_uring_prep_recvmsg_multishot(3)
        Memory     submit: msghdr; final: the provided buffers, of which each is yours from its CQE until
                   given back
        CQE res    n > 0 bytes of the buffer, header included; < 0 -errno: ENOBUFS (group empty),
                   EFAULT (a buffer has no room for header, name and control data), ECANCELED, ...
        CQE flags  BUFFER: id in cqe_flags >> 16; MORE: still armed, without it queue it anew; SOCK_NONEMPTY
        Limit      one recv in flight per socket; an empty datagram ends it
        """
        self._encode(_RECVMSG, fd, 0, msg_addr, 1, msg_flags, user_data, sqe_flags | _BUFFER_SELECT,
                     ioprio=ioprio | _RECV_MULTISHOT, buf=buf_group, personality=personality)  # fmt: skip
