"""The ring itself: what its kernel can do, its registered fd, enabling and resizing it.

May import abi, errors, syscalls.
"""

from __future__ import annotations

from .. import abi
from ..hints import Final
from .calling import RingIndex, call

__all__ = ["enable_rings", "probe", "resize_rings", "ring_fd", "unregister_ring_fd"]

_ANY_INDEX: Final = 0xFFFF_FFFF


def probe(fd: int) -> frozenset[int]:
    """The opcodes this kernel supports, by asking it.

    Since      Linux 5.6            Man   io_uring_register_probe(3)
    """
    head, each = abi.IO_URING_PROBE, abi.IO_URING_PROBE_OP
    arg = bytearray(head.nbytes + abi.MAX_PROBE_OPS * each.nbytes)
    call(fd, abi.Register.PROBE, arg, abi.MAX_PROBE_OPS)
    places = range(head.nbytes, head.nbytes + head.get(arg, "ops_len") * each.nbytes, each.nbytes)
    return frozenset(each.get(arg, "op", at) for at in places if each.get(arg, "flags", at) & abi.Probe.OP_SUPPORTED)


def enable_rings(fd: int) -> None:
    """Enable a ring made with Setup.R_DISABLED. With SINGLE_ISSUER the caller's thread becomes its owner.

    Since      Linux 5.10           Man   io_uring_enable_rings(3)
    Errors     EBADFD it is not disabled
    """
    call(fd, abi.Register.ENABLE_RINGS)


def ring_fd(fd: int) -> RingIndex:
    """Register the ring's fd with this thread: returns the index that enter takes with Enter.REGISTERED_RING.

    Per thread, at most 16; the ring lives on until the index is unregistered or the thread ends,
    whether or not the fd is closed.

    Since      Linux 5.18           Man   io_uring_register_ring_fd(3)
    Errors     EBUSY all 16 are taken; EINVAL the kernel is older
    """
    layout = abi.IO_URING_RSRC_UPDATE
    arg = layout.pack(offset=_ANY_INDEX, data=fd)
    call(fd, abi.Register.RING_FDS, arg, 1)
    return RingIndex(layout.get(arg, "offset"))


def unregister_ring_fd(fd: int, index: int) -> None:
    """Drop an index that `ring_fd` gave, in the thread that got it. `fd` may be the index itself (Linux 6.3).

    Since      Linux 5.18           Man   io_uring_unregister_ring_fd(3)
    """
    call(fd, abi.Register.UNREGISTER_RING_FDS, abi.IO_URING_RSRC_UPDATE.pack(offset=index), 1)


def resize_rings(
    fd: int, sq_entries: int, cq_entries: int = 0, *, clamp: bool = False, ring_addr: int = 0, sqes_addr: int = 0
) -> bytearray:
    """Give a DEFER_TASKRUN ring queues of another size: returns the struct io_uring_params to map them by.

    `cq_entries` 0 is twice `sq_entries`; `clamp` takes the kernel's limit where a number is above it.
    What is queued or completed moves along, heads and tails keep their values. From then on the
    kernel uses the new queues alone: unmap the old ones, which nobody reads any more, and map
    the new. A ring with Setup.NO_MMAP brings their memory, `ring_addr` and `sqes_addr`.

    Of the answer take the entries and the offsets, but not `features`, which is 0, nor the flags,
    which are only those that the queues' layout depends on. `sq_off.array` is 0 as well, so a ring
    without Setup.NO_SQARRAY cannot be mapped by it.

    Since      Linux 6.13           Man   io_uring_resize_rings(3)
    Memory     registered: NO_MMAP memory, until the next resize or the end of the ring
    Errors     EINVAL not a DEFER_TASKRUN ring, or bad numbers; EOVERFLOW what is queued or completed does not fit
    """
    setup_flags = (abi.Setup.CQSIZE if cq_entries else 0) | (abi.Setup.CLAMP if clamp else 0)
    arg = abi.IO_URING_PARAMS.pack(sq_entries=sq_entries, cq_entries=cq_entries, flags=int(setup_flags))
    abi.IO_URING_PARAMS.put(arg, "cq_off.user_addr", ring_addr)
    abi.IO_URING_PARAMS.put(arg, "sq_off.user_addr", sqes_addr)
    call(fd, abi.Register.RESIZE_RINGS, arg, 1)
    return arg
