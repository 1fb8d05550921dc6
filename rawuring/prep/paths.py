"""Encoders for names in the file system: STATX, RENAMEAT, UNLINKAT, MKDIRAT, SYMLINKAT, LINKAT and extended attributes.

May import abi. Never makes a system call. What all encoders share is in `prep.base`.

Paths and attribute names are zero-terminated. A directory fd is an ordinary fd or abi.AT_FDCWD:
FIXED_FILE gives EBADF.
"""

from __future__ import annotations

from .. import abi
from .base import U32, Encoder

_STATX = int(abi.Op.STATX)
_RENAMEAT = int(abi.Op.RENAMEAT)
_UNLINKAT = int(abi.Op.UNLINKAT)
_MKDIRAT = int(abi.Op.MKDIRAT)
_SYMLINKAT = int(abi.Op.SYMLINKAT)
_LINKAT = int(abi.Op.LINKAT)
_FSETXATTR = int(abi.Op.FSETXATTR)
_SETXATTR = int(abi.Op.SETXATTR)
_FGETXATTR = int(abi.Op.FGETXATTR)
_GETXATTR = int(abi.Op.GETXATTR)

_AT_FDCWD = abi.AT_FDCWD


class PathPreps(Encoder):
    """The `prep_*` methods for names in the file system."""

    __slots__ = ()

    def prep_statx(
        self, dfd: int, path_addr: int, statx_flags: int, mask: int, statx_addr: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_STATX: fill the struct statx (abi.STATX) at `statx_addr` with what `mask` asks for.

        Since      Linux 5.6            Man   io_uring_prep_statx(3), statx(2)
        Memory     submit: the path; completion: the struct is written
        CQE res    0; < 0 -errno: ENOENT, EACCES, ...
        CQE flags  none
        """
        self._encode(_STATX, dfd, statx_addr, path_addr, mask, statx_flags, user_data, sqe_flags,
                     personality=personality)  # fmt: skip

    def prep_renameat(
        self, olddfd: int, oldpath_addr: int, newdfd: int, newpath_addr: int, rename_flags: int,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_RENAMEAT: rename a file. `rename_flags` are those of renameat2(2).

        Since      Linux 5.11           Man   io_uring_prep_renameat(3), renameat2(2)
        Memory     submit: both paths
        CQE res    0; < 0 -errno: ENOENT, EEXIST, EXDEV, ENOTEMPTY, ...
        CQE flags  none
        """
        self._encode(_RENAMEAT, olddfd, newpath_addr, oldpath_addr, newdfd & U32, rename_flags,
                     user_data, sqe_flags, personality=personality)  # fmt: skip

    def prep_rename(
        self, oldpath_addr: int, newpath_addr: int, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_RENAMEAT: rename a file, both paths relative to the working directory.

        Since      Linux 5.11           Man   io_uring_prep_rename(3), rename(2)
        Memory     submit: both paths
        CQE res    0; < 0 -errno: ENOENT, EXDEV, ENOTEMPTY, ...
        CQE flags  none
        """
        self._encode(_RENAMEAT, _AT_FDCWD, newpath_addr, oldpath_addr, _AT_FDCWD & U32, 0,
                     user_data, sqe_flags, personality=personality)  # fmt: skip

    def prep_unlinkat(
        self, dfd: int, path_addr: int, unlink_flags: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_UNLINKAT: remove a name, of a directory if `unlink_flags` is AT_REMOVEDIR.

        Since      Linux 5.11           Man   io_uring_prep_unlinkat(3), unlinkat(2)
        Memory     submit: the path
        CQE res    0; < 0 -errno: ENOENT, EISDIR, ENOTEMPTY, EACCES, ...
        CQE flags  none
        """
        self._encode(_UNLINKAT, dfd, 0, path_addr, 0, unlink_flags, user_data, sqe_flags, personality=personality)

    def prep_unlink(
        self, path_addr: int, unlink_flags: int, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_UNLINKAT: remove a name, relative to the working directory.

        Since      Linux 5.11           Man   io_uring_prep_unlink(3), unlink(2)
        Memory     submit: the path
        CQE res    0; < 0 -errno: ENOENT, EISDIR, ENOTEMPTY, EACCES, ...
        CQE flags  none
        """
        self._encode(_UNLINKAT, _AT_FDCWD, 0, path_addr, 0, unlink_flags, user_data, sqe_flags,
                     personality=personality)  # fmt: skip

    def prep_mkdirat(
        self, dfd: int, path_addr: int, mode: int, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_MKDIRAT: make a directory with the permissions `mode`, less the umask.

        Since      Linux 5.15           Man   io_uring_prep_mkdirat(3), mkdirat(2)
        Memory     submit: the path
        CQE res    0; < 0 -errno: EEXIST, ENOENT, EACCES, ...
        CQE flags  none
        """
        self._encode(_MKDIRAT, dfd, 0, path_addr, mode, 0, user_data, sqe_flags, personality=personality)

    def prep_mkdir(
        self, path_addr: int, mode: int, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_MKDIRAT: make a directory, relative to the working directory.

        Since      Linux 5.15           Man   io_uring_prep_mkdir(3), mkdir(2)
        Memory     submit: the path
        CQE res    0; < 0 -errno: EEXIST, ENOENT, EACCES, ...
        CQE flags  none
        """
        self._encode(_MKDIRAT, _AT_FDCWD, 0, path_addr, mode, 0, user_data, sqe_flags, personality=personality)

    def prep_symlinkat(
        self, target_addr: int, newdirfd: int, linkpath_addr: int, personality: int = 0, *, user_data: int = 0,
        sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SYMLINKAT: make a symbolic link that says what `target_addr` points to.

        Since      Linux 5.15           Man   io_uring_prep_symlinkat(3), symlinkat(2)
        Memory     submit: both paths
        CQE res    0; < 0 -errno: EEXIST, ENOENT, EACCES, ...
        CQE flags  none
        """
        self._encode(_SYMLINKAT, newdirfd, linkpath_addr, target_addr, 0, 0, user_data, sqe_flags,
                     personality=personality)  # fmt: skip

    def prep_symlink(
        self, target_addr: int, linkpath_addr: int, personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SYMLINKAT: make a symbolic link, relative to the working directory.

        Since      Linux 5.15           Man   io_uring_prep_symlink(3), symlink(2)
        Memory     submit: both paths
        CQE res    0; < 0 -errno: EEXIST, ENOENT, EACCES, ...
        CQE flags  none
        """
        self._encode(_SYMLINKAT, _AT_FDCWD, linkpath_addr, target_addr, 0, 0, user_data, sqe_flags,
                     personality=personality)  # fmt: skip

    def prep_linkat(
        self, olddfd: int, oldpath_addr: int, newdfd: int, newpath_addr: int, hardlink_flags: int,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_LINKAT: give a file one more name.

        Since      Linux 5.15           Man   io_uring_prep_linkat(3), linkat(2)
        Memory     submit: both paths
        CQE res    0; < 0 -errno: EEXIST, ENOENT, EXDEV, EPERM, ...
        CQE flags  none
        """
        self._encode(_LINKAT, olddfd, newpath_addr, oldpath_addr, newdfd & U32, hardlink_flags,
                     user_data, sqe_flags, personality=personality)  # fmt: skip

    def prep_link(
        self, oldpath_addr: int, newpath_addr: int, hardlink_flags: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_LINKAT: give a file one more name, both paths relative to the working directory.

        Since      Linux 5.15           Man   io_uring_prep_link(3), link(2)
        Memory     submit: both paths
        CQE res    0; < 0 -errno: EEXIST, ENOENT, EXDEV, EPERM, ...
        CQE flags  none
        """
        self._encode(_LINKAT, _AT_FDCWD, newpath_addr, oldpath_addr, _AT_FDCWD & U32, hardlink_flags,
                     user_data, sqe_flags, personality=personality)  # fmt: skip

    def prep_getxattr(
        self, name_addr: int, value_addr: int, path_addr: int, nbytes: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_GETXATTR: read an extended attribute of a path into `nbytes` at `value_addr`.

        Since      Linux 5.19           Man   io_uring_prep_getxattr(3), getxattr(2)
        Memory     submit: path and name; completion: [value_addr, value_addr + nbytes) is written
        CQE res    n >= 0 the size of the value, which `nbytes` 0 asks for; < 0 -errno: ENODATA, ERANGE, ...
        CQE flags  none
        """
        self._encode(_GETXATTR, 0, value_addr, name_addr, nbytes, 0, user_data, sqe_flags,
                     personality=personality, addr3=path_addr)  # fmt: skip

    def prep_setxattr(
        self, name_addr: int, value_addr: int, path_addr: int, xattr_flags: int, nbytes: int,
        personality: int = 0, *, user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_SETXATTR: set an extended attribute of a path. `xattr_flags` are os.XATTR_*.

        Since      Linux 5.19           Man   io_uring_prep_setxattr(3), setxattr(2)
        Memory     submit: path, name and value
        CQE res    0; < 0 -errno: EEXIST, ENODATA, ENOTSUP, EPERM, ENOSPC, ...
        CQE flags  none
        """
        self._encode(_SETXATTR, 0, value_addr, name_addr, nbytes, xattr_flags, user_data, sqe_flags,
                     personality=personality, addr3=path_addr)  # fmt: skip

    def prep_fgetxattr(
        self, fd: int, name_addr: int, value_addr: int, nbytes: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FGETXATTR: read an extended attribute of an open file into `nbytes` at `value_addr`.

        Since      Linux 5.19           Man   io_uring_prep_fgetxattr(3), fgetxattr(2)
        Memory     submit: the name; completion: [value_addr, value_addr + nbytes) is written
        CQE res    n >= 0 the size of the value, which `nbytes` 0 asks for; < 0 -errno: ENODATA, ERANGE, ...
        CQE flags  none
        """
        self._encode(_FGETXATTR, fd, value_addr, name_addr, nbytes, 0, user_data, sqe_flags, personality=personality)

    def prep_fsetxattr(
        self, fd: int, name_addr: int, value_addr: int, xattr_flags: int, nbytes: int, personality: int = 0, *,
        user_data: int = 0, sqe_flags: int = 0,
    ) -> None:  # fmt: skip
        """Queue IORING_OP_FSETXATTR: set an extended attribute of an open file. `xattr_flags` are os.XATTR_*.

        Since      Linux 5.19           Man   io_uring_prep_fsetxattr(3), fsetxattr(2)
        Memory     submit: name and value
        CQE res    0; < 0 -errno: EEXIST, ENODATA, ENOTSUP, EPERM, ENOSPC, ...
        CQE flags  none
        """
        self._encode(_FSETXATTR, fd, value_addr, name_addr, nbytes, xattr_flags, user_data, sqe_flags,
                     personality=personality)  # fmt: skip
