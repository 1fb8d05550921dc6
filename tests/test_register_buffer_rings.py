"""Provided-buffer rings on live rings: errors, the kernel's memory, used-up counts, incremental use."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct

import pytest
from registering import needing, refused
from support import Pipe, RawBufferRing, address, needs, pipe, ring, room, take_one

from rawuring import RawuringError, Ring, abi, register, syscalls
from rawuring.atomics import Word16

BUFFER_SELECT = int(abi.SqeFlag.BUFFER_SELECT)
BUFFER, BUF_MORE = abi.CqeFlag.BUFFER, abi.CqeFlag.BUF_MORE

__all__ = ["pipe", "ring"]


@pytest.mark.behaviour("buf-ring")
def test_pbuf_ring_errors(ring: Ring) -> None:
    needs("5.19", ring)
    pool = RawBufferRing(ring, 3, 4)
    for addr, entries, bgid, code in (
        (pool.addr, 4, 3, errno.EEXIST),
        (pool.addr, 3, 4, errno.EINVAL),
        (pool.addr + 16, 4, 4, errno.EINVAL),
    ):
        with refused(code):
            register.pbuf_ring(ring.fileno(), addr, entries, bgid)


def there_is_none(ring: Ring, bgid: int) -> None:
    with pytest.raises(OSError) as caught:
        register.unregister_pbuf_ring(ring.fileno(), bgid)
    assert caught.value.errno in (errno.ENOENT, errno.EINVAL)


def test_unregistering_a_group_ends_it(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Register.PBUF_RING.since, ring)
    pool = RawBufferRing(ring, 3, 4)
    register.unregister_pbuf_ring(ring.fileno(), 3)
    there_is_none(ring, 3)
    os.write(pipe[1], b"x")
    ring.sq.prep_read(pipe[0], 0, 64, 0, buf_group=3, sqe_flags=BUFFER_SELECT, user_data=1)
    assert take_one(ring, 1) == (-errno.ENOBUFS, 0)
    assert pool.addr


@pytest.mark.behaviour("ringbuf-status")
def test_the_head_counts_what_is_used_up(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Register.PBUF_STATUS.since, ring)
    pool = RawBufferRing(ring, 3, 4)
    fd = ring.fileno()
    # 70,000 would take too long to show that it wraps at 2**16; 6 that it is no position in the ring of 4.
    for used in range(6):
        assert register.buf_ring_head(fd, 3) == used
        os.write(pipe[1], b"data")
        ring.sq.prep_read(pipe[0], 0, 64, 0, buf_group=3, sqe_flags=BUFFER_SELECT, user_data=1)
        bid, content = pool.content(*take_one(ring, 1))
        assert (bid, content) == (used % 4, b"data")
        pool.give(bid)
    with refused(errno.ENOENT):
        register.buf_ring_head(fd, 4)


@pytest.mark.behaviour("ringbuf-status")
def test_a_group_of_the_legacy_kind_has_no_head(ring: Ring) -> None:
    needs(abi.Register.PBUF_STATUS.since, ring)
    memory = room(64)
    ring.sq.prep_provide_buffers(address(memory), 64, 1, 5, 0, user_data=1)
    assert take_one(ring, 1)[0] >= 0
    with refused(errno.EINVAL):
        register.buf_ring_head(ring.fileno(), 5)


def give(entries: memoryview, tail: int, buffer: bytearray, bid: int) -> None:
    """Put one buffer into place `tail` of a ring, and say so."""
    struct.pack_into("=QIH", entries, tail * 16, address(buffer), len(buffer), bid)
    word = Word16(entries, abi.IO_URING_BUF_RING.fields["tail"].offset)
    word.store_release(tail + 1)
    word.release()


@pytest.mark.behaviour("buf-ring")
def test_a_buffer_ring_in_the_kernels_memory(ring: Ring, pipe: Pipe) -> None:
    fd, buffer = ring.fileno(), room(32)
    # More than a page of entries.
    count = mmap.PAGESIZE // 8
    with needing(abi.PbufRing.MMAP.since):
        addr, nbytes = register.map_pbuf_ring(fd, count, 7)
    assert nbytes == count * 16
    try:
        entries = memoryview((ctypes.c_char * nbytes).from_address(addr)).cast("B")
        give(entries, 0, buffer, 11)
        os.write(pipe[1], b"mapped")
        ring.sq.prep_read(pipe[0], 0, 32, 0, buf_group=7, sqe_flags=BUFFER_SELECT, user_data=1)
        assert take_one(ring, 1) == (6, BUFFER | 11 << abi.CQE_BUFFER_SHIFT)
        assert buffer[:6] == b"mapped"
        with refused(errno.EEXIST):
            register.map_pbuf_ring(fd, count, 7)
    finally:
        register.unregister_pbuf_ring(fd, 7)
        syscalls.munmap(addr, nbytes)
    with refused(errno.EINVAL):
        register.map_pbuf_ring(fd, 3, 7)


def test_what_cannot_be_mapped_is_not_registered(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> int:
        raise OSError(errno.ENOMEM, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "mmap", no_memory)
        with refused(errno.ENOMEM, "no room"), needing(abi.PbufRing.MMAP.since):
            register.map_pbuf_ring(ring.fileno(), 4, 7)
    there_is_none(ring, 7)


def test_a_registered_index_is_no_way_to_the_kernels_memory() -> None:
    with pytest.raises(RawuringError, match="use the ring's fd"):
        register.map_pbuf_ring(register.RingIndex(0), 4, 7)


def test_an_incremental_buffer_is_used_up_bit_by_bit(ring: Ring, pipe: Pipe) -> None:
    fd, first, second = ring.fileno(), room(8), room(8)
    entries = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with needing(abi.PbufRing.INC.since):
        register.pbuf_ring(fd, address(entries), 2, 7, abi.PbufRing.INC)
    give(memoryview(entries), 0, first, 1)
    give(memoryview(entries), 1, second, 2)

    def received(data: bytes) -> tuple[int, int, bool]:
        os.write(pipe[1], data)
        ring.sq.prep_read(pipe[0], 0, len(data), 0, buf_group=7, sqe_flags=BUFFER_SELECT, user_data=1)
        res, cqe_flags = take_one(ring, 1)
        return res, cqe_flags >> abi.CQE_BUFFER_SHIFT, bool(cqe_flags & BUF_MORE)

    assert received(b"abc") == (3, 1, True)
    assert received(b"def") == (3, 1, True)
    assert register.buf_ring_head(fd, 7) == 0
    assert received(b"gh") == (2, 1, False)
    assert register.buf_ring_head(fd, 7) == 1
    assert received(b"IJ") == (2, 2, True)
    assert (bytes(first), bytes(second[:2])) == (b"abcdefgh", b"IJ")
    register.unregister_pbuf_ring(fd, 7)
    with refused(errno.EINVAL):
        register.pbuf_ring(fd, address(entries), 2, 7, min_left=1)  # of incremental buffers only


def test_an_incremental_buffer_with_little_room_left_is_not_used_further(ring: Ring, pipe: Pipe) -> None:
    fd, first = ring.fileno(), room(8)
    entries = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with needing("7.1"):
        register.pbuf_ring(fd, address(entries), 2, 7, abi.PbufRing.INC, min_left=4)
    give(memoryview(entries), 0, first, 1)
    for data, more in ((b"abc", True), (b"de", False)):
        os.write(pipe[1], data)
        ring.sq.prep_read(pipe[0], 0, len(data), 0, buf_group=7, sqe_flags=BUFFER_SELECT, user_data=1)
        res, cqe_flags = take_one(ring, 1)
        assert (res, bool(cqe_flags & BUF_MORE)) == (len(data), more)
    register.unregister_pbuf_ring(fd, 7)
