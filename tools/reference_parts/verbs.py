"""The part on register verbs: for each the functions of `rawuring.register`.

Imports rawuring.abi and its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from rawuring.abi import Register

from . import sources
from .markdown import code, link, table, text
from .meanings import MEANINGS, Enum
from .operations import function_lines
from .sources import Function

TITLE = "Register verbs"
LABELS = ("Memory", "Errors")


def _verbs(function: Function, every: Mapping[str, Function], seen: frozenset[str]) -> Iterator[Register]:
    """The verbs that a function makes the call with, itself or through others."""
    for name in function.uses:
        if name.startswith("abi.Register.") and "call" in function.uses:
            yield Register[name.removeprefix("abi.Register.")]
        elif name in every and name not in seen:
            yield from _verbs(every[name], every, seen | {name})


def _enums(function: Function) -> list[Enum]:
    """The sets that a function uses or tells of."""
    told = " ".join([*function.uses, *(line for lines in function.doc.paragraphs for line in lines)])
    return [enum for enum in MEANINGS if re.search(rf"\b{enum.__name__}\.[A-Z]", told)]


@cache
def functions() -> dict[Register, list[tuple[Function, bool]]]:
    """The public functions by verb, and whether this is their first: there they are told in full."""
    every = {function.name: function for function in sources.functions("rawuring/register")}
    found: dict[Register, list[tuple[Function, bool]]] = {verb: [] for verb in Register}
    home: dict[str, Register] = {}
    for function in every.values():
        module = function.path.stem
        if function.name.startswith("_") or module in ("calling", "__init__") or function.owner != module:
            continue
        # One that makes no call is a help for the first in its module that does.
        verbs = list(dict.fromkeys(_verbs(function, every, frozenset({function.name})))) or [home[module]]
        home.setdefault(module, verbs[0])
        for verb in verbs:
            found[verb].append((function, verb is verbs[0]))
    return found


@cache
def _owned() -> dict[str, list[str]]:
    """Where the owned layer calls a function: the public names."""
    found: dict[str, list[str]] = {}
    for place in ("rawuring/ring", "rawuring/files.py", "rawuring/buffers.py"):
        for function in sources.functions(place):
            owner = "Ring" if place == "rawuring/ring" else function.owner
            name = owner if function.name == "__init__" else f"{owner}.{function.name}"
            if "._" not in name and not owner.startswith("_"):
                for used in dict.fromkeys(function.uses):
                    if used.startswith("register."):
                        found.setdefault(used.removeprefix("register."), []).append(name)
    return found


def _function(function: Function) -> list[str]:
    returns = "" if function.returns == "None" else f"→ {code(function.returns)}, "
    note = f"{returns}{text(function.label('Since'))}, {text(function.label('Man'))}"
    shown = function_lines(function, function.call("register"), note, LABELS)
    owned = _owned().get(function.name)
    if owned:
        shown += [] if shown[-1].startswith("* ") else [""]
        shown += [f"* In the owned layer: {', '.join(map(code, owned))}"]
    return shown


def lines() -> list[str]:
    """The whole part."""
    rows = [
        (
            str(int(verb)), link(verb.name, verb.kernel_name), verb.since,
            ", ".join(code(f"register.{function.name}") for function, _ in functions()[verb]),
        )
        for verb in Register
    ]  # fmt: skip
    shown = [
        f"## {TITLE}",
        "",
        "The opcodes of io_uring_register(2), and the functions of `rawuring.register` that make the call. `fd` is the "
        "ring's fd, or the `RingIndex` of a ring registered with the calling thread (Linux 6.3). Each raises the "
        "OSError of the errno: EINVAL is also what a kernel says that is older than the verb, EEXIST what a ring says "
        "that belongs to another thread, EACCES what `restrictions` do not allow.",
        "",
        *table(("", "verb", "Linux", "functions"), rows),
        "",
    ]
    for verb in Register:
        shown += [f"### {verb.kernel_name}", ""]
        shown += [f"{code(f'Register.{verb.name}')} = {verb:d}, Linux {verb.since}, {verb.man}"]
        told = [enum for function, in_full in functions()[verb] if in_full for enum in _enums(function)]
        sets = ", ".join(link(enum.__name__, enum.__name__) for enum in dict.fromkeys(told))
        shown += ["", f"Flags and values: {sets}."] if sets else []
        others = []
        for function, in_full in functions()[verb]:
            if in_full:
                shown += ["", *_function(function)]
            else:
                others.append(code(f"register.{function.name}"))
        shown += ["", f"Also used by {', '.join(others)}.", ""] if others else [""]
    return shown
