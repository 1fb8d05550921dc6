"""From the facts to the reason why no ring at all can be made.

May import its siblings `facts`, `limits` and `report`. Never observes anything: that is `facts.gather`.

The answers of the three calls                               setup    enter    register
reachable                                                    EFAULT   EBADF    EINVAL or EBADF
sysctl, security module, or a filter on the first alone      EPERM or EACCES, and the other two answer
a seccomp filter with an errno (Docker: EPERM)               anything else: the kernel's code does not give it
Podman's filter, an emulator, or a kernel without io_uring   ENOSYS   ENOSYS   ENOSYS
a seccomp filter that kills (Android)                        the child ends by SIGSYS
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from .facts import Facts, MemoryLimit
from .limits import explain_enomem, explain_fd_limit, group_name, user_name
from .report import CERTAIN, LIKELY, POSSIBLE, Diagnosis, errno_name, failed, version_of

_FIRST_RELEASE: Final = (5, 1)
_THREE_CALLS: Final = "io_uring_setup, io_uring_enter and io_uring_register"


def classify(facts: Facts) -> Diagnosis | None:
    """The diagnosis that these facts allow; None if a ring can be made."""
    if facts.system != "linux":
        return _diagnose(
            facts, "not-linux", CERTAIN, f"io_uring is a part of Linux, and this is {facts.system}.", "Run on Linux."
        )
    if facts.killed_by == signal.SIGSYS:
        why = f"a seccomp filter{_whose(facts)} kills a process for {_together(facts.fatal)}."
        return _diagnose(facts, "seccomp", CERTAIN, why, _seccomp_fix(facts))
    answers = (facts.setup_errno, facts.enter_errno, facts.register_errno)
    if facts.killed_by is not None or None in answers:
        return _undecided(facts)
    if not _unnatural(facts):
        return _reachable(facts)
    if _unnatural(facts) == ["io_uring_setup"] and facts.setup_errno in (errno.EPERM, errno.EACCES):
        return _refused_by_policy(facts)
    if answers == (errno.ENOSYS,) * 3:
        return _absent(facts)
    return _filtered(facts)


def diagnoses(facts: Facts) -> tuple[Diagnosis, ...]:
    """What `classify` says, and what would be in the way behind that; nothing if a ring can be made."""
    first = classify(facts)
    if first is None:
        return ()
    if first.cause in ("seccomp", "interceptor") and facts.sysctl_denies:
        return first, _denied_by_sysctl(replace(facts, observed_errno=None, setup_errno=None), CERTAIN)
    return (first,)


def _unnatural(facts: Facts) -> list[str]:
    """The calls that were not answered as the kernel's own code answers them."""
    return [
        name
        for name, answer, natural in (
            ("io_uring_setup", facts.setup_errno, (errno.EFAULT,)),
            ("io_uring_enter", facts.enter_errno, (errno.EBADF,)),
            ("io_uring_register", facts.register_errno, (errno.EINVAL, errno.EBADF)),
        )
        if answer not in natural
    ]


def _reachable(facts: Facts) -> Diagnosis | None:
    """All three calls are reachable; a real ring may still be refused."""
    if facts.trial_errno == 0:
        return None
    if facts.trial_errno is None:
        return _undecided(facts)
    if facts.trial_errno == errno.ENOMEM:
        return explain_enomem(2, 0, None, facts.memory or MemoryLimit())
    if facts.trial_errno in (errno.EMFILE, errno.ENFILE):
        return explain_fd_limit(facts.trial_errno, *facts.open_files)
    if facts.trial_errno in (errno.EPERM, errno.EACCES):
        return _denied_by_module(facts)
    return _diagnose(
        facts,
        "unknown",
        POSSIBLE,
        f"io_uring is reachable, but a ring of 2 entries gives {errno_name(facts.trial_errno)}.",
        "The evidence of this diagnosis says what was tried.",
    )


def _filtered(facts: Facts) -> Diagnosis:
    """Answers that the kernel's own code never gives."""
    calls = _unnatural(facts)
    what = _together(calls)
    if facts.seccomp == 0:
        return _diagnose(
            facts,
            "interceptor",
            LIKELY,
            f"something other than seccomp answers {what} in the kernel's place: "
            "an emulator, a tracer, or a sandbox with a kernel of its own.",
            "Run outside it.",
        )
    confidence = CERTAIN if facts.seccomp == 2 else LIKELY
    why = f"a seccomp filter{_whose(facts)} refuses {what}."
    return _diagnose(facts, "seccomp", confidence, why, _seccomp_fix(facts))


def _absent(facts: Facts) -> Diagnosis:
    """ENOSYS three times."""
    version = version_of(facts.release)
    present = True if facts.disabled is not None else facts.built_in
    if present is None and version is not None and version < _FIRST_RELEASE:
        present = False
    here = facts.release or "of unknown release"
    if facts.emulator is not None and present is not False:
        return _diagnose(
            facts,
            "emulator",
            LIKELY,
            f"this program runs under {facts.emulator}, which does not pass io_uring's system calls on to the kernel.",
            "Run it on a machine of its own architecture, or in a virtual machine.",
        )
    if present and facts.seccomp == 0:
        return _filtered(facts)
    if present:
        why = f"a seccomp filter{_whose(facts)} hides io_uring, which this kernel ({here}) has."
        return _diagnose(facts, "seccomp", CERTAIN if facts.seccomp == 2 else LIKELY, why, _seccomp_fix(facts))
    if present is None and facts.seccomp == 2 and not _sysctl_is_missing(facts):
        why = f"a seccomp filter{_whose(facts)} hides io_uring, or this kernel ({here}) was built without it."
        return _diagnose(facts, "seccomp", LIKELY, why, _seccomp_fix(facts))
    if version is not None and version < _FIRST_RELEASE:
        why = f"this kernel ({here}) does not have io_uring, which came with Linux 5.1."
        fix = "Run on Linux 5.10 or later (WSL: version 2; gVisor: outside it)."
        return _diagnose(facts, "absent", CERTAIN, why, fix)
    confidence = CERTAIN if present is False else LIKELY if facts.seccomp is not None else POSSIBLE
    return _diagnose(
        facts,
        "absent",
        confidence,
        f"this kernel ({here}) was built without io_uring.",
        "Run on a kernel with CONFIG_IO_URING=y, such as those of the common distributions.",
    )


def _sysctl_is_missing(facts: Facts) -> bool:
    """From 6.6 on a kernel that has io_uring shows kernel.io_uring_disabled."""
    version = version_of(facts.release)
    return facts.disabled is None and bool(facts.proc_readable) and version is not None and version >= (6, 6)


def _refused_by_policy(facts: Facts) -> Diagnosis:
    """io_uring_setup alone is refused: by the sysctl, a security module, or a filter on it alone."""
    if facts.setup_errno == errno.EPERM:
        if facts.sysctl_denies:
            return _denied_by_sysctl(facts, CERTAIN)
        if facts.sysctl_denies is None:
            return _denied_by_sysctl(facts, LIKELY) if facts.disabled is not None else _denied_by_something(facts)
        if facts.seccomp == 2:
            why = f"a seccomp filter{_whose(facts)} refuses io_uring_setup (kernel.io_uring_disabled allows it)."
            return _diagnose(facts, "seccomp", LIKELY, why, _seccomp_fix(facts))
    return _denied_by_module(facts)


def _denied_by_sysctl(facts: Facts, confidence: str) -> Diagnosis:
    allow_all = (
        "`sysctl -w kernel.io_uring_disabled=0` "
        "(and, to keep it, the line `kernel.io_uring_disabled = 0` in /etc/sysctl.d/90-io_uring.conf)"
    )
    if facts.disabled != 1:
        why = f"the sysctl kernel.io_uring_disabled is {facts.disabled}: nobody may make a ring on this system."
        return _diagnose(facts, "sysctl", confidence, why, f"As root on the host: {allow_all}.")
    why = "the sysctl kernel.io_uring_disabled is 1: only processes with CAP_SYS_ADMIN or in its group may make a ring."
    user, name = user_name(), None if facts.group is None or facts.group < 0 else group_name(facts.group)
    if name is not None:
        join = f"`usermod -aG {name} {user}`"
    elif facts.group is not None and facts.group >= 0:
        join = f"`groupadd -g {facts.group} io_uring && usermod -aG io_uring {user}`"
    else:
        join = (
            f"`groupadd io_uring && usermod -aG io_uring {user} && "
            "sysctl -w kernel.io_uring_group=$(getent group io_uring | cut -d: -f3)`"
        )
    return _diagnose(
        facts, "sysctl", confidence, why, f"As root on the host: {join} and a new login, or for everybody {allow_all}."
    )


def _denied_by_module(facts: Facts) -> Diagnosis:
    """The sysctl allows it. What is left is a security module, or a filter, if there is one."""
    answer = facts.trial_errno if facts.setup_errno == errno.EFAULT else facts.setup_errno
    selinux = "selinux" in facts.modules and answer == errno.EACCES
    if facts.seccomp != 0 and not selinux:
        return _denied_by_something(facts)
    if selinux:
        which = " (probably SELinux)"
        fix = "As root: `ausearch -m AVC -ts recent` shows the denial, and `audit2allow` makes a rule of it."
    else:
        which = f" (there are {', '.join(facts.modules)})" if facts.modules else ""
        fix = "As root: `dmesg | grep -i denied` shows the denial; allow io_uring to this program in that policy."
    return _diagnose(facts, "lsm", LIKELY, f"a security module{which} forbids this process to make a ring.", fix)


def _denied_by_something(facts: Facts) -> Diagnosis:
    suspects = ["a security module"]
    if facts.sysctl_denies is None:
        suspects.insert(0, "the sysctl kernel.io_uring_disabled")
    if facts.seccomp != 0:
        suspects.insert(0, f"a seccomp filter{_whose(facts)}")
    return _diagnose(
        facts,
        "policy",
        POSSIBLE,
        f"a policy forbids this process to make a ring, {' or '.join(suspects)}: it does not show from here which.",
        "On the host, look at `sysctl kernel.io_uring_disabled` (0 allows everybody) and, as root, at "
        "`dmesg | grep -i denied`; try without the container's seccomp profile.",
    )


def _undecided(facts: Facts) -> Diagnosis:
    """Not all three answers are there: what the rest makes possible, and no more."""
    seen = {facts.observed_errno, facts.setup_errno} - {None}
    if seen <= {errno.EPERM} and facts.sysctl_denies:
        return _denied_by_sysctl(facts, LIKELY)
    if facts.seccomp == 2 and seen & {errno.EPERM, errno.ENOSYS}:
        why = f"a seccomp filter{_whose(facts)} may refuse io_uring's system calls."
        return _diagnose(facts, "seccomp", POSSIBLE, why, _seccomp_fix(facts))
    fix = (
        "Look at `sysctl kernel.io_uring_disabled` (0 allows everybody) "
        "and at `grep Seccomp: /proc/self/status` (2 is a filter)."
    )
    if facts.killed_by is not None:
        how = "was ended by a signal"
    elif facts.fork_errno is not None:
        how = f"could not be made ({errno_name(facts.fork_errno)})"
        if facts.fork_errno == errno.EAGAIN:
            fix = (
                "Let there be more processes: `ulimit -u` (of this user), pids.max (of the cgroup), "
                "`docker run --pids-limit=NUMBER`."
            )
    else:
        how = "could not be started or did not answer"
    why = f"the cause is not known, because the child process that tries io_uring's system calls {how}."
    return _diagnose(facts, "unknown", POSSIBLE, why, fix)


def _together(calls: Sequence[str]) -> str:
    return " and ".join(calls) if 0 < len(calls) < 3 else "io_uring's system calls"


def _whose(facts: Facts) -> str:
    return f" (probably {facts.runtime}'s)" if facts.runtime else ""


def _seccomp_fix(facts: Facts) -> str:
    if facts.runtime == "Docker":
        return (
            "To check: `docker run --security-opt seccomp=unconfined ...`. For good: fetch "
            "https://raw.githubusercontent.com/moby/profiles/main/seccomp/default.json, add "
            f"{_THREE_CALLS} to its first list of names, and `docker run --security-opt seccomp=default.json ...`."
        )
    if facts.runtime == "Podman":
        return (
            "To check: `podman run --security-opt seccomp=unconfined ...`. For good: copy "
            f"/usr/share/containers/seccomp.json, add {_THREE_CALLS} to its longest list of names, whose action is "
            "SCMP_ACT_ALLOW, take them out of any other, and `podman run --security-opt seccomp=COPY ...`."
        )
    if facts.runtime == "Kubernetes":
        return (
            "To check: `securityContext: {seccompProfile: {type: Unconfined}}` in the pod. For good: type Localhost, "
            f"with a localhostProfile (below /var/lib/kubelet/seccomp on the node) that allows {_THREE_CALLS}."
        )
    if facts.runtime == "systemd":
        return (
            f"`systemctl edit {facts.unit}`, add the lines `[Service]` and `SystemCallFilter=@aio`, "
            f"`systemctl restart {facts.unit}`."
        )
    if facts.runtime == "Android":
        return "Android does not let apps use io_uring, and an app cannot change that: use epoll."
    return (
        f"Allow {_THREE_CALLS} where the filter is set: in the container runtime, the systemd unit "
        "(SystemCallFilter=@aio) or the sandbox that started this process. A process cannot lift its own filter."
    )


def _diagnose(facts: Facts, cause: str, confidence: str, why: str, fix: str) -> Diagnosis:
    seen = next((e for e in (facts.observed_errno, facts.setup_errno) if e not in (None, errno.EFAULT)), None)
    start = failed(seen) if seen is not None else "io_uring cannot be used"
    return Diagnosis(cause, confidence, f"{start}: {why}", fix, facts.evidence())
