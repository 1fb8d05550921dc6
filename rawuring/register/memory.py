"""A memory region of the ring, and the registered waits that live in one.

May import abi, errors, syscalls. A registered wait is a struct io_uring_reg_wait of 64 bytes: an
enter with Enter.EXT_ARG and EXT_ARG_REG takes its offset as `arg` and 64 as `argsz`, and copies
nothing from the caller's memory.
"""

from __future__ import annotations

from .. import abi
from ..errors import RawuringError
from .calling import address, call

__all__ = ["region", "reg_wait", "reg_wait_offset"]


def region(fd: int, addr: int, nbytes: int, region_flags: int = 0) -> int:
    """Register the page-aligned memory at `addr`, whole pages of it, as the ring's region: one per ring.

    `addr` 0 lets the kernel allocate it: the answer is the offset to map it at, through the ring's
    fd. With MemRegion.REG_WAIT_ARG the region holds registered waits, which only a ring takes that
    is still disabled (Setup.R_DISABLED).

    Since      Linux 6.13           Man   io_uring_register_region(3)
    Memory     registered: until the end of the ring
    Errors     EBUSY there is one already; EINVAL not whole pages, or not disabled; ENOMEM RLIMIT_MEMLOCK
    """
    layout = abi.IO_URING_REGION_DESC
    description = layout.pack(user_addr=addr, size=nbytes, flags=int(abi.MemRegionType.TYPE_USER) if addr else 0)
    arg = abi.IO_URING_MEM_REGION_REG.pack(region_uptr=address(description), flags=int(region_flags))
    call(fd, abi.Register.MEM_REGION, arg, 1)
    mmap_offset: int = layout.get(description, "mmap_offset")
    return mmap_offset


def reg_wait(timeout_ns: int | None = None, *, min_wait_usec: int = 0, sigmask_addr: int = 0) -> bytearray:
    """A struct io_uring_reg_wait, for an entry of the region: wait up to `timeout_ns`, None without limit.

    `min_wait_usec` is how long to gather before fewer completions than asked for are enough;
    `sigmask_addr` where the mask of blocked signals is, SIGSET_NBYTES long.

    Since      Linux 6.13           Man   io_uring_submit_and_wait_reg(3)
    """
    layout = abi.IO_URING_REG_WAIT
    entry = layout.pack(min_wait_usec=min_wait_usec)
    if timeout_ns is not None:
        layout.put(entry, "flags", abi.RegWait.TS)
        layout.put(entry, "ts.tv_sec", timeout_ns // 10**9)
        layout.put(entry, "ts.tv_nsec", timeout_ns % 10**9)
    if sigmask_addr:
        layout.put(entry, "sigmask", sigmask_addr)
        layout.put(entry, "sigmask_sz", abi.SIGSET_NBYTES)
    return entry


def reg_wait_offset(index: int, region_nbytes: int) -> int:
    """The `arg` of an enter that waits as entry `index` of a region of so many bytes says.

    The last entry is refused: some kernels (6.18 is one) read entry 0 in its place.

    Since      Linux 6.13           Man   io_uring_submit_and_wait_reg(3)
    """
    usable = region_nbytes // abi.IO_URING_REG_WAIT.nbytes - 1
    if not 0 <= index < usable:
        raise RawuringError(
            f"entry {index} cannot be used: a region of {region_nbytes} bytes has {max(usable, 0)} usable ones, "
            "since kernels take its last for the first"
        )
    return index * abi.IO_URING_REG_WAIT.nbytes
