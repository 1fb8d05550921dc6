"""Owned operations on names in the file system, and on fds and slots: each by its effect in the world.

Each runs on a ring with the best set-up, on a plain one, and on one with an SQ thread. How long their memory
lives, and what becomes of fds that nobody takes, is in test_owned_lifetimes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import HANG_NS, Pipe, errno_of, folder, has, needs, newest, pipe, ring

from rawuring import BufferUseError, Fixed, OutOfOrderError, Ring, abi, system

__all__ = ["folder", "pipe", "ring"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture
def no_umask() -> Iterator[None]:
    umask = os.umask(0)
    yield
    os.umask(umask)


# --- statx


def test_statx_tells_what_stat_does(ring: Ring, path: Path, folder: int) -> None:
    path.chmod(0o640)
    known = path.stat()
    with path.open("rb") as file:
        every = [
            ring.statx(path), ring.statx(str(path)), ring.statx(os.fsencode(path)), ring.statx(file),
            ring.statx(file.fileno()), ring.statx(path.name, dir_fd=folder), ring.statx(path, statx_flags=system.AT_STATX_FORCE_SYNC),
        ]  # fmt: skip
        for found in [op.wait(HANG_NS) for op in every]:
            for name in ("mode", "ino", "dev", "nlink", "uid", "gid", "size", "blksize", "blocks", "rdev",
                         "atime_ns", "mtime_ns", "ctime_ns"):  # fmt: skip
                assert getattr(found, f"st_{name}") == getattr(known, f"st_{name}"), name
            for name in ("atime", "mtime", "ctime"):  # which a compiler may round otherwise
                assert getattr(found, f"st_{name}") == pytest.approx(getattr(known, f"st_{name}"), abs=1e-6), name
            assert found.st_mask & system.STATX_BASIC_STATS == system.STATX_BASIC_STATS
            assert os.path.samestat(found, known)  # type: ignore[arg-type]  # all it looks at is there
            if found.st_birthtime_ns is not None and found.st_birthtime is not None:
                assert abs(found.st_birthtime_ns - known.st_ctime_ns) < 3600 * 10**9
                assert found.st_birthtime == pytest.approx(found.st_birthtime_ns / 1e9, abs=1e-6)
    device = ring.statx("/dev/null").wait()
    assert stat.S_ISCHR(device.st_mode) and device.st_rdev == os.stat("/dev/null").st_rdev


def test_statx_tells_what_was_asked_for(ring: Ring, path: Path) -> None:
    found = ring.statx(path, system.STATX_SIZE).wait()
    assert found.st_size == 10
    assert (found.st_dio_mem_align, found.st_subvol, found.st_atomic_write_unit_max) == (None, None, None)
    needs("5.8", bool(ring.statx(path, system.STATX_MNT_ID).wait().st_mask & system.STATX_MNT_ID))
    mounted = ring.statx(path, system.STATX_MNT_ID).wait()
    with path.open("rb") as file, open(f"/proc/self/fdinfo/{file.fileno()}", encoding="ascii") as info:
        assert f"mnt_id:\t{mounted.st_mnt_id}\n" in info.read()


def test_statx_of_a_link_and_of_nothing(ring: Ring, path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert stat.S_ISREG(ring.statx(link).wait().st_mode)
    assert stat.S_ISLNK(ring.statx(link, follow_symlinks=False).wait().st_mode)
    with pytest.raises(FileNotFoundError):
        ring.statx(path.with_name("nothing")).wait()
    with pytest.raises(ValueError, match="null"):
        ring.statx("a\0b")
    with pytest.raises(BufferUseError, match="slot"):
        ring.statx(ring.file_table(1)[0])  # type: ignore[arg-type]


def test_a_callback_has_the_result_at_once(ring: Ring, path: Path) -> None:
    sizes = []
    ring.statx(path, callback=lambda op, res, cqe_flags: sizes.append(op.wait().st_size))
    ring.run()
    assert sizes == [10]


# --- names


@pytest.mark.usefixtures("no_umask")
def test_names_come_and_go(ring: Ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has(ring, abi.Op.LINKAT)
    monkeypatch.chdir(tmp_path)
    assert ring.mkdir("folder", 0o710).wait() == 0
    assert stat.S_IMODE(os.stat("folder").st_mode) == 0o710
    Path("folder/file").write_bytes(b"content")
    assert ring.linkat(b"folder/file", Path("hard")).wait() == 0
    assert os.path.samefile("hard", "folder/file")
    assert ring.symlink("folder/file", "soft").wait() == 0
    assert os.readlink("soft") == "folder/file"
    assert ring.linkat("soft", "third").wait() == 0
    assert os.path.samefile("third", "folder/file") and not os.path.islink("third")
    assert ring.linkat("soft", "softer", follow_symlinks=False).wait() == 0
    assert os.path.islink("softer")
    assert ring.rename("hard", "moved").wait() == 0
    assert errno_of(ring.rmdir("folder")) == errno.ENOTEMPTY
    assert errno_of(ring.unlink("folder")) == errno.EISDIR
    for name in ("folder/file", "soft", "third", "softer", "moved"):
        assert ring.unlink(name).wait() == 0
    assert ring.rmdir("folder").wait() == 0
    assert os.listdir() == []


def test_names_relative_to_a_directory(ring: Ring, tmp_path: Path, folder: int) -> None:
    has(ring, abi.Op.LINKAT)
    assert ring.mkdir("inner", dir_fd=folder).wait() == 0
    inner = os.open(tmp_path / "inner", os.O_RDONLY)
    try:
        (tmp_path / "file").write_bytes(b"content")
        assert ring.linkat("file", "other", src_dir_fd=folder, dst_dir_fd=inner).wait() == 0
        assert ring.rename("other", "back", src_dir_fd=inner, dst_dir_fd=folder).wait() == 0
        assert ring.symlink("../back", "link", dir_fd=inner).wait() == 0
        assert (tmp_path / "inner/link").read_bytes() == b"content"
        assert ring.unlink("link", dir_fd=inner).wait() == 0
        assert ring.rmdir("inner", dir_fd=folder).wait() == 0
    finally:
        os.close(inner)
    assert sorted(os.listdir(tmp_path)) == ["back", "file"]


def test_rename_that_replaces_or_not(ring: Ring, tmp_path: Path) -> None:
    has(ring, abi.Op.RENAMEAT)
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    assert errno_of(ring.rename(one, other, rename_flags=system.RENAME_NOREPLACE)) in (errno.EEXIST, errno.EINVAL)
    try:
        assert ring.rename(one, other, rename_flags=system.RENAME_EXCHANGE).wait() == 0
        assert (one.read_bytes(), other.read_bytes()) == (b"2", b"1")
    except OSError as error:
        assert error.errno == errno.EINVAL  # the file system cannot
    content = one.read_bytes()
    assert ring.rename(one, other).wait() == 0
    assert (other.read_bytes(), one.exists()) == (content, False)


def test_a_directory_is_a_number(ring: Ring) -> None:
    has(ring, abi.Op.MKDIRAT)
    slot: Any = ring.file_table(1)[0]
    for use in (ring.mkdir, ring.unlink, ring.openat, ring.openat2, ring.statx):
        with pytest.raises(TypeError, match="integer"):
            use("name", dir_fd=slot)
    assert ring.in_flight == 0


# --- extended attributes


@pytest.fixture
def with_attributes(path: Path) -> Path:
    """A file that can have extended attributes."""
    try:
        os.setxattr(path, "user.there", b"value")
    except OSError as error:
        pytest.skip(f"extended attributes: {error.strerror}")
    return path


def test_attributes_of_a_path(ring: Ring, with_attributes: Path) -> None:
    has(ring, abi.Op.GETXATTR)
    path = with_attributes
    assert ring.getxattr(path, "user.there").wait() == b"value"
    assert ring.setxattr(str(path), b"user.ours", bytearray(b"12345"), os.XATTR_CREATE).wait() == 0
    assert os.getxattr(path, "user.ours") == b"12345"
    assert errno_of(ring.setxattr(path, "user.ours", b"", os.XATTR_CREATE)) == errno.EEXIST
    assert ring.setxattr(path, "user.ours", b"").wait() == 0
    assert ring.getxattr(path, "user.ours").wait() == b""
    assert errno_of(ring.getxattr(path, "user.there", 4)) == errno.ERANGE
    assert ring.getxattr(path, "user.there", 0).wait_cqe()[0] == 5
    assert errno_of(ring.getxattr(path, "user.nothing")) == errno.ENODATA


def test_attributes_of_an_open_file(ring: Ring, with_attributes: Path) -> None:
    has(ring, abi.Op.FGETXATTR)
    with with_attributes.open("r+b") as file:
        assert ring.fsetxattr(file, "user.there", b"1234567", os.XATTR_REPLACE).wait() == 0
        assert os.getxattr(file.fileno(), "user.there") == b"1234567"
        assert ring.fsetxattr(file.fileno(), b"user.more", b"x" * 100).wait() == 0
        assert ring.fgetxattr(file.fileno(), "user.more", 100).wait() == b"x" * 100
        slot = ring.file_table(1)[0]
        slot.table.update(0, [file])
        res, _ = ring.fgetxattr(slot, "user.there").wait_cqe()
        needs("6.13", res != -errno.EBADF)
        assert ring.fgetxattr(slot, "user.there").wait() == b"1234567"
        assert ring.fsetxattr(slot, "user.there", b"through a slot").wait() == 0
        assert os.getxattr(file.fileno(), "user.there") == b"through a slot"


# --- fds


def test_openat2_keeps_to_the_rules(ring: Ring, path: Path, folder: int) -> None:
    link = path.with_name("link")
    link.symlink_to(path.name)
    for resolve in (0, system.RESOLVE_BENEATH, system.RESOLVE_NO_SYMLINKS):
        fd = ring.openat2(path.name, dir_fd=folder, resolve=resolve).wait()
        assert not os.get_inheritable(fd) and os.read(fd, 3) == b"012"
        os.close(fd)
    assert errno_of(ring.openat2(link, resolve=system.RESOLVE_NO_SYMLINKS)) == errno.ELOOP
    assert errno_of(ring.openat2(path, dir_fd=folder, resolve=system.RESOLVE_BENEATH)) == errno.EXDEV
    assert errno_of(ring.openat2(f"../{path.parent.name}/file", dir_fd=folder, resolve=system.RESOLVE_BENEATH)) == errno.EXDEV
    assert errno_of(ring.openat2(path, resolve=1 << 40)) == errno.EINVAL


@pytest.mark.usefixtures("no_umask")
def test_openat2_makes_files(ring: Ring, tmp_path: Path) -> None:
    fd = ring.openat2(tmp_path / "new", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o604).wait()
    os.write(fd, b"content")
    os.close(fd)
    assert (tmp_path / "new").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


def test_openat2_into_slots(ring: Ring, path: Path, folder: int) -> None:
    needs("5.15", ring)
    files = ring.file_table(3)
    buffer = bytearray(4)
    chosen = ring.openat2_direct(path.name, files, slot=2, dir_fd=folder, resolve=system.RESOLVE_BENEATH).wait()
    assert chosen.slot == 2 and ring.read(chosen, buffer, 3).wait() == 4 and buffer == b"3456"
    needs("5.19", newest(ring) >= (5, 19))
    picked = ring.openat2_direct(path, files).wait()
    assert picked.slot == 0 and ring.read(picked, buffer, 0).wait() == 4 and buffer == b"0123"


def test_a_pipe(ring: Ring) -> None:
    has(ring, abi.Op.PIPE)
    for pipe_flags in (os.O_CLOEXEC, os.O_NONBLOCK):
        op = ring.pipe(pipe_flags)
        reader, writer = op.wait()
        assert op.wait() == (reader, writer)
        with open(reader, "rb", buffering=0) as file, open(writer, "wb", buffering=0):
            assert os.get_inheritable(reader) == (pipe_flags != os.O_CLOEXEC)
            assert os.get_blocking(writer) == (pipe_flags != os.O_NONBLOCK)
            os.write(writer, b"through")
            assert file.read(10) == b"through"
    assert errno_of(ring.pipe(1 << 30)) == errno.EINVAL


@pytest.mark.parametrize("slot", [1, abi.FILE_INDEX_ALLOC])
def test_a_pipe_in_slots(ring: Ring, slot: int) -> None:
    has(ring, abi.Op.PIPE)
    files = ring.file_table(3)
    reader, writer = ring.pipe_direct(files, slot=slot).wait()
    assert (reader.slot, writer.slot) == ((1, 2) if slot == 1 else (0, 1))
    buffer = bytearray(7)
    assert ring.write(writer, b"through").wait() == 7
    assert ring.read(reader, buffer).wait() == 7 and buffer == b"through"
    assert ring.close_fd(writer).wait() == 0
    assert ring.read(reader, buffer).wait() == 0
    if slot != 1:
        assert errno_of(ring.pipe_direct(files, slot=2)) == errno.EINVAL
        ring.openat_direct("/dev/null", files, slot=1).wait()
        assert errno_of(ring.pipe_direct(files)) == errno.ENFILE, "one slot is not enough"


def read_slot(ring: Ring, slot: Fixed) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: ring.read(slot, buffer, 0).wait()])


def test_files_update(ring: Ring, path: Path, pipe: Pipe) -> None:
    files = ring.file_table(3)
    with path.open("rb") as file:
        filled = ring.files_update([file, pipe[1]], files, slot=1).wait()
        assert [slot.slot for slot in filled] == [1, 2]
    assert read_slot(ring, filled[0]) == b"0123456789"
    assert ring.write(filled[1], b"x").wait() == 1 and os.read(pipe[0], 9) == b"x"
    ring.files_update([-1], files, slot=1).wait()
    assert errno_of(ring.read(files[1], bytearray(1))) == errno.EBADF
    assert ring.write(files[2], b"y").wait() == 1, "the other is still there"
    assert errno_of(ring.files_update([pipe[0]], files, slot=3)) == errno.EINVAL
    with pytest.raises(BufferUseError, match="at least one"):
        ring.files_update([], files)
    with pytest.raises(BufferUseError, match="slot"):
        ring.files_update([files[2]], files)


def test_files_update_into_slots_that_the_kernel_picks(ring: Ring, path: Path, pipe: Pipe) -> None:
    files = ring.file_table(3)
    files.update(1, [pipe[0]])
    with path.open("rb") as file:
        op = ring.files_update([file, file], files)
        if newest(ring) < (5, 19):
            with pytest.raises(NotImplementedError, match="5.19"):
                op.wait()
            needs("5.19", False)
        filled = op.wait()
    assert sorted(slot.slot for slot in filled) == [0, 2]
    assert read_slot(ring, filled[0]) == read_slot(ring, filled[1]) == b"0123456789"
    filled[0].close()
    again = ring.files_update([pipe[0], pipe[1]], files).wait()
    assert [slot.slot for slot in again] == [filled[0].slot], "the table was full after one"


def test_a_slot_gets_an_fd(ring: Ring, path: Path) -> None:
    has(ring, abi.Op.FIXED_FD_INSTALL)
    files = ring.file_table(2)
    slot = ring.openat_direct(path, files, slot=1).wait()
    for install_fd_flags in (0, abi.FixedFd.NO_CLOEXEC):
        fd = ring.fixed_fd_install(slot, install_fd_flags).wait()
        assert os.get_inheritable(fd) == bool(install_fd_flags)
        assert os.pread(fd, 3, 0) == b"012"
        os.close(fd)
    assert errno_of(ring.fixed_fd_install(files[0])) == errno.EBADF
    with pytest.raises(BufferUseError, match="Fixed"):
        ring.fixed_fd_install(3)  # type: ignore[arg-type]
    files.unregister()
    with pytest.raises(OutOfOrderError, match="not registered"):
        ring.fixed_fd_install(slot)
