"""What the probe prints of a report, what it requires of one, and its command line. No kernel is asked."""

from __future__ import annotations

import copy
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from test_probe_document import SAVED, report

from rawuring.probe import arguments, command, document, fallback, main, requirements, schema, text
from rawuring.probe.errors import UsageError
from rawuring.probe.page import MAX_WIDTH, Page, printable

pytestmark = pytest.mark.portable

ESCAPE = re.compile(r"\x1b\[\d+m")
BLOCKED = "io_uring_setup failed with EPERM: a seccomp filter (probably Docker's) refuses io_uring's system calls."


def blocked() -> dict[str, Any]:
    """A report of a process that may not use io_uring."""
    found = report()
    found["verdict"] = {"status": "blocked", "exit_code": 3, "summary": BLOCKED}
    for call in found["access"]["calls"]:
        call.update(result="EPERM", meaning="refused")
    found["access"]["ring"] = BLOCKED
    found["diagnosis"] = [
        {
            "cause": "seccomp", "confidence": "certain", "sentence": BLOCKED, "fix": "Allow it.",
            "evidence": ["one", "two"],
        },
    ]  # fmt: skip
    for table, row in document.rows(found):
        row.update(present=None, state="not run" if table is document.BEHAVIOUR else "unknown")
        row.update({} if table is document.BEHAVIOUR else {"source": None})
    return found


def lines_of(found: dict[str, Any], width: int = 80, *, has_colour: bool = False, details: bool = False) -> list[str]:
    page = Page(width, has_colour)
    text.report(found, page, details=details)
    return page.lines


# --- text


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
@pytest.mark.parametrize("details", [False, True])
def test_a_report_fits_its_terminal(path: Path, details: bool) -> None:
    found = json.loads(path.read_text())
    narrow, wide = lines_of(found, 80, details=details), lines_of(found, 120, details=details)
    assert max(map(len, narrow)) <= 80 < max(map(len, wide)) <= 120
    assert len(wide) < len(narrow)


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_report_names_everything_that_was_found(path: Path) -> None:
    found = json.loads(path.read_text())
    words = set(re.findall(r"\w+", "\n".join(lines_of(found))))
    assert {row["name"] for _, row in document.rows(found) if row["present"] is not None} <= words
    assert {row["since"] for _, row in document.rows(found) if row["state"] == "later"} <= set(
        re.findall(r"\d+\.\d+", "\n".join(lines_of(found)))
    )
    details = "\n".join(lines_of(found, details=True))
    for table in document.TABLES[:4]:
        for row in found[table.key]:
            assert re.search(rf"^  {row['name']} +{row['since']} +{row['state']}\b", details, re.MULTILINE)
            assert row["man"] in details


def test_colour_changes_nothing_else() -> None:
    for found in report(), blocked():
        for details in False, True:
            coloured = lines_of(found, has_colour=True, details=details)
            assert "\x1b[32mok\x1b[0m" in "\n".join(coloured) or found["diagnosis"]
            assert [ESCAPE.sub("", line) for line in coloured] == lines_of(found, details=details)


def test_a_verdict_has_its_cause_and_what_to_do() -> None:
    lines = lines_of(blocked())
    assert " ".join(lines[:2]) == BLOCKED
    assert lines[2:4] == ["  To do  Allow it.", "  Cause  seccomp (certain)"]
    assert "  system calls       refused (EPERM, EPERM, EPERM)" in lines
    assert "  a ring             cannot be made" in lines
    assert "Operations: not found out" in lines and "Behaviour: not run" in lines
    assert "  Seen   one; two" in lines_of(blocked(), details=True)


def test_a_summary_has_a_line_for_each_section() -> None:
    page = Page()
    text.summary(report(), page)
    rows = [line.split() for line in page.lines]
    assert ["Set-up", "flags", "19", "of", "21"] in rows and ["Surprises", "none"] in rows and len(rows) < 12


def test_every_state_is_shown() -> None:
    found = report()
    for row, state in zip(found["opcodes"], ("missing", "backport", "later", "unknown")):
        row.update(state=state, present={"backport": True, "unknown": None}.get(state, False))
    found["beyond"]["opcodes"] = 2
    found["surprises"] = [
        {"section": "opcodes", "name": name, "state": "missing", "explanation": "Why."} for name in ("NOP", "READV")
    ]
    lines = lines_of(found)
    for line in (
        "  missing   5.1: NOP", "  backport  5.1: READV", "  unknown   5.1: FSYNC",
        "  unknown   2 more that this program does not know", "  Operations, missing: NOP READV", "    Why.",
    ):  # fmt: skip
        assert line in lines


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"io_uring_group": 7, "is_in_group": False}, "io_uring_group     7, this process is not in it"),
        ({"io_uring_disabled": 2}, "io_uring_disabled  2: nobody may make a ring"),
        ({"io_uring_disabled": None}, "io_uring_disabled  no such sysctl to be read (it came with Linux 6.6)"),
        ({"seccomp_mode": 2, "seccomp_filters": 3}, "seccomp            filtered, 3 in force"),
        ({"seccomp_mode": 0, "no_new_privs": True}, "seccomp            no filter, no_new_privs is set"),
        ({"lsm": []}, "security modules   none"),
        ({"lsm": ["a", "b"]}, "security modules   a, b"),
        ({"container": None}, "container          none seen"),
        ({"capabilities": {"A": True, "B": False, "C": None}}, "capabilities       A; not B; unknown C"),
        ({"capabilities": {}}, "capabilities       unknown"),
    ],
)  # fmt: skip
def test_access_in_words(change: dict[str, Any], line: str) -> None:
    found = report()
    found["access"].update(change)
    assert f"  {line}" in lines_of(found)


def test_locked_memory_in_words() -> None:
    limit = {
        "soft_nbytes": 65536, "hard_nbytes": 100, "is_unlimited": False, "is_charged": True, "largest_ring_entries": 64,
    }  # fmt: skip
    assert text.memlock(limit) == "64 KiB, at most 100 bytes; rings count against it; the largest ring has 64 entries"
    assert text.memlock({**limit, "is_unlimited": True}) == "unlimited"


def test_calls_that_differ_have_a_line_each() -> None:
    found = report()["access"]["calls"]
    found[0].update(result="EPERM", meaning="refused")
    assert text.calls(found) == [
        ("io_uring_setup", "refused (EPERM)"),
        ("io_uring_enter", "reachable (EBADF)"),
        ("io_uring_register", "reachable (EINVAL)"),
    ]


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    assert printable("a\x1b[2J\n\u202e\ud800é") == r"a\x1b[2J\n\u202e\ud800é"
    found = report()
    found["kernel"]["release"] = "\x1b]0;title\x07"
    assert all(line.isprintable() for line in lines_of(found))


def test_a_table_too_wide_continues_below() -> None:
    page = Page(40)
    page.table([("name", "5.1", "ok", "a" * 30), ("n", "6.10", "later", "")], ["", ""], styled=2)
    assert page.lines == ["  name  5.1   ok", "    " + "a" * 30, "  n     6.10  later"]
    page = Page(40)
    page.entry("a label that is long", "text", column=30)
    assert page.lines == ["  a label that is long", "    text"]


def test_the_readme_shows_what_is_printed() -> None:
    shown = re.findall(r"```text\n(io_uring .*?)```", (SAVED[0].parents[3] / "README.md").read_text(), re.DOTALL)
    found = report()
    for row in found["behaviour"]:
        row.update(present=None, state="not run")
    assert len(shown) == 1
    assert set(shown[0].splitlines()) - {"[...]", "            [...]"} <= set(lines_of(found))


# --- requirements


@pytest.mark.parametrize(
    ("name", "kernel_name"),
    [
        ("RECV_ZC", "IORING_OP_RECV_ZC"),
        ("recv_zc", "IORING_OP_RECV_ZC"),
        ("IORING_OP_RECV_ZC", "IORING_OP_RECV_ZC"),
        ("ioring_setup_defer_taskrun", "IORING_SETUP_DEFER_TASKRUN"),
        ("Ext_Arg", "IORING_FEAT_EXT_ARG"),
        ("IORING_REGISTER_FILES_UPDATE", "IORING_REGISTER_FILES_UPDATE"),
        ("op:files_update", "IORING_OP_FILES_UPDATE"),
        ("Register:FILES_UPDATE", "IORING_REGISTER_FILES_UPDATE"),
        ("SEND_ZC", "IORING_OP_SEND_ZC"),
        ("setup:sqpoll", "IORING_SETUP_SQPOLL"),
        ("send_zc", None),
        ("sqpoll", None),
        ("RECV_Multishot", None),
    ],
)
def test_a_name_means_one_row(name: str, kernel_name: str | None) -> None:
    table, row = requirements.resolve(report(), name)
    assert row.get("kernel_name") == kernel_name
    assert (table is document.BEHAVIOUR) == (kernel_name is None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RECVX", "there is nothing called RECVX: did you mean RECV"),
        ("defer_task_run", "did you mean DEFER_TASKRUN"),
        ("zzz", "there is nothing called zzz; -v shows every name"),
        ("FILES_UPDATE", "is an operation and a register operation: write op:FILES_UPDATE or register:FILES_UPDATE"),
        ("Send_ZC", "is an operation and a behaviour: write op:SEND_ZC or behaviour:send_zc"),
        ("setup:RECV", "there is nothing called setup:RECV"),
        ("verb:PROBE", "there is no prefix verb: (there are feature:, setup:, op:, register:, behaviour:)"),
        (":RECV", "there is no prefix :"),
        ("op:", "there is nothing called op:"),
    ],
)
def test_a_name_that_means_none_or_several(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        requirements.resolve(report(), name)


@pytest.mark.parametrize(
    ("answers", "status"),
    [([], 0), ([True], 0), ([True, False], 1), ([True, None], 5), ([None, False], 1)],
)
def test_the_exit_status_of_what_is_required(answers: list[bool | None], status: int) -> None:
    assert requirements.exit_status(report(), answers) == status
    assert requirements.exit_status(blocked(), answers) == 3


# --- the command line, on a report that is given


class Run:
    """Runs the program in this process on a report, and keeps what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.found, self.runs = report(), list[bool]()
        self.capsys = capsys
        monkeypatch.setattr(command, "examine", self.examine)

    def examine(self, run: bool) -> dict[str, Any]:
        self.runs.append(run)
        found = copy.deepcopy(self.found)
        if not run:
            for row in found["behaviour"]:
                row.update(present=None, state="not run")
        return found

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        return (status, *self.capsys.readouterr())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


def test_help_tells_the_exit_statuses(run: Run) -> None:
    status, output, errors = run("--help")
    assert (status, errors, run.runs) == (0, "", [])
    assert "--require" in output and "3  a policy blocks it" in output


@pytest.mark.parametrize(
    "wrong",
    [
        ["--frob"], ["more"], ["--color", "blue"], ["--require", ""], ["--require", "RECV,,SEND"], ["--require"],
        ["--compare", "/no/such/file"], ["--compare", ""], ["--for", ""], ["--for", "no_such_program"],
        ["--for", "../echo"], ["--for", "json"], ["--for", "os.path"], ["--summary", "-v"], ["-v", "-j"],
        ["-j", "--compare", "x"],
        ["--require", "nothing"], ["--run=1"], ["--req", "RECV"],
    ],
)  # fmt: skip
def test_bad_usage_is_told_in_a_line(run: Run, wrong: list[str]) -> None:
    status, output, errors = run(*wrong)
    assert (status, output) == (2, "")
    assert errors.startswith("probe: ") and errors.count("\n") == 1


def test_what_is_asked_decides_what_is_printed(run: Run) -> None:
    report_, summary = run("-v")[1], run("--summary")[1]
    assert len(report_) > len(run()[1]) > len(summary)
    answer = run("--require", "RECV")[1]
    assert answer.endswith("\nRequired: 1 of 1\n  RECV  operation: ok\n") and "Access" not in answer
    assert run("-v", "--require", "RECV")[1] == report_ + "\nRequired: 1 of 1\n  RECV  operation: ok\n"
    assert json.loads(run("--run", "--json")[1]) == run.found
    assert run.runs == [False] * 5 + [True]


def test_what_is_missing_is_told_with_its_release(run: Run) -> None:
    run.found["opcodes"][1].update(present=False, state="missing")
    run.found["opcodes"][3].update(present=None, state="unknown")
    run.found["opcodes"][4].update(present=True, state="backport", since="9.9")
    status, output, _ = run("--require", "RECV,NOP128", "--require", " readv")
    assert status == 1
    assert "  RECV    operation: ok\n" in output
    assert "  NOP128  operation: missing, needs Linux 6.19\n" in output
    assert "  READV   operation: missing, though Linux 5.1 brought it\n" in output
    assert run("--require", "RECV,FSYNC")[0] == 5
    status, output, _ = run("--require", "READ_FIXED")
    assert status == 0 and "READ_FIXED  operation: ok, though Linux 9.9 brought it\n" in output


def test_a_behaviour_that_is_required_is_run(run: Run) -> None:
    status, output, _ = run("--require", "RECV,recv_multishot")
    assert (status, run.runs) == (0, [False, True])
    assert "recv_multishot  behaviour: ok" in output
    run.found = blocked()
    assert run("--require", "recv_multishot")[0] == 3
    assert run.runs[2:] == [False]


def test_json_is_printed_whatever_was_found(run: Run) -> None:
    for found, status in ((blocked(), 3), (fallback.report("Something failed."), 5)):
        run.found = found
        ended, output, errors = run("-j", "--require", "RECV")
        assert (ended, errors) == (status, "")
        assert schema.problem(json.loads(output), document.schema()) is None


def test_where_nothing_was_found_out_the_verdict_is_all(run: Run) -> None:
    run.found = fallback.report("Something failed.")
    for options in ([], ["--summary"], ["-v"], ["--require", "RECV"], ["--for", "echo"]):
        status, output, errors = run(*options)
        assert (status, errors) == (5, "") and output.startswith("Something failed.\n")


def needs_of(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> str:
    """The name of a program whose needs are this source."""
    name = f"program_{len(sys.modules)}"
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    (folder / name / "needs.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    return name


def test_the_modes_of_a_program(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "MODES = {'new': ('NOP128', 'RECV'), 'good': ('recv_multishot',), 'odd': ()}\nAUTO = ('new', 'good')\n"
    name = needs_of(tmp_path, monkeypatch, source)
    status, output, _ = run("--for", name)
    assert status == 0
    assert f"\n{name}: mode good would be chosen\n" in output
    assert "\n  new   cannot: NOP128 (missing, needs Linux 6.19)\n  good  can\n  odd   can\n" in output
    next(row for row in run.found["behaviour"] if row["name"] == "recv_multishot").update(present=False, state="later")
    status, output, _ = run("--for", name)
    assert status == 1 and "  good  cannot: recv_multishot (missing, needs Linux 6.0)" in output
    assert f"{name}: no mode to choose can run here" in output
    run.found = blocked()
    status, output, _ = run("--for", name)
    assert status == 3 and output.endswith(f"\n{name}: no mode can run here as long as io_uring cannot be used\n")


@pytest.mark.parametrize(
    "source",
    [
        "", "MODES = 1; AUTO = ()", "MODES = {'a': 1}; AUTO = ()", "MODES = {}", "1/0", "raise SystemExit",
        "import no_such", "(",
    ],
)  # fmt: skip
def test_needs_that_say_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    status, output, errors = run("--for", needs_of(tmp_path, monkeypatch, source))
    assert (status, output) == (2, "") and errors.count("\n") == 1


def test_needs_of_something_that_is_not(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = needs_of(tmp_path, monkeypatch, "MODES = {'a': ('RECVX',)}; AUTO = ('a',)")
    status, _, errors = run("--for", name)
    assert status == 2 and f"{name}.needs: there is nothing called RECVX" in errors


def test_a_fault_of_our_own_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rawuring import capability

    monkeypatch.setattr(capability, "examine", lambda run: 1 // 0)
    assert main(["-j"]) == 5
    output, errors = capsys.readouterr()
    found = json.loads(output)
    assert schema.problem(found, document.schema()) is None and errors == ""
    assert found["verdict"]["summary"].startswith("The probe itself failed: ZeroDivisionError")
    assert "test_probe_text.py, line" in found["verdict"]["summary"]


def test_random_command_lines(run: Run, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report()))
    (tmp_path / "odd.json").write_text("{}")
    words = [
        "--summary", "-v", "--verbose", "-j", "--json", "--run", "--require", "--for", "--compare", "--color", "-h",
        "--help", "--require=RECV,recv_multishot", "--for=echo", "--color=always", "RECV", "op:RECV", "echo", "always",
        "--", "-", "", str(tmp_path / "report.json"), str(tmp_path / "odd.json"), str(tmp_path), "-jv", "--run=",
        "\udcff", "\0", "a" * 5000, "\x1b[31m", "%s", "{}", ":", "::", ",", "setup:", "-1", "@file", "--compare=", "é",
    ]  # fmt: skip
    chance = random.Random(7)
    ends = set()
    for _ in range(400):
        line = [chance.choice(words) for _ in range(chance.randint(0, 4))]
        status, output, errors = run(*line)
        assert 0 <= status <= 5, line
        assert errors.count("\n") == (status == 2), line
        assert bool(output) != (status == 2), line
        ends.add(status)
    assert ends >= {0, 2}


# --- where it is printed


class Output:
    """A standard output that says what it is."""

    def __init__(self, is_terminal: bool) -> None:
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.mark.parametrize(
    ("choice", "is_terminal", "environment", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1", "TERM": "dumb"}, True),
        ("never", True, {}, False),
    ],
)
def test_when_there_is_colour(
    monkeypatch: pytest.MonkeyPatch, choice: str, is_terminal: bool, environment: dict[str, str], expected: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    output: Any = Output(is_terminal)
    assert arguments.has_colour(choice, output) is expected
    assert arguments.has_colour(choice, None) is (choice == "always")


@pytest.mark.parametrize(
    ("columns", "width"), [("", 80), ("120", 120), ("0", 80), ("-5", 80), ("x", 80), ("9" * 99, 80)]
)
def test_the_width_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with open("/dev/null", "w") as output:
        assert arguments.width(output) == width
    assert arguments.width(None) == width


def test_a_page_is_neither_too_narrow_nor_too_wide() -> None:
    assert (Page(1).width, Page(10**6).width) == (40, MAX_WIDTH)
