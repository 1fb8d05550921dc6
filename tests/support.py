"""What the tests of live rings share. Imports rawuring, so that a broken import fails those tests alone."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from emulation import HANG_NS as HANG_NS
from emulation import PATIENCE

from rawuring import Ring, RingSetupError, abi, register
from rawuring.atomics import Word16
from rawuring.buffers import BufferRing

Cqe = tuple[int, int, int]
Pipe = tuple[int, int]
Pair = tuple[socket.socket, socket.socket]

AT_FDCWD, ALLOC = abi.AT_FDCWD, abi.FILE_INDEX_ALLOC
FUTEX = abi.Futex2.SIZE_U32 | abi.Futex2.PRIVATE
ANY_BIT = abi.FUTEX_BITSET_MATCH_ANY

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


def has(ring: Ring, op: abi.Op) -> None:
    """Skip the test unless this kernel has the operation."""
    needs(op.since, ring.supports(op))


def errno_of(operation: Any) -> int:
    """What the operation fails with."""
    res, _ = operation.wait_cqe(HANG_NS)
    assert res < 0, f"{operation} should have failed"
    return int(-res)


def granted(flags: abi.Setup, entries: int = 8, **options: int) -> Ring:
    """A ring with these flags, or a skip where this kernel lacks one of them."""
    try:
        return Ring(entries, flags, **options)  # type: ignore[arg-type]
    except RingSetupError as error:
        newest = max((flag.since for flag in abi.Setup if flags & flag), key=release_of)
        needs("5.13" if error.errno == errno.EPERM else newest, error.errno not in (errno.EINVAL, errno.EPERM))
        raise


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


def text(content: str) -> bytearray:
    """A zero-terminated string."""
    return bytearray(content.encode() + b"\0")


def ints(*values: int) -> bytearray:
    return bytearray(struct.pack(f"={len(values)}i", *values))


def unpacked(buffer: bytearray) -> tuple[int, ...]:
    return struct.unpack(f"={len(buffer) // 4}i", buffer)


def aligned(buffer: mmap.mmap, index: int) -> int:
    """The address of one 32-bit word of a page."""
    return address(buffer) + 4 * index


def sockaddr(host: str, port: int) -> bytearray:
    return abi.SOCKADDR_IN.pack(sin_family=socket.AF_INET, sin_port=port, sin_addr=socket.inet_aton(host))


def parsed(name: bytearray) -> tuple[str, int]:
    fields = abi.SOCKADDR_IN.unpack(name)
    assert fields["sin_family"] == socket.AF_INET
    return socket.inet_ntoa(fields["sin_addr"]), fields["sin_port"]


def udp_pair() -> Pair:
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (one, other):
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(HANG_NS / 1e9)
    return one, other


def wait_until(condition: Callable[[], bool]) -> None:
    """Look every 2 ms until it is so."""
    deadline = time.monotonic_ns() + HANG_NS
    while not condition():
        assert time.monotonic_ns() < deadline, "waited in vain"
        time.sleep(0.002)


def nops(ring: Ring, *user_data: int) -> None:
    for one in user_data:
        ring.sq.prep_nop(user_data=one)


def prep_nop32(ring: Ring, user_data: int, big: tuple[int, int]) -> None:
    """A NOP whose CQE is 32 bytes: off and addr come back in big_cqe."""
    ring.sq._encode(abi.Op.NOP, -1, big[0], big[1], 0, abi.Nop.CQE32, user_data, 0)


def arm(ring: Ring, fd: int, *user_data: int, sqe_flags: int = 0) -> None:
    """Queue polls that never complete by themselves."""
    for one in user_data:
        ring.sq.prep_poll_add(fd, select.POLLPRI, user_data=one, sqe_flags=sqe_flags)


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


def shorten(pool: BufferRing, slot: int, nbytes: int) -> None:
    """Do to an entry of the ring what a bundle does before Linux 7.1 when it means to fill no more of the buffer."""
    pool._lens[slot] = nbytes


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


def read_slot(ring: Ring, slot: int) -> bytes:
    memory = room(100)
    ring.sq.prep_read(slot, address(memory), 100, 0, sqe_flags=abi.SqeFlag.FIXED_FILE, user_data=900)
    res, _ = take_one(ring, 900)
    assert res >= 0, os.strerror(-res)
    return bytes(memory[:res])


class Alarm:
    """SIGALRM every 20 ms. Repeated, so that one in the gap before the system call does no harm.

    A handler must have returned before the next: under emulation that takes longer.
    """

    def __init__(self, handler: Callable[[int], None]) -> None:
        self.count = 0
        self.handler = handler

    def __enter__(self) -> Alarm:
        self.before = signal.signal(signal.SIGALRM, self.ring)
        signal.setitimer(signal.ITIMER_REAL, 0.02 * PATIENCE, 0.02 * PATIENCE)
        return self

    def ring(self, *_: object) -> None:
        self.count += 1
        self.handler(self.count)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A directory fd of `tmp_path`."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        one.settimeout(HANG_NS / 1e9)
        other, _ = server.accept()
        with other:
            other.settimeout(HANG_NS / 1e9)
            yield one, other


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def futexes() -> Iterator[mmap.mmap]:
    """A page of 32-bit words. They are 1, 2, 3, ..."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:16] = struct.pack("=4I", 1, 2, 3, 4)
    yield memory
    memory.close()


@pytest.fixture
def block_device(path: Path) -> Iterator[int]:
    """A block device made of a file."""
    loop_ctl_get_free, loop_set_fd, loop_clr_fd = 0x4C82, 0x4C00, 0x4C01
    path.write_bytes(b"x" * (1 << 20))
    try:
        control = os.open("/dev/loop-control", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"needs a loop device: {error}")
    try:
        number = fcntl.ioctl(control, loop_ctl_get_free)
        device = os.open(f"/dev/loop{number}", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"needs a loop device: {error}")
    finally:
        os.close(control)
    try:
        with path.open("r+b") as file:
            try:
                fcntl.ioctl(device, loop_set_fd, file.fileno())
            except OSError as error:
                pytest.skip(f"needs a loop device: {error}")
        try:
            yield device
        finally:
            fcntl.ioctl(device, loop_clr_fd)
    finally:
        os.close(device)
