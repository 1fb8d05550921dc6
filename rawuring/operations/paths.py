"""Owned operations on names in the file system: statx, rename, unlink, mkdir, symlink, linkat, extended attributes.

May import everything below ring. What the operations share is in `operations.base`.

Paths are str, bytes or PathLike, relative to the working directory or to a directory's fd; the
parameters have the names and defaults of the functions of `os`.
"""

from __future__ import annotations

import os

from .. import abi, system
from ..buffers import Buffer, pin_readable, pin_writable
from ..files import FileLike, HasFileno, fd_of
from ..inflight import Callback, Operation
from .base import MemoryOperation, OwnedOperations, PathName, dirfd_of, pin_path, plain_fd

_STATX = system.STATX_BASIC_STATS | system.STATX_BTIME | system.STATX_MNT_ID
_XATTR_NBYTES = 65536  # no attribute is larger (XATTR_SIZE_MAX of linux/limits.h)


class StatOperation(MemoryOperation["system.StatResult"]):
    """A statx in flight. Result: a `StatResult`."""

    __slots__ = ()

    def _value(self, res: int, cqe_flags: int) -> system.StatResult:
        return system.stat_result(self._memory)


class AttributeOperation(MemoryOperation[bytes]):
    """An extended attribute being read. Result: its value."""

    __slots__ = ()

    def _value(self, res: int, cqe_flags: int) -> bytes:
        return bytes(self._memory[:res])


class PathOperations(OwnedOperations):
    """The owned operations on names in the file system."""

    __slots__ = ()

    def statx(
        self, path: PathName | int | HasFileno, mask: int = _STATX, *, dir_fd: int | None = None,
        follow_symlinks: bool = True, statx_flags: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> StatOperation:  # fmt: skip
        """What there is to know of a path or an open file. Result: a `system.StatResult`.

        `mask` asks for system.STATX_* fields, `statx_flags` adds AT_NO_AUTOMOUNT, AT_STATX_FORCE_SYNC
        or AT_STATX_DONT_SYNC of `system`.
        """
        if isinstance(path, (str, bytes, os.PathLike)):
            dfd = dirfd_of(dir_fd)
            keep, addr, _ = pin_path(path)
            if not follow_symlinks:
                statx_flags |= system.AT_SYMLINK_NOFOLLOW
        else:
            dfd = plain_fd(path)
            keep, addr, _ = pin_path(b"")
            statx_flags |= system.AT_EMPTY_PATH
        memory = bytearray(abi.STATX.nbytes)
        written, statx_addr, _ = pin_writable(memory)
        return self._queue(StatOperation, self.sq.prep_statx, (dfd, addr, statx_flags, mask, statx_addr),
                           (path, keep, written, memory), callback, sqe_flags)  # fmt: skip

    def rename(
        self, src: PathName, dst: PathName, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None,
        rename_flags: int = 0, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Rename a file, in place of what `dst` names. Result: 0. Linux 5.11.

        `rename_flags` RENAME_NOREPLACE of `system` makes that EEXIST, RENAME_EXCHANGE swaps the two.
        """
        old, old_addr, _ = pin_path(src)
        new, new_addr, _ = pin_path(dst)
        args = (dirfd_of(src_dir_fd), old_addr, dirfd_of(dst_dir_fd), new_addr, rename_flags)
        return self._queue(Operation, self.sq.prep_renameat, args, (old, new), callback, sqe_flags)

    def unlink(
        self, path: PathName, *, dir_fd: int | None = None, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Remove a name of a file. Result: 0. Linux 5.11."""
        keep, addr, _ = pin_path(path)
        return self._queue(Operation, self.sq.prep_unlinkat, (dirfd_of(dir_fd), addr, 0), keep, callback, sqe_flags)

    def rmdir(
        self, path: PathName, *, dir_fd: int | None = None, callback: Callback | None = None, sqe_flags: int = 0
    ) -> Operation[int]:
        """Remove an empty directory. Result: 0. Linux 5.11."""
        keep, addr, _ = pin_path(path)
        return self._queue(Operation, self.sq.prep_unlinkat, (dirfd_of(dir_fd), addr, system.AT_REMOVEDIR), keep,
                           callback, sqe_flags)  # fmt: skip

    def mkdir(
        self, path: PathName, mode: int = 0o777, *, dir_fd: int | None = None,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Make a directory, with the permissions `mode` less the umask. Result: 0. Linux 5.15."""
        keep, addr, _ = pin_path(path)
        return self._queue(Operation, self.sq.prep_mkdirat, (dirfd_of(dir_fd), addr, mode), keep, callback, sqe_flags)

    def symlink(
        self, src: PathName, dst: PathName, *, dir_fd: int | None = None,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Make `dst` a symbolic link that says `src`. Result: 0. Linux 5.15."""
        target, target_addr, _ = pin_path(src)
        link, link_addr, _ = pin_path(dst)
        return self._queue(Operation, self.sq.prep_symlinkat, (target_addr, dirfd_of(dir_fd), link_addr), (target, link),
                           callback, sqe_flags)  # fmt: skip

    def linkat(
        self, src: PathName, dst: PathName, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None,
        follow_symlinks: bool = True, callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Give a file one more name (`Ring.link` makes a chain). Result: 0. Linux 5.15."""
        old, old_addr, _ = pin_path(src)
        new, new_addr, _ = pin_path(dst)
        args = (dirfd_of(src_dir_fd), old_addr, dirfd_of(dst_dir_fd), new_addr,
                system.AT_SYMLINK_FOLLOW if follow_symlinks else 0)  # fmt: skip
        return self._queue(Operation, self.sq.prep_linkat, args, (old, new), callback, sqe_flags)

    def getxattr(
        self, path: PathName, attribute: PathName, nbytes: int = _XATTR_NBYTES, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> AttributeOperation:  # fmt: skip
        """The value of an extended attribute of a path, whose links are followed. Result: bytes. Linux 5.19.

        One that is larger than `nbytes` is an ERANGE.
        """
        where, path_addr, _ = pin_path(path)
        name, name_addr, _ = pin_path(attribute)
        memory = bytearray(nbytes)
        written, addr, _ = pin_writable(memory)
        return self._queue(AttributeOperation, self.sq.prep_getxattr, (name_addr, addr, path_addr, nbytes),
                           (where, name, written, memory), callback, sqe_flags)  # fmt: skip

    def fgetxattr(
        self, file: FileLike, attribute: PathName, nbytes: int = _XATTR_NBYTES, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> AttributeOperation:  # fmt: skip
        """The value of an extended attribute of an open file, as of `getxattr`. Linux 5.19, of a slot 6.13."""
        fd, fixed = fd_of(file, self._file_table)
        name, name_addr, _ = pin_path(attribute)
        memory = bytearray(nbytes)
        written, addr, _ = pin_writable(memory)
        return self._queue(AttributeOperation, self.sq.prep_fgetxattr, (fd, name_addr, addr, nbytes),
                           (file, name, written, memory), callback, sqe_flags | fixed)  # fmt: skip

    def setxattr(
        self, path: PathName, attribute: PathName, value: Buffer, xattr_flags: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Set an extended attribute of a path, whose links are followed. Result: 0. Linux 5.19.

        `xattr_flags` os.XATTR_CREATE and os.XATTR_REPLACE say that it must be new, or must be there.
        """
        where, path_addr, _ = pin_path(path)
        name, name_addr, _ = pin_path(attribute)
        data, addr, nbytes = pin_readable(value)
        return self._queue(Operation, self.sq.prep_setxattr, (name_addr, addr, path_addr, xattr_flags, nbytes),
                           (where, name, data), callback, sqe_flags)  # fmt: skip

    def fsetxattr(
        self, file: FileLike, attribute: PathName, value: Buffer, xattr_flags: int = 0, *,
        callback: Callback | None = None, sqe_flags: int = 0,
    ) -> Operation[int]:  # fmt: skip
        """Set an extended attribute of an open file, as `setxattr` does. Linux 5.19, of a slot 6.13."""
        fd, fixed = fd_of(file, self._file_table)
        name, name_addr, _ = pin_path(attribute)
        data, addr, nbytes = pin_readable(value)
        return self._queue(Operation, self.sq.prep_fsetxattr, (fd, name_addr, addr, xattr_flags, nbytes),
                           (file, name, data), callback, sqe_flags | fixed)  # fmt: skip
