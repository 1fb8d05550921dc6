"""Owned operations on events of other kinds, on commands and NOPs: each by its effect in the world.

Each runs on a ring with the best set-up, on a plain one, and on one with an SQ thread. How long their memory lives is
in test_owned_lifetimes.
"""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import multiprocessing.sharedctypes
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import HANG_NS, Pipe, block_device, errno_of, has, needs, path, pipe, ring

from rawuring import (
    BufferUseError,
    OutOfOrderError,
    RawuringError,
    Ring,
    RingSetupError,
    SubmissionQueueFullError,
    UnsupportedError,
    abi,
    system,
)

__all__ = ["block_device", "path", "pipe", "ring"]


# --- epoll


@pytest.fixture
def epoll() -> Iterator[select.epoll]:
    with select.epoll() as epoll:
        yield epoll


def test_epoll_ctl(ring: Ring, pipe: Pipe, epoll: select.epoll) -> None:
    reader, writer = pipe
    res, _ = ring.epoll_ctl(epoll, system.EPOLL_CTL_ADD, reader, select.EPOLLIN).wait_cqe()
    if res in (-errno.EOPNOTSUPP, -errno.EINVAL):
        pytest.skip("this kernel was built without epoll in io_uring")
    assert res == 0
    os.write(writer, b"x")
    assert epoll.poll(HANG_NS / 1e9) == [(reader, select.EPOLLIN)], "the same data as select.epoll has"
    assert errno_of(ring.epoll_ctl(epoll, system.EPOLL_CTL_ADD, reader, select.EPOLLIN)) == errno.EEXIST
    assert ring.epoll_ctl(epoll, system.EPOLL_CTL_MOD, reader, select.EPOLLOUT).wait() == 0
    assert epoll.poll(0) == []
    assert ring.epoll_ctl(epoll, system.EPOLL_CTL_DEL, reader).wait() == 0
    assert errno_of(ring.epoll_ctl(epoll, system.EPOLL_CTL_DEL, reader)) == errno.ENOENT
    slot: Any = ring.file_table(1)[0]
    for one, other in ((slot, reader), (epoll, slot)):
        with pytest.raises(BufferUseError, match="slot"):
            ring.epoll_ctl(one, system.EPOLL_CTL_ADD, other)


def test_epoll_wait(ring: Ring, pipe: Pipe, epoll: select.epoll) -> None:
    has(ring, abi.Op.EPOLL_WAIT)
    reader, writer = pipe
    epoll.register(reader, select.EPOLLIN)
    waiting = ring.epoll_wait(epoll)
    ring.submit()
    os.write(writer, b"x")
    (event,) = waiting.wait(HANG_NS)
    assert (event.fd, event.events) == (reader, select.EPOLLIN)
    assert ring.epoll_ctl(epoll, system.EPOLL_CTL_ADD, writer, select.EPOLLOUT, data=(1 << 64) - 5).wait() == 0
    found = ring.epoll_wait(epoll, 2).wait(HANG_NS)
    assert {event.events for event in found} == {select.EPOLLIN, select.EPOLLOUT}
    assert system.EpollEvent((1 << 64) - 5, select.EPOLLOUT) in found
    assert len(ring.epoll_wait(epoll, 1).wait(HANG_NS)) == 1
    with pytest.raises(BufferUseError, match="at least one"):
        ring.epoll_wait(epoll, 0)


# --- processes


def child(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", *words], stdin=subprocess.PIPE)


def test_waitid(ring: Ring) -> None:
    has(ring, abi.Op.WAITID)
    with child("input()\nraise SystemExit(7)") as process:
        assert ring.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG).wait() is None
        waiting = ring.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        ring.submit()
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        found = waiting.wait(HANG_NS)
        assert isinstance(found, os.waitid_result)
        assert (found.si_pid, found.si_uid, found.si_signo) == (process.pid, os.getuid(), signal.SIGCHLD)
        assert (found.si_code, found.si_status) == (os.CLD_EXITED, 7)
        assert process.wait() == 7, "it was left to be waited for"
    assert errno_of(ring.waitid(os.P_PID, process.pid, os.WEXITED)) == errno.ECHILD


def test_waitid_of_a_pidfd_takes_the_status(ring: Ring) -> None:
    has(ring, abi.Op.WAITID)
    with child("input()") as process:
        pidfd = os.pidfd_open(process.pid)
        try:
            waiting = ring.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            ring.submit()
            process.send_signal(signal.SIGKILL)
            found = waiting.wait(HANG_NS)
        finally:
            os.close(pidfd)
        assert found is not None and (found.si_code, found.si_status) == (os.CLD_KILLED, signal.SIGKILL)
        with pytest.raises(ChildProcessError):
            os.waitpid(process.pid, 0)


# --- futexes


@pytest.fixture
def words() -> Iterator[memoryview]:
    """A page of 32-bit words, as bytes. They are 1, 2, 3, 4."""
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) as memory:
        memory[:16] = struct.pack("=4I", 1, 2, 3, 4)
        with memoryview(memory) as view:
            yield view


@pytest.mark.parametrize("futex_flags", [abi.Futex2.PRIVATE, 0])
def test_futex_wait_and_wake(ring: Ring, words: memoryview, futex_flags: int) -> None:
    has(ring, abi.Op.FUTEX_WAIT)
    with words[4:8] as word:
        assert errno_of(ring.futex_wait(word, 99, futex_flags=futex_flags)) == errno.EAGAIN
        first = ring.futex_wait(word, 2, mask=0b01, futex_flags=futex_flags)
        second = ring.futex_wait(word, 2, mask=0b10, futex_flags=futex_flags)
        assert ring.futex_wake(word, 10, mask=0b100, futex_flags=futex_flags).wait() == 0
        assert not first.done and not second.done
        assert ring.futex_wake(word, 10, mask=0b10, futex_flags=futex_flags).wait() == 1
        assert second.wait(HANG_NS) == 0 and not first.done
        assert ring.futex_wake(word, futex_flags=futex_flags).wait() == 1
        assert first.wait(HANG_NS) == 0


def test_futex_waitv(ring: Ring, words: memoryview) -> None:
    has(ring, abi.Op.FUTEX_WAITV)
    parts = [words[at : at + 4] for at in (0, 4, 8)]
    waiting = ring.futex_waitv(zip(parts, (1, 2, 3)))
    ring.submit()
    assert ring.futex_wake(parts[1]).wait() == 1
    assert waiting.wait(HANG_NS) == 1
    assert errno_of(ring.futex_waitv(zip(parts, (1, 2, 99)))) == errno.EAGAIN
    assert errno_of(ring.futex_waitv([])) == errno.EINVAL
    for part in parts:
        part.release()


def test_futexes_of_every_kind_of_memory(ring: Ring) -> None:
    words: list[Any] = [
        bytearray(4), memoryview(bytearray(8))[4:], memoryview(bytearray(4)).cast("I"), array.array("I", [0]),
        multiprocessing.sharedctypes.RawValue("I", 0), (ctypes.c_uint32 * 2).from_buffer(bytearray(12), 4),
    ]  # fmt: skip
    words[-1] = memoryview(words[-1])[1:]
    for word in words:
        waiting = ring.futex_wait(word, 0)
        if ring.supports(abi.Op.FUTEX_WAIT):
            ring.submit()
            assert ring.futex_wake(word).wait() == 1 and waiting.wait(HANG_NS) == 0
        else:
            with pytest.raises(UnsupportedError, match="needs Linux 6.7"):
                waiting.wait()


class Moving(ctypes.Structure):
    """Memory that ctypes.resize would move under what points into it."""

    _fields_ = (("words", ctypes.c_uint32 * 8),)


def test_sync_cancel_of_a_wait_for_a_futex_says_0(ring: Ring, words: memoryview) -> None:
    has(ring, abi.Op.FUTEX_WAIT)
    with words[4:8] as word:
        for cancel_flags, found in ((0, 0), (abi.Cancel.ALL, 1)):
            waiting = ring.futex_wait(word, 2)
            assert ring.sync_cancel(waiting, cancel_flags) == found
            assert errno_of(waiting) == errno.ECANCELED


def test_what_is_no_futex_is_refused(ring: Ring) -> None:
    refused: list[Any] = [bytearray(8), bytearray(2), memoryview(bytearray(8))[1:5], b"read", 7, ctypes.c_uint32(),
                          memoryview(Moving().words)[:1],
                          ctypes.c_uint32.from_buffer(Moving()), ctypes.c_uint32.from_address(id(ring))]  # fmt: skip
    for word in refused:
        with pytest.raises(BufferUseError):
            ring.futex_wait(word, 0)
        with pytest.raises(BufferUseError):
            ring.futex_waitv([(bytearray(4), 0), (word, 0)])
    assert ring.in_flight == 0


# --- commands


def test_a_file_that_takes_no_commands(ring: Ring, path: Path) -> None:
    has(ring, abi.Op.URING_CMD)
    path.write_bytes(b"0123456789")
    buffers = ring.register_buffers([bytearray(8)])
    with path.open("r+b") as file:
        for op in (
            ring.uring_cmd(file, 1), ring.uring_cmd(file, 1, b"sixteen bytes ..", bytearray(8), keep=object()),
            ring.uring_cmd(file, 1, b"", b"read-only"), ring.cmd_discard(file, 0, 10),
            ring.uring_cmd_fixed(file, 1, buffers, 0, start=4), ring.cmd_zone_reset_all(file),
        ):  # fmt: skip
            assert errno_of(op) in (errno.EOPNOTSUPP, errno.EINVAL)
        with pytest.raises(RawuringError, match="does not fit"):
            ring.uring_cmd(file, 1, bytes(17))
        with pytest.raises(BufferUseError, match="not inside"):
            ring.uring_cmd_fixed(file, 1, buffers, 0, start=4, nbytes=5)
    assert path.read_bytes() == b"0123456789"


def test_a_command_that_the_kernel_lacks_names_the_release(ring: Ring, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("w+b") as file:
        ops = {"6.12": ring.cmd_discard(file, 0, 10), "7.3": ring.cmd_zone_reset_all(file)}
        for op in ops.values():
            assert errno_of(op) in (errno.EOPNOTSUPP, errno.EINVAL)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "5.19.0", "", "")))
    for needed, op in ops.items():
        with pytest.raises(UnsupportedError, match=f"needs Linux {needed}"):
            op.wait()


def test_a_driver_takes_a_command(ring: Ring) -> None:
    has(ring, abi.Op.URING_CMD)
    with open("/dev/null", "wb") as null, open("/dev/zero", "rb") as zero:
        res, _ = ring.uring_cmd(null, 7, b"ignored").wait_cqe()
        needs("6.1", res != -errno.EOPNOTSUPP)
        assert res == 0, "it says yes to everything"
        assert errno_of(ring.uring_cmd(zero, 7)) == errno.EOPNOTSUPP
        files = ring.file_table(1)
        files.update(0, [null])
        buffer = bytearray(8)
        op = ring.uring_cmd(files[0], 7, b"", buffer)
        with pytest.raises(BufferError):
            buffer.append(0)
        assert op.wait() == 0
        buffer.append(0)


def test_discard(ring: Ring, path: Path, block_device: int) -> None:
    has(ring, abi.Op.URING_CMD)
    try:
        assert ring.cmd_discard(block_device, 1 << 16, 1 << 17).wait() == 0
    except UnsupportedError as error:
        needs(error.needs, False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("the file system below the loop device cannot punch holes")
    assert path.read_bytes() == b"x" * (1 << 16) + bytes(1 << 17) + b"x" * ((1 << 20) - (1 << 16) - (1 << 17))
    with pytest.raises((UnsupportedError, OSError)):
        ring.cmd_zone_reset_all(block_device).wait()  # it has no zones


# --- NOPs


def test_nop_injects_a_result(ring: Ring) -> None:
    res, _ = ring.nop_flags(abi.Nop.INJECT_RESULT, 42).wait_cqe()
    needs(abi.Nop.INJECT_RESULT.since, res == 42)
    with pytest.raises(BrokenPipeError):
        ring.nop_flags(abi.Nop.INJECT_RESULT, -errno.EPIPE).wait()
    results = []
    ring.nop_flags(abi.Nop.INJECT_RESULT, -5, callback=lambda op, res, cqe_flags: results.append(res))
    ring.run()
    assert results == [-5]


def test_nop_looks_up_what_it_is_given(ring: Ring, pipe: Pipe) -> None:
    files, buffers = ring.file_table(2), ring.register_buffers([bytearray(8)])
    files.update(1, [pipe[0]])
    needs(abi.Nop.FILE.since, ring.nop_flags(0, file=999_999).wait_cqe()[0] == -errno.EBADF)
    assert ring.nop_flags(0, file=pipe[0]).wait() == 0
    assert ring.nop_flags(0, file=files[1]).wait() == 0
    assert ring.nop_flags(0, buffers=buffers).wait() == 0
    assert errno_of(ring.nop_flags(0, file=files[0])) == errno.EBADF
    with pytest.raises(BufferUseError, match="no buffer 1"):
        ring.nop_flags(0, buffers=buffers, index=1)


def wide_ring(setup_flags: abi.Setup, entries: int) -> Ring:
    try:
        return Ring(entries, setup_flags)
    except RingSetupError as error:
        if error.errno != errno.EINVAL:
            raise
        needs(setup_flags.since, False)
        raise


@pytest.mark.parametrize("setup_flags", [abi.Setup.SQE128, abi.Setup.SQE_MIXED], ids=["sqe128", "mixed"])
def test_requests_of_128_bytes(setup_flags: abi.Setup) -> None:
    with wide_ring(setup_flags, 4) as ring, open("/dev/null", "wb") as null:
        has(ring, abi.Op.NOP128)
        # Around the end of the array, and of a full queue.
        ops: list[Any] = []
        for i in range(20):
            ops.append(ring.nop128(abi.Nop.INJECT_RESULT, i))
            ops.append(ring.uring_cmd128(null, 1, bytes(range(80))))
            ops.append(ring.nop())
        assert [op.wait(HANG_NS) for op in ops] == [res for i in range(20) for res in (i, 0, 0)]
        assert ring.in_flight == 0
        with pytest.raises(RawuringError, match="does not fit"):
            ring.uring_cmd128(null, 1, bytes(81))
        assert ring.nop128(file=null).wait() == 0


def test_a_chain_is_not_cut_for_a_request_of_128_bytes() -> None:
    with wide_ring(abi.Setup.SQE_MIXED, 4) as ring:
        with ring.link(4):
            ops = [ring.nop(), ring.nop128(abi.Nop.INJECT_RESULT, 5), ring.nop()]
        assert [op.wait(HANG_NS) for op in ops] == [0, 5, 0]
        with pytest.raises(OutOfOrderError, match="middle of a chain"), ring.link(4):
            for _ in range(3):
                ring.nop128()
        with pytest.raises(SubmissionQueueFullError, match="two slots"), ring.link(4):
            ring.nop()
            ring.nop128()
            ring.nop128()
        assert ring.in_flight == 0 and ring.nop128().wait() == 0


def test_an_ordinary_ring_has_no_room_for_128_bytes(ring: Ring) -> None:
    with pytest.raises(RawuringError, match="SQE_MIXED"):
        ring.nop128()
    assert ring.in_flight == 0 and ring.nop().wait() == 0
