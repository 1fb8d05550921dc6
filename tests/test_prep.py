"""Every SQE byte that every encoder writes, and the fixed form of the encoders' docstrings.

What is expected is built from the layout of struct io_uring_sqe and the semantics of liburing's
io_uring_prep_* functions, never from the encoders' own constants.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from test_queues import FakeKernel

from rawuring import abi
from rawuring.prep import base, waiting
from rawuring.sq import SubmissionQueue

Op, SqeFlag = abi.Op, abi.SqeFlag

# One value for each kind of field, with different bytes everywhere. None of them has a bit that an
# encoder adds (MULTISHOT, BUFFER_SELECT, CANCEL_FD, TIMEOUT_UPDATE), so a missing one shows.
FD = 0x0102_0304
OFF = 0x1112_1314_1516_1718
ADDR = 0x2122_2324_2526_2728
LEN = 0x3132_3334
OP_FLAGS = 0x4144_4548
USER_DATA = 0x5152_5354_5556_5758
SQE_FLAGS = 0x51
IOPRIO = 0x6164
BUF = 0x7172
PERSONALITY = 0x8182
SLOT = 0x9192_9394
MASK = 0xA1A2_A3A4
MASK_IN_SQE = MASK if sys.byteorder == "little" else 0xA3A4_A1A2  # poll32_events of io_uring.h

# The parameters that mean the same in every encoder that has them: their field, and a value.
SHARED = {
    "user_data": ("user_data", USER_DATA),
    "sqe_flags": ("flags", SQE_FLAGS),
    "ioprio": ("ioprio", IOPRIO),
    "buf_group": ("buf_group", BUF),
    "personality": ("personality", PERSONALITY),
    "rw_flags": ("rw_flags", OP_FLAGS),
}


class Case(NamedTuple):
    """A call with its own arguments, and the fields it fills; more fields by each parameter with a default."""

    name: str
    since: str
    args: tuple[int, ...]
    fields: dict[str, int]
    options: dict[str, tuple[str, int]] = {}  # parameter: its field, a value


ACCEPT = {"opcode": Op.ACCEPT, "fd": FD, "addr": ADDR, "off": OFF, "accept_flags": OP_FLAGS}
OPENAT = {"opcode": Op.OPENAT, "fd": FD, "addr": ADDR, "open_flags": OP_FLAGS, "len": LEN}
ALLOC = abi.FILE_INDEX_ALLOC
ACCEPT_MULTISHOT, RECV_MULTISHOT = abi.Accept.MULTISHOT, abi.RecvSend.RECV_MULTISHOT

CASES = [
    # waiting
    Case("prep_nop", Op.NOP.since, (), {"opcode": Op.NOP, "fd": -1}),
    Case("prep_nop_flags", abi.Nop.INJECT_RESULT.since, (OP_FLAGS,),
         {"opcode": Op.NOP, "fd": -1, "nop_flags": OP_FLAGS},
         {"res": ("len", LEN), "fd": ("fd", FD), "buf_index": ("buf_index", BUF)}),
    Case("prep_poll_add", Op.POLL_ADD.since, (FD, MASK),
         {"opcode": Op.POLL_ADD, "fd": FD, "poll32_events": MASK_IN_SQE}, {"poll_flags": ("len", LEN)}),
    Case("prep_poll_multishot", abi.Poll.ADD_MULTI.since, (FD, MASK),
         {"opcode": Op.POLL_ADD, "fd": FD, "poll32_events": MASK_IN_SQE, "len": abi.Poll.ADD_MULTI}),
    Case("prep_poll_remove", Op.POLL_REMOVE.since, (ADDR,), {"opcode": Op.POLL_REMOVE, "fd": -1, "addr": ADDR}),
    Case("prep_poll_update", abi.Poll.UPDATE_EVENTS.since, (ADDR, OFF, MASK, LEN),
         {"opcode": Op.POLL_REMOVE, "fd": -1, "addr": ADDR, "off": OFF, "len": LEN, "poll32_events": MASK_IN_SQE}),
    Case("prep_timeout", Op.TIMEOUT.since, (ADDR, OFF, OP_FLAGS),
         {"opcode": Op.TIMEOUT, "fd": -1, "addr": ADDR, "len": 1, "off": OFF, "timeout_flags": OP_FLAGS}),
    Case("prep_timeout_remove", Op.TIMEOUT_REMOVE.since, (ADDR, OP_FLAGS),
         {"opcode": Op.TIMEOUT_REMOVE, "fd": -1, "addr": ADDR, "timeout_flags": OP_FLAGS}),
    Case("prep_timeout_update", abi.Timeout.UPDATE.since, (OFF, ADDR, OP_FLAGS),
         {"opcode": Op.TIMEOUT_REMOVE, "fd": -1, "addr2": OFF, "addr": ADDR,
          "timeout_flags": OP_FLAGS | abi.Timeout.UPDATE}),
    Case("prep_link_timeout", Op.LINK_TIMEOUT.since, (ADDR, OP_FLAGS),
         {"opcode": Op.LINK_TIMEOUT, "fd": -1, "addr": ADDR, "len": 1, "timeout_flags": OP_FLAGS}),
    Case("prep_cancel", Op.ASYNC_CANCEL.since, (ADDR, OP_FLAGS),
         {"opcode": Op.ASYNC_CANCEL, "fd": -1, "addr": ADDR, "cancel_flags": OP_FLAGS}, {"opcode": ("len", LEN)}),
    Case("prep_cancel_fd", abi.Cancel.FD.since, (FD, OP_FLAGS),
         {"opcode": Op.ASYNC_CANCEL, "fd": FD, "cancel_flags": OP_FLAGS | abi.Cancel.FD},
         {"opcode": ("len", LEN), "target_user_data": ("addr", ADDR)}),
    # files
    Case("prep_read", Op.READ.since, (FD, ADDR, LEN, OFF),
         {"opcode": Op.READ, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF}),
    Case("prep_read", Op.READ.since, (FD, ADDR, LEN, -1),
         {"opcode": Op.READ, "fd": FD, "addr": ADDR, "len": LEN, "off": abi.CURRENT_POSITION}),
    Case("prep_write", Op.WRITE.since, (FD, ADDR, LEN, OFF),
         {"opcode": Op.WRITE, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF}),
    Case("prep_read_fixed", Op.READ_FIXED.since, (FD, ADDR, LEN, OFF, BUF),
         {"opcode": Op.READ_FIXED, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF, "buf_index": BUF}),
    Case("prep_write_fixed", Op.WRITE_FIXED.since, (FD, ADDR, LEN, OFF, BUF),
         {"opcode": Op.WRITE_FIXED, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF, "buf_index": BUF}),
    Case("prep_readv", Op.READV.since, (FD, ADDR, LEN, OFF),
         {"opcode": Op.READV, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF}),
    Case("prep_writev", Op.WRITEV.since, (FD, ADDR, LEN, OFF),
         {"opcode": Op.WRITEV, "fd": FD, "addr": ADDR, "len": LEN, "off": OFF}),
    Case("prep_fsync", Op.FSYNC.since, (FD, OP_FLAGS),
         {"opcode": Op.FSYNC, "fd": FD, "fsync_flags": OP_FLAGS}, {"offset": ("off", OFF), "nbytes": ("len", LEN)}),
    Case("prep_openat", Op.OPENAT.since, (FD, ADDR, OP_FLAGS, LEN), OPENAT),
    Case("prep_openat_direct", "5.15", (FD, ADDR, OP_FLAGS, LEN, SLOT), {**OPENAT, "file_index": SLOT + 1}),
    Case("prep_openat_direct", "5.15", (FD, ADDR, OP_FLAGS, LEN, 0), {**OPENAT, "file_index": 1}),
    Case("prep_openat_direct", "5.15", (FD, ADDR, OP_FLAGS, LEN, ALLOC), {**OPENAT, "file_index": ALLOC}),
    Case("prep_close", Op.CLOSE.since, (FD,), {"opcode": Op.CLOSE, "fd": FD}),
    Case("prep_close_direct", "5.15", (SLOT,), {"opcode": Op.CLOSE, "file_index": SLOT + 1}),
    # sockets
    Case("prep_send", Op.SEND.since, (FD, ADDR, LEN, OP_FLAGS),
         {"opcode": Op.SEND, "fd": FD, "addr": ADDR, "len": LEN, "msg_flags": OP_FLAGS}),
    Case("prep_recv", Op.RECV.since, (FD, ADDR, LEN, OP_FLAGS),
         {"opcode": Op.RECV, "fd": FD, "addr": ADDR, "len": LEN, "msg_flags": OP_FLAGS}),
    Case("prep_recv_multishot", RECV_MULTISHOT.since, (FD, ADDR, LEN, OP_FLAGS),
         {"opcode": Op.RECV, "fd": FD, "addr": ADDR, "len": LEN, "msg_flags": OP_FLAGS,
          "ioprio": RECV_MULTISHOT, "flags": SqeFlag.BUFFER_SELECT}),
    Case("prep_sendmsg", Op.SENDMSG.since, (FD, ADDR, OP_FLAGS),
         {"opcode": Op.SENDMSG, "fd": FD, "addr": ADDR, "len": 1, "msg_flags": OP_FLAGS}),
    Case("prep_recvmsg", Op.RECVMSG.since, (FD, ADDR, OP_FLAGS),
         {"opcode": Op.RECVMSG, "fd": FD, "addr": ADDR, "len": 1, "msg_flags": OP_FLAGS}),
    Case("prep_accept", Op.ACCEPT.since, (FD, ADDR, OFF, OP_FLAGS), ACCEPT),
    Case("prep_accept_direct", "5.15", (FD, ADDR, OFF, OP_FLAGS, SLOT), {**ACCEPT, "file_index": SLOT + 1}),
    Case("prep_accept_direct", "5.15", (FD, ADDR, OFF, OP_FLAGS, ALLOC), {**ACCEPT, "file_index": ALLOC}),
    Case("prep_multishot_accept", ACCEPT_MULTISHOT.since, (FD, ADDR, OFF, OP_FLAGS),
         {**ACCEPT, "ioprio": ACCEPT_MULTISHOT}),
    Case("prep_multishot_accept_direct", ACCEPT_MULTISHOT.since, (FD, ADDR, OFF, OP_FLAGS),
         {**ACCEPT, "ioprio": ACCEPT_MULTISHOT, "file_index": ALLOC}),
    Case("prep_connect", Op.CONNECT.since, (FD, ADDR, OFF),
         {"opcode": Op.CONNECT, "fd": FD, "addr": ADDR, "off": OFF}),
    Case("prep_shutdown", Op.SHUTDOWN.since, (FD, LEN), {"opcode": Op.SHUTDOWN, "fd": FD, "len": LEN}),
    # buffers
    Case("prep_provide_buffers", Op.PROVIDE_BUFFERS.since, (ADDR, LEN, FD, BUF, OFF),
         {"opcode": Op.PROVIDE_BUFFERS, "addr": ADDR, "len": LEN, "fd": FD, "buf_group": BUF, "off": OFF}),
    Case("prep_remove_buffers", Op.REMOVE_BUFFERS.since, (FD, BUF),
         {"opcode": Op.REMOVE_BUFFERS, "fd": FD, "buf_group": BUF}),
]  # fmt: skip

PREPS: dict[str, Callable[..., None]] = {
    name: function for name, function in inspect.getmembers(SubmissionQueue) if name.startswith("prep_")
}
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=[f"{i:02} {case.name}" for i, case in enumerate(CASES)])
EVERY_PREP = pytest.mark.parametrize("name", PREPS)


def test_every_encoder_is_in_the_table() -> None:
    assert {case.name for case in CASES} == PREPS.keys()


def written(name: str, args: tuple[int, ...], keywords: dict[str, int]) -> bytes:
    """The bytes of the SQE that a call writes over a slot full of ones; both neighbours must stay as they are."""
    kernel = FakeKernel(entries=4)
    sq = SubmissionQueue(kernel.memory())
    kernel.sqes[:] = b"\xff" * len(kernel.sqes)
    at = (sq.tail & 3) * 64
    getattr(sq, name)(*args, **keywords)
    assert kernel.sqes[:at] + kernel.sqes[at + 64 :] == b"\xff" * (len(kernel.sqes) - 64)
    return bytes(kernel.sqes[at : at + 64])


def options_of(case: Case) -> dict[str, tuple[str, int]]:
    """The field and a value for every parameter that the case gives no argument for."""
    names = list(inspect.signature(PREPS[case.name]).parameters)[1 + len(case.args) :]
    return {name: {**SHARED, **case.options}[name] for name in names}


def expected(case: Case, options: dict[str, tuple[str, int]]) -> bytes:
    fields = dict(case.fields)
    for field, value in options.values():
        # Bits of the caller's come beside those that make the request what it is.
        fields[field] = fields.get(field, 0) | value if field in ("ioprio", "flags") else value
    return bytes(abi.IO_URING_SQE.pack(**{field: int(value) for field, value in fields.items()}))


@EVERY_CASE
def test_every_byte_with_every_parameter(case: Case) -> None:
    options = options_of(case)
    values = [value for value in case.args if value not in (0, -1)] + [value for _, value in options.values()]
    assert len(set(values)) == len(values), "two parameters have the same value: they might be swapped"
    keywords = {name: value for name, (_, value) in options.items()}
    assert written(case.name, case.args, keywords).hex(" ", 4) == expected(case, options).hex(" ", 4)


@EVERY_CASE
def test_every_byte_with_the_defaults(case: Case) -> None:
    parameters = inspect.signature(PREPS[case.name]).parameters
    options = {name: to for name, to in options_of(case).items() if parameters[name].default is inspect.Parameter.empty}
    keywords = {name: value for name, (_, value) in options.items()}
    assert written(case.name, case.args, keywords).hex(" ", 4) == expected(case, options).hex(" ", 4)


@EVERY_CASE
def test_each_parameter_alone(case: Case) -> None:
    """A fast path that some combination of defaults takes must write the same as the general one."""
    parameters = inspect.signature(PREPS[case.name]).parameters
    options = options_of(case)
    required = {name: to for name, to in options.items() if parameters[name].default is inspect.Parameter.empty}
    for name in options.keys() - required.keys():
        chosen = {**required, name: options[name]}
        keywords = {name: value for name, (_, value) in chosen.items()}
        assert written(case.name, case.args, keywords).hex(" ", 4) == expected(case, chosen).hex(" ", 4), name


@EVERY_PREP
def test_user_data_and_sqe_flags_are_keywords_of_every_encoder(name: str) -> None:
    parameters = inspect.signature(PREPS[name]).parameters
    for shared in ("user_data", "sqe_flags"):
        assert (parameters[shared].kind, parameters[shared].default) == (inspect.Parameter.KEYWORD_ONLY, 0)
    assert "flags" not in parameters


@pytest.mark.parametrize("res", [0, 1, -1, -125, 0x7FFF_FFFF, -0x8000_0000])
def test_a_nop_takes_any_result(res: int) -> None:
    sqe = written("prep_nop_flags", (1,), {"res": res})
    assert abi.IO_URING_SQE.get(sqe, "len") == res & 0xFFFF_FFFF


def test_user_data_has_all_its_bits() -> None:
    for user_data in (0, 1, 1 << 63, (1 << 64) - 1):
        assert abi.IO_URING_SQE.get(written("prep_nop", (), {"user_data": user_data}), "user_data") == user_data


def test_poll_events_on_big_endian_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_BIG_ENDIAN", True)
    assert waiting.poll32_events(0x0001_2003) == 0x2003_0001
    assert waiting.poll32_events(1) == 0x0001_0000
    monkeypatch.setattr(waiting, "_BIG_ENDIAN", False)
    assert waiting.poll32_events(0x0001_2003) == 0x0001_2003


def test_the_shapes_are_the_layouts_fields() -> None:
    """Each field of the general shape lies where struct io_uring_sqe has it."""
    names = "opcode flags ioprio fd off addr len rw_flags user_data buf_index personality file_index addr3".split()
    for i, name in enumerate(names):
        values = [0] * len(names)
        values[i] = 1
        assert base.SQE.pack(*values) == bytes(abi.IO_URING_SQE.pack(**{name: 1})), name


# --- the docstrings: a reference is made from their labels

LABEL = re.compile(r"(Since|Memory|CQE res|CQE flags|Limit) ")
SINCE = re.compile(r"Linux (\d+\.\d+)(?: \([^)]*\))? +Man   ([a-z0-9_]+\(\d\)(?:, [a-z0-9_]+\(\d\))*)")
LIFETIMES = {"submit", "completion", "final", "notif", "registered", "none"}


def labels_of(name: str) -> dict[str, str]:
    """The labels of an encoder's docstring and their texts, which may go on in indented lines."""
    labels: dict[str, str] = {}
    last = ""
    for line in inspect.getdoc(PREPS[name]).splitlines():  # type: ignore[union-attr]
        label = line[:11].rstrip()
        if LABEL.match(line):
            assert label not in labels and line[10] == " ", f"{name}: {line!r}"
            last = label
            labels[last] = line[11:]
        elif last:
            assert line.startswith(" " * 11), f"{name}: after the labels comes {line!r}"
            labels[last] += " " + line.strip()
    return labels


@EVERY_PREP
def test_the_labels_and_their_order(name: str) -> None:
    labels = list(labels_of(name))
    assert labels in (["Since", "Memory", "CQE res", "CQE flags"], ["Since", "Memory", "CQE res", "CQE flags", "Limit"])


@EVERY_PREP
def test_the_first_line_names_the_opcode(name: str) -> None:
    first, blank = (inspect.getdoc(PREPS[name]) + "\n").split("\n")[:2]  # type: ignore[operator]
    op = next(Op(case.fields["opcode"]) for case in CASES if case.name == name)
    assert re.match(rf"Queue (a multishot )?{op.kernel_name}\b.*[:.]", first) and not blank


@EVERY_CASE
def test_since_and_man(case: Case) -> None:
    found = SINCE.fullmatch(labels_of(case.name)["Since"])
    assert found, labels_of(case.name)["Since"]
    assert found[1] == case.since
    # The flags of a NOP have no helper, and so no page, of their own.
    assert found[2].split(", ")[0] == f"io_uring_{case.name.removesuffix('_flags')}(3)"


@EVERY_PREP
def test_memory_says_for_how_long(name: str) -> None:
    text = labels_of(name)["Memory"]
    for part in text.split(";"):
        assert re.split(r"\W", part.strip(), maxsplit=1)[0] in LIFETIMES, text


@EVERY_PREP
def test_every_text_says_something(name: str) -> None:
    assert all(text.strip() for text in labels_of(name).values())


@EVERY_PREP
def test_the_docstring_speaks_of_its_parameters(name: str) -> None:
    """What is in backquotes exists: a parameter, an expression of parameters, or another name of ours."""
    known: dict[str, Any] = dict.fromkeys(inspect.signature(PREPS[name]).parameters)
    for quoted in re.findall(r"`([^`]+)`", inspect.getdoc(PREPS[name]) or ""):
        if quoted in PREPS or quoted.startswith(("Ring.", "-")):
            continue
        assert set(re.findall(r"[a-z_]+", quoted)) <= known.keys(), quoted
