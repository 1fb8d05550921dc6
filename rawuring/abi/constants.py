"""Every constant of the io_uring ABI, each declared once, as enums that know their history.

May import the standard library and `hints`. Never touches memory or the kernel.

A member is an int that carries three more facts:

    >>> Op.RECV.since, Op.RECV.man, Op.RECV.kernel_name
    ('5.6', 'io_uring_prep_recv(3)', 'IORING_OP_RECV')

`since` is the first mainline release that understands the value, `man` the page of
liburing's manual that describes it (or the place where it is used), `kernel_name` the name
in the C headers. A combination of flags is a plain `A | B` without these facts.

Sources contradict each other about releases. A kernel that was booted decides; where none
was, mainline's history does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from types import MappingProxyType

from rawuring.hints import Any, Final

__all__ = [
    "AT_FDCWD", "CQE_BUFFER_SHIFT", "CURRENT_POSITION", "FILE_INDEX_ALLOC", "FUTEX_BITSET_MATCH_ANY",
    "MAX_CQ_ENTRIES", "MAX_ENTRIES", "MAX_FUTEX_WAITV", "MAX_IOVECS", "MAX_PBUF_RING_ENTRIES",
    "MAX_PROBE_OPS", "MAX_REGISTERED_BUFFERS", "MAX_REGISTERED_BUFFER_NBYTES",
    "MAX_REGISTERED_RING_FDS", "MAX_RW_NBYTES", "NOTIF_USAGE_ZC_COPIED", "OFF_MMAP_MASK",
    "OFF_PBUF_SHIFT", "REGISTER_FILES_SKIP", "REGISTER_USE_REGISTERED_RING", "SETUP_CONFLICTS",
    "SETUP_REQUIRES", "SIGSET_NBYTES", "TIMESTAMP_HW_SHIFT", "TIMESTAMP_TYPE_SHIFT",
    "UDATA_TIMEOUT", "Accept", "BlockOp", "Cancel", "CqRingFlag", "CqeFlag", "Enter", "Feature",
    "FixedFd", "Flag", "Fsync", "Futex2", "MmapOffset", "MsgRing", "MsgRingCommand", "Nop", "Op",
    "PbufRing", "Poll", "RecvSend", "RegWait", "Register", "RwAttr", "Setup", "SocketOp", "Splice",
    "SqRingFlag", "SqeFlag", "Timeout", "TimestampCqeFlag", "UringCmd", "Value",
]


class _Documented:
    """What every member carries. The class keyword `prefix` starts its members' C names."""

    _prefix: str
    _kernel_name: str
    since: str
    man: str

    def __init_subclass__(cls, prefix: str = "", **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls._prefix = prefix

    @property
    def kernel_name(self) -> str:
        """The name in the kernel's C headers."""
        return self._kernel_name or f"{self._prefix}{self.name}"  # type: ignore[attr-defined]


class Value(_Documented, IntEnum):
    """Base of the enums whose members exclude each other."""

    def __new__(cls, value: int, since: str = "", man: str = "", kernel_name: str = "") -> Value:
        member = int.__new__(cls, value)
        member._value_ = value
        member.since, member.man, member._kernel_name = since, man, kernel_name
        return member

    # As IntEnum prints from Python 3.11 on; 3.10 would print the qualified name.
    __str__ = int.__repr__
    __format__ = int.__format__  # type: ignore[assignment]


class Flag(_Documented, IntFlag):
    """Base of the bit sets, whose members combine with `|`."""

    def __new__(cls, value: int, since: str = "", man: str = "", kernel_name: str = "") -> Flag:
        # What `~` is computed with, which CPython 3.11.0 to 3.11.3 leaves at 0 beside a __new__.
        cls._all_bits_: int = getattr(cls, "_all_bits_", 0) | (1 << value.bit_length()) - 1
        member = int.__new__(cls, value)
        member._value_ = value
        member.since, member.man, member._kernel_name = since, man, kernel_name
        return member

    __str__ = int.__repr__
    __format__ = int.__format__  # type: ignore[assignment]


# -- The submission queue entry: operations, flags, and the flags of each operation.


class Op(Value, prefix="IORING_OP_"):
    """`sqe.opcode`."""

    NOP = 0, "5.1", "io_uring_prep_nop(3)"
    READV = 1, "5.1", "io_uring_prep_readv(3)"
    WRITEV = 2, "5.1", "io_uring_prep_writev(3)"
    FSYNC = 3, "5.1", "io_uring_prep_fsync(3)"
    READ_FIXED = 4, "5.1", "io_uring_prep_read_fixed(3)"
    WRITE_FIXED = 5, "5.1", "io_uring_prep_write_fixed(3)"
    POLL_ADD = 6, "5.1", "io_uring_prep_poll_add(3)"
    POLL_REMOVE = 7, "5.1", "io_uring_prep_poll_remove(3)"
    SYNC_FILE_RANGE = 8, "5.2", "io_uring_prep_sync_file_range(3)"
    SENDMSG = 9, "5.3", "io_uring_prep_sendmsg(3)"
    RECVMSG = 10, "5.3", "io_uring_prep_recvmsg(3)"
    TIMEOUT = 11, "5.4", "io_uring_prep_timeout(3)"
    TIMEOUT_REMOVE = 12, "5.5", "io_uring_prep_timeout_remove(3)"
    ACCEPT = 13, "5.5", "io_uring_prep_accept(3)"
    ASYNC_CANCEL = 14, "5.5", "io_uring_prep_cancel(3)"
    LINK_TIMEOUT = 15, "5.5", "io_uring_prep_link_timeout(3)"
    CONNECT = 16, "5.5", "io_uring_prep_connect(3)"
    FALLOCATE = 17, "5.6", "io_uring_prep_fallocate(3)"
    OPENAT = 18, "5.6", "io_uring_prep_openat(3)"
    CLOSE = 19, "5.6", "io_uring_prep_close(3)"
    FILES_UPDATE = 20, "5.6", "io_uring_prep_files_update(3)"
    STATX = 21, "5.6", "io_uring_prep_statx(3)"
    READ = 22, "5.6", "io_uring_prep_read(3)"
    WRITE = 23, "5.6", "io_uring_prep_write(3)"
    FADVISE = 24, "5.6", "io_uring_prep_fadvise(3)"
    MADVISE = 25, "5.6", "io_uring_prep_madvise(3)"
    SEND = 26, "5.6", "io_uring_prep_send(3)"
    RECV = 27, "5.6", "io_uring_prep_recv(3)"
    OPENAT2 = 28, "5.6", "io_uring_prep_openat2(3)"
    EPOLL_CTL = 29, "5.6", "io_uring_prep_epoll_ctl(3)"
    SPLICE = 30, "5.7", "io_uring_prep_splice(3)"
    PROVIDE_BUFFERS = 31, "5.7", "io_uring_prep_provide_buffers(3)"
    REMOVE_BUFFERS = 32, "5.7", "io_uring_prep_remove_buffers(3)"
    TEE = 33, "5.8", "io_uring_prep_tee(3)"
    SHUTDOWN = 34, "5.11", "io_uring_prep_shutdown(3)"
    RENAMEAT = 35, "5.11", "io_uring_prep_renameat(3)"
    UNLINKAT = 36, "5.11", "io_uring_prep_unlinkat(3)"
    MKDIRAT = 37, "5.15", "io_uring_prep_mkdirat(3)"
    SYMLINKAT = 38, "5.15", "io_uring_prep_symlinkat(3)"
    LINKAT = 39, "5.15", "io_uring_prep_linkat(3)"
    MSG_RING = 40, "5.18", "io_uring_prep_msg_ring(3)"
    FSETXATTR = 41, "5.19", "io_uring_prep_fsetxattr(3)"
    SETXATTR = 42, "5.19", "io_uring_prep_setxattr(3)"
    FGETXATTR = 43, "5.19", "io_uring_prep_fgetxattr(3)"
    GETXATTR = 44, "5.19", "io_uring_prep_getxattr(3)"
    SOCKET = 45, "5.19", "io_uring_prep_socket(3)"
    URING_CMD = 46, "5.19", "io_uring_prep_uring_cmd(3)"
    SEND_ZC = 47, "6.0", "io_uring_prep_send_zc(3)"
    SENDMSG_ZC = 48, "6.1", "io_uring_prep_sendmsg_zc(3)"
    READ_MULTISHOT = 49, "6.7", "io_uring_prep_read_multishot(3)"
    WAITID = 50, "6.7", "io_uring_prep_waitid(3)"
    FUTEX_WAIT = 51, "6.7", "io_uring_prep_futex_wait(3)"
    FUTEX_WAKE = 52, "6.7", "io_uring_prep_futex_wake(3)"
    FUTEX_WAITV = 53, "6.7", "io_uring_prep_futex_waitv(3)"
    FIXED_FD_INSTALL = 54, "6.8", "io_uring_prep_fixed_fd_install(3)"
    FTRUNCATE = 55, "6.9", "io_uring_prep_ftruncate(3)"
    BIND = 56, "6.11", "io_uring_prep_bind(3)"
    LISTEN = 57, "6.11", "io_uring_prep_listen(3)"
    RECV_ZC = 58, "6.15", "io_uring_enter(2)"
    EPOLL_WAIT = 59, "6.15", "io_uring_prep_epoll_wait(3)"
    READV_FIXED = 60, "6.15", "io_uring_prep_readv_fixed(3)"
    WRITEV_FIXED = 61, "6.15", "io_uring_prep_writev_fixed(3)"
    PIPE = 62, "6.16", "io_uring_prep_pipe(3)"
    NOP128 = 63, "6.19", "io_uring_prep_nop128(3)"
    URING_CMD128 = 64, "6.19", "io_uring_prep_uring_cmd128(3)"


class SqeFlag(Flag, prefix="IOSQE_"):
    """`sqe.flags`."""

    FIXED_FILE = 1 << 0, "5.1", "io_uring_sqe_set_flags(3)"
    IO_DRAIN = 1 << 1, "5.2", "io_uring_sqe_set_flags(3)"
    IO_LINK = 1 << 2, "5.3", "io_uring_linked_requests(7)"
    IO_HARDLINK = 1 << 3, "5.5", "io_uring_linked_requests(7)"
    ASYNC = 1 << 4, "5.6", "io_uring_sqe_set_flags(3)"
    BUFFER_SELECT = 1 << 5, "5.7", "io_uring_provided_buffers(7)"
    CQE_SKIP_SUCCESS = 1 << 6, "5.17", "io_uring_sqe_set_flags(3)"


class Nop(Flag, prefix="IORING_NOP_"):
    """`sqe.nop_flags` of NOP and NOP128."""

    INJECT_RESULT = 1 << 0, "6.10", "io_uring_prep_nop(3)"
    FILE = 1 << 1, "6.13", "io_uring_prep_nop(3)"
    FIXED_FILE = 1 << 2, "6.13", "io_uring_prep_nop(3)"
    FIXED_BUFFER = 1 << 3, "6.13", "io_uring_prep_nop(3)"
    TW = 1 << 4, "6.17", "io_uring_prep_nop(3)"
    CQE32 = 1 << 5, "6.18", "io_uring_prep_nop(3)"


class RwAttr(Flag, prefix="IORING_RW_ATTR_FLAG_"):
    """`sqe.attr_type_mask` of reads and writes: what `sqe.attr_ptr` points to."""

    PI = 1 << 0, "6.14", "io_uring_enter(2)"


class Fsync(Flag, prefix="IORING_FSYNC_"):
    """`sqe.fsync_flags` of FSYNC."""

    DATASYNC = 1 << 0, "5.1", "io_uring_prep_fsync(3)"


class Splice(Flag, prefix="SPLICE_F_"):
    """`sqe.splice_flags` of SPLICE and TEE, besides the flags of splice(2)."""

    FD_IN_FIXED = 1 << 31, "5.7", "io_uring_prep_splice(3)"


class RecvSend(Flag, prefix="IORING_RECVSEND_"):
    """`sqe.ioprio` of the send and receive operations."""

    POLL_FIRST = 1 << 0, "5.19", "io_uring_prep_recv(3)"
    RECV_MULTISHOT = 1 << 1, "6.0", "io_uring_prep_recv_multishot(3)", "IORING_RECV_MULTISHOT"
    FIXED_BUF = 1 << 2, "6.0", "io_uring_prep_send_zc(3)"
    ZC_REPORT_USAGE = 1 << 3, "6.2", "io_uring_prep_send_zc(3)", "IORING_SEND_ZC_REPORT_USAGE"
    BUNDLE = 1 << 4, "6.10", "io_uring_prep_send_bundle(3)"
    VECTORIZED = 1 << 5, "6.17", "io_uring_prep_send(3)", "IORING_SEND_VECTORIZED"


class Accept(Flag, prefix="IORING_ACCEPT_"):
    """`sqe.ioprio` of ACCEPT."""

    MULTISHOT = 1 << 0, "5.19", "io_uring_prep_multishot_accept(3)"
    DONTWAIT = 1 << 1, "6.10", "io_uring_prep_accept(3)"
    POLL_FIRST = 1 << 2, "6.10", "io_uring_prep_accept(3)"


class Poll(Flag, prefix="IORING_POLL_"):
    """`sqe.len` of POLL_ADD (ADD_*) and POLL_REMOVE (UPDATE_*, ADD_MULTI)."""

    ADD_MULTI = 1 << 0, "5.13", "io_uring_prep_poll_multishot(3)"
    UPDATE_EVENTS = 1 << 1, "5.13", "io_uring_prep_poll_update(3)"
    UPDATE_USER_DATA = 1 << 2, "5.13", "io_uring_prep_poll_update(3)"
    ADD_LEVEL = 1 << 3, "6.0", "io_uring_prep_poll_add(3)"


class Timeout(Flag, prefix="IORING_TIMEOUT_"):
    """`sqe.timeout_flags` of TIMEOUT, TIMEOUT_REMOVE and LINK_TIMEOUT."""

    ABS = 1 << 0, "5.5", "io_uring_prep_timeout(3)"
    UPDATE = 1 << 1, "5.11", "io_uring_prep_timeout_update(3)"
    BOOTTIME = 1 << 2, "5.15", "io_uring_prep_timeout(3)"
    REALTIME = 1 << 3, "5.15", "io_uring_prep_timeout(3)"
    LINK_UPDATE = 1 << 4, "5.15", "io_uring_prep_timeout_update(3)", "IORING_LINK_TIMEOUT_UPDATE"
    ETIME_SUCCESS = 1 << 5, "5.16", "io_uring_prep_timeout(3)"
    MULTISHOT = 1 << 6, "6.4", "io_uring_prep_timeout(3)"
    IMMEDIATE_ARG = 1 << 7, "7.1", "io_uring_enter(2)"


class Cancel(Flag, prefix="IORING_ASYNC_CANCEL_"):
    """`sqe.cancel_flags` of ASYNC_CANCEL, and `flags` of REGISTER_SYNC_CANCEL."""

    ALL = 1 << 0, "5.19", "io_uring_prep_cancel(3)"
    FD = 1 << 1, "5.19", "io_uring_prep_cancel(3)"
    ANY = 1 << 2, "5.19", "io_uring_prep_cancel(3)"
    FD_FIXED = 1 << 3, "6.0", "io_uring_prep_cancel(3)"
    USERDATA = 1 << 4, "6.6", "io_uring_prep_cancel(3)"
    OP = 1 << 5, "6.6", "io_uring_prep_cancel(3)"


class MsgRing(Flag, prefix="IORING_MSG_RING_"):
    """`sqe.msg_ring_flags` of MSG_RING."""

    CQE_SKIP = 1 << 0, "6.0", "io_uring_prep_msg_ring_fd(3)"
    FLAGS_PASS = 1 << 1, "6.3", "io_uring_prep_msg_ring_cqe_flags(3)"


class MsgRingCommand(Value, prefix="IORING_MSG_"):
    """`sqe.addr` of MSG_RING: what is sent."""

    DATA = 0, "5.18", "io_uring_prep_msg_ring(3)"
    SEND_FD = 1, "6.0", "io_uring_prep_msg_ring_fd(3)"


class FixedFd(Flag, prefix="IORING_FIXED_FD_"):
    """`sqe.install_fd_flags` of FIXED_FD_INSTALL."""

    NO_CLOEXEC = 1 << 0, "6.8", "io_uring_prep_fixed_fd_install(3)"


class Futex2(Flag, prefix="FUTEX2_"):
    """`sqe.fd` of FUTEX_WAIT and FUTEX_WAKE, and `flags` of a futex_waitv: the futex word."""

    SIZE_U16 = 0x01, "6.7", "io_uring_prep_futex_wait(3)"
    SIZE_U32 = 0x02, "6.7", "io_uring_prep_futex_wait(3)"
    PRIVATE = 128, "6.7", "io_uring_prep_futex_wait(3)"


class UringCmd(Flag, prefix="IORING_URING_CMD_"):
    """`sqe.uring_cmd_flags` of URING_CMD and URING_CMD128."""

    FIXED = 1 << 0, "6.1", "io_uring_prep_uring_cmd(3)"
    MULTISHOT = 1 << 1, "6.18", "io_uring_prep_uring_cmd(3)"


class SocketOp(Value, prefix="SOCKET_URING_OP_"):
    """`sqe.cmd_op` of URING_CMD on a socket."""

    SIOCINQ = 0, "6.5", "io_uring_prep_cmd_sock(3)"
    SIOCOUTQ = 1, "6.5", "io_uring_prep_cmd_sock(3)"
    GETSOCKOPT = 2, "6.7", "io_uring_prep_cmd_sock(3)"
    SETSOCKOPT = 3, "6.7", "io_uring_prep_cmd_sock(3)"
    TX_TIMESTAMP = 4, "6.17", "io_uring_prep_cmd_sock(3)"
    GETSOCKNAME = 5, "6.19", "io_uring_prep_cmd_getsockname(3)"


class BlockOp(Value, prefix="BLOCK_URING_CMD_"):
    """`sqe.cmd_op` of URING_CMD on a block device: _IO(0x12, n)."""

    DISCARD = 0x1200, "6.12", "io_uring_prep_cmd_discard(3)"
    ZONE_RESET_ALL = 0x1201, "7.3", "io_uring_prep_cmd_zone_reset_all(3)"


# `sqe.file_index`: the kernel picks a free slot of the file table (5.19).
FILE_INDEX_ALLOC: Final = 0xFFFF_FFFF
# `sqe.fd` (or another directory fd) of operations on paths: relative to the working directory.
AT_FDCWD: Final = -100
# `sqe.off` of reads and writes: at the file's own position (Feature.RW_CUR_POS, 5.6).
CURRENT_POSITION: Final = 0xFFFF_FFFF_FFFF_FFFF
# An entry of REGISTER_FILES_UPDATE that leaves its slot as it is (5.12).
REGISTER_FILES_SKIP: Final = -2
# `user_data` of the timeouts that stand in for EXT_ARG before 5.11, as liburing has it.
UDATA_TIMEOUT: Final = 0xFFFF_FFFF_FFFF_FFFF
# `sqe.addr3` of FUTEX_WAIT and FUTEX_WAKE: every bit of the mask.
FUTEX_BITSET_MATCH_ANY: Final = 0xFFFF_FFFF


# -- The completion queue entry.


class CqeFlag(Flag, prefix="IORING_CQE_F_"):
    """`cqe.flags`, low half. With BUFFER, the high half is the buffer's id."""

    BUFFER = 1 << 0, "5.7", "io_uring_provided_buffers(7)"
    MORE = 1 << 1, "5.13", "io_uring_multishot(7)"
    SOCK_NONEMPTY = 1 << 2, "5.19", "io_uring_prep_recv(3)"
    NOTIF = 1 << 3, "6.0", "io_uring_prep_send_zc(3)"
    BUF_MORE = 1 << 4, "6.12", "io_uring_provided_buffers(7)"
    SKIP = 1 << 5, "6.18", "io_uring_setup(2)"
    F_32 = 1 << 15, "6.18", "io_uring_cqe_nr(3)", "IORING_CQE_F_32"


class TimestampCqeFlag(Flag, prefix="IORING_CQE_F_"):
    """`cqe.flags`, high half, of SocketOp.TX_TIMESTAMP only: elsewhere it is a buffer's id."""

    TSTAMP_HW = 1 << 16, "6.17", "io_uring_prep_cmd_sock(3)"


# `cqe.flags` >> this is the buffer id (5.7).
CQE_BUFFER_SHIFT: Final = 16
# The same of TX_TIMESTAMP (6.17): whether hardware made the time stamp (one bit), and its type.
TIMESTAMP_HW_SHIFT: Final = 16
TIMESTAMP_TYPE_SHIFT: Final = 17
# `cqe.res` of a NOTIF, as unsigned: the data was copied after all (ZC_REPORT_USAGE, 6.2).
NOTIF_USAGE_ZC_COPIED: Final = 1 << 31


# -- io_uring_setup.


class Setup(Flag, prefix="IORING_SETUP_"):
    """`params.flags`."""

    IOPOLL = 1 << 0, "5.1", "io_uring_setup_flags(7)"
    SQPOLL = 1 << 1, "5.1", "io_uring_sqpoll(7)"
    SQ_AFF = 1 << 2, "5.1", "io_uring_sqpoll(7)"
    CQSIZE = 1 << 3, "5.5", "io_uring_setup_flags(7)"
    CLAMP = 1 << 4, "5.6", "io_uring_setup_flags(7)"
    ATTACH_WQ = 1 << 5, "5.6", "io_uring_setup_flags(7)"
    R_DISABLED = 1 << 6, "5.10", "io_uring_setup_flags(7)"
    SUBMIT_ALL = 1 << 7, "5.18", "io_uring_setup_flags(7)"
    COOP_TASKRUN = 1 << 8, "5.19", "io_uring_setup_flags(7)"
    TASKRUN_FLAG = 1 << 9, "5.19", "io_uring_setup_flags(7)"
    SQE128 = 1 << 10, "5.19", "io_uring_setup_flags(7)"
    CQE32 = 1 << 11, "5.19", "io_uring_setup_flags(7)"
    SINGLE_ISSUER = 1 << 12, "6.0", "io_uring_setup_flags(7)"
    DEFER_TASKRUN = 1 << 13, "6.1", "io_uring_setup_flags(7)"
    NO_MMAP = 1 << 14, "6.5", "io_uring_setup_flags(7)"
    REGISTERED_FD_ONLY = 1 << 15, "6.5", "io_uring_setup_flags(7)"
    NO_SQARRAY = 1 << 16, "6.6", "io_uring_setup_flags(7)"
    HYBRID_IOPOLL = 1 << 17, "6.13", "io_uring_setup_flags(7)"
    CQE_MIXED = 1 << 18, "6.18", "io_uring_setup_flags(7)"
    SQE_MIXED = 1 << 19, "6.19", "io_uring_setup_flags(7)"
    SQ_REWIND = 1 << 20, "7.0", "io_uring_setup_flags(7)"


# Each of these flags needs any one of those: EINVAL otherwise.
SETUP_REQUIRES: Final[Mapping[Setup, tuple[Setup, ...]]] = MappingProxyType(
    {
        Setup.SQ_AFF: (Setup.SQPOLL,),
        Setup.TASKRUN_FLAG: (Setup.COOP_TASKRUN, Setup.DEFER_TASKRUN),
        Setup.DEFER_TASKRUN: (Setup.SINGLE_ISSUER,),
        Setup.REGISTERED_FD_ONLY: (Setup.NO_MMAP,),
        Setup.HYBRID_IOPOLL: (Setup.IOPOLL,),
        Setup.SQ_REWIND: (Setup.NO_SQARRAY,),
    }
)

# These pairs are refused with EINVAL.
SETUP_CONFLICTS: Final[tuple[tuple[Setup, Setup], ...]] = (
    (Setup.SQPOLL, Setup.COOP_TASKRUN),
    (Setup.SQPOLL, Setup.TASKRUN_FLAG),
    (Setup.SQPOLL, Setup.DEFER_TASKRUN),
    (Setup.SQPOLL, Setup.SQ_REWIND),
    (Setup.CQE32, Setup.CQE_MIXED),
    (Setup.SQE128, Setup.SQE_MIXED),
)


class Feature(Flag, prefix="IORING_FEAT_"):
    """`params.features`: what the kernel says it can do."""

    SINGLE_MMAP = 1 << 0, "5.4", "io_uring_setup(2)"
    NODROP = 1 << 1, "5.5", "io_uring_setup(2)"
    SUBMIT_STABLE = 1 << 2, "5.5", "io_uring_setup(2)"
    RW_CUR_POS = 1 << 3, "5.6", "io_uring_setup(2)"
    CUR_PERSONALITY = 1 << 4, "5.6", "io_uring_setup(2)"
    FAST_POLL = 1 << 5, "5.7", "io_uring_setup(2)"
    POLL_32BITS = 1 << 6, "5.9", "io_uring_setup(2)"
    SQPOLL_NONFIXED = 1 << 7, "5.11", "io_uring_setup(2)"
    EXT_ARG = 1 << 8, "5.11", "io_uring_setup(2)"
    NATIVE_WORKERS = 1 << 9, "5.12", "io_uring_setup(2)"
    RSRC_TAGS = 1 << 10, "5.13", "io_uring_setup(2)"
    CQE_SKIP = 1 << 11, "5.17", "io_uring_setup(2)"
    LINKED_FILE = 1 << 12, "5.18", "io_uring_setup(2)"
    REG_REG_RING = 1 << 13, "6.3", "io_uring_setup(2)"
    RECVSEND_BUNDLE = 1 << 14, "6.10", "io_uring_setup(2)"
    MIN_TIMEOUT = 1 << 15, "6.12", "io_uring_setup(2)"
    RW_ATTR = 1 << 16, "6.14", "io_uring_setup(2)"
    NO_IOWAIT = 1 << 17, "6.15", "io_uring_setup(2)"


class SqRingFlag(Flag, prefix="IORING_SQ_"):
    """The flags word of the submission ring, written by the kernel."""

    NEED_WAKEUP = 1 << 0, "5.1", "io_uring_sqpoll(7)"
    CQ_OVERFLOW = 1 << 1, "5.8", "io_uring_cq_has_overflow(3)"
    TASKRUN = 1 << 2, "5.19", "io_uring_setup_flags(7)"


class CqRingFlag(Flag, prefix="IORING_CQ_"):
    """The flags word of the completion ring, written by the application."""

    EVENTFD_DISABLED = 1 << 0, "5.8", "io_uring_cq_eventfd_toggle(3)"


class MmapOffset(Value, prefix="IORING_OFF_"):
    """The offset that says which part of a ring mmap(2) maps."""

    SQ_RING = 0, "5.1", "io_uring_setup(2)"
    CQ_RING = 0x800_0000, "5.1", "io_uring_setup(2)"
    SQES = 0x1000_0000, "5.1", "io_uring_setup(2)"
    PBUF_RING = 0x8000_0000, "6.4", "io_uring_register_buf_ring(3)"


# PBUF_RING | group id << this is a buffer ring's memory (6.4).
OFF_PBUF_SHIFT: Final = 16
# The bits of an offset that select a part (6.4).
OFF_MMAP_MASK: Final = 0xF800_0000


# -- io_uring_enter.


class Enter(Flag, prefix="IORING_ENTER_"):
    """The flags argument of io_uring_enter."""

    GETEVENTS = 1 << 0, "5.1", "io_uring_enter(2)"
    SQ_WAKEUP = 1 << 1, "5.1", "io_uring_enter(2)"
    SQ_WAIT = 1 << 2, "5.10", "io_uring_enter(2)"
    EXT_ARG = 1 << 3, "5.11", "io_uring_enter(2)"
    REGISTERED_RING = 1 << 4, "5.18", "io_uring_enter(2)"
    ABS_TIMER = 1 << 5, "6.12", "io_uring_enter(2)"
    EXT_ARG_REG = 1 << 6, "6.13", "io_uring_enter(2)"
    NO_IOWAIT = 1 << 7, "6.15", "io_uring_set_iowait(3)"


class RegWait(Flag, prefix="IORING_REG_WAIT_"):
    """`io_uring_reg_wait.flags`."""

    TS = 1 << 0, "6.13", "io_uring_register(2)"


# -- io_uring_register.


class Register(Value, prefix="IORING_REGISTER_"):
    """The opcode argument of io_uring_register."""

    BUFFERS = 0, "5.1", "io_uring_register_buffers(3)"
    UNREGISTER_BUFFERS = 1, "5.1", "io_uring_unregister_buffers(3)", "IORING_UNREGISTER_BUFFERS"
    FILES = 2, "5.1", "io_uring_register_files(3)"
    UNREGISTER_FILES = 3, "5.1", "io_uring_unregister_files(3)", "IORING_UNREGISTER_FILES"
    EVENTFD = 4, "5.2", "io_uring_register_eventfd(3)"
    UNREGISTER_EVENTFD = 5, "5.2", "io_uring_unregister_eventfd(3)", "IORING_UNREGISTER_EVENTFD"
    FILES_UPDATE = 6, "5.5", "io_uring_register_files_update(3)"
    EVENTFD_ASYNC = 7, "5.6", "io_uring_register_eventfd_async(3)"
    PROBE = 8, "5.6", "io_uring_register_probe(3)"
    PERSONALITY = 9, "5.6", "io_uring_register_personality(3)"
    UNREGISTER_PERSONALITY = (
        10,
        "5.6",
        "io_uring_unregister_personality(3)",
        "IORING_UNREGISTER_PERSONALITY",
    )
    RESTRICTIONS = 11, "5.10", "io_uring_register_restrictions(3)"
    ENABLE_RINGS = 12, "5.10", "io_uring_enable_rings(3)"
    FILES2 = 13, "5.13", "io_uring_register_files_tags(3)"
    FILES_UPDATE2 = 14, "5.13", "io_uring_register_files_update_tag(3)"
    BUFFERS2 = 15, "5.13", "io_uring_register_buffers_tags(3)"
    BUFFERS_UPDATE = 16, "5.13", "io_uring_register_buffers_update_tag(3)"
    IOWQ_AFF = 17, "5.14", "io_uring_register_iowq_aff(3)"
    UNREGISTER_IOWQ_AFF = 18, "5.14", "io_uring_unregister_iowq_aff(3)", "IORING_UNREGISTER_IOWQ_AFF"
    IOWQ_MAX_WORKERS = 19, "5.15", "io_uring_register_iowq_max_workers(3)"
    RING_FDS = 20, "5.18", "io_uring_register_ring_fd(3)"
    UNREGISTER_RING_FDS = 21, "5.18", "io_uring_unregister_ring_fd(3)", "IORING_UNREGISTER_RING_FDS"
    PBUF_RING = 22, "5.19", "io_uring_register_buf_ring(3)"
    UNREGISTER_PBUF_RING = 23, "5.19", "io_uring_unregister_buf_ring(3)", "IORING_UNREGISTER_PBUF_RING"
    SYNC_CANCEL = 24, "6.0", "io_uring_register_sync_cancel(3)"
    FILE_ALLOC_RANGE = 25, "6.0", "io_uring_register_file_alloc_range(3)"
    PBUF_STATUS = 26, "6.8", "io_uring_register(2)"
    NAPI = 27, "6.9", "io_uring_register_napi(3)"
    UNREGISTER_NAPI = 28, "6.9", "io_uring_unregister_napi(3)", "IORING_UNREGISTER_NAPI"
    CLOCK = 29, "6.12", "io_uring_register_clock(3)"
    CLONE_BUFFERS = 30, "6.12", "io_uring_clone_buffers(3)"
    SEND_MSG_RING = 31, "6.13", "io_uring_register_sync_msg(3)"
    ZCRX_IFQ = 32, "6.15", "io_uring_register_ifq(3)"
    RESIZE_RINGS = 33, "6.13", "io_uring_resize_rings(3)"
    MEM_REGION = 34, "6.13", "io_uring_register_region(3)"
    QUERY = 35, "6.18", "io_uring_register_query(3)"
    ZCRX_CTRL = 36, "6.19", "io_uring_register_zcrx_ctrl(3)"
    BPF_FILTER = 37, "7.0", "io_uring_register_bpf_filter(3)"


# Added to a Register opcode: the fd argument is the index of a registered ring (6.3).
REGISTER_USE_REGISTERED_RING: Final = 1 << 31


class PbufRing(Flag, prefix="IOU_PBUF_RING_"):
    """`io_uring_buf_reg.flags`."""

    MMAP = 1 << 0, "6.4", "io_uring_register_buf_ring(3)"
    INC = 1 << 1, "6.12", "io_uring_register_buf_ring(3)"


# -- Limits of the kernel.

MAX_ENTRIES: Final = 32768  # of a submission queue
MAX_CQ_ENTRIES: Final = 65536
MAX_PBUF_RING_ENTRIES: Final = 32768
MAX_REGISTERED_BUFFERS: Final = 16384
MAX_REGISTERED_BUFFER_NBYTES: Final = 1 << 30
MAX_REGISTERED_RING_FDS: Final = 16  # per thread
MAX_PROBE_OPS: Final = 256
MAX_IOVECS: Final = 1024
MAX_FUTEX_WAITV: Final = 128
MAX_RW_NBYTES: Final = 0x7FFF_F000  # one read or write moves no more

SIGSET_NBYTES: Final = 8  # io_uring_enter takes a signal mask of this size only
