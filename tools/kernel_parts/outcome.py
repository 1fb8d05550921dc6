"""What guests reported: one outcome a guest, the table of a run, and the page of what is supported.

Imports the standard library and its neighbours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .image import numbers
from .inside import heard

ENDINGS = {4: "pytest refused its arguments", 5: "none of the tests selected is for guests"}
NEEDS_LINUX = re.compile(r"needs Linux (\d+\.\d+)")


class Outcome(NamedTuple):
    """How one guest ended. `problem` is empty when all went well."""

    kernel: str  # as asked for: 6.12-16k
    machine: str
    python: str
    problem: str
    date: str
    seconds: int
    facts: dict[str, Any]
    tests: dict[str, Any]
    echo: dict[str, Any]
    backend: str

    @property
    def name(self) -> str:
        return f"{self.kernel} {self.machine} Python {self.python}"

    @property
    def is_green(self) -> bool:
        return not self.problem

    @property
    def mode(self) -> str:
        """The mode that the echo server chose, or what else became of it."""
        if not self.echo:
            return "-"
        match = re.search(r"mode ([\w-]+)", self.echo["said"])
        return (match[1] if match else "refused") if self.echo["ok"] else "failed"

    @property
    def place(self) -> tuple[str, str]:
        """The machine and its pages, for a table."""
        facts = self.facts
        machine = self.machine + (" (big-endian)" if facts.get("byteorder") == "big" else "")
        return machine, f"{facts['page_nbytes'] // 1024} KiB" if facts else "?"

    @property
    def counts(self) -> tuple[str, ...]:
        """What passed, failed, was skipped and left out, and the echo server's mode, for a table."""
        tests = self.tests
        return (
            str(tests.get("passed", "?")),
            str(len(tests["failed"])) if "failed" in tests else self.problem or "?",
            str(self.skipped) if tests else "?",
            str(tests.get("deselected", "?")),
            self.mode,
        )

    @property
    def skipped(self) -> int:
        return sum(self.tests.get("skipped", {}).values())


def judge(console: str, ended: bool) -> tuple[str, dict[str, Any]]:
    """What is wrong with a guest, empty if nothing; and all it said, by kind."""
    said = by_kind(console)
    tests, echo = said.get("tests", {}), said.get("echo", {})
    if "end" not in said:
        return early_end(console, ended, "its tests"), said
    if not tests:
        return "its report is damaged", said
    problems = []
    if tests["status"] != 0:
        failed = tests.get("failed", [])
        ending = ENDINGS.get(tests["status"], f"pytest ended with {tests['status']}")
        problems.append(f"{len(failed)} failed" if failed else ending)
    if echo and not echo["ok"]:
        problems.append("the echo server failed")
    return ", ".join(problems), said


def judge_command(console: str, ended: bool) -> tuple[str, dict[str, Any]]:
    """What is wrong with a guest that ran a command, empty if nothing; and how the command ended."""
    said = by_kind(console)
    if "end" not in said:
        return early_end(console, ended, "the command"), {}
    return ("", said["command"]) if "command" in said else ("what the command printed is damaged", {})


def by_kind(console: str) -> dict[str, dict[str, Any]]:
    return {message.pop("kind"): message for message in heard(console)}


def early_end(console: str, ended: bool, work: str) -> str:
    if "Kernel panic" in console:
        return "the kernel panicked"
    return f"it ended before {work} did" if ended else "it hung"


def table(rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Rows under their headings, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    bar = " | " if markdown else "  "
    lines = [bar.join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    if markdown:
        lines.insert(1, "-|-".join("-" * width for width in widths))
        return "\n".join(f"| {line} |" for line in lines)
    return "\n".join(line.rstrip() for line in lines)


HEADINGS = ("kernel", "machine", "pages", "Python", "passed", "failed", "skipped", "left out", "echo", "time")


def row(outcome: Outcome) -> tuple[str, ...]:
    return (outcome.kernel, *outcome.place, outcome.python, *outcome.counts, f"{outcome.seconds} s")


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table of a run, what failed, and what was skipped for which reason."""
    lines = [table([HEADINGS, *(row(outcome) for outcome in outcomes)]), ""]
    for outcome in outcomes:
        for test in outcome.tests.get("failed", []):
            lines.append(f"FAILED on {outcome.name}: {test}")
        if outcome.echo and not outcome.echo["ok"]:
            lines.append(f"FAILED on {outcome.name}: echo: {outcome.echo['said']}")
        for test in outcome.tests.get("unsteady", []):
            lines.append(f"UNSTEADY on {outcome.name}: {test} failed, and passed when it was run once more")
    if reasons := skip_reasons(outcomes):
        lines += ["", "skipped, by what they need:", *(f"  {reason}: {where}" for reason, where in reasons)]
    return "\n".join(lines)


def skip_reasons(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Each reason, releases first, with how many tests gave it on which guest."""
    found: dict[str, dict[str, int]] = {}
    guests = [outcome for outcome in outcomes if outcome.tests]
    for outcome in guests:
        for reason, count in outcome.tests.get("skipped", {}).items():
            match = NEEDS_LINUX.search(reason)
            short = f"Linux {match[1]}" if match else reason
            at = f"{outcome.kernel} {outcome.machine} {outcome.python}"
            where = found.setdefault(short, {})
            where[at] = where.get(at, 0) + count
    ordered = sorted(found, key=lambda reason: (not reason.startswith("Linux "), numbers(reason), reason))
    return [(reason, places(found[reason], len(guests))) for reason in ordered]


def places(where: dict[str, int], guests: int) -> str:
    if guests > 1 and len(where) == guests and len(set(where.values())) == 1:
        return f"{next(iter(where.values()))} on each"
    return ", ".join(f"{count} on {at}" for at, count in where.items())


# --- kept outcomes


def keep(folder: Path, outcome: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{outcome.machine}-{outcome.kernel}-{outcome.python}.json"
    (folder / name).write_text(json.dumps(outcome._asdict(), indent=1) + "\n")


def kept(folder: Path) -> list[Outcome]:
    """The latest outcome of each kind of guest, in the order of a table."""
    return in_order(Outcome(**json.loads(path.read_text())) for path in folder.glob("*.json"))


def latest(older: Sequence[Outcome], newer: Sequence[Outcome]) -> list[Outcome]:
    """Of both, one for each kind of guest: the later one, and of the same day the one in `newer`."""
    found = {outcome.name: outcome for outcome in older}
    for outcome in newer:
        if outcome.name not in found or outcome.date >= found[outcome.name].date:
            found[outcome.name] = outcome
    return in_order(found.values())


def in_order(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda o: (o.machine != "x86_64", o.machine, numbers(o.kernel), o.kernel, o.python))
