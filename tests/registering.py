"""What the tests of `register` share: which function makes which call, and what skips on an older kernel."""

from __future__ import annotations

import ast
import contextlib
import errno
import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from support import needs

from rawuring import abi

ROOT = Path(__file__).resolve().parent.parent

T = TypeVar("T")


@functools.cache
def verbs() -> dict[abi.Register, set[str]]:
    """The public functions of `register` that make the call, by its opcode: read from their source."""
    found = defaultdict(set)
    for path in (ROOT / "rawuring" / "register").glob("*.py"):
        functions = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
        words = (ast.Name, ast.Attribute)
        named = {
            function.name: {ast.unparse(node) for node in ast.walk(function) if isinstance(node, words)}
            for function in functions
        }
        for name, used in named.items():
            for helper in named.keys() & used:
                used = used | named[helper]
            for verb in abi.Register:
                if f"abi.Register.{verb.name}" in used and not name.startswith("_"):
                    found[verb].add(name)
    return dict(found)


@contextlib.contextmanager
def needing(release: str) -> Iterator[None]:
    """Skip the test if what is inside answers EINVAL, as a kernel does that is older than `release`."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EINVAL:
            needs(release, False)
        raise


@contextlib.contextmanager
def refused(code: int, text: str | None = None) -> Iterator[None]:
    """What is inside must fail with this errno."""
    with pytest.raises(OSError, match=text) as caught:
        yield
    assert caught.value.errno == code, caught.value


def in_a_thread(work: Callable[[], T]) -> T:
    """Do it in a thread of its own, which has its own workers and registered rings: they end with it."""
    results: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]
