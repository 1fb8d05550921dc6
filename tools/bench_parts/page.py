"""docs/benchmarks.md: the text around the figures. Every statement is made from the figures it stands beside.

Reads the data of `bench.py all`, measures nothing. Imports its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.bench_parts import echo_report, plot, read_report, ring
from tools.bench_parts.echo_figures import BUSY, TIE, Comparison, Row, Table, best, compare, differs
from tools.bench_parts.measure import Json, environment_line, markdown, ratios, spread

SEED = ("readv-writev", "recvmsg-sendmsg", "read-write", "recv-send",
        "poll-readv-writev", "poll-recvmsg-sendmsg", "poll-read-write", "poll-recv-send")  # fmt: skip
"""The modes that the server this one descends from was measured with."""

SEED_PREFIX = "seed-"
KNOWN = (
    (SEED_PREFIX, "builds of the C server that this one descends from (io_uring-echo-server of CarterLi), in the eight modes "
     "of its README (commit a8a398b); `seed-last-link-recv` is its last version (7d5b320)"),
    ("C-multishot", "a C server on liburing, written for this comparison, with the features of the kernel that `multishot` "
     "uses: multishot accept and receive, a ring of buffers, silent sends, DEFER_TASKRUN; and direct descriptors"),
)  # fmt: skip
"""Servers from elsewhere, by how the names begin that they are given on the command line. None is in the repository."""

Pair = tuple[str, str]

ADVICE: tuple[tuple[str, str, tuple[Pair, ...]], ...] = (
    (
        "Poll before a read or receive?", "polling first",
        tuple((f"poll-{name}", name) for name in (*SEED[:4], "read-fixed-write-fixed")),
    ),
    (
        "recv rather than read?", "recv and send",
        tuple((prefix + over, prefix + under) for prefix in ("", "poll-")
              for over, under in (("recv-send", "read-write"), ("recvmsg-sendmsg", "readv-writev"))),
    ),
    (
        "One buffer rather than a vector?", "a single buffer",
        tuple((prefix + over, prefix + under) for prefix in ("", "poll-")
              for over, under in (("read-write", "readv-writev"), ("recv-send", "recvmsg-sendmsg"))),
    ),
)  # fmt: skip
"""What the seed advised, as a question; its subject; and the pairs of modes that differ in just that."""


class Data:
    """What was measured, table by table."""

    def __init__(self, data: Json) -> None:
        self.environment: Json = data["environment"]
        self.command: str = data["command"]
        self.seed = [Table.from_json(each) for each in data["seed"]]
        self.beyond = [Table.from_json(each) for each in data["beyond"]]
        self.deaf = [Table.from_json(each) for each in data["deaf"]]
        self.missing: list[str] = data["missing"]
        self.read: Json = data["read"]
        self.nop: Json = data["nop"]

    def closed(self) -> list[Table]:
        """The tables whose rates say something: an open loop's is given."""
        return [table for table in (*self.seed, *self.beyond) if not table.settings.rate and table.measured()]


def times(gain: float) -> str:
    return f"{gain:.2f} times"


def clause(compared: Comparison) -> str:
    """How one row stands to another: what it needs or does, of what the other does."""
    if compared.by_cpu:
        text = f"{times(compared.cpu.median)} the CPU time per echo"
    else:
        text = f"{times(compared.rate.median)} as many echoes a second"
    return text if compared.better else f"a tie, {text}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def listing(words: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def rivals(table: Table, name: str) -> list[tuple[Row, Comparison]]:
    """How `name` stands to every row of a table that is no mode of ours."""
    row = table.row(name)
    if row is None:
        return []
    others = [other for other in table.measured() if not is_mode(other)]
    return [(other, compare(row, other)) for other in others]


def is_mode(row: Row) -> bool:
    """Is it a mode of our ring server?"""
    return row.command[1:3] == ["-m", "echo"] and "--backend" not in row.command


def cell(compared: Comparison) -> str:
    return f"{compared.gain:.2f} ({compared.verdict()})"


def summary(data: Data) -> str:
    """The gain of `auto` over every rival under every load."""
    tables = data.closed()
    names = dict.fromkeys(other.name for table in tables for other, _ in rivals(table, "auto"))
    lines = []
    for name in names:
        found = [next((each for other, each in rivals(table, "auto") if other.name == name), None) for table in tables]
        lines.append([name, *("-" if each is None else cell(each) for each in found)])
    line = ["the best of the seed's eight, as a mode of ours"]
    for table in tables:
        ours, seed = table.row("auto"), [row for row in table.measured() if row.name in SEED]
        line.append(f"{cell(compare(ours, best(seed)))}: {best(seed).name}" if ours and seed else "-")
    return markdown(["`auto` over", *(table.settings.title() for table in tables)], [*lines, line])


def standing(data: Data) -> Iterator[str]:
    """How often `auto` is ahead of each rival."""
    for name in dict.fromkeys(other.name for table in data.closed() for other, _ in rivals(table, "auto")):
        found = [each for table in data.closed() for other, each in rivals(table, "auto") if other.name == name]
        ahead, behind = sum(each.better > 0 for each in found), sum(each.better < 0 for each in found)
        tie = len(found) - ahead - behind
        yield f"Over {name}: `auto` is ahead under {ahead} of {len(found)} loads, behind under {behind}, a tie under {tie}."


def where_it_goes(data: Data) -> Iterator[str]:
    """What an echo costs `auto` and its neighbours, in the kernel and above it."""
    for table in data.seed:
        ours = table.row("auto")
        others = [row for row in table.measured() if not is_mode(row) and not row.name.startswith(SEED_PREFIX)]
        if ours and others:
            parts = [
                f"{row.name} {row.cpu().median:.2f} us, {row.cpu().median - row.user_us():.2f} of them in the kernel"
                for row in (ours, *others)
            ]
            yield f"CPU time of an echo at {table.settings.title()}: {listing(parts)}."


def advice(data: Data) -> str:
    """The seed's three pieces of advice, each with a table, and what that says."""
    blocks = []
    for question, subject, pairs in ADVICE:
        lines, by_table = [list(pair) for pair in pairs], [list[Comparison]() for _ in data.seed]
        for line, (with_it, without) in zip(lines, pairs, strict=True):
            for table, found in zip(data.seed, by_table, strict=True):
                over, under = table.row(with_it), table.row(without)
                found += [compare(over, under)] if over and under else []
                line.append(cell(found[-1]) if over and under else "-")
        loads = [f"{number} connection{'s' * (number > 1)}" for number in (table.settings.connections for table in data.seed)]
        sentences = [
            f"{capital(subject)} at {load}: {judgement(found)}" for load, found in zip(loads, by_table, strict=True) if found
        ]
        blocks.append(f"### {question}\n\n{markdown(['with', 'without', *loads], lines, left=2)}\n\n{bullets(sentences, '')}")
    return "\n\n".join(blocks)


def judgement(found: Sequence[Comparison]) -> str:
    """What several comparisons of the same difference say together."""
    middle = spread([compared.gain for compared in found]).median
    helps, hurts = sum(each.better > 0 for each in found), sum(each.better < 0 for each in found)
    counts = f"better in {helps}, worse in {hurts}, a tie in {len(found) - helps - hurts} of {len(found)}"
    if helps == len(found):
        verdict = "it helps"
    elif hurts == len(found):
        verdict = "it hurts"
    elif abs(middle - 1) <= TIE:
        verdict = "it makes no difference that holds"
    else:
        verdict = "it mostly helps" if middle > 1 else "it mostly hurts"
    return f"{verdict} ({counts}; the middle gain is {middle:.2f})."


def losses(data: Data) -> Iterator[str]:
    """Where somebody without a ring is better."""
    for table in data.closed():
        for other, compared in rivals(table, "auto"):
            if other.name not in plot.RIVALS:
                continue
            if compared.better < 0:
                yield f"{capital(table.settings.title())}: {other.name}. `auto` has {clause(compared)} beside it."
            elif compared.rate.median < 1 - 5 * TIE and differs(compared.rate):
                yield (
                    f"{capital(table.settings.title())}: {other.name}, where echoes a second count: `auto` has "
                    f"{times(compared.rate.median)} as many, for {times(compared.cpu.median)} the CPU time per echo."
                )
    for table in data.beyond:
        ours = table.row("auto")
        if table.settings.rate and ours:
            yield from later_answers(table, ours)
    for entry in data.read["results"]:
        for name in ("preadv", "threads", "thread pool"):
            ratio = read_report.best_over(entry, name)
            if ratio and ratio.median < 1 and differs(ratio):
                yield (
                    f"Reads ({read_report.title(entry)}) at depth {entry['depth']}: {name}. The ring makes "
                    f"{times(ratio.median)} as many reads a second."
                )


def later_answers(table: Table, ours: Row) -> Iterator[str]:
    """At a given rate: who answers sooner, or needs less for it."""
    for other in table.measured():
        if other.name not in plot.RIVALS:
            continue
        cpu = compare(ours, other).cpu
        mine, theirs = ([leg["p99_ns"] for leg in row.legs] for row in (ours, other))
        later = spread(ratios(mine, theirs))
        told = []
        if later.median > 1 and differs(later):
            told.append(
                f"the wait that 1 % of the answers exceed is {times(later.median)} as long with `auto` "
                f"({later.quartiles(2)}; {spread(mine).median / 1e3:,.0f} us)"
            )
        if cpu.median > 1 and differs(cpu):
            told.append(f"`auto` needs {times(cpu.median)} its CPU time per echo ({ours.cpu().median:.1f} us)")
        if told:
            yield f"{capital(table.settings.title())}: {other.name}. {capital(listing(told))}."


def draws(data: Data) -> list[str]:
    """Where it makes no difference."""
    return [
        f"{table.settings.title()} beside {other.name}"
        for table in data.closed()
        for other, compared in rivals(table, "auto")
        if other.name in plot.RIVALS and not compared.better
    ]


def reads_text(data: Data) -> Iterator[str]:
    """How the ring stands among the readers where that was asked for most: in batches."""
    for entry in data.read["results"]:
        told = []
        for name in ("thread pool", "threads", "preadv", "liburing", "liburing iter"):
            ratio = read_report.best_over(entry, name)
            if ratio:
                told.append(f"{ratio.median:.2f} ({name})")
        if told:
            yield f"{capital(read_report.title(entry))}, depth {entry['depth']}: {listing(told)}."


def strangers(rows: Sequence[Row]) -> str:
    """Who the servers are that are neither ours nor a library everybody knows."""
    found = [f"`{start}{'*' if start.endswith('-') else ''}`: {what}."
             for start, what in KNOWN if any(row.name.startswith(start) for row in rows)]  # fmt: skip
    return bullets(found, "")


def slug(table: Table) -> str:
    return re.sub(r"[^a-z0-9]+", "-", table.settings.title().lower()).strip("-")


def section(table: Table, images: dict[str, str]) -> str:
    blocks = [f"### {capital(table.settings.title())}", *echo_report.tables_of(table)]
    image = images.get(slug(table))
    if image:
        blocks.insert(1, f"![{table.settings.title()}]({image})")
    if not table.measured():
        blocks.append("Nothing could be measured.")
    return "\n\n".join(blocks)


def bullets(lines: Sequence[str], otherwise: str) -> str:
    return "\n".join(f"* {line}" for line in lines) if lines else otherwise


def deaf_sentence(data: Data) -> str:
    alone = data.deaf[0]
    told = []
    for table in data.deaf[1:]:
        ours, before = table.row("auto"), alone.row("auto")
        if ours and before:
            kept = compare(ours, before).rate.median
            told.append(f"{kept:.2f} of their rate beside {table.settings.deaf}")
    if not told:
        return ""
    least = min(
        (compare(row, before).rate.median, row.name, table.settings.deaf)
        for table in data.deaf[1:] for row in table.measured()
        if is_mode(row) and (before := alone.row(row.name))
    )  # fmt: skip
    return (
        f"Beside peers that never read, the other connections of `auto` keep {listing(told)} of them. "
        f"Of our modes measured here {least[1]} keeps least: {least[0]:.2f} beside {least[2]}."
    )


def draw(data: Data, folder: Path) -> dict[str, str]:
    """The plots, in a folder beside the page: slug to file."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    images = {}
    for table in data.closed():
        name = slug(table)
        plot.echo(table, folder / f"{name}.svg")
        images[name] = f"{folder.name}/{name}.svg"
    plot.reads(data.read, folder / "reads.svg")
    images["reads"] = f"{folder.name}/reads.svg"
    return images


def write(data: Data, images: dict[str, str]) -> str:
    """The whole page."""
    tables = [*data.seed, *data.beyond, *data.deaf]
    first = next(table for table in tables if table.measured())
    settings = first.settings
    rows = [row for table in data.seed for row in table.measured()]
    drawn = draws(data)
    externals = {
        row.name: echo_report.plain_command(row.command)
        for row in rows if row.name not in plot.RIVALS and not is_mode(row)
    }  # fmt: skip
    closing = [
        f"More servers: {listing([f'{name} (`{command}`)' for name, command in externals.items()])}." if externals else "",
        "asyncio and uvloop run a Protocol that writes what it is given, the quickest plain form.",
    ]
    closing += [f"Missing: {line}" for line in (*data.missing, *data.read["missing"], *data.nop["missing"])]
    closing += echo_report.mishaps(tables)
    blocks = [
        "# Benchmarks",
        "The echo server in all its modes beside the servers that people would otherwise choose, file reads beside the "
        "ways Python has, and the ring by itself. Written by one command, which measures everything and makes the "
        "sentences from the figures; run it again rather than edit this page:\n\n"
        f"    {data.command}",
        f"{environment_line(data.environment)}.",
        f"{echo_report.pinning(settings)} {settings.pairs} rounds of {settings.seconds:g} s, in which the servers take "
        f"turns. {echo_report.disturbance(rows)}" if rows else echo_report.pinning(settings),
        "## What it comes to",
        "The gain of `auto`, the mode that the server picks by itself (`multishot` where the kernel can do it), over every "
        "other server under each load of a closed loop:",
        summary(data),
        strangers(rows),
        bullets(list(standing(data)), "There is no `auto` to tell of."),
        "A gain is echoes a second over the other's; where the client was the limit, echoes per second of CPU time. It is "
        "taken pair by pair within the rounds, and the median counts; within "
        f"{TIE:.0%}, or with quartiles on both sides of 1, is a tie. The client is taken for the limit where its core was more than {BUSY:.0%} busy.",
        " ".join(where_it_goes(data)),
        "## The seed's three tables",
        "The columns are those of the server that this one descends from (io_uring-echo-server): three runs, the middle "
        "one, the rate against the first row; USE_POLL is a poll before each receive, RECV_SEND receives and sends rather "
        "than reads and writes, UNVEC_OP one buffer rather than a vector. Below each the same figures in pairs, with what "
        "they cost.",
        *(section(table, images) for table in data.seed),
        "## The seed's advice on this kernel",
        "Each figure is the gain of the first mode over the second.",
        advice(data),
        "## Beyond those tables",
        *(section(table, images) for table in data.beyond),
        "### Peers that send and never read",
        "Such a peer is called deaf. Kept is what the others' rate beside them is of their rate alone.",
        echo_report.deaf_table(data.deaf),
        deaf_sentence(data),
        "## Reading files",
        read_report.intro(data.read),
        f"![Reads per second]({images['reads']})" if "reads" in images else "",
        *(f"### {capital(read_report.title(entries[0]))}\n\n{read_report.table(entries)}"
          for entries in read_report.groups(data.read)),
        "The raw layer's reads per second over those of the others, for each in the better of its two ways, pair by pair:",
        bullets(list(reads_text(data)), "Nothing was read."),
        "\n".join(f"* {name}: {text}" for name, text in read_report.NOTES.items()),
        "## The ring by itself",
        ring.report(data.nop),
        "## Where a ring does not pay",
        bullets(list(losses(data)), "Nowhere, among what was measured here."),
        f"It makes no difference at {listing(drawn)}." if drawn else "",
        "## How it was measured",
        bullets([*echo_report.notes(first), *filter(None, closing)], ""),
    ]  # fmt: skip
    return "\n\n".join(filter(None, blocks)) + "\n"
