"""The memory shared with the kernel: the SQ ring, the CQ ring and the array of SQEs.

May import abi, errors, syscalls and atomics. This is the only module that reads or writes
a head, tail or flags word of the two queues; it never decides what to submit or to reap.

Nothing about the layout is assumed: every offset comes from the struct io_uring_params
that the kernel filled in, and differs between releases and page sizes.
"""

from __future__ import annotations

import ctypes
import mmap as _mmap

from . import abi, syscalls
from .atomics import Word32

_PROT = _mmap.PROT_READ | _mmap.PROT_WRITE
_MAP = _mmap.MAP_SHARED | _mmap.MAP_POPULATE


class Mapping:
    """One mapping of a ring fd, as a writable byte view.

    The view is made over the bare address, so nothing keeps the memory in place but this
    object: `close()` releases the view first, after which a late access is a ValueError
    and not a crash.
    """

    __slots__ = ("view", "_addr", "_nbytes")

    def __init__(self, fd: int, nbytes: int, offset: int) -> None:
        self._nbytes = nbytes
        self._addr = 0
        self._addr = syscalls.mmap(None, nbytes, _PROT, _MAP, fd, offset)
        self.view = memoryview((ctypes.c_char * nbytes).from_address(self._addr)).cast("B")

    def close(self) -> None:
        """Unmap. A second call does nothing."""
        self.view.release()
        # Forgotten before it is unmapped: an interrupt between the two leaks one mapping, while
        # the other order could unmap memory that something else has been given since.
        addr, self._addr = self._addr, 0
        if addr:
            syscalls.munmap(addr, self._nbytes)


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
        self.sqe_nbytes = 128 if setup_flags & abi.Setup.SQE128 else 64
        self.sqes = sqes[: self.sq_entries * self.sqe_nbytes]
        self.sq_head = Word32(sq_ring, sq_off["head"])
        self.sq_tail = Word32(sq_ring, sq_off["tail"])
        # The tail once more, for when no other processor may read it meanwhile.
        self.sq_tail_plain = sq_ring[sq_off["tail"] : sq_off["tail"] + 4].cast("I")
        self.sq_flags = Word32(sq_ring, sq_off["flags"])
        self.sq_dropped = Word32(sq_ring, sq_off["dropped"])

        self.cq_entries: int = get(params, "cq_entries")
        self.cqe_nbytes = 32 if setup_flags & abi.Setup.CQE32 else 16
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


class MappedRing(RingMemory):
    """`RingMemory` over the mappings of a ring fd."""

    __slots__ = ("_mappings",)

    def __init__(self, fd: int, params: bytearray) -> None:
        get = abi.IO_URING_PARAMS.get
        sq_off = abi.IO_SQRING_OFFSETS.unpack(params, abi.IO_URING_PARAMS.fields["sq_off"].offset)
        cq_off = abi.IO_CQRING_OFFSETS.unpack(params, abi.IO_URING_PARAMS.fields["cq_off"].offset)
        setup_flags = get(params, "flags")
        sq_entries, cq_entries = get(params, "sq_entries"), get(params, "cq_entries")

        no_array = setup_flags & abi.Setup.NO_SQARRAY
        # Without the array the SQ ring ends with its last word; mapping to the end of the
        # CQ ring, with which it shares the mapping, covers both.
        sq_nbytes = max(sq_off[name] + 4 for name in ("head", "tail", "ring_mask", "ring_entries", "flags", "dropped"))
        if not no_array:
            sq_nbytes = sq_off["array"] + sq_entries * 4
        cq_nbytes = cq_off["cqes"] + cq_entries * (32 if setup_flags & abi.Setup.CQE32 else 16)

        self._mappings: list[Mapping] = []
        try:
            if get(params, "features") & abi.Feature.SINGLE_MMAP:
                sq_ring = cq_ring = self._map(fd, max(sq_nbytes, cq_nbytes), abi.MmapOffset.SQ_RING)
            else:
                sq_ring = self._map(fd, sq_nbytes, abi.MmapOffset.SQ_RING)
                cq_ring = self._map(fd, cq_nbytes, abi.MmapOffset.CQ_RING)
            sqe_nbytes = 128 if setup_flags & abi.Setup.SQE128 else 64
            sqes = self._map(fd, sq_entries * sqe_nbytes, abi.MmapOffset.SQES)
            super().__init__(params, sq_ring, cq_ring, sqes)
        except BaseException:
            for mapping in self._mappings:
                mapping.close()
            raise

    def _map(self, fd: int, nbytes: int, offset: int) -> memoryview:
        self._mappings.append(Mapping(fd, nbytes, offset))
        return self._mappings[-1].view

    def close(self) -> None:
        """Release every view, then unmap. A second call does nothing."""
        self.release()
        for mapping in self._mappings:
            mapping.close()
