"""Encoders for URING_CMD, which a driver or a socket takes, and for any operation field by field.

May import abi and errors. Never makes a system call. What all encoders share is in `prep.base`.

A command has 16 bytes of its own at the end of the SQE, or 80 where the SQE has 128 bytes.
liburing leaves them to its caller; here they are `cmd`, and copied.
"""

from __future__ import annotations

import sys

from .. import abi
from ..errors import RawuringError
from .base import COMMAND, COMMAND128, U32, Encoder

_URING_CMD = int(abi.Op.URING_CMD)
_URING_CMD128 = int(abi.Op.URING_CMD128)

_GETSOCKNAME = int(abi.SocketOp.GETSOCKNAME)
_DISCARD = int(abi.BlockOp.DISCARD)
_ZONE_RESET_ALL = int(abi.BlockOp.ZONE_RESET_ALL)

_CMD_OFFSET = abi.IO_URING_SQE.fields["cmd"].offset


def u64(value: int) -> bytes:
    """`value` as eight bytes of a struct."""
    return value.to_bytes(8, sys.byteorder)


def u32_pair(first: int, second: int) -> int:
    """The u64 that two neighbouring 32-bit fields make."""
    return int.from_bytes(
        (first & U32).to_bytes(4, sys.byteorder) + (second & U32).to_bytes(4, sys.byteorder), sys.byteorder
    )


class CommandPreps(Encoder):
    """The `prep_*` methods for commands, and for any operation."""

    __slots__ = ()

    def prep_rw(
        self, op: int, fd: int, addr: int, nbytes: int, offset: int, op_flags: int = 0, ioprio: int = 0,
        buf_index: int = 0, personality: int = 0, file_index: int = 0, addr3: int = 0, attr_type_mask: int = 0,
        *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue operation `op`, field by field, as struct io_uring_sqe has them.

        For what no other method can write: a read or write with metadata, for instance, has
        `addr3` as its attr_ptr and RwAttr.PI as its `attr_type_mask` (6.14). Nothing is set for
        you, and `file_index` is as the kernel reads it: slot + 1. `offset` -1 is the file position.

        Since      Linux 5.1            Man   io_uring_enter(2)
        Memory     completion: as a rule, but what the operation's own method says is right
        CQE res    as the operation has it
        CQE flags  as the operation has them
        Limit      an SQE of 64 bytes
        """
        self._encode(op, fd, abi.CURRENT_POSITION if offset == -1 else offset, addr, nbytes, op_flags,
                     user_data, sqe_flags, ioprio=ioprio, buf=buf_index, personality=personality,
                     file_index=file_index, addr3=addr3, attr_type_mask=attr_type_mask)  # fmt: skip

    def prep_uring_cmd(
        self, cmd_op: int, fd: int, cmd: bytes = b"", uring_cmd_flags: int = 0, addr: int = 0, nbytes: int = 0,
        buf_index: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_URING_CMD: have the driver of `fd` do `cmd_op`.

        What `cmd`, `addr` and `nbytes` mean is the driver's. `buf_index` is a registered buffer
        with UringCmd.FIXED, a group of buffers with UringCmd.MULTISHOT.

        Since      Linux 5.19           Man   io_uring_prep_uring_cmd(3)
        Memory     completion: what the command points to, if the driver does not say otherwise
        CQE res    the driver's; < 0 -errno: EOPNOTSUPP the file takes no commands, EINVAL, ...
        CQE flags  none, or the driver's
        Limit      `cmd` has at most 16 bytes, or 80 with Setup.SQE128
        """
        self._command(cmd_op, fd, addr, nbytes, uring_cmd_flags, cmd, user_data, sqe_flags,
                      buf=buf_index, personality=personality)  # fmt: skip

    def prep_uring_cmd128(
        self, cmd_op: int, fd: int, cmd: bytes = b"", uring_cmd_flags: int = 0, addr: int = 0, nbytes: int = 0,
        buf_index: int = 0, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_URING_CMD128: like `prep_uring_cmd`, in an SQE of 128 bytes on a mixed ring.

        Since      Linux 6.19           Man   io_uring_prep_uring_cmd128(3)
        Memory     completion: what the command points to, if the driver does not say otherwise
        CQE res    the driver's; < 0 -errno: EOPNOTSUPP the file takes no commands, EINVAL, ...
        CQE flags  none, or the driver's
        Limit      `cmd` has at most 80 bytes; needs Setup.SQE_MIXED or Setup.SQE128
        """
        check_fits(cmd, COMMAND128.size)
        self._encode128(COMMAND128, _URING_CMD128, sqe_flags, fd, cmd_op, addr, nbytes, uring_cmd_flags,
                        user_data, buf_index, personality, 0, cmd)  # fmt: skip

    def prep_cmd_sock(
        self, cmd_op: int, fd: int, level: int, optname: int, optval_addr: int, optlen: int, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_URING_CMD on a socket: `cmd_op` is a SocketOp.

        SIOCINQ and SIOCOUTQ count the bytes not yet read or sent. GETSOCKOPT (SOL_SOCKET only)
        and SETSOCKOPT take all arguments, the others none. TX_TIMESTAMP (6.17) is multishot and
        needs CQEs of 32 bytes, whose second half is a struct io_timespec (abi.IO_TIMESPEC).

        Since      Linux 6.5 (options 6.7) Man   io_uring_prep_cmd_sock(3), getsockopt(2)
        Memory     completion: the option at `optval_addr` is read or written
        CQE res    bytes; the option's length of GETSOCKOPT; 0 of SETSOCKOPT; the key of TX_TIMESTAMP;
                   < 0 -errno: ENOPROTOOPT, EOPNOTSUPP, EINVAL, ...
        CQE flags  of TX_TIMESTAMP: MORE, TimestampCqeFlag, and the type from bit TIMESTAMP_TYPE_SHIFT on
        """
        self._command(cmd_op, fd, u32_pair(level, optname), 0, 0, u64(optval_addr), user_data, sqe_flags,
                      optlen=optlen)  # fmt: skip

    def prep_cmd_getsockname(
        self, fd: int, sockaddr_addr: int, addrlen_addr: int, peer: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_URING_CMD on a socket: its own address, or with `peer` 1 that of its peer.

        `addrlen_addr` is that of a socklen_t, in and out.

        Since      Linux 6.19           Man   io_uring_prep_cmd_getsockname(3), getsockname(2)
        Memory     completion: the address at `sockaddr_addr` and its length are written
        CQE res    0; < 0 -errno: ENOTCONN, EOPNOTSUPP an older kernel, EINVAL, ...
        CQE flags  none
        """
        self._command(_GETSOCKNAME, fd, sockaddr_addr, 0, 0, u64(addrlen_addr), user_data, sqe_flags, optlen=peer)

    def prep_cmd_discard(
        self, fd: int, offset: int, nbytes: int, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_URING_CMD on a block device: give up the data of a range.

        Since      Linux 6.12           Man   io_uring_prep_cmd_discard(3)
        Memory     none
        CQE res    0; < 0 -errno: EOPNOTSUPP, EINVAL not aligned to blocks, EBADF not open for writing, ...
        CQE flags  none
        """
        self._command(_DISCARD, fd, offset, 0, 0, u64(nbytes), user_data, sqe_flags)

    def prep_cmd_zone_reset_all(self, fd: int, *, user_data: int = 0, sqe_flags: int = 0) -> None:
        """Queue IORING_OP_URING_CMD on a zoned block device: reset every zone, which discards all its data.

        Since      Linux 7.3            Man   io_uring_prep_cmd_zone_reset_all(3)
        Memory     none
        CQE res    0; < 0 -errno: EOPNOTSUPP no zones or an older kernel, EBADF not open for writing, ...
        CQE flags  none
        """
        self._command(_ZONE_RESET_ALL, fd, 0, 0, 0, b"", user_data, sqe_flags)

    def _command(
        self, cmd_op: int, fd: int, addr: int, nbytes: int, uring_cmd_flags: int, cmd: bytes, user_data: int,
        sqe_flags: int, *, buf: int = 0, personality: int = 0, optlen: int = 0,
    ) -> None:  # fmt: skip
        """Write a URING_CMD: a whole slot, since with SQE128 the driver reads all of it."""
        check_fits(cmd, self._stride)
        at = self._at
        if at == self._limit:
            at = self._make_room()
        shape = COMMAND if self._stride == COMMAND.size else COMMAND128
        shape.pack_into(self._sqes, at, _URING_CMD, sqe_flags, fd, cmd_op, addr, nbytes, uring_cmd_flags,
                        user_data, buf, personality, optlen, cmd)  # fmt: skip
        self._at = at + self._stride


def check_fits(cmd: bytes, sqe_nbytes: int) -> None:
    """Refuse a command that is too long, of which `struct` would write the beginning."""
    if len(cmd) > sqe_nbytes - _CMD_OFFSET:
        raise RawuringError(
            f"a command of {len(cmd)} bytes does not fit: an SQE of {sqe_nbytes} bytes has room for "
            f"{sqe_nbytes - _CMD_OFFSET}" + ("; with 128 bytes it has 80" if sqe_nbytes == COMMAND.size else "")
        )
