"""The kernel's own view of a ring, from /proc/self/fdinfo, beside ours.

May import abi, prep, ring and the modules of this folder.

What the file shows depends on the release. Before Linux 5.16 there are no queues in it; SQEs
come without most of their fields before 6.1, and not at all where there is no SQ array (seen up
to 6.18). Some releases miscount entries of two sizes: Linux 6.18 the CQEs of a ring with CQE32,
7.3 the SQEs that follow one of two slots. What is missing is told, and is no difference. Lines
that say nothing to the parser are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from .. import abi
from ..prep.base import U32
from ..ring import Ring
from .completions import Cqe
from .requests import SQE_NBYTES, Sqe
from .state import RingState, state

_SECTIONS: Final = ("SQEs", "CQEs", "UserFiles", "UserBufs", "Personalities", "PollList", "CqOverflowList")
_HEADING: Final = re.compile(r"(\S[^:]*):\s*(.*)")
_PAIR: Final = re.compile(r"(\w+)[:=](-?\w+)")
_NUMBERED: Final = re.compile(r"\s*(\d+):\s?(.*)")
_HEX_WITHOUT_0X: Final = ("flag", "flags")
_KERNEL_NAMES: Final = {"EPOLL": abi.Op.EPOLL_CTL}  # the one that is not the constant's
_EXTRA: Final = tuple(f"e{i}" for i in range(8))


@dataclass(frozen=True)
class ShownSqe:
    """An SQE as the kernel shows it: a slot, and those of its fields that this release prints."""

    slot: int
    opcode: str
    fields: Mapping[str, int] = field(hash=False)

    @property
    def op(self) -> abi.Op | None:
        """The operation; None if the kernel does not know the opcode."""
        if self.opcode.isdigit():  # before Linux 6.1
            return abi.Op(int(self.opcode)) if int(self.opcode) < len(abi.Op) else None
        return _KERNEL_NAMES.get(self.opcode) or abi.Op.__members__.get(self.opcode)


@dataclass(frozen=True)
class ShownCqe:
    """A CQE as the kernel shows it. `slot` is None for one that waits outside the full queue."""

    slot: int | None
    cqe: Cqe


@dataclass(frozen=True)
class Armed:
    """A request in flight that the kernel could cancel: a poll, or what waits as one."""

    op: abi.Op | int
    task_works: bool


@dataclass(frozen=True)
class KernelView:
    """/proc/self/fdinfo/<fd of a ring>, as values. What this release does not show is None or empty."""

    words: Mapping[str, int] = field(hash=False)
    """`SqHead`, `CqTail`, `SqThread`, `UserFiles`, ...: the numbers, under the kernel's names."""
    sqes: tuple[ShownSqe, ...] = ()
    cqes: tuple[ShownCqe, ...] = ()
    user_files: Mapping[int, str | None] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """Slot to name of the file, None for an empty one (later releases leave those out)."""
    user_bufs: Mapping[int, tuple[int, int] | None] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """Index to address and bytes of a registered buffer, None for an empty place."""
    personalities: tuple[int, ...] = ()
    armed: tuple[Armed, ...] = ()
    overflowed: tuple[ShownCqe, ...] = ()
    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """What follows other headings, such as `NAPI`."""
    unknown: tuple[str, ...] = ()
    """The lines that say nothing to the parser, credentials among them."""

    @property
    def shows_queues(self) -> bool:
        """Does this release show heads, tails and entries at all?"""
        return "SqTail" in self.words and "CqTail" in self.words

    @property
    def sq_thread(self) -> int | None:
        """The pid of the SQ thread; None without one (or while the kernel was busy)."""
        pid = self.words.get("SqThread", -1)
        return pid if pid > 0 else None


class _Parser:
    """Takes the file line by line. An entry belongs to the last heading."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.sqes: list[ShownSqe] = []
        self.cqes: list[ShownCqe] = []
        self.files: dict[int, str | None] = {}
        self.buffers: dict[int, tuple[int, int] | None] = {}
        self.personalities: list[int] = []
        self.armed: list[Armed] = []
        self.overflowed: list[ShownCqe] = []
        self.texts: dict[str, str] = {}
        self.unknown: list[str] = []
        self.section = ""

    def take(self, line: str) -> None:
        try:
            known = self._entry(line) if line[:1].isspace() else self._heading(line)
        except (ValueError, KeyError):
            known = False
        if not known:
            self.unknown.append(line)

    def _heading(self, line: str) -> bool:
        found = _HEADING.fullmatch(line)
        if found is None:
            return False
        name, text = found[1], found[2].strip()
        self.section = name if name in _SECTIONS else ""
        try:
            if text:
                # The flags of the fd are octal, as open(2) has them.
                self.words[name] = int(text, 8 if name == "flags" else 0)
        except ValueError:
            self.texts[name] = text
        return bool(text or self.section)

    def _entry(self, line: str) -> bool:
        if self.section == "PollList":
            pairs = _pairs(line)
            self.armed.append(Armed(_op(pairs["op"]), bool(pairs["task_works"])))
            return True
        if self.section == "CqOverflowList":
            self.overflowed.append(ShownCqe(None, _shown_cqe(_pairs(line))))
            return True
        if self.section == "Personalities" and line.strip().isdigit():
            self.personalities.append(int(line))
            return True
        numbered = _NUMBERED.fullmatch(line)
        if numbered is None:
            return False
        slot, text = int(numbered[1]), numbered[2]
        if self.section == "SQEs":
            opcode, _, rest = text.removeprefix("opcode:").partition(",")
            if not text.startswith("opcode:"):
                return False
            self.sqes.append(ShownSqe(slot, opcode, MappingProxyType(_pairs(rest))))
        elif self.section == "CQEs":
            self.cqes.append(ShownCqe(slot, _shown_cqe(_pairs(text))))
        elif self.section == "UserFiles":
            self.files[slot] = None if text == "<none>" else text
        elif self.section == "UserBufs":
            addr, _, nbytes = text.partition("/")
            self.buffers[slot] = None if text == "<none>" else (int(addr, 0), int(nbytes))
        else:
            return False
        return True


def _pairs(text: str) -> dict[str, int]:
    """`name:number` or `name=number`, several."""
    return {name: int(number, 16 if name in _HEX_WITHOUT_0X else 0) for name, number in _PAIR.findall(text)}


def _op(opcode: int) -> abi.Op | int:
    return abi.Op(opcode) if opcode < len(abi.Op) else opcode


def _shown_cqe(pairs: Mapping[str, int]) -> Cqe:
    # Linux calls it flag or flags, as the release goes.
    cqe_flags = pairs["flags"] if "flags" in pairs else pairs["flag"]
    big = (pairs["extra1"], pairs["extra2"]) if "extra1" in pairs else None
    return Cqe(pairs["user_data"], pairs["res"], cqe_flags, None, big)


def parse_fdinfo(text: str) -> KernelView:
    """The text of a ring's fdinfo as values. Nothing in it makes this fail."""
    parser = _Parser()
    for line in text.splitlines():
        if line.strip():
            parser.take(line)
    return KernelView(
        MappingProxyType(parser.words), tuple(parser.sqes), tuple(parser.cqes), MappingProxyType(parser.files),
        MappingProxyType(parser.buffers), tuple(parser.personalities), tuple(parser.armed),
        tuple(parser.overflowed), MappingProxyType(parser.texts), tuple(parser.unknown),
    )  # fmt: skip


def fdinfo(ring: Ring | int) -> KernelView:
    """What the kernel says of a ring, or of the ring with this fd. OSError where /proc is not mounted."""
    fd = ring if isinstance(ring, int) else ring.fileno()
    return parse_fdinfo(Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="utf-8", errors="replace"))


@dataclass(frozen=True)
class Comparison:
    """Where our decoding of a ring's memory and the kernel's differ."""

    agreed: int
    """How many words and fields both see alike."""
    differences: tuple[str, ...]
    not_shown: tuple[str, ...]
    """What the kernel leaves out, and why, as far as that is known."""

    def __str__(self) -> str:
        lines = [f"{self.agreed} values agree, {len(self.differences)} differ"]
        lines += [f"  differs: {text}" for text in self.differences]
        lines += [f"  not shown: {text}" for text in self.not_shown]
        return "\n".join(lines)


def compare(ring: Ring) -> Comparison:
    """Set what we decode from a ring's memory beside what the kernel says of it.

    The ring must be at rest: words and entries that move between the two looks differ.
    """
    return compare_views(state(ring), fdinfo(ring))


def compare_views(ours: RingState, theirs: KernelView) -> Comparison:
    """`compare`, of a state and a view that were taken before."""
    if not theirs.shows_queues:
        return Comparison(0, (), ("the queues: this kernel's fdinfo has none of them (Linux 5.16 has)",))
    alike = _Tally()
    words = {"SqMask": ours.sq_entries - 1, "CqMask": ours.cq_entries - 1}
    words |= {"CqHead": ours.cq_head, "CqTail": ours.cq_tail}
    if not ours.setup_flags & abi.Setup.SQ_REWIND:
        words |= {"SqHead": ours.sq_head, "SqTail": ours.sq_published}
    for name, value in words.items():
        alike.check(name, value & U32, theirs.words.get(name))
    not_shown = [*_compare_sqes(ours, theirs, alike), *_compare_cqes(ours, theirs, alike)]
    return Comparison(alike.agreed, tuple(alike.differences), tuple(not_shown))


class _Tally:
    def __init__(self) -> None:
        self.agreed = 0
        self.differences: list[str] = []

    def check(self, what: str, ours: object, theirs: object) -> None:
        if ours == theirs:
            self.agreed += 1
        else:
            self.differences.append(f"{what} is {ours}, and {theirs} to the kernel")


def _compare_sqes(ours: RingState, theirs: KernelView, alike: _Tally) -> list[str]:
    entries = list(ours.sqes(ours.sq_head, ours.sq_published))
    if ours.setup_flags & abi.Setup.SQ_REWIND:
        return ["the SQEs: the kernel does not know of them before they are submitted (Setup.SQ_REWIND)"]
    if entries and not theirs.sqes:
        if not ours.has_sq_array:
            return ["the SQEs: this kernel leaves them out of a ring without an SQ array (Setup.NO_SQARRAY)"]
        return ["the SQEs: this kernel leaves them out"]
    shown = {sqe.slot: sqe for sqe in theirs.sqes}
    not_shown = []
    for entry in entries:
        assert isinstance(entry.value, Sqe)
        found = shown.get(entry.slot)
        if found is None:
            not_shown.append(f"the SQE in slot {entry.slot}, {entry.value.name}")
            continue
        where = f"slot {entry.slot} of the SQ:"
        if found.op is None:
            not_shown.append(f"the name of {entry.value.name} in slot {entry.slot}: this kernel does not know it")
        else:
            alike.check(f"{where} the operation", entry.value.op, found.op)
        for name, value in _as_shown(entry.value).items():
            if name in found.fields:
                alike.check(f"{where} {name}", value, found.fields[name])
    return not_shown


def _as_shown(sqe: Sqe) -> dict[str, int]:
    """Every field of an SQE that some release prints, under the names there."""
    entry = sqe.pack()
    names = ("fd", "flags", "off", "addr", "rw_flags", "buf_index", "user_data")
    fields: dict[str, int] = {name: abi.IO_URING_SQE.get(entry, name) for name in names}
    fields.update(zip(_EXTRA, memoryview(entry[SQE_NBYTES:]).cast("Q")))
    return fields


def _compare_cqes(ours: RingState, theirs: KernelView, alike: _Tally) -> list[str]:
    entries = list(ours.cqes(ours.cq_head, ours.cq_tail))
    shown = {shown.slot: shown.cqe for shown in theirs.cqes}
    if ours.cqe_nbytes > abi.IO_URING_CQE.nbytes and len(shown) < len(entries):
        # Seen on Linux 6.18: it counts slots of 16 bytes there, and shows the CQEs of every other.
        return ["the CQEs: this kernel miscounts those of a ring with Setup.CQE32"]
    not_shown = []
    for entry in entries:
        assert isinstance(entry.value, Cqe)
        found = shown.get(entry.slot)
        if found is None:
            not_shown.append(f"the CQE in slot {entry.slot}")
            continue
        where = f"slot {entry.slot} of the CQ:"
        alike.check(f"{where} user_data", entry.value.user_data, found.user_data)
        alike.check(f"{where} res", entry.value.res, found.res)
        alike.check(f"{where} flags", entry.value.cqe_flags, found.cqe_flags)
        if entry.value.big_cqe is not None and found.big_cqe is not None:
            alike.check(f"{where} big_cqe", entry.value.big_cqe, found.big_cqe)
    return not_shown
