"""Smoke tests of tools/bench.py: it runs, and its reports have their shape. Nothing here asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from emulation import PATIENCE

from rawuring import Ring, RingSetupError
from tools.bench_parts import measure, servers
from tools.bench_parts.echo import Row, Settings, report, told_rate, verdict

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "tools" / "bench.py"


def no_ring() -> str:
    """Why there is no ring here."""
    try:
        Ring(2).close()
    except RingSetupError as error:
        return f"no io_uring here: {error}"
    return ""


NO_RING = no_ring()
needs_ring = pytest.mark.skipif(bool(NO_RING), reason=NO_RING)


def bench(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(BENCH), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100 * PATIENCE, cwd="/")


# --- the figures


def test_spread_and_ratios() -> None:
    assert measure.spread([3.0]) == (3.0, 3.0, 3.0)
    assert measure.spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert measure.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_the_table_is_markdown() -> None:
    assert measure.markdown(["a", "bb"], [["ccc", "1"]]) == "| a   | bb |\n| :-- | -: |\n| ccc |  1 |"


def row(name: str, echoes: int, client_busy: float, cpu_ns: int) -> Row:
    leg = {
        "backend": "ring", "echoes": echoes, "wall_ns": 10**9, "client_cpu_ns": int(client_busy * 1e9),
        "client_waited_ns": 0, "server_cpu_ns": cpu_ns * echoes, "server_user_ns": cpu_ns * echoes // 4,
        "server_system_ns": cpu_ns * echoes * 3 // 4, "server_waited_ns": 0, "p50_ns": 1000, "p99_ns": None,
    }  # fmt: skip
    return Row(servers.Server(name, ["x"]), [leg, leg])


def test_the_verdict() -> None:
    first = row("a", 100_000, 0.5, 7000)
    assert verdict(row("b", 101_000, 0.5, 5000), first) == "tie"
    assert verdict(row("b", 103_000, 0.5, 9000), first) == "faster"
    assert verdict(row("b", 97_000, 0.5, 5000), first) == "slower"
    # With the client's core full, in either row, CPU per echo decides.
    assert verdict(row("b", 120_000, 0.95, 7050), first) == "tie by CPU"
    assert verdict(row("b", 120_000, 0.95, 8000), first) == "more CPU"
    assert verdict(row("b", 100_000, 0.5, 6000), row("a", 100_000, 0.95, 7000)) == "less CPU"


def test_the_report_names_what_is_missing() -> None:
    settings = Settings(50, 512, 1, 1.0, 2, None, "auto", server_cpu=0, client_cpu=1, fresh=False)
    text = report([(settings, [row("a", 100_000, 0.5, 7000), row("b", 200_000, 0.95, 7000)])], ["c is not installed"])
    assert "50 connections of 512 bytes" in text
    assert "| b " in text and "2.000" in text and "tie by CPU" in text and "1.75" in text
    assert "Missing: c is not installed" in text


@pytest.mark.parametrize(("text", "rate"), [
    ("Speed: 97484 request/sec, 97480 response/sec\nRequests: 5849076\nResponses: 5849061", 97480),
    ("12,345.5 echoes/s", 12345.5), ("9 reqs per second", 9), ("1 second", None),
])  # fmt: skip
def test_the_rate_that_a_client_tells(text: str, rate: float | None) -> None:
    assert told_rate(text) == rate


# --- the program


@pytest.mark.slow
@needs_ring
def test_nop_and_recv(tmp_path: Path) -> None:
    for what, batches in (("nop", [1, 8]), ("recv", [16])):
        file = tmp_path / f"{what}.json"
        words = ["--batch", ",".join(map(str, batches)), "--pairs", 3, "--leg", 0.001, "--json", file]
        done = bench(what, *words)
        assert done.returncode == 0, done.stderr
        result = json.loads(file.read_text())
        assert result["environment"]["kernel"] in done.stdout
        assert [entry["batch"] for entry in result["results"]] == batches
        for entry in result["results"]:
            assert {"raw", "owned"} <= entry["ns"].keys()
            assert all(len(samples) == 3 and min(samples) > 0 for samples in entry["ns"].values())
        assert "owned / raw" in done.stdout
        assert ("Missing: liburing" in done.stdout) == ("liburing" not in result["results"][0]["ns"])


SERVER = """
    import os, socket, sys, threading
    open(sys.argv[2], "w").write(str(os.getpid()))
    def treat(peer):
        while data := peer.recv(65536):
            peer.sendall(data)
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        while True:
            threading.Thread(target=treat, args=(listener.accept()[0],), daemon=True).start()
"""

CLIENT = """
    import socket, sys
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
        sock.sendall(b"x" * 100)
        sock.recv(100)
    print("Speed: 1000 request/sec, 999 response/sec", *sys.argv[2:])
    print("Responses: 500")
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(code: str) -> Path:
        path = tmp_path / f"script{len(list(tmp_path.iterdir()))}.py"
        path.write_text(textwrap.dedent(code))
        return path

    return write


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_echo(tmp_path: Path, script: Callable[[str], Path]) -> None:
    file, pid = tmp_path / "echo.json", tmp_path / "pid"
    server = f"mine={sys.executable} {script(SERVER)} {{port}} {pid}"
    done = bench("echo", "--rows", "epoll,uvloop", "--server", server, "--connections", "2,3", "--pairs", 1,
                 "--seconds", 0.05, "--json", file)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    names = [row["name"] for row in result["tables"][0]["rows"]]
    assert [name for name in names if name != "uvloop"] == ["epoll", "mine"]
    assert ("uvloop" in names) != ("Missing: uvloop" in done.stdout)
    assert [table["connections"] for table in result["tables"]] == [2, 3]
    for table in result["tables"]:
        for row in table["rows"]:
            assert len(row["legs"]) == 1
            assert all(leg["echoes"] > 0 and leg["server_cpu_ns"] > 0 for leg in row["legs"])
        assert table["rows"][0]["ratio"]["median"] == 1
    assert done.stdout.count("| mine ") == 2
    assert "round 1 of 1" in done.stderr
    assert not alive(int(pid.read_text()))


@pytest.mark.slow
@needs_ring
def test_echo_modes() -> None:
    done = bench("echo", "--rows", "auto,epoll", "--pairs", 1, "--seconds", 0.05, "--connections", 5, "--fresh")
    assert done.returncode == 0, done.stderr
    assert "| auto " in done.stdout and "| epoll " in done.stdout


@pytest.mark.slow
def test_another_client(script: Callable[[str], Path]) -> None:
    client = f"{sys.executable} {script(CLIENT)} {{port}} {{connections}} {{size}} {{seconds}}"
    done = bench("echo", "--rows", "asyncio", "--pairs", 1, "--seconds", 2, "--client", client)
    assert done.returncode == 0, done.stderr
    assert "| asyncio |      999 |" in done.stdout
    assert f"Load: `{client}`" in done.stdout


@pytest.mark.slow
def test_a_server_that_does_not_come_up(script: Callable[[str], Path]) -> None:
    code = "import sys\nprint('no port for', sys.argv[1])\nsys.exit(3)"
    done = bench("echo", "--rows", "asyncio", "--server", f"bad={sys.executable} {script(code)} {{port}}")
    assert done.returncode == 1
    assert "server bad: ended with status 3" in done.stderr
    assert "no port for" in done.stderr


@pytest.mark.slow
def test_a_server_that_answers_wrongly(script: Callable[[str], Path]) -> None:
    wrong = SERVER.replace("sendall(data)", "sendall(data[::-1])")
    server = f"wrong={sys.executable} {script(wrong)} {{port}} /dev/null"
    done = bench("echo", "--rows", "asyncio", "--server", server, "--pairs", 1, "--seconds", 0.05, "--connections", 2)
    assert done.returncode == 1
    assert "server wrong" in done.stderr and "came back" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("words", "said"), [
    ([], "required"),
    (["fly"], "fly"),
    (["nop", "--batch", "0"], "positive"),
    (["nop", "--batch", "x"], "list of numbers"),
    (["nop", "--batch", "8192"], "at most 4096"),
    (["recv", "--batch", "512"], "at most 256"),
    (["echo", "--rows", "auto,auto"], "twice"),
    (["echo", "--rows", ""], "no row"),
    (["echo", "--server", "x"], "NAME=COMMAND {port}"),
    (["echo", "--server", "x=y"], "no {port}"),
    (["echo", "--server", "auto=y {port}"], "same name"),
    (["echo", "--seconds", "0"], "seconds"),
    (["echo", "--size", "10000000", "--depth", "2"], "at most"),
    (["echo", "--json", "/no/such/folder/x.json"], "/no/such/folder"),
])  # fmt: skip
def test_bad_usage_is_one_line(words: list[str], said: str) -> None:
    done = bench(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1 and not done.stdout
