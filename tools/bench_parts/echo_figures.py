"""The figures of `bench.py echo`: what was asked, what each leg gave, and what follows from it. No text, no measuring.

Imports its neighbour `measure`. Everything here comes out of the JSON file as it went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tools.bench_parts.measure import Json, Spread, ratios, spread

TIE = 0.02
"""Medians that differ by less are a tie: pairs spread by 4 to 9 %."""

BUSY = 0.90
"""A client's core busier than this may have been the limit: then CPU per echo decides."""


DEAF_BYTES = 1 << 30
"""What deaf peers send at most, all of them together: a server may keep it all."""


@dataclass(frozen=True)
class Settings:
    """What is asked of every leg."""

    connections: int
    size: int
    seconds: float
    pairs: int
    server_cpu: int
    client_cpu: int
    depth: int = 1
    rate: float | None = None
    churn: bool = False
    deaf: int = 0
    client: str | None = None
    client_backend: str = "auto"
    fresh: bool = False

    def words(self) -> list[str]:
        """What kind of load it is, as options of tools/load.py."""
        words = ["--depth", str(self.depth)] if self.depth > 1 else []
        words += ["--rate", str(self.rate)] if self.rate else []
        words += ["--churn"] if self.churn else []
        words += ["--deaf", str(self.deaf), "--deaf-bytes", str(DEAF_BYTES // self.deaf)] if self.deaf else []
        return words

    def title(self) -> str:
        """What kind of load it is, for a reader."""
        many = f"{self.connections} connection{'s' * (self.connections > 1)}"
        text = f"{many} for one message of {self.size:,} bytes each" if self.churn else f"{many} of {self.size:,} bytes"
        text += f", {self.depth} messages in flight on each" if self.depth > 1 else ""
        text += f", {self.rate:,.0f} messages a second" if self.rate else ""
        text += f", {self.deaf} deaf peer{'s' * (self.deaf > 1)} beside them" if self.deaf else ""
        return text


@dataclass
class Row:
    """A server and its legs, one per round."""

    name: str
    command: list[str]
    legs: list[Json] = field(default_factory=list)
    failure: str = ""
    repeated: list[str] = field(default_factory=list)
    """Why a leg failed that was made again, and then went well."""

    def rates(self) -> list[float]:
        """Echoes per second, leg by leg."""
        return [leg["echoes"] / leg["wall_ns"] * 1e9 for leg in self.legs]

    def rate(self) -> Spread:
        return spread(self.rates())

    def cpu_us(self) -> list[float]:
        """The server's CPU time per echo in microseconds, leg by leg."""
        return [leg["server_cpu_ns"] / leg["echoes"] / 1e3 for leg in self.legs]

    def cpu(self) -> Spread:
        return spread(self.cpu_us())

    def user_us(self) -> float:
        """User mode's share of the CPU time per echo: from clock ticks, so of all legs together."""
        user = sum(leg["server_user_ns"] for leg in self.legs)
        system = sum(leg["server_system_ns"] for leg in self.legs)
        return self.cpu().median * float(user / max(user + system, 1))

    def part(self, key: str, of: str) -> float:
        """The median over the legs of one figure over another."""
        return spread([leg[key] / max(leg[of], 1) for leg in self.legs]).median

    def client_busy(self) -> float:
        return self.part("client_cpu_ns", "wall_ns")

    def server_busy(self) -> float:
        return self.part("server_cpu_ns", "wall_ns")

    def figure(self, key: str) -> float | None:
        """The median of what the load generator told, where it did."""
        told = [leg[key] for leg in self.legs if leg.get(key) is not None]
        return spread(told).median if told else None

    def runs(self, count: int = 3) -> list[float]:
        """The legs as that many runs, one after the other: the median rate of each, of fewer if there are not so many."""
        rates = self.rates()
        count = min(count, len(rates))
        bounds = [len(rates) * i // count for i in range(count + 1)]
        return [spread(rates[low:high]).median for low, high in zip(bounds, bounds[1:], strict=False)]


@dataclass
class Table:
    """Servers under one load."""

    settings: Settings
    rows: list[Row]
    against: str
    """The row that the others are compared with."""

    def measured(self) -> list[Row]:
        """The rows that have a leg of every round."""
        return [row for row in self.rows if row.legs and not row.failure]

    def row(self, name: str) -> Row | None:
        return next((row for row in self.measured() if row.name == name), None)

    def reference(self) -> Row:
        """The row to compare with; if that failed, the first."""
        return self.row(self.against) or self.measured()[0]

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> Table:
        return cls(Settings(**data["settings"]), [Row(**row) for row in data["rows"]], data["against"])


def differs(ratio: Spread) -> bool:
    """Does a ratio taken in pairs tell the two apart?"""
    return abs(ratio.median - 1) > TIE and (ratio.low > 1 or ratio.high < 1)


@dataclass(frozen=True)
class Comparison:
    """One row over another, pair by pair."""

    rate: Spread
    cpu: Spread
    by_cpu: bool
    """The client's core was too busy in one of them for the rate to say who is quicker."""

    @property
    def gain(self) -> float:
        """How much better by what decides: 1.1 is a tenth more echoes a second, or per second of CPU time."""
        return 1 / self.cpu.median if self.by_cpu else self.rate.median

    @property
    def better(self) -> int:
        """1 better, -1 worse, 0 a tie: within `TIE`, or with quartiles on both sides of 1."""
        ratio = self.cpu if self.by_cpu else self.rate
        if not differs(ratio):
            return 0
        return 1 if (ratio.median < 1) == self.by_cpu else -1

    def verdict(self) -> str:
        if self.by_cpu:
            return ("tie by CPU", "less CPU", "more CPU")[self.better]
        return ("tie", "faster", "slower")[self.better]


def compare(row: Row, other: Row) -> Comparison:
    """Two rows of one table."""
    return Comparison(
        spread(ratios(row.rates(), other.rates())),
        spread(ratios(row.cpu_us(), other.cpu_us())),
        max(row.client_busy(), other.client_busy()) > BUSY,
    )


def best(rows: Sequence[Row]) -> Row:
    """The row with the highest rate."""
    return max(rows, key=lambda row: row.rate().median)
