"""docs/support.md: where the tests passed, what is skipped where, and the limits that are known.

Everything but LIMITS comes from outcomes of `kernels.py run`. Imports the standard library and its
neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

from .outcome import Outcome, skip_reasons, table

OPENING = """\
# What rawuring is tested on

Each row is a Debian kernel booted under QEMU (software emulation) with a Python of Debian's, the whole
test suite run inside, and `python -m echo` serving a load whose every byte is compared. The page is
generated from those runs:

    python3 tools/kernels.py run --kernel 5.10 --kernel newest@aarch64 ...
    python3 tools/kernels.py support --write docs/support.md

*Passed* counts tests. *Skipped* tests need something the guest does not have, listed below.
*Left out* are tests marked `slow`: they say nothing about a kernel, and run natively at every change.
*Echo* is the mode that the server chose for itself. Rows whose four counts add up to less are of an
earlier, smaller suite.
"""

LIMITS = """\
## Known limits

* Debian's kernel 5.10 carries the io_uring of Linux 5.15. What came between the two, and a 5.10 without those patches, is
  not shown by its row.
* All CPUs of a guest share one thread of the emulator, so that nothing is ever reordered there: the rows of weakly ordered
  machines show that each back-end of `rawuring.atomics` works, not that a missing barrier would be noticed.
* Times mean nothing under emulation, and no test asserts one.
* Not shown anywhere, for want of the hardware: zero-copy receive from a network card, zoned block devices, NVMe passthrough.
* 32-bit Pythons are refused when `rawuring` is imported: the structures of the kernel have other sizes of pointers there.
* PyPy is refused as well: its objects move in memory, under the kernel's hands. `python -m echo --backend epoll` runs on it.
* A CPython without the interpreter lock has not been tried: Debian has none. See below.

## What relies on the interpreter lock

From reading the code; no free-threaded build was at hand. A ring belongs to one thread there as anywhere, and words shared
with the kernel need the same back-ends.

* One thread only, with or without the lock: the token of the next operation, the positions of the SQ, the table of what is
  in flight. `prep_*` does not check the thread. With the lock a second thread mixes up the queue, without it a slot can be
  half written.
* Finalizers run in any thread. They append to deques that the owner alone empties: each operation on a deque must be atomic.
* "Look, delete, return" on one line is safe against signal handlers, not against a second consumer of the same stream.
* `close()` while another thread reads a word of the ring takes the memory away under it.
* The lock of a buffer against resizing is its exporter's count of exports. Do not resize a buffer in one thread while
  another gives it to an operation.
* Process-wide: what is kept for the kernel after a ring's end (one key a ring), the set of rings that a fork walks, and the
  back-end of the atomics, which may be set twice to the same.
"""


HEADINGS = (
    "kernel", "release", "machine", "pages", "Python",
    "passed", "failed", "skipped", "left out", "echo", "atomics", "date",
)  # fmt: skip


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole page, in Markdown."""
    rows = table([HEADINGS, *(row(outcome) for outcome in outcomes)], markdown=True)
    failures = [f"* {each.name}: {test}" for each in outcomes for test in each.tests.get("failed", [])]
    failures += [
        f"* {each.name}: {test} (passed when it was run once more)"
        for each in outcomes
        for test in each.tests.get("unsteady", [])
    ]
    failed = ["## Failed", "", *failures, ""] if failures else []
    skips = table([("what the tests need", "skipped"), *skip_reasons(outcomes)], markdown=True)
    return "\n".join([OPENING, rows, "", *failed, "## Skipped", "", skips, "", LIMITS])


def row(outcome: Outcome) -> tuple[str, ...]:
    release, python = outcome.facts.get("release", "?"), outcome.facts.get("python", outcome.python)
    return (outcome.kernel, release, *outcome.place, python, *outcome.counts, outcome.backend, outcome.date)
