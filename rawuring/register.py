"""The verbs of io_uring_register(2), one function each, on the fd of a ring.

May import abi, errors, syscalls. Keeps no state: what is registered, the kernel knows.

`fd` is the ring's fd, or a registered index with `opcode_flags` USE_REGISTERED_RING left to
`Ring`. Every function raises the OSError of the errno. Argument structs are needed for the
duration of the call only; what lives longer is said under Memory.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final, NamedTuple

from . import abi, syscalls

_IOVEC = Struct("=QQ")
_FD = Struct("=i")
_ANY_INDEX: Final = 0xFFFF_FFFF
_MAX_PROBE_OPS: Final = 256


def _call(fd: int, verb: abi.Register, arg: bytearray | None, nr_args: int) -> int:
    if arg is None:
        return syscalls.register(fd, verb, None, nr_args)
    export = ctypes.c_char.from_buffer(arg)
    return syscalls.register(fd, verb, ctypes.addressof(export), nr_args)


# --- buffers


def buffers(fd: int, regions: Sequence[tuple[int, int]]) -> None:
    """Register memory for READ_FIXED and WRITE_FIXED: (address, bytes) pairs; the position is the buf_index.

    Since      Linux 5.1            Man   io_uring_register_buffers(3)
    Memory     registered: until `unregister_buffers` and the end of every request that uses it
    Errors     EBUSY there is a table already; ENOMEM RLIMIT_MEMLOCK; EFAULT; EINVAL too many
    """
    arg = bytearray(_IOVEC.size * len(regions))
    for i, (addr, nbytes) in enumerate(regions):
        _IOVEC.pack_into(arg, i * _IOVEC.size, addr, nbytes)
    _call(fd, abi.Register.BUFFERS, arg, len(regions))


def unregister_buffers(fd: int) -> None:
    """Drop the buffer table. Requests in flight keep theirs.

    Since      Linux 5.1            Man   io_uring_unregister_buffers(3)
    Errors     ENXIO there is none
    """
    _call(fd, abi.Register.UNREGISTER_BUFFERS, None, 0)


# --- files


def _fds(fds: Iterable[int]) -> bytearray:
    return bytearray(b"".join(_FD.pack(fd) for fd in fds))


def files(fd: int, fds: Sequence[int]) -> None:
    """Register a table of fds (-1 is an empty slot); the position is the slot.

    Since      Linux 5.1            Man   io_uring_register_files(3)
    Errors     EBUSY there is a table already; EMFILE more slots than RLIMIT_NOFILE; EBADF
    """
    _call(fd, abi.Register.FILES, _fds(fds), len(fds))


def files_sparse(fd: int, count: int) -> None:
    """Register a table of `count` empty slots.

    Since      Linux 5.19, before it as `files` with -1 in each slot    Man   io_uring_register_files_sparse(3)
    Errors     EBUSY there is a table already; EMFILE more slots than RLIMIT_NOFILE
    """
    layout = abi.IO_URING_RSRC_REGISTER
    try:
        _call(fd, abi.Register.FILES2, layout.pack(nr=count, flags=int(abi.Rsrc.REGISTER_SPARSE)), layout.nbytes)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        files(fd, [-1] * count)


def files_update(fd: int, offset: int, fds: Sequence[int]) -> int:
    """Replace slots from `offset` on; -1 empties a slot, REGISTER_FILES_SKIP leaves it. Returns how many were done.

    Since      Linux 5.5 (SKIP 5.12)            Man   io_uring_register_files_update(3)
    Errors     ENXIO no table; EINVAL outside it; EBADF
    """
    array = _fds(fds)
    export = ctypes.c_char.from_buffer(array)
    arg = abi.IO_URING_FILES_UPDATE.pack(offset=offset, fds=ctypes.addressof(export))
    return _call(fd, abi.Register.FILES_UPDATE, arg, len(fds))


def unregister_files(fd: int) -> None:
    """Drop the file table and close what is in it. Requests in flight keep their files.

    Since      Linux 5.1            Man   io_uring_unregister_files(3)
    Errors     ENXIO there is none
    """
    _call(fd, abi.Register.UNREGISTER_FILES, None, 0)


# --- provided-buffer rings


def pbuf_ring(fd: int, ring_addr: int, ring_entries: int, bgid: int, pbuf_flags: int = 0) -> None:
    """Make the page-aligned memory at `ring_addr` (16 bytes an entry) the buffer ring of group `bgid`.

    Since      Linux 5.19           Man   io_uring_register_buf_ring(3)
    Memory     registered: the ring and every buffer in it
    Errors     EEXIST the group is taken; EINVAL not a power of two, above 32768, not aligned
    """
    arg = abi.IO_URING_BUF_REG.pack(ring_addr=ring_addr, ring_entries=ring_entries, bgid=bgid, flags=pbuf_flags)
    _call(fd, abi.Register.PBUF_RING, arg, 1)


def unregister_pbuf_ring(fd: int, bgid: int) -> None:
    """Drop the buffer ring of group `bgid`.

    Since      Linux 5.19           Man   io_uring_unregister_buf_ring(3)
    Errors     ENOENT no such group; EINVAL not a ring
    """
    _call(fd, abi.Register.UNREGISTER_PBUF_RING, abi.IO_URING_BUF_REG.pack(bgid=bgid), 1)


# --- what the kernel can do


def probe(fd: int) -> frozenset[int]:
    """The opcodes this kernel supports, by asking it.

    Since      Linux 5.6            Man   io_uring_register_probe(3)
    """
    head, each = abi.IO_URING_PROBE, abi.IO_URING_PROBE_OP
    arg = bytearray(head.nbytes + _MAX_PROBE_OPS * each.nbytes)
    _call(fd, abi.Register.PROBE, arg, _MAX_PROBE_OPS)
    places = range(head.nbytes, head.nbytes + head.get(arg, "ops_len") * each.nbytes, each.nbytes)
    return frozenset(each.get(arg, "op", at) for at in places if each.get(arg, "flags", at) & abi.Probe.OP_SUPPORTED)


class Query(NamedTuple):
    """What REGISTER_QUERY says of the kernel: counts, and masks of every bit it knows."""

    nr_request_opcodes: int
    nr_register_opcodes: int
    feature_flags: int
    ring_setup_flags: int
    enter_flags: int
    sqe_flags: int
    nr_query_opcodes: int


def query(fd: int = -1) -> Query:
    """Ask the kernel for its masks; with `fd` -1 no ring is needed.

    Since      Linux 6.18           Man   io_uring_register_query(3)
    Errors     EINVAL the kernel is older
    """
    answer = bytearray(abi.IO_URING_QUERY_OPCODE.nbytes)
    export = ctypes.c_char.from_buffer(answer)
    layout = abi.IO_URING_QUERY_HDR
    header = layout.pack(
        query_data=ctypes.addressof(export), query_op=int(abi.Query.OPCODES), size=abi.IO_URING_QUERY_OPCODE.nbytes
    )
    _call(fd, abi.Register.QUERY, header, 0)
    result = layout.get(header, "result")
    if result < 0:
        raise OSError(-result, "io_uring_register: the query was refused")
    values = abi.IO_URING_QUERY_OPCODE.unpack(answer)
    return Query(*(values[name] for name in Query._fields))


# --- the ring's own fd, eventfds, enabling


def ring_fd(fd: int) -> int:
    """Register the ring's fd with this thread: returns the index that enter takes with Enter.REGISTERED_RING.

    Per thread, at most 16; the ring lives on until the index is unregistered or the thread ends.

    Since      Linux 5.18           Man   io_uring_register_ring_fd(3)
    Errors     EBUSY all 16 are taken; EINVAL the kernel is older
    """
    layout = abi.IO_URING_RSRC_UPDATE
    arg = layout.pack(offset=_ANY_INDEX, data=fd)
    _call(fd, abi.Register.RING_FDS, arg, 1)
    index: int = layout.get(arg, "offset")
    return index


def unregister_ring_fd(fd: int, index: int) -> None:
    """Drop an index that `ring_fd` gave, in the thread that got it.

    Since      Linux 5.18           Man   io_uring_unregister_ring_fd(3)
    """
    _call(fd, abi.Register.UNREGISTER_RING_FDS, abi.IO_URING_RSRC_UPDATE.pack(offset=index), 1)


def eventfd(fd: int, event_fd: int, *, only_async: bool = False) -> None:
    """Let completions signal `event_fd`; with `only_async` those alone that a worker thread of the kernel made.

    A batch may signal once: take it as a hint and drain the CQ. What waits by poll, as receives
    do, is completed without a worker: `only_async` never signals it.

    Since      Linux 5.2 (`only_async` 5.6)     Man   io_uring_register_eventfd(3)
    Errors     EBUSY there is one already; EINVAL not an eventfd
    """
    verb = abi.Register.EVENTFD_ASYNC if only_async else abi.Register.EVENTFD
    _call(fd, verb, bytearray(_FD.pack(event_fd)), 1)


def unregister_eventfd(fd: int) -> None:
    """Drop the eventfd.

    Since      Linux 5.2            Man   io_uring_unregister_eventfd(3)
    Errors     ENXIO there is none
    """
    _call(fd, abi.Register.UNREGISTER_EVENTFD, None, 0)


def enable_rings(fd: int) -> None:
    """Enable a ring made with Setup.R_DISABLED. With SINGLE_ISSUER the caller's thread becomes its owner.

    Since      Linux 5.10           Man   io_uring_enable_rings(3)
    Errors     EBADFD it is not disabled
    """
    _call(fd, abi.Register.ENABLE_RINGS, None, 0)
