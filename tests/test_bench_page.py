"""Tests of the benchmark page: its sentences follow from the figures. Nothing is measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from bench_samples import row, settings, table

from tools import bench
from tools.bench_parts import page, plot
from tools.bench_parts.echo_figures import Row, Table, compare

pytestmark = [pytest.mark.portable, pytest.mark.one_python]

OURS = ("python3", "-m", "echo", "{port}", "--mode", "x")


def of_echo(asked: Any, poll_cpu_ns: int = 5000, uvloop: int = 90_000, epoll: int = 200_000) -> Table:
    return table(asked, [
        row("read-write", 50_000, 0.5, 8000, OURS), row("recv-send", 60_000, 0.5, 8000, OURS),
        row("poll-read-write", 100_000, 0.95, poll_cpu_ns, OURS), row("poll-recv-send", 100_000, 0.95, poll_cpu_ns, OURS),
        row("auto", 100_000, 0.5, 5000, OURS), row("epoll", epoll, 0.5, 5000, p99_ns=2000),
        row("uvloop", uvloop, 0.5, 5000, p99_ns=9000), row("mine", 50_000, 0.5, 1, ("/home/me/server", "{port}")),
    ])  # fmt: skip


def reads(direct: bool, depth: int, preadv: int) -> dict[str, Any]:
    def legs(count: int) -> list[dict[str, int]]:
        return [{"reads": count, "wall_ns": 10**9, "cpu_ns": 10**9}] * 2

    return {"direct": direct, "files": 1, "depth": depth,
            "legs": {"ring": legs(1000), "ring, block": legs(2000 if depth > 1 else 500), "preadv": legs(preadv),
                     "thread pool": legs(100)}}  # fmt: skip


@pytest.fixture
def data() -> dict[str, Any]:
    seed = [of_echo(settings(50)), of_echo(settings(200), uvloop=101_000), of_echo(settings(1), 16_000)]
    beyond = [of_echo(settings(50, depth=16)), of_echo(settings(50, rate=20_000.0))]
    deaf = [of_echo(settings(200)), of_echo(settings(200, deaf=3))]
    return {
        "environment": {"kernel": "6.0-test", "machine": "m", "cpu": "C", "cpus": 2, "python": "P 3", "load_average": 0},
        "command": "python3 tools/bench.py all", "missing": ["d is away"],
        "seed": [each.to_json() for each in seed], "beyond": [each.to_json() for each in beyond],
        "deaf": [each.to_json() for each in deaf],
        "read": {"pairs": 2, "leg_s": 0.1, "nbytes": 1 << 20, "file_system": "ext9", "missing": [],
                 "results": [reads(False, 1, 4000), reads(False, 32, 1010), reads(True, 32, 500)]},
        "nop": {"benchmark": "nop", "missing": [], "results": [{"batch": 1, "ns": {"raw": [3.0], "owned": [6.0]}}]},
    }  # fmt: skip


def test_the_page(data: dict[str, Any]) -> None:
    text = page.write(page.Data(json.loads(json.dumps(data))), {})
    assert "Linux 6.0-test (m), P 3, C" in text
    assert "    python3 tools/bench.py all\n" in text
    assert "* Missing: d is away" in text
    assert "* Page cache, one file, depth 32: 20.00 (thread pool) and 1.98 (preadv)." in text
    assert "/home/me" not in text and "(`server '{port}'`)" in text
    # The gain of auto over uvloop: 100 to 90 thousand, then a tie.
    assert "1.11 (faster)" in text and "0.99 (tie)" in text
    assert "Over uvloop: `auto` is ahead under 3 of 4 loads, behind under 0, a tie under 1." in text
    # Where the client was the limit, CPU time decides: 8 us and 5 us, or 16 us at one connection.
    assert "1.60 (less CPU)" in text and "0.50 (more CPU)" in text
    assert "Polling first at 50 connections: it helps (better in 2, worse in 0, a tie in 0 of 2; the middle gain is 1.60)." in text
    assert "Polling first at 1 connection: it hurts (better in 0, worse in 2, a tie in 0 of 2; the middle gain is 0.50)." in text
    assert "the other connections of `auto` keep 1.00 of their rate beside 3 of them. Of our modes " in text
    assert "CPU time of an echo at 1 connection of 512 bytes: auto 5.00 us, 3.75 of them in the kernel, epoll 5.00 us" in text
    assert "seed-" not in text
    assert "out of 1 MiB on ext9" in text


def test_where_rings_do_not_pay(data: dict[str, Any]) -> None:
    def losses() -> str:
        return page.write(page.Data(data), {}).partition("## Where a ring does not pay")[2].partition("##")[0]

    text = losses()
    assert "50 connections of 512 bytes: epoll. `auto` has 0.50 times as many echoes a second beside it." in text
    assert "20,000 messages a second: epoll. The wait that 1 % of the answers exceed is 2.50 times as long with `auto` (2.50 to " in text
    assert "Reads (page cache, one file) at depth 1: preadv. The ring makes 0.25 times as many" in text
    assert ": uvloop" not in text and "O_DIRECT" not in text and "depth 32" not in text and "mine" not in text
    assert "It makes no difference at 200 connections of 512 bytes beside uvloop." in text
    for name in ("seed", "beyond"):
        for each in data[name]:
            each["rows"] = [one for one in each["rows"] if one["name"] != "epoll"]
    data["read"]["results"] = [reads(True, 32, 500)]
    assert "Nowhere, among what was measured here." in losses()


def test_who_makes_more_echoes_for_more_cpu_time_is_told(data: dict[str, Any]) -> None:
    rows = [row("auto", 50_000, 0.95, 4000, OURS), row("asyncio", 100_000, 0.5, 8000)]
    data["beyond"][0] = table(settings(50, churn=True), rows).to_json()
    told = "asyncio, where echoes a second count: `auto` has 0.50 times as many, for 0.50 times the CPU time per echo."
    assert told in page.write(page.Data(data), {})


def test_what_is_told_of_a_given_rate(data: dict[str, Any]) -> None:
    rows = [row("auto", 20_000, 0.5, 9000, OURS), row("uvloop", 20_000, 0.5, 6000)]
    data["beyond"][1] = table(settings(50, rate=20_000.0), rows).to_json()
    told = "20,000 messages a second: uvloop. `auto` needs 1.50 times its CPU time per echo (9.0 us)."
    assert told in page.write(page.Data(data), {})


def test_quartiles_on_both_sides_of_1_are_a_tie() -> None:
    slow, fast, twice = (row("x", echoes, 0.5, 5000) for echoes in (80_000, 100_000, 200_000))
    unsteady, steady = Row("x", [], slow.legs + twice.legs), Row("x", [], 2 * fast.legs)
    assert compare(unsteady, steady).rate == pytest.approx((0.8, 1.4, 2.0))
    assert (compare(unsteady, steady).better, compare(unsteady, steady).verdict()) == (0, "tie")
    assert [compare(one, fast).better for one in (slow, fast, twice)] == [-1, 0, 1]


def test_who_is_not_of_the_repository_is_told(data: dict[str, Any]) -> None:
    rows = [row("auto", 50_000, 0.95, 4000, OURS), *(row(name, 100_000, 0.5, 8000) for name in ("seed-x", "C-multishot"))]
    data["seed"][0] = table(settings(50), rows).to_json()
    text = page.write(page.Data(data), {})
    assert "* `seed-*`: builds of the C server " in text and "* `C-multishot`: a C server on liburing" in text
    assert "C-multishot 8.00 us" in text and "seed-x 8.00 us" not in text


def test_a_table_in_which_nothing_could_be_measured(data: dict[str, Any]) -> None:
    for one in data["beyond"][0]["rows"]:
        one["failure"] = "server x: it hung up"
    text = page.write(page.Data(data), {})
    assert "Nothing could be measured." in text
    assert "Failed: auto, 50 connections of 512 bytes, 16 messages in flight on each: server x: it hung up" in text


def test_the_page_is_made_anew_from_the_file(data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "available", lambda: False)
    kept, written = tmp_path / "kept.json", tmp_path / "page.md"
    kept.write_text(json.dumps(data))
    assert bench.main(["all", "--from", str(kept), "--write", str(written)]) == 0
    assert written.read_text() == page.write(page.Data(data), {})


def test_plots_need_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(plot, "available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        bench.main(["read", "--plot", "x.svg"])
    assert ended.value.code == 2
    assert "matplotlib" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.filterwarnings("default")  # matplotlib's own
def test_plots(data: dict[str, Any], tmp_path: Path) -> None:
    images = page.draw(page.Data(data), tmp_path / "plots")
    assert "reads" in images and "50-connections-of-512-bytes" in images
    for image in images.values():
        text = (tmp_path / image).read_text()
        assert "<svg" in text
    assert "poll-recv-send" in (tmp_path / "plots" / "50-connections-of-512-bytes.svg").read_text()
    first = {image: (tmp_path / image).read_bytes() for image in images.values()}
    page.draw(page.Data(data), tmp_path / "plots")
    assert first == {image: (tmp_path / image).read_bytes() for image in images.values()}
    png = tmp_path / "x.png"
    plot.reads(data["read"], png)
    assert png.read_bytes().startswith(b"\x89PNG")
