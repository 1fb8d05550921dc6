"""A ring as text, at most 80 columns wide.

May import abi, prep, ring, `state` and `values`.

Every slot of a queue is one character, 64 to a line. A `*` stands for lines like the one above.
Then follow the entries that somebody has still to take, the first and the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from .. import abi
from ..prep.base import U32
from ..ring import Ring
from .state import Entry, RingState, state
from .values import enum_names

COLUMNS: Final = 80
_PER_LINE: Final = 64
_SHOWN: Final = 8  # entries of a queue, before some are left out

_FREE, _CONSUMED, _PUBLISHED, _WRITTEN = ".", "x", "#", "+"
_SEEN, _UNSEEN = "x", "#"


def draw(ring: Ring | RingState) -> str:
    """The two queues of a ring, or of a state copied from it, as text."""
    now = ring if isinstance(ring, RingState) else state(ring)
    lines = [*_wrapped(f"ring {enum_names(now.setup_flags, abi.Setup)}"), *_sq_lines(now), *_cq_lines(now)]
    return "\n".join(_cut(line) for line in lines)


def _sq_lines(now: RingState) -> Iterator[str]:
    array = "SQ array: slot i at i" if now.has_sq_array else "no SQ array"
    yield f"SQ  {now.sq_entries} slots of {now.sqe_nbytes} bytes, {array}"
    yield from _strip(_sq_slots(now))
    yield f"    {_CONSUMED} consumed  {_PUBLISHED} published  {_WRITTEN} written, not published  {_FREE} never used"
    yield (
        f"    {_at('head', now.sq_head, now.sq_slot)}  {_at('tail', now.sq_published, now.sq_slot)}"
        f"  {_at('next', now.sq_tail, now.sq_slot)}"
    )
    yield f"    flags {enum_names(now.sq_flags, abi.SqRingFlag)}  dropped {now.sq_dropped}"
    waiting = now.sqes(now.sq_head, now.sq_tail)
    yield from _some([(entry, _PUBLISHED if entry.position < now.sq_published else _WRITTEN) for entry in waiting])


def _cq_lines(now: RingState) -> Iterator[str]:
    yield f"CQ  {now.cq_entries} slots of {now.cqe_nbytes} bytes"
    yield from _strip(_cq_slots(now))
    yield f"    {_SEEN} seen  {_UNSEEN} completed, not seen  {_FREE} never used"
    yield f"    {_at('head', now.cq_head, now.cq_slot)}  {_at('tail', now.cq_tail, now.cq_slot)}"
    words = "none" if now.cq_flags is None else enum_names(now.cq_flags, abi.CqRingFlag)
    yield f"    flags {words}  overflow {now.cq_overflow}"
    yield from _some([(entry, _UNSEEN) for entry in now.cqes(now.cq_head, now.cq_tail)])


def _sq_slots(now: RingState) -> str:
    slots = _before(_CONSUMED, now.sq_head - now.sq_origin, now.sq_entries)
    # No queue holds more than its slots, but words that somebody wrote over may say so.
    for position in range(now.sq_head, min(now.sq_tail, now.sq_head + now.sq_entries)):
        slots[now.sq_slot(position)] = _PUBLISHED if position < now.sq_published else _WRITTEN
    return "".join(slots)


def _cq_slots(now: RingState) -> str:
    slots = _before(_SEEN, now.cq_head, now.cq_entries)
    for position in range(now.cq_head, min(now.cq_tail, now.cq_head + now.cq_entries)):
        slots[now.cq_slot(position)] = _UNSEEN
    return "".join(slots)


def _before(sign: str, head: int, entries: int) -> list[str]:
    """The slots before a head that has gone that far: used once, or never yet."""
    used = min(max(head, 0), entries)
    return [sign] * used + [_FREE] * (entries - used)


def _strip(slots: str) -> Iterator[str]:
    """The slots in lines of 64, each with the number of its first slot."""
    last, elided = "", False
    for start in range(0, len(slots), _PER_LINE):
        row = slots[start : start + _PER_LINE]
        if row == last and start + _PER_LINE < len(slots):
            if not elided:
                yield "      *"
            elided = True
            continue
        last, elided = row, False
        yield f"{start:>7} {row}"


def _at(name: str, position: int, slot_of: Callable[[int], int]) -> str:
    return f"{name} {position & U32} (slot {slot_of(position)})"


def _some(entries: list[tuple[Entry, str]]) -> Iterator[str]:
    """The first and the last entries, each with its sign."""
    half = _SHOWN // 2
    left_out = entries[half:-half] if len(entries) > _SHOWN else []
    for entry, sign in entries[:half] if left_out else entries:
        yield _line(entry, sign)
    if left_out:
        yield f"        ... {len(left_out)} more"
        for entry, sign in entries[-half:]:
            yield _line(entry, sign)


def _line(entry: Entry, sign: str) -> str:
    slots = str(entry.slot) if entry.nslots == 1 else f"{entry.slot}-{entry.slot + entry.nslots - 1}"
    return f"{slots:>7} {sign} {entry.value}"


def _wrapped(line: str) -> Iterator[str]:
    """A line of names with `|` between, in several if it is too long."""
    while len(line) > COLUMNS:
        end = line.rindex("|", 0, COLUMNS) + 1
        yield line[:end]
        line = "     " + line[end:]
    yield line


def _cut(line: str) -> str:
    return line if len(line) <= COLUMNS else line[: COLUMNS - 3] + "..."
