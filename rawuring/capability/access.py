"""Policy and limits: what the three calls answered, sysctls, seccomp, modules, RLIMIT_MEMLOCK, capabilities.

May import abi, atomics and diagnosis. Never judges.
"""

from __future__ import annotations

import errno

from .. import abi, atomics
from ..diagnosis import Facts, facts
from ..diagnosis.limits import largest_ring
from ..diagnosis.report import errno_name, signal_name
from .report import Access, Call, Memlock


def describe(seen: Facts, ring: str | None) -> Access:
    """What was gathered, and what only a report wants to know besides; `ring` says why none can be made."""
    status = facts.thread_status()
    initial = facts.in_initial_user_namespace()
    no_new_privs = facts.to_int(status.get("NoNewPrivs"))
    return Access(
        calls=(
            _call("io_uring_setup", seen.setup_errno, seen, errno.EFAULT),
            _call("io_uring_enter", seen.enter_errno, seen, errno.EBADF),
            _call("io_uring_register", seen.register_errno, seen, errno.EINVAL, errno.EBADF),
        ),
        io_uring_disabled=seen.disabled,
        io_uring_group=seen.group,
        is_in_group=seen.in_group,
        seccomp_mode=seen.seccomp,
        seccomp_filters=facts.to_int(status.get("Seccomp_filters")),
        no_new_privs=None if no_new_privs is None else bool(no_new_privs),
        lsm=seen.modules or None,
        container=seen.runtime,
        memlock=_memlock(seen.memory or facts.memory_limit()),
        capabilities={name: facts.has_capability(status, initial, name) for name in facts.CAPABILITIES},
        atomics=atomics.backend,
        ring=ring,
    )


def _call(name: str, answer: int | None, seen: Facts, *natural: int) -> Call:
    if name in seen.fatal and seen.killed_by is not None:
        return Call(name, signal_name(seen.killed_by), "killed")
    if answer is None:
        return Call(name, None, "unknown")
    meaning = "reachable" if answer in natural else "absent" if answer == errno.ENOSYS else "refused"
    return Call(name, errno_name(answer), meaning)


def _memlock(limit: facts.MemoryLimit) -> Memlock:
    is_unlimited = None if limit.soft is None else limit.soft < 0
    is_charged = False if limit.exempt else limit.charged
    if is_unlimited or is_charged is False:
        largest: int | None = abi.MAX_ENTRIES
    else:
        largest = None if limit.soft is None or is_charged is None else largest_ring(limit.soft, 0)
    return Memlock(
        soft_nbytes=_bounded(limit.soft),
        hard_nbytes=_bounded(limit.hard),
        is_unlimited=is_unlimited,
        is_charged=is_charged,
        largest_ring_entries=largest,
    )


def _bounded(nbytes: int | None) -> int | None:
    return None if nbytes is None or nbytes < 0 else nbytes
