"""Compare every SQE that rawuring writes with what C's liburing writes: python3 tools/compare_liburing.py PATH

PATH is a checkout of liburing (https://github.com/axboe/liburing), configured or not; nothing in
it is changed. A C program is made from the table in tools/sqe_cases.py: it calls each of
liburing's io_uring_prep_* functions with values that fill every field, once as it is and once
with every field set that our encoder has a further parameter for. Its bytes are compared with
those of our encoder. Needs a C compiler ($CC, cc, gcc or clang).

Exit status: 0 all are equal, 1 some differ or liburing has a function that the table lacks,
2 they cannot be compared (one sentence says why).
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # run as a program: the path begins with this folder, not with the checkout
    sys.path.insert(0, ROOT)

from rawuring import abi
from rawuring.mmap_ring import RingMemory
from rawuring.sq import SubmissionQueue
from tools.sqe_cases import CASES, JOINED, SHARED, Case, Value, expected, helpers

SECONDS = 120
"""How long a compiler or liburing's configure may take."""

HEADER = Path("src/include/liburing.h")
# What configure writes and the header includes.
CONFIGURED = (Path("src/include/liburing/compat.h"), Path("src/include/liburing/io_uring_version.h"))
# What configure can do without.
LEFT_OUT = shutil.ignore_patterns(".git", "test", "man", "examples", "debian")

PROTOTYPE = re.compile(r"^IOURINGINLINE\s+void\s+(_*io_uring_prep_\w+)\s*\(([^)]*)\)", re.M)

PROGRAM = """
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "liburing.h"

static union { struct io_uring_sqe sqe; unsigned char bytes[128]; } slot;
static struct io_uring_sqe *const sqe = &slot.sqe;

static void show(unsigned nbytes)
{
    for (unsigned i = 0; i < nbytes; i++)
        printf("%02x", slot.bytes[i]);
    printf("\\n");
    memset(&slot, 0, sizeof(slot));
}

int main(void)
{
"""


class CannotCompareError(Exception):
    """What stands in the way, in one sentence for the user."""


class Comparison(NamedTuple):
    """One SQE: what it is, the C functions behind it, their statements, and our bytes."""

    what: str
    functions: tuple[str, ...]
    statements: str
    ours: bytes


def prototypes(header: str) -> dict[str, list[str]]:
    """The types of the parameters of every io_uring_prep_* function, by its name."""
    found = {}
    for name, parameters in PROTOTYPE.findall(header):
        found[name] = [re.sub(r"\w+$", "", " ".join(parameter.split())).strip() for parameter in parameters.split(",")]
    return found


def number(value: int) -> str:
    return f"{value & 0xFFFF_FFFF_FFFF_FFFF:#x}ULL"


def call(function: str, types: Sequence[str], args: Sequence[int]) -> str:
    """A C call of `function` with these arguments, and the SQE where it wants it."""
    rest = list(args)
    passed = []
    for c_type in types:
        if c_type == "struct io_uring_sqe *":
            passed.append("sqe")
        elif not rest:
            raise CannotCompareError(f"{function} has more parameters than tools/sqe_cases.py gives it arguments.")
        else:
            passed.append(f"({c_type}){'(uintptr_t)' if '*' in c_type else ''}{number(rest.pop(0))}")
    if rest:
        raise CannotCompareError(f"{function} has fewer parameters than tools/sqe_cases.py gives it arguments.")
    return f"{function}({', '.join(passed)});"


def assignment(field: str, value: Value) -> str:
    """A C statement that sets a field as a caller of liburing does after the call."""
    if isinstance(value, bytes):
        return f"memcpy((void *)sqe->{field}, (const unsigned char[]){{{', '.join(map(str, value))}}}, {len(value)});"
    return f"sqe->{field} {'|=' if field in JOINED else '='} {number(value)};"


def written(case: Case, keywords: dict[str, Value]) -> bytes:
    """The SQE that our encoder writes."""
    params = abi.IO_URING_PARAMS.pack(
        sq_entries=4, cq_entries=4, flags=int(abi.Setup.NO_SQARRAY | abi.Setup.SQE_MIXED),
        **{"sq_off.tail": 4, "sq_off.flags": 8, "sq_off.dropped": 12, "cq_off.head": 16, "cq_off.tail": 20,
           "cq_off.overflow": 24, "cq_off.flags": 28, "cq_off.cqes": 32},
    )  # fmt: skip
    ring, sqes = bytearray(1024), bytearray(4 * abi.IO_URING_SQE.nbytes)
    sq = SubmissionQueue(RingMemory(params, memoryview(ring), memoryview(ring), memoryview(sqes)), mixed=True)
    getattr(sq, case.name)(*case.args, **keywords)
    return bytes(sqes[: sq.tail * abi.IO_URING_SQE.nbytes])


def comparisons(case: Case, types: dict[str, list[str]]) -> list[Comparison]:
    """The SQE of a case as it is, and with every further parameter of the encoder."""
    functions = helpers(case)
    if not functions or any(function not in types for function, _ in functions):
        return []
    calls = [call(function, types[function], args) for function, args in functions]
    parameters = list(inspect.signature(getattr(SubmissionQueue, case.name)).parameters.values())[1 + len(case.args) :]
    required = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    made = []
    for what, names in (("as it is", required), ("every field", [parameter.name for parameter in parameters])):
        options = {name: {**SHARED, **case.options}[name] for name in names}
        after = [assignment(field, value) for field, value in options.values()]
        if "buf_group" in required:  # liburing leaves the group to its caller, and this with it
            after.append("sqe->flags |= IOSQE_BUFFER_SELECT;")
        ours = written(case, {name: value for name, (_, value) in options.items()})
        if ours != expected(case, options):
            raise CannotCompareError(f"{case.name} writes something else than the table says: run tests/test_prep.py.")
        made.append(Comparison(what, tuple(name for name, _ in functions), " ".join([*calls, *after]), ours))
    return made


def run(command: list[str], folder: Path, what: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompareError(f"{what} did not run: {error}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() + done.stdout.splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line), lines[-1] if lines else "it said nothing")
        raise CannotCompareError(f"{what} failed with {done.returncode}: {told.strip()}")
    return done.stdout


def compiler() -> str:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(name):
            return name
    raise CannotCompareError("No C compiler was found: set CC or install one.")


def include_folder(checkout: Path, scratch: Path, cc: str) -> Path:
    """Where a configured liburing.h is: in the checkout, or in a copy of it that is configured now."""
    if all((checkout / path).is_file() for path in CONFIGURED):
        return checkout / HEADER.parent
    if not (checkout / "configure").is_file():
        raise CannotCompareError(f"{checkout} is not configured and has no configure script.")
    copy = scratch / "liburing"
    shutil.copytree(checkout, copy, ignore=LEFT_OUT)
    run(["sh", "./configure", f"--cc={cc}"], copy, "liburing's configure")
    return copy / HEADER.parent


def bytes_of_c(program: str, include: Path, scratch: Path, cc: str) -> list[bytes]:
    """Compile and run the program: the SQEs that it shows."""
    source, binary = scratch / "compare.c", scratch / "compare"
    source.write_text(program, encoding="utf-8")
    run([cc, "-std=gnu11", "-w", "-I", str(include), "-o", str(binary), str(source)], scratch, "The compiler")
    return [bytes.fromhex(line) for line in run([str(binary)], scratch, "The compiled program").split()]


def compare(checkout: Path) -> tuple[list[tuple[Comparison, bytes]], dict[str, list[str]]]:
    """Every comparison with the bytes of C, and the functions that this liburing has."""
    cc = compiler()
    try:
        types = prototypes((checkout / HEADER).read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotCompareError(f"{checkout} is no checkout of liburing: {error.strerror}: {HEADER}.") from None
    made = [comparison for case in CASES for comparison in comparisons(case, types)]
    lines = [f"    {comparison.statements} show({len(comparison.ours)});" for comparison in made]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        include = include_folder(checkout, scratch, cc)
        theirs = bytes_of_c(PROGRAM + "\n".join(lines) + "\n    return 0;\n}\n", include, scratch, cc)
    return list(zip(made, theirs, strict=True)), types


def report(compared: list[tuple[Comparison, bytes]], types: dict[str, list[str]]) -> int:
    """Print a line for each function of liburing, then what differs. The exit status."""
    by_function: dict[str, list[tuple[Comparison, bytes]]] = {name: [] for name in types}
    for comparison, theirs in compared:
        for name in comparison.functions:
            by_function[name].append((comparison, theirs))
    equal, differing, missing = 0, [], []
    for name, pairs in sorted(by_function.items()):
        different = [(one, theirs) for one, theirs in pairs if one.ours != theirs]
        verdict = "DIFFERS" if different else "equal" if pairs else "NOT COMPARED: tools/sqe_cases.py has no case"
        print(f"{name:42} {len(pairs):3} SQEs  {verdict}")
        equal += bool(pairs) and not different
        differing += different
        missing += [] if pairs else [name]
    for one, theirs in differing:
        print(f"\n{', '.join(one.functions)}, {one.what}:\n  {one.statements}")
        print(f"  C     {theirs.hex(' ', 4)}\n  ours  {one.ours.hex(' ', 4)}")
    lacking = {name for case in CASES for name, _ in helpers(case)} - types.keys()
    if lacking:
        print(f"\nNot in this liburing: {', '.join(sorted(lacking))}")
    print(f"\n{equal} of liburing's {len(types)} functions write what rawuring writes, in {len(compared)} SQEs.")
    return 1 if differing or missing else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="compare_liburing.py", description="Compare every SQE that rawuring writes with what C's liburing writes."
    )
    parser.add_argument("checkout", metavar="PATH", type=Path, help="a checkout of liburing")
    checkout = parser.parse_args(argv).checkout
    try:
        return report(*compare(checkout))
    except CannotCompareError as error:
        print(f"compare_liburing.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
