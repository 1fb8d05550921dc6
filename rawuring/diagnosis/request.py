"""Why one set-up failed: what was asked for, held against the kernel's rules and trial rings.

May import `abi`. Never keeps a ring: a trial is closed at once.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from .. import abi
from . import facts
from .limits import explain_enomem, explain_fd_limit, power_of_two
from .report import CERTAIN, LIKELY, POSSIBLE, Diagnosis, bits_of, failed, flag_name, flag_names, version_of
from .triage import classify

# entries, set-up flags, cq_entries, sq_thread_cpu, wq_fd -> errno, 0 if the ring could be made.
Trial = Callable[[int, int, int, int, int], int]


def explain_setup_failure(
    errno_value: int,
    entries: int,
    setup_flags: int,
    cq_entries: int | None = None,
    trial: Trial | None = None,
    *,
    sq_thread_cpu: int | None = None,
    wq_fd: int | None = None,
) -> Diagnosis:
    """Why io_uring_setup with these parameters failed with `errno_value`."""
    request = _Request(entries, int(setup_flags), cq_entries, sq_thread_cpu, wq_fd, trial or facts.trial)
    if errno_value == errno.EINVAL:
        return _explain_einval(request)
    if errno_value == errno.ENOMEM:
        return explain_enomem(entries, setup_flags, cq_entries, facts.memory_limit())
    if errno_value in (errno.EMFILE, errno.ENFILE):
        return explain_fd_limit(errno_value, *facts.rlimit("RLIMIT_NOFILE"))
    if errno_value in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return classify(facts.gather(errno_value)) or _explain_refused_sqpoll(errno_value, request)
    if errno_value in (errno.ENXIO, errno.EBADF) and setup_flags & abi.Setup.ATTACH_WQ:
        return _bad_wq_fd(errno_value, request)
    if errno_value == errno.EOVERFLOW and setup_flags & (abi.Setup.SQE_MIXED | abi.Setup.CQE_MIXED):
        return Diagnosis(
            "bad-entries",
            LIKELY,
            f"{failed(errno_value)}: a large entry takes two places, so with SQE_MIXED or CQE_MIXED "
            "a queue of one entry cannot be.",
            "Ask for at least 2 entries.",
        )
    if errno_value == errno.EAGAIN and setup_flags & abi.Setup.SQPOLL:
        return Diagnosis(
            "thread-limit",
            LIKELY,
            f"{failed(errno_value)}: the kernel could not start the thread of SQPOLL, "
            "probably because this user or container has as many as it may have.",
            "End some, leave out SQPOLL, or raise the limit "
            "(`ulimit -u`; pids.max of the cgroup; `docker run --pids-limit=N`; TasksMax= of the systemd unit).",
        )
    if errno_value == errno.EBUSY and setup_flags & abi.Setup.REGISTERED_FD_ONLY:
        return Diagnosis(
            "registered-fd-limit",
            LIKELY,
            f"{failed(errno_value)}: this thread has registered as many rings as it may have (16).",
            "Unregister one, or leave out REGISTERED_FD_ONLY.",
        )
    if errno_value == errno.EFAULT and setup_flags & abi.Setup.NO_MMAP:
        return Diagnosis(
            "bad-memory",
            LIKELY,
            f"{failed(errno_value)}: the memory given for NO_MMAP is not mapped or not writable.",
            "Give addresses of mapped, page-aligned memory in cq_off.user_addr (rings) and sq_off.user_addr (SQEs).",
        )
    return _unexplained(errno_value, request)


def why_unavailable() -> Diagnosis | None:
    """Why this thread can make no ring at all, or None if it can."""
    return classify(facts.gather())


def is_known(flag: int) -> bool | None:
    """Does this kernel know the Setup flag? Asked with a trial ring, which must be possible without the flag."""
    code = facts.patiently(lambda: try_harmless(with_needs(flag), facts.trial))
    return None if code == errno.ENOMEM else code != errno.EINVAL


def try_harmless(setup_flags: int, trial: Trial) -> int:
    return trial(2, setup_flags, 4, _any_cpu(), -1)


def with_needs(flag: int, preferred: int = 0) -> int:
    """The flag and those that it does not go without; of alternatives a preferred one, or the first."""
    needs = next((needs for other, needs in abi.SETUP_REQUIRES.items() if other == flag), ())
    for need in [need for need in needs if need & preferred] or needs[:1]:
        flag |= with_needs(int(need), preferred)
    return flag


def _any_cpu() -> int:
    return (facts.allowed_cpus() or [0])[0]


@dataclass(frozen=True)
class _Request:
    entries: int
    setup_flags: int
    cq_entries: int | None
    sq_thread_cpu: int | None
    wq_fd: int | None
    trial: Trial

    def try_all_but(self, left_out: int) -> int:
        """The errno of the ring as asked for, without some of its flags."""
        cq_entries = self.cq_entries or 2 * self.entries
        cpu = _any_cpu() if self.sq_thread_cpu is None else self.sq_thread_cpu
        wq_fd = -1 if self.wq_fd is None else self.wq_fd
        return self.trial(self.entries, self.setup_flags & ~int(left_out), cq_entries, cpu, wq_fd)

    def try_harmless(self, setup_flags: int) -> int:
        """The errno of a small ring with these flags, whose values are not those asked for."""
        return try_harmless(setup_flags, self.trial)

    def unknown_to_kernel(self) -> list[int]:
        """The flags of which a ring is refused that has nothing else wrong with it."""
        if self.try_harmless(0) == errno.EINVAL:
            return []  # a plain ring is refused too, so a trial says nothing about flags
        # Those that need the fewest others first, so that none is blamed for one that it needs.
        flags = sorted(bits_of(self.setup_flags), key=lambda bit: with_needs(bit, self.setup_flags).bit_count())
        return [bit for bit in flags if self.try_harmless(with_needs(bit, self.setup_flags)) == errno.EINVAL]


def _explain_einval(request: _Request) -> Diagnosis:
    for check in (_bad_entries, _bad_flag_pair, _bad_cq_entries):
        found = check(request)
        if found is not None:
            return found
    if request.try_harmless(0) == errno.EINVAL:  # a plain ring is refused too
        return classify(facts.gather(errno.EINVAL)) or _unexplained(errno.EINVAL, request)
    return _unknown_flag(request) or _bad_value(request) or _unexplained(errno.EINVAL, request)


def _bad_entries(request: _Request) -> Diagnosis | None:
    entries, limit = request.entries, abi.MAX_ENTRIES
    if entries < 1:
        return _einval("bad-entries", f"a ring cannot have {entries} entries.", f"Ask for 1 to {limit}.")
    if entries > limit and not request.setup_flags & abi.Setup.CLAMP:
        return _einval(
            "bad-entries",
            f"{entries} entries are more than the {limit} that a ring can have.",
            f"Ask for 1 to {limit}, or add CLAMP to get as many as possible.",
        )
    return None


def _bad_flag_pair(request: _Request) -> Diagnosis | None:
    asked = request.setup_flags
    for one, other in abi.SETUP_CONFLICTS:
        if asked & one and asked & other:
            why = f"{flag_name(one)} and {flag_name(other)} do not go together: {_why_not_both(one, other)}"
            return _bad_flags(request, "flags-conflict", why, (one, other), "")
    for flag, needs in abi.SETUP_REQUIRES.items():
        if asked & flag and not any(asked & need for need in needs):
            names = " or ".join(map(flag_name, needs))
            return _bad_flags(request, "flag-needs", f"{flag_name(flag)} needs {names}", (flag,), f"Add {names}, or ")
    return None


def _bad_flags(request: _Request, cause: str, why: str, culprits: tuple[int, ...], or_else: str) -> Diagnosis:
    """These flags are wrong on every kernel. Advise nothing that this one would refuse again."""
    refused = request.unknown_to_kernel()
    unknown = [flag for flag in culprits if flag in refused]
    if unknown:
        names = " and ".join(map(flag_name, unknown))
        return _einval(cause, f"{why}; besides, {_this_kernel()} does not know {names}.", f"Leave out {names}.")
    names = " or ".join(map(flag_name, culprits))
    return _einval(cause, f"{why}.", f"{or_else}leave out {names}." if or_else else f"Leave out {names}.")


def _why_not_both(one: int, other: int) -> str:
    if abi.Setup.SQE128 in (one, other) or abi.Setup.CQE32 in (one, other):
        return "one makes every entry large, the other lets sizes mix"
    if abi.Setup.SQ_REWIND in (one, other):
        return "the polling thread follows a tail that SQ_REWIND does not move"
    if abi.Setup.SQPOLL in (one, other):
        return "with SQPOLL a thread of the kernel runs the work that the other flag leaves to the application's"
    return "the kernel refuses the pair"


def _bad_cq_entries(request: _Request) -> Diagnosis | None:
    if not request.setup_flags & abi.Setup.CQSIZE:
        return None
    cq_entries, limit = request.cq_entries or 0, abi.MAX_CQ_ENTRIES
    sq_entries = min(power_of_two(request.entries), abi.MAX_ENTRIES)
    if cq_entries < 1:
        return _einval("bad-cq-entries", f"a CQ cannot have {cq_entries} entries.", f"Ask for 1 to {limit}.")
    if cq_entries > limit and not request.setup_flags & abi.Setup.CLAMP:
        return _einval(
            "bad-cq-entries",
            f"{cq_entries} CQ entries are more than the {limit} that a ring can have.",
            f"Ask for {sq_entries} to {limit}, or add CLAMP to get as many as possible.",
        )
    if power_of_two(cq_entries) < sq_entries:
        return _einval(
            "bad-cq-entries",
            f"{cq_entries} CQ entries are fewer than the {sq_entries} of the SQ.",
            f"Ask for {sq_entries} to {limit}, or leave it to the kernel, which takes twice the SQ.",
        )
    return None


def _unknown_flag(request: _Request) -> Diagnosis | None:
    unknown = request.unknown_to_kernel()
    if not unknown:
        return None
    flag = unknown[0]
    name, since = flag_name(flag), {int(known): known.since for known in abi.Setup}.get(flag)
    evidence = (f"trial rings: EINVAL with {flag_names(with_needs(flag, request.setup_flags))}, not without flags",)
    if since is None:
        return _einval("flag-unsupported", f"{_this_kernel()} does not know {name}.", "Leave it out.", evidence)
    release, needed = version_of(facts.release()), version_of(since)
    if release is not None and needed is not None and release >= needed:
        why = f"{name} came with Linux {since}, but {_this_kernel()} refuses it."
        return _einval("flag-unsupported", why, f"Leave out {name}.", evidence)
    why = f"{name} needs Linux {since}, and {_this_kernel()} does not know it."
    fix = f"Leave out {name}, or run on Linux {since} or later."
    return _einval("flag-unsupported", why, fix, evidence)


def _bad_value(request: _Request) -> Diagnosis | None:
    """Every flag is known and no pair is wrong: a value, or a company of more than two."""
    asked = request.setup_flags
    if asked & abi.Setup.SQ_AFF and _refused_because_of(request, abi.Setup.SQ_AFF):
        cpu = "the CPU in sq_thread_cpu" if request.sq_thread_cpu is None else f"CPU {request.sq_thread_cpu}"
        cpus = ", ".join(map(str, facts.allowed_cpus())) or "those that are online"
        return _einval(
            "bad-cpu",
            f"{cpu}, to which SQ_AFF binds, is not online or not allowed to this process.",
            f"Choose from {cpus}, or leave out SQ_AFF.",
        )
    if asked & abi.Setup.ATTACH_WQ and _refused_because_of(request, abi.Setup.ATTACH_WQ):
        return _bad_wq_fd(errno.EINVAL, request)
    if asked & abi.Setup.NO_MMAP:
        return Diagnosis(
            "bad-memory",
            POSSIBLE,
            f"{failed(errno.EINVAL)}: the memory given for NO_MMAP may not be page-aligned.",
            "Give page-aligned addresses in cq_off.user_addr (rings) and sq_off.user_addr (SQEs).",
        )
    if request.try_all_but(0) != errno.EINVAL:
        return None
    culprits = [bit for bit in bits_of(asked) if request.try_all_but(bit) != errno.EINVAL]
    if not culprits:
        return None
    names = " or ".join(map(flag_name, culprits))
    return Diagnosis(
        "flags-conflict",
        LIKELY,
        f"{failed(errno.EINVAL)}: {_this_kernel()} refuses {flag_names(asked)} together.",
        f"Leave out {names}.",
        (f"trial rings: EINVAL with all these flags, not without {names}",),
    )


def _refused_because_of(request: _Request, flag: int) -> bool:
    return request.try_all_but(0) == errno.EINVAL and request.try_all_but(flag) != errno.EINVAL


def _bad_wq_fd(errno_value: int, request: _Request) -> Diagnosis:
    fd = "wq_fd" if request.wq_fd is None else f"wq_fd {request.wq_fd}"
    kind = "an open ring with SQPOLL" if request.setup_flags & abi.Setup.SQPOLL else "an open ring"
    return Diagnosis(
        "bad-wq-fd",
        CERTAIN,
        f"{failed(errno_value)}: {fd}, whose workers ATTACH_WQ shares, is not {kind}.",
        f"Give the fd of {kind}, or leave out ATTACH_WQ.",
    )


def _explain_refused_sqpoll(errno_value: int, request: _Request) -> Diagnosis:
    """A plain ring can be made. SQPOLL is the one flag that asks for a privilege."""
    if not request.setup_flags & abi.Setup.SQPOLL or request.try_all_but(abi.Setup.SQPOLL | abi.Setup.SQ_AFF) != 0:
        return _unexplained(errno_value, request)
    here = facts.release()
    version = version_of(here)
    evidence = ("a ring with the same parameters but without SQPOLL can be made",)
    if errno_value == errno.EPERM and version is not None and version < (5, 13):
        needs = "CAP_SYS_NICE" if version >= (5, 11) else "CAP_SYS_ADMIN"
        return Diagnosis(
            "sqpoll-privilege",
            LIKELY,
            f"{failed(errno_value)}: before Linux 5.13 SQPOLL needs {needs}, and this kernel is {here}.",
            f"Leave out SQPOLL, or run with {needs} or on Linux 5.13 or later.",
            evidence,
        )
    return Diagnosis(
        "lsm",
        LIKELY,
        f"{failed(errno_value)}: a security module forbids this process to use SQPOLL.",
        "Leave out SQPOLL, or allow it in that policy: as root, `dmesg | grep -i denied` shows which it is.",
        evidence,
    )


def _this_kernel() -> str:
    return f"this kernel ({facts.release() or 'of unknown release'})"


def _einval(cause: str, why: str, fix: str, evidence: tuple[str, ...] = ()) -> Diagnosis:
    return Diagnosis(cause, CERTAIN, f"{failed(errno.EINVAL)}: {why}", fix, evidence)


def _unexplained(errno_value: int, request: _Request) -> Diagnosis:
    asked = f"{request.entries} entries, flags {flag_names(request.setup_flags)}"
    if request.cq_entries is not None:
        asked += f", {request.cq_entries} CQ entries"
    return Diagnosis(
        "unknown",
        POSSIBLE,
        f"{failed(errno_value)} on {_this_kernel()} for {asked}, and the cause is not known.",
        "Leave out flags one by one to find the one that matters." if request.setup_flags else "Try again.",
    )
