"""The parts of a report. Their names are the keys of the JSON document, and their order is its order.

May import diagnosis. Never observes anything. None is "not found out", everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..diagnosis import Diagnosis

# A row's state: what was found, held against the release that brought it.
OK: Final = "ok"
MISSING: Final = "missing"  # it should be here: the kernel was built without it, or restricted
BACKPORT: Final = "backport"  # here before its release
LATER: Final = "later"  # it needs a later kernel
UNKNOWN: Final = "unknown"  # not found out; among the surprises: not in our tables
NOT_RUN: Final = "not run"  # of behaviours alone


@dataclass(frozen=True)
class Tool:
    name: str
    version: str
    python: str


@dataclass(frozen=True)
class Kernel:
    release: str
    version: str
    machine: str
    page_nbytes: int
    config_io_uring: bool | None


@dataclass(frozen=True)
class Verdict:
    status: str  # "usable", "blocked", "absent" or "undecided"
    exit_code: int
    summary: str


@dataclass(frozen=True)
class Call:
    """What a system call answered that was made so that it fails before it does anything."""

    name: str
    result: str | None
    meaning: str  # "reachable", "refused", "killed", "absent" or "unknown"


@dataclass(frozen=True)
class Memlock:
    """RLIMIT_MEMLOCK, and what it means for rings. Where it is unlimited the numbers are None."""

    soft_nbytes: int | None
    hard_nbytes: int | None
    is_unlimited: bool | None
    is_charged: bool | None  # does the memory of this process's rings count?
    largest_ring_entries: int | None  # if it is the user's only ring


@dataclass(frozen=True)
class Access:
    calls: tuple[Call, ...]
    io_uring_disabled: int | None
    io_uring_group: int | None
    is_in_group: bool | None
    seccomp_mode: int | None
    seccomp_filters: int | None
    no_new_privs: bool | None
    lsm: tuple[str, ...] | None
    container: str | None
    memlock: Memlock
    capabilities: Mapping[str, bool | None]
    atomics: str
    ring: str | None  # why a `Ring` could not be made; None if it could


@dataclass(frozen=True)
class Row:
    """A constant of the kernel's ABI, and whether this kernel has it."""

    name: str
    kernel_name: str
    value: int
    since: str
    present: bool | None
    state: str
    source: str | None  # what said so
    man: str | None


@dataclass(frozen=True)
class Behaviour:
    """Something that was tried out."""

    name: str
    title: str
    since: str
    present: bool | None
    state: str
    detail: str


@dataclass(frozen=True)
class Surprise:
    """A row whose presence the kernel's release does not explain, or what is in none of our tables."""

    section: str
    name: str
    state: str
    explanation: str


@dataclass(frozen=True)
class Report:
    tool: Tool
    kernel: Kernel
    verdict: Verdict
    access: Access
    diagnosis: tuple[Diagnosis, ...]
    features: tuple[Row, ...]
    setup_flags: tuple[Row, ...]
    opcodes: tuple[Row, ...]
    register_ops: tuple[Row, ...]
    behaviour: tuple[Behaviour, ...]
    surprises: tuple[Surprise, ...]
    beyond: Mapping[str, int | None]  # of each section, how many the kernel knows and our table does not
