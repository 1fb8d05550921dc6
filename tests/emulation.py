"""What a machine that is emulated changes for the tests. Imports the standard library only.

RAWURING_EMULATED=1 says that every instruction of this machine is emulated: that makes it some 20 times slower than a
real one. What tells that something hangs is patient then, and a loop whose later turns are like its earlier ones ends
sooner. No test asserts anything else for it. This module alone reads the variable; whoever boots a guest sets it
there, and selects with `-m "not slow"`.
"""

from __future__ import annotations

import os

EMULATED = os.environ.get("RAWURING_EMULATED") == "1"

PATIENCE = 5 if EMULATED else 1
"""How much longer than on a real machine a test waits before it says that something hangs."""

HANG_S = 30 * PATIENCE
"""How long a test waits for what should come at once; nothing is measured by it."""
HANG_NS = HANG_S * 10**9


def fewer(turns: int, by: int = 20) -> int:
    """How often to do what is like the time before: `turns` times, under emulation a `by`-th part of them."""
    return max(1, turns // by) if EMULATED else turns
