"""Every operation of the raw layer on this kernel, by its effect in the world, and the flags of every SQE.

Each runs on a ring with the best set-up, on a plain one with an SQ array, and on one with an SQ
thread. The register verbs are in test_register; how rings are set up, entered and misused, in
test_raw_ring.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
import time
from pathlib import Path

import pytest
from support import (
    HANG_NS,
    Pair,
    Pipe,
    RawBufferRing,
    address,
    arm,
    iovecs,
    listener,
    needs,
    newest,
    pair,
    parsed,
    path,
    pipe,
    results,
    ring,
    room,
    sockaddr,
    take,
    take_one,
    text,
    timespec,
    udp_pair,
)

from rawuring import Ring, abi, register

CqeFlag, Op, SqeFlag = abi.CqeFlag, abi.Op, abi.SqeFlag
FIXED_FILE, IO_LINK = int(SqeFlag.FIXED_FILE), int(SqeFlag.IO_LINK)
HOUR_NS = 3600 * 10**9

__all__ = ["listener", "pair", "path", "pipe", "ring"]


# --- files


@pytest.mark.behaviour("nop")
def test_nop(ring: Ring) -> None:
    ring.sq.prep_nop(user_data=(1 << 63) - 1)
    assert take_one(ring, (1 << 63) - 1) == (0, 0)


@pytest.mark.behaviour("nop", "nop-flags")
@pytest.mark.parametrize("res", [42, -errno.EAGAIN, 0x7FFF_FFFF, -0x8000_0000])
def test_nop_gives_back_what_was_injected(ring: Ring, res: int) -> None:
    needs(abi.Nop.INJECT_RESULT.since, ring)
    ring.sq.prep_nop_flags(abi.Nop.INJECT_RESULT, res=res, user_data=1)
    assert take_one(ring, 1) == (res, 0)


@pytest.mark.behaviour("nop-flags")
def test_nop_looks_its_file_and_buffer_up(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Nop.FILE.since, ring)
    memory = room(4096)
    register.buffers(ring.fileno(), [(address(memory), 4096)])
    ring.sq.prep_nop_flags(abi.Nop.FILE, fd=pipe[0], user_data=1)
    ring.sq.prep_nop_flags(abi.Nop.FILE, fd=1 << 20, user_data=2)
    ring.sq.prep_nop_flags(abi.Nop.FIXED_BUFFER, buf_index=0, user_data=3)
    ring.sq.prep_nop_flags(abi.Nop.FIXED_BUFFER, buf_index=1, user_data=4)
    found = results(ring, 4)
    if found[2] == 0:
        pytest.skip("this kernel does not tell what a NOP looked for in vain: some before 7.0 do not")
    assert found == {1: 0, 2: -errno.EBADF, 3: 0, 4: -errno.EFAULT}


def test_read(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    memory = room(8)
    with path.open("rb", buffering=0) as file:
        ring.sq.prep_read(file.fileno(), address(memory), 4, 3, user_data=1)
        assert take_one(ring, 1) == (4, 0)
        assert memory == b"3456" + room(4)
        assert file.tell() == 0
        ring.sq.prep_read(file.fileno(), address(memory), 8, 8, user_data=2)
        assert take_one(ring, 2) == (2, 0)
        ring.sq.prep_read(file.fileno(), address(memory), 8, 10, user_data=3)
        assert take_one(ring, 3) == (0, 0)


@pytest.mark.behaviour("fpos")
def test_read_at_the_file_position(ring: Ring, path: Path) -> None:
    needs(abi.Feature.RW_CUR_POS.since, bool(ring.features & abi.Feature.RW_CUR_POS))
    path.write_bytes(b"0123456789")
    memory = room(4)
    with path.open("r+b", buffering=0) as file:
        file.seek(2)
        ring.sq.prep_read(file.fileno(), address(memory), 4, -1, user_data=1)
        assert take_one(ring, 1) == (4, 0)
        assert memory == b"2345" and file.tell() == 6
        ring.sq.prep_write(file.fileno(), address(memory), 2, -1, user_data=2)
        assert take_one(ring, 2) == (2, 0)
        assert file.tell() == 8
    assert path.read_bytes() == b"0123452389"


def test_write(ring: Ring, path: Path) -> None:
    path.write_bytes(b"..........")
    memory = bytearray(b"abcdef")
    with path.open("r+b", buffering=0) as file:
        ring.sq.prep_write(file.fileno(), address(memory) + 1, 4, 3, user_data=1)
        assert take_one(ring, 1) == (4, 0)
    assert path.read_bytes() == b"...bcde..."


def test_rw_flags(ring: Ring, path: Path) -> None:
    path.write_bytes(b"123")
    memory = bytearray(b"abc")
    with path.open("r+b", buffering=0) as file:
        ring.sq.prep_write(file.fileno(), address(memory), 3, 0, rw_flags=os.RWF_APPEND, user_data=1)
        assert take_one(ring, 1) == (3, 0)
    assert path.read_bytes() == b"123abc"


def test_readv_and_writev(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    first, second = room(3), room(2)
    out = iovecs(first, second)
    with path.open("r+b", buffering=0) as file:
        ring.sq.prep_readv(file.fileno(), address(out), 2, 4, user_data=1)
        assert take_one(ring, 1) == (5, 0)
        assert first == b"456" and second == b"78"
        into = iovecs(second, first)
        ring.sq.prep_writev(file.fileno(), address(into), 2, 1, user_data=2)
        assert take_one(ring, 2) == (5, 0)
    assert path.read_bytes() == b"0784566789"


def test_registered_buffers(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    memory, other = room(4096), room(4096)
    register.buffers(ring.fileno(), [(address(other), 4096), (address(memory), 4096)])
    with path.open("r+b", buffering=0) as file:
        ring.sq.prep_read_fixed(file.fileno(), address(memory) + 100, 4, 3, 1, user_data=1)
        assert take_one(ring, 1) == (4, 0)
        assert memory == room(100) + b"3456" + room(4096 - 104)
        assert other == room(4096)
        ring.sq.prep_write_fixed(file.fileno(), address(memory) + 101, 2, 0, 1, user_data=2)
        assert take_one(ring, 2) == (2, 0)
        ring.sq.prep_read_fixed(file.fileno(), address(memory), 4, 0, 0, user_data=3)  # of the other buffer
        assert take_one(ring, 3) == (-errno.EFAULT, 0)
        register.unregister_buffers(ring.fileno())
        with pytest.raises(OSError) as caught:
            register.unregister_buffers(ring.fileno())
        assert caught.value.errno == errno.ENXIO
        ring.sq.prep_read_fixed(file.fileno(), address(memory), 4, 0, 1, user_data=4)
        assert take_one(ring, 4) == (-errno.EFAULT, 0)
    assert path.read_bytes() == b"4523456789"


def test_fsync(ring: Ring, path: Path, pipe: Pipe) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(b"dirty")
        ring.sq.prep_fsync(file.fileno(), 0, user_data=1)
        ring.sq.prep_fsync(file.fileno(), abi.Fsync.DATASYNC, offset=0, nbytes=5, user_data=2)
        ring.sq.prep_fsync(file.fileno(), 1 << 10, user_data=3)
        ring.sq.prep_fsync(pipe[1], 0, user_data=4)  # cannot be synced, and the kernel was asked to
        assert results(ring, 4) == {1: 0, 2: 0, 3: -errno.EINVAL, 4: -errno.EINVAL}


@pytest.mark.behaviour("open-close")
def test_openat(ring: Ring, tmp_path: Path) -> None:
    name = text("new")
    umask = os.umask(0)
    try:
        folder = os.open(tmp_path, os.O_DIRECTORY)
        ring.sq.prep_openat(folder, address(name), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640, user_data=1)
        fd, _ = take_one(ring, 1)
    finally:
        os.umask(umask)
        os.close(folder)
    assert fd >= 0
    os.write(fd, b"content")
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert (tmp_path / "new").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    missing = text(str(tmp_path / "missing"))
    ring.sq.prep_openat(-100, address(missing), os.O_RDONLY, 0, user_data=2)
    assert take_one(ring, 2) == (-errno.ENOENT, 0)


@pytest.mark.behaviour("open-close")
def test_openat_direct(ring: Ring, path: Path) -> None:
    needs("5.15", ring)
    path.write_bytes(b"0123456789")
    register.files_sparse(ring.fileno(), 3)
    name, memory = text(str(path)), room(4)
    before = len(os.listdir("/proc/self/fd"))
    ring.sq.prep_openat_direct(-100, address(name), os.O_RDONLY, 0, 1, user_data=1)
    assert take_one(ring, 1) == (0, 0)
    ring.sq.prep_read(1, address(memory), 4, 2, sqe_flags=FIXED_FILE, user_data=2)
    assert take_one(ring, 2) == (4, 0)
    assert memory == b"2345"
    assert len(os.listdir("/proc/self/fd")) == before
    ring.sq.prep_close_direct(1, user_data=3)
    assert take_one(ring, 3) == (0, 0)
    ring.sq.prep_read(1, address(memory), 4, 2, sqe_flags=FIXED_FILE, user_data=4)
    assert take_one(ring, 4) == (-errno.EBADF, 0)


@pytest.mark.behaviour("open-direct-pick")
def test_openat_direct_into_a_slot_the_kernel_picks(ring: Ring, path: Path) -> None:
    needs("5.19", ring)
    path.write_bytes(b"0123456789")
    register.files_sparse(ring.fileno(), 2)
    name, memory = text(str(path)), room(4)
    slots = set()
    for user_data in (1, 2):
        ring.sq.prep_openat_direct(
            -100, address(name), os.O_RDONLY, 0, abi.FILE_INDEX_ALLOC, user_data=user_data
        )
        slots.add(take_one(ring, user_data)[0])
    assert slots == {0, 1}
    ring.sq.prep_openat_direct(-100, address(name), os.O_RDONLY, 0, abi.FILE_INDEX_ALLOC, user_data=3)
    assert take_one(ring, 3) == (-errno.ENFILE, 0)
    ring.sq.prep_read(1, address(memory), 4, 0, sqe_flags=FIXED_FILE, user_data=4)
    assert take_one(ring, 4) == (4, 0)
    assert memory == b"0123"


@pytest.mark.behaviour("open-close")
def test_close(ring: Ring) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as file:
        ring.sq.prep_close(writer, user_data=1)
        assert take_one(ring, 1) == (0, 0)
        assert file.read() == b""  # nobody can write any more
        ring.sq.prep_close(writer, user_data=2)
        assert take_one(ring, 2) == (-errno.EBADF, 0)


# --- sockets


@pytest.mark.behaviour("send_recv")
def test_send(ring: Ring, pair: Pair) -> None:
    one, other = pair
    memory = bytearray(b"..hello..")
    ring.sq.prep_send(one.fileno(), address(memory) + 2, 5, socket.MSG_WAITALL, user_data=1)
    assert take_one(ring, 1) == (5, 0)
    assert other.recv(100) == b"hello"
    one.shutdown(socket.SHUT_WR)
    ring.sq.prep_send(one.fileno(), address(memory), 5, 0, user_data=2)
    assert take_one(ring, 2) == (-errno.EPIPE, 0)


@pytest.mark.behaviour("send_recv")
def test_recv(ring: Ring, pair: Pair) -> None:
    one, other = pair
    memory = room(8)
    ring.sq.prep_recv(one.fileno(), address(memory), 4, 0, user_data=1)
    ring.submit()
    other.send(b"hello")
    res, cqe_flags = take_one(ring, 1)
    assert res == 4 and memory == b"hell" + room(4)
    if newest(ring) >= (5, 19):
        assert cqe_flags == CqeFlag.SOCK_NONEMPTY
    ring.sq.prep_recv(one.fileno(), address(memory), 8, socket.MSG_PEEK, user_data=2)
    assert take_one(ring, 2)[0] == 1
    ring.sq.prep_recv(one.fileno(), address(memory), 8, 0, user_data=3)
    assert take_one(ring, 3)[0] == 1
    assert memory == b"oell" + room(4)
    ring.sq.prep_recv(one.fileno(), address(memory), 8, socket.MSG_DONTWAIT, user_data=4)
    assert take_one(ring, 4)[0] == -errno.EAGAIN
    other.close()
    ring.sq.prep_recv(one.fileno(), address(memory), 8, 0, user_data=5)
    assert take_one(ring, 5)[0] == 0


def test_recv_polls_first_if_told_to(ring: Ring, pair: Pair) -> None:
    needs(abi.RecvSend.POLL_FIRST.since, ring)
    one, other = pair
    memory = room(4)
    ring.sq.prep_recv(one.fileno(), address(memory), 4, 0, ioprio=abi.RecvSend.POLL_FIRST, user_data=1)
    ring.submit()
    other.send(b"data")
    assert take_one(ring, 1)[0] == 4
    assert memory == b"data"


@pytest.mark.behaviour("recv-multishot")
def test_recv_multishot_into_a_buffer_ring(ring: Ring, pair: Pair) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = pair
    pool = RawBufferRing(ring, 7, 2)
    ring.sq.prep_recv_multishot(one.fileno(), 0, 0, 0, buf_group=7, user_data=1)
    bids = []
    for message in (b"first", b"second", b"third"):
        other.send(message)
        res, cqe_flags = take_one(ring, 1)
        bid, content = pool.content(res, cqe_flags)
        assert (content, bool(cqe_flags & CqeFlag.MORE)) == (message, True)
        bids.append(bid)
        if message != b"third":
            pool.give(bid)
    assert sorted(set(bids)) == [0, 1]
    # One buffer is left: the stream ends when there is none.
    other.send(b"fourth")
    ring.submit_and_wait(1, HANG_NS)
    found = ring.completions()  # Linux 6.1 looks for a buffer before it looks for data: it has ended by now
    other.send(b"fifth")
    found += take(ring, 2 - len(found))
    assert [(res, cqe_flags & CqeFlag.MORE) for _, res, cqe_flags in found] == [(6, CqeFlag.MORE), (-errno.ENOBUFS, 0)]
    # The data is still there for the next request.
    pool.give(0, 1)
    ring.sq.prep_recv_multishot(one.fileno(), 0, 0, 0, buf_group=7, user_data=2)
    res, cqe_flags = take_one(ring, 2)
    assert pool.content(res, cqe_flags)[1] == b"fifth"
    other.close()
    res, cqe_flags = take_one(ring, 2)
    assert (res, cqe_flags & CqeFlag.MORE) == (0, 0)
    register.unregister_pbuf_ring(ring.fileno(), 7)
    with pytest.raises(OSError) as caught:
        register.unregister_pbuf_ring(ring.fileno(), 7)
    assert caught.value.errno in (errno.ENOENT, errno.EINVAL)


def test_recv_multishot_takes_at_most_nbytes_at_a_time(ring: Ring, pair: Pair) -> None:
    needs(abi.RecvSend.RECV_MULTISHOT.since, ring)
    one, other = pair
    pool = RawBufferRing(ring, 0, 8)
    other.send(b"abcdefgh")
    ring.sq.prep_recv_multishot(one.fileno(), 0, 3, 0, buf_group=0, user_data=1)
    ring.submit_and_wait(1, HANG_NS)
    found = ring.completions()
    needs("6.17", found[0][1] != -errno.EINVAL)
    found += take(ring, 3 - len(found))
    pieces = [pool.content(res, cqe_flags)[1] for _, res, cqe_flags in found]
    assert b"".join(pieces) == b"abcdefgh"
    assert max(map(len, pieces)) == 3


def test_provided_buffers(ring: Ring, pair: Pair) -> None:
    one, other = pair
    memory = room(3 * 64)
    ring.sq.prep_provide_buffers(address(memory), 64, 3, 5, 20, user_data=1)
    assert take_one(ring, 1)[0] >= 0
    select_from = {"sqe_flags": int(SqeFlag.BUFFER_SELECT), "buf_group": 5}
    other.send(b"hello")
    ring.sq.prep_recv(one.fileno(), 0, 64, 0, user_data=2, **select_from)
    res, cqe_flags = take_one(ring, 2)
    assert res == 5 and cqe_flags & CqeFlag.BUFFER
    bid = cqe_flags >> abi.CQE_BUFFER_SHIFT
    assert bid in (20, 21, 22)
    at = (bid - 20) * 64
    assert memory == room(at) + b"hello" + room(3 * 64 - at - 5)
    ring.sq.prep_remove_buffers(10, 5, user_data=3)
    assert take_one(ring, 3)[0] == 2
    other.send(b"more")
    ring.sq.prep_recv(one.fileno(), 0, 64, 0, user_data=4, **select_from)
    assert take_one(ring, 4)[0] == -errno.ENOBUFS
    ring.sq.prep_remove_buffers(1, 600, user_data=5)  # on Linux 6.1 there are always 64 groups
    assert take_one(ring, 5)[0] == -errno.ENOENT


def test_read_into_a_provided_buffer(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    memory = room(64)
    ring.sq.prep_provide_buffers(address(memory), 64, 1, 1, 9, user_data=1)
    assert take_one(ring, 1)[0] >= 0
    with path.open("rb", buffering=0) as file:
        ring.sq.prep_read(
            file.fileno(), 0, 4, 2, buf_group=1, sqe_flags=int(SqeFlag.BUFFER_SELECT), user_data=2
        )
        res, cqe_flags = take_one(ring, 2)
    assert (res, cqe_flags >> abi.CQE_BUFFER_SHIFT) == (4, 9)
    assert memory == b"2345" + room(60)


def message(name: bytearray, vector: bytearray, control: bytearray = bytearray(16)) -> bytearray:
    return abi.MSGHDR.pack(
        msg_name=address(name), msg_namelen=len(name), msg_iov=address(vector), msg_iovlen=len(vector) // 16,
        msg_control=address(control), msg_controllen=0,
    )  # fmt: skip


@pytest.mark.behaviour("send_recvmsg")
def test_sendmsg(ring: Ring) -> None:
    one, other = udp_pair()
    with one, other:
        parts = bytearray(b"hello, "), bytearray(b"world")
        vector, name = iovecs(*parts), sockaddr(*other.getsockname())
        header = message(name, vector)
        ring.sq.prep_sendmsg(one.fileno(), address(header), 0, user_data=1)
        assert take_one(ring, 1) == (12, 0)
        assert other.recvfrom(100) == (b"hello, world", one.getsockname())


@pytest.mark.behaviour("send_recvmsg")
def test_recvmsg(ring: Ring) -> None:
    one, other = udp_pair()
    with one, other:
        first, second = room(3), room(4)
        vector, name = iovecs(first, second), room(32)
        header = message(name, vector)
        ring.sq.prep_recvmsg(one.fileno(), address(header), 0, user_data=1)
        ring.submit()
        other.sendto(b"0123456789", one.getsockname())
        assert take_one(ring, 1)[0] == 7
        assert first == b"012" and second == b"3456"
        assert parsed(name[:16]) == other.getsockname()
        assert abi.MSGHDR.get(header, "msg_namelen") == 16
        assert abi.MSGHDR.get(header, "msg_flags") == socket.MSG_TRUNC
        other.sendto(b"0123456789", one.getsockname())
        ring.sq.prep_recvmsg(one.fileno(), address(header), socket.MSG_TRUNC, user_data=2)
        assert take_one(ring, 2)[0] == 10  # the true length: the flag arrived


def test_sendmsg_passes_an_fd(ring: Ring, pipe: Pipe) -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        other.settimeout(HANG_NS / 1e9)
        data = bytearray(b"x")
        vector = iovecs(data)
        control = abi.CMSGHDR.pack(cmsg_len=20, cmsg_level=socket.SOL_SOCKET, cmsg_type=socket.SCM_RIGHTS)
        control += struct.pack("=ixxxx", pipe[0])
        header = abi.MSGHDR.pack(
            msg_iov=address(vector), msg_iovlen=1, msg_control=address(control), msg_controllen=len(control)
        )
        ring.sq.prep_sendmsg(one.fileno(), address(header), 0, user_data=1)
        assert take_one(ring, 1) == (1, 0)
        _, fds, _, _ = socket.recv_fds(other, 10, 1)
        with open(fds[0], "rb", buffering=0) as reader:
            os.write(pipe[1], b"through")
            assert reader.read(7) == b"through"


@pytest.mark.behaviour("accept")
def test_accept(ring: Ring, listener: socket.socket) -> None:
    name, addrlen = room(32), bytearray(struct.pack("=I", 32))
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    ring.sq.prep_accept(listener.fileno(), address(name), address(addrlen), flags, user_data=1)
    ring.submit()
    with socket.create_connection(listener.getsockname()) as client:
        fd, cqe_flags = take_one(ring, 1)
        with socket.socket(fileno=fd) as accepted:
            assert struct.unpack("=I", addrlen) == (16,)
            assert parsed(name[:16]) == client.getsockname() == accepted.getpeername()
            assert not os.get_blocking(fd) and not os.get_inheritable(fd)
            client.send(b"hello")
            accepted.setblocking(True)
            assert accepted.recv(10) == b"hello"
    with socket.create_connection(listener.getsockname()):
        ring.sq.prep_accept(listener.fileno(), 0, 0, 0, user_data=2)
        fd, _ = take_one(ring, 2)
        assert os.get_blocking(fd) and os.get_inheritable(fd)
        os.close(fd)


@pytest.mark.behaviour("accept")
def test_multishot_accept(ring: Ring, listener: socket.socket) -> None:
    needs(abi.Accept.MULTISHOT.since, ring)
    ring.sq.prep_multishot_accept(listener.fileno(), 0, 0, socket.SOCK_CLOEXEC, user_data=1)
    for _ in range(3):
        with socket.create_connection(listener.getsockname()) as client:
            fd, cqe_flags = take_one(ring, 1)
            assert cqe_flags & CqeFlag.MORE
            with socket.socket(fileno=fd) as accepted:
                assert accepted.getpeername() == client.getsockname()
                accepted.send(b"welcome")
                assert client.recv(10) == b"welcome"
    ring.sq.prep_cancel(1, 0, user_data=2)
    ended = {user_data: (res, cqe_flags & CqeFlag.MORE) for user_data, res, cqe_flags in take(ring, 2)}
    assert ended == {1: (-errno.ECANCELED, 0), 2: (0, 0)}


def send_through_slot(ring: Ring, slot: int, client: socket.socket) -> None:
    memory = bytearray(b"through the slot")
    ring.sq.prep_send(slot, address(memory), len(memory), 0, sqe_flags=FIXED_FILE, user_data=100)
    assert take_one(ring, 100)[0] == len(memory)
    client.settimeout(HANG_NS / 1e9)
    assert client.recv(100) == memory


@pytest.mark.behaviour("accept")
def test_accept_direct(ring: Ring, listener: socket.socket) -> None:
    needs("5.15", ring)
    register.files_sparse(ring.fileno(), 4)
    name, addrlen = room(32), bytearray(struct.pack("=I", 32))
    with socket.create_connection(listener.getsockname()) as client:
        ring.sq.prep_accept_direct(listener.fileno(), address(name), address(addrlen), 0, 2, user_data=1)
        assert take_one(ring, 1)[0] == 0
        assert parsed(name[:16]) == client.getsockname()
        send_through_slot(ring, 2, client)
        ring.sq.prep_close_direct(2, user_data=2)
        assert take_one(ring, 2)[0] == 0
        assert client.recv(10) == b""


def test_accept_direct_into_slots_the_kernel_picks(ring: Ring, listener: socket.socket) -> None:
    needs("5.19", ring)
    register.files_sparse(ring.fileno(), 2)
    for slot in (0, 1):
        with socket.create_connection(listener.getsockname()) as client:
            ring.sq.prep_accept_direct(listener.fileno(), 0, 0, 0, abi.FILE_INDEX_ALLOC, user_data=1)
            assert take_one(ring, 1)[0] == slot
            send_through_slot(ring, slot, client)


@pytest.mark.behaviour("accept")
def test_multishot_accept_direct(ring: Ring, listener: socket.socket) -> None:
    needs(abi.Accept.MULTISHOT.since, ring)
    register.files_sparse(ring.fileno(), 2)
    ring.sq.prep_multishot_accept_direct(listener.fileno(), 0, 0, 0, user_data=1)
    for slot in (0, 1):
        with socket.create_connection(listener.getsockname()) as client:
            res, cqe_flags = take_one(ring, 1)
            assert (res, bool(cqe_flags & CqeFlag.MORE)) == (slot, True)
            send_through_slot(ring, slot, client)
    with socket.create_connection(listener.getsockname()):  # the table is full
        res, cqe_flags = take_one(ring, 1)
        assert (res, cqe_flags & CqeFlag.MORE) == (-errno.ENFILE, 0)


@pytest.mark.behaviour("connect")
def test_connect(ring: Ring, listener: socket.socket) -> None:
    name = sockaddr(*listener.getsockname())
    with socket.socket() as client:
        ring.sq.prep_connect(client.fileno(), address(name), len(name), user_data=1)
        assert take_one(ring, 1) == (0, 0)
        accepted, peer = listener.accept()
        with accepted:
            assert peer == client.getsockname()
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        nobody = sockaddr(*unheard.getsockname())
        with socket.socket() as client:
            ring.sq.prep_connect(client.fileno(), address(nobody), len(nobody), user_data=2)
            assert take_one(ring, 2) == (-errno.ECONNREFUSED, 0)


def test_shutdown(ring: Ring, pair: Pair) -> None:
    needs(Op.SHUTDOWN.since, ring.supports(Op.SHUTDOWN))
    one, other = pair
    ring.sq.prep_shutdown(one.fileno(), socket.SHUT_WR, user_data=1)
    assert take_one(ring, 1) == (0, 0)
    assert other.recv(10) == b""
    other.send(b"still")  # the other direction is open
    assert one.recv(10) == b"still"


# --- waiting and stopping


@pytest.mark.behaviour("poll")
def test_poll_add(ring: Ring, pipe: Pipe) -> None:
    reader, writer = pipe
    ring.sq.prep_poll_add(writer, select.POLLIN | select.POLLOUT, user_data=1)
    assert take_one(ring, 1) == (select.POLLOUT, 0)
    ring.sq.prep_poll_add(reader, select.POLLIN, user_data=2)
    ring.submit()
    os.write(writer, b"x")
    assert take_one(ring, 2) == (select.POLLIN, 0)


def test_poll_multishot(ring: Ring) -> None:
    needs(abi.Poll.ADD_MULTI.since, ring)
    event = os.eventfd(0)
    try:
        ring.sq.prep_poll_multishot(event, select.POLLIN, user_data=1)
        ring.submit()
        for _ in range(3):
            os.eventfd_write(event, 1)
            res, cqe_flags = take_one(ring, 1)
            assert (res, cqe_flags) == (select.POLLIN, CqeFlag.MORE)
            os.eventfd_read(event)
        ring.sq.prep_poll_remove(1, user_data=2)
        assert sorted(take(ring, 2)) == [(1, -errno.ECANCELED, 0), (2, 0, 0)]
    finally:
        os.close(event)


@pytest.mark.behaviour("poll")
def test_poll_remove(ring: Ring, pipe: Pipe) -> None:
    ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=1)
    ring.sq.prep_poll_remove(1, user_data=2)
    assert results(ring, 2) == {1: -errno.ECANCELED, 2: 0}
    ring.sq.prep_poll_remove(1, user_data=3)
    assert take_one(ring, 3) == (-errno.ENOENT, 0)


@pytest.mark.behaviour("poll-mshot-update")
def test_poll_update(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Poll.UPDATE_EVENTS.since, ring)
    reader, writer = pipe
    # A pipe never has priority data: only the update makes it ready.
    ring.sq.prep_poll_add(reader, select.POLLPRI, user_data=1)
    update = abi.Poll.UPDATE_EVENTS | abi.Poll.UPDATE_USER_DATA
    ring.sq.prep_poll_update(1, 3, select.POLLIN, update, user_data=2)
    assert take_one(ring, 2) == (0, 0)
    os.write(writer, b"x")
    assert take_one(ring, 3) == (select.POLLIN, 0)


def test_poll_update_to_what_is_so_already(ring: Ring, pipe: Pipe) -> None:
    needs("5.16", ring)  # before, the poll never completes
    _, writer = pipe

    def update(ring: Ring) -> None:
        ring.sq.prep_poll_add(writer, select.POLLIN, user_data=1)
        what = abi.Poll.UPDATE_EVENTS | abi.Poll.UPDATE_USER_DATA
        ring.sq.prep_poll_update(1, 3, select.POLLOUT, what, user_data=2)

    # Asked on a ring without an SQ thread: that would never end, nor this process.
    with Ring(4, wanted_flags=0) as trial:
        update(trial)
        trial.submit_and_wait(2, 10**8)
        if 3 not in [user_data for user_data, _, _ in trial.completions()] and newest(ring) < (6, 19):
            pytest.skip("needs Linux 6.19, or a later one of 6.18: here the poll never completes")
    update(ring)
    assert results(ring, 2) == {2: 0, 3: select.POLLOUT}


@pytest.mark.behaviour("poll-mshot-update")
def test_poll_update_keeps_a_multishot_poll(ring: Ring) -> None:
    needs(abi.Poll.UPDATE_EVENTS.since, ring)
    event = os.eventfd(0)
    try:
        ring.sq.prep_poll_multishot(event, select.POLLPRI, user_data=1)
        update = abi.Poll.UPDATE_EVENTS | abi.Poll.UPDATE_USER_DATA | abi.Poll.ADD_MULTI
        ring.sq.prep_poll_update(1, 3, select.POLLIN, update, user_data=2)
        assert take_one(ring, 2)[0] == 0
        for _ in range(2):
            os.eventfd_write(event, 1)
            assert take_one(ring, 3) == (select.POLLIN, CqeFlag.MORE)
            os.eventfd_read(event)
    finally:
        os.close(event)


@pytest.mark.behaviour("timeout")
def test_timeout(ring: Ring) -> None:
    short, past = timespec(1_000_000), timespec(time.monotonic_ns())
    ring.sq.prep_timeout(address(short), 0, 0, user_data=1)
    assert take_one(ring, 1) == (-errno.ETIME, 0)
    ring.sq.prep_timeout(address(past), 0, abi.Timeout.ABS, user_data=2)
    assert take_one(ring, 2) == (-errno.ETIME, 0)


@pytest.mark.behaviour("timeout")
def test_timeout_ends_when_others_have_completed(ring: Ring) -> None:
    hour = timespec(HOUR_NS)
    ring.sq.prep_timeout(address(hour), 2, 0, user_data=1)
    ring.sq.prep_nop(user_data=2)
    ring.sq.prep_nop(user_data=3)
    assert results(ring, 3) == {1: 0, 2: 0, 3: 0}


@pytest.mark.behaviour("timeout")
def test_multishot_timeout(ring: Ring) -> None:
    needs(abi.Timeout.MULTISHOT.since, ring)
    short = timespec(1_000_000)
    ring.sq.prep_timeout(address(short), 3, abi.Timeout.MULTISHOT, user_data=1)
    assert take(ring, 3) == [(1, -errno.ETIME, flags) for flags in (CqeFlag.MORE, CqeFlag.MORE, 0)]


@pytest.mark.behaviour("timeout")
def test_timeout_update(ring: Ring) -> None:
    needs(abi.Timeout.UPDATE.since, ring)
    hour, short = timespec(HOUR_NS), timespec(1_000_000)
    ring.sq.prep_timeout(address(hour), 0, 0, user_data=1)
    ring.sq.prep_timeout_update(address(short), 1, 0, user_data=2)
    assert results(ring, 2) == {1: -errno.ETIME, 2: 0}


@pytest.mark.behaviour("timeout")
def test_timeout_remove(ring: Ring) -> None:
    hour = timespec(HOUR_NS)
    ring.sq.prep_timeout(address(hour), 0, 0, user_data=1)
    ring.sq.prep_timeout_remove(1, 0, user_data=2)
    assert results(ring, 2) == {1: -errno.ECANCELED, 2: 0}
    ring.sq.prep_timeout_remove(1, 0, user_data=3)
    assert take_one(ring, 3) == (-errno.ENOENT, 0)


@pytest.mark.behaviour("link-timeout")
def test_link_timeout_cancels_the_request_before_it(ring: Ring, pair: Pair) -> None:
    memory, short = room(8), timespec(1_000_000)
    ring.sq.prep_recv(pair[0].fileno(), address(memory), 8, 0, sqe_flags=IO_LINK, user_data=1)
    ring.sq.prep_link_timeout(address(short), 0, user_data=2)
    assert results(ring, 2) == {1: -errno.ECANCELED, 2: -errno.ETIME}
    assert memory == room(8)


@pytest.mark.behaviour("link-timeout")
def test_link_timeout_that_was_not_needed(ring: Ring) -> None:
    hour = timespec(HOUR_NS)
    ring.sq.prep_nop(sqe_flags=IO_LINK, user_data=1)
    ring.sq.prep_link_timeout(address(hour), 0, user_data=2)
    assert results(ring, 2) == {1: 0, 2: -errno.ECANCELED}


@pytest.mark.behaviour("link-timeout")
def test_timeout_update_of_a_link_timeout(ring: Ring, pair: Pair) -> None:
    needs(abi.Timeout.LINK_UPDATE.since, ring)
    memory, hour, short = room(8), timespec(HOUR_NS), timespec(1_000_000)
    ring.sq.prep_recv(pair[0].fileno(), address(memory), 8, 0, sqe_flags=IO_LINK, user_data=1)
    ring.sq.prep_link_timeout(address(hour), 0, user_data=2)
    ring.sq.prep_timeout_update(address(short), 2, abi.Timeout.LINK_UPDATE, user_data=3)
    assert results(ring, 3) == {1: -errno.ECANCELED, 2: -errno.ETIME, 3: 0}


@pytest.mark.behaviour("io-cancel")
def test_cancel_by_user_data(ring: Ring, pipe: Pipe) -> None:
    arm(ring, pipe[0], 1, 2)
    ring.sq.prep_cancel(2, 0, user_data=10)
    assert results(ring, 2) == {2: -errno.ECANCELED, 10: 0}
    ring.sq.prep_cancel(2, 0, user_data=11)
    assert take_one(ring, 11) == (-errno.ENOENT, 0)


def test_cancel_all_of_a_user_data(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Cancel.ALL.since, ring)
    arm(ring, pipe[0], 1, 2, 2)
    ring.sq.prep_cancel(2, abi.Cancel.ALL, user_data=10)
    assert sorted(take(ring, 3)) == [(2, -errno.ECANCELED, 0)] * 2 + [(10, 2, 0)]


def test_cancel_any(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Cancel.ANY.since, ring)
    arm(ring, pipe[0], 1, 2)
    arm(ring, pipe[1], 3)
    ring.sq.prep_cancel(0, abi.Cancel.ANY | abi.Cancel.ALL, user_data=10)
    assert results(ring, 4) == {1: -errno.ECANCELED, 2: -errno.ECANCELED, 3: -errno.ECANCELED, 10: 3}


def test_cancel_by_fd(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Cancel.FD.since, ring)
    arm(ring, pipe[0], 1, 2)
    arm(ring, pipe[1], 3)
    ring.sq.prep_cancel_fd(pipe[0], abi.Cancel.ALL, user_data=10)
    assert results(ring, 3) == {1: -errno.ECANCELED, 2: -errno.ECANCELED, 10: 2}


def test_cancel_by_slot(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Cancel.FD_FIXED.since, ring)
    register.files(ring.fileno(), [pipe[0], pipe[1]])
    arm(ring, 0, 1, sqe_flags=FIXED_FILE)
    arm(ring, 1, 2, sqe_flags=FIXED_FILE)
    ring.sq.prep_cancel_fd(1, abi.Cancel.FD_FIXED, user_data=10)
    assert results(ring, 2) == {2: -errno.ECANCELED, 10: 0}


def test_cancel_by_opcode(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Cancel.OP.since, ring)
    memory = room(8)
    arm(ring, pipe[0], 1)
    ring.sq.prep_read(pipe[0], address(memory), 8, 0, user_data=2)
    ring.sq.prep_cancel(0, abi.Cancel.OP, opcode=Op.READ, user_data=10)
    assert results(ring, 2) == {2: -errno.ECANCELED, 10: 0}


@pytest.mark.behaviour("cancel-fd-userdata")
def test_cancel_narrowed(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Cancel.USERDATA.since, ring)
    memory = room(8)
    arm(ring, pipe[0], 1, 2)
    arm(ring, pipe[1], 2)
    ring.sq.prep_read(pipe[0], address(memory), 8, 0, user_data=2)
    narrow = abi.Cancel.OP | abi.Cancel.USERDATA | abi.Cancel.ALL
    ring.sq.prep_cancel_fd(pipe[0], narrow, opcode=Op.POLL_ADD, target_user_data=2, user_data=10)
    ring.submit_and_wait(1, HANG_NS)
    found = ring.completions()
    # Before 7.0 and later ones of 6.12 and 6.18, nothing matches by fd and user_data together.
    needs("7.0", (10, 0, 0) not in found or newest(ring) >= (7, 0))
    found += take(ring, 2 - len(found))
    assert sorted(found) == [(2, -errno.ECANCELED, 0), (10, 1, 0)]


# --- the flags of every SQE


@pytest.mark.behaviour("link")
def test_a_chain_runs_in_order_and_breaks_at_a_failure(ring: Ring, path: Path) -> None:
    memory, back = bytearray(b"chained"), room(7)
    with path.open("w+b", buffering=0) as file:
        ring.sq.prep_write(file.fileno(), address(memory), 7, 0, sqe_flags=IO_LINK, user_data=1)
        ring.sq.prep_read(file.fileno(), address(back), 7, 0, sqe_flags=IO_LINK, user_data=2)
        # Not by a bad fd: before Linux 5.18 that is found when the chain is submitted, and nothing of it runs.
        ring.sq.prep_read(file.fileno(), 0, 7, 0, sqe_flags=IO_LINK, user_data=3)
        ring.sq.prep_nop(user_data=4)
        assert results(ring, 4) == {1: 7, 2: 7, 3: -errno.EFAULT, 4: -errno.ECANCELED}
    assert back == b"chained"


def test_async_requests_complete_too(ring: Ring, path: Path) -> None:
    path.write_bytes(b"0123456789")
    memory = room(4)
    with path.open("rb", buffering=0) as file:
        ring.sq.prep_read(file.fileno(), address(memory), 4, 0, sqe_flags=int(SqeFlag.ASYNC), user_data=1)
        assert take_one(ring, 1) == (4, 0)
    assert memory == b"0123"


def test_success_can_be_silent(ring: Ring) -> None:
    needs(abi.Feature.CQE_SKIP.since, bool(ring.features & abi.Feature.CQE_SKIP))
    silent = int(SqeFlag.CQE_SKIP_SUCCESS)
    ring.sq.prep_nop(sqe_flags=silent, user_data=1)
    ring.sq.prep_close(1 << 20, sqe_flags=silent, user_data=2)
    ring.sq.prep_nop(user_data=3)
    assert results(ring, 2) == {2: -errno.EBADF, 3: 0}
