"""The two queues between program and kernel: batches, overflow, looking at completions; threads, processes."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import threading

import pytest
from conftest import RunChild
from registering import in_a_thread, needing
from support import (
    HANG_NS,
    Cqe,
    Pipe,
    address,
    granted,
    needs,
    nops,
    pipe,
    prep_nop32,
    room,
    take,
    take_one,
    timespec,
)

from rawuring import WANTED_FLAGS, Ring, abi, register, syscalls
from rawuring.abi import Enter, Setup

MS = 10**6
PAGE = mmap.PAGESIZE

BOTH = pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0], ids=["best", "plain"])

__all__ = ["pipe"]


def enter(ring: Ring, to_submit: int, min_complete: int = 0, enter_flags: int = 0) -> int:
    return syscalls.enter(ring.fileno(), to_submit, min_complete, enter_flags)


def wait(ring: Ring, timeout_ns: int, min_complete: int = 1) -> int:
    """Enter, and wait no longer than that: what enter answers."""
    timeout = timespec(timeout_ns)
    arg = abi.IO_URING_GETEVENTS_ARG.pack(ts=address(timeout))
    return syscalls.enter(
        ring.fileno(), 0, min_complete, Enter.GETEVENTS | Enter.EXT_ARG, ctypes.c_void_p(address(arg)),
        ctypes.c_size_t(len(arg)),
    )  # fmt: skip


# --- submitting


@pytest.mark.behaviour("drop-submit")
@pytest.mark.parametrize("goes_on", [False, True])
def test_a_bad_request_ends_a_batch_or_not(goes_on: bool) -> None:
    """It is counted, and has a completion, either way."""
    with granted(Setup.SUBMIT_ALL if goes_on else Setup(0), wanted_flags=0) as ring:
        nops(ring, 1)
        ring.sq._encode(255, -1, 0, 0, 0, 0, 2, 0)  # no kernel has that opcode
        nops(ring, 3)
        assert ring.sq.flush() == 3
        assert enter(ring, 3) == (3 if goes_on else 2)
        assert sorted(ring.completions()) == [(1, 0, 0), (2, -errno.EINVAL, 0), (3, 0, 0)][: 3 if goes_on else 2]
        if not goes_on:
            assert ring.sq.ready == 1
            assert enter(ring, 1) == 1
            assert ring.completions() == [(3, 0, 0)]
        assert ring.sq.ready == 0


# --- completions


@pytest.mark.pitfall("overflow keeps completions")
@pytest.mark.behaviour("cq-overflow", "cq-full")
@BOTH
def test_which_enter_posts_what_was_kept(wanted_flags: int) -> None:
    with Ring(4, cq_entries=4, wanted_flags=wanted_flags) as ring:
        needs("5.19", ring)  # a kernel before takes no requests while it keeps completions
        for user_data in range(10):
            nops(ring, user_data)
            assert ring.submit() == 1
        assert (ring.cq.ready, ring.cq.overflowed, ring.cq.lost) == (4, True, 0)
        assert enter(ring, 0) == 0
        assert (ring.cq.ready, ring.cq.overflowed) == (4, True)
        # Nor is there room for any.
        assert enter(ring, 0, 0, Enter.GETEVENTS) == 0
        assert ring.cq.overflowed
        found = ring.completions()
        assert ring.completions() == []  # looking alone brings none
        while ring.cq.overflowed:
            assert enter(ring, 0, 0, Enter.GETEVENTS) == 0
            batch = ring.completions()
            assert 0 < len(batch) <= 4
            found += batch
        assert found == [(user_data, 0, 0) for user_data in range(10)]
        assert ring.cq.lost == 0


@pytest.mark.pitfall("overflow keeps completions")
@pytest.mark.behaviour("cq-overflow")
@BOTH
def test_what_completes_behind_what_was_kept_stays_behind(wanted_flags: int) -> None:
    with Ring(4, cq_entries=4, wanted_flags=wanted_flags) as ring:
        needs("5.19", ring)
        found: list[Cqe] = []
        for user_data in range(40):
            nops(ring, user_data)
            assert ring.submit() == 1
            if user_data % 3 == 0:  # room for some
                found += ring.completions()
        while len(found) < 40:
            ring.submit_and_wait(1, HANG_NS)
            found += ring.completions()
        assert found == [(user_data, 0, 0) for user_data in range(40)]


@pytest.mark.behaviour("cq-peek-batch", "cq-ready")
@BOTH
def test_looking_at_completions_takes_none(wanted_flags: int) -> None:
    with Ring(4, cq_entries=8, wanted_flags=wanted_flags) as ring:
        assert ring.cq.peek()[0] == [] and ring.cq.ready == 0
        posted = taken = 0
        for turn in range(20):  # round and round
            for _ in range(turn % 3 + 1):
                nops(ring, posted)
                posted += 1
            ring.submit_and_wait(0)
            assert ring.cq.ready == posted - taken
            for _ in range(2):
                batch, end = ring.cq.peek()
                assert batch == [(user_data, 0, 0) for user_data in range(taken, posted)]
            # Not all of them.
            some = min(turn % 4, posted - taken)
            ring.cq.advance_to(end - len(batch) + some)
            taken += some
            assert ring.cq.ready == posted - taken
            if posted - taken > 5:
                taken += len(ring.completions())
        assert ring.completions() == [(user_data, 0, 0) for user_data in range(taken, posted)]


@pytest.mark.behaviour("cq-peek-batch-mixed", "nop32")
def test_looking_at_completions_of_two_sizes() -> None:
    with granted(Setup.CQE_MIXED, cq_entries=8) as ring:
        for turn in range(24):  # a large one never starts in the last slot: there is a filler
            nops(ring, 1)
            prep_nop32(ring, 2, (turn, 7))
            nops(ring, 3)
            ring.submit_and_wait(3)
            filler = (ring.cq.head + 1) % 8 == 7
            assert ring.cq.ready == 4 + filler
            expected = [(1, 0, 0), (2, 0, int(abi.CqeFlag.F_32)), (3, 0, 0)]
            batch, end = ring.cq.peek()
            assert (batch, end - ring.cq.head) == (expected, 4 + filler)
            if turn % 2:
                ring.cq.advance_to(end)
            else:
                found = [(user_data, big) for user_data, _, _, big, _ in ring.cq.drain32()]
                assert found == [(1, 0), (2, turn), (3, 0)]
            assert ring.cq.ready == 0


# --- waiting


@pytest.mark.pitfall("a wait may end early")
@pytest.mark.behaviour("timeout-new")
def test_each_thread_waits_as_long_as_it_was_told() -> None:
    with Ring(4, wanted_flags=0) as ring:
        needs(abi.Feature.EXT_ARG.since, bool(ring.features & abi.Feature.EXT_ARG))
        answers: dict[str, int] = {}

        def waiting(name: str, timeout_ns: int) -> threading.Thread:
            def work() -> None:
                answers[name] = wait(ring, timeout_ns)

            thread = threading.Thread(target=work)
            thread.start()
            return thread

        for thread in [waiting(f"short {number}", (number + 1) * MS) for number in range(3)]:
            thread.join()
        assert answers == dict.fromkeys(("short 0", "short 1", "short 2"), -errno.ETIME)
        answers.clear()
        # One completion ends the wait of every thread that waits for one.
        patient = [waiting(f"long {number}", HANG_NS) for number in range(2)]
        waiting("short", 1 * MS).join()
        nops(ring, 1)
        ring.submit()
        for thread in patient:
            thread.join()
        assert answers == {"short": -errno.ETIME, "long 0": 0, "long 1": 0}
        assert ring.completions() == [(1, 0, 0)]


@pytest.mark.behaviour("reg-wait")
def test_waits_that_are_not_in_the_region() -> None:
    memory = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    nbytes = abi.IO_URING_REG_WAIT.nbytes
    with Ring(4, Setup.R_DISABLED) as ring:
        with needing(abi.Register.MEM_REGION.since):
            register.region(ring.fileno(), address(memory), PAGE, abi.MemRegion.REG_WAIT_ARG)
        ring.enable()

        def waited(offset: int, size: int = nbytes) -> int:
            enter_flags = Enter.GETEVENTS | Enter.EXT_ARG | Enter.EXT_ARG_REG
            return syscalls.enter(ring.fileno(), 0, 1, enter_flags, ctypes.c_void_p(offset), ctypes.c_size_t(size))

        offset = register.reg_wait_offset(1, PAGE)
        memory[offset : offset + nbytes] = bytes(register.reg_wait(1 * MS))
        assert waited(offset) == -errno.ETIME
        for size in (0, nbytes - 8, nbytes + 8, abi.IO_URING_GETEVENTS_ARG.nbytes):
            assert waited(offset, size) == -errno.EINVAL
        assert waited(offset + 4) in (-errno.EFAULT, -errno.EINVAL)
        for outside in (PAGE, PAGE - 8, 1 << 40, (1 << 64) - nbytes):
            assert waited(outside) == -errno.EFAULT
        at = offset + abi.IO_URING_REG_WAIT.fields["flags"].offset
        memory[at : at + 4] = b"\xff" * 4
        assert waited(offset) == -errno.EINVAL


# --- threads


@pytest.mark.pitfall("DEFER_TASKRUN hides completions")
@pytest.mark.behaviour("defer-taskrun")
def test_a_deferring_ring_is_of_its_owner_alone(pipe: Pipe) -> None:
    """Another thread neither submits, nor waits, nor brings completions; and only an enter that looks for them does."""
    with granted(Setup.DEFER_TASKRUN | Setup.SINGLE_ISSUER, wanted_flags=0) as ring:
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
        ring.submit()
        in_a_thread(lambda: os.write(pipe[1], b"x"))
        for enter_flags in (0, Enter.GETEVENTS):
            assert in_a_thread(lambda: enter(ring, 0, 0, enter_flags)) == (-errno.EEXIST if enter_flags else 0)
        nops(ring, 2)
        pending = ring.sq.flush()
        assert in_a_thread(lambda: enter(ring, pending)) == -errno.EEXIST
        assert (ring.cq.ready, ring.cq.needs_enter) == (0, True)
        assert enter(ring, pending) == 1
        assert ring.completions() == [(2, 0, 0)]  # which completed at once
        assert enter(ring, 0, 0, Enter.GETEVENTS) == 0
        assert ring.completions() == [(1, select.POLLIN, 0)]


@pytest.mark.behaviour("thread-exit")
@pytest.mark.parametrize("how", ["a wait", "a worker"])
def test_requests_of_a_thread_that_ended(pipe: Pipe, how: str) -> None:
    """Each completes once: it was done, or it was cancelled and nothing has happened."""
    reader, writer = pipe
    sqe_flags = int(abi.SqeFlag.ASYNC) if how == "a worker" else 0
    memory, data = room(4), bytearray(b"data")
    other_reader, other_writer = os.pipe()
    with Ring(8, wanted_flags=0) as ring, open(other_reader, "rb", buffering=0) as other, open(other_writer, "wb"):

        def work() -> int:
            ring.sq.prep_write(other_writer, address(data), 4, 0, user_data=1, sqe_flags=sqe_flags)
            ring.sq.prep_read(reader, address(memory), 4, 0, user_data=2)
            return enter(ring, ring.sq.flush())

        assert in_a_thread(work) == 2
        os.write(writer, b"late")
        found = {user_data: res for user_data, res, _ in take(ring, 2)}
        assert found[1] in (4, -errno.ECANCELED, -errno.EINTR)
        if found[1] == 4:
            assert other.read(10) == b"data"
        assert found[2] in (4, -errno.ECANCELED)
        if found[2] == 4:
            assert memory == b"late"
        else:
            assert memory == room(4) and os.read(reader, 10) == b"late"
        nops(ring, 3)
        assert take_one(ring, 3) == (0, 0)


# --- processes


CHILD_AND_PARENT = """
import ctypes, os, select, sys
from rawuring import ForkedRingError, Ring, syscalls
from rawuring.abi import Enter

def at(buffer):
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))

reader, writer = os.pipe()
"""


@pytest.mark.pitfall("a fork shares the ring")
@pytest.mark.behaviour("across-fork")
def test_requests_of_the_parent_go_on_across_a_fork(run_child: RunChild) -> None:
    """The child uses a ring of its own, and has only a copy of the memory."""
    run_child(
        CHILD_AND_PARENT
        + """
with Ring(8) as ring:
    memory = bytearray(4)
    ring.sq.prep_read(reader, at(memory), 4, 0, user_data=1)
    ring.submit()
    pid = os.fork()
    if pid == 0:
        try:
            ring.submit_and_wait(1)
        except ForkedRingError:
            with Ring(4) as own:
                data = bytearray(b"data")
                own.sq.prep_write(writer, at(data), 4, 0, user_data=2)
                own.submit_and_wait(1)
                good = own.completions() == [(2, 4, 0)] and memory == bytes(4)
                os._exit(0 if good else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ring.submit_and_wait(1)
    assert ring.completions() == [(1, 4, 0)]
    assert memory == b"data"
"""
    )


@pytest.mark.behaviour("across-fork")
def test_what_the_kernel_would_let_a_child_do(run_child: RunChild) -> None:
    """A ring of both, if the library did not close the child's copy: it submits what the parent queued."""
    run_child(
        CHILD_AND_PARENT
        + """
with Ring(8, wanted_flags=0) as ring:
    fd = os.dup(ring.fileno())  # of which the library does not know
    ring.sq.prep_nop(user_data=1)
    pending = ring.sq.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(syscalls.enter(fd, pending, 0, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert ring.submit() == 0 and ring.sq.ready == 0
    assert ring.completions() == [(1, 0, 0)]
    os.close(fd)
"""
    )
