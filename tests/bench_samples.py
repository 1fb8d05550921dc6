"""What the tests of the load generator and of the benchmarks share: figures as these make them, and a mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rawuring import Ring, RingSetupError
from tools.bench_parts.echo_figures import Row, Settings, Table


def no_ring() -> str:
    """Why there is no ring here."""
    try:
        Ring(2).close()
    except RingSetupError as error:
        return f"no io_uring here: {error}"
    return ""


_NO_RING = no_ring()
needs_ring = pytest.mark.skipif(bool(_NO_RING), reason=_NO_RING)


def settings(connections: int, size: int = 512, **more: Any) -> Settings:
    return Settings(connections, size, 1.0, 2, server_cpu=0, client_cpu=1, **more)


def row(name: str, echoes: int, client_busy: float, cpu_ns: int, command: Sequence[str] = (), p99_ns: int = 5000) -> Row:
    """A server that answered `echoes` a second in both of its legs, for so much CPU time each."""
    leg = {
        "backend": "ring", "echoes": echoes, "turns": echoes // 4, "wall_ns": 10**9,
        "client_cpu_ns": int(client_busy * 1e9), "client_waited_ns": 0, "server_cpu_ns": cpu_ns * echoes,
        "server_user_ns": cpu_ns * echoes // 4, "server_system_ns": cpu_ns * echoes * 3 // 4, "server_waited_ns": 0,
        "server_resident_nbytes": 1 << 24, "p50_ns": 1000, "p99_ns": p99_ns, "p999_ns": 2 * p99_ns, "lag_p99_ns": 10,
        "deaf_sent_nbytes": 5_000_000, "histogram": [],
    }  # fmt: skip
    return Row(name, list(command), [leg, dict(leg)])


def table(asked: Settings, rows: Sequence[Row]) -> Table:
    return Table(asked, list(rows), "auto")
