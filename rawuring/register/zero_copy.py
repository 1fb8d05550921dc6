"""Zero-copy receive: the network queue whose packets land in our memory.

May import abi, errors, syscalls. It needs CAP_NET_ADMIN, a DEFER_TASKRUN ring with CQE32 or
CQE_MIXED, and a network card whose driver splits headers from data; from Linux 7.1 on,
ZcrxReg.NODEV does without the card, and copies.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from .. import abi
from ..errors import os_error
from .calling import address, call

__all__ = ["Ifq", "ifq", "ifq_import", "zcrx_ctrl"]

_REASONS: Final = {
    errno.EPERM: "zero-copy receive needs CAP_NET_ADMIN",
    errno.ENODEV: "there is no network interface of this index",
    errno.EOPNOTSUPP: "this network interface has no queues for zero-copy receive",
    errno.EINVAL: "zero-copy receive needs Linux 6.15, a ring with DEFER_TASKRUN and CQE32 or CQE_MIXED, "
    "and whole pages",
}


class Ifq(NamedTuple):
    """A registered queue: its id, and where the refill queue's words and entries lie in its region."""

    zcrx_id: int
    rq_entries: int
    head_offset: int
    tail_offset: int
    rqes_offset: int
    area_token: int  # for the `off` of a struct io_uring_zcrx_rqe
    mmap_offset: int  # of a region that the kernel allocated


def ifq(
    fd: int,
    if_index: int,
    if_rxq: int,
    rq_entries: int,
    area: tuple[int, int],
    rq_region: tuple[int, int],
    *,
    zcrx_flags: int = 0,
    dmabuf_fd: int | None = None,
    rx_buf_nbytes: int = 0,
    event_desc_addr: int = 0,
) -> Ifq:
    """Take the packets of queue `if_rxq` of a network interface into `area`, an (address, bytes) of whole pages.

    `rq_region` is that of the refill queue, with room for its header (`queries().zcrx.rq_hdr_size`,
    a page to be sure) and 16 bytes for each of `rq_entries`; address 0 lets the kernel allocate it.
    With `dmabuf_fd` the area is that of a DMA buffer, from address 0 on. `event_desc_addr` is that
    of a struct zcrx_event_desc.

    Since      Linux 6.15 (`dmabuf_fd` 6.16, `rx_buf_nbytes` 7.0, NODEV 7.1, events 7.2)
    Man        io_uring_register_ifq(3)
    Memory     registered: the area and the region, until the end of the ring
    Errors     EPERM, EINVAL, ENODEV, EOPNOTSUPP: the text says why; EEXIST or EBUSY the queue is taken
    """
    layout = abi.IO_URING_ZCRX_IFQ_REG
    area_arg = abi.IO_URING_ZCRX_AREA_REG.pack(addr=area[0], len=area[1])
    if dmabuf_fd is not None:
        abi.IO_URING_ZCRX_AREA_REG.put(area_arg, "flags", abi.ZcrxArea.DMABUF)
        abi.IO_URING_ZCRX_AREA_REG.put(area_arg, "dmabuf_fd", dmabuf_fd)
    region_arg = abi.IO_URING_REGION_DESC.pack(
        user_addr=rq_region[0], size=rq_region[1], flags=int(abi.MemRegionType.TYPE_USER) if rq_region[0] else 0
    )
    arg = layout.pack(
        if_idx=if_index,
        if_rxq=if_rxq,
        rq_entries=rq_entries,
        flags=int(zcrx_flags),
        area_ptr=address(area_arg),
        region_ptr=address(region_arg),
        rx_buf_len=rx_buf_nbytes,
        event_desc=event_desc_addr,
    )
    _register(fd, arg)
    values = layout.unpack(arg)
    return Ifq(
        values["zcrx_id"],
        values["rq_entries"],
        values["offsets.head"],
        values["offsets.tail"],
        values["offsets.rqes"],
        abi.IO_URING_ZCRX_AREA_REG.get(area_arg, "rq_area_token"),
        abi.IO_URING_REGION_DESC.get(region_arg, "mmap_offset"),
    )


def ifq_import(fd: int, zcrx_fd: int) -> int:
    """Use the queue of another ring, which exported it as `zcrx_fd`, on this one: returns its id here.

    Since      Linux 6.19           Man   io_uring_register_ifq(3)
    Errors     as `ifq`; EBADF or EINVAL not such an fd; EFAULT or EINVAL the kernel is older
    """
    layout = abi.IO_URING_ZCRX_IFQ_REG
    arg = layout.pack(if_idx=zcrx_fd, flags=int(abi.ZcrxReg.IMPORT))
    _register(fd, arg)
    zcrx_id: int = layout.get(arg, "zcrx_id")
    return zcrx_id


def _register(fd: int, arg: bytearray) -> None:
    try:
        call(fd, abi.Register.ZCRX_IFQ, arg, 1)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise os_error(error.errno or 0, f"io_uring_register: {reason}") from None


def zcrx_ctrl(
    fd: int, zcrx_id: int, ctrl_op: int, *, event_type: int = 0, area: tuple[int, int] | None = None
) -> int:
    """Control a registered queue. Returns 0; EXPORT the new fd, for `ifq_import`; ADD_AREA the area's token.

    ZcrxCtrl.FLUSH_RQ takes what the refill queue has; ARM_EVENT reports `event_type` once more;
    ADD_AREA adds the memory of `area`.

    Since      Linux 6.19 (ARM_EVENT 7.2, ADD_AREA 7.3)     Man   io_uring_register_zcrx_ctrl(3)
    Errors     ENXIO no such queue; EOPNOTSUPP no such control; EINVAL
    """
    layout, area_layout = abi.ZCRX_CTRL, abi.IO_URING_ZCRX_AREA_REG
    arg = layout.pack(zcrx_id=zcrx_id, op=int(ctrl_op))
    area_arg = area_layout.pack(addr=area[0], len=area[1]) if area else area_layout.pack()
    if ctrl_op == abi.ZcrxCtrl.ARM_EVENT:
        layout.put(arg, "zc_arm_event.event_type", event_type)
    elif ctrl_op == abi.ZcrxCtrl.ADD_AREA:
        layout.put(arg, "zc_area.area_ptr", address(area_arg))
    call(fd, abi.Register.ZCRX_CTRL, arg)
    answer: int = 0
    if ctrl_op == abi.ZcrxCtrl.EXPORT:
        answer = layout.get(arg, "zc_export.zcrx_fd")
    elif ctrl_op == abi.ZcrxCtrl.ADD_AREA:
        answer = area_layout.get(area_arg, "rq_area_token")
    return answer
