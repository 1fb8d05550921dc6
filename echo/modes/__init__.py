"""The modes of the ring server, and the choice of one.

May import the modes and the names of rawuring.
"""

from __future__ import annotations

from typing import Any

from echo.modes.base import Mode
from echo.modes.multishot import Multishot
from echo.modes.one_at_a_time import PollRecvSend, RecvSend
from echo.service import EchoError, UsageError
from rawuring import Ring

MODES: dict[str, type[Mode[Any]]] = {mode.name: mode for mode in (Multishot, RecvSend, PollRecvSend)}
AUTO = "auto"
BEST_FIRST = (Multishot, RecvSend)


def check_name(name: str) -> None:
    """Refuse a mode that there is not."""
    if name != AUTO and name not in MODES:
        known = ", ".join((AUTO, *MODES))
        raise UsageError(f"there is no mode {name!r}: choose one of {known} (--list-modes explains them)")


def choose(name: str, ring: Ring) -> tuple[type[Mode[Any]], str]:
    """The mode to use and why, in words for the first line."""
    if name != AUTO:
        mode = MODES[name]
        missing = mode.missing(ring)
        if missing:
            raise EchoError(f"mode {name} is not for this kernel ({missing}): leave --mode out, or use --backend epoll")
        return mode, "asked for"
    refused: list[str] = []
    for mode in BEST_FIRST:
        missing = mode.missing(ring)
        if not missing:
            return mode, "; ".join(refused) or "the best that this kernel can do"
        refused.append(f"{mode.name} {missing}")
    raise EchoError(f"this kernel can do no mode ({'; '.join(refused)}): use --backend epoll")


def table(ring: Ring | None, why_none: str) -> str:
    """All modes, what each does and needs, and whether this kernel can do it."""
    rows = [("mode", "what it does", "Linux", "here")]
    for mode in MODES.values():
        missing = mode.missing(ring) if ring else why_none
        rows.append((mode.name, mode.what, mode.needs, f"no: {missing}" if missing else "yes"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows)
