"""File and buffer tables of live rings: tags, updates, clones, and the slots that the kernel may pick."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from registering import needing, refused
from support import Pipe, address, needs, newest, pipe, results, ring, room, take, take_one

from rawuring import RawuringError, Ring, abi, register, syscalls

FIXED_FILE = int(abi.SqeFlag.FIXED_FILE)

# An SQ thread may take a request after the file it names has been replaced.
NO_SQ_THREAD = pytest.mark.parametrize("ring", ["best", "plain"], indirect=True)

__all__ = ["pipe", "ring"]


# --- files


@pytest.mark.behaviour("file-register")
def test_files_and_their_update(ring: Ring, pipe: Pipe) -> None:
    fd = ring.fileno()
    reader, writer = pipe
    register.files(fd, [writer, -1, reader])
    with refused(errno.EBUSY):
        register.files(fd, [writer])
    out, back = bytearray(b"slots"), room(5)

    def through(write_slot: int, read_slot: int) -> tuple[int, int]:
        ring.sq.prep_write(write_slot, address(out), 5, 0, sqe_flags=FIXED_FILE, user_data=1)
        wrote = take_one(ring, 1)[0]
        if wrote < 0:
            return wrote, 0
        ring.sq.prep_read(read_slot, address(back), 5, 0, sqe_flags=FIXED_FILE, user_data=2)
        return wrote, take_one(ring, 2)[0]

    assert through(0, 2) == (5, 5)
    assert back == out
    assert through(1, 2) == (-errno.EBADF, 0)
    skip = abi.REGISTER_FILES_SKIP if newest(ring) >= (5, 12) else writer
    assert register.files_update(fd, 0, [skip, writer]) == 2
    assert through(1, 2) == (5, 5)
    assert through(0, 2) == (5, 5)
    assert register.files_update(fd, 0, [-1]) == 1
    assert through(0, 2) == (-errno.EBADF, 0)
    with refused(errno.EINVAL):
        register.files_update(fd, 3, [writer])
    register.unregister_files(fd)
    assert through(1, 2) == (-errno.EBADF, 0)
    with refused(errno.ENXIO):
        register.unregister_files(fd)
    with refused(errno.ENXIO):
        register.files_update(fd, 0, [writer])


@pytest.mark.behaviour("file-register")
@pytest.mark.parametrize("old_kernel", [False, True])
def test_files_sparse(ring: Ring, old_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if old_kernel:
        real = syscalls.register

        def without_files2(fd: int, opcode: int, arg_addr: int | None, nr_args: int) -> int:
            if opcode == abi.Register.FILES2:
                raise OSError(errno.EINVAL, "as before Linux 5.13")
            return real(fd, opcode, arg_addr, nr_args)

        monkeypatch.setattr(syscalls, "register", without_files2)
    event = os.eventfd(7)
    try:
        register.files_sparse(ring.fileno(), 10)
        assert register.files_update(ring.fileno(), 9, [event]) == 1
        memory = room(8)
        ring.sq.prep_read(9, address(memory), 8, 0, sqe_flags=FIXED_FILE, user_data=1)
        assert take_one(ring, 1)[0] == 8
        assert int.from_bytes(memory, sys.byteorder) == 7
        ring.sq.prep_read(0, address(memory), 8, 0, sqe_flags=FIXED_FILE, user_data=2)
        assert take_one(ring, 2)[0] == -errno.EBADF
    finally:
        os.close(event)


@pytest.mark.behaviour("rsrc_tags")
@NO_SQ_THREAD
def test_a_files_tag_tells_that_nothing_uses_the_file_any_more(ring: Ring, pipe: Pipe) -> None:
    fd = ring.fileno()
    reader, writer = pipe
    with needing(abi.Register.FILES2.since):
        register.files_tags(fd, [reader, writer, -1], [101, 102, 0])
    assert register.files_update_tag(fd, 1, [-1, writer], [0, 103]) == 2
    assert take_one(ring, 102) == (0, 0)

    memory = room(3)
    ring.sq.prep_read(0, address(memory), 3, 0, sqe_flags=FIXED_FILE, user_data=1)
    ring.submit()
    assert register.files_update_tag(fd, 0, [writer]) == 1
    ring.submit_and_wait(0)
    assert ring.completions() == []
    os.write(writer, b"end")
    assert results(ring, 2) == {1: 3, 101: 0}
    assert memory == b"end"

    # What has no tag goes in silence.
    assert register.files_update_tag(fd, 0, [-1]) == 1
    assert register.files_update(fd, 2, [-1]) == 1
    assert take_one(ring, 103) == (0, 0)
    with refused(errno.EINVAL):
        register.files_update_tag(fd, 0, [-1], [104])


@pytest.mark.behaviour("file-register", "open-direct-pick")
def test_the_kernel_picks_slots_inside_the_range(ring: Ring) -> None:
    needs(abi.Register.FILE_ALLOC_RANGE.since, ring)
    fd, path = ring.fileno(), bytearray(b"/dev/null\0")
    register.files_sparse(fd, 8)
    register.file_alloc_range(fd, 5, 2)

    def opened() -> int:
        ring.sq.prep_openat_direct(-1, address(path), os.O_RDONLY, 0, abi.FILE_INDEX_ALLOC, user_data=1)
        return take_one(ring, 1)[0]

    assert {opened(), opened()} == {5, 6}
    assert opened() == -errno.ENFILE
    register.file_alloc_range(fd, 0, 1)
    assert opened() == 0
    with refused(errno.EINVAL):
        register.file_alloc_range(fd, 4, 5)
    with refused(errno.EOVERFLOW):
        register.file_alloc_range(fd, 4, 2**32 - 1)


# --- buffers


@pytest.mark.behaviour("rsrc_tags")
@NO_SQ_THREAD
def test_a_buffers_tag_tells_that_the_memory_is_free(ring: Ring, pipe: Pipe) -> None:
    fd = ring.fileno()
    reader, writer = pipe
    old, new = room(64), room(64)
    with needing(abi.Register.BUFFERS2.since):
        register.buffers_tags(fd, [(address(old), 64), (0, 0)], [201, 0])
    ring.sq.prep_read_fixed(reader, address(old), 3, 0, 0, user_data=1)
    ring.submit()
    assert register.buffers_update_tag(fd, 0, [(address(new), 64), (address(new), 64)], [202, 203]) == 2
    ring.submit_and_wait(0)
    assert ring.completions() == []
    os.write(writer, b"oldnew")
    assert results(ring, 2) == {1: 3, 201: 0}
    ring.sq.prep_read_fixed(reader, address(new), 3, 0, 1, user_data=2)
    assert take_one(ring, 2)[0] == 3
    assert bytes(old[:3] + new[:3]) == b"oldnew"

    # An empty region empties the place.
    assert register.buffers_update_tag(fd, 0, [(0, 0)]) == 1
    assert take_one(ring, 202) == (0, 0)
    ring.sq.prep_read_fixed(reader, address(new), 3, 0, 0, user_data=3)
    assert take_one(ring, 3)[0] == -errno.EFAULT
    with refused(errno.EINVAL):
        register.buffers_update_tag(fd, 0, [(0, 0)], [204])
    with refused(errno.EINVAL):
        register.buffers_update_tag(fd, 1, [(0, 0), (0, 0)])
    with refused(errno.EFAULT):
        register.buffers_update_tag(fd, 0, [(address(new), 0)])


def test_buffers_sparse(ring: Ring, pipe: Pipe) -> None:
    fd, memory = ring.fileno(), room(64)
    with needing("5.13"):
        register.buffers_sparse(fd, 3)
    os.write(pipe[1], b"place 2")
    ring.sq.prep_read_fixed(pipe[0], address(memory), 7, 0, 2, user_data=1)
    assert take_one(ring, 1)[0] == -errno.EFAULT
    assert register.buffers_update_tag(fd, 2, [(address(memory), 64)]) == 1
    ring.sq.prep_read_fixed(pipe[0], address(memory), 7, 0, 2, user_data=2)
    assert take_one(ring, 2)[0] == 7
    assert memory[:7] == b"place 2"
    with refused(errno.EBUSY):
        register.buffers_sparse(fd, 3)
    register.unregister_buffers(fd)
    with refused(errno.ENXIO):
        register.unregister_buffers(fd)
    with refused(errno.ENXIO):
        register.buffers_update_tag(fd, 0, [(0, 0)])


@pytest.mark.parametrize("verb", ["files_tags", "buffers_tags"])
def test_each_entry_has_its_tag_or_none_has(verb: str) -> None:
    # The kernel would read on behind a list that is too short.
    for tags in ([1], [1, 2, 3]):
        with pytest.raises(RawuringError, match=f"{len(tags)} tags for 2 entries"):
            getattr(register, verb)(-1, [(0, 0), (0, 0)] if "buffers" in verb else [0, 0], tags)


class Table:
    """A ring with one page of memory registered as two buffers of 8 bytes, and what reads them into a file."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.ring = Ring(8)
        self.memory = bytearray(content)
        self.path = path
        at = address(self.memory)
        register.buffers(self.ring.fileno(), [(at, 8), (at + 8, 8)])

    def written_by(self, ring: Ring, index: int, part: int) -> bytes | int:
        """What `ring` writes of buffer `index`, at the address of buffer `part` of this table; or -errno."""
        with open(self.path, "wb") as file:
            ring.sq.prep_write_fixed(file.fileno(), address(self.memory) + 8 * part, 8, 0, index, user_data=1)
            res = take_one(ring, 1)[0]
        return self.path.read_bytes() if res == 8 else res


@pytest.mark.behaviour("regbuf-clone")
def test_cloned_buffers(tmp_path: Path) -> None:
    source = Table(tmp_path / "out", b"buffer 0BUFFER 1")
    with source.ring, Ring(8) as ring:
        with needing(abi.Register.CLONE_BUFFERS.since):
            register.clone_buffers(ring.fileno(), source.ring.fileno())
        assert source.written_by(ring, 0, 0) == b"buffer 0"
        assert source.written_by(ring, 1, 1) == b"BUFFER 1"
        with refused(errno.EBUSY):
            register.clone_buffers(ring.fileno(), source.ring.fileno())
        # Each ring drops its own.
        register.unregister_buffers(source.ring.fileno())
        assert source.written_by(ring, 0, 0) == b"buffer 0"
        register.unregister_buffers(ring.fileno())
        assert source.written_by(ring, 0, 0) == -errno.EFAULT
        with refused(errno.ENXIO):
            register.clone_buffers(ring.fileno(), source.ring.fileno())


@pytest.mark.behaviour("regbuf-clone")
def test_some_buffers_cloned_to_other_places(tmp_path: Path) -> None:
    source = Table(tmp_path / "out", b"buffer 0BUFFER 1")
    replace = abi.CloneBuffers.DST_REPLACE
    with source.ring, Ring(8) as ring:
        fd, src_fd = ring.fileno(), source.ring.fileno()
        with needing(replace.since):
            register.clone_buffers(fd, src_fd, 2, 1, 1)
        assert source.written_by(ring, 2, 1) == b"BUFFER 1"
        assert source.written_by(ring, 0, 0) == -errno.EFAULT
        register.clone_buffers(fd, src_fd, 2, 0, 1, replace)
        assert source.written_by(ring, 2, 0) == b"buffer 0"
        assert source.written_by(ring, 2, 1) == -errno.EFAULT
        register.clone_buffers(src_fd, src_fd, 0, 1, 1, replace)
        assert source.written_by(source.ring, 0, 1) == b"BUFFER 1"
        with refused(errno.EOVERFLOW):
            register.clone_buffers(fd, src_fd, 0, 1, 2, replace)


@pytest.mark.behaviour("regbuf-clone")
def test_buffers_cloned_from_a_registered_ring(tmp_path: Path) -> None:
    source = Table(tmp_path / "out", b"buffer 0BUFFER 1")
    with source.ring, Ring(8) as ring:
        needs(abi.Register.CLONE_BUFFERS.since, ring)
        index = register.ring_fd(source.ring.fileno())
        register.clone_buffers(ring.fileno(), index)
        register.unregister_ring_fd(source.ring.fileno(), index)
        assert source.written_by(ring, 1, 1) == b"BUFFER 1"


@pytest.mark.behaviour("rsrc_tags")
def test_only_what_left_the_table_is_told(ring: Ring) -> None:
    needs(abi.Register.BUFFERS2.since, ring)
    memory = room(8)
    register.buffers_tags(ring.fileno(), [(address(memory), 8)] * 3, [1, 2, 3])
    assert register.buffers_update_tag(ring.fileno(), 1, [(address(memory), 8)]) == 1
    assert take(ring) == [(2, 0, 0)]
    ring.submit_and_wait(0)
    assert ring.completions() == []
