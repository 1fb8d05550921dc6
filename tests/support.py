"""What the tests of live rings share. Imports rawuring, so that a broken import fails those tests alone."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import struct
from collections.abc import Iterator

import pytest
from emulation import HANG_NS as HANG_NS

from rawuring import Ring, RingSetupError, abi, register
from rawuring.atomics import Word16

Cqe = tuple[int, int, int]
Pipe = tuple[int, int]

FORGOTTEN = 0xDD
"""What a buffer holds before the kernel writes to it."""


def release_of(text: str) -> tuple[int, ...]:
    """A kernel release for comparing: (6, 12) of 6.12."""
    return tuple(int(part) for part in text.split("."))


def newest(ring: Ring) -> tuple[int, ...]:
    """The newest release of which this kernel shows something: an operation, a feature or a set-up flag.

    Distributions carry newer code under older numbers, so os.uname() is not asked.
    """
    there: list[abi.Op | abi.Feature | abi.Setup] = [op for op in abi.Op if ring.supports(op)]
    there += [feature for feature in abi.Feature if ring.features & feature]
    there += [flag for flag in abi.Setup if ring.setup_flags & flag]
    return max(release_of(one.since) for one in there)


def needs(release: str, there: Ring | bool) -> None:
    """Skip the test unless the kernel has what came with `release`: `there`, or by what the ring shows."""
    if isinstance(there, Ring):
        there = newest(there) >= release_of(release)
    if not there:
        pytest.skip(f"needs Linux {release}, this is {os.uname().release}")


def skip_what_is_newer(text: str) -> None:
    """Skip the test if `text` is of an UnsupportedError, and this kernel shows nothing of that release or a later one.

    If it does show something, whatever failed is no fault of the kernel.
    """
    lack = re.search(r"needs Linux (\d[\d.]*\d), and this kernel does not have it", text)
    if lack:
        with Ring(2) as ring:
            needs(lack[1], ring)


def address(buffer: bytearray | mmap.mmap) -> int:
    """Where the bytes are. They stay there while `buffer` lives and is not resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def timespec(nanoseconds: int) -> bytearray:
    return abi.KERNEL_TIMESPEC.pack(tv_sec=nanoseconds // 10**9, tv_nsec=nanoseconds % 10**9)


def iovecs(*buffers: bytearray) -> bytearray:
    """struct iovec[] of the buffers, which must outlive the request."""
    return bytearray(b"".join(struct.pack("=QQ", address(buffer), len(buffer)) for buffer in buffers))


def take(ring: Ring, nr: int = 1) -> list[Cqe]:
    """Submit, and wait for `nr` completions and no more."""
    found: list[Cqe] = []
    while len(found) < nr:
        ring.submit_and_wait(nr - len(found), HANG_NS)
        batch = ring.completions()
        assert batch, f"waited in vain: {len(found)} of {nr} completions came"
        found += batch
    assert len(found) == nr, found
    return found


def take_one(ring: Ring, user_data: int) -> tuple[int, int]:
    """Submit, and wait for the one completion, which must be of `user_data`: (res, cqe_flags)."""
    ((found, res, cqe_flags),) = take(ring)
    assert found == user_data
    return res, cqe_flags


def results(ring: Ring, nr: int) -> dict[int, int]:
    """Submit, and wait for `nr` completions of different requests, in any order: user_data to res."""
    found = {user_data: res for user_data, res, _ in take(ring, nr)}
    assert len(found) == nr, found
    return found


def room(nbytes: int) -> bytearray:
    return bytearray([FORGOTTEN]) * nbytes


class RawBufferRing:
    """A provided-buffer ring made of register verbs and bytes alone: `count` buffers of 64 bytes."""

    def __init__(self, ring: Ring, bgid: int, count: int) -> None:
        self.count = count
        # A page of its own, not shared with a child of a fork.
        self.entries = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.addr = address(self.entries)
        self.buffers = room(count * 64)
        self.tail_word = Word16(memoryview(self.entries), abi.IO_URING_BUF_RING.fields["tail"].offset)
        self.tail = 0
        register.pbuf_ring(ring.fileno(), self.addr, count, bgid)
        self.give(*range(count))

    def give(self, *bids: int) -> None:
        for bid in bids:
            at = (self.tail & self.count - 1) * 16
            struct.pack_into("=QIH", self.entries, at, address(self.buffers) + bid * 64, 64, bid)
            self.tail += 1
        self.tail_word.store_release(self.tail & 0xFFFF)

    def content(self, res: int, cqe_flags: int) -> tuple[int, bytes]:
        assert cqe_flags & abi.CqeFlag.BUFFER
        bid = cqe_flags >> abi.CQE_BUFFER_SHIFT
        return bid, bytes(self.buffers[bid * 64 : bid * 64 + res])


# --- fixtures, for the modules that import them


@pytest.fixture(params=["best", "plain", "sqpoll"])
def ring(request: pytest.FixtureRequest) -> Iterator[Ring]:
    try:
        if request.param == "best":
            made = Ring(16)
        elif request.param == "plain":
            made = Ring(16, wanted_flags=0)
        else:
            made = Ring(16, abi.Setup.SQPOLL, sq_thread_idle_ms=50)
    except RingSetupError as error:
        if request.param == "sqpoll" and error.errno == errno.EPERM:
            needs("5.13", False)
        raise
    with made:
        yield made


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb"):
        yield reader, writer
