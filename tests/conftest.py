"""Fixtures for every test. Imports the standard library, pytest and emulation.py only.

On a Python that rawuring refuses, test_pythons.py alone is collected.

A test that meets something newer than the kernel is skipped: it, or its child process, ended with
an UnsupportedError, and the kernel shows nothing of the release that this names or a later one.

A test that hangs is ended by pytest's faulthandler (see pyproject.toml) with the traceback of
every thread; a child process of `run_child` that hangs, with its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from emulation import PATIENCE

ROOT = Path(__file__).resolve().parent.parent

IS_REFUSED = sys.implementation.name != "cpython" or sys.maxsize < 2**32
"""Does rawuring refuse this Python? Then test_pythons.py alone is collected, which tests how."""

RunChild = Callable[..., "subprocess.CompletedProcess[str]"]


# A shell without job control has what it starts in the background ignore SIGINT, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def skip_what_is_newer(text: str) -> None:
    """See support.py, which imports rawuring and is therefore not imported before it is needed."""
    import support

    support.skip_what_is_newer(text)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    is_left_out = IS_REFUSED and collection_path.suffix == ".py" and collection_path.name != "test_pythons.py"
    return True if is_left_out else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    try:
        yield
    except NotImplementedError as error:  # an UnsupportedError is one
        skip_what_is_newer(str(error))
        raise


@pytest.fixture
def run_child(tmp_path: Path) -> RunChild:
    """Run Python source in a process of its own, and require that it ends well.

    The child sees the checkout on its import path, in development mode with warnings as
    errors. It must end with `returncode`, and no exception may be lost in a finalizer or a
    thread: the interpreter only prints those. `arguments` become its sys.argv[1:].
    """

    def run(
        code: str, *arguments: str, timeout: float = 60 * PATIENCE, returncode: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "child.py"
        script.write_text(textwrap.dedent(code), encoding="utf-8")
        fork = "ignore:This process:DeprecationWarning"  # as in pyproject.toml
        command = [sys.executable, "-X", "dev", "-W", "error", "-W", fork, str(script), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        problem = None
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as child:
            try:
                out, err = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                problem = f"hung for {timeout} s"
                out, err = end_hung_child(child)
        if problem is None and child.returncode != returncode:
            problem = f"ended with {child.returncode} instead of {returncode}"
        if problem is None and ("Exception ignored" in err or "Exception in thread" in err):
            problem = "lost an exception"
        if problem is not None:
            if "UnsupportedError" in err:
                skip_what_is_newer(err)
            pytest.fail(f"the child {problem}\n--- stdout\n{out}\n--- stderr\n{err}", pytrace=False)
        return subprocess.CompletedProcess(command, child.returncode, out, err)

    return run


def end_hung_child(child: subprocess.Popen[str]) -> tuple[str, str]:
    """End the child and the processes it started; its output, with the traceback of every thread."""
    # In development mode SIGABRT prints the tracebacks. It would also leave a core file.
    resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
    child.send_signal(signal.SIGABRT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.communicate(timeout=5 * PATIENCE)
    # It ignores the signal, or a process of its own holds the pipes open.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return child.communicate()
