"""The examples of README.md work when pasted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import RunChild

pytestmark = pytest.mark.portable

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) == 3


def test_the_owned_layer(run_child: RunChild) -> None:
    hostname = Path("/etc/hostname")
    if not hostname.exists():
        pytest.skip("there is no /etc/hostname here")
    assert run_child(EXAMPLES[0]).stdout == hostname.read_text()


def test_the_raw_layer(run_child: RunChild) -> None:
    assert run_child(EXAMPLES[1]).stdout == "7 b'hello'\n"


def test_callbacks_and_multishot(run_child: RunChild) -> None:
    assert run_child(EXAMPLES[2]).stdout == "b'hello'\nb''\n"
