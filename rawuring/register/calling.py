"""What the verbs share: the call itself, and the arrays that arguments point to.

May import abi, errors, syscalls. Knows no verb.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from struct import Struct, pack

from .. import abi, syscalls
from ..errors import RawuringError
from ..hints import Final

_FD = Struct("=i")
_IOVEC = Struct("=QQ")
_USE_REGISTERED_RING: Final = abi.REGISTER_USE_REGISTERED_RING


class RingIndex(int):
    """The index of a ring registered with the calling thread, as `ring_fd` returns it.

    As the `fd` of a verb it is looked up there (REGISTER_USE_REGISTERED_RING, Linux 6.3), so the
    ring's fd may be closed. Another thread or a forked child finds nothing, or another ring,
    under the same number.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"RingIndex({int(self)})"


def call(fd: int, verb: abi.Register, arg: bytearray | None = None, nr_args: int = 0) -> int:
    """Make the system call with the address of `arg`, into which the kernel may write."""
    opcode = verb | _USE_REGISTERED_RING if isinstance(fd, RingIndex) else verb
    if not arg:
        return syscalls.register(fd, opcode, None, nr_args)
    export = ctypes.c_char.from_buffer(arg)
    return syscalls.register(fd, opcode, ctypes.addressof(export), nr_args)


def address(memory: bytearray) -> int:
    """Where the bytes are. They stay there while somebody holds `memory` and nobody resizes it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory)) if memory else 0


def fd_array(fds: Sequence[int]) -> bytearray:
    """An int32[]."""
    return bytearray(b"".join(map(_FD.pack, fds)))


def iovec_array(regions: Sequence[tuple[int, int]]) -> bytearray:
    """A struct iovec[] of (address, bytes) pairs."""
    array = bytearray(_IOVEC.size * len(regions))
    for i, (addr, nbytes) in enumerate(regions):
        _IOVEC.pack_into(array, i * _IOVEC.size, addr, nbytes)
    return array


def tag_array(tags: Sequence[int], count: int) -> bytearray:
    """A u64[], of which the kernel reads `count`; empty, a NULL pointer, where nothing is tagged."""
    if tags and len(tags) != count:
        raise RawuringError(f"{len(tags)} tags for {count} entries: give each its own, 0 for none, or give no tags")
    return bytearray(pack(f"={len(tags)}Q", *tags))
