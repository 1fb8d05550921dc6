"""What differs between two documents: one that was saved, and the present one.

May import `hints` and its siblings `document`, `page` and `text`. Reads nothing but the two documents.
"""

from __future__ import annotations

from ..hints import TYPE_CHECKING, Any
from .document import BEHAVIOUR, TABLES
from .text import count, known, whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .document import Document, Row
    from .page import Page

PARTS = (("verdict", "Verdict"), ("tool", "Tool"), ("kernel", "Kernel"), ("access", "Access"))

GROUPS = {
    (False, True): ("only here", "green"),
    (True, False): ("only there", "red"),
    (None, True): ("here; not found out there", "green"),
    (None, False): ("not here; not found out there", "dim"),
    (True, None): ("there; not found out here", "yellow"),
    (False, None): ("not there; not found out here", "dim"),
}
"""By what is present there and here: what that is called."""


def compare(saved: Document, present: Document, page: Page, path: str) -> None:
    """Every difference, section by section: `there` is the saved one, `here` the present one."""
    page.blank()
    page.paragraph(f"There ({path}): {whereabouts(saved)}")
    nbefore = len(page.lines)
    for key, title in PARTS:
        there, here = dict(leaves(saved[key])), dict(leaves(present[key]))
        names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        if names == ["summary"]:
            continue  # the verdict is the same, in words that have the release in them
        if names:
            page.heading(title)
        for name in names:
            page.entry(name, f"{known(there.get(name))} -> {known(here.get(name))}", column=max(map(len, names)) + 2)
    for table in TABLES:
        groups = differing(saved[table.key], present[table.key])
        is_run = [any(row["state"] != "not run" for row in document[table.key]) for document in (saved, present)]
        if table is BEHAVIOUR and is_run[0] != is_run[1]:
            page.heading(table.title, f"not run {'here' if is_run[0] else 'there'}, so not compared")
        elif groups:
            page.heading(table.title, f"{count(saved, table)} there, {count(present, table)} here")
            for answers, names in groups.items():
                label, style = GROUPS[answers]
                page.entry(label, " ".join(names), column=12 if None not in answers else 0, style=style)
    if len(page.lines) == nbefore:
        page.paragraph("There is no difference.")


def differing(saved: list[Row], present: list[Row]) -> dict[tuple[bool | None, bool | None], list[str]]:
    """The rows that are not alike, by what is present there and here. Where there is no such row, that is unknown."""
    there, here = ({row["name"]: row["present"] for row in rows} for rows in (saved, present))
    found: dict[tuple[bool | None, bool | None], list[str]] = {}
    for name in {**there, **here}:
        answers = there.get(name), here.get(name)
        if answers in GROUPS:
            found.setdefault(answers, []).append(name)
    return {answers: found[answers] for answers in GROUPS if answers in found}


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, object]]:
    """Every value below an object by its dotted name. A list of named objects counts as an object of these."""
    if isinstance(value, list):
        if not all(isinstance(item, dict) for item in value):
            yield name, " ".join(map(str, value))
            return
        value = {item["name"]: {key: item[key] for key in item if key != "name"} for item in value}
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else key)
    else:
        yield name, value
