"""Provided-buffer rings: registering the ring of a group, on our memory or the kernel's.

May import abi, errors, syscalls. Never touches the ring's entries or its tail.
"""

from __future__ import annotations

import mmap

from .. import abi, syscalls
from ..errors import RawuringError
from .calling import RingIndex, call

__all__ = ["buf_ring_head", "map_pbuf_ring", "pbuf_ring", "unregister_pbuf_ring"]


def pbuf_ring(
    fd: int, ring_addr: int, ring_entries: int, bgid: int, pbuf_flags: int = 0, *, min_left: int = 0
) -> None:
    """Make the page-aligned memory at `ring_addr` (16 bytes an entry) the buffer ring of group `bgid`.

    With PbufRing.MMAP the kernel allocates it (`ring_addr` is 0): see `map_pbuf_ring`. With
    PbufRing.INC a buffer is used up bit by bit: CqeFlag.BUF_MORE says that the next data follows
    in the same one, of which nothing may be given back before; and with `min_left` a buffer with
    less room than this is left.

    Before Linux 7.0 reads of files never say BUF_MORE, and before 7.2 a bundle may not, where it took
    data twice for one CQE (both mended in later ones of 6.12 and 6.18): there the kernel is done with
    a buffer when it is full, or when `buf_ring_head` has passed it.

    Without INC a bundle may shorten `len` in the entry of a buffer that it does not mean to fill, before
    Linux 7.1 (mended in later ones of 6.12, 6.18 and 7.0), and leave the buffer to another receive if it
    takes nothing: write `len` anew with each buffer, and take a buffer of a bundle to be full at the `len`
    that its entry has when the bundle completes.

    A kernel such as 6.1 keeps the head of a group below 64 when its ring is unregistered: the next
    ring of that group is used from there on, past its tail if that is less. Take another group.

    Since      Linux 5.19 (MMAP 6.4, INC 6.12, `min_left` 7.1)      Man   io_uring_register_buf_ring(3)
    Memory     registered: the ring and every buffer in it
    Errors     EEXIST the group is taken; EINVAL not a power of two, above 32768, not aligned
    """
    arg = abi.IO_URING_BUF_REG.pack(
        ring_addr=ring_addr, ring_entries=ring_entries, bgid=bgid, flags=int(pbuf_flags), min_left=min_left
    )
    call(fd, abi.Register.PBUF_RING, arg, 1)


def map_pbuf_ring(fd: int, ring_entries: int, bgid: int, pbuf_flags: int = 0) -> tuple[int, int]:
    """Make a buffer ring in memory that the kernel allocates, and map it: returns (address, bytes).

    The memory is zeroed. Unmap it (`syscalls.munmap`) after `unregister_pbuf_ring`. A forked
    child has the same ring mapped.

    Since      Linux 6.4            Man   io_uring_setup_buf_ring(3)
    Memory     registered: every buffer in it
    Errors     as `pbuf_ring`
    """
    if isinstance(fd, RingIndex):
        raise RawuringError("a registered index cannot be mapped: use the ring's fd")
    nbytes = ring_entries * abi.IO_URING_BUF.nbytes
    pbuf_ring(fd, 0, ring_entries, bgid, pbuf_flags | abi.PbufRing.MMAP)
    try:
        offset = abi.MmapOffset.PBUF_RING | bgid << abi.OFF_PBUF_SHIFT
        addr = syscalls.mmap(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, offset)
    except BaseException:
        unregister_pbuf_ring(fd, bgid)
        raise
    return addr, nbytes


def unregister_pbuf_ring(fd: int, bgid: int) -> None:
    """Drop the buffer ring of group `bgid`.

    Since      Linux 5.19           Man   io_uring_unregister_buf_ring(3)
    Errors     ENOENT no such group; EINVAL not a ring, or (seen on 6.1) not any more
    """
    call(fd, abi.Register.UNREGISTER_PBUF_RING, abi.IO_URING_BUF_REG.pack(bgid=bgid), 1)


def buf_ring_head(fd: int, bgid: int) -> int:
    """How many buffers of group `bgid` the kernel has used up so far, modulo 2**16: the ring's head.

    The tail minus this are the buffers it still has.

    Since      Linux 6.8            Man   io_uring_register(2)
    Errors     ENOENT no such group; EINVAL not a ring
    """
    layout = abi.IO_URING_BUF_STATUS
    arg = layout.pack(buf_group=bgid)
    call(fd, abi.Register.PBUF_STATUS, arg, 1)
    head: int = layout.get(arg, "head")
    return head
