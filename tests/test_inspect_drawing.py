"""The drawn ring: queues in known states, on plain memory with a fake kernel, and one that is live."""

from __future__ import annotations

import textwrap

import pytest
from test_queues import FakeKernel

from rawuring import Ring, RingClosedError, abi, inspect
from rawuring.cq import CompletionQueue
from rawuring.sq import RewindingQueue, SubmissionQueue

pytestmark = pytest.mark.portable

Setup, CqeFlag, Op = abi.Setup, abi.CqeFlag, abi.Op


class Fake:
    """A ring of the fake kernel's with both queues."""

    def __init__(self, entries: int, cq_entries: int, setup_flags: int = Setup.NO_SQARRAY, start: int = 0) -> None:
        self.kernel = FakeKernel(entries, cq_entries, setup_flags, start)
        self.setup_flags = setup_flags
        self.memory = self.kernel.memory()
        rewinds = setup_flags & Setup.SQ_REWIND
        self.sq = RewindingQueue(self.memory) if rewinds else SubmissionQueue(self.memory)
        self.cq = CompletionQueue(self.memory, setup_flags)

    def put_wide(self, op: abi.Op) -> None:
        """An SQE of two slots, as a ring with Setup.SQE_MIXED has them."""
        slot = self.sq.tail & (self.kernel.entries - 1)
        for _ in range(2):
            self.sq.prep_nop()
        self.kernel.sqes[slot * 64 : slot * 64 + 128] = bytes(abi.IO_URING_SQE.pack(opcode=op, fd=-1)) + bytes(64)

    def draw(self) -> str:
        drawn = inspect.draw(inspect.copy_of(self.memory, self.sq, self.setup_flags))
        assert max(map(len, drawn.splitlines())) <= 80
        return drawn


def expected(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def test_an_empty_ring() -> None:
    assert Fake(4, 8).draw() == expected(
        """
        ring NO_SQARRAY
        SQ  4 slots of 64 bytes, no SQ array
              0 ....
            x consumed  # published  + written, not published  . never used
            head 0 (slot 0)  tail 0 (slot 0)  next 0 (slot 0)
            flags 0  dropped 0
        CQ  8 slots of 16 bytes
              0 ........
            x seen  # completed, not seen  . never used
            head 0 (slot 0)  tail 0 (slot 0)
            flags 0  overflow 0
        """
    )


def test_every_state_of_a_slot() -> None:
    fake = Fake(4, 8, 0)
    fake.sq.prep_nop(user_data=1)
    fake.sq.flush()
    fake.kernel.consume()
    for user_data in (10, 11):
        fake.kernel.post(user_data, -9)
    fake.cq.drain()
    fake.kernel.post(1, 64, CqeFlag.BUFFER | CqeFlag.MORE | 5 << 16)
    fake.sq.prep_recv(3, 0x1000, 64, 0, user_data=2)
    fake.sq.flush()
    fake.sq.prep_nop(user_data=3)
    fake.memory.sq_flags.store(int(abi.SqRingFlag.NEED_WAKEUP | abi.SqRingFlag.CQ_OVERFLOW))
    fake.memory.cq_overflow.store(6)
    fake.memory.sq_dropped.store(7)
    assert fake.memory.cq_flags
    fake.memory.cq_flags.store(int(abi.CqRingFlag.EVENTFD_DISABLED))
    assert fake.draw() == expected(
        """
        ring 0
        SQ  4 slots of 64 bytes, SQ array: slot i at i
              0 x#+.
            x consumed  # published  + written, not published  . never used
            head 1 (slot 1)  tail 2 (slot 2)  next 3 (slot 3)
            flags NEED_WAKEUP|CQ_OVERFLOW  dropped 7
              1 # RECV sockfd=3 addr=0x1000 nbytes=64 user_data=0x2
              2 + NOP user_data=0x3
        CQ  8 slots of 16 bytes
              0 xx#.....
            x seen  # completed, not seen  . never used
            head 2 (slot 2)  tail 3 (slot 3)
            flags EVENTFD_DISABLED  overflow 6
              2 # user_data=0x1 res=64 cqe_flags=BUFFER|MORE buffer=5
        """
    )


def test_positions_that_wrap() -> None:
    fake = Fake(4, 4, start=0xFFFF_FFFE)
    for user_data in range(4):
        fake.sq.prep_nop(user_data=user_data)
        fake.kernel.post(user_data)
    fake.sq.flush()
    fake.kernel.consume(1)
    drawn = fake.draw()
    assert "head 4294967295 (slot 3)  tail 2 (slot 2)  next 2 (slot 2)" in drawn
    assert "head 4294967294 (slot 2)  tail 2 (slot 2)" in drawn
    assert "  0 ##x#" in drawn and "  0 ####" in drawn
    assert [line[:9].split() for line in drawn.splitlines() if "user_data=0x" in line] == [
        ["3", "#"], ["0", "#"], ["1", "#"], ["3", "#"], ["0", "#"], ["1", "#"]
    ]  # fmt: skip


def test_a_large_ring_is_elided() -> None:
    fake = Fake(4096, 8192)
    for user_data in range(1500):
        fake.sq.prep_nop(user_data=user_data)
    fake.sq.flush()
    fake.kernel.consume(1000)
    for user_data in range(20):
        fake.sq.prep_poll_add(7, 1, user_data=user_data | 1 << 63)
    assert fake.draw() == expected(
        f"""
        ring NO_SQARRAY
        SQ  4096 slots of 64 bytes, no SQ array
              0 {"x" * 64}
              *
            960 {"x" * 40}{"#" * 24}
           1024 {"#" * 64}
              *
           1472 {"#" * 28}{"+" * 20}{"." * 16}
           1536 {"." * 64}
              *
           4032 {"." * 64}
            x consumed  # published  + written, not published  . never used
            head 1000 (slot 1000)  tail 1500 (slot 1500)  next 1520 (slot 1520)
            flags 0  dropped 0
           1000 # NOP user_data=0x3e8
           1001 # NOP user_data=0x3e9
           1002 # NOP user_data=0x3ea
           1003 # NOP user_data=0x3eb
                ... 512 more
           1516 + POLL_ADD fd=7 poll_mask=POLLIN user_data=0x8000000000000010
           1517 + POLL_ADD fd=7 poll_mask=POLLIN user_data=0x8000000000000011
           1518 + POLL_ADD fd=7 poll_mask=POLLIN user_data=0x8000000000000012
           1519 + POLL_ADD fd=7 poll_mask=POLLIN user_data=0x8000000000000013
        CQ  8192 slots of 16 bytes
              0 {"." * 64}
              *
           8128 {"." * 64}
            x seen  # completed, not seen  . never used
            head 0 (slot 0)  tail 0 (slot 0)
            flags 0  overflow 0
        """
    )


def test_large_sqes_and_cqes() -> None:
    fake = Fake(4, 4, Setup.NO_SQARRAY | Setup.SQE128 | Setup.CQE32)
    fake.sq.prep_nop(user_data=1)
    fake.kernel.sqes[64:128] = bytes(64)
    fake.kernel.post(1, 2, 0, (3, 4))
    drawn = fake.draw()
    assert "SQ  4 slots of 128 bytes, no SQ array\n      0 +..." in drawn
    assert "CQ  4 slots of 32 bytes\n      0 #..." in drawn
    assert "      0 + NOP user_data=0x1\n" in drawn
    assert drawn.endswith("      0 # user_data=0x1 res=2 big_cqe=0x3,0x4")


def test_sqes_and_cqes_of_two_slots() -> None:
    fake = Fake(8, 8, Setup.NO_SQARRAY | Setup.SQE_MIXED | Setup.CQE_MIXED)
    fake.sq.prep_nop(user_data=1)
    fake.put_wide(Op.NOP128)
    fake.put_wide(Op.URING_CMD128)
    fake.sq.prep_nop(user_data=2)
    for i in range(6):
        fake.kernel.post(i)
    fake.cq.drain()
    fake.kernel.post(6)
    fake.kernel.post(7, 0, 0, (1, 2))
    assert fake.draw() == expected(
        """
        ring NO_SQARRAY|CQE_MIXED|SQE_MIXED
        SQ  8 slots of 64 bytes, no SQ array
              0 ++++++..
            x consumed  # published  + written, not published  . never used
            head 0 (slot 0)  tail 0 (slot 0)  next 6 (slot 6)
            flags 0  dropped 0
              0 + NOP user_data=0x1
            1-2 + NOP128 user_data=0
            3-4 + URING_CMD128 fd=-1 cmd_op=SIOCINQ user_data=0
              5 + NOP user_data=0x2
        CQ  8 slots of 16 bytes
              0 ##xxxx##
            x seen  # completed, not seen  . never used
            head 6 (slot 6)  tail 10 (slot 2)
            flags 0  overflow 0
              6 # user_data=0x6 res=0
              7 # user_data=0xdead res=-1 (a filler, to be ignored) cqe_flags=SKIP
            0-1 # user_data=0x7 res=0 cqe_flags=F_32 big_cqe=0x1,0x2
        """
    )


def test_a_queue_that_rewinds() -> None:
    fake = Fake(4, 4, Setup.NO_SQARRAY | Setup.SQ_REWIND)
    assert isinstance(fake.sq, RewindingQueue)
    for user_data in range(3):
        fake.sq.prep_nop(user_data=user_data)
    fake.sq.flush()
    fake.sq.prep_nop(user_data=3)
    assert "  0 ###+" in fake.draw()
    fake.sq.answers = [2]  # an enter took two
    drawn = fake.draw()
    assert "  0 xx#+" in drawn and "head 2 (slot 2)  tail 3 (slot 3)  next 4 (slot 0)" in drawn
    fake.sq.look()
    drawn = fake.draw()
    assert "  0 #+.." in drawn and "head 2 (slot 0)  tail 3 (slot 1)  next 4 (slot 2)" in drawn
    assert "      0 # NOP user_data=0x2\n      1 + NOP user_data=0x3\n" in drawn


def test_every_line_keeps_to_80_columns() -> None:
    of_one_size = Setup.SQE128 | Setup.CQE32 | Setup.SQE_MIXED | Setup.CQE_MIXED
    everything = sum(flag for flag in Setup if not flag & of_one_size)
    fake = Fake(4, 4, everything)
    fake.sq.prep_openat(-100, 0x7FFF_FFFF_FFFF, 0x7FFF_FFFF, 0o777, user_data=(1 << 64) - 1, sqe_flags=0xFF)
    fake.kernel.post((1 << 64) - 1, -(1 << 31), 0xFFFF_FFFF & ~CqeFlag.F_32)
    lines = fake.draw().splitlines()
    assert lines[0].startswith("ring IOPOLL|SQPOLL|") and lines[1].startswith("     ")
    assert [line[:12] for line in lines if len(line) == 80 and line.endswith("...")] == ["      0 + OP", "      0 # us"]


def test_words_that_make_no_sense_are_drawn_too() -> None:
    """Somebody wrote over the ring's memory: that is when one looks."""
    fake = Fake(4, 4)
    fake.kernel.put(224, 0x7FFF_FFFF)  # the CQ tail
    assert "tail 2147483647 (slot 3)" in fake.draw()


def test_a_live_ring_is_only_looked_at() -> None:
    with Ring(4, wanted_flags=0) as ring:
        ring.sq.prep_nop(user_data=1)
        ring.submit()
        ring.sq.prep_nop(user_data=2)
        before = inspect.draw(ring)
        assert "x+.." in before and "#......." in before and "      1 + NOP user_data=0x2" in before
        assert inspect.draw(ring) == before == inspect.draw(inspect.state(ring))
        assert (ring.sq.unpublished, ring.cq.ready) == (1, 1)
        assert ring.completions() == [(1, 0, 0)]
    with pytest.raises(RingClosedError):
        inspect.draw(ring)
