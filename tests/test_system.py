"""The constants of rawuring.system against a C compiler and the system's headers, and its values against bytes."""

from __future__ import annotations

import os
import select
import struct

import pytest
from test_abi import compiler, diagnose

from rawuring import abi, system

HEADERS = """
#include <linux/falloc.h>
#include <linux/fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <sys/epoll.h>
"""

CONSTANTS = {name: value for name, value in vars(system).items() if name.isupper() and isinstance(value, int)}


def test_every_constant_is_that_of_the_headers() -> None:
    command = compiler()
    assert len(CONSTANTS) > 40
    # Older headers know fewer.
    checks = [f"#ifdef {name}\n_Static_assert({name} == {value}, {name!r});\n#endif" for name, value in CONSTANTS.items()]
    source = "#define _GNU_SOURCE\n" + HEADERS + "\n".join(checks).replace("'", '"') + "\n"
    assert diagnose(command, source) == ""
    assert "EPOLL_CTL_MOD" in diagnose(command, source + '_Static_assert(EPOLL_CTL_MOD == 9, "EPOLL_CTL_MOD");\n')


def test_flags_of_a_kind_share_no_bit() -> None:
    for prefix in ("AT_", "RESOLVE_", "RENAME_", "FALLOC_FL_", "SYNC_FILE_RANGE_", "STATX_"):
        values = [value for name, value in CONSTANTS.items() if name.startswith(prefix) and name != "STATX_BASIC_STATS"]
        assert sum(values) == sum({1 << bit for bit in range(32) if any(value >> bit & 1 for value in values)})
        assert len(values) > 2


def test_a_struct_statx_as_a_value() -> None:
    fields = {
        "stx_mask": 0xFFFF_FFFF, "stx_blksize": 4096, "stx_attributes": 0x800, "stx_nlink": 3, "stx_uid": 1000,
        "stx_gid": 1001, "stx_mode": 0o100640, "stx_ino": 1 << 40, "stx_size": 1 << 41, "stx_blocks": 77,
        "stx_attributes_mask": 0x870, "stx_atime.tv_sec": -2, "stx_atime.tv_nsec": 500_000_000, "stx_btime.tv_sec": 5,
        "stx_ctime.tv_sec": 6, "stx_mtime.tv_sec": 7, "stx_mtime.tv_nsec": 250_000_000, "stx_rdev_major": 8,
        "stx_rdev_minor": 9, "stx_dev_major": 253, "stx_dev_minor": 1 << 18, "stx_mnt_id": 1 << 33,
        "stx_dio_mem_align": 512, "stx_dio_offset_align": 1024, "stx_subvol": 256, "stx_atomic_write_unit_min": 1,
        "stx_atomic_write_unit_max": 2, "stx_atomic_write_segments_max": 4, "stx_dio_read_offset_align": 16,
        "stx_atomic_write_unit_max_opt": 32,
    }  # fmt: skip
    found = system.stat_result(abi.STATX.pack(**fields))
    assert (found.st_mode, found.st_ino, found.st_size, found.st_blocks) == (0o100640, 1 << 40, 1 << 41, 77)
    assert (found.st_nlink, found.st_uid, found.st_gid, found.st_blksize) == (3, 1000, 1001, 4096)
    assert (os.major(found.st_dev), os.minor(found.st_dev)) == (253, 1 << 18)
    assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (8, 9)
    assert (found.st_atime_ns, found.st_atime) == (-1_500_000_000, -1.5)
    assert (found.st_mtime, found.st_ctime, found.st_birthtime) == (7.25, 6.0, 5.0)
    assert (found.st_mask, found.st_attributes, found.st_attributes_mask) == (0xFFFF_FFFF, 0x800, 0x870)
    assert (found.st_mnt_id, found.st_subvol) == (1 << 33, 256)
    assert (found.st_dio_mem_align, found.st_dio_offset_align, found.st_dio_read_offset_align) == (512, 1024, 16)
    assert found.st_atomic_write_unit_min == 1 and found.st_atomic_write_unit_max == 2
    assert found.st_atomic_write_segments_max == 4 and found.st_atomic_write_unit_max_opt == 32


def test_what_a_file_system_did_not_fill_is_none() -> None:
    found = system.stat_result(abi.STATX.pack(stx_mask=system.STATX_BASIC_STATS, stx_mnt_id=5))
    assert found.st_birthtime is found.st_birthtime_ns is found.st_mnt_id is found.st_subvol is None
    optional = {
        "birthtime_ns": system.STATX_BTIME, "mnt_id": system.STATX_MNT_ID_UNIQUE, "dio_mem_align": system.STATX_DIOALIGN,
        "dio_offset_align": system.STATX_DIOALIGN, "dio_read_offset_align": system.STATX_DIO_READ_ALIGN,
        "subvol": system.STATX_SUBVOL, "atomic_write_unit_min": system.STATX_WRITE_ATOMIC,
    }  # fmt: skip
    for name, bit in optional.items():
        assert getattr(found, f"st_{name}") is None
        assert getattr(system.stat_result(abi.STATX.pack(stx_mask=bit)), f"st_{name}") == 0


@pytest.mark.parametrize("fd", [0, 7, -1, 2**31 - 1])
def test_the_fd_of_an_epoll_event_is_that_of_the_c_union(fd: int) -> None:
    data = abi.EPOLL_EVENT.pack(events=select.EPOLLIN)
    at = abi.EPOLL_EVENT.fields["data"].offset
    data[at : at + 4] = struct.pack("=i", fd)
    event = system.EpollEvent(abi.EPOLL_EVENT.get(data, "data"), select.EPOLLIN)
    assert event.fd == fd
