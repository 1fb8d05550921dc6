"""Ctrl-C at every line of sends without copies, bundles and incremental buffers.

What is done and what must hold is in interrupted_sockets.py, which a child process runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import RunChild
from interrupted_sockets import SCENARIOS
from support import needs

from rawuring import Ring, abi

MAIN = f"""
import sys, warnings
sys.path.insert(0, {str(Path(__file__).parent)!r})
import interrupted, interrupted_sockets
warnings.simplefilter("error")
interrupted.run(interrupted_sockets.SCENARIOS[sys.argv[1]])
"""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_interrupted_at_every_line(run_child: RunChild, scenario: str) -> None:
    with Ring(8) as ring:
        if scenario == "SendZeroCopy":
            needs(abi.Op.SEND_ZC.since, ring.supports(abi.Op.SEND_ZC))
        else:
            feature = abi.Feature.MIN_TIMEOUT if scenario == "Incremental" else abi.Feature.RECVSEND_BUNDLE
            needs(feature.since, bool(ring.features & feature))  # which came with them
    nlines = int(run_child(MAIN, scenario).stdout)
    assert nlines > 30, "the trace function saw hardly any of our code"
