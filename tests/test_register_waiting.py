"""How rings wait and are waited for: clocks, busy polling, registered waits, cancelling, messages, workers."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from registering import in_a_thread, needing, refused
from support import HANG_NS, Cqe, Pipe, address, needs, pipe, results, ring, room, take, take_one, timespec

from rawuring import RawuringError, Ring, abi, register, syscalls

Cancel, Enter, SqeFlag = abi.Cancel, abi.Enter, abi.SqeFlag
ASYNC = int(SqeFlag.ASYNC)

# An SQ thread may not have taken a request yet that the test wants to find in flight.
NO_SQ_THREAD = pytest.mark.parametrize("ring", ["best", "plain"], indirect=True)

__all__ = ["pipe", "ring"]


# --- clocks


def wait_until(ring: Ring, deadline_ns: int) -> int:
    """Enter, and wait for a completion until an absolute time: what enter answers."""
    deadline = timespec(deadline_ns)
    arg = abi.IO_URING_GETEVENTS_ARG.pack(ts=address(deadline))
    enter_flags = Enter.GETEVENTS | Enter.EXT_ARG | Enter.ABS_TIMER
    return syscalls.enter(
        ring.fileno(), 0, 1, enter_flags, ctypes.c_void_p(address(arg)), ctypes.c_size_t(len(arg))
    )


@pytest.mark.behaviour("wait-timeout")
@NO_SQ_THREAD
@pytest.mark.parametrize("clock_id", [time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME])
def test_waits_go_by_the_clock(ring: Ring, clock_id: int) -> None:
    with needing(abi.Register.CLOCK.since):
        register.clock(ring.fileno(), clock_id)
    deadline = time.clock_gettime_ns(clock_id) + 10_000_000
    assert wait_until(ring, deadline) == -errno.ETIME
    assert time.clock_gettime_ns(clock_id) >= deadline
    with refused(errno.EINVAL):
        register.clock(ring.fileno(), time.CLOCK_REALTIME)


# --- busy polling


def test_napi_settings(ring: Ring) -> None:
    fd = ring.fileno()
    with needing(f"{abi.Register.NAPI.since} with CONFIG_NET_RX_BUSY_POLL"):
        before = register.napi(fd, 50, prefer_busy_poll=True)
    assert (before.busy_poll_usec, before.prefer_busy_poll) == (0, False)
    assert register.napi(fd, 20)[:2] == (50, True)
    assert register.unregister_napi(fd)[:2] == (20, False)
    assert register.unregister_napi(fd)[:2] == (0, False)


def test_a_ring_that_polls_busily_receives(ring: Ring) -> None:
    with needing(f"{abi.Register.NAPI.since} with CONFIG_NET_RX_BUSY_POLL"):
        register.napi(ring.fileno(), 50, prefer_busy_poll=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as ours, listener.accept()[0] as theirs:
            memory = room(4)
            for data in (b"busy", b"poll"):
                ring.sq.prep_recv(ours.fileno(), address(memory), 4, 0, user_data=1)
                ring.submit()
                theirs.sendall(data)
                assert take_one(ring, 1)[0] == 4
                assert bytes(memory) == data


def test_napi_ids(ring: Ring) -> None:
    fd, queue = ring.fileno(), 99_999
    with needing(f"{abi.NapiTracking.STATIC.since} with CONFIG_NET_RX_BUSY_POLL"):
        register.napi(fd, 50, tracking=abi.NapiTracking.STATIC)
    register.napi_add_id(fd, queue)
    with refused(errno.EEXIST):
        register.napi_add_id(fd, queue)
    register.napi_del_id(fd, queue)
    with refused(errno.ENOENT):
        register.napi_del_id(fd, queue)
    with refused(errno.EINVAL):
        register.napi_add_id(fd, 1)  # too small for a queue's id
    assert register.napi(fd, 50).tracking == abi.NapiTracking.STATIC
    register.unregister_napi(fd)


# --- the region, and waits registered in it


class Waits:
    """A ring with a region of registered waits in `memory`."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.nbytes = mmap.PAGESIZE
        with needing(abi.Register.MEM_REGION.since):
            register.region(ring.fileno(), address(self.memory), self.nbytes, abi.MemRegion.REG_WAIT_ARG)
        ring.enable()

    def put(self, index: int, entry: bytearray) -> int:
        """Write an entry: its offset."""
        offset = register.reg_wait_offset(index, self.nbytes)
        self.memory[offset : offset + len(entry)] = bytes(entry)
        return offset

    def wait(self, offset: int) -> int:
        """Enter, and wait for a completion as the entry says: what enter answers."""
        enter_flags = Enter.GETEVENTS | Enter.EXT_ARG | Enter.EXT_ARG_REG
        nbytes = abi.IO_URING_REG_WAIT.nbytes
        return syscalls.enter(
            self.ring.fileno(), 0, 1, enter_flags, ctypes.c_void_p(offset), ctypes.c_size_t(nbytes)
        )


@pytest.fixture
def waits() -> Iterator[Waits]:
    with Ring(8, abi.Setup.R_DISABLED) as ring:
        yield Waits(ring)


@pytest.mark.behaviour("reg-wait")
def test_a_registered_wait_times_out(waits: Waits) -> None:
    short = waits.put(3, register.reg_wait(5_000_000))
    long = waits.put(0, register.reg_wait(HANG_NS))
    started = time.monotonic_ns()
    assert waits.wait(short) == -errno.ETIME
    assert 5_000_000 <= time.monotonic_ns() - started < HANG_NS
    # Another entry, another wait: this one ends with the completion.
    ending = timespec(1_000_000)
    waits.ring.sq.prep_timeout(address(ending), 0, 0, user_data=1)
    waits.ring.submit()
    found = list[Cqe]()
    while not found:  # the kernel wakes who waits when a timeout expires, which may be before its CQE is there
        assert waits.wait(long) == 0
        found = waits.ring.completions()
    assert found == [(1, -errno.ETIME, 0)]


@pytest.mark.behaviour("reg-wait")
def test_a_registered_wait_without_limit(waits: Waits) -> None:
    offset = waits.put(1, register.reg_wait())
    ending = timespec(5_000_000)
    waits.ring.sq.prep_timeout(address(ending), 0, 0, user_data=1)
    waits.ring.submit()
    assert waits.wait(offset) == 0
    assert waits.ring.completions() == [(1, -errno.ETIME, 0)]


def test_a_registered_wait_blocks_signals(waits: Waits) -> None:
    masks = 1 << signal.SIGUSR1 - 1, 0
    usr1, nothing = (bytearray(mask.to_bytes(abi.SIGSET_NBYTES, sys.byteorder)) for mask in masks)
    blocking = waits.put(2, register.reg_wait(5_000_000, sigmask_addr=address(usr1)))
    unblocking = waits.put(4, register.reg_wait(HANG_NS, sigmask_addr=address(nothing)))
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
    blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        # It stays pending, until a wait does not block it.
        signal.raise_signal(signal.SIGUSR1)
        assert waits.wait(blocking) == -errno.ETIME
        assert not handled
        assert waits.wait(unblocking) == -errno.EINTR
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)
        signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1]


def test_the_bytes_of_a_registered_wait() -> None:
    entry = register.reg_wait(3_000_000_007, min_wait_usec=250, sigmask_addr=0x1234)
    values = abi.IO_URING_REG_WAIT.unpack(entry)
    assert (values["ts.tv_sec"], values["ts.tv_nsec"], values["flags"]) == (3, 7, abi.RegWait.TS)
    assert (values["min_wait_usec"], values["sigmask"], values["sigmask_sz"]) == (250, 0x1234, abi.SIGSET_NBYTES)
    assert register.reg_wait() == bytearray(abi.IO_URING_REG_WAIT.nbytes)


@pytest.mark.pitfall("the last registered wait is misread")
def test_the_last_entry_of_a_region_is_never_waited_with() -> None:
    assert [register.reg_wait_offset(index, 256) for index in range(3)] == [0, 64, 128]
    for index, nbytes in ((3, 256), (4, 256), (-1, 256), (0, 64), (0, 0)):
        with pytest.raises(RawuringError, match="cannot be used"):
            register.reg_wait_offset(index, nbytes)


def test_a_region_in_the_kernels_memory() -> None:
    with Ring(4) as ring:
        fd, nbytes = ring.fileno(), mmap.PAGESIZE
        with needing(abi.Register.MEM_REGION.since):
            offset = register.region(fd, 0, nbytes)
        addr = syscalls.mmap(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, offset)
        memory = memoryview((ctypes.c_char * nbytes).from_address(addr)).cast("B")
        assert bytes(memory) == bytes(nbytes)
        memory[:6] = b"shared"
        again = syscalls.mmap(None, nbytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
        assert ctypes.string_at(again, 6) == b"shared"
        syscalls.munmap(again, nbytes)
        syscalls.munmap(addr, nbytes)
        with refused(errno.EBUSY):
            register.region(fd, 0, nbytes)


def test_what_no_region_can_be() -> None:
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with Ring(4) as ring:
        needs(abi.Register.MEM_REGION.since, ring)
        for offset, nbytes, region_flags in (
            (0, 100, 0),
            (64, mmap.PAGESIZE, 0),
            (0, mmap.PAGESIZE, abi.MemRegion.REG_WAIT_ARG),  # the ring is enabled
        ):
            with refused(errno.EINVAL):
                register.region(ring.fileno(), address(memory) + offset, nbytes, region_flags)
        register.region(ring.fileno(), address(memory), mmap.PAGESIZE)


# --- cancelling


def pending_polls(ring: Ring, fd: int, *user_datas: int) -> None:
    for user_data in user_datas:
        ring.sq.prep_poll_add(fd, select.POLLIN, user_data=user_data)
    ring.submit()


@pytest.mark.behaviour("sync-cancel")
@NO_SQ_THREAD
def test_sync_cancel_by_user_data(ring: Ring, pipe: Pipe) -> None:
    fd = ring.fileno()
    pending_polls(ring, pipe[0], 1, 2)
    with needing(abi.Register.SYNC_CANCEL.since):
        assert register.sync_cancel(fd, 2) == 0
    assert take_one(ring, 2)[0] == -errno.ECANCELED
    with refused(errno.ENOENT):
        register.sync_cancel(fd, 2)
    assert register.sync_cancel(fd, 2, cancel_flags=Cancel.ALL) == 0
    # The other one was left alone.
    os.write(pipe[1], b"x")
    assert take_one(ring, 1)[0] == select.POLLIN


@pytest.mark.behaviour("sync-cancel")
@NO_SQ_THREAD
def test_sync_cancel_of_all_that_match(ring: Ring, pipe: Pipe) -> None:
    fd, reader, event = ring.fileno(), pipe[0], os.eventfd(0)
    with contextlib.closing(os.fdopen(event, "rb", 0)), needing(abi.Register.SYNC_CANCEL.since):
        pending_polls(ring, reader, 1, 1, 2)
        pending_polls(ring, event, 3)
        assert register.sync_cancel(fd, 1, cancel_flags=Cancel.ALL) == 2
        assert take(ring, 2) == [(1, -errno.ECANCELED, 0)] * 2
        assert register.sync_cancel(fd, target_fd=event, cancel_flags=Cancel.FD | Cancel.ALL) == 1
        assert take_one(ring, 3)[0] == -errno.ECANCELED
        pending_polls(ring, event, 4)
        assert register.sync_cancel(fd, cancel_flags=Cancel.ANY) == 2
        assert results(ring, 2) == {2: -errno.ECANCELED, 4: -errno.ECANCELED}
        with refused(errno.EBADF):
            register.sync_cancel(fd, target_fd=1 << 20, cancel_flags=Cancel.FD)


@pytest.mark.behaviour("sync-cancel")
@NO_SQ_THREAD
def test_sync_cancel_by_operation_and_slot(ring: Ring, pipe: Pipe) -> None:
    fd, memory = ring.fileno(), room(8)
    register.files(fd, [pipe[0]])
    ring.sq.prep_read(pipe[0], address(memory), 8, 0, user_data=1)
    ring.sq.prep_poll_add(0, select.POLLIN, user_data=2, sqe_flags=int(SqeFlag.FIXED_FILE))
    ring.submit()
    with needing(Cancel.OP.since):
        assert register.sync_cancel(fd, cancel_flags=Cancel.OP, opcode=abi.Op.READ) == 0
    assert take_one(ring, 1)[0] == -errno.ECANCELED
    assert register.sync_cancel(fd, target_fd=0, cancel_flags=Cancel.FD | Cancel.FD_FIXED) == 0
    assert take_one(ring, 2)[0] == -errno.ECANCELED


@pytest.mark.behaviour("sync-cancel")
@NO_SQ_THREAD
def test_sync_cancel_waits_for_a_worker(ring: Ring, tmp_path: Path) -> None:
    # The opening of a FIFO for reading waits in a worker, which a cancellation has to interrupt.
    deferring = ring.setup_flags & abi.Setup.DEFER_TASKRUN
    path = tmp_path / "fifo"
    os.mkfifo(path)
    name = bytearray(bytes(path) + b"\0")
    ring.sq.prep_openat(-1, address(name), os.O_RDONLY, 0, user_data=1, sqe_flags=ASYNC)
    ring.submit()
    deadline = time.monotonic_ns() + HANG_NS
    with needing(abi.Register.SYNC_CANCEL.since):
        while True:
            try:
                assert register.sync_cancel(ring.fileno(), 1, timeout_ns=50_000_000 if deferring else HANG_NS) == 0
            except FileNotFoundError:  # between the queue of the workers and the one that takes it
                assert time.monotonic_ns() < deadline
                continue
            except OSError as error:
                # A thread that defers its task work may sleep through the end of the request.
                if not deferring or error.errno != errno.ETIME:
                    raise
            break
    assert take_one(ring, 1)[0] < 0


# --- messages


def test_a_message_without_a_ring(ring: Ring) -> None:
    with needing(abi.Register.SEND_MSG_RING.since):
        register.sync_msg(ring.fileno(), 7, 2**63 - 1)
    assert take(ring) == [(2**63 - 1, 7, 0)]
    in_a_thread(lambda: register.sync_msg(ring.fileno(), -5, 2, 1 << 16))
    assert take(ring) == [(2, -5, 1 << 16)]
    with refused(errno.EBADFD):
        register.sync_msg(0, 1, 2)
    with Ring(2, abi.Setup.R_DISABLED) as disabled, refused(errno.EBADFD):
        register.sync_msg(disabled.fileno(), 1, 2)


def test_a_message_does_not_go_to_an_index() -> None:
    with pytest.raises(RawuringError, match="ring's fd"):
        register.sync_msg(register.RingIndex(0), 1, 2)


# --- workers


def workers() -> dict[int, set[int]]:
    """The CPUs that each worker of this process may run on, by its thread id."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            if fields["Name"].startswith("iou-wrk"):
                found[int(task.name)] = os.sched_getaffinity(int(task.name))
    return found


def test_workers_run_where_they_may() -> None:
    mine = os.sched_getaffinity(0)
    cpu = max(mine)

    def work() -> set[int]:
        with Ring(4) as ring:
            others = set(workers())
            register.iowq_aff(ring.fileno(), [cpu])
            ring.sq.prep_nop(user_data=1, sqe_flags=ASYNC)
            take_one(ring, 1)
            (worker,) = set(workers()) - others
            allowed = workers()[worker]
            register.unregister_iowq_aff(ring.fileno())
            with refused(errno.EINVAL):
                register.iowq_aff(ring.fileno(), [])
            return allowed

    with needing(abi.Register.IOWQ_AFF.since):
        assert in_a_thread(work) == {cpu}


def test_the_bits_of_a_cpu_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def record(fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        seen.append(ctypes.string_at(arg_addr, nr_args))
        return 0

    monkeypatch.setattr(syscalls, "register", record)
    register.iowq_aff(3, [0, 5, 64, 130, 5])
    words = memoryview(seen[0]).cast("Q").tolist()  # unsigned long[]: their bits are in the machine's order
    assert words == [1 | 1 << 5, 1, 1 << 2]


def test_how_many_workers_there_may_be(tmp_path: Path) -> None:
    """Three openings of FIFOs wait: with one worker for such work, one after another."""
    paths = [tmp_path / f"fifo{i}" for i in range(3)]
    for path in paths:
        os.mkfifo(path)

    def end_waiting(path: Path) -> None:
        deadline = time.monotonic_ns() + HANG_NS
        while True:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                return
            except OSError as error:  # nobody opens it for reading yet
                assert error.errno == errno.ENXIO and time.monotonic_ns() < deadline
                time.sleep(0.001)

    def work() -> list[Cqe]:
        others = set(workers())
        with Ring(8) as ring:
            fd = ring.fileno()
            before = register.iowq_max_workers(fd, bound=1)
            assert before.bound > 0 and before.unbound > 0
            assert register.iowq_max_workers(fd, unbound=7) == (1, before.unbound)
            assert register.iowq_max_workers(fd) == (1, 7)
            names = [bytearray(bytes(path) + b"\0") for path in paths]
            for i, name in enumerate(names):
                ring.sq.prep_openat(-1, address(name), os.O_RDONLY, 0, user_data=i, sqe_flags=ASYNC)
            ring.submit()
            for path in paths:
                end_waiting(path)
                assert len(set(workers()) - others) <= 1
            opened = take(ring, 3)
            for _, res, _ in opened:
                os.close(res)
            with refused(errno.EINVAL):
                register.iowq_max_workers(fd, bound=2**31)
            return opened

    with needing(abi.Register.IOWQ_MAX_WORKERS.since):
        assert [user_data for user_data, _, _ in in_a_thread(work)] == [0, 1, 2]
