"""Check the whole project: python3 tools/check.py [--all-pythons] [--jobs N] [-- PYTEST_ARGUMENT ...]

Makes a virtual environment for the running Python in .venv/, installs pytest and mypy there
(once: later runs need no network), runs mypy --strict over rawuring, echo, tools and tests,
the import-layer test and all tests. --all-pythons repeats the tests on every CPython >= 3.10 of
this machine, one for each version, but for those marked one_python; one more at once than there
are CPUs, since tests also wait, and the output of each is shown when it ends. Arguments after --
go to pytest.

Exit status: 0 all passed, 1 something failed, 2 bad usage or something is missing here (one
sentence says what). With --all-pythons, another Python for which no environment can be made
counts as not run, not as failed.

Imports the standard library only, nothing of rawuring. Every Python 3.6 or later must be able
to parse this file, to be told in words that it is too old: keep to the grammar of 3.6.
"""

import sys

if sys.version_info < (3, 10):
    sys.stderr.write(
        "tools/check.py needs Python 3.10 or later; this is %s (%s). Start it with a newer one.\n"
        % (sys.version.split()[0], sys.executable)
    )
    sys.exit(2)

import argparse
import ast
import glob
import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venv"
CHECKED_FOLDERS = ["rawuring", "echo", "tools", "tests"]

# A hanging test ends itself (faulthandler_timeout); this ends a pytest that hangs outside a test.
STEP_TIMEOUT_S = 1200

# Where Pythons live besides PATH. A pattern that matches nothing costs nothing.
PYTHON_FOLDERS = [
    "/usr/bin",
    "/usr/local/bin",
    "/opt/*/bin",
    "/opt/hostedtoolcache/Python/*/*/bin",
    "{pyenv}/versions/*/bin",
    "{home}/.pyenv/versions/*/bin",
    "{home}/.local/bin",
    "{home}/.local/share/uv/python/*/bin",
    "{prefix}/../*/bin",
]
PYTHON_NAME = re.compile(r"python3(\.\d+t?)?")

PROBE = """
import json, sys
print(json.dumps([sys.implementation.name, list(sys.version_info), getattr(sys, "abiflags", ""), sys.base_prefix]))
"""


class MissingError(Exception):
    """Something that this machine lacks; the text is one sentence for the user."""


class Python(NamedTuple):
    """An interpreter of this machine, as it describes itself."""

    path: str
    implementation: str
    version: str  # 3.13.0, 3.14.0rc2; 3.13.0t is a free-threaded build
    label: str  # 3.13, 3.13t: what its folder of packages is named after
    minor: int
    prefix: str

    @property
    def is_usable(self) -> bool:
        return self.implementation == "cpython" and self.minor >= 10



def describe(path: str) -> Python | None:
    """Ask the interpreter at `path` what it is; None if it is no Python 3 that starts."""
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
        )
        implementation, version_info, abiflags, prefix = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    major, minor, micro, level, serial = version_info
    if major != 3:
        return None
    suffix = "" if level == "final" else {"alpha": "a", "beta": "b"}.get(level, "rc") + str(serial)
    free_threaded = "t" if "t" in abiflags else ""
    return Python(
        path,
        implementation,
        f"3.{minor}.{micro}{suffix}{free_threaded}",
        f"3.{minor}{free_threaded}",
        minor,
        os.path.realpath(prefix),
    )


def candidate_paths(search_path: str, home: str, pyenv: str, prefix: str) -> list[str]:
    """Every file that has a Python 3's name, in the order of preference, each once."""
    folders = [folder for folder in search_path.split(os.pathsep) if folder]
    for pattern in PYTHON_FOLDERS:
        folders += sorted(glob.glob(pattern.format(pyenv=pyenv, home=home, prefix=prefix)))
    paths: dict[str, str] = {}
    for folder in folders:
        if not os.path.isdir(folder):
            continue
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if PYTHON_NAME.fullmatch(name) and os.access(path, os.X_OK):
                paths.setdefault(os.path.realpath(path), path)
    return list(paths.values())


def group_by_version(first: Python, others: list[Python]) -> dict[str, list[Python]]:
    """The usable ones by version, each interpreter once; `first` comes first, then by age."""
    groups: dict[str, list[Python]] = {first.version: [first]}
    for python in sorted(others, key=lambda python: python.minor):
        if python.is_usable:
            group = groups.setdefault(python.version, [])
            if all(p.prefix != python.prefix for p in group):
                group.append(python)
    return groups


def find_pythons(first: Python) -> dict[str, list[Python]]:
    home = os.path.expanduser("~")
    paths = candidate_paths(
        search_path=os.environ.get("PATH", os.defpath),
        home=home,
        pyenv=os.environ.get("PYENV_ROOT", os.path.join(home, ".pyenv")),
        prefix=first.prefix,
    )
    found = [describe(path) for path in paths]
    return group_by_version(first, [python for python in found if python is not None])


def clean_environment() -> dict[str, str]:
    """The environment for our children: what would bend pip or the import path is left out."""
    bending = {"PYTHONPATH", "PYTHONHOME", "PYTHONDEVMODE", "PYTHONWARNINGS", "VIRTUAL_ENV", "PIP_REQUIRE_VIRTUALENV"}
    environment = {name: value for name, value in os.environ.items() if name not in bending}
    environment.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    return environment


def run_quietly(command: list[str]) -> tuple[bool, str]:
    """Run `command`; whether it succeeded and all it printed."""
    try:
        done = subprocess.run(
            command,
            cwd=str(ROOT),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        return False, str(error)
    return done.returncode == 0, done.stdout


def test_requirements(pyproject: str) -> list[str]:
    """The `test` extra of pyproject.toml. Python 3.10 has no TOML parser; a list of strings needs none."""
    line = re.search(r"^test = (\[.*\])$", pyproject, re.MULTILINE)
    if line is None:
        raise MissingError("pyproject.toml has no line `test = [...]` under optional-dependencies.")
    return [str(requirement) for requirement in ast.literal_eval(line.group(1))]


def pip_complaint(output: str) -> str:
    """The one sentence of pip's output that helps."""
    if re.search(r"NewConnectionError|ConnectTimeout|ReadTimeout|name resolution|ProxyError", output):
        return "the package index cannot be reached (no network?)"
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return errors[0] if errors else (output.strip().splitlines() or ["pip said nothing"])[-1]


def make_venv(python: Python, folder: Path) -> list[str]:
    """Make a fresh virtual environment in `folder`; the pip command line that installs into it."""
    inside = str(folder / "bin" / "python")
    made, output = run_quietly([python.path, "-m", "venv", "--clear", str(folder)])
    if made:
        return [inside, "-m", "pip", "install"]
    # Debian keeps ensurepip in a package of its own (python3-venv). Without it, this
    # interpreter's own pip can fill an environment that has none.
    has_pip, _ = run_quietly([python.path, "-m", "pip", "--version"])
    made, _ = run_quietly([python.path, "-m", "venv", "--clear", "--without-pip", str(folder)])
    if has_pip and made:
        packages = folder / "lib" / f"python{python.label}" / "site-packages"
        return [python.path, "-m", "pip", "install", "--upgrade", "--target", str(packages)]
    made, _ = run_quietly([python.path, "-m", "virtualenv", "--clear", str(folder)])
    if made:
        return [inside, "-m", "pip", "install"]
    lacks = "a working venv module" if has_pip else "ensurepip and pip"
    raise MissingError(
        f"Python {python.version} ({python.path}) lacks {lacks}, so no virtual environment can be made for it: "
        f"install its venv package (Debian and Ubuntu: apt install python{python.label}-venv)."
    )


def prepare(python: Python, requirements: list[str]) -> str:
    """The interpreter of a virtual environment that has `requirements`; nothing to do if it is there."""
    folder = VENVS / python.version
    inside = str(folder / "bin" / "python")
    stamp = folder / "installed.json"
    identity = f"{python.version} {python.prefix}"
    try:
        known_identity, installed = json.loads(stamp.read_text())
    except (OSError, ValueError):
        known_identity, installed = "", []
    if known_identity == identity and set(requirements) <= set(installed) and run_quietly([inside, "-c", ""])[0]:
        return inside
    print(f"making {folder.relative_to(ROOT)} with {', '.join(requirements)}", flush=True)
    pip_install = make_venv(python, folder)
    done, output = run_quietly(pip_install + ["--quiet", "--retries", "2"] + requirements)
    if not done:
        raise MissingError(
            f"pip cannot install {', '.join(requirements)} for Python {python.version}: {pip_complaint(output)}."
        )
    stamp.write_text(json.dumps([identity, requirements]))
    return inside


class Step(NamedTuple):
    """One check: a command that passes with status 0."""

    title: str
    command: list[str]
    dev_mode: bool = False


class Report:
    """What ran, how it ended, and what did not run."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.not_run: list[str] = []

    def step(self, step: Step, show_at_end: bool = False) -> None:
        """Run one check and note the outcome. Its output is shown as it comes, or in one piece at the end."""
        environment = clean_environment()
        if step.dev_mode:
            environment["PYTHONDEVMODE"] = "1"
        shown = " ".join(shlex.quote(word) for word in step.command[1:])
        heading = f"\n== {step.title}: {'PYTHONDEVMODE=1 ' if step.dev_mode else ''}python {shown}\n"
        started = time.monotonic()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as kept:
            if not show_at_end:
                print(heading, end="", flush=True)
            try:
                status = subprocess.run(
                    step.command,
                    cwd=str(ROOT),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=kept if show_at_end else None,
                    stderr=subprocess.STDOUT if show_at_end else None,
                    timeout=STEP_TIMEOUT_S,
                ).returncode
                outcome = "passed" if status == 0 else f"FAILED with status {status}"
            except subprocess.TimeoutExpired:
                outcome = f"FAILED: not done after {STEP_TIMEOUT_S} s"
            kept.seek(0)
            output = heading + kept.read() if show_at_end else ""
        (self.passed if outcome == "passed" else self.failed).append(step.title)
        # One call, for steps that end at the same time.
        print(f"{output}-- {step.title}: {outcome} ({time.monotonic() - started:.1f} s)\n", end="", flush=True)

    def steps(self, steps: list[Step], jobs: int) -> None:
        """Run the checks in order, `jobs` at once."""
        if jobs == 1:
            for step in steps:
                self.step(step)
            return
        with ThreadPoolExecutor(jobs) as pool:
            # The list raises what a step raised.
            list(pool.map(lambda step: self.step(step, show_at_end=True), steps))

    def finish(self) -> int:
        """Print the summary; the exit status."""
        parts = []
        if self.failed:
            parts.append("FAILED: " + ", ".join(self.failed))
        if self.passed:
            parts.append("passed: " + ", ".join(self.passed))
        if self.not_run:
            parts.append("not run: " + ", ".join(self.not_run))
        print(f"\ncheck.py: {'; '.join(parts)} ({time.monotonic() - self.started:.0f} s)", flush=True)
        return 1 if self.failed else 0


def check(all_pythons: bool, jobs: int, pytest_arguments: list[str]) -> int:
    first = describe(sys.executable)
    if first is None or not first.is_usable:
        raise MissingError(f"check.py runs on CPython, and {sys.executable or 'this interpreter'} is another Python.")
    requirements = test_requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = find_pythons(first) if all_pythons else {first.version: [first]}
    for group in groups.values():
        print(f"Python {group[0].version}: {group[0].path}")
        for other in group[1:]:
            print(f"    one of each version is enough: {other.path} is left aside")

    report = Report()
    python = prepare(first, requirements)
    steps = [
        Step("mypy", [python, "-m", "mypy", "--strict"] + CHECKED_FOLDERS),
        Step("layers", [python, "-m", "pytest", "-q", "tests/test_layers.py"]),
        # The development mode makes a leaked file or socket a warning, and so a failure.
        Step(f"tests on {first.version}", [python, "-m", "pytest"] + pytest_arguments, dev_mode=True),
    ]
    for version, group in groups.items():
        if version == first.version:
            continue
        for candidate in group:
            try:
                python = prepare(candidate, [r for r in requirements if not r.startswith("mypy")])
            except MissingError as missing:
                print(f"\n{missing}\nThe tests do NOT run on Python {candidate.version}.", flush=True)
                report.not_run.append(f"tests on {candidate.version}")
                continue
            command = [python, "-m", "pytest", "-m", "not one_python", *pytest_arguments]
            steps.append(Step(f"tests on {candidate.version}", command))
            break
    report.steps(steps, jobs)
    return report.finish()


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        prog="check.py",
        usage="%(prog)s [-h] [--all-pythons] [--jobs N] [-- PYTEST_ARGUMENT ...]",
        description="Run mypy, the import-layer test and all tests in a virtual environment of their own.",
    )
    parser.add_argument(
        "--all-pythons", action="store_true", help="repeat the tests on every CPython >= 3.10 of this machine, but for those marked one_python"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="checks at once (default 1, with --all-pythons one more than CPUs)"
    )
    options = parser.parse_args(arguments[:split])
    jobs = options.jobs or (1 + (os.cpu_count() or 1) if options.all_pythons else 1)
    if jobs < 1:
        parser.error("--jobs is at least 1")
    if sys.platform != "linux":
        print("check.py: rawuring is for Linux, and so are its tests.", file=sys.stderr)
        return 2
    try:
        return check(options.all_pythons, jobs, arguments[split + 1 :])
    except MissingError as missing:
        print(f"check.py: {missing}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("check.py: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
