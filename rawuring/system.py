"""What Python's own modules lack of the system around io_uring: constants by their C names, and results as values.

May import abi. Never makes a system call.

`os`, `socket`, `select`, `mmap` and `signal` have most of what operations take. Here is the rest,
the same on every architecture. Later Pythons have some of it as well.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from . import abi

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# linux/fcntl.h: how a path is looked up
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_REMOVEDIR: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_NO_AUTOMOUNT: Final = 0x800
AT_EMPTY_PATH: Final = 0x1000
AT_STATX_FORCE_SYNC: Final = 0x2000
AT_STATX_DONT_SYNC: Final = 0x4000

# linux/openat2.h: `resolve` of openat2(2)
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10
RESOLVE_CACHED: Final = 0x20

# linux/fs.h: renameat2(2)
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4

# linux/stat.h: `mask` of statx(2), and which fields it filled
STATX_TYPE: Final = 0x1
STATX_MODE: Final = 0x2
STATX_NLINK: Final = 0x4
STATX_UID: Final = 0x8
STATX_GID: Final = 0x10
STATX_ATIME: Final = 0x20
STATX_MTIME: Final = 0x40
STATX_CTIME: Final = 0x80
STATX_INO: Final = 0x100
STATX_SIZE: Final = 0x200
STATX_BLOCKS: Final = 0x400
STATX_BASIC_STATS: Final = 0x7FF
STATX_BTIME: Final = 0x800
STATX_MNT_ID: Final = 0x1000
STATX_DIOALIGN: Final = 0x2000
STATX_MNT_ID_UNIQUE: Final = 0x4000
STATX_SUBVOL: Final = 0x8000
STATX_WRITE_ATOMIC: Final = 0x1_0000
STATX_DIO_READ_ALIGN: Final = 0x2_0000

# linux/falloc.h: `mode` of fallocate(2)
FALLOC_FL_KEEP_SIZE: Final = 1
FALLOC_FL_PUNCH_HOLE: Final = 2
FALLOC_FL_COLLAPSE_RANGE: Final = 8
FALLOC_FL_ZERO_RANGE: Final = 16
FALLOC_FL_INSERT_RANGE: Final = 32
FALLOC_FL_UNSHARE_RANGE: Final = 64
FALLOC_FL_WRITE_ZEROES: Final = 128

# linux/fs.h: sync_file_range(2)
SYNC_FILE_RANGE_WAIT_BEFORE: Final = 1
SYNC_FILE_RANGE_WRITE: Final = 2
SYNC_FILE_RANGE_WAIT_AFTER: Final = 4

# linux/eventpoll.h: epoll_ctl(2)
EPOLL_CTL_ADD: Final = 1
EPOLL_CTL_DEL: Final = 2
EPOLL_CTL_MOD: Final = 3


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
