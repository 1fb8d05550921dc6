"""What every benchmark here shares: medians and quartiles, pinning, the table, the machine.

Imports the standard library only. Never measures anything itself.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Json = dict[str, Any]


class BenchError(Exception):
    """Something needed for the measurement is missing or failed: one line that says what."""


class Spread(NamedTuple):
    """The middle half of the samples."""

    low: float
    median: float
    high: float

    def text(self, digits: int) -> str:
        return f"{self.median:,.{digits}f}"

    def quartiles(self, digits: int) -> str:
        return f"{self.low:,.{digits}f} to {self.high:,.{digits}f}"


def spread(samples: Sequence[float]) -> Spread:
    """Lower quartile, median and upper quartile, the samples themselves being the population."""
    if len(samples) == 1:
        return Spread(samples[0], samples[0], samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(low, median, high)


def ratios(samples: Sequence[float], base: Sequence[float]) -> list[float]:
    """Each sample over its partner of the same round, so that drift cancels."""
    return [sample / partner for sample, partner in zip(samples, base, strict=True)]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, padded to be read as plain text too; `left` columns are left-aligned."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [":" + "-" * (w - 1) if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def cpu_model() -> str:
    """The processor's name as the kernel tells it, or the architecture where it has none."""
    with contextlib.suppress(OSError):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip().lower() in ("model name", "cpu model", "cpu", "uarch"):
                    return value.strip()
    return platform.machine()


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            if line.split()[2] == number:
                return line.partition(" - ")[2].split()[0]
    return "an unknown file system"


def environment() -> Json:
    """Where the figures come from."""
    return {
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def environment_line(where: Json) -> str:
    return (
        f"Linux {where['kernel']} ({where['machine']}), {where['python']}, {where['cpu']}, "
        f"{where['cpus']} CPUs; load average at the start {where['load_average']}"
    )


def cpus() -> list[int]:
    """The CPUs this process may run on, in order."""
    return sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Run on one CPU; a process started inside inherits that and stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def progress(text: str, milestone: bool = False) -> None:
    """Say on stderr what is being done: a line rewritten on a terminal, else the milestones."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
    elif milestone:
        sys.stderr.write(text + "\n")
    sys.stderr.flush()


def progress_done() -> None:
    """Leave the terminal's last line free for the report."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
