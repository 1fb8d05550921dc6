"""What the system calls refuse and how they count, without the help of `Ring`: set-up, enter, register, queries."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

import pytest
from conftest import RunChild
from registering import in_a_thread, needing, refused
from support import address, granted, nops, room, take, take_one

from rawuring import Ring, abi, register, syscalls
from rawuring.abi import Enter, Register, Setup

PAGE = mmap.PAGESIZE
NOWHERE = 16  # an address in a page that is never mapped


def open_fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def setup_errno(entries: int, **params: int) -> int:
    """Set a ring up with these members of struct io_uring_params: the errno, 0 if one was made."""
    before = open_fds()
    packed = {name.replace("__", "."): value for name, value in params.items()}
    try:
        fd = syscalls.setup(entries, abi.IO_URING_PARAMS.pack(**packed))
    except OSError as error:
        assert open_fds() == before
        return error.errno or 0
    os.close(fd)
    return 0


# --- setting a ring up


@pytest.mark.behaviour("io_uring_setup")
def test_setup_refuses_what_makes_no_sense() -> None:
    assert setup_errno(1) == 0
    assert setup_errno(0) == errno.EINVAL
    assert setup_errno(abi.MAX_ENTRIES + 1) == errno.EINVAL
    assert setup_errno(1, flags=1 << 31) == errno.EINVAL
    reserved = abi.IO_URING_PARAMS.pack()
    at = abi.IO_URING_PARAMS.fields["resv"].offset
    for byte in range(at, at + 12, 4):
        changed = bytearray(reserved)
        changed[byte] = 1
        with refused(errno.EINVAL):
            syscalls.setup(1, changed)
    # The CPU of an SQ thread that there is not, the workers of what is no ring.
    assert setup_errno(1, flags=Setup.SQ_AFF) == errno.EINVAL
    assert setup_errno(1, flags=Setup.ATTACH_WQ, wq_fd=1 << 20) == errno.ENXIO
    with open(os.devnull) as null:
        assert setup_errno(1, flags=Setup.ATTACH_WQ, wq_fd=null.fileno()) == errno.EINVAL
    libc = ctypes.CDLL(None, use_errno=True)
    for nowhere in (0, NOWHERE):
        assert libc.syscall(syscalls.NR_SETUP, 1, ctypes.c_void_p(nowhere)) == -1
        assert ctypes.get_errno() == errno.EFAULT


@pytest.mark.behaviour("cq-size")
def test_how_large_the_kernel_makes_the_queues() -> None:
    def sizes(entries: int, setup_flags: int, cq_entries: int = 0) -> tuple[int, int]:
        params = abi.IO_URING_PARAMS.pack(flags=int(setup_flags), cq_entries=cq_entries)
        os.close(syscalls.setup(entries, params))
        return abi.IO_URING_PARAMS.get(params, "sq_entries"), abi.IO_URING_PARAMS.get(params, "cq_entries")

    assert sizes(5, 0) == (8, 16)
    assert sizes(5, 0, 1000) == (8, 16)  # nobody asked for CQSIZE
    assert sizes(5, Setup.CQSIZE, 8) == (8, 8)
    assert sizes(5, Setup.CQSIZE, 1000) == (8, 1024)
    assert sizes(4, Setup.CQSIZE | Setup.CLAMP, abi.MAX_CQ_ENTRIES + 1) == (4, abi.MAX_CQ_ENTRIES)
    for cq_entries in (0, 4, abi.MAX_CQ_ENTRIES + 1):
        assert setup_errno(8, flags=Setup.CQSIZE, cq_entries=cq_entries) == errno.EINVAL


@pytest.mark.behaviour("no-mmap-inval")
def test_queues_in_memory_that_is_not_there() -> None:
    granted(Setup.NO_MMAP).close()
    memory = mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    good = address(memory)

    def tried(sqes: int, rings: int) -> int:
        return setup_errno(2, flags=Setup.NO_MMAP, sq_off__user_addr=sqes, cq_off__user_addr=rings)

    assert tried(good, good + PAGE) == 0
    for sqes, rings in ((PAGE, good), (good, PAGE), (0, 0)):
        assert tried(sqes, rings) in (errno.EFAULT, errno.EINVAL, errno.ENOMEM)
    for sqes, rings in ((good + 64, good + PAGE), (good, good + PAGE + 64)):
        assert tried(sqes, rings) == errno.EINVAL
    assert tried(good, good + PAGE) == 0


@pytest.mark.behaviour("nop-all-sizes")
def test_rings_of_every_size_fill_and_wrap() -> None:
    for bits in range(abi.MAX_ENTRIES.bit_length()):
        entries = 1 << bits
        with Ring(entries) as ring:
            assert (ring.entries, ring.cq.entries) == (entries, 2 * entries)
            # A third of the way in, so that the queue's end is in the middle; then all of it.
            for count in (entries // 3 + 1, entries):
                nops(ring, *range(count))
                assert ring.submit_and_wait(count) == count
                assert [user_data for user_data, _, _ in ring.completions()] == list(range(count))
            assert ring.sq.dropped == ring.cq.lost == 0


# --- entering


@pytest.fixture
def plain() -> Iterator[Ring]:
    with Ring(8, wanted_flags=0) as ring:
        yield ring


@pytest.mark.behaviour("io_uring_enter")
def test_enter_refuses_what_it_cannot_enter(plain: Ring) -> None:
    fd = plain.fileno()
    with open(os.devnull) as null:
        assert syscalls.enter(null.fileno(), 1, 0, 0) == -errno.EOPNOTSUPP
    assert syscalls.enter(-1, 1, 0, 0) == -errno.EBADF
    assert syscalls.enter(1 << 20, 1, 0, 0) == -errno.EBADF
    for enter_flags in (1 << 31, 1 << 20 | Enter.GETEVENTS):
        assert syscalls.enter(fd, 0, 0, enter_flags) == -errno.EINVAL
    # More than was queued is nothing, or what was.
    assert syscalls.enter(fd, 100, 0, 0) == 0
    nops(plain, *range(8))
    plain.sq.flush()
    assert syscalls.enter(fd, 100, 8, Enter.GETEVENTS) == 8
    assert plain.completions() == [(user_data, 0, 0) for user_data in range(8)]


@pytest.mark.pitfall("a bad index in the SQ array is dropped in silence")
@pytest.mark.behaviour("io_uring_enter")
def test_an_index_out_of_range_is_dropped_and_counted(plain: Ring) -> None:
    """Which is why the queue writes every index once, and never again."""
    memory = plain._memory
    assert memory.has_sq_array
    array_at = abi.IO_URING_PARAMS.get(plain._answer, "sq_off.array")
    indices = memory._mappings[0].view[array_at : array_at + 4 * plain.entries].cast("I")
    try:
        assert indices.tolist() == list(range(8))
        indices[1] = 8
        nops(plain, 1, 2, 3)
        assert plain.sq.flush() == 3
        syscalls.enter(plain.fileno(), 3, 0, Enter.GETEVENTS)
        assert plain.sq.dropped == 1
        indices[1] = 1
        found = plain.completions()
        if len(found) == 1:  # a kernel that stops there takes the rest next time
            syscalls.enter(plain.fileno(), 1, 0, Enter.GETEVENTS)
            found += plain.completions()
        assert found == [(1, 0, 0), (3, 0, 0)]
    finally:
        indices.release()


@pytest.mark.behaviour("sqwait")
def test_an_enter_waits_until_the_sq_thread_made_room() -> None:
    with granted(Setup.SQPOLL, sq_thread_idle_ms=1000) as ring:
        for _ in range(20):
            nops(ring, *range(ring.entries))
            assert ring.sq.flush() <= ring.entries
            wakeup = Enter.SQ_WAKEUP if ring.sq.needs_wakeup() else 0
            assert syscalls.enter(ring.fileno(), 0, 0, Enter.SQ_WAIT | wakeup) == 0
            # The thread has taken an SQE then, and tells the head after the last of its batch.
            while ring.sq.ready:
                assert syscalls.enter(ring.fileno(), 0, 0, Enter.SQ_WAIT | Enter.SQ_WAKEUP) == 0
            assert ring.sq.space_left == ring.entries
            assert len(take(ring, ring.entries)) == ring.entries


@pytest.mark.pitfall("a SINGLE_ISSUER ring belongs to one thread")
@pytest.mark.behaviour("single-issuer")
def test_one_thread_alone_may_submit() -> None:
    """The one that made the ring."""
    with granted(Setup.SINGLE_ISSUER, wanted_flags=0) as ring:
        nops(ring, 1)
        pending = ring.sq.flush()
        assert in_a_thread(lambda: syscalls.enter(ring.fileno(), pending, 0, 0)) == -errno.EEXIST
        with refused(errno.EEXIST):
            in_a_thread(lambda: register.probe(ring.fileno()))
        assert take_one(ring, 1) == (0, 0)


@pytest.mark.behaviour("single-issuer")
def test_the_thread_that_enables_a_ring_alone_may_submit() -> None:
    ring = granted(Setup.SINGLE_ISSUER | Setup.R_DISABLED, wanted_flags=0)

    def elsewhere() -> None:
        ring.enable()
        with ring:
            nops(ring, 1)
            pending = ring.sq.flush()
            assert in_a_thread(lambda: syscalls.enter(ring.fileno(), pending, 0, 0)) == -errno.EEXIST
            assert take_one(ring, 1) == (0, 0)

    in_a_thread(elsewhere)


# --- registering


@pytest.mark.behaviour("io_uring_register")
def test_register_refuses_what_makes_no_sense(plain: Ring) -> None:
    fd = plain.fileno()
    with open(os.devnull) as null:
        for what, code in ((1 << 20, errno.EBADF), (null.fileno(), errno.EOPNOTSUPP)):
            with refused(code):
                syscalls.register(what, Register.UNREGISTER_FILES, None, 0)
    for opcode, addr, count, code in (
        (250, None, 0, errno.EINVAL),
        (Register.UNREGISTER_BUFFERS, None, 0, errno.ENXIO),
        (Register.UNREGISTER_BUFFERS, NOWHERE, 1, errno.EINVAL),
        (Register.BUFFERS, NOWHERE, 0, errno.EINVAL),
        (Register.BUFFERS, NOWHERE, 1, errno.EFAULT),
        (Register.FILES, NOWHERE, 0, errno.EINVAL),
        (Register.FILES, NOWHERE, 1, errno.EFAULT),
        (Register.EVENTFD, NOWHERE, 1, errno.EFAULT),
        (Register.EVENTFD, NOWHERE, 2, errno.EINVAL),
        (Register.PROBE, NOWHERE, 1, errno.EFAULT),
    ):
        with refused(code):
            syscalls.register(fd, opcode, addr, count)
    # A ring that registers itself would live for ever.
    with refused(errno.EBADF):
        register.files(fd, [fd])


@pytest.mark.behaviour("io_uring_register")
def test_which_memory_can_be_registered(plain: Ring) -> None:
    fd = plain.fileno()
    memory = room(64)
    for region, code in (((0, 64), errno.EFAULT), ((address(memory), (1 << 30) + 1), errno.EFAULT)):
        with refused(code):
            register.buffers(fd, [region])
    # One bad one, and none is registered.
    with refused(errno.EFAULT):
        register.buffers(fd, [(address(memory), 64), (NOWHERE, 64)])
    with refused(errno.ENXIO):
        register.unregister_buffers(fd)
    with refused(errno.EINVAL):
        register.buffers(fd, [(address(memory), 64)] * ((1 << 14) + 1))


@pytest.mark.behaviour("io_uring_register")
def test_memory_of_a_file_can_be_registered(plain: Ring) -> None:
    content = b"0123456789".ljust(PAGE, b".")
    with open(os.memfd_create("pages"), "r+b", buffering=0) as file:
        file.write(content)
        with mmap.mmap(file.fileno(), PAGE) as mapped:
            addr = address(mapped)
            try:
                register.buffers(plain.fileno(), [(addr, PAGE)])
            except OSError as error:
                # The first kernels take memory of no file.
                assert error.errno == errno.EOPNOTSUPP
                return
            plain.sq.prep_read_fixed(file.fileno(), addr, 5, 5, 0, user_data=1)
            assert take_one(plain, 1) == (5, 0)
            register.unregister_buffers(plain.fileno())
        assert os.pread(file.fileno(), PAGE, 0) == b"56789" + content[5:]


@pytest.mark.behaviour("io_uring_register")
def test_registered_memory_counts_against_the_limit(run_child: RunChild) -> None:
    run_child("""
        import ctypes, errno, mmap, os, resource
        from rawuring import Ring, register

        limit = 8 << 20
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        memory = mmap.mmap(-1, 2 * limit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        addr = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        with Ring(2) as ring:
            try:
                register.buffers(ring.fileno(), [(addr, 2 * limit)])
            except OSError as error:
                assert error.errno == errno.ENOMEM, error
            else:
                raise AssertionError("more was pinned than the limit allows")
            register.buffers(ring.fileno(), [(addr, limit // 4)])
    """)


# --- queries


def query_errno(*headers: bytearray) -> int:
    """Chain the headers, and ask: the errno, or 0."""
    for one, following in zip(headers, headers[1:]):
        abi.IO_URING_QUERY_HDR.put(one, "next_entry", address(following))
    try:
        syscalls.register(-1, Register.QUERY, address(headers[0]), 0)
    except OSError as error:
        return error.errno or 0
    return 0


def header(query_op: int, data: bytearray, addr: int | None = None) -> bytearray:
    return abi.IO_URING_QUERY_HDR.pack(
        query_op=query_op, query_data=address(data) if addr is None else addr, size=len(data)
    )


@pytest.mark.behaviour("ring-query")
def test_queries_of_other_sizes_and_kinds() -> None:
    with needing(Register.QUERY.since):
        known = register.query()
    layout = abi.IO_URING_QUERY_OPCODE
    # An older program's answer, and a newer one's.
    for nbytes in (8, layout.nbytes, layout.nbytes + 64):
        answer = bytearray(nbytes)
        asked = header(abi.Query.OPCODES, answer)
        assert query_errno(asked) == 0
        assert abi.IO_URING_QUERY_HDR.get(asked, "result") == 0
        assert nbytes <= layout.nbytes or abi.IO_URING_QUERY_HDR.get(asked, "size") < nbytes
        whole = answer.ljust(layout.nbytes, b"\0")
        assert layout.get(whole, "nr_request_opcodes") == known.nr_request_opcodes
        assert layout.get(whole, "nr_register_opcodes") == known.nr_register_opcodes
        assert nbytes == 8 or layout.get(whole, "feature_flags") == known.feature_flags
    # One that nobody knows, between two that are answered.
    answers = [bytearray(layout.nbytes) for _ in range(3)]
    chain = [header(query_op, answer) for query_op, answer in zip((0, 0xFFFF_FFFF, 0), answers)]
    assert query_errno(*chain) == 0
    assert [abi.IO_URING_QUERY_HDR.get(one, "result") for one in chain] == [0, -errno.EOPNOTSUPP, 0]
    assert answers[0] == answers[2] != answers[1]


@pytest.mark.behaviour("ring-query")
def test_queries_that_lead_nowhere() -> None:
    with needing(Register.QUERY.since):
        register.query()
    answer = bytearray(abi.IO_URING_QUERY_OPCODE.nbytes)
    assert query_errno(header(abi.Query.OPCODES, answer, NOWHERE)) == errno.EFAULT
    lost = header(abi.Query.OPCODES, answer)
    abi.IO_URING_QUERY_HDR.put(lost, "next_entry", NOWHERE)
    assert query_errno(lost) == errno.EFAULT
    # In a circle: it ends, and says that it did not come to an end.
    one, other = header(abi.Query.OPCODES, answer), header(abi.Query.OPCODES, answer)
    abi.IO_URING_QUERY_HDR.put(other, "next_entry", address(one))
    assert query_errno(one, other) != 0
    with refused(errno.EINVAL):
        syscalls.register(-1, Register.QUERY, address(one), 1)
