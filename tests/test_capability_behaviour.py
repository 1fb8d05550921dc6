"""Each behaviour that the report tries out: here where the kernel has it, and not where it is withheld.

Three ways to withhold: a restriction of the ring, which refuses a request, a verb or an SQE flag; a filter
on the system call; and completions that are altered on their way, as a kernel would bring them that does
the request's simple form alone.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable

import pytest
from conftest import RunChild
from sandbox import RET_ERRNO, become_ordinary, in_child, install_filter, limit_memlock
from sandbox import ring_possible as ring_possible

from rawuring import Ring, RingSetupError, abi, capability, register, syscalls
from rawuring.capability import answering, behaviour
from rawuring.capability.behaviour import bench, rings
from rawuring.capability.report import BACKPORT, LATER, OK, Behaviour, Report

RELEASE = os.uname().release
CqeFlag = abi.CqeFlag


@pytest.fixture(scope="module")
def report() -> Report:
    return capability.examine(run=True)


def row(report: Report, name: str) -> Behaviour:
    return next(one for one in report.behaviour if one.name == name)


def require(report: Report, name: str) -> Behaviour:
    """Skip what this kernel is too old for: it is negative without further ado, which another test sees."""
    found = row(report, name)
    if found.state == LATER:
        pytest.skip(f"needs Linux {found.since}, this is {RELEASE}")
    return found


@pytest.mark.parametrize("name", behaviour.TRIALS)
def test_it_is_here_or_its_release_is_not(report: Report, name: str) -> None:
    found = row(report, name)
    assert found.state in (OK, BACKPORT, LATER), found
    assert found.present is (found.state != LATER)
    assert found.detail and "\n" not in found.detail


# -- Restrictions.

Withheld = abi.Op | abi.Register | abi.SqeFlag

WITHHELD: dict[str, Withheld] = {
    "linked_requests": abi.SqeFlag.IO_LINK,
    "linked_timeout": abi.Op.LINK_TIMEOUT,
    "timeout_multishot": abi.Op.TIMEOUT,
    "poll_multishot": abi.Op.POLL_ADD,
    "cancel_fd": abi.Op.ASYNC_CANCEL,
    "cqe_skip_success": abi.SqeFlag.CQE_SKIP_SUCCESS,
    "accept_multishot": abi.Op.ACCEPT,
    "recv_multishot": abi.Op.RECV,
    "recvmsg_multishot": abi.Op.RECVMSG,
    "read_multishot": abi.Op.READ_MULTISHOT,
    "recv_poll_first": abi.Op.RECV,
    "provided_buffers": abi.Op.PROVIDE_BUFFERS,
    "provided_buffer_ring": abi.Register.PBUF_RING,
    "incremental_buffers": abi.Register.PBUF_RING,
    "recv_bundle": abi.Op.RECV,
    "send_bundle": abi.Op.SEND,
    "send_zc": abi.Op.SEND_ZC,
    "registered_buffers": abi.Register.BUFFERS,
    "registered_files": abi.Register.FILES,
    "direct_descriptors": abi.Op.ACCEPT,
    "msg_ring": abi.Op.MSG_RING,
    "msg_ring_fd": abi.Op.MSG_RING,
    "registered_ring_fd": abi.Register.RING_FDS,
    "sqpoll": abi.Op.NOP,
    "cq_overflow": abi.Op.NOP,
}


def restrict_rings(monkeypatch: pytest.MonkeyPatch, report: Report, withheld: Withheld) -> None:
    make = bench.TrialRing.__init__

    def allowed(table: str, kind: type) -> list[int]:
        withheld_here = int(withheld) if isinstance(withheld, kind) else None
        return [one.value for one in getattr(report, table) if one.present and one.value != withheld_here]

    def make_restricted(ring: bench.TrialRing, setup_flags: int = 0, *, cq_entries: int | None = None) -> None:
        make(ring, setup_flags | abi.Setup.R_DISABLED, cq_entries=cq_entries)
        sqe_flags = sum(abi.SqeFlag) & ~(int(withheld) if isinstance(withheld, abi.SqeFlag) else 0)
        ops, verbs = allowed("opcodes", abi.Op), allowed("register_ops", abi.Register)
        register.restrictions(ring.fileno(), ops, verbs, sqe_flags)
        ring.enable()

    monkeypatch.setattr(bench.TrialRing, "__init__", make_restricted)


@pytest.mark.parametrize(("name", "withheld"), WITHHELD.items())
def test_negative_where_a_restriction_withholds_it(
    report: Report, monkeypatch: pytest.MonkeyPatch, name: str, withheld: Withheld
) -> None:
    require(report, name)
    restrict_rings(monkeypatch, report, withheld)
    found = behaviour.try_out(behaviour.TRIALS[name], "99.0")
    assert (found.present, found.state) == (False, "missing"), found
    assert "EACCES" in found.detail, found


@pytest.mark.parametrize("name", WITHHELD)
def test_a_restriction_of_something_else_withholds_nothing(
    report: Report, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    require(report, name)
    restrict_rings(monkeypatch, report, abi.Op.TEE)
    found = behaviour.try_out(behaviour.TRIALS[name], RELEASE)
    assert found.present is True, found


# -- A filter.


def test_negative_where_a_filter_withholds_it(report: Report) -> None:
    require(report, "wait_timeout")

    def work() -> Behaviour:
        with Ring(2):  # imported and found by now: the filter lets nothing wait with a timeout
            pass
        install_filter(RET_ERRNO | errno.EINVAL, (syscalls.NR_ENTER,), argument=(3, int(abi.Enter.EXT_ARG)))
        return behaviour.try_out(behaviour.TRIALS["wait_timeout"], "99.0")

    found = in_child(work)
    assert (found.present, found.state) == (False, "missing") and "EINVAL" in found.detail


def test_every_behaviour_is_withheld_by_something() -> None:
    assert behaviour.TRIALS.keys() == WITHHELD.keys() | {"wait_timeout"}


# -- Altered completions.

def ends_at_once(res: int, cqe_flags: int) -> tuple[int, int]:
    return res, cqe_flags & ~CqeFlag.MORE


def without_buffer(res: int, cqe_flags: int) -> tuple[int, int]:
    return res, cqe_flags & 0xFFFF & ~CqeFlag.BUFFER


def used_up(res: int, cqe_flags: int) -> tuple[int, int]:
    return res, cqe_flags & ~CqeFlag.BUF_MORE


def short(res: int, cqe_flags: int) -> tuple[int, int]:
    return min(res, 8), cqe_flags


Change = Callable[[int, int], tuple[int, int]]
ALTERED: dict[str, tuple[Change, str]] = {
    "timeout_multishot": (ends_at_once, "ended with its first completion"),
    "poll_multishot": (ends_at_once, "ended with its first completion"),
    "accept_multishot": (ends_at_once, "ended with its first completion"),
    "recv_multishot": (ends_at_once, "ended with its first completion"),
    "recvmsg_multishot": (ends_at_once, "ended with its first completion"),
    "read_multishot": (ends_at_once, "ended with its first completion"),
    "send_zc": (ends_at_once, "announced no notification"),
    "provided_buffers": (without_buffer, "took no buffer"),
    "provided_buffer_ring": (without_buffer, "without a buffer"),
    "incremental_buffers": (used_up, "used up by its first message"),
    "recv_bundle": (short, "8 of 24 bytes"),
    "send_bundle": (short, "one send sent 8 bytes"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_negative_where_the_kernel_does_the_simple_form(
    report: Report, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    require(report, name)
    change, words = ALTERED[name]

    def altered(ring: Ring) -> list[bench.Cqe]:
        return [(user_data, *change(res, cqe_flags)) for user_data, res, cqe_flags in Ring.completions(ring)]

    monkeypatch.setattr(bench.TrialRing, "completions", altered)
    found = behaviour.try_out(behaviour.TRIALS[name], "99.0")
    assert found.present is False and words in found.detail, found


def test_negative_where_a_bundle_leaves_a_gap(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    require(report, "recv_bundle")
    monkeypatch.setattr(socket, "MSG_OOB", 0)  # data that nothing keeps apart
    found = behaviour.try_out(behaviour.TRIALS["recv_bundle"], RELEASE)
    assert found.present is False and "behind a gap" in found.detail, found


def test_negative_where_completions_are_lost(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_last(ring: Ring) -> list[bench.Cqe]:
        return [one for one in Ring.completions(ring) if one[0] != 15]

    monkeypatch.setattr(bench, "_PATIENCE_NS", 10_000_000)
    monkeypatch.setattr(bench.TrialRing, "completions", without_last)
    found = behaviour.try_out(behaviour.TRIALS["cq_overflow"], RELEASE)
    assert found.present is False and "and 15 came" in found.detail, found


# -- What is not found out.


def test_a_trial_that_is_ended_is_not_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "sqpoll", lambda: os.kill(os.getpid(), signal.SIGKILL))
    found = behaviour.try_out(behaviour.TRIALS["sqpoll"], RELEASE)
    assert (found.present, found.state) == (None, "unknown")


def test_a_trial_that_hangs_is_ended() -> None:
    assert answering.in_child(lambda: time.sleep(600), timeout_s=0.1) is None


@pytest.mark.parametrize(
    ("present", "error"),
    [
        (False, OSError(errno.EINVAL, "io_uring_register: Invalid argument")),
        (False, PermissionError(errno.EACCES, "io_uring_register: Permission denied")),
        (False, RingSetupError(errno.EINVAL, "a flag is unknown")),
        (None, RingSetupError(errno.EMFILE, "no fd is left")),
        (None, PermissionError(errno.EACCES, "Permission denied")),
        (None, OSError(errno.EMFILE, "no")),
        (None, OSError(errno.ENOMEM, "no")),
        (None, ConnectionRefusedError(errno.ECONNREFUSED, "no")),
        (None, ValueError("a mistake of ours")),
    ],
)
def test_what_an_exception_says(present: bool | None, error: Exception) -> None:
    def work() -> str:
        raise error

    assert bench.attempt(work)[0] is present


@pytest.mark.portable
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE])
def test_a_request_that_lacked_something_is_no_answer(number: int) -> None:
    def work() -> str:
        return str(bench.succeeded("the accept", -number))

    assert bench.attempt(work) == (None, f"{errno.errorcode[number]}: the accept")


@pytest.mark.portable
def test_a_ring_that_cannot_be_made_is_told_without_what_to_do_for_a_process_that_has_ended() -> None:
    def work() -> str:
        raise RingSetupError(errno.EMFILE, f"As root, `prlimit --pid {os.getpid()}`.")

    assert bench.attempt(work) == (None, "io_uring_setup failed with EMFILE")


def test_no_memory_is_no_answer() -> None:
    def work() -> Behaviour:
        limit_memlock(0)
        become_ordinary()
        return behaviour.try_out(behaviour.TRIALS["registered_buffers"], RELEASE)

    found = in_child(work)
    assert (found.present, found.state) == (None, "unknown") and "ENOMEM" in found.detail


@pytest.mark.portable
def test_trials_are_loaded_when_they_are_run(run_child: RunChild) -> None:
    run_child("""
        import sys
        from rawuring import capability

        capability.examine()
        assert "rawuring.capability.behaviour.bench" not in sys.modules and "socket" not in sys.modules
    """)


def test_behaviours_are_not_tried_where_no_ring_can_be_made() -> None:
    def work() -> Report:
        install_filter(RET_ERRNO | errno.EPERM, (syscalls.NR_SETUP,))
        return capability.examine(run=True)

    assert {(one.present, one.state) for one in in_child(work).behaviour} == {(None, "not run")}
