"""What operations on files, paths, fds and events hold for the kernel, and what becomes of what nobody takes.

Each test is a program in a process of its own, as those of test_lifetimes, whose prelude they share: memory that is
let go is replaced by look-alikes of the same size, and none of them may change when the kernel writes.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from conftest import RunChild
from support import needs
from test_lifetimes import run

from rawuring import Ring, abi

Op = abi.Op


def has(*ops: abi.Op) -> None:
    """Skip the test unless this kernel has the operations."""
    with Ring(2) as ring:
        for op in ops:
            needs(op.since, ring.supports(op))


# A word in memory that can be seen to end, and a child process that waits for its end.
TOOLS = """
import mmap, select, subprocess
from rawuring import system

class Buffer(Buffer):
    "Memory for one futex, or for anything else of that size."

def child():
    return subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)

def end(process):
    process.stdin.close()
    process.wait()

"""


def with_tools(run_child: RunChild, code: str) -> str:
    return run(run_child, TOOLS + textwrap.dedent(code))


# --- memory that the kernel writes or watches


def test_where_events_come_is_kept_when_the_operation_is_dropped(run_child: RunChild) -> None:
    has(Op.EPOLL_WAIT)
    with_tools(
        run_child,
        """
        reader, writer = os.pipe()
        count = SIZE // abi.EPOLL_EVENT.nbytes
        with Ring(8) as ring, select.epoll() as epoll:
            epoll.register(reader, select.EPOLLIN)
            for cancelled in (False, True):
                op = ring.epoll_wait(epoll, count)
                ring.submit()
                if cancelled:
                    op.cancel()
                    finish(ring)
                del op
                gc.collect()
                memory = look_alikes(count * abi.EPOLL_EVENT.nbytes)
                os.write(writer, b"x")
                finish(ring)
                assert_untouched(memory)
                os.read(reader, 1)
        os.close(reader), os.close(writer)
        """,
    )


def test_where_a_childs_end_is_told_is_kept(run_child: RunChild) -> None:
    has(Op.WAITID)
    with_tools(
        run_child,
        """
        with Ring(8) as ring:
            for cancelled in (False, True):
                process = child()
                op = ring.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                ring.submit()
                if cancelled:
                    op.cancel()
                    finish(ring)
                    assert op.wait_cqe()[0] == -errno.ECANCELED
                del op
                gc.collect()
                memory = look_alikes(128) * 4
                end(process)
                finish(ring)
                assert_untouched(memory)
        """,
    )


def test_what_a_worker_reads_and_writes_is_kept(run_child: RunChild) -> None:
    with_tools(
        run_child,
        """
        ASYNC = int(abi.SqeFlag.ASYNC)
        name = "/" * 3000 + "dev/null"
        with Ring(32) as ring:
            found = []
            ops = [ring.openat2(name, os.O_RDONLY | os.O_CLOEXEC, sqe_flags=ASYNC) for _ in range(8)]
            for _ in range(8):
                ring.statx(name, sqe_flags=ASYNC)
                ring.statx(name, sqe_flags=ASYNC, callback=lambda op, res, cqe_flags: found.append(op.wait()))
            ring.submit()
            gc.collect()
            memory = look_alikes(3009) + look_alikes(24) + look_alikes(256) * 4
            finish(ring)
            assert_untouched(memory)
            for op in ops:
                os.close(op.wait())
            device = os.stat("/dev/null")
            assert [(each.st_ino, each.st_rdev) for each in found] == [(device.st_ino, device.st_rdev)] * 8
        """,
    )


def test_names_of_a_rename_are_kept(run_child: RunChild) -> None:
    has(Op.RENAMEAT, Op.LINKAT)
    with_tools(
        run_child,
        """
        import tempfile
        with Ring(32) as ring, tempfile.TemporaryDirectory() as folder:
            long = folder + "/" * 3000
            open(folder + "/0", "w").close()
            with ring.link(5):
                for i in range(4):
                    ring.rename(long + str(i), long + str(i + 1), sqe_flags=int(abi.SqeFlag.ASYNC))
                ring.linkat(long + "4", long + "other")
            ring.submit()
            gc.collect()
            memory = look_alikes(len(long) + 2)
            finish(ring)
            assert_untouched(memory)
            assert sorted(os.listdir(folder)) == ["4", "other"]
        """,
    )


def test_a_futex_stays_where_it_is_until_nobody_waits_for_it(run_child: RunChild) -> None:
    has(Op.FUTEX_WAIT)
    with_tools(
        run_child,
        """
        def waits(word):
            yield ring.futex_wait(word, 0)
            yield ring.futex_waitv([(bytearray(4), 0), (word, 0)])
        with Ring(8) as ring:
            for how in (0, 1):
                word = Buffer(4)
                seen = weakref.ref(word)
                op = list(waits(word))[how]
                ring.submit()
                try:
                    word.extend(b"more")
                except BufferError:
                    pass
                else:
                    raise AssertionError("a word that the kernel watches has moved")
                del word
                gc.collect()
                assert seen() is not None
                op.cancel()
                op.cancel()
                assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
                ring.cancel_all()  # the other wait
                finish(ring)
                gc.collect()
                assert seen() is None, "the word was kept for ever"
                word = bytearray(4)
                op = ring.futex_wait(word, 0)
                try:
                    op.wait(1_000_000)
                except TimeoutError:
                    word.extend(b"more")
                else:
                    raise AssertionError
                # Dropped, and nobody wakes it.
                ring.futex_wait(Buffer(4), 0)
                ring.submit()
        """,
    )


def test_a_registered_buffer_is_kept_for_a_dropped_read(run_child: RunChild) -> None:
    has(Op.READV_FIXED)
    with_tools(
        run_child,
        """
        reader, writer = os.pipe()
        with Ring(8) as ring:
            memory = Buffer(SIZE)
            seen = weakref.ref(memory)
            buffers = ring.register_buffers([memory])
            ring.readv_fixed(reader, buffers, 0, [(0, 100), (SIZE // 2, SIZE // 2)])
            ring.submit()
            buffers.unregister()
            del memory, buffers
            gc.collect()
            assert seen() is not None
            others = look_alikes()
            os.write(writer, b"x" * 4096)
            finish(ring)
            assert_untouched(others)
            gc.collect()
            assert seen() is None
        os.close(reader), os.close(writer)
        """,
    )


def test_pages_are_not_unmapped_while_they_are_advised(run_child: RunChild) -> None:
    with_tools(
        run_child,
        """
        with Ring(8) as ring:
            memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory[:] = b"x" * len(memory)
            ring.madvise(memory, mmap.MADV_DONTNEED)
            for change in (memory.close, lambda: memory.resize(1 << 21)):
                try:
                    change()
                except (BufferError, SystemError):
                    pass
                else:
                    raise AssertionError
            finish(ring)
            assert memory[:] == bytes(1 << 20)
            memory.close()
        """,
    )


# --- what completions bring


def test_fds_that_nobody_took_are_closed(run_child: RunChild) -> None:
    with_tools(
        run_child,
        """
        with Ring(16) as ring:
            makes = [lambda **more: ring.openat2("/dev/null", **more)]
            if ring.supports(abi.Op.FIXED_FD_INSTALL):
                files = ring.file_table(1)
                slot = ring.openat_direct("/dev/null", files).wait()
                makes.append(lambda **more: ring.fixed_fd_install(slot, **more))
            if ring.supports(abi.Op.PIPE):
                makes.append(lambda **more: ring.pipe(**more))
            before = open_fds()
            for make in makes:
                make()  # dropped before it completes
                finish(ring)
                op = make()
                finish(ring)
                assert op.done
                del op  # dropped after
                make().cancel()
                finish(ring)
                gc.collect()
                assert open_fds() == before, make
                # Whoever takes them has them.
                taken = []
                make(callback=lambda op, res, cqe_flags: taken.append(op.wait()))
                finish(ring)
                taken.append(make().wait(HANG_NS))
                gc.collect()
                for each in taken:
                    for fd in each if isinstance(each, tuple) else [each]:
                        os.close(fd)
                assert open_fds() == before, make
        """,
    )


def test_a_pipe_whose_callback_does_not_ask_is_closed(run_child: RunChild) -> None:
    has(Op.PIPE)
    with_tools(
        run_child,
        """
        def raises(op, res, cqe_flags):
            raise KeyError
        with Ring(16) as ring:
            before = open_fds()
            ring.pipe(callback=lambda op, res, cqe_flags: None)
            finish(ring)
            ring.pipe(callback=raises)
            try:
                finish(ring)
            except KeyError:
                pass
            gc.collect()
            assert open_fds() == before
            outcome = ring.pipe().wait_cqe()  # which has no fds to give
            assert outcome[0] == 0
            gc.collect()
            assert open_fds() == before
        """,
    )


def test_what_comes_while_a_ring_is_closed_is_closed(run_child: RunChild) -> None:
    with_tools(
        run_child,
        """
        empty = open_fds()
        for how in ("queued", "submitted", "completed"):
            ring = Ring(16)
            files = ring.file_table(4)
            kept = [ring.openat2("/dev/null")]
            if ring.supports(abi.Op.PIPE):
                kept += [ring.pipe(), ring.pipe(callback=print), ring.pipe_direct(files)]
            if how != "queued":
                ring.submit()
            if how == "completed":
                ring.submit_and_wait(len(kept))
            ring.close()
            del kept, files
            gc.collect()
            assert open_fds() == empty, (how, open_fds(), empty)
        """,
    )


def test_slots_that_nobody_took_are_emptied(run_child: RunChild) -> None:
    with Ring(2) as ring:
        needs("5.19", ring)
    with_tools(
        run_child,
        """
        reader, writer = os.pipe()
        with Ring(16) as ring:
            files = ring.file_table(4)
            makes = [
                lambda: ring.openat2_direct("/dev/null", files),
                lambda: ring.files_update([writer, writer], files),
            ]
            if ring.supports(abi.Op.PIPE):
                makes.append(lambda: ring.pipe_direct(files))
            for make in makes:
                for _ in range(5):  # more than the table holds
                    make()
                    finish(ring)
                    op = make()
                    finish(ring)
                    assert op.cqe[1] >= 0, os.strerror(-op.cqe[1])
                    del op
                    ring.nop().wait()
                slots = make().wait()  # taken, so it stays
                gc.collect()
                ring.nop().wait()
                slots = slots if isinstance(slots, list) else [slots]
                for slot in slots:
                    assert ring.statx("/").wait() and ring.close_fd(slot).wait() == 0
            # A slot that was named is its owner's.
            ring.files_update([writer], files, slot=3)
            finish(ring)
            gc.collect()
            assert ring.write(files[3], b"x").wait() == 1
            files[3].close()
            os.close(writer)
            os.read(reader, 1)
            assert os.read(reader, 1) == b"", "a slot still holds the other end"
        os.close(reader)
        """,
    )


def test_files_are_held_until_the_kernel_has_them(run_child: RunChild) -> None:
    with_tools(
        run_child,
        """
        class Owner:
            def __init__(self, fd):
                self.fd = fd
            def fileno(self):
                return self.fd
            def __del__(self):
                os.close(self.fd)
                ended.append(self.fd)
        ended = []
        reader, writer = os.pipe()
        with Ring(8) as ring, select.epoll() as epoll:
            files = ring.file_table(2)
            ring.files_update([Owner(os.dup(reader))], files, slot=0)
            ring.statx(Owner(os.dup(reader)))
            ring.splice(Owner(os.dup(reader)), Owner(os.dup(writer)), 0)
            ring.fadvise(Owner(os.dup(reader)), 0, 0, os.POSIX_FADV_NORMAL)
            ring.epoll_ctl(epoll, system.EPOLL_CTL_ADD, Owner(os.dup(reader)), select.EPOLLIN)
            gc.collect()
            assert not ended
            finish(ring)
            gc.collect()
            assert len(ended) == 6
            os.write(writer, b"x")
            buffer = bytearray(1)
            assert ring.read(files[0], buffer).wait(HANG_NS) == 1 and buffer == b"x"
        os.close(reader), os.close(writer)
        """,
    )


# --- a closed ring


@pytest.mark.parametrize("setup", ["Ring(8)", "Ring(8, abi.Setup.SQPOLL)"])
def test_nothing_is_in_flight_after_close(run_child: RunChild, setup: str) -> None:
    with_tools(
        run_child,
        f"""
        queue = {{
            abi.Op.FUTEX_WAIT: lambda: ring.futex_wait(memory[:4], 0),
            abi.Op.FUTEX_WAITV: lambda: ring.futex_waitv([(memory[4:8], 0), (memory[:4], 0)]),
            abi.Op.EPOLL_WAIT: lambda: ring.epoll_wait(epoll, SIZE // abi.EPOLL_EVENT.nbytes),
            abi.Op.WAITID: lambda: ring.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT),
            abi.Op.READ_MULTISHOT: lambda: ring.read_multishot(reader, ring.buffer_ring(4, 4096)),
            abi.Op.SPLICE: lambda: ring.splice(reader, other_writer, 100),
        }}
        for op, make in queue.items():
            reader, writer = os.pipe()
            other_reader, other_writer = os.pipe()
            process = child()
            owner = Buffer(16)
            seen = weakref.ref(owner)
            memory = memoryview(owner)
            with select.epoll() as epoll:
                epoll.register(reader, select.EPOLLIN)
                ring = {setup}
                if ring.supports(op):
                    make()
                    ring.submit()
                    time.sleep(0.01)
                ring.close()
                assert ring.in_flight == 0
                del memory, owner
                gc.collect()
                assert seen() is None, "a closed ring holds what it needed"
                others = look_alikes() + look_alikes(4096)
                os.write(writer, b"x" * 100)
                end(process)
                assert_untouched(others)
                assert len(os.read(reader, 100)) == 100, "a closed ring took it"
            for fd in (reader, writer, other_reader, other_writer):
                os.close(fd)
        """,
    )


def test_a_collected_ring_leaves_a_futex_alone(run_child: RunChild) -> None:
    has(Op.FUTEX_WAIT)
    with_tools(
        run_child,
        """
        word = bytearray(4)
        ring = Ring(8)
        ring.futex_wait(word, 0)
        ring.submit()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            del ring
            gc.collect()
        assert any(issubclass(each.category, ResourceWarning) for each in told)
        word.extend(b"unlocked")
        """,
    )


# --- interrupts


SCENARIOS = """
import sys
sys.path.insert(0, {tests!r})
import gc, os
from interrupted import Scenario, run
from rawuring import Ring

class MakePipe(Scenario):
    "A pipe: its fds are the program's, or closed with the operation."
    fds = ()
    def __init__(self):
        self.ring = Ring(8)
    def act(self):
        self.fds = self.ring.pipe().wait()
    def go_on(self, interrupt):
        gc.collect()
        for fd in self.fds:
            os.close(fd)
        self.ring.close()
        gc.collect()

class FillSlots(Scenario):
    "Slots that the kernel picks: taken once, or emptied."
    slots = ()
    def __init__(self):
        self.ring = Ring(8)
        self.files = self.ring.file_table(2)
    def act(self):
        self.slots = self.ring.files_update([0, 0], self.files).wait()
    def go_on(self, interrupt):
        gc.collect()
        for slot in self.slots:
            slot.close()
        while self.ring.in_flight:
            self.ring.run_once()
        self.ring.nop().wait()
        assert sorted(slot.slot for slot in self.ring.files_update([0, 0], self.files).wait()) == [0, 1]
        self.ring.close()

class FillPipe(FillSlots):
    "The same of a pipe."
    def act(self):
        self.slots = self.ring.pipe_direct(self.files).wait()

run({scenario})
"""


@pytest.mark.parametrize("scenario", ["MakePipe", "FillSlots", "FillPipe"])
def test_an_interrupt_at_any_line_loses_nothing_that_was_brought(run_child: RunChild, scenario: str) -> None:
    if scenario != "FillSlots":
        has(Op.PIPE)
    with Ring(2) as ring:
        needs("5.19", ring)
    nlines = int(run_child(SCENARIOS.format(tests=str(Path(__file__).parent), scenario=scenario)).stdout)
    assert nlines > 30, "the trace function saw hardly any of our code"
