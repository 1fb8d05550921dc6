"""Look into a ring: SQEs and CQEs as readable values, the kernel's own view, the queues as text.

May import everything below it; nothing of rawuring needs it. It only looks: no head moves, no
SQE is written, and no completion is taken.

    from rawuring import Ring, inspect

    print(inspect.sqe(entry))                # RECV sockfd=7 addr=0x5590a0 nbytes=64 user_data=0x7
    print(inspect.sqe(entry).explain())      # every field, and what is wrong with it
    print(inspect.cqe(7, -11, 0))            # user_data=0x7 res=-11 (-EAGAIN, ...)
    print(inspect.draw(ring))                # both queues
    print(inspect.compare(ring))             # does the kernel see what we see?
"""

from __future__ import annotations

from .completions import Cqe, cqe, cqe_at
from .drawing import draw
from .kernel import Armed, Comparison, KernelView, ShownCqe, ShownSqe, compare, compare_views, fdinfo, parse_fdinfo
from .requests import Sqe, sqe
from .state import Entry, RingState, copy_of, state

__all__ = [
    "Armed",
    "Comparison",
    "Cqe",
    "Entry",
    "KernelView",
    "RingState",
    "ShownCqe",
    "ShownSqe",
    "Sqe",
    "compare",
    "compare_views",
    "copy_of",
    "cqe",
    "cqe_at",
    "draw",
    "fdinfo",
    "parse_fdinfo",
    "sqe",
    "state",
]
