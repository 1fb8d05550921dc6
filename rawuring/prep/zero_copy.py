"""Encoders for sockets without copies: SEND_ZC, SENDMSG_ZC, RECV_ZC.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.

Two CQEs of a send
    The first tells what was sent. If it has CqeFlag.MORE, a second one with CqeFlag.NOTIF
    follows, and until then the data must stay as it is: the network card may still read it. A
    send that failed may have both as well, so MORE alone decides. The res of the second is 0;
    with RecvSend.ZC_REPORT_USAGE (6.2) in `zc_flags` it is abi.NOTIF_USAGE_ZC_COPIED, as a
    signed number, if the kernel copied after all (as it does over loopback).
"""

from __future__ import annotations

from .. import abi
from .base import SEND_TO, Encoder

_SEND_ZC = int(abi.Op.SEND_ZC)
_SENDMSG_ZC = int(abi.Op.SENDMSG_ZC)
_RECV_ZC = int(abi.Op.RECV_ZC)

_FIXED_BUF = int(abi.RecvSend.FIXED_BUF)
_RECV_MULTISHOT = int(abi.RecvSend.RECV_MULTISHOT)


class ZeroCopyPreps(Encoder):
    """The `prep_*` methods for sockets without copies."""

    __slots__ = ()

    def prep_send_zc(
        self, sockfd: int, addr: int, nbytes: int, msg_flags: int, zc_flags: int, sockaddr_addr: int = 0,
        addrlen: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SEND_ZC: send up to `nbytes` from memory at `addr` without copying them.

        `zc_flags` are RecvSend bits. `sockaddr_addr` and `addrlen` name a receiver, as
        io_uring_prep_send_set_addr(3) does.

        Since      Linux 6.0            Man   io_uring_prep_send_zc(3)
        Memory     submit: the address; notif: [addr, addr + nbytes) is read
        CQE res    n >= 0 bytes, may be short; < 0 -errno: EOPNOTSUPP not on this socket, EPIPE, ...
        CQE flags  MORE: a second CQE follows; NOTIF: this is the second
        Limit      one send in flight per socket, or their bytes may mix; no CQE_SKIP_SUCCESS
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        SEND_TO.pack_into(self._sqes, at, _SEND_ZC, sqe_flags, zc_flags, sockfd, sockaddr_addr, addr, nbytes,
                          msg_flags, user_data, 0, personality, addrlen)  # fmt: skip
        self._at = at + self._stride

    def prep_send_zc_fixed(
        self, sockfd: int, addr: int, nbytes: int, msg_flags: int, zc_flags: int, buf_index: int,
        sockaddr_addr: int = 0, addrlen: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SEND_ZC from registered buffer `buf_index`.

        RecvSend.FIXED_BUF is set for you.

        Since      Linux 6.0            Man   io_uring_prep_send_zc_fixed(3)
        Memory     submit: the address; notif: [addr, addr + nbytes) is read; registered: it lies inside the buffer
        CQE res    as for `prep_send_zc`; EFAULT outside the buffer or no such buffer
        CQE flags  MORE: a second CQE follows; NOTIF: this is the second
        Limit      one send in flight per socket, or their bytes may mix; no CQE_SKIP_SUCCESS
        """
        at = self._at
        if at == self._limit:
            at = self._make_room()
        SEND_TO.pack_into(self._sqes, at, _SEND_ZC, sqe_flags, zc_flags | _FIXED_BUF, sockfd, sockaddr_addr, addr,
                          nbytes, msg_flags, user_data, buf_index, personality, addrlen)  # fmt: skip
        self._at = at + self._stride

    def prep_sendmsg_zc(
        self, fd: int, msg_addr: int, msg_flags: int, zc_flags: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SENDMSG_ZC: send what the struct msghdr at `msg_addr` names without copying the data.

        `zc_flags` are RecvSend bits.

        Since      Linux 6.1            Man   io_uring_prep_sendmsg_zc(3)
        Memory     submit: msghdr, iovec array and name; completion: control data; notif: the buffers are read
        CQE res    n >= 0 bytes, may be short; < 0 -errno: EOPNOTSUPP not on this socket, EPIPE, ...
        CQE flags  MORE: a second CQE follows; NOTIF: this is the second
        Limit      one send in flight per socket, or their bytes may mix; no CQE_SKIP_SUCCESS
        """
        self._encode(_SENDMSG_ZC, fd, 0, msg_addr, 1, msg_flags, user_data, sqe_flags,
                     ioprio=zc_flags, personality=personality)  # fmt: skip

    def prep_sendmsg_zc_fixed(
        self, fd: int, msg_addr: int, msg_flags: int, buf_index: int, zc_flags: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SENDMSG_ZC whose iovec array names parts of registered buffer `buf_index`.

        RecvSend.FIXED_BUF is set for you.

        Since      Linux 6.15           Man   io_uring_prep_sendmsg_zc_fixed(3)
        Memory     submit: msghdr, iovec array and name; completion: control data; notif: the parts are read;
                   registered: they lie inside the buffer
        CQE res    as for `prep_sendmsg_zc`; EFAULT outside the buffer or no such buffer
        CQE flags  MORE: a second CQE follows; NOTIF: this is the second
        Limit      one send in flight per socket, or their bytes may mix; no CQE_SKIP_SUCCESS
        """
        self._encode(_SENDMSG_ZC, fd, 0, msg_addr, 1, msg_flags, user_data, sqe_flags,
                     ioprio=zc_flags | _FIXED_BUF, buf=buf_index, personality=personality)  # fmt: skip

    def prep_recv_zc(
        self, sockfd: int, nbytes: int, msg_flags: int, zcrx_id: int, ioprio: int = 0, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue a multishot IORING_OP_RECV_ZC: data stays where the network card put it, in area `zcrx_id`.

        It ends after `nbytes`, 0 for no end. Each CQE has 32 bytes: the second half is a struct
        io_uring_zcrx_cqe (abi.IO_URING_ZCRX_CQE). liburing has no helper for it.

        Since      Linux 6.15           Man   io_uring_enter(2)
        Memory     final: the area, of which each piece is yours from its CQE until given back
        CQE res    n > 0 bytes; 0 peer closed; < 0 -errno: EINVAL no such area, ENOMEM, ECANCELED, ...
        CQE flags  MORE: still armed, without it queue it anew
        Limit      needs a network card that splits headers from data, and CQEs of 32 bytes
        """
        self._encode(_RECV_ZC, sockfd, 0, 0, nbytes, msg_flags, user_data, sqe_flags,
                     ioprio=ioprio | _RECV_MULTISHOT, personality=personality, file_index=zcrx_id)  # fmt: skip
