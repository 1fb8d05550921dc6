"""Plots of the figures, as SVG or PNG by the name of the file. Imports its neighbours, and matplotlib when one is drawn.

The same figures give the same file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bench_parts import read_report
from tools.bench_parts.echo_figures import Table
from tools.bench_parts.measure import Json, spread

MISSING = "matplotlib is not importable by this Python: pip install 'rawuring[plot]' (or matplotlib)"

SUFFIXES = (".svg", ".png")

OURS, OTHERS, KERNEL = "#1f6f8b", "#9aa5ab", "#d9dee0"
RIVALS = {"epoll", "asyncio", "asyncio-streams", "uvloop"}


def available() -> bool:
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        return False
    return True


def canvas(columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure and its axes, side by side."""
    import matplotlib

    matplotlib.rcParams.update({"svg.hashsalt": "rawuring", "svg.fonttype": "none", "font.size": 9})
    from matplotlib.figure import Figure  # without pyplot there is no display to ask for

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def whiskers(spreads: Sequence[Any]) -> list[list[float]]:
    return [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]


def echo(table: Table, path: Path) -> None:
    """Two panels: echoes per second with quartiles, and the server's CPU time per echo, in user mode and in the kernel."""
    rows = table.measured()
    names = [row.name for row in rows]
    external = {row.name for row in rows if row.command and "echo" not in row.command[1:3]}
    colours = [OTHERS if name in RIVALS | external else OURS for name in names]
    figure, (rate_axes, cpu_axes) = canvas(2, 9, 1 + 0.24 * len(rows))
    rates, cpus = [row.rate() for row in rows], [row.cpu() for row in rows]
    rate_axes.barh(names, [rate.median for rate in rates], xerr=whiskers(rates), color=colours, ecolor="#444444")
    rate_axes.set_xlabel("echoes per second, median and quartiles")
    rate_axes.locator_params(axis="x", nbins=5)
    rate_axes.xaxis.set_major_formatter("{x:,.0f}")
    users = [row.user_us() for row in rows]
    cpu_axes.barh(names, users, color=colours)
    cpu_axes.barh(names, [cpu.median - user for cpu, user in zip(cpus, users, strict=True)], left=users, color=KERNEL,
                  xerr=whiskers(cpus), ecolor="#444444")  # fmt: skip
    cpu_axes.set_xlabel("CPU us per echo: user, then kernel (pale)")
    cpu_axes.set_yticklabels([])
    for axes in (rate_axes, cpu_axes):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(table.settings.title(), fontsize=10)
    save(figure, path)


def reads(result: Json, path: Path) -> None:
    """A panel for each kind of file: reads per second over the depth, a line for each reader."""
    groups = read_report.groups(result)
    figure, panels = canvas(len(groups), 3.2 * len(groups) + 1, 3.6)
    for axes, entries in zip(panels, groups, strict=True):
        for name in entries[0]["legs"]:
            there = [entry for entry in entries if name in entry["legs"]]
            depths = [entry["depth"] for entry in there]
            medians = [spread(read_report.rates(entry["legs"][name])).median for entry in there]
            axes.plot(depths, medians, marker="o", markersize=3, linewidth=1.2, label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks([entry["depth"] for entry in entries], [str(entry["depth"]) for entry in entries])
        axes.minorticks_off()
        axes.set_title(read_report.title(entries[0]), fontsize=9)
        axes.set_xlabel("depth")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("reads per second")
    most = max(zip(panels, groups, strict=True), key=lambda each: len(each[1][0]["legs"]))[0]
    figure.legend(*most.get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    save(figure, path)
