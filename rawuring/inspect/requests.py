"""An SQE as a value: decoded by the table in `abi.fields`, and packed again from what it says.

May import abi, errors and `values`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from .. import abi
from ..abi.fields import ARGUMENTS, SHARED_FIELDS, Argument
from ..errors import RawuringError
from .values import FieldValue, decoded, enum_names, has_member, raw, says_something, shown

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SQE_NBYTES: Final = abi.IO_URING_SQE.nbytes
_FIELDS: Final = abi.IO_URING_SQE.fields

# How what an operation does not use is named: each field before those that are parts of it.
_PLAIN: Final = (
    "ioprio", "fd", "off", "cmd_op", "__pad1", "addr", "level", "optname", "len", "rw_flags", "buf_index",
    "file_index", "addr_len", "__pad3", "addr3", "__pad2",
)  # fmt: skip
_SECOND_HALF: Final = "second_half"
_GENERIC: Final = tuple(
    Argument(name, name, "fd" if name == "fd" else "number", "", ())
    for name in ("ioprio", "fd", "off", "addr", "len", "rw_flags", "buf_index", "file_index", "addr3", "__pad2")
)
# Of these 0 is as telling as any other value.
_ALWAYS: Final = ("addr", "nbytes", "nr_vecs", "count", "nr")


@functools.cache
def _span(name: str, nbytes: int) -> range:
    """The bytes of a field in an SQE of `nbytes`."""
    if name == _SECOND_HALF:
        return range(SQE_NBYTES, nbytes)
    place = _FIELDS[name]
    return range(place.offset, place.offset + place.nbytes if place.nbytes else nbytes)


def _number(sqe: bytes, name: str) -> int:
    place = _FIELDS[name]
    number: int = place.codec.unpack_from(sqe, place.offset)[0]
    return number & (1 << place.nbytes * 8) - 1


def _arguments(op: abi.Op | int) -> tuple[Argument, ...]:
    return ARGUMENTS[op].values if isinstance(op, abi.Op) else _GENERIC


@dataclass(frozen=True)
class Sqe:
    """A request as its operation understands it. `inspect.sqe(buffer)` makes it, `pack()` is the way back.

    `values` are the operation's own, under the names of its encoder's parameters and in the order
    of `abi.fields.ARGUMENTS`; `sqe[name]` is one of them. `unused` are the fields that are not 0
    and mean nothing to this operation, under their names in struct io_uring_sqe.
    """

    op: abi.Op | int
    sqe_flags: abi.SqeFlag
    values: Mapping[str, FieldValue] = field(hash=False)
    user_data: int = 0
    personality: int = 0
    unused: Mapping[str, int | bytes] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    sqe_nbytes: int = SQE_NBYTES

    def __getitem__(self, name: str) -> FieldValue:
        return self.values[name]

    @property
    def name(self) -> str:
        """The operation's name, without the IORING_OP_."""
        return self.op.name if isinstance(self.op, abi.Op) else f"opcode {self.op}"

    @property
    def refused(self) -> tuple[str, ...]:
        """The fields of struct io_uring_sqe that make the kernel answer EINVAL since they are not 0."""
        if not isinstance(self.op, abi.Op):
            return ()
        sqe = self.pack()
        return tuple(name for name in ARGUMENTS[self.op].zero if _number(sqe, name))

    def pack(self) -> bytes:
        """The bytes in the SQ, 64 or 128."""
        sqe = bytearray(self.sqe_nbytes)
        put = abi.IO_URING_SQE.put
        put(sqe, "opcode", int(self.op))
        put(sqe, "flags", int(self.sqe_flags))
        put(sqe, "user_data", self.user_data)
        put(sqe, "personality", self.personality)
        arguments = {argument.name: argument for argument in _arguments(self.op)}
        for name, value in self.values.items():
            if name not in arguments:
                raise RawuringError(f"{self.name} has no {name!r}: it has {', '.join(arguments)}")
            _store(sqe, arguments[name].field, value, arguments[name].kind)
        for name, value in self.unused.items():
            _store(sqe, name, value, "number")
        return bytes(sqe)

    def __str__(self) -> str:
        """One line: what matters of the request."""
        words = [self.name, *(f"{argument.name}={text}" for argument, text in self._texts())]
        if self.sqe_flags:
            words.append(f"sqe_flags={enum_names(self.sqe_flags, abi.SqeFlag)}")
        if self.personality:
            words.append(f"personality={self.personality}")
        words.append(f"user_data={shown('user_data', self.user_data)}")
        complaint = self._complaint()
        return " ".join([*words, f"({complaint})"] if complaint else words)

    def explain(self) -> str:
        """Several lines: the operation, every value with its place in the SQE, and what is wrong with it."""
        op = self.op
        lines = [f"{op.kernel_name}, Linux {op.since}, {op.man}" if isinstance(op, abi.Op) else f"{self.name}: unknown"]
        rows = [("sqe_flags", "flags", enum_names(self.sqe_flags, abi.SqeFlag))]
        rows += [(argument.name, argument.field, text) for argument, text in self._texts(everything=True)]
        rows += [("user_data", "user_data", shown("user_data", self.user_data))]
        if self.personality:
            rows.append(("personality", "personality", str(self.personality)))
        width = max(len(name) for name, _, _ in rows)
        for name, place, text in rows:
            aside = f"  (sqe.{place})" if place != name else ""
            lines.append(f"  {name:{width}}  {text}{aside}")
        for name, value in self._ignored().items():
            kind = "bytes" if isinstance(value, bytes) else "number"
            lines.append(f"  {name} is {shown(kind, value)}, which {self.name} does not use")
        lines += [f"  {name} must be 0: the kernel answers EINVAL" for name in self.refused]
        return "\n".join(lines)

    def _texts(self, everything: bool = False) -> Iterator[tuple[Argument, str]]:
        """The operation's own values as text; without `everything` only those that say something."""
        arguments = {argument.name: argument for argument in _arguments(self.op)}
        for name, value in self.values.items():
            argument = arguments[name]
            kind = argument.kind
            if everything or name in _ALWAYS or says_something(kind, value):
                text = shown(kind, value)
                if kind == "fd" and self.sqe_flags & abi.SqeFlag.FIXED_FILE and argument.field == "fd":
                    text = f"slot {text}"
                yield argument, text

    def _ignored(self) -> dict[str, int | bytes]:
        """The unused fields that the kernel does not mind. An fd of -1 is how liburing writes that there is none."""
        refused = self.refused
        kept = {name: value for name, value in self.unused.items() if name not in refused}
        if kept.get("fd") == -1:
            del kept["fd"]
        return kept

    def _complaint(self) -> str:
        parts = {"must be 0": self.refused, "not used": tuple(self._ignored())}
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def _store(sqe: bytearray, name: str, value: FieldValue, kind: str) -> None:
    span = _span(name, len(sqe))
    if isinstance(value, bytes):
        if len(value) != len(span):
            raise ValueError(f"{name} of an SQE of {len(sqe)} bytes takes {len(span)} bytes, not {len(value)}")
        sqe[span.start : span.stop] = value
        return
    place = _FIELDS[name]
    number = raw(kind, value, place.nbytes)
    if place.signed and number >> place.nbytes * 8 - 1:
        number -= 1 << place.nbytes * 8
    place.codec.pack_into(sqe, place.offset, number)


def sqe(buffer: ReadableBuffer, offset: int = 0, nbytes: int = SQE_NBYTES) -> Sqe:
    """Decode the SQE of `nbytes` (64, or 128 with Setup.SQE128 or of a 128-byte operation) at `offset`.

    Any bytes decode, valid or not, and `pack()` gives them back.
    """
    if nbytes not in (SQE_NBYTES, 2 * SQE_NBYTES):
        raise ValueError(f"an SQE has 64 or 128 bytes, not {nbytes}")
    entry = bytes(memoryview(buffer).cast("B")[offset : offset + nbytes])
    if len(entry) != nbytes:
        raise ValueError(f"no SQE of {nbytes} bytes at offset {offset}")
    opcode = entry[_FIELDS["opcode"].offset]
    op = abi.Op(opcode) if opcode < len(abi.Op) else opcode
    sqe_flags = abi.SqeFlag(entry[_FIELDS["flags"].offset])
    values, unclaimed = _own_values(op, sqe_flags, entry)
    return Sqe(
        op, sqe_flags, MappingProxyType(values), _number(entry, "user_data"), _number(entry, "personality"),
        MappingProxyType(_unused(entry, unclaimed)), nbytes,
    )  # fmt: skip


def _own_values(op: abi.Op | int, sqe_flags: abi.SqeFlag, entry: bytes) -> tuple[dict[str, FieldValue], set[int]]:
    """The values of an operation, and the bytes that none of them lies in."""
    unclaimed = set(range(len(entry)))
    for name in SHARED_FIELDS:
        unclaimed.difference_update(_span(name, len(entry)))
    arguments = _arguments(op)
    sources = {argument.name: argument for argument in arguments}
    values: dict[str, FieldValue] = {}
    for argument in arguments:
        span = _span(argument.field, len(entry))
        if argument.depends_on == "sqe_flags":
            meant = has_member("SqeFlag", sqe_flags, argument.members)
        elif argument.depends_on:
            source = sources[argument.depends_on]
            value = decoded(source.kind, _number(entry, source.field), source.place.nbytes)
            meant = has_member(source.kind, value, argument.members)
        else:
            meant = True
        if not meant or not unclaimed.issuperset(span):
            continue
        unclaimed.difference_update(span)
        if argument.kind == "bytes":
            values[argument.name] = entry[span.start : span.stop]
        else:
            values[argument.name] = decoded(argument.kind, _number(entry, argument.field), len(span))
    return values, unclaimed


def _unused(entry: bytes, unclaimed: set[int]) -> dict[str, int | bytes]:
    unused: dict[str, int | bytes] = {}
    for name in _PLAIN:
        span = _span(name, len(entry))
        if unclaimed.issuperset(span):
            unclaimed.difference_update(span)
            number = _number(entry, name)
            if number:
                unused[name] = -1 if name == "fd" and number == 0xFFFF_FFFF else number
    rest = entry[SQE_NBYTES:]
    if len(entry) > SQE_NBYTES and SQE_NBYTES in unclaimed and any(rest):
        unused[_SECOND_HALF] = rest
    return unused
