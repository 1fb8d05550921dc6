"""The operations of the raw layer that test_raw does not have, each on this kernel and by its effect in the world.

Each runs on a ring with the best set-up, on a plain one with an SQ array, and on one with an SQ
thread. An operation that this kernel lacks is skipped, and the release that brought it named.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import (
    ALLOC,
    ANY_BIT,
    AT_FDCWD,
    FUTEX,
    HANG_NS,
    Cqe,
    Pair,
    Pipe,
    RawBufferRing,
    address,
    aligned,
    block_device,
    folder,
    futexes,
    has,
    ints,
    iovecs,
    listener,
    needs,
    pair,
    parsed,
    path,
    pipe,
    read_slot,
    results,
    ring,
    room,
    sockaddr,
    take,
    take_one,
    text,
    timespec,
    udp_pair,
    unpacked,
)

from rawuring import Ring, RingSetupError, abi, register

CqeFlag, Nop, Op, Setup, SqeFlag = abi.CqeFlag, abi.Nop, abi.Op, abi.Setup, abi.SqeFlag
FIXED_FILE, IO_LINK, BUFFER_SELECT = int(SqeFlag.FIXED_FILE), int(SqeFlag.IO_LINK), int(SqeFlag.BUFFER_SELECT)
HOUR_NS = 3600 * 10**9

# linux/fcntl.h, linux/stat.h, linux/fs.h, linux/openat2.h
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x100, 0x200, 0x400, 0x1000
STATX_BASIC_STATS = 0x7FF
RENAME_NOREPLACE = 1
RESOLVE_BENEATH = 0x08
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
SYNC_FILE_RANGE_WRITE = 2
EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3

__all__ = ["block_device", "folder", "futexes", "listener", "pair", "path", "pipe", "ring"]


# --- reading and writing


@pytest.mark.behaviour("vec-regbuf")
def test_readv_fixed_and_writev_fixed(ring: Ring, path: Path) -> None:
    has(ring, Op.WRITEV_FIXED)
    path.write_bytes(b"0123456789")
    memory = room(4096)
    register.buffers(ring.fileno(), [(address(memory), 4096)])
    parts = bytearray(struct.pack("=QQQQ", address(memory) + 100, 3, address(memory) + 10, 2))
    with path.open("r+b", buffering=0) as file:
        ring.sq.prep_readv_fixed(file.fileno(), address(parts), 2, 4, 0, 0, user_data=1)
        assert take_one(ring, 1) == (5, 0)
        assert memory[100:103] == b"456" and memory[10:12] == b"78"
        ring.sq.prep_writev_fixed(file.fileno(), address(parts), 2, 0, os.RWF_APPEND, 0, user_data=2)
        assert take_one(ring, 2) == (5, 0)
        outside = bytearray(struct.pack("=QQ", address(memory) + 4095, 2))
        ring.sq.prep_readv_fixed(file.fileno(), address(outside), 1, 0, 0, 0, user_data=3)
        assert take_one(ring, 3) == (-errno.EFAULT, 0)
    assert path.read_bytes() == b"012345678945678"


def test_readv2_and_writev2_have_flags(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123")
    memory = room(2)
    out = iovecs(memory)
    with path.open("r+b", buffering=0) as file:
        ring.sq.prep_readv2(file.fileno(), address(out), 1, 1, 0, user_data=1)
        assert take_one(ring, 1) == (2, 0)
        ring.sq.prep_writev2(file.fileno(), address(out), 1, 0, os.RWF_APPEND, user_data=2)
        assert take_one(ring, 2) == (2, 0)
    assert path.read_bytes() == b"012312"


@pytest.mark.behaviour("read-mshot")
def test_read_multishot(ring: Ring, pipe: Pipe, path: Path) -> None:
    has(ring, Op.READ_MULTISHOT)
    reader, writer = pipe
    pool = RawBufferRing(ring, 3, 4)
    ring.sq.prep_read_multishot(reader, 0, 0, 3, user_data=1)
    for content in (b"first", b"second"):
        os.write(writer, content)
        res, cqe_flags = take_one(ring, 1)
        assert (pool.content(res, cqe_flags)[1], cqe_flags & CqeFlag.MORE) == (content, CqeFlag.MORE)
    ring.sq.prep_cancel(1, 0, user_data=2)
    ended = {user_data: (res, cqe_flags & CqeFlag.MORE) for user_data, res, cqe_flags in take(ring, 2)}
    assert ended == {1: (-errno.ECANCELED, 0), 2: (0, 0)}
    path.write_bytes(b"x")
    with path.open("rb") as file:  # which no poll can wait for
        ring.sq.prep_read_multishot(file.fileno(), 0, 0, 3, user_data=3)
        assert take_one(ring, 3) == (-errno.EBADFD, 0)


def test_any_operation_field_by_field(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    memory = room(4)
    with path.open("rb", buffering=0) as file:
        ring.sq.prep_rw(Op.READ, file.fileno(), address(memory), 4, 3, user_data=1)
        assert take_one(ring, 1) == (4, 0)
        assert memory == b"3456"
        needs(abi.Feature.RW_ATTR.since, bool(ring.features & abi.Feature.RW_ATTR))
        # Attributes that are nowhere: the kernel looked for them.
        ring.sq.prep_rw(Op.READ, file.fileno(), address(memory), 4, 3, attr_type_mask=abi.RwAttr.PI, user_data=2)
        assert take_one(ring, 2) == (-errno.EFAULT, 0)


# --- ranges


def test_fallocate(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    with path.open("r+b", buffering=0) as file:
        ring.sq.prep_fallocate(file.fileno(), 0, 5, 95, user_data=1)
        res, _ = take_one(ring, 1)
        if res == -errno.EOPNOTSUPP:
            pytest.skip("the file system has no fallocate")
        assert res == 0
        assert path.read_bytes() == b"0123456789" + bytes(90)
        ring.sq.prep_fallocate(file.fileno(), FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 2, 3, user_data=2)
        res, _ = take_one(ring, 2)
        if res != -errno.EOPNOTSUPP:
            assert (res, path.read_bytes()) == (0, b"01\0\0\x0056789" + bytes(90))


def test_ftruncate(ring: Ring, path: Path) -> None:
    has(ring, Op.FTRUNCATE)
    path.write_bytes(b"0123456789")
    with path.open("r+b", buffering=0) as file:
        ring.sq.prep_ftruncate(file.fileno(), 4, user_data=1)
        assert take_one(ring, 1) == (0, 0)
        assert path.read_bytes() == b"0123"
        ring.sq.prep_ftruncate(file.fileno(), (1 << 32) + 1, user_data=2)
        res, _ = take_one(ring, 2)
        assert (res, path.stat().st_size) in ((0, (1 << 32) + 1), (-errno.EFBIG, 4))


def test_fadvise(ring: Ring, path: Path, pipe: Pipe) -> None:
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        ring.sq.prep_fadvise(file.fileno(), 0, 10, os.POSIX_FADV_WILLNEED, user_data=1)
        ring.sq.prep_fadvise(file.fileno(), 0, 10, 999, user_data=2)
        ring.sq.prep_fadvise(pipe[0], 0, 10, os.POSIX_FADV_NORMAL, user_data=3)
        assert results(ring, 3) == {1: 0, 2: -errno.EINVAL, 3: -errno.ESPIPE}


def test_fadvise64(ring: Ring, path: Path, pipe: Pipe) -> None:
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        ring.sq.prep_fadvise64(file.fileno(), 0, 1 << 33, os.POSIX_FADV_WILLNEED, user_data=1)
        res, _ = take_one(ring, 1)
        needs("6.11", res != -errno.EINVAL)
        assert res == 0
        ring.sq.prep_fadvise64(pipe[0], 0, 1 << 33, os.POSIX_FADV_NORMAL, user_data=2)
        assert take_one(ring, 2) == (-errno.ESPIPE, 0)


@pytest.mark.parametrize("wide", [False, True])
def test_madvise_gives_memory_up(ring: Ring, wide: bool) -> None:
    with mmap.mmap(-1, 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[:] = b"x" * len(memory)
        addr = address(memory)
        prep = ring.sq.prep_madvise64 if wide else ring.sq.prep_madvise
        prep(addr, mmap.PAGESIZE, mmap.MADV_DONTNEED, user_data=1)
        res, _ = take_one(ring, 1)
        if wide:
            needs("6.11", res != -errno.EINVAL)
        assert res == 0
        assert memory[:] == bytes(mmap.PAGESIZE) + b"x" * mmap.PAGESIZE


def test_sync_file_range(ring: Ring, path: Path, pipe: Pipe) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(b"dirty")
        ring.sq.prep_sync_file_range(file.fileno(), 5, 0, SYNC_FILE_RANGE_WRITE, user_data=1)
        ring.sq.prep_sync_file_range(file.fileno(), 5, 0, 1 << 10, user_data=2)
        ring.sq.prep_sync_file_range(pipe[1], 5, 0, SYNC_FILE_RANGE_WRITE, user_data=3)
        assert results(ring, 3) == {1: 0, 2: -errno.EINVAL, 3: -errno.ESPIPE}


@pytest.mark.behaviour("splice")
def test_splice(ring: Ring, path: Path, pipe: Pipe, tmp_path: Path) -> None:
    reader, writer = pipe
    path.write_bytes(b"0123456789")
    with path.open("rb", buffering=0) as file, (tmp_path / "copy").open("w+b", buffering=0) as copy:
        ring.sq.prep_splice(file.fileno(), 3, writer, -1, 4, 0, user_data=1)
        assert take_one(ring, 1) == (4, 0)
        ring.sq.prep_splice(reader, -1, copy.fileno(), 2, 4, 0, user_data=2)
        assert take_one(ring, 2) == (4, 0)
        assert (tmp_path / "copy").read_bytes() == b"\0\0" + b"3456"
        # At the positions of both, and from a slot of the file table.
        file.seek(8)
        register.files(ring.fileno(), [file.fileno()])
        ring.sq.prep_splice(0, -1, writer, -1, 10, abi.Splice.FD_IN_FIXED, user_data=3)
        assert take_one(ring, 3) == (2, 0)
        assert (os.read(reader, 10), file.tell()) == (b"89", 10)


@pytest.mark.behaviour("splice")
def test_tee(ring: Ring, pipe: Pipe) -> None:
    other_reader, other_writer = os.pipe()
    with open(other_reader, "rb", buffering=0) as other, open(other_writer, "wb", buffering=0):
        os.write(pipe[1], b"twice")
        ring.sq.prep_tee(pipe[0], other_writer, 4, 0, user_data=1)
        assert take_one(ring, 1) == (4, 0)
        assert other.read(10) == b"twic"
        assert os.read(pipe[0], 10) == b"twice"


# --- fds and slots


def test_open(ring: Ring, path: Path) -> None:
    name = text(str(path))
    umask = os.umask(0)
    try:
        ring.sq.prep_open(address(name), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o604, user_data=1)
        fd, _ = take_one(ring, 1)
    finally:
        os.umask(umask)
    os.write(fd, b"content")
    os.close(fd)
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_open_direct(ring: Ring, path: Path) -> None:
    needs("5.15", ring)
    path.write_bytes(b"content")
    register.files_sparse(ring.fileno(), 3)
    name = text(str(path))
    ring.sq.prep_open_direct(address(name), os.O_RDONLY, 0, 2, user_data=1)
    assert take_one(ring, 1) == (0, 0)
    assert read_slot(ring, 2) == b"content"


@pytest.mark.behaviour("openat2")
def test_openat2(ring: Ring, path: Path, folder: int) -> None:
    path.write_bytes(b"content")
    how = abi.OPEN_HOW.pack(flags=os.O_RDONLY | os.O_CLOEXEC, resolve=RESOLVE_BENEATH)
    inside, outside = text(path.name), text(f"../{path.parent.name}/{path.name}")
    ring.sq.prep_openat2(folder, address(inside), address(how), user_data=1)
    fd, _ = take_one(ring, 1)
    with open(fd, "rb") as file:
        assert file.read() == b"content"
    ring.sq.prep_openat2(folder, address(outside), address(how), user_data=2)
    assert take_one(ring, 2) == (-errno.EXDEV, 0)


@pytest.mark.behaviour("openat2")
def test_openat2_direct(ring: Ring, path: Path, folder: int) -> None:
    needs("5.15", ring)
    path.write_bytes(b"content")
    register.files_sparse(ring.fileno(), 3)
    name, how = text(path.name), abi.OPEN_HOW.pack(flags=os.O_RDONLY)
    ring.sq.prep_openat2_direct(folder, address(name), address(how), 1, user_data=1)
    assert take_one(ring, 1) == (0, 0)
    assert read_slot(ring, 1) == b"content"


def test_files_update(ring: Ring, path: Path) -> None:
    path.write_bytes(b"content")
    with path.open("rb") as file:
        register.files(ring.fileno(), [-1, -1, -1])
        fds = ints(file.fileno(), -1)
        ring.sq.prep_files_update(address(fds), 2, 1, user_data=1)
        assert take_one(ring, 1) == (2, 0)
    assert read_slot(ring, 1) == b"content"
    gone = ints(-1)
    ring.sq.prep_files_update(address(gone), 1, 1, user_data=2)
    assert take_one(ring, 2) == (1, 0)
    memory = room(4)
    ring.sq.prep_read(1, address(memory), 4, 0, sqe_flags=FIXED_FILE, user_data=3)
    assert take_one(ring, 3) == (-errno.EBADF, 0)


def test_files_update_into_slots_the_kernel_picks(ring: Ring, path: Path) -> None:
    needs("5.19", ring)
    path.write_bytes(b"content")
    with path.open("rb") as file:
        register.files(ring.fileno(), [file.fileno(), -1, -1])
        fds = ints(file.fileno(), file.fileno())
        ring.sq.prep_files_update(address(fds), 2, ALLOC, user_data=1)
        assert take_one(ring, 1) == (2, 0)
    assert sorted(unpacked(fds)) == [1, 2]
    assert read_slot(ring, 2) == b"content"


@pytest.mark.behaviour("fd-install")
def test_fixed_fd_install(ring: Ring, path: Path) -> None:
    has(ring, Op.FIXED_FD_INSTALL)
    path.write_bytes(b"content")
    with path.open("rb") as file:
        register.files(ring.fileno(), [-1, file.fileno()])
    for install_fd_flags in (0, abi.FixedFd.NO_CLOEXEC):
        ring.sq.prep_fixed_fd_install(1, install_fd_flags, user_data=1)
        fd, _ = take_one(ring, 1)
        assert os.get_inheritable(fd) == bool(install_fd_flags)
        assert os.pread(fd, 100, 0) == b"content"
        os.close(fd)
    ring.sq.prep_fixed_fd_install(0, 0, user_data=2)
    assert take_one(ring, 2) == (-errno.EBADF, 0)


def test_pipe(ring: Ring) -> None:
    has(ring, Op.PIPE)
    fds = ints(-1, -1)
    ring.sq.prep_pipe(address(fds), os.O_CLOEXEC | os.O_NONBLOCK, user_data=1)
    assert take_one(ring, 1) == (0, 0)
    reader, writer = unpacked(fds)
    with open(reader, "rb", buffering=0) as file, open(writer, "wb", buffering=0):
        assert not os.get_inheritable(reader) and not os.get_blocking(writer)
        os.write(writer, b"through")
        assert file.read(10) == b"through"


@pytest.mark.parametrize("slot", [1, ALLOC])
def test_pipe_direct(ring: Ring, slot: int) -> None:
    has(ring, Op.PIPE)
    register.files_sparse(ring.fileno(), 3)
    slots, memory, back = ints(-1, -1), bytearray(b"through"), room(7)
    ring.sq.prep_pipe_direct(address(slots), 0, slot, user_data=1)
    assert take_one(ring, 1) == (0, 0)
    reader, writer = unpacked(slots) if slot == ALLOC else (1, 2)
    ring.sq.prep_write(writer, address(memory), 7, 0, sqe_flags=FIXED_FILE, user_data=2)
    assert take_one(ring, 2) == (7, 0)
    ring.sq.prep_read(reader, address(back), 7, 0, sqe_flags=FIXED_FILE, user_data=3)
    assert take_one(ring, 3) == (7, 0)
    assert back == memory


# --- names in the file system


@pytest.mark.behaviour("statx")
def test_statx(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    path.chmod(0o640)
    name, found = text(str(path)), bytearray(abi.STATX.nbytes)
    ring.sq.prep_statx(AT_FDCWD, address(name), 0, STATX_BASIC_STATS, address(found), user_data=1)
    assert take_one(ring, 1) == (0, 0)
    known = path.stat()
    fields = abi.STATX.unpack(found)
    assert fields["stx_mask"] & STATX_BASIC_STATS == STATX_BASIC_STATS
    assert (fields["stx_size"], fields["stx_ino"], fields["stx_mode"]) == (10, known.st_ino, known.st_mode)
    assert (fields["stx_uid"], fields["stx_gid"], fields["stx_nlink"]) == (known.st_uid, known.st_gid, 1)
    assert fields["stx_mtime.tv_sec"] * 10**9 + fields["stx_mtime.tv_nsec"] == known.st_mtime_ns
    link = text(str(path) + ".link")
    path.with_name(path.name + ".link").symlink_to(path)
    ring.sq.prep_statx(AT_FDCWD, address(link), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, address(found), user_data=2)
    assert take_one(ring, 2) == (0, 0)
    assert stat.S_ISLNK(abi.STATX.get(found, "stx_mode"))


@pytest.mark.behaviour("statx")
def test_statx_of_an_fd(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    nothing, found = text(""), bytearray(abi.STATX.nbytes)
    with path.open("rb") as file:
        ring.sq.prep_statx(
            file.fileno(), address(nothing), AT_EMPTY_PATH, STATX_BASIC_STATS, address(found), user_data=1
        )
        assert take_one(ring, 1) == (0, 0)
    assert abi.STATX.get(found, "stx_ino") == path.stat().st_ino


@pytest.mark.behaviour("rename")
def test_renameat(ring: Ring, tmp_path: Path, folder: int) -> None:
    has(ring, Op.RENAMEAT)
    (tmp_path / "old").write_bytes(b"content")
    (tmp_path / "there").touch()
    old, new, there = text("old"), text("new"), text(str(tmp_path / "there"))
    ring.sq.prep_renameat(folder, address(old), AT_FDCWD, address(there), RENAME_NOREPLACE, user_data=1)
    assert take_one(ring, 1) == (-errno.EEXIST, 0)
    ring.sq.prep_renameat(folder, address(old), folder, address(new), 0, user_data=2)
    assert take_one(ring, 2) == (0, 0)
    assert sorted(os.listdir(tmp_path)) == ["new", "there"]
    assert (tmp_path / "new").read_bytes() == b"content"


@pytest.mark.behaviour("unlink")
def test_unlinkat(ring: Ring, tmp_path: Path, folder: int) -> None:
    has(ring, Op.UNLINKAT)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    file, directory = text("file"), text("folder")
    ring.sq.prep_unlinkat(folder, address(directory), 0, user_data=1)
    assert take_one(ring, 1) == (-errno.EISDIR, 0)
    ring.sq.prep_unlinkat(folder, address(file), 0, user_data=2)
    ring.sq.prep_unlinkat(folder, address(directory), AT_REMOVEDIR, user_data=3)
    assert results(ring, 2) == {2: 0, 3: 0}
    assert os.listdir(tmp_path) == []


@pytest.mark.behaviour("mkdir", "symlink", "hardlink")
def test_mkdirat_symlinkat_and_linkat(ring: Ring, tmp_path: Path, folder: int) -> None:
    has(ring, Op.LINKAT)
    names = {name: text(name) for name in ("folder", "folder/file", "folder/link", "other", "../file", "third")}
    addr = {name: address(buffer) for name, buffer in names.items()}
    umask = os.umask(0)
    try:
        ring.sq.prep_mkdirat(folder, addr["folder"], 0o710, user_data=1)
        assert take_one(ring, 1) == (0, 0)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o710
    (tmp_path / "folder/file").write_bytes(b"content")
    ring.sq.prep_symlinkat(addr["../file"], folder, addr["folder/link"], user_data=2)
    assert take_one(ring, 2) == (0, 0)
    assert os.readlink(tmp_path / "folder/link") == "../file"
    (tmp_path / "file").write_bytes(b"through the link")
    ring.sq.prep_linkat(folder, addr["folder/file"], folder, addr["other"], 0, user_data=3)
    ring.sq.prep_linkat(folder, addr["folder/link"], folder, addr["third"], AT_SYMLINK_FOLLOW, user_data=4)
    assert results(ring, 2) == {3: 0, 4: 0}
    assert os.path.samefile(tmp_path / "folder/file", tmp_path / "other")
    assert (tmp_path / "third").read_bytes() == b"through the link"
    ring.sq.prep_mkdirat(folder, addr["folder"], 0o710, user_data=5)
    assert take_one(ring, 5) == (-errno.EEXIST, 0)


def test_names_relative_to_the_working_directory(ring: Ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has(ring, Op.LINKAT)
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"content")
    names = {name: text(name) for name in ("file", "hard", "soft", "moved", "folder")}
    addr = {name: address(buffer) for name, buffer in names.items()}
    ring.sq.prep_link(addr["file"], addr["hard"], 0, user_data=1)
    ring.sq.prep_symlink(addr["file"], addr["soft"], user_data=2)
    ring.sq.prep_mkdir(addr["folder"], 0o755, user_data=3)
    assert results(ring, 3) == {1: 0, 2: 0, 3: 0}
    assert Path("hard").samefile("file") and os.readlink("soft") == "file" and Path("folder").is_dir()
    ring.sq.prep_rename(addr["hard"], addr["moved"], user_data=4)
    ring.sq.prep_unlink(addr["soft"], 0, user_data=5)
    ring.sq.prep_unlink(addr["folder"], AT_REMOVEDIR, user_data=6)
    assert results(ring, 3) == {4: 0, 5: 0, 6: 0}
    assert sorted(os.listdir()) == ["file", "moved"]


@pytest.fixture
def with_attributes(path: Path) -> Path:
    """A file that can have extended attributes."""
    path.touch()
    try:
        os.setxattr(path, "user.there", b"value")
    except OSError as error:
        pytest.skip(f"extended attributes: {error.strerror}")
    return path


@pytest.mark.behaviour("xattr")
def test_attributes_of_a_path(ring: Ring, with_attributes: Path) -> None:
    has(ring, Op.GETXATTR)
    name, value, where, back = text("user.ours"), bytearray(b"12345"), text(str(with_attributes)), room(8)
    ring.sq.prep_setxattr(address(name), address(value), address(where), os.XATTR_CREATE, 5, user_data=1)
    assert take_one(ring, 1) == (0, 0)
    assert os.getxattr(with_attributes, "user.ours") == b"12345"
    ring.sq.prep_setxattr(address(name), address(value), address(where), os.XATTR_CREATE, 5, user_data=2)
    assert take_one(ring, 2) == (-errno.EEXIST, 0)
    there = text("user.there")
    ring.sq.prep_getxattr(address(there), address(back), address(where), 8, user_data=3)
    assert take_one(ring, 3) == (5, 0)
    assert back == b"value" + room(3)
    ring.sq.prep_getxattr(address(there), 0, address(where), 0, user_data=4)
    ring.sq.prep_getxattr(address(there), address(back), address(where), 4, user_data=5)
    assert results(ring, 2) == {4: 5, 5: -errno.ERANGE}


@pytest.mark.behaviour("xattr")
def test_attributes_of_an_open_file(ring: Ring, with_attributes: Path) -> None:
    has(ring, Op.FGETXATTR)
    name, value, back = text("user.there"), bytearray(b"12345678"), room(10)
    with with_attributes.open("r+b") as file:
        ring.sq.prep_fsetxattr(file.fileno(), address(name), address(value), os.XATTR_REPLACE, 7, user_data=1)
        assert take_one(ring, 1) == (0, 0)
        assert os.getxattr(with_attributes, "user.there") == b"1234567"
        ring.sq.prep_fgetxattr(file.fileno(), address(name), address(back), 10, user_data=2)
        assert take_one(ring, 2) == (7, 0)
    assert back == b"1234567" + room(3)


# --- the life of sockets


@pytest.mark.behaviour("socket")
def test_socket(ring: Ring) -> None:
    has(ring, Op.SOCKET)
    ring.sq.prep_socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.IPPROTO_UDP, user_data=1)
    fd, _ = take_one(ring, 1)
    with socket.socket(fileno=fd) as made:
        assert (made.family, made.type, made.proto) == (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
        assert not os.get_inheritable(fd)
    ring.sq.prep_socket(socket.AF_INET, 99, 0, user_data=2)
    assert take_one(ring, 2) == (-errno.EINVAL, 0)


@pytest.mark.behaviour("socket")
@pytest.mark.parametrize("how", ["slot", "alloc", "direct_alloc"])
def test_socket_direct(ring: Ring, listener: socket.socket, how: str) -> None:
    has(ring, Op.SOCKET)
    register.files(ring.fileno(), [listener.fileno(), -1, -1])
    what = socket.AF_INET, socket.SOCK_STREAM, 0
    if how == "direct_alloc":
        ring.sq.prep_socket_direct_alloc(*what, user_data=1)
    else:
        ring.sq.prep_socket_direct(*what, 2 if how == "slot" else ALLOC, user_data=1)
    slot = 2 if how == "slot" else 1
    assert take_one(ring, 1) == (0 if how == "slot" else 1, 0)
    name, memory = sockaddr(*listener.getsockname()), bytearray(b"hello")
    ring.sq.prep_connect(slot, address(name), len(name), sqe_flags=FIXED_FILE, user_data=2)
    assert take_one(ring, 2) == (0, 0)
    ring.sq.prep_send(slot, address(memory), 5, 0, sqe_flags=FIXED_FILE, user_data=3)
    assert take_one(ring, 3) == (5, 0)
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(HANG_NS / 1e9)
        assert accepted.recv(10) == b"hello"


@pytest.mark.behaviour("bind-listen")
def test_bind_and_listen(ring: Ring) -> None:
    has(ring, Op.LISTEN)
    name = sockaddr("127.0.0.1", 0)
    with socket.socket() as server:
        ring.sq.prep_bind(server.fileno(), address(name), len(name), user_data=1)
        assert take_one(ring, 1) == (0, 0)
        assert server.getsockname()[0] == "127.0.0.1" and server.getsockname()[1] > 0
        ring.sq.prep_listen(server.fileno(), 4, user_data=2)
        assert take_one(ring, 2) == (0, 0)
        with socket.create_connection(server.getsockname(), HANG_NS / 1e9) as client:
            accepted, peer = server.accept()
            with accepted:
                assert peer == client.getsockname()


@pytest.mark.behaviour("accept")
def test_accept_that_does_not_wait(ring: Ring, listener: socket.socket) -> None:
    needs(abi.Accept.DONTWAIT.since, bool(ring.features & abi.Feature.RECVSEND_BUNDLE))  # of the same release
    ring.sq.prep_accept(listener.fileno(), 0, 0, 0, ioprio=abi.Accept.DONTWAIT, user_data=1)
    assert take_one(ring, 1) == (-errno.EAGAIN, 0)
    ring.sq.prep_accept(listener.fileno(), 0, 0, 0, ioprio=abi.Accept.POLL_FIRST, user_data=2)
    ring.submit()
    with socket.create_connection(listener.getsockname()) as client:
        fd, _ = take_one(ring, 2)
        with socket.socket(fileno=fd) as accepted:
            assert accepted.getpeername() == client.getsockname()


# --- sending and receiving


def test_sendto(ring: Ring) -> None:
    one, other = udp_pair()
    with one, other:
        memory, name = bytearray(b"hello"), sockaddr(*other.getsockname())
        ring.sq.prep_sendto(one.fileno(), address(memory), 5, 0, address(name), len(name), user_data=1)
        res, _ = take_one(ring, 1)
        # Older kernels refuse an address, or do not look at it.
        needs("6.1", res not in (-errno.EINVAL, -errno.EDESTADDRREQ))
        assert res == 5
        assert other.recvfrom(10) == (b"hello", one.getsockname())


def test_send_vectorized(ring: Ring, pair: Pair) -> None:
    one, other = pair
    first, second = bytearray(b"hello, "), bytearray(b"world")
    vector = iovecs(first, second)
    ring.sq.prep_send(one.fileno(), address(vector), 2, socket.MSG_WAITALL, ioprio=abi.RecvSend.VECTORIZED, user_data=1)
    res, _ = take_one(ring, 1)
    needs(abi.RecvSend.VECTORIZED.since, res != -errno.EINVAL)
    assert (res, other.recv(100)) == (12, b"hello, world")


@pytest.mark.behaviour("recvsend_bundle")
def test_bundles(ring: Ring, pair: Pair) -> None:
    needs(abi.RecvSend.BUNDLE.since, bool(ring.features & abi.Feature.RECVSEND_BUNDLE))
    one, other = pair
    pool = RawBufferRing(ring, 1, 4)
    content = bytes(range(1, 4 * 64 + 1 - 64)) + bytes(64)
    pool.buffers[:] = content
    ring.sq.prep_send_bundle(one.fileno(), 0, 0, 1, user_data=1)
    res, cqe_flags = take_one(ring, 1)
    assert (res, cqe_flags & CqeFlag.BUFFER, cqe_flags >> abi.CQE_BUFFER_SHIFT) == (256, CqeFlag.BUFFER, 0)
    back = b""
    while len(back) < 256:
        back += other.recv(256)
    assert back == content
    # The four buffers once more, to receive into: the kernel may use some of them at a time.
    pool.give(0, 1, 2, 3)
    other.sendall(content[:200])
    pool.buffers[:] = room(256)
    received, at = 0, 0
    while received < 200:
        ring.sq.prep_recv(one.fileno(), 0, 0, 0, ioprio=abi.RecvSend.BUNDLE, buf_group=1, sqe_flags=BUFFER_SELECT,
                          user_data=2)  # fmt: skip
        res, cqe_flags = take_one(ring, 2)
        assert res > 0 and cqe_flags >> abi.CQE_BUFFER_SHIFT == at // 64
        assert pool.buffers[at : at + res] == content[received : received + res]
        received += res
        at += (res + 63) // 64 * 64


def test_recv_multishot_ends_after_so_many_bytes(ring: Ring, pair: Pair) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = pair
    pool = RawBufferRing(ring, 1, 4)
    other.sendall(b"0123456789")
    ring.sq.prep_recv_multishot(one.fileno(), 0, 0, 0, buf_group=1, total_nbytes=4, user_data=1)
    res, cqe_flags = take_one(ring, 1)
    needs("6.17", res != -errno.EINVAL)
    assert (pool.content(res, cqe_flags)[1], cqe_flags & CqeFlag.MORE) == (b"0123456789", 0)


@pytest.mark.behaviour("recv-multishot")
def test_recvmsg_multishot(ring: Ring) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = udp_pair()
    with one, other:
        pool = RawBufferRing(ring, 1, 4)
        header = abi.MSGHDR.pack(msg_namelen=16)
        ring.sq.prep_recvmsg_multishot(one.fileno(), address(header), 0, 1, user_data=1)
        for content in (b"first", b"second", b"x" * 40):
            other.sendto(content, one.getsockname())
            res, cqe_flags = take_one(ring, 1)
            assert cqe_flags & CqeFlag.MORE
            _, filled = pool.content(res, cqe_flags)
            out, name, payload = abi.IO_URING_RECVMSG_OUT.unpack(filled), filled[16:32], filled[32:]
            assert (out["namelen"], out["controllen"]) == (16, 0)
            assert parsed(bytearray(name)) == other.getsockname()
            assert payload == content[:32]  # what a buffer of 64 bytes has room for
            assert out["flags"] & socket.MSG_TRUNC == (socket.MSG_TRUNC if len(content) > 32 else 0)


# --- sending without copies


@pytest.mark.behaviour("send-zerocopy")
def test_send_zc_has_two_completions(ring: Ring, pair: Pair) -> None:
    has(ring, Op.SEND_ZC)
    one, other = pair
    memory = bytearray(b"hello")
    ring.sq.prep_send_zc(one.fileno(), address(memory), 5, 0, 0, user_data=1)
    assert take(ring, 2) == [(1, 5, CqeFlag.MORE), (1, 0, CqeFlag.NOTIF)]
    assert other.recv(10) == b"hello"


@pytest.mark.behaviour("send-zerocopy")
def test_send_zc_reports_whether_it_copied(ring: Ring, pair: Pair) -> None:
    has(ring, Op.SEND_ZC)
    needs(abi.RecvSend.ZC_REPORT_USAGE.since, ring)
    one, other = pair
    memory = bytearray(b"hello")
    ring.sq.prep_send_zc(one.fileno(), address(memory), 5, 0, abi.RecvSend.ZC_REPORT_USAGE, user_data=1)
    sent, notice = take(ring, 2)
    assert sent == (1, 5, CqeFlag.MORE)
    # Loopback hands the data over by copying it.
    assert notice == (1, abi.NOTIF_USAGE_ZC_COPIED - 2**32, CqeFlag.NOTIF)
    assert other.recv(10) == b"hello"


def test_send_zc_to_an_address(ring: Ring) -> None:
    has(ring, Op.SEND_ZC)
    one, other = udp_pair()
    with one, other:
        memory, name = bytearray(b"hello"), sockaddr(*other.getsockname())
        ring.sq.prep_send_zc(one.fileno(), address(memory), 5, 0, 0, address(name), len(name), user_data=1)
        assert take(ring, 2) == [(1, 5, CqeFlag.MORE), (1, 0, CqeFlag.NOTIF)]
        assert other.recvfrom(10) == (b"hello", one.getsockname())


@pytest.mark.behaviour("send-zerocopy")
def test_send_zc_fixed(ring: Ring, pair: Pair) -> None:
    has(ring, Op.SEND_ZC)
    one, other = pair
    memory = bytearray(4096)
    memory[100:105] = b"hello"
    register.buffers(ring.fileno(), [(address(memory), 4096)])
    ring.sq.prep_send_zc_fixed(one.fileno(), address(memory) + 100, 5, 0, 0, 0, user_data=1)
    assert take(ring, 2) == [(1, 5, CqeFlag.MORE), (1, 0, CqeFlag.NOTIF)]
    assert other.recv(10) == b"hello"
    ring.sq.prep_send_zc_fixed(one.fileno(), address(memory) + 4095, 2, 0, 0, 0, user_data=2)
    found: list[Cqe] = []
    while not found or found[-1][2] & CqeFlag.MORE:  # one of them, or two
        ring.submit_and_wait(1, HANG_NS)
        found += ring.completions()
    assert found[0][:2] == (2, -errno.EFAULT)


@pytest.mark.behaviour("send-zerocopy")
def test_sendmsg_zc(ring: Ring, pair: Pair) -> None:
    has(ring, Op.SENDMSG_ZC)
    one, other = pair
    first, second = bytearray(b"hello, "), bytearray(b"world")
    vector = iovecs(first, second)
    header = abi.MSGHDR.pack(msg_iov=address(vector), msg_iovlen=2)
    ring.sq.prep_sendmsg_zc(one.fileno(), address(header), socket.MSG_WAITALL, user_data=1)
    assert take(ring, 2) == [(1, 12, CqeFlag.MORE), (1, 0, CqeFlag.NOTIF)]
    assert other.recv(100) == b"hello, world"


@pytest.mark.behaviour("vec-regbuf", "send-zerocopy")
def test_sendmsg_zc_fixed(ring: Ring, pair: Pair) -> None:
    needs("6.15", ring.supports(Op.READV_FIXED))  # of the same release
    one, other = pair
    memory = bytearray(4096)
    memory[100:105], memory[200:206] = b"hello", b" world"
    register.buffers(ring.fileno(), [(address(memory), 4096)])
    parts = bytearray(struct.pack("=QQQQ", address(memory) + 100, 5, address(memory) + 200, 6))
    header = abi.MSGHDR.pack(msg_iov=address(parts), msg_iovlen=2)
    ring.sq.prep_sendmsg_zc_fixed(one.fileno(), address(header), socket.MSG_WAITALL, 0, user_data=1)
    assert take(ring, 2) == [(1, 11, CqeFlag.MORE), (1, 0, CqeFlag.NOTIF)]
    assert other.recv(100) == b"hello world"


def test_recv_zc_needs_an_area(ring: Ring, pair: Pair) -> None:
    has(ring, Op.RECV_ZC)
    ring.sq.prep_recv_zc(pair[0].fileno(), 0, 0, 7, user_data=1)
    res, cqe_flags = take_one(ring, 1)
    assert res == -errno.EINVAL and not cqe_flags & CqeFlag.MORE


# --- timeouts, polls and cancels


@pytest.mark.behaviour("timeout")
@pytest.mark.parametrize("clock", [abi.Timeout.BOOTTIME, abi.Timeout.REALTIME])
def test_timeout_by_another_clock(ring: Ring, clock: abi.Timeout) -> None:
    needs(clock.since, ring)
    now = time.time_ns() if clock == abi.Timeout.REALTIME else time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    past, later = timespec(now), timespec(now + HOUR_NS)
    ring.sq.prep_timeout(address(past), 0, clock | abi.Timeout.ABS, user_data=1)
    ring.sq.prep_timeout(address(later), 0, clock | abi.Timeout.ABS, user_data=2)
    assert take_one(ring, 1) == (-errno.ETIME, 0)
    ring.sq.prep_timeout_remove(2, 0, user_data=3)
    assert results(ring, 2) == {2: -errno.ECANCELED, 3: 0}


@pytest.mark.behaviour("timeout")
@pytest.mark.parametrize("is_success", [False, True])
def test_timeout_in_a_chain(ring: Ring, is_success: bool) -> None:
    needs(abi.Timeout.ETIME_SUCCESS.since, ring)
    short = timespec(1_000_000)
    timeout_flags = abi.Timeout.ETIME_SUCCESS if is_success else 0
    ring.sq.prep_timeout(address(short), 0, timeout_flags, sqe_flags=IO_LINK, user_data=1)
    ring.sq.prep_nop(user_data=2)
    assert results(ring, 2) == {1: -errno.ETIME, 2: 0 if is_success else -errno.ECANCELED}


@pytest.mark.behaviour("timeout")
def test_timeout_update_to_a_point_in_time(ring: Ring) -> None:
    needs(abi.Timeout.UPDATE.since, ring)
    hour, past = timespec(HOUR_NS), timespec(time.monotonic_ns())
    ring.sq.prep_timeout(address(hour), 0, 0, user_data=1)
    ring.sq.prep_timeout_update(address(past), 1, abi.Timeout.ABS, user_data=2)
    assert results(ring, 2) == {1: -errno.ETIME, 2: 0}
    ring.sq.prep_timeout_update(address(past), 1, 0, user_data=3)
    assert take_one(ring, 3) == (-errno.ENOENT, 0)


def test_timeout_with_its_nanoseconds_in_the_sqe(ring: Ring) -> None:
    ring.sq.prep_timeout(1_000_000, 0, abi.Timeout.IMMEDIATE_ARG, user_data=1)
    res, _ = take_one(ring, 1)
    needs(abi.Timeout.IMMEDIATE_ARG.since, res != -errno.EINVAL)
    assert res == -errno.ETIME


def test_poll_update_of_the_user_data_alone(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Poll.UPDATE_USER_DATA.since, ring)
    reader, writer = pipe
    ring.sq.prep_poll_add(reader, select.POLLIN, user_data=1)
    ring.sq.prep_poll_update(1, 3, 0, abi.Poll.UPDATE_USER_DATA, user_data=2)
    assert take_one(ring, 2) == (0, 0)
    os.write(writer, b"x")
    assert take_one(ring, 3) == (select.POLLIN, 0)


def test_cancel64(ring: Ring, pipe: Pipe) -> None:
    for user_data in ((1 << 63) - 1, 1):
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=user_data)
    ring.sq.prep_cancel64((1 << 63) - 1, 0, user_data=2)
    assert results(ring, 2) == {(1 << 63) - 1: -errno.ECANCELED, 2: 0}


def test_cancel_all_of_nothing_is_no_error(ring: Ring) -> None:
    needs(abi.Cancel.ALL.since, ring)
    ring.sq.prep_cancel(99, abi.Cancel.ALL, user_data=1)
    ring.sq.prep_cancel(99, 0, user_data=2)
    assert results(ring, 2) == {1: 0, 2: -errno.ENOENT}


def test_cancel_takes_any_one(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Cancel.ANY.since, ring)
    ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
    ring.sq.prep_cancel(0, abi.Cancel.ANY, user_data=2)
    assert results(ring, 2) == {1: -errno.ECANCELED, 2: 1}


# --- NOP and its forms


@pytest.mark.behaviour("nop-flags")
def test_nop_looks_its_slot_up(ring: Ring, pipe: Pipe) -> None:
    needs(Nop.FIXED_FILE.since, ring)
    register.files(ring.fileno(), [pipe[0], -1])
    look = Nop.FILE | Nop.FIXED_FILE
    ring.sq.prep_nop_flags(look, fd=0, user_data=1)
    ring.sq.prep_nop_flags(look, fd=1, user_data=2)
    found = results(ring, 2)
    if found[2] == 0:
        pytest.skip("this kernel does not tell what a NOP looked for in vain: some before 7.0 do not")
    assert found == {1: 0, 2: -errno.EBADF}


@pytest.mark.behaviour("nop-flags")
def test_nop_through_task_work(ring: Ring) -> None:
    ring.sq.prep_nop_flags(Nop.TW | Nop.INJECT_RESULT, res=42, user_data=1)
    res, _ = take_one(ring, 1)
    needs(Nop.TW.since, res != -errno.EINVAL)
    assert res == 42


def made(setup_flag: abi.Setup) -> Ring:
    """A ring with this flag, or the test is skipped and the release named."""
    try:
        return Ring(8, setup_flag)
    except RingSetupError as error:
        if error.errno == errno.EINVAL:
            needs(setup_flag.since, False)
        raise


@pytest.mark.behaviour("nop32", "nop-flags")
def test_nop_with_a_cqe_of_32_bytes() -> None:
    with made(Setup.CQE32) as ring:
        ring.sq.prep_nop_flags(Nop.CQE32, extra1=0x1122_3344_5566_7788, extra2=99, user_data=1)
        ring.submit_and_wait(1, HANG_NS)
        ((user_data, res, _, *extra),) = ring.cq.drain32()
        needs(Nop.CQE32.since, res != -errno.EINVAL)
        assert (user_data, res, extra) == (1, 0, [0x1122_3344_5566_7788, 99])


@pytest.mark.behaviour("sqe-mixed-nop")
@pytest.mark.parametrize("setup_flags", [Setup.SQE128, Setup.SQE_MIXED], ids=["sqe128", "mixed"])
def test_nop128(setup_flags: abi.Setup) -> None:
    with made(setup_flags) as ring:
        has(ring, Op.NOP128)
        ring.sq.prep_nop128(user_data=1)
        ring.sq.prep_nop128(Nop.INJECT_RESULT, res=-7, user_data=2)
        ring.sq.prep_nop(user_data=3)
        assert results(ring, 3) == {1: 0, 2: -7, 3: 0}


@pytest.mark.behaviour("sqe-mixed-nop")
def test_nop128_round_and_round_a_mixed_ring() -> None:
    with made(Setup.SQE_MIXED) as ring:
        has(ring, Op.NOP128)
        for start in range(0, 40, 4):
            ring.sq.prep_nop(user_data=start)
            ring.sq.prep_nop128(user_data=start + 1)
            ring.sq.prep_nop128(user_data=start + 2)
            ring.sq.prep_nop(user_data=start + 3)
            assert sorted(take(ring, 4)) == [(start + i, 0, 0) for i in range(4)]


def test_a_chain_around_the_end_of_a_mixed_ring() -> None:
    with made(Setup.SQE_MIXED) as ring:
        has(ring, Op.NOP128)
        for first_fails in (False, True):
            while ring.sq.tail % 8 != 6:
                ring.sq.prep_nop(user_data=0)
                take(ring)
            res = -7 if first_fails else 0
            ring.sq.prep_nop_flags(Nop.INJECT_RESULT, res=res, sqe_flags=IO_LINK, user_data=1)
            ring.sq.prep_nop128(user_data=2)  # slot 7 gets a filler
            # A filler is silent unless the chain breaks before it.
            found = results(ring, 3 if first_fails else 2)
            assert found.pop(1) == res and found.pop(2) == (-errno.ECANCELED if first_fails else 0)
            assert set(found.values()) <= {-errno.ECANCELED}


def test_uring_cmd128(pair: Pair) -> None:
    one, other = pair
    with made(Setup.SQE_MIXED) as ring:
        has(ring, Op.URING_CMD128)
        other.sendall(b"12345")
        select.select([one], [], [], HANG_NS / 1e9)
        ring.sq.prep_uring_cmd128(abi.SocketOp.SIOCINQ, one.fileno(), user_data=1)
        ring.sq.prep_uring_cmd(abi.SocketOp.SIOCINQ, one.fileno(), user_data=2)
        assert results(ring, 2) == {1: 5, 2: 5}


# --- commands


def test_bytes_that_wait_in_a_socket(ring: Ring, pair: Pair) -> None:
    has(ring, Op.URING_CMD)
    one, other = pair
    other.sendall(b"12345")
    select.select([one], [], [], HANG_NS / 1e9)
    ring.sq.prep_cmd_sock(abi.SocketOp.SIOCINQ, one.fileno(), 0, 0, 0, 0, user_data=1)
    res, _ = take_one(ring, 1)
    needs(abi.SocketOp.SIOCINQ.since, res != -errno.EOPNOTSUPP)
    assert res == 5
    ring.sq.prep_uring_cmd(abi.SocketOp.SIOCINQ, one.fileno(), user_data=2)
    assert take_one(ring, 2) == (5, 0)
    # Until the other end's buffer is full, and this one's.
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            one.send(bytes(1 << 16))
    waiting = bytearray(4)
    fcntl.ioctl(one, termios.TIOCOUTQ, waiting)
    ring.sq.prep_cmd_sock(abi.SocketOp.SIOCOUTQ, one.fileno(), 0, 0, 0, 0, user_data=3)
    assert take_one(ring, 3) == (unpacked(waiting)[0], 0)
    assert unpacked(waiting)[0] > 0


def test_socket_options(ring: Ring, pair: Pair) -> None:
    has(ring, Op.URING_CMD)
    one, _ = pair
    value, back = ints(1), ints(-1, -1)
    where = one.fileno(), socket.SOL_SOCKET, socket.SO_KEEPALIVE
    ring.sq.prep_cmd_sock(abi.SocketOp.SETSOCKOPT, *where, address(value), 4, user_data=1)
    res, _ = take_one(ring, 1)
    needs(abi.SocketOp.SETSOCKOPT.since, res != -errno.EOPNOTSUPP)
    assert (res, one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) == (0, 1)
    ring.sq.prep_cmd_sock(abi.SocketOp.GETSOCKOPT, *where, address(back), 8, user_data=2)
    assert take_one(ring, 2) == (4, 0)
    assert unpacked(back) == (1, -1)
    where = one.fileno(), socket.IPPROTO_TCP, socket.TCP_NODELAY
    ring.sq.prep_cmd_sock(abi.SocketOp.SETSOCKOPT, *where, address(value), 4, user_data=3)
    assert take_one(ring, 3) == (0, 0)
    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_getsockname(ring: Ring, pair: Pair) -> None:
    has(ring, Op.URING_CMD)
    one, _ = pair
    for peer, name in ((0, one.getsockname()), (1, one.getpeername())):
        found, addrlen = room(32), ints(32)
        ring.sq.prep_cmd_getsockname(one.fileno(), address(found), address(addrlen), peer, user_data=1)
        res, _ = take_one(ring, 1)
        needs(abi.SocketOp.GETSOCKNAME.since, res != -errno.EOPNOTSUPP)
        assert (res, unpacked(addrlen), parsed(found[:16])) == (0, (16,), name)


def test_timestamps_of_what_was_sent() -> None:
    tx_software, software, opt_id, opt_tsonly = 1 << 1, 1 << 4, 1 << 7, 1 << 11
    with made(Setup.CQE32) as ring:
        has(ring, Op.URING_CMD)
        one, other = udp_pair()
        with one, other:
            so_timestamping = 37
            one.setsockopt(socket.SOL_SOCKET, so_timestamping, tx_software | software | opt_id | opt_tsonly)
            before = time.time_ns()
            one.sendto(b"hello", other.getsockname())
            assert other.recv(10) == b"hello"
            ring.sq.prep_cmd_sock(abi.SocketOp.TX_TIMESTAMP, one.fileno(), 0, 0, 0, 0, user_data=1)
            ring.submit_and_wait(1, HANG_NS)
            ((user_data, res, cqe_flags, seconds, nanoseconds),) = ring.cq.drain32()
            needs(abi.SocketOp.TX_TIMESTAMP.since, res != -errno.EOPNOTSUPP)
            assert (user_data, res, cqe_flags & CqeFlag.MORE) == (1, 0, CqeFlag.MORE)
            assert not cqe_flags & abi.TimestampCqeFlag.TSTAMP_HW
            assert before <= seconds * 10**9 + nanoseconds <= time.time_ns()


def test_a_file_that_takes_no_commands(ring: Ring, path: Path) -> None:
    has(ring, Op.URING_CMD)
    path.write_bytes(b"0123456789")
    with path.open("r+b") as file:
        ring.sq.prep_cmd_discard(file.fileno(), 0, 10, user_data=1)
        ring.sq.prep_cmd_zone_reset_all(file.fileno(), user_data=2)
        ring.sq.prep_uring_cmd(1, file.fileno(), b"sixteen bytes ..", user_data=3)
        assert results(ring, 3) == dict.fromkeys((1, 2, 3), -errno.EOPNOTSUPP)
    assert path.read_bytes() == b"0123456789"


def test_discard(ring: Ring, path: Path, block_device: int) -> None:
    has(ring, Op.URING_CMD)
    ring.sq.prep_cmd_discard(block_device, 1 << 16, 1 << 17, user_data=1)
    res, _ = take_one(ring, 1)
    if res == -errno.EOPNOTSUPP:
        pytest.skip(f"needs Linux {abi.BlockOp.DISCARD.since}, and a file system that can punch holes")
    assert res == 0
    assert path.read_bytes() == b"x" * (1 << 16) + bytes(1 << 17) + b"x" * ((1 << 20) - (1 << 16) - (1 << 17))
    ring.sq.prep_cmd_zone_reset_all(block_device, user_data=2)
    assert take_one(ring, 2)[0] < 0  # it has no zones


# --- events of other kinds


def data_of(fd: int) -> int:
    """The data of an epoll_event as Python has it: an int in the first half, whatever the byte order."""
    return int.from_bytes(ints(fd, 0), sys.byteorder)


def test_epoll_ctl(ring: Ring, pipe: Pipe) -> None:
    reader, writer = pipe
    with select.epoll() as epoll:
        event = abi.EPOLL_EVENT.pack(events=select.EPOLLIN, data=data_of(reader))
        ring.sq.prep_epoll_ctl(epoll.fileno(), reader, EPOLL_CTL_ADD, address(event), user_data=1)
        res, _ = take_one(ring, 1)
        if res in (-errno.EOPNOTSUPP, -errno.EINVAL):
            pytest.skip("this kernel was built without epoll in io_uring")
        assert res == 0
        os.write(writer, b"x")
        assert epoll.poll(HANG_NS / 1e9) == [(reader, select.EPOLLIN)]
        changed = abi.EPOLL_EVENT.pack(events=select.EPOLLIN, data=data_of(4711))
        ring.sq.prep_epoll_ctl(epoll.fileno(), reader, EPOLL_CTL_MOD, address(changed), user_data=2)
        assert take_one(ring, 2) == (0, 0)
        assert epoll.poll(HANG_NS / 1e9) == [(4711, select.EPOLLIN)]
        ring.sq.prep_epoll_ctl(epoll.fileno(), reader, EPOLL_CTL_DEL, 0, user_data=3)
        ring.sq.prep_epoll_ctl(epoll.fileno(), reader, EPOLL_CTL_DEL, 0, user_data=4)
        assert sorted(results(ring, 2).values()) == [-errno.ENOENT, 0]
        assert epoll.poll(0) == []


@pytest.mark.behaviour("epwait")
def test_epoll_wait(ring: Ring, pipe: Pipe) -> None:
    has(ring, Op.EPOLL_WAIT)
    reader, writer = pipe
    size = abi.EPOLL_EVENT.nbytes
    with select.epoll() as epoll:
        epoll.register(reader, select.EPOLLIN)
        events = room(4 * size)
        ring.sq.prep_epoll_wait(epoll.fileno(), address(events), 4, user_data=1)
        ring.submit()
        os.write(writer, b"x")
        assert take_one(ring, 1) == (1, 0)
        assert abi.EPOLL_EVENT.get(events, "events") == select.EPOLLIN
        at = abi.EPOLL_EVENT.fields["data"].offset
        assert unpacked(events[at : at + 4]) == (reader,)
        assert events[size:] == room(3 * size)


@pytest.mark.behaviour("waitid")
def test_waitid(ring: Ring) -> None:
    has(ring, Op.WAITID)
    with subprocess.Popen([sys.executable, "-S", "-c", "input(); exit(7)"], stdin=subprocess.PIPE) as child:
        info = bytearray(abi.SIGINFO.nbytes)
        ring.sq.prep_waitid(os.P_PID, child.pid, address(info), os.WEXITED | os.WNOWAIT, user_data=1)
        ring.submit()
        assert child.stdin is not None
        child.stdin.close()
        assert take_one(ring, 1) == (0, 0)
        found = abi.SIGINFO.unpack(info)
        assert (found["si_signo"], found["si_pid"], found["si_status"]) == (signal.SIGCHLD, child.pid, 1)
        assert found["si_code"] == os.CLD_EXITED
    ring.sq.prep_waitid(os.P_PID, child.pid, 0, os.WEXITED, user_data=2)
    assert take_one(ring, 2) == (-errno.ECHILD, 0)


def word(value: int) -> bytearray:
    return bytearray(struct.pack("=I", value))


@pytest.mark.behaviour("futex")
def test_futex_wait_and_wake(ring: Ring, futexes: mmap.mmap) -> None:
    has(ring, Op.FUTEX_WAIT)
    addr = aligned(futexes, 0)
    ring.sq.prep_futex_wait(addr, 99, ANY_BIT, FUTEX, user_data=1)
    assert take_one(ring, 1) == (-errno.EAGAIN, 0)
    ring.sq.prep_futex_wait(addr, 1, 0b01, FUTEX, user_data=2)
    ring.sq.prep_futex_wait(addr, 1, 0b10, FUTEX, user_data=3)
    ring.sq.prep_futex_wake(addr, 10, 0b100, FUTEX, user_data=4)  # meets no mask
    assert take_one(ring, 4) == (0, 0)
    ring.sq.prep_futex_wake(addr, 10, 0b10, FUTEX, user_data=5)
    assert results(ring, 2) == {5: 1, 3: 0}
    ring.sq.prep_futex_wake(addr, 10, ANY_BIT, FUTEX, user_data=6)
    assert results(ring, 2) == {6: 1, 2: 0}


@pytest.mark.behaviour("futex")
def test_futex_waitv(ring: Ring, futexes: mmap.mmap) -> None:
    has(ring, Op.FUTEX_WAITV)
    words = bytearray().join(
        abi.FUTEX_WAITV.pack(val=value, uaddr=aligned(futexes, index), flags=int(FUTEX))
        for index, value in enumerate((1, 2, 3))
    )
    ring.sq.prep_futex_waitv(address(words), 3, user_data=1)
    ring.submit()
    ring.sq.prep_futex_wake(aligned(futexes, 1), 1, ANY_BIT, FUTEX, user_data=2)
    assert results(ring, 2) == {1: 1, 2: 1}  # the second of the array; one waiter
    futexes[8:12] = word(99)
    ring.sq.prep_futex_waitv(address(words), 3, user_data=3)
    assert take_one(ring, 3) == (-errno.EAGAIN, 0)


# --- messages between rings


@pytest.fixture
def target() -> Iterator[Ring]:
    with Ring(8) as other:
        yield other


@pytest.mark.behaviour("msg-ring")
def test_msg_ring(ring: Ring, target: Ring) -> None:
    has(ring, Op.MSG_RING)
    ring.sq.prep_msg_ring(target.fileno(), 42, 4711, 0, user_data=1)
    ring.sq.prep_msg_ring(target.fileno(), -errno.EPIPE, (1 << 63) - 1, 0, user_data=2)
    assert results(ring, 2) == {1: 0, 2: 0}
    assert sorted(take(target, 2)) == [(4711, 42, 0), ((1 << 63) - 1, -errno.EPIPE, 0)]
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb"):
        ring.sq.prep_msg_ring(reader, 42, 1, 0, user_data=3)
        assert take_one(ring, 3) == (-errno.EBADFD, 0)


@pytest.mark.behaviour("msg-ring-flags")
def test_msg_ring_with_cqe_flags(ring: Ring, target: Ring) -> None:
    has(ring, Op.MSG_RING)
    cqe_flags = 7 << abi.CQE_BUFFER_SHIFT | int(CqeFlag.BUFFER)
    ring.sq.prep_msg_ring_cqe_flags(target.fileno(), 42, 4711, 0, cqe_flags, user_data=1)
    res, _ = take_one(ring, 1)
    needs(abi.MsgRing.FLAGS_PASS.since, res != -errno.EINVAL)
    assert res == 0
    assert take(target) == [(4711, 42, cqe_flags)]


@pytest.mark.behaviour("msg-ring-fd")
@pytest.mark.parametrize("how", ["slot", "alloc", "fd_alloc"])
def test_msg_ring_passes_a_file(ring: Ring, target: Ring, path: Path, how: str) -> None:
    needs(abi.MsgRingCommand.SEND_FD.since, ring)
    path.write_bytes(b"content")
    register.files_sparse(target.fileno(), 3)
    with path.open("rb") as file:
        register.files(ring.fileno(), [-1, file.fileno()])
    if how == "fd_alloc":
        ring.sq.prep_msg_ring_fd_alloc(target.fileno(), 1, 4711, 0, user_data=1)
    else:
        ring.sq.prep_msg_ring_fd(target.fileno(), 1, 2 if how == "slot" else ALLOC, 4711, 0, user_data=1)
    res, _ = take_one(ring, 1)
    slot = 2 if how == "slot" else res
    assert res == (0 if how == "slot" else slot) and 0 <= slot < 3
    user_data, told, _ = take(target)[0]
    assert (user_data, told) == (4711, res)
    assert read_slot(target, slot) == b"content"
    ring.sq.prep_msg_ring_fd(target.fileno(), 0, 1, 4711, abi.MsgRing.CQE_SKIP, user_data=2)
    assert take_one(ring, 2) == (-errno.EBADF, 0)
    ring.sq.prep_msg_ring_fd(target.fileno(), 1, 1, 4711, abi.MsgRing.CQE_SKIP, user_data=3)
    assert take_one(ring, 3)[0] == 0
    assert read_slot(target, 1) == b"content"  # and no other completion came there
