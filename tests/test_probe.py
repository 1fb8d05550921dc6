"""The probe as people start it, on the kernel that is here: `python -m rawuring` and tools/probe.py."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import sandbox
from emulation import HANG_S
from test_probe_document import SAVED

from rawuring.probe import document, schema

ROOT = Path(__file__).resolve().parent.parent
TOOL = (str(ROOT / "tools" / "probe.py"),)
MODULE = ("-m", "rawuring")
ON_A_SAVED_REPORT = (
    "-c",
    "import json, pathlib, sys\nfrom rawuring.probe import command\n"
    f"command.examine = lambda run: json.loads(pathlib.Path({str(SAVED[0])!r}).read_text())\nsys.exit(command.main())",
)
"""The program, on what another kernel said: it says the same each time."""


UNWANTED = ("NO_COLOR", "COLUMNS", "PYTHONDEVMODE", "PYTHONUNBUFFERED")


def environment(**more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    return {**plain, "TERM": "xterm", "PYTHONPATH": str(ROOT), **more}


def probe(*arguments: str, program: tuple[str, ...] = TOOL, cwd: Path = ROOT, **more: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, *program, *arguments], cwd=cwd, env=environment(**more), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=HANG_S,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def found(*arguments: str) -> dict[str, Any]:
    """The report of this kernel, which is valid."""
    status, output, errors = probe("--json", *arguments)
    assert (status, errors) == (0, "")
    report: dict[str, Any] = json.loads(output)
    assert schema.problem(report, document.schema()) is None
    return report


def test_both_programs_say_the_same(tmp_path: Path) -> None:
    status, output, errors = probe()
    assert (status, errors) == (0, "") and "\x1b" not in output
    titles = ["Access", "Features", "Set-up flags", "Operations", "Register operations", "Behaviour", "Surprises"]
    assert re.findall(r"^([A-Z][a-z -]+)\b(?=:|$)", output, re.MULTILINE) == titles
    assert max(map(len, output.splitlines())) <= 80
    status, again, errors = probe(program=MODULE, cwd=tmp_path)
    assert (status, errors) == (0, "") and again.splitlines()[:5] == output.splitlines()[:5]


def test_the_report_is_valid_and_knows_this_kernel() -> None:
    report = found()
    assert report["kernel"]["release"] == os.uname().release
    assert report["verdict"]["status"] == "usable" and report["diagnosis"] == []
    assert {row["state"] for row in report["behaviour"]} == {"not run"}
    nop = report["opcodes"][0]
    assert (nop["name"], nop["kernel_name"], nop["present"]) == ("NOP", "IORING_OP_NOP", True)


def test_every_report_has_the_rows_of_the_saved_ones() -> None:
    """A row that went would break the script that requires it."""
    here = {(table.key, row["name"]) for table, row in document.rows(found())}
    for path in SAVED:
        assert {(table.key, row["name"]) for table, row in document.rows(json.loads(path.read_text()))} <= here


def test_what_is_required_of_this_kernel() -> None:
    assert probe("--require", "READ,op:FILES_UPDATE,IORING_FEAT_NODROP")[0] == 0
    report = found("--run")
    assert {row["state"] for row in report["behaviour"]}.isdisjoint({"not run"})
    last = report["setup_flags"][-1]
    assert probe("--require", last["kernel_name"])[0] == (0 if last["present"] else 1)
    status, output, _ = probe("--require", "linked_timeout")
    assert status == 0 and "linked_timeout  behaviour: ok" in output


def test_the_echo_server_has_a_mode_here() -> None:
    status, output, errors = probe("--for", "echo")
    assert (status, errors) == (0, "")
    assert re.search(r"^echo: mode [\w-]+ would be chosen$", output, re.MULTILINE)
    assert re.search(r"^  recv-send +can$", output, re.MULTILINE)


@pytest.mark.portable
def test_without_its_checkout_a_program_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "rawuring").symlink_to(ROOT / "rawuring")
    status, output, errors = probe("--for", "echo", program=MODULE, cwd=tmp_path, PYTHONPATH="")
    assert (status, output) == (2, "")
    assert errors.startswith("probe: --for echo: there is no module echo.needs ") and errors.count("\n") == 1


def test_a_report_is_compared_with_an_earlier_one(tmp_path: Path) -> None:
    earlier = tmp_path / "report.json"
    earlier.write_text(probe("--json")[1])
    status, output, errors = probe("--compare", str(earlier))
    assert (status, errors) == (0, "") and "\nKernel\n" not in output and "\nOperations" not in output
    saved = {json.loads(path.read_text())["kernel"]["release"]: path for path in SAVED}
    release, path = next(item for item in saved.items() if item[0] != os.uname().release)
    status, output, errors = probe("--compare", str(path))
    assert (status, errors) == (0, "")
    assert re.search(rf"^  release +{re.escape(release)} -> {re.escape(os.uname().release)}$", output, re.MULTILINE)
    status, output, errors = probe("--compare", __file__)
    assert (status, output) == (2, "")
    assert errors.startswith(f"probe: {__file__}: not JSON: ") and errors.count("\n") == 1


# --- blocked: on every kernel test_triage_live.py has more of it


@pytest.mark.portable
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_filter_is_told_with_what_to_do(number: int) -> None:
    def look() -> tuple[tuple[int, str, str], ...]:
        sandbox.install_filter(sandbox.RET_ERRNO | number, sandbox.CALLS)
        return probe(), probe("--json", "--require", "READ"), probe("--for", "echo")

    text, as_json, program = sandbox.in_child(look)
    report = json.loads(as_json[1])
    assert schema.problem(report, document.schema()) is None
    is_hidden = number == errno.ENOSYS and report["diagnosis"][0]["cause"] == "absent"
    for status, _, errors in (text, as_json, program):
        assert (status, errors) == (4 if is_hidden else 3, "")
    assert report["verdict"]["exit_code"] == text[0]
    assert "\n  To do  " in text[1] and ("seccomp" in text[1] or is_hidden)
    assert program[1].endswith("\necho: no mode can run here as long as io_uring cannot be used\n")


@pytest.mark.portable
def test_a_filter_that_kills_does_not_kill_the_probe() -> None:
    def look() -> tuple[int, str, str]:
        sandbox.install_filter(sandbox.RET_KILL_PROCESS, sandbox.CALLS)
        return probe("--json")

    status, output, errors = sandbox.in_child(look)
    assert (status, errors) == (3, "")
    assert json.loads(output)["diagnosis"][0]["cause"] == "seccomp"


@pytest.mark.portable
def test_whoever_started_it_may_ignore_its_children() -> None:
    """SIGCHLD that is ignored stays so across an exec, and then no child's end is told."""
    ignoring = (
        "import os, signal, sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"os.execv(sys.executable, [sys.executable, {TOOL[0]!r}, '--json'])"
    )

    def look() -> tuple[int, str, str]:
        sandbox.install_filter(sandbox.RET_KILL_PROCESS, sandbox.CALLS)
        return probe(program=("-c", ignoring))

    status, output, errors = sandbox.in_child(look)
    assert (status, errors) == (3, "")
    assert json.loads(output)["diagnosis"][0]["confidence"] == "certain"


# --- where it prints


def on_a_terminal(columns: int, *arguments: str, **more: str) -> str:
    """What a terminal of so many columns was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, *ON_A_SAVED_REPORT, *arguments],
        env=environment(**more), stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:
        os.close(theirs)
        sent = bytearray()
        try:
            while octets := os.read(ours, 1 << 16):
                sent += octets
        except OSError as error:  # the other end of a terminal is closed
            assert error.errno == errno.EIO
    os.close(ours)
    assert process.returncode == 0, sent
    return sent.decode().replace("\r\n", "\n")


@pytest.mark.portable
def test_a_terminal_has_colours_and_its_width() -> None:
    narrow, wide = on_a_terminal(80), on_a_terminal(132)
    assert "\x1b[32mok\x1b[0m" in narrow and "\x1b[1mOperations:\x1b[0m" in wide
    bare = re.sub(r"\x1b\[\d+m", "", narrow)
    assert max(map(len, bare.splitlines())) <= 80
    assert max(map(len, re.sub(r"\x1b\[\d+m", "", wide).splitlines())) > 100
    assert on_a_terminal(80, NO_COLOR="1") == on_a_terminal(80, "--color", "never") == bare
    assert probe(program=ON_A_SAVED_REPORT)[1] == bare


@pytest.mark.portable
def test_colour_in_a_pipe_where_it_was_asked_for() -> None:
    assert "\x1b[1mAccess\x1b[0m" in probe("--color", "always", program=ON_A_SAVED_REPORT, NO_COLOR="1")[1]


@pytest.mark.portable
def test_a_terminal_that_cannot_show_a_letter(tmp_path: Path) -> None:
    strange = json.loads(SAVED[0].read_text())
    strange["kernel"]["release"] = "é\ud800\x1b[31m"
    path = tmp_path / "report.json"
    path.write_text(json.dumps(strange))
    arguments = ("--compare", str(path))
    status, output, errors = probe(*arguments, program=ON_A_SAVED_REPORT, PYTHONIOENCODING="ascii:strict")
    assert (status, errors) == (0, "") and r"Linux \xe9\ud800\x1b[31m" in output


@pytest.mark.portable
@pytest.mark.parametrize("arguments", [(), ("--json",), ("-v",)])
def test_a_reader_who_has_gone_away(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, *TOOL, *arguments],
            env=environment(), stdout=closed, stderr=subprocess.PIPE, timeout=HANG_S,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.portable
@pytest.mark.parametrize(
    ("command", "status", "errors"),
    [
        ("exec {} >&-", 0, ""),
        ("exec {} --help >&-", 0, ""),
        ("exec {} >&- 2>&- <&-", 0, ""),
        ("exec {} --frob 2>&-", 2, ""),
        ("exec {} --frob 2>/dev/full", 2, ""),
        ("exec {} > /dev/full", 5, "probe: cannot write: No space left on device\n"),
    ],
)
def test_an_output_that_cannot_be_written(command: str, status: int, errors: str) -> None:
    line = command.format(f"'{sys.executable}' '{TOOL[0]}'")
    done = subprocess.run(
        ["sh", "-c", line], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=HANG_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "", errors)


@pytest.mark.portable
def test_ctrl_c_ends_it_quietly() -> None:
    code = (
        "import os, signal, sys\nfrom rawuring.probe import command\n"
        "command.examine = lambda run: os.kill(os.getpid(), signal.SIGINT)\nsys.exit(command.main())"
    )
    assert probe(program=("-c", code)) == (128 + signal.SIGINT, "", "")


# --- where there is none

PRELUDES = {
    "another Python": (
        "import sys, types\n"
        "sys.implementation = types.SimpleNamespace(**{**vars(sys.implementation), 'name': 'snake'})",
        "rawuring needs CPython, ", 5,
    ),
    "32 bits": ("import sys\nsys.maxsize = 2**31 - 1", "rawuring needs a 64-bit Python: ", 5),
    "no ctypes": ("import sys\nsys.modules['_ctypes'] = None", "rawuring needs ctypes, ", 5),
    "another system": (
        "import sys, os\nsys.platform = 'plan9'\ndel os.uname",
        "io_uring is a part of Linux, and this is plan9", 4,
    ),
    "too old": ("import sys\nsys.version_info = (3, 9, 18, 'final', 0)", "rawuring needs Python 3.10 or later; ", 5),
}  # fmt: skip


@pytest.mark.portable
@pytest.mark.parametrize("name", PRELUDES)
def test_where_rawuring_cannot_be_imported(tmp_path: Path, name: str) -> None:
    prelude, said, expected = PRELUDES[name]
    (tmp_path / "sitecustomize.py").write_text(prelude)
    path = f"{tmp_path}:{ROOT}"
    status, output, errors = probe(PYTHONPATH=path)
    assert (status, errors) == (expected, "") and output.startswith(said) and output.count("\n") == 1
    status, output, errors = probe("-j", PYTHONPATH=path)
    report = json.loads(output)
    assert (status, errors) == (expected, "") and report["verdict"]["summary"].startswith(said)
    assert schema.problem(report, document.schema()) is None


@pytest.mark.portable
@pytest.mark.parametrize("name", ["another Python", "32 bits", "no ctypes"])
def test_the_module_says_so_in_a_line(tmp_path: Path, name: str) -> None:
    prelude, said, _ = PRELUDES[name]
    (tmp_path / "sitecustomize.py").write_text(prelude)
    status, output, errors = probe(program=MODULE, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (status, output) == (1, "")
    assert errors.count("\n") == 1 and f"(ImportError: {said}" in errors


@pytest.mark.portable
def test_another_system_on_which_it_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.platform = 'plan9'")
    status, output, errors = probe("--json", program=MODULE, PYTHONPATH=f"{tmp_path}:{ROOT}")
    report = json.loads(output)
    assert (status, errors, report["verdict"]["status"]) == (4, "", "absent")
    assert schema.problem(report, document.schema()) is None


@pytest.mark.portable
def test_without_proc(tmp_path: Path) -> None:
    """As far as this process can tell."""
    hide = (
        "import builtins, os, sys\n"
        "def hiding(call):\n"
        "    def wrapped(path, *arguments, **keywords):\n"
        "        if str(path).startswith(('/proc', '/sys')): raise PermissionError(13, 'hidden')\n"
        "        return call(path, *arguments, **keywords)\n"
        "    return wrapped\n"
        "builtins.open, os.readlink = hiding(open), hiding(os.readlink)\n"
        "from rawuring.probe import main\n"
        "sys.exit(main())"
    )
    status, output, errors = probe("--json", program=("-c", hide))
    report = json.loads(output)
    assert (status, errors) == (0, "") and schema.problem(report, document.schema()) is None
    assert report["access"]["io_uring_disabled"] is None and report["access"]["seccomp_mode"] is None
