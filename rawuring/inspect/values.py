"""How a value of each kind in `abi.fields` is read out of an SQE, put back, and shown.

May import abi, system and prep. Decoding loses nothing: `raw(kind, decoded(kind, number))` is the number again.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import select
import socket
from collections.abc import Mapping
from typing import Final

from .. import abi, system
from ..prep.base import U32, encoded_file_index
from ..prep.waiting import poll32_events

FieldValue = int | bytes | None
"""An int, for a flag field of io_uring's an enum; bytes for `cmd`; None for a file_index that names no slot."""

# What some Pythons lack. The same on every architecture.
_UAPI: Final[Mapping[str, Mapping[str, int]]] = {
    "P_": {"P_ALL": 0, "P_PID": 1, "P_PGID": 2, "P_PIDFD": 3},
    "RWF_": {
        "RWF_HIPRI": 1, "RWF_DSYNC": 2, "RWF_SYNC": 4, "RWF_NOWAIT": 8, "RWF_APPEND": 16, "RWF_NOAPPEND": 32,
        "RWF_ATOMIC": 64, "RWF_DONTCACHE": 128,
    },
    "SPLICE_F_": {"SPLICE_F_MOVE": 1, "SPLICE_F_NONBLOCK": 2, "SPLICE_F_MORE": 4, "SPLICE_F_GIFT": 8},
    "W": {"WNOHANG": 1, "WSTOPPED": 2, "WEXITED": 4, "WCONTINUED": 8, "WNOWAIT": 0x100_0000},
    "XATTR_": {"XATTR_CREATE": 1, "XATTR_REPLACE": 2},
}  # fmt: skip

_MODULES: Final = {
    "AF_": socket, "AT_": system, "EPOLL_CTL_": system, "FALLOC_FL_": system, "MADV_": mmap, "MSG_": socket, "O_": os,
    "POSIX_FADV_": os, "RENAME_": system, "SHUT_": socket, "SOCK_": socket, "STATX_": system, "SYNC_FILE_RANGE_": system,
}  # fmt: skip
_EXCLUSIVE: Final = ("AF_", "EPOLL_CTL_", "MADV_", "POSIX_FADV_", "P_", "SHUT_")
_SOCKET_TYPES: Final = 0xF  # the bits of a socket's type that are no flags


@functools.cache
def _system_names(prefix: str) -> dict[int, str]:
    """Number to name of the system's constants that start so."""
    found = _UAPI.get(prefix)
    if found is None:
        module = vars(_MODULES[prefix])
        found = {name: int(module[name]) for name in sorted(module, reverse=True) if name.startswith(prefix)}
    # A mask of the bits that hold the access mode is no flag.
    return {number: name for name, number in found.items() if name != "O_ACCMODE"}


@functools.cache
def _poll_names() -> dict[int, str]:
    names = {int(getattr(select, name)): name for name in dir(select) if name.startswith("EPOLL") and "_" not in name}
    return names | {int(getattr(select, name)): name for name in dir(select) if name.startswith("POLL")}


def _bit_names(number: int, names: Mapping[int, str]) -> str:
    """The names of the bits, those that cover several first, and what has no name as a number."""
    if number in names:
        return names[number]
    shown, rest = [], number
    for bits in sorted(names, key=int.bit_count, reverse=True):
        if bits and rest & bits == bits:
            shown.append((bits, names[bits]))
            rest &= ~bits
    words = [name for _, name in sorted(shown)]
    return "|".join([*words, hex(rest)] if rest or not words else words)


def enum_names(number: int, enum: type[abi.Flag | abi.Value]) -> str:
    """The member, or the members a number of flags is made of: `SINGLE_ISSUER|DEFER_TASKRUN`; "0" for none."""
    names = {int(member): name for name, member in enum.__members__.items()}
    if issubclass(enum, abi.Value):
        return names.get(number, str(number))
    return _bit_names(number, names) if number else "0"


def errno_name(res: int) -> str:
    """`-EAGAIN` of a negative result."""
    return f"-{errno.errorcode[-res]}" if -res in errno.errorcode else str(res)


def poll_names(mask: int) -> str:
    return _bit_names(mask, _poll_names())


@functools.cache
def _enums(kind: str) -> tuple[type[abi.Flag | abi.Value], ...]:
    return tuple(getattr(abi, name) for name in kind.split("|") if hasattr(abi, name))


def _enum_of(kind: str, number: int) -> type[abi.Flag | abi.Value] | None:
    """Which enum of `abi` the kind means by this number, if any."""
    for enum in _enums(kind):
        if issubclass(enum, abi.Flag) or number in set(enum):
            return enum
    return None


def has_member(kind: str, value: FieldValue, members: tuple[str, ...]) -> bool:
    """Is a value one of these members of its kind, or has it one of these flags?"""
    enum = _enum_of(kind, value) if isinstance(value, int) else None
    wanted = [] if enum is None else [int(enum[name]) for name in members if name in enum.__members__]
    if enum is not None and issubclass(enum, abi.Flag):
        return any(bits & int(value or 0) for bits in wanted)
    return value in wanted


def decoded(kind: str, number: int, nbytes: int) -> FieldValue:
    """The value that the unsigned `number` of `nbytes` bytes stands for."""
    if kind in ("fd", "dirfd", "offset", "signed", "Futex2"):
        half = 1 << nbytes * 8 - 1
        number = (number ^ half) - half
    if kind == "poll":
        return poll32_events(number)  # which is its own inverse
    if kind == "new_slot":
        return None if not number else number if number == abi.FILE_INDEX_ALLOC else number - 1
    enum = _enum_of(kind, number)
    if enum is None or (issubclass(enum, abi.Flag) and number < 0):
        return number
    return enum(number)


def raw(kind: str, value: FieldValue, nbytes: int) -> int:
    """The unsigned number of `nbytes` bytes that stands for a value: the inverse of `decoded`."""
    if kind == "new_slot":
        return 0 if value is None else encoded_file_index(int(value))
    if not isinstance(value, int):
        raise TypeError(f"a value of the kind {kind!r} is an int, not {value!r}")
    if kind == "poll":
        return poll32_events(value)
    return int(value) & (1 << nbytes * 8) - 1 if value < 0 else int(value)


def shown(kind: str, value: FieldValue) -> str:
    """A value as text, without its name."""
    if isinstance(value, bytes):
        text = value.rstrip(b"\0").hex()
        return text or "0"
    if value is None:
        return "none"
    if kind == "new_slot":
        return "ALLOC" if value == abi.FILE_INDEX_ALLOC else f"slot {value}"
    if kind == "poll":
        return poll_names(value)
    if kind == "dirfd" and value == abi.AT_FDCWD:
        return "AT_FDCWD"
    if kind == "mode":
        return f"0o{value:o}"
    if kind == "user_data" or kind.startswith("*"):
        return hex(value) if value else "0"
    if kind == "SPLICE_F_":
        return _bit_names(value, {**_system_names(kind), int(abi.Splice.FD_IN_FIXED): "SPLICE_F_FD_IN_FIXED"})
    if kind == "SOCK_":
        return _socket_type(value)
    if kind in _EXCLUSIVE:
        return _system_names(kind).get(value, str(value))
    if kind in _UAPI or kind in _MODULES:
        return _bit_names(value, _system_names(kind))
    enum = _enum_of(kind, value)
    if enum is None or value < 0:
        return hex(value) if value > U32 else str(value)
    return enum_names(value, enum)


def _socket_type(value: int) -> str:
    names = _system_names("SOCK_")
    base, extra = value & _SOCKET_TYPES, value & ~_SOCKET_TYPES
    words = [names.get(base, str(base))] if base else []
    if extra:
        words.append(_bit_names(extra, {bits: name for bits, name in names.items() if bits > _SOCKET_TYPES}))
    return "|".join(words) or "0"


def says_something(kind: str, value: FieldValue) -> bool:
    """Would a reader miss the value in a short text? Flags and options that are 0 say nothing."""
    if kind == "one":
        return value != 1
    if any(issubclass(enum, abi.Value) for enum in _enums(kind)):
        return True
    if value or kind in ("fd", "dirfd", "slot", "user_data", "offset", "poll", "P_", "SHUT_"):
        return not isinstance(value, bytes) or any(value)
    return False
