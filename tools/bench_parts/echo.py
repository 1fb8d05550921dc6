"""`bench.py echo`: servers side by side in one run, on one load generator.

All servers are started once, and the legs alternate: A B C, A B C, ... so that drift of the
machine meets them alike. Server and client have a core each. May import the standard library and
its neighbours; the servers and the load run in processes of their own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools import load
from tools.bench_parts import measure
from tools.bench_parts.measure import BenchError, Json, progress, ratios, spread
from tools.bench_parts.servers import Server
from tools.load_parts.usage import usage

LOAD = Path(load.__file__)

TIE = 0.02
"""Medians that differ by less are a tie: pairs spread by 4 to 9 %."""

BUSY = 0.90
"""A client's core busier than this may have been the limit: then CPU per echo decides."""


@dataclass(frozen=True)
class Settings:
    """What is asked of every leg."""

    connections: int
    size: int
    depth: int
    seconds: float
    pairs: int
    client: str | None
    client_backend: str
    server_cpu: int
    client_cpu: int
    fresh: bool


@dataclass
class Row:
    """A server and its legs, one per round."""

    server: Server
    legs: list[Json] = field(default_factory=list)

    def rates(self) -> list[float]:
        """Echoes per second, leg by leg."""
        return [leg["echoes"] / leg["wall_ns"] * 1e9 for leg in self.legs]

    def cpu_us(self) -> list[float]:
        """The server's CPU time per echo in microseconds, leg by leg."""
        return [leg["server_cpu_ns"] / leg["echoes"] / 1e3 for leg in self.legs]

    def part(self, key: str, of: str) -> float:
        """The median over the legs of one figure over another."""
        return spread([leg[key] / max(leg[of], 1) for leg in self.legs]).median

    def user_part(self) -> float:
        """How much of the CPU time was in user mode: clock ticks, so of all legs together."""
        user = sum(leg["server_user_ns"] for leg in self.legs)
        system = sum(leg["server_system_ns"] for leg in self.legs)
        return float(user / max(user + system, 1))

    def per_turn(self) -> str:
        """How many answers the client found at once, where it tells."""
        found = [leg["echoes"] / leg["turns"] for leg in self.legs if leg.get("turns")]
        return f"{spread(found).median:.1f}" if found else "-"

    def wait_us(self, key: str) -> str:
        waits = [leg[key] / 1e3 for leg in self.legs if leg.get(key) is not None]
        return f"{spread(waits).median:,.0f}" if waits else "-"


def own_leg(server: Server, settings: Settings) -> Json:
    """One run of tools/load.py, which watches the server over exactly its measured window."""
    command = [
        sys.executable, str(LOAD), str(server.port), "--json",
        "--connections", str(settings.connections), "--size", str(settings.size),
        "--depth", str(settings.depth), "--seconds", str(settings.seconds),
        "--client-backend", settings.client_backend,
    ]  # fmt: skip
    for pid in server.pids():
        command += ["--watch", str(pid)]
    status, out, err, _ = run_pinned(command, settings.client_cpu)
    if status:
        server.check_alive()
        raise server.failed(err.strip() or f"the load generator ended with status {status}")
    leg: Json = json.loads(out)
    return leg


def foreign_leg(server: Server, settings: Settings) -> Json:
    """One run of somebody else's client; CPU times include its connecting and its start."""
    assert settings.client
    values = {
        "port": server.port, "connections": settings.connections, "size": settings.size,
        "depth": settings.depth, "seconds": f"{settings.seconds:g}",
    }  # fmt: skip
    command = [
        re.sub(r"\{(\w+)\}", lambda found: str(values.get(found[1], found[0])), word)
        for word in shlex.split(settings.client)
    ]
    pids = server.pids()
    before = usage(pids)
    status, out, err, client_cpu_ns = run_pinned(command, settings.client_cpu)
    server.check_alive()
    used = usage(pids).since(before)
    if status:
        raise BenchError(f"client {shlex.join(command)} ended with status {status}: {err.strip() or out.strip()}")
    rate = told_rate(out)
    if not rate:
        raise BenchError(f"client {shlex.join(command)} told no rate, such as '1234 response/sec': {out.strip()!r}")
    told = re.search(r"(?i)responses:\s*(\d+)", out)
    echoes = int(told[1]) if told else round(rate * settings.seconds)
    return {
        "backend": command[0], "echoes": echoes, "wall_ns": round(echoes / rate * 1e9),
        "client_cpu_ns": client_cpu_ns, "client_waited_ns": None, "server_cpu_ns": used.cpu,
        "server_user_ns": used.user, "server_system_ns": used.system, "server_waited_ns": used.waited,
        "p50_ns": None, "p99_ns": None,
    }  # fmt: skip


def told_rate(text: str) -> float | None:
    """Answers per second as a client printed them: 'response/sec' of rust_echo_bench, or the like."""
    for what in ("responses?", "echoe?s?", "requests?|reqs?"):
        found = re.search(rf"(?i)([\d,]+(?:\.\d+)?)\s*(?:{what})\s*(?:/|per)\s*s", text)
        if found:
            return float(found[1].replace(",", ""))
    return None


def run_pinned(command: Sequence[str], cpu: int) -> tuple[int, str, str, int]:
    """Exit status, output, error output and CPU nanoseconds of a command on that CPU."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with measure.pinned(cpu):
            try:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            except OSError as error:
                raise BenchError(f"{shlex.join(command)} cannot be started: {error}") from None
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        texts = [file.read().decode(errors="replace") for file in (out, err)]
    return process.returncode, texts[0], texts[1], round((used.ru_utime + used.ru_stime) * 1e9)


def run(servers: Sequence[Server], settings: Settings) -> list[Row]:
    """All rounds for servers that are up."""
    rows = [Row(server) for server in servers]
    one_leg = foreign_leg if settings.client else own_leg
    for number in range(1, settings.pairs + 1):
        for row in rows:
            progress(f"{settings.connections} connections, round {number} of {settings.pairs}: {row.server.name}")
            if settings.fresh:
                row.server.restart(settings.server_cpu)
            row.legs.append(one_leg(row.server, settings))
        told = ", ".join(f"{row.server.name} {row.rates()[-1]:,.0f}" for row in rows)
        progress(f"{settings.connections} connections, round {number} of {settings.pairs}: {told}", milestone=True)
    measure.progress_done()
    return rows


def verdict(row: Row, first: Row) -> str:
    """Who wins, by what decides."""
    busiest = max(client_busy(row), client_busy(first))
    if busiest <= BUSY:
        ratio = spread(ratios(row.rates(), first.rates())).median
        return "tie" if abs(ratio - 1) <= TIE else "faster" if ratio > 1 else "slower"
    ratio = spread(ratios(row.cpu_us(), first.cpu_us())).median
    return "tie by CPU" if abs(ratio - 1) <= TIE else "more CPU" if ratio > 1 else "less CPU"


def client_busy(row: Row) -> float:
    return row.part("client_cpu_ns", "wall_ns")


def table(rows: Sequence[Row]) -> str:
    """Markdown: rates, ratios to the first row, CPU per echo, how busy the cores were, waits."""
    first = rows[0]
    name = first.server.name
    header = [
        "server", "echoes/s", "quartiles", f"over {name}", "quartiles", "CPU us/echo", "user", "kernel",
        f"CPU over {name}", "server busy", "client busy", "answers a turn", "p50 us", "p99 us", f"against {name}",
    ]  # fmt: skip
    lines = []
    for row in rows:
        rate, cpu = spread(row.rates()), spread(row.cpu_us())
        over = spread(ratios(row.rates(), first.rates()))
        cpu_over = spread(ratios(row.cpu_us(), first.cpu_us()))
        user = row.user_part()
        lines.append([
            row.server.name, rate.text(0), rate.quartiles(0), over.text(3), over.quartiles(3), cpu.text(2),
            f"{cpu.median * user:.2f}", f"{cpu.median * (1 - user):.2f}", cpu_over.text(3),
            f"{row.part('server_cpu_ns', 'wall_ns'):.0%}", f"{client_busy(row):.0%}",
            row.per_turn(), row.wait_us("p50_ns"), row.wait_us("p99_ns"), "-" if row is first else verdict(row, first),
        ])  # fmt: skip
    return measure.markdown(header, lines)


def title(settings: Settings) -> str:
    deep = f", {settings.depth} messages in flight on each" if settings.depth > 1 else ""
    return (
        f"### {settings.connections} connection{'s' * (settings.connections > 1)} of {settings.size:,} bytes{deep}\n\n"
        f"{settings.pairs} rounds of {settings.seconds:g} s"
    )


def notes(settings: Settings, rows: Sequence[Row]) -> list[str]:
    """What a reader must know to judge the tables."""
    lines = [
        "Ratios are taken leg by leg within a round. A difference of 2 % is a tie. Where the client's core was more "
        f"than {BUSY:.0%} busy, in the row or in the first one, rates are squeezed together and CPU per echo decides."
    ]
    if settings.client:
        lines.append(f"Load: `{settings.client}`; what it checks is its own affair, and CPU times include its start.")
    else:
        backend = " and ".join(sorted({leg["backend"] for row in rows for leg in row.legs}))
        lines.append(
            f"Load: tools/load.py on {backend}, a closed loop; every byte that came back was right. Answers a turn: how "
            "many its loop found at once; few of the connections: it waited for the server, most of them: the server "
            "waited for it. Waits (p50, p99) end when the client's loop sees the answer."
        )
    if settings.fresh:
        lines.append("Every leg met a server just started.")
    if settings.server_cpu == settings.client_cpu:
        lines.append(f"Server and client shared CPU {settings.server_cpu}, the only one there is: rates mean little.")
    else:
        lines.append(f"Servers on CPU {settings.server_cpu}, client on CPU {settings.client_cpu}.")
    return lines


def disturbance(rows: Sequence[Row]) -> str:
    """How much other programs were in the way."""

    def part(key: str) -> str:
        parts = [leg[key] / leg["wall_ns"] for row in rows for leg in row.legs if leg[key] is not None]
        return f"{spread(parts).median:.0%} of the time" if parts else "for a time unknown"

    return (
        f"Other programs kept the servers waiting for their core {part('server_waited_ns')}, the client "
        f"{part('client_waited_ns')} (medians)."
    )


def report(tables: Sequence[tuple[Settings, Sequence[Row]]], missing: Sequence[str]) -> str:
    """The whole report as Markdown."""
    blocks = []
    for settings, rows in tables:
        blocks += [title(settings), table(rows), disturbance(rows)]
    lines = [f"* {line}" for line in notes(*tables[0])]
    lines += [f"* Missing: {line}" for line in missing]
    return "\n\n".join([*blocks, "\n".join(lines)])


def as_json(settings: Settings, rows: Sequence[Row]) -> Json:
    """One table with every leg."""
    return {
        **asdict(settings),
        "rows": [
            {
                "name": row.server.name,
                "command": row.server.command,
                "echoes_per_s": spread(row.rates())._asdict(),
                "ratio": spread(ratios(row.rates(), rows[0].rates()))._asdict(),
                "cpu_us_per_echo": spread(row.cpu_us())._asdict(),
                "cpu_ratio": spread(ratios(row.cpu_us(), rows[0].cpu_us()))._asdict(),
                "verdict": verdict(row, rows[0]),
                "legs": row.legs,
            }
            for row in rows
        ],
    }
