"""The diagnosis of a ring that cannot be made: its table, and real filters, limits and flags.

What changes a process for good (a seccomp filter, a limit, a user id) is done in a forked child.
"""

from __future__ import annotations

import errno
import grp
import itertools
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sandbox import CALLS as CALLS
from sandbox import RET_ERRNO as RET_ERRNO
from sandbox import RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP, become_ordinary, in_child
from sandbox import install_filter as install_filter

from rawuring import abi, syscalls
from rawuring.diagnosis import Diagnosis, Facts, child, classify, explain_setup_failure, facts, gather, is_known, why_unavailable
from rawuring.diagnosis.facts import MemoryLimit, trial
from rawuring.diagnosis.limits import explain_enomem, explain_fd_limit, largest_ring, ring_nbytes
from rawuring.diagnosis.report import version_of
from rawuring.diagnosis.request import with_needs

EPERM, ENOSYS, EACCES, EINVAL, EFAULT, EBADF = (
    errno.EPERM,
    errno.ENOSYS,
    errno.EACCES,
    errno.EINVAL,
    errno.EFAULT,
    errno.EBADF,
)
Setup = abi.Setup


@pytest.fixture
def ring_possible() -> None:
    found = why_unavailable()
    if found is not None:
        pytest.skip(f"no ring here: {found.sentence}")


# -- The table, without a kernel.

OPEN = Facts(
    release="6.12.1",
    setup_errno=EFAULT,
    enter_errno=EBADF,
    register_errno=EINVAL,
    trial_errno=0,
    seccomp=0,
    proc_readable=True,
    disabled=0,
    group=-1,
    in_group=False,
    sys_admin=False,
)


def answers(setup: int | None, enter: int | None, register: int | None, **more: Any) -> Facts:
    changed = replace(OPEN, setup_errno=setup, enter_errno=enter, register_errno=register, trial_errno=None)
    return replace(changed, **more)


ALONE = (EPERM, EBADF, EINVAL)
ABSENT = (ENOSYS, ENOSYS, ENOSYS)
NO_SYSCTL: dict[str, Any] = {"disabled": None, "group": None, "in_group": None}

TABLE: list[tuple[str, str, str, Facts]] = [
    ("Docker", "seccomp", "certain", answers(EPERM, EPERM, EPERM, seccomp=2, runtime="Docker")),
    ("a filter, /proc hidden", "seccomp", "likely", answers(EPERM, EPERM, EPERM, seccomp=None)),
    ("EPERM thrice without a filter", "interceptor", "likely", answers(EPERM, EPERM, EPERM)),
    ("a filter with another errno", "seccomp", "certain", answers(EACCES, EACCES, EACCES, seccomp=2)),
    ("a filter with EINVAL", "seccomp", "certain", answers(EINVAL, EINVAL, EINVAL, seccomp=2)),
    ("a filter on enter", "seccomp", "certain", answers(EFAULT, EPERM, EINVAL, seccomp=2)),
    ("a filter on register", "seccomp", "certain", answers(EFAULT, EBADF, EPERM, seccomp=2)),
    ("a filter hides set-up alone", "seccomp", "certain", answers(ENOSYS, EBADF, EINVAL, seccomp=2)),
    ("a filter beats the sysctl", "seccomp", "certain", answers(EPERM, EPERM, EPERM, seccomp=2, disabled=2)),
    ("Podman", "seccomp", "certain", answers(*ABSENT, seccomp=2, runtime="Podman")),
    ("Podman, before 6.6, kallsyms", "seccomp", "certain", answers(*ABSENT, seccomp=2, built_in=True, **NO_SYSCTL)),
    ("Podman, before 6.6", "seccomp", "likely", answers(*ABSENT, seccomp=2, release="6.1.0", **NO_SYSCTL)),
    ("Podman, /proc hidden", "seccomp", "likely", answers(*ABSENT, seccomp=None)),
    ("qemu-user", "emulator", "likely", answers(*ABSENT, emulator="qemu-aarch64")),
    ("qemu-user in Docker", "emulator", "likely", answers(*ABSENT, emulator="qemu-aarch64", seccomp=2)),
    ("hidden without a filter", "interceptor", "likely", answers(*ABSENT)),
    ("compiled out", "absent", "certain", answers(*ABSENT, built_in=False, **NO_SYSCTL)),
    ("compiled out, in Docker", "absent", "certain", answers(*ABSENT, built_in=False, seccomp=2, **NO_SYSCTL)),
    ("6.6+ without the sysctl", "absent", "likely", answers(*ABSENT, **NO_SYSCTL)),
    ("6.6+ without the sysctl, a filter", "absent", "likely", answers(*ABSENT, seccomp=2, **NO_SYSCTL)),
    ("Linux 4.4", "absent", "certain", answers(*ABSENT, release="4.4.0", **NO_SYSCTL)),
    ("Linux 4.4, a filter", "absent", "certain", answers(*ABSENT, release="4.4.0", seccomp=2, **NO_SYSCTL)),
    (
        "ENOSYS, nothing to read",
        "absent",
        "possible",
        answers(*ABSENT, release=None, seccomp=None, proc_readable=False, **NO_SYSCTL),
    ),
    ("Android", "seccomp", "certain", answers(None, None, None, killed_by=signal.SIGSYS, runtime="Android")),
    ("killed at enter", "seccomp", "certain", answers(EFAULT, None, None, killed_by=signal.SIGSYS)),
    ("killed otherwise", "unknown", "possible", answers(None, None, None, killed_by=signal.SIGKILL)),
    ("sysctl 2", "sysctl", "certain", answers(*ALONE, disabled=2, sys_admin=True)),
    ("sysctl 2, older register", "sysctl", "certain", answers(EPERM, EBADF, EBADF, disabled=2)),
    ("sysctl 2, a filter elsewhere", "sysctl", "certain", answers(*ALONE, disabled=2, seccomp=2)),
    ("sysctl 1", "sysctl", "certain", answers(*ALONE, disabled=1, group=987)),
    ("sysctl 1, in a user namespace", "sysctl", "likely", answers(*ALONE, disabled=1, group=987, in_group=None)),
    ("sysctl 1, CAP_SYS_ADMIN", "lsm", "likely", answers(*ALONE, disabled=1, sys_admin=True)),
    ("sysctl 1, in the group, a filter", "seccomp", "likely", answers(*ALONE, disabled=1, in_group=True, seccomp=2)),
    ("a filter on set-up alone", "seccomp", "likely", answers(*ALONE, seccomp=2)),
    ("a filter on set-up alone, old", "seccomp", "likely", answers(*ALONE, seccomp=2, release="5.10.0", **NO_SYSCTL)),
    (
        "set-up alone, /proc hidden",
        "policy",
        "possible",
        answers(*ALONE, seccomp=None, proc_readable=False, **NO_SYSCTL),
    ),
    ("set-up alone, Seccomp unknown", "policy", "possible", answers(*ALONE, seccomp=None)),
    ("SELinux", "lsm", "likely", answers(EACCES, EBADF, EINVAL, modules=("selinux",))),
    ("SELinux in Docker", "lsm", "likely", answers(EACCES, EBADF, EINVAL, modules=("selinux",), seccomp=2)),
    ("EACCES is not the sysctl", "lsm", "likely", answers(EACCES, EBADF, EINVAL, disabled=2)),
    ("EACCES and a filter", "policy", "possible", answers(EACCES, EBADF, EINVAL, seccomp=2)),
    ("SELinux denies the inode", "lsm", "likely", replace(OPEN, trial_errno=EACCES, modules=("selinux",), seccomp=2)),
    ("a filter looks at entries", "policy", "possible", replace(OPEN, trial_errno=EPERM, seccomp=2)),
    (
        "no allowance",
        "memlock",
        "certain",
        replace(OPEN, trial_errno=errno.ENOMEM, memory=MemoryLimit(0, 0, False, True)),
    ),
    (
        "no memory",
        "memory",
        "likely",
        replace(OPEN, trial_errno=errno.ENOMEM, memory=MemoryLimit(0, 0, False, False)),
    ),
    ("no fd", "fd-limit", "certain", replace(OPEN, trial_errno=errno.EMFILE)),
    ("something else", "unknown", "possible", replace(OPEN, trial_errno=errno.EIO)),
    ("no trial", "unknown", "possible", replace(OPEN, trial_errno=None)),
    ("no fork", "unknown", "possible", answers(None, None, None)),
    ("no fork, EPERM, sysctl", "sysctl", "likely", answers(None, None, None, observed_errno=EPERM, disabled=2)),
    ("no fork, ENOSYS, sysctl", "unknown", "possible", answers(None, None, None, observed_errno=ENOSYS, disabled=2)),
    ("no fork, EPERM, a filter", "seccomp", "possible", answers(None, None, None, observed_errno=EPERM, seccomp=2)),
    ("another system", "not-linux", "certain", Facts(system="darwin")),
]


@pytest.mark.parametrize(("cause", "confidence", "seen"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_triage_table(cause: str, confidence: str, seen: Facts) -> None:
    found = classify(seen)
    assert found is not None
    assert (found.cause, found.confidence) == (cause, confidence)


@pytest.mark.parametrize("register", [EINVAL, EBADF])
def test_a_system_that_allows_it_has_no_diagnosis(register: int) -> None:
    assert classify(replace(OPEN, register_errno=register)) is None
    # What is not in the way is no cause.
    assert classify(replace(OPEN, register_errno=register, seccomp=2, runtime="Docker", modules=("selinux",))) is None


@pytest.mark.slow
def test_no_combination_of_facts_breaks_the_triage_or_contradicts_itself() -> None:
    errnos = (None, EFAULT, EPERM, EACCES, ENOSYS, EINVAL, EBADF)
    for setup, enter, register, seccomp, disabled, runtime, readable in itertools.product(
        errnos, errnos, errnos, (None, 0, 2), (None, 0, 1, 2), (None, "Docker"), (None, True)
    ):
        seen = answers(setup, enter, register, seccomp=seccomp, disabled=disabled)
        found = classify(replace(seen, runtime=runtime, proc_readable=readable))
        assert found is not None  # no trial ring: never "usable"
        assert found.sentence.endswith(".") and found.fix.endswith(".")
        if found.cause == "seccomp":
            assert seccomp != 0
        if found.cause == "sysctl":
            assert disabled in (1, 2) and setup in (EPERM, None)
        if found.cause in ("sysctl", "lsm") and None not in (setup, enter, register):
            assert enter == EBADF and register in (EINVAL, EBADF)
        if found.confidence == "certain":
            assert None not in (setup, enter, register)


@pytest.mark.parametrize(
    ("denies", "changes"),
    [
        (False, {"disabled": 0}),
        (True, {"disabled": 2, "sys_admin": True, "in_group": True}),
        (True, {"disabled": 1}),
        (False, {"disabled": 1, "sys_admin": True}),
        (False, {"disabled": 1, "in_group": True}),
        (None, {"disabled": 1, "in_group": None}),
        (None, {"disabled": 1, "sys_admin": None}),
        (False, {"disabled": None}),
        (None, {"disabled": None, "proc_readable": False}),
    ],
)
def test_what_the_sysctl_means(denies: bool | None, changes: dict[str, Any]) -> None:
    assert replace(OPEN, **changes).sysctl_denies is denies


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ("Docker", "--security-opt seccomp=unconfined"),
        ("Podman", "/usr/share/containers/seccomp.json"),
        ("Kubernetes", "seccompProfile"),
        ("systemd", "systemctl edit echo.service"),
        ("Android", "epoll"),
        (None, "A process cannot lift its own filter"),
        ("lxc", "A process cannot lift its own filter"),
    ],
)
def test_the_fix_fits_where_the_filter_comes_from(runtime: str | None, words: str) -> None:
    found = classify(answers(EPERM, EPERM, EPERM, seccomp=2, runtime=runtime, unit="echo.service"))
    assert found is not None and words in found.fix
    assert (f"probably {runtime}'s" in found.sentence) is (runtime is not None)


def test_the_fix_of_the_sysctl_names_what_there_is_to_do() -> None:
    closed = classify(answers(*ALONE, disabled=2))
    with_group = classify(answers(*ALONE, disabled=1, group=987654))
    without_group = classify(answers(*ALONE, disabled=1, group=-1))
    of_root = classify(answers(*ALONE, disabled=1, group=0))
    assert closed and with_group and without_group and of_root
    assert "sysctl -w kernel.io_uring_disabled=0" in closed.fix and "usermod" not in closed.fix
    assert "groupadd -g 987654 io_uring && usermod -aG io_uring " in with_group.fix
    assert f"usermod -aG {grp.getgrgid(0).gr_name} " in of_root.fix and "groupadd" not in of_root.fix
    assert "groupadd io_uring" in without_group.fix


def test_text_and_evidence() -> None:
    found = classify(answers(EPERM, EPERM, EPERM, seccomp=2, observed_errno=EPERM))
    assert found is not None
    assert found.text == f"{found.sentence} {found.fix} `python -m rawuring` tells what this system allows."
    assert found.sentence.startswith("io_uring_setup failed with EPERM: ")
    assert "io_uring_enter gave EPERM" in found.evidence and "Seccomp: 2" in found.evidence


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.12.117+deb13-cloud-amd64", (6, 12)),
        ("5.4-rc1", (5, 4)),
        ("4.4.0-19041-Microsoft", (4, 4)),
        ("7.0", (7, 0)),
        ("6", None),
        ("", None),
        ("a.b", None),
        (None, None),
    ],
)
def test_versions(release: str | None, version: tuple[int, int] | None) -> None:
    assert version_of(release) == version


# -- Real filters.

def diagnose_under(action: int, numbers: tuple[int, ...] = CALLS) -> Diagnosis | None:
    def work() -> Diagnosis | None:
        install_filter(action, numbers)
        return why_unavailable()

    found = in_child(work)
    assert found is None or isinstance(found, Diagnosis)
    return found


@pytest.mark.usefixtures("ring_possible")
class TestRealFilters:
    def test_no_filter_on_io_uring(self) -> None:
        assert diagnose_under(RET_ERRNO | EPERM, numbers=()) is None

    @pytest.mark.parametrize("answer", [EPERM, EACCES])
    def test_all_refused(self, answer: int) -> None:
        found = diagnose_under(RET_ERRNO | answer)
        assert found is not None
        assert (found.cause, found.confidence) == ("seccomp", "certain")
        assert errno.errorcode[answer] in found.sentence

    def test_all_hidden(self) -> None:
        found = diagnose_under(RET_ERRNO | ENOSYS)
        assert found is not None and found.cause == "seccomp"
        if os.path.exists("/proc/sys/kernel/io_uring_disabled"):
            assert found.confidence == "certain"

    def test_setup_alone_refused(self) -> None:
        found = diagnose_under(RET_ERRNO | EPERM, numbers=CALLS[:1])
        assert found is not None
        assert (found.cause, found.confidence) == ("seccomp", "likely")

    @pytest.mark.parametrize("number", CALLS[1:])
    def test_another_alone_refused(self, number: int) -> None:
        found = diagnose_under(RET_ERRNO | EPERM, numbers=(number,))
        assert found is not None
        assert (found.cause, found.confidence) == ("seccomp", "certain")

    @pytest.mark.parametrize("action", [RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP])
    @pytest.mark.parametrize("numbers", [CALLS, CALLS[1:]], ids=["all", "all but setup"])
    def test_killed(self, action: int, numbers: tuple[int, ...]) -> None:
        found = diagnose_under(action, numbers)
        assert found is not None
        assert (found.cause, found.confidence) == ("seccomp", "certain")
        assert "kills" in found.sentence

    def test_a_handler_of_sigsys_does_not_hide_the_filter(self) -> None:
        def work() -> Diagnosis | None:
            signal.signal(signal.SIGSYS, lambda *_: None)
            install_filter(RET_TRAP, CALLS)
            return why_unavailable()

        found = in_child(work)
        assert found.cause == "seccomp" and found.confidence == "certain"

    def test_a_filter_of_one_thread(self) -> None:
        def work() -> tuple[Diagnosis | None, Diagnosis | None]:
            found: list[Diagnosis | None] = []

            def run() -> None:
                install_filter(RET_ERRNO | EPERM, CALLS)
                found.append(why_unavailable())

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            return found[0], why_unavailable()

        of_thread, of_main = in_child(work)
        assert (of_thread.cause, of_thread.confidence) == ("seccomp", "certain")
        assert of_main is None

    @pytest.mark.parametrize("answer", [EPERM, ENOSYS, EINVAL])
    def test_a_failed_set_up(self, answer: int) -> None:
        def work() -> Diagnosis:
            install_filter(RET_ERRNO | answer, CALLS)
            return explain_setup_failure(trial(8, 0, 0, 0, 0), 8, Setup.SINGLE_ISSUER)

        found = in_child(work)
        assert found.cause == "seccomp"
        assert found.sentence.startswith(f"io_uring_setup failed with {errno.errorcode[answer]}: ")


# -- The child process that tries.


@pytest.mark.usefixtures("ring_possible")
class TestChild:
    def no_child_left(self) -> bool:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        return False

    def test_with_threads(self) -> None:
        def work() -> bool:
            stop = threading.Event()
            threads = [threading.Thread(target=stop.wait) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                # Without a warning: those are errors here.
                return why_unavailable() is None and self.no_child_left()
            finally:
                stop.set()
                for thread in threads:
                    thread.join()

        assert in_child(work)

    def test_sigchld_ignored(self) -> None:
        def work() -> bool:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            return why_unavailable() is None and self.no_child_left()

        assert in_child(work)

    def test_no_fd_free(self) -> None:
        def work() -> Diagnosis | None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            return why_unavailable()

        assert in_child(work).cause == "fd-limit"

    def test_interrupted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def work() -> bool:
            def interrupt(seconds: float) -> None:
                raise KeyboardInterrupt

            monkeypatch.setattr(time, "sleep", interrupt)
            with pytest.raises(KeyboardInterrupt):
                child.run(lambda memory: signal.pause(), 4)
            return self.no_child_left()

        assert in_child(work)

    def test_a_child_that_hangs_is_ended(self) -> None:
        def work() -> bool:
            def hang(memory: memoryview) -> None:
                memory[0] = 1
                signal.pause()

            assert child.run(hang, 2, timeout_s=0.3) == (b"\x01\xff", None, None)
            return self.no_child_left()

        assert in_child(work)

    def test_a_child_that_fails_answers_nothing(self) -> None:
        def work() -> bool:
            def fail(memory: memoryview) -> None:
                raise RuntimeError

            assert child.run(fail, 2) == (b"\xff\xff", None, None)
            return self.no_child_left()

        assert in_child(work)

    def test_a_signal_before_its_work_is_none_of_its_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A filter that kills for what prepares a child has said nothing about io_uring."""
        monkeypatch.setattr(child, "_leave_no_core", lambda: os.kill(os.getpid(), signal.SIGSYS))
        assert child.run(lambda memory: None, 2) == (b"\xff\xff", None, None)
        found = why_unavailable()
        assert found is not None and (found.cause, found.confidence) == ("unknown", "possible")

    def test_what_prepares_it_may_be_forbidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: object) -> None:
            raise PermissionError(errno.EPERM, "no")

        def answer(memory: memoryview) -> None:
            memory[:] = b"ok"

        monkeypatch.setattr(resource, "setrlimit", refuse)
        monkeypatch.setattr(signal, "signal", refuse)
        assert child.run(answer, 2) == (b"ok", None, None)

    def test_nobody_may_wait_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pids = []

        def refuse(pid: int, *arguments: object) -> None:
            pids.append(pid)
            raise PermissionError(errno.EPERM, "no")

        with monkeypatch.context() as patched:
            patched.setattr(os, "waitpid", refuse)
            assert child.run(lambda memory: None, 2) == (b"\xff\xff", None, None)
        os.waitpid(pids[0], 0)


@pytest.mark.parametrize("error", [BlockingIOError(errno.EAGAIN, "no"), RuntimeError("fork not supported")])
def test_fork_impossible(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse() -> int:
        raise error

    monkeypatch.setattr(os, "fork", refuse)
    seen = gather(EPERM)
    assert (seen.setup_errno, seen.enter_errno, seen.register_errno) == (None, None, None)
    found = why_unavailable()
    assert found is not None and found.confidence != "certain"
    if isinstance(error, OSError):
        assert "could not be made (EAGAIN)" in found.sentence and "`ulimit -u`" in found.fix
        assert "making a child gave EAGAIN" in found.evidence


def test_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "no /proc")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "readlink", refuse)
    seen = gather()
    assert (seen.seccomp, seen.disabled, seen.group, seen.sys_admin, seen.in_group) == (None,) * 5
    assert seen.proc_readable is False and seen.sysctl_denies is None
    for refusal in (ABSENT, ALONE, (EPERM, EPERM, EPERM)):
        setup, enter, register = refusal
        found = classify(replace(seen, setup_errno=setup, enter_errno=enter, register_errno=register))
        assert found is not None and found.confidence != "certain"


def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found = why_unavailable()
    assert found is not None and found.cause == "not-linux"


def test_capabilities_count_in_the_initial_namespace_only() -> None:
    status = {"CapEff": f"{1 << 14:016x}"}
    assert facts.has_capability(status, True, "CAP_IPC_LOCK") is True
    assert facts.has_capability(status, True, "CAP_SYS_ADMIN") is False
    assert facts.has_capability(status, False, "CAP_IPC_LOCK") is False
    assert facts.has_capability(status, None, "CAP_IPC_LOCK") is None
    assert facts.has_capability({}, True, "CAP_IPC_LOCK") is None
    assert facts.has_capability({"CapEff": "?"}, True, "CAP_IPC_LOCK") is None


# -- What was asked for: EINVAL and others.


def refused(entries: int, setup_flags: int, cq_entries: int = 0) -> Diagnosis:
    """The diagnosis of a set-up that this kernel refuses with EINVAL."""
    assert trial(entries, setup_flags, cq_entries, 0, -1) == EINVAL
    return explain_setup_failure(EINVAL, entries, setup_flags, cq_entries)


@pytest.mark.usefixtures("ring_possible")
class TestRefusedRequests:
    @pytest.mark.parametrize("entries", [0, 32769, 2**32 - 1])
    def test_entries(self, entries: int) -> None:
        found = refused(entries, 0)
        assert (found.cause, found.confidence) == ("bad-entries", "certain")
        assert str(entries) in found.sentence
        assert ("CLAMP" in found.fix) is (entries > 0)

    def test_no_entries_even_with_clamp(self) -> None:
        assert "CLAMP" not in refused(0, Setup.CLAMP).fix

    @pytest.mark.parametrize(("one", "other"), abi.SETUP_CONFLICTS)
    def test_each_conflict(self, one: Setup, other: Setup) -> None:
        found = refused(8, with_needs(one, Setup.DEFER_TASKRUN) | with_needs(other, Setup.DEFER_TASKRUN))
        assert (found.cause, found.confidence) == ("flags-conflict", "certain")
        assert f"{one.name} and {other.name} do not go together" in found.sentence
        self.check_advice(found, (one, other))

    @pytest.mark.parametrize(("flag", "needs"), abi.SETUP_REQUIRES.items())
    def test_each_requirement(self, flag: Setup, needs: tuple[Setup, ...]) -> None:
        found = refused(8, flag)
        names = " or ".join(str(need.name) for need in needs)
        assert (found.cause, found.confidence) == ("flag-needs", "certain")
        assert f"{flag.name} needs {names}" in found.sentence
        self.check_advice(found, (flag,))

    def check_advice(self, found: Diagnosis, flags: tuple[Setup, ...]) -> None:
        """What the kernel would refuse all the same is not advised."""
        unknown = [flag for flag in flags if not is_known(flag)]
        assert ("besides" in found.sentence) is bool(unknown)
        if unknown:
            assert found.fix == f"Leave out {' and '.join(str(flag.name) for flag in unknown)}."

    def test_the_tables_are_what_this_kernel_refuses(self) -> None:
        # Without the two that need memory: its lack is found first.
        known = [f for f in Setup if f not in (Setup.NO_MMAP, Setup.REGISTERED_FD_ONLY) and is_known(f)]
        workers = syscalls.setup(1, abi.IO_URING_PARAMS.pack(flags=Setup.SQPOLL))
        try:
            for one, other in itertools.combinations(known, 2):
                asked = one | other
                named = any(asked & a and asked & b for a, b in abi.SETUP_CONFLICTS) or any(
                    asked & flag and not any(asked & need for need in needs)
                    for flag, needs in abi.SETUP_REQUIRES.items()
                )
                assert (trial(2, asked, 4, 0, workers) == EINVAL) is named, (one.name, other.name)
        finally:
            os.close(workers)

    def test_a_flag_of_the_future(self) -> None:
        found = refused(8, 1 << 31)
        assert (found.cause, found.confidence) == ("flag-unsupported", "certain")
        assert "0x80000000" in found.sentence

    def test_a_flag_that_this_kernel_does_not_know(self) -> None:
        unknown = [flag for flag in Setup if not is_known(flag)]
        if not unknown:
            pytest.skip("this kernel knows every flag of the table")
        for flag in unknown:
            found = refused(8, with_needs(flag))
            assert (found.cause, found.confidence) == ("flag-unsupported", "certain")
            assert any(f"{one.name} " in found.sentence and one.since in found.sentence for one in unknown)

    @pytest.mark.parametrize("cq_entries", [0, 4, 65537])
    def test_cq_entries(self, cq_entries: int) -> None:
        found = refused(8, Setup.CQSIZE, cq_entries)
        assert (found.cause, found.confidence) == ("bad-cq-entries", "certain")
        assert str(cq_entries) in found.sentence

    def test_cq_entries_are_rounded_up_first(self) -> None:
        assert trial(8, Setup.CQSIZE, 5, 0, 0) == 0
        assert explain_setup_failure(EINVAL, 8, Setup.CQSIZE, 5).cause == "unknown"

    def test_a_cpu_that_is_not_there(self) -> None:
        asked = Setup.SQPOLL | Setup.SQ_AFF
        assert trial(8, asked, 0, 100_000, 0) == EINVAL
        found = explain_setup_failure(EINVAL, 8, asked, sq_thread_cpu=100_000)
        assert (found.cause, found.confidence) == ("bad-cpu", "certain")
        assert "100000" in found.sentence

    def test_workers_of_what_is_no_ring(self) -> None:
        with open(os.devnull, "rb") as file:
            code = trial(8, Setup.ATTACH_WQ, 0, 0, file.fileno())
            found = explain_setup_failure(code, 8, Setup.ATTACH_WQ, wq_fd=file.fileno())
        assert found.cause == "bad-wq-fd"
        code = trial(8, Setup.ATTACH_WQ, 0, 0, -1)
        found = explain_setup_failure(code, 8, Setup.ATTACH_WQ, wq_fd=-1)
        assert found.cause == "bad-wq-fd"

    def test_polling_thread_of_a_ring_without_one(self) -> None:
        asked = Setup.ATTACH_WQ | Setup.SQPOLL
        other = syscalls.setup(1, abi.IO_URING_PARAMS.pack())
        try:
            assert trial(8, asked, 0, 0, other) == EINVAL
            found = explain_setup_failure(EINVAL, 8, asked, wq_fd=other)
        finally:
            os.close(other)
        assert found.cause == "bad-wq-fd" and "with SQPOLL" in found.sentence

    def test_memory_of_the_caller(self) -> None:
        if not is_known(Setup.NO_MMAP):
            pytest.skip("needs Linux 6.5 (NO_MMAP)")
        assert trial(8, Setup.NO_MMAP, 0, 0, 0) == EFAULT
        assert explain_setup_failure(EFAULT, 8, Setup.NO_MMAP).cause == "bad-memory"
        assert explain_setup_failure(EINVAL, 8, Setup.NO_MMAP).cause == "bad-memory"

    def test_trials_leave_no_fd(self) -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        refused(8, Setup.CQSIZE | Setup.R_DISABLED | Setup.SQPOLL | 1 << 31, 16)
        gather()
        assert sorted(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("answer", [EPERM, EACCES, ENOSYS, EINVAL, errno.EIO])
    def test_what_cannot_be_seen_is_not_guessed(self, answer: int) -> None:
        found = explain_setup_failure(answer, 8, 0)
        assert (found.cause, found.confidence) == ("unknown", "possible")


def kernel_without(*unknown: int, refuses: Callable[[int], bool] = lambda setup_flags: False) -> Any:
    def answer(entries: int, setup_flags: int, cq_entries: int, sq_thread_cpu: int, wq_fd: int) -> int:
        return EINVAL if any(setup_flags & flag for flag in unknown) or refuses(setup_flags) else 0

    return answer


def test_an_unknown_flag_names_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "release", lambda: "6.12.3-example")
    found = explain_setup_failure(EINVAL, 8, Setup.CQE_MIXED | Setup.CLAMP, trial=kernel_without(Setup.CQE_MIXED))
    assert "CQE_MIXED needs Linux 6.18, and this kernel (6.12.3-example) does not know it" in found.sentence


def test_the_release_explains_and_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "release", lambda: "6.18.1")
    found = explain_setup_failure(EINVAL, 8, Setup.CQE_MIXED, trial=kernel_without(Setup.CQE_MIXED))
    assert "CQE_MIXED came with Linux 6.18, but this kernel (6.18.1) refuses it" in found.sentence
    monkeypatch.setattr(facts, "release", lambda: "5.10.0")
    found = explain_setup_failure(EINVAL, 8, Setup.CQE_MIXED, trial=kernel_without())
    assert found.cause == "unknown"


def test_a_flag_is_not_blamed_for_one_that_it_needs() -> None:
    asked = Setup.TASKRUN_FLAG | Setup.DEFER_TASKRUN | Setup.SINGLE_ISSUER
    found = explain_setup_failure(EINVAL, 8, asked, trial=kernel_without(Setup.DEFER_TASKRUN))
    assert "DEFER_TASKRUN needs Linux 6.1" in found.sentence or "DEFER_TASKRUN came with" in found.sentence
    found = explain_setup_failure(EINVAL, 8, asked, trial=kernel_without(Setup.SINGLE_ISSUER))
    assert "SINGLE_ISSUER " in found.sentence


def test_three_flags_that_disagree() -> None:
    asked = Setup.IOPOLL | Setup.SQPOLL | Setup.CQE32
    kernel = kernel_without(refuses=lambda setup_flags: setup_flags & asked == asked)
    found = explain_setup_failure(EINVAL, 8, asked, trial=kernel)
    assert (found.cause, found.confidence) == ("flags-conflict", "likely")
    assert all(name in found.fix for name in ("IOPOLL", "SQPOLL", "CQE32"))


@pytest.mark.usefixtures("ring_possible")
@pytest.mark.parametrize(
    ("release", "cause", "words"),
    [
        ("5.10.0", "sqpoll-privilege", "CAP_SYS_ADMIN"),
        ("5.12.0", "sqpoll-privilege", "CAP_SYS_NICE"),
        ("6.1.0", "lsm", "security module"),
    ],
)
def test_sqpoll_refused(monkeypatch: pytest.MonkeyPatch, release: str, cause: str, words: str) -> None:
    monkeypatch.setattr(facts, "release", lambda: release)
    found = explain_setup_failure(EPERM, 8, Setup.SQPOLL, trial=kernel_without())
    assert found.cause == cause and words in found.sentence


def test_other_errnos() -> None:
    assert explain_setup_failure(errno.EAGAIN, 8, Setup.SQPOLL).cause == "thread-limit"
    registered = Setup.REGISTERED_FD_ONLY | Setup.NO_MMAP
    assert explain_setup_failure(errno.EBUSY, 8, registered).cause == "registered-fd-limit"
    assert explain_setup_failure(errno.EOVERFLOW, 1, Setup.SQE_MIXED).cause == "bad-entries"
    assert explain_setup_failure(errno.ENFILE, 8, 0).cause == "fd-limit"
    assert explain_setup_failure(9999, 8, 0).cause == "unknown"


# -- Limits.

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cause", "confidence", "memory"),
    [
        ("memlock", "certain", MemoryLimit(0, 0, False, True)),
        ("memlock", "certain", MemoryLimit(4096, MIB, False, True)),
        ("memlock", "likely", MemoryLimit(8 * MIB, 8 * MIB, False, True)),
        ("memlock", "likely", MemoryLimit(4096, 4096, None, None)),
        ("memlock", "possible", MemoryLimit(8 * MIB, 8 * MIB, None, None)),
        ("memlock", "possible", MemoryLimit()),
        ("memory", "likely", MemoryLimit(8 * MIB, 8 * MIB, False, False)),
        ("memory", "likely", MemoryLimit(0, 0, True, None)),
        ("memory", "likely", MemoryLimit(-1, -1, False, None)),
    ],
)
def test_enomem(cause: str, confidence: str, memory: MemoryLimit) -> None:
    found = explain_enomem(64, 0, None, memory)
    assert (found.cause, found.confidence) == (cause, confidence)


def test_the_size_of_a_ring() -> None:
    page = resource.getpagesize()
    assert ring_nbytes(1, 0) == 2 * page
    assert ring_nbytes(32768, 0) == ring_nbytes(20000, 0) == 32768 * 64 + 65536 * 16 + 32768 * 4 + page
    assert ring_nbytes(32768, Setup.SQE128 | Setup.CQE32 | Setup.NO_SQARRAY) == 32768 * 128 + 65536 * 32 + page
    assert largest_ring(0, 0) == 0
    assert largest_ring(1 << 40, 0) == 32768
    for entries in (1, 64, 4096):
        limit = ring_nbytes(entries, 0)
        assert largest_ring(limit, 0) >= entries > largest_ring(limit - 1, 0) or page > entries * 64


def statement(fix: str) -> str:
    """The Python statement that a fix tells to run."""
    found = re.search(r"resource\.setrlimit\(resource\.\w+, \(-?\d+, -?\d+\)\)", fix)
    assert found is not None, fix
    return found.group()


@pytest.mark.usefixtures("ring_possible")
def test_no_allowance_for_an_ordinary_user() -> None:
    def work() -> tuple[Diagnosis, Diagnosis, Diagnosis | None]:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
        become_ordinary()
        code = trial(8, 0, 0, 0, 0)
        if code == 0:
            pytest.skip(f"Linux {os.uname().release} does not count rings against RLIMIT_MEMLOCK")
        assert code == errno.ENOMEM
        failed, unavailable = explain_setup_failure(code, 8, 0), why_unavailable()
        assert unavailable is not None
        exec(statement(failed.fix))
        return failed, unavailable, why_unavailable()

    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if hard != -1 and hard < 64 << 10:
        pytest.skip(f"needs a hard RLIMIT_MEMLOCK of 64 KiB, and here it is {hard} bytes")
    failed, unavailable, after_the_fix = in_child(work)
    for found in (failed, unavailable):
        assert (found.cause, found.confidence) == ("memlock", "certain")
        assert "--memlock=" in found.fix
    assert after_the_fix is None


@pytest.mark.usefixtures("ring_possible")
def test_no_fd_left_and_the_fix() -> None:
    def work() -> tuple[Diagnosis, Diagnosis | None]:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        code = trial(8, 0, 0, 0, 0)
        assert code == errno.EMFILE
        failed = explain_setup_failure(code, 8, 0)
        exec(statement(failed.fix))
        return failed, why_unavailable()

    failed, after_the_fix = in_child(work)
    assert (failed.cause, failed.confidence) == ("fd-limit", "certain")
    assert after_the_fix is None


def test_the_fix_where_the_hard_limit_is_reached() -> None:
    assert "prlimit --pid" in explain_fd_limit(errno.EMFILE, 1024, 1024).fix
    assert "setrlimit" not in explain_enomem(8, 0, None, MemoryLimit(0, 0, False, True)).fix
