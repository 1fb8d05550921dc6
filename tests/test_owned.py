"""The owned layer: every operation by its effect, what waiting and callbacks promise, and what misuse is told.

The operations run on a ring with the best set-up, on a plain one, and on one with an SQ thread.
How long their memory lives is in test_lifetimes, what an interrupt leaves in test_interrupts.
"""

from __future__ import annotations

import array
import contextlib
import copy
import ctypes
import errno
import gc
import mmap
import os
import re
import select
import socket
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import HANG_NS, Pipe, needs, newest, pipe, ring

from rawuring import (
    BufferUseError,
    Fixed,
    NestedWaitError,
    Operation,
    OutOfOrderError,
    RawuringError,
    Ring,
    RingClosedError,
    SubmissionQueueFullError,
    UnsupportedError,
    abi,
    register,
)
from rawuring.ring import closing
from rawuring.operations.addresses import decode_address, encode_address
from rawuring.operations.messages import pack_control, unpack_control

Pair = tuple[socket.socket, socket.socket]

__all__ = ["pipe", "ring"]

HOUR_NS = 3600 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(HANG_NS / 1e9)
        yield ours, theirs


@pytest.fixture
def messages() -> Iterator[Pair]:
    """Two ends that keep the boundaries of messages."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def client_of(listener: socket.socket) -> socket.socket:
    client = socket.create_connection(listener.getsockname())
    client.settimeout(HANG_NS / 1e9)
    return client


def finish(ring: Ring) -> None:
    """Wait until nothing is in flight."""
    while ring.in_flight:
        assert ring.run_once(HANG_NS), "waited in vain"


# --- files


def test_a_file_is_made_written_read_and_closed(ring: Ring, path: Path) -> None:
    fd = ring.openat(path, os.O_RDWR | os.O_CREAT, 0o640).wait()
    assert path.stat().st_mode & 0o777 == 0o640 & ~current_umask()
    assert ring.write(fd, b"hello world", 0).wait() == 11
    assert ring.write(fd, memoryview(b"HELLO"), 0).wait() == 5
    assert ring.fsync(fd).wait() == 0
    buffer = bytearray(64)
    assert ring.read(fd, buffer, 6).wait() == 5
    assert buffer[:6] == b"world\0"
    assert ring.read(fd, buffer).wait() == 11
    assert ring.read(fd, buffer).wait() == 0, "the position is at the end"
    assert ring.close_fd(fd).wait() == 0
    with pytest.raises(OSError):
        os.fstat(fd)
    assert path.read_bytes() == b"HELLO world"


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_files_open_relative_to_a_directory_and_from_any_kind_of_path(ring: Ring, path: Path) -> None:
    path.write_bytes(b"x")
    directory = os.open(path.parent, os.O_RDONLY)
    for name in (path.name, os.fsencode(path.name), Path(path.name)):
        os.close(ring.openat(name, dir_fd=directory).wait())
    os.close(directory)
    with pytest.raises(FileNotFoundError):
        ring.openat(path.with_name("nothing")).wait()
    with pytest.raises(ValueError, match="null"):
        ring.openat("a\0b")


def test_readv_and_writev_go_through_several_buffers(ring: Ring, path: Path) -> None:
    with path.open("wb+", buffering=0) as file:
        assert ring.writev(file, [b"ab", bytearray(b"cd"), memoryview(b"ef")], 0).wait() == 6
        first, second = bytearray(4), array.array("b", bytes(4))
        assert ring.readv(file, [first, second], 0).wait() == 6
        assert bytes(first) + second.tobytes() == b"abcdef\0\0"


def test_registered_buffers_take_part_of_themselves(ring: Ring, path: Path) -> None:
    with path.open("wb+", buffering=0) as file:
        first, second = bytearray(b"0123456789"), bytearray(8)
        buffers = ring.register_buffers([first, second])
        assert len(buffers) == 2
        assert ring.write_fixed(file, buffers, 0, 0, start=2, nbytes=5).wait() == 5
        assert ring.read_fixed(file, buffers, 1, 0, start=3).wait() == 5
        assert second == b"\0\0\x0023456"
        for start, nbytes in ((0, 9), (-1, 1), (9, 0), (0, -1)):
            with pytest.raises(BufferUseError, match="not inside"):
                ring.read_fixed(file, buffers, 1, 0, start=start, nbytes=nbytes)
        for index in (2, -1):
            with pytest.raises(BufferUseError, match=f"no buffer {index}"):
                ring.read_fixed(file, buffers, index)


def test_registered_buffers_are_locked_until_unregistered_and_unused(ring: Ring, pipe: Pipe) -> None:
    first, second = bytearray(8), bytearray(8)
    buffers = ring.register_buffers([first, second])
    with pytest.raises(BufferError):
        first.append(0)
    with pytest.raises(OutOfOrderError, match="unregister"):
        ring.register_buffers([bytearray(1)])
    op = ring.read_fixed(pipe[0], buffers, 0)
    ring.submit()
    while ring.sq.ready:
        time.sleep(0.001)  # until the SQ thread has it
    waits_for_requests = newest(ring) < (6, 13)
    if waits_for_requests:
        os.write(pipe[1], b"late")
    buffers.unregister()
    buffers.unregister()
    second.append(0)
    with pytest.raises(BufferError):
        first.append(0)
    with pytest.raises(OutOfOrderError, match="not registered"):
        ring.read_fixed(pipe[0], buffers, 1)
    if not waits_for_requests:
        os.write(pipe[1], b"late")
    assert op.wait(HANG_NS) == 4 and first[:4] == b"late"
    first.append(0)
    assert len(ring.register_buffers([first])) == 1


def test_a_read_into_a_provided_buffer(ring: Ring, pipe: Pipe) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    pool = ring.buffer_ring(2, 16)
    for i in range(5):
        os.write(pipe[1], b"data%d" % i)
        assert ring.read_select(pipe[0], pool).wait(HANG_NS) == b"data%d" % i


def test_close_fd_closes_numbers_and_slots_only(ring: Ring, pair: Pair) -> None:
    with pytest.raises(OutOfOrderError, match="detach"):
        ring.close_fd(pair[0])  # type: ignore[arg-type]
    assert ring.close_fd(pair[0].detach()).wait() == 0
    assert pair[1].recv(1) == b""
    with pytest.raises(OSError) as failed:
        ring.close_fd(999_999).wait()
    assert failed.value.errno == errno.EBADF


# --- fixed files


def test_a_slot_goes_wherever_an_fd_does(ring: Ring, path: Path, pair: Pair) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    files = ring.file_table(4)
    assert len(files) == 4
    file = ring.openat_direct(path, files, os.O_RDWR | os.O_CREAT).wait()
    assert repr(file) == "Fixed(slot=0)"
    assert ring.write(file, b"fixed").wait() == 5
    assert path.read_bytes() == b"fixed"
    chosen = ring.openat_direct(path, files, slot=2).wait()
    assert chosen.slot == 2
    buffer = bytearray(8)
    assert ring.read(chosen, buffer, 0).wait() == 5
    assert ring.close_fd(file).wait() == 0
    with pytest.raises(OSError) as failed:
        ring.read(file, buffer).wait()
    assert failed.value.errno == errno.EBADF
    assert files.update(0, [pair[0]]) == 1
    pair[1].send(b"socket")
    assert ring.recv(files[0], buffer).wait(HANG_NS) == 6
    files[0].close()
    with pytest.raises(IndexError):
        files[4]


def test_a_table_that_is_gone_is_not_mistaken_for_the_next(ring: Ring) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    first = ring.file_table(2)
    with pytest.raises(OutOfOrderError, match="unregister"):
        ring.file_table(2)
    slot = ring.openat_direct("/dev/null", first).wait()
    first.unregister()
    first.unregister()
    second = ring.file_table(2)
    ring.openat_direct("/dev/zero", second).wait()
    uses: list[Any] = [
        lambda: ring.read(slot, bytearray(1)), lambda: ring.close_fd(slot), slot.close,
        lambda: ring.openat_direct("/dev/null", first), lambda: first.update(0, [-1]),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(OutOfOrderError, match="not registered any more"):
            use()
    assert ring.read(second[0], bytearray(3)).wait() == 3


def test_a_slot_that_could_not_be_emptied_is_later(ring: Ring, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    path.touch()
    files = ring.file_table(1)

    def fail(code: int) -> None:
        def refuse(*_: object) -> int:
            raise OSError(code, "for a test")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="for a test"):
            patch.setattr(register, "files_update", refuse)
            files.reclaim()

    op = ring.openat_direct(path, files)
    finish(ring)
    del op
    fail(errno.ENOMEM)
    assert files.owes
    ring.nop().wait(HANG_NS)
    assert ring.openat_direct(path, files).wait(HANG_NS).slot == 0
    files.drop(0)
    fail(errno.EACCES)  # on a ring whose restrictions forbid it, the slot is lost; it is not tried at each wait
    assert not files.owes


def test_an_open_that_a_cancel_interrupts_has_an_errno_of_programs(ring: Ring, path: Path) -> None:
    os.mkfifo(path)
    op = ring.openat(path, sqe_flags=abi.SqeFlag.ASYNC)
    ring.submit()
    time.sleep(0.02)  # a worker thread waits for a writer, most likely
    op.cancel()
    with pytest.raises(OSError) as failed:
        op.wait(HANG_NS)
    assert failed.value.errno in (errno.ECANCELED, errno.EINTR) and "Unknown" not in str(failed.value)
    assert isinstance(op.error(-512), InterruptedError)


@pytest.mark.parametrize("how", ["update", "openat_direct", "socket_direct", "accept_direct", "files_update", "pipe_direct"])
def test_a_slot_that_nobody_took_is_emptied_before_it_is_filled(ring: Ring, listener: socket.socket, how: str) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    if how == "pipe_direct":
        needs(abi.Op.PIPE.since, ring.supports(abi.Op.PIPE))
    files = ring.file_table(2)
    ring.openat_direct("/dev/null", files).wait_cqe(HANG_NS)
    dropped = [ring.openat_direct("/dev/null", files)]
    while not dropped[0].done:
        assert ring.run_once(HANG_NS)
    dropped.clear()
    gc.collect()
    with open("/dev/zero", "rb") as file, client_of(listener):
        ways: dict[str, Any] = {
            "openat_direct": lambda: ring.openat_direct("/dev/zero", files, slot=1),
            "socket_direct": lambda: ring.socket_direct(files, slot=1),
            "accept_direct": lambda: ring.accept_direct(listener, files, slot=1),
            "files_update": lambda: ring.files_update([file], files, slot=1),
            "pipe_direct": lambda: ring.pipe_direct(files, slot=0),
            "update": lambda: files.update(1, [file]) and ring.nop(),
        }
        op = ways[how]()
        ring.submit()  # and not a wait, which would empty the slot first
        op.wait(HANG_NS)
        ring.nop().wait(HANG_NS)
    assert ring.poll(files[1], select.POLLIN | select.POLLOUT | select.POLLHUP).wait(HANG_NS) > 0


def test_a_closed_rings_tables_act_on_nobody_elses_ring() -> None:
    with Ring(8) as ring:
        files = ring.file_table(2)
        buffers = ring.register_buffers([bytearray(8)])
        pool = ring.buffer_ring(2, 16)
        number = ring.fileno()
    with Ring(8) as other:
        assert other.fileno() == number, "the test needs the number again"
        slot: Fixed = other.openat_direct("/dev/zero", other.file_table(2)).wait()
        other.register_buffers([bytearray(8)])
        theirs = other.buffer_ring(2, 16)
        with pytest.raises(OutOfOrderError):
            files[0].close()
        files.unregister()
        buffers.unregister()
        pool.unregister()
        pool.give_back([0])
        with pytest.raises(OutOfOrderError, match="closed"):
            pool.view(0, 1)
        assert other.read(slot, bytearray(3)).wait() == 3
        # They are still there.
        register.unregister_buffers(other.fileno())
        register.unregister_pbuf_ring(other.fileno(), theirs.bgid)


# --- sockets


def test_accept_brings_a_connection(ring: Ring, listener: socket.socket) -> None:
    with client_of(listener) as client, socket.socket(fileno=ring.accept(listener).wait(HANG_NS)) as accepted:
        assert accepted.getpeername() == client.getsockname()
        assert not os.get_inheritable(accepted.fileno())
        accepted.send(b"hi")
        assert client.recv(8) == b"hi"


def test_accept_multishot_brings_them_all(ring: Ring, listener: socket.socket) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    stream = ring.accept_multishot(listener)
    with client_of(listener) as one, client_of(listener) as other:
        for client in (one, other):
            got = stream.next(HANG_NS)
            assert got is not None
            with socket.socket(fileno=got[0]) as accepted:
                assert accepted.getpeername() == client.getsockname()
    with pytest.raises(TimeoutError):
        stream.next(1_000_000)
    assert not stream.done
    stream.cancel()
    assert [res for res, _ in stream] == [-errno.ECANCELED]
    assert stream.next() is None


def test_connections_accepted_into_slots(ring: Ring, listener: socket.socket) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    files = ring.file_table(3)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(listener)) for _ in range(4)]
        first = ring.accept_direct(listener, files, slot=1).wait(HANG_NS)
        second = ring.accept_direct(listener, files).wait(HANG_NS)
        results = [res for res, _ in ring.accept_multishot_direct(listener, files)]
        assert len(results) == 2 and results[1] == -errno.ENFILE, "the table is full"
        assert {first.slot, second.slot, results[0]} == {0, 1, 2}
        for connection in (first, second, files[results[0]]):
            assert ring.send(connection, b"x").wait() == 1
        assert [client.recv(1) for client in clients] == [b"x", b"x", b"x", b""]


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0)), (socket.AF_UNIX, "path"),
                            (socket.AF_UNIX, b"\0abstract")]  # fmt: skip
)
def test_connect(ring: Ring, tmp_path: Path, family: int, address: Any) -> None:
    if address == "path":
        address = str(tmp_path / "socket")
    elif family == socket.AF_UNIX:
        address += b"%d" % os.getpid()
    with socket.socket(family) as server, socket.socket(family) as client:
        try:
            server.bind(address)
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        server.listen()
        assert ring.connect(client, server.getsockname()).wait(HANG_NS) == 0
        accepted, _ = server.accept()
        with accepted, socket.socket(family) as by_number:
            accepted.send(b"hi")
            assert client.recv(8) == b"hi"
            with pytest.raises(BufferUseError, match="family"):
                ring.connect(by_number.fileno(), server.getsockname())
            assert ring.connect(by_number.fileno(), server.getsockname(), family=family).wait(HANG_NS) == 0


def test_a_refused_connection_and_a_name_instead_of_an_address(ring: Ring) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with socket.socket() as client:
        with pytest.raises(ConnectionRefusedError):
            ring.connect(client, address).wait(HANG_NS)
        with pytest.raises(ValueError, match="getaddrinfo"):
            ring.connect(client, ("localhost", 80))
    assert ring.in_flight == 0


def test_send_and_recv(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    buffer = bytearray(8)
    received = ring.recv(ours, buffer, ioprio=abi.RecvSend.POLL_FIRST if newest(ring) >= (5, 19) else 0)
    assert ring.send(theirs, b"hello").wait() == 5
    assert received.wait(HANG_NS) == 5 and buffer[:5] == b"hello"
    theirs.send(b"peek")
    assert ring.recv(ours, buffer, socket.MSG_PEEK).wait(HANG_NS) == 4
    assert ring.recv(ours, memoryview(buffer)[4:], socket.MSG_DONTWAIT).wait() == 4
    assert buffer == b"peekpeek"
    with pytest.raises(BlockingIOError):
        ring.recv(ours, buffer, socket.MSG_DONTWAIT).wait()
    waiting = ring.recv(ours, buffer, socket.MSG_WAITALL)
    ring.submit()
    for part in (b"1234", b"5678"):
        theirs.send(part)
    assert waiting.wait(HANG_NS) == 8 and buffer == b"12345678"
    assert ring.shutdown(ours, socket.SHUT_WR).wait() == 0
    assert theirs.recv(1) == b""
    theirs.close()
    assert ring.recv(ours, buffer).wait(HANG_NS) == 0
    with pytest.raises(BrokenPipeError):
        ring.send(ours, b"x").wait()


def test_recv_select_takes_a_buffer_and_gives_it_back(ring: Ring, messages: Pair) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    ours, theirs = messages
    pool = ring.buffer_ring(2, 16)
    for i in range(5):
        theirs.send(b"message %d" % i)
        op = ring.recv_select(ours, pool)
        assert op.wait(HANG_NS) == op.wait() == b"message %d" % i
        with pytest.raises(OutOfOrderError, match="one or the other"):
            op.wait_cqe()
    theirs.send(b"lent")
    op = ring.recv_select(ours, pool)
    res, cqe_flags = op.wait_cqe(HANG_NS)
    with pytest.raises(OutOfOrderError, match="taken"):
        op.wait()
    with pool.lend(res, cqe_flags) as view:
        assert bytes(view) == b"lent"
    with pytest.raises(ValueError, match="released"):
        view[0]
    theirs.send(b"")
    theirs.close()
    assert ring.recv_select(ours, pool).wait(HANG_NS) == b""


def test_recv_multishot_until_the_end(ring: Ring, messages: Pair) -> None:
    needs("6.0", newest(ring) >= (6, 0))
    ours, theirs = messages
    pool = ring.buffer_ring(4, 16)
    stream = ring.recv_multishot(ours, pool)
    received = []
    for i in range(10):
        theirs.send(b"%d" % i)
        got = stream.next(HANG_NS)
        assert got is not None
        if i % 2:
            received.append(pool.take(*got))
        else:
            with pool.lend(*got) as view:
                received.append(bytes(view))
    assert received == [b"%d" % i for i in range(10)]
    theirs.close()
    rest = list(stream)
    assert [res for res, _ in rest] == [0] and stream.done
    with pool.lend(*rest[0]) as view:
        assert bytes(view) == b""
    assert pool.take(*rest[0]) == b""


def test_an_empty_group_ends_the_stream_which_begins_again(ring: Ring, messages: Pair) -> None:
    needs("6.0", newest(ring) >= (6, 0))
    ours, theirs = messages
    pool = ring.buffer_ring(2, 16)
    for _ in range(3):
        theirs.send(b"x")
    stream = ring.recv_multishot(ours, pool)
    with pytest.raises(OutOfOrderError, match="armed"):
        stream.again()
    got = list(stream)
    assert [res for res, _ in got] == [1, 1, -errno.ENOBUFS]
    pool.give_back(bid for _, cqe_flags in got for bid in pool.held(cqe_flags))
    again = stream.again()
    assert again.token != stream.token
    first = again.next(HANG_NS)
    assert first is not None and pool.take(*first) == b"x"
    again.cancel()
    assert again.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    ours.close()
    with pytest.raises(OutOfOrderError, match="closed"):
        again.again()


def test_again_refuses_a_file_whose_number_has_changed(ring: Ring, listener: socket.socket, pair: Pair) -> None:
    stream = ring.poll_multishot(pair[0], select.POLLIN)
    stream.cancel()
    stream.wait_cqe(HANG_NS)
    with socket.socket() as other:
        number = other.detach()
    moved = socket.socket(fileno=number)
    with moved:
        file = _Numbered(pair[0].fileno())
        stream = ring.poll_multishot(file, select.POLLIN)
        stream.cancel()
        stream.wait_cqe(HANG_NS)
        file.number = number
        with pytest.raises(OutOfOrderError, match="another fd"):
            stream.again()
        file.number = pair[0].fileno()
        again = stream.again()
        pair[1].send(b"x")
        assert again.next(HANG_NS) is not None


def test_again_refuses_what_is_gone(ring: Ring, listener: socket.socket, messages: Pair) -> None:
    needs("6.0", newest(ring) >= (6, 0))
    ours, theirs = messages
    pool, files = ring.buffer_ring(4, 16), ring.file_table(2)
    files.update(0, [ours])
    streams = [ring.recv_multishot(ours, pool), ring.poll_multishot(files[0], select.POLLIN),
               ring.accept_multishot_direct(listener, files)]  # fmt: skip
    for stream in streams:
        stream.cancel()
        stream.wait_cqe(HANG_NS)
        stream = stream.again()
        stream.cancel()
        stream.wait_cqe(HANG_NS)
    ring.close_buffer_ring(pool)
    assert ring.buffer_ring(4, 16).bgid == pool.bgid
    files.unregister()
    ring.file_table(2).update(0, [theirs])
    for stream, match in zip(streams, ("group", "file table", "file table")):
        with pytest.raises(OutOfOrderError, match=match):
            stream.again()
    assert ring.in_flight == 0


class _Numbered:
    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


def test_messages_carry_fds(ring: Ring, pair: Pair, pipe: Pipe) -> None:
    ours, theirs = pair
    rights = array.array("i", [pipe[1]])
    assert ring.sendmsg(theirs, [b"ab", b"cd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]).wait() == 4
    first, second = bytearray(3), bytearray(3)
    # Room for two: Linux 6.17 adds an SCM_INQ.
    message = ring.recvmsg(ours, [first, second], 2 * socket.CMSG_SPACE(4)).wait(HANG_NS)
    assert (message.nbytes, bytes(first + second), message.msg_flags) == (4, b"abcd\0\0", 0)
    level, kind, data = message.ancdata[0]
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    (fd,) = array.array("i", data)
    os.write(fd, b"through")
    os.close(fd)
    assert os.read(pipe[0], 16) == b"through"


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_messages_carry_addresses_and_are_cut_short(ring: Ring, family: int, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as other:
        try:
            one.bind((host, 0))
            other.bind((host, 0))
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        assert ring.sendmsg(one, [b"data"], address=other.getsockname()).wait() == 4
        buffer = bytearray(3)
        message = ring.recvmsg(other, [buffer]).wait(HANG_NS)
        assert message.nbytes == 3 and buffer == b"dat"
        assert message.msg_flags == socket.MSG_TRUNC
        assert message.address == one.getsockname()


# --- waiting


def test_nop_and_its_handle(ring: Ring) -> None:
    op = ring.nop()
    assert not op.done and "in flight" in repr(op) and op.name == "nop"
    assert ring.in_flight == 1
    assert op.wait() == op.wait() == 0
    assert op.done and "res=0" in repr(op) and op.wait_cqe() == (0, 0)
    op.cancel()
    assert ring.in_flight == 0


def test_poll(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    assert ring.poll(ours, select.POLLOUT).wait(HANG_NS) & select.POLLOUT
    op = ring.poll(ours, select.POLLIN)
    with pytest.raises(TimeoutError):
        op.wait(1_000_000)
    op = ring.poll(ours, select.POLLIN)
    ring.submit()
    theirs.send(b"x")
    assert op.wait(HANG_NS) == select.POLLIN
    op = ring.poll(theirs, select.POLLIN)
    assert ring.poll_remove(op).wait(HANG_NS) == 0
    assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    with pytest.raises(FileNotFoundError):
        ring.poll_remove(op).wait()


def test_poll_multishot_tells_of_each_event(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    stream = ring.poll_multishot(ours, select.POLLIN)
    ring.submit()
    for _ in range(3):
        theirs.send(b"x")
        got = stream.next(HANG_NS)
        assert got is not None and got[0] == select.POLLIN and got[1] & abi.CqeFlag.MORE
        ours.recv(8)
    theirs.close()
    got = stream.next(HANG_NS)
    assert got is not None and got[0] & select.POLLHUP


def test_timers(ring: Ring) -> None:
    op = ring.timeout(1_000_000)
    assert op.wait_cqe(HANG_NS)[0] == -errno.ETIME
    with pytest.raises(OSError) as failed:
        op.wait()
    assert failed.value.errno == errno.ETIME
    until = time.monotonic_ns() + 1_000_000
    assert ring.timeout(until, timeout_flags=abi.Timeout.ABS).wait_cqe(HANG_NS)[0] == -errno.ETIME
    assert time.monotonic_ns() >= until
    counted = ring.timeout(HOUR_NS, count=2)
    ring.nop()
    ring.nop()
    assert counted.wait(HANG_NS) == 0
    op = ring.timeout(HOUR_NS)
    assert ring.timeout_update(op, 1_000_000).wait(HANG_NS) == 0
    assert op.wait_cqe(HANG_NS)[0] == -errno.ETIME
    op = ring.timeout(HOUR_NS)
    assert ring.timeout_remove(op).wait(HANG_NS) == 0
    assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    for gone in (ring.timeout_remove(op), ring.timeout_update(op, 1)):
        with pytest.raises(FileNotFoundError):
            gone.wait(HANG_NS)


def test_a_timer_that_repeats(ring: Ring) -> None:
    needs("6.4", newest(ring) >= (6, 4))
    assert [res for res, _ in ring.timeout_multishot(1_000_000, 3)] == [-errno.ETIME] * 3


def test_link_timeout_cancels_what_takes_too_long(ring: Ring, pair: Pair) -> None:
    buffer = bytearray(8)
    with ring.link(2):
        op = ring.recv(pair[0], buffer)
        timer = ring.link_timeout(1_000_000)
    with pytest.raises(OSError) as failed:
        op.wait(HANG_NS)
    assert failed.value.errno == errno.ECANCELED
    assert timer.wait_cqe(HANG_NS)[0] == -errno.ETIME
    pair[1].send(b"soon")
    with ring.link(2):
        op = ring.recv(pair[0], buffer)
        timer = ring.link_timeout(HOUR_NS)
    assert op.wait(HANG_NS) == 4
    assert timer.wait_cqe(HANG_NS)[0] == -errno.ECANCELED


def test_link_timeout_needs_something_to_watch(ring: Ring, pair: Pair) -> None:
    with pytest.raises(OutOfOrderError, match="just before"):
        ring.link_timeout(HOUR_NS)
    ring.nop()
    with pytest.raises(OutOfOrderError, match="just before"):
        ring.link_timeout(HOUR_NS)
    with pytest.raises(OutOfOrderError, match="just before"), ring.link(2):
        ring.link_timeout(HOUR_NS)
    ring.recv(pair[0], bytearray(1), sqe_flags=abi.SqeFlag.IO_LINK)
    ring.submit()
    with pytest.raises(OutOfOrderError, match="just before"):
        ring.link_timeout(HOUR_NS)
    pair[1].send(b"x")
    finish(ring)
    op = ring.recv(pair[0], bytearray(1), sqe_flags=abi.SqeFlag.IO_LINK)
    timer = ring.link_timeout(1_000_000)
    assert timer.wait_cqe(HANG_NS)[0] == -errno.ETIME
    assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED


def test_an_operation_has_one_link_timeout(ring: Ring, pair: Pair) -> None:
    with pytest.raises(OutOfOrderError, match="an operation has one"), ring.link(3):
        ring.recv(pair[0], bytearray(1))
        ring.link_timeout(HOUR_NS)
        ring.link_timeout(HOUR_NS)
    assert ring.in_flight == 0
    with ring.link(4):
        first, _ = ring.nop(), ring.link_timeout(HOUR_NS)
        second, _ = ring.nop(), ring.link_timeout(HOUR_NS)
    assert first.wait(HANG_NS) == second.wait(HANG_NS) == 0
    finish(ring)


def test_a_full_queue_does_not_cut_a_chain_that_was_made_with_flags(ring: Ring, pair: Pair) -> None:
    while ring.sq.space_left > 1:
        ring.nop()
    watched = ring.recv(pair[0], bytearray(1), sqe_flags=abi.SqeFlag.IO_LINK)
    for queue in (lambda: ring.link_timeout(HOUR_NS), ring.nop, lambda: ring.statx("/")):
        with pytest.raises(OutOfOrderError, match="middle of a chain"):
            queue()
    assert not watched.done
    ring.submit()  # which ends the chain, as it always does
    pair[1].send(b"x")
    assert watched.wait(HANG_NS) == 1
    finish(ring)


def test_cancel_by_operation_by_file_and_everything(ring: Ring, pair: Pair, pipe: Pipe) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    op = ring.recv(pair[0], bytearray(1))
    op.cancel()
    assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED

    ops = [ring.recv(pair[0], bytearray(1)), ring.poll(pair[0], select.POLLIN), ring.read(pipe[0], bytearray(1))]
    ring.submit()
    assert ring.cancel_fd(pair[0]).wait(HANG_NS) == 2
    assert [op.wait_cqe(HANG_NS)[0] for op in ops[:2]] == [-errno.ECANCELED] * 2
    assert not ops[2].done
    assert ring.cancel_fd(pipe[0], 0).wait(HANG_NS) == 0
    assert ops[2].wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    with pytest.raises(FileNotFoundError):
        ring.cancel_fd(pipe[0], 0).wait(HANG_NS)

    files = ring.file_table(1)
    files.update(0, [pair[0]])
    op = ring.recv(files[0], bytearray(1))
    ring.submit()
    assert ring.cancel_fd(files[0]).wait(HANG_NS) == 1
    assert op.wait_cqe(HANG_NS)[0] == -errno.ECANCELED

    ops = [ring.recv(pair[0], bytearray(1)), ring.timeout(HOUR_NS)]
    ring.sq.prep_poll_add(pair[1].fileno(), select.POLLIN, user_data=7)
    ring.submit()
    assert ring.cancel_all().wait(HANG_NS) == 3
    assert [op.wait_cqe(HANG_NS)[0] for op in ops] == [-errno.ECANCELED] * 2
    while not (raw := ring.completions()):
        ring.submit_and_wait(1, HANG_NS)
    assert raw == [(7, -errno.ECANCELED, 0)]


# --- buffers


def test_provided_buffers_of_the_legacy_kind(ring: Ring, messages: Pair) -> None:
    ours, theirs = messages
    group = ring.provided_buffers(2, 16)
    for i in range(5):
        theirs.send(b"message %d" % i)
        assert ring.recv_select(ours, group).wait(HANG_NS) == b"message %d" % i
    theirs.send(b"lent")
    with group.lend(*ring.recv_select(ours, group).wait_cqe(HANG_NS)) as view:
        assert bytes(view) == b"lent"
    finish(ring)
    assert ring.remove_buffers(group, 8).wait() == 2
    theirs.send(b"none")
    assert ring.recv_select(ours, group).wait_cqe(HANG_NS)[0] == -errno.ENOBUFS
    assert ring.provide_buffers(group, 0, 2).wait() == 0
    assert ring.recv_select(ours, group).wait(HANG_NS) == b"none"
    with pytest.raises(OutOfOrderError, match=f"group {group.bgid}"):
        ring.provided_buffers(1, 1, bgid=group.bgid)


def test_legacy_buffers_that_could_not_be_given_back_are_later(messages: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = messages
    with Ring(2) as ring:
        group = ring.provided_buffers(3, 16)
        finish(ring)
        lent = []
        for text in (b"one", b"two", b"three"):
            theirs.send(text)
            lent.append(ring.recv_select(ours, group).wait_cqe(HANG_NS)[1] >> abi.CQE_BUFFER_SHIFT)
        finish(ring)

        def refuse(ring: Ring, entries: int) -> None:
            raise SubmissionQueueFullError("for a test")

        with monkeypatch.context() as patch, pytest.raises(SubmissionQueueFullError):
            patch.setattr(Ring, "_make_room", refuse)
            group.give_back(lent)  # the queue has room for two
        assert ring.sq.unpublished == 2
        ring.nop().wait(HANG_NS)
        finish(ring)
        assert ring.remove_buffers(group, 8).wait() == 3
        with pytest.raises(BufferUseError, match="0 to 2"):
            group.give_back([3])


def test_a_wait_goes_on_where_a_legacy_buffer_cannot_be_given_back_yet(
    messages: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = messages
    with Ring(2) as ring:
        group = ring.provided_buffers(1, 16)
        theirs.send(b"one")
        outcome = ring.recv_select(ours, group).wait_cqe(HANG_NS)
        group.drop(group.held(outcome[1]))
        ops = [ring.nop(), ring.nop()]
        make_room = Ring._make_room
        refused: list[int] = []

        def refuse_once(ring: Ring, entries: int) -> None:
            if not refused:
                refused.append(errno.EBUSY)
                raise OSError(errno.EBUSY, "as a kernel before Linux 5.19 does while completions overflow")
            make_room(ring, entries)

        monkeypatch.setattr(Ring, "_make_room", refuse_once)
        assert ops[1].wait(HANG_NS) == 0 and refused
        theirs.send(b"two")
        assert ring.recv_select(ours, group).wait(HANG_NS) == b"two"


@pytest.mark.parametrize("sqe_flags", [0, abi.SqeFlag.IO_LINK])
def test_a_legacy_buffer_does_not_go_back_into_a_chain(ring: Ring, messages: Pair, sqe_flags: int) -> None:
    ours, theirs = messages
    group = ring.provided_buffers(1, 16)
    theirs.send(b"one")
    loan = group.lend(*ring.recv_select(ours, group).wait_cqe(HANG_NS))
    with contextlib.nullcontext() if sqe_flags else ring.link(2):
        tail = ring.sq.tail
        with loan as view:
            sent = ring.send(ours, bytes(view), sqe_flags=sqe_flags)
        received = ring.recv(ours, bytearray(16))
    assert ring.sq.tail == tail + 2
    theirs.send(b"two")
    assert sent.wait(HANG_NS) == 3 and received.wait(HANG_NS) == 3
    ring.nop().wait(HANG_NS)
    theirs.send(b"three")
    assert ring.recv_select(ours, group).wait(HANG_NS) == b"three"


def test_buffer_groups_are_closed_when_nothing_uses_them(ring: Ring, messages: Pair) -> None:
    needs("6.0", newest(ring) >= (6, 0))
    pool, other = ring.buffer_ring(2, 16), ring.buffer_ring(2, 16)
    assert pool.bgid != other.bgid
    with pytest.raises(OutOfOrderError, match="already"):
        ring.buffer_ring(2, 16, bgid=pool.bgid)
    stream = ring.recv_multishot(messages[0], pool)
    with pytest.raises(OutOfOrderError, match="still receive"):
        ring.close_buffer_ring(pool)
    stream.cancel()
    stream.wait_cqe(HANG_NS)
    ring.close_buffer_ring(pool)
    ring.close_buffer_ring(pool)
    assert ring.buffer_ring(2, 16).bgid == pool.bgid
    with pytest.raises(OutOfOrderError, match="closed"):
        pool.view(0, 1)
    for count, nbytes in ((3, 16), (0, 16), (65536, 16), (2, 0)):
        with pytest.raises(RawuringError):
            ring.buffer_ring(count, nbytes)


# --- what wait() promises


def test_a_group_that_was_closed_gives_its_number_to_one_that_begins_anew(ring: Ring, pair: Pair) -> None:
    """Where the kernel goes on with the old head, it finds no buffer in the new ring, or the same ones for ever."""
    needs("5.19", newest(ring) >= (5, 19))
    ours, theirs = pair
    for number in range(5):
        pool = ring.buffer_ring(2, 16)
        for _ in range(number + 1):
            theirs.send(b"data")
            assert ring.recv_select(ours, pool).wait(HANG_NS) == b"data"
        ring.close_buffer_ring(pool)


@pytest.mark.parametrize("head", [None, 3])
def test_a_group_that_would_not_begin_anew_is_refused(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, head: int | None
) -> None:
    def buf_ring_head(fd: int, bgid: int) -> int:
        if head is None:  # before Linux 6.8
            raise OSError(errno.EINVAL, "Invalid argument")
        return head

    needs("5.19", newest(ring) >= (5, 19))
    ring.close_buffer_ring(ring.buffer_ring(2, 16, bgid=7))
    monkeypatch.setattr(register, "buf_ring_head", buf_ring_head)
    with pytest.raises(OutOfOrderError, match="group 7 had a ring before"):
        ring.buffer_ring(2, 16, bgid=7)
    monkeypatch.setattr(register, "buf_ring_head", lambda fd, bgid: 0)
    ring.close_buffer_ring(ring.buffer_ring(2, 16, bgid=7))
    assert ring.buffer_ring(2, 16).bgid >= 64


def test_wait_raises_the_oserror_of_the_result(ring: Ring) -> None:
    op = ring.read(999_999, bytearray(1))
    assert op.wait_cqe() == (-errno.EBADF, 0)
    for _ in range(2):
        with pytest.raises(OSError, match="read") as failed:
            op.wait()
        assert failed.value.errno == errno.EBADF


def test_a_wait_that_times_out_cancels_reaps_and_raises(ring: Ring, pair: Pair) -> None:
    buffer = bytearray(8)
    op = ring.recv(pair[0], buffer)
    with pytest.raises(TimeoutError, match="recv"):
        op.wait(1_000_000)
    assert op.done and op.wait_cqe()[0] == -errno.ECANCELED
    buffer.append(0)
    finish(ring)
    pair[1].send(b"kept")
    assert ring.recv(pair[0], buffer).wait(HANG_NS) == 4, "the cancelled one took it"


def test_a_result_that_came_all_the_same_is_returned(ring: Ring, pair: Pair) -> None:
    pair[1].send(b"there")
    assert ring.recv(pair[0], bytearray(8)).wait(0) == 5
    with pytest.raises(TimeoutError):
        ring.recv(pair[0], bytearray(8)).wait(0)


@pytest.mark.parametrize("mask", [0, abi.Feature.EXT_ARG])
def test_a_wait_times_out_on_a_busy_ring(pair: Pair, mask: int) -> None:
    with Ring(8, mask_features=mask) as ring:

        def again(op: Operation[int], res: int, cqe_flags: int) -> None:
            ring.nop(callback=again)

        ring.nop(callback=again)
        with pytest.raises(TimeoutError):
            ring.recv(pair[0], bytearray(8)).wait(10_000_000)
        with pytest.raises(TimeoutError):
            ring.poll_multishot(pair[0], select.POLLIN).next(10_000_000)
        pair[1].send(b"x")
        assert ring.recv(pair[0], bytearray(8)).wait(HANG_NS) == 1


@pytest.mark.parametrize("wanted_flags", [0, abi.Setup.SINGLE_ISSUER | abi.Setup.DEFER_TASKRUN])
def test_timeouts_where_the_kernels_enter_has_none(pair: Pair, wanted_flags: int) -> None:
    with Ring(8, wanted_flags=wanted_flags, mask_features=abi.Feature.EXT_ARG) as ring:
        assert not ring.features & abi.Feature.EXT_ARG
        assert not ring.run_once(1_000_000)
        op = ring.recv(pair[0], bytearray(8))
        with pytest.raises(TimeoutError):
            op.wait(1_000_000)
        finish(ring)
        assert not ring.run_once(1_000_000), "nothing of the wait was left over"
        op = ring.recv(pair[0], bytearray(8))
        timer = ring.timeout(20_000_000)
        assert ring.run_once(HANG_NS) and timer.done and not op.done
        pair[1].send(b"x")
        assert op.wait(HANG_NS) == 1
        ring.sq.prep_nop(user_data=1)
        assert ring.submit_and_wait(2, 1_000_000) == 1
        assert ring.completions() == [(1, 0, 0)]
        ring.recv(pair[0], bytearray(8))


def test_run_once_says_whether_anything_came(ring: Ring, pair: Pair) -> None:
    assert not ring.run_once(0)
    assert not ring.run_once(1_000_000)
    ring.nop()
    assert ring.run_once()
    assert not ring.run_once(0)
    ring.timeout(1_000_000)
    assert ring.run_once(HANG_NS)


def test_a_closed_rings_operations_answer_at_once(messages: Pair, listener: socket.socket) -> None:
    with Ring(8) as ring:
        pool = ring.buffer_ring(2, 16)
        failed, done, never = ring.fsync(messages[0], 1 << 30), ring.nop(), ring.recv(messages[0], bytearray(1))
        done.wait()
        stream = ring.recv_multishot(messages[1], pool)
        messages[0].send(b"data")
        while not stream.stream[0]:
            ring.run_once(HANG_NS)
    assert done.wait() == 0
    with pytest.raises(OSError) as error:
        failed.wait()
    assert error.value.errno == errno.EINVAL
    with pytest.raises(OSError) as error:
        never.wait()
    assert error.value.errno == errno.ECANCELED
    assert stream.next() is not None
    assert stream.next() == (-errno.ECANCELED, 0)
    assert stream.next() is None
    uses: list[Any] = [
        stream.again, ring.nop, ring.run, ring.run_once, ring.submit, ring.submit_and_wait, ring.completions,
        lambda: ring.recv(messages[0], bytearray(1)), lambda: ring.accept(listener), lambda: ring.buffer_ring(1, 1),
        lambda: ring.file_table(1), lambda: ring.register_buffers([]), ring.link(1).__enter__, ring.fileno,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(RingClosedError, match="closed"):
            use()
    ring.close()


def test_a_loan_outlives_the_ring(messages: Pair) -> None:
    with Ring(8) as ring:
        pool = ring.buffer_ring(2, 16)
        messages[1].send(b"data")
        with pool.lend(*ring.recv_select(messages[0], pool).wait_cqe(HANG_NS)) as view:
            ring.close()
            assert bytes(view) == b"data"
        with pytest.raises(OutOfOrderError, match="closed"):
            pool.lend(1, int(abi.CqeFlag.BUFFER))


def test_a_kernel_that_cannot_cancel_everything_is_asked_one_by_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_CANCEL_EVERYTHING", 1 << 30)  # EINVAL, as before Linux 5.19
    ring = Ring(4)
    ops = [ring.recv(pair[0], bytearray(8)), *(ring.timeout(HOUR_NS) for _ in range(20))]
    ring.close()
    assert [op.wait_cqe()[0] for op in ops] == [-errno.ECANCELED] * 21


def test_rings_with_a_registered_fd_come_and_go(pair: Pair) -> None:
    # A thread has 16 places for them.
    for _ in range(40):
        with Ring(8, register_ring_fd=True) as ring:
            ring.recv(pair[0], bytearray(8))
            assert ring.nop().wait(HANG_NS) == 0
            with pytest.raises(TimeoutError):
                ring.recv(pair[0], bytearray(8)).wait(0)


def test_waiting_for_what_a_closed_ring_had_in_flight_is_refused(pair: Pair) -> None:
    ring = Ring(8)
    op, stream = ring.recv(pair[0], bytearray(8)), ring.poll_multishot(pair[1], select.POLLIN)
    ring._closed = RingClosedError("this ring is closed")  # without the kernel's answers
    for use in (op.wait, op.wait_cqe, op.cancel, stream.next, lambda: list(stream)):
        with pytest.raises(RingClosedError):
            use()
    ring._closed = None
    ring.close()


# --- callbacks


def test_callbacks_run_after_the_drain_in_the_order_of_completion(ring: Ring, pair: Pair) -> None:
    called: list[tuple[str, int]] = []
    done = []

    def note(op: Operation[int], res: int, cqe_flags: int) -> None:
        called.append((op.name, res))
        done.append([each.done for each in ops])

    with ring.link(3):
        ops = [ring.nop(callback=note), ring.recv(pair[0], bytearray(1), socket.MSG_DONTWAIT, callback=note), ring.nop(callback=note)]
    while not all(op.done for op in ops):
        ring.submit_and_wait(1, HANG_NS)
        ring.completions()
    assert called == [("nop", 0), ("recv", -errno.EAGAIN), ("nop", -errno.ECANCELED)]


def test_a_callback_gets_each_completion_of_a_stream(ring: Ring, messages: Pair) -> None:
    needs("6.0", newest(ring) >= (6, 0))
    ours, theirs = messages
    pool = ring.buffer_ring(2, 16)
    received: list[bytes] = []

    def got(op: Any, res: int, cqe_flags: int) -> None:
        if res <= 0:
            ring.stop()
        received.append(pool.take(res, cqe_flags))

    stream = ring.recv_multishot(ours, pool, callback=got)
    with pytest.raises(OutOfOrderError, match="callback"):
        next(iter(stream))
    theirs.send(b"one")
    theirs.send(b"two")
    theirs.close()
    ring.run()
    assert received == [b"one", b"two", b""]


def test_run_ends_when_nothing_is_in_flight_or_when_it_is_told_to(ring: Ring, pair: Pair) -> None:
    ring.run()
    left = 5

    def count(op: Operation[int], res: int, cqe_flags: int) -> None:
        nonlocal left
        left -= 1
        if left:
            ring.nop(callback=count)

    ring.nop(callback=count)
    ring.run()
    assert left == 0
    waiting = ring.recv(pair[0], bytearray(1))
    ring.nop(callback=lambda *_: ring.stop())
    ring.run()
    assert not waiting.done
    pair[1].send(b"x")
    ring.run()
    assert waiting.done


def test_nothing_waits_inside_a_callback(ring: Ring, pair: Pair) -> None:
    waiting = ring.recv(pair[0], bytearray(1))
    stream = ring.poll_multishot(pair[1], select.POLLPRI)
    refused = []

    def callback(op: Operation[int], res: int, cqe_flags: int) -> None:
        for use in (waiting.wait, waiting.wait_cqe, stream.next, ring.run, ring.run_once, ring.close):
            with pytest.raises(NestedWaitError, match="callback"):
                use()
            refused.append(use)
        assert op.wait() == 0, "it is done"

    ring.nop(callback=callback).wait()
    while len(refused) < 6:
        ring.run_once(HANG_NS)


def test_a_callback_that_raises_delays_the_rest_and_repeats_none(ring: Ring) -> None:
    called: list[int] = []

    def callback(op: Operation[int], res: int, cqe_flags: int) -> None:
        called.append(tokens.index(op.token))
        if len(called) % 2:
            raise KeyError(called[-1])

    tokens = [ring.nop(callback=callback).token for _ in range(5)]
    raised = []
    for _ in range(20):
        try:
            ring.run()
            break
        except KeyError as error:
            raised.append(error.args[0])
    assert called == [0, 1, 2, 3, 4]
    assert raised == [0, 2, 4]


def test_a_builtin_callback_that_raises_is_called_once(ring: Ring) -> None:
    bad: Any = [].append  # takes one argument
    ring.nop(callback=bad)
    called: list[int] = []
    ring.nop(callback=lambda op, res, cqe_flags: called.append(res))
    with pytest.raises(TypeError):
        ring.run()
    ring.run()
    assert called == [0]


def test_completions_may_be_taken_inside_a_callback(ring: Ring) -> None:
    called: list[int] = []
    raw: list[int] = []

    def callback(op: Operation[int], res: int, cqe_flags: int) -> None:
        called.append(op.token)
        ring.sq.prep_nop(user_data=len(called))
        if len(called) < 5:
            ring.nop(callback=callback)
        ring.submit()
        raw.extend(user_data for user_data, _, _ in ring.completions())

    ring.nop(callback=callback)
    ring.nop(callback=callback)
    while ring.in_flight or len(raw) < len(called):
        ring.submit_and_wait(0)
        raw.extend(user_data for user_data, _, _ in ring.completions())
    assert len(called) == len(set(called)) == 6
    assert sorted(raw) == [1, 2, 3, 4, 5, 6]


# --- both layers on one ring


def test_completions_hands_out_only_what_is_raw(ring: Ring, pair: Pair) -> None:
    called: list[int] = []
    for i in range(4):
        ring.sq.prep_nop(user_data=i)
        ring.nop(callback=lambda op, res, cqe_flags: called.append(op.token))
    pending = ring.recv(pair[0], bytearray(1))
    raw: list[tuple[int, int, int]] = []
    while len(raw) < 4 or len(called) < 4:
        ring.submit_and_wait(0)
        raw += ring.completions()
    assert sorted(raw) == [(i, 0, 0) for i in range(4)]
    assert len(set(called)) == 4 and not pending.done
    # What was raw while an owned one was waited for is not lost.
    ring.sq.prep_nop(user_data=8)
    assert ring.nop().wait(HANG_NS) == 0
    pair[1].send(b"x")
    assert pending.wait(HANG_NS) == 1
    while not (raw := ring.completions()):
        ring.submit_and_wait(1, HANG_NS)
    assert raw == [(8, 0, 0)] and ring.completions() == []


# --- queues that are full


def test_a_full_submission_queue_is_flushed_by_itself() -> None:
    with Ring(8) as ring:
        ops = [ring.nop() for _ in range(1000)]
        assert ring.in_flight == 1000
        assert [op.wait(HANG_NS) for op in ops] == [0] * 1000
        assert ring.in_flight == 0


@pytest.mark.parametrize("wanted_flags", [0, abi.Setup.SINGLE_ISSUER | abi.Setup.DEFER_TASKRUN])
def test_an_overflowing_completion_queue_loses_nothing(pair: Pair, wanted_flags: int) -> None:
    called: list[int] = []
    with Ring(4, cq_entries=4, wanted_flags=wanted_flags) as ring:
        waiting = ring.recv(pair[0], bytearray(8))
        ops = [ring.nop(callback=lambda op, res, cqe_flags: called.append(op.token)) for _ in range(100)]
        for i in range(100):
            if ring.sq.space_left == 0:
                ring.submit()
            ring.sq.prep_nop(user_data=i)
        pair[1].send(b"x")
        assert waiting.wait(HANG_NS) == 1
        raw: list[int] = []
        while len(raw) < 100 or len(called) < 100:
            ring.submit_and_wait(0)
            raw += [user_data for user_data, _, _ in ring.completions()]
        assert sorted(raw) == list(range(100))
        assert called == [op.token for op in ops]


# --- chains


def test_a_chain_runs_in_order_and_stops_at_a_failure(ring: Ring, path: Path) -> None:
    buffer = bytearray(5)
    with path.open("wb+", buffering=0) as file:
        with ring.link(3):
            write, sync, read = ring.write(file, b"chain", 0), ring.fsync(file), ring.read(file, buffer, 0)
        assert [op.wait(HANG_NS) for op in (write, sync, read)] == [5, 0, 5] and buffer == b"chain"
        with ring.link(3):
            ops = [ring.read(file, bytearray(64), 0), ring.nop(), ring.nop()]
        after = ring.nop()
        assert [op.wait_cqe(HANG_NS)[0] for op in ops] == [5, -errno.ECANCELED, -errno.ECANCELED]
        assert after.wait(HANG_NS) == 0, "it was no part of the chain"


def test_room_for_a_chain_is_made_first(ring: Ring, path: Path) -> None:
    for free in range(ring.entries):
        ops = [ring.nop() for _ in range(ring.entries - free)]
        with path.open("wb+", buffering=0) as file:
            with ring.link(4):
                chain = [ring.write(file, b"chain", 0), ring.read(file, bytearray(64), 0), ring.nop(), ring.nop()]
            assert [op.wait_cqe(HANG_NS)[0] for op in chain] == [5, 5, -errno.ECANCELED, -errno.ECANCELED]
        assert [op.wait(HANG_NS) for op in ops] == [0] * len(ops)


def test_chains_are_refused_what_would_cut_them(ring: Ring) -> None:
    with pytest.raises(OutOfOrderError, match="does not fit"), ring.link(ring.entries + 1):
        pass
    with ring.link(2):
        op = ring.nop()
        uses: list[Any] = [op.wait, op.cancel, ring.run_once, ring.link(1).__enter__]
        for use in uses:
            with pytest.raises(OutOfOrderError, match="chain"):
                use()
    assert op.wait(HANG_NS) == 0
    with pytest.raises(OutOfOrderError, match="say so"), ring.link(1):
        ring.nop()
        ring.nop()
    with pytest.raises(OutOfOrderError, match="middle of a chain"), ring.link(1):
        for _ in range(ring.entries + 1):
            ring.nop()
    with pytest.raises(KeyError), ring.link(2):
        ring.nop()
        raise KeyError
    assert ring.nop().wait(HANG_NS) == 0
    finish(ring)
    with ring.link(3):
        pass
    assert ring.nop().wait(HANG_NS) == 0


# --- buffers that cannot be used


def test_memory_that_is_refused(ring: Ring, pair: Pair) -> None:
    ours, _ = pair
    read_only = mmap.mmap(-1, 8, prot=mmap.PROT_READ)
    refused: list[Any] = [b"bytes", "text", 7, None, memoryview(b"x"), memoryview(bytearray(8))[::2], (ctypes.c_char * 8)(),
                          memoryview((ctypes.c_char * 8)()), memoryview(memoryview((ctypes.c_char * 8)()))[2:], read_only]  # fmt: skip
    for each in refused:
        with pytest.raises(BufferUseError):
            ring.recv(ours, each)
        with pytest.raises(BufferUseError):
            ring.readv(ours, [bytearray(1), each])
    for each in ("text", 7, None, memoryview(bytes(8))[::2], (ctypes.c_char * 8)(), [b"x"]):
        with pytest.raises(BufferUseError):
            ring.send(ours, each)
    assert ring.in_flight == 0
    read_only.close()


def test_memory_that_is_accepted(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    mapped = mmap.mmap(-1, 8)
    accepted: list[Any] = [bytearray(4), memoryview(bytearray(8))[2:6], array.array("H", [0, 0]), mapped, memoryview(bytearray(4)).cast("I")]
    for each in accepted:
        theirs.send(b"data")
        op = ring.recv(ours, each)
        assert op.wait(HANG_NS) == 4
        assert bytes(memoryview(each).cast("B")[:4]) == b"data"
    for each in [b"data", *accepted, mmap.mmap(-1, 4, prot=mmap.PROT_READ), memoryview(b"data"), b"", bytearray()]:
        nbytes = memoryview(each).nbytes
        assert ring.send(ours, each).wait() == nbytes
        if nbytes:
            assert len(theirs.recv(64)) == nbytes
    ours.send(b"x")
    assert ring.recv(theirs, bytearray()).wait(HANG_NS) == 0
    mapped.close()


def test_a_bytearray_cannot_be_resized_while_it_is_in_flight(ring: Ring, pair: Pair) -> None:
    ours, theirs = pair
    buffer = bytearray(8)
    op = ring.recv(ours, buffer)
    changes: list[Any] = [lambda: buffer.append(0), buffer.clear, lambda: buffer.extend(b"x"), buffer.pop]
    for change in changes:
        with pytest.raises(BufferError):
            change()
    ring.submit()
    with pytest.raises(BufferError):
        buffer.clear()
    theirs.send(b"x")
    while not op.done:
        ring.submit_and_wait(1, HANG_NS)
        ring.completions()
    buffer.extend(b"free again")
    stuck = ring.recv(ours, buffer)
    stuck.cancel()
    assert stuck.wait_cqe(HANG_NS)[0] == -errno.ECANCELED
    buffer.clear()


def test_files_that_are_none(ring: Ring, pair: Pair, path: Path) -> None:
    pair[0].close()
    with pytest.raises(OutOfOrderError, match="closed"):
        ring.recv(pair[0], bytearray(1))
    file = path.open("wb")
    file.close()
    with pytest.raises(ValueError):
        ring.write(file, b"x")
    for wrong in ("name", None, 1.5):
        with pytest.raises(BufferUseError, match="no file"):
            ring.recv(wrong, bytearray(1))  # type: ignore[arg-type]
    with pytest.raises(OSError):
        ring.recv(-1, bytearray(1)).wait()
    assert ring.poll(True, select.POLLOUT).name == "poll_add"
    finish(ring)


def test_a_value_that_does_not_fit_leaves_nothing_behind(ring: Ring, pair: Pair) -> None:
    buffer = bytearray(8)
    for bad in (1 << 64, "x"):
        with pytest.raises(Exception, match="."):
            ring.read(pair[0], buffer, offset=bad)  # type: ignore[arg-type]
        with pytest.raises(Exception, match="."):
            ring.poll(pair[0], bad)  # type: ignore[arg-type]
    assert ring.in_flight == 0
    buffer.append(0)
    assert ring.nop().wait() == 0


# --- what this kernel lacks


def test_an_operation_that_the_kernel_lacks_names_the_release(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "probe", lambda fd: frozenset({int(abi.Op.NOP)}))
    with Ring(8) as ring:
        assert not ring.supports(abi.Op.FSYNC)
        with pytest.raises(UnsupportedError, match="5.6") as failed:
            ring.require(abi.Op.RECV)
        assert failed.value.needs == "5.6"
        # The kernel says EINVAL to an opcode it does not know, as it does to a flag.
        op = ring.fsync(pair[0], 1 << 30)
        with pytest.raises(UnsupportedError, match="fsync needs Linux 5.1") as failed:
            op.wait()
        assert isinstance(failed.value, NotImplementedError) and failed.value.needs == "5.1"
        assert op.wait_cqe() == (-errno.EINVAL, 0)


def test_einval_of_an_operation_that_is_there_is_einval(ring: Ring, pair: Pair) -> None:
    with pytest.raises(OSError) as failed:
        ring.fsync(pair[0], 1 << 30).wait()
    assert failed.value.errno == errno.EINVAL


# --- the end


def test_a_ring_in_reference_cycles_is_collected(pair: Pair) -> None:
    with Ring(2) as other:
        needs("5.19", other)
    gc.collect()

    def make() -> weakref.ref[Ring]:
        ring = Ring(8)
        pool = ring.buffer_ring(2, 16)
        group = ring.provided_buffers(2, 16)  # holds the ring
        cycle: list[Any] = [ring, pool, group]
        cycle.append(cycle)
        ring.recv(pair[0], bytearray(8), callback=lambda *_: cycle)
        ring.poll_multishot(pair[0], select.POLLIN, callback=lambda *_: cycle)
        ring.nop(callback=lambda *_: cycle).wait()
        ring.close()
        return weakref.ref(ring)

    ref = make()
    gc.collect()
    assert ref() is None


def test_a_closed_ring_is_freed_without_the_collector(pair: Pair) -> None:
    gc.collect()
    gc.disable()
    try:
        ring = Ring(8)
        op = ring.recv(pair[0], bytearray(8))
        ring.nop().wait()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ring.close()
        ref = weakref.ref(ring)
        del ring, op
        assert ref() is None
    finally:
        gc.enable()


# --- addresses and control data


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, ("192.0.2.1", 65535)),
        (socket.AF_INET6, ("2001:db8::1", 443, 7, 3)),
        (socket.AF_UNIX, "/tmp/socket"),
        (socket.AF_UNIX, b"\0abstract"),
        (socket.AF_UNIX, ""),
    ],
)
def test_addresses_there_and_back(family: int, address: Any) -> None:
    assert decode_address(encode_address(family, address)) == address


def test_addresses_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="107"):
        encode_address(socket.AF_UNIX, "x" * 108)
    with pytest.raises(ValueError, match="family"):
        encode_address(socket.AF_PACKET, ("lo", 0))
    assert decode_address(b"") is None
    assert decode_address(b"\xff\xff\1\2") == b"\xff\xff\1\2"
    assert encode_address(socket.AF_INET6, ("::1", 80)) == encode_address(socket.AF_INET6, ("::1", 80, 0, 0))


def test_control_data_there_and_back() -> None:
    ancdata = [(1, 2, b"12345678"), (3, 4, b"123"), (5, 6, b"")]
    packed = bytearray(pack_control(ancdata))
    assert list(unpack_control(packed)) == ancdata
    assert list(unpack_control(bytearray())) == []
    assert list(unpack_control(bytearray(64))) == []


def test_a_fixed_file_belongs_to_its_table(ring: Ring) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    assert isinstance(ring.file_table(1)[0], Fixed)


# --- what belongs to another ring


def test_what_belongs_to_another_ring_is_refused(ring: Ring, pair: Pair, path: Path) -> None:
    needs("5.19", ring)
    path.write_bytes(b"x")
    with Ring(8) as other, path.open("rb") as file:
        mine, theirs = ring.buffer_ring(2, 64), other.buffer_ring(2, 64)
        assert mine.bgid == theirs.bgid
        with pytest.raises(OutOfOrderError, match="another ring"):
            ring.recv_select(pair[0], theirs)
        with pytest.raises(OutOfOrderError, match="another ring"):
            ring.recv_multishot(pair[0], theirs)
        tables = ring.file_table(2), other.file_table(2)
        for table in tables:
            table.update(0, [file])
        with pytest.raises(OutOfOrderError, match="another ring"):
            ring.read(tables[1][0], bytearray(1), 0)
        with pytest.raises(OutOfOrderError, match="another ring"):
            ring.openat_direct(path, tables[1])
        buffers = other.register_buffers([bytearray(8)])
        with pytest.raises(OutOfOrderError, match="another ring"):
            ring.read_fixed(file, buffers, 0)
        timer = other.timeout(HOUR_NS)
        for misuse in (ring.cancel, ring.timeout_remove, ring.poll_remove):
            with pytest.raises(OutOfOrderError, match="another ring"):
                misuse(timer)
        assert ring.in_flight == 0
        other.close_buffer_ring(theirs)
        with pytest.raises(OutOfOrderError, match="closed"):
            other.recv_select(pair[0], theirs)


def test_a_timeout_is_whole_nanoseconds(ring: Ring, pair: Pair) -> None:
    op = ring.recv(pair[0], bytearray(8))
    for timeout_ns in (1e9, "1"):
        with pytest.raises(TypeError, match="integer"):
            op.wait(timeout_ns)  # type: ignore[arg-type]
    pair[1].send(b"late")
    assert op.wait(HANG_NS) == 4


def test_run_submits_what_the_last_callback_queued(ring: Ring, pair: Pair) -> None:
    def received(operation: Operation[int], res: int, cqe_flags: int) -> None:
        ring.send(pair[0], b"answer")
        ring.stop()

    ring.recv(pair[0], bytearray(8), callback=received)
    pair[1].send(b"x")
    ring.run()
    assert pair[1].recv(16) == b"answer"


def test_an_exception_takes_a_chain_back(ring: Ring, path: Path) -> None:
    with path.open("wb+", buffering=0) as file:
        before = ring.nop()
        with pytest.raises(ZeroDivisionError), ring.link(2):
            write = ring.write(file, b"never", 0)
            1 / 0
        with pytest.raises(OutOfOrderError, match="2 operations"), ring.link(1):
            ring.write(file, b"never", 0)
            ring.write(file, b"never", 0)
        assert before.wait() == 0
        assert write.wait_cqe() == (-errno.ECANCELED, 0)
        assert ring.nop().wait() == 0
        assert path.read_bytes() == b""


def test_a_closed_file_cannot_be_put_into_a_table(ring: Ring) -> None:
    table = ring.file_table(1)
    sock = socket.socket()
    sock.close()
    with pytest.raises(OutOfOrderError, match="closed"):
        table.update(0, [sock])


@pytest.mark.parametrize("count", [0, -1])
def test_a_file_table_has_slots(ring: Ring, count: int) -> None:
    with pytest.raises(RawuringError, match="at least one"):
        ring.file_table(count)


def test_what_cannot_be_registered_is_said(ring: Ring) -> None:
    for buffers in (list[bytearray](), bytearray(8)):
        with pytest.raises(BufferUseError, match="a list of buffers"):
            ring.register_buffers(buffers)


def test_a_ring_cannot_be_copied(ring: Ring) -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(ring)


@pytest.mark.parametrize("address", ["127.0.0.1:80", None, ("127.0.0.1", "80"), ("127.0.0.1", 99999), ("127.0.0.1",)])
def test_a_wrong_address_is_shown(ring: Ring, address: object) -> None:
    with socket.socket() as sock, pytest.raises(ValueError, match="is no address"):
        ring.connect(sock, address)


# --- what the owned layer refuses to pass on


@pytest.mark.parametrize("name", ["submit", "submit_and_wait", "completions", "run_once"])
def test_nothing_is_submitted_inside_a_chain(ring: Ring, name: str) -> None:
    with pytest.raises(OutOfOrderError, match="link block|chain"), ring.link(2):
        first = ring.nop()
        getattr(ring, name)()
    assert first.wait_cqe() == (-errno.ECANCELED, 0)
    with ring.link(2):
        chain = [ring.nop(), ring.nop()]
    ring.submit()
    assert [op.wait() for op in chain] == [0, 0]


def test_flags_that_break_the_owned_layer_are_refused(ring: Ring, pair: Pair) -> None:
    for refused in (abi.SqeFlag.CQE_SKIP_SUCCESS, abi.SqeFlag.BUFFER_SELECT):
        with pytest.raises(OutOfOrderError):
            ring.nop(sqe_flags=refused)
        with pytest.raises(OutOfOrderError):
            ring.recv(pair[0], bytearray(8), sqe_flags=refused)
        with pytest.raises(OutOfOrderError):
            ring.poll(pair[0], select.POLLIN, sqe_flags=refused)
    assert ring.in_flight == 0
    assert ring.nop(sqe_flags=abi.SqeFlag.ASYNC).wait() == 0


def test_buffers_that_a_group_does_not_have_are_refused(ring: Ring) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    pool = ring.buffer_ring(2, 64)
    pools = [pool, ring.buffer_ring(2, 64, incremental=True)] if newest(ring) >= (6, 12) else [pool]
    for bids in ([2], [-1], [0, 5]):
        for each in pools:
            with pytest.raises(BufferUseError, match="0 to 1"):
                each.give_back(bids)
    group = ring.provided_buffers(2, 64)
    for bid, count in ((2, 1), (-1, 1), (0, 3), (0, 0)):
        with pytest.raises(BufferUseError, match="0 to 1"):
            ring.provide_buffers(group, bid, count)
    assert ring.nop().wait() == 0
    assert ring.remove_buffers(group, 9).wait() == 2


def test_a_loan_whose_view_is_in_use_goes_back_all_the_same(ring: Ring, pair: Pair) -> None:
    needs("5.19", newest(ring) >= (5, 19))
    pool = ring.buffer_ring(1, 64)
    for _ in range(3):
        pair[1].send(b"x")
        outcome = ring.recv_select(pair[0], pool).wait_cqe(HANG_NS)
        with pytest.raises(BufferError), pool.lend(*outcome) as view:
            using = re.finditer(b"x", view)
        assert len(list(using)) == 1
