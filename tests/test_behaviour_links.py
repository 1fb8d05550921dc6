"""Chains: how they run, break and are silent, what drains, and timeouts of another request. On every kind of ring."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest
from support import Pipe, address, needs, newest, path, pipe, results, ring, room, take, take_one, timespec

from rawuring import Ring, abi

Op, SqeFlag = abi.Op, abi.SqeFlag
LINK, HARD, DRAIN = int(SqeFlag.IO_LINK), int(SqeFlag.IO_HARDLINK), int(SqeFlag.IO_DRAIN)
SILENT = int(SqeFlag.CQE_SKIP_SUCCESS)
HOUR_NS = 3600 * 10**9
NOBODY = 1 << 40

__all__ = ["path", "pipe", "ring"]


def nothing_more(ring: Ring) -> None:
    """No completion is there, nor on its way from what completes at once."""
    ring.sq.prep_nop(user_data=999)
    assert take_one(ring, 999) == (0, 0)


def fail(ring: Ring, user_data: int, sqe_flags: int = 0) -> None:
    """Queue what fails when it runs, and not before, with ENOENT."""
    ring.sq.prep_poll_remove(NOBODY, user_data=user_data, sqe_flags=sqe_flags)


# --- chains


@pytest.mark.behaviour("link")
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_soft_chain_breaks_and_a_hard_one_does_not(ring: Ring, broken: int) -> None:
    for links, rest in ((LINK, -errno.ECANCELED), (HARD, 0)):
        for place in range(3):
            sqe_flags = links if place < 2 else 0
            if place == broken:
                fail(ring, place, sqe_flags)
            else:
                ring.sq.prep_nop(user_data=place, sqe_flags=sqe_flags)
        expected = {place: 0 if place < broken else rest for place in range(3)}
        assert results(ring, 3) == {**expected, broken: -errno.ENOENT}


@pytest.mark.behaviour("link")
def test_each_chain_of_a_batch_breaks_alone(ring: Ring) -> None:
    fail(ring, 1, LINK)
    ring.sq.prep_nop(user_data=2)
    ring.sq.prep_nop(user_data=3, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=4, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=5)
    ring.sq.prep_nop(user_data=6)
    expected = {1: -errno.ENOENT, 2: -errno.ECANCELED, 3: 0, 4: 0, 5: 0, 6: 0}
    assert results(ring, 6) == expected


@pytest.mark.behaviour("link")
def test_a_chain_waits_for_its_first_and_others_do_not(ring: Ring, pipe: Pipe) -> None:
    memory, data = room(4), bytearray(b"data")
    ring.sq.prep_read(pipe[0], address(memory), 4, 0, user_data=1, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=2)
    ring.sq.prep_nop(user_data=3)
    assert take_one(ring, 3) == (0, 0)
    ring.sq.prep_write(pipe[1], address(data), 4, 0, user_data=4)
    assert results(ring, 3) == {4: 4, 1: 4, 2: 0}
    assert memory == data


@pytest.mark.behaviour("link", "short-read")
def test_a_short_read_breaks_a_soft_chain_only(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    with path.open("rb", buffering=0) as file:
        for links, res in ((LINK, -errno.ECANCELED), (HARD, 0)):
            memory = room(4096)
            ring.sq.prep_read(file.fileno(), address(memory), 4096, 3, user_data=1, sqe_flags=links)
            ring.sq.prep_nop(user_data=2)
            assert results(ring, 2) == {1: 7, 2: res}
            assert memory == b"3456789" + room(4089)
        # All that was asked for, but no more, is not short; nothing at all is.
        for offset, nbytes, expected in ((8, 2, {1: 2, 2: 0}), (10, 2, {1: 0, 2: -errno.ECANCELED})):
            ring.sq.prep_read(file.fileno(), address(memory), nbytes, offset, user_data=1, sqe_flags=LINK)
            ring.sq.prep_nop(user_data=2)
            assert results(ring, 2) == expected


@pytest.mark.behaviour("submit-link-fail")
@pytest.mark.parametrize("drains", [False, True])
@pytest.mark.parametrize("links", [LINK, HARD], ids=["soft", "hard"])
def test_a_request_that_makes_no_sense_ends_its_chain(ring: Ring, pipe: Pipe, links: int, drains: bool) -> None:
    """Soft or hard: nothing of it runs."""
    needs("5.16", ring)  # before, what comes after it in the chain is submitted by itself
    memory = room(1)
    for length in (1, 2, 3):
        for bad in range(length):
            expected = dict.fromkeys(range(length), -errno.ECANCELED)
            if drains:  # the chain is put off until this has ended
                ring.sq.prep_read(pipe[0], address(memory), 1, 0, user_data=42, sqe_flags=DRAIN)
                expected[42] = 1
            for place in range(length):
                sqe_flags = (links if place < length - 1 else 0) | (DRAIN if drains else 0)
                if place == bad:
                    ring.sq.prep_rw(Op.READ, pipe[0], address(memory), 1, 0, ioprio=0xFFFF, user_data=place,
                                    sqe_flags=sqe_flags)  # fmt: skip
                    expected[place] = -errno.EINVAL
                else:
                    ring.sq.prep_nop(user_data=place, sqe_flags=sqe_flags)
            ring.submit()
            if drains:
                os.write(pipe[1], b"x")
            assert results(ring, len(expected)) == expected


# --- draining


@pytest.mark.behaviour("link_drain")
def test_a_drained_request_waits_for_all_before_it(ring: Ring, pipe: Pipe) -> None:
    memory = room(1)
    ring.sq.prep_read(pipe[0], address(memory), 1, 0, user_data=1)
    ring.sq.prep_nop(user_data=2)
    ring.sq.prep_nop(user_data=3, sqe_flags=DRAIN)
    ring.sq.prep_nop(user_data=4)
    assert take_one(ring, 2) == (0, 0)
    ring.submit_and_wait(0)
    assert ring.completions() == []  # 4 waits as well
    os.write(pipe[1], b"x")
    first, *others = [user_data for user_data, _, _ in take(ring, 3)]
    assert (first, sorted(others)) == (1, [3, 4])  # Linux 6.1 has 4 overtake 3 when both may go on


@pytest.mark.behaviour("link_drain")
@pytest.mark.parametrize("drained", [2, 3, 4])
def test_a_chain_with_a_drained_request_waits_as_a_whole(ring: Ring, pipe: Pipe, drained: int) -> None:
    """What comes after the chain waits, too, until the drained one may go on."""
    memory = room(1)
    ring.sq.prep_read(pipe[0], address(memory), 1, 0, user_data=1)
    for user_data in (2, 3, 4):
        sqe_flags = (LINK if user_data < 4 else 0) | (DRAIN if user_data == drained else 0)
        ring.sq.prep_nop(user_data=user_data, sqe_flags=sqe_flags)
    ring.sq.prep_nop(user_data=5)
    ring.submit_and_wait(0)
    assert ring.completions() == []
    os.write(pipe[1], b"x")
    first, *others = [user_data for user_data, _, _ in take(ring, 5)]
    assert first == 1 and [user_data for user_data in others if user_data != 5] == [2, 3, 4]


@pytest.mark.behaviour("link_drain")
def test_a_broken_chain_lets_what_drains_go_on(ring: Ring) -> None:
    fail(ring, 1, LINK)
    ring.sq.prep_nop(user_data=2, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=3)
    ring.sq.prep_nop(user_data=4, sqe_flags=DRAIN)
    found = take(ring, 4)
    assert sorted(found[:3]) == [(1, -errno.ENOENT, 0), (2, -errno.ECANCELED, 0), (3, -errno.ECANCELED, 0)]
    assert found[3] == (4, 0, 0)


# --- silence


@pytest.mark.behaviour("skip-cqe")
@pytest.mark.parametrize("links", [LINK, HARD], ids=["soft", "hard"])
def test_which_completions_of_a_chain_are_silent(ring: Ring, links: int) -> None:
    needs(abi.Feature.CQE_SKIP.since, bool(ring.features & abi.Feature.CQE_SKIP))
    for silent in itertools.product((False, True), repeat=3):
        for bad in (None, 0, 1, 2):
            expected = {}
            for place in range(3):
                sqe_flags = (links if place < 2 else 0) | (SILENT if silent[place] else 0)
                breaks = bad is not None and place > bad and links == LINK
                if place == bad:
                    fail(ring, place, sqe_flags)
                    expected[place] = -errno.ENOENT
                else:
                    ring.sq.prep_nop(user_data=place, sqe_flags=sqe_flags)
                    # Of what a failure cancels the failed one alone decides: silent itself, it speaks for all.
                    if not (silent[bad] if breaks and bad is not None else silent[place]):
                        expected[place] = -errno.ECANCELED if breaks else 0
            assert results(ring, len(expected)) == expected, (silent, bad)
            nothing_more(ring)


@pytest.mark.behaviour("skip-cqe")
@pytest.mark.parametrize("silent_timeout", [False, True])
@pytest.mark.parametrize("silent_read", [False, True])
def test_a_link_timeout_that_fires_in_silence(ring: Ring, pipe: Pipe, silent_read: bool, silent_timeout: bool) -> None:
    """The read fails, so it is told; the timeout says only that it did what it was for."""
    needs(abi.Feature.CQE_SKIP.since, bool(ring.features & abi.Feature.CQE_SKIP))
    memory, short = room(1), timespec(1_000_000)
    ring.sq.prep_read(pipe[0], address(memory), 1, 0, user_data=1, sqe_flags=LINK | (SILENT if silent_read else 0))
    ring.sq.prep_link_timeout(address(short), 0, user_data=2, sqe_flags=SILENT if silent_timeout else 0)
    found = results(ring, 1 if silent_timeout else 2)
    assert found.pop(1) == -errno.ECANCELED
    assert set(found.values()) == (set() if silent_timeout else {-errno.ETIME})
    nothing_more(ring)


@pytest.mark.behaviour("skip-cqe")
def test_a_ring_with_silent_requests_does_not_drain(ring: Ring) -> None:
    """It counts completions to know what came before. The docstring of the encoders says so."""
    needs(abi.Feature.CQE_SKIP.since, bool(ring.features & abi.Feature.CQE_SKIP))
    ring.sq.prep_nop(user_data=1, sqe_flags=DRAIN)
    assert take_one(ring, 1) == (0, 0)
    ring.sq.prep_nop(user_data=2, sqe_flags=SILENT)
    nothing_more(ring)
    ring.sq.prep_nop(user_data=3, sqe_flags=DRAIN)
    assert take_one(ring, 3) == (-errno.EOPNOTSUPP, 0)


# --- timeouts of another request


@pytest.mark.behaviour("link-timeout")
def test_a_link_timeout_follows_what_it_is_for(ring: Ring) -> None:
    hour = timespec(HOUR_NS)
    ring.sq.prep_link_timeout(address(hour), 0, user_data=1)
    assert take_one(ring, 1) == (-errno.EINVAL, 0)
    # Two in a row: the second has nothing to watch.
    needs("5.16", ring)
    ring.sq.prep_nop(user_data=1, sqe_flags=LINK)
    ring.sq.prep_link_timeout(address(hour), 0, user_data=2, sqe_flags=LINK)
    ring.sq.prep_link_timeout(address(hour), 0, user_data=3)
    assert results(ring, 3) == {1: -errno.ECANCELED, 2: -errno.ECANCELED, 3: -errno.EINVAL}


@pytest.mark.behaviour("link-timeout")
def test_a_link_timeout_of_what_fails_at_once(ring: Ring) -> None:
    hour = timespec(HOUR_NS)
    fail(ring, 1, LINK)
    ring.sq.prep_link_timeout(address(hour), 0, user_data=2)
    assert results(ring, 2) == {1: -errno.ENOENT, 2: -errno.ECANCELED}


@pytest.mark.behaviour("link-timeout")
def test_a_link_timeout_in_the_middle_of_a_chain(ring: Ring, pipe: Pipe) -> None:
    memory, short, hour = room(1), timespec(1_000_000), timespec(HOUR_NS)
    # Not needed: the chain goes on behind it.
    ring.sq.prep_nop(user_data=1, sqe_flags=LINK)
    ring.sq.prep_link_timeout(address(hour), 0, user_data=2, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=3)
    assert results(ring, 3) == {1: 0, 2: -errno.ECANCELED, 3: 0}
    # Fired: it does not.
    ring.sq.prep_nop(user_data=4, sqe_flags=LINK)
    ring.sq.prep_read(pipe[0], address(memory), 1, 0, user_data=5, sqe_flags=LINK)
    ring.sq.prep_link_timeout(address(short), 0, user_data=6, sqe_flags=LINK)
    ring.sq.prep_nop(user_data=7)
    found = results(ring, 4)
    assert found == {4: 0, 5: -errno.ECANCELED, 6: -errno.ETIME, 7: -errno.ECANCELED}
    # It begins with what it watches, not with the chain.
    ring.sq.prep_read(pipe[0], address(memory), 1, 0, user_data=8, sqe_flags=LINK)
    ring.sq.prep_timeout(address(short), 0, abi.Timeout.ETIME_SUCCESS if newest(ring) >= (5, 16) else 0, user_data=9)
    ring.submit()
    os.write(pipe[1], b"x")
    assert results(ring, 2) == {8: 1, 9: -errno.ETIME}


@pytest.mark.behaviour("link-timeout")
def test_which_update_finds_a_link_timeout(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Timeout.LINK_UPDATE.since, ring)
    memory, hour, short = room(1), timespec(HOUR_NS), timespec(1_000_000)
    ring.sq.prep_read(pipe[0], address(memory), 1, 0, user_data=1, sqe_flags=LINK)
    ring.sq.prep_link_timeout(address(hour), 0, user_data=2)
    ring.sq.prep_timeout_update(address(short), 2, 0, user_data=3)  # it looks among the others
    ring.sq.prep_timeout_update(address(short), 9, abi.Timeout.LINK_UPDATE, user_data=4)
    assert results(ring, 2) == {3: -errno.ENOENT, 4: -errno.ENOENT}
    ring.sq.prep_timeout_update(address(short), 2, abi.Timeout.LINK_UPDATE, user_data=5)
    assert results(ring, 3) == {5: 0, 1: -errno.ECANCELED, 2: -errno.ETIME}
