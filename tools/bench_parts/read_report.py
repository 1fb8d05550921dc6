"""The tables of `bench.py read` as Markdown. Reads figures, measures nothing. Imports its neighbour `measure`."""

from __future__ import annotations

from collections.abc import Sequence

from tools.bench_parts.measure import Json, Spread, markdown, ratios, spread

TIE = 0.02

NOTES = {
    "ring": "the raw layer, `prep_read_fixed` on registered files and a registered buffer: a slot is queued anew as it "
    "completes, and one system call takes all that are queued.",
    "ring, block": "the same with an `SqeBlock`: what differs from the reads of the turn before is written, a field of "
    "all at a time, and one copy queues them.",
    "ring, owned": "`ring.read_fixed` with a callback that queues the next.",
    "preadv": "`os.preadv` in a loop, one at a time whatever the depth.",
    "thread pool": "a ThreadPoolExecutor of as many threads as the depth, and a future for each read: what event loops "
    "use for files.",
    "threads": "as many threads as the depth, each with a loop of `os.preadv` of its own; nothing is handed over, so no "
    "program can wait for one of its reads and do something else meanwhile.",
    "liburing": "the compiled binding from PyPI as its documentation uses it, with registered files and buffers.",
    "liburing iter": "the same in its quickest way: one call that submits and waits, one iterator over the completions.",
}


def rates(legs: Sequence[Json]) -> list[float]:
    """Reads per second, leg by leg."""
    return [leg["reads"] / leg["wall_ns"] * 1e9 for leg in legs]


def cpu_us(legs: Sequence[Json]) -> list[float]:
    """CPU microseconds per read, leg by leg."""
    return [leg["cpu_ns"] / leg["reads"] / 1e3 for leg in legs]


def over(entry: Json, name: str, other: str) -> Spread | None:
    """The rate of one contestant over that of another, round by round; None if one of them is missing."""
    legs = entry["legs"]
    if name not in legs or other not in legs:
        return None
    return spread(ratios(rates(legs[name]), rates(legs[other])))


def raw_layer(entry: Json) -> list[str]:
    """The contestants of the raw layer that were there."""
    return [name for name in ("ring", "ring, block") if name in entry["legs"]]


def best_over(entry: Json, other: str) -> Spread | None:
    """The rate of the quickest of the raw layer over that of another; None if one of them is missing."""
    found = [ratio for ratio in (over(entry, name, other) for name in raw_layer(entry)) if ratio]
    return max(found, key=lambda ratio: ratio.median, default=None)


def title(entry: Json) -> str:
    many = f"{entry['files']} files" if entry["files"] > 1 else "one file"
    return f"{'O_DIRECT' if entry['direct'] else 'page cache'}, {many}"


def table(entries: Sequence[Json]) -> str:
    """One table: the depths of one kind of file."""
    ours = raw_layer(entries[0])
    header = ["depth", "reader", "reads/s", "quartiles"]
    for our in ours:
        header += [f"{our.removeprefix('ring, ')} over it", "quartiles"]
    header.append("CPU us/read")
    lines = []
    for entry in entries:
        for name, legs in entry["legs"].items():
            rate = spread(rates(legs))
            line = [str(entry["depth"]), name, rate.text(0), rate.quartiles(0)]
            for our in ours:
                ratio = over(entry, our, name)
                assert ratio is not None
                line += [ratio.text(2), ratio.quartiles(2)]
            lines.append([*line, spread(cpu_us(legs)).text(2)])
    return markdown(header, lines, left=2)


def groups(result: Json) -> list[list[Json]]:
    """The results by kind of file: each is a table."""
    found: dict[str, list[Json]] = {}
    for entry in result["results"]:
        found.setdefault(title(entry), []).append(entry)
    return list(found.values())


def intro(result: Json) -> str:
    return (
        f"Random reads of 4 KiB out of {result['nbytes'] / 2**20:,.0f} MiB on {result['file_system']}; {result['pairs']} rounds "
        f"of {result['leg_s']:g} s. Nothing is pinned: every reader may use all CPUs."
    )


def report(result: Json) -> str:
    """The whole report as Markdown."""
    blocks = [intro(result)]
    for entries in groups(result):
        blocks += [f"### {title(entries[0])[0].upper()}{title(entries[0])[1:]}", table(entries)]
    names = dict.fromkeys(name for entry in result["results"] for name in entry["legs"])
    lines = [f"* {name}: {NOTES[name]}" for name in names]
    lines += [f"* Missing: {line}" for line in result["missing"]]
    return "\n\n".join([*blocks, "\n".join(lines)])
