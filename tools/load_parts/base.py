"""What every load has: its tally, the block of bytes that messages are cut from, and the loop around its turns.

Imports the standard library only.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import NoReturn

# The streams are windows of one block of random bytes, read round and round. With a prime as its
# length and a prime as the step from one connection's start to the next, hardly two messages are
# alike: an answer meant for another connection is noticed, and so is an older one of its own.
LEAST_PERIOD = 65_521
STEP = 4_099

Bytes = bytes | memoryview


class LoadError(Exception):
    """The server answered wrongly, hung up, or not at all."""


def ceil_power(number: int) -> int:
    """The least power of two that is no less."""
    return 1 << (number - 1).bit_length()


def percentile(ordered: Sequence[int], part: float) -> int:
    """The value below which that part of them lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def histogram(ordered: Sequence[int], steps: int = 4) -> list[tuple[int, int]]:
    """How many there are up to each bound that one has, `steps` bounds to a doubling: (bound, count)."""
    found: list[tuple[int, int]] = []
    bound, step = 0, -1
    for value in ordered:
        while value > bound:
            step += 1
            bound = round(2 ** (step / steps))
        if found and found[-1][0] == bound:
            found[-1] = (bound, found[-1][1] + 1)
        else:
            found.append((bound, 1))
    return found


class Load:
    """What drives the server, on a number of connections; `echoes` counts the messages that came back right."""

    backend: str
    """What it stands on."""

    def __init__(self, connections: int, size: int, most: int) -> None:
        self.size = size
        self.most = most  # bytes sent or compared in one piece
        self.period = max(LEAST_PERIOD, most)
        block = random.Random(1).randbytes(self.period)
        self.block = block + block[:most]  # so a part that starts inside never has to wrap
        # By the index of a connection: where in the block the next byte to come back is.
        self.at = [index * STEP % self.period for index in range(connections)]
        self.now_ns = time.perf_counter_ns()  # when this turn of the loop began
        self.stopping = False
        self.echoes = 0
        self.turns = 0

    def forget(self) -> None:
        """Start the tally anew."""
        self.echoes = self.turns = 0

    def waits_ns(self) -> list[int]:
        """How long messages waited for their answers, shortest first."""
        raise NotImplementedError

    def start(self) -> None:
        """Set it going."""
        raise NotImplementedError

    def run(self, until_ns: int) -> None:
        """Go on until that moment of time.perf_counter_ns()."""
        while self.now_ns < until_ns:
            self.turn()

    def drain(self) -> None:
        """Send nothing new and await all that is in flight."""
        self.stopping = True
        while self.unanswered():
            self.turn()

    def turn(self, timeout_ns: int | None = None) -> None:
        """Wait for something to happen, no longer than that, and handle it."""
        raise NotImplementedError

    def begin_turn(self) -> None:
        """Note the time at which the waiting of this turn ended."""
        self.now_ns = time.perf_counter_ns()
        self.turns += 1

    def unanswered(self) -> int:
        """How many connections have something in flight."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the backend holds."""

    def wrong(self, index: int, data: Bytes) -> NoReturn:
        """Say how an answer differs from what was sent."""
        right = self.block[self.at[index] :]
        first = next(i for i, byte in enumerate(data) if byte != right[i])
        raise LoadError(
            f"connection {index}: of {len(data)} bytes that came back, byte {first} is "
            f"{data[first]:#04x} where {right[first]:#04x} went"
        )
