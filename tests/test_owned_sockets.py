"""Owned operations on sockets, messages, other rings, polls, timers and cancels, each by its effect in the world."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conftest import RunChild
from support import HANG_NS, Pipe, needs, newest, pipe, ring
from test_lifetimes import run

from rawuring import (
    BufferUseError,
    Fixed,
    Operation,
    OutOfOrderError,
    RawuringError,
    Ring,
    RingSetupError,
    UnsupportedError,
    abi,
    system,
)

Pair = tuple[socket.socket, socket.socket]
Result = TypeVar("Result")

__all__ = ["pipe", "ring"]

HOUR_NS = 3600 * 10**9


def result(operation: Operation[Result]) -> Result:
    """What it brings, or the test is skipped and the release named."""
    try:
        return operation.wait(HANG_NS)
    except UnsupportedError as error:
        needs(error.needs, False)
        raise


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def pair(listener: socket.socket) -> Iterator[Pair]:
    """Two ends of a TCP connection."""
    with socket.create_connection(listener.getsockname()) as one:
        other, _ = listener.accept()
        with other:
            for each in (one, other):
                each.settimeout(HANG_NS / 1e9)
            yield one, other


@pytest.fixture
def datagrams() -> Iterator[Pair]:
    """Two UDP sockets."""
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with one, other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
            each.settimeout(HANG_NS / 1e9)
        yield one, other


@pytest.fixture
def messages() -> Iterator[Pair]:
    """Two ends of the same machine that keep the boundaries of messages and carry fds."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        for each in (one, other):
            each.settimeout(HANG_NS / 1e9)
        yield one, other


@pytest.fixture
def target() -> Iterator[Ring]:
    with Ring(8) as other:
        yield other


# --- the life of sockets


def test_a_server_and_a_client_made_by_the_ring(ring: Ring) -> None:
    with contextlib.ExitStack() as stack:
        server = socket.socket(fileno=result(ring.socket(socket.AF_INET, socket.SOCK_STREAM)))
        stack.enter_context(server)
        assert not os.get_inheritable(server.fileno())
        assert result(ring.bind(server, ("127.0.0.1", 0))) == 0
        assert server.getsockname()[1] > 0
        assert ring.listen(server).wait(HANG_NS) == 0
        client = socket.socket(fileno=ring.socket().wait(HANG_NS))
        stack.enter_context(client)
        assert (client.family, client.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert ring.connect(client, server.getsockname()).wait(HANG_NS) == 0
        accepted, peer = server.accept()
        stack.enter_context(accepted)
        assert peer == client.getsockname()
        with pytest.raises(OSError) as failed:
            ring.bind(client, server.getsockname()).wait(HANG_NS)
        assert failed.value.errno == errno.EINVAL, "bound already, which is no lack of the kernel's"


def test_a_socket_that_cannot_be(ring: Ring) -> None:
    needs(abi.Op.SOCKET.since, ring.supports(abi.Op.SOCKET))
    for arguments, code in (((socket.AF_INET, 99), errno.EINVAL), ((socket.AF_INET, socket.SOCK_STREAM, 200), None)):
        with pytest.raises(OSError) as failed:
            ring.socket(*arguments).wait(HANG_NS)
        assert code in (None, failed.value.errno)


@pytest.mark.parametrize("slot", [abi.FILE_INDEX_ALLOC, 3])
def test_a_socket_in_a_slot(ring: Ring, listener: socket.socket, slot: int) -> None:
    needs(abi.Op.SOCKET.since, ring.supports(abi.Op.SOCKET))
    files = ring.file_table(4)
    client = ring.socket_direct(files, slot=slot).wait(HANG_NS)
    assert client.slot == (0 if slot == abi.FILE_INDEX_ALLOC else slot)
    assert ring.connect(client, listener.getsockname(), family=socket.AF_INET).wait(HANG_NS) == 0
    assert ring.send(client, b"hello").wait(HANG_NS) == 5
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(HANG_NS / 1e9)
        assert accepted.recv(10) == b"hello"
        client.close()
        assert accepted.recv(10) == b""


def test_an_operation_that_is_not_there_names_the_release(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ring, "supports", lambda self, op: op != abi.Op.SOCKET)
    with pytest.raises(UnsupportedError, match="socket needs Linux 5.19"):
        ring.socket(-2, 77).wait(HANG_NS)


def test_accept_that_does_not_wait(ring: Ring, listener: socket.socket) -> None:
    needs(abi.Accept.DONTWAIT.since, bool(ring.features & abi.Feature.RECVSEND_BUNDLE))  # of the same release
    with pytest.raises(BlockingIOError):
        ring.accept(listener, ioprio=abi.Accept.DONTWAIT).wait(HANG_NS)
    op = ring.accept(listener, ioprio=abi.Accept.POLL_FIRST)
    ring.submit()
    with socket.create_connection(listener.getsockname()) as client:
        with socket.socket(fileno=op.wait(HANG_NS)) as accepted:
            assert accepted.getpeername() == client.getsockname()


def test_sockets_that_nobody_took_are_closed(run_child: RunChild) -> None:
    run(
        run_child,
        """
        with Ring(8) as ring:
            if not ring.supports(abi.Op.SOCKET):
                sys.exit()
            before = open_fds()
            files = ring.file_table(2)
            for _ in range(3):
                ring.socket()
                ring.socket_direct(files)
                finish(ring)
                gc.collect()
                ring.nop().wait()
            assert open_fds() == before
            assert ring.socket_direct(files).wait().slot == 0, "the slots were not emptied"
        """,
    )


# --- sending to an address


@pytest.mark.parametrize("is_old", [False, True])
def test_sendto(ring: Ring, datagrams: Pair, is_old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = datagrams
    if is_old:
        monkeypatch.setattr(Ring, "supports", lambda self, op: False)
    assert ring.sendto(one, b"hello", other.getsockname()).wait(HANG_NS) == 5
    assert other.recvfrom(10) == (b"hello", one.getsockname())
    assert ring.sendto(one.fileno(), bytearray(b"again"), other.getsockname(), family=socket.AF_INET).wait(HANG_NS) == 5
    assert other.recv(10) == b"again"
    with pytest.raises(BufferUseError, match="family"):
        ring.sendto(one.fileno(), b"x", other.getsockname())
    with pytest.raises(OSError) as failed:
        ring.sendto(one, bytes(1 << 17), other.getsockname()).wait(HANG_NS)
    assert failed.value.errno == errno.EMSGSIZE


# --- fds in messages


def test_fds_there_and_back(ring: Ring, messages: Pair, pipe: Pipe) -> None:
    one, other = messages
    assert ring.send_fds(one, [b"two"], [pipe[1], pipe[0]]).wait(HANG_NS) == 3
    message = ring.recv_fds(other, [bytearray(8)], 4).wait(HANG_NS)
    writer, reader = message.fds
    assert not message.is_truncated and not message.is_control_truncated
    assert not os.get_inheritable(writer)
    os.write(writer, b"through")
    assert os.read(reader, 10) == b"through"
    for fd in (writer, reader):
        os.close(fd)


def test_more_fds_than_there_is_room_for(ring: Ring, messages: Pair, pipe: Pipe) -> None:
    one, other = messages
    ring.send_fds(one, [b"longer"], [pipe[0], pipe[1], pipe[0]]).wait(HANG_NS)
    before = len(os.listdir("/proc/self/fd"))
    message = ring.recv_fds(other, [bytearray(4)], 2).wait(HANG_NS)
    assert message.is_truncated and message.is_control_truncated
    fds = message.fds
    assert len(fds) == 2 and len(os.listdir("/proc/self/fd")) == before + 2
    for fd in fds:
        os.close(fd)


def test_fds_come_whatever_else_the_kernel_puts_there(ring: Ring, pipe: Pipe) -> None:
    """Linux 6.17 adds an SCM_INQ at each try: with a message that is awaited, two."""
    before = len(os.listdir("/proc/self/fd"))
    one, other = socket.socketpair()
    with one, other:
        exact = ring.recv_fds(other, [bytearray(1)], 1)
        ring.submit_and_wait(0)
        assert ring.send_fds(one, [b"x"], [pipe[1]]).wait(HANG_NS) == 1
        fds = exact.wait(HANG_NS).fds
        awaited = ring.recvmsg(other, [bytearray(1)], 2 * socket.CMSG_SPACE(4))
        ring.submit_and_wait(0)
        assert ring.send_fds(one, [b"y"], [pipe[1]]).wait(HANG_NS) == 1
        fds += awaited.wait(HANG_NS).fds
        assert len(fds) == 2
        for fd in fds:
            os.write(fd, b"through")
            os.close(fd)
        assert os.read(pipe[0], 20) == b"through" * 2
    assert len(os.listdir("/proc/self/fd")) == before, "fds came that nobody was told of"


def test_fds_of_several_messages(ring: Ring, pipe: Pipe) -> None:
    """With MSG_WAITALL the kernel goes on behind a message with fds, and counts the control data of the last alone."""
    before = len(os.listdir("/proc/self/fd"))
    one, other = socket.socketpair()
    with one, other:
        for data in (b"ab", b"cd"):
            ring.send_fds(one, [data], [pipe[1]]).wait(HANG_NS)
        left, fds = 4, list[int]()
        while left:
            message = ring.recvmsg(other, [bytearray(left)], 5 * socket.CMSG_SPACE(4), socket.MSG_WAITALL).wait(HANG_NS)
            left -= message.nbytes
            fds += message.fds
        assert len(fds) == 2
        for fd in fds:
            os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before, "fds came that nobody was told of"


# --- streams of messages


def test_recvmsg_multishot_tells_who_sent_what(ring: Ring, datagrams: Pair) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = datagrams
    pool = ring.buffer_ring(4, 256)
    stream = ring.recvmsg_multishot(other, pool)
    for i in range(10):
        content = b"message %d" % i
        one.sendto(content, other.getsockname())
        got = stream.next(HANG_NS)
        assert got is not None
        with stream.lend(*got) as message:
            assert bytes(message.payload) == content
            assert message.address == one.getsockname()
            assert (message.ancdata, message.fds, message.msg_flags) == ([], [], 0)
            assert repr(message) == f"<LentMessage nbytes={len(content)} address={one.getsockname()} msg_flags=0x0>"
        with pytest.raises(ValueError, match="released"):
            message.payload[0]
        assert repr(message) == "<LentMessage given back>"
    stream.cancel()
    ((res, cqe_flags),) = list(stream)
    assert res == -errno.ECANCELED
    with stream.lend(res, cqe_flags) as message:
        assert (bytes(message.payload), message.address, message.ancdata) == (b"", None, [])


def test_recvmsg_multishot_cuts_short_and_says_so(ring: Ring, messages: Pair, pipe: Pipe) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = messages
    pool = ring.buffer_ring(2, 64)
    room = socket.CMSG_SPACE(4)
    stream = ring.recvmsg_multishot(other, pool, room, name_nbytes=0)
    left = 64 - 16 - room
    for nbytes, fds in ((left, 0), (left + 1, 1), (1, 3)):
        socket.send_fds(one, [b"x" * nbytes], [pipe[1]] * fds)
        got = stream.next(HANG_NS)
        assert got is not None
        with stream.lend(*got) as message:
            assert bytes(message.payload) == b"x" * min(nbytes, left)
            assert message.is_truncated == (nbytes > left)
            assert message.is_control_truncated == (fds > 1)
            received = message.fds
            assert 0 < len(received) <= 2 if fds else not received
        for fd in received:
            os.write(fd, b"!")
            os.close(fd)
    assert os.read(pipe[0], 10).startswith(b"!!")


def test_a_buffer_without_room_for_a_message_is_refused(ring: Ring, datagrams: Pair) -> None:
    needs("5.19", ring)
    pool = ring.buffer_ring(2, 144)
    for arguments in ({}, {"control_nbytes": 128, "name_nbytes": 0}, {"control_nbytes": -1, "name_nbytes": 0}):
        with pytest.raises(BufferUseError, match="no room"):
            ring.recvmsg_multishot(datagrams[0], pool, **arguments)  # type: ignore[arg-type]
    assert ring.in_flight == 0


def test_messages_of_a_callback(ring: Ring, datagrams: Pair) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = datagrams
    pool = ring.buffer_ring(2, 256)
    received = []

    def got(stream: Any, res: int, cqe_flags: int) -> None:
        with stream.lend(res, cqe_flags) as message:
            received.append((bytes(message.payload), message.address))
        if len(received) == 5:
            ring.stop()

    ring.recvmsg_multishot(other, pool, callback=got)
    ring.submit()
    for i in range(5):
        one.sendto(b"%d" % i, other.getsockname())
        assert ring.run_once(HANG_NS)
    while len(received) < 5:
        assert ring.run_once(HANG_NS)
    assert received == [(b"%d" % i, one.getsockname()) for i in range(5)]


def test_an_empty_pool_ends_a_stream_of_messages_which_begins_again(ring: Ring, datagrams: Pair) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = datagrams
    pool = ring.buffer_ring(2, 256)
    for _ in range(3):
        one.sendto(b"x", other.getsockname())
    stream = ring.recvmsg_multishot(other, pool)
    got = list(stream)
    assert [res > 0 for res, _ in got] == [True, True, False] and got[-1][0] == -errno.ENOBUFS
    for each in got:
        with stream.lend(*each):
            pass
    again = stream.again()
    last = again.next(HANG_NS)
    assert last is not None
    with again.lend(*last) as message:  # type: ignore[attr-defined]
        assert bytes(message.payload) == b"x" and message.address == one.getsockname()
    again.cancel()
    again.wait_cqe(HANG_NS)


def test_fds_of_messages_that_nobody_took_are_closed(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with Ring(8) as ring:
            if not ring.supports(abi.Op.SEND_ZC):  # of the release that has multishot receives
                sys.exit()
            pool = ring.buffer_ring(4, 256)
            before = open_fds()
            def send():
                with open("/dev/null") as file:
                    socket.send_fds(theirs, [b"x"], [file.fileno(), file.fileno()])
            stream = ring.recvmsg_multishot(ours, pool, 64)
            for _ in range(4):
                send()
            taken = stream.next(HANG_NS)
            with stream.lend(*taken):
                pass
            assert taken is not None
            with stream.lend(*stream.next(HANG_NS)) as message:
                fds = message.fds
            for fd in fds:
                os.close(fd)
            lent = stream.lend(*stream.next(HANG_NS))
            del lent
            while len(stream.stream[0]) < 1:
                assert ring.run_once(HANG_NS)
            stream.cancel()
            del stream
            finish(ring)
            gc.collect()
            assert open_fds() == before
        # And with the ring: of a stream, and of callbacks that never ran.
        def look_and_raise(op, res, cqe_flags):
            with op.lend(res, cqe_flags):
                1 / 0
        for callback in (None, look_and_raise):
            before = open_fds()
            ring = Ring(8)
            pool = ring.buffer_ring(4, 256)
            stream = ring.recvmsg_multishot(ours, pool, 64, callback=callback)
            for _ in range(3):
                send()
            try:
                while ring.in_flight and (callback or len(stream.stream[0]) < 3):
                    assert ring.run_once(HANG_NS)
            except ZeroDivisionError:
                pass
            ring.close()
            del stream, pool
            gc.collect()
            assert open_fds() == before, (open_fds(), before)
        """,
    )


# --- commands to sockets


def test_bytes_that_wait(ring: Ring, pair: Pair) -> None:
    one, other = pair
    other.sendall(b"12345")
    select.select([one], [], [], HANG_NS / 1e9)
    assert result(ring.siocinq(one)) == 5
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            one.send(bytes(1 << 16))
    assert ring.siocoutq(one).wait(HANG_NS) > 0


STAMPING = (
    system.SOF_TIMESTAMPING_TX_SOFTWARE | system.SOF_TIMESTAMPING_TX_SCHED | system.SOF_TIMESTAMPING_SOFTWARE
    | system.SOF_TIMESTAMPING_OPT_ID | system.SOF_TIMESTAMPING_OPT_TSONLY
)  # fmt: skip


def large(setup_flag: abi.Setup) -> Ring:
    """A ring with completions of 32 bytes, or the test is skipped and the release named."""
    try:
        return Ring(8, setup_flag)
    except RingSetupError:
        with Ring(2) as ring:
            needs(setup_flag.since, ring)
        raise


@pytest.mark.parametrize("how", ["wait", "callback", "in a slot"])
@pytest.mark.parametrize("setup_flag", [abi.Setup.CQE32, abi.Setup.CQE_MIXED])
def test_time_stamps_of_what_was_sent(datagrams: Pair, setup_flag: abi.Setup, how: str) -> None:
    one, other = datagrams
    one.setsockopt(socket.SOL_SOCKET, system.SO_TIMESTAMPING, STAMPING)
    outcomes: list[tuple[int, int]] = []

    def stamped(stream: Operation[int], res: int, cqe_flags: int) -> None:
        outcomes.append((res, cqe_flags))

    with large(setup_flag) as ring:
        file: socket.socket | Fixed = one
        if how == "in a slot":
            table = ring.file_table(1)
            table.update(0, [one])
            file = table[0]
        stream = ring.tx_timestamp(file, callback=stamped if how == "callback" else None)
        ring.submit()
        before = time.time_ns()
        for _ in range(3):
            assert ring.sendto(one, b"hello", other.getsockname()).wait(HANG_NS) == 5
        while len(outcomes) < 6:
            if outcomes and outcomes[-1][0] < 0:
                raise stream.error(outcomes[-1][0])
            if how == "callback":
                assert ring.run_once(HANG_NS)
            else:
                outcome = stream.next(HANG_NS)
                assert outcome is not None
                outcomes.append(outcome)
        after = time.time_ns()
        found = [stamp for outcome in outcomes if (stamp := stream.timestamp(*outcome))]
        assert sorted((stamp.key, stamp.kind) for stamp in found) == [
            (key, kind) for key in range(3) for kind in (system.SCM_TSTAMP_SND, system.SCM_TSTAMP_SCHED)
        ]
        assert all(before <= stamp.time_ns <= after and not stamp.is_hardware for stamp in found)
        stream.cancel()
        res, cqe_flags = stream.wait_cqe(HANG_NS)
        assert res == -errno.ECANCELED and stream.timestamp(res, cqe_flags) is None
    assert other.recv(10) == b"hello"


def test_a_time_stamp_has_no_room_in_a_small_completion(ring: Ring, datagrams: Pair) -> None:
    with pytest.raises(RawuringError, match="CQE32"):
        ring.tx_timestamp(datagrams[0])
    assert ring.in_flight == 0


def test_socket_options(ring: Ring, pair: Pair) -> None:
    one, _ = pair
    keepalive = socket.SOL_SOCKET, socket.SO_KEEPALIVE
    assert result(ring.setsockopt(one, *keepalive, 1)) == 0
    assert one.getsockopt(*keepalive) == 1
    assert ring.getsockopt(one, *keepalive).wait(HANG_NS) == 1
    linger = struct.pack("ii", 1, 7)
    assert ring.setsockopt(one, socket.SOL_SOCKET, socket.SO_LINGER, linger).wait(HANG_NS) == 0
    assert ring.getsockopt(one, socket.SOL_SOCKET, socket.SO_LINGER, 64).wait(HANG_NS) == linger
    assert ring.setsockopt(one, socket.IPPROTO_TCP, socket.TCP_NODELAY, True).wait(HANG_NS) == 0
    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    with pytest.raises(OSError) as failed:
        ring.getsockopt(one, socket.SOL_SOCKET, 9999).wait(HANG_NS)
    assert failed.value.errno == errno.ENOPROTOOPT


def test_socket_names(ring: Ring, pair: Pair, listener: socket.socket) -> None:
    one, _ = pair
    assert result(ring.getsockname(one)) == one.getsockname()
    assert ring.getpeername(one).wait(HANG_NS) == one.getpeername()
    with pytest.raises(OSError) as failed:
        ring.getpeername(listener).wait(HANG_NS)
    assert failed.value.errno == errno.ENOTCONN


# --- messages between rings


def told(target: Ring) -> list[tuple[int, int, int]]:
    """The messages that a ring gets next."""
    target.submit_and_wait(1, HANG_NS)
    return target.completions()


def test_a_message_to_another_ring(ring: Ring, target: Ring) -> None:
    assert result(ring.msg_ring(target, 42, 4711)) == 0
    assert told(target) == [(4711, 42, 0)]
    assert ring.msg_ring(target.fileno(), -errno.EPIPE, (1 << 63) - 1).wait(HANG_NS) == 0
    assert told(target) == [((1 << 63) - 1, -errno.EPIPE, 0)]
    for user_data in (1 << 63, -1):
        with pytest.raises(RawuringError, match="below"):
            ring.msg_ring(target, 0, user_data)
    for res, cqe_flags in ((1 << 32, None), (-(1 << 31) - 1, None), (0, 1 << 32), (0, -1)):
        with pytest.raises(RawuringError, match="32 bits"):
            ring.msg_ring(target, res, 7, cqe_flags=cqe_flags)


def test_a_message_with_flags(ring: Ring, target: Ring) -> None:
    cqe_flags = 7 << abi.CQE_BUFFER_SHIFT | int(abi.CqeFlag.BUFFER)
    assert result(ring.msg_ring(target, 42, 4711, cqe_flags=cqe_flags)) == 0
    assert told(target) == [(4711, 42, cqe_flags)]


def test_a_message_wakes_the_loop_of_another_thread(ring: Ring) -> None:
    needs(abi.Op.MSG_RING.since, ring.supports(abi.Op.MSG_RING))
    there: list[Ring] = []
    found: list[tuple[int, int, int]] = []
    ready = threading.Event()

    def wait() -> None:
        with Ring(8) as mine:
            there.append(mine)
            timer = mine.timeout(HOUR_NS)
            ready.set()
            while not found:
                mine.run_once(HANG_NS)
                found.extend(mine.completions())
            timer.cancel()
            timer.wait_cqe(HANG_NS)

    thread = threading.Thread(target=wait)
    thread.start()
    assert ready.wait(HANG_NS / 1e9)
    assert ring.msg_ring(there[0], 1, 2).wait(HANG_NS) == 0
    thread.join(HANG_NS / 1e9)
    assert found == [(2, 1, 0)]


@pytest.mark.parametrize("slot", [abi.FILE_INDEX_ALLOC, 2])
def test_a_file_for_another_ring(ring: Ring, target: Ring, pair: Pair, slot: int) -> None:
    needs(abi.MsgRingCommand.SEND_FD.since, ring)
    one, other = pair
    ours = ring.file_table(2)
    ours.update(1, [one])
    with pytest.raises(OutOfOrderError, match="no file table"):
        ring.msg_ring_fd(target, ours[1])
    theirs = target.file_table(4)
    fixed = ring.msg_ring_fd(target, ours[1], 4711, slot=slot).wait(HANG_NS)
    assert fixed.table is theirs and fixed.slot == (0 if slot == abi.FILE_INDEX_ALLOC else slot)
    assert told(target) == [(4711, 0, 0)]
    ours[1].close()
    assert target.send(fixed, b"hello").wait(HANG_NS) == 5
    assert other.recv(10) == b"hello"
    with pytest.raises(RawuringError, match="slot"):
        ring.msg_ring_fd(target, one)  # type: ignore[arg-type]
    with pytest.raises(OutOfOrderError, match="another ring"):
        ring.msg_ring_fd(target, fixed)


def test_a_file_may_come_in_silence(ring: Ring, target: Ring, pair: Pair) -> None:
    needs(abi.MsgRingCommand.SEND_FD.since, ring)
    ours, _ = ring.file_table(1), target.file_table(1)
    ours.update(0, [pair[0]])
    fixed = ring.msg_ring_fd(target, ours[0], notify=False).wait(HANG_NS)
    assert isinstance(fixed, Fixed)
    assert target.submit_and_wait(0) == 0 and target.completions() == []
    with pytest.raises(OSError) as failed:
        ring.msg_ring_fd(target, ours[0]).wait(HANG_NS)
    assert failed.value.errno == errno.ENFILE


@pytest.mark.parametrize("notify", [False, True])
@pytest.mark.parametrize("how", ["dropped", "raw", "by a callback"])
def test_a_slot_of_another_ring_that_nobody_knows_of_is_emptied(
    ring: Ring, target: Ring, pair: Pair, notify: bool, how: str
) -> None:
    needs(abi.MsgRingCommand.SEND_FD.since, ring)
    ours, _ = ring.file_table(1), target.file_table(1)
    ours.update(0, [pair[0]])
    taken: list[int] = []

    def take(op: object, res: int, cqe_flags: int) -> None:
        taken.append(res)

    op = ring.msg_ring_fd(target, ours[0], 4711, notify=notify, callback=take if how == "by a callback" else None)
    if how == "raw":
        assert op.wait_cqe(HANG_NS)[0] == 0
    while not op.done:
        assert ring.run_once(HANG_NS)
    del op
    assert taken == ([0] if how == "by a callback" else [])
    target.submit_and_wait(0)
    assert target.completions() == ([(4711, 0, 0)] if notify else [])
    target.nop().wait(HANG_NS)
    again = ring.msg_ring_fd(target, ours[0]).wait_cqe(HANG_NS)[0]
    # The other ring's table has one slot: it is free again if nobody could know of it.
    assert again == (0 if how == "dropped" and not notify else -errno.ENFILE)


# --- polls, timers, cancels


@pytest.mark.parametrize("poll", [Ring.poll, Ring.poll_multishot])
def test_a_poll_gets_other_events(ring: Ring, pair: Pair, poll: Callable[..., Operation[int]]) -> None:
    op = poll(ring, pair[0], select.POLLPRI)
    ring.submit()
    # Linux 5.15 loses a poll that is updated to what is so already: the event comes afterwards.
    assert result(ring.poll_update(op, select.POLLIN)) == 0
    pair[1].send(b"x")
    while not op.done and not getattr(op, "stream", ([],))[0]:
        assert ring.run_once(HANG_NS)
    res = op.stream[0][0][0] if poll is Ring.poll_multishot else op.wait()  # type: ignore[attr-defined]
    assert res == select.POLLIN
    assert op.done == (poll is Ring.poll)
    if op.done:
        with pytest.raises(FileNotFoundError):
            ring.poll_update(op, select.POLLIN).wait(HANG_NS)
    else:
        op.cancel()


def test_a_link_timeout_gets_another_time(ring: Ring, pair: Pair) -> None:
    needs(abi.Timeout.LINK_UPDATE.since, ring)
    with ring.link(2):
        op = ring.recv(pair[0], bytearray(8))
        timer = ring.link_timeout(HOUR_NS)
    ring.submit()
    while ring.sq.ready:
        os.sched_yield()  # until the SQ thread has them
    for _ in range(100):
        try:
            assert ring.timeout_update(timer, 1_000_000).wait(HANG_NS) == 0
            break
        except FileNotFoundError:
            os.sched_yield()  # an SQ thread arms it after it has taken it
    assert timer.wait_cqe(HANG_NS)[0] == -errno.ETIME
    assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED


def test_cancel_by_kind(ring: Ring, pair: Pair, pipe: Pipe) -> None:
    ops = [ring.recv(pair[0], bytearray(1)), ring.poll(pair[0], select.POLLIN), ring.poll(pipe[0], select.POLLIN)]
    ring.submit()
    while ring.sq.ready:
        os.sched_yield()
    try:
        op = ring.cancel_op(abi.Op.POLL_ADD, pipe[0])
    except UnsupportedError as error:
        needs(error.needs, False)
        raise
    assert op.wait(HANG_NS) == 1
    assert ops[2].wait_cqe(HANG_NS)[0] == -errno.ECANCELED and not ops[1].done
    assert ring.cancel_op(abi.Op.POLL_ADD).wait(HANG_NS) == 1
    assert ops[1].wait_cqe(HANG_NS)[0] == -errno.ECANCELED and not ops[0].done
    assert ring.cancel_op(abi.Op.POLL_ADD).wait(HANG_NS) == 0
    assert ring.cancel_any().wait(HANG_NS) == 1
    assert ops[0].wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    files = ring.file_table(1)
    files.update(0, [pair[0]])
    op = ring.poll(files[0], select.POLLIN)
    ring.submit()
    while ring.sq.ready:
        os.sched_yield()
    assert ring.cancel_op(abi.Op.POLL_ADD, files[0], 0).wait(HANG_NS) == 0
    assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED


def test_cancel_and_be_sure(ring: Ring, pair: Pair, target: Ring) -> None:
    op = ring.recv(pair[0], bytearray(1))
    try:
        assert ring.sync_cancel(op) == 0
    except UnsupportedError as error:
        needs(error.needs, False)
        raise
    assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    with pytest.raises(FileNotFoundError):
        ring.sync_cancel(op)
    for _ in range(8):  # an SQ thread is told of them and may not have come to it
        op = ring.recv(pair[0], bytearray(1))
        assert ring.sync_cancel(op) == 0
        assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    ops = [ring.recv(pair[0], bytearray(1)), ring.poll(pair[0], select.POLLIN)]
    assert ring.sync_cancel(pair[0], abi.Cancel.ALL) == 2
    assert [op.wait_cqe(HANG_NS)[0] for op in ops] == [-errno.ECANCELED] * 2
    with pytest.raises(OutOfOrderError, match="another ring"):
        target.sync_cancel(op)


def test_control_data_of_any_length(ring: Ring, messages: Pair, pipe: Pipe) -> None:
    one, other = messages
    rights = array.array("i", [pipe[0]])
    ring.sendmsg(one, [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], ioprio=0).wait(HANG_NS)
    op = ring.recvmsg(other, [bytearray(1)], 0)
    message = op.wait(HANG_NS)
    assert message.fds == [] and message.is_control_truncated


def test_an_empty_path_is_one_that_the_kernel_picks(ring: Ring) -> None:
    needs(abi.Op.BIND.since, ring.supports(abi.Op.BIND))
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        names = []
        for sock in (one, other):
            assert ring.bind(sock, "").wait(HANG_NS) == 0
            names.append(sock.getsockname())
    assert names[0] != names[1] and all(name[:1] == b"\0" and len(name) > 1 for name in names)


def test_a_server_at_a_path(tmp_path: Path, ring: Ring) -> None:
    """An AF_UNIX server by its path, all of it on the ring."""
    needs(abi.Op.LISTEN.since, ring.supports(abi.Op.LISTEN))
    with socket.socket(fileno=ring.socket(socket.AF_UNIX).wait(HANG_NS)) as server:
        path = os.fsdecode(tmp_path / "s")
        if len(os.fsencode(path)) > 100:
            pytest.skip("the temporary folder's name is too long for a socket")
        assert ring.bind(server, path).wait(HANG_NS) == 0
        assert ring.listen(server, 1).wait(HANG_NS) == 0
        assert server.getsockname() == path
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    assert newest(ring) >= (6, 11)
