"""Blocked systems, for real: the report names the cause, how sure that is, the exit code, and a fix that works.

What changes a process for good is done in a forked child. The sysctls are the whole system's, on which others
may run rings: they are set in a guest alone, and put back whatever happens.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from emulation import EMULATED
from sandbox import (
    CALLS,
    NOBODY,
    RET_ERRNO,
    RET_KILL_PROCESS,
    become_ordinary,
    in_child,
    install_filter,
    limit_memlock,
)

from rawuring import Ring, RingSetupError, capability
from rawuring.capability.report import Report
from rawuring.diagnosis import why_unavailable
from rawuring.diagnosis.facts import patiently, trial

DISABLED = Path("/proc/sys/kernel/io_uring_disabled")
GROUP = Path("/proc/sys/kernel/io_uring_group")
SETUP, ENTER, REGISTER = CALLS


@pytest.fixture(scope="module", autouse=True)
def ring_possible() -> None:
    found = why_unavailable()
    if found is not None:
        pytest.skip(f"no ring here: {found.sentence}")


class Found(NamedTuple):
    """A report, and what a `Ring` that was made in the same place said: None if it could be made."""

    report: Report
    error: str | None

    @property
    def verdict(self) -> tuple[str, int]:
        return self.report.verdict.status, self.report.verdict.exit_code

    @property
    def cause(self) -> tuple[str, str]:
        first = self.report.diagnosis[0]
        return first.cause, first.confidence

    @property
    def meanings(self) -> list[str]:
        return [call.meaning for call in self.report.access.calls]


def look(*, make_ring: bool = True) -> Found:
    error = None
    report = capability.examine()
    if make_ring:
        try:
            Ring(8).close()
        except RingSetupError as refused:
            error = str(refused)
    return Found(report, error)


def under_filter(action: int, numbers: tuple[int, ...], *, make_ring: bool = True) -> Found:
    def work() -> Found:
        install_filter(action, numbers)
        return look(make_ring=make_ring)

    found = in_child(work)
    assert isinstance(found, Found)
    return found


def check_error(found: Found) -> None:
    """The error of a `Ring` says what the report says, what to do, and where there is more."""
    first = found.report.diagnosis[0]
    assert found.error == f"{first.sentence} {first.fix} `python -m rawuring` tells what this system allows."
    assert found.report.verdict.summary == first.sentence
    assert found.report.access.ring == found.error


# -- Seccomp filters.


@pytest.mark.parametrize("answer", [errno.EPERM, errno.EACCES, errno.EINVAL])
def test_filter_on_all_calls(answer: int) -> None:
    found = under_filter(RET_ERRNO | answer, CALLS)
    assert (found.verdict, found.cause) == (("blocked", 3), ("seccomp", "certain"))
    expected = ["refused", "refused", "reachable" if answer == errno.EINVAL else "refused"]
    assert found.meanings == expected
    assert [call.result for call in found.report.access.calls] == [errno.errorcode[answer]] * 3
    assert found.report.access.seccomp_mode == 2 and found.report.access.no_new_privs is True
    check_error(found)


def test_filter_that_hides_all_calls() -> None:
    found = under_filter(RET_ERRNO | errno.ENOSYS, CALLS)
    assert (found.verdict, found.cause[0]) == (("blocked", 3), "seccomp")
    assert found.cause[1] == "certain" if DISABLED.exists() else found.cause[1] in ("certain", "likely")
    assert found.meanings == ["absent"] * 3
    check_error(found)


def test_filter_that_kills() -> None:
    found = under_filter(RET_KILL_PROCESS, CALLS, make_ring=False)
    assert (found.verdict, found.cause) == (("blocked", 3), ("seccomp", "certain"))
    assert found.meanings == ["killed"] * 3
    assert [call.result for call in found.report.access.calls] == ["SIGSYS"] * 3
    assert "kills a process for io_uring's system calls" in found.report.verdict.summary
    assert found.report.access.ring is not None
    assert {row.present for row in found.report.opcodes} == {None}


@pytest.mark.parametrize("answer", [errno.EPERM, errno.EACCES])
def test_filter_on_setup_alone(answer: int) -> None:
    found = under_filter(RET_ERRNO | answer, (SETUP,))
    # A security module answers EACCES too, and from here the two look the same.
    expected = ("seccomp", "likely") if answer == errno.EPERM else ("policy", "possible")
    assert (found.verdict, found.cause) == (("blocked", 3), expected)
    assert "seccomp filter" in found.report.verdict.summary
    assert found.meanings == ["refused", "reachable", "reachable"]
    check_error(found)


@pytest.mark.parametrize("answer", [errno.EPERM, errno.ENOSYS, errno.EACCES])
@pytest.mark.parametrize(("index", "number"), [(1, ENTER), (2, REGISTER)])
def test_filter_on_another_call_alone(answer: int, index: int, number: int) -> None:
    found = under_filter(RET_ERRNO | answer, (number,))
    assert (found.verdict, found.cause) == (("blocked", 3), ("seccomp", "certain"))
    expected = ["reachable"] * 3
    expected[index] = "absent" if answer == errno.ENOSYS else "refused"
    assert found.meanings == expected
    assert found.report.access.calls[index].name in found.report.verdict.summary
    # Set-up itself is allowed, and says what there is.
    assert {row.present for row in found.report.features} <= {True, False}


@pytest.mark.parametrize(("index", "number"), list(enumerate(CALLS)))
def test_filter_that_kills_for_one_call_alone(index: int, number: int) -> None:
    found = under_filter(RET_KILL_PROCESS, (number,), make_ring=False)
    assert (found.verdict, found.cause) == (("blocked", 3), ("seccomp", "certain"))
    expected = ["reachable"] * 3
    expected[index] = "killed"
    assert found.meanings == expected
    assert f"kills a process for {found.report.access.calls[index].name}." in found.report.verdict.summary


def test_no_filter_on_io_uring_is_no_cause() -> None:
    found = under_filter(RET_ERRNO | errno.EPERM, ())
    assert (found.verdict, found.report.diagnosis, found.error) == (("usable", 0), (), None)
    assert found.report.access.seccomp_mode == 2


def test_filter_that_kills_for_some_verbs_leaves_the_other_answers() -> None:
    def work() -> Found:
        install_filter(RET_KILL_PROCESS, (REGISTER,), argument=(1, 32))  # verbs from 32 on: QUERY is one
        return look()

    found = in_child(work)
    assert (found.verdict, found.error) == (("usable", 0), None)
    assert {row.present for row in found.report.register_ops} == {None}
    assert None not in {row.present for row in (*found.report.features, *found.report.opcodes)}


def test_operations_that_are_not_found_out_are_not_counted() -> None:
    def work() -> Found:
        install_filter(RET_KILL_PROCESS, (REGISTER,), argument=(1, 8))  # PROBE, and the verbs with that bit
        return look()

    found = in_child(work)
    assert found.verdict == ("usable", 0) and {row.present for row in found.report.opcodes} == {None}
    assert found.report.verdict.summary == f"io_uring can be used here: Linux {os.uname().release}."


# -- RLIMIT_MEMLOCK.


def is_charged() -> bool:
    def work() -> bool:
        limit_memlock(0)
        become_ordinary()
        return trial(1, 0, 0, 0, 0) == errno.ENOMEM

    answer = in_child(work)
    assert isinstance(answer, bool)
    return answer


def require_charge() -> None:
    if not is_charged():
        pytest.skip(f"Linux {os.uname().release} does not count rings against RLIMIT_MEMLOCK")


def test_rings_that_do_not_count() -> None:
    if is_charged():
        pytest.skip(f"Linux {os.uname().release} counts rings against RLIMIT_MEMLOCK")

    def work() -> Found:
        limit_memlock(0)
        become_ordinary()
        return look()

    found = in_child(work)
    memlock = found.report.access.memlock
    assert (found.verdict, found.error) == (("usable", 0), None)
    assert (memlock.soft_nbytes, memlock.is_charged, memlock.largest_ring_entries) == (0, False, 32768)


def test_no_memlock() -> None:
    def work() -> tuple[Found, Found]:
        limit_memlock(0)
        become_ordinary()
        before = look()
        exec(in_program(before.report.diagnosis[0].fix), {"resource": resource})
        return before, look()

    require_charge()
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] < 1 << 16 != -1:
        pytest.skip("needs a hard RLIMIT_MEMLOCK of 64 KiB")
    before, after = in_child(work)
    assert (before.verdict, before.cause) == (("blocked", 3), ("memlock", "certain"))
    memlock = before.report.access.memlock
    assert (memlock.soft_nbytes, memlock.is_charged, memlock.largest_ring_entries) == (0, True, 0)
    assert before.error is not None and "RLIMIT_MEMLOCK" in before.error
    assert before.report.access.ring == before.error
    assert (after.verdict, after.error) == (("usable", 0), None)


def in_program(fix: str) -> str:
    """The Python statement that a fix tells to run."""
    found = re.search(r"resource\.setrlimit\(resource\.RLIMIT_\w+, \(-?\d+, -?\d+\)\)", fix)
    assert found is not None, fix
    return found.group()


def test_no_fd_is_free() -> None:
    def work() -> tuple[Found, Found]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        before = look()
        exec(in_program(before.report.diagnosis[0].fix), {"resource": resource})
        return before, look()

    before, after = in_child(work)
    assert (before.verdict, before.cause) == (("blocked", 3), ("fd-limit", "certain"))
    check_error(before)
    assert (after.verdict, after.error) == (("usable", 0), None)


def test_no_process_can_be_made() -> None:
    def work() -> tuple[Found, Found]:
        limits = resource.getrlimit(resource.RLIMIT_NPROC)
        become_ordinary()
        resource.setrlimit(resource.RLIMIT_NPROC, (0, limits[1]))
        before = look()
        resource.setrlimit(resource.RLIMIT_NPROC, limits)  # as `ulimit -u` does
        return before, look()

    before, after = in_child(work)
    # A ring can be made, but only a child may try what a filter might kill it for.
    assert (before.verdict, before.cause, before.error) == (("undecided", 5), ("unknown", "possible"), None)
    assert "(EAGAIN)" in before.report.verdict.summary and "`ulimit -u`" in before.report.diagnosis[0].fix
    assert (after.verdict, after.error) == (("usable", 0), None)


def test_no_memlock_and_no_way_to_raise_it_but_as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, who raises another process's limit")
    require_charge()
    reader, writer = os.pipe()
    answers, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(writer)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
            become_ordinary()
            for _ in range(2):
                found = look()
                fixes = [one.fix for one in found.report.diagnosis]
                os.write(answer, json.dumps([found.verdict, fixes]).encode() + b"\n")
                os.read(reader, 1)
        finally:
            os._exit(0)
    os.close(answer)
    try:
        with os.fdopen(answers, encoding="utf-8") as lines, os.fdopen(writer, "wb", buffering=0) as go_on:
            verdict, fixes = json.loads(lines.readline())
            assert verdict == ["blocked", 3]
            told = re.search(r"`prlimit --pid (\d+) --memlock=(\d+):(\d+)`", fixes[0])
            assert told is not None and int(told[1]) == pid, fixes
            try:
                resource.prlimit(pid, resource.RLIMIT_MEMLOCK, (int(told[2]), int(told[3])))
            except PermissionError:
                pytest.skip("this root lacks CAP_SYS_RESOURCE, which raising a hard limit takes")
            go_on.write(b"x")
            assert json.loads(lines.readline()) == [["usable", 0], []]
            go_on.write(b"x")
    finally:
        os.close(reader)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("limit_nbytes", [2 * resource.getpagesize(), 16 * resource.getpagesize()])
def test_little_memlock(limit_nbytes: int) -> None:
    def work() -> tuple[Found, dict[int, int], str]:
        limit_memlock(limit_nbytes)
        become_ordinary()
        found = look()
        largest = found.report.access.memlock.largest_ring_entries
        assert largest
        made = {entries: patiently(lambda: trial(entries, 0, 0, 0, 0)) for entries in (largest, 2 * largest)}
        with pytest.raises(RingSetupError) as refused:
            Ring(16 * largest).close()
        return found, made, str(refused.value)

    require_charge()
    found, made, text = in_child(work)
    assert (found.verdict, found.error) == (("usable", 0), None)
    largest = found.report.access.memlock.largest_ring_entries
    assert made == {largest: 0, 2 * largest: errno.ENOMEM}
    assert f"room for one ring of {largest} entries" in found.report.verdict.summary
    assert f"enough for one of {largest} entries" in text and f"({limit_nbytes} bytes for all rings" in text
    # One ring at a time is enough to find everything out.
    assert [row.name for row in (*found.report.setup_flags, *found.report.register_ops) if row.present is None] == []


# -- Sysctls.


@contextlib.contextmanager
def sysctl(disabled: int, group: int | None = None) -> Iterator[None]:
    """Set them for a moment. A guest alone: on a machine that others use, their rings would fail."""
    if not DISABLED.exists():
        pytest.skip(f"needs Linux 6.6, which brought kernel.io_uring_disabled; this is {os.uname().release}")
    if not EMULATED or os.geteuid() != 0:
        pytest.skip("sets a sysctl of the whole system: in a guest, as root")
    before = DISABLED.read_text("ascii"), GROUP.read_text("ascii")
    try:
        if group is not None:
            GROUP.write_text(str(group), "ascii")
        DISABLED.write_text(str(disabled), "ascii")
        yield
    finally:
        GROUP.write_text(before[1], "ascii")
        DISABLED.write_text(before[0], "ascii")


def ordinary(groups: tuple[int, ...] = ()) -> Found:
    def work() -> Found:
        become_ordinary(groups)
        return look()

    found = in_child(work)
    assert isinstance(found, Found)
    return found


def follow(fix: str) -> None:
    """Do, as root, the `sysctl -w` that a fix tells."""
    told = re.search(r"`sysctl -w kernel\.io_uring_disabled=(\d)`", fix)
    assert told is not None, fix
    DISABLED.write_text(told[1], "ascii")


@pytest.mark.parametrize("who", ["root", "ordinary"])
def test_disabled_for_everybody(who: str) -> None:
    see: Callable[[], Found] = look if who == "root" else ordinary
    with sysctl(2):
        found = see()
        assert (found.verdict, found.cause) == (("blocked", 3), ("sysctl", "certain"))
        assert found.report.access.io_uring_disabled == 2
        assert found.meanings == ["refused", "reachable", "reachable"]
        check_error(found)
        # REGISTER_QUERY needs no ring.
        assert {row.present for row in found.report.opcodes} <= {True, False} or found.report.opcodes[0].source is None
        follow(found.report.diagnosis[0].fix)
        assert see().verdict == ("usable", 0)


def test_disabled_for_ordinary_users() -> None:
    with sysctl(1, -1):
        of_root, found = look(), ordinary()
        assert (of_root.verdict, of_root.error) == (("usable", 0), None)
        assert of_root.report.access.io_uring_disabled == 1
        assert (found.verdict, found.cause) == (("blocked", 3), ("sysctl", "certain"))
        assert found.report.access.is_in_group is False
        assert "groupadd io_uring" in found.report.diagnosis[0].fix
        check_error(found)
        follow(found.report.diagnosis[0].fix)
        assert ordinary().verdict == ("usable", 0)


def test_group_of_those_who_may() -> None:
    group = NOBODY + 1
    with sysctl(1, group):
        outside, inside = ordinary(), ordinary((group,))
        assert (outside.verdict, outside.cause) == (("blocked", 3), ("sysctl", "certain"))
        assert f"groupadd -g {group} io_uring && usermod -aG io_uring " in outside.report.diagnosis[0].fix
        assert (outside.report.access.io_uring_group, outside.report.access.is_in_group) == (group, False)
        check_error(outside)
        # A new login after that command gives the group.
        assert (inside.verdict, inside.error) == (("usable", 0), None)
        assert inside.report.access.is_in_group is True
        follow(outside.report.diagnosis[0].fix)
        assert ordinary().verdict == ("usable", 0)


def test_the_first_group_counts_too() -> None:
    with sysctl(1, NOBODY):
        assert ordinary().verdict == ("usable", 0)


@pytest.mark.parametrize("answer", [errno.EPERM, errno.ENOSYS])
def test_a_filter_before_the_sysctl(answer: int) -> None:
    with sysctl(2):
        found = under_filter(RET_ERRNO | answer, CALLS)
    assert (found.verdict, found.cause) == (("blocked", 3), ("seccomp", "certain"))
    behind = found.report.diagnosis[1]
    assert (behind.cause, behind.confidence) == ("sysctl", "certain")
