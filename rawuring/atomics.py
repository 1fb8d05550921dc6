"""Loads and stores of a u16 or u32 that the kernel reads or writes at the same moment, and a full fence.

May import the standard library, `errors` and `syscalls`. Never knows what a ring is.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from rawuring.errors import RawuringError

# memory_order of C11, as libatomic takes it.
_RELAXED, _ACQUIRE, _RELEASE, _SEQ_CST = 0, 2, 3, 5

_MACHINE = os.uname().machine
_TSO = ("x86_64", "i386", "i486", "i586", "i686", "s390x")

# Set at import, see the end of this file.
backend: str
# Chosen at the first look or the first full_fence(), see __getattr__.
has_full_fence: bool
fence_backend: str


def _pin(kind: type[ctypes._SimpleCData[int]], memory: memoryview, offset: int) -> ctypes._SimpleCData[int]:
    """A ctypes object over the word: keeps the memory exported, and knows its address."""
    pinned = kind.from_buffer(memory, offset)
    if ctypes.addressof(pinned) % ctypes.sizeof(kind):
        raise ValueError(f"a {ctypes.sizeof(kind)}-byte word at offset {offset} is not aligned")
    return pinned


class _PlainWord32:
    """One aligned item of a memoryview: a single load or store instruction where that is enough."""

    __slots__ = ("_item",)
    _kind: ClassVar[Any] = ctypes.c_uint32
    _format: ClassVar[Any] = "I"

    def __init__(self, memory: memoryview, offset: int) -> None:
        _pin(self._kind, memory, offset)
        nbytes = ctypes.sizeof(self._kind)
        self._item: memoryview[int] = memory[offset : offset + nbytes].cast(self._format)

    def load(self) -> int:
        """The word; says nothing about any other memory."""
        return self._item[0]

    def load_acquire(self) -> int:
        """The word; what its writer had written before it is visible from now on."""
        return self._item[0]

    def store(self, value: int) -> None:
        """Write the word; says nothing about any other memory."""
        self._item[0] = value

    def store_release(self, value: int) -> None:
        """Write the word; who sees it sees everything written before it."""
        self._item[0] = value

    def release(self) -> None:
        """Let go of the memory. Every later use is a ValueError."""
        self._item.release()


class _PlainWord16(_PlainWord32):
    __slots__ = ()
    _kind = ctypes.c_uint16
    _format = "H"


_fence: Callable[[int], object] | None = None
_fence_lock = threading.Lock()


def full_fence() -> None:
    """Order every earlier load and store before every later one, the store-load pair included."""
    (_fence or _choose_fence())(_SEQ_CST)


def _choose_fence() -> Callable[[int], object]:
    global _fence, fence_backend, has_full_fence
    with _fence_lock:
        if _fence is None:
            try:
                _fence = ctypes.PyDLL("libatomic.so.1").atomic_thread_fence
                fence_backend = "libatomic"
            except (OSError, AttributeError):
                _fence = _no_fence
                fence_backend = "none"
            has_full_fence = _fence is not _no_fence
    return _fence


def _no_fence(order: int) -> NoReturn:
    raise RawuringError("no full memory fence can be had here: install libatomic (Debian: libatomic1)")


if not TYPE_CHECKING:

    def __getattr__(name):
        if name in ("has_full_fence", "fence_backend"):
            _choose_fence()
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


backend = "tso" if _MACHINE in _TSO else "none"
Word32 = _PlainWord32
Word16 = _PlainWord16
