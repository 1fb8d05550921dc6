"""The constants inside the structs that io_uring_register takes.

May import `constants`, `hints` and the standard library. Never touches memory or the kernel.

Apart from `constants`, where those for provided buffers and registered waits are, because a
program that only moves data needs none of them: the package loads this module when one of its
names is first asked for.
"""

from __future__ import annotations

from rawuring.abi.constants import Flag, Value
from rawuring.hints import Final

__all__ = [
    "ZCRX_AREA_SHIFT", "BpfCommand", "BpfFilter", "CloneBuffers", "IoWq", "MemRegion",
    "MemRegionType", "NapiOp", "NapiTracking", "Probe", "Query", "Restriction", "Rsrc", "ZcrxArea",
    "ZcrxCtrl", "ZcrxEvent", "ZcrxEventDesc", "ZcrxFeature", "ZcrxReg",
]


class Probe(Flag, prefix="IO_URING_"):
    """`io_uring_probe_op.flags`."""

    OP_SUPPORTED = 1 << 0, "5.6", "io_uring_register(2)"


class Query(Value, prefix="IO_URING_QUERY_"):
    """`io_uring_query_hdr.query_op`."""

    OPCODES = 0, "6.18", "io_uring_register_query(3)"
    ZCRX = 1, "6.19", "io_uring_register_query(3)"
    SCQ = 2, "6.19", "io_uring_register_query(3)"
    ZCRX_EVENT = 3, "7.2", "io_uring_register_query(3)"


class Rsrc(Flag, prefix="IORING_RSRC_"):
    """`io_uring_rsrc_register.flags` of FILES2 and BUFFERS2."""

    REGISTER_SPARSE = 1 << 0, "5.19", "io_uring_register(2)"


class MemRegionType(Flag, prefix="IORING_MEM_REGION_"):
    """`io_uring_region_desc.flags`."""

    TYPE_USER = 1 << 0, "6.13", "io_uring_register_region(3)"


class MemRegion(Flag, prefix="IORING_MEM_REGION_"):
    """`io_uring_mem_region_reg.flags`."""

    REG_WAIT_ARG = 1 << 0, "6.13", "io_uring_register_region(3)"


class CloneBuffers(Flag, prefix="IORING_REGISTER_"):
    """`io_uring_clone_buffers.flags`."""

    SRC_REGISTERED = 1 << 0, "6.12", "io_uring_clone_buffers(3)"
    DST_REPLACE = 1 << 1, "6.13", "io_uring_clone_buffers(3)"


class Restriction(Value, prefix="IORING_RESTRICTION_"):
    """`io_uring_restriction.opcode`."""

    REGISTER_OP = 0, "5.10", "io_uring_register_restrictions(3)"
    SQE_OP = 1, "5.10", "io_uring_register_restrictions(3)"
    SQE_FLAGS_ALLOWED = 2, "5.10", "io_uring_register_restrictions(3)"
    SQE_FLAGS_REQUIRED = 3, "5.10", "io_uring_register_restrictions(3)"


class IoWq(Value, prefix="IO_WQ_"):
    """Index into the two numbers of IOWQ_MAX_WORKERS."""

    BOUND = 0, "5.15", "io_uring_register_iowq_max_workers(3)"
    UNBOUND = 1, "5.15", "io_uring_register_iowq_max_workers(3)"


class NapiOp(Value, prefix="IO_URING_NAPI_"):
    """`io_uring_napi.opcode`."""

    REGISTER_OP = 0, "6.13", "io_uring_register_napi(3)"
    STATIC_ADD_ID = 1, "6.13", "io_uring_register_napi(3)"
    STATIC_DEL_ID = 2, "6.13", "io_uring_register_napi(3)"


class NapiTracking(Value, prefix="IO_URING_NAPI_TRACKING_"):
    """`io_uring_napi.op_param` of NapiOp.REGISTER_OP. INACTIVE is only ever read back."""

    DYNAMIC = 0, "6.13", "io_uring_register_napi(3)"
    STATIC = 1, "6.13", "io_uring_register_napi(3)"
    INACTIVE = 255, "6.13", "io_uring_register_napi(3)"


class ZcrxArea(Flag, prefix="IORING_ZCRX_AREA_"):
    """`io_uring_zcrx_area_reg.flags`."""

    DMABUF = 1 << 0, "6.16", "io_uring_register_ifq(3)"


class ZcrxReg(Flag, prefix="ZCRX_REG_"):
    """`io_uring_zcrx_ifq_reg.flags`."""

    IMPORT = 1 << 0, "6.19", "io_uring_register_ifq(3)"
    NODEV = 1 << 1, "7.1", "io_uring_register_ifq(3)"


class ZcrxFeature(Flag, prefix="ZCRX_FEATURE_"):
    """`io_uring_query_zcrx.features`."""

    RX_PAGE_SIZE = 1 << 0, "7.0", "io_uring_register_query(3)"
    EVENT = 1 << 1, "7.2", "io_uring_register_query(3)"


class ZcrxCtrl(Value, prefix="ZCRX_CTRL_"):
    """`zcrx_ctrl.op`."""

    FLUSH_RQ = 0, "6.19", "io_uring_register_zcrx_ctrl(3)"
    EXPORT = 1, "6.19", "io_uring_register_zcrx_ctrl(3)"
    ARM_EVENT = 2, "7.2", "io_uring_register_zcrx_ctrl(3)"
    ADD_AREA = 3, "7.3", "io_uring_register_zcrx_ctrl(3)"


class ZcrxEvent(Value, prefix="ZCRX_EVENT_"):
    """`zcrx_ctrl_arm_event.event_type`, and a bit number of `zcrx_event_desc.type_mask`."""

    ALLOC_FAIL = 0, "7.2", "io_uring_register_zcrx_ctrl(3)"
    COPY = 1, "7.2", "io_uring_register_zcrx_ctrl(3)"


class ZcrxEventDesc(Flag, prefix="ZCRX_EVENT_DESC_FLAG_"):
    """`zcrx_event_desc.flags`."""

    STATS = 1 << 0, "7.2", "io_uring_register_ifq(3)"


# `io_uring_zcrx_cqe.off` >> this is the id of the area (6.15).
ZCRX_AREA_SHIFT: Final = 48


class BpfCommand(Value, prefix="IO_URING_BPF_CMD_"):
    """`io_uring_bpf.cmd_type`."""

    FILTER = 1, "7.0", "io_uring_register_bpf_filter(3)"


class BpfFilter(Flag, prefix="IO_URING_BPF_FILTER_"):
    """`io_uring_bpf_filter.flags`."""

    DENY_REST = 1 << 0, "7.0", "io_uring_register_bpf_filter(3)"
    SZ_STRICT = 1 << 1, "7.0", "io_uring_register_bpf_filter(3)"
