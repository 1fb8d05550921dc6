"""What waits and is stopped: timeouts, polls, cancellations, futexes, children, epoll. On every kind of ring."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import (
    ANY_BIT,
    FUTEX,
    HANG_NS,
    Cqe,
    Pipe,
    address,
    aligned,
    arm,
    futexes,
    has,
    needs,
    newest,
    pipe,
    results,
    ring,
    room,
    take,
    take_one,
    timespec,
    unpacked,
    wait_until,
)

from rawuring import WANTED_FLAGS, Ring, abi, register

Cancel, CqeFlag, Op, SqeFlag, Timeout = abi.Cancel, abi.CqeFlag, abi.Op, abi.SqeFlag, abi.Timeout
ASYNC, FIXED_FILE, LINK = int(SqeFlag.ASYNC), int(SqeFlag.FIXED_FILE), int(SqeFlag.IO_LINK)
CANCELED = -errno.ECANCELED
HOUR_NS = 3600 * 10**9
NOWHERE = 16

__all__ = ["futexes", "pipe", "ring"]


# --- timeouts


@pytest.mark.behaviour("timeout")
def test_timeouts_that_make_no_sense(ring: Ring) -> None:
    hour = timespec(HOUR_NS)
    for ts_addr, timeout_flags, res in (
        (NOWHERE, 0, -errno.EFAULT),
        (address(hour), 1 << 20, -errno.EINVAL),
        (address(hour), Timeout.BOOTTIME | Timeout.REALTIME, -errno.EINVAL),
        (address(hour), Timeout.MULTISHOT | Timeout.ABS, -errno.EINVAL),
    ):
        ring.sq.prep_timeout(ts_addr, 0, timeout_flags, user_data=1)
        assert take_one(ring, 1) == (res, 0)
    # What only an update can be told, and what no update can be.
    ring.sq.prep_timeout_remove(1, Timeout.ABS, user_data=2)
    ring.sq.prep_timeout_update(address(hour), 1, 1 << 20, user_data=3)
    assert results(ring, 2) == {2: -errno.EINVAL, 3: -errno.EINVAL}


@pytest.mark.pitfall("a timeout is two numbers and a place")
@pytest.mark.behaviour("timeout")
def test_a_timeout_of_a_negative_time(ring: Ring) -> None:
    needs("5.16", ring)
    before = abi.KERNEL_TIMESPEC.pack(tv_sec=-1)
    ring.sq.prep_timeout(address(before), 0, 0, user_data=1)
    assert take_one(ring, 1) == (-errno.EINVAL, 0)


@pytest.mark.behaviour("timeout")
@pytest.mark.parametrize("count", [1, 3])
def test_timeouts_of_each_count_end_with_it(ring: Ring, pipe: Pipe, count: int) -> None:
    """Completions of what was there before count too, those of timeouts do not."""
    hour = timespec(HOUR_NS)
    ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
    ring.sq.prep_timeout(address(hour), count, 0, user_data=2)
    ring.sq.prep_timeout(address(hour), count + 1, 0, user_data=3)
    ring.submit()
    for user_data in range(10, 10 + count - 1):
        ring.sq.prep_nop(user_data=user_data)
        assert take_one(ring, user_data) == (0, 0)
    os.write(pipe[1], b"x")
    assert results(ring, 2) == {1: select.POLLIN, 2: 0}
    ring.sq.prep_nop(user_data=4)
    assert results(ring, 2) == {4: 0, 3: 0}


@pytest.mark.behaviour("timeout", "io-cancel")
def test_a_timeout_is_cancelled_like_any_request(ring: Ring) -> None:
    hour = timespec(HOUR_NS)
    ring.sq.prep_timeout(address(hour), 0, 0, user_data=1)
    ring.sq.prep_cancel(1, 0, user_data=2)
    assert results(ring, 2) == {1: CANCELED, 2: 0}


@pytest.mark.behaviour("timeout")
def test_a_cancelled_timeout_takes_its_chain_along(ring: Ring) -> None:
    hour = timespec(HOUR_NS)
    ring.sq.prep_timeout(address(hour), 0, 0, user_data=1, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=2)
    ring.sq.prep_timeout_remove(1, 0, user_data=3)
    assert results(ring, 3) == {1: CANCELED, 2: CANCELED, 3: 0}


@pytest.mark.behaviour("timeout")
def test_a_repeating_timeout_is_updated_and_removed(ring: Ring) -> None:
    needs(Timeout.MULTISHOT.since, ring)
    hour, short = timespec(HOUR_NS), timespec(5_000_000)
    ring.sq.prep_timeout(address(hour), 0, Timeout.MULTISHOT, user_data=1)
    ring.sq.prep_timeout_update(address(short), 1, 0, user_data=2)
    found: list[Cqe] = []

    def take_until(there: Callable[[], bool]) -> None:
        while not there():
            ring.submit_and_wait(1, HANG_NS)
            batch = ring.completions()
            assert batch, "waited in vain"
            found.extend(batch)

    take_until(lambda: (2, 0, 0) in found and (1, -errno.ETIME, CqeFlag.MORE) in found)
    while (3, 0, 0) not in found:
        # Between the end of one period and the start of the next it is not there to be found.
        found = [cqe for cqe in found if cqe != (3, -errno.ENOENT, 0)]
        ring.sq.prep_timeout_remove(1, 0, user_data=3)
        take_until(lambda: 3 in {user_data for user_data, _, _ in found})
    take_until(lambda: (1, CANCELED, 0) in found or (1, -errno.ETIME, 0) in found)


@pytest.mark.behaviour("timeout")
@pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0])
def test_a_repeating_timeout_ends_when_there_is_no_room(wanted_flags: int) -> None:
    with Ring(2, cq_entries=2, wanted_flags=wanted_flags) as ring:
        needs(Timeout.MULTISHOT.since, ring)
        short = timespec(1_000_000)
        ring.sq.prep_timeout(address(short), 0, Timeout.MULTISHOT, user_data=1)
        ring.submit()

        def overflowed() -> bool:
            ring.submit_and_wait(0)
            return ring.cq.overflowed or ring.cq.ready == 0

        while not ring.cq.overflowed:
            wait_until(overflowed)
        found = ring.completions()
        ring.submit_and_wait(0)
        found += ring.completions()
        assert {res for _, res, _ in found} == {-errno.ETIME}
        assert [bool(cqe_flags & CqeFlag.MORE) for _, _, cqe_flags in found] == [True] * (len(found) - 1) + [False]
        ring.sq.prep_timeout_remove(1, 0, user_data=2)
        assert take_one(ring, 2) == (-errno.ENOENT, 0)


# --- polls


@pytest.mark.behaviour("poll")
def test_a_poll_sees_what_another_process_writes(ring: Ring, pipe: Pipe) -> None:
    reader, writer = pipe
    ring.sq.prep_poll_add(reader, select.POLLIN, user_data=1)
    ring.submit()
    subprocess.run([sys.executable, "-S", "-c", f"import os; os.write({writer}, b'x')"], pass_fds=[writer], check=True)
    assert take_one(ring, 1) == (select.POLLIN, 0)
    assert os.read(reader, 2) == b"x"


@pytest.mark.behaviour("poll")
def test_a_poll_of_an_end_that_closes(ring: Ring) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb"):
        ring.sq.prep_poll_add(reader, select.POLLIN, user_data=1)
        ring.submit()
        os.close(writer)
        assert take_one(ring, 1) == (select.POLLHUP, 0)  # which nobody needs to ask for
    ring.sq.prep_poll_add(1 << 20, select.POLLIN, user_data=2)
    assert take_one(ring, 2) == (-errno.EBADF, 0)


@pytest.mark.behaviour("poll-mshot-update")
def test_many_polls_are_turned_into_others_while_events_come(ring: Ring) -> None:
    needs(abi.Poll.UPDATE_EVENTS.since, ring)
    events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(6)]
    update = abi.Poll.UPDATE_EVENTS | abi.Poll.UPDATE_USER_DATA | abi.Poll.ADD_MULTI
    try:
        for number, event in enumerate(events):
            ring.sq.prep_poll_multishot(event, select.POLLPRI, user_data=number)
        ring.submit()
        for round_ in (1, 2):
            for number in range(len(events)):
                old = number + 100 * (round_ - 1)
                ring.sq.prep_poll_update(old, number + 100 * round_, select.POLLIN, update, user_data=1000 + number)
            assert results(ring, len(events)) == {1000 + number: 0 for number in range(len(events))}
            for event in events:
                os.eventfd_write(event, 1)
            found = take(ring, len(events))
            expected = [(number + 100 * round_, select.POLLIN, CqeFlag.MORE) for number in range(len(events))]
            assert sorted(found) == expected
            for event in events:
                os.eventfd_read(event)
        ring.sq.prep_poll_update(0, 1, select.POLLIN, update, user_data=1)
        assert take_one(ring, 1) == (-errno.ENOENT, 0)
    finally:
        for event in events:
            os.close(event)


@pytest.mark.behaviour("poll-mshot-overflow")
@pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0])
def test_a_repeating_poll_and_a_full_completion_queue(wanted_flags: int, pipe: Pipe) -> None:
    """It ends or goes on, and says which: after the last completion with MORE there is another."""
    reader, writer = pipe
    with Ring(2, cq_entries=2, wanted_flags=wanted_flags) as ring:
        needs(abi.Poll.ADD_MULTI.since, ring)
        ring.sq.prep_poll_multishot(reader, select.POLLIN, user_data=1)
        ring.submit()
        for _ in range(8):
            os.write(writer, b"x")
            ring.submit_and_wait(0)
            os.read(reader, 1)
        found: list[Cqe] = []
        while batch := ring.completions():
            found += batch
            ring.submit_and_wait(0)
        assert len(found) >= 3
        assert {(user_data, res) for user_data, res, _ in found} == {(1, select.POLLIN)}
        *before, last = [bool(cqe_flags & CqeFlag.MORE) for _, _, cqe_flags in found]
        assert all(before)
        if newest(ring) >= (6, 1):
            assert not last
        ring.sq.prep_poll_remove(1, user_data=2)
        expected = {2: 0, 1: CANCELED} if last else {2: -errno.ENOENT}
        assert results(ring, len(expected)) == expected


# --- cancelling


@pytest.mark.behaviour("io-cancel")
def test_a_cancellation_is_of_its_own_ring(ring: Ring, pipe: Pipe) -> None:
    memory = room(4)
    ring.sq.prep_read(pipe[0], address(memory), 4, 0, user_data=1)
    ring.submit()
    with Ring(2) as other:
        other.sq.prep_cancel(1, 0, user_data=2)
        assert take_one(other, 2) == (-errno.ENOENT, 0)
    os.write(pipe[1], b"data")
    assert take_one(ring, 1) == (4, 0)
    assert memory == b"data"


@pytest.mark.pitfall("a cancelled request may complete all the same")
@pytest.mark.behaviour("io-cancel")
def test_what_a_worker_is_at_is_interrupted(ring: Ring, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    name = bytearray(bytes(path) + b"\0")
    ring.sq.prep_openat(-1, address(name), os.O_RDONLY, 0, user_data=1, sqe_flags=ASYNC)
    ring.submit()
    found: dict[int, int] = {}
    deadline = time.monotonic_ns() + HANG_NS
    while 1 not in found:
        assert time.monotonic_ns() < deadline
        ring.sq.prep_cancel(1, 0, user_data=2)
        ring.submit_and_wait(1, HANG_NS)
        for user_data, res, _ in ring.completions():
            # It may not have begun, or be between the queue of the workers and one of them.
            assert user_data == 1 or res in (0, -errno.EALREADY, -errno.ENOENT)
            found[user_data] = res
    erestartsys = 512  # Linux 6.18 gives it away
    assert found[1] in (-errno.EINTR, CANCELED, -erestartsys)


@pytest.mark.behaviour("io-cancel")
def test_cancelling_one_of_a_chain_ends_the_rest(ring: Ring, pipe: Pipe) -> None:
    memory = room(4)
    ring.sq.prep_read(pipe[0], address(memory), 4, 0, user_data=1, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=2, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=3)
    ring.sq.prep_cancel(2, 0, user_data=4)  # which waits for 1, and is not found
    assert take_one(ring, 4) == (-errno.ENOENT, 0)
    ring.sq.prep_cancel(1, 0, user_data=5)
    assert results(ring, 4) == {1: CANCELED, 2: CANCELED, 3: CANCELED, 5: 0}
    os.write(pipe[1], b"data")
    assert (os.read(pipe[0], 4), memory) == (b"data", room(4))


@pytest.mark.behaviour("io-cancel")
def test_half_of_many_are_cancelled(ring: Ring, pipe: Pipe) -> None:
    """The others are none the worse."""
    memory = [room(1) for _ in range(8)]
    for number, buffer in enumerate(memory):
        ring.sq.prep_read(pipe[0], address(buffer), 1, 0, user_data=number)
    ring.submit()
    for number in range(0, 8, 2):
        ring.sq.prep_cancel(number, 0, user_data=100 + number)
    cancelled = dict.fromkeys(range(0, 8, 2), CANCELED)
    assert results(ring, 8) == {**cancelled, **{100 + number: 0 for number in cancelled}}
    os.write(pipe[1], b"abcd")
    assert results(ring, 4) == dict.fromkeys(range(1, 8, 2), 1)
    assert sorted(bytes(buffer) for buffer in memory[1::2]) == [b"a", b"b", b"c", b"d"]
    assert all(buffer == room(1) for buffer in memory[::2])


@pytest.mark.behaviour("cancel-fd-userdata")
def test_cancelling_by_file_and_user_data(ring: Ring, pipe: Pipe) -> None:
    needs(Cancel.USERDATA.since, ring)
    reader, writer = pipe
    arm(ring, reader, 1, 2, 2)
    arm(ring, writer, 2, 3)
    both = Cancel.USERDATA
    ring.sq.prep_cancel_fd(reader, both, target_user_data=3, user_data=10)  # of the other file
    assert take_one(ring, 10) == (-errno.ENOENT, 0)
    found = register.sync_cancel(ring.fileno(), 3, writer, both | Cancel.FD | Cancel.ALL, timeout_ns=HANG_NS)
    if not found and newest(ring) < (7, 0):
        with pytest.raises(FileNotFoundError):
            register.sync_cancel(ring.fileno(), 3, writer, both | Cancel.FD, timeout_ns=HANG_NS)
        ring.sq.prep_cancel_fd(writer, both | Cancel.ALL, target_user_data=3, user_data=11)
        assert take_one(ring, 11) == (0, 0)
        pytest.skip("needs Linux 7.0, or a later one of 6.12 and 6.18: here a file and user_data together match nothing")
    assert found == 1 and take_one(ring, 3) == (CANCELED, 0)
    arm(ring, writer, 3)
    ring.sq.prep_cancel_fd(reader, both | Cancel.ALL, target_user_data=2, user_data=11)
    assert sorted(take(ring, 3)) == [(2, CANCELED, 0), (2, CANCELED, 0), (11, 2, 0)]
    ring.sq.prep_cancel_fd(writer, both, target_user_data=2, user_data=12)
    assert results(ring, 2) == {2: CANCELED, 12: 0}
    # In a slot of the table.
    register.files(ring.fileno(), [reader, writer])
    arm(ring, 0, 4, 5, sqe_flags=FIXED_FILE)
    arm(ring, 1, 4, sqe_flags=FIXED_FILE)
    ring.sq.prep_cancel_fd(0, both | Cancel.FD_FIXED, target_user_data=4, user_data=13)
    assert results(ring, 2) == {4: CANCELED, 13: 0}
    ring.sq.prep_cancel(0, Cancel.ANY, user_data=14)
    assert sorted(take(ring, 5)) == [(1, CANCELED, 0), (3, CANCELED, 0), (4, CANCELED, 0), (5, CANCELED, 0), (14, 4, 0)]


# --- futexes


@pytest.mark.behaviour("futex")
@pytest.mark.parametrize("vector", [False, True])
def test_who_waits_first_is_woken_first(ring: Ring, futexes: mmap.mmap, vector: bool) -> None:
    has(ring, Op.FUTEX_WAIT)
    addr = aligned(futexes, 0)
    words = abi.FUTEX_WAITV.pack(val=1, uaddr=addr, flags=int(FUTEX))
    for user_data in (1, 2):
        if vector:
            ring.sq.prep_futex_waitv(address(words), 1, user_data=user_data)
        else:
            ring.sq.prep_futex_wait(addr, 1, ANY_BIT, FUTEX, user_data=user_data)
    for waker, waiter in ((3, 1), (4, 2)):
        ring.sq.prep_futex_wake(addr, 1, ANY_BIT, FUTEX, user_data=waker)
        assert results(ring, 2) == {waker: 1, waiter: 0}
    ring.sq.prep_futex_wake(addr, 1, ANY_BIT, FUTEX, user_data=5)
    assert take_one(ring, 5) == (0, 0)


@pytest.mark.behaviour("futex")
@pytest.mark.parametrize("vector", [False, True])
def test_a_wait_for_a_futex_is_stopped(ring: Ring, futexes: mmap.mmap, vector: bool) -> None:
    has(ring, Op.FUTEX_WAIT)
    addr, short = aligned(futexes, 0), timespec(1_000_000)
    words = abi.FUTEX_WAITV.pack(val=1, uaddr=addr, flags=int(FUTEX))

    def wait(user_data: int, sqe_flags: int = 0) -> None:
        if vector:
            ring.sq.prep_futex_waitv(address(words), 1, user_data=user_data, sqe_flags=sqe_flags)
        else:
            ring.sq.prep_futex_wait(addr, 1, ANY_BIT, FUTEX, user_data=user_data, sqe_flags=sqe_flags)

    wait(1)
    ring.sq.prep_cancel(1, 0, user_data=2)
    found = results(ring, 2)
    assert found[1] == CANCELED and found[2] in (0, 1)
    wait(3, LINK)
    ring.sq.prep_link_timeout(address(short), 0, user_data=4)
    found = results(ring, 2)
    assert found[3] == CANCELED and found[4] in (-errno.ETIME, 1)
    # Nobody is left to be woken.
    ring.sq.prep_futex_wake(addr, 10, ANY_BIT, FUTEX, user_data=5)
    assert take_one(ring, 5) == (0, 0)


@pytest.mark.behaviour("futex")
def test_what_no_futex_can_be(ring: Ring, futexes: mmap.mmap) -> None:
    has(ring, Op.FUTEX_WAIT)
    addr, wrong = aligned(futexes, 0), 0x1000
    words = abi.FUTEX_WAITV.pack(val=1, uaddr=addr, flags=int(FUTEX) | wrong)
    ring.sq.prep_futex_wait(addr, 1, ANY_BIT, wrong, user_data=1)
    ring.sq.prep_futex_wake(addr, 1, ANY_BIT, wrong, user_data=2)
    ring.sq.prep_futex_waitv(address(words), 1, user_data=3)
    ring.sq.prep_futex_waitv(address(words), 0, user_data=4)
    ring.sq.prep_futex_wait(addr, 1, 0, FUTEX, user_data=5)
    ring.sq.prep_futex_wait(addr + 1, 1, ANY_BIT, FUTEX, user_data=6)
    assert results(ring, 6) == dict.fromkeys(range(1, 7), -errno.EINVAL)


@pytest.mark.behaviour("futex")
def test_a_wake_from_outside_ends_a_wait(ring: Ring, futexes: mmap.mmap) -> None:
    """Through memory that another ring's thread could share: here it is another ring."""
    has(ring, Op.FUTEX_WAIT)
    ring.sq.prep_futex_wait(aligned(futexes, 2), 3, ANY_BIT, FUTEX, user_data=1)
    with Ring(2) as other:
        wait_until_waiting(ring)
        futexes[8:12] = struct.pack("=I", 4)
        other.sq.prep_futex_wake(aligned(futexes, 2), 1, ANY_BIT, FUTEX, user_data=2)
        assert take_one(other, 2) == (1, 0)
    assert take_one(ring, 1) == (0, 0)
    ring.sq.prep_futex_wait(aligned(futexes, 2), 3, ANY_BIT, FUTEX, user_data=3)
    assert take_one(ring, 3) == (-errno.EAGAIN, 0)


def wait_until_waiting(ring: Ring) -> None:
    """Submit, and have what was queued taken up by an SQ thread as well: a NOP behind it completes."""
    ring.sq.prep_nop(user_data=999)
    assert take_one(ring, 999) == (0, 0)


# --- children


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when its stdin does, or by a signal."""
    command = [sys.executable, "-S", "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as made:
        yield made
        made.kill()


@pytest.mark.behaviour("waitid")
def test_a_wait_for_a_child_is_stopped(ring: Ring, child: subprocess.Popen[bytes]) -> None:
    has(ring, Op.WAITID)
    info, short = bytearray(abi.SIGINFO.nbytes), timespec(1_000_000)
    ring.sq.prep_waitid(os.P_PID, child.pid, address(info), os.WEXITED, user_data=1)
    ring.sq.prep_cancel(1, 0, user_data=2)
    found = results(ring, 2)
    assert found[1] == CANCELED and found[2] in (0, 1)
    ring.sq.prep_waitid(os.P_PID, child.pid, address(info), os.WEXITED, user_data=3, sqe_flags=LINK)
    ring.sq.prep_link_timeout(address(short), 0, user_data=4)
    found = results(ring, 2)
    assert found[3] == CANCELED and found[4] in (-errno.ETIME, 1)
    assert child.poll() is None


@pytest.mark.behaviour("waitid")
def test_children_in_every_state(ring: Ring, child: subprocess.Popen[bytes]) -> None:
    has(ring, Op.WAITID)

    def waited(options: int) -> tuple[int, int]:
        info = bytearray(abi.SIGINFO.nbytes)
        ring.sq.prep_waitid(os.P_PID, child.pid, address(info), options, user_data=1)
        assert take_one(ring, 1) == (0, 0)
        found = abi.SIGINFO.unpack(info)
        return found["si_code"], found["si_status"] if found["si_pid"] else 0

    assert waited(os.WEXITED | os.WNOHANG) == (0, 0)
    child.send_signal(signal.SIGSTOP)
    assert waited(os.WSTOPPED) == (os.CLD_STOPPED, signal.SIGSTOP)
    child.send_signal(signal.SIGCONT)
    assert waited(os.WCONTINUED) == (os.CLD_CONTINUED, signal.SIGCONT)
    child.kill()
    assert waited(os.WEXITED | os.WNOWAIT) == (os.CLD_KILLED, signal.SIGKILL)
    assert waited(os.WEXITED | os.WNOWAIT) == (os.CLD_KILLED, signal.SIGKILL)
    child.wait()


@pytest.mark.behaviour("waitid")
def test_two_waits_for_one_child(ring: Ring, child: subprocess.Popen[bytes]) -> None:
    has(ring, Op.WAITID)
    infos = [bytearray(abi.SIGINFO.nbytes) for _ in range(2)]
    for user_data, info in enumerate(infos):
        ring.sq.prep_waitid(os.P_PID, child.pid, address(info), os.WEXITED | os.WNOWAIT, user_data=user_data)
    ring.sq.prep_waitid(os.P_PID, child.pid, NOWHERE, os.WEXITED | os.WNOWAIT, user_data=2)
    wait_until_waiting(ring)
    child.kill()
    assert results(ring, 3) == {0: 0, 1: 0, 2: -errno.EFAULT}
    assert infos[0] == infos[1]
    assert abi.SIGINFO.get(infos[0], "si_pid") == child.pid


# --- epoll


@pytest.mark.behaviour("epwait")
def test_a_wait_for_an_epoll(ring: Ring, pipe: Pipe) -> None:
    has(ring, Op.EPOLL_WAIT)
    size, data_at = abi.EPOLL_EVENT.nbytes, abi.EPOLL_EVENT.fields["data"].offset
    event = os.eventfd(0)

    def prep(user_data: int, maxevents: int = 4) -> bytearray:
        events = room(4 * size)
        ring.sq.prep_epoll_wait(epoll.fileno(), address(events), maxevents, user_data=user_data)
        return events

    def fds(events: bytearray, count: int) -> set[int]:
        return {unpacked(events[at + data_at : at + data_at + 4])[0] for at in range(0, count * size, size)}

    try:
        with select.epoll() as epoll:
            epoll.register(pipe[0], select.EPOLLIN)
            epoll.register(event, select.EPOLLIN)
            # Ready before, and as many as there is room for.
            os.write(pipe[1], b"x")
            os.eventfd_write(event, 1)
            events = prep(1)
            assert take_one(ring, 1) == (2, 0)
            assert fds(events, 2) == {pipe[0], event}
            events = prep(2, 1)
            assert take_one(ring, 2) == (1, 0)
            os.read(pipe[0], 1)
            os.eventfd_read(event)
            # Cancelled, then with one of the two removed meanwhile.
            events = prep(3)
            ring.sq.prep_cancel(3, 0, user_data=4)
            assert results(ring, 2) == {3: CANCELED, 4: 0}
            assert events == room(4 * size)
            events = prep(5)
            wait_until_waiting(ring)
            epoll.unregister(pipe[0])
            os.write(pipe[1], b"x")
            os.eventfd_write(event, 1)
            assert take_one(ring, 5) == (1, 0)
            assert fds(events, 1) == {event}
            events = prep(6, 0)
            assert take_one(ring, 6) == (-errno.EINVAL, 0)
        ring.sq.prep_epoll_wait(pipe[0], address(events), 4, user_data=7)  # which is no epoll
        assert take_one(ring, 7) == (-errno.EINVAL, 0)
    finally:
        os.close(event)
