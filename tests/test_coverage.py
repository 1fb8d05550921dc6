"""Every operation and every register verb of the kernel, in both layers and in tests: two tables, with no empty cell.

What queues an operation is read from the sources: a method of `Ring` queues what its encoder writes, and the tests
that have a kernel answer call the one or the other. `pytest -rP tests/test_coverage.py` shows the tables.
"""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawuring import Ring, abi
from tools.sqe_cases import CASES

pytestmark = [pytest.mark.portable, pytest.mark.one_python]

ROOT = Path(__file__).resolve().parent.parent
Op = abi.Op

# Why a cell is empty. A reason for one that is not is an error.
NO_CARD = "needs a network card that splits headers from data, and memory that it writes to"
REASONS: dict[tuple[str, str], str] = {
    ("RECV_ZC", "owned"): NO_CARD,
    ("RECV_ZC", "live owned"): NO_CARD,
}

# Forms of an operation or verb that no machine at hand can do, the test of what it says instead, and what it would take.
WAITING: dict[abi.BlockOp | abi.ZcrxCtrl, tuple[str, str]] = {
    abi.BlockOp.ZONE_RESET_ALL: (
        "test_owned_events.test_discard", "a zoned block device: a host-managed disk, or null_blk with zoned=1"
    ),
    abi.ZcrxCtrl.ARM_EVENT: (
        "test_register_zero_copy.test_the_bytes_of_a_control", f"events of a queue, which {NO_CARD}"
    ),
    abi.ZcrxCtrl.ADD_AREA: (
        "test_register_zero_copy.test_the_bytes_of_a_control", f"a queue to add memory to, which {NO_CARD}"
    ),
}  # fmt: skip

# Encoders that no method uses, since another one writes the same request and more.
SPELLED_OTHERWISE = {
    "prep_open": "prep_openat",
    "prep_open_direct": "prep_openat_direct",
    "prep_rename": "prep_renameat",
    "prep_unlink": "prep_unlinkat",
    "prep_mkdir": "prep_mkdirat",
    "prep_symlink": "prep_symlinkat",
    "prep_link": "prep_linkat",
    "prep_readv2": "prep_readv",
    "prep_writev2": "prep_writev",
    "prep_cancel64": "prep_cancel",
    "prep_socket_direct_alloc": "prep_socket_direct",
    "prep_msg_ring_fd_alloc": "prep_msg_ring_fd",
}
RAW_ONLY = {
    "prep_rw": "any operation, field by field: nobody knows what it would have to hold",
    "prep_recv_zc": NO_CARD,
}


def uses(pattern: str, owner: str) -> Iterator[tuple[str, str, set[str]]]:
    """What every function uses as `owner.x` or `....owner.x`: (module, function, names x).

    Functions of its own module that it names are part of it, those of a class as well.
    """
    for path in sorted(ROOT.glob(pattern)):
        nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
        named = {node.name: names_in(node) for node in nodes}
        direct = {node.name: attributes_of(node, owner) for node in nodes}
        for name in direct:
            reached, more = {name}, {name}
            while more:
                more = {each for one in more for each in named[one] if each in direct} - reached
                reached |= more
            yield path.stem, name, set().union(*(direct[each] for each in reached))


def names_in(node: ast.FunctionDef) -> set[str]:
    """The names in a function that may be those of others: plain ones but its parameters, and attributes of `self`."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names - {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)} | attributes_of(node, "self")


def attributes_of(node: ast.AST, owner: str) -> set[str]:
    """The names x in `owner.x` and `....owner.x` inside a function."""
    return {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and owner == (each.value.attr if isinstance(each.value, ast.Attribute) else getattr(each.value, "id", ""))
    }


def encoders() -> dict[str, abi.Op]:
    """The operation that each encoder writes."""
    return {case.name: Op(case.fields["opcode"]) for case in CASES if case.name != "prep_rw"}


def owned_methods() -> dict[str, set[str]]:
    """The encoders that each public method of `Ring` uses."""
    found: dict[str, set[str]] = {}
    for pattern in ("rawuring/operations/*.py", "rawuring/ring/queueing.py"):
        for _, name, used in uses(pattern, "sq"):
            used = {each for each in used if each.startswith("prep_")}
            if used and not name.startswith("_"):
                assert hasattr(Ring, name), name
                found[name] = used
    return found


def live_tests(pattern: str, owner: str) -> dict[str, set[str]]:
    """The test functions that use `owner.x`, by x."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, function, used in uses(pattern, owner):
        if function.startswith("test_"):
            for name in used:
                found[name].add(f"{module}.{function}")
    return found


def text(rows: list[dict[str, str]], title: str) -> str:
    widths = {column: max(len(row[column]) for row in [*rows, {column: column}]) for column in rows[0]}
    lines = ["  ".join(word.ljust(widths[column]) for column, word in row.items()).rstrip() for row in rows]
    head = "  ".join(column.ljust(width) for column, width in widths.items()).rstrip()
    return "\n".join([title, head, *lines])


def check(rows: list[dict[str, str]]) -> None:
    """Fail on an empty cell that has no reason, and on a reason for a cell that is not empty."""
    empty = {(row["name"], column) for row in rows for column, cell in row.items() if cell == "-"}
    names = {row["name"] for row in rows}
    assert empty == {cell for cell in REASONS if cell[0] in names}


def counted(tests: set[str]) -> str:
    return str(len(tests)) if tests else "-"


@pytest.mark.slow
def test_every_operation_in_both_layers() -> None:
    writes, methods = encoders(), owned_methods()
    raw_tests, owned_tests = live_tests("tests/test_raw*.py", "sq"), live_tests("tests/test_owned*.py", "ring")
    rows = []
    with Ring(2) as ring:
        for op in Op:
            raw = [name for name, what in writes.items() if what is op]
            owned = [method for method, used in methods.items() if used & set(raw)]
            rows.append({
                "name": op.name,
                "this kernel": "has it" if ring.supports(op) else f"waits for {op.since}",
                "bytes": str(sum(case.fields["opcode"] == op for case in CASES)),
                "live raw": counted({test for name in raw for test in raw_tests[name]}),
                "live owned": counted({test for name in owned for test in owned_tests[name]}),
                "owned": " ".join(owned) or "-",
                "raw": " ".join(raw) or "-",
            })  # fmt: skip
    print(text(rows, f"Operations, on Linux {os.uname().release}: tests of an SQE's bytes, and tests that a kernel answers"))
    for (name, column), reason in REASONS.items():
        print(f"{name}: {column}: {reason}")
    check(rows)


def test_every_encoder_has_its_method() -> None:
    used = set().union(*owned_methods().values())
    assert used | SPELLED_OTHERWISE.keys() | RAW_ONLY.keys() == {case.name for case in CASES}
    assert not used & (SPELLED_OTHERWISE.keys() | RAW_ONLY.keys())
    assert set(SPELLED_OTHERWISE.values()) <= used
    for one, other in SPELLED_OTHERWISE.items():
        assert encoders()[one] is encoders()[other]


@pytest.mark.slow
def test_every_register_verb() -> None:
    verbs: dict[str, set[str]] = defaultdict(set)
    for _, function, used in uses("rawuring/register/*.py", "Register"):
        if not function.startswith("_"):
            for name in used:
                verbs[name].add(function)
    live = live_tests("tests/test_*.py", "register")
    rows = [
        {
            "name": verb.name,
            "since": verb.since,
            "live": counted({test for function in verbs[verb.name] for test in live[function]}),
            "function": " ".join(sorted(verbs[verb.name])) or "-",
        }
        for verb in abi.Register
    ]
    print(text(rows, "Verbs of io_uring_register: the functions of rawuring.register, and tests that a kernel answers"))
    check(rows)


def test_what_waits_for_hardware_has_a_test_of_its_refusal_or_its_bytes() -> None:
    for value, (test, what) in WAITING.items():
        module, function = test.split(".")
        assert f"def {function}(" in (ROOT / "tests" / f"{module}.py").read_text("utf-8")
        print(f"{value.kernel_name} ({value.since}): waits for {what}; {test} has what can be tested without")
