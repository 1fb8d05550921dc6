"""The results of STATX and EPOLL_WAIT, and time stamps of sockets, as values.

May import abi. Never makes a system call. `system` loads it when one of its names is first asked for.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from .. import abi
from . import STATX_BTIME, STATX_DIO_READ_ALIGN, STATX_DIOALIGN, STATX_MNT_ID, STATX_MNT_ID_UNIQUE, STATX_SUBVOL
from . import STATX_WRITE_ATOMIC

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def _seconds(time_ns: int) -> float:
    """A point in time as os.stat rounds it."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return seconds + 1e-9 * nanoseconds


class StatResult(NamedTuple):
    """What STATX tells of a file, by the names of `os.stat_result` where that has them.

    `st_mask` has the STATX_* bits of what the file system filled. The basic fields are 0 without
    their bit, those that stat(2) does not know are None.
    """

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_atime_ns: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_blksize: int
    st_blocks: int
    st_rdev: int
    st_mask: int
    st_attributes: int
    """STATX_ATTR_* bits (statx(2)), of which `st_attributes_mask` has those that the file system knows."""
    st_attributes_mask: int
    st_birthtime_ns: int | None
    st_mnt_id: int | None
    st_dio_mem_align: int | None
    st_dio_offset_align: int | None
    st_dio_read_offset_align: int | None
    st_subvol: int | None
    st_atomic_write_unit_min: int | None
    st_atomic_write_unit_max: int | None
    st_atomic_write_segments_max: int | None
    st_atomic_write_unit_max_opt: int | None

    @property
    def st_atime(self) -> float:
        """When it was last read, in seconds."""
        return _seconds(self.st_atime_ns)

    @property
    def st_mtime(self) -> float:
        """When its content last changed, in seconds."""
        return _seconds(self.st_mtime_ns)

    @property
    def st_ctime(self) -> float:
        """When its content or metadata last changed, in seconds."""
        return _seconds(self.st_ctime_ns)

    @property
    def st_birthtime(self) -> float | None:
        """When it was made, in seconds."""
        return None if self.st_birthtime_ns is None else _seconds(self.st_birthtime_ns)


def stat_result(struct_statx: ReadableBuffer) -> StatResult:
    """A struct statx as a value."""
    found = abi.STATX.unpack(struct_statx)
    mask = found["stx_mask"]

    def time_ns(name: str) -> int:
        seconds: int = found[f"stx_{name}.tv_sec"]
        nanoseconds: int = found[f"stx_{name}.tv_nsec"]
        return seconds * 10**9 + nanoseconds

    def with_bit(bit: int, name: str) -> int | None:
        return found[f"stx_{name}"] if mask & bit else None

    return StatResult(
        st_mode=found["stx_mode"],
        st_ino=found["stx_ino"],
        st_dev=os.makedev(found["stx_dev_major"], found["stx_dev_minor"]),
        st_nlink=found["stx_nlink"],
        st_uid=found["stx_uid"],
        st_gid=found["stx_gid"],
        st_size=found["stx_size"],
        st_atime_ns=time_ns("atime"),
        st_mtime_ns=time_ns("mtime"),
        st_ctime_ns=time_ns("ctime"),
        st_blksize=found["stx_blksize"],
        st_blocks=found["stx_blocks"],
        st_rdev=os.makedev(found["stx_rdev_major"], found["stx_rdev_minor"]),
        st_mask=mask,
        st_attributes=found["stx_attributes"],
        st_attributes_mask=found["stx_attributes_mask"],
        st_birthtime_ns=time_ns("btime") if mask & STATX_BTIME else None,
        st_mnt_id=with_bit(STATX_MNT_ID | STATX_MNT_ID_UNIQUE, "mnt_id"),
        st_dio_mem_align=with_bit(STATX_DIOALIGN, "dio_mem_align"),
        st_dio_offset_align=with_bit(STATX_DIOALIGN, "dio_offset_align"),
        st_dio_read_offset_align=with_bit(STATX_DIO_READ_ALIGN, "dio_read_offset_align"),
        st_subvol=with_bit(STATX_SUBVOL, "subvol"),
        st_atomic_write_unit_min=with_bit(STATX_WRITE_ATOMIC, "atomic_write_unit_min"),
        st_atomic_write_unit_max=with_bit(STATX_WRITE_ATOMIC, "atomic_write_unit_max"),
        st_atomic_write_segments_max=with_bit(STATX_WRITE_ATOMIC, "atomic_write_segments_max"),
        st_atomic_write_unit_max_opt=with_bit(STATX_WRITE_ATOMIC, "atomic_write_unit_max_opt"),
    )


class EpollEvent(NamedTuple):
    """What EPOLL_WAIT tells of a file."""

    data: int
    """The 64 bits that EPOLL_CTL gave for it."""
    events: int
    """EPOLLIN, ... of `select`."""

    @property
    def fd(self) -> int:
        """The number in `data` as select.epoll and `Ring.epoll_ctl` put it there, if they did."""
        return int.from_bytes(self.data.to_bytes(8, sys.byteorder)[:4], sys.byteorder, signed=True)


class TxTimestamp(NamedTuple):
    """When something that a socket sent passed a point on its way."""

    key: int
    """With SOF_TIMESTAMPING_OPT_ID the number of the datagram since it was set, or of a stream's last byte; else 0."""
    time_ns: int
    """Of CLOCK_REALTIME, as time.time_ns() has it; by the network card's clock if `is_hardware`."""
    kind: int
    """The point: SCM_TSTAMP_*."""
    is_hardware: bool
