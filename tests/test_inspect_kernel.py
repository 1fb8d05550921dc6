"""What /proc/self/fdinfo says of a ring, beside what we decode; and what the kernel makes of single fields."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Iterator

import pytest
from support import HANG_NS, Pipe, needs, pipe

from rawuring import Ring, RingSetupError, abi, inspect
from rawuring.abi.fields import ARGUMENTS

Setup, Op = abi.Setup, abi.Op

__all__ = ["pipe"]

WIDE = (Op.NOP128, Op.URING_CMD128)
SEED = 20_260_102


@pytest.fixture
def plain() -> Iterator[Ring]:
    """A ring with an SQ array, whose SQEs every kernel since 5.16 shows."""
    with Ring(128, wanted_flags=0) as ring:
        yield ring


@pytest.fixture
def disabled() -> Iterator[Ring]:
    """The same, and what is published there is never run."""
    with Ring(128, Setup.R_DISABLED, wanted_flags=0) as ring:
        yield ring


@pytest.fixture(scope="module")
def has_mixed_cqes() -> bool:
    """Is this Linux 6.18 or later?"""
    try:
        Ring(4, Setup.CQE_MIXED).close()
    except RingSetupError:
        return False
    return True


def put(ring: Ring, entry: bytes) -> None:
    """Write any 64 or 128 bytes as the next SQE."""
    at = (ring.sq.tail & (ring.sq.entries - 1)) * ring._memory.sqe_nbytes
    ring.sq.prep_nop()
    ring._memory.sqes[at : at + len(entry)] = entry


def needs_queues(view: inspect.KernelView) -> None:
    needs("5.16", view.shows_queues)


# --- the names of operations


def test_the_kernel_calls_every_operation_as_we_do(disabled: Ring) -> None:
    ops = [op for op in Op if op not in WIDE]
    for op in ops:
        put(disabled, bytes(abi.IO_URING_SQE.pack(opcode=op, fd=-1, user_data=op)))
    disabled.sq.flush()
    view = inspect.fdinfo(disabled)
    needs_queues(view)
    shown = {sqe.fields["user_data"]: sqe for sqe in view.sqes}
    known = [op for op in ops if disabled.supports(op)]
    assert [shown[op].op for op in known] == known
    assert all(shown[op].op is None for op in ops if op in shown and op not in known and not shown[op].opcode.isdigit())


def test_the_kernel_calls_the_128_byte_operations_as_we_do() -> None:
    try:
        ring = Ring(4, Setup.R_DISABLED | Setup.SQE128, wanted_flags=0)
    except RingSetupError:
        needs("5.19", False)
        raise
    with ring:
        needs("6.19", ring.supports(Op.NOP128))
        for op in WIDE:
            put(ring, bytes(abi.IO_URING_SQE.pack(opcode=op, fd=-1)) + bytes(64))
        ring.sq.flush()
        assert [sqe.op for sqe in inspect.fdinfo(ring).sqes] == [*WIDE]


# --- two opinions


def test_both_see_the_same_sqes(disabled: Ring) -> None:
    generator = random.Random(SEED)
    for op in [op for op in Op if op not in WIDE and disabled.supports(op)]:
        put(disabled, bytes([op]) + generator.randbytes(63))
    disabled.sq.flush()
    count = disabled.sq.ready
    comparison = inspect.compare(disabled)
    needs_queues(inspect.fdinfo(disabled))
    assert (comparison.differences, comparison.not_shown) == ((), ())
    assert comparison.agreed >= 6 + 4 * count, str(comparison)  # the words; operation, fd, flags, user_data


def test_both_see_the_same_cqes(plain: Ring) -> None:
    for user_data in (1, (1 << 64) - 1):
        plain.sq.prep_nop(user_data=user_data)
        put(plain, bytes(abi.IO_URING_SQE.pack(opcode=Op.READ, fd=-1, user_data=user_data)))
    plain.submit_and_wait(4, HANG_NS)
    view = inspect.fdinfo(plain)
    needs_queues(view)
    assert [shown.slot for shown in view.cqes] == [0, 1, 2, 3]
    assert sorted(shown.cqe.user_data for shown in view.cqes) == [1, 1, (1 << 64) - 1, (1 << 64) - 1]
    assert {shown.cqe.res for shown in view.cqes} == {0, -errno.EBADF}
    comparison = inspect.compare(plain)
    assert (comparison.agreed, comparison.differences) == (6 + 4 * 3, ())
    assert len(plain.completions()) == 4


def test_a_difference_is_told(plain: Ring) -> None:
    plain.sq.prep_nop(user_data=5)
    plain.sq.flush()
    plain.submit_and_wait(1, HANG_NS)
    view = inspect.fdinfo(plain)
    needs_queues(view)
    plain.completions()
    comparison = inspect.compare_views(inspect.state(plain), view)
    assert comparison.differences == ("CqHead is 1, and 0 to the kernel",)
    assert str(comparison) == "5 values agree, 1 differ\n  differs: CqHead is 1, and 0 to the kernel"


def test_a_ring_without_an_sq_array_says_what_is_not_shown() -> None:
    with Ring(4) as ring:
        needs("6.6", bool(ring.setup_flags & Setup.NO_SQARRAY))
        ring.sq.prep_nop(user_data=5)
        ring.sq.flush()
        comparison = inspect.compare(ring)
        if inspect.fdinfo(ring).sqes:  # later releases
            assert (comparison.differences, comparison.not_shown) == ((), ())
        else:
            assert comparison.not_shown == (
                "the SQEs: this kernel leaves them out of a ring without an SQ array (Setup.NO_SQARRAY)",
            )


def test_large_cqes_are_compared_as_far_as_they_are_shown() -> None:
    try:
        ring = Ring(8, Setup.CQE32, wanted_flags=0)
    except RingSetupError:
        needs("5.19", False)
        raise
    with ring:
        for user_data in range(3):
            ring.sq.prep_nop(user_data=user_data)
        ring.submit_and_wait(3, HANG_NS)
        comparison = inspect.compare(ring)
        assert comparison.differences == ()
        assert comparison.agreed == 6 + 3 * 4 or comparison.not_shown == (
            "the CQEs: this kernel miscounts those of a ring with Setup.CQE32",
        )


def test_both_see_the_same_sqes_of_two_sizes() -> None:
    try:
        ring = Ring(8, Setup.SQE_MIXED, wanted_flags=0)
    except RingSetupError:
        needs("6.19", False)
        raise
    with ring:
        ring.sq.prep_nop(user_data=1)
        ring.sq.prep_nop128(user_data=2)
        ring.sq.prep_nop(user_data=3)
        ring.sq.flush()
        assert [(sqe.slot, sqe.op) for sqe in inspect.fdinfo(ring).sqes][:2] == [(0, Op.NOP), (1, Op.NOP128)]
        comparison = inspect.compare(ring)
        assert comparison.differences == ()
        # Linux 7.3 goes one slot too far after an SQE of two, and shows slot 4.
        assert comparison.not_shown in ((), ("the SQE in slot 3, NOP",))
        assert "    1-2 # NOP128 user_data=0x2\n      3 # NOP user_data=0x3\n" in inspect.draw(ring)


def test_a_ring_that_rewinds_says_what_is_not_shown() -> None:
    try:
        ring = Ring(8, Setup.SQ_REWIND | Setup.NO_SQARRAY, wanted_flags=0)
    except RingSetupError:
        needs("7.0", False)
        raise
    with ring:
        ring.sq.prep_nop(user_data=1)
        assert "      0 + NOP user_data=0x1\n" in inspect.draw(ring)
        ring.submit_and_wait(1, HANG_NS)
        comparison = inspect.compare(ring)
        assert comparison.differences == () and "Setup.SQ_REWIND" in comparison.not_shown[0]


# --- the rest of the file


def test_what_is_registered_armed_and_overflowed(pipe: Pipe) -> None:
    with Ring(2, wanted_flags=0, cq_entries=2) as ring:
        buffer = bytearray(4096)
        ring.register_buffers([buffer])
        ring.file_table(3)
        ring.sq.prep_poll_add(pipe[0], 1, user_data=9)
        ring.submit()
        for user_data in (1, 2, 3, 4):
            ring.sq.prep_nop(user_data=user_data)
            ring.submit()
        view = inspect.fdinfo(ring)
        assert view.unknown == ()
        assert view.words["UserFiles"] == 3 and set(view.user_files.values()) <= {None}
        ((addr, nbytes),) = [place for place in view.user_bufs.values() if place]
        assert addr and nbytes == len(buffer)
        assert inspect.Armed(Op.POLL_ADD, False) in view.armed
        assert view.sq_thread is None
        needs_queues(view)
        assert [shown.cqe.user_data for shown in view.overflowed] == [3, 4]
        assert {shown.slot for shown in view.overflowed} == {None}


def test_the_sq_thread_has_a_pid() -> None:
    try:
        ring = Ring(4, Setup.SQPOLL)
    except RingSetupError as error:
        if error.errno == errno.EPERM:
            needs("5.13", False)
        raise
    with ring:
        view = inspect.fdinfo(ring.fileno())
        pid = view.sq_thread
        # A thread of this process since 5.12; -1 while the kernel could not take its lock.
        assert pid is None or pid in map(int, os.listdir("/proc/self/task"))


OLD = """\
pos:\t0
flags:\t02000002
SqThread:\t-1
SqThreadCpu:\t-1
UserFiles:\t2
    0: <none>
    1: eventpoll
UserBufs:\t1
    0: 0x7f0000001000/4096
Personalities:
    1
\tUid:\t0\t\t0\t\t0\t\t0
PollList:
  op=6, task_works=0
  op=200, task_works=1
"""
MIDDLE = """\
SqMask:\t\t0x7
SqHead:\t4294967295
SqTail:\t0
SQEs:\t1
    7: opcode:27, fd:-1, flags:11, user_data:18446744073709551615
CQEs:\t1
    3: user_data:5, res:-9, flag:8, extra1:1, extra2:2

CqOverflowList:
  user_data=5, res=-11, flags=50000
Something New:\twhole words
entirely unlike
      neither is this
SqTail2:\t0x
"""


def test_files_of_other_releases() -> None:
    old = inspect.parse_fdinfo(OLD)
    assert not old.shows_queues and old.words["flags"] == 0o2000002
    assert old.user_files == {0: None, 1: "eventpoll"} and old.user_bufs == {0: (0x7F00_0000_1000, 4096)}
    assert old.personalities == (1,)
    assert old.armed == (inspect.Armed(Op.POLL_ADD, False), inspect.Armed(200, True))
    assert old.unknown == ("\tUid:\t0\t\t0\t\t0\t\t0",)
    middle = inspect.parse_fdinfo(MIDDLE)
    (sqe,) = middle.sqes
    assert (sqe.slot, sqe.op, sqe.fields) == (7, Op.RECV, {"fd": -1, "flags": 0x11, "user_data": (1 << 64) - 1})
    assert middle.cqes == (inspect.ShownCqe(3, inspect.cqe(5, -9, 8, None, (1, 2))),)
    assert middle.overflowed == (inspect.ShownCqe(None, inspect.cqe(5, -11, 0x5_0000)),)
    assert middle.texts == {"Something New": "whole words", "SqTail2": "0x"}
    assert middle.unknown == ("entirely unlike", "      neither is this")


def test_no_text_stops_the_parser(plain: Ring) -> None:
    plain.sq.prep_nop()
    plain.submit()
    generator = random.Random(SEED)
    with open(f"/proc/self/fdinfo/{plain.fileno()}", encoding="utf-8") as file:
        whole = file.read() + OLD + MIDDLE
    for _ in range(200):
        text = list(whole)
        for _ in range(generator.randrange(1, 60)):
            text[generator.randrange(len(text))] = generator.choice("0x7f:= \n\tZ-,<é")
        view = inspect.parse_fdinfo("".join(text))
        str(view)
        str(inspect.compare_views(inspect.state(plain), view))


def test_a_ring_of_an_old_kernel_is_not_compared(plain: Ring) -> None:
    comparison = inspect.compare_views(inspect.state(plain), inspect.parse_fdinfo(OLD))
    assert comparison.agreed == 0 and "Linux 5.16" in comparison.not_shown[0]


# --- the fields that must be 0

# A request that the kernel refuses for another reason than EINVAL, or that does nothing.
HARMLESS: dict[abi.Op, dict[str, int]] = {
    Op.TIMEOUT: {"len": 1},
    Op.LINK_TIMEOUT: {"len": 1},
    Op.OPENAT2: {"len": 24},
    Op.EPOLL_CTL: {"len": 2},
    Op.FILES_UPDATE: {"len": 1},
    Op.PROVIDE_BUFFERS: {"fd": 1, "len": 1, "addr": 4096, "buf_group": 78},
    Op.REMOVE_BUFFERS: {"fd": 1, "buf_group": 77},
    Op.SOCKET: {"fd": 999},
    Op.READ_MULTISHOT: {"flags": abi.SqeFlag.BUFFER_SELECT},
    Op.WAITID: {"fd": (1 << 31) - 1, "len": 1, "file_index": 4},
    Op.FUTEX_WAIT: {"fd": abi.Futex2.SIZE_U32, "addr3": 1, "addr": 4},
    Op.FUTEX_WAKE: {"fd": abi.Futex2.SIZE_U32, "addr3": 1, "addr": 4},
    Op.FUTEX_WAITV: {"fd": 0, "len": 1},
    Op.FIXED_FD_INSTALL: {"flags": abi.SqeFlag.FIXED_FILE, "fd": 5},
    Op.EPOLL_WAIT: {"len": 1, "addr": 4096},
    Op.PIPE: {"fd": 0},
}
# OPENAT2 looks at what its address holds first; there is no zero-copy receive without the hardware.
UNSEEN = {Op.OPENAT2: ("buf_index",)}
UNTRIED = (Op.RECV_ZC, *WIDE)
# 6.18 came without a look at these, its later updates have it.
SEEN_SINCE_AN_UPDATE = {op: ("addr3", "__pad2") for op in (Op.TIMEOUT, Op.TIMEOUT_REMOVE, Op.LINK_TIMEOUT)}


@pytest.mark.parametrize("op", [op for op in Op if op not in UNTRIED], ids=lambda op: str(op.name))
def test_the_kernel_refuses_what_must_be_0(plain: Ring, op: abi.Op, has_mixed_cqes: bool) -> None:
    needs("6.18", has_mixed_cqes and plain.supports(op))

    tried = itertools.count(1)

    def result(**fields: int) -> int:
        number = next(tried)
        entry = {"opcode": int(op), "fd": -1, "user_data": number, **HARMLESS.get(op, {}), **fields}
        put(plain, bytes(abi.IO_URING_SQE.pack(**entry)))
        while True:
            plain.submit_and_wait(1, HANG_NS)
            batch = plain.completions()
            assert batch, "waited in vain"
            for user_data, res, cqe_flags in batch:
                # The notification of a zero-copy send may come late.
                if user_data == number and not cqe_flags & abi.CqeFlag.NOTIF:
                    return res

    assert result() != -errno.EINVAL
    for field in ARGUMENTS[op].zero:
        if field not in UNSEEN.get(op, ()):
            # -1 is an fd that a request for which it must be 0 takes for another number.
            refused = result(**{field: 3 if field == "fd" else 1}) == -errno.EINVAL
            assert refused or field in SEEN_SINCE_AN_UPDATE.get(op, ()), field
    named = {value.field for value in ARGUMENTS[op].values}
    for field in {"ioprio", "buf_index"} - named - set(ARGUMENTS[op].zero):
        if field == "ioprio" or "buf_group" not in named:
            assert result(**{field: 1}) != -errno.EINVAL, field
