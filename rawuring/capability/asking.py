"""What this kernel knows of each table of `abi`, by asking it.

May import abi, diagnosis, register and syscalls. Never judges, and never asks os.uname().

Where a ring can be made, what is asked is the thing itself: REGISTER_PROBE for each operation, and each
register verb by a call that the verb refuses. REGISTER_QUERY (Linux 6.18) knows what the kernel's code
has, not what was left out when it was built; but it needs no ring, so it answers where none can be made.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from .. import abi, register, syscalls
from ..diagnosis import facts, is_known
from ..register.queries import Query, query
from .answering import in_child

_Register, _Setup = abi.Register, abi.Setup

_QUERY: Final = "REGISTER_QUERY"
_PROBE: Final = "REGISTER_PROBE"
_PARAMS: Final = "io_uring_setup"
_TRIAL: Final = "trial"


# What a child answers about a table: value, presence and source of each row, and the count of those beyond it.
_Found = tuple[list[tuple[int, bool | None, str]], int | None]


class Answer(NamedTuple):
    """What was found out about a table."""

    present: dict[int, tuple[bool | None, str]]  # of each value of the table, and what said so
    beyond: int | None  # how many the kernel knows and the table does not


def ask(can_make_ring: bool, can_register: bool) -> dict[str, Answer]:
    """An answer for each table, in a child for each: what ends one of them leaves the others."""
    if can_make_ring:
        found = {table: in_child(asker) for table, asker in _ASKERS.items()}
    else:
        found = (in_child(_tables_of_code) if can_register else None) or {}
    return {table: _answer(found.get(table)) for table in _ASKERS}


def _answer(found: _Found | None) -> Answer:
    present, beyond = found or ([], None)
    return Answer({value: (there, source) for value, there, source in present}, beyond)


def _by_mask(table: Iterable[int], mask: int, source: str) -> _Found:
    known = [int(flag) for flag in table]
    return [(flag, bool(mask & flag), source) for flag in known], (mask & ~sum(known)).bit_count()


def _by_count(table: Iterable[int], count: int) -> _Found:
    known = [int(value) for value in table]
    return [(value, value < count, _QUERY) for value in known], max(0, count - len(known))


def _query() -> Query | None:
    try:
        return query()
    except OSError:
        return None


# -- With a ring.


def _features() -> _Found:
    _, params = _make_ring()
    return _by_mask(abi.Feature, abi.IO_URING_PARAMS.get(params, "features"), _PARAMS)


def _setup_flags() -> _Found:
    answer = _query()
    if answer is not None:
        return _by_mask(_Setup, answer.ring_setup_flags, _QUERY)
    return [(int(flag), is_known(flag), _TRIAL) for flag in _Setup], None


def _opcodes() -> _Found:
    fd, _ = _make_ring()
    there = register.probe(fd)
    known = [int(op) for op in abi.Op]
    return [(op, op in there, _PROBE) for op in known], len(there - set(known))


def _register_ops() -> _Found:
    answer = _query()
    beyond = None if answer is None else max(0, answer.nr_register_opcodes - len(_Register))
    return [(int(verb), there, _TRIAL) for verb, there in _verbs_there().items()], beyond


def _make_ring() -> tuple[int, bytearray]:
    fd, params = _try_ring(0)
    if fd < 0:
        raise OSError(-fd, "a trial ring")
    return fd, params


def _try_ring(setup_flags: int) -> tuple[int, bytearray]:
    """The fd of a ring of 2 entries, or -errno, and the kernel's answer. The child's end closes it."""
    params = abi.IO_URING_PARAMS.pack(flags=setup_flags)
    fd = -1

    def attempt() -> int:
        nonlocal fd
        try:
            fd = syscalls.setup(2, params)
        except OSError as error:
            fd = -(error.errno or errno.EIO)
        return max(0, -fd)

    facts.patiently(attempt)
    return fd, params


# -- The register verbs. Each is called so that it is found and then refuses, by default with one argument at
# an address where nothing is: EFAULT. A verb that the kernel does not know gives EINVAL, or EBADF without a ring.

_NOWHERE: Final = 8
_NR_ARGS: Final = {
    _Register.FILES2: abi.IO_URING_RSRC_REGISTER.nbytes,
    _Register.FILES_UPDATE2: abi.IO_URING_RSRC_UPDATE2.nbytes,
    _Register.BUFFERS2: abi.IO_URING_RSRC_REGISTER.nbytes,
    _Register.BUFFERS_UPDATE: abi.IO_URING_RSRC_UPDATE2.nbytes,
    _Register.IOWQ_MAX_WORKERS: 2,
    _Register.FILE_ALLOC_RANGE: 0,
    _Register.CLOCK: 0,
    _Register.QUERY: 0,
    _Register.ZCRX_CTRL: 0,
}
# They refuse because there is nothing to undo (ENXIO) or nothing to enable (EBADFD), or do what ends with the ring.
_WITHOUT_ARGUMENT: Final = (
    _Register.UNREGISTER_BUFFERS,
    _Register.UNREGISTER_FILES,
    _Register.UNREGISTER_EVENTFD,
    _Register.PERSONALITY,
    _Register.ENABLE_RINGS,
    _Register.UNREGISTER_IOWQ_AFF,
)
_DEFERRED: Final = _Setup.SINGLE_ISSUER | _Setup.DEFER_TASKRUN
_ON_SPECIAL_RING: Final = {
    _Register.RESIZE_RINGS: _DEFERRED,
    _Register.ZCRX_IFQ: _DEFERRED | _Setup.CQE32,
}
_ON_NO_RING: Final = (_Register.SEND_MSG_RING, _Register.QUERY)
_ASKS_FOR_PRIVILEGE: Final = (_Register.ZCRX_IFQ, _Register.BPF_FILTER)


def _verbs_there() -> dict[abi.Register, bool | None]:
    found: dict[abi.Register, bool | None] = {}
    # One ring at a time: RLIMIT_MEMLOCK may have room for no more.
    for setup_flags in {_ON_SPECIAL_RING.get(verb, _Setup(0)) for verb in _Register}:
        fd, _ = _try_ring(int(setup_flags))
        for verb in _Register:
            if _ON_SPECIAL_RING.get(verb, 0) == setup_flags:
                found[verb] = _is_there(verb, fd)
        if fd >= 0:
            os.close(fd)
    return found


def _is_there(verb: abi.Register, fd: int) -> bool | None:
    if fd < 0:
        return False if fd == -errno.EINVAL else None  # the ring that it needs is older than the verb
    if verb in _ON_NO_RING:
        fd = -1
    addr: int | None = _NOWHERE
    nr_args = _NR_ARGS.get(verb, 1)
    if verb in _WITHOUT_ARGUMENT:
        addr, nr_args = None, 0
    elif verb == _Register.UNREGISTER_PERSONALITY:
        addr, nr_args = None, _call(fd, _Register.PERSONALITY, None, 0)
    code = -_call(fd, verb, addr, nr_args)
    if code in (errno.EPERM, errno.EACCES):
        return verb in _ASKS_FOR_PRIVILEGE  # else a filter or a restriction
    return code not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS) and not (fd < 0 and code == errno.EBADF)


def _call(fd: int, verb: int, addr: int | None, nr_args: int) -> int:
    try:
        return syscalls.register(fd, verb, addr, nr_args)
    except OSError as error:
        return -(error.errno or errno.EIO)


_ASKERS: Final[dict[str, Callable[[], _Found]]] = {
    "features": _features,
    "setup_flags": _setup_flags,
    "opcodes": _opcodes,
    "register_ops": _register_ops,
}


# -- Without a ring.


def _tables_of_code() -> dict[str, _Found]:
    answer = _query()
    if answer is None:
        return {}
    return {
        "features": _by_mask(abi.Feature, answer.feature_flags, _QUERY),
        "setup_flags": _by_mask(_Setup, answer.ring_setup_flags, _QUERY),
        "opcodes": _by_count(abi.Op, answer.nr_request_opcodes),
        "register_ops": _by_count(_Register, answer.nr_register_opcodes),
    }
