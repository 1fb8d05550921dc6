"""The terms of a wait: minimum, end, signal mask, I/O wait, registered waits. By counts, not by times."""

from __future__ import annotations

import mmap
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulation import PATIENCE
from support import HANG_NS, Alarm, Cqe, Pipe, granted, needs, nops, pipe, take, take_one, wait_until

from rawuring import (
    WANTED_FLAGS,
    LostCompletionsError,
    OutOfOrderError,
    Ring,
    UnsupportedError,
    WrongThreadError,
    abi,
    register,
    syscalls,
)
from rawuring.abi import Enter, Feature, Setup
from rawuring.errors import RawuringError

MS = 10**6

__all__ = ["pipe"]


def registered(**options: object) -> Ring:
    """A ring whose waits are registered, or a skip where this kernel has none."""
    try:
        return Ring(8, register_waits=True, **options)  # type: ignore[arg-type]
    except UnsupportedError as error:
        needs(error.needs, False)
        raise


@pytest.fixture(params=["best", "plain", "index", "registered waits"])
def ring(request: pytest.FixtureRequest) -> Iterator[Ring]:
    """Rings whose waits the kernel is told of in different ways."""
    if request.param == "registered waits":
        made = registered()
    else:
        wanted_flags = 0 if request.param == "plain" else WANTED_FLAGS
        made = Ring(8, wanted_flags=wanted_flags, register_ring_fd=request.param == "index")
    with made:
        yield made


def poll_pipe(ring: Ring, pipe: Pipe, user_data: int = 1) -> None:
    ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=user_data)


READABLE = (1, select.POLLIN, 0)


# --- completions that are lost


def test_lost_completions_are_told_though_the_kernel_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An enter that submits nothing fails with EBADR, and the next one would wait for what is gone."""
    with Ring(8) as ring:
        call, said = syscalls.enter_call, list[int]()

        def lossy(number: int, fd: int, to_submit: int, *arguments: object) -> object:
            if said or to_submit:
                return call(number, fd, to_submit, *arguments)
            said.append(1)
            ring._memory.cq_overflow.store(1)
            return -1

        def hung(count: int) -> None:
            assert count < 100, "it waits for what is lost"

        monkeypatch.setattr("rawuring.ring.resolving.ENTER_CALL", lossy)
        with Alarm(hung), pytest.raises(LostCompletionsError, match="make a new ring"):
            ring.submit_and_wait(1)
        ring.sq.prep_nop(user_data=1)
        ring.submit_and_wait(1)
        assert ring.completions() == [(1, 0, 0)]


# --- a minimum wait


@pytest.mark.behaviour("min-timeout")
def test_with_a_minimum_wait_what_is_there_is_enough(ring: Ring) -> None:
    needs(Feature.MIN_TIMEOUT.since, bool(ring.features & Feature.MIN_TIMEOUT))
    for timeout_ns in (HANG_NS, None):
        nops(ring, 1, 2)
        assert ring.submit_and_wait(4, timeout_ns, min_wait_ns=1 * MS) == 2
        assert ring.completions() == [(1, 0, 0), (2, 0, 0)]


@pytest.mark.behaviour("min-timeout")
def test_after_a_minimum_wait_the_first_completion_is_enough(ring: Ring, pipe: Pipe) -> None:
    needs(Feature.MIN_TIMEOUT.since, bool(ring.features & Feature.MIN_TIMEOUT))
    poll_pipe(ring, pipe)
    writer = threading.Timer(0.05, os.write, (pipe[1], b"x"))
    writer.start()
    try:
        assert ring.submit_and_wait(4, HANG_NS, min_wait_ns=1 * MS) == 1
        assert ring.completions() == [READABLE]
    finally:
        writer.join()


@pytest.mark.behaviour("min-timeout")
def test_a_minimum_wait_ends_with_as_many_as_were_asked_for(ring: Ring, pipe: Pipe) -> None:
    needs(Feature.MIN_TIMEOUT.since, bool(ring.features & Feature.MIN_TIMEOUT))
    nops(ring, 1, 2, 3)
    assert ring.submit_and_wait(3, HANG_NS, min_wait_ns=HANG_NS) == 3
    assert len(ring.completions()) == 3
    # And before its end, when another comes in time.
    nops(ring, 2)
    poll_pipe(ring, pipe)
    writer = threading.Timer(0.02, os.write, (pipe[1], b"x"))
    writer.start()
    try:
        assert ring.submit_and_wait(2, HANG_NS, min_wait_ns=HANG_NS) == 2
        assert sorted(ring.completions()) == [READABLE, (2, 0, 0)]
    finally:
        writer.join()


@pytest.mark.behaviour("min-timeout")
def test_a_minimum_wait_without_any_event_ends_with_the_timeout(ring: Ring, pipe: Pipe) -> None:
    needs(Feature.MIN_TIMEOUT.since, bool(ring.features & Feature.MIN_TIMEOUT))
    poll_pipe(ring, pipe)
    for timeout_ns in (5 * MS, None):  # without a timeout, with the minimum
        ring.submit_and_wait(2, timeout_ns, min_wait_ns=1 * MS)
        assert ring.completions() == []
    assert ring.submit_and_wait(2, min_wait_ns=1) == 0  # rounded up to a microsecond, and gone at once
    os.write(pipe[1], b"x")
    assert take(ring) == [READABLE]


def test_signals_do_not_stretch_a_minimum_wait(ring: Ring) -> None:
    needs(Feature.MIN_TIMEOUT.since, bool(ring.features & Feature.MIN_TIMEOUT))
    nops(ring, 1)
    with Alarm(lambda count: None) as alarm:
        ring.submit_and_wait(4, HANG_NS, min_wait_ns=100 * MS * PATIENCE)
        assert alarm.count >= 1
    assert ring.completions() == [(1, 0, 0)]


@pytest.mark.parametrize("min_wait_ns", [-1, (1 << 32) * 1000])
def test_a_minimum_wait_fits_32_bits_of_microseconds(min_wait_ns: int) -> None:
    with Ring(8) as ring:
        needs(Feature.MIN_TIMEOUT.since, bool(ring.features & Feature.MIN_TIMEOUT))
        with pytest.raises(RawuringError, match="min_wait_ns"):
            ring.submit_and_wait(1, min_wait_ns=min_wait_ns)


# --- an absolute end


@pytest.mark.behaviour("wait-timeout")
def test_a_wait_ends_at_a_time(ring: Ring, pipe: Pipe) -> None:
    needs(Enter.ABS_TIMER.since, bool(ring.features & Feature.MIN_TIMEOUT))
    poll_pipe(ring, pipe)
    ring.submit()
    for clock_id in (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME):
        ring.register_clock(clock_id)
        end = time.clock_gettime_ns(clock_id) + 20 * MS
        assert ring.submit_and_wait(1, until_ns=end) == 0
        assert time.clock_gettime_ns(clock_id) >= end
        for past in (end, 0, -1):
            nops(ring, 2)
            assert ring.submit_and_wait(2, until_ns=past) == 1
            assert ring.completions() == [(2, 0, 0)]
        assert ring.submit_and_wait(1, 1 * MS) == 0
        assert not ring.run_once(until_ns=time.clock_gettime_ns(clock_id) + 1 * MS)
    # Long before it, with a completion.
    os.write(pipe[1], b"x")
    ring.submit_and_wait(1, until_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME) + HANG_NS)
    assert ring.completions() == [READABLE]


def test_an_end_and_a_minimum_go_together(ring: Ring) -> None:
    needs(Enter.ABS_TIMER.since, bool(ring.features & Feature.MIN_TIMEOUT))
    nops(ring, 1)
    assert ring.submit_and_wait(2, until_ns=time.monotonic_ns() + HANG_NS, min_wait_ns=1 * MS) == 1
    assert ring.completions() == [(1, 0, 0)]


def test_a_wait_ends_once() -> None:
    with Ring(8) as ring, pytest.raises(RawuringError, match="one of them"):
        ring.submit_and_wait(1, 5, until_ns=5)


def test_another_clock_is_refused() -> None:
    with Ring(8) as ring:
        needs(abi.Register.CLOCK.since, bool(ring.features & Feature.MIN_TIMEOUT))
        with pytest.raises(OSError, match="Invalid argument"):
            ring.register_clock(time.CLOCK_REALTIME)
        assert not ring.run_once(until_ns=time.monotonic_ns() + 1 * MS)


# --- a signal mask


class Handler:
    """Notes each SIGUSR1, and what it should do about it."""

    def __init__(self, pipe: Pipe | None = None) -> None:
        self.count = 0
        self.pipe = pipe

    def __enter__(self) -> Handler:
        self.before = signal.signal(signal.SIGUSR1, self.note)
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return self

    def note(self, *_: object) -> None:
        self.count += 1
        if self.pipe is not None:
            os.write(self.pipe[1], b"x")

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        signal.signal(signal.SIGUSR1, self.before)


def signals_of(thread_id: int, name: str) -> int:
    status = Path(f"/proc/self/task/{thread_id}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")), 16)


USR1 = 1 << signal.SIGUSR1 - 1


@pytest.mark.parametrize("timeout_ns", [None, HANG_NS])
def test_a_masked_signal_arrives_after_the_wait(ring: Ring, pipe: Pipe, timeout_ns: int | None) -> None:
    needs(Feature.EXT_ARG.since, bool(ring.features & Feature.EXT_ARG))
    waiter, seen = threading.get_native_id(), []

    def elsewhere() -> None:
        try:
            wait_until(lambda: bool(signals_of(waiter, "SigBlk") & USR1))  # it waits
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            wait_until(lambda: bool(signals_of(waiter, "SigPnd") & USR1))  # and the signal with it
            seen.append(handler.count)
        finally:
            os.write(pipe[1], b"x")

    poll_pipe(ring, pipe)
    with Handler() as handler:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        assert ring.submit_and_wait(1, timeout_ns, signal_mask={signal.SIGUSR1}) == 1
        thread.join()
        assert seen == [0]
        assert handler.count == 1
        assert not signals_of(waiter, "SigBlk") & USR1
    assert ring.completions() == [READABLE]


@pytest.mark.parametrize("wait", ["submit_and_wait", "run_once"])
def test_a_signal_that_only_the_wait_lets_through_is_never_missed(ring: Ring, pipe: Pipe, wait: str) -> None:
    """As with pselect(2): it is pending before the wait, and its handler brings what is waited for."""
    needs(Feature.EXT_ARG.since, bool(ring.features & Feature.EXT_ARG))
    with Handler(pipe) as handler:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        for turn in range(1, 4):
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert handler.count == turn - 1
            if wait == "run_once":
                polled = ring.poll(pipe[0], select.POLLIN)
                assert ring.run_once(HANG_NS, signal_mask=())
                assert polled.wait(HANG_NS) == select.POLLIN
            else:
                poll_pipe(ring, pipe)
                assert ring.submit_and_wait(1, signal_mask=()) == 1
                assert ring.completions() == [READABLE]
            assert handler.count == turn
            os.read(pipe[0], 1)


@pytest.mark.parametrize("number", [0, -1, signal.NSIG])
def test_there_is_no_such_signal(number: int) -> None:
    with Ring(8) as ring, pytest.raises(RawuringError, match="no signal"):
        ring.submit_and_wait(1, 1, signal_mask=[number])


# --- I/O wait


@pytest.mark.parametrize("register_ring_fd", [False, True])
def test_a_wait_need_not_count_as_io_wait(pipe: Pipe, register_ring_fd: bool) -> None:
    with Ring(8, register_ring_fd=register_ring_fd) as ring:
        needs(Enter.NO_IOWAIT.since, bool(ring.features & Feature.NO_IOWAIT))
        for counts in (False, True, False):
            ring.set_iowait(counts)
            assert bool(ring._getevents & Enter.NO_IOWAIT) == bool(ring._enter_flags & Enter.NO_IOWAIT) == (not counts)
            poll_pipe(ring, pipe)
            assert ring.submit_and_wait(1, 1 * MS) == 1
            nops(ring, 2)
            assert ring.submit() == 1
            os.write(pipe[1], b"x")
            found: list[Cqe] = take(ring, 2)
            assert sorted(found) == [READABLE, (2, 0, 0)]
            os.read(pipe[0], 1)


# --- registered waits


@pytest.mark.behaviour("reg-wait")
def test_a_registered_wait_is_read_from_the_region() -> None:
    with registered() as ring:
        assert ring._timeout.enter_flags == Enter.EXT_ARG | Enter.EXT_ARG_REG
        assert not ring.setup_flags & Setup.R_DISABLED
        end = time.monotonic_ns() + 3 * MS
        assert ring.submit_and_wait(1, 1 * MS) == ring.submit_and_wait(1, until_ns=end) == 0
        assert time.monotonic_ns() >= end
        region = ring._wait_region
        assert region is not None
        layout = abi.IO_URING_REG_WAIT
        plain, special = (layout.unpack(region.view, number * layout.nbytes) for number in (0, 1))
        assert plain["flags"] == special["flags"] == abi.RegWait.TS
        assert plain["ts.tv_nsec"] <= 1 * MS
        assert special["ts.tv_sec"] * 10**9 + special["ts.tv_nsec"] == end
        with pytest.raises(OSError):  # a ring has one
            register.region(ring.fileno(), region.addr, mmap.PAGESIZE, abi.MemRegion.REG_WAIT_ARG)
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)
    assert region.addr == 0


def test_registered_waits_on_a_ring_that_starts_disabled() -> None:
    found: list[object] = []
    with registered(setup_flags=Setup.R_DISABLED) as ring:
        assert ring.setup_flags & Setup.R_DISABLED
        with pytest.raises(OutOfOrderError, match=r"enable\(\)"):
            ring.submit_and_wait(0)

        def elsewhere() -> None:
            ring.enable()
            with ring:
                found.append(ring.submit_and_wait(1, 1 * MS))
                nops(ring, 1)
                found.append(take_one(ring, 1))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert found == [0, (0, 0)]


# --- what this kernel lacks


def test_what_a_wait_cannot_be_asked_for_is_named_with_its_release() -> None:
    lacking = Feature.MIN_TIMEOUT | Feature.NO_IOWAIT
    with Ring(8, mask_features=lacking) as ring:
        uses: list[tuple[str, Callable[[], object]]] = [
            ("6.12", lambda: ring.submit_and_wait(1, min_wait_ns=1)),
            ("6.12", lambda: ring.submit_and_wait(1, until_ns=1)),
            ("6.12", lambda: ring.run_once(until_ns=1)),
            ("6.12", lambda: ring.register_clock(time.CLOCK_BOOTTIME)),
            ("6.15", lambda: ring.set_iowait(False)),
        ]
        for release, use in uses:
            with pytest.raises(UnsupportedError) as caught:
                use()
            assert caught.value.needs == release
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)
    with Ring(8, mask_features=Feature.EXT_ARG) as ring, pytest.raises(UnsupportedError, match=r"5\.11"):
        ring.submit_and_wait(1, signal_mask=())


def test_a_wait_with_terms_is_the_owners() -> None:
    with Ring(8) as ring:
        refused = []

        def elsewhere() -> None:
            for terms in ({"min_wait_ns": 1}, {"until_ns": 1}, {"signal_mask": ()}):
                try:
                    ring.submit_and_wait(1, **terms)
                except WrongThreadError:
                    refused.append(terms)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(refused) == 3


def test_a_ring_whose_thread_ended_belongs_to_nobody() -> None:
    made: list[Ring] = []
    thread = threading.Thread(target=lambda: made.append(granted(Setup(0))), name="the maker")
    thread.start()
    thread.join()
    (ring,) = made
    nops(ring, 1)
    with pytest.raises(WrongThreadError, match="'the maker'"):
        ring.submit()
    ring.close()
    assert ring.closed
