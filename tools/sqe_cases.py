"""What every encoder of `SubmissionQueue` must write: one table, for the tests and for the comparison with liburing.

python3 tools/sqe_cases.py prints it: each encoder with the bytes it writes, 0 where it is told nothing.

May import rawuring.abi only, for the values of its enums: what is expected comes from the layout
of struct io_uring_sqe and the semantics of liburing's io_uring_prep_* functions, never from the
encoders' own constants. tests/test_prep.py holds the encoders against it, tools/compare_liburing.py
holds it and them against C.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # run as a program: the path begins with this folder, not with the checkout
    sys.path.insert(0, ROOT)

from rawuring import abi

Op, SqeFlag = abi.Op, abi.SqeFlag

Value = int | bytes

# One value for each kind of field, with different bytes everywhere. None of them has a bit that an
# encoder adds (MULTISHOT, BUFFER_SELECT, CANCEL_FD, TIMEOUT_UPDATE), so a missing one shows.
FD = 0x0102_0304
OFF = 0x1112_1314_1516_1718
ADDR = 0x2122_2324_2526_2728
LEN = 0x3132_3334
OP_FLAGS = 0x4144_4548
USER_DATA = 0x5152_5354_5556_5758
SQE_FLAGS = 0x50
IOPRIO = 0x6160
BUF = 0x7172
PERSONALITY = 0x8182
SLOT = 0x1192_9394
MASK = 0xA1A2_A3A4
MASK_IN_SQE = MASK if sys.byteorder == "little" else 0xA3A4_A1A2  # poll32_events of io_uring.h
ADDR3 = 0x3B32_B3B4_B5B6_B7B8
OTHER_FD = 0x4342_4344
ADDRLEN = 0x6D62
CMD_OP = 0x5F52_5354
CMD16 = bytes(range(0x80, 0x90))
CMD80 = bytes(range(0x80, 0xD0))
ATTRIBUTES = 0x6B62_6364_6566_6768

# Fields where bits of the caller's come beside those that make the request what it is.
JOINED = {"ioprio", "flags"}
WIDE = {Op.NOP128, Op.URING_CMD128}

AT_FDCWD = -100  # fcntl.h
AT_FDCWD_IN_LEN = 2**32 - 100
ALLOC = abi.FILE_INDEX_ALLOC

# The parameters that mean the same in every encoder that has them: their field, and a value.
SHARED: Mapping[str, tuple[str, Value]] = {
    "user_data": ("user_data", USER_DATA),
    "sqe_flags": ("flags", SQE_FLAGS),
    "ioprio": ("ioprio", IOPRIO),
    "buf_group": ("buf_group", BUF),
    "personality": ("personality", PERSONALITY),
    "rw_flags": ("rw_flags", OP_FLAGS),
}


class Case(NamedTuple):
    """A call with its own arguments, and the fields it fills; more fields by each further parameter."""

    name: str
    since: str
    args: tuple[int, ...]  # the leading ones: those of the C function of that name
    fields: Mapping[str, int]
    options: Mapping[str, tuple[str, Value]] = {}  # each further parameter that SHARED does not know: field and value
    calls: tuple[tuple[str, tuple[int, ...]], ...] | None = None
    """The C functions and their arguments, where it is not the one of that name with `args`."""


ACCEPT = {"opcode": Op.ACCEPT, "fd": FD, "addr": ADDR, "off": OFF, "accept_flags": OP_FLAGS}
OPENAT = {"opcode": Op.OPENAT, "fd": FD, "addr": ADDR, "open_flags": OP_FLAGS, "len": LEN}
OPEN = {**OPENAT, "fd": AT_FDCWD}
OPENAT2 = {"opcode": Op.OPENAT2, "fd": FD, "addr": ADDR, "addr2": OFF, "len": 24}  # sizeof(struct open_how)
PIPE = {"opcode": Op.PIPE, "addr": ADDR, "pipe_flags": OP_FLAGS}
SOCKET = {"opcode": Op.SOCKET, "fd": FD, "off": OTHER_FD, "len": LEN, "rw_flags": OP_FLAGS}
RENAME = {"opcode": Op.RENAMEAT, "addr": ADDR, "addr2": OFF}
LINK = {"opcode": Op.LINKAT, "addr": ADDR, "addr2": OFF, "hardlink_flags": OP_FLAGS}
SEND_ZC = {"opcode": Op.SEND_ZC, "fd": FD, "addr": ADDR, "len": LEN, "msg_flags": OP_FLAGS}
TO = {"addr2": OFF, "addr_len": ADDRLEN}
SENDMSG_ZC = {"opcode": Op.SENDMSG_ZC, "fd": FD, "addr": ADDR, "len": 1, "msg_flags": OP_FLAGS}
MSG_RING = {"opcode": Op.MSG_RING, "fd": FD, "len": LEN, "off": OFF}
MSG_FD = {"opcode": Op.MSG_RING, "fd": FD, "addr": 1, "addr3": OTHER_FD, "off": OFF, "msg_ring_flags": OP_FLAGS}
FUTEX = {"fd": FD, "addr": ADDR, "off": OFF, "addr3": ADDR3, "futex_flags": OP_FLAGS}
COMMAND = {"opcode": Op.URING_CMD, "fd": FD, "cmd_op": CMD_OP}
COMMAND128 = {"opcode": Op.URING_CMD128, "fd": FD, "cmd_op": CMD_OP}
NOP_FLAGS: Mapping[str, tuple[str, Value]] = {
    "res": ("len", LEN),
    "fd": ("fd", FD),
    "buf_index": ("buf_index", BUF),
    "extra1": ("off", OFF),
    "extra2": ("addr", ADDR),
}
COMMAND_OPTIONS: Mapping[str, tuple[str, Value]] = {
    "uring_cmd_flags": ("uring_cmd_flags", OP_FLAGS),
    "addr": ("addr", ADDR),
    "nbytes": ("len", LEN),
    "buf_index": ("buf_index", BUF),
}
ACCEPT_MULTISHOT, RECV_MULTISHOT = abi.Accept.MULTISHOT, abi.RecvSend.RECV_MULTISHOT
BUNDLE, FIXED_BUF = abi.RecvSend.BUNDLE, abi.RecvSend.FIXED_BUF

CASES = [
    # files
    Case("prep_read", Op.READ.since, (FD, ADDR, LEN, OFF),
         {"opcode": Op.READ, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF}),
    Case("prep_read", Op.READ.since, (FD, ADDR, LEN, -1),
         {"opcode": Op.READ, "fd": FD, "addr": ADDR, "len": LEN, "off": abi.CURRENT_POSITION}),
    Case("prep_write", Op.WRITE.since, (FD, ADDR, LEN, OFF),
         {"opcode": Op.WRITE, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF}),
    Case("prep_read_fixed", Op.READ_FIXED.since, (FD, ADDR, LEN, OFF, BUF),
         {"opcode": Op.READ_FIXED, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF, "buf_index": BUF}),
    Case("prep_write_fixed", Op.WRITE_FIXED.since, (FD, ADDR, LEN, OFF, BUF),
         {"opcode": Op.WRITE_FIXED, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF, "buf_index": BUF}),
    Case("prep_readv", Op.READV.since, (FD, ADDR, LEN, OFF),
         {"opcode": Op.READV, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF}),
    Case("prep_readv2", Op.READV.since, (FD, ADDR, LEN, OFF, OP_FLAGS),
         {"opcode": Op.READV, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF, "rw_flags": OP_FLAGS}),
    Case("prep_writev", Op.WRITEV.since, (FD, ADDR, LEN, OFF),
         {"opcode": Op.WRITEV, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF}),
    Case("prep_writev2", Op.WRITEV.since, (FD, ADDR, LEN, OFF, OP_FLAGS),
         {"opcode": Op.WRITEV, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF, "rw_flags": OP_FLAGS}),
    Case("prep_readv_fixed", Op.READV_FIXED.since, (FD, ADDR, LEN, OFF, OP_FLAGS, BUF),
         {"opcode": Op.READV_FIXED, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF, "rw_flags": OP_FLAGS,
          "buf_index": BUF}),
    Case("prep_writev_fixed", Op.WRITEV_FIXED.since, (FD, ADDR, LEN, OFF, OP_FLAGS, BUF),
         {"opcode": Op.WRITEV_FIXED, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF, "rw_flags": OP_FLAGS,
          "buf_index": BUF}),
    Case("prep_read_multishot", Op.READ_MULTISHOT.since, (FD, LEN, OFF, BUF),
         {"opcode": Op.READ_MULTISHOT, "fd": FD, "len": LEN, "off": OFF, "buf_group": BUF,
          "flags": SqeFlag.BUFFER_SELECT}),
    Case("prep_fsync", Op.FSYNC.since, (FD, OP_FLAGS),
         {"opcode": Op.FSYNC, "fd": FD, "fsync_flags": OP_FLAGS}, {"offset": ("off", OFF), "nbytes": ("len", LEN)}),
    # ranges
    Case("prep_sync_file_range", Op.SYNC_FILE_RANGE.since, (FD, LEN, OFF, OP_FLAGS),
         {"opcode": Op.SYNC_FILE_RANGE, "fd": FD, "len": LEN, "off": OFF, "sync_range_flags": OP_FLAGS}),
    Case("prep_fallocate", Op.FALLOCATE.since, (FD, LEN, OFF, ADDR),
         {"opcode": Op.FALLOCATE, "fd": FD, "len": LEN, "off": OFF, "addr": ADDR}),
    Case("prep_ftruncate", Op.FTRUNCATE.since, (FD, OFF), {"opcode": Op.FTRUNCATE, "fd": FD, "off": OFF}),
    Case("prep_fadvise", Op.FADVISE.since, (FD, OFF, LEN, OP_FLAGS),
         {"opcode": Op.FADVISE, "fd": FD, "off": OFF, "len": LEN, "fadvise_advice": OP_FLAGS}),
    Case("prep_fadvise64", "6.11", (FD, OFF, ADDR, OP_FLAGS),
         {"opcode": Op.FADVISE, "fd": FD, "off": OFF, "addr": ADDR, "fadvise_advice": OP_FLAGS}),
    Case("prep_madvise", Op.MADVISE.since, (ADDR, LEN, OP_FLAGS),
         {"opcode": Op.MADVISE, "fd": -1, "addr": ADDR, "len": LEN, "fadvise_advice": OP_FLAGS}),
    Case("prep_madvise64", "6.11", (ADDR, OFF, OP_FLAGS),
         {"opcode": Op.MADVISE, "fd": -1, "addr": ADDR, "off": OFF, "fadvise_advice": OP_FLAGS}),
    Case("prep_splice", Op.SPLICE.since, (OTHER_FD, ADDR, FD, OFF, LEN, OP_FLAGS),
         {"opcode": Op.SPLICE, "splice_fd_in": OTHER_FD, "splice_off_in": ADDR, "fd": FD, "off": OFF, "len": LEN,
          "splice_flags": OP_FLAGS}),
    Case("prep_splice", Op.SPLICE.since, (OTHER_FD, -1, FD, -1, LEN, OP_FLAGS),
         {"opcode": Op.SPLICE, "splice_fd_in": OTHER_FD, "splice_off_in": 2**64 - 1, "fd": FD, "off": 2**64 - 1,
          "len": LEN, "splice_flags": OP_FLAGS}),
    Case("prep_tee", Op.TEE.since, (OTHER_FD, FD, LEN, OP_FLAGS),
         {"opcode": Op.TEE, "splice_fd_in": OTHER_FD, "fd": FD, "len": LEN, "splice_flags": OP_FLAGS}),
    # descriptors
    Case("prep_open", Op.OPENAT.since, (ADDR, OP_FLAGS, LEN), OPEN),
    Case("prep_openat", Op.OPENAT.since, (FD, ADDR, OP_FLAGS, LEN), OPENAT),
    Case("prep_open_direct", "5.15", (ADDR, OP_FLAGS, LEN, SLOT), {**OPEN, "file_index": SLOT + 1}),
    Case("prep_open_direct", "5.15", (ADDR, OP_FLAGS, LEN, ALLOC), {**OPEN, "file_index": ALLOC}),
    Case("prep_openat_direct", "5.15", (FD, ADDR, OP_FLAGS, LEN, SLOT), {**OPENAT, "file_index": SLOT + 1}),
    Case("prep_openat_direct", "5.15", (FD, ADDR, OP_FLAGS, LEN, 0), {**OPENAT, "file_index": 1}),
    Case("prep_openat_direct", "5.15", (FD, ADDR, OP_FLAGS, LEN, ALLOC), {**OPENAT, "file_index": ALLOC}),
    Case("prep_openat2", Op.OPENAT2.since, (FD, ADDR, OFF), OPENAT2),
    Case("prep_openat2_direct", "5.15", (FD, ADDR, OFF, SLOT), {**OPENAT2, "file_index": SLOT + 1}),
    Case("prep_openat2_direct", "5.15", (FD, ADDR, OFF, ALLOC), {**OPENAT2, "file_index": ALLOC}),
    Case("prep_close", Op.CLOSE.since, (FD,), {"opcode": Op.CLOSE, "fd": FD}),
    Case("prep_close_direct", "5.15", (SLOT,), {"opcode": Op.CLOSE, "file_index": SLOT + 1}),
    Case("prep_files_update", Op.FILES_UPDATE.since, (ADDR, LEN, SLOT),
         {"opcode": Op.FILES_UPDATE, "fd": -1, "addr": ADDR, "len": LEN, "off": SLOT}),
    Case("prep_files_update", Op.FILES_UPDATE.since, (ADDR, LEN, ALLOC),
         {"opcode": Op.FILES_UPDATE, "fd": -1, "addr": ADDR, "len": LEN, "off": 2**64 - 1}),
    Case("prep_fixed_fd_install", Op.FIXED_FD_INSTALL.since, (FD, OP_FLAGS),
         {"opcode": Op.FIXED_FD_INSTALL, "fd": FD, "install_fd_flags": OP_FLAGS, "flags": SqeFlag.FIXED_FILE}),
    Case("prep_pipe", Op.PIPE.since, (ADDR, OP_FLAGS), PIPE),
    Case("prep_pipe_direct", Op.PIPE.since, (ADDR, OP_FLAGS, SLOT), {**PIPE, "file_index": SLOT + 1}),
    Case("prep_pipe_direct", Op.PIPE.since, (ADDR, OP_FLAGS, ALLOC), {**PIPE, "file_index": ALLOC}),
    # paths
    Case("prep_statx", Op.STATX.since, (FD, ADDR, OP_FLAGS, LEN, OFF),
         {"opcode": Op.STATX, "fd": FD, "addr": ADDR, "statx_flags": OP_FLAGS, "len": LEN, "addr2": OFF}),
    Case("prep_renameat", Op.RENAMEAT.since, (FD, ADDR, OTHER_FD, OFF, OP_FLAGS),
         {**RENAME, "fd": FD, "len": OTHER_FD, "rename_flags": OP_FLAGS}),
    Case("prep_renameat", Op.RENAMEAT.since, (FD, ADDR, AT_FDCWD, OFF, OP_FLAGS),
         {**RENAME, "fd": FD, "len": AT_FDCWD_IN_LEN, "rename_flags": OP_FLAGS}),
    Case("prep_rename", Op.RENAMEAT.since, (ADDR, OFF), {**RENAME, "fd": AT_FDCWD, "len": AT_FDCWD_IN_LEN}),
    Case("prep_unlinkat", Op.UNLINKAT.since, (FD, ADDR, OP_FLAGS),
         {"opcode": Op.UNLINKAT, "fd": FD, "addr": ADDR, "unlink_flags": OP_FLAGS}),
    Case("prep_unlink", Op.UNLINKAT.since, (ADDR, OP_FLAGS),
         {"opcode": Op.UNLINKAT, "fd": AT_FDCWD, "addr": ADDR, "unlink_flags": OP_FLAGS}),
    Case("prep_mkdirat", Op.MKDIRAT.since, (FD, ADDR, LEN),
         {"opcode": Op.MKDIRAT, "fd": FD, "addr": ADDR, "len": LEN}),
    Case("prep_mkdir", Op.MKDIRAT.since, (ADDR, LEN),
         {"opcode": Op.MKDIRAT, "fd": AT_FDCWD, "addr": ADDR, "len": LEN}),
    Case("prep_symlinkat", Op.SYMLINKAT.since, (ADDR, FD, OFF),
         {"opcode": Op.SYMLINKAT, "fd": FD, "addr": ADDR, "addr2": OFF}),
    Case("prep_symlink", Op.SYMLINKAT.since, (ADDR, OFF),
         {"opcode": Op.SYMLINKAT, "fd": AT_FDCWD, "addr": ADDR, "addr2": OFF}),
    Case("prep_linkat", Op.LINKAT.since, (FD, ADDR, OTHER_FD, OFF, OP_FLAGS), {**LINK, "fd": FD, "len": OTHER_FD}),
    Case("prep_linkat", Op.LINKAT.since, (FD, ADDR, AT_FDCWD, OFF, OP_FLAGS),
         {**LINK, "fd": FD, "len": AT_FDCWD_IN_LEN}),
    Case("prep_link", Op.LINKAT.since, (ADDR, OFF, OP_FLAGS), {**LINK, "fd": AT_FDCWD, "len": AT_FDCWD_IN_LEN}),
    Case("prep_getxattr", Op.GETXATTR.since, (ADDR, OFF, ADDR3, LEN),
         {"opcode": Op.GETXATTR, "addr": ADDR, "addr2": OFF, "addr3": ADDR3, "len": LEN}),
    Case("prep_setxattr", Op.SETXATTR.since, (ADDR, OFF, ADDR3, OP_FLAGS, LEN),
         {"opcode": Op.SETXATTR, "addr": ADDR, "addr2": OFF, "addr3": ADDR3, "xattr_flags": OP_FLAGS, "len": LEN}),
    Case("prep_fgetxattr", Op.FGETXATTR.since, (FD, ADDR, OFF, LEN),
         {"opcode": Op.FGETXATTR, "fd": FD, "addr": ADDR, "addr2": OFF, "len": LEN}),
    Case("prep_fsetxattr", Op.FSETXATTR.since, (FD, ADDR, OFF, OP_FLAGS, LEN),
         {"opcode": Op.FSETXATTR, "fd": FD, "addr": ADDR, "addr2": OFF, "xattr_flags": OP_FLAGS, "len": LEN}),
    # sockets
    Case("prep_socket", Op.SOCKET.since, (FD, OTHER_FD, LEN, OP_FLAGS), SOCKET),
    Case("prep_socket_direct", Op.SOCKET.since, (FD, OTHER_FD, LEN, SLOT, OP_FLAGS),
         {**SOCKET, "file_index": SLOT + 1}),
    Case("prep_socket_direct", Op.SOCKET.since, (FD, OTHER_FD, LEN, ALLOC, OP_FLAGS), {**SOCKET, "file_index": ALLOC}),
    Case("prep_socket_direct_alloc", Op.SOCKET.since, (FD, OTHER_FD, LEN, OP_FLAGS), {**SOCKET, "file_index": ALLOC}),
    Case("prep_bind", Op.BIND.since, (FD, ADDR, LEN), {"opcode": Op.BIND, "fd": FD, "addr": ADDR, "off": LEN}),
    Case("prep_listen", Op.LISTEN.since, (FD, LEN), {"opcode": Op.LISTEN, "fd": FD, "len": LEN}),
    Case("prep_accept", Op.ACCEPT.since, (FD, ADDR, OFF, OP_FLAGS), ACCEPT),
    Case("prep_accept_direct", "5.15", (FD, ADDR, OFF, OP_FLAGS, SLOT), {**ACCEPT, "file_index": SLOT + 1}),
    Case("prep_accept_direct", "5.15", (FD, ADDR, OFF, OP_FLAGS, ALLOC), {**ACCEPT, "file_index": ALLOC}),
    Case("prep_multishot_accept", ACCEPT_MULTISHOT.since, (FD, ADDR, OFF, OP_FLAGS),
         {**ACCEPT, "ioprio": ACCEPT_MULTISHOT}),
    Case("prep_multishot_accept_direct", ACCEPT_MULTISHOT.since, (FD, ADDR, OFF, OP_FLAGS),
         {**ACCEPT, "ioprio": ACCEPT_MULTISHOT, "file_index": ALLOC}),
    Case("prep_connect", Op.CONNECT.since, (FD, ADDR, LEN), {"opcode": Op.CONNECT, "fd": FD, "addr": ADDR, "off": LEN}),
    Case("prep_shutdown", Op.SHUTDOWN.since, (FD, LEN), {"opcode": Op.SHUTDOWN, "fd": FD, "len": LEN}),
    # transfers
    Case("prep_send", Op.SEND.since, (FD, ADDR, LEN, OP_FLAGS),
         {"opcode": Op.SEND, "fd": FD, "addr": ADDR, "len": LEN, "msg_flags": OP_FLAGS}),
    Case("prep_sendto", "6.1", (FD, ADDR, LEN, OP_FLAGS, OFF, ADDRLEN),
         {"opcode": Op.SEND, "fd": FD, "addr": ADDR, "len": LEN, "msg_flags": OP_FLAGS, **TO}),
    Case("prep_send_bundle", BUNDLE.since, (FD, LEN, OP_FLAGS),
         {"opcode": Op.SEND, "fd": FD, "len": LEN, "msg_flags": OP_FLAGS, "ioprio": BUNDLE,
          "flags": SqeFlag.BUFFER_SELECT}),
    Case("prep_recv", Op.RECV.since, (FD, ADDR, LEN, OP_FLAGS),
         {"opcode": Op.RECV, "fd": FD, "addr": ADDR, "len": LEN, "msg_flags": OP_FLAGS}),
    Case("prep_recv_multishot", RECV_MULTISHOT.since, (FD, ADDR, LEN, OP_FLAGS),
         {"opcode": Op.RECV, "fd": FD, "addr": ADDR, "len": LEN, "msg_flags": OP_FLAGS,
          "ioprio": RECV_MULTISHOT, "flags": SqeFlag.BUFFER_SELECT}, {"total_nbytes": ("optlen", SLOT)}),
    Case("prep_sendmsg", Op.SENDMSG.since, (FD, ADDR, OP_FLAGS),
         {"opcode": Op.SENDMSG, "fd": FD, "addr": ADDR, "len": 1, "msg_flags": OP_FLAGS}),
    Case("prep_recvmsg", Op.RECVMSG.since, (FD, ADDR, OP_FLAGS),
         {"opcode": Op.RECVMSG, "fd": FD, "addr": ADDR, "len": 1, "msg_flags": OP_FLAGS}),
    Case("prep_recvmsg_multishot", RECV_MULTISHOT.since, (FD, ADDR, OP_FLAGS),
         {"opcode": Op.RECVMSG, "fd": FD, "addr": ADDR, "len": 1, "msg_flags": OP_FLAGS,
          "ioprio": RECV_MULTISHOT, "flags": SqeFlag.BUFFER_SELECT}),
    # zero_copy
    Case("prep_send_zc", Op.SEND_ZC.since, (FD, ADDR, LEN, OP_FLAGS, IOPRIO), {**SEND_ZC, "ioprio": IOPRIO},
         {"sockaddr_addr": ("addr2", OFF), "addrlen": ("addr_len", ADDRLEN)}),
    Case("prep_send_zc", Op.SEND_ZC.since, (FD, ADDR, LEN, OP_FLAGS, IOPRIO, OFF, ADDRLEN),
         {**SEND_ZC, **TO, "ioprio": IOPRIO},
         calls=(("io_uring_prep_send_zc", (FD, ADDR, LEN, OP_FLAGS, IOPRIO)),
                ("io_uring_prep_send_set_addr", (OFF, ADDRLEN)))),
    Case("prep_send_zc_fixed", Op.SEND_ZC.since, (FD, ADDR, LEN, OP_FLAGS, IOPRIO, BUF),
         {**SEND_ZC, "ioprio": IOPRIO | FIXED_BUF, "buf_index": BUF},
         {"sockaddr_addr": ("addr2", OFF), "addrlen": ("addr_len", ADDRLEN)}),
    Case("prep_sendmsg_zc", Op.SENDMSG_ZC.since, (FD, ADDR, OP_FLAGS), SENDMSG_ZC, {"zc_flags": ("ioprio", IOPRIO)}),
    Case("prep_sendmsg_zc_fixed", "6.15", (FD, ADDR, OP_FLAGS, BUF),
         {**SENDMSG_ZC, "ioprio": FIXED_BUF, "buf_index": BUF}, {"zc_flags": ("ioprio", IOPRIO)}),
    Case("prep_recv_zc", Op.RECV_ZC.since, (FD, LEN, OP_FLAGS, SLOT),
         {"opcode": Op.RECV_ZC, "fd": FD, "len": LEN, "msg_flags": OP_FLAGS, "zcrx_ifq_idx": SLOT,
          "ioprio": RECV_MULTISHOT}, calls=()),
    # buffers
    Case("prep_provide_buffers", Op.PROVIDE_BUFFERS.since, (ADDR, LEN, FD, BUF, SLOT),
         {"opcode": Op.PROVIDE_BUFFERS, "addr": ADDR, "len": LEN, "fd": FD, "buf_group": BUF, "off": SLOT}),
    Case("prep_remove_buffers", Op.REMOVE_BUFFERS.since, (FD, BUF),
         {"opcode": Op.REMOVE_BUFFERS, "fd": FD, "buf_group": BUF}),
    # waiting
    Case("prep_nop", Op.NOP.since, (), {"opcode": Op.NOP, "fd": -1}),
    Case("prep_nop_flags", abi.Nop.INJECT_RESULT.since, (OP_FLAGS,),
         {"opcode": Op.NOP, "fd": -1, "nop_flags": OP_FLAGS}, NOP_FLAGS, calls=()),
    Case("prep_nop128", Op.NOP128.since, (), {"opcode": Op.NOP128, "fd": -1},
         {"nop_flags": ("nop_flags", OP_FLAGS), **NOP_FLAGS}),
    Case("prep_poll_add", Op.POLL_ADD.since, (FD, MASK),
         {"opcode": Op.POLL_ADD, "fd": FD, "poll32_events": MASK_IN_SQE}, {"poll_flags": ("len", LEN)}),
    Case("prep_poll_multishot", abi.Poll.ADD_MULTI.since, (FD, MASK),
         {"opcode": Op.POLL_ADD, "fd": FD, "poll32_events": MASK_IN_SQE, "len": abi.Poll.ADD_MULTI}),
    Case("prep_poll_remove", Op.POLL_REMOVE.since, (ADDR,), {"opcode": Op.POLL_REMOVE, "fd": -1, "addr": ADDR}),
    Case("prep_poll_update", abi.Poll.UPDATE_EVENTS.since, (ADDR, OFF, MASK, LEN),
         {"opcode": Op.POLL_REMOVE, "fd": -1, "addr": ADDR, "off": OFF, "len": LEN, "poll32_events": MASK_IN_SQE}),
    Case("prep_timeout", Op.TIMEOUT.since, (ADDR, LEN, OP_FLAGS),
         {"opcode": Op.TIMEOUT, "fd": -1, "addr": ADDR, "len": 1, "off": LEN, "timeout_flags": OP_FLAGS}),
    Case("prep_timeout_remove", Op.TIMEOUT_REMOVE.since, (ADDR, OP_FLAGS),
         {"opcode": Op.TIMEOUT_REMOVE, "fd": -1, "addr": ADDR, "timeout_flags": OP_FLAGS}),
    Case("prep_timeout_update", abi.Timeout.UPDATE.since, (OFF, ADDR, OP_FLAGS),
         {"opcode": Op.TIMEOUT_REMOVE, "fd": -1, "addr2": OFF, "addr": ADDR,
          "timeout_flags": OP_FLAGS | abi.Timeout.UPDATE}),
    Case("prep_link_timeout", Op.LINK_TIMEOUT.since, (ADDR, OP_FLAGS),
         {"opcode": Op.LINK_TIMEOUT, "fd": -1, "addr": ADDR, "len": 1, "timeout_flags": OP_FLAGS}),
    Case("prep_cancel", Op.ASYNC_CANCEL.since, (ADDR, OP_FLAGS),
         {"opcode": Op.ASYNC_CANCEL, "fd": -1, "addr": ADDR, "cancel_flags": OP_FLAGS}, {"opcode": ("len", LEN)}),
    Case("prep_cancel64", Op.ASYNC_CANCEL.since, (ADDR, OP_FLAGS),
         {"opcode": Op.ASYNC_CANCEL, "fd": -1, "addr": ADDR, "cancel_flags": OP_FLAGS}, {"opcode": ("len", LEN)}),
    Case("prep_cancel_fd", abi.Cancel.FD.since, (FD, OP_FLAGS),
         {"opcode": Op.ASYNC_CANCEL, "fd": FD, "cancel_flags": OP_FLAGS | abi.Cancel.FD},
         {"opcode": ("len", LEN), "target_user_data": ("addr", ADDR)}),
    # events
    Case("prep_epoll_ctl", Op.EPOLL_CTL.since, (FD, OTHER_FD, LEN, ADDR),
         {"opcode": Op.EPOLL_CTL, "fd": FD, "off": OTHER_FD, "len": LEN, "addr": ADDR}),
    Case("prep_epoll_wait", Op.EPOLL_WAIT.since, (FD, ADDR, LEN, OP_FLAGS),
         {"opcode": Op.EPOLL_WAIT, "fd": FD, "addr": ADDR, "len": LEN, "rw_flags": OP_FLAGS}),
    Case("prep_waitid", Op.WAITID.since, (LEN, FD, OFF, SLOT, OP_FLAGS),
         {"opcode": Op.WAITID, "len": LEN, "fd": FD, "addr2": OFF, "file_index": SLOT, "waitid_flags": OP_FLAGS}),
    Case("prep_futex_wake", Op.FUTEX_WAKE.since, (ADDR, OFF, ADDR3, FD, OP_FLAGS), {**FUTEX, "opcode": Op.FUTEX_WAKE}),
    Case("prep_futex_wait", Op.FUTEX_WAIT.since, (ADDR, OFF, ADDR3, FD, OP_FLAGS), {**FUTEX, "opcode": Op.FUTEX_WAIT}),
    Case("prep_futex_waitv", Op.FUTEX_WAITV.since, (ADDR, LEN, OP_FLAGS),
         {"opcode": Op.FUTEX_WAITV, "addr": ADDR, "len": LEN, "futex_flags": OP_FLAGS}),
    # rings
    Case("prep_msg_ring", Op.MSG_RING.since, (FD, LEN, OFF, OP_FLAGS), {**MSG_RING, "msg_ring_flags": OP_FLAGS}),
    Case("prep_msg_ring_cqe_flags", abi.MsgRing.FLAGS_PASS.since, (FD, LEN, OFF, OP_FLAGS, SLOT),
         {**MSG_RING, "msg_ring_flags": OP_FLAGS | abi.MsgRing.FLAGS_PASS, "file_index": SLOT}),
    Case("prep_msg_ring_fd", abi.MsgRingCommand.SEND_FD.since, (FD, OTHER_FD, SLOT, OFF, OP_FLAGS),
         {**MSG_FD, "file_index": SLOT + 1}),
    Case("prep_msg_ring_fd", abi.MsgRingCommand.SEND_FD.since, (FD, OTHER_FD, ALLOC, OFF, OP_FLAGS),
         {**MSG_FD, "file_index": ALLOC}),
    Case("prep_msg_ring_fd_alloc", abi.MsgRingCommand.SEND_FD.since, (FD, OTHER_FD, OFF, OP_FLAGS),
         {**MSG_FD, "file_index": ALLOC}),
    # commands
    Case("prep_rw", Op.NOP.since, (Op.READ, FD, ADDR, LEN, OFF),
         {"opcode": Op.READ, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF},
         {"op_flags": ("rw_flags", OP_FLAGS), "buf_index": ("buf_index", BUF), "file_index": ("file_index", SLOT),
          "addr3": ("addr3", ADDR3), "attr_type_mask": ("attr_type_mask", ATTRIBUTES)}),
    Case("prep_rw", Op.NOP.since, (Op.READ, FD, ADDR, LEN, -1),
         {"opcode": Op.READ, "fd": FD, "addr": ADDR, "len": LEN, "off": abi.CURRENT_POSITION},
         {"op_flags": ("rw_flags", OP_FLAGS), "buf_index": ("buf_index", BUF), "file_index": ("file_index", SLOT),
          "addr3": ("attr_ptr", ADDR3), "attr_type_mask": ("attr_type_mask", ATTRIBUTES)}),
    Case("prep_uring_cmd", Op.URING_CMD.since, (CMD_OP, FD), COMMAND, {"cmd": ("cmd", CMD16), **COMMAND_OPTIONS}),
    Case("prep_uring_cmd", Op.URING_CMD.since, (CMD_OP, FD), COMMAND, {"cmd": ("cmd", CMD16), **COMMAND_OPTIONS},
         calls=(("__io_uring_prep_uring_cmd", (Op.URING_CMD, CMD_OP, FD)),)),
    Case("prep_uring_cmd128", Op.URING_CMD128.since, (CMD_OP, FD), COMMAND128,
         {"cmd": ("cmd", CMD80), **COMMAND_OPTIONS}),
    Case("prep_cmd_sock", abi.SocketOp.SIOCINQ.since, (CMD_OP, FD, OTHER_FD, LEN, ADDR3, SLOT),
         {**COMMAND, "level": OTHER_FD, "optname": LEN, "optval": ADDR3, "optlen": SLOT}),
    Case("prep_cmd_getsockname", abi.SocketOp.GETSOCKNAME.since, (FD, ADDR, ADDR3, SLOT),
         {"opcode": Op.URING_CMD, "fd": FD, "cmd_op": abi.SocketOp.GETSOCKNAME, "addr": ADDR, "addr3": ADDR3,
          "optlen": SLOT}),
    Case("prep_cmd_discard", abi.BlockOp.DISCARD.since, (FD, ADDR, ADDR3),
         {"opcode": Op.URING_CMD, "fd": FD, "cmd_op": abi.BlockOp.DISCARD, "addr": ADDR, "addr3": ADDR3}),
    Case("prep_cmd_zone_reset_all", abi.BlockOp.ZONE_RESET_ALL.since, (FD,),
         {"opcode": Op.URING_CMD, "fd": FD, "cmd_op": abi.BlockOp.ZONE_RESET_ALL}),
]  # fmt: skip


def helpers(case: Case) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The C functions of liburing that write the same, and their arguments after the SQE; none if none does."""
    return case.calls if case.calls is not None else ((f"io_uring_{case.name}", case.args),)


def expected(case: Case, options: Mapping[str, tuple[str, Value]]) -> bytes:
    """The SQE of a case with these further parameters: 128 bytes for an operation of that size, else 64."""
    sqe = bytearray(2 * abi.IO_URING_SQE.nbytes if case.fields["opcode"] in WIDE else abi.IO_URING_SQE.nbytes)
    for field, number in case.fields.items():
        abi.IO_URING_SQE.put(sqe, field, int(number))
    for field, value in options.values():
        if isinstance(value, bytes):
            at = abi.IO_URING_SQE.fields[field].offset
            sqe[at : at + len(value)] = value
        else:
            before = abi.IO_URING_SQE.get(sqe, field) if field in JOINED else 0
            abi.IO_URING_SQE.put(sqe, field, before | int(value))
    return bytes(sqe)


if __name__ == "__main__":
    try:
        print("\n".join(f"{case.name:28} {expected(case, {}).hex(' ', 8)}" for case in CASES), flush=True)
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads on; the interpreter would complain at its end
