"""Ctrl-C at every line of our own code in turn: nothing is lost, done twice, or freed while the kernel may write to it.

What is done and what must hold is in interrupted.py, which a child process runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import RunChild
from interrupted import SCENARIOS

MAIN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import interrupted
interrupted.main()
"""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_interrupted_at_every_line(run_child: RunChild, scenario: str) -> None:
    nlines = int(run_child(MAIN, scenario).stdout)
    assert nlines > 30, "the trace function saw hardly any of our code"
