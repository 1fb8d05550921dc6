"""File trees in memory: read from Debian packages and folders, written as an initramfs.

An initramfs is one or more cpio archives after each other, so the root (the same for every run)
and the checkout (another each time) are written apart. Nothing here needs root: owners and device
nodes exist in the archive alone.

Imports the standard library only.
"""

from __future__ import annotations

import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

MERGED = ("bin", "sbin", "lib", "lib32", "lib64")
"""Folders that are links into usr/, as in every Debian of today."""


class Entry(NamedTuple):
    """A file, link, folder or device: its mode with the type, its bytes or target, its device number."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


class Tree:
    """Entries by path, without a leading slash."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._add(path, Entry(stat.S_IFDIR | mode))

    def file(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        self._add(path, Entry(stat.S_IFREG | mode, content.encode() if isinstance(content, str) else content))

    def link(self, path: str, target: str) -> None:
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def character_device(self, path: str, major: int, minor: int) -> None:
        self._add(path, Entry(stat.S_IFCHR | 0o600, device=(major, minor)))

    def copy(self, source: Path, path: str) -> None:
        """A file or link of this machine."""
        if source.is_symlink():
            self.link(path, str(source.readlink()))
        else:
            self.file(path, source.read_bytes(), stat.S_IMODE(source.stat().st_mode))

    def unpack(self, deb: Path, wanted: Callable[[str], bool]) -> None:
        """Add those files of a Debian package whose path is `wanted`."""
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    path = merged(member.name)
                    if not path or not wanted(path):
                        continue
                    if member.isdir():
                        self.folder(path, member.mode)
                    elif member.issym():
                        self.link(path, member.linkname)
                    elif member.islnk():
                        self.entries[path] = self.entries[merged(member.linkname)]
                    elif (content := tar.extractfile(member)) is not None:
                        self.file(path, content.read(), member.mode)
            process.stdout.read()  # the padding: who writes it must not find the pipe closed
        if process.returncode != 0:
            raise OSError(f"dpkg-deb cannot read {deb.name}")

    def _add(self, path: str, entry: Entry) -> None:
        # The kernel does not make a folder that is not in the archive, or comes after what is in it.
        for parent in reversed(PurePosixPath(path).parents[:-1]):
            self.entries.setdefault(str(parent), Entry(stat.S_IFDIR | 0o755))
        self.entries[path] = entry

    def write(self, output: IO[bytes]) -> None:
        """Write a cpio archive in the "newc" form."""
        for number, (path, entry) in enumerate(self.entries.items(), 1):
            output.write(newc(number, path, entry))
        output.write(newc(0, "TRAILER!!!", Entry(0)))


def newc(number: int, path: str, entry: Entry) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return padded(header + name) + padded(entry.content)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def merged(path: str) -> str:
    """Where a package's path lies in a system whose bin and lib are links into usr/."""
    path = path.removeprefix("./").strip("/")
    top = path.split("/")[0]
    if path == ".":
        return ""
    return f"usr/{path}" if top in MERGED else path


def find(deb: Path, pattern: str) -> tuple[str, bytes]:
    """Name and content of the first file in a package whose path matches a glob pattern."""

    def matches(path: str) -> bool:
        return PurePosixPath(path).match(pattern)

    tree = Tree()
    tree.unpack(deb, matches)
    for path, entry in tree.entries.items():
        if stat.S_ISREG(entry.mode) and matches(path):
            return path, entry.content
    raise OSError(f"{deb.name} holds no {pattern}")


def walk(folder: Path) -> Iterator[Path]:
    """Every file and link below a folder, sorted, without byte code."""
    for path in sorted(folder.rglob("*")):
        if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts:
            yield path
