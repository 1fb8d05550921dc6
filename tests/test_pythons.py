"""Pythons that rawuring refuses: at import, in one sentence, which `python -m echo` passes on.

Imports the standard library, pytest and what needs no rawuring: it is all that is collected there.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import IS_REFUSED, ROOT, RunChild
from echo_client import EchoProcess, connect, echo, run_echo

pytestmark = pytest.mark.portable

OTHER = """
import types
sys.implementation = types.SimpleNamespace(**{**vars(sys.implementation), "name": "snake"})
"""
NARROW = """
sys.maxsize = 2**31 - 1
"""
OLD = """
sys.version_info = (3, 9, 18, "final", 0)
"""

CASES = [
    pytest.param(OTHER, "rawuring needs CPython, .*; this is snake", id="another implementation"),
    pytest.param(NARROW, "rawuring needs a 64-bit Python: .*", id="32 bits"),
]

fakes_one = pytest.mark.skipif(IS_REFUSED, reason="no fake is needed: this Python is refused")


@fakes_one
@pytest.mark.parametrize(
    ("prelude", "sentence"), [*CASES, pytest.param(OLD, "rawuring needs Python 3.10 or later; .*", id="too old")]
)
def test_the_import_is_refused(run_child: RunChild, prelude: str, sentence: str) -> None:
    code = f"import re, sys\n{prelude}\ntry:\n    import rawuring\nexcept ImportError as error:\n"
    run_child(code + f"    assert re.fullmatch({sentence!r}, str(error)), error\nelse:\n    raise AssertionError")


@fakes_one
@pytest.mark.parametrize("arguments", ["0", "--list-modes"])
@pytest.mark.parametrize(("prelude", "sentence"), CASES)
def test_the_echo_server_says_so(prelude: str, sentence: str, arguments: str) -> None:
    status, output, errors = run_echo(arguments, prelude=prelude)
    assert (status, output) == (1, "")
    assert re.fullmatch(rf"echo: {sentence}\. Or use --backend epoll\.\n", errors), errors


@fakes_one
def test_the_echo_server_on_a_python_too_old() -> None:
    status, output, errors = run_echo("0", prelude=OLD)
    assert (status, output) == (1, "")
    assert errors.startswith("The echo server needs Python 3.10 or later") and errors.count("\n") == 1


def test_this_python() -> None:
    done = subprocess.run([sys.executable, "-c", "import rawuring"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    refused = "ImportError: rawuring needs " in done.stderr
    assert (done.returncode != 0) == refused == IS_REFUSED, done.stderr
    if IS_REFUSED:
        status, output, errors = run_echo("0")
        assert (status, output) == (1, "")
        assert errors.startswith("echo: rawuring needs ") and errors.count("\n") == 1


def test_the_epoll_server_runs_on_them_all() -> None:
    with EchoProcess("--backend", "epoll", prelude="" if IS_REFUSED else OTHER) as server, connect(server.port) as sock:
        echo(sock, b"all the same")
        assert server.stop()
