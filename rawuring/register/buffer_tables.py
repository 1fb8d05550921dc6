"""The buffer table of a ring: memory that the kernel has pinned, for the _FIXED operations.

May import abi, errors, syscalls. A region is an (address, bytes) pair; (0, 0) is an empty place
(Linux 5.13). What is pinned counts against RLIMIT_MEMLOCK for a user without CAP_IPC_LOCK.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import abi
from .calling import RingIndex, address, call, iovec_array, tag_array

__all__ = ["buffers", "buffers_sparse", "buffers_tags", "buffers_update_tag", "clone_buffers", "unregister_buffers"]


def buffers(fd: int, regions: Sequence[tuple[int, int]]) -> None:
    """Register memory for READ_FIXED and WRITE_FIXED: (address, bytes) pairs; the position is the buf_index.

    Since      Linux 5.1            Man   io_uring_register_buffers(3)
    Memory     registered: until `unregister_buffers` and the end of every request that uses it
    Errors     EBUSY there is a table already; ENOMEM RLIMIT_MEMLOCK; EFAULT; EINVAL too many
    """
    call(fd, abi.Register.BUFFERS, iovec_array(regions), len(regions))


def buffers_tags(fd: int, regions: Sequence[tuple[int, int]], tags: Sequence[int] = ()) -> None:
    """Register memory, and a tag for each region that is not 0: the user_data of a CQE that tells of its end.

    That CQE (res 0) is posted when the buffer left its place and the last request that uses it is
    done: only then is the memory yours again. Choose tags below 2**63, as every user_data of the
    raw layer. An empty place has none.

    Since      Linux 5.13           Man   io_uring_register_buffers_tags(3)
    Memory     registered: until the tag's CQE
    Errors     as `buffers`; EINVAL a tag for an empty place
    """
    layout = abi.IO_URING_RSRC_REGISTER
    array, tag_values = iovec_array(regions), tag_array(tags, len(regions))
    arg = layout.pack(nr=len(regions), data=address(array), tags=address(tag_values))
    call(fd, abi.Register.BUFFERS2, arg, layout.nbytes)


def buffers_sparse(fd: int, count: int) -> None:
    """Register a table of `count` empty places, for `buffers_update_tag`.

    Since      Linux 5.13           Man   io_uring_register_buffers_sparse(3)
    Errors     EBUSY there is a table already; EINVAL too many
    """
    # As with the flag that came in 5.19: the kernel takes an empty region for an empty place.
    buffers(fd, [(0, 0)] * count)


def buffers_update_tag(fd: int, offset: int, regions: Sequence[tuple[int, int]], tags: Sequence[int] = ()) -> int:
    """Replace buffers from place `offset` on; (0, 0) empties one. Returns how many were done.

    The tag of what leaves its place is posted, as `buffers_tags` says; without `tags` the new
    buffers have none.

    Since      Linux 5.13           Man   io_uring_register_buffers_update_tag(3)
    Memory     registered: the new regions, and the old ones until the tag's CQE
    Errors     ENXIO no table; EINVAL outside it, or a tag for an empty place; EFAULT
    """
    layout = abi.IO_URING_RSRC_UPDATE2
    array, tag_values = iovec_array(regions), tag_array(tags, len(regions))
    arg = layout.pack(offset=offset, data=address(array), tags=address(tag_values), nr=len(regions))
    return call(fd, abi.Register.BUFFERS_UPDATE, arg, layout.nbytes)


def clone_buffers(
    fd: int, src_fd: int, dst_off: int = 0, src_off: int = 0, nr: int = 0, clone_flags: int = 0
) -> None:
    """Give the ring `fd` the registered buffers of the ring `src_fd`, without pinning them anew.

    `nr` 0 is all from `src_off` on. With CloneBuffers.DST_REPLACE they take the places from
    `dst_off` on in a table that is there already. Each ring drops its own; tags stay behind.
    A RingIndex as `src_fd` sets CloneBuffers.SRC_REGISTERED.

    Since      Linux 6.12 (offsets, DST_REPLACE 6.13)       Man   io_uring_clone_buffers(3)
    Memory     registered: until both rings dropped it
    Errors     EBUSY there is a table already; ENXIO `src_fd` has none; EOVERFLOW outside it;
               EINVAL the two rings' memory is charged to different users or processes
    """
    if isinstance(src_fd, RingIndex):
        clone_flags |= abi.CloneBuffers.SRC_REGISTERED
    arg = abi.IO_URING_CLONE_BUFFERS.pack(
        src_fd=src_fd, flags=int(clone_flags), src_off=src_off, dst_off=dst_off, nr=nr
    )
    call(fd, abi.Register.CLONE_BUFFERS, arg, 1)


def unregister_buffers(fd: int) -> None:
    """Drop the buffer table. Requests in flight keep theirs.

    Since      Linux 5.1            Man   io_uring_unregister_buffers(3)
    Errors     ENXIO there is none
    """
    call(fd, abi.Register.UNREGISTER_BUFFERS)
