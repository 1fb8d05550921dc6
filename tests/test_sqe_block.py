"""Blocks of SQEs: what `prep_*` and columns write into them, and what `put_block` makes of a queue.

The queues are on plain memory with a fake kernel, but for the last part, which runs on this kernel.
"""

from __future__ import annotations

import errno
import os
import random
import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from emulation import fewer
from interrupted import Interrupt
from support import HANG_NS, Pipe, address, granted, path, pipe, results, ring, room, take
from test_prep import EVERY_CASE, options_of
from test_queues import CANARY, CLOSED, SQ_OFFSETS, START, FakeKernel, Recorder, recorder

from rawuring import (
    RawuringError,
    Ring,
    RingClosedError,
    SqeBlock,
    SqeBlockFullError,
    SubmissionQueueFullError,
    abi,
)
from rawuring.sq import RewindingQueue, SubmissionQueue
from tools.sqe_cases import WIDE, Case

portable = pytest.mark.portable

Op, Setup, SqeFlag = abi.Op, abi.Setup, abi.SqeFlag
SQE = abi.IO_URING_SQE
NUMBERS = {name: field for name, field in SQE.fields.items() if field.signed is not None}
IO_LINK = int(SqeFlag.IO_LINK)

__all__ = ["path", "pipe", "recorder", "ring"]


def block_of(*user_data: int, entries: int = 0, sqe_nbytes: int = 64) -> SqeBlock:
    block = SqeBlock(entries or len(user_data), sqe_nbytes)
    for one in user_data:
        block.prep_nop(user_data=one)
    return block


def queue(
    entries: int = 8, setup_flags: int = 0, start: int = START, sqpoll: bool = False
) -> tuple[FakeKernel, SubmissionQueue]:
    if setup_flags & Setup.SQ_REWIND:
        kernel = FakeKernel(entries, setup_flags=Setup.NO_SQARRAY | setup_flags, start=0)
        return kernel, RewindingQueue(kernel.memory(), mixed=bool(setup_flags & Setup.SQE_MIXED))
    kernel = FakeKernel(entries, setup_flags=Setup.NO_SQARRAY | setup_flags, start=start)
    return kernel, SubmissionQueue(kernel.memory(), sqpoll=sqpoll, mixed=bool(setup_flags & Setup.SQE_MIXED))


# --- what is in a block


@portable
@pytest.mark.parametrize("sqe_nbytes", [64, 128])
@EVERY_CASE
def test_a_block_queues_the_bytes_that_encoders_write(case: Case, sqe_nbytes: int) -> None:
    if case.fields["opcode"] in WIDE and sqe_nbytes == 64:
        with pytest.raises(RawuringError, match="holds no request of 128 bytes"):
            getattr(SqeBlock(3), case.name)(*case.args)
        return
    setup_flags = Setup.SQE128 if sqe_nbytes == 128 else 0
    (one, direct), (other, by_block) = queue(4, setup_flags), queue(4, setup_flags)
    block = SqeBlock(3, sqe_nbytes)
    one.sqes[:] = bytes(len(one.sqes))  # encoders of 64 bytes leave the second half of a slot as it is
    other.sqes[:] = bytes(len(other.sqes))
    keywords = {name: value for name, (_, value) in options_of(case).items()}
    for encoder in (direct, block):
        getattr(encoder, case.name)(*case.args, **keywords)
        encoder.prep_close(5, user_data=2)
        getattr(encoder, case.name)(*case.args, **{**keywords, "user_data": 3, "sqe_flags": IO_LINK})
    by_block.put_block(block)
    assert other.sqes == one.sqes and any(other.sqes)
    assert by_block.tail == direct.tail == START + 3


@portable
def test_a_full_block_says_what_to_do() -> None:
    block = SqeBlock(2)
    assert (block.entries, block.tail, block.space_left) == (2, 0, 2)
    block.prep_nop(user_data=1)
    assert (block.tail, block.space_left) == (1, 1)
    block.prep_nop(user_data=2)
    preps: list[Callable[[], None]] = [
        block.prep_nop, lambda: block.prep_fsync(0, 0), lambda: block.prep_recv(0, 0, 0, 0)
    ]  # fmt: skip
    for prep in preps:
        with pytest.raises(SqeBlockFullError, match=r"2 SQEs.*larger.*clear\(\)"):
            prep()
    assert block.column("user_data").tolist() == [1, 2]
    user_data = block.column("user_data")
    block.clear()
    assert (block.tail, block.space_left) == (0, 2)
    block.prep_nop(user_data=3)
    assert user_data.tolist() == [3, 2]
    _, sq = queue()
    sq.put_block(block)
    assert (sq.unpublished, sq.last_user_data()) == (1, 3)


@portable
def test_a_value_that_does_not_fit_leaves_the_block_as_it_was() -> None:
    block = block_of(1, entries=2)
    with pytest.raises(struct.error):
        block.prep_nop(user_data=1 << 64)
    assert block.tail == 1


@portable
@pytest.mark.parametrize(("entries", "sqe_nbytes"), [(0, 64), (-1, 64), (1, 32), (1, 0), (1, 256)])
def test_sizes_that_no_block_has(entries: int, sqe_nbytes: int) -> None:
    with pytest.raises(RawuringError, match="one SQE or more" if entries < 1 else r"Setup\.SQE128"):
        SqeBlock(entries, sqe_nbytes)


@portable
def test_a_block_refuses_wide_requests() -> None:
    block = SqeBlock(2)
    preps: list[Callable[[], None]] = [block.prep_nop128, lambda: block.prep_uring_cmd128(0, 0)]
    for prep in preps:
        with pytest.raises(RawuringError, match=r"Setup\.SQE_MIXED .*Setup\.SQE128"):
            prep()
    assert block.tail == 0


# --- columns


@portable
@pytest.mark.parametrize("sqe_nbytes", [64, 128])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_is_the_field_of_the_table(name: str, sqe_nbytes: int) -> None:
    """On a machine of either byte order: what the layout reads and writes there is what the column has."""
    field = NUMBERS[name]
    bits = 8 * field.nbytes
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if field.signed else (0, (1 << bits) - 1)
    values = [least, most, 0x0102_0304_0506_0708 & most]
    kernel, sq = queue(4, Setup.SQE128 if sqe_nbytes == 128 else 0, start=0)
    block = block_of(7, 7, 7, sqe_nbytes=sqe_nbytes)
    column = block.column(name)
    assert (len(column), column.itemsize, column.readonly) == (3, field.nbytes, False)
    for index, value in enumerate(values):
        column[index] = value
        assert column[index] == value
    for value in (least - 1, most + 1):
        with pytest.raises(ValueError):
            column[0] = value
    sq.put_block(block)
    plain = SQE.pack(opcode=Op.NOP, fd=-1, user_data=7)
    for index, value in enumerate(values):
        expected = bytearray(plain)
        SQE.put(expected, name, value)
        assert kernel.sqes[index * sqe_nbytes :][:64] == expected
    assert column.tolist() == [SQE.get(kernel.sqes, name, index * sqe_nbytes) for index in range(3)]


@portable
def test_a_column_takes_arrays_and_slices() -> None:
    block = block_of(*range(6))
    user_data, off, fd, length = map(block.column, ("user_data", "off", "fd", "len"))
    off[:4] = array("Q", range(4096, 8192, 1024))
    assert off.tolist() == [4096, 5120, 6144, 7168, 0, 0]
    off[4:] = user_data[:2]
    fd[1::2] = array("i", [-1, 5, 6])
    length[:] = array("I", [9]) * 6
    assert (off.tolist(), fd.tolist()) == ([4096, 5120, 6144, 7168, 0, 1], [-1, -1, -1, 5, -1, 6])
    assert (length.tolist(), user_data.tolist()) == ([9] * 6, list(range(6)))
    for wrong in (array("i", range(6)), array("Q", range(5))):
        with pytest.raises(ValueError):
            user_data[:] = wrong
    assert user_data.tolist() == list(range(6))


@portable
@pytest.mark.parametrize("name", ["cmd", "offset", "", "sqe_flags"])
def test_a_column_that_there_is_not(name: str) -> None:
    with pytest.raises(RawuringError, match=f"no number {name!r}"):
        SqeBlock(1).column(name)


# --- into the queue


@portable
@pytest.mark.parametrize("setup_flags", [0, Setup.SQE128])
@pytest.mark.parametrize("start", [0, 3, START])
@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("queued", range(9))
def test_a_block_goes_over_the_end_of_the_array(queued: int, count: int, start: int, setup_flags: int) -> None:
    """With so many before it that the kernel has consumed: the block starts at any slot."""
    sqe_nbytes = 128 if setup_flags else 64
    kernel, sq = queue(8, setup_flags, start)
    for user_data in range(queued):
        sq.prep_nop(user_data=user_data)
    sq.flush()
    kernel.consume()
    block = block_of(*range(100, 100 + count), sqe_nbytes=sqe_nbytes)
    sq.put_block(block)
    assert (sq.tail, sq.unpublished, sq.ready, sq.space_left) == (start + queued + count, count, count, 8 - count)
    assert kernel.visible() == 0
    for user_data in range(100 + count, 108):
        sq.prep_nop(user_data=user_data)  # up to the last free slot, and no further
    with pytest.raises(SubmissionQueueFullError):
        sq.prep_nop()
    assert sq.flush() == 8
    assert kernel.consume_user_data() == list(range(100, 108))
    assert kernel.sqes[8 * sqe_nbytes :] == bytes([CANARY]) * 64


@portable
@pytest.mark.parametrize("setup_flags", [0, Setup.SQ_REWIND])
@pytest.mark.parametrize("queued", range(9))
def test_a_block_that_has_no_room_is_not_queued_in_part(queued: int, setup_flags: int) -> None:
    kernel, sq = queue(8, setup_flags)
    for user_data in range(queued):
        sq.prep_nop(user_data=user_data)
    before, tail = bytes(kernel.sqes), sq.tail
    block = block_of(*range(100, 109 - queued))
    for _ in range(2):
        with pytest.raises(SubmissionQueueFullError, match=rf"8 entries.*room for {9 - queued} SQEs.*submit\(\)"):
            sq.put_block(block)
        assert (bytes(kernel.sqes), sq.tail, sq.space_left) == (before, tail, 8 - queued)
    sq.put_block(block, 0, 8 - queued)  # which fills it
    assert (sq.ready, sq.space_left) == (8, 0)
    with pytest.raises(SubmissionQueueFullError):
        sq.put_block(block, 0, 1)
    assert SQE.get(kernel.sqes, "user_data", sq._last()) == (107 - queued if queued < 8 else 7)


@portable
def test_a_part_of_a_block() -> None:
    kernel, sq = queue()
    block = block_of(10, 11, 12, 13, entries=6)
    sq.put_block(block, 2)
    sq.put_block(block, 1, 2)
    sq.put_block(block, 3, 1)
    sq.put_block(block, 4)
    sq.put_block(block, 1, 0)
    sq.put_block(SqeBlock(1))
    sq.flush()
    assert kernel.consume_user_data() == [12, 13, 11, 12, 13]
    for start, count in [(0, 5), (4, 1), (5, None), (-1, 1), (-1, None), (2, -1), (-2, 2)]:
        with pytest.raises(RawuringError, match="the block has 4 SQEs that are written, and not"):
            sq.put_block(block, start, count)
    assert sq.unpublished == 0


@portable
@pytest.mark.parametrize("sqe_nbytes", [64, 128])
def test_a_block_of_another_size_is_refused(sqe_nbytes: int) -> None:
    kernel, sq = queue(8, 0 if sqe_nbytes == 128 else Setup.SQE128)
    block = block_of(1, 2, sqe_nbytes=sqe_nbytes)
    for arguments in ((), (0, 0), (1, 1)):
        with pytest.raises(RawuringError, match=rf"{sqe_nbytes}-byte SQEs .*SqeBlock\(entries, {192 - sqe_nbytes}\)"):
            sq.put_block(block, *arguments)
    assert sq.unpublished == 0


@portable
def test_the_block_is_free_for_other_use_at_once() -> None:
    kernel, sq = queue()
    block = block_of(1, 2)
    user_data = block.column("user_data")
    sq.put_block(block)
    user_data[:] = array("Q", [3, 4])
    sq.put_block(block)
    user_data[:] = array("Q", [5, 6])
    block.clear()
    sq.flush()
    assert kernel.consume_user_data() == [1, 2, 3, 4]


@portable
@pytest.mark.parametrize("setup_flags", [0, Setup.SQE_MIXED, Setup.SQ_REWIND, Setup.SQ_REWIND | Setup.SQE_MIXED])
@pytest.mark.parametrize("queued", [0, 6, 7])
def test_what_is_asked_of_the_last_sqe(queued: int, setup_flags: int) -> None:
    """Also where it lies beyond the end of the array. The block itself stays as it is."""
    kernel, sq = queue(8, setup_flags, start=0)
    for user_data in range(queued):
        sq.prep_nop(user_data=user_data)
    if isinstance(sq, RewindingQueue):
        sq.answers.append(sq.flush())
        sq.look()
    else:
        sq.flush()
        kernel.consume()
    block = block_of(10, 11, 12)
    block.column("flags")[:] = array("B", [IO_LINK | SqeFlag.ASYNC] * 3)
    sq.put_block(block)
    assert sq.ends_linked()
    assert (sq.last_user_data(), sq.last_opcode()) == (12, Op.NOP)
    assert all(map(sq.holds, (10, 11, 12))) and not sq.holds(13)
    sq.unlink_last()
    assert not sq.ends_linked()
    sq.discard_last()
    assert sq.last_user_data() == 11 and sq.ends_linked()
    sq.prep_nop(user_data=13)
    assert not sq.ends_linked()
    assert sq.flush() == 3
    assert not sq.ends_linked()
    if not isinstance(sq, RewindingQueue):
        sqes = kernel.consume()
        assert [(SQE.get(sqe, "user_data"), SQE.get(sqe, "flags")) for sqe in sqes] == [
            (10, IO_LINK | SqeFlag.ASYNC), (11, IO_LINK | SqeFlag.ASYNC), (13, 0)
        ]  # fmt: skip
    assert block.column("flags").tolist() == [IO_LINK | SqeFlag.ASYNC] * 3


@portable
@pytest.mark.parametrize("count", [1, 2])
def test_a_chain_goes_on_through_the_filler_behind_a_block(count: int) -> None:
    kernel, sq = queue(8, Setup.SQE_MIXED, start=7 - count)
    sq.prep_nop128(user_data=1)
    sq.discard_last()
    block = block_of(*range(count))
    block.column("flags")[-1] = IO_LINK
    sq.put_block(block)
    sq.prep_nop128(user_data=1)
    assert kernel.sqes[7 * 64 + 1] == SqeFlag.CQE_SKIP_SUCCESS | IO_LINK


@portable
@pytest.mark.parametrize("queued", [0, 1, 8])
@pytest.mark.parametrize("setup_flags", [0, Setup.SQ_REWIND])
def test_a_closed_queue_says_why(setup_flags: int, queued: int) -> None:
    kernel = FakeKernel(8, setup_flags=Setup.NO_SQARRAY | setup_flags)
    memory = kernel.memory()
    sq = RewindingQueue(memory) if setup_flags else SubmissionQueue(memory)
    block = block_of(1)
    for _ in range(queued):
        sq.put_block(block)
    sq.close(CLOSED)
    memory.release()
    for put in (block, SqeBlock(1), block_of(1, sqe_nbytes=128)):
        with pytest.raises(RingClosedError, match="closed"):
            sq.put_block(put)
    with pytest.raises(RingClosedError, match="closed"):
        sq.put_block(block, 0, 9)


@portable
@pytest.mark.parametrize(("setup_flags", "start", "sqpoll"), [
    (0, 0, False), (0, START, False), (0, START, True), (Setup.SQE128, START, False), (Setup.SQE_MIXED, START, False),
    (Setup.SQ_REWIND, 0, False),
])  # fmt: skip
def test_any_mix_of_uses_passes_every_sqe_once(setup_flags: int, start: int, sqpoll: bool) -> None:
    rng = random.Random(start + setup_flags + sqpoll)
    kernel, sq = queue(8, setup_flags, start, sqpoll)
    block = block_of(*range(8), sqe_nbytes=kernel.sqe_nbytes)
    numbers = block.column("user_data")
    waiting: list[int] = []  # written, not published
    published: list[int] = []  # and not consumed
    user_data = passed = 0
    for _ in range(4000):
        match rng.randrange(5):
            case 0:
                if isinstance(sq, RewindingQueue):
                    sq.look()  # as each enter does first
                sq.flush()
                published += waiting
                waiting = []
                consumed = rng.randrange(len(published) + 1)
                if isinstance(sq, RewindingQueue):
                    found = [SQE.get(kernel.sqes, "user_data", slot * 64) for slot in range(consumed)]
                    sq.answers.append(consumed)
                else:
                    found = kernel.consume_user_data(consumed)
                assert found == published[:consumed]
                del published[:consumed]
                passed += consumed
            case 1 if waiting:
                assert sq.last_user_data() == waiting.pop()
                sq.discard_last()
            case 2 if len(waiting) + len(published) < 8:
                sq.prep_nop(user_data=user_data)
                waiting.append(user_data)
                user_data += 1
            case _:
                first = rng.randrange(8)
                count = rng.randrange(1, 9 - first)
                new = range(user_data, user_data + count)
                numbers[first : first + count] = array("Q", new)
                tail = sq.tail
                if count <= 8 - len(waiting) - len(published):
                    sq.put_block(block, first, count)
                    waiting += new
                    user_data += count
                    assert sq.tail == tail + count
                else:
                    with pytest.raises(SubmissionQueueFullError):
                        sq.put_block(block, first, count)
                    assert sq.tail == tail
        assert sq.unpublished == len(waiting)
    assert passed > 1000
    assert kernel.sqes[8 * kernel.sqe_nbytes :] == bytes([CANARY]) * 64


@portable
def test_nothing_is_published_and_no_word_written(recorder: Recorder) -> None:
    kernel, sq = queue(4, sqpoll=True)
    block = block_of(1, 2, 3)
    sq.put_block(block)
    sq.flush()
    kernel.consume(2)
    recorder.take()
    tail = kernel.get(SQ_OFFSETS["tail"])
    sq.put_block(block, 0, 2)  # over the end of the array, into slots that the SQ thread has read
    assert recorder.take() == [("sq_head", "load_acquire")]
    sq.put_block(block, 0, 1)
    assert recorder.take() == []
    assert kernel.get(SQ_OFFSETS["tail"]) == tail


QUEUES: dict[str, Callable[[], tuple[FakeKernel, SubmissionQueue]]] = {
    "in one run": lambda: queue(start=0),
    "over the end": lambda: queue(start=6),
    "mixed": lambda: queue(8, Setup.SQE_MIXED, start=6),
    "SQ thread": lambda: queue(start=6, sqpoll=True),
    "rewinding": lambda: queue(8, Setup.SQ_REWIND),
}


@portable
@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
def test_interrupted_at_every_line(make: Callable[[], tuple[FakeKernel, SubmissionQueue]]) -> None:
    """All of the block is queued or nothing of it, and what `holds` finds is queued."""
    outcomes = set()
    n = 0
    while True:
        n += 1
        kernel, sq = make()
        for user_data in range(1, 6):  # those whose slots are free, and one that is waiting
            sq.prep_nop(user_data=user_data)
            if user_data == 4:
                if isinstance(sq, RewindingQueue):
                    sq.answers.append(sq.flush())
                else:
                    sq.flush()
                    kernel.consume()
        before = sq.tail
        block = block_of(11, 12, 13, 14, 15)
        with Interrupt(n) as interrupt:
            sq.put_block(block)
        assert sq.tail in (before, before + 5)
        queued = sq.tail > before
        outcomes.add(queued)
        assert {sq.holds(user_data) for user_data in range(11, 16)} == {queued}
        if not queued:
            sq.put_block(block)
        sq.prep_nop(user_data=16)
        assert (sq.ready, sq.space_left) == (7, 1)
        assert sq.flush() == 7
        expected = [5, 11, 12, 13, 14, 15, 16]
        if isinstance(sq, RewindingQueue):
            assert [SQE.get(kernel.sqes, "user_data", slot * 64) for slot in range(7)] == expected
        else:
            assert kernel.consume_user_data() == expected
        if not interrupt.fired:
            break
    assert n > 5 and outcomes == {False, True}


# --- on this kernel


def test_numbered_nops(ring: Ring) -> None:
    """A block again and again, of which the user_data alone is written anew, at every place of the queue."""
    block = block_of(*range(7))
    numbers = block.column("user_data")
    first = 1
    for turn in range(fewer(300)):
        count = turn % 7 + 1
        numbers[:count] = array("Q", range(first, first + count))
        ring.sq.put_block(block, 0, count)
        assert take(ring, count) == [(user_data, 0, 0) for user_data in range(first, first + count)]
        first += count


@pytest.mark.parametrize(
    "setup_flags", [Setup.SQE128, Setup.SQE_MIXED, Setup.SQ_REWIND, Setup.SQ_REWIND | Setup.SQE_MIXED], ids=str
)
def test_rings_of_other_kinds(setup_flags: abi.Setup) -> None:
    with granted(setup_flags) as ring:
        block = block_of(1, 2, 3, 4, 5, sqe_nbytes=128 if setup_flags & Setup.SQE128 else 64)
        for turn in range(20):
            wide = bool(setup_flags & Setup.SQE_MIXED) and turn % 2
            if wide:
                ring.sq.prep_nop128(user_data=6)
                assert take(ring) == [(6, 0, 0)]
            ring.sq.put_block(block)
            ring.sq.prep_nop(user_data=7)
            assert take(ring, 6) == [(user_data, 0, 0) for user_data in (1, 2, 3, 4, 5, 7)]


def test_reads_that_differ_in_their_columns(ring: Ring, path: Path) -> None:
    """The places of a file in reverse, then two files in turn; each part of the memory has its own bytes."""
    path.write_bytes(b"".join(bytes([number]) * 16 for number in range(8)))
    other = path.with_name("other")
    other.write_bytes(bytes([0xEE]) * 128)
    memory = room(8 * 16)
    with path.open("rb") as file, other.open("rb") as second:
        block = SqeBlock(8)
        for slot in range(8):
            block.prep_read(file.fileno(), address(memory) + 16 * slot, 16, 0, user_data=slot)
        block.column("off")[:] = array("Q", range(112, -1, -16))
        ring.sq.put_block(block)
        assert results(ring, 8) == dict.fromkeys(range(8), 16)
        assert memory == b"".join(bytes([number]) * 16 for number in reversed(range(8)))
        block.column("fd")[::2] = array("i", [second.fileno()] * 4)
        block.column("len")[4:] = array("I", [8] * 4)
        ring.sq.put_block(block, 2)
        assert results(ring, 6) == {2: 16, 3: 16, 4: 8, 5: 8, 6: 8, 7: 8}
        assert [memory[slot * 16] for slot in range(8)] == [7, 6, 0xEE, 4, 0xEE, 2, 0xEE, 0]


def test_a_chain_in_a_block(ring: Ring, pipe: Pipe) -> None:
    """It breaks at a short read, and what follows the block starts by itself."""
    memory = room(8)
    block = SqeBlock(3)
    block.prep_nop(user_data=1, sqe_flags=IO_LINK)
    block.prep_read(pipe[0], address(memory), 8, -1, user_data=2, sqe_flags=IO_LINK)
    block.prep_nop(user_data=3)
    for _ in range(10):  # at every place of the queue
        os.write(pipe[1], b"short")
        ring.sq.put_block(block)
        assert not ring.sq.ends_linked()
        ring.sq.prep_nop(user_data=4)
        assert results(ring, 4) == {1: 0, 2: 5, 3: -errno.ECANCELED, 4: 0}


def test_a_block_beside_owned_operations(ring: Ring) -> None:
    block = block_of(1, 2, 3)
    one = ring.nop()
    ring.sq.put_block(block)
    other = ring.nop()
    assert (one.wait(HANG_NS), other.wait(HANG_NS)) == (0, 0)
    assert sorted(take(ring, 3)) == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
    with ring.link(4):
        ring.nop()
        ring.sq.put_block(block)
    assert sorted(take(ring, 3)) == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]


def test_a_closed_ring_refuses_a_block() -> None:
    block = block_of(1)
    with Ring(2) as ring:
        ring.sq.put_block(block)
    with pytest.raises(RingClosedError):
        ring.sq.put_block(block)
    with Ring(2) as ring:
        ring.sq.put_block(block)
        assert take(ring) == [(1, 0, 0)]
