"""A document as text: the sections of the report, and its summary.

May import `hints` and its siblings `document` and `page`. Reads nothing but the document.
"""

from __future__ import annotations

from ..hints import TYPE_CHECKING
from .document import BEHAVIOUR, TABLES, rows

if TYPE_CHECKING:
    from .document import Document, Row, Table
    from .page import Page

STATES = {"ok": "green", "missing": "red", "backport": "yellow", "later": "dim", "unknown": "yellow", "not run": "dim"}
"""The states in the order in which they are shown, with their styles."""
STATUSES = {"usable": "green", "blocked": "red", "absent": "red", "undecided": "yellow"}
DISABLED = {
    0: "0: everybody may make a ring", 1: "1: CAP_SYS_ADMIN and the group may", 2: "2: nobody may make a ring",
    None: "no such sysctl to be read (it came with Linux 6.6)",
}  # fmt: skip
SECCOMP = {0: "no filter", 1: "strict mode", 2: "filtered"}


def report(document: Document, page: Page, *, details: bool = False) -> None:
    """Every section; with `details` every row on a line. The verdict alone, if nothing could be found out."""
    verdict(document, page, details=details)
    if not any(rows(document)):
        return
    access(document, page)
    for table in TABLES:
        if table is BEHAVIOUR:
            behaviour(document, page)
        else:
            constants(document, table, page, details=details)
    surprises(document, page)


def summary(document: Document, page: Page) -> None:
    """The verdict, and a line for each section."""
    verdict(document, page)
    page.blank()
    for table in TABLES:
        page.entry(table.title, count(document, table), column=21)
    page.entry("Surprises", str(len(document["surprises"]) or "none"), column=21)


def verdict(document: Document, page: Page, *, details: bool = False) -> None:
    """The answer, what to do if it is no, and where it was found out."""
    page.paragraph(document["verdict"]["summary"], style=STATUSES[document["verdict"]["status"]])
    for diagnosis in document["diagnosis"]:
        page.entry("To do", diagnosis["fix"], column=7, style="bold")
        page.entry("Cause", f"{diagnosis['cause']} ({diagnosis['confidence']})", column=7)
        if details:
            page.entry("Seen", "; ".join(diagnosis["evidence"]), column=7)
    page.paragraph(whereabouts(document), style="dim")


def whereabouts(document: Document) -> str:
    """The machine and the tool of a report, in a line."""
    kernel, tool = document["kernel"], document["tool"]
    linux = f"Linux {kernel['release'] or 'of unknown release'} {kernel['machine'] or ''}".rstrip()
    return ", ".join((linux, f"{tool['name']} {tool['version'] or ''}".rstrip(), tool["python"]))


# --- access


def access(document: Document, page: Page) -> None:
    """What lets a process use io_uring, or does not."""
    found = document["access"]
    page.heading("Access")
    lines = [
        *calls(found["calls"]),
        ("a ring", ring(document)),
        ("io_uring_disabled", DISABLED.get(found["io_uring_disabled"], str(found["io_uring_disabled"]))),
        ("io_uring_group", group(found)),
        ("seccomp", seccomp(found)),
        ("security modules", "unknown" if found["lsm"] is None else ", ".join(found["lsm"]) or "none"),
        ("container", found["container"] or "none seen"),
        ("locked memory", memlock(found["memlock"])),
        ("capabilities", capabilities(found["capabilities"])),
        ("memory", f"pages of {size(document['kernel']['page_nbytes'])}; ordered by {known(found['atomics'])}"),
    ]
    for label, text in lines:
        page.entry(label, text, column=19)


def calls(found: list[Row]) -> list[tuple[str, str]]:
    """The three system calls: a line if they are alike, else a line each."""
    meanings = {call["meaning"] for call in found}
    if len(meanings) == 1:
        answers = ", ".join(call["result"] for call in found if call["result"])
        return [("system calls", meanings.pop() + (f" ({answers})" if answers else ""))]
    return [(call["name"], call["meaning"] + (f" ({call['result']})" if call["result"] else "")) for call in found]


def ring(document: Document) -> str:
    """Could one be made? The reason, unless it stands above."""
    reason = document["access"]["ring"]
    if reason is None:
        return "can be made"
    is_told = any(reason.startswith(diagnosis["sentence"]) for diagnosis in document["diagnosis"])
    return "cannot be made" if is_told else f"cannot be made: {reason}"


def group(found: Document) -> str:
    number = found["io_uring_group"]
    if number is None or number < 0:
        return "unknown" if number is None else "none"
    member = {True: "is in it", False: "is not in it", None: "may be in it"}
    return f"{number}, this process {member[found['is_in_group']]}"


def seccomp(found: Document) -> str:
    text = SECCOMP.get(found["seccomp_mode"], known(found["seccomp_mode"]))
    if found["seccomp_filters"]:
        text += f", {found['seccomp_filters']} in force"
    return text + (", no_new_privs is set" if found["no_new_privs"] else "")


def memlock(limit: Document) -> str:
    if limit["is_unlimited"]:
        return "unlimited"
    charged = {True: "rings count against it", False: "rings do not count against it", None: "not known if rings count"}
    words = [f"{size(limit['soft_nbytes'])}, at most {size(limit['hard_nbytes'])}", charged[limit["is_charged"]]]
    if limit["largest_ring_entries"] is not None:
        words.append(f"the largest ring has {limit['largest_ring_entries']} entries")
    return "; ".join(words)


def capabilities(found: dict[str, bool | None]) -> str:
    words = []
    for title, value in (("", True), ("not ", False), ("unknown ", None)):
        names = [name for name, has in found.items() if has is value]
        if names:
            words.append(title + " ".join(names))
    return "; ".join(words) or "unknown"


def known(value: object) -> str:
    return "unknown" if value is None else str(value)


def size(nbytes: int | None) -> str:
    if nbytes is None:
        return "unknown"
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if nbytes and not nbytes % (1 << shift):
            return f"{nbytes >> shift} {unit}"
    return f"{nbytes} bytes"


# --- the tables


def count(document: Document, table: Table) -> str:
    """How many of a table's rows are there."""
    every = document[table.key]
    if any(row["present"] is not None for row in every):
        return f"{sum(row['present'] is True for row in every)} of {len(every)}"
    if not any(row["state"] == "not run" for row in every):
        return "not found out"
    can_run = document["verdict"]["status"] == "usable"
    return "not run (--run makes a small round trip for each)" if can_run else "not run"


def constants(document: Document, table: Table, page: Page, *, details: bool) -> None:
    """A table of the ABI: names by state, or with `details` a line for each with all that is known."""
    every = document[table.key]
    sources = {row["source"] for row in every if row["source"]}
    page.heading(table.title, count(document, table) + (f", by {min(sources)}" if len(sources) == 1 else ""))
    if details:
        cells: list[tuple[str, ...]] = [
            (row["name"], row["since"], row["state"], row["man"] or "", (row["source"] or "") * (len(sources) > 1))
            for row in every
        ]
        page.table(cells, [STATES[row["state"]] for row in every], styled=2)
    elif any(row["present"] is not None for row in every):
        for state, style in STATES.items():
            names = names_of([row for row in every if row["state"] == state], has_releases=state != "ok")
            if names:
                page.entry(state, names, column=10, style=style)
    beyond = document["beyond"][table.key]
    if beyond:
        page.entry("unknown", f"{beyond} more that this program does not know", column=10, style=STATES["unknown"])


def names_of(some: list[Row], *, has_releases: bool) -> str:
    """The names of rows; if it matters, behind the release in which they came."""
    names: dict[str, list[str]] = {}
    for row in sorted(some, key=lambda row: release(row["since"])) if has_releases else some:
        names.setdefault(f"{row['since']}: " if has_releases else "", []).append(row["name"])
    return "; ".join(since + " ".join(those) for since, those in names.items())


def release(text: str) -> list[int]:
    """A release for sorting."""
    return [int(part) for part in text.split(".") if part.isdecimal()]


def behaviour(document: Document, page: Page) -> None:
    """What the round trips showed."""
    tried = [row for row in document[BEHAVIOUR.key] if row["state"] != "not run"]
    page.heading(BEHAVIOUR.title, count(document, BEHAVIOUR))
    column = max((len(row["name"]) for row in tried), default=0) + 2
    for row in tried:
        state = row["state"] if row["present"] else f"{row['state']}, {row['since']}"
        page.entry(row["name"], f"{state}: {row['detail'] or row['title']}", column=column, style=STATES[row["state"]])


def surprises(document: Document, page: Page) -> None:
    """What the kernel's release does not explain; what has the same explanation at once."""
    page.heading("Surprises", "" if document["surprises"] else "none")
    titles = {table.key: table.title for table in TABLES}
    by_explanation: dict[str, dict[str, list[str]]] = {}
    for one in document["surprises"]:
        those = by_explanation.setdefault(one["explanation"], {})
        those.setdefault(f"{titles[one['section']]}, {one['state']}", []).append(one["name"])
    for explanation, those in by_explanation.items():
        for what, names in those.items():
            page.paragraph(f"{what}: {' '.join(names)}", indent=2, style="yellow")
        page.paragraph(explanation, indent=4)
