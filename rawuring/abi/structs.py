"""Every struct of the io_uring ABI, each as one table of fields.

May import the standard library and `hints`. Never touches memory or the kernel: a layout reads
and writes the buffer it is given.

A table lists `name@offset:nbytes` in the order of the C declaration. After the size:

    s   signed
    n   network byte order
    b   bytes, where the size alone would make it an integer
    |   (before the name) another view of bytes that earlier fields cover: a union member

Sizes 1, 2, 4 and 8 are integers, others bytes. Size 0 marks where a flexible tail starts.
A field that is a struct itself is bytes, and its fields follow as `outer.inner`.

The tables are checked on import: a field that leaves its struct, an overlap that is not
marked, or an offset that its integer cannot have, is an ImportError.

These are the kernel's layouts on 64-bit machines; where a libc splits a `size_t` into a
shorter number and padding (musl's msghdr), the kernel's view is what counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from struct import Struct
from types import MappingProxyType

from rawuring.hints import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "CMSGHDR", "EPOLL_EVENT", "FUTEX_WAITV", "IOVEC", "IO_CQRING_OFFSETS", "IO_SQRING_OFFSETS",
    "IO_TIMESPEC", "IO_URING_ATTR_PI", "IO_URING_BPF", "IO_URING_BPF_CTX", "IO_URING_BPF_FILTER",
    "IO_URING_BUF", "IO_URING_BUF_REG", "IO_URING_BUF_RING", "IO_URING_BUF_STATUS",
    "IO_URING_CLOCK_REGISTER", "IO_URING_CLONE_BUFFERS", "IO_URING_CQE", "IO_URING_FILES_UPDATE",
    "IO_URING_FILE_INDEX_RANGE", "IO_URING_GETEVENTS_ARG", "IO_URING_MEM_REGION_REG",
    "IO_URING_NAPI", "IO_URING_PARAMS", "IO_URING_PROBE", "IO_URING_PROBE_OP", "IO_URING_QUERY_HDR",
    "IO_URING_QUERY_OPCODE", "IO_URING_QUERY_SCQ", "IO_URING_QUERY_ZCRX",
    "IO_URING_QUERY_ZCRX_EVENT", "IO_URING_RECVMSG_OUT", "IO_URING_REGION_DESC",
    "IO_URING_REG_WAIT", "IO_URING_RESTRICTION", "IO_URING_RSRC_REGISTER", "IO_URING_RSRC_UPDATE",
    "IO_URING_RSRC_UPDATE2", "IO_URING_SQE", "IO_URING_SYNC_CANCEL_REG",
    "IO_URING_TASK_RESTRICTION", "IO_URING_ZCRX_AREA_REG", "IO_URING_ZCRX_CQE",
    "IO_URING_ZCRX_IFQ_REG", "IO_URING_ZCRX_OFFSETS", "IO_URING_ZCRX_RQE", "KERNEL_TIMESPEC",
    "LAYOUTS", "MSGHDR", "OPEN_HOW", "SIGINFO", "SOCKADDR_IN", "SOCKADDR_IN6", "SOCKADDR_STORAGE",
    "SOCKADDR_UN", "SOCK_FILTER", "STATX", "STATX_TIMESTAMP", "ZCRX_CTRL", "ZCRX_CTRL_ADD_AREA",
    "ZCRX_CTRL_ARM_EVENT", "ZCRX_CTRL_EXPORT", "ZCRX_CTRL_FLUSH_RQ", "ZCRX_EVENT_DESC",
    "ZCRX_STATS", "Field", "Layout",
]

_INTEGERS: Final = {
    "1": Struct("=B"),
    "2": Struct("=H"),
    "4": Struct("=I"),
    "8": Struct("=Q"),
    "1s": Struct("=b"),
    "2s": Struct("=h"),
    "4s": Struct("=i"),
    "8s": Struct("=q"),
    "2n": Struct("!H"),
    "4n": Struct("!I"),
}


class Field:
    """Where a field lies. `signed` is None for bytes."""

    __slots__ = ("codec", "nbytes", "offset", "signed")

    def __init__(self, offset: int, nbytes: int, signed: bool | None, codec: Struct) -> None:
        self.offset = offset
        self.nbytes = nbytes
        self.signed = signed
        self.codec = codec

    def __repr__(self) -> str:
        return f"Field(offset={self.offset}, nbytes={self.nbytes}, signed={self.signed})"


class Layout:
    """The layout of one C struct.

    Values are ints, or bytes for fields that are not integers. Writing goes through
    `struct.pack_into`, which clears a field before it sets it: not for a word that the
    kernel reads at the same time.
    """

    __slots__ = ("align", "fields", "name", "nbytes", "unions")

    name: str
    nbytes: int
    align: int
    fields: Mapping[str, Field]
    unions: frozenset[str]
    """The fields that are another view of bytes which an earlier field covers."""

    def __init__(self, name: str, nbytes: int, align: int, table: str, **nested: Layout) -> None:
        fields: dict[str, Field] = {}
        unions: list[str] = []
        end = 0
        for item in table.split():
            field_name, _, place = item.partition("@")
            offset_text, _, kind = place.partition(":")
            offset = int(offset_text)
            codec = _INTEGERS.get(kind)
            if codec is None:
                codec = Struct(kind.rstrip("b") + "s")
                signed = None
            else:
                signed = kind[-1] == "s"
            size = codec.size
            past = offset + size
            if field_name[0] == "|":
                field_name = field_name[1:]
                unions.append(field_name)
                misplaced = past > end
            else:
                misplaced = offset < end
                end = past
            if misplaced or past > nbytes or (signed is not None and offset % min(size, align)):
                raise ImportError(f"the layout of struct {name} contradicts itself at {item}")
            fields[field_name] = Field(offset, size, signed, codec)
        for outer_name, layout in nested.items():
            outer = fields[outer_name]
            if outer.nbytes != layout.nbytes or outer.offset % min(layout.align, align):
                raise ImportError(f"struct {layout.name} does not fit {outer_name} of struct {name}")
            for inner_name, inner in layout.fields.items():
                fields[f"{outer_name}.{inner_name}"] = Field(
                    outer.offset + inner.offset, inner.nbytes, inner.signed, inner.codec
                )
        if nbytes % align:
            raise ImportError(f"struct {name} of {nbytes} bytes cannot be aligned to {align}")
        self.name = name
        self.nbytes = nbytes
        self.align = align
        self.fields = MappingProxyType(fields)
        self.unions = frozenset(unions)

    def __repr__(self) -> str:
        return f"<Layout of struct {self.name}, {self.nbytes} bytes>"

    def _field(self, name: str) -> Field:
        try:
            return self.fields[name]
        except KeyError:
            raise KeyError(f"struct {self.name} has no field {name!r}") from None

    def get(self, buffer: ReadableBuffer, field: str, offset: int = 0) -> Any:
        """The value of a field of the struct that starts at `offset` in `buffer`."""
        place = self._field(field)
        return place.codec.unpack_from(buffer, offset + place.offset)[0]

    def put(self, buffer: WriteableBuffer, field: str, value: Any, offset: int = 0) -> None:
        """Write one field, and nothing else, of the struct that starts at `offset`."""
        place = self._field(field)
        if place.signed is None and len(value) != place.nbytes:
            raise ValueError(f"{field} of struct {self.name} takes {place.nbytes} bytes, not {len(value)}")
        place.codec.pack_into(buffer, offset + place.offset, value)

    def pack(self, **values: Any) -> bytearray:
        """A new struct with these fields and zeros elsewhere."""
        buffer = bytearray(self.nbytes)
        for name, value in values.items():
            self.put(buffer, name, value)
        return buffer

    def unpack(self, buffer: ReadableBuffer, offset: int = 0) -> dict[str, Any]:
        """All fields (every view of a union), without flexible tails."""
        return {
            name: place.codec.unpack_from(buffer, offset + place.offset)[0]
            for name, place in self.fields.items()
            if place.nbytes
        }


# -- Time, used by others below.

KERNEL_TIMESPEC: Final = Layout("__kernel_timespec", 16, 8, "tv_sec@0:8s tv_nsec@8:8s")
IO_TIMESPEC: Final = Layout("io_timespec", 16, 8, "tv_sec@0:8 tv_nsec@8:8")

# -- The rings.

# 128 bytes with SQE128 (or as two slots with SQE_MIXED): `cmd` then runs to the end.
IO_URING_SQE: Final = Layout(
    "io_uring_sqe",
    64,
    8,
    """
    opcode@0:1 flags@1:1 ioprio@2:2 fd@4:4s
    off@8:8 |addr2@8:8 |cmd_op@8:4 |__pad1@12:4
    addr@16:8 |splice_off_in@16:8 |level@16:4 |optname@20:4
    len@24:4
    rw_flags@28:4 |fsync_flags@28:4 |poll_events@28:2 |poll32_events@28:4
        |sync_range_flags@28:4 |msg_flags@28:4 |timeout_flags@28:4 |accept_flags@28:4
        |cancel_flags@28:4 |open_flags@28:4 |statx_flags@28:4 |fadvise_advice@28:4
        |splice_flags@28:4 |rename_flags@28:4 |unlink_flags@28:4 |hardlink_flags@28:4
        |xattr_flags@28:4 |msg_ring_flags@28:4 |uring_cmd_flags@28:4 |waitid_flags@28:4
        |futex_flags@28:4 |install_fd_flags@28:4 |nop_flags@28:4 |pipe_flags@28:4
    user_data@32:8
    buf_index@40:2 |buf_group@40:2
    personality@42:2
    splice_fd_in@44:4s |file_index@44:4 |zcrx_ifq_idx@44:4 |optlen@44:4 |addr_len@44:2
        |__pad3@46:2
    addr3@48:8 __pad2@56:8 |attr_ptr@48:8 |attr_type_mask@56:8 |optval@48:8 |cmd@48:0
    """,
)
# 32 bytes with CQE32, or where CqeFlag.F_32 says so: two u64 from `big_cqe` on.
IO_URING_CQE: Final = Layout("io_uring_cqe", 16, 8, "user_data@0:8 res@8:4s flags@12:4 big_cqe@16:0")
IO_URING_ATTR_PI: Final = Layout(
    "io_uring_attr_pi", 32, 8, "flags@0:2 app_tag@2:2 len@4:4 addr@8:8 seed@16:8 rsvd@24:8"
)
# `user_addr` is new in 6.5, reserved before.
IO_SQRING_OFFSETS: Final = Layout(
    "io_sqring_offsets",
    40,
    8,
    "head@0:4 tail@4:4 ring_mask@8:4 ring_entries@12:4 flags@16:4 dropped@20:4 array@24:4"
    " resv1@28:4 user_addr@32:8",
)
IO_CQRING_OFFSETS: Final = Layout(
    "io_cqring_offsets",
    40,
    8,
    "head@0:4 tail@4:4 ring_mask@8:4 ring_entries@12:4 overflow@16:4 cqes@20:4 flags@24:4"
    " resv1@28:4 user_addr@32:8",
)
IO_URING_PARAMS: Final = Layout(
    "io_uring_params",
    120,
    8,
    "sq_entries@0:4 cq_entries@4:4 flags@8:4 sq_thread_cpu@12:4 sq_thread_idle@16:4"
    " features@20:4 wq_fd@24:4 resv@28:12 sq_off@40:40 cq_off@80:40",
    sq_off=IO_SQRING_OFFSETS,
    cq_off=IO_CQRING_OFFSETS,
)

# -- What io_uring_enter takes.

# `min_wait_usec` is new in 6.12: must be 0 before.
IO_URING_GETEVENTS_ARG: Final = Layout(
    "io_uring_getevents_arg", 24, 8, "sigmask@0:8 sigmask_sz@8:4 min_wait_usec@12:4 ts@16:8"
)
IO_URING_REG_WAIT: Final = Layout(
    "io_uring_reg_wait",
    64,
    8,
    "ts@0:16 min_wait_usec@16:4 flags@20:4 sigmask@24:8 sigmask_sz@32:4 pad@36:12 pad2@48:16",
    ts=KERNEL_TIMESPEC,
)

# -- What io_uring_register takes.

IO_URING_FILES_UPDATE: Final = Layout("io_uring_files_update", 16, 8, "offset@0:4 resv@4:4 fds@8:8")
IO_URING_REGION_DESC: Final = Layout(
    "io_uring_region_desc",
    64,
    8,
    "user_addr@0:8 size@8:8 flags@16:4 id@20:4 mmap_offset@24:8 __resv@32:32",
)
IO_URING_MEM_REGION_REG: Final = Layout(
    "io_uring_mem_region_reg", 32, 8, "region_uptr@0:8 flags@8:8 __resv@16:16"
)
# `flags` is new in 5.19, reserved before.
IO_URING_RSRC_REGISTER: Final = Layout(
    "io_uring_rsrc_register", 32, 8, "nr@0:4 flags@4:4 resv2@8:8 data@16:8 tags@24:8"
)
IO_URING_RSRC_UPDATE: Final = Layout("io_uring_rsrc_update", 16, 8, "offset@0:4 resv@4:4 data@8:8")
IO_URING_RSRC_UPDATE2: Final = Layout(
    "io_uring_rsrc_update2", 32, 8, "offset@0:4 resv@4:4 data@8:8 tags@16:8 nr@24:4 resv2@28:4"
)
IO_URING_PROBE_OP: Final = Layout("io_uring_probe_op", 8, 4, "op@0:1 resv@1:1 flags@2:2 resv2@4:4")
IO_URING_PROBE: Final = Layout(
    "io_uring_probe", 16, 4, "last_op@0:1 ops_len@1:1 resv@2:2 resv2@4:12 ops@16:0"
)
IO_URING_RESTRICTION: Final = Layout(
    "io_uring_restriction",
    16,
    4,
    "opcode@0:2 register_op@2:1 |sqe_op@2:1 |sqe_flags@2:1 resv@3:1 resv2@4:12",
)
IO_URING_TASK_RESTRICTION: Final = Layout(
    "io_uring_task_restriction", 16, 4, "flags@0:2 nr_res@2:2 resv@4:12 restrictions@16:0"
)
IO_URING_CLOCK_REGISTER: Final = Layout("io_uring_clock_register", 16, 4, "clockid@0:4 __resv@4:12")
IO_URING_CLONE_BUFFERS: Final = Layout(
    "io_uring_clone_buffers", 32, 4, "src_fd@0:4 flags@4:4 src_off@8:4 dst_off@12:4 nr@16:4 pad@20:12"
)
IO_URING_BUF: Final = Layout("io_uring_buf", 16, 8, "addr@0:8 len@8:4 bid@12:2 resv@14:2")
# The ring's header lies over its entry 0, so writing that entry must leave `tail` alone.
IO_URING_BUF_RING: Final = Layout(
    "io_uring_buf_ring", 16, 8, "resv1@0:8 resv2@8:4 resv3@12:2 tail@14:2 |bufs@0:0"
)
# `min_left` is new in 7.1, reserved before.
IO_URING_BUF_REG: Final = Layout(
    "io_uring_buf_reg",
    40,
    8,
    "ring_addr@0:8 ring_entries@8:4 bgid@12:2 flags@14:2 min_left@16:4 resv@20:20",
)
IO_URING_BUF_STATUS: Final = Layout("io_uring_buf_status", 40, 4, "buf_group@0:4 head@4:4 resv@8:32")
# `opcode` and `op_param` are new in 6.13: reserved before, as a u64 with its alignment.
IO_URING_NAPI: Final = Layout(
    "io_uring_napi",
    16,
    4,
    "busy_poll_to@0:4 prefer_busy_poll@4:1 opcode@5:1 pad@6:2b op_param@8:4 resv@12:4",
)
IO_URING_SYNC_CANCEL_REG: Final = Layout(
    "io_uring_sync_cancel_reg",
    64,
    8,
    "addr@0:8 fd@8:4s flags@12:4 timeout@16:16 opcode@32:1 pad@33:7 pad2@40:24",
    timeout=KERNEL_TIMESPEC,
)
IO_URING_FILE_INDEX_RANGE: Final = Layout("io_uring_file_index_range", 16, 8, "off@0:4 len@4:4 resv@8:8")

# -- REGISTER_QUERY.

IO_URING_QUERY_HDR: Final = Layout(
    "io_uring_query_hdr",
    40,
    8,
    "next_entry@0:8 query_data@8:8 query_op@16:4 size@20:4 result@24:4s __resv@28:12",
)
IO_URING_QUERY_OPCODE: Final = Layout(
    "io_uring_query_opcode",
    48,
    8,
    "nr_request_opcodes@0:4 nr_register_opcodes@4:4 feature_flags@8:8 ring_setup_flags@16:8"
    " enter_flags@24:8 sqe_flags@32:8 nr_query_opcodes@40:4 __pad@44:4",
)
IO_URING_QUERY_ZCRX: Final = Layout(
    "io_uring_query_zcrx",
    40,
    8,
    "register_flags@0:8 area_flags@8:8 nr_ctrl_opcodes@16:4 features@20:4 rq_hdr_size@24:4"
    " rq_hdr_alignment@28:4 __resv2@32:8",
)
IO_URING_QUERY_SCQ: Final = Layout("io_uring_query_scq", 16, 8, "hdr_size@0:8 hdr_alignment@8:8")
IO_URING_QUERY_ZCRX_EVENT: Final = Layout(
    "io_uring_query_zcrx_event",
    48,
    8,
    "event_flags@0:4 stats_size@4:4 stats_off_alignment@8:4 __resv1@12:4 __resv2@16:32",
)

# -- Zero-copy receive.

IO_URING_ZCRX_RQE: Final = Layout("io_uring_zcrx_rqe", 16, 8, "off@0:8 len@8:4 __pad@12:4")
IO_URING_ZCRX_CQE: Final = Layout("io_uring_zcrx_cqe", 16, 8, "off@0:8 __pad@8:8")
IO_URING_ZCRX_OFFSETS: Final = Layout(
    "io_uring_zcrx_offsets", 32, 8, "head@0:4 tail@4:4 rqes@8:4 __resv2@12:4 __resv@16:16"
)
IO_URING_ZCRX_AREA_REG: Final = Layout(
    "io_uring_zcrx_area_reg",
    48,
    8,
    "addr@0:8 len@8:8 rq_area_token@16:8 flags@24:4 dmabuf_fd@28:4 __resv2@32:16",
)
# `event_desc` is new in 7.2, reserved before.
IO_URING_ZCRX_IFQ_REG: Final = Layout(
    "io_uring_zcrx_ifq_reg",
    96,
    8,
    "if_idx@0:4 if_rxq@4:4 rq_entries@8:4 flags@12:4 area_ptr@16:8 region_ptr@24:8"
    " offsets@32:32 zcrx_id@64:4 rx_buf_len@68:4 event_desc@72:8 __resv@80:16",
    offsets=IO_URING_ZCRX_OFFSETS,
)
ZCRX_STATS: Final = Layout("zcrx_stats", 16, 8, "copy_count@0:8 copy_bytes@8:8")
ZCRX_EVENT_DESC: Final = Layout(
    "zcrx_event_desc", 96, 8, "user_data@0:8 type_mask@8:4 flags@12:4 stats_offset@16:8 __resv2@24:72"
)
ZCRX_CTRL_FLUSH_RQ: Final = Layout("zcrx_ctrl_flush_rq", 48, 8, "__resv@0:48")
ZCRX_CTRL_EXPORT: Final = Layout("zcrx_ctrl_export", 48, 4, "zcrx_fd@0:4 __resv1@4:44")
ZCRX_CTRL_ARM_EVENT: Final = Layout("zcrx_ctrl_arm_event", 48, 4, "event_type@0:4 __resv@4:44")
ZCRX_CTRL_ADD_AREA: Final = Layout("zcrx_ctrl_add_area", 48, 8, "area_ptr@0:8 __resv@8:40")
ZCRX_CTRL: Final = Layout(
    "zcrx_ctrl",
    72,
    8,
    "zcrx_id@0:4 op@4:4 __resv@8:16 zc_export@24:48 |zc_flush@24:48 |zc_arm_event@24:48 |zc_area@24:48",
    zc_export=ZCRX_CTRL_EXPORT,
    zc_flush=ZCRX_CTRL_FLUSH_RQ,
    zc_arm_event=ZCRX_CTRL_ARM_EVENT,
    zc_area=ZCRX_CTRL_ADD_AREA,
)

# -- BPF filters.

IO_URING_BPF_CTX: Final = Layout(
    "io_uring_bpf_ctx",
    40,
    8,
    "user_data@0:8 opcode@8:1 sqe_flags@9:1 pdu_size@10:1 pad@11:5 open@16:24"
    " |open.flags@16:8 |open.mode@24:8 |open.resolve@32:8"
    " |socket@16:12 |socket.family@16:4 |socket.type@20:4 |socket.protocol@24:4",
)
IO_URING_BPF_FILTER: Final = Layout(
    "io_uring_bpf_filter",
    64,
    8,
    "opcode@0:4 flags@4:4 filter_len@8:4 pdu_size@12:1 resv@13:3 filter_ptr@16:8 resv2@24:40",
)
IO_URING_BPF: Final = Layout(
    "io_uring_bpf",
    72,
    8,
    "cmd_type@0:2 cmd_flags@2:2 resv@4:4 filter@8:64",
    filter=IO_URING_BPF_FILTER,
)
SOCK_FILTER: Final = Layout("sock_filter", 8, 4, "code@0:2 jt@2:1 jf@3:1 k@4:4")

# -- What operations point to.

# In front of each buffer of a multishot RECVMSG.
IO_URING_RECVMSG_OUT: Final = Layout(
    "io_uring_recvmsg_out", 16, 4, "namelen@0:4 controllen@4:4 payloadlen@8:4 flags@12:4"
)
IOVEC: Final = Layout("iovec", 16, 8, "iov_base@0:8 iov_len@8:8")
MSGHDR: Final = Layout(
    "msghdr",
    56,
    8,
    "msg_name@0:8 msg_namelen@8:4s msg_iov@16:8 msg_iovlen@24:8 msg_control@32:8"
    " msg_controllen@40:8 msg_flags@48:4",
)
CMSGHDR: Final = Layout("cmsghdr", 16, 8, "cmsg_len@0:8 cmsg_level@8:4s cmsg_type@12:4s")
OPEN_HOW: Final = Layout("open_how", 24, 8, "flags@0:8 mode@8:8 resolve@16:8")
FUTEX_WAITV: Final = Layout("futex_waitv", 24, 8, "val@0:8 uaddr@8:8 flags@16:4 __reserved@20:4")
STATX_TIMESTAMP: Final = Layout("statx_timestamp", 16, 8, "tv_sec@0:8s tv_nsec@8:4 __reserved@12:4s")
STATX: Final = Layout(
    "statx",
    256,
    8,
    """
    stx_mask@0:4 stx_blksize@4:4 stx_attributes@8:8 stx_nlink@16:4 stx_uid@20:4 stx_gid@24:4
    stx_mode@28:2 stx_ino@32:8 stx_size@40:8 stx_blocks@48:8 stx_attributes_mask@56:8
    stx_atime@64:16 stx_btime@80:16 stx_ctime@96:16 stx_mtime@112:16
    stx_rdev_major@128:4 stx_rdev_minor@132:4 stx_dev_major@136:4 stx_dev_minor@140:4
    stx_mnt_id@144:8 stx_dio_mem_align@152:4 stx_dio_offset_align@156:4 stx_subvol@160:8
    stx_atomic_write_unit_min@168:4 stx_atomic_write_unit_max@172:4
    stx_atomic_write_segments_max@176:4 stx_dio_read_offset_align@180:4
    stx_atomic_write_unit_max_opt@184:4
    """,
    stx_atime=STATX_TIMESTAMP,
    stx_btime=STATX_TIMESTAMP,
    stx_ctime=STATX_TIMESTAMP,
    stx_mtime=STATX_TIMESTAMP,
)
# Packed on x86-64 alone, so that 32-bit programs share it.
EPOLL_EVENT: Final = (
    Layout("epoll_event", 12, 1, "events@0:4 data@4:8")
    if os.uname().machine == "x86_64"
    else Layout("epoll_event", 16, 8, "events@0:4 data@8:8")
)
SOCKADDR_IN: Final = Layout("sockaddr_in", 16, 4, "sin_family@0:2 sin_port@2:2n sin_addr@4:4b sin_zero@8:8b")
SOCKADDR_IN6: Final = Layout(
    "sockaddr_in6",
    28,
    4,
    "sin6_family@0:2 sin6_port@2:2n sin6_flowinfo@4:4n sin6_addr@8:16 sin6_scope_id@24:4",
)
SOCKADDR_UN: Final = Layout("sockaddr_un", 110, 2, "sun_family@0:2 sun_path@2:108")
SOCKADDR_STORAGE: Final = Layout("sockaddr_storage", 128, 8, "ss_family@0:2")
# As WAITID fills it. mips alone has si_code before si_errno.
SIGINFO: Final = Layout(
    "siginfo_t",
    128,
    8,
    "si_signo@0:4s si_errno@4:4s si_code@8:4s si_pid@16:4s si_uid@20:4 si_status@24:4s",
)

LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {name: value for name, value in list(globals().items()) if isinstance(value, Layout)}
)
"""Every layout under the name it has in this module."""
