"""mmap_ring, sq and cq on plain memory, with a fake kernel that plays the other side.

No ring is made and no system call: what is tested here holds on every kernel.
"""

from __future__ import annotations

import gc
import random
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from rawuring import abi, atomics, mmap_ring
from rawuring.cq import CompletionQueue
from rawuring.errors import RawuringError, RingClosedError, SubmissionQueueFullError
from rawuring.mmap_ring import RingMemory
from rawuring.prep.base import NOP
from rawuring.sq import RewindingQueue, SubmissionQueue

pytestmark = pytest.mark.portable

Setup, CqeFlag, Op = abi.Setup, abi.CqeFlag, abi.Op

U32 = 0xFFFF_FFFF
START = 0xFFFF_FFFE  # two steps before the u32 wraps
CANARY = 0xA5
CLOSED = RingClosedError("closed")

# Unlike any kernel's, so that a layout taken for granted shows. What lies between is canary.
SQ_OFFSETS = {"head": 192, "tail": 64, "flags": 128, "dropped": 92, "ring_mask": 100, "ring_entries": 108}
CQ_OFFSETS = {"head": 256, "tail": 224, "flags": 320, "overflow": 288, "ring_mask": 116, "ring_entries": 124}
CQES, ARRAY = 512, 384


def discard(sq: SubmissionQueue) -> list[int]:
    """Take back whatever is not published. Returns the user_data of each SQE."""
    taken = []
    while sq.unpublished:
        taken.append(sq.last_user_data())
        sq.discard_last()
    return taken


class FakeKernel:
    """A ring on a bytearray and the kernel's part in it. Head and tail of both queues start at `start`."""

    def __init__(
        self, entries: int = 4, cq_entries: int = 4, setup_flags: int = Setup.NO_SQARRAY, start: int = START
    ) -> None:
        self.entries, self.cq_entries = entries, cq_entries
        self.has_array = not setup_flags & Setup.NO_SQARRAY
        self.mixed = bool(setup_flags & Setup.CQE_MIXED)
        self.sqe_nbytes = 128 if setup_flags & Setup.SQE128 else 64
        self.cqe_nbytes = 32 if setup_flags & Setup.CQE32 else 16
        self.ring = bytearray([CANARY]) * (CQES + cq_entries * self.cqe_nbytes + 64)
        self.sqes = bytearray([CANARY]) * (entries * self.sqe_nbytes + 64)
        self.params = abi.IO_URING_PARAMS.pack(
            sq_entries=entries,
            cq_entries=cq_entries,
            flags=int(setup_flags),
            **{f"sq_off.{name}": offset for name, offset in SQ_OFFSETS.items()},
            **{f"cq_off.{name}": offset for name, offset in CQ_OFFSETS.items()},
            **{"cq_off.cqes": CQES, "sq_off.array": ARRAY if self.has_array else 0},
        )
        for name in ("head", "tail"):
            self.put(SQ_OFFSETS[name], start)
            self.put(CQ_OFFSETS[name], start)
        for offset in (SQ_OFFSETS["flags"], SQ_OFFSETS["dropped"], CQ_OFFSETS["flags"], CQ_OFFSETS["overflow"]):
            self.put(offset, 0)

    def memory(self) -> RingMemory:
        ring = memoryview(self.ring)
        return RingMemory(self.params, ring, ring, memoryview(self.sqes))

    def get(self, offset: int) -> int:
        value: int = struct.unpack_from("=I", self.ring, offset)[0]
        return value

    def put(self, offset: int, value: int) -> None:
        struct.pack_into("=I", self.ring, offset, value)

    def visible(self) -> int:
        """How many SQEs are published and not consumed."""
        return (self.get(SQ_OFFSETS["tail"]) - self.get(SQ_OFFSETS["head"])) & U32

    def consume(self, count: int | None = None) -> list[bytes]:
        """Take SQEs as io_uring_enter does: all that are published, or `count` of them."""
        taken = []
        for _ in range(self.visible() if count is None else count):
            head = self.get(SQ_OFFSETS["head"])
            slot = head & (self.entries - 1)
            index = self.get(ARRAY + slot * 4) if self.has_array else slot
            taken.append(bytes(self.sqes[index * self.sqe_nbytes : (index + 1) * self.sqe_nbytes]))
            self.put(SQ_OFFSETS["head"], (head + 1) & U32)
        return taken

    def consume_user_data(self, count: int | None = None) -> list[int]:
        return [abi.IO_URING_SQE.get(sqe, "user_data") for sqe in self.consume(count)]

    def free(self) -> int:
        """How many slots of the CQ are free."""
        return self.cq_entries - ((self.get(CQ_OFFSETS["tail"]) - self.get(CQ_OFFSETS["head"])) & U32)

    def post(self, user_data: int, res: int = 0, cqe_flags: int = 0, big: tuple[int, int] | None = None) -> None:
        """Post a CQE; on a mixed ring `big` makes it one of two slots, which never wraps."""
        slots = 1
        if self.mixed and big is not None:
            if self.get(CQ_OFFSETS["tail"]) & (self.cq_entries - 1) == self.cq_entries - 1:
                self._write(struct.pack("=QiI", 0xDEAD, -1, CqeFlag.SKIP), 1)
            cqe_flags |= CqeFlag.F_32
            slots = 2
        self._write(struct.pack("=QiI", user_data, res, cqe_flags) + struct.pack("=QQ", *(big or (0, 0))), slots)

    def _write(self, cqe: bytes, slots: int) -> None:
        assert self.free() >= slots, "the test posts more than the CQ holds"
        tail = self.get(CQ_OFFSETS["tail"])
        at = CQES + (tail & (self.cq_entries - 1)) * self.cqe_nbytes
        self.ring[at : at + slots * self.cqe_nbytes] = cqe[: slots * self.cqe_nbytes]
        self.put(CQ_OFFSETS["tail"], (tail + slots) & U32)


# --- the memory


@pytest.mark.pitfall("a bad index in the SQ array is dropped in silence")
def test_the_array_is_the_identity() -> None:
    kernel = FakeKernel(8, 8, setup_flags=0)
    assert kernel.memory().has_sq_array
    assert struct.unpack_from("=8I", kernel.ring, ARRAY) == tuple(range(8))


@pytest.mark.pitfall("a bad index in the SQ array is dropped in silence")
def test_without_the_array_nothing_is_written() -> None:
    kernel = FakeKernel()
    before = bytes(kernel.ring)
    assert not kernel.memory().has_sq_array
    # Its offset is 0 then, which on a real ring is the SQ head.
    assert kernel.ring == before


@pytest.mark.parametrize("setup_flags", [0, Setup.NO_SQARRAY, Setup.NO_SQARRAY | Setup.SQE128 | Setup.CQE32])
def test_only_the_queues_own_words_and_slots_are_written(setup_flags: int) -> None:
    kernel = FakeKernel(setup_flags=setup_flags)
    memory = kernel.memory()
    sq, cq = SubmissionQueue(memory), CompletionQueue(memory, setup_flags)
    untouched = bytes(kernel.ring)
    for i in range(20):
        sq.prep_nop(user_data=i)
        sq.flush()
        assert kernel.consume_user_data() == [i]
        kernel.post(i)
        assert cq.drain() == [(i, 0, 0)]
    ours = {SQ_OFFSETS["tail"], CQ_OFFSETS["head"]}
    the_kernels = {SQ_OFFSETS["head"], CQ_OFFSETS["tail"]}
    changed = {at for at in range(CQES) if kernel.ring[at] != untouched[at]}
    assert changed <= {word + byte for word in ours | the_kernels for byte in range(4)}
    assert kernel.ring[CQES + 4 * kernel.cqe_nbytes :] == bytes([CANARY]) * 64
    assert kernel.sqes[4 * kernel.sqe_nbytes :] == bytes([CANARY]) * 64


def test_memory_without_a_cq_flags_word() -> None:
    kernel = FakeKernel()
    abi.IO_URING_PARAMS.put(kernel.params, "cq_off.flags", 0)
    memory = kernel.memory()
    assert memory.cq_flags is None
    with pytest.raises(RawuringError, match=r"5\.8"):
        CompletionQueue(memory).eventfd_enabled(False)
    memory.release()


def test_released_memory_answers_with_value_error_and_frees_its_bytes() -> None:
    kernel = FakeKernel()
    memory = kernel.memory()
    memory.release()
    memory.release()
    with pytest.raises(ValueError, match="released"):
        memory.sq_head.load()
    with pytest.raises(ValueError, match="released"):
        memory.cqes[0]
    # No view is left: a bytearray with one cannot change its size.
    kernel.sqes.append(0)


# --- the submission queue


def test_sqes_pass_through_the_wrap_in_order() -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())
    sent = iter(range(1000))
    received = []
    for count in [1, 2, 3, 4, 3, 2, 1, 4, 4, 1]:  # the u32 wraps in the second turn
        queued = [next(sent) for _ in range(count)]
        for user_data in queued:
            sq.prep_nop(user_data=user_data)
        assert kernel.visible() == 0
        assert (sq.ready, sq.space_left) == (count, 4 - count)
        assert sq.flush() == kernel.visible() == count
        received += kernel.consume_user_data()
        assert (sq.ready, sq.space_left) == (0, 4)
    assert received == list(range(25))
    assert kernel.get(SQ_OFFSETS["tail"]) == (START + 25) & U32 < START


@pytest.mark.parametrize("start", [0, START, U32, 0x7FFF_FFFF])
def test_a_full_queue_refuses_until_the_kernel_consumed(start: int) -> None:
    kernel = FakeKernel(start=start)
    sq = SubmissionQueue(kernel.memory())
    for user_data in range(4):
        sq.prep_nop(user_data=user_data)
    for _ in range(2):
        with pytest.raises(SubmissionQueueFullError, match="4 entries"):
            sq.prep_nop(user_data=99)
    assert sq.flush() == 4
    with pytest.raises(SubmissionQueueFullError, match="submit"):
        sq.prep_poll_add(0, 1, user_data=99)
    assert kernel.consume_user_data(2) == [0, 1]
    assert (sq.ready, sq.space_left) == (2, 2)
    sq.prep_nop(user_data=4)
    sq.prep_poll_add(0, 1, user_data=5)
    with pytest.raises(SubmissionQueueFullError):
        sq.prep_nop(user_data=99)
    assert sq.flush() == 4
    assert kernel.consume_user_data() == [2, 3, 4, 5]


def test_flush_publishes_once_and_tells_what_is_not_consumed() -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())
    assert sq.flush() == 0
    sq.prep_nop()
    assert sq.flush() == sq.flush() == 1
    sq.prep_nop()
    assert sq.flush() == kernel.visible() == 2
    kernel.consume(1)
    sq.look()
    assert sq.flush() == kernel.visible() == 1
    sq.prep_nop()
    assert sq.unpublished == 1
    assert sq.flush() == kernel.visible() == 2
    assert sq.unpublished == 0
    kernel.consume()
    sq.all_consumed()
    assert sq.flush() == kernel.visible() == 0


@pytest.mark.behaviour("sq-space_left")
@pytest.mark.parametrize("sqpoll", [False, True])
@pytest.mark.parametrize("setup_flags", [0, Setup.NO_SQARRAY, Setup.NO_SQARRAY | Setup.SQE128])
@pytest.mark.parametrize("start", [0, START])
def test_any_mix_of_uses_passes_every_sqe_once(setup_flags: int, start: int, sqpoll: bool) -> None:
    rng = random.Random(setup_flags + start)
    kernel = FakeKernel(entries=8, setup_flags=setup_flags, start=start)
    sq = SubmissionQueue(kernel.memory(), sqpoll=sqpoll)
    waiting: list[int] = []  # written, not published
    published: list[int] = []  # and not consumed
    for user_data in range(5000):
        match rng.randrange(6):
            case 0:
                sq.flush()
                published += waiting
                waiting = []
            case 1:
                count = rng.randrange(len(published) + 1)
                assert kernel.consume_user_data(count) == published[:count]
                del published[:count]
                if not published and not waiting:
                    sq.all_consumed()
            case 2 if rng.random() < 0.1:
                assert sorted(discard(sq)) == waiting
                waiting = []
            case 3:
                assert sq.ready == len(waiting) + len(published)
                assert sq.space_left == 8 - sq.ready
            case _:
                try:
                    if rng.random() < 0.5:
                        sq.prep_nop(user_data=user_data)
                    else:
                        sq.prep_close(3, user_data=user_data)
                    waiting.append(user_data)
                except SubmissionQueueFullError:
                    assert len(waiting) + len(published) == 8
        assert sq.unpublished == len(waiting)
        assert kernel.visible() == len(published)
    assert sq.tail > start + 1000


@pytest.mark.parametrize("setup_flags", [0, Setup.NO_SQARRAY, Setup.NO_SQARRAY | Setup.SQE128])
def test_every_slot_is_written_at_its_place(setup_flags: int) -> None:
    kernel = FakeKernel(setup_flags=setup_flags)
    sq = SubmissionQueue(kernel.memory())
    for turn in range(3):
        for slot in range(4):
            sq.prep_nop(user_data=turn * 4 + slot)
        sq.flush()
        sqes = kernel.consume()
        assert [abi.IO_URING_SQE.get(sqe, "user_data") for sqe in sqes] == [turn * 4 + slot for slot in range(4)]
        for slot, sqe in enumerate(sqes):
            place = (START + slot & 3) * kernel.sqe_nbytes
            assert kernel.sqes[place : place + kernel.sqe_nbytes] == sqe
            assert sqe[64:] == bytes([CANARY]) * (kernel.sqe_nbytes - 64)


@pytest.mark.parametrize(
    "prep",
    [
        pytest.param(lambda sq: sq.prep_nop(user_data=1 << 64), id="nop"),
        pytest.param(lambda sq: sq.prep_read(1 << 31, 0, 0, 0), id="fd"),
        pytest.param(lambda sq: sq.prep_recv(0, -1, 0, 0), id="address"),
        pytest.param(lambda sq: sq.prep_send(0, 0, 1 << 32, 0), id="length"),
        pytest.param(lambda sq: sq.prep_fsync(0, -1), id="flags"),
        pytest.param(lambda sq: sq.prep_accept(0, 0, 0, 0, ioprio=1 << 16), id="ioprio"),
        pytest.param(lambda sq: sq.prep_read("0", 0, 0, 0), id="type"),
    ],
)
def test_a_value_that_does_not_fit_leaves_the_queue_as_it_was(prep: Callable[[SubmissionQueue], None]) -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())
    sq.prep_nop(user_data=1)
    before = sq.tail, sq.ready, sq.last_user_data()
    with pytest.raises(struct.error):
        prep(sq)
    assert (sq.tail, sq.ready, sq.last_user_data()) == before
    sq.prep_nop(user_data=2)
    assert sq.flush() == 2
    assert kernel.consume()[1] == bytes(abi.IO_URING_SQE.pack(opcode=Op.NOP, fd=-1, user_data=2))


def test_unlink_last_ends_a_chain() -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())
    both = abi.SqeFlag.IO_LINK | abi.SqeFlag.ASYNC
    sq.prep_nop(sqe_flags=both)
    sq.prep_nop(sqe_flags=both)
    sq.unlink_last()
    sq.flush()
    assert [abi.IO_URING_SQE.get(sqe, "flags") for sqe in kernel.consume()] == [both, abi.SqeFlag.ASYNC]


def test_unlink_last_refuses_what_is_published() -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())
    with pytest.raises(RawuringError, match="published"):
        sq.unlink_last()
    sq.prep_nop(sqe_flags=int(abi.SqeFlag.IO_LINK))
    sq.flush()
    with pytest.raises(RawuringError, match="published"):
        sq.unlink_last()
    assert abi.IO_URING_SQE.get(kernel.consume()[0], "flags") == abi.SqeFlag.IO_LINK


def test_discard_takes_back_what_is_not_published() -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())
    sq.prep_nop(user_data=1)
    sq.flush()
    for user_data in (2, 3, 4):
        sq.prep_nop(user_data=user_data)
    assert sorted(discard(sq)) == [2, 3, 4]
    assert discard(sq) == []
    assert (sq.ready, sq.space_left) == (1, 3)
    for user_data in (5, 6, 7):
        sq.prep_nop(user_data=user_data)
    with pytest.raises(SubmissionQueueFullError):
        sq.prep_nop()
    sq.flush()
    assert kernel.consume_user_data() == [1, 5, 6, 7]


def test_last_user_data_is_of_the_sqe_written_last() -> None:
    sq = SubmissionQueue(FakeKernel().memory())
    for user_data in (1, (1 << 64) - 1, 0x0102_0304_0506_0708):
        sq.prep_nop(user_data=user_data)
        assert sq.last_user_data() == user_data


def test_dropped_is_the_kernels_word() -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())
    assert sq.dropped == 0
    kernel.put(SQ_OFFSETS["dropped"], 3)
    assert sq.dropped == 3


SQ_USES: dict[str, Callable[[SubmissionQueue], object]] = {
    "prep_nop": lambda sq: sq.prep_nop(),
    "prep_read": lambda sq: sq.prep_read(0, 0, 0, 0),
    "prep_poll_add": lambda sq: sq.prep_poll_add(0, 1),
    "needs_wakeup": lambda sq: sq.needs_wakeup(),
    "ready": lambda sq: sq.ready,
    "space_left": lambda sq: sq.space_left,
    "dropped": lambda sq: sq.dropped,
}


@pytest.mark.parametrize("use", SQ_USES)
@pytest.mark.parametrize("queued", [0, 1, 4])
def test_a_closed_submission_queue_says_why(use: str, queued: int) -> None:
    memory = FakeKernel().memory()
    sq = SubmissionQueue(memory)
    for _ in range(queued):
        sq.prep_nop()
    sq.close(CLOSED)
    memory.release()
    with pytest.raises(RingClosedError, match="closed"):
        SQ_USES[use](sq)
    assert (discard(sq), sq.flush()) == ([], 0)


# --- the submission queue of SQEs of two sizes


def encode_wide(sq: SubmissionQueue, user_data: int, sqe_flags: int = 0) -> None:
    sq.prep_nop128(user_data=user_data, sqe_flags=sqe_flags)


def mixed_queue(entries: int = 8, start: int = START) -> tuple[FakeKernel, SubmissionQueue]:
    kernel = FakeKernel(entries=entries, setup_flags=Setup.NO_SQARRAY | Setup.SQE_MIXED, start=start)
    return kernel, SubmissionQueue(kernel.memory(), mixed=True)


@pytest.mark.parametrize("start", [0, START])
def test_any_mix_of_sizes_passes_every_sqe_once(start: int) -> None:
    """Written, taken back, published and consumed in any order; no large one starts in the last slot."""
    rng = random.Random(start)
    kernel, sq = mixed_queue(start=start)
    waiting: list[int] = []
    published: list[int] = []
    for user_data in range(1, 4000):
        match rng.randrange(5):
            case 0:
                sq.flush()
                published += waiting
                waiting = []
            case 1:
                found = consume_mixed(kernel)
                assert found == published
                published = []
            case 2 if waiting:
                sq.discard_last()
                waiting.pop()
            case _:
                try:
                    if rng.random() < 0.5:
                        encode_wide(sq, user_data)
                    else:
                        sq.prep_nop(user_data=user_data)
                    waiting.append(user_data)
                except SubmissionQueueFullError:
                    assert sq.space_left < 3
        discard_fillers(sq)
        if waiting:
            assert sq.last_user_data() == waiting[-1]
    assert sq.tail > start + 1000


FILLER = 0xFFFF_FFFF_FFFF_FFFF


def discard_fillers(sq: SubmissionQueue) -> None:
    """One that its large SQE no longer follows does no harm, but is in the way of `last_user_data`."""
    while sq.unpublished and sq.last_user_data() == FILLER:
        sq.discard_last()


def consume_mixed(kernel: FakeKernel) -> list[int]:
    """Take every SQE that is published as the kernel does on a ring of mixed sizes. Returns their user_data."""
    found = []
    while kernel.visible():
        slot = kernel.get(SQ_OFFSETS["head"]) & (kernel.entries - 1)
        (sqe,) = kernel.consume(1)
        user_data = abi.IO_URING_SQE.get(sqe, "user_data")
        if sqe[0] == Op.NOP128:
            assert slot != kernel.entries - 1
            assert kernel.visible()
            kernel.consume(1)
        if user_data == FILLER:
            assert slot == kernel.entries - 1
            assert abi.IO_URING_SQE.get(sqe, "flags") & abi.SqeFlag.CQE_SKIP_SUCCESS
        else:
            found.append(user_data)
    return found


def test_unlink_last_finds_the_start_of_a_large_sqe() -> None:
    kernel, sq = mixed_queue(start=0)
    encode_wide(sq, 1, abi.SqeFlag.IO_LINK)
    encode_wide(sq, 2, abi.SqeFlag.IO_LINK)
    kernel.sqes[64] = kernel.sqes[192] = Op.NOP128  # second halves may hold anything
    sq.unlink_last()
    sq.flush()
    assert [kernel.sqes[at + 1] for at in (0, 128)] == [abi.SqeFlag.IO_LINK, 0]


# --- the submission queue that starts over


def rewinding_queue(entries: int = 8) -> tuple[FakeKernel, RewindingQueue]:
    kernel = FakeKernel(entries=entries, setup_flags=Setup.NO_SQARRAY | Setup.SQ_REWIND, start=0)
    return kernel, RewindingQueue(kernel.memory())


def test_a_rewinding_queue_submits_from_its_first_slot() -> None:
    rng = random.Random(1)
    kernel, sq = rewinding_queue()
    queued: list[int] = []
    for user_data in range(3000):
        match rng.randrange(4):
            case 0:
                to_submit = sq.flush()
                assert to_submit == len(queued)
                taken = rng.choice([to_submit, rng.randrange(to_submit + 1), -1])
                found = [struct.unpack_from("=Q", kernel.sqes, slot * 64 + 32)[0] for slot in range(max(taken, 0))]
                assert found == queued[: len(found)]
                del queued[: len(found)]
                sq.answers.append(taken)
                if rng.random() < 0.5:
                    sq.look()  # as the next enter does; without it an interrupt came in between
            case 1 if sq.unpublished:
                assert sq.last_user_data() == queued.pop()
                sq.discard_last()
            case _:
                try:
                    sq.prep_nop(user_data=user_data)
                    queued.append(user_data)
                except SubmissionQueueFullError:
                    assert len(queued) == 8
        if sq.answers:
            sq.look()
        assert (sq.ready, sq.space_left) == (len(queued), 8 - len(queued))
    assert kernel.get(SQ_OFFSETS["tail"]) == kernel.get(SQ_OFFSETS["head"]) == 0
    assert kernel.sqes[8 * 64 :] == bytes([CANARY]) * 64


def test_what_is_queued_after_an_unsettled_answer_is_kept() -> None:
    kernel, sq = rewinding_queue()
    for user_data in (1, 2, 3):
        sq.prep_nop(user_data=user_data)
    sq.flush()
    sq.answers.append(2)
    sq.prep_nop(user_data=4)
    assert sq.flush() == 4
    sq.look()
    assert sq.flush() == 2
    assert [struct.unpack_from("=Q", kernel.sqes, slot * 64 + 32)[0] for slot in (0, 1)] == [3, 4]


@pytest.mark.parametrize("taken", [7, 6, 5])
def test_a_wide_request_in_the_last_slot_after_an_unsettled_answer(taken: int) -> None:
    kernel = FakeKernel(entries=8, setup_flags=Setup.NO_SQARRAY | Setup.SQ_REWIND, start=0)
    sq = RewindingQueue(kernel.memory(), mixed=True)
    for user_data in range(7):
        sq.prep_nop(user_data=user_data)
    sq.flush()
    sq.answers.append(taken)
    encode_wide(sq, 7)
    assert (sq.tail, sq.ready, sq.space_left, sq.last_user_data()) == (9, 9 - taken, taken - 1, 7)
    assert sq.flush() == 9 - taken
    found = [struct.unpack_from("=Q", kernel.sqes, slot * 64 + 32)[0] for slot in range(8 - taken)]
    assert found == list(range(taken, 8))
    for user_data in range(taken - 1):
        sq.prep_nop(user_data=user_data)
    with pytest.raises(SubmissionQueueFullError):
        sq.prep_nop()


# --- moving to other memory


@pytest.mark.parametrize("start", [0, 5, START])
@pytest.mark.parametrize("to", [4, 8, 32])
@pytest.mark.parametrize("setup_flags", [Setup.NO_SQARRAY, Setup.NO_SQARRAY | Setup.SQE128])
def test_the_queues_move_to_memory_of_another_size(setup_flags: int, to: int, start: int) -> None:
    kernel = FakeKernel(entries=8, cq_entries=8, setup_flags=setup_flags, start=start)
    memory = kernel.memory()
    sq, cq = SubmissionQueue(memory), CompletionQueue(memory, setup_flags)
    for user_data in range(6):
        sq.prep_nop(user_data=user_data)
    sq.flush()
    assert kernel.consume_user_data(3) == [0, 1, 2]
    sq.prep_nop(user_data=6)
    for user_data in (10, 11):
        kernel.post(user_data)
    assert cq.drain() == [(10, 0, 0), (11, 0, 0)]

    sq.withdraw()
    assert kernel.visible() == 0
    assert (sq.ready, sq.unpublished) == (4, 4)
    larger = FakeKernel(entries=to, cq_entries=to, setup_flags=setup_flags)
    for name in ("head", "tail"):
        larger.put(SQ_OFFSETS[name], kernel.get(SQ_OFFSETS[name]))
        larger.put(CQ_OFFSETS[name], kernel.get(CQ_OFFSETS[name]))
    larger.post(12)
    for _ in range(2):  # once more, as after an interrupt
        moved = larger.memory()
        sq.move(moved)
        cq.move(moved)
    memory.release()
    assert (sq.entries, cq.entries, sq.ready, cq.ready) == (to, to, 4, 1)
    assert cq.drain() == [(12, 0, 0)]
    assert larger.visible() == 0
    assert sq.flush() == 4
    assert larger.consume_user_data() == [3, 4, 5, 6]
    for user_data in range(to):
        sq.prep_nop(user_data=user_data)
    sq.flush()
    assert larger.consume_user_data() == list(range(to))


# --- the completion queue


def test_cqes_pass_through_the_wrap_in_order() -> None:
    kernel = FakeKernel()
    cq = CompletionQueue(kernel.memory())
    posted = iter(range(1000))
    received = []
    for count in [1, 2, 3, 4, 3, 2, 1, 4, 4, 1]:
        for _ in range(count):
            i = next(posted)
            kernel.post((1 << 64) - 1 - i, -i, i << 16 | 1)
        assert cq.ready == count
        received += cq.drain()
        assert cq.ready == 0
        assert kernel.free() == 4
    assert received == [((1 << 64) - 1 - i, -i, i << 16 | 1) for i in range(25)]


def test_an_empty_queue_drains_to_nothing() -> None:
    kernel = FakeKernel()
    cq = CompletionQueue(kernel.memory())
    assert cq.drain() == []
    assert cq.peek() == ([], START)
    assert kernel.get(CQ_OFFSETS["head"]) == START


def test_peek_leaves_the_slots_until_advance_to() -> None:
    kernel = FakeKernel()
    cq = CompletionQueue(kernel.memory())
    for user_data in (1, 2, 3):  # beyond the wrap of the u32 and of the array
        kernel.post(user_data)
    batch, head = cq.peek()
    assert batch == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
    assert cq.peek() == (batch, head)
    assert (cq.ready, kernel.free()) == (3, 1)
    kernel.post(4)
    cq.advance_to(head)
    assert (cq.ready, kernel.free()) == (1, 3)
    cq.advance_to(head)  # a second time, after an interrupt
    assert cq.drain() == [(4, 0, 0)]


def interrupt_store(cq: CompletionQueue, stored: bool) -> None:
    """Have the next store of the head be a call that an interrupt ends, before or after it has stored."""
    cell = cq._head_cell

    class Interrupted:
        def __getitem__(self, index: int, /) -> int:
            return cell[index]

        def __setitem__(self, index: int, value: int, /) -> None:
            cq._head_cell = cell
            if stored:
                cell[index] = value
            raise KeyboardInterrupt

    cq._head_cell = Interrupted()


@pytest.mark.parametrize("take", ["drain", "drain32"])
@pytest.mark.parametrize("stored", [False, True])
def test_an_interrupt_where_the_head_is_stored_by_a_call(take: str, stored: bool) -> None:
    """As on machines whose plain stores promise nothing. What was taken is lost, and nothing comes twice."""
    setup_flags = Setup.CQE32 if take == "drain32" else 0
    kernel = FakeKernel(setup_flags=setup_flags)
    cq = CompletionQueue(kernel.memory(), setup_flags)
    for turn in range(3):
        kernel.post(1)
        kernel.post(2)
        interrupt_store(cq, stored)
        with pytest.raises(KeyboardInterrupt):
            getattr(cq, take)()
        assert (cq.ready, kernel.free()) == (0, 4)
        for user_data in (3, 4, 5, 6):
            kernel.post(user_data)
        assert [user_data for user_data, *_ in getattr(cq, take)()] == [3, 4, 5, 6]


def test_what_was_drained_is_a_copy() -> None:
    kernel = FakeKernel()
    cq = CompletionQueue(kernel.memory())
    kernel.post(1, 2, 4)
    batch = cq.drain()
    kernel.ring[CQES:] = b"\xff" * len(kernel.ring[CQES:])
    assert batch == [(1, 2, 4)]


@pytest.mark.parametrize("drain32", [False, True])
def test_cqe32(drain32: bool) -> None:
    kernel = FakeKernel(setup_flags=Setup.CQE32 | Setup.NO_SQARRAY)
    cq = CompletionQueue(kernel.memory(), Setup.CQE32)
    expected: list[tuple[int, ...]] = []
    found: list[tuple[int, ...]] = []
    user_data = 0
    for count in [3, 4, 1, 4, 2]:
        for _ in range(count):
            user_data += 1
            big = user_data << 32 | 5, (1 << 64) - user_data
            kernel.post(user_data, -user_data, 8, big)
            expected.append((user_data, -user_data, 8, *big) if drain32 else (user_data, -user_data, 8))
        assert cq.ready == count
        found += cq.drain32() if drain32 else cq.drain()
        assert kernel.free() == 4
    assert found == expected


@pytest.mark.parametrize("drain32", [False, True])
def test_mixed_sizes_with_fillers(drain32: bool) -> None:
    kernel = FakeKernel(setup_flags=Setup.CQE_MIXED | Setup.NO_SQARRAY)
    cq = CompletionQueue(kernel.memory(), Setup.CQE_MIXED)
    expected: list[tuple[int, ...]] = []
    found: list[tuple[int, ...]] = []
    user_data = 0
    for turn in range(40):
        # One small and one large, in either order: 3 slots, 4 with a filler, at each place of the array.
        for is_big in (turn % 3 == 0, turn % 3 != 0):
            user_data += 1
            big = (user_data << 40, user_data) if is_big else None
            kernel.post(user_data, -user_data, 4, big)
            cqe_flags = 4 | (CqeFlag.F_32 if is_big else 0)
            cqe = user_data, -user_data, int(cqe_flags)
            expected.append((*cqe, *(big or (0, 0))) if drain32 else cqe)
        assert cq.ready in (3, 4)
        found += cq.drain32() if drain32 else cq.drain()
        assert kernel.free() == 4
    assert found == expected


def test_a_filler_alone_is_taken_and_not_shown() -> None:
    kernel = FakeKernel(setup_flags=Setup.CQE_MIXED | Setup.NO_SQARRAY)
    cq = CompletionQueue(kernel.memory(), Setup.CQE_MIXED)
    kernel.post(7, 0, CqeFlag.SKIP)
    assert cq.ready == 1
    assert cq.drain() == []
    assert (cq.ready, kernel.free()) == (0, 4)


@pytest.mark.parametrize("setup_flags", [0, Setup.CQE32, Setup.CQE_MIXED])
@pytest.mark.parametrize("start", [0, START])
def test_any_mix_of_takes_gives_every_cqe_once(setup_flags: int, start: int) -> None:
    rng = random.Random(setup_flags + start)
    kernel = FakeKernel(cq_entries=8, setup_flags=setup_flags | Setup.NO_SQARRAY, start=start)
    cq = CompletionQueue(kernel.memory(), setup_flags)
    posted: list[tuple[int, ...]] = []
    taken: list[tuple[int, ...]] = []
    for _ in range(2000):
        for _ in range(rng.randrange(9)):
            big = (len(posted), rng.getrandbits(64)) if setup_flags and rng.random() < 0.5 else None
            if kernel.free() < (3 if setup_flags == Setup.CQE_MIXED else 1):
                break  # a large one may need a filler
            cqe_flags = CqeFlag.F_32 if big and kernel.mixed else 0
            kernel.post(len(posted), -len(posted), 0, big)
            posted.append((len(posted), -len(posted), int(cqe_flags), *(big or (0, 0))))
        head, ready = cq.head, cq.ready
        match rng.randrange(4):
            case 0:
                taken += cq.drain()
            case 1 if setup_flags:
                taken += cq.drain32()
            case 2:
                taken += cq.peek()[0]
                cq.advance_to(cq.peek()[1])
            case 3 if not kernel.mixed:
                some = rng.randrange(ready + 1)
                taken += cq.peek()[0][:some]
                cq.advance_to(cq.head + some)
                assert (cq.head, cq.ready) == (head + some, ready - some)
        assert kernel.free() == 8 - cq.ready
    taken += cq.drain()
    assert [cqe if len(cqe) == 5 else cqe + posted[i][3:] for i, cqe in enumerate(taken)] == posted


def test_drain32_is_for_large_cqes() -> None:
    kernel = FakeKernel()
    cq = CompletionQueue(kernel.memory())
    kernel.post(1)
    with pytest.raises(RawuringError, match="CQE32"):
        cq.drain32()
    assert cq.drain() == [(1, 0, 0)]


def test_overflow_and_task_work_call_for_an_enter() -> None:
    kernel = FakeKernel()
    memory = kernel.memory()
    cq = CompletionQueue(memory, Setup.DEFER_TASKRUN | Setup.TASKRUN_FLAG)
    assert (cq.needs_enter, cq.overflowed, cq.lost) == (False, False, 0)
    kernel.put(SQ_OFFSETS["flags"], abi.SqRingFlag.TASKRUN)
    assert (cq.needs_enter, cq.overflowed) == (True, False)
    kernel.put(SQ_OFFSETS["flags"], abi.SqRingFlag.NEED_WAKEUP)
    assert (cq.needs_enter, cq.overflowed) == (False, False)
    kernel.put(SQ_OFFSETS["flags"], abi.SqRingFlag.CQ_OVERFLOW | abi.SqRingFlag.NEED_WAKEUP)
    assert (cq.needs_enter, cq.overflowed) == (True, True)
    kernel.put(CQ_OFFSETS["overflow"], 5)
    assert cq.lost == 5
    kernel.put(SQ_OFFSETS["flags"], 0)
    assert CompletionQueue(memory, Setup.DEFER_TASKRUN).needs_enter
    assert not CompletionQueue(memory, 0).needs_enter


def test_eventfd_enabled_changes_its_bit_alone() -> None:
    kernel = FakeKernel()
    cq = CompletionQueue(kernel.memory())
    kernel.put(CQ_OFFSETS["flags"], 0x8000_0000)
    for enabled, bits in ((False, 0x8000_0001), (False, 0x8000_0001), (True, 0x8000_0000), (True, 0x8000_0000)):
        cq.eventfd_enabled(enabled)
        assert kernel.get(CQ_OFFSETS["flags"]) == bits


CQ_USES: dict[str, Callable[[CompletionQueue], object]] = {
    "drain": lambda cq: cq.drain(),
    "drain32": lambda cq: cq.drain32(),
    "peek": lambda cq: cq.peek(),
    "advance_to": lambda cq: cq.advance_to(0),
    "ready": lambda cq: cq.ready,
    "overflowed": lambda cq: cq.overflowed,
    "lost": lambda cq: cq.lost,
    "needs_enter": lambda cq: cq.needs_enter,
    "eventfd_enabled": lambda cq: cq.eventfd_enabled(True),
}


@pytest.mark.parametrize("use", CQ_USES)
@pytest.mark.parametrize("setup_flags", [0, Setup.CQE32, Setup.CQE_MIXED, Setup.DEFER_TASKRUN])
def test_a_closed_completion_queue_says_why(use: str, setup_flags: int) -> None:
    memory = FakeKernel(setup_flags=setup_flags | Setup.NO_SQARRAY).memory()
    cq = CompletionQueue(memory, setup_flags)
    cq.close(CLOSED)
    memory.release()
    with pytest.raises(RingClosedError, match="closed"):
        CQ_USES[use](cq)


def test_closed_queues_are_freed_with_their_last_reference() -> None:
    memory = FakeKernel().memory()
    sq, cq = SubmissionQueue(memory), CompletionQueue(memory)
    gc.collect()  # what others left
    sq.close(CLOSED)
    cq.close(CLOSED)
    del sq, cq
    assert gc.collect() == 0


def test_a_closed_queue_keeps_nothing_of_those_who_still_use_it() -> None:
    sq = SubmissionQueue(FakeKernel().memory())
    sq.close(CLOSED)

    def use() -> weakref.ref[FakeKernel]:
        in_this_frame = FakeKernel()
        with pytest.raises(RingClosedError):
            sq.prep_nop()
        return weakref.ref(in_this_frame)

    kept = use()
    gc.collect()
    assert kept() is None
    assert CLOSED.__traceback__ is None


# --- the order of accesses


class Recorder:
    """Notes every access to a word, and every fence, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[object, ...]] = []
        self.before_store: Callable[[str], None] = lambda name: None
        names = {offset: f"sq_{name}" for name, offset in SQ_OFFSETS.items()}
        names |= {offset: f"cq_{name}" for name, offset in CQ_OFFSETS.items()}
        recorder = self

        class RecordingWord(atomics.Word32):
            def __init__(self, memory: memoryview, offset: int) -> None:
                super().__init__(memory, offset)
                self.name = names[offset]

            def load(self) -> int:
                recorder.events.append((self.name, "load"))
                return super().load()

            def load_acquire(self) -> int:
                recorder.events.append((self.name, "load_acquire"))
                return super().load_acquire()

            def store(self, value: int) -> None:
                recorder.before_store(self.name)
                recorder.events.append((self.name, "store", value))
                super().store(value)

            def store_release(self, value: int) -> None:
                recorder.before_store(self.name)
                recorder.events.append((self.name, "store_release", value))
                super().store_release(value)

            @property
            def cell(self) -> atomics.Cell:
                return RecordingCell(self)

        class RecordingCell:
            def __init__(self, word: RecordingWord) -> None:
                self.word = word

            def __getitem__(self, index: int, /) -> int:
                assert index == 0
                return self.word.load_acquire()

            def __setitem__(self, index: int, value: int, /) -> None:
                assert index == 0
                self.word.store_release(value)

        monkeypatch.setattr(mmap_ring, "Word32", RecordingWord)
        monkeypatch.setattr(atomics, "full_fence", lambda: recorder.events.append(("full_fence",)))

    def take(self) -> list[tuple[object, ...]]:
        events, self.events = self.events, []
        return events


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def test_sqpoll_order_is_sqes_tail_fence_flags(recorder: Recorder) -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory(), sqpoll=True)
    seen: list[bytes] = []

    def look(name: str) -> None:
        # What the SQ thread could read once it sees the new tail.
        seen.extend(bytes(kernel.sqes[slot * 64 : slot * 64 + 64]) for slot in (START & 3, START + 1 & 3))

    sq.prep_nop(user_data=1)
    sq.prep_read(3, 4, 5, 6, user_data=2)
    recorder.take()
    recorder.before_store = look
    assert sq.flush() == 2
    assert not sq.needs_wakeup()
    assert recorder.take() == [("sq_tail", "store_release", 0), ("full_fence",), ("sq_flags", "load")]
    assert seen == [
        bytes(abi.IO_URING_SQE.pack(opcode=Op.NOP, fd=-1, user_data=1)),
        bytes(abi.IO_URING_SQE.pack(opcode=Op.READ, fd=3, addr=4, len=5, off=6, user_data=2)),
    ]


def test_sqpoll_sees_the_thread_sleep(recorder: Recorder) -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory(), sqpoll=True)
    sq.prep_nop()
    sq.flush()
    kernel.put(SQ_OFFSETS["flags"], abi.SqRingFlag.CQ_OVERFLOW)
    assert not sq.needs_wakeup()
    kernel.put(SQ_OFFSETS["flags"], abi.SqRingFlag.CQ_OVERFLOW | abi.SqRingFlag.NEED_WAKEUP)
    assert sq.needs_wakeup()


def test_sqpoll_acquires_the_head_before_a_slot_is_written_anew(recorder: Recorder) -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory(), sqpoll=True)
    for _ in range(4):
        sq.prep_nop()
    sq.flush()
    kernel.consume()
    recorder.take()
    sq.prep_nop()
    assert recorder.take() == [("sq_head", "load_acquire")]
    sq.prep_nop()  # seen free by the same look
    assert recorder.take() == []


def test_without_sqpoll_a_plain_store_is_enough(recorder: Recorder) -> None:
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())
    sq.prep_nop()
    recorder.take()
    sq.flush()
    assert recorder.take() == []  # through no word: an access without any order of its own
    assert len(kernel.consume()) == 1
    sq.flush()
    assert recorder.take() == []
    sq.look()
    assert recorder.take() == [("sq_head", "load")]


@pytest.mark.parametrize("take", ["drain", "drain32", "drain mixed"])
def test_cqes_are_copied_between_tail_and_head(recorder: Recorder, take: str) -> None:
    setup_flags = {"drain": 0, "drain32": Setup.CQE32, "drain mixed": Setup.CQE_MIXED}[take]
    kernel = FakeKernel(setup_flags=setup_flags | Setup.NO_SQARRAY)
    cq = CompletionQueue(kernel.memory(), setup_flags)
    kernel.post(1, 2, 0)
    kernel.post(3, 4, 0)
    recorder.take()

    def overwrite(name: str) -> None:
        # From here on the kernel may put other CQEs there.
        kernel.ring[CQES:] = b"\xff" * (len(kernel.ring) - CQES)

    recorder.before_store = overwrite
    found: list[Any] = list(cq.drain32() if take == "drain32" else cq.drain())
    assert [cqe[:3] for cqe in found] == [(1, 2, 0), (3, 4, 0)]
    assert recorder.take() == [("cq_tail", "load_acquire"), ("cq_head", "store_release", 0)]


def test_a_slot_is_taken_after_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops an encoder, a signal handler for instance, no half-written SQE is published."""
    kernel = FakeKernel()
    sq = SubmissionQueue(kernel.memory())

    class Interrupted(Exception):
        pass

    def interrupted(*args: Any) -> None:
        NOP.pack_into(*args)
        raise Interrupted

    monkeypatch.setattr("rawuring.prep.waiting._pack_nop", interrupted)
    with pytest.raises(Interrupted):
        sq.prep_nop(user_data=1)
    assert (sq.ready, sq.flush()) == (0, 0)
