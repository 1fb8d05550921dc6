"""What a diagnosis is, and the words that all of them use.

May import the standard library and `abi`. Never observes anything.
"""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass
from typing import Final

from .. import abi

CERTAIN: Final = "certain"
LIKELY: Final = "likely"
POSSIBLE: Final = "possible"


# Causes that lie in what was asked for, on any system.
_ABOUT_REQUEST: Final = (
    "bad-cpu", "bad-cq-entries", "bad-entries", "bad-memory", "bad-wq-fd", "flag-needs", "flags-conflict",
    "registered-fd-limit",
)  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What failed, why, and what to do about it."""

    cause: str  # stable, for programs: "seccomp", "sysctl", "memlock", ...
    confidence: str  # CERTAIN, LIKELY or POSSIBLE
    sentence: str
    fix: str
    evidence: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sentence, the fix, and the program that tells more if there is more: the text of a RingSetupError."""
        text = f"{self.sentence} {self.fix}"
        return text if self.cause in _ABOUT_REQUEST else f"{text} `python -m rawuring` tells what this system allows."


def failed(errno_value: int) -> str:
    return f"io_uring_setup failed with {errno_name(errno_value)}"


def errno_name(errno_value: int) -> str:
    return errno.errorcode.get(errno_value, f"errno {errno_value}") if errno_value else "success"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def yes_no(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def limit_text(value: int | None) -> str:
    return "unknown" if value is None else "unlimited" if value < 0 else str(value)


def flag_name(flag: int) -> str:
    """SQPOLL of 2; a bit without a name by its value."""
    return next((str(known.name) for known in abi.Setup if known == flag), f"bit {int(flag):#x}")


def flag_names(setup_flags: int) -> str:
    return " | ".join(map(flag_name, bits_of(setup_flags))) or "none"


def bits_of(setup_flags: int) -> list[int]:
    return [1 << n for n in range(32) if setup_flags >> n & 1]


def version_of(release: str | None) -> tuple[int, int] | None:
    """(6, 12) of "6.12.117+deb13-cloud-amd64"."""
    major, _, rest = (release or "").partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return (int(major), int(minor)) if major.isdigit() and minor else None
