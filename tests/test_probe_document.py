"""A saved report: its schema, reading one again, and comparing two. Reports of booted kernels are in data/probe/."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rawuring.probe import comparing, document, schema, text
from rawuring.probe.errors import UsageError
from rawuring.probe.page import Page

pytestmark = pytest.mark.portable

SAVED = sorted((Path(__file__).parent / "data" / "probe").glob("*.json"))
SOMETHING: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 3, 2**63, 0.5, "", "ok", "\x1b[31m\n", "\ud800", "IORING_OP_NOP",
    [], [[]], {}, {"a": 1},
)  # fmt: skip
"""What a mutation puts into a report."""


def report(name: str = "6.18-x86_64") -> dict[str, Any]:
    return json.loads((SAVED[0].parent / f"{name}.json").read_text())  # type: ignore[no-any-return]


def release_of(text: str) -> tuple[int, int]:
    """(6, 12) of 6.12.117+deb13."""
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def write(folder: Path, content: object) -> str:
    path = folder / "report.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container below a value, with every key or index in it."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutated(chance: random.Random, original: dict[str, Any]) -> dict[str, Any]:
    """The report with one to three things changed, removed or added."""
    changed = copy.deepcopy(original)
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(list(places(changed)))
        action = chance.randrange(4)
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[chance.choice(["odd", "name", "value"])] = chance.choice(SOMETHING)
        else:
            container[key] = chance.choice(SOMETHING)
    return changed


# --- what booted kernels showed


def test_there_is_a_report_of_each_kind_of_kernel() -> None:
    assert [path.stem for path in SAVED] == [
        "5.10-x86_64", "6.1-x86_64", "6.12-x86_64", "6.18-x86_64", "7.3-aarch64", "7.3-x86_64",
    ]  # fmt: skip


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_each_kernel_has_what_its_release_promises(path: Path) -> None:
    """The column `since` is right: what came up to a kernel's release is there, and nothing else is.

    Debian's 5.10 is an exception that we know: it has the io_uring of Linux 5.15.
    """
    found = json.loads(path.read_text())
    promised = (5, 15) if path.stem.startswith("5.10") else release_of(found["kernel"]["release"])
    for table, row in document.rows(found):
        is_there = release_of(row["since"]) <= promised
        if promised == (5, 15) and release_of(row["since"]) > (5, 10) and not row["present"]:
            continue  # not everything was carried back
        assert row["present"] is is_there, (table.title, row)
    assert bool(found["surprises"]) == (promised == (5, 15))
    assert set(found["beyond"].values()) <= {0, None}


# --- the schema


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_saved_reports_are_valid(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")
    jsonschema.Draft202012Validator.check_schema(document.schema())
    jsonschema.validate(json.loads(path.read_text()), document.schema(), cls=jsonschema.Draft202012Validator)
    assert document.read(str(path)) == json.loads(path.read_text())


def test_our_checker_knows_every_keyword_of_the_schema() -> None:
    def keywords(rule: dict[str, Any]) -> Iterator[str]:
        yield from rule
        below = [*rule.get("properties", {}).values(), *rule.get("$defs", {}).values()]
        below += [rule[key] for key in ("items", "propertyNames", "additionalProperties") if rule.get(key)]
        for each in below:
            yield from keywords(each)

    rules = {"$ref", "additionalProperties", "const", "enum", "items", "minimum", "pattern", "properties"}
    rules |= {"propertyNames", "required", "type"}
    notes = {"$defs", "$id", "$schema", "description", "title"}
    assert set(keywords(document.schema())) == rules | notes


def test_every_object_of_the_schema_is_closed_and_requires_what_it_has() -> None:
    """A key that is not described, or that may be left out, is one that a script cannot rely on."""

    def objects(rule: Any) -> Iterator[dict[str, Any]]:
        if isinstance(rule, dict):
            if rule.get("type") == "object" and "properties" in rule:
                yield rule
            for each in rule.values():
                yield from objects(each)

    found = list(objects(document.schema()))
    assert len(found) > 10
    for rule in found:
        assert rule["additionalProperties"] is False
        assert rule["required"] == list(rule["properties"])


def test_our_checker_agrees_with_jsonschema() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")
    validator = jsonschema.Draft202012Validator(document.schema())
    chance, original = random.Random(5), report()
    nwrong = 0
    for _ in range(80):
        changed = mutated(chance, original)
        found = schema.problem(changed, document.schema())
        assert (found is None) == validator.is_valid(changed), found
        nwrong += found is not None
    assert nwrong > 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["verdict"].update(exit_code=7), "verdict.exit_code is 7, and should be 0 or 3 or 4 or 5"),
        (lambda d: d["verdict"].update(exit_code=False), "verdict.exit_code is false, and should be 0 or 3 or 4 or 5"),
        (lambda d: d["opcodes"][3].update(value="3"), "opcodes[3].value is '3', and should be of type integer"),
        (lambda d: d["opcodes"][3].pop("man"), "opcodes[3] lacks man"),
        (lambda d: d["access"].update(odd=1), "access.odd is not known"),
        (lambda d: d["access"]["capabilities"].update(odd=True), "a name in access.capabilities is 'odd'"),
        (lambda d: d["kernel"].update(page_nbytes=0), "kernel.page_nbytes is 0, and should be at least 1"),
        (lambda d: d.update(features={}), "features is an object, and should be of type array"),
    ],
)
def test_a_problem_is_told_by_its_place(change: Any, said: str) -> None:
    changed = report()
    change(changed)
    assert (schema.problem(changed, document.schema()) or "").startswith(said)


# --- writing and reading


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_report_is_written_with_a_row_on_a_line(path: Path) -> None:
    saved = json.loads(path.read_text())
    written = document.to_json(saved)
    assert json.loads(written) == saved and written + "\n" == path.read_text()
    assert sum('"name": "RECV"' in line and '"man"' in line for line in written.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 5000, "not JSON: an integer of 5000 digits"),
        (b"[NaN]", "not JSON: NaN is not JSON"),
        (b" " * (document.MAX_NBYTES + 1), "more than 1 MiB"),
        ([], "not a report"),
        ({}, "not a report"),
        ({"schema": 1}, "not a report"),
        ({"schema": "something/1"}, "not a report"),
        ({"schema": "rawuring.probe/2"}, "schema rawuring.probe/2, and this program reads rawuring.probe/1"),
        ({"schema": "rawuring.probe/1"}, "not a whole report: it lacks tool"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: object, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UsageError) as refused:
        document.read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and said in message and "\n" not in message and len(message) < 300


@pytest.mark.parametrize("path", ["/no/such/file", "/", "a\0b", ""])
def test_what_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        document.read(path)


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(UsageError, match="more than 1 MiB"):
        document.read("/dev/zero")


def test_mutated_reports_are_refused_or_shown(tmp_path: Path) -> None:
    chance, original = random.Random(6), report()
    octets = json.dumps(original).encode()
    nread = 0
    for turn in range(100):
        content: object = mutated(chance, original)
        if turn % 4 == 0:
            at, changed = chance.randrange(len(octets)), bytearray(octets)
            changed[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
            content = bytes(changed)
        try:
            saved = document.read(write(tmp_path, content))
        except UsageError as error:
            assert "\n" not in str(error)
            continue
        nread += 1
        page = Page()
        comparing.compare(saved, original, page, "x")
        text.report(saved, page, details=bool(turn % 2))
        assert all(line.isprintable() for line in page.lines)
    assert nread > 5


# --- comparing


def compared(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    page = Page(200)
    comparing.compare(there, here, page, "there.json")
    return page.lines


def test_two_reports_that_are_alike() -> None:
    lines = compared(report(), report())
    assert lines[0].startswith("There (there.json): Linux 6.18") and lines[1:] == ["There is no difference."]


def test_every_difference_is_told() -> None:
    there, here = report(), report()
    there["kernel"]["release"] = "6.1.0"
    there["access"]["calls"][0]["result"] = "EPERM"
    there["access"]["io_uring_disabled"] = None
    rows = {row["name"]: row for row in there["opcodes"]}
    rows["PIPE"]["present"] = rows["EPOLL_WAIT"]["present"] = False
    rows["NOP128"]["present"] = True
    rows["READ"]["present"] = None
    here["setup_flags"] = here["setup_flags"][:-1]
    lines = compared(there, here)
    assert f"  release  6.1.0 -> {here['kernel']['release']}" in lines
    assert "  calls.io_uring_setup.result  EPERM -> EFAULT" in lines
    assert "  io_uring_disabled            unknown -> 0" in lines
    assert "  only here   EPOLL_WAIT PIPE" in lines
    assert "  only there  NOP128" in lines
    assert lines[lines.index("  here; not found out there") + 1] == "    READ"
    assert lines[lines.index("  not there; not found out here") + 1] == "    SQ_REWIND"


def test_a_verdict_is_compared_by_its_status() -> None:
    there, here = report(), report()
    there["verdict"]["summary"] = "Other words."
    assert compared(there, here)[1:] == ["There is no difference."]
    there["verdict"].update(status="blocked", exit_code=3)
    assert "  status     blocked -> usable" in compared(there, here)


def test_behaviour_is_compared_only_where_both_were_run() -> None:
    run, not_run = report(), report()
    for row in not_run["behaviour"]:
        row.update(present=None, state="not run")
    assert "Behaviour: not run here, so not compared" in compared(run, not_run)
    assert "Behaviour: not run there, so not compared" in compared(not_run, run)
    assert compared(not_run, not_run)[1:] == ["There is no difference."]
