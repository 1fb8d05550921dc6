"""The parts on kernel releases: which has what for an operation, and what came with each.

Imports rawuring.abi and its neighbours.
"""

from __future__ import annotations

from rawuring.abi import Op, Register

from .markdown import code, link, table
from .meanings import MEANINGS
from .operations import history, link_to, number

MATRIX = "Operations by kernel"
LIST = "What came with each kernel"

NEW, MORE, THERE = "●", "+", "·"


def _matrix(releases: list[str], ops: list[Op]) -> list[str]:
    rows = []
    for op in ops:
        later = {release for release, _ in history(op)}
        marks = [
            NEW if release == op.since
            else "" if number(release) < number(op.since)
            else MORE if release in later
            else THERE
            for release in releases
        ]  # fmt: skip
        rows.append((link_to(op), *marks))
    return table(("", *releases), rows, marks=True)


def matrix() -> list[str]:
    """The matrix of operations and releases, in two halves that fit a page."""
    came = {op.since for op in Op} | {release for op in Op for release, _ in history(op)}
    releases = sorted(came, key=number)
    five = [release for release in releases if number(release) < (6, 0)]
    return [
        f"## {MATRIX}",
        "",
        f"`{NEW}`: the operation came. `{MORE}`: a flag or an encoder came for it (see its *Later*). `{THERE}`: it is "
        "there. Releases that brought nothing for any operation have no column.",
        "",
        "### Linux 5.1 to 5.19",
        "",
        *_matrix(five, [op for op in Op if number(op.since) < (6, 0)]),
        "",
        "### Linux 6.0 and later",
        "",
        *_matrix([release for release in releases if release not in five], list(Op)),
        "",
    ]


def by_release() -> list[str]:
    """For each release the operations, verbs, flags and values that came with it."""
    members = [member for enum in MEANINGS for member in enum]
    releases = sorted({each.since for each in (*Op, *Register, *members)}, key=number)
    rows = []
    for release in releases:
        ops = ", ".join(link_to(op) for op in Op if op.since == release)
        verbs = ", ".join(link(verb.name, verb.kernel_name) for verb in Register if verb.since == release)
        sets = []
        for enum in MEANINGS:
            names = [str(member.name) for member in enum if member.since == release]
            if names:
                sets.append(f"{link(enum.__name__, enum.__name__)} {', '.join(map(code, names))}")
        rows.append((release, ops, verbs, "; ".join(sets)))
    return [f"## {LIST}", "", *table(("Linux", "operations", "register verbs", "flags and values"), rows), ""]
