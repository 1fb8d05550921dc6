"""When the messages of an open loop are to be sent, and how long they waited from then on.

Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import time


class Schedule:
    """`rate` messages a second at even distances, message k on connection k modulo their number.

    A message's wait begins when it was to be sent. So a server that stalls is charged for every message
    of that time, although the client could not send them then.
    """

    def __init__(self, rate: float, connections: int) -> None:
        self.interval_ns = 1e9 / rate
        self.connections = connections
        self.released = 0
        self.answered = [0] * connections
        self.waits: list[int] = []
        self.lags: list[int] = []

    def begin(self) -> None:
        with contextlib.suppress(OSError), open("/proc/self/timerslack_ns", "w", encoding="ascii") as slack:
            slack.write("1")  # a wait with a timeout ends then, not up to 50 microseconds later
        self.began_ns = time.perf_counter_ns()

    def forget(self) -> None:
        self.waits.clear()
        self.lags.clear()

    def time_ns(self, number: int) -> int:
        """When that message is to be sent."""
        return self.began_ns + int(number * self.interval_ns)

    def take_due(self, now_ns: int) -> range:
        """The messages to be sent by now that were not taken before. Notes how late the first of them is."""
        first = self.released
        self.released = max(first, int((now_ns - self.began_ns) / self.interval_ns) + 1)
        if self.released > first:
            self.lags.append(max(now_ns - self.time_ns(first), 0))
        return range(first, self.released)

    def next_ns(self) -> int:
        """When the next message is to be sent."""
        return self.time_ns(self.released)

    def answer(self, index: int, messages: int, now_ns: int) -> None:
        """The next `messages` of a connection came back."""
        first = self.answered[index]
        self.answered[index] = first + messages
        for number in range(first, first + messages):
            self.waits.append(now_ns - self.time_ns(number * self.connections + index))
