"""Smoke tests of tools/bench.py: it runs, and its reports have their shape. Nothing here asserts a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bench_samples import needs_ring, row, settings, table
from emulation import PATIENCE

from tools import bench as program
from tools.bench_parts import echo, echo_report, measure, read, servers
from tools.bench_parts.echo import told_rate
from tools.bench_parts.echo_figures import Row, Table, compare
from tools.bench_parts.measure import BenchError

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "tools" / "bench.py"


def bench(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(BENCH), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100 * PATIENCE, cwd="/")


# --- the figures


@pytest.mark.portable
def test_spread_and_ratios() -> None:
    assert measure.spread([3.0]) == (3.0, 3.0, 3.0)
    assert measure.spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert measure.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


@pytest.mark.portable
def test_the_table_is_markdown() -> None:
    assert measure.markdown(["a", "bb"], [["ccc", "1"]]) == "| a   | bb |\n| :-- | -: |\n| ccc |  1 |"


@pytest.mark.portable
def test_three_runs() -> None:
    legs = [{"echoes": echoes, "wall_ns": 10**9} for echoes in (5, 1, 3, 20, 30, 10, 9, 9, 8)]
    assert Row("a", [], legs).runs() == [3, 20, 9]
    assert Row("a", [], legs[:2]).runs() == [5, 1]


@pytest.mark.portable
def test_the_verdict() -> None:
    first = row("a", 100_000, 0.5, 7000)
    assert compare(row("b", 101_000, 0.5, 5000), first).verdict() == "tie"
    assert compare(row("b", 103_000, 0.5, 9000), first).verdict() == "faster"
    assert compare(row("b", 97_000, 0.5, 5000), first).verdict() == "slower"
    # With the client's core full, in either row, CPU per echo decides.
    assert compare(row("b", 120_000, 0.95, 7050), first).verdict() == "tie by CPU"
    assert compare(row("b", 120_000, 0.95, 8000), first).verdict() == "more CPU"
    assert compare(row("b", 100_000, 0.5, 6000), row("a", 100_000, 0.95, 7000)).verdict() == "less CPU"
    assert compare(row("b", 100_000, 0.95, 3500), first).gain == 2


@pytest.mark.portable
def test_a_leg_that_fails_is_made_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Always(servers.Server):
        restarted = 0

        def alive(self) -> bool:
            return True

        def restart(self, cpu: int) -> None:
            self.restarted += 1

    good, shaky, bad = (Always(name, ["x"]) for name in ("good", "shaky", "bad"))
    made = dict.fromkeys(("good", "shaky", "bad"), 0)

    def leg(server: servers.Server, settings: object) -> dict[str, int]:
        made[server.name] += 1
        if server is bad or (server is shaky and made["shaky"] == 2):
            raise BenchError(f"{server.name} stood still")
        return {"echoes": made[server.name], "wall_ns": 10**9}

    monkeypatch.setattr(echo, "one_leg", leg)
    (one,) = echo.run([good, shaky, bad], [replace(settings(2), pairs=2)], "good")
    assert made == {"good": 2, "shaky": 3, "bad": 2}
    assert (good.restarted, shaky.restarted, bad.restarted) == (0, 1, 1)
    assert [row.name for row in one.measured()] == ["good", "shaky"]
    assert [leg["echoes"] for leg in one.rows[1].legs] == [1, 3]
    assert echo_report.repeats([one]) == ["shaky, 2 connections of 512 bytes: shaky stood still"]
    assert echo_report.failures([one]) == ["bad, 2 connections of 512 bytes: bad stood still"]


@pytest.mark.portable
def test_the_report() -> None:
    failed = Row("d", ["x"], [], "server d: ended with status 3\n  and more")
    asked = table(settings(50), [row("a", 100_000, 0.5, 7000), row("poll-recv-send", 200_000, 0.95, 7000), failed])
    text = echo_report.report([asked], ["c is not installed"])
    assert "50 connections of 512 bytes" in text
    assert "| poll-recv-send " in text and "2.000" in text and "tie by CPU" in text and "1.75" in text
    assert "|        1 |         1 |        1 | POLL-RECV-SEND | 200000 | 200000 |   - | 200000 | 200.0% |" in text
    assert "Missing: c is not installed" in text
    assert "Failed: d, 50 connections of 512 bytes: server d: ended with status 3\n" in text + "\n"


@pytest.mark.portable
def test_every_kind_of_load_has_its_words_and_title() -> None:
    assert settings(1, depth=16).words() == ["--depth", "16"]
    assert settings(1, deaf=2).words() == ["--deaf", "2", "--deaf-bytes", str(1 << 29)]
    assert settings(2, churn=True).title() == "2 connections for one message of 512 bytes each"
    assert settings(2, rate=5000.0).title() == "2 connections of 512 bytes, 5,000 messages a second"


@pytest.mark.portable
def test_figures_survive_the_file() -> None:
    asked = table(settings(3, rate=5.0), [row("a", 1000, 0.5, 7000)])
    assert Table.from_json(json.loads(json.dumps(asked.to_json()))) == asked


@pytest.mark.portable
def test_a_command_is_shown_without_the_folders_of_this_machine() -> None:
    words = ["all", "--write", "docs/x.md", "--server", "C=/tmp/secret/a.out {port}", "--json", "/tmp/secret/y"]
    assert echo_report.plain_command(words) == "all --write docs/x.md --server 'C=a.out {port}' --json y"


@pytest.mark.portable
def test_ports_for_servers_are_not_those_of_clients() -> None:
    ports = servers.free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < servers.first_of_clients()


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
            assert {"nop": {"raw", "raw block", "owned"}, "recv": {"raw", "owned"}}[what] <= entry["ns"].keys()
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
    tables = [Table.from_json(each) for each in result["tables"]]
    names = [each.name for each in tables[0].rows]
    assert [name for name in names if name != "uvloop"] == ["epoll", "mine"]
    assert ("uvloop" in names) != ("Missing: uvloop" in done.stdout)
    assert [each.settings.connections for each in tables] == [2, 3]
    for each in tables:
        for one in each.rows:
            assert len(one.legs) == 1
            assert all(leg["echoes"] > 0 and leg["server_cpu_ns"] > 0 for leg in one.legs)
    assert done.stdout.count("| mine ") == 2
    assert done.stdout.count(" MINE |") == 2
    assert "round 1 of 1" in done.stderr
    assert not alive(int(pid.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(("words", "said"), [
    (["--rate", "500"], "p99.9 us"),
    (["--deaf", "1"], "1 deaf: echoes/s"),
])  # fmt: skip
def test_other_loads(words: list[str], said: str) -> None:
    done = bench("echo", "--rows", "epoll", "--connections", 2, "--pairs", 1, "--seconds", 0.05, *words)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.slow
def test_a_server_started_anew_for_each_leg(tmp_path: Path, script: Callable[[str], Path]) -> None:
    code = SERVER.replace('open(sys.argv[2], "w").write(str(os.getpid()))', 'print(file=open(sys.argv[2], "a"))')
    server = f"mine={sys.executable} {script(code)} {{port}} {tmp_path / 'started'}"
    done = bench("echo", "--rows", "", "--server-anew", server, "--connections", 1, "--pairs", 2, "--seconds", 0.05)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "started").read_text()) == 3  # to see that it comes up, and for each leg


@pytest.mark.slow
@needs_ring
def test_echo_modes() -> None:
    done = bench("echo", "--rows", "auto,epoll", "--pairs", 1, "--seconds", 0.05, "--connections", 5, "--fresh")
    assert done.returncode == 0, done.stderr
    assert "| auto " in done.stdout and "| epoll " in done.stdout


@pytest.mark.slow
def test_another_client(script: Callable[[str], Path]) -> None:
    client = f"{sys.executable} {script(CLIENT)} {{port}} {{connections}} {{size}} {{seconds}}"
    done = bench("echo", "--rows", "asyncio", "--connections", 50, "--pairs", 1, "--seconds", 2, "--client", client)
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
def test_a_server_that_answers_wrongly(tmp_path: Path, script: Callable[[str], Path]) -> None:
    """The others go on and are told; the program fails."""
    wrong = SERVER.replace("sendall(data)", "sendall(data[::-1])")
    server, file = f"wrong={sys.executable} {script(wrong)} {{port}} /dev/null", tmp_path / "kept.json"
    done = bench("echo", "--rows", "epoll", "--server", server, "--pairs", 2, "--seconds", 0.05, "--connections", 2,
                 "--json", file)  # fmt: skip
    assert done.returncode == 1
    assert "server wrong" in done.stderr and "came back" in done.stderr
    assert "| epoll " in done.stdout and "Failed: wrong, 2 connections" in done.stdout
    assert "came back" in json.loads(file.read_text())["failed"][0]


@pytest.mark.slow
@needs_ring
def test_read(tmp_path: Path) -> None:
    """Every reader reads rightly, or the program fails before it measures."""
    file = tmp_path / "read.json"
    done = bench("read", "--pairs", 2, "--leg", 0.002, "--bytes", 1 << 18, "--files", "1,3", "--depth", "1,5",
                 "--folder", tmp_path, "--json", file)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [file]
    results = json.loads(file.read_text())["results"]
    cached = [result for result in results if not result["direct"]]
    assert [(result["files"], result["depth"]) for result in cached] == [(1, 1), (1, 5), (3, 1), (3, 5)]
    for result in results:
        assert {"ring", "ring, block", "ring, owned", "preadv", "thread pool", "threads"} <= result["legs"].keys()
        assert all(len(legs) == 2 and legs[0]["reads"] >= result["depth"] for legs in result["legs"].values())
    assert any(result["direct"] for result in results) != ("refuses it here" in done.stdout)
    assert "### Page cache, 3 files" in done.stdout
    assert "| block over it |" in done.stdout


@needs_ring
def test_a_reader_that_reads_wrongly_is_found(tmp_path: Path) -> None:
    files = read.Files(tmp_path, 2, 16 * read.BLOCK)
    with files.opened(direct=False):
        for kind in read.KINDS[:6]:
            reader = kind(files.fds[::-1], 4)  # it mistakes one file for the other
            with contextlib.closing(reader), pytest.raises(BenchError, match="came back wrong"):
                read.verify(reader, files, 4)


@pytest.mark.portable
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
    (["echo", "--client", "x {port}", "--churn"], "--client"),
    (["echo", "--plot", "x.jpeg"], ".svg or .png"),
    (["read", "--depth", "5000"], "at most 1024"),
    (["echo", "--json", "/no/such/folder/x.json"], "/no/such/folder"),
])  # fmt: skip
def test_bad_usage_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1 and not out
