"""What io_uring lets a program do wrong: the library prevents it, or says so. Those that no other test shows."""

from __future__ import annotations

import errno
import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from support import (
    HANG_NS,
    Pair,
    Pipe,
    address,
    has,
    needs,
    newest,
    pair,
    path,
    pipe,
    results,
    ring,
    room,
    text,
    timespec,
)

from rawuring import Operation, OutOfOrderError, Ring, abi
from rawuring.operations.waiting import timespec as owned_timespec

CqeFlag, Op, SqeFlag = abi.CqeFlag, abi.Op, abi.SqeFlag
MS = 10**6

__all__ = ["pair", "path", "pipe", "ring"]


@pytest.mark.pitfall("stale fields of a request have a meaning")
@pytest.mark.parametrize("ring", ["best", "plain"], indirect=True)  # an SQ thread moves the head after it posts
def test_requests_are_written_over_whatever_lay_there(ring: Ring, pipe: Pipe, path: Path) -> None:
    """The kernel refuses most fields that a request does not use, unless they are 0."""
    reader, writer = pipe
    path.write_bytes(b"0123456789")
    memory, out, short, name = room(4), bytearray(b"data"), timespec(MS), text(str(path))
    found = bytearray(abi.STATX.nbytes)
    sq = ring.sq
    with path.open("rb") as file:
        for turn in range(3):
            ring._memory.sqes[:] = b"\xff" * len(ring._memory.sqes)
            sq.prep_nop(user_data=1)
            sq.prep_read(file.fileno(), address(memory), 4, 2, user_data=2)
            sq.prep_fsync(file.fileno(), 0, user_data=3)
            sq.prep_poll_add(writer, select.POLLOUT, user_data=4)
            sq.prep_timeout(address(short), 0, 0, user_data=5)
            sq.prep_write(writer, address(out), 4, 0, user_data=6)
            sq.prep_statx(-100, address(name), 0, 0x7FF, address(found), user_data=7)
            sq.prep_cancel(99, 0, user_data=8)
            sq.prep_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_NORMAL, user_data=9)
            assert results(ring, 9) == {
                1: 0, 2: 4, 3: 0, 4: select.POLLOUT, 5: -errno.ETIME, 6: 4, 7: 0, 8: -errno.ENOENT, 9: 0
            }  # fmt: skip
            assert memory == b"2345" and os.read(reader, 10) == b"data"
            assert abi.STATX.get(found, "stx_size") == 10


# --- time


@pytest.mark.pitfall("a timeout is two numbers and a place")
@pytest.mark.parametrize("nanoseconds", [0, 1, 999_999_999, 10**9, 3 * 10**9 + 7, (1 << 63) - 1])
def test_any_duration_is_seconds_and_less_than_a_second(nanoseconds: int) -> None:
    """The kernel takes a billion nanoseconds and more without a word."""
    fields = abi.KERNEL_TIMESPEC.unpack(owned_timespec(nanoseconds))
    assert fields["tv_sec"] * 10**9 + fields["tv_nsec"] == nanoseconds
    assert 0 <= fields["tv_nsec"] < 10**9


@pytest.mark.pitfall("a timeout is two numbers and a place")
def test_a_link_timeout_watches_what_was_queued_before_it(ring: Ring, pipe: Pipe) -> None:
    memory = bytearray(4)
    with ring.link(3):
        before = ring.nop()
        read = ring.read(pipe[0], memory, offset=-1)
        timer = ring.link_timeout(MS)
    assert before.wait(HANG_NS) == 0
    # Which of the two comes first is not said.
    assert timer.wait_cqe(HANG_NS)[0] == -errno.ETIME
    assert read.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    os.write(pipe[1], b"data")
    assert os.read(pipe[0], 4) == b"data" and memory == bytes(4)


# --- cancelling


@pytest.mark.pitfall("a cancelled request may complete all the same")
def test_a_cancellation_that_misses_is_repeated(ring: Ring, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may miss a timer between two of its periods."""
    real = Ring.cancel
    missed: list[Operation[Any]] = []

    def cancel(self: Ring, operation: Operation[Any]) -> Operation[Any]:
        if len(missed) < 2:
            missed.append(operation)
            return self.nop()
        return real(self, operation)

    monkeypatch.setattr(Ring, "cancel", cancel)
    polling = ring.poll(pipe[0], select.POLLIN)
    with pytest.raises(TimeoutError, match="was cancelled"):
        polling.wait(MS)
    assert polling.done and missed == [polling, polling]


@pytest.mark.pitfall("a cancelled request may complete all the same")
def test_what_a_worker_was_at_times_out_like_the_rest(ring: Ring, tmp_path: Path) -> None:
    """An openat that is interrupted in a worker ends with an errno that programs never see."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    opening = ring.openat(path, os.O_RDONLY, sqe_flags=SqeFlag.ASYNC)
    with pytest.raises(TimeoutError, match="was cancelled"):
        opening.wait(20 * MS)
    assert opening.done


# --- requests that complete more than once


@pytest.mark.pitfall("a zero-copy send completes twice")
def test_the_data_of_a_zero_copy_send_is_locked_until_the_second_completion(ring: Ring, pair: Pair) -> None:
    has(ring, Op.SEND_ZC)
    data = bytearray(b"not copied")
    sending = ring.send_zc(pair[0], data)
    with pytest.raises(BufferError):
        data.append(0)
    assert sending.wait(HANG_NS) == 10
    if not sending.done:  # the result is there, the memory is not ours yet
        with pytest.raises(BufferError):
            data.append(0)
    sending.wait_released(HANG_NS)
    assert sending.done and pair[1].recv(100) == b"not copied"
    data.append(0)


@pytest.mark.pitfall("a zero-copy send completes twice")
def test_a_zero_copy_send_that_fails_lets_its_data_go(ring: Ring) -> None:
    """Whether a second completion comes or not."""
    has(ring, Op.SEND_ZC)
    data = bytearray(b"not copied")
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        sending = ring.send_zc(one, data)
        with pytest.raises(OSError) as failed:
            sending.wait(HANG_NS)
        assert failed.value.errno == errno.EOPNOTSUPP
        sending.wait_released(HANG_NS)
    data.append(0)


@pytest.mark.pitfall("a multishot request ends by itself", "provided buffers go astray")
def test_a_stream_without_buffers_ends_and_is_taken_up_again(ring: Ring, pair: Pair) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, newest(ring) >= (6, 0))
    one, other = pair
    pool = ring.buffer_ring(2, 8)
    other.sendall(b"0123456789abcdefXYZ")
    stream = ring.recv_multishot(one, pool)
    lent, ended = [], None
    for res, cqe_flags in stream:
        if res > 0:
            lent.append(pool.lend(res, cqe_flags))
        else:
            ended = res, bool(cqe_flags & (CqeFlag.MORE | CqeFlag.BUFFER))
    # It says why, and that it is over; it has no buffer then, and each of the others is lent once.
    assert ended == (-errno.ENOBUFS, False)
    received = b""
    for loan in lent:
        with loan as view:
            received += bytes(view)
        with pytest.raises(ValueError):
            bytes(view)
    assert received == b"0123456789abcdef"
    once_more = stream.again()
    assert once_more.token != stream.token and not once_more.done
    res, cqe_flags = once_more.next(HANG_NS) or (0, 0)
    with pool.lend(res, cqe_flags) as view:
        assert bytes(view) == b"XYZ"
    once_more.cancel()
    while once_more.next(HANG_NS):
        pass
    ring.close_buffer_ring(pool)


@pytest.mark.pitfall("provided buffers go astray")
def test_a_group_has_one_kind_of_buffers_and_its_own_number(ring: Ring) -> None:
    needs("5.19", ring)
    rings = ring.buffer_ring(2, 8)
    legacy = ring.provided_buffers(2, 8)
    assert rings.bgid != legacy.bgid
    for taken in (rings.bgid, legacy.bgid):
        with pytest.raises(OutOfOrderError, match="a group"):
            ring.buffer_ring(2, 8, bgid=taken)
        with pytest.raises(OutOfOrderError, match="a group"):
            ring.provided_buffers(2, 8, bgid=taken)
    ring.close_buffer_ring(rings)
