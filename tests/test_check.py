"""The parts of tools/check.py that need no network and no virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import check
from tools.check import Python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
CHECK = ROOT / "tools" / "check.py"


def python(
    version: str, path: str = "", implementation: str = "cpython", label: str = "", prefix: str = ""
) -> Python:
    minor = int(version.split(".")[1])
    return Python(
        path or f"/p/{version}", implementation, version, label or f"3.{minor}", minor, prefix or f"/p/{version}"
    )


def fake_python(folder: Path, name: str, answer: str) -> str:
    """An executable that answers check.py's question with `answer`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return str(path)


def test_describes_the_running_interpreter() -> None:
    found = check.describe(sys.executable)
    assert found is not None and found.is_usable
    assert found.minor == sys.version_info.minor
    assert found.version.rstrip("t") == sys.version.split()[0].rstrip("+")
    assert found.prefix == os.path.realpath(sys.base_prefix)


@pytest.mark.parametrize(
    ("answer", "version", "label", "usable"),
    [
        ('["cpython", [3, 12, 1, "final", 0], "", "/p"]', "3.12.1", "3.12", True),
        ('["cpython", [3, 15, 0, "beta", 2], "", "/p"]', "3.15.0b2", "3.15", True),
        ('["cpython", [3, 14, 0, "candidate", 3], "", "/p"]', "3.14.0rc3", "3.14", True),
        ('["cpython", [3, 13, 0, "final", 0], "t", "/p"]', "3.13.0t", "3.13t", True),
        ('["cpython", [3, 9, 18, "final", 0], "", "/p"]', "3.9.18", "3.9", False),
        ('["pypy", [3, 10, 14, "final", 0], "", "/p"]', "3.10.14", "3.10", False),
    ],
)
def test_describes_other_interpreters(tmp_path: Path, answer: str, version: str, label: str, usable: bool) -> None:
    found = check.describe(fake_python(tmp_path, "python3", answer))
    assert found is not None
    assert (found.version, found.label, found.is_usable) == (version, label, usable)


@pytest.mark.parametrize("answer", ["", "hello", "[1, 2]", '["cpython", [2, 7, 18, "final", 0], "", "/p"]'])
def test_what_is_no_python_3_is_passed_over(tmp_path: Path, answer: str) -> None:
    assert check.describe(fake_python(tmp_path, "python3", answer)) is None
    assert check.describe(str(tmp_path / "absent")) is None


def test_candidates_come_from_path_then_from_known_folders(tmp_path: Path) -> None:
    on_path = [fake_python(tmp_path / "bin", name, "") for name in ("python3", "python3.13t")]
    for name in ("python", "python3-config", "python3.12-gdb.py", "pip3"):
        fake_python(tmp_path / "bin", name, "")
    (tmp_path / "bin" / "python3.11").write_text("not executable")
    (tmp_path / "bin" / "python3.10").symlink_to("python3")
    version = tmp_path / "pyenv" / "versions" / "3.12.1" / "bin"
    version.mkdir(parents=True)
    in_pyenv = fake_python(version, "python3.12", "")
    found = check.candidate_paths(
        search_path=f"{tmp_path / 'bin'}:{tmp_path / 'absent'}:",
        home=str(tmp_path),
        pyenv=str(tmp_path / "pyenv"),
        prefix="/absent",
    )
    assert [path for path in found if path.startswith(str(tmp_path))] == [*on_path, in_pyenv]


def test_one_group_for_each_version_and_the_running_one_first() -> None:
    first = python("3.12.1")
    others = [
        python("3.13.0"),
        python("3.11.7"),
        python("3.12.1", path="/again"),
        python("3.11.2"),
        python("3.11.2", path="/elsewhere", prefix="/elsewhere"),
        python("3.13.0t", label="3.13t"),
        python("3.9.18"),
        python("3.10.14", implementation="pypy"),
    ]
    groups = check.group_by_version(first, others)
    assert {version: [p.path for p in group] for version, group in groups.items()} == {
        "3.12.1": ["/p/3.12.1"],
        "3.11.7": ["/p/3.11.7"],
        "3.11.2": ["/p/3.11.2", "/elsewhere"],
        "3.13.0": ["/p/3.13.0"],
        "3.13.0t": ["/p/3.13.0t"],
    }
    assert next(iter(groups)) == "3.12.1"


def test_requirements_are_those_of_the_test_extra() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    requirements = check.test_requirements(text)
    assert [requirement.split(">")[0] for requirement in requirements] == ["pytest", "mypy", "jsonschema"]
    if sys.version_info >= (3, 11):
        import tomllib

        assert requirements == tomllib.loads(text)["project"]["optional-dependencies"]["test"]
    with pytest.raises(check.MissingError, match="test"):
        check.test_requirements("[project]\n")


def test_no_network_is_said_in_words() -> None:
    output = "WARNING: Retrying ... NewConnectionError(...)\nERROR: Could not find a version"
    assert "no network" in check.pip_complaint(output)
    assert check.pip_complaint("noise\nERROR: No space left\nnoise") == "ERROR: No space left"


def test_an_interpreter_without_venv_and_pip_is_told_what_to_install(tmp_path: Path) -> None:
    bare = fake_python(tmp_path, "python3", "")
    Path(bare).write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(check.MissingError, match="apt install python3.12-venv"):
        check.make_venv(python("3.12.1", path=bare), tmp_path / "venv")


def test_bad_usage_ends_with_2() -> None:
    done = subprocess.run([sys.executable, str(CHECK), "--no-such-option"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_an_old_python_is_told_that_it_is_too_old() -> None:
    paths = check.candidate_paths(os.defpath, os.path.expanduser("~"), os.path.expanduser("~/.pyenv"), sys.base_prefix)
    old = [found for found in map(check.describe, paths) if found is not None and 6 <= found.minor < 10]
    if not old:
        pytest.skip("no Python 3.6 to 3.9 on this machine")
    oldest = min(old, key=lambda found: found.minor)
    done = subprocess.run([oldest.path, str(CHECK)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("tools/check.py needs Python 3.10 or later; this is " + oldest.version)


def test_a_python_without_an_environment_counts_as_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(candidate: Python, requirements: list[str]) -> str:
        if candidate.version in ("3.90.1", "3.91.1"):
            raise check.MissingError(f"Python {candidate.version} lacks a limb.")
        return "true"

    groups = {"3.90": [python("3.90.1"), python("3.90.0")], "3.91": [python("3.91.1")]}
    monkeypatch.setattr(check, "prepare", prepare)
    monkeypatch.setattr(check, "find_pythons", lambda first: {first.version: [first], **groups})
    assert check.main(["--all-pythons", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "Python 3.91.1 lacks a limb.\nThe tests do NOT run on Python 3.91.1." in said
    summary = said.splitlines()[-1]
    assert "tests on 3.90.0; not run: tests on 3.90.1, tests on 3.91.1" in summary


def test_a_failed_step_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "prepare", lambda candidate, requirements: "false")
    assert check.main(["--", "-q"]) == 1
    said = capsys.readouterr().out
    assert "== layers: python -m pytest -q tests/test_layers.py" in said
    assert said.splitlines()[-1].startswith("check.py: FAILED: mypy, layers, tests on ")


def test_a_step_that_never_ends_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "STEP_TIMEOUT_S", 0.1)
    report = check.Report()
    report.step(check.Step("wait", ["sleep", "60"]))
    assert report.failed == ["wait"]
    assert report.finish() == 1


def test_steps_at_once_keep_their_output_together(capfd: pytest.CaptureFixture[str]) -> None:
    words = "one", "two", "three"
    steps = [check.Step(word, ["sh", "-c", f"echo {word} begins; sleep 0.1; echo {word} ends"]) for word in words]
    report = check.Report()
    report.steps([*steps, check.Step("four", ["false"])], jobs=3)
    said = capfd.readouterr().out
    for word in words:
        assert f"{word} begins\n{word} ends\n-- {word}: passed" in said
    assert sorted(report.passed) == sorted(words)
    assert report.failed == ["four"]


def test_fewer_jobs_than_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check.main(["--jobs", "-1"])
    assert ended.value.code == 2
    assert "--jobs is at least 1" in capsys.readouterr().err
