"""Names that are required, held against a document: which rows they mean, and whether these are there.

May import `hints` and its siblings `document` and `errors`. Reads nothing but the document.
"""

from __future__ import annotations

from ..hints import TYPE_CHECKING
from .document import TABLES, rows
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .document import Document, Row, Table
    from .page import Page

    Requirement = tuple[Table, Row]


def resolve_all(document: Document, names: Iterable[str]) -> dict[str, Requirement]:
    """What each name means. None of them, if the document has no rows: nothing at all was found out then."""
    return {name: resolve(document, name) for name in names} if any(rows(document)) else {}


def resolve(document: Document, name: str) -> Requirement:
    """The one row that is meant: by our name or the kernel's, in either case; `op:NAME` says of which table."""
    prefix, colon, bare = name.rpartition(":")
    tables = [table for table in TABLES if table.prefix == prefix.lower() or not colon]
    if not tables:
        prefixes = ", ".join(f"{table.prefix}:" for table in TABLES)
        raise UsageError(f"{name}: there is no prefix {prefix}: (there are {prefixes})")
    every = [(table, row) for table, row in rows(document) if table in tables]
    found = [(table, row) for table, row in every if bare in spellings(row)]
    # `send_zc` is a behaviour and `SEND_ZC` an operation: exact spelling tells them apart.
    found = found or [
        (table, row) for table, row in every if bare.casefold() in (text.casefold() for text in spellings(row))
    ]
    if len(found) > 1:
        what = " and ".join(f"{article(table.what)} {table.what}" for table, _ in found)
        how = " or ".join(f"{table.prefix}:{row['name']}" for table, row in found)
        raise UsageError(f"{name} is {what}: write {how}")
    if not found:
        raise UsageError(f"there is nothing called {name}{suggestions(bare, (row for _, row in every))}")
    return found[0]


def spellings(row: Row) -> tuple[str, ...]:
    return (row["name"], row["kernel_name"]) if "kernel_name" in row else (row["name"],)


def article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def suggestions(name: str, among: Iterable[Row]) -> str:
    """The nearest names, in words."""
    import difflib

    names = {text.casefold(): text for row in among for text in spellings(row)}
    near = difflib.get_close_matches(name.casefold(), names, 3, 0.6)
    return f": did you mean {' or '.join(names[text] for text in near)}?" if near else "; -v shows every name"


def needs_run(document: Document, required: Iterable[Requirement]) -> bool:
    """Is something required that only a round trip shows, which can be made and was not?"""
    return document["verdict"]["status"] == "usable" and any(row["state"] == "not run" for _, row in required)


def exit_status(document: Document, required: Iterable[bool | None]) -> int:
    """0 all is there, 1 something is missing, 5 something was not found out; or what the verdict says."""
    verdict: int = document["verdict"]["exit_code"]
    if verdict:
        return verdict
    answers = set(required)
    return 1 if False in answers else 5 if None in answers else 0


def print_required(required: dict[str, Requirement], page: Page) -> None:
    page.heading("Required", f"{sum(row['present'] is True for _, row in required.values())} of {len(required)}")
    column = max(len(row["name"]) for _, row in required.values()) + 2
    for table, row in required.values():
        style = {True: "green", False: "red", None: "yellow"}[row["present"]]
        page.entry(row["name"], f"{table.what}: {why(row)}", column=column, style=style)


def why(row: Row) -> str:
    """Is it there, and how does that go with the release that brought it?"""
    if row["present"] is None:
        return "not run" if row["state"] == "not run" else "not found out"
    if row["state"] == "later":
        return f"missing, needs Linux {row['since']}"
    word = "ok" if row["present"] else "missing"
    return word if row["state"] == "ok" else f"{word}, though Linux {row['since']} brought it"
