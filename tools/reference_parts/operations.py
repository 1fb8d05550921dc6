"""The part on operations: for each its fields, its encoders, its owned methods.

Imports rawuring.abi and its neighbours. What an operation is to its fields comes from
`rawuring.abi.fields`, everything else from docstrings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from operator import itemgetter

from rawuring.abi import Op, fields

from . import sources
from .markdown import code, link, paragraph, program, table, text, without_empty
from .meanings import MEANINGS, ONLY_FOR, Enum
from .sources import Function

TITLE = "Operations"

LABELS = ("Memory", "CQE res", "CQE flags", "Limit")
METHOD_LABELS = ("Since", "Man", *LABELS)

# The parameters that all of them have, told once.
SHARED_BY_ENCODERS = frozenset({"user_data", "sqe_flags"})
SHARED_BY_METHODS = frozenset({"callback", "sqe_flags"})

_KINDS: Mapping[str, str] = {
    "number": "a number",
    "signed": "a signed number",
    "fd": "a file, or with `SqeFlag.FIXED_FILE` its slot",
    "dirfd": "a directory, or `AT_FDCWD`",
    "offset": "an offset in the file, or -1",
    "slot": "a slot of the file table",
    "new_slot": "0 for an fd, else slot + 1 or `FILE_INDEX_ALLOC`",
    "user_data": "the `user_data` of another request",
    "mode": "permission bits",
    "one": "1",
    "bytes": "the command, to the end of the SQE",
    "poll": "what poll(2) waits for; its halves are swapped on big-endian machines",
    "*bytes": "address of memory",
    "Op": f"an {link('operation', TITLE)}",
}

_RESULTS: Mapping[str, str] = {"fd": "a new fd", "slot": "the slot that the kernel picked", "poll": "the events"}

_METHODS_RETURN = re.compile(r"Operation|Stream")


@cache
def enums_of(op: Op) -> list[Enum]:
    """The sets whose flags or values go into the fields of an operation."""
    kinds = [name for argument in fields.ARGUMENTS[op].values for name in argument.kind.split("|")]
    by_name = {enum.__name__: enum for enum in MEANINGS}
    return list(dict.fromkeys(by_name[kind] for kind in kinds if kind in by_name))


def operations_of(enum: Enum, member: str = "") -> list[Op]:
    """The operations that a set is for, or one member of it."""
    every = [op for op in Op if enum in enums_of(op)]
    only = ONLY_FOR.get(enum, {}).get(member)
    return every if only is None else [op for op in every if op in only]


def link_to(op: Op) -> str:
    return link(op.name, op.kernel_name)


@cache
def encoders() -> dict[Op, list[Function]]:
    """The encoders of each operation, by what the first line of their docstrings says they queue."""
    found: dict[Op, list[Function]] = {op: [] for op in Op}
    for function in sources.functions("rawuring/prep"):
        if function.name.startswith("prep_"):
            queues = re.match(r"Queue .*?IORING_OP_(\w+)", function.summary)
            if queues:
                found[Op[queues[1]]].append(function)
    return found


def _uses(function: Function, siblings: Mapping[str, Function], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """What a function uses, itself or through those beside it."""
    for name in function.uses:
        called = name.removeprefix("self.")
        if (called != name or called.startswith("_")) and called in siblings and called not in seen:
            yield from _uses(siblings[called], siblings, seen | {called})
        else:
            yield name


@cache
def methods() -> dict[str, list[Function]]:
    """The owned methods by the encoder that they use."""
    found: dict[str, list[Function]] = {}
    every = [*sources.functions("rawuring/operations"), *sources.functions("rawuring/ring")]
    for function in every:
        if function.name.startswith("_") or not _METHODS_RETURN.search(function.returns):
            continue
        siblings = {other.name: other for other in every if other.path == function.path}
        for name in dict.fromkeys(_uses(function, siblings)):
            if name.startswith("self.sq.prep_"):
                found.setdefault(name.removeprefix("self.sq."), []).append(function)
    return found


@cache
def history(op: Op) -> list[tuple[str, str]]:
    """What came for an operation after itself: release, and a flag or an encoder in Markdown."""
    came = [
        (member.since, code(f"{enum.__name__}.{member.name}"))
        for enum in enums_of(op)
        for member in enum
        if op in operations_of(enum, str(member.name))
    ]
    came += [(function.doc.releases[0], code(function.name)) for function in encoders()[op]]
    known = {release for release, _ in came}
    for function in encoders()[op]:
        later = [release for release in function.doc.releases[1:] if release not in known]
        came += [(release, f"more of {code(function.name)}") for release in later]
    return sorted((each for each in came if number(each[0]) > number(op.since)), key=_release)


def number(release: str) -> tuple[int, ...]:
    """A release as what it is sorted by."""
    return tuple(map(int, release.split(".")))


def _release(event: tuple[str, str]) -> tuple[int, ...]:
    return number(event[0])


def _kind(kind: str) -> str:
    if kind in _KINDS:
        return _KINDS[kind]
    if kind.startswith("*"):
        return f"address of {code(kind[1:])}"
    if kind.endswith("_") or kind == "W":
        return code(f"{kind}*")
    return " or ".join(link(name, name) for name in kind.split("|"))


def _fields(op: Op) -> list[str]:
    """A table of an operation's fields, and what it makes of `cqe.res`."""
    arguments = fields.ARGUMENTS[op]
    rows = []
    for argument in arguments.values:
        condition = f"{code(argument.depends_on)} {', '.join(argument.members)}" if argument.members else ""
        where = [code(argument.field), str(argument.place.offset)]
        rows.append([*where, code(argument.name), _kind(argument.kind), condition])
    lines = table(*without_empty(["field of the SQE", "byte", "name", "what it is", "if"], rows))
    res = _RESULTS.get(arguments.res, arguments.res)
    told = [f"`res` > 0: {res}." if res else "`res` is 0."] if arguments.res != "as the command has it" else []
    told += [f"`res` 0: {arguments.res_zero}."] if arguments.res_zero else []
    told += [f"Must be 0 (EINVAL): {', '.join(map(code, arguments.zero))}."] if arguments.zero else []
    return [*lines, "", " ".join(told)] if told else lines


def function_lines(function: Function, call: str, note: str, labels: tuple[str, ...]) -> list[str]:
    """A function: its call, then its docstring by parts."""
    lines = [f"**{code(call)}** {note}".rstrip()]
    for part in function.doc.paragraphs:
        lines += ["", *paragraph(part)]
    if function.doc.example:
        lines += ["", *program(function.doc.example)]
    told = [f"* {label}: {text(function.doc.labels[label])}" for label in labels if label in function.doc.labels]
    return [*lines, "", *told] if told else lines


def _encoder(function: Function) -> list[str]:
    note = f"{text(function.label('Since'))}, {text(function.label('Man'))}"
    return function_lines(function, function.call("sq", SHARED_BY_ENCODERS), note, LABELS)


def method_lines(function: Function) -> list[str]:
    note = f"→ {code(function.returns)}"
    return function_lines(function, function.call("ring", SHARED_BY_METHODS), note, METHOD_LABELS)


def _operation(op: Op) -> list[str]:
    shown = [f"### {op.kernel_name}", "", f"{code(f'Op.{op.name}')} = {op:d}, Linux {op.since}, {op.man}", ""]
    shown += _fields(op)
    sets = ", ".join(link(enum.__name__, enum.__name__) for enum in enums_of(op))
    if sets:
        shown += ["", f"Flags and values: {sets}."]
    later = history(op)
    if later:
        releases = groupby(later, itemgetter(0))
        by_release = [f"{release} {', '.join(what for _, what in came)}" for release, came in releases]
        shown += ["", f"Later: {'; '.join(by_release)}."]
    for function in encoders()[op]:
        shown += ["", *_encoder(function)]
    owned = {method.name: method for encoder in encoders()[op] for method in methods().get(encoder.name, ())}
    for method in owned.values():
        shown += ["", *method_lines(method)]
    return [*shown, ""]


def lines() -> list[str]:
    """The whole part."""
    commands = sources.functions("rawuring/prep/commands.py")
    anything = next(function for function in commands if function.name == "prep_rw")
    shown = [
        f"## {TITLE}",
        "",
        "Each has its encoders of the raw layer, `sq.prep_*` (`ring.sq`), and its owned methods, `ring.*`. Fields that "
        "all operations share are in no table: `opcode`, `flags` ([SqeFlag](#sqeflag)), `user_data` and `personality`. "
        "Bytes count from the start of the SQE. A negative `res` is `-errno`.",
        "",
        "Every encoder takes `user_data` and `sqe_flags` as keywords, which the signatures leave out. What "
        "arguments of these names mean is the same everywhere:",
        "",
        *paragraph(sources.section("rawuring/prep/base.py", "The keyword arguments")),
        *paragraph(sources.section("rawuring/prep/base.py", "Other names")),
        "",
        "*Memory* tells how long it must live, untouched:",
        "",
        *paragraph(sources.section("rawuring/prep/base.py", "How long memory must live")),
        "",
        "Every owned method takes these as keywords, which the signatures leave out. It keeps alive what the kernel "
        "touches:",
        "",
        *paragraph(sources.section("rawuring/operations/base.py", "The keyword arguments")),
        "",
    ]
    for op in Op:
        shown += _operation(op)
    return [*shown, "### Any operation", "", *_encoder(anything), ""]
