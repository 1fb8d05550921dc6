"""Trials of moving data: multishot accept and receive, provided buffers of each kind, bundles, zero copy.

May import its sibling `bench`, abi and register.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Final

from ... import abi, register
from ...buffers import BufferGroup
from ...register.calling import address
from .bench import TrialRing, connected_to, expect, goes_on, listener, pair, pipe, receive, succeeded, tcp_pair

_Flag = abi.SqeFlag
_MESSAGES: Final = (b"first", b"second")


def content(pool: BufferGroup, what: str, res: int, cqe_flags: int, start: int = 0) -> bytes:
    """What a completion brought, from its buffer of the pool."""
    succeeded(what, res)
    expect(bool(cqe_flags & abi.CqeFlag.BUFFER), f"{what} completed without a buffer")
    return pool.peek(cqe_flags >> abi.CQE_BUFFER_SHIFT, res, start)


def accept_multishot() -> str:
    with TrialRing() as ring, listener() as server:
        ring.sq.prep_multishot_accept(server.fileno(), 0, 0, socket.SOCK_CLOEXEC)
        ring.submit()
        for _ in range(2):
            with connected_to(server):
                _, res, cqe_flags = ring.take_one()
                os.close(succeeded("the accept", res))
                goes_on("the accept", cqe_flags)
    return "one request, two connections"


def recv_multishot() -> str:
    with TrialRing() as ring, pair() as (one, other):
        pool = ring.buffer_ring(2, 64)
        ring.sq.prep_recv_multishot(one.fileno(), 0, 0, 0, pool.bgid)
        for message in _MESSAGES:
            ring.submit()
            other.send(message)
            _, res, cqe_flags = ring.take_one()
            expect(content(pool, "the receive", res, cqe_flags) == message, "what was received is not what was sent")
            goes_on("the receive", cqe_flags)
    return "one request, two messages"


def recvmsg_multishot() -> str:
    header = bytearray(abi.MSGHDR.nbytes)
    with TrialRing() as ring, pair() as (one, other):
        pool = ring.buffer_ring(2, 128)
        ring.sq.prep_recvmsg_multishot(one.fileno(), address(header), 0, pool.bgid)
        for message in _MESSAGES:
            ring.submit()
            other.send(message)
            _, res, cqe_flags = ring.take_one()
            expect(content(pool, "the receive", res, cqe_flags).endswith(message), "what was received was not sent")
            goes_on("the receive", cqe_flags)
    return "one request, two messages with their headers"


def read_multishot() -> str:
    with TrialRing() as ring, pipe() as (reader, writer):
        pool = ring.buffer_ring(2, 64)
        ring.sq.prep_read_multishot(reader, 0, -1, pool.bgid)
        for message in _MESSAGES:
            ring.submit()
            os.write(writer, message)
            _, res, cqe_flags = ring.take_one()
            expect(content(pool, "the read", res, cqe_flags) == message, "what was read is not what was written")
            goes_on("the read", cqe_flags)
    return "one request, two reads of a pipe"


def recv_poll_first() -> str:
    with TrialRing() as ring, pair() as (one, other):
        data = bytearray(64)
        ring.sq.prep_recv(one.fileno(), address(data), len(data), 0, ioprio=abi.RecvSend.POLL_FIRST)
        ring.submit()
        other.send(b"late")
        _, res, _ = ring.take_one()
        succeeded("the receive", res)
    expect(data[:res] == b"late", "what was received is not what was sent")
    return "a receive waited without trying first"


def provided_buffers() -> str:
    with TrialRing() as ring, pair() as (one, other):
        memory = bytearray(2 * 64)
        ring.sq.prep_provide_buffers(address(memory), 64, 2, 7, 0)
        succeeded("providing the buffers", ring.take_one()[1])
        other.send(b"for any buffer")
        ring.sq.prep_recv(one.fileno(), 0, 64, 0, buf_group=7, sqe_flags=_Flag.BUFFER_SELECT)
        _, res, cqe_flags = ring.take_one()
        succeeded("the receive", res)
        expect(bool(cqe_flags & abi.CqeFlag.BUFFER), "the receive took no buffer of the group")
        start = 64 * (cqe_flags >> abi.CQE_BUFFER_SHIFT)
    expect(memory[start : start + res] == b"for any buffer", "the buffer does not hold what was sent")
    return "the kernel picked a buffer that a request had provided"


def provided_buffer_ring() -> str:
    with TrialRing() as ring, pair() as (one, other):
        pool = ring.buffer_ring(2, 64)
        for turn in range(3):  # one more than there are buffers
            message = f"message {turn}".encode()
            other.send(message)
            ring.sq.prep_recv(one.fileno(), 0, 64, 0, buf_group=pool.bgid, sqe_flags=_Flag.BUFFER_SELECT)
            _, res, cqe_flags = ring.take_one()
            expect(content(pool, "the receive", res, cqe_flags) == message, "the buffer does not hold what was sent")
            pool.give_back([cqe_flags >> abi.CQE_BUFFER_SHIFT])
    return "three receives through a ring of two buffers"


def incremental_buffers() -> str:
    with TrialRing() as ring, pair() as (one, other):
        pool = ring.buffer_ring(1, 64, incremental=True)
        used = 0
        for message in _MESSAGES:
            other.send(message)
            ring.sq.prep_recv(one.fileno(), 0, len(message), 0, buf_group=pool.bgid, sqe_flags=_Flag.BUFFER_SELECT)
            _, res, cqe_flags = ring.take_one()
            found = content(pool, "the receive", res, cqe_flags, used)
            expect(found == message, "the second message is not behind the first" if used else "nothing was received")
            expect(bool(cqe_flags & abi.CqeFlag.BUF_MORE), "the buffer was used up by its first message")
            used += res
    return "two messages in one buffer"


def recv_bundle() -> str:
    # Over TCP, whose sockets tell how much is there; those of AF_UNIX do from Linux 6.17 on.
    with tcp_pair() as (one, other), TrialRing() as ring:
        pool = ring.buffer_ring(4, 8)
        other.send(bytes(range(24)))
        ring.sq.prep_recv(
            one.fileno(), 0, 0, 0, ioprio=abi.RecvSend.BUNDLE, buf_group=pool.bgid, sqe_flags=_Flag.BUFFER_SELECT
        )
        _, res, cqe_flags = ring.take_one()
        content(pool, "the receive", min(res, 8), cqe_flags)
        expect(res == 24, f"one completion brought {res} of 24 bytes, which fill three buffers")
        expect(b"".join(pool.peek(bid, pool.nbytes) for bid in range(3)) == bytes(range(24)), "the buffers do not hold what was sent")
    # A receive ends before an urgent byte, as it does where data comes while it runs: short, with more to receive.
    with tcp_pair() as (one, other), TrialRing() as ring:
        pool = ring.buffer_ring(4, 8)
        other.send(b"x")
        other.send(b"!", socket.MSG_OOB)
        other.send(b"y")
        other.shutdown(socket.SHUT_WR)
        ring.sq.prep_poll_add(one.fileno(), select.POLLRDHUP)
        ring.take_one()
        ring.sq.prep_recv(
            one.fileno(), 0, 0, 0, ioprio=abi.RecvSend.BUNDLE, buf_group=pool.bgid, sqe_flags=_Flag.BUFFER_SELECT
        )
        _, res, _ = ring.take_one()
        expect(res == 1, "after a short receive it went on in the next buffer, behind a gap")
    return "three buffers were filled by one completion"


def send_bundle() -> str:
    with TrialRing() as ring, pair() as (one, other):
        pool = ring.send_buffers(2, 64)
        for message in _MESSAGES:
            pool.put(message)
        ring.sq.prep_send_bundle(one.fileno(), 0, socket.MSG_NOSIGNAL, pool.bgid)
        _, res, _ = ring.take_one()
        succeeded("the send", res)
        sent = b"".join(_MESSAGES)
        expect(res == len(sent), f"one send sent {res} bytes of two buffers' {len(sent)}")
        expect(receive(other, res) == sent, "what was received is not what was sent")
    return "two buffers went out by one request"


def send_zc() -> str:
    data = bytearray(b"not copied" * 400)
    with tcp_pair() as (one, other), TrialRing() as ring:
        ring.sq.prep_send_zc(one.fileno(), address(data), len(data), socket.MSG_NOSIGNAL | socket.MSG_WAITALL, 0)
        _, res, cqe_flags = ring.take_one()
        succeeded("the send", res)
        expect(bool(cqe_flags & abi.CqeFlag.MORE), "the send announced no notification")
        expect(receive(other, res) == data[:res], "what was received is not what was sent")
        _, _, cqe_flags = ring.take_one()
        expect(bool(cqe_flags & abi.CqeFlag.NOTIF), "the completion after the send is no notification")
    return "sent over TCP, and notified when the buffer was free"


def registered_buffers() -> str:
    with TrialRing() as ring, pipe() as (reader, writer):
        buffer = bytearray(128)
        buffer[:5] = b"fixed"
        register.buffers(ring.fileno(), [(address(buffer), len(buffer))])
        ring.sq.prep_write_fixed(writer, address(buffer), 5, -1, 0)
        succeeded("the write", ring.take_one()[1])
        ring.sq.prep_read_fixed(reader, address(buffer) + 64, 64, -1, 0)
        res = succeeded("the read", ring.take_one()[1])
    expect(buffer[64 : 64 + res] == b"fixed", "what was read is not what was written")
    return "written and read through a registered buffer"
