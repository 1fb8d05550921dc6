"""`bench.py echo`: servers side by side in one run, on one load generator.

All servers are started once, and the legs alternate: A B C, A B C, ... so that drift of the machine meets them
alike. Server and client have a core each. Imports its neighbours; the servers and the load run in processes of
their own.
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
from pathlib import Path

from tools.bench_parts import measure
from tools.bench_parts.echo_figures import Row, Settings, Table
from tools.bench_parts.measure import BenchError, Json, progress
from tools.bench_parts.servers import Server
from tools.load_parts.base import LoadError
from tools.load_parts.usage import usage

LOAD = Path(__file__).resolve().parents[1] / "load.py"


def own_leg(server: Server, settings: Settings) -> Json:
    """One run of tools/load.py, which watches the server over exactly its measured window."""
    command = [
        sys.executable, str(LOAD), str(server.port), "--json",
        "--connections", str(settings.connections), "--size", str(settings.size),
        "--seconds", str(settings.seconds), "--client-backend", settings.client_backend, *settings.words(),
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
    }  # fmt: skip


def one_leg(server: Server, settings: Settings) -> Json:
    return foreign_leg(server, settings) if settings.client else own_leg(server, settings)


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


def run(servers: Sequence[Server], variants: Sequence[Settings], against: str) -> list[Table]:
    """All rounds for servers that are up: a table for each of the settings, whose legs alternate as those of the rows do.

    A leg that fails is made once more, with the server started anew, and told as repeated. A row whose
    leg fails twice is told as failed, and the others go on.
    """
    tables = [Table(settings, [Row(server.name, server.command) for server in servers], against) for settings in variants]
    pairs = variants[0].pairs
    for number in range(1, pairs + 1):
        for index, server in enumerate(servers):
            for table in tables:
                row, settings = table.rows[index], table.settings
                if row.failure:
                    continue
                progress(f"{settings.title()}, round {number} of {pairs}: {server.name}")
                try:
                    if settings.fresh or server.fresh or not server.alive():
                        server.restart(settings.server_cpu)
                    try:
                        row.legs.append(one_leg(server, settings))
                    except (BenchError, LoadError) as error:
                        server.restart(settings.server_cpu)
                        row.legs.append(one_leg(server, settings))
                        row.repeated.append(str(error))
                except (BenchError, LoadError) as error:
                    row.failure = str(error)
        for table in tables:
            told = ", ".join(f"{row.name} {row.rates()[-1]:,.0f}" for row in table.measured())
            progress(f"{table.settings.title()}, round {number} of {pairs}: {told}", milestone=True)
    measure.progress_done()
    return tables
