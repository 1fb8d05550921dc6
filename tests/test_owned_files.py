"""Owned operations that read, write and move the content of files: each by its effect in the world.

Each runs on a ring with the best set-up, on a plain one, and on one with an SQ thread. Those of every day are in
test_owned; how long their memory lives is in test_owned_lifetimes.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import HANG_NS, Pipe, has, pipe, ring

from rawuring import BufferUseError, OutOfOrderError, Ring, UnsupportedError, abi, system

__all__ = ["pipe", "ring"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


# --- reading and writing


def test_parts_of_a_registered_buffer(ring: Ring, path: Path) -> None:
    memory = bytearray(100)
    buffers = ring.register_buffers([memory])
    with path.open("r+b", buffering=0) as file:
        for parts in ([(0, 101)], [(-1, 1)], [(5, 5), (99, 2)]):
            with pytest.raises(BufferUseError, match="not inside"):
                ring.readv_fixed(file, buffers, 0, parts)
        has(ring, abi.Op.READV_FIXED)
        assert ring.readv_fixed(file, buffers, 0, [(50, 3), (10, 2)], 4).wait() == 5
        assert memory == bytes(10) + b"78" + bytes(38) + b"456" + bytes(47)
        assert ring.writev_fixed(file, buffers, 0, [(10, 2), (50, 3)], 0, rw_flags=os.RWF_APPEND).wait() == 5
        assert ring.writev_fixed(file, buffers, 0, [(51, 1)], 0).wait() == 1
    assert path.read_bytes() == b"5123456789" + b"78456"


def test_rw_flags_of_every_write(ring: Ring, path: Path) -> None:
    buffers = ring.register_buffers([bytearray(b"fixed")])
    with path.open("r+b", buffering=0) as file:
        assert ring.write(file, b"a", 0, rw_flags=os.RWF_APPEND).wait() == 1
        assert ring.writev(file, [b"b", b"c"], 0, rw_flags=os.RWF_APPEND).wait() == 2
        assert ring.write_fixed(file, buffers, 0, 0, rw_flags=os.RWF_APPEND).wait() == 5
    assert path.read_bytes() == b"0123456789abcfixed"


def test_a_read_that_would_wait_says_so(ring: Ring, pipe: Pipe) -> None:
    buffers = ring.register_buffers([bytearray(4)])
    for op in (
        ring.read(pipe[0], bytearray(4), rw_flags=os.RWF_NOWAIT),
        ring.readv(pipe[0], [bytearray(4)], rw_flags=os.RWF_NOWAIT),
        ring.read_fixed(pipe[0], buffers, 0, rw_flags=os.RWF_NOWAIT),
    ):
        res, _ = op.wait_cqe(HANG_NS)
        if res == -errno.EOPNOTSUPP:
            pytest.skip("pipes of this kernel know no RWF_NOWAIT")
        assert res == -errno.EAGAIN


def test_read_multishot_until_the_end(ring: Ring, path: Path) -> None:
    has(ring, abi.Op.READ_MULTISHOT)
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as file, open(writer, "wb", buffering=0) as other:
        pool = ring.buffer_ring(2, 16)
        stream = ring.read_multishot(file, pool)
        for i in range(5):
            other.write(b"data%d" % i)
            got = stream.next(HANG_NS)
            assert got is not None and pool.take(*got) == b"data%d" % i
        other.close()
        assert [res for res, _ in stream] == [0] and stream.done
        with path.open("rb") as regular:  # which no poll can wait for
            with pytest.raises(OSError) as failed:
                ring.read_multishot(regular, pool).wait()
            assert failed.value.errno == errno.EBADFD


def test_fsync_of_a_range_and_of_the_data_alone(ring: Ring, path: Path, pipe: Pipe) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(b"dirty")
        assert ring.fsync(file, abi.Fsync.DATASYNC).wait() == 0
        assert ring.fsync(file, offset=2, nbytes=3).wait() == 0
    with pytest.raises(OSError) as failed:
        ring.fsync(pipe[1]).wait()
    assert failed.value.errno == errno.EINVAL


# --- ranges


def test_fallocate_reserves_and_punches(ring: Ring, path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        try:
            assert ring.fallocate(file, 5, 95).wait() == 0
            assert path.read_bytes() == b"0123456789" + bytes(90)
            punch = system.FALLOC_FL_KEEP_SIZE | system.FALLOC_FL_PUNCH_HOLE
            assert ring.fallocate(file, 2, 3, punch).wait() == 0
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            pytest.skip("the file system has no fallocate")
        assert path.read_bytes() == b"01\0\0\x0056789" + bytes(90)


def test_ftruncate(ring: Ring, path: Path) -> None:
    has(ring, abi.Op.FTRUNCATE)
    with path.open("r+b", buffering=0) as file:
        assert ring.ftruncate(file, 4).wait() == 0
        assert path.read_bytes() == b"0123"
        assert ring.ftruncate(file, 6).wait() == 0
    assert path.read_bytes() == b"0123\0\0"


def test_fadvise(ring: Ring, path: Path, pipe: Pipe) -> None:
    with path.open("rb") as file:
        assert ring.fadvise(file, 0, 10, os.POSIX_FADV_WILLNEED).wait() == 0
        with pytest.raises(OSError) as failed:
            ring.fadvise(file, 0, 10, 999).wait()
        assert failed.value.errno == errno.EINVAL
        with pytest.raises(OSError) as failed:
            ring.fadvise(pipe[0], 0, 0, os.POSIX_FADV_NORMAL).wait()
        assert failed.value.errno == errno.ESPIPE
        try:
            assert ring.fadvise(file, 0, 1 << 33, os.POSIX_FADV_WILLNEED).wait() == 0
        except UnsupportedError as error:
            assert error.needs == "6.11"


def test_madvise_gives_memory_up(ring: Ring) -> None:
    page = mmap.PAGESIZE
    with mmap.mmap(-1, 3 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[:] = b"x" * len(memory)
        with memoryview(memory) as view, view[page : 2 * page] as middle:
            assert ring.madvise(middle, mmap.MADV_DONTNEED).wait() == 0
            assert bytes(view) == b"x" * page + bytes(page) + b"x" * page
            for start, stop in ((0, page - 1), (1, page + 1)):
                with pytest.raises(BufferUseError, match="whole pages"):
                    ring.madvise(view[start:stop], mmap.MADV_DONTNEED)
        op = ring.madvise(memory, mmap.MADV_DONTNEED)
        with pytest.raises(BufferError):
            memory.close()
        assert op.wait() == 0 and memory[:] == bytes(3 * page)
        with pytest.raises(OSError) as failed:
            ring.madvise(memory, 9999).wait()
        assert failed.value.errno == errno.EINVAL


def test_madvise_of_a_mapping_that_may_only_be_read(ring: Ring, path: Path) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        assert ring.madvise(memory, mmap.MADV_WILLNEED).wait() == 0
        assert memory[:] == b"0123456789"


def test_sync_file_range(ring: Ring, path: Path, pipe: Pipe) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(b"dirty")
        everything = system.SYNC_FILE_RANGE_WAIT_BEFORE | system.SYNC_FILE_RANGE_WRITE | system.SYNC_FILE_RANGE_WAIT_AFTER
        assert ring.sync_file_range(file, 0, 5, everything).wait() == 0
        for other, how, number in ((file, 1 << 10, errno.EINVAL), (pipe[1], system.SYNC_FILE_RANGE_WRITE, errno.ESPIPE)):
            with pytest.raises(OSError) as failed:
                ring.sync_file_range(other, 0, 0, how).wait()
            assert failed.value.errno == number


def test_splice_between_files_and_a_pipe(ring: Ring, path: Path, pipe: Pipe, tmp_path: Path) -> None:
    reader, writer = pipe
    with path.open("rb", buffering=0) as file, (tmp_path / "copy").open("w+b", buffering=0) as copy:
        assert ring.splice(file, writer, 4, 3).wait() == 4
        assert ring.splice(reader, copy, 4, None, 2).wait() == 4
        assert (tmp_path / "copy").read_bytes() == b"\0\0" + b"3456"
        file.seek(8)
        assert ring.splice(file, writer, 10, splice_flags=os.SPLICE_F_MOVE).wait() == 2
        assert (os.read(reader, 10), file.tell()) == (b"89", 10)
        assert ring.splice(file, writer, 10).wait() == 0, "the end of the file"
        with pytest.raises(OSError) as failed:
            ring.splice(file, copy, 1, 0, 0).wait()
        assert failed.value.errno == errno.EINVAL  # none is a pipe


def test_splice_and_tee_between_slots(ring: Ring, path: Path, pipe: Pipe) -> None:
    reader, writer = pipe
    other_reader, other_writer = os.pipe()
    table = ring.file_table(4)
    with open(other_reader, "rb", buffering=0) as other, open(other_writer, "wb", buffering=0), path.open("rb") as file:
        table.update(0, [file, writer, reader, other_writer])
        assert ring.splice(table[0], table[1], 5, 0).wait() == 5
        assert ring.tee(table[2], table[3], 4).wait() == 4
        assert ring.tee(reader, other_writer, 2).wait() == 2
        assert other.read(10) == b"0123" + b"01"
        assert os.read(reader, 10) == b"01234"
        with pytest.raises(OSError) as failed:
            ring.tee(file, other_writer, 1).wait()
        assert failed.value.errno == errno.EINVAL


def test_an_old_kernel_is_told_by_the_release(ring: Ring, path: Path) -> None:
    with path.open("r+b") as file:
        if ring.supports(abi.Op.FTRUNCATE):
            assert ring.ftruncate(file, 3).wait() == 0
        else:
            with pytest.raises(UnsupportedError, match="needs Linux 6.9"):
                ring.ftruncate(file, 3).wait()


def test_slots_of_another_rings_table_are_refused(ring: Ring, path: Path) -> None:
    ring.file_table(2)
    with Ring(8) as other, path.open("rb") as file:
        slot = other.file_table(2)[0]
        uses: list[Callable[[], object]] = [
            lambda: ring.splice(slot, file, 1), lambda: ring.splice(file, slot, 1), lambda: ring.tee(slot, file, 1),
            lambda: ring.fallocate(slot, 0, 1), lambda: ring.fadvise(slot, 0, 1, 0), lambda: ring.close_fd(slot),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(OutOfOrderError, match="another ring"):
                use()
    assert ring.in_flight == 0
