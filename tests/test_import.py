"""What `import rawuring` loads, and what waits until somebody asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunChild

import rawuring
from rawuring import hints, system

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

# Of the standard library, with whatever each loads itself. One more has to be worth its time to every program.
STDLIB = (
    "__future__", "collections.abc", "contextlib", "ctypes", "enum", "errno", "functools", "itertools", "mmap",
    "operator", "os", "select", "struct", "threading", "time", "types", "warnings", "weakref",
)  # fmt: skip

# Of rawuring. Each of these is for few programs, or makes named tuples.
LATER = (
    "abi.arguments", "abi.fields", "capability", "diagnosis", "inspect", "operations.received", "probe",
    "register.cancelling", "register.memory", "register.messages", "register.permissions", "register.queries",
    "register.waiting", "register.workers", "register.zero_copy", "system.results",
)  # fmt: skip


def loaded() -> list[str]:
    """The modules that `import rawuring` adds to STDLIB in a fresh interpreter without site-packages."""
    code = f"""
import sys
sys.path.append({str(ROOT)!r})
import {", ".join(STDLIB)}
before = set(sys.modules)
import rawuring
print(*set(sys.modules) - before)
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_an_import_loads_what_it_needs() -> None:
    modules = loaded()
    assert [name for name in modules if name.partition(".")[0] != "rawuring"] == []
    assert {"rawuring.ring", "rawuring.register.rings"} < set(modules)
    assert [name for name in LATER if f"rawuring.{name}" in modules] == []


def test_what_waits_is_there_when_it_is_asked_for(run_child: RunChild) -> None:
    run_child("""
        import sys
        from rawuring import system

        assert "rawuring.system.results" not in sys.modules
        event = system.EpollEvent(7, 1)
        assert (event.data, event.events) == (7, 1) and "EpollEvent" in vars(system)
    """)
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        getattr(system, "no_such_thing")


def test_operations_can_be_subscripted() -> None:
    assert issubclass(rawuring.Operation, hints.Generic)
    assert rawuring.Operation[int].__origin__ is rawuring.Operation  # type: ignore[attr-defined]
    assert not hasattr(rawuring.Operation(), "__dict__")
