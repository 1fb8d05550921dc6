"""The examples of README.md and docs/reference.md work when pasted, and print what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import RunChild
from support import needs

from rawuring import Ring

pytestmark = pytest.mark.portable

ROOT = Path(__file__).parent.parent


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


README = examples("README.md")
REFERENCE = examples("docs/reference.md")

STREAMS = "6.0"
"""The release of receives that go on: before it a stream ends at once, and says so in its first completion."""


def test_the_examples_are_found() -> None:
    assert len(README) == 4
    assert len(REFERENCE) == 12


def test_the_owned_layer(run_child: RunChild) -> None:
    hostname = Path("/etc/hostname")
    if not hostname.exists():
        pytest.skip("there is no /etc/hostname here")
    assert run_child(README[0]).stdout == hostname.read_text()


def test_the_raw_layer(run_child: RunChild) -> None:
    assert run_child(README[1]).stdout == "7 b'hello'\n"


def test_many_requests_at_once(run_child: RunChild) -> None:
    completions = [(slot, 4096, 0) for slot in range(4)]
    assert run_child(README[2]).stdout == f"{completions} b'ABCD'\n{completions} b'EFGH'\n"


def test_callbacks_and_multishot(run_child: RunChild) -> None:
    assert run_child(README[3]).stdout == "b'hello'\nb''\n"


@pytest.mark.parametrize("example", REFERENCE)
def test_an_example_of_the_reference(run_child: RunChild, example: str) -> None:
    if "_multishot" in example:
        with Ring(2) as ring:
            needs(STREAMS, ring)
    # A line that prints says what: once, or in turn.
    comments = re.findall(r"^ *print\(.*\) +# (.*)$", example, re.MULTILINE)
    assert len(comments) == example.count("print(") > 0
    expected = [line for comment in comments for line in comment.split(", then ")]
    assert run_child(example).stdout.splitlines() == expected
