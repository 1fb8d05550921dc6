"""The guest's side: started by the guest's /init in the checkout, it runs the tests and an echo server.

The outcome goes to the console as lines of JSON behind a mark that nothing else prints, each with
a checksum: a kernel message may fall into any line.

Runs on every Python of a guest, PyPy included. Imports the standard library only; `pytest` is
started as a process, with this file as its plugin, so that a crash of it is an outcome too.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

MARK = "@@guest"
REPORT = os.environ.get("RAWURING_REPORT", "/tmp/report.json")
HERE = Path(__file__).resolve().parent
NOBODY = 65534
MOST_REPEATED = 5
"""More failures than this are no accident."""
REFUSAL = "echo: rawuring needs "
"""How the echo server begins to say that this Python is none for rawuring; test_pythons.py tests when it does."""
HANG_S = 900
"""After what time a test hangs. A test that waits in vain says so sooner (tests/emulation.py)."""


def say(kind: str, **values: Any) -> None:
    text = json.dumps({"kind": kind, **values})
    print(f"\n{MARK} {zlib.crc32(text.encode()):08x} {text}", flush=True)


def heard(console: str) -> list[dict[str, Any]]:
    """What a guest said, from all that its console printed."""
    found = []
    for line in console.splitlines():
        words = line.strip().split(" ", 2)
        if len(words) == 3 and words[0] == MARK and words[1] == f"{zlib.crc32(words[2].encode()):08x}":
            found.append(json.loads(words[2]))
    return found


# --- the plugin of pytest


class Recorder:
    """Counts of what passed, what failed by name, what was skipped by reason."""

    def __init__(self) -> None:
        self.passed = 0
        self.deselected = 0
        self.failed: list[str] = []
        self.skipped: dict[str, int] = {}
        self.slowest: list[tuple[float, str]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid} ({report.when})")
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reason = reason.removeprefix("Skipped: ")
            self.skipped[reason] = self.skipped.get(reason, 0) + 1
        elif report.when == "call":
            self.passed += 1
            self.slowest = sorted([*self.slowest, (round(report.duration, 1), report.nodeid)], reverse=True)[:10]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid} (collection)")

    def pytest_deselected(self, items: Any) -> None:
        self.deselected += len(items)

    def pytest_sessionfinish(self) -> None:
        Path(REPORT).write_text(json.dumps(vars(self)))


def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(Recorder(), "outcome-recorder")


# --- the run


def facts() -> dict[str, Any]:
    """What the rows of a table are named by."""
    implementation = platform.python_implementation()
    version = platform.python_version()
    if implementation == "PyPy":
        version = "{}.{}.{}".format(*sys.pypy_version_info[:3]) + f" ({version})"  # type: ignore[attr-defined]
    return {
        "release": platform.release(),
        "machine": platform.machine(),
        "byteorder": sys.byteorder,
        "page_nbytes": os.sysconf("SC_PAGESIZE"),
        "python": f"{implementation} {version}",
        "libc": " ".join(platform.libc_ver()),
    }


def atomics_backend() -> str:
    code = "from rawuring import atomics; print(atomics.backend)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() or "-"


def serve_a_checked_load() -> dict[str, Any]:
    """Start `python -m echo` in its automatic mode, under a load that compares every byte that comes back."""
    serve = [sys.executable, "-m", "echo", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline().strip()
            if said.startswith(REFUSAL):
                return {"ok": True, "said": said}
            port = said.split(", ")[0].rpartition(":")[2]
            load = [sys.executable, "tools/load.py", port, "--client-backend", "epoll", "--connections", "20"]
            load += ["--size", "2000", "--warm-up", "1", "--seconds", "3", "--json"]
            done = subprocess.run(load, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            return {"ok": False, "said": f"{said}: the load did not end"}
        finally:
            server.terminate()
    if done.returncode != 0:
        return {"ok": False, "said": f"{said}: {done.stderr.strip()[-300:]}"}
    return {"ok": True, "said": said, "echoes": json.loads(done.stdout)["echoes"]}


def run_pytest(arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """Its exit status, and what the plugin recorded: nothing if pytest did not get to its end."""
    Path(REPORT).unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "pytest", "-p", "inside", "-p", "no:cacheprovider", "--color=no"]
    command += ["-o", f"faulthandler_timeout={HANG_S}", *arguments]
    status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    return status, json.loads(Path(REPORT).read_text()) if Path(REPORT).exists() else {}


def run_tests(arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """Run the tests; a few that fail are run once more, alone, and if they pass they are told apart as unsteady.

    On an emulated machine whose host is busy a second may pass between any two instructions.
    """
    status, report = run_pytest(arguments)
    report["unsteady"] = []
    failed = {failure.rpartition(" (")[0] for failure in report.get("failed", [])}
    if status == 1 and len(failed) <= MOST_REPEATED:
        again, repeated = run_pytest(["-q", *sorted(failed)])
        if repeated:
            status = again
            still = {failure.rpartition(" (")[0] for failure in repeated["failed"]}
            report["unsteady"] = sorted(failed - still)
            report["failed"] = repeated["failed"]
            report["passed"] += repeated["passed"]
    return status, report


def run_command(command: list[str]) -> dict[str, Any]:
    """How a command ended, as subprocess tells it or as shells do when it cannot be started, and what it printed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        return {"status": 127, "stdout": "", "stderr": f"{command[0]}: {error.strerror}\n"}
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def main(arguments: list[str]) -> None:
    options = json.loads(arguments[0])
    if options["ordinary_user"]:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if "command" in options:
        say("command", **run_command(options["command"]))
        say("end")
        return
    started = time.monotonic()
    say("facts", **facts())
    status, report = run_tests(options["pytest"])
    say("tests", status=status, seconds=round(time.monotonic() - started), **report)
    if options["echo"]:
        say("echo", **serve_a_checked_load())
    say("backend", name=atomics_backend())
    say("end")


if __name__ == "__main__":
    main(sys.argv[1:])
