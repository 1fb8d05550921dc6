"""Observe what decides whether io_uring can be used here: harmless calls, and reading /proc.

May import `abi` and `syscalls`. Never judges, never raises, never leaves a child process, and
makes no call in this process that a seccomp filter could kill it for.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .. import abi, syscalls
from . import child
from .report import errno_name, limit_text, signal_name, yes_no

CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_IPC_LOCK": 14, "CAP_SYS_ADMIN": 21, "CAP_SYS_NICE": 23}
"""Those that io_uring asks for: zero-copy receive, RLIMIT_MEMLOCK, the sysctl, and SQPOLL before Linux 5.13."""


@dataclass(frozen=True)
class MemoryLimit:
    """What is known about RLIMIT_MEMLOCK. Limits in bytes, -1 is unlimited, None unknown."""

    soft: int | None = None
    hard: int | None = None
    exempt: bool | None = None  # CAP_IPC_LOCK in the initial user namespace
    charged: bool | None = None  # whether this kernel refuses a ring under a limit of 0

    def evidence(self) -> tuple[str, ...]:
        return (
            f"RLIMIT_MEMLOCK is {limit_text(self.soft)} (soft), {limit_text(self.hard)} (hard)",
            f"CAP_IPC_LOCK, which lifts it: {yes_no(self.exempt)}",
            f"a ring under a limit of 0 is refused: {yes_no(self.charged)}",
        )


@dataclass(frozen=True)
class Facts:
    """What was observed. None is unknown, everywhere."""

    system: str = "linux"
    release: str | None = None
    observed_errno: int | None = None  # what the failed set-up gave, if there was one
    setup_errno: int | None = None  # of io_uring_setup(0, NULL): EFAULT if reachable
    enter_errno: int | None = None  # of io_uring_enter(-1, ...): EBADF if reachable
    register_errno: int | None = None  # of io_uring_register(-1, 0, ...): EINVAL or EBADF if reachable
    trial_errno: int | None = None  # of a ring of 2 entries without flags: 0 if it could be made
    killed_by: int | None = None  # the signal that ended a child that made these calls
    fatal: tuple[str, ...] = ()  # the calls that ended it
    fork_errno: int | None = None  # with which no child could be made
    seccomp: int | None = None  # Seccomp: of the thread's status: 0 none, 1 strict, 2 filter
    proc_readable: bool | None = None  # an absent sysctl then means that the kernel has none
    disabled: int | None = None  # sysctl kernel.io_uring_disabled
    group: int | None = None  # sysctl kernel.io_uring_group
    in_group: bool | None = None
    sys_admin: bool | None = None  # CAP_SYS_ADMIN in the initial user namespace
    built_in: bool | None = None  # io_uring is in this kernel, by its configuration or symbols
    emulator: str | None = None  # what runs this program, such as qemu-aarch64
    runtime: str | None = None  # what may have set a filter: Docker, Podman, systemd, ...
    unit: str | None = None  # the systemd unit
    modules: tuple[str, ...] = ()  # security modules
    memory: MemoryLimit | None = None  # gathered only where the trial gave ENOMEM
    open_files: tuple[int | None, int | None] = (None, None)  # RLIMIT_NOFILE, soft and hard; -1 is unlimited

    @property
    def sysctl_denies(self) -> bool | None:
        """What kernel.io_uring_disabled means for this thread."""
        if self.disabled is None:
            return False if self.proc_readable else None
        if self.disabled != 1:
            return self.disabled > 1
        if self.sys_admin or self.in_group:
            return False
        return None if self.sys_admin is None or self.in_group is None else True

    def evidence(self) -> tuple[str, ...]:
        """Every fact that bears on a diagnosis, in words."""
        found = []
        for name, value in (
            ("io_uring_setup", self.setup_errno),
            ("io_uring_enter", self.enter_errno),
            ("io_uring_register", self.register_errno),
            ("a ring of 2 entries", self.trial_errno),
        ):
            if value is not None:
                found.append(f"{name} gave {errno_name(value)}")
        if self.killed_by is not None:
            calls = ", ".join(self.fatal) or "one of these calls"
            found.append(f"a child that made {calls} was ended by {signal_name(self.killed_by)}")
        if self.fork_errno is not None:
            found.append(f"making a child gave {errno_name(self.fork_errno)}")
        for name, setting in (
            ("Seccomp", self.seccomp),
            ("kernel.io_uring_disabled", self.disabled),
            ("kernel.io_uring_group", self.group),
            ("emulator", self.emulator),
            ("runtime", self.runtime),
            ("security modules", ", ".join(self.modules) or None),
            ("kernel", self.release),
        ):
            if setting is not None:
                found.append(f"{name}: {setting}")
        if self.disabled == 1:
            found.append(f"CAP_SYS_ADMIN: {yes_no(self.sys_admin)}, member of the group: {yes_no(self.in_group)}")
        return tuple(found)


def gather(observed_errno: int | None = None) -> Facts:
    """Observe. Takes a few milliseconds, most of them for the fork."""
    if not sys.platform.startswith("linux"):
        return Facts(system=sys.platform, observed_errno=observed_errno)
    answers, signals, fork_errno = _ask()
    status, initial = thread_status(), in_initial_user_namespace()
    disabled = _read_int("/proc/sys/kernel/io_uring_disabled")
    group = _read_int("/proc/sys/kernel/io_uring_group")
    absent = answers[:3] == [errno.ENOSYS] * 3
    runtime, unit = _runtime()
    return Facts(
        release=release(),
        observed_errno=observed_errno,
        setup_errno=answers[0],
        enter_errno=answers[1],
        register_errno=answers[2],
        trial_errno=answers[3],
        killed_by=next(iter(signals.values()), None),
        fatal=tuple(signals),
        fork_errno=fork_errno,
        seccomp=to_int(status.get("Seccomp")),
        proc_readable=_read("/proc/sys/kernel/ostype") is not None,
        disabled=disabled,
        group=group,
        in_group=_in_group(group, initial),
        sys_admin=has_capability(status, initial, "CAP_SYS_ADMIN"),
        built_in=_built_in() if absent and disabled is None else None,
        emulator=_emulator() if absent else None,
        runtime=runtime,
        unit=unit,
        modules=_security_modules(),
        memory=memory_limit() if answers[3] == errno.ENOMEM else None,
        open_files=rlimit("RLIMIT_NOFILE"),
    )


def memory_limit() -> MemoryLimit:
    soft, hard = rlimit("RLIMIT_MEMLOCK")
    exempt = has_capability(thread_status(), in_initial_user_namespace(), "CAP_IPC_LOCK")
    charged = None
    if not exempt and soft != -1:
        answer = _answers(_make_ring_without_allowance)[0][0]
        charged = None if answer is None else {0: False, errno.ENOMEM: True}.get(answer)
    return MemoryLimit(soft, hard, exempt, charged)


def trial(entries: int, setup_flags: int, cq_entries: int, sq_thread_cpu: int, wq_fd: int) -> int:
    """Make a ring, close it at once, and say with which errno that failed: 0 if it did not.

    A ring with NO_MMAP gets no memory, so it is always refused: EFAULT if the kernel knows the flag.
    """
    params = abi.IO_URING_PARAMS.pack(
        flags=setup_flags & 0xFFFFFFFF,
        cq_entries=cq_entries & 0xFFFFFFFF,
        sq_thread_cpu=sq_thread_cpu & 0xFFFFFFFF,
        wq_fd=wq_fd & 0xFFFFFFFF,
    )
    try:
        os.close(syscalls.setup(entries, params))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


# -- Calls in a child process.

_CALLS: Final = ("io_uring_setup", "io_uring_enter", "io_uring_register", "a ring of 2 entries")
_UNANSWERED: Final = -1
_LATE_RELEASE_S: Final = 0.3  # the memory of closed rings is given back about this late

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc["syscall"]
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long] * 7


def _errno_of(number: int, *arguments: int) -> int:
    padded = arguments + (0,) * (6 - len(arguments))
    return 0 if _syscall(number, *padded) >= 0 else ctypes.get_errno()


def _ask() -> tuple[list[int | None], dict[str, int], int | None]:
    """What each of the calls answered, the signals that ended children which made them, and why none could be made."""
    answers: list[int | None] = []
    signals: dict[str, int] = {}
    while len(answers) < len(_CALLS):
        found, outcome = _answers(lambda memory: _make_harmless_calls(memory, answers))
        answers += itertools.takewhile(lambda answer: answer is not None, found[len(answers) :])
        if outcome.killed_by is None or len(answers) == len(_CALLS):
            break
        signals[_CALLS[len(answers)]] = outcome.killed_by
        answers.append(None)  # another child makes the calls after it
    return answers + [None] * (len(_CALLS) - len(answers)), signals, outcome.refusal


def _make_harmless_calls(memory: memoryview, answered: Sequence[int | None]) -> None:
    """Three calls that fail before they do anything, and where set-up is reachable a small ring."""
    answers = memory.cast("i")
    calls = ((syscalls.NR_SETUP, 0, 0), (syscalls.NR_ENTER, -1), (syscalls.NR_REGISTER, -1))
    for index in range(len(answered), len(calls)):
        answers[index] = _errno_of(*calls[index])
    if (answered[0] if answered else answers[0]) == errno.EFAULT:
        answers[3] = patiently(lambda: _make_ring(entries=2))


def _make_ring_without_allowance(memory: memoryview) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]))
    memory.cast("i")[0] = _make_ring(entries=1)


def _make_ring(entries: int) -> int:
    """The errno of a ring without flags. The child's end closes it."""
    params = ctypes.create_string_buffer(abi.IO_URING_PARAMS.nbytes)
    return _errno_of(syscalls.NR_SETUP, entries, ctypes.addressof(params))


def patiently(attempt: Callable[[], int]) -> int:
    """The errno of a set-up, which is tried again for a while after ENOMEM."""
    deadline = time.monotonic() + _LATE_RELEASE_S
    while (code := attempt()) == errno.ENOMEM and time.monotonic() < deadline:
        time.sleep(0.01)
    return code


def _answers(work: Callable[[memoryview], None]) -> tuple[list[int | None], child.Outcome]:
    """The numbers that `work` wrote in a child, and how that ended."""
    outcome = child.run(work, 4 * len(_CALLS))
    answers = memoryview(outcome.octets).cast("i").tolist()
    return [None if answer == _UNANSWERED else answer for answer in answers], outcome


# -- Reading the system. Each of these gives None where there is nothing to read.


def release() -> str | None:
    return os.uname().release if hasattr(os, "uname") else None


def rlimit(name: str) -> tuple[int | None, int | None]:
    """Soft and hard limit; -1 is unlimited."""
    try:
        import resource

        return resource.getrlimit(getattr(resource, name))
    except (ImportError, AttributeError, OSError, ValueError):
        return None, None


def allowed_cpus() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return []


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _read_int(path: str) -> int | None:
    return to_int(_read(path))


def to_int(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def thread_status() -> dict[str, str]:
    """Filters and capabilities belong to a thread, not to the process."""
    text = _read("/proc/thread-self/status") or _read("/proc/self/status") or ""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def in_initial_user_namespace() -> bool | None:
    try:
        return os.readlink("/proc/self/ns/user") == "user:[4026531837]"  # PROC_USER_INIT_INO
    except OSError:
        return None


def has_capability(status: dict[str, str], initial: bool | None, name: str) -> bool | None:
    """As the kernel's capable() sees it: in another user namespace it never has one."""
    try:
        effective = bool(int(status["CapEff"], 16) >> CAPABILITIES[name] & 1)
    except (KeyError, ValueError):
        return None
    return initial if effective else False


def _in_group(group: int | None, initial: bool | None) -> bool | None:
    if group is None:
        return None
    if group < 0:
        return False
    if not initial:
        return None  # the sysctl holds the host's id, and the ids seen here are translated
    return group == os.getegid() or group in os.getgroups()


def configured() -> bool | None:
    """Is io_uring in this kernel, by its configuration?"""
    here = release()
    text = _read(f"/boot/config-{here}") or _read(f"/lib/modules/{here}/config") or _config_gz() or ""
    if "CONFIG_IO_URING=y" in text:
        return True
    return False if "# CONFIG_IO_URING is not set" in text else None


def _built_in() -> bool | None:
    found = configured()
    if found is not None:
        return found
    # The system calls have a symbol in every kernel, the operations of the ring's file do not.
    try:
        with open("/proc/kallsyms", "rb") as file:
            return True if any(line.rstrip().endswith(b" io_uring_release") for line in file) else None
    except OSError:
        return None


def _config_gz() -> str | None:
    try:
        import gzip

        with gzip.open("/proc/config.gz", "rt", encoding="utf-8", errors="replace") as file:
            return file.read()
    except (ImportError, OSError, EOFError):
        return None


def _emulator() -> str | None:
    """QEMU's user mode and its like show the emulated program in /proc/self, but not here."""
    try:
        name = os.path.basename(os.readlink("/proc/thread-self/exe"))
    except OSError:
        return None
    return name if name.startswith(("qemu-", "rosetta", "FEX", "box64")) else None


def _runtime() -> tuple[str | None, str | None]:
    """What this process runs in, as far as files and environment show, and its systemd unit."""
    cgroup = _read("/proc/self/cgroup") or ""
    if "ANDROID_ROOT" in os.environ:
        return "Android", None
    if "KUBERNETES_SERVICE_HOST" in os.environ or "kubepods" in cgroup:
        return "Kubernetes", None
    if os.path.exists("/run/.containerenv") or "libpod" in cgroup:
        return "Podman", None
    if os.path.exists("/.dockerenv") or "/docker" in cgroup:
        return "Docker", None
    if os.path.exists("/.flatpak-info"):
        return "Flatpak", None
    if "SNAP" in os.environ:
        return "snap", None
    if os.environ.get("container"):
        return os.environ["container"], None
    units = [part.strip() for part in cgroup.replace("\n", "/").split("/") if part.strip().endswith(".service")]
    if "INVOCATION_ID" in os.environ and units:
        return "systemd", units[-1]
    return None, None


def _security_modules() -> tuple[str, ...]:
    listed = (_read("/sys/kernel/security/lsm") or "").strip()
    if listed:
        return tuple(listed.split(","))
    found = []
    if os.path.exists("/sys/fs/selinux/enforce"):
        found.append("selinux")
    if (_read("/sys/module/apparmor/parameters/enabled") or "").startswith("Y"):
        found.append("apparmor")
    return tuple(found)
