"""Queues that grow and shrink while requests are in flight, are queued, or have completed."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from emulation import EMULATED
from support import HANG_NS, Cqe, Pipe, granted, needs, nops, pipe, prep_nop32, release_of, take, take_one

import rawuring
from rawuring import (
    OutOfOrderError,
    Ring,
    RingClosedError,
    RingSetupError,
    SubmissionQueueFullError,
    UnsupportedError,
    abi,
    syscalls,
)
from rawuring.abi import Register, Setup
from rawuring.errors import RawuringError
from rawuring.sq import RewindingQueue

NEEDED = Setup.DEFER_TASKRUN | Setup.SINGLE_ISSUER | Setup.NO_SQARRAY
WITHOUT_FD = Setup.NO_MMAP | Setup.REGISTERED_FD_ONLY
STEP = 7 if EMULATED else 1
"""From one line to be interrupted to the next."""

__all__ = ["pipe"]


def resizable(flags: Setup = Setup(0), entries: int = 8, **options: int) -> Ring:
    """A ring that can be resized, or a skip where this kernel has none."""
    needed = max((flag.since for flag in Setup if flags & flag), key=release_of, default="0")
    needed = max(needed, Register.RESIZE_RINGS.since, key=release_of)
    try:
        ring = Ring(entries, NEEDED | flags, **options)  # type: ignore[arg-type]
    except RingSetupError as error:
        needs(needed, error.errno != errno.EINVAL)
        raise
    try:
        sizes = ring.entries, ring.cq.entries
        ring.resize(2 * sizes[0], 2 * sizes[1])
        ring.resize(*sizes)
    except BaseException as error:
        ring.close()
        needs(needed, not isinstance(error, UnsupportedError))
        raise
    return ring


FORMS = [
    Setup(0), Setup.SQE128, Setup.CQE32, Setup.CQE_MIXED, Setup.SQE_MIXED, Setup.NO_MMAP, WITHOUT_FD, Setup.SQ_REWIND,
]  # fmt: skip


@pytest.fixture(params=FORMS, ids=lambda flags: flags.name or ("plain" if not flags else "without fd"))
def ring(request: pytest.FixtureRequest) -> Iterator[Ring]:
    with resizable(request.param) as made:
        yield made


def ring_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("[io_uring]")


@pytest.mark.behaviour("resize-rings")
@pytest.mark.pitfall("a resize loses what the queues were")
def test_queues_grow_and_shrink(ring: Ring) -> None:
    prep_nop, mappings = ring.sq.prep_nop, ring_mappings()
    for sq_entries, cq_entries in ((64, None), (3, 9), (2, 2), (512, 4096), (8, 16)):
        ring.resize(sq_entries, cq_entries)
        assert ring.entries == 1 << (sq_entries - 1).bit_length()
        assert ring.cq.entries == (1 << (cq_entries - 1).bit_length() if cq_entries else 2 * ring.entries)
        assert ring_mappings() == mappings
        for turn in range(3):
            for user_data in range(ring.entries):
                prep_nop(user_data=user_data)  # what the caller has bound goes on
            with pytest.raises(SubmissionQueueFullError):
                prep_nop()
            assert take(ring, ring.entries) == [(user_data, 0, 0) for user_data in range(ring.entries)]
        assert ring.sq.dropped == ring.cq.lost == 0


@pytest.mark.behaviour("resize-rings")
def test_the_same_size_again_changes_nothing(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the kernel was asked")

    nops(ring, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "register_call", refuse)
        ring.resize(ring.entries, ring.cq.entries)
        ring.resize(ring.entries - 1)
    assert take(ring, 2) == [(1, 0, 0), (2, 0, 0)]
    nops(ring, *range(ring.entries))
    assert take(ring, ring.entries) == [(number, 0, 0) for number in range(ring.entries)]


@pytest.mark.behaviour("resize-rings")
@pytest.mark.pitfall("a resize loses what the queues were")
def test_what_is_queued_moves_along(ring: Ring) -> None:
    """At every place of the array, and across its end."""
    user_data = 0
    for turn in range(30):
        queued = []
        for _ in range(turn % 6 + 1):
            user_data += 1
            ring.sq.prep_nop(user_data=user_data)
            queued.append((user_data, 0, 0))
        if ring.setup_flags & Setup.SQE_MIXED:
            with pytest.raises(OutOfOrderError, match=r"submit\(\)"):
                ring.resize(32)
        else:
            before = ring.sq.tail
            ring.resize((8, 32, 16)[turn % 3])
            assert (ring.sq.tail, ring.sq.ready, ring.sq.unpublished) == (before, len(queued), len(queued))
            assert ring.sq.space_left == ring.entries - len(queued)
        assert take(ring, len(queued)) == queued


@pytest.mark.behaviour("resize-rings")
@pytest.mark.pitfall("a resize loses what the queues were")
def test_completions_move_along(ring: Ring) -> None:
    large = ring.setup_flags & (Setup.CQE32 | Setup.CQE_MIXED)
    for turn in range(20):
        nops(ring, *range(turn, turn + 5))
        ring.submit_and_wait(5)
        if large:
            with pytest.raises(OutOfOrderError, match="take completions"):
                ring.resize(16)
        else:
            ring.resize((16, 8)[turn % 2])
            assert ring.cq.ready == 5
        assert ring.completions() == [(user_data, 0, 0) for user_data in range(turn, turn + 5)]


@pytest.mark.behaviour("resize-rings")
def test_requests_in_flight_go_on(ring: Ring, pipe: Pipe) -> None:
    for sq_entries in (64, 8):
        for user_data in range(1, 6):
            ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=user_data)
        ring.submit()
        ring.resize(sq_entries)
        os.write(pipe[1], b"x")
        assert sorted(take(ring, 5)) == [(user_data, select.POLLIN, 0) for user_data in range(1, 6)]
        os.read(pipe[0], 1)


def test_owned_operations_go_on(ring: Ring, pipe: Pipe) -> None:
    buffer = bytearray(8)
    read = ring.read(pipe[0], buffer, offset=-1)
    done = ring.nop()
    ring.submit()
    if ring.setup_flags & (Setup.CQE32 | Setup.CQE_MIXED):
        done.wait(HANG_NS)
    write = None if ring.setup_flags & Setup.SQE_MIXED else ring.write(pipe[1], b"resized!", offset=-1)
    ring.resize(64)
    if write is None:
        write = ring.write(pipe[1], b"resized!", offset=-1)
    assert [operation.wait(HANG_NS) for operation in (read, write, done)] == [8, 8, 0]
    assert buffer == b"resized!"


def test_32_byte_cqes_after_a_resize() -> None:
    with resizable(Setup.CQE_MIXED) as ring:
        ring.resize(16)
        for turn in range(20):
            prep_nop32(ring, 1, (turn, 7))
            nops(ring, 2)
            ring.submit_and_wait(2)
            assert ring.cq.drain32() == [(1, 0, int(abi.CqeFlag.F_32), turn, 7), (2, 0, 0, 0, 0)]


@pytest.mark.behaviour("resize-rings")
def test_what_does_not_fit_changes_nothing() -> None:
    with resizable() as ring:
        nops(ring, 1, 2, 3, 4)
        with pytest.raises(OutOfOrderError, match=r"4 entries.*submit\(\)"):
            ring.resize(2)
        assert (ring.entries, ring.sq.ready) == (8, 4)
        ring.submit()
        with pytest.raises(OutOfOrderError, match=r"4 completions.*completions\(\)"):
            ring.resize(2, 2)
        assert (ring.entries, ring.cq.entries, ring.cq.ready) == (8, 16, 4)
        nops(ring, 5)
        with pytest.raises(OutOfOrderError):
            ring.resize(2, 2)
        assert take(ring, 5) == [(user_data, 0, 0) for user_data in range(1, 6)]
        ring.resize(2, 2)
        nops(ring, 6, 7)
        assert take(ring, 2) == [(6, 0, 0), (7, 0, 0)]


def test_overflowed_completions_survive() -> None:
    with resizable(entries=4, cq_entries=4) as ring:
        for user_data in range(12):
            nops(ring, user_data)
            ring.submit()
        assert ring.cq.overflowed
        ring.resize(16)
        found: list[Cqe] = []
        while len(found) < 12:
            ring.submit_and_wait(1, HANG_NS)
            batch = ring.completions()
            assert batch
            found += batch
        assert sorted(found) == [(user_data, 0, 0) for user_data in range(12)]
        assert ring.cq.lost == 0


@pytest.mark.parametrize(
    ("sq_entries", "cq_entries"),
    [(0, None), (-1, None), (abi.MAX_ENTRIES + 1, None), (8, 4), (8, 0), (8, abi.MAX_CQ_ENTRIES + 1)],
)
def test_impossible_sizes_are_named(sq_entries: int, cq_entries: int | None) -> None:
    with granted(NEEDED) as ring:
        with pytest.raises(RawuringError, match="sq_entries|cq_entries|CQ"):
            ring.resize(sq_entries, cq_entries)
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)


def test_clamp_goes_for_a_resize_too() -> None:
    with resizable(Setup.CLAMP) as ring:
        ring.resize(1 << 20, 1 << 20)
        assert (ring.entries, ring.cq.entries) == (abi.MAX_ENTRIES, abi.MAX_CQ_ENTRIES)
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)


@pytest.mark.pitfall("a resize loses what the queues were")
@pytest.mark.parametrize(("wanted_flags", "name"), [(0, "DEFER_TASKRUN"), (NEEDED & ~Setup.NO_SQARRAY, "NO_SQARRAY")])
def test_rings_that_cannot_be_resized_say_so(wanted_flags: int, name: str) -> None:
    with Ring(8, wanted_flags=int(wanted_flags)) as ring:
        needs("6.1", bool(ring.setup_flags & Setup.DEFER_TASKRUN) or not wanted_flags)
        with pytest.raises(RawuringError, match=name):
            ring.resize(16)


def test_not_inside_a_chain_and_not_when_closed() -> None:
    with resizable() as ring:
        with ring.link(2):
            ring.nop()
            with pytest.raises(OutOfOrderError, match="link block"):
                ring.resize(16)
            last = ring.nop()
        assert last.wait(HANG_NS) == 0
    with pytest.raises(RingClosedError):
        ring.resize(16)


# --- when memory cannot be had


@pytest.mark.behaviour("resize-mmap-fail")
def test_without_room_for_the_mappings_nothing_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    with resizable() as ring:
        nops(ring, 1, 2)
        ring.submit_and_wait(2)
        nops(ring, 3)
        mappings = ring_mappings()

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOMEM, "no address space is left")

        monkeypatch.setattr(syscalls, "mmap", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="address space"):
                ring.resize(64)
        monkeypatch.undo()
        assert (ring.entries, ring.sq.ready, ring.cq.ready, ring_mappings()) == (8, 1, 2, mappings)
        assert take(ring, 3) == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
        ring.resize(64)
        nops(ring, 4)
        assert take_one(ring, 4) == (0, 0)


def test_a_ring_whose_new_queues_cannot_be_mapped_is_closed(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    """Nobody else may take the reserved address space in between, but if somebody does, the ring has no queues."""
    fds, mappings = os.listdir("/proc/self/fd"), ring_mappings()
    ring = resizable()
    fd = ring.fileno()
    real = syscalls.mmap

    def refuse(addr: int | None, nbytes: int, prot: int, mmap_flags: int, fd: int, offset: int) -> int:
        if fd >= 0:
            raise OSError(errno.ENOMEM, "no address space is left")
        return real(addr, nbytes, prot, mmap_flags, fd, offset)

    done = ring.nop()
    ring.submit()
    monkeypatch.setattr(syscalls, "mmap", refuse)
    with pytest.raises(OSError, match="address space"):
        ring.resize(64)
    monkeypatch.undo()
    assert ring.closed and done.wait() == 0
    with pytest.raises(OSError):
        os.fstat(fd)
    with pytest.raises(RingClosedError):
        ring.submit()
    ring.close()
    assert (os.listdir("/proc/self/fd"), ring_mappings()) == (fds, mappings)


def test_a_ring_that_is_closed_with_requests_in_flight_keeps_their_memory(
    monkeypatch: pytest.MonkeyPatch, pipe: Pipe
) -> None:
    ring = resizable()
    buffer = bytearray(8)
    read = ring.read(pipe[0], buffer, offset=-1)
    ring.submit()
    real = syscalls.mmap

    def refuse(addr: int | None, nbytes: int, prot: int, mmap_flags: int, fd: int, offset: int) -> int:
        if fd >= 0:
            raise OSError(errno.ENOMEM, "no address space is left")
        return real(addr, nbytes, prot, mmap_flags, fd, offset)

    monkeypatch.setattr(syscalls, "mmap", refuse)
    with pytest.raises(OSError, match="address space"):
        ring.resize(64)
    assert ring.closed
    assert read.cqe is None
    # The kernel has let go of it: what comes now is not written to the buffer.
    os.write(pipe[1], b"too late")
    assert os.read(pipe[0], 8) == b"too late"
    assert buffer == bytes(8)


# --- interrupts


PACKAGE = str(Path(rawuring.__file__).parent) + os.sep


class Interrupt:
    """Raises KeyboardInterrupt before the n-th line of ours that is run, as Ctrl-C may."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __enter__(self) -> Interrupt:
        sys.settrace(self.called)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.settrace(None)
        return kind is KeyboardInterrupt

    def called(self, frame: FrameType, event: str, arg: object) -> Any:
        return self.line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.line


@pytest.mark.parametrize("flags", [Setup(0), Setup.NO_MMAP], ids=["mapped", "our memory"])
def test_an_interrupt_at_any_line_leaves_a_ring_of_either_size(flags: Setup, pipe: Pipe) -> None:
    resizable(flags).close()
    sizes = set()
    for n in range(1, 10_000, STEP):
        with Ring(4, flags) as ring:
            nops(ring, 1, 2)
            ring.submit()
            ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=3)
            ring.submit()
            nops(ring, 4)
            with Interrupt(n) as interrupt:
                ring.resize(16)
            sizes.add((ring.entries, ring.cq.entries))
            nops(ring, 5)
            os.write(pipe[1], b"x")
            assert sorted(take(ring, 5)) == [(1, 0, 0), (2, 0, 0), (3, select.POLLIN, 0), (4, 0, 0), (5, 0, 0)], n
            os.read(pipe[0], 1)
            assert ring.nop().wait(HANG_NS) == 0
            if interrupt.left > 0:
                break
    assert sizes == {(4, 8), (16, 32)}
    assert n > 50


def test_an_interrupt_at_any_line_submits_nothing_twice_on_a_rewinding_ring() -> None:
    granted(Setup.SQ_REWIND).close()
    for n in range(1, 10_000, STEP):
        with Ring(8, Setup.SQ_REWIND) as ring:
            assert isinstance(ring.sq, RewindingQueue)
            nops(ring, 1, 2)
            ring.sq._encode(255, -1, 0, 0, 0, 0, 3, 0)
            nops(ring, 4)
            with Interrupt(n) as interrupt:
                ring.submit_and_wait(4)
            nops(ring, 5)
            ring.submit_and_wait(5)
            assert ring.completions() == [(1, 0, 0), (2, 0, 0), (3, -errno.EINVAL, 0), (4, 0, 0), (5, 0, 0)], n
            if interrupt.left > 0:
                break
    assert n > 20


def test_the_release_of_resizing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with granted(NEEDED) as ring:
        monkeypatch.setattr(syscalls, "register_call", lambda *_: -1)
        monkeypatch.setattr(syscalls, "last_errno", lambda: errno.EINVAL)
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.12.1", "", "x86_64")))
        with pytest.raises(UnsupportedError) as caught:
            ring.resize(16)
        assert caught.value.needs == Register.RESIZE_RINGS.since
        monkeypatch.undo()
        nops(ring, 1)
        assert take_one(ring, 1) == (0, 0)
