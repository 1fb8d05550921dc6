"""The file table of a ring: the fixed files that requests name by slot.

May import abi, errors, syscalls.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from .. import abi
from .calling import address, call, fd_array, tag_array

__all__ = [
    "file_alloc_range", "files", "files_sparse", "files_tags", "files_update", "files_update_tag", "unregister_files",
]  # fmt: skip


def files(fd: int, fds: Sequence[int]) -> None:
    """Register a table of fds (-1 is an empty slot); the position is the slot.

    Since      Linux 5.1            Man   io_uring_register_files(3)
    Errors     EBUSY there is a table already; EMFILE more slots than RLIMIT_NOFILE; EBADF, also for a ring
    """
    call(fd, abi.Register.FILES, fd_array(fds), len(fds))


def files_tags(fd: int, fds: Sequence[int], tags: Sequence[int] = ()) -> None:
    """Register a table of fds, and a tag for each that is not 0: the user_data of a CQE that tells of its end.

    That CQE (res 0) is posted when the file left its slot and the last request that uses it is
    done. Choose tags below 2**63, as every user_data of the raw layer. An empty slot has none.

    Since      Linux 5.13           Man   io_uring_register_files_tags(3)
    Errors     as `files`; EINVAL a tag for an empty slot
    """
    layout = abi.IO_URING_RSRC_REGISTER
    array, tag_values = fd_array(fds), tag_array(tags, len(fds))
    arg = layout.pack(nr=len(fds), data=address(array), tags=address(tag_values))
    call(fd, abi.Register.FILES2, arg, layout.nbytes)


def files_sparse(fd: int, count: int) -> None:
    """Register a table of `count` empty slots.

    Since      Linux 5.19, before it as `files` with -1 in each slot    Man   io_uring_register_files_sparse(3)
    Errors     EBUSY there is a table already; EMFILE more slots than RLIMIT_NOFILE
    """
    layout = abi.IO_URING_RSRC_REGISTER
    try:
        call(fd, abi.Register.FILES2, layout.pack(nr=count, flags=int(abi.Rsrc.REGISTER_SPARSE)), layout.nbytes)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        files(fd, [-1] * count)


def files_update(fd: int, offset: int, fds: Sequence[int]) -> int:
    """Replace slots from `offset` on; -1 empties a slot, REGISTER_FILES_SKIP leaves it. Returns how many were done.

    Since      Linux 5.5 (SKIP 5.12)            Man   io_uring_register_files_update(3)
    Errors     ENXIO no table; EINVAL outside it; EBADF
    """
    array = fd_array(fds)
    arg = abi.IO_URING_FILES_UPDATE.pack(offset=offset, fds=address(array))
    return call(fd, abi.Register.FILES_UPDATE, arg, len(fds))


def files_update_tag(fd: int, offset: int, fds: Sequence[int], tags: Sequence[int] = ()) -> int:
    """`files_update` with tags, as `files_tags` has them. The tag of what leaves a slot is posted.

    Since      Linux 5.13           Man   io_uring_register_files_update_tag(3)
    Errors     as `files_update`; EINVAL a tag for what is -1 or REGISTER_FILES_SKIP
    """
    layout = abi.IO_URING_RSRC_UPDATE2
    array, tag_values = fd_array(fds), tag_array(tags, len(fds))
    arg = layout.pack(offset=offset, data=address(array), tags=address(tag_values), nr=len(fds))
    return call(fd, abi.Register.FILES_UPDATE2, arg, layout.nbytes)


def file_alloc_range(fd: int, offset: int, count: int) -> None:
    """Let the kernel pick slots (FILE_INDEX_ALLOC) from these `count` only; slots outside go by number.

    A new table allows all of its slots again.

    Since      Linux 6.0            Man   io_uring_register_file_alloc_range(3)
    Errors     EINVAL not inside the table, or there is none; EOVERFLOW
    """
    # nr_args is 0, although the manual says 1.
    call(fd, abi.Register.FILE_ALLOC_RANGE, abi.IO_URING_FILE_INDEX_RANGE.pack(off=offset, len=count))


def unregister_files(fd: int) -> None:
    """Drop the file table and close what is in it. Requests in flight keep their files.

    Since      Linux 5.1            Man   io_uring_unregister_files(3)
    Errors     ENXIO there is none
    """
    call(fd, abi.Register.UNREGISTER_FILES)
