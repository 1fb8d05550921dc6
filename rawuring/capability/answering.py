"""Let a forked child find something out, and answer in JSON.

May import diagnosis. Never lets what the child did reach this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from ..diagnosis import child

_ROOM_NBYTES: Final = 1 << 16


def in_child(work: Callable[[], Any], timeout_s: float = child.TIMEOUT_S) -> Any:
    """What `work` returned; None if the child was ended, hung, raised or could not be made."""

    def write(memory: memoryview) -> None:
        octets = json.dumps(work()).encode("ascii")
        memory[: len(octets)] = octets

    octets = child.run(write, _ROOM_NBYTES, timeout_s).octets.rstrip(bytes([child.UNWRITTEN]))
    return json.loads(octets) if octets else None
