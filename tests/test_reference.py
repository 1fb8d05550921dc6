"""docs/reference.md: up to date, whole, and every link and every name in it leads somewhere."""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from rawuring import Ring, errors
from rawuring.abi import Op, Register
from rawuring.abi.constants import Flag, Value
from tools import reference
from tools.reference_parts import classes, flags, markdown, operations, parity, releases, sources, verbs
from tools.reference_parts.meanings import MEANINGS, ONLY_FOR

# It reads the sources of the whole package, for which a machine that is emulated needs long.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page() -> str:
    return reference.page()


def test_it_is_up_to_date(page: str) -> None:
    assert reference.check(page) is None


def test_every_link_leads_to_one_heading(page: str) -> None:
    headings = Counter(markdown.anchor(heading) for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE))
    assert [anchor for anchor, count in headings.items() if count > 1] == []
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= headings.keys()


def test_every_row_has_as_many_cells_as_its_heading(page: str) -> None:
    for block in re.findall(r"^\|.*(?:\n\|.*)*", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1, block


# --- operations


def test_every_operation_has_encoders_and_a_column_where_it_came() -> None:
    assert [op for op in Op if not operations.encoders()[op]] == []
    rows = {line.split("|")[1].strip(): line for line in releases.matrix() if line.startswith("| [")}
    assert len(rows) == len(Op)
    for op in Op:
        assert (releases.NEW in rows[operations.link_to(op)]) is (operations.number(op.since) >= (6, 0))


def test_what_came_for_an_operation_later() -> None:
    assert ("6.0", "`RecvSend.RECV_MULTISHOT`") in operations.history(Op.RECV)
    assert ("6.1", "`prep_sendto`") in operations.history(Op.SEND)
    assert "`RecvSend.RECV_MULTISHOT`" not in dict(operations.history(Op.SEND)).values()


def test_every_encoder_has_its_lines(page: str) -> None:
    functions = [function for found in operations.encoders().values() for function in found]
    assert len(functions) == len({function.name for function in functions}) > 100
    for function in functions:
        assert {"Since", "Man", "Memory", "CQE res", "CQE flags"} <= function.doc.labels.keys(), function.name
        assert page.count(f"**`sq.{function.name}(") == 1


def test_an_owned_method_is_told_with_its_operation() -> None:
    assert "recv" in {method.name for method in operations.methods()["prep_recv"]}
    told = "\n".join(operations.lines()).split("### IORING_OP_RECV\n")[1].split("\n### ")[0]
    assert "**`ring.recv(sock, buffer, msg_flags=0, *, ioprio=0)`** → `Operation[int]`" in told


# --- rings and results


def test_every_method_of_a_ring_is_told(page: str) -> None:
    assert classes.ring_methods().keys() == {name for names in classes.RING_METHODS.values() for name in names}
    for name, found in vars_of(Ring).items():
        if name not in classes.INTERNAL:
            shown = f"**`ring.{name}`**" if isinstance(found, property) else f"**`ring.{name}("
            assert shown in page, name


def vars_of(owner: type) -> dict[str, object]:
    """The public methods and properties of a class and those it is made of."""
    found: dict[str, object] = {}
    for each in reversed(owner.__mro__):
        found |= {name: what for name, what in vars(each).items() if not name.startswith("_")}
    return {name: what for name, what in found.items() if callable(what) or isinstance(what, property)}


def test_every_kind_of_operation_that_a_method_returns_is_told() -> None:
    told = classes.KINDS.keys() | {name for room in classes.ROOMS for name in room.classes}
    returned = {method.returns.partition("[")[0] for methods in operations.methods().values() for method in methods}
    assert returned <= told


def test_every_exception_is_told(page: str) -> None:
    for name, found in vars(errors).items():
        if isinstance(found, type) and issubclass(found, Exception):
            assert f"| `{name}` | " in page, name


def test_an_inner_name_that_is_gone_is_found() -> None:
    made = [Ring, *(getattr(import_module(module[:-3].replace("/", ".").removesuffix(".__init__")), name)
                    for room in classes.ROOMS for name, (module, _) in room.classes.items())]  # fmt: skip
    names = {name for owner in made for name in (*vars_of(owner), *(f"{owner.__name__}.{each}" for each in vars_of(owner)))}
    assert classes.INTERNAL - names == {"locates"}  # an attribute


def test_a_class_that_is_gone_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "KINDS", {"NoOperation": "rawuring/inflight.py"})
    with pytest.raises(sources.SourceError, match=r"rawuring/inflight\.py has no class NoOperation"):
        classes.lines()


# --- flags and values, register verbs


def enums(base: type) -> set[type]:
    found: set[type] = set(base.__subclasses__())
    return found.union(*map(enums, found))


def test_every_flag_and_value_is_told() -> None:
    defined = {enum for enum in enums(Flag) | enums(Value) if enum.__module__.startswith("rawuring.abi.")}
    assert set(MEANINGS) == defined - {Op, Register}
    for enum, meanings in MEANINGS.items():
        assert list(meanings) == [member.name for member in enum], enum.__name__
        assert all(meaning.says for meaning in meanings.values())
    for enum, only in ONLY_FOR.items():
        assert only.keys() <= MEANINGS[enum].keys()


def test_the_rules_of_set_up_flags_are_told() -> None:
    told = next(line for line in flags.lines() if "IORING_SETUP_DEFER_TASKRUN" in line)
    assert "| SINGLE_ISSUER; not with SQPOLL |" in told


def test_every_verb_has_a_function_and_every_function_its_lines(page: str) -> None:
    assert [verb for verb in Register if not verbs.functions()[verb]] == []
    for function in {function.name: function for found in verbs.functions().values() for function, _ in found}.values():
        assert {"Since", "Man"} <= function.doc.labels.keys(), function.name
        assert page.count(f"**`register.{function.name}(") == 1


# --- liburing


def test_every_function_of_liburing_is_there() -> None:
    assert sum(map(len, parity.LIBURING.values())) == len({name for each in parity.LIBURING.values() for name in each})
    assert sum(map(len, parity.LIBURING.values())) == 232


@pytest.mark.parametrize("group", [group for group, _ in parity.everything()])
def test_every_name_of_ours_exists_and_what_has_none_has_a_reason(group: str) -> None:
    for name, ours in dict(parity.everything())[group].items():
        assert ours.names or ours.why, name
        for each in ours.names:
            parity.resolve(each)


def test_a_name_that_does_not_exist_is_found() -> None:
    for name in ("ring.no_such", "nowhere", "register.no_such", "abi.Setup.NO_SUCH"):
        with pytest.raises(AttributeError):
            parity.resolve(name)


# --- the parts


def test_a_docstring_in_its_parts() -> None:
    doc = sources.parse(
        "Do it.\n\nAt length,\nfor long.\n\nSince      Linux 5.6 (more 6.0)    Man   a(3), b(2)\n"
        "CQE res    0;\n           < 0 -errno\nLimit      none"
    )
    assert doc.paragraphs == (("Do it.",), ("At length,", "for long."))
    assert doc.labels == {
        "Since": "Linux 5.6 (more 6.0)", "Man": "a(3), b(2)", "CQE res": "0; < 0 -errno", "Limit": "none"
    }  # fmt: skip
    assert doc.releases == ["5.6", "6.0"]
    assert doc.example == ()


def test_the_example_of_a_docstring() -> None:
    doc = sources.parse("Do it.\n\nExample\n    for it in ():\n        do(it)\n\n    end()\n\nSince      Linux 5.6    Man   a(3)")
    assert doc.paragraphs == (("Do it.",),) and doc.labels == {"Since": "Linux 5.6", "Man": "a(3)"}
    assert doc.example == ("for it in ():", "    do(it)", "", "end()")


def test_what_a_source_lacks_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    (tmp_path / "room.py").write_text("def without() -> None: ...\n\ndef bare() -> None:\n    \"\"\"Do it.\"\"\"\n")
    without, bare = sources.functions("room.py")
    with pytest.raises(sources.SourceError, match=r"room\.py: without has no docstring$"):
        assert without.summary
    with pytest.raises(sources.SourceError, match=r"room\.py: the docstring of bare has no line 'Man'$"):
        bare.label("Man")
    (tmp_path / "room.py").write_text("def (")
    with pytest.raises(sources.SourceError, match=r"room\.py, line 1: "):
        sources.functions("room.py")
    monkeypatch.setattr(reference, "page", lambda: sources.functions("room.py"))
    assert reference.main(["--check"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_text_means_itself() -> None:
    assert markdown.text("2**63 < `a*b` <tag> _x a_b") == r"2\*\*63 < `a*b` \<tag> \_x a_b"
    assert markdown.table(["a"], [["x | y"]]) == ["| a |", "| --- |", r"| x \| y |"]
    assert markdown.paragraph(["one  first", "     of all", "two  next"]) == ["* `one` first of all", "* `two` next"]
    assert markdown.paragraph(["one  first", "two, three", "     both"]) == ["* `one` first", "* `two, three` both"]
    assert markdown.paragraph(["    one(*two)", "        three"]) == ["    one(*two)", "        three"]


# --- the program


def test_check_says_why_in_a_line(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "page", lambda: page)
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    monkeypatch.setattr(reference, "PAGE", tmp_path / "docs" / "reference.md")
    assert reference.main(["--check"]) == 1
    assert reference.main(["--write"]) == 0
    assert reference.main(["--check"]) == 0
    reference.PAGE.write_text(page.replace("\n## ", "\n### ", 1))
    assert reference.main(["--check"]) == 1
    with pytest.raises(SystemExit, match="2"):
        reference.main(["--check", "--write"])
    told = capsys.readouterr()
    assert told.out == ""
    missing, old = told.err.splitlines()[:2]
    assert "docs/reference.md cannot be read (No such file or directory): run python3 tools/reference.py" in missing
    assert re.search(r"out of date from line \d+ on: run python3 tools/reference.py --write", old)
