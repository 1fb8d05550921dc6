"""Whether the completions of streams keep the order in which requests used their buffers: asked of the kernel, by a trial.

May import everything below ring. It makes a ring of its own, and never uses the caller's.
"""

from __future__ import annotations

import os

from ..errors import RawuringError
from ..hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import Ring

_answer: list[bool] = []


def streams_keep_order(kind: type[Ring]) -> bool:
    """Does a completion of a stream come after those of requests that were done before? The kernel is asked once."""
    if not _answer:
        try:
            _answer.append(_try(kind))
        except (OSError, RawuringError):
            return False  # no fd or memory for a trial: another time
    return _answer[0]


def _try(kind: type[Ring]) -> bool:
    """Have a NOP done, and after it a read of a stream, in one enter.

    The completion of the NOP is posted at the end of that enter; that of the read at once, before
    it, unless the kernel first posts what it holds back.
    """
    seen: list[str] = []

    def note(operation: Any, res: int, cqe_flags: int) -> None:
        seen.append(operation.name)

    reader, writer = os.pipe()
    try:
        os.write(writer, b"x")
        with kind(4) as ring:
            pool = ring.buffer_ring(1, 1)
            ring.nop(callback=note)
            ring.read_multishot(reader, pool, callback=note)
            ring.run_once()
        return seen[:2] == ["nop", "read_multishot"]
    finally:
        os.close(reader)
        os.close(writer)
