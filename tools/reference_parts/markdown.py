"""Markdown that reads the same on every code host: text, tables, links, anchors.

Imports the standard library only. Knows nothing of io_uring.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`[^`]*`)")
_SPECIAL = re.compile(r"(\*|<(?=[a-zA-Z/!])|(?<!\w)_|_(?!\w))")


def text(plain: str) -> str:
    """A docstring's text as Markdown: what is not in backticks means itself."""
    return "".join(part if part.startswith("`") else _SPECIAL.sub(r"\\\1", part) for part in _CODE.split(plain))


def code(plain: str) -> str:
    return f"`{plain}`"


def cell(markdown: str) -> str:
    """Markdown as it may stand in a table, where a bar would end the cell, in code as well."""
    return markdown.replace("|", "\\|")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, marks: bool = False) -> list[str]:
    """The lines of a table; with `marks` the columns after the first are centred."""
    rules = ["---", *([":-:" if marks else "---"] * (len(headings) - 1))]
    return [f"| {' | '.join(map(cell, row))} |" for row in (headings, rules, *rows)]


def without_empty(headings: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows without the columns in which no row has anything."""
    kept = [column for column in range(len(headings)) if any(row[column] for row in rows)]
    return [headings[column] for column in kept], [[row[column] for column in kept] for row in rows]


def anchor(heading: str) -> str:
    """Where a link finds a heading: as GitHub, GitLab and Gitea make it of the heading's text."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def link(shown: str, heading: str) -> str:
    return f"[{shown}](#{anchor(heading)})"


def paragraph(lines: Sequence[str]) -> list[str]:
    """A paragraph of a docstring. One of `name  what it is` lines becomes a list, an indented one is code."""
    if all(line.startswith("    ") for line in lines):
        return list(lines)
    if not re.match(r"\S+(?: \S+)* {2,}\S", lines[0]):
        return [text(" ".join(line.strip() for line in lines))]
    items: list[str] = []
    for line in lines:
        found = re.match(r"(\S+(?:, \S+)*)(?: {2,}(\S.*))?$", line)
        if found:
            items.append(f"* {code(found[1])} {text(found[2] or '')}".rstrip())
        else:
            items[-1] += " " + text(line.strip())
    return items


def program(lines: Sequence[str]) -> list[str]:
    """A program in Python that runs as it stands."""
    return ["```python", *lines, "```"]
