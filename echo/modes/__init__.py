"""The modes of the ring server, and the choice of one.

May import the modes, `needs.py`, the errors of `service.py` and the names of rawuring.
"""

from __future__ import annotations

from typing import Any

from echo import needs
from echo.modes import trials
from echo.modes.base import Mode
from echo.modes.fixed import PollReadFixedWriteFixed, ReadFixedWriteFixed
from echo.modes.multishot import Bundle, Multishot
from echo.modes.pairs import (
    LinkPollRecvSend,
    PollReadvWritev,
    PollReadWrite,
    PollRecvmsgSendmsg,
    PollRecvSend,
    ReadvWritev,
    ReadWrite,
    RecvmsgSendmsg,
    RecvSend,
)
from echo.modes.provided_buffers import ProvidedBuffers
from echo.modes.zero_copy import ZeroCopy
from echo.service import EchoError, UsageError
from rawuring import Ring

AUTO = "auto"

_CLASSES: tuple[type[Mode[Any]], ...] = (
    ReadvWritev, RecvmsgSendmsg, ReadWrite, RecvSend, PollReadvWritev, PollRecvmsgSendmsg, PollReadWrite, PollRecvSend,
    ReadFixedWriteFixed, PollReadFixedWriteFixed, LinkPollRecvSend, ProvidedBuffers, Multishot, Bundle, ZeroCopy,
)  # fmt: skip
MODES = {mode.name: mode for mode in _CLASSES}
assert list(MODES) == list(needs.MODES)


def check_name(name: str) -> None:
    """Refuse a mode that there is not."""
    if name != AUTO and name not in MODES:
        known = ", ".join((AUTO, *MODES))
        raise UsageError(f"there is no mode {name!r}: choose one of {known} (--list-modes explains them)")


def choose(name: str, ring: Ring) -> tuple[type[Mode[Any]], str]:
    """The mode to use and why, in words for the first line."""
    if name != AUTO:
        mode = MODES[name]
        missing = trials.missing(ring, needs.MODES[name])
        if missing:
            raise EchoError(f"mode {name} is not for this kernel ({missing}): leave --mode out, or use --backend epoll")
        return mode, "asked for"
    refused: list[str] = []
    for name in needs.AUTO:
        missing = trials.missing(ring, needs.MODES[name])
        if not missing:
            return MODES[name], "; ".join(refused) or "the best that this kernel can do"
        refused.append(f"{name} {missing}")
    raise EchoError(f"this kernel can do no mode ({'; '.join(refused)}): use --backend epoll")


def table(ring: Ring | None, why_none: str) -> str:
    """All modes, what each does and needs, and whether this kernel can do it."""
    rows = [("mode", "what it does", "Linux", "here")]
    for name, names in needs.MODES.items():
        missing = trials.missing(ring, names) if ring else why_none
        rows.append((name, MODES[name].what, trials.newest(names), f"no: {missing}" if missing else "yes"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows)
