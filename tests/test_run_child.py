"""The fixture `run_child`: what it lets pass, and that it fails where it should."""

from __future__ import annotations

import pytest
from conftest import RunChild

pytestmark = pytest.mark.portable


def test_gives_the_output_and_the_status(run_child: RunChild) -> None:
    done = run_child("import sys, rawuring\nprint(sys.argv[1:])\nsys.exit(3)", "a", "b", returncode=3)
    assert (done.stdout, done.returncode) == ("['a', 'b']\n", 3)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("print('last words'); 1 / 0", "ended with 1 instead of 0(?s:.*)last words(?s:.*)ZeroDivisionError"),
        ("import warnings; warnings.warn('unwanted')", "ended with 1(?s:.*)unwanted"),
        ("leaked = open('/dev/null'); del leaked", "lost an exception(?s:.*)unclosed file"),
        ("import threading; threading.Thread(target=lambda: 1 / 0).start()", "lost an exception"),
    ],
)
def test_a_bad_end_fails_the_test(run_child: RunChild, code: str, complaint: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=complaint):
        run_child(code)


@pytest.mark.slow
def test_a_child_that_hangs_is_ended_with_its_traceback(run_child: RunChild) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"hung for 1 s(?s:.*)in sleeping_here"):
        run_child("import time\ndef sleeping_here():\n    time.sleep(600)\nsleeping_here()", timeout=1)
