"""The tables of `bench.py echo` as Markdown. Reads figures, measures nothing. Imports its neighbours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from tools.bench_parts.echo_figures import BUSY, TIE, Row, Settings, Table, compare
from tools.bench_parts.measure import markdown, spread


def us(value_ns: float | None) -> str:
    return "-" if value_ns is None else f"{value_ns / 1e3:,.0f}"


def bits(name: str) -> list[str]:
    """Is there a poll first, recv and send instead of read and write, one buffer instead of a vector?"""
    if not re.search("read|recv", name):
        return ["-", "-", "-"]
    return [str(int(bit)) for bit in ("poll" in name, "recv" in name, not re.search("readv|recvmsg", name))]


def runs_table(table: Table) -> str:
    """Three runs, the middle one, and its rate against the first row; then what each echo cost the server and the peer."""
    header = ["USE_POLL", "RECV_SEND", "UNVEC_OP", "operations", "1st", "2nd", "3rd", "mid", "rate",
              "CPU us", "of it user", "p50 us", "p99 us"]  # fmt: skip
    rows = table.measured()
    first = spread(rows[0].runs()).median
    lines = []
    for row in rows:
        runs = row.runs()
        mid = spread(runs).median
        told = [f"{run:.0f}" for run in runs] + ["-"] * (3 - len(runs))
        lines.append([*bits(row.name), row.name.upper(), *told, f"{mid:.0f}", f"{mid / first:.1%}",
                      row.cpu().text(2), f"{row.user_us():.2f}", us(row.figure("p50_ns")),
                      us(row.figure("p99_ns"))])  # fmt: skip
    return markdown(header, lines, left=0)


def paired_table(table: Table) -> str:
    """Rates and CPU per echo with their ratios to one row, pair by pair, how busy the cores were, and who wins."""
    reference = table.reference()
    name = reference.name
    header = [
        "server", "echoes/s", "quartiles", f"over {name}", "quartiles", "CPU us/echo", "user", "kernel",
        f"CPU over {name}", "quartiles", "server busy", "client busy", "answers a turn", f"against {name}",
    ]  # fmt: skip
    lines = []
    for row in table.measured():
        rate, cpu, user = row.rate(), row.cpu(), row.user_us()
        over = compare(row, reference)
        found = [leg["echoes"] / leg["turns"] for leg in row.legs if leg.get("turns")]
        lines.append([
            row.name, rate.text(0), rate.quartiles(0), over.rate.text(3), over.rate.quartiles(3), cpu.text(2),
            f"{user:.2f}", f"{cpu.median - user:.2f}", over.cpu.text(3), over.cpu.quartiles(3),
            f"{row.server_busy():.0%}", f"{row.client_busy():.0%}", spread(found).text(1) if found else "-",
            "-" if row is reference else over.verdict(),
        ])  # fmt: skip
    return markdown(header, lines)


def waits_table(table: Table) -> str:
    """For an open loop: how long messages waited since they were to be sent."""
    header = ["server", "echoes/s", "p50 us", "p99 us", "p99.9 us", "client late, p99 us", "CPU us/echo",
              "server busy", "client busy"]  # fmt: skip
    return markdown(header, [
        [row.name, row.rate().text(0), us(row.figure("p50_ns")), us(row.figure("p99_ns")), us(row.figure("p999_ns")),
         us(row.figure("lag_p99_ns")), row.cpu().text(2), f"{row.server_busy():.0%}", f"{row.client_busy():.0%}"]
        for row in table.measured()
    ])  # fmt: skip


def deaf_table(tables: Sequence[Table]) -> str:
    """What the others keep of their rate beside peers that send and never read: the first table is without any."""
    alone, *beside = tables
    header = ["server", "echoes/s alone"]
    for table in beside:
        deaf = f"{table.settings.deaf} deaf"
        header += [f"{deaf}: echoes/s", "kept", "quartiles", "they sent, MB", "server resident, MiB"]
    lines = []
    for row in alone.measured():
        line = [row.name, row.rate().text(0)]
        for table in beside:
            other = table.row(row.name)
            if other is None:
                line += ["failed", "-", "-", "-", "-"]
                continue
            kept = compare(other, row).rate
            line += [other.rate().text(0), kept.text(3), kept.quartiles(3),
                     f"{(other.figure('deaf_sent_nbytes') or 0) / 1e6:,.0f}",
                     f"{(other.figure('server_resident_nbytes') or 0) / 2**20:,.0f}"]  # fmt: skip
        lines.append(line)
    return markdown(header, lines)


def tables_of(table: Table) -> list[str]:
    """What is shown of one table: its load decides."""
    if not table.measured():
        return []
    if table.settings.rate:
        return [waits_table(table)]
    return [runs_table(table), paired_table(table)]


def disturbance(rows: Sequence[Row]) -> str:
    """How much other programs were in the way."""

    def part(key: str) -> str:
        parts = [leg[key] / leg["wall_ns"] for row in rows for leg in row.legs if leg.get(key) is not None]
        return f"{spread(parts).median:.0%} of the time" if parts else "for a time unknown"

    return (
        f"Other programs kept the servers waiting for their core {part('server_waited_ns')}, the client "
        f"{part('client_waited_ns')} (medians)."
    )


def pinning(settings: Settings) -> str:
    if settings.server_cpu == settings.client_cpu:
        return f"Server and client shared CPU {settings.server_cpu}, the only one there is: rates mean little."
    return f"Servers on CPU {settings.server_cpu}, client on CPU {settings.client_cpu}."


def notes(table: Table) -> list[str]:
    """What a reader must know to judge the tables."""
    settings = table.settings
    lines = [
        "1st, 2nd, 3rd: the rounds in three runs, one after the other, and the median of each; mid is the middle one, "
        "rate that against the first row. Ratios to one row are taken leg by leg within a round. A difference of "
        f"{TIE:.0%}, or one whose quartiles lie on both sides of 1, is a tie. Where the client's core was more than {BUSY:.0%} busy, in the row or in the one it is "
        "compared with, rates are squeezed together and CPU per echo decides."
    ]
    if settings.client:
        lines.append(f"Load: `{settings.client}`; what it checks is its own affair, and CPU times include its start.")
    else:
        backend = " and ".join(sorted({leg["backend"] for row in table.measured() for leg in row.legs}))
        kind = "an open loop" if settings.rate else "a closed loop"
        lines.append(
            f"Load: tools/load.py on {backend}, {kind}; every byte that came back was right. Answers a turn: how "
            "many the loop of the load found at once. If few, it mostly waited for the server; if nearly as many as there "
            "are connections, the server mostly waited for it. Waits (p50, p99) end when the client's loop sees the answer."
        )
    if settings.fresh:
        lines.append("Every leg met a server just started.")
    lines.append(pinning(settings))
    return lines


def failures(tables: Sequence[Table]) -> list[str]:
    """A line for each row that could not be measured; nothing of the machine's folders."""
    return [
        f"{row.name}, {table.settings.title()}: {row.failure.splitlines()[0]}"
        for table in tables for row in table.rows if row.failure
    ]  # fmt: skip


def repeats(tables: Sequence[Table]) -> list[str]:
    """A line for each leg that failed, was made again and then went well."""
    return [
        f"{row.name}, {table.settings.title()}: {reason.splitlines()[0]}"
        for table in tables for row in table.rows for reason in row.repeated
    ]  # fmt: skip


def mishaps(tables: Sequence[Table]) -> list[str]:
    """What went wrong, for the end of a report."""
    return [
        *(f"Failed: {line}" for line in failures(tables)),
        *(f"Failed once, and went well when made again: {line}" for line in repeats(tables)),
    ]


def plain_command(command: Sequence[str]) -> str:
    """A command without the folders of this machine."""
    return re.sub(r"(?<![\w.])/(?:[^\s/]+/)+", "", shlex.join(command))


def report(tables: Sequence[Table], missing: Sequence[str]) -> str:
    """The whole report as Markdown."""
    blocks = []
    for table in tables:
        settings = table.settings
        blocks.append(f"### {settings.title()}\n\n{settings.pairs} rounds of {settings.seconds:g} s")
        shown = tables_of(table)
        blocks += [*shown, disturbance(table.measured())] if shown else ["Nothing could be measured."]
    lines = [f"* {line}" for line in notes(tables[0])]
    lines += [f"* Missing: {line}" for line in missing]
    lines += [f"* {line}" for line in mishaps(tables)]
    return "\n\n".join([*blocks, "\n".join(lines)])
