"""What set-up flags do on this kernel: SQ threads, memory of our own, rings without an fd, polling, sizes that mix."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunChild
from support import HANG_NS, Pipe, address, granted, nops, pipe, take, take_one, wait_until

from rawuring import Ring, RingClosedError, RingSetupError, SubmissionQueueFullError, abi, syscalls
from rawuring.abi import Setup
from rawuring.errors import RawuringError
from rawuring.mmap_ring import Mapping, OwnMemory
from rawuring.ring import closing, negotiation
from rawuring.sq import RewindingQueue

CqeFlag, Op, SqeFlag = abi.CqeFlag, abi.Op, abi.SqeFlag
PAGE = mmap.PAGESIZE
WITHOUT_FD = Setup.NO_MMAP | Setup.REGISTERED_FD_ONLY

__all__ = ["pipe"]


def name_of(flags: Setup) -> str:
    return "-".join(str(flag.name) for flag in Setup if flags & flag) or "alone"


def fdinfo(ring: Ring) -> dict[str, str]:
    """What the kernel shows of a ring. SqThread is empty (or -1) while the thread is busy in some kernels."""
    lines = Path(f"/proc/self/fdinfo/{ring.fileno()}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def ring_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("[io_uring]")


# --- flags that go with any ring


@pytest.mark.behaviour("cq-size")
def test_clamp_takes_the_largest_queues() -> None:
    with granted(Setup.CLAMP, entries=1 << 20, cq_entries=1 << 20) as ring:
        assert (ring.entries, ring.cq.entries) == (abi.MAX_ENTRIES, abi.MAX_CQ_ENTRIES)
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)


@pytest.mark.behaviour("cq-size")
@pytest.mark.parametrize(("entries", "cq_entries", "expected"), [(1, 1, (1, 1)), (5, 9, (8, 16)), (8, 8, (8, 8))])
def test_queues_are_rounded_up(entries: int, cq_entries: int, expected: tuple[int, int]) -> None:
    with Ring(entries, cq_entries=cq_entries) as ring:
        assert ring.setup_flags & Setup.CQSIZE
        assert (ring.entries, ring.cq.entries) == expected


@pytest.mark.pitfall("DEFER_TASKRUN hides completions")
@pytest.mark.parametrize("setup_flags", [Setup.DEFER_TASKRUN | Setup.SINGLE_ISSUER, Setup.COOP_TASKRUN])
def test_taskrun_flag_tells_of_work_that_an_enter_posts(setup_flags: Setup, pipe: Pipe) -> None:
    with granted(setup_flags | Setup.TASKRUN_FLAG, wanted_flags=0) as ring:
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
        ring.submit()
        assert not ring.cq.needs_enter
        if setup_flags & Setup.COOP_TASKRUN:
            # Any system call runs the work, so it is another thread that makes it.
            writer = threading.Thread(target=os.write, args=(pipe[1], b"x"))
            writer.start()
            writer.join()
        else:
            os.write(pipe[1], b"x")
            assert ring._memory.sq_flags.load() & abi.SqRingFlag.TASKRUN
            assert ring.cq.needs_enter
            assert ring.completions() == []
        ring.submit_and_wait(0)
        assert ring.completions() == [(1, select.POLLIN, 0)]
        assert not ring.cq.needs_enter


# --- the SQ thread


def test_an_sq_thread_is_bound_to_its_cpu() -> None:
    for cpu in sorted(os.sched_getaffinity(0))[:2]:
        with granted(Setup.SQPOLL, sq_thread_cpu=cpu) as ring:
            assert ring.setup_flags & Setup.SQ_AFF
            nops(ring, 1)
            assert take_one(ring, 1) == (0, 0)
            thread = sq_threads(ring)[0]
            assert os.sched_getaffinity(thread) == {cpu}


def sq_threads(*rings: Ring) -> list[int]:
    """The thread ids of SQ threads."""
    found: list[int] = []

    def told(ring: Ring) -> bool:
        thread = int(fdinfo(ring).get("SqThread", "-1"))
        found.extend([thread] if thread != -1 else [])  # nothing is told while the thread is at work
        return thread != -1

    for ring in rings:
        wait_until(lambda: told(ring))
    return found


@pytest.mark.behaviour("sq-poll-share")
def test_attached_rings_share_a_thread_and_work() -> None:
    with (
        granted(Setup.SQPOLL) as first,
        Ring(4, Setup.SQPOLL, attach_to=first) as second,
        Ring(4, Setup.SQPOLL) as alone,
    ):
        assert second.setup_flags & Setup.ATTACH_WQ
        for ring in (first, second, alone):
            nops(ring, 1)
            assert take_one(ring, 1) == (0, 0)
        shared = sq_threads(first, second)
        assert shared[0] == shared[1] != sq_threads(alone)[0]
        first.close()
        nops(second, 2)
        assert take_one(second, 2) == (0, 0)


def test_workers_are_shared_without_an_sq_thread_too() -> None:
    with Ring(4) as first, Ring(4, attach_to=first) as second:
        second.sq.prep_nop(user_data=1, sqe_flags=SqeFlag.ASYNC)
        assert take_one(second, 1) == (0, 0)


# --- memory of our own


@pytest.mark.behaviour("init-mem")
@pytest.mark.parametrize("setup_flags", [Setup(0), Setup.SQE128, Setup.CQE32, Setup.SQPOLL], ids=name_of)
@pytest.mark.parametrize("wanted_flags", [negotiation.WANTED_FLAGS, 0], ids=["best", "plain"])
@pytest.mark.parametrize("entries", [1, 8, 300])
def test_a_ring_in_our_memory_stays_inside_it(
    entries: int, wanted_flags: int, setup_flags: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard pages around it keep their bytes, and the CQEs are found in between."""
    real = syscalls.mmap
    guarded: list[tuple[int, int]] = []  # the address and the size of what is guarded
    before = ring_mappings()

    def with_guards(addr: int | None, nbytes: int, prot: int, mmap_flags: int, fd: int, offset: int) -> int:
        if fd >= 0:
            return real(addr, nbytes, prot, mmap_flags, fd, offset)
        start = real(None, nbytes + 2 * PAGE, prot, mmap_flags, fd, offset)
        for guard in (start, start + PAGE + nbytes):
            ctypes.memset(guard, 0xA5, PAGE)
        guarded.append((start + PAGE, nbytes))
        return start + PAGE

    monkeypatch.setattr(syscalls, "mmap", with_guards)
    with granted(Setup.NO_MMAP | setup_flags, entries=entries, wanted_flags=wanted_flags) as ring:
        monkeypatch.undo()
        start, nbytes = guarded[-1]
        assert ring_mappings() == before
        user_data = 0x1122334455667700
        for turn in range(3):
            nops(ring, *range(user_data, user_data + ring.entries))
            assert len(take(ring, ring.entries)) == ring.entries
            wait_until(lambda: not ring.sq.ready)  # an SQ thread moves the head after it posts
        content = ctypes.string_at(start, nbytes)
        last = struct.pack("=Qi", user_data + ring.entries - 1, 0)
        assert last in content
        sqe = abi.IO_URING_SQE.pack(opcode=Op.NOP, fd=-1, user_data=user_data)
        assert bytes(sqe) in content
        for guard in (start - PAGE, start + nbytes):
            assert ctypes.string_at(guard, PAGE) == b"\xa5" * PAGE
        ring.close()
        for guard in (start - PAGE, start + nbytes):
            syscalls.munmap(guard, PAGE)


def test_our_memory_is_given_back() -> None:
    def mapped() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * PAGE

    def one_ring() -> None:
        with granted(Setup.NO_MMAP, entries=1024) as ring:
            nops(ring, 1)
            assert take_one(ring, 1) == (0, 0)

    for _ in range(3):
        one_ring()
    before = mapped()
    for _ in range(30):
        one_ring()
    # 100 KiB a ring at least; the allocator may have mapped an arena meanwhile.
    assert mapped() <= before + 30 * 50_000


def test_a_huge_page_is_used_only_where_the_kernel_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    granted(Setup.NO_MMAP).close()
    asked: list[bool] = []
    real = OwnMemory.__init__

    def init(self: OwnMemory, entries: int, cq_entries: int, setup_flags: int, *, huge: bool = False) -> None:
        asked.append(huge)
        real(self, entries, cq_entries, setup_flags, huge=huge)

    monkeypatch.setattr(OwnMemory, "__init__", init)
    Ring(8, Setup.NO_MMAP).close()
    assert asked == [False]
    # A kernel that wants contiguous memory, as Linux 6.5 to 6.9 did.
    real_setup = syscalls.setup

    def setup(entries: int, params: bytearray) -> int:
        if entries > 64 and not asked[-1]:
            raise OSError(errno.EINVAL, "not contiguous")
        return real_setup(entries, params)

    monkeypatch.setattr(syscalls, "setup", setup)
    asked.clear()
    try:
        with Ring(4096, Setup.NO_MMAP) as ring:
            assert asked == [False, True]
            nops(ring, 1)
            assert take_one(ring, 1) == (0, 0)
    except RingSetupError as error:
        assert error.errno == errno.ENOMEM
        assert "huge page" in str(error) and "vm.nr_hugepages" in str(error)


def test_memory_that_cannot_be_had_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    granted(Setup.NO_MMAP).close()
    closed: list[Mapping] = []
    real = Mapping.close

    def close(self: Mapping) -> None:
        closed.append(self)
        real(self)

    def setup(entries: int, params: bytearray) -> int:
        raise OSError(errno.EFAULT, "no such memory")

    monkeypatch.setattr(Mapping, "close", close)
    monkeypatch.setattr(syscalls, "setup", setup)
    with pytest.raises(RingSetupError):
        Ring(8, Setup.NO_MMAP)
    assert [mapping.addr for mapping in closed] == [0]


# --- a ring without an fd


@pytest.mark.behaviour("reg-fd-only")
def test_a_ring_without_an_fd_works_and_ends() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    granted(WITHOUT_FD).close()
    for _ in range(40):  # a thread has 16 indices
        with Ring(8, WITHOUT_FD) as ring:
            assert sorted(os.listdir("/proc/self/fd")) == before
            nops(ring, 1)
            assert take_one(ring, 1) == (0, 0)
            assert ring.submit_and_wait(1, 1000) == 0
    with pytest.raises(RingClosedError):
        ring.submit()


@pytest.mark.behaviour("reg-fd-only")
def test_what_is_registered_goes_through_the_index(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with granted(WITHOUT_FD) as ring:
        assert ring.supports(Op.READ)
        buffer = bytearray(16)
        buffers = ring.register_buffers([buffer])
        table = ring.file_table(2)
        with open(tmp_path / "file", "rb") as file:
            assert table.update(1, [file]) == 1
            assert ring.read_fixed(table[1], buffers, 0, offset=0).wait(HANG_NS) == 7
        assert buffer.startswith(b"content")
        pool = ring.buffer_ring(2, 64)
        ring.close_buffer_ring(pool)
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            ring.register_eventfd(event)
            assert ring.nop().wait(HANG_NS) == 0
            assert os.eventfd_read(event) >= 1
        finally:
            os.close(event)


def test_what_takes_an_fd_is_refused() -> None:
    with granted(WITHOUT_FD) as ring:
        for use in (ring.fileno, lambda: Ring(4, attach_to=ring)):
            with pytest.raises(RawuringError, match="no fd"):
                use()
        assert "index=" in repr(ring) and "fd=" not in repr(ring)


def test_the_kernels_ring_ends_with_the_index(pipe: Pipe) -> None:
    """Its file table is the last to hold a pipe's writer, so the reader is told."""
    reader, writer = os.pipe()
    try:
        with granted(WITHOUT_FD) as ring:
            table = ring.file_table(1)
            table.update(0, [writer])
            os.close(writer)
        poll = select.poll()
        poll.register(reader, 0)
        assert poll.poll(HANG_NS // 10**6) == [(reader, select.POLLHUP)]
    finally:
        os.close(reader)


def test_a_ring_without_an_fd_is_closed_in_flight(pipe: Pipe) -> None:
    """Memory that the kernel might still write to is freed when it has let go of the ring, which the index tells."""
    with granted(WITHOUT_FD) as ring:
        ring.buffer_ring(2, 64)
        ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
        ring.submit()
        buffer = bytearray(8)
        read = ring.read(pipe[0], buffer, offset=-1)
        ring.submit()
    assert read.cqe is not None and read.cqe[1] == -errno.ECANCELED
    assert ring._kept_as not in closing._kept


@pytest.mark.pitfall("a registered index belongs to one thread")
def test_an_index_is_of_one_thread(run_child: RunChild) -> None:
    """It must never be looked up in another: there the same number is another ring."""
    granted(WITHOUT_FD).close()
    run_child("""
        import threading, warnings
        from rawuring import Ring, WrongThreadError
        from rawuring.abi import Setup

        flags = Setup.NO_MMAP | Setup.REGISTERED_FD_ONLY
        made = []

        def refused(use):
            try:
                use()
            except WrongThreadError:
                return
            raise AssertionError(use)

        with Ring(8, flags) as mine:
            thread = threading.Thread(target=lambda: made.append(Ring(8, flags)))
            thread.start()
            thread.join()
            (theirs,) = made
            theirs.sq.prep_nop(user_data=1)
            refused(theirs.submit)
            theirs.close()
            mine.sq.prep_nop(user_data=2)
            assert mine.submit_and_wait(1) == 1 and mine.completions() == [(2, 0, 0)]

            # Alive, but not this thread: neither entered nor closed from here.
            go, done = threading.Event(), threading.Event()
            def live():
                with Ring(8, flags) as ring:
                    made[0] = ring
                    go.set()
                    done.wait()
                    ring.sq.prep_nop(user_data=3)
                    assert ring.submit_and_wait(1) == 1 and ring.completions() == [(3, 0, 0)]
            thread = threading.Thread(target=live)
            thread.start()
            go.wait()
            refused(made[0].close)
            refused(lambda: made[0].submit_and_wait(0))
            done.set()
            thread.join()
            mine.sq.prep_nop(user_data=4)
            assert mine.submit_and_wait(1) == 1 and mine.completions() == [(4, 0, 0)]
    """)


def test_a_fork_leaves_our_memory_to_the_parent(run_child: RunChild) -> None:
    granted(WITHOUT_FD).close()
    run_child("""
        import os
        from rawuring import ForkedRingError, Ring
        from rawuring.abi import Setup

        with Ring(8, Setup.NO_MMAP | Setup.REGISTERED_FD_ONLY) as ring:
            ring.sq.prep_nop(user_data=1)
            pid = os.fork()
            if pid == 0:
                try:
                    ring.submit()
                except ForkedRingError:
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
            assert ring.submit_and_wait(1) == 1
            assert ring.completions() == [(1, 0, 0)]
    """)


def test_a_collected_ring_without_an_fd_ends_too() -> None:
    granted(WITHOUT_FD).close()
    for _ in range(20):
        ring = Ring(8, WITHOUT_FD)
        with pytest.warns(ResourceWarning, match="unclosed ring"):
            del ring


# --- polling for completions


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[tuple[int, mmap.mmap]]:
    """A file opened with O_DIRECT, of one page of a pattern, and a page to read it into."""
    path = tmp_path / "direct"
    path.write_bytes(b"pattern!" * (PAGE // 8))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno == errno.EINVAL:
            pytest.skip("this file system has no O_DIRECT")
        raise
    page = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        yield fd, page
    finally:
        os.close(fd)


@pytest.mark.parametrize("setup_flags", [Setup(0), Setup.HYBRID_IOPOLL, Setup.SQPOLL], ids=name_of)
def test_iopoll_reads_or_says_that_the_device_cannot(setup_flags: Setup, direct: tuple[int, mmap.mmap]) -> None:
    fd, page = direct
    with granted(Setup.IOPOLL | setup_flags) as ring:
        assert ring.cq.needs_enter == (not setup_flags & Setup.SQPOLL)
        for user_data in range(1, 4):
            page[:] = bytes(PAGE)
            ring.sq.prep_read(fd, address(page), PAGE, 0, user_data=user_data)
            res, cqe_flags = take_one(ring, user_data)
            if res == PAGE:
                assert page[:] == b"pattern!" * (PAGE // 8)
            else:
                assert res == -errno.EOPNOTSUPP
                assert page[:] == bytes(PAGE)
            assert cqe_flags == 0
        # What cannot be polled for is refused, and a NOP is not.
        ring.sq.prep_openat(-1, 0, 0, 0, user_data=4)
        assert take_one(ring, 4) == (-errno.EINVAL, 0)
        nops(ring, 5)
        assert take_one(ring, 5) == (0, 0)


def test_an_iopoll_ring_ends_a_wait_in_time_and_closes_in_flight(direct: tuple[int, mmap.mmap]) -> None:
    fd, page = direct
    with granted(Setup.IOPOLL) as ring:
        assert ring.submit_and_wait(1, 10**7) == 0
        assert ring.completions() == []
        for setting in ({"min_wait_ns": 1000}, {"signal_mask": [10]}):
            with pytest.raises(RawuringError, match="IOPOLL"):
                ring.submit_and_wait(1, **setting)
        reads = [ring.read(fd, page, offset=0) for _ in range(4)]
        ring.submit()
    assert all(read.cqe is not None and read.cqe[1] in (PAGE, -errno.EOPNOTSUPP) for read in reads)


# --- SQEs of two sizes


def prep_nop128(ring: Ring, user_data: int, sqe_flags: int = 0) -> None:
    ring.sq.prep_nop128(user_data=user_data, sqe_flags=sqe_flags)


@pytest.mark.behaviour("sqe-mixed-nop")
def test_mixed_sqes_at_every_place_of_the_array() -> None:
    with granted(Setup.SQE_MIXED) as ring:
        user_data = 0
        for turn in range(80):
            expected = []
            for is_wide in (turn % 3 == 0, turn % 2 == 0, turn % 5 == 0):
                user_data += 1
                (prep_nop128 if is_wide else nops)(ring, user_data)
                expected.append((user_data, 0, 0))
            assert take(ring, 3) == expected
            assert ring.sq.ready == 0
        assert ring.sq.dropped == 0
        assert ring.sq.tail > ring.entries * 10


def test_a_large_sqe_needs_two_slots_in_a_row() -> None:
    with granted(Setup.SQE_MIXED) as ring:
        nops(ring, *range(ring.entries - 1))
        with pytest.raises(SubmissionQueueFullError, match="two slots and a filler"):
            prep_nop128(ring, 99)
        assert len(take(ring, ring.entries - 1)) == ring.entries - 1
        before = ring.sq.tail
        prep_nop128(ring, 100)
        assert ring.sq.tail == before + 3  # the last slot is filled up
        assert ring.submit_and_wait(1) == 3
        assert ring.completions() == [(100, 0, 0)]


def test_a_chain_runs_through_the_end_of_the_array() -> None:
    with granted(Setup.SQE_MIXED) as ring:
        nops(ring, *range(ring.entries - 2))
        assert len(take(ring, ring.entries - 2)) == ring.entries - 2
        # The first of the chain lies in the last slot but one, and fails: so must what is linked to it.
        ring.sq.prep_read(-1, 0, 0, 0, user_data=1, sqe_flags=SqeFlag.IO_LINK)
        prep_nop128(ring, 2)
        ring.submit_and_wait(2)
        found = {user_data: res for user_data, res, _ in ring.completions()}
        assert found[1] == -errno.EBADF
        assert found[2] == -errno.ECANCELED


def test_a_large_sqe_is_taken_back_whole() -> None:
    with granted(Setup.SQE_MIXED) as ring:
        nops(ring, 1, 2)
        prep_nop128(ring, 3)
        prep_nop128(ring, 4)
        assert (ring.sq.ready, ring.sq.last_user_data()) == (6, 4)
        ring.sq.discard_last()
        assert (ring.sq.ready, ring.sq.last_user_data()) == (4, 3)
        ring.sq.discard_last()
        assert (ring.sq.ready, ring.sq.last_user_data()) == (2, 2)
        prep_nop128(ring, 5, SqeFlag.IO_LINK)
        ring.sq.unlink_last()
        assert take(ring, 3) == [(1, 0, 0), (2, 0, 0), (5, 0, 0)]


def test_large_sqes_are_refused_where_they_do_not_fit() -> None:
    with Ring(8) as ring, pytest.raises(RawuringError, match="SQE_MIXED"):
        prep_nop128(ring, 1)


# --- an SQ that starts over with each submit


@pytest.mark.parametrize("setup_flags", [Setup(0), Setup.SQE_MIXED, Setup.SQE128, WITHOUT_FD], ids=name_of)
def test_sq_rewind(setup_flags: Setup) -> None:
    with granted(Setup.SQ_REWIND | setup_flags) as ring:
        assert isinstance(ring.sq, RewindingQueue)
        user_data = 0
        for turn in range(30):
            expected = []
            for _ in range(turn % ring.entries + 1):
                user_data += 1
                nops(ring, user_data)
                expected.append((user_data, 0, 0))
            assert ring.sq.ready == len(expected)
            assert ring.submit_and_wait(len(expected)) == len(expected)
            assert ring.completions() == expected
            assert (ring.sq.ready, ring.sq.space_left) == (0, ring.entries)
        assert ring._memory.sq_head.load() == ring._memory.sq_tail.load() == 0
        assert ring.sq.tail == user_data
        assert [ring.nop().wait(HANG_NS) for _ in range(20)] == [0] * 20


def test_sq_rewind_fills_up_and_goes_on() -> None:
    with granted(Setup.SQ_REWIND) as ring:
        for _ in range(3):
            nops(ring, *range(ring.entries))
            with pytest.raises(SubmissionQueueFullError, match=r"submit\(\)"):
                nops(ring, 99)
            assert ring.submit() == ring.entries
            assert len(take(ring, ring.entries)) == ring.entries


def test_sq_rewind_submits_again_what_an_enter_left() -> None:
    """Without SUBMIT_ALL an enter stops at a bad SQE; the rest lies where the next enter does not look."""
    with granted(Setup.SQ_REWIND, wanted_flags=int(Setup.NO_SQARRAY)) as ring:
        assert not ring.setup_flags & Setup.SUBMIT_ALL
        for _ in range(3):
            nops(ring, 1)
            ring.sq._encode(255, -1, 0, 0, 0, 0, 2, 0)
            nops(ring, 3, 4)
            ring.sq._encode(255, -1, 0, 0, 0, 0, 5, 0)
            nops(ring, 6)
            assert ring.submit_and_wait(6) == 6
            found = ring.completions()
            assert sorted(found) == [
                (1, 0, 0), (2, -errno.EINVAL, 0), (3, 0, 0), (4, 0, 0), (5, -errno.EINVAL, 0), (6, 0, 0)
            ]  # fmt: skip
            assert ring.sq.ready == 0


def test_sq_rewind_chains(pipe: Pipe) -> None:
    with granted(Setup.SQ_REWIND) as ring:
        buffer = bytearray(8)
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)
        with ring.link(2):
            write = ring.write(pipe[1], b"rewound!", offset=-1)
            read = ring.read(pipe[0], buffer, offset=-1)
        assert (write.wait(HANG_NS), read.wait(HANG_NS)) == (8, 8)
        assert buffer == b"rewound!"
