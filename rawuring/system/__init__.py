"""What Python's own modules lack of the system around io_uring: constants by their C names, and results as values.

May import abi. Never makes a system call.

`os`, `socket`, `select`, `mmap` and `signal` have most of what operations take. Here is the rest,
the same on every architecture. Later Pythons have some of it as well.
"""

from __future__ import annotations

from ..hints import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from .results import EpollEvent as EpollEvent, StatResult as StatResult, TxTimestamp as TxTimestamp
    from .results import stat_result as stat_result

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

# asm/socket.h, linux/net_tstamp.h: which time stamps a socket makes, and how it reports them (timestamping(7))
SO_TIMESTAMPING: Final = 37
SOF_TIMESTAMPING_TX_HARDWARE: Final = 1 << 0
SOF_TIMESTAMPING_TX_SOFTWARE: Final = 1 << 1
SOF_TIMESTAMPING_SOFTWARE: Final = 1 << 4
SOF_TIMESTAMPING_RAW_HARDWARE: Final = 1 << 6
SOF_TIMESTAMPING_OPT_ID: Final = 1 << 7
SOF_TIMESTAMPING_TX_SCHED: Final = 1 << 8
SOF_TIMESTAMPING_TX_ACK: Final = 1 << 9
SOF_TIMESTAMPING_OPT_TSONLY: Final = 1 << 11
SOF_TIMESTAMPING_TX_COMPLETION: Final = 1 << 18

# linux/errqueue.h: the point on its way that a time stamp is of
SCM_TSTAMP_SND: Final = 0
SCM_TSTAMP_SCHED: Final = 1
SCM_TSTAMP_ACK: Final = 2
SCM_TSTAMP_COMPLETION: Final = 3


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Named tuples are slow to make: these wait until a result is one.
        if name not in ("EpollEvent", "StatResult", "TxTimestamp", "stat_result"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import results

        value = globals()[name] = getattr(results, name)
        return value
