"""Every SQE byte that every encoder writes, and the fixed form of the encoders' docstrings.

What is expected is the table in tools/sqe_cases.py, which tools/compare_liburing.py compares with
what C's liburing writes.
"""

from __future__ import annotations

import inspect
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from test_queues import FakeKernel

from rawuring import abi
from rawuring.errors import RawuringError, SubmissionQueueFullError
from rawuring.prep import base, waiting
from rawuring.sq import SubmissionQueue
from tools import sqe_cases
from tools.reference_parts.parity import HELPERS
from tools.sqe_cases import CASES, SHARED, Case, Value, expected, helpers

pytestmark = pytest.mark.portable

Op, SqeFlag = abi.Op, abi.SqeFlag

# Encoders beyond liburing's.
WITHOUT_HELPER = {"prep_nop_flags", "prep_recv_zc"}
# The page of liburing's manual where it is not that of the helper.
PAGES = {"prep_nop_flags": Op.NOP.man, "prep_recv_zc": Op.RECV_ZC.man, "prep_rw": "io_uring_enter(2)"}

PREPS: dict[str, Callable[..., None]] = {
    name: function for name, function in inspect.getmembers(SubmissionQueue) if name.startswith("prep_")
}
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=[f"{i:02} {case.name}" for i, case in enumerate(CASES)])
EVERY_PREP = pytest.mark.parametrize("name", PREPS)


def test_every_encoder_is_in_the_table() -> None:
    assert {case.name for case in CASES} == PREPS.keys()


def test_every_helper_of_liburing_has_an_encoder() -> None:
    assert len(HELPERS) == 105
    encoders = {name.removeprefix("sq.") for ours in HELPERS.values() for name in ours.names}
    assert encoders | WITHOUT_HELPER == PREPS.keys()
    for helper, ours in HELPERS.items():
        assert helper.removeprefix("io_uring_") not in PREPS or ours.names == (f"sq.{helper.removeprefix('io_uring_')}",)
    # Those without an encoder are in the table, too: their bytes are written by another.
    assert {helper for case in CASES for helper, _ in helpers(case)} == HELPERS.keys()


def test_every_operation_has_an_encoder() -> None:
    assert {case.fields["opcode"] for case in CASES} == set(Op)


def written(name: str, args: tuple[int, ...], keywords: Mapping[str, Value]) -> bytes:
    """The bytes of the SQE that a call writes over slots full of ones; what is around them must stay as it is."""
    kernel = FakeKernel(entries=4)
    sq = SubmissionQueue(kernel.memory(), mixed=True)
    kernel.sqes[:] = b"\xff" * len(kernel.sqes)
    before, at = sq.tail, (sq.tail & 3) * 64
    getattr(sq, name)(*args, **keywords)
    end = at + (sq.tail - before) * 64
    assert kernel.sqes[:at] + kernel.sqes[end:] == b"\xff" * (len(kernel.sqes) - (end - at))
    return bytes(kernel.sqes[at:end])


def options_of(case: Case) -> dict[str, tuple[str, Value]]:
    """The field and a value for every parameter that the case gives no argument for."""
    names = list(inspect.signature(PREPS[case.name]).parameters)[1 + len(case.args) :]
    return {name: {**SHARED, **case.options}[name] for name in names}


@EVERY_CASE
def test_every_byte_with_every_parameter(case: Case) -> None:
    options = options_of(case)
    values = [value for value in case.args if value not in (0, -1)] + [value for _, value in options.values()]
    assert len(set(values)) == len(values), "two parameters have the same value: they might be swapped"
    keywords = {name: value for name, (_, value) in options.items()}
    assert written(case.name, case.args, keywords).hex(" ", 4) == expected(case, options).hex(" ", 4)


@pytest.mark.pitfall("stale fields of a request have a meaning")
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
    for too_much in (-1, 1 << 32, 1 << 64):
        assert waiting.poll32_events(too_much) == too_much  # for the SQE to refuse
    monkeypatch.setattr(waiting, "_BIG_ENDIAN", False)
    assert waiting.poll32_events(0x0001_2003) == 0x0001_2003


def test_the_shapes_are_the_layouts_fields() -> None:
    """Each field of the general shape lies where struct io_uring_sqe has it."""
    names = "opcode flags ioprio fd off addr len rw_flags user_data buf_index personality file_index addr3".split()
    names.append("attr_type_mask")
    for i, name in enumerate(names):
        values = [0] * len(names)
        values[i] = 1
        assert base.SQE.pack(*values) == bytes(abi.IO_URING_SQE.pack(**{name: 1})), name


# --- requests of 128 bytes


def queue(entries: int, setup_flags: int, tail: int = 0) -> tuple[FakeKernel, SubmissionQueue]:
    """A queue whose next slot is that of `tail`."""
    kernel = FakeKernel(entries, setup_flags=abi.Setup.NO_SQARRAY | setup_flags, start=tail)
    kernel.sqes[:] = bytes(len(kernel.sqes))
    return kernel, SubmissionQueue(kernel.memory(), mixed=bool(setup_flags & abi.Setup.SQE_MIXED))


def slots(kernel: FakeKernel, first: int, count: int = 1) -> bytes:
    return bytes(kernel.sqes[first * 64 : (first + count) * 64])


def nop128(user_data: int, sqe_flags: int = 0) -> bytes:
    sqe = abi.IO_URING_SQE.pack(opcode=Op.NOP128, fd=-1, user_data=user_data, flags=sqe_flags)
    return bytes(sqe) + bytes(64)


def nop(user_data: int, sqe_flags: int = 0) -> bytes:
    return bytes(abi.IO_URING_SQE.pack(opcode=Op.NOP, fd=-1, user_data=user_data, flags=sqe_flags))


def filler(sqe_flags: int = 0) -> bytes:
    return nop(base.FILLER_USER_DATA, SqeFlag.CQE_SKIP_SUCCESS | sqe_flags)


def test_a_slot_of_an_sqe128_ring_holds_one() -> None:
    kernel, sq = queue(4, abi.Setup.SQE128)
    for user_data in range(4):
        sq.prep_nop128(user_data=user_data)
    with pytest.raises(SubmissionQueueFullError):
        sq.prep_nop128()
    assert sq.flush() == 4
    assert kernel.consume() == [nop128(user_data) for user_data in range(4)]


@pytest.mark.parametrize("case", [case for case in CASES if case.fields["opcode"] == Op.URING_CMD])
def test_a_command_fills_the_slot_of_an_sqe128_ring(case: Case) -> None:
    kernel, sq = queue(4, abi.Setup.SQE128)
    kernel.sqes[:] = b"\xff" * len(kernel.sqes)
    getattr(sq, case.name)(*case.args)
    assert bytes(kernel.sqes[:256]) == expected(case, {}) + bytes(64) + b"\xff" * 128


def test_a_command_of_an_sqe128_ring_has_80_bytes() -> None:
    kernel, sq = queue(4, abi.Setup.SQE128)
    sq.prep_uring_cmd(7, 3, sqe_cases.CMD80)
    assert kernel.sqes[48:128] == sqe_cases.CMD80
    with pytest.raises(RawuringError, match="81 bytes"):
        sq.prep_uring_cmd(7, 3, bytes(81))


def test_a_command_that_is_too_long_is_refused() -> None:
    kernel, sq = queue(4, abi.Setup.SQE_MIXED, tail=3)
    before = bytes(kernel.sqes)
    with pytest.raises(RawuringError, match="has room for 16; with 128 bytes it has 80"):
        sq.prep_uring_cmd(7, 3, bytes(17))
    with pytest.raises(RawuringError, match="room for 80$"):
        sq.prep_uring_cmd128(7, 3, bytes(81))
    with pytest.raises(struct.error):
        sq.prep_nop128(user_data=1 << 64)
    assert (sq.unpublished, bytes(kernel.sqes)) == (0, before)


def test_a_ring_of_64_byte_sqes_says_what_to_do() -> None:
    kernel, sq = queue(4, 0)
    for name, args in (("prep_nop128", ()), ("prep_uring_cmd128", (0, 0))):
        with pytest.raises(RawuringError, match=r"SQE_MIXED \(Linux 6\.19\) or Setup\.SQE128"):
            getattr(sq, name)(*args)
    assert sq.tail == 0


def test_two_slots_of_a_mixed_ring() -> None:
    kernel, sq = queue(8, abi.Setup.SQE_MIXED)
    sq.prep_nop(user_data=1)
    sq.prep_nop128(user_data=2)
    sq.prep_nop(user_data=3)
    assert (sq.tail, sq.ready, sq.space_left) == (4, 4, 4)
    assert slots(kernel, 0, 4) == nop(1) + nop128(2) + nop(3)
    assert sq.flush() == 4


def test_the_last_slot_of_a_mixed_ring_gets_a_filler() -> None:
    kernel, sq = queue(4, abi.Setup.SQE_MIXED, tail=3)
    sq.prep_nop128(user_data=1)
    assert (sq.tail, sq.ready) == (6, 3)
    assert slots(kernel, 3) == filler()
    assert slots(kernel, 0, 2) == nop128(1)
    sq.prep_nop(user_data=2)
    with pytest.raises(SubmissionQueueFullError):
        sq.prep_nop()


@pytest.mark.parametrize("link", [SqeFlag.IO_LINK, SqeFlag.IO_HARDLINK])
@pytest.mark.parametrize("wide", [False, True])
def test_a_chain_goes_on_through_the_filler(link: abi.SqeFlag, wide: bool) -> None:
    tail = 5 if wide else 6
    kernel, sq = queue(8, abi.Setup.SQE_MIXED, tail)
    if wide:
        # Its second half looks like an SQE with other flags.
        sq.prep_uring_cmd128(0, 0, bytes([0xFF]) * 80, sqe_flags=int(link))
    else:
        sq.prep_nop(sqe_flags=int(link))
    sq.prep_nop128(user_data=1)
    assert slots(kernel, 7) == filler(link)
    assert slots(kernel, 0, 2) == nop128(1)


def test_a_filler_links_nothing_by_itself() -> None:
    kernel, sq = queue(8, abi.Setup.SQE_MIXED, tail=5)
    sq.prep_uring_cmd128(0, 0, bytes([0xFF]) * 80)
    sq.prep_nop128(user_data=1)
    assert slots(kernel, 7) == filler()
    # On the next lap an SQE of 64 bytes ends where the wide one did.
    sq.flush()
    kernel.consume()
    for _ in range(4):
        sq.prep_nop()
    sq.flush()
    kernel.consume()
    sq.prep_nop(sqe_flags=int(SqeFlag.IO_LINK))
    sq.prep_nop128(user_data=2)
    assert slots(kernel, 7) == filler(SqeFlag.IO_LINK)


def test_a_filler_goes_on_with_the_chain_that_took_the_place_of_a_wide_one() -> None:
    kernel, sq = queue(8, abi.Setup.SQE_MIXED, tail=5)
    sq.prep_nop128()
    sq.discard_last()
    sq.prep_nop()
    sq.prep_nop(sqe_flags=int(SqeFlag.IO_LINK))
    sq.prep_nop128(user_data=1)
    assert slots(kernel, 7) == filler(SqeFlag.IO_LINK)


@pytest.mark.parametrize(("tail", "queued"), [(0, 3), (1, 3), (2, 3), (1, 2), (3, 3), (0, 4)])
def test_a_mixed_ring_without_room_for_two_stays_as_it_is(tail: int, queued: int) -> None:
    kernel, sq = queue(4, abi.Setup.SQE_MIXED, tail)
    for user_data in range(queued):
        sq.prep_nop(user_data=user_data)
    before, position = bytes(kernel.sqes), sq.tail
    for _ in range(2):
        with pytest.raises(SubmissionQueueFullError, match=r"submit\(\)"):
            sq.prep_nop128()
    assert (bytes(kernel.sqes), sq.tail) == (before, position)
    sq.flush()
    assert len(kernel.consume()) == queued
    sq.prep_nop128(user_data=9)
    sq.flush()
    assert kernel.consume()[-2:] == [nop128(9)[:64], bytes(64)]


def test_a_mixed_ring_looks_again_at_what_the_kernel_took() -> None:
    """One slot was free by the last look, and more are by now."""
    kernel, sq = queue(4, abi.Setup.SQE_MIXED)
    for user_data in range(4):
        sq.prep_nop(user_data=user_data)
    sq.flush()
    kernel.consume(1)
    assert sq.has_room()  # slot 0, by what is known now
    kernel.consume(1)
    sq.prep_nop128(user_data=4)
    assert slots(kernel, 0, 2) == nop128(4)


@pytest.mark.parametrize("tail", [0, 2, 3])
def test_what_was_written_last_is_taken_back_whole(tail: int) -> None:
    kernel, sq = queue(8, abi.Setup.SQE_MIXED, tail + 4)
    sq.prep_nop(user_data=1)
    sq.prep_nop128(user_data=7)
    sq.prep_nop128(user_data=8, sqe_flags=int(SqeFlag.IO_LINK))
    end = sq.tail
    assert sq.last_user_data() == 8
    sq.unlink_last()
    assert abi.IO_URING_SQE.get(kernel.sqes, "flags", ((end - 2) & 7) * 64) == 0
    sq.discard_last()
    assert (sq.tail, sq.last_user_data()) == (end - 2, base.FILLER_USER_DATA if tail == 0 else 7)


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
    op = next(case.fields["opcode"] for case in CASES if case.name == name)
    subject = "operation `op`" if name == "prep_rw" else Op(op).kernel_name
    assert re.match(rf"Queue (a multishot )?{subject}(?!\w).*[:.]", first) and not blank


@EVERY_CASE
def test_since_and_man(case: Case) -> None:
    found = SINCE.fullmatch(labels_of(case.name)["Since"])
    assert found, labels_of(case.name)["Since"]
    assert found[1] == case.since
    assert found[2].split(", ")[0] == PAGES.get(case.name, f"io_uring_{case.name}(3)")


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
        assert set(re.findall(r"[a-z_]\w*", quoted)) <= known.keys(), quoted


def test_the_table_is_printed() -> None:
    printed = subprocess.run([sys.executable, sqe_cases.__file__], capture_output=True, text=True, check=True).stdout
    assert len(printed.splitlines()) == len(CASES)
    name, *words = printed.splitlines()[0].split()
    assert name == CASES[0].name and bytes.fromhex("".join(words)) == expected(CASES[0], {})
