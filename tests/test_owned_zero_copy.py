"""Sends without copies: what is sent, both completions, the report, and memory that stays until the second."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import struct
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import RunChild
from support import HANG_NS, needs, ring
from test_lifetimes import run

from rawuring import Ring, UnsupportedError, abi

Pair = tuple[socket.socket, socket.socket]

__all__ = ["ring"]

REPORT = int(abi.RecvSend.ZC_REPORT_USAGE)
LARGE = 1 << 20


CONNECT = """
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.settimeout(HANG_S)
        pattern = b"".join(i.to_bytes(4, "big") for i in range(1 << 17))
        def received(nbytes):
            data = b""
            while len(data) < nbytes:
                data += theirs.recv(nbytes - len(data))
            return data
"""


class Buffer(bytearray):
    """A bytearray whose end can be seen."""


@pytest.fixture
def pair(ring: Ring) -> Iterator[Pair]:
    """Two ends of a TCP connection, of which the second holds little that was not received. For kernels that have SEND_ZC."""
    needs(abi.Op.SEND_ZC.since, ring.supports(abi.Op.SEND_ZC))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # which its connections inherit
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as one:
            other, _ = listener.accept()
            with other:
                other.settimeout(HANG_NS / 1e9)
                yield one, other


def received(sock: socket.socket, nbytes: int) -> bytes:
    data = b""
    while len(data) < nbytes:
        more = sock.recv(nbytes - len(data))
        assert more, f"{len(data)} of {nbytes} bytes came"
        data += more
    return data


def pattern(nbytes: int) -> bytes:
    """Bytes that show where they are."""
    return b"".join(i.to_bytes(4, "big") for i in range(nbytes // 4))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_send_zc(ring: Ring, pair: Pair, kind: Any) -> None:
    one, other = pair
    op = ring.send_zc(one, kind(b"hello"))
    assert "in flight" in repr(op) and op.copied is None
    assert op.wait(HANG_NS) == op.wait() == 5
    assert op.wait_cqe()[0] == 5
    assert received(other, 5) == b"hello"
    op.wait_released(HANG_NS)
    assert op.done and op.copied is None and "released" in repr(op)
    assert ring.in_flight == 0


def test_the_report_tells_whether_it_was_copied(ring: Ring, pair: Pair) -> None:
    needs(abi.RecvSend.ZC_REPORT_USAGE.since, ring)
    one, other = pair
    op = ring.send_zc(one, b"hello", zc_flags=REPORT)
    assert received_after(op, other) == b"hello"
    op.wait_released(HANG_NS)
    assert op.copied is True, "over loopback it is"


def received_after(op: Any, other: socket.socket) -> bytes:
    return received(other, op.wait(HANG_NS))


def test_a_kernel_without_reports_names_the_release(ring: Ring, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    op = ring.send_zc(pair[0], b"x", zc_flags=REPORT)
    with monkeypatch.context() as patch:
        patch.setattr(os, "uname", lambda: SimpleNamespace(release="6.0.0"))
        error = op.error(-errno.EINVAL)
    assert isinstance(error, UnsupportedError) and error.needs == abi.RecvSend.ZC_REPORT_USAGE.since
    assert op.wait_cqe(HANG_NS)[0] in (1, -errno.EINVAL)


def test_parts_of_a_registered_buffer(ring: Ring, pair: Pair) -> None:
    one, other = pair
    memory = bytearray(pattern(4096))
    buffers = ring.register_buffers([bytearray(16), memory])
    op = ring.send_zc_fixed(one, buffers, 1, start=100, nbytes=50)
    assert received_after(op, other) == memory[100:150]
    op.wait_released(HANG_NS)
    try:
        op = ring.sendmsg_zc_fixed(one, buffers, 1, [(8, 4), (100, 6)], msg_flags=socket.MSG_WAITALL)
        assert received_after(op, other) == memory[8:12] + memory[100:106]
    except UnsupportedError as error:
        needs(error.needs, False)
    op.wait_released(HANG_NS)
    buffers.unregister()
    memory.append(0)


def test_sendmsg_zc(ring: Ring, pair: Pair) -> None:
    needs(abi.Op.SENDMSG_ZC.since, ring.supports(abi.Op.SENDMSG_ZC))
    one, other = pair
    op = ring.sendmsg_zc(one, [b"hello, ", bytearray(b"world")], msg_flags=socket.MSG_WAITALL)
    assert received_after(op, other) == b"hello, world"
    op.wait_released(HANG_NS)


def test_to_an_address(ring: Ring) -> None:
    needs(abi.Op.SENDMSG_ZC.since, ring.supports(abi.Op.SENDMSG_ZC))
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with one, other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
            each.settimeout(HANG_NS / 1e9)
        buffers = ring.register_buffers([bytearray(b"registered")])
        name = other.getsockname()
        for op, data in (
            (ring.send_zc(one, b"plain", address=name), b"plain"),
            (ring.sendmsg_zc(one, [b"several"], address=name), b"several"),
            (ring.send_zc_fixed(one, buffers, 0, address=name), b"registered"),
        ):
            assert op.wait(HANG_NS) == len(data)
            assert other.recvfrom(100) == (data, one.getsockname())
            op.wait_released(HANG_NS)


def test_a_callback_hears_of_both_completions(ring: Ring, pair: Pair) -> None:
    one, other = pair
    heard = []
    op = ring.send_zc(one, b"hello", callback=lambda op, res, cqe_flags: heard.append((res, cqe_flags)))
    assert received_after(op, other) == b"hello"
    op.wait_released(HANG_NS)
    assert heard == [(5, abi.CqeFlag.MORE), (0, abi.CqeFlag.NOTIF)]


def test_a_socket_that_cannot_do_it(ring: Ring) -> None:
    needs(abi.Op.SEND_ZC.since, ring.supports(abi.Op.SEND_ZC))
    one, other = socket.socketpair()
    with one, other:
        data = Buffer(b"hello")
        op = ring.send_zc(one, data)
        with pytest.raises(OSError) as failed:
            op.wait(HANG_NS)
        assert failed.value.errno == errno.EOPNOTSUPP
        op.wait_released(HANG_NS)
        data.append(0)
        assert ring.in_flight == 0


def test_the_memory_is_locked_until_the_second_completion(ring: Ring, pair: Pair) -> None:
    one, other = pair
    data = Buffer(pattern(LARGE))
    alive = weakref.ref(data)
    op = ring.send_zc(one, data)
    sent = op.wait(HANG_NS)
    assert sent > 4096 and not op.done and "in use" in repr(op)
    with pytest.raises(BufferError):
        data.append(0)
    with pytest.raises(TimeoutError):
        op.wait_released(1_000_000)
    assert not op.done and op.copied is None
    del data, op
    gc.collect()
    assert alive() is not None and ring.in_flight == 1
    assert received(other, sent) == pattern(LARGE)[:sent]
    while ring.in_flight:
        assert ring.run_once(HANG_NS)
    gc.collect()
    assert alive() is None


def test_a_send_that_takes_too_long_is_cancelled(ring: Ring, pair: Pair) -> None:
    one, other = pair
    one.setblocking(False)
    filled = -1
    while filled:  # what the other end still takes in makes room again
        time.sleep(0.1)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += one.send(bytes(1 << 16))
    one.setblocking(True)
    data = Buffer(b"x" * 4096)
    op = ring.send_zc(one, data)
    with pytest.raises(TimeoutError):
        op.wait(1_000_000)
    assert op.wait_cqe()[0] in (-errno.ECANCELED, -errno.EINTR)
    op.wait_released(HANG_NS)
    data.append(0)


def test_a_peer_that_resets(ring: Ring, pair: Pair) -> None:
    one, other = pair
    data = Buffer(pattern(LARGE))
    op = ring.send_zc(one, data, socket.MSG_WAITALL)
    ring.submit()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    res, _ = op.wait_cqe(HANG_NS)
    assert res in (-errno.ECONNRESET, -errno.EPIPE) or 0 < res <= LARGE
    op.wait_released(HANG_NS)
    data.append(0)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        ring.send_zc(one, b"x").wait(HANG_NS)
        ring.send_zc(one, b"x").wait(HANG_NS)


def test_a_chain_taken_back_before_it_was_sent(ring: Ring, pair: Pair) -> None:
    data = Buffer(b"hello")
    with pytest.raises(KeyError):
        with ring.link(2):
            op = ring.send_zc(pair[0], data)
            raise KeyError
    assert op.wait_cqe()[0] == -errno.ECANCELED
    op.wait_released()
    data.append(0)
    assert ring.in_flight == 0


@pytest.mark.parametrize("send", ["send_zc(ours, data)", "sendmsg_zc(ours, [data[:5000], memoryview(data)[5000:]])"])
def test_dropped_data_is_what_was_sent(run_child: RunChild, send: str) -> None:
    run(
        run_child,
        CONNECT
        + f"""
        with Ring(8) as ring:
            if not ring.supports(abi.Op.SENDMSG_ZC):
                sys.exit()
            data = Buffer(pattern)
            op = ring.{send}
            sent = op.wait(HANG_NS)
            assert sent > 4096 and not op.done
            del data, op
            gc.collect()
            memory = look_alikes(len(pattern))
            assert received(sent) == pattern[:sent]
            finish(ring)
        """,
    )


def test_a_ring_is_closed_with_a_send_in_flight(run_child: RunChild) -> None:
    run(
        run_child,
        CONNECT
        + """
        ring = Ring(8)
        if not ring.supports(abi.Op.SEND_ZC):
            ring.close()
            sys.exit()
        data = Buffer(pattern)
        alive = weakref.ref(data)
        sent = ring.send_zc(ours, data).wait(HANG_NS)
        del data
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ring.close()
        assert [str(each.message) for each in caught if "memory is kept" in str(each.message)], caught
        del ring
        gc.collect()
        assert alive() is not None, "the kernel still reads it"
        memory = look_alikes(len(pattern))
        assert received(sent) == pattern[:sent]
        """,
    )
