"""Sockets, provided buffers and messages: what comes, in how many pieces, and how it ends. On every kind of ring."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from registering import refused
from support import (
    HANG_NS,
    Cqe,
    Pair,
    Pipe,
    RawBufferRing,
    address,
    has,
    ints,
    iovecs,
    listener,
    needs,
    newest,
    nops,
    pair,
    parsed,
    pipe,
    results,
    ring,
    room,
    sockaddr,
    take,
    take_one,
    timespec,
    udp_pair,
    unpacked,
    wait_until,
)

from rawuring import WANTED_FLAGS, Ring, abi, register
from rawuring.abi import Setup

CqeFlag, MsgRing, Op, RecvSend, SqeFlag = abi.CqeFlag, abi.MsgRing, abi.Op, abi.RecvSend, abi.SqeFlag
BUFFER_SELECT, FIXED_FILE, LINK = int(SqeFlag.BUFFER_SELECT), int(SqeFlag.FIXED_FILE), int(SqeFlag.IO_LINK)
BUFFER, MORE = CqeFlag.BUFFER, CqeFlag.MORE
CANCELED = -errno.ECANCELED
NO_FD = 1 << 20

__all__ = ["listener", "pair", "pipe", "ring"]


def take_until_final(ring: Ring, user_data: int) -> list[Cqe]:
    """Submit, and wait for the completion of `user_data` that no other follows: all of them."""
    found: list[Cqe] = []
    while not found or found[-1][2] & MORE:
        ring.submit_and_wait(1, HANG_NS)
        batch = ring.completions()
        assert batch, "waited in vain"
        found += batch
    assert {cqe[0] for cqe in found} == {user_data}
    return found


def backlog(listener: socket.socket) -> int:
    """How many connections wait to be accepted: tcpi_unacked of struct tcp_info, for a listener."""
    return int(struct.unpack_from("=I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64), 24)[0])


# --- accepting


@pytest.mark.behaviour("accept")
def test_accepts_that_nobody_answers_are_cancelled(ring: Ring, listener: socket.socket) -> None:
    for user_data in range(4):
        ring.sq.prep_accept(listener.fileno(), 0, 0, 0, user_data=user_data)
    for user_data in range(4):
        ring.sq.prep_cancel(user_data, 0, user_data=100 + user_data)
    expected = {**dict.fromkeys(range(4), CANCELED), **dict.fromkeys(range(100, 104), 0)}
    assert results(ring, 8) == expected
    # A connection that comes now is nobody's.
    with socket.create_connection(listener.getsockname()) as client:
        accepted, peer = listener.accept()
        with accepted:
            assert peer == client.getsockname()


@pytest.mark.behaviour("accept")
def test_a_listener_that_does_not_block(ring: Ring, listener: socket.socket) -> None:
    listener.setblocking(False)
    with socket.create_connection(listener.getsockname()) as client:
        wait_until(lambda: backlog(listener) == 1)
        ring.sq.prep_accept(listener.fileno(), 0, 0, socket.SOCK_CLOEXEC, user_data=1)
        with socket.socket(fileno=take_one(ring, 1)[0]) as accepted:
            assert accepted.getpeername() == client.getsockname()
    # Nobody is there: it waits all the same, in kernels that are not too old.
    ring.sq.prep_accept(listener.fileno(), 0, 0, socket.SOCK_CLOEXEC, user_data=2)
    ring.submit()
    with socket.create_connection(listener.getsockname()) as client:
        fd, _ = take_one(ring, 2)
        if fd == -errno.EAGAIN:
            return
        with socket.socket(fileno=fd) as accepted:
            assert accepted.getpeername() == client.getsockname()


@pytest.mark.behaviour("accept")
def test_what_a_multishot_accept_cannot_be_told(ring: Ring, listener: socket.socket) -> None:
    needs(abi.Accept.MULTISHOT.since, ring)
    register.files(ring.fileno(), [-1, -1])
    # All connections into one slot.
    ring.sq.prep_rw(
        Op.ACCEPT, listener.fileno(), 0, 0, 0, ioprio=abi.Accept.MULTISHOT, file_index=1, user_data=1
    )
    assert take_one(ring, 1) == (-errno.EINVAL, 0)


@pytest.mark.behaviour("accept")
@pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0])
def test_a_multishot_accept_and_a_full_completion_queue(wanted_flags: int, listener: socket.socket) -> None:
    """It may end; no connection is lost or taken twice."""
    with Ring(4, cq_entries=4, wanted_flags=wanted_flags) as ring:
        needs(abi.Accept.MULTISHOT.since, ring)
        ring.sq.prep_multishot_accept(listener.fileno(), 0, 0, socket.SOCK_CLOEXEC, user_data=1)
        ring.submit()
        nops(ring, 2, 2, 2, 2)
        ring.submit()
        assert ring.cq.ready == 4
        clients = [socket.create_connection(listener.getsockname()) for _ in range(8)]
        accepted: list[socket.socket] = []
        nr_nops = 0
        try:
            while len(accepted) < 8 or nr_nops < 4:
                ring.submit_and_wait(1, HANG_NS)
                batch = ring.completions()
                assert batch, "waited in vain"
                for user_data, res, cqe_flags in batch:
                    if user_data == 2:
                        nr_nops += 1
                        continue
                    assert res >= 0
                    accepted.append(socket.socket(fileno=res))
                    if not cqe_flags & MORE:
                        ring.sq.prep_multishot_accept(listener.fileno(), 0, 0, socket.SOCK_CLOEXEC, user_data=1)
            peers = [each.getpeername() for each in accepted]
            assert sorted(peers) == sorted(client.getsockname() for client in clients)
        finally:
            for each in (*clients, *accepted):
                each.close()


@pytest.mark.behaviour("accept-non-empty")
@pytest.mark.parametrize("multishot", [False, True])
def test_an_accept_tells_that_more_wait(ring: Ring, listener: socket.socket, multishot: bool) -> None:
    needs(abi.Accept.DONTWAIT.since, bool(ring.features & abi.Feature.RECVSEND_BUNDLE))  # of the same release
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    accepted = []
    try:
        wait_until(lambda: backlog(listener) == 3)
        if multishot:
            ring.sq.prep_multishot_accept(listener.fileno(), 0, 0, 0, user_data=1)
        for left in (2, 1, 0):
            if not multishot:
                ring.sq.prep_accept(listener.fileno(), 0, 0, 0, user_data=1)
                found = take(ring)
            elif left == 2:
                found = take(ring, 3)
            user_data, fd, cqe_flags = found.pop(0)
            accepted.append(socket.socket(fileno=fd))
            assert bool(cqe_flags & CqeFlag.SOCK_NONEMPTY) == (left > 0)
            assert bool(cqe_flags & MORE) == multishot
    finally:
        for each in (*clients, *accepted):
            each.close()


# --- connecting


@pytest.mark.behaviour("connect")
def test_connecting_a_socket_that_does_not_block(ring: Ring, listener: socket.socket) -> None:
    name = sockaddr(*listener.getsockname())
    with socket.socket() as client:
        client.setblocking(False)
        ring.sq.prep_connect(client.fileno(), address(name), len(name), user_data=1)
        assert take_one(ring, 1) == (0, 0)  # and not EINPROGRESS
        assert client.getpeername() == listener.getsockname()
        ring.sq.prep_connect(client.fileno(), address(name), len(name), user_data=2)
        ring.sq.prep_connect(listener.fileno(), address(name), len(name), user_data=3)
        assert results(ring, 2) == {2: -errno.EISCONN, 3: -errno.EISCONN}
        ring.sq.prep_connect(NO_FD, address(name), len(name), user_data=4)
        assert take_one(ring, 4) == (-errno.EBADF, 0)


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """A listener that answers nobody any more: its backlog is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        with socket.create_connection(server.getsockname()):
            wait_until(lambda: backlog(server) == 1)
            yield server


@pytest.mark.behaviour("connect")
def test_a_connection_that_is_never_answered_times_out(ring: Ring, full: socket.socket) -> None:
    name, short = sockaddr(*full.getsockname()), timespec(20_000_000)
    with socket.socket() as client:
        ring.sq.prep_connect(client.fileno(), address(name), len(name), user_data=1, sqe_flags=LINK)
        ring.sq.prep_link_timeout(address(short), 0, user_data=2)
        assert results(ring, 2) == {1: CANCELED, 2: -errno.ETIME}
        with pytest.raises(OSError):
            client.getpeername()


@pytest.mark.behaviour("bind-listen", "socket")
def test_a_server_whose_sockets_are_all_in_slots(ring: Ring) -> None:
    has(ring, Op.LISTEN)
    register.files(ring.fileno(), [-1, -1, -1])
    server, client, accepted = 0, 1, 2
    slot = {"sqe_flags": FIXED_FILE}

    def done(user_data: int) -> int:
        res, _ = take_one(ring, user_data)
        assert res >= 0, os.strerror(-res)
        return res

    for index in (server, client):
        ring.sq.prep_socket_direct(socket.AF_INET, socket.SOCK_STREAM, 0, index, user_data=1)
        assert done(1) == 0
    on, anywhere = ints(1), sockaddr("127.0.0.1", 0)
    ring.sq.prep_cmd_sock(
        abi.SocketOp.SETSOCKOPT, server, socket.SOL_SOCKET, socket.SO_REUSEADDR, address(on), 4, user_data=2, **slot
    )
    assert done(2) == 0
    ring.sq.prep_bind(server, address(anywhere), len(anywhere), user_data=3, **slot)
    assert done(3) == 0
    ring.sq.prep_bind(server, address(anywhere), len(anywhere), user_data=4, **slot)
    assert take_one(ring, 4) == (-errno.EINVAL, 0)  # it is bound
    ring.sq.prep_listen(server, 4, user_data=5, **slot)
    assert done(5) == 0
    ring.sq.prep_fixed_fd_install(server, 0, user_data=6)
    with socket.socket(fileno=done(6)) as installed:
        host, port = installed.getsockname()
        assert installed.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) and port > 0
    found, addrlen = room(32), ints(32)
    ring.sq.prep_cmd_getsockname(server, address(found), address(addrlen), 0, user_data=7, **slot)
    if take_one(ring, 7)[0] == 0:  # Linux 6.19 has it
        assert (parsed(found[:16]), unpacked(addrlen)) == ((host, port), (16,))

    name = sockaddr(host, port)
    ring.sq.prep_connect(client, address(name), len(name), user_data=8, **slot)
    ring.sq.prep_accept_direct(server, 0, 0, 0, accepted, user_data=9, **slot)
    assert results(ring, 2) == {8: 0, 9: 0}
    data, back = bytearray(b"through slots"), room(13)
    ring.sq.prep_send(client, address(data), 13, socket.MSG_WAITALL, user_data=10, **slot)
    ring.sq.prep_recv(accepted, address(back), 13, socket.MSG_WAITALL, user_data=11, **slot)
    assert results(ring, 2) == {10: 13, 11: 13}
    assert back == data
    with socket.socket() as other:
        ring.sq.prep_bind(other.fileno(), address(name), len(name), user_data=12)
        assert take_one(ring, 12) == (-errno.EADDRINUSE, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        ring.sq.prep_listen(datagrams.fileno(), 4, user_data=13)
        assert take_one(ring, 13) == (-errno.EOPNOTSUPP, 0)


# --- sending and receiving


@pytest.mark.behaviour("socket-nb")
@pytest.mark.parametrize("blocking", [True, False])
def test_a_receive_waits_unless_it_is_told_not_to(ring: Ring, pair: Pair, blocking: bool) -> None:
    """MSG_DONTWAIT of the request decides, O_NONBLOCK of the socket does not."""
    one, other = pair
    one.setblocking(blocking)
    memory = room(8)
    ring.sq.prep_recv(one.fileno(), address(memory), 8, socket.MSG_DONTWAIT, user_data=1)
    assert take_one(ring, 1)[0] == -errno.EAGAIN
    ring.sq.prep_recv(one.fileno(), address(memory), 8, 0, user_data=2)
    ring.submit_and_wait(0)
    assert ring.completions() == []
    other.sendall(b"waited")
    assert take_one(ring, 2)[0] == 6
    assert memory == b"waited" + room(2)


@pytest.mark.behaviour("send_recv", "send_recvmsg")
@pytest.mark.parametrize("kind", ["legacy", "ring"])
def test_messages_into_provided_buffers(ring: Ring, kind: str) -> None:
    one, other = udp_pair()
    with one, other:
        if kind == "ring":
            needs("5.19", ring)
            pool = RawBufferRing(ring, 1, 4)
            memory = pool.buffers
        else:
            memory = room(4 * 64)
            ring.sq.prep_provide_buffers(address(memory), 64, 4, 1, 0, user_data=1)
            assert take_one(ring, 1)[0] >= 0
        data, name = bytearray(b"in a message"), sockaddr(*one.getsockname())
        vector = iovecs(data)
        header = abi.MSGHDR.pack(
            msg_name=address(name), msg_namelen=len(name), msg_iov=address(vector), msg_iovlen=1
        )
        sender = room(32)
        nothing = bytearray(struct.pack("=QQ", 0, 64))
        into = abi.MSGHDR.pack(
            msg_name=address(sender), msg_namelen=len(sender), msg_iov=address(nothing), msg_iovlen=1
        )
        for _ in range(2):
            abi.MSGHDR.put(into, "msg_namelen", len(sender))
            ring.sq.prep_sendmsg(other.fileno(), address(header), 0, user_data=2)
            assert take_one(ring, 2) == (12, 0)
            ring.sq.prep_rw(
                Op.RECVMSG, one.fileno(), address(into), 1, 0, buf_index=1, user_data=3, sqe_flags=BUFFER_SELECT
            )
            res, cqe_flags = take_one(ring, 3)
            assert res == 12 and cqe_flags & BUFFER
            at = (cqe_flags >> abi.CQE_BUFFER_SHIFT) * 64
            assert memory[at : at + 64] == data + room(52)
            assert parsed(sender[:16]) == other.getsockname()
        # Of what comes next, without a message, one buffer more.
        other.sendto(b"plain", one.getsockname())
        ring.sq.prep_recv(one.fileno(), 0, 64, 0, buf_group=1, user_data=4, sqe_flags=BUFFER_SELECT)
        res, cqe_flags = take_one(ring, 4)
        at = (cqe_flags >> abi.CQE_BUFFER_SHIFT) * 64
        assert memory[at : at + 64] == b"plain" + room(59)


@pytest.mark.pitfall("a zero-copy send completes twice")
@pytest.mark.behaviour("send-zerocopy")
def test_zero_copy_sends_that_fail(ring: Ring, pair: Pair) -> None:
    """With a second completion or without: the first one tells."""
    has(ring, Op.SEND_ZC)
    memory = bytearray(b"data")

    def sent(fd: int, addr: int, zc_flags: int = 0) -> int:
        ring.sq.prep_send_zc(fd, addr, 4, 0, zc_flags, user_data=1)
        first, *rest = take_until_final(ring, 1)
        assert all(cqe == (1, 0, CqeFlag.NOTIF) for cqe in rest) and len(rest) <= 1
        return first[1]

    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert sent(one.fileno(), address(memory)) == -errno.EOPNOTSUPP
    assert sent(NO_FD, address(memory)) == -errno.EBADF
    assert sent(pair[0].fileno(), 16) == -errno.EFAULT
    assert sent(pair[0].fileno(), address(memory), 1 << 9) == -errno.EINVAL
    pair[0].shutdown(socket.SHUT_WR)
    assert sent(pair[0].fileno(), address(memory)) == -errno.EPIPE
    assert pair[1].recv(10) == b""


# --- receiving again and again


@pytest.mark.behaviour("recv-multishot")
def test_what_a_multishot_receive_cannot_be_told(ring: Ring, pair: Pair) -> None:
    needs(RecvSend.RECV_MULTISHOT.since, ring)
    fd, memory = pair[0].fileno(), room(8)
    multishot = RecvSend.RECV_MULTISHOT
    # Where to put what comes second; and to wait for all of it.
    ring.sq.prep_recv(fd, address(memory), 8, 0, ioprio=multishot, user_data=1)
    ring.sq.prep_recv(fd, 0, 0, socket.MSG_WAITALL, ioprio=multishot, buf_group=1, user_data=2, sqe_flags=BUFFER_SELECT)
    assert results(ring, 2) == {1: -errno.EINVAL, 2: -errno.EINVAL}


@pytest.mark.behaviour("recv-multishot")
@pytest.mark.parametrize("peer_resets", [False, True])
def test_an_end_that_came_before_the_receive_is_told_after_another_shutdown(
    ring: Ring, pair: Pair, peer_resets: bool
) -> None:
    """Where the receive polls first, and finds bytes. Some kernels tell it without being asked."""
    needs(RecvSend.RECV_MULTISHOT.since, ring)
    one, other = pair
    pool = RawBufferRing(ring, 1, 4)
    other.sendall(b"last words")
    if peer_resets:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
    else:
        one.shutdown(socket.SHUT_RD)
    ring.sq.prep_recv_multishot(one.fileno(), 0, 0, 0, buf_group=1, ioprio=RecvSend.POLL_FIRST, user_data=1)
    ring.submit_and_wait(1, HANG_NS)
    first, *rest = ring.completions()
    assert pool.content(*first[1:])[1] == b"last words"
    assert first[2] & MORE
    if not rest:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RD)
        rest = take_until_final(ring, 1)
    assert [res for _, res, _ in rest] == [-errno.ECONNRESET if peer_resets else 0]


@pytest.mark.behaviour("recv-multishot")
def test_datagrams_come_one_by_one(ring: Ring) -> None:
    needs(RecvSend.RECV_MULTISHOT.since, ring)
    one, other = udp_pair()
    with one, other:
        pool = RawBufferRing(ring, 1, 8)
        for number in range(3):  # before it is asked for
            other.sendto(b"%d" % number * 10, one.getsockname())
        ring.sq.prep_recv_multishot(one.fileno(), 0, 0, 0, buf_group=1, user_data=1)
        found = take(ring, 3)
        other.sendto(b"x" * 100, one.getsockname())  # more than a buffer has room for
        found += take(ring)
        contents = [pool.content(res, cqe_flags)[1] for _, res, cqe_flags in found]
        assert contents == [b"0" * 10, b"1" * 10, b"2" * 10, b"x" * 64]
        assert all(cqe_flags & MORE for _, _, cqe_flags in found)
        ring.sq.prep_cancel(1, 0, user_data=2)
        assert {user_data: res for user_data, res, _ in take(ring, 2)} == {1: CANCELED, 2: 0}


@pytest.mark.pitfall("a multishot request ends by itself")
@pytest.mark.behaviour("recv-multishot")
def test_messages_that_do_not_fit_their_buffers(ring: Ring) -> None:
    needs(RecvSend.RECV_MULTISHOT.since, ring)
    one, other = udp_pair()
    with one, other:
        pool = RawBufferRing(ring, 1, 4)
        header = abi.MSGHDR.pack(msg_namelen=64)  # with it there is no room for anything else
        ring.sq.prep_recvmsg_multishot(one.fileno(), address(header), 0, 1, user_data=1)
        ring.submit()
        other.sendto(b"data", one.getsockname())
        res, cqe_flags = take_one(ring, 1)
        assert (res, cqe_flags & MORE) == (-errno.EFAULT, 0)
        assert pool.addr


@pytest.mark.pitfall("a multishot request ends by itself")
@pytest.mark.behaviour("recv-multishot")
@pytest.mark.parametrize("wanted_flags", [WANTED_FLAGS, 0])
def test_a_multishot_receive_and_a_full_completion_queue(wanted_flags: int, pair: Pair) -> None:
    """It may end early; what was received is all there, in order."""
    one, other = pair
    with Ring(2, cq_entries=2, wanted_flags=wanted_flags) as ring:
        needs(RecvSend.RECV_MULTISHOT.since, ring)
        pool = RawBufferRing(ring, 1, 16)
        ring.sq.prep_recv_multishot(one.fileno(), 0, 0, 0, buf_group=1, user_data=1)
        ring.submit()
        sent = bytes(range(80))
        for at in range(0, 80, 8):
            other.sendall(sent[at : at + 8])
            ring.submit_and_wait(0)
        received = b""
        while len(received) < 80:
            ring.submit_and_wait(1, HANG_NS)
            batch = ring.completions()
            assert batch, "waited in vain"
            for _, res, cqe_flags in batch:
                bid, content = pool.content(res, cqe_flags)
                received += content
                pool.give(bid)
                if not cqe_flags & MORE:
                    ring.sq.prep_recv_multishot(one.fileno(), 0, 0, 0, buf_group=1, user_data=1)
        assert received == sent


@pytest.mark.pitfall("a multishot request ends by itself")
@pytest.mark.behaviour("read-mshot")
def test_reads_go_on_until_there_is_no_buffer_or_no_more(ring: Ring, pipe: Pipe) -> None:
    has(ring, Op.READ_MULTISHOT)
    reader, writer = os.pipe()
    with open(reader, "rb"):
        pool = RawBufferRing(ring, 3, 2)
        ring.sq.prep_read_multishot(reader, 0, 0, 3, user_data=1)
        for content in (b"first", b"second"):
            os.write(writer, content)
            res, cqe_flags = take_one(ring, 1)
            assert pool.content(res, cqe_flags)[1] == content and cqe_flags & MORE
        os.write(writer, b"third")
        res, cqe_flags = take_one(ring, 1)
        assert (res, cqe_flags & (MORE | BUFFER)) == (-errno.ENOBUFS, 0)
        # It is still there, and the end behind it.
        pool.give(0, 1)
        ring.sq.prep_read_multishot(reader, 0, 0, 3, user_data=2)
        res, cqe_flags = take_one(ring, 2)
        assert pool.content(res, cqe_flags)[1] == b"third" and cqe_flags & MORE
        os.close(writer)
        res, cqe_flags = take_one(ring, 2)
        assert (res, cqe_flags & MORE) == (0, 0)
    ring.sq.prep_rw(Op.READ_MULTISHOT, pipe[0], 0, 0, 0, user_data=3)  # no group
    ring.sq.prep_read_multishot(pipe[0], 4, 0, 3, user_data=4)
    assert results(ring, 2) == {3: -errno.EINVAL, 4: -errno.EINVAL}


# --- buffers


@pytest.mark.pitfall("provided buffers go astray")
@pytest.mark.behaviour("buf-ring")
def test_a_group_is_of_one_kind(ring: Ring) -> None:
    needs("5.19", ring)
    memory = room(64)
    ring.sq.prep_provide_buffers(address(memory), 64, 1, 1, 0, user_data=1)
    assert take_one(ring, 1)[0] >= 0
    with refused(errno.EEXIST):
        RawBufferRing(ring, 1, 4)
    ring.sq.prep_remove_buffers(1, 1, user_data=2)
    assert take_one(ring, 2) == (1, 0)
    pool = RawBufferRing(ring, 1, 4)  # there is none left in it
    ring.sq.prep_provide_buffers(address(memory), 64, 1, 1, 0, user_data=3)
    ring.sq.prep_remove_buffers(1, 1, user_data=4)
    assert results(ring, 2) == {3: -errno.EINVAL, 4: -errno.EINVAL}
    register.unregister_pbuf_ring(ring.fileno(), 1)
    assert pool.addr


@pytest.mark.behaviour("buf-ring")
def test_many_groups_each_until_it_is_used_up(ring: Ring, pipe: Pipe) -> None:
    needs("5.19", ring)
    bgids = 0, 1, 2, 63, 64, 65, 127, 0xFFFE, 0xFFFF
    pools = {bgid: RawBufferRing(ring, bgid, 2) for bgid in bgids}
    for turn in range(3):
        for bgid, pool in pools.items():
            content = b"%d of %d" % (turn, bgid)
            os.write(pipe[1], content)
            ring.sq.prep_read(pipe[0], 0, 64, 0, buf_group=bgid, user_data=bgid, sqe_flags=BUFFER_SELECT)
            res, cqe_flags = take_one(ring, bgid)
            if turn < 2:
                assert pool.content(res, cqe_flags) == (turn, content)
            else:
                assert (res, cqe_flags) == (-errno.ENOBUFS, 0)
                assert os.read(pipe[0], 64) == content  # nobody took it
    for bgid, pool in pools.items():
        pool.give(1)
        os.write(pipe[1], b"again")
        ring.sq.prep_read(pipe[0], 0, 64, 0, buf_group=bgid, user_data=bgid, sqe_flags=BUFFER_SELECT)
        assert pool.content(*take_one(ring, bgid)) == (1, b"again")
        register.unregister_pbuf_ring(ring.fileno(), bgid)


# --- messages between rings


@pytest.fixture(params=["best", "plain", "sqpoll", "disabled"])
def target(request: pytest.FixtureRequest) -> Iterator[Ring]:
    flags = {"sqpoll": Setup.SQPOLL, "disabled": Setup.R_DISABLED}.get(request.param, 0)
    with Ring(4, flags, cq_entries=4, wanted_flags=WANTED_FLAGS if request.param == "best" else 0) as made:
        yield made


@pytest.mark.behaviour("msg-ring")
@pytest.mark.parametrize("ring", ["best", "plain"], indirect=True)
def test_messages_to_every_kind_of_ring(ring: Ring, target: Ring) -> None:
    """Also more than its completion queue has room for: each that was sent arrives."""
    has(ring, Op.MSG_RING)
    if target.setup_flags & Setup.R_DISABLED:
        ring.sq.prep_msg_ring(target.fileno(), 1, 2, 0, user_data=1)
        assert take_one(ring, 1) == (-errno.EBADFD, 0)
        return
    for number in range(12):
        ring.sq.prep_msg_ring(target.fileno(), number, 100 + number, 0, user_data=number)
        res, _ = take_one(ring, number)
        assert res == 0 or (res == -errno.EOVERFLOW and number >= 4)
        if res:
            found = take(target, number)
            break
    else:
        found = []
        while len(found) < 12:
            target.submit_and_wait(1, HANG_NS)
            batch = target.completions()
            assert batch
            found += batch
    assert found == [(100 + number, number, 0) for number in range(len(found))]
    assert len(found) >= 4


@pytest.mark.behaviour("msg-ring", "msg-ring-fd", "msg-ring-flags")
def test_a_ring_sends_to_itself_and_not_just_anything(ring: Ring) -> None:
    has(ring, Op.MSG_RING)
    ring.sq.prep_msg_ring(ring.fileno(), 7, 2, 0, user_data=1)
    assert results(ring, 2) == {1: 0, 2: 7}
    ring.sq.prep_msg_ring(ring.fileno(), 7, 2, 1 << 10, user_data=1)
    ring.sq.prep_msg_ring(NO_FD, 7, 2, 0, user_data=3)
    assert results(ring, 2) == {1: -errno.EINVAL, 3: -errno.EBADF}
    ring.sq.prep_msg_ring(ring.fileno(), 7, 2, MsgRing.CQE_SKIP, user_data=4)  # it is of messages with files alone
    if newest(ring) >= (6, 0):
        assert take_one(ring, 4) == (-errno.EINVAL, 0)
    else:
        assert take(ring)[0][0] == 4


@pytest.mark.behaviour("msg-ring-fd")
def test_a_file_is_not_sent_where_there_is_no_table(ring: Ring, pipe: Pipe) -> None:
    needs(abi.MsgRingCommand.SEND_FD.since, ring)
    with Ring(4) as target:
        register.files(ring.fileno(), [pipe[0], -1])
        ring.sq.prep_msg_ring_fd(target.fileno(), 0, 0, 2, 0, user_data=1)
        assert take_one(ring, 1) == (-errno.ENXIO, 0)
        register.files(target.fileno(), [-1])
        ring.sq.prep_msg_ring_fd(target.fileno(), 0, 1, 2, 0, user_data=1)
        assert take_one(ring, 1) == (-errno.EINVAL, 0)
        ring.sq.prep_msg_ring_fd(ring.fileno(), 0, 1, 2, 0, user_data=1)  # from table to the same table
        assert take_one(ring, 1) == (-errno.EINVAL, 0)
        target.submit_and_wait(0)
        assert target.completions() == []
