"""Hold the layers: who may import whom, read from the source of every module.

The tables below are the rule; the walk is the proof. A new module of rawuring must be given
its place in LAYERS before the tests pass again.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

# The rooms of rawuring, lowest first: a module or folder directly under rawuring/. Each imports
# only rooms on its own line and the lines above it.
LAYERS = (
    ("hints",),
    ("abi",),
    ("errors",),
    ("system",),
    ("syscalls",),
    ("atomics",),
    ("mmap_ring",),
    ("sq", "sqe_block", "prep"),
    ("cq", "cqe_block"),
    ("diagnosis",),
    ("register",),
    ("buffers",),
    ("files",),
    ("inflight",),
    ("ring", "operations"),
    ("capability",),
    ("inspect",),
    ("probe",),
    ("__init__",),
    ("__main__",),
)
RANK = {room: rank for rank, line in enumerate(LAYERS) for room in line}

# Rooms that may import less than their line allows.
ONLY = {
    "abi": {"hints"},
    "errors": set[str](),
    "diagnosis": {"abi", "errors", "syscalls"},
    "inflight": {"errors", "hints"},
    "probe": {"capability", "hints"},
    "__main__": {"probe"},
}

# What a module and those below it never import, for what it would do with it.
NEVER = {
    "rawuring.abi": {"ctypes", "mmap"},
    "rawuring.sq": {"rawuring.syscalls", "ctypes", "os"},
    "rawuring.sqe_block": {"rawuring.syscalls", "ctypes", "os"},
    "rawuring.prep": {"rawuring.syscalls", "ctypes", "os"},
    "rawuring.cqe_block": {"rawuring.syscalls", "ctypes", "os"},
    "rawuring.cq": {"rawuring.syscalls", "ctypes", "os"},
    "echo.connection": {"rawuring", "socket", "select", "selectors", "os"},
}

# Besides the names of `rawuring` itself, what the echo server may use.
PUBLIC_ROOMS = {"abi", "errors", "diagnosis", "capability"}

# What the tools use when it is installed.
OPTIONAL = {"liburing", "matplotlib", "uvloop"}

# Type checkers know it, no interpreter has it: an import outside TYPE_CHECKING fails at once.
STDLIB = sys.stdlib_module_names | {"_typeshed"}


def modules(folder: str) -> dict[str, Path]:
    """The modules of a top-level folder by dotted name; the ending .__init__ stays."""
    names = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        names[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    return names


MODULES = {name: path for folder in ("rawuring", "echo", "tools") for name, path in modules(folder).items()}


# A tool's own folder is on its import path, so its neighbours go by their short names too.
TOOLS = {room for module in modules("tools") for room in module.split(".")[1:2]}


def room_of(module: str) -> str:
    """rawuring.abi.structs -> abi; the package itself -> the empty string."""
    return (module.split(".") + [""])[1]


def imported(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that `module` imports, wherever in it the import stands."""
    package = module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) - node.level + 1] if node.level else []
            origin += node.module.split(".") if node.module else []
            for alias in node.names:
                yield node.lineno, ".".join([*origin, alias.name])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rawuring":
            yield node.lineno, f"rawuring.{node.attr}"


def refusal(module: str, name: str) -> str | None:
    """Why `module` may not import `name`; None if it may."""
    for holder, banned in NEVER.items():
        if f"{module}.".startswith(f"{holder}."):
            for ban in banned:
                if f"{name}.".startswith(f"{ban}."):
                    return f"{holder} never imports {ban}"
    top, used = name.split(".")[0], room_of(name)
    folder, own = module.split(".")[0], room_of(module)
    if top in STDLIB:
        return None
    if top == "rawuring":
        if folder == "tools" or own == "__init__":
            return None
        if folder == "echo":
            if used.startswith("_") or (used in RANK and used not in PUBLIC_ROOMS):
                return f"{name} is below the public surface"
            return None
        if used not in RANK or used == "__init__":
            return f"{name} is in no module that LAYERS knows"
        if RANK[used] > RANK[own]:
            return f"{used} is a layer above {own}"
        if used != own and used not in ONLY.get(own, RANK):
            return f"{own} imports only {sorted(ONLY[own]) or 'the standard library'}"
        return None
    if top == "echo" and folder in ("echo", "tools"):
        return None
    if folder == "tools" and (top in OPTIONAL or top == "tools" or top in TOOLS):
        return None
    return f"{top} is not in the standard library"


def private_reaches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each use of another object's private attribute."""
    stdlib = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in STDLIB
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            holder = node.value.id if isinstance(node.value, ast.Name) else ""
            if holder not in {"self", "cls"} | stdlib:
                yield node.lineno, ast.unparse(node)


def violations(module: str, source: str) -> list[str]:
    """Everything in `source` that breaks the layers."""
    tree = ast.parse(source)
    if module.startswith("rawuring.") and room_of(module) not in RANK:
        return [f"{module} has no place in LAYERS"]
    refused = [(line, refusal(module, name)) for line, name in imported(module, tree)]
    found = [f"{module}:{line}: {why}" for line, why in refused if why]
    if module.startswith("echo."):
        found += [f"{module}:{line}: {name} is private" for line, name in private_reaches(tree)]
    return found


def bare_flags(module: str, source: str) -> list[str]:
    """Parameters named just `flags`: which of a request's five kinds of flags would that be?"""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            found += [f"{module}:{node.lineno}" for parameter in every if parameter and parameter.arg == "flags"]
    return found


def collect(check: object, folder: str = "") -> list[str]:
    assert callable(check)
    return [
        line
        for module, path in MODULES.items()
        if module.startswith(folder)
        for line in check(module, path.read_text(encoding="utf-8"))
    ]


def test_every_module_keeps_its_layer() -> None:
    assert "rawuring.errors" in MODULES
    assert collect(violations) == []


def test_no_parameter_is_named_flags() -> None:
    assert collect(bare_flags, "rawuring.") == []


def test_every_module_says_what_it_is() -> None:
    silent = [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == []


def test_no_tool_hides_a_module_of_the_standard_library() -> None:
    # A program's own folder comes first on its import path.
    assert TOOLS & STDLIB == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rawuring.sq", "from rawuring.ring import Ring"),
        ("rawuring.sq", "from rawuring import ring"),
        ("rawuring.sq", "from .cq import CompletionQueue"),
        ("rawuring.sq", "def late():\n    import rawuring.ring"),
        ("rawuring.sq", "from rawuring import Ring"),
        ("rawuring.sq", "import rawuring"),
        ("rawuring.sq", "from . import syscalls"),
        ("rawuring.prep.sockets", "from ..ring import Ring"),
        ("rawuring.prep.sockets", "from rawuring.syscalls import enter"),
        ("rawuring.abi.structs", "from rawuring.errors import RawuringError"),
        ("rawuring.inflight", "from rawuring import buffers"),
        ("rawuring.diagnosis", "from rawuring.atomics import backend"),
        ("rawuring.ring", "import attrs"),
        ("rawuring.novelty", "import os"),
        ("echo.server", "from rawuring.mmap_ring import MappedRing"),
        ("echo.server", "import rawuring\nrawuring.sq.SubmissionQueue"),
        ("echo.server", "from rawuring import _hidden"),
        ("echo.server", "def peek(ring):\n    return ring._token"),
        ("echo.connection", "import socket"),
        ("echo.server", "import uvloop"),
        ("tools.bench", "import requests"),
    ],
)
def test_a_violation_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rawuring.sq", "import struct\nfrom rawuring import abi\nfrom rawuring.prep.sockets import Sockets"),
        ("rawuring.prep.sockets", "from ..sq import SubmissionQueue\nfrom . import files"),
        ("rawuring.abi.structs", "from rawuring.abi.constants import Op\nfrom . import constants"),
        ("rawuring.inflight", "from rawuring.errors import RawuringError"),
        ("rawuring.operations.files", "from rawuring.ring import Ring"),
        ("rawuring.__init__", "from rawuring.ring import Ring"),
        ("echo.server", "import os, rawuring\nfrom rawuring import Ring, abi\nfrom echo import connection\nos._exit(0)"),
        ("tools.bench", "import rawuring.cq, echo, uvloop, check"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize("source", ["def f(*, flags=0): ...", "async def f(flags): ...", "g = lambda *flags: 0"])
def test_a_bare_flags_is_found(source: str) -> None:
    assert len(bare_flags("rawuring.sq", source)) == 1
