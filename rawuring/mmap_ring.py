"""The memory shared with the kernel: the SQ ring, the CQ ring and the array of SQEs.

May import abi, errors, syscalls and atomics. This is the only module that reads or writes
a head, tail or flags word of the two queues; it never decides what to submit or to reap.

Nothing about the layout is assumed: every offset comes from the struct io_uring_params
that the kernel filled in, and differs between releases and page sizes.
"""

from __future__ import annotations

import ctypes
import errno
import mmap as _mmap

from . import abi, syscalls
from .atomics import Word32
from .errors import os_error
from .hints import Final

_PROT: Final = _mmap.PROT_READ | _mmap.PROT_WRITE
_OF_A_RING: Final = _mmap.MAP_SHARED | _mmap.MAP_POPULATE
_OF_OUR_OWN: Final = _mmap.MAP_PRIVATE | _mmap.MAP_ANONYMOUS | _mmap.MAP_POPULATE
_RESERVED: Final = _mmap.MAP_PRIVATE | _mmap.MAP_ANONYMOUS
_HUGE: Final = 0x40000  # MAP_HUGETLB, which Python's mmap does not name (asm-generic/mman-common.h)

# What lies around the CQEs and the SQ array in the kernel's struct io_rings: before Linux 6.7 five
# cache lines of words, and up to one more to align the array. A cache line has at most 256 bytes.
_WORDS_NBYTES: Final = 6 * 256


class Mapping:
    """One mapping, of a ring fd or of memory of our own, as a writable byte view.

    The view is made over the bare address, so nothing keeps the memory in place but this
    object: `close()` releases the view first, after which a late access is a ValueError
    and not a crash.
    """

    __slots__ = ("view", "_addr", "_nbytes")

    def __init__(self, nbytes: int, mmap_flags: int = _OF_OUR_OWN, fd: int = -1, offset: int = 0) -> None:
        self._nbytes = nbytes
        self._addr = 0
        self._addr = syscalls.mmap(None, nbytes, _PROT, mmap_flags, fd, offset)
        self.view = memoryview((ctypes.c_char * nbytes).from_address(self._addr)).cast("B")

    @property
    def addr(self) -> int:
        """Where it starts: on a page."""
        return self._addr

    def close(self) -> None:
        """Unmap. A second call does nothing."""
        self.view.release()
        # Forgotten before it is unmapped: an interrupt between the two leaks one mapping, while
        # the other order could unmap memory that something else has been given since.
        addr, self._addr = self._addr, 0
        if addr:
            syscalls.munmap(addr, self._nbytes)


class OwnMemory:
    """Memory of ours for the queues of a ring with Setup.NO_MMAP: the SQEs, then both rings, each from a page on.

    It is sized by what any kernel needs for these flags, whose head words differ in size between
    releases. The kernel pins its pages, so they may be unmapped at any time after the ring's end.

    A `huge` page is contiguous in physical memory, which the first kernels with NO_MMAP insist on
    (Linux 6.5 to 6.9) for queues of more than one page. OSError (ENOMEM) where none is free.
    """

    __slots__ = ("mapping", "sqes_nbytes")

    def __init__(self, entries: int, cq_entries: int, setup_flags: int, *, huge: bool = False) -> None:
        sq_entries, cq_entries = queue_entries(entries, cq_entries)
        self.sqes_nbytes = _whole_pages(sq_entries * sqe_nbytes(setup_flags))
        rings_nbytes = _whole_pages(_WORDS_NBYTES + cq_entries * cqe_nbytes(setup_flags) + sq_entries * 4)
        nbytes = self.sqes_nbytes + rings_nbytes
        if huge:
            page_nbytes = _huge_page_nbytes()
            self.mapping = Mapping(-(-nbytes // page_nbytes) * page_nbytes, _OF_OUR_OWN | _HUGE)
        else:
            self.mapping = Mapping(nbytes)

    @property
    def sqes_addr(self) -> int:
        """For `sq_off.user_addr`."""
        return self.mapping.addr

    @property
    def rings_addr(self) -> int:
        """For `cq_off.user_addr`."""
        return self.mapping.addr + self.sqes_nbytes

    def close(self) -> None:
        """Unmap. A second call does nothing."""
        self.mapping.close()


class Reservation:
    """As much address space as the mappings of a ring with these parameters take.

    The kernel maps a ring only where it likes: give this back, then map.
    """

    __slots__ = ("_mappings",)

    def __init__(self, params: bytearray) -> None:
        self._mappings: list[Mapping] = []
        try:
            for nbytes, _ in _parts(params):
                self._mappings.append(Mapping(nbytes, _RESERVED))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give it back. A second call does nothing."""
        for mapping in self._mappings:
            mapping.close()


def queue_entries(sq_entries: int, cq_entries: int) -> tuple[int, int]:
    """The sizes that the kernel makes of those asked for, within its limits. `cq_entries` 0 is twice the SQ."""
    sq_entries = _power_of_two(min(sq_entries, abi.MAX_ENTRIES))
    return sq_entries, _power_of_two(min(cq_entries, abi.MAX_CQ_ENTRIES)) if cq_entries else 2 * sq_entries


def sqe_nbytes(setup_flags: int) -> int:
    """The size of a slot of the SQ."""
    return 128 if setup_flags & abi.Setup.SQE128 else 64


def cqe_nbytes(setup_flags: int) -> int:
    """The size of a slot of the CQ."""
    return 32 if setup_flags & abi.Setup.CQE32 else 16


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // _mmap.PAGESIZE) * _mmap.PAGESIZE


def _huge_page_nbytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("Hugepagesize:"):
                return int(line.split()[1]) * 1024
    raise os_error(errno.ENOMEM, "this kernel has no huge pages")


class RingMemory:
    """The words and arrays of one ring, as the two queues use them.

    Word for word the fields of struct io_sqring_offsets and io_cqring_offsets. It works on
    any memory, so that tests can play the kernel's part on a plain bytearray.
    """

    __slots__ = (
        "sq_head", "sq_tail", "sq_tail_plain", "sq_flags", "sq_dropped", "sq_entries", "sqes", "sqe_nbytes",
        "cq_head", "cq_tail", "cq_flags", "cq_overflow", "cq_entries", "cqes", "cqe_nbytes",
        "has_sq_array", "_views",
    )  # fmt: skip

    def __init__(self, params: bytearray, sq_ring: memoryview, cq_ring: memoryview, sqes: memoryview) -> None:
        get = abi.IO_URING_PARAMS.get
        setup_flags = get(params, "flags")
        sq_off = abi.IO_SQRING_OFFSETS.unpack(params, abi.IO_URING_PARAMS.fields["sq_off"].offset)
        cq_off = abi.IO_CQRING_OFFSETS.unpack(params, abi.IO_URING_PARAMS.fields["cq_off"].offset)

        self.sq_entries: int = get(params, "sq_entries")
        self.sqe_nbytes = sqe_nbytes(setup_flags)
        self.sqes = sqes[: self.sq_entries * self.sqe_nbytes]
        self.sq_head = Word32(sq_ring, sq_off["head"])
        self.sq_tail = Word32(sq_ring, sq_off["tail"])
        # The tail once more, for when no other processor may read it meanwhile.
        self.sq_tail_plain = sq_ring[sq_off["tail"] : sq_off["tail"] + 4].cast("I")
        self.sq_flags = Word32(sq_ring, sq_off["flags"])
        self.sq_dropped = Word32(sq_ring, sq_off["dropped"])

        self.cq_entries: int = get(params, "cq_entries")
        self.cqe_nbytes = cqe_nbytes(setup_flags)
        start = cq_off["cqes"]
        self.cqes = cq_ring[start : start + self.cq_entries * self.cqe_nbytes]
        self.cq_head = Word32(cq_ring, cq_off["head"])
        self.cq_tail = Word32(cq_ring, cq_off["tail"])
        self.cq_overflow = Word32(cq_ring, cq_off["overflow"])
        # Kernels before 5.8 have no CQ flags word and say so with offset 0, which is the SQ head.
        self.cq_flags = Word32(cq_ring, cq_off["flags"]) if cq_off["flags"] else None
        self._views = (self.sqes, self.sq_tail_plain, self.cqes)

        self.has_sq_array = not setup_flags & abi.Setup.NO_SQARRAY
        if self.has_sq_array:
            # The array lets SQEs be submitted in another order than they were written. We never
            # do, so entry i is i for good. With NO_SQARRAY its offset is 0: never write there.
            array = sq_ring[sq_off["array"] : sq_off["array"] + self.sq_entries * 4].cast("I")
            for slot in range(self.sq_entries):
                array[slot] = slot
            array.release()

    def release(self) -> None:
        """Drop every view: a later access is a ValueError. A second call does nothing."""
        for view in self._views:
            view.release()
        for word in (self.sq_head, self.sq_tail, self.sq_flags, self.sq_dropped,
                     self.cq_head, self.cq_tail, self.cq_overflow, self.cq_flags):  # fmt: skip
            if word is not None:
                word.release()


def _parts(params: bytearray) -> list[tuple[int, int]]:
    """What of a ring's fd to map: sizes in bytes and offsets. The SQ ring, the CQ ring if it is apart, the SQEs."""
    get = abi.IO_URING_PARAMS.get
    sq_off = abi.IO_SQRING_OFFSETS.unpack(params, abi.IO_URING_PARAMS.fields["sq_off"].offset)
    cq_off = abi.IO_CQRING_OFFSETS.unpack(params, abi.IO_URING_PARAMS.fields["cq_off"].offset)
    setup_flags = get(params, "flags")
    sq_entries, cq_entries = get(params, "sq_entries"), get(params, "cq_entries")

    # Without the array the SQ ring ends with its last word; mapping to the end of the
    # CQ ring, with which it shares the mapping, covers both.
    sq_nbytes = max(sq_off[name] + 4 for name in ("head", "tail", "ring_mask", "ring_entries", "flags", "dropped"))
    if not setup_flags & abi.Setup.NO_SQARRAY:
        sq_nbytes = sq_off["array"] + sq_entries * 4
    cq_nbytes = cq_off["cqes"] + cq_entries * cqe_nbytes(setup_flags)
    sqes = sq_entries * sqe_nbytes(setup_flags), abi.MmapOffset.SQES
    if get(params, "features") & abi.Feature.SINGLE_MMAP:
        return [(max(sq_nbytes, cq_nbytes), abi.MmapOffset.SQ_RING), sqes]
    return [(sq_nbytes, abi.MmapOffset.SQ_RING), (cq_nbytes, abi.MmapOffset.CQ_RING), sqes]


class MappedRing(RingMemory):
    """`RingMemory` over mappings of a ring's fd, or over memory of ours that the ring was given."""

    __slots__ = ("_mappings",)

    def __init__(self, fd: int, params: bytearray, own: OwnMemory | None = None) -> None:
        self._mappings: list[Mapping] = []
        if own is not None:
            self._mappings.append(own.mapping)
            rings, sqes = own.mapping.view[own.sqes_nbytes :], own.mapping.view[: own.sqes_nbytes]
            super().__init__(params, rings, rings, sqes)
            return
        try:
            for nbytes, offset in _parts(params):
                self._mappings.append(Mapping(nbytes, _OF_A_RING, fd, offset))
            views = [mapping.view for mapping in self._mappings]
            super().__init__(params, views[0], views[-2], views[-1])
        except BaseException:
            for mapping in self._mappings:
                mapping.close()
            raise

    def close(self) -> None:
        """Release every view, then unmap. A second call does nothing."""
        self.release()
        for mapping in self._mappings:
            mapping.close()
