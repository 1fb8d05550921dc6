"""What each operation makes of the fields of struct io_uring_sqe, and of `cqe.res`: one table.

May import the standard library, `constants` and `structs`. Never touches memory or the kernel.

Apart from the rest of the package because a program that only moves data does not need it:
`from rawuring.abi import fields`.

An operation's line in the table lists its fields, `name=field:kind?condition`:

    name        what the operation calls the value: the parameter of its encoders
    field       where it lies in struct io_uring_sqe; left out, the field of that name
    kind        what the value is; left out, a number
    condition   `other.MEMBER`: only if the value called `other` is that member, or has that flag;
                `|` between members means any of them. Of several that lie in the same bytes,
                the first whose condition holds is meant.

The fields that all operations share (opcode, flags, user_data, personality) are in none of them.

The kinds
    number      unsigned                        signed     signed
    fd          a file, a slot of the file table with SqeFlag.FIXED_FILE
    dirfd       a directory or AT_FDCWD         offset     in a file; -1 is the file's own position
    slot        of the file table               new_slot   none, slot + 1, or FILE_INDEX_ALLOC
    user_data   of another request              mode       permission bits
    one         1, if liburing prepared it      bytes      to the end of the SQE, 64 or 128 bytes
    poll        what poll(2) waits for, its 16-bit halves swapped on big-endian machines
    *what       the address of that; `*bytes` is plain memory
    Name        an enum of `rawuring.abi`; of two with `|` between, that which has the value
    NAME_       constants of the system that start so
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from rawuring.abi.constants import Op
from rawuring.abi.structs import IO_URING_SQE, Field

__all__ = ["ARGUMENTS", "SHARED_FIELDS", "Argument", "Arguments"]


class Argument(NamedTuple):
    """One value of an operation."""

    name: str
    field: str
    kind: str
    depends_on: str  # the name of another value, or ""
    members: tuple[str, ...]  # that one of which it must be

    @property
    def place(self) -> Field:
        """Where it lies in struct io_uring_sqe."""
        return IO_URING_SQE.fields[self.field]


class Arguments(NamedTuple):
    """What an operation makes of an SQE and of `cqe.res`."""

    values: tuple[Argument, ...]
    zero: tuple[str, ...]
    """The fields that the kernel refuses with EINVAL unless they are 0 (as seen on Linux 6.18 and 7.3)."""
    res: str
    """What a positive `cqe.res` counts or is: `fd`, `slot`, `poll`, or a noun; "" if it is always 0."""
    res_zero: str
    """What 0 says, if that is more than nothing."""


SHARED_FIELDS: Final = ("opcode", "flags", "user_data", "personality")


def _argument(text: str) -> Argument:
    text, _, condition = text.partition("?")
    text, _, kind = text.partition(":")
    name, _, field = text.partition("=")
    depends_on, _, members = condition.partition(".")
    if (field or name) not in IO_URING_SQE.fields:
        raise ImportError(f"struct io_uring_sqe has no field {field or name!r}")
    return Argument(name, field or name, kind or "number", depends_on, tuple(members.split("|")) if members else ())


def _arguments(values: str, zero: str = "", res: str = "", res_zero: str = "") -> Arguments:
    return Arguments(tuple(map(_argument, values.split())), tuple(zero.split()), res, res_zero)


_FILE = "offset=off:offset rw_flags:RWF_ ioprio attr_ptr:*io_uring_attr_pi attr_type_mask:RwAttr"
_BYTES = f"fd:fd addr:*bytes nbytes=len {_FILE}"
_VECTORS = f"fd:fd iovecs_addr=addr:*iovec nr_vecs=len {_FILE}"
_MESSAGE = "fd:fd msg_addr=addr:*msghdr msg_flags:MSG_ ioprio:RecvSend len:one"
_SEND = """
    sockfd=fd:fd iovecs_addr=addr:*iovec?ioprio.VECTORIZED addr:*bytes
    nr_vecs=len?ioprio.VECTORIZED nbytes=len msg_flags:MSG_ ioprio:RecvSend
    sockaddr_addr=addr2:*sockaddr addrlen=addr_len
"""
_BUFFER = "buf_group?sqe_flags.BUFFER_SELECT buf_index"
_ADDRESS = "fd:fd sockaddr_addr=addr:*sockaddr addrlen=off"
_TIMEOUT = "nanoseconds=addr?timeout_flags.IMMEDIATE_ARG ts_addr=addr:*__kernel_timespec timeout_flags:Timeout"
_PATH = "dfd=fd:dirfd path_addr=addr:*path"
_TWO_PATHS = "olddfd=fd:dirfd oldpath_addr=addr:*path newdfd=len:dirfd newpath_addr=addr2:*path"
_XATTR = "name_addr=addr:*name value_addr=addr2:*bytes nbytes=len {}xattr_flags{}"
_SETXATTR, _GETXATTR = _XATTR.format("", ":XATTR_"), _XATTR.format("reserved_flags=", "")
_FUTEX = "futex_addr=addr:*u32 val=off mask=addr3 futex_flags=fd:Futex2 reserved_flags=futex_flags"
_NOP = """
    nop_flags:Nop res=len:signed?nop_flags.INJECT_RESULT fd:fd?nop_flags.FILE buf_index?nop_flags.FIXED_BUFFER
    big0=off?nop_flags.CQE32 big1=addr?nop_flags.CQE32
"""
_SOCKET_OPTION = "SIOCINQ|SIOCOUTQ|GETSOCKOPT|SETSOCKOPT|TX_TIMESTAMP"
_URING_CMD = f"""
    fd:fd cmd_op:SocketOp|BlockOp uring_cmd_flags:UringCmd {_BUFFER}
    level?cmd_op.{_SOCKET_OPTION} optname?cmd_op.{_SOCKET_OPTION}
    sockaddr_addr=addr:*sockaddr?cmd_op.GETSOCKNAME offset=addr?cmd_op.DISCARD addr
    peer=optlen?cmd_op.GETSOCKNAME optlen len
    optval_addr=optval:*bytes?cmd_op.{_SOCKET_OPTION}
    addrlen_addr=addr3:*socklen_t?cmd_op.GETSOCKNAME nbytes=addr3?cmd_op.DISCARD
    cmd:bytes
"""

ARGUMENTS: Final[Mapping[Op, Arguments]] = MappingProxyType(
    {
        Op.NOP: _arguments(_NOP, "ioprio"),
        Op.READV: _arguments(f"{_VECTORS} buf_group", "", "bytes", "end of file"),
        Op.WRITEV: _arguments(_VECTORS, "", "bytes"),
        Op.FSYNC: _arguments(
            "fd:fd fsync_flags:Fsync offset=off:offset nbytes=len", "ioprio addr buf_index file_index"
        ),
        Op.READ_FIXED: _arguments(f"{_BYTES} buf_index", "", "bytes", "end of file"),
        Op.WRITE_FIXED: _arguments(f"{_BYTES} buf_index", "", "bytes"),
        Op.POLL_ADD: _arguments(
            "fd:fd poll_mask=poll32_events:poll poll_flags=len:Poll", "ioprio off addr buf_index", "poll"
        ),
        Op.POLL_REMOVE: _arguments(
            "target_user_data=addr:user_data poll_flags=len:Poll poll_mask=poll32_events:poll?poll_flags.UPDATE_EVENTS"
            " new_user_data=off:user_data?poll_flags.UPDATE_USER_DATA",
            "ioprio buf_index file_index",
        ),
        Op.SYNC_FILE_RANGE: _arguments(
            "fd:fd nbytes=len offset=off:offset sync_range_flags:SYNC_FILE_RANGE_",
            "ioprio addr buf_index file_index",
        ),
        Op.SENDMSG: _arguments(_MESSAGE, "off file_index", "bytes"),
        Op.RECVMSG: _arguments(f"{_MESSAGE} buf_group", "off file_index", "bytes", "the peer closed"),
        Op.TIMEOUT: _arguments(
            f"{_TIMEOUT} count=off len:one", "ioprio buf_index file_index addr3 __pad2", "",
            "as many requests completed as it waited for",
        ),
        Op.TIMEOUT_REMOVE: _arguments(
            "target_user_data=addr:user_data timeout_flags:Timeout nanoseconds=addr2?timeout_flags.IMMEDIATE_ARG"
            " ts_addr=addr2:*__kernel_timespec?timeout_flags.UPDATE",
            "ioprio len buf_index file_index addr3 __pad2",
        ),
        Op.ACCEPT: _arguments(
            "fd:fd sockaddr_addr=addr:*sockaddr addrlen_addr=addr2:*socklen_t accept_flags:SOCK_"
            " ioprio:Accept file_index:new_slot",
            "len buf_index", "fd",
        ),
        Op.ASYNC_CANCEL: _arguments(
            "target_user_data=addr:user_data cancel_flags:Cancel opcode=len:Op?cancel_flags.OP fd:fd?cancel_flags.FD",
            "ioprio off file_index", "requests cancelled",
        ),
        Op.LINK_TIMEOUT: _arguments(
            f"{_TIMEOUT} len:one", "ioprio off buf_index file_index addr3 __pad2"
        ),
        Op.CONNECT: _arguments(_ADDRESS, "ioprio len rw_flags buf_index file_index"),
        Op.FALLOCATE: _arguments(
            "fd:fd mode=len:FALLOC_FL_ offset=off:offset nbytes=addr", "ioprio rw_flags buf_index file_index"
        ),
        Op.OPENAT: _arguments(
            f"{_PATH} open_flags:O_ mode=len:mode file_index:new_slot", "ioprio buf_index", "fd"
        ),
        Op.CLOSE: _arguments("fd:fd file_index:new_slot", "ioprio off addr len rw_flags buf_index"),
        Op.FILES_UPDATE: _arguments(
            "fds_addr=addr:*int nr_fds=len offset=off", "ioprio rw_flags file_index", "slots updated"
        ),
        Op.STATX: _arguments(
            f"{_PATH} statx_flags:AT_ mask=len:STATX_ statx_addr=addr2:*statx", "ioprio buf_index file_index"
        ),
        Op.READ: _arguments(f"{_BYTES} buf_group", "", "bytes", "end of file"),
        Op.WRITE: _arguments(_BYTES, "", "bytes"),
        Op.FADVISE: _arguments(
            "fd:fd offset=off:offset nbytes=len nbytes64=addr advice=fadvise_advice:POSIX_FADV_",
            "ioprio buf_index file_index",
        ),
        Op.MADVISE: _arguments(
            "addr:*bytes nbytes=len nbytes64=off advice=fadvise_advice:MADV_", "ioprio buf_index file_index"
        ),
        Op.SEND: _arguments(f"{_SEND} {_BUFFER}", "__pad3", "bytes"),
        Op.RECV: _arguments(
            "sockfd=fd:fd addr:*bytes nbytes=len msg_flags:MSG_ ioprio:RecvSend buf_group"
            " total_nbytes=optlen?ioprio.RECV_MULTISHOT",
            "off", "bytes", "the peer closed",
        ),
        Op.OPENAT2: _arguments(
            f"{_PATH} how_addr=addr2:*open_how how_nbytes=len file_index:new_slot", "ioprio buf_index", "fd"
        ),
        Op.EPOLL_CTL: _arguments(
            "epfd=fd:fd fd=off epoll_op=len:EPOLL_CTL_ event_addr=addr:*epoll_event",
            "ioprio buf_index file_index",
        ),
        Op.SPLICE: _arguments(
            "fd_in=splice_fd_in:signed off_in=splice_off_in:offset fd_out=fd:fd off_out=off:offset"
            " nbytes=len splice_flags:SPLICE_F_",
            "ioprio", "bytes", "end of the input",
        ),
        Op.PROVIDE_BUFFERS: _arguments(
            "addr:*bytes nbytes=len nr=fd:signed bgid=buf_group bid=off", "ioprio rw_flags file_index"
        ),
        Op.REMOVE_BUFFERS: _arguments(
            "nr=fd:signed bgid=buf_group", "ioprio off addr len rw_flags file_index", "buffers removed"
        ),
        Op.TEE: _arguments(
            "fd_in=splice_fd_in:signed fd_out=fd:fd nbytes=len splice_flags:SPLICE_F_", "ioprio off addr",
            "bytes", "end of the input",
        ),
        Op.SHUTDOWN: _arguments("fd:fd how=len:SHUT_", "ioprio off addr rw_flags buf_index file_index"),
        Op.RENAMEAT: _arguments(f"{_TWO_PATHS} rename_flags:RENAME_", "ioprio buf_index file_index"),
        Op.UNLINKAT: _arguments(f"{_PATH} unlink_flags:AT_", "ioprio off len buf_index file_index"),
        Op.MKDIRAT: _arguments(f"{_PATH} mode=len:mode", "ioprio off rw_flags buf_index file_index"),
        Op.SYMLINKAT: _arguments(
            "target_addr=addr:*path newdirfd=fd:dirfd linkpath_addr=addr2:*path",
            "ioprio len rw_flags buf_index file_index",
        ),
        Op.LINKAT: _arguments(f"{_TWO_PATHS} hardlink_flags:AT_", "ioprio buf_index file_index"),
        Op.MSG_RING: _arguments(
            "fd:fd command=addr:MsgRingCommand data=off:user_data res=len:signed msg_ring_flags:MsgRing"
            " source_slot=addr3?command.SEND_FD file_index:new_slot?command.SEND_FD cqe_flags=file_index",
            "ioprio buf_index", "slot",
        ),
        Op.FSETXATTR: _arguments(f"fd:fd {_SETXATTR}", "ioprio"),
        Op.SETXATTR: _arguments(f"{_SETXATTR} path_addr=addr3:*path", "ioprio"),
        Op.FGETXATTR: _arguments(f"fd:fd {_GETXATTR}", "ioprio rw_flags", "bytes"),
        Op.GETXATTR: _arguments(f"{_GETXATTR} path_addr=addr3:*path", "ioprio rw_flags", "bytes"),
        Op.SOCKET: _arguments(
            "domain=fd:AF_ socktype=off:SOCK_ protocol=len reserved_flags=rw_flags file_index:new_slot",
            "ioprio addr rw_flags buf_index", "fd",
        ),
        Op.URING_CMD: _arguments(_URING_CMD, "ioprio __pad1", "as the command has it"),
        Op.SEND_ZC: _arguments(f"{_SEND} {_BUFFER}", "__pad3", "bytes"),
        Op.SENDMSG_ZC: _arguments(f"{_MESSAGE} buf_index", "off file_index", "bytes"),
        Op.READ_MULTISHOT: _arguments(
            "fd:fd nbytes=len offset=off:offset rw_flags:RWF_ buf_group", "ioprio addr len", "bytes", "end of file"
        ),
        Op.WAITID: _arguments(
            "id=fd:signed idtype=len:P_ infop_addr=addr2:*siginfo_t options=file_index:W reserved_flags=waitid_flags",
            "ioprio addr rw_flags buf_index addr3",
        ),
        Op.FUTEX_WAIT: _arguments(_FUTEX, "ioprio len rw_flags buf_index file_index"),
        Op.FUTEX_WAKE: _arguments(_FUTEX, "ioprio len rw_flags buf_index file_index", "waiters woken", "none woken"),
        Op.FUTEX_WAITV: _arguments(
            "futexes_addr=addr:*futex_waitv nr_futex=len reserved_flags=futex_flags",
            "ioprio fd off rw_flags buf_index file_index addr3", "the index of the futex woken",
            "the first futex was woken",
        ),
        Op.FIXED_FD_INSTALL: _arguments(
            "fd:slot install_fd_flags:FixedFd", "ioprio off addr len buf_index file_index addr3", "fd"
        ),
        Op.FTRUNCATE: _arguments("fd:fd nbytes=off", "ioprio addr len rw_flags buf_index file_index addr3"),
        Op.BIND: _arguments(_ADDRESS, "ioprio len rw_flags buf_index file_index"),
        Op.LISTEN: _arguments("fd:fd backlog=len", "ioprio off addr rw_flags buf_index file_index"),
        Op.RECV_ZC: _arguments(
            "sockfd=fd:fd nbytes=len msg_flags:MSG_ ioprio:RecvSend zcrx_ifq_idx", "", "bytes", "the peer closed"
        ),
        Op.EPOLL_WAIT: _arguments(
            "fd:fd events_addr=addr:*epoll_event maxevents=len reserved_flags=rw_flags",
            "ioprio off rw_flags buf_index file_index", "events",
        ),
        Op.READV_FIXED: _arguments(f"{_VECTORS} buf_index", "", "bytes", "end of file"),
        Op.WRITEV_FIXED: _arguments(f"{_VECTORS} buf_index", "", "bytes"),
        Op.PIPE: _arguments(
            "fds_addr=addr:*int pipe_flags:O_ file_index:new_slot", "ioprio fd off addr3"
        ),
        Op.NOP128: _arguments(_NOP, "ioprio"),
        Op.URING_CMD128: _arguments(_URING_CMD, "ioprio __pad1", "as the command has it"),
    }
)  # fmt: skip
"""What the fields of an SQE and `cqe.res` mean, by operation."""
