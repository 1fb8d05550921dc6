"""Blocks of CQEs: what `take_block` copies out of a queue, and what columns show of it.

The queues are on plain memory with a fake kernel, but for the last part, which runs on this kernel.
"""

from __future__ import annotations

import sys

import pytest
from support import granted, ring
from test_queues import CANARY, CLOSED, CQ_OFFSETS, CQES, START, FakeKernel, interrupt_store

from rawuring import CqeBlock, RawuringError, Ring, RingClosedError, SqeBlock, abi
from rawuring.cq import CompletionQueue

portable = pytest.mark.portable

Setup = abi.Setup

__all__ = ["ring"]


def queue(cq_entries: int = 4, setup_flags: int = 0) -> tuple[FakeKernel, CompletionQueue]:
    kernel = FakeKernel(cq_entries=cq_entries, setup_flags=Setup.NO_SQARRAY | setup_flags)
    return kernel, CompletionQueue(kernel.memory(), setup_flags)


def posted(kernel: FakeKernel, number: int) -> tuple[int, int, int]:
    """Post one that is like no other."""
    cqe = ((1 << 63) - 1 - number * 0x1_0001_0001, number if number % 3 else -number, number << 16 | 1)
    kernel.post(*cqe)
    return cqe


# --- taking


@portable
@pytest.mark.parametrize("setup_flags", [0, Setup.CQE32])
def test_blocks_and_lists_take_the_same(setup_flags: int) -> None:
    """At every place of the array, over its end, and in turns with drain()."""
    kernel, cq = queue(8, setup_flags)
    block = CqeBlock(8, kernel.cqe_nbytes)
    number = 0
    for turn in range(60):
        count = turn % 9
        expected = [posted(kernel, number + i) for i in range(count)]
        number += count
        if turn % 5 == 4:
            assert cq.drain() == expected
        else:
            assert cq.take_block(block) == count
            assert block.cqes(count) == expected
            assert block.column("user_data")[:count].tolist() == [cqe[0] for cqe in expected]
            assert block.column("res")[:count].tolist() == [cqe[1] for cqe in expected]
            assert block.column("flags")[:count].tolist() == [cqe[2] for cqe in expected]
        assert (cq.ready, kernel.free()) == (0, 8)
        assert cq.head == START + number
    assert kernel.ring[CQES + 8 * kernel.cqe_nbytes :] == bytes([CANARY]) * 64


@portable
def test_a_small_block_takes_what_it_has_room_for() -> None:
    kernel, cq = queue(8)
    block = CqeBlock(3)
    expected = [posted(kernel, number) for number in range(8)]
    found = []
    for count in (3, 3, 2, 0):
        assert cq.take_block(block) == count
        found += block.cqes(count)
        assert cq.ready == 8 - len(found)
    assert found == expected


@portable
def test_what_was_taken_is_no_shared_memory() -> None:
    kernel, cq = queue()
    block = CqeBlock(4)
    kernel.post(1, 2, 4)
    cq.take_block(block)
    kernel.ring[CQES:] = b"\xff" * len(kernel.ring[CQES:])
    cq.close(CLOSED)
    assert block.cqes(1) == [(1, 2, 4)]
    with pytest.raises(RingClosedError, match="closed"):
        cq.take_block(block)


@portable
def test_an_interrupt_while_the_head_is_stored_takes_nothing_twice() -> None:
    kernel, cq = queue()
    interrupt_store(cq, stored=True)
    block = CqeBlock(4)
    kernel.post(1)
    kernel.post(2)
    with pytest.raises(KeyboardInterrupt):
        cq.take_block(block)
    assert kernel.get(CQ_OFFSETS["head"]) == (START + 2) & 0xFFFF_FFFF
    kernel.post(3)
    assert cq.drain() == [(3, 0, 0)]


@portable
@pytest.mark.parametrize(
    ("setup_flags", "cqe_nbytes", "says"),
    [
        (0, 32, r"CQEs of 16 bytes: .*CqeBlock\(entries, 16\)"),
        (Setup.CQE32, 16, r"CQEs of 32 bytes: .*CqeBlock\(entries, 32\)"),
        (Setup.CQE_MIXED, 16, r"two sizes.*drain32\(\)"),
        (Setup.CQE_MIXED, 32, r"two sizes.*drain32\(\)"),
    ],
)
def test_blocks_that_do_not_suit_the_queue(setup_flags: int, cqe_nbytes: int, says: str) -> None:
    kernel, cq = queue(4, setup_flags)
    kernel.post(1)
    with pytest.raises(RawuringError, match=says):
        cq.take_block(CqeBlock(4, cqe_nbytes))
    assert cq.ready == 1


# --- columns


@portable
@pytest.mark.parametrize(("entries", "cqe_nbytes"), [(0, 16), (-1, 16), (1, 8), (1, 0), (1, 64)])
def test_sizes_that_no_block_has(entries: int, cqe_nbytes: int) -> None:
    with pytest.raises(RawuringError, match="one completion or more" if entries < 1 else r"Setup\.CQE32"):
        CqeBlock(entries, cqe_nbytes)


@portable
@pytest.mark.parametrize("cqe_nbytes", [16, 32])
def test_other_formats_are_the_same_bits(cqe_nbytes: int) -> None:
    kernel, cq = queue(4, Setup.CQE32 if cqe_nbytes == 32 else 0)
    block = CqeBlock(4, cqe_nbytes)
    kernel.post(0x1234_5678_FFFF_FFFE, -5, 0x8001_0003)
    kernel.post(0x8000_0000_0001_0002, 7, 3)
    cq.take_block(block)
    columns = {
        ("user_data", "Q"): [0x1234_5678_FFFF_FFFE, 0x8000_0000_0001_0002],
        ("user_data", "q"): [0x1234_5678_FFFF_FFFE, 0x8000_0000_0001_0002 - (1 << 64)],
        ("user_data", "I"): [0xFFFF_FFFE, 0x0001_0002],
        ("user_data", "i"): [-2, 0x0001_0002],
        ("res", "i"): [-5, 7],
        ("res", "I"): [(1 << 32) - 5, 7],
        ("res", "H"): [(1 << 16) - 5, 7],
        ("flags", "I"): [0x8001_0003, 3],
        ("flags", "h"): [3, 3],
    }
    for (name, item_format), expected in columns.items():
        column = block.column(name, item_format)
        assert (column.format, len(column), column[:2].tolist()) == (item_format, 4, expected)


@portable
@pytest.mark.parametrize(
    ("name", "item_format", "says"),
    [
        ("cqe_flags", "", "no number 'cqe_flags': it has user_data, res and flags"),
        ("big_cqe", "", "no number 'big_cqe'"),
        ("res", "Q", "res has 4 bytes: 'Q' is for neither all of them nor half"),
        ("user_data", "H", "user_data has 8 bytes: 'H'"),
        ("user_data", "d", "'d' is no format of an integer"),
        ("res", "f", "'f' is no format"),
        ("flags", "B", "'B' is no format"),
        ("res", "=i", "'=i' is no format"),
        ("res", "@f", "'@f'"),
        ("user_data", "P", "'P'"),
        ("res", "two", "'two' is no format"),
    ],
)
def test_columns_that_there_are_not(name: str, item_format: str, says: str) -> None:
    with pytest.raises(RawuringError, match=says):
        CqeBlock(1).column(name, item_format)


@portable
@pytest.mark.parametrize("count", [-1, 3])
def test_more_than_the_block_has_room_for_is_refused(count: int) -> None:
    with pytest.raises(RawuringError, match=rf"room for 2 completions, not for {count}"):
        CqeBlock(2).cqes(count)


@portable
def test_columns_go_from_completions_to_requests() -> None:
    """The lower half of user_data as descriptors, and res as lengths."""
    kernel, cq = queue(4)
    block, requests = CqeBlock(4), SqeBlock(4)
    for _ in range(4):
        requests.prep_send(-1, 0, 0, 0)
    for fd in (5, 3, 9):
        kernel.post(7 << 35 | fd, 100 * fd)
    count = cq.take_block(block)
    requests.column("fd")[1 : 1 + count] = block.column("user_data", "i")[:count]
    requests.column("len")[1 : 1 + count] = block.column("res", "I")[:count]
    requests.column("user_data")[1 : 1 + count] = block.column("user_data")[:count]
    assert requests.column("fd").tolist() == [-1, 5, 3, 9]
    assert requests.column("len").tolist() == [0, 500, 300, 900]
    assert requests.column("user_data").tolist() == [0, *(7 << 35 | fd for fd in (5, 3, 9))]


# --- on this kernel


@pytest.mark.parametrize("setup_flags", [Setup(0), Setup.CQE32])
def test_completions_of_this_kernel(setup_flags: Setup) -> None:
    with granted(setup_flags, 64) as ring:
        block = CqeBlock(50, 32 if setup_flags else 16)
        for turn in range(20):
            numbers = [turn * 1000 + i for i in range(1 + turn * 7 % 50)]
            for number in numbers:
                ring.sq.prep_nop(user_data=number)
            ring.submit_and_wait(len(numbers))
            count = ring.cq.take_block(block)
            assert block.column("user_data")[:count].tolist() == numbers
            assert set(block.column("res")[:count]) == {0}
        assert ring.completions() == []


def test_the_byte_order_is_that_of_the_machine(ring: Ring) -> None:
    ring.sq.prep_nop(user_data=0x0102_0304_0506_0708)
    ring.submit_and_wait(1)
    block = CqeBlock(1)
    ring.cq.take_block(block)
    assert block.column("user_data", "I")[0] == 0x0506_0708
    assert bytes(block.column("user_data")) == (0x0102_0304_0506_0708).to_bytes(8, sys.byteorder)
