"""What a server has done, as numbers that add up over several, and as text.

May import the standard library only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from operator import add, sub


@dataclass(frozen=True)
class Counts:
    """All since the start but the first."""

    connected: int = 0
    """Connections there are now."""
    connections: int = 0
    echoes: int = 0
    nbytes: int = 0
    enters: int = 0
    """io_uring_enter calls; none without a ring."""
    completions: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Of two servers together."""
        return Counts(*map(add, astuple(self), astuple(other)))

    def __sub__(self, before: Counts) -> Counts:
        """From then to now."""
        return Counts(*map(sub, astuple(self), astuple(before)))

    def text(self) -> str:
        """Everything that was done."""
        text = f"{self.connections:,} connections, {self.echoes:,} echoes, {self.nbytes:,} bytes"
        return text + (f", {self.enters:,} enters, {self.completions:,} completions" if self.enters else "")


class Rates:
    """Says what was done since it was last told."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._before = Counts()
        self._then = time.monotonic()

    def tell(self, counts: Counts) -> None:
        """Say one line."""
        now = time.monotonic()
        seconds, did = now - self._then, counts - self._before
        self._then, self._before = now, counts
        line = (
            f"{counts.connected:,} connections, {did.echoes / seconds:,.0f} echoes/s, "
            f"{did.nbytes / seconds:,.0f} bytes/s"
        )
        if counts.enters:
            line += f", {did.enters / seconds:,.0f} enters/s, {did.completions / max(did.enters, 1):.1f} completions each"
        self._say(line)
