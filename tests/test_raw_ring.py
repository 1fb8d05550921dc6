"""The ring's own mechanism on this kernel: set-up, submitting, waiting, overflow, the SQ thread, misuse, the end."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import RunChild
from emulation import PATIENCE, fewer
from interrupted import Interrupt
from support import (
    HANG_NS,
    Alarm,
    Cqe,
    Pipe,
    address,
    granted,
    needs,
    nops,
    pipe,
    prep_nop32,
    release_of,
    take,
    take_one,
    wait_until,
)

from rawuring import (
    WANTED_FLAGS,
    OutOfOrderError,
    RawuringError,
    Ring,
    RingClosedError,
    RingSetupError,
    SubmissionQueueFullError,
    UnsupportedError,
    WrongThreadError,
    abi,
    syscalls,
)
from rawuring.abi import Setup
from rawuring.ring import entering

CqeFlag, Feature, Nop, Op = abi.CqeFlag, abi.Feature, abi.Nop, abi.Op
MS = 10**6

__all__ = ["pipe"]


# --- the queues' shapes


@pytest.mark.pitfall("a bad index in the SQ array is dropped in silence")
@pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0, Setup.NO_SQARRAY, Setup.SUBMIT_ALL])
def test_thousands_of_turns_around_small_queues(wanted_flags: int) -> None:
    with Ring(4, wanted_flags=wanted_flags) as ring:
        assert ring._memory.has_sq_array == (not ring.setup_flags & Setup.NO_SQARRAY)
        sent = received = 0
        for turn in range(fewer(1500)):
            for _ in range(turn % 4 + 1):
                ring.sq.prep_nop(user_data=sent)
                sent += 1
            assert ring.submit_and_wait(turn % 4 + 1) == turn % 4 + 1
            for cqe in ring.completions():
                assert cqe == (received, 0, 0)
                received += 1
        assert received == sent == ring.sq.tail == ring.cq.head
        assert ring.sq.dropped == ring.cq.lost == 0


@pytest.mark.behaviour("nop")
def test_sqe128() -> None:
    with granted(Setup.SQE128) as ring:
        needs(Nop.INJECT_RESULT.since, ring)
        for turn in range(5):
            expected = []
            for slot in range(8):
                user_data = turn * 8 + slot
                ring.sq.prep_nop_flags(Nop.INJECT_RESULT, res=user_data * 3, user_data=user_data)
                expected.append((user_data, user_data * 3, 0))
            assert take(ring, 8) == expected


@pytest.mark.behaviour("nop", "nop32")
def test_cqe32() -> None:
    with granted(Setup.CQE32) as ring:
        for turn in range(20):
            nops(ring, *range(turn, turn + 3))
            assert take(ring, 3) == [(user_data, 0, 0) for user_data in range(turn, turn + 3)]
        needs(Nop.CQE32.since, bool(ring.supports(Op.PIPE)))
        for turn in range(20):
            expected = []
            for user_data in range(turn, turn + 3):
                big = (1 << 64) - 1 - user_data, user_data << 32
                prep_nop32(ring, user_data, big)
                expected.append((user_data, 0, 0, *big))
            ring.submit_and_wait(3, HANG_NS)
            found = ring.cq.drain32()
            if found[0][1] == -errno.EINVAL:
                needs(Nop.CQE32.since, False)
            assert found == expected


@pytest.mark.behaviour("nop32")
def test_cqe_mixed() -> None:
    with granted(Setup.CQE_MIXED, cq_entries=8) as ring:
        user_data = 0
        for turn in range(60):
            expected = []
            for is_big in (turn % 2 == 0, turn % 3 == 0, turn % 5 == 0):
                user_data += 1
                if is_big:
                    prep_nop32(ring, user_data, (user_data, 7))
                    expected.append((user_data, 0, int(CqeFlag.F_32), user_data, 7))
                else:
                    ring.sq.prep_nop(user_data=user_data)
                    expected.append((user_data, 0, 0, 0, 0))
            ring.submit_and_wait(3, HANG_NS)
            if turn % 4:
                assert ring.cq.drain32() == expected
            else:
                assert ring.completions() == [cqe[:3] for cqe in expected]


@pytest.mark.behaviour("sq-full", "sq-space_left")
def test_a_full_queue_works_again_after_submit() -> None:
    with Ring(4) as ring:
        for turn in range(3):
            nops(ring, 0, 1, 2, 3)
            assert (ring.sq.space_left, ring.sq.ready) == (0, 4)
            with pytest.raises(SubmissionQueueFullError, match=r"submit\(\)"):
                ring.sq.prep_nop(user_data=4)
            assert ring.submit() == 4
            assert (ring.sq.space_left, ring.sq.ready) == (4, 0)
            ring.sq.prep_nop(user_data=4)
            assert [user_data for user_data, _, _ in take(ring, 5)] == [0, 1, 2, 3, 4]


def submit_patiently(ring: Ring, found: list[Cqe]) -> None:
    """Submit; a kernel before 5.19 takes nothing while completions have overflowed."""
    while True:
        try:
            ring.submit()
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            found += ring.completions()


def drain_overflow(ring: Ring, found: list[Cqe], nr: int) -> None:
    while len(found) < nr:
        ring.submit_and_wait(1, HANG_NS)
        batch = ring.completions()
        assert 0 < len(batch) <= 4
        found += batch


@pytest.mark.behaviour("cq-full", "cq-overflow")
@pytest.mark.pitfall("overflow keeps completions")
@pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0])
def test_overflow_loses_nothing(wanted_flags: int) -> None:
    with Ring(4, cq_entries=4, wanted_flags=wanted_flags) as ring:
        found: list[Cqe] = []
        for user_data in range(50):
            if not ring.sq.space_left:
                submit_patiently(ring, found)
            ring.sq.prep_nop(user_data=user_data)
        submit_patiently(ring, found)
        if not found:
            assert (ring.cq.ready, ring.cq.overflowed, ring.cq.needs_enter) == (4, True, True)
        drain_overflow(ring, found, 50)
        assert sorted(found) == [(user_data, 0, 0) for user_data in range(50)]
        ring.submit_and_wait(0)
        assert (ring.completions(), ring.cq.overflowed, ring.cq.lost) == ([], False, 0)


@pytest.mark.behaviour("cq-overflow")
@pytest.mark.pitfall("overflow keeps completions")
@pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0])
def test_overflow_of_what_completes_later(wanted_flags: int, pipe: Pipe) -> None:
    with Ring(4, cq_entries=4, wanted_flags=wanted_flags) as ring:
        for user_data in range(20):
            ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=user_data)
            if not ring.sq.space_left:
                assert ring.submit() == 4
        os.write(pipe[1], b"x")
        found: list[Cqe] = []
        drain_overflow(ring, found, 20)
        assert sorted(found) == [(user_data, select.POLLIN, 0) for user_data in range(20)]
        assert ring.cq.lost == 0


@pytest.mark.pitfall("a wait may end early")
def test_a_wait_for_more_than_the_cq_holds_is_cut() -> None:
    with Ring(4) as ring:
        for _ in range(2):
            nops(ring, 1, 2, 3, 4)
            ring.submit()
        assert ring.submit_and_wait(1000) == 0
        assert len(ring.completions()) == ring.cq.entries == 8
        nops(ring, 1, 2, 3, 4)
        ring.submit()
        nops(ring, 1, 2, 3, 4)
        assert ring.submit_and_wait(1000) == 4
        assert len(ring.completions()) == 8


# --- submitting


def bad_in_the_middle(ring: Ring) -> list[Cqe]:
    ring.sq.prep_nop(user_data=1)
    ring.sq._encode(255, -1, 0, 0, 0, 0, 2, 0)  # no kernel has that opcode
    ring.sq.prep_nop(user_data=3)
    ring.sq._encode(255, -1, 0, 0, 0, 0, 4, 0)
    ring.sq.prep_nop(user_data=5)
    return [(1, 0, 0), (2, -errno.EINVAL, 0), (3, 0, 0), (4, -errno.EINVAL, 0), (5, 0, 0)]


@pytest.mark.behaviour("drop-submit")
@pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0])
@pytest.mark.parametrize("timeout_ns", [None, HANG_NS])
def test_a_bad_sqe_does_not_hold_the_rest_back(wanted_flags: int, timeout_ns: int | None) -> None:
    with Ring(8, wanted_flags=wanted_flags) as ring:
        expected = bad_in_the_middle(ring)
        assert ring.submit() == 5
        # Before Linux 5.19 what fails at once is posted before what succeeded at once.
        assert sorted(ring.completions()) == expected
        expected = bad_in_the_middle(ring)
        assert ring.submit_and_wait(5, timeout_ns) == 5
        assert sorted(ring.completions()) == expected
        assert ring.sq.ready == 0


def test_submit_with_nothing_queued_does_nothing() -> None:
    with Ring(4) as ring:
        assert ring.submit() == 0
        assert ring.submit_and_wait(0) == 0
        assert ring.submit_and_wait(0, HANG_NS) == 0
        assert ring.completions() == []


@pytest.mark.behaviour("defer-taskrun")
@pytest.mark.pitfall("DEFER_TASKRUN hides completions")
def test_submit_alone_leaves_later_completions_to_an_enter(pipe: Pipe) -> None:
    with Ring(4) as ring:
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
        ring.submit()
        assert ring.completions() == []
        os.write(pipe[1], b"x")
        if ring.setup_flags & Setup.DEFER_TASKRUN:
            assert ring.completions() == [] and ring.cq.needs_enter
        ring.submit_and_wait(0)
        assert ring.completions() == [(1, select.POLLIN, 0)]


def test_the_ring_polls_readable_when_there_is_something() -> None:
    with Ring(4) as ring:
        poll = select.poll()
        poll.register(ring, select.POLLIN)
        assert poll.poll(0) == []
        ring.sq.prep_nop()
        ring.submit()
        assert poll.poll(0) == [(ring.fileno(), select.POLLIN)]


@pytest.mark.behaviour("defer-taskrun")
@pytest.mark.pitfall("DEFER_TASKRUN hides completions")
def test_an_eventfd_wakes_an_event_loop(pipe: Pipe) -> None:
    """The fd of a DEFER_TASKRUN ring does not wake who sleeps on it already; a registered eventfd does."""
    event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    writer = threading.Timer(0.02, os.write, (pipe[1], b"x"))
    try:
        with Ring(4) as ring:
            ring.register_eventfd(event)
            ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
            ring.submit()
            writer.start()
            assert select.select([event], [], [], HANG_NS / 1e9)[0] == [event]
            ring.submit_and_wait(0)
            assert ring.completions() == [(1, select.POLLIN, 0)]
    finally:
        writer.join()
        os.close(event)


# --- waiting


TIMERS = [pytest.param(0, id="enter's timeout"), pytest.param(Feature.EXT_ARG, id="a timeout request")]


@pytest.mark.behaviour("submit-and-wait")
@pytest.mark.parametrize("mask_features", TIMERS)
@pytest.mark.parametrize("setup_flags", [0, Setup.SQPOLL], ids=["", "sqpoll"])
def test_a_wait_ends_when_its_time_has_passed(mask_features: int, setup_flags: int) -> None:
    with Ring(4, setup_flags, mask_features=mask_features) as ring:
        for nr in (1, 3):
            started = time.monotonic_ns()
            assert ring.submit_and_wait(nr, 20 * MS) == 0
            assert time.monotonic_ns() - started >= 20 * MS
            assert ring.completions() == []
        # With something submitted and completed, less than was asked for.
        nops(ring, 1, 2)
        assert ring.submit_and_wait(3, 20 * MS) == 2
        found = ring.completions()
        while len(found) < 2 and setup_flags & Setup.SQPOLL:  # the SQ thread had no CPU all that time
            ring.submit_and_wait(1, HANG_NS)
            found += ring.completions()
        assert found == [(1, 0, 0), (2, 0, 0)]
        # What the caller did not ask for is not counted, and nothing is left behind.
        nops(ring, 3)
        assert ring.submit_and_wait(1, HANG_NS) == 1
        assert ring.completions() == [(3, 0, 0)]
        ring.submit_and_wait(0)
        assert (ring.completions(), ring.in_flight) == ([], 0)


@pytest.mark.behaviour("submit-and-wait")
@pytest.mark.parametrize("mask_features", TIMERS)
def test_a_wait_with_a_timeout_ends_with_what_it_waits_for(mask_features: int, pipe: Pipe) -> None:
    with Ring(4, mask_features=mask_features) as ring:
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
        writer = threading.Timer(0.02, os.write, (pipe[1], b"x"))
        writer.start()
        assert ring.submit_and_wait(1, HANG_NS) == 1
        assert ring.completions() == [(1, select.POLLIN, 0)]
        writer.join()


@pytest.mark.parametrize("mask_features", TIMERS)
def test_a_full_queue_is_submitted_with_a_timeout_too(mask_features: int) -> None:
    with Ring(4, mask_features=mask_features) as ring:
        nops(ring, 1, 2, 3, 4)
        assert ring.submit_and_wait(4, HANG_NS) == 4
        assert ring.completions() == [(user_data, 0, 0) for user_data in (1, 2, 3, 4)]


@pytest.mark.parametrize("mask_features", TIMERS)
def test_completions_not_taken_yet_count_for_the_next_wait(mask_features: int) -> None:
    with Ring(4, mask_features=mask_features) as ring:
        nops(ring, 1)
        ring.submit_and_wait(2, 1 * MS)
        assert ring.submit_and_wait(1, HANG_NS) == 0
        ring.submit_and_wait(1)
        assert ring.completions() == [(1, 0, 0)]


@pytest.mark.parametrize("mask_features", TIMERS)
def test_a_wait_without_time_only_looks(mask_features: int) -> None:
    with Ring(4, mask_features=mask_features) as ring:
        for timeout_ns in (0, -5):
            assert ring.submit_and_wait(1, timeout_ns) == 0
            nops(ring, 1)
            assert ring.submit_and_wait(2, timeout_ns) == 1
            assert ring.completions() == [(1, 0, 0)]


@pytest.mark.parametrize("timeout_ns", [None, HANG_NS])
@pytest.mark.parametrize("mask_features", TIMERS)
def test_what_the_owned_layer_reaped_on_its_way_counts_too(mask_features: int, timeout_ns: int | None) -> None:
    with Ring(8, mask_features=mask_features) as ring:
        nops(ring, 1, 2)
        assert ring.nop().wait(HANG_NS) == 0
        assert ring.submit_and_wait(2, timeout_ns) == 0
        nops(ring, 3)
        assert ring.submit_and_wait(3, timeout_ns) == 1
        assert ring.completions() == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]


def test_what_an_interrupt_left_counts_too_and_comes_with_the_rest(pipe: Pipe) -> None:
    n = 0
    fired = True
    while fired:
        n += 1
        with Ring(8) as ring:
            ring.read(pipe[0], bytearray(8))
            nops(ring, 1)
            ring.submit_and_wait(1)
            found: list[Cqe] = []
            with Interrupt(n, frozenset({"_resolve", "_resolve_special", "_resolve_plain"})) as interrupt:
                found = ring.completions()
            nops(ring, 2)
            ring.submit_and_wait(2 - len(found), HANG_NS)
            assert found + ring.completions() == [(1, 0, 0), (2, 0, 0)]
            fired = interrupt.fired
    assert n > 10


def test_callbacks_that_an_exception_left_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(op: object, res: int, cqe_flags: int) -> None:
        raise ZeroDivisionError

    def enter(fd: int, to_submit: int, min_complete: int, *rest: object) -> int:
        waits.append(min_complete)
        return 0

    called: list[int] = []
    waits: list[int] = []
    with Ring(4) as ring:
        ring.nop(callback=fail)
        ring.nop(callback=lambda op, res, cqe_flags: called.append(res))
        ring.submit_and_wait(2)
        with pytest.raises(ZeroDivisionError):
            ring.completions()
        monkeypatch.setattr(entering, "_enter", enter)
        ring.submit_and_wait(1, 1 * MS)
        assert set(waits) == {0}
        assert ring.completions() == [] and called == [0]
        monkeypatch.undo()


@pytest.mark.pitfall("a wait may end early")
def test_a_timeout_request_of_the_caller_does_not_end_the_wait_early(pipe: Pipe) -> None:
    """A TIMEOUT that fires wakes every waiter: the ring looks again and goes on."""
    with Ring(4) as ring:
        soon = abi.KERNEL_TIMESPEC.pack(tv_nsec=5 * MS)
        later = abi.KERNEL_TIMESPEC.pack(tv_nsec=30 * MS)
        ring.sq.prep_timeout(address(soon), 0, 0, user_data=1)
        ring.sq.prep_timeout(address(later), 0, 0, user_data=2)
        ring.submit_and_wait(2)
        assert ring.completions() == [(1, -errno.ETIME, 0), (2, -errno.ETIME, 0)]


WAITS = [
    pytest.param(0, None, id="no timeout"),
    pytest.param(0, HANG_NS, id="enter's timeout"),
    pytest.param(Feature.EXT_ARG, HANG_NS, id="a timeout request"),
]


@pytest.mark.pitfall("a wait may end early")
@pytest.mark.parametrize(("mask_features", "timeout_ns"), WAITS)
@pytest.mark.parametrize("setup_flags", [0, Setup.SQPOLL], ids=["", "sqpoll"])
def test_a_signal_handler_runs_and_the_wait_goes_on(
    mask_features: int, timeout_ns: int | None, setup_flags: int, pipe: Pipe
) -> None:
    def third_time_lucky(count: int) -> None:
        if count == 3:
            os.write(pipe[1], b"x")

    with Ring(4, setup_flags, mask_features=mask_features) as ring:
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
        with Alarm(third_time_lucky) as alarm:
            assert ring.submit_and_wait(1, timeout_ns) == 1
        assert alarm.count >= 3
        assert ring.completions() == [(1, select.POLLIN, 0)]


@pytest.mark.parametrize(("mask_features", "timeout_ns"), WAITS)
def test_a_handler_that_raises_ends_the_wait(mask_features: int, timeout_ns: int | None, pipe: Pipe) -> None:
    class Enough(Exception):
        pass

    def enough(count: int) -> None:
        raise Enough

    with Ring(8, mask_features=mask_features) as ring:
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
        with pytest.raises(Enough), Alarm(enough):
            ring.submit_and_wait(1, timeout_ns)
        # The request is still in flight, and the ring works.
        os.write(pipe[1], b"x")
        assert take_one(ring, 1) == (select.POLLIN, 0)


def test_signals_do_not_stretch_a_timeout() -> None:
    with Ring(4) as ring, Alarm(lambda count: None) as alarm:
        assert ring.submit_and_wait(1, 200 * MS * PATIENCE) == 0
        assert alarm.count >= 1


def test_a_handler_may_use_another_ring_and_fail(pipe: Pipe) -> None:
    """The errno of the interrupted wait must be its own, whatever calls the handler makes."""

    def fail(count: int) -> None:
        assert syscalls.enter(-1, 0, 0, 0) == -errno.EBADF
        with Ring(4) as other:
            nops(other, 1)
            assert take_one(other, 1) == (0, 0)
        assert syscalls.enter(-1, 0, 0, 0) == -errno.EBADF
        if count == 3:
            os.write(pipe[1], b"x")

    with Ring(4) as ring:
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
        with Alarm(fail):
            ring.submit_and_wait(1)
        assert ring.completions() == [(1, select.POLLIN, 0)]


# --- the SQ thread


@pytest.fixture
def sqpoll() -> Iterator[Ring]:
    try:
        ring = Ring(4, Setup.SQPOLL, sq_thread_idle_ms=10)
    except RingSetupError as error:
        needs("5.13", error.errno != errno.EPERM)
        raise
    with ring:
        yield ring


def test_the_sq_thread_submits(sqpoll: Ring) -> None:
    nops(sqpoll, 1, 2, 3)
    assert sqpoll.submit() == 3
    wait_until(lambda: sqpoll.cq.ready == 3)
    assert sqpoll.completions() == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
    assert sqpoll.submit() == 0
    nops(sqpoll, 4, 5)
    assert sqpoll.submit_and_wait(2) == 2
    assert sqpoll.completions() == [(4, 0, 0), (5, 0, 0)]


@pytest.mark.behaviour("sqpoll-sleep")
@pytest.mark.parametrize("enter", ["submit", "submit_and_wait", "with a timeout"])
def test_the_sq_thread_is_woken(sqpoll: Ring, enter: str) -> None:
    for user_data in range(3):
        wait_until(sqpoll.sq.needs_wakeup)
        nops(sqpoll, user_data)
        if enter == "submit":
            assert sqpoll.submit() == 1
        else:
            assert sqpoll.submit_and_wait(1, HANG_NS if enter == "with a timeout" else None) == 1
        wait_until(lambda: sqpoll.cq.ready == 1)
        assert sqpoll.completions() == [(user_data, 0, 0)]


@pytest.mark.behaviour("sqwait")
def test_the_sq_thread_empties_a_full_queue(sqpoll: Ring) -> None:
    received = []
    for user_data in range(500):
        while not sqpoll.sq.space_left:
            # Not by a wait for completions: all of them may be there before the kernel says that it consumed the SQEs.
            sqpoll.submit()
            received += sqpoll.completions()
            os.sched_yield()
        nops(sqpoll, user_data)
    while len(received) < 500:
        sqpoll.submit_and_wait(1, HANG_NS)
        received += sqpoll.completions()
    assert received == [(user_data, 0, 0) for user_data in range(500)]


def test_the_owned_layer_waits_for_the_sq_thread(sqpoll: Ring) -> None:
    operations = [sqpoll.nop() for _ in range(200)]
    assert [operation.wait(HANG_NS) for operation in operations] == [0] * 200


# --- a ring that starts disabled


@pytest.mark.behaviour("single-issuer")
def test_a_disabled_ring_belongs_to_the_thread_that_enables_it() -> None:
    found: list[object] = []
    with contextlib.ExitStack() as stack:
        ring = Ring(4, Setup.R_DISABLED)
        with pytest.raises(OutOfOrderError, match=r"enable\(\)"):
            ring.submit_and_wait(0)
        nops(ring, 1)
        with pytest.raises(OutOfOrderError, match=r"enable\(\)"):
            ring.submit()

        def elsewhere() -> None:
            ring.enable()
            with ring:
                found.append(take_one(ring, 1))
                with pytest.raises(OSError) as caught:
                    ring.enable()
                found.append(caught.value.errno)
                is_enabled.set()
                may_end.wait(HANG_NS / 1e9)

        is_enabled, may_end = threading.Event(), threading.Event()
        thread = threading.Thread(target=elsewhere, name="the owner")
        thread.start()
        stack.callback(thread.join)
        stack.callback(may_end.set)
        assert is_enabled.wait(HANG_NS / 1e9)
        nops(ring, 2)
        for use in (ring.submit, ring.submit_and_wait, lambda: ring.submit_and_wait(1, MS), ring.close):
            with pytest.raises(WrongThreadError, match="'the owner'"):
                use()
    assert found == [(0, 0), errno.EBADFD]
    assert ring.closed


# --- set-up on older kernels


def kernel_of(release: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have io_uring_setup answer as a kernel of that release. Returns the list of flags that were tried."""
    known = sum(flag for flag in Setup if release_of(flag.since) <= release_of(release))
    tried: list[int] = []
    real = syscalls.setup

    def setup(entries: int, params: bytearray) -> int:
        asked = abi.IO_URING_PARAMS.get(params, "flags")
        tried.append(asked)
        if asked & ~known:
            raise OSError(errno.EINVAL, "unknown flags")
        return real(entries, params)

    monkeypatch.setattr(syscalls, "setup", setup)
    return tried


@pytest.mark.parametrize(
    ("release", "flags"),
    [
        ("5.10", Setup(0)),
        ("5.18", Setup.SUBMIT_ALL),
        ("5.19", Setup.SUBMIT_ALL),
        ("6.0", Setup.SUBMIT_ALL | Setup.SINGLE_ISSUER),
        ("6.1", Setup.SUBMIT_ALL | Setup.SINGLE_ISSUER | Setup.DEFER_TASKRUN),
        ("6.5", Setup.SUBMIT_ALL | Setup.SINGLE_ISSUER | Setup.DEFER_TASKRUN),
        ("6.6", WANTED_FLAGS),
    ],
)
def test_set_up_steps_down(release: str, flags: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ring(2) as ring:
        needs(release, ring.setup_flags & flags == flags)
    tried = kernel_of(release, monkeypatch)
    with Ring(4) as ring:
        assert ring.setup_flags == flags
        assert len(tried) <= 5
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)
    tried.clear()
    with Ring(4, Setup.CQSIZE, cq_entries=16) as ring:
        assert ring.setup_flags == flags | Setup.CQSIZE
        assert all(asked & Setup.CQSIZE for asked in tried)
    # What goes together with an SQ thread.
    with Ring(4, Setup.SQPOLL) as ring:
        assert ring.setup_flags == Setup.SQPOLL | flags & ~Setup.DEFER_TASKRUN
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)


def test_a_ring_with_less_than_was_wanted_is_freed_without_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_of("5.18", monkeypatch)
    gc.disable()
    try:
        ring = Ring(4)
        ring.close()
        ref = weakref.ref(ring)
        del ring
        assert ref() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("release", "flag"), [("5.10", Setup.SQE128), ("5.19", Setup.SINGLE_ISSUER)])
def test_set_up_never_drops_what_was_named(release: str, flag: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_of(release, monkeypatch)
    with pytest.raises(RingSetupError) as caught:
        Ring(4, flag)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("failures", [3, 10**9])
def test_memory_that_comes_back_late_is_waited_for(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a closed ring is charged to its user for a while longer."""
    real = syscalls.setup
    tries = 0

    def setup(entries: int, params: bytearray) -> int:
        nonlocal tries
        tries += 1
        if tries <= failures:
            raise OSError(errno.ENOMEM, "not yet")
        return real(entries, params)

    monkeypatch.setattr(syscalls, "setup", setup)
    if failures == 3:
        with Ring(4, wanted_flags=0) as ring:
            assert not ring.closed
        assert tries == 4
    else:
        with pytest.raises(RingSetupError) as caught:
            Ring(4)
        assert caught.value.errno == errno.ENOMEM


def test_a_ring_may_ask_for_nothing() -> None:
    with Ring(4, wanted_flags=0) as ring:
        assert ring.setup_flags == 0


def sq_thread_of(ring: Ring) -> int:
    """Its process id, from the kernel's own description of the ring; that is -1 on old ones while the thread is at work."""
    found = -1

    def is_told() -> bool:
        nonlocal found
        info = Path(f"/proc/self/fdinfo/{ring.fileno()}").read_text()
        found = int(next(line for line in info.splitlines() if line.startswith("SqThread:")).split()[1])
        return found > 0

    wait_until(is_told)
    return found


@pytest.mark.behaviour("sq-poll-share")
def test_attached_rings_share_their_sq_thread() -> None:
    with Ring(4, Setup.SQPOLL) as first, Ring(4, Setup.SQPOLL, attach_to=first) as second, Ring(4, Setup.SQPOLL) as own:
        threads = []
        for ring in (first, second, own):
            nops(ring, 1)
            assert take_one(ring, 1) == (0, 0)
            threads.append(sq_thread_of(ring))
        assert threads[0] == threads[1] != threads[2]


# --- a registered ring fd


def test_a_registered_ring_is_entered_by_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    with Ring(4, register_ring_fd=True) as ring:
        needs(abi.Register.RING_FDS.since, ring)
        assert ring._registered_index >= 0
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)
        # The fd is not what is entered: the ring works without it.
        null = os.open("/dev/null", os.O_RDONLY)
        saved = os.dup(ring.fileno())
        try:
            os.dup2(null, ring.fileno())
            nops(ring, 2)
            assert ring.submit_and_wait(1) == 1
            assert ring.completions() == [(2, 0, 0)]
            assert ring.submit_and_wait(1, MS) == 0
        finally:
            os.dup2(saved, ring.fileno())
            os.close(saved)
            os.close(null)


@pytest.mark.pitfall("a registered index belongs to one thread")
def test_registered_rings_are_unregistered_when_closed() -> None:
    for _ in range(40):  # a thread has 16
        with Ring(4, register_ring_fd=True) as ring:
            needs(abi.Register.RING_FDS.since, ring)
            assert ring._registered_index >= 0
            nops(ring, 1)
            assert take_one(ring, 1) == (0, 0)


def test_without_a_free_index_the_fd_does() -> None:
    with contextlib.ExitStack() as stack:
        rings = [stack.enter_context(Ring(4, register_ring_fd=True)) for _ in range(18)]
        assert rings[-1]._registered_index == -1
        for ring in rings:
            nops(ring, 1)
            assert take_one(ring, 1) == (0, 0)


# --- misuse


@pytest.mark.parametrize("entries", [0, 32769, -1, 1 << 32, 1 << 70])
def test_impossible_entries(entries: int) -> None:
    with pytest.raises(RawuringError, match=r"1 to 32768|32768"):
        Ring(entries)


@pytest.mark.parametrize("cq_entries", [0, 2, -1, 1 << 32])
def test_impossible_cq_entries(cq_entries: int) -> None:
    with pytest.raises(RawuringError, match="CQ|cq_entries|completion"):
        Ring(4, cq_entries=cq_entries)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The set-up flags that the kernel was asked for."""
    return kernel_of("7.3", monkeypatch)


@pytest.mark.parametrize(("one", "other"), abi.SETUP_CONFLICTS)
def test_conflicting_flags_are_named_and_not_tried(one: Setup, other: Setup, asked: list[int]) -> None:
    with pytest.raises(RawuringError) as caught:
        Ring(4, one | other)
    assert f"{one.name}" in str(caught.value) and f"{other.name}" in str(caught.value)
    assert not any(flags & one and flags & other for flags in asked)


@pytest.mark.parametrize("flag", abi.SETUP_REQUIRES)
def test_missing_requirements_are_named_and_not_tried(flag: Setup, asked: list[int]) -> None:
    needed = abi.SETUP_REQUIRES[flag]
    with pytest.raises(RawuringError) as caught:
        Ring(4, flag, wanted_flags=0)
    text = str(caught.value)
    assert f"{flag.name}" in text
    assert any(f"{one.name}" in text for one in needed)
    assert not any(flags & flag and not any(flags & one for one in needed) for flags in asked)


@pytest.mark.parametrize("setup_flags", [1 << 31, 1 << 32, -1])
def test_unknown_flags_are_refused(setup_flags: int) -> None:
    with pytest.raises(RawuringError):
        Ring(4, setup_flags)


@pytest.mark.parametrize("options", [{"sq_thread_cpu": -1}, {"sq_thread_idle_ms": -1}, {"sq_thread_idle_ms": 1 << 32}])
def test_impossible_numbers_are_named(options: dict[str, int]) -> None:
    with pytest.raises(RawuringError, match=next(iter(options))):
        Ring(4, Setup.SQPOLL, **options)  # type: ignore[arg-type]


def uses_of(ring: Ring) -> dict[str, Callable[[], object]]:
    return {
        "submit": ring.submit,
        "submit_and_wait": ring.submit_and_wait,
        "submit_and_wait with a timeout": lambda: ring.submit_and_wait(1, MS),
        "completions": ring.completions,
        "fileno": ring.fileno,
        "enable": ring.enable,
        "prep_nop": ring.sq.prep_nop,
        "prep_recv": lambda: ring.sq.prep_recv(0, 0, 0, 0),
        "prep_poll_add": lambda: ring.sq.prep_poll_add(0, 1),
        "sq.ready": lambda: ring.sq.ready,
        "sq.space_left": lambda: ring.sq.space_left,
        "cq.ready": lambda: ring.cq.ready,
        "cq.needs_enter": lambda: ring.cq.needs_enter,
        "cq.drain": ring.cq.drain,
        "nop": ring.nop,
        "run_once": ring.run_once,
        "supports": lambda: ring.supports(Op.NOP),
        "register_eventfd": lambda: ring.register_eventfd(0),
    }


def test_a_closed_ring_says_so() -> None:
    ring = Ring(4)
    fd = ring.fileno()
    nops(ring, 1)
    ring.close()
    ring.close()
    assert ring.closed and repr(ring) == "<Ring closed>"
    with pytest.raises(OSError):
        os.fstat(fd)
    for name, use in uses_of(ring).items():
        with pytest.raises(RingClosedError, match="make a new one"):
            pytest.fail(f"{name} returned {use()!r}")


def test_a_ring_whose_set_up_failed_is_closed_quietly() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(RingSetupError):
            Ring(0)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.pitfall("a SINGLE_ISSUER ring belongs to one thread")
def test_another_thread_is_refused() -> None:
    with Ring(4) as ring:
        nops(ring, 1)
        refused = []

        def elsewhere() -> None:
            uses: list[Callable[[], object]] = [
                ring.submit, ring.submit_and_wait, lambda: ring.submit_and_wait(0, MS), ring.close, ring.nop().wait,
                lambda: ring.register_eventfd(0),
            ]  # fmt: skip
            for use in uses:
                try:
                    use()
                except WrongThreadError as error:
                    refused.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(refused) == 6
        assert all("MainThread" in text and "R_DISABLED" in text for text in refused)


@pytest.mark.behaviour("single-issuer")
@pytest.mark.pitfall("a SINGLE_ISSUER ring belongs to one thread")
def test_the_kernel_refuses_another_thread_as_well() -> None:
    with Ring(4) as ring:
        needs(Setup.SINGLE_ISSUER.since, bool(ring.setup_flags & Setup.SINGLE_ISSUER))
        nops(ring, 1)
        refused = []

        def elsewhere() -> None:
            # As if this thread had got the identity of the owner, after its end.
            ring._owner = ring._plain_owner = threading.get_ident()
            try:
                ring.submit()
            except WrongThreadError as error:
                refused.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        ring._own()
        assert len(refused) == 1
        assert take_one(ring, 1) == (0, 0)


@pytest.mark.behaviour("across-fork")
@pytest.mark.pitfall("a fork shares the ring")
def test_after_a_fork_the_ring_is_the_parents(run_child: RunChild) -> None:
    out = run_child(
        """
        import os
        from rawuring import ForkedRingError, Ring, RingClosedError

        ring = Ring(4)
        fd, info = ring.fileno(), os.readlink(f"/proc/self/fd/{ring.fileno()}")
        assert "io_uring" in info
        ring.sq.prep_nop(user_data=1)
        pid = os.fork()
        if pid == 0:
            uses = [
                ring.submit, ring.submit_and_wait, lambda: ring.submit_and_wait(1, 1), ring.completions, ring.nop,
                ring.fileno, ring.sq.prep_nop, lambda: ring.sq.prep_recv(0, 0, 0, 0), ring.cq.drain,
            ]
            for use in uses:
                try:
                    use()
                except ForkedRingError as error:
                    assert "fork" in str(error)
                else:
                    raise AssertionError(use)
            assert ring.closed
            ring.close()
            try:
                os.fstat(fd)
            except OSError:
                pass
            else:
                raise AssertionError("the child keeps the parent's ring")
            with open("/proc/self/maps") as maps:
                assert "io_uring" not in maps.read()
            with Ring(4) as own:
                own.sq.prep_nop(user_data=2)
                own.submit_and_wait(1)
                assert own.completions() == [(2, 0, 0)]
            print("child", flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        ring.submit_and_wait(1)
        assert ring.completions() == [(1, 0, 0)]
        ring.close()
        print("parent")
        """
    ).stdout
    assert out == "child\nparent\n"


def test_what_the_kernel_lacks_is_named_with_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    with Ring(4) as ring:
        ring.require(Op.NOP)
        monkeypatch.setattr(ring, "_supported", frozenset({int(Op.NOP)}))
        with pytest.raises(UnsupportedError, match=r"IORING_OP_RECV .*5\.6") as caught:
            ring.require(Op.RECV)
        assert caught.value.needs == "5.6"
        assert ring.lacks("recv") == "5.6"
        assert ring.lacks("nop") is None


# --- nothing is left behind

MANY_RINGS = """
import os, resource, sys
from pathlib import Path
from rawuring import Ring
import rawuring.diagnosis

count, user = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))
if user and os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def left_behind():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    fds = len(os.listdir("/proc/self/fd"))
    maps = Path("/proc/self/maps").read_text().count("\\n")
    return fds, maps, int(status["VmRSS"].split()[0])


def one_ring():
    with Ring(8) as ring:
        ring.sq.prep_nop(user_data=1)
        ring.submit_and_wait(1)
        assert ring.completions() == [(1, 0, 0)]


for _ in range(100):
    one_ring()
before = left_behind()
for _ in range(count):
    one_ring()
after = left_behind()
assert after[0] == before[0], ("fds", before, after)
# The allocator may have mapped an arena or two meanwhile.
assert after[1] <= before[1] + 2, ("mappings", before, after)
assert after[2] <= before[2] + 1024, ("KiB resident", before, after)
print(before, after)
"""


@pytest.mark.parametrize("user", [0, 65534], ids=["as we are", "as an ordinary user"])
def test_many_rings_leave_nothing_behind(run_child: RunChild, user: int) -> None:
    run_child(MANY_RINGS, str(fewer(2000)), str(user))


def test_fewer_than_no_completions_cannot_be_waited_for() -> None:
    with Ring(8) as ring:
        ring.sq.prep_nop(user_data=1)
        with pytest.raises(RawuringError, match="fewer than 0"):
            ring.submit_and_wait(-1)
        ring.submit_and_wait(1)
        assert take(ring) == [(1, 0, 0)]


def test_a_cpu_that_is_not_there_is_named() -> None:
    with pytest.raises(RingSetupError, match="CPU 99999"):
        Ring(8, Setup.SQPOLL, sq_thread_cpu=99999)


def test_the_plain_way_in_is_taken_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hot path is an enter and nothing else: the slow one must be for what needs it."""

    def refuse(*_: object) -> None:
        raise AssertionError("the slow way was taken")

    with Ring(8) as ring:
        with ring.link(1):
            ring.nop()
        ring.submit_and_wait(1)
        ring.completions()
        assert ring.completions() == []
        monkeypatch.setattr(Ring, "_complete_enter", refuse)
        monkeypatch.setattr(Ring, "_check_usable", refuse)
        for _ in range(20):
            ring.sq.prep_nop(user_data=1)
            ring.submit_and_wait(1)
            assert ring.completions() == [(1, 0, 0)]
            ring.sq.prep_nop(user_data=2)
            assert ring.submit() == 1
            assert ring.completions() == [(2, 0, 0)]
        monkeypatch.undo()


@pytest.mark.pitfall("a registered index belongs to one thread")
def test_a_registered_index_ends_with_its_thread(run_child: RunChild) -> None:
    """The next thread may have the same ident, and another ring at the same index."""
    with Ring(2) as ring:
        needs(abi.Register.RING_FDS.since, ring)
    run_child("""
        import threading
        from rawuring import Ring, WrongThreadError

        rings = []
        def make():
            rings.append(Ring(8, wanted_flags=0, register_ring_fd=True))
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()

        def use():
            (old,) = rings
            with Ring(8, wanted_flags=0, register_ring_fd=True) as mine:
                old.sq.prep_nop(user_data=1)
                mine.sq.prep_nop(user_data=2)
                try:
                    old.submit()
                except WrongThreadError:
                    pass
                else:
                    raise AssertionError("the ring of a thread that ended was used")
                old.close()
                assert mine.submit_and_wait(1) == 1
                assert mine.completions() == [(2, 0, 0)]
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    """)


def test_a_disabled_ring_is_registered_by_the_thread_that_enables_it() -> None:
    with Ring(8, register_ring_fd=True) as other:
        ring = Ring(8, Setup.R_DISABLED, register_ring_fd=True)

        def use() -> None:
            ring.enable()
            ring.sq.prep_nop(user_data=1)
            ring.submit_and_wait(1)
            found.extend(ring.completions())
            ring.close()

        found: list[Cqe] = []
        other.sq.prep_nop(user_data=2)
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert found == [(1, 0, 0)]
        assert take(other) == [(2, 0, 0)]
