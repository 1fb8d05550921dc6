"""The ring itself: what its kernel says of it, its registered fd, enabling, resizing; and eventfds."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
from collections.abc import Iterator

import pytest
from registering import in_a_thread, needing, refused
from support import HANG_NS, Pipe, address, needs, pipe, ring, room, take_one

from rawuring import Ring, abi, register, syscalls

Op, Setup, SqeFlag = abi.Op, abi.Setup, abi.SqeFlag

__all__ = ["pipe", "ring"]


# --- what the kernel can do


@pytest.mark.behaviour("probe")
def test_probe(ring: Ring) -> None:
    supported = register.probe(ring.fileno())
    assert {Op.NOP, Op.READV, Op.READ, Op.SEND, Op.OPENAT} <= supported
    assert {op for op in Op if ring.supports(op)} == supported & set(Op)
    # The kernel refuses what it does not list.
    ring.sq._encode(max(supported) + 1, -1, 0, 0, 0, 0, 1, 0)
    assert take_one(ring, 1)[0] == -errno.EINVAL


@pytest.mark.behaviour("ring-query")
def test_query(ring: Ring) -> None:
    with needing(abi.Register.QUERY.since):
        answer = register.query()
    assert register.query(ring.fileno()) == answer
    supported = register.probe(ring.fileno())
    assert answer.nr_request_opcodes == max(supported) + 1
    assert answer.nr_register_opcodes > abi.Register.QUERY
    assert answer.feature_flags == ring.features
    assert ring.setup_flags & ~answer.ring_setup_flags == 0
    assert abi.Enter.EXT_ARG & answer.enter_flags and SqeFlag.CQE_SKIP_SUCCESS & answer.sqe_flags
    assert answer.nr_query_opcodes >= 1


@pytest.mark.behaviour("ring-query")
def test_every_query_in_one_chain(ring: Ring) -> None:
    with needing(abi.Register.QUERY.since):
        answers = register.queries()
    assert answers == register.queries(ring.fileno())
    assert answers.opcodes == register.query()
    assert answers.opcodes is not None
    # What the kernel does not know it says of that link alone.
    known = [answer is not None for answer in answers]
    assert known == [query < answers.opcodes.nr_query_opcodes for query in abi.Query]
    if answers.scq is not None:
        params = abi.IO_URING_PARAMS.pack(sq_entries=1)
        os.close(syscalls.setup(1, params))
        assert answers.scq.hdr_size <= abi.IO_URING_PARAMS.get(params, "cq_off.cqes")
        assert answers.scq.hdr_alignment > 0
    if answers.zcrx is not None and answers.zcrx.nr_ctrl_opcodes:
        assert answers.zcrx.rq_hdr_size >= 8
    if answers.zcrx_event is not None:
        assert answers.zcrx_event.stats_size in (0, abi.ZCRX_STATS.nbytes)


def test_a_query_that_fails_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        header = (ctypes.c_char * abi.IO_URING_QUERY_HDR.nbytes).from_address(arg_addr)
        abi.IO_URING_QUERY_HDR.put(header, "result", -errno.ENOMEM)
        return 0

    monkeypatch.setattr(syscalls, "register", failing)
    with refused(errno.ENOMEM, "a query"):
        register.queries()


# --- registered fds


def test_ring_fds(ring: Ring) -> None:
    with needing(abi.Register.RING_FDS.since):
        index = register.ring_fd(ring.fileno())
    registered = abi.Enter.REGISTERED_RING | abi.Enter.GETEVENTS
    assert syscalls.enter(index, 0, 0, registered) == 0
    register.unregister_ring_fd(ring.fileno(), index)
    assert syscalls.enter(index, 0, 0, registered) == -errno.EBADF


def test_a_thread_registers_sixteen() -> None:
    def work() -> None:
        with Ring(2) as ring:
            with needing(abi.Register.RING_FDS.since):
                indexes = [register.ring_fd(ring.fileno())]
            indexes += [register.ring_fd(ring.fileno()) for _ in range(abi.MAX_REGISTERED_RING_FDS - 1)]
            assert sorted(indexes) == list(range(abi.MAX_REGISTERED_RING_FDS))
            with refused(errno.EBUSY):
                register.ring_fd(ring.fileno())
            for index in indexes:
                register.unregister_ring_fd(ring.fileno(), index)

    in_a_thread(work)


@pytest.mark.behaviour("reg-reg-ring")
def test_every_verb_goes_through_an_index(ring: Ring, pipe: Pipe) -> None:
    needs(abi.Feature.REG_REG_RING.since, bool(ring.features & abi.Feature.REG_REG_RING))
    index = register.ring_fd(ring.fileno())
    assert repr(index) == f"RingIndex({index:d})"
    assert register.probe(index) == register.probe(ring.fileno())
    memory = room(8)
    register.buffers(index, [(address(memory), 8)])
    os.write(pipe[1], b"by index")
    ring.sq.prep_read_fixed(pipe[0], address(memory), 8, 0, 0, user_data=1)
    assert take_one(ring, 1)[0] == 8 and memory == b"by index"
    register.unregister_buffers(ring.fileno())
    # Another thread has no such index, whatever the number is as an fd.
    with refused(errno.EINVAL):
        in_a_thread(lambda: register.probe(index))
    register.unregister_ring_fd(index, index)
    with refused(errno.EBADF):
        register.probe(index)


@pytest.mark.behaviour("reg-reg-ring")
def test_a_ring_lives_on_in_its_index_alone() -> None:
    def work() -> None:
        params = abi.IO_URING_PARAMS.pack()
        fd = syscalls.setup(4, params)
        try:
            features = abi.IO_URING_PARAMS.get(params, "features")
            needs(abi.Feature.REG_REG_RING.since, bool(features & abi.Feature.REG_REG_RING))
            index = register.ring_fd(fd)
        finally:
            os.close(fd)
        with refused(errno.EBADF):
            register.probe(fd)
        assert Op.NOP in register.probe(index)
        register.unregister_ring_fd(index, index)

    in_a_thread(work)


# --- enabling and resizing


def test_enable_rings() -> None:
    with Ring(4, Setup.R_DISABLED) as ring:
        fd = ring.fileno()
        assert syscalls.enter(fd, 0, 0, abi.Enter.GETEVENTS) == -errno.EBADFD
        register.enable_rings(fd)
        assert syscalls.enter(fd, 0, 0, abi.Enter.GETEVENTS) == 0
        with refused(errno.EBADFD):
            register.enable_rings(fd)


@pytest.fixture
def deferring() -> Iterator[Ring]:
    """A ring that can be resized and mapped again. It is not used as a `Ring` after its queues are others."""
    with Ring(4, cq_entries=8) as made:
        wanted = Setup.DEFER_TASKRUN | Setup.NO_SQARRAY
        needs(Setup.NO_SQARRAY.since, made.setup_flags & wanted == wanted)
        yield made


def test_resized_rings_keep_what_is_in_them(deferring: Ring) -> None:
    fd = deferring.fileno()
    deferring.sq.prep_nop(user_data=1)
    deferring.sq.prep_nop(user_data=2)
    deferring.submit_and_wait(2)
    with needing(abi.Register.RESIZE_RINGS.since):
        answer = register.resize_rings(fd, 16, 64)
    layout, entry = abi.IO_URING_PARAMS, abi.IO_URING_CQE
    assert (layout.get(answer, "sq_entries"), layout.get(answer, "cq_entries")) == (16, 64)
    cqes_at = layout.get(answer, "cq_off.cqes")
    nbytes = cqes_at + 64 * entry.nbytes
    addr = syscalls.mmap(None, nbytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, abi.MmapOffset.SQ_RING)
    try:
        queues = memoryview((ctypes.c_char * nbytes).from_address(addr)).cast("B")
        words = queues[: cqes_at // 4 * 4].cast("I")
        found = {name: words[layout.get(answer, name) // 4] for name in ("sq_off.tail", "cq_off.head", "cq_off.tail")}
        assert found == {"sq_off.tail": 2, "cq_off.head": 0, "cq_off.tail": 2}
        assert [entry.get(queues, "user_data", cqes_at + at) for at in (0, entry.nbytes)] == [1, 2]
        # Both completions are still there, and do not fit one CQE.
        with refused(errno.EOVERFLOW):
            register.resize_rings(fd, 1, 1)
    finally:
        syscalls.munmap(addr, nbytes)


@pytest.mark.behaviour("resize-rings")
def test_how_far_rings_can_be_resized(deferring: Ring) -> None:
    fd, layout = deferring.fileno(), abi.IO_URING_PARAMS
    with needing(abi.Register.RESIZE_RINGS.since):
        answer = register.resize_rings(fd, 3)
    assert (layout.get(answer, "sq_entries"), layout.get(answer, "cq_entries")) == (4, 8)
    for sq_entries, cq_entries in ((0, 0), (abi.MAX_ENTRIES + 1, 0), (8, 4)):
        with refused(errno.EINVAL):
            register.resize_rings(fd, sq_entries, cq_entries)
    answer = register.resize_rings(fd, 8, abi.MAX_CQ_ENTRIES + 1, clamp=True)
    assert layout.get(answer, "cq_entries") == abi.MAX_CQ_ENTRIES
    with Ring(4, wanted_flags=0) as plain, refused(errno.EINVAL):
        register.resize_rings(plain.fileno(), 8)


# --- eventfds


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
    with refused(errno.EBUSY):
        register.eventfd(ring.fileno(), event)
    assert not signalled(event)
    complete_nop(ring, 1)
    assert signalled(event, HANG_NS)
    register.unregister_eventfd(ring.fileno())
    complete_nop(ring, 2)
    assert not signalled(event)
    with refused(errno.ENXIO):
        register.unregister_eventfd(ring.fileno())


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


@pytest.mark.behaviour("eventfd-disable")
@pytest.mark.parametrize("ring", ["best", "plain"], indirect=True)  # an SQ thread may look at the switch late
def test_eventfd_enabled(ring: Ring, event: int) -> None:
    register.eventfd(ring.fileno(), event)
    for enabled in (False, True, False):
        ring.cq.eventfd_enabled(enabled)
        complete_nop(ring, 1)
        assert signalled(event) == enabled
