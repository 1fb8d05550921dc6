"""The verbs of io_uring_register on live rings, by what requests find afterwards.

Registered buffers are in test_raw, with the operations that use them.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Iterator

import pytest
from support import (
    HANG_NS,
    Pipe,
    RawBufferRing,
    address,
    needs,
    newest,
    pipe,
    ring,
    room,
    take_one,
)

from rawuring import Ring, abi, register, syscalls

Op, Setup, SqeFlag = abi.Op, abi.Setup, abi.SqeFlag
FIXED_FILE = int(SqeFlag.FIXED_FILE)

__all__ = ["pipe", "ring"]


def test_files_and_their_update(ring: Ring, pipe: Pipe) -> None:
    fd = ring.fileno()
    reader, writer = pipe
    register.files(fd, [writer, -1, reader])
    with pytest.raises(OSError) as caught:
        register.files(fd, [writer])
    assert caught.value.errno == errno.EBUSY
    out, back = bytearray(b"slots"), room(5)

    def through(write_slot: int, read_slot: int) -> tuple[int, int]:
        ring.sq.prep_write(write_slot, address(out), 5, 0, sqe_flags=FIXED_FILE, user_data=1)
        wrote = take_one(ring, 1)[0]
        if wrote < 0:
            return wrote, 0
        ring.sq.prep_read(read_slot, address(back), 5, 0, sqe_flags=FIXED_FILE, user_data=2)
        return wrote, take_one(ring, 2)[0]

    assert through(0, 2) == (5, 5)
    assert back == out
    assert through(1, 2) == (-errno.EBADF, 0)
    skip = abi.REGISTER_FILES_SKIP if newest(ring) >= (5, 12) else writer
    assert register.files_update(fd, 0, [skip, writer]) == 2
    assert through(1, 2) == (5, 5)
    assert through(0, 2) == (5, 5)
    assert register.files_update(fd, 0, [-1]) == 1
    assert through(0, 2) == (-errno.EBADF, 0)
    with pytest.raises(OSError):
        register.files_update(fd, 3, [writer])
    register.unregister_files(fd)
    assert through(1, 2) == (-errno.EBADF, 0)
    with pytest.raises(OSError) as caught:
        register.unregister_files(fd)
    assert caught.value.errno == errno.ENXIO


@pytest.mark.parametrize("old_kernel", [False, True])
def test_files_sparse(ring: Ring, old_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if old_kernel:
        real = syscalls.register

        def without_files2(fd: int, opcode: int, arg_addr: int | None, nr_args: int) -> int:
            if opcode == abi.Register.FILES2:
                raise OSError(errno.EINVAL, "as before Linux 5.13")
            return real(fd, opcode, arg_addr, nr_args)

        monkeypatch.setattr(syscalls, "register", without_files2)
    event = os.eventfd(7)
    try:
        register.files_sparse(ring.fileno(), 10)
        assert register.files_update(ring.fileno(), 9, [event]) == 1
        memory = room(8)
        ring.sq.prep_read(9, address(memory), 8, 0, sqe_flags=FIXED_FILE, user_data=1)
        assert take_one(ring, 1)[0] == 8
        assert int.from_bytes(memory, sys.byteorder) == 7
        ring.sq.prep_read(0, address(memory), 8, 0, sqe_flags=FIXED_FILE, user_data=2)
        assert take_one(ring, 2)[0] == -errno.EBADF
    finally:
        os.close(event)


def test_pbuf_ring_errors(ring: Ring) -> None:
    needs("5.19", ring)
    pool = RawBufferRing(ring, 3, 4)
    for addr, entries, bgid, code in (
        (pool.addr, 4, 3, errno.EEXIST),
        (pool.addr, 3, 4, errno.EINVAL),
        (pool.addr + 16, 4, 4, errno.EINVAL),
    ):
        with pytest.raises(OSError) as caught:
            register.pbuf_ring(ring.fileno(), addr, entries, bgid)
        assert caught.value.errno == code


def test_probe(ring: Ring) -> None:
    supported = register.probe(ring.fileno())
    assert {Op.NOP, Op.READV, Op.READ, Op.SEND, Op.OPENAT} <= supported
    assert {op for op in Op if ring.supports(op)} == supported & set(Op)
    # The kernel refuses what it does not list.
    ring.sq._encode(max(supported) + 1, -1, 0, 0, 0, 0, 1, 0)
    assert take_one(ring, 1)[0] == -errno.EINVAL


def test_query(ring: Ring) -> None:
    try:
        answer = register.query()
    except OSError as error:
        assert error.errno == errno.EINVAL
        needs(abi.Register.QUERY.since, False)
        raise
    assert register.query(ring.fileno()) == answer
    supported = register.probe(ring.fileno())
    assert answer.nr_request_opcodes == max(supported) + 1
    assert answer.nr_register_opcodes > abi.Register.QUERY
    assert answer.feature_flags == ring.features
    assert ring.setup_flags & ~answer.ring_setup_flags == 0
    assert abi.Enter.EXT_ARG & answer.enter_flags and SqeFlag.CQE_SKIP_SUCCESS & answer.sqe_flags
    assert answer.nr_query_opcodes >= 1


def test_ring_fds(ring: Ring) -> None:
    try:
        index = register.ring_fd(ring.fileno())
    except OSError as error:
        assert error.errno == errno.EINVAL
        needs(abi.Register.RING_FDS.since, False)
        raise
    registered = abi.Enter.REGISTERED_RING | abi.Enter.GETEVENTS
    assert syscalls.enter(index, 0, 0, registered) == 0
    register.unregister_ring_fd(ring.fileno(), index)
    assert syscalls.enter(index, 0, 0, registered) == -errno.EBADF


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


def signalled(event: int, within_ns: int = 0) -> bool:
    """Was the eventfd signalled? It is not any more then. An SQ thread or a worker signals after its CQE is seen."""
    select.select([event], [], [], within_ns / 1e9)
    try:
        return os.eventfd_read(event) > 0
    except BlockingIOError:
        return False


def complete_nop(ring: Ring, user_data: int, sqe_flags: int = 0) -> None:
    ring.sq.prep_nop(user_data=user_data, sqe_flags=sqe_flags)
    take_one(ring, user_data)


def test_eventfd(ring: Ring, event: int) -> None:
    register.eventfd(ring.fileno(), event)
    with pytest.raises(OSError) as caught:
        register.eventfd(ring.fileno(), event)
    assert caught.value.errno == errno.EBUSY
    assert not signalled(event)
    complete_nop(ring, 1)
    assert signalled(event, HANG_NS)
    register.unregister_eventfd(ring.fileno())
    complete_nop(ring, 2)
    assert not signalled(event)
    with pytest.raises(OSError) as caught:
        register.unregister_eventfd(ring.fileno())
    assert caught.value.errno == errno.ENXIO


def test_eventfd_of_what_workers_complete_only(ring: Ring, event: int, pipe: Pipe) -> None:
    register.eventfd(ring.fileno(), event, only_async=True)
    complete_nop(ring, 1)
    assert not signalled(event)
    ring.sq.prep_poll_add(pipe[0], select.POLLIN, user_data=2)
    ring.submit()
    os.write(pipe[1], b"x")
    take_one(ring, 2)
    assert not signalled(event)
    complete_nop(ring, 3, sqe_flags=int(SqeFlag.ASYNC))
    assert signalled(event, HANG_NS)


@pytest.mark.parametrize("ring", ["best", "plain"], indirect=True)  # an SQ thread may look at the switch late
def test_eventfd_enabled(ring: Ring, event: int) -> None:
    register.eventfd(ring.fileno(), event)
    for enabled in (False, True, False):
        ring.cq.eventfd_enabled(enabled)
        complete_nop(ring, 1)
        assert signalled(event) == enabled
