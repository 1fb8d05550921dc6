"""Files: what reads and writes of every form bring, names, tables, buffers that are used up. On every kind of ring."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import select
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from registering import needing, refused
from support import (
    ALLOC,
    AT_FDCWD,
    HANG_NS,
    Pipe,
    address,
    folder,
    has,
    ints,
    iovecs,
    needs,
    newest,
    path,
    pipe,
    read_slot,
    results,
    ring,
    room,
    take_one,
    text,
    wait_until,
)

from rawuring import Ring, abi, register

CqeFlag, Op, SqeFlag = abi.CqeFlag, abi.Op, abi.SqeFlag
ASYNC, FIXED_FILE, LINK = int(SqeFlag.ASYNC), int(SqeFlag.FIXED_FILE), int(SqeFlag.IO_LINK)
BUFFER_SELECT = int(SqeFlag.BUFFER_SELECT)
BLOCK = 4096
NO_FD = 1 << 20
NOWHERE = 16

__all__ = ["folder", "path", "pipe", "ring"]


def pages(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def pattern(nbytes: int, start: int = 0) -> bytes:
    """Every four bytes tell where they are."""
    return struct.pack(f"={nbytes // 4}I", *range(start, start + nbytes // 4))


# --- reading and writing


class Transfers:
    """Two blocks at a time, in memory of every kind that a request can be told of."""

    FORMS = ("plain", "vectored", "registered", "registered and vectored", "provided")
    NBYTES = 2 * BLOCK

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.memory = pages(self.NBYTES)
        self.addr = address(self.memory)
        register.buffers(ring.fileno(), [(self.addr, self.NBYTES)])
        self.parts = bytearray(struct.pack("=QQQQ", self.addr, BLOCK, self.addr + BLOCK, BLOCK))

    def forms(self, *, reads: bool) -> list[str]:
        there = list(self.FORMS if reads else self.FORMS[:-1])
        if not self.ring.supports(Op.READV_FIXED):
            there.remove("registered and vectored")
        return there

    def write(self, form: str, fd: int, offset: int, content: bytes, sqe_flags: int) -> None:
        sq, where = self.ring.sq, {"user_data": 1, "sqe_flags": sqe_flags}
        self.memory[:] = content
        if form == "plain":
            sq.prep_write(fd, self.addr, self.NBYTES, offset, **where)
        elif form == "vectored":
            sq.prep_writev(fd, address(self.parts), 2, offset, **where)
        elif form == "registered":
            sq.prep_write_fixed(fd, self.addr, self.NBYTES, offset, 0, **where)
        else:
            sq.prep_writev_fixed(fd, address(self.parts), 2, offset, 0, 0, **where)
        assert take_one(self.ring, 1) == (self.NBYTES, 0)

    def read(self, form: str, fd: int, offset: int, sqe_flags: int) -> bytes:
        sq, where = self.ring.sq, {"user_data": 1, "sqe_flags": sqe_flags}
        self.memory[:] = bytes(self.NBYTES)
        expected = 0
        if form == "plain":
            sq.prep_read(fd, self.addr, self.NBYTES, offset, **where)
        elif form == "vectored":
            sq.prep_readv(fd, address(self.parts), 2, offset, **where)
        elif form == "registered":
            sq.prep_read_fixed(fd, self.addr, self.NBYTES, offset, 0, **where)
        elif form == "provided":
            sq.prep_provide_buffers(self.addr, self.NBYTES, 1, 3, 7, user_data=2)
            assert take_one(self.ring, 2)[0] >= 0
            sq.prep_read(fd, 0, self.NBYTES, offset, buf_group=3, user_data=1, sqe_flags=sqe_flags | BUFFER_SELECT)
            expected = CqeFlag.BUFFER | 7 << abi.CQE_BUFFER_SHIFT
        else:
            sq.prep_readv_fixed(fd, address(self.parts), 2, offset, 0, 0, **where)
        assert take_one(self.ring, 1) == (self.NBYTES, expected)
        return bytes(self.memory)


@pytest.mark.behaviour("read-write")
@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])
def test_reads_and_writes_of_every_form(ring: Ring, path: Path, direct: bool) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_DIRECT if direct else 0))
    except OSError as error:
        if error.errno == errno.EINVAL:
            pytest.skip("this file system has no O_DIRECT")
        raise
    event = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        register.files(ring.fileno(), [-1, fd])
        register.eventfd(ring.fileno(), event)
        transfers = Transfers(ring)
        number = 0
        for target, fixed in ((fd, 0), (1, FIXED_FILE)):
            for sqe_flags in (fixed, fixed | ASYNC):
                for form in transfers.forms(reads=False):
                    offset = number % 4 * transfers.NBYTES
                    transfers.write(form, target, offset, pattern(transfers.NBYTES, number), sqe_flags)
                    with open(path, "rb") as file:
                        assert os.pread(file.fileno(), transfers.NBYTES, offset) == pattern(transfers.NBYTES, number)
                    for reading in transfers.forms(reads=True):
                        assert transfers.read(reading, target, offset, sqe_flags) == pattern(transfers.NBYTES, number)
                    number += 1
        assert select.select([event], [], [], HANG_NS / 1e9)[0] == [event]
        assert os.eventfd_read(event) > 0
    finally:
        os.close(event)
        os.close(fd)


@pytest.mark.behaviour("file-verify")
@pytest.mark.parametrize("cached", ["all", "nothing", "half", "written and not synced"])
def test_what_is_read_is_what_is_there(ring: Ring, path: Path, cached: str) -> None:
    nblocks = 16
    transfers = Transfers(ring)
    with path.open("w+b", buffering=0) as file:
        fd = file.fileno()
        file.write(pattern(nblocks * BLOCK))

        def uncache() -> None:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if cached == "half":
                os.pread(fd, nblocks * BLOCK // 2, nblocks * BLOCK // 4)

        for form in transfers.forms(reads=True):
            for sqe_flags in (0, ASYNC):
                if cached in ("nothing", "half"):
                    uncache()
                elif cached == "written and not synced":
                    file.seek(BLOCK)
                    file.write(pattern(BLOCK, BLOCK // 4))
                # In no order that a read-ahead would expect.
                for block in range(0, nblocks, 2):
                    block = block * 5 % nblocks
                    found = transfers.read(form, fd, block * BLOCK, sqe_flags)
                    assert found == pattern(transfers.NBYTES, block * BLOCK // 4)
        # A hole, and what a file that was cut had there before.
        os.truncate(fd, BLOCK // 2)
        os.truncate(fd, nblocks * BLOCK)
        for form in transfers.forms(reads=True):
            found = transfers.read(form, fd, 0, 0)
            assert found == pattern(BLOCK // 2) + bytes(transfers.NBYTES - BLOCK // 2)


@pytest.mark.behaviour("fpos")
def test_a_chain_of_reads_goes_along_the_file(ring: Ring, path: Path) -> None:
    needs(abi.Feature.RW_CUR_POS.since, bool(ring.features & abi.Feature.RW_CUR_POS))
    content = pattern(4000)
    path.write_bytes(content)
    sizes = 1, 7, 998, 0, 1494, 1500
    with path.open("r+b", buffering=0) as file:
        for sqe_flags in (0, ASYNC):
            file.seek(0)
            memory = [room(size) for size in sizes]
            for number, buffer in enumerate(memory):
                addr = address(buffer) if buffer else 0
                links = SqeFlag.IO_HARDLINK if number < len(sizes) - 1 else 0
                ring.sq.prep_read(file.fileno(), addr, len(buffer), -1, user_data=number, sqe_flags=links | sqe_flags)
            assert results(ring, len(sizes)) == dict(enumerate(sizes))
            assert b"".join(memory) == content and file.tell() == 4000
        data = bytearray(b"the end")
        ring.sq.prep_write(file.fileno(), address(data), 4, -1, user_data=1, sqe_flags=LINK)
        ring.sq.prep_write(file.fileno(), address(data) + 4, 3, -1, user_data=2)
        assert results(ring, 2) == {1: 4, 2: 3}
        assert file.tell() == 4007
    assert path.read_bytes() == content + b"the end"


@pytest.mark.pitfall("memory is the kernel's until it says so")
@pytest.mark.behaviour("submit-reuse")
def test_what_a_request_points_to_is_copied_when_it_is_submitted(ring: Ring, pipe: Pipe, path: Path) -> None:
    needs(abi.Feature.SUBMIT_STABLE.since, bool(ring.features & abi.Feature.SUBMIT_STABLE))
    first, second, other = room(3), room(4), room(7)
    vector = iovecs(first, second)
    name = text(str(path))
    ring.sq.prep_readv(pipe[0], address(vector), 2, 0, user_data=1)
    ring.sq.prep_openat(-1, address(name), os.O_CREAT | os.O_RDWR, 0o600, user_data=2, sqe_flags=ASYNC)
    ring.submit()
    wait_until(lambda: not ring.sq.ready)  # an SQ thread has taken them
    vector[:] = iovecs(other, other)
    name[:] = b"/" * len(name)
    os.write(pipe[1], b"onetwo!")
    found = results(ring, 2)
    assert found[1] == 7 and first + second + other == b"onetwo!" + room(7)
    assert path.samefile(f"/proc/self/fd/{found[2]}")
    os.close(found[2])


# --- opening and closing


@pytest.mark.behaviour("open-close")
def test_what_cannot_be_closed(ring: Ring) -> None:
    ring.sq.prep_close(ring.fileno(), user_data=1)
    assert take_one(ring, 1) == (-errno.EBADF, 0)
    needs("5.15", ring)
    ring.sq.prep_close_direct(0, user_data=2)  # there is no table
    assert take_one(ring, 2) == (-errno.ENXIO, 0)
    register.files(ring.fileno(), [-1, -1])
    ring.sq.prep_close_direct(1, user_data=3)
    ring.sq.prep_close_direct(2, user_data=4)
    assert results(ring, 2) == {3: -errno.EBADF, 4: -errno.EINVAL}


@pytest.mark.behaviour("open-close")
def test_a_slot_is_closed_under_a_request(ring: Ring) -> None:
    """Which goes on; the file ends with it."""
    needs("5.15", ring)
    reader, writer = os.pipe()
    memory = room(4)
    with open(writer, "wb", buffering=0):
        register.files(ring.fileno(), [reader])
        os.close(reader)
        ring.sq.prep_read(0, address(memory), 4, 0, user_data=1, sqe_flags=FIXED_FILE)
        ring.sq.prep_close_direct(0, user_data=2)
        assert take_one(ring, 2) == (0, 0)
        os.write(writer, b"data")
        assert take_one(ring, 1) == (4, 0)
        assert memory == b"data"
        poll = select.poll()
        poll.register(writer, 0)
        assert poll.poll(HANG_NS // 10**6) == [(writer, select.POLLERR)]


@pytest.mark.behaviour("open-close")
def test_opening_into_a_slot(ring: Ring, path: Path) -> None:
    needs("5.15", ring)
    register.files(ring.fileno(), [-1, -1])
    path.write_bytes(b"first")
    second = path.with_name("second")
    second.write_bytes(b"second")
    for name in (text(str(path)), text(str(second))):  # the second takes the place of the first
        ring.sq.prep_openat_direct(AT_FDCWD, address(name), os.O_RDONLY, 0, 1, user_data=1)
        assert take_one(ring, 1) == (0, 0)
        assert read_slot(ring, 1) == Path(os.fsdecode(bytes(name[:-1]))).read_bytes()
    # A slot has no close-on-exec flag, and is one of the table.
    ring.sq.prep_openat_direct(AT_FDCWD, address(name), os.O_RDONLY | os.O_CLOEXEC, 0, 1, user_data=2)
    ring.sq.prep_openat_direct(AT_FDCWD, address(name), os.O_RDONLY, 0, 2, user_data=3)
    ring.sq.prep_openat(AT_FDCWD, NOWHERE, os.O_RDONLY, 0, user_data=4)
    assert results(ring, 3) == {2: -errno.EINVAL, 3: -errno.EINVAL, 4: -errno.EFAULT}
    assert read_slot(ring, 1) == b"second"


@pytest.mark.behaviour("openat2")
def test_how_a_file_cannot_be_opened(ring: Ring, path: Path, folder: int) -> None:
    path.write_bytes(b"content")
    path.with_name("link").symlink_to(path)
    name, link = text(path.name), text("link")
    no_symlinks, cached = 0x04, 0x20

    def opened(how: bytearray, name: bytearray = name, nbytes: int = abi.OPEN_HOW.nbytes) -> int:
        ring.sq.prep_rw(Op.OPENAT2, folder, address(name), nbytes, address(how), user_data=1)
        res, _ = take_one(ring, 1)
        if res >= 0:
            os.close(res)
        return min(res, 0)

    good = abi.OPEN_HOW.pack(flags=os.O_RDONLY)
    assert opened(good) == opened(good, link) == 0
    assert opened(abi.OPEN_HOW.pack(flags=os.O_RDONLY, resolve=no_symlinks), link) == -errno.ELOOP
    assert opened(abi.OPEN_HOW.pack(flags=os.O_RDONLY, resolve=1 << 40)) == -errno.EINVAL
    assert opened(abi.OPEN_HOW.pack(flags=1 << 40)) == -errno.EINVAL
    # An older structure is too small, a newer one must have nothing in what is not known.
    assert opened(good, nbytes=8) == -errno.EINVAL
    assert opened(good + bytes(8), nbytes=32) == 0
    assert opened(good + b"12345678", nbytes=32) == -errno.E2BIG
    if newest(ring) >= (5, 12):
        assert opened(abi.OPEN_HOW.pack(flags=os.O_RDONLY, resolve=cached)) in (0, -errno.EAGAIN)


# --- moving pages


@pytest.mark.behaviour("splice")
def test_what_cannot_be_spliced(ring: Ring, path: Path, pipe: Pipe) -> None:
    reader, writer = pipe
    other_reader, other_writer = os.pipe()
    path.write_bytes(b"0123456789")
    os.write(writer, b"there")
    with path.open("r+b") as file, open(other_reader, "rb", buffering=0) as other, open(other_writer, "wb"):
        fd = file.fileno()
        refusals: list[tuple[Callable[..., None], tuple[int, ...], int]] = [
            (ring.sq.prep_splice, (fd, 0, fd, 5, 5, 0), errno.EINVAL),
            (ring.sq.prep_splice, (reader, 3, fd, 0, 5, 0), errno.ESPIPE),
            (ring.sq.prep_splice, (fd, 0, writer, 3, 5, 0), errno.ESPIPE),
            (ring.sq.prep_splice, (reader, -1, writer, -1, 5, 0), errno.EINVAL),
            (ring.sq.prep_splice, (NO_FD, -1, writer, -1, 5, 0), errno.EBADF),
            (ring.sq.prep_splice, (reader, -1, fd, 0, 5, 1 << 10), errno.EINVAL),
            (ring.sq.prep_tee, (fd, writer, 5, 0), errno.EINVAL),
            (ring.sq.prep_tee, (reader, fd, 5, 0), errno.EINVAL),
            (ring.sq.prep_tee, (NO_FD, writer, 5, 0), errno.EBADF),
        ]
        for number, (prep, arguments, code) in enumerate(refusals):
            prep(*arguments, user_data=number)
            assert take_one(ring, number) == (-code, 0), arguments
        # Nothing of nothing, and from pipe to pipe.
        ring.sq.prep_splice(reader, -1, other_writer, -1, 0, 0, user_data=100)
        ring.sq.prep_tee(reader, other_writer, 0, 0, user_data=101)
        assert results(ring, 2) == {100: 0, 101: 0}
        ring.sq.prep_splice(reader, -1, other_writer, -1, 3, 0, user_data=102)
        assert take_one(ring, 102) == (3, 0)
        assert (other.read(10), os.read(reader, 10)) == (b"the", b"re")
    assert path.read_bytes() == b"0123456789"


# --- names


@pytest.mark.behaviour("rename", "unlink", "mkdir", "symlink", "hardlink")
def test_names_in_what_is_no_directory(ring: Ring, path: Path, folder: int, pipe: Pipe) -> None:
    has(ring, Op.LINKAT)
    path.touch()
    there, missing = address(name := text(path.name)), address(gone := text("missing"))
    requests: dict[str, Callable[[int, int], None]] = {
        "rename from": lambda fd, user_data: ring.sq.prep_renameat(fd, there, folder, there, 0, user_data=user_data),
        "rename to": lambda fd, user_data: ring.sq.prep_renameat(folder, there, fd, missing, 0, user_data=user_data),
        "unlink": lambda fd, user_data: ring.sq.prep_unlinkat(fd, there, 0, user_data=user_data),
        "mkdir": lambda fd, user_data: ring.sq.prep_mkdirat(fd, missing, 0o700, user_data=user_data),
        "symlink": lambda fd, user_data: ring.sq.prep_symlinkat(there, fd, missing, user_data=user_data),
        "link from": lambda fd, user_data: ring.sq.prep_linkat(fd, there, folder, missing, 0, user_data=user_data),
        "link to": lambda fd, user_data: ring.sq.prep_linkat(folder, there, fd, missing, 0, user_data=user_data),
    }
    with path.open("rb") as file:
        for what, request in requests.items():
            for fd, code in ((NO_FD, errno.EBADF), (pipe[0], errno.ENOTDIR), (file.fileno(), errno.ENOTDIR)):
                request(fd, 1)
                assert take_one(ring, 1) == (-code, 0), what
    ring.sq.prep_renameat(folder, missing, folder, there, 0, user_data=2)
    ring.sq.prep_unlinkat(folder, missing, 0, user_data=3)
    ring.sq.prep_linkat(folder, missing, folder, there, 0, user_data=4)
    ring.sq.prep_symlinkat(missing, folder, there, user_data=5)
    ring.sq.prep_mkdirat(folder, there, 0o700, user_data=6)
    assert results(ring, 5) == dict.fromkeys((2, 3, 4), -errno.ENOENT) | dict.fromkeys((5, 6), -errno.EEXIST)
    assert os.listdir(path.parent) == [path.name] and name and gone


# --- tables


@pytest.mark.behaviour("file-register")
def test_a_table_that_is_refused_in_part(ring: Ring, pipe: Pipe) -> None:
    fd = ring.fileno()
    with refused(errno.EBADF):
        register.files(fd, [pipe[0], NO_FD, pipe[1]])
    with refused(errno.ENXIO):
        register.unregister_files(fd)
    register.files(fd, [-1, -1, -1])
    # What was done before the bad one stays, and is counted.
    assert register.files_update(fd, 0, [pipe[0], NO_FD, pipe[1]]) == 1
    os.write(pipe[1], b"x")
    memory = room(1)
    ring.sq.prep_read(0, address(memory), 1, 0, user_data=1, sqe_flags=FIXED_FILE)
    assert take_one(ring, 1) == (1, 0)
    ring.sq.prep_write(2, address(memory), 1, 0, user_data=2, sqe_flags=FIXED_FILE)
    assert take_one(ring, 2) == (-errno.EBADF, 0)
    with refused(errno.EBADF):
        register.files_update(fd, 1, [NO_FD])


@pytest.mark.behaviour("file-register")
def test_a_table_has_as_many_slots_as_a_process_may_have_files(ring: Ring) -> None:
    needs("5.15", ring)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with refused(errno.EMFILE):
            register.files_sparse(ring.fileno(), limit + 1)
        register.files_sparse(ring.fileno(), limit)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.behaviour("file-register", "open-direct-pick")
def test_slots_are_picked_in_turn_and_again(ring: Ring, path: Path) -> None:
    needs("5.19", ring)
    path.write_bytes(b"content")
    register.files_sparse(ring.fileno(), 4)
    name = text(str(path))

    def opened() -> int:
        ring.sq.prep_openat_direct(AT_FDCWD, address(name), os.O_RDONLY, 0, ALLOC, user_data=1)
        return take_one(ring, 1)[0]

    for _ in range(3):
        assert {opened() for _ in range(4)} == {0, 1, 2, 3}
        assert opened() == -errno.ENFILE
        # The one that becomes free is the next.
        for slot in (2, 0):
            ring.sq.prep_close_direct(slot, user_data=2)
            assert take_one(ring, 2) == (0, 0)
            assert opened() == slot
        gone = ints(-1, -1, -1, -1)
        ring.sq.prep_files_update(address(gone), 4, 0, user_data=3)
        assert take_one(ring, 3) == (4, 0)


@pytest.mark.behaviour("fd-install")
def test_what_no_fd_can_be_made_of(ring: Ring, pipe: Pipe) -> None:
    has(ring, Op.FIXED_FD_INSTALL)
    register.files(ring.fileno(), [pipe[0], -1])
    before = len(os.listdir("/proc/self/fd"))
    for slot, install_fd_flags, code in ((0, 1 << 5, errno.EINVAL), (1, 0, errno.EBADF), (2, 0, errno.EBADF)):
        ring.sq.prep_fixed_fd_install(slot, install_fd_flags, user_data=1)
        assert take_one(ring, 1) == (-code, 0)
    ring.sq.prep_rw(Op.FIXED_FD_INSTALL, pipe[0], 0, 0, 0, user_data=2)  # of an fd, not of a slot
    assert take_one(ring, 2) == (-errno.EBADF, 0)
    assert len(os.listdir("/proc/self/fd")) == before


# --- buffers that are used up


@pytest.fixture
def entries() -> Iterator[mmap.mmap]:
    """The memory of a buffer ring."""
    yield pages(mmap.PAGESIZE)


@pytest.mark.behaviour("read-inc-file")
def test_a_file_is_read_into_buffers_bit_by_bit(ring: Ring, path: Path, entries: mmap.mmap) -> None:
    content = pattern(160)
    path.write_bytes(content)
    buffers = {5: room(50), 6: room(100)}
    for place, (bid, buffer) in enumerate(buffers.items()):
        struct.pack_into("=QIH", entries, place * 16, address(buffer), len(buffer), bid)
    with needing(abi.PbufRing.INC.since):
        register.pbuf_ring(ring.fileno(), address(entries), 2, 1, abi.PbufRing.INC)
    tail_at = abi.IO_URING_BUF_RING.fields["tail"].offset
    entries[tail_at : tail_at + 2] = struct.pack("=H", 2)
    filled = {5: 0, 6: 0}
    offset = 0
    said, true = list[bool](), list[bool]()
    with path.open("rb", buffering=0) as file:
        # What is left of the buffer, what was asked for, what is left of the file: the least of them.
        for nbytes, res, bid, more in (
            (40, 40, 5, True), (40, 10, 5, False), (60, 60, 6, True), (100, 40, 6, False),
            (10, -errno.ENOBUFS, 0, False),
        ):  # fmt: skip
            ring.sq.prep_read(file.fileno(), 0, nbytes, offset, buf_group=1, user_data=1, sqe_flags=BUFFER_SELECT)
            found, cqe_flags = take_one(ring, 1)
            assert found == res
            said.append(bool(cqe_flags & CqeFlag.BUF_MORE))
            true.append(more)
            if res > 0:
                assert cqe_flags & CqeFlag.BUFFER and cqe_flags >> abi.CQE_BUFFER_SHIFT == bid
                at = filled[bid]
                assert buffers[bid][at : at + res] == content[offset : offset + res]
                filled[bid] += res
                offset += res
    assert filled == {5: 50, 6: 100}
    if newest(ring) < (7, 0) and not any(said):
        pytest.skip("needs Linux 7.0, or a later one of 6.12 and 6.18: here no read of a file says BUF_MORE")
    assert said == true
