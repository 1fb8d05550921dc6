"""Bundles and incremental buffers: data that lies in several buffers or in a part of one, lent, and given back once."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from conftest import RunChild
from support import HANG_NS, Pipe, needs, pipe, ring, shorten
from test_lifetimes import run

from rawuring import BufferUseError, OutOfOrderError, RawuringError, Ring, Stream, UnsupportedError, abi, register
from rawuring.buffers import BufferGroup, BufferRing, IncrementalRing, OutgoingRing
from rawuring.inflight import BufferOperation, BufferStream
from rawuring.ring import ordering

Pair = tuple[socket.socket, socket.socket]

__all__ = ["pipe", "ring"]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        for each in (one, other):
            each.settimeout(HANG_NS / 1e9)
        yield one, other


@pytest.fixture
def tcp() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as one:
            other, _ = listener.accept()
            with other:
                for each in (one, other):
                    each.settimeout(HANG_NS / 1e9)
                yield one, other


def needs_bundles(ring: Ring) -> None:
    needs(abi.RecvSend.BUNDLE.since, bool(ring.features & abi.Feature.RECVSEND_BUNDLE))


def incremental(ring: Ring, count: int, nbytes: int) -> BufferRing:
    """A group of incremental buffers, or the test is skipped and the release named."""
    try:
        return ring.buffer_ring(count, nbytes, incremental=True)
    except UnsupportedError as error:
        needs(error.needs, False)
        raise


class Receiver:
    """A stream that begins again when it ended: as a bundle may, when it has used the last buffer."""

    def __init__(self, stream: BufferStream) -> None:
        self.stream: Stream[int] = stream

    def next(self) -> tuple[int, int]:
        while (got := self.stream.next(HANG_NS)) is None:
            self.stream = self.stream.again()
        assert got[0] > 0
        return got

    def several(self, pool: BufferRing) -> tuple[int, int]:
        """The next completion that fills several buffers."""
        while len(pool.parts(*(got := self.next()))) < 2:
            pool.take(*got)
        return got

    def end(self) -> None:
        if not self.stream.done:
            self.stream.cancel()
            assert self.stream.wait_cqe(HANG_NS)[0] in (-errno.ECANCELED, -errno.ENOBUFS)
        del self.stream


def numbered(first: int, count: int) -> bytes:
    """Bytes that show where they are in a stream, in words of 4."""
    return b"".join(i.to_bytes(4, "big") for i in range(first, first + count))


def check_whole(ring: Ring, pool: BufferRing, pair: Pair) -> None:
    """Every buffer of the pool is the kernel's, once."""
    one, other = pair
    bids: list[int] = []
    for _ in range(pool.count):
        other.send(b"x" * pool.nbytes)
        res, cqe_flags = ring.recv_select(one, pool).wait_cqe(HANG_NS)
        assert res == pool.nbytes, f"the pool lacks {pool.count - len(bids)} buffers: {res}"
        bids += pool.held(cqe_flags)
    assert sorted(bids) == list(range(pool.count)), bids
    other.send(b"x")
    assert ring.recv_select(one, pool).wait_cqe(HANG_NS)[0] == -errno.ENOBUFS, "a buffer is there twice"
    assert one.recv(1) == b"x"
    pool.give_back(bids)


# --- groups


def test_a_group_is_closed_by_its_own_ring(ring: Ring, pair: Pair) -> None:
    needs("6.0", ring)
    one, other = pair
    with Ring(4) as another:
        ours, theirs = ring.buffer_ring(2, 16), another.buffer_ring(2, 16)
        assert ours.bgid == theirs.bgid
        stream = another.recv_multishot(one, theirs)
        another.submit()
        with pytest.raises(OutOfOrderError, match="another ring"):
            ring.close_buffer_ring(theirs)
        other.send(b"theirs")
        got = stream.next(HANG_NS)
        assert got is not None and theirs.take(*got) == b"theirs", "it is in use there as before"
        del stream
    ring.close_buffer_ring(ours)
    ring.close_buffer_ring(ours)
    assert ring.buffer_ring(2, 16).bgid == ours.bgid, "and this ring's was taken back from the kernel"


def test_only_a_buffer_ring_is_closed(ring: Ring) -> None:
    with pytest.raises(BufferUseError, match="remove_buffers"):
        ring.close_buffer_ring(ring.provided_buffers(2, 16))  # type: ignore[arg-type]
    with pytest.raises(BufferUseError, match="no group"):
        ring.close_buffer_ring(bytearray(8))  # type: ignore[arg-type]


@pytest.mark.parametrize("bgid", [-1, 70000])
def test_a_group_has_a_number_of_16_bits(ring: Ring, bgid: int) -> None:
    for make in (ring.buffer_ring, ring.provided_buffers):
        with pytest.raises(RawuringError, match="0 to 65535"):
            make(2, 16, bgid=bgid)
    assert ring._groups == {}


def test_a_group_that_could_not_be_made_leaves_its_number_free(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    for count, nbytes in ((0, 16), (-1, 16), (70000, 16), (1, 1 << 32)):
        for make in (ring.buffer_ring, ring.provided_buffers):
            with pytest.raises(RawuringError):
                make(count, nbytes, bgid=7)

    def interrupt(*_: object, **fields: int) -> None:
        raise KeyboardInterrupt

    for place, attribute in ((BufferRing, "_publish"), (type(ring.sq), "prep_provide_buffers")):
        with monkeypatch.context() as patch:
            patch.setattr(place, attribute, interrupt)
            make = ring.buffer_ring if place is BufferRing else ring.provided_buffers
            with pytest.raises((KeyboardInterrupt, UnsupportedError)):
                make(2, 16, bgid=7)
    assert ring._groups == {}
    assert ring.provided_buffers(2, 16, bgid=8).bgid == 8
    needs("6.0", ring)
    assert ring.buffer_ring(2, 16, bgid=7).bgid == 7, "the kernel has none of that number"


def test_a_number_that_the_kernel_has_a_group_for_already(ring: Ring, pair: Pair) -> None:
    needs("6.0", ring)
    one, other = pair
    pool = ring.buffer_ring(2, 16, bgid=7)
    del ring._groups[7]  # as if the raw layer had registered it
    with pytest.raises(FileExistsError):
        ring.buffer_ring(2, 16, bgid=7)
    ring._groups[7] = pool
    other.send(b"there still")
    assert ring.recv_select(one, pool).wait(HANG_NS) == b"there still"


# --- receiving bundles


@pytest.mark.parametrize("how", ["take", "with", "for", "lend one by one, the last first"])
def test_a_bundle_has_its_data_in_order(ring: Ring, tcp: Pair, how: str) -> None:
    needs_bundles(ring)
    one, other = tcp
    pool = ring.buffer_ring(8, 64)
    receiver = Receiver(ring.recv_multishot(one, pool, bundle=True))
    largest = 0
    for lap in range(7):  # around the end of the ring, at every place of it
        expected = numbered(lap * 100, 75)
        other.sendall(expected)
        data = b""
        while len(data) < 300:
            res, cqe_flags = receiver.next()
            largest = max(largest, len(pool.parts(res, cqe_flags)))
            if how == "take":
                data += pool.take(res, cqe_flags)
            elif how == "with":
                with pool.lend_bundle(res, cqe_flags) as views:
                    data += b"".join(views)
                with pytest.raises(ValueError, match="released"):
                    views[0][0]
            elif how == "for":
                for view in pool.lend_bundle(res, cqe_flags):
                    data += view
            else:
                data += pool.copy(res, cqe_flags)
                for bid in reversed(pool.held(cqe_flags)):
                    pool.give_back([bid])
        assert data == expected
    assert largest > 1, "no completion filled several buffers"
    receiver.end()
    check_whole(ring, pool, tcp)


def test_a_bundle_among_buffers_in_any_order(ring: Ring, pair: Pair) -> None:
    needs_bundles(ring)
    one, other = pair
    random = Random(7)
    pool = ring.buffer_ring(8, 16)
    held: list[int] = []
    # Before the first bundle the buffers are shuffled, and some are held.
    for _ in range(13):
        other.send(b"x")
        held += pool.held(ring.recv_select(one, pool).wait_cqe(HANG_NS)[1])
        if len(held) == 5:
            random.shuffle(held)
            pool.give_back(held[:4])
            held = held[4:]
    sent, received = b"", 0
    waiting: list[tuple[int, int, int]] = []  # where the data belongs, and the completion
    for lap in range(60):
        data = numbered(len(sent) // 4, random.randrange(1, 12))
        other.sendall(data)
        sent += data
        res, cqe_flags = ring.recv_select(one, pool, bundle=True).wait_cqe(HANG_NS)
        if res == -errno.ENOBUFS:
            assert waiting or held
        else:
            waiting.append((received, res, cqe_flags))
            received += res
        if res < 0 or lap % 3 == 2:
            random.shuffle(waiting)
            for start, res, cqe_flags in waiting:
                assert pool.take(res, cqe_flags) == sent[start : start + res]
            waiting.clear()
            pool.give_back(held)
            held.clear()
    while received < len(sent):
        data = ring.recv_select(one, pool, bundle=True).wait(HANG_NS)
        assert data == sent[received : received + len(data)] != b""
        received += len(data)
    check_whole(ring, pool, pair)


def test_one_buffers_loan_refuses_several(ring: Ring, tcp: Pair) -> None:
    needs_bundles(ring)
    one, other = tcp
    pool = ring.buffer_ring(8, 64)
    other.sendall(b"x" * 320)
    receiver = Receiver(ring.recv_multishot(one, pool, bundle=True))
    res, cqe_flags = receiver.several(pool)
    with pytest.raises(BufferUseError, match="lend_bundle"):
        pool.lend(res, cqe_flags)
    assert pool.take(res, cqe_flags) == b"x" * res


def test_a_loop_that_is_left_gives_back_what_it_has_not_seen(ring: Ring, tcp: Pair, pair: Pair) -> None:
    needs_bundles(ring)
    one, other = tcp
    pool = ring.buffer_ring(8, 64)
    other.sendall(bytes(320))
    receiver = Receiver(ring.recv_multishot(one, pool, bundle=True))
    for _ in pool.lend_bundle(*receiver.several(pool)):
        break
    receiver.stream.cancel()
    receiver.stream.wait_cqe(HANG_NS)
    del receiver
    ring.nop().wait()
    check_whole(ring, pool, pair)


def test_the_end_of_a_stream_of_bundles_holds_no_buffer(ring: Ring, tcp: Pair, pair: Pair) -> None:
    needs_bundles(ring)
    one, other = tcp
    pool = ring.buffer_ring(4, 64)
    other.close()
    stream = ring.recv_multishot(one, pool, bundle=True)
    ((res, cqe_flags),) = list(stream)
    assert res == 0 and pool.held(cqe_flags) == []
    with pool.lend_bundle(res, cqe_flags) as views:
        assert views == []
    op = ring.recv_select(one, pool, bundle=True)
    assert op.wait(HANG_NS) == b""
    check_whole(ring, pool, pair)


def test_a_shortened_buffer_is_whole_when_it_is_given_back(ring: Ring, pair: Pair) -> None:
    needs("5.19", ring)
    one, other = pair
    pool = ring.buffer_ring(1, 64)
    for _ in range(3):
        other.send(b"x" * 64)
        res, cqe_flags = ring.recv_select(one, pool).wait_cqe(HANG_NS)
        assert res == 64
        shorten(pool, 0, 10)
        pool.give_back(pool.held(cqe_flags))


@pytest.mark.parametrize("stream", [True, False])
def test_a_bundle_fills_a_buffer_as_far_as_its_entry_says(ring: Ring, pair: Pair, tcp: Pair, stream: bool) -> None:
    needs_bundles(ring)
    one, other = tcp
    pool = ring.buffer_ring(8, 16)
    pool.follow()
    for slot, nbytes in (0, 5), (1, 16), (2, 1), (5, 3):
        shorten(pool, slot, nbytes)
    other.sendall(numbered(0, 15))
    received = b""
    receiver = Receiver(ring.recv_multishot(one, pool, bundle=True)) if stream else None
    while len(received) < 60:
        got = receiver.next() if receiver else ring.recv_select(one, pool, bundle=True).wait_cqe(HANG_NS)
        received += pool.take(*got)
    assert received == numbered(0, 15)
    if receiver:
        receiver.end()
    check_whole_after_a_lap(ring, pool, pair)


def check_whole_after_a_lap(ring: Ring, pool: BufferRing, pair: Pair) -> None:
    """As `check_whole`, where the kernel may still have buffers that are shortened."""
    one, other = pair
    for _ in range(pool.count):
        other.send(b"x")
        pool.take(*ring.recv_select(one, pool).wait_cqe(HANG_NS))
    check_whole(ring, pool, pair)


def test_a_bundle_that_counted_on_more_data_than_there_was(ring: Ring, pair: Pair, tcp: Pair) -> None:
    """The urgent byte and the end of the stream count as data, so that the kernel means to fill a part of a buffer."""
    needs_bundles(ring)
    one, other = tcp
    pool = ring.buffer_ring(8, 64)
    other.sendall(b"a" * 64)
    other.send(b"!", socket.MSG_OOB)
    other.shutdown(socket.SHUT_WR)
    received = b""
    for res, cqe_flags in ring.recv_multishot(one, pool, bundle=True):
        received += pool.take(res, cqe_flags)
    assert received == b"a" * 64
    one, other = pair
    other.sendall(numbered(0, 48))
    receiver = Receiver(ring.recv_multishot(one, pool, bundle=True))
    received = b""
    while len(received) < 192:
        received += pool.take(*receiver.next())
    assert received == numbered(0, 48)
    receiver.end()
    check_whole_after_a_lap(ring, pool, pair)


def test_bundles_need_a_buffer_ring_and_a_kernel(ring: Ring, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    group = ring.provided_buffers(2, 16)
    if ring.features & abi.Feature.RECVSEND_BUNDLE:
        with pytest.raises(BufferUseError, match="buffer ring"):
            ring.recv_multishot(pair[0], group, bundle=True)
    monkeypatch.setattr(ring, "features", abi.Feature(0))
    with pytest.raises(UnsupportedError, match="bundles needs Linux 6.10"):
        ring.recv_select(pair[0], group, bundle=True)
    with pytest.raises(UnsupportedError, match="bundles needs Linux 6.10"):
        ring.send_buffers(2, 16)


@pytest.mark.parametrize("how", ["bundles", "incremental"])
def test_a_worker_takes_no_buffer_that_nobody_could_give_back(ring: Ring, pair: Pair, how: str) -> None:
    needs_bundles(ring)
    one, _ = pair
    bundle = how == "bundles"
    pool = ring.buffer_ring(2, 16) if bundle else incremental(ring, 2, 16)
    for receive in (ring.recv_select, ring.recv_multishot):
        with pytest.raises(OutOfOrderError, match="ASYNC"):
            receive(one, pool, bundle=bundle, sqe_flags=abi.SqeFlag.ASYNC)
    if not bundle:
        for read in (ring.read_select, ring.read_multishot):
            with pytest.raises(OutOfOrderError, match="ASYNC"):
                read(one, pool, sqe_flags=abi.SqeFlag.ASYNC)
    assert ring.in_flight == 0
    check_whole(ring, pool, pair)


def test_a_stream_that_ends_after_so_many_bytes(ring: Ring, pair: Pair) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = pair
    pool = ring.buffer_ring(4, 16)
    other.sendall(b"0123456789")
    stream = ring.recv_multishot(one, pool, total_nbytes=4)
    got = list(stream)
    if got[0][0] == -errno.EINVAL:
        assert isinstance(stream.error(-errno.EINVAL), UnsupportedError)
        needs("6.17", False)
    assert [pool.take(*each) for each in got] == [b"0123456789"] and stream.done


# --- sending bundles


def test_what_was_put_is_sent_in_order(ring: Ring, tcp: Pair) -> None:
    needs_bundles(ring)
    one, other = tcp
    pool = ring.send_buffers(4, 64)
    for lap in range(9):
        expected = b""
        for i in range(1 + lap % 4):
            data = bytes([lap * 16 + i]) * (1 + 21 * i % 64)
            pool.put(data)
            expected += data
        op = ring.send_bundle(one, pool)
        assert op.wait(HANG_NS) == len(expected)
        got = b""
        while len(got) < len(expected):
            got += other.recv(1000)
        assert got == expected
        assert pool.free == 4, "they can be filled again"


def test_buffers_to_send_from_are_filled_once(ring: Ring, tcp: Pair) -> None:
    needs_bundles(ring)
    one, other = tcp
    pool = ring.send_buffers(2, 8)
    for data in (b"", b"too long to fit"):
        with pytest.raises(BufferUseError):
            pool.put(data)
    pool.put(memoryview(b"12345678"))
    pool.put(bytearray(b"9"))
    with pytest.raises(OutOfOrderError, match="waits to be sent"):
        pool.put(b"x")
    with pytest.raises(OutOfOrderError, match="put"):
        pool.give_back([0])
    with pytest.raises(BufferUseError, match="send_buffers"):
        ring.send_bundle(one, ring.buffer_ring(2, 8))  # type: ignore[arg-type]
    sent: list[int] = []
    op = ring.send_bundle(one, pool, callback=lambda op, res, cqe_flags: sent.append(res))
    while not op.done:
        assert ring.run_once(HANG_NS)
    assert sum(res for res in sent if res > 0) == 9 and other.recv(100) == b"123456789"
    with pytest.raises(OSError) as failed:
        ring.send_bundle(one, pool).wait(HANG_NS)
    assert failed.value.errno == errno.ENOBUFS, "there is nothing to send"
    ring.close_buffer_ring(pool)
    with pytest.raises(OutOfOrderError, match="closed"):
        pool.put(b"x")


def test_nothing_is_received_into_buffers_to_send_from(ring: Ring, pair: Pair) -> None:
    needs_bundles(ring)
    one, other = pair
    pool = ring.send_buffers(2, 512)
    pool.put(b"to be sent")
    other.send(b"received")
    for receive in (
        ring.recv_select, ring.recv_multishot, ring.read_select, ring.read_multishot, ring.recvmsg_multishot,
    ):  # fmt: skip
        with pytest.raises(BufferUseError, match="buffer_ring"):
            receive(one, pool)
    with pytest.raises(BufferUseError, match="buffer_ring"):
        ring.recv_select(one, pool, bundle=True)
    assert ring.in_flight == 0
    assert ring.send_bundle(one, pool).wait(HANG_NS) == 10 and other.recv(100) == b"to be sent"
    assert one.recv(100) == b"received" and pool.free == 2


def check_sends(ring: Ring, pool: OutgoingRing, pair: Pair, waiting: bytes = b"") -> None:
    """Every buffer can be filled but those of `waiting`, and just what is put now is sent behind these."""
    one, other = pair
    expected = waiting
    while pool.free:
        data = b"new%d" % pool.free
        pool.put(data)
        expected += data
    assert ring.send_bundle(one, pool).wait(HANG_NS) == len(expected)
    assert other.recv(2 * len(expected)) == expected
    assert pool.free == pool.count


def test_what_a_peer_that_is_gone_does_not_get_is_dropped(ring: Ring, pair: Pair, tcp: Pair) -> None:
    needs_bundles(ring)
    one, other = pair
    pool = ring.send_buffers(2, 8)
    other.close()
    for lap in range(5):
        for _ in range(1 + lap % 2):
            pool.put(b"lost")
        with pytest.raises(BrokenPipeError):
            ring.send_bundle(one, pool).wait(HANG_NS)
        assert pool.free == 2
    check_sends(ring, pool, tcp)


def test_what_a_cancelled_send_had_taken_is_dropped(ring: Ring, pair: Pair) -> None:
    needs_bundles(ring)
    one, other = pair
    full = 0
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            full += one.send(bytes(4096))
    one.setblocking(True)  # else a send that finds no room ends at once
    pool = ring.send_buffers(8, 8)
    for _ in range(3):
        pool.put(b"lost")
    op = ring.send_bundle(one, pool)
    ring.submit()
    deadline = time.monotonic_ns() + HANG_NS
    while register.buf_ring_head(ring._fd, pool.bgid) < 3:  # the SQ thread may take its time
        assert time.monotonic_ns() < deadline
        time.sleep(0.001)
    pool.put(b"later")
    assert pool.free == 4, "a send in flight may still need them"
    op.cancel()
    with pytest.raises(OSError) as failed:
        op.wait(HANG_NS)
    assert failed.value.errno == errno.ECANCELED
    assert pool.free == 7
    while full:
        full -= len(other.recv(full))
    check_sends(ring, pool, pair, b"later")


def test_what_a_short_send_had_taken_is_dropped(ring: Ring, pair: Pair) -> None:
    needs_bundles(ring)
    one, other = pair
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pool = ring.send_buffers(64, 4096)
    expected = b""
    for i in range(64):
        data = bytes([i]) * 4096
        pool.put(data)
        expected += data
    op = ring.send_bundle(one, pool)
    ring.submit()
    op.cancel()  # nobody reads: what does not fit at once never will
    sent = op.wait(HANG_NS)
    assert 0 < sent < len(expected)
    got = b""
    while len(got) < sent:
        got += other.recv(sent)
    assert got == expected[:sent]
    assert pool.free == 64
    check_sends(ring, pool, pair)


def test_what_was_dropped_is_kept_where_the_kernel_cannot_be_asked(
    ring: Ring, pair: Pair, tcp: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_bundles(ring)
    pool = ring.send_buffers(4, 8)
    pair[1].close()
    pool.put(b"lost")

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "restricted")

    with monkeypatch.context() as patch:
        patch.setattr(register, "buf_ring_head", refuse)
        with pytest.raises(BrokenPipeError):
            ring.send_bundle(pair[0], pool).wait(HANG_NS)
        assert pool.free == 3
        pool.put(b"sent")
        assert ring.send_bundle(tcp[0], pool).wait(HANG_NS) == 4 and tcp[1].recv(100) == b"sent"
        assert pool.free == 3
    pool.put(b"x")
    assert ring.send_bundle(tcp[0], pool).wait(HANG_NS) == 1 and tcp[1].recv(100) == b"x"
    check_sends(ring, pool, tcp)


# --- incremental buffers


def test_an_incremental_buffer_has_the_data_of_many_completions(ring: Ring, pair: Pair) -> None:
    pool = incremental(ring, 2, 64)
    one, other = pair
    receiver = Receiver(ring.recv_multishot(one, pool))
    sent = received = b""
    for i in range(40):
        data = numbered(i * 10, 1 + i % 9)
        other.sendall(data)
        sent += data
        while len(received) < len(sent):
            res, cqe_flags = receiver.next()
            with pool.lend(res, cqe_flags) as view:
                received += view
    assert received == sent
    receiver.end()


def test_two_streams_share_incremental_buffers(ring: Ring, pair: Pair, tcp: Pair) -> None:
    """Each completion's data is its own, in whatever order the two streams are read."""
    pool = incremental(ring, 4, 64)
    receivers = [Receiver(ring.recv_multishot(each[0], pool)) for each in (pair, tcp)]
    ring.submit()
    for lap in range(12):
        expected = []
        for i, (_, other) in enumerate((pair, tcp)):
            other.sendall(numbered(lap * 100 + i * 50, 7 + i))
        for i in reversed(range(2)):
            data = b""
            loans = []
            while len(data) < 4 * (7 + i):
                res, cqe_flags = receivers[i].next()
                loan = pool.lend_bundle(res, cqe_flags)
                data += b"".join(loan.__enter__())
                loans.append(loan)
            expected.append(data == numbered(lap * 100 + i * 50, 7 + i))
            for loan in reversed(loans):
                loan.__exit__()
        assert expected == [True, True]
    for receiver in receivers:
        receiver.end()


def test_an_incremental_buffer_goes_back_when_all_its_loans_ended(ring: Ring, pair: Pair) -> None:
    pool = incremental(ring, 2, 16)
    one, other = pair

    def receive(data: bytes) -> tuple[int, int]:
        other.send(data)
        return ring.recv_select(one, pool).wait_cqe(HANG_NS)

    got = [receive(data) for data in (b"abcdef", b"ghijklmnop", b"0123456789ABCDEF")]
    assert [pool.parts(*each) for each in got] == [((0, 0, 6),), ((0, 6, 10),), ((1, 0, 16),)]
    assert receive(b"more")[0] == -errno.ENOBUFS
    with pool.lend(*got[1]) as view:
        assert bytes(view) == b"ghijklmnop"
    assert ring.recv_select(one, pool).wait_cqe(HANG_NS)[0] == -errno.ENOBUFS, "the first part is lent still"
    loan = pool.lend(*got[0])
    with loan as view:
        assert bytes(view) == b"abcdef"
    assert ring.recv_select(one, pool).wait(HANG_NS) == b"more"
    assert pool.take(*got[2]) == b"0123456789ABCDEF"
    assert [pool.parts(*receive(b"x" * 12)), pool.parts(*receive(b"y" * 16))] == [((0, 4, 12),), ((1, 0, 16),)]


def test_reads_use_a_buffer_up_as_well(ring: Ring, pipe: Pipe) -> None:
    pool = incremental(ring, 2, 16)
    for i in range(20):
        os.write(pipe[1], b"data%02d" % i)
        data = b""
        while len(data) < 6:
            data += ring.read_select(pipe[0], pool).wait(HANG_NS)
        assert data == b"data%02d" % i


def test_a_read_of_a_file_takes_what_is_left_of_a_buffer(ring: Ring, pair: Pair, pipe: Pipe, tmp_path: Path) -> None:
    """Whether BUF_MORE says so or not: on Linux 6.16 and 6.17 no read of a file does."""
    pool = incremental(ring, 2, 16)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789abcdefghij")
    with path.open("rb", buffering=0) as file:
        for _ in range(3):
            os.write(pipe[1], b"piped")
            first = ring.read_select(pipe[0], pool).wait_cqe(HANG_NS)
            rest = ring.read_select(file, pool, 0).wait_cqe(HANG_NS)
            short = ring.read_select(file, pool, 16).wait_cqe(HANG_NS)
            assert pool.parts(*first)[0][1:] == (0, 5) and pool.parts(*rest)[0][1:] == (5, 11)
            assert ring.read_select(file, pool, 0).wait_cqe(HANG_NS)[0] == -errno.ENOBUFS
            assert [pool.take(*each) for each in (first, rest, short)] == [b"piped", b"0123456789a", b"ghij"]
    check_whole(ring, pool, pair)


def test_a_buffer_that_a_bundle_filled_in_part_is_still_the_kernels(ring: Ring, pair: Pair, tcp: Pair) -> None:
    """Whether BUF_MORE says so or not: before Linux 7.2 it may not, where the kernel took data twice."""
    needs_bundles(ring)
    pool = incremental(ring, 4, 64)
    one, other = tcp
    receiver = Receiver(ring.recv_multishot(one, pool, bundle=True))
    for _ in range(5):
        for data in (numbered(0, 42), numbered(42, 6)):  # two buffers and a half, and the rest of the third
            other.sendall(data)
            came = b""
            while len(came) < len(data):
                came += pool.take(*receiver.next())
            assert came == data
    receiver.end()
    check_whole(ring, pool, pair)


def test_the_end_of_a_socket_takes_no_incremental_buffer(ring: Ring, pair: Pair, tcp: Pair) -> None:
    pool = incremental(ring, 2, 16)
    tcp[1].close()
    for _ in range(3):
        assert ring.recv_select(tcp[0], pool).wait(HANG_NS) == b""
        ((res, cqe_flags),) = list(ring.recv_multishot(tcp[0], pool))
        assert res == 0 and pool.held(cqe_flags) == [] and pool.take(res, cqe_flags) == b""
    one, other = pair
    for data in (b"a" * 16, b"b" * 16, b"c" * 16, b"d" * 16):
        other.send(data)
        assert ring.recv_select(one, pool).wait(HANG_NS) == data
    check_whole(ring, pool, pair)


def test_bundles_of_incremental_buffers(ring: Ring, tcp: Pair) -> None:
    pool = incremental(ring, 4, 64)
    one, other = tcp
    receiver = Receiver(ring.recv_multishot(one, pool, bundle=True))
    for lap in range(15):
        other.sendall(numbered(lap * 50, 41))
        data = b""
        while len(data) < 164:
            data += pool.take(*receiver.next())
        assert data == numbered(lap * 50, 41)
    receiver.end()


def test_a_stream_and_other_receives_use_a_buffer_up_in_the_order_of_their_completions(ring: Ring) -> None:
    pool = incremental(ring, 2, 4096)
    assert isinstance(pool, IncrementalRing)
    if not pool.in_order:
        pytest.skip("needs Linux 6.15, or a later one of 6.12 and 6.14: here completions of streams overtake others")
    with contextlib.ExitStack() as sockets:
        pairs = [[sockets.enter_context(each) for each in socket.socketpair()] for _ in range(6)]
        for lap in range(5):
            for i, (_, other) in enumerate(pairs):
                other.send(b"%d from %d" % (lap, i))
            # Every other one is a stream. They are done one after the other, in one enter.
            ops = [ring.recv_multishot(one, pool) if i % 2 else ring.recv_select(one, pool) for i, (one, _) in enumerate(pairs)]
            for i, op in enumerate(ops):
                expected = b"%d from %d" % (lap, i)
                if isinstance(op, BufferOperation):
                    assert op.wait(HANG_NS) == expected
                else:
                    outcome = op.next(HANG_NS)
                    assert outcome is not None and pool.take(*outcome) == expected
                    op.cancel()
                    op.wait_cqe(HANG_NS)


def test_the_order_of_streams_is_asked_of_the_kernel(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    incremental(ring, 1, 16)
    known = ordering.streams_keep_order(Ring)
    monkeypatch.setattr(ordering, "_answer", [])

    def no_fds() -> None:
        raise OSError(errno.EMFILE, "for a test")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", no_fds)
        assert not ordering.streams_keep_order(Ring)
    assert ordering.streams_keep_order(Ring) is known


def test_where_streams_overtake_they_get_incremental_buffers_of_their_own(
    ring: Ring, pair: Pair, tcp: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "_answer", [False])
    pool = incremental(ring, 4, 16)
    one, other = pair
    single = ring.recv_select(one, pool)
    with pytest.raises(OutOfOrderError, match="overtake those of other receives, such as the recv in flight"):
        ring.recv_multishot(tcp[0], pool)
    other.send(b"x")
    assert single.wait(HANG_NS) == b"x"
    stream = ring.recv_multishot(one, pool)
    with pytest.raises(OutOfOrderError, match="the recv_multishot in flight"):
        ring.recv_select(tcp[0], pool)
    stream.cancel()
    stream.wait_cqe(HANG_NS)
    single = ring.recv_select(tcp[0], pool)
    with pytest.raises(OutOfOrderError, match="the recv in flight"):
        stream.again()
    tcp[1].send(b"y")
    assert single.wait(HANG_NS) == b"y" and ring.in_flight == 0


def test_messages_need_whole_buffers(ring: Ring, pair: Pair) -> None:
    pool = incremental(ring, 2, 512)
    with pytest.raises(BufferUseError, match="whole buffers"):
        ring.recvmsg_multishot(pair[0], pool)


# --- what nobody took


PROGRAM = """
        ours, theirs = pair()
        with Ring(8) as ring:
            if not ring.features & abi.Feature.{feature}:
                sys.exit()
            pool = ring.buffer_ring(8, 64, {how})
            for lap in range(6):
                stream = ring.recv_multishot(ours, pool, {stream})
                theirs.sendall(bytes(range(200)))
                got = 0
                while got < 200:
                    assert ring.run_once(HANG_NS)
                    got = sum(res for res, _ in stream.stream[0])
                    assert all(res > 0 for res, _ in stream.stream[0]), "the pool has lost buffers"
                    assert got == 200 or not stream.done, "the pool has lost buffers"
                stream.cancel()
                finish(ring)
                {drop}
                gc.collect()
                ring.nop().wait()
                theirs.sendall(b"y" * 100)
                left = 100
                while left:
                    op = ring.recv_select(ours, pool, {stream})
                    ring.submit_and_wait(1)
                    ring.completions()
                    left -= op.cqe[1]
                    assert op.cqe[1] > 0
                    del op
                ring.nop().wait()
"""


@pytest.mark.parametrize(
    "drop", ["del stream", "loan = pool.lend_bundle(*stream.next()); del loan, stream", "stream = ring.nop()"]
)
@pytest.mark.parametrize("kind", ["bundles", "incremental", "both"])
def test_buffers_that_nobody_took_go_home(run_child: RunChild, kind: str, drop: str) -> None:
    how = "" if kind == "bundles" else "incremental=True"
    feature = "RECVSEND_BUNDLE" if kind == "bundles" else "MIN_TIMEOUT"  # of the same release
    stream = "" if kind == "incremental" else "bundle=True"
    run(run_child, PROGRAM.format(feature=feature, how=how, stream=stream, drop=drop))


@pytest.mark.parametrize("end", ["ring.close_buffer_ring(pool)", "ring.close()"])
def test_a_loan_of_a_bundle_outlives_the_pool(run_child: RunChild, end: str) -> None:
    run(
        run_child,
        f"""
        with Ring(8) as ring:
            if not ring.features & abi.Feature.RECVSEND_BUNDLE:
                sys.exit()
            pool = ring.buffer_ring(8, 1024)
            listener = socket.create_server(("127.0.0.1", 0))
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
            theirs.sendall(b"d" * 6000)
            stream = ring.recv_multishot(ours, pool, bundle=True)
            while len(pool.parts(*(got := stream.next(HANG_NS)))) < 2:
                pass
            res, cqe_flags = got
            stream.cancel()
            stream.wait_cqe(HANG_NS)
            del stream
            loan, other = pool.lend_bundle(res, cqe_flags), pool.lend_bundle(res, cqe_flags)
            with loan as views:
                {end}
                del pool
                gc.collect()
                memory = look_alikes(8192)
                assert b"".join(views) == b"d" * res
            seen = 0
            for view in other:
                seen += len(view)
                assert bytes(view) == b"d" * len(view)
            assert seen == res
            del loan, other
        """,
    )


def test_a_ring_is_collected_with_a_bundle_in_flight(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        ring = Ring(8)
        if not ring.features & abi.Feature.RECVSEND_BUNDLE:
            ring.close()
            sys.exit()
        pool = ring.buffer_ring(4, SIZE)
        ring.recv_multishot(ours, pool, bundle=True)
        ring.submit()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del ring, pool
            gc.collect()
        memory = look_alikes()
        theirs.sendall(b"x" * 4096)
        time.sleep(0.1)
        assert_untouched(memory)
        """,
    )


# --- completions of another group


@pytest.mark.parametrize("kind", ["ring", "incremental", "legacy"])
@pytest.mark.parametrize("ask", ["lend", "lend_bundle", "take", "copy"])
def test_a_buffer_that_the_group_does_not_have_is_refused(ring: Ring, ask: str, kind: str) -> None:
    """It would be given back to this group, and the kernel would write beside the memory of it."""
    if kind == "legacy":
        pool: BufferGroup = ring.provided_buffers(2, 16)
    else:
        pool = incremental(ring, 2, 16) if kind == "incremental" else ring.buffer_ring(2, 16)
    for bid in (2, 9, 0xFFFF):
        with pytest.raises(BufferUseError, match=rf"0 to 1, of 16 bytes: buffer {bid} is not .* received into"):
            getattr(pool, ask)(1, bid << abi.CQE_BUFFER_SHIFT | abi.CqeFlag.BUFFER)
    assert not pool.owes


def test_places_that_the_group_does_not_have_are_refused(ring: Ring) -> None:
    pool = ring.buffer_ring(2, 16)
    for bid in (-1, 2):
        with pytest.raises(BufferUseError, match=f"buffer {bid} is not"):
            pool.addr_of(bid)
    for bid, nbytes, start in ((0, 17, 0), (1, 1, 16), (0, 1, -1), (-1, 1, 0), (2, 0, 0)):
        for ask in pool.view, pool.peek:
            with pytest.raises(BufferUseError, match="is not among them"):
                ask(bid, nbytes, start)
    assert (len(pool.view(1, 16)), pool.addr_of(1)) == (16, pool.addr + 16)
