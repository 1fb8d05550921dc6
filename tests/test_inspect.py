"""SQEs and CQEs as values: the table of fields, the way there and back, what the texts say.

What meets a kernel is in test_inspect_kernel, the drawn ring in test_inspect_drawing.
"""

from __future__ import annotations

import dataclasses
import errno
import inspect as stdlib_inspect
import os
import random
import re
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import RunChild
from test_queues import FakeKernel

import rawuring
from rawuring import abi, inspect
from rawuring.abi.fields import ARGUMENTS, SHARED_FIELDS, Argument
from rawuring.errors import RawuringError
from rawuring.sq import SubmissionQueue

pytestmark = pytest.mark.portable

Op, SqeFlag, CqeFlag = abi.Op, abi.SqeFlag, abi.CqeFlag

SEED = 20_260_101
EVERY_OP = pytest.mark.parametrize("op", Op, ids=[op.name for op in Op])
FIELDS = abi.IO_URING_SQE.fields


def span(argument: Argument) -> range:
    place = argument.place
    return range(place.offset, place.offset + place.nbytes if place.nbytes else 128)


# --- the table


@EVERY_OP
def test_the_table_is_sound(op: abi.Op) -> None:
    values = ARGUMENTS[op].values
    names = [value.name for value in values]
    assert len(set(names)) == len(names), "pack() goes by the names"
    assert not {"op", "sqe_flags", "user_data", "personality"} & set(names)
    for value in values:
        assert not {value.field} & set(SHARED_FIELDS)
        if value.depends_on:
            kind = "SqeFlag" if value.depends_on == "sqe_flags" else values[names.index(value.depends_on)].kind
            known = [member for enum in kind.split("|") for member in getattr(abi, enum).__members__]
            assert set(value.members) <= set(known)
    for field in ARGUMENTS[op].zero:
        assert FIELDS[field].nbytes


@EVERY_OP
def test_values_that_share_bytes_have_conditions(op: abi.Op) -> None:
    """Of those that lie in the same bytes, only the last may come without a condition."""
    values = ARGUMENTS[op].values
    for i, value in enumerate(values):
        later = [other.name for other in values[i + 1 :] if set(span(value)) & set(span(other))]
        assert value.depends_on or not later or value.kind == "bytes", (value.name, later)


def test_the_table_has_every_operation() -> None:
    assert set(ARGUMENTS) == set(Op)


# --- there and back


def random_sqes(op: abi.Op, nbytes: int) -> Iterator[bytes]:
    """SQEs of an operation: with random bytes everywhere, and with most fields 0."""
    generator = random.Random(f"{SEED} {op.name} {nbytes}")
    for sparse in (False, True) * 5:
        entry = bytearray(generator.randbytes(nbytes))
        if sparse:
            for field in FIELDS.values():
                if field.nbytes and generator.random() < 0.5:
                    entry[field.offset : field.offset + field.nbytes] = bytes(field.nbytes)
        entry[0] = op
        yield bytes(entry)


@pytest.mark.parametrize("nbytes", [64, 128])
@EVERY_OP
def test_any_sqe_of_an_operation_comes_back(op: abi.Op, nbytes: int) -> None:
    for entry in random_sqes(op, nbytes):
        sqe = inspect.sqe(entry, nbytes=nbytes)
        assert (sqe.op, sqe.sqe_nbytes) == (op, nbytes)
        assert sqe.pack() == entry
        assert inspect.sqe(entry, nbytes=nbytes) == sqe and hash(inspect.sqe(entry, nbytes=nbytes)) == hash(sqe)
        assert str(sqe).startswith(op.name) and "\n" not in str(sqe)
        assert sqe.explain().startswith(op.kernel_name)


@EVERY_OP
def test_every_value_stands_for_its_own_bytes(op: abi.Op) -> None:
    """Changing one value changes its field and no other byte."""
    for entry in random_sqes(op, 64):
        sqe = inspect.sqe(entry)
        for argument in ARGUMENTS[op].values:
            old = sqe.values.get(argument.name)
            if argument.name not in sqe.values or isinstance(old, bytes):
                continue
            new = 0 if old else 1
            other = dataclasses.replace(sqe, values={**sqe.values, argument.name: new}).pack()
            changed = {i for i in range(64) if other[i] != entry[i]}
            assert changed and changed <= set(span(argument)), argument.name


def test_any_64_bytes_decode_and_come_back() -> None:
    generator = random.Random(SEED)
    unknown = 0
    for _ in range(600):
        entry = generator.randbytes(64)
        sqe = inspect.sqe(entry)
        assert sqe.pack() == entry
        assert str(sqe) and sqe.explain()
        assert all(FIELDS[name].nbytes for name in sqe.refused)
        unknown += not isinstance(sqe.op, Op)
    assert unknown


def test_an_sqe_is_found_at_its_offset() -> None:
    array = bytearray(3 * 64)
    array[64:128] = abi.IO_URING_SQE.pack(opcode=Op.LISTEN, fd=9, len=5)
    assert str(inspect.sqe(array, 64)) == "LISTEN fd=9 backlog=5 user_data=0"
    for offset in (-64, 130, 192):
        with pytest.raises(ValueError, match="no SQE of 64 bytes"):
            inspect.sqe(array, offset)
    with pytest.raises(ValueError, match="64 or 128 bytes, not 100"):
        inspect.sqe(array, 0, 100)


def test_values_are_checked_when_packed() -> None:
    sqe = inspect.sqe(abi.IO_URING_SQE.pack(opcode=Op.LISTEN))
    with pytest.raises(RawuringError, match="LISTEN has no 'addr': it has fd, backlog"):
        dataclasses.replace(sqe, values={"addr": 1}).pack()
    with pytest.raises(struct.error):
        dataclasses.replace(sqe, values={"backlog": 1 << 32}).pack()
    with pytest.raises(TypeError, match="is an int, not None"):
        dataclasses.replace(sqe, values={"backlog": None}).pack()
    command = inspect.sqe(abi.IO_URING_SQE.pack(opcode=Op.URING_CMD, cmd_op=0x4321))
    with pytest.raises(ValueError, match="takes 16 bytes, not 3"):
        dataclasses.replace(command, values={"cmd": b"abc"}).pack()


# --- what the encoders write

# prep_rw writes the fields of any operation, as struct io_uring_sqe has them.
ENCODERS = {
    name: method
    for name, method in stdlib_inspect.getmembers(SubmissionQueue)
    if name.startswith("prep_") and name != "prep_rw"
}
# Where the meaning of others hangs on it.
CHOSEN = {("prep_cmd_sock", "cmd_op"): abi.SocketOp.SETSOCKOPT}


def arguments_of(name: str) -> dict[str, Any]:
    """A different value for every parameter; flags have all their bits, so that every condition holds."""
    arguments: dict[str, Any] = {}
    for i, parameter in enumerate(list(stdlib_inspect.signature(ENCODERS[name]).parameters.values())[1:]):
        annotation = str(parameter.annotation)
        if parameter.name == "sqe_flags":
            continue
        if (name, parameter.name) in CHOSEN:
            arguments[parameter.name] = CHOSEN[name, parameter.name]
        elif parameter.name == "ioprio" or parameter.name.endswith("_flags"):
            arguments[parameter.name] = 0x7FFF
        elif "bytes" in annotation:
            arguments[parameter.name] = bytes(range(1, 17))
        elif "bool" in annotation:
            arguments[parameter.name] = True
        elif parameter.name == "personality":
            arguments[parameter.name] = 901
        else:
            arguments[parameter.name] = 0x4001 + i
    return arguments


def encoded(name: str, arguments: dict[str, Any]) -> list[bytes]:
    """The SQEs that an encoder writes, on a ring of 64-byte SQEs if it can."""
    for setup_flags in (abi.Setup.NO_SQARRAY, abi.Setup.NO_SQARRAY | abi.Setup.SQE128):
        kernel = FakeKernel(entries=4, setup_flags=setup_flags, start=0)
        sq = SubmissionQueue(kernel.memory())
        kernel.sqes[:] = bytes(len(kernel.sqes))
        try:
            getattr(sq, name)(**arguments)
        except RawuringError:
            continue
        size = kernel.sqe_nbytes
        return [bytes(kernel.sqes[i * size : (i + 1) * size]) for i in range(sq.tail)]
    raise AssertionError(f"{name} finds no room")


@pytest.mark.parametrize("name", ENCODERS)
def test_what_an_encoder_writes_is_read_back(name: str) -> None:
    arguments = arguments_of(name)
    (entry,) = encoded(name, arguments)
    sqe = inspect.sqe(entry, nbytes=len(entry))
    assert sqe.pack() == entry
    named = re.search(r"IORING_OP_\w+", stdlib_inspect.getdoc(ENCODERS[name]) or "")
    assert isinstance(sqe.op, Op) and named and sqe.op.kernel_name == named[0]
    # The fd that liburing writes where there is none is -1.
    assert dict(sqe.unused) in ({}, {"fd": -1}), "the table names no such value"
    found = {**sqe.values, "user_data": sqe.user_data, "personality": sqe.personality}
    for parameter, value in arguments.items():
        same = found.get(parameter)
        if isinstance(value, bytes):
            assert isinstance(same, bytes) and same.startswith(value), parameter
        elif parameter == "ioprio" or parameter.endswith("_flags"):
            # Those of a zero-copy send lie in ioprio.
            same = found["ioprio"] if parameter == "zc_flags" else same
            assert isinstance(same, int) and same & value == value, parameter
        else:
            assert value in found.values(), f"{parameter} is not in {sqe}"


# --- the texts


def text(**fields: int) -> str:
    return str(inspect.sqe(abi.IO_URING_SQE.pack(**fields)))


def test_texts_in_one_line() -> None:
    assert text(opcode=Op.NOP, fd=-1, user_data=7) == "NOP user_data=0x7"
    assert (
        text(opcode=Op.RECV, fd=7, addr=0x1000, len=64, msg_flags=socket.MSG_PEEK, ioprio=3, flags=SqeFlag.IO_LINK)
        == "RECV sockfd=7 addr=0x1000 nbytes=64 msg_flags=MSG_PEEK ioprio=POLL_FIRST|RECV_MULTISHOT"
        " sqe_flags=IO_LINK user_data=0"
    )
    assert (
        text(opcode=Op.RECV, fd=3, buf_group=5, flags=SqeFlag.BUFFER_SELECT | SqeFlag.FIXED_FILE, personality=2)
        == "RECV sockfd=slot 3 addr=0 nbytes=0 buf_group=5 sqe_flags=FIXED_FILE|BUFFER_SELECT personality=2 user_data=0"
    )
    assert (
        text(opcode=Op.SEND_ZC, fd=3, addr=16, len=2, ioprio=abi.RecvSend.VECTORIZED | abi.RecvSend.FIXED_BUF)
        == "SEND_ZC sockfd=3 iovecs_addr=0x10 nr_vecs=2 ioprio=FIXED_BUF|VECTORIZED user_data=0"
    )
    assert (
        text(opcode=Op.TIMEOUT, fd=-1, addr=0x20, len=1, off=4, timeout_flags=abi.Timeout.ABS)
        == "TIMEOUT ts_addr=0x20 timeout_flags=ABS count=4 user_data=0"
    )
    assert text(opcode=Op.TIMEOUT, fd=-1, addr=32, len=1, timeout_flags=abi.Timeout.IMMEDIATE_ARG) == (
        "TIMEOUT nanoseconds=32 timeout_flags=IMMEDIATE_ARG count=0 user_data=0"
    )
    assert text(opcode=Op.ACCEPT, fd=3, file_index=abi.FILE_INDEX_ALLOC, accept_flags=socket.SOCK_NONBLOCK) == (
        "ACCEPT fd=3 accept_flags=SOCK_NONBLOCK file_index=ALLOC user_data=0"
    )
    assert text(opcode=Op.CLOSE, file_index=6) == "CLOSE fd=0 file_index=slot 5 user_data=0"
    assert text(opcode=Op.OPENAT, fd=-100, addr=0x30, open_flags=os.O_RDWR | os.O_CREAT, len=0o644) == (
        "OPENAT dfd=AT_FDCWD path_addr=0x30 open_flags=O_RDWR|O_CREAT mode=0o644 user_data=0"
    )
    assert text(opcode=Op.SPLICE, fd=5, splice_fd_in=4, off=2**64 - 1, len=3, splice_flags=1 << 31 | 4) == (
        "SPLICE fd_in=4 off_in=0 fd_out=5 off_out=-1 nbytes=3"
        " splice_flags=SPLICE_F_MORE|SPLICE_F_FD_IN_FIXED user_data=0"
    )
    assert text(opcode=Op.MSG_RING, fd=5, addr=1, off=77, addr3=2, file_index=4) == (
        "MSG_RING fd=5 command=SEND_FD data=0x4d source_slot=2 file_index=slot 3 user_data=0"
    )
    assert text(opcode=Op.MSG_RING, fd=5, off=77, len=2**32 - 5, file_index=4, msg_ring_flags=2) == (
        "MSG_RING fd=5 command=DATA data=0x4d res=-5 msg_ring_flags=FLAGS_PASS cqe_flags=4 user_data=0"
    )
    assert text(opcode=Op.URING_CMD, fd=5, cmd_op=3, level=1, optname=2, optval=0x40, optlen=4) == (
        "URING_CMD fd=5 cmd_op=SETSOCKOPT level=1 optname=2 optlen=4 optval_addr=0x40 user_data=0"
    )
    assert text(opcode=Op.URING_CMD, fd=5, cmd_op=abi.BlockOp.DISCARD, addr=512, addr3=4096) == (
        "URING_CMD fd=5 cmd_op=DISCARD offset=512 nbytes=4096 user_data=0"
    )
    assert text(opcode=Op.SOCKET, fd=socket.AF_INET, off=socket.SOCK_STREAM | socket.SOCK_CLOEXEC) == (
        "SOCKET domain=AF_INET socktype=SOCK_STREAM|SOCK_CLOEXEC user_data=0"
    )
    assert text(opcode=Op.ASYNC_CANCEL, fd=7, len=Op.RECV, cancel_flags=abi.Cancel.FD | abi.Cancel.OP) == (
        "ASYNC_CANCEL target_user_data=0 cancel_flags=FD|OP opcode=RECV fd=7 user_data=0"
    )


def test_poll_masks_have_names() -> None:
    mask = select.POLLIN | select.POLLRDHUP
    swapped = struct.unpack("=I", struct.pack("=HH", mask, 0))[0]  # as poll32_events wants it on either byte order
    sqe = inspect.sqe(abi.IO_URING_SQE.pack(opcode=Op.POLL_ADD, fd=3, poll32_events=swapped, len=abi.Poll.ADD_MULTI))
    assert sqe["poll_mask"] == mask
    assert str(sqe) == "POLL_ADD fd=3 poll_mask=POLLIN|POLLRDHUP poll_flags=ADD_MULTI user_data=0"


def test_what_has_no_place_is_called_out() -> None:
    sqe = inspect.sqe(abi.IO_URING_SQE.pack(opcode=Op.LISTEN, fd=3, len=5, addr=9, ioprio=1, addr3=4))
    assert sqe.unused == {"ioprio": 1, "addr": 9, "addr3": 4}
    assert sqe.refused == ("ioprio", "addr")
    assert str(sqe) == "LISTEN fd=3 backlog=5 user_data=0 (must be 0: ioprio, addr; not used: addr3)"
    assert sqe.explain() == "\n".join([
        "IORING_OP_LISTEN, Linux 6.11, io_uring_prep_listen(3)",
        "  sqe_flags  0  (sqe.flags)",
        "  fd         3",
        "  backlog    5  (sqe.len)",
        "  user_data  0",
        "  addr3 is 4, which LISTEN does not use",
        "  ioprio must be 0: the kernel answers EINVAL",
        "  addr must be 0: the kernel answers EINVAL",
    ])  # fmt: skip
    assert text(opcode=Op.EPOLL_WAIT, fd=3, rw_flags=1) == (
        "EPOLL_WAIT fd=3 reserved_flags=1 user_data=0 (must be 0: rw_flags)"
    )


def test_unknown_operations_flags_and_values_are_numbers() -> None:
    assert text(opcode=200, fd=3, len=5, flags=0x81) == (
        "opcode 200 fd=slot 3 addr=0 len=5 sqe_flags=FIXED_FILE|0x80 user_data=0"
    )
    assert text(opcode=Op.SHUTDOWN, fd=3, len=9) == "SHUTDOWN fd=3 how=9 user_data=0"
    assert text(opcode=Op.FSYNC, fd=3, fsync_flags=6) == "FSYNC fd=3 fsync_flags=0x6 offset=0 nbytes=0 user_data=0"
    assert text(opcode=Op.URING_CMD, fd=3, cmd_op=0x4321, addr=1) == "URING_CMD fd=3 cmd_op=17185 addr=1 user_data=0"


def test_a_second_half_that_nothing_uses_is_kept() -> None:
    entry = bytes(abi.IO_URING_SQE.pack(opcode=Op.LISTEN)) + bytes(range(64))
    sqe = inspect.sqe(entry, nbytes=128)
    assert sqe.unused == {"second_half": bytes(range(64))}
    assert str(sqe).endswith("(not used: second_half)")
    command = bytes(abi.IO_URING_SQE.pack(opcode=Op.URING_CMD128, cmd_op=0x4321))[:48] + bytes(range(80))
    assert inspect.sqe(command, nbytes=128)["cmd"] == bytes(range(80))


# --- CQEs


def test_a_cqe_comes_back() -> None:
    generator = random.Random(SEED)
    for _ in range(400):
        entry = generator.randbytes(16)
        cqe = inspect.cqe_at(entry, op=generator.choice(list(Op)))
        assert cqe.pack() == entry and str(cqe) and cqe.meaning
        assert inspect.cqe(cqe.user_data, cqe.res, cqe.cqe_flags).pack() == entry
    big = generator.randbytes(48)
    cqe = inspect.cqe_at(big, 16, 32)
    assert cqe.big_cqe == struct.unpack_from("=QQ", big, 32) and cqe.pack() == big[16:]
    with pytest.raises(ValueError, match="16 or 32 bytes, not 24"):
        inspect.cqe_at(big, 0, 24)


def meaning(res: int, op: abi.Op | int | inspect.Sqe | None = None, cqe_flags: int = 0) -> str:
    return inspect.cqe(1, res, cqe_flags, op).meaning


def test_results_mean_what_the_operation_says() -> None:
    assert meaning(5) == "5" and meaning(5, 200) == "5"
    assert meaning(5, Op.RECV) == "5 bytes"
    assert meaning(0, Op.RECV) == "the peer closed"
    assert meaning(0, Op.READ) == "end of file"
    assert meaning(0, Op.SEND) == "0 bytes"
    assert meaning(0, Op.CLOSE) == "done"
    assert meaning(select.POLLIN | select.POLLHUP, Op.POLL_ADD) == "POLLIN|POLLHUP"
    assert meaning(3, Op.ASYNC_CANCEL) == "3 requests cancelled"
    assert meaning(9, Op.ACCEPT) == "fd 9, or a slot if the request named one"
    slots = {0: "fd 0", 4: "slot 3", abi.FILE_INDEX_ALLOC: "slot 0"}
    for file_index, expected in slots.items():
        assert meaning(0, inspect.sqe(abi.IO_URING_SQE.pack(opcode=Op.OPENAT, file_index=file_index))) == expected
    injected = inspect.sqe(abi.IO_URING_SQE.pack(opcode=Op.NOP, nop_flags=abi.Nop.INJECT_RESULT, len=77))
    assert meaning(77, injected) == "77, as the request had it"
    assert meaning(-errno.EAGAIN, Op.RECV) == f"-EAGAIN, {os.strerror(errno.EAGAIN)}"
    assert inspect.cqe(1, -errno.ECANCELED, 0).error == "ECANCELED"
    assert inspect.cqe(1, -99_999, 0).error == "99999" and inspect.cqe(1, 3, 0).error is None


@EVERY_OP
def test_every_result_has_a_meaning(op: abi.Op) -> None:
    assert meaning(0, op) and meaning(1, op) and meaning(-1, op).startswith("-EPERM")


def test_the_flags_of_a_cqe() -> None:
    cqe = inspect.cqe(7, 64, CqeFlag.BUFFER | CqeFlag.MORE | 300 << abi.CQE_BUFFER_SHIFT, Op.RECV)
    assert (cqe.buffer_id, cqe.more, cqe.flags) == (300, True, CqeFlag.BUFFER | CqeFlag.MORE)
    assert str(cqe) == "user_data=0x7 res=64 (64 bytes) cqe_flags=BUFFER|MORE buffer=300"
    plain = inspect.cqe(7, 0, 0x1234_0000)
    assert plain.buffer_id is None and str(plain) == "user_data=0x7 res=0 upper_flags=0x1234"
    assert meaning(0, cqe_flags=CqeFlag.SKIP) == "a filler, to be ignored"
    assert str(inspect.cqe(7, 0, CqeFlag.F_32, None, (1, 16))) == "user_data=0x7 res=0 cqe_flags=F_32 big_cqe=0x1,0x10"


def test_the_usage_report_of_a_zero_copy_send() -> None:
    sent, copied = inspect.cqe(7, 0, CqeFlag.NOTIF), inspect.cqe(7, -(1 << 31), CqeFlag.NOTIF)
    assert (sent.copied, copied.copied, inspect.cqe(7, 9, CqeFlag.MORE).copied) == (False, True, None)
    assert copied.error is None
    assert (sent.meaning, copied.meaning) == (
        "the kernel is done with the memory", "the kernel is done with the memory, the data was copied"
    )  # fmt: skip


# --- the module


def test_it_is_loaded_when_asked_for_and_hides_nothing(run_child: RunChild) -> None:
    run_child(
        """
        import sys
        import rawuring
        assert "rawuring.inspect" not in sys.modules and "rawuring.abi.fields" not in sys.modules
        assert rawuring.inspect.sqe(bytes(64)).name == "NOP"
        import inspect
        assert inspect.getmembers and inspect is not rawuring.inspect
        from rawuring import inspect
        assert inspect is rawuring.inspect
        from rawuring import *
        """
    )


def test_no_other_name_is_made_up() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'inspector'"):
        rawuring.inspector  # noqa: B018
