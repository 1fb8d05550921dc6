"""The ABI tables: against a C compiler and the system's headers, and against literals typed in here.

Nothing here talks to io_uring. To compare with other headers than the system's, set
RAWURING_TEST_CFLAGS to an option such as -I/path/to/include.
"""

from __future__ import annotations

import inspect
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rawuring import abi
from rawuring.abi import arguments, constants, structs

pytestmark = pytest.mark.portable

Member = abi.Value | abi.Flag

ENUMS: list[Any] = [
    value
    for module in (constants, arguments)
    for value in vars(module).values()
    if inspect.isclass(value) and issubclass(value, (abi.Value, abi.Flag)) and len(value)
]
MEMBERS: list[Member] = [member for enum in ENUMS for member in enum]


def release(since: str) -> tuple[int, int]:
    major, minor = since.split(".")
    return int(major), int(minor)


def known_to(enum: Iterable[Member], kernel: str) -> int:
    """How many members of an enum a kernel of this release understands."""
    return sum(release(member.since) <= release(kernel) for member in enum)


# -- The C compiler's opinion.

HEADERS = """
#define _GNU_SOURCE
#include <stddef.h>
#include <signal.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <linux/time_types.h>
#ifdef __has_include
# if __has_include(<linux/io_uring/zcrx.h>)
#  include <linux/io_uring/zcrx.h>
# endif
# if __has_include(<linux/io_uring/query.h>)
#  include <linux/io_uring/query.h>
# endif
# if __has_include(<linux/io_uring/bpf_filter.h>)
#  include <linux/io_uring/bpf_filter.h>
# endif
# if __has_include(<linux/blkdev.h>)
#  include <linux/blkdev.h>
# endif
#endif
"""

# Reserved fields shrink and move as later kernels use them.
RESERVED = re.compile(r"(.*\.)?_*(resv|rsvd|reserved|pad)\d*")

# Declared by libc, which differs from the kernel about signs.
LIBC = {"iovec", "msghdr", "cmsghdr", "epoll_event", "siginfo_t"}

# A bit set, whatever C says.
UNSIGNED = {"io_uring_sqe.rw_flags"}


def compiler() -> str:
    """A C compiler that finds the io_uring header, or a skip that says what is missing."""
    command = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if command is None:
        pytest.skip("no C compiler")
    complaint = diagnose(command, HEADERS)
    if complaint:
        pytest.skip(f"the C compiler does not find the system's headers: {complaint.splitlines()[0]}")
    return command


def diagnose(command: str, source: str) -> str:
    extra = os.environ.get("RAWURING_TEST_CFLAGS", "").split()
    done = subprocess.run(
        [command, *extra, "-w", "-fsyntax-only", "-ferror-limit=0" if "clang" in command else "-fmax-errors=0"]
        + ["-x", "c", "-"],
        input=source,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stderr


def compare(command: str, claims: dict[str, str]) -> tuple[set[str], set[str]]:
    """Have the compiler check claims, constant C expressions by name: (true, false).

    What the headers here are too old to know is in neither.
    """
    names = list(claims)
    lines = [f'_Static_assert({claims[name]}, "");' for name in names]
    first = HEADERS.count("\n") + 1
    unknown, false = set[str](), set[str]()
    complaint = diagnose(command, HEADERS + "\n".join(lines))
    for line, text in re.findall(r"^<stdin>:(\d+):(?:\d+:)? error: (.*)", complaint, re.M):
        name = names[int(line) - first]
        (false if re.match(r"static.assert", text) else unknown).add(name)
    return set(names) - unknown - false, false - unknown


def test_the_comparison_tells_true_from_false_from_unknown() -> None:
    claims = {"true": "sizeof(int) == 4", "false": "sizeof(int) == 5", "unknown": "NO_SUCH_NAME == 1"}
    assert compare(compiler(), claims) == ({"true"}, {"false"})


def test_layouts_agree_with_the_c_compiler() -> None:
    command = compiler()
    claims: dict[str, str] = {}
    for layout in abi.LAYOUTS.values():
        c_type = layout.name if layout.name.endswith("_t") else f"struct {layout.name}"
        claims[layout.name] = f"sizeof({c_type}) == {layout.nbytes}"
        if layout is not abi.IO_URING_NAPI:  # a reserved u64 in older headers
            claims[f"{layout.name} alignment"] = f"_Alignof({c_type}) == {layout.align}"
        for name, field in layout.fields.items():
            if RESERVED.fullmatch(name):
                continue
            member = f"(({c_type} *)0)->{name}"
            claims[f"{layout.name}.{name}"] = f"offsetof({c_type}, {name}) == {field.offset}" + (
                f" && sizeof({member}) == {field.nbytes}" if field.nbytes else ""
            )
            if field.signed is not None and layout.name not in LIBC and f"{layout.name}.{name}" not in UNSIGNED:
                claims[f"{layout.name}.{name} sign"] = f"((__typeof__({member}))-1 < 0) == {int(field.signed)}"
    true, false = compare(command, claims)
    assert not false
    # Older than any header that is left, so a comparison without them compared nothing.
    core = [abi.IO_URING_SQE, abi.IO_URING_CQE, abi.IO_URING_PARAMS, abi.IO_URING_GETEVENTS_ARG]
    core += [abi.IO_URING_RSRC_UPDATE2, abi.KERNEL_TIMESPEC, abi.MSGHDR, abi.EPOLL_EVENT, abi.STATX]
    assert true >= {layout.name for layout in core}
    assert true >= {f"io_uring_sqe.{name}" for name in ("fd", "fd sign", "off", "addr", "len", "user_data", "addr3")}
    assert true >= {f"io_uring_params.{name}" for name in ("sq_off.array", "cq_off.cqes", "features")}


def test_constants_agree_with_the_system_header() -> None:
    claims = {m.kernel_name: f"(unsigned long long)({m.kernel_name}) == {int(m)}ULL" for m in MEMBERS}
    for name in ("CQE_BUFFER_SHIFT", "FILE_INDEX_ALLOC", "NOTIF_USAGE_ZC_COPIED", "OFF_MMAP_MASK", "OFF_PBUF_SHIFT"):
        claims[f"IORING_{name}"] = f"(IORING_{name}) == {getattr(abi, name)}ULL"
    claims["IORING_REGISTER_FILES_SKIP"] = f"IORING_REGISTER_FILES_SKIP == {abi.REGISTER_FILES_SKIP}"
    # All that a header of 5.15 has, by its last of each kind.
    must = {"IORING_OP_LINKAT", "IOSQE_BUFFER_SELECT", "IORING_FEAT_RSRC_TAGS", "IORING_SETUP_R_DISABLED"}
    must |= {"IORING_ENTER_EXT_ARG", "IORING_REGISTER_IOWQ_MAX_WORKERS", "IORING_CQE_F_MORE", "SPLICE_F_FD_IN_FIXED"}
    must |= {"IORING_POLL_UPDATE_USER_DATA", "IORING_TIMEOUT_REALTIME", "IORING_SQ_CQ_OVERFLOW", "IORING_OFF_SQES"}
    must |= {"IORING_RESTRICTION_SQE_OP", "IO_URING_OP_SUPPORTED", "IORING_REGISTER_FILES_SKIP"}
    assert must <= set(claims)
    true, false = compare(compiler(), claims)
    assert not false
    assert true >= must


# -- Constants, without a compiler.


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        (abi.Op.RECV, 27),
        (abi.Op.PIPE, 62),
        (abi.SqeFlag.CQE_SKIP_SUCCESS, 0x40),
        (abi.Setup.SINGLE_ISSUER | abi.Setup.DEFER_TASKRUN | abi.Setup.SUBMIT_ALL | abi.Setup.NO_SQARRAY, 0x13080),
        (abi.Setup.SQ_REWIND, 0x100000),
        (abi.Feature.NO_IOWAIT, 0x20000),
        (abi.Enter.EXT_ARG | abi.Enter.GETEVENTS, 9),
        (abi.CqeFlag.F_32, 0x8000),
        (abi.RecvSend.VECTORIZED, 0x20),
        (abi.Timeout.IMMEDIATE_ARG, 0x80),
        (abi.Cancel.OP, 0x20),
        (abi.Nop.CQE32, 0x20),
        (abi.UringCmd.MULTISHOT, 2),
        (abi.SocketOp.TX_TIMESTAMP, 4),
        (abi.BlockOp.DISCARD, 4608),
        (abi.Register.QUERY, 35),
        (abi.MmapOffset.SQES, 0x10000000),
        (abi.NapiTracking.INACTIVE, 255),
        (abi.FILE_INDEX_ALLOC, 2**32 - 1),
        (abi.MAX_ENTRIES, 32768),
        (abi.MAX_CQ_ENTRIES, 65536),
    ],
)
def test_constants_by_hand(constant: int, value: int) -> None:
    assert constant == value


@pytest.mark.parametrize(
    ("member", "kernel_name"),
    [
        (abi.Op.RECV, "IORING_OP_RECV"),
        (abi.SqeFlag.IO_LINK, "IOSQE_IO_LINK"),
        (abi.RecvSend.POLL_FIRST, "IORING_RECVSEND_POLL_FIRST"),
        (abi.RecvSend.RECV_MULTISHOT, "IORING_RECV_MULTISHOT"),
        (abi.RecvSend.ZC_REPORT_USAGE, "IORING_SEND_ZC_REPORT_USAGE"),
        (abi.RecvSend.VECTORIZED, "IORING_SEND_VECTORIZED"),
        (abi.Timeout.LINK_UPDATE, "IORING_LINK_TIMEOUT_UPDATE"),
        (abi.Splice.FD_IN_FIXED, "SPLICE_F_FD_IN_FIXED"),
        (abi.MsgRingCommand.SEND_FD, "IORING_MSG_SEND_FD"),
        (abi.CqeFlag.F_32, "IORING_CQE_F_32"),
        (abi.SqRingFlag.NEED_WAKEUP, "IORING_SQ_NEED_WAKEUP"),
        (abi.CqRingFlag.EVENTFD_DISABLED, "IORING_CQ_EVENTFD_DISABLED"),
        (abi.Register.UNREGISTER_BUFFERS, "IORING_UNREGISTER_BUFFERS"),
        (abi.PbufRing.INC, "IOU_PBUF_RING_INC"),
        (abi.Probe.OP_SUPPORTED, "IO_URING_OP_SUPPORTED"),
        (abi.CloneBuffers.DST_REPLACE, "IORING_REGISTER_DST_REPLACE"),
        (abi.IoWq.BOUND, "IO_WQ_BOUND"),
        (abi.ZcrxArea.DMABUF, "IORING_ZCRX_AREA_DMABUF"),
    ],
)
def test_kernel_name(member: Member, kernel_name: str) -> None:
    assert member.kernel_name == kernel_name


def test_kernel_names_are_unique() -> None:
    names = [member.kernel_name for member in MEMBERS]
    assert sorted(set(names)) == sorted(names)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", name) for name in names)


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.__name__)
def test_every_member_knows_its_release_and_manual_page(enum: Any) -> None:
    for member in enum:
        assert release("5.1") <= release(member.since) <= release("7.3")
        match = re.fullmatch(r"(io_uring_\w+)\((\d)\)", member.man)
        assert match, member
        page, section = match.groups()
        concepts = {"io_uring_setup_flags", "io_uring_sqpoll", "io_uring_multishot", "io_uring_linked_requests"}
        concepts |= {"io_uring_provided_buffers"}
        calls = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
        assert section == ("7" if page in concepts else "2" if page in calls else "3"), member


def test_no_two_members_of_an_enum_share_a_value() -> None:
    for enum in ENUMS:
        assert list(enum.__members__.values()) == list(enum), f"{enum.__name__} has an alias"


def test_flags_are_single_bits() -> None:
    for member in MEMBERS:
        if isinstance(member, abi.Flag):
            assert member > 0
            assert member & (member - 1) == 0, member


def test_operations_and_register_opcodes_are_contiguous() -> None:
    assert [int(op) for op in abi.Op] == list(range(65))
    assert [int(opcode) for opcode in abi.Register] == list(range(38))
    assert sum(abi.Setup) == 2**21 - 1
    assert sum(abi.Feature) == 2**18 - 1
    assert sum(abi.Enter) == 2**8 - 1
    assert sum(abi.SqeFlag) == 2**7 - 1


@pytest.mark.parametrize("enum", [abi.Op, abi.Setup, abi.Feature, abi.Enter, abi.SqeFlag, abi.Query])
def test_the_kernel_numbers_in_the_order_of_releases(enum: Any) -> None:
    releases = [release(member.since) for member in enum]
    assert releases == sorted(releases)


@pytest.mark.parametrize(
    ("kernel", "ops", "features"),
    [("6.1", 49, 13), ("6.12", 58, 16), ("6.16", 63, 18), ("6.17", 63, 18), ("6.18", 63, 18), ("6.19", 65, 18)]
    + [("7.0", 65, 18), ("7.1", 65, 18), ("7.2", 65, 18)],
)
def test_releases_agree_with_booted_kernels(kernel: str, ops: int, features: int) -> None:
    """The counts that REGISTER_PROBE and io_uring_params reported."""
    assert known_to(abi.Op, kernel) == ops
    assert known_to(abi.Feature, kernel) == features


@pytest.mark.parametrize(
    ("kernel", "setup_bits"),
    [("6.12", 17), ("6.16", 18), ("6.17", 18), ("6.18", 19), ("6.19", 20), ("7.0", 21), ("7.2", 21)],
)
def test_setup_flags_agree_with_booted_kernels(kernel: str, setup_bits: int) -> None:
    assert known_to(abi.Setup, kernel) == setup_bits


@pytest.mark.parametrize(
    ("kernel", "registers", "queries"),
    [("6.17", 35, 0), ("6.18", 36, 1), ("6.19", 37, 3), ("7.0", 38, 3), ("7.1", 38, 3), ("7.2", 38, 4)],
)
def test_register_opcodes_agree_with_booted_kernels(kernel: str, registers: int, queries: int) -> None:
    """What REGISTER_QUERY reported (6.17 has none: the one before it)."""
    assert known_to(abi.Register, kernel) == registers
    assert known_to(abi.Query, kernel) == queries


def test_combined_flags() -> None:
    both = abi.Setup.SQPOLL | abi.Setup.CLAMP
    assert type(both) is abi.Setup
    assert both == 0x12
    assert abi.Setup.SQPOLL in both
    assert abi.Setup.IOPOLL not in both
    assert both & ~abi.Setup.CLAMP == abi.Setup.SQPOLL
    assert "SQPOLL" in repr(both)
    assert "CLAMP" in repr(both)
    assert not hasattr(both, "since")
    assert not hasattr(both, "kernel_name")
    # A bit of a later kernel survives.
    later = abi.Setup(1 << 30 | abi.Setup.SQPOLL)
    assert later == 1 << 30 | 2
    assert "SQPOLL" in repr(later)


def test_members_print_as_numbers_and_show_their_names() -> None:
    assert repr(abi.Op.RECV) == "<Op.RECV: 27>"
    assert f"{abi.Op.RECV} {abi.Op.RECV:#x} {abi.SqeFlag.ASYNC!s} {abi.SqeFlag.ASYNC:04b}" == "27 0x1b 16 10000"
    assert str(abi.SqeFlag.ASYNC | abi.SqeFlag.IO_LINK) == "20"
    assert abi.Op(27) is abi.Op.RECV
    assert pickle.loads(pickle.dumps(abi.Op.RECV)) is abi.Op.RECV
    assert pickle.loads(pickle.dumps(abi.Setup.SQPOLL | abi.Setup.CLAMP)) == 0x12
    with pytest.raises(ValueError, match="65"):
        abi.Op(65)


def test_setup_tables() -> None:
    assert set(abi.SETUP_REQUIRES[abi.Setup.TASKRUN_FLAG]) == {abi.Setup.COOP_TASKRUN, abi.Setup.DEFER_TASKRUN}
    assert abi.SETUP_REQUIRES[abi.Setup.DEFER_TASKRUN] == (abi.Setup.SINGLE_ISSUER,)
    assert abi.SETUP_REQUIRES[abi.Setup.SQ_REWIND] == (abi.Setup.NO_SQARRAY,)
    conflicts = {frozenset(pair) for pair in abi.SETUP_CONFLICTS}
    assert frozenset({abi.Setup.SQPOLL, abi.Setup.DEFER_TASKRUN}) in conflicts
    assert frozenset({abi.Setup.SQE128, abi.Setup.SQE_MIXED}) in conflicts
    for flag, any_of in abi.SETUP_REQUIRES.items():
        assert any(frozenset({flag, needed}) not in conflicts for needed in any_of), flag
        assert any(release(needed.since) <= release(flag.since) for needed in any_of), flag


# -- Layouts, without a compiler.

LAYOUTS = pytest.mark.parametrize("layout", abi.LAYOUTS.values(), ids=abi.LAYOUTS)


def number(value: int, nbytes: int) -> bytes:
    return value.to_bytes(nbytes, sys.byteorder, signed=value < 0)


def test_layouts_by_hand() -> None:
    sizes = {
        abi.IO_URING_SQE: 64,
        abi.IO_URING_CQE: 16,
        abi.IO_URING_PARAMS: 120,
        abi.IO_SQRING_OFFSETS: 40,
        abi.IO_CQRING_OFFSETS: 40,
        abi.IO_URING_GETEVENTS_ARG: 24,
        abi.IO_URING_REG_WAIT: 64,
        abi.IO_URING_BUF: 16,
        abi.IO_URING_BUF_REG: 40,
        abi.IO_URING_SYNC_CANCEL_REG: 64,
        abi.IO_URING_QUERY_HDR: 40,
        abi.KERNEL_TIMESPEC: 16,
        abi.MSGHDR: 56,
        abi.STATX: 256,
        abi.OPEN_HOW: 24,
    }
    assert {layout.name: layout.nbytes for layout in sizes} == {layout.name: size for layout, size in sizes.items()}
    sqe = abi.IO_URING_SQE.pack(
        opcode=abi.Op.RECV, flags=0x20, ioprio=2, fd=-100, off=2**64 - 1, addr=0x7F00_DEAD_BEEF, len=4096,
        msg_flags=0x4000, user_data=0x8123_4567_89AB_CDEF, buf_group=7, personality=3, file_index=0xFFFF_FFFF, addr3=5,
    )  # fmt: skip
    assert sqe == (
        b"\x1b\x20" + number(2, 2) + number(-100, 4) + b"\xff" * 8 + number(0x7F00_DEAD_BEEF, 8) + number(4096, 4)
        + number(0x4000, 4) + number(0x8123_4567_89AB_CDEF, 8) + number(7, 2) + number(3, 2) + b"\xff" * 4
        + number(5, 8) + bytes(8)
    )  # fmt: skip
    assert abi.IO_URING_SQE.get(sqe, "rw_flags") == 0x4000
    assert abi.IO_URING_SQE.get(sqe, "splice_fd_in") == -1
    cqe = number(9, 8) + number(-104, 4) + number(3 << 16 | 1, 4)
    assert abi.IO_URING_CQE.unpack(cqe) == {"user_data": 9, "res": -104, "flags": 0x30001}


@pytest.mark.parametrize(
    ("layout", "declaration"),
    [
        (abi.IO_URING_REG_WAIT, "ts.tv_sec:q ts.tv_nsec:q min_wait_usec:I flags:I sigmask:Q sigmask_sz:I"),
        (abi.IO_URING_REGION_DESC, "user_addr:Q size:Q flags:I id:I mmap_offset:Q"),
        (abi.IO_URING_MEM_REGION_REG, "region_uptr:Q flags:Q"),
        (abi.IO_URING_BUF_REG, "ring_addr:Q ring_entries:I bgid:H flags:H min_left:I"),
        (abi.IO_URING_BUF_STATUS, "buf_group:I head:I"),
        (abi.IO_URING_NAPI, "busy_poll_to:I prefer_busy_poll:B opcode:B pad:2s op_param:I"),
        (abi.IO_URING_CLOCK_REGISTER, "clockid:I"),
        (abi.IO_URING_CLONE_BUFFERS, "src_fd:I flags:I src_off:I dst_off:I nr:I"),
        (abi.IO_URING_TASK_RESTRICTION, "flags:H nr_res:H"),
        (abi.IO_URING_ATTR_PI, "flags:H app_tag:H len:I addr:Q seed:Q"),
        (abi.IO_TIMESPEC, "tv_sec:Q tv_nsec:Q"),
        (abi.IO_URING_QUERY_HDR, "next_entry:Q query_data:Q query_op:I size:I result:i"),
        (
            abi.IO_URING_QUERY_OPCODE,
            "nr_request_opcodes:I nr_register_opcodes:I feature_flags:Q ring_setup_flags:Q enter_flags:Q sqe_flags:Q"
            " nr_query_opcodes:I",
        ),
        (
            abi.IO_URING_ZCRX_IFQ_REG,
            "if_idx:I if_rxq:I rq_entries:I flags:I area_ptr:Q region_ptr:Q offsets.head:I offsets.tail:I"
            " offsets.rqes:I offsets.__resv2:I offsets.__resv:16s zcrx_id:I rx_buf_len:I event_desc:Q",
        ),
        (abi.IO_URING_BPF, "cmd_type:H cmd_flags:H resv:I filter.opcode:I filter.flags:I filter.filter_len:I"),
    ],
    ids=lambda value: value.name if isinstance(value, abi.Layout) else "",
)
def test_structs_newer_than_old_headers(layout: abi.Layout, declaration: str) -> None:
    """The members in C order with their types: the compiler's rules, by struct.calcsize, place them."""
    before = ""
    for item in declaration.split():
        name, _, kind = item.partition(":")
        nbytes = struct.calcsize(kind)
        field = layout.fields[name]
        assert (field.offset, field.nbytes) == (struct.calcsize(before + kind) - nbytes, nbytes), name
        assert field.signed == (None if kind.endswith("s") else kind.islower()), name
        before += kind


def test_offsets_of_a_ring_from_its_params() -> None:
    params = bytearray(120)
    params[40:80] = b"".join(number(value, 4) for value in (0, 4, 16, 24, 36, 32, 320, 0)) + number(0x1000, 8)
    start = abi.IO_URING_PARAMS.fields["sq_off"].offset
    assert abi.IO_SQRING_OFFSETS.unpack(params, offset=start) == {
        "head": 0, "tail": 4, "ring_mask": 16, "ring_entries": 24, "flags": 36, "dropped": 32, "array": 320,
        "resv1": 0, "user_addr": 0x1000,
    }  # fmt: skip
    assert abi.IO_URING_PARAMS.get(params, "sq_off.array") == 320
    assert abi.IO_URING_PARAMS.get(params, "sq_off") == params[40:80]
    abi.IO_URING_PARAMS.put(params, "cq_off.user_addr", 0x2000)
    assert params[112:120] == number(0x2000, 8)


def test_ports_are_in_network_byte_order() -> None:
    address = abi.SOCKADDR_IN.pack(sin_family=2, sin_port=8080, sin_addr=bytes([127, 0, 0, 1]))
    assert address == number(2, 2) + b"\x1f\x90\x7f\0\0\x01" + bytes(8)


@LAYOUTS
def test_every_field_is_written_where_it_says_and_read_back(layout: abi.Layout) -> None:
    for name, field in layout.fields.items():
        if not field.nbytes:
            continue
        value: int | bytes
        if field.signed is None:
            value = bytes(range(0x80, 0x80 + field.nbytes))
        else:
            value = -2 if field.signed else 2 ** (8 * field.nbytes) - 2
        buffer = bytearray(b"\x55" * (layout.nbytes + 16))
        layout.put(buffer, name, value, offset=8)
        assert layout.get(buffer, name, offset=8) == value
        assert layout.unpack(buffer, offset=8)[name] == value
        start = 8 + field.offset
        assert buffer[:start] == b"\x55" * start, name
        assert buffer[start + field.nbytes :] == b"\x55" * (len(buffer) - start - field.nbytes), name
        assert b"\x55" not in buffer[start : start + field.nbytes], name


@LAYOUTS
def test_pack_and_unpack_are_inverse(layout: abi.Layout) -> None:
    values: dict[str, int | bytes] = {}
    for count, (name, field) in enumerate(layout.fields.items(), start=1):
        if field.nbytes and "." not in name and name not in layout.unions:
            values[name] = bytes([count]) * field.nbytes if field.signed is None else count
    packed = layout.pack(**values)
    assert len(packed) == layout.nbytes
    unpacked = layout.unpack(packed)
    assert {name: unpacked[name] for name in values} == values
    assert set(unpacked) == {name for name, field in layout.fields.items() if field.nbytes}


def test_unions_are_listed() -> None:
    sqe = abi.IO_URING_SQE
    assert {"addr2", "cmd_op", "fsync_flags", "buf_group", "file_index", "attr_ptr"} <= sqe.unions
    assert not {"opcode", "fd", "off", "addr", "len", "user_data", "addr3"} & sqe.unions
    assert abi.IO_URING_PARAMS.unions == frozenset()
    covered = sum(field.nbytes for name, field in sqe.fields.items() if name not in sqe.unions)
    assert covered == 64


@pytest.mark.parametrize(
    ("nbytes", "align", "table"),
    [
        (8, 4, "a@0:4 b@8:4"),  # leaves the struct
        (8, 4, "a@0:4 b@4:8"),
        (8, 4, "a@0:4 b@2:2"),  # overlaps without a mark
        (8, 4, "a@0:4 |b@4:4"),  # marked, but covers new bytes
        (8, 8, "a@0:2 b@2:4"),  # misaligned
        (12, 8, "a@0:4"),  # the size is no multiple of the alignment
    ],
)
def test_a_layout_that_contradicts_itself_is_an_import_error(nbytes: int, align: int, table: str) -> None:
    with pytest.raises(ImportError, match="struct wrong"):
        abi.Layout("wrong", nbytes, align, table)


def test_a_nested_layout_must_fit() -> None:
    inner = abi.Layout("inner", 8, 8, "x@0:8")
    assert abi.Layout("outer", 16, 8, "a@0:4 b@8:8b", b=inner).fields["b.x"].offset == 8
    with pytest.raises(ImportError, match="struct inner"):
        abi.Layout("outer", 24, 8, "a@0:4 b@8:16", b=inner)
    with pytest.raises(ImportError, match="struct inner"):
        abi.Layout("outer", 16, 8, "a@0:4 b@4:8b", b=inner)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(KeyError, match="io_uring_cqe has no field 'result'"):
        abi.IO_URING_CQE.get(bytes(16), "result")
    with pytest.raises(KeyError, match="opcod"):
        abi.IO_URING_SQE.pack(opcod=1)
    with pytest.raises(struct.error):
        abi.IO_URING_SQE.pack(fd=2**31)
    with pytest.raises(struct.error):
        abi.IO_URING_SQE.pack(len=-1)
    with pytest.raises(struct.error):
        abi.IO_URING_PARAMS.get(bytes(119), "cq_off.user_addr")
    with pytest.raises(ValueError, match="12 bytes, not 4"):
        abi.IO_URING_PARAMS.pack(resv=bytes(4))


# -- The package.


def test_everything_public_is_exported() -> None:
    for module in (constants, arguments, structs):
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        declared = set(re.findall(r"^(?:class )?([A-Z]\w*)[(:]", source, re.M))
        assert declared == set(module.__all__), module.__name__
        for name in module.__all__:
            assert getattr(abi, name) is getattr(module, name)
    everything = [*constants.__all__, *arguments.__all__, *structs.__all__]
    assert sorted(abi.__all__) == sorted(everything)
    assert len(set(everything)) == len(everything)
    namespace: dict[str, object] = {}
    exec("from rawuring.abi import *", namespace)
    assert set(abi.__all__) <= set(namespace)
    with pytest.raises(AttributeError, match="NO_SUCH"):
        abi.NO_SUCH  # type: ignore[attr-defined]
