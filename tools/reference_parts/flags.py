"""The part on flags and values: each set with what its members say and need; then the constants in no set.

Imports rawuring.abi and its neighbours.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from rawuring import abi
from rawuring.abi.constants import Flag, Value

from . import sources
from .markdown import code, link, table, text, without_empty
from .meanings import MEANINGS, ONLY_FOR, Enum
from .operations import link_to, operations_of

TITLE = "Flags and values"
CONSTANTS = "Other constants"


def _value(member: Flag | Value) -> str:
    bit = int(member).bit_length() - 1
    if isinstance(member, Flag) and int(member) == 1 << bit:
        return code(f"1 << {bit}")
    return code(f"{member:d}" if member < 256 else f"{member:#x}")


def _setup_rules(name: str) -> Iterator[str]:
    """What `rawuring.abi` has of a set-up flag's needs."""
    flag = abi.Setup[name]
    for one, any_of in abi.SETUP_REQUIRES.items():
        if one is flag:
            yield " or ".join(needed.name or "" for needed in any_of)
    against = [other for one, other in abi.SETUP_CONFLICTS if one is flag]
    against += [one for one, other in abi.SETUP_CONFLICTS if other is flag]
    if against:
        yield f"not with {', '.join(other.name or '' for other in against)}"


def _needs(enum: Enum, name: str) -> str:
    told = [*_setup_rules(name)] if enum is abi.Setup else []
    told += [MEANINGS[enum][name].needs] if MEANINGS[enum][name].needs else []
    only = ONLY_FOR.get(enum, {}).get(name)
    return text("; ".join(told)) + (f"{'; ' if told else ''}for {', '.join(map(link_to, only))}" if only else "")


def _set(enum: Enum) -> list[str]:
    rows = []
    for member in enum:
        name = str(member.name)
        rows.append([
            f"{code(name)}<br>{code(member.kernel_name)}", _value(member), member.since,
            text(MEANINGS[enum][name].says), _needs(enum, name), member.man,
        ])  # fmt: skip
    headings = ["name", "value", "Linux", "what it says", "needs", "man page"]
    shown = [f"### {enum.__name__}", "", text(" ".join((inspect.getdoc(enum) or "").split())), ""]
    used = operations_of(enum)
    if used:
        shown += [f"For {', '.join(map(link_to, used))}.", ""]
    return [*shown, *table(*without_empty(headings, rows)), ""]


def _constants() -> list[str]:
    rows = []
    for module in ("rawuring/abi/constants.py", "rawuring/abi/arguments.py"):
        for name, comment in sources.commented_constants(module):
            value = getattr(abi, name)
            rows.append((code(name), code(f"{value:d}" if -256 < value < 65537 else f"{value:#x}"), text(comment)))
    return [f"### {CONSTANTS}", "", *table(("name in `rawuring.abi`", "value", "what it is"), rows), ""]


def lines() -> list[str]:
    """The whole part."""
    shown = [
        f"## {TITLE}",
        "",
        "The members of the enums in `rawuring.abi`, under the kernel's names without their prefix. Each "
        "also knows its `.since`, `.man` and `.kernel_name`.",
        "",
        ", ".join(link(enum.__name__, enum.__name__) for enum in MEANINGS) + f", {link(CONSTANTS.lower(), CONSTANTS)}",
        "",
    ]
    for enum in MEANINGS:
        shown += _set(enum)
    return [*shown, *_constants()]
